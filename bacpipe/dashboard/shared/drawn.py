"""Knowing when a browser has drawn what it was sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import panel as pn
import param

from bacpipe.dashboard.background import page_document

_PATIENCE = 60_000  # milliseconds, after which it is taken for granted

# What a page says while its connection is being made can be lost, so it says it until it is heard.
_SCRIPT = """
export function render({model}) {
  const tell = () => { if (!model.heard) model.send_msg("drawn"); };
  setTimeout(tell, 0);
  const again = setInterval(() => { if (model.heard) clearInterval(again); else tell(); }, 2000);
  model.on("remove", () => clearInterval(again));
  return document.createElement("span");
}
"""


class Drawn(pn.custom.JSComponent):
    """The last part of something; calls `act` once, when a browser has drawn all before it.

    Bokeh's widgets fail when they are changed after they were sent and before they are drawn.
    """

    heard = param.Boolean(default=False)

    _esm = _SCRIPT

    def __init__(self, act: Callable[[], None], **values: Any) -> None:
        super().__init__(width=0, height=0, margin=0, **values)
        self._act = act
        document = page_document()
        if document is None:
            self._once()  # a notebook or a test: there is nobody to tell
        else:
            document.add_timeout_callback(self._once, _PATIENCE)

    def _handle_msg(self, data: Any) -> None:
        self._once()

    def _once(self) -> None:
        if not self.heard:
            self.heard = True
            self._act()
