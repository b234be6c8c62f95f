"""Predictions as tables that other programs open.

Every function takes the threshold and the gap within which detections of one class become one
event, so that what is seen in Raven, Audacity and Python is the same.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bacpipe.audio.files import read_recording
from bacpipe.errors import AudioError, ResultsNotFoundError, SettingsError
from bacpipe.options import make_options
from bacpipe.store.detections import Detections, above, merge_detections
from bacpipe.store.files import write_bytes, write_json, write_text, writing
from bacpipe.store.layout import (
    AUDACITY_LABELS,
    PROVENANCE,
    audacity_name,
    embeddings_name,
    path_inside,
    raven_name,
)
from bacpipe.store.loader import Loader
from bacpipe.store.tables import blocks_of, channels_in

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

RAVEN_COLUMNS = (
    "Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)",
    "High Freq (Hz)", "Label", "Confidence", "Begin Path", "File Offset (s)",
)  # fmt: skip

_BREAKS = frozenset("\t\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029")


def detections_table(loader: Loader, **kwargs: Any) -> pd.DataFrame:
    """Predictions as a table with a row for each.

    Parameters
    ----------
    loader : Loader
        Results of a model with a classifier.
    **kwargs
        Any key of the configuration: ``classifier_threshold`` drops lower scores, ``event_gap``
        joins detections of one class into events.

    Returns
    -------
    pandas.DataFrame
        Columns audiofilename, start, end (seconds), label:default_classifier, score (that of
        the best window of an event), channel (from 1, with ``channel='each'``), and
        scientific_name and code of the class, empty where they are not known.
        ``attrs['bacpipe']`` says what they were made with.

    Raises
    ------
    ResultsNotFoundError
        If there are no predictions.

    Examples
    --------
    >>> import bacpipe
    >>> loader = bacpipe.Loader("recordings", "birdnet")
    >>> table = bacpipe.detections_table(loader, classifier_threshold=0.9)
    >>> table.loc[0, "label:default_classifier"]
    'Field Sparrow'
    """
    import pandas as pd

    threshold, gap = _threshold_and_gap(loader, kwargs)
    blocks = list(blocks_of(_events(loader, threshold, gap)))
    columns: dict[str, list[np.ndarray]] = {
        "audiofilename": [np.zeros(0, object), *(b.names[b.recording] for b in blocks)],
        "start": [np.zeros(0), *(block.start for block in blocks)],
        "end": [np.zeros(0), *(block.end for block in blocks)],
        "label:default_classifier": [
            np.zeros(0, object), *(block.classes[block.label] for block in blocks)
        ],
        "score": [np.zeros(0, np.float32), *(block.score for block in blocks)],
    }  # fmt: skip
    if (channels := loader.channels) is not None:
        of_blocks = (channels_in(block, channels) for block in blocks)
        columns["channel"] = [np.zeros(0, np.int16), *of_blocks]
    table = pd.DataFrame({name: np.concatenate(parts) for name, parts in columns.items()})
    listed = loader.classes
    label = table["label:default_classifier"]
    known = {name: listed.of(name) for name in label.unique()}
    for column in ("scientific_name", "code"):
        names = {name: getattr(found, column) for name, found in known.items()}
        table[column] = label.map(names).astype(object)
    table.attrs["bacpipe"] = _provenance(loader, threshold, gap)
    return table


def export_raven_tables(
    loader: Loader, folder: str | Path | None = None, *, combined: bool = False, **kwargs: Any
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
    threshold, gap = _threshold_and_gap(loader, kwargs)
    target = Path(folder) if folder is not None else loader.paths.raven_path
    write_json(target / PROVENANCE, _provenance(loader, threshold, gap))
    events = _events(loader, threshold, gap)
    if combined:
        return _write_combined_raven_table(loader, target, events)
    written = _write_raven_tables(loader, target, events)
    if folder is None:
        _mark_stale(target, written, raven_name("*", escape(str(loader.model_name))))
    return written


def _write_combined_raven_table(
    loader: Loader, folder: Path, events: Iterator[Detections]
) -> list[Path]:
    """Write one table; events and recordings are both in the order of the names."""
    nyquist, offset = loader.highest_frequency, 0.0
    item = next(events, None)
    rows: list[str] = []
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
            rows += raven_rows(
                item,
                path.resolve(),
                high,
                first=len(rows) + 1,
                offset=offset,
                channels=loader.window_channels(name),
            )
        offset += recording.duration
    if not sounds:
        raise ResultsNotFoundError(f"{loader.audio_dir}: no recording here can be opened.")
    table = folder / f"{loader.model_name}.selection.table.txt"
    listing = folder / f"{loader.model_name}.sound_files.txt"
    write_text(table, raven_table(rows))
    write_bytes(listing, os.fsencode("\n".join(sounds) + "\n"))  # some names are no text
    return [table, listing]


def export_audacity_labels(
    loader: Loader, folder: str | Path | None = None, **kwargs: Any
) -> list[Path]:
    """Write predictions as Audacity label tracks, one text file per recording.

    Parameters
    ----------
    loader : Loader
        Results of a model with a classifier.
    folder : str or Path, optional
        Where to; ``audacity_labels`` beside the ``raven_tables`` of the results unless given.
    **kwargs
        Any key of the configuration; ``classifier_threshold`` and ``event_gap`` matter here.

    Returns
    -------
    list of Path
        The files written, to be opened with File > Import > Labels.

    Raises
    ------
    ResultsNotFoundError
        If there are no predictions.

    Examples
    --------
    >>> import bacpipe
    >>> loader = bacpipe.Loader("recordings", "birdnet")
    >>> files = bacpipe.export_audacity_labels(loader, "labels", event_gap=0)
    >>> files[0].as_posix()
    'labels/SITE-A/20250504_043000_birdnet.labels.txt'
    """
    threshold, gap = _threshold_and_gap(loader, kwargs)
    target = Path(folder) if folder is not None else loader.paths.preds_path / AUDACITY_LABELS
    write_json(target / PROVENANCE, _provenance(loader, threshold, gap))
    stem_of, model = _stems(loader), str(loader.model_name)
    written = []
    for item in _events(loader, threshold, gap):
        columns = (item.start, item.end, item.label)
        lines = [
            f"{start:.6f}\t{end:.6f}\t{plain_label(label)}\n"
            for start, end, label in zip(*columns, strict=True)
        ]
        name = audacity_name(stem_of(item.recording), model)
        path = path_inside(target, name, what="a link")
        write_text(path, "".join(lines))
        written.append(path)
    if folder is None:
        _mark_stale(target, written, audacity_name("*", escape(model)))
    return written


def rewrite_exports(loader: Loader) -> None:
    """Write the tables for Raven and Audacity beside the predictions anew, where there are any.

    They keep the threshold and the gap within events that they were exported with.  With
    ``save_raven_tables``, those for Raven are written in any case, with the settings of the run.
    """
    combined = loader.paths.raven_path / raven_name("", str(loader.model_name)).removeprefix("_")
    if (saves := loader.options.save_raven_tables) or loader.paths.raven_path.is_dir():
        settings = {} if saves else _exported_with(loader, loader.paths.raven_path)
        export_raven_tables(loader, **settings)
        if combined.is_file():
            export_raven_tables(loader, combined=True, **settings)
    if (folder := loader.paths.preds_path / AUDACITY_LABELS).is_dir():
        export_audacity_labels(loader, **_exported_with(loader, folder))


def _exported_with(loader: Loader, folder: Path) -> dict[str, Any]:
    """Settings of an export, as its provenance has them; version 2.0 did not always write it."""
    try:
        about = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
        gap, threshold = about["event_gap"], about.get("classifier_threshold", about["threshold"])
        make_options(event_gap=gap, classifier_threshold=threshold or 0.0)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SettingsError):
        return {"event_gap": loader.options.event_gap}
    stored = loader.predictions_provenance.get("threshold") or 0.0
    return {"event_gap": gap, "classifier_threshold": max(threshold or 0.0, stored)}


def _mark_stale(folder: Path, written: Iterable[Path], pattern: str) -> None:
    """Let nobody take tables of recordings or settings of before for those of now."""
    current = {os.fspath(path) for path in written}
    for path in folder.rglob(pattern):
        if os.fspath(path) not in current:
            with writing(path):
                path.replace(path.with_name(f"{path.name}.stale"))


def _stems(loader: Loader) -> Callable[[str], str]:
    """Stem of a recording's results, as its embeddings have it."""
    entries, ending = loader.entries, embeddings_name("", str(loader.model_name))
    return lambda name: entries[name].embeddings.path.removesuffix(ending)


def _events(loader: Loader, threshold: float | None, gap: float | None) -> Iterator[Detections]:
    for item in loader.detections():
        kept = item if threshold is None else above(item, threshold)
        yield merge_detections(kept, gap, loader.window_channels(item.recording))


def _provenance(loader: Loader, threshold: float | None, gap: float | None) -> dict[str, Any]:
    made_with = loader.predictions_provenance
    stored = made_with.get("threshold") or 0.0
    if threshold is None or threshold <= stored:
        return {**made_with, "event_gap": gap, "classifier_threshold": None}
    return {
        **made_with, "threshold": threshold, "event_gap": gap, "classifier_threshold": threshold
    }  # fmt: skip


def _threshold_and_gap(
    loader: Loader, settings: Mapping[str, Any]
) -> tuple[float | None, float | None]:
    """What a call chose: the threshold, None for all that is stored, and the gap within events."""
    options = make_options(**settings)
    gap = options.event_gap if "event_gap" in settings else loader.options.event_gap
    return loader.threshold(settings), gap


# --- Raven selection tables -------------------------------------------------------------------


def _write_raven_tables(loader: Loader, folder: Path, items: Iterable[Detections]) -> list[Path]:
    """Write a Raven selection table for each recording; returns the files.

    Recordings that cannot be opened are logged and left out.
    """
    written, stem_of = [], _stems(loader)
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
