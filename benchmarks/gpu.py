"""The GPU path: float32 against bfloat16, whole runs against the pure model, and how busy it is.

Per model, on the device that bacpipe would choose (or the one given): windows per second of the
model alone and of a whole run (44.1 kHz stereo FLAC, so that decoding and resampling count), the
share of the run in which the GPU computes and in which it copies (from a trace of the run), and
how far bfloat16 moves embeddings.  Runs on a CPU, too, without the shares.

    python benchmarks/gpu.py                     # birdnet and the tests' fake weights of others
    python benchmarks/gpu.py birdnet --device cuda:1
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from measuring import pure, whole
from recordings import write_folder
from torch.profiler import ProfilerActivity, profile

from bacpipe.embedder import Embedder
from bacpipe.inference.report import RunReport
from tests.models import parity

MODELS = ("birdnet", "mix2", "beats", "birdaves_especies")
COPIES = ("memcpy", "memset")


def busy(trace: profile) -> tuple[float, float]:
    """Shares of the traced time in which kernels ran, and in which copies were made."""
    events = [event for event in trace.events() if event.device_type.name == "CUDA"]
    if not events:
        return float("nan"), float("nan")
    ranges = [event.time_range for event in trace.events()]
    length = max(r.end for r in ranges) - min(r.start for r in ranges)
    copies = [e.time_range for e in events if any(word in e.name.lower() for word in COPIES)]
    kernels = [e.time_range for e in events if not any(w in e.name.lower() for w in COPIES)]
    return covered(kernels) / length, covered(copies) / length


def covered(ranges: list) -> float:
    """Length of the union of some time ranges."""
    total, end = 0.0, float("-inf")
    for item in sorted(ranges, key=lambda r: r.start):
        total += max(0.0, item.end - max(item.start, end))
        end = max(end, item.end)
    return total


def measure(name: str, device: str, base: Path, folder: Path) -> None:
    embeddings = {}
    noise = np.random.default_rng(0).normal(0, 0.1, 3_000_000).astype(np.float32)
    for precision in ("float32", "bfloat16"):
        embedder = Embedder(name, device=device, precision=precision, model_base_path=str(base))
        embeddings[precision] = embedder.embeddings_using_multithreading([noise])
        rate, _ = pure(embedder, 3)
        embedder.report = RunReport(name)
        whole_rate, _ = whole(embedder, folder)
        embedder.report = RunReport(name)
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as trace:
            whole(embedder, folder)
        kernels, copies = busy(trace)
        print(
            f"| {name} | {embedder.device} | {precision} | {rate:.0f} | {whole_rate:.0f} | "
            f"{whole_rate / rate:.2f} | {kernels:.2f} | {copies:.2f} |",
            flush=True,
        )
    difference = np.linalg.norm(embeddings["bfloat16"] - embeddings["float32"], axis=1)
    relative = difference / np.linalg.norm(embeddings["float32"], axis=1)
    print(
        f"\n{name}: bfloat16 moves embeddings by {np.median(relative):.1e} (median, relative L2), "
    )
    print(f"at most {relative.max():.1e}\n", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--files", type=int, default=60)
    arguments = parser.parse_args()
    head = (
        "| model | device | precision | pure, windows/s | whole run | whole/pure | busy | copies |"
    )
    print(head + "\n" + "|---" * 8 + "|")
    with tempfile.TemporaryDirectory() as scratch:
        base, folder = Path(scratch) / "models", Path(scratch) / "audio"
        write_folder(folder, arguments.files, 60, ".flac", rate=44100, channels=2)
        for name in arguments.models:
            if name in parity.MODELS:
                parity.write_checkpoint(name, base)
            measure(name, arguments.device, base, folder)


if __name__ == "__main__":
    main()
