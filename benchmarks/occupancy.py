"""Do exported histories of detections give the right occupancy?

A survey is drawn in which each of many species occupies a known share of the sites (psi), is found
with a known chance (p) on an occasion where it is, and is reported falsely.  It is written as
results of a model, exported with ``bacpipe.export(..., "occupancy")``, and the history of each
species given to maximum likelihood (MacKenzie et al. 2002, Ecology 83: 2248-2255).  Psi must lie in
its 95 % interval, by profile likelihood, for at least 93 % of the species.  False detections have
lower scores than real ones: ``min_score`` takes them away, and without it the estimate is off.

With 40 sites no interval holds exactly 95 %, and chance moves what 500 species show by 1 %.  So
several seeds count together, and two other shares stand beside: that of Wald's interval, and that
of the likelihood if everybody knew which sites are occupied, which is chance in the draw alone.

    python benchmarks/occupancy.py --runs 500 --seeds 0 1 2 3
"""

from __future__ import annotations

import argparse
import os
import struct
import sys
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import optimize, stats

import bacpipe
from bacpipe.inference.run_data_set import write_prediction_tables
from bacpipe.store.embedding_set import create_set, prediction_settings, settings_identity
from bacpipe.store.plan import StreamEnd, look_at
from bacpipe.store.predictions import SparsePredictions
from bacpipe.store.writer import ResultWriter

SITES, OCCASIONS, PSI, P, FALSE = 40, 10, 0.6, 0.35, 0.1
LEAST = 0.5  # score; real detections are above, false ones below
RATE, WINDOWS = 1000, 4
IDENTITY = {"model": "survey", "sample_rate": RATE, "window": RATE, "checkpoint": "drawn"}


def write_survey(
    folder: Path, scores: np.ndarray, listened: np.ndarray, rng: np.random.Generator
) -> bacpipe.Loader:
    """Write recordings and results of a model: a recording for each site and day listened to.

    `scores` of shape (species, sites, days) are those of the detections; 0 for none.
    """
    audio, classes = folder / "survey", [f"bird {i}" for i in range(len(scores))]
    samples = struct.pack("<h", 1) * RATE * WINDOWS
    form = struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16)
    header = struct.pack("<4sI4s4sI", b"RIFF", 36 + len(samples), b"WAVE", b"fmt ", 16) + form
    content = header + struct.pack("<4sI", b"data", len(samples)) + samples
    cells = {}
    for site, day in np.argwhere(listened).tolist():
        name = f"site{site:02}/{date(2024, 5, 1) + timedelta(days=day):%Y%m%d}_053000.wav"
        path = audio / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        cells[name] = scores[:, site, day]
    loader = bacpipe.Loader(
        audio,
        "survey",
        use_folder_structure=True,
        main_results_dir=str(folder / "results"),
        classifier_threshold=0.1,
        max_predictions_per_window=max(20, len(scores)),
    )
    loader.claim()
    full = {**IDENTITY, **settings_identity(loader.options)}
    settings = prediction_settings(loader.options)
    parent, dataset = loader.paths.main_embeds_path, loader.paths.dataset
    loader.embedding_set = created = create_set(parent, "survey", dataset, full, {})
    writer = ResultWriter(
        created,
        loader.paths,
        "survey",
        list(cells),
        classes=classes,
        prediction_settings=settings,
        provenance={**full, **settings},
    )
    for name, column in sorted(cells.items()):
        source, label = look_at(audio / name, audio), np.flatnonzero(column)
        window = np.sort(rng.integers(0, WINDOWS, len(label)))
        kinds = (np.int32, np.int32, np.float32)
        parts = zip((window, label, column[label]), kinds, strict=True)
        drawn = SparsePredictions(*(part.astype(kind) for part, kind in parts))
        writer.add(source, np.zeros((WINDOWS, 2), np.float32), drawn)
        writer.finish(source, StreamEnd(duration=float(WINDOWS), padded=0))
    writer.close()
    loader.write_metadata_file()
    loader.locate_predictions()
    write_prediction_tables(loader)
    return loader


def likelihood(theta: np.ndarray, hits: np.ndarray, misses: np.ndarray) -> float:
    """Negative log likelihood of one season; theta are the logits of psi and p.

    `hits` and `misses` are the occasions of each site with and without the species.
    """
    psi, p = 1 / (1 + np.exp(-theta))
    occupied = psi * p**hits * (1 - p) ** misses
    return float(-np.log(occupied + (1 - psi) * (hits == 0)).sum())


def interval_of_psi(history: pd.DataFrame) -> tuple[float, float, float]:
    """Maximum likelihood of psi with its 95 % profile interval, of a table of 1, 0 and NA."""
    values = history.to_numpy(dtype=float, na_value=np.nan)
    counts = (values == 1).sum(axis=1), (values == 0).sum(axis=1)
    fit = optimize.minimize(likelihood, [0.0, 0.0], counts, method="Nelder-Mead")
    limit = fit.fun + stats.chi2.ppf(0.95, 1) / 2

    def excess(at_psi: float) -> float:
        best = optimize.minimize_scalar(
            lambda p: likelihood(np.array([at_psi, p]), *counts), bounds=(-8, 8)
        )
        return best.fun - limit

    at, ends = float(fit.x[0]), []
    for edge in (-8.0, 8.0):
        inner = float(np.clip(at, -7.9, 7.9))
        ends.append(
            optimize.brentq(excess, inner, edge) if excess(edge) > 0 > excess(inner) else edge
        )
    low, high = sorted(float(1 / (1 + np.exp(-end))) for end in ends)
    return float(1 / (1 + np.exp(-at))), low, high


def wald_interval_of_psi(history: pd.DataFrame) -> tuple[float, float]:
    """95 % interval of psi by the curvature of the likelihood on the logit scale."""
    values = history.to_numpy(dtype=float, na_value=np.nan)
    counts = (values == 1).sum(axis=1), (values == 0).sum(axis=1)
    at = optimize.minimize(likelihood, [0.0, 0.0], counts, method="Nelder-Mead").x
    step = 1e-3 * np.eye(2)
    curvature = [
        [
            sum(a * b * likelihood(at + a * i + b * j, *counts) for a in (-1, 1) for b in (-1, 1))
            / 4e-6
            for j in step
        ]
        for i in step
    ]
    variance = np.linalg.pinv(np.array(curvature))[0, 0]
    reach = 1.96 * np.sqrt(variance) if variance > 0 else np.inf
    low, high = 1 / (1 + np.exp(-np.clip([at[0] - reach, at[0] + reach], -500, 500)))
    return float(low), float(high)


def holds_if_known(occupied: np.ndarray) -> np.ndarray:
    """Whether the likelihood interval holds psi if the occupied sites are known, by species."""
    sites = occupied.shape[1]
    many = occupied.sum(axis=1)
    binomial = stats.binom.logpmf
    ratio = 2 * (binomial(many, sites, many / sites) - binomial(many, sites, PSI))
    return np.asarray(ratio <= stats.chi2.ppf(0.95, 1))


def simulate(
    folder: Path, species: int, seed: int = 0
) -> tuple[dict[float, list[pd.DataFrame]], np.ndarray]:
    """Histories of all species as exported, by the lowest score that counts; and the truth.

    The truth is bool of shape (species, sites): whether a species is there.
    """
    rng, shape = np.random.default_rng(seed), (species, SITES, OCCASIONS)
    occupied = rng.random(shape[:2]) < PSI
    heard = rng.random(shape) < P * occupied[:, :, None]
    scores = np.where(rng.random(shape) < FALSE, rng.uniform(0.11, LEAST - 0.01, shape), 0)
    scores = np.where(heard, rng.uniform(LEAST, 1, shape), scores)
    listened = rng.random(shape[1:]) < 0.9  # recorders fail
    loader = write_survey(folder, scores, listened, rng)
    names = [f"bird {i}" for i in range(species)]
    exported = {}
    for least in (LEAST, 0.1):
        *files, _ = bacpipe.export(
            loader, "occupancy", folder / f"out{least}", species=names, min_score=least
        )
        exported[least] = [pd.read_csv(file, index_col="site") for file in files]
    return exported, occupied


def run(species: int, folder: Path, seed: int = 0) -> dict[str, float]:
    """Shares of species whose intervals hold psi, and mean estimates."""
    exported, occupied = simulate(folder, species, seed)
    profile = np.array([interval_of_psi(history) for history in exported[LEAST]])
    wald = np.array([wald_interval_of_psi(history) for history in exported[LEAST]])
    naive = [interval_of_psi(history)[0] for history in exported[0.1][:50]]
    return {
        "held": float(np.mean((profile[:, 1] <= PSI) & (profile[:, 2] >= PSI))),
        "held by Wald's interval": float(np.mean((wald[:, 0] <= PSI) & (wald[:, 1] >= PSI))),
        "held if sites were known": float(holds_if_known(occupied).mean()),
        "mean psi": float(profile[:, 0].mean()),
        "mean psi with false positives": float(np.mean(naive)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=500, help="species for each seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3])
    options = parser.parse_args()
    started = time.perf_counter()
    os.fsync = lambda descriptor: None  # nothing here need outlive the benchmark
    results = []
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            results.append(run(options.runs, Path(folder), seed))
    total = options.runs * len(results)
    print(f"{total} species at {SITES} sites x {OCCASIONS} occasions; by seed {options.seeds}")
    for name in results[0]:
        values = [result[name] for result in results]
        mean, error = float(np.mean(values)), ""
        if name.startswith("held"):
            error = f" +- {np.sqrt(mean * (1 - mean) / total):.4f}"
        print(f"{name:32} {mean:.4f}{error}  ({', '.join(f'{value:.3f}' for value in values)})")
    print(f"{time.perf_counter() - started:.0f} s")
    return 0 if np.mean([result["held"] for result in results]) >= 0.93 else 1


if __name__ == "__main__":
    sys.exit(main())
