"""Networks rearranged for a CPU compute what they computed before."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import mobilenet_v3_small
from transformers import ConvNextConfig, ConvNextModel, CvtConfig, CvtModel

from bacpipe.models.backends.cpu.fusion import fuse, speed_up_convolutions
from bacpipe.models.backends.cpu.layers import FusedConv2d, onednn_computes
from bacpipe.models.families.bat import _MaxPool
from bacpipe.models.families.birdset import fuse_blocks
from bacpipe.models.families.protoclr import fuse_layers

pytestmark = pytest.mark.skipif(
    not onednn_computes(torch.empty(0)), reason="this build of PyTorch has no oneDNN"
)


class Called(nn.Module):
    """Two convolutions, and a function of them and the input."""

    def __init__(self, function: Callable[[nn.Module, nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.one = nn.Conv2d(6, 6, 3, padding=1)
        self.two = nn.Conv2d(6, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.one, self.two, x)


def randomised(network: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for values in network.state_dict().values():
        if values.is_floating_point():
            values.copy_(torch.randn(values.shape, generator=generator) * 0.2)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return network.eval().requires_grad_(False)


def equal(ours: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def left(network: nn.Module) -> int:
    """Convolutions that were not fused, and activations that are still steps of their own."""
    kinds = (nn.Conv2d, nn.ReLU, nn.SiLU, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.LeakyReLU)
    return sum(type(module) in kinds for module in network.modules())


@pytest.mark.parametrize(
    "activation",
    [nn.ReLU, nn.SiLU, nn.Sigmoid, nn.Hardswish, nn.Hardsigmoid, lambda: nn.LeakyReLU(0.2)],
)
@pytest.mark.parametrize("settings", [{}, {"groups": 6}, {"stride": 2, "bias": False}])
def test_activations(activation: Callable[[], nn.Module], settings: dict[str, int]) -> None:
    network = randomised(nn.Sequential(nn.Conv2d(6, 12, 3, padding=1, **settings), activation()))
    x = torch.randn(3, 6, 9, 14)
    expected = network(x)
    fused = fuse(network, "cpu")
    assert left(fused) == 0
    for _ in range(2):  # the first call packs the weights
        equal(fused(x), expected)
    equal(fused(x[:1]), expected[:1])
    assert fused(x[:0]).shape == expected[:0].shape


@pytest.mark.parametrize(
    "function",
    [
        lambda one, two, x: one(x) + x,
        lambda one, two, x: x + one(x),
        lambda one, two, x: F.relu(one(x) + two(x), inplace=True),
        lambda one, two, x: F.leaky_relu(one(x) + two(x), 0.3),
        lambda one, two, x: F.leaky_relu(one(x)) + F.silu(two(x)),
        lambda one, two, x: one(F.relu(two(x))) + x.mean((2, 3), keepdim=True),
        lambda one, two, x: two(x) + x[:1],
        lambda one, two, x: one(x) + one(two(x)).relu(),
        lambda one, two, x: one(x) + one(x),
        lambda one, two, x: one(x) + 1,
        lambda one, two, x: F.relu(one(x)) * two(x),
        lambda one, two, x: one(x.flip(3).transpose(2, 3)),
    ],
)
def test_sums_and_what_only_looks_like_one(
    function: Callable[[nn.Module, nn.Module, Tensor], Tensor],
) -> None:
    network = randomised(Called(function))
    x = torch.randn(2, 6, 7, 7)
    expected = network(x)
    equal(fuse(copy.deepcopy(network), "cpu")(x), expected)


def test_a_mobilenet_is_fused_to_the_last_layer() -> None:
    network = randomised(mobilenet_v3_small(weights=None).features)
    x = torch.randn(2, 3, 64, 96)
    expected = network(x)
    speed_up_convolutions(network)
    fused = fuse(network, "cpu")
    assert left(fused) == 0
    equal(fused(x), expected)


def test_padding_of_tensorflow() -> None:
    network = randomised(timm.create_model("tf_efficientnetv2_b0", num_classes=0, in_chans=1))
    for size in (61, 64):
        x = torch.randn(1, 1, size, 70)
        expected = network(x)
        changed = copy.deepcopy(network)
        speed_up_convolutions(changed)
        fused = fuse(changed, "cpu")
        assert left(fused) == 0
        equal(fused(x), expected)


def test_autocast_and_copies() -> None:
    network = randomised(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()))
    x = torch.randn(1, 3, 8, 8)
    expected = network(x)
    fused = fuse(network, "cpu")
    equal(fused(x), expected)
    equal(copy.deepcopy(fused)(x), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert fused(x).dtype == torch.bfloat16
    equal(fused.double()(x.double()).float(), expected)


def test_other_devices_keep_the_network() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    assert fuse(network, "cuda:0") is network
    assert fuse(network, "mps") is network


def test_weights_are_shared() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).eval()
    fused = fuse(network, "cpu")
    (layer,) = (module for module in fused.modules() if isinstance(module, FusedConv2d))
    assert layer.weight is network[0].weight


def test_convnext() -> None:
    config = ConvNextConfig(num_channels=1, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 2, 1])
    network = randomised(ConvNextModel(config))
    x = torch.randn(2, 1, 64, 96)
    with torch.inference_mode():
        expected = network(x)
        fuse_blocks(network)
        found = network(x)
    equal(found.pooler_output, expected.pooler_output)
    equal(found.last_hidden_state, expected.last_hidden_state)


def test_cvt() -> None:
    config = CvtConfig(num_channels=1, embed_dim=[8, 24, 48], num_heads=[1, 3, 6], depth=[1, 2, 3])
    network = randomised(CvtModel(config))
    x = torch.randn(2, 1, 64, 96)
    with torch.inference_mode():
        expected = network(x)
        fuse_layers(network)
        found = network(x)
    equal(found.cls_token_value, expected.cls_token_value)
    equal(found.last_hidden_state, expected.last_hidden_state)


@pytest.mark.parametrize("height", [2, 5, 8, 23])
@pytest.mark.parametrize("width", [1, 6, 86])
def test_largest_of_three_by_three(height: int, width: int) -> None:
    for layout in (torch.contiguous_format, torch.channels_last):
        x = torch.randn(2, 4, height, width).contiguous(memory_format=layout)
        expected = F.max_pool2d(x, 3, stride=2, padding=1)
        assert torch.equal(_MaxPool(3, stride=2, padding=1)(x), expected)
