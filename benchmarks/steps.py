"""Steps of a benchmark, each in a process of its own, and what they cost.

Apart from `measuring`, which loads PyTorch: its memory would count for steps that only read.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def resident() -> float:
    """Resident memory without files that are mapped, MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("this benchmark reads /proc, as Linux has it")


def watched(function: Callable[[], Any]) -> dict[str, float]:
    """CPU seconds of a call, and how memory (MiB) and open files grow during it."""
    over, start, peak, files = threading.Event(), resident(), resident(), 0

    def watch() -> None:
        nonlocal peak, files
        while not over.wait(0.02):
            peak = max(peak, resident())
            files = max(files, sum(1 for _ in Path("/proc/self/fd").iterdir()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    cpu, wall = time.process_time(), time.perf_counter()
    try:
        kept = function()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    finally:
        over.set()
        watcher.join()
    peak = max(peak, resident())
    del kept
    return {"cpu": cpu, "wall": wall, "memory": peak - start, "files": files}


def in_a_process(script: str, step: str, folder: Path, *words: str) -> dict[str, float]:
    """What a step costs: a script, called again with ``--step`` and ``--folder``, prints it."""
    command = [sys.executable, script, "--step", step, "--folder", str(folder), *words]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    cost: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return cost
