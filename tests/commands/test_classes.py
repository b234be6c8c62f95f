"""Classes of models, and models that know a species."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bacpipe.__main__ import main
from bacpipe.models.card import Url
from bacpipe.models.weights.label_files import list_of_classes
from bacpipe.models.zoo import CARDS
from tests.models.hub_server import Hub
from tests.models.test_checkpoints import hub, impatient

__all__ = ["hub", "impatient"]  # fixtures


def test_classes_are_listed_and_searched(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classes", "birdnet"]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split("  ")[0] == "class" and len(rows) == 6522
    assert main(["classes", "BirdNET", "--search", "strix ALUCO"]) == 0
    _, row = capsys.readouterr().out.splitlines()
    assert row.split("  ")[0] == "Tawny Owl" and "Strix aluco" in row
    assert main(["classes", "birdnet", "--search", "unicorn"]) == 1
    assert "'unicorn'" in capsys.readouterr().out


def test_models_that_know_a_species_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classes", "--species", "turdus merula"]) == 0
    said = capsys.readouterr().out
    assert any(line.startswith("birdnet ") for line in said.splitlines())
    assert "Not looked at" in said and "perch_v2" in said
    assert main(["classes", "--species", "Turdus"]) == 1  # a part of a name is not a species


def test_models_without_classes_and_odd_words_get_a_sentence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["classes", "beats"]) == 1
    assert "embeddings only" in capsys.readouterr().out
    for words in ([], ["birdnet", "beats"], ["birdnet", "--species", "Strix aluco"]):
        assert main(["classes", *words]) == 2
        assert "takes one model" in capsys.readouterr().err


def test_some_classes_are_known_without_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = f"model_base_path={tmp_path}"
    assert main(["classes", "bat", nowhere]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + 18
    assert main(["classes", "--species", "Megaptera novaeangliae", nowhere]) == 0
    known = capsys.readouterr().out.partition("Not looked at")[0]
    assert "google_whale" in known and "google_humpback" in known
    assert [*tmp_path.iterdir()] == []  # nothing was fetched


# Label files as their authors write them, of two species.
LABELS = {
    "avesecho_passt": "Turdus merula,EurasianBlackbird\nStrix aluco,Tawny Owl\n",
    "birdnet_v3": "idx;sci_name;com_name\n0;Turdus merula;Eurasian Blackbird\n"
    "1;Strix aluco;Tawny Owl\n",
    "birdnet": "Turdus merula_Eurasian Blackbird\nStrix aluco_Tawny Owl\n",
    **dict.fromkeys(
        (name for name in CARDS if name.endswith("_birdset") or name.startswith("audioproto")),
        '{"id2label": {"0": "eurbla", "1": "tawowl1"}}',
    ),
    "perch_bird": "ebird2021\neurbla\ntawowl1\n",
    "surfperch": "reef\nTurdus merula\nStrix aluco\n",
    "yamnet": "index,mid,display_name\n0,/m/1,Turdus merula\n1,/m/2,Strix aluco\n",
    "perch_v2": "inat2024_fsd50k\nTurdus merula\nStrix aluco\n",
    "insect66": "file_name,species\na.wav,Turdus merula\nb.wav,Strix aluco\n",
    "insect459": "file_name,species\na.wav,Turdus merula\nb.wav,Strix aluco\n",
    **dict.fromkeys(
        (name for name in CARDS if name.startswith("esp_aves2")),
        '{"Turdus merula": 0, "Strix aluco": 1}',
    ),
}

TAXONOMY = (
    "SPECIES_CODE,COMMON_NAME,SCI_NAME\neurbla,Eurasian Blackbird,Turdus merula\n"
    "tawowl1,Tawny Owl,Strix aluco\n"
)


@pytest.mark.parametrize("name", LABELS)
def test_names_beside_the_weights_are_enough(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    card = CARDS[name]
    monkeypatch.setitem(CARDS, name, replace(card, n_classes=card.n_classes and 2))
    path = tmp_path / card.labels[0].name
    path.parent.mkdir(parents=True)
    path.write_text(LABELS[name])
    (tmp_path / "ebird_taxonomy.csv").write_text(TAXONOMY)
    where = f"model_base_path={tmp_path}"
    assert main(["classes", name, where]) == 0
    said = capsys.readouterr().out
    assert len(said.splitlines()) == 3 and "Turdus merula" in said
    for line in said.splitlines():  # what is called by its scientific name is told once
        cells = re.split(r"\s{2,}", line)
        assert len({*cells}) == len(cells)
    if name == "avesecho_passt":
        assert main(["classes", "--species", "Turdus merula", where]) == 0
        known = capsys.readouterr().out.partition("Not looked at")[0]
        assert "avesecho_passt" in known
    assert main(["classes", name, "--search", "strix", where]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert {*tmp_path.rglob("*.*")} == {path, tmp_path / "ebird_taxonomy.csv"}  # none was fetched


@pytest.mark.parametrize("name", ["surfperch", "yamnet", "insect66"])
def test_lists_without_codes_of_birds_need_no_taxonomy(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CARDS, name, replace(CARDS[name], n_classes=2))
    path = tmp_path / CARDS[name].labels[0].name
    path.parent.mkdir(parents=True)
    path.write_text(LABELS[name])
    (tmp_path / "ebird_taxonomy.csv").write_text("damaged")
    assert main(["classes", name, f"model_base_path={tmp_path}"]) == 0


def test_codes_without_a_taxonomy_are_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(CARDS, "perch_bird", replace(CARDS["perch_bird"], n_classes=2))
    path = tmp_path / CARDS["perch_bird"].labels[0].name
    path.parent.mkdir(parents=True)
    path.write_text(LABELS["perch_bird"])
    assert main(["classes", "perch_bird", f"model_base_path={tmp_path}"]) == 0
    assert capsys.readouterr().out.split() == ["code", "eurbla", "tawowl1"]


def test_only_the_names_are_fetched(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    card = CARDS["avesecho_passt"]
    source = Url("avesecho_passt", f"{hub.endpoint}/plain/list.csv", filename="list_AvesEcho.csv")
    names = replace(card.labels[0], sources=(source,), alternatives=())
    monkeypatch.setitem(CARDS, card.name, replace(card, n_classes=2, labels=(names,)))
    where = f"model_base_path={tmp_path / 'base'}"
    assert main(["classes", card.name, where]) == 1
    assert names.name in capsys.readouterr().err  # where it is, and where to put it
    hub.files["plain/list.csv"] = LABELS["avesecho_passt"].encode()
    assert main(["classes", card.name, where]) == 0
    assert "Tawny Owl" in capsys.readouterr().out
    assert (tmp_path / "base" / names.name).is_file()
    assert {path for _, path, *_ in hub.requests} == {"/plain/list.csv"}


def test_nobody_waits_for_weights_to_read_a_list(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = "DBD-research-group/ConvNeXT-Base-BirdSet-XCL"
    labels = {str(i): f"code{i}" for i in range(9736)}
    where = f"model_base_path={tmp_path / 'base'}"
    hub.add(f"{repository}/config.json", json.dumps({"id2label": labels}).encode())
    assert main(["classes", "convnext_birdset", where]) == 0
    assert "code9735" in capsys.readouterr().out
    hub.add(f"{repository}/config.json", b"{}")  # that of a version which does not name them
    assert main(["classes", "efficientnet_birdset", where]) == 1
    capsys.readouterr()
    (tmp_path / "base/convnext_birdset/config.json").write_text("{}")
    assert main(["classes", "convnext_birdset", where]) == 1
    assert '"bacpipe models get convnext_birdset"' in capsys.readouterr().err
    asked = {path.rpartition("/")[2] for _, path, *_ in hub.requests}
    assert "config.json" in asked and not any(path.endswith("safetensors") for path in asked)


def test_weights_with_other_classes_tell_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    card = CARDS["birdnet"]
    monkeypatch.setitem(CARDS, "birdnet", replace(card, n_classes=2))  # the package has 6522
    assert main(["classes", "birdnet", f"model_base_path={tmp_path}"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + 6522


def test_every_classifier_tells_its_classes_without_weights() -> None:
    classifiers = {name for name, card in CARDS.items() if card.is_classifier}
    assert {*LABELS} | {name for name in classifiers if CARDS[name].known_classes} == classifiers
    assert {name for name, card in CARDS.items() if list_of_classes(card)} == {*LABELS}


def test_lists_are_read_without_the_framework_of_the_model() -> None:
    code = (
        "import sys; from bacpipe.commands import classes; classes.run(['birdnet']); "
        "assert not {'torch', 'tensorflow', 'onnxruntime'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_damaged_weights_are_not_called_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = tmp_path / "bat/bat_2_convnet_mixed.pth"
    damaged.parent.mkdir()
    damaged.write_bytes(b"no checkpoint")
    words = ["classes", "--species", "Myotis myotis", f"model_base_path={tmp_path}"]
    main(words)
    said, _, absent = capsys.readouterr().out.partition("Not looked at")
    assert f"bat: {damaged}" in said and "cannot be read" in said
    assert " bat," not in absent and "(bat," not in absent
