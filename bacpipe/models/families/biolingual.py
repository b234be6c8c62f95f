"""BioLingual: a CLAP model that learnt animal sounds from captions; its audio half.

References
----------
Robinson et al. 2024, Transferable Models for Bioacoustics with Human Language Supervision,
arXiv 2308.04978; https://github.com/david-rx/biolingual.  The network is that of Wu et al.
2023, Large-scale Contrastive Language-Audio Pretraining, arXiv 2211.06687.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import ClapAudioConfig, ClapAudioModelWithProjection
from transformers.audio_utils import mel_filter_bank
from transformers.models.clap.modeling_clap import ClapAudioLayer, ClapAudioSelfAttention

from bacpipe.errors import CheckpointError
from bacpipe.models.backends.cpu.fusion import fuse_linears
from bacpipe.models.backends.cpu.layers import GELU, FusedLinear
from bacpipe.models.backends.pytorch import TorchModel, read_checkpoint
from bacpipe.models.card import ModelCard
from bacpipe.models.frontends import MelSpectrogram, exact_dtype, power_to_db
from bacpipe.models.weights.containers import read_json, strip_prefixes

# Modules that a file may have around the model of transformers.
_PREFIXES = ("model.", "clap.")

# The text half, which embeds queries and is not loaded for audio.
_TEXT = ("*text_model.*", "*text_projection.*", "*logit_scale_*")

_INDEX = "relative_position_index"

_CLAP_SETTINGS: dict[str, Any] = {
    "feature_size": 64,
    "sampling_rate": 48000,
    "hop_length": 480,
    "max_length_s": 10,
    "fft_window_size": 1024,
    "frequency_min": 50,
    "frequency_max": 14000,
    "truncation": "rand_trunc",
}


class BioLingual(TorchModel):
    """Audio embeddings of length one in the space that CLAP shares with text.

    Where no ``preprocessor_config.json`` lies beside the weights, the settings of
    laion/clap-htsat-unfused are assumed, from which BioLingual was trained.
    """

    def set_up(self) -> None:
        config, path = self.paths
        network = _audio_half(config)
        state = read_checkpoint(path)
        self.fit(
            network,
            path,
            state | _missing_indices(network, state),
            rename=lambda key: strip_prefixes(key, _PREFIXES),
            unused=_TEXT,
        )
        fuse_clap(network)
        self._network = self.place(network)
        preprocessor = path.parent / "preprocessor_config.json"
        self._mel = self.place(_front_end(preprocessor, self.card, self.device))

    def preprocess(self, audio: Tensor) -> Tensor:
        """Mel spectrogram in dB, frames before bands, float32, shape (n, 1, 1001, 64)."""
        return power_to_db(self._mel(audio)).transpose(1, 2).unsqueeze(1)

    def __call__(self, x: Tensor) -> Tensor:
        """Embeddings of length one, float32, shape (n, 512)."""
        return F.normalize(self._network(input_features=x).audio_embeds, dim=1)


def _audio_half(path: Path) -> ClapAudioModelWithProjection:
    config = read_json(path)
    settings = dict(config.get("audio_config") or {})
    # Width and activation of the projection belong to the whole model, as transformers has it.
    for key in ("projection_dim", "projection_hidden_act"):
        if key in config:
            settings[key] = config[key]
    if settings.get("enable_fusion"):
        raise CheckpointError(
            f"{path}: this is a CLAP model that fuses long recordings (enable_fusion), but "
            f"BioLingual does not; use the files that its authors published."
        )
    return ClapAudioModelWithProjection(ClapAudioConfig.from_dict(settings))


def _missing_indices(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Position indices that a file may leave out, because they follow from the window size."""
    present = {strip_prefixes(key, _PREFIXES) for key in state}
    return {
        key: value
        for key, value in network.state_dict().items()
        if key.endswith(_INDEX) and key not in present
    }


def _front_end(path: Path, card: ModelCard, device: str) -> MelSpectrogram:
    """Batched form of transformers' ClapFeatureExtractor for windows of exactly its length."""
    settings = _CLAP_SETTINGS | (read_json(path) if path.exists() else {})
    fixed = {
        "sampling_rate": card.sample_rate,
        "max_length_s": card.window // card.sample_rate,
        "truncation": "rand_trunc",
    }
    for key, value in fixed.items():
        if settings[key] != value:
            raise CheckpointError(
                f"{path}: {key} is {settings[key]!r}, but {card.name} is run with {value!r}; use "
                f"the file that its authors published, or remove it."
            )
    filters = mel_filter_bank(
        num_frequency_bins=settings["fft_window_size"] // 2 + 1,
        num_mel_filters=settings["feature_size"],
        min_frequency=settings["frequency_min"],
        max_frequency=settings["frequency_max"],
        sampling_rate=card.sample_rate,
        norm="slaney",
        mel_scale="slaney",
    )
    # The original works in double precision, which shows in the dB of quiet bands.
    return MelSpectrogram(
        torch.from_numpy(filters).float(), hop=settings["hop_length"], dtype=exact_dtype(device)
    )


class _Attention(nn.Module):
    """Attention inside of local windows, with their position bias looked up once."""

    position_bias: Tensor

    def __init__(self, attention: ClapAudioSelfAttention) -> None:
        super().__init__()
        self.heads = attention.num_attention_heads
        self.query, self.key, self.value = attention.query, attention.key, attention.value
        table, index = attention.relative_position_bias_table, attention.relative_position_index
        bias = table.detach()[index].permute(2, 0, 1).contiguous()
        self.register_buffer("position_bias", bias)

    def forward(
        self, tokens: Tensor, mask: Tensor | None = None, output_attentions: bool | None = False
    ) -> tuple[Tensor]:
        """Attend: (n * local windows, tokens, width), mask (local windows, tokens, tokens)."""
        queries, keys, values = (
            projection(tokens).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for projection in (self.query, self.key, self.value)
        )
        bias = self.position_bias
        if mask is not None:
            several = len(tokens) // len(mask), *mask.shape[:1], *bias.shape
            bias = (bias + mask.unsqueeze(1)).expand(several).flatten(0, 1)
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias)
        return (attended.transpose(1, 2).flatten(2),)


def fuse_clap(network: ClapAudioModelWithProjection) -> None:
    """Replace the slow parts of the audio encoder, in place, once its weights are loaded.

    Parameters
    ----------
    network : transformers.ClapAudioModelWithProjection
        In evaluation it will compute the same, up to rounding; it gives no attentions.
    """
    for layer in network.modules():
        if isinstance(layer, ClapAudioLayer):
            inner: Any = layer.intermediate
            attention: Any = layer.attention
            attention.self = _Attention(attention.self)
            if network.config.hidden_act == "gelu":
                inner.dense = FusedLinear(inner.dense, GELU)
                inner.intermediate_act_fn = nn.Identity()
    fuse_linears(network)
