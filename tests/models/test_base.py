"""What any object must have to be a model, and what it gets when it lacks the rest."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bacpipe
from bacpipe.errors import SettingsError
from bacpipe.models.base import ready_model
from bacpipe.models.loading import load_custom_model


class Peak:
    sr = 8000
    segment_length = 4000

    def preprocess(self, audio: torch.Tensor) -> torch.Tensor:
        return audio

    def __call__(self, x: torch.Tensor) -> np.ndarray:
        return x.abs().amax(dim=1, keepdim=True).numpy()


class Classifier(Peak):
    classes = ("loud",)
    batch_size = 3
    one_pass = True
    device = "cpu"

    def classifier_predictions(self, embeddings: Any) -> torch.Tensor:
        return torch.as_tensor(embeddings) / 2


class Silent(bacpipe.ModelBaseClass):
    """Does not call the constructor of its base class."""

    sr, segment_length = 8000, 4000

    def __init__(self) -> None:
        pass


def test_defaults_are_those_of_the_base_class() -> None:
    for kind in (Peak, Silent):
        model = ready_model(kind())
        assert (model.device, model.batch_size, model.classes) == ("cpu", 8, ())
        assert (model.one_pass, model.concurrent, model.card) == (False, False, None)
        assert dict(model.files) == {}


def test_what_the_object_has_stays() -> None:
    given = Classifier()
    model = ready_model(given)
    assert model is given
    assert (model.batch_size, model.classes, model.one_pass) == (3, ("loud",), True)
    embeddings, scores = model.infer(torch.ones(2, 4000), scores=True)
    assert (embeddings.tolist(), scores.tolist()) == ([[1.0], [1.0]], [[0.5], [0.5]])  # type: ignore[union-attr]
    assert model.infer(torch.ones(2, 4000))[1] is None


def test_no_classes_are_an_empty_list_of_classes() -> None:
    given = Peak()
    given.classes = None  # type: ignore[attr-defined]
    assert ready_model(given).classes == ()


@pytest.mark.parametrize("again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_compute_with_themselves(again: Any) -> None:
    model = again(ready_model(Classifier()))
    assert model.infer.args == (model,)
    assert model.infer(torch.ones(1, 4000), scores=True)[1].tolist() == [[0.5]]


def test_what_no_model_can_do_without(tmp_path: Path) -> None:
    class Nothing:
        sr = 8000

    for custom in (Nothing, Nothing()):
        with pytest.raises(
            SettingsError, match=r"Nothing.*segment_length and preprocess and __call__"
        ):
            load_custom_model(custom, device="cpu", model_base_path=tmp_path)


def test_objects_without_room_are_told_to_inherit() -> None:
    class Slotted(Peak):
        __slots__ = ()

    class Full:
        __slots__ = ()
        sr = segment_length = 8000
        preprocess = __call__ = Peak.preprocess

    assert ready_model(Slotted()).batch_size == 8
    with pytest.raises(SettingsError, match=r"Full.*ModelBaseClass"):
        ready_model(Full())
