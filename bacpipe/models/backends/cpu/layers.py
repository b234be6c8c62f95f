"""Layers that a CPU computes in one pass over the memory, by operators that are oneDNN's own.

PyTorch computes a convolution and the activation behind it one after the other, and each reads
and writes whole feature maps.  oneDNN does the second while the results of the first are still in
registers.  Its operators are not public, so every layer here knows PyTorch's way, too, and takes
it wherever oneDNN's is absent, wrong or does not suit: a network may always be built of them.
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "none": lambda x: x,
    "relu": F.relu,
    "swish": F.silu,
    "sigmoid": torch.sigmoid,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "leaky_relu": F.leaky_relu,
    "gelu": F.gelu,
}


class Activation(NamedTuple):
    """An activation by the name that oneDNN has for it, and its numbers."""

    name: str = "none"
    scalars: tuple[float, ...] = ()

    def __call__(self, x: Tensor) -> Tensor:
        """Compute it by PyTorch."""
        return _FUNCTIONS[self.name](x, *self.scalars)

    @property
    def arguments(self) -> tuple[str, list[float], str]:
        """What oneDNN's operators are told of it; the last word is for GELU, the exact one."""
        return self.name, list(self.scalars), "none" if self.name == "gelu" else ""


_NONE = Activation()
GELU = Activation("gelu")


def computing_type() -> torch.dtype:
    """What layers on a CPU compute in: float32, or what autocast rounds to."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32


def onednn_computes(*tensors: Tensor | None) -> bool:
    """Whether oneDNN may compute with these: float32 on an x86 CPU, without gradients.

    Under autocast to bfloat16 it computes in that, and tensors may be of either type.
    """
    gradients, kind = torch.is_grad_enabled(), computing_type()
    return (
        _IS_THERE
        and bool(torch.backends.mkldnn.enabled)
        and kind in _ROUNDING
        and not torch.compiler.is_compiling()
        and all(
            tensor is None
            or (
                tensor.device.type == "cpu"
                and tensor.dtype in (torch.float32, kind)
                and tensor.layout is torch.strided
                and not (gradients and tensor.requires_grad)
            )
            for tensor in tensors
        )
    )


def processor_has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself (AMX, AVX-512 BF16), so that it is faster.

    Others emulate it, several times slower than float32.
    """
    if hasattr(torch.cpu, "get_capabilities"):  # PyTorch 2.9 and later
        here = torch.cpu.get_capabilities()
        return bool(here.get("amx_bf16") or here.get("avx512_bf16"))
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


# Numbers that are computed with, and how far sum and activation may be off where they are tried.
_ROUNDING = {torch.float32: (1e-4, 1e-5), torch.bfloat16: (0.02, 0.02)}
# Elsewhere nobody has measured it.
_IS_THERE = platform.machine() in ("x86_64", "AMD64") and torch.backends.mkldnn.is_available()


def _state(tensor: Tensor) -> tuple[object, ...]:
    # Tensors made in inference mode do not count their changes.
    version = None if tensor.is_inference() else tensor._version
    return tensor.data_ptr(), version, tensor.shape, tensor.stride(), tensor.dtype


class DerivedTensors(nn.Module):
    """Base class of modules that keep tensors derived from their parameters and buffers.

    They are no part of the state dict, of copies and of pickles, and are made anew when what they
    come from was moved, replaced or changed in place.  Only changes through ``parameter.data``
    cannot be seen, as little as autograd sees them.
    """

    # By name: the state of what it comes from, the tensor, and what it comes from.
    _derived: dict[str, tuple[object, Tensor, list[Tensor]]]

    def __init__(self, *args: Any, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self._derived = {}

    def derived(self, name: str, make: Callable[[], Tensor], *sources: Tensor) -> Tensor:
        """Tensor of this name: the one made before, or, if a source has changed since, a new one.

        Threads that ask at once may each make it; the results are equal and either is kept.
        """
        state = [_state(source) for source in sources]
        known = self._derived.get(name)
        if known is None or known[0] != state:
            # While their memory is held, no other tensor can get the same address.
            known = self._derived[name] = state, make(), [source.detach() for source in sources]
        return known[1]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        self._derived = {}
        module: nn.Module = super()._apply(fn, recurse)
        return module

    def _load_from_state_dict(self, *args: Any, **kwargs: object) -> None:
        self._derived = {}
        super()._load_from_state_dict(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        # Weights in oneDNN's order can neither be copied nor pickled.
        return {**self.__dict__, "_derived": {}}


class CpuLayer(DerivedTensors):
    """Base class of layers that compute in two ways: PyTorch's, and oneDNN's where it may.

    oneDNN computes on a CPU with oneDNN in float32, or in bfloat16 where autocast rounds to it,
    without gradients, and only after it was tried: once per process, it must give for small layers
    of the kind what PyTorch gives.  The parameters stay as they are in any case.
    """

    weight: Tensor
    bias: Any  # nn.Parameter or None: PyTorch's layers do not declare it alike
    activation: Activation = _NONE

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Apply the layer, add a `residual` of the shape of the result, and activate."""
        kind = computing_type()
        if (
            onednn_computes(x, residual, self.weight, self.bias)
            and x.numel()  # an empty input has nothing to compute, but a shape
            and (residual is None or residual.shape == self.shape_of_result(x))
            and onednn_works(type(self), self.activation, kind, with_residual=residual is not None)  # type: ignore[arg-type]
        ):
            return self.by_onednn(x.to(kind), None if residual is None else residual.to(kind))
        y = self.by_pytorch(x)
        return self.activation(y if residual is None else y + residual)

    def by_pytorch(self, x: Tensor) -> Tensor:
        """Result without sum and activation, by public operators on any device."""
        raise NotImplementedError

    def by_onednn(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Result with sum and activation, in one pass over the memory; of the type of `x`."""
        raise NotImplementedError

    def bias_as(self, kind: torch.dtype) -> Tensor | None:
        """The bias in another type, if there is one."""
        if self.bias is None or kind is self.bias.dtype:
            bias: Tensor | None = self.bias
            return bias
        return self.derived(f"bias {kind}", lambda: self.bias.detach().to(kind), self.bias)

    def shape_of_result(self, x: Tensor) -> tuple[int, ...]:
        """Shape of the result."""
        raise NotImplementedError

    @classmethod
    def trials(cls, activation: Activation) -> Iterable[tuple[CpuLayer, Tensor]]:
        """Small layers of this kind with weights of zero, and an input for each."""
        raise NotImplementedError


@functools.cache
def onednn_works(
    kind: type[CpuLayer],
    activation: Activation,
    dtype: torch.dtype = torch.float32,
    *,
    with_residual: bool,
) -> bool:
    """Whether layers of a kind compute the same in both ways, tried once per process."""
    try:
        with (
            torch.inference_mode(False),
            torch.no_grad(),
            torch.autocast("cpu", enabled=False),
            torch.device("cpu"),
        ):
            return all(
                _agree(layer, x, dtype, with_residual=with_residual)
                for layer, x in kind.trials(activation)
            )
    # What operators raise that are absent or have changed.
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):
        return False


def _agree(layer: CpuLayer, x: Tensor, dtype: torch.dtype, *, with_residual: bool) -> bool:
    for parameter in layer.parameters():
        parameter.copy_(_ramp(parameter.shape, dtype))
    x = _ramp(x.shape, dtype)
    y = layer.by_pytorch(x.float())
    residual = _ramp(y.shape, dtype) if with_residual else None
    wanted = layer.activation(y if residual is None else y + residual)
    outputs = [layer.by_onednn(x, residual) for _ in range(2)]
    relative, absolute = _ROUNDING[dtype]
    return all(
        y.dtype is dtype and torch.allclose(y.float(), wanted, rtol=relative, atol=absolute)
        for y in outputs
    )


def _ramp(shape: Iterable[int], dtype: torch.dtype) -> Tensor:
    """Numbers from -1 to 1, neighbours far from one another, without touching the random ones."""
    values = torch.empty(tuple(shape))
    ramp = torch.linspace(0, 0.618 * values.numel(), values.numel()).view_as(values)
    return (ramp.frac() * 2 - 1).to(dtype)


class FusedLinear(CpuLayer, nn.Linear):
    """A linear layer, the sum with a residual if given, and an activation.

    Parameters
    ----------
    layer : nn.Linear
        Whose parameters are taken.
    activation : Activation
        What follows.
    """

    def __init__(self, layer: nn.Linear, activation: Activation = _NONE) -> None:
        bias = layer.bias is not None
        # On the meta device nothing is allocated for parameters that are replaced at once.
        super().__init__(layer.in_features, layer.out_features, bias=bias, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        self.activation = activation
        self.train(layer.training)

    def by_pytorch(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def by_onednn(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        def pack() -> Tensor:
            weight = self.weight.detach().to(x.dtype)
            packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, None)
            return packed

        weights = self.derived(f"packed {x.dtype}", pack, self.weight), self.bias_as(x.dtype)
        compute = torch.ops.mkldnn._linear_pointwise
        y: Tensor
        if residual is None:
            y = compute(x, *weights, *self.activation.arguments)
        else:
            y = compute.binary(x, residual.contiguous(), *weights, "add")
            y = self.activation(y)
        return y

    def shape_of_result(self, x: Tensor) -> tuple[int, ...]:
        return *x.shape[:-1], self.out_features

    @classmethod
    def trials(cls, activation: Activation) -> Iterable[tuple[CpuLayer, Tensor]]:
        for bias in (True, False):
            layer = nn.utils.skip_init(nn.Linear, 24, 40, bias=bias)
            yield cls(layer, activation), torch.empty(2, 5, 24)


class _Convolution(CpuLayer):
    """What convolutions share: pictures (n, c, h, w), and weights in the order of the processor."""

    activation: Activation
    out_channels: int
    groups: int
    # Height and width of each.
    size: tuple[int, ...]
    steps: tuple[int, ...]
    margins: tuple[int, ...]
    gaps: tuple[int, ...] = (1, 1)

    def by_pytorch(self, x: Tensor) -> Tensor:
        how = self.steps, self.margins, self.gaps, self.groups
        return F.conv2d(x, self._kernels(), self.bias, *how)

    def by_onednn(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        how = self.margins, self.steps, self.gaps, self.groups

        def pack() -> Tensor:
            # For the shape of the first input; others may follow.
            order = torch.ops.mkldnn._reorder_convolution_weight
            packed: Tensor = order(self._kernels().detach().to(x.dtype), *how, list(x.shape))
            return packed

        packed = self.derived(f"packed {x.dtype}", pack, self.weight)
        weights = packed, self.bias_as(x.dtype), *how
        compute = torch.ops.mkldnn._convolution_pointwise
        name, scalars, algorithm = self.activation.arguments
        y: Tensor
        if residual is None:
            y = compute(x, *weights, name, scalars, algorithm)
        else:
            last = None if name == "none" else name
            y = compute.binary(x, residual, *weights, "add", 1.0, last, scalars, algorithm)
        return y

    def shape_of_result(self, x: Tensor) -> tuple[int, ...]:
        sizes = zip(x.shape[2:], self.size, self.steps, self.margins, self.gaps, strict=True)
        places = ((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sizes)
        return len(x), self.out_channels, *places

    def _kernels(self) -> Tensor:
        """Weights with four axes."""
        return self.weight


class FusedConv1d(_Convolution, nn.Conv1d):
    """A convolution over time with channels last, and an activation.

    Parameters
    ----------
    layer : nn.Conv1d
        Whose parameters are taken; padded with zeros, not dilated.
    activation : Activation
        What follows.
    """

    def __init__(self, layer: nn.Conv1d, activation: Activation = _NONE) -> None:
        super().__init__(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,
            layer.stride,
            layer.padding,
            groups=layer.groups,
            bias=layer.bias is not None,
            device="meta",
        )
        self.weight, self.bias = layer.weight, layer.bias
        self.activation = activation
        self.size, self.steps = (1, layer.kernel_size[0]), (1, layer.stride[0])
        self.margins = (0, int(layer.padding[0]))
        self.train(layer.training)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Apply the layer: (n, time, in_channels) to (n, time, out_channels)."""
        # A picture of one row: only those know channels last, which this is in memory.
        y = super().forward(x.unsqueeze(1).permute(0, 3, 1, 2), residual)
        return y.permute(0, 2, 3, 1).squeeze(1)

    def _kernels(self) -> Tensor:
        return self.weight.unsqueeze(2)

    @classmethod
    def trials(cls, activation: Activation) -> Iterable[tuple[CpuLayer, Tensor]]:
        for bias, groups in ((True, 2), (False, 1)):
            layer = nn.utils.skip_init(nn.Conv1d, 16, 32, 3, 2, 1, groups=groups, bias=bias)
            yield cls(layer, activation), torch.empty(2, 16, 1, 9)


class FusedConv2d(_Convolution, nn.Conv2d):
    """A convolution of pictures, the sum with a residual if given, and an activation.

    Parameters
    ----------
    layer : nn.Conv2d
        Whose parameters and padding are taken; also the one of timm that pads like TensorFlow.
    activation : Activation
        What follows.
    """

    def __init__(self, layer: nn.Conv2d, activation: Activation = _NONE) -> None:
        super().__init__(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,
            layer.stride,
            layer.padding,
            layer.dilation,
            layer.groups,
            bias=layer.bias is not None,
            device="meta",
        )
        assert not isinstance(layer.padding, str) and layer.padding_mode == "zeros"
        self.weight, self.bias = layer.weight, layer.bias
        self.activation = activation
        self.size, self.steps, self.gaps = self.kernel_size, self.stride, self.dilation
        self.margins = tuple(layer.padding)
        self.same = pads_like_tensorflow(layer)
        self.train(layer.training)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Map (n, c, h, w) to (n, d, h', w'); a `residual` of the latter shape is added."""
        return super().forward(self._pad(x) if self.same else x, residual)

    def _pad(self, x: Tensor) -> Tensor:
        """Pad so that there are as many results as steps begin in the input."""
        margins: list[int] = []
        for n, k, s, d in zip(x.shape[2:], self.size, self.steps, self.gaps, strict=True):
            missing = max(0, (-(-n // s) - 1) * s + d * (k - 1) + 1 - n)
            margins = [missing // 2, missing - missing // 2, *margins]
        return F.pad(x, margins)

    @classmethod
    def trials(cls, activation: Activation) -> Iterable[tuple[CpuLayer, Tensor]]:
        # Dense, by channel, and of single points.
        for size, step, groups, bias in ((3, 2, 1, True), (3, 1, 16, False), (1, 1, 1, True)):
            layer = nn.utils.skip_init(
                nn.Conv2d, 16, 16, size, step, size // 2, groups=groups, bias=bias
            )
            yield cls(layer, activation), torch.empty(2, 16, 7, 6)


def pads_like_tensorflow(layer: nn.Module) -> bool:
    """Whether this is timm's convolution with the padding "same" (half a second to import)."""
    kind = type(layer)
    return (kind.__module__, kind.__name__) == ("timm.layers.conv2d_same", "Conv2dSame")
