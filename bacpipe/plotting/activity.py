"""Figure of when classes are heard: hours of the day by days or weeks, and its numbers."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from bacpipe.errors import ResultsNotFoundError
from bacpipe.labels.activity import SUN, Activity, ActivityGrid, class_activity
from bacpipe.plotting.style import (
    GREY,
    PAGE,
    SCALE,
    heading,
    new_figure,
    save_figure,
    shorten,
    styled,
)
from bacpipe.store.fingerprints import read_result, write_result
from bacpipe.store.layout import ACTIVITY_FIGURE
from bacpipe.store.loader import Loader

logger = logging.getLogger(__name__)

# Three things that must not be confused: nothing recorded (blank), nothing heard (grey), and
# one or more detections, the fewest of which are already clearly blue.
HEARD = colormaps[SCALE](np.linspace(0.36, 1, 256))
NOTHING_HEARD = "#e4e4e4"
_MOST_DATES = 6


@styled
def activity_maps(activity: Activity, title: str = "") -> Figure:
    """Heat maps of detections per recorded hour, one for each class in the `counts`."""
    n = max(1, len(activity.counts))
    across = 1 if n == 1 else 2
    down = -(-n // across)
    height = 1.25 if activity.grid.by == "day_week" else 1.55
    figure = new_figure(PAGE, height * down + 0.75)
    panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    for axes, (name, counts) in zip(panels.flat, activity.counts.items(), strict=False):
        _heat_map(figure, axes, activity.grid, counts)
        axes.set_title(f"{shorten(name, 34)} ({counts.sum():,})", fontsize=8, fontweight="normal")
    for axes in panels.flat[len(activity.counts) :]:
        axes.set_visible(False)
    for row in panels:
        row[0].set_ylabel(row_title(activity.grid))
    if n % 2 and down > 1:  # nothing is below the last panel of the right column but one
        panels[-2, -1].tick_params(labelbottom=True)
    if activity.grid.by == "day_week":
        panels[0, 0].invert_yaxis()
    rest = activity.classes - len(activity.counts)
    text = f"{title}: detections per recorded hour" if title else "detections per recorded hour"
    if rest > 0:
        text += f", the {len(activity.counts)} most frequent of {activity.classes:,} classes"
    heading(figure, text)
    marks = [
        Patch(facecolor="white", edgecolor=GREY, linewidth=0.5, label="nothing recorded"),
        Patch(facecolor=NOTHING_HEARD, label="recorded, no detection"),
        Patch(facecolor=HEARD[140], label="detections"),
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=3)
    return figure


def _heat_map(figure: Figure, axes: Axes, grid: ActivityGrid, counts: np.ndarray) -> None:
    rate = grid.per_hour(counts)
    scale = ListedColormap(HEARD).with_extremes(under=NOTHING_HEARD, bad="white")
    most = float(np.nanmax(rate, initial=0.0))
    image = axes.imshow(
        rate,
        cmap=scale,
        norm=Normalize(1e-6 * (most or 1.0), most or 1.0),  # so that 0 is below the scale
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        extent=(-0.5, len(grid.columns) - 0.5, -0.5, len(grid.rows) - 0.5),
    )
    ticks = np.arange(7) if grid.by == "day_week" else np.array([0, 6, 12, 18])
    axes.set_yticks(ticks, [grid.rows[i] for i in ticks])
    dates = date_ticks(grid, _MOST_DATES)
    axes.set_xticks(list(dates), list(dates.values()))
    for column in np.flatnonzero(np.isnat(grid.columns)):
        axes.axvline(float(column), color=GREY, linewidth=0.7, linestyle=":")
    axes.tick_params(length=2)
    bar = figure.colorbar(image, ax=axes, pad=0.01, aspect=12, extend="neither")
    bar.locator = MaxNLocator(nbins=3, steps=[1, 2, 5, 10])
    bar.update_ticks()
    bar.outline.set_linewidth(0.4)
    bar.ax.tick_params(labelsize=7, length=2)


def row_title(grid: ActivityGrid) -> str:
    """What the rows of a grid are; weekdays need no words."""
    if grid.by in SUN:
        return f"hours after {SUN[grid.by]}"
    return "" if grid.by == "day_week" else "hour of the day"


def date_ticks(grid: ActivityGrid, most: int) -> dict[int, str]:
    """Dates below some columns of a grid, at most so many and evenly spaced, by column.

    The year is only written where it changes.
    """
    known = np.flatnonzero(~np.isnat(grid.columns))
    if not len(known):
        return {}
    chosen = known[:: max(1, -(-len(known) // most))]
    texts, year = {}, None
    for column in chosen.tolist():
        day = grid.columns[column].item()
        text = f"{day.day} {day:%b}"
        texts[column] = text if day.year == year else f"{text}\n{day.year}"
        year = day.year
    return texts


def draw_activity(loader: Loader, classes: int) -> Path | None:
    """Write ``plots/activity.png`` and, with its numbers, ``plots/activity.json``.

    Nothing is done if they show the present predictions of the most frequent `classes` already.
    Returns the figure; None if there is none, because the model has no predictions or because no
    recording tells when it was made.
    """
    if classes < 1 or all(entry.predictions is None for entry in loader.entries.values()):
        return None
    figure = loader.paths.plot_path / ACTIVITY_FIGURE
    numbers = figure.with_suffix(".json")
    state = loader.range_filter().state  # clocks, places and what is hidden
    content = json.dumps([loader.predictions_state, classes, *([state] if state else [])])
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
