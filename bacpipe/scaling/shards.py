"""Shards: a data set in parts that any number of machines work on at the same time.

`bacpipe.scaling.planning` writes which recordings belong to which shard; a `ShardWorker` claims one
shard after the other and embeds its recordings with every model of the plan, into a journal of the
shard's own; whoever reads the results sees all journals at once.  `bacpipe.scaling.merging` makes
one journal of them, and the tables over all recordings.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bacpipe.audio.remote import is_recording_there, look_ahead, shown
from bacpipe.errors import ResultsError, ResultsLockedError, SettingsError, counted
from bacpipe.options import Options
from bacpipe.scaling.agreement import agree, make_contract, options_of_plan, read_contract
from bacpipe.scaling.manifest import Manifest, read_manifest
from bacpipe.store.claims import Claim, Claims, whole
from bacpipe.store.data_set_folder import paths_of
from bacpipe.store.embedding_set import find_set
from bacpipe.store.entries import FAILED
from bacpipe.store.files import write_json
from bacpipe.store.journal import read_journals
from bacpipe.store.layout import ResultPaths
from bacpipe.store.loader import Loader
from bacpipe.store.selection import data_set_of

if TYPE_CHECKING:
    import pandas as pd

    from bacpipe.embedder import Embedder
    from bacpipe.inference.report import RunReport

logger = logging.getLogger(__name__)

PLAN = "plan"
"""What is claimed while shards are planned or merged."""

DONE = ".done"
"""Suffix of what a worker writes about a shard that it has finished."""

_FIRST_PAUSE = 0.1  # seconds

_FINISHED = re.compile(rf"shard-(\d{{5,}}){re.escape(DONE)}")


def shard_name(number: int) -> str:
    """What a worker on a shard claims."""
    return f"shard-{number:05d}"


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
        self.audio_dir, self.paths, self.manifest = find_manifest(options)
        self.options = options_of_plan(options, self.manifest)
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
        since, pause = self.claims.clock(), _FIRST_PAUSE
        while True:
            done, generations = done_shards(self.paths), self.claims.generations()
            left = [number for number in self.manifest.shards if number not in done]
            for number in left:
                claim = self.claims.take(shard_name(number), generations)
                if claim is None:
                    continue
                try:
                    if number not in done_shards(self.paths):
                        return number, claim
                except BaseException:
                    claim.release()
                    raise
                claim.release()  # another has finished it since
            states = [self.claims.is_alive(shard_name(number), since) for number in left]
            if all(states):
                return None
            if False not in states:
                # Most of those who work on the last shards are about to be done with them.
                pause = min(pause, self.claims.lease / 60)
                time.sleep(pause)
                pause *= 2

    def _work(self, number: int, claim: Claim) -> ShardReport:
        for other in (PLAN, *map(whole, self.manifest.models)):
            holder = self.claims.holder(other)
            if holder is not None and not holder.is_dead:
                raise ResultsLockedError(
                    f"{self.paths.dataset_path}: {holder.who} is "
                    f"{'planning or merging the shards' if other == PLAN else 'running over all'}"
                    f"; wait until that is done, then run the same command again."
                )
        started = time.perf_counter()
        # It may have been planned again since.
        self.manifest = read_manifest(self.paths, self.options)
        part = self.manifest.part(number)
        self._require_recordings(number, part.names)
        report = ShardReport(number)
        from bacpipe.inference.run_data_set import embed_part

        threads = not self.options.avoid_pipelined_gpu_inference
        for model in self.manifest.models:
            loader = Loader(
                self.audio_dir, model, use_folder_structure=True, options=self.options, part=part
            )
            embedder = self._embedder(model, loader)
            report.reports[model] = embed_part(embedder, loader, claim, threads=threads)
        claim.check()
        report.seconds = time.perf_counter() - started
        write_json(
            self.paths.claims_path / f"{shard_name(number)}{DONE}",
            {"recordings": len(part.names), "failed": len(report.failed), "by": claim.who},
        )
        return report

    def _require_recordings(self, number: int, names: Sequence[str]) -> None:
        look_ahead(self.audio_dir / name for name in names)
        gone = [name for name in names if not is_recording_there(self.audio_dir / name)]
        if not gone:
            return
        sentence = (
            f"{self.paths.manifest_path}: the manifest no longer fits "
            f"{shown(self.audio_dir)}: of shard "
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
            mine = make_contract(identity, loader.options, predict=predict)
            agree(self.paths.contract_path(model), mine)
            with self.claims.holding(f"set-of-{model}", seconds=1.5 * self.claims.lease):
                prepare_set(loader, loaded)
            self._embedders[model] = embedder
        return self._embedders[model]


def done_shards(paths: ResultPaths) -> dict[int, Path]:
    """Shards that a worker has finished, with what it wrote about them."""
    # Programs that synchronise folders leave copies of other names, which count for nothing.
    written = paths.claims_path.glob(f"*{DONE}")
    return {int(match[1]): path for path in written if (match := _FINISHED.fullmatch(path.name))}


def find_manifest(options: Options) -> tuple[Path, ResultPaths, Manifest]:
    """Folder of a data set, the paths of its results, and its plan.

    Raises
    ------
    ResultsNotFoundError
        If there is no plan.
    SettingsError
        If no data set is named.
    """
    if options.audio_dir is None:
        raise SettingsError("audio_dir is missing; expected the folder with the recordings.")
    folder = data_set_of(options.audio_dir).folder
    paths = paths_of(folder, "none", options)
    return folder, paths, read_manifest(paths, options)


def shard_status(options: Options) -> pd.DataFrame:
    """How far each shard is.

    Returns
    -------
    pandas.DataFrame
        A row per shard: shard, site, recordings, hours, state ('open', 'working', 'stopped' for
        a worker of which it is known that it was killed, 'done'), done and failed (recordings, by
        the model that is furthest behind), worker.
    """
    _, paths, manifest = find_manifest(options)
    table = manifest.shard_table()
    claims, done = Claims(paths.claims_path), done_shards(paths)
    generations = claims.generations()
    sets = [folder for name in manifest.models if (folder := set_folder(paths, name)) is not None]
    counts = [_counts(folder, manifest) for folder in sets]
    rows = []
    for number in table["shard"].tolist():
        holder = claims.holder(shard_name(number), generations)
        state, worker = "open", ""
        if number in done:
            state = "done"
        if holder is not None:
            state, worker = "stopped" if holder.is_dead else "working", holder.who
        complete = len(sets) == len(manifest.models)
        finished = min((done_in[number] for done_in, _ in counts), default=0) if complete else 0
        failed = max((failed_in[number] for _, failed_in in counts), default=0)
        rows.append((state, finished, failed, worker))
    table[["state", "done", "failed", "worker"]] = rows
    return table.drop(columns=["first", "last"])


def set_folder(paths: ResultPaths, model: str) -> Path | None:
    """Folder of the set of embeddings that the workers agreed on; None if there is none yet."""
    contract = read_contract(paths.contract_path(model))
    if contract is None:
        return None
    identity = contract["identity"]
    embedding_set = find_set(paths.main_embeds_path, model, paths.dataset, identity, part="")
    return None if embedding_set is None else embedding_set.folder


def _counts(folder: Path, manifest: Manifest) -> tuple[Counter[int], Counter[int]]:
    """Recordings of each shard that are done, and that failed, whoever has worked on them."""
    entries = read_journals(folder).recordings
    done: Counter[int] = Counter()
    failed: Counter[int] = Counter()
    for number, name in manifest.places():
        if name not in entries:
            continue
        if entries.is_done(name):
            done[number] += 1
        else:
            failed[number] += entries[name].status == FAILED
    return done, failed
