"""AVES and BirdAVES: HuBERT encoders trained on animal sounds.

References
----------
Hagiwara 2023, AVES: Animal Vocalization Encoder based on Self-Supervision, arXiv 2210.14493;
https://github.com/earthspecies/aves
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torchaudio.models import Wav2Vec2Model, wav2vec2_model

from bacpipe.errors import CheckpointError
from bacpipe.models.backends.pytorch import TorchModel, fit_weights, read_checkpoint
from bacpipe.models.card import ModelCard
from bacpipe.models.containers import read_json
from bacpipe.models.networks.wav2vec2 import fuse_wav2vec2


class Aves(TorchModel):
    """Last layer of the encoder, averaged over time.

    Parameters
    ----------
    card : ModelCard
        Card of the model.
    files : mapping of str to Path
        The weights under ``card.files[0]`` and the arguments of
        ``torchaudio.models.wav2vec2_model`` under ``card.files[1]``.
    device : str
        Where it computes.

    Raises
    ------
    CheckpointError
        If a file is damaged or does not fit.
    """

    def __init__(self, *, card: ModelCard, files: Mapping[str, Path], device: str) -> None:
        super().__init__(card=card, files=files, device=device)
        weights, config = (self.files[name] for name in card.files)
        network = _wav2vec2(config)
        fit_weights(
            network,
            read_checkpoint(weights),
            model=card.name,
            path=weights,
            rename=_to_parametrization,
            unused=("aux.*",),
        )
        fuse_wav2vec2(network, card.window)
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
    # Built without initial values, which would take longer than reading the checkpoint.
    try:
        with torch.device("meta"):
            network = wav2vec2_model(**read_json(config), aux_num_out=None)
    except TypeError as error:
        raise CheckpointError(
            f"{config}: these are not the arguments of torchaudio's wav2vec2_model ({error}); "
            f"delete it, so that it is fetched again."
        ) from error
    return network.to_empty(device="cpu")


def _to_parametrization(key: str) -> str:
    """Name of a weight-norm tensor in current PyTorch; the checkpoints have the old names."""
    return key.replace("conv.weight_g", "conv.parametrizations.weight.original0").replace(
        "conv.weight_v", "conv.parametrizations.weight.original1"
    )
