// Blocks that do the same in several languages become tabs; what was chosen once is chosen on all
// pages. Without this script they stand below each other, as on a code host.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  const names = { bash: "Command line", python: "Python", yaml: "config.yaml", r: "R" };
  const groups = [...document.querySelectorAll("div.tabs")].map((group, number) => {
    const list = document.createElement("div");
    list.setAttribute("role", "tablist");
    list.setAttribute("aria-label", "The same in");
    const blocks = group.querySelectorAll(':scope > [class*="highlight-"]');
    const tabs = [...blocks].map((panel) => {
      const language = /highlight-(\w+)/.exec(panel.className)[1];
      const tab = document.createElement("button");
      tab.type = "button";
      tab.id = `tab-${number}-${language}`;
      tab.textContent = names[language];
      tab.setAttribute("role", "tab");
      panel.id = `${tab.id}-panel`;
      panel.setAttribute("role", "tabpanel");
      panel.setAttribute("aria-labelledby", tab.id);
      tab.setAttribute("aria-controls", panel.id);
      tab.addEventListener("click", () => choose(language));
      list.append(tab);
      return { language, tab, panel };
    });
    list.addEventListener("keydown", ({ key }) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[key];
      if (!step) return;
      const here = tabs.findIndex(({ tab }) => tab === document.activeElement);
      const next = tabs[(here + step + tabs.length) % tabs.length];
      choose(next.language);
      next.tab.focus();
    });
    group.prepend(list);
    return tabs;
  });

  function show(language) {
    for (const tabs of groups) {
      if (!tabs.some((one) => one.language === language)) continue;
      for (const { language: own, tab, panel } of tabs) {
        tab.setAttribute("aria-selected", String(own === language));
        tab.tabIndex = own === language ? 0 : -1;
        panel.hidden = own !== language;
      }
    }
  }

  function choose(language) {
    localStorage.setItem("language", language);
    show(language);
  }

  for (const tabs of groups) show(tabs[0].language);
  show(localStorage.getItem("language"));
});
