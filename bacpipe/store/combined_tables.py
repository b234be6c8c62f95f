"""The tables over all recordings that a run ends with, for readers and for other programs."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from bacpipe.store.detection_tables import (
    Block,
    blocks_of,
    detections_path,
    read_blocks,
    write_detections,
)
from bacpipe.store.predictions import Detections
from bacpipe.store.wide_tables import write_wide_table
from bacpipe.store.writer import replacing, write_json


def write_combined_tables(
    preds_path: Path,
    model: str,
    detections: Iterable[Detections],
    provenance: Mapping[str, Any] | None = None,
    state: str | None = None,
) -> None:
    """Write the tables over all recordings.

    ``<model>_detections.parquet`` (a row per prediction, from which readers are quick),
    ``<model>_classifier_annotations.csv``, ``<model>_all_predictions.parquet`` and
    ``provenance.json``, which says for all tables of the folder what they were made with.

    Parameters
    ----------
    preds_path : Path
        Folder of the predictions.
    model : str
        Name of the model.
    detections : iterable of Detections
        All predictions, in the order of the recordings; read once, and not kept.
    provenance : mapping, optional
        Model, checkpoint, threshold, versions and settings.
    state : str, optional
        What readers recognise the predictions by.
    """
    made_with, classes, names_break = dict(provenance or {}), set(), False
    table = detections_path(preds_path, model)

    def watched() -> Iterator[Block]:
        nonlocal names_break
        for block in blocks_of(detections):
            classes.update(block.classes.tolist())
            names_break = names_break or any("\r" in name for name in block.names)
            yield block

    write_json(preds_path / "provenance.json", made_with)
    write_detections(table, watched(), made_with, state)
    # From here on out of the table, which is read many times faster than single files.
    path = preds_path / f"{model}_classifier_annotations.csv"
    write_classifier_annotations(path, read_blocks(table), quote_all=names_break)
    path = preds_path / f"{model}_all_predictions.parquet"
    write_wide_table(path, read_blocks(table), sorted(classes), made_with)


def write_classifier_annotations(
    path: Path, blocks: Iterable[Block], *, quote_all: bool = False
) -> None:
    """Write the best prediction of every window as an annotation table (CSV).

    Columns start, end (seconds), audiofilename, label:default_classifier, label:confidence.

    Parameters
    ----------
    path : Path
        Where to.
    blocks : iterable of Block
        All predictions.
    quote_all : bool
        Put all texts into quotes: names with a carriage return alone are not quoted otherwise.
    """
    quoting: Literal[0, 2] = csv.QUOTE_NONNUMERIC if quote_all else csv.QUOTE_MINIMAL
    header = _best_of_each_window(None)
    with replacing(path) as file:
        header.to_csv(file, mode="wb", index=False, lineterminator="\n", quoting=quoting)
        for block in blocks:
            _best_of_each_window(block).to_csv(
                file, mode="wb", index=False, header=False, lineterminator="\n", quoting=quoting
            )


def _best_of_each_window(block: Block | None) -> Any:
    import pandas as pd

    names = ("start", "end", "audiofilename", "label:default_classifier", "label:confidence")
    if block is None:
        return pd.DataFrame(columns=names)
    # Scores descend within a window, so the first row of a window is its best one.
    best = block.starts_window
    columns = (
        block.start[best].round(6),
        block.end[best].round(6),
        block.names[block.recording[best]],
        block.classes[block.label[best]],
        block.score[best].round(4),
    )
    return pd.DataFrame(dict(zip(names, columns, strict=True)))
