"""Sound of detections, to listen to: a few for each class, and a table of them."""

from __future__ import annotations

import io
import logging
import re
from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple, get_args

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
    rng = np.random.default_rng(seed)
    written: list[Path] = []
    rows: list[tuple[object, ...]] = []
    for label, candidates in sorted(_best_windows(chosen).items()):
        for rank, item in enumerate(_pick(candidates, n, order, rng), start=1):
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
    write_csv(folder / CLIPS_TABLE, table.round({"score": 4, "start": 6, "end": 6}))
    return [*written, folder / CLIPS_TABLE]


def _best_windows(chosen: Chosen) -> dict[str, list[_Clip]]:
    """The best window of every event, by class."""
    best_windows: dict[str, list[_Clip]] = defaultdict(list)
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
            best_windows[str(item.label[i])].append(_Clip(item.recording, site, *times, channel))
    return best_windows


def _pick(candidates: list[_Clip], n: int, order: Order, rng: np.random.Generator) -> list[_Clip]:
    ranked = sorted(candidates, key=lambda item: (-item.score, item.recording, item.start))
    if order == "score":
        return ranked[:n]
    shuffled = [ranked[i] for i in rng.permutation(len(ranked))]
    if order == "random":
        return shuffled[:n]
    place = {item: number for number, item in enumerate(ranked)}
    strata: dict[tuple[str, int], list[_Clip]] = defaultdict(list)
    for item in shuffled:
        strata[item.site, _LEVELS * place[item] // len(ranked)].append(item)
    turns = sorted(
        ((turn, key) for key, items in strata.items() for turn in range(len(items))),
        key=lambda pair: (pair[0], pair[1][1], pair[1][0]),
    )
    return [strata[key][turn] for turn, key in turns[:n]]


def _plain(text: str) -> str:
    """Name of a file or folder that every system takes."""
    return re.sub(r"[^\w.,()-]+", "_", text).strip("._")[:100] or "class"
