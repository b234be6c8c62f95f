"""Clusters of the labelled windows, stored so that models can be compared by them.

``clustering/labelled_clusters.parquet`` has a row per labelled window: audiofilename, site, label,
and by each clustering of the labelled windows alone their cluster (``cluster: <clustering>``) and
those in clusterings of half of the recordings (``halves: <clustering>``, a list; -2 where the
window is left out).

A clustering itself depends on the recordings: with others, k-means may divide the windows in
another way.  What leaves out recordings and keeps the clusters does not see that, and its intervals
of the agreement with annotations hold the truth in as few as 7 of 10 cases (benchmarks/README.md).
So half of the recordings are clustered anew, many times; the scores of these vary as those of other
data sets of the full size do (Shao & Wu 1989, Ann. Stat. 17, 1176-1197: the delete-d jackknife).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np

from bacpipe.evaluation.metrics import FEWEST_UNITS, Groups
from bacpipe.evaluation.units import SITE, NamedSites, sites_in, units_of
from bacpipe.store.fingerprints import read_result_table, write_result_table

OUT = -2
"""Cluster of a window that is left out."""

_PREFIX, _HALVES_PREFIX = "cluster: ", "halves: "
_HALVES = 20


@dataclass(frozen=True)
class LabelledClusters:
    """Labels and clusters of the windows of one model."""

    classes: tuple[str, ...]
    labels: np.ndarray  # int64, shape (n,): places in `classes`
    clusters: np.ndarray  # int32, shape (n,)
    recordings: np.ndarray  # object, shape (n,)
    halves: np.ndarray  # int32, shape (halves, n): clusters of half of the recordings, or `OUT`
    sites: NamedSites = field(default_factory=dict)

    @property
    def compared(self) -> set[str]:
        """Labels that there are."""
        return {self.classes[i] for i in np.unique(self.labels)}

    def of(self, classes: Sequence[str], recordings: Collection[str]) -> LabelledClusters:
        """Windows of some recordings with one of some labels; clusters stay as they were made."""
        use = np.isin(self.labels, [self.classes.index(name) for name in classes])
        use &= np.isin(self.recordings.astype(str), sorted(recordings))
        return LabelledClusters(
            self.classes, self.labels[use], self.clusters[use], self.recordings[use],
            self.halves[:, use], self.sites,
        )  # fmt: skip

    def resampled(self, units: Groups) -> tuple[dict[str, np.ndarray], float | None]:
        """Agreement, and that of each half of the recordings; the share that a half leaves out."""
        values = []
        for clusters in (self.clusters, *self.halves):
            kept = clusters != OUT
            truth, group = self.labels[kept], clusters[kept]
            # Of a single label, agreement says nothing.
            defined = len(np.unique(truth)) > 1 or clusters is self.clusters
            values.append(adjusted_scores(truth, group) if defined else (np.nan, np.nan))
        ami, ari = np.array(values).T
        return {"AMI": ami, "ARI": ari}, share_left_out(self.halves, units)


def halves_of(units: np.ndarray, samples: int) -> list[np.ndarray]:
    """Windows of half of the recordings (or sites), bool of shape (n,), for up to `samples` halves.

    `units` is the recording of every window.  None of fewer recordings than have intervals.  Which
    ones are in a half depends on their names, so that halves are the same for all models.
    """
    names, code = np.unique(units.astype(str), return_inverse=True)
    if len(names) < FEWEST_UNITS:
        return []
    halves = []
    for number in range(min(samples, _HALVES)):
        digests = [sha256(f"{number} {name}".encode()).digest() for name in names.tolist()]
        order = sorted(range(len(names)), key=digests.__getitem__)
        halves.append(np.isin(code, order[: (len(names) + 1) // 2]))
    return halves


def share_left_out(halves: np.ndarray, units: Groups) -> float | None:
    """Mean share of the recordings that are in none of the windows of a half; None without any."""
    numbers = [len(np.unique(units.code[clusters != OUT])) for clusters in halves]
    there = len(np.unique(units.code))
    share = 1 - float(np.mean(numbers)) / there if numbers and there else 0.0
    return share if 0 < share < 1 else None


def adjusted_scores(truth: np.ndarray, clusters: np.ndarray) -> tuple[float, float]:
    """Adjusted mutual information and Rand index: 0 for chance and 1 for agreement.

    What scikit-learn returns, of one table of both: most of its time goes into checks, and
    intervals take a hundred of these.
    """
    from sklearn.metrics.cluster import expected_mutual_information

    labels, row = np.unique(truth, return_inverse=True)
    groups, column = np.unique(clusters, return_inverse=True)
    if max(len(labels), len(groups)) <= 1:
        return 1.0, 1.0
    shape = len(labels), len(groups)
    table = np.bincount(row * shape[1] + column, minlength=shape[0] * shape[1]).reshape(shape)
    n, rows, columns = len(truth), table.sum(axis=1), table.sum(axis=0)

    share = table / n
    there = share > 0
    by_chance = np.outer(rows, columns) / n**2
    mutual = float((share[there] * np.log(share[there] / by_chance[there])).sum())
    expected = expected_mutual_information(table, n)
    below = (_entropy(rows / n) + _entropy(columns / n)) / 2 - expected
    smallest = np.finfo(np.float64).eps
    below = min(below, -smallest) if below < 0 else max(below, smallest)

    together = float(np.square(table, dtype=np.float64).sum()) - n
    in_rows, in_columns = (float(np.square(s, dtype=np.float64).sum()) - n for s in (rows, columns))
    if in_rows == in_columns == together:  # the same groups, whatever rounding makes of it
        return 1.0, 1.0
    random = in_rows * in_columns / (n * (n - 1))
    return (mutual - expected) / below, (together - random) / ((in_rows + in_columns) / 2 - random)


def _entropy(shares: np.ndarray) -> float:
    return float(-(shares * np.log(shares)).sum())


def write_clusters(
    path: Path, clusterings: Mapping[str, LabelledClusters], fingerprint: str
) -> None:
    """Store clusterings of the same windows."""
    import pyarrow as pa

    first = next(iter(clusterings.values()))
    columns = {
        "audiofilename": first.recordings.astype(str),
        SITE: units_of(first.recordings, "site", first.sites),
        "label": np.array(first.classes, dtype=object)[first.labels],
    }
    columns |= {_PREFIX + name: each.clusters for name, each in clusterings.items()}
    columns |= {
        _HALVES_PREFIX + name: pa.array(list(each.halves.T), pa.list_(pa.int32()))
        for name, each in clusterings.items()
    }
    write_result_table(path, pa.table(columns), fingerprint)


def read_clusters(path: Path, n_windows: int) -> dict[str, LabelledClusters]:
    """Read what `write_clusters` stored; empty if it is missing or of other windows."""
    stored = read_result_table(path, None)
    if stored is None or len(stored[0]) != n_windows:
        return {}
    table = stored[0]
    recordings = np.array(table["audiofilename"].to_pylist(), dtype=object)
    sites = sites_in(table)
    names, labels = np.unique(np.array(table["label"].to_pylist(), dtype=str), return_inverse=True)
    clusterings = {}
    for column in table.column_names:
        if not column.startswith(_PREFIX):
            continue
        name = column.removeprefix(_PREFIX)
        halves = np.empty((0, len(labels)), np.int32)  # version 2.0 stored none
        if _HALVES_PREFIX + name in table.column_names:
            halves = np.array(table[_HALVES_PREFIX + name].to_pylist(), np.int32).T
        clusterings[name] = LabelledClusters(
            tuple(names.tolist()), labels, table[column].to_numpy(), recordings, halves, sites
        )
    return clusterings
