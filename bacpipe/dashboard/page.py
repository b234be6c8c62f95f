"""The page that a visitor sees: a tab for every view, each built when it is opened."""

from __future__ import annotations

import html
import json
import logging
import warnings
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlencode

import panel as pn
import param
from bokeh.models import CustomJS
from bokeh.util.warnings import BokehUserWarning

from bacpipe.dashboard.all_models.view import AllModelsView
from bacpipe.dashboard.background import page_document, sentence_of
from bacpipe.dashboard.compare.view import CompareView
from bacpipe.dashboard.explore.view import ExploreView
from bacpipe.dashboard.places.view import PlacesView
from bacpipe.dashboard.predictions.view import PredictionsView
from bacpipe.dashboard.recordings.view import RecordingsView
from bacpipe.dashboard.review.view import ReviewView
from bacpipe.dashboard.search.view import SearchView
from bacpipe.dashboard.shared.drawn import Drawn
from bacpipe.dashboard.shared.results import DataSetResults, is_local
from bacpipe.dashboard.shared.to_review import ClipsToReview
from bacpipe.dashboard.shared.view import View, Visitor
from bacpipe.dashboard.shared.widgets import Notice, html_pane
from bacpipe.dashboard.style import CSS, is_dark
from bacpipe.dashboard.teach.view import TeachView
from bacpipe.store.lock import user_name

logger = logging.getLogger(__name__)

# In the order of their tabs.
VIEWS: tuple[type[View], ...] = (
    ExploreView,
    SearchView,
    ReviewView,
    TeachView,
    CompareView,
    AllModelsView,
    PredictionsView,
    PlacesView,
    RecordingsView,
)
# Panel writes every change of the address as a step of the history, and does not follow it back.
_HISTORY = """
const push = window.history.pushState.bind(window.history);
window.history.pushState = (state, title, url) => {
  const view = (search) => new URLSearchParams(search).get("view");
  const other = view(new URL(url, window.location.href).search) !== view(window.location.search);
  (other ? push : window.history.replaceState.bind(window.history))(state, title, url);
};
window.addEventListener("popstate", () => window.location.reload());
"""
# Bokeh's sliders and spinners have no names for screen readers, and come and go with the views.
_NAMES = """
const name_handles = (root) => {
  for (const part of root.querySelectorAll("*")) if (part.shadowRoot) name_handles(part.shadowRoot);
  for (const handle of root.querySelectorAll(".noUi-handle:not([aria-label])")) {
    const title = root.querySelector(".bk-slider-title")?.textContent ?? "";
    handle.setAttribute("aria-label", title.split(":")[0].trim() || "value");
  }
  for (const button of root.querySelectorAll(".bk-spin-btn:not([aria-label])")) {
    button.setAttribute("aria-label", /up/.test(button.className) ? "more" : "less");
  }
};
name_handles(document);
setInterval(() => name_handles(document), 1000);
"""
_TITLES = {view.title: view.key for view in VIEWS}


class _Choice(param.Parameterized):
    """Which tab is open."""

    view: Any = param.Selector(objects=[view.key for view in VIEWS], default=VIEWS[0].key)


class Page:
    """Page of one visitor; its `panel` is the content."""

    def __init__(self, data_set: DataSetResults) -> None:
        # Browsers name what the server has just sent in full instead of by its number (Bokeh 3.9,
        # 3.10); it is taken for what it is.
        warnings.filterwarnings("ignore", "reference already known", BokehUserWarning)
        self.data_set = data_set
        self._visitor = Visitor()
        self._visitor.rename(annotator_here(data_set))
        self._views: dict[str, View] = {}
        self._places: dict[str, pn.Column] = {
            view.key: pn.Column(sizing_mode="stretch_both", visible=False) for view in VIEWS
        }
        self._choice = _Choice()
        self._address = Address()
        self._address.keep(self._choice, {"view": "view"})
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
            css_classes=["bp-page"],
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
                f'<h1 class="bp-brand">bacpipe</h1><span class="bp-name" title="{folder}">'
                f"{name}</span>",
            ),
            tabs,
            _theme_button(),
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
        if (view := self._views.get(self._choice.view)) is not None:
            self._address.shown = (view, view.spectrograms)
        self._address.write()

    def _review(self, clips: ClipsToReview) -> None:
        """Open the Review tab with the windows that another view sends."""
        self._choice.view = ReviewView.key
        view = self._views.get(ReviewView.key)
        if isinstance(view, ReviewView):
            view.take(clips)

    def _build(self, kind: type[View]) -> Any:
        try:
            view = kind(self.data_set)
            view.put_on_page(self._visitor, self._review)
            controls, body = view.controls(), view.body()
            ignored = self._address.keep(view, view.in_address)
            ignored += self._address.keep(view.spectrograms, view.spectrograms.in_address)
            if ignored:
                view.say(
                    f"Ignored in the address, because it is not possible: {', '.join(ignored)}."
                )
            drawn = Drawn(lambda: self._fill(view))
            self._views[kind.key] = view
        except Exception as error:  # one view that cannot be shown must not blank the page
            return Notice(sentence_of(error)).panel
        controls.css_classes = [*controls.css_classes, "bp-choices"]
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
            pn.Column(
                view.notice.panel, body, drawn, css_classes=["bp-body"], stylesheets=[CSS],
                sizing_mode="stretch_both",
            ),
            css_classes=["bp-view"],
            stylesheets=[CSS],
            sizing_mode="stretch_both",
        )  # fmt: skip

    @staticmethod
    def _fill(view: View) -> None:
        try:
            view.opened()
        except Exception as error:  # one view that cannot be shown must not blank the page
            view.say(sentence_of(error))


def _theme_button() -> Any:
    """Button for the dark theme, or back to the light one."""
    other = "default" if is_dark() else "dark"
    button = pn.widgets.Button(
        label="Light" if is_dark() else "Dark", description="light or dark colours", width=64,
        color="light", margin=(5, 10),
    )  # fmt: skip
    button.js_on_click(
        code="const url = new URL(window.location.href); url.searchParams.set('theme', other);"
        " window.location.href = url;",
        args={"other": other},
    )
    return button


def annotator_here(data_set: DataSetResults) -> str:
    """Name of the user of this computer where nobody else can be the visitor; empty elsewhere."""
    return user_name() if is_local(data_set.options.dashboard_address) else ""


class Address:
    """Keeps parameters of several objects in the page's address.

    What is shown can be sent to others whole: only values that every dashboard has by default are
    left out, not those that depend on the results.  Another tab is a step in the history of the
    browser, and *Back* returns to the one before as it was; other changes are no steps.

    Attributes
    ----------
    shown : tuple of param.Parameterized
        What the open tab shows: of a key that several tabs have, its value counts.
    """

    def __init__(self) -> None:
        self._location = pn.state.location
        self._kept: list[tuple[param.Parameterized, Mapping[str, str]]] = []
        self.shown: tuple[param.Parameterized, ...] = ()
        document = page_document()
        if self._location is not None and document is not None:
            document.js_on_event("document_ready", CustomJS(code=_HISTORY))
            document.js_on_event("document_ready", CustomJS(code=_NAMES))

    def keep(self, state: param.Parameterized, keys: Mapping[str, str]) -> list[str]:
        """Read parameters from the address, and write them there when they change.

        `keys` gives the key in the address by name of the parameter.  Values that are impossible,
        as anybody can type them, are ignored; their keys are returned.
        """
        if self._location is None:
            return []
        given = self._query()
        ignored = [
            key for name, key in keys.items() if key in given and not _take(state, name, given[key])
        ]
        self._kept.append((state, keys))
        state.param.watch(lambda *_: self.write(), list(keys))
        return ignored

    def write(self) -> None:
        """Write all that is kept."""
        if self._location is None:
            return
        query = self._query()
        for state, keys in sorted(
            self._kept, key=lambda kept: any(kept[0] is part for part in self.shown)
        ):
            for name, key in keys.items():
                value = getattr(state, name)
                if value is None or value == type(state).param[name].default:
                    query.pop(key, None)
                else:
                    query[key] = value if isinstance(value, str) else json.dumps(value)
        self._location.search = f"?{urlencode(query)}" if query else ""

    def _query(self) -> dict[str, str]:
        search = (self._location.search or "").lstrip("?")
        return {key: values[0] for key, values in parse_qs(search).items()}


def _take(state: param.Parameterized, name: str, text: str) -> bool:
    """Set a parameter to a value of the address; False if that is impossible."""
    value: Any = text
    kept = state.param[name]
    # Selectors have texts or numbers to choose from.
    as_text = text in kept.objects if isinstance(kept, param.Selector) else False
    if not (as_text or isinstance(kept, param.String)):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            logger.info("ignored %s=%r in the address", name, text)
            return False
        if isinstance(value, list) and isinstance(kept, param.Tuple):
            value = tuple(value)
    try:
        setattr(state, name, value)
    except (ValueError, TypeError) as error:
        logger.info("ignored %s=%r in the address: %s", name, text, error)
        return False
    return True
