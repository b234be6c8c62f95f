"""CLAP: both halves of small networks, against transformers' own model, extractor and tokenizer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, PreTrainedTokenizerFast

from bacpipe.errors import CheckpointError, CheckpointNotFoundError, SettingsError
from bacpipe.models.families import clap
from bacpipe.models.loading import load_model
from tests.models import parity

TEXTS = ["the song of a robin", "rain", "a robin"]

AUDIO = {
    "patch_embeds_hidden_size": 16,
    "depths": [1, 1],
    "num_attention_heads": [2, 2],
    "hidden_size": 32,
    "num_hidden_layers": 2,
}
WORDS = {
    "vocab_size": 300,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 514,
}


def write_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """A byte-level BPE with RoBERTa's frame of <s> and </s>, as ``tokenizer.json``."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    special = ["<s>", "<pad>", "</s>", "<unk>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=290, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    tokenizer.save(str(folder / "tokenizer.json"))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, ClapModel, object]]:
    """The published files of a small model, the model, and its tokenizer."""
    base = tmp_path_factory.mktemp("clap")
    folder = base / "clap"
    folder.mkdir()
    torch.manual_seed(0)
    config = ClapConfig(audio_config=AUDIO, text_config=WORDS, projection_dim=16)
    model = ClapModel(config).eval()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    state["text_model.embeddings.position_ids"] = torch.arange(514)[None]
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    yield base, model, write_tokenizer(folder)


def test_sounds_are_embedded_as_by_transformers(theirs: tuple[Path, ClapModel, object]) -> None:
    base, reference, _ = theirs
    windows = parity.windows("biolingual")[:2]
    extractor = ClapFeatureExtractor(
        feature_size=64, sampling_rate=48000, hop_length=480, fft_window_size=1024,
        frequency_min=50, frequency_max=14000, truncation="rand_trunc", padding="repeatpad",
    )  # fmt: skip
    features = extractor(list(windows.numpy()), sampling_rate=48000, return_tensors="pt")
    model = load_model("clap", device="cpu", model_base_path=base)
    with torch.inference_mode():
        expected = reference.get_audio_features(features["input_features"].float()).pooler_output
        ours = model(model.preprocess(windows))
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_words_are_embedded_as_by_transformers(
    theirs: tuple[Path, ClapModel, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    base, reference, tokenizer = theirs
    model = load_model("clap", device="cpu", model_base_path=base)
    tokens = tokenizer(TEXTS, padding=True, return_tensors="pt")
    given = {key: tokens[key] for key in ("input_ids", "attention_mask")}
    with torch.inference_mode():
        expected = reference.get_text_features(**given).pooler_output
    turns = []
    monkeypatch.setattr(clap, "computing_on", lambda device: nullcontext(turns.append(device)))
    ours = model.embed_text(TEXTS)
    assert turns == ["cpu"]
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
    assert (ours[0] - ours[1]).abs().max() > 1e-3
    torch.testing.assert_close(ours.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(model.embed_text(TEXTS[1:2]), ours[1:2], rtol=0, atol=0)
    assert model.embed_text(["robin " * 1000]).isfinite().all()
    for bad in ("rain", ["rain", " "], [3]):
        with pytest.raises(SettingsError, match="embed_text: got"):
            model.embed_text(bad)


def test_a_tokenizer_that_is_missing_or_damaged(
    theirs: tuple[Path, ClapModel, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    shutil.copytree(theirs[0] / "clap", tmp_path / "clap")
    path = tmp_path / "clap" / "tokenizer.json"
    path.write_text("{}")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: this tokenizer cannot be read"):
        load_model("clap", device="cpu", model_base_path=tmp_path).embed_text(["rain"])
    path.unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    model = load_model("clap", device="cpu", model_base_path=tmp_path)
    with pytest.raises(CheckpointNotFoundError, match=r"clap/tokenizer\.json"):
        model.embed_text(["rain"])
