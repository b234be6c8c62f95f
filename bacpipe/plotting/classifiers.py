"""Figures of classifiers, probes and those of models: confusion matrix, and scores by class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bacpipe.plotting.style import (
    COLOURS,
    GREY,
    PAGE,
    heading,
    heat_map,
    legend_below,
    named_rows,
    new_figure,
    numbers_in_cells,
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
    """Which classes are taken for which, from the result of `probing_pipeline`.

    Colours are shares of each true class (row), numbers are windows.
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
    heat_map(figure, axes, share, "share of the true class")
    axes.set_aspect("equal")
    axes.set_xlabel("predicted" if named else f"predicted (number of the class, 0 to {n - 1})")
    axes.set_ylabel("true")
    if named:
        size = 7.5 if cell > 0.15 else 6
        axes.set_xticks(range(n), names, rotation=90 if n > 8 else 45, fontsize=size)
        axes.set_yticks(range(n), names, fontsize=size)
        if n <= 8:
            for label in axes.get_xticklabels():
                label.set(ha="right", rotation_mode="anchor")
        axes.tick_params(length=0)
    if n <= _MOST_COUNTED:
        numbers_in_cells(axes, share, np.where(counts > 0, counts.astype(str), ""))
    overall = result["overall"]
    axes.set_title(
        f"{result['model']}, {result['probe']} probe\n"
        f"balanced accuracy {overall['balanced_accuracy']:.2f}, {counts.sum()} test windows",
        fontsize=8,
    )
    return figure


@styled
def per_class_scores(result: Mapping[str, Any]) -> Figure:
    """F1 and average precision by class, with intervals, from `probing_pipeline` or `benchmark`.

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
    named_rows([axes], y, [f"{shorten(name)} ({row['support']})" for name, row in rows])
    axes.set_ylim(-0.7, y[-1] + 0.7)
    score_axis(axes, "score (lines: 95 % intervals)")
    what = f"{result['probe']} probe" if "probe" in result else "benchmark"
    axes.set_title(f"{result['model']}, {what}: classes (test windows)", fontsize=8)
    legend_below(figure, axes, 2)
    if left_out:
        axes.text(0.5, half + 0.25, f"… {left_out} classes between …", ha="center", va="center",
                  color=GREY, backgroundcolor="white")  # fmt: skip
    return figure


@styled
def class_benchmark(result: Mapping[str, Any]) -> Figure:
    """Average precision, F1 at the threshold and best F1 of every class, from `benchmark`.

    Left the scores, right the threshold that maximises F1; the best class on top, and at most the
    60 classes with most windows.
    """
    rows = [(name, row) for name, row in result["per_class"].items() if row["support"]]
    rows = sorted(rows, key=lambda item: -item[1]["support"])[:_MOST_ROWS]
    rows.sort(key=lambda item: item[1]["average_precision"] or 0)
    y = np.arange(len(rows))
    figure = new_figure(PAGE, max(1.8, 0.19 * len(rows) + 1.1))
    scores, thresholds = figure.subplots(1, 2, sharey=True, width_ratios=[3, 1])
    heading(figure, f"{result['model']}: classifier against annotations")

    def values(key: str) -> np.ndarray:
        return np.array([row[key] for _, row in rows], dtype=float)

    scores.hlines(y, values("f1"), values("best_f1"), color=COLOURS[1], linewidth=1, alpha=0.6)
    scores.plot(values("f1"), y, "s", mfc="white", color=COLOURS[1],
                label=f"F1 at {result['threshold']:g}")  # fmt: skip
    scores.plot(values("best_f1"), y, "s", color=COLOURS[1], label="F1 at the best threshold")
    for at, (_, row) in zip(y, rows, strict=True):
        if row["average_precision_interval"]:
            scores.plot(row["average_precision_interval"], [at, at], color=COLOURS[0], alpha=0.4,
                        linewidth=2.5, solid_capstyle="butt")  # fmt: skip
    scores.plot(values("average_precision"), y, "o", color=COLOURS[0],
                label="average precision (bar: 95 % interval)")  # fmt: skip
    score_axis(scores, "score")
    names = [f"{shorten(name)} ({row['support']})" for name, row in rows]
    named_rows([scores, thresholds], y, names)
    scores.set_ylim(-0.7, len(rows) - 0.3)
    thresholds.axvline(result["threshold"], color=GREY, linewidth=0.8, linestyle="--")
    thresholds.plot(values("best_threshold"), y, "D", color=COLOURS[2])
    score_axis(thresholds, "best threshold")
    legend_below(figure, scores, 3)
    return figure
