"""Every PyTorch model of the zoo, against its reference and against our own promises.

One table: a model that gets a manifest and a golden file is tested without new test code.
Each model is written, loaded and run once; the tests look at what came out.
"""

from __future__ import annotations

import copy
import io
import pickle
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bacpipe.models.backends.cpu import layers
from bacpipe.models.backends.cpu.layers import CpuLayer
from bacpipe.models.base import ModelBaseClass
from bacpipe.models.loading import load_model
from bacpipe.models.zoo import CARDS
from tests.models import parity

# Bytes of one checkpoint that need more room than a small machine may have.
_BIG = {"birdmae": 2_600_000_000}

# Networks of the same classes and layers as another's.
_LIKE = {
    "birdaves_especies": "aves_especies",
    "birdmae": "audiomae",
    "insect459": "insect66",
    "naturebeats": "beats",
}

# Some front ends take the logarithm of mel bands that may hold nothing but the rounding of a
# Fourier transform, and that differs between processors.  Kaldi's: on some, torchaudio itself is
# 5e-4 off the golden values in 1 % of these.  `test_kaldi` compares with torchaudio strictly.
_ROUNDING_SHOWS = ("audiomae", "beats", "birdmae", "naturebeats")


# Relative error of the embeddings; wider where the front end's rounding alone exceeds it.  There,
# torchaudio's own spectrograms were measured 8.4e-6 (protoclr) and 2.3e-5 (rcl_fs_bsed) away.
_LIMIT = 5e-6
_WIDER_LIMIT = {"protoclr": 2e-5, "rcl_fs_bsed": 5e-5}


@dataclass
class Output:
    """What a model made of a batch."""

    preprocessed: torch.Tensor
    embeddings: torch.Tensor
    scores: torch.Tensor | None

    @property
    def arrays(self) -> list[np.ndarray]:
        return [a.numpy() for a in (self.embeddings, self.scores) if a is not None]


@dataclass
class Run:
    """One model with everything that the tests look at."""

    name: str
    model: ModelBaseClass
    batch: Output  # the three golden windows, then silence
    alone: Output  # the first of them, as a batch of one, on another number of threads
    again: Output  # the same once more, on the same number of threads
    checksums: dict[str, int]  # of its parameters, before the first use


@pytest.fixture(scope="module", params=parity.MODELS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    name: str = request.param
    base = tmp_path_factory.mktemp(name)
    _require_room(name, base)
    try:
        parity.write_checkpoint(name, base)
        yield _run(name, load_model(name, device="cpu", model_base_path=base))
    finally:
        shutil.rmtree(base)


def _run(name: str, model: ModelBaseClass) -> Run:
    checksums = _checksums(model)
    windows = parity.windows(name)
    silence = torch.zeros_like(windows[:1])
    batch = _infer(model, torch.cat([windows, silence]))
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if threads > 1 else 2)
    try:
        alone, again = _infer(model, windows[:1]), _infer(model, windows[:1])
    finally:
        torch.set_num_threads(threads)
    return Run(name, model, batch, alone, again, checksums)


def _infer(model: ModelBaseClass, audio: torch.Tensor) -> Output:
    with torch.inference_mode():
        preprocessed = model.preprocess(audio)
        embeddings, scores = model.infer(preprocessed, scores=model.is_classifier)
    return Output(preprocessed, embeddings, scores)


def _require_room(name: str, base: Path) -> None:
    need = _BIG.get(name, 0)
    if shutil.disk_usage(base).free < 2 * need:
        pytest.skip(f"the weights of {name} need {need / 1e9:.1f} GB of disk")
    meminfo = Path("/proc/meminfo")
    if need and meminfo.exists():
        facts = dict(line.split(":") for line in meminfo.read_text().splitlines())
        available = int(facts["MemAvailable"].split()[0]) * 1024
        if available < 3 * need:
            pytest.skip(f"loading {name} needs {3 * need / 1e9:.1f} GB of memory")


def test_input_is_the_one_of_the_card(run: Run) -> None:
    card, facts = CARDS[run.name], parity.manifest(run.name)
    assert (run.model.sr, run.model.segment_length) == (card.sample_rate, card.window)
    assert (facts["sample_rate"], facts["segment_samples"]) == (card.sample_rate, card.window)


def test_the_card_counts_the_parameters_of_the_network(run: Run) -> None:
    counted = sum(p.numel() for part in _networks(run.model).values() for p in part.parameters())
    if run.name == "insect459":  # its stand-in has the classes of insect66
        assert CARDS[run.name].parameters is None
    else:
        assert CARDS[run.name].parameters == counted


def test_cards_have_no_number_of_parameters_that_no_test_counts() -> None:
    counted = {*parity.MODELS, "birdnet", "batdetect2_clip_avg", "batdetect2_dets_avg"}
    assert {name for name, card in CARDS.items() if card.parameters is not None} <= counted


def test_preprocessing_matches_the_reference(run: Run) -> None:
    ours, theirs = parity.preprocessing_sample(run.name, run.batch.preprocessed[:3])
    if run.name in _ROUNDING_SHOWS:
        close = np.isclose(ours, theirs, rtol=1e-5, atol=1e-4)
        assert close.mean() > 0.98
        np.testing.assert_allclose(ours[~close], theirs[~close], rtol=0, atol=1e-3)
    else:
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-4)


def test_embeddings_match_the_reference(run: Run) -> None:
    target = parity.target(run.name)
    error = np.linalg.norm(run.batch.embeddings[:3].numpy() - target) / np.linalg.norm(target)
    assert error < _WIDER_LIMIT.get(run.name, _LIMIT)


def test_class_scores_match_the_reference(run: Run) -> None:
    arrays = parity.golden(run.name)
    if "class_scores_single" not in arrays:
        pytest.skip("the reference gives no class scores")
    assert run.batch.scores is not None
    np.testing.assert_allclose(
        run.batch.scores[:3].numpy(), arrays["class_scores_single"], rtol=0, atol=5e-6
    )


def test_embeddings_are_float32_of_the_length_on_the_card(run: Run) -> None:
    assert tuple(run.batch.embeddings.shape) == (4, CARDS[run.name].dim)
    assert run.batch.embeddings.dtype == torch.float32


def test_classifiers_have_one_score_and_one_name_per_class(run: Run) -> None:
    if CARDS[run.name].n_classes is None:
        assert not run.model.is_classifier
        return
    scores = run.batch.scores
    assert scores is not None
    assert scores.dtype == torch.float32
    assert tuple(scores.shape) == (4, len(run.model.classes))
    assert scores.min() >= 0
    assert scores.max() <= 1
    assert all(isinstance(name, str) and name for name in run.model.classes)
    assert len(set(run.model.classes)) == len(run.model.classes)


def test_same_input_gives_the_same_bits(run: Run) -> None:
    for first, second in zip(run.alone.arrays, run.again.arrays, strict=True):
        np.testing.assert_array_equal(first, second)


def test_window_does_not_depend_on_its_batch_nor_on_the_threads(run: Run) -> None:
    for alone, batch in zip(run.alone.arrays, run.batch.arrays, strict=True):
        scale = max(1.0, float(np.abs(alone).max()))
        np.testing.assert_allclose(batch[:1], alone, rtol=1e-5, atol=1e-5 * scale)


def test_silence_gives_finite_values(run: Run) -> None:
    assert torch.isfinite(run.batch.preprocessed).all()
    for values in run.batch.arrays:
        assert np.isfinite(values).all()


def test_scores_from_stored_embeddings_are_those_of_the_forward_pass(run: Run) -> None:
    if not run.model.is_classifier or run.model.one_pass:
        pytest.skip("no class scores from embeddings alone")
    with torch.inference_mode():
        scores = run.model.classifier_predictions(run.batch.embeddings)
    np.testing.assert_allclose(scores.numpy(), run.batch.arrays[1], rtol=0, atol=1e-6)


def _networks(model: ModelBaseClass) -> dict[str, nn.Module]:
    return {name: part for name, part in vars(model).items() if isinstance(part, nn.Module)}


def _parameters(model: ModelBaseClass) -> dict[str, torch.Tensor]:
    return {
        f"{part}.{name}": value
        for part, network in _networks(model).items()
        for name, value in network.state_dict().items()
    }


def _checksums(model: ModelBaseClass) -> dict[str, int]:
    return {key: zlib.crc32(value.numpy().tobytes()) for key, value in _parameters(model).items()}


def _close(ours: torch.Tensor, expected: torch.Tensor, limit: float = 1e-5) -> None:
    scale = max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(ours.to(expected.dtype), expected, rtol=limit, atol=limit * scale)


def _copy(run: Run) -> ModelBaseClass:
    if run.name in _LIKE:
        pytest.skip(f"{run.name} is made of the layers of {_LIKE[run.name]}")
    model: ModelBaseClass = copy.deepcopy(run.model)
    return model


def test_used_networks_keep_their_parameters(run: Run) -> None:
    assert _checksums(run.model) == run.checksums


@pytest.mark.parametrize("how", ["copy", "pickle", "torch.save"])
def test_used_models_can_be_copied(run: Run, how: str) -> None:
    other = _copy(run)
    if how == "pickle":
        other = pickle.loads(pickle.dumps(run.model))
    elif how == "torch.save":
        file = io.BytesIO()
        torch.save(run.model, file)
        file.seek(0)
        other = torch.load(file, weights_only=False)
    assert _parameters(other).keys() == _parameters(run.model).keys()
    _close(_infer(other, parity.windows(run.name)[:1]).embeddings, run.alone.embeddings)


def test_new_weights_take_effect(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    other = _copy(run)
    x = run.alone.preprocessed
    with torch.inference_mode():
        other(x)
    for network in _networks(other).values():
        state = network.state_dict()
        network.load_state_dict(
            {k: v / 2 if v.is_floating_point() else v for k, v in state.items()}
        )
    with torch.inference_mode():
        ours = other(x)
        assert not torch.allclose(ours, run.alone.embeddings, rtol=1e-2)
        monkeypatch.setattr(layers, "_IS_THERE", False)
        _close(ours, other(x))


def test_other_precisions(run: Run) -> None:
    other, x = _copy(run), run.alone.preprocessed
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        half = other(x).float()
    assert torch.cosine_similarity(half, run.alone.embeddings, dim=1) > 0.98
    for network in _networks(other).values():
        network.double()
    with torch.inference_mode():
        exact = other(x.double())
    assert exact.dtype is torch.float64
    _close(run.alone.embeddings, exact.float(), 1e-3)


def test_gradients_of_input_and_parameters(run: Run) -> None:
    other = _copy(run)
    with torch.inference_mode(False):
        x = run.alone.preprocessed.clone().requires_grad_()
        other(x).square().sum().backward()
        assert x.grad is not None
        assert x.grad.abs().sum() > 0
        fused = [
            layer
            for network in _networks(other).values()
            for layer in network.modules()
            if isinstance(layer, CpuLayer)
        ]
        for layer in fused:
            layer.weight.requires_grad_()
        embeddings, scores = other.infer(x.detach(), scores=other.is_classifier)
        (embeddings.sum() + (0 if scores is None else scores.sum())).backward()
        assert all(layer.weight.grad is not None for layer in fused)
