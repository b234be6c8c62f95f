"""Shards: a data set in parts that any number of machines work on at the same time.

`plan` writes which recordings belong to which shard; a `ShardWorker` claims one shard after the
other and embeds its recordings with every model of the plan, into a journal of the shard's own;
whoever reads the results sees all journals at once.  `merge` makes one journal of them, and the
tables over all recordings.

Workers must agree: the plan, or the first of them, writes down which version, weights and settings
all have (the contract), and others are refused with the difference.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bacpipe._version import __version__
from bacpipe.audio.files import recordings_by_folder
from bacpipe.errors import (
    NoRecordingsError,
    ResultsError,
    ResultsLockedError,
    ResultsNotFoundError,
    SettingsError,
    StorageError,
    counted,
)
from bacpipe.models.loading import find_card
from bacpipe.models.weights import checkpoints
from bacpipe.models.zoo import CARDS, canonical_name
from bacpipe.options import Options, make_options, with_changes
from bacpipe.scaling.manifest import (
    Folder,
    Manifest,
    Planner,
    folders_of,
    folders_on_disk,
    read_manifest,
)
from bacpipe.store.claims import Claim, Claims, create_once, whole
from bacpipe.store.data_set_folder import paths_of, without_results
from bacpipe.store.embedding_set import (
    EmbeddingSet,
    differences,
    find_set,
    options_for,
    prediction_settings,
    settings_identity,
)
from bacpipe.store.files import remove_temporaries, write_json
from bacpipe.store.journal import Journal, read_journals
from bacpipe.store.layout import JOURNAL, ResultPaths, journals_in, shard_journal, stamped_folders
from bacpipe.store.loader import Loader
from bacpipe.store.lock import SECONDS_FOR_OTHERS, exclusive
from bacpipe.store.selection import AudioDir, data_set_of
from bacpipe.store.typed_command import typed_command

if TYPE_CHECKING:
    import pandas as pd

    from bacpipe.embedder import Embedder
    from bacpipe.inference.report import RunReport

logger = logging.getLogger(__name__)

_PLAN = "plan"
_DONE = ".done"

# What all workers must have in common, and what a merge needs to make the same tables.
_DECISIVE = (
    "audio_suffixes", "padding", "channel", "hop", "overlap", "allow_truncated",
    "bool_change_speed", "new_speed", "precision", "run_pretrained_classifier",
    "classifier_threshold", "sensitivity", "max_predictions_per_window",
    "annotations_filename", "only_embed_annotations", "min_annotation_length",
)  # fmt: skip
_FOR_TABLES = (
    "sites", "latitude", "longitude", "time_zone", "range_filter", "range_threshold",
    "species_list", "event_gap", "escape_formulas", "excel_bom", "save_raven_tables",
)  # fmt: skip


def shard_name(number: int) -> str:
    """What a worker on a shard claims."""
    return f"shard-{number:05d}"


# ---------------------------------------------------------------------- planning


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
        Any other key of ``bacpipe.config`` and ``bacpipe.settings``; those that decide results
        hold for all workers.

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
    for name in models:
        if name not in (custom or {}):
            find_card(name)
    if loader.is_part or options.testing:
        _ = loader.selection  # or says that there is none
    else:
        next(recordings_by_folder(loader.audio_dir, options.audio_suffixes))
    loader.claim()
    paths = loader.paths
    settings = _shared_settings(options)
    claims = Claims(paths.claims_path)
    with claims.holding(_PLAN, seconds=SECONDS_FOR_OTHERS):
        claims.require_none(but={_PLAN})
        before = None
        if paths.manifest_path.is_file() and not anew:
            before = read_manifest(paths)
            changed = _changed(before, settings)
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
        renewed = _write_contracts(paths, options, models, custom or {})
        if before is None or before.models != models or renewed:
            for path in paths.claims_path.glob(f"*{_DONE}"):
                path.unlink()
        remove_temporaries(paths.manifest_path.parent)
        manifest = Manifest(paths.manifest_path, loader.audio_dir.resolve(), models, settings)
        if loader.is_part or options.testing:
            folders = folders_of(loader.selection.names, loader.audio_dir)
        else:
            found = folders_on_disk(loader.audio_dir, options.audio_suffixes)
            folders = _outside_results(found, paths)
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
            f"The audio folder {paths.audio_dir} holds no recordings besides the results in "
            f"{paths.dataset_path}."
        )


def _shared_settings(options: Options) -> dict[str, Any]:
    """Settings of a plan that its workers and its merge have, too, as JSON holds them."""
    keys = [key for key in (*_DECISIVE, *_FOR_TABLES) if key in options.asked]
    values: dict[str, Any] = json.loads(
        json.dumps({key: getattr(options, key) for key in keys}, default=str)
    )
    return values


def _changed(before: Manifest, settings: Mapping[str, Any]) -> list[str]:
    """Decisive settings in which a plan differs from the one that is there."""
    usual = _shared_settings_of(make_options())
    now, then = ({**usual, **given} for given in (settings, before.settings))
    return differences(now, {key: then[key] for key in _DECISIVE})


def _shared_settings_of(options: Options) -> dict[str, Any]:
    """Decisive settings, asked for or not, as JSON holds them."""
    values: dict[str, Any] = json.loads(
        json.dumps({key: getattr(options, key) for key in _DECISIVE}, default=str)
    )
    return values


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


# ---------------------------------------------------------------------- what workers agree on


def _write_contracts(
    paths: ResultPaths, options: Options, models: Sequence[str], custom: Mapping[str, object]
) -> bool:
    """Write down what workers have to have, as far as it is known; whether anything changed."""
    changed = False
    for model in models:
        path = paths.contract_path(model)
        before = _read_contract(path)
        path.unlink(missing_ok=True)
        card = CARDS.get(model)
        base = Path(options.model_base_path)
        if model in custom or card is None or checkpoints.missing_files(card, base):
            continue  # the first worker does
        from bacpipe.inference.run_data_set import model_identity

        predict = options.run_pretrained_classifier and card.is_classifier
        chosen = options_for(options, model)
        contract = _contract(model_identity(model, chosen), chosen, predict=predict)
        write_json(path, contract)
        changed = changed or (
            before is not None and _without_version(before) != _without_version(contract)
        )
    return changed


def _contract(identity: Mapping[str, Any], options: Options, *, predict: bool) -> dict[str, Any]:
    contract = {
        "bacpipe": __version__,
        "identity": {**identity, **settings_identity(options)},
        "predictions": prediction_settings(options) if predict else None,
    }
    plain: dict[str, Any] = json.loads(json.dumps(contract))
    return plain


def _without_version(contract: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in contract.items() if key != "bacpipe"}


def _read_contract(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise ResultsError(
            f"{path}: what the workers agreed on cannot be read ({error}); plan the shards again."
        ) from None
    if not isinstance(content, dict) or not isinstance(content.get("identity"), dict):
        raise ResultsError(f"{path}: is no agreement of workers; plan the shards again.")
    return content


def _agree(path: Path, mine: Mapping[str, Any]) -> None:
    """Make sure that a worker computes what the others do.

    Raises
    ------
    ResultsError
        Naming the differences.
    """
    if create_once(path, json.dumps(mine, indent=2) + "\n"):
        return
    theirs = _read_contract(path)
    if theirs is None:
        raise ResultsLockedError(f"{path}: the shards are being planned; try again.")
    flat = [
        {"bacpipe": what.get("bacpipe"), **what["identity"], **(what.get("predictions") or {})}
        | {"run_pretrained_classifier": what.get("predictions") is not None}
        for what in (mine, theirs)
    ]
    if found := differences(*flat):
        raise ResultsError(
            f"{path}: this worker would compute other results than those before it "
            f"({', '.join(found)}); use the same version, weights and settings on all machines, or "
            f"plan the shards again with those of this one, when nobody works on them."
        )


# ---------------------------------------------------------------------- working


@dataclass
class ShardReport:
    """What a worker has done with a shard.

    Attributes
    ----------
    number : int
        The shard.
    reports : dict of str to RunReport
        One for each model.
    seconds : float
        How long it took.
    """

    number: int
    reports: dict[str, RunReport] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def failed(self) -> list[tuple[str, str]]:
        """Recordings that failed, each once, with the reason."""
        pairs = (pair for report in self.reports.values() for pair in report.failed)
        return sorted(dict(pairs).items())

    def __str__(self) -> str:
        done = ", ".join(
            f"{name}: {counted(report.done, 'recording')} done, {report.kept:,} kept"
            for name, report in self.reports.items()
        )
        failed = f", {len(self.failed)} failed" if self.failed else ""
        return f"shard {self.number}: {done}{failed} ({self.seconds:.0f} s)"


class ShardWorker:
    """Works on shards of a data set, one at a time, with models that it loads once.

    Parameters
    ----------
    options : Options
        Of the call; what decides results comes from the plan, and must not be contradicted.
    custom : mapping, optional
        Users' own models, by their names.
    claims : Claims, optional
        Instead of those of the data set, with a lease or clock of one's own.

    Raises
    ------
    ResultsNotFoundError
        If no shards are planned.
    ResultsError
        If this bacpipe or its settings are others than those of the plan, naming the difference.
    """

    def __init__(
        self,
        options: Options,
        *,
        custom: Mapping[str, object] | None = None,
        claims: Claims | None = None,
    ) -> None:
        self._custom = dict(custom or {})
        self.audio_dir, self.paths, self.manifest = _find_manifest(options)
        self.options = _options_of_plan(options, self.manifest)
        if self.options.precision == "bfloat16":
            # Loading PyTorch takes seconds.
            from bacpipe.inference.audio_handler import with_possible_precision

            self.options = with_possible_precision(self.options)
        self.claims = claims or Claims(self.paths.claims_path)
        self._embedders: dict[str, Embedder] = {}
        self._one_at_a_time = threading.Lock()

    def work(self, number: int) -> ShardReport:
        """Work on a shard, whatever is done of it.

        Raises
        ------
        ResultsLockedError
            If another worker does.
        ResultsNotFoundError
            If there is no such shard.
        """
        with self._one_at_a_time, self.claims.holding(shard_name(number)) as claim:
            return self._work(number, claim)

    def wait_and_work(self, number: int) -> ShardReport:
        """Do what `work` does, after waiting for a worker before this one that was lost."""
        with self._one_at_a_time:
            seconds = 1.5 * self.claims.lease
            with self.claims.holding(shard_name(number), seconds=seconds) as claim:
                return self._work(number, claim)

    def work_on_all(self, most: int | None = None) -> Iterator[ShardReport]:
        """Work on one free shard after the other, until none is left that nobody else works on.

        The shards of workers that were killed are taken over, once they have given no sign of
        life for as long as the lease lasts.

        Parameters
        ----------
        most : int, optional
            End after so many.
        """
        number_done = 0
        while most is None or number_done < most:
            claimed = self._next()
            if claimed is None:
                return
            number, claim = claimed
            try:
                with self._one_at_a_time:
                    report = self._work(number, claim)
            finally:
                claim.release()
            number_done += 1
            yield report

    def _next(self) -> tuple[int, Claim] | None:
        """Claim the next shard that is not done; None if there is none that is free."""
        since = self.claims.clock()
        while True:
            done, generations = done_shards(self.paths), self.claims.generations()
            left = [number for number in self.manifest.shards if number not in done]
            for number in left:
                claim = self.claims.take(shard_name(number), generations)
                if claim is None:
                    continue
                if number not in done_shards(self.paths):
                    return number, claim
                claim.release()  # another has finished it since
            states = [self.claims.is_alive(shard_name(number), since) for number in left]
            if all(states):
                return None
            if False not in states:
                time.sleep(self.claims.lease / 60)

    def _work(self, number: int, claim: Claim) -> ShardReport:
        for other in (_PLAN, *map(whole, self.manifest.models)):
            holder = self.claims.holder(other)
            if holder is not None and not holder.is_dead:
                raise ResultsLockedError(
                    f"{self.paths.dataset_path}: {holder.who} is "
                    f"{'planning or merging the shards' if other == _PLAN else 'running over all'}"
                    f"; wait until that is done, then run the same command again."
                )
        started = time.perf_counter()
        # It may have been planned again since.
        self.manifest = read_manifest(self.paths)
        part = self.manifest.part(number)
        self._require_recordings(number, part.names)
        found = ShardReport(number)
        from bacpipe.inference.run_data_set import embed_part

        threads = not self.options.avoid_pipelined_gpu_inference
        for model in self.manifest.models:
            loader = Loader(
                self.audio_dir, model, use_folder_structure=True, options=self.options, part=part
            )
            embedder = self._embedder(model, loader)
            found.reports[model] = embed_part(embedder, loader, claim, threads=threads)
        claim.check()
        found.seconds = time.perf_counter() - started
        write_json(
            self.paths.claims_path / f"{shard_name(number)}{_DONE}",
            {"recordings": len(part.names), "failed": len(found.failed), "by": claim.who},
        )
        return found

    def _require_recordings(self, number: int, names: Sequence[str]) -> None:
        gone = [name for name in names if not (self.audio_dir / name).is_file()]
        if not gone:
            return
        sentence = (
            f"{self.paths.manifest_path}: the manifest no longer fits {self.audio_dir}: of shard "
            f"{number}, {len(gone):,} of {counted(len(names), 'recording')} "
            f"{'is' if len(gone) == 1 else 'are'} not there, such as {gone[0]}; make them "
            f"reachable on this machine, or plan the shards again"
        )
        if len(gone) == len(names):
            raise ResultsError(f"{sentence}.")
        logger.warning("%s. The others are worked on.", sentence)

    def _embedder(self, model: str, loader: Loader) -> Embedder:
        """The model, loaded once, when it is known to compute what the others do."""
        if model not in self._embedders:
            # Other commands need not wait for PyTorch.
            from bacpipe.embedder import Embedder
            from bacpipe.inference.run_data_set import model_identity, prepare_set

            embedder = Embedder(model, loader, CustomModel=self._custom.get(model))
            loaded = embedder.loaded_model
            identity = model_identity(model, loader.options, loaded)
            predict = loader.options.run_pretrained_classifier and bool(loaded.classes)
            mine = _contract(identity, loader.options, predict=predict)
            _agree(self.paths.contract_path(model), mine)
            with self.claims.holding(f"set-of-{model}", seconds=1.5 * self.claims.lease):
                prepare_set(loader, loaded)
            self._embedders[model] = embedder
        return self._embedders[model]


def done_shards(paths: ResultPaths) -> dict[int, Path]:
    """Shards that a worker has finished, with what it wrote about them."""
    found = paths.claims_path.glob(f"{shard_name(0)[:-5]}*{_DONE}")
    return {int(path.name.removesuffix(_DONE).rpartition("-")[2]): path for path in found}


def _find_manifest(options: Options) -> tuple[Path, ResultPaths, Manifest]:
    if options.audio_dir is None:
        raise SettingsError("audio_dir is missing; expected the folder with the recordings.")
    folder = data_set_of(options.audio_dir).folder
    paths = paths_of(folder, "none", options)
    return folder, paths, read_manifest(paths)


def _options_of_plan(options: Options, manifest: Manifest) -> Options:
    """Options of a worker: those of the plan, and its own where they decide nothing.

    Raises
    ------
    ResultsError
        If they contradict each other, or the plan was made by another version.
    """
    usual, own = _shared_settings_of(make_options()), _shared_settings_of(options)
    planned = {**usual, **manifest.settings}
    asked = [key for key in _DECISIVE if key in options.asked]
    found = differences(own, {key: planned[key] for key in asked})
    if manifest.version != __version__:
        found.insert(0, f"bacpipe {__version__} instead of {manifest.version}")
    if found:
        raise ResultsError(
            f"{manifest.path}: these shards were planned with other settings than those of this "
            f"worker ({', '.join(found)}); use those of the plan, or plan the shards again, when "
            f"nobody works on them."
        )
    kept = {key: value for key, value in manifest.settings.items() if key not in options.asked}
    return with_changes(
        options, **kept, recordings=None, models=manifest.models, check_if_already_processed=True
    )


# ---------------------------------------------------------------------- how far they are


def shard_status(options: Options) -> pd.DataFrame:
    """How far each shard is.

    Returns
    -------
    pandas.DataFrame
        A row per shard: shard, site, recordings, hours, state ('open', 'working', 'stopped' for
        a worker of which it is known that it was killed, 'done'), done and failed (recordings, by
        the model that is furthest behind), worker.
    """
    _, paths, manifest = _find_manifest(options)
    table = manifest.shard_table()
    claims, done = Claims(paths.claims_path), done_shards(paths)
    generations = claims.generations()
    sets = [found for model in manifest.models if (found := _set_folder(paths, model)) is not None]
    rows = []
    for number in table["shard"].tolist():
        holder = claims.holder(shard_name(number)) if shard_name(number) in generations else None
        state, worker = "open", ""
        if number in done:
            state = "done"
        if holder is not None:
            state, worker = "stopped" if holder.is_dead else "working", holder.who
        counts = [_counts(folder, number) for folder in sets]
        complete = len(counts) == len(manifest.models)
        finished = min((count[0] for count in counts), default=0) if complete else 0
        rows.append((state, finished, max((count[1] for count in counts), default=0), worker))
    table[["state", "done", "failed", "worker"]] = rows
    return table.drop(columns=["first", "last"])


def _set_folder(paths: ResultPaths, model: str) -> Path | None:
    contract = _read_contract(paths.contract_path(model))
    if contract is None:
        return None
    identity = contract["identity"]
    found = find_set(paths.main_embeds_path, model, paths.dataset, identity, part="")
    return None if found is None else found.folder


def _counts(folder: Path, number: int) -> tuple[int, int]:
    """Recordings of a shard that are done and that failed, by its own journal."""
    content = read_journals(folder, shard_journal(number))
    return len(content.done), len(content.recordings) - len(content.done)


# ---------------------------------------------------------------------- merging


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
    audio_dir, paths, manifest = _find_manifest(options)
    options = _options_of_plan(options, manifest)
    claims = Claims(paths.claims_path)
    with claims.holding(_PLAN, seconds=SECONDS_FOR_OTHERS):
        claims.require_none(but={_PLAN})
        done = done_shards(paths)
        missing = [number for number in manifest.shards if number not in done]
        if missing and not incomplete:
            few = ", ".join(map(str, missing[:10])) + (" ..." if len(missing) > 10 else "")
            raise ResultsError(
                f"{paths.manifest_path}: {counted(len(missing), 'shard')} of "
                f"{len(manifest.shards):,} {'is' if len(missing) == 1 else 'are'} not done "
                f"({few}); do them with {typed_command('shards work --next', audio_dir, options)}, "
                f"or merge what there is with --incomplete."
            )
        remove_temporaries(paths.manifest_path.parent)
        return {model: _merge(audio_dir, model, options, paths) for model in manifest.models}


def _merge(audio_dir: Path, model: str, options: Options, paths: ResultPaths) -> Loader:
    folder = _set_folder(paths, model)
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
