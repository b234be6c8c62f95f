"""What ONNX models share: the session, its device, its outputs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import torch

from bacpipe.errors import CheckpointError, first_line
from bacpipe.models.backends.zoo_model import HostModel

logger = logging.getLogger(__name__)

_GPU_BATCH = 64
_CPU = "CPUExecutionProvider"


def execution_providers(device: str) -> list[Any]:
    """Execution providers of ONNX Runtime for a device, best first.

    Parameters
    ----------
    device : str
        'cpu', 'cuda', 'cuda:1', 'mps'.

    Returns
    -------
    list
        For ``onnxruntime.InferenceSession``: CUDA (without TF32) or, with the DirectML build of
        Windows, DirectML for 'cuda'; CoreML for 'mps'; the CPU last.  A device that the installed
        build does not know is left out, with a warning.
    """
    kind, _, number = device.partition(":")
    wanted = {
        "cuda": ("CUDAExecutionProvider", "DmlExecutionProvider"),
        "mps": ("CoreMLExecutionProvider",),
    }.get(kind, ())
    available = onnxruntime.get_available_providers()
    for name in wanted:
        if name in available:
            options = {"device_id": int(number or 0)} if kind == "cuda" else {}
            if name == "CUDAExecutionProvider":
                options["use_tf32"] = 0  # float32 means float32
                if hasattr(onnxruntime, "preload_dlls"):  # 1.21 and later
                    onnxruntime.preload_dlls()  # CUDA's libraries that PyTorch has brought
            return [(name, options), _CPU]
    if wanted:
        logger.warning(
            "device=%s: the installed ONNX Runtime computes on %s only, so the CPU is used; for "
            "an NVIDIA GPU, install onnxruntime-gpu in place of onnxruntime.",
            device,
            ", ".join(name.removesuffix("ExecutionProvider") for name in available),
        )
    return [_CPU]


class Outputs(NamedTuple):
    """Embeddings and class scores as the network gives them, float32, one row per window."""

    embeddings: np.ndarray
    scores: np.ndarray


class OnnxModel(HostModel):
    """A model of the zoo that ONNX Runtime computes: waveforms in, embeddings and scores out.

    The outputs are found by their shape: the embedding is as long as the card says, the other one
    that has two axes holds the scores.  A model whose card has no classes needs no scores.

    Parameters are those of `ZooModel`.  The first file of the card is the network, which is
    open before `set_up`.

    Attributes
    ----------
    n_classes : int
        Length of the scores; 0 without any.

    Raises
    ------
    CheckpointError
        If the file is no ONNX model, or not one with such outputs.
    """

    one_pass = True

    def start(self, device: str) -> None:
        super().start(device)
        path = self.paths[0]
        providers = execution_providers(device)
        self._session = _open(path, providers)
        on_cpu = self._session.get_providers()[0] == _CPU
        if on_cpu and providers != [_CPU]:
            logger.warning(
                "device=%s: ONNX Runtime could not start %s, so %s computes on the CPU; its CUDA "
                "and cuDNN must be those that onnxruntime-gpu was built for (bacpipe's pages on "
                "installation say which).",
                device,
                providers[0][0].removesuffix("ExecutionProvider"),
                self.card.name,
            )
        if not on_cpu:
            self.batch_size = _GPU_BATCH
            self.accelerator = device
        given = self._session.get_inputs()[0]
        self._input = given.name
        self._dtype = np.float16 if given.type == "tensor(float16)" else np.float32
        self._rows = given.shape[0] if isinstance(given.shape[0], int) else None
        self._embedding, self._scores, self.n_classes = self._find_outputs(path)

    def __call__(self, x: torch.Tensor) -> np.ndarray:
        return self._run(x, [self._embedding])[0]

    def infer(self, x: torch.Tensor, *, scores: bool = False) -> tuple[Any, Any | None]:
        if not scores or not self.n_classes:
            return self(x), None
        outputs = self.outputs(x)
        return outputs.embeddings, self.activate(torch.from_numpy(outputs.scores))

    def outputs(self, x: torch.Tensor) -> Outputs:
        """Both outputs of the network for preprocessed windows."""
        return Outputs(*self._run(x, [self._embedding, self._scores]))

    def activate(self, scores: torch.Tensor) -> torch.Tensor:
        """Turn what the network gives for the classes into scores in [0, 1]."""
        return scores

    def _run(self, x: torch.Tensor, names: list[str]) -> list[np.ndarray]:
        windows = x.cpu().numpy().astype(self._dtype, copy=False)
        rows = self._rows or len(windows)
        parts = []
        # Some files were exported for a fixed number of windows.
        for start in range(0, len(windows), rows):
            part = windows[start : start + rows]
            filled = np.pad(part, ((0, rows - len(part)), (0, 0)))
            outputs = self._session.run(names, {self._input: filled})
            parts.append([output[: len(part)].astype(np.float32) for output in outputs])
        return [np.concatenate(columns) for columns in zip(*parts, strict=True)]

    def _find_outputs(self, path: Path) -> tuple[str, str, int]:
        names = [output.name for output in self._session.get_outputs()]
        silence = np.zeros((self._rows or 1, self.segment_length), self._dtype)
        try:
            outputs = self._session.run(names, {self._input: silence})
        except Exception as error:
            if not _from_onnxruntime(error):
                raise
            raise CheckpointError(
                f"{path}: this ONNX model does not take windows of {self.segment_length} samples "
                f"({first_line(error)}); it is not the model {self.card.name!r}."
            ) from error
        shapes = {name: output.shape for name, output in zip(names, outputs, strict=True)}
        embeddings = [n for n, s in shapes.items() if len(s) == 2 and s[1] == self.card.dim]
        scores = [n for n, s in shapes.items() if len(s) == 2 and n not in embeddings]
        has_scores = self.card.is_classifier
        if len(embeddings) != 1 or (has_scores and len(scores) != 1):
            others = " and one other list of values (the class scores)" if has_scores else ""
            raise CheckpointError(
                f"{path}: expected one output of {self.card.dim} values per window (the "
                f"embedding){others}, found {shapes}; it is not the model {self.card.name!r}."
            )
        if not has_scores:
            return embeddings[0], "", 0
        return embeddings[0], scores[0], shapes[scores[0]][1]


def _open(path: Path, providers: list[Any]) -> Any:
    options = onnxruntime.SessionOptions()
    # The setting that the user gave PyTorch holds for us, too.
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:
        if not _from_onnxruntime(error):
            raise
        raise CheckpointError(
            f"{path}: this ONNX model cannot be read ({first_line(error)}); delete it, so that "
            f"it is fetched again, or copy it here once more."
        ) from error


def _from_onnxruntime(error: BaseException) -> bool:
    # Its errors have no common class.
    return type(error).__module__.partition(".")[0] == "onnxruntime"
