from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bacpipe.dashboard.compare.view import CompareView
from bacpipe.dashboard.server import open_data_set
from bacpipe.dashboard.shared.labels import NONE, WindowLabels, with_common_names
from bacpipe.dashboard.shared.results import DataSetResults
from bacpipe.labels.matching import overlapping_windows
from tests.dashboard.conftest import HOSTILE_LABEL, eventually, gesture

RECORDING = "site1/rec_20240501_040000.wav"


@pytest.fixture
def view(data_set: DataSetResults) -> CompareView:
    """The view outside of a browser, where everything is computed at once."""
    opened = CompareView(data_set, left="tiny", right="other")
    opened.left, opened.right = "tiny", "other"
    opened.controls(), opened.body()
    opened.opened()
    return opened


def test_it_opens_with_maps_agreement_and_labels_as_text(visit: Any) -> None:
    page = visit("?view=compare&left=tiny&right=other")
    page.wait_for_selector(".bp-number")
    eventually(page, lambda: page.locator(".bk-Figure canvas").count() >= 2)
    page.get_by_text("By chance it would be").wait_for()
    page.locator(".bp-legend", has_text=HOSTILE_LABEL).wait_for()
    assert page.evaluate("window.hacked") is None


def test_a_window_in_the_address_is_shown_and_marked(visit: Any) -> None:
    page = visit(f"?view=compare&left=tiny&right=other&compare_window=left@3.000@{RECORDING}")
    page.get_by_text("2 windows of the same moment").wait_for()
    page.get_by_text("3.00 – 4.00 s").wait_for()


def test_a_lasso_in_one_map_marks_windows_of_the_other(visit: Any) -> None:
    page = visit("?view=compare&left=tiny&right=other")
    page.wait_for_selector(".bp-number")
    figure = page.locator(".bk-Figure").first
    page.locator(".bk-tool-icon-lasso-select").first.click()

    def lasso(box: dict[str, float]) -> None:
        left, top = box["x"] + 9, box["y"] + 34
        right, bottom = box["x"] + box["width"] - 9, box["y"] + box["height"] - 9
        page.mouse.move(left, top)
        page.mouse.down()
        for x, y in ((right, top), (right, bottom), (left, bottom), (left, top + 4)):
            page.mouse.move(x, y, steps=4)
        page.mouse.up()

    gesture(
        page,
        figure.bounding_box,
        lasso,
        lambda: page.get_by_text("72 windows selected at the left").count() > 0,
    )
    # A map is drawn where it is, not over what is below it.
    drawn = figure.locator(".bk-events").bounding_box()
    assert drawn == pytest.approx(figure.bounding_box(), abs=2)
    page.get_by_text("144 windows of the same moments").wait_for()


def test_choices_go_to_the_address_and_come_from_it(visit: Any) -> None:
    page = visit("?view=compare&left=tiny&right=other&compare_colour=agreement&neighbours=5")
    page.get_by_text("of the 5 nearest neighbours").wait_for()
    colour = page.get_by_label("Colour", exact=True)
    eventually(page, colour.input_value, "Agreement of the two models")
    page.locator(".bp-legend", has_text="100 %").wait_for()
    page.get_by_label("Colour", exact=True).select_option("Folder")
    page.wait_for_url("**compare_colour=parent_directory**")
    page.get_by_text("site2").first.wait_for()


def test_selections_are_linked_in_both_directions(view: CompareView) -> None:
    left, right = view._results
    for side, rows in ((0, np.array([0, 5])), (1, np.array([3, 40, 41]))):
        view._selected(side, rows)
        one, other = (left, right) if side == 0 else (right, left)
        expected = overlapping_windows(one.windows, rows, other.windows)
        assert len(expected)
        assert view._maps[1 - side]._picked.tolist() == expected.tolist()
    view._selected(0, np.zeros(0, np.int64))
    assert view._maps[1]._picked.tolist() == []


def test_a_click_shows_the_window_and_rings_its_best_match(view: CompareView) -> None:
    view._clicked(0, 13)
    assert view.window == f"left@1.000@{RECORDING.replace('04', '05', 2).replace('0505', '0501')}"
    assert (view._maps[0]._current, view._details.row) == (13, 13)
    assert view._maps[1]._picked.tolist() == [26, 27]
    assert view._maps[1]._current == 26


@pytest.mark.parametrize(
    "window", ["x", "left@nan@a.wav", "left@1@../../etc/passwd", f"middle@1@{RECORDING}"]
)
def test_impossible_windows_in_the_address_are_named(view: CompareView, window: str) -> None:
    view.window = window
    assert window in view.notice.sentence
    assert view._details.row is None


def test_the_agreement_of_a_model_with_itself_is_whole(view: CompareView) -> None:
    view.right = "tiny"
    assert "100 %" in view._agreement._text.object


def test_labels_have_the_same_colours_in_both_maps(view: CompareView) -> None:
    names = [part._labels.names for part in view._maps]
    assert names[0] == names[1]
    assert HOSTILE_LABEL in names[0]
    assert view._maps[0].colours == view._maps[1].colours


def test_one_species_has_one_name_in_all_models() -> None:
    one = WindowLabels(
        "default_classifier", np.array([0, 1, 2], np.int32),
        ("European Robin", "Gunshot", "Upcall"), False,
        ("Erithacus rubecula", "Eubalaena japonica", "Eubalaena japonica"),
    )  # fmt: skip
    other = WindowLabels(
        "default_classifier", np.array([1, 0], np.int32), ("Rain", "Rotkehlchen"), False,
        ("", "Erithacus rubecula"),
    )  # fmt: skip
    found = with_common_names([one, other])
    assert found[0].names == found[1].names == ("European Robin", "Gunshot", "Upcall", "Rain")
    assert [part.codes.tolist() for part in found] == [[0, 1, 2], [0, 3]]


def test_common_names_keep_the_label_of_every_window() -> None:
    one = WindowLabels("day", np.array([0, 1, NONE], np.int32), ("9", "120"), True)
    other = WindowLabels("day", np.array([1, 0], np.int32), ("12", "120"), True)
    found = with_common_names([one, other])
    assert found[0].names == found[1].names == ("9", "12", "120")
    assert [found[0].names[code] for code in found[0].codes[:2]] == ["9", "120"]
    assert found[0].codes[2] == NONE
    assert [found[1].names[code] for code in found[1].codes] == ["120", "12"]


def test_one_model_alone_is_told_what_to_do(results: tuple[Path, Path]) -> None:
    audio, stored = results
    alone = open_data_set(["tiny"], audio_dir=audio, main_results_dir=stored)
    view = CompareView(alone)
    view.controls()
    assert "There are results of tiny only" in view.body().object
    view.opened()


def test_a_model_without_a_map_does_not_hide_the_other(
    view: CompareView, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(view._results[1].__dict__, "maps", {})
    view._place()
    assert view._maps[0].panel.visible and not view._maps[1].panel.visible
    assert "no map yet" in view._missing[1].object
    assert "%" in view._agreement._text.object
