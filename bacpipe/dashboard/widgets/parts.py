"""The controls of views that show one of several parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import panel as pn

from bacpipe.dashboard.style import CSS


def parts_and_choices(
    part: Any, titles: Mapping[str, str], choices: Mapping[str, Sequence[Any]]
) -> Any:
    """Let a visitor choose a part, and below what each part lets choose.

    Parameters
    ----------
    part : param.Selector
        Which part is shown.
    titles : mapping of str to str
        Parts by their title.
    choices : mapping of str to sequence
        Widgets of each part.
    """
    parts = pn.widgets.RadioBoxGroup.from_param(part, options=titles, name="Show", margin=(5, 10))
    return pn.Column(
        pn.pane.HTML('<div class="bp-heading">Show</div>', stylesheets=[CSS], margin=(5, 10)),
        parts,
        *(widget for widgets in choices.values() for widget in widgets),
        sizing_mode="stretch_width",
    )
