"""HBDet, an embedding of humpback whale song."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
import torch

from bacpipe.models.backends.tensorflow import TfModel, one_by_one, takes_batches

SIGNATURE, OUTPUT = "serving_default", "pool"


class HbDet(TfModel):
    """Humpback whale detector of AcoDet (github.com/vskode/acodet), up to its last pooling."""

    def set_up(self) -> None:
        signature = self.saved_model.signatures.get(SIGNATURE)
        if signature is None:
            raise self.not_this_model(f"it has no signature {SIGNATURE!r}")
        if OUTPUT not in signature.structured_outputs:
            others = ", ".join(signature.structured_outputs)
            raise self.not_this_model(f"its signature returns {others} and not {OUTPUT}")
        ((name, spec),) = signature.structured_input_signature[1].items()

        def pool(batch: Any) -> Any:
            # The waveform has an axis of channels in some exports.
            shaped = tf.expand_dims(batch, -1) if spec.shape.rank == 3 else batch
            return signature(**{name: shaped})[OUTPUT]

        self._pool = pool if takes_batches(spec) else one_by_one(pool)

    def __call__(self, x: torch.Tensor) -> np.ndarray:
        pooled: np.ndarray = self.compute(self._pool, x).numpy()
        return pooled
