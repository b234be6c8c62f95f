"""Models of users' own, which may do what those of the zoo never do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch

import bacpipe
from bacpipe.errors import BacpipeError, SettingsError
from tests.conftest import TinyModel, write_recording


def embedder(model: object, **settings: object) -> bacpipe.Embedder:
    return bacpipe.Embedder("own", CustomModel=model, device="cpu", **settings)


class InPlace(TinyModel):
    """Changes in place whatever it gets, and cannot stand silence."""

    def preprocess(self, audio: torch.Tensor) -> torch.Tensor:
        if not audio.any(dim=-1).all():
            raise ValueError("silence")
        return super().preprocess(audio.mul_(0.5))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return super().__call__(x.mul_(0.5))

    def classifier_predictions(self, embeddings: torch.Tensor) -> torch.Tensor:
        return super().classifier_predictions(embeddings.mul_(0.5))


def test_what_is_changed_in_place_is_not_needed_again(
    tmp_path: Path, tiny_model: type[TinyModel]
) -> None:
    for number in range(4):
        write_recording(tmp_path / "field" / f"{number}.wav", 1.0, seed=number)
    settings: dict[str, Any] = {
        "audio_dir": tmp_path / "field", "device": "cpu", "CustomModel": InPlace,
        "model_name": "own",
    }  # fmt: skip
    alone = bacpipe.generate_embeddings(**settings, main_results_dir=tmp_path / "one")
    sf.write(tmp_path / "field" / "2b.wav", np.zeros(8000), 8000)
    beside = bacpipe.generate_embeddings(**settings, main_results_dir=tmp_path / "two")
    assert beside.embeddings().keys() == alone.embeddings().keys()
    plain = embedder(tiny_model)
    for name, rows in alone.embeddings().items():
        path = tmp_path / "field" / name.replace("_own.npy", ".wav")
        expected = plain.get_embeddings_from_model(path)
        np.testing.assert_allclose(rows, expected / 4, rtol=1e-5)
        np.testing.assert_array_equal(beside.embeddings()[name], rows)
    one = embedder(InPlace)
    windows = one.prepare_audio(tmp_path / "field" / "0.wav")
    first = one.get_embeddings_for_audio(windows)
    np.testing.assert_array_equal(one.get_embeddings_for_audio(windows), first)


class OwnMemory(TinyModel):
    """Returns the same memory each time, as some runtimes do."""

    concurrent = False

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self._rows = torch.zeros(64, 10)
        self._scores = np.zeros((64, 2), np.float32)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        self._rows[: len(x)] = super().__call__(x)
        return self._rows[: len(x)]

    def classifier_predictions(self, embeddings: torch.Tensor) -> Any:
        self._scores[: len(embeddings)] = super().classifier_predictions(embeddings)
        return self._scores[: len(embeddings)]


def test_memory_that_a_model_uses_again_is_copied(
    tmp_path: Path, tiny_model: type[TinyModel]
) -> None:
    path = write_recording(tmp_path / "a.wav", 12.0)
    expected, found = embedder(tiny_model), embedder(OwnMemory)
    rows = expected.get_embeddings_from_model(path)
    np.testing.assert_array_equal(found.get_embeddings_from_model(path), rows)
    np.testing.assert_array_equal(found.classifier.predictions, expected.classifier.predictions)
    windows = found.prepare_audio(path)
    np.testing.assert_array_equal(found.get_embeddings_for_audio(windows), rows)
    np.testing.assert_array_equal(found.classifier.predictions, expected.classifier.predictions)


class Scores(TinyModel):
    def classifier_predictions(self, embeddings: torch.Tensor) -> Any:
        return type(self).made(super().classifier_predictions(embeddings))  # type: ignore[attr-defined]


def test_scores_are_numbers_from_0_to_1_of_any_kind(tmp_path: Path) -> None:
    path = write_recording(tmp_path / "a.wav", 2.0)
    logits = type("Logits", (Scores,), {"made": staticmethod(lambda scores: 5 * scores - 2)})
    with pytest.raises(BacpipeError, match=r"Logits returned a score of .* for (loud|quiet)"):
        embedder(logits).get_embeddings_from_model(path)
    lists = embedder(type("Lists", (Scores,), {"made": staticmethod(torch.Tensor.tolist)}))
    lists.get_embeddings_from_model(path)
    np.testing.assert_allclose(lists.classifier.predictions.sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("attribute", "value"), [("sr", 0), ("segment_length", 8000.5), ("batch_size", 0), ("sr", "8k")]
)
def test_attributes_that_are_no_numbers_are_told(attribute: str, value: object) -> None:
    class Wrong(TinyModel):
        def __init__(self, **kwargs: object) -> None:
            super().__init__(**kwargs)
            setattr(self, attribute, value)

    with pytest.raises(SettingsError, match=f"Wrong: {attribute} is {value!r}"):
        embedder(Wrong)


def test_whole_numbers_may_be_floats(tmp_path: Path) -> None:
    class Half(TinyModel):
        def __init__(self, **kwargs: object) -> None:
            super().__init__(**kwargs)
            self.segment_length, self.sr = 0.5 * 8000, np.float64(8000)

    path = write_recording(tmp_path / "a.wav", 2.0)
    assert embedder(Half).get_embeddings_from_model(path).shape == (4, 10)


def test_embeddings_of_another_length_do_not_get_among_others(tmp_path: Path) -> None:
    class Some(TinyModel):
        length = 10

        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            return super().__call__(x)[:, : type(self).length]

    settings: dict[str, Any] = {
        "audio_dir": tmp_path / "field", "main_results_dir": tmp_path / "results",
        "device": "cpu", "CustomModel": Some, "model_name": "own",
    }  # fmt: skip
    write_recording(tmp_path / "field" / "a.wav", 2.0)
    bacpipe.generate_embeddings(**settings)
    write_recording(tmp_path / "field" / "b.wav", 2.0)
    Some.length = 6
    with pytest.raises(BacpipeError, match="of 6 values, but of 10 before"):
        bacpipe.generate_embeddings(**settings)
    Some.length = 10
    assert bacpipe.generate_embeddings(**settings).embeddings("array").shape == (4, 10)
