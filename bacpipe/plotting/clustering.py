"""Figure of clusterings: which labels they follow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bacpipe.plotting.style import COLOURS, GREY, MARKERS, PAGE, new_figure, shorten, styled


@styled
def agreement(result: Mapping[str, Any]) -> Figure:
    """Agreement of every clustering with every kind of label.

    Parameters
    ----------
    result : mapping
        What `clustering_pipeline` returned.

    Returns
    -------
    Figure
        Adjusted mutual information and adjusted Rand index; a row per kind of label.
    """
    scores = result["agreement"]
    names = list(scores)
    kinds = list(next(iter(scores.values()), {}))
    titles = [_title(kind, result) for kind in kinds]
    figure = new_figure(PAGE, max(1.5, 0.13 * len(kinds) * (1 + len(names)) + 1.0))
    figure.suptitle(f"{result['model']}: what the clusters follow", x=0.01, ha="left", fontsize=9,
                    fontweight="bold")  # fmt: skip
    panels = figure.subplots(1, 2, sharey=True)
    step = 0.7 / max(len(names), 1)
    for axes, metric, label in zip(
        panels,
        ("AMI", "ARI"),
        ("adjusted mutual information", "adjusted Rand index"),
        strict=True,
    ):
        values = [scores[name][kind][metric] for name in names for kind in kinds]
        low = min([0.0, *values])
        axes.axvline(0, color=GREY, linewidth=0.8)
        for i, name in enumerate(names):
            y = np.arange(len(kinds)) + (i - (len(names) - 1) / 2) * step
            x = [scores[name][kind][metric] for kind in kinds]
            colour = COLOURS[i % len(COLOURS)]
            axes.hlines(y, 0, x, color=colour, linewidth=1, alpha=0.5)
            axes.plot(x, y, MARKERS[i % len(MARKERS)], color=colour, label=_name(name, result))
        axes.set_xlim(low - 0.05, 1.05)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlabel(f"{label}\n(0: chance, 1: the same)")
        axes.grid(axis="x")
        axes.set_ylim(len(kinds) - 0.45, -0.55)
    panels[0].set_yticks(range(len(kinds)), titles)
    for axes in panels:
        axes.tick_params(axis="y", length=0)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(len(names), 4)
    )
    return figure


def _title(kind: str, result: Mapping[str, Any]) -> str:
    if kind != "ground_truth":
        return shorten(kind.replace("_", " "))
    return f"{shorten(result['label_column'].removeprefix('label:'))} (annotated)"


def _name(name: str, result: Mapping[str, Any]) -> str:
    about = result["clusters"][name]
    noise = f", {about['share_of_noise']:.0%} noise" if about["share_of_noise"] else ""
    return f"{name} ({about['n_clusters']} clusters{noise})"
