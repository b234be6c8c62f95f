"""Which recordings are meant: by a folder, a recording, a glob, a table of files, or several.

What ``audio_dir`` may name besides a folder comes down to a folder, whose results these are, and a
selection of its recordings; ``recordings`` is such a selection.  Which words of a selection lead to
no recording is told, each with a reason, like other failures.
"""

from __future__ import annotations

import csv
import difflib
import ntpath
import os
import re
import reprlib
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePath
from typing import NamedTuple

from bacpipe.annotations.cells import decode, find_separator, listed, read_rows
from bacpipe.audio.files import AUDIO_SUFFIXES
from bacpipe.audio.remote import as_path, url_of
from bacpipe.errors import AnnotationsError, NoRecordingsError, SettingsError, counted
from bacpipe.user_input import typed_path

AudioDir = str | PurePath | Sequence[str | PurePath]
"""A folder with recordings, or what else ``audio_dir`` may name."""

TABLES = (".csv", ".tsv", ".txt")
"""Suffixes of tables of files."""

_LONGEST_PATH = 32_767
"""Characters that a path may have on any system (Windows allows the most)."""

_COLUMNS = (
    "audiofilename", "recording", "recordings", "file", "files", "filename", "path", "filepath",
    "file_path", "relative_path", "audio", "audiofile", "wavfile", "beginpath", "beginfile",
    "fname", "name",
)  # fmt: skip
_MAGIC = re.compile(r"[*?\[]")


class Place(NamedTuple):
    """What ``audio_dir`` names.

    Attributes
    ----------
    folder : Path
        The data set: its path tells where results are.
    recordings : tuple of str, or None
        Selection of its recordings, as absolute paths and globs; None for all.
    """

    folder: Path
    recordings: tuple[str, ...] | None = None


class Selection(NamedTuple):
    """Recordings that were chosen.

    Attributes
    ----------
    names : list of str
        Posix paths relative to the folder of the data set, sorted.
    missing : list of (str, str)
        Words that lead to no recording, each with a sentence that says why.
    """

    names: list[str]
    missing: list[tuple[str, str]]


def data_set_of(audio_dir: AudioDir) -> Place:
    """Folder of the data set, and which of its recordings are meant.

    Parameters
    ----------
    audio_dir : path, or sequence of paths
        A folder stands for itself.  A recording and a glob stand for the folder above, that of a
        glob being what precedes its first wildcard.  A table of files (CSV) stands for its own
        folder if they all lie in it.  Otherwise, what was named lies in one common folder.

    Raises
    ------
    SettingsError
        If the common folder would be the root of the file system, or there is none.
    NoRecordingsError
        If nothing of what was named exists.
    """
    if audio_dir is None:
        raise SettingsError("audio_dir is missing; expected the folder with the recordings.")
    words: list[str | PurePath] = [audio_dir] if isinstance(audio_dir, str | PurePath) else []
    if not words and isinstance(audio_dir, Iterable):
        words = list(audio_dir)
    if not words or not all(isinstance(word, str | PurePath) for word in words):
        given: object = audio_dir  # no path
        raise SettingsError(
            f"audio_dir={given!r} is not possible; expected a folder, or a list of paths."
        )
    if remote := [path for word in words if url_of(path := as_path(word)) is not None]:
        return _remote_place(remote, len(words), "audio_dir")
    if len(words) == 1:
        path = typed_path(str(words[0]))
        if os.path.isdir(path) or not (os.path.isfile(path) or _is_glob(path)):  # noqa: PTH112, PTH113
            return Place(path)
        if path.suffix.lower() in TABLES:
            return _place_of_table(path)
    folders, meant = [], []
    for word in words:
        path = typed_path(str(word))
        if os.path.isfile(path) and path.suffix.lower() in TABLES:  # noqa: PTH113
            place = _place_of_table(path)
            folders.append(os.path.abspath(place.folder))  # noqa: PTH100 - a link stays one
            meant += list(place.recordings or ())
            continue
        full = os.path.abspath(path)  # noqa: PTH100
        meant.append(full)
        if os.path.isdir(path):  # noqa: PTH112 - Path's own raises an error for impossible names
            folders.append(full)
        elif os.path.isfile(path):  # noqa: PTH113
            folders.append(os.path.dirname(full))  # noqa: PTH120
        elif _is_glob(path):
            folders.append(_above_wildcards(full))
    if not folders:
        raise NoRecordingsError(
            f"audio_dir: of {counted(len(words), 'path')}, none exists "
            f"({listed(_shown(str(word)) for word in words)})."
        )
    root = _common(folders, "audio_dir")
    if str(root) in meant and all(map(os.path.exists, meant)):
        return Place(root)
    return Place(root, tuple(dict.fromkeys(meant)))


def _remote_place(paths: Sequence[Path], words: int, source: str) -> Place:
    """What URLs name: a folder, recordings, and what is below globs."""
    if len(paths) < words:
        raise SettingsError(
            f"{source}: names {url_of(paths[0])} and what lies on this computer; expected one or "
            f"the other, so run them one after the other."
        )
    meant = [path.as_posix() for path in paths]
    folders = []
    for path, text in zip(paths, meant, strict=True):
        is_recording = path.suffix.lower() in AUDIO_SUFFIXES
        folder = path.parent.as_posix() if is_recording else text
        folders.append(_above_wildcards(text) if _is_glob(path) else folder)
    root = _common(folders, source)
    if url_of(root) is None:
        raise SettingsError(
            f"{source}: {listed(map(str, map(url_of, paths)), 3)} have no folder in common; run "
            f"them one after the other, with the same main_results_dir."
        )
    return Place(root, None if root.as_posix() in meant else tuple(dict.fromkeys(meant)))


def _place_of_table(path: Path) -> Place:
    """A table's own folder if all its files lie there, or what they have in common."""
    words = read_list(path)
    if remote := [word for word in map(as_path, words) if url_of(word) is not None]:
        return _remote_place(remote, len(words), str(path))
    beside = os.path.abspath(path.parent)  # noqa: PTH100
    meant, folders = [], []
    for word in words:
        plain = os.path.expanduser(word)  # noqa: PTH111
        forms = [os.path.join(beside, plain), os.path.abspath(plain)]  # noqa: PTH100, PTH118
        forms += [form.replace("\\", "/") for form in forms if os.sep == "/"]
        full = os.path.normpath(next(filter(os.path.exists, forms), forms[0]))
        meant.append(full)
        if os.path.exists(full):  # noqa: PTH110
            folders.append(os.path.dirname(full))  # noqa: PTH120
    if not folders:
        raise NoRecordingsError(
            f"{path}: of {counted(len(meant), 'file')} that it names, none exists "
            f"({listed(map(_shown, meant), 3)}); expected absolute paths, or such as are relative "
            f"to {beside}."
        )
    inside = all(Path(folder).is_relative_to(beside) for folder in folders)
    root = Path(beside) if inside else _common(folders, str(path))
    return Place(root, tuple(dict.fromkeys(meant)))


def _common(folders: Sequence[str], source: str) -> Path:
    with suppress(ValueError):  # drives of Windows
        root = Path(os.path.commonpath(folders))
        if root != Path(root.anchor) or str(root) in folders:
            return root
    raise SettingsError(
        f"{source}: {listed(dict.fromkeys(folders), 3)} have no folder in common that could be a "
        f"data set; run them one after the other, with the same main_results_dir."
    )


def _is_glob(path: Path) -> bool:
    return _MAGIC.search(str(path)) is not None


def _above_wildcards(pattern: str) -> str:
    """Folder that a glob is searched in."""
    parts = Path(pattern).parts
    plain = next(i for i, part in enumerate(parts) if _MAGIC.search(part))
    return str(Path(*parts[:plain]))


def read_list(path: Path) -> list[str]:
    """Files that a table names: the column that is called so, or every line of a single column.

    Parameters
    ----------
    path : Path
        Text in UTF-8, or UTF-16 with its mark; columns are separated by commas, semicolons or
        tabs.  A ``.txt`` has a name in every line, which may hold any of these.

    Raises
    ------
    NoRecordingsError
        If it cannot be read, or names nothing.
    """
    try:
        text = decode(
            path, missing="there is no such table of files.", advice="save it as 'CSV UTF-8'."
        )
        if path.suffix.lower() == ".txt":
            rows = [[line] for line in text.split("\n")]
        else:
            head = next((line for line in text.split("\n") if line.strip()), "")
            rows = [row for _, row in read_rows(text, path.name, find_separator(head, _COLUMNS))]
    except AnnotationsError as error:
        raise NoRecordingsError(str(error)) from None
    except csv.Error as error:
        raise NoRecordingsError(f"{path}: is no table of files ({error}).") from None
    rows = [
        [cell.strip().strip("\ufeff") for cell in row] for row in rows if any(map(str.strip, row))
    ]
    heads = [cell.lower() for cell in rows[0]] if rows else []
    column = next((heads.index(name) for name in _COLUMNS if name in heads), None)
    if column is None and len(heads) > 1 and any(rows[0][1:]):
        raise NoRecordingsError(
            f"{path}: has the columns {listed(rows[0])}; expected one that is called "
            f"audiofilename, or a single column."
        )
    if column is not None:
        rows = rows[1:]
    names = [row[column or 0] for row in rows if len(row) > (column or 0) and row[column or 0]]
    if not names:
        raise NoRecordingsError(f"{path}: this table of files is empty; expected a file per line.")
    # Not left to the csv module's own limit, which other libraries lift for the whole process.
    if max(map(len, names)) > _LONGEST_PATH:
        raise NoRecordingsError(
            f"{path}: is no table of files (a name in it has over {_LONGEST_PATH} characters)."
        )
    return list(dict.fromkeys(names))


def choose(wanted: Sequence[str], recordings: Sequence[str], folder: Path) -> Selection:
    """Find the recordings that a selection means.

    Parameters
    ----------
    wanted : sequence of str
        Paths of recordings and folders, relative to `folder` or absolute; globs, of which those
        without a slash go for the name of a recording or folder at any depth; and tables of
        these, which lie in the working folder or in `folder`.
    recordings : sequence of str
        All recordings: posix paths relative to `folder`.
    folder : Path
        Of the data set.

    Raises
    ------
    NoRecordingsError
        If nothing leads to any recording, or a table cannot be read.
    """
    finder = _Finder(recordings, folder)
    chosen: set[str] = set()
    missing: list[tuple[str, str]] = []
    for word in _words(wanted, folder):
        try:
            chosen.update(finder.find(word))
        except LookupError as error:
            missing.append((word, f"{_shown(word)}: {error.args[0]}"))
    if not chosen:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise NoRecordingsError(f"recordings: nothing is chosen of {folder}; {missing[0][1]}{more}")
    return Selection(sorted(chosen), missing)


def _words(wanted: Sequence[str], folder: Path) -> Iterator[str]:
    for word in wanted:
        path = typed_path(word)
        if path.suffix.lower() not in TABLES:
            yield word
            continue
        file = next(filter(os.path.isfile, (path, folder / path)), path)
        yield from read_list(file)


class _Finder:
    """Finds recordings by a word of a selection; LookupError says why there is none."""

    def __init__(self, recordings: Sequence[str], folder: Path) -> None:
        self._names = frozenset(recordings)
        self._folder = folder
        self._root = os.path.abspath(folder)  # noqa: PTH100
        self._folders = {above for name in recordings for above in _with_folders(_parent(name))}
        self._alike: dict[str, list[str]] = defaultdict(list)

    def find(self, word: str) -> list[str]:
        if "\0" in word:
            raise LookupError("no path has a null byte.")
        path = os.fspath(typed_path(as_path(word)))
        anchored = os.path.isabs(path)  # noqa: PTH117
        if not anchored and path in self._names:
            return [path]
        name = self._inside(path) if anchored else _plain(path)
        names = self._exact(name) or self._exact(_plain(name.replace("\\", "/")))
        if not names and not anchored:
            names = self._from_here(path)
        names = names or self._by_look(_plain(name.replace("\\", "/")))
        if not names and _MAGIC.search(name):
            return self._by_pattern(name, anchored=anchored)
        if not names:
            raise LookupError(self._why_not(path, name))
        return names

    def _exact(self, name: str) -> list[str]:
        """The recording of a name, or all in the folder of that name."""
        if name in self._names:
            return [name]
        if name == ".":
            return list(self._names)
        if name not in self._folders:
            return []
        return [other for other in self._names if other.startswith(f"{name}/")]

    def _inside(self, path: str) -> str:
        """Path relative to the data set; links are followed if it leads there only by them."""
        for full, root in (
            (os.path.normpath(path), self._root),
            (os.path.realpath(path), os.path.realpath(self._root)),
        ):
            try:
                return PurePath(full).relative_to(root).as_posix()
            except ValueError:
                continue
        raise LookupError(f"lies outside of audio_dir, {self._folder}.")

    def _from_here(self, path: str) -> list[str]:
        """What a path relative to the working folder means, or one that leads through a link."""
        for full in (os.path.abspath(path), os.path.join(self._root, path)):  # noqa: PTH100, PTH118
            if os.path.exists(full):  # noqa: PTH110
                try:
                    name = self._inside(full)
                    names = self._exact(name) or self._exact(self._inside(os.path.realpath(full)))
                except LookupError:
                    continue
                if names:
                    return names
        return []

    def _by_pattern(self, pattern: str, *, anchored: bool) -> list[str]:
        anywhere = "/" not in pattern and not anchored
        regex = re.compile(("(.*/)?" if anywhere else "") + _translated(pattern), re.IGNORECASE)
        matches = [
            name
            for name in self._names
            if any(regex.fullmatch(part) for part in _with_folders(name))
        ]
        if not matches:
            raise LookupError("no recording in audio_dir matches this pattern.")
        return matches

    def _by_look(self, name: str) -> list[str]:
        """Names that differ in case or in how accents are written; a bare one in any folder."""
        if not self._alike:
            for other in self._names:
                look = _look(other)
                self._alike[look].append(other)
                if "/" in look:
                    self._alike[look.rpartition("/")[2]].append(other)
        names = self._alike.get(_look(name), [])
        if len(names) > 1:
            raise LookupError(
                f"may be any of {counted(len(names), 'recording')} ({listed(sorted(names), 3)}); "
                f"expected a path relative to audio_dir."
            )
        return names

    def _why_not(self, path: str, name: str) -> str:
        if ntpath.splitdrive(path)[0] and os.sep == "/":
            return (
                "is a path of another computer; expected one relative to audio_dir"
                + self._closest(ntpath.basename(path))
            )
        if name.startswith(".."):
            return f"lies outside of audio_dir, {self._folder}."
        if any(part.startswith(".") for part in name.split("/")):
            return "is hidden, by a name that begins with a dot, so it is left out."
        full = os.path.join(self._root, name)  # noqa: PTH118
        if os.path.isdir(full):  # noqa: PTH112
            return "there are no recordings in this folder."
        if os.path.exists(full):  # noqa: PTH110
            return "is there, but no recording by its suffix; see audio_suffixes."
        return "there is no such recording in audio_dir" + self._closest(name)

    def _closest(self, name: str) -> str:
        bare = _look(name).rpartition("/")[2]
        close = difflib.get_close_matches(bare, {k for k in self._alike if "/" not in k}, n=1)
        return f"; did you mean {self._alike[close[0]][0]}?" if close else "."


def _plain(path: str) -> str:
    """Posix path without ``./`` and ``..``."""
    return PurePath(os.path.normpath(path)).as_posix()


def _with_folders(name: str) -> Iterator[str]:
    """A recording's name, and those of the folders that it lies in."""
    while name:
        yield name
        name = _parent(name)


def _parent(name: str) -> str:
    return name.rpartition("/")[0]


def _shown(word: str) -> str:
    return word if word.isprintable() and len(word) < 300 else reprlib.repr(word)


def _look(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _translated(pattern: str) -> str:
    """Regular expression of a glob: ``*`` and ``?`` stay in a folder, ``**`` goes through many."""
    parts = []
    for piece in re.split(r"(\*\*/|\*\*|\*|\?|\[[!^]?\]?[^]]*\])", pattern):
        if piece == "**/":
            parts.append("(?:.*/)?")
        elif piece == "**":
            parts.append(".*")
        elif piece == "*":
            parts.append("[^/]*")
        elif piece == "?":
            parts.append("[^/]")
        elif len(piece) > 2 and piece[0] == "[" and piece[-1] == "]":
            inner = piece[1:-1].replace("\\", "\\\\").replace("[", "\\[")
            parts.append(f"[{'^' + inner[1:] if inner[0] in '!^' else inner}]")
        else:
            parts.append(re.escape(piece))
    return "(?s:" + "".join(parts) + ")"
