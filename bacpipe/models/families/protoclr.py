"""ProtoCLR: a convolutional vision transformer trained on bird songs, robust to the domain.

References
----------
Moummad et al. 2024, Domain-Invariant Representation Learning of Bird Sounds,
arXiv 2409.08589; https://github.com/ilyassmoummad/ProtoCLR.  The network is CvT-13 of
Wu et al. 2021, CvT: Introducing Convolutions to Vision Transformers, arXiv 2103.15808.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval
from transformers import CvtConfig, CvtModel

from bacpipe.models.backends.cpu.fusion import scale_outputs
from bacpipe.models.backends.cpu.layers import GELU, FusedConv2d, FusedLinear
from bacpipe.models.backends.pytorch import TorchModel
from bacpipe.models.frontends import (
    MelSpectrogram,
    mel_filterbank,
    min_max,
    power_to_db,
)

# Names in the authors' CvT, and in transformers' one.
_RENAMED = (
    (r"^norm\.", "norm."),
    (r"^stage(\d)\.", r"cvt.encoder.stages.\1."),
    (r"\.patch_embed\.proj\.", ".embedding.convolution_embeddings.projection."),
    (r"\.patch_embed\.norm\.", ".embedding.convolution_embeddings.normalization."),
    (r"\.blocks\.", ".layers."),
    (
        r"\.attn\.conv_proj_([qkv])\.",
        r".attention.attention.convolution_projection_\1.convolution_projection.",
    ),
    (r"\.attn\.proj_([qkv])\.", r".attention.attention.projection_\1."),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"(projection)_q\.", r"\1_query."),
    (r"(projection)_k\.", r"\1_key."),
    (r"(projection)_v\.", r"\1_value."),
    (r"\.conv\.", ".convolution."),
    (r"\.bn\.", ".normalization."),
)


class ProtoClr(TorchModel):
    """Class token of CvT-13 on the spectrogram."""

    def set_up(self) -> None:
        (path,) = self.paths
        cvt, norm = CvtModel(CvtConfig(num_channels=1)), nn.LayerNorm(self.card.dim)
        self.fit(nn.ModuleDict({"cvt": cvt, "norm": norm}), path, rename=_name_in_transformers)
        fuse_layers(cvt.eval())
        self._cvt, self._norm = self.place(cvt), self.place(norm)
        filters = mel_filterbank(sample_rate=16000, n_fft=1024, n_mels=128, f_min=50, f_max=8000)
        self._mel = self.place(MelSpectrogram(filters, hop=320))

    def preprocess(self, audio: torch.Tensor) -> torch.Tensor:
        """Mel spectrogram in dB, scaled to 0 … 1 per window, float32, (n, 128, 301)."""
        return min_max(power_to_db(self._mel(audio)))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Embeddings, float32, shape (n, 384)."""
        token = self._cvt(x.unsqueeze(1)).cls_token_value[:, 0]
        embeddings: torch.Tensor = self._norm(token)
        return embeddings


def _name_in_transformers(key: str) -> str:
    for pattern, replacement in _RENAMED:
        key = re.sub(pattern, replacement, key)
    return key


def fuse_layers(network: Any) -> None:
    """Replace the layers of a network by ones that compute the same faster, in place.

    Parameters
    ----------
    network : transformers.CvtModel
        In evaluation, with its final weights.
    """
    for stage in network.encoder.stages:
        stage.layers = nn.ModuleList(_Layer(layer) for layer in stage.layers)


class _Layer(nn.Module):
    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.norm_before = layer.layernorm_before
        self.attention = _Attention(layer.attention.attention)
        self.out = FusedLinear(layer.attention.output.dense)
        self.norm_after = layer.layernorm_after
        self.widen = FusedLinear(layer.intermediate.dense, GELU)
        self.narrow = FusedLinear(layer.output.dense)

    def forward(self, tokens: Tensor, height: int, width: int) -> Tensor:
        tokens = self.out(self.attention(self.norm_before(tokens), height, width), tokens)
        y: Tensor = self.narrow(self.widen(self.norm_after(tokens)), tokens)
        return y


class _Attention(nn.Module):
    """Attention whose queries, keys and values are filtered as maps before."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.heads = attention.num_heads
        self.filters, self.projections = nn.ModuleList(), nn.ModuleList()
        for name in ("query", "key", "value"):
            step = getattr(attention, f"convolution_projection_{name}").convolution_projection
            self.filters.append(
                FusedConv2d(fuse_conv_bn_eval(step.convolution, step.normalization))
            )
            projection = getattr(attention, f"projection_{name}")
            if name == "query":
                # The authors divide by the root of all channels, not of those of a head.
                scale_outputs(projection, self.heads**-0.5)
            self.projections.append(FusedLinear(projection))

    def forward(self, tokens: Tensor, height: int, width: int) -> Tensor:
        # In the last stage, a class token goes before those of the map.
        first = tokens[:, : tokens.shape[1] - height * width]
        maps = tokens[:, first.shape[1] :].transpose(1, 2).unflatten(2, (height, width))
        parts = []
        for convolve, project in zip(self.filters, self.projections, strict=True):
            filtered = convolve(maps).flatten(2).transpose(1, 2)
            projected = project(torch.cat([first, filtered], dim=1))
            parts.append(projected.unflatten(2, (self.heads, -1)).transpose(1, 2))
        return F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)
