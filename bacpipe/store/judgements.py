"""Lines of the journal of labels of people, as they are on disk.

`bacpipe.labels.people` says what holds of them; this only reads them, and names those that cannot
be read.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from bacpipe.annotations.cells import listed
from bacpipe.errors import ResultsError, counted
from bacpipe.store.layout import ALL_PEOPLE_LABELS, path_inside

logger = logging.getLogger(__name__)

FORMAT = 1
YES, NO, UNSURE, UNDO = "yes", "no", "unsure", "undo"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a person said of a label in some seconds of a recording: a line of the journal."""

    recording: str  # posix path relative to the audio folder
    fingerprint: str  # of its content, in hexadecimal digits
    start: float  # seconds
    end: float
    label: str
    value: str  # one of YES, NO, UNSURE, UNDO
    annotator: str
    time: str  # ISO 8601, UTC
    chosen_by: str = ""  # strategy by which the clip was chosen
    model: str = ""  # whose score the person saw
    score: float | None = None
    channel: int | None = None  # from 1, where one of several was heard by itself

    @classmethod
    def read(cls, line: object) -> Judgement:
        """Take a line of the journal; a ValueError says what is wrong with it."""
        if not isinstance(line, dict):
            raise ValueError("it is no entry")
        values = {field.name: line[field.name] for field in fields(cls) if field.name in line}
        try:
            entry = cls(**values)
        except TypeError as error:
            raise ValueError(str(error)) from None
        texts = [value for value in astuple(entry) if isinstance(value, str)]
        times = [entry.start, entry.end, 0.0 if entry.score is None else entry.score]
        if len(texts) != 8 or entry.value not in {YES, NO, UNSURE, UNDO}:
            raise ValueError("a value is not of its kind")
        if not all(isinstance(x, int | float) and math.isfinite(x) for x in times):
            raise ValueError("a number is none")
        if entry.channel is not None and not (isinstance(entry.channel, int) and entry.channel > 0):
            raise ValueError("its channel is none")
        return entry


def read_judgements(folder: Path) -> list[Judgement]:
    """All entries of the journals in a folder, in their order; damaged lines are named."""
    paths = sorted(folder.glob(ALL_PEOPLE_LABELS))
    dated: list[tuple[str, Judgement]] = []
    for path in paths:
        latest = ""
        for entry in _entries_in(path_inside(folder, path.name, what="a link")):
            # The order within a file is certain, whatever the clocks of its writers said.
            latest = max(latest, entry.time)
            dated.append((latest, entry))
    if len(paths) == 1:
        return [entry for _, entry in dated]
    return list(dict.fromkeys(entry for _, entry in sorted(dated, key=lambda pair: pair[0])))


def _entries_in(path: Path) -> Iterator[Judgement]:
    damaged = []
    for number, entry in _lines_of(path):
        if entry is None:
            damaged.append(number)
        else:
            yield entry
    if damaged:
        logger.warning("%s; %s", _sentence_on(path, damaged), "all other labels count.")


def why_damaged(path: Path) -> str | None:
    """One sentence on the lines of a journal that cannot be read; None if there are none.

    Raises
    ------
    ResultsError
        If the file cannot be read, or was written by a newer bacpipe.
    """
    damaged = [number for number, entry in _lines_of(path) if entry is None]
    return f"{_sentence_on(path, damaged)}." if damaged else None


def _sentence_on(path: Path, damaged: list[int]) -> str:
    return (
        f"{path}: {counted(len(damaged), 'line')} cannot be read, as a crash or a full disk leaves "
        f"it, and is left out (line {listed(damaged)}); it stays in the file"
    )


def _lines_of(path: Path) -> Iterator[tuple[int, Judgement | None]]:
    """Number and entry of every line that should hold one; None for those that cannot be read."""
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                try:
                    line = json.loads(raw) if raw.strip() else {"format": FORMAT}
                    if isinstance(line, dict) and "format" in line:
                        _check_format(path, line["format"])
                        continue
                    yield number, Judgement.read(line)
                except (ValueError, RecursionError):
                    yield number, None
    except OSError as error:
        raise ResultsError(
            f"{path}: these labels cannot be read ({error.strerror or error}); give yourself read "
            f"permission for them."
        ) from None


def _check_format(path: Path, version: object) -> None:
    if not isinstance(version, int) or version > FORMAT:
        raise ResultsError(
            f"{path}: written by a newer bacpipe (format {version}, this one reads up to "
            f"{FORMAT}); update bacpipe."
        )
