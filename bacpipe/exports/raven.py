"""Raven selection tables of predictions."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from glob import escape
from pathlib import Path
from typing import IO

import numpy as np

from bacpipe.audio.files import read_recording
from bacpipe.audio.remote import shown
from bacpipe.errors import AudioError, ResultsNotFoundError
from bacpipe.exports.chosen import Chosen, choose, mark_stale, stems
from bacpipe.store.detections import Detections
from bacpipe.store.files import replacing, write_bytes, write_json, write_text
from bacpipe.store.layout import (
    PROVENANCE,
    combined_raven_name,
    path_inside,
    raven_name,
    sound_files_name,
)
from bacpipe.store.loader import Loader
from bacpipe.user_input import typed_path

logger = logging.getLogger(__name__)

RAVEN_COLUMNS = (
    "Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)",
    "High Freq (Hz)", "Label", "Confidence", "Begin Path", "File Offset (s)",
)  # fmt: skip

_BREAKS = frozenset("\t\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029")


def export_raven_tables(
    loader: Loader, folder: str | Path | None = None, *, combined: bool = False, **kwargs: object
) -> list[Path]:
    """Write predictions as Raven selection tables.

    Parameters
    ----------
    loader : Loader
        Results of a model with a classifier.
    folder : str or Path, optional
        Where to; the ``raven_tables`` folder of the results unless given.
    combined : bool
        False writes a table per recording.  True writes one table over all recordings, whose
        begin times count through them in the order of their names, and beside it the list of
        these recordings, which Raven opens as one sound.
    **kwargs
        Any key of the configuration; ``classifier_threshold`` and ``event_gap`` matter here.

    Returns
    -------
    list of Path
        The files written: the tables or, with `combined`, the table and the list.

    Raises
    ------
    ResultsNotFoundError
        If there are no predictions, or no recording is left to be opened.

    Examples
    --------
    >>> import bacpipe
    >>> loader = bacpipe.Loader("recordings", "birdnet")
    >>> files = bacpipe.export_raven_tables(loader, "selections")
    >>> files[0].as_posix()
    'selections/SITE-A/20250504_043000_birdnet.selection.table.txt'
    """
    chosen = choose(loader, kwargs)
    target = typed_path(folder) if folder is not None else loader.paths.raven_path
    write_json(target / PROVENANCE, chosen.provenance)
    written = write_raven(chosen, target, combined=combined)
    if folder is None and not combined:
        mark_stale(target, written, raven_name("*", escape(str(loader.model_name))))
    return written


def write_raven(chosen: Chosen, folder: Path, *, combined: bool = False) -> list[Path]:
    """Write Raven selection tables; see `export_raven_tables`."""
    write = _write_combined_raven_table if combined else _write_raven_tables
    return write(chosen.loader, folder, chosen.events())


def _write_combined_raven_table(
    loader: Loader, folder: Path, events: Iterator[Detections]
) -> list[Path]:
    """Write one table; events and recordings are both in the order of the names."""
    table = folder / combined_raven_name(str(loader.model_name))
    with replacing(table) as file:
        sounds = _write_combined_rows(loader, file, events)
    listing = folder / sound_files_name(str(loader.model_name))
    write_bytes(listing, os.fsencode("\n".join(sounds) + "\n"))  # some names are no text
    return [table, listing]


def _write_combined_rows(
    loader: Loader, file: IO[bytes], events: Iterator[Detections]
) -> list[str]:
    """Write the table recording by recording; returns the recordings that can be opened.

    Raises
    ------
    ResultsNotFoundError
        If none can.
    """
    nyquist, offset, rows = loader.highest_frequency, 0.0, 0
    file.write(raven_table([]).encode())
    item = next(events, None)
    sounds: list[str] = []
    # Recordings without detections count too: Raven plays them as part of the same sound.
    for name in loader.recording_names:
        path = loader.audio_dir / name
        while item is not None and item.recording < name:
            item = next(events, None)
        try:
            recording = read_recording(path, loader.audio_dir)
        except AudioError as error:
            logger.warning("left out of the Raven table: %s", error)
            continue
        sounds.append(plain_path(path.resolve()))
        high = min(nyquist, recording.sample_rate / 2)
        if item is not None and item.recording == name:
            for row in raven_rows(
                item,
                path.resolve(),
                high,
                first=rows + 1,
                offset=offset,
                channels=loader.window_channels(name),
            ):
                file.write(f"{row}\n".encode())
            rows += len(item.window)
        offset += recording.duration
    if not sounds:
        raise ResultsNotFoundError(f"{shown(loader.audio_dir)}: no recording here can be opened.")
    return sounds


def _write_raven_tables(loader: Loader, folder: Path, items: Iterator[Detections]) -> list[Path]:
    """Write a Raven selection table for each recording; returns the files.

    Recordings that cannot be opened are logged and left out.
    """
    written, stem_of = [], stems(loader)
    for item in items:
        audio = loader.audio_dir / item.recording
        try:
            high = min(loader.highest_frequency, read_recording(audio).sample_rate / 2)
        except AudioError as error:
            logger.warning("no Raven table: %s", error)
            continue
        name = raven_name(stem_of(item.recording), str(loader.model_name))
        path = path_inside(folder, name, what="a link")
        channels = loader.window_channels(item.recording)
        write_text(path, raven_table(raven_rows(item, audio.resolve(), high, channels=channels)))
        written.append(path)
    return written


def raven_table(rows: Iterable[str], *, columns: Sequence[str] = RAVEN_COLUMNS) -> str:
    """Text of a Raven selection table."""
    return "\n".join(["\t".join(columns), *rows]) + "\n"


def raven_rows(
    item: Detections,
    audio: Path,
    high_frequency: float,
    *,
    first: int = 1,
    offset: float = 0.0,
    channels: np.ndarray | None = None,
) -> Iterator[str]:
    """Rows of a Raven selection table of one recording.

    `high_frequency` is the Nyquist frequency in Hz of the model or of the recording, whichever is
    lower; `first` the number of the first selection; `offset` the seconds at which the recording
    begins in a table over several recordings; `channels` those of all its windows, if not 1.
    """
    ones = np.ones(len(item.window), int)
    channel = ones if channels is None else channels[item.window]
    columns = (item.start, item.end, item.label, item.score, channel)
    for number, (start, end, label, score, heard) in enumerate(zip(*columns, strict=True), first):
        yield raven_row(
            number, start, end, label, audio, high_frequency, offset, score, channel=heard
        )


def raven_row(
    number: int,
    start: float,
    end: float,
    label: object,
    audio: Path,
    high_frequency: float,
    offset: float = 0.0,
    score: float | None = None,
    *,
    channel: int = 1,
) -> str:
    """One row, parameters as for `raven_rows`; without a score there is no cell for it."""
    confidence = "" if score is None else f"\t{score:.4f}"
    return (
        f"{number}\tSpectrogram 1\t{channel}\t{offset + start:.9f}\t{offset + end:.9f}\t0"
        f"\t{high_frequency:.1f}\t{plain_label(label)}{confidence}\t{plain_path(audio)}"
        f"\t{start:.9f}"
    )


def plain_path(path: Path) -> str:
    """Path for a table, in which tabs and line breaks of a file's name would make new cells.

    A program that opens this file will not find it; the rest of the table is in order.
    """
    return "".join(" " if character in _BREAKS else character for character in str(path))


def plain_label(label: object) -> str:
    """Label without tabs and line breaks, which would shift the columns of a table."""
    return " ".join(str(label).split())
