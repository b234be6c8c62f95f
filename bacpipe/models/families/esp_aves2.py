"""ESP-AVES2: encoders of the Earth Species Project that learnt the species of animal sounds.

References
----------
Miron et al. 2025, What Matters for Bioacoustic Encoding, arXiv 2508.11845;
https://github.com/earthspecies/avex
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn
from torchvision.models import efficientnet_b0

from bacpipe.errors import CheckpointError
from bacpipe.models.backends.pytorch import TorchModel, build_empty, read_checkpoint
from bacpipe.models.families.beats import ITERATION_3, Beats
from bacpipe.models.frontends import MelSpectrogram, mel_filterbank, min_max
from bacpipe.models.weights.containers import strip_prefixes

# Modules that avex, and distributed training, put around the networks.
_PREFIXES = ("module.", "model.", "backbone.")

_LOG_FLOOR = 1e-6


class SupervisedBeats(Beats):
    """BEATs (iteration 3) with a linear classifier on the mean of its tokens."""

    def set_up(self) -> None:
        path = self.paths[0]
        state = _read(path)
        head = {key: state.pop(key) for key in list(state) if key.startswith("classifier.")}
        classifier = nn.Linear(ITERATION_3.encoder_embed_dim, _n_classes(head, "weight", path))
        self.build(ITERATION_3, path, state)
        self.fit(classifier, path, head, rename=lambda key: key.removeprefix("classifier."))
        self._classifier = self.place(classifier)
        self.name_classes(classifier.out_features)

    def classifier_predictions(self, embeddings: Tensor) -> Tensor:
        """Sigmoid scores, float32, shape (n, n_classes)."""
        scores: Tensor = self._classifier(embeddings).sigmoid()
        return scores


class SupervisedEfficientNet(TorchModel):
    """EfficientNet-B0 on mel spectrograms of 128 bands, with a linear classifier."""

    def set_up(self) -> None:
        path = self.paths[0]
        state = _read(path)
        count = _n_classes(state, "1.weight", path)
        network = build_empty(lambda: efficientnet_b0(num_classes=count))
        self.fit(network, path, state)
        network = self.place(network)
        self._classifier, network.classifier = network.classifier, nn.Identity()
        self._network = network
        self.name_classes(count)
        filters = mel_filterbank(sample_rate=self.sr, n_fft=800, n_mels=128)
        self._mel = self.place(MelSpectrogram(filters, hop=160))

    def preprocess(self, audio: Tensor) -> Tensor:
        """Logarithmic mel spectrogram from 0 to 1, float32, shape (n, 1, 128, 1001)."""
        return min_max(self._mel(audio).add_(_LOG_FLOOR).log_()).unsqueeze(1)

    def __call__(self, x: Tensor) -> Tensor:
        """Embeddings, float32, shape (n, 1280)."""
        # It began as a network for images: three channels, all of them the spectrogram.
        embeddings: Tensor = self._network(x.expand(-1, 3, -1, -1))
        return embeddings

    def classifier_predictions(self, embeddings: Tensor) -> Tensor:
        """Sigmoid scores, float32, shape (n, n_classes)."""
        scores: Tensor = self._classifier(embeddings).sigmoid()
        return scores


def _read(path: Path) -> dict[str, Tensor]:
    return {strip_prefixes(key, _PREFIXES): value for key, value in read_checkpoint(path).items()}


def _n_classes(state: dict[str, Tensor], layer: str, path: Path) -> int:
    weight = state.get(f"classifier.{layer}")
    if weight is None or weight.ndim != 2:
        raise CheckpointError(
            f"{path}: these weights have no classifier (classifier.{layer}); use the file that "
            f"the Earth Species Project published."
        )
    return len(weight)
