"""Spectrogram front ends against torchaudio, window by window."""

from __future__ import annotations

import warnings

import pytest
import torch
import torchaudio

from bacpipe.models.frontends import (
    MelSpectrogram,
    PowerSpectrogram,
    exact_dtype,
    mel_filterbank,
    min_max,
    power_to_db,
)

SETTINGS = {
    "mix2": {"sample_rate": 16000, "n_fft": 512, "hop": 128, "n_mels": 128},
    "protoclr": {
        "sample_rate": 16000,
        "n_fft": 1024,
        "hop": 320,
        "n_mels": 128,
        "f_min": 50.0,
        "f_max": 8000.0,
    },
    "insects": {
        "sample_rate": 44100,
        "n_fft": 2048,
        "hop": 1024,
        "n_mels": 128,
        "f_min": 400.0,
        "f_max": 22000.0,
        "normalized": True,
    },
    "birdset": {"sample_rate": 32000, "n_fft": 1024, "hop": 320, "n_mels": 128},
    "half of the band": {
        "sample_rate": 48000,
        "n_fft": 1024,
        "hop": 480,
        "n_mels": 64,
        "f_min": 50.0,
        "f_max": 10000.0,
    },
}


@pytest.fixture
def windows() -> torch.Tensor:
    """Noise at four levels, one of them silence: float32, shape (4, 20000)."""
    noise = torch.randn(4, 20000, generator=torch.Generator().manual_seed(0))
    return noise * torch.tensor([1.0, 0.1, 1e-4, 0.0])[:, None]


@pytest.mark.parametrize("name", SETTINGS)
def test_mel_spectrogram_equals_torchaudio(name: str, windows: torch.Tensor) -> None:
    settings = dict(SETTINGS[name])
    hop, normalized = settings.pop("hop"), settings.pop("normalized", False)
    ours = MelSpectrogram(mel_filterbank(**settings), hop=hop, normalized=normalized)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = torchaudio.transforms.MelSpectrogram(
            hop_length=hop, normalized=normalized, **settings
        )
    to_db = torchaudio.transforms.AmplitudeToDB()
    torch.testing.assert_close(
        power_to_db(ours(windows)), to_db(theirs(windows)), rtol=0, atol=1e-4
    )


@pytest.mark.parametrize("pad_mode", ["reflect", "constant"])
def test_power_spectrogram_equals_torchaudio(pad_mode: str, windows: torch.Tensor) -> None:
    ours = PowerSpectrogram(n_fft=512, hop=100, pad_mode=pad_mode, bins=(3, 40))
    theirs = torchaudio.transforms.Spectrogram(n_fft=512, hop_length=100, pad_mode=pad_mode)
    torch.testing.assert_close(ours(windows), theirs(windows)[:, 3:40], rtol=1e-5, atol=1e-6)


def test_double_precision_changes_rounding_only(windows: torch.Tensor) -> None:
    filters = mel_filterbank(sample_rate=16000, n_fft=512, n_mels=40)
    single = MelSpectrogram(filters, hop=128)(windows)
    double = MelSpectrogram(filters, hop=128, dtype=exact_dtype("cpu"))(windows)
    assert double.dtype == torch.float32
    torch.testing.assert_close(single, double, rtol=1e-4, atol=1e-9)
    assert exact_dtype("cuda:1") == torch.float64
    assert exact_dtype("mps") == torch.float32


def test_top_db_counts_from_the_maximum_of_each_window(windows: torch.Tensor) -> None:
    mel = MelSpectrogram(mel_filterbank(sample_rate=16000, n_fft=512, n_mels=40), hop=128)
    power = mel(windows) * torch.logspace(-12, 0, 40)[:, None]
    batch = power_to_db(power, top_db=80.0)
    to_db = torchaudio.transforms.AmplitudeToDB(top_db=80.0)
    alone = torch.cat([to_db(p[None]) for p in power])
    torch.testing.assert_close(batch, alone, rtol=0, atol=1e-4)
    assert (batch.flatten(1).amin(1) >= batch.flatten(1).amax(1) - 80.0).all()
    # The floor acts, and it is not that of the loudest window.
    assert (batch[0] > power_to_db(power)[0]).any()
    assert batch[1].min() < batch[0].min()


def test_min_max_scales_each_window_and_turns_constant_ones_to_zeros() -> None:
    x = torch.stack([torch.linspace(-3, 5, 12).view(3, 4), torch.full((3, 4), -100.0)])
    scaled = min_max(x)
    torch.testing.assert_close(scaled[0], torch.linspace(0, 1, 12).view(3, 4))
    assert torch.equal(scaled[1], torch.zeros(3, 4))


def test_filterbank_takes_all_frequencies_by_default() -> None:
    assert mel_filterbank(sample_rate=16000, n_fft=512, n_mels=10).shape == (257, 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mel_filterbank(sample_rate=16000, n_fft=512, n_mels=128)


def test_filters_that_hear_nothing_give_zeros() -> None:
    filters = mel_filterbank(sample_rate=16000, n_fft=512, n_mels=20, f_max=4000)
    filters[:, 5:11] = 0  # one of the blocks that are multiplied on their own, and more
    mel = MelSpectrogram(filters, hop=128)
    power = PowerSpectrogram(n_fft=512, hop=128)
    audio = torch.randn(2, 4000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(mel(audio), filters.T @ power(audio), rtol=1e-4, atol=1e-5)
