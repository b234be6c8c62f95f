"""One style for all figures.

Figures are made without pyplot, so that they need no display, leave no global state behind and
work in threads.  Colours are told apart by colour-blind readers (Okabe & Ito 2008,
https://jfly.uni-koeln.de/color/; scales of one hue).  Sizes are those of a printed
page: 7 pt and larger at a width of 85 mm (one column) or 175 mm (two columns).
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from functools import cache, wraps
from pathlib import Path
from typing import Any, ParamSpec

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontEntry, findfont, fontManager
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

from bacpipe.store.files import replacing

logger = logging.getLogger(__name__)

COLUMN, PAGE = 85 / 25.4, 175 / 25.4  # inches
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000", "#F0E442")
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<")
GREY = "#6b6b6b"
SCALE = "Blues"

_STYLE: Any = {  # matplotlib types its settings by name, three hundred of them
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
    """Write a figure as PNG (300 dpi) and, if asked for, as SVG beside it; or as SVG alone.

    The latter if that is the suffix of its path.
    """
    with rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph .* missing", UserWarning)  # we tell it ourselves
        _choose_fonts(figure)
        if path.suffix != ".svg":
            with replacing(path) as file:
                figure.savefig(file, format="png", dpi=300)
        if vector or path.suffix == ".svg":
            with replacing(path.with_suffix(".svg")) as file:
                figure.savefig(file, format="svg", metadata={"Date": None})


def _choose_fonts(figure: Figure) -> None:
    """Let texts use installed fonts for letters that the usual font lacks, such as Chinese ones.

    What no font has is told once; it becomes boxes.
    """
    figure.draw_without_rendering()  # texts beside axes are empty until then
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text)]
    letters = {letter for text in texts for letter in text.get_text() if not letter.isspace()}
    missing = letters - _letters_of(findfont("DejaVu Sans"))
    if not missing:
        return
    families = []

    def plainness(font: FontEntry) -> tuple[bool, bool, str]:
        return font.style != "normal", font.weight != 400, font.name

    for font in sorted(fontManager.ttflist, key=plainness):
        if "Last Resort" in font.name:  # boxes, too
            continue
        if covered := missing & _letters_of(font.fname):
            families.append(font.name)
            missing -= covered
        if not missing:
            break
    if missing:
        _warn_of_boxes("".join(sorted(missing)[:10]))
    for text in texts:
        text.set_fontfamily(["DejaVu Sans", *families])


@cache
def _letters_of(file: str) -> frozenset[str]:
    try:
        return frozenset(map(chr, FT2Font(file).get_charmap()))
    except (OSError, RuntimeError) as error:
        logger.debug("the font %s cannot be read: %s", file, error)
        return frozenset()


@cache
def _warn_of_boxes(letters: str) -> None:
    logger.warning(
        "No font on this machine has the letters %s, so figures show boxes instead; install one, "
        "such as Noto Sans CJK for Chinese, Japanese and Korean (Debian and Ubuntu: apt install "
        "fonts-noto-cjk), and draw the figures anew (overwrite=true).",
        letters,
    )


def heading(figure: Figure, text: str) -> None:
    """Bold heading of a figure with several panels."""
    figure.suptitle(text, x=0.01, ha="left", fontsize=9, fontweight="bold")


def legend_below(figure: Figure, axes: Axes, columns: int = 3) -> None:
    """Legend of one of the panels, below all of them."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=max(1, min(columns, 5)))


def named_rows(panels: Sequence[Axes], y: np.ndarray, names: Sequence[str]) -> None:
    """Names beside the rows of panels that share their vertical axis, without ticks."""
    panels[0].set_yticks(y, list(names))
    for axes in panels:
        axes.tick_params(axis="y", length=0)


def row_offset(i: int, n: int, height: float = 0.62) -> float:
    """Where the i-th of n series is drawn within a row."""
    return (i - (n - 1) / 2) * height / max(n, 1)


def lollipops(
    axes: Axes,
    i: int,
    x: np.ndarray,
    y: np.ndarray,
    label: str,
    low: np.ndarray | None = None,
    high: np.ndarray | None = None,
) -> None:
    """Scores of the i-th series as dots with a stem from 0, the level of chance.

    Intervals from `low` to `high` are bars; where they are NaN, there is none.
    """
    colour = COLOURS[i % len(COLOURS)]
    axes.hlines(y, 0, x, color=colour, linewidth=1, alpha=0.5)
    if low is not None and high is not None:
        axes.hlines(y, low, high, color=colour, linewidth=3.5, alpha=0.35)
    axes.plot(x, y, MARKERS[i % len(MARKERS)], color=colour, label=label)


def chance_axis(axes: Axes, low: float, label: str) -> None:
    """Horizontal axis of a score that is 0 for chance, may be negative and is 1 at most."""
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.set_xlim(min(0.0, low) - 0.06, 1.06)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel(label)
    axes.grid(axis="x")


def heat_map(figure: Figure, axes: Axes, shares: np.ndarray, label: str) -> None:
    """Matrix of values from 0 to 1 in shades of blue, with its scale."""
    image = axes.imshow(shares, cmap=SCALE, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    bar = figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03)
    bar.set_label(label)
    bar.outline.set_visible(False)
    axes.spines[:].set(visible=True, color=GREY)


def numbers_in_cells(axes: Axes, shares: np.ndarray, texts: np.ndarray) -> None:
    """Write texts into the cells of a heat map, white on dark ones."""
    for (row, column), text in np.ndenumerate(texts):
        colour = "white" if shares[row, column] > 0.55 else "black"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=7)


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
