"""VGGish, an embedding of general audio."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
import torch

from bacpipe.models.backends.tensorflow import TfModel

# One example of the network is 96 spectra, 10 ms apart and 25 ms long: 0.975 s, of which a
# window covers 0.96 s.
_EXAMPLE = 15600


class Vggish(TfModel):
    """VGGish (Hershey et al. 2017, arXiv 1609.09430).

    The saved model takes a single waveform of any length and no batch, so that the windows of
    a batch are computed beside one another inside of TensorFlow, each by itself.
    """

    def set_up(self) -> None:
        if not callable(self.saved_model):
            raise self.not_this_model("it cannot be called with a waveform")
        model, dim = self.saved_model, self.card.dim
        row = tf.TensorSpec((dim,), tf.float32)

        @tf.function(input_signature=[tf.TensorSpec((None, _EXAMPLE), tf.float32)])
        def embed(batch: Any) -> Any:
            return tf.map_fn(
                lambda waveform: tf.ensure_shape(model(waveform), (None, dim))[0],
                batch,
                parallel_iterations=8,
                fn_output_signature=row,
            )

        self._embed = embed

    def preprocess(self, audio: torch.Tensor) -> torch.Tensor:
        """Append the zeros that complete the last spectra of a window."""
        return torch.nn.functional.pad(audio, (0, _EXAMPLE - audio.shape[-1]))

    def __call__(self, x: torch.Tensor) -> np.ndarray:
        embeddings: np.ndarray = self.compute(self._embed, x).numpy()
        return embeddings
