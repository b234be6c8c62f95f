"""Which windows are looked at: by annotation, label, recording and time of day."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bacpipe.dashboard.data.labels import NONE, clock_times, label_kinds, read_labels
from bacpipe.dashboard.data.results import ModelResults
from bacpipe.errors import ResultsNotFoundError

ALL_DAY = (0.0, 24.0)


class Filter(NamedTuple):
    """What a visitor wants to see; the default lets everything through.

    Attributes
    ----------
    annotated : bool
        Only windows with an annotation of any kind.
    colour : str or None
        Kind of the labels below.
    labels : tuple of str
        Only windows with one of these labels; empty for all.
    file : str
        Only recordings whose path contains this text, upper and lower case alike.
    hours : (float, float)
        Only windows that start between these hours of the day; a first hour that is larger
        than the second means over midnight.
    """

    annotated: bool = False
    colour: str | None = None
    labels: tuple[str, ...] = ()
    file: str = ""
    hours: tuple[float, float] = ALL_DAY

    def windows(self, results: ModelResults) -> np.ndarray:
        """Windows that it lets through, bool of shape (windows,).

        Raises
        ------
        ResultsNotFoundError
            If there are no annotations, or no recording tells its time, to filter by.
        """
        shown = np.ones(len(results), bool)
        if self.annotated:
            shown &= annotated_windows(results)
        if self.labels and self.colour is not None:
            found = read_labels(results, self.colour)
            wanted = [code for code, name in enumerate(found.names) if name in set(self.labels)]
            shown &= np.isin(found.codes, wanted)
        if self.file:
            matches = np.zeros(len(results.recordings), bool)
            matches[matching_recordings(results, self.file)] = True
            shown &= matches[results.recording_code]
        if self.hours != ALL_DAY:
            shown &= recorded_between(results, *self.hours)
        return shown


def annotated_windows(results: ModelResults) -> np.ndarray:
    """Windows with an annotation of any kind, bool of shape (windows,)."""
    kinds = [kind for kind in label_kinds(results) if kind.startswith("annotations:")]
    if not kinds:
        path = results.loader.audio_dir / results.loader.options.annotations_filename
        raise ResultsNotFoundError(
            f"There are no annotations to filter by; they are read from {path}."
        )
    found = np.zeros(len(results), bool)
    for kind in kinds:
        found |= read_labels(results, kind).codes != NONE
    return found


def matching_recordings(results: ModelResults, text: str) -> list[int]:
    """Numbers of the recordings whose path contains a text."""
    wanted = text.strip().casefold()
    return [i for i, name in enumerate(results.recordings) if wanted in name.casefold()]


def recorded_between(results: ModelResults, first: float, last: float) -> np.ndarray:
    """Windows that start between two hours of the day, bool of shape (windows,)."""
    times = clock_times(results)
    known = ~np.isnat(times)
    if not known.any():
        raise ResultsNotFoundError(
            "No recording tells when it was made, neither in its metadata nor in its name, so "
            "there is no time of day to filter by."
        )
    hours = (times - times.astype("datetime64[D]")) / np.timedelta64(1, "h")
    if first <= last:
        return known & (hours >= first) & (hours < last)
    return known & ((hours >= first) | (hours < last))
