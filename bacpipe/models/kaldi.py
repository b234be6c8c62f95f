"""Kaldi's log-mel filterbank features for a whole batch of windows at once.

The same numbers as ``torchaudio.compliance.kaldi.fbank``, which takes one waveform at a time
and derives its filters anew for each.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torchaudio.compliance.kaldi import get_mel_banks

_FRAME_SECONDS = 0.025
_HOP_SECONDS = 0.010
_PREEMPHASIS = 0.97
_LOWEST_HZ = 20.0
_FLOOR = torch.finfo(torch.float32).eps
_CACHE_BYTES = 2**21


class KaldiFbank(nn.Module):
    """Log-mel energies of frames of 25 ms every 10 ms, as Kaldi computes them.

    Each frame loses its mean, is pre-emphasised, weighted and transformed; triangular mel
    filters from 20 Hz to the Nyquist frequency sum its power.  No dither, no energy column, and
    only frames that lie entirely inside the waveform.

    Parameters
    ----------
    sample_rate : int
        Sample rate in Hz.
    n_mels : int
        Number of mel filters.
    window : {'povey', 'hanning'}
        Weights of the samples of a frame; 'povey' is Kaldi's own, a Hann window to the power
        of 0.85.
    """

    weights: Tensor
    filters: Tensor

    def __init__(
        self, sample_rate: int, *, n_mels: int = 128, window: Literal["povey", "hanning"] = "povey"
    ) -> None:
        super().__init__()
        self.frame = int(sample_rate * _FRAME_SECONDS)
        self.hop = int(sample_rate * _HOP_SECONDS)
        self.n_fft = 1 << (self.frame - 1).bit_length()
        weights = torch.hann_window(self.frame, periodic=False)
        if window == "povey":
            weights = weights.pow(0.85)
        filters, _ = get_mel_banks(
            n_mels, self.n_fft, float(sample_rate), _LOWEST_HZ, 0.0, 100.0, -500.0, 1.0
        )
        # The Nyquist bin belongs to no filter.
        filters = nn.functional.pad(filters.T, (0, 0, 0, 1))
        self.register_buffer("weights", weights, persistent=False)
        self.register_buffer("filters", filters.contiguous(), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """Features of a batch of waveforms.

        Parameters
        ----------
        waveform : torch.Tensor, float32, shape (n, samples)
            At least one frame long.

        Returns
        -------
        torch.Tensor, float32, shape (n, 1 + (samples - frame) // hop, n_mels)
            Natural logarithm of the mel energies.
        """
        frames = waveform.unfold(1, self.frame, self.hop)
        features = waveform.new_empty((*frames.shape[:2], self.filters.shape[1]))
        # A CPU is fastest when the intermediate arrays stay in its cache.
        bytes_each = frames.shape[1] * self.n_fft * 4
        at_once = _CACHE_BYTES // bytes_each if waveform.device.type == "cpu" else len(frames)
        at_once = max(1, at_once)
        for some, out in zip(frames.split(at_once), features.split(at_once), strict=True):
            torch.matmul(self._power(some), self.filters, out=out)
        return features.clamp_(min=_FLOOR).log_()

    def _power(self, frames: Tensor) -> Tensor:
        """Power spectrum of frames: (n, frames, frame) to (n, frames, n_fft // 2 + 1)."""
        centred = frames - frames.mean(-1, keepdim=True)
        padded = centred.new_zeros((*centred.shape[:2], self.n_fft))
        inside = padded[..., : self.frame]
        # The first sample of a frame has no predecessor; its weight is 0 in both windows.
        # Two steps, because quiet mel bands would show the rounding of a fused one.
        predecessor = centred[..., :-1] * _PREEMPHASIS
        torch.sub(centred[..., 1:], predecessor, out=inside[..., 1:])
        inside.mul_(self.weights)
        spectrum = torch.fft.rfft(padded)
        return spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag)
