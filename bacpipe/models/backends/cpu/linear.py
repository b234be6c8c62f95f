"""Layers whose weights oneDNN keeps in the order that its kernels read, with fused extras.

oneDNN multiplies matrices blockwise.  Left alone, it sorts the weights into blocks at each call;
here that happens once, at the first call.  What follows a layer (GELU, a residual sum) is done on
results that are still in the cache.  Everywhere else (GPUs, other precisions, autocast, builds
without oneDNN) the layers compute what PyTorch's own do, so a network may always be built of them.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_OPERATORS = (
    "_linear_pointwise",
    "_reorder_linear_weight",
    "_convolution_pointwise",
    "_reorder_convolution_weight",
)


def onednn_computes(input: Tensor) -> bool:
    """Whether oneDNN's own operators are there and suit an input: float32 on an x86 CPU."""
    return (
        input.device.type == "cpu"
        and input.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and _IS_PRESENT
    )


def _is_present() -> bool:
    return (
        platform.machine() in ("x86_64", "AMD64")
        and torch.backends.mkldnn.is_available()
        # These are not public operators, so they may go.
        and all(hasattr(torch.ops.mkldnn, name) for name in _OPERATORS)
    )


_IS_PRESENT = _is_present()


def _find_trim() -> Callable[[int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    # Only glibc has it.
    trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return trim


_trim = _find_trim()


def _return_freed_memory() -> None:
    """Give the room of weights that were packed back to the system.

    The C library would keep it, but packed weights, being aligned, never fit into it, so that
    large networks would take up to twice their size.
    """
    if _trim is not None:
        _trim(0)


def _fixed(weight: Tensor) -> nn.Parameter:
    return nn.Parameter(weight.detach(), requires_grad=False)


class _Packed(nn.Module):
    """Holds a weight: as it was given until `_pack` is called, in oneDNN's order from then on."""

    def __init__(self, weight: Tensor, bias: Tensor | None, gelu: bool) -> None:
        super().__init__()
        self.weight: nn.Parameter | None = _fixed(weight)
        self.bias = None if bias is None else _fixed(bias)
        self.gelu = gelu
        self._packed_weight: Tensor | None = None
        self._activation: tuple[Any, ...] = ("gelu", [], "none") if gelu else ("none", [], "")

    def _pack(self, input: Tensor) -> Tensor:
        raise NotImplementedError

    def _packed(self, input: Tensor) -> Tensor:
        packed = self._packed_weight
        if packed is None:
            # Two threads may both do it; their results are alike, and either may stay.
            packed = self._packed_weight = self._pack(input)
            self.weight = None
            _return_freed_memory()
        return packed

    def _plain(self) -> Tensor:
        """Weight in PyTorch's order, also after packing."""
        weight = self.weight
        if weight is None:
            assert self._packed_weight is not None
            return self._packed_weight.to_dense()
        return weight

    def _extras(self, output: Tensor, residual: Tensor | None = None) -> Tensor:
        if self.gelu:
            output = functional.gelu(output)
        return output if residual is None else residual + output


class PackedLinear(_Packed):
    """A linear layer, the GELU after it if wanted, and the sum with a residual if given.

    Parameters
    ----------
    layer : nn.Linear
        Gives its weights, which are shared until the first call on a CPU.
    gelu : bool
        Whether an exact GELU follows.
    """

    def __init__(self, layer: nn.Linear, *, gelu: bool = False) -> None:
        super().__init__(layer.weight, layer.bias, gelu)

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        """Apply the layer.

        Parameters
        ----------
        input : torch.Tensor, shape (..., in_features)
        residual : torch.Tensor, shape (..., out_features), optional
            Added to the result.

        Returns
        -------
        torch.Tensor, shape (..., out_features)
        """
        # An empty input has nothing to multiply, but a shape.
        if not onednn_computes(input) or not input.numel():
            return self._extras(functional.linear(input, self._plain(), self.bias), residual)
        weight = self._packed(input)
        output: Tensor
        if residual is not None and not self.gelu and residual.is_contiguous():
            output = torch.ops.mkldnn._linear_pointwise.binary(
                input, residual, weight, self.bias, "add"
            )
            return output
        output = torch.ops.mkldnn._linear_pointwise(input, weight, self.bias, *self._activation)
        return output if residual is None else residual + output

    def _pack(self, input: Tensor) -> Tensor:
        packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(self._plain().detach(), None)
        return packed


class PackedConv1d(_Packed):
    """A convolution over time with channels last, and the GELU after it if wanted.

    Parameters
    ----------
    layer : nn.Conv1d
        Gives its weights, which are shared until the first call on a CPU; padded with zeros,
        not dilated.
    gelu : bool
        Whether an exact GELU follows.
    """

    def __init__(self, layer: nn.Conv1d, *, gelu: bool = False) -> None:
        # A convolution over pictures of one row: only those know channels last.
        super().__init__(layer.weight.unsqueeze(2), layer.bias, gelu)
        self.stride, self.groups = (1, layer.stride[0]), layer.groups
        self.padding = (0, int(layer.padding[0]))

    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer: (n, time, in_channels) to (n, time, out_channels)."""
        rows = input.unsqueeze(1).permute(0, 3, 1, 2)  # in memory, this is channels last
        if onednn_computes(input) and input.numel():
            output = torch.ops.mkldnn._convolution_pointwise(
                rows,
                self._packed(rows),
                self.bias,
                self.padding,
                self.stride,
                (1, 1),
                self.groups,
                *self._activation,
            )
        else:
            plain: dict[str, Any] = {"stride": self.stride, "padding": self.padding}
            output = functional.conv2d(rows, self._plain(), self.bias, groups=self.groups, **plain)
            output = self._extras(output)
        return output.permute(0, 2, 3, 1).squeeze(1)

    def _pack(self, input: Tensor) -> Tensor:
        packed: Tensor = torch.ops.mkldnn._reorder_convolution_weight(
            self._plain().detach(),
            self.padding,
            self.stride,
            (1, 1),
            self.groups,
            list(input.shape),
        )
        return packed


def pack_linears(network: nn.Module) -> nn.Module:
    """Make every ``nn.Linear`` of a network a `PackedLinear`, in place.

    Parameters
    ----------
    network : nn.Module
        With its final weights.  Subclasses of ``nn.Linear`` stay as they are.

    Returns
    -------
    nn.Module
        The network.
    """
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Linear:
                setattr(parent, name, PackedLinear(child))
    return network


# FOLDED bacpipe/models/backends/attention.py: Attention as fast as the processor allows.

# With fewer tokens, calling oneDNN for each head costs more than it saves.
_FEWEST_TOKENS = 192


def attend(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    bias: Tensor | None = None,
    gate: Tensor | None = None,
) -> Tensor:
    """Scaled dot-product attention, with the heads side by side again.

    PyTorch's kernel for CPUs multiplies with MKL, in blocks too small for it.  On long sequences
    oneDNN takes a third less time, one head of one window after the other.

    Parameters
    ----------
    queries : torch.Tensor, shape (n, heads, queries, size)
    keys, values : torch.Tensor, shape (n, heads, tokens, size)
    bias : torch.Tensor, shape (heads, queries, tokens), optional
        Added to the scaled products.
    gate : torch.Tensor, shape (n, heads, queries, 1), optional
        Factor of `bias` for each query.

    Returns
    -------
    torch.Tensor, shape (n, queries, heads * size)
    """
    if min(queries.shape[2], keys.shape[2]) >= _FEWEST_TOKENS and onednn_computes(queries):
        return _head_by_head(queries, keys, values, bias, gate)
    mask = bias if bias is None or gate is None else gate * bias
    attended = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    return attended.transpose(1, 2).flatten(2)


def _head_by_head(
    queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None, gate: Tensor | None
) -> Tensor:
    n, heads, count, size = queries.shape
    # oneDNN is slow with weights, which keys and values are to it, that have gaps in memory.
    queries = (queries * size**-0.5).contiguous()
    keys, values = keys.contiguous(), values.transpose(2, 3).contiguous()
    attended = queries.new_empty(n, count, heads, size)
    product = torch.ops.mkldnn._linear_pointwise
    for window in range(n):
        for head in range(heads):
            place = window, head
            scores = product(queries[place], keys[place], None, "none", [], "")
            if bias is not None and gate is not None:
                scores.addcmul_(gate[place], bias[head])
            elif bias is not None:
                scores.add_(bias[head])
            shares = torch.softmax(scores, 1)
            attended[window, :, head] = product(shares, values[place], None, "none", [], "")
    return attended.flatten(2)
