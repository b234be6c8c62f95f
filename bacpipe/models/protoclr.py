"""ProtoCLR: a convolutional vision transformer trained on bird songs, robust to the domain.

References
----------
Moummad et al. 2024, Domain-Invariant Representation Learning of Bird Sounds,
arXiv 2409.08589; https://github.com/ilyassmoummad/ProtoCLR.  The network is CvT-13 of
Wu et al. 2021, CvT: Introducing Convolutions to Vision Transformers, arXiv 2103.15808.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn
from transformers import CvtConfig, CvtModel

from bacpipe.models.backends.pytorch import TorchModel, fit_weights, read_checkpoint
from bacpipe.models.card import ModelCard
from bacpipe.models.frontends import (
    MelSpectrogram,
    mel_filterbank,
    min_max,
    power_to_db,
)
from bacpipe.models.networks.cvt import fuse_layers

# Names in the authors' CvT, and in transformers' one.
_RENAMED = (
    (r"^norm\.", "norm."),
    (r"^stage(\d)\.", r"cvt.encoder.stages.\1."),
    (r"\.patch_embed\.proj\.", ".embedding.convolution_embeddings.projection."),
    (r"\.patch_embed\.norm\.", ".embedding.convolution_embeddings.normalization."),
    (r"\.blocks\.", ".layers."),
    (
        r"\.attn\.conv_proj_([qkv])\.",
        r".attention.attention.convolution_projection_\1.convolution_projection.",
    ),
    (r"\.attn\.proj_([qkv])\.", r".attention.attention.projection_\1."),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"(projection)_q\.", r"\1_query."),
    (r"(projection)_k\.", r"\1_key."),
    (r"(projection)_v\.", r"\1_value."),
    (r"\.conv\.", ".convolution."),
    (r"\.bn\.", ".normalization."),
)


class ProtoClr(TorchModel):
    """Class token of CvT-13 on the spectrogram.

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
        cvt, norm = CvtModel(CvtConfig(num_channels=1)), nn.LayerNorm(card.dim)
        network = nn.ModuleDict({"cvt": cvt, "norm": norm})
        fit_weights(
            network, read_checkpoint(path), model=card.name, path=path, rename=_name_in_transformers
        )
        fuse_layers(cvt.eval())
        self._cvt, self._norm = self.place(cvt), self.place(norm)
        filters = mel_filterbank(sample_rate=16000, n_fft=1024, n_mels=128, f_min=50, f_max=8000)
        self._mel = self.place(MelSpectrogram(filters, hop=320))

    def preprocess(self, audio: torch.Tensor) -> torch.Tensor:
        """Mel spectrogram in dB, scaled to 0 … 1 per window, float32, (n, 128, 301)."""
        return min_max(power_to_db(self._mel(audio)))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Embeddings, float32, shape (n, 384)."""
        token = self._cvt(x.unsqueeze(1)).cls_token_value[:, 0]
        embeddings: torch.Tensor = self._norm(token)
        return embeddings


def _name_in_transformers(key: str) -> str:
    for pattern, replacement in _RENAMED:
        key = re.sub(pattern, replacement, key)
    return key
