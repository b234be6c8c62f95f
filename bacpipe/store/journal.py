"""The run journal: which recordings are done, and what they were computed from.

``journal.jsonl`` lies in the folder of a set of embeddings.  Its first line describes the
set; every further line is one recording that was finished, failed or removed, and a later
line about a recording replaces an earlier one.  A recording counts as done only when its
line is there, because the line is written after all its files; before files that a line
vouches for are replaced, another line takes it back.  A run's last line says that the tables
over all recordings are complete, until another line follows.

Invariants: lines are only ever appended; a line cut short by a crash is ignored by readers
and taken away by the next writer; ``journal-<anything>.jsonl`` files beside it are read before
it, so that disjoint parts of a data set can be computed by several machines into one tree.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bacpipe.errors import ResultsError
from bacpipe.store.entries import DoneLines, Lines, is_record
from bacpipe.store.files import write_all, writing
from bacpipe.store.layout import path_inside

logger = logging.getLogger(__name__)

FORMAT = 1

_SECONDS_UNSYNCED = 0.5
_DECODER = json.JSONDecoder()
_BLOCK = 2**16  # bytes read at a time in search of the last line


@dataclass
class JournalContent:
    """What the journals of a folder say.

    Attributes
    ----------
    header : dict
        Description of the set; empty when there is none.
    recordings : Lines
        Last line of each recording, by its name.
    tables : dict or None
        What the tables over all recordings were written with, if nothing has changed since.
    damaged : set of str
        Recordings whose last line is incomplete or contradicts itself.
    """

    header: dict[str, Any] = field(default_factory=dict)
    recordings: Lines = field(default_factory=Lines)
    tables: dict[str, Any] | None = None
    damaged: set[str] = field(default_factory=set)

    def add(self, name: str, line: dict[str, Any]) -> None:
        """Take the next line of a recording."""
        self.recordings[name] = line
        if not is_record(line):
            self.damaged.add(name)
        else:
            self.damaged.discard(name)

    @property
    def done(self) -> DoneLines:
        """Lines of the recordings that are done."""
        return DoneLines(self.recordings, list(self.recordings.with_status("done")))

    @property
    def has_done(self) -> bool:
        """Whether any recording is done."""
        return next(self.recordings.with_status("done"), None) is not None


def read_journals(folder: Path) -> JournalContent:
    """Read all journals of a folder; an absent journal is an empty one.

    Raises
    ------
    ResultsError
        If a journal is of a newer format, or journals describe different sets.
    """
    content = JournalContent()
    for path in sorted(folder.glob("journal*.jsonl")):
        for line in _lines(path_inside(folder, path.name, what="a link")):
            if "format" in line:
                _check_header(path, line, content.header)
                content.header = content.header or line
            elif isinstance(line.get("file"), str) and isinstance(line.get("status"), str):
                content.add(line["file"], line)
                content.tables = None
            elif isinstance(line.get("tables"), dict):
                content.tables = line["tables"]
    return content


def _check_header(path: Path, header: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    found = header["format"]
    if not isinstance(found, int):
        raise ResultsError(
            f"{path}: names the format {found!r}, expected a number up to {FORMAT}; the journal "
            f"is damaged. Move its folder away to have it computed again."
        )
    if found > FORMAT:
        raise ResultsError(
            f"{path.parent}: written by a newer bacpipe ({path.name} has the format {found}, this "
            f"one reads up to {FORMAT}); update bacpipe, or choose another main_results_dir."
        )
    if known and header.get("identity") != known.get("identity"):
        raise ResultsError(
            f"{path}: describes other embeddings ({header.get('identity')}) than the journals "
            f"beside it ({known.get('identity')}); move it and its embeddings to a folder of "
            f"their own."
        )


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    damaged = 0
    with path.open("rb") as file:
        for raw in file:
            try:
                line = _parse(raw)
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


def _parse(raw: bytes) -> Any:
    # Half of what json.loads takes for a line goes into finding out how it is encoded.
    with suppress(ValueError):
        text = raw.decode()
        line, end = _DECODER.raw_decode(text)
        if text[end:] in {"\n", ""}:
            return line
    return json.loads(raw)


def encode_line(line: Mapping[str, Any]) -> bytes:
    """One line of a journal, with its line break."""
    text = json.dumps(line, ensure_ascii=False)
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:  # a file name whose bytes are no text
        return json.dumps(line).encode() + b"\n"


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
        self.path = path_inside(folder, "journal.jsonl", what="a link")
        self._synced = time.monotonic()
        with writing(self.path):
            # Without a buffer, a line that the disk did not take is not written later on.
            self._file = self.path.open("ab+", buffering=0)
            self._mend_last_line()

    def append(self, line: Mapping[str, Any]) -> None:
        """Append one line.

        Raises
        ------
        StorageError
            If the disk does not take the line; the journal is then as it was before.
        """
        data = encode_line(line)
        with writing(self.path, len(data)):
            self._write(data)
            if time.monotonic() - self._synced > _SECONDS_UNSYNCED:
                os.fsync(self._file.fileno())
                self._synced = time.monotonic()

    def check(self) -> None:
        """Make sure that the journal still is where it was opened.

        Raises
        ------
        ResultsError
            If somebody has deleted or moved the folder: what is written now would be lost.
        """
        try:
            there = os.path.samestat(self.path.stat(), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            there = False
        if not there:
            raise ResultsError(
                f"{self.path.parent}: this folder was deleted or moved while the run was writing "
                f"to it; put it back, or run the same command again to compute anew what is gone."
            )

    @property
    def closed(self) -> bool:
        return self._file.closed

    def close(self) -> None:
        """Flush all lines to the disk and close the file."""
        if not self._file.closed:
            try:
                with writing(self.path):
                    os.fsync(self._file.fileno())
            finally:
                self._file.close()

    def _write(self, data: bytes) -> None:
        end = self._file.seek(0, os.SEEK_END)
        try:
            write_all(self._file.fileno(), data)
        except OSError:
            with suppress(OSError):  # the next writer closes half a line that stays
                self._file.truncate(end)
            raise

    def _mend_last_line(self) -> None:
        """Take away the piece of a line that a crash left, so that nobody warns of it again."""
        end = start = self._file.seek(0, os.SEEK_END)
        tail = b""
        while start and b"\n" not in tail:
            start = max(0, start - _BLOCK)
            self._file.seek(start)
            tail = self._file.read(end - start)
        piece = tail[tail.rfind(b"\n") + 1 :]
        if not piece:
            return
        try:
            json.loads(piece)
        except (ValueError, RecursionError):
            self._file.truncate(end - len(piece))
        else:  # only its line break is missing: readers have taken it for a line
            self._write(b"\n")


# FOLDED bacpipe/store/ledger.py: The journal of a run that is writing, and whose results each file holds.
#
#   A line of the journal vouches for files.  Before such a file is written anew, for the same
#   recording or for another one that has come to bear its name, the line is taken back: a run that
#   is killed between the file and its new line must not leave a line that vouches for a file which
#   is not its own.


class Ledger(Journal):
    """Appends to the journal of a set and knows what it says.

    Parameters
    ----------
    folder : Path
        Folder of the set.
    lines : Lines
        What its journals say, by recording; what this run appends is added to it.

    Attributes
    ----------
    lines : Lines
        The same.
    """

    def __init__(self, folder: Path, lines: Lines) -> None:
        super().__init__(folder)
        self.lines = lines
        # Of files that were there before; those that one run writes have different names.
        self._owners: dict[str, dict[str, str]] = {"embeddings": {}, "predictions": {}}
        for name, line in lines.items():
            for what, owners in self._owners.items():
                path = _path(line, what)
                if path is not None:
                    owners[path] = name

    def append(self, line: Mapping[str, Any]) -> None:
        """Append one line; see `Journal.append`."""
        super().append(line)
        if "file" in line:
            name, known = line["file"], dict(line)
            self.lines[name] = known
            for what, owners in self._owners.items():
                path = _path(known, what)
                if path in owners:
                    owners[path] = name

    def close(self) -> None:
        """Close the journal and forget its lines, of which a large data set has many."""
        super().close()
        self.lines, self._owners = Lines(), {"embeddings": {}, "predictions": {}}

    def replace_embeddings(self, name: str, path: str) -> None:
        """Take back the lines that vouch for a file of embeddings, which is to be written."""
        owner = self._owners["embeddings"].get(path)
        for other in sorted({name, owner or name}):
            if _path(self.lines.get(other), "embeddings") == path:
                self.append({"file": other, "status": "replaced"})

    def replace_predictions(self, name: str, path: str) -> None:
        """Take back what lines say of a file of predictions, which is to be written."""
        owner = self._owners["predictions"].get(path)
        for other in sorted({name, owner or name}):
            line = self.lines.get(other)
            if line is not None and _path(line, "predictions") == path:
                self.append({**line, "predictions": None})

    def forget_predictions(self) -> None:
        """Take back all predictions: what is on disk belongs to another set."""
        for name in list(self.lines):
            line = self.lines[name]
            if line.get("predictions"):
                self.append({**line, "predictions": None})

    def superseded(self, before: Mapping[str, Any] | None, what: str, name: str) -> str | None:
        """Path of an earlier file of a recording, if nobody has any use for it now.

        Parameters
        ----------
        before : mapping or None
            The recording's line before this run wrote its results.
        what : {'embeddings', 'predictions'}
            Which file.
        name : str
            The recording.
        """
        path = _path(before, what)
        if path is None or path == _path(self.lines.get(name), what):
            return None
        owner = self._owners[what].get(path, name)
        return path if owner == name or _path(self.lines.get(owner), what) != path else None


def _path(line: Mapping[str, Any] | None, what: str) -> str | None:
    stored = (line or {}).get(what)
    return stored["path"] if stored else None
