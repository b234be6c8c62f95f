"""Cut a stream of samples into the windows that models take.

The rule, for n samples, windows of `window` samples and a step of `hop` samples: windows start
at 0, hop, 2 * hop, ... and the last one is the first that reaches the end.  So no window is
added that would hold nothing new (with overlap) or nothing at all (with gaps, where the end may
lie in a gap), and a length that fits exactly needs no padding.  If the last window reaches
beyond the end, it is filled by `numpy.pad` from its own samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from bacpipe.audio.stream import Samples

PADDING_MODES = (
    "wrap", "reflect", "symmetric", "edge", "constant", "linear_ramp", "maximum", "mean", "median",
    "minimum",
)  # fmt: skip
"""Ways to fill up the last window; those of `numpy.pad` that need no further parameter."""

_MAX_BLOCK_VALUES = 2**22  # samples in one block of windows, unless one window is longer


class WindowBlock(NamedTuple):
    """Consecutive windows.

    Attributes
    ----------
    first : int
        Index of the first of these windows among all windows of the recording.
    windows : ndarray, shape (n, window), float32, C-contiguous
        The samples.  May share memory with the blocks they were cut from.
    padded : int
        How many samples at the end of the last of these windows are padding.
    """

    first: int
    windows: Samples
    padded: int


class Segment(NamedTuple):
    """An annotated part of a recording; `start` and `stop` in seconds."""

    start: float
    stop: float


def count_windows(n_samples: int, window: int, hop: int | None = None) -> int:
    """Count the windows that `cut_windows` makes of a signal: 0 only if it is empty."""
    hop = _check_sizes(window, hop)
    if n_samples <= 0:
        return 0
    reach_end = -(-max(0, n_samples - window) // hop)  # windows before the first that does
    start_inside = (n_samples - 1) // hop  # windows after the first that start in the signal
    return 1 + min(reach_end, start_inside)


def cut_windows(
    blocks: Iterable[Samples],
    window: int,
    hop: int | None = None,
    padding: str = "wrap",
    first: int = 0,
) -> Iterator[WindowBlock]:
    """Cut a stream of samples into windows, in bounded memory.

    Parameters
    ----------
    blocks : iterable of ndarray, shape (n,), float32
        Consecutive samples, such as `bacpipe.audio.stream.AudioStream` yields.
    window : int
        Samples in a window.
    hop : int, optional
        Samples from the start of a window to the start of the next; by default `window`.
        Windows overlap if it is smaller and leave gaps if it is larger.
    padding : str
        One of `PADDING_MODES`: how the last window is filled if the signal ends inside of it.
    first : int
        Index of the first window.

    Yields
    ------
    WindowBlock
        Only the last one can be padded; it then holds one window.  None for an empty signal.

    Raises
    ------
    ValueError
        If `window`, `hop` or `padding` is impossible.
    """
    return _cut_blocks(blocks, WindowCutter(window, hop, padding, first))


def _cut_blocks(blocks: Iterable[Samples], cutter: WindowCutter) -> Iterator[WindowBlock]:
    for block in blocks:
        yield from cutter.add(block)
    yield from cutter.end()


def _check_sizes(window: int, hop: int | None) -> int:
    """Validate the sizes; return the hop."""
    hop = window if hop is None else hop
    if window < 1 or hop < 1:
        raise ValueError(f"window and hop must be at least 1 sample, got {window} and {hop}.")
    return hop


class WindowCutter:
    """Cuts a signal that somebody hands over block by block; see `cut_windows`."""

    def __init__(
        self, window: int, hop: int | None = None, padding: str = "wrap", first: int = 0
    ) -> None:
        self._window, self._hop = window, _check_sizes(window, hop)
        if padding not in PADDING_MODES:
            raise ValueError(f"padding must be one of {', '.join(PADDING_MODES)}, got {padding!r}.")
        self._padding, self._first, self._index = padding, first, first
        self._largest = max(1, _MAX_BLOCK_VALUES // window)
        self._pieces: list[Samples] = []  # not yet cut, from the start of the next window on
        self._length = 0  # of all pieces
        self._skip = 0  # samples still to drop before the next window starts, in a gap

    def add(self, block: Samples) -> Iterator[WindowBlock]:
        """Take the next samples; yields the windows that are complete now."""
        window, hop = self._window, self._hop
        piece = block[self._skip :]
        self._skip -= len(block) - len(piece)
        self._pieces.append(piece)
        self._length += len(piece)
        if self._length < window:  # joining only now keeps small blocks from being copied often
            return
        signal = self._pieces[0] if len(self._pieces) == 1 else np.concatenate(self._pieces)
        count = (self._length - window) // hop + 1
        for start in range(0, count, self._largest):
            windows = _stack(signal[start * hop :], min(self._largest, count - start), window, hop)
            yield WindowBlock(self._index, windows, 0)
            self._index += len(windows)
        rest = signal[count * hop :]
        self._skip = max(0, count * hop - self._length)
        self._pieces, self._length = [rest], len(rest)

    def end(self) -> Iterator[WindowBlock]:
        """Yield the last window, if samples are left that are in none yet."""
        # With overlap, the beginning of the rest is the end of the previous window.
        known = max(0, self._window - self._hop) if self._index > self._first else 0
        if self._length > known:
            padded = self._window - self._length
            signal = np.concatenate(self._pieces)
            last = np.pad(signal, (0, padded), mode=self._padding)  # type: ignore[call-overload]
            yield WindowBlock(self._index, last[np.newaxis], padded)


def _stack(signal: Samples, count: int, window: int, hop: int) -> Samples:
    """Stack `count` windows as rows: a view if they lie side by side, otherwise a copy."""
    if hop == window:
        return np.ascontiguousarray(signal[: count * window]).reshape(count, window)
    return sliding_window_view(signal, window)[::hop][:count].copy()


# --- Annotated segments -----------------------------------------------------------------------


def merge_segments(pairs: Iterable[tuple[float, float]]) -> list[Segment]:
    """Sort segments, given as start and stop in seconds, and drop repeated ones.

    Overlapping ones stay apart.

    Raises
    ------
    ValueError
        If a segment is not finite, starts before 0 or does not stop after its start.
    """
    segments = sorted({Segment(float(start), float(stop)) for start, stop in pairs})
    for start, stop in segments:
        if not (0 <= start < stop < math.inf):
            raise ValueError(
                f"The segment from {start} to {stop} seconds must start at 0 or later and stop "
                f"after its start."
            )
    return segments


def window_times(
    n_windows: int,
    window: int,
    hop: int | None,
    sample_rate: int,
    speed: float = 1.0,
    segments: Sequence[Segment] | None = None,
    counts: Sequence[int] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Tell when the windows start and end in the recording.

    Parameters
    ----------
    n_windows : int
        Number of windows.
    window, hop : int
        As for `cut_windows`.
    sample_rate : int
        Rate of the windows in Hz.
    speed : float
        As for `bacpipe.audio.stream.AudioStream`.
    segments : sequence of Segment, optional
        The segments that the windows were cut from, if not from the whole recording.
    counts : sequence of int, optional
        Number of windows of each segment (0 for a skipped one); needed with `segments`.

    Returns
    -------
    starts, ends : ndarray, shape (n_windows,), float64
        Seconds of the real recording.  Every window has its full length, so the end of a padded
        one lies behind the end of the recording or segment.

    Raises
    ------
    ValueError
        If only one of `segments` and `counts` is given, or they do not fit each other or
        `n_windows`.
    """
    hop = _check_sizes(window, hop)
    if (segments is None) != (counts is None):
        raise ValueError("segments and counts (windows per segment) must be given together.")
    if segments is None or counts is None:
        segments, counts = [Segment(0.0, math.inf)], [n_windows]
    if len(counts) != len(segments) or sum(counts) != n_windows:
        raise ValueError(
            f"{len(segments)} segments with {sum(counts)} windows in {len(counts)} counts "
            f"do not make {n_windows} windows."
        )
    # Index of every window within its segment.
    within = np.concatenate([np.arange(0), *(np.arange(count) for count in counts)])
    origins = np.repeat([segment.start for segment in segments], np.asarray(counts, dtype=int))
    starts = origins + within * hop / sample_rate * speed
    return starts, starts + window / sample_rate * speed
