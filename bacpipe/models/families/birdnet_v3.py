"""BirdNET+ V3.0, developer preview."""

from __future__ import annotations

import logging

import numpy as np
import torch

from bacpipe.errors import counted
from bacpipe.models.backends.onnx import OnnxModel, Outputs

logger = logging.getLogger(__name__)


class BirdNetV3(OnnxModel):
    """BirdNET+ V3.0 (birdnet-team/birdnet-V3.0-dev, Zenodo 20703646).

    The network ends in a sigmoid: its scores are used as they are.  It was trained on 3 s and
    takes any length; we give it 3 s.

    Attributes
    ----------
    nan_windows : int
        Windows for which the network gave no numbers (digital silence does that).  Their
        embeddings and scores are zeros.
    """

    def set_up(self) -> None:
        self.nan_windows = 0
        self.name_classes(self.n_classes)

    def __call__(self, x: torch.Tensor) -> np.ndarray:
        embeddings = super().__call__(x)
        embeddings[self._without_numbers(embeddings)] = 0
        return embeddings

    def outputs(self, x: torch.Tensor) -> Outputs:
        outputs = super().outputs(x)
        broken = self._without_numbers(outputs.embeddings, outputs.scores)
        for rows in outputs:
            rows[broken] = 0
        return outputs

    def _without_numbers(self, *outputs: np.ndarray) -> np.ndarray:
        broken = np.any([~np.isfinite(rows).all(axis=1) for rows in outputs], axis=0)
        before = self.nan_windows
        self.nan_windows += int(broken.sum())
        # One line at 1, 10, 100, ... windows: a night of silence must not flood the log.
        if self.nan_windows and len(str(self.nan_windows)) > len(str(before or "")):
            logger.warning(
                "birdnet_v3 gave no numbers for %s so far, as for digital silence; "
                "their embeddings and scores are set to zero.",
                counted(self.nan_windows, "window"),
            )
        return broken
