"""Whether all decoders work, whatever the length of the recordings, on a machine with many cores.

Decoders are simulated: each waits as long as decoding takes and hands out windows of 3 s at 48 kHz,
so that two cores show what sixteen would do.  The model costs next to nothing.  For every length
and number of decoders: windows per second of a whole run, as a part of what so many decoders give
that nobody keeps waiting.

    python benchmarks/decoders.py
    python benchmarks/decoders.py --rate 300 --decoders 4 32
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Generator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

import bacpipe
from bacpipe.audio.stream import Samples
from bacpipe.inference.pipeline import Decode, Workload, run
from bacpipe.inference.report import RunReport
from bacpipe.inference.runner import ModelRunner
from bacpipe.store.plan import Source, StreamEnd

BAR = 0.9
SAMPLES = 144_000
BLOCK = 3  # windows that are decoded at once
LENGTHS = {"1 min": 20, "30 min": 600, "1 h": 1200}  # windows


class Nothing(bacpipe.ModelBaseClass):
    """Costs nothing."""

    concurrent = True

    def __init__(self) -> None:
        super().__init__(sr=48_000, segment_length=SAMPLES, device="cpu")

    def preprocess(self, audio: torch.Tensor) -> torch.Tensor:
        return audio

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :8]


class Count:
    """Receives results and forgets them."""

    def add(self, source: Source, embeddings: np.ndarray, predictions: object) -> None:
        pass

    def finish(self, source: Source, end: StreamEnd) -> None:
        pass

    def fail(self, source: Source, reason: str) -> None:
        raise RuntimeError(reason)


def simulated(windows: int, rate: float) -> Decode:
    """Decoder of recordings of so many windows that gives `rate` windows per second."""
    block = np.random.default_rng(0).normal(0, 0.1, (BLOCK, SAMPLES)).astype(np.float32)

    def decode(source: Source) -> Generator[Samples, None, StreamEnd]:
        for first in range(0, windows, BLOCK):
            part = block[: windows - first]
            time.sleep(len(part) / rate)
            yield part
        return StreamEnd(3.0 * windows, padded=0)

    return decode


def alone(decode: Decode, source: Source) -> float:
    """Windows per second of one decoder that nobody keeps waiting."""
    started = time.perf_counter()
    count = sum(len(block) for block in decode(source))
    return count / (time.perf_counter() - started)


def measure(windows: int, decoders: int, rate: float, seconds: float) -> tuple[float, float]:
    """Windows per second of a run, and of as many decoders alone."""
    decode = simulated(windows, rate)
    files = decoders * max(1, round(seconds * rate / windows))
    sources = [Source(Path(), f"{i}.wav", 0, 0) for i in range(files)]
    report, runner = RunReport("nothing"), ModelRunner(Nothing(), scores=False)
    run(sources, decode, runner, Count(), Workload(64, 2, decoders), report)
    return report.windows / report.wall_seconds, decoders * alone(decode, sources[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--decoders", type=int, nargs="*", default=[8, 16])
    parser.add_argument("--rate", type=float, default=480, help="windows/s of one decoder")
    parser.add_argument("--seconds", type=float, default=6, help="of each measurement")
    arguments = parser.parse_args()
    print(f"| recordings | decoders | windows/s | their sum | part | ≥ {BAR} |")
    print("|---" * 6 + "|")
    for name, windows in LENGTHS.items():
        for decoders in arguments.decoders:
            found, most = measure(windows, decoders, arguments.rate, arguments.seconds)
            part = found / most
            cells = f"{found:.0f} | {most:.0f} | {part:.2f} | {'yes' if part >= BAR else 'no'}"
            print(f"| {name} | {decoders} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
