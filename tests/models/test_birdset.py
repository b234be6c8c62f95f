"""BirdSet: EfficientNet beside transformers' own, and twenty prototypes beside five."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torchaudio import transforms
from transformers import EfficientNetConfig, EfficientNetForImageClassification

from bacpipe.models.loading import load_model
from tests.models import parity

CODES = ("eurrob1", "grefin1", "eurbla")


def test_efficientnet_equals_transformers_on_torchaudio(tmp_path: Path) -> None:
    torch.manual_seed(0)
    settings = EfficientNetConfig(
        num_channels=1,
        width_coefficient=1.0,
        depth_coefficient=1.1,
        hidden_dim=1280,
        depthwise_padding=[16],
        id2label=dict(enumerate(CODES)),
    )
    theirs = EfficientNetForImageClassification(settings)
    windows = parity.windows("convnext_birdset")[:2]
    spectrogram = transforms.Spectrogram(n_fft=2048, hop_length=256, power=2.0)
    mel = transforms.MelScale(n_mels=256, n_stft=1025, sample_rate=32000)
    to_db = transforms.AmplitudeToDB("power", top_db=80)
    # One at a time: the range of a window is its own.
    db = torch.stack([to_db(mel(spectrogram(window))) for window in windows]).unsqueeze(1)
    x = (db + 4.268) / 4.569
    with torch.no_grad():
        # Statistics of its norms that are none of the initial ones.
        theirs.train()(x[..., :64])
        theirs.eval()
        scores = theirs(x).logits.sigmoid()
        expected = theirs.efficientnet(x).pooler_output
    folder = tmp_path / "efficientnet_birdset"
    folder.mkdir()
    save_file(theirs.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(settings.to_dict()))
    model = load_model("efficientnet_birdset", device="cpu", model_base_path=tmp_path)
    with torch.inference_mode():
        ours = model.infer(model.preprocess(windows), scores=True)
    torch.testing.assert_close(ours[0], expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours[1], scores, rtol=0, atol=1e-5)
    assert len(model.classes) == 3


def test_twenty_prototypes_that_are_five_give_the_scores_of_five(tmp_path: Path) -> None:
    count = 40
    entries = parity.manifest("audioprotopnet")["tensors"]
    shapes = {
        "head.prototype_vectors": (5 * count, 1024, 1, 1),
        "head.last_layer.weight": (count, 5),
        "head.last_layer.bias": (count,),
    }
    state = {}
    for key, entry in entries.items():
        shape = shapes.get(key, tuple(entry["shape"]))
        values = parity.fake_tensor(key, shape, entry["init"], scale=entry.get("scale", 1.0))
        state[key] = torch.from_numpy(values)
    vectors = state["head.prototype_vectors"].unflatten(0, (count, 5))
    state["head.prototype_vectors"] = vectors.repeat(1, 4, 1, 1, 1).flatten(0, 1)
    state["head.last_layer.weight"] = state["head.last_layer.weight"].repeat(1, 4) / 4
    folder = tmp_path / "audioprotopnet_20"
    folder.mkdir()
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    model = load_model("audioprotopnet_20", device="cpu", model_base_path=tmp_path)
    with torch.inference_mode():
        x = model.preprocess(parity.windows("audioprotopnet")[:1])
        embeddings, scores = model.infer(x, scores=True)
    expected = parity.golden("audioprotopnet")
    np.testing.assert_allclose(
        embeddings.numpy(), parity.target("audioprotopnet")[:1], rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(
        scores.numpy(), expected["class_scores_single"][:1, :count], rtol=0, atol=5e-6
    )
