"""What a classifier makes of the last window of a recording, by how it is filled up.

Clips are cut at random from real recordings, as if a recording ended there, and classified by
BirdNET with each filling.  What BirdNET itself finds in the whole windows around a clip (3 s of
the recording that contain it, one every quarter of a second) says what is there: a detection in a
clip is false if no window around it scores half as high, and a species that each of the windows
around scores as a detection is missed if the clip does not.

    python benchmarks/padding.py AUDIO_FOLDER [--clips 150] [--threshold 0.5]

The threshold of the detections is the default of `classifier_threshold`.
"""

from __future__ import annotations

import argparse
from itertools import pairwise

import numpy as np

import bacpipe
from bacpipe.audio.files import find_audio_files
from bacpipe.audio.stream import read_audio

FILLINGS = ("wrap", "reflect", "edge", "constant")
SHARES = (0.01, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)  # of real sound in the window


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("audio")
    parser.add_argument("--clips", type=int, default=150, help="per range of shares")
    parser.add_argument("--threshold", type=float, default=0.5)
    arguments = parser.parse_args()
    embedder = bacpipe.Embedder("birdnet", device="cpu")
    rate, window = embedder.model.sr, embedder.model.segment_length
    runner = embedder.runner(scores=True, dense=True)

    def scores(windows: np.ndarray) -> np.ndarray:
        parts = [runner(windows[i : i + 32]).scores for i in range(0, len(windows), 32)]
        return np.concatenate(parts)

    recordings = [read_audio(path, rate) for path in find_audio_files(arguments.audio)]
    step = rate // 4
    around = [
        scores(np.stack([audio[i : i + window] for i in range(0, len(audio) - window + 1, step)]))
        for audio in recordings
    ]
    rng = np.random.default_rng(0)
    print(f"{'real sound':>12s} " + " ".join(f"{name:>22s}" for name in FILLINGS))
    print(f"{'':>12s} " + " ".join(f"{'false':>10s} {'missed':>11s}" for _ in FILLINGS))
    for low, high in pairwise(SHARES):
        clips, references = [], []
        while len(clips) < arguments.clips:
            which = rng.integers(len(recordings))
            audio = recordings[which]
            length = int(rng.uniform(low, high) * window)
            start = int(rng.integers(0, len(audio) - length))
            first = max(0, -(-(start + length - window) // step))
            containing = around[which][first : start // step + 1]
            if len(containing):
                clips.append(audio[start : start + length])
                references.append((containing.max(axis=0), containing.min(axis=0)))
        cells = []
        for filling in FILLINGS:
            filled = [np.pad(clip, (0, window - len(clip)), mode=filling) for clip in clips]
            found = scores(np.stack(filled)) >= arguments.threshold
            most = np.stack([reference[0] for reference in references])
            least = np.stack([reference[1] for reference in references])
            false = (found & (most < arguments.threshold / 2)).any(axis=1).sum()
            there = least >= arguments.threshold
            cells.append(
                f"{100 * false / len(clips):8.1f} % {(there & ~found).sum():4d} of {there.sum():3d}"
            )
        print(f"{low:5.0%} - {high:4.0%} " + " ".join(cells), flush=True)


if __name__ == "__main__":
    main()
