"""How the dashboard looks: style sheets, and colours that colour-blind readers can tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from bokeh.plotting import figure

from bacpipe.plotting.style import COLOURS, shorten

CSS = """
.bp-header {
  border-bottom: 1px solid #d5dbe1; padding: 4px 12px; align-items: center; background: #ffffff;
}
.bp-brand { font-size: 20px; font-weight: 700; color: #0b4f6c; letter-spacing: 0.02em; }
.bp-name { font-size: 15px; color: #52606d; margin-left: 12px; }
:host(.bp-note), .bp-note { font-size: 12px; color: #52606d; }
/* A class is looked for in the style sheet of the object itself and in that of its parent. */
:host(.bp-controls), .bp-controls {
  padding: 8px 12px; border-right: 1px solid #e4e8ec; background: #f7f9fa; overflow-y: auto;
  min-height: calc(100vh - 52px);
}
.bp-heading { font-size: 12px; font-weight: 600; color: #33424f; margin: 2px 0; }
:host(.bp-cover), :host(.bp-spinner) {
  position: absolute !important; inset: 0; width: auto !important; height: auto !important;
  pointer-events: none; z-index: 9;
}
.bp-hint {
  position: absolute; inset: 0; padding: 80px 40px; text-align: center; color: #52606d;
  font-size: 14px; background: #ffffff; min-height: 400px;
}
.bp-window-title { font-size: 14px; color: #1f2933; overflow-wrap: anywhere; }
.bp-folder { color: #7b8794; font-size: 12px; }
.bp-when { font-size: 12px; color: #52606d; }
.bp-classes { width: 100%; border-collapse: collapse; font-size: 12px; }
.bp-classes td { padding: 1px 4px; }
.bp-class { max-width: 220px; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
:host(.bp-help) .card-header { padding: 2px 8px; min-height: 26px; }
:host(.bp-help) .card-title, :host(.bp-help) .card-title h3 { font-size: 13px; margin: 0; }
.bp-bar { width: 40%; }
.bp-bar span { display: block; height: 9px; background: #0072B2; border-radius: 2px; }
.bp-legend { display: flex; flex-wrap: wrap; gap: 2px 14px; font-size: 12px; color: #33424f; }
.bp-entry { display: inline-flex; align-items: center; gap: 5px; overflow-wrap: anywhere; }
.bp-dot { width: 10px; height: 10px; border-radius: 50%; flex: none; }
.bp-scale { width: 160px; height: 10px; border-radius: 2px; }
.bp-number { font-size: 26px; font-weight: 700; color: #0b4f6c; }
.bp-linked { font-size: 12px; color: #33424f; min-height: 16px; }
.bp-cards { display: flex; flex-wrap: wrap; gap: 8px; }
.bp-card {
  padding: 6px 14px; font-size: 12px; color: #52606d; background: #f7f9fa;
  border: 1px solid #e4e8ec; border-radius: 6px; min-width: 84px;
}
.bp-say { font-size: 13px; color: #33424f; max-width: 460px; }
.bp-say p { margin: 6px 0; }
.bp-open { font-size: 13px; color: #33424f; overflow-wrap: anywhere; }
.bp-model {
  font-size: 13px; border: 1px solid #e4e8ec; border-radius: 6px; margin-bottom: 6px;
  padding: 6px 12px; color: #33424f;
}
.bp-model summary { cursor: pointer; }
.bp-model summary span { color: #7b8794; }
.bp-model table { margin: 6px 0; border-collapse: collapse; overflow-wrap: anywhere; }
.bp-model th { text-align: left; font-weight: 600; padding: 2px 16px 2px 0; vertical-align: top;
  white-space: nowrap; color: #52606d; }
.bp-model td { padding: 2px 0; }
:host(.bp-notice), .bp-notice {
  margin: 6px 10px; padding: 6px 10px; font-size: 13px; color: #5c3c00; background: #fff6e0;
  border-left: 4px solid #E69F00; overflow-wrap: anywhere;
}
.bp-turning {
  position: absolute; left: calc(50% - 20px); top: calc(50% - 20px); width: 32px; height: 32px;
  border: 4px solid #cfd8df; border-top-color: #0072B2; border-radius: 50%;
  animation: bp-turn 0.9s linear infinite;
}
@keyframes bp-turn { to { transform: rotate(360deg); } }
.bp-details {
  flex: 0 0 43% !important; min-width: 400px; max-width: 760px; overflow-y: auto;
  overflow-x: hidden; border-left: 1px solid #e4e8ec;
}
.bp-counts { font-size: 13px; border-collapse: collapse; overflow-wrap: anywhere; }
.bp-counts th { text-align: right; font-weight: 600; color: #52606d; }
.bp-counts th, .bp-counts td { padding: 2px 12px 2px 0; text-align: right; }
.bp-counts th:first-child, .bp-counts td:first-child { text-align: left; }
.bp-count { font-weight: 700; color: #0b4f6c; font-variant-numeric: tabular-nums; }
"""

TABLE_CSS = """
div.tabulator { font-size: 12px; }
div.tabulator .tabulator-header .tabulator-col .tabulator-col-content { padding: 3px 6px; }
div.tabulator .tabulator-row { min-height: 24px; cursor: pointer; }
div.tabulator .tabulator-row .tabulator-cell { padding: 3px 6px; height: 24px; }
div.tabulator .tabulator-footer .tabulator-footer-contents { padding: 2px 4px; }
div.tabulator .tabulator-footer .tabulator-page { padding: 1px 5px; margin: 0 1px; }
"""

# Paul Tol's qualitative schemes 'bright', 'muted' and 'light' (https://personal.sron.nl/~pault/)
# follow after the eight of the figures.
_MORE = (
    "#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77", "#CC6677", "#882255",
    "#AA4499", "#77AADD", "#EE8866", "#FFAABB", "#99DDFF", "#BBCC33", "#AAAA00", "#66CCEE",
)  # fmt: skip
NO_LABEL = "#9aa5b1"
FRAME = "#d5dbe1"


def palette(count: int, *, ordered: bool = False, scale: str = "viridis") -> list[str]:
    """``#rrggbb`` for every label; unordered labels beyond 24 share colours.

    `ordered` takes neighbouring colours of matplotlib's `scale` for neighbouring labels.
    """
    if ordered:
        return scale_colours(scale, max(count, 1))
    colours = (*COLOURS[:6], *_MORE, *COLOURS[6:])
    return [colours[i % len(colours)] for i in range(max(count, 1))]


def scale_colours(name: str, count: int = 256) -> list[str]:
    """Colours of a matplotlib scale, from its low end to its high end."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colour) for colour in colormaps[name](np.linspace(0, 1, count))]


def new_figure(height: int | None, *, tools: str = "", **options: Any) -> Any:
    """Figure without frame and logo, as wide as its place unless `options` of Bokeh say more."""
    plot = figure(
        height=height,
        tools=tools,
        **{
            "sizing_mode": "stretch_width",
            "toolbar_location": "above" if tools else None,
            **options,
        },
    )
    plot.toolbar.logo = None
    plot.outline_line_color = None
    return plot


def axis_categories(names: Sequence[str], width: int) -> list[str]:
    """Names for the categories of an axis: shortened, yet no two alike."""
    return [shorten(name, width) + "\u200b" * i for i, name in enumerate(names)]
