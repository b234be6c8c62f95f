"""Detections of a class as files to take home."""

from __future__ import annotations

import io

import numpy as np

from bacpipe.audio.files import read_recording
from bacpipe.dashboard.data.found_classes import FoundClasses
from bacpipe.errors import AudioError
from bacpipe.store.predictions import Detections
from bacpipe.store.raven import RAVEN_COLUMNS, raven_rows


def detections_csv(found: FoundClasses, name: str, threshold: float) -> io.BytesIO:
    """Table of the detections of a class, in the order of recordings and time.

    Columns audiofilename, start, end (seconds), label:species, score, time (of the recorder's
    clock), model and source.  The first four are those of an annotation table.
    """
    import pandas as pd

    rows, scores = _in_order(found, name, threshold)
    results = found.results
    names = np.array(results.recordings, dtype=object)
    table = pd.DataFrame(
        {
            "audiofilename": names[results.recording_code[rows]],
            "start": results.start[rows],
            "end": results.end[rows],
            "label:species": name,
            "score": scores,
            "time": found.clock[rows],
            "model": results.name,
            "source": found.source,
        }
    )
    return io.BytesIO(table.to_csv(index=False).encode("utf-8"))


def detections_raven(found: FoundClasses, name: str, threshold: float) -> io.BytesIO:
    """Raven selection table of the detections of a class, over all recordings.

    Begin times count through the recordings in the order of their names, as Raven does when it
    opens several as one sound; Begin Path and File Offset name the place in each.
    """
    results = found.results
    rows, scores = _in_order(found, name, threshold)
    lines = ["\t".join(RAVEN_COLUMNS)]
    count = len(results.recordings)
    stops = np.searchsorted(results.recording_code[rows], np.arange(count), side="right")
    first, offset = 0, 0.0
    for stop, (recording, line) in zip(stops, results.windows.lines.items(), strict=True):
        mine = rows[first:stop]
        if len(mine):
            item = Detections(
                recording,
                mine,
                results.start[mine],
                results.end[mine],
                np.full(len(mine), name, dtype=object),
                scores[first:stop],
            )
            path = (results.loader.audio_dir / recording).resolve()
            lines += raven_rows(
                item, path, _highest(found, recording), first=len(lines), offset=offset
            )
        first, offset = stop, offset + line["duration"]
    return io.BytesIO(("\n".join(lines) + "\n").encode("utf-8"))


def _in_order(found: FoundClasses, name: str, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    rows, scores = found.of(name, threshold)
    order = np.argsort(rows, kind="stable")
    return rows[order], scores[order]


def _highest(found: FoundClasses, recording: str) -> float:
    """Highest frequency in Hz that the model heard in a recording."""
    results = found.results
    heard = results.loader.highest_frequency
    try:
        native = read_recording(results.loader.audio_dir / recording).sample_rate
    except AudioError:  # moved away: what the model heard is all that is known
        return heard
    return min(heard, native / 2)
