"""The last line of each recording of a journal, packed: a third of a kilobyte for each.

A line as JSON gives it, a dictionary with two others in it, takes two kilobytes, and every one of
them is looked at whenever Python collects garbage.  Lines of recordings that are done differ only
in numbers, hashes and names, so what they have in common is kept once (their `_Shape`), and the
rest as bytes.  Whoever asks for a line gets a dictionary of its own that equals the one that was
stored.
"""

from __future__ import annotations

import binascii
import hashlib
import json
import math
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from functools import lru_cache
from itertools import pairwise
from operator import itemgetter
from typing import Any, TypeGuard

_PARTS = ("embeddings", "predictions")
_NUMBERS = {"duration": float} | dict.fromkeys(
    ("size", "mtime_ns", "windows", "padded", "bytes"), int
)
_SCALARS = frozenset({str, int, float, bool, type(None)})

_NO_SHAPE = 0xFFFF  # JSON text follows
_MOST_SHAPES = 4096


class Lines(MutableMapping[str, dict[str, Any]]):
    """A journal's last line of each recording, by its name.

    Parameters
    ----------
    lines : mapping, optional
        To begin with.

    Attributes
    ----------
    version : int
        Grows with every change.

    Examples
    --------
    >>> lines = Lines({"a.wav": {"file": "a.wav", "status": "failed", "reason": "empty"}})
    >>> lines["a.wav"]["reason"], lines.status("a.wav")
    ('empty', 'failed')
    """

    def __init__(self, lines: Mapping[str, dict[str, Any]] | None = None) -> None:
        self.version = 0
        self._packed: dict[str, bytes] = {}
        self._shapes: list[_Shape] = []
        self._numbers: dict[tuple[Any, ...], int] = {}
        self.update(lines or {})

    def __getitem__(self, name: str) -> dict[str, Any]:
        data = self._packed[name]
        number = data[0] | data[1] << 8
        if number == _NO_SHAPE:
            line: dict[str, Any] = json.loads(data[2:])
            return line
        return self._shapes[number].unpack(name, data)

    def __setitem__(self, name: str, line: dict[str, Any]) -> None:
        self._packed[name] = self._pack(name, line) or b"\xff\xff" + json.dumps(line).encode()
        self.version += 1

    def __delitem__(self, name: str) -> None:
        del self._packed[name]
        self.version += 1

    def __iter__(self) -> Iterator[str]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)

    def __contains__(self, name: object) -> bool:
        return name in self._packed

    def status(self, name: str) -> Any:
        """Status of a recording that is there."""
        data = self._packed[name]
        number = data[0] | data[1] << 8
        return self[name]["status"] if number == _NO_SHAPE else self._shapes[number].status

    def with_status(self, status: str) -> Iterator[str]:
        """Names of the recordings of a status, in the order of the journal."""
        return (name for name in self._packed if self.status(name) == status)

    def _pack(self, name: str, line: dict[str, Any]) -> bytes | None:
        """Bytes of a line; None if it is unlike those of recordings that are done."""
        contents: tuple[dict[str, Any], ...]
        stored, predicted = line.get("embeddings"), line.get("predictions")
        if type(stored) is not dict or line.get("file") != name or "status" not in line:
            return None
        contents, values = (line, stored), [*line.values(), *stored.values()]
        if type(predicted) is dict:
            contents, values = (line, stored, predicted), [*values, *predicted.values()]
        layout = _layout(tuple(map(tuple, contents)))
        stem = _stem(name)
        try:
            tails = tuple([_tail(stem, values[place]) for place in layout.paths])
            constants = layout.constants(values)
            # Of equal numbers, 1, 1.0 and true, one must not come back as another.
            key = (layout, tails, constants, tuple(map(type, constants)))
            number = self._numbers.get(key)
            if number is None:
                if len(self._shapes) == _MOST_SHAPES or not _SCALARS.issuperset(key[-1]):
                    return None
                number = len(self._shapes)
                self._shapes.append(_Shape(layout, tails, contents))
                self._numbers[key] = number
            return layout.pack(number, values)
        except (ValueError, TypeError, AttributeError, struct.error):
            return None


class _Layout:
    """Keys of a line, and how what differs from line to line becomes bytes.

    What it is given is the list of all values: those of the line, then those of the dictionaries
    in it.

    Parameters
    ----------
    keys : tuple of tuple of str
        Those of the line, of its embeddings and, if it has some, of its predictions.
    """

    def __init__(self, keys: tuple[tuple[str, ...], ...]) -> None:
        self.keys = keys
        places = [(part, key) for part, inner in enumerate(keys) for key in inner]
        self.paths = [i for i, (part, key) in enumerate(places) if part and key == "path"]
        hashes = [i for i, (part, key) in enumerate(places) if part and key == "sha256"]
        numbers = [i for i, (_, key) in enumerate(places) if key in _NUMBERS]
        apart = {(0, "file"), *((0, part) for part in _PARTS[: len(keys) - 1])}
        apart |= {places[i] for i in (*self.paths, *hashes, *numbers)}
        self.constants = _getter([i for i, place in enumerate(places) if place not in apart])
        self._numbers, self._hashes = _getter(numbers), _getter(hashes)
        self._kinds = tuple(_NUMBERS[places[i][1]] for i in numbers)
        self._lengths = (64,) * len(hashes)
        codes = "".join("d" if kind is float else "q" for kind in self._kinds)
        self.form = struct.Struct(f"<H{codes}{'32s' * len(hashes)}")

    def pack(self, number: int, values: Sequence[Any]) -> bytes:
        """Bytes of what differs from line to line.

        Raises
        ------
        ValueError, TypeError, struct.error
            If a value is not of the kind that its key says.
        """
        numbers, texts = self._numbers(values), self._hashes(values)
        hashes = tuple(map(binascii.unhexlify, texts))
        if (
            tuple(map(type, numbers)) != self._kinds
            or tuple(map(len, texts)) != self._lengths
            or tuple(map(bytes.hex, hashes)) != texts
        ):
            raise ValueError("a value is of another kind")
        return self.form.pack(number, *numbers, *hashes)


def _getter(places: Sequence[int]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    """What picks the values in some places."""
    if len(places) > 1:
        return itemgetter(*places)
    return lambda values: tuple([values[place] for place in places])


# Layouts know nothing of any data set.
_layout = lru_cache(maxsize=256)(_Layout)


class _Shape:
    """What lines have in common.

    Parameters
    ----------
    layout : _Layout
        Their keys.
    tails : tuple
        What `_tail` says of the paths.
    contents : sequence of dict
        One of the lines, and the dictionaries in it.
    """

    def __init__(
        self, layout: _Layout, tails: Sequence[_Tail], contents: Sequence[dict[str, Any]]
    ) -> None:
        self._form, self._line = layout.form, dict(contents[0])
        self._numbers = [key for key in layout.keys[0] if key in _NUMBERS]
        self._parts = []
        left = iter(tails)
        for name, content in zip(_PARTS, contents[1:], strict=False):
            numbers = [key for key in content if key in _NUMBERS]
            tail = next(left) if "path" in content else None
            self._parts.append((name, dict(content), numbers, tail))
        self.status = self._line["status"]

    def unpack(self, name: str, data: bytes) -> dict[str, Any]:
        """The line of a recording."""
        left = iter(self._form.unpack(data))
        next(left)  # the number of this shape
        stem, line = _stem(name), self._line.copy()
        line["file"] = name
        line.update(zip(self._numbers, left, strict=False))
        for part, template, numbers, tail in self._parts:
            line[part] = content = template.copy()
            content.update(zip(numbers, left, strict=False))
            if tail is not None:
                content["path"] = stem + tail[0] if tail[1] else tail[0]
        for part, template, _, _ in self._parts:
            if "sha256" in template:
                line[part]["sha256"] = next(left).hex()
        return line


_Tail = tuple[Any, bool]
"""What follows a recording's name without its suffix in a path, and whether that comes first."""


def _tail(stem: str, path: Any) -> _Tail:
    if path is not None and path.startswith(stem):
        return path[len(stem) :], True
    return path, False


def _stem(name: str) -> str:
    dot = name.rfind(".")
    return name if dot < 0 else name[:dot]


class DoneLines(Mapping[str, dict[str, Any]]):
    """Lines of the recordings that are done, in a certain order.

    Parameters
    ----------
    lines : Lines
        All lines.
    names : sequence of str
        The recordings that are done.
    """

    def __init__(self, lines: Lines, names: Sequence[str]) -> None:
        self._lines, self._names = lines, names

    def sorted(self) -> DoneLines:
        """The same, in the order of the recordings' names."""
        return DoneLines(self._lines, sorted(self._names))

    def where(self, holds: Callable[[dict[str, Any]], bool]) -> DoneLines:
        """Those of which something holds, in the same order."""
        return DoneLines(self._lines, [name for name in self if holds(self._lines[name])])

    def __getitem__(self, name: str) -> dict[str, Any]:
        if name not in self:
            raise KeyError(name)
        return self._lines[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._lines and self._lines.status(str(name)) == "done"


# FOLDED bacpipe/store/records.py: What the lines of a journal must hold before anybody relies on them.
#
#   A journal may come from another machine, from a damaged disk or from somebody who wishes us
#   ill.  Lines that pass here can be read without further questions, except that the files that
#   they name must lie inside their folder (`bacpipe.store.layout.path_inside`).


def is_header(line: Mapping[str, Any]) -> bool:
    """Whether the first line of a journal is one that we wrote."""
    identity, provenance = line.get("identity"), line.get("provenance", {})
    return (
        "old_metadata" not in line  # which stands for a journal where there is none
        and isinstance(identity, dict)
        and isinstance(provenance, dict)
        # Embeddings that were computed elsewhere have neither rate nor window.
        and all(_is_count(identity.get(key, 1), least=1) for key in ("sample_rate", "window"))
        and (identity.get("hop") is None or _is_size(identity["hop"]))
        and _is_size(identity.get("speed", 1))
    )


def is_record(line: Mapping[str, Any]) -> bool:
    """Whether the line of a recording is complete and does not contradict itself."""
    if not (_is_name(line.get("file")) and isinstance(line.get("status"), str)):
        return False
    if line["status"] not in {"done", "removed"}:
        return True
    windows = line.get("windows")
    return (
        _is_count(windows)
        and _is_number(line.get("duration"))
        and _is_count(line.get("padded", 0))
        and _are_embeddings(line.get("embeddings"), windows, adopted=bool(line.get("adopted")))
        and _are_predictions(line.get("predictions"))
        and _are_segments(line.get("segments"), windows)
        and (
            bool(line.get("adopted"))
            or (isinstance(line.get("size"), int) and isinstance(line.get("mtime_ns"), int))
        )
    )


def _are_embeddings(stored: Any, windows: int, *, adopted: bool) -> bool:
    if not (isinstance(stored, dict) and _is_name(stored.get("path"))):
        return False
    size, dim = stored.get("bytes"), stored.get("dim")
    if not (_is_count(size) and _is_count(dim)):
        return False
    # Older versions wrote other types of numbers.
    least = windows if adopted else 4 * windows * dim
    return size >= least and isinstance(stored.get("sha256", ""), str)


def _are_predictions(stored: Any) -> bool:
    if stored is None:
        return True
    return (
        isinstance(stored, dict)
        and "path" in stored
        and (stored["path"] is None or _is_name(stored["path"]))
        and _is_count(stored.get("bytes"))
    )


def _are_segments(segments: Any, windows: int) -> bool:
    if segments is None:
        return True
    return (
        isinstance(segments, list)
        and all(
            isinstance(segment, list)
            and len(segment) == 3
            and _is_number(segment[0])
            and _is_number(segment[1])
            and _is_count(segment[2])
            for segment in segments
        )
        and sum(count for _, _, count in segments) == windows
    )


def _is_name(value: Any) -> bool:
    if not isinstance(value, str) or not value or "\0" in value:
        return False
    if value.isascii():
        return True
    try:
        value.encode(errors="surrogateescape")  # file names need not be valid text
    except UnicodeEncodeError:
        return False
    return True


def _is_count(value: Any, least: int = 0) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**53


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and 0 <= value < 2**53
        and math.isfinite(value)
    )


def _is_size(value: Any) -> bool:
    return _is_number(value) and 1e-9 < value < 1e9


# FOLDED bacpipe/store/states.py: Hashes of everything that the journal says is done, by which later results know their inputs.
#
#   They are computed line by line: as one text, a data set takes hundreds of megabytes.


def embeddings_state(done: Mapping[str, Mapping[str, Any]]) -> str:
    """Hash of all embeddings.

    Parameters
    ----------
    done : mapping of str to mapping
        The journal's lines of recordings that are done.
    """
    names = sorted(done)
    texts: Iterable[str] = (_text(name, done[name]) for name in names)
    if any(_is_followed_out_of_order(*pair) for pair in pairwise(names)):
        texts = sorted(texts)
    digest = hashlib.sha256()
    for number, text in enumerate(texts):
        digest.update(("\n" + text if number else text).encode(errors="surrogatepass"))
    return digest.hexdigest()


def _text(name: str, line: Mapping[str, Any]) -> str:
    sha256 = (line.get("embeddings") or {}).get("sha256")
    return f"{name} {line['windows']} {line.get('duration')} {sha256}"


def _is_followed_out_of_order(name: str, following: str) -> bool:
    """Whether two names may change places when a space and more is added to both."""
    return following.startswith(name) and following[len(name)] <= " "


def predictions_state(folder: str, done: Mapping[str, Mapping[str, Any]]) -> str:
    """Hash of all predictions.

    Parameters
    ----------
    folder : str
        Name of the folder of the embeddings.
    done : mapping of str to mapping
        The journal's lines of recordings that are done.
    """
    digest = hashlib.sha256(f"[{json.dumps(folder)}, [".encode())
    separator = ""
    for name in sorted(done):
        line = done[name]
        if line.get("predictions"):
            sha256 = line["embeddings"].get("sha256")
            content = [name, line["windows"], sha256, line["predictions"]]
            digest.update((separator + json.dumps(content, sort_keys=True)).encode())
            separator = ", "
    digest.update(b"]]")
    return digest.hexdigest()
