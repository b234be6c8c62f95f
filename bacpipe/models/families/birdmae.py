"""Bird-MAE: masked autoencoders pre-trained on bird sounds, in three sizes.

References
----------
Rauch et al. 2025, Can Masked Autoencoders Also Listen to Birds?, arXiv 2504.12880;
https://github.com/DBD-research-group/Bird-MAE
"""

from __future__ import annotations

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from bacpipe.models.backends.pytorch import TorchModel, build_empty, read_checkpoint
from bacpipe.models.kaldi import KaldiFbank
from bacpipe.models.weights.containers import strip_prefixes

_FRAMES = 512
_MEAN, _DEVIATION = -7.2, 4.43

# Blocks and heads by width: ViT-Base, Large and Huge.
SIZES = {768: (12, 12), 1024: (24, 16), 1280: (32, 16)}

# What the hub's wrapper classes may put before the names of the encoder.
_PREFIXES = ("model.", "encoder.", "vit.")

# The encoder's last norm gives way to the one after pooling; the rest belongs to the
# pre-training and to classifiers.
_UNUSED = ("norm.*", "mask_token", "decoder*", "head.*")


class BirdMae(TorchModel):
    """Vision transformer of Bird-MAE; the normalised mean of its patch tokens.

    The weights are read from the hub's safetensors file into timm's vision transformer; none
    of the repository's code runs.
    """

    def set_up(self) -> None:
        (path,) = self.paths
        depth, heads = SIZES[self.card.dim]
        network = build_empty(
            lambda: VisionTransformer(
                img_size=(_FRAMES, 128),
                patch_size=16,
                in_chans=1,
                num_classes=0,
                global_pool="avg",
                embed_dim=self.card.dim,
                depth=depth,
                num_heads=heads,
            )
        )
        state = {
            strip_prefixes(key, _PREFIXES): value for key, value in read_checkpoint(path).items()
        }
        self.fit(network, path, state, unused=_UNUSED)
        self._network = self.place(network)
        self._fbank = self.place(KaldiFbank(self.sr, window="hanning"))

    def preprocess(self, audio: Tensor) -> Tensor:
        """Normalised log-mel spectrogram, time first, float32, shape (n, 1, 512, 128).

        Frames that a window lacks have the value of its quietest one.
        """
        features = self._fbank(audio - audio.mean(dim=1, keepdim=True))[:, :_FRAMES]
        quietest = features.amin(dim=(1, 2))
        padded = quietest.view(-1, 1, 1, 1).repeat(1, 1, _FRAMES, features.shape[2])
        padded[:, 0, : features.shape[1]] = features
        return padded.sub_(_MEAN).div_(2 * _DEVIATION)

    def __call__(self, x: Tensor) -> Tensor:
        """Embeddings, float32, shape (n, dim)."""
        embeddings: Tensor = self._network(x)
        return embeddings


class BirdMaeBase(BirdMae):
    """The smallest one, ViT-Base."""


class BirdMaeLarge(BirdMae):
    """The one in the middle, ViT-Large."""
