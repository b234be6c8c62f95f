"""Colours of labels, told apart by colour-blind readers too."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bacpipe.plotting.style import COLOURS

# Paul Tol's qualitative schemes 'bright', 'muted' and 'light' (https://personal.sron.nl/~pault/)
# follow after the eight of the figures.
_MORE = (
    "#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77", "#CC6677", "#882255",
    "#AA4499", "#77AADD", "#EE8866", "#FFAABB", "#99DDFF", "#BBCC33", "#AAAA00", "#66CCEE",
)  # fmt: skip
NO_LABEL = "#9aa5b1"


def palette(count: int, *, ordered: bool = False, scale: str = "viridis") -> list[str]:
    """Colours for labels.

    Parameters
    ----------
    count : int
        Number of labels.
    ordered : bool
        True takes neighbouring colours of a scale for neighbouring labels.
    scale : str
        Name of a matplotlib colour scale.

    Returns
    -------
    list of str
        ``#rrggbb``.  Unordered labels beyond 24 share colours.
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


def legend(names: Sequence[str], colours: Sequence[str], most: int) -> list[tuple[str, str]]:
    """Names with their colours; none when there are more than `most`."""
    return [] if len(names) > most else list(zip(names, colours, strict=False))
