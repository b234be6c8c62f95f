"""CLAP, and BioLingual, which learnt animal sounds from captions: sounds and words in one space.

References
----------
Wu et al. 2023, Large-scale Contrastive Language-Audio Pretraining, arXiv 2211.06687;
https://github.com/LAION-AI/CLAP.
Robinson et al. 2024, Transferable Models for Bioacoustics with Human Language Supervision,
arXiv 2308.04978; https://github.com/david-rx/biolingual
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    ClapAudioConfig,
    ClapAudioModelWithProjection,
    ClapTextConfig,
    ClapTextModelWithProjection,
    PreTrainedTokenizerFast,
)
from transformers.audio_utils import mel_filter_bank
from transformers.models.clap.modeling_clap import ClapAudioLayer, ClapAudioSelfAttention

from bacpipe.errors import CheckpointError, SettingsError, first_line
from bacpipe.models.backends.cpu.fusion import fuse_linears
from bacpipe.models.backends.cpu.layers import GELU, FusedLinear
from bacpipe.models.backends.pytorch import TorchModel, computing_on, read_checkpoint
from bacpipe.models.card import HubFiles, ModelCard, Source
from bacpipe.models.frontends import MelSpectrogram, exact_dtype, power_to_db
from bacpipe.models.weights import checkpoints
from bacpipe.models.weights.containers import read_json, strip_prefixes

# Modules that a file may have around the model of transformers.
_PREFIXES = ("model.", "clap.")

# What each half leaves out: the other one, and scales for training.
_NOT_AUDIO = ("text_model.*", "text_projection.*", "logit_scale_*")
_NOT_TEXT = ("audio_model.*", "audio_projection.*", "logit_scale_*")

# Entries that a file may leave out, because they follow from the shape of the network.
_IMPLIED = ("relative_position_index", "position_ids", "token_type_ids")

# BioLingual went on from this model, whose tokenizer is that of RoBERTa.
_BEGINNING = "laion/clap-htsat-unfused"
_MOST_TOKENS = 512

_CLAP_SETTINGS: dict[str, Any] = {
    "feature_size": 64,
    "sampling_rate": 48000,
    "hop_length": 480,
    "max_length_s": 10,
    "fft_window_size": 1024,
    "frequency_min": 50,
    "frequency_max": 14000,
    "truncation": "rand_trunc",
}


class Clap(TorchModel):
    """Embeddings of length one, of sounds and of words, in one space.

    Where no ``preprocessor_config.json`` lies beside the weights, the settings of
    laion/clap-htsat-unfused are assumed.  The half for words is read when it is first used.
    """

    def set_up(self) -> None:
        config, path = self.paths
        network = _audio_half(config, self.card.name)
        self._load(network, read_checkpoint(path), _NOT_AUDIO)
        fuse_clap(network)
        self._network = self.place(network)
        preprocessor = path.parent / "preprocessor_config.json"
        self._mel = self.place(_front_end(preprocessor, self.card, self.device))

    def preprocess(self, audio: Tensor) -> Tensor:
        """Mel spectrogram in dB, frames before bands, float32, shape (n, 1, 1001, 64)."""
        return power_to_db(self._mel(audio)).transpose(1, 2).unsqueeze(1)

    def __call__(self, x: Tensor) -> Tensor:
        """Embeddings of length one, float32, shape (n, 512)."""
        return F.normalize(self._network(input_features=x).audio_embeds, dim=1)

    def embed_text(self, texts: list[str]) -> Tensor:
        """Embeddings of descriptions, to be compared with those of sounds by their dot product.

        The tokenizer is downloaded if it did not come with the weights.

        Parameters
        ----------
        texts : list of str
            In English, such as "the song of a robin"; what is longer than 512 tokens is cut.

        Returns
        -------
        torch.Tensor, float32, shape (n, 512)
            Of length one, on the model's device.

        Raises
        ------
        SettingsError
            If `texts` is no list of texts, or one of them is empty.
        CheckpointNotFoundError
            If there is no tokenizer, and none can be downloaded.
        CheckpointError
            If the tokenizer or the half for words cannot be read.
        """
        if isinstance(texts, str) or not all(isinstance(t, str) and t.strip() for t in texts):
            raise SettingsError(
                f"embed_text: got {texts!r}; expected a list of descriptions, such as "
                f"['the song of a robin', 'rain']."
            )
        tokenizer, network = self._words
        rows = []
        with torch.inference_mode(), computing_on(self.device):
            # One at a time: no padding, on which nothing may depend.
            for text in texts:
                tokens = tokenizer(
                    text, truncation=True, max_length=_MOST_TOKENS, return_tensors="pt"
                )
                given = {
                    key: tokens[key].to(self.device) for key in ("input_ids", "attention_mask")
                }
                rows.append(F.normalize(network(**given).text_embeds, dim=1))
        return torch.cat(rows) if rows else torch.zeros(0, self.card.dim, device=self.device)

    @cached_property
    def _words(self) -> tuple[PreTrainedTokenizerFast, ClapTextModelWithProjection]:
        config, path = self.paths
        file = _Tokenizer(self.card)
        (tokenizer,) = checkpoints.resolve(file, self.model_base_path).values()
        settings = _half(read_json(config), "text_config")
        network = ClapTextModelWithProjection(ClapTextConfig.from_dict(settings))
        self._load(network, read_checkpoint(path), _NOT_TEXT)
        return _read_tokenizer(tokenizer), self.place(network)

    def _load(
        self, network: nn.Module, state: Mapping[str, Tensor], unused: tuple[str, ...]
    ) -> None:
        """Load one half of the weights."""
        implied = {
            key: value for key, value in network.state_dict().items() if key.endswith(_IMPLIED)
        }
        given = {strip_prefixes(key, _PREFIXES): value for key, value in state.items()}
        self.fit(network, self.paths[1], implied | given, unused=unused)


class BioLingual(Clap):
    """CLAP that learnt animal sounds from captions."""


@dataclass(frozen=True)
class _Tokenizer:
    """The tokenizer's file, which a model needs for words alone."""

    card: ModelCard
    alternatives: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        return f"{self.card.name} (embed_text)"

    @property
    def files(self) -> tuple[str, ...]:
        return (f"{self.card.name}/tokenizer.json",)

    @property
    def sources(self) -> tuple[Source, ...]:
        own = [s.repo_id for s in self.card.sources if isinstance(s, HubFiles)]
        repositories = dict.fromkeys([*own, _BEGINNING])
        return tuple(HubFiles(self.card.name, r, ("tokenizer.json",)) for r in repositories)


def _read_tokenizer(path: Path) -> PreTrainedTokenizerFast:
    try:
        return PreTrainedTokenizerFast(tokenizer_file=str(path))
    # What the reader raises is of no class of its own.
    except Exception as error:
        raise CheckpointError(
            f"{path}: this tokenizer cannot be read ({first_line(error)}); delete it, so that it "
            f"is fetched again."
        ) from error


def _half(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Settings of one half; its projection belongs to the whole model in transformers."""
    shared = {k: config[k] for k in ("projection_dim", "projection_hidden_act") if k in config}
    return dict(config.get(name) or {}) | shared


def _audio_half(path: Path, model: str) -> ClapAudioModelWithProjection:
    settings = _half(read_json(path), "audio_config")
    if settings.get("enable_fusion"):
        raise CheckpointError(
            f"{path}: this is a CLAP model that fuses long recordings (enable_fusion), but "
            f"{model} does not; use the files that its authors published."
        )
    return ClapAudioModelWithProjection(ClapAudioConfig.from_dict(settings))


def _front_end(path: Path, card: ModelCard, device: str) -> MelSpectrogram:
    """Batched form of transformers' ClapFeatureExtractor for windows of exactly its length."""
    settings = _CLAP_SETTINGS | (read_json(path) if path.exists() else {})
    fixed = {
        "sampling_rate": card.sample_rate,
        "max_length_s": card.window // card.sample_rate,
        "truncation": "rand_trunc",
    }
    for key, value in fixed.items():
        if settings[key] != value:
            raise CheckpointError(
                f"{path}: {key} is {settings[key]!r}, but {card.name} is run with {value!r}; use "
                f"the file that its authors published, or remove it."
            )
    filters = mel_filter_bank(
        num_frequency_bins=settings["fft_window_size"] // 2 + 1,
        num_mel_filters=settings["feature_size"],
        min_frequency=settings["frequency_min"],
        max_frequency=settings["frequency_max"],
        sampling_rate=card.sample_rate,
        norm="slaney",
        mel_scale="slaney",
    )
    # The original works in double precision, which shows in the dB of quiet bands.
    return MelSpectrogram(
        torch.from_numpy(filters).float(), hop=settings["hop_length"], dtype=exact_dtype(device)
    )


class _Attention(nn.Module):
    """Attention inside of local windows, with their position bias looked up once."""

    position_bias: Tensor

    def __init__(self, attention: ClapAudioSelfAttention) -> None:
        super().__init__()
        self.heads = attention.num_attention_heads
        self.query, self.key, self.value = attention.query, attention.key, attention.value
        table, index = attention.relative_position_bias_table, attention.relative_position_index
        bias = table.detach()[index].permute(2, 0, 1).contiguous()
        self.register_buffer("position_bias", bias)

    def forward(
        self, tokens: Tensor, mask: Tensor | None = None, output_attentions: bool | None = False
    ) -> tuple[Tensor]:
        """Attend: (n * local windows, tokens, width), mask (local windows, tokens, tokens)."""
        queries, keys, values = (
            projection(tokens).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for projection in (self.query, self.key, self.value)
        )
        bias = self.position_bias
        if mask is not None:
            several = len(tokens) // len(mask), *mask.shape[:1], *bias.shape
            bias = (bias + mask.unsqueeze(1)).expand(several).flatten(0, 1)
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias)
        return (attended.transpose(1, 2).flatten(2),)


def fuse_clap(network: ClapAudioModelWithProjection) -> None:
    """Replace the slow parts of the audio encoder, in place, once its weights are loaded.

    Parameters
    ----------
    network : transformers.ClapAudioModelWithProjection
        In evaluation it will compute the same, up to rounding; it gives no attentions.
    """
    for layer in network.modules():
        if isinstance(layer, ClapAudioLayer):
            inner: Any = layer.intermediate
            attention: Any = layer.attention
            attention.self = _Attention(attention.self)
            if network.config.hidden_act == "gelu":
                inner.dense = FusedLinear(inner.dense, GELU)
                inner.intermediate_act_fn = nn.Identity()
    fuse_linears(network)
