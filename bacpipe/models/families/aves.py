"""AVES and BirdAVES: HuBERT encoders trained on animal sounds.

References
----------
Hagiwara 2023, AVES: Animal Vocalization Encoder based on Self-Supervision, arXiv 2210.14493;
https://github.com/earthspecies/aves.  The network is torchaudio's wav2vec 2.0 (Baevski et al. 2020,
arXiv 2006.11477), rearranged to compute the same faster.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrize import remove_parametrizations
from torchaudio.models import Wav2Vec2Model, wav2vec2_model
from torchaudio.models.wav2vec2.components import FeatureExtractor

from bacpipe.errors import CheckpointError
from bacpipe.models.backends.cpu.fusion import fuse_linears
from bacpipe.models.backends.cpu.layers import GELU, FusedConv1d, FusedLinear
from bacpipe.models.backends.pytorch import TorchModel, build_empty
from bacpipe.models.weights.containers import read_json


class Aves(TorchModel):
    """Last layer of the encoder, averaged over time."""

    def set_up(self) -> None:
        weights, config = self.paths
        network = _wav2vec2(config)
        self.fit(network, weights, rename=_to_parametrization, unused=("aux.*",))
        fuse_wav2vec2(network, self.segment_length)
        self._network = self.place(network)

    def preprocess(self, audio: Tensor) -> Tensor:
        """Return the waveform as it is: float32, shape (n, 16000)."""
        return audio

    def __call__(self, x: Tensor) -> Tensor:
        """Embeddings, float32, shape (n, dim)."""
        layers, _ = self._network.extract_features(x)
        embeddings: Tensor = layers[-1].mean(dim=1)
        return embeddings


def _wav2vec2(config: Path) -> Wav2Vec2Model:
    settings = read_json(config)
    try:
        return build_empty(lambda: wav2vec2_model(**settings, aux_num_out=None))
    except TypeError as error:
        raise CheckpointError(
            f"{config}: these are not the arguments of torchaudio's wav2vec2_model ({error}); "
            f"delete it, so that it is fetched again."
        ) from error


def _to_parametrization(key: str) -> str:
    """Name of a weight-norm tensor in current PyTorch; the checkpoints have the old names."""
    return key.replace("conv.weight_g", "conv.parametrizations.weight.original0").replace(
        "conv.weight_v", "conv.parametrizations.weight.original1"
    )


class Waveforms(nn.Module):
    """The convolutions over the waveform, with channels last and one window at a time.

    Parameters
    ----------
    extractor : torchaudio.models.wav2vec2.components.FeatureExtractor
        Gives its weights; only its first convolution is normalised, by channel.
    """

    def __init__(self, extractor: FeatureExtractor) -> None:
        super().__init__()
        first, *others = extractor.conv_layers
        self.first, self.norm = first.conv, first.layer_norm
        self.others = nn.Sequential(*(FusedConv1d(layer.conv, GELU) for layer in others))

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, None]:
        """Features of waveforms: (n, samples) to (n, time, channels).

        The second argument and result, of which there is nothing to say, are torchaudio's.
        """
        together = 1 if waveforms.device.type == "cpu" else len(waveforms)
        # The features of one window almost fit into the cache.
        features = [self.others(self._normalised(some)) for some in waveforms.split(together)]
        return torch.cat(features), None

    def _normalised(self, waveforms: Tensor) -> Tensor:
        """First convolution, norm and GELU: (n, samples) to (n, time, channels).

        A convolution is linear, so its mean and variance follow from those of the samples below
        its kernel, and the norm is a scale and a shift of its weights.
        """
        size, channels = self.first.kernel_size[0], self.first.out_channels
        # The sums of quiet bands beside loud ones need the digits.
        exact = torch.float64 if waveforms.device.type != "mps" else torch.float32
        frames = waveforms.to(exact).unfold(1, size, self.first.stride[0])
        centred = frames - frames.mean(1, keepdim=True)
        covariance = centred.transpose(1, 2) @ centred / frames.shape[1]
        kernels = self.first.weight.view(channels, size).to(exact)
        variance = ((kernels @ covariance) * kernels).sum(2)
        scale = self.norm.weight / (variance + self.norm.eps).sqrt()
        weight = (scale.unsqueeze(2) * kernels).to(waveforms.dtype)
        # The bias is all that is left of the shift, because the frames have no mean.
        normalised = torch.baddbmm(
            self.norm.bias, centred.to(waveforms.dtype), weight.transpose(1, 2)
        )
        return functional.gelu(normalised)


class Positions(nn.Module):
    """Grouped convolution over the tokens that encodes their place.

    Parameters
    ----------
    convolution : nn.Conv1d
        Gives its weights.
    tokens : int
        How many there are in a window.  Parts of the kernel that lie outside of the window
        wherever its centre is are cut off.
    """

    def __init__(self, convolution: nn.Conv1d, tokens: int) -> None:
        super().__init__()
        size = convolution.kernel_size[0]
        before, after = size // 2, size - 1 - size // 2
        reach_before, reach_after = min(before, tokens - 1), min(after, tokens - 1)
        convolution.weight = nn.Parameter(
            convolution.weight[..., before - reach_before : before + reach_after + 1].detach(),
            requires_grad=False,
        )
        convolution.kernel_size = (reach_before + reach_after + 1,)
        convolution.padding = (reach_before,)
        self.convolution = FusedConv1d(convolution, GELU)

    def forward(self, tokens: Tensor) -> Tensor:
        """Encoding of the place of tokens: (n, tokens, width) to the same."""
        encoded: Tensor = self.convolution(tokens)[:, : tokens.shape[1]]
        return encoded


def fuse_wav2vec2(network: Wav2Vec2Model, samples: int) -> None:
    """Replace the slow parts of an encoder, in place, once its weights are loaded.

    Parameters
    ----------
    network : torchaudio.models.Wav2Vec2Model
        In evaluation it will compute the same, up to rounding.
    samples : int
        Length of its input.
    """
    transformer = network.encoder.transformer
    remove_parametrizations(transformer.pos_conv_embed.conv, "weight")
    first, *others = network.feature_extractor.conv_layers
    tokens = samples
    for layer in network.feature_extractor.conv_layers:
        tokens = (tokens - layer.kernel_size) // layer.stride + 1
    transformer.pos_conv_embed = Positions(transformer.pos_conv_embed.conv, tokens)
    by_channel = isinstance(first.layer_norm, nn.GroupNorm) and first.conv.bias is None
    if by_channel and not any(layer.layer_norm for layer in others):
        network.feature_extractor = Waveforms(network.feature_extractor)
    for layer in transformer.layers:
        inside = layer.feed_forward
        layer.feed_forward = nn.Sequential(
            FusedLinear(inside.intermediate_dense, GELU), inside.output_dense
        )
    fuse_linears(network)
