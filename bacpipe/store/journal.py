"""The run journal: which recordings are done, and what they were computed from.

``journal.jsonl`` lies in the folder of a set of embeddings.  Its first line describes the
set; every further line is one recording that was finished, failed or removed, and a later
line about a recording replaces an earlier one.  A recording counts as done only when its
line is there, because the line is written after all its files; before files that a line
vouches for are replaced, another line takes it back.  A run's last line says that the tables
over all recordings are complete, until another line follows.

Invariants: lines are only ever appended; a line cut short by a crash is ignored by readers
and taken away by the next writer; ``journal-<anything>.jsonl`` files beside it are read after
it, so that disjoint parts of a data set can be computed by several machines into one tree.  Whoever
opens ``journal.jsonl`` to write takes their lines over and removes them, so that nothing that they
say is older than a line after which it is read; parts are not worked on meanwhile
(`bacpipe.store.claims.alone`).

Failure policy: a line that cannot be read, or that contradicts itself, costs its recording's
results and nothing else; a journal of a newer format, or journals of different sets in one folder,
are an error.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bacpipe.errors import ResultsError
from bacpipe.store.entries import (
    DISCARDED,
    FAILED,
    REPLACED,
    DoneEntries,
    Entries,
    Entry,
    FailedEntry,
    FinishedEntry,
    read_entry,
)
from bacpipe.store.files import write_all, writing
from bacpipe.store.layout import JOURNAL, journals_in, path_inside

logger = logging.getLogger(__name__)

FORMAT = 1

FileKind = Literal["embeddings", "predictions"]

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
    recordings : Entries
        Last entry of each recording, by its name.
    tables : dict or None
        What the tables over all recordings were written with, if nothing has changed since.
    damaged : dict of str to None
        Recordings whose last line is incomplete or contradicts itself, in the journal's order;
        they have no entry.
    """

    header: dict[str, Any] = field(default_factory=dict)
    recordings: Entries = field(default_factory=Entries)
    tables: dict[str, Any] | None = None
    damaged: dict[str, None] = field(default_factory=dict)

    def add(self, name: str, entry: Entry | None) -> None:
        """Take the next entry of a recording; None if its line is damaged."""
        if entry is None:
            self.recordings.pop(name, None)
            self.damaged[name] = None
        else:
            self.recordings[name] = entry
            self.damaged.pop(name, None)

    @property
    def done(self) -> DoneEntries:
        """Entries of the recordings that are done."""
        return self.recordings.done


def read_journals(folder: Path, part: str | None = None) -> JournalContent:
    """Read all journals of a folder; an absent journal is an empty one.

    Parameters
    ----------
    folder : Path
        Of the set.
    part : str, optional
        Name of the journal of a part of the data set: those of other parts are not read.

    Raises
    ------
    ResultsError
        If a journal cannot be read, is of a newer format, or describes another set than others.
    """
    content = JournalContent()
    for path in read_for(folder, part):
        for line in _lines(path_inside(folder, path.name, what="a link")):
            if "format" in line:
                _check_header(path, line, content.header)
                content.header = content.header or line
            elif isinstance(line.get("file"), str) and isinstance(line.get("status"), str):
                content.add(line["file"], read_entry(line))
                content.tables = None
            elif isinstance(line.get("tables"), dict):
                content.tables = line["tables"]
    return content


def read_for(folder: Path, part: str | None) -> list[Path]:
    """Journals of a folder that a part of the data set needs; all for None."""
    return [path for path in journals_in(folder) if part is None or path.name in {JOURNAL, part}]


def _check_header(path: Path, header: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    version = header["format"]
    if not isinstance(version, int):
        raise ResultsError(
            f"{path}: names the format {version!r}, expected a number up to {FORMAT}; the journal "
            f"is damaged. Move its folder away to have it computed again."
        )
    if version > FORMAT:
        raise ResultsError(
            f"{path.parent}: written by a newer bacpipe ({path.name} has the format {version}, "
            f"this one reads up to {FORMAT}); update bacpipe, or choose another main_results_dir."
        )
    if known and header.get("identity") != known.get("identity"):
        raise ResultsError(
            f"{path}: describes other embeddings ({header.get('identity')}) than the journals "
            f"beside it ({known.get('identity')}); move it and its embeddings to a folder of "
            f"their own."
        )


def _raw_lines(path: Path) -> Generator[bytes, None, None]:
    try:
        with path.open("rb") as file:
            yield from file
    except OSError as error:  # a drive that fails, or a network
        raise ResultsError(
            f"{path}: this journal cannot be read ({error.strerror or error}); nothing was "
            f"changed. Make its disk readable again, then run the same command."
        ) from None


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    damaged = 0
    with closing(_raw_lines(path)) as lines:
        for raw in lines:
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


def _parse(raw: bytes) -> object:
    # Half of what json.loads takes for a line goes into finding out how it is encoded.
    with suppress(ValueError):
        text = raw.decode()
        line, end = _DECODER.raw_decode(text)
        if text[end:] in {"\n", ""}:
            return line
    return json.loads(raw)


def encode_line(line: Mapping[str, object]) -> bytes:
    """One line of a journal, with its line break."""
    text = json.dumps(line, ensure_ascii=False)
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:  # a file name whose bytes are no text
        return json.dumps(line).encode() + b"\n"


class FolderGoneError(ResultsError):
    """A folder of results was deleted or moved while a run was writing to it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            f"{folder}: this folder was deleted or moved while the run was writing to it; put it "
            f"back, or run the same command again to compute anew what is gone."
        )


class Journal:
    """Appends to ``journal.jsonl``; the caller holds the lock.

    Every line is handed to the operating system at once, so that it survives whatever happens
    to this process; the disk is told to keep the lines twice a second and at the end.

    Parameters
    ----------
    folder : Path
        Folder of the set.
    part : str, optional
        Name of the journal of a part of the data set, instead of ``journal.jsonl``.
    header : mapping, optional
        First line of a journal that is not there yet.
    """

    def __init__(
        self,
        folder: Path,
        part: str | None = None,
        header: Mapping[str, object] | None = None,
    ) -> None:
        self.path = path_inside(folder, part or JOURNAL, what="a link")
        self._synced = time.monotonic()
        with writing(self.path):
            # Without a buffer, a line that the disk did not take is not written later on.
            self._file = self.path.open("ab+", buffering=0)
            self._mend_last_line()
            if header and not self._file.seek(0, os.SEEK_END):
                self._write(encode_line(header))
            if part is None:
                self._take_over_parts(folder)

    def append(self, entry: Entry) -> None:
        """Append the entry of a recording.

        Raises
        ------
        StorageError
            If the disk does not take the line; the journal is then as it was before.
        """
        self._append(entry.as_json())

    def append_tables(self, tables: Mapping[str, object]) -> None:
        """Say what the tables over all recordings, which are complete, were written with.

        Raises
        ------
        StorageError
            If the disk does not take the line.
        """
        self._append({"tables": dict(tables)})

    def _append(self, line: Mapping[str, object]) -> None:
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
        FolderGoneError
            If somebody has deleted or moved the folder: what is written now would be lost.
        """
        try:
            there = os.path.samestat(self.path.stat(), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            there = False
        if not there:
            raise FolderGoneError(self.path.parent)

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

    def _take_over_parts(self, folder: Path) -> None:
        """Append what the journals of parts say, and remove them.

        A crash in between leaves some lines twice, which say the same when they are read again.
        """
        for path in journals_in(folder):
            if path.name == JOURNAL:
                continue
            with closing(_raw_lines(path_inside(folder, path.name, what="a link"))) as lines:
                for raw in lines:
                    with suppress(ValueError, RecursionError):  # half a line of a crash
                        line = _parse(raw)
                        is_first = not self._file.seek(0, os.SEEK_END)
                        if isinstance(line, dict) and (is_first or "format" not in line):
                            self._write(raw if raw.endswith(b"\n") else raw + b"\n")
            os.fsync(self._file.fileno())
            path.unlink()

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


class RunJournal(Journal):
    """The journal of a run that is writing, which knows whose results each file holds.

    An entry vouches for files.  Before such a file is written anew, for the same recording or for
    another one that has come to bear its name, the entry is taken back: a run that is killed
    between the file and its new entry must not leave an entry that vouches for a file which is
    not its own.

    Parameters
    ----------
    folder : Path
        Folder of the set.
    entries : Entries
        What its journals say; what this run appends is added to it.
    part, header
        As in `Journal`.
    """

    def __init__(
        self,
        folder: Path,
        entries: Entries,
        part: str | None = None,
        header: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(folder, part, header)
        self.entries = entries
        # Of files that were there before; those that one run writes have different names.
        self._owners: dict[FileKind, dict[str, str]] = {"embeddings": {}, "predictions": {}}
        for name, entry in entries.items():
            for kind, owners in self._owners.items():
                path = _path(entry, kind)
                if path is not None:
                    owners[path] = name

    def append(self, entry: Entry) -> None:
        """Append the entry of a recording; see `Journal.append`."""
        super().append(entry)
        self.entries[entry.file] = entry
        for kind, owners in self._owners.items():
            path = _path(entry, kind)
            if path is not None and path in owners:
                owners[path] = entry.file

    def append_failure(self, name: str, reason: str) -> None:
        """Say why a recording has no results, unless the journal says so already."""
        entry = FailedEntry(name, FAILED, reason)
        if self.entries.get(name) != entry:
            self.append(entry)

    def close(self) -> None:
        """Close the journal and forget its entries, of which a large data set has many."""
        super().close()
        self.entries, self._owners = Entries(), {"embeddings": {}, "predictions": {}}

    def replace_embeddings(self, name: str, path: str) -> None:
        """Take back the entries that vouch for a file of embeddings, which is to be written."""
        for other in self._vouchers("embeddings", name, path):
            self.append(Entry(other, REPLACED))

    def replace_predictions(self, name: str, path: str) -> None:
        """Take back what entries say of a file of predictions, which is to be written."""
        for other in self._vouchers("predictions", name, path):
            self.drop_predictions(other)

    def drop_predictions(self, name: str) -> None:
        """Take back a recording's predictions, if it has any."""
        entry = self.entries.finished(name)
        if entry is not None and entry.predictions is not None:
            self.append(entry.without_predictions())

    def drop_all_predictions(self) -> None:
        """Take back all predictions: what is on disk belongs to another set."""
        for name in list(self.entries):
            self.drop_predictions(name)

    def discard(self, name: str) -> None:
        """Take back all results of a recording."""
        self.append(Entry(name, DISCARDED))

    def superseded(self, before: FinishedEntry | None, kind: FileKind) -> str | None:
        """Path of an earlier file of a recording, if nobody has any use for it now.

        Parameters
        ----------
        before : FinishedEntry or None
            The recording's entry before this run wrote its results.
        kind : {'embeddings', 'predictions'}
            Which file.
        """
        path = _path(before, kind)
        if before is None or path is None or path == _path(self.entries.get(before.file), kind):
            return None
        owner = self._owners[kind].get(path, before.file)
        held = owner != before.file and _path(self.entries.get(owner), kind) == path
        return None if held else path

    def _vouchers(self, kind: FileKind, name: str, path: str) -> list[str]:
        """Recordings whose entries vouch for a file that is to be written for one of them."""
        owner = self._owners[kind].get(path, name)
        return [
            other for other in sorted({name, owner}) if _path(self.entries.get(other), kind) == path
        ]


def _path(entry: Entry | None, kind: FileKind) -> str | None:
    if not isinstance(entry, FinishedEntry):
        return None
    if kind == "embeddings":
        return entry.embeddings.path
    return entry.predictions.path if entry.predictions is not None else None
