"""Scores of models as dots, with 95 % intervals as whiskers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import panel as pn
from bokeh.models import ColumnDataSource, FactorRange, HoverTool, Span
from bokeh.plotting import figure
from bokeh.transform import dodge

from bacpipe.plotting.style import COLOURS, GREY, shorten

if TYPE_CHECKING:
    import pandas as pd

_NO_WIDTH = "\u200b"
_MARKERS = ("circle", "square", "diamond", "triangle", "inverted_triangle", "plus")


def score_chart(
    table: pd.DataFrame,
    series: str,
    panels: Sequence[tuple[str, str]],
    chance: Mapping[str, float | None],
) -> Any:
    """Draw a panel for each score, with a row per model.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns model and `series`, and each score with its <score>_low and <score>_high where
        there is an interval; sorted, the best model first.
    series : str
        Column whose values have colours of their own.
    panels : sequence of (score, title)
        Columns to draw.
    chance : mapping
        What chance would give, by score.

    Returns
    -------
    panel object
    """
    models = table["model"].drop_duplicates().tolist()
    # Factors must differ, which shortened names may not.
    factor = {name: shorten(name, 26) + _NO_WIDTH * i for i, name in enumerate(models)}
    names = table[series].drop_duplicates().sort_values().tolist()
    rows = FactorRange(factors=[factor[name] for name in reversed(models)])
    height = 58 + len(models) * (13 * len(names) + 12)
    figures = [
        _one(table, series, names, factor, rows, metric, title, chance.get(metric), height, i == 0)
        for i, (metric, title) in enumerate(panels)
    ]
    # The first one also has room for the names.
    boxes = [
        pn.pane.Bokeh(
            plot, sizing_mode="stretch_width", styles={"flex": f"{1.5 - (i > 0) / 2} 1 0"}
        )
        for i, plot in enumerate(figures)
    ]
    return pn.Row(*boxes, sizing_mode="stretch_width")


def series_colours(names: Sequence[str]) -> dict[str, str]:
    """Colour of each series of a chart."""
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(sorted(names))}


def _one(
    table: pd.DataFrame,
    series: str,
    names: Sequence[str],
    factor: Mapping[str, str],
    rows: Any,
    metric: str,
    title: str,
    chance: float | None,
    height: int,
    first: bool,
) -> Any:
    low = float(np.nanmin(table.get(f"{metric}_low", table[metric]).to_numpy(float), initial=0.0))
    plot = figure(
        title=title,
        height=height,
        sizing_mode="stretch_width",
        y_range=rows,
        x_range=(min(0.0, low) - 0.03, 1.03),
        tools="",
        toolbar_location=None,
    )
    colours = series_colours(names)
    if chance is not None and np.isfinite(chance):
        plot.add_layout(
            Span(location=chance, dimension="height", line_color=GREY, line_dash="dashed")
        )
    for i, name in enumerate(names):
        part = table[table[series] == name]
        bounds = [part.get(f"{metric}_{end}", part[metric]) for end in ("low", "high")]
        source = ColumnDataSource(
            {
                "row": [factor[model] for model in part["model"]],
                "model": part["model"].to_numpy(object),
                "series": part[series].to_numpy(object),
                "score": part[metric].to_numpy(float),
                "low": bounds[0].to_numpy(float),
                "high": bounds[1].to_numpy(float),
            }
        )
        offset = ((len(names) - 1) / 2 - i) * 0.62 / max(len(names), 1)
        y: Any = dodge("row", offset, range=rows)
        colour = colours[name]
        plot.segment("low", y, "high", y, source=source, color=colour, line_width=2, alpha=0.55)
        dots = plot.scatter(
            "score", y, source=source, color=colour, size=9, marker=_MARKERS[i % len(_MARKERS)]
        )
        tooltips = [("model", "@model"), (series, "@series"), (title, "@score{0.000}")]
        if f"{metric}_low" in table:
            tooltips.append(("95 % interval", "@low{0.000} – @high{0.000}"))
        plot.add_tools(HoverTool(renderers=[dots], tooltips=tooltips))
    plot.title.text_font_size = "13px"
    plot.xaxis.ticker = [0, 0.25, 0.5, 0.75, 1]
    plot.yaxis.visible = first
    plot.yaxis.major_tick_line_color = None
    plot.yaxis.major_label_text_font_size = "12px"
    plot.min_border_left = 8
    plot.ygrid.grid_line_color = "#f0f2f4"
    plot.outline_line_color = None
    plot.axis.axis_line_color = GREY
    return plot
