"""Clusterings of embeddings, and how well they agree with labels."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np

from bacpipe.errors import EvaluationError, TooLittleDataError, counted, first_line
from bacpipe.evaluation.labelled_clusters import (
    OUT,
    LabelledClusters,
    adjusted_scores,
    halves_of,
    write_clusters,
)
from bacpipe.evaluation.labelled_windows import (
    NO_LABEL,
    Embeddings,
    LabelledWindows,
    Labels,
    check_embeddings,
    label_array,
    labelled_windows,
)
from bacpipe.evaluation.metrics import interval
from bacpipe.evaluation.silhouettes import silhouette
from bacpipe.evaluation.standardiser import Standardiser
from bacpipe.evaluation.units import units_left_out, units_of
from bacpipe.options import Options, check_clustering, make_options, user_settings
from bacpipe.store.files import write_table
from bacpipe.store.fingerprints import read_result, write_result
from bacpipe.store.layout import (
    CLUSTER_LABELS,
    CLUSTERING_FIGURE,
    CLUSTERING_RESULTS,
    LABELLED_CLUSTERS,
    ResultPaths,
)

logger = logging.getLogger(__name__)

_NO_NOISE = "_no_noise"
_MOST_IN_A_HALF = 2000  # windows; twenty halves are clustered, in time that may grow by the square
_MOST_PAIRED = 5000  # windows whose distances are all computed at once: 200 MB


class Clusterer(Protocol):
    """Whatever clusters as the classes of `sklearn.cluster` do."""

    def fit_predict(self, X: np.ndarray) -> np.ndarray:
        """Cluster of every row."""


def clustering_pipeline(
    model_name: str,
    ground_truth: Labels | None,
    embeds: Embeddings,
    paths: ResultPaths | None = None,
    overwrite: bool = True,
    label_column: str = "species",
    *,
    default_labels: Mapping[str, Sequence[Any] | np.ndarray] | None = None,
    recordings: Sequence[str] | None = None,
    **kwargs: object,
) -> dict[str, Any]:
    """Cluster embeddings as the settings say, compare with labels, and store that.

    Embeddings are standardised first: every dimension has mean 0 and deviation 1.  Clusters are
    compared with the ground truth in a clustering of the labelled windows alone, because background
    would take clusters of its own; the clusters of all windows are stored to look at, and compared
    with the labels that all windows have.

    Parameters
    ----------
    model_name : str
        Name of the model that made the embeddings.
    ground_truth : dict or array of int
        What `ground_truth_by_model` returned, or a label per window; empty or None without
        annotations.
    embeds : np.ndarray, float32, shape (windows, dim)
        Embeddings, as ``Loader.embeddings`` returns them, array or dictionary.
    paths : ResultPaths, optional
        Where results are, from `make_set_paths_func`.  Without them, results are stored if the
        embeddings are those that the present configuration finds, else only returned.
    overwrite : bool
        False returns the stored result if data and settings have not changed.
    label_column : str
        Kind of label, with or without the prefix 'label:'.
    default_labels : dict, optional
        Labels that need no annotations, from `create_default_labels`.
    recordings : sequence of str, optional
        Recording of every window, for embeddings that are not in a results tree.
    **kwargs
        Any key of the configuration; clust_configs, evaluate_with_silhouette,
        max_windows_for_pairs and evaluation_seed matter here.

    Returns
    -------
    dict
        What `eval_clustering` returns (a dictionary and nothing else: the clusters themselves are
        what `run_clustering` returns), with ``skipped``: clusterings that could not be computed,
        and why, ``left_out``: number of windows without a label, and for the ground truth
        ``AMI_low``, ``AMI_high``, ``ARI_low`` and ``ARI_high`` (95 %, from clusterings of half of
        the recordings, as those of the silhouettes of clusterings are; of more than 2000 windows
        in a half, 2000 are drawn at random, which makes the intervals wider).  Also stored as
        ``clustering/clust_results.json``; the clusters of all windows are in
        ``clustering/clust_labels.parquet``.

    Raises
    ------
    TooLittleDataError, EvaluationError
        If not one clustering could be computed.

    Examples
    --------
    >>> import bacpipe
    >>> loader = bacpipe.Loader("recordings", "birdnet")
    >>> truth = bacpipe.ground_truth_by_model("birdnet", "recordings")
    >>> result = bacpipe.clustering_pipeline("birdnet", truth, loader.embeddings("array"),
    ...     paths=loader.paths)
    >>> result["agreement"]["kmeans"]["ground_truth"]["AMI"] > 0.8
    True
    """
    options = make_options(**kwargs)
    data = labelled_windows(
        model_name, ground_truth, embeds, paths, label_column=label_column, recordings=recordings,
        **kwargs,
    )  # fmt: skip
    return evaluate_clusterings(data, default_labels or {}, options, overwrite=overwrite)


def evaluate_clusterings(
    data: LabelledWindows,
    default_labels: Mapping[str, Sequence[Any] | np.ndarray],
    options: Options,
    *,
    overwrite: bool,
) -> dict[str, Any]:
    """Do what `clustering_pipeline` does, for windows whose labels are known."""
    several = int((data.labels.sum(axis=1) > 1).sum()) if data.multi_label else 0
    data = data.with_one()
    unit = "site" if options.split == "site" else "recording"
    fingerprint = data.fingerprint(
        clusterings=options.clust_configs,
        silhouette=options.evaluate_with_silhouette,
        sample=options.max_windows_for_pairs,
        seed=options.evaluation_seed,
        bootstrap=options.bootstrap_samples,
        unit=unit,
        intervals="halves",  # before, they were too narrow
        default_labels={key: [str(v) for v in values] for key, values in default_labels.items()},
    )
    path = None if data.paths is None else data.paths.clust_path / CLUSTERING_RESULTS
    if path is not None and not overwrite:
        stored = read_result(path, fingerprint)
        if stored is not None:
            return stored
    points = Standardiser.of(data.embeds)(data.embeds)
    labelled = np.flatnonzero(data.labels != NO_LABEL)
    clusterings, skipped = _cluster_all(data.model, points, data.labels, options)
    left_out = len(points) - len(labelled) if len(labelled) else 0
    # Windows whose recording is not known are recordings of their own.
    where = np.arange(len(points)) if data.recordings is None else data.recordings
    units = units_of(where, unit, data.sites)
    alone = {
        name: LabelledClusters(
            data.classes, data.labels[labelled], clusters, where[labelled],
            cluster_halves(
                points[labelled], name, data.labels[labelled], units[labelled], options
            ),
            data.sites,
        )
        for name, clusters in _of_labelled(data, points, clusterings, options).items()
    }  # fmt: skip

    def halves(name: str) -> np.ndarray:
        """Clusters of half of the recordings, of all windows."""
        if name in alone and not left_out:
            return alone[name].halves
        return cluster_halves(points, name, data.labels, units, options)

    result = {
        "model": data.model,
        "label_column": data.column,
        "standardised": True,
        "left_out": left_out,
        "unit": unit,
        **_evaluate(
            clusterings,
            data.labels,
            points if options.evaluate_with_silhouette else None,
            default_labels,
            options,
            None if data.recordings is None else units,
            None if data.recordings is None else halves,
        ),
        "skipped": skipped,
    }
    for name, kinds in result["agreement"].items():
        if "ground_truth" in kinds:
            # First, as in all other results.
            rest = {kind: scores for kind, scores in kinds.items() if kind != "ground_truth"}
            known = {"ground_truth": _agreement(alone[name], options)} if name in alone else {}
            result["agreement"][name] = {**known, **rest}
    if left_out and alone:
        result["notes"].append(
            f"Agreement with the ground truth is that of "
            f"{counted(len(labelled), 'labelled window')}, clustered alone, "
            f"without {counted(left_out, 'window')} that have no label."
        )
    if several:
        result["notes"].append(
            f"{counted(several, 'window')} with several labels count as without one: a cluster is "
            f"compared with a single label."
        )
    result = _with_short_names(result)
    if data.paths is not None and path is not None:
        _write_labels(data, clusterings)
        _draw(data.paths, result)
        if alone:
            write_clusters(path.with_name(LABELLED_CLUSTERS), alone, fingerprint)
        write_result(path, result, fingerprint)
    return result


def _spread(clusters: np.ndarray, rows: np.ndarray, n: int) -> np.ndarray:
    every = np.full(n, NO_LABEL, np.int32)
    every[rows] = clusters
    return every


def _of_labelled(
    data: LabelledWindows,
    points: np.ndarray,
    clusterings: Mapping[str, np.ndarray],
    options: Options,
) -> Mapping[str, np.ndarray]:
    """Clusters of the labelled windows, clustered alone; none where they have a single label."""
    labelled = np.flatnonzero(data.labels != NO_LABEL)
    labels = data.labels[labelled]
    if len(np.unique(labels)) < 2:  # there is nothing to agree with
        return {}
    if len(labelled) == len(points):
        return clusterings
    try:
        return _cluster_all(data.model, points[labelled], labels, options)[0]
    except TooLittleDataError as error:
        logger.info("%s: no clustering of the labelled windows alone (%s)", data.model, error)
        return {}


def _agreement(clusters: LabelledClusters, options: Options) -> dict[str, Any]:
    """Agreement of a clustering with the ground truth, and its intervals."""
    scores: dict[str, Any] = {**agreement(clusters.clusters, clusters.labels)}
    n = len(clusters.labels)
    groups = units_left_out(clusters.recordings, n, options.split, clusters.sites)
    replicates, left_out = clusters.resampled(groups)
    for name, values in replicates.items():
        bounds = interval(values, low=-1.0, windows=n, left_out=left_out) or (None, None)
        scores[f"{name}_low"], scores[f"{name}_high"] = bounds
    return scores


def cluster_halves(
    points: np.ndarray, name: str, labels: np.ndarray, units: np.ndarray, options: Options
) -> np.ndarray:
    """Clusters of half of the recordings after another, int32 of shape (halves, windows).

    `OUT` where a window is left out.  There are no halves where half of the recordings are too few
    to be clustered.
    """
    config, seed = options.clust_configs[name], options.evaluation_seed
    halves = []
    for number, kept in enumerate(halves_of(units, options.bootstrap_samples)):
        rows = np.flatnonzero(kept)
        if len(rows) > _MOST_IN_A_HALF:
            random = np.random.default_rng([seed, number])
            rows = np.sort(random.choice(rows, _MOST_IN_A_HALF, replace=False))
        clusters = np.full(len(points), OUT, np.int32)
        try:
            clusters[rows] = _cluster(points[rows], name, config, labels, seed)
        except (EvaluationError, ValueError) as error:
            logger.info("no intervals of %s: half of the recordings: %s", name, error)
            return np.empty((0, len(points)), np.int32)
        halves.append(clusters)
    return np.array(halves, np.int32).reshape(len(halves), len(points))


def run_clustering(
    embeds: np.ndarray,
    cluster_configs: Mapping[str, Mapping[str, Any] | Clusterer | None],
    label_column: str | None = None,
    ground_truth: Labels | None = (),
) -> dict[str, np.ndarray]:
    """Cluster embeddings.

    Parameters
    ----------
    embeds : np.ndarray, float32, shape (windows, dim)
        Embeddings.
    cluster_configs : dict
        For each clustering its parameters, or a scikit-learn clusterer.  Names are 'kmeans',
        'hdbscan' or any class of `sklearn.cluster` ('agglomerative_clustering'); ``n_clusters``
        None means as many as there are labels.  Random numbers come from
        ``settings.evaluation_seed`` unless ``random_state`` is given.
    label_column : str, optional
        Kind of label to take the number of clusters from.
    ground_truth : dict or array of int
        Ground truth: the number of labels, and which windows have one.

    Returns
    -------
    dict of np.ndarray, int32, shape (windows,)
        Cluster of every window by clustering; -1 is noise (hdbscan and the like).  With ground
        truth that leaves windows without a label there is also ``<clustering>_no_noise``, the
        clusters of the labelled windows, clustered alone; -1 for the others.

    Raises
    ------
    EvaluationError
        If a clusterer or a parameter does not exist.
    TooLittleDataError
        If there are fewer windows than clusters.

    Examples
    --------
    >>> import bacpipe
    >>> loader = bacpipe.Loader("recordings", "birdnet")
    >>> clusters = bacpipe.run_clustering(loader.embeddings("array"), {"kmeans": {"n_clusters": 6}})
    >>> clusters["kmeans"].shape, len(set(clusters["kmeans"]))
    ((153,), 6)
    """
    matrix = check_embeddings(embeds)
    labels = label_array(ground_truth, label_column)
    _check_lengths(len(matrix), ground_truth=labels)
    seed = user_settings().evaluation_seed
    rows = np.arange(0) if labels is None else np.flatnonzero(labels != NO_LABEL)
    clusters = {}
    for name, config in cluster_configs.items():
        clusters[name] = _cluster(matrix, name, config, labels, seed)
        if labels is not None and 1 < len(rows) < len(labels):
            alone = _cluster(matrix[rows], name, config, labels[rows], seed)
            clusters[name + _NO_NOISE] = _spread(alone, rows, len(labels))
    return clusters


def eval_clustering(
    clusterings: Mapping[str, Sequence[int] | np.ndarray],
    ground_truth: Labels | None = (),
    embeds: np.ndarray | None = None,
    default_labels: Mapping[str, Sequence[Any] | np.ndarray] | None = None,
    label_column: str | None = None,
    *,
    metadata_labels: Mapping[str, Sequence[Any] | np.ndarray] | None = None,
    **kwargs: object,
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
    metadata_labels : dict, optional
        Further `default_labels`.
    **kwargs
        Any key of the configuration; evaluate_with_silhouette, max_windows_for_pairs,
        bootstrap_samples, split and evaluation_seed matter here.

    Returns
    -------
    dict
        ``AMI`` and ``ARI`` by ``"<clustering>-<labels>"`` and, with `embeds`, ``SS``, the
        silhouette score by clustering.  The same in full: ``agreement``, for each clustering and
        each kind of label ``AMI``, ``ARI``, ``homogeneity``, ``completeness``, ``n_windows`` and
        ``n_labels``; ``clusters``, for each clustering the number of clusters and the share of
        noise; ``silhouette``, see `eval_with_silhouette`, for the ground truth and every
        clustering.  ``notes``.

    Examples
    --------
    >>> import bacpipe
    >>> scores = bacpipe.eval_clustering({"kmeans": [0, 0, 1, 1, 1]}, [0, 0, 1, 1, -1])
    >>> scores["agreement"]["kmeans"]["ground_truth"]["ARI"]
    1.0
    """
    options = make_options(**kwargs)
    labels = label_array(ground_truth, label_column)
    every = {**(default_labels or {}), **(metadata_labels or {})}
    if embeds is not None:
        embeds = check_embeddings(embeds)
        _check_lengths(len(embeds), ground_truth=labels, **clusterings)
    return _with_short_names(_evaluate(clusterings, labels, embeds, every, options))


def _evaluate(
    clusterings: Mapping[str, Sequence[int] | np.ndarray],
    labels: np.ndarray | None,
    embeds: np.ndarray | None,
    default_labels: Mapping[str, Sequence[Any] | np.ndarray],
    options: Options,
    units: np.ndarray | None = None,
    halves: Callable[[str], np.ndarray] | None = None,
) -> dict[str, Any]:
    kinds = _kinds(labels, default_labels)
    result: dict[str, Any] = {"agreement": {}, "clusters": {}, "notes": []}
    for name, clusters in clusterings.items():
        clusters = np.asarray(clusters)
        result["agreement"][name] = {
            kind: agreement(clusters, codes) for kind, codes in kinds.items()
        }
        result["clusters"][name] = {
            "n_clusters": len(np.unique(clusters[clusters >= 0])),
            "share_of_noise": float(np.mean(clusters < 0)),
        }
        if not (clusters >= 0).any():
            result["notes"].append(f"{name} found no cluster: all windows are noise to it.")
    if embeds is not None:
        result["silhouette"] = {}
        groupings = dict(clusterings)
        if labels is not None and (labels != NO_LABEL).any():
            groupings = {"ground_truth": labels, **groupings}
        for name, values in groupings.items():
            of_halves = None
            if halves is not None and name in clusterings:
                of_halves = partial(halves, name)
            score = silhouette(embeds, np.asarray(values), options, units, of_halves)
            result["silhouette"][name] = score
            if score["note"] and score["n_windows"]:
                result["notes"].append(f"Silhouette of {name}: {score['note']}")
    return result


def _with_short_names(result: Mapping[str, Any]) -> dict[str, Any]:
    """The result with its main numbers at the top, by the names that they usually have."""
    short: dict[str, dict[str, float | None]] = {
        metric: {
            f"{name}-{kind}": scores[metric]
            for name, kinds in result["agreement"].items()
            for kind, scores in kinds.items()
        }
        for metric in ("AMI", "ARI")
    }
    if "silhouette" in result:
        short["SS"] = {name: score["score"] for name, score in result["silhouette"].items()}
    return {**short, **result}


def eval_with_silhouette(
    embeds: np.ndarray, ground_truth: Labels | None, metrics: Mapping[str, Any] | None = None
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
        it was computed from, ``interval`` (None, because the recordings are not known here;
        `clustering_pipeline` has one) and a ``note`` if that is a sample or there is no score.  Of
        more windows than ``settings.max_windows_for_pairs``, a random sample is used.

    Examples
    --------
    >>> import bacpipe
    >>> import numpy as np
    >>> embeddings = np.array([[0.0, 0.1], [0.1, 0.0], [9.0, 9.1], [9.1, 9.0]], np.float32)
    >>> round(bacpipe.eval_with_silhouette(embeddings, [0, 0, 1, 1])["silhouette"]["score"], 2)
    0.99
    """
    matrix, labels = check_embeddings(embeds), label_array(ground_truth)
    _check_lengths(len(matrix), ground_truth=labels)
    codes = np.full(len(matrix), NO_LABEL) if labels is None else labels
    score = silhouette(matrix, codes, make_options())
    return {**(metrics or {}), "silhouette": score}


def _check_lengths(windows: int, **labels: Sequence[Any] | np.ndarray | None) -> None:
    for name, values in labels.items():
        if values is not None and len(values) != windows:
            raise EvaluationError(
                f"{name} has labels of {len(values)} windows, but there are {windows} embeddings; "
                f"they must be of the same windows."
            )


def _cluster_all(
    model: str, points: np.ndarray, labels: np.ndarray, options: Options
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    clusterings, skipped, errors = {}, {}, []
    for name, config in options.clust_configs.items():
        try:
            clusterings[name] = _cluster(points, name, config, labels, options.evaluation_seed)
        except EvaluationError as error:
            logger.warning("%s: %s", model, error)
            skipped[name] = str(error)
            errors.append(error)
    if not clusterings:
        raise errors[0] if errors else EvaluationError("clust_configs names no clustering.")
    return clusterings, skipped


def _cluster(
    embeds: np.ndarray,
    name: str,
    config: Mapping[str, Any] | Clusterer | None,
    labels: np.ndarray | None,
    seed: int,
) -> np.ndarray:
    if config is None or isinstance(config, Mapping):
        clusterer = _make(name, dict(config or {}), labels, seed, len(embeds))
    else:
        clusterer = config
    _check_size(name, clusterer, len(embeds))
    try:
        return np.asarray(clusterer.fit_predict(embeds), dtype=np.int32)
    # Of values that do not go together, scikit-learn tells only now.
    except (ValueError, TypeError, AttributeError) as error:
        raise EvaluationError(
            f"clust_configs: {name!r} is not possible ({first_line(error)}); correct its values."
        ) from error


def _make(
    name: str, parameters: dict[str, Any], labels: np.ndarray | None, seed: int, n: int
) -> Clusterer:
    try:
        kind, known = check_clustering(name, parameters)
    except ValueError as error:
        raise EvaluationError(f"clust_configs: {error}") from None
    if "n_clusters" in parameters and parameters["n_clusters"] is None:
        n_labels = 0 if labels is None else len(np.unique(labels[labels != NO_LABEL]))
        if n_labels < 2:
            raise TooLittleDataError(
                f"clust_configs: {name!r} has n_clusters null, as many as there are labels, but "
                f"there {'is' if n_labels == 1 else 'are'} {counted(n_labels, 'label')}; give "
                f"n_clusters a number, or annotate."
            )
        parameters["n_clusters"] = n_labels
    if "random_state" in known:
        parameters.setdefault("random_state", seed)
    if kind.__name__ == "HDBSCAN":
        parameters.setdefault("copy", True)  # its default warns that it will change
        if n <= _MOST_PAIRED:
            # Its trees are no use for so many dimensions: 25 to 45 times as long for the same.
            parameters.setdefault("algorithm", "brute")
    clusterer: Clusterer = kind(**parameters)
    return clusterer


def _check_size(name: str, clusterer: Clusterer, n_windows: int) -> None:
    parameters = clusterer.get_params() if hasattr(clusterer, "get_params") else {}
    for key in ("n_clusters", "min_cluster_size", "min_samples"):
        needed = parameters.get(key)
        if isinstance(needed, int) and needed > n_windows:
            raise TooLittleDataError(
                f"clust_configs: {name!r} has {key}={needed}, but there are only {n_windows} "
                f"windows; use fewer, or embed more recordings."
            )
    if n_windows < 2:
        raise TooLittleDataError(
            f"{counted(n_windows, 'window')} cannot be clustered; expected at least 2."
        )


def agreement(clusters: np.ndarray, labels: np.ndarray) -> dict[str, float | int]:
    """Agreement of one clustering with one kind of label (-1: none)."""
    from sklearn.metrics import homogeneity_completeness_v_measure

    if len(clusters) != len(labels):
        raise EvaluationError(
            f"There are {len(clusters)} clustered windows, but labels for {len(labels)}; they must "
            f"be of the same embeddings."
        )
    use = labels != NO_LABEL
    truth, group = labels[use], clusters[use]
    ami, ari = adjusted_scores(truth, group)
    homogeneity, completeness, _ = homogeneity_completeness_v_measure(truth, group)
    return {
        "AMI": ami,
        "ARI": ari,
        "homogeneity": float(homogeneity),
        "completeness": float(completeness),
        "n_windows": int(use.sum()),
        "n_labels": len(np.unique(truth)),
    }


def _kinds(
    labels: np.ndarray | None, default_labels: Mapping[str, Sequence[Any] | np.ndarray]
) -> dict[str, np.ndarray]:
    """Label codes of every window by kind of label, the ground truth first."""
    codes_of: dict[str, np.ndarray] = {}
    if labels is not None and len(np.unique(labels[labels != NO_LABEL])) > 1:
        codes_of["ground_truth"] = labels
    for kind, values in default_labels.items():
        codes = _codes(np.asarray(values))
        present = codes[codes != NO_LABEL]
        if 1 < len(np.unique(present)) <= len(present) / 2:
            codes_of[str(kind)] = codes
    return codes_of


def _codes(values: np.ndarray) -> np.ndarray:
    """Number of every value; -1 where it is missing."""
    import pandas as pd

    return pd.factorize(values, use_na_sentinel=True)[0].astype(np.int64)


def _write_labels(data: LabelledWindows, clusterings: Mapping[str, np.ndarray]) -> None:
    import pandas as pd
    import pyarrow as pa

    assert data.paths is not None
    table = data.times.copy() if data.times is not None else pd.DataFrame()
    for name, clusters in clusterings.items():
        table[name] = clusters
    path = data.paths.clust_path / CLUSTER_LABELS
    write_table(path, pa.Table.from_pandas(table, preserve_index=False))


def _draw(paths: ResultPaths, result: Mapping[str, Any]) -> None:
    # Whoever only imports this module need not wait for matplotlib.
    from bacpipe.plotting.clustering import agreement
    from bacpipe.plotting.style import save_figure

    save_figure(agreement(result), paths.plot_path / CLUSTERING_FIGURE)
