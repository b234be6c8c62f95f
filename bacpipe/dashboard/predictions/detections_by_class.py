"""Detections of a model by class, from its own classifier, a trained probe or a recogniser."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from bacpipe.dashboard.shared.clock import zone_of
from bacpipe.dashboard.shared.labels import clock_times
from bacpipe.dashboard.shared.recognisers import recogniser_of, recognisers_of
from bacpipe.dashboard.shared.results import ModelResults, Predictions
from bacpipe.errors import ResultsNotFoundError, counted
from bacpipe.evaluation.probing import probe_detections, trained_probes
from bacpipe.evaluation.species_names import Match, known_species, match_names
from bacpipe.labels.activity import (
    SUN,
    ActivityGrid,
    activity_grid,
    recorded_stretches,
    starts_for,
)
from bacpipe.recognisers.recogniser import RecogniserResults

CLASSIFIER = "classifier"
_PROBE = "probe_"
_RECOGNISER = "recogniser_"
# A probe gives every window scores that sum to 1, so lower ones say nothing, and few below the
# other number are right.
_LOWEST_OF_PROBES = 0.05
_LIKELY = 0.5


def sources(results: ModelResults) -> dict[str, str]:
    """Where detections of a model can come from, each with its title for people."""
    keys = [_PROBE + name for name in trained_probes(results.loader)]
    if any(entry.predictions for entry in results.loader.entries.values()):
        keys.insert(0, CLASSIFIER)
    keys += [_RECOGNISER + name for name in recognisers_of(results)]
    return {key: _title(key) for key in keys}


def _title(source: str) -> str:
    if source == CLASSIFIER:
        return "own classifier"
    if source.startswith(_RECOGNISER):
        return f"recogniser {source.removeprefix(_RECOGNISER)}"
    return f"trained probe ({source.removeprefix(_PROBE)})"


class DetectionsByClass:
    """Detections of a model from one source, by class.

    Attributes
    ----------
    source : str
        A key of `sources`.
    lowest : float
        Detections with a lower score are not known.
    names : tuple of str
        Classes that were found.
    clock : np.ndarray, datetime64[us], shape (windows,)
        Date and time at which every window of the model starts; NaT where nobody knows.
    zone : str
        Zone of these times, or whose clock it is; '' where nothing tells.
    """

    def __init__(
        self, results: ModelResults, source: str, predictions: Predictions, lowest: float
    ) -> None:
        self.results, self.source, self.lowest = results, source, lowest
        self.names = predictions.names
        order = np.lexsort((-predictions.score, predictions.code))
        self._row, self._code = predictions.row[order], predictions.code[order]
        self._score = predictions.score[order]
        self._first = np.searchsorted(self._code, np.arange(len(self.names) + 1))
        self.clock, self.zone = clock_times(results), zone_of(results)
        self._sun_clocks: dict[str, np.ndarray] = {}
        self._grids: dict[str, ActivityGrid] = {}

    @property
    def scorer(self) -> str:
        """Model or recogniser whose scores these are, as the journal of labels names it."""
        if self.source == CLASSIFIER:
            return self.results.name
        return self.source.removeprefix(_RECOGNISER)

    def threshold(self, wanted: float | None) -> float:
        """Threshold to show: the wanted one, or else all of the classifier, 0.5 for the others."""
        if wanted is None:
            wanted = 0.0 if self.source == CLASSIFIER else _LIKELY
        return max(self.lowest, wanted)

    def counts(self, threshold: float) -> np.ndarray:
        """Detections of every class with at least this score, int64 of shape (classes,)."""
        kept = self._code[self._score >= np.float32(threshold)]
        return np.bincount(kept, minlength=len(self.names))

    def of(self, name: str, threshold: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """Windows (int64) and scores (float32) of a class, the best first."""
        code = self.names.index(name)
        part = slice(self._first[code], self._first[code + 1])
        score = self._score[part]
        stop = int(np.searchsorted(-score, -np.float32(threshold), side="right"))
        return self._row[part][:stop], score[:stop]

    @property
    def known_names(self) -> tuple[str, ...]:
        """All classes that the source could have found, as far as they are known."""
        return tuple(self.results.loader.classes.names) if self.source == CLASSIFIER else self.names

    def below(self, name: str, threshold: float) -> tuple[int, float]:
        """Detections of a class with a lower score, and the best score of all."""
        scores = self.of(name)[1]
        return int((scores < np.float32(threshold)).sum()), float(scores.max(initial=0))

    def others(self, threshold: float) -> int:
        """Windows in which no class reaches the threshold."""
        named = np.unique(self._row[self._score >= np.float32(threshold)])
        return len(self.results) - len(named)

    @property
    def title(self) -> str:
        """Model and source, for people."""
        return f"{self.results.name}, {_title(self.source)}"

    @property
    def about_threshold(self) -> str:
        """Why the threshold begins where it does."""
        if self.source == CLASSIFIER:
            return (
                f"The slider starts at {self.lowest:g}: the run stored nothing below "
                f"(classifier_threshold)."
            )
        if self.source.startswith(_RECOGNISER):
            return f"The slider starts at {self.lowest:g}: nothing below is stored."
        return (
            f"This probe knows {counted(len(self.names), 'class', 'classes')} only and gives every "
            f"window to one of them, more or less. Windows in which none reaches the threshold "
            f"count as other."
        )

    def times(self, by: str) -> np.ndarray:
        """Start of every window on the clock of a heat map, datetime64[us] of shape (windows,)."""
        if by not in SUN:
            return self.clock
        if by not in self._sun_clocks:
            results = self.results
            starts = starts_for(results.loader, results.recordings, by)
            into = np.rint(results.start * 1e6).astype("timedelta64[us]")
            self._sun_clocks[by] = starts[results.recording_code] + into
        return self._sun_clocks[by]

    def tells_time(self, by: str) -> bool:
        """Whether any recording tells when it was made, on the clock of a heat map."""
        return not bool(np.isnat(self.times(by)).all())

    def grid(self, by: str) -> ActivityGrid:
        """Cells of a heat map over the time that this source has looked at."""
        if by not in self._grids:
            windows = self.results.windows
            looked_at = {
                name: entry
                for name, entry in windows.entries.items()
                if entry.windows and (self.source != CLASSIFIER or entry.predictions)
            }
            first = np.array([self.results.rows_of(name).start for name in looked_at], np.int64)
            into = np.rint(self.results.start[first] * 1e6).astype("timedelta64[us]")
            stretches = recorded_stretches(looked_at, self.times(by)[first] - into)
            self._grids[by] = activity_grid(stretches, by)
        return self._grids[by]


def read_detections(results: ModelResults, source: str) -> DetectionsByClass:
    """Detections of a model, by class; those of a probe are computed now.

    Raises
    ------
    ResultsNotFoundError
        If there is no such source or nothing was found.
    """
    version = ""
    if source.startswith(_RECOGNISER):  # may have been trained again
        version = recogniser_of(results, source.removeprefix(_RECOGNISER)).digest
    return _read(results, source, version)


@lru_cache(maxsize=8)
def _read(results: ModelResults, source: str, version: str) -> DetectionsByClass:
    available = sources(results)
    if source not in available:
        raise ResultsNotFoundError(
            f"{results.name} has no {source!r}; it has {', '.join(available) or 'nothing'}."
        )
    if source.startswith(_RECOGNISER):
        return _of_recogniser(results, source)
    if source != CLASSIFIER:
        items = list(
            probe_detections(results.loader, source.removeprefix(_PROBE), _LOWEST_OF_PROBES)
        )
        rows = [results.rows_of(item.recording).start + item.window for item in items]
        predictions = Predictions.of(
            np.concatenate(rows),
            np.concatenate([item.label for item in items]),
            np.concatenate([item.score for item in items]),
        )
        return DetectionsByClass(results, source, predictions, _LOWEST_OF_PROBES)
    stored = [entry.predictions for entry in results.loader.entries.values() if entry.predictions]
    lowest = max(float(item.threshold or 0.0) for item in stored)
    if all(item.path is None for item in stored):
        raise ResultsNotFoundError(
            f"{results.name} found nothing with a score of {lowest:g} or more in these recordings; "
            f"run it again with a lower classifier_threshold to see less certain detections."
        )
    return DetectionsByClass(results, source, results.predictions, lowest)


def _of_recogniser(results: ModelResults, source: str) -> DetectionsByClass:
    """What a recogniser has found, or finds now if it was not applied since it was trained."""
    name = source.removeprefix(_RECOGNISER)
    applied = RecogniserResults(recogniser_of(results, name), results.loader)
    items = [item for item in applied.detections() if len(item.window)]
    lowest = float(applied.stored_settings["threshold"] or 0.0)
    if not items:
        raise ResultsNotFoundError(
            f"The recogniser {name} found nothing with a score of {lowest:g} or more in these "
            f"recordings; label more windows and train it again."
        )
    rows = [results.rows_of(item.recording).start + item.window for item in items]
    predictions = Predictions.of(
        np.concatenate(rows),
        np.concatenate([item.label for item in items]),
        np.concatenate([item.score for item in items]),
    )
    return DetectionsByClass(results, source, predictions, lowest)


def same_class(name: str, other: DetectionsByClass) -> Match:
    """Which class of another model means the same as a name."""
    folder = Path(other.results.loader.options.model_base_path)
    return match_names([name], other.names, species=_species(folder))[0]


@lru_cache(maxsize=2)
def _species(folder: Path) -> list[tuple[str, ...]]:
    return known_species(folder)
