"""Sound of detections, to listen to: a few for each class, and a table of them."""

from __future__ import annotations

import io
import logging
import re
from array import array
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import soundfile as sf

from bacpipe.audio.files import read_recording
from bacpipe.audio.stream import read_audio
from bacpipe.errors import AudioError, SettingsError
from bacpipe.exports.chosen import Chosen
from bacpipe.store.detections import Intervals, merge_intervals
from bacpipe.store.files import write_bytes, write_csv
from bacpipe.store.layout import CLIPS_TABLE
from bacpipe.store.tables import CHANNEL
from bacpipe.user_input import typed_seed

logger = logging.getLogger(__name__)

Order = Literal["score", "random", "stratified"]
_LEVELS = 3  # of scores, from which stratified clips are taken alike


class _Clip(NamedTuple):
    """The best window of an event."""

    recording: str
    site: str
    start: float
    end: float
    score: float
    channel: int | None


def write_clips(
    chosen: Chosen,
    folder: Path,
    *,
    n: int = 10,
    order: Order = "score",
    pad: float = 1.0,
    clip_format: Literal["wav", "flac"] = "wav",
    seed: int = 0,
) -> list[Path]:
    """Write clips, in a folder for each class, and ``clips.csv``, which has a row for each.

    Parameters
    ----------
    chosen : Chosen
        The detections; of neighbouring windows of a class only the best is taken.
    folder : Path
        Where to.
    n : int
        Clips of each class.
    order : {'score', 'random', 'stratified'}
        Which: those of the highest scores, any, or alike from all sites and from low, middle and
        high scores.
    pad : float
        Seconds before and after the window, as far as the recording goes.
    clip_format : {'wav', 'flac'}
        Of the clips: mono, 16 bit, with the recording's sample rate; the channel that was heard
        where ``channel`` was not mix.
    seed : int
        Of random choices.

    Raises
    ------
    SettingsError
        If an option is impossible.
    """
    import pandas as pd

    if order not in get_args(Order) or clip_format not in {"wav", "flac"}:
        raise SettingsError(
            f"order={order!r}, clip_format={clip_format!r} is not possible: expected order "
            f"{', '.join(get_args(Order))}, and clip_format wav or flac."
        )
    if not isinstance(n, int) or n < 1 or not 0 <= float(pad) <= 3600:
        raise SettingsError(f"n={n!r}, pad={pad!r} is not possible: expected n from 1, pad from 0.")
    written: list[Path] = []
    rows: list[tuple[object, ...]] = []
    for label, clips in sorted(_choose(chosen, n, order, seed).items()):
        for rank, item in enumerate(clips, start=1):
            stem = f"{item.score:.3f}_{PurePosixPath(item.recording).stem}_{item.start:.1f}"
            name = f"{_plain(label)}/{rank:03d}_{_plain(stem)}.{clip_format}"
            audio = chosen.loader.audio_dir / item.recording
            start = max(0.0, item.start - pad)
            try:
                rate = read_recording(audio).sample_rate
                end = item.end + pad
                heard = chosen.loader.heard_channel(item.channel)
                samples = read_audio(
                    audio, rate, start=start, stop=end, allow_truncated=True, channel=heard
                )
            except AudioError as error:
                logger.warning("no clip: %s", error)
                continue
            buffer = io.BytesIO()
            sf.write(buffer, samples, rate, format=clip_format.upper(), subtype="PCM_16")
            write_bytes(folder / name, buffer.getvalue())
            written.append(folder / name)
            times = (item.start, item.end, start)
            place = (item.site, item.recording, *times, item.channel)
            rows.append((name, label, item.score, *place))
    columns = ["clip", "common_name", "score", "site", "recording", "start", "end", "clip_start"]
    table = pd.DataFrame(rows, columns=[*columns, CHANNEL])
    if chosen.loader.channels is None:
        table = table.drop(columns=CHANNEL)
    table = table.round({"score": 4, "start": 6, "end": 6})
    escape = bool(chosen.setting("escape_formulas"))
    write_csv(folder / CLIPS_TABLE, table, escape_formulas=escape)
    return [*written, folder / CLIPS_TABLE]


def _choose(chosen: Chosen, n: int, order: Order, seed: int) -> dict[str, list[_Clip]]:
    """Up to `n` clips of each class, the first first; little more than these are ever held."""
    rng = np.random.default_rng(typed_seed(seed))
    ranks = _ranks(chosen) if order == "stratified" else {}
    shelves: dict[tuple[str, str, int], _Shelf] = defaultdict(lambda: _Shelf(n))
    for label, clip in _best_windows(chosen):
        if order == "score":
            shelves[label, "", 0].put((-clip.score, clip.recording, clip.start), clip)
            continue
        draw = rng.random()
        if order == "random":
            shelves[label, "", 0].put((draw,), clip)
            continue
        scores = ranks[label]
        better = len(scores) - int(np.searchsorted(scores, np.float32(clip.score), "right"))
        level = _LEVELS * better // len(scores)
        shelves[label, clip.site, level].put((draw,), clip)
    turns: dict[str, list[tuple[int, int, str, _Clip]]] = defaultdict(list)
    for (label, site, level), shelf in shelves.items():
        turns[label] += [(turn, level, site, clip) for turn, clip in enumerate(shelf.first())]
    return {
        label: [clip for *_, clip in sorted(some, key=lambda item: item[:3])[:n]]
        for label, some in turns.items()
    }


class _Shelf:
    """Those `n` of many clips whose keys are lowest."""

    def __init__(self, n: int) -> None:
        self._n = n
        self._kept: list[tuple[tuple[Any, ...], _Clip]] = []

    def put(self, key: tuple[Any, ...], clip: _Clip) -> None:
        """Take one in, for now."""
        self._kept.append((key, clip))
        if len(self._kept) >= 2 * self._n:
            self._shorten()

    def first(self) -> list[_Clip]:
        """Those that stay, by their keys."""
        self._shorten()
        return [clip for _, clip in self._kept]

    def _shorten(self) -> None:
        self._kept.sort(key=lambda item: item[0])
        del self._kept[self._n :]


def _ranks(chosen: Chosen) -> dict[str, np.ndarray]:
    """Scores of all events of each class, ascending: four bytes for each."""
    scores: dict[str, array[float]] = defaultdict(lambda: array("f"))
    for label, clip in _best_windows(chosen):
        scores[label].append(clip.score)
    return {label: np.sort(np.frombuffer(some, np.float32)) for label, some in scores.items()}


def _best_windows(chosen: Chosen) -> Iterator[tuple[str, _Clip]]:
    """The best window of every event, with its class, recording by recording."""
    for item in chosen.windows():
        if not len(item.window):
            continue
        site = chosen.where.of(item.recording).site
        _, code = np.unique(item.label.astype(str), return_inverse=True)
        channels = chosen.loader.window_channels(item.recording)
        if channels is not None:  # each is a recording of its own
            code = code * (int(channels.max()) + 1) + channels[item.window]
        _, event = merge_intervals(Intervals(item.start, item.end, code), chosen.gap or 0.0)
        order = np.lexsort((item.start, -item.score, event))
        best = order[np.diff(event[order], prepend=-1) > 0]
        for i in best.tolist():
            times = (float(item.start[i]), float(item.end[i]), float(item.score[i]))
            channel = None if channels is None else int(channels[item.window[i]])
            yield str(item.label[i]), _Clip(item.recording, site, *times, channel)


def _plain(text: str) -> str:
    """Name of a file or folder that every system takes."""
    return re.sub(r"[^\w.,()-]+", "_", text).strip("._")[:100] or "class"
