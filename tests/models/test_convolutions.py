from __future__ import annotations

import timm
import torch
from torch import nn

from bacpipe.models.backends.cpu.fusion import speed_up_convolutions


def _with_statistics(network: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = torch.randn(module.num_features, generator=generator)
            module.running_var = torch.rand(module.num_features, generator=generator) + 0.5
    return network.eval()


def test_results_stay_and_norms_go() -> None:
    torch.manual_seed(0)
    network = _with_statistics(
        nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Sequential(nn.Conv2d(4, 6, 3, groups=2, bias=False), nn.BatchNorm2d(6)),
        )
    )
    x = torch.randn(2, 1, 9, 11)
    with torch.inference_mode():
        before = network(x)
        speed_up_convolutions(network)
        torch.testing.assert_close(network(x), before, rtol=1e-5, atol=1e-6)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def test_activations_inside_timms_norms_stay() -> None:
    torch.manual_seed(0)
    network = _with_statistics(
        timm.create_model("efficientnet_lite0", pretrained=False, in_chans=1, num_classes=3)
    )
    x = torch.randn(1, 1, 64, 64)
    with torch.inference_mode():
        before = network(x)
        speed_up_convolutions(network)
        torch.testing.assert_close(network(x), before, rtol=1e-4, atol=1e-5)


def test_norm_without_a_convolution_before_it_stays() -> None:
    network = nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 2, 1))
    speed_up_convolutions(network)
    assert isinstance(network[0], nn.BatchNorm2d)
