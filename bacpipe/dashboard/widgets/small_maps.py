"""Small maps of all models, in the same colours."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import panel as pn
from bokeh.models import ColumnDataSource, LinearColorMapper
from bokeh.plotting import figure

from bacpipe.dashboard.data.labels import NONE, Labels, read_labels
from bacpipe.dashboard.data.results import ModelResults
from bacpipe.dashboard.data.sampling import choose_points, drawing_order
from bacpipe.dashboard.data.shared_labels import with_common_names
from bacpipe.dashboard.style import CSS
from bacpipe.dashboard.widgets.colours import NO_LABEL, palette
from bacpipe.errors import BacpipeError

_MOST_POINTS = 1500
_MOST_COLOURS = 256


class SmallMap(NamedTuple):
    """What is drawn of a model's map.

    Attributes
    ----------
    model : str
    points : np.ndarray, float32, shape (n, 2)
    labels : Labels
        Of the points.
    windows : int
        How many there are in all.
    """

    model: str
    points: np.ndarray
    labels: Labels
    windows: int


@lru_cache(maxsize=128)
def small_map(results: ModelResults, reducer: str, kind: str) -> SmallMap:
    """Sample of a model's map, kept for all visitors; grey where a model lacks the labels."""
    points = results.coordinates(reducer)
    try:
        labels = read_labels(results, kind)
    except BacpipeError:
        labels = Labels(kind, np.full(len(points), NONE, np.int32), (), False)
    order = drawing_order(labels.codes)
    rows, _ = choose_points(points, np.ones(len(points), bool), order, most=_MOST_POINTS)
    used, codes = np.unique(labels.codes[rows], return_inverse=True)
    # Only the labels that are drawn: times are almost as many as windows.
    offset = int((used < 0).sum())
    names = tuple(labels.names[code] for code in used[offset:])
    codes = (codes - offset).astype(np.int32)
    chosen = Labels(kind, codes, names, labels.ordered)
    return SmallMap(results.name, points[rows, :2].copy(), chosen, len(points))


def with_common_colours(maps: Sequence[SmallMap]) -> tuple[list[SmallMap], list[str]]:
    """Number the labels of all maps alike, and find the colour of each."""
    parts = with_common_names([part.labels for part in maps])
    names = parts[0].names if parts else ()
    ordered = any(part.ordered for part in parts)
    if ordered and len(names) > _MOST_COLOURS:
        step = -(-len(names) // _MOST_COLOURS)
        # The legend names the two ends.
        names = (*names[:-1:step], names[-1])
        parts = [
            part._replace(codes=np.where(part.codes < 0, NONE, part.codes // step), names=names)
            for part in parts
        ]
    found = [item._replace(labels=part) for item, part in zip(maps, parts, strict=True)]
    return found, palette(len(names), ordered=ordered)


def draw_small_map(item: SmallMap, colours: Sequence[str], size: int) -> Any:
    """Figure of one model."""
    count = max(len(item.labels.names), 1)
    plot = figure(
        title=item.model,
        width=size,
        height=size,
        tools="",
        toolbar_location=None,
        output_backend="canvas",
    )
    source = ColumnDataSource(
        {
            "x": item.points[:, 0].copy(),
            "y": item.points[:, 1].copy(),
            "code": item.labels.codes.astype(np.int32),
        }
    )
    mapper = LinearColorMapper(
        palette=list(colours[:count]) if item.labels.names else [NO_LABEL],
        low=-0.5,
        high=count - 0.5,
        low_color=NO_LABEL,
    )
    plot.scatter(
        "x",
        "y",
        source=source,
        size=4 if len(item.points) > 400 else 6,
        line_color=None,
        alpha=0.8,
        fill_color={"field": "code", "transform": mapper},
    )
    plot.axis.visible = False
    plot.grid.visible = False
    plot.outline_line_color = "#d5dbe1"
    plot.title.text_font_size = "13px"
    drawn = f"{item.windows:,} windows"
    if len(item.points) < item.windows:
        drawn = f"{len(item.points):,} of {drawn}"
    return pn.Column(
        pn.pane.Bokeh(plot),
        pn.pane.HTML(
            f'<div class="bp-note">{drawn}</div>', stylesheets=[CSS], margin=(0, 10, 8, 10)
        ),
        width=size + 12,
    )
