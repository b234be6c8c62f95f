"""Recordings and results in one another's folders."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from bacpipe.errors import NoRecordingsError
from bacpipe.store.layout import ResultPaths

logger = logging.getLogger(__name__)


def without_results(files: Sequence[Path], audio_dir: Path, paths: ResultPaths) -> list[Path]:
    """Leave out what lies in the results tree of this data set.

    Folders of results are named after recordings' folders, and people keep clips beside their
    results; neither are recordings of the data set.

    Parameters
    ----------
    files : sequence of Path
        What was found in `audio_dir`.
    audio_dir : Path
        Folder with the recordings.
    paths : ResultPaths
        Folders of the results.

    Returns
    -------
    list of Path

    Raises
    ------
    NoRecordingsError
        If nothing else is there.
    """
    root = audio_dir.resolve()
    folders = (paths.main_embeds_path, paths.dim_reduc_parent_dir, paths.overview_path.parent)
    inside = tuple(folder.resolve() for folder in folders)
    if not any(folder.is_relative_to(root) for folder in inside):
        return list(files)
    # The files themselves are not resolved: a link among the recordings may point elsewhere.
    parents = {file.parent for file in files}
    left_out = {parent for parent in parents if _lies_in(parent.resolve(), inside)}
    kept = [
        file
        for file in files
        if file.parent not in left_out and file.parent.resolve() / file.name not in inside
    ]
    if len(kept) < len(files):
        logger.info(
            "%s: left out %d file(s) that lie among the results.",
            audio_dir,
            len(files) - len(kept),
        )
    if not kept:
        raise NoRecordingsError(
            f"The audio folder {audio_dir} holds no recordings besides the results in "
            f"{paths.dataset_path}."
        )
    return kept


def _lies_in(folder: Path, others: tuple[Path, ...]) -> bool:
    return any(folder.is_relative_to(other) for other in others)
