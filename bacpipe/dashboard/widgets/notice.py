"""Sentences for visitors, in a box."""

from __future__ import annotations

import html
from typing import Any

import panel as pn

from bacpipe.dashboard.style import CSS


class Notice:
    """A sentence in a box; invisible without one.

    Sentences name files and labels, which may hold anything, so they are shown as text:
    neither markup nor Markdown.

    Parameters
    ----------
    sentence : str
        What to say at first.

    Attributes
    ----------
    panel : panel object
    sentence : str
        What is said.
    """

    def __init__(self, sentence: str = "") -> None:
        self.panel: Any = pn.pane.HTML(
            css_classes=["bp-notice"], stylesheets=[CSS], sizing_mode="stretch_width"
        )
        self.say(sentence)

    def say(self, sentence: str = "") -> None:
        """Show another sentence; none takes the box away."""
        self.sentence = sentence
        self.panel.param.update(object=html.escape(sentence), visible=bool(sentence))
