"""Figures of probes: confusion matrix, and scores by class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bacpipe.plotting.style import (
    COLOURS,
    GREY,
    PAGE,
    SCALE,
    new_figure,
    score_axis,
    shorten,
    styled,
    text_width,
)

_MOST_NAMED = 60  # classes whose names can still be read
_MOST_ROWS = 60  # classes of one figure of scores
_MOST_COUNTED = 15  # classes whose cells have room for a number


@styled
def confusion_matrix(result: Mapping[str, Any]) -> Figure:
    """Which classes are taken for which.

    Parameters
    ----------
    result : mapping
        What `probing_pipeline` returned.

    Returns
    -------
    Figure
        Share of each true class (row); numbers are windows.
    """
    counts = np.array(result["confusion_matrix"])
    names = [shorten(name) for name in result["classes"]]
    n = len(names)
    named = n <= _MOST_NAMED
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    cell = np.clip(6.0 / n, 0.105, 0.42) if named else 5.0 / n
    margin = text_width(names) if named else 0.2
    side = cell * n
    figure = new_figure(max(side + margin + 1.2, 3.3), max(side + margin + 0.9, 3.0))
    axes = figure.add_subplot()
    image = axes.imshow(share, cmap=SCALE, vmin=0, vmax=1, interpolation="nearest")
    bar = figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03)
    bar.set_label("share of the true class")
    bar.outline.set_visible(False)
    axes.spines[:].set(visible=True, color=GREY)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if named:
        size = 7.5 if cell > 0.15 else 6
        axes.set_xticks(range(n), names, rotation=90 if n > 8 else 45, fontsize=size)
        axes.set_yticks(range(n), names, fontsize=size)
        if n <= 8:
            for label in axes.get_xticklabels():
                label.set(ha="right", rotation_mode="anchor")
        axes.tick_params(length=0)
    else:
        axes.set_xlabel(f"predicted (number of the class, 0 to {n - 1})")
    if n <= _MOST_COUNTED:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                colour = "white" if share[row, column] > 0.55 else "black"
                axes.text(column, row, count, ha="center", va="center", color=colour, fontsize=7)
    overall = result["overall"]
    axes.set_title(
        f"{result['model']}, {result['probe']} probe\n"
        f"balanced accuracy {overall['balanced_accuracy']:.2f}, {counts.sum()} test windows",
        fontsize=8,
    )
    return figure


@styled
def per_class_scores(result: Mapping[str, Any]) -> Figure:
    """F1 and average precision of every class, with confidence intervals.

    Parameters
    ----------
    result : mapping
        What `probing_pipeline` or `benchmark` returned.

    Returns
    -------
    Figure
        One row per class, the best on top; at most the 30 best and the 30 worst.
    """
    per_class = result["per_class"]
    # Without positives there is nothing to show.
    rows = sorted(
        ((name, values) for name, values in per_class.items() if values["support"]),
        key=lambda item: (item[1]["average_precision"] or 0, item[1]["f1"] or 0),
    )
    left_out = len(rows) - _MOST_ROWS if len(rows) > _MOST_ROWS else 0
    half = _MOST_ROWS // 2
    rows = rows if not left_out else rows[:half] + rows[-half:]
    y = np.arange(len(rows), dtype=float)
    if left_out:
        y[half:] += 1.5
    figure = new_figure(PAGE * 0.72, max(1.6, 0.17 * (y[-1] + 1) + 1.0))
    axes = figure.add_subplot()
    for offset, metric, label, colour, marker in (
        (0.14, "average_precision", "average precision", COLOURS[0], "o"),
        (-0.14, "f1", "F1", COLOURS[1], "s"),
    ):
        values = np.array([row[metric] for _, row in rows], dtype=float)
        for at, (_, row) in zip(y + offset, rows, strict=True):
            bounds = row.get(f"{metric}_interval")
            if bounds:
                axes.plot(bounds, [at, at], color=colour, linewidth=1, alpha=0.6)
        axes.plot(values, y + offset, marker, color=colour, markersize=4, label=label)
    axes.set_yticks(y, [f"{shorten(name)} ({row['support']})" for name, row in rows])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(-0.7, y[-1] + 0.7)
    score_axis(axes, "score (lines: 95 % intervals)")
    what = f"{result['probe']} probe" if "probe" in result else "benchmark"
    axes.set_title(f"{result['model']}, {what}: classes (test windows)", fontsize=8)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    if left_out:
        axes.text(
            0.5,
            half + 0.25,
            f"… {left_out} classes between …",
            ha="center",
            va="center",
            color=GREY,
            backgroundcolor="white",
        )
    return figure
