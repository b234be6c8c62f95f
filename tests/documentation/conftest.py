"""The folder that pages, notebooks and docstrings speak of, made once for all of them."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import soundfile as sf
import torch

import bacpipe
from bacpipe.models.families.birdnet import BirdNet
from tests.conftest import SHARED
from tests.models.test_batdetect2 import make_bats

Compute = Callable[[BirdNet, torch.Tensor], torch.Tensor]


def _once(compute: Compute) -> Compute:
    """The same function, which remembers what came out for each window."""
    known: dict[bytes, torch.Tensor] = {}

    def remembered(model: BirdNet, windows: torch.Tensor) -> torch.Tensor:
        keys = [hashlib.blake2b(window.numpy()).digest() for window in windows.contiguous()]
        new = [number for number, key in enumerate(keys) if key not in known]
        if new:
            rows = compute(model, windows if len(new) == len(keys) else windows[new])
            known.update((keys[number], row.clone()) for number, row in zip(new, rows, strict=True))
        return torch.stack([known[key] for key in keys])

    return remembered


@pytest.fixture(scope="session")
def remembering() -> dict[str, Compute]:
    """BirdNET's methods, which compute each window once, however many pages speak of it."""
    return {name: _once(getattr(BirdNet, name)) for name in ("preprocess", "__call__")}


@pytest.fixture(scope="module", autouse=True)
def heard_once(remembering: dict[str, Compute]) -> Iterator[None]:
    """BirdNET remembers while pages are read."""
    with pytest.MonkeyPatch.context() as patch:
        for name, method in remembering.items():
            patch.setattr(BirdNet, name, method)
        yield


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory, remembering: dict[str, Compute]) -> Path:
    """The demo as ``recordings``, with BirdNET's results and trained probes; bats; real birds.

    ``recordings/birds.csv`` gives the demo's calls the names that BirdNET gives them.
    """
    folder = tmp_path_factory.mktemp("documentation") / "reader"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, method in remembering.items():
            patch.setattr(BirdNet, name, method)
        recordings = bacpipe.make_demo("recordings")
        loader = bacpipe.generate_embeddings(
            model_name="birdnet", audio_dir="recordings", device="cpu"
        )
        truth = bacpipe.ground_truth_by_model("birdnet", "recordings")
        for name in ("linear", "knn"):
            bacpipe.probing_pipeline(
                "birdnet", truth, loader.embeddings("array"), paths=loader.paths, name=name
            )
        found = bacpipe.detections_table(loader)
        columns = {"recording": "audiofilename", "common_name": "label:species"}
        table = found.rename(columns=columns)[["start", "end", *columns.values()]]
        table.to_csv(recordings / "birds.csv", index=False)
        for bats in ("bats", "bat_recordings"):
            (folder / bats).mkdir()
            sf.write(folder / bats / "evening.wav", make_bats(0, 6), 256_000)
        for source in (SHARED / "audio" / "birds").rglob("*.*"):
            copy = folder / source.relative_to(SHARED / "audio")
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)  # without its mode, which may forbid writing
    shutil.copytree(folder, folder.parent / "saved")
    return folder


def lay_out(folder: Path) -> None:
    """Put the prepared folder back as it was made: results know their folder by its path."""
    shutil.rmtree(folder)
    shutil.copytree(folder.parent / "saved", folder)


@pytest.fixture
def desk(prepared: Path, monkeypatch: pytest.MonkeyPatch, restored_settings: None) -> Path:
    """The prepared folder, to work in."""
    lay_out(prepared)
    monkeypatch.chdir(prepared)
    monkeypatch.setattr("webbrowser.open", lambda *_, **__: True)
    return prepared
