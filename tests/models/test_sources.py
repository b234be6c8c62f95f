"""Every model's files come from its sources, under the names that the card gives them."""

from __future__ import annotations

from pathlib import Path

import pytest

from bacpipe.models.card import NOT_STATED, HubFiles, InPackage, KaggleModel
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


# What the authors' public pages say of their files: address, and sha256 where they tell one.
PUBLISHED = {
    "birdnet": ("zenodo.org/records/15050749/files/BirdNET_v2.4_tflite.zip",
                "31377e128d86fe7b65fa91b206b8804bad1cd934e624bbe6e7c1788170c95e57"),
    "birdnet_v3": ("zenodo.org/records/20703646/files/"
                   "BirdNET+_V3.0-preview3.1_Global_11K_FP32.onnx",
                   "999bb627e8954516d6a222eb76438b896fafc3791c2d10e72f02147ccd562c05"),
    "aves_especies": ("storage.googleapis.com/esp-public-files/ported_aves/"
                      "aves-base-bio.torchaudio.pt", None),
    "birdaves_especies": ("storage.googleapis.com/esp-public-files/birdaves/"
                          "birdaves-biox-large.torchaudio.pt", None),
    "naturebeats": ("EarthSpeciesProject/esp-aves2-naturelm-audio-v1-beats", None),
    "rcl_fs_bsed": ("zenodo.org/records/11353694", None),
    "protoclr": ("ilyassmoummad/ProtoCLR", None),
    "birdmae_base": ("DBD-research-group/Bird-MAE-Base", None),
    "birdmae_large": ("DBD-research-group/Bird-MAE-Large", None),
    "perch_v2_headless": ("sammlapp/Perch_v2_headless", None),
    "clap": ("laion/clap-htsat-unfused", None),
}  # fmt: skip
LABELS = {
    "perch_v2/labels.csv": "e4d5c0397d8fb08bf90c6b13a34810af53504faad927e472fcc567793c9de057",
    "birdnet_v3/labels.csv": "8124b0ea2d187104c5e2cd95a0f937165647e20349c8fd34d4d5ef991821f8f0",
}
KAGGLE = {
    "google_humpback": "google/humpback-whale/tensorFlow2/humpback-whale/1",
    "google_whale": "google/multispecies-whale/tensorFlow2/default/2",
    "surfperch": "google/surfperch/tensorFlow2/1/1",
    "yamnet": "google/yamnet/tensorFlow2/yamnet/1",
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_authors_own_files_are_among_the_sources(name: str) -> None:
    address, sha256 = PUBLISHED[name]
    elsewhere = [source for source in CARDS[name].sources if not isinstance(source, InPackage)]
    theirs = [source for source in elsewhere if address in downloads.address(source)]
    assert theirs
    assert sha256 is None or all(getattr(source, "sha256", "") == sha256 for source in theirs)


def test_label_files_have_the_hashes_that_were_published() -> None:
    known = {
        file.name: checkpoints.known_hashes(file).get(file.name)
        for card in CARDS.values()
        for file in card.labels
    }
    assert {name: known[name] for name in LABELS} == LABELS


def test_versions_of_kaggle_models_are_pinned() -> None:
    handles = {
        card.name: source.handle
        for card in CARDS.values()
        for source in card.sources
        if isinstance(source, KaggleModel)
    }
    assert handles.items() >= KAGGLE.items()
    assert all(handle.rpartition("/")[2].isdigit() for handle in handles.values())


def test_licences_that_nobody_states_are_not_invented() -> None:
    unstated = {name for name, card in CARDS.items() if card.licence == NOT_STATED}
    assert unstated >= {
        *("biolingual", "birdmae", "convnext_birdset", "mix2", "protoclr", "rcl_fs_bsed"),
    }
    assert not any(CARDS[name].non_commercial for name in unstated)
