"""Times of windows, from the journal's line of a recording."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bacpipe.audio import windows
from bacpipe.audio.windows import Segment
from bacpipe.errors import ResultsError


def hop_samples(hop: float | None, *, window: int, sample_rate: int, speed: float = 1) -> int:
    """Samples from the start of one window to the start of the next.

    Parameters
    ----------
    hop : float or None
        Seconds of the real recording; None lets windows follow one another.
    window : int
        Samples of a window.
    sample_rate : int
        Rate of the windows in Hz.
    speed : float
        Time expansion.
    """
    return window if hop is None else max(1, round(hop / speed * sample_rate))


def window_times(
    line: Mapping[str, Any], header: Mapping[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Start and end of every window of a recording.

    Parameters
    ----------
    line : mapping
        The journal's line of the recording.
    header : mapping
        The journal's first line.

    Returns
    -------
    start, end : np.ndarray, float64, shape (windows,)
        Seconds of the real recording, time expansion undone.  The end of a padded window is
        the end of what was padded: the recording, or the annotated segment.
    """
    identity = _identity(header)
    window, rate, speed = identity["window"], identity["sample_rate"], identity["speed"]
    hop = hop_samples(identity["hop"], window=window, sample_rate=rate, speed=speed)
    # Without annotated segments the whole recording is one.
    rows = line.get("segments") or [[0.0, line["duration"], line["windows"]]]
    segments = [Segment(start, stop) for start, stop, _ in rows]
    counts = [count for _, _, count in rows]
    starts, ends = windows.window_times(sum(counts), window, hop, rate, speed, segments, counts)
    return starts, np.minimum(ends, np.repeat([segment.stop for segment in segments], counts))


def highest_frequency(header: Mapping[str, Any]) -> float:
    """Highest frequency in Hz of the real recordings that the model hears.

    Under time expansion the model hears a recording slowed down, so more than half its own
    sample rate.
    """
    identity = _identity(header)
    return float(identity["sample_rate"] / identity["speed"] / 2)


def _identity(header: Mapping[str, Any]) -> Mapping[str, Any]:
    if "identity" in header:
        identity: Mapping[str, Any] = header["identity"]
        missing = [k for k in ("window", "sample_rate", "hop", "speed") if k not in identity]
        if missing:
            raise ResultsError(
                f"These embeddings were computed elsewhere, and nothing tells {missing[0]!r} of "
                f"their windows, so the times of these are not known."
            )
        return identity
    if "recorded" in header:
        return header["recorded"]
    old = header["old_metadata"]
    return {
        "sample_rate": old["sample_rate (Hz)"],
        "window": old["segment_length (samples)"],
        "hop": None,
        "speed": 1,
    }
