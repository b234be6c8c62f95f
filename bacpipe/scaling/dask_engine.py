"""Shards as tasks of Dask: on this computer, on a cluster's queue, or wherever a scheduler runs.

Whoever asks plans the shards, hands their numbers to the scheduler, a few for each worker at a
time, and gets a report of each back.  A worker process loads each model once, and claims the
shards that it is given (`bacpipe.store.claims`), so that one which was lost, or is believed to be,
never works on a shard together with the one that was sent in its place.

Failure policy: what a shard cannot do is told when all others are done; a task whose worker was
lost is given to another by the scheduler.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import shlex
import shutil
import signal
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from bacpipe import extras
from bacpipe.errors import BacpipeError, SettingsError, StorageError, counted, said, unexpected
from bacpipe.inference.report import RunReport, is_interactive
from bacpipe.machine import available_cores
from bacpipe.options import Options, with_changes
from bacpipe.scaling.merging import merge
from bacpipe.scaling.planning import plan
from bacpipe.scaling.shards import ShardReport, ShardWorker
from bacpipe.store.loader import Loader

if TYPE_CHECKING:
    from distributed import Client, Worker

logger = logging.getLogger(__name__)

_JOB_QUEUES = {
    "slurm": "SLURMCluster",
    "pbs": "PBSCluster",
    "lsf": "LSFCluster",
    "sge": "SGECluster",
    "htcondor": "HTCondorCluster",
    "oar": "OARCluster",
    "moab": "MoabCluster",
}
_SIZES_OF_JOBS = {"cores": "4", "memory": "16GB"}
_PLUGIN = "bacpipe-shards"
_WAITING = 2  # shards that wait for each worker, so that none is ever idle
_SHOWN = 5  # errors


def run_on_dask(
    options: Options, custom: Mapping[str, object]
) -> dict[str, tuple[Loader, RunReport]]:
    """Run models over a data set in shards, and put the results together.

    Parameters
    ----------
    options : Options
        Of the call; ``models``, ``scheduler``, ``cluster_settings`` and ``hours_per_shard`` say
        what is run and where.
    custom : mapping
        Users' own models, by the names that they have in ``models``.

    Returns
    -------
    dict of str to (Loader, RunReport)
        One for each model.

    Raises
    ------
    SettingsError
        If a package of the extra ``cluster`` is missing, or a setting is impossible.
    BacpipeError
        If shards could not be done; all others are.
    """
    if not options.check_if_already_processed:
        raise SettingsError(
            "check_if_already_processed=false is not possible with engine=dask, whose workers go "
            "on with what is there; use engine=local, or another main_results_dir."
        )
    _import("distributed")
    started = time.perf_counter()
    with _client(options) as client:
        manifest = plan(options, custom=custom, anew=None)
        # Elsewhere, a relative path would mean something else.
        for_workers = with_changes(
            options,
            audio_dir=str(manifest.audio_dir),
            main_results_dir=str(Path(options.main_results_dir).resolve()),
            model_base_path=str(Path(options.model_base_path).resolve()),
            recordings=None,
            engine="local",
        )
        reports, errors = _work_on(client, manifest.shards, for_workers, custom)
    if errors:
        told = "; ".join(
            f"shard {n}: {text.rstrip('.')}" for n, text in sorted(errors.items())[:_SHOWN]
        )
        more = f"; and {len(errors) - _SHOWN:,} more" if len(errors) > _SHOWN else ""
        raise BacpipeError(
            f"{counted(len(errors), 'shard')} of {len(manifest.shards):,} could not be done, all "
            f"others are ({told}{more}). The same command again goes on with them."
        )
    loaders = merge(for_workers)
    seconds = time.perf_counter() - started
    return {
        name: (loader, _sum(name, loader, reports.values(), seconds))
        for name, loader in loaders.items()
    }


def _work_on(
    client: Client, shards: list[int], options: Options, custom: Mapping[str, object]
) -> tuple[dict[int, ShardReport], dict[int, str]]:
    """Have all shards worked on; returns reports, and errors of those that could not be done."""
    from distributed import as_completed

    reports: dict[int, ShardReport] = {}
    errors: dict[int, str] = {}
    client.register_plugin(_plugin(options, custom), name=_PLUGIN)
    left = iter(shards)
    run = f"{time.time_ns():x}"
    numbers: dict[str, int] = {}

    def submit(number: int) -> Any:  # noqa: ANN401 - a future of Dask
        # Shards early in the list come first, also those of a lost worker.
        future = client.submit(
            _task, number, key=f"shard-{run}-{number}", pure=False, priority=-number, retries=2
        )
        numbers[future.key] = number
        return future

    first = [submit(number) for number in itertools.islice(left, _most(client))]
    running = as_completed(first)
    bar = tqdm(total=len(shards), unit=" shards", disable=not is_interactive())
    try:
        for future in running:
            number = numbers.pop(future.key)
            if future.status == "finished":
                outcome = future.result()
                if isinstance(outcome, BacpipeError):
                    errors[number] = said(outcome)
                else:
                    reports[number] = outcome
                    logger.info("%s", outcome)
            else:
                errors[number] = unexpected("its worker", future.exception())
            if number in errors:
                logger.error("shard %d: %s", number, errors[number])
            bar.update()
            future.release()
            while len(numbers) < _most(client) and (following := next(left, None)) is not None:
                running.add(submit(following))
    finally:
        bar.close()
    return reports, errors


def _most(client: Client) -> int:
    """Shards that the scheduler is given at a time: it need not know a hundred thousand."""
    workers: dict[str, int] = client.nthreads()
    return max(8, _WAITING * sum(workers.values()))


def _task(number: int) -> ShardReport | BacpipeError:
    """Work on a shard, in a worker process."""
    from distributed import get_worker

    try:
        report: ShardReport = get_worker().plugins[_PLUGIN].work(number)
        return report
    except StorageError:
        raise  # a disk may come back: tried again
    except BacpipeError as error:
        return error  # the same again


def _plugin(options: Options, custom: Mapping[str, object]) -> Any:  # noqa: ANN401 - its class is made here
    """What each worker process gets: it holds the models, which it loads with its first shard."""
    from distributed import WorkerPlugin

    class Models(WorkerPlugin):  # type: ignore[misc]
        """Models of one worker process."""

        def __init__(self) -> None:
            self.shards: ShardWorker | None = None

        def setup(self, worker: Worker) -> None:
            self.number = worker.name
            self.lock = threading.Lock()

        def work(self, number: int) -> ShardReport:
            with self.lock:
                if self.shards is None:
                    self.shards = ShardWorker(_for_worker(options, self.number), custom=custom)
            return self.shards.wait_and_work(number)

    return Models()


def _for_worker(options: Options, number: object) -> Options:
    """Options of one of the workers on a computer, which share its GPUs or cores."""
    if options.scheduler != "local" or not isinstance(number, int):
        return options
    gpus = _gpus(options)
    if gpus > 1:
        return with_changes(options, device=f"cuda:{number % gpus}")
    if gpus == 0 and hasattr(os, "sched_setaffinity"):
        # All threads that this one starts have its share.
        cores = sorted(os.sched_getaffinity(0))
        workers = _local_workers(options)
        if workers <= len(cores):
            os.sched_setaffinity(0, set(cores[number % workers :: workers]))
    return options


def _local_workers(options: Options) -> int:
    given = options.cluster_settings.get("n_workers")
    return given if isinstance(given, int) and given > 0 else _gpus(options) or available_cores()


def _gpus(options: Options) -> int:
    """GPUs of this computer that the models may use; 0 if they compute on the CPU."""
    if options.device not in {"auto", "cuda"}:
        return 1 if options.device != "cpu" else 0
    import torch

    return torch.cuda.device_count()


def _sum(name: str, loader: Loader, parts: Collection[ShardReport], seconds: float) -> RunReport:
    """One report of those of all shards."""
    total = RunReport(name, wall_seconds=seconds, results=loader.embed_dir)
    for part in parts:
        report = part.reports[name]
        total.done += report.done
        total.kept += report.kept
        total.windows += report.windows
        total.audio_seconds += report.audio_seconds
        total.failed += report.failed
        total.device = report.device
    total.failed += loader.selection.missing
    total.notes.append(f"in {counted(len(parts), 'shard')}, by Dask")
    return total


# ---------------------------------------------------------------------- where the workers are


@contextmanager
def _client(options: Options) -> Iterator[Client]:
    """A client of the scheduler that is wanted, and what this call has started for it."""
    from distributed import Client

    if "://" in options.scheduler:
        try:
            client = Client(options.scheduler, timeout="20s")
        except (OSError, TimeoutError, ValueError) as error:
            raise SettingsError(
                f"scheduler={options.scheduler}: no scheduler of Dask answers there "
                f"({said(error) or type(error).__name__}); start one with dask scheduler, or check "
                f"the address."
            ) from None
        cluster = None
    else:
        cluster = _cluster(options)
        client = Client(cluster)
    try:
        logger.info("Dask shows the work at %s", client.dashboard_link)
        if not client.nthreads():
            logger.info("No worker is there yet; waiting for the first.")
        yield client
    finally:
        try:
            client.close()
        finally:
            if cluster is not None:
                _close(cluster)


def _cluster(options: Options) -> Any:  # noqa: ANN401 - a cluster of one of several packages
    name, settings = options.scheduler, dict(options.cluster_settings)
    if name == "local":
        kind = _import("distributed").LocalCluster
        defaults = {"n_workers": _local_workers(options), "threads_per_worker": 1}
        settings = {**defaults, **settings}
    elif name == "kubernetes":
        try:
            kind = import_module("dask_kubernetes.operator").KubeCluster
        except ImportError:
            raise SettingsError(
                "scheduler=kubernetes needs the package dask-kubernetes, which is not installed; "
                "install it with: pip install dask-kubernetes"
            ) from None
    else:
        kind = getattr(_import("dask_jobqueue"), _JOB_QUEUES[name])
        settings = _job_settings(name, settings)
        _require_queue(name, kind)
    workers = settings.pop("n_workers") if name in _JOB_QUEUES else None
    levels = [(handler, handler.level) for handler in logging.getLogger().handlers]
    try:
        cluster = kind(**settings)
    except (TypeError, ValueError, OSError, RuntimeError) as error:
        raise SettingsError(
            f"cluster_settings={dict(options.cluster_settings)} is not possible with "
            f"scheduler={name}: {said(error) or type(error).__name__}"
        ) from None
    finally:
        # Dask silences Bokeh, whose handlers may be everybody's, until the cluster is closed.
        for handler, level in levels:
            handler.setLevel(level)
    if workers is not None:
        _submit_jobs(name, cluster, workers)
    return cluster


def _job_settings(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords of a cluster of jobs: one worker in each, with one task at a time on all its cores.

    Raises
    ------
    SettingsError
        If it is not said how much a job takes, or how many workers are wanted is no number.
    """
    import dask

    def value_of(key: str) -> Any:  # noqa: ANN401 - of any keyword
        # What is not given comes from dask-jobqueue's own file.
        place = f"jobqueue.{given.get('config_name', name)}.{key}"
        return dask.config.get(place, None) if given.get(key) is None else given[key]

    examples = _SIZES_OF_JOBS | ({"disk": "10GB"} if name == "htcondor" else {})
    missing = [key for key in examples if value_of(key) is None]
    if missing:
        example = ", ".join(f"{key}: {value}" for key, value in examples.items())
        raise SettingsError(
            f"cluster_settings lacks {' and '.join(missing)}, which scheduler={name} needs for "
            f"each job; give such as cluster_settings={{{example}}}."
        )
    workers = given.get("n_workers", 1)
    if not isinstance(workers, int) or workers < 0:
        raise SettingsError(
            f"n_workers={workers!r} in cluster_settings is not possible; expected a number of "
            f"workers."
        )
    return {
        **given,
        "n_workers": workers,
        "processes": value_of("processes") or 1,
        "worker_extra_args": ["--nthreads", "1", *(value_of("worker_extra_args") or ())],
    }


def _require_queue(name: str, kind: Any) -> None:  # noqa: ANN401 - a class without types
    command = shlex.split(kind.job_cls.submit_command)[0]
    if shutil.which(command) is None:
        raise SettingsError(
            f"scheduler={name} submits jobs by the command {command}, which is not found on this "
            f"computer; run this where jobs can be submitted, such as on a login node."
        )


def _submit_jobs(name: str, cluster: Any, workers: int) -> None:  # noqa: ANN401 - without types
    """Submit jobs and wait for the queue to have them: for refused ones, Dask waits for ever.

    Raises
    ------
    SettingsError
        With what the queue says, if it has taken none.
    """

    async def submit() -> list[str]:
        # As by the cluster's own scale(), of whose refusals Tornado prints a traceback.
        while len(cluster.plan) < workers:
            cluster.worker_spec.update(cluster.new_worker_spec())
        with suppress(RuntimeError, ValueError, OSError):  # of the first that was refused
            await cluster
        # Those that were refused are submitted once more, and say why.
        answers = await asyncio.gather(*cluster.workers.values(), return_exceptions=True)
        return [said(answer) for answer in answers if isinstance(answer, BaseException)]

    refusals = cluster.sync(submit)
    if not refusals:
        return
    if len(refusals) < len(cluster.workers):
        logger.warning(
            "scheduler=%s: the queue refused %d of %d jobs (%s); the others do the work.",
            name, len(refusals), len(cluster.workers), refusals[0],
        )  # fmt: skip
        return
    _close(cluster)
    raise SettingsError(
        f"scheduler={name}: the queue refused the jobs ({refusals[0]}); correct cluster_settings."
    )


def _close(cluster: Any) -> None:  # noqa: ANN401 - a cluster of one of several packages
    """End a cluster that was started here, and its workers."""
    from distributed import Status

    if hasattr(cluster, "job_cls"):
        for job in cluster.workers.values():
            job.status = Status.closing  # jobs never say so, which Dask takes for an error
    cluster.close()


def _import(package: str) -> Any:  # noqa: ANN401 - a module without types
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        return import_module(package)
    except Exception as error:  # packages that are broken raise anything
        raise SettingsError(extras.cannot_import("engine=dask", "cluster", error)) from None
    finally:
        # dask-jobqueue makes Ctrl-C end the process, when it is imported: a run has to be told of
        # it, and whoever sits at a notebook wants to keep its kernel.
        if interrupt is not None and signal.getsignal(signal.SIGINT) is not interrupt:
            signal.signal(signal.SIGINT, interrupt)
