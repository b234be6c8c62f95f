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
# The authors divide by it to keep an arc cosine of their training loss off its poles.
_POLE_MARGIN = 1.01
_UPSAMPLING = 2
# Prototypes whose activation maps are held at once: few enough for the caches of a processor.
_CHUNK = 1024


class PrototypeHead(nn.Module):
    """Class logits from the likeness of a feature map to learnt prototypes.

    The names of the parameters are those of the authors' checkpoint.

    Parameters
    ----------
    channels : int
        Channels of the feature map.
    n_classes : int
        Classes.
    per_class : int
        Prototypes of each class.
    """

    directions: Tensor
    offsets: Tensor

    def __init__(self, *, channels: int, n_classes: int, per_class: int) -> None:
        super().__init__()
        self.prototype_vectors = nn.Parameter(torch.zeros(n_classes * per_class, channels, 1, 1))
        self.last_layer = _OwnPrototypes(n_classes, per_class)
        self.register_buffer("directions", torch.zeros(0), persistent=False)
        self.register_buffer("offsets", torch.zeros(0), persistent=False)

    def normalize_prototypes(self) -> None:
        """Replace the prototypes by their directions; once, when they are loaded."""
        vectors = self.prototype_vectors.detach().flatten(1)
        length = (vectors.square().sum(1, keepdim=True) + _epsilon_energy()).sqrt() + _EPSILON
        self.directions = vectors / length
        # What the epsilon channels of map and prototype give when multiplied.
        self.offsets = _EPSILON_CHANNELS * _EPSILON**2 / length
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
        fine = _upsample(features)
        length = (fine.square().sum(dim=1, keepdim=True) + _epsilon_energy()).sqrt()
        height, width = features.shape[2:]
        flat = features.flatten(2)
        parts = []
        for directions, offsets in zip(
            self.directions.split(_CHUNK), self.offsets.split(_CHUNK), strict=True
        ):
            # Interpolation and dot product are both linear, so the product can be taken on the
            # coarse grid, at a quarter of the cost, and be interpolated afterwards.
            likeness = torch.matmul(directions, flat).unflatten(2, (height, width))
            cosine = (_upsample(likeness) + offsets[:, :, None]).div_(length)
            parts.append(cosine.amax(dim=(2, 3)))
        strongest = torch.cat(parts, dim=1).relu_().div_(_POLE_MARGIN)
        logits: Tensor = self.last_layer(strongest)
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


def _epsilon_energy() -> float:
    return _EPSILON_CHANNELS * _EPSILON**2 + _EPSILON
