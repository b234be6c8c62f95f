"""Large synthetic data sets and finished results, written through the store's own code."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

import bacpipe
from bacpipe.inference.run_data_set import (
    model_identity,
    record_tables,
    write_prediction_tables,
)
from bacpipe.store.embedding_set import create_set, prediction_settings, settings_identity
from bacpipe.store.plan import StreamEnd, look_at
from bacpipe.store.predictions import SparsePredictions
from bacpipe.store.tables import write_combined_tables
from bacpipe.store.writer import ResultWriter

PER_FOLDER = 1000


def write_short_recordings(folder: Path, count: int, seconds: float, rate: int) -> None:
    """Write 16-bit WAVs of noise, a thousand in a folder; those that are there are kept."""
    rng = np.random.default_rng(0)
    data = (3000 * rng.standard_normal(round(seconds * rate))).astype("<i2").tobytes()
    form = struct.pack("<HHIIHH", 1, 1, rate, 2 * rate, 2, 16)
    header = struct.pack("<4sI4s4sI", b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16)
    content = header + form + struct.pack("<4sI", b"data", len(data)) + data
    for i in range(count):
        path = folder / f"site{i // PER_FOLDER:04}" / f"{i:07}.wav"
        if i % PER_FOLDER == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes(content)


@contextmanager
def no_sync() -> Iterator[None]:
    """Leave it to the operating system when it writes to the disk: a benchmark may lose files."""
    sync, os.fsync = os.fsync, lambda descriptor: None  # type: ignore[assignment]
    try:
        yield
    finally:
        os.fsync = sync


def write_results(
    audio_dir: Path,
    results: Path,
    model: str,
    *,
    windows: int,
    dim: int,
    identity: dict | None = None,
    classes: tuple[str, ...] = (),
    every: int = 2,
    draw: Callable[[np.random.Generator], SparsePredictions] | None = None,
    **settings: object,
) -> bacpipe.Loader:
    """Write what a finished run leaves.

    Parameters
    ----------
    audio_dir, results : Path
        Recordings and results tree.
    model : str
        Name of the model; one of the zoo unless `identity` is given.
    windows, dim : int
        Of each recording.
    identity : dict, optional
        What `model_identity` says of a model that is not of the zoo.
    classes : tuple of str
        Classes of the predictions; none without.
    every : int
        Every so manieth recording has predictions.
    draw : callable, optional
        Draws the predictions of a recording, and has the tables over all recordings left to
        `write_described_tables`; by default each window has one.
    **settings
        Any key of the configuration.
    """
    loader = bacpipe.Loader(
        audio_dir, model, use_folder_structure=True, main_results_dir=str(results), **settings
    )
    full = {**(identity or model_identity(model, loader.options))}
    full |= settings_identity(loader.options)
    parent, predicted_with = loader.paths.main_embeds_path, prediction_settings(loader.options)
    found = create_set(parent, model, loader.paths.dataset, full, {})
    loader.embedding_set = found
    names = [path.relative_to(audio_dir).as_posix() for path in loader.files]
    rng = np.random.default_rng(0)
    embeddings = rng.standard_normal((windows, dim), dtype=np.float32)
    none = SparsePredictions.join([])
    with no_sync():
        writer = ResultWriter(
            found,
            loader.paths,
            model,
            names,
            classes=classes,
            prediction_settings=predicted_with,
            provenance={**full, **predicted_with},
        )
        for number, path in enumerate(loader.files):
            source = look_at(path, audio_dir)
            predictions = none if classes else None
            if draw is not None:
                predictions = draw(rng)
            elif classes and number % every == 0:
                predictions = SparsePredictions(
                    np.arange(windows, dtype=np.int32),
                    rng.integers(0, len(classes), windows).astype(np.int32),
                    rng.uniform(0.5, 1, windows).astype(np.float32),
                )
            embeddings[0, 0] = number  # so that no two files are the same
            writer.add(source, embeddings.copy(), predictions)
            writer.finish(source, StreamEnd(duration=float(windows), padded=0))
        writer.close()
        loader.write_metadata_file()
        if draw is not None:
            return loader
        if classes:
            write_combined_tables(
                loader.paths.preds_path,
                model,
                loader.detections(),
                loader.predictions_provenance,
                loader.predictions_state,
            )
        record_tables(loader, predict=bool(classes))
    return loader


def write_described_tables(loader: bacpipe.Loader) -> None:
    """Write the tables over all recordings as a run does, with sites, times and names."""
    with no_sync():
        write_prediction_tables(loader)
        record_tables(loader, predict=True)
