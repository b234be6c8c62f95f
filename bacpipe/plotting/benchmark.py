"""Figure of a benchmark: how well each class is found, with and without a threshold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bacpipe.plotting.style import COLOURS, GREY, PAGE, new_figure, score_axis, shorten, styled

_MOST_ROWS = 60


@styled
def class_benchmark(result: Mapping[str, Any]) -> Figure:
    """Average precision, F1 at the threshold and best F1 of every class.

    Parameters
    ----------
    result : mapping
        What `benchmark` returned.

    Returns
    -------
    Figure
        Left the scores, right the threshold that maximises F1; the best class on top, and at
        most the 60 classes with most windows.
    """
    rows = [(name, row) for name, row in result["per_class"].items() if row["support"]]
    rows = sorted(rows, key=lambda item: -item[1]["support"])[:_MOST_ROWS]
    rows.sort(key=lambda item: item[1]["average_precision"] or 0)
    y = np.arange(len(rows))
    figure = new_figure(PAGE, max(1.8, 0.19 * len(rows) + 1.1))
    scores, thresholds = figure.subplots(1, 2, sharey=True, width_ratios=[3, 1])
    figure.suptitle(f"{result['model']}: classifier against annotations", x=0.01, ha="left",
                    fontsize=9, fontweight="bold")  # fmt: skip

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
    scores.set_yticks(y, [f"{shorten(name)} ({row['support']})" for name, row in rows])
    scores.set_ylim(-0.7, len(rows) - 0.3)
    thresholds.axvline(result["threshold"], color=GREY, linewidth=0.8, linestyle="--")
    thresholds.plot(values("best_threshold"), y, "D", color=COLOURS[2])
    score_axis(thresholds, "best threshold")
    for axes in (scores, thresholds):
        axes.tick_params(axis="y", length=0)
    figure.legend(*scores.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure
