"""Synthetic recordings for the benchmarks: noise with chirps, in files of any length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile as sf


def write_recording(path: Path, seconds: float, *, rate: int = 48000, channels: int = 1) -> None:
    """Write a recording minute by minute, so that its length does not matter."""
    rng = np.random.default_rng(0)
    t = np.arange(60 * rate) / rate
    chirps = 0.2 * np.sin(2 * np.pi * (2000 * t + 300 * np.sin(2 * np.pi * 3 * t)))
    path.parent.mkdir(parents=True, exist_ok=True)
    with sf.SoundFile(path, "w", samplerate=rate, channels=channels) as file:
        remaining = round(seconds * rate)
        while remaining > 0:
            n = min(remaining, len(t))
            noise = rng.normal(0, 0.05, (n, channels))
            file.write((noise + chirps[:n, None]).astype(np.float32))
            remaining -= n


def write_folder(
    folder: Path, files: int, seconds: float, suffix: str = ".wav", **audio: int
) -> None:
    """Write a folder of equal recordings, unless it is there."""
    for i in range(files):
        path = folder / f"{i:05}{suffix}"
        if not path.exists():
            write_recording(path, seconds, **audio)
