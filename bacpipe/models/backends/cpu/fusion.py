"""Networks rearranged for inference, with the same results up to rounding."""

from __future__ import annotations

import operator
from itertools import pairwise
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from bacpipe.models.backends.cpu.layers import (
    Activation,
    FusedConv2d,
    FusedLinear,
    onednn_computes,
    pads_like_tensorflow,
)

_MODULES = {
    nn.ReLU: Activation("relu"),
    nn.SiLU: Activation("swish"),
    nn.Sigmoid: Activation("sigmoid"),
    nn.Hardswish: Activation("hardswish"),
    nn.Hardsigmoid: Activation("hardsigmoid"),
}
_FUNCTIONS: dict[Any, Activation] = {F.relu: _MODULES[nn.ReLU], F.silu: _MODULES[nn.SiLU]}
_SUMS = (operator.add, operator.iadd, torch.add)
_AFTER_SUMS = ("relu",)


def scale_outputs(layer: nn.Linear, factor: torch.Tensor | float) -> nn.Linear:
    """Multiply the results of a linear layer by a factor, or by one for each, in its weights."""
    factor = torch.as_tensor(factor)
    with torch.no_grad():
        layer.weight.mul_(factor.unsqueeze(-1))
        if layer.bias is not None:
            layer.bias.mul_(factor)
    return layer


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


def fuse_linears(network: nn.Module) -> None:
    """Make every plain ``nn.Linear`` of a network a `FusedLinear`, in place.

    Intel's library, which PyTorch multiplies with, is slower than oneDNN on other processors.  The
    weights in oneDNN's order take as much memory again, once the network computes on a CPU.

    Parameters
    ----------
    network : nn.Module
        Subclasses of ``nn.Linear`` in it stay as they are.
    """
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Linear:
                setattr(parent, name, FusedLinear(child))


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
    for node in graph.nodes:
        node.type = None  # the text of an annotation, which PyTorch 2.8 cannot pickle
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
    if type(layer) is not nn.Conv2d and not pads_like_tensorflow(layer):
        return None
    return layer if layer.padding_mode == "zeros" and not isinstance(layer.padding, str) else None


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
    return Activation("leaky_relu", (slope,))


def _other_summand(user: fx.Node, node: fx.Node) -> fx.Node | None:
    """What is added to a node and nothing else, if this is a sum of two feature maps."""
    if user.op != "call_function" or user.target not in _SUMS or user.kwargs:
        return None
    others = [part for part in user.args if part is not node]
    if len(user.args) != 2 or len(others) != 1 or not isinstance(others[0], fx.Node):
        return None
    return others[0]
