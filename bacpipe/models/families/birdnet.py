"""BirdNET v2.4 in PyTorch, with the weights of its TFLite file.

Source: Kahl et al. 2021, Ecological Informatics 61, 101236;
https://github.com/birdnet-team/BirdNET-Analyzer.
"""

from __future__ import annotations

import torch

from bacpipe.models.backends.pytorch import TorchModel
from bacpipe.models.families.birdnet_network import BirdNetV24


class BirdNet(TorchModel):
    """BirdNET v2.4: windows of 3 s at 48 kHz to 1024 numbers and scores of 6522 classes."""

    def set_up(self) -> None:
        weights, labels = self.paths
        network = BirdNetV24.from_tflite(weights)
        self.name_classes(network.classifier.out_features, labels)
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
