"""Agreement of clusterings with labels."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from bacpipe import configuration
from bacpipe.evaluation.data import NO_LABEL, label_array
from bacpipe.evaluation.errors import EvaluationError

logger = logging.getLogger(__name__)


def eval_clustering(
    clusterings: Mapping[str, Any],
    ground_truth: Any = (),
    embeds: Any = None,
    default_labels: Mapping[str, Any] | None = None,
    label_column: str | None = None,
    **kwargs: Any,
) -> dict[str, Any]:
    """Compare clusterings with ground truth and default labels.

    Adjusted mutual information (AMI) and adjusted Rand index (ARI) are 0 for chance and 1 for
    perfect agreement.  Only windows that have the label count; noise (-1) counts as a cluster.

    Parameters
    ----------
    clusterings : dict of arrays of int, shape (windows,)
        Cluster of every window by clustering, as `run_clustering` returns them.
    ground_truth : dict or array of int
        Ground truth; -1 for windows without a label.
    embeds : np.ndarray, float32, shape (windows, dim), optional
        With embeddings, silhouette scores are added.
    default_labels : dict of arrays of shape (windows,), optional
        Labels that need no annotations, from `create_default_labels`.  Kinds with a single value,
        or with another one for nearly every window, are left out.
    label_column : str, optional
        Kind of ground truth.
    **kwargs
        Any key of the configuration.

    Returns
    -------
    dict
        ``agreement``: for each clustering and each kind of label ``AMI``, ``ARI``,
        ``homogeneity``, ``completeness``, ``n_windows`` and ``n_labels``.  ``clusters``: for each
        clustering the number of clusters and the share of noise.  ``silhouette`` (with `embeds`):
        see `eval_with_silhouette`, for the ground truth and every clustering.  ``notes``.

    Examples
    --------
    >>> import bacpipe
    >>> scores = bacpipe.eval_clustering({"kmeans": [0, 0, 1, 1, 1]}, [0, 0, 1, 1, -1])
    >>> scores["agreement"]["kmeans"]["ground_truth"]["ARI"]
    1.0
    """
    options = configuration.current(**kwargs)
    kinds = _kinds(ground_truth, default_labels, label_column)
    result: dict[str, Any] = {"agreement": {}, "clusters": {}, "notes": []}
    for name, clusters in clusterings.items():
        clusters = np.asarray(clusters)
        result["agreement"][name] = {
            kind: agreement(clusters, labels) for kind, labels in kinds.items()
        }
        result["clusters"][name] = {
            "n_clusters": len(np.unique(clusters[clusters >= 0])),
            "share_of_noise": float(np.mean(clusters < 0)),
        }
        if not (clusters >= 0).any():
            result["notes"].append(f"{name} found no cluster: all windows are noise to it.")
    if embeds is not None:
        result["silhouette"] = {}
        sets = dict(clusterings)
        labels = label_array(ground_truth, label_column)
        if labels is not None and (labels != NO_LABEL).any():
            sets = {"ground_truth": labels, **sets}
        for name, values in sets.items():
            score = _silhouette(
                embeds, np.asarray(values), options.max_windows_for_pairs, options.evaluation_seed
            )
            result["silhouette"][name] = score
            if score["note"] and score["n_windows"]:
                result["notes"].append(f"Silhouette of {name}: {score['note']}")
    return result


def agreement(clusters: np.ndarray, labels: np.ndarray) -> dict[str, float | int]:
    """Agreement of one clustering with one kind of label (-1: none)."""
    from sklearn import metrics

    if len(clusters) != len(labels):
        raise EvaluationError(
            f"There are {len(clusters)} clustered windows, but labels for {len(labels)}; they must "
            f"be of the same embeddings."
        )
    use = labels != NO_LABEL
    truth, found = labels[use], clusters[use]
    homogeneity, completeness, _ = metrics.homogeneity_completeness_v_measure(truth, found)
    return {
        "AMI": float(metrics.adjusted_mutual_info_score(truth, found)),
        "ARI": float(metrics.adjusted_rand_score(truth, found)),
        "homogeneity": float(homogeneity),
        "completeness": float(completeness),
        "n_windows": int(use.sum()),
        "n_labels": len(np.unique(truth)),
    }


def eval_with_silhouette(
    embeds: Any, ground_truth: Any, metrics: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Silhouette score of labels: how much closer windows are to their own label than to others.

    Parameters
    ----------
    embeds : np.ndarray, float32, shape (windows, dim)
    ground_truth : dict or array of int
        A label (or cluster) per window; -1 is left out.
    metrics : dict, optional
        Results to add to.

    Returns
    -------
    dict
        `metrics` with ``silhouette``: ``score`` (-1 to 1; None if there is none), ``n_windows``
        it was computed from, and a ``note`` if that is a sample or there is no score.  Of more
        windows than ``settings.max_windows_for_pairs``, a random sample is used.

    Examples
    --------
    >>> import bacpipe
    >>> import numpy as np
    >>> embeddings = np.array([[0.0, 0.1], [0.1, 0.0], [9.0, 9.1], [9.1, 9.0]], np.float32)
    >>> round(bacpipe.eval_with_silhouette(embeddings, [0, 0, 1, 1])["silhouette"]["score"], 2)
    0.99
    """
    labels = label_array(ground_truth)
    settings = configuration.settings()
    score = _silhouette(
        embeds,
        np.full(len(embeds), NO_LABEL) if labels is None else labels,
        settings.max_windows_for_pairs,
        settings.evaluation_seed,
    )
    return {**(metrics or {}), "silhouette": score}


def _silhouette(embeds: Any, labels: np.ndarray, most: int, seed: int) -> dict[str, Any]:
    from sklearn.metrics import silhouette_score

    rows = np.flatnonzero(labels >= 0)
    total, note = len(rows), None
    if total > most:
        rows = np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))
        note = f"computed from a random sample of {most} of {total} windows."
        logger.info("silhouette score: %s", note)
    n_labels = len(np.unique(labels[rows]))
    if not 2 <= n_labels < len(rows):
        note = f"not defined for {n_labels} labels of {len(rows)} windows."
        return {"score": None, "n_windows": len(rows), "note": note}
    score = float(silhouette_score(np.asarray(embeds)[rows], labels[rows]))
    return {"score": score, "n_windows": len(rows), "note": note}


def _kinds(
    ground_truth: Any, default_labels: Mapping[str, Any] | None, label_column: str | None
) -> dict[str, np.ndarray]:
    """Label codes of every window by kind of label, the ground truth first."""
    found: dict[str, np.ndarray] = {}
    labels = label_array(ground_truth, label_column)
    if labels is not None and len(np.unique(labels[labels != NO_LABEL])) > 1:
        found["ground_truth"] = labels
    for kind, values in (default_labels or {}).items():
        codes = _codes(np.asarray(values))
        present = codes[codes != NO_LABEL]
        if 1 < len(np.unique(present)) <= len(present) / 2:
            found[str(kind)] = codes
    return found


def _codes(values: np.ndarray) -> np.ndarray:
    """Number of every value; -1 where it is missing."""
    import pandas as pd

    return pd.factorize(values, use_na_sentinel=True)[0].astype(np.int64)
