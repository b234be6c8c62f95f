"""BAT: a transformer that tells the bats of Germany apart by their calls.

References
----------
Fundel et al. 2023, Automatic bat call classification using transformer networks,
arXiv 2309.11218; https://github.com/FrankFundel/BAT
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from scipy import signal
from torch.nn import functional as F

from bacpipe.models.backends.fusion import fuse
from bacpipe.models.backends.pytorch import TorchModel, fit_weights, read_checkpoint
from bacpipe.models.card import ModelCard
from bacpipe.models.convolutions import speed_up_convolutions
from bacpipe.models.frontends import PowerSpectrogram, exact_dtype, in_groups, power_to_db
from bacpipe.models.networks.bat import BatNetwork

# `germanBats` in datasets/prepare_sequences.py of the authors' repository, in its order; their
# script predict.py reads the outputs of this checkpoint with it.
_SPECIES = (
    "Rhinolophus ferrumequinum",
    "Rhinolophus hipposideros",
    "Myotis daubentonii",
    "Myotis brandtii",
    "Myotis mystacinus",
    "Myotis emarginatus",
    "Myotis nattereri",
    "Myotis myotis",
    "Myotis dasycneme",
    "Nyctalus noctula",
    "Nyctalus leisleri",
    "Pipistrellus pipistrellus",
    "Pipistrellus nathusii",
    "Pipistrellus kuhlii",
    "Eptesicus serotinus",
    "Eptesicus nilssonii",
    "Miniopterus schreibersii",
    "Vespertilio murinus",
)

_N_FFT = 512
_HOP = 128
_TILES = 60
_TILE_FRAMES = 44
_TILE_STEP = 22


class Bat(TorchModel):
    """Class token of the transformer, and one sigmoid score per species on it.

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
        state = read_checkpoint(path)
        network = BatNetwork(tiles=_TILES, n_classes=len(_SPECIES))
        fit_weights(network, state, model=card.name, path=path)
        speed_up_convolutions(network)
        self.place(network)
        network.set_submodule("to_patch_embedding", fuse(network.to_patch_embedding, device))
        self._network = network
        self.classes = _SPECIES
        # The authors filter and transform in double precision, and their measure, how far a
        # value is from its mean in dB, shows rounding in the quiet bands that the filter leaves.
        dtype = exact_dtype(device)
        self._high_pass = _HighPass(dtype=dtype).to(device)
        power = PowerSpectrogram(n_fft=_N_FFT, hop=_HOP, pad_mode="constant", dtype=dtype)
        self._power = power.to(device)

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
