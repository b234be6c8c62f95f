"""The last line of each recording of a journal, packed: a third of a kilobyte for each.

A line as JSON gives it, a dictionary with two others in it, takes two kilobytes, and every one of
them is looked at whenever Python collects garbage.  Lines of recordings that are done differ only
in numbers, hashes and names, so what they have in common is kept once (their `_Shape`), and the
rest as bytes.  Whoever asks for a line gets a dictionary of its own that equals the one that was
stored.
"""

from __future__ import annotations

import binascii
import json
import struct
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any

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
