"""Results that stay in memory: for single recordings and arrays."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

from bacpipe.errors import AudioError
from bacpipe.store.plan import Source
from bacpipe.store.sink import StreamEnd


class MemorySink:
    """Collects embeddings and all class scores.

    Attributes
    ----------
    ends : dict
        How each recording ended, by its name.
    """

    def __init__(self) -> None:
        self.ends: dict[str, StreamEnd] = {}
        self._embeddings: defaultdict[str, list[np.ndarray]] = defaultdict(list)
        self._scores: defaultdict[str, list[np.ndarray]] = defaultdict(list)

    def add(self, source: Source, embeddings: np.ndarray, predictions: Any) -> None:
        """Take the next windows of a recording."""
        # Copies: what a model returns may lie in the batch's memory, which is used again.
        self._embeddings[source.name].append(embeddings.copy())
        if predictions is not None:
            self._scores[source.name].append(predictions.copy())

    def finish(self, source: Source, end: StreamEnd) -> None:
        """Complete a recording."""
        self.ends[source.name] = end

    def fail(self, source: Source, reason: str) -> None:
        """Raise the reason: somebody asked for just this recording.

        Raises
        ------
        AudioError
        """
        raise AudioError(reason)

    def embeddings(self) -> np.ndarray:
        """All embeddings, float32 of shape (windows, dim)."""
        return np.concatenate([rows for parts in self._embeddings.values() for rows in parts])

    def scores(self) -> np.ndarray | None:
        """All class scores, float32 of shape (windows, classes); None without a classifier."""
        parts = [rows for parts in self._scores.values() for rows in parts]
        return np.concatenate(parts) if parts else None
