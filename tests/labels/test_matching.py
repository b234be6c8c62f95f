from __future__ import annotations

import numpy as np
import pytest

from bacpipe.labels.matching import (
    NO_MATCH,
    best_matches,
    matched_pairs,
    overlapping_windows,
)
from bacpipe.labels.model_windows import ModelWindows
from bacpipe.store.embedding_set import window_times
from tests.conftest import finished_entry

RATE = 1000


def windows_of(
    durations: dict[str, float],
    window: float,
    hop: float | None = None,
    segments: dict[str, list[tuple[float, float, int]]] | None = None,
) -> ModelWindows:
    """Windows as a run would make them."""
    identity = {"window": round(window * RATE), "sample_rate": RATE, "speed": 1, "hop": hop}
    entries = {}
    for name, duration in sorted(durations.items()):
        parts = (segments or {}).get(name)
        found = None if parts is None else tuple(parts)
        count = sum(n for *_, n in parts) if parts else int(np.ceil(duration / (hop or window)))
        entries[name] = finished_entry(name, duration=duration, windows=count, segments=found)
    return ModelWindows(entries, {"identity": identity}, "")


DURATIONS = {"a.wav": 10.3, "b.wav": 4.0, "c/a.wav": 7.77}
CASES = {
    "same": (windows_of(DURATIONS, 3), windows_of(DURATIONS, 3)),
    "shorter": (windows_of(DURATIONS, 3), windows_of(DURATIONS, 0.7, 0.25)),
    "longer": (windows_of(DURATIONS, 0.9), windows_of(DURATIONS, 5, 2)),
    "odd": (windows_of(DURATIONS, 1.3, 0.4), windows_of(DURATIONS, 1.1, 0.7)),
    "gaps": (windows_of(DURATIONS, 0.5, 1.5), windows_of(DURATIONS, 0.25, 2)),
    "other recordings": (
        windows_of({"a.wav": 5, "x.wav": 4}, 1),
        windows_of({"a.wav": 3, "b.wav": 9}, 2),
    ),
    "segments": (
        # The second segment of a recording may begin before the first one.
        windows_of(DURATIONS, 1, segments={"a.wav": [(6.0, 9.0, 3), (1.5, 3.5, 2)]}),
        windows_of(DURATIONS, 2, 0.5),
    ),
    "none in common": (windows_of({"a.wav": 5}, 1), windows_of({"b.wav": 5}, 1)),
}


def table(windows: ModelWindows) -> list[tuple[str, float, float]]:
    return [
        (name, start, end)
        for name, entry in windows.entries.items()
        for start, end in zip(*window_times(entry, windows.header), strict=True)
    ]


def shared(one: tuple[str, float, float], other: tuple[str, float, float]) -> float:
    same = one[0] == other[0]
    return min(one[2], other[2]) - max(one[1], other[1]) if same else 0.0


@pytest.mark.parametrize("case", CASES)
def test_overlapping_windows_are_those_of_a_search_through_all_pairs(case: str) -> None:
    one, other = CASES[case]
    rng = np.random.default_rng(0)
    for n in (0, 1, 3, len(one)):
        rows = rng.permutation(len(one))[:n]
        expected = [
            j
            for j, b in enumerate(table(other))
            if any(shared(table(one)[i], b) > 1e-6 for i in rows)
        ]
        assert overlapping_windows(one, rows, other).tolist() == expected


@pytest.mark.parametrize("case", CASES)
def test_best_matches_share_the_most_time_and_then_are_nearest(case: str) -> None:
    one, other = CASES[case]
    found = best_matches(one, other)
    for a, j in zip(table(one), found, strict=True):
        keys = [
            (-round(shared(a, b), 5), round(abs(a[1] + a[2] - b[1] - b[2]), 5), i)
            for i, b in enumerate(table(other))
            if shared(a, b) > 1e-6
        ]
        assert j == (min(keys)[2] if keys else NO_MATCH)


@pytest.mark.parametrize("case", CASES)
def test_pairs_are_each_others_best_match_and_use_no_window_twice(case: str) -> None:
    one, other = CASES[case]
    forth, back = best_matches(one, other), best_matches(other, one)
    pairs = matched_pairs(one, other)
    expected = [[i, j] for i, j in enumerate(forth) if j != NO_MATCH and back[j] == i]
    assert pairs.tolist() == expected
    assert len(np.unique(pairs[:, 1])) == len(pairs)
    assert matched_pairs(other, one)[:, ::-1].tolist() == sorted(expected, key=lambda p: p[1])


def test_windows_match_themselves() -> None:
    windows = windows_of(DURATIONS, 2, 0.3)
    assert best_matches(windows, windows).tolist() == list(range(len(windows)))


def test_many_candidates_are_searched_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = CASES["shorter"]
    whole = best_matches(one, other)
    monkeypatch.setattr("bacpipe.labels.matching._PAIRS_AT_ONCE", 7)
    assert best_matches(one, other).tolist() == whole.tolist()
