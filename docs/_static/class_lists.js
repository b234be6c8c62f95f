// A box above a list of classes: only rows that have all its words, in any of their names, stay.
"use strict";

function plain(text) {
  return text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase();
}

document.addEventListener("DOMContentLoaded", () => {
  for (const list of document.querySelectorAll(".class-list")) {
    const rows = [...list.querySelectorAll("tbody tr")];
    const names = rows.map((row) => plain([...row.cells].map((c) => c.textContent).join(" ")));
    const label = document.createElement("label");
    const box = document.createElement("input");
    const found = document.createElement("output");
    box.type = "search";
    box.placeholder = "a part of a name";
    label.append(`Search the classes of ${list.dataset.model} `, box);
    const search = () => {
      const words = plain(box.value).split(/\s+/);
      let count = 0;
      rows.forEach((row, n) => {
        row.hidden = !words.every((word) => names[n].includes(word));
        count += row.hidden ? 0 : 1;
      });
      found.textContent = `${count} of ${rows.length}`;
    };
    box.addEventListener("input", search);
    list.prepend(label, found);
    search();
  }
});
