"""RCL_FS_BSED: regularised contrastive pre-training for few-shot bioacoustic detection.

References
----------
Moummad et al. 2024, Regularized Contrastive Pre-training for Few-shot Bioacoustic Sound
Detection, arXiv 2309.08971; https://github.com/ilyassmoummad/RCL_FS_BSED
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bacpipe.models.backends.cpu.fusion import fuse, speed_up_convolutions
from bacpipe.models.backends.pytorch import TorchModel
from bacpipe.models.frontends import MelSpectrogram, mel_filterbank, power_to_db

_SLOPE = 0.1


class RclFsBsed(TorchModel):
    """Features of a small residual network, pooled over time."""

    def set_up(self) -> None:
        (path,) = self.paths
        network = RclNetwork()
        # lin.* projects embeddings into the space of the contrastive loss.
        self.fit(network, path, within="encoder", unused=("lin.*",))
        speed_up_convolutions(network)
        self._network = fuse(self.place(network), self.device)
        filters = mel_filterbank(sample_rate=22050, n_fft=512, n_mels=128, f_min=50, f_max=11025)
        self._mel = self.place(MelSpectrogram(filters, hop=128))

    def preprocess(self, audio: torch.Tensor) -> torch.Tensor:
        """Mel spectrogram in dB, float32, shape (n, 128, 35)."""
        return power_to_db(self._mel(audio))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Embeddings, float32, shape (n, 2048)."""
        embeddings: torch.Tensor = self._network(x.unsqueeze(1))
        return embeddings


class RclNetwork(nn.Module):
    """Three residual stages and an adaptive max-pooling to 8 frequency bands.

    The names of the layers are those of the authors' checkpoint.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(_ResidualBlock(1, 64, pool=(2, 2)))
        self.layer2 = nn.Sequential(_ResidualBlock(64, 128, pool=(2, 2)))
        self.layer3 = nn.Sequential(_ResidualBlock(128, 256, pool=(1, 2)))

    def forward(self, spectrogram: Tensor) -> Tensor:
        """Embed spectrograms.

        Parameters
        ----------
        spectrogram : torch.Tensor, float32, shape (n, 1, mels, frames)

        Returns
        -------
        torch.Tensor, float32, shape (n, 2048)
            256 channels × 8 bands, flattened in this order.
        """
        maps = self.layer3(self.layer2(self.layer1(spectrogram)))
        return F.adaptive_max_pool2d(maps, (8, 1)).flatten(1)


class _ResidualBlock(nn.Module):
    def __init__(self, channels_in: int, channels: int, *, pool: tuple[int, int]) -> None:
        super().__init__()
        # Each norm stands directly behind its convolution, so that it can be folded into it.
        self.conv1 = nn.Conv2d(channels_in, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.downsample = nn.Sequential(
            nn.Conv2d(channels_in, channels, 1, bias=False), nn.BatchNorm2d(channels)
        )
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(self.bn1(self.conv1(x)), _SLOPE)
        y = F.leaky_relu(self.bn2(self.conv2(y)), _SLOPE)
        y = self.bn3(self.conv3(y)) + self.downsample(x)
        return F.max_pool2d(F.leaky_relu(y, _SLOPE), self.pool)
