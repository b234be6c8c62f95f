"""BirdNET alone: our PyTorch network against the stock TFLite interpreter, side by side.

Both get the same windows in the same process, in turns; the medians of the rounds give the
ratio.  Run it on an otherwise idle machine:

    python benchmarks/birdnet_model.py
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from measuring import gflop, matrix_peak

import bacpipe
from bacpipe.inference.runner import ModelRunner, limited_threads
from bacpipe.machine import available_cores


def litert(path: str, threads: int) -> Callable[[np.ndarray], None]:
    interpreter = Interpreter(path, num_threads=threads)
    interpreter.allocate_tensors()
    index = interpreter.get_input_details()[0]["index"]

    def run(windows: np.ndarray) -> None:
        for window in windows:
            interpreter.set_tensor(index, window[None])
            interpreter.invoke()

    return run


def measure(function: Callable[[np.ndarray], None], windows: np.ndarray) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    function(windows)
    return (
        len(windows) / (time.perf_counter() - wall),
        (time.process_time() - cpu) / len(windows) * 1000,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--windows", type=int, default=64)
    arguments = parser.parse_args()
    cores = available_cores()
    embedder = bacpipe.Embedder("birdnet", device="cpu")
    runner = ModelRunner(embedder.model, scores=True, threshold=0.5, top=20)
    size = embedder.model.batch_size
    weights = str(next(iter(embedder.model.files.values())))
    windows = np.random.default_rng(0).normal(0, 0.1, (arguments.windows, 144000))
    windows = windows.astype(np.float32)
    stock = litert(weights, cores)
    with limited_threads(cores), ThreadPoolExecutor(cores) as pool:

        def ours(windows: np.ndarray) -> None:
            list(pool.map(runner, np.array_split(windows, -(-len(windows) // size))))

        ours(windows), stock(windows[:4])
        rounds = [
            (measure(ours, windows), measure(stock, windows)) for _ in range(arguments.rounds)
        ]
    speed = np.median([(a[0], b[0]) for a, b in rounds], axis=0)
    cpu = np.median([(a[1], b[1]) for a, b in rounds], axis=0)
    ratio = np.median([a[0] / b[0] for a, b in rounds])
    print(f"cores {cores}, batch {size}, {arguments.rounds} rounds of {arguments.windows} windows")
    print(f"bacpipe         {speed[0]:6.1f} windows/s  {cpu[0]:6.1f} ms CPU per window")
    print(f"LiteRT, stock   {speed[1]:6.1f} windows/s  {cpu[1]:6.1f} ms CPU per window")
    print(f"ratio           {ratio:6.2f} (median of rounds), by CPU time {cpu[1] / cpu[0]:.2f}")
    flops, peak = gflop(embedder), matrix_peak()
    print(
        f"arithmetic      {flops:.2f} GFLOP per window; this machine's matrix products reach "
        f"{peak:.0f} GFLOP per CPU second, so {100 * flops / (cpu[0] / 1000) / peak:.0f} % of them"
    )


if __name__ == "__main__":
    main()
