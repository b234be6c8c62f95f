"""How long a key press takes in the dashboard's Review tab, measured in a headless Chromium.

From the key press to the next spectrogram on the screen, with its sound begun: the page measures it
itself (the User Timing entries "next clip"), for as many clips as asked, of which each is heard for
a while before it is marked, as people do.  Marks are stored with each key.

    python benchmarks/review.py --folder /tmp/review_benchmark --clips 200 --listen 0.5

Makes recordings of noise with tones at 48 kHz, a model that costs
nothing, and a server in a process of its own.  Needs playwright (PyPI) and Chromium (Debian's
package), as the tests of the dashboard do.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile as sf
import torch
from playwright.sync_api import sync_playwright

import bacpipe

RATE, SECONDS = 48_000, 60
SERVE = """
import sys
from bacpipe.dashboard.server import Server, open_data_set
server = Server(open_data_set(None, audio_dir=sys.argv[1], main_results_dir=sys.argv[2]))
server.start(show=False)
print(server.url, flush=True)
server.wait()
"""


class Level(bacpipe.ModelBaseClass):
    """Three seconds at 48 kHz, as BirdNET hears them; its class is the level."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(sr=RATE, segment_length=3 * RATE, batch_size=16, **kwargs)
        self.classes = ["sound", "silence"]

    def preprocess(self, audio: torch.Tensor) -> torch.Tensor:
        return audio.abs().reshape(len(audio), 10, -1)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=2)

    def classifier_predictions(self, embeddings: torch.Tensor) -> torch.Tensor:
        level = embeddings.mean(dim=1).clamp(0.02, 1)
        return torch.stack([level, 1 - level], dim=1)


def make(folder: Path, clips: int) -> None:
    """Write recordings, and the results of the model."""
    rng = np.random.default_rng(0)
    time = np.arange(RATE * SECONDS) / RATE
    for number in range(-(-clips * 3 // SECONDS) + 1):
        tone = np.sin(2 * np.pi * (2000 + 500 * np.sin(3 * time)) * time) * (time % 7 < 2)
        samples = 0.3 * tone + rng.normal(0, 0.05, len(time))
        name = f"site{number % 3}/rec_20240501_{number:02d}0000.wav"
        (folder / "audio" / name).parent.mkdir(parents=True, exist_ok=True)
        sf.write(folder / "audio" / name, samples, RATE)
    bacpipe.play(
        audio_dir=folder / "audio", main_results_dir=folder / "results", models=["level"],
        CustomModels=[Level], device="cpu", classifier_threshold=0.01,
    )  # fmt: skip


def measure(url: str, clips: int, listen: float) -> list[float]:
    """Milliseconds of each key press."""
    with sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(f"{url}/?view=review")
        page.get_by_role("img", name=re.compile("^Spectrogram of")).wait_for(timeout=120_000)
        page.get_by_label("Your name").fill("benchmark")
        page.get_by_label("Your name").press("Tab")
        page.get_by_role("group", name="Clip to review").focus()
        count = 0
        while count < clips:
            page.keyboard.press("yn"[count % 3 == 0])
            page.wait_for_function(
                "n => performance.getEntriesByName('next clip').length > n", arg=count
            )
            count += 1
            page.wait_for_timeout(1000 * listen)
        found = page.evaluate(
            "performance.getEntriesByName('next clip').map((entry) => entry.duration)"
        )
        browser.close()
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--listen", type=float, default=0.5, help="seconds before each mark")
    options = parser.parse_args()
    if not (options.folder / "results").is_dir():
        make(options.folder, options.clips + 20)
    for path in options.folder.glob("results/*/labels/people_labels*"):
        path.unlink()
    command = [sys.executable, "-c", SERVE, f"{options.folder}/audio", f"{options.folder}/results"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            found = measure(server.stdout.readline().strip(), options.clips, options.listen)
        finally:
            server.terminate()
    quantiles = np.quantile(found, [0.5, 0.9, 0.99])
    print(
        f"{len(found)} clips: median {quantiles[0]:.0f} ms, 90 % {quantiles[1]:.0f} ms, "
        f"99 % {quantiles[2]:.0f} ms"
    )


if __name__ == "__main__":
    main()
