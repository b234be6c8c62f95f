"""Figures of the recordings: when something was recorded, and how long recordings are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from bokeh.models import (
    AdaptiveTicker,
    ColumnDataSource,
    FactorRange,
    HoverTool,
    LinearColorMapper,
)

from bacpipe.dashboard.style import (
    axis_categories,
    is_dark,
    new_colour_bar,
    new_figure,
    palette,
)
from bacpipe.errors import counted
from bacpipe.plotting.style import COLOURS

if TYPE_CHECKING:
    import pandas as pd

_MOST_SITES = 24
_MOST_BLOCKS = 400
_UNITS = {"hour": 3600, "day": 86_400, "week": 7 * 86_400}
# Weeks begin on Mondays, the epoch on a Thursday.
_SHIFT = {"hour": 0, "day": 0, "week": 3 * 86_400}
_DATES = {"hour": "%Y-%m-%d %H:%M", "day": "%Y-%m-%d", "week": "%Y-%m-%d"}


def time_line(table: pd.DataFrame, top: str, unit: str | None = None) -> Any:
    """Figure of how much was recorded per `unit` (hour, day or week), a row for every folder.

    `table` has columns folder, start (datetime64) and duration (seconds), with at least one start;
    `top` is the name for recordings that are in no sub-folder.
    """
    known = table[table["start"].notna()]
    code, sites = sites_of(known["folder"].to_numpy(), _MOST_SITES)
    blocks, unit = recorded_time(
        known["start"].to_numpy(), known["duration"].to_numpy(), code, unit
    )
    most = float(blocks["seconds"].max())
    divisor, word = _time_unit(most)
    names = [name or top for name in sites]
    factors = axis_categories(names, 24)
    values = (blocks["seconds"] / divisor).to_numpy(float)
    dark = is_dark()
    colours = palette(200, ordered=True, scale="viridis" if dark else "viridis_r", dark=dark)
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
    title = f"Recorded {word} per {unit}"
    plot = _new_figure(
        min(96 + 22 * len(sites), 330), title,
        f"Time line of {counted(len(known), 'recording')} in {counted(len(sites), 'folder')}: "
        f"{title.lower()}",
        x_axis_type="datetime",
        y_range=FactorRange(factors=factors[::-1]), tools="xpan,xwheel_zoom,reset",
        active_scroll="xwheel_zoom",
    )  # fmt: skip
    fill = {"field": "value", "transform": mapper}
    # The line keeps blocks visible that are narrower than a pixel.
    blocks_drawn = plot.hbar(
        "site", left="left", right="right", height=0.72, fill_color=fill, line_color=fill,
        line_width=1.5, source=source,
    )  # fmt: skip
    tooltips = [("folder", "@name"), ("from", f"@left{{{_DATES[unit]}}}"), (word, "@value{0.0}"),
                ("recordings", "@recordings{0,0}")]  # fmt: skip
    plot.add_tools(
        HoverTool(renderers=[blocks_drawn], tooltips=tooltips, formatters={"@left": "datetime"})
    )
    plot.add_layout(new_colour_bar(mapper, word), "right")
    return plot


def duration_histogram(duration: np.ndarray) -> Any:
    """Figure of how many recordings are how long (seconds; at least one)."""
    divisor, word = _time_unit(float(duration.max()))
    values = duration / divisor
    # Recorders make recordings of one length: a bar around it, rather than one of no width.
    edges = np.linspace(0, max(float(values.max()), 1e-9) * 1.02, 31)
    counts, _ = np.histogram(values, edges)
    plot = _new_figure(
        190,
        "Length of the recordings",
        f"Histogram of the length of {counted(len(duration), 'recording')}, "
        f"{values.min():.1f} to {values.max():.1f} {word}",
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
    return plot


def _time_unit(seconds: float) -> tuple[int, str]:
    """Unit in which a time reads well: its length in seconds, and its name."""
    if seconds >= 7200:
        return 3600, "hours"
    return (60, "minutes") if seconds >= 120 else (1, "seconds")


def _new_figure(height: int, title: str, name: str, **options: Any) -> Any:
    plot = new_figure(height, name, title=title, **options)
    plot.title.text_font_size = "13px"
    return plot


# ---------------------------------------------------------------------- adding up


def sites_of(folders: np.ndarray, most: int) -> tuple[np.ndarray, list[str]]:
    """Group recordings by folder, coarsely enough for a figure: code of each, and names of groups.

    Names are folders, or their first parts if there are too many folders; beyond `most` of those,
    the ones with the fewest recordings are together in the last group.
    """
    names, code = np.unique(folders.astype(str), return_inverse=True)
    if len(names) > most:
        first = np.array([name.split("/", 1)[0] for name in names])[code]
        names, code = np.unique(first, return_inverse=True)
    if len(names) <= most:
        return code.astype(np.int64), names.tolist()
    by_size = np.argsort(-np.bincount(code), kind="stable")
    kept = np.sort(by_size[: most - 1])
    place = np.full(len(names), most - 1, np.int64)
    place[kept] = np.arange(most - 1)
    return place[code], [*names[kept].tolist(), f"{len(names) - most + 1} other folders"]


def recorded_time(
    start: np.ndarray, duration: np.ndarray, group: np.ndarray, unit: str | None = None
) -> tuple[pd.DataFrame, str]:
    """Add up how much was recorded per hour, day or week.

    Parameters
    ----------
    start : np.ndarray, datetime64, shape (n,)
        When each recording begins; those with NaT are left out.
    duration : np.ndarray, float, shape (n,)
        Seconds; NaN counts as nothing.
    group : np.ndarray, int, shape (n,)
        Site of each recording.
    unit : {'hour', 'day', 'week'}, optional
        Length of the blocks; the shortest that gives at most 400 from the first to the last
        recording unless given.

    Returns
    -------
    table : pandas.DataFrame
        group, begin and end (datetime64[s]), seconds (recorded) and recordings of every block in
        which something was recorded, sorted.
    unit : str
        Length of the blocks.
    """
    import pandas as pd

    known = ~np.isnat(start)
    begin = start[known].astype("datetime64[us]").astype(np.int64) / 1e6
    length = np.nan_to_num(duration[known])
    end = begin + length
    if unit is None:
        span = end.max(initial=-np.inf) - begin.min(initial=np.inf)
        unit = next((u for u, size in _UNITS.items() if span / size <= _MOST_BLOCKS), "week")
    size, shift = _UNITS[unit], _SHIFT[unit]
    first = np.floor((begin + shift) / size).astype(np.int64)
    last = np.maximum(np.ceil((end + shift) / size).astype(np.int64) - 1, first)
    count = last - first + 1
    row = np.repeat(np.arange(len(first)), count)
    block = first[row] + np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    low = block * size - shift
    inside = np.minimum(end[row], low + size) - np.maximum(begin[row], low)
    table = pd.DataFrame({"group": group[known][row], "block": low, "seconds": inside})
    sums = table.groupby(["group", "block"])["seconds"].agg(["sum", "size"]).reset_index()
    return pd.DataFrame(
        {
            "group": sums["group"],
            "begin": sums["block"].to_numpy("datetime64[s]"),
            "end": (sums["block"] + size).to_numpy("datetime64[s]"),
            "seconds": sums["sum"].astype(float),
            "recordings": sums["size"].astype(np.int64),
        }
    ), unit
