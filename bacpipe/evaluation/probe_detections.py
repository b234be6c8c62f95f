"""Detections of a trained probe, in the form that detections of integrated classifiers have."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bacpipe.errors import ResultsNotFoundError
from bacpipe.evaluation.probes import PROBES
from bacpipe.evaluation.probing import prepare_probe_inference, run_probe_inference
from bacpipe.store.loader import Loader
from bacpipe.store.predictions import Detections
from bacpipe.store.sets import read_embeddings

_WINDOWS_AT_ONCE = 8192


def trained_probes(loader: Loader) -> list[str]:
    """Names of the probes that were trained and saved for a model, such as 'linear'."""
    folder = loader.paths.probe_path
    return [name for name in PROBES if (folder / f"{name}_probe.safetensors").is_file()]


def probe_detections(loader: Loader, name: str, threshold: float) -> Iterator[Detections]:
    """Classify the stored embeddings of a model with a probe that was trained on them.

    Embeddings are read and classified a part at a time, and only scores from the threshold are
    kept.

    Parameters
    ----------
    loader : Loader
        Results of the model.
    name : str
        Which probe: 'linear' or 'knn'.
    threshold : float
        Lowest score to keep, 0 to 1.

    Yields
    ------
    Detections
        Of each recording, in the order of the recordings; scores fall within a window.

    Raises
    ------
    ResultsNotFoundError
        If there are no embeddings or there is no such probe.
    """
    model, found = str(loader.model_name), loader.embedding_set
    if found is None:
        raise ResultsNotFoundError(f"{loader.audio_dir}: there are no embeddings of {model}.")
    probe, columns = prepare_probe_inference(model, name=name, paths=loader.paths)
    classes = np.array(list(columns), dtype=object)

    def classify(parts: list[tuple[str, np.ndarray]]) -> Iterator[Detections]:
        scores = run_probe_inference(
            model,
            probe,
            threshold,
            np.concatenate([embeds for _, embeds in parts]),
            return_binary_presence=False,
        )
        stops = np.cumsum([len(embeds) for _, embeds in parts])
        for (recording, _), part in zip(parts, np.split(scores, stops[:-1]), strict=True):
            window, column = np.nonzero(part >= np.float32(threshold))
            order = np.lexsort((-part[window, column], window))
            window, column = window[order].astype(np.int32), column[order]
            start, end = loader.window_times(recording)
            yield Detections(
                recording, window, start[window], end[window], classes[column],
                part[window, column].astype(np.float32),
            )  # fmt: skip

    waiting: list[tuple[str, np.ndarray]] = []
    windows = 0
    for recording, line in loader.lines.items():
        if not line["windows"]:
            continue
        waiting.append((recording, read_embeddings(found, line, verify=True)))
        windows += line["windows"]
        if windows >= _WINDOWS_AT_ONCE:
            yield from classify(waiting)
            waiting, windows = [], 0
    if waiting:
        yield from classify(waiting)
