"""``<model>_detections.parquet``: the predictions of all recordings, a row for each.

The table is written and read in blocks, which are its row groups, so that memory does not grow
with the number of recordings.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bacpipe.errors import ResultsError
from bacpipe.store.columns import detections_kinds, require_columns, require_values
from bacpipe.store.predictions import Detections, decode_dictionary, sorted_classes
from bacpipe.store.writer import replacing

logger = logging.getLogger(__name__)

_BLOCK = 2**17  # predictions in a row group, about
_RECORDING = 8  # a recording takes as much memory as so many predictions while it waits
_COLUMNS = ("audiofilename", "window", "start", "end", "class", "score")


class Block(NamedTuple):
    """Predictions of successive recordings; row i says that a window holds a class.

    Attributes
    ----------
    names : np.ndarray of object, shape (recordings,)
        The recordings.
    recording : np.ndarray, int32, shape (n,)
        Index into `names`, ascending.
    window : np.ndarray, int32, shape (n,)
        Index of the window, ascending within a recording.
    start, end : np.ndarray, float64, shape (n,)
        Of the window, in seconds.
    classes : np.ndarray of object, shape (classes,)
        Names of the classes in this block.
    label : np.ndarray, int32, shape (n,)
        Index into `classes`.
    score : np.ndarray, float32, shape (n,)
    """

    names: np.ndarray
    recording: np.ndarray
    window: np.ndarray
    start: np.ndarray
    end: np.ndarray
    classes: np.ndarray
    label: np.ndarray
    score: np.ndarray

    @property
    def starts_window(self) -> np.ndarray:
        """Whether a row is the first of its window, bool of shape (n,)."""
        first = np.ones(len(self.window), dtype=bool)
        first[1:] = self.window[1:] != self.window[:-1]
        first[1:] |= self.recording[1:] != self.recording[:-1]
        return first

    def detections(self) -> Iterator[Detections]:
        """The same, recording by recording."""
        columns = (self.window, self.start, self.end, self.classes[self.label], self.score)
        first = np.flatnonzero(np.diff(self.recording, prepend=-1)).tolist()
        names = self.names[self.recording[first]].tolist()
        for name, i, j in zip(names, first, [*first[1:], None], strict=False):
            yield Detections(name, *(column[i:j] for column in columns))


def detections_path(preds_path: Path, model: str) -> Path:
    """Path of the table with a row per prediction."""
    return preds_path / f"{model}_detections.parquet"


def blocks_of(detections: Iterable[Detections]) -> Iterator[Block]:
    """Put successive recordings together; none of them is divided."""
    waiting: list[Detections] = []
    size = 0
    for item in detections:
        if not len(item.window):
            continue
        waiting.append(item)
        size += len(item.window) + _RECORDING
        if size >= _BLOCK:
            yield _block(waiting)
            waiting, size = [], 0
    if waiting:
        yield _block(waiting)


def _block(items: list[Detections]) -> Block:
    classes, label = sorted_classes(np.concatenate([item.label for item in items]))
    sizes = [len(item.window) for item in items]
    return Block(
        np.array([item.recording for item in items], dtype=object),
        np.repeat(np.arange(len(items), dtype=np.int32), sizes),
        np.concatenate([item.window for item in items]).astype(np.int32, copy=False),
        np.concatenate([item.start for item in items]),
        np.concatenate([item.end for item in items]),
        np.array(classes, dtype=object),
        label.astype(np.int32),
        np.concatenate([item.score for item in items]).astype(np.float32, copy=False),
    )


def write_detections(
    path: Path, blocks: Iterable[Block], provenance: Mapping[str, Any], state: str | None
) -> None:
    """Write all predictions as one table: a row for each, a row group for each block.

    Columns audiofilename, window, start, end (seconds), class, score.

    Parameters
    ----------
    path : Path
        Where to.
    blocks : iterable of Block
        All predictions.
    provenance : mapping
        Model, checkpoint, threshold, versions and settings.
    state : str or None
        What `DetectionStream` recognises the predictions by.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds, description = detections_kinds(), json.dumps({**provenance, "state": state})
    schema = pa.schema([(name, kinds[name]) for name in _COLUMNS], {"bacpipe": description})
    with replacing(path) as file, pq.ParquetWriter(file, schema, compression="snappy") as writer:
        for block in blocks:
            names = pa.DictionaryArray.from_arrays(
                pa.array(block.recording), pa.array(block.names, pa.string())
            )
            classes = pa.DictionaryArray.from_arrays(
                pa.array(block.label), pa.array(block.classes, pa.string())
            )
            columns = [names, block.window, block.start, block.end, classes, block.score]
            table = pa.Table.from_arrays([pa.array(c) for c in columns], schema=schema)
            # A window in two row groups would be two windows for who reads one after the other.
            writer.write_table(table, row_group_size=len(table))


def read_blocks(path: Path, state: str | None = None) -> Iterator[Block]:
    """Read the table row group by row group.

    Parameters
    ----------
    path : Path
        The table.
    state : str, optional
        Read nothing if it was made from other predictions than those of this state.

    Raises
    ------
    ResultsError
        If it is missing or damaged, perhaps only after some blocks.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            if state is not None and _state_in(file.schema_arrow) != state:
                return
            require_columns(file.schema_arrow, kinds := detections_kinds())
            for number in range(file.num_row_groups):
                table = file.read_row_group(number, list(kinds), use_threads=False)
                require_values(table)
                if len(table):
                    yield _as_block(table.unify_dictionaries().combine_chunks())
    except (OSError, ValueError, AttributeError, RecursionError, pa.ArrowException) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ResultsError(
            f"{path}: this table of predictions cannot be read ({reason}); delete it and run the "
            f"pipeline again."
        ) from error


def _as_block(table: Any) -> Block:
    recording, names = decode_dictionary(table["audiofilename"])
    label, classes = decode_dictionary(table["class"])
    window, start, end, score = (
        table[name].to_numpy() for name in ("window", "start", "end", "score")
    )
    return Block(names, recording, window, start, end, classes, label, score)


def stored_state(path: Path) -> str | None:
    """State of the predictions from which a table was made; None if it cannot be told."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        state = _state_in(pq.read_schema(path))
    except (OSError, ValueError, AttributeError, RecursionError, pa.ArrowException):
        return None
    return state if isinstance(state, str) else None


def _state_in(schema: Any) -> Any:
    return json.loads((schema.metadata or {}).get(b"bacpipe", b"{}")).get("state")


class DetectionStream:
    """Reads the predictions of one recording after the other out of the table.

    Parameters
    ----------
    path : Path
        The table.
    state : str
        State of the predictions that are wanted; a table of others is left aside, and so is one
        that is damaged, from there on.
    """

    def __init__(self, path: Path, state: str) -> None:
        blocks = read_blocks(path, state) if path.is_file() else iter(())
        self._left = _by_recording(blocks)
        self._head: Detections | None = None

    def take(self, recording: str) -> Detections | None:
        """Predictions of a recording; None if the table does not go on with this one."""
        try:
            self._head = self._head or next(self._left, None)
        except ResultsError as error:
            logger.warning("left aside: %s", error)
        if self._head is None or self._head.recording != recording:
            return None
        item, self._head = self._head, None
        return item


def _by_recording(blocks: Iterable[Block]) -> Iterator[Detections]:
    """Recordings one by one, also those that a table of an older version has in two blocks."""
    parts: list[Detections] = []
    for item in chain.from_iterable(block.detections() for block in blocks):
        if parts and parts[0].recording != item.recording:
            yield _joined(parts)
            parts = []
        parts.append(item)
    if parts:
        yield _joined(parts)


def _joined(parts: list[Detections]) -> Detections:
    if len(parts) == 1:
        return parts[0]
    columns = zip(*(part[1:] for part in parts), strict=True)
    return Detections(parts[0].recording, *(np.concatenate(column) for column in columns))
