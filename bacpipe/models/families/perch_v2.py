"""Perch 2.0, a classifier of animal sounds of many taxa."""

from __future__ import annotations

import torch

from bacpipe.models.backends.onnx import OnnxModel
from bacpipe.models.frontends import center_and_scale
from bacpipe.models.weights import class_names

PEAK = 0.25


class PerchV2Headless(OnnxModel):
    """Perch 2.0 (van Merriënboer et al. 2025, arXiv 2508.04665) without its classes, as ONNX.

    Each window is centred and scaled to a peak of 0.25, as the authors' pipeline
    (google-research/perch-hoplite) does.
    """

    def preprocess(self, audio: torch.Tensor) -> torch.Tensor:
        """Centre each window and scale it to the peak that the network was trained with."""
        return center_and_scale(audio, PEAK)


class PerchV2(PerchV2Headless):
    """Perch 2.0 with its classes, which exclude each other: their scores are a softmax."""

    def set_up(self) -> None:
        folder = self.files[self.card.files[0]].parent
        # The list of eBird codes that sometimes lies beside it belongs to another vocabulary.
        labels = class_names.find_label_file(folder, "labels.*", "*labels.*", "assets/labels.*")
        self.classes = (
            class_names.numbered(self.n_classes, self.card.name, folder / "labels.csv")
            if labels is None
            else class_names.read_list(labels, self.n_classes)
        )

    def activate(self, scores: torch.Tensor) -> torch.Tensor:
        return scores.softmax(dim=1)
