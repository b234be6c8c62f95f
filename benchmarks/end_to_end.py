"""The whole run against the pure model: what decoding, batching and writing cost.

Per data set, in turns: the model on random windows that are in memory (same batch size, same
number of batches at once), and a complete run (search, decode, embed, classify, write).

    python benchmarks/end_to_end.py                  # birdnet
    python benchmarks/end_to_end.py --model batdetect2_clip_avg --suffix .flac --rate 44100
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from recordings import write_folder

import bacpipe
from bacpipe.inference.embedder import Embedder
from bacpipe.inference.runner import ModelRunner, limited_threads

DATA_SETS = {"60 x 60 s": (60, 60.0), "1000 x 3 s": (1000, 3.0), "1 x 1 h": (1, 3600.0)}


def pure(embedder: Embedder, seconds: float) -> tuple[float, float]:
    """Windows per second and CPU seconds per window of the model alone."""
    scores = bool(embedder.classifier.classes)
    runner = ModelRunner(embedder.model, scores=scores, threshold=0.5, top=20)
    load = embedder.workload(runner)
    shape = (load.batch_size, embedder.model.segment_length)
    batch = np.random.default_rng(0).normal(0, 0.1, shape).astype(np.float32)
    with limited_threads(load.workers) as threads:
        pool = ThreadPoolExecutor(
            load.workers, initializer=torch.set_num_threads, initargs=(threads,)
        )
        list(pool.map(runner, [batch] * load.workers))
        started, cpu, done = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() - started < seconds:
            list(pool.map(runner, [batch] * 4 * load.workers))
            done += 4 * load.workers * load.batch_size
        wall, cpu = time.perf_counter() - started, time.process_time() - cpu
        pool.shutdown()
    return done / wall, cpu / done


def whole(embedder: Embedder, folder: Path) -> tuple[float, float]:
    """Windows per second and CPU seconds per window of a complete run."""
    results = Path(tempfile.mkdtemp())
    loader = bacpipe.Loader(
        folder, embedder.model_name, use_folder_structure=True, main_results_dir=results
    )
    embedder.loader = loader
    started, cpu = time.perf_counter(), time.process_time()
    embedder.run_inference_pipeline_using_multithreading()
    wall, cpu = time.perf_counter() - started, time.process_time() - cpu
    shutil.rmtree(results)
    return embedder.report.windows / wall, cpu / embedder.report.windows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="birdnet")
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "bacpipe_data")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--suffix", default=".wav")
    parser.add_argument("--rate", type=int, default=48000)
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the data sets' files")
    arguments = parser.parse_args()
    embedder = Embedder(arguments.model, device="cpu")
    audio = {"rate": arguments.rate, "channels": arguments.channels}
    print(f"{arguments.model}, {arguments.suffix}, {audio}")
    for name, (files, seconds) in DATA_SETS.items():
        files = max(1, round(files * arguments.scale))
        kind = f"{files}x{seconds:g}_{arguments.rate}_{arguments.channels}{arguments.suffix}"
        folder = arguments.data / kind
        write_folder(folder, files, seconds, arguments.suffix, **audio)
        rounds = [(pure(embedder, 4), whole(embedder, folder)) for _ in range(arguments.rounds)]
        rates = np.median([(a[0], b[0]) for a, b in rounds], axis=0)
        share = np.median([b[0] / a[0] for a, b in rounds])
        cpu = np.median([b[1] / a[1] for a, b in rounds])
        print(
            f"{name:<11} pure {rates[0]:7.1f} windows/s  whole {rates[1]:7.1f} windows/s  "
            f"whole/pure {share:.2f}  CPU whole/pure {cpu:.2f}"
        )


if __name__ == "__main__":
    main()
