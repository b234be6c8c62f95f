"""Shards on the workers of Dask: a cluster of two processes on this computer."""

from __future__ import annotations

import importlib.util
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import bacpipe
from bacpipe.errors import BacpipeError, SettingsError, StorageError
from bacpipe.options import make_options
from bacpipe.scaling import dask_engine
from bacpipe.scaling.manifest import read_manifest
from tests.conftest import TinyModel, write_recording

distributed = pytest.importorskip("distributed", reason="the extra cluster is not installed")


class Loaded(TinyModel):
    """Writes down every time that a process loads it, and breaks where it is told to."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        import os

        path = Path(os.environ["BACPIPE_TEST_LOADED"])
        with path.open("a") as file:
            file.write(f"{os.getpid()}\n")
        if (path.parent / "die").exists():
            (path.parent / "die").unlink()
            os.kill(os.getpid(), 9)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    base = tmp_path_factory.mktemp("dask")
    for i in range(9):
        write_recording(base / "field" / f"S{i % 3}" / f"r{i}.wav", 2.0 + i % 3, seed=i)
    (base / "field" / "S1" / "broken.wav").write_bytes(b"RIFF and no more")
    return SimpleNamespace(base=base, audio_dir=base / "field", loaded=base / "loaded.txt")


@pytest.fixture(scope="module")
def scheduler(place: SimpleNamespace) -> Iterator[str]:
    """Address of a cluster of two worker processes."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("BACPIPE_TEST_LOADED", str(place.loaded))
        cluster = distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None
        )
        with cluster:
            yield cluster.scheduler_address


def settings(place: SimpleNamespace, results: str, **more: object) -> dict[str, Any]:
    return {
        "audio_dir": place.audio_dir,
        "main_results_dir": place.base / results,
        "device": "cpu",
        "classifier_threshold": 0.5,
        "hours_per_shard": 2 / 3600,
        **more,
    }


def test_results_are_those_of_one_process(place: SimpleNamespace, scheduler: str) -> None:
    here = bacpipe.generate_embeddings(
        model_name="tiny", CustomModel=TinyModel, **settings(place, "here")
    )
    there = bacpipe.play(
        models=["tiny"],
        CustomModel=Loaded,
        dim_reduction_model="pca",
        **settings(place, "there", engine="dask", scheduler=scheduler),
    )["tiny"]
    assert read_manifest(there.paths, there.options).shards[8:], (
        "no more shards than the scheduler is given at once"
    )
    assert list(there.entries) == list(here.entries)
    np.testing.assert_array_equal(there.embeddings("array"), here.embeddings("array"))
    np.testing.assert_array_equal(there.predictions("array")[0], here.predictions("array")[0])
    assert [path.name for path in there.get_embedding_dir().glob("journal*")] == ["journal.jsonl"]
    assert any(there.paths.dim_reduc_parent_dir.iterdir())
    pids = place.loaded.read_text().split()
    assert len(set(pids)) == len(pids) <= 2  # a model is loaded once by each process
    # A second time there is nothing to do, and nothing is loaded by a third process.
    bacpipe.generate_embeddings(
        model_name="tiny",
        CustomModel=Loaded,
        **settings(place, "there", engine="dask", scheduler=scheduler),
    )


def test_failures_come_back_to_whoever_asked(
    place: SimpleNamespace, scheduler: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="bacpipe")
    bacpipe.run_pipeline_for_models(
        ["tiny"],
        place.audio_dir,
        CustomModel=Loaded,
        **{
            key: value
            for key, value in settings(place, "told", engine="dask", scheduler=scheduler).items()
            if key != "audio_dir"
        },
    )
    assert "S1/broken.wav: is not audio" in caplog.text
    assert "Dask shows the work at http" in caplog.text


def test_a_worker_that_dies_costs_nothing(place: SimpleNamespace, scheduler: str) -> None:
    (place.base / "die").touch()
    loader = bacpipe.generate_embeddings(
        model_name="tiny",
        CustomModel=Loaded,
        **settings(place, "died", engine="dask", scheduler=scheduler),
    )
    assert not (place.base / "die").exists()
    assert len(loader.entries) == 9


class Broken(TinyModel):
    """Cannot be loaded."""

    def __init__(self, **kwargs: object) -> None:
        raise BacpipeError("no such weights.")


def test_shards_that_cannot_be_done_are_an_error(place: SimpleNamespace, scheduler: str) -> None:
    with pytest.raises(BacpipeError, match=r"shards of \d+ could not be done.*shard 1: "):
        bacpipe.generate_embeddings(
            model_name="tiny",
            CustomModel=Broken,
            **settings(place, "broken", engine="dask", scheduler=scheduler),
        )


class Flaky(TinyModel):
    """Its weights are on a disk that does not answer the first times, as many as a file says."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        base = Path(os.environ["BACPIPE_TEST_LOADED"]).parent
        with (base / "tries").open("a") as file:
            file.write("x")
        kind, times = (base / "trouble").read_text().split()
        if len((base / "tries").read_text()) <= int(times):
            raise {"disk": StorageError, "weights": BacpipeError}[kind]("weights: not there now.")


@pytest.mark.parametrize(
    ("trouble", "tries", "works"),
    [("disk 2", 3, True), ("disk 9", 3, False), ("weights 1", 1, False)],
    ids=["a disk that comes back", "a disk that is gone", "the same again"],
)
def test_a_shard_is_tried_again_when_its_disk_may_come_back(
    place: SimpleNamespace, scheduler: str, trouble: str, tries: int, works: bool
) -> None:
    (place.base / "tries").write_text("")
    (place.base / "trouble").write_text(trouble)
    words = settings(place, trouble, engine="dask", scheduler=scheduler, hours_per_shard=1)

    def embed() -> bacpipe.Loader:
        return bacpipe.generate_embeddings(model_name="tiny", CustomModel=Flaky, **words)

    if works:
        assert len(embed().entries) == 9
    else:
        with pytest.raises(BacpipeError, match=r"1 shard of 1 .*weights: not there now"):
            embed()
    assert len((place.base / "tries").read_text()) == tries


def test_the_scheduler_knows_a_few_shards_at_a_time(
    place: SimpleNamespace, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: list[int] = [0]

    class Counted(distributed.as_completed):  # type: ignore[misc]
        def update(self, futures: list[Any]) -> None:
            known.append(known[-1] + len(futures))
            super().update(futures)

        def __next__(self) -> Any:
            future = super().__next__()
            known.append(known[-1] - 1)
            return future

    submit = distributed.Client.submit
    order: list[tuple[int, int]] = []

    def submitted(client: Any, task: Any, number: int, **words: Any) -> Any:
        order.append((-words["priority"], number))
        assert words["key"].startswith("shard-")  # as Dask's page names it
        return submit(client, task, number, **words)

    monkeypatch.setattr(distributed, "as_completed", Counted)
    monkeypatch.setattr(distributed.Client, "submit", submitted)
    bacpipe.generate_embeddings(
        model_name="tiny",
        CustomModel=TinyModel,
        **settings(place, "few", engine="dask", scheduler=scheduler, hours_per_shard=1 / 3600),
    )
    # Ten recordings, each longer than a shard: as one comes back, one is handed out.
    assert known == [0, 8, 7, 8, 7, 8, *range(7, -1, -1)]
    assert order == [(number, number) for number in range(1, 11)]  # the first come first


def test_of_many_workers_each_has_one_shard_in_hand_and_one_that_waits() -> None:
    def client(workers: dict[str, int]) -> Any:
        return SimpleNamespace(nthreads=lambda: workers)

    assert dask_engine._most(client({})) == 8  # none is there yet
    assert dask_engine._most(client({f"w{i}": 1 for i in range(50)})) == 100


def test_the_command_line_on_workers_that_it_starts(place: SimpleNamespace, tmp_path: Path) -> None:
    field = tmp_path / "field"
    for i in range(3):
        write_recording(field / f"r{i}.wav", 4.0, seed=i)

    ended = subprocess.run(
        [
            sys.executable, "-m", "bacpipe", "audio_dir=field", "models=birdnet", "device=cpu",
            "main_results_dir=there", "engine=dask", "scheduler=local",
            f"hours_per_shard={4 / 3600}",
            "cluster_settings={n_workers: 1, dashboard_address: null}",
        ],
        cwd=tmp_path, capture_output=True, text=True, timeout=240,
        env={**os.environ, "PYTHONPATH": str(Path(bacpipe.__file__).parents[1])},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "in 3 shards, by Dask" in ended.stdout
    for number in (1, 2, 3):
        assert f"shard {number}: birdnet: 1 recording done" in ended.stdout + ended.stderr
    there = bacpipe.Loader(field, "birdnet", main_results_dir=tmp_path / "there")
    here = bacpipe.generate_embeddings(
        model_name="birdnet", audio_dir=field, main_results_dir=tmp_path / "here", device="cpu"
    )
    assert list(there.entries) == list(here.entries) == ["r0.wav", "r1.wav", "r2.wav"]
    np.testing.assert_allclose(there.embeddings("array"), here.embeddings("array"), atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scheduler": "tcp://127.0.0.1:9"}, "no scheduler of Dask answers there"),
        ({"scheduler": "tcp://nowhere"}, "scheduler"),
        (
            {"scheduler": "slurm", "cluster_settings": {"cores": 1}},
            r"cluster_settings lacks memory, which scheduler=slurm needs .*memory: 16GB",
        ),
        ({"check_if_already_processed": False}, "not possible with engine=dask"),
    ],
)
def test_bad_settings_are_sentences(
    place: SimpleNamespace,
    changes: dict[str, object],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = distributed.Client
    monkeypatch.setattr(
        distributed, "Client", lambda address, timeout=None: client(address, timeout="0.5s")
    )
    with pytest.raises(SettingsError, match=message):
        bacpipe.generate_embeddings(
            model_name="tiny",
            CustomModel=TinyModel,
            **settings(place, "bad", engine="dask", **changes),
        )
    assert not (place.base / "bad").exists()


@pytest.mark.parametrize("scheduler", ["local", "slurm", "tcp://127.0.0.1:9"])
def test_a_missing_package_is_named(
    place: SimpleNamespace, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.setattr("bacpipe.extras.versions", lambda extra: {"distributed": "missing"})
    with pytest.raises(SettingsError, match=r'distributed.*pip install .*"\.\[cluster\]"'):
        bacpipe.generate_embeddings(
            model_name="tiny",
            CustomModel=TinyModel,
            **settings(place, "bad", engine="dask", scheduler=scheduler),
        )


@dataclass
class Queue:
    """Commands of queues that take jobs, write them down, and let them lie."""

    folder: Path

    def answers(self, command: str, script: str) -> None:
        path, answer = self.folder / command, self.folder / f"{command}.answer"
        answer.write_text(f"{script}\n")
        if not path.exists():  # what is written while others fork is busy when it is executed
            path.write_text(f"#!/bin/sh\necho x >> {self.folder}/submitted\n. {answer}\n")
            path.chmod(0o755)

    @property
    def submitted(self) -> int:
        path = self.folder / "submitted"
        return len(path.read_text().split()) if path.exists() else 0


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Queue:
    if os.name == "nt":
        pytest.skip("its commands are shell scripts")
    if importlib.util.find_spec("dask_jobqueue") is None:
        pytest.skip("dask-jobqueue is absent")
    found = Queue(tmp_path)
    for command in ("sbatch", "qsub", "bsub", "oarsub", "msub", "condor_submit"):
        found.answers(command, "echo 17")
    (tmp_path / "scancel").write_text("#!/bin/sh\n")
    (tmp_path / "scancel").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("DASK_CONFIG", str(tmp_path / "no-settings"))
    return found


@contextmanager
def cluster_of(place: SimpleNamespace, scheduler: str, **given: object) -> Iterator[Any]:
    words = {"scheduler_options": {"host": "127.0.0.1", "dashboard_address": ":0"}, **given}
    cluster = dask_engine._cluster(
        make_options(**settings(place, "bad", scheduler=scheduler, cluster_settings=words))
    )
    try:
        yield cluster
    finally:
        dask_engine._close(cluster)


SIZES: dict[str, object] = {"cores": 8, "memory": "16GB"}


@pytest.mark.parametrize(
    ("scheduler", "kind", "given", "lines"),
    [
        (
            "slurm", "SLURMCluster", {"queue": "long", "walltime": "04:00:00"},
            ["#SBATCH -p long", "#SBATCH --cpus-per-task=8", "#SBATCH -t 04:00:00"],
        ),
        (
            "pbs", "PBSCluster", {"queue": "long", "walltime": "04:00:00"},
            ["#PBS -q long", "#PBS -l select=1:ncpus=8:mem=15GB", "#PBS -l walltime=04:00:00"],
        ),
        (
            "lsf", "LSFCluster", {"queue": "long", "walltime": "04:00"},
            ["#BSUB -q long", "#BSUB -n 8", "#BSUB -W 04:00"],
        ),
        (
            "sge", "SGECluster", {"queue": "long", "job_extra_directives": ["-pe smp 8"]},
            ["#$ -q long", "#$ -pe smp 8"],
        ),
        (
            "oar", "OARCluster", {"queue": "long", "walltime": "04:00:00"},
            ["#OAR -q long", "#OAR -l /nodes=1/core=8,walltime=04:00:00"],
        ),
        (
            "moab", "MoabCluster", {"queue": "long", "job_extra_directives": ["-m n"]},
            ["#PBS -q long", "#PBS -m n"],
        ),
        (
            "htcondor", "HTCondorCluster",
            {"disk": "10GB", "job_extra_directives": {"+Group": "birds"}},
            ["MY.DaskWorkerCores = 8", "MY.DaskWorkerDisk = 10000000000", "+Group = birds"],
        ),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:OAR Job memory")
def test_each_queue_gets_jobs_with_one_worker_on_all_cores(
    place: SimpleNamespace,
    queue: Queue,
    scheduler: str,
    kind: str,
    given: dict[str, object],
    lines: list[str],
) -> None:
    more = {"worker_extra_args": ["--lifetime", "3h"]}
    with cluster_of(place, scheduler, n_workers=0, **SIZES, **given, **more) as cluster:
        script = cluster.job_script()
    assert type(cluster).__name__ == kind
    for line in lines:
        assert line in script
    command = script[script.index("distributed.cli.dask_worker") :]
    # Of one process, with all the memory; what is said last of its threads holds.
    assert "--nworkers" not in command
    assert "--memory-limit 14.90GiB" in command
    assert command.rpartition("--nthreads")[2].startswith(" 1 --lifetime 3h")
    assert queue.submitted == 0


def test_as_many_jobs_are_submitted_as_workers_are_asked_for(
    place: SimpleNamespace, queue: Queue
) -> None:
    with cluster_of(place, "slurm", n_workers=3, **SIZES):
        assert queue.submitted == 3
    with cluster_of(place, "slurm", **SIZES):
        assert queue.submitted == 3 + 1
    with cluster_of(place, "slurm", n_workers=4, processes=2, **SIZES):
        assert queue.submitted == 3 + 1 + 2


def test_settings_of_a_queue_may_be_in_its_own_file(place: SimpleNamespace, queue: Queue) -> None:
    import dask

    given = {
        "cores": 6,
        "memory": "12GB",
        "processes": 2,
        "worker-extra-args": ["--lifetime", "9h"],
    }
    with (
        dask.config.set({"jobqueue.slurm": {**dask.config.get("jobqueue.slurm"), **given}}),
        cluster_of(place, "slurm", n_workers=0) as cluster,
    ):
        script = cluster.job_script()
    assert "--cpus-per-task=6" in script
    assert "--nworkers 2" in script
    assert "--nthreads 1 --lifetime 9h" in script


def test_kubernetes_gets_the_settings_as_they_are(
    place: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"name": "birds", "image": "bacpipe:2", "n_workers": 3}
    options = make_options(**settings(place, "bad", scheduler="kubernetes", cluster_settings=given))
    operator = SimpleNamespace(KubeCluster=SimpleNamespace)  # it is not among our packages
    monkeypatch.setitem(sys.modules, "dask_kubernetes.operator", operator)
    assert vars(dask_engine._cluster(options)) == given
    monkeypatch.setitem(sys.modules, "dask_kubernetes.operator", None)
    with pytest.raises(SettingsError, match="install it with: pip install dask-kubernetes"):
        dask_engine._cluster(options)


@pytest.mark.parametrize(
    ("scheduler", "given", "missing"),
    [
        ("pbs", {}, "cores and memory"),
        ("lsf", {"memory": "1GB"}, "cores"),
        ("sge", {"cores": 1, "memory": None}, "memory"),
        ("htcondor", SIZES, "disk"),
        ("htcondor", {"disk": "1GB"}, "cores and memory"),
    ],
)
def test_what_a_queue_must_know_is_named(
    place: SimpleNamespace, queue: Queue, scheduler: str, given: dict[str, object], missing: str
) -> None:
    with (
        pytest.raises(
            SettingsError,
            match=rf"^cluster_settings lacks {missing}, which scheduler={scheduler} needs",
        ),
        cluster_of(place, scheduler, **given),
    ):
        pass


@pytest.mark.parametrize("workers", ["many", None, -1, 2.5])
def test_a_number_of_workers_is_one(place: SimpleNamespace, queue: Queue, workers: object) -> None:
    with (
        pytest.raises(SettingsError, match=rf"^n_workers={workers!r} in cluster_settings is not"),
        cluster_of(place, "slurm", n_workers=workers, **SIZES),
    ):
        pass


def test_without_its_command_there_is_no_queue(
    place: SimpleNamespace, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(queue.folder / "empty"))
    with (
        pytest.raises(SettingsError, match=r"scheduler=lsf .* command bsub, which is not found"),
        cluster_of(place, "lsf", **SIZES),
    ):
        pass


def test_ctrl_c_stays_what_it_was(queue: Queue, tmp_path: Path) -> None:
    """dask-jobqueue would make it end the process, as soon as it is imported."""
    code = """
import signal, sys
from bacpipe.errors import SettingsError
from bacpipe.options import make_options
from bacpipe.scaling import dask_engine

before = signal.getsignal(signal.SIGINT)
try:
    dask_engine._cluster(make_options(engine="dask", scheduler="slurm", cluster_settings={
        "cores": 2, "memory": "4GB"}))
except SettingsError as error:
    assert "sbatch" in str(error), error
assert "dask_jobqueue" in sys.modules
assert signal.getsignal(signal.SIGINT) is before
"""
    (tmp_path / "sbatch").unlink()
    environment = {**os.environ, "PATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_jobs_that_the_queue_refuses_are_not_waited_for(
    place: SimpleNamespace,
    queue: Queue,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    queue.answers("sbatch", "echo no partition long >&2; exit 1")
    close = dask_engine._close

    def close_and_say(cluster: object) -> None:
        logging.getLogger("tornado.application").error("a message of others")
        close(cluster)

    with monkeypatch.context() as patched:
        patched.setattr(dask_engine, "_close", close_and_say)
        refused = pytest.raises(SettingsError, match=r"scheduler=slurm: .* refused .*no partition")
        with refused, cluster_of(place, "slurm", n_workers=2, **SIZES):
            pass
    assert "Traceback" not in caplog.text
    assert "a message of others" in caplog.text
    # One of three is taken.  Dask silences handlers of Bokeh, which may be those of the root.
    monkeypatch.setattr(logging.getLogger("bokeh"), "handlers", logging.getLogger().handlers)
    queue.answers(
        "sbatch",
        f"mkdir {queue.folder}/one 2>/dev/null && echo 17 || {{ echo limit >&2; exit 1; }}",
    )
    with cluster_of(place, "slurm", n_workers=3, **SIZES) as cluster:
        jobs = {name: job.job_id for name, job in cluster.workers.items()}
        assert "the queue refused 2 of 3 jobs" in caplog.text, (jobs, queue.submitted)


def test_each_local_worker_has_a_gpu_of_its_own(
    place: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    options = make_options(**settings(place, "bad", device="auto"))
    assert dask_engine._local_workers(options) == 4
    devices = [dask_engine._for_worker(options, number).device for number in range(4)]
    assert devices == ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]
