"""Mix2: a MobileNetV3 trained on frog and toad calls with mixed contrastive losses.

References
----------
Moummad et al. 2024, Mixture of Mixups for Multi-label Classification of Rare Anuran Sounds,
arXiv 2403.09598; https://github.com/ilyassmoummad/Mix2
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn
from torchvision.models import mobilenet_v3_large

from bacpipe.models.backends.pytorch import TorchModel, fit_weights, read_checkpoint
from bacpipe.models.card import ModelCard
from bacpipe.models.containers import state_dict_in
from bacpipe.models.convolutions import speed_up_convolutions

from bacpipe.models.frontends import MelSpectrogram, mel_filterbank, min_max, power_to_db


class Mix2(TorchModel):
    """Features of MobileNetV3-Large: mean over frequency, then maximum plus mean over time.

    Parameters
    ----------
    card : ModelCard
        Card of the model.
    files : mapping of str to Path
        The checkpoint under ``card.files[0]``.
    device : str
        Where it computes.

    Raises
    ------
    CheckpointError
        If the checkpoint is damaged or does not fit.
    """

    def __init__(self, *, card: ModelCard, files: Mapping[str, Path], device: str) -> None:
        super().__init__(card=card, files=files, device=device)
        path = self.files[card.files[0]]
        network = nn.ModuleDict({"features": _features()})
        state = state_dict_in(read_checkpoint(path), "encoder", model=card.name, path=path)
        # Some copies keep the classifier of the pre-training; embeddings do not need it.
        fit_weights(network, state, model=card.name, path=path, unused=("classifier.*",))
        speed_up_convolutions(network)
        self._features = self.place(network["features"])
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


def _features() -> nn.Module:
    features: nn.Sequential = mobilenet_v3_large(weights=None).features
    rgb = features[0][0]
    features[0][0] = nn.Conv2d(
        1, rgb.out_channels, rgb.kernel_size, rgb.stride, rgb.padding, bias=False
    )
    return features
