"""Legends of maps as HTML."""

from __future__ import annotations

import html
from collections.abc import Sequence

from bacpipe.dashboard.data.labels import NONE, Labels
from bacpipe.dashboard.widgets.colours import NO_LABEL

MOST_ENTRIES = 24


def legend_html(labels: Labels | None, colours: Sequence[str], *, most: int = MOST_ENTRIES) -> str:
    """Colours of labels, as a line of HTML in which labels are text.

    Parameters
    ----------
    labels : Labels or None
        What is coloured.
    colours : sequence of str
        Colour of every label.
    most : int
        More unordered labels than this are counted rather than named, since colours repeat.
    """
    if labels is None or not labels.names:
        return ""
    entries = []
    if labels.ordered and len(labels.names) > 8:
        steps = ", ".join(colours[:: max(1, len(colours) // 32)])
        entries.append(
            f'<span class="bp-entry">{html.escape(labels.names[0])}'
            f'<span class="bp-scale" style="background: linear-gradient(90deg, {steps})"></span>'
            f"{html.escape(labels.names[-1])}</span>"
        )
    else:
        entries += [
            _entry(colour, name) for name, colour in zip(labels.names[:most], colours, strict=False)
        ]
        if len(labels.names) > most:
            entries.append(f'<span class="bp-entry">… and {len(labels.names) - most} more</span>')
    if (labels.codes == NONE).any():
        entries.append(_entry(NO_LABEL, "none"))
    return f'<div class="bp-legend">{"".join(entries)}</div>'


def _entry(colour: str, name: str) -> str:
    return (
        f'<span class="bp-entry"><span class="bp-dot" style="background: {colour}"></span>'
        f"{html.escape(name)}</span>"
    )
