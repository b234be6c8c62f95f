"""PaSST, the patchout spectrogram transformer, as it computes in evaluation.

References
----------
Koutini et al. 2021, Efficient Training of Audio Transformers with Patchout, arXiv 2110.05069;
https://github.com/kkoutini/PaSST
"""

from __future__ import annotations

import torch
from timm.layers.norm import LayerNorm
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from bacpipe.models.networks.vit import fuse_blocks


class Passt(nn.Module):
    """Transformer over overlapping patches of a spectrogram, with two summary tokens.

    Frequency and time have position embeddings of their own, so that a shorter spectrogram uses
    the first columns of the embedding in time.

    Parameters
    ----------
    positions : (int, int)
        Rows (frequency) and columns (time) of the position embeddings in patches.
    n_classes : int
        Outputs of `classify`.
    width, depth, heads : int
        Size of the transformer.
    patch, stride : int
        Side of the square patches and step between them, in spectrogram cells.
    """

    def __init__(
        self,
        *,
        positions: tuple[int, int],
        n_classes: int,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        patch: int = 16,
        stride: int = 10,
    ) -> None:
        super().__init__()
        rows, columns = positions
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.dist_token = nn.Parameter(torch.zeros(1, 1, width))
        self.new_pos_embed = nn.Parameter(torch.zeros(1, 2, width))
        self.freq_new_pos_embed = nn.Parameter(torch.zeros(1, width, rows, 1))
        self.time_new_pos_embed = nn.Parameter(torch.zeros(1, width, 1, columns))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(1, width, patch, stride)})
        self.blocks = nn.Sequential(
            *(Block(width, heads, qkv_bias=True, norm_layer=LayerNorm) for _ in range(depth))
        )
        self.norm = LayerNorm(width)
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, n_classes))

    def forward(self, spectrogram: Tensor) -> Tensor:
        """Mean of the two summary tokens.

        Parameters
        ----------
        spectrogram : torch.Tensor, float32, shape (n, mels, frames)

        Returns
        -------
        torch.Tensor, float32, shape (n, width)
        """
        patches = self.patch_embed["proj"](spectrogram.unsqueeze(1))
        position = self.freq_new_pos_embed + self.time_new_pos_embed[..., : patches.shape[3]]
        patches = (patches + position).flatten(2).transpose(1, 2)
        summary = torch.cat([self.cls_token, self.dist_token], dim=1) + self.new_pos_embed
        tokens = torch.cat([summary.expand(len(patches), -1, -1), patches], dim=1)
        # The norm is per token.
        tokens = self.norm(self.blocks(tokens)[:, :2])
        return tokens.mean(dim=1)

    def fuse(self) -> None:
        """Make the blocks faster, once the weights are loaded; they change their names."""
        # Only the summary tokens go on.
        self.blocks = fuse_blocks(self.blocks, keep=2)

    def classify(self, embeddings: Tensor) -> Tensor:
        """Logits of embeddings: (n, width) to (n, n_classes)."""
        logits: Tensor = self.head(embeddings)
        return logits
