"""ConvNeXt of transformers with fewer passes over the memory.

The network is that of Liu et al. 2022, A ConvNet for the 2020s, arXiv 2201.03545.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bacpipe.models.backends.fusion import FusedConv2d
from bacpipe.models.backends.packed import PackedLinear


def fuse_blocks(network: Any) -> None:
    """Replace the blocks of a network by ones that compute the same faster, in place.

    Parameters
    ----------
    network : transformers.ConvNextModel
        In evaluation, with its final weights.
    """
    for stage in network.encoder.stages:
        stage.layers = nn.ModuleList(_Block(layer) for layer in stage.layers)
        for position, layer in enumerate(stage.downsampling_layer):
            if isinstance(layer, nn.Conv2d):
                stage.downsampling_layer[position] = FusedConv2d(layer)


class _Block(nn.Module):
    """Filter each channel, widen, narrow, and add to the input; channels last throughout."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.filter = FusedConv2d(layer.dwconv)
        self.norm = layer.layernorm
        self.widen = PackedLinear(layer.pwconv1, gelu=True)
        self.narrow = PackedLinear(_scaled(layer.pwconv2, layer.layer_scale_parameter))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.filter(x).permute(0, 2, 3, 1))
        y = self.narrow(self.widen(y), x.permute(0, 2, 3, 1))
        return y.permute(0, 3, 1, 2)


@torch.no_grad()
def _scaled(layer: nn.Linear, scale: Tensor | None) -> nn.Linear:
    """Linear layer with a factor per output, which its weights can hold."""
    if scale is not None:
        layer.weight.mul_(scale[:, None])
        layer.bias.mul_(scale)
    return layer
