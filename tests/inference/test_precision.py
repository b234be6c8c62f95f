from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bacpipe
from bacpipe.errors import SettingsError
from bacpipe.inference import audio_handler
from bacpipe.models.backends.cpu import layers
from bacpipe.models.zoo import CARDS
from tests.conftest import SHARED, TinyModel, needs_shared_audio


@pytest.fixture(autouse=True)
def _bfloat16_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the processor have it: any can emulate it."""
    monkeypatch.setattr(audio_handler, "processor_has_bfloat16", lambda: True)


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


def test_scores_under_bfloat16_do_not_come_in_steps() -> None:
    class Scores(Linear):
        head = torch.rand(16, 2, generator=torch.Generator().manual_seed(1)) * 40

        def classifier_predictions(self, embeddings: torch.Tensor) -> torch.Tensor:
            return (embeddings @ self.head - 8).sigmoid()

    audio = np.random.default_rng(0).uniform(-1, 1, 8000 * 200).astype(np.float32)
    embedder, rounded = embed(Scores, audio, precision="bfloat16")
    expected = embedder.model.classifier_predictions(torch.from_numpy(rounded)).numpy()
    # To the last digit those of the embeddings that come with them.
    np.testing.assert_allclose(embedder.classifier.predictions, expected, rtol=1e-5)


def test_birdnets_plain_path_under_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU computes: no layers of oneDNN, all windows of a batch at once."""
    noise = np.random.default_rng(0).normal(0, 0.05, 3 * 144_000).astype(np.float32)
    exact = bacpipe.Embedder("birdnet", device="cpu")
    usual = exact.embeddings_using_multithreading([noise])
    monkeypatch.setattr(layers, "onednn_computes", lambda *_: False)
    plain = exact.embeddings_using_multithreading([noise])
    np.testing.assert_allclose(plain, usual, rtol=1e-4, atol=1e-4)
    embedder = bacpipe.Embedder("birdnet", device="cpu", precision="bfloat16")
    rounded = embedder.embeddings_using_multithreading([noise])
    difference = np.linalg.norm(rounded - plain, axis=1) / np.linalg.norm(plain, axis=1)
    assert (difference > 1e-4).all()
    assert (difference < 0.05).all()
    scores = embedder.classifier.predictions
    np.testing.assert_allclose(scores, torch.from_numpy(scores).bfloat16().float(), rtol=0.01)
    assert np.unique(scores).size > 0.9 * scores.size  # bfloat16 has 256 numbers from 0.25 to 1


@needs_shared_audio
def test_birdnet_in_bfloat16_on_a_processor() -> None:
    """oneDNN computes whole layers in it, here perhaps by emulation, and scores hardly change."""
    files = sorted((SHARED / "audio" / "birds").rglob("*.wav"))
    exact, rounded = (
        bacpipe.Embedder(
            "birdnet", device="cpu", precision=precision, hop=2, classifier_threshold=0.0
        )
        for precision in ("float32", "bfloat16")
    )
    windows = np.concatenate(
        [exact.window_audio(exact.load_and_resample(path)[0]).numpy() for path in files]
    )[:32]
    runners = [embedder.runner(scores=True, dense=True) for embedder in (exact, rounded)]
    found, expected = (runner(windows) for runner in reversed(runners))
    assert found.scores is not None
    assert expected.scores is not None
    error = np.linalg.norm(found.embeddings - expected.embeddings, axis=1)
    error /= np.linalg.norm(expected.embeddings, axis=1)
    assert (error > 1e-3).all()
    assert (error < 0.035).all()
    assert np.abs(found.scores - expected.scores).max() < 0.05
    same = found.scores.argmax(1) == expected.scores.argmax(1)
    assert same.mean() > 0.96  # all but one: the best two of some window may be equally good
    assert same[expected.scores.max(1) >= 0.25].all()


def test_a_processor_without_bfloat16_computes_float32_and_says_so(
    recordings: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    audio = np.random.default_rng(0).uniform(-1, 1, 40_000).astype(np.float32)
    _, exact = embed(Linear, audio)
    monkeypatch.setattr(audio_handler, "processor_has_bfloat16", lambda: False)
    _, found = embed(Linear, audio, precision="bfloat16")
    np.testing.assert_array_equal(found, exact)
    assert "neither AMX nor AVX-512 BF16" in caplog.text
    settings: dict[str, Any] = {
        "model_name": "linear",
        "CustomModel": Linear,
        "audio_dir": recordings,
        "main_results_dir": tmp_path / "results",
        "device": "cpu",
    }
    first = bacpipe.generate_embeddings(precision="bfloat16", **settings)
    again = bacpipe.generate_embeddings(**settings)
    assert first.get_embedding_dir() == again.get_embedding_dir()
    assert first.embedding_set is not None
    assert (first.embedding_set.identity or {})["precision"] == "float32"
    loader = bacpipe.Loader(
        recordings, "linear", use_folder_structure=True, precision="bfloat16",
        main_results_dir=tmp_path / "embedder",
    )  # fmt: skip
    embedder = bacpipe.Embedder("linear", loader, CustomModel=Linear)
    embedder.run_inference_pipeline_using_multithreading()
    assert embedder.loader is not None
    assert loader.embedding_set is not None
    assert (loader.embedding_set.identity or {})["precision"] == "float32"


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
