"""What a run did, for people."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path

from bacpipe.inference.stages import Slowest, advice, slowest_stage

_FAILURES_SHOWN = 20
# In a shorter run, what happens once, such as loading a library, looks like a slow stage.
_SECONDS_THAT_TELL = 10


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
        Wall-clock seconds that threads worked on each of `bacpipe.inference.stages.STAGES`;
        stages overlap, so they add up to more than `wall_seconds`.
    threads : dict
        Number of 'decoders', 'workers' of the model and 'writers'.
    device : str
        Where the model computed.
    cores : int
        That this process may use.
    gpu_here : bool
        Whether there is a GPU that PyTorch can use.
    results : Path or None
        Where the embeddings are.
    notes : list of str
        What else the user should know.
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
    device: str = "cpu"
    cores: int = 1
    gpu_here: bool = False
    results: Path | None = None
    notes: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

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
        return slowest_stage(self.stages, self.threads, self.wall_seconds)

    def _time_rows(self) -> list[tuple[str, str]]:
        found = self.slowest
        if found is None:
            return []
        total = sum(self.stages.values())
        shares = sorted(self.stages.items(), key=lambda item: -item[1])
        parts = [f"{name} {100 * s / total:.0f} %" for name, s in shares if s > 0]
        busy = f"its threads busy {100 * found.busy:.0f} % of the run"
        rows = [
            ("time spent", f"{', '.join(parts)} of the seconds that threads worked (they overlap)"),
            ("slowest stage", f"{found.stage}, {busy}"),
        ]
        if self.wall_seconds < _SECONDS_THAT_TELL:
            return rows
        hint = advice(
            found,
            self.threads,
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
            rows += [("speed", f"{self.times_real_time:.0f} × real time"), *self._time_rows()]
        if self.results is not None:
            rows.append(("results", str(self.results)))
        width = max(len(name) for name, _ in rows)
        lines = [f"  {name:<{width}}  {value}" for name, value in rows]
        lines += [
            f"  failed: {printable(name)}: {printable(reason)}"
            for name, reason in self.failed[:_FAILURES_SHOWN]
        ]
        if len(self.failed) > _FAILURES_SHOWN:
            lines.append(f"  … and {len(self.failed) - _FAILURES_SHOWN} more, in journal.jsonl")
        return "\n".join([*lines, *(f"  {printable(note)}" for note in self.notes)])


def printable(text: str) -> str:
    """Text in one line, for a terminal, which would obey control characters in a file's name."""
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in text
    )
