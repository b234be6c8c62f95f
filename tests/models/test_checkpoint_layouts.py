"""Checkpoints that differ from the usual layout: tolerated where documented, else refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bacpipe.errors import CheckpointError
from bacpipe.models.base import ModelBaseClass
from bacpipe.models.loading import load_model
from tests.models import parity


def _load(name: str, base: Path) -> ModelBaseClass:
    return load_model(name, device="cpu", model_base_path=base)


def _zeros(name: str, **shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    tensors = parity.manifest(name)["tensors"]
    return {key: torch.zeros(shapes.get(key, tuple(tensors[key]["shape"]))) for key in tensors}


# ---------------------------------------------------------------------------- biolingual


@pytest.fixture(scope="module")
def biolingual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("biolingual")
    parity.write_checkpoint("biolingual", base)
    return base


def test_biolingual_leaves_the_text_half_and_takes_other_names(biolingual: Path) -> None:
    path = biolingual / "biolingual" / "model.safetensors"
    published = path.read_bytes()
    windows = parity.windows("biolingual")[:1]
    with torch.inference_mode():
        model = _load("biolingual", biolingual)
        expected = model(model.preprocess(windows))
        state = {
            f"clap.{key}": value
            for key, value in load_file(path).items()
            if not key.endswith("relative_position_index")
        }
        state["clap.text_model.embeddings.word_embeddings.weight"] = torch.zeros(2, 2)
        state["clap.text_projection.linear1.weight"] = torch.zeros(2, 2)
        state["clap.logit_scale_a"] = torch.zeros(())
        try:
            save_file(state, path)
            model = _load("biolingual", biolingual)
        finally:
            path.write_bytes(published)
        torch.testing.assert_close(model(model.preprocess(windows)), expected, rtol=0, atol=0)


def test_biolingual_reads_what_torch_saved(biolingual: Path, tmp_path: Path) -> None:
    folder = tmp_path / "biolingual"
    folder.mkdir()
    for name in ("config.json", "preprocessor_config.json"):
        (folder / name).write_bytes((biolingual / "biolingual" / name).read_bytes())
    state = load_file(biolingual / "biolingual" / "model.safetensors")
    torch.save(state, folder / "pytorch_model.bin")
    windows = parity.windows("biolingual")[:1]
    with torch.inference_mode():
        models = [_load("biolingual", base) for base in (biolingual, tmp_path)]
        ours, theirs = (model(model.preprocess(windows)) for model in models)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_biolingual_front_end_equals_transformers(biolingual: Path) -> None:
    from transformers import ClapFeatureExtractor

    windows = parity.windows("biolingual")[:2]
    settings = json.loads((biolingual / "biolingual" / "preprocessor_config.json").read_text())
    extractor = ClapFeatureExtractor(**settings)
    theirs = extractor(list(windows.numpy()), sampling_rate=48000, return_tensors="pt")
    ours = _load("biolingual", biolingual).preprocess(windows)
    torch.testing.assert_close(ours, theirs["input_features"].float(), rtol=0, atol=1e-4)


def test_biolingual_refuses_another_preprocessing(biolingual: Path) -> None:
    path = biolingual / "biolingual" / "preprocessor_config.json"
    published = path.read_text()
    try:
        path.write_text(json.dumps(json.loads(published) | {"truncation": "fusion"}))
        with pytest.raises(CheckpointError, match=r"preprocessor_config\.json: truncation"):
            _load("biolingual", biolingual)
    finally:
        path.write_text(published)


# ---------------------------------------------------------------------------- BirdSet


@pytest.fixture(scope="module")
def birdset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ConvNeXt with three classes and one more module around it than usual."""
    base = tmp_path_factory.mktemp("birdset")
    folder = base / "convnext_birdset"
    folder.mkdir()
    shapes = {"classifier.weight": (3, 1024), "classifier.bias": (3,)}
    state = _zeros("convnext_birdset", **shapes)
    save_file({f"model.{key}": v for key, v in state.items()}, folder / "model.safetensors")
    return base


@pytest.mark.parametrize(
    ("id2label", "classes"),
    [
        ({"0": "eurrob1", "1": "grefin1", "2": "nocode"}, ("European Robin", "grefin1", "nocode")),
        ({"0": "eurrob1"}, ("class_000", "class_001", "class_002")),
        (None, ("class_000", "class_001", "class_002")),
    ],
)
def test_birdset_classes_are_those_of_the_checkpoint(
    birdset: Path, id2label: dict[str, str] | None, classes: tuple[str, ...]
) -> None:
    config = {} if id2label is None else {"id2label": id2label}
    (birdset / "convnext_birdset" / "config.json").write_text(json.dumps(config))
    table = "SPECIES_CODE,PRIMARY_COM_NAME\neurrob1,European Robin\n"
    (birdset / "ebird_taxonomy.csv").write_text(table)
    assert tuple(_load("convnext_birdset", birdset).classes) == classes


def test_birdset_says_when_the_class_head_is_missing(birdset: Path, tmp_path: Path) -> None:
    folder = tmp_path / "audioprotopnet"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    save_file({"backbone.layernorm.weight": torch.zeros(1024)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.safetensors.*last_layer\.weight"):
        _load("audioprotopnet", tmp_path)


# ---------------------------------------------------------------------------- insects


@pytest.fixture(scope="module")
def insects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Lightning checkpoint with five classes."""
    base = tmp_path_factory.mktemp("insects")
    (base / "insect459").mkdir()
    rows = {"model.backbone.classifier.weight": (5, 1280), "model.backbone.classifier.bias": (5,)}
    state = _zeros("insect459", **rows)
    state["model.mel_spec.mel_scale.fb"] += 1.0
    path = base / parity.manifest("insect459")["checkpoint_files"][0]
    torch.save({"state_dict": state, "epoch": 3}, path)
    return base


def test_insects_count_their_classes_in_the_checkpoint(
    insects: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert tuple(_load("insect459", insects).classes)[::4] == ("class_000", "class_004")
    assert "classlist.csv" in caplog.text


def test_insects_take_their_names_from_the_class_list(insects: Path) -> None:
    table = insects / "insect459" / "classlist.csv"
    rows = [f"{label},Species {label}" for label in (3, 1, 4, 0, 2)]
    try:
        table.write_text("\n".join(["label,species", *rows]))
        assert tuple(_load("insect459", insects).classes) == tuple(
            f"Species {label}" for label in range(5)
        )
        table.write_text("\n".join(["label,species", *rows[:4]]))
        with pytest.raises(CheckpointError, match=r"classlist\.csv.*labels 0 to 4"):
            _load("insect459", insects)
        table.write_text("name\nA")
        with pytest.raises(CheckpointError, match=r"classlist\.csv.*label.*species"):
            _load("insect459", insects)
    finally:
        table.unlink()


def test_damaged_torchscript_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / parity.manifest("insect66")["checkpoint_files"][0]
    path.parent.mkdir()
    path.write_bytes(b"no archive")
    with pytest.raises(CheckpointError, match=r"model_traced\.pt"):
        _load("insect66", tmp_path)


# ---------------------------------------------------------------------------- others


def test_bat_filter_equals_the_recursive_one(tmp_path: Path) -> None:
    from scipy import signal

    parity.write_checkpoint("bat", tmp_path)
    model = _load("bat", tmp_path)
    assert len(model.classes) == parity.manifest("bat")["num_classes"]
    windows = parity.windows("bat")[:1]
    coefficients = signal.butter(10, 15000 / 120000, "highpass")
    expected = torch.from_numpy(signal.lfilter(*coefficients, windows.double().numpy()))
    torch.testing.assert_close(model._high_pass(windows), expected, rtol=0, atol=1e-9)


def test_other_container_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mix2" / "mix2.pth"
    path.parent.mkdir()
    torch.save({"model": {}}, path)
    with pytest.raises(CheckpointError, match=r"mix2\.pth.*'encoder'"):
        _load("mix2", tmp_path)
