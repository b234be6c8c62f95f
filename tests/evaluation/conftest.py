"""A small annotated data set, embedded with the tiny model, and labelled points without audio."""

from __future__ import annotations

import csv
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

import bacpipe
from bacpipe.evaluation.labelled_windows import LabelledWindows
from bacpipe.options import Options, make_options
from tests.conftest import TinyModel

RATE = 8000
LEVELS = {"loud": 0.9, "quiet": 0.04, "rising": None}


def make_windows(
    n: int = 600,
    n_classes: int = 4,
    *,
    n_recordings: int = 12,
    dim: int = 8,
    separation: float = 2.0,
    seed: int = 0,
) -> LabelledWindows:
    """Gaussian clusters, one per class, spread over recordings of three sites."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n)
    centres = rng.standard_normal((n_classes, dim)) * separation
    recording = rng.integers(0, n_recordings, n)
    names = np.array([f"site{r % 3}/{r:02}.wav" for r in range(n_recordings)], dtype=object)
    return LabelledWindows(
        model="points",
        embeds=(centres[labels] + rng.standard_normal((n, dim))).astype(np.float32),
        labels=labels,
        classes=tuple(f"class {i}" for i in range(n_classes)),
        kind="species",
        recordings=names[recording],
    )


def as_ground_truth(data: LabelledWindows) -> dict[str, object]:
    """The form in which ground truth is passed around."""
    numbers = {name: i for i, name in enumerate(data.classes)}
    return {"label:species": data.labels.astype(np.int32), "label_dict:species": numbers}


@dataclass(frozen=True)
class DataSet:
    """An embedded data set."""

    audio_dir: Path
    results: Path
    loader: bacpipe.Loader

    def options(self, **settings: object) -> Options:
        return make_options(audio_dir=self.audio_dir, main_results_dir=self.results, **settings)

    @property
    def places(self) -> dict[str, Path]:
        return {"audio_dir": self.audio_dir, "main_results_dir": self.results}


def make_recordings(folder: Path) -> None:
    """Nine recordings of nine seconds; every three seconds another sound, one second silent."""
    rows = []
    for number in range(9):
        rng = np.random.default_rng(number)
        name = f"site{number // 3}/rec{number}.wav"
        samples = np.zeros(9 * RATE)
        for place, (label, level) in enumerate(LEVELS.items()):
            start = 3 * place
            loudness = np.linspace(0, 0.9, 2 * RATE) if level is None else level
            sound = rng.uniform(-1, 1, 2 * RATE) * loudness
            samples[start * RATE : start * RATE + len(sound)] = sound
            rows.append((name, start, start + 2, label))
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        sf.write(folder / name, samples, RATE)
    with (folder / "annotations.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("audiofilename", "start", "end", "label:species"), *rows])


@pytest.fixture(scope="session")
def embedded(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("evaluation")
    make_recordings(folder / "audio")
    bacpipe.generate_embeddings(
        model_name="tiny",
        CustomModel=TinyModel,
        audio_dir=folder / "audio",
        main_results_dir=folder / "results",
    )
    return folder


@pytest.fixture
def data_set(embedded, tmp_path) -> DataSet:
    """A copy of the embedded data set for one test."""
    shutil.copytree(embedded, tmp_path / "copy")
    audio, results = tmp_path / "copy" / "audio", tmp_path / "copy" / "results"
    return DataSet(audio, results, bacpipe.Loader(audio, "tiny", main_results_dir=results))
