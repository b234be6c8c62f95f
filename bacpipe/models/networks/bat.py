"""Bio Acoustic Transformer: a small conv net on tiles, and a transformer over the tiles.

Written from Fundel et al. 2023, Automatic bat call classification using transformer networks,
arXiv 2309.11218, and the sizes in https://github.com/FrankFundel/BAT.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bacpipe.models.backends.packed import onednn_computes

WIDTH = 64
_HEADS = 2
_HEAD_WIDTH = 16
_HIDDEN = 32
_LAYERS = 2
# Tiles that a CPU takes through the conv net together: their maps stay in its caches.
_CPU_TILES = 30


class BatNetwork(nn.Module):
    """Class token of a transformer over spectrogram tiles, and a linear classifier on it.

    The names of the layers are those of the authors' checkpoint.

    Parameters
    ----------
    tiles : int
        Tiles per window.
    n_classes : int
        Outputs of the classifier.
    """

    def __init__(self, *, tiles: int, n_classes: int) -> None:
        super().__init__()
        self.to_patch_embedding = nn.Sequential(
            *_convolution(1, 16, kernel=(5, 7), stride=(2, 3), padding=3, pool=3),
            *_convolution(16, 32, kernel=(3, 5), stride=(2, 3), padding=1, pool=5),
            *_convolution(32, WIDTH, kernel=(3, 5), stride=(1, 2), padding=1, pool=3),
        )
        self.cls_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.pos_encoder = nn.Parameter(torch.zeros(1, tiles + 1, WIDTH))
        self.transformer_encoder = _Transformer()
        self.classifier = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, n_classes))

    def forward(self, tiles: Tensor) -> Tensor:
        """Embed windows.

        Parameters
        ----------
        tiles : torch.Tensor, float32, shape (n, tiles, frames, frequencies)
            44 frames and 257 frequencies, which the conv net shrinks to a single point.

        Returns
        -------
        torch.Tensor, float32, shape (n, 64)
            What the classifier takes.
        """
        n, count = tiles.shape[:2]
        images = tiles.flatten(0, 1).unsqueeze(1)
        parts = images.split(_CPU_TILES if tiles.device.type == "cpu" else max(1, len(images)))
        tokens = torch.cat([self.to_patch_embedding(part) for part in parts])
        tokens = tokens.reshape(n, count, WIDTH)
        x = torch.cat([self.cls_token.expand(n, -1, -1), tokens], dim=1) + self.pos_encoder
        embedded: Tensor = self.transformer_encoder(x)[:, 0]
        return embedded


def _convolution(
    channels_in: int,
    channels: int,
    *,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: int,
    pool: int,
) -> list[nn.Module]:
    return [
        nn.Conv2d(channels_in, channels, kernel, stride, padding),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        _MaxPool(pool, stride=2, padding=1),
    ]


class _MaxPool(nn.MaxPool2d):
    """Maximum of 3 × 3 points on a CPU in a quarter of the time: PyTorch's notes their places."""

    def forward(self, x: Tensor) -> Tensor:
        if self.kernel_size != 3 or not onednn_computes(x):
            return super().forward(x)
        return _largest_of_three(_largest_of_three(x, 2), 3)


def _largest_of_three(x: Tensor, axis: int) -> Tensor:
    """Maxima along an axis around every second point, as far as there are neighbours."""
    x = x.transpose(0, axis)
    largest, odd = x[::2].clone(), x[1::2]
    with_next, with_last = largest[: len(odd)], largest[1:]
    torch.maximum(with_next, odd, out=with_next)
    torch.maximum(with_last, odd[: len(with_last)], out=with_last)
    return largest.transpose(0, axis)


class _Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(_PreNorm(_Attention()), _PreNorm(_FeedForward())) for _ in range(_LAYERS)
        )

    def forward(self, x: Tensor) -> Tensor:
        for block in self.layers:
            for step in block.children():
                x = x + step(x)
        return x


class _PreNorm(nn.Module):
    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fn(self.norm(x))
        return y


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        inner = _HEADS * _HEAD_WIDTH
        self.to_qkv = nn.Linear(WIDTH, 3 * inner, bias=False)
        # A container, because the checkpoint's names count the dropout behind the layer.
        self.to_out = nn.Sequential(nn.Linear(inner, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            self.to_qkv(x).unflatten(-1, (3, _HEADS, _HEAD_WIDTH)).permute(2, 0, 3, 1, 4)
        )
        heads = F.scaled_dot_product_attention(query, key, value)
        y: Tensor = self.to_out(heads.transpose(1, 2).flatten(2))
        return y


class _FeedForward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(WIDTH, _HIDDEN), nn.GELU(), nn.Identity(), nn.Linear(_HIDDEN, WIDTH)
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.net(x)
        return y
