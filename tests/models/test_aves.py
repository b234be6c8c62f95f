"""AVES reads the weights under their old and their new names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torchaudio.models import wav2vec2_model

from bacpipe.errors import CheckpointError
from bacpipe.models.loading import load_model
from bacpipe.models.zoo import CARDS
from tests.models import parity

NAME = "aves_especies"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("aves")
    parity.write_checkpoint(NAME, base)
    return base


def embed(base: Path) -> torch.Tensor:
    model = load_model(NAME, device="cpu", model_base_path=base)
    with torch.inference_mode():
        embeddings: torch.Tensor = model(model.preprocess(parity.windows(NAME)))
    return embeddings


def test_both_layouts_of_weight_norm_give_the_same_embeddings(base: Path) -> None:
    weights = base / parity.manifest(NAME)["checkpoint_files"][0]
    old = embed(base)
    state = torch.load(weights, weights_only=True)
    conv = "encoder.transformer.pos_conv_embed.conv"
    for before, after in (("weight_g", "original0"), ("weight_v", "original1")):
        state[f"{conv}.parametrizations.weight.{after}"] = state.pop(f"{conv}.{before}")
    torch.save(state, weights)
    torch.testing.assert_close(embed(base), old, rtol=0, atol=0)


def test_a_configuration_of_something_else_is_refused(tmp_path: Path) -> None:
    weights, config = (tmp_path / name for name in parity.manifest(NAME)["checkpoint_files"])
    config.parent.mkdir()
    weights.touch()
    config.write_text(json.dumps({"hidden_size": 768}))
    with pytest.raises(CheckpointError, match="not the arguments of torchaudio's wav2vec2_model"):
        embed(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "aves_especies",
        "aves_all",
        "birdaves_especies",
        "birdaves_biox_base",
        "birdaves_bioxn_large",
    ],
)
def test_embeddings_are_those_of_torchaudio(name: str, tmp_path: Path) -> None:
    """A small network in the authors' two files, for each of their encoders."""
    weights, config = (tmp_path / file for file in CARDS[name].files)
    settings = parity.manifest(NAME)["config"]["model_config.json"] | {
        "encoder_embed_dim": 48,
        "encoder_num_layers": 2,
        "encoder_num_heads": 4,
        "encoder_ff_interm_features": 96,
    }
    weights.parent.mkdir()
    config.write_text(json.dumps(settings))
    torch.manual_seed(0)
    theirs = wav2vec2_model(**settings, aux_num_out=None).eval()
    torch.save(theirs.state_dict(), weights)
    model = load_model(name, device="cpu", model_base_path=tmp_path)
    windows = parity.windows(NAME)
    with torch.inference_mode():
        expected = theirs.extract_features(windows)[0][-1].mean(dim=1)
        ours = model(model.preprocess(windows))
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
