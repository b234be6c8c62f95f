"""The calls that a detector finds in recordings: each with its times, frequencies and species."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from bacpipe.annotations.cells import unescaped
from bacpipe.audio.remote import shown
from bacpipe.errors import (
    AudioError,
    NothingEmbeddedError,
    ResultsError,
    SettingsError,
    counted,
    first_line,
)
from bacpipe.inference.audio_handler import AudioHandler
from bacpipe.inference.report import refuse_failures
from bacpipe.inference.runner import choose_batch_size
from bacpipe.models.backends.pytorch import computing_on
from bacpipe.models.base import CallDetector, Calls
from bacpipe.store.files import write_csv
from bacpipe.store.layout import calls_path
from bacpipe.store.loader import Loader
from bacpipe.store.plan import Source, StreamEnd
from bacpipe.store.tables import CHANNEL

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

COLUMNS = (
    "audiofilename", "start", "end", "low_frequency", "high_frequency", "label",
    "scientific_name", "score", "detection_score",
)  # fmt: skip
_TEXTS = ("audiofilename", "label", "scientific_name")


def calls_in(handler: AudioHandler, source: Source) -> pd.DataFrame:
    """Calls of one recording, in the order of their start.

    Parameters
    ----------
    handler : AudioHandler
        With a model that is a `CallDetector`; its settings for decoding and hop are used.
    source : Source
        The recording.

    Returns
    -------
    pandas.DataFrame
        `COLUMNS`: start and end in seconds and frequencies in Hz, all of the recording as it is on
        the disk, also where it is played at another speed; the species with the best score, that
        score, and how sure the detector is that there is a call at all.  With ``channel='each'``
        also the channel, from 1.  Windows that overlap give each call once; where they do not, a
        call across their border may be cut in two.

    Raises
    ------
    SettingsError
        If the model finds no calls.
    AudioError
        If the recording cannot be read.
    """
    import pandas as pd

    detector, model = _detector(handler), handler.loaded_model
    by_window, end = _run(handler, detector, source)
    classes = np.asarray(model.classes, object)
    scientific = np.asarray(model.scientific_names or [""] * len(classes), object)
    speed, hop = handler.speed, handler.hop / model.sr
    # Where windows overlap, each owns its middle, in which no call is cut off.
    margin = max(0.0, model.segment_length / model.sr - hop) / 2
    # Of several channels, the windows of one come after those of the other.
    counts = [count for *_, count in end.segments or ((0.0, end.duration, len(by_window)),)]
    places = [(channel, number, count) for channel, count in enumerate(counts, 1)
              for number in range(count)]  # fmt: skip
    tables = []
    for (channel, number, count), calls in zip(places, by_window, strict=True):
        start = (number * hop + calls.start) * speed
        # The last window is padded behind the recording's end.
        mine = start < end.duration
        if number > 0:
            mine &= calls.start >= margin
        if number < count - 1:
            mine &= calls.start < margin + hop
        best = calls.class_scores.argmax(axis=1)
        tables.append(
            pd.DataFrame(
                {
                    "audiofilename": source.name,
                    "start": start,
                    "end": np.minimum((number * hop + calls.end) * speed, end.duration),
                    "low_frequency": calls.low / speed,
                    "high_frequency": calls.high / speed,
                    "label": classes[best],
                    "scientific_name": scientific[best],
                    "score": np.take_along_axis(calls.class_scores, best[:, None], 1)[:, 0],
                    "detection_score": calls.score,
                    CHANNEL: channel,
                }
            )[mine]
        )
    table = pd.concat(tables).sort_values("start", kind="stable", ignore_index=True)
    return table[_columns(handler)]


def _columns(handler: AudioHandler) -> list[str]:
    return [*COLUMNS, CHANNEL] if handler.options.channel == "each" else list(COLUMNS)


def write_calls(handler: AudioHandler, loader: Loader) -> Path:
    """Find the calls in the recordings of a data set, and write them as one table.

    A recording that cannot be read is logged, and the rest goes on.  Calls of recordings that are
    not among those of the run stay in the table.

    Parameters
    ----------
    handler : AudioHandler
        As for `calls_in`.
    loader : Loader
        The data set.

    Returns
    -------
    Path
        The table, CSV, with the columns of `calls_in`; it appears when it is whole.

    Raises
    ------
    SettingsError
        If the model finds no calls.
    NothingEmbeddedError
        If not one recording can be read.
    RecordingsFailedError
        If some cannot, and ``strict`` is set; the table is there then.
    """
    _detector(handler)
    path = calls_path(loader.paths.preds_path, str(loader.model_name))
    reasons: list[str] = []
    # Names of recordings may hold anything.
    tables, escape = _tables(handler, loader, path, reasons), loader.options.escape_formulas
    write_csv(path, tables, quote=True, escape_formulas=escape)
    refuse_failures(reasons, strict=handler.options.strict)
    return path


def _tables(
    handler: AudioHandler, loader: Loader, path: Path, reasons: list[str]
) -> Iterator[pd.DataFrame]:
    """The calls of each recording; `reasons` gets why some cannot be read."""
    chosen = set(loader.selection.names)
    kept = _stored_calls(path, chosen, _columns(handler)) if loader.is_part else {}
    for name in sorted({*chosen, *kept}):
        if name in kept:
            yield kept[name]
            continue
        try:
            yield calls_in(handler, Source(loader.audio_dir, name, -1, -1))
        except AudioError as error:
            logger.error("%s", error)
            reasons.append(str(error))
    if len(reasons) == len(chosen):
        raise NothingEmbeddedError(
            f"{shown(loader.audio_dir)}: none of {counted(len(reasons), 'recording')} could be "
            f"read ({'; '.join(reasons[:3])})."
        )


def _stored_calls(path: Path, but_not: Set[str], columns: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Calls that a table has of other recordings, by their names."""
    import pandas as pd

    if not path.is_file():
        return {}
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        if [*table.columns] != [*columns]:
            raise ValueError(f"expected the columns {', '.join(columns)}")
        for name in columns:
            # Python's numbers, which are read as they were written.
            kind = int if name == CHANNEL else float
            table[name] = table[name].map(unescaped if name in _TEXTS else kind)
    except (OSError, ValueError) as error:
        raise ResultsError(
            f"{path}: this table of calls cannot be read ({first_line(error)}); move it away, and "
            f"run over all recordings again."
        ) from None
    others = table[~table["audiofilename"].isin(list(but_not))]
    return {str(name): part for name, part in others.groupby("audiofilename", sort=False)}


def _detector(handler: AudioHandler) -> CallDetector:
    model = handler.loaded_model
    if not isinstance(model, CallDetector):
        name = model.card.name if model.card else type(model).__name__
        raise SettingsError(
            f"{name} gives scores of windows and finds no calls in them; expected a detector, "
            f"batdetect2_dets_avg or batdetect2_clip_avg."
        )
    return model


def _run(
    handler: AudioHandler, detector: CallDetector, source: Source
) -> tuple[list[Calls], StreamEnd]:
    """Calls of each window, and how the recording ended."""
    runner = handler.runner(scores=False)
    size = choose_batch_size(runner, handler.options.global_batch_size, 1)
    by_window: list[Calls] = []
    blocks = handler.decode(source)
    while True:
        try:
            windows = next(blocks)
        except StopIteration as stop:
            end: StreamEnd = stop.value
            return by_window, end
        for first in range(0, len(windows), size):
            spectrograms = runner.preprocess(windows[first : first + size])
            with torch.inference_mode(), computing_on(runner.device, handler.options.precision):
                by_window += detector.calls(spectrograms)
