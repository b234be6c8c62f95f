"""Mix2: a MobileNetV3 trained on frog and toad calls with mixed contrastive losses.

References
----------
Moummad et al. 2024, Mixture of Mixups for Multi-label Classification of Rare Anuran Sounds,
arXiv 2403.09598; https://github.com/ilyassmoummad/Mix2
"""

from __future__ import annotations

import torch
from torch import nn
from torchvision.models import mobilenet_v3_large

from bacpipe.models.backends.cpu.fusion import fuse, speed_up_convolutions
from bacpipe.models.backends.pytorch import TorchModel
from bacpipe.models.frontends import MelSpectrogram, mel_filterbank, min_max, power_to_db


class Mix2(TorchModel):
    """Features of MobileNetV3-Large: mean over frequency, then maximum plus mean over time."""

    def set_up(self) -> None:
        (path,) = self.paths
        features = _features()
        network = nn.ModuleDict({"features": features})
        # The authors' network carries a linear classifier when they train it for one.
        self.fit(network, path, within="encoder", unused=("classifier.*",))
        speed_up_convolutions(network)
        self._features = fuse(self.place(features), self.device)
        self._mel = self.place(
            MelSpectrogram(mel_filterbank(sample_rate=16000, n_fft=512, n_mels=128), hop=128)
        )

    def preprocess(self, audio: torch.Tensor) -> torch.Tensor:
        """Mel spectrogram in dB, scaled to 0 … 1 per window, float32, (n, 1, 128, 376)."""
        return min_max(power_to_db(self._mel(audio))).unsqueeze(1)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Embeddings, float32, shape (n, 960)."""
        frames: torch.Tensor = self._features(x).mean(dim=2)
        return frames.amax(dim=2) + frames.mean(dim=2)


def _features() -> nn.Sequential:
    features: nn.Sequential = mobilenet_v3_large(weights=None).features
    # The first convolution sees one channel instead of three.
    stem = nn.Conv2d(1, 16, kernel_size=3, stride=2, padding=1, bias=False)
    features[0] = nn.Sequential(stem, *list(features[0].children())[1:])
    return features
