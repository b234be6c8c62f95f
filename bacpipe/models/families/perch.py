"""Perch 1 and SurfPerch: bird and coral reef sounds."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import torch

from bacpipe.models.backends.tensorflow import TfModel, one_by_one, takes_batches
from bacpipe.models.frontends import center_and_scale
from bacpipe.models.weights.class_names import find_label_file

logger = logging.getLogger(__name__)

PEAK = 0.25


class _Perch(TfModel):
    """A SavedModel with ``infer_tf``: windows to logits of one or more heads and an embedding.

    Each window is centred and scaled to a peak of 0.25, as the authors' pipeline
    (google-research/perch-hoplite) does.  The networks were trained with one binary
    cross-entropy per class: scores are sigmoids.
    """

    one_pass = True
    head: str

    def set_up(self) -> None:
        self._infer = self._batched()
        self._name_heads(self.compute(self._outputs, self.silence()))

    def preprocess(self, audio: torch.Tensor) -> torch.Tensor:
        """Centre each window and scale it to the peak that the network was trained with."""
        return center_and_scale(audio, PEAK)

    def __call__(self, x: torch.Tensor) -> np.ndarray:
        return self.infer(x)[0]

    def infer(
        self, x: torch.Tensor, *, scores: bool = False
    ) -> tuple[np.ndarray, np.ndarray | None]:
        outputs = self.compute(self._outputs, x)
        embeddings = outputs["embedding"].numpy().reshape(len(x), -1)
        if not scores:
            return embeddings, None
        return embeddings, tf.sigmoid(outputs[self.head]).numpy().reshape(len(x), -1)

    def _name_heads(self, outputs: Mapping[str, Any]) -> None:
        names = ", ".join(sorted(outputs))
        if "embedding" not in outputs:
            raise self.not_this_model(f"it returns {names} and no embedding")
        if self.head not in outputs:
            logger.warning(
                "%s: %s returns %s and not %s; there are embeddings, but no class scores.",
                self.card.name,
                self.folder,
                names,
                self.head,
            )
            return
        labels = find_label_file(self.folder / "assets", f"{self.head}.csv", f"{self.head}s.csv")
        self.name_classes(outputs[self.head].shape[-1], labels)

    def _outputs(self, batch: Any) -> dict[str, Any]:
        outputs = self._infer(batch)
        if isinstance(outputs, Mapping):
            return dict(outputs)
        # Early exports return a pair.
        logits, embedding = outputs
        return {"label": logits, "embedding": embedding}

    def _batched(self) -> Any:
        function = getattr(self.saved_model, "infer_tf", None)
        if not callable(function):
            raise self.not_this_model("it has no function 'infer_tf'")
        signature = self.saved_model.signatures.get("serving_default")
        if signature is None:
            return function
        spec = next(iter(signature.structured_input_signature[1].values()))
        return function if takes_batches(spec) else one_by_one(function)


class PerchBird(_Perch):
    """Perch 1, version 8 (Ghani et al. 2023, Scientific Reports 13, 22876).

    ``kaggle.com/models/google/bird-vocalization-classifier``.
    """

    head = "label"


class SurfPerch(_Perch):
    """SurfPerch (Williams et al. 2024, arXiv 2404.16436): the sounds of coral reefs.

    ``kaggle.com/models/google/surfperch``.
    """

    head = "reef_label"
