"""The run journal: which recordings are done, and what they were computed from.

``journal.jsonl`` lies in the folder of a set of embeddings.  Its first line describes the
set; every further line is one recording that was finished, failed or removed, and a later
line about a recording replaces an earlier one.  A recording counts as done only when its
line is there, because the line is written after all its files.

Invariants: lines are only ever appended; a line cut short by a crash is ignored by readers
and closed by the next writer; ``journal-<anything>.jsonl`` files beside it are read as well,
so that disjoint parts of a data set can be computed by several machines into one tree.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

FORMAT = 1

_SECONDS_UNSYNCED = 0.5


@dataclass
class JournalContent:
    """What the journals of a folder say.

    Attributes
    ----------
    header : dict
        Description of the set; empty when there is none.
    recordings : dict
        Last line of each recording, by its name.
    """

    header: dict[str, Any] = field(default_factory=dict)
    recordings: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def done(self) -> dict[str, dict[str, Any]]:
        """Lines of the recordings that are done."""
        return {n: line for n, line in self.recordings.items() if line["status"] == "done"}


def read_journals(folder: Path) -> JournalContent:
    """Read all journals of a folder; an absent journal is an empty one."""
    content = JournalContent()
    for path in sorted(folder.glob("journal*.jsonl")):
        for line in _lines(path):
            if "format" in line:
                content.header = content.header or line
            elif isinstance(line.get("file"), str) and isinstance(line.get("status"), str):
                content.recordings[line["file"]] = line
    return content


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    damaged = 0
    with path.open("rb") as file:
        for raw in file:
            try:
                line = json.loads(raw)
            except (ValueError, RecursionError):
                damaged += 1
                continue
            if isinstance(line, dict):
                yield line
            else:
                damaged += 1
    if damaged:
        logger.warning(
            "%s: %d unreadable line(s), as a crash leaves them; their recordings are "
            "computed again.",
            path,
            damaged,
        )


class Journal:
    """Appends to ``journal.jsonl``; the caller holds the lock.

    Every line is handed to the operating system at once, so that it survives whatever happens
    to this process; the disk is told to keep the lines twice a second and at the end.

    Parameters
    ----------
    folder : Path
        Folder of the set.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "journal.jsonl"
        self._file = self.path.open("ab+")
        self._synced = time.monotonic()
        if self._file.tell() and not self._ends_with_newline():
            self._file.write(b"\n")

    def append(self, line: Mapping[str, Any]) -> None:
        """Append one line."""
        self._file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        self._file.flush()
        if time.monotonic() - self._synced > _SECONDS_UNSYNCED:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()

    def close(self) -> None:
        """Flush all lines to the disk and close the file."""
        if not self._file.closed:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()

    def _ends_with_newline(self) -> bool:
        self._file.seek(-1, os.SEEK_END)
        return self._file.read(1) == b"\n"
