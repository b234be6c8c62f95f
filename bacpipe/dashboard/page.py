"""The page that a visitor sees: a tab for every view, each built when it is opened."""

from __future__ import annotations

import html
import json
import logging
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlencode

import panel as pn
import param

from bacpipe.dashboard.all_models.view import AllModelsView
from bacpipe.dashboard.background import sentence_of
from bacpipe.dashboard.compare.view import CompareView
from bacpipe.dashboard.explore.view import ExploreView
from bacpipe.dashboard.places.view import PlacesView
from bacpipe.dashboard.predictions.view import PredictionsView
from bacpipe.dashboard.recordings.view import RecordingsView
from bacpipe.dashboard.search.view import SearchView
from bacpipe.dashboard.shared.drawn import Drawn
from bacpipe.dashboard.shared.results import DataSetResults, is_local
from bacpipe.dashboard.shared.view import View, Visitor
from bacpipe.dashboard.shared.widgets import Notice, html_pane
from bacpipe.dashboard.style import CSS
from bacpipe.dashboard.teach.view import TeachView
from bacpipe.labels.people import user_name

logger = logging.getLogger(__name__)

# In the order of their tabs.
VIEWS: tuple[type[View], ...] = (
    ExploreView,
    SearchView,
    TeachView,
    CompareView,
    AllModelsView,
    PredictionsView,
    PlacesView,
    RecordingsView,
)
_TITLES = {view.title: view.key for view in VIEWS}


class _Choice(param.Parameterized):
    """Which tab is open."""

    view: Any = param.Selector(objects=[view.key for view in VIEWS], default=VIEWS[0].key)


class Page:
    """Page of one visitor; its `panel` is the content."""

    def __init__(self, data_set: DataSetResults) -> None:
        self.data_set = data_set
        self._visitor = Visitor(annotator=annotator_here(data_set))
        self._places: dict[str, pn.Column] = {
            view.key: pn.Column(sizing_mode="stretch_both", visible=False) for view in VIEWS
        }
        self._choice = _Choice()
        keep_in_address(self._choice, {"view": "view"})
        tabs = pn.widgets.RadioButtonGroup.from_param(
            self._choice.param.view,
            options=_TITLES,
            color="primary",
            variant="outline",
            css_classes=["bp-tabs"],
        )
        self._choice.param.watch(lambda _: self._open(), "view")
        self.panel = pn.Column(
            self._header(tabs),
            *self._places.values(),
            stylesheets=[CSS],
            sizing_mode="stretch_both",
        )
        # Whoever only fetches the page, without opening it in a browser, costs next to nothing.
        pn.state.onload(self._open)

    def _header(self, tabs: Any) -> Any:
        name = html.escape(self.data_set.name)
        folder = html.escape(str(self.data_set.audio_dir))
        return pn.Row(
            html_pane(
                f'<span class="bp-brand">bacpipe</span><span class="bp-name" title="{folder}">'
                f"{name}</span>",
                wide=False,
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
            view.put_on_page(self._visitor)
            controls, body = view.controls(), view.body()
            ignored = keep_in_address(view, view.in_address)
            if ignored:
                view.say(
                    f"Ignored in the address, because it is not possible: {', '.join(ignored)}."
                )
            drawn = Drawn(lambda: self._fill(view))
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
            pn.Column(view.notice.panel, body, drawn, sizing_mode="stretch_both"),
            sizing_mode="stretch_both",
        )

    @staticmethod
    def _fill(view: View) -> None:
        try:
            view.opened()
        except Exception as error:  # one view that cannot be shown must not blank the page
            view.say(sentence_of(error))


def annotator_here(data_set: DataSetResults) -> str:
    """Name of the user of this computer where nobody else can be the visitor; empty elsewhere."""
    return user_name() if is_local(data_set.options.dashboard_address) else ""


def keep_in_address(state: param.Parameterized, keys: Mapping[str, str]) -> list[str]:
    """Read parameters from the page's address, and write them there when they change.

    `keys` gives the key in the address by name of the parameter.  Values that are impossible,
    as anybody can type them, are ignored; their keys are returned.
    """
    location = pn.state.location
    if location is None:
        return []
    given = parse_qs((location.search or "").lstrip("?"))
    ignored = [
        key for name, key in keys.items() if key in given and not _take(state, name, given[key][0])
    ]
    defaults = {name: state.param[name].default for name in keys}

    def write(*_: Any) -> None:
        query = {k: v[0] for k, v in parse_qs((location.search or "").lstrip("?")).items()}
        for name, key in keys.items():
            value = getattr(state, name)
            if value == defaults[name] or value is None:
                query.pop(key, None)
            else:
                query[key] = value if isinstance(value, str) else json.dumps(value)
        location.search = f"?{urlencode(query)}" if query else ""

    state.param.watch(write, list(keys))
    return ignored


def _take(state: param.Parameterized, name: str, text: str) -> bool:
    """Set a parameter to a value of the address; False if that is impossible."""
    value: Any = text
    if not isinstance(state.param[name], param.String | param.Selector):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            logger.info("ignored %s=%r in the address", name, text)
            return False
        if isinstance(value, list) and isinstance(state.param[name], param.Tuple):
            value = tuple(value)
    try:
        setattr(state, name, value)
    except (ValueError, TypeError) as error:
        logger.info("ignored %s=%r in the address: %s", name, text, error)
        return False
    return True
