"""InsectEffNet: EfficientNetV2-S trained on the sounds of insects, with 66 or 459 species.

References
----------
Faiss and Stowell 2023, Adaptive representations of sound for automatic insect recognition, PLOS
Computational Biology, 10.1371/journal.pcbi.1011541; Faiss et al. 2025, InsectSet459,
arXiv 2503.15074; https://github.com/danstowell/insect_classifier_GDSC23_insecteffnet
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
from torch import Tensor, nn

from bacpipe.errors import CheckpointError
from bacpipe.models.backends.cpu.fusion import fuse, speed_up_convolutions
from bacpipe.models.backends.pytorch import TorchModel, read_checkpoint
from bacpipe.models.frontends import MelSpectrogram, power_to_db
from bacpipe.models.weights.containers import state_dict_in
from bacpipe.models.weights.torchscript import read_torchscript

_HEAD = "backbone.classifier.weight"
_WINDOW = "mel_spec.spectrogram.window"
_FILTERBANK = "mel_spec.mel_scale.fb"

# config_insecteffnet.yaml in the authors' repository: what the checkpoint does not tell.
_HOP = 1024
_TOP_DB = 80.0


class _Features(nn.Module):
    """The network without its classifier."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        maps = self.network.forward_features(x)
        pooled: Tensor = self.network.forward_head(maps, pre_logits=True)
        return pooled


class _InsectEffNet(TorchModel):
    """Pooled features of EfficientNetV2-S on the mel spectrogram, and its class head.

    The classes are the sorted species of the training recordings, as notebook 01 of the authors
    numbers them: read from the table of these recordings, or from the ``classlist.csv`` (columns
    label and species) which that notebook writes.
    """

    def set_up(self) -> None:
        (path,) = self.paths
        state = self._read(path)
        missing = [key for key in (_HEAD, _WINDOW, _FILTERBANK) if key not in state]
        if missing:
            raise CheckpointError(
                f"{path}: these are not the weights of {self.card.name}; "
                f"missing {', '.join(missing)}."
            )
        n_classes = len(state[_HEAD])
        network: Any = timm.create_model(
            "tf_efficientnetv2_s.in21k", pretrained=False, in_chans=1, num_classes=n_classes
        )
        self.fit(
            network,
            path,
            state,
            rename=lambda key: key.removeprefix("backbone."),
            # The front end, which is registered under two names.
            unused=("mel_spec.*", "wav2img.*", "wav2timefreq.*"),
        )
        speed_up_convolutions(network)
        self.place(network)
        self._classifier = network.classifier
        self._features = fuse(_Features(network), self.device)
        self._mel = self.place(
            MelSpectrogram(state[_FILTERBANK], window=state[_WINDOW], hop=_HOP, normalized=True)
        )
        self.name_classes(n_classes)

    def preprocess(self, audio: Tensor) -> Tensor:
        """Mel spectrogram in dB, at most 80 dB below its maximum, float32, (n, 1, 128, 237)."""
        return power_to_db(self._mel(audio), top_db=_TOP_DB).unsqueeze(1)

    def __call__(self, x: Tensor) -> Tensor:
        """Embeddings, float32, shape (n, 1280)."""
        embeddings: Tensor = self._features(x)
        return embeddings

    def classifier_predictions(self, embeddings: Tensor) -> Tensor:
        """Softmax scores, float32, shape (n, n_classes); training used cross entropy."""
        scores: Tensor = self._classifier(embeddings).softmax(dim=1)
        return scores

    def _read(self, path: Path) -> Mapping[str, Tensor]:
        raise NotImplementedError


class Insect66(_InsectEffNet):
    """InsectEffNet for the 66 species of InsectSet66."""

    def _read(self, path: Path) -> Mapping[str, Tensor]:
        return read_torchscript(path)


class Insect459(_InsectEffNet):
    """InsectEffNet for the 459 species of InsectSet459."""

    def _read(self, path: Path) -> Mapping[str, Tensor]:
        content = read_checkpoint(path)
        state = state_dict_in(content, "state_dict", model=self.card.name, path=path)
        # loss_fn.weight holds the weights of the classes in the loss.
        return {
            key.removeprefix("model."): value
            for key, value in state.items()
            if not key.startswith("loss_fn.")
        }
