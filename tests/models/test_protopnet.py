from __future__ import annotations

import torch
from torch.nn import functional as F

from bacpipe.models.families import birdset
from bacpipe.models.families.birdset import PrototypeHead


def _by_definition(head: PrototypeHead, features: torch.Tensor) -> torch.Tensor:
    """Upsample, append the epsilon channels, compare point by point, take the maximum."""
    epsilon = 1e-4
    maps = F.interpolate(features, scale_factor=2, mode="bilinear")
    maps = F.pad(maps, (0, 0, 0, 0, 0, 2), value=epsilon)
    prototypes = F.pad(head.prototype_vectors.flatten(1), (0, 2), value=epsilon)
    maps = maps / (maps.square().sum(1, keepdim=True) + epsilon).sqrt()
    prototypes = prototypes / (
        (prototypes.square().sum(1, keepdim=True) + epsilon).sqrt() + epsilon
    )
    cosine = torch.einsum("pc,nchw->nphw", prototypes, maps) / 1.01
    strongest = cosine.relu().amax((2, 3)).unflatten(1, head.last_layer.weight.shape)
    return torch.einsum("nkp,kp->nk", strongest, head.last_layer.weight.relu()) + (
        head.last_layer.bias
    )


def test_fast_form_equals_the_definition(monkeypatch) -> None:
    monkeypatch.setattr(birdset, "_CHUNK", 8)
    torch.manual_seed(0)
    head = PrototypeHead(channels=6, n_classes=7, per_class=3)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    # Short vectors, for which the epsilons matter.
    features = torch.randn(2, 6, 3, 5) * torch.tensor([1.0, 0.01]).view(2, 1, 1, 1)
    with torch.inference_mode():
        expected = _by_definition(head, features)
        head.normalize_prototypes()
        assert len(head.likeness) == 3
        torch.testing.assert_close(head(features), expected, rtol=1e-5, atol=1e-6)
