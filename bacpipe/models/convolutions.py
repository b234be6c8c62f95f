"""Convolutional networks made faster for inference, with the same results up to rounding."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def speed_up_convolutions(network: nn.Module) -> None:
    """Fold batch norms into the convolutions before them and store channels last, in place.

    In evaluation a batch norm is a fixed scale and shift per channel, which the convolution can
    do on the way.  "Before" means the child before it in the order of construction, which is the
    order of use in the networks that we build.

    Parameters
    ----------
    network : nn.Module
        With its final weights; switched to evaluation.
    """
    network.eval()
    for parent in network.modules():
        for (name, convolution), (norm_name, norm) in pairwise(list(parent.named_children())):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(parent, name, fuse_conv_bn_eval(convolution, norm))
                # timm's norms carry the activation with them.
                setattr(parent, norm_name, getattr(norm, "act", nn.Identity()))
    network.to(memory_format=torch.channels_last)
