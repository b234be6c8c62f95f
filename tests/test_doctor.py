from __future__ import annotations

import os
import shutil
import tomllib
from pathlib import Path

import pytest
import torch

from bacpipe.__main__ import main
from bacpipe.commands.doctor import _extra, examine, report
from bacpipe.models.loading import load_model

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"].keys() - {"all", "docs", "test"}


@pytest.fixture(autouse=True)
def roomy_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the disk of this machine has left is not what is tested."""
    usage = shutil.disk_usage(ROOT)._replace(free=10**12)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)


def test_the_report_of_a_healthy_installation(capsys: pytest.CaptureFixture) -> None:
    assert main(["doctor", "device=cpu"]) == 0
    text = capsys.readouterr().out
    for expected in (
        "bacpipe",
        "torch",
        "extra onnx",
        "libsndfile",
        "birdnet on cpu: batches of 64",
    ):
        assert expected in text
    assert "!!" not in text
    assert str(Path.home()) not in text


def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes long: importing extras, and large batches."""
    monkeypatch.setattr("bacpipe.commands.doctor._EXTRAS", ())
    monkeypatch.setattr("bacpipe.commands.doctor._BATCH", 8)


@pytest.mark.parametrize(("error", "mark"), [(1e-6, "ok"), (0.01, "!!")])
def test_every_gpu_is_compared_with_the_cpu(
    error: float, mark: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """A stand-in for Apple's GPU: the CPU with an error."""
    asked: list[str] = []

    def load(name: str, *, device: str, model_base_path: object) -> object:
        asked.append(device)
        model = load_model(name, device="cpu", model_base_path=model_base_path)  # type: ignore[arg-type]
        if device != "cpu":
            embed = model.network.embed  # type: ignore[attr-defined]
            model.network.embed = lambda x: embed(x) * (1 + error)  # type: ignore[attr-defined]
        return model

    quick(monkeypatch)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr("bacpipe.embedder.choose_device", lambda device: device)
    monkeypatch.setattr("bacpipe.embedder.load_model", load)
    monkeypatch.setattr(
        "bacpipe.commands.doctor.checkpoints.missing_files",
        lambda card, base: [] if card.name == "birdnet" else ["weights"],
    )
    assert main(["doctor"]) == int(mark == "!!")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "birdnet on mps:" in line]
    assert line.startswith(mark)
    assert "windows/s" in line
    assert "off single windows" in line
    assert ("1e-02 off the CPU" in line) is (mark == "!!")
    assert asked == ["cpu", "mps", "cpu"]


def test_a_batch_that_changes_results_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str, *, device: str, model_base_path: object) -> object:
        model = load_model(name, device="cpu", model_base_path=model_base_path)  # type: ignore[arg-type]
        embed = model.network.embed  # type: ignore[attr-defined]
        model.network.embed = lambda x: embed(x) * (1 + len(x) / 100)  # type: ignore[attr-defined]
        return model

    quick(monkeypatch)
    monkeypatch.setattr("bacpipe.embedder.load_model", load)
    findings = {finding.topic: finding for finding in examine(device="cpu")}
    assert findings["self-test"].problem
    assert "7e-02 off single windows" in findings["self-test"].text


def test_what_fails_is_marked_and_does_not_hide_the_rest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("soundfile.write", refuse)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10**6))
    assert main(["doctor", "device=cpu", f"main_results_dir={tmp_path / 'results'}"]) == 1
    lines = {line.split()[1]: line for line in capsys.readouterr().out.splitlines()}
    assert lines["decoding"].startswith("!!")
    assert "no space left" in lines["decoding"]
    assert lines["main_results_dir"].startswith("!!")
    assert lines["self-test"].startswith("ok")


def test_missing_extras_say_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bacpipe.extras.version", lambda _: "missing")
    monkeypatch.setattr("bacpipe.commands.doctor._BATCH", 8)
    findings = {finding.topic: finding for finding in examine(device="cpu")}
    # Its folder, because what the package index calls bacpipe is an older one.
    for extra in EXTRAS:
        assert f'pip install -c constraints.txt ".[{extra}]"' in findings[f"extra {extra}"].text
    assert "vggish" in findings["extra tensorflow"].text
    assert "missing" in report(list(findings.values()))


def test_an_extra_that_is_half_there_says_what_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    half = {"aiohttp": "3.9", "fsspec": "2026.9", "s3fs": "missing", "gcsfs": "missing"}
    monkeypatch.setattr("bacpipe.extras.versions", lambda _: half)
    found = _extra("remote")
    assert not found.problem
    assert found.text.startswith("aiohttp 3.9, fsspec 2026.9, without gcsfs, s3fs (for recordings")


@pytest.mark.parametrize(("extra", "package"), [("bats", "batdetect2"), ("cluster", "distributed")])
def test_an_installed_extra_that_cannot_be_imported_is_marked(
    extra: str,
    package: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """The report alone is printed: whatever the packages say stays in the process that asks."""
    monkeypatch.setattr("bacpipe.extras.version", lambda _: "1.0")
    broken = tmp_path / package
    broken.mkdir()
    (broken / "__init__.py").write_text("print('chatter')\nimport a_package_that_is_not_there\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    found = _extra(extra)
    assert found.problem and "a_package_that_is_not_there" in found.text
    assert not _extra("annotations").problem
    assert "chatter" not in "".join(capfd.readouterr())
