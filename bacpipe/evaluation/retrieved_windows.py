"""Nearest neighbours of every labelled window, stored so that models can be compared by them.

``clustering/retrieval_neighbours.parquet`` has a row per labelled window: audiofilename,
site, ``label: <class>`` (bool) for each class, and ``neighbours``, the rows of the most similar
windows of other recordings, the nearest first.  From these the precision of neighbours can be
computed for some of the labels and recordings, as it must be where models do not have the same
ones.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bacpipe.evaluation.metrics import (
    MOST_REPLICATES,
    Groups,
    leave_out,
    mean_of_defined,
    ratio,
)
from bacpipe.evaluation.units import SITE, NamedSites, sites_in, units_of
from bacpipe.store.fingerprints import read_result_table, write_result_table


@dataclass(frozen=True)
class RetrievedWindows:
    """Labels and neighbours of the windows of one model."""

    classes: tuple[str, ...]
    presence: np.ndarray  # bool, shape (n, classes)
    recordings: np.ndarray  # object, shape (n,)
    nearest: np.ndarray  # int32, shape (n, kept): rows, the nearest first; -1 where there is none
    n_neighbors: int  # how many of them are looked at; more are kept for when some are left out
    multi_label: bool
    sites: NamedSites = field(default_factory=dict)

    @property
    def compared(self) -> set[str]:
        """Labels that can be found in another recording."""
        window, label = np.nonzero(self.presence)
        code = np.unique(self.recordings.astype(str), return_inverse=True)[1]
        pairs = np.unique(np.stack([label, code[window]]), axis=1)[0]
        counts = np.bincount(pairs, minlength=len(self.classes))
        return {name for name, n in zip(self.classes, counts, strict=True) if n > 1}

    def of(self, classes: Sequence[str], recordings: Collection[str]) -> RetrievedWindows:
        """Windows of some recordings with some of the labels, which are all that there is then."""
        presence = self.presence[:, [self.classes.index(name) for name in classes]]
        use = np.isin(self.recordings.astype(str), sorted(recordings))
        if not self.multi_label:
            use &= presence.any(axis=1)
        place = np.append(np.where(use, np.cumsum(use) - 1, -1), -1)  # what is -1 stays -1
        return RetrievedWindows(
            tuple(classes), presence[use], self.recordings[use],
            place[self.nearest[use]].astype(np.int32), self.n_neighbors, self.multi_label,
            self.sites,
        )  # fmt: skip

    def by_class(self, units: Groups, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Precision of neighbours, and that by chance, float64 of shape (replicates, classes).

        `units` are recordings or sites, `weights` those of `leave_out`.  NaN for labels that are
        in one recording only.
        """
        sets, of_set = np.unique(self.presence, axis=0, return_inverse=True)
        of_set = of_set.ravel()
        meet = (sets.astype(np.int64) @ sets.T.astype(np.int64)) > 0
        code = np.unique(self.recordings.astype(str), return_inverse=True)[1]
        # Windows by set of labels, and those that share a label with a set: by recording, by unit.
        by_recording = _counts(code, of_set, int(code.max(initial=-1)) + 1, len(sets))
        by_unit = _counts(units.code, of_set, units.number, len(sets))
        match = meet.astype(np.int64)
        own_equal, own = (by_recording @ match)[code, of_set], by_recording.sum(axis=1)[code]
        is_neighbour = self.nearest >= 0
        equal = meet[of_set[:, None], of_set[self.nearest]] & is_neighbour
        neighbour_unit = units.code[self.nearest]
        shape = (len(weights), len(self.classes))
        precision, chance = np.full(shape, np.nan), np.full(shape, np.nan)
        for row, weight in enumerate(weights):
            kept = weight > 0
            here = kept[units.code]
            there = by_unit[kept].sum(axis=0)
            n_equal = (there @ match)[of_set] - own_equal
            n_other = there.sum() - own
            left = is_neighbour & kept[neighbour_unit]
            taken = left & (left.cumsum(axis=1) <= self.n_neighbors)
            # A window whose label is nowhere else has no precision.
            use = (here & (n_equal > 0))[:, None] & self.presence
            shares = ratio((equal & taken).sum(axis=1), taken.sum(axis=1), 0)
            at_random = ratio(n_equal, n_other, 0)
            for values, result in ((shares, precision), (at_random, chance)):
                result[row] = ratio(values @ use, use.sum(axis=0), np.nan)
        return precision, chance

    def resampled(self, units: Groups) -> tuple[dict[str, np.ndarray], None]:
        """Means over the labels, of all and without each recording (or site)."""
        precision, chance = self.by_class(units, leave_out(units, MOST_REPLICATES))
        return {
            "neighbour_precision": mean_of_defined(precision),
            "neighbour_precision_chance": mean_of_defined(chance),
        }, None


def _counts(group: np.ndarray, label: np.ndarray, groups: int, labels: int) -> np.ndarray:
    return np.bincount(group * labels + label, minlength=groups * labels).reshape(groups, labels)


def write_retrieved(path: Path, windows: RetrievedWindows, fingerprint: str) -> None:
    """Store the neighbours of a model's windows."""
    import pyarrow as pa

    columns: dict[str, Any] = {
        "audiofilename": windows.recordings.astype(str),
        SITE: units_of(windows.recordings, "site", windows.sites),
    }
    for i, name in enumerate(windows.classes):
        columns[f"label: {name}"] = windows.presence[:, i]
    columns["neighbours"] = list(windows.nearest)
    about = {
        "classes": list(windows.classes),
        "n_neighbors": windows.n_neighbors,
        "multi_label": windows.multi_label,
    }
    write_result_table(path, pa.table(columns), fingerprint, about)


def read_retrieved(path: Path, result: Mapping[str, Any]) -> RetrievedWindows | None:
    """Read what `write_retrieved` stored; None if it is missing or not that of a result."""
    if (stored := read_result_table(path, None)) is None:
        return None
    table, about = stored
    classes = tuple(about.get("classes", ()))
    if len(table) != result["n_windows"] or not set(result.get("per_class", {})) <= set(classes):
        return None
    return RetrievedWindows(
        classes,
        np.stack([table[f"label: {name}"].to_numpy() for name in classes], axis=1),
        np.array(table["audiofilename"].to_pylist(), dtype=object),
        np.array(table["neighbours"].to_pylist(), dtype=np.int32),
        about["n_neighbors"],
        about["multi_label"],
        sites_in(table),
    )
