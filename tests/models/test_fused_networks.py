"""Networks rebuilt for speed compute what they did before."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import Block
from torchaudio.models import Wav2Vec2Model, wav2vec2_model
from transformers import ClapAudioConfig, ClapAudioModelWithProjection

from bacpipe.models.families.aves import fuse_wav2vec2
from bacpipe.models.families.avesecho_passt import _summary_tokens
from bacpipe.models.families.clap import fuse_clap

_SAMPLES = 4000


def shaken(network: Any) -> Any:
    """A network in evaluation whose parameters are all different, those of norms, too."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return network.eval().requires_grad_(False)


def close(ours: torch.Tensor, expected: torch.Tensor) -> None:
    scale = expected.abs().max().item()
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5 * scale)


@torch.inference_mode()
@pytest.mark.parametrize("tokens", [7, 200])
@pytest.mark.parametrize("count", [1, 2])
def test_summary_tokens(tokens: int, count: int) -> None:
    block = shaken(Block(32, 4, qkv_bias=True))
    x = torch.randn(2, tokens, 32)
    close(_summary_tokens(block, x, count), block(x)[:, :count])


def wav2vec2(**changes: Any) -> Wav2Vec2Model:
    settings: dict[str, Any] = {
        "extractor_mode": "group_norm",
        "extractor_conv_layer_config": [(32, 10, 5), (32, 3, 2), (32, 2, 2)],
        "extractor_conv_bias": False,
        "encoder_embed_dim": 32,
        "encoder_projection_dropout": 0.1,
        "encoder_pos_conv_kernel": 16,
        "encoder_pos_conv_groups": 2,
        "encoder_num_layers": 2,
        "encoder_num_heads": 4,
        "encoder_attention_dropout": 0.1,
        "encoder_ff_interm_features": 64,
        "encoder_ff_interm_dropout": 0.0,
        "encoder_dropout": 0.1,
        "encoder_layer_norm_first": False,
        "encoder_layer_drop": 0.05,
        "aux_num_out": None,
    }
    torch.manual_seed(1)
    network: Wav2Vec2Model = shaken(wav2vec2_model(**settings | changes))
    return network


def tokens_of(network: Wav2Vec2Model, x: torch.Tensor) -> torch.Tensor:
    layers, _ = network.extract_features(x)
    last: torch.Tensor = layers[-1]
    return last


@torch.inference_mode()
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"encoder_pos_conv_kernel": 15},
        {"encoder_pos_conv_kernel": 1000},  # longer than the window
        {"extractor_mode": "layer_norm", "extractor_conv_bias": True},
        {"extractor_conv_bias": True},
        {"encoder_layer_norm_first": True},
    ],
    ids=str,
)
def test_wav2vec2(changes: dict[str, Any]) -> None:
    fused, x = wav2vec2(**changes), 0.1 * torch.randn(3, _SAMPLES)
    fuse_wav2vec2(fused, _SAMPLES)
    close(tokens_of(fused, x), tokens_of(wav2vec2(**changes), x))


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["silence", "constant", "faint on top of a loud hum"])
def test_wav2vec2_of_unusual_waveforms(kind: str) -> None:
    time = torch.arange(_SAMPLES) / 16000
    x = {
        "silence": torch.zeros(_SAMPLES),
        "constant": torch.full((_SAMPLES,), 0.5),
        "faint on top of a loud hum": 0.9 * torch.sin(300 * time) + 1e-3 * torch.randn(_SAMPLES),
    }[kind]
    fused, exact = wav2vec2(), wav2vec2().double()
    fuse_wav2vec2(fused, _SAMPLES)
    close(tokens_of(fused, x[None]), tokens_of(exact, x[None].double()).float())


@torch.inference_mode()
def test_wav2vec2_in_half_precision() -> None:
    fused, x = wav2vec2(), 0.1 * torch.randn(2, _SAMPLES)
    fuse_wav2vec2(fused, _SAMPLES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = tokens_of(fused, x)
    expected = tokens_of(wav2vec2(), x)
    assert torch.cosine_similarity(ours.float(), expected, dim=2).min() > 0.99


@torch.inference_mode()
@pytest.mark.parametrize("batch", [1, 2])
def test_clap(batch: int) -> None:
    config = ClapAudioConfig(
        window_size=4,
        num_mel_bins=16,
        spec_size=64,
        patch_embeds_hidden_size=16,
        depths=[2, 2],
        num_attention_heads=[2, 4],
        hidden_size=32,
        projection_dim=8,
    )
    plain = shaken(ClapAudioModelWithProjection(config))
    fused = copy.deepcopy(plain)
    fuse_clap(fused)
    x = torch.randn(batch, 1, 200, 16)
    close(fused(input_features=x).audio_embeds, plain(input_features=x).audio_embeds)
