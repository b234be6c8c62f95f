"""Layers that oneDNN computes give what PyTorch's own give, and behave like them."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bacpipe.models.backends.cpu import layers
from bacpipe.models.backends.cpu.fusion import fuse_linears
from bacpipe.models.backends.cpu.layers import (
    GELU,
    Activation,
    CpuLayer,
    FusedConv1d,
    FusedConv2d,
    FusedLinear,
    onednn_computes,
    onednn_works,
)

needs_onednn = pytest.mark.skipif(
    not onednn_computes(torch.empty(0)), reason="this build of PyTorch has no oneDNN"
)


@pytest.fixture(params=["as it is", "without oneDNN"])
def _both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "without oneDNN":
        monkeypatch.setattr(layers, "_IS_THERE", False)


def linear(bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(48, 100, bias=bias).requires_grad_(False)


def close(ours: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=2e-6)


@pytest.mark.usefixtures("_both_ways")
@torch.inference_mode()
@pytest.mark.parametrize("with_residual", [True, False])
@pytest.mark.parametrize("activation", [GELU, Activation()])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5, 48), (2, 3, 48), (1, 48), (0, 48)])
def test_linear_layers(
    shape: tuple[int, ...], bias: bool, activation: Activation, with_residual: bool
) -> None:
    x = torch.randn(shape)
    expected = linear(bias)(x)
    residual = torch.randn(expected.shape) if with_residual else None
    if residual is not None:
        expected = expected + residual
    expected = activation(expected)
    layer = FusedLinear(linear(bias), activation)
    for _ in range(2):  # the first call packs
        close(layer(x, residual), expected)


@torch.inference_mode()
def test_input_and_residual_with_gaps_in_memory() -> None:
    x, residual = torch.randn(48, 2, 5).permute(1, 2, 0), torch.randn(2, 9, 100)[:, :5]
    before = residual.clone()
    close(FusedLinear(linear())(x, residual), linear()(x) + residual)
    torch.testing.assert_close(residual, before, rtol=0, atol=0)
    close(FusedLinear(linear())(x, residual[:1]), linear()(x) + residual[:1])


@torch.inference_mode()
def test_convolutions_of_other_lengths_than_the_first() -> None:
    torch.manual_seed(0)
    plain = nn.Conv1d(32, 64, 8, stride=2, padding=4, groups=2)
    layer = FusedConv1d(plain, GELU)
    for shape in ((1, 40, 32), (3, 40, 32), (2, 77, 32)):
        x = torch.randn(shape)
        expected = F.gelu(plain(x.transpose(1, 2))).transpose(1, 2)
        close(layer(x), expected)


@pytest.mark.usefixtures("_both_ways")
@torch.inference_mode()
@pytest.mark.parametrize("bias", [True, False])
def test_convolutions(bias: bool) -> None:
    plain = nn.Conv1d(16, 32, 3, stride=2, bias=bias)
    x = torch.randn(2, 21, 16)
    close(FusedConv1d(plain)(x), plain(x.transpose(1, 2)).transpose(1, 2))


# A layer of each kind, the plain one that it is made of, and an input.
Case = tuple[CpuLayer, Callable[[Tensor], Tensor], Tensor]


def fused_linear() -> Case:
    plain = linear()
    return FusedLinear(copy.deepcopy(plain), GELU), lambda x: F.gelu(plain(x)), torch.randn(3, 48)


def fused_conv1d() -> Case:
    torch.manual_seed(0)
    plain = nn.Conv1d(16, 32, 3, padding=1).requires_grad_(False)
    layer = FusedConv1d(copy.deepcopy(plain), GELU)
    expected = lambda x: F.gelu(plain(x.transpose(1, 2))).transpose(1, 2)  # noqa: E731
    return layer, expected, torch.randn(2, 21, 16)


def fused_conv2d() -> Case:
    torch.manual_seed(0)
    plain = nn.Conv2d(6, 12, 3, stride=2, padding=1).requires_grad_(False)
    layer = FusedConv2d(copy.deepcopy(plain), Activation("leaky_relu", (0.2,)))
    return layer, lambda x: F.leaky_relu(plain(x), 0.2), torch.randn(2, 6, 9, 7)


@pytest.fixture(params=[fused_linear, fused_conv1d, fused_conv2d], ids=lambda make: make.__name__)
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    layer, expected, x = request.param()
    with torch.no_grad():
        close(layer(x), expected(x))  # from here on, the weights are packed
        yield layer, expected, x


def by_torch_save(module: nn.Module) -> Any:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), by_torch_save]


@needs_onednn
def test_packed_weights_are_used(case: Case) -> None:
    layer, _, x = case
    known = layer._derived[f"packed {x.dtype}"][1]
    layer(x)
    assert layer._derived[f"packed {x.dtype}"][1] is known


def test_parameters_stay(case: Case) -> None:
    layer, _, _ = case
    assert list(layer.state_dict()) == ["weight", "bias"]
    assert all(value.is_contiguous() for value in layer.state_dict().values())


@pytest.mark.parametrize("again", COPIES, ids=["deepcopy", "pickle", "torch.save"])
def test_copies_compute_the_same_and_are_their_own(case: Case, again: Callable[..., Any]) -> None:
    layer, expected, x = case
    other = again(layer)
    close(other(x), expected(x))
    other.weight.mul_(2)
    close(layer(x), expected(x))


def in_place(layer: CpuLayer) -> None:
    layer.weight.mul_(2)


def by_data(layer: CpuLayer) -> None:
    layer.weight.data = layer.weight.data * 2


def by_state_dict(layer: CpuLayer) -> None:
    state = {name: value.clone() for name, value in layer.state_dict().items()}
    layer.load_state_dict(state | {"weight": 2 * state["weight"]})


def by_assignment(layer: CpuLayer) -> None:
    state = {name: value.clone() for name, value in layer.state_dict().items()}
    layer.load_state_dict(state | {"weight": 2 * state["weight"]}, assign=True)


def by_a_new_parameter(layer: CpuLayer) -> None:
    layer.weight = nn.Parameter(2 * layer.weight, requires_grad=False)


@pytest.mark.parametrize(
    "double_weights", [in_place, by_data, by_state_dict, by_assignment, by_a_new_parameter]
)
def test_new_weights_take_effect(case: Case, double_weights: Callable[[CpuLayer], None]) -> None:
    layer, expected, x = case
    double_weights(layer)
    close(layer(x), copy.deepcopy(layer)(x))  # a copy has packed nothing yet
    assert not torch.allclose(layer(x), expected(x))


def test_changes_in_inference_mode_take_effect(case: Case) -> None:
    layer, _, x = case
    with torch.inference_mode():
        layer.weight.zero_()
        layer.bias.zero_()
        assert not layer(x).any()


def test_other_types(case: Case) -> None:
    layer, expected, x = case
    for dtype, tolerance in ((torch.float64, 1e-6), (torch.bfloat16, 0.05)):
        ours = layer.to(dtype)(x.to(dtype))
        assert ours.dtype is dtype
        torch.testing.assert_close(ours.float(), expected(x), rtol=tolerance, atol=tolerance)
        layer.float()


def test_autocast_decides_the_precision(case: Case) -> None:
    layer, expected, x = case
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = layer(x)
    assert ours.dtype is torch.bfloat16
    torch.testing.assert_close(ours.float(), expected(x), rtol=0.05, atol=0.02)
    close(layer(x), expected(x))


@pytest.mark.parametrize("of", ["input", "weight", "bias"])
def test_gradients(case: Case, of: str) -> None:
    layer, _, x = case
    wanted = x.clone() if of == "input" else getattr(layer, of)
    wanted.requires_grad_()
    with torch.enable_grad():
        layer(wanted if of == "input" else x).sum().backward()
    assert wanted.grad is not None
    assert wanted.grad.abs().sum() > 0


@pytest.mark.parametrize("fault", ["absent", "wrong", "failing"])
def test_operators_are_judged_by_their_results(
    case: Case, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, expected, x = case

    def by_onednn(self: CpuLayer, x: Tensor, residual: Tensor | None = None) -> Tensor:
        if fault == "absent":
            result: Tensor = torch.ops.mkldnn._no_such_operator(x)
            return result
        if fault == "failing":
            raise RuntimeError("could not create a primitive")
        return self.activation(self.by_pytorch(x)) + 0.001

    monkeypatch.setattr(type(layer), "by_onednn", by_onednn)
    onednn_works.cache_clear()
    try:
        close(layer(x), expected(x))
        assert not onednn_works(type(layer), layer.activation, with_residual=False)  # type: ignore[arg-type]
    finally:
        onednn_works.cache_clear()


@needs_onednn
@pytest.mark.parametrize("kind", [FusedLinear, FusedConv1d, FusedConv2d])
@pytest.mark.parametrize("with_residual", [True, False])
def test_trials_pass_and_leave_random_numbers_alone(kind: Any, with_residual: bool) -> None:
    onednn_works.cache_clear()
    before = torch.get_rng_state()
    with torch.inference_mode():
        assert onednn_works(kind, GELU, with_residual=False)
        assert onednn_works(kind, Activation(), with_residual=with_residual)
    assert torch.equal(before, torch.get_rng_state())


def test_threads_may_call_it_for_the_first_time_together() -> None:
    x = torch.randn(3, 48)
    expected = linear()(x)

    def call(layer: FusedLinear) -> Tensor:
        with torch.inference_mode():
            result: Tensor = layer(x)
            return result

    with ThreadPoolExecutor(4) as pool:
        for _ in range(20):
            for ours in pool.map(call, [FusedLinear(linear())] * 8):
                close(ours, expected)


def test_parameters_are_shared_with_the_plain_layer() -> None:
    plain = linear()
    layer = FusedLinear(plain)
    assert layer.weight is plain.weight
    assert layer.bias is plain.bias


def test_special_linear_layers_stay() -> None:
    attention = nn.MultiheadAttention(8, 2)
    network = nn.Sequential(attention, nn.Linear(8, 8))
    fuse_linears(network)
    assert type(attention.out_proj) is not FusedLinear
    assert type(network[1]) is FusedLinear
