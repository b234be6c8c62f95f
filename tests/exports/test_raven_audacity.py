"""Exports: what leaves for another program comes back the same."""

import json
import os

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

import bacpipe
from bacpipe.exports.raven import RAVEN_COLUMNS
from bacpipe.store.detections import (
    Detections,
    Intervals,
    merge_detections,
    merge_intervals,
)
from tests.conftest import write_recording
from tests.labels.conftest import Tiny

KEYS = ["recording", "start", "end", "common_name"]


def normal(table):
    """Rows sorted and rounded to what the exports write."""
    table = table.rename(columns={"audiofilename": "recording", "label:species": "common_name"})[
        KEYS
    ]
    table = table.round({"start": 6, "end": 6}).drop_duplicates()
    return table.sort_values(KEYS).to_numpy().tolist()


@pytest.fixture(params=[None, 0.0, 5.0], ids=["windows", "neighbours", "gap"])
def gap(request):
    return request.param


ODD = ("a.wav", "A.WAV", "a.flac", " lead/ x.wav", "back\\slash/b.wav", "trailing .wav",
       "tab\t/new\nline.wav", "#1 50%/'q' \"dq\" 🐦.wav", "=1+1/-x.wav")  # fmt: skip


@pytest.fixture(scope="module")
def odd_names(tmp_path_factory):
    """Results of recordings whose names a table can hardly hold."""
    if os.name == "nt":
        pytest.skip("Windows has no such names")
    folder = tmp_path_factory.mktemp("odd") / "Rain #1 🦇"
    for seed, name in enumerate(ODD):
        write_recording(folder / name, 5.0, seed=seed)
    if len(list(folder.rglob("*.*"))) < len(ODD):
        pytest.skip("this disk does not tell upper from lower case")
    return bacpipe.generate_embeddings(
        model_name="tiny",
        CustomModel=Tiny,
        audio_dir=folder,
        main_results_dir=tmp_path_factory.mktemp("results"),
        classifier_threshold=0.13,
    )


def test_events_are_fewer(loader):
    sizes = [len(bacpipe.detections_table(loader, event_gap=g)) for g in (None, 0, 5, 100)]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) >= 3
    table = bacpipe.detections_table(loader, event_gap=100)
    assert not table.duplicated(["recording", "common_name"]).any()


def test_raven_tables_come_back(loader, audio_dir, tmp_path, gap):
    written = bacpipe.export_raven_tables(loader, tmp_path, event_gap=gap)
    assert len(written) == 4
    table = bacpipe.import_annotations(tmp_path, audio_dir, format="raven")
    assert normal(table) == normal(bacpipe.detections_table(loader, event_gap=gap))


def test_combined_raven_table_comes_back(loader, audio_dir, tmp_path, gap):
    path, listing = bacpipe.export_raven_tables(loader, tmp_path, combined=True, event_gap=gap)
    table = bacpipe.import_annotations(path, audio_dir)
    assert normal(table) == normal(bacpipe.detections_table(loader, event_gap=gap))
    # Begin times count through the recordings in the order of the list.
    raven = pd.read_csv(path, sep="\t")
    assert tuple(raven.columns) == RAVEN_COLUMNS
    assert raven["Selection"].tolist() == list(range(1, len(raven) + 1))
    sounds = listing.read_text().splitlines()
    assert sounds == [str(file.resolve()) for file in loader.files]
    lengths = [sf.info(sound).duration for sound in sounds]
    first = dict(zip(sounds, np.cumsum([0, *lengths]), strict=False))
    offsets = raven["Begin Path"].map(first) + raven["File Offset (s)"]
    np.testing.assert_allclose(raven["Begin Time (s)"], offsets, atol=2e-6)
    assert (raven["Begin Time (s)"].diff().dropna() >= 0).all()


def test_audacity_labels_come_back(loader, audio_dir, tmp_path, gap):
    written = bacpipe.export_audacity_labels(loader, tmp_path, event_gap=gap)
    assert len(written) == 4
    table = bacpipe.import_annotations(tmp_path, audio_dir, format="audacity")
    assert normal(table) == normal(bacpipe.detections_table(loader, event_gap=gap))


@pytest.mark.parametrize("format", ["raven", "audacity", "kaleidoscope"])
def test_tables_of_oddly_named_recordings_come_back(format, odd_names, tmp_path):
    bacpipe.export(odd_names, format, tmp_path)
    table = bacpipe.import_annotations(tmp_path, odd_names.audio_dir, format=format)
    expected = bacpipe.detections_table(odd_names)
    assert sorted(table["audiofilename"]) == sorted(expected["recording"])


def test_people_label_oddly_named_recordings(odd_names, caplog):
    rows = pd.DataFrame({"recording": list(odd_names.entries)})
    where = {
        "audio_dir": odd_names.audio_dir,
        "main_results_dir": odd_names.options.main_results_dir,
    }
    rows = rows.assign(start=0.0, end=1.0, label="owl")
    assert bacpipe.label_windows(rows=rows, annotator="Zoë", **where) == len(rows)
    assert sorted(bacpipe.people_labels(**where)["recording"]) == sorted(rows["recording"])
    assert not caplog.records


def test_threshold_and_provenance_of_exports(loader, audio_dir, tmp_path):
    bacpipe.export_raven_tables(loader, tmp_path, classifier_threshold=0.2)
    tables = [pd.read_csv(path, sep="\t") for path in sorted(tmp_path.rglob("*.txt"))]
    confidence = pd.concat(tables)["Confidence"]
    assert len(confidence) and (confidence >= 0.2).all()
    made_with = json.loads((tmp_path / "provenance.json").read_text())
    assert made_with["threshold"] == 0.2 and made_with["model"] == "tiny"
    assert bacpipe.detections_table(loader).attrs["bacpipe"]["threshold"] == 0.15


def test_high_frequency_is_the_lower_nyquist(loader, tmp_path):
    path, *_ = bacpipe.export_raven_tables(loader, tmp_path)
    assert set(pd.read_csv(path, sep="\t")["High Freq (Hz)"]) == {4000.0}


def test_high_frequency_of_slowed_recordings_is_that_of_the_real_ones(audio_dir, tmp_path):
    loader = bacpipe.generate_embeddings(
        model_name="tiny",
        CustomModel=Tiny,
        audio_dir=audio_dir,
        main_results_dir=str(tmp_path),
        classifier_threshold=0.15,
        bool_change_speed=True,
        new_speed=0.1,
        save_raven_tables=True,
    )
    # Slowed down tenfold, all that the recordings hold reaches the model.
    native = {sf.info(file).samplerate / 2 for file in loader.files}
    assert loader.highest_frequency == 10 * loader.metadata_dict["sample_rate (Hz)"] / 2
    for folder in (loader.paths.raven_path, None):
        tables = (
            sorted(folder.rglob("*.txt"))
            if folder
            else bacpipe.export_raven_tables(loader, tmp_path / "exported")
        )
        highs = pd.concat([pd.read_csv(path, sep="\t") for path in tables])["High Freq (Hz)"]
        assert len(highs) and set(highs) <= native


def test_raven_tables_of_a_run_follow_the_settings(audio_dir, tmp_path):
    loader = bacpipe.generate_embeddings(
        model_name="tiny",
        CustomModel=Tiny,
        audio_dir=audio_dir,
        main_results_dir=str(tmp_path),
        classifier_threshold=0.15,
        save_raven_tables=True,
        event_gap=5,
    )
    table = bacpipe.import_annotations(loader.paths.raven_path, audio_dir, format="raven")
    assert normal(table) == normal(bacpipe.detections_table(loader, event_gap=5))
    assert normal(table) == normal(bacpipe.detections_table(loader))


# --- Joining events -------------------------------------------------------------------------------


def test_event_has_the_best_score_and_the_first_window():
    item = Detections(
        "r",
        np.array([0, 1, 1, 3, 7], dtype=np.int32),
        np.array([0.0, 3, 3, 9, 21]),
        np.array([3.0, 6, 6, 12, 24]),
        np.array(["a", "a", "b", "a", "a"], dtype=object),
        np.array([0.5, 0.9, 0.6, 0.7, 0.8], dtype=np.float32),
    )
    assert merge_detections(item, None) is item
    merged = merge_detections(item, 3.0)
    assert merged.label.tolist() == ["a", "b", "a"]
    assert merged.start.tolist() == [0, 3, 21]
    assert merged.end.tolist() == [12, 6, 24]
    assert merged.window.tolist() == [0, 1, 7]
    np.testing.assert_allclose(merged.score, [0.9, 0.6, 0.8])


@pytest.mark.parametrize("gap", [0.0, 0.5, 2.0])
def test_merging_against_a_slow_implementation(gap):
    rng = np.random.default_rng(1)
    start = rng.uniform(0, 100, 300).round(1)
    intervals = Intervals(start, start + rng.choice([0.5, 1, 4], 300), rng.integers(0, 9, 300) * 50)
    expected = []
    for label in np.unique(intervals.label):
        rows = sorted(zip(*(c[intervals.label == label] for c in intervals[:2]), strict=True))
        joined = [list(rows[0])]
        for begin, end in rows[1:]:
            if begin <= joined[-1][1] + gap + 1e-6:
                joined[-1][1] = max(joined[-1][1], end)
            else:
                joined.append([begin, end])
        expected += [(begin, end, label) for begin, end in joined]
    merged, group = merge_intervals(intervals, gap)
    assert list(zip(*merged, strict=True)) == expected
    assert (merged.start[group] <= intervals.start).all()
    assert (merged.end[group] >= intervals.end).all()
    assert (merged.label[group] == intervals.label).all()
