"""Fitted maps: arrays that place windows, also such as were not there at the fit; and their file.

``reducer.safetensors`` holds the arrays alone, so reading it needs no pickle.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from bacpipe.errors import ResultsError
from bacpipe.store.files import write_bytes
from bacpipe.store.layout import REDUCER

NEIGHBORS = 15

_REFERENCES = 5000  # fitted windows that others are compared with
_USUAL = 0.99


@dataclass(frozen=True)
class LinearMap:
    """Projection of centred embeddings.

    Attributes
    ----------
    mean : np.ndarray, float32, shape (dim,)
    projection : np.ndarray, float32, shape (dim, dimensions)
    """

    mean: np.ndarray
    projection: np.ndarray

    @property
    def dim(self) -> int:
        """Size of the embeddings that it takes."""
        return len(self.mean)

    def transform(self, embeds: np.ndarray) -> np.ndarray:
        """Place windows: float32 of shape (windows, dim) to (windows, dimensions)."""
        # Centred after the product, which spares a copy of the embeddings.
        reduced = embeds @ self.projection
        reduced -= self.mean @ self.projection
        return reduced

    def arrays(self) -> dict[str, np.ndarray]:
        """All that is needed to make it again, by name."""
        return {"mean": self.mean, "projection": self.projection}


@dataclass(frozen=True)
class NeighborMap:
    """Map of a method that places windows only by their neighbours (UMAP, t-SNE).

    A window that was not there at the fit goes to the mean of its nearest fitted windows, each
    weighted by its closeness.  That is where UMAP's and openTSNE's own transforms start from;
    unlike theirs, the result depends neither on chance nor on the windows transformed with it.

    Attributes
    ----------
    basis : LinearMap
        Principal components of the embeddings, in which neighbours are searched.
    reference : np.ndarray, float32, shape (fitted windows, components)
        Fitted windows in the basis.
    coordinates : np.ndarray, float32, shape (fitted windows, dimensions)
        Where the method placed them.
    """

    basis: LinearMap
    reference: np.ndarray
    coordinates: np.ndarray

    @property
    def dim(self) -> int:
        """Size of the embeddings that it takes."""
        return self.basis.dim

    def transform(self, embeds: np.ndarray) -> np.ndarray:
        """Place windows: float32 of shape (windows, dim) to (windows, dimensions)."""
        from sklearn.neighbors import KNeighborsRegressor

        neighbors = KNeighborsRegressor(
            min(NEIGHBORS, len(self.reference)), weights=_closeness, algorithm="brute"
        )
        neighbors.fit(self.reference, self.coordinates)
        return neighbors.predict(self.basis.transform(embeds)).astype(np.float32)

    def arrays(self) -> dict[str, np.ndarray]:
        """All that is needed to make it again, by name."""
        parts = {"reference": self.reference, "coordinates": self.coordinates}
        return {**self.basis.arrays(), **parts}


Map = LinearMap | NeighborMap


@dataclass(frozen=True)
class Novelty:
    """How far windows are from those that a map was fitted to, whatever the map shows.

    A map of neighbours has a place for everything: a species that it has never met lands in the
    middle of a known one.  The distance is that to the nearest fitted windows in the principal
    components, together with the part of the embedding that lies outside of them, divided by what
    99 of 100 fitted windows have, each without itself.  Above 1 a window is far.

    Attributes
    ----------
    basis : LinearMap
        Principal components of the fitted embeddings.
    reference : np.ndarray, float32, shape (fitted windows, components)
        Fitted windows, or a sample of them, in the basis.
    usual : float
        Distance of 99 of 100 fitted windows.
    """

    basis: LinearMap
    reference: np.ndarray
    usual: float

    @classmethod
    def fit(cls, embeds: np.ndarray, basis: LinearMap) -> Novelty:
        """Learn from fitted windows, float32 of shape (windows, dim), what is usual."""
        rows = np.arange(len(embeds))
        if len(rows) > _REFERENCES:
            rows = np.sort(np.random.default_rng(0).choice(len(rows), _REFERENCES, replace=False))
        known = embeds[rows]
        unknown = cls(basis, basis.transform(known), 1.0)
        usual = float(np.quantile(unknown.distances(known, known=True), _USUAL))
        return cls(basis, unknown.reference, usual if usual > 0 else 1.0)

    def distances(self, embeds: np.ndarray, *, known: bool = False) -> np.ndarray:
        """Distance of windows, float32 of shape (windows,); `known` if they are the reference."""
        from sklearn.neighbors import NearestNeighbors

        count = min(NEIGHBORS, len(self.reference) - known)
        search = NearestNeighbors(n_neighbors=count + known, algorithm="brute")
        places = self.basis.transform(embeds)
        near, _ = search.fit(self.reference).kneighbors(places)
        squares = np.square(embeds - self.basis.mean).sum(axis=1, dtype=np.float64)
        # The projection is orthonormal, so that what it does not keep lies outside.
        outside = np.maximum(squares - np.square(places).sum(axis=1, dtype=np.float64), 0)
        inside = near[:, int(known) :].mean(axis=1)
        return (np.sqrt(np.square(inside) + outside) / self.usual).astype(np.float32)

    def arrays(self) -> dict[str, np.ndarray]:
        """All that is needed to make it again, by name."""
        return {
            "novelty_mean": self.basis.mean,
            "novelty_projection": self.basis.projection,
            "novelty_reference": self.reference,
            "novelty_usual": np.array([self.usual], np.float64),
        }


def save_map(folder: Path, fitted: Map, novelty: Novelty | None = None) -> Path:
    """Write a fitted map into a folder; returns the file."""
    path = folder / REDUCER
    write_bytes(path, save({**fitted.arrays(), **(novelty.arrays() if novelty else {})}))
    return path


def load_novelty(folder: Path) -> Novelty | None:
    """Read what is usual in the map of a folder; None in maps of version 2.0.

    Raises
    ------
    ResultsError
        If the map is missing or damaged.
    """
    path = folder / REDUCER
    try:
        arrays = load_file(path)
        if "novelty_usual" not in arrays:
            return None
        basis = LinearMap(arrays["novelty_mean"], arrays["novelty_projection"])
        return Novelty(basis, arrays["novelty_reference"], float(arrays["novelty_usual"][0]))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, IndexError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> ResultsError:
    return ResultsError(
        f"{path}: this map cannot be read ({error}), so no windows can be added to it; set "
        f"check_if_already_dim_reduced to false to make a new one."
    )


def load_map(folder: Path) -> Map:
    """Read the fitted map of a folder.

    Raises
    ------
    ResultsError
        If it is missing or damaged.
    """
    path = folder / REDUCER
    try:
        arrays = load_file(path)
        basis = LinearMap(arrays["mean"], arrays["projection"])
        if "reference" not in arrays:
            return basis
        return NeighborMap(basis, arrays["reference"], arrays["coordinates"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise _unreadable(path, error) from None


def _closeness(distances: np.ndarray) -> np.ndarray:
    """Weights that fall from 1 exponentially, as fast as distances grow around a window."""
    beyond = distances - distances.min(axis=1, keepdims=True)
    scale = beyond.mean(axis=1, keepdims=True)
    # Several equally near windows count the same.
    return np.exp(-2 * beyond / np.where(scale > 0, scale, 1))
