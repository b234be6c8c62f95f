"""Classes of models, and models that know a species."""

from __future__ import annotations

from pathlib import Path

import pytest

from bacpipe.__main__ import main


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
