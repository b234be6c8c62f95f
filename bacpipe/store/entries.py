"""Entries of the journal: what is known of each recording, as typed values.

A journal may come from another machine, from a damaged disk or from somebody who wishes us ill.
`read_entry` makes an entry of a line only if nothing in it contradicts itself, so whoever has an
entry can rely on it, except that the files that it names must lie inside their folder
(`bacpipe.store.layout.path_inside`).  Here, and nowhere else, the keys of a line are spelt.

`Entries` holds the last entry of each of many recordings in a fifth of a kilobyte each, beside its
name; who asks for one gets an equal entry of its own.  Entries are values: they are replaced, never
changed (that they are not frozen halves the time that reading a journal takes).
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple, TypedDict, TypeGuard

import numpy as np

from bacpipe.audio.fingerprint import BYTES

DONE = "done"
REMOVED = "removed"
DAMAGED = "damaged"
FAILED = "failed"
REPLACED = "replaced"
DISCARDED = "discarded"
EXPECTED = "expected"  # worked out before any run; in no journal


@dataclass(slots=True)
class StoredEmbeddings:
    """A file of embeddings.

    Attributes
    ----------
    path : str
        Posix path relative to the folder of the set.
    bytes : int
        Size of the file.
    dim : int
        Values of an embedding; 0 if that is not known.
    sha256 : str or None
        Hash of the float32 rows, without the file's header; None for what older versions wrote.
    """

    path: str
    bytes: int
    dim: int
    sha256: str | None = None

    def as_json(self) -> dict[str, object]:
        """What the line says of it."""
        digest = {} if self.sha256 is None else {"sha256": self.sha256}
        return {"path": self.path, "bytes": self.bytes, **digest, "dim": self.dim}


class _Always(TypedDict):
    threshold: float | None
    top: int | None


class PredictionSettings(_Always, total=False):
    """Settings that change predictions, but not embeddings, as provenance names them.

    Attributes
    ----------
    threshold : float or None
        Lowest score that is kept; None if the journal does not say.
    top : int or None
        Most predictions of a window.
    sensitivity : float
        Shift of the scores; absent for the model's own.
    """

    sensitivity: float


def settings_with(
    threshold: float | None, top: int | None, sensitivity: float = 1.0
) -> PredictionSettings:
    """Settings of predictions, of which the journal names a sensitivity only if there is one."""
    settings: PredictionSettings = {"threshold": threshold, "top": top}
    if sensitivity != 1:
        settings["sensitivity"] = sensitivity
    return settings


@dataclass(slots=True)
class StoredPredictions:
    """A file of predictions, and how they were made.

    Attributes
    ----------
    path : str or None
        Posix path relative to the folder of predictions; None if nothing was found, so that
        there is no file.
    bytes : int
        Size of the file.
    sha256 : str or None
        Hash of the file; None without a file.
    threshold, top, sensitivity
        As in `PredictionSettings`; a sensitivity of 1 are the model's own scores.
    """

    path: str | None
    bytes: int
    sha256: str | None
    threshold: float | None
    top: int | None
    sensitivity: float = 1.0

    def as_json(self) -> dict[str, object]:
        """What the line says of it."""
        digest = {} if self.sha256 is None else {"sha256": self.sha256}
        return {"path": self.path, "bytes": self.bytes, **digest, **self.settings}

    @property
    def settings(self) -> PredictionSettings:
        """How the predictions were made."""
        return settings_with(self.threshold, self.top, self.sensitivity)


@dataclass(slots=True)
class Entry:
    """What the journal says of a recording.

    Attributes
    ----------
    file : str
        The recording: posix path relative to the audio folder.
    status : str
        'done', 'failed'; 'removed' (the recording is gone, its results are kept); 'damaged' (to
        be computed again); 'replaced' or 'discarded' (its results are no more).
    """

    file: str
    status: str

    def as_json(self) -> dict[str, object]:
        """The journal's line."""
        return {"file": self.file, "status": self.status}


@dataclass(slots=True)
class FailedEntry(Entry):
    """A recording that could not be embedded.

    Attributes
    ----------
    reason : str
        Sentence that says why.
    """

    reason: str

    def as_json(self) -> dict[str, object]:
        return {"file": self.file, "status": self.status, "reason": self.reason}


@dataclass(slots=True)
class FinishedEntry(Entry):
    """A recording that was finished; the status says whether its results still count.

    Attributes
    ----------
    size, mtime_ns : int or None
        Bytes and modification time in ns of the recording when it was read; None if an older
        version read it.
    fingerprint : str or None
        Of the recording's content (`bacpipe.audio.fingerprint`), in hexadecimal digits; None if
        an older version read it, or if it was not a file.
    duration : float
        Seconds that were read.
    windows : int
        Number of its windows.
    padded : int
        Samples of padding in the last of them.
    truncated : float or None
        Seconds at which it ended although its header promised more.
    segments : tuple of (start, stop, windows), or None
        Annotated segments in seconds, with the number of their windows, if only those were
        embedded.  If every channel has windows of its own, those of the first channel (the whole
        recording, where nothing else was wanted), then those of the second, and so on.
    segments_hash : str or None
        `bacpipe.store.plan.Source.segments_hash` of these.
    embeddings : StoredEmbeddings
    predictions : StoredPredictions or None
        None if it was not classified, or if the predictions no longer count.
    adopted : bool
        Whether an older version of bacpipe computed it.
    """

    size: int | None
    mtime_ns: int | None
    duration: float
    windows: int
    padded: int
    truncated: float | None
    segments: tuple[tuple[float, float, int], ...] | None
    segments_hash: str | None
    embeddings: StoredEmbeddings
    predictions: StoredPredictions | None
    adopted: bool = False
    fingerprint: str | None = None

    @property
    def is_done(self) -> bool:
        """Whether its results count."""
        return self.status == DONE

    @property
    def parts(self) -> list[tuple[float, float]]:
        """Start and stop in seconds of what was embedded, each once: the whole, or segments."""
        rows = self.segments or ((0.0, self.duration, self.windows),)
        return list(dict.fromkeys((start, stop) for start, stop, _ in rows))

    @property
    def window_channels(self) -> np.ndarray:
        """Channel of each window, from 1, int16 of shape (windows,); 1 where all became one."""
        rows = self.segments or ((0.0, self.duration, self.windows),)
        # Segments ascend, so that one which does not is the first of the next channel.
        starts = [(start, stop) for start, stop, _ in rows]
        channel = np.cumsum([True, *(b <= a for a, b in pairwise(starts))])
        return np.repeat(channel.astype(np.int16), [count for *_, count in rows])

    def with_status(self, status: str) -> FinishedEntry:
        """The same with another status."""
        return replace(self, status=status)

    def without_predictions(self) -> FinishedEntry:
        """The same, but not classified."""
        return replace(self, predictions=None)

    def as_json(self) -> dict[str, object]:
        line: dict[str, object] = {"file": self.file, "status": self.status}
        if self.size is not None:
            line |= {"size": self.size, "mtime_ns": self.mtime_ns}
        if self.fingerprint is not None:
            line["fingerprint"] = self.fingerprint
        line |= {"duration": self.duration, "windows": self.windows}
        if self.adopted:
            line["adopted"] = True
        else:
            line |= {
                "padded": self.padded,
                "truncated": self.truncated,
                "segments": self.segments,
                "segments_hash": self.segments_hash,
            }
        line["embeddings"] = self.embeddings.as_json()
        if self.predictions is not None or not self.adopted:
            line["predictions"] = self.predictions and self.predictions.as_json()
        return line


# ---------------------------------------------------------------------- reading lines


def is_header(line: Mapping[str, object]) -> bool:
    """Whether the first line of a journal is one that we wrote."""
    identity, provenance = line.get("identity"), line.get("provenance", {})
    return (
        "old_metadata" not in line  # which stands for a journal where there is none
        and isinstance(identity, dict)
        and isinstance(provenance, dict)
        # Embeddings that were computed elsewhere have neither rate nor window.
        and all(_is_count(identity.get(key, 1), least=1) for key in ("sample_rate", "window"))
        and (identity.get("hop") is None or _is_factor(identity["hop"]))
        and _is_factor(identity.get("speed", 1))
    )


def read_entry(line: Mapping[str, object]) -> Entry | None:
    """Entry of a line of a journal; None if it is incomplete or contradicts itself."""
    file, status = line.get("file"), line.get("status")
    if not (_is_name(file) and isinstance(status, str)):
        return None
    finished = _read_finished(file, status, line)
    if finished is not None:
        return finished
    if status in {DONE, REMOVED}:
        return None
    if status == FAILED:
        return FailedEntry(file, status, str(line.get("reason", "")))
    return Entry(file, status)


def _read_finished(file: str, status: str, line: Mapping[str, object]) -> FinishedEntry | None:
    get = line.get
    size, mtime_ns, adopted = get("size"), get("mtime_ns"), bool(get("adopted"))
    duration, windows, padded = get("duration"), get("windows"), get("padded", 0)
    truncated, segments_hash = get("truncated"), get("segments_hash")
    fingerprint = get("fingerprint")
    if not (
        _is_count(windows)
        and _is_number(duration)
        and _is_count(padded)
        and (truncated is None or _is_number(truncated))
        and _is_text(segments_hash)
        and _is_text(fingerprint)
    ):
        return None
    if not (isinstance(size, int) and isinstance(mtime_ns, int)):
        if not adopted or mtime_ns is not None:
            return None
        size = mtime_ns = None
    embeddings = _read_embeddings(get("embeddings"), windows, adopted=adopted)
    predictions, segments = _read_predictions(get("predictions")), _read_segments(get("segments"))
    if (
        embeddings is None
        or (predictions is None and get("predictions") is not None)
        or (segments is None and get("segments") is not None)
        or (segments is not None and sum(count for *_, count in segments) != windows)
    ):
        return None
    return FinishedEntry(
        file, status, size, mtime_ns, duration, windows, padded, truncated, segments,
        segments_hash, embeddings, predictions, adopted, fingerprint,
    )  # fmt: skip


def _read_embeddings(stored: object, windows: int, *, adopted: bool) -> StoredEmbeddings | None:
    if not isinstance(stored, dict):
        return None
    path, size, dim = stored.get("path"), stored.get("bytes"), stored.get("dim")
    digest = stored.get("sha256")
    if not (_is_name(path) and _is_count(size) and _is_count(dim) and _is_text(digest)):
        return None
    # Older versions wrote other types of numbers.
    least = windows if adopted else 4 * windows * dim
    return StoredEmbeddings(path, size, dim, digest) if size >= least else None


def _read_predictions(stored: object) -> StoredPredictions | None:
    if not isinstance(stored, dict) or "path" not in stored:
        return None
    path, size, digest = stored["path"], stored.get("bytes"), stored.get("sha256")
    threshold, top = stored.get("threshold"), stored.get("top")
    sensitivity = stored.get("sensitivity", 1.0)
    if (
        (path is None or _is_name(path))
        and _is_count(size)
        and _is_text(digest)
        and (threshold is None or _is_number(threshold))
        and (top is None or _is_count(top))
        and _is_number(sensitivity)
    ):
        return StoredPredictions(path, size, digest, threshold, top, sensitivity)
    return None


def _read_segments(segments: object) -> tuple[tuple[float, float, int], ...] | None:
    if not isinstance(segments, list) or not all(map(_is_segment, segments)):
        return None
    return tuple((start, stop, count) for start, stop, count in segments)


def _is_segment(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and _is_number(value[0])
        and _is_number(value[1])
        and _is_count(value[2])
    )


def _is_text(value: object) -> TypeGuard[str | None]:
    return value is None or isinstance(value, str)


def _is_name(value: object) -> TypeGuard[str]:
    if not isinstance(value, str) or not value or "\0" in value:
        return False
    if value.isascii():
        return True
    try:
        value.encode(errors="surrogateescape")  # file names need not be valid text
    except UnicodeEncodeError:
        return False
    return True


def _is_count(value: object, least: int = 0) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**53


def _is_number(value: object) -> TypeGuard[float]:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and 0 <= value < 2**53
        and math.isfinite(value)
    )


def _is_factor(value: object) -> bool:
    return _is_number(value) and 1e-9 < value < 1e9


# ---------------------------------------------------------------------- many entries


class Entries(MutableMapping[str, Entry]):
    """The last entry of each recording, by its name.

    Entries of recordings that are done differ in numbers, hashes and names.  These are kept as
    bytes, what else they hold once for all that have it in common (a `_Shape`).  The few entries
    that are otherwise are kept as they are.

    Parameters
    ----------
    entries : mapping, optional
        To begin with.

    Attributes
    ----------
    version : int
        Grows with every change.

    Examples
    --------
    >>> entries = Entries({"a.wav": FailedEntry("a.wav", FAILED, "a.wav: is empty")})
    >>> entries["a.wav"].status
    'failed'
    """

    def __init__(self, entries: Mapping[str, Entry] | None = None) -> None:
        self.version = 0
        self._kept: dict[str, bytes | Entry] = {}
        self._shapes: list[_Shape] = []
        self._numbers: dict[tuple[object, ...], int] = {}
        self.update(entries or {})

    def __getitem__(self, name: str) -> Entry:
        kept = self._kept[name]
        return self._unpack(name, kept) if isinstance(kept, bytes) else kept

    def __setitem__(self, name: str, entry: Entry) -> None:
        self._kept[name] = self._pack(name, entry) or entry
        self.version += 1

    def __delitem__(self, name: str) -> None:
        del self._kept[name]
        self.version += 1

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, name: object) -> bool:
        return name in self._kept

    def finished(self, name: str) -> FinishedEntry | None:
        """Entry of a recording that was finished; None if it was not."""
        entry = self.get(name)
        return entry if isinstance(entry, FinishedEntry) else None

    def is_done(self, name: str) -> bool:
        """Whether a recording is there and done."""
        kept = self._kept.get(name)
        if isinstance(kept, bytes):
            return self._shapes[kept[0] | kept[1] << 8].status == DONE
        return isinstance(kept, FinishedEntry) and kept.is_done

    @property
    def done(self) -> DoneEntries:
        """Entries of the recordings that are done, in the order of the journal."""
        return DoneEntries(self, list(filter(self.is_done, self._kept)))

    @property
    def has_done(self) -> bool:
        """Whether any recording is done."""
        return any(map(self.is_done, self._kept))

    @property
    def prediction_settings(self) -> list[PredictionSettings]:
        """Settings of the predictions of recordings that are done, each once."""
        packed = {row[:2] for row in self._kept.values() if isinstance(row, bytes)}
        shapes = [self._shapes[int.from_bytes(number, "little")] for number in packed]
        settings = {
            (shape.threshold, shape.top, shape.sensitivity)
            for shape in shapes
            if shape.classified and shape.status == DONE
        }
        for entry in self._kept.values():
            if isinstance(entry, FinishedEntry) and entry.is_done and entry.predictions is not None:
                made = entry.predictions
                settings.add((made.threshold, made.top, made.sensitivity))
        return [settings_with(*values) for values in settings]

    def _pack(self, name: str, entry: Entry) -> bytes | None:
        """Bytes of an entry; None if it is unlike those of recordings that are done."""
        if not isinstance(entry, FinishedEntry):
            return None
        stem, stored, made = _stem(name), entry.embeddings, entry.predictions
        if (
            entry.file != name
            or entry.segments is not None
            or type(entry.duration) is not float
            or not stored.path.startswith(stem)
            or not (made is None or made.path is None or made.path.startswith(stem))
        ):
            return None
        shape = _Shape(
            entry.status,
            entry.adopted,
            entry.size is not None,
            entry.truncated,
            entry.segments_hash,
            stored.dim,
            stored.path[len(stem) :],
            stored.sha256 is not None,
            entry.fingerprint is not None,
            made is not None,
            None if made is None or made.path is None else made.path[len(stem) :],
            made is not None and made.sha256 is not None,
            None if made is None else made.threshold,
            None if made is None else made.top,
            1.0 if made is None else made.sensitivity,
            (type(entry.truncated), type(None if made is None else made.threshold)),
        )
        number = self._numbers.get(shape)
        if number is None:
            number = len(self._shapes)
            if number == _MOST_SHAPES:
                return None
            self._shapes.append(shape)
            self._numbers[shape] = number
        try:
            row = _ROW.pack(
                number, entry.size or 0, entry.mtime_ns or 0, entry.duration, entry.windows,
                entry.padded, stored.bytes, made.bytes if made is not None else 0,
            )  # fmt: skip
            row += _digest(entry.fingerprint, BYTES) + _digest(stored.sha256)
            return row if made is None else row + _digest(made.sha256)
        except (ValueError, struct.error):  # no hash of ours, or a number that is too large
            return None

    def _unpack(self, name: str, row: bytes) -> FinishedEntry:
        number, size, mtime_ns, duration, windows, padded, stored, made = _ROW.unpack_from(row)
        shape, stem = self._shapes[number], _stem(name)
        hashes = row[_ROW.size :].hex()
        first = 2 * BYTES if shape.fingerprinted else 0
        middle = first + (64 if shape.hashed else 0)
        predictions = None
        if shape.classified:
            ending = shape.predictions_ending
            predictions = StoredPredictions(
                None if ending is None else stem + ending,
                made,
                hashes[middle:] if shape.predictions_hashed else None,
                shape.threshold,
                shape.top,
                shape.sensitivity,
            )
        return FinishedEntry(
            name,
            shape.status,
            size if shape.sized else None,
            mtime_ns if shape.sized else None,
            duration,
            windows,
            padded,
            shape.truncated,
            None,
            shape.segments_hash,
            StoredEmbeddings(
                stem + shape.ending,
                stored,
                shape.dim,
                hashes[first:middle] if shape.hashed else None,
            ),
            predictions,
            shape.adopted,
            hashes[:first] if shape.fingerprinted else None,
        )


# Number of the shape; size, mtime_ns, duration, windows, padded, bytes of embeddings and of
# predictions.  The hashes follow: of the recording, the embeddings, the predictions.
_ROW = struct.Struct("<Hqqdqqqq")
_MOST_SHAPES = 4096


class _Shape(NamedTuple):
    """What entries have in common; of paths, what follows the recording's name."""

    status: str
    adopted: bool
    sized: bool
    truncated: float | None
    segments_hash: str | None
    dim: int
    ending: str
    hashed: bool
    fingerprinted: bool
    classified: bool
    predictions_ending: str | None
    predictions_hashed: bool
    threshold: float | None
    top: int | None
    sensitivity: float
    types: tuple[type, type]  # 1 and 1.0 are equal, but not the same text


def _digest(text: str | None, length: int = 32) -> bytes:
    if text is None:
        return b""
    digest = bytes.fromhex(text)
    if len(digest) != length or digest.hex() != text:
        raise ValueError(f"{text!r} is no hash as we write it")
    return digest


def _stem(name: str) -> str:
    dot = name.rfind(".")
    return name if dot < 0 else name[:dot]


class DoneEntries(Mapping[str, FinishedEntry]):
    """Entries of recordings that are done, in a certain order.

    Parameters
    ----------
    entries : Entries
        All entries.
    names : sequence of str
        The recordings.
    """

    def __init__(self, entries: Entries, names: Sequence[str]) -> None:
        self._entries, self._names = entries, names

    def sorted(self) -> DoneEntries:
        """The same, in the order of the recordings' names."""
        return DoneEntries(self._entries, sorted(self._names))

    def where(self, holds: Callable[[FinishedEntry], bool]) -> DoneEntries:
        """Those of which something holds, in the same order."""
        return DoneEntries(self._entries, [name for name in self if holds(self[name])])

    def __getitem__(self, name: str) -> FinishedEntry:
        entry = self._entries[name]
        if isinstance(entry, FinishedEntry) and entry.is_done:
            return entry
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._entries.is_done(name)


# ---------------------------------------------------------------------- hashes of all entries
#
# Later results know their inputs by these.  They are computed entry by entry: as one text, a data
# set takes hundreds of megabytes.


def embeddings_state(done: Mapping[str, FinishedEntry]) -> str:
    """Hash of all embeddings."""
    names = sorted(done)
    texts: Iterable[str] = (_text(done[name]) for name in names)
    if any(_is_followed_out_of_order(*pair) for pair in pairwise(names)):
        texts = sorted(texts)
    digest = hashlib.sha256()
    for number, text in enumerate(texts):
        digest.update(("\n" + text if number else text).encode(errors="surrogatepass"))
    return digest.hexdigest()


def _text(entry: FinishedEntry) -> str:
    return f"{entry.file} {entry.windows} {entry.duration} {entry.embeddings.sha256}"


def _is_followed_out_of_order(name: str, following: str) -> bool:
    """Whether two names may change places when a space and more is added to both."""
    return following.startswith(name) and following[len(name)] <= " "


def predictions_state(folder: str, done: Mapping[str, FinishedEntry]) -> str:
    """Hash of all predictions.

    Parameters
    ----------
    folder : str
        Name of the folder of the embeddings.
    done : mapping of str to FinishedEntry
        Of all recordings that are done.
    """
    digest = hashlib.sha256(f"[{json.dumps(folder)}, [".encode())
    separator = ""
    for name in sorted(done):
        entry = done[name]
        if entry.predictions is not None:
            made = entry.predictions.as_json()
            content = [name, entry.windows, entry.embeddings.sha256, made]
            digest.update((separator + json.dumps(content, sort_keys=True)).encode())
            separator = ", "
    digest.update(b"]]")
    return digest.hexdigest()
