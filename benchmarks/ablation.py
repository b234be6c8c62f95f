"""What each kind of layer in ``models/backends/cpu`` buys: CPU time of models with and without.

One thread and CPU time, because other work on the machine disturbs them least.  All ways of
computing take turns, several rounds of them, and the table has the medians.  The fake checkpoints
are those of the tests.  A technique stays if it buys 1.1 × on some model.

    python benchmarks/ablation.py                    # all models
    python benchmarks/ablation.py mix2 aves_especies --rounds 9
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from unittest import mock

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bacpipe.models.backends.cpu import layers
from bacpipe.models.backends.cpu.layers import CpuLayer, FusedConv1d, FusedConv2d, FusedLinear
from bacpipe.models.base import Model
from bacpipe.models.loading import load_model
from tests.models import parity

KINDS: tuple[type[CpuLayer], ...] = (FusedConv2d, FusedConv1d, FusedLinear)
SECONDS = 0.5  # of CPU time per measurement


@contextmanager
def without(*kinds: type[CpuLayer]) -> Iterator[None]:
    """Let layers of some kinds compute PyTorch's way."""
    works = layers.onednn_works

    def answer(kind: type[CpuLayer], *how: object, **more: object) -> bool:
        return kind not in kinds and works(kind, *how, **more)  # type: ignore[arg-type]

    with mock.patch.object(layers, "onednn_works", answer):
        yield


def seconds_per_window(model: Model, x: torch.Tensor) -> float:
    started, done = time.process_time(), 0
    while (used := time.process_time() - started) < SECONDS or not done:
        model(x)
        done += len(x)
    return used / done


def measure(name: str, rounds: int) -> str:
    """Row of the table."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as base:
        if name in parity.MODELS:
            parity.write_checkpoint(name, Path(base))
        model = load_model(name, device="cpu", model_base_path=base)
    modules = [
        module
        for part in vars(model).values()
        if isinstance(part, torch.nn.Module)
        for module in part.modules()
    ]
    present = [kind for kind in KINDS if any(isinstance(module, kind) for module in modules)]
    ways: list[tuple[type[CpuLayer], ...]] = [(), *((kind,) for kind in present), tuple(present)]
    times: dict[tuple[type[CpuLayer], ...], list[float]] = {way: [] for way in ways}
    noise = 0.1 * torch.randn(min(4, model.batch_size), model.segment_length)
    with torch.inference_mode():
        x = model.preprocess(noise)
        model(x)
        for _ in range(rounds):
            for way in times:
                with without(*way):
                    times[way].append(seconds_per_window(model, x))
    usual = median(times[()])
    cells = [f"{1000 * usual:.1f}"]
    for way in (*((kind,) for kind in KINDS), tuple(present)):
        cells.append(f"{median(times[way]) / usual:.2f}" if way and way in times else "–")
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(measure(arguments.one, arguments.rounds))
        return
    names = ", ".join(f"without {kind.__name__}" for kind in KINDS)
    print(f"| model | ms per window | {names.replace(', ', ' | ')} | without all |")
    print("|---|---|---|---|---|---|")
    for name in arguments.models or [*parity.MODELS, "birdnet", "batdetect2_clip_avg"]:
        command = [sys.executable, __file__, "--one", name, "--rounds", str(arguments.rounds)]
        done = subprocess.run(command, capture_output=True, text=True)
        row = done.stdout if not done.returncode else f"| {name} | failed: {done.stderr[-300:]} |"
        print(row.strip(), flush=True)


if __name__ == "__main__":
    main()
