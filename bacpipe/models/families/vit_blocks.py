"""Blocks of timm's vision transformers, the same but with fewer passes over memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from timm.models.vision_transformer import Block
from torch import Tensor, nn

from bacpipe.models.backends.cpu.linear import PackedLinear, attend


class FusedBlock(nn.Module):
    """A pre-norm transformer block that computes what timm's plain one does in evaluation.

    Parameters
    ----------
    block : timm.models.vision_transformer.Block
        Gives its weights.  Without layer scale, norms of queries and keys, gates.
    keep : int, optional
        How many tokens, the first ones, the result has; by default all.  The others are not
        computed.
    """

    def __init__(self, block: Block, *, keep: int | None = None) -> None:
        super().__init__()
        attention: Any = block.attn
        mlp: Any = block.mlp
        self.heads, self.keep = attention.num_heads, keep
        self.norm1, self.norm2 = block.norm1, block.norm2
        self.qkv, self.proj = PackedLinear(attention.qkv), PackedLinear(attention.proj)
        self.fc1, self.fc2 = PackedLinear(mlp.fc1, gelu=True), PackedLinear(mlp.fc2)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens of the next layer: (n, tokens, width) to (n, tokens or keep, width)."""
        qkv = self.qkv(self.norm1(tokens)).unflatten(2, (3, self.heads, -1))
        queries, keys, values = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        if self.keep is not None:
            queries, tokens = queries[:, :, : self.keep], tokens[:, : self.keep]
        tokens = self.proj(attend(queries, keys, values), tokens)
        fused: Tensor = self.fc2(self.fc1(self.norm2(tokens)), tokens)
        return fused


def fuse_blocks(blocks: Iterable[Any], *, keep: int | None = None) -> nn.Sequential:
    """Blocks of a vision transformer as `FusedBlock`.

    Parameters
    ----------
    blocks : iterable of timm.models.vision_transformer.Block
        With their final weights.
    keep : int, optional
        How many of the last block's tokens, the first ones, are needed.
    """
    *others, last = blocks
    return nn.Sequential(*map(FusedBlock, others), FusedBlock(last, keep=keep))
