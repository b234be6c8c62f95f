"""Knowing when a browser has drawn what it was sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import panel as pn

_PATIENCE = 5_000  # milliseconds, after which it is taken for granted

_SCRIPT = """
export function render({model}) {
  setTimeout(() => model.send_msg("drawn"), 0)
  return document.createElement("span")
}
"""


class Drawn(pn.custom.JSComponent):
    """The last part of something; calls `act` once, when a browser has drawn all before it.

    Bokeh's widgets fail when they are changed after they were sent and before they are drawn.
    """

    _esm = _SCRIPT

    def __init__(self, act: Callable[[], None], **values: Any) -> None:
        super().__init__(width=0, height=0, margin=0, **values)
        self._act = act
        self._done = False
        document = pn.state.curdoc
        if document is None or document.session_context is None:
            self._once()  # a notebook or a test: there is nobody to tell
        else:
            document.add_timeout_callback(self._once, _PATIENCE)

    def _handle_msg(self, data: Any) -> None:
        self._once()

    def _once(self) -> None:
        if not self._done:
            self._done = True
            self._act()
