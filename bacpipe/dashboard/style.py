"""How the dashboard looks: style sheets, and colours that colour-blind readers can tell apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import panel as pn
from bokeh.models import BasicTicker, ColorBar, CustomAction, CustomJS, FixedTicker
from bokeh.plotting import figure

from bacpipe.plotting.style import COLOURS, shorten

# Colours come from Panel's theme, which gives every component its variables: one style sheet for
# light and dark.
QUIET = "color-mix(in srgb, var(--panel-on-background-color) 76%, var(--panel-background-color))"
_BRAND = "color-mix(in srgb, #0b6e99 70%, var(--panel-on-background-color))"
CSS = """
:host(.bp-page) {
  background: var(--panel-background-color); color: var(--panel-on-background-color);
}
:host(.bp-header) {
  border-bottom: 1px solid var(--panel-border-color); padding: 4px 12px; align-items: center;
  background: var(--panel-background-color); flex-wrap: wrap; height: auto !important;
}
.bp-brand { font-size: 20px; font-weight: 700; color: BRAND; letter-spacing: 0.02em; margin: 0;
  display: inline; }
.bp-name { font-size: 15px; color: QUIET; margin-left: 12px; overflow-wrap: anywhere; }
.bp-theme { font-size: 13px; color: QUIET; }
a { color: BRAND; }
:host(.bp-note), .bp-note { font-size: 12px; color: QUIET; overflow-wrap: anywhere; }
/* A class is looked for in the style sheet of the object itself and in that of its parent. */
:host(.bp-controls) {
  padding: 8px 12px; border-right: 1px solid var(--panel-border-color);
  background: var(--panel-background-color); overflow-y: auto; overflow-x: hidden;
  min-height: calc(100vh - 52px);
}
/* What does not fit is scrolled to: Bokeh gives parts at most the height of what they are in, and
   what follows would lie over their end. */
.bk-panel-models-layout-Column, .bk-panel-models-layout-Card { max-height: none !important; }
.bp-choices, .bp-help { flex: none !important; }
.bp-heading { font-size: 12px; font-weight: 600; color: var(--panel-on-background-color);
  margin: 2px 0; }
:host(.bp-cover), :host(.bp-spinner) {
  position: absolute !important; inset: 0; width: auto !important; height: auto !important;
  pointer-events: none; z-index: 9;
}
.bp-hint {
  position: absolute; inset: 0; padding: 80px 40px; text-align: center; color: QUIET;
  font-size: 14px; background: var(--panel-background-color); min-height: 400px;
}
.bp-window-title { font-size: 14px; color: var(--panel-on-background-color);
  overflow-wrap: anywhere; }
.bp-folder { color: QUIET; font-size: 12px; }
.bp-when { font-size: 12px; color: QUIET; }
.bp-classes { width: 100%; border-collapse: collapse; font-size: 12px; }
.bp-classes td { padding: 1px 4px; }
.bp-class { max-width: 220px; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
:host(.bp-help) { background: var(--panel-background-color); }
:host(.bp-help) .card-header { padding: 2px 8px; min-height: 26px;
  background: var(--panel-surface-color); color: var(--panel-on-surface-color); }
:host(.bp-help) .card-title, :host(.bp-help) .card-title h3 { font-size: 13px; margin: 0; }
.bp-bar { width: 40%; }
.bp-bar span { display: block; height: 9px; background: #2b83ba; border-radius: 2px; }
.bp-legend { display: flex; flex-wrap: wrap; gap: 2px 14px; font-size: 12px;
  color: var(--panel-on-background-color); }
.bp-entry { display: inline-flex; align-items: center; gap: 5px; overflow-wrap: anywhere; }
.bp-dot { flex: none; }
.bp-scale { width: 160px; height: 10px; border-radius: 2px; }
.bp-number { font-size: 26px; font-weight: 700; color: BRAND; }
.bp-linked { font-size: 12px; color: var(--panel-on-background-color); min-height: 16px; }
.bp-cards { display: flex; flex-wrap: wrap; gap: 8px; }
.bp-card {
  padding: 6px 14px; font-size: 12px; color: QUIET; background: var(--panel-surface-color);
  border: 1px solid var(--panel-border-color); border-radius: 6px; min-width: 84px;
}
.bp-say { font-size: 13px; color: var(--panel-on-background-color); max-width: 460px; }
.bp-say p { margin: 6px 0; }
.bp-open { font-size: 13px; color: var(--panel-on-background-color); overflow-wrap: anywhere; }
.bp-model {
  font-size: 13px; border: 1px solid var(--panel-border-color); border-radius: 6px;
  margin-bottom: 6px; padding: 6px 12px; color: var(--panel-on-background-color);
}
.bp-model summary { cursor: pointer; }
.bp-model summary span { color: QUIET; }
.bp-model table { margin: 6px 0; border-collapse: collapse; overflow-wrap: anywhere; }
.bp-model th { text-align: left; font-weight: 600; padding: 2px 16px 2px 0; vertical-align: top;
  white-space: nowrap; color: QUIET; }
.bp-model td { padding: 2px 0; }
:host(.bp-notice), .bp-notice {
  margin: 6px 10px; padding: 6px 10px; font-size: 13px; color: #5c3c00; background: #fff6e0;
  border-left: 4px solid #E69F00; overflow-wrap: anywhere;
}
.bp-turning {
  position: absolute; left: calc(50% - 20px); top: calc(50% - 20px); width: 32px; height: 32px;
  border: 4px solid var(--panel-border-color); border-top-color: #2b83ba; border-radius: 50%;
  animation: bp-turn 0.9s linear infinite;
}
@keyframes bp-turn { to { transform: rotate(360deg); } }
.bp-details {
  flex: 0 0 43% !important; min-width: 400px; max-width: 900px; overflow-y: auto;
  overflow-x: hidden; border-left: 1px solid var(--panel-border-color);
}
.bp-counts { font-size: 13px; border-collapse: collapse; overflow-wrap: anywhere; }
.bp-counts th { text-align: right; font-weight: 600; color: QUIET; }
.bp-counts th, .bp-counts td { padding: 2px 12px 2px 0; text-align: right; }
.bp-counts th:first-child, .bp-counts td:first-child { text-align: left; }
.bp-count { font-weight: 700; color: BRAND; font-variant-numeric: tabular-nums; }
:host(.bp-steps) {
  position: absolute !important; left: 6px; top: 34px; z-index: 8; opacity: 0; pointer-events: none;
  background: var(--panel-background-color); border: 1px solid var(--panel-border-color);
}
:host(.bp-steps:focus-within) { opacity: 1; pointer-events: auto; }
.bp-maps { flex: none !important; height: max(300px, calc(100vh - 510px)) !important; }
/* Beside what is longer than the window of the browser, the player stays in it. */
@media (min-width: 901px) {
  .bp-near { position: sticky !important; top: 0; }
}
/* On narrow screens parts stand below one another, each as wide as the screen. */
@media (max-width: 900px) {
  :host(.bp-header) { flex-wrap: wrap !important; height: auto !important; }
  :host(.bp-header) > * { flex: 0 0 auto !important; }
  :host(.bp-header) > :first-child { width: 100% !important; }
  :host(.bp-view), :host(.bp-explore), :host(.bp-beside) {
    flex-direction: column !important; height: auto !important; flex-wrap: nowrap !important;
  }
  .bp-controls, .bp-body, .bp-map, .bp-details, .bp-side {
    width: 100% !important; min-width: 0 !important; max-width: none !important;
    height: auto !important; min-height: 0 !important; flex: none !important;
    box-sizing: border-box;
  }
  :host(.bp-controls) { border-right: none; min-height: 0; overflow-y: visible; }
  .bp-map { height: 440px !important; }
  .bp-maps { height: 380px !important; max-height: none !important; }
  .bp-details { border-left: none; overflow-y: visible; }
}
""".replace("QUIET", QUIET).replace("BRAND", _BRAND)

TABLE_CSS = """
div.tabulator { font-size: 12px; }
div.tabulator .tabulator-header .tabulator-col .tabulator-col-content { padding: 3px 6px; }
div.tabulator .tabulator-header .tabulator-col .tabulator-col-content .tabulator-col-title {
  white-space: normal; text-overflow: clip;
}
div.tabulator .tabulator-row { min-height: 24px; cursor: pointer; }
div.tabulator .tabulator-row .tabulator-cell { padding: 3px 6px; height: 24px; }
div.tabulator .tabulator-footer .tabulator-footer-contents { padding: 2px 4px; }
div.tabulator .tabulator-footer .tabulator-page { padding: 1px 5px; margin: 0 1px; }
/* Of a long path the end tells recordings apart. */
div.tabulator .tabulator-row .tabulator-cell[tabulator-field="recording"] {
  direction: rtl; text-align: left;
}
"""

# Paul Tol's qualitative schemes 'bright', 'muted' and 'light' (https://personal.sron.nl/~pault/)
# follow after the eight of the figures.
_MORE = (
    "#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77", "#CC6677", "#882255",
    "#AA4499", "#77AADD", "#EE8866", "#FFAABB", "#99DDFF", "#BBCC33", "#AAAA00", "#66CCEE",
)  # fmt: skip
NO_LABEL = "#858f99"
FRAME = "#9aa5b1"
MARKERS = ("circle", "square", "diamond", "triangle", "inverted_triangle", "hex", "star")
# The same shapes as letters, for legends.
SHAPES = ("●", "■", "◆", "▲", "▼", "⬢", "★")
MOST_COLOURS = 24
_LIGHT, _DARK = "#ffffff", "#212529"  # backgrounds of Panel's themes
_SAVE_SVG = """
const view = Bokeh.index.find_one(figure);
const glyphs = [];
for (const renderer of view.renderer_views.values()) {
  for (const part of [renderer.glyph, renderer.nonselection_glyph, renderer.selection_glyph]) {
    if (part?.glglyph) { glyphs.push([part, part.glglyph]); part.glglyph = null; }
  }
}
const layer = view.export("svg", false);  // lines and letters instead of pixels
for (const [part, glglyph] of glyphs) part.glglyph = glglyph;
layer.to_blob().then((blob) => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = "bacpipe_figure.svg";
  link.click();
  URL.revokeObjectURL(link.href);
});
"""
# Bokeh encodes it: it must not be encoded yet, and a "#" would end it.
_SVG_ICON = (
    "data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 24 24'><text x='0' "
    "y='17' font-size='12' font-family='sans-serif' font-weight='700' fill='rgb(133,143,153)'>SVG"
    "</text></svg>"
)


def is_dark() -> bool:
    """Whether this visitor looks at the dark theme."""
    return bool(pn.config.theme == "dark")


def palette(
    count: int, *, ordered: bool = False, scale: str = "viridis", dark: bool = False
) -> list[str]:
    """``#rrggbb`` for every label; unordered labels beyond 24 share colours.

    All stand out from the background (contrast of 3 and more).  `ordered` takes neighbouring
    colours of matplotlib's `scale` for neighbouring labels.
    """
    background = _DARK if dark else _LIGHT
    if ordered:
        return [readable(colour, background) for colour in scale_colours(scale, max(count, 1))]
    colours = [readable(name, background) for name in (*COLOURS[:6], *_MORE, *COLOURS[6:])]
    return [colours[i % len(colours)] for i in range(max(count, 1))]


def contrast(one: str, other: str) -> float:
    """Contrast of two colours (``#rrggbb``), 1 to 21, as WCAG 2.2 defines it."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    parts = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ np.array([0.2126, 0.7152, 0.0722]))


def readable(colour: str, background: str, least: float = 3.0) -> str:
    """The colour, darker or lighter until it has the `least` contrast with a background."""
    towards = 0 if _luminance(background) > 0.18 else 255
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], float)
    for share in np.linspace(0, 1, 41):
        mixed = "#" + "".join(f"{round(v):02x}" for v in rgb + share * (towards - rgb))
        if contrast(mixed, background) >= least:
            return mixed
    return mixed


def scale_colours(name: str, count: int = 256) -> list[str]:
    """Colours of a matplotlib scale, from its low end to its high end."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colour) for colour in colormaps[name](np.linspace(0, 1, count))]


def new_figure(
    height: int | None, name: str, *, details: str = "", tools: str = "", **options: Any
) -> Any:
    """Figure in the visitor's theme, as wide as its place unless `options` of Bokeh say more.

    `name` and `details` say what it shows for people who cannot see it; `name_figure` changes
    them.  Everyone can be saved as PNG and as SVG.
    """
    plot = figure(
        height=height,
        tools=",".join(filter(None, [tools, "save"])),
        **{"sizing_mode": "stretch_width", "toolbar_location": "above", **options},
    )
    plot.add_tools(
        CustomAction(
            icon=_SVG_ICON, description="Save as SVG",
            callback=CustomJS(args={"figure": plot}, code=_SAVE_SVG),
        )
    )  # fmt: skip
    plot.toolbar.logo = None
    plot.toolbar.autohide = not tools  # figures that cannot be moved show it when pointed at
    ink, paper = ink_and_paper()
    plot.background_fill_color = plot.border_fill_color = paper
    if plot.title is not None:
        plot.title.text_color = ink
    plot.axis.axis_label_text_color = plot.axis.major_label_text_color = ink
    plot.axis.axis_line_color = plot.axis.major_tick_line_color = FRAME
    plot.axis.minor_tick_line_color = None
    plot.axis.axis_label_text_font_style = "normal"
    plot.grid.grid_line_color = FRAME
    plot.grid.grid_line_alpha = 0.25
    plot.outline_line_color = None
    name_figure(plot, name, details)
    return plot


def put_ticks(axis: Any, words: Mapping[float, str] | Mapping[int, str]) -> None:
    """Put words at places of an axis.

    Its ticker is kept: for every new model, Bokeh collects those of the whole page again.
    """
    if not isinstance(axis.ticker, FixedTicker):
        axis.ticker = FixedTicker()
    axis.ticker.ticks = list(words)
    axis.major_label_overrides = dict(words)


def name_figure(plot: Any, name: str, details: str = "") -> None:
    """Tell screen readers what a figure shows, in a few words, and more about it."""
    # Not a picture, which must hold nothing that has the focus, as the tools and Bokeh's canvas.
    told = {"role": "group", "aria-label": name, "aria-description": details}
    plot.html_attributes = {key: text for key, text in told.items() if text}


def dress_legend(plot: Any, location: str) -> None:
    """Put the legend of a figure somewhere, in the visitor's theme."""
    ink, paper = ink_and_paper()
    plot.legend.update(
        location=location, padding=4, label_text_font_size="11px", label_text_color=ink,
        background_fill_color=paper, background_fill_alpha=0.8, border_line_color=None,
    )  # fmt: skip


def ink_and_paper() -> tuple[str, str]:
    """Colours of text and of what lies below it, in the visitor's theme."""
    return ("#e9ecef", _DARK) if is_dark() else ("#33424f", _LIGHT)


def new_colour_bar(mapper: Any, title: str = "") -> Any:
    """Colour bar in the visitor's theme."""
    ink, paper = ink_and_paper()
    return ColorBar(
        color_mapper=mapper, width=8, padding=4, title=title or None, title_text_font_size="11px",
        title_text_font_style="normal", title_text_color=ink, major_label_text_color=ink,
        major_label_text_font_size="10px", background_fill_color=paper,
        ticker=BasicTicker(desired_num_ticks=4),
    )  # fmt: skip


def axis_categories(names: Sequence[str], width: int) -> list[str]:
    """Names for the categories of an axis: shortened, yet no two alike."""
    return [shorten(name, width) + "\u200b" * i for i, name in enumerate(names)]
