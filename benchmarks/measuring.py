"""What the benchmarks measure: a model alone, decoding alone, and a whole run."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr
import torch

import bacpipe
from bacpipe.embedder import Embedder
from bacpipe.inference.runner import limited_threads


def pure(embedder: Embedder, seconds: float) -> tuple[float, float]:
    """Windows per second and CPU seconds per window of the model alone."""
    scores = bool(embedder.classifier.classes)
    runner = embedder.runner(scores=scores)
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
    # Not at once: ext4 searches long for a place for files made seconds after others were deleted.
    atexit.register(shutil.rmtree, results)
    loader = bacpipe.Loader(
        folder, embedder.model_name, use_folder_structure=True, main_results_dir=results
    )
    embedder.loader = loader
    started, cpu = time.perf_counter(), time.process_time()
    embedder.run_inference_pipeline_using_multithreading()
    wall, cpu = time.perf_counter() - started, time.process_time() - cpu
    return embedder.report.windows / wall, cpu / embedder.report.windows


def decode(folder: Path, rate: int) -> float:
    """CPU seconds that soundfile and soxr alone need to decode a folder."""
    cpu = time.process_time()
    for path in sorted(folder.iterdir()):
        samples, native = sf.read(path, dtype="float32", always_2d=True)
        mono = samples[:, 0]
        if samples.shape[1] > 1:
            mono = (samples[:, 0] + samples[:, 1]) * np.float32(0.5)
        if native != rate:
            soxr.resample(mono, native, rate, quality="HQ")
    return time.process_time() - cpu
