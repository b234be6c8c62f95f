"""Putting the results of shards together: one journal, and the tables over all recordings."""

from __future__ import annotations

from pathlib import Path

from bacpipe.errors import ResultsError, ResultsNotFoundError, counted
from bacpipe.options import Options
from bacpipe.scaling.agreement import options_of_plan
from bacpipe.scaling.shards import PLAN, done_shards, find_manifest, set_folder
from bacpipe.store.claims import Claims
from bacpipe.store.embedding_set import EmbeddingSet
from bacpipe.store.files import remove_temporaries
from bacpipe.store.journal import Journal
from bacpipe.store.layout import ResultPaths
from bacpipe.store.loader import Loader
from bacpipe.store.lock import SECONDS_FOR_OTHERS, exclusive
from bacpipe.store.typed_command import typed_command


def merge(options: Options, *, incomplete: bool = False) -> dict[str, Loader]:
    """Make one journal of those of the shards, and the tables over all recordings.

    Parameters
    ----------
    options : Options
        Of the call; what decides results comes from the plan.
    incomplete : bool
        Also if shards are not done.

    Returns
    -------
    dict of str to Loader
        One for each model.

    Raises
    ------
    ResultsError
        If shards are not done.
    ResultsLockedError
        If somebody works on one.
    """
    audio_dir, paths, manifest = find_manifest(options)
    options = options_of_plan(options, manifest)
    claims = Claims(paths.claims_path)
    with claims.holding(PLAN, seconds=SECONDS_FOR_OTHERS):
        claims.require_none(but={PLAN})
        done = done_shards(paths)
        missing = [number for number in manifest.shards if number not in done]
        if missing and not incomplete:
            few = ", ".join(map(str, missing[:10])) + (" ..." if len(missing) > 10 else "")
            raise ResultsError(
                f"{paths.manifest_path}: {counted(len(missing), 'shard')} of "
                f"{len(manifest.shards):,} {'is' if len(missing) == 1 else 'are'} not done "
                f"({few}); merge what there is with --incomplete, or do them with: "
                f"{typed_command('shards work --next', audio_dir, options)}"
            )
        remove_temporaries(paths.manifest_path.parent)
        return {model: _merge(audio_dir, model, options, paths) for model in manifest.models}


def _merge(audio_dir: Path, model: str, options: Options, paths: ResultPaths) -> Loader:
    folder = set_folder(paths, model)
    if folder is None:
        raise ResultsNotFoundError(
            f"{paths.main_embeds_path}: no shard has results of {model} yet; work on them first."
        )
    from bacpipe.inference.run_data_set import tables_are_complete, write_tables

    with exclusive(paths.main_embeds_path, model, wait=SECONDS_FOR_OTHERS):
        Journal(folder).close()
        loader = Loader(
            audio_dir, model, use_folder_structure=True, check_if_combination_exists=False,
            options=options,
        )  # fmt: skip
        loader.embedding_set = EmbeddingSet(folder)
        remove_temporaries(folder)
        if not loader.embedding_set.content.recordings.has_done:
            raise ResultsError(f"{folder}: not one recording of the shards could be embedded.")
        loader.locate_predictions()
        predict = loader.has_predictions
        if predict:
            remove_temporaries(loader.paths.preds_path)
        if not tables_are_complete(loader, predict=predict):
            write_tables(loader, predict=predict)
    return loader
