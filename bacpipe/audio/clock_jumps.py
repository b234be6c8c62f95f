"""Clocks of recorders that have been reset: recordings whose dates do not fit their neighbours'.

A recorder that has lost its power often goes on at the first of January of some year.  Dates that
were never set, of 1980 and 2000, are known as such (`bacpipe.audio.timestamps`); of other years
nothing can be known of one recording alone.  Nothing is changed here: dates may be right.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

_BACK = np.timedelta64(1, "D")  # less may be a change of zone
_LONG = np.timedelta64(365, "D")
_LONG_FOR_JANUARY = np.timedelta64(90, "D")
_NUMBERED = re.compile(r"(\D*)(\d+)(\D*)")


class ClockJumps(NamedTuple):
    """Recordings with doubtful dates.

    Attributes
    ----------
    backwards : list of (str, str)
        Recordings numbered one after the other, the second of which begins a day or more before
        the first.
    early : list of str
        The few recordings of a folder that are dated long before all others in it: by a year, or
        from a first of January and by three months.
    """

    backwards: list[tuple[str, str]]
    early: list[str]


def find_clock_jumps(recordings: Sequence[str], starts: np.ndarray) -> ClockJumps:
    """Find recordings whose dates do not fit those of their neighbours.

    Parameters
    ----------
    recordings : sequence of str
        Posix paths.
    starts : np.ndarray, datetime64[us], shape (recordings,)
        When each begins; NaT if that is not known.

    Examples
    --------
    >>> days = ["2023-05-01", "2023-05-02", "2018-01-01", "2018-01-02", "NaT"]
    >>> names = ["r1.wav", "r2.wav", "r3.wav", "r10.wav", "r11.wav"]
    >>> find_clock_jumps(names, np.array(days, "M8[us]")).backwards
    [('r2.wav', 'r3.wav')]
    """
    folders: dict[str, list[int]] = defaultdict(list)
    for i in np.flatnonzero(~np.isnat(starts)).tolist():
        folders[recordings[i].rpartition("/")[0]].append(i)
    jumps = ClockJumps([], [])
    for members in folders.values():
        jumps.backwards.extend(
            (recordings[a], recordings[b]) for a, b in _backwards(members, recordings, starts)
        )
        jumps.early.extend(recordings[i] for i in _early(np.array(members), starts))
    return jumps


def _backwards(
    members: Sequence[int], recordings: Sequence[str], starts: np.ndarray
) -> list[tuple[int, int]]:
    # Only a number that counts tells an order: dates in names are what is in doubt.
    series: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    for i in members:
        match = _NUMBERED.fullmatch(recordings[i].rpartition("/")[2].rpartition(".")[0])
        if match is not None and len(match[2]) < 8:
            series[match[1], match[3]].append((int(match[2]), i))
    pairs = []
    for numbered in series.values():
        order = [i for _, i in sorted(numbered)]
        pairs += [(a, b) for a, b in pairwise(order) if starts[b] <= starts[a] - _BACK]
    return pairs


def _early(members: np.ndarray, starts: np.ndarray) -> list[int]:
    order = members[np.argsort(starts[members], kind="stable")]
    times = starts[order]
    first = times[0].astype("M8[D]")
    needed = _LONG_FOR_JANUARY if first == first.astype("M8[Y]").astype("M8[D]") else _LONG
    gaps = np.flatnonzero(np.diff(times) > needed)
    if not len(gaps) or 2 * (gaps[0] + 1) >= len(order):
        return []  # half of them or more: two seasons
    return sorted(order[: gaps[0] + 1].tolist())
