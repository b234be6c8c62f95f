"""Models that extend one of the zoo, and names in any case."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import bacpipe
from bacpipe.errors import SettingsError
from bacpipe.models.families.aves import Aves
from bacpipe.models.families.bat import Bat
from bacpipe.models.loading import find_card, load_custom_model, load_model
from tests.models import parity


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("bat")
    parity.write_checkpoint("bat", base)
    return base


class LouderBat(Bat):
    """A subclass that says nothing of checkpoints."""

    def preprocess(self, audio: torch.Tensor) -> torch.Tensor:
        return super().preprocess(2 * audio)


class BatWithKeywords(Bat):
    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)  # type: ignore[arg-type]
        self.classes = [name.upper() for name in self.classes]


class AroundBat(bacpipe.ModelBaseClass):
    """A model that holds one of the zoo."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(sr=220500, segment_length=int(0.78 * 220500), **kwargs)  # type: ignore[arg-type]
        self.inner = Bat(device=self.device, model_base_path=self.model_base_path)
        self.classes = self.inner.classes

    def preprocess(self, audio: torch.Tensor) -> torch.Tensor:
        return self.inner.preprocess(audio)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)[:, :2]


@pytest.mark.parametrize("kind", [LouderBat, BatWithKeywords, AroundBat])
def test_subclasses_and_models_that_hold_one_work(base: Path, kind: type) -> None:
    model = load_custom_model(kind, device="cpu", model_base_path=base)
    assert model.model_base_path == base
    windows = parity.windows("bat")[:1]
    original = load_model("BAT", device="cpu", model_base_path=base)
    with torch.inference_mode():
        found = np.asarray(model(model.preprocess(windows)))
        expected = original(original.preprocess(windows)).numpy()
    if kind is LouderBat:
        assert found.shape == expected.shape
    else:
        np.testing.assert_allclose(found, expected[:, : found.shape[1]], rtol=1e-5, atol=1e-6)
    assert len(model.classes) == 18


def test_results_of_a_subclass_are_not_those_of_the_model(base: Path, tmp_path: Path) -> None:
    from bacpipe.inference.run_data_set import model_identity
    from bacpipe.options import make_options

    options = make_options(model_base_path=base, device="cpu")
    mine = load_custom_model(LouderBat, device="cpu", model_base_path=base)
    own = load_model("bat", device="cpu", model_base_path=base)
    assert model_identity("bat", options, mine) != model_identity("bat", options, own)


def test_classes_of_several_models_ask_which(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="card='aves_all' or 'aves_especies' or 'bird"):
        Aves(model_base_path=tmp_path)


@pytest.mark.parametrize("name", ["BirdNET", "birdnet", "BIRDNET", " birdnet "])
def test_names_count_in_any_case(name: str) -> None:
    assert find_card(name).name == "birdnet"
