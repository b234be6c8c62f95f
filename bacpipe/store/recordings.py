"""Recordings and results in one another's folders."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from bacpipe.errors import NoRecordingsError
from bacpipe.store.layout import ResultPaths

logger = logging.getLogger(__name__)


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
            "%s: left out %d file(s) that lie among the results.",
            audio_dir,
            len(names) - len(kept),
        )
    if not kept:
        raise NoRecordingsError(
            f"The audio folder {audio_dir} holds no recordings besides the results in "
            f"{paths.dataset_path}."
        )
    return kept


def _parent(name: str) -> str:
    return name.rpartition("/")[0]


def _names_in(folder: Path, others: tuple[Path, ...]) -> list[str]:
    return [other.name for other in others if other.parent == folder]


def _lies_in(folder: Path, others: tuple[Path, ...]) -> bool:
    return any(folder.is_relative_to(other) for other in others)
