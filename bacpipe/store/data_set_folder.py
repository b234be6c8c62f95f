"""Which folder of results belongs to which folder of recordings.

A data set is identified by its folder.  ``<dataset>`` is the last part of the folder's path; a
second folder of that name gets the part above it, too, as ``2024_A`` beside ``A``.  If the folder
of some results is gone and most of its recordings are in another one, they were moved, and the
results go with them under the name that they have; ``moved_from`` says so, too.  Recordings that
are older than the move may have another time of modification then, as copies do, if their content
is the same.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice, takewhile
from pathlib import Path

import yaml

from bacpipe.audio.fingerprint import content_fingerprint
from bacpipe.audio.remote import as_path, shown, url_of
from bacpipe.errors import NoEmbeddingsError, NoRecordingsError, SettingsError, counted
from bacpipe.options import Options
from bacpipe.store.entries import FinishedEntry, read_entry
from bacpipe.store.files import remove_temporaries_of, write_json
from bacpipe.store.layout import (
    DATA_SET,
    JOURNALS,
    LONGEST_STEM,
    METADATA,
    PLOTS,
    PREDICTIONS,
    ResultPaths,
    models_with_embeddings,
)
from bacpipe.store.lock import SECONDS_FOR_OTHERS, exclusive
from bacpipe.store.selection import AudioDir, data_set_of
from bacpipe.store.typed_command import typed_command
from bacpipe.user_input import load_yaml

logger = logging.getLogger(__name__)

_LOCK = "new-data-set"
_LOOKED_AT = 64  # recordings of a journal, to find out whose it is


def result_paths(
    audio_dir: Path,
    model: str,
    *,
    main_results_dir: str | Path,
    embed_parent_dir: str,
    dim_reduc_parent_dir: str,
    evaluations_dir: str,
    testing: bool = False,
    moved_from: str | None = None,
) -> ResultPaths:
    """Paths of one model's results.

    Parameters
    ----------
    audio_dir : Path
        Folder with the recordings.
    model : str
        Name of the model.
    main_results_dir, embed_parent_dir, dim_reduc_parent_dir, evaluations_dir, moved_from
        Options of the same names.
    testing : bool
        Whether this is a trial run, whose results are kept apart.
    """
    main = Path(main_results_dir)
    if testing:
        main = main.with_name(f"{main.name}_testing")
    dataset = dataset_folder(
        main, Path(audio_dir), embed_parent_dir, copies=True, moved_from=moved_from
    )
    evaluations = dataset / evaluations_dir / model
    return ResultPaths(
        audio_dir=Path(audio_dir),
        main_results_dir=main,
        dataset_path=dataset,
        main_embeds_path=dataset / embed_parent_dir,
        dim_reduc_parent_dir=dataset / dim_reduc_parent_dir,
        labels_path=evaluations / "labels",
        clust_path=evaluations / "clustering",
        probe_path=evaluations / "probing",
        preds_path=evaluations / PREDICTIONS,
        plot_path=evaluations / PLOTS,
    )


def paths_of(audio_dir: AudioDir, model: str, options: Options) -> ResultPaths:
    """Paths of one model's results with the configuration of a call."""
    return result_paths(
        data_set_of(audio_dir).folder,
        model,
        main_results_dir=options.main_results_dir,
        embed_parent_dir=options.embed_parent_dir,
        dim_reduc_parent_dir=options.dim_reduc_parent_dir,
        evaluations_dir=options.evaluations_dir,
        testing=options.testing,
        moved_from=options.moved_from,
    )


def computed_models(audio_dir: AudioDir, options: Options) -> list[str]:
    """Names of all models that have embeddings of a folder of recordings.

    Raises
    ------
    NoEmbeddingsError
        If none has; it is a ValueError and a ResultsNotFoundError.
    """
    paths = paths_of(audio_dir, "none", options)
    folder = paths.main_embeds_path
    names = models_with_embeddings(folder, paths.dataset)
    if not names:
        raise NoEmbeddingsError(
            f"{folder}: there are no embeddings of {shown(paths.audio_dir)} yet; compute them "
            f"first: {typed_command('', paths.audio_dir, options)}"
        )
    return names


def folder_name(audio_dir: Path) -> str:
    """Last part of the path of a folder with recordings."""
    return Path(audio_dir).resolve().name or "recordings"


def dataset_folder(
    main: Path,
    audio_dir: Path,
    embed_parent_dir: str,
    *,
    copies: bool = False,
    moved_from: str | None = None,
) -> Path:
    """Where the results of a folder of recordings are, or will be; see the module.

    Parameters
    ----------
    main : Path
        Folder of all results.
    audio_dir : Path
        Folder with the recordings.
    embed_parent_dir : str
        Setting of this name.
    copies : bool
        Whether results of another folder will do, if copies of its recordings are here.
    moved_from : str, optional
        Option of this name.

    Raises
    ------
    SettingsError
        If `moved_from` is still there, or there are no results of it.
    """
    folders = [main / name for name in _dataset_names(audio_dir)]
    owners = {folder: recorded_folder(folder, embed_parent_dir) for folder in folders}
    for folder in folders:
        if _is_same_folder(owners[folder], audio_dir):
            return folder
    here = audio_dir.resolve()
    others = [folder for folder in _data_sets(main) if folder not in owners]
    for folder in others:
        if _recorded(folder) == here:
            return folder
    if moved_from is not None:
        return _results_of_moved(main, Path(moved_from), audio_dir, embed_parent_dir)
    for folder in folders:
        owner = owners[folder]
        if owner is None:
            return _moved_here(others, audio_dir, embed_parent_dir) or folder
        gone = not owner.is_absolute() or not _exists(owner) or _was_copied(folder)
        if gone and not _exists(audio_dir):
            return folder
        if gone or copies:
            entries = _first_entries(folder / embed_parent_dir)
            known = [_is_recording(entry, audio_dir, copied=not gone) for entry in entries]
            # Another card may have a few of them, too, such as those of a test of the microphone.
            if 2 * sum(known) > len(known) or (gone and not known):
                return folder
    digest = hashlib.sha256(os.fsencode(audio_dir.resolve())).hexdigest()[:8]
    return main / f"{folder_name(audio_dir)}~{digest}"


def _data_sets(main: Path) -> list[Path]:
    """Folders of results, in the order of their names."""
    return sorted(path.parent for path in _inside(main, f"*/{DATA_SET}"))


def _inside(folder: Path, pattern: str) -> list[Path]:
    """Sorted paths in a folder; none where nobody may look, which Python raises up to 3.12."""
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []


def _moved_here(folders: Iterable[Path], audio_dir: Path, embed_parent_dir: str) -> Path | None:
    """Results of a folder of another name that is gone, and most of whose recordings are here."""
    if not _exists(audio_dir):
        return None
    for folder in folders:
        owner = _recorded(folder)
        if owner is None or not owner.is_absolute() or _exists(owner):
            continue
        entries = list(_first_entries(folder / embed_parent_dir))
        # By its name alone, a recording may be that of any card.
        known = [e.fingerprint is not None and _is_recording(e, audio_dir) for e in entries]
        if 2 * sum(known) > len(known):
            return folder
    return None


def _results_of_moved(main: Path, old: Path, audio_dir: Path, embed_parent_dir: str) -> Path:
    """Results of a folder of which somebody says that it was moved."""
    told = f"moved_from={old}"
    if _exists(old):
        raise SettingsError(
            f"{told} is still there; expected where {shown(audio_dir)} was before it was "
            f"moved or renamed."
        )
    former = Path(os.path.abspath(old))  # noqa: PTH100
    folders = dict.fromkeys([*(main / name for name in _dataset_names(old)), *_data_sets(main)])
    owners = {folder: recorded_folder(folder, embed_parent_dir) for folder in folders}
    for folder, owner in owners.items():
        if owner not in {former, old.resolve(), old}:
            continue
        entries = list(_first_entries(folder / embed_parent_dir))
        if entries and not any(_exists(audio_dir / entry.file) for entry in entries):
            raise SettingsError(
                f"{told}: none of its recordings, such as {entries[0].file}, is in "
                f"{shown(audio_dir)}; expected the folder that {old} is now as audio_dir."
            )
        return folder
    known = sorted(str(owner) for owner in owners.values() if owner is not None)
    raise SettingsError(
        f"{told}: there are no results of this folder in {main}, but "
        f"{'of ' + ', '.join(known[:5]) if known else 'none at all'}."
    )


def moved_at(folder: Path) -> int:
    """When results were taken over by a folder that recordings had been moved to, in ns; or 0."""
    try:
        moved = json.loads((folder / DATA_SET).read_text(encoding="utf-8")).get("moved")
    except (OSError, ValueError, RecursionError, AttributeError):
        return 0
    return moved if isinstance(moved, int) else 0


def claim_dataset(paths: ResultPaths, embed_parent_dir: str, moved_from: str | None = None) -> Path:
    """Write down whose results a folder of results holds, if that is not known yet.

    Returns
    -------
    Path
        Folder of the results: another one than `paths` have if somebody was quicker.

    Raises
    ------
    StorageError
        If nothing can be written there.
    """
    ours = paths.audio_dir.resolve()
    if _recorded(paths.dataset_path) == ours and not _was_copied(paths.dataset_path):
        return paths.dataset_path
    main = paths.main_results_dir
    with exclusive(main, _LOCK, wait=SECONDS_FOR_OTHERS):
        folder = dataset_folder(main, paths.audio_dir, embed_parent_dir, moved_from=moved_from)
        owner, moved = recorded_folder(folder, embed_parent_dir), moved_at(folder)
        if owner is not None and not _is_same_folder(owner, ours):
            moved = time.time_ns()
            logger.info(
                "%s: these results of %s, which is gone or was copied with them, go on with %s.",
                folder,
                owner,
                ours,
            )
        elif folder.name != folder_name(ours) and owner is None:
            logger.info(
                "%s: the results of %s go here, because those in %s are of another folder, %s.",
                folder,
                ours,
                main / folder_name(ours),
                recorded_folder(main / folder_name(ours), embed_parent_dir),
            )
        remove_temporaries_of([folder / DATA_SET])
        content: dict[str, object] = {"audio_dir": shown(ours), "results": str(folder.resolve())}
        write_json(folder / DATA_SET, content | ({"moved": moved} if moved else {}))
    return folder


@contextmanager
def alone_with(paths: ResultPaths, *files: Path) -> Iterator[None]:
    """Keep the runs of other models from writing files of a data set that all of them write.

    What killed runs left of these files is removed.
    """
    with exclusive(paths.main_results_dir, _LOCK, wait=SECONDS_FOR_OTHERS):
        remove_temporaries_of(files)
        yield


def recorded_folder(folder: Path, embed_parent_dir: str = "embeddings") -> Path | None:
    """Folder of recordings that some results are of; None if nothing tells.

    Version 2.0 wrote it into the metadata of each set of embeddings only.
    """
    known = _recorded(folder)
    if known is not None:
        return known
    for path in reversed(_inside(folder / embed_parent_dir, f"*___*/{METADATA}")):
        named = _audio_dir_in(path)
        if named is not None:
            return named
    return None


def _recorded(folder: Path, key: str = "audio_dir") -> Path | None:
    try:
        content = json.loads((folder / DATA_SET).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    name = content.get(key) if isinstance(content, dict) else None
    return as_path(name) if isinstance(name, str) and name and "\0" not in name else None


def _was_copied(folder: Path) -> bool:
    """Whether results lie elsewhere than where they were written: copied or moved as a whole."""
    written = _recorded(folder, "results")
    return written is not None and written != folder.resolve()


def _audio_dir_in(metadata: Path) -> Path | None:
    """What the first lines of a ``metadata.yml``, which may have a million, say."""
    try:
        with metadata.open(encoding="utf-8", errors="surrogateescape") as file:
            lines = list(islice(file, 40))
        first = next(i for i, line in enumerate(lines) if line.startswith("audio_dir:"))
        # A long path goes on in the next lines.
        more = takewhile(lambda line: line[:1].isspace(), lines[first + 1 :])
        name = load_yaml("".join([lines[first], *more]))["audio_dir"]
    except (OSError, ValueError, StopIteration, yaml.YAMLError):
        return None
    return as_path(name) if isinstance(name, str) and name and "\0" not in name else None


def _dataset_names(audio_dir: Path) -> list[str]:
    """Names for the results of a folder, the plainest first."""
    drive, *folders = audio_dir.resolve().parts  # E:\\ on Windows, where cards are drives
    parts = [re.sub(r"\W", "", drive), *folders] if re.search(r"\w", drive) else folders
    names = ["_".join(parts[first:]) for first in range(len(parts) - 1, -1, -1)]
    fitting = [name for name in names if len(os.fsencode(name)) <= LONGEST_STEM]
    return fitting or [folder_name(audio_dir)]


def _is_same_folder(owner: Path | None, audio_dir: Path) -> bool:
    if owner is None or not owner.is_absolute():
        return False
    if owner == audio_dir.resolve():
        return True
    try:
        return owner.samefile(audio_dir)
    except (OSError, ValueError):
        return False


def _exists(folder: Path) -> bool:
    if url_of(folder) is not None:  # it is not asked for, which takes long where it is not
        return True
    try:
        return folder.exists()
    except (OSError, ValueError):
        return False


def _first_entries(embeddings: Path) -> Iterator[FinishedEntry]:
    for path in reversed(_inside(embeddings, f"*___*/{JOURNALS}")):
        with suppress(OSError), path.open("rb") as file:
            yield from islice(_finished_in(file), _LOOKED_AT)


def _finished_in(journal: Iterable[bytes]) -> Iterator[FinishedEntry]:
    for raw in journal:
        with suppress(ValueError, RecursionError):
            line = json.loads(raw)
            entry = read_entry(line) if isinstance(line, dict) else None
            if isinstance(entry, FinishedEntry):
                yield entry


def _is_recording(entry: FinishedEntry, audio_dir: Path, *, copied: bool = False) -> bool:
    """Whether a folder has a recording; `copied` asks for its time, which copies keep, too.

    Without a fingerprint, only the time tells it from another card's of the same name and size.
    """
    path = audio_dir / entry.file
    try:
        now = path.stat()
    except (OSError, ValueError):
        return False
    if entry.size not in (None, now.st_size):
        return False
    needs_time = copied or (entry.fingerprint is None and entry.size is not None)
    if needs_time and entry.mtime_ns != now.st_mtime_ns:
        return False
    return entry.fingerprint is None or entry.fingerprint == content_fingerprint(path)


def without_results(names: Sequence[str], audio_dir: Path, paths: ResultPaths) -> list[str]:
    """Leave out what lies in the results tree of this data set.

    Folders of results are named after recordings' folders, and people keep clips beside their
    results; neither are recordings of the data set.

    Parameters
    ----------
    names : sequence of str
        Posix paths, relative to `audio_dir`, of what was found there.
    audio_dir : Path
        Folder with the recordings.
    paths : ResultPaths
        Folders of the results.

    Returns
    -------
    list of str

    Raises
    ------
    NoRecordingsError
        If nothing else is there.
    """
    root = audio_dir.resolve()
    folders = (paths.main_embeds_path, paths.dim_reduc_parent_dir, paths.overview_path.parent)
    inside = tuple(folder.resolve() for folder in folders)
    if not any(folder.is_relative_to(root) for folder in inside):
        return list(names)
    # The files themselves are not resolved: a link among the recordings may point elsewhere.
    parents = {parent: (audio_dir / parent).resolve() for parent in map(_parent, names)}
    left_out = {parent for parent, real in parents.items() if _lies_in(real, inside)}
    results = {(real, name) for real in parents.values() for name in _names_in(real, inside)}
    kept = [
        name
        for name in names
        if (parent := _parent(name)) not in left_out
        and (parents[parent], name[len(parent) :].lstrip("/")) not in results
    ]
    if len(kept) < len(names):
        logger.info(
            "%s: left out %s among the results.",
            shown(audio_dir),
            counted(len(names) - len(kept), "file"),
        )
    if not kept:
        raise NoRecordingsError(
            f"The audio folder {shown(audio_dir)} holds no recordings besides the results in "
            f"{paths.dataset_path}."
        )
    return kept


def _parent(name: str) -> str:
    return name.rpartition("/")[0]


def _names_in(folder: Path, others: tuple[Path, ...]) -> list[str]:
    return [other.name for other in others if other.parent == folder]


def _lies_in(folder: Path, others: tuple[Path, ...]) -> bool:
    return any(folder.is_relative_to(other) for other in others)
