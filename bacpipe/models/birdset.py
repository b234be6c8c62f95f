"""ConvNeXt models of BirdSet: a plain classifier of bird sounds, and one with prototypes.

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

import torch
from torch import Tensor, nn
from transformers import ConvNextConfig, ConvNextModel

from bacpipe.errors import CheckpointError
from bacpipe.models.backends.packed import PackedLinear, pack_linears
from bacpipe.models.backends.pytorch import TorchModel, fit_weights, read_checkpoint
from bacpipe.models.card import ModelCard
from bacpipe.models.containers import numbered_classes, read_json, strip_prefixes
from bacpipe.models.ebird import common_names
from bacpipe.models.frontends import MelSpectrogram, mel_filterbank, power_to_db
from bacpipe.models.networks.convnext import fuse_blocks
from bacpipe.models.networks.protopnet import PrototypeHead

# Modules that the repositories, old and new, wrap around backbone and head.
_PREFIXES = ("model.", "convnext.", "backbone.", "backbone_model.", "head.")
_BACKBONE = ("embeddings.", "encoder.", "layernorm.")


class ConvNextBirdSet(TorchModel):
    """ConvNeXt-Base on mel spectrograms of 128 bands; one sigmoid score per species.

    Weights are taken from safetensors only, never from a ``pytorch_model.bin``.  The number of
    classes is that of the checkpoint.

    Parameters
    ----------
    card : ModelCard
        Card of the model.
    files : mapping of str to Path
        ``config.json`` and ``model.safetensors``.
    device : str
        Where it computes.

    Raises
    ------
    CheckpointError
        If the checkpoint is damaged or does not fit.
    """

    def __init__(self, *, card: ModelCard, files: Mapping[str, Path], device: str) -> None:
        super().__init__(card=card, files=files, device=device)
        config, path = (self.files[name] for name in card.files)
        state = _read(path)
        n_classes, width = _shape(state, "classifier.weight", card.name, path)
        classifier = nn.Linear(width, n_classes)
        network = _network(nn.ModuleDict({"classifier": classifier}))
        fit_weights(network, state, model=card.name, path=path, rename=_name_in_network)
        fuse_blocks(network["backbone"])
        self._backbone = self.place(network["backbone"])
        self._classifier = self.place(PackedLinear(classifier))
        self.classes = _class_names(config, n_classes)
        filters = mel_filterbank(sample_rate=card.sample_rate, n_fft=1024, n_mels=128)
        self._mel = MelSpectrogram(filters, hop=320).to(device)

    def preprocess(self, audio: Tensor) -> Tensor:
        """Standardised mel spectrogram in dB, float32, shape (n, 1, 128, 501)."""
        db = power_to_db(self._mel(audio), top_db=80.0)
        return db.add_(4.268).div_(4.569).unsqueeze(1)

    def __call__(self, x: Tensor) -> Tensor:
        """Embeddings, float32, shape (n, 1024)."""
        embeddings: Tensor = self._backbone(x).pooler_output
        return embeddings

    def classifier_predictions(self, embeddings: Tensor) -> Tensor:
        """Sigmoid scores, float32, shape (n, n_classes)."""
        scores: Tensor = self._classifier(embeddings).sigmoid()
        return scores


class AudioProtoPNet(TorchModel):
    """ConvNeXt-Base on mel spectrograms of 256 bands; scores by likeness to prototypes.

    The prototypes are compared with the whole feature map, of which an embedding is the mean:
    scores cannot be had from embeddings.  Weights are taken from safetensors only, never from a
    ``pytorch_model.bin``.  The numbers of classes and prototypes are those of the checkpoint.

    Parameters
    ----------
    card : ModelCard
        Card of the model.
    files : mapping of str to Path
        ``config.json`` and ``model.safetensors``.
    device : str
        Where it computes.

    Raises
    ------
    CheckpointError
        If the checkpoint is damaged or does not fit.
    """

    one_pass = True

    def __init__(self, *, card: ModelCard, files: Mapping[str, Path], device: str) -> None:
        super().__init__(card=card, files=files, device=device)
        config, path = (self.files[name] for name in card.files)
        state = _read(path)
        n_classes, per_class = _shape(state, "last_layer.weight", card.name, path)
        head = PrototypeHead(channels=card.dim, n_classes=n_classes, per_class=per_class)
        network = _network(head)
        fit_weights(
            network,
            state,
            model=card.name,
            path=path,
            rename=_name_in_network,
            # The class of each prototype, which follows from their order.
            unused=("prototype_class_identity",),
        )
        head.normalize_prototypes()
        fuse_blocks(network["backbone"])
        self._backbone = self.place(network["backbone"])
        self._head = self.place(pack_linears(head))
        self.classes = _class_names(config, n_classes)
        filters = mel_filterbank(sample_rate=card.sample_rate, n_fft=2048, n_mels=256)
        self._mel = MelSpectrogram(filters, hop=256).to(device)

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
        found = self._head(output.last_hidden_state).sigmoid() if scores else None
        return output.pooler_output, found


def _network(head: nn.Module) -> nn.ModuleDict:
    # Built without initial values, which would take longer than reading the checkpoint.
    with torch.device("meta"):
        backbone = ConvNextModel(
            ConvNextConfig(num_channels=1, hidden_sizes=[128, 256, 512, 1024], depths=[3, 3, 27, 3])
        )
    return nn.ModuleDict({"backbone": backbone.to_empty(device="cpu"), "head": head})


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


def _class_names(config: Path, count: int) -> tuple[str, ...]:
    """Common names of birds, or eBird's codes of them, or numbers: whatever is at hand."""
    labels = read_json(config).get("id2label")
    if not isinstance(labels, dict) or set(labels) != {str(i) for i in range(count)}:
        return numbered_classes(count)
    codes = [str(labels[str(i)]) for i in range(count)]
    return common_names(codes, (config.parent, config.parent.parent))
