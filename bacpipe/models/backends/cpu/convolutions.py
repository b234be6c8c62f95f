"""Convolution, activation and residual sum in one pass over the memory, by oneDNN on a CPU.

PyTorch computes them one after the other, and each reads and writes whole feature maps.  oneDNN
does the second and third while the results of the first are still in registers, and takes
weights in the order that suits the processor.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from bacpipe.models.backends.cpu.linear import onednn_computes


class Activation(NamedTuple):
    """An activation, as PyTorch and as oneDNN know it."""

    function: Callable[[Tensor], Tensor]
    name: str
    scalars: tuple[float, ...] = ()


_NONE = Activation(lambda x: x, "none")
_MODULES: dict[type[nn.Module], Activation] = {
    nn.ReLU: Activation(F.relu, "relu"),
    nn.SiLU: Activation(F.silu, "swish"),
    nn.Sigmoid: Activation(torch.sigmoid, "sigmoid"),
    nn.Hardswish: Activation(F.hardswish, "hardswish"),
    nn.Hardsigmoid: Activation(F.hardsigmoid, "hardsigmoid"),
}
_FUNCTIONS: dict[Any, Activation] = {F.relu: _MODULES[nn.ReLU], F.silu: _MODULES[nn.SiLU]}
_SUMS = (operator.add, operator.iadd, torch.add)
_AFTER_SUMS = ("relu",)


class FusedConv2d(nn.Conv2d):
    """Convolution, sum with feature maps of the same shape, and activation.

    Elsewhere than on a CPU, and under autocast, PyTorch's own operators give the same.

    Parameters
    ----------
    layer : nn.Conv2d
        Whose weights and padding are taken; also the one of timm that pads like TensorFlow.
    """

    def __init__(self, layer: nn.Conv2d) -> None:
        # On the meta device nothing is allocated for weights that are replaced at once.
        super().__init__(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,  # type: ignore[arg-type]
            layer.stride,  # type: ignore[arg-type]
            layer.padding,  # type: ignore[arg-type]
            layer.dilation,  # type: ignore[arg-type]
            layer.groups,
            bias=layer.bias is not None,
            device="meta",
        )
        self.weight, self.bias = layer.weight, layer.bias
        assert not isinstance(layer.padding, str) and layer.padding_mode == "zeros"
        self._margins = tuple(layer.padding)
        self.same = _pads_like_tensorflow(layer)
        self.activation = _NONE
        self._packed: Tensor | None = None
        self.train(layer.training)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Map (n, c, h, w) to (n, d, h', w'); a `residual` of the latter shape is added."""
        if self.same:
            x = self._pad(x)
        if not onednn_computes(x) or not x.numel():
            return self._plain(x, residual)
        if residual is not None and residual.shape != self._shape(x):
            return self._plain(x, residual)
        x = x.contiguous(memory_format=torch.channels_last)
        how = (self._margins, self.stride, self.dilation, self.groups)
        if self._packed is None:
            # Threads that come here at once make the same.
            pack = torch.ops.mkldnn._reorder_convolution_weight
            self._packed = pack(self.weight, *how, list(x.shape))
        weights = (self._packed, self.bias, *how)
        _, name, scalars = self.activation
        fused = torch.ops.mkldnn._convolution_pointwise
        y: Tensor
        if residual is None:
            y = fused(x, *weights, name, list(scalars), "")
        else:
            last = None if name == "none" else name
            y = fused.binary(x, residual, *weights, "add", 1.0, last, list(scalars), None)
        return y

    def _pad(self, x: Tensor) -> Tensor:
        """Pad so that there are as many results as steps begin in the input."""
        margins: list[int] = []
        sizes = zip(x.shape[2:], self.kernel_size, self.stride, self.dilation, strict=True)
        for n, k, s, d in sizes:
            missing = max(0, (-(-n // s) - 1) * s + d * (k - 1) + 1 - n)
            margins = [missing // 2, missing - missing // 2, *margins]
        return F.pad(x, margins)

    def _plain(self, x: Tensor, residual: Tensor | None) -> Tensor:
        y = super().forward(x)
        return self.activation.function(y if residual is None else y + residual)

    def _shape(self, x: Tensor) -> tuple[int, ...]:
        sizes = zip(
            x.shape[2:], self.kernel_size, self.stride, self._margins, self.dilation, strict=True
        )
        return (
            len(x),
            self.out_channels,
            *((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sizes),
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        self._packed = None
        module: nn.Module = super()._apply(fn, recurse)
        return module

    def __getstate__(self) -> dict[str, Any]:
        # Packed weights can neither be copied nor pickled.
        return {**self.__dict__, "_packed": None}


def fuse(network: nn.Module, device: str) -> nn.Module:
    """Let oneDNN compute convolutions together with what follows them.

    Parameters
    ----------
    network : nn.Module
        In evaluation, with its final weights and batch norms folded away; torch.fx must be able
        to follow its `forward`.
    device : str
        Where it will compute.

    Returns
    -------
    nn.Module
        A network that computes the same from the same parameters; on other devices than a CPU,
        or without oneDNN, the one that was given.
    """
    if device != "cpu" or not onednn_computes(torch.empty(0)):
        return network
    graph = _Tracer().trace(network)
    fused = fx.GraphModule(network, graph)
    for node in list(graph.nodes):
        if _does_nothing(fused, node):
            node.replace_all_uses_with(node.all_input_nodes[0])
            graph.erase_node(node)
    for node in list(graph.nodes):
        layer = _fusible(fused, node)
        if layer is not None:
            _replace(fused, node, layer)
    graph.eliminate_dead_code()
    graph.lint()
    fused.delete_all_unused_submodules()
    fused.recompile()
    return fused


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether to call a module rather than to look into it."""
        kinds = nn.Conv2d | nn.MaxPool2d
        return isinstance(m, kinds) or super().is_leaf_module(m, module_qualified_name)


def _does_nothing(network: fx.GraphModule, node: fx.Node) -> bool:
    kinds = (nn.Identity, nn.Dropout)
    return node.op == "call_module" and type(network.get_submodule(str(node.target))) in kinds


def _fusible(network: fx.GraphModule, node: fx.Node) -> nn.Conv2d | None:
    """The convolution that a node calls, if it is one of these kinds and called nowhere else."""
    same = [other for other in network.graph.nodes if other.target == node.target]
    if node.op != "call_module" or len(same) > 1:
        return None
    layer = network.get_submodule(str(node.target))
    if not isinstance(layer, nn.Conv2d):
        return None
    if type(layer) is not nn.Conv2d and not _pads_like_tensorflow(layer):
        return None
    return layer if layer.padding_mode == "zeros" and not isinstance(layer.padding, str) else None


def _pads_like_tensorflow(layer: nn.Conv2d) -> bool:
    """Whether this is timm's convolution with the padding "same" (half a second to import)."""
    kind = type(layer)
    return (kind.__module__, kind.__name__) == ("timm.layers.conv2d_same", "Conv2dSame")


def _replace(network: fx.GraphModule, node: fx.Node, layer: nn.Conv2d) -> None:
    """Put a fused layer in the place of a convolution and of what follows it."""
    fused = FusedConv2d(layer)
    network.set_submodule(str(node.target), fused)
    behind = _only_user(node)
    other = None if behind is None else _other_summand(behind, node)
    if behind is not None and other is not None:
        node.args = (node.args[0], other)
        # What is added may be computed after the convolution; this comes later than both.
        behind.prepend(node)
        behind.replace_all_uses_with(node)
        network.graph.erase_node(behind)
        behind = _only_user(node)
    if behind is None:
        return
    activation = _activation(network, behind)
    if activation is None or (other is not None and activation.name not in _AFTER_SUMS):
        return
    fused.activation = activation
    behind.replace_all_uses_with(node)
    network.graph.erase_node(behind)


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _activation(network: fx.GraphModule, node: fx.Node) -> Activation | None:
    if node.op == "call_module":
        layer = network.get_submodule(str(node.target))
        if type(layer) is nn.LeakyReLU:
            return _leaky(layer.negative_slope)
        return _MODULES.get(type(layer))
    if node.op == "call_function" and node.target is F.leaky_relu:
        slope = node.args[1] if len(node.args) > 1 else node.kwargs.get("negative_slope", 0.01)
        return _leaky(slope) if isinstance(slope, float) else None
    return _FUNCTIONS.get(node.target) if node.op == "call_function" else None


def _leaky(slope: float) -> Activation:
    return Activation(lambda x: F.leaky_relu(x, slope), "leaky_relu", (slope,))


def _other_summand(user: fx.Node, node: fx.Node) -> fx.Node | None:
    """What is added to a node and nothing else, if this is a sum of two feature maps."""
    if user.op != "call_function" or user.target not in _SUMS or user.kwargs:
        return None
    others = [part for part in user.args if part is not node]
    if len(user.args) != 2 or len(others) != 1 or not isinstance(others[0], fx.Node):
        return None
    return others[0]


# FOLDED bacpipe/models/convolutions.py: Convolutional networks made faster for inference, with the same results up to rounding.


def speed_up_convolutions(network: nn.Module) -> None:
    """Fold batch norms into the convolutions before them and store channels last, in place.

    In evaluation a batch norm is a fixed scale and shift per channel, which the convolution can
    do on the way.  "Before" means the child before it in the order of construction, which is the
    order of use in the networks that we build.

    Parameters
    ----------
    network : nn.Module
        With its final weights; switched to evaluation.
    """
    network.eval()
    for parent in network.modules():
        for (name, convolution), (norm_name, norm) in pairwise(list(parent.named_children())):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(parent, name, fuse_conv_bn_eval(convolution, norm))
                # timm's norms carry the activation with them.
                setattr(parent, norm_name, getattr(norm, "act", nn.Identity()))
    network.to(memory_format=torch.channels_last)
