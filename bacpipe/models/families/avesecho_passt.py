"""AvesEcho v1 with PaSST: a classifier of European birds.

References
----------
Ghani et al. 2024, Impact of transfer learning methods and dataset characteristics on
generalization in birdsong classification, arXiv 2409.15383;
https://gitlab.com/arise-biodiversity/DSI/algorithms/avesecho-v1.
Koutini et al. 2021, Efficient Training of Audio Transformers with Patchout, arXiv 2110.05069;
https://github.com/kkoutini/PaSST
"""

from __future__ import annotations

from typing import Any

import torch
from timm.layers.norm import LayerNorm
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F
from torchaudio.compliance.kaldi import get_mel_banks

from bacpipe.models.backends.cpu.fusion import fuse_linears
from bacpipe.models.backends.pytorch import TorchModel, build_empty
from bacpipe.models.frontends import MelSpectrogram

_N_FFT, _FRAME, _HOP = 1024, 800, 320
_N_MELS, _HIGHEST_HZ = 128, 15500.0
_PREEMPHASIS = 0.97
_COLUMNS_IN_TIME = 99


class AvesEchoPasst(TorchModel):
    """PaSST fine-tuned to 585 European bird species, on windows of three seconds.

    The embedding is the mean of the two summary tokens; the classifier is a head on top of it,
    so class scores can be had from stored embeddings.

    The checkpoint holds no class names: they are those of the authors' ``list_AvesEcho.csv``.
    """

    def set_up(self) -> None:
        (path,) = self.paths
        n_classes = self.card.n_classes or 0
        network = build_empty(lambda: Passt(positions=(12, _COLUMNS_IN_TIME), n_classes=n_classes))
        self.fit(
            network,
            path,
            rename=lambda key: key.removeprefix("net."),
            # The distillation head is trained along, but gives no scores.
            unused=("device_proxy", "net.head_dist.*"),
        )
        fuse_linears(network)
        self._network = self.place(network)
        self._mel = self.place(MelSpectrogram(_kaldi_filters(self.sr), hop=_HOP, window=_taper()))
        self.name_classes(n_classes)

    def preprocess(self, audio: Tensor) -> Tensor:
        """Log-mel spectrogram of the pre-emphasised waveform, float32, shape (n, 128, 300)."""
        emphasised = audio[:, 1:] - _PREEMPHASIS * audio[:, :-1]
        mel: Tensor = self._mel(emphasised)
        return mel.add_(1e-5).log_().add_(4.5).div_(5.0)

    def __call__(self, x: Tensor) -> Tensor:
        """Embeddings, float32, shape (n, 768)."""
        embeddings: Tensor = self._network(x)
        return embeddings

    def classifier_predictions(self, embeddings: Tensor) -> Tensor:
        """Class scores, float32, shape (n, 585)."""
        return self._network.classify(embeddings).sigmoid()


def _kaldi_filters(sample_rate: int) -> Tensor:
    filters, _ = get_mel_banks(
        _N_MELS, _N_FFT, float(sample_rate), 0.0, _HIGHEST_HZ, 100.0, -500.0, 1.0
    )
    # Kaldi leaves out the bin at the Nyquist frequency.
    return nn.functional.pad(filters.T, (0, 0, 0, 1))


def _taper() -> Tensor:
    margin = (_N_FFT - _FRAME) // 2
    return nn.functional.pad(torch.hann_window(_FRAME, periodic=False), (margin, margin))


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
        *blocks, last = self.blocks
        for block in blocks:
            tokens = block(tokens)
        # The norm is per token.
        normed: Tensor = self.norm(_summary_tokens(last, tokens))
        return normed.mean(dim=1)

    def classify(self, embeddings: Tensor) -> Tensor:
        """Logits of embeddings: (n, width) to (n, n_classes)."""
        logits: Tensor = self.head(embeddings)
        return logits


def _summary_tokens(block: Any, tokens: Tensor, count: int = 2) -> Tensor:
    """The first tokens of what a block of timm makes; the others are not computed."""
    attention, first = block.attn, tokens[:, :count]
    qkv = attention.qkv(block.norm1(tokens)).unflatten(2, (3, attention.num_heads, -1))
    queries, keys, values = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    attended = F.scaled_dot_product_attention(queries[:, :, :count], keys, values)
    first = first + attention.proj(attended.transpose(1, 2).flatten(2))
    summary: Tensor = first + block.mlp(block.norm2(first))
    return summary
