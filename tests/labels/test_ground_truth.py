import logging

import numpy as np
import pandas as pd
import pytest

import bacpipe
from bacpipe.errors import AnnotationsError, ResultsNotFoundError, SettingsError
from bacpipe.labels.ground_truth import find_overlaps
from bacpipe.labels.model_windows import ModelWindows
from bacpipe.store.detections import Intervals
from tests.conftest import finished_entry

# First of the windows of 5 s of each recording.
FLAC, NORTH, QUIET, SOUTH = 0, 2, 7, 8


@pytest.fixture
def truth(audio_dir, results, loader):
    def make(**kwargs):
        kwargs = {"main_results_dir": str(results), **kwargs}
        return bacpipe.ground_truth_by_model("tiny", audio_dir, **kwargs)

    return make


def names(result, kind="species"):
    by_number = {number: name for name, number in result[f"label_dict:{kind}"].items()}
    return [by_number.get(number) for number in result[f"label:{kind}"]]


def test_one_label_per_window(truth, loader):
    result = truth()
    assert set(result) == {"label:species", "label_dict:species"}
    assert result["label_dict:species"] == {"owl": 0, "robin": 1, "wren": 2}
    assert result["label:species"].dtype == np.int32
    assert len(result["label:species"]) == len(loader.embeddings("array"))
    # The wren sings from 4.2 to 7.9 s, the robin from 4.4 to 6.0: both for the most part in
    # the second window, of which the wren covers more.
    assert names(result) == [
        "wren",
        None,
        "robin",
        "wren",
        "owl",
        "owl",
        None,
        None,
        "owl",
        "owl",
        "owl",
    ]


def test_several_labels_per_window(truth):
    result = truth(single_label=False, max_labels_per_timestamp=3)
    labels, numbers = result["label:species"], result["label_dict:species"]
    assert labels.shape == (11, 3)
    assert labels[NORTH + 1].tolist() == [numbers["wren"], numbers["robin"], -1]
    assert labels[QUIET].tolist() == [-1, -1, -1]


def test_more_labels_than_allowed(truth, caplog):
    with caplog.at_level(logging.WARNING):
        labels = truth(single_label=False, max_labels_per_timestamp=1, min_annotation_length=0.65)[
            "label:species"
        ]
    assert labels.shape == (11, 1)
    assert "1 label left out" in caplog.text


def test_other_kind_of_label(truth):
    result = truth(label_column="call_type")
    assert result["label_dict:call_type"] == {"call": 0, "song": 1}
    assert names(result, "call_type")[FLAC : NORTH + 2] == ["call", None, "song", "song"]


def test_short_annotations_and_rare_labels(truth):
    every = truth(min_annotation_length=0, single_label=False, max_labels_per_timestamp=3)
    assert (every["label:species"] >= 0).sum() == 10  # the robin of 0.2 s counts too
    common = truth(bool_filter_labels=True, min_label_occurrences=3)
    assert common["label_dict:species"] == {"owl": 0}
    assert names(common)[NORTH : NORTH + 3] == [None, None, "owl"]


def test_own_numbers(truth, caplog):
    with caplog.at_level(logging.WARNING):
        result = truth(label_idx_dict={"wren": 7, "robin": 2, "emu": 0}, min_annotation_length=0.65)
    assert result["label:species"].tolist() == [7, -1, 2, 7, -1, -1, -1, -1, -1, -1, -1]
    assert result["label_dict:species"] == {"wren": 7, "robin": 2, "emu": 0}
    assert "label_idx_dict lacks are left out: owl" in caplog.text
    turned = truth(label_idx_dict={7: "wren", 2: "robin", 0: "emu"}, min_annotation_length=0.65)
    assert (turned["label:species"] == result["label:species"]).all()
    for impossible in ({}, {"a": 1, "b": 1}, {"a": -1}, {"a": None}):
        with pytest.raises(AnnotationsError, match="label_idx_dict"):
            truth(label_idx_dict=impossible)


def test_overlap_is_a_setting(truth):
    touching = truth(annotation_overlap=0, single_label=False)
    strict = truth(annotation_overlap=1.0, single_label=False)
    assert (touching["label:species"][NORTH + 4] >= 0).any()  # the owl's 21st second
    assert names({**strict, "label:species": strict["label:species"][:, 0]})[NORTH:QUIET] == [
        "robin",
        None,
        None,
        "owl",
        None,
    ]


def test_array_and_data_frame(truth, loader):
    presence, classes = truth(return_type="array", single_label=False)
    assert presence.dtype == bool and presence.shape == (11, 3)
    assert classes == {0: "owl", 1: "robin", 2: "wren"}
    assert presence[NORTH + 1].tolist() == [False, True, True]
    frame = truth(return_type="dataframe")
    assert len(frame) == 11
    fixed = ["start", "end", "audiofilename", "simultaneous_labels"]
    assert list(frame) == [*fixed, "owl", "robin", "wren"]
    single = [next((n for n in ("owl", "robin", "wren") if row[n]), None)
              for _, row in frame.iterrows()]  # fmt: skip
    assert single == names(truth()) and frame["simultaneous_labels"].max() == 1
    starts = np.concatenate([loader.window_times(name)[0] for name in loader.entries])
    assert np.array_equal(frame["start"], starts)
    several = truth(return_type="dataframe", single_label=False)
    assert np.array_equal(several[["owl", "robin", "wren"]], presence)
    assert several["simultaneous_labels"].tolist() == presence.sum(axis=1).tolist()
    with pytest.raises(SettingsError, match="return_type='list'"):
        truth(return_type="list")


def test_annotations_as_data_frame(truth):
    frame = pd.DataFrame(
        {"audiofilename": ["quiet.wav"], "start": [0], "end": [4], "label:species": ["mouse"]}
    )
    result = truth(label_df=frame)
    assert names(result) == [None] * QUIET + ["mouse"] + [None] * 3


def test_stored_result_is_taken_while_nothing_changes(truth, loader, monkeypatch):
    first = truth()
    stored = loader.paths.labels_path / "ground_truth_species.parquet"
    before = stored.stat().st_mtime_ns
    again = truth(overwrite=False)
    assert stored.stat().st_mtime_ns == before
    assert np.array_equal(first["label:species"], again["label:species"])
    assert first["label_dict:species"] == again["label_dict:species"]
    assert again["label:species"].dtype == np.int32
    changed = truth(overwrite=False, single_label=False)
    assert stored.stat().st_mtime_ns > before
    assert changed["label:species"].ndim == 2


def test_stored_table_is_an_annotation_table(truth, loader, audio_dir):
    truth()
    path = loader.paths.labels_path / "ground_truth_species.csv"
    table = bacpipe.import_annotations(path, audio_dir)
    assert len(table) == 8
    assert table["label:species"].value_counts().to_dict() == {"owl": 5, "wren": 2, "robin": 1}


def test_damaged_result_is_made_again(truth, loader):
    first = truth()
    (loader.paths.labels_path / "ground_truth_species.parquet").write_bytes(b"PAR1 no more")
    assert np.array_equal(truth(overwrite=False)["label:species"], first["label:species"])


def test_stale_after_new_annotations(tmp_path, audio_dir, results, truth):
    table = pd.read_csv(audio_dir / "annotations.csv")
    before = truth()
    after = truth(overwrite=False, label_df=table[table["label:species"] != "owl"])
    assert set(before["label_dict:species"]) - set(after["label_dict:species"]) == {"owl"}


def test_not_embedded_yet_agrees_with_embedded(audio_dir, results, tmp_path):
    """The windows of models of the zoo are known beforehand."""
    before = bacpipe.ground_truth_by_model(
        "audiomae", audio_dir, main_results_dir=str(tmp_path), return_type="dataframe", hop=2.5
    )
    card_seconds = 10.0
    ends = before.groupby("audiofilename")["end"].max()
    assert ends["quiet.wav"] == 4.0 and ends["north/20240301_060000.wav"] == 23.0
    starts = before["start"][before["audiofilename"] == "north/20240301_060000.wav"]
    assert starts.tolist() == np.arange(0, 23 - card_seconds + 2.5, 2.5).tolist()


def test_unknown_window_of_own_model(audio_dir, tmp_path):
    with pytest.raises(ResultsNotFoundError, match="Compute the embeddings first"):
        bacpipe.ground_truth_by_model("mine", audio_dir, main_results_dir=str(tmp_path))


def test_missing_annotations_and_columns(truth):
    with pytest.raises(AnnotationsError, match=r"none\.csv: there is no such file"):
        truth(annotations_filename="none.csv")
    with pytest.raises(AnnotationsError, match="'label:genus' is missing"):
        truth(label_column="genus")
    with pytest.raises(SettingsError, match="min_annotation_length"):
        truth(min_annotation_lenght=1)


# --- The rule, against a slow and obvious implementation -----------------------------------------


def slow_overlaps(starts, ends, rows, fraction):
    merged = {}
    for label in {row[2] for row in rows}:
        parts = []
        for start, end in sorted((s, e) for s, e, name in rows if name == label):
            if parts and start <= parts[-1][1]:
                parts[-1][1] = max(parts[-1][1], end)
            else:
                parts.append([start, end])
        merged[label] = parts
    found = {}
    for window, (first, last) in enumerate(zip(starts, ends, strict=True)):
        for label, parts in merged.items():
            for start, end in parts:
                shared = min(last, end) - max(first, start)
                if shared > 0 and shared >= fraction * min(last - first, end - start):
                    found[window, label] = found.get((window, label), 0) + shared
    return found


@pytest.mark.parametrize("fraction", [0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("hop", [1.0, 3.0, 4.0])
def test_rule(fraction, hop):
    rng = np.random.default_rng(int(100 * fraction + hop))
    entries = {}
    for name in ("a", "b", "c"):
        count = int(rng.integers(5, 40))
        duration = (count - 1) * hop + 2.0
        entries[name] = finished_entry(name, windows=count, duration=duration)
    header = {"identity": {"sample_rate": 10, "window": 30, "hop": hop, "speed": 1}}
    windows = ModelWindows(entries, header, "")
    rows = {
        name: [
            (start, start + length, int(label))
            for start, length, label in zip(
                rng.uniform(0, 60, 30).round(2),
                rng.choice([0.3, 1.1, 3.3, 9.9], 30),
                rng.integers(0, 3, 30),
                strict=True,
            )
        ]
        for name in ("a", "c")
    }
    annotated = {
        name: Intervals(*(np.array(column) for column in zip(*table, strict=True)))
        for name, table in rows.items()
    }
    overlaps, _ = find_overlaps(windows, annotated, fraction)
    starts, ends = windows.times
    expected = {}
    for name, part in windows.slices():
        slow = slow_overlaps(starts[part], ends[part], rows.get(name, []), fraction)
        expected |= {(part.start + w, label): seconds for (w, label), seconds in slow.items()}
    pairs = zip(overlaps.window.tolist(), overlaps.label.tolist(), strict=True)
    found = dict(zip(pairs, overlaps.seconds, strict=True))
    assert set(found) == set(expected)
    assert all(found[pair] == pytest.approx(expected[pair]) for pair in expected)
    assert (np.diff(overlaps.window) >= 0).all()
    same = np.diff(overlaps.window) == 0
    assert (np.diff(overlaps.seconds)[same] <= 1e-6).all()


def test_no_annotation_is_lost_at_one_half():
    rng = np.random.default_rng(3)
    windows = ModelWindows(
        {"a": finished_entry("a", windows=100, duration=300.0)},
        {"identity": {"sample_rate": 10, "window": 30, "hop": None, "speed": 1}},
        "",
    )
    start = rng.uniform(0, 280, 500)
    annotated = Intervals(start, start + rng.uniform(0.01, 20, 500), np.arange(500))
    assert find_overlaps(windows, {"a": annotated}, 0.5)[1] == 0
    assert find_overlaps(windows, {"a": annotated}, 0.8)[1] > 0
