"""Every model's files come from its sources, under the names that the card gives them."""

from __future__ import annotations

from pathlib import Path

import pytest

from bacpipe.models.card import HubFiles
from bacpipe.models.weights import checkpoints, downloads
from bacpipe.models.zoo import CARDS
from tests.models.hub_server import Hub
from tests.models.test_checkpoints import hub as hub

HUB = [name for name, card in CARDS.items() if isinstance(card.sources[0], HubFiles)]


@pytest.mark.parametrize("name", CARDS)
def test_each_file_has_a_source(name: str) -> None:
    card = CARDS[name]
    for needs in (card, *card.labels):
        for file in needs.files:
            assert any(downloads.provides(source, needs, file) for source in needs.sources), file


@pytest.mark.parametrize("name", HUB)
def test_files_of_a_repository_arrive(name: str, hub: Hub, tmp_path: Path) -> None:
    card = CARDS[name]
    (source, *_) = card.sources
    assert isinstance(source, HubFiles)
    for file in source.files:
        hub.add(f"{source.repo_id}/{file}", file.encode(), large=file.endswith("safetensors"))
    own = [file for file in card.labels if file.name.endswith("label_map.json")]
    for place in (place for file in own for place in file.sources):
        assert isinstance(place, HubFiles)
        hub.add(f"{place.repo_id}/label_map.json", b"{}", large=False)
    found = checkpoints.resolve(card, tmp_path)
    assert {path.read_bytes().decode() for path in found.values()} == set(source.files)
    assert checkpoints.fetch_labels(own, tmp_path) == []
    assert all((tmp_path / file.name).read_bytes() == b"{}" for file in own)


def test_the_older_format_of_clap_does_as_well(hub: Hub, tmp_path: Path) -> None:
    for file in ("config.json", "pytorch_model.bin", "tokenizer.json"):
        hub.add(f"laion/clap-htsat-unfused/{file}", file.encode(), large=False)
    found = checkpoints.resolve(CARDS["clap"], tmp_path)
    assert found["clap/model.safetensors"].read_bytes() == b"pytorch_model.bin"
    assert (tmp_path / "clap" / "tokenizer.json").read_bytes() == b"tokenizer.json"
