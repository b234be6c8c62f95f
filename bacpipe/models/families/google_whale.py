"""Google's whale models: one of many species, and the older one of humpback whales."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
import torch

from bacpipe.models.backends.tensorflow import TfModel

# Spectra of one context window.
_FRAMES = 128


class GoogleWhale(TfModel):
    """Whale models (kaggle.com/models/google/multispecies-whale and .../humpback-whale).

    A saved model is used by its parts: ``front_end`` (waveform to spectrogram), ``features``
    (to the embedding) and ``logits`` (to the classes, which do not exclude each other: their
    scores are sigmoids).

    Attributes
    ----------
    codes : sequence of str
        The classes as the saved model calls them ('Mn', 'Upcall').
    """

    one_pass = True

    def set_up(self) -> None:
        self._front_end = self._part("front_end")
        self._features = self._part("features")
        self._logits = self._part("logits")
        # The older model tells of itself in a signature alone.
        metadata = self.saved_model.signatures.get("metadata") or self._part("metadata")
        names = metadata()["class_names"].numpy()
        self.codes = [name.decode() for name in names]
        names_of = {code: names for *names, code in self.card.known_classes}
        known = [names_of.get(code, (code, "")) for code in self.codes]
        self.classes, self.scientific_names = map(list, zip(*known, strict=True))

    def __call__(self, x: torch.Tensor) -> np.ndarray:
        embeddings: np.ndarray = self.compute(self._embed, x).numpy()
        return embeddings

    def infer(self, x: torch.Tensor, *, scores: bool = False) -> tuple[Any, Any | None]:
        if not scores:
            return self(x), None
        embeddings, probabilities = self.compute(self._embed_and_classify, x)
        return embeddings.numpy(), probabilities.numpy()

    def _embed(self, batch: Any) -> Any:
        return self._features(self._spectrogram(batch))

    def _embed_and_classify(self, batch: Any) -> tuple[Any, Any]:
        spectrogram = self._spectrogram(batch)
        return self._features(spectrogram), tf.sigmoid(self._logits(spectrogram))

    def _spectrogram(self, batch: Any) -> Any:
        return self._front_end(tf.expand_dims(batch, -1))[:, :_FRAMES]

    def _part(self, name: str) -> Any:
        part = getattr(self.saved_model, name, None)
        if not callable(part):
            raise self.not_this_model(f"it has no part {name!r}")
        return part


class GoogleHumpback(GoogleWhale):
    """The older model of one class, the humpback whale."""
