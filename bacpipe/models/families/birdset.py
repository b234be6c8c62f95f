"""Models of BirdSet: plain classifiers of bird sounds, and one with prototypes.

References
----------
Rauch et al. 2025, BirdSet: A large-scale dataset for audio classification in avian
bioacoustics, arXiv 2403.10380; https://github.com/DBD-research-group/BirdSet.
Heinrich et al. 2025, AudioProtoPNet: An interpretable deep learning model for bird sound
classification, arXiv 2404.10420; https://github.com/DBD-research-group/AudioProtoPNet.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import ConvNextConfig, ConvNextModel, EfficientNetConfig, EfficientNetModel

from bacpipe.errors import CheckpointError
from bacpipe.models.backends.cpu.fusion import fuse_linears, scale_outputs
from bacpipe.models.backends.cpu.layers import GELU, FusedConv2d, FusedLinear
from bacpipe.models.backends.pytorch import (
    FullPrecision,
    TorchModel,
    build_empty,
    read_checkpoint,
)
from bacpipe.models.frontends import MelSpectrogram, mel_filterbank, power_to_db
from bacpipe.models.weights.containers import read_json, strip_prefixes

# Modules that the repositories, old and new, wrap around backbone and head.
_PREFIXES = ("model.", "convnext.", "efficientnet.", "backbone.", "backbone_model.", "head.")
_BACKBONE = ("embeddings.", "encoder.", "layernorm.")


class _PlainClassifier(TorchModel):
    """A backbone and one linear layer on standardised mel spectrograms, which `set_up` makes."""

    _mel: MelSpectrogram
    _backbone: nn.Module
    _classifier: nn.Module

    def preprocess(self, audio: Tensor) -> Tensor:
        """Standardised mel spectrogram in dB, float32, shape (n, 1, bands, frames)."""
        db = power_to_db(self._mel(audio), top_db=80.0)
        return db.add_(4.268).div_(4.569).unsqueeze(1)

    def __call__(self, x: Tensor) -> Tensor:
        """Embeddings, float32, shape (n, dim)."""
        embeddings: Tensor = self._backbone(x).pooler_output
        return embeddings

    def classifier_predictions(self, embeddings: Tensor) -> Tensor:
        """Sigmoid scores, float32, shape (n, n_classes)."""
        scores: Tensor = self._classifier(embeddings).sigmoid()
        return scores


class ConvNextBirdSet(_PlainClassifier):
    """ConvNeXt-Base on mel spectrograms of 128 bands; one sigmoid score per species.

    The number of classes is that of the checkpoint.
    """

    def set_up(self) -> None:
        config, path = self.paths
        state = _read(path)
        n_classes, width = _shape(state, "classifier.weight", self.card.name, path)
        classifier = nn.Linear(width, n_classes)
        network = _network(nn.ModuleDict({"classifier": classifier}))
        self.fit(network, path, state, rename=_name_in_network)
        fuse_blocks(network["backbone"])
        self._backbone = self.place(network["backbone"])
        self._classifier = self.place(FusedLinear(classifier))
        self.name_classes(n_classes, config)
        filters = mel_filterbank(sample_rate=self.sr, n_fft=1024, n_mels=128)
        self._mel = self.place(MelSpectrogram(filters, hop=320))


class EfficientNetBirdSet(_PlainClassifier):
    """EfficientNet-B1 on mel spectrograms of 256 bands; one sigmoid score per species.

    The shape of the network is that of ``config.json``, the number of classes that of the
    checkpoint.
    """

    def set_up(self) -> None:
        config, path = self.paths
        state = _read(path)
        n_classes, width = _shape(state, "classifier.weight", self.card.name, path)
        settings = EfficientNetConfig.from_dict(read_json(config))
        classifier = nn.Linear(width, n_classes)
        network = nn.ModuleDict(
            {
                "backbone": build_empty(lambda: EfficientNetModel(settings)),
                "head": nn.ModuleDict({"classifier": classifier}),
            }
        )
        self.fit(network, path, state, rename=_name_in_network)
        self._backbone = self.place(network["backbone"])
        self._classifier = self.place(classifier)
        self.name_classes(n_classes, config)
        filters = mel_filterbank(sample_rate=self.sr, n_fft=2048, n_mels=256)
        self._mel = self.place(MelSpectrogram(filters, hop=256))


class AudioProtoPNet(TorchModel):
    """ConvNeXt-Base on mel spectrograms of 256 bands; scores by likeness to prototypes.

    The prototypes are compared with the whole feature map, of which an embedding is the mean:
    scores cannot be had from embeddings.  The numbers of classes and prototypes are those of the
    checkpoint.
    """

    one_pass = True

    def set_up(self) -> None:
        config, path = self.paths
        state = _read(path)
        n_classes, per_class = _shape(state, "last_layer.weight", self.card.name, path)
        head = PrototypeHead(channels=self.card.dim, n_classes=n_classes, per_class=per_class)
        network = _network(head)
        self.fit(
            network,
            path,
            state,
            rename=_name_in_network,
            # The class of each prototype, which follows from their order.
            unused=("prototype_class_identity",),
        )
        head.normalize_prototypes()
        fuse_blocks(network["backbone"])
        self._backbone = self.place(network["backbone"])
        fuse_linears(head)
        self._head = self.place(FullPrecision(head))
        self.name_classes(n_classes, config)
        filters = mel_filterbank(sample_rate=self.sr, n_fft=2048, n_mels=256)
        self._mel = self.place(MelSpectrogram(filters, hop=256))

    def preprocess(self, audio: Tensor) -> Tensor:
        """Standardised mel spectrogram in dB, float32, shape (n, 1, 256, 626)."""
        db = power_to_db(self._mel(audio), top_db=80.0)
        return db.add_(13.369).div_(13.162).unsqueeze(1)

    def __call__(self, x: Tensor) -> Tensor:
        """Embeddings, float32, shape (n, 1024)."""
        return self.infer(x)[0]

    def infer(self, x: Tensor, *, scores: bool = False) -> tuple[Tensor, Tensor | None]:
        """Embeddings (n, 1024) and, when asked for, sigmoid scores (n, n_classes), float32."""
        output = self._backbone(x)
        likely = self._head(output.last_hidden_state).sigmoid() if scores else None
        return output.pooler_output, likely


class AudioProtoPNet20(AudioProtoPNet):
    """The one with 20 prototypes of each class."""


def _network(head: nn.Module) -> nn.ModuleDict:
    config = ConvNextConfig(
        num_channels=1, hidden_sizes=[128, 256, 512, 1024], depths=[3, 3, 27, 3]
    )
    return nn.ModuleDict({"backbone": build_empty(lambda: ConvNextModel(config)), "head": head})


def _read(path: Path) -> dict[str, Tensor]:
    return {strip_prefixes(key, _PREFIXES): value for key, value in read_checkpoint(path).items()}


def _name_in_network(key: str) -> str:
    return f"backbone.{key}" if key.startswith(_BACKBONE) else f"head.{key}"


def _shape(state: Mapping[str, Tensor], key: str, model: str, path: Path) -> tuple[int, int]:
    if key not in state or state[key].ndim != 2:
        raise CheckpointError(
            f"{path}: these are not the weights of {model}; expected its class head under "
            f"{key!r} (with or without the names of enclosing modules before it)."
        )
    rows, columns = state[key].shape
    return rows, columns


def fuse_blocks(network: Any) -> None:
    """Replace the blocks of a network by ones that compute the same faster, in place.

    Parameters
    ----------
    network : transformers.ConvNextModel
        In evaluation, with its final weights.
    """
    for stage in network.encoder.stages:
        stage.layers = nn.ModuleList(_Block(layer) for layer in stage.layers)
        for position, layer in enumerate(stage.downsampling_layer):
            if isinstance(layer, nn.Conv2d):
                stage.downsampling_layer[position] = FusedConv2d(layer)


class _Block(nn.Module):
    """Filter each channel, widen, narrow, and add to the input; channels last throughout."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.filter = FusedConv2d(layer.dwconv)
        self.norm = layer.layernorm
        self.widen = FusedLinear(layer.pwconv1, GELU)
        scale = layer.layer_scale_parameter
        narrow = layer.pwconv2 if scale is None else scale_outputs(layer.pwconv2, scale)
        self.narrow = FusedLinear(narrow)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.filter(x).permute(0, 2, 3, 1))
        y = self.narrow(self.widen(y), x.permute(0, 2, 3, 1))
        return y.permute(0, 3, 1, 2)


# What follows is written from the definition of the head in the authors' repository, with its
# defaults: bilinear upsampling, two epsilon channels, cosine activation, no frequency weights.
_EPSILON = 1e-4
_EPSILON_CHANNELS = 2
# Added to squared lengths: that of the epsilon channels, and once more epsilon.
_EPSILON_ENERGY = _EPSILON_CHANNELS * _EPSILON**2 + _EPSILON
# The authors divide by it to keep an arc cosine of their training loss off its poles.
_POLE_MARGIN = 1.01
_UPSAMPLING = 2
# Prototypes whose activation maps are held at once: few enough for the caches of a processor.
_CHUNK = 1024


class PrototypeHead(nn.Module):
    """Class logits from the likeness of a feature map to learnt prototypes.

    The names of the parameters are those of the authors' checkpoint, until
    `normalize_prototypes` is called.

    Parameters
    ----------
    channels : int
        Channels of the feature map.
    n_classes : int
        Classes.
    per_class : int
        Prototypes of each class.
    """

    def __init__(self, *, channels: int, n_classes: int, per_class: int) -> None:
        super().__init__()
        self.prototype_vectors = nn.Parameter(torch.zeros(n_classes * per_class, channels, 1, 1))
        self.last_layer = _OwnPrototypes(n_classes, per_class)
        self.likeness = nn.ModuleList()

    @torch.no_grad()
    def normalize_prototypes(self) -> None:
        """Turn the prototypes into the linear layers that compare with them, once loaded."""
        for vectors in self.prototype_vectors.flatten(1).split(_CHUNK):
            length = (vectors.square().sum(dim=1) + _EPSILON_ENERGY).sqrt() + _EPSILON
            layer = nn.Linear(vectors.shape[1], len(vectors), device="meta")
            layer.weight = nn.Parameter(vectors / length[:, None])
            # What the epsilon channels of map and prototype give when multiplied.
            layer.bias = nn.Parameter(_EPSILON_CHANNELS * _EPSILON**2 / length)
            self.likeness.append(layer)
        del self.prototype_vectors

    def forward(self, features: Tensor) -> Tensor:
        """Class logits.

        Parameters
        ----------
        features : torch.Tensor, float32, shape (n, channels, height, width)

        Returns
        -------
        torch.Tensor, float32, shape (n, n_classes)
        """
        energy = _upsample(features).square().sum(dim=1, keepdim=True)
        length = (energy + _EPSILON_ENERGY).sqrt()
        points = features.permute(0, 2, 3, 1).contiguous()
        strongest = []
        for layer in self.likeness:
            # Interpolation and dot product are both linear, so the product can be taken on the
            # coarse grid, at a quarter of the cost, and be interpolated afterwards.
            product = _upsample(layer(points).permute(0, 3, 1, 2))
            strongest.append(product.div_(length).amax(dim=(2, 3)))
        # The authors' rectifier, taken after the maximum, gives the same.
        activations = torch.cat(strongest, dim=1).relu() / _POLE_MARGIN
        logits: Tensor = self.last_layer(activations)
        return logits


class _OwnPrototypes(nn.Module):
    """Linear layer in which a class sees its own prototypes only, with weights above zero."""

    def __init__(self, n_classes: int, per_class: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_classes, per_class))
        self.bias = nn.Parameter(torch.zeros(n_classes))

    def forward(self, activations: Tensor) -> Tensor:
        own = activations.unflatten(1, self.weight.shape)
        return (own * self.weight.relu()).sum(dim=2) + self.bias


def _upsample(maps: Tensor) -> Tensor:
    return F.interpolate(maps, scale_factor=_UPSAMPLING, mode="bilinear", align_corners=False)
