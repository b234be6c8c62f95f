"""The audio encoder of transformers' CLAP, the same but with fewer passes over memory."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from transformers import ClapAudioModelWithProjection
from transformers.models.clap.modeling_clap import ClapAudioLayer, ClapAudioSelfAttention

from bacpipe.models.backends.packed import PackedLinear, pack_linears


class _Attention(nn.Module):
    """Attention inside of local windows, with their position bias looked up once."""

    position_bias: Tensor

    def __init__(self, attention: ClapAudioSelfAttention) -> None:
        super().__init__()
        self.heads = attention.num_attention_heads
        self.query, self.key, self.value = attention.query, attention.key, attention.value
        table, index = attention.relative_position_bias_table, attention.relative_position_index
        bias = table.detach()[index].permute(2, 0, 1).contiguous()
        self.register_buffer("position_bias", bias)

    def forward(
        self, tokens: Tensor, mask: Tensor | None = None, output_attentions: bool | None = False
    ) -> tuple[Tensor]:
        """Attend: (n * local windows, tokens, width), mask (local windows, tokens, tokens)."""
        queries, keys, values = (
            projection(tokens).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for projection in (self.query, self.key, self.value)
        )
        bias = self.position_bias
        if mask is not None:
            several = len(tokens) // len(mask), *mask.shape[:1], *bias.shape
            bias = (bias + mask.unsqueeze(1)).expand(several).flatten(0, 1)
        attended = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=bias)
        return (attended.transpose(1, 2).flatten(2),)


def fuse_clap(network: ClapAudioModelWithProjection) -> None:
    """Replace the slow parts of the audio encoder, in place, once its weights are loaded.

    Parameters
    ----------
    network : transformers.ClapAudioModelWithProjection
        In evaluation it will compute the same, up to rounding; it gives no attentions.
    """
    for layer in network.modules():
        if isinstance(layer, ClapAudioLayer):
            inner: Any = layer.intermediate
            attention: Any = layer.attention
            attention.self = _Attention(attention.self)
            if network.config.hidden_act == "gelu":
                inner.dense = PackedLinear(inner.dense, gelu=True)
                inner.intermediate_act_fn = nn.Identity()
    pack_linears(network)
