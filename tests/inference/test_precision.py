from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bacpipe
from bacpipe.errors import SettingsError
from bacpipe.models.zoo import CARDS
from tests.conftest import TinyModel


class Linear(TinyModel):
    """A product of matrices, which bfloat16 rounds."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.rand(8000, 16, generator=generator) / 8000
        self.inputs: list[torch.dtype] = []

    def preprocess(self, audio: torch.Tensor) -> torch.Tensor:
        self.inputs.append((audio @ self.weight).dtype)
        return audio.abs()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight


def embed(model: type, audio: np.ndarray, **settings: Any) -> tuple[bacpipe.Embedder, np.ndarray]:
    embedder = bacpipe.Embedder("linear", CustomModel=model, device="cpu", **settings)
    return embedder, embedder.embeddings_using_multithreading([audio])


def test_bfloat16_rounds_in_the_network_and_nowhere_else() -> None:
    audio = np.random.default_rng(0).uniform(-1, 1, 40_000).astype(np.float32)
    _, exact = embed(Linear, audio)
    embedder, rounded = embed(Linear, audio, precision="bfloat16")
    assert rounded.dtype == np.float32
    difference = np.linalg.norm(rounded - exact) / np.linalg.norm(exact)
    assert 1e-5 < difference < 1e-2
    assert set(embedder.model.inputs) == {torch.float32}
    assert embedder.classifier.predictions.dtype == np.float32


def test_another_precision_starts_embeddings_of_its_own(recordings: Path, tmp_path: Path) -> None:
    folders = [
        bacpipe.generate_embeddings(
            model_name="linear",
            CustomModel=Linear,
            audio_dir=recordings,
            main_results_dir=tmp_path / "results",
            device="cpu",
            precision=precision,
        ).get_embedding_dir()
        for precision in ("float32", "bfloat16", "float32")
    ]
    assert folders[0] == folders[2] != folders[1]


def test_models_of_other_frameworks_refuse_it() -> None:
    embedder = bacpipe.Embedder("linear", CustomModel=Linear, device="cpu", precision="bfloat16")
    embedder.model.card = CARDS["vggish"]
    with pytest.raises(SettingsError, match="vggish, which tensorflow computes"):
        embedder.embeddings_using_multithreading([np.zeros(8000, np.float32)])
