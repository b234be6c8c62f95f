"""Labels of windows: all of them count, for just the windows that they are about."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import bacpipe
from bacpipe.annotations.table import read_annotations
from bacpipe.dashboard.explore.filters import Filter
from bacpipe.dashboard.explore.view import ExploreView
from bacpipe.dashboard.predictions.detection_list import detections_csv
from bacpipe.dashboard.predictions.detections_by_class import CLASSIFIER, read_detections
from bacpipe.dashboard.review.queue import BEST, NOBODY, Asked, make_queue
from bacpipe.dashboard.server import open_data_set
from bacpipe.dashboard.shared.export import as_clips, as_csv, as_raven_table
from bacpipe.dashboard.shared.labels import (
    PEOPLE,
    LabelPairs,
    WindowLabels,
    label_kinds,
    most_frequent,
    read_labels,
    with_common_names,
)
from bacpipe.dashboard.shared.results import DataSetResults, ModelResults
from tests.conftest import TinyModel, write_recording
from tests.dashboard.conftest import OtherModel

A, B = "a_20240501_040000.wav", "b_20240501_050000.wav"
SPECIES = "annotations:species"
# Wren and owl at once, wren and a frog one after the other in one window.
ANNOTATIONS = f"""audiofilename,start,end,label:species
{A},0,1,owl
{A},0,1,wren
{A},5,5.3,wren
{A},5.3,6,frog
{B},2,4,owl
"""


def run_models(base: Path, **settings: Any) -> DataSetResults:
    places: dict[str, Any] = {
        "audio_dir": base / "field", "main_results_dir": base / "results",
    }  # fmt: skip
    bacpipe.play(
        models=["tiny", "other"], CustomModels=[TinyModel, OtherModel], device="cpu",
        classifier_threshold=0.01, **places, **settings,
    )  # fmt: skip
    return open_data_set(["tiny", "other"], dashboard_port=5380, **places)


def write_field(base: Path) -> None:
    for seed, name in enumerate((A, B)):
        write_recording(base / "field" / name, 12, seed=seed)


@pytest.fixture(scope="module")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> DataSetResults:
    base = tmp_path_factory.mktemp("labels")
    write_field(base)
    (base / "field" / "annotations.csv").write_text(ANNOTATIONS, encoding="utf-8")
    return run_models(base)


@pytest.fixture
def tiny(data_set: DataSetResults) -> ModelResults:
    for path in data_set.model("tiny").loader.paths.people_path.glob("people_labels*"):
        path.unlink()
    return data_set.model("tiny")


@pytest.fixture
def view(data_set: DataSetResults, tiny: ModelResults) -> ExploreView:
    opened = ExploreView(data_set)
    opened.model, opened.colour = "tiny", SPECIES
    opened.controls(), opened.body()
    opened.opened()
    return opened


def places(results: ModelResults, rows: np.ndarray) -> list[tuple[str, float]]:
    return [(name[0], start) for name, start, _ in map(results.window, rows.tolist())]


def label(results: ModelResults, *rows: dict[str, Any], annotator: str = "Ana") -> None:
    audio, where = results.loader.audio_dir, results.settings
    bacpipe.label_windows(audio, [{"recording": A, **row} for row in rows], annotator, **where)


def heard(results: ModelResults, name: str) -> list[tuple[str, float]]:
    """Windows that the filter lets through for a label of people."""
    rows = Filter(colour=PEOPLE, labels=(name,)).windows(results)
    return places(results, np.flatnonzero(rows))


# ---------------------------------------------------------------------- several labels


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (("wren",), [("a", 0.0), ("a", 5.0)]),
        (("owl",), [("a", 0.0), ("b", 2.0), ("b", 3.0)]),
        (("frog",), [("a", 5.0)]),
        (("wren", "frog"), [("a", 0.0), ("a", 5.0)]),
    ],
)
def test_every_label_of_a_window_lets_it_through_and_selects_it(
    view: ExploreView, tiny: ModelResults, labels: tuple[str, ...], expected: list[object]
) -> None:
    view.param.update(labels=list(labels))
    content = view._content
    assert content is not None and content.colour == SPECIES
    assert places(tiny, np.flatnonzero(content.shown)) == expected
    view.param.update(labels=[])
    if len(labels) == 1:
        view.labelling._groups.value = labels[0]
        assert places(tiny, view._selected) == expected


def test_what_is_selected_is_counted_and_told_by_all_its_labels(
    view: ExploreView, tiny: ModelResults
) -> None:
    view._select(np.array([0, 1, 5]))
    counts = view._picked.object.rpartition(": ")[2].split(", ")
    assert counts == ["wren 2", "none 1", "frog 1", "owl 1"]
    view._show_row(0)
    assert "owl, wren" in view.details._title.object


def test_downloads_have_a_row_for_every_label(tiny: ModelResults) -> None:
    labels, rows = read_labels(tiny, SPECIES), np.array([5, 1, 0])
    said = [("owl", 0.0), ("wren", 0.0), ("frog", 5.0), ("wren", 5.0)]
    content = as_csv(tiny, rows, labels).content
    table = pd.read_csv(io.BytesIO(content))
    assert len(table) == 5 and table["label:species"].isna().sum() == 1
    named = table.dropna(subset=["label:species"])
    assert sorted(zip(named["label:species"], named["start"], strict=True)) == sorted(said)
    raven = pd.read_csv(io.BytesIO(as_raven_table(tiny, rows, labels).content), sep="\t")
    assert raven["Selection"].tolist() == [1, 2, 3, 4, 5]
    assert sorted(raven["Label"].dropna()) == ["frog", "owl", "wren", "wren"]
    with zipfile.ZipFile(io.BytesIO(as_clips(tiny, rows, labels).content)) as archive:
        listing = pd.read_csv(archive.open("windows.csv"))
        assert len(archive.namelist()) == 4  # a clip for each window
    assert listing["clip"].nunique() == 3 and len(listing) == 5
    one = listing[listing["start"] == 0]
    assert set(one["label:species"]) == {"owl", "wren"} and one["clip"].nunique() == 1


def test_labels_keep_their_windows_when_models_are_compared_and_names_are_joined() -> None:
    pairs = LabelPairs(np.array([0, 0, 2]), np.array([1, 0, 1], np.int32))
    one = WindowLabels("x", np.array([1, -1, 1], np.int32), ("owl", "wren"), False, pairs=pairs)
    other = WindowLabels("x", np.array([0], np.int32), ("frog",), False)
    common, _ = with_common_names([other, one])[::-1]
    assert np.flatnonzero(common.windows_with(["owl"])).tolist() == [0]
    assert np.flatnonzero(common.windows_with(["wren"])).tolist() == [0, 2]
    assert [common.of(row) for row in range(3)] == ["wren, owl", None, "wren"]
    few = WindowLabels("x", np.arange(40, dtype=np.int32), tuple(map(str, range(40))), False)
    (joined,) = most_frequent([few._replace(pairs=LabelPairs(np.arange(40), few.codes))], 5)
    assert joined.windows_with([joined.names[-1]]).sum() == 36


# ---------------------------------------------------------------------- labels of people


@pytest.mark.parametrize(
    ("start", "end", "of_tiny", "of_other"),
    [
        (3.0, 4.0, [3.0], [3.0, 3.5]),
        (0.0, 12.0, [*range(12)], [i / 2 for i in range(24)]),
        (6.3, 7.9, [6.0, 7.0], [6.5, 7.0, 7.5]),
        (8.5, 9.0, [8.0], [8.5]),
        (3.0, 3.2, [3.0], [3.0]),
    ],
)
def test_labels_of_people_are_of_the_windows_that_they_cover(
    data_set: DataSetResults, tiny: ModelResults, start: float, end: float,
    of_tiny: list[float], of_other: list[float],
) -> None:  # fmt: skip
    label(tiny, {"start": start, "end": end, "label": "wren"})
    assert heard(tiny, "wren") == [("a", at) for at in of_tiny]
    assert heard(data_set.model("other"), "wren") == [("a", at) for at in of_other]


def test_the_last_label_of_people_colours_and_each_filters(
    data_set: DataSetResults, tiny: ModelResults
) -> None:
    label(tiny, {"start": 3, "end": 4, "label": "bb"})
    label(tiny, {"start": 3, "end": 4, "label": "aa"}, {"start": 7, "end": 8, "label": "bb"})
    label(tiny, {"start": 3, "end": 4, "label": "cc", "value": "no"})
    for results in (tiny, data_set.model("other")):
        assert ("a", 3.0) in heard(results, "aa") and ("a", 3.0) in heard(results, "bb")
        labels = read_labels(results, PEOPLE)
        row = results.row_of(A, 3.0)
        assert row is not None and labels.names[labels.codes[row]] == "aa"
        assert labels.names == ("aa", "bb")
    assert read_labels(tiny, PEOPLE).of(0) is None


def test_labels_of_recordings_without_results_are_of_no_window(
    data_set: DataSetResults, tiny: ModelResults
) -> None:
    stray = write_recording(data_set.audio_dir / "new.wav", 3)
    try:
        label(tiny, {"recording": "new.wav", "start": 0, "end": 1, "label": "wren"})
        assert read_labels(tiny, PEOPLE).names == ()
    finally:
        stray.unlink()


def test_only_clips_of_just_these_seconds_are_marked_already(
    data_set: DataSetResults, tiny: ModelResults
) -> None:
    label(tiny, {"start": 8, "end": 9, "label": "loud"})
    asked = Asked("tiny", "", "loud", BEST, NOBODY, "")
    assert make_queue(tiny, asked).marked == 1
    other = data_set.model("other")
    assert make_queue(other, asked._replace(model="other")).marked == 0
    label(tiny, {"start": 8, "end": 8.5, "label": "loud"})
    assert make_queue(other, asked._replace(model="other")).marked == 1
    assert make_queue(tiny, asked).marked == 1


# ---------------------------------------------------------------------- clusters


def test_clusters_are_of_the_windows_that_were_clustered(tmp_path: Path) -> None:
    write_field(tmp_path)
    kinds = label_kinds(run_models(tmp_path, evaluation_task=["clustering"]).model("tiny"))
    assert "clusters:hdbscan" in kinds
    (tmp_path / "field" / B).unlink()
    write_recording(tmp_path / "field" / "c_20240501_060000.wav", 12, seed=9)
    changed = run_models(tmp_path).model("tiny")
    assert len(changed) == 24
    assert not [kind for kind in label_kinds(changed) if kind.startswith("clusters:")]


# ---------------------------------------------------------------------- tables to read again


def test_exported_tables_are_read_again(tmp_path: Path) -> None:
    names = ["-12_site.wav", "'-13_site.wav", "=b/+c.wav"]
    for seed, name in enumerate(names):
        write_recording(tmp_path / "field" / name, 3, seed=seed)
    rows = [
        f"{name},0,1,{said}" for name, said in zip(names, ("=wren", "'wren", "owl"), strict=True)
    ]
    (tmp_path / "field" / "annotations.csv").write_text(
        "\n".join(["audiofilename,start,end,label:species", *rows]), encoding="utf-8"
    )
    results = run_models(tmp_path).model("tiny")
    labels = read_labels(results, SPECIES)
    content = as_csv(results, np.arange(len(results)), labels).content
    for cell in pd.read_csv(io.BytesIO(content), dtype=str).to_numpy().ravel():
        assert not str(cell).startswith(("=", "+", "-", "@"))
    (tmp_path / "back.csv").write_bytes(content)
    back = read_annotations(tmp_path / "back.csv", names).dropna(subset=["label:species"])
    first = read_annotations(tmp_path / "field" / "annotations.csv", names)
    order = ["audiofilename", "start"]
    pd.testing.assert_frame_equal(
        back.sort_values(order, ignore_index=True), first.sort_values(order, ignore_index=True)
    )
    content = detections_csv(read_detections(results, CLASSIFIER), "loud", 0.0).getvalue()
    assert b"'-12_site.wav" in content and b"\n-12" not in content
    (tmp_path / "found.csv").write_bytes(content)
    found = read_annotations(tmp_path / "found.csv", names)
    assert set(found["audiofilename"]) == set(names) and len(found) == len(results)
