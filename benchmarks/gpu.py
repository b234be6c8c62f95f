"""A GPU: is it right, how fast is the model on it, and what keeps whole runs from being as fast.

Per model: how far float32, TF32 and bfloat16 are off the CPU, and batches of 256 off single
windows; windows per second of the model alone in each precision and with its networks in the other
memory format; of decoding alone, by all decoders; and of runs (decode, resample, model; nothing is
written) over minutes and over hours of 44.1 kHz stereo FLAC, each for at least 20 s after a first
run that does not count, with the part of the whole run's wall time for which the GPU had work, by
CUDA events of all threads.  One recording of each length is written and linked.  It ends within ten
minutes: models for which no time is left are named.

A bare machine needs what the tests need; the weights of models that are not there are the tests'
fake ones:

    python3 -m venv .venv && .venv/bin/pip install -c constraints.txt -e ".[test]"
    .venv/bin/python benchmarks/gpu.py                     # the models below
    .venv/bin/python benchmarks/gpu.py birdnet --device cuda:1
    .venv/bin/python benchmarks/gpu.py --device cpu --seconds 1    # does the script work?
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from measuring import pure
from recordings import write_recording

import bacpipe
from bacpipe.commands.estimate import measure
from bacpipe.embedder import Embedder
from bacpipe.machine import available_cores
from bacpipe.store.plan import look_at
from tests.models import parity

MODELS = ("birdnet", "mix2", "beats", "birdaves_especies")
MOST_SECONDS = 480  # no model is begun later, so that all is over in ten minutes
# Name: links, seconds.
DATA_SETS = {"1 min": (2000, 60.0), "1 h": (8, 3600.0)}
MANY = 256  # windows of a large batch
# On a CPU, where the script only shows that it works.
DRY_DATA_SETS = {"10 s": (12, 10.0), "1 min": (2, 60.0)}
DRY_MANY = 16


class Busy:
    """Tells for how long a GPU had work, by events around each call of a model."""

    def __init__(self, model: Any) -> None:
        self._ranges: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self._local = threading.local()
        self._preprocess, self._infer = model.preprocess, model.infer
        model.preprocess, model.infer = self.preprocess, self.infer
        self._begin = self._now()

    def preprocess(self, audio: torch.Tensor) -> Any:
        self._local.first = self._now()
        return self._preprocess(audio)

    def infer(self, x: Any, *, scores: bool = False) -> Any:
        found = self._infer(x, scores=scores)
        self._ranges.append((self._local.first, self._now()))
        return found

    def seconds(self) -> float:
        """Seconds of the union of all calls."""
        torch.cuda.synchronize()
        total, end = 0.0, float("-inf")
        spans = [
            (self._begin.elapsed_time(a), self._begin.elapsed_time(b)) for a, b in self._ranges
        ]
        for first, last in sorted(spans):
            total += max(0.0, last - max(first, end))
            end = max(end, last)
        return total / 1000

    @staticmethod
    def _now() -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def off(found: np.ndarray, expected: np.ndarray) -> str:
    """Largest relative difference of two embeddings of the same window."""
    lengths = np.linalg.norm(expected, axis=1)
    return f"{(np.linalg.norm(found - expected, axis=1) / lengths).max():.1e}"


def embedder_of(name: str, device: str, base: Path, precision: str = "float32") -> Embedder:
    return Embedder(name, device=device, precision=precision, model_base_path=str(base))


def differences(name: str, device: str, base: Path, precisions: tuple[str, ...], most: int) -> None:
    exact = embedder_of(name, "cpu", base)
    shape = (8, exact.model.segment_length)
    windows = np.random.default_rng(0).normal(0, 0.1, shape).astype(np.float32)
    expected = exact.runner(scores=False)(windows).embeddings
    for precision in precisions:
        runner = embedder_of(name, device, base, precision).runner(scores=False)
        singles = np.concatenate([runner(window[None]).embeddings for window in windows])
        many = runner(np.tile(windows, (most // 8, 1))).embeddings[:8]
        print(f"  {precision}: {off(singles, expected)} off the CPU, batches of {most} ", end="")
        print(f"{off(many, singles)} off single windows", flush=True)


def speeds(name: str, device: str, base: Path, precisions: tuple[str, ...]) -> None:
    for precision in precisions:
        embedder = embedder_of(name, device, base, precision)
        rate, _ = pure(embedder, 3)
        parts = vars(embedder.model).values()
        networks = [part for part in parts if isinstance(part, torch.nn.Module)]
        weights = [w for part in networks for w in part.parameters() if w.ndim == 4]
        last = any(w.is_contiguous(memory_format=torch.channels_last) for w in weights)
        kind = torch.contiguous_format if last else torch.channels_last
        for part in networks:
            part.to(memory_format=kind)
        other, _ = pure(embedder, 3)
        named = str(kind).removeprefix("torch.")
        print(f"  {precision}: {rate:.0f} windows/s alone, {other:.0f} {named}", flush=True)


def decoding(embedder: Embedder, paths: list[Path], seconds: float) -> float:
    """Windows per second of all decoders, if nobody takes what they decode."""
    decoders = embedder.workload(embedder.runner(scores=False)).decoders
    started, counts = time.perf_counter(), [0] * decoders

    def work(number: int) -> None:
        while True:
            for path in paths[number::decoders] or paths:
                for block in embedder.decode(look_at(path, path.parent)):
                    counts[number] += len(block)
                    if time.perf_counter() - started > seconds:
                        return

    with ThreadPoolExecutor(decoders) as pool:
        list(pool.map(work, range(decoders)))
    return sum(counts) / (time.perf_counter() - started)


def runs(name: str, device: str, base: Path, data: Path, seconds: float) -> None:
    for folder in sorted(data.iterdir()):
        kind, embedder = folder.name, embedder_of(name, device, base)
        paths = sorted(folder.iterdir())
        measure(embedder, paths, 2)  # loads libraries and finds the batch size
        alone = decoding(embedder, paths, seconds / 4)
        busy = Busy(embedder.model) if embedder.device.startswith("cuda") else None
        started = time.perf_counter()
        found = measure(embedder, paths, seconds)
        wall = time.perf_counter() - started
        load = embedder.workload(embedder.runner(scores=False))
        share = f"{busy.seconds() / wall:.2f}" if busy else "-"
        memory = torch.cuda.max_memory_allocated() / 2**30 if busy else 0.0
        print(
            f"| {name} | {kind} | {load.batch_size} | {load.decoders} | {alone:.0f} | "
            f"{found.windows_per_second:.0f} | {found.windows_per_second / alone:.2f} | "
            f"{found.slowest} | {share} | {memory:.1f} |",
            flush=True,
        )


def main() -> None:
    started = time.perf_counter()
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seconds", type=float, default=20, help="of each run (default: 20)")
    arguments = parser.parse_args()
    device = Embedder("birdnet", device=arguments.device).device
    on_gpu = device.startswith("cuda")
    card = torch.cuda.get_device_name(device) if on_gpu else platform.processor()
    print(f"{device} {card}, {available_cores()} cores; bacpipe {bacpipe.__version__}, ", end="")
    print(
        f"PyTorch {torch.__version__}, CUDA {torch.version.cuda}, Python {sys.version.split()[0]}"
    )
    # A dry run elsewhere: many CPUs take minutes for a batch in bfloat16.
    precisions = ("float32", "tf32", "bfloat16") if on_gpu else ("float32",)
    with tempfile.TemporaryDirectory() as scratch:
        base, data = Path(scratch) / "models", Path(scratch) / "audio"
        data_sets, most = (DATA_SETS, MANY) if on_gpu else (DRY_DATA_SETS, DRY_MANY)
        for kind, (links, length) in data_sets.items():
            first = data / kind / "00000.flac"
            write_recording(first, length, rate=44100, channels=2)
            for number in range(1, links):
                os.link(first, first.with_name(f"{number:05}.flac"))
        for name in arguments.models:
            if time.perf_counter() - started > MOST_SECONDS:
                print(f"{name}: no time is left")
                continue
            if name in parity.MODELS:
                parity.write_checkpoint(name, base)
            print(f"\n{name}", flush=True)
            differences(name, device, base, precisions, most)
            speeds(name, device, base, precisions)
            print("\n| model | recordings | batch | decoders | decoding | run | part ", end="")
            print("| slowest | busy | GiB |\n" + "|---" * 10 + "|")
            runs(name, device, base, data, arguments.seconds)


if __name__ == "__main__":
    main()
