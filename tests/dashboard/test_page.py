from __future__ import annotations

from typing import Any

import pytest

from bacpipe.dashboard.page import VIEWS
from bacpipe.dashboard.server import Server
from tests.dashboard.conftest import eventually


def test_the_first_view_opens_without_complaints(visit: Any) -> None:
    page = visit()
    page.wait_for_selector("canvas")
    eventually(page, lambda: page.title().startswith("bacpipe"))


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.key)
def test_every_view_opens_and_explains_itself(visit: Any, view: type) -> None:
    page = visit(f"?view={view.key}")
    # The card follows after the choices, and lies over none.
    choices = page.locator(".bp-choices >> visible=true")
    choices.wait_for()
    eventually(page, lambda: choices.evaluate("(part) => part.scrollHeight - part.clientHeight"), 0)
    page.get_by_text("What is this?").locator("visible=true").click()
    first_words = view.help_text.strip().splitlines()[0].replace("*", "").split(".")[0]
    page.get_by_text(first_words[:40]).locator("visible=true").first.wait_for()
    # The hostile label is shown as text wherever labels are shown, and has not run.
    assert page.evaluate("window.hacked") is None


def test_back_returns_to_the_tab_before_as_it_was(visit: Any) -> None:
    page = visit("?model=other&colour=parent_directory")
    page.get_by_text("site2").first.wait_for()
    page.get_by_role("button", name="Data").click()
    page.get_by_text("recordings failed").first.wait_for()
    page.wait_for_url("**view=data**")
    page.get_by_label("Failures").check()
    page.wait_for_url("**data=failures**")
    page.go_back()  # over the other part: only tabs are steps
    page.get_by_text("site2").first.wait_for()
    eventually(page, lambda: "view=data" not in page.url and "model=other" in page.url)
    eventually(page, page.get_by_label("Colour by").input_value, "Folder")


_SEEN = "&model=tiny&recording=site1/rec_20240501_180000.wav&start=3.0"


@pytest.mark.parametrize(
    ("key", "query"),
    [*((view.key, "") for view in VIEWS), ("explore", f"{_SEEN}&theme=dark")],
)
def test_nothing_serious_keeps_people_out(visit: Any, key: str, query: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = visit(f"?view={key}{query}")
    if query:
        page.get_by_text("Search with this window").wait_for()
    # These show no figure before they are asked, or without detections or marks.
    drawn = {"review": "[role=img]"} | dict.fromkeys(("search", "teach", "places"), ".bp-body")
    page.locator(f"{drawn.get(key, '.bk-Figure')} >> visible=true").first.wait_for()

    def serious() -> list[tuple[str, list[str]]]:
        found = [
            (rule["id"], [node["html"][:120] for node in rule["nodes"]])
            for rule in axe.run(page).response["violations"]
            if rule["impact"] in ("serious", "critical")
        ]
        # Tabulator's own: its grid has a footer of pages beside the rows.
        own = [
            (rule, nodes)
            for rule, nodes in found
            if rule == "aria-required-children" and all("tabulator" in node for node in nodes)
        ]
        return [violation for violation in found if violation not in own]

    eventually(page, serious, [])  # what is still being drawn gets its names soon


# Figures and notes that stick out of the column that they stand in, over what follows, and widgets
# that are too narrow to be used.
_CRAMPED = """
() => {
  const all = (root, found = []) => {
    for (const part of root.querySelectorAll("*")) {
      found.push(part);
      if (part.shadowRoot) all(part.shadowRoot, found);
    }
    return found;
  };
  const columns = ".bp-side, .bp-beside, .bp-maps";
  const column = (part) => {
    while (part && !part.matches?.(columns)) part = part.parentNode ?? part.host;
    return part;
  };
  const parts = all(document).filter((part) => part.checkVisibility());
  const figures = parts.filter((part) => part.matches(".bk-Figure") && part.offsetHeight > 100);
  const found = [];
  for (const part of [...figures, ...parts.filter((part) => part.matches(".bp-note"))]) {
    const around = column(part);
    const over = part.getBoundingClientRect().bottom - around?.getBoundingClientRect().bottom;
    if (over > 3) found.push([part.className, over]);
  }
  for (const part of parts)
    if (part.matches("select, input[type=text], .bk-btn") && part.offsetWidth <= 20)
      found.push(part.outerHTML.slice(0, 80));
  return [figures.length > 1, found];
}
"""


@pytest.mark.parametrize("view", ["predictions", "compare"])
def test_on_narrow_screens_parts_stand_below_one_another(visit: Any, view: str) -> None:
    page = visit(f"?view={view}", width=700)
    eventually(page, lambda: page.evaluate(_CRAMPED), [True, []])


def test_the_dark_theme_is_a_click_away_and_back(visit: Any) -> None:
    page = visit("?view=explore")
    page.get_by_role("button", name="Dark", exact=True).click()
    page.get_by_role("button", name="Light", exact=True).wait_for()
    page.locator(".bk-Figure >> visible=true").first.wait_for()
    assert "theme=dark" in page.url and "Traceback" not in page.content()
    page.get_by_role("button", name="Light", exact=True).click()
    page.get_by_role("button", name="Dark", exact=True).wait_for()


def test_visitors_do_not_disturb_each_other(visit: Any, server: Server) -> None:
    one, other = visit("?view=data"), visit("?view=explore")
    one.get_by_text("recordings failed").first.wait_for()
    other.get_by_text("Colour by").first.wait_for()
    other.get_by_role("button", name="Predictions").click()
    other.get_by_text("Predicted by").first.wait_for()
    eventually(one, lambda: "view=data" in one.url)
    other.close()
    one.get_by_role("button", name="All models").click()
    one.get_by_text("Retrieval").first.wait_for()
    eventually(one, lambda: "view=models" in one.url)
