"""Fitted maps on disk: ``reducer.safetensors``, arrays alone."""

from __future__ import annotations

from pathlib import Path

from bacpipe.errors import ResultsError
from bacpipe.reduction.fitted import LinearMap, Map, NeighborMap
from bacpipe.store.writer import write_bytes

FILE_NAME = "reducer.safetensors"


def save_map(folder: Path, fitted: Map) -> Path:
    """Write a fitted map into a folder; returns the file."""
    from safetensors.numpy import save

    path = folder / FILE_NAME
    write_bytes(path, save(fitted.arrays()))
    return path


def load_map(folder: Path) -> Map:
    """Read the fitted map of a folder.

    Raises
    ------
    ResultsError
        If it is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = folder / FILE_NAME
    try:
        arrays = load_file(path)
        basis = LinearMap(arrays["mean"], arrays["projection"])
        if "reference" not in arrays:
            return basis
        return NeighborMap(basis, arrays["reference"], arrays["coordinates"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ResultsError(
            f"{path}: this map cannot be read ({error}), so no windows can be added to it; set "
            f"check_if_already_dim_reduced to false to make a new one."
        ) from None
