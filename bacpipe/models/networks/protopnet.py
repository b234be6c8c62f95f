"""Prototype head of AudioProtoPNet.

Written from Heinrich et al. 2025, AudioProtoPNet, arXiv 2404.10420, and the definition of the
head in https://github.com/DBD-research-group/AudioProtoPNet (with its defaults: bilinear
upsampling, two epsilon channels, cosine activation, no frequency weights).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_EPSILON = 1e-4
_EPSILON_CHANNELS = 2
# Added to squared lengths: that of the epsilon channels, and once more epsilon.
_EPSILON_ENERGY = _EPSILON_CHANNELS * _EPSILON**2 + _EPSILON
# The authors divide by it to keep an arc cosine of their training loss off its poles.
_POLE_MARGIN = 1.01
_UPSAMPLING = 2
# Prototypes whose activation maps are held at once: few enough for the caches of a processor.
_CHUNK = 1024


class PrototypeHead(nn.Module):
    """Class logits from the likeness of a feature map to learnt prototypes.

    The names of the parameters are those of the authors' checkpoint, until
    `normalize_prototypes` is called.

    Parameters
    ----------
    channels : int
        Channels of the feature map.
    n_classes : int
        Classes.
    per_class : int
        Prototypes of each class.
    """

    def __init__(self, *, channels: int, n_classes: int, per_class: int) -> None:
        super().__init__()
        self.prototype_vectors = nn.Parameter(torch.zeros(n_classes * per_class, channels, 1, 1))
        self.last_layer = _OwnPrototypes(n_classes, per_class)
        self.likeness = nn.ModuleList()

    @torch.no_grad()
    def normalize_prototypes(self) -> None:
        """Turn the prototypes into the linear layers that compare with them, once loaded."""
        for vectors in self.prototype_vectors.flatten(1).split(_CHUNK):
            length = (vectors.square().sum(dim=1) + _EPSILON_ENERGY).sqrt() + _EPSILON
            layer = nn.Linear(vectors.shape[1], len(vectors), device="meta")
            layer.weight = nn.Parameter(vectors / length[:, None])
            # What the epsilon channels of map and prototype give when multiplied.
            layer.bias = nn.Parameter(_EPSILON_CHANNELS * _EPSILON**2 / length)
            self.likeness.append(layer)
        del self.prototype_vectors

    def forward(self, features: Tensor) -> Tensor:
        """Class logits.

        Parameters
        ----------
        features : torch.Tensor, float32, shape (n, channels, height, width)

        Returns
        -------
        torch.Tensor, float32, shape (n, n_classes)
        """
        energy = _upsample(features).square().sum(dim=1, keepdim=True)
        length = (energy + _EPSILON_ENERGY).sqrt()
        points = features.permute(0, 2, 3, 1).contiguous()
        strongest = []
        for layer in self.likeness:
            # Interpolation and dot product are both linear, so the product can be taken on the
            # coarse grid, at a quarter of the cost, and be interpolated afterwards.
            product = _upsample(layer(points).permute(0, 3, 1, 2))
            strongest.append(product.div_(length).amax(dim=(2, 3)))
        # The authors' rectifier, taken after the maximum, gives the same.
        activations = torch.cat(strongest, dim=1).relu_().div_(_POLE_MARGIN)
        logits: Tensor = self.last_layer(activations)
        return logits


class _OwnPrototypes(nn.Module):
    """Linear layer in which a class sees its own prototypes only, with weights above zero."""

    def __init__(self, n_classes: int, per_class: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_classes, per_class))
        self.bias = nn.Parameter(torch.zeros(n_classes))

    def forward(self, activations: Tensor) -> Tensor:
        own = activations.unflatten(1, self.weight.shape)
        return (own * self.weight.relu()).sum(dim=2) + self.bias


def _upsample(maps: Tensor) -> Tensor:
    return F.interpolate(maps, scale_factor=_UPSAMPLING, mode="bilinear", align_corners=False)
