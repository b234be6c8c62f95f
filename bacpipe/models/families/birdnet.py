"""BirdNET v2.4 in PyTorch, with the weights of its TFLite file.

Source: Kahl et al. 2021, Ecological Informatics 61, 101236;
https://github.com/birdnet-team/BirdNET-Analyzer.
"""

from __future__ import annotations

from pathlib import Path

import torch

from bacpipe.errors import CheckpointError
from bacpipe.models.backends.pytorch import TorchModel
from bacpipe.models.families.birdnet_network import BirdNetV24


class BirdNet(TorchModel):
    """BirdNET v2.4: windows of 3 s at 48 kHz to 1024 numbers and scores of 6522 classes.

    Attributes
    ----------
    classes : list of str
        Common names.
    scientific_names : list of str
        Scientific names, in the same order.
    """

    def set_up(self) -> None:
        weights, labels = self.paths
        network = BirdNetV24.from_tflite(weights)
        self.scientific_names, self.classes = read_labels(labels)
        if len(self.classes) != network.classifier.out_features:
            raise CheckpointError(
                f"{labels}: holds {len(self.classes)} class names, but {weights.name} has "
                f"{network.classifier.out_features} classes; both must be of the same version."
            )
        self.network = self.place(network)

    def preprocess(self, audio: torch.Tensor) -> torch.Tensor:
        """Turn windows into two mel spectrograms.

        Parameters
        ----------
        audio : torch.Tensor, float32, shape (n, 144000)

        Returns
        -------
        torch.Tensor, float32, shape (n, 2, 96, 511)
        """
        return self.network.spectrogram(audio)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.network.embed(x)

    def classifier_predictions(self, embeddings: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.network.head(embeddings))


def read_labels(path: Path) -> tuple[list[str], list[str]]:
    """Scientific and common names of the classes.

    Parameters
    ----------
    path : Path
        Text file with a line ``Scientific name_Common name`` per class.

    Raises
    ------
    CheckpointError
        If a line has another form.
    """
    scientific, common = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if not line.strip():
            continue
        name, separator, known_as = line.strip().partition("_")
        if not separator:
            raise CheckpointError(
                f"{path}: line {number} is {line.strip()!r}; expected "
                f"'Scientific name_Common name'."
            )
        scientific.append(name)
        common.append(known_as)
    return scientific, common
