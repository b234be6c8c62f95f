"""Figures of places: sites on a plain map, and activity as on paper."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from bokeh.models import ColumnDataSource, CustomJS, DataRange1d, HoverTool, Range1d, ScaleBar

from bacpipe.dashboard.places.surveyed_sites import SiteSummary
from bacpipe.dashboard.shared.widgets import tall_figure
from bacpipe.dashboard.style import FRAME, ink_and_paper, new_figure
from bacpipe.errors import counted
from bacpipe.plotting.activity import activity_maps
from bacpipe.plotting.style import COLOURS, save_figure, shorten
from bacpipe.store.layout import ACTIVITY_FIGURE

if TYPE_CHECKING:
    from bacpipe.labels.activity import Activity

_EQUATOR = 111_320.0  # metres of a degree of longitude
_METRES = "metres.setv({start: scale * x.start, end: scale * x.end})"
_NAMED = 40  # sites, above which their names would cover one another
_SMALLEST, _LARGEST = 9.0, 44.0  # pixels


def site_map(
    sites: Sequence[SiteSummary],
    values: Mapping[str, float],
    hours: Mapping[str, float],
    title: str,
) -> Any:
    """Sites by longitude and latitude, as large as their values; those without any are empty.

    A degree of longitude is as long beside one of latitude as it is on the ground, and a bar
    tells how far that is.
    """
    placed = [site for site in sites if site.position is not None]
    latitudes = [site.position.latitude for site in placed if site.position is not None]
    longitudes = [site.position.longitude for site in placed if site.position is not None]
    ink, paper = ink_and_paper()
    middle = math.radians((min(latitudes) + max(latitudes)) / 2) if placed else 0.0
    narrow = max(math.cos(middle), 0.05)
    plot = new_figure(
        460, f"Map of {counted(len(placed), 'site')}: {title}",
        details="; ".join(f"{site.name} {values.get(site.name, 0):,g}" for site in placed[:_NAMED]),
        tools="pan,wheel_zoom,box_zoom,reset", active_scroll="wheel_zoom", title=title,
        match_aspect=True, aspect_scale=narrow,
        x_range=DataRange1d(range_padding=0.25, min_interval=0.02, default_span=0.02),
        y_range=DataRange1d(range_padding=0.25, min_interval=0.02, default_span=0.02),
    )  # fmt: skip
    plot.outline_line_color = FRAME
    plot.xaxis.axis_label, plot.yaxis.axis_label = "longitude (°)", "latitude (°)"
    _add_scale(plot, _EQUATOR * narrow, ink, paper)
    amounts = np.array([values.get(site.name, 0.0) for site in placed], float)
    most = float(amounts.max(initial=0.0)) or 1.0
    # By area, as people compare circles.
    sizes = _SMALLEST + (_LARGEST - _SMALLEST) * np.sqrt(amounts / most)
    source = ColumnDataSource(
        {
            "x": longitudes,
            "y": latitudes,
            "name": [site.name for site in placed],
            "short": [shorten(site.name, 24) for site in placed],
            "recordings": [site.recordings for site in placed],
            "hours": [hours.get(site.name, float("nan")) for site in placed],
            "value": amounts.tolist(),
            "size": sizes.tolist(),
            "right": (sizes / 2 + 4).tolist(),
            "fill": [0.75 if value > 0 else 0.0 for value in amounts],
        }
    )
    circles = plot.scatter(
        "x", "y", source=source, size="size", fill_color=COLOURS[0], fill_alpha="fill",
        line_color=ink, line_width=1.5,
    )  # fmt: skip
    if len(placed) <= _NAMED:
        plot.text(
            "x", "y", text="short", source=source, x_offset="right", text_baseline="middle",
            text_font_size="12px", text_color=ink,
        )  # fmt: skip
    plot.add_tools(
        HoverTool(
            renderers=[circles],
            tooltips=[
                ("site", "@name"),
                ("latitude, longitude", "@y{0.0000}, @x{0.0000}"),
                ("recordings", "@recordings"),
                ("hours listened", "@hours{0.00}"),
                (title, "@value{0,0.[00]}"),
            ],
        )
    )
    return tall_figure(plot, "100vh - 160px")


def _add_scale(plot: Any, scale: float, ink: str, paper: str) -> None:
    """Bar of a round number of metres or kilometres; `scale` is metres of a degree."""
    metres = Range1d(0, 1)
    follow = CustomJS(args={"metres": metres, "x": plot.x_range, "scale": scale}, code=_METRES)
    for end in ("start", "end"):
        plot.x_range.js_on_change(end, follow)
    plot.add_layout(
        ScaleBar(
            range=metres, unit="m", location="bottom_left", background_fill_color=paper,
            background_fill_alpha=0.8, border_line_color=None, bar_line_color=ink,
            bar_line_width=2, label_text_color=ink, title_text_color=ink,
        )
    )  # fmt: skip


class Drawing(NamedTuple):
    """A figure as files."""

    png: bytes
    svg: bytes


def activity_drawing(activity: Activity, title: str) -> Drawing:
    """Heat maps of classes as `bacpipe.plotting` draws them."""
    with tempfile.TemporaryDirectory(prefix="bacpipe_figure_") as folder:
        path = Path(folder, ACTIVITY_FIGURE)
        save_figure(activity_maps(activity, title), path, vector=True)
        return Drawing(path.read_bytes(), path.with_suffix(".svg").read_bytes())
