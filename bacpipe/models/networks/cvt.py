"""CvT of transformers with fewer passes over the memory.

The network is that of Wu et al. 2021, CvT: Introducing Convolutions to Vision Transformers,
arXiv 2103.15808.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from bacpipe.models.backends.attention import attend
from bacpipe.models.backends.fusion import FusedConv2d
from bacpipe.models.backends.packed import PackedLinear


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
        self.out = PackedLinear(layer.attention.output.dense)
        self.norm_after = layer.layernorm_after
        self.widen = PackedLinear(layer.intermediate.dense, gelu=True)
        self.narrow = PackedLinear(layer.output.dense)

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
                _scale(projection, self.heads**-0.5)
            self.projections.append(PackedLinear(projection))

    def forward(self, tokens: Tensor, height: int, width: int) -> Tensor:
        # In the last stage, a class token goes before those of the map.
        first = tokens[:, : tokens.shape[1] - height * width]
        maps = tokens[:, first.shape[1] :].transpose(1, 2).unflatten(2, (height, width))
        parts = []
        for convolve, project in zip(self.filters, self.projections, strict=True):
            filtered = convolve(maps).flatten(2).transpose(1, 2)
            projected = project(torch.cat([first, filtered], dim=1))
            parts.append(projected.unflatten(2, (self.heads, -1)).transpose(1, 2))
        return attend(*parts)


@torch.no_grad()
def _scale(layer: nn.Linear, factor: float) -> None:
    layer.weight.mul_(factor)
    if layer.bias is not None:
        layer.bias.mul_(factor)
