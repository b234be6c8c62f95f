"""What BirdNET's range model takes of a run: recordings of a minute, at one site, two days apart.

The range is asked by the tables at the end of a run: once for each site and week, all together.
CPU time is of the whole process, imports included, as everybody waits for them; that of the range
is of the threads that ask (PyTorch's own threads add the same again for a few milliseconds).

    python benchmarks/species_range.py FOLDER_WITH_RECORDINGS --recordings 30
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import ParamSpec, TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import librosa
import numpy as np
import soundfile as sf

import bacpipe
from bacpipe.store import range_filter
from bacpipe.store.range_filter import RangeFilter

P, T = ParamSpec("P"), TypeVar("T")
RATE, SECONDS = 48_000, 60
spent: dict[str, float] = {}


def timed(name: str, function: Callable[P, T]) -> Callable[P, T]:
    """The same function, whose CPU time is counted."""

    def counting(*args: P.args, **kwargs: P.kwargs) -> T:
        start = time.thread_time()
        try:
            return function(*args, **kwargs)
        finally:
            spent[name] = spent.get(name, 0.0) + time.thread_time() - start

    return counting


def make_recordings(source: Path, folder: Path, count: int) -> None:
    """Minutes from the sounds of a folder, each begun elsewhere."""
    files = [path for path in sorted(source.rglob("*")) if path.suffix.lower() in {".wav", ".flac"}]
    sound = np.concatenate([librosa.load(path, sr=RATE)[0] for path in files])
    sound = np.resize(sound, max(len(sound), RATE * SECONDS))
    folder.mkdir()
    for number in range(count):
        start = datetime(2025, 4, 1, 4, 30) + timedelta(days=2 * number)
        minute = np.roll(sound, -3 * RATE * number)[: RATE * SECONDS]
        sf.write(folder / f"{start:%Y%m%d_%H%M%S}.wav", minute, RATE)


def main() -> None:
    """Print the shares."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--recordings", type=int, default=30)
    given = parser.parse_args()
    RangeFilter.prepare = timed("asked", RangeFilter.prepare)  # type: ignore[method-assign]
    RangeFilter.probabilities = timed("looked up", RangeFilter.probabilities)  # type: ignore[method-assign]
    range_filter._range_table = timed("table", range_filter._range_table)
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        before = time.process_time()
        make_recordings(given.folder, base / "recordings", given.recordings)
        made = time.process_time() - before
        bacpipe.generate_embeddings(
            model_name="birdnet", audio_dir=base / "recordings", main_results_dir=base / "results",
            latitude=52.52, longitude=13.40, device="cpu",
        )  # fmt: skip
        total = time.process_time() - made
    parts = ", ".join(f"{what} {seconds:.3f}" for what, seconds in spent.items())
    part = sum(spent.values())
    print(f"run {total:.1f} s of CPU; range {part:.3f} s, {part / total:.2%} ({parts})")


if __name__ == "__main__":
    main()
