"""What recognisers need to know of all windows of a data set: their covariance, and some of them.

Both come from one pass over the embeddings, by at most 32 768 windows drawn at random: enough for a
covariance that is used softly whitened, and no more work with ten million windows than with forty
thousand.  The result is kept beside the recognisers, with the state of the embeddings.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bacpipe.errors import StorageError, TooLittleDataError, counted
from bacpipe.recognisers.learner import Whitening
from bacpipe.store.embedding_set import read_embeddings
from bacpipe.store.files import write_bytes
from bacpipe.store.layout import searched_windows_name
from bacpipe.store.loader import Loader

logger = logging.getLogger(__name__)

_MOST = 32_768  # windows for the covariance
_KEPT = 2_000  # of these
_SEED = 0
_LEARNT_BY = "square roots where none is negative"  # other versions took the embeddings themselves


class SearchedWindows(NamedTuple):
    """Of the windows of a data set.

    Attributes
    ----------
    whitening : Whitening
        Their mean and covariance.
    rows : np.ndarray, int64, shape (n,)
        Some of them, in ascending order; rows of ``Loader.embeddings('array')``.
    embeddings : np.ndarray, float32, shape (n, dim)
        Of these.
    """

    whitening: Whitening
    rows: np.ndarray
    embeddings: np.ndarray


def searched_windows(loader: Loader) -> SearchedWindows:
    """Take it from disk, or compute it and store it there.

    Raises
    ------
    ResultsNotFoundError
        If there are no embeddings.
    TooLittleDataError
        If there are fewer than two windows with embeddings that are numbers.
    """
    path = loader.paths.recognisers_path / searched_windows_name(loader.get_embedding_dir().name)
    state = f"{loader.embeddings_state}, {_LEARNT_BY}"
    stored = _read(path, state)
    if stored is not None:
        return stored
    total = sum(entry.windows for entry in loader.entries.values())
    rng = np.random.default_rng(_SEED)
    rows = np.sort(rng.choice(total, min(_MOST, total), replace=False))
    embeddings = embeddings_of(loader, rows)
    sound = np.isfinite(embeddings).all(axis=1)
    rows, embeddings = rows[sound], embeddings[sound]
    if len(rows) < 2:
        raise TooLittleDataError(
            f"{loader.get_embedding_dir()}: {counted(len(rows), 'window')} with usable embeddings; "
            f"expected two at least, and some hundred to learn anything."
        )
    whitening = Whitening.of(embeddings)
    kept = np.sort(rng.choice(len(rows), min(_KEPT, len(rows)), replace=False))
    searched = SearchedWindows(whitening, rows[kept], embeddings[kept])
    try:
        _write(path, searched, state)
    except StorageError as error:  # it only saves time
        logger.warning("%s", error)
    return searched


def embeddings_of(loader: Loader, rows: np.ndarray) -> np.ndarray:
    """Embeddings of some windows, float32 of shape (rows, dim); `rows` ascend."""
    embedding_set, first = loader.embedding_set, 0
    assert embedding_set is not None
    parts = []
    for entry in loader.entries.values():
        low, high = np.searchsorted(rows, [first, first + entry.windows])
        if low < high:
            parts.append(read_embeddings(embedding_set, entry, verify=True)[rows[low:high] - first])
        first += entry.windows
    return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)


def _write(path: Path, searched: SearchedWindows, state: str) -> None:
    from safetensors.numpy import save

    arrays = {
        **{name: np.ascontiguousarray(part) for name, part in searched.whitening._asdict().items()},
        "rows": searched.rows,
        "embeddings": searched.embeddings,
    }
    write_bytes(path, save(arrays, {"embeddings_state": state}))


def _read(path: Path, state: str) -> SearchedWindows | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            if (file.metadata() or {}).get("embeddings_state") != state:
                return None
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        whitening = Whitening(*(arrays[name] for name in Whitening._fields))
        dim = len(whitening.mean)
        rows, embeddings = arrays["rows"], arrays["embeddings"]
        if whitening.directions.shape != (dim, dim) or embeddings.shape != (len(rows), dim):
            raise ValueError("its arrays do not fit together")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        logger.warning("%s: cannot be read and is made again (%s).", path, error)
        return None
    return SearchedWindows(whitening, rows, embeddings)
