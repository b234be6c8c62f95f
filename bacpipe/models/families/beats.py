"""BEATs, and NatureBEATs: the same network trained on animal sounds.

References
----------
Chen et al. 2022, BEATs: Audio Pre-Training with Acoustic Tokenizers, arXiv 2212.09058;
https://github.com/microsoft/unilm/tree/master/beats

Robinson et al. 2025, NatureLM-audio: an audio-language foundation model for bioacoustics,
arXiv 2411.07186; https://github.com/earthspecies/NatureLM-audio
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.parametrize import remove_parametrizations

from bacpipe.errors import CheckpointError
from bacpipe.models.backends.cpu.fusion import fuse_linears
from bacpipe.models.backends.cpu.layers import GELU, FusedConv1d
from bacpipe.models.backends.pytorch import TorchModel, build_empty, read_checkpoint
from bacpipe.models.kaldi import KaldiFbank
from bacpipe.models.weights.containers import strip_prefixes

_INT16 = 2**15
_MEAN, _DEVIATION = 15.41663, 6.55582

# Settings of a checkpoint that are one variant in all of them, the only one written here.
_VARIANT = {
    "activation_fn": "gelu",
    "layer_norm_first": False,
    "relative_position_embedding": True,
    "gru_rel_pos": True,
}

_RENAMED = {
    "encoder.pos_conv.0.bias": "encoder.pos_conv.bias",
    "encoder.pos_conv.0.weight_g": "encoder.pos_conv.parametrizations.weight.original0",
    "encoder.pos_conv.0.weight_v": "encoder.pos_conv.parametrizations.weight.original1",
    "encoder.pos_conv.0.parametrizations.weight.original0": (
        "encoder.pos_conv.parametrizations.weight.original0"
    ),
    "encoder.pos_conv.0.parametrizations.weight.original1": (
        "encoder.pos_conv.parametrizations.weight.original1"
    ),
    "encoder.layers.0.self_attn.relative_attention_bias.weight": (
        "encoder.relative_attention_bias.weight"
    ),
}

# What avex, from which the file of the Earth Species Project comes, has around the network.
_PREFIXES = ("backbone.",)

_UNUSED = (
    "*predictor.*",
    "*fbank*",
    # One embedding that all layers share, listed once for each of them.
    "*encoder.layers.[1-9]*.self_attn.relative_attention_bias.weight",
)


class Beats(TorchModel):
    """BEATs (iteration 3), fine-tuned on AudioSet; the mean of its tokens."""

    def set_up(self) -> None:
        path, *others = self.paths
        content = read_checkpoint(path)
        config = _config_in(content, model=self.card.name, path=path)
        # One with weights of its own has those alone in its file.
        self.build(
            config,
            others[0] if others else path,
            None if others else content,
            within=None if others else "model",
        )

    def build(
        self,
        config: BeatsConfig,
        path: Path,
        state: Mapping[str, Tensor] | None,
        *,
        within: str | None = None,
    ) -> None:
        """Make the network and its front end, with the weights of a checkpoint as in `fit`."""
        network = build_empty(lambda: BeatsNetwork(config))
        self.fit(
            network,
            path,
            state,
            within=within,
            rename=_name_in_network,
            unused=_UNUSED,
        )
        network.fuse()
        self._network = self.place(network)
        self._fbank = self.place(KaldiFbank(self.sr))

    def preprocess(self, audio: Tensor) -> Tensor:
        """Normalised log-mel spectrogram, time first, float32, shape (n, frames, 128)."""
        features: Tensor = self._fbank(audio * _INT16)
        return features.sub_(_MEAN).div_(2 * _DEVIATION)

    def __call__(self, x: Tensor) -> Tensor:
        """Embeddings, float32, shape (n, 768)."""
        tokens: Tensor = self._network(x)
        return tokens.mean(dim=1)


class NatureBeats(Beats):
    """Audio encoder of NatureLM-audio: BEATs trained further on animal sounds.

    Its checkpoint holds weights alone; the configuration is that of `Beats`.
    """

    def preprocess(self, audio: Tensor) -> Tensor:
        """Normalised log-mel spectrogram of the waveform cut at ±1, shape (n, 498, 128)."""
        return super().preprocess(audio.clamp(-1.0, 1.0))


def _name_in_network(key: str) -> str:
    key = strip_prefixes(key, _PREFIXES)
    return _RENAMED.get(key, key)


def _config_in(content: Any, *, model: str, path: Path) -> BeatsConfig:
    cfg = content.get("cfg") if isinstance(content, Mapping) else None
    names = [field.name for field in fields(BeatsConfig)]
    if not isinstance(cfg, Mapping) or not all(name in cfg for name in names):
        raise CheckpointError(
            f"{path}: this is not the checkpoint of {model}; expected the network's "
            f"configuration under the key 'cfg'. Use the file that the authors published."
        )
    for name, expected in _VARIANT.items():
        if cfg.get(name, expected) != expected:
            raise CheckpointError(
                f"{path}: the network has {name}={cfg[name]!r}, but {model} needs "
                f"{name}={expected!r}; use the checkpoint that the authors published."
            )
    return BeatsConfig(**{name: cfg[name] for name in names})


@dataclass(frozen=True)
class BeatsConfig:
    """Size of a BEATs network, by the names that its checkpoints use.

    Attributes
    ----------
    input_patch_size : int
        Side of the square patches in spectrogram cells.
    embed_dim : int
        Width of the patch embedding.
    encoder_embed_dim, encoder_ffn_embed_dim : int
        Width of the transformer and of its feed-forward layers.
    encoder_layers, encoder_attention_heads : int
        Depth of the transformer and heads of each layer.
    conv_bias : bool
        Whether the patch embedding has a bias.
    conv_pos, conv_pos_groups : int
        Kernel length and groups of the convolution that encodes position.
    num_buckets, max_distance : int
        Resolution and reach, in tokens, of the relative position bias.
    deep_norm : bool
        Whether residual connections are scaled up with the depth.
    """

    input_patch_size: int
    embed_dim: int
    encoder_embed_dim: int
    encoder_ffn_embed_dim: int
    encoder_layers: int
    encoder_attention_heads: int
    conv_bias: bool
    conv_pos: int
    conv_pos_groups: int
    num_buckets: int
    max_distance: int
    deep_norm: bool


ITERATION_3 = BeatsConfig(
    input_patch_size=16,
    embed_dim=512,
    encoder_embed_dim=768,
    encoder_ffn_embed_dim=3072,
    encoder_layers=12,
    encoder_attention_heads=12,
    conv_bias=False,
    conv_pos=128,
    conv_pos_groups=16,
    num_buckets=320,
    max_distance=800,
    deep_norm=True,
)
"""That of the published networks, for files that hold weights alone."""


class BeatsNetwork(nn.Module):
    """Encoder of BEATs.

    Norms come after the residual connections, attention is biased by gated relative positions:
    the variant of all published checkpoints.

    Parameters
    ----------
    config : BeatsConfig
        Size of the network.
    """

    def __init__(self, config: BeatsConfig) -> None:
        super().__init__()
        width, patch = config.encoder_embed_dim, config.input_patch_size
        self.patch_embedding = nn.Conv2d(
            1, config.embed_dim, patch, stride=patch, bias=config.conv_bias
        )
        self.layer_norm = nn.LayerNorm(config.embed_dim)
        self.post_extract_proj = nn.Linear(config.embed_dim, width)
        self.encoder = _Encoder(config)

    def forward(self, spectrogram: Tensor) -> Tensor:
        """Tokens of spectrograms, once `fuse` was called.

        Parameters
        ----------
        spectrogram : torch.Tensor, float32, shape (n, frames, mels)

        Returns
        -------
        torch.Tensor, float32, shape (n, frames // patch * mels // patch, width)
        """
        patches = self.patch_embedding(spectrogram.unsqueeze(1)).flatten(2).transpose(1, 2)
        tokens: Tensor = self.encoder(self.post_extract_proj(self.layer_norm(patches)))
        return tokens

    def fuse(self) -> None:
        """Get ready for `forward`, once the weights are loaded."""
        encoder = self.encoder
        remove_parametrizations(encoder.pos_conv, "weight")
        encoder.pos_conv = FusedConv1d(encoder.pos_conv, GELU)
        fuse_linears(self)


class _Encoder(nn.Module):
    def __init__(self, config: BeatsConfig) -> None:
        super().__init__()
        width = config.encoder_embed_dim
        self.pos_conv: Any = weight_norm(
            nn.Conv1d(
                width,
                width,
                config.conv_pos,
                padding=config.conv_pos // 2,
                groups=config.conv_pos_groups,
            ),
            dim=2,
        )
        self.layer_norm = nn.LayerNorm(width)
        self.relative_attention_bias = nn.Embedding(
            config.num_buckets, config.encoder_attention_heads
        )
        self.max_distance = config.max_distance
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.encoder_layers))

    def forward(self, tokens: Tensor) -> Tensor:
        count = tokens.shape[1]
        # An even kernel gives one position too many.
        tokens = self.layer_norm(tokens + self.pos_conv(tokens)[:, :count])
        bias = self._relative_bias(count)
        for layer in self.layers:
            tokens = layer(tokens, bias)
        return tokens

    def _relative_bias(self, count: int) -> Tensor:
        """Bias of each head for each pair of tokens, shape (heads, count, count)."""
        place = torch.arange(count, device=self.relative_attention_bias.weight.device)
        offset = place[None, :] - place[:, None]
        buckets = relative_position_bucket(
            offset, buckets=self.relative_attention_bias.num_embeddings, reach=self.max_distance
        )
        bias: Tensor = self.relative_attention_bias(buckets)
        return bias.permute(2, 0, 1).contiguous()


class _Layer(nn.Module):
    def __init__(self, config: BeatsConfig) -> None:
        super().__init__()
        width = config.encoder_embed_dim
        self.self_attn = _GatedAttention(width, config.encoder_attention_heads)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, config.encoder_ffn_embed_dim)
        self.fc2 = nn.Linear(config.encoder_ffn_embed_dim, width)
        self.final_layer_norm = nn.LayerNorm(width)
        self.residual = (2 * config.encoder_layers) ** 0.25 if config.deep_norm else 1.0

    def forward(self, tokens: Tensor, bias: Tensor) -> Tensor:
        attended = self.self_attn(tokens, bias)
        tokens = self.self_attn_layer_norm(torch.add(attended, tokens, alpha=self.residual))
        transformed = self.fc2(F.gelu(self.fc1(tokens)))
        tokens = self.final_layer_norm(torch.add(transformed, tokens, alpha=self.residual))
        return tokens


class _GatedAttention(nn.Module):
    """Self-attention whose position bias is scaled by gates that each query sets itself."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        self.grep_linear = nn.Linear(width // heads, 8)
        self.grep_a = nn.Parameter(torch.ones(1, heads, 1, 1))

    def forward(self, tokens: Tensor, bias: Tensor) -> Tensor:
        queries, keys, values = (
            projection(tokens).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        gates = self.grep_linear(queries).unflatten(3, (2, 4)).sum(4).sigmoid()
        update, reset = gates.split(1, dim=3)
        gate = update * (reset * self.grep_a - 1.0) + 2.0
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=gate * bias)
        out: Tensor = self.out_proj(attended.transpose(1, 2).flatten(2))
        return out


def relative_position_bucket(offset: Tensor, *, buckets: int, reach: int) -> Tensor:
    """Buckets of T5: exact for near tokens, logarithmic for far ones, one half per direction.

    Parameters
    ----------
    offset : torch.Tensor, int64
        Position of the key minus position of the query, in tokens.
    buckets : int
        How many there are, for both directions together.
    reach : int
        Distance from which on all tokens share the last bucket.

    Returns
    -------
    torch.Tensor, int64, of the shape of `offset`, from 0 to `buckets` - 1
    """
    half = buckets // 2
    exact = half // 2
    distance = offset.abs()
    ratio = (distance.clamp(min=1).float() / exact).log() / math.log(reach / exact)
    far = (exact + (ratio * (half - exact)).long()).clamp(max=half - 1)
    return torch.where(distance < exact, distance, far) + half * (offset > 0)
