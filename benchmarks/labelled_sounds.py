"""Labelled embeddings of known truth, on which learning from few labels is measured.

Three sets are real BirdNET embeddings: windows of recordings (crops, faded into one another, at
changing levels, with noise), into most of which synthetic species call: whistles, sweeps, trills,
buzzes, harmonics and warbles, each individual with pitch, tempo and distance of its own.  `known`
takes BirdNET's own classes instead, the windows with the highest score of each being the truth.
Three are synthetic structure without any sound.

    python benchmarks/labelled_sounds.py AUDIO_FOLDER sounds.npz [--windows 2400]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np

KINDS = ("whistle", "sweep", "trill", "buzz", "harmonic", "warble")
PREVALENCE = (0.2, 0.1, 0.1, 0.05, 0.05, 0.03, 0.03, 0.02, 0.02, 0.015, 0.015, 0.015)
_RATE, _WINDOW = 48_000, 144_000


class LabelledSet(NamedTuple):
    """Windows to be labelled and windows to be judged by."""

    pool: np.ndarray  # float32, shape (windows, dim)
    truth: np.ndarray  # int8, shape (windows, classes): 1, 0, or -1 where nobody can tell
    test: np.ndarray
    test_truth: np.ndarray


def make_sounds(audio: Path, count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Embeddings, BirdNET's scores, signal-to-noise ratio by species and background of windows."""
    import bacpipe
    from bacpipe.audio.files import find_audio_files
    from bacpipe.audio.stream import read_audio

    rng = np.random.default_rng(seed)
    recordings = [read_audio(path, _RATE) for path in find_audio_files(audio)]
    species = [
        (KINDS[i % len(KINDS)], rng.uniform(900, 7000), rng.uniform(0.08, 0.5), rng.uniform(2, 12))
        for i in range(len(PREVALENCE))
    ]
    runner = bacpipe.Embedder("birdnet", device="cpu").runner(scores=True, dense=True)
    embeddings, scores = [], []
    snr = np.full((count, len(species)), -99.0, np.float32)
    background = rng.integers(len(recordings), size=count)
    for first in range(0, count, 16):
        windows = []
        for i in range(first, min(first + 16, count)):
            sound = _background(recordings, int(background[i]), rng)
            level = np.sqrt(np.mean(sound**2))
            for j, share in enumerate(PREVALENCE):
                if rng.random() < share * 1.3:  # a part is too faint for anybody to tell
                    snr[i, j] = rng.uniform(-18, 12)
                    sound = sound + level * 10 ** (snr[i, j] / 20) * _song(*species[j], rng)
            windows.append(sound / max(1.0, np.abs(sound).max()))
        done = runner(np.stack(windows).astype(np.float32))
        embeddings.append(done.embeddings)
        scores.append(done.scores)
    return {
        "embeddings": np.concatenate(embeddings).astype(np.float16),
        "scores": np.concatenate(scores).astype(np.float16),
        "snr": snr,
        "background": background,
    }


def _background(recordings: list[np.ndarray], which: int, rng: np.random.Generator) -> np.ndarray:
    def crop(audio: np.ndarray) -> np.ndarray:
        start = rng.integers(0, len(audio) - _WINDOW)
        return np.array(audio[start : start + _WINDOW], np.float64)

    sound = crop(recordings[which]) * 10 ** rng.uniform(-0.5, 0.3)
    if rng.random() < 0.5:
        sound += crop(recordings[which])[::-1] * 10 ** rng.uniform(-0.8, 0)
    noise = rng.standard_normal(_WINDOW) * np.sqrt(np.mean(sound**2))
    return sound + noise * 10 ** rng.uniform(-1.5, -0.3)


def _song(
    kind: str, pitch: float, length: float, tempo: float, rng: np.random.Generator
) -> np.ndarray:
    """One window with the song of an individual, of the level of noise of deviation 1."""
    pitch, length = pitch * rng.normal(1, 0.04), length * rng.normal(1, 0.1)
    t = np.arange(max(200, int(length * _RATE))) / _RATE
    x = t / t[-1]
    if kind == "sweep":
        note = np.sin(2 * np.pi * np.cumsum(pitch * (1 + 0.5 * x)) / _RATE)
    elif kind == "trill":
        note = np.sin(2 * np.pi * pitch * t) * (np.sin(2 * np.pi * tempo * 4 * t) > 0)
    elif kind == "buzz":
        note = np.sin(2 * np.pi * pitch * t + 6 * np.sin(2 * np.pi * 90 * t))
    elif kind == "harmonic":
        note = sum(np.sin(2 * np.pi * pitch / 3 * k * t) / k for k in range(1, 6))
    elif kind == "warble":
        note = np.sin(2 * np.pi * pitch * t + 30 * np.sin(2 * np.pi * tempo * t))
    else:
        note = np.sin(2 * np.pi * pitch * t)
    note = note * np.sin(np.pi * x) ** 0.5
    out = np.zeros(_WINDOW)
    at = rng.uniform(0, 1.5)
    while (i := int(at * _RATE)) + len(note) < _WINDOW:
        out[i : i + len(note)] += note
        at += length + rng.uniform(0.6, 1.4) / tempo
    echo = int(rng.uniform(0.02, 0.09) * _RATE)
    out[echo:] += 0.3 * out[:-echo]
    loud = np.sqrt(np.mean(out[out != 0] ** 2)) if out.any() else 1.0
    return out / loud


def labelled_sets(sounds: dict[str, np.ndarray], seed: int = 0) -> dict[str, LabelledSet]:
    """All sets; those of sounds differ in their truth and in how they are divided."""
    rng = np.random.default_rng(seed)
    x = sounds["embeddings"].astype(np.float32)
    snr = sounds["snr"]
    # Loud songs are told by everybody, the faintest by nobody.
    clear = (snr > -14) & (snr < -1)
    truth = np.where(clear, 1, np.where(snr > -50, -1, 0)).astype(np.int8)
    pool = rng.random(len(x)) < 2 / 3
    held = np.isin(sounds["background"], np.unique(sounds["background"])[::3])
    scores = sounds["scores"].astype(np.float32)
    chosen = np.argsort(-np.sort(scores, axis=0)[-len(x) // 100])[:12]
    ranks = np.argsort(np.argsort(-scores[:, chosen], axis=0), axis=0) / len(x)
    known = np.where(ranks < 0.015, 1, np.where(ranks < 0.04, -1, 0)).astype(np.int8)
    return {
        "mix": _divided(x, truth, pool),
        "shift": _divided(x, truth, ~held),
        "known": _divided(x, known, pool),
        "rare": _rare(rng),
        "many": _many(rng),
        "parts": _parts(rng),
    }


def _divided(x: np.ndarray, truth: np.ndarray, pool: np.ndarray) -> LabelledSet:
    return LabelledSet(x[pool], truth[pool], x[~pool], truth[~pool])


def _nuisance(n: int, dim: int, rng: np.random.Generator) -> np.ndarray:
    """What recordings have in common: strong along few directions, and less and less along more."""
    scale = 4.0 / np.sqrt(np.arange(1, dim + 1))
    basis = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
    return (rng.standard_normal((n, dim)) * scale) @ basis


def _rare(rng: np.random.Generator) -> LabelledSet:
    """Eight classes of 1 % in 256 dimensions, each a direction beside strong nuisance."""
    n, dim = 4500, 256
    y = (rng.random((n, 8)) < 0.01).astype(np.int8)
    x = _nuisance(n, dim, rng) + y @ rng.standard_normal((8, dim)) * 0.27
    return _divided(x.astype(np.float32), y, np.arange(n) < 3000)


def _many(rng: np.random.Generator) -> LabelledSet:
    """Forty classes, one for each window, of frequencies like 1/rank, in rectified dimensions."""
    n, dim = 4500, 320
    share = 1 / np.arange(1, 41)
    of = rng.choice(40, size=n, p=share / share.sum())
    centres = rng.standard_normal((40, dim)) * 0.3
    x = np.maximum(0, centres[of] + rng.standard_normal((n, dim)) + 0.5 * _nuisance(n, dim, rng))
    y = (of[:, None] == np.arange(40)).astype(np.int8)[:, 4::4]
    return _divided(x.astype(np.float32), y, np.arange(n) < 3000)


def _parts(rng: np.random.Generator) -> LabelledSet:
    """Eight classes of two call types each, several in a window, of 1 to 10 %."""
    n, dim = 4500, 256
    y = (rng.random((n, 8)) < np.geomspace(0.01, 0.1, 8)).astype(np.int8)
    x = _nuisance(n, dim, rng)
    for j in range(8):
        types = rng.standard_normal((2, dim)) * 0.35
        x += y[:, [j]] * types[rng.integers(2, size=n)] * rng.uniform(0.7, 1.3, (n, 1))
    return _divided(x.astype(np.float32), y, np.arange(n) < 3000)


def main() -> None:
    """Make the windows and store what BirdNET says of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("audio", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--windows", type=int, default=2400)
    arguments = parser.parse_args()
    np.savez(arguments.file, **make_sounds(arguments.audio, arguments.windows))


if __name__ == "__main__":
    main()
