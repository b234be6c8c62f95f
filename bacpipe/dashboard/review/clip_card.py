"""One clip of a queue as the browser gets it, some ahead of the one that is heard."""

from __future__ import annotations

from typing import Any

import numpy as np

from bacpipe.dashboard.review.queue import Queue
from bacpipe.dashboard.shared.clips import channel_words, read_clip
from bacpipe.dashboard.shared.clock import clock_of
from bacpipe.dashboard.shared.drawn_marks import DETECTION, marks_between
from bacpipe.dashboard.shared.spectrogram_figure import SpectrogramSettings, picture_of


def clip_card(
    queue: Queue, index: int, around: float, settings: SpectrogramSettings
) -> dict[str, Any]:
    """Picture, sound and words of a clip, with `around` seconds before and after it.

    ``levels`` are the bytes of a uint8 picture (rows from the lowest frequency, columns in time),
    ``sound`` those of a WAV file; times are seconds of the recording.

    Raises
    ------
    BacpipeError
        If the recording is gone or cannot be read.
    """
    results, row = queue.results, int(queue.rows[index])
    name, start, end = results.window(row)
    channel = results.channel_of(row)
    clip = read_clip(results, name, start - around, end + around, channel=channel)
    picture = picture_of(clip, settings, results.highest_heard)
    stop = clip.start + clip.duration
    marks = marks_between(results, name, clip.start, stop, channel=channel)
    score = float(queue.scores[index])
    return {
        "index": index,
        "name": name,
        "clock": " · ".join(filter(None, [clock_of(results, row), channel_words(channel)])),
        "start": start,
        "end": end,
        "from": clip.start,
        "to": stop,
        "remark": results.change_of(name),
        "slower": clip.expansion,
        "score": score if np.isfinite(score) else None,
        "levels": np.ascontiguousarray(picture.levels).tobytes(),
        "rows": picture.levels.shape[0],
        "columns": picture.levels.shape[1],
        "top": picture.top,
        "ticks": picture.ticks,
        "sound": clip.wav(),
        # What the model says of the class in question is in the title already.
        "marks": [
            mark._asdict()
            for mark in marks
            if not (mark.kind == DETECTION and mark.text.rpartition(" ")[0] == queue.label)
        ],
    }
