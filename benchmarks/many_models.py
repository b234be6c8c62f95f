"""Several models over the same recordings: what it costs that each recording is decoded once.

One run of all models is compared with its parts, measured in the same process: each model alone on
random windows, and soundfile and soxr alone, decoding every recording once and resampling it once
for each rate.  What a run over one recording takes (loading weights, tables) is subtracted from the
run over all.  mix2 has the tests' fake weights; the small networks are made up here.

    python benchmarks/many_models.py
    python benchmarks/many_models.py --files 12 --models birdnet mix2
    python benchmarks/many_models.py --memory             the run of all alone, for its memory
    python benchmarks/many_models.py --memory --library   as from Python: see below

Memory is that of the command line, which has the C library keep what is freed and share one heap
among threads.  Callers from Python have glibc's own settings, a heap for every thread, of which
how much is returned, and when, differs from run to run.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import soundfile as sf
import soxr
import torch
from measuring import pure
from memory import most_resident
from recordings import write_folder

import bacpipe
from bacpipe.embedder import Embedder
from bacpipe.models.backends.cpu.memory import keep_freed_memory
from tests.models import parity


class Small(bacpipe.ModelBaseClass):
    """A small network on waveforms of three seconds."""

    rate = 22050

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(sr=self.rate, segment_length=3 * self.rate, batch_size=16, **kwargs)
        torch.manual_seed(0)
        self.network = torch.nn.Sequential(
            torch.nn.Conv1d(1, 32, 64, stride=16),
            torch.nn.ReLU(),
            torch.nn.Conv1d(32, 64, 16, stride=4),
            torch.nn.ReLU(),
        ).eval()

    def preprocess(self, audio: torch.Tensor) -> torch.Tensor:
        return audio[:, None]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x).mean(dim=2)


OWN = {f"small_{rate}": type("Small", (Small,), {"rate": rate}) for rate in (22050, 32000, 44100)}
MODELS = ["birdnet", "mix2", *OWN]


class Cost(NamedTuple):
    cpu: float
    read: int
    windows: dict[str, int]


def read_so_far() -> int:
    """Bytes that this process has asked the system for, from files or caches."""
    line = Path("/proc/self/io").read_text().splitlines()[0]
    return int(line.split()[1])


def resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def one_run(models: list[str], audio: Path, results: Path, base: Path) -> Cost:
    cpu, read = time.process_time(), read_so_far()
    loaders = bacpipe.run_pipeline_for_models(
        models,
        audio,
        CustomModels=[OWN.get(name) for name in models],
        main_results_dir=results,
        model_base_path=base,
        device="cpu",
    )
    cost = time.process_time() - cpu, read_so_far() - read
    windows = {
        name: sum(entry.windows for entry in loader.entries.values())
        for name, loader in loaders.items()
    }
    assert set(windows) == set(models), "a model failed"
    return Cost(*cost, windows)


def decode(files: list[Path], rates: list[int]) -> float:
    """CPU seconds of soundfile once and soxr once per rate."""
    cpu = time.process_time()
    for path in files:
        audio, native = sf.read(path, dtype="float32")
        for rate in rates:
            if rate != native:
                soxr.resample(audio, native, rate, quality="HQ")
    return time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=60)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--seconds", type=float, default=4, help="of each model alone")
    parser.add_argument("--memory", action="store_true", help="measure nothing else")
    parser.add_argument("--library", action="store_true", help="with glibc's own settings")
    arguments = parser.parse_args()
    models = arguments.models
    if not arguments.library:
        keep_freed_memory()
    with tempfile.TemporaryDirectory() as scratch:
        base, folder = Path(scratch, "models"), Path(scratch, "all")
        for name in models:
            if name in parity.MODELS:
                parity.write_checkpoint(name, base)
        write_folder(folder, arguments.files, 60, ".flac")
        write_folder(Path(scratch, "one"), 1, 60, ".flac")
        files = sorted(folder.glob("*.flac"))
        one_run(models, Path(scratch, "one"), Path(scratch, "warm-up"), base)  # loads libraries
        first = one_run(models, Path(scratch, "one"), Path(scratch, "results"), base)
        loaded = resident()
        every = one_run(models, folder, Path(scratch, "results"), base)
        peak = most_resident()
        more = f"peak {peak:.0f} MiB, {peak - loaded:.0f} more than after a run over one recording"
        if arguments.memory:
            print(more)
            return
        apart = {}
        for name in models:
            little = one_run([name], Path(scratch, "one"), Path(scratch, name), base)
            much = one_run([name], folder, Path(scratch, name), base)
            apart[name] = much.cpu - little.cpu
        embedders = {
            name: Embedder(name, CustomModel=OWN.get(name), device="cpu", model_base_path=base)
            for name in models
        }
        rates = sorted({embedder.model.sr for embedder in embedders.values()})
        decoding = decode(files[1:], rates)
        alone = {}
        for name, embedder in embedders.items():
            windows = every.windows[name] - first.windows[name]
            alone[name] = windows * pure(embedder, arguments.seconds)[1]
            print(
                f"{name}: {windows} windows, {alone[name]:.1f} s CPU alone, run {apart[name]:.1f} s"
            )
        size = sum(path.stat().st_size for path in files[1:])
    cpu, parts = every.cpu - first.cpu, sum(alone.values()) + decoding
    print(f"decoded once and resampled to {rates}: {decoding:.1f} s CPU")
    print(f"all at once: {cpu:.1f} s CPU, {cpu / parts:.3f} x its parts ({parts:.1f} s)")
    print(
        f"one after the other: {sum(apart.values()):.1f} s CPU, {sum(apart.values()) / cpu:.3f} x"
    )
    print(more)
    print(f"bytes read: {(every.read - first.read) / size:.3f} x the recordings")


if __name__ == "__main__":
    main()
