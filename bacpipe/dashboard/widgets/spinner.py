"""A spinner over a part of the page."""

from __future__ import annotations

from typing import Any

import panel as pn

from bacpipe.dashboard.style import CSS

_TURNING = '<div class="bp-turning" role="status" aria-label="working"></div>'


class Spinner:
    """Turns over its parent while something is computed.

    Panel's own ``loading`` changes the classes of an object, after which Bokeh lays out the
    whole page again; that takes longer than most of what is waited for.

    Attributes
    ----------
    panel : panel object
        Put it first into the column that it is to lie over.
    loading : bool
        Whether it turns.
    """

    def __init__(self) -> None:
        self.panel: Any = pn.pane.HTML(
            "", css_classes=["bp-spinner"], stylesheets=[CSS], margin=0, width=1, height=1
        )

    @property
    def loading(self) -> bool:
        """Whether it turns."""
        return bool(self.panel.object)

    @loading.setter
    def loading(self, turns: bool) -> None:
        self.panel.object = _TURNING if turns else ""
