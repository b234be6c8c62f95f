"""Small recordings for the tests of decoding and windows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

WriteAudio = Callable[..., Path]


@pytest.fixture
def write_audio(tmp_path: Path) -> WriteAudio:
    """Return a function that writes a recording of noise; further keywords go to soundfile."""

    def write(
        name: str, seconds: float = 1.0, rate: int = 16_000, channels: int = 1, **kwargs: str
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(7)
        noise = 0.1 * rng.standard_normal((round(seconds * rate), channels))
        sf.write(path, noise.astype(np.float32), rate, **kwargs)
        return path

    return write


@pytest.fixture
def cut(tmp_path: Path) -> Callable[[Path, float], Path]:
    """Return a function that copies the beginning of a file, a fraction of its bytes."""

    def copy(path: Path, fraction: float) -> Path:
        content = path.read_bytes()
        short = tmp_path / f"cut_{path.name}"
        short.write_bytes(content[: int(fraction * len(content))])
        return short

    return copy
