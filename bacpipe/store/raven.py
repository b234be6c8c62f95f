"""Raven selection tables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bacpipe.store.predictions import Detections
from bacpipe.store.writer import write_text

_BREAKS = frozenset("\t\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029")

RAVEN_COLUMNS = (
    "Selection",
    "View",
    "Channel",
    "Begin Time (s)",
    "End Time (s)",
    "Low Freq (Hz)",
    "High Freq (Hz)",
    "Label",
    "Confidence",
    "Begin Path",
    "File Offset (s)",
)


def write_raven_table(path: Path, item: Detections, audio: Path, high_frequency: float) -> None:
    """Write one recording's predictions as a Raven selection table.

    Parameters
    ----------
    path : Path
        Where to.
    item : Detections
        The predictions.
    audio : Path
        The recording, which Raven opens.
    high_frequency : float
        Nyquist frequency in Hz of the model or of the recording, whichever is lower.
    """
    write_text(
        path, "\n".join(["\t".join(RAVEN_COLUMNS), *raven_rows(item, audio, high_frequency)]) + "\n"
    )


def raven_rows(
    item: Detections,
    audio: Path,
    high_frequency: float,
    *,
    first: int = 1,
    offset: float = 0.0,
) -> Iterator[str]:
    """Rows of a Raven selection table.

    Parameters
    ----------
    item, audio, high_frequency
        As for `write_raven_table`.
    first : int
        Number of the first selection.
    offset : float
        Seconds at which the recording begins in a table over several recordings.
    """
    columns = (item.start, item.end, item.label, item.score)
    for number, (start, end, label, score) in enumerate(zip(*columns, strict=True), start=first):
        begin, stop = f"{offset + start:.9f}", f"{offset + end:.9f}"
        yield (
            f"{number}\tSpectrogram 1\t1\t{begin}\t{stop}\t0\t{high_frequency:.1f}"
            f"\t{plain_label(label)}\t{score:.4f}\t{plain_path(audio)}\t{start:.9f}"
        )


def plain_path(path: Path) -> str:
    """Path for a table, in which tabs and line breaks of a file's name would make new cells.

    A program that opens this file will not find it; the rest of the table is in order.
    """
    return "".join(" " if character in _BREAKS else character for character in str(path))


def plain_label(label: Any) -> str:
    """Label without tabs and line breaks, which would shift the columns of a table."""
    return " ".join(str(label).split())
