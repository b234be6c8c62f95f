"""Clusters of the labelled windows, stored so that models can be compared by them.

``clustering/labelled_clusters.parquet`` has a row per labelled window: audiofilename, site, label,
and the cluster by each clustering (``cluster: <clustering>``) of the labelled windows alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bacpipe.evaluation.metrics import Groups
from bacpipe.evaluation.units import SITE, NamedSites, sites_in, units_of
from bacpipe.store.fingerprints import read_result_table, write_result_table

_PREFIX = "cluster: "


@dataclass(frozen=True)
class LabelledClusters:
    """Labels and clusters of the windows of one model."""

    classes: tuple[str, ...]
    labels: np.ndarray  # int64, shape (n,): places in `classes`
    clusters: np.ndarray  # int32, shape (n,)
    recordings: np.ndarray  # object, shape (n,)
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
            self.classes, self.labels[use], self.clusters[use], self.recordings[use], self.sites
        )

    def replicates(self, units: Groups, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Agreement with each row of weights, shape (replicates,)."""
        values = []
        for weight in weights:
            kept = weight[units.code] > 0
            truth, group = self.labels[kept], self.clusters[kept]
            values.append((adjusted_mutual_info(truth, group), adjusted_rand(truth, group)))
        ami, ari = np.array(values).T
        return {"AMI": ami, "ARI": ari}


def adjusted_mutual_info(truth: np.ndarray, clusters: np.ndarray) -> float:
    """Mutual information, 0 for chance and 1 for agreement."""
    from sklearn.metrics import adjusted_mutual_info_score

    return float(adjusted_mutual_info_score(truth, clusters))


def adjusted_rand(truth: np.ndarray, clusters: np.ndarray) -> float:
    """Rand index, 0 for chance and 1 for agreement."""
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(truth, clusters))


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
    return {
        name.removeprefix(_PREFIX): LabelledClusters(
            tuple(names.tolist()), labels, table[name].to_numpy(), recordings, sites
        )
        for name in table.column_names
        if name.startswith(_PREFIX)
    }
