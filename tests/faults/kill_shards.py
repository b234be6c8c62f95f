"""Kill workers on shards at many moments, start others, and compare with a run that nobody killed.

    python tests/faults/kill_shards.py --recordings 400 --workers 2 --kills 12 [--seed N]
    python tests/faults/kill_shards.py --recordings 400 --workers 2 --kills 5 --clients
    python tests/faults/kill_shards.py --recordings 200 --seconds 60 --kills 30 --any-moment

Workers are forked from this process, which has imported everything and started no thread.  Each
of them but the last dies by SIGKILL just before or just after a file gets its name, a line gets
into a journal, or a claim gives a sign of life; at which of these is drawn.  With ``--any-moment``
they are killed from outside, at moments drawn from the length of an undisturbed run instead.

In the end all recordings must be done, nothing may be left over, and the tree must equal, byte by
byte, that of one process that nobody disturbed.  Of journals, the last line of each recording
counts: the lines before it, and their order, are the history of the workers.
"""

from __future__ import annotations

import os

# Before numpy, PyTorch and Arrow come: a thread that exists now would be lost in a fork.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["JE_ARROW_MALLOC_CONF"] = "background_thread:false"

import argparse
import hashlib
import json
import random
import re
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import pandas as pd  # noqa: F401 - so that no worker has to
import pyarrow.parquet as pq  # noqa: F401
import soundfile as sf
import torch

import bacpipe
import bacpipe.embedder
import bacpipe.inference.run_data_set
from bacpipe.options import Options, make_options
from bacpipe.scaling.merging import merge
from bacpipe.scaling.planning import plan
from bacpipe.scaling.shards import ShardWorker, done_shards
from bacpipe.store import claims, files, journal
from bacpipe.store.data_set_folder import paths_of
from bacpipe.store.files import TEMPORARY
from bacpipe.store.verification import verify_results

RATE = 8000
_LEAST_LIFE = 0.35  # seconds between kills, or workers do nothing but start
_STAMP = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d(?=___)")  # workers of Dask have their own clock
FIELD, ONE, MANY, SEEN = "field", "one", "many", "seen.txt"


class Level(bacpipe.ModelBaseClass):
    """A quarter of a second; writes down every recording that it is given, by its level."""

    version = "1"
    seen: Path | None = None

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(sr=RATE, segment_length=RATE // 4, batch_size=8, **kwargs)
        self.classes = ["loud", "quiet"]

    def preprocess(self, audio: torch.Tensor) -> torch.Tensor:
        return audio.abs().reshape(len(audio), 10, -1)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self.seen is not None:
            with self.seen.open("a") as file:
                file.write("x" * len(x))
        return x.mean(dim=2)

    def classifier_predictions(self, embeddings: torch.Tensor) -> torch.Tensor:
        level = embeddings.mean(dim=1).clamp(0, 1)
        return torch.stack([level, 1 - level], dim=1)


def make_recordings(folder: Path, number: int, windows: int) -> None:
    """Noise of some windows each, in folders of a hundred."""
    rng = np.random.default_rng(0)
    noise = rng.uniform(-1, 1, windows * RATE // 4).astype(np.float32)
    for i in range(number):
        path = folder / f"site{i // 100:04d}" / f"r{i:06d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        sf.write(path, noise * (0.1 + 0.8 * i / number), RATE)


def options_of(base: Path, shard: int, windows: int) -> Options:
    return make_options(
        audio_dir=base / FIELD,
        main_results_dir=base / MANY,
        models=["level"],
        device="cpu",
        nr_parallel_workers=1,
        hours_per_shard=(shard * windows * 0.25 + 0.01) / 3600,
    )


def embed(base: Path, results: str, **options: Any) -> None:
    """What workers are to be equal to: one call over all recordings."""
    bacpipe.generate_embeddings(
        model_name="level",
        CustomModel=Level,
        audio_dir=base / FIELD,
        main_results_dir=base / results,
        device="cpu",
        nr_parallel_workers=1,
        **options,
    )


def fork(work: Callable[[], None]) -> int:
    """Do something in a process of its own; its id."""
    pid = os.fork()
    if pid:
        return pid
    try:
        torch.set_num_threads(1)
        with mock.patch("bacpipe.store.embedding_set.datetime") as clock:
            clock.now = lambda: datetime(2026, 1, 1, 12)
            work()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def dies_at(moment: int) -> None:
    """Let this process die before or after a step that changes the disk; 0 never."""
    left = moment

    def strike() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def struck(function: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any) -> Any:
            strike()
            result = function(*arguments)
            strike()
            return result

        return step

    for module, name in (
        (files, "give_name"), (claims, "give_name"), (claims, "_create"), (journal, "write_all"),
    ):  # fmt: skip
        setattr(module, name, struck(getattr(module, name)))


def contents(folder: Path) -> dict[str, str]:
    """Hash of every file of the results, but of what says who has worked on them and where."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = _STAMP.sub("", path.relative_to(folder).as_posix())
        if path.is_dir() or name.startswith("shards/") or path.suffix == ".lock":
            continue
        data = path.read_bytes().replace(str(folder.parent).encode(), b"")
        data = re.sub(_STAMP.pattern.encode(), b"", data)
        if path.name == "journal.jsonl":
            lines = [json.loads(line) for line in data.splitlines()]
            last = {line["file"]: line for line in lines if "file" in line}
            data = json.dumps([lines[0], sorted(last.items()), lines[-1]]).encode()
        found[name] = hashlib.sha256(data).hexdigest()
    return found


def kill_clients(base: Path, options: Options, workers: int, kills: int, rng: random.Random) -> int:
    """Kill those who asked Dask, with its scheduler in them, each when a shard more is done."""
    paths = paths_of(base / FIELD, "none", options)

    def ask() -> None:
        Level.seen = base / SEEN
        settings = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": None}
        embed(
            base,
            MANY,
            hours_per_shard=options.hours_per_shard,
            engine="dask",
            cluster_settings=settings,
        )

    for number in range(kills):
        before, pid = len(done_shards(paths)), fork(ask)
        while len(done_shards(paths)) == before:
            if os.waitpid(pid, os.WNOHANG)[0]:
                return number  # there was nothing left to do
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 0.5))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert os.waitpid(fork(ask), 0)[1] == 0
    return kills


def run(
    base: Path,
    *,
    recordings: int,
    windows: int,
    workers: int,
    kills: int,
    shard: int,
    seed: int,
    any_moment: bool,
    clients: bool,
) -> dict[str, Any]:
    """Kill workers, and say what came of it."""
    rng = random.Random(seed)
    make_recordings(base / FIELD, recordings, windows)
    started = time.perf_counter()
    assert os.waitpid(fork(lambda: embed(base, ONE)), 0)[1] == 0
    alone = time.perf_counter() - started
    options = options_of(base, shard, windows)
    custom = {"level": Level}
    faults: list[str] = []

    def work(moment: int, most: int | None = None) -> None:
        Level.seen = base / SEEN
        dies_at(moment)
        for _ in ShardWorker(options, custom=custom).work_on_all(most):
            pass

    assert os.waitpid(fork(lambda: plan(options, custom=custom) and None), 0)[1] == 0
    paths = paths_of(base / FIELD, "none", options)
    number = -(-recordings // shard)
    # Steps of a worker's share: naming, a line, and the claims of its shards.
    steps = max(20, 2 * (4 * recordings + 6 * recordings // shard) // max(1, kills))
    living: dict[int, bool] = {}
    done, idle = 0, False
    started = time.perf_counter()
    while not clients:
        while len(living) < workers and not idle:
            moment = 0
            if not any_moment and done + sum(living.values()) < kills:
                moment = rng.randint(1, steps)
            living[fork(lambda moment=moment: work(moment))] = moment > 0
        if any_moment and done < kills:
            time.sleep(rng.uniform(0, 2 * max(alone / (workers * kills), _LEAST_LIFE)))
            os.kill(rng.choice(list(living)), signal.SIGKILL)
        pid, status = os.wait()
        living.pop(pid)
        done += os.WIFSIGNALED(status)
        idle = idle or status == 0  # one has found nothing left that is free
        if status and not os.WIFSIGNALED(status):
            faults.append("a worker ended with an error")
            break
        if not living:
            if len(done_shards(paths)) == number:
                break
            idle = False  # the last of them was killed over its shard
    if clients:
        # Dask's workers have a clock of their own, and the set's name has the time in it.
        assert os.waitpid(fork(lambda: work(0, most=1)), 0)[1] == 0
        done = kill_clients(base, options, workers, kills, rng)
    seconds = time.perf_counter() - started
    assert os.waitpid(fork(lambda: merge(options) and None), 0)[1] == 0
    one, many = (contents(base / name / FIELD) for name in (ONE, MANY))
    faults += [f"{name} differs" for name in one if one.get(name) != many.get(name)]
    faults += [f"{name} is left over" for name in many if name not in one]
    faults += [str(item) for item in verify_results(base / MANY)]
    faults += [f"{p} was left" for p in base.rglob(f"*{TEMPORARY}")]
    computed = (base / SEEN).stat().st_size / windows
    return {
        "recordings": recordings,
        "seconds_each": windows / 4,
        "workers": workers,
        "kills": done,
        "files_compared": len(one),
        "computed_again": round(computed - recordings, 1),
        "seconds": round(seconds, 1),
        "seconds_of_one_process": round(alone, 1),
        "faults": faults,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recordings", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=0.25, help="of each recording")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--shard", type=int, default=20, help="recordings in a shard")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--any-moment", action="store_true")
    parser.add_argument("--clients", action="store_true", help="kill clients of Dask")
    parser.add_argument("--report", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kill_shards_") as folder:
        report = run(
            Path(folder), recordings=given.recordings, windows=max(1, round(4 * given.seconds)),
            workers=given.workers, kills=given.kills, shard=given.shard, seed=given.seed,
            any_moment=given.any_moment, clients=given.clients,
        )  # fmt: skip
    print(json.dumps(report, indent=2))
    if given.report is not None:
        given.report.write_text(json.dumps(report))
    return bool(report["faults"])


if __name__ == "__main__":
    sys.exit(main())
