"""The whole run against the model and the decoding alone, per model and kind of recordings.

In turns and for every data set: the model on random windows that are in memory (same batch
size, same number of batches at once), decoding with soundfile and soxr alone, and a complete
run (search, decode, embed, classify, write).  Data sets are cut to what a model does in some
seconds.  Each model runs in a process of its own, with the tests' fake weights if it has no
others here.  Limits: decoding where it takes over a quarter of the CPU time, arithmetic where the
model reaches over half of what large matrix products do, else memory.

    python benchmarks/efficiency.py                  # the models below
    python benchmarks/efficiency.py birdnet --seconds 20 --rounds 5
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from measuring import decode, gflop, limit, matrix_peak, pure, whole
from recordings import write_folder

from bacpipe.embedder import Embedder
from bacpipe.inference.report import RunReport
from tests.models import parity

MODELS = (
    "birdnet",
    "batdetect2_clip_avg",
    "mix2",
    "protoclr",
    "rcl_fs_bsed",
    "beats",
    "naturebeats",
    "birdmae",
    "aves_especies",
)
# Name: files, seconds each, suffix, sample rate, channels.
DATA_SETS = {
    "60 × 60 s wav": (60, 60.0, ".wav", 48000, 1),
    "1000 × 3 s wav": (1000, 3.0, ".wav", 48000, 1),
    "1 × 1 h wav": (1, 3600.0, ".wav", 48000, 1),
    "60 × 60 s stereo mp3": (60, 60.0, ".mp3", 44100, 2),
    "60 × 60 s stereo flac": (60, 60.0, ".flac", 44100, 2),
}


def measure(name: str, seconds: float, rounds: int, only: str) -> None:
    """Print a row of the table for every data set."""
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch) / "models"
        if name in parity.MODELS:
            parity.write_checkpoint(name, base)
        embedder = Embedder(name, device="cpu", model_base_path=str(base))
        rate, _ = pure(embedder, 2)
        work = gflop(embedder) / matrix_peak()
        window = embedder.model.segment_length / embedder.model.sr
        for kind, (files, length, suffix, sample_rate, channels) in DATA_SETS.items():
            if not kind.startswith(only):
                continue
            share = min(1.0, seconds * rate / (files * math.ceil(length / window)))
            if files == 1:
                length *= share
            else:
                files = max(2, round(files * share))
            folder = Path(scratch) / kind
            audio = {"rate": sample_rate, "channels": channels}
            write_folder(folder, files, length, suffix, **audio)
            *row, cpu, decoding = _compare(embedder, folder, seconds, rounds)
            share = work / cpu
            why = limit(share, decoding / (cpu + decoding))
            print(json.dumps([name, kind, *row, share, why]), flush=True)


def _compare(embedder: Embedder, folder: Path, seconds: float, rounds: int) -> list[float]:
    """Pure and whole windows/s, their ratio, CPU seconds: whole / (model + decoding).

    And CPU seconds per window of the model and of decoding.
    """
    found = []
    for _ in range(rounds):
        decoding = decode(folder, embedder.model.sr)
        # Before and after, because machines that are shared get faster and slower.
        around = [pure(embedder, seconds / 4)]
        embedder.report = RunReport(embedder.model_name)
        rate, cpu = whole(embedder, folder)
        around.append(pure(embedder, seconds / 4))
        pure_rate, pure_cpu = np.mean(around, axis=0)
        windows = embedder.report.windows
        found.append(
            (
                pure_rate,
                rate,
                rate / pure_rate,
                cpu * windows / (pure_cpu * windows + decoding),
                pure_cpu,
                decoding / windows,
            )
        )
    return [float(value) for value in np.median(found, axis=0)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--seconds", type=float, default=8, help="of the model's time")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="data sets whose name begins with this")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        measure(arguments.one, arguments.seconds, arguments.rounds, arguments.only)
        return
    print("| model | recordings | pure, windows/s | whole run | whole/pure | CPU ratio ", end="")
    print("| part of the peak | limit |\n" + "|---" * 8 + "|")
    for name in arguments.models:
        command = [sys.executable, __file__, "--one", name]
        command += ["--seconds", str(arguments.seconds), "--rounds", str(arguments.rounds)]
        command += ["--only", arguments.only]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            print(f"| {name} | failed: {done.stderr.strip().splitlines()[-1]} |")
        for line in done.stdout.splitlines():
            if line.startswith("["):
                _, kind, *rates, share, cpu, peak, why = json.loads(line)
                cells = [name, kind, *(f"{rate:.1f}" for rate in rates)]
                cells += [f"{value:.2f}" for value in (share, cpu, peak)]
                print(f"| {' | '.join(cells)} | {why} |", flush=True)


if __name__ == "__main__":
    main()
