"""oneDNN computes the same linear layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bacpipe.models.backends import onednn


@pytest.fixture(autouse=True)
def _present() -> None:
    if not onednn._is_present():
        pytest.skip("this build of PyTorch has no oneDNN for linear layers on this processor")


def network(bias: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(48, 100, bias=bias), nn.GELU(), nn.Linear(100, 7)).eval()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5, 48), (2, 3, 48), (1, 48), (0, 48)])
def test_results_are_those_of_pytorch(shape: tuple[int, ...], bias: bool) -> None:
    x = torch.randn(shape)
    with torch.inference_mode():
        expected = network(bias)(x)
        fast = onednn.use_onednn(network(bias))
        torch.testing.assert_close(fast(x), expected, rtol=1e-5, atol=1e-6)
    assert type(fast[0]) is onednn.OneDnnLinear


def test_non_contiguous_input() -> None:
    x = torch.randn(48, 5).T
    with torch.inference_mode():
        ours, expected = onednn.use_onednn(network())(x), network()(x)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


def test_weights_keep_their_names_and_storage() -> None:
    before = network()
    weight = before[0].weight
    after = onednn.use_onednn(before)
    assert list(after.state_dict()) == list(network().state_dict())
    assert after[0].weight is weight
    assert not any(module.training for module in after.modules())


def test_other_precisions_are_left_to_pytorch() -> None:
    x = torch.randn(3, 48, dtype=torch.float64)
    with torch.inference_mode():
        ours, expected = onednn.use_onednn(network().double())(x), network().double()(x)
    torch.testing.assert_close(ours, expected, rtol=0, atol=0)


def test_autocast_decides_the_precision_as_before() -> None:
    x = torch.randn(3, 48)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert onednn.use_onednn(network())(x).dtype == network()(x).dtype


def test_special_linear_layers_stay() -> None:
    attention = nn.MultiheadAttention(8, 2)
    kind = type(attention.out_proj)
    onednn.use_onednn(attention)
    assert type(attention.out_proj) is kind
