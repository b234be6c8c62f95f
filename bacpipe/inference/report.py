"""What a run did, for people."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path

_FAILURES_SHOWN = 20


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
        Seconds that threads spent decoding, computing and writing.
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
                ("speed", f"{self.times_real_time:.0f} × real time"),
            ]
        if self.stages:
            total = sum(self.stages.values())
            shares = sorted(self.stages.items(), key=lambda item: -item[1])
            rows.append(
                ("time spent", ", ".join(f"{name} {100 * s / total:.0f} %" for name, s in shares))
            )
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
