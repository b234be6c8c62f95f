"""What a run has to do: recordings against the journal."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bacpipe.store.layout import ResultPaths, path_inside
from bacpipe.store.predictions import predictions_source
from bacpipe.store.sets import EmbeddingSet

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """A recording as it is on disk now.

    Attributes
    ----------
    path : Path
        Where it is.
    name : str
        Posix path relative to the audio folder.
    size, mtime_ns : int
        Bytes and modification time; -1 when it cannot be looked at, which decoding explains.
    segments : tuple of (start, stop) in seconds, or None
        Annotated segments, when only those are embedded.
    """

    path: Path
    name: str
    size: int
    mtime_ns: int
    segments: tuple[tuple[float, float], ...] | None = None

    @property
    def audio_dir(self) -> Path:
        """Folder that the name is relative to."""
        return self.path.parents[self.name.count("/")]

    @property
    def segments_hash(self) -> str | None:
        """Hash by which a change of the annotations is noticed."""
        if self.segments is None:
            return None
        return hashlib.sha256(json.dumps(self.segments).encode()).hexdigest()[:16]


def look_at(path: Path, audio_dir: Path, segments: Any = None) -> Source:
    """Source of a recording, with its size and modification time."""
    try:
        status = path.stat()
        size, mtime_ns = status.st_size, status.st_mtime_ns
    except OSError:
        size = mtime_ns = -1
    return Source(path, name_below(path, audio_dir), size, mtime_ns, segments)


def name_below(path: Path, folder: Path) -> str:
    """Posix path of a file relative to a folder above it; a data set has many of them.

    Raises
    ------
    ValueError
        If the folder is not above it.
    """
    text, start = os.fspath(path), f"{os.fspath(folder)}/"
    if text.startswith(start) and os.sep == "/":
        return text[len(start) :]
    return path.relative_to(folder).as_posix()


@dataclass
class RunPlan:
    """What is to be done with each recording.

    Attributes
    ----------
    embed : list of Source
        To be decoded and embedded (and classified).
    classify : list of Source
        Embeddings are there, predictions are not.
    keep : list of str
        Done already.
    removed : list of str
        In the journal, but no longer in the audio folder.
    restored : list of str
        Removed once and back again, unchanged: their results still hold.
    """

    embed: list[Source] = field(default_factory=list)
    classify: list[Source] = field(default_factory=list)
    keep: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    restored: list[str] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether everything is done already."""
        return not (self.embed or self.classify or self.removed or self.restored)


def make_plan(
    found: EmbeddingSet | None,
    paths: ResultPaths,
    sources: Sequence[Source],
    *,
    predictions: Mapping[str, Any] | None,
    allow_truncated: bool,
) -> RunPlan:
    """Compare the recordings with the journal.

    Parameters
    ----------
    found : EmbeddingSet or None
        The set to continue.
    paths : ResultPaths
        Folders of the results.
    sources : sequence of Source
        The recordings as they are now.
    predictions : mapping or None
        Settings of the predictions that are wanted; None when none are.
    allow_truncated : bool
        Whether the readable part of a truncated recording counts as done.
    """
    if found is None:
        return RunPlan(embed=list(sources))
    plan, lines = RunPlan(), found.content.recordings
    theirs = predictions_source(paths.preds_path).get("embeddings") == found.folder.name
    for source in sources:
        line = lines.get(source.name)
        if line is None or not _embeddings_hold(found, line, source, allow_truncated):
            plan.embed.append(source)
            continue
        if line["status"] == "removed":
            plan.restored.append(source.name)
        if predictions is None or (theirs and _predictions_hold(paths, line, predictions)):
            plan.keep.append(source.name)
        else:
            plan.classify.append(source)
    present = {source.name for source in sources}
    plan.removed = [name for name in found.content.done if name not in present]
    return plan


def _embeddings_hold(
    found: EmbeddingSet, line: Mapping[str, Any], source: Source, allow_truncated: bool
) -> bool:
    if line["status"] not in {"done", "removed"}:
        return False
    # Of what an older version computed, it is only known whether it has changed since.
    if "mtime_ns" in line and (line["size"], line["mtime_ns"]) != (source.size, source.mtime_ns):
        return False
    if not line.get("adopted") and (
        line.get("segments_hash") != source.segments_hash
        or (line.get("truncated") is not None and not allow_truncated)
    ):
        return False
    return _has_size(found.embedding_path(line), line["embeddings"]["bytes"])


def _predictions_hold(
    paths: ResultPaths, line: Mapping[str, Any], wanted: Mapping[str, Any]
) -> bool:
    stored = line.get("predictions") or {}
    if any(stored.get(key) != value for key, value in wanted.items()):
        return False
    if stored["path"] is None:  # nothing was found, so there is no file
        return True
    path = path_inside(paths.sparse_predictions_path, stored["path"], what="the journal")
    return _has_size(path, stored["bytes"])


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False
