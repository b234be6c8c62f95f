from __future__ import annotations

import re
from typing import Any

import pytest

from bacpipe.dashboard.page import VIEWS
from bacpipe.dashboard.server import Server
from bacpipe.dashboard.shared.spectrogram_figure import SpectrogramSettings
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


# Of several tabs, because what they say of one tab is meant for the others, too.
_SHARED = {"model", "recording", "start", "channel", "source", "species", "hours", "label",
           "recogniser", "by"}  # fmt: skip


def test_no_two_choices_have_one_key_in_the_address() -> None:
    holders: dict[str, list[Any]] = {}
    kinds: tuple[Any, ...] = (*VIEWS, SpectrogramSettings)
    for kind in kinds:
        for name, key in kind.in_address.items():
            holders.setdefault(key, []).append(kind.param[name])
    assert {key for key, choices in holders.items() if len(choices) > 1} == _SHARED
    for key in _SHARED:
        first, *others = holders[key]
        for choice in others:
            assert type(choice) is type(first), key
            fixed = [set(getattr(part, "objects", ())) - {""} for part in (first, choice)]
            assert not all(fixed) or fixed[0] == fixed[1], key


def test_what_is_chosen_in_review_is_in_its_address(visit: Any) -> None:
    page = visit("?view=review&model=tiny")
    page.get_by_role("img", name=re.compile("^Spectrogram of")).wait_for()
    page.get_by_label("Seconds around").locator("visible=true").select_option("3 s")
    page.wait_for_url("**review_around=3**")


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


_RECORDING = "site1/rec_20240501_180000.wav"
_SEEN = f"&model=tiny&recording={_RECORDING}&start=3.0"
_ALL = """
  const all = (root, found = []) => {
    for (const part of root.querySelectorAll("*")) {
      found.push(part);
      if (part.shadowRoot) all(part.shadowRoot, found);
    }
    return found;
  };
  const parts = all(document).filter((part) => part.checkVisibility());
"""
# Figures and players without a role or a name, and players that one has to scroll to.
_UNKNOWN = f"""
() => {{{_ALL}
  const unknown = parts.filter((part) => {{
    if (!part.matches(".bk-Figure, audio")) return false;
    const named = part.matches("audio") ? part.getRootNode().host : part;
    return named.role !== "group" || !named.ariaLabel;
  }});
  const below = parts.filter((part) => part.matches("audio")
    && part.getBoundingClientRect().bottom > window.innerHeight);
  return [...unknown, ...below].map((part) => part.outerHTML.slice(0, 100));
}}
"""
_PLAYER = f"Player of {_RECORDING}, 3.00 to 4.00 s"


@pytest.mark.parametrize(
    ("key", "query", "names"),
    [
        *((view.key, "", []) for view in VIEWS),
        ("explore", f"{_SEEN}&theme=dark",
         ["Map of 72 windows of tiny, coloured by annotations: species",
          f"Spectrogram of {_RECORDING}, 3.00 to 4.00 s", _PLAYER]),
        ("search", f'&model=tiny&like=[["{_RECORDING}",3.0]]', ["play"]),
        ("compare", f"&left=tiny&right=other&compare_window=left@3.000@{_RECORDING}",
         ["Map of 144 windows of other", "Agreement of the neighbourhoods", _PLAYER]),
        ("models", "&part=probing", ["F1 (mean over labels) of 2 models"]),
        ("predictions", f"{_SEEN}&species=quiet",
         ["Heat map of", "Histogram of the scores of", _PLAYER]),
        ("data", f"&data=whole&whole={_RECORDING}",
         [f"Spectrogram of {_RECORDING}, 0 to 12 s", "Player without a sound"]),
    ],
)  # fmt: skip
def test_nothing_serious_keeps_people_out(
    visit: Any, key: str, query: str, names: list[str]
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = visit(f"?view={key}{query}")
    for name in names:
        role = "button" if name == "play" else "group"
        page.get_by_role(role, name=name).locator("visible=true").first.wait_for()
    # These show no figure before they are asked, or without detections or marks.
    drawn = {"review": "[role=img]"} | dict.fromkeys(("search", "teach", "places"), ".bp-body")
    page.locator(f"{drawn.get(key, '.bk-Figure')} >> visible=true").first.wait_for()

    def serious() -> list[tuple[str, list[str]]]:
        found = [
            (rule["id"], [node["html"][:120] for node in rule["nodes"]])
            for rule in axe.run(page, options={"resultTypes": ["violations"]}).response[
                "violations"
            ]
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
    eventually(page, lambda: page.evaluate(_UNKNOWN), [])


def test_the_map_is_walked_on_by_keyboard(visit: Any) -> None:
    page = visit("?view=explore&model=tiny")
    page.get_by_role("group", name="Map of 72 windows of tiny").wait_for()
    step = page.get_by_role("button", name="window →")
    player = page.get_by_role("group", name="Player of site").locator("visible=true")
    shown: list[str | None] = [None]
    for _ in range(2):
        step.focus()
        page.locator(".bp-steps").and_(page.locator(":focus-within")).wait_for()
        page.keyboard.press("Enter")
        player.wait_for()
        eventually(page, lambda: player.get_attribute("aria-label") not in shown)
        shown.append(player.get_attribute("aria-label"))


# Figures and notes that stick out of the column that they stand in, over what follows, and widgets
# that are too narrow to be used.
_CRAMPED = (
    f"() => {{{_ALL}"
    + """
  const columns = ".bp-side, .bp-beside, .bp-maps";
  const column = (part) => {
    while (part && !part.matches?.(columns)) part = part.parentNode ?? part.host;
    return part;
  };
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
)


@pytest.mark.parametrize("view", ["predictions", "compare"])
def test_on_narrow_screens_parts_stand_below_one_another(visit: Any, view: str) -> None:
    page = visit(f"?view={view}", width=700)
    eventually(page, lambda: page.evaluate(_CRAMPED), [True, []])


# The share of a view that something is drawn or written in.
_FILLED = (
    f"() => {{{_ALL}"
    + """
  const drawn = parts.filter((part) => part.matches(
    ".bk-Figure, .tabulator, audio, .bp-card, .bp-say, .bp-legend, .bp-classes, select, summary"));
  const boxes = drawn.map((part) => part.getBoundingClientRect());
  const covers = (x, y) => ({left, right, top, bottom}) => (
    left <= x && x <= right && top <= y && y <= bottom);
  let [inside, points] = [0, 0];
  for (let x = 280; x < innerWidth; x += 20) for (let y = 60; y < innerHeight; y += 20) {
    points += 1;
    inside += boxes.some(covers(x, y));
  }
  return inside / points;
}
"""
)


@pytest.mark.parametrize(
    "query",
    [f"explore{_SEEN}", "data", "data&data=whole", "models", f"predictions{_SEEN}&species=quiet"],
)
def test_less_than_half_of_a_large_screen_is_empty(visit: Any, query: str) -> None:
    page = visit(f"?view={query}", width=1920, height=1080)
    eventually(page, lambda: page.evaluate(_FILLED) > 0.5)


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
