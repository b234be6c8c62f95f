"""What is known of seconds of a recording: annotations, labels of people, detections."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bacpipe.annotations.table import label_columns, read_annotations
from bacpipe.dashboard.shared.results import ModelResults
from bacpipe.errors import BacpipeError, ResultsNotFoundError
from bacpipe.labels.people import current_labels, settled_labels
from bacpipe.store.judgements import YES
from bacpipe.store.layout import ALL_PEOPLE_LABELS
from bacpipe.store.tables import CHANNEL, channels_of

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

ANNOTATION, PERSON, DETECTION = "annotation", "people", "detection"
_MOST_DETECTIONS = 4  # classes of one clip, the best scores first


class DrawnMark(NamedTuple):
    """A line over a spectrogram.

    Attributes
    ----------
    start, end : float
        Seconds of the recording.
    text : str
        A label; with its score for a detection.
    kind : {'annotation', 'people', 'detection'}
    """

    start: float
    end: float
    text: str
    kind: str


def marks_between(
    results: ModelResults,
    recording: str,
    start: float,
    end: float,
    *,
    detections: bool = True,
    channel: int | None = None,
) -> list[DrawnMark]:
    """What overlaps some seconds of a recording, annotations first; the best detections only.

    Where every channel was heard by itself, detections are those of `channel`, from 1, and so
    are labels of people that are of one channel.
    """
    marks = [
        *_of_table(_annotations(results, _state_of_annotations(results)), recording, ANNOTATION),
        *_of_table(_people(results, _state_of_people(results)), recording, PERSON, channel),
    ]
    if detections:
        marks += _detections(results, recording, start, end, channel)
    return [mark for mark in marks if mark.start < end and mark.end > start]


def _of_table(
    table: dict[str, pd.DataFrame], recording: str, kind: str, channel: int | None = None
) -> list[DrawnMark]:
    rows = table.get(recording)
    if rows is None:
        return []
    if channel is not None:
        rows = rows[np.isin(channels_of(rows), (0, channel))]
    columns = (rows[name] for name in ("start", "end", "text"))
    return [DrawnMark(a, b, text, kind) for a, b, text in zip(*columns, strict=True)]


def _state_of_annotations(results: ModelResults) -> tuple[int, int] | None:
    path = results.loader.audio_dir / results.loader.options.annotations_filename
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _state_of_people(results: ModelResults) -> tuple[tuple[str, int, int], ...]:
    paths = sorted(results.loader.paths.people_path.glob(ALL_PEOPLE_LABELS))
    stats = [(path.name, path.stat()) for path in paths]
    return tuple((name, status.st_mtime_ns, status.st_size) for name, status in stats)


@lru_cache(maxsize=4)
def _annotations(results: ModelResults, state: tuple[int, int] | None) -> dict[str, pd.DataFrame]:
    if state is None:
        return {}
    path = results.loader.audio_dir / results.loader.options.annotations_filename
    try:
        table = read_annotations(path, results.recordings)
    except BacpipeError as error:
        logger.warning("annotations are not drawn: %s", error)
        return {}
    kinds = label_columns(table)
    if not kinds:
        return {}
    # One label after the other, as 'Wren · song'.
    rows = table[kinds].fillna("").itertuples(index=False)
    texts = [" · ".join(filter(None, row)) for row in rows]
    return _by_recording(table.assign(text=texts).rename(columns={"audiofilename": "recording"}))


@lru_cache(maxsize=4)
def _people(
    results: ModelResults, state: tuple[tuple[str, int, int], ...]
) -> dict[str, pd.DataFrame]:
    if not state:
        return {}
    try:
        table = settled_labels(current_labels(results.loader))
    except BacpipeError as error:
        logger.warning("labels of people are not drawn: %s", error)
        return {}
    return _by_recording(table[table["value"] == YES].assign(text=lambda rows: rows["label"]))


def _by_recording(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    table = table[table["text"] != ""]
    columns = [name for name in ("start", "end", "text", CHANNEL) if name in table]
    groups = table.groupby("recording")[columns]
    return {str(name): rows.sort_values("start") for name, rows in groups}


def _detections(
    results: ModelResults, recording: str, start: float, end: float, channel: int | None
) -> list[DrawnMark]:
    try:
        stored, rows = results.predictions, results.rows_of(recording)
    except ResultsNotFoundError:  # a model without a classifier
        return []
    inside = slice(*np.searchsorted(stored.row, [rows.start, rows.stop]).tolist())
    row, code, score = stored.row[inside], stored.code[inside], stored.score[inside]
    overlap = (results.start[row] < end) & (results.end[row] > start)
    if channel is not None and results.channels is not None:
        overlap &= results.channels[row] == channel
    here = np.flatnonzero(overlap)
    best = here[np.argsort(-score[here], kind="stable")]
    classes = list(dict.fromkeys(code[best].tolist()))[:_MOST_DETECTIONS]
    # Windows overlap; of each class the best one stands for those that do.
    marks: list[DrawnMark] = []
    for i in best.tolist():
        if code[i] not in classes:
            continue
        text = stored.names[code[i]]
        begin, stop = float(results.start[row[i]]), float(results.end[row[i]])
        taken = any(
            mark.text.rpartition(" ")[0] == text and mark.start < stop and mark.end > begin
            for mark in marks
        )
        if not taken:
            marks.append(DrawnMark(begin, stop, f"{text} {score[i]:.2f}", DETECTION))
    return marks
