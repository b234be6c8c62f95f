"""ESP-AVES2: BEATs under the names of avex, and an EfficientNet beside torchvision's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torchaudio import transforms
from torchvision.models import efficientnet_b0

from bacpipe.errors import CheckpointError
from bacpipe.models.loading import load_model
from bacpipe.models.zoo import CARDS
from tests.models import parity

LABELS = ("Turdus merula", "Speech", "Hyla arborea")
CONV = "backbone.encoder.pos_conv.0"
TABLE = "self_attn.relative_attention_bias.weight"


def write(name: str, base: Path, state: dict[str, Tensor]) -> Path:
    path = base / CARDS[name].files[0]
    path.parent.mkdir(exist_ok=True)
    save_file({key: value.contiguous() for key, value in state.items()}, path)
    places = {label: LABELS.index(label) for label in sorted(LABELS)}
    (path.parent / "label_map.json").write_text(json.dumps(places))
    return path


@pytest.fixture(scope="module")
def beats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BEATs with the names that avex gives its parts, and a classifier of three classes."""
    base = tmp_path_factory.mktemp("esp_aves2")
    state = {f"backbone.{key}": value.clone() for key, value in parity.fake_state("beats").items()}
    for before, after in (("weight_g", "original0"), ("weight_v", "original1")):
        state[f"{CONV}.parametrizations.weight.{after}"] = state.pop(f"{CONV}.{before}")
    # safetensors keeps shared tensors once.
    for i in range(1, 12):
        state.pop(f"backbone.encoder.layers.{i}.{TABLE}", None)
    state["backbone.fbank.window"] = torch.zeros(400)
    state["classifier.weight"] = torch.linspace(-1, 1, 3 * 768).reshape(3, 768)
    state["classifier.bias"] = torch.tensor([0.1, 0.2, -0.3])
    write("esp_aves2_sl_beats_bio", base, state)
    return base


def test_beats_gives_the_embeddings_of_the_reference(beats: Path) -> None:
    model = load_model("esp_aves2_sl_beats_bio", device="cpu", model_base_path=beats)
    assert tuple(model.classes) == LABELS
    with torch.inference_mode():
        # The reference computed 5 s; the network takes any length.
        embeddings, scores = model.infer(model.preprocess(parity.windows("beats")), scores=True)
    expected = parity.target("beats")
    error = np.linalg.norm(embeddings.numpy() - expected) / np.linalg.norm(expected)
    assert error < 5e-6
    weight = np.linspace(-1, 1, 3 * 768).reshape(3, 768)
    logits = expected @ weight.T + [0.1, 0.2, -0.3]
    np.testing.assert_allclose(scores.numpy(), 1 / (1 + np.exp(-logits)), atol=1e-5)


def test_labels_that_do_not_fit_are_refused(beats: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = beats / "esp_aves2_sl_beats_bio" / "label_map.json"
    published = path.read_text()
    try:
        path.write_text(json.dumps({"Turdus merula": 0, "Speech": 1}))
        with pytest.raises(CheckpointError, match=r"label_map\.json: .* from 0 to 2 for"):
            load_model("esp_aves2_sl_beats_bio", device="cpu", model_base_path=beats)
        path.unlink()
        model = load_model("esp_aves2_sl_beats_bio", device="cpu", model_base_path=beats)
        assert tuple(model.classes) == ("class_000", "class_001", "class_002")
        assert "label_map.json" in caplog.text
    finally:
        path.write_text(published)


def test_weights_without_a_classifier_are_refused(tmp_path: Path) -> None:
    for name in ("esp_aves2_sl_beats_all", "esp_aves2_effnetb0_all"):
        write(name, tmp_path, {"backbone.layer_norm.weight": torch.zeros(512)})
        with pytest.raises(CheckpointError, match=rf"{name}.*no classifier"):
            load_model(name, device="cpu", model_base_path=tmp_path)


def test_efficientnet_equals_torchvision_on_torchaudio(tmp_path: Path) -> None:
    name = "esp_aves2_effnetb0_all"
    torch.manual_seed(0)
    theirs = efficientnet_b0(num_classes=3)
    windows = parity.windows("audiomae")[:2]  # as long, at the same rate
    mel = transforms.MelSpectrogram(16000, 800, 800, 160, n_mels=128)
    x = torch.log(mel(windows) + 1e-6)
    low, high = x.amin((1, 2), keepdim=True), x.amax((1, 2), keepdim=True)
    images = ((x - low) / (high - low + 1e-8)).unsqueeze(1).repeat(1, 3, 1, 1)
    with torch.no_grad():
        # Statistics of its norms that are none of the initial ones.
        theirs.train()(images[..., :64])
        theirs.eval()
        expected = theirs.avgpool(theirs.features(images)).flatten(1)
        scores = theirs(images).sigmoid()
    path = write(name, tmp_path, {f"model.{k}": v for k, v in theirs.state_dict().items()})
    assert "model.features.0.0.weight" in load_file(path)
    model = load_model(name, device="cpu", model_base_path=tmp_path)
    with torch.inference_mode():
        ours = model.infer(model.preprocess(windows), scores=True)
        silence = model(model.preprocess(torch.zeros(1, model.segment_length)))
    torch.testing.assert_close(ours[0], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours[1], scores, rtol=0, atol=1e-5)
    assert torch.isfinite(silence).all()
    assert tuple(model.classes) == LABELS
