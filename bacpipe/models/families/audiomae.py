"""AudioMAE: a vision transformer over ten seconds of log-mel spectrogram.

References
----------
Huang et al. 2022, Masked Autoencoders that Listen, arXiv 2207.06405;
https://github.com/facebookresearch/AudioMAE
"""

from __future__ import annotations

import timm
from torch import Tensor, nn

from bacpipe.models.backends.cpu.fusion import fuse_linears
from bacpipe.models.backends.pytorch import TorchModel, build_empty
from bacpipe.models.kaldi import KaldiFbank

_FRAMES = 1024
_MEAN, _DEVIATION = -4.2677393, 4.5689974


class AudioMae(TorchModel):
    """ViT-Base of AudioMAE, fine-tuned on AudioSet; the mean of its patch tokens."""

    def set_up(self) -> None:
        (path,) = self.paths
        network: nn.Module = build_empty(
            lambda: timm.create_model(
                "vit_base_patch16_224",
                img_size=(_FRAMES, 128),
                in_chans=1,
                num_classes=0,
                global_pool="avg",
            )
        )
        self.fit(network, path, within="model", unused=("head.*",))
        fuse_linears(network)
        self._network = self.place(network)
        self._fbank = self.place(KaldiFbank(self.sr, window="hanning"))

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
