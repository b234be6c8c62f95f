"""Planning shards: which recordings belong to which, and what all workers will have in common."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from bacpipe.audio.files import recordings_by_folder
from bacpipe.audio.remote import shown
from bacpipe.errors import NoRecordingsError, SettingsError, StorageError
from bacpipe.models.loading import find_card
from bacpipe.models.zoo import canonical_name
from bacpipe.options import Options, make_options
from bacpipe.scaling.agreement import changed_settings, shared_settings, write_contracts
from bacpipe.scaling.manifest import (
    Folder,
    Manifest,
    Planner,
    folders_of,
    folders_on_disk,
    read_manifest,
)
from bacpipe.scaling.shards import DONE, PLAN
from bacpipe.store.claims import Claims
from bacpipe.store.data_set_folder import without_results
from bacpipe.store.files import remove_temporaries
from bacpipe.store.journal import Journal
from bacpipe.store.layout import JOURNAL, ResultPaths, journals_in, stamped_folders
from bacpipe.store.loader import Loader
from bacpipe.store.lock import SECONDS_FOR_OTHERS, exclusive
from bacpipe.store.selection import AudioDir

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)


def plan_shards(
    audio_dir: AudioDir,
    models: str | Sequence[str],
    *,
    hours_per_shard: float = 10.0,
    **kwargs: object,
) -> pd.DataFrame:
    """Part a data set into shards, on which any number of machines can work at the same time.

    The manifest is written into the results (``<dataset>/shards/manifest.parquet``), where
    ``bacpipe shards work`` finds it.  Planned again, recordings keep their shards, new ones get
    shards of their own, and those that are gone are dropped.

    Parameters
    ----------
    audio_dir : str or Path, or sequence of these
        Folder with the recordings, or what else ``audio_dir`` of the configuration may be.
    models : str or sequence of str
        Models that are run over each shard.
    hours_per_shard : float
        Sound in each shard, about; estimated from the sizes of the files.
    **kwargs
        Any other key of ``bacpipe.config`` and ``bacpipe.settings``; those that decide
        results (hop, padding, channel, precision, classifier_threshold, ...) hold for all
        workers, and main_results_dir says where the plan is put.

    Returns
    -------
    pandas.DataFrame
        The manifest, a row for each recording, sorted by shard: shard (int32, from 1), recording
        (posix path relative to the folder), site, seconds (float32, estimated), bytes.

    Raises
    ------
    NoRecordingsError
        If there are no recordings.
    SettingsError
        If the shards were planned with other settings before.
    ResultsLockedError
        If somebody works on these shards.

    Examples
    --------
    >>> import bacpipe
    >>> plan = bacpipe.plan_shards("recordings", "birdnet", hours_per_shard=0.05)
    >>> len(plan), plan.columns.to_list()
    (12, ['shard', 'recording', 'site', 'seconds', 'bytes'])
    """
    options = make_options(
        **{**kwargs, "audio_dir": audio_dir, "models": models, "hours_per_shard": hours_per_shard}
    )
    return plan(options).frame()


def plan(
    options: Options, *, custom: Mapping[str, object] | None = None, anew: bool | None = False
) -> Manifest:
    """Do what `plan_shards` does, but return the manifest without its rows.

    Parameters
    ----------
    options : Options
        Of the call; ``models`` are those of the shards.
    custom : mapping, optional
        Users' own models, by the names that they have in ``models``.
    anew : bool or None
        Forget the shards that were planned before; what is done is kept.  None: if they were
        planned for other models or settings.
    """
    if options.audio_dir is None:
        raise SettingsError("audio_dir is missing; expected the folder with the recordings.")
    loader = Loader(options.audio_dir, options=options)
    models = [canonical_name(name) for name in options.models]
    if not models:
        raise SettingsError("models is empty; expected at least one name, such as birdnet.")
    for name in models:
        if name not in (custom or {}):
            find_card(name)
    if loader.is_part or options.testing:
        _ = loader.selection  # or says that there is none
    else:
        next(recordings_by_folder(loader.audio_dir, options.audio_suffixes))
    loader.claim()
    paths = loader.paths
    settings = shared_settings(options)
    claims = Claims(paths.claims_path)
    with claims.holding(PLAN, seconds=SECONDS_FOR_OTHERS):
        claims.require_none(but={PLAN})
        before = None
        if paths.manifest_path.is_file() and not anew:
            before = read_manifest(paths, options)
            changed = changed_settings(before, settings)
            if anew is None and (changed or before.models != models):
                before = None
            elif changed:
                raise SettingsError(
                    f"{paths.manifest_path}: these shards were planned with other settings than "
                    f"now ({', '.join(changed)}); a data set has one manifest at a time. Finish it "
                    f"with its own settings, or plan with --anew, which keeps what is done."
                )
            else:
                models = list(dict.fromkeys([*before.models, *models]))
        _one_journal_each(paths, models)
        renewed = write_contracts(paths, options, models, custom or {})
        if before is None or before.models != models or renewed:
            for path in paths.claims_path.glob(f"*{DONE}"):
                path.unlink()
        remove_temporaries(paths.manifest_path.parent)
        manifest = Manifest(paths.manifest_path, loader.audio_dir.resolve(), models, settings)
        if loader.is_part or options.testing:
            folders = folders_of(loader.selection.names, loader.audio_dir)
        else:
            every = folders_on_disk(loader.audio_dir, options.audio_suffixes)
            folders = _outside_results(every, paths)
        return Planner(manifest, options, before).write(folders)


def _outside_results(folders: Iterator[Folder], paths: ResultPaths) -> Iterator[Folder]:
    """Leave out what lies in the results tree."""
    is_empty = True
    for folder in folders:
        try:
            kept = set(without_results(folder.names, paths.audio_dir, paths))
        except NoRecordingsError:
            continue
        is_empty = False
        if len(kept) == len(folder.names):
            yield folder
        else:
            mask = [name in kept for name in folder.names]
            yield Folder([name for name in folder.names if name in kept], folder.sizes[mask])
    if is_empty:
        raise NoRecordingsError(
            f"The audio folder {shown(paths.audio_dir)} holds no recordings besides the results in "
            f"{paths.dataset_path}."
        )


def _one_journal_each(paths: ResultPaths, models: Sequence[str]) -> None:
    """Let every set have one journal: shards that are planned now may hold other recordings."""
    for model in models:
        try:
            with exclusive(paths.main_embeds_path, model, wait=SECONDS_FOR_OTHERS):
                for folder in stamped_folders(paths.main_embeds_path, f"{model}-{paths.dataset}"):
                    if any(path.name != JOURNAL for path in journals_in(folder)):
                        Journal(folder).close()
        except StorageError as error:  # a disk without locks, on which nobody can hold one
            logger.info("%s", error)
