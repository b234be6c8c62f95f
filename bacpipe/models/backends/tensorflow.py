"""What TensorFlow models share: the device, and loading a SavedModel."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import torch

from bacpipe.errors import CheckpointError, SettingsError, first_line
from bacpipe.models.backends.zoo_model import HostModel

logger = logging.getLogger(__name__)

_GPU_BATCH = 64


def choose_tf_device(device: str) -> str:
    """Prepare TensorFlow for a device, and name it as TensorFlow does.

    TensorFlow takes all memory of all GPUs when it computes for the first time, even if that
    is on the CPU: for 'cpu' it is not shown any GPU, otherwise it takes memory as it needs it.

    Parameters
    ----------
    device : str
        'cpu', 'cuda', 'cuda:1', 'mps'.

    Returns
    -------
    str
        '/CPU:0', '/GPU:0', ...; the CPU, with a warning, if this TensorFlow knows no GPU.

    Raises
    ------
    SettingsError
        If a GPU is asked for after TensorFlow was started without in this process.
    """
    kind, _, number = device.partition(":")
    if kind == "cpu":
        try:
            tf.config.set_visible_devices([], "GPU")
        except RuntimeError:
            logger.debug("TensorFlow has started with a GPU; this model still uses the CPU.")
        return "/CPU:0"
    if not tf.config.list_physical_devices("GPU"):
        logger.warning(
            "device=%s: the installed TensorFlow finds no GPU, so the CPU is used; for an NVIDIA "
            'GPU on Linux: pip install "tensorflow[and-cuda]".',
            device,
        )
        return "/CPU:0"
    visible = tf.config.get_visible_devices("GPU")
    if not visible:
        raise SettingsError(
            f"device={device!r}: TensorFlow was started for device=cpu in this process and cannot "
            f"change that; restart Python."
        )
    for gpu in visible:
        try:
            tf.config.experimental.set_memory_growth(gpu, True)
        except RuntimeError:
            logger.debug("TensorFlow has started; its way to take memory cannot change.")
    tf.config.experimental.enable_tensor_float_32_execution(False)  # float32 means float32
    return f"/GPU:{number or 0}"


class TfModel(HostModel):
    """A model of the zoo that TensorFlow computes.

    Parameters are those of `ZooModel`.  The first file of the card is the ``saved_model.pb`` of the
    SavedModel; `set_up` finds it loaded.

    Raises
    ------
    CheckpointError
        If the SavedModel cannot be loaded.
    """

    def start(self, device: str) -> None:
        super().start(device)
        self._tf_device = choose_tf_device(device)
        if self._tf_device != "/CPU:0":
            self.batch_size = _GPU_BATCH
            self.accelerator = device
        self.folder = self.paths[0].parent
        with tf.device(self._tf_device):
            self.saved_model = _load(self.folder)

    def compute(self, function: Callable[[Any], Any], x: torch.Tensor) -> Any:
        """Call a function of the saved model with windows, on the model's device."""
        with tf.device(self._tf_device):
            return function(tf.constant(np.ascontiguousarray(x.cpu().numpy(), np.float32)))

    def silence(self) -> torch.Tensor:
        """One silent window, to find out what the saved model returns."""
        return torch.zeros(1, self.segment_length)

    def not_this_model(self, problem: str) -> CheckpointError:
        """Error for a SavedModel that lacks what the wrapper relies on."""
        return CheckpointError(
            f"{self.folder}: {problem}; this SavedModel is not the model {self.card.name!r}."
        )


def one_by_one(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Make a function of a batch from one that takes a single window with a batch axis."""

    def batched(batch: Any) -> Any:
        outputs = [function(batch[i : i + 1]) for i in range(len(batch))]
        return tf.nest.map_structure(lambda *rows: tf.concat(rows, axis=0), *outputs)

    return batched


def takes_batches(spec: Any) -> bool:
    """Whether the first axis of an input may have any length."""
    return spec.shape.rank is None or spec.shape[0] is None


def _load(folder: Path) -> Any:
    try:
        return tf.saved_model.load(str(folder))
    except (OSError, ValueError, KeyError, tf.errors.OpError) as error:
        raise CheckpointError(
            f"{folder}: this SavedModel cannot be loaded ({first_line(error)}); delete the folder, "
            f"so that it is fetched again, or copy it here once more."
        ) from error
