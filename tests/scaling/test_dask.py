"""Shards on the workers of Dask: a cluster of two processes on this computer."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import bacpipe
from bacpipe.errors import BacpipeError, SettingsError
from bacpipe.options import make_options
from bacpipe.scaling import dask_engine
from bacpipe.scaling.manifest import read_manifest
from tests.conftest import TinyModel, write_recording

distributed = pytest.importorskip("distributed", reason="the extra cluster is not installed")


NO_PAGE = {"dashboard_address": None}


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
    assert read_manifest(there.paths).shards[8:], (
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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scheduler": "tcp://127.0.0.1:9"}, "no scheduler of Dask answers there"),
        ({"scheduler": "tcp://nowhere"}, "scheduler"),
        (
            {"scheduler": "slurm", "cluster_settings": {"cores": 1, "scheduler_options": NO_PAGE}},
            r"scheduler=slurm: .*memory",
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


def test_settings_of_the_queue_pass_through(
    place: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("dask_jobqueue")
    given: dict[str, object] = {"n_workers": 20, "cores": 4, "memory": "16GB", "queue": "long"}
    given["scheduler_options"] = NO_PAGE
    options = make_options(
        **settings(place, "bad", engine="dask", scheduler="slurm", cluster_settings=given)
    )
    taken: list[dict[str, object]] = []
    monkeypatch.setattr("dask_jobqueue.SLURMCluster", lambda **words: taken.append(words))
    dask_engine._cluster(options)
    assert taken == [{**given, "worker_extra_args": ["--nthreads", "1"]}]
    # What the real one makes of it is a job whose worker has all cores and one task at a time.
    monkeypatch.undo()
    cluster = dask_engine._cluster(
        make_options(
            **settings(place, "bad", scheduler="slurm", cluster_settings={**given, "n_workers": 0})
        )
    )
    try:
        script = cluster.job_script()
    finally:
        cluster.close()
    assert "#SBATCH -p long" in script
    assert "--cpus-per-task=4" in script
    assert script.rstrip().split("--nthreads")[-1].split()[0] == "1"


def test_each_local_worker_has_a_gpu_of_its_own(
    place: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    options = make_options(**settings(place, "bad", device="auto"))
    assert dask_engine._local_workers(options) == 4
    devices = [dask_engine._for_worker(options, number).device for number in range(4)]
    assert devices == ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]
