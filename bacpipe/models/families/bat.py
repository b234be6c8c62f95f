"""BAT: a transformer that tells the bats of Germany apart by their calls.

References
----------
Fundel et al. 2023, Automatic bat call classification using transformer networks,
arXiv 2309.11218; https://github.com/FrankFundel/BAT
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import signal
from torch import Tensor, nn
from torch.nn import functional as F

from bacpipe.models.backends.cpu.fusion import fuse, speed_up_convolutions
from bacpipe.models.backends.cpu.layers import onednn_computes
from bacpipe.models.backends.pytorch import TorchModel
from bacpipe.models.frontends import PowerSpectrogram, exact_dtype, in_groups, power_to_db

_N_FFT = 512
_HOP = 128
_TILES = 60
_TILE_FRAMES = 44
_TILE_STEP = 22

# Sizes of the network, as in the authors' repository.
WIDTH = 64
_HEADS = 2
_HEAD_WIDTH = 16
_HIDDEN = 32
_LAYERS = 2
# Tiles that a CPU takes through the conv net together: their maps stay in its caches.
_CPU_TILES = 30


class Bat(TorchModel):
    """Class token of the transformer, and one sigmoid score per species on it."""

    def set_up(self) -> None:
        (path,) = self.paths
        species = [name for name, *_ in self.card.known_classes]
        network = BatNetwork(tiles=_TILES, n_classes=len(species))
        self.fit(network, path)
        speed_up_convolutions(network)
        self.place(network)
        network.set_submodule("to_patch_embedding", fuse(network.to_patch_embedding, self.device))
        self._network = network
        self.classes = self.scientific_names = species
        # The authors filter and transform in double precision, and their measure, how far a
        # value is from its mean in dB, shows rounding in the quiet bands that the filter leaves.
        dtype = exact_dtype(self.device)
        self._high_pass = self.place(_HighPass(dtype=dtype))
        self._power = self.place(
            PowerSpectrogram(n_fft=_N_FFT, hop=_HOP, pad_mode="constant", dtype=dtype)
        )

    def preprocess(self, audio: torch.Tensor) -> torch.Tensor:
        """Tiles of the denoised spectrogram.

        Returns
        -------
        torch.Tensor, float32, shape (n, 2640, 257)
            60 tiles of 44 frames, each overlapping the next by half, one after the other.
        """
        return in_groups(self._tiles, audio, frames=_TILES * _TILE_STEP)

    def _tiles(self, audio: torch.Tensor) -> torch.Tensor:
        db = power_to_db(self._power(self._high_pass(audio)).float(), top_db=80.0)
        denoised = (db - db.mean(dim=2, keepdim=True)).abs_().transpose(1, 2)
        tiles = denoised.unfold(1, _TILE_FRAMES, _TILE_STEP)[:, :_TILES]
        return tiles.transpose(2, 3).flatten(1, 2)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Embeddings, float32, shape (n, 64)."""
        embeddings: torch.Tensor = self._network(x.unflatten(1, (_TILES, _TILE_FRAMES)))
        return embeddings

    def classifier_predictions(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Sigmoid scores, float32, shape (n, 18)."""
        scores: torch.Tensor = self._network.classifier(embeddings).sigmoid()
        return scores


class _HighPass(torch.nn.Module):
    """The authors' Butterworth filter of order 10, as a convolution.

    A recursive filter walks through the samples one by one.  This one's impulse response falls
    below 1e-12 within 512 samples, so that a convolution with it gives the same for a whole
    batch at once; it is computed by short Fourier transforms of overlapping blocks.
    """

    _TAPS = 512
    _BLOCK = 4096

    transfer: torch.Tensor

    def __init__(self, *, dtype: torch.dtype) -> None:
        super().__init__()
        # 15 kHz at the 240 kHz of the authors' recordings; at ours, 13.8 kHz.
        numerator, denominator = signal.butter(10, 15000 / 120000, "highpass")
        impulse = np.zeros(self._TAPS)
        impulse[0] = 1.0
        response = signal.lfilter(numerator, denominator, impulse)
        transfer = torch.from_numpy(np.fft.rfft(response, self._BLOCK))
        self.register_buffer("transfer", transfer.to(dtype.to_complex()), persistent=False)

    def forward(self, audio: torch.Tensor) -> torch.Tensor:
        """Filter windows of shape (n, samples), in the precision of the constructor."""
        samples = audio.shape[1]
        # The first outputs of a block lack the samples before it.
        lost = self._TAPS - 1
        step = self._BLOCK - lost
        padded = F.pad(audio.to(self.transfer.real.dtype), (lost, -samples % step))
        spectra = torch.fft.rfft(padded.unfold(1, self._BLOCK, step)) * self.transfer
        return torch.fft.irfft(spectra, self._BLOCK)[..., lost:].flatten(1)[:, :samples]


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
