"""What a run did and which of its stages took the time, for people; and its progress bar.

Stages overlap, each in threads of its own, so their seconds add up to more than the run took.
The stage that holds a run up is the one whose threads are busy the longest.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Mapping, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tqdm.auto import tqdm

from bacpipe.errors import RecordingsFailedError, counted
from bacpipe.user_input import in_notebook

logger = logging.getLogger(__name__)

_FAILURES_SHOWN = 20
# In a shorter run, what happens once, such as loading a library, looks like a slow stage.
_SECONDS_THAT_TELL = 10


_HOLDS_UP = 0.6  # part of the run for which the threads of the slowest stage are busy
# Which threads work on a stage.
_POOL = {
    "decode": "decoders",
    "resample": "decoders",
    "preprocess": "workers",
    "model": "workers",
    "write": "writers",
}
STAGES = tuple(_POOL)
"""Names of the stages, in the order of the work."""


@dataclass
class RunReport:
    """Counts of one run of one model.

    Attributes
    ----------
    model : str
        Name of the model.
    done : int
        Recordings embedded (or classified) now.
    kept : int
        Recordings that were done before.
    failed : list of (recording, reason)
        Recordings that could not be embedded.
    windows : int
        Windows computed now.
    audio_seconds : float
        Length of what was computed now.
    wall_seconds : float
        Time that it took.
    stages : dict
        Wall-clock seconds that threads worked on each of 'decode', 'resample', 'preprocess',
        'model' and 'write'; stages overlap, so they add up to more than `wall_seconds`.
    threads : dict
        Number of 'decoders', 'workers' of the model and 'writers'.
    blocked_seconds : float
        How long decoders waited for the model, added up over threads; also when all recordings
        were decoded.
    device : str
        Where the model computed.
    cores : int
        That this process may use.
    gpu_here : bool
        Whether there is a GPU that PyTorch can use.
    models : int
        For how many models the recordings were decoded; `wall_seconds` and `threads` are those of
        all of them then, seconds of decoding and of waiting this one's share.
    results : Path or None
        Where the embeddings are.
    notes : list of str
        What else the user should know.

    Examples
    --------
    >>> import bacpipe
    >>> embedder = bacpipe.Embedder("birdnet")
    >>> embeds = embedder.get_embeddings_from_model("recordings/SITE-A/20250504_043000.wav")
    >>> report = embedder.report
    >>> report.windows, report.device, report.times_real_time > 0, report.slowest is None
    (13, 'cpu', True, False)
    """

    model: str
    done: int = 0
    kept: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    windows: int = 0
    audio_seconds: float = 0.0
    wall_seconds: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)
    threads: dict[str, int] = field(default_factory=dict)
    blocked_seconds: float = 0.0
    device: str = "cpu"
    cores: int = 1
    gpu_here: bool = False
    models: int = 1
    results: Path | None = None
    notes: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        """All but the lock, so that reports can be copied and sent to other processes."""
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock())

    def add_time(self, stage: str, seconds: float) -> None:
        """Add seconds that a thread spent on a stage; threads may overlap."""
        with self._lock:
            self.stages[stage] = self.stages.get(stage, 0.0) + seconds

    @property
    def times_real_time(self) -> float:
        """Seconds of audio per second of the run."""
        return self.audio_seconds / self.wall_seconds if self.wall_seconds else 0.0

    @property
    def slowest(self) -> Slowest | None:
        """The stage that holds the run up; None if nothing was computed."""
        return slowest_stage(self.stages, self.threads, self.wall_seconds, self.blocked_seconds)

    def _time_rows(self) -> list[tuple[str, str]]:
        slowest = self.slowest
        if slowest is None:
            return []
        total = sum(self.stages.values())
        shares = sorted(self.stages.items(), key=lambda item: -item[1])
        parts = [f"{name} {100 * s / total:.0f} %" for name, s in shares if s > 0]
        busy = f"its threads busy {100 * slowest.busy:.0f} % of the time"
        rows = [
            ("time spent", f"{', '.join(parts)} of the seconds that threads worked (they overlap)"),
            ("slowest stage", f"{slowest.stage}, {busy}"),
        ]
        if self.wall_seconds < _SECONDS_THAT_TELL:
            return rows
        hint = advice(
            slowest,
            self.threads,
            recordings=self.done + len(self.failed),
            cores=self.cores,
            device=self.device,
            gpu_here=self.gpu_here,
        )
        return [*rows, ("hint", hint)] if hint else rows

    def __str__(self) -> str:
        rows = [
            ("model", self.model),
            ("recordings done", f"{self.done:,}"),
            ("skipped, done before", f"{self.kept:,}"),
            ("failed", f"{len(self.failed):,}"),
        ]
        if self.done:
            rows += [
                ("windows", f"{self.windows:,}"),
                ("audio", f"{self.audio_seconds / 3600:.2f} h"),
            ]
        # Without it, nothing went through the model: predictions came from stored embeddings.
        if self.wall_seconds:
            shared = f", {self.models} models at once" if self.models > 1 else ""
            speed = f"{self.times_real_time:.0f} × real time{shared}"
            rows += [("speed", speed), *self._time_rows()]
        if self.results is not None:
            rows.append(("results", str(self.results)))
        width = max(len(name) for name, _ in rows)
        lines = [f"  {name:<{width}}  {value}" for name, value in rows]
        lines += [
            f"  failed: {printable(reason if name in reason else f'{name}: {reason}')}"
            for name, reason in self.failed[:_FAILURES_SHOWN]
        ]
        if len(self.failed) > _FAILURES_SHOWN:
            lines.append(f"  … and {len(self.failed) - _FAILURES_SHOWN} more, in journal.jsonl")
        return "\n".join([*lines, *(f"  {printable(note)}" for note in self.notes)])


def warn_of_failures(report: RunReport) -> None:
    """Log what failed, for whoever does not print the report."""
    for _, reason in report.failed:
        logger.warning("failed: %s", printable(reason))


def refuse_failures(failed: Sized, *, strict: bool) -> None:
    """Say that recordings have failed, to whoever wants that to be an error.

    Raises
    ------
    RecordingsFailedError
        If any has, and the setting ``strict`` asks for it.
    """
    if strict and len(failed):
        raise RecordingsFailedError(
            f"{counted(len(failed), 'recording')} failed; all else is done."
        )


def printable(text: str) -> str:
    """Text in one line, for a terminal, which would obey control characters in a file's name."""
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in text
    )


class Slowest(NamedTuple):
    """The stage that holds a run up.

    Attributes
    ----------
    stage : str
        One of `STAGES`.
    share : float
        Its part of the seconds that all threads worked, 0 to 1.
    busy : float
        Part of the time for which the threads of this stage worked, on average, 0 to 1: of the
        run, or, for decoders, of the time until they ran out of recordings.  They share the cores
        with the other stages, so it need not be 1 where cores are scarce.
    """

    stage: str
    share: float
    busy: float


def slowest_stage(
    seconds: Mapping[str, float], threads: Mapping[str, int], wall: float, blocked: float = 0.0
) -> Slowest | None:
    """Find the stage that holds a run of `wall` seconds up; None if nothing was measured.

    `seconds` are those that threads worked on each stage, added up over threads; `threads` is
    the number of 'decoders', 'workers' and 'writers', 1 where it is not told; `blocked` are the
    seconds that decoders waited for the others.

    Examples
    --------
    >>> slowest_stage({"decode": 6.0, "model": 8.0}, {"decoders": 1, "workers": 2}, 8.0, 2.0)
    Slowest(stage='decode', share=0.42857142857142855, busy=0.75)
    """
    total = sum(seconds.values())
    if total <= 0:
        return None
    busy: dict[str, float] = {}
    for pool in dict.fromkeys(_POOL.values()):
        spent = sum(seconds.get(stage, 0.0) for stage in STAGES if _POOL[stage] == pool)
        there = wall * max(1, threads.get(pool, 1))
        if pool == "decoders" and threads.get(pool):
            # One that has no recording left does not mean that the others are fast enough.
            there = spent + blocked
        # More than all of it: results are still written when the run proper is over.
        busy[pool] = min(1.0, spent / there) if there > 0 else 0.0
    slowest_pool = max(busy, key=lambda pool: busy[pool])
    stage = max((s for s in seconds if _POOL[s] == slowest_pool), key=lambda s: seconds[s])
    return Slowest(stage, seconds[stage] / total, busy[slowest_pool])


def advice(
    slowest: Slowest,
    threads: Mapping[str, int],
    *,
    recordings: int,
    cores: int,
    device: str,
    gpu_here: bool,
) -> str | None:
    """Say in one sentence what makes a run faster, if the user can do something about it."""
    if slowest.busy < _HOLDS_UP:
        return None  # several stages share the cores, and none of them is to blame
    decoders = threads.get("decoders", 1)
    if slowest.stage in {"decode", "resample"}:
        if decoders == 0:
            return "avoid_pipelined_gpu_inference=false decodes while the model computes."
        if decoders < cores and recordings <= decoders:
            return "each recording is decoded by one thread; more of them at once use more cores."
        if decoders < cores:
            return (
                f"nr_parallel_workers={min(2 * decoders, cores)} works on more recordings at the "
                f"same time (now {decoders})."
            )
        if slowest.stage == "resample":
            return "recordings at the model's own sample rate need no resampling."
        return "all cores are busy; copying the recordings to a faster disk may help."
    if slowest.stage == "write":
        return "a main_results_dir on a disk of this computer, not of the network, is faster."
    if device == "cpu" and gpu_here:
        return "device=cuda lets the model compute on the GPU of this computer."
    return None


def is_interactive() -> bool:
    """Whether somebody watches: a terminal, or a notebook."""
    return (sys.stderr is not None and sys.stderr.isatty()) or in_notebook()


class RunProgress:
    """Progress of a run over recordings; silent unless somebody watches.

    The time left is estimated from `size`, the bytes of all recordings.
    """

    def __init__(self, title: str, recordings: int, size: int) -> None:
        self._recordings = recordings
        self._done = 0
        self._audio = 0.0
        self._started = time.perf_counter()
        self._bar = tqdm(
            total=max(size, 1),
            desc=title,
            disable=not is_interactive(),
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {postfix} [{elapsed}, {remaining} left]",
        )

    def advance(self, size: int, seconds: float) -> None:
        """Count one recording of `size` bytes with `seconds` of audio."""
        self._done += 1
        self._audio += seconds
        speed = self._audio / max(time.perf_counter() - self._started, 1e-9)
        self._bar.set_postfix_str(
            f"{self._done}/{self._recordings} recordings, {self._audio / 3600:.2f} h, "
            f"{speed:.0f} × real time",
            refresh=False,
        )
        self._bar.update(max(size, 0))

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()
