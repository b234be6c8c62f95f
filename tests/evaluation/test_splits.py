"""Splits: no leakage, every class everywhere, shares as asked, stored and reused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bacpipe.errors import EvaluationError, TooLittleDataError
from bacpipe.evaluation.splits import SETS, SplitRule, load_or_make_split, split_path, split_windows
from tests.evaluation.conftest import make_windows

RULE = SplitRule("recording", 0.65, 0.2, seed=1)


def units_of(data, split, strategy):
    """Recordings (or sites) of each set."""
    names = data.recordings
    if strategy == "site":
        names = np.array([str(PurePosixPath(name).parent) for name in names])
    return [set(names[split.rows(name)]) for name in SETS]


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(1, 300),
    n_classes=st.integers(1, 8),
    n_recordings=st.integers(1, 25),
    strategy=st.sampled_from(["recording", "site", "random"]),
)
def test_nothing_leaks_and_every_class_is_in_every_set(seed, n, n_classes, n_recordings, strategy):
    data = make_windows(n, n_classes, n_recordings=n_recordings, seed=seed)
    try:
        split = split_windows(data, replace(RULE, strategy=strategy))
    except TooLittleDataError:
        return
    if strategy != "random":
        train, val, test = units_of(data, split, strategy)
        assert not train & val and not train & test and not val & test
    assert len(split.classes) >= 2
    for name in SETS:
        assert set(split.labels[split.rows(name)]) == set(range(len(split.classes)))
    used = split.set_of_window >= 0
    assert (np.array(split.classes)[split.labels[used]] ==
            np.array(data.classes)[data.labels[used]]).all()  # fmt: skip
    assert set(split.classes) | set(split.dropped) >= {data.classes[i] for i in set(data.labels)}


@pytest.mark.parametrize("strategy", ["recording", "random"])
def test_shares_are_those_asked_for_in_every_class(strategy):
    data = make_windows(3000, 5, n_recordings=150)
    split = split_windows(data, replace(RULE, strategy=strategy))
    for label in range(5):
        sizes = [np.sum(split.labels[split.rows(name)] == label) for name in SETS]
        assert np.array(sizes) / sum(sizes) == pytest.approx([0.65, 0.15, 0.2], abs=0.05)


def test_three_recordings_are_one_for_each_set():
    data = make_windows(300, 3, n_recordings=3)
    train, val, test = units_of(data, split_windows(data, RULE), "recording")
    assert [len(train), len(val), len(test)] == [1, 1, 1]


def test_rare_classes_are_dropped_with_a_message(caplog):
    data = make_windows(300, 3)
    labels = data.labels.copy()
    labels[data.labels == 2] = 0
    labels[np.flatnonzero(data.recordings == "site0/00.wav")[:4]] = 2
    split = split_windows(replace(data, labels=labels), RULE)
    assert split.classes == ("class 0", "class 1")
    assert "labelled in 1 recording;" in split.dropped["class 2"]
    assert "class 2" in caplog.text
    assert not np.any(split.set_of_window[labels == 2] >= 0)


def test_windows_without_a_label_are_not_used():
    data = make_windows(300, 3)
    labels = np.where(np.arange(300) % 2, -1, data.labels)
    split = split_windows(replace(data, labels=labels), RULE)
    assert (split.set_of_window[labels < 0] == -1).all()


def test_too_little_data_is_a_sentence_with_the_counts():
    data = make_windows(60, 2, n_recordings=2)
    with pytest.raises(
        TooLittleDataError, match=r"3 recordings each.* in 2 recordings: class 0: 2"
    ):
        split_windows(data, RULE)
    with pytest.raises(TooLittleDataError, match=r"there are 0 .* in 0 recordings"):
        split_windows(replace(data, labels=np.full(60, -1)), RULE)


def test_unknown_recordings_are_not_taken_for_independent():
    data = replace(make_windows(), recordings=None)
    with pytest.raises(EvaluationError, match="split='random'"):
        split_windows(data, RULE)
    assert len(split_windows(data, replace(RULE, strategy="random")).rows("test"))


def test_the_same_seed_gives_the_same_split_and_another_one_another():
    data = make_windows(n_recordings=40)
    first, again = split_windows(data, RULE), split_windows(data, RULE)
    other = split_windows(data, replace(RULE, seed=2))
    assert first.units == again.units
    assert first.units != other.units


def stored(data_set, **changes):
    data = make_windows(n_recordings=20)
    return replace(data, paths=data_set.loader.paths, **changes)


def test_the_split_is_stored_and_new_recordings_move_nobody(data_set):
    data = stored(data_set)
    early = np.isin(data.recordings, sorted(set(data.recordings))[:15])
    first = load_or_make_split(replace(data, labels=np.where(early, data.labels, -1)), RULE)
    later = load_or_make_split(data, RULE)
    assert len(first.units) == 15 and len(later.units) == 20
    assert first.units.items() <= later.units.items()
    table = (data_set.loader.paths.labels_path / "probing_dataframe.csv").read_text()
    assert table.startswith("audiofilename,label:species,set\n")


def test_an_edited_split_is_used(data_set):
    data = stored(data_set)
    load_or_make_split(data, RULE)
    path = split_path(data_set.loader.paths.overview_path, "species")
    content = json.loads(path.read_text())
    moved = content["sets"]["train"].pop()
    content["sets"]["test"].append(moved)
    path.write_text(json.dumps(content))
    assert load_or_make_split(data, RULE).units[moved] == "test"


def test_a_recording_in_two_sets_is_refused(data_set):
    data = stored(data_set)
    load_or_make_split(data, RULE)
    path = split_path(data_set.loader.paths.overview_path, "species")
    content = json.loads(path.read_text())
    content["sets"]["test"].append(content["sets"]["train"][0])
    path.write_text(json.dumps(content))
    with pytest.raises(EvaluationError, match="is in the sets train and test"):
        load_or_make_split(data, RULE)


def test_other_settings_divide_anew(data_set):
    data = stored(data_set)
    load_or_make_split(data, RULE)
    other = load_or_make_split(data, replace(RULE, strategy="site"))
    assert set(other.units) == {"site0", "site1", "site2"}
