"""Every PyTorch model of the zoo with fake weights: windows per second alone and in a whole run,
CPU time per window, its part of what large matrix products reach, what limits it, and its peak
memory.  The pages of models take their speed from tables of ``benchmarks/README.md``.

Each model runs in a process of its own, so that its peak memory is its own, too.  The fake
checkpoints are those of the tests.

    python benchmarks/zoo.py                    # all models
    python benchmarks/zoo.py mix2 protoclr
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from measuring import gflop, limit, matrix_peak, pure, whole
from recordings import write_folder

from bacpipe.embedder import Embedder
from bacpipe.inference.report import RunReport
from tests.models import parity

SECONDS = 6  # of the model's time per measurement


def measure(name: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as scratch:
        base, folder = Path(scratch) / "models", Path(scratch) / "audio"
        if name in parity.MODELS:
            parity.write_checkpoint(name, base)
        embedder = Embedder(name, device="cpu", model_base_path=str(base))
        rate, cpu = pure(embedder, SECONDS)
        window = embedder.model.segment_length / embedder.model.sr
        minutes = max(1, round(rate * SECONDS * window / 60))
        write_folder(folder, min(minutes, 30), 60 * max(1.0, minutes / 30), rate=embedder.model.sr)
        embedder.report = RunReport(name)
        rate_whole, cpu_whole = whole(embedder, folder)
    return {
        "batch": embedder.model.batch_size,
        "pure": rate,
        "whole": rate_whole,
        "share": rate_whole / rate,
        "cpu": cpu_whole / cpu,
        "ms": 1000 * cpu,
        "gflop": gflop(embedder),
        "peak": gflop(embedder) / cpu / matrix_peak(),
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one)))
        return
    names = arguments.models or [*parity.MODELS, "birdnet", "batdetect2_clip_avg"]
    print("| model | batch | ms per window | pure, windows/s | whole run | whole/pure ", end="")
    print("| CPU whole/pure | GFLOP a window | part of the peak | limit | MiB |")
    print("|---" * 11 + "|")
    for name in names:
        command = [sys.executable, __file__, "--one", name]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            print(f"| {name} | failed: {done.stderr.strip().splitlines()[-1]} |")
            continue
        r = json.loads(done.stdout.splitlines()[-1])
        print(
            f"| {name} | {r['batch']} | {r['ms']:.1f} | {r['pure']:.1f} | {r['whole']:.1f} | "
            f"{r['share']:.2f} | {r['cpu']:.2f} | {r['gflop']:.2f} | {r['peak']:.2f} | "
            f"{limit(r['peak'])} | {r['memory']:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
