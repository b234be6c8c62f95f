"""AudioMAE: a vision transformer over ten seconds of log-mel spectrogram.

References
----------
Huang et al. 2022, Masked Autoencoders that Listen, arXiv 2207.06405;
https://github.com/facebookresearch/AudioMAE
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from bacpipe.models.backends.pytorch import TorchModel, fit_weights, read_checkpoint
from bacpipe.models.card import ModelCard
from bacpipe.models.families.vit_blocks import fuse_blocks
from bacpipe.models.kaldi import KaldiFbank
from bacpipe.models.weights.containers import state_dict_in

_FRAMES = 1024
_MEAN, _DEVIATION = -4.2677393, 4.5689974


class AudioMae(TorchModel):
    """ViT-Base of AudioMAE, fine-tuned on AudioSet; the mean of its patch tokens.

    Parameters
    ----------
    card : ModelCard
        Card of the model.
    files : mapping of str to Path
        The checkpoint under ``card.files[0]``.
    device : str
        Where it computes.

    Raises
    ------
    CheckpointError
        If the checkpoint is damaged or does not fit.
    """

    def __init__(self, *, card: ModelCard, files: Mapping[str, Path], device: str) -> None:
        super().__init__(card=card, files=files, device=device)
        path = self.files[card.files[0]]
        # The authors' file also holds the arguments of the training script.
        content = read_checkpoint(path, allow=(argparse.Namespace,))
        network = _vision_transformer()
        fit_weights(
            network,
            state_dict_in(content, "model", model=card.name, path=path),
            model=card.name,
            path=path,
            unused=("head.*",),
        )
        network.blocks = fuse_blocks(network.blocks)
        self._network = self.place(network)
        self._fbank = self.place(KaldiFbank(card.sample_rate, window="hanning"))

    def preprocess(self, audio: Tensor) -> Tensor:
        """Normalised log-mel spectrogram, time first, float32, shape (n, 1, 1024, 128)."""
        features = self._fbank(audio - audio.mean(dim=1, keepdim=True))
        padded = features.new_zeros((len(features), 1, _FRAMES, features.shape[2]))
        frames = min(features.shape[1], _FRAMES)
        padded[:, 0, :frames] = features[:, :frames]
        return padded.sub_(_MEAN).div_(2 * _DEVIATION)

    def __call__(self, x: Tensor) -> Tensor:
        """Embeddings, float32, shape (n, 768)."""
        embeddings: Tensor = self._network(x)
        return embeddings


def _vision_transformer() -> VisionTransformer:
    # Built without initial values, which would take longer than reading the checkpoint.
    with torch.device("meta"):
        network: Any = timm.create_model(
            "vit_base_patch16_224",
            img_size=(_FRAMES, 128),
            in_chans=1,
            num_classes=0,
            global_pool="avg",
        )
    ready: VisionTransformer = network.to_empty(device="cpu")
    return ready
