"""BEATs, and NatureBEATs: the same network trained on animal sounds.

References
----------
Chen et al. 2022, BEATs: Audio Pre-Training with Acoustic Tokenizers, arXiv 2212.09058;
https://github.com/microsoft/unilm/tree/master/beats

Robinson et al. 2025, NatureLM-audio: an audio-language foundation model for bioacoustics,
arXiv 2411.07186; https://github.com/earthspecies/NatureLM-audio
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bacpipe.errors import CheckpointError
from bacpipe.models.backends.pytorch import TorchModel, fit_weights, read_checkpoint
from bacpipe.models.card import ModelCard
from bacpipe.models.containers import state_dict_in
from bacpipe.models.kaldi import KaldiFbank
from bacpipe.models.networks.beats import BeatsNetwork
from bacpipe.models.networks.beats import BeatsConfig

_INT16 = 2**15
_MEAN, _DEVIATION = 15.41663, 6.55582

# Settings of a checkpoint that are one variant in all of them, the only one written here.
_VARIANT = {
    "activation_fn": "gelu",
    "layer_norm_first": False,
    "relative_position_embedding": True,
    "gru_rel_pos": True,
}

_RENAMED = {
    "encoder.pos_conv.0.bias": "encoder.pos_conv.bias",
    "encoder.pos_conv.0.weight_g": "encoder.pos_conv.parametrizations.weight.original0",
    "encoder.pos_conv.0.weight_v": "encoder.pos_conv.parametrizations.weight.original1",
    "encoder.layers.0.self_attn.relative_attention_bias.weight": (
        "encoder.relative_attention_bias.weight"
    ),
}

_UNUSED = (
    "predictor.*",
    # One embedding that all layers share, listed once for each of them.
    "encoder.layers.[1-9]*.self_attn.relative_attention_bias.weight",
)


class Beats(TorchModel):
    """BEATs (iteration 3), fine-tuned on AudioSet; the mean of its tokens.

    Parameters
    ----------
    card : ModelCard
        Card of the model.
    files : mapping of str to Path
        The checkpoint with the network's configuration under ``card.files[0]`` and, for a
        model with weights of its own, those under ``card.files[1]``.
    device : str
        Where it computes.

    Raises
    ------
    CheckpointError
        If a checkpoint is damaged or does not fit.
    """

    def __init__(self, *, card: ModelCard, files: Mapping[str, Path], device: str) -> None:
        super().__init__(card=card, files=files, device=device)
        path = self.files[card.files[0]]
        content = read_checkpoint(path)
        # Built without initial values, which would take longer than reading the checkpoint.
        with torch.device("meta"):
            network = BeatsNetwork(_config_in(content, model=card.name, path=path))
        network = network.to_empty(device="cpu")
        weights_path, state = self._weights(content)
        fit_weights(
            network,
            state,
            model=card.name,
            path=weights_path,
            rename=lambda key: _RENAMED.get(key, key),
            unused=_UNUSED,
        )
        network.fuse()
        self._network = self.place(network)
        self._fbank = self.place(KaldiFbank(card.sample_rate))

    def _weights(self, content: Any) -> tuple[Path, Mapping[str, Tensor]]:
        """Weights, and the file that they are from, given the content of the first file."""
        path = self.files[self.card.files[0]]
        return path, state_dict_in(content, "model", model=self.card.name, path=path)

    def preprocess(self, audio: Tensor) -> Tensor:
        """Normalised log-mel spectrogram, time first, float32, shape (n, 498, 128)."""
        features: Tensor = self._fbank(audio * _INT16)
        return features.sub_(_MEAN).div_(2 * _DEVIATION)

    def __call__(self, x: Tensor) -> Tensor:
        """Embeddings, float32, shape (n, 768)."""
        tokens: Tensor = self._network(x)
        return tokens.mean(dim=1)


class NatureBeats(Beats):
    """Audio encoder of NatureLM-audio: BEATs trained further on animal sounds.

    Its checkpoint holds weights alone; the configuration is that of `Beats`.
    """

    def _weights(self, content: Any) -> tuple[Path, Mapping[str, Tensor]]:
        path = self.files[self.card.files[1]]
        return path, read_checkpoint(path)

    def preprocess(self, audio: Tensor) -> Tensor:
        """Normalised log-mel spectrogram of the waveform cut at ±1, shape (n, 498, 128)."""
        return super().preprocess(audio.clamp(-1.0, 1.0))


def _config_in(content: Any, *, model: str, path: Path) -> BeatsConfig:
    cfg = content.get("cfg") if isinstance(content, Mapping) else None
    names = [field.name for field in fields(BeatsConfig)]
    if not isinstance(cfg, Mapping) or not all(name in cfg for name in names):
        raise CheckpointError(
            f"{path}: this is not the checkpoint of {model}; expected the network's "
            f"configuration under the key 'cfg'. Use the file that the authors published."
        )
    for name, expected in _VARIANT.items():
        if cfg.get(name, expected) != expected:
            raise CheckpointError(
                f"{path}: the network has {name}={cfg[name]!r}, but {model} needs "
                f"{name}={expected!r}; use the checkpoint that the authors published."
            )
    return BeatsConfig(**{name: cfg[name] for name in names})
