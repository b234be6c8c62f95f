"""The network of batdetect2, rearranged so that a CPU computes it in fewer passes.

The same layers with the same weights; see ``batdetect2.detector.models.Net2DFast`` and
``batdetect2.detector.model_helpers``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval


class OneWindow(nn.Module):
    """Maps of detection, classes and features, for one window at a time.

    Parameters
    ----------
    network : Net2DFast
        In evaluation, with its final weights.
    width : int
        Columns of the spectrogram.
    """

    def __init__(self, network: Any, *, width: int) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            _Down(getattr(network, f"conv_dn_{step}"), width=width >> step) for step in range(3)
        )
        self.deepest = fuse_conv_bn_eval(network.conv_dn_3, network.conv_dn_3_bn)
        self.flatten = fuse_conv_bn_eval(network.conv_1d, network.conv_1d_bn)
        self.attention = network.att
        self.up = nn.ModuleList(
            _Up(getattr(network, f"conv_up_{4 - step}"), width=width >> step) for step in range(3)
        )
        self.features = fuse_conv_bn_eval(network.conv_op, network.conv_op_bn)
        self.classes = network.conv_classes_op
        self.to(memory_format=torch.channels_last)

    def forward(self, spectrogram: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Maps (1, c, height, width) with c = 1, classes and background, and features."""
        fine = self.down[0](spectrogram)
        middle = self.down[1](fine)
        coarse = F.relu(self.deepest(self.down[2](middle)))
        # One column of attention for all rows.
        x = coarse + self.attention(F.relu(self.flatten(coarse)))
        x = self.up[1](self.up[2](x) + middle) + fine
        features = F.relu(self.features(self.up[0](x)))
        classes = torch.softmax(self.classes(features), dim=1)
        return classes[:, :-1].sum(dim=1, keepdim=True), classes, features


class _WithRows(nn.Module):
    """Convolution of maps and, as a last channel, the coordinate of the row.

    That channel is always the same, and so is what the convolution makes of it.
    """

    offset: Tensor

    def __init__(self, convolution: nn.Conv2d, coordinates: Tensor, width: int) -> None:
        super().__init__()
        weight = convolution.weight
        rows = coordinates.expand(1, 1, -1, width)
        offset = F.conv2d(rows, weight[:, -1:], padding=convolution.padding)
        self.register_buffer("offset", offset.contiguous(memory_format=torch.channels_last))
        self.convolution = nn.Conv2d(
            weight.shape[1] - 1,
            len(weight),
            weight.shape[2:],  # type: ignore[arg-type]
            padding=convolution.padding,  # type: ignore[arg-type]
            device="meta",
        )
        self.convolution.weight = nn.Parameter(weight[:, :-1].contiguous(), requires_grad=False)
        self.convolution.bias = convolution.bias

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.convolution(x) + self.offset
        return y


class _Down(nn.Module):
    def __init__(self, block: Any, *, width: int) -> None:
        super().__init__()
        self.convolve = _WithRows(block.conv, block.coords, width)
        # Behind the maximum: its scale may be negative.
        self.norm = block.conv_bn

    def forward(self, x: Tensor) -> Tensor:
        x = self.convolve(x)
        # Half the time of max_pool2d, which also finds out where the maxima are.
        x = torch.maximum(x[:, :, ::2], x[:, :, 1::2])
        x = torch.maximum(x[..., ::2], x[..., 1::2])
        return F.relu(self.norm(x))


class _Up(nn.Module):
    def __init__(self, block: Any, *, width: int) -> None:
        super().__init__()
        folded = fuse_conv_bn_eval(block.conv, block.conv_bn)
        self.convolve = _WithRows(folded, block.coords, width)

    def forward(self, x: Tensor) -> Tensor:
        finer = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        return F.relu(self.convolve(finer))
