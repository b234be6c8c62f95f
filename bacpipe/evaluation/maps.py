"""Reduced embeddings of several models with the label of every window."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from bacpipe.audio.annotations import LABEL_PREFIX
from bacpipe.errors import ResultsError
from bacpipe.evaluation.split_files import file_part
from bacpipe.store.layout import ResultPaths, dataset_name
from bacpipe.store.maps import stored_maps

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)


def read_maps(paths: Mapping[str, ResultPaths], reducer: str, kind: str) -> dict[str, pd.DataFrame]:
    """Newest map of every model that has one.

    Parameters
    ----------
    paths : mapping of str to ResultPaths
        Where each model's results are.
    reducer : str
        Name of the dimensionality reduction.
    kind : str
        Kind of label.

    Returns
    -------
    dict of pandas.DataFrame
        Columns x, y and label (missing where a window has none), by model.
    """
    maps = {}
    for model, folders in paths.items():
        dataset = dataset_name(folders.audio_dir)
        newest = next(stored_maps(folders.dim_reduc_parent_dir, reducer, dataset, model), None)
        if newest is None:
            logger.info("%s: there is no %s map of %s.", model, reducer, dataset)
            continue
        maps[model] = _labelled(newest.read(), folders, kind)
    return maps


def _labelled(table: pd.DataFrame, folders: ResultPaths, kind: str) -> pd.DataFrame:
    import pandas as pd

    truth = folders.labels_path / f"ground_truth_{file_part(kind)}.csv"
    table["label"] = None
    if truth.is_file():
        try:
            labels = pd.read_csv(truth, dtype={"audiofilename": str})
            # Times went through a decimal text; a millisecond is far below any hop.
            keys = zip(labels["audiofilename"], (labels["start"] * 1000).round(), strict=True)
            label_of = dict(zip(keys, labels[LABEL_PREFIX + kind], strict=True))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ResultsError(
                f"{truth}: this ground truth cannot be read ({error}); delete it to have it made "
                f"again."
            ) from None
        windows = zip(table["audiofilename"], (table["start"] * 1000).round(), strict=True)
        table["label"] = [label_of.get(window) for window in windows]
    return table[["x", "y", "label"]]
