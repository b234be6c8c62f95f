"""Synthetic recordings and a tiny model, shared by all tests."""

from __future__ import annotations

import copy
import hashlib
import logging
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch
from hypothesis import settings

import bacpipe
from bacpipe.audio.files import read_recording
from bacpipe.store.entries import DONE, FinishedEntry, StoredEmbeddings, StoredPredictions

# A shell makes what it runs in the background ignore Ctrl-C, and children inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes depends on what else the machine does.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

SHARED = Path(__file__).resolve().parents[2] / "shared"

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# Without the last five, Chromium talks to its maker when it starts.
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

needs_shared_audio = pytest.mark.skipif(
    not (SHARED / "audio" / "birds").is_dir(), reason="the recordings in ../shared are absent"
)


@pytest.fixture(autouse=True)
def levels() -> Iterator[None]:
    """What the command line lets pass holds for its process, which here is that of other tests."""
    loggers = [logging.getLogger(name) for name in (None, "bacpipe")]
    before = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)


@pytest.fixture(autouse=True)
def usual_malloc(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command line asks of the C library holds for its process, which would grow."""
    monkeypatch.setattr("bacpipe.__main__.keep_freed_memory", lambda: False)


@pytest.fixture(autouse=True)
def ctrl_c() -> Iterator[None]:
    """Whatever runs or is imported, Ctrl-C stays an interrupt, as users expect."""
    before = signal.getsignal(signal.SIGINT)
    yield
    after = signal.signal(signal.SIGINT, before)
    assert after is before


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Skip tests that make links where Windows lets nobody make any."""
    try:
        return (yield)
    except OSError as error:
        if getattr(error, "winerror", None) == 1314:  # ERROR_PRIVILEGE_NOT_HELD
            pytest.skip("Windows lets only administrators and developers make links")
        raise


class TinyModel(bacpipe.ModelBaseClass):
    """One second at 8 kHz; the embedding is the mean level of ten parts of the window.

    Its two classes are 'loud' (the level) and 'quiet' (one minus the level).  Counts its calls.
    """

    version = "1"  # tests change it without making it another one
    windows_seen = 0

    def __init__(self, **kwargs: object) -> None:
        super().__init__(sr=8000, segment_length=8000, batch_size=4, **kwargs)  # type: ignore[arg-type]
        self.classes = ["loud", "quiet"]

    def preprocess(self, audio: torch.Tensor) -> torch.Tensor:
        return audio.abs().reshape(len(audio), 10, -1)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        type(self).windows_seen += len(x)
        return x.mean(dim=2)

    def classifier_predictions(self, embeddings: torch.Tensor) -> torch.Tensor:
        level = embeddings.mean(dim=1).clamp(0, 1)
        return torch.stack([level, 1 - level], dim=1)


@pytest.fixture
def tiny_model() -> type[TinyModel]:
    """A fresh class, so that its count starts at 0."""
    return type("TinyModel", (TinyModel,), {"windows_seen": 0})


def write_recording(
    path: Path, seconds: float = 3.5, *, rate: int = 8000, channels: int = 1, seed: int = 0
) -> Path:
    """Write noise that gets louder, in any format that the suffix says."""
    rng = np.random.default_rng(seed)
    n = round(seconds * rate)
    samples = rng.uniform(-1, 1, (n, channels)) * np.linspace(0.1, 0.9, n)[:, None]
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, samples.astype(np.float32), rate)
    return path


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Folder 'field' with five recordings in two sub-folders, 13.5 s altogether."""
    folder = tmp_path / "field"
    write_recording(folder / "north" / "a.wav", 3.5, seed=1)
    write_recording(folder / "north" / "b.wav", 2.0, seed=2, channels=2)
    write_recording(folder / "south" / "a.wav", 4.0, seed=3, rate=16000)
    write_recording(folder / "south" / "c.flac", 3.5, seed=4)
    write_recording(folder / "top.wav", 0.5, seed=5)
    return folder


@pytest.fixture
def run(
    recordings: Path, tmp_path: Path, tiny_model: type[TinyModel]
) -> Callable[..., bacpipe.Loader]:
    """Run the tiny model over the recordings, with any settings."""

    def generate(**settings: object) -> bacpipe.Loader:
        arguments = {
            "audio_dir": recordings,
            "main_results_dir": tmp_path / "results",
            "CustomModel": tiny_model,
            "model_name": "tiny",
            "device": "cpu",
            "classifier_threshold": 0.5,
            **settings,
        }
        return bacpipe.generate_embeddings(**arguments)

    return generate


def finished_entry(
    name: str, *, windows: int = 3, duration: float = 3.0, **changes: Any
) -> FinishedEntry:
    """Entry of a recording that is done and in which nothing was found, as runs write it."""
    digest = hashlib.sha256(ascii((name, windows)).encode()).hexdigest()
    stem = name.rsplit(".", 1)[0]
    values: dict[str, Any] = {
        "status": DONE,
        "size": 48_044,
        "mtime_ns": 1_700_000_000_123_456_789,
        "padded": 0,
        "truncated": None,
        "segments": None,
        "segments_hash": None,
        "embeddings": StoredEmbeddings(f"{stem}_m.npy", 40 * windows + 128, 10, digest),
        "predictions": StoredPredictions(None, 0, None, 0.5, 20),
        **changes,
    }
    return FinishedEntry(name, duration=duration, windows=windows, **values)


def expected_windows(folder: Path) -> dict[str, int]:
    """Number of 1 s windows of each recording, from its header."""
    files = (path for path in folder.rglob("*") if path.suffix in {".wav", ".flac"})
    return {
        path.relative_to(folder).as_posix(): int(np.ceil(read_recording(path).duration))
        for path in files
    }


@pytest.fixture
def restored_settings() -> Iterator[None]:
    """Put ``bacpipe.config`` and ``bacpipe.settings`` back after the test."""
    saved = [(space, copy.deepcopy(vars(space))) for space in (bacpipe.config, bacpipe.settings)]
    yield
    for space, values in saved:
        vars(space).update(values)


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no chromium on this machine (Debian's package: chromium)")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGUMENTS)
        yield opened
        opened.close()
