"""Reduce the embeddings of a data set, and keep the map as the embeddings grow."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bacpipe._version import __version__
from bacpipe.errors import ReductionError, counted
from bacpipe.options import Options
from bacpipe.reduction.fitted import Map, Novelty, load_map, load_novelty, save_map
from bacpipe.reduction.reducers import (
    Fit,
    check_embeddings,
    choose_seed,
    find_reducer,
    fit,
    fit_novelty,
)
from bacpipe.store.embedding_set import read_embeddings
from bacpipe.store.entries import FinishedEntry
from bacpipe.store.files import (
    remove_temporaries,
    remove_unfinished,
    write_table,
    write_yaml,
)
from bacpipe.store.layout import (
    METADATA,
    REDUCER,
    map_table_name,
    stamped_folder,
    stamped_folders,
)
from bacpipe.store.loader import Loader
from bacpipe.store.lock import exclusive
from bacpipe.store.maps import (
    AXES,
    DISTANCE,
    FAR,
    IS_FAR,
    StoredMap,
    coordinates_of,
    stored_maps,
)

logger = logging.getLogger(__name__)


_SAMPLE_SEED = 42
_BLOCK = 50_000  # windows of a new map placed at a time

Coordinates = dict[str, np.ndarray]
"""By recording, float32 of shape (windows, dimensions + 1): places, and distances to the map.

Distances are those of `Novelty`, and NaN for windows that the map was fitted to.
"""


def reduce_data_set(loader: Loader, reducer_name: str, options: Options) -> Path:
    """Reduce all embeddings of a data set to a map, and store it.

    A map that is there is kept: if it is current nothing is done, else the recordings that are
    new or have changed are placed in it and those that are gone are dropped.  With
    ``check_if_already_dim_reduced`` False, or other dimensions or seed, a new map is fitted.
    Of many windows (see `REDUCERS`), a random sample is fitted and the rest placed in its map.

    Parameters
    ----------
    loader : Loader
        Whose embeddings.
    reducer_name : {'pca', 'sparse_pca', 't_sne', 'umap'}
        The reducer.
    options : Options
        ``visualization_dimensions``, ``reduction_seed`` and ``check_if_already_dim_reduced``
        are used.

    Returns
    -------
    Path
        Folder with ``metadata.yml``, ``<dataset>_<model>.parquet`` and ``reducer.safetensors``.

    Raises
    ------
    ResultsNotFoundError
        If there are no embeddings.
    ReductionError
        If there are too few windows, or they cannot be reduced.
    ResultsLockedError
        If another run makes this map.
    """
    find_reducer(reducer_name)
    what = f"{reducer_name}-{loader.paths.dataset}-{loader.model_name}"
    parent = loader.paths.dim_reduc_parent_dir
    loader.get_embedding_dir()
    with exclusive(parent, what):
        _remove_unfinished_maps(parent, what, loader)
        stored = None
        if options.check_if_already_dim_reduced:
            stored = _find_map(loader, reducer_name, options)
        if stored is None:
            folder = stamped_folder(parent, what, datetime.now())
            return _create(folder, loader, reducer_name, options)
        return stored.folder if _is_current(stored, loader) else _update(stored, loader)


def _remove_unfinished_maps(parent: Path, what: str, loader: Loader) -> None:
    """Remove maps that killed runs have not completed."""
    for folder in stamped_folders(parent, what):
        if not (folder / METADATA).is_file():
            remove_unfinished(folder, REDUCER, _table_name(loader))


def has_current_map(loader: Loader, reducer_name: str, options: Options) -> bool:
    """Whether `reduce_data_set` would have nothing to do."""
    stored = _find_map(loader, reducer_name, options)
    return stored is not None and _is_current(stored, loader)


def _find_map(loader: Loader, reducer_name: str, options: Options) -> StoredMap | None:
    """Newest map of the loader's embeddings that was made with the present settings."""
    dataset, model = loader.paths.dataset, str(loader.model_name)
    seed = options.reduction_seed
    for stored in stored_maps(loader.paths.dim_reduc_parent_dir, reducer_name, dataset, model):
        if (
            stored.metadata.get("embeddings") == loader.get_embedding_dir().name
            and stored.metadata.get("dimensions") == options.visualization_dimensions
            and (not isinstance(seed, int) or stored.metadata.get("seed") == seed)
        ):
            return stored
    return None


def _is_current(stored: StoredMap, loader: Loader) -> bool:
    return stored.metadata["embeddings_state"] == loader.embeddings_state


# ---------------------------------------------------------------------- a new map


class _Fitted(NamedTuple):
    fit: Fit
    rows: np.ndarray  # the windows that were fitted, ascending
    novelty: Novelty | None
    seed: int | None


def _create(folder: Path, loader: Loader, name: str, options: Options) -> Path:
    fitted = _fit(loader, name, options)
    coordinates = _place_all(loader, fitted)
    try:
        _write_new(folder, loader, fitted, coordinates, name, options)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # half a map is of no use
        raise
    return folder


def _write_new(
    folder: Path,
    loader: Loader,
    fitted: _Fitted,
    coordinates: Coordinates,
    name: str,
    options: Options,
) -> None:
    save_map(folder, fitted.fit.map, fitted.novelty)
    _write_table(folder, loader, coordinates)
    windows = _windows(loader)
    metadata = {
        "reducer": name,
        "dimensions": options.visualization_dimensions,
        "seed": fitted.seed,
        "parameters": fitted.fit.parameters,
        "fitted_to": _describe_sample(len(fitted.rows), windows),
        "nr_embeds_fitted": len(fitted.rows),
    }
    _write_metadata(folder, loader, metadata)


def _describe_sample(fitted: int, windows: int) -> str:
    if fitted == windows:
        return f"all {windows} windows"
    return f"a random sample of {fitted} of {windows} windows (seed {_SAMPLE_SEED})"


def _fit(loader: Loader, name: str, options: Options) -> _Fitted:
    windows, most = _windows(loader), find_reducer(name).most
    rows = np.arange(windows)
    if windows > most:
        rows = np.sort(np.random.default_rng(_SAMPLE_SEED).permutation(windows)[:most])
        logger.info("%s is fitted to %s.", name, _describe_sample(most, windows))
    seed = choose_seed(options.reduction_seed, len(rows))
    embeds = _read_rows(loader, rows)
    made = fit(name, embeds, options.visualization_dimensions, seed)
    return _Fitted(made, rows, fit_novelty(embeds, made), seed)


def _read_rows(loader: Loader, rows: np.ndarray) -> np.ndarray:
    """Some windows of all recordings, float32 of shape (rows, dim), read file by file."""
    array, first, done = np.zeros((0, 0), np.float32), 0, 0
    for _, part in _embeddings(loader, loader.entries):
        if first == 0:
            array = np.empty((len(rows), part.shape[1]), np.float32)
        wanted = rows[done : np.searchsorted(rows, first + len(part))] - first
        array[done : done + len(wanted)] = part[wanted]
        done += len(wanted)
        first += len(part)
    return array


def _place_all(loader: Loader, fitted: _Fitted) -> Coordinates:
    """Coordinates of every window: those of the fit, and transformed ones for the rest."""
    entries = loader.entries
    counts = [entry.windows for entry in entries.values()]
    points = fitted.fit.coordinates
    points = np.column_stack([points, np.full(len(points), np.nan, np.float32)])
    if len(fitted.rows) < sum(counts):
        everywhere = np.empty((sum(counts), points.shape[1]), np.float32)
        everywhere[fitted.rows] = points
        left = np.ones(sum(counts), bool)
        left[fitted.rows] = False
        first = 0
        for _, part in _embeddings(loader, entries):
            rest = left[first : first + len(part)]
            everywhere[first : first + len(part)][rest] = _transform(
                fitted.fit.map, fitted.novelty, part[rest]
            )
            first += len(part)
        points = everywhere
    return dict(zip(entries, np.split(points, np.cumsum(counts)[:-1]), strict=True))


def _transform(fitted: Map, novelty: Novelty | None, embeds: np.ndarray) -> np.ndarray:
    parts = []
    for first in range(0, len(embeds), _BLOCK):
        block = embeds[first : first + _BLOCK]
        unknown = np.full(len(block), np.nan, np.float32)
        distances = unknown if novelty is None else novelty.distances(block)
        parts.append(np.column_stack([fitted.transform(block), distances]))
    return np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)


# ---------------------------------------------------------------------- a map that is there


def _update(stored: StoredMap, loader: Loader) -> Path:
    """Place new and changed recordings in an existing map, drop those that are gone."""
    remove_temporaries(stored.folder)
    entries = loader.entries
    kept = _unchanged(stored, entries)
    new = {name: entry for name, entry in entries.items() if name not in kept}
    if new:
        fitted, novelty = load_map(stored.folder), load_novelty(stored.folder)
        placed = dict(_place(fitted, novelty, loader, new))
        kept.update(placed)
        logger.info("Placed %s in the map %s.", counted(len(new), "recording"), stored.folder)
        _warn_of_novelty(stored, placed)
        _warn_if_outgrown(stored, _windows(loader))
    _write_table(stored.folder, loader, kept)
    _write_metadata(stored.folder, loader, stored.metadata)
    return stored.folder


def _warn_of_novelty(stored: StoredMap, placed: Coordinates) -> None:
    far = sum(int((points[:, -1] > FAR).sum()) for points in placed.values())
    windows = sum(map(len, placed.values()))
    if far:
        logger.warning(
            "%s: %d of %s that were added are unlike all that this map was fitted to (far_from_map "
            "in its table), so their places mean little; set check_if_already_dim_reduced to false "
            "to make a new one.",
            stored.folder, far, counted(windows, "window"),
        )  # fmt: skip


def _warn_if_outgrown(stored: StoredMap, windows: int) -> None:
    fitted, most = (
        stored.metadata["nr_embeds_fitted"],
        find_reducer(stored.metadata["reducer"]).most,
    )
    if fitted < min(windows / 2, most):
        logger.warning(
            "%s: this map was fitted to %d windows, now there are %d; set "
            "check_if_already_dim_reduced to false to make a new one.",
            stored.folder,
            fitted,
            windows,
        )


def _unchanged(stored: StoredMap, entries: Mapping[str, FinishedEntry]) -> Coordinates:
    """Coordinates of the recordings whose embeddings are those that are in the map."""
    files = stored.metadata["files"]
    known = dict(zip(files["audio_files"], files["embeddings_sha256"], strict=True))
    table = stored.read()
    distances = table[DISTANCE] if DISTANCE in table else np.float32(np.nan)
    coordinates = coordinates_of(table.assign(**{DISTANCE: distances}), (*AXES, DISTANCE))
    return {
        name: coordinates[name]
        for name, entry in entries.items()
        if name in coordinates
        and known.get(name) is not None
        and known[name] == entry.embeddings.sha256
        and len(coordinates[name]) == entry.windows
    }


def _place(
    fitted: Map, novelty: Novelty | None, loader: Loader, entries: Mapping[str, FinishedEntry]
) -> Iterator[tuple[str, np.ndarray]]:
    """Transform whole recordings, many short ones at a time."""
    waiting: dict[str, np.ndarray] = {}
    for name, part in _embeddings(loader, entries):
        if part.shape[1] != fitted.dim:
            raise ReductionError(
                f"{name}: has embeddings of {part.shape[1]} values, but the map was fitted to "
                f"{fitted.dim}; set check_if_already_dim_reduced to false to make a new one."
            )
        waiting[name] = part
        if sum(map(len, waiting.values())) >= _BLOCK:
            yield from _place_block(fitted, novelty, waiting)
            waiting = {}
    if waiting:
        yield from _place_block(fitted, novelty, waiting)


def _place_block(
    fitted: Map, novelty: Novelty | None, parts: Mapping[str, np.ndarray]
) -> Iterator[tuple[str, np.ndarray]]:
    points = _transform(fitted, novelty, np.concatenate(list(parts.values())))
    stops = np.cumsum([len(part) for part in parts.values()])[:-1]
    return zip(parts, np.split(points, stops), strict=True)


# ---------------------------------------------------------------------- files


def _embeddings(
    loader: Loader, entries: Mapping[str, FinishedEntry]
) -> Iterator[tuple[str, np.ndarray]]:
    assert loader.embedding_set is not None
    for name, entry in entries.items():
        part = read_embeddings(loader.embedding_set, entry, verify=True)
        check_embeddings(part, name)
        yield name, part


def _windows(loader: Loader) -> int:
    return sum(entry.windows for entry in loader.entries.values())


def _write_table(folder: Path, loader: Loader, coordinates: Coordinates) -> None:
    import pyarrow as pa

    entries = loader.entries
    points = np.concatenate([coordinates[name] for name in entries])
    times = [loader.window_times(name) for name in entries]
    index = np.repeat(np.arange(len(entries)), [entry.windows for entry in entries.values()])
    names = pa.DictionaryArray.from_arrays(pa.array(index, pa.int32()), pa.array(list(entries)))
    columns = {axis: points[:, i] for i, axis in enumerate(AXES[: points.shape[1] - 1])}
    columns["start"] = np.concatenate([start for start, _ in times])
    columns["end"] = np.concatenate([end for _, end in times])
    distances = {DISTANCE: points[:, -1], IS_FAR: points[:, -1] > FAR}
    table = pa.table({**columns, "audiofilename": names, **distances})
    write_table(folder / _table_name(loader), table)


def _table_name(loader: Loader) -> str:
    return map_table_name(loader.paths.dataset, str(loader.model_name))


def _write_metadata(folder: Path, loader: Loader, about: Mapping[str, Any]) -> None:
    """Write ``metadata.yml``, the last file of a map: with it, the map is complete."""
    entries, windows = loader.entries, _windows(loader)
    embeddings = loader.get_embedding_dir()
    write_yaml(
        folder / METADATA,
        {
            **about,
            "model_name": loader.model_name,
            "audio_dir": str(loader.audio_dir),
            "embed_dir": str(embeddings),
            "embeddings": embeddings.name,
            "embeddings_state": loader.embeddings_state,
            "nr_embeds_total": windows,
            "files": {
                "audio_files": list(entries),
                "nr_embeds_per_file": [entry.windows for entry in entries.values()],
                "embeddings_sha256": [entry.embeddings.sha256 for entry in entries.values()],
            },
            "bacpipe": {"version": __version__},
        },
    )
