"""The BirdNET v2.4 network in PyTorch.

BirdNET is by Kahl, Wood, Eibl and Klinck (2021), "BirdNET: A deep learning solution for
avian diversity monitoring", Ecological Informatics 61, 101236; the weights are those of
version 2.4 ("GLOBAL 6K") at https://github.com/kahst/BirdNET-Analyzer.  The structure was
read from the published TFLite graph: two mel spectrograms, an EfficientNet-like stack of
inverted bottlenecks, and one dense layer.  Running it in PyTorch is several times faster
than the TFLite interpreter and gives embeddings and scores in one pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from bacpipe.errors import CheckpointError, SettingsError
from bacpipe.models.backends.cpu.layers import (
    Activation,
    DerivedTensors,
    FusedConv2d,
    computing_type,
)
from bacpipe.models.weights import tflite

SpectrogramMode = Literal["auto", "float32", "float64"]

SAMPLE_RATE = 48_000
WINDOW_SAMPLES = 144_000
EMBEDDING_SIZE = 1024
N_CLASSES = 6522

_MEL_BANDS = 96
_FRAMES = 511
# Frame length and hop in samples, of the low (0-3 kHz) and the high band (0.5-15 kHz).
_SPECTROGRAMS = ((2048, 278), (1024, 280))
# Per stage: blocks, expanded channels, output channels, squeezed channels (0: no gate).
_STAGES = ((3, 72, 36, 0), (4, 288, 72, 18), (5, 864, 108, 27), (4, 1536, 192, 48))

# In the file, channels last.
_STEM_SHAPES = [(24, 4, 8, 2), (24,), (24, 1, 1, 48), (24,)]

# Windows that go through the network together on a CPU, whatever the batch.  The first two
# stages make 2 MB per window and layer, which should stay in the cache; the last two read
# 20 MB of weights, which more windows share.  In bfloat16 it is half of it, and what a call of
# oneDNN takes by itself, 0.1 ms, weighs more.  Blocks above 32 MB would also be handed back to
# the system by glibc after each layer, and zeroed page by page for the next.
_SPECTROGRAM_CHUNK = 1
_CHUNKS = (4, 16)
_CHUNKS_IN_BFLOAT16 = (16, 32)
# The float64 spectrogram takes 12 MB per window.
_FLOAT64_CHUNK = 1
_FLOAT64_CHUNK_OFF_CPU = 32
# A window whose samples keep still for one hop holds silence (or a constant).  Normalised to
# [-1, 1], neighbouring float32 numbers are 1e-7 apart.
_STILL = 1e-6


def _convolution(
    in_channels: int,
    out_channels: int,
    size: int | tuple[int, int],
    stride: int | tuple[int, int] = 1,
    padding: int = 0,
    groups: int = 1,
    activation: str = "none",
) -> FusedConv2d:
    """Convolution with weights of zero: they come from a file; random numbers are left alone."""
    layer = nn.utils.skip_init(
        nn.Conv2d, in_channels, out_channels, size, stride, padding, groups=groups
    )
    for values in layer.parameters():
        nn.init.zeros_(values)
    return FusedConv2d(layer, Activation(activation))


class _Bottleneck(nn.Module):
    """Inverted bottleneck: widen, filter each channel, weigh the channels, narrow."""

    def __init__(self, channels: int, wide: int, out: int, squeezed: int, first: bool) -> None:
        super().__init__()
        stride = 2 if first else 1
        self.expand = _convolution(channels, wide, 1, activation="swish")
        self.filter = _convolution(
            wide, wide, 3, stride, padding=1, groups=wide, activation="swish"
        )
        self.gate = None
        if squeezed:
            self.gate = nn.Sequential(
                _convolution(wide, squeezed, 1, activation="swish"),
                _convolution(squeezed, wide, 1, activation="sigmoid"),
            )
        self.project = _convolution(wide, out, 1)
        self.residual = not first

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, c, h, w) to (n, d, h, w), the sizes halved in the first of a stage."""
        y = self.filter(self.expand(x))
        if self.gate is not None:
            # A mean would be computed from a copy in float32.
            y = y * self.gate(F.avg_pool2d(y, y.shape[2:]))
        out: Tensor = self.project(y, x if self.residual else None)
        return out


class _Stem(nn.Module):
    """First convolution and pooling.

    Both take two frames a step: with channels last, a pair of frames is one of twice as many
    channels, which costs nothing and is what processors multiply faster.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = _convolution(4, 24, 4, (2, 1), activation="relu")
        self.mean = _convolution(48, 24, 1)
        self.largest = _convolution(24, 24, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map the spectrogram (n, 2, 96, 511) to (n, 24, 48, 128)."""
        # The uneven "same" padding of TensorFlow.
        x = self.conv(_pairs_of_frames(F.pad(x, (3, 4, 1, 1))))
        # What follows mixes the largest and the mean values of neighbours.
        pairs = _pairs_of_frames(x)
        left, right = pairs.chunk(2, dim=1)
        out: Tensor = self.largest(torch.maximum(left, right), self.mean(pairs))
        return out


def _pairs_of_frames(x: Tensor) -> Tensor:
    """View (n, c, h, w) as (n, 2 c, h, w / 2)."""
    pairs = x.permute(0, 2, 3, 1).unflatten(2, (-1, 2)).flatten(3)
    return pairs.permute(0, 3, 1, 2)


class _Affine(nn.Module):
    """Scale and shift per channel."""

    scale: Tensor
    shift: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(channels))
        self.register_buffer("shift", torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, c, h, w) to the same shape."""
        scale, shift = (values.view(1, -1, 1, 1) for values in (self.scale, self.shift))
        return torch.addcmul(shift, x, scale)


class _MelBands(DerivedTensors):
    """One of the two mel spectrograms, linear up to a learned compression.

    BirdNET keeps the real part of the Fourier transform rather than its magnitude.  From
    samples to mel bands everything is therefore linear and a single matrix.
    """

    window: Tensor
    mel: Tensor
    power: Tensor

    def __init__(self, length: int, hop: int) -> None:
        super().__init__()
        self.length, self.hop = length, hop
        self.register_buffer("window", torch.zeros(length))
        self.register_buffer("mel", torch.zeros(_MEL_BANDS, length // 2 + 1))
        self.register_buffer("power", torch.ones(()))

    def forward(self, x: Tensor, exact: bool) -> Tensor:
        """Map samples (n, 144000) in [-1, 1] to (n, 96, 511), the highest band first."""
        bands = self._by_float64(x) if exact else self._by_folding(x)
        # Three times faster than a power of the square.
        return bands.abs().log_().mul_(2 * self.power).exp_()

    def _basis(self) -> NDArray[np.float64]:
        """Matrix (length, 96) from a windowed frame to the bands, the highest first."""
        steps = np.outer(np.arange(self.length), np.arange(self.length // 2 + 1)) % self.length
        mel = self.mel.cpu().numpy().astype(np.float64)[::-1]
        basis: NDArray[np.float64] = np.cos(2 * np.pi / self.length * steps) @ mel.T
        return basis

    def _folded_basis(self) -> Tensor:
        """Matrix (length / 2, 96) from a folded frame to the bands: the upper half of the basis.

        Window and cosines are the same from both ends, and the window starts with 0.
        """
        half = self.length // 2
        basis = self._basis() * self.window.double().cpu().numpy()[:, None]
        folded = (basis[1 : half + 1] + basis[: half - 1 : -1]) / 2
        folded[-1] /= 2  # the sample in the middle is added to itself
        return torch.tensor(folded, dtype=self.mel.dtype, device=self.mel.device)

    def _by_folding(self, x: Tensor) -> Tensor:
        """Add the two halves of each frame, the second one backwards: half as many products."""
        basis = self.derived("basis32", self._folded_basis, self.mel, self.window)

        def halves(samples: Tensor) -> Tensor:
            return samples.unfold(1, self.length // 2, self.hop)[:, :_FRAMES]

        end = (_FRAMES - 1) * self.hop + self.length
        # Backwards, the last frame comes first.
        frames = halves(x[:, 1:end]) + halves(x[:, :end].flip(1)).flip(1)
        return (frames @ basis).transpose(1, 2)

    def _by_float64(self, x: Tensor) -> Tensor:
        """Repeat the rounding of TFLite: products in float32, their sums in float64."""
        # Apple's GPUs lack float64.
        device = torch.device("cpu") if x.device.type == "mps" else x.device
        basis = self.derived("basis", lambda: torch.tensor(self._basis(), device=device), self.mel)
        window = self.window.to(device)

        def bands(part: Tensor) -> Tensor:
            frames = part.unfold(1, self.length, self.hop) * window
            return (frames.double() @ basis).to(x.dtype).transpose(1, 2)

        size = _FLOAT64_CHUNK if device.type == "cpu" else _FLOAT64_CHUNK_OFF_CPU
        return _in_chunks(bands, x.to(device), size).to(x.device)


class BirdNetV24(nn.Module):
    """The BirdNET v2.4 network, for inference.

    It may be called from several threads at once, and with batches of any size: on a CPU it
    splits them into the portions that run fastest.

    Parameters
    ----------
    n_classes : int
        Number of classes of the last layer.
    spectrogram_mode : {'auto', 'float32', 'float64'}
        How the spectrogram is computed.  ``'float32'`` is fast, but where a window holds digital
        silence (padding, for one) a frame sums up to nothing but rounding noise, which the
        compression enlarges: embeddings then differ from those of the TFLite model by up to
        some percent.  ``'float64'`` repeats the rounding of that model and agrees with it
        to 1e-5 everywhere, at about twice the time per window.  ``'auto'`` does so for the
        windows with silence alone.

    Notes
    -----
    Made by the constructor, the weights are meaningless; use `from_tflite`.

    """

    def __init__(
        self, n_classes: int = N_CLASSES, spectrogram_mode: SpectrogramMode = "auto"
    ) -> None:
        modes = get_args(SpectrogramMode)
        if spectrogram_mode not in modes:
            raise SettingsError(
                f"BirdNET has no spectrogram mode {spectrogram_mode!r}; "
                f"choose one of {', '.join(modes)}."
            )
        super().__init__()
        self.spectrogram_mode = spectrogram_mode
        self.mels = nn.ModuleList(_MelBands(length, hop) for length, hop in _SPECTROGRAMS)
        self.spectrogram_norm = _Affine(2)
        self.stem = _Stem()
        stages = []
        channels = 24
        for blocks, wide, out, squeezed in _STAGES:
            stage = [_Bottleneck(channels, wide, out, squeezed, first=True)]
            stage += [_Bottleneck(out, wide, out, squeezed, first=False) for _ in range(1, blocks)]
            stages.append(nn.Sequential(*stage))
            channels = out
        self.stages = nn.ModuleList(stages)
        self.post_norm = _Affine(channels)
        self.post_conv = _convolution(channels, EMBEDDING_SIZE, 3, activation="relu")
        self.classifier = nn.utils.skip_init(nn.Linear, EMBEDDING_SIZE, n_classes)
        self.requires_grad_(False)
        self.eval()

    @classmethod
    def from_tflite(
        cls, path: str | Path, spectrogram_mode: SpectrogramMode = "auto"
    ) -> BirdNetV24:
        """Read the weights from the published TFLite file.

        Parameters
        ----------
        path : str or pathlib.Path
            ``BirdNET_GLOBAL_6K_V2.4_Model_FP32.tflite``, or a model of the same structure
            with another number of classes.
        spectrogram_mode : {'auto', 'float32', 'float64'}
            See the class.

        Returns
        -------
        BirdNetV24
            On the CPU.

        Raises
        ------
        CheckpointNotFoundError
            When there is no such file.
        CheckpointError
            When the file is damaged or holds another network.

        """
        weights = _Weights(path)
        network = cls(weights.n_classes, spectrogram_mode)
        weights.fill(network)
        return network

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Compute embeddings and logits.

        Parameters
        ----------
        x : torch.Tensor of float32, shape (n, 144000)
            Windows of 3 s at 48 kHz, in [-1, 1]; their level does not matter.

        Returns
        -------
        embeddings : torch.Tensor of float32, shape (n, 1024)
        logits : torch.Tensor of float32, shape (n, n_classes)
            The sigmoid of a logit is BirdNET's confidence.

        """
        embeddings = self.embed(self.spectrogram(x))
        return embeddings, self.head(embeddings)

    def spectrogram(self, x: Tensor) -> Tensor:
        """Normalise windows and compute the two spectrograms.

        Parameters
        ----------
        x : torch.Tensor of float32, shape (n, 144000)
            Windows of 3 s at 48 kHz.

        Returns
        -------
        torch.Tensor of float32, shape (n, 2, 96, 511)
            Low band (0-3 kHz) and high band (0.5-15 kHz), mel bands from high to low, frames.
            Compressed and scaled, without a unit.

        """
        if x.ndim != 2 or x.shape[1] != WINDOW_SAMPLES:
            raise ValueError(
                f"BirdNET takes windows of shape (n, {WINDOW_SAMPLES}), not {tuple(x.shape)}."
            )
        size = _SPECTROGRAM_CHUNK if x.device.type == "cpu" else max(1, len(x))
        return _in_chunks(self._spectrogram, x, size)

    def _spectrogram(self, x: Tensor) -> Tensor:
        x = x - x.amin(1, keepdim=True)
        x = (x / (x.amax(1, keepdim=True) + 1e-6)).sub_(0.5).mul_(2.0)
        bands = self._bands(x, exact=self.spectrogram_mode == "float64")
        if self.spectrogram_mode == "auto":
            silent = _holds_silence(x).nonzero()[:, 0]
            if len(silent):
                bands[silent] = self._bands(x[silent], exact=True)
        out: Tensor = self.spectrogram_norm(bands)
        return out

    def _bands(self, x: Tensor, exact: bool) -> Tensor:
        # Interleaved, as the first convolution wants its input.
        return torch.stack([mel(x, exact) for mel in self.mels], -1).permute(0, 3, 1, 2)

    def embed(self, spectrogram: Tensor) -> Tensor:
        """Compute embeddings.

        Parameters
        ----------
        spectrogram : torch.Tensor of float32, shape (n, 2, 96, 511)
            Result of `spectrogram`.

        Returns
        -------
        torch.Tensor of float32, shape (n, 1024)
            Values of at least 0.

        """
        if spectrogram.device.type != "cpu":
            return self._late(self._early(spectrogram))
        rounded = computing_type() is torch.bfloat16
        early, late = _CHUNKS_IN_BFLOAT16 if rounded else _CHUNKS
        return _in_chunks(self._late, _in_chunks(self._early, spectrogram, early), late)

    def head(self, embeddings: Tensor) -> Tensor:
        """Compute the logits (n, n_classes) of embeddings (n, 1024), both float32."""
        logits: Tensor = self.classifier(embeddings)
        return logits

    def _early(self, spectrogram: Tensor) -> Tensor:
        """Map (n, 2, 96, 511) to (n, 36, 24, 64)."""
        out: Tensor = self.stages[0](self.stem(spectrogram))
        return out

    def _late(self, x: Tensor) -> Tensor:
        """Map (n, 36, 24, 64) to embeddings (n, 1024)."""
        x = self.stages[3](self.stages[2](self.stages[1](x)))
        x = self.post_conv(self.post_norm(x).relu_())
        return x.mean((2, 3), dtype=torch.float32)


def _in_chunks(function: Callable[[Tensor], Tensor], x: Tensor, size: int) -> Tensor:
    """Apply a function to at most `size` windows at a time."""
    if len(x) <= size:
        return function(x)
    return torch.cat([function(part) for part in x.split(size)])


def _holds_silence(x: Tensor) -> Tensor:
    """Tell for normalised windows (n, 144000) whether they keep still somewhere, shape (n,)."""
    hop = _SPECTROGRAMS[-1][1]
    rows = x[:, : x.shape[1] // hop * hop].unflatten(1, (-1, hop))
    return (rows.amax(2) - rows.amin(2) <= _STILL).any(1)


class _Weights:
    """Weights of a TFLite file, in the order in which the network uses them."""

    def __init__(self, path: str | Path) -> None:
        self.path = path
        self.convolutions: list[tuple[int, list[NDArray[np.float32]]]] = []
        self.vectors: list[NDArray[np.float32]] = []
        self.powers: list[NDArray[np.float32]] = []
        self.dense: list[list[NDArray[np.float32]]] = []
        for operator in tflite.read_operators(path):
            constants = (constant for constant in operator.constants if constant is not None)
            values = [constant.astype(np.float32, copy=False) for constant in constants]
            if operator.code in (tflite.CONV_2D, tflite.DEPTHWISE_CONV_2D):
                self.convolutions.append((operator.code, values))
            elif operator.code == tflite.FULLY_CONNECTED:
                self.dense.append(values)
            elif operator.code == tflite.POW:
                self.powers += values
            elif operator.code in (tflite.MUL, tflite.ADD):
                self.vectors += [value for value in values if value.ndim == 1]
        self._expect("dense layers", len(self.dense), 3)

    @property
    def n_classes(self) -> int:
        """Number of classes of the last layer."""
        shapes = [part.shape for part in self.dense[-1]]
        classes = shapes[0][0] if shapes and shapes[0] else 0
        wanted = [(classes, EMBEDDING_SIZE), (classes,)]
        self._expect("shapes of the last layer", shapes, wanted)
        return classes

    def fill(self, network: BirdNetV24) -> None:
        """Copy all weights to a network, which must have the right number of classes."""
        layers = [layer for layer in network.modules() if isinstance(layer, FusedConv2d)]
        self._expect("convolutions", len(self.convolutions), len(layers) - 1)
        convolutions = [*self._stem(), *self.convolutions[2:]]
        for number, (layer, (code, values)) in enumerate(zip(layers, convolutions, strict=True)):
            depthwise = layer.groups > 1
            what = f"convolution {number}"
            wanted = tflite.DEPTHWISE_CONV_2D if depthwise else tflite.CONV_2D
            self._expect(f"kind of {what}", code, wanted)
            self._expect(f"float32 weights of {what}", [part.ndim for part in values], [4, 1])
            # TensorFlow has the input channels last; those of a depthwise one come first.
            axes = (3, 0, 1, 2) if depthwise else (0, 3, 1, 2)
            self._copy(what, layer.weight, values[0].transpose(axes))
            assert layer.bias is not None
            self._copy(what, layer.bias, values[1])
            layer.to(memory_format=torch.channels_last)

        affine = (network.spectrogram_norm, network.post_norm)
        mels = [layer for layer in network.modules() if isinstance(layer, _MelBands)]
        targets = [mel.window for mel in mels]
        targets += [values for layer in affine for values in (layer.scale, layer.shift)]
        self._expect("vectors", len(self.vectors), len(targets))
        for target, vector in zip(targets, self.vectors, strict=True):
            self._copy("a vector", target, vector)
        self._expect("powers", len(self.powers), len(mels))
        for mel, power, values in zip(mels, self.powers, self.dense, strict=False):
            self._expect("parts of a mel matrix", len(values), 1)
            self._copy("a power", mel.power, power)
            self._copy("a mel matrix", mel.mel, values[0])
            ends = mel.window[1:]
            same = not mel.window[0] and torch.allclose(ends, ends.flip(0), atol=1e-6)
            self._expect("symmetry of a window", same, True)
        self._copy("the last layer", network.classifier.weight, self.dense[-1][0])
        self._copy("the last layer", network.classifier.bias, self.dense[-1][1])

    def _stem(self) -> Iterator[tuple[int, list[NDArray[np.float32]]]]:
        """Weights of `_Stem`, which takes pairs of frames: the second convolution is two."""
        (code, first), (_, second) = self.convolutions[:2]
        shapes = [values.shape for values in (*first, *second)]
        self._expect("shapes of the first convolutions", shapes, _STEM_SHAPES)
        yield code, [first[0].reshape(24, 4, 4, 4), first[1]]
        largest, mean = np.split(second[0], 2, axis=3)
        yield code, [np.tile(mean / 2, 2), np.zeros_like(second[1])]
        yield code, [largest, second[1]]

    def _expect(self, what: str, actual: object, wanted: object) -> None:
        if actual != wanted:
            raise CheckpointError(
                f"{self.path} does not hold the FP32 weights of BirdNET v2.4: "
                f"{what}: found {actual}, expected {wanted}. "
                "Use BirdNET_GLOBAL_6K_V2.4_Model_FP32.tflite."
            )

    def _copy(self, what: str, target: Tensor, values: NDArray[np.float32]) -> None:
        self._expect(f"shape of {what}", values.shape, tuple(target.shape))
        with torch.no_grad():
            target.copy_(torch.tensor(values))
