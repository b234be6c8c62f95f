"""The figure of when the classes of a model were found, and the numbers that it shows."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from bacpipe.errors import ResultsNotFoundError
from bacpipe.evaluation.result_files import read_result, write_result
from bacpipe.labels.activity import Activity, class_activity
from bacpipe.store.loader import Loader

logger = logging.getLogger(__name__)


def draw_activity(loader: Loader, classes: int) -> Path | None:
    """Write ``plots/activity.png`` and, with its numbers, ``plots/activity.json``.

    Nothing is done if they show the present predictions already.

    Parameters
    ----------
    loader : Loader
        Results of a model.
    classes : int
        How many classes to show, the most frequent ones.

    Returns
    -------
    Path or None
        The figure; None if there is none, because the model has no predictions or because no
        recording tells when it was made.
    """
    if classes < 1 or not any(line.get("predictions") for line in loader.lines.values()):
        return None
    figure, numbers = (loader.paths.plot_path / f"activity.{kind}" for kind in ("png", "json"))
    content = json.dumps([loader.predictions_state, classes])
    fingerprint = hashlib.sha256(content.encode()).hexdigest()
    stored = read_result(numbers, fingerprint)
    if stored is not None and (figure.is_file() or "no_figure" in stored):
        return None if "no_figure" in stored else figure
    try:
        activity = class_activity(loader, most=classes)
    except ResultsNotFoundError as error:
        logger.info("no figure of activity over time: %s", error)
        # Finding that out again would open every recording in every run.
        write_result(numbers, {"no_figure": "no recording tells when it was made"}, fingerprint)
        return None
    if not activity.counts:
        write_result(numbers, {"no_figure": "there are no detections"}, fingerprint)
        return None
    from bacpipe.plotting.activity import activity_maps
    from bacpipe.plotting.style import save_figure

    save_figure(activity_maps(activity, str(loader.model_name)), figure)
    # Last, so that it vouches for the figure.
    write_result(numbers, _numbers(activity), fingerprint)
    return figure


def _numbers(activity: Activity) -> dict[str, Any]:
    grid = activity.grid
    return {
        "by": grid.by,
        "rows": list(grid.rows),
        "columns": [None if np.isnat(day) else str(day) for day in grid.columns],
        "recorded_hours": grid.hours.round(4).tolist(),
        "detections": {name: counts.tolist() for name, counts in activity.counts.items()},
    }
