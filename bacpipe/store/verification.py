"""Whether a results tree holds what its journals say, and what to compute again.

Recordings are compared, too, where they are: results of one card may have been made for another.

Everything is read file by file, so that memory grows with the journal of one set of embeddings
and not with the results.  `verify_results` writes nothing.  `repair_results` marks what is damaged,
so that the next run computes exactly that again; nothing is deleted: the journal takes back what
it says of them, and what has no journal is laid aside under another name.
"""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

from bacpipe.audio.fingerprint import content_fingerprint
from bacpipe.audio.remote import shown, url_of
from bacpipe.errors import ResultsError, ResultsNotFoundError, counted
from bacpipe.store.approximate_index import why_index_damaged
from bacpipe.store.arrays import scan_npy
from bacpipe.store.calibrations import read_calibration
from bacpipe.store.claims import alone
from bacpipe.store.codes import why_damaged
from bacpipe.store.data_set_folder import moved_at, recorded_folder
from bacpipe.store.embedding_set import EmbeddingSet, metadata_of
from bacpipe.store.entries import DAMAGED, FinishedEntry
from bacpipe.store.file_checks import why_unreadable
from bacpipe.store.files import TEMPORARY
from bacpipe.store.journal import JournalContent, RunJournal
from bacpipe.store.judgements import why_damaged as people_labels_damaged
from bacpipe.store.layout import (
    ALL_PEOPLE_LABELS,
    CALIBRATIONS,
    CODES,
    JOURNALS,
    METADATA,
    PREDICTIONS,
    PROVENANCE,
    RECOGNISER_WEIGHTS,
    RECOGNISER_WORDS,
    REDUCER,
    SEARCH_INDEX,
    SOURCE,
    SPARSE_PREDICTIONS,
    detections_path,
    is_stamped,
    journals_in,
    path_inside,
    stamped_name,
)
from bacpipe.store.maps import AXES
from bacpipe.store.old_results import old_result, old_results_in
from bacpipe.store.plan import look_at_name, looks_alike
from bacpipe.store.predictions import predictions_source, read_predictions
from bacpipe.store.recognisers import why_recogniser_damaged
from bacpipe.store.tables import stored_state
from bacpipe.user_input import load_yaml

logger = logging.getLogger(__name__)

What = Literal["embeddings", "predictions", "tables", "map", "codes"]

_LAID_ASIDE = ".damaged"
_AGAIN = "run the pipeline again"
_REDUCE_AGAIN = "run the dimensionality reduction again"


@dataclass(frozen=True)
class Finding:
    """Something in a results tree that is not as it should be.

    Attributes
    ----------
    path : Path
        The file or folder.
    message : str
        One sentence: what is wrong, and what to compute again.
    folder : Path or None
        The set of embeddings (or the map) that `repair_results` marks; None if there is nothing
        to mark, because the next run does what is needed, or a person has to.
    what : {'embeddings', 'predictions', 'tables', 'map', 'codes'} or None
        What of it is marked.
    recording : str or None
        The recording whose results are damaged.
    """

    path: Path
    message: str
    folder: Path | None = None
    what: What | None = None
    recording: str | None = None

    def __str__(self) -> str:
        return self.message


def verify_results(folder: str | Path) -> list[Finding]:
    """Check a results tree: journals against files, sizes, hashes, shapes and values.

    Parameters
    ----------
    folder : str or Path
        The results of all data sets (``main_results_dir``), of one of them, or a single set of
        embeddings.

    Returns
    -------
    list of Finding
        Empty if all is well.

    Raises
    ------
    ResultsNotFoundError
        If there are no results.
    """
    return list(find_damage(Path(folder)))


def find_damage(folder: Path) -> Iterator[Finding]:
    """Do what `verify_results` does, and tell every finding at once."""
    tree = _Tree(folder)
    for sentence in tree.old:
        logger.info("%s", sentence)
    sets: dict[Path, str] = {}
    for path in tree.sets:
        yield from _check_set(path, sets)
    for path in tree.predictions:
        yield from _check_predictions(path, tree)
    yield from (
        Finding(path, message, mark, "map" if mark else None)
        for path, message, mark in check_maps(tree.maps, sets)
    )
    for path in tree.others:
        yield from _check_file(path)


class _Tree:
    """What lies where; only the names of folders and of single files are kept."""

    def __init__(self, root: Path) -> None:
        self.sets: list[Path] = []
        self.maps: list[Path] = []
        self.predictions: list[Path] = []
        self.others: list[Path] = []
        self.old: dict[str, None] = {}  # sentences on results of bacpipe 1.3
        if not root.is_dir():
            raise ResultsNotFoundError(f"{root}: there is no such folder; expected results.")
        for name, folders, files in os.walk(root):
            self._sort(Path(name), folders, files)
        labelled = any(fnmatch(path.name, ALL_PEOPLE_LABELS) for path in self.others)
        if not (self.sets or self.maps or self.predictions or self.old or labelled):
            raise ResultsNotFoundError(
                f"{root}: holds no results of bacpipe; expected a main_results_dir, or the folder "
                f"of a data set in it."
            )

    def _sort(self, path: Path, folders: list[str], files: list[str]) -> None:
        old = {what for name in files if (what := old_result(path / name)) is not None}
        if is_stamped(path.name):
            folders.clear()
            if old and next(path.rglob("*.npy"), None) is None:
                self.old[f"{path} {old.pop()}."] = None
                return
            is_map = REDUCER in files or any(f.endswith(".parquet") for f in files)
            (self.maps if is_map else self.sets).append(path)
            return
        self.old.update((f"{path} {what}.", None) for what in sorted(old))
        files = [name for name in files if old_result(path / name) is None]
        folders.sort()
        if SOURCE in files or SPARSE_PREDICTIONS in folders:
            sentence = old_results_in([path / SPARSE_PREDICTIONS])
            if sentence is not None:
                self.old[sentence] = None
            if SOURCE in files or sentence is None:
                self.predictions.append(path)
            if SPARSE_PREDICTIONS in folders:
                folders.remove(SPARSE_PREDICTIONS)
        self.others += [path / name for name in sorted(files)]


# ---------------------------------------------------------------------- embeddings


def _check_set(folder: Path, states: dict[Path, str]) -> Iterator[Finding]:
    try:
        embedding_set = EmbeddingSet(folder)
    except ResultsError as error:
        yield Finding(folder, str(error))
        return
    content = embedding_set.content
    if not content.header:
        yield Finding(
            folder,
            f"{folder}: has no journal, as a run leaves it that is killed at its very beginning; "
            f"{_AGAIN}, or delete it if it is empty.",
        )
        return
    states[folder] = embedding_set.state
    audio_dir = recorded_folder(folder.parent.parent, folder.parent.name)
    if (
        audio_dir is not None
        and audio_dir.is_absolute()
        and url_of(audio_dir) is None
        and not audio_dir.is_dir()
    ):
        logger.info("%s is not there, so its recordings are not compared.", shown(audio_dir))
    for name, entry in sorted(content.recordings.items()):
        if isinstance(entry, FinishedEntry) and entry.is_done:
            yield from _check_embeddings(embedding_set, entry)
            if audio_dir is not None and audio_dir.is_absolute():
                yield from _check_recording(audio_dir, folder, entry)
        elif entry.status == DAMAGED:
            yield Finding(folder, f"{folder}: {name} is marked to be computed again; {_AGAIN}.")
    for path in sorted(folder.glob(CODES)):
        if (reason := why_damaged(path)) is not None:
            message = f"{path}: {reason}; the next search makes these search codes again."
            yield Finding(path, message, folder, "codes")
    if (folder / SEARCH_INDEX).is_file() and (reason := why_index_damaged(folder)) is not None:
        yield Finding(folder / SEARCH_INDEX, reason, folder, "codes")
    yield from _strangers(folder, {entry.embeddings.path for entry in _finished(content)})
    if embedding_set.identity is not None:
        yield from _check_metadata(embedding_set)


def _finished(content: JournalContent) -> Iterator[FinishedEntry]:
    for entry in content.recordings.values():
        if isinstance(entry, FinishedEntry):
            yield entry


def _check_embeddings(embedding_set: EmbeddingSet, entry: FinishedEntry) -> Iterator[Finding]:
    name, stored = entry.file, entry.embeddings

    def damaged(path: Path, what: str) -> Finding:
        message = f"{path}: {what}; compute the embeddings of {name} again."
        return Finding(path, message, embedding_set.folder, "embeddings", name)

    try:
        path = embedding_set.embedding_path(entry)
    except ResultsError as error:
        yield Finding(embedding_set.folder, str(error), embedding_set.folder, "embeddings", name)
        return
    try:
        size = path.stat().st_size
        if size != stored.bytes:
            yield damaged(path, f"has {size} bytes, the journal says {stored.bytes}")
            return
        scan = scan_npy(path)
    except FileNotFoundError:
        yield damaged(path, "is missing")
        return
    except (OSError, ValueError) as error:
        yield damaged(path, f"cannot be read ({error})")
        return
    expected = (entry.windows, stored.dim)
    if scan.shape != expected and not (entry.adopted and scan.shape[:1] == expected[:1]):
        yield damaged(path, f"holds an array of shape {scan.shape}, the journal says {expected}")
    elif stored.sha256 is not None and scan.sha256 != stored.sha256:
        yield damaged(path, "has changed since it was written")
    elif scan.not_finite is not None:
        yield damaged(path, f"holds values that are not numbers, first in window {scan.not_finite}")


def _check_recording(audio_dir: Path, folder: Path, entry: FinishedEntry) -> Iterator[Finding]:
    """Whether a recording is the one that results are of; one that is gone was perhaps moved."""
    now = look_at_name(entry.file, audio_dir)
    if entry.size is None or now.size < 0:
        return
    if not looks_alike(entry, now, moved_at(folder.parent.parent)):
        how = "size or time"
    elif entry.fingerprint in (None, content_fingerprint(now.path)):
        return
    else:
        how = "content"
    yield Finding(
        now.path,
        f"{shown(now.path)}: has another {how} than the recording that was embedded, so the "
        f"results in {folder} are of another one; {_AGAIN}.",
    )


def _strangers(folder: Path, known: Set[str | None]) -> Iterator[Finding]:
    """Files that the journal does not name."""
    for parent, _, files in os.walk(folder):
        for name in sorted(files):
            path = Path(parent, name)
            if name.endswith(TEMPORARY):
                yield _temporary(path)
            elif old_result(path) is not None:
                continue
            elif not _is_ours(path, folder) and path.relative_to(folder).as_posix() not in known:
                yield Finding(
                    path,
                    f"{path}: no line of the journal names it, so nothing reads it; delete it if "
                    f"you have no use for it.",
                )


def _is_ours(path: Path, folder: Path) -> bool:
    of_set = path.parent == folder and any(
        fnmatch(path.name, pattern) for pattern in (METADATA, JOURNALS, CODES, SEARCH_INDEX)
    )
    return of_set or path.name.endswith(_LAID_ASIDE)


def _check_metadata(embedding_set: EmbeddingSet) -> Iterator[Finding]:
    path = embedding_set.folder / METADATA
    reason = "is missing" if not path.is_file() else why_unreadable(path)
    if reason is None:
        stored = load_yaml(path.read_text(encoding="utf-8"))
        expected = metadata_of(embedding_set, "", Path())
        keys = ("nr_embeds_total", "embedding_size", "files")
        if not isinstance(stored, dict) or any(stored.get(k) != expected[k] for k in keys):
            reason = "does not list the recordings that the journal says are done"
    if reason is not None:
        whose, remedy = "an interrupted run leaves", _AGAIN
        if len(journals_in(embedding_set.folder)) > 1:
            whose, remedy = "shards leave", "run bacpipe shards merge when all of them are done"
        yield Finding(
            path,
            f"{path}: {reason}, as {whose} it; {remedy}.",
            embedding_set.folder,
            "tables",
        )


# ---------------------------------------------------------------------- predictions


def _check_predictions(folder: Path, tree: _Tree) -> Iterator[Finding]:
    owner = predictions_source(folder)
    set_folder = next((path for path in tree.sets if path.name == owner), None)
    if set_folder is None:
        advice = _AGAIN if folder.name == PREDICTIONS else "delete it if you have no use for it"
        yield Finding(
            folder, f"{folder}: belongs to the embeddings {owner}, which are not there; {advice}."
        )
        return
    try:
        owned = EmbeddingSet(set_folder)
    except ResultsError:
        return  # said already
    done = owned.content.done
    known = done.where(lambda entry: entry.predictions is not None).sorted()
    for entry in known.values():
        yield from _check_prediction(folder / SPARSE_PREDICTIONS, set_folder, entry)
    missing = sorted(set(done) - set(known))
    if missing and known:
        yield Finding(
            folder,
            f"{folder}: {counted(len(missing), 'recording')} with embeddings and no predictions, "
            f"such as {missing[0]}; {_AGAIN}.",
        )
    stored = (entry.predictions for entry in _finished(owned.content))
    yield from _strangers(folder / SPARSE_PREDICTIONS, {item.path for item in stored if item})
    for table in sorted(folder.glob(detections_path(folder, "*").name)):
        if known and stored_state(table) not in {owned.predictions_state, None}:
            message = f"{table}: was made from other predictions; {_AGAIN}."
            yield Finding(table, message, set_folder, "tables")
    for path in sorted(folder.iterdir()):
        reason = why_unreadable(path) if path.is_file() else None
        if reason is not None:
            message = f"{path}: cannot be read ({reason}); {_AGAIN} to have it written anew."
            yield Finding(path, message, set_folder, "tables")


def _check_prediction(folder: Path, set_folder: Path, entry: FinishedEntry) -> Iterator[Finding]:
    stored, name, problem = entry.predictions, entry.file, None
    if stored is None or stored.path is None:
        return
    try:
        path = path_inside(folder, stored.path, what="the journal")
        read_predictions(path, entry.windows, stored)
    except ResultsError as error:
        problem = str(error).split(";")[0]
    if problem is not None:
        message = f"{problem}; compute the predictions for {name} again."
        yield Finding(folder / stored.path, message, set_folder, "predictions", name)


# ---------------------------------------------------------------------- the rest


def _check_file(path: Path) -> Iterator[Finding]:
    if path.name.endswith(TEMPORARY):
        yield _temporary(path)
    elif (path.parent / SOURCE).is_file():
        return  # tables of predictions, which are checked with these
    elif (sentence := _why_wrong(path)) is not None:
        yield Finding(path, sentence)
    elif path.name != RECOGNISER_WORDS and (reason := why_unreadable(path)) is not None:
        # A recogniser's tables are written anew where there are none.
        applied = path.parent.name == PREDICTIONS and (path.parent / PROVENANCE).exists()
        again = (
            f"move {path.parent} away, and apply the recogniser again"
            if applied
            else "run what has written it again, evaluations with overwrite=true"
        )
        yield Finding(path, f"{path}: cannot be read ({reason}); {again}.")


def _why_wrong(path: Path) -> str | None:
    """One sentence on a file of people, of a recogniser, or on the meaning of scores."""
    try:
        if fnmatch(path.name, ALL_PEOPLE_LABELS):
            return people_labels_damaged(path)
        if path.parent.name == CALIBRATIONS and path.suffix == ".json":
            read_calibration(path)
        elif path.name in {RECOGNISER_WEIGHTS, RECOGNISER_WORDS}:
            return why_recogniser_damaged(path)
    except ResultsError as error:
        return str(error)
    return None


def _temporary(path: Path) -> Finding:
    return Finding(
        path,
        f"{path}: was left by a write that broke off; nothing reads it, and it can be deleted.",
    )


# ---------------------------------------------------------------------- maps

Problem = tuple[Path, str, Path | None]
"""The file, a sentence, and the map to be laid aside, if it is damaged."""


def check_maps(folders: Sequence[Path], states: Mapping[Path, str]) -> Iterator[Problem]:
    """Check maps, and whether the newest of each kind shows the embeddings as they are now.

    Parameters
    ----------
    folders : sequence of Path
        The maps.
    states : mapping of Path to str
        Hash of all embeddings of each set.
    """
    state_of = {folder.name: state for folder, state in states.items()}
    seen = set()
    for folder in sorted(folders, key=lambda path: path.name, reverse=True):
        metadata_path = folder / METADATA
        if not metadata_path.is_file():
            yield (
                folder,
                f"{folder}: is not complete, as a killed run leaves it; nothing reads it, and the "
                f"next run removes it if nothing of yours is in it.",
                None,
            )
            continue
        metadata = _metadata(metadata_path)
        if metadata is None:
            yield metadata_path, f"{metadata_path}: cannot be read; {_REDUCE_AGAIN}.", folder
            continue
        yield from _check_files(folder, metadata)
        kind = (stamped_name(folder.name), metadata["embeddings"], metadata.get("dimensions"))
        if (
            kind not in seen
            and state_of.get(metadata["embeddings"]) != metadata["embeddings_state"]
        ):
            yield folder, f"{folder}: its embeddings have changed since; {_REDUCE_AGAIN}.", None
        seen.add(kind)


def _metadata(path: Path) -> dict[str, Any] | None:
    try:
        content = load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    keys = ("embeddings", "embeddings_state")
    if not isinstance(content, dict) or not all(isinstance(content.get(k), str) for k in keys):
        return None
    return content


def _check_files(folder: Path, metadata: Mapping[str, Any]) -> Iterator[Problem]:
    tables = sorted(folder.glob("*.parquet"))
    if len(tables) != 1:
        yield (
            folder,
            f"{folder}: holds {len(tables)} tables instead of one; {_REDUCE_AGAIN}.",
            folder,
        )
    for path in (*tables, folder / REDUCER):
        reason = why_unreadable(path)
        if reason is None and path.suffix == ".parquet":
            reason = _why_not_a_map(path, metadata)
        if reason is not None:
            yield path, f"{path}: cannot be used ({reason}); {_REDUCE_AGAIN}.", folder


def _why_not_a_map(path: Path, metadata: Mapping[str, Any]) -> str | None:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        axes = [axis for axis in AXES if axis in file.schema_arrow.names]
        rows = file.metadata.num_rows
        if len(axes) != metadata.get("dimensions") or rows != metadata.get("nr_embeds_total"):
            return (
                f"{rows} windows in {len(axes)} dimensions, metadata.yml says "
                f"{metadata.get('nr_embeds_total')} in {metadata.get('dimensions')}"
            )
        for batch in file.iter_batches(columns=axes):
            for column in batch.columns:
                values = column.to_numpy(zero_copy_only=False)
                if not np.issubdtype(values.dtype, np.number) or not np.isfinite(values).all():
                    return "its coordinates are not numbers"
    return None


# ---------------------------------------------------------------------- repair


def repair_results(findings: Iterable[Finding]) -> int:
    """Mark what was found to be damaged.

    Parameters
    ----------
    findings : iterable of Finding
        What `verify_results` returned.

    Returns
    -------
    int
        Number of findings that are mended by the next run because of this.

    Raises
    ------
    ResultsLockedError
        If a run is writing to these results.
    """
    by_folder: dict[Path, list[Finding]] = defaultdict(list)
    for finding in findings:
        if finding.folder is not None:
            by_folder[finding.folder].append(finding)
    return sum(_repair(folder, group) for folder, group in by_folder.items())


def _repair(folder: Path, findings: Sequence[Finding]) -> int:
    if any(finding.what == "map" for finding in findings):
        _lay_aside(folder / METADATA)
        return len(findings)
    codes = [finding.path for finding in findings if finding.what == "codes"]
    laid_aside = sum(map(_lay_aside, codes))
    findings = [finding for finding in findings if finding.what != "codes"]
    if not findings:
        return laid_aside
    embedding_set = EmbeddingSet(folder)
    with alone(folder.parent, _model_of(embedding_set)):
        embedding_set.reload()
        if embedding_set.identity is None:
            return laid_aside + sum(_lay_aside(finding.path) for finding in findings)
        journal = RunJournal(folder, embedding_set.content.recordings)
        try:
            return laid_aside + sum(_mark(journal, finding) for finding in findings)
        finally:
            journal.close()


def _mark(journal: RunJournal, finding: Finding) -> bool:
    if finding.what == "tables":
        journal.append_tables({})
        return True
    entry = journal.entries.finished(finding.recording or "")
    if entry is None or not entry.is_done:
        return False  # a run has been there since
    if finding.what == "embeddings":
        journal.append(entry.with_status(DAMAGED))
    else:
        journal.drop_predictions(entry.file)
    return True


def _lay_aside(path: Path) -> bool:
    if not path.is_file():
        return False
    path.replace(path.with_name(f"{path.name}{_LAID_ASIDE}"))
    return True


def _model_of(embedding_set: EmbeddingSet) -> str:
    """Name of the model, after which the lock is called."""
    header = embedding_set.content.header
    if embedding_set.identity is not None:
        return str(embedding_set.identity["model"])
    return str(header["old_metadata"]["model_name"])
