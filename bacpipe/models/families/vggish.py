"""VGGish and YAMNet, networks for sounds of any kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
import torch

from bacpipe.models.backends.tensorflow import TfModel
from bacpipe.models.weights.class_names import find_label_file

# One example of both networks is 96 spectra, 10 ms apart and 25 ms long: 0.975 s, of which a
# window covers 0.96 s.
_EXAMPLE = 15600


class _Waveforms(TfModel):
    """A saved model that takes a single waveform of any length and no batch.

    The windows of a batch are computed beside one another inside of TensorFlow, each by itself.
    """

    def set_up(self) -> None:
        if not callable(self.saved_model):
            raise self.not_this_model("it cannot be called with a waveform")
        signature = tuple(tf.TensorSpec((length,), tf.float32) for length in self._lengths())

        @tf.function(input_signature=[tf.TensorSpec((None, _EXAMPLE), tf.float32)])
        def compute(batch: Any) -> Any:
            return tf.map_fn(
                self._example, batch, parallel_iterations=8, fn_output_signature=signature
            )

        self._compute = compute

    def preprocess(self, audio: torch.Tensor) -> torch.Tensor:
        """Append the zeros that complete the last spectra of a window."""
        return torch.nn.functional.pad(audio, (0, _EXAMPLE - audio.shape[-1]))

    def __call__(self, x: torch.Tensor) -> np.ndarray:
        return self.infer(x)[0]

    def infer(self, x: torch.Tensor, *, scores: bool = False) -> tuple[Any, Any | None]:
        embeddings, *others = self.compute(self._compute, x)
        return embeddings.numpy(), others[0].numpy() if scores and others else None

    def _lengths(self) -> tuple[int, ...]:
        """Length of an embedding, and of its class scores if there are any."""
        return (self.card.dim,)

    def _example(self, waveform: Any) -> tuple[Any, ...]:
        """What the saved model gives for one window, with these lengths."""
        raise NotImplementedError


class Vggish(_Waveforms):
    """VGGish (Hershey et al. 2017, arXiv 1609.09430)."""

    def _example(self, waveform: Any) -> tuple[Any, ...]:
        return (tf.ensure_shape(self.saved_model(waveform), (None, self.card.dim))[0],)


class Yamnet(_Waveforms):
    """YAMNet: a MobileNet that names the sounds of AudioSet.

    References
    ----------
    https://github.com/tensorflow/models/tree/master/research/audioset/yamnet.  The classes do not
    exclude each other; the saved model gives sigmoids.
    """

    one_pass = True

    def set_up(self) -> None:
        super().set_up()
        listed = find_label_file(self.folder / "assets", "yamnet_class_map.csv")
        self.name_classes(self.card.n_classes or 0, listed)

    def _lengths(self) -> tuple[int, ...]:
        return self.card.dim, self.card.n_classes or 0

    def _example(self, waveform: Any) -> tuple[Any, ...]:
        # What comes third is the spectrogram.
        scores, embeddings, _ = self.saved_model(waveform)
        dim, n_classes = self._lengths()
        return (
            tf.ensure_shape(embeddings, (None, dim))[0],
            tf.ensure_shape(scores, (None, n_classes))[0],
        )
