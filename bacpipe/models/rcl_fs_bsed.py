"""RCL_FS_BSED: regularised contrastive pre-training for few-shot bioacoustic detection.

References
----------
Moummad et al. 2024, Regularized Contrastive Pre-training for Few-shot Bioacoustic Sound
Detection, arXiv 2309.08971; https://github.com/ilyassmoummad/RCL_FS_BSED
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from bacpipe.models.backends.fusion import fuse
from bacpipe.models.backends.pytorch import TorchModel, fit_weights, read_checkpoint
from bacpipe.models.card import ModelCard
from bacpipe.models.containers import state_dict_in
from bacpipe.models.convolutions import speed_up_convolutions
from bacpipe.models.frontends import MelSpectrogram, mel_filterbank, power_to_db
from bacpipe.models.networks.rcl import RclNetwork


class RclFsBsed(TorchModel):
    """Features of a small residual network, pooled over time.

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
        network = RclNetwork()
        state = state_dict_in(read_checkpoint(path), "encoder", model=card.name, path=path)
        # lin.* projects embeddings into the space of the contrastive loss.
        fit_weights(network, state, model=card.name, path=path, unused=("lin.*",))
        speed_up_convolutions(network)
        self._network = fuse(self.place(network), device)
        filters = mel_filterbank(sample_rate=22050, n_fft=512, n_mels=128, f_min=50, f_max=11025)
        self._mel = self.place(MelSpectrogram(filters, hop=128))

    def preprocess(self, audio: torch.Tensor) -> torch.Tensor:
        """Mel spectrogram in dB, float32, shape (n, 128, 35)."""
        return power_to_db(self._mel(audio))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Embeddings, float32, shape (n, 2048)."""
        embeddings: torch.Tensor = self._network(x.unsqueeze(1))
        return embeddings
