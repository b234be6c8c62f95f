"""Shards: what planning them, working on them and Dask cost.

    python benchmarks/shards.py plan [--recordings 1e7]     planning, with a listing that is made up
    python benchmarks/shards.py workers [--recordings 600]  two workers against one process with two
                                                            threads, and what Dask costs per shard
    python benchmarks/shards.py scale [--shards 1e5]        a million hours, with a model that does
                                                            nothing: Dask's scheduler, and claims
    python tests/faults/kill_shards.py --recordings 3000 --workers 4 --kills 120 --any-moment
    benchmarks/slurm.sh                                     a Slurm of one node, on Debian

Planning measures itself; the second compares whole processes, started anew, in turns.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import soundfile as sf

sys.path.insert(0, str(Path(__file__).parents[1]))

IN_A_FOLDER = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["plan", "workers", "scale", "one", "claims", "dask"])
    parser.add_argument("--recordings", type=float, default=None)
    parser.add_argument("--shards", type=float, default=1e5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="of the processes that `workers` starts")
    given = parser.parse_args()
    if given.what == "plan":
        measure_plan(int(given.recordings or 1e7))
    elif given.what == "scale":
        measure_scale(int(given.shards))
    elif given.what == "workers":
        compare(int(given.recordings or 600), given.rounds)
    else:
        do(given.what, given.folder)


# ---------------------------------------------------------------------- planning


def measure_plan(number: int) -> None:
    """Plan, plan again, and find one shard."""
    from bacpipe.options import make_options
    from bacpipe.scaling.manifest import Folder, Manifest, Planner

    sizes = np.full(IN_A_FOLDER, 5_760_044)

    def folders() -> Iterator[Folder]:
        for i in range(number // IN_A_FOLDER):
            folder = f"SITE-{i // 30:05d}/2024{i % 12 + 1:02d}{i % 28 + 1:02d}_{i:06d}"
            yield Folder([f"{folder}/{k:06d}.wav" for k in range(IN_A_FOLDER)], sizes)

    def new(path: Path) -> Manifest:
        return Manifest(path, Path("/nowhere"), ["birdnet"], {})

    def told(what: str, started: tuple[float, float]) -> None:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"{what}: {time.perf_counter() - started[0]:.1f} s, "
            f"{time.process_time() - started[1]:.1f} s CPU, {memory:.0f} MB so far at most"
        )

    options = make_options(hours_per_shard=10)
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "manifest.parquet"
        started = time.perf_counter(), time.process_time()
        first = Planner(new(path), options, length_of=lambda _: 60.0).write(folders())
        told(f"planned {first.recordings:,} recordings in {len(first.shards):,} shards", started)
        print(f"the manifest has {path.stat().st_size / 1e6:.0f} MB")
        started = time.perf_counter(), time.process_time()
        again = Planner(new(path), options, first, lambda _: 60.0).write(folders())
        told(f"planned again, {again.added} added", started)
        started = time.perf_counter(), time.process_time()
        again.part(again.shards[-1])
        told("found the recordings of one shard", started)


# ---------------------------------------------------------------------- a million hours


def measure_scale(number: int) -> None:
    """Hand out shards on which there is nothing to do, and claim the last of many."""
    from distributed import Client, LocalCluster, WorkerPlugin

    from bacpipe.options import make_options
    from bacpipe.scaling import dask_engine
    from bacpipe.scaling.shards import ShardReport, done_shards, shard_name
    from bacpipe.store.claims import Claims

    class Nothing(WorkerPlugin):
        def work(self, shard: int) -> ShardReport:
            return ShardReport(shard)

    def resident() -> float:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 2**20

    cluster = LocalCluster(
        n_workers=4, threads_per_worker=1, processes=False, dashboard_address=None
    )
    with cluster, Client(cluster) as client:
        before, started, cpu = resident(), time.perf_counter(), time.process_time()
        with mock.patch.object(dask_engine, "_plugin", lambda *_: Nothing()):
            reports, errors = dask_engine._work_on(
                client, [*range(1, number + 1)], make_options(), {}
            )
        assert len(reports) == number, errors
        print(
            f"{number:,} tasks: {time.perf_counter() - started:.0f} s, "
            f"{time.process_time() - cpu:.0f} s CPU of scheduler, client and workers, "
            f"{resident() - before:.0f} MB more, reports included; the scheduler still knows "
            f"{len(cluster.scheduler.tasks)} of them"
        )
    with tempfile.TemporaryDirectory() as place:
        paths = SimpleNamespace(claims_path=Path(place, "claims"))
        paths.claims_path.mkdir()
        for shard in range(1, number + 1):
            for ending in (".done", ".000001"):
                (paths.claims_path / f"{shard_name(shard)}{ending}").write_text("{}")
        claims = Claims(paths.claims_path)
        for what, look in {
            "which shards are done": lambda: done_shards(paths),
            "who holds which": claims.generations,
            "one claim": lambda: claims.take(shard_name(number + 1)).release(),
        }.items():
            started = time.perf_counter()
            look()
            print(f"{what}, of {number:,} that are done: {time.perf_counter() - started:.2f} s")


# ---------------------------------------------------------------------- working


def settings(folder: Path, results: str) -> dict[str, object]:
    return {
        "audio_dir": folder / "field",
        "main_results_dir": folder / results,
        "models": ["level"],
        "device": "cpu",
        "hours_per_shard": 50 * 3 / 3600,
    }


def do(what: str, folder: Path) -> None:
    """Work as one of the processes that are compared; prints the seconds without the start."""
    import bacpipe
    from bacpipe.options import make_options
    from bacpipe.scaling.shards import ShardWorker
    from benchmarks.shards_model import Busy

    values = settings(folder, what)
    started = time.perf_counter()
    if what == "claims":
        for _ in ShardWorker(make_options(**values), custom={"level": Busy}).work_on_all():
            pass
    elif what == "one":
        bacpipe.run_pipeline_for_models(["level"], CustomModel=Busy, **without_models(values))
    else:
        words = {"engine": "dask", "cluster_settings": {"n_workers": 2, "dashboard_address": None}}
        bacpipe.run_pipeline_for_models(
            ["level"], CustomModel=Busy, **without_models(values), **words
        )
    print(json.dumps({"seconds": time.perf_counter() - started}))


def without_models(values: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in values.items() if key != "models"}


def compare(number: int, rounds: int) -> None:
    """One process with two threads, two workers on shards, and two workers of Dask, in turns."""
    from bacpipe.options import make_options
    from bacpipe.scaling.planning import plan
    from benchmarks.shards_model import Busy

    seconds: dict[str, list[float]] = {"one": [], "claims": [], "dask": []}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        rng = np.random.default_rng(0)
        for i in range(number):
            path = folder / "field" / f"S{i // 100}" / f"r{i:05d}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            sf.write(path, rng.uniform(-0.5, 0.5, 3 * 22050).astype(np.float32), 22050)
        for _ in range(rounds):
            for what, found in seconds.items():
                shutil.rmtree(folder / what, ignore_errors=True)
                workers = 1
                if what == "claims":
                    plan(make_options(**settings(folder, what)), custom={"level": Busy})
                    workers = 2
                cores = sorted(os.sched_getaffinity(0))
                processes = [
                    subprocess.Popen(
                        ["taskset", "-c", ",".join(map(str, cores[i::workers])),
                         sys.executable, __file__, what, "--folder", str(folder)],
                        stdout=subprocess.PIPE, text=True,
                    )
                    for i in range(workers)
                ]  # fmt: skip
                ended = [process.communicate()[0] for process in processes]
                found.append(max(json.loads(text)["seconds"] for text in ended))
    best = {what: min(found) for what, found in seconds.items()}
    shards = -(-number // 50)
    print(f"{number} recordings in {shards} shards, seconds without the start: {seconds}")
    print(f"throughput of two workers over one process: {best['one'] / best['claims']:.2f}")
    median = statistics.median
    more = (median(seconds["dask"]) - median(seconds["claims"])) / shards
    print(f"Dask over plain workers: {more:.2f} s a shard, its start and the merge included")


if __name__ == "__main__":
    main()
