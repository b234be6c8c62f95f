"""Figure of clusterings: which labels they follow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bacpipe.plotting.style import (
    PAGE,
    chance_axis,
    heading,
    legend_below,
    lollipops,
    named_rows,
    new_figure,
    row_offset,
    shorten,
    styled,
)


@styled
def agreement(result: Mapping[str, Any]) -> Figure:
    """Agreement of every clustering with every kind of label, from `clustering_pipeline`.

    Adjusted mutual information and adjusted Rand index; a row per kind of label.  Bars are 95 %
    intervals, where there are some.
    """
    scores = result["agreement"]
    names = list(scores)
    kinds = list(next(iter(scores.values()), {}))
    figure = new_figure(PAGE, max(1.5, 0.13 * len(kinds) * (1 + len(names)) + 1.0))
    heading(figure, f"{result['model']}: what the clusters follow")
    panels = figure.subplots(1, 2, sharey=True)
    titles = {"AMI": "adjusted mutual information", "ARI": "adjusted Rand index"}
    for axes, (metric, title) in zip(panels, titles.items(), strict=True):
        low = 0.0
        for i, name in enumerate(names):
            x = np.array([scores[name][kind][metric] for kind in kinds])
            y = np.arange(len(kinds)) + row_offset(i, len(names), 0.7)
            bounds = [
                np.array([scores[name][kind].get(f"{metric}_{end}") for kind in kinds], float)
                for end in ("low", "high")
            ]
            lollipops(axes, i, x, y, _name(name, result), *bounds)
            low = np.nanmin(np.concatenate([x, bounds[0]]), initial=low)
        chance_axis(axes, low, f"{title}\n(0: chance, 1: the same)")
        axes.set_ylim(len(kinds) - 0.45, -0.55)
    named_rows(panels, np.arange(len(kinds)), [_title(kind, result) for kind in kinds])
    legend_below(figure, panels[0], min(len(names), 4))
    return figure


def _title(kind: str, result: Mapping[str, Any]) -> str:
    if kind != "ground_truth":
        return shorten(kind.replace("_", " "))
    return f"{shorten(result['label_column'].removeprefix('label:'))} (annotated)"


def _name(name: str, result: Mapping[str, Any]) -> str:
    about = result["clusters"][name]
    noise = f", {about['share_of_noise']:.0%} noise" if about["share_of_noise"] else ""
    return f"{name} ({about['n_clusters']} clusters{noise})"
