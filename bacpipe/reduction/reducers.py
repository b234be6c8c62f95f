"""The four ways to reduce embeddings to two or three dimensions, behind one function.

``pca`` and ``sparse_pca`` project.  ``t_sne`` and ``umap`` arrange windows by their neighbours;
they work on the first principal components of the embeddings, which keeps neighbours and takes
a fraction of the time and memory.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from bacpipe.errors import ReductionError, SettingsError, unexpected
from bacpipe.reduction.fitted import NEIGHBORS, LinearMap, Map, NeighborMap, Novelty

COMPONENTS = 100
_AUTOMATIC_SEED = 42
_MOST_SEEDED = 10_000
# Of the largest value; squares of others overflow or vanish in single precision.
_SMALLEST, _LARGEST = 1e-18, 1e18
_MOST_COMPARED = 100_000
_SPARSENESS = 0.1


class Fit(NamedTuple):
    """What a reducer made of some windows.

    Attributes
    ----------
    map : LinearMap or NeighborMap
        Places further windows.
    coordinates : np.ndarray, float32, shape (windows, dimensions)
        Where the windows are.
    parameters : dict
        What it was computed with, for the record.
    """

    map: Map
    coordinates: np.ndarray
    parameters: dict[str, Any]


@dataclass(frozen=True)
class Reducer:
    """How to fit one kind of map, and to how many windows.

    Attributes
    ----------
    fit : callable
        ``fit(embeds, dimensions, seed) -> Fit``.
    fewest, most : int
        Windows that it needs, and to which it is fitted at most.
    """

    fit: Callable[[np.ndarray, int, int | None], Fit]
    fewest: int
    most: int


def fit_novelty(embeds: np.ndarray, fitted: Fit) -> Novelty | None:
    """Learn how far windows usually are from each other; None of too few windows.

    `embeds` are those that were fitted.
    """
    if len(embeds) < 3:
        return None
    if isinstance(fitted.map, NeighborMap):
        return Novelty.fit(embeds, fitted.map.basis)
    return Novelty.fit(embeds, _principal_components(embeds, min(COMPONENTS, *embeds.shape))[0])


def find_reducer(name: str) -> Reducer:
    """Reducer of a name.

    Raises
    ------
    SettingsError
        If there is none.
    """
    if name not in REDUCERS:
        raise SettingsError(
            f"There is no dimensionality reduction {name!r}; expected one of {', '.join(REDUCERS)}."
        )
    return REDUCERS[name]


def choose_seed(setting: int | str | None, windows: int) -> int | None:
    """Seed of a fit from the setting ``reduction_seed``; None for none."""
    if setting == "auto":
        return _AUTOMATIC_SEED if windows <= _MOST_SEEDED else None
    return None if setting is None else int(setting)


def fit(name: str, embeds: np.ndarray, dimensions: int = 2, seed: int | None = None) -> Fit:
    """Reduce embeddings, and keep what places further ones.

    Parameters
    ----------
    name : {'pca', 'sparse_pca', 't_sne', 'umap'}
        The reducer.
    embeds : np.ndarray, float32, shape (windows, dim)
        Embeddings.
    dimensions : {2, 3}
        Dimensions of the map.
    seed : int or None
        Makes runs agree.  A seed keeps UMAP from using more than one core; without one, it
        uses all of them.

    Returns
    -------
    Fit

    Raises
    ------
    ReductionError
        If there are too few windows, or they hold values that are not numbers.

    Notes
    -----
    PCA, t-SNE (Barnes-Hut, started from PCA) and sparse PCA (mini-batches) are scikit-learn's;
    UMAP is umap-learn's (McInnes, Healy & Melville 2018, arXiv:1802.03426).
    """
    reducer = find_reducer(name)
    check_embeddings(embeds)
    if problem := magnitude_problem(embeds):
        raise ReductionError(f"{name}: {problem}")
    fewest = max(reducer.fewest, dimensions + 1)
    if len(embeds) < fewest:
        raise ReductionError(
            f"{name} needs at least {fewest} windows, but there are {len(embeds)}; add recordings, "
            f"or set dim_reduction_model to {'pca or ' if len(embeds) > dimensions else ''}None."
        )
    if embeds.shape[1] < dimensions:
        raise ReductionError(
            f"Embeddings of {embeds.shape[1]} values cannot be reduced to {dimensions} dimensions; "
            f"set dim_reduction_model to None."
        )
    try:
        fitted = reducer.fit(embeds, dimensions, seed)
    except (np.linalg.LinAlgError, ValueError, FloatingPointError) as error:
        raise ReductionError(unexpected(name, error, "these embeddings have no map")) from error
    if not np.isfinite(fitted.coordinates).all():
        raise ReductionError(
            f"{name}: these embeddings have no map, because some windows got no place on it; try "
            f"another dim_reduction_model."
        )
    return fitted


def check_embeddings(embeds: np.ndarray, name: str = "embeddings") -> None:
    """Make sure that an array can be reduced.

    Raises
    ------
    ReductionError
        Naming the recording, if it does not have the shape (windows, dim) or holds values that
        are not numbers, or so large or small that their squares are none.
    """
    if embeds.ndim != 2:
        raise ReductionError(
            f"{name}: an array of shape {embeds.shape} cannot be reduced; expected (windows, dim)."
        )
    # A sum tells without an array of truth values as large as the embeddings.
    if not np.isfinite(embeds.sum(dtype=np.float64)):
        raise ReductionError(
            f"{name}: some values are not finite numbers, so these windows cannot be reduced; "
            f"compute the embeddings anew (check_if_already_processed: false)."
        )
    if problem := magnitude_problem(embeds, smallest=0.0):  # those of silence may be tiny
        raise ReductionError(f"{name}: {problem}")


def magnitude_problem(embeds: np.ndarray, smallest: float = _SMALLEST) -> str | None:
    """What is wrong with values whose squares single precision cannot hold; None if nothing."""
    largest = max(float(embeds.max()), -float(embeds.min())) if embeds.size else 0.0
    if largest == 0 or smallest <= largest <= _LARGEST:
        return None
    return (
        f"the largest value is {largest:.3g}, and distances cannot be computed with such numbers; "
        f"expected {_SMALLEST:g} to {_LARGEST:g}, so scale the embeddings in the model."
    )


def _fit_pca(embeds: np.ndarray, dimensions: int, seed: int | None) -> Fit:
    linear, explained = _principal_components(embeds, dimensions)
    parameters = {"explained_variance_ratio": [round(float(part), 6) for part in explained]}
    return Fit(linear, linear.transform(embeds), parameters)


def _fit_sparse_pca(embeds: np.ndarray, dimensions: int, seed: int | None) -> Fit:
    from sklearn.decomposition import MiniBatchSparsePCA

    # The penalty counts in units of the data and grows with the root of their number.
    scale = float(embeds.std(dtype=np.float64)) * np.sqrt(len(embeds)) or 1.0
    model = MiniBatchSparsePCA(dimensions, alpha=_SPARSENESS, random_state=seed)
    model.fit(embeds / np.float32(scale))
    # The transform is a linear one; each dimension's unit vector shows its row.
    rows = model.transform(np.eye(embeds.shape[1]) + model.mean_)
    mean = (model.mean_ * scale).astype(np.float32)
    linear = LinearMap(mean, np.ascontiguousarray(rows, dtype=np.float32))
    zeros = float(np.mean(model.components_ == 0))
    parameters = {"alpha": _SPARSENESS, "share_of_zero_loadings": round(zeros, 6)}
    return Fit(linear, linear.transform(embeds), parameters)


def _fit_t_sne(embeds: np.ndarray, dimensions: int, seed: int | None) -> Fit:
    from sklearn.manifold import TSNE

    basis, reference, parameters = _basis(embeds)
    perplexity = min(30.0, (len(embeds) - 1) / 3)
    start = _start(reference)
    model = TSNE(dimensions, perplexity=perplexity, init=start, random_state=seed, n_jobs=-1)
    coordinates = np.ascontiguousarray(model.fit_transform(reference), dtype=np.float32)
    parameters.update(perplexity=round(perplexity, 3), init=start)
    return Fit(NeighborMap(basis, reference, coordinates), coordinates, parameters)


def _fit_umap(embeds: np.ndarray, dimensions: int, seed: int | None) -> Fit:
    basis, reference, parameters = _basis(embeds)
    chosen: dict[str, Any] = {"n_neighbors": min(NEIGHBORS, len(embeds) - 1), "min_dist": 0.1}
    chosen["init"] = _start(reference)
    cores = -1 if seed is None else 1
    with warnings.catch_warnings():
        # UMAP's own transform is not used; see `NeighborMap`.
        warnings.filterwarnings("ignore", "precomputed_knn", UserWarning)
        model = load_umap()(
            n_components=dimensions,
            random_state=seed,
            n_jobs=cores,
            precomputed_knn=_neighbors(reference, chosen["n_neighbors"]),
            **chosen,
        )
        points = model.fit_transform(reference)
    coordinates = np.ascontiguousarray(points, dtype=np.float32)
    parameters.update(chosen, metric="euclidean")
    return Fit(NeighborMap(basis, reference, coordinates), coordinates, parameters)


def _neighbors(reference: np.ndarray, count: int) -> tuple[Any, ...]:
    """Indices of the nearest windows of each window, itself among them, and their distances.

    Comparing all windows is faster than UMAP's approximate search, and uses all cores even with
    a seed, unless there are very many.
    """
    if len(reference) > _MOST_COMPARED:
        return (None, None, None)
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(reference)
    distances, indices = search.kneighbors(reference)
    return indices.astype(np.int32), distances.astype(np.float32)


def _basis(embeds: np.ndarray) -> tuple[LinearMap, np.ndarray, dict[str, Any]]:
    basis, explained = _principal_components(embeds, min(COMPONENTS, *embeds.shape))
    kept = {"components": len(explained), "variance_kept": round(float(explained.sum()), 6)}
    return basis, basis.transform(embeds), {"principal_components": kept}


def _start(reference: np.ndarray) -> str:
    """Where windows are before they are arranged: by PCA, unless all of them are the same.

    Both libraries divide by the extent of the start, and scikit-learn's t-SNE crashes on NaN.
    """
    return "pca" if np.ptp(reference[:, 0]) > 0 else "random"


def _principal_components(embeds: np.ndarray, count: int) -> tuple[LinearMap, np.ndarray]:
    from sklearn.decomposition import PCA

    # The solver by covariance takes no copy of the embeddings, the other one is for few windows.
    solver = "covariance_eigh" if len(embeds) >= embeds.shape[1] else "full"
    # Embeddings that are all the same have no variance to explain: 0 / 0.
    with np.errstate(invalid="ignore"):
        model = PCA(count, svd_solver=solver).fit(embeds)
    projection = np.ascontiguousarray(model.components_.T, dtype=np.float32)
    explained = np.nan_to_num(model.explained_variance_ratio_)
    return LinearMap(model.mean_.astype(np.float32), projection), explained


def load_umap() -> type[Any]:
    """Import the class ``umap.UMAP``, which takes seconds, when it is needed.

    umap-learn also imports TensorFlow and Keras if they are installed, for a variant that is
    not used here.  That takes ten seconds more, and TensorFlow and PyTorch in one process can
    end it with a segmentation fault.
    """
    unused = "umap.parametric_umap"
    if "umap" not in sys.modules:
        # Python's way to say that a module cannot be imported, for which umap is prepared.
        sys.modules[unused] = None  # type: ignore[assignment]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ImportWarning)
            from umap import UMAP
    finally:
        if unused in sys.modules and sys.modules[unused] is None:
            del sys.modules[unused]
    return UMAP


REDUCERS = {
    "pca": Reducer(_fit_pca, fewest=3, most=300_000),
    "sparse_pca": Reducer(_fit_sparse_pca, fewest=3, most=50_000),
    # Barnes-Hut t-SNE takes ten minutes and more for as many.
    "t_sne": Reducer(_fit_t_sne, fewest=5, most=50_000),
    "umap": Reducer(_fit_umap, fewest=5, most=300_000),
}
