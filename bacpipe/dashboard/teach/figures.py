"""Figure of a learning curve."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import panel as pn
from bokeh.models import HoverTool, Range1d

from bacpipe.dashboard.style import FRAME, dress_legend, is_dark, new_figure, palette

if TYPE_CHECKING:
    import pandas as pd

_MARKERS = ("circle", "square", "triangle", "diamond", "inverted_triangle", "hex")
_MOST = 6  # classes that are told apart


def learning_curve_figure(curve: pd.DataFrame) -> Any:
    """Average precision by the number of labels, a line for each of at most six classes.

    `curve` is what `bacpipe.recognisers.learning_curve` returns.
    """
    names = curve["class"].drop_duplicates().tolist()[:_MOST]
    last = curve.dropna(subset=["average_precision"]).drop_duplicates("class", keep="last")
    reached = zip(last["class"], last["average_precision"], last["labels"], strict=True)
    plot = new_figure(
        230, f"Learning curve of {', '.join(names)}: average precision by number of labels",
        details="; ".join(f"{name}: {p:.2f} with {n:.0f} labels" for name, p, n in reached),
        tools="reset", title="Would more labels help?", y_range=Range1d(0, 1.03),
    )  # fmt: skip
    plot.outline_line_color = FRAME
    plot.xaxis.axis_label = "labels that were learnt from"
    plot.yaxis.axis_label = "average precision"
    for i, (name, colour) in enumerate(
        zip(names, palette(len(names), dark=is_dark()), strict=True)
    ):
        part = curve[curve["class"] == name].dropna(subset=["average_precision"])
        source = {
            "labels": part["labels"].round().tolist(),
            "precision": part["average_precision"].tolist(),
            "name": [name] * len(part),
        }
        options = {"color": colour, "legend_label": name}
        plot.line("labels", "precision", source=source, line_width=2, **options)
        plot.scatter("labels", "precision", source=source, size=9, marker=_MARKERS[i], **options)
    plot.add_tools(
        HoverTool(
            tooltips=[("class", "@name"), ("labels", "@labels"), ("precision", "@precision{0.00}")]
        )
    )
    if names:
        dress_legend(plot, "bottom_right")
    return pn.pane.Bokeh(plot, sizing_mode="stretch_width")
