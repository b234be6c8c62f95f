"""The calls that a detector finds, of every channel and in the results of their own data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

import bacpipe
from bacpipe.embedder import Embedder
from bacpipe.errors import ResultsError
from bacpipe.models.base import Calls

RATE = 8000


class Clicks(bacpipe.ModelBaseClass):
    """Takes the first loud sample of each second for a call."""

    version = "1"

    def __init__(self, **kwargs: object) -> None:
        super().__init__(sr=RATE, segment_length=RATE, batch_size=4, **kwargs)
        self.classes = ["click"]

    def preprocess(self, audio: torch.Tensor) -> torch.Tensor:
        return audio

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(len(x), 10, -1).mean(dim=2)

    def calls(self, x: torch.Tensor) -> list[Calls]:
        found = []
        for window in np.asarray(x):
            at = np.flatnonzero(np.abs(window) > 0.4)[:1] / RATE
            n = len(at)
            scores = np.full((n, 1), 0.9, np.float32)
            found.append(
                Calls(at, at + 0.01, np.full(n, 1e3), np.full(n, 2e3), scores, scores[:, 0])
            )
        return found


def clicks(path: Path, *channels: list[float]) -> None:
    """Write four seconds with clicks at these times."""
    samples = np.zeros((4 * RATE, len(channels)), np.float32)
    for channel, times in enumerate(channels):
        samples[[int(time * RATE) for time in times], channel] = 0.9
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, RATE)


@pytest.fixture
def detect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """`bacpipe.detect_calls`, with a detector of our own in the place of BatDetect2."""
    monkeypatch.setattr(
        "bacpipe.embedder.Embedder",
        lambda name, loader: Embedder(name, loader, CustomModel=Clicks),
    )

    def detected(audio_dir: Path, **settings: object) -> pd.DataFrame:
        table = bacpipe.detect_calls(
            audio_dir=audio_dir, main_results_dir=tmp_path / "results", device="cpu", **settings
        )
        return pd.read_csv(table)

    return detected


def test_calls_of_every_channel_are_told(tmp_path: Path, detect) -> None:
    clicks(tmp_path / "field" / "stereo.wav", [0.5], [1.5, 2.5])
    clicks(tmp_path / "field" / "mono.wav", [3.5])
    found = detect(tmp_path / "field", channel="each")
    rows = found[["audiofilename", "channel", "start"]].values.tolist()
    assert rows == [
        ["mono.wav", 1, 3.5], ["stereo.wav", 1, 0.5], ["stereo.wav", 2, 1.5],
        ["stereo.wav", 2, 2.5],
    ]  # fmt: skip
    assert "channel" not in detect(tmp_path / "field", channel="right")
    with pytest.raises(ResultsError, match=r"expected the columns audiofilename, .* channel"):
        detect(tmp_path / "field", channel="each", recordings="mono.wav")


def test_calls_of_folders_of_one_name_are_kept_apart(tmp_path: Path, detect) -> None:
    clicks(tmp_path / "a" / "field" / "one.wav", [0.5])
    clicks(tmp_path / "b" / "field" / "two.wav", [2.5])
    for folder, name in (("a", "one.wav"), ("b", "two.wav"), ("a", "one.wav")):
        assert detect(tmp_path / folder / "field").audiofilename.tolist() == [name]
    tables = [*(tmp_path / "results").rglob("*_calls.csv")]
    assert {pd.read_csv(path).audiofilename.item() for path in tables} == {"one.wav", "two.wav"}
