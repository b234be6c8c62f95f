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
from typing import Any

import torch
from torch import Tensor, nn
from transformers import ConvNextConfig, ConvNextModel

from bacpipe.errors import CheckpointError
from bacpipe.models.backends.pytorch import TorchModel, fit_weights, read_checkpoint
from bacpipe.models.card import ModelCard
from bacpipe.models.containers import numbered_classes, read_json, strip_prefixes
from bacpipe.models.ebird import common_names
from bacpipe.models.frontends import MelSpectrogram, mel_filterbank, power_to_db
from bacpipe.models.networks.protopnet import PrototypeHead

_TOP_DB = 80.0


class _BirdSetModel(TorchModel):
    """What both models share: ConvNeXt-Base on a standardised mel spectrogram.

    Weights are read from safetensors only; a ``pytorch_model.bin`` is not.

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

    # Modules that a repository may wrap around the network, under any combination of names.
    _PREFIXES = ("model.", "convnext.", "backbone.", "backbone_model.", "head.")
    _UNUSED: tuple[str, ...] = ()

    def __init__(self, *, card: ModelCard, files: Mapping[str, Path], device: str) -> None:
        super().__init__(card=card, files=files, device=device)
        config_path, path = (self.files[name] for name in card.files)
        state = {
            strip_prefixes(key, self._PREFIXES): value
            for key, value in read_checkpoint(path).items()
        }
        try:
            head = self._head(state)
        except (KeyError, ValueError) as error:
            raise CheckpointError(
                f"{path}: these are not the weights of {card.name}; expected its class head "
                f"({error} is missing or of another shape)."
            ) from error
        network = _ConvNextWith(head)
        fit_weights(
            network,
            state,
            model=card.name,
            path=path,
            rename=network.name_of,
            unused=self._UNUSED,
        )
        self._network = self.place(network).to(memory_format=torch.channels_last)
        self.classes = _class_names(config_path, network.n_classes)

    def __call__(self, x: Tensor) -> Tensor:
        """Embeddings, float32, shape (n, 1024)."""
        embeddings: Tensor = self._network.backbone(x).pooler_output
        return embeddings

    def _head(self, state: Mapping[str, Tensor]) -> nn.Module:
        raise NotImplementedError
