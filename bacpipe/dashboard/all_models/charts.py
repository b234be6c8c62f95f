"""Figures of all models: scores as dots with 95 % intervals as whiskers, and small maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import panel as pn
from bokeh.models import ColumnDataSource, FactorRange, HoverTool, LinearColorMapper, Span
from bokeh.transform import dodge

from bacpipe.dashboard.shared.embedding_map import (
    choose_points,
    drawing_order,
    group_colours,
    name_of_map,
    shapes_of,
)
from bacpipe.dashboard.shared.labels import (
    NONE,
    WindowLabels,
    most_frequent,
    read_labels,
    with_common_names,
)
from bacpipe.dashboard.shared.results import ModelResults
from bacpipe.dashboard.shared.widgets import note
from bacpipe.dashboard.style import FRAME, MOST_COLOURS, NO_LABEL, axis_categories, new_figure
from bacpipe.errors import BacpipeError, counted
from bacpipe.plotting.style import COLOURS, GREY

if TYPE_CHECKING:
    import pandas as pd

_MOST_POINTS = 1500  # of a small map
_MOST_COLOURS = 256
_LEAST_HEIGHT = 220  # pixels of a panel of scores
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
    """
    models = table["model"].drop_duplicates().tolist()
    factor = dict(zip(models, axis_categories(models, 26), strict=True))
    names = table[series].drop_duplicates().sort_values().tolist()
    rows = FactorRange(factors=[factor[name] for name in reversed(models)])
    height = max(58 + len(models) * (13 * len(names) + 12), _LEAST_HEIGHT)
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
    of_models = zip(table["model"], table[series], table[metric], strict=True)
    told = "; ".join(f"{model}, {what}: {score:.2f}" for model, what, score in of_models)
    plot = new_figure(
        height, f"{title} of {counted(len(factor), 'model')}", details=told, title=title,
        y_range=rows, x_range=(min(0.0, low) - 0.03, 1.03),
    )  # fmt: skip
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
        plot.segment(
            "low", y, "high", y, source=source, color=colours[name], line_width=2, alpha=0.55
        )
        dots = plot.scatter(
            "score",
            y,
            source=source,
            color=colours[name],
            size=9,
            marker=_MARKERS[i % len(_MARKERS)],
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
    return plot


class SmallMap(NamedTuple):
    """What is drawn of a model's map.

    Attributes
    ----------
    points : np.ndarray, float32, shape (n, 2)
    labels : WindowLabels
        Of the points.
    windows : int
        How many there are in all.
    """

    model: str
    points: np.ndarray
    labels: WindowLabels
    windows: int


@lru_cache(maxsize=128)
def small_map(results: ModelResults, reducer: str, kind: str) -> SmallMap:
    """Sample of a model's map, kept for all visitors; grey where a model lacks the labels."""
    points = results.coordinates(reducer)
    try:
        labels = read_labels(results, kind)
    except BacpipeError:
        labels = WindowLabels(kind, np.full(len(points), NONE, np.int32), (), False)
    order = drawing_order(labels.codes)
    rows, _ = choose_points(points, np.ones(len(points), bool), order, most=_MOST_POINTS)
    used, codes = np.unique(labels.codes[rows], return_inverse=True)
    # Only the labels that are drawn: times are almost as many as windows.
    offset = int((used < 0).sum())
    names = tuple(labels.names[code] for code in used[offset:])
    codes = (codes - offset).astype(np.int32)
    chosen = WindowLabels(kind, codes, names, labels.ordered)
    return SmallMap(results.name, points[rows, :2].copy(), chosen, len(points))


def with_common_colours(
    maps: Sequence[SmallMap], *, dark: bool = False
) -> tuple[list[SmallMap], list[str]]:
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
    parts = most_frequent(parts, MOST_COLOURS + 1)
    coloured = [item._replace(labels=part) for item, part in zip(maps, parts, strict=True)]
    return coloured, group_colours(parts[0], dark=dark) if parts else []


def draw_small_map(item: SmallMap, colours: Sequence[str], width: int, title: str) -> Any:
    """Figure of one model, at least `width` pixels wide; it takes the place that there is.

    `title` says what kind of labels its colours are.
    """
    count = max(len(item.labels.names), 1)
    # A step to the side means the same as one upwards.
    plot = new_figure(
        None, name_of_map(f"{item.windows:,} windows", item.model, title),
        title=item.model, sizing_mode="scale_width", aspect_ratio=1, match_aspect=True,
        tools="pan,wheel_zoom,box_zoom,reset", output_backend="canvas",
    )  # fmt: skip
    # Bokeh warns about views of an array.
    x, y = (item.points[:, axis].copy() for axis in range(2))
    codes = item.labels.codes.astype(np.int32)
    source = ColumnDataSource(
        {"x": x, "y": y, "code": codes, "shape": shapes_of(codes, item.labels)}
    )
    used = list(colours[:count]) if item.labels.names else [NO_LABEL]
    mapper = LinearColorMapper(palette=used, low=-0.5, high=count - 0.5, low_color=NO_LABEL)
    plot.scatter(
        "x", "y", source=source, size=4 if len(item.points) > 400 else 6, line_color=None,
        marker="shape", alpha=0.8, fill_color={"field": "code", "transform": mapper},
    )  # fmt: skip
    plot.axis.visible = False
    plot.grid.visible = False
    plot.outline_line_color = FRAME
    plot.title.text_font_size = "13px"
    drawn = f"{item.windows:,} windows"
    if len(item.points) < item.windows:
        drawn = f"{len(item.points):,} of {drawn}"
    return pn.Column(
        pn.pane.Bokeh(plot, sizing_mode="stretch_width"),
        note(drawn, margin=(0, 10, 8, 10)),
        styles={"flex": f"1 1 {width}px", "max-width": "680px", "min-width": "230px"},
    )
