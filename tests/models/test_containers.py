from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bacpipe.errors import CheckpointError
from bacpipe.models.weights.containers import (
    read_json,
    state_dict_in,
    strip_prefixes,
)

PATH = Path("model.pth")


def test_state_dict_is_taken_from_its_key() -> None:
    state = {"weight": torch.ones(1)}
    assert state_dict_in({"encoder": state, "epoch": 3}, "encoder", model="m", path=PATH) == state


@pytest.mark.parametrize("content", [{"model": {}}, {"encoder": 3}, {"encoder": {"a": 1}}, None])
def test_other_containers_are_refused_naming_file_model_and_key(content: object) -> None:
    with pytest.raises(CheckpointError, match=r"model\.pth.*mix2.*'encoder'"):
        state_dict_in(content, "encoder", model="mix2", path=PATH)


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_damaged_json_is_refused_naming_the_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read_json(path)


def test_prefixes_go_in_any_order_and_number() -> None:
    prefixes = ("model.", "head.")
    assert strip_prefixes("model.head.model.a.head.b", prefixes) == "a.head.b"
    assert strip_prefixes("a.model.b", prefixes) == "a.model.b"
