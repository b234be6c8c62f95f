from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bacpipe.__main__ import main
from bacpipe.models.card import LabelFile, Url
from bacpipe.models.loading import load_model
from bacpipe.models.weights import checkpoints
from bacpipe.models.zoo import CARDS, EBIRD
from tests.models import parity
from tests.models.hub_server import Hub
from tests.models.test_checkpoints import hub, impatient, tar_xz

__all__ = ["hub", "impatient"]  # fixtures


@pytest.fixture
def bat(hub: Hub, tmp_path: Path) -> Hub:
    parity.write_checkpoint("bat", tmp_path / "made")
    name = "bat/bat_2_convnet_mixed.pth"
    content = tar_xz({name: (tmp_path / "made" / name).read_bytes()})
    hub.add("datasets/vskode/bacpipe_models/bat/bat.tar.xz", content)
    return hub


def test_the_zoo_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", f"model_base_path={tmp_path}"]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert {row.split()[0] for row in rows} == set(CARDS)
    for column in ("rate", "window", "dim", "classes", "weights", "extra", "licence"):
        assert column in header


def test_weights_are_fetched_ahead_and_checked(
    bat: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    base = f"model_base_path={tmp_path / 'base'}"
    assert main(["models", "get", "Bat", base]) == 0
    assert (tmp_path / "base/bat/bat_2_convnet_mixed.pth").exists()
    asked = len(bat.requests)
    assert main(["models", "check", "bat", base, "device=cpu"]) == 0
    assert len(bat.requests) == asked
    text = (tmp_path / "bacpipe_models_check.md").read_text()
    assert text.strip() in capsys.readouterr().out
    assert "| bat | ok | 64 | 18, such as Rhinolophus ferrumequinum" in text
    assert "18 scientific" in text


def test_codes_are_fetched_with_weights_that_are_there(
    bat: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are asked for by nobody else: a model that is there waits for no network."""
    bat.files["plain/codes.json"] = b"{}"
    source = Url("bat", f"{bat.endpoint}/plain/codes.json", filename="codes.json")
    card = replace(CARDS["bat"], optional_labels=(LabelFile("bat/codes.json", (source,)),))
    monkeypatch.setitem(CARDS, "bat", card)
    base = tmp_path / "base"
    checkpoints.resolve(card, base)
    load_model("bat", device="cpu", model_base_path=base)
    assert not (base / "bat/codes.json").exists()
    assert main(["models", "get", "bat", f"model_base_path={base}"]) == 0
    assert (base / "bat/codes.json").read_bytes() == b"{}"
    (base / "bat/codes.json").unlink()
    (base / card.files[0]).unlink()
    assert main(["models", "get", "--names", "bat", f"model_base_path={base}"]) == 0
    assert (base / "bat/codes.json").exists() and not (base / card.files[0]).exists()
    assert CARDS["birdnet"].optional_labels == EBIRD


def test_what_cannot_be_had_is_not_checked(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    base = f"model_base_path={tmp_path / 'base'}"
    assert main(["models", "get", "mix2", base]) == 1
    assert main(["models", "check", "mix2", base, "--report", "report.md"]) == 1
    text = (tmp_path / "report.md").read_text()
    assert "| mix2 | not checked |" in text
    assert "does not exist or is private" in text


def test_a_file_of_another_model_is_a_problem(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base/birdnet_v3").mkdir(parents=True)
    (tmp_path / "base/birdnet_v3/model.onnx").write_bytes(b"another")
    assert main(["models", "check", "birdnet_v3", f"model_base_path={tmp_path / 'base'}"]) == 1
    text = (tmp_path / "bacpipe_models_check.md").read_text()
    assert "| birdnet_v3 | PROBLEM |" in text or "| birdnet_v3 | not checked |" in text
    assert "but the card says 999bb627e8954516" in text


@pytest.mark.parametrize("words", [["chekc"], ["get"], ["get", "birdnett"]])
def test_mistakes_get_a_sentence(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", *words]) in (1, 2)
    assert capsys.readouterr().err.startswith("bacpipe: ")
