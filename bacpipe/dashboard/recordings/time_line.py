"""Figures of the recordings: when something was recorded, and how long recordings are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from bokeh.models import (
    AdaptiveTicker,
    ColorBar,
    ColumnDataSource,
    FactorRange,
    HoverTool,
    LinearColorMapper,
)
from bokeh.plotting import figure

from bacpipe.dashboard.recordings.inventory import recorded_time, sites_of
from bacpipe.dashboard.style import scale_colours
from bacpipe.plotting.style import COLOURS, GREY, shorten

if TYPE_CHECKING:
    import pandas as pd

_MOST_SITES = 24
_NO_WIDTH = "\u200b"
_DATES = {"hour": "%Y-%m-%d %H:%M", "day": "%Y-%m-%d", "week": "%Y-%m-%d"}


def time_line(table: pd.DataFrame, top: str, unit: str | None = None) -> tuple[Any, str]:
    """Figure of how much was recorded when, a row for every folder.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns folder, start (datetime64) and duration (seconds), with at least one start.
    top : str
        Name of the folder of the recordings that are in no sub-folder.
    unit : {'hour', 'day', 'week'}, optional
        Length of a block.

    Returns
    -------
    figure : bokeh figure
    unit : str
        Length of a block.
    """
    known = table[table["start"].notna()]
    code, sites = sites_of(known["folder"].to_numpy(), _MOST_SITES)
    blocks, unit = recorded_time(
        known["start"].to_numpy(), known["duration"].to_numpy(), code, unit
    )
    most = float(blocks["seconds"].max())
    divisor, word = _time_unit(most)
    names = [name or top for name in sites]
    factors = [shorten(name, 24) + _NO_WIDTH * i for i, name in enumerate(names)]
    values = (blocks["seconds"] / divisor).to_numpy(float)
    colours = scale_colours("viridis_r", 200)[20:]
    mapper = LinearColorMapper(palette=colours, low=0, high=max(most / divisor, 1e-9))
    source = ColumnDataSource(
        {
            "site": np.array(factors, object)[blocks["group"]],
            "name": np.array(names, object)[blocks["group"]],
            "left": blocks["begin"].to_numpy("datetime64[ms]"),
            "right": blocks["end"].to_numpy("datetime64[ms]"),
            "value": values,
            "recordings": blocks["recordings"].to_numpy(),
        }
    )
    plot = figure(
        height=min(96 + 22 * len(sites), 330),
        sizing_mode="stretch_width",
        x_axis_type="datetime",
        y_range=FactorRange(factors=factors[::-1]),
        tools="xpan,xwheel_zoom,reset",
        active_scroll="xwheel_zoom",
        toolbar_location="above",
        title=f"Recorded {word} per {unit}",
    )
    fill = {"field": "value", "transform": mapper}
    # The line keeps blocks visible that are narrower than a pixel.
    blocks_drawn = plot.hbar(
        "site", left="left", right="right", height=0.72, fill_color=fill, line_color=fill,
        line_width=1.5, source=source,
    )  # fmt: skip
    plot.add_tools(
        HoverTool(
            renderers=[blocks_drawn],
            tooltips=[
                ("folder", "@name"),
                ("from", f"@left{{{_DATES[unit]}}}"),
                (word, "@value{0.0}"),
                ("recordings", "@recordings{0,0}"),
            ],
            formatters={"@left": "datetime"},
        )
    )
    plot.add_layout(
        ColorBar(color_mapper=mapper, width=10, padding=4, title=word, title_text_font_size="11px"),
        "right",
    )
    _style(plot)
    return plot, unit


def duration_histogram(duration: np.ndarray) -> Any:
    """Figure of how many recordings are how long.

    Parameters
    ----------
    duration : np.ndarray, float, shape (n,)
        Seconds; at least one.
    """
    divisor, word = _time_unit(float(duration.max()))
    values = duration / divisor
    # Recorders make recordings of one length: a bar around it, rather than one of no width.
    edges = np.linspace(0, max(float(values.max()), 1e-9) * 1.02, 31)
    counts, _ = np.histogram(values, edges)
    plot = figure(
        height=190,
        sizing_mode="stretch_width",
        title="Length of the recordings",
        tools="",
        toolbar_location=None,
        x_axis_label=word,
        y_axis_label="recordings",
    )
    source = ColumnDataSource({"left": edges[:-1], "right": edges[1:], "count": counts})
    plot.quad(
        left="left", right="right", top="count", bottom=0, color=COLOURS[0], alpha=0.85,
        line_color="white", source=source,
    )  # fmt: skip
    plot.add_tools(
        HoverTool(tooltips=[(word, "@left{0.0} – @right{0.0}"), ("recordings", "@count{0,0}")])
    )
    plot.y_range.start = 0
    plot.yaxis.ticker = AdaptiveTicker(min_interval=1, desired_num_ticks=4)
    _style(plot)
    return plot


def _time_unit(seconds: float) -> tuple[int, str]:
    """Unit in which a time reads well: its length in seconds, and its name."""
    return (
        (3600, "hours")
        if seconds >= 7200
        else (60, "minutes")
        if seconds >= 120
        else (1, "seconds")
    )


def _style(plot: Any) -> None:
    plot.title.text_font_size = "13px"
    plot.outline_line_color = None
    plot.axis.axis_line_color = GREY
    plot.axis.minor_tick_line_color = None
    plot.axis.axis_label_text_font_style = "normal"
    plot.ygrid.grid_line_color = "#eef1f3"
    plot.toolbar.logo = None
