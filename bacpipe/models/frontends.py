"""Batched front ends, most of them spectrograms, that the wrappers of several models share.

Everything takes windows of shape ``(n, samples)`` on any device and treats every window on
its own: no statistic is taken over the batch, so a window's result does not depend on its
neighbours.  Conventions follow torchaudio, whose transforms these reproduce.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

_FRAMES_IN_CACHE = 512


def mel_filterbank(
    *,
    sample_rate: int,
    n_fft: int,
    n_mels: int,
    f_min: float = 0.0,
    f_max: float | None = None,
) -> Tensor:
    """Triangular filters on the HTK mel scale, not normalised by their area.

    Parameters
    ----------
    sample_rate : int
        Sample rate in Hz.
    n_fft : int
        Length of the Fourier transform in samples.
    n_mels : int
        Number of filters.
    f_min, f_max : float
        Lower edge of the lowest and upper edge of the highest filter in Hz; `f_max` is half
        the sample rate when it is None.

    Returns
    -------
    torch.Tensor, float32, shape (n_fft // 2 + 1, n_mels)
    """
    from torchaudio.functional import melscale_fbanks

    with warnings.catch_warnings():
        # Some authors chose more filters than their Fourier transform resolves.
        warnings.filterwarnings("ignore", message="At least one mel filterbank has all zero")
        filters: Tensor = melscale_fbanks(
            n_fft // 2 + 1, f_min, f_max or sample_rate / 2, n_mels, sample_rate
        )
    return filters


def exact_dtype(device: str) -> torch.dtype:
    """Double precision, or single on devices that have nothing better (mps).

    For models whose authors transform in double precision: in dB, the rounding of a single
    precision Fourier transform moves the quiet bands beside loud ones by 1e-3.
    """
    return torch.float32 if device.startswith("mps") else torch.float64


def in_groups(transform: Callable[[Tensor], Tensor], audio: Tensor, *, frames: int) -> Tensor:
    """Apply a transform to all windows at once, or on a CPU to as many as its caches hold.

    Spectra of a whole batch go through main memory several times on their way; taken in small
    groups they do not, which makes a front end up to twice as fast.

    Parameters
    ----------
    transform : callable
        Maps windows (n, samples) to a tensor of n rows, each row from its window alone.
    audio : torch.Tensor, shape (n, samples)
    frames : int
        Spectrogram frames of one window.
    """
    if audio.device.type != "cpu":
        return transform(audio)
    parts = [transform(part) for part in audio.split(max(1, _FRAMES_IN_CACHE // frames))]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


class PowerSpectrogram(nn.Module):
    """Squared magnitude of the short-time Fourier transform of centred frames.

    Parameters
    ----------
    n_fft : int
        Length of the Fourier transform, and of a frame, in samples.
    hop : int
        Step between frames in samples.
    window : torch.Tensor, shape (n_fft,), optional
        Taper of a frame; a periodic Hann window when it is None.
    normalized : bool
        Divide the transform by the energy norm of the taper (``normalized=True`` of
        torchaudio).
    bins : (int, int), optional
        First and one past the last frequency bin to return; all by default.
    pad_mode : {'reflect', 'constant'}
        How the window is continued beyond its ends for the first and last frames.
    dtype : torch.dtype
        Precision of the transform and of its result.
    """

    window: Tensor

    def __init__(
        self,
        *,
        n_fft: int,
        hop: int,
        window: Tensor | None = None,
        normalized: bool = False,
        bins: tuple[int, int] | None = None,
        pad_mode: str = "reflect",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.n_fft = n_fft
        self.hop = hop
        self.bins = slice(*(bins or (0, n_fft // 2 + 1)))
        self.pad_mode = pad_mode
        taper = torch.hann_window(n_fft, dtype=dtype) if window is None else window.to(dtype)
        if normalized:
            taper = taper / taper.square().sum().sqrt()
        self.register_buffer("window", taper, persistent=False)

    def forward(self, audio: Tensor) -> Tensor:
        """Power of windows.

        Parameters
        ----------
        audio : torch.Tensor, shape (n, samples)

        Returns
        -------
        torch.Tensor, shape (n, bins, frames)
        """
        audio = audio.to(self.window.dtype)
        # Faster than the reflection of torch.stft.
        margin = self.n_fft // 2
        if self.pad_mode == "reflect":
            before, behind = audio[:, 1 : margin + 1], audio[:, -margin - 1 : -1]
            audio = torch.cat([before.flip(1), audio, behind.flip(1)], dim=1)
        else:
            audio = nn.functional.pad(audio, (margin, margin), mode=self.pad_mode)
        spectrum = torch.stft(
            audio, self.n_fft, self.hop, window=self.window, center=False, return_complex=True
        )[:, self.bins]
        # Half the time of abs().square(), which takes a root only to square it again.
        return torch.addcmul(spectrum.real.square(), spectrum.imag, spectrum.imag)


class MelSpectrogram(nn.Module):
    """Power spectrogram summed by mel filters.

    Parameters
    ----------
    filterbank : torch.Tensor, float32, shape (n_fft // 2 + 1, n_mels)
        Filters, for example from `mel_filterbank`.
    hop : int
        Step between frames in samples.
    window : torch.Tensor, shape (n_fft,), optional
        Taper of a frame; a periodic Hann window when it is None.
    normalized : bool
        Divide the transform by the energy norm of the taper.
    dtype : torch.dtype
        Precision of the transform; the result is float32 in any case.
    """

    filterbank: Tensor

    def __init__(
        self,
        filterbank: Tensor,
        *,
        hop: int,
        window: Tensor | None = None,
        normalized: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        # Bins that no filter looks at cost a multiplication each and change nothing.
        heard = filterbank.any(dim=1).nonzero()
        bins = (int(heard.min()), int(heard.max()) + 1)
        self.power = PowerSpectrogram(
            n_fft=2 * (len(filterbank) - 1),
            hop=hop,
            window=window,
            normalized=normalized,
            bins=bins,
            dtype=dtype,
        )
        self.register_buffer("filterbank", filterbank[slice(*bins)].clone(), persistent=False)
        self._blocks = _blocks(self.filterbank)

    def forward(self, audio: Tensor) -> Tensor:
        """Mel spectrogram of windows.

        Parameters
        ----------
        audio : torch.Tensor, float32, shape (n, samples)

        Returns
        -------
        torch.Tensor, float32, shape (n, n_mels, frames)
        """
        return in_groups(self._transform, audio, frames=audio.shape[1] // self.power.hop + 1)

    def _transform(self, audio: Tensor) -> Tensor:
        power = self.power(audio).to(self.filterbank.dtype)
        if audio.device.type != "cpu":
            return torch.matmul(self.filterbank.T, power)
        parts = [torch.matmul(self.filterbank[b, m].T, power[:, b]) for b, m in self._blocks]
        return torch.cat(parts, dim=1)


def _blocks(filterbank: Tensor, count: int = 4) -> list[tuple[slice, slice]]:
    """Blocks of bins × filters outside of which a filterbank holds only zeros."""
    blocks = []
    for filters in torch.arange(filterbank.shape[1]).tensor_split(count):
        mine = slice(int(filters[0]), int(filters[-1]) + 1)
        heard = filterbank[:, mine].any(dim=1).nonzero()
        # Filters that hear nothing get a bin, too, for a result of zeros.
        first, last = (int(heard.min()), int(heard.max())) if len(heard) else (0, 0)
        blocks.append((slice(first, last + 1), mine))
    return blocks


def power_to_db(power: Tensor, *, amin: float = 1e-10, top_db: float | None = None) -> Tensor:
    """Power in decibels.

    Parameters
    ----------
    power : torch.Tensor, shape (n, ...)
        Power spectrograms, one per window.
    amin : float
        Power that stands for silence; smaller values are raised to it.
    top_db : float, optional
        Dynamic range in dB below the maximum of each window; lower values are raised to it.

    Returns
    -------
    torch.Tensor, of the shape and type of `power`
    """
    db = power.clamp(min=amin).log10_().mul_(10.0)
    if top_db is None:
        return db
    loudest = db.flatten(1).amax(dim=1)
    return torch.maximum(db, _beside(loudest - top_db, db))


def min_max(x: Tensor) -> Tensor:
    """Scale each window to the range 0 to 1; a constant window becomes zeros.

    Parameters
    ----------
    x : torch.Tensor, shape (n, ...)

    Returns
    -------
    torch.Tensor, of the shape and type of `x`
    """
    # aminmax(dim=1) takes twenty times as long.
    low, high = x.flatten(1).amin(dim=1), x.flatten(1).amax(dim=1)
    span = high - low
    span = torch.where(span > 0, span, torch.ones_like(span))
    return (x - _beside(low, x)) / _beside(span, x)


def _beside(values: Tensor, x: Tensor) -> Tensor:
    """One value per window, shaped to broadcast against `x`."""
    return values.view(-1, *[1] * (x.ndim - 1))


def center_and_scale(audio: Tensor, peak: float) -> Tensor:
    """Remove the mean of each window and scale its largest absolute sample to `peak`.

    Parameters
    ----------
    audio : Tensor, float32, shape (n, samples)
        Windows.
    peak : float
        Peak of the result.

    Returns
    -------
    Tensor, float32, shape (n, samples)
        Zeros for a constant window.
    """
    centered = audio - audio.mean(dim=-1, keepdim=True)
    largest = centered.abs().amax(dim=-1, keepdim=True)
    # The mean of a constant window is exact only up to rounding; without the floor, that
    # rounding error would be blown up to full scale.
    silent = largest <= 1e-6 * audio.abs().amax(dim=-1, keepdim=True)
    scaled = centered * (peak / largest.masked_fill(silent, 1.0))
    return scaled.masked_fill(silent, 0.0)
