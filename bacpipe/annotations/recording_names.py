"""Which recording a table, or a row of it, is about."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from bacpipe.annotations.cells import unescaped
from bacpipe.errors import AnnotationsError

if TYPE_CHECKING:
    import pandas as pd


class RecordingNames:
    """Finds recordings by what annotation tables call them.

    Recordings are posix paths relative to the audio folder.
    """

    def __init__(self, recordings: Sequence[str]) -> None:
        self._exact = frozenset(recordings)
        self._recordings = recordings

    # Most tables name recordings exactly, and there may be a million of these.
    @cached_property
    def _by_path(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for recording in self._recordings:
            found[_comparable(recording)].append(recording)
        return found

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for path, recordings in self._by_path.items():
            found[path.rpartition("/")[2]] += recordings
        return found

    def find(self, given: str) -> list[str]:
        """Recordings that may be meant: none, one, or several when the name is ambiguous.

        Either slash will do; so will a bare name, or a path that leads to the audio folder
        from elsewhere.  Upper and lower case, the form of accents and blanks around a name matter
        only to tell two recordings apart.  Where none has it, an apostrophe goes that keeps a name
        from being a formula.
        """
        plain = unescaped(given)
        return self._find(given) or (self._find(plain) if plain != given else [])

    def _find(self, given: str) -> list[str]:
        if given in self._exact:
            return [given]
        path = _comparable(given)
        names = self._by_path.get(path) or self._elsewhere(path)
        if len(names) < 2:
            return names
        plain = f"/{_with_slashes(given)}"
        ends = [(name, f"/{_with_slashes(name)}") for name in names]
        return [n for n, end in ends if plain.endswith(end) or end.endswith(plain)] or names

    def _elsewhere(self, path: str) -> list[str]:
        """Recordings that a bare name, or a path from outside of the audio folder, leads to."""
        folder, _, name = path.rpartition("/")
        same_name = self._by_name.get(name, [])
        if not folder:
            return same_name
        tails = [other for other in same_name if path.endswith("/" + _comparable(other))]
        deepest = max((other.count("/") for other in tails), default=0)
        return [other for other in tails if other.count("/") == deepest]


def _with_slashes(path: str) -> str:
    return path.replace("\\", "/").removeprefix("./")


def folder_above(given: str, recording: str) -> str:
    """What a path from outside of the audio folder has before a recording; else empty."""
    if given == recording:  # as most are
        return ""
    path, inside = _comparable(given), _comparable(recording)
    return path.removesuffix(f"/{inside}") if path.endswith(f"/{inside}") else ""


def folded(name: str) -> str:
    """A name without what does not tell two apart: case, and the form of accents."""
    # macOS writes decomposed accents into file names, spreadsheets composed ones.
    return unicodedata.normalize("NFC", name).casefold()


def _comparable(path: str) -> str:
    # Tables are read without the blanks around their cells, and hold no tabs and new lines.
    parts = folded(_with_slashes(path)).split("/")
    return "/".join(" ".join(part.split()) for part in parts)


class UnknownRecordingError(AnnotationsError):
    """By its name, a table belongs to no recording."""


class TableNames:
    """Finds the recordings that a table is about.

    Parameters
    ----------
    recordings : sequence of str
        Posix paths relative to the audio folder.
    names : RecordingNames
        The same, to be searched.
    table : PurePosixPath
        Relative to the folder that was searched for tables.
    """

    def __init__(
        self, recordings: Sequence[str], names: RecordingNames, table: PurePosixPath
    ) -> None:
        self._recordings, self._names, self._table = recordings, names, table

    def by_table_name(self) -> str:
        """Recording whose name is the longest that the table's name starts with.

        Raises
        ------
        UnknownRecordingError
            If there is none.
        AnnotationsError
            If several are equally likely.
        """
        shared = {name: self._shared_length(PurePosixPath(name)) for name in self._recordings}
        longest = max(shared.values(), default=0)
        candidates = [name for name, length in shared.items() if length == longest > 0]
        beside = [n for n in candidates if PurePosixPath(n).parent == self._table.parent]
        candidates = beside or candidates
        spelt = [n for n in candidates if self._table.name.startswith(PurePosixPath(n).stem)]
        candidates = spelt or candidates
        if len(candidates) == 1:
            return candidates[0]
        which = (
            f"could belong to {' or '.join(candidates[:3])}"
            if candidates
            else "belongs to no recording"
        )
        error = AnnotationsError if candidates else UnknownRecordingError
        raise error(
            f"{self._table}: by its name, this table {which}; expected the name of a recording, "
            f"such as recording.wav, and then anything after a dot or underscore."
        )

    def by_columns(self, table: pd.DataFrame, columns: Sequence[str]) -> list[str]:
        """What each row calls its recording: the first column that leads to one, else the last.

        All rows belong to the recording with the table's name where it has none of the columns.
        """
        present = [name for name in columns if name in table.columns]
        if not present:
            return [self.by_table_name()] * len(table)
        chosen: dict[tuple[str, ...], str] = {}
        rows = [tuple(map(str.strip, row)) for row in table[present].to_numpy().tolist()]
        for row in set(rows):
            given = [name for name in row if name]
            known = (name for name in given if self._names.find(name))
            chosen[row] = next(known, given[-1] if given else "")
        return [chosen[row] for row in rows]

    def _shared_length(self, recording: PurePosixPath) -> int:
        """Length of the recording's name, or of its stem, if the table's name starts with it."""
        name = folded(self._table.name)
        for start in (folded(recording.name), folded(recording.stem)):
            if name.startswith(start) and name[len(start) : len(start) + 1] in {"", ".", "_", "~"}:
                return len(start)
        return 0
