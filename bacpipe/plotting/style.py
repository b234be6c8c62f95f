"""One style for all figures.

Figures are made without pyplot, so that they need no display, leave no global state behind and
work in threads.  Colours are told apart by colour-blind readers (Okabe & Ito 2008,
https://jfly.uni-koeln.de/color/; scales of one hue).  Sizes are those of a printed
page: 7 pt and larger at a width of 85 mm (one column) or 175 mm (two columns).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bacpipe.store.files import replacing

COLUMN, PAGE = 85 / 25.4, 175 / 25.4  # inches
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000", "#F0E442")
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<")
GREY = "#6b6b6b"
SCALE = "Blues"

_STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.axisbelow": True,
    "axes.grid": False,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "lines.markersize": 4.5,
    "savefig.dpi": 300,
    "svg.fonttype": "none",
    "svg.hashsalt": "bacpipe",  # the same figure gives the same file
    "pdf.fonttype": 42,
}

_P = ParamSpec("_P")


def styled(draw: Callable[_P, Figure]) -> Callable[_P, Figure]:
    """Let a function draw its figure in the style of the house."""

    @wraps(draw)
    def styled_draw(*args: _P.args, **kwargs: _P.kwargs) -> Figure:
        with rc_context(_STYLE):
            return draw(*args, **kwargs)

    return styled_draw


def new_figure(width: float, height: float) -> Figure:
    """Empty figure of a size in inches, laid out so that nothing overlaps."""
    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Figure, path: Path, *, vector: bool = False) -> None:
    """Write a figure as PNG (300 dpi) and, if asked for, as SVG beside it."""
    with rc_context(_STYLE):
        with replacing(path) as file:
            figure.savefig(file, format="png", dpi=300)
        if vector:
            with replacing(path.with_suffix(".svg")) as file:
                figure.savefig(file, format="svg", metadata={"Date": None})


def shorten(name: str, most: int = 28) -> str:
    """Name that fits beside an axis; names often differ in their last letters only."""
    if len(name) <= most:
        return name
    return name[: most - 9].rstrip() + "…" + name[-8:].lstrip()


def score_axis(axes: Axes, label: str, *, low: float = 0.0) -> None:
    """Horizontal axis of a score up to 1, with a light grid."""
    axes.set_xlim(low - 0.02 * (1 - low), 1 + 0.02 * (1 - low))
    axes.set_xlabel(label)
    axes.xaxis.set_major_formatter("{x:g}")  # short, so that neighbouring panels stay apart
    axes.grid(axis="x")


def text_width(names: list[str], size: float = 7.5) -> float:
    """Rough width in inches of the longest of some names."""
    return max((len(name) for name in names), default=0) * size * 0.58 / 72
