"""Scores of a model's own classifier and what is annotated, stored so that models can be compared.

``predictions/benchmark_windows.parquet`` has a row per window (or segment): audiofilename, site,
and for each class ``label``, ``ignored`` (bool: neither expected nor wrong) and ``score``.  Classes
go by their scientific names where these are known, because every model has names of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bacpipe.evaluation.metrics import MOST_REPLICATES, Groups, leave_out, score_replicates
from bacpipe.evaluation.units import SITE, NamedSites, sites_in, units_of
from bacpipe.store.fingerprints import read_result_table, write_result_table

_COLUMNS = ("label", "ignored", "score")


@dataclass(frozen=True)
class BenchmarkedWindows:
    """Windows with the scores of a classifier."""

    classes: tuple[str, ...]
    truth: np.ndarray  # bool, shape (n, classes)
    ignored: np.ndarray  # bool, shape (n, classes)
    scores: np.ndarray  # float32, shape (n, classes)
    recordings: np.ndarray  # object, shape (n,)
    threshold: float
    sites: NamedSites = field(default_factory=dict)

    @property
    def compared(self) -> set[str]:
        """Classes that are annotated."""
        return {name for name, there in zip(self.classes, self.truth.any(axis=0), strict=True)
                if there}  # fmt: skip

    def of(self, classes: Sequence[str], recordings: Collection[str]) -> BenchmarkedWindows:
        """Windows of some recordings with some of the classes."""
        columns = [self.classes.index(name) for name in classes]
        use = np.isin(self.recordings.astype(str), sorted(recordings))
        truth, ignored, scores = (
            part[use][:, columns] for part in (self.truth, self.ignored, self.scores)
        )
        return BenchmarkedWindows(
            tuple(classes), truth, ignored, scores, self.recordings[use], self.threshold,
            self.sites,
        )  # fmt: skip

    def resampled(self, units: Groups) -> tuple[dict[str, np.ndarray], None]:
        """Scores of all, and without each recording (or site)."""
        predicted, weights = self.scores >= self.threshold, leave_out(units, MOST_REPLICATES)
        overall, _ = score_replicates(
            self.truth, predicted, self.scores, units, weights, self.ignored
        )
        return overall, None


def write_benchmarked(path: Path, windows: BenchmarkedWindows, fingerprint: str) -> None:
    """Store the scores of a classifier."""
    import pyarrow as pa

    columns = {
        "audiofilename": windows.recordings.astype(str),
        SITE: units_of(windows.recordings, "site", windows.sites),
    }
    for i, _ in enumerate(windows.classes):
        for what, part in zip(_COLUMNS, (windows.truth, windows.ignored, windows.scores),
                              strict=True):  # fmt: skip
            columns[f"{what} {i}"] = part[:, i]
    about = {"classes": list(windows.classes)}
    write_result_table(path, pa.table(columns), fingerprint, about)


def read_benchmarked(path: Path, result: Mapping[str, Any]) -> BenchmarkedWindows | None:
    """Read what `write_benchmarked` stored; None if it is missing or not that of a result."""
    if (stored := read_result_table(path, None)) is None:
        return None
    table, about = stored
    classes = tuple(about.get("classes", ()))
    names = {f"{what} {i}" for what in _COLUMNS for i, _ in enumerate(classes)}
    if not classes or len(classes) != len(result["per_class"]) or names - {*table.column_names}:
        return None
    truth, ignored, scores = (
        np.stack([table[f"{what} {i}"].to_numpy() for i, _ in enumerate(classes)], axis=1)
        for what in _COLUMNS
    )
    recordings = np.array(table["audiofilename"].to_pylist(), dtype=object)
    threshold = float(result["threshold"])
    return BenchmarkedWindows(
        classes, truth, ignored, scores, recordings, threshold, sites_in(table)
    )
