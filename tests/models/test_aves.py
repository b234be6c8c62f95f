"""AVES reads the weights under their old and their new names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from bacpipe.errors import CheckpointError
from bacpipe.models.loading import load_model
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
