"""What the benchmarks measure: a model alone, decoding alone, a whole run, and what limits them."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import patch

import numpy as np
import soundfile as sf
import soxr
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import bacpipe
from bacpipe.embedder import Embedder
from bacpipe.inference.runner import limited_threads
from bacpipe.models.backends.cpu.layers import FusedLinear


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


def gflop(embedder: Embedder) -> float:
    """GFLOP of one window, of its products and convolutions."""
    window = np.random.default_rng(0).normal(0, 0.1, (1, embedder.model.segment_length))
    runner = embedder.runner(scores=bool(embedder.classifier.classes))
    # The counter knows PyTorch's layers, not those of oneDNN.
    plain = patch("bacpipe.models.backends.cpu.layers.onednn_computes", return_value=False)
    with plain, FlopCounterMode(display=False) as counter:
        runner(window.astype(np.float32))
    return float(counter.get_total_flops()) / 1e9


def matrix_peak() -> float:
    """GFLOP per CPU second that large matrix products reach on one core, by oneDNN.

    Its kernels suit all processors; PyTorch's own product (MKL) is half as fast on AMD's.
    """
    size, best = 2048, 0.0
    layer, x = FusedLinear(nn.Linear(size, size)), torch.rand(size, size)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        for _ in range(10):
            started = time.thread_time()
            layer(x)
            best = max(best, 2 * size**3 / (time.thread_time() - started) / 1e9)
    torch.set_num_threads(before)
    return best


def limit(share: float, decoding: float = 0.0) -> str:
    """What a run or a model waits for.

    Parameters
    ----------
    share : float
        Part of the matrix peak that the model reaches by CPU time.
    decoding : float
        Part of the CPU time that decoding and resampling take.
    """
    if decoding > 1 / 4:
        return "decoding"
    return "arithmetic" if share > 1 / 2 else "memory"
