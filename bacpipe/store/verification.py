"""Whether a results tree holds what its journals say, and what to compute again.

Everything is read file by file, so that memory grows with the journal of one set of embeddings
and not with the results.  Nothing is written; `bacpipe.store.repair` does that.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bacpipe.errors import ResultsError, ResultsNotFoundError
from bacpipe.store.arrays import scan_npy
from bacpipe.store.detection_tables import stored_state
from bacpipe.store.file_checks import why_unreadable
from bacpipe.store.layout import is_stamped, path_inside
from bacpipe.store.map_checks import check_maps
from bacpipe.store.metadata import metadata_of
from bacpipe.store.predictions import predictions_source, read_predictions
from bacpipe.store.sets import EmbeddingSet
from bacpipe.store.writer import TEMPORARY

What = Literal["embeddings", "predictions", "tables", "map"]

_SPARSE = "original_classifier_outputs"
_JOURNAL = re.compile(r"journal.*\.jsonl")
_KEPT_ASIDE = ".damaged"
_AGAIN = "run the pipeline again"


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
    what : {'embeddings', 'predictions', 'tables', 'map'} or None
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
        if not root.is_dir():
            raise ResultsNotFoundError(f"{root}: there is no such folder; expected results.")
        for name, folders, files in os.walk(root):
            self._sort(Path(name), folders, files)
        if not (self.sets or self.maps or self.predictions):
            raise ResultsNotFoundError(
                f"{root}: holds no results of bacpipe; expected a main_results_dir, or the folder "
                f"of a data set in it."
            )

    def _sort(self, path: Path, folders: list[str], files: list[str]) -> None:
        if is_stamped(path.name):
            folders.clear()
            is_map = "reducer.safetensors" in files or any(f.endswith(".parquet") for f in files)
            (self.maps if is_map else self.sets).append(path)
            return
        folders.sort()
        if "source.json" in files or _SPARSE in folders:
            self.predictions.append(path)
            if _SPARSE in folders:
                folders.remove(_SPARSE)
        self.others += [path / name for name in sorted(files)]


# ---------------------------------------------------------------------- embeddings


def _check_set(folder: Path, states: dict[Path, str]) -> Iterator[Finding]:
    try:
        found = EmbeddingSet(folder)
    except ResultsError as error:
        yield Finding(folder, str(error))
        return
    content = found.content
    if not content.header:
        yield Finding(
            folder,
            f"{folder}: has no journal, as a run leaves it that is killed at its very beginning; "
            f"{_AGAIN}, or delete it if it is empty.",
        )
        return
    states[folder] = found.state
    for name, line in sorted(content.recordings.items()):
        if line["status"] == "done":
            yield from _check_embeddings(found, name, line)
        elif line["status"] == "damaged":
            yield Finding(folder, f"{folder}: {name} is marked to be computed again; {_AGAIN}.")
    yield from _strangers(folder, content.recordings, "embeddings", "journal")
    if found.identity is not None:
        yield from _check_metadata(found)


def _check_embeddings(found: EmbeddingSet, name: str, line: Mapping[str, Any]) -> Iterator[Finding]:
    stored = line["embeddings"]

    def damaged(path: Path, what: str) -> Finding:
        message = f"{path}: {what}; compute the embeddings of {name} again."
        return Finding(path, message, found.folder, "embeddings", name)

    try:
        path = found.embedding_path(line)
    except ResultsError as error:
        yield Finding(found.folder, str(error), found.folder, "embeddings", name)
        return
    try:
        size = path.stat().st_size
        if size != stored["bytes"]:
            yield damaged(path, f"has {size} bytes, the journal says {stored['bytes']}")
            return
        scan = scan_npy(path)
    except FileNotFoundError:
        yield damaged(path, "is missing")
        return
    except (OSError, ValueError) as error:
        yield damaged(path, f"cannot be read ({error})")
        return
    expected = (line["windows"], stored["dim"])
    if scan.shape != expected and not (line.get("adopted") and scan.shape[:1] == expected[:1]):
        yield damaged(path, f"holds an array of shape {scan.shape}, the journal says {expected}")
    elif "sha256" in stored and scan.sha256 != stored["sha256"]:
        yield damaged(path, "has changed since it was written")
    elif scan.not_finite is not None:
        yield damaged(path, f"holds values that are not numbers, first in window {scan.not_finite}")


def _strangers(
    folder: Path, lines: Mapping[str, Mapping[str, Any]], what: str, where: str
) -> Iterator[Finding]:
    """Files that no line names."""
    known = {stored["path"] for line in lines.values() if (stored := line.get(what))}
    for parent, _, files in os.walk(folder):
        for name in sorted(files):
            path = Path(parent, name)
            if name.endswith(TEMPORARY):
                yield _temporary(path)
            elif not _is_ours(path, folder) and path.relative_to(folder).as_posix() not in known:
                yield Finding(
                    path,
                    f"{path}: no line of the {where} names it, so nothing reads it; delete it if "
                    f"you have no use for it.",
                )


def _is_ours(path: Path, folder: Path) -> bool:
    is_about_set = path.parent == folder and (
        path.name == "metadata.yml" or _JOURNAL.fullmatch(path.name)
    )
    return bool(is_about_set) or path.name.endswith(_KEPT_ASIDE)


def _check_metadata(found: EmbeddingSet) -> Iterator[Finding]:
    path = found.folder / "metadata.yml"
    reason = "is missing" if not path.is_file() else why_unreadable(path)
    if reason is None:
        from bacpipe.yaml_files import load_yaml

        stored = load_yaml(path.read_text(encoding="utf-8"))
        expected = metadata_of(found, "", Path())
        keys = ("nr_embeds_total", "embedding_size", "files")
        if not isinstance(stored, dict) or any(stored.get(k) != expected[k] for k in keys):
            reason = "does not list the recordings that the journal says are done"
    if reason is not None:
        yield Finding(
            path,
            f"{path}: {reason}, as an interrupted run leaves it; {_AGAIN}.",
            found.folder,
            "tables",
        )


# ---------------------------------------------------------------------- predictions


def _check_predictions(folder: Path, tree: _Tree) -> Iterator[Finding]:
    owner = predictions_source(folder).get("embeddings")
    found = next((path for path in tree.sets if path.name == owner), None)
    if found is None:
        yield Finding(
            folder, f"{folder}: belongs to the embeddings {owner}, which are not there; {_AGAIN}."
        )
        return
    try:
        owned = EmbeddingSet(found)
    except ResultsError:
        return  # said already
    lines = owned.content.done
    known = {name: line for name, line in lines.items() if line.get("predictions")}
    for name, line in sorted(known.items()):
        yield from _check_prediction(folder / _SPARSE, found, name, line)
    missing = sorted(set(lines) - set(known))
    if missing and known:
        yield Finding(
            folder,
            f"{folder}: {len(missing)} recordings have embeddings and no predictions, such as "
            f"{missing[0]}; {_AGAIN}.",
        )
    yield from _strangers(folder / _SPARSE, owned.content.recordings, "predictions", "journal")
    for table in sorted(folder.glob("*_detections.parquet")):
        if known and stored_state(table) not in {owned.predictions_state, None}:
            message = f"{table}: was made from other predictions; {_AGAIN}."
            yield Finding(table, message, found, "tables")
    for path in sorted(folder.iterdir()):
        reason = why_unreadable(path) if path.is_file() else None
        if reason is not None:
            message = f"{path}: cannot be read ({reason}); {_AGAIN} to have it written anew."
            yield Finding(path, message, found, "tables")


def _check_prediction(
    folder: Path, found: Path, name: str, line: Mapping[str, Any]
) -> Iterator[Finding]:
    stored = line["predictions"]
    if stored["path"] is None:
        return
    try:
        path = path_inside(folder, stored["path"], what="the journal")
        read_predictions(path, line["windows"], stored.get("sha256"))
        size = path.stat().st_size
        problem = None
        if size != stored["bytes"]:
            problem = f"{path}: has {size} bytes, the journal says {stored['bytes']}"
    except ResultsError as error:
        problem = str(error).split(";")[0]
    if problem is not None:
        message = f"{problem}; compute the predictions for {name} again."
        yield Finding(folder / stored["path"], message, found, "predictions", name)


# ---------------------------------------------------------------------- the rest


def _check_file(path: Path) -> Iterator[Finding]:
    if path.name.endswith(TEMPORARY):
        yield _temporary(path)
    elif (path.parent / "source.json").is_file():
        return  # tables of predictions, which are checked with these
    elif (reason := why_unreadable(path)) is not None:
        yield Finding(
            path,
            f"{path}: cannot be read ({reason}); run what has written it again, evaluations with "
            f"overwrite=true.",
        )


def _temporary(path: Path) -> Finding:
    return Finding(
        path,
        f"{path}: was left by a write that broke off; nothing reads it, and it can be deleted.",
    )
