"""The page that a visitor sees: a tab for every view, each built when it is opened."""

from __future__ import annotations

import html
from typing import Any

import panel as pn
import param

from bacpipe.dashboard.address import keep_in_address
from bacpipe.dashboard.background import sentence_of
from bacpipe.dashboard.data.results import DataSet
from bacpipe.dashboard.style import CSS
from bacpipe.dashboard.views import VIEWS
from bacpipe.dashboard.views.base import View
from bacpipe.dashboard.widgets.notice import Notice

_TITLES = {view.title: view.key for view in VIEWS}


class _Choice(param.Parameterized):
    """Which tab is open."""

    view: Any = param.Selector(objects=[view.key for view in VIEWS], default=VIEWS[0].key)


class Page:
    """Page of one visitor.

    Parameters
    ----------
    data_set : DataSet
        What to show.

    Attributes
    ----------
    panel : panel object
        The page's content.
    """

    def __init__(self, data_set: DataSet) -> None:
        self.data_set = data_set
        self._places: dict[str, pn.Column] = {
            view.key: pn.Column(sizing_mode="stretch_both", visible=False) for view in VIEWS
        }
        self._choice = _Choice()
        keep_in_address(self._choice, {"view": "view"})
        tabs = pn.widgets.RadioButtonGroup.from_param(
            self._choice.param.view,
            options=_TITLES,
            button_type="primary",
            button_style="outline",
            css_classes=["bp-tabs"],
        )
        self._choice.param.watch(lambda _: self._open(), "view")
        self.panel = pn.Column(
            self._header(tabs),
            *self._places.values(),
            stylesheets=[CSS],
            sizing_mode="stretch_both",
        )
        self._open()

    def _header(self, tabs: Any) -> Any:
        name = html.escape(self.data_set.name)
        folder = html.escape(str(self.data_set.audio_dir))
        return pn.Row(
            pn.pane.HTML(
                f'<span class="bp-brand">bacpipe</span><span class="bp-name" title="{folder}">'
                f"{name}</span>",
                stylesheets=[CSS],
            ),
            pn.Spacer(sizing_mode="stretch_width"),
            tabs,
            css_classes=["bp-header"],
            stylesheets=[CSS],
            sizing_mode="stretch_width",
        )

    def _open(self) -> None:
        """Show the chosen view; build it first if nobody has looked at it yet."""
        for key, place in self._places.items():
            place.visible = key == self._choice.view
        place = self._places[self._choice.view]
        if not len(place):
            kind = next(view for view in VIEWS if view.key == self._choice.view)
            place.append(self._build(kind))

    def _build(self, kind: type[View]) -> Any:
        try:
            view = kind(self.data_set)
            controls, body = view.controls(), view.body()
            ignored = keep_in_address(view, view.in_address)
            if ignored:
                view.say(
                    f"Ignored in the address, because it is not possible: {', '.join(ignored)}."
                )
            view.opened()
        except Exception as error:  # one view that cannot be shown must not blank the page
            return Notice(sentence_of(error)).panel
        help_card = pn.Card(
            pn.pane.Markdown(view.help_text),
            title="What is this?",
            collapsed=True,
            css_classes=["bp-help"],
            stylesheets=[CSS],
            sizing_mode="stretch_width",
        )
        return pn.Row(
            pn.Column(
                controls,
                help_card,
                width=270,
                sizing_mode="stretch_height",
                css_classes=["bp-controls"],
                stylesheets=[CSS],
            ),
            pn.Column(view.notice.panel, body, sizing_mode="stretch_both"),
            sizing_mode="stretch_both",
        )
