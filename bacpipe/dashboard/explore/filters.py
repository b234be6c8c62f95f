"""Which windows are looked at: by annotation, label, recording and time of day."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import panel as pn

from bacpipe.dashboard.shared.hours import ALL_DAY, HoursOfDay
from bacpipe.dashboard.shared.labels import (
    NONE,
    WindowLabels,
    clock_times,
    label_kinds,
    read_labels,
)
from bacpipe.dashboard.shared.own_changes import OwnChanges
from bacpipe.dashboard.shared.results import ModelResults
from bacpipe.dashboard.shared.widgets import TickBox, heading
from bacpipe.errors import ResultsNotFoundError, counted

# What a browser offers without getting slow.
_MOST_LABELS = 1000
_MOST_FILES = 100
_NO_FILE = ""
_ALL_LABELS = "Labels (none chosen: all)"


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

        Raises ResultsNotFoundError if there are no annotations or times to filter by.
        """
        shown = np.ones(len(results), bool)
        if self.annotated:
            shown &= annotated_windows(results)
        if self.labels and self.colour is not None:
            shown &= read_labels(results, self.colour).windows_with(self.labels)
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
    annotated = np.zeros(len(results), bool)
    for kind in kinds:
        annotated |= read_labels(results, kind).codes != NONE
    return annotated


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


class FilterControls:
    """Annotated windows, labels, recording and time of day; calls `on_change`."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._own = OwnChanges()
        wide: dict[str, Any] = {"sizing_mode": "stretch_width", "margin": (2, 5)}
        self._annotated = TickBox("only annotated windows")
        self._labels = pn.widgets.MultiSelect(label=_ALL_LABELS, options=[], size=4, **wide)
        self._file = pn.widgets.TextInput(
            label="Recording", placeholder="part of a file or folder name", **wide
        )
        self._matches = pn.widgets.Select(label="Found", options={}, disabled=True, **wide)
        self._hours = HoursOfDay(step=0.5)
        self._clear = pn.widgets.Button(label="Show all windows", height=28, disabled=True, **wide)
        for widget in (self._annotated, self._labels, self._file, self._hours):
            widget.param.watch(self._changed, "value")
        self._matches.param.watch(self._take_match, "value")
        self._clear.on_click(lambda _: self._reset())
        self.panel = pn.Column(
            heading("Show only", margin=(2, 5)),
            self._annotated,
            self._labels,
            self._file,
            self._matches,
            self._hours,
            self._clear,
            sizing_mode="stretch_width",
        )

    @property
    def value(self) -> Filter:
        """What is chosen; its `colour` is left open."""
        return Filter(
            annotated=self._annotated.value,
            labels=tuple(self._labels.value),
            file=self._file.value.strip(),
            hours=self._hours.value,
        )

    def set(self, wanted: Filter) -> None:
        """Show what was chosen elsewhere, such as in the address."""
        with self._own:
            self._annotated.value = wanted.annotated
            self._labels.param.update(
                options=list(dict.fromkeys([*self._labels.options, *wanted.labels])),
                value=list(wanted.labels),
            )
            self._file.value = wanted.file
            self._hours.value = wanted.hours
            self._clear.disabled = wanted == Filter(colour=wanted.colour)

    def offer(self, results: ModelResults, labels: WindowLabels | None, wanted: Filter) -> None:
        """Offer the labels and recordings of a model; the filter `wanted` stays chosen."""
        names = () if labels is None else labels.names
        with self._own:
            many = len(names) > _MOST_LABELS
            self._labels.param.update(
                options=[] if many else list(names),
                value=[name for name in wanted.labels if name in set(names) and not many],
                disabled=many or not names,
                label=f"Labels ({len(names):,} are too many to choose)" if many else _ALL_LABELS,
            )
            self._offer_files(results, wanted.file)

    def _offer_files(self, results: ModelResults, text: str) -> None:
        if not text:
            options = {f"all {counted(len(results.recordings), 'recording')}": _NO_FILE}
            self._matches.param.update(options=options, value=_NO_FILE, disabled=True)
            return
        matching = matching_recordings(results, text)
        names = [results.recordings[i] for i in matching[:_MOST_FILES]]
        summary = f"{len(matching):,} of {counted(len(results.recordings), 'recording')}"
        more = " – choose one" if len(matching) > 1 else ""
        options = {f"{summary}{more}": _NO_FILE}
        if len(matching) > 1:
            options.update({name: name for name in names})
        self._matches.param.update(options=options, value=_NO_FILE, disabled=False)

    def _take_match(self, event: Any) -> None:
        if not self._own and event.new:
            self._file.value = event.new

    def _changed(self, _: Any) -> None:
        if self._own:
            return
        self._clear.disabled = self.value == Filter()
        self._on_change()

    def _reset(self) -> None:
        self.set(Filter())
        self._on_change()
