"""Layers with weights in oneDNN's order compute what PyTorch's own do."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.nn import functional

from bacpipe.models.backends.cpu import linear as cpu_linear
from bacpipe.models.backends.cpu.linear import PackedConv1d, PackedLinear, attend, pack_linears


@pytest.fixture(params=["as it is", "without oneDNN"])
def _both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "without oneDNN":
        monkeypatch.setattr(cpu_linear, "_IS_PRESENT", False)


def linear(bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(48, 100, bias=bias)


def close(ours: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=2e-6)


@pytest.mark.usefixtures("_both_ways")
@torch.inference_mode()
@pytest.mark.parametrize("with_residual", [True, False])
@pytest.mark.parametrize("gelu", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5, 48), (2, 3, 48), (1, 48), (0, 48)])
def test_linear_layers(shape: tuple[int, ...], bias: bool, gelu: bool, with_residual: bool) -> None:
    x = torch.randn(shape)
    expected = linear(bias)(x)
    if gelu:
        expected = functional.gelu(expected)
    residual = torch.randn(expected.shape) if with_residual else None
    if residual is not None:
        expected = expected + residual
    layer = PackedLinear(linear(bias), gelu=gelu)
    for _ in range(2):  # the first call packs
        close(layer(x, residual), expected)


@torch.inference_mode()
def test_input_and_residual_with_gaps_in_memory() -> None:
    x, residual = torch.randn(48, 2, 5).permute(1, 2, 0), torch.randn(2, 9, 100)[:, :5]
    before = residual.clone()
    close(PackedLinear(linear())(x, residual), linear()(x) + residual)
    torch.testing.assert_close(residual, before, rtol=0, atol=0)


@torch.inference_mode()
def test_convolutions_of_other_lengths_than_the_first() -> None:
    torch.manual_seed(0)
    plain = nn.Conv1d(32, 64, 8, stride=2, padding=4, groups=2)
    layer = PackedConv1d(plain, gelu=True)
    for shape in ((1, 40, 32), (3, 40, 32), (2, 77, 32)):
        x = torch.randn(shape)
        expected = functional.gelu(plain(x.transpose(1, 2))).transpose(1, 2)
        close(layer(x), expected)


@pytest.mark.usefixtures("_both_ways")
@torch.inference_mode()
@pytest.mark.parametrize("bias", [True, False])
def test_convolutions(bias: bool) -> None:
    plain = nn.Conv1d(16, 32, 3, stride=2, bias=bias)
    x = torch.randn(2, 21, 16)
    close(PackedConv1d(plain)(x), plain(x.transpose(1, 2)).transpose(1, 2))


@torch.inference_mode()
@pytest.mark.parametrize("used_before", [True, False])
def test_autocast_decides_the_precision(used_before: bool) -> None:
    x, tokens = torch.randn(3, 48), torch.randn(2, 21, 16)
    layer, plain = PackedLinear(linear(), gelu=True), linear()
    plain_convolution = nn.Conv1d(16, 32, 3)
    convolution = PackedConv1d(plain_convolution)
    if used_before:
        layer(x), convolution(tokens)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, expected = layer(x), functional.gelu(plain(x))
        convolved = convolution(tokens)
        expected_convolved = plain_convolution(tokens.transpose(1, 2)).transpose(1, 2)
    assert ours.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(ours, expected, rtol=0, atol=0)
    assert convolved.dtype == torch.bfloat16
    torch.testing.assert_close(convolved, expected_convolved, rtol=0.02, atol=0.02)
    close(layer(x), functional.gelu(plain(x)))


def test_other_precisions_are_left_to_pytorch() -> None:
    x = torch.randn(3, 48, dtype=torch.float64)
    with torch.inference_mode():
        close(PackedLinear(linear()).double()(x), linear().double()(x))


def test_weights_are_not_there_twice() -> None:
    plain = linear()
    layer = PackedLinear(plain)
    assert layer.weight is not None
    assert layer.weight.data_ptr() == plain.weight.data_ptr()
    x = torch.randn(3, 48)
    with torch.inference_mode():
        layer(x)
    assert (layer.weight is None) == linear.onednn_computes(x)


@torch.inference_mode()
def test_threads_may_call_it_for_the_first_time_together() -> None:
    x = torch.randn(3, 48)
    expected = linear()(x)

    def call(layer: PackedLinear) -> torch.Tensor:
        with torch.inference_mode():
            return layer(x)

    with ThreadPoolExecutor(4) as pool:
        for _ in range(20):
            layer = PackedLinear(linear())
            for ours in pool.map(call, [layer] * 8):
                close(ours, expected)


def test_special_linear_layers_stay() -> None:
    attention = nn.MultiheadAttention(8, 2)
    network = pack_linears(nn.Sequential(attention, nn.Linear(8, 8)))
    assert type(attention.out_proj) is not PackedLinear
    assert type(list(network.children())[1]) is PackedLinear


@pytest.mark.usefixtures("_both_ways")
@torch.inference_mode()
@pytest.mark.parametrize("position", ["none", "bias", "gated bias"])
@pytest.mark.parametrize(("queries", "tokens"), [(200, 200), (200, 231), (2, 200), (11, 11)])
def test_attention(queries: int, tokens: int, position: str) -> None:
    torch.manual_seed(0)
    # In memory, the heads lie side by side, as they come out of a projection.
    q = 3 * torch.randn(2, queries, 3, 16).transpose(1, 2)
    k, v = torch.randn(2, 2, tokens, 3, 16).transpose(2, 3).unbind(0)
    bias = None if position == "none" else torch.randn(3, queries, tokens)
    gate = torch.rand(2, 3, queries, 1) if position == "gated bias" else None
    scores = q @ k.transpose(2, 3) / 4
    if bias is not None:
        scores = scores + (bias if gate is None else gate * bias)
    expected = (scores.softmax(3) @ v).transpose(1, 2).flatten(2)
    before = q.clone(), k.clone(), v.clone()
    close(attend(q, k, v, bias=bias, gate=gate), expected)
    torch.testing.assert_close((q, k, v), before, rtol=0, atol=0)


@torch.inference_mode()
def test_attention_under_autocast() -> None:
    q, k, v = torch.randn(3, 1, 2, 200, 16).unbind(0)
    expected = (q @ k.transpose(2, 3) / 4).softmax(3) @ v
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = attend(q, k, v)
    assert ours.dtype == torch.bfloat16
    torch.testing.assert_close(
        ours.float(), expected.transpose(1, 2).flatten(2), rtol=0.05, atol=0.02
    )
