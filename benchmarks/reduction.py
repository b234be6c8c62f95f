"""Time and peak memory of a map of many windows: synthetic embeddings of 1024 values.

python benchmarks/reduction.py [--windows 10000 50000 200000] [--reducers umap pca]

Each map is made in a process of its own, from start to end, imports and compiling included.
The embeddings are noisy points around 20 centres on a curved surface of 30 dimensions.
'neighbours kept' is the share of a window's 15 nearest windows (in all 1024 values) that are
among the 150 nearest on the map, of 500 windows.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

DIM = 1024
RUN = """
import json, resource, sys, time
start = time.perf_counter()
import numpy as np
from bacpipe.reduction.reducers import choose_seed, fit
embeds = np.load(sys.argv[1])
fitted = fit(sys.argv[2], embeds, 2, choose_seed("auto", len(embeds)))
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
np.save(sys.argv[3], fitted.coordinates)
print(json.dumps({"seconds": seconds, "peak": peak}))
"""


def write_embeddings(path: Path, windows: int) -> None:
    """Write embeddings block by block."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(20, 30)).astype(np.float32) * 2
    bend = rng.normal(size=(30, DIM)).astype(np.float32) / 5
    array = np.lib.format.open_memmap(path, "w+", np.float32, (windows, DIM))
    for first in range(0, windows, 10_000):
        n = min(10_000, windows - first)
        points = centres[rng.integers(20, size=n)] + rng.normal(size=(n, 30))
        noise = 0.05 * rng.standard_normal((n, DIM), np.float32)
        array[first : first + n] = np.maximum(points.astype(np.float32) @ bend, 0) + noise
    array.flush()


def neighbours_kept(embeds: np.ndarray, coordinates: np.ndarray) -> float:
    from sklearn.neighbors import NearestNeighbors

    rows = np.random.default_rng(1).choice(len(embeds), 500, replace=False)
    true = NearestNeighbors(n_neighbors=16, algorithm="brute").fit(embeds)
    near = NearestNeighbors(n_neighbors=151).fit(coordinates)
    wanted = true.kneighbors(embeds[rows], return_distance=False)[:, 1:]
    found = near.kneighbors(coordinates[rows], return_distance=False)
    return float(np.mean([np.isin(a, b).mean() for a, b in zip(wanted, found, strict=True)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, nargs="+", default=[10_000, 50_000])
    parser.add_argument("--reducers", nargs="+", default=["umap"])
    arguments = parser.parse_args()
    print(f"{'reducer':<10} {'windows':>8} {'seconds':>8} {'peak MiB':>9} {'x input':>8}  kept")
    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder) / "embeddings.npy", Path(folder) / "map.npy"
        for windows in arguments.windows:
            write_embeddings(source, windows)
            for name in arguments.reducers:
                command = [sys.executable, "-c", RUN, str(source), name, str(result)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                row = json.loads(done.stdout.splitlines()[-1])
                kept = neighbours_kept(np.load(source, mmap_mode="r"), np.load(result))
                print(
                    f"{name:<10} {windows:>8} {row['seconds']:>8.1f} {row['peak']:>9.0f} "
                    f"{row['peak'] * 2**20 / (windows * DIM * 4):>8.2f}  {kept:.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
