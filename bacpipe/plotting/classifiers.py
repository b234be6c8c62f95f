"""Figures of classifiers, probes and those of models: confusion matrix, and scores by class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bacpipe.errors import counted
from bacpipe.plotting.style import (
    COLOURS,
    GREY,
    MARKERS,
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
_MOST_PANELS = 24  # classes of one figure of curves
_BINS = 10
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
        f"balanced accuracy {overall['balanced_accuracy']:.2f}, {tested_on(result)}",
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


def tested_on(result: Mapping[str, Any]) -> str:
    """Number of test windows and of their recordings."""
    split = result["split"]
    windows = counted(split["windows"]["test"], "test window")
    recordings = split["recordings"]
    return windows + (f" of {counted(recordings['test'], 'recording')}" if recordings else "")


@styled
def precision_recall(
    result: Mapping[str, Any],
    truth: np.ndarray,
    scores: np.ndarray,
    ignored: np.ndarray | None = None,
) -> Figure:
    """Precision at every recall, a panel per class, from the scores of the test windows.

    Dashed is chance, the share of windows with the class; the diamond is the lowest threshold with
    the wanted precision.  At most the 24 classes with most test windows.
    """
    figure, panels = _class_panels(result, truth, "precision and recall at all thresholds")
    for axes, i, name in panels:
        positive, score = _of_class(i, truth, scores, ignored)
        order = np.argsort(-score, kind="stable")
        ranked, hits = score[order], positive[order].cumsum()
        last = np.flatnonzero(np.r_[ranked[1:] != ranked[:-1], True])
        recall, precision = hits[last] / hits[-1], hits[last] / (last + 1)
        axes.axhline(positive.mean(), color=GREY, linewidth=0.8, linestyle="--")
        axes.step(np.r_[0, recall], np.r_[precision[0], precision], where="pre", color=COLOURS[0])
        values = result["per_class"][name]
        threshold = values["threshold_at_precision"]
        label = f"AP {values['average_precision']:.2f}"
        if threshold is not None:
            at = int(np.searchsorted(-ranked[last], -threshold, "right")) - 1
            axes.plot(recall[at], precision[at], "D", color=COLOURS[4], markersize=4)
            label += f"\n{result['wanted_precision']:.0%} from {threshold:.2g}"
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
        axes.text(0.04, 0.05, label, transform=axes.transAxes, fontsize=6.5, bbox=box)
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.05))
    figure.supxlabel("recall", fontsize=8)
    figure.supylabel("precision", fontsize=8)
    return figure


@styled
def reliability(
    result: Mapping[str, Any],
    truth: np.ndarray,
    scores: np.ndarray,
    ignored: np.ndarray | None = None,
) -> Figure:
    """How often a class is there, by its score: a panel per class, tenths of the scores.

    Where dots lie on the diagonal, scores are probabilities; below it they promise too much.  The
    size of a dot is the number of its windows.  At most the 24 classes with most test windows.
    """
    figure, panels = _class_panels(result, truth, "what the scores mean")
    for axes, i, _ in panels:
        positive, score = _of_class(i, truth, scores, ignored)
        part = np.minimum((score * _BINS).astype(int), _BINS - 1)
        windows = np.bincount(part, minlength=_BINS)
        used = windows > 0
        mean = np.bincount(part, score, _BINS)[used] / windows[used]
        share = np.bincount(part, positive, _BINS)[used] / windows[used]
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle="--")
        axes.plot(mean, share, color=COLOURS[0], linewidth=0.8, alpha=0.5)
        size = 4 + 40 * windows[used] / windows.max()
        axes.scatter(mean, share, s=size, color=COLOURS[0], linewidths=0)
        error = float(windows[used] @ np.abs(mean - share) / len(part))
        axes.text(0.04, 0.9, f"error {error:.2f}", transform=axes.transAxes, fontsize=6.5)
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.05))
    figure.supxlabel("mean score", fontsize=8)
    figure.supylabel("share with the class", fontsize=8)
    return figure


@styled
def learning_curve(result: Mapping[str, Any]) -> Figure:
    """Score by the number of labelled training windows, from `probing_pipeline`."""
    points = result["learning_curve"]["points"]
    figure = new_figure(PAGE * 0.6, 2.5)
    axes = figure.add_subplot()
    x = [point["windows_per_class"] for point in points]
    for i, (metric, label) in enumerate(
        (("average_precision_macro", "average precision (macro)"), ("f1_macro", "F1 (macro)"))
    ):
        y = np.array([point[metric] for point in points], dtype=float)
        axes.plot(x, y, MARKERS[i] + "-", color=COLOURS[i], label=label)
    axes.set_xscale("log", base=2)
    axes.set_xticks(x, [f"{value:g}" for value in x])
    axes.minorticks_off()
    axes.set_ylim(-0.02, 1.02)
    axes.grid(axis="y")
    axes.set_xlabel("training windows per class (median)")
    axes.set_ylabel("score of the test windows")
    axes.set_title(f"{result['model']}, {result['probe']} probe: learning curve", fontsize=8)
    legend_below(figure, axes, 2)
    return figure


def _of_class(
    i: int, truth: np.ndarray, scores: np.ndarray, ignored: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Truth and scores of a class, where one can say whether it is there."""
    use = np.ones(len(truth), bool) if ignored is None else ~ignored[:, i]
    return truth[use, i], scores[use, i]


def _class_panels(
    result: Mapping[str, Any], truth: np.ndarray, what: str
) -> tuple[Figure, list[tuple[Axes, int, str]]]:
    """Empty panels of the classes with most test windows, with the column and name of each."""
    names, support = list(result["per_class"]), truth.sum(axis=0)
    shown = [int(i) for i in np.argsort(-support, kind="stable") if support[i]][:_MOST_PANELS]
    columns = min(4, max(len(shown), 1))
    rows = -(-len(shown) // columns) or 1
    figure = new_figure(min(PAGE, 0.6 + 1.6 * columns), 0.75 + 1.5 * rows)
    grid = np.atleast_1d(figure.subplots(rows, columns, sharex=True, sharey=True)).ravel()
    for axes in grid[len(shown) :]:
        axes.set_visible(False)
    for axes, i in zip(grid, shown, strict=False):
        axes.set_title(f"{shorten(names[i], 22)} ({support[i]})", fontsize=7)
        axes.tick_params(labelsize=6.5)
    left_out = int((support > 0).sum()) - len(shown)
    rest = f"; {left_out} rarer classes are not shown" if left_out else ""
    who = f"{result['probe']} probe" if "probe" in result else "its own classifier"
    windows = tested_on(result) if "split" in result else counted(len(truth), "window")
    title = f"{result['model']}, {who}: {what}\n{windows}{rest}"
    figure.suptitle(title, x=0.01, ha="left", fontsize=8, fontweight="bold")
    return figure, [(axes, i, names[i]) for axes, i in zip(grid, shown, strict=False)]
