"""BEATs: its position buckets, and checkpoints that are not its own."""

from __future__ import annotations

import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.models.t5.modeling_t5 import T5Attention

from bacpipe.errors import CheckpointError
from bacpipe.models.families.beats import (
    _UNUSED,
    BeatsNetwork,
    _config_in,
    _name_in_network,
    relative_position_bucket,
)
from bacpipe.models.loading import load_model
from tests.models import parity


@pytest.mark.parametrize(("buckets", "reach"), [(320, 800), (32, 128)])
def test_position_buckets_are_those_of_t5(buckets: int, reach: int) -> None:
    offset = torch.arange(-1000, 1001)
    expected = T5Attention._relative_position_bucket(
        offset, bidirectional=True, num_buckets=buckets, max_distance=reach
    )
    ours = relative_position_bucket(offset, buckets=buckets, reach=reach)
    torch.testing.assert_close(ours, expected)
    assert ours.unique().numel() == buckets - 1  # no key is 0 tokens to the right


def load(base: Path, content: Any) -> None:
    path = base / parity.manifest("beats")["checkpoint_files"][0]
    path.parent.mkdir(parents=True)
    torch.save(content, path)
    load_model("beats", device="cpu", model_base_path=base)


def config(**changes: Any) -> dict[str, Any]:
    return parity.manifest("beats")["config"]["cfg"] | changes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {}}, "expected the network's configuration under the key 'cfg'"),
        ([1, 2], "expected the network's configuration under the key 'cfg'"),
        ({"cfg": config(gru_rel_pos=False), "model": {}}, "gru_rel_pos=False, but beats needs"),
        ({"cfg": config()}, "expected its weights under the key 'model'"),
        ({"cfg": config(), "model": {"a": torch.ones(1)}}, "1 unexpected"),
    ],
)
def test_other_checkpoints_are_refused(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path, content)


def test_names_in_the_file_of_the_earth_species_project() -> None:
    """Avex puts a module around the network and normalises weights in PyTorch's present way."""
    with torch.device("meta"):
        network = BeatsNetwork(_config_in({"cfg": config()}, model="beats", path=Path("b")))
    published = parity.manifest("naturebeats")["tensors"]
    for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
        published = {
            key.replace(f"0.{old}", f"0.parametrizations.weight.{new}"): 0 for key in published
        }
    keys = [f"backbone.{key}" for key in published] + ["backbone.fbank.mel_fb"]
    used = [key for key in keys if not any(fnmatch.fnmatchcase(key, p) for p in _UNUSED)]
    assert {_name_in_network(key) for key in used} == set(network.state_dict())
