"""The spectrogram that batdetect2 feeds its network, and the network, arranged for speed.

The package computes the spectrogram with numpy and librosa, one recording at a time, on the CPU
(``batdetect2.utils.detector_utils.compute_spectrogram``).  The module here gives the same
values for whole batches on any device.  The network is that of
``batdetect2.detector.models.Net2DFast``, the same layers with the same weights, rearranged so
that a CPU computes it in fewer passes.

References
----------
Mac Aodha et al. 2022, bioRxiv 2022.12.14.520490; https://github.com/macaodha/batdetect2
Wang et al. 2017, Trainable frontend for robust and far-field keyword spotting,
arXiv 1607.05666 (PCEN)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

# librosa.pcen's defaults, which batdetect2 relies on.
_PCEN_GAIN = 0.98
_PCEN_BIAS = 2.0
_PCEN_POWER = 0.5
_PCEN_EPS = 1e-6
_PCEN_SECONDS = 0.4
_PCEN_HOP = 512
# The package tells PCEN a tenth of the sample rate and scales magnitudes to 32-bit integers.
_PCEN_RATE_DIVISOR = 10
_PCEN_SCALE = 2.0**31


class BatDetect2Spectrogram(nn.Module):
    """Magnitude STFT, PCEN, mean over time removed, resized to the network's input.

    Parameters
    ----------
    params : mapping
        The ``params`` of batdetect2's checkpoint: ``target_samp_rate`` (Hz),
        ``fft_win_length`` (s), ``fft_overlap``, ``min_freq`` and ``max_freq`` (Hz),
        ``spec_height`` (rows), ``resize_factor``, ``spec_divide_factor`` (columns).
    n_samples : int
        Length of the windows.
    precision : torch.dtype
        Of the STFT.  PCEN lifts every band to the same level, so in bands without energy
        (above the Nyquist frequency of a recording that was resampled upwards) the rounding
        errors of the STFT become visible.  The package uses float64 there, and so do we
        wherever the device can.
    """

    window: torch.Tensor
    within_block: torch.Tensor
    across_blocks: torch.Tensor
    carry_decay: torch.Tensor
    start: torch.Tensor

    def __init__(
        self,
        params: Mapping[str, Any],
        *,
        n_samples: int,
        precision: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        rate = int(params["target_samp_rate"])
        self.n_fft = int(params["fft_win_length"] * rate)
        overlap = int(params["fft_overlap"] * self.n_fft)
        self.hop = self.n_fft - overlap
        n_columns = _padded_columns(
            (n_samples - overlap) // self.hop,
            params["resize_factor"],
            int(params["spec_divide_factor"]),
        )
        self.padding = n_columns * self.hop + overlap - n_samples
        # Bin 0 (DC) is never used; the top row is the highest frequency.
        self.lowest_bin = round(params["min_freq"] * params["fft_win_length"]) + 1
        self.highest_bin = round(params["max_freq"] * params["fft_win_length"])
        self.size = (
            int(params["spec_height"] * params["resize_factor"]),
            int(n_columns * params["resize_factor"]),
        )
        self._buffer("window", torch.hann_window(self.n_fft, dtype=precision))

        block = math.gcd(n_columns, 64)
        frames = _PCEN_SECONDS * (rate / _PCEN_RATE_DIVISOR) / _PCEN_HOP
        keep = 1 - (math.sqrt(1 + 4 * frames**2) - 1) / (2 * frames**2)
        lags = torch.arange(block, dtype=torch.float64)
        blocks = torch.arange(n_columns // block, dtype=torch.float64)
        self._buffer("within_block", (1 - keep) * _decay(lags, keep))
        # The end of block i reaches block j through the j - i - 1 blocks between them.
        self._buffer("across_blocks", _decay(blocks, keep**block, delay=1))
        self._buffer("carry_decay", keep ** (lags + 1))
        # librosa starts the filter in the state of a constant input of 1.
        self._buffer("start", keep ** (block * blocks))

    def _buffer(self, name: str, value: torch.Tensor) -> None:
        dtype = value.dtype if name == "window" else torch.float32
        self.register_buffer(name, value.to(dtype), persistent=False)

    def forward(self, audio: torch.Tensor) -> torch.Tensor:
        """Spectrograms of windows.

        Parameters
        ----------
        audio : torch.Tensor, float32, shape (n, n_samples)

        Returns
        -------
        torch.Tensor, float32, shape (n, 1, 128, 1024)
            High frequencies in the first rows.
        """
        padded = F.pad(audio, (0, self.padding)).to(self.window.dtype)
        stft = torch.stft(
            padded, self.n_fft, self.hop, window=self.window, center=False, return_complex=True
        )
        stft = stft[:, self.lowest_bin : self.highest_bin + 1]
        # A third of the time of abs(), which guards against squares that overflow.
        power = torch.addcmul(stft.real.square(), stft.imag, stft.imag)
        # The transform leaves frequencies side by side, but what follows runs along the time.
        magnitude = power.float().flip(1).contiguous().sqrt_()
        spectrogram = self._pcen(magnitude * _PCEN_SCALE)
        spectrogram = (spectrogram - spectrogram.mean(-1, keepdim=True)).clamp_min(0)
        return F.interpolate(
            spectrogram[:, None], size=self.size, mode="bilinear", align_corners=False
        )

    def _pcen(self, energy: torch.Tensor) -> torch.Tensor:
        # (eps + M) ** -gain is librosa's exp(-gain * (log(eps) + log1p(M / eps))).
        gain = (self._smooth(energy) + _PCEN_EPS).pow(-_PCEN_GAIN)
        compressed = torch.expm1(_PCEN_POWER * torch.log1p(energy * gain / _PCEN_BIAS))
        return _PCEN_BIAS**_PCEN_POWER * compressed

    def _smooth(self, energy: torch.Tensor) -> torch.Tensor:
        """First-order low-pass over time, as two matrix products instead of a loop."""
        local = energy.unflatten(-1, (-1, len(self.carry_decay))) @ self.within_block
        carry = local[..., -1] @ self.across_blocks + self.start
        return (local + carry[..., None] * self.carry_decay).flatten(-2)


def _padded_columns(columns: int, resize_factor: float, divisor: int) -> int:
    """STFT columns that, once resized, the network can halve again and again."""
    resized = int(columns * resize_factor)
    excess = resized % divisor
    return int((resized - excess + divisor) / resize_factor) if excess else columns


def _decay(steps: torch.Tensor, base: float, delay: int = 0) -> torch.Tensor:
    """Matrix [i, j] of ``base ** (j - i - delay)``, zero where the exponent is negative."""
    exponent = steps[None, :] - steps[:, None] - delay
    return torch.where(exponent >= 0, base ** exponent.clamp_min(0), 0.0)


class OneWindow(nn.Module):
    """Maps of detection, classes and features, for one window at a time.

    Parameters
    ----------
    network : Net2DFast
        In evaluation, with its final weights.
    width : int
        Columns of the spectrogram.
    """

    def __init__(self, network: Any, *, width: int) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            _Down(getattr(network, f"conv_dn_{step}"), width=width >> step) for step in range(3)
        )
        self.deepest = fuse_conv_bn_eval(network.conv_dn_3, network.conv_dn_3_bn)
        self.flatten = fuse_conv_bn_eval(network.conv_1d, network.conv_1d_bn)
        self.attention = network.att
        self.up = nn.ModuleList(
            _Up(getattr(network, f"conv_up_{4 - step}"), width=width >> step) for step in range(3)
        )
        self.features = fuse_conv_bn_eval(network.conv_op, network.conv_op_bn)
        self.classes = network.conv_classes_op
        self.to(memory_format=torch.channels_last)

    def forward(self, spectrogram: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Maps (1, c, height, width) with c = 1, classes and background, and features."""
        fine = self.down[0](spectrogram)
        middle = self.down[1](fine)
        coarse = F.relu(self.deepest(self.down[2](middle)))
        # One column of attention for all rows.
        x = coarse + self.attention(F.relu(self.flatten(coarse)))
        x = self.up[1](self.up[2](x) + middle) + fine
        features = F.relu(self.features(self.up[0](x)))
        classes = torch.softmax(self.classes(features), dim=1)
        return classes[:, :-1].sum(dim=1, keepdim=True), classes, features


class _WithRows(nn.Module):
    """Convolution of maps and, as a last channel, the coordinate of the row.

    That channel is always the same, and so is what the convolution makes of it.
    """

    offset: Tensor

    def __init__(self, convolution: nn.Conv2d, coordinates: Tensor, width: int) -> None:
        super().__init__()
        weight = convolution.weight
        rows = coordinates.expand(1, 1, -1, width)
        offset = F.conv2d(rows, weight[:, -1:], padding=convolution.padding)
        self.register_buffer("offset", offset.contiguous(memory_format=torch.channels_last))
        self.convolution = nn.Conv2d(
            weight.shape[1] - 1,
            len(weight),
            weight.shape[2:],  # type: ignore[arg-type]
            padding=convolution.padding,  # type: ignore[arg-type]
            device="meta",
        )
        self.convolution.weight = nn.Parameter(weight[:, :-1].contiguous(), requires_grad=False)
        self.convolution.bias = convolution.bias

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.convolution(x) + self.offset
        return y


class _Down(nn.Module):
    def __init__(self, block: Any, *, width: int) -> None:
        super().__init__()
        self.convolve = _WithRows(block.conv, block.coords, width)
        # Behind the maximum: its scale may be negative.
        self.norm = block.conv_bn

    def forward(self, x: Tensor) -> Tensor:
        x = self.convolve(x)
        # Half the time of max_pool2d, which also finds out where the maxima are.
        x = torch.maximum(x[:, :, ::2], x[:, :, 1::2])
        x = torch.maximum(x[..., ::2], x[..., 1::2])
        return F.relu(self.norm(x))


class _Up(nn.Module):
    def __init__(self, block: Any, *, width: int) -> None:
        super().__init__()
        folded = fuse_conv_bn_eval(block.conv, block.conv_bn)
        self.convolve = _WithRows(folded, block.coords, width)

    def forward(self, x: Tensor) -> Tensor:
        finer = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        return F.relu(self.convolve(finer))
