"""What a run has to do: the recordings as they are now against the journal.

A recording is kept if its size, modification time and content fingerprint, its annotated segments
and the sizes of its result files are those that the journal names.  That a file exists says
nothing.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple, overload

from bacpipe.audio.fingerprint import content_fingerprint
from bacpipe.audio.remote import stamp_of, url_of
from bacpipe.store.data_set_folder import moved_at
from bacpipe.store.embedding_set import EmbeddingSet
from bacpipe.store.entries import DONE, REMOVED, Entries, FinishedEntry, PredictionSettings
from bacpipe.store.layout import ResultPaths, path_inside, shard_journal
from bacpipe.store.predictions import predictions_source

logger = logging.getLogger(__name__)

_AT_ONCE = 4  # recordings that are looked into at the same time
_TOGETHER = 256  # and for how many of them a thread is asked once

Segments = tuple[tuple[float, float], ...]


class Source(NamedTuple):
    """A recording as it is on disk now.

    Attributes
    ----------
    audio_dir : Path
        Folder that the name is relative to.
    name : str
        Posix path relative to the audio folder.
    size, mtime_ns : int
        Bytes and modification time; -1 when it cannot be looked at, which decoding explains.
    segments : tuple of (start, stop) in seconds, or None
        Annotated segments, when only those are embedded.
    """

    audio_dir: Path
    name: str
    size: int
    mtime_ns: int
    segments: Segments | None = None

    @property
    def path(self) -> Path:
        """Where it is."""
        return Path(self.audio_dir, self.name)

    @property
    def segments_hash(self) -> str | None:
        """Hash by which a change of the annotations is noticed."""
        if self.segments is None:
            return None
        return hashlib.sha256(json.dumps(self.segments).encode()).hexdigest()[:16]


class Part(NamedTuple):
    """A part of a data set, on which nobody else works.

    Attributes
    ----------
    number : int
        By which its journal is called.
    names : list of str
        Its recordings: posix paths relative to the audio folder, sorted.
    unusual_stems : mapping of str to str
        `bacpipe.store.layout.Stems.unusual` of these, which depends on all recordings.
    """

    number: int
    names: list[str]
    unusual_stems: Mapping[str, str]

    @property
    def journal(self) -> str:
        """Name of its journal."""
        return shard_journal(self.number)


class StreamEnd(NamedTuple):
    """What is known of a recording when its last window has been cut.

    Attributes
    ----------
    duration : float
        Seconds that were read.
    padded : int
        Samples of padding in the last window.
    truncated : float or None
        Seconds at which the recording ended although its header promised more.
    segments : list of (start, stop, windows), or None
        Annotated segments with the number of their windows.
    read : (int, int, str or None), or None
        Size in bytes, modification time in ns and content fingerprint of the file that was
        read, which may have been replaced since the run was planned; None for what was not read
        from a file.
    resampling : float
        Wall-clock seconds of the decoding that were spent on resampling.
    """

    duration: float
    padded: int
    truncated: float | None = None
    segments: list[tuple[float, float, int]] | None = None
    read: tuple[int, int, str | None] | None = None
    resampling: float = 0.0


class Sources(Sequence[Source]):
    """Many recordings; only their names are objects of their own.

    Parameters
    ----------
    audio_dir : Path
        Folder that all names are relative to.

    Attributes
    ----------
    names : list of str
    """

    def __init__(self, audio_dir: Path) -> None:
        self._audio_dir = audio_dir
        self.names: list[str] = []
        self._sizes, self._times = array("q"), array("q")
        self._segments: dict[str, Segments] = {}

    def append(self, source: Source) -> None:
        """Add one, which must be of the same folder."""
        self.names.append(source.name)
        self._sizes.append(source.size)
        self._times.append(source.mtime_ns)
        if source.segments is not None:
            self._segments[source.name] = source.segments

    def extend(self, sources: Iterable[Source]) -> None:
        """Add several."""
        for source in sources:
            self.append(source)

    @property
    def size(self) -> int:
        """Bytes of all together, of those whose size is known."""
        return sum(size for size in self._sizes if size > 0)

    @overload
    def __getitem__(self, number: int) -> Source: ...
    @overload
    def __getitem__(self, number: slice) -> list[Source]: ...

    def __getitem__(self, number: int | slice) -> Source | list[Source]:
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        name, segments = self.names[number], self._segments
        return Source(
            self._audio_dir,
            name,
            self._sizes[number],
            self._times[number],
            segments.get(name) if segments else None,
        )

    def __len__(self) -> int:
        return len(self.names)


def look_at(path: Path, audio_dir: Path, segments: Segments | None = None) -> Source:
    """Source of a recording below a folder, with its size and modification time.

    Raises
    ------
    ValueError
        If the folder is not above it.
    """
    text, start = os.fspath(path), f"{os.fspath(audio_dir)}/"
    if text.startswith(start) and os.sep == "/":  # a data set has many of them
        return look_at_name(text[len(start) :], audio_dir, segments)
    return look_at_name(path.relative_to(audio_dir).as_posix(), audio_dir, segments)


def look_at_name(name: str, audio_dir: Path, segments: Segments | None = None) -> Source:
    """Source of a recording, with its size and modification time.

    Parameters
    ----------
    name : str
        Posix path relative to `audio_dir`.
    audio_dir : Path
        Folder with the recordings.
    segments : tuple of (start, stop) in seconds, optional
        Annotated segments, when only those are embedded.
    """
    path = f"{os.fspath(audio_dir)}/{name}"
    if (url := url_of(path)) is not None:
        stamp = stamp_of(url)
        size, mtime_ns = (-1, -1) if stamp is None else stamp[:2]
        return Source(audio_dir, name, size, mtime_ns, segments)
    try:
        status = os.stat(path)  # noqa: PTH116
        size, mtime_ns = status.st_size, status.st_mtime_ns
    except OSError:
        size = mtime_ns = -1
    return Source(audio_dir, name, size, mtime_ns, segments)


@dataclass
class RunPlan:
    """What is to be done with each recording.

    Attributes
    ----------
    embed : Sources
        To be decoded and embedded (and classified).
    classify : Sources
        Embeddings are there, predictions are not.
    keep : list of str
        Done already.
    removed : list of str
        In the journal, but no longer in the audio folder.
    restored : list of str
        Removed once and back again, unchanged: their results still hold.
    renamed : dict of str to Source
        Recordings that are there under another name, unchanged, by the name of their results.
    replaced : list of str
        Of `embed`, those that are called as before and hold something else.
    unmarked : list of str
        Recordings that are kept although an older version did not record what they held.
    predictions : PredictionSettings or None
        How predictions are made and stored; None if none are wanted.
    """

    embed: Sources
    classify: Sources
    keep: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    restored: list[str] = field(default_factory=list)
    renamed: dict[str, Source] = field(default_factory=dict)
    replaced: list[str] = field(default_factory=list)
    unmarked: list[str] = field(default_factory=list)
    predictions: PredictionSettings | None = None

    @property
    def is_empty(self) -> bool:
        """Whether everything is done already."""
        return not (self.embed or self.classify or self.removed or self.restored or self.renamed)


def make_plan(
    embedding_set: EmbeddingSet | None,
    paths: ResultPaths,
    sources: Iterable[Source],
    *,
    predictions: PredictionSettings | None,
    allow_truncated: bool,
    part: bool = False,
) -> RunPlan:
    """Compare the recordings with the journal.

    Parameters
    ----------
    embedding_set : EmbeddingSet or None
        The set to continue.
    paths : ResultPaths
        Folders of the results.
    sources : iterable of Source
        The recordings as they are now.
    predictions : PredictionSettings or None
        Settings of the predictions that are wanted; None when none are.
    allow_truncated : bool
        Whether the readable part of a truncated recording counts as done.
    part : bool
        Whether the recordings are a part of those that are there, so that others stay.
    """
    plan = RunPlan(Sources(paths.audio_dir), Sources(paths.audio_dir), predictions=predictions)
    if embedding_set is None:
        plan.embed.extend(sources)
        return plan
    present, moved = set(), moved_at(paths.dataset_path)
    theirs = predictions_source(paths.preds_path) == embedding_set.folder.name
    for source, fingerprint in _with_fingerprints(sources, embedding_set.content.recordings, moved):
        present.add(source.name)
        entry = embedding_set.content.recordings.finished(source.name)
        # A server that says nothing today says nothing against what is done.
        silent = source.size < 0 and url_of(source.path) is not None
        holds = entry is not None and (
            entry.status == DONE
            if silent
            else _embeddings_hold(embedding_set, entry, source, moved, allow_truncated)
        )
        if entry is None or not holds:
            plan.embed.append(source)
            continue
        if silent:
            pass
        elif entry.fingerprint is None:
            plan.unmarked.append(source.name)
        elif entry.fingerprint != fingerprint:
            if entry.mtime_ns == source.mtime_ns:
                plan.replaced.append(source.name)
            plan.embed.append(source)
            continue
        if entry.status == REMOVED:
            plan.restored.append(source.name)
        if predictions is None or (theirs and _predictions_hold(paths, entry, predictions)):
            plan.keep.append(source.name)
        else:
            plan.classify.append(source)
    if not part:
        plan.removed = [name for name in embedding_set.content.done if name not in present]
        gone = [name for name in embedding_set.content.recordings if name not in present]
        if plan.embed and gone:
            for source, entry in _renamed(
                plan.embed, gone, embedding_set.content.recordings, moved
            ):
                if _embeddings_hold(embedding_set, entry, source, moved, allow_truncated) and (
                    predictions is None or (theirs and _predictions_hold(paths, entry, predictions))
                ):
                    plan.renamed[entry.file] = source
            taken = {source.name for source in plan.renamed.values()}
            left = [source for source in plan.embed if source.name not in taken]
            plan.embed = Sources(paths.audio_dir)
            plan.embed.extend(left)
    return plan


def _renamed(
    sources: Iterable[Source], gone: Iterable[str], entries: Entries, moved: int
) -> Iterator[tuple[Source, FinishedEntry]]:
    """Recordings of the size, time and content of one that is gone, each of which is one of them.

    The content alone is not enough: it is known by a few kilobytes, which may be silent.
    """
    by_size: dict[int, list[FinishedEntry]] = {}
    for name in gone:
        entry = entries.finished(name)
        if entry is not None and entry.size is not None and entry.fingerprint is not None:
            by_size.setdefault(entry.size, []).append(entry)
    for source in sources:
        same = [e for e in by_size.get(source.size, ()) if looks_alike(e, source, moved)]
        content = content_fingerprint(source.path) if same else None
        entry = next((e for e in same if e.fingerprint == content), None)
        if entry is not None:
            by_size[source.size].remove(entry)
            yield source, entry


def _with_fingerprints(
    sources: Iterable[Source], entries: Entries, moved: int
) -> Iterator[tuple[Source, str | None]]:
    """Recordings with their fingerprints; None where nothing can be compared with it.

    Disks and networks answer several questions in the time of one.
    """

    def fingerprints(some: Sequence[Source]) -> list[str | None]:
        return [content_fingerprint(source.path) if known(source) else None for source in some]

    def known(source: Source) -> bool:
        entry = entries.finished(source.name)
        return (
            entry is not None
            and entry.fingerprint is not None
            and looks_alike(entry, source, moved)
        )

    left = iter(sources)
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="bacpipe-fingerprints") as pool:
        waiting: deque[tuple[list[Source], Future[list[str | None]]]] = deque()
        while True:
            some = list(islice(left, _TOGETHER))
            if some:
                waiting.append((some, pool.submit(fingerprints, some)))
            if waiting and (not some or len(waiting) > _AT_ONCE):
                first, future = waiting.popleft()
                yield from zip(first, future.result(), strict=True)
            elif not some:
                return


def looks_alike(entry: FinishedEntry, source: Source, moved: int) -> bool:
    """Whether size and time are those of the entry, as far as it names any.

    Parameters
    ----------
    entry : FinishedEntry
        The recording as it was embedded.
    source : Source
        As it is now.
    moved : int
        `bacpipe.store.data_set_folder.moved_at` of the results: copies that are older may have
        any time, since their content is compared, too.
    """
    if entry.size is None or (entry.size, entry.mtime_ns) == (source.size, source.mtime_ns):
        return True
    times = (source.mtime_ns, entry.mtime_ns or 0)
    return entry.fingerprint is not None and entry.size == source.size and max(times) <= moved


def _embeddings_hold(
    embedding_set: EmbeddingSet,
    entry: FinishedEntry,
    source: Source,
    moved: int,
    allow_truncated: bool,
) -> bool:
    if entry.status not in {DONE, REMOVED} or not looks_alike(entry, source, moved):
        return False
    if not entry.adopted and (
        entry.segments_hash != source.segments_hash
        or (entry.truncated is not None and not allow_truncated)
    ):
        return False
    return _has_size(embedding_set.embedding_path(entry), entry.embeddings.bytes)


def _predictions_hold(paths: ResultPaths, entry: FinishedEntry, wanted: PredictionSettings) -> bool:
    stored = entry.predictions
    if stored is None or stored.settings != wanted:
        return False
    if stored.path is None:  # nothing was found, so there is no file
        return True
    path = path_inside(paths.sparse_predictions_path, stored.path, what="the journal")
    return _has_size(path, stored.bytes)


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False
