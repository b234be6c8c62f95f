"""What bfloat16 changes of embeddings and scores on a CPU, and how much faster it is there.

Both precisions get the same windows in turns.  A processor without AMX or AVX-512 BF16 emulates
bfloat16, if at all: errors are the same then, and times mean nothing.  Models whose weights are
not here have random ones of the true size, whose classes mean nothing.

    python benchmarks/bfloat16.py birdnet --audio ../shared/audio/birds
    python benchmarks/bfloat16.py birdnet aves_especies convnext_birdset birdmae --windows 8
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from bacpipe.audio.files import find_recording_names
from bacpipe.embedder import Embedder
from bacpipe.inference.runner import BatchResult, ModelRunner
from bacpipe.models.backends.cpu.layers import processor_has_bfloat16
from bacpipe.models.backends.cpu.memory import keep_freed_memory
from tests.models import parity


def windows_of(folder: Path | None, embedder: Embedder, most: int) -> np.ndarray:
    """Windows of recordings, spread over all of them; without a folder, noise with chirps."""
    length, rate = embedder.model.segment_length, embedder.model.sr
    if folder is None:
        rng, t = np.random.default_rng(0), np.arange(length) / rate
        tones = [np.sin(2 * np.pi * rate * (f * t + 0.01 * np.sin(9 * t))) for f in (0.05, 0.1)]
        level = rng.uniform(0, 0.3, (most, 2)).astype(np.float32)
        return level @ np.float32(tones) + rng.normal(0, 0.05, (most, length)).astype(np.float32)
    parts = []
    for name in find_recording_names(folder):
        samples, _ = embedder.load_and_resample(folder / name)
        parts.append(embedder.window_audio(samples).numpy())
    found = np.concatenate(parts)
    return found[np.unique(np.linspace(0, len(found) - 1, most).astype(int))]


def in_batches(runner: ModelRunner, windows: np.ndarray, size: int) -> tuple[BatchResult, float]:
    """Embeddings and all scores, and CPU seconds per window."""
    cpu = time.process_time()
    parts = [runner(windows[i : i + size]) for i in range(0, len(windows), size)]
    cpu = time.process_time() - cpu
    scores = None if parts[0].scores is None else np.concatenate([p.scores for p in parts])
    return BatchResult(np.concatenate([p.embeddings for p in parts]), None, scores), cpu / len(
        windows
    )


def row(name: str, audio: Path | None, most: int, rounds: int) -> str:
    """A line of the table."""
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch)
        if name in parity.MODELS:
            parity.write_checkpoint(name, base)
        embedder = Embedder(name, device="cpu", model_base_path=str(base))
        windows = windows_of(audio, embedder, most)
        scores, size = bool(embedder.classifier.classes), embedder.model.batch_size
        runners = [
            ModelRunner(embedder.model, scores=scores, dense=True, precision=precision)
            for precision in ("float32", "bfloat16")
        ]
        for runner in runners:
            runner(windows[:size])
        results, seconds = [], []
        for _ in range(rounds):
            results, times = zip(*(in_batches(r, windows, size) for r in runners), strict=True)
            seconds.append(times)
    exact, rounded = results
    error = np.linalg.norm(rounded.embeddings - exact.embeddings, axis=1)
    error /= np.linalg.norm(exact.embeddings, axis=1)
    cells = [name, len(windows), f"{np.median(error):.4f}", f"{error.max():.4f}"]
    if exact.scores is None:
        cells += ["", "", ""]
    else:
        difference = np.abs(rounded.scores - exact.scores).max()
        same = rounded.scores.argmax(1) == exact.scores.argmax(1)
        sure = exact.scores.max(1) >= 0.25
        confident = f"{same[sure].mean():.3f}" if sure.any() else "none"
        cells += [f"{difference:.3f}", f"{same.mean():.4f}", confident]
    plain, fast = 1e3 * np.median(seconds, axis=0)
    cells += [f"{plain:.1f}", f"{fast:.1f}", f"{plain / fast:.2f}"]
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=["birdnet"])
    parser.add_argument("--audio", type=Path, help="folder of recordings")
    parser.add_argument("--windows", type=int, default=10_000, help="at most")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as the command line does
    if not processor_has_bfloat16():
        print("This processor has no bfloat16: errors hold, times do not.")
    print(
        "| model | windows | relative error, median | max | score difference | same best class | "
        "where a score ≥ 0.25 | float32, ms CPU | bfloat16 | × |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name in arguments.models:
        most = arguments.windows if arguments.audio else min(arguments.windows, 32)
        print(row(name, arguments.audio, most, arguments.rounds), flush=True)


if __name__ == "__main__":
    main()
