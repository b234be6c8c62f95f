"""Scores of every test window, stored so that anybody can compute metrics from them.

``probing/test_scores_<probe>.parquet`` has a row per test window: audiofilename, start and end,
``label: <class>`` (bool) and ``score: <class>`` for each class.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bacpipe.evaluation.labelled_windows import LabelledWindows
from bacpipe.evaluation.metrics import (
    MOST_REPLICATES,
    Groups,
    accuracy_replicates,
    decide,
    leave_out,
    one_hot,
    score_replicates,
)
from bacpipe.evaluation.splits import Split
from bacpipe.evaluation.units import SITE, NamedSites, sites_in, units_of
from bacpipe.store.fingerprints import read_result_table, write_result_table


@dataclass(frozen=True)
class TestedWindows:
    """Labels and scores of test windows."""

    __test__ = False  # its name is none of a test

    classes: tuple[str, ...]
    labels: np.ndarray  # int64, shape (n,), or bool, shape (n, classes), as in `LabelledWindows`
    scores: np.ndarray  # float32, shape (n, classes)
    recordings: np.ndarray  # object, shape (n,)
    sites: NamedSites = field(default_factory=dict)

    def of(self, classes: Sequence[str], recordings: Collection[str]) -> TestedWindows:
        """Those of some recordings, with some classes.

        Windows of which the single label is none of the classes are left out.
        """
        columns = [self.classes.index(name) for name in classes]
        use = np.isin(self.recordings.astype(str), sorted(recordings))
        if self.labels.ndim == 2:
            labels = self.labels[:, columns]
        else:
            place = np.full(len(self.classes), -1)
            place[columns] = np.arange(len(columns))
            labels = place[self.labels]
            use &= labels >= 0
        return TestedWindows(
            tuple(classes), labels[use], self.scores[use][:, columns], self.recordings[use],
            self.sites,
        )  # fmt: skip

    def resampled(self, units: Groups) -> tuple[dict[str, np.ndarray], None]:
        """Scores over all classes, of all and without each recording (or site)."""
        weights = leave_out(units, MOST_REPLICATES)
        overall, _ = score_replicates(
            *decide(self.labels, self.scores), self.scores, units, weights
        )
        return {**accuracy_replicates(self.labels, self.scores, units, weights), **overall}, None


def write_tested(
    path: Path, data: LabelledWindows, split: Split, scores: np.ndarray, fingerprint: str
) -> None:
    """Store the scores of the test windows of a split."""
    import pyarrow as pa

    rows = split.rows("test")
    labels = split.labels[rows]
    presence = labels if data.multi_label else one_hot(labels, len(split.classes))
    columns: dict[str, np.ndarray] = {"window": rows}
    if data.times is not None:
        columns = {str(name): data.times[name].to_numpy()[rows] for name in data.times}
    elif data.recordings is not None:
        columns["audiofilename"] = data.recordings[rows]
    if data.recordings is not None:
        columns[SITE] = units_of(data.recordings[rows], "site", data.sites)
    for i, name in enumerate(split.classes):
        columns[f"label: {name}"] = presence[:, i]
    for i, name in enumerate(split.classes):
        columns[f"score: {name}"] = scores[:, i]
    about = {"multi_label": data.multi_label, "classes": list(split.classes)}
    write_result_table(path, pa.table(columns), fingerprint, about)


def read_tested(path: Path, result: Mapping[str, Any]) -> TestedWindows | None:
    """Read what `write_tested` stored; None if it is missing or not that of a result."""
    if (stored := read_result_table(path, None)) is None:
        return None
    table, about = stored
    classes = tuple(about.get("classes", ()))
    if list(classes) != result["classes"] or len(table) != result["split"]["windows"]["test"]:
        return None
    labels, scores = (
        np.stack([table[f"{what}: {name}"].to_numpy() for name in classes], axis=1)
        for what in ("label", "score")
    )
    if "audiofilename" in table.column_names:
        recordings = np.array(table["audiofilename"].to_pylist(), dtype=object)
    else:
        recordings = np.array([f"window {n}" for n in table["window"].to_pylist()], dtype=object)
    if not about["multi_label"]:
        labels = labels.argmax(axis=1)
    return TestedWindows(classes, labels, scores, recordings, sites_in(table))
