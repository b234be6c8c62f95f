"""A player of sound that says what it plays."""

from __future__ import annotations

from typing import Any

import panel as pn
import param

from bacpipe.dashboard.style import is_dark


class Player(pn.pane.Audio):
    """`panel.pane.Audio` with a role and a name for people who cannot see it.

    Attributes
    ----------
    html_attributes : dict of str to str
        Of its element; Bokeh's models have it, Panel's panes pass it on.
    """

    html_attributes = param.Dict(default={})

    def __init__(self, **options: Any) -> None:
        dark = ["audio { color-scheme: dark; }"] if is_dark() else []
        super().__init__(None, **{"stylesheets": dark, **options})
        self._tell("")

    def load(self, wav: bytes | None, what: str = "", *, play: bool = False) -> None:
        """Take another sound, and say `what` it is; none empties the player."""
        self._tell(what)
        self.param.update(object=wav, time=0, paused=not play)

    def _tell(self, what: str) -> None:
        said = f"Player of {what}" if what else "Player without a sound"
        self.html_attributes = {"role": "group", "aria-label": said}
