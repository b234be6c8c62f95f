"""Our batched Kaldi features are those of torchaudio."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torchaudio.compliance import kaldi

from bacpipe.models.kaldi import KaldiFbank
from tests.models import parity

Window = Literal["povey", "hanning"]


def theirs(audio: torch.Tensor, sample_rate: int, window: Window) -> torch.Tensor:
    features = [
        kaldi.fbank(one[None], num_mel_bins=128, sample_frequency=sample_rate, window_type=window)
        for one in audio
    ]
    return torch.stack(features)


def audio(sample_rate: int, samples: int) -> torch.Tensor:
    return torch.stack(
        [torch.from_numpy(parity.fake_audio(sample_rate, samples, seed)) for seed in range(3)]
    )


@pytest.mark.parametrize("offset", [0.0, 0.3])
@pytest.mark.parametrize("gain", [1.0, 2.0**15])
@pytest.mark.parametrize("window", ["povey", "hanning"])
@pytest.mark.parametrize(
    ("sample_rate", "samples"), [(16000, 80000), (32000, 48001), (22050, 30000), (16000, 400)]
)
def test_same_as_torchaudio(
    sample_rate: int, samples: int, window: Window, gain: float, offset: float
) -> None:
    windows = (audio(sample_rate, samples) + offset) * gain
    ours = KaldiFbank(sample_rate, window=window)(windows)
    torch.testing.assert_close(ours, theirs(windows, sample_rate, window), rtol=0, atol=1e-4)


def test_a_window_does_not_depend_on_the_others() -> None:
    windows = audio(16000, 16000)
    fbank = KaldiFbank(16000)
    torch.testing.assert_close(fbank(windows)[1:2], fbank(windows[1:2]), rtol=0, atol=1e-5)


def test_silence_is_the_floor_of_the_logarithm() -> None:
    features = KaldiFbank(16000)(torch.zeros(2, 16000))
    torch.testing.assert_close(features, theirs(torch.zeros(2, 16000), 16000, "povey"))
    assert features.unique().numel() == 1


def test_other_numbers_of_filters() -> None:
    windows = audio(16000, 8000)
    ours = KaldiFbank(16000, n_mels=40)(windows)
    expected = kaldi.fbank(windows[:1], num_mel_bins=40, sample_frequency=16000.0)
    torch.testing.assert_close(ours[0], expected, rtol=0, atol=1e-4)


def test_works_in_inference_mode_and_leaves_its_input_alone() -> None:
    windows = audio(16000, 16000)
    before = windows.clone()
    with torch.inference_mode():
        features = KaldiFbank(16000)(windows)
    assert features.shape == (3, 98, 128)
    assert features.dtype == torch.float32
    torch.testing.assert_close(windows, before, rtol=0, atol=0)
