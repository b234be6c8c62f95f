"""Class scores, thresholded and cut to the best as they arrive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from bacpipe.store.predictions import SparsePredictions


def select(scores: Any, threshold: float, top: int) -> SparsePredictions:
    """Keep the best scores of every window.

    Parameters
    ----------
    scores : torch.Tensor or np.ndarray, float32, shape (n, classes)
        Scores in [0, 1].
    threshold : float
        Lower scores are dropped.
    top : int
        At most so many are kept per window.

    Returns
    -------
    SparsePredictions
        Sorted by window, then by falling score.
    """
    best, labels = torch.as_tensor(scores).topk(min(top, scores.shape[1]), dim=1)
    kept = best >= threshold
    windows = torch.arange(len(best), device=best.device).unsqueeze(1).expand_as(best)
    return SparsePredictions(
        windows[kept].cpu().numpy().astype(np.int32),
        labels[kept].cpu().numpy().astype(np.int32),
        best[kept].float().cpu().numpy(),
    )


class Classifier:
    """The integrated classifier of an `Embedder`.

    Attributes
    ----------
    classes : list of str
        One name per column of `predictions`.
    predictions : np.ndarray, float32, shape (windows, classes), or None
        Scores of what was embedded last in memory (`Embedder.get_embeddings_from_model`,
        `Embedder.embeddings_using_multithreading`); None before that, and for models without
        a classifier.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = list(classes)
        self.predictions: np.ndarray | None = None

    def __repr__(self) -> str:
        shape = None if self.predictions is None else self.predictions.shape
        return f"Classifier({len(self.classes)} classes, predictions: {shape})"
