"""A recogniser as a model: from windows of samples to its classes, in any pipeline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from bacpipe.errors import ModelUnavailableError
from bacpipe.extras import cannot_import
from bacpipe.models.base import Inputs, Model, ModelBaseClass
from bacpipe.store.files import write_bytes
from bacpipe.store.recognisers import StoredRecogniser, words_of

if TYPE_CHECKING:
    from bacpipe.models.base import Rows

_LARGEST = 60.0  # logit; scores beyond it differ by nothing that float32 can say


class RecogniserModel(ModelBaseClass):
    """The embeddings of a model, with the classes of a recogniser.

    Parameters
    ----------
    recogniser : StoredRecogniser
    backbone : Model
        Ready to run, and the one that the recogniser was trained on.
    version : str
        What tells this state of the recogniser from others.
    """

    def __init__(self, recogniser: StoredRecogniser, backbone: Model, *, version: str) -> None:
        super().__init__(
            sr=backbone.sr,
            segment_length=backbone.segment_length,
            model_name=recogniser.name,
            device=backbone.device,
            files=backbone.files,
            batch_size=backbone.batch_size,
            model_base_path=backbone.model_base_path,
        )
        self.classes = recogniser.classes
        self.version = f"{recogniser.model} {recogniser.checkpoint} {version}"
        self.accelerator, self.concurrent = backbone.accelerator, backbone.concurrent
        self._backbone = backbone
        self._weight = torch.from_numpy(np.array(recogniser.weight, np.float32))
        self._bias = torch.from_numpy(np.array(recogniser.bias, np.float32))
        self._square_roots = recogniser.square_roots

    def preprocess(self, audio: torch.Tensor) -> Inputs:
        """Input of the backbone."""
        return self._backbone.preprocess(audio)

    def __call__(self, x: Inputs) -> Rows:
        """Embeddings of the backbone."""
        return self._backbone(x)

    def classifier_predictions(self, embeddings: Inputs) -> torch.Tensor:
        """Scores of the recogniser, float32 of shape (n, classes)."""
        given = torch.as_tensor(embeddings).float()
        if self._square_roots:
            given = given.clamp(min=0).sqrt()
        if self._weight.device != given.device:
            self._weight, self._bias = self._weight.to(given.device), self._bias.to(given.device)
        logits = given @ self._weight.T + self._bias
        return logits.clamp(-_LARGEST, _LARGEST).sigmoid()


def write_onnx(recogniser: StoredRecogniser, path: Path) -> None:
    """Write the head as an ONNX graph: ``embeddings`` (n, dim) in, ``scores`` (n, classes) out.

    Raises
    ------
    ModelUnavailableError
        If the package onnx is not installed.
    """
    try:
        import onnx
    except Exception as error:  # a package that is broken raises anything
        raise ModelUnavailableError(
            cannot_import("Export of a recogniser to ONNX", "onnx", error)
        ) from error
    from onnx import TensorProto, helper, numpy_helper

    classes, dim = recogniser.weight.shape
    taken, roots = "embeddings", []
    if recogniser.square_roots:
        taken = "square_roots"
        roots = [
            helper.make_node("Relu", ["embeddings"], ["not_negative"]),
            helper.make_node("Sqrt", ["not_negative"], [taken]),
        ]
    graph = helper.make_graph(
        [
            *roots,
            helper.make_node("Gemm", [taken, "weight", "bias"], ["logits"], transB=1),
            helper.make_node("Sigmoid", ["logits"], ["scores"]),
        ],
        "recogniser",
        [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["windows", dim])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["windows", classes])],
        [
            numpy_helper.from_array(np.ascontiguousarray(recogniser.weight, np.float32), "weight"),
            numpy_helper.from_array(np.ascontiguousarray(recogniser.bias, np.float32), "bias"),
        ],
    )
    # Versions that every onnxruntime since 1.15 reads.
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8, producer_name="bacpipe"
    )
    words = words_of(recogniser)
    texts = {key: v if isinstance(v, str) else json.dumps(v) for key, v in words.items()}
    helper.set_model_props(model, texts)
    onnx.checker.check_model(model, full_check=True)
    write_bytes(path, model.SerializeToString())
