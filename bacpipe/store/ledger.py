"""The journal of a run that is writing, and whose results each file holds.

A line of the journal vouches for files.  Before such a file is written anew, for the same
recording or for another one that has come to bear its name, the line is taken back: a run that
is killed between the file and its new line must not leave a line that vouches for a file which
is not its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bacpipe.store.journal import Journal
from bacpipe.store.lines import Lines


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
