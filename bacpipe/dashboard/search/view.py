"""Search: windows that sound like others, like a clip, like words, or like what was learnt."""

from __future__ import annotations

import html
import io
import json
import re
from collections.abc import Sequence
from datetime import date
from functools import partial
from pathlib import PurePosixPath
from typing import Any, ClassVar, NamedTuple

import numpy as np
import panel as pn
import param
from scipy.special import expit

from bacpipe.dashboard.background import SEARCHES, beside_the_loop
from bacpipe.dashboard.explore.filters import matching_recordings
from bacpipe.dashboard.search.clip_upload import Clip, ClipUpload, shown
from bacpipe.dashboard.search.request import Answer, Place, Request, answer, understands_words
from bacpipe.dashboard.shared.clips import channel_words
from bacpipe.dashboard.shared.export import MOST_CLIPS, as_clips
from bacpipe.dashboard.shared.gallery import Gallery
from bacpipe.dashboard.shared.hours import ALL_DAY, NO_HOURS, HoursOfDay, are_hours
from bacpipe.dashboard.shared.model_view import ModelView
from bacpipe.dashboard.shared.recognisers import recognisers_of
from bacpipe.dashboard.shared.results import DataSetResults, ModelResults
from bacpipe.dashboard.shared.widgets import Spinner, TickBox, csv_of, heading, html_pane, select
from bacpipe.dashboard.shared.window_details import WindowDetails
from bacpipe.dashboard.style import CSS
from bacpipe.errors import BacpipeError, SettingsError, counted
from bacpipe.labels.people import current_labels
from bacpipe.store.whereabouts import Whereabouts

_BY = {
    "windows": "windows",
    "a clip of mine": "clip",
    "words": "words",
    "a recogniser": "recogniser",
}
_COUNTS = (12, 24, 60, 120, 300)
_MOST_OFFERED = 10_000  # names of classes

_NAMES = """
label { display: flex; align-items: flex-start; gap: 4px; }
label input { flex: none; }
label span { white-space: normal; overflow-wrap: anywhere; min-width: 0; }
"""
_HELP = """
You have one sound and want the others: a search compares it with **every window** that the model
has embedded. Nothing is trained for it.

1. **Search with** a window of your recordings (type its name and second, or click on a point in
   *Explore* and then on *Search with this window*), a clip of your own, words (models that
   understand them), or a recogniser from *Teach*.
2. **Listen** to what was found: click on a picture. The number is the similarity, at most 1; for
   a recogniser it is its logit, and above 0 means yes.
3. **More like these**: select good ones and click *More like these*; select false ones and click
   *Less like these*. A few of both help more than one perfect example.
4. **Mark** the selected windows with a label. Labels are stored at once, as those of *Teach*,
   *Review* and `bacpipe label` are.

**Show only** leaves out other sites, days, hours, or classes of the model's own classifier. The
downloads hold all windows that were found.
"""


class _Offer(NamedTuple):
    """What can be chosen for a model."""

    results: ModelResults
    recognisers: dict[str, tuple[str, str]]
    sites: list[str]
    classes: list[str]
    labels: list[str]


class SearchView(ModelView):
    """Query, filters, and a gallery of what was found."""

    key: ClassVar[str] = "search"
    title: ClassVar[str] = "Search"
    help_text: ClassVar[str] = _HELP
    in_address: ClassVar[dict[str, str]] = {
        "by": "search_by",
        **{
            name: name
            for name in ("model", "like", "unlike", "words", "recogniser", "sites", "first_day",
                         "last_day", "hours", "label", "score", "elsewhere", "gap", "count")
        },
    }  # fmt: skip

    by: Any = param.Selector(default="windows", objects=list(_BY.values()))
    like: Any = param.List(default=[])
    unlike: Any = param.List(default=[])
    words: Any = param.String(default="")
    sites: Any = param.List(default=[], item_type=str)
    first_day: Any = param.String(default="")
    last_day: Any = param.String(default="")
    hours: Any = param.NumericTuple(default=ALL_DAY, length=2)
    label: Any = param.String(default="")
    score: Any = param.Number(default=0.0, bounds=(0, 1))
    elsewhere: Any = param.Boolean(default=False)
    gap: Any = param.Number(default=0.0, bounds=(0, 3600))
    count: Any = param.Selector(default=60, objects=list(_COUNTS))

    def __init__(self, data_set: DataSetResults, **values: Any) -> None:
        super().__init__(data_set, **values)
        self._offer: _Offer | None = None
        self._answer: Answer | None = None
        self._clip: Clip | None = None
        self._more = pn.widgets.Button(
            label="More like these", description="search with the selected windows, too",
            margin=(2, 3), height=32,
        )  # fmt: skip
        self._less = pn.widgets.Button(
            label="Less like these", description="search away from the selected windows",
            margin=(2, 3), height=32,
        )  # fmt: skip
        self._more.on_click(lambda _: self._add("like"))
        self._less.on_click(lambda _: self._add("unlike"))
        self.details = WindowDetails(
            data_set, self.background, height=200, settings=self.spectrograms
        )
        self._spinner = Spinner()
        self._title = html_pane("", "bp-window-title")
        self._make_widgets()

    # ------------------------------------------------------------------ layout

    def _make_widgets(self) -> None:
        wide: dict[str, Any] = {"sizing_mode": "stretch_width", "margin": (2, 10)}
        parameters = self.param
        self._by = pn.widgets.RadioBoxGroup.from_param(
            parameters.by, options=_BY, label="Search with", margin=(2, 10)
        )
        self._recording = pn.widgets.TextInput(
            label="Recording", placeholder="part of its name", **wide
        )
        self._second = pn.widgets.FloatInput(label="Second", value=0.0, start=0.0, width=90,
                                             margin=(2, 10))  # fmt: skip
        add = pn.widgets.Button(label="Search with this window", color="primary", **wide)
        add.on_click(lambda _: self._add_typed())
        self._like, self._unlike = (
            pn.widgets.CheckBoxGroup(
                options={}, margin=(0, 10), sizing_mode="stretch_width", stylesheets=[_NAMES]
            )
            for _ in range(2)
        )
        for name, widget in (("like", self._like), ("unlike", self._unlike)):
            widget.param.watch(lambda event, name=name: self._drop(name, event.new), "value")
        self._unlike_title = heading("Unlike", margin=(4, 10))
        self._words = pn.widgets.TextInput.from_param(
            parameters.words, label="Words", placeholder="the song of a robin", **wide
        )
        self._no_words = html_pane("", "bp-note")
        upload = ClipUpload(
            self.data_set.options.audio_suffixes, self._take_clip, self.say,
            sizing_mode="stretch_width", margin=(4, 8),
        )  # fmt: skip
        self._uploaded = html_pane("", "bp-note")
        self._parts = {
            "windows": pn.Column(
                self._like, self._unlike_title, self._unlike, self._recording, self._second, add,
                sizing_mode="stretch_width",
            ),
            "clip": pn.Column(upload, self._uploaded, sizing_mode="stretch_width"),
            "words": pn.Column(self._words, self._no_words, sizing_mode="stretch_width"),
            "recogniser": pn.Column(self._recogniser, sizing_mode="stretch_width"),
        }  # fmt: skip
        self._make_filters(wide)
        self._downloads = [
            self._download("CSV", "csv", self._csv),
            self._download("clips", "clips.zip", self._zip),
        ]

    def _make_filters(self, wide: dict[str, Any]) -> None:
        parameters = self.param
        self._sites = pn.widgets.MultiSelect(
            label="Sites (none chosen: all)", options=[], size=4, **wide
        )
        self._sites.param.watch(lambda event: self._filter(sites=list(event.new)), "value")
        self._first_day, self._last_day = (
            pn.widgets.TextInput.from_param(
                parameter, label=label, placeholder="2025-05-01", width=104, margin=(2, 10)
            )
            for parameter, label in (
                (parameters.first_day, "From day"),
                (parameters.last_day, "to day"),
            )
        )
        self._hours = HoursOfDay(step=1)
        self._hours.param.watch(lambda event: self._filter(hours=event.new), "value")
        self._label = pn.widgets.AutocompleteInput(
            label="Class of the classifier", options=[], restrict=False, min_characters=2,
            case_sensitive=False, search_strategy="includes", placeholder="any", **wide,
        )  # fmt: skip
        self._label.param.watch(lambda event: self._filter(label=event.new or ""), "value")
        self._score = pn.widgets.FloatInput.from_param(
            parameters.score, label="with a score of at least", step=0.05, start=0, end=1, **wide
        )
        self._elsewhere = TickBox.of(self, "elsewhere", "other recordings only", margin=(4, 10))
        self._gap = pn.widgets.FloatInput.from_param(
            parameters.gap, label="Seconds between results", step=1, start=0, end=3600, **wide
        )
        self._count_widget = select(parameters.count, "Windows")

    def _download(self, title: str, ending: str, make: Any) -> Any:
        button = pn.widgets.FileDownload(
            callback=make, filename=f"found.{ending}", label=f"Download {title}", color="default",
            disabled=True, height=32, width=112, margin=(2, 5),
        )  # fmt: skip
        return button

    def controls(self) -> Any:
        return pn.Column(
            self._model,
            heading("Search with", margin=(4, 10)),
            self._by,
            *self._parts.values(),
            heading("Show only", margin=(8, 10)),
            self._sites,
            pn.Row(self._first_day, self._last_day, margin=0),
            self._hours,
            self._label,
            self._score,
            self._elsewhere,
            self._gap,
            self._count_widget,
            pn.Row(*self._downloads, margin=(6, 0)),
            sizing_mode="stretch_width",
        )

    def body(self) -> Any:
        self.gallery = Gallery(self, actions=(self._more, self._less), on_near=self._show_near)
        close = pn.widgets.Button(label="✕ close", color="light", height=28, margin=(2, 10))
        close.on_click(lambda _: self._near.param.update(visible=False))
        self._near: Any = pn.Column(
            close, self.details.panel, visible=False, min_width=320, css_classes=["bp-near"],
            styles={"flex": "1 1 340px"},
        )  # fmt: skip
        return pn.FlexBox(
            self._near,
            pn.Column(
                self._spinner.panel, self._title, self.gallery.panel, min_height=300,
                styles={"flex": "3 1 420px", "min-width": "300px", "position": "relative"},
            ),
            flex_direction="row-reverse",  # at the right, and on narrow screens on top
            align_items="start",
            sizing_mode="stretch_width",
            stylesheets=[CSS],
        )  # fmt: skip

    # ------------------------------------------------------------------ what is offered

    def opened(self) -> None:
        self.like, self.unlike = _places(self.like), _places(self.unlike)
        self._greeting = self.notice.sentence
        if not are_hours(self.hours):
            self._greeting += f" {NO_HOURS}"
            self.hours = ALL_DAY
        super().opened()
        self.param.watch(lambda *_: self._search(), list(self.in_address))
        self._read_offer()

    def _read_offer(self) -> None:
        model = self.model

        def read() -> _Offer:
            results = self.data_set.model(model)
            return _offer_of(results)

        self.background.run("offer", read, self._take_offer, fail=self.say, busy=self._spinner)

    def _take_offer(self, offer: _Offer) -> None:
        self._offer = offer
        with self._own:
            self.recogniser = self._offer_recognisers([*offer.recognisers], self.recogniser)
            known = [site for site in self.sites if site in offer.sites]
            self._sites.param.update(options=offer.sites, value=known)
            self._label.options = offer.classes[:_MOST_OFFERED]
            self._label.value = self.label
            for widget in (self._label, self._score):
                widget.disabled = not offer.classes
            self._hours.value = self.hours
            able = understands_words(self.model)
            self._words.disabled = not able
            self._no_words.object = (
                ""
                if able
                else html.escape(f"{self.model} does not understand words; biolingual and clap do.")
            )
        self._show_examples()
        self._search()

    def _change_model(self, model: str) -> None:
        self._offer = None  # nothing is searched for until it is known what there is
        self.background.cancel("search")
        self.param.update(model=model, label="", score=0.0, recogniser="")
        self._read_offer()

    def _filter(self, **values: Any) -> None:
        if not self._own:
            self.param.update(**values)

    # ------------------------------------------------------------------ examples

    def _show_examples(self) -> None:
        with self._own:
            for widget, places in ((self._like, self.like), (self._unlike, self.unlike)):
                options = {_listed(place): json.dumps(place) for place in places}
                widget.param.update(options=options, value=list(options.values()))
            self._unlike_title.visible = bool(self.unlike)

    def _drop(self, name: str, kept: Sequence[str]) -> None:
        if self._own:
            return
        places = [place for place in getattr(self, name) if json.dumps(place) in kept]
        self.param.update(**{name: places})
        self._show_examples()

    def _add(self, name: str) -> None:
        """Take the windows that are selected in the gallery as examples."""
        chosen = self.gallery.chosen
        if not chosen:
            self.say("First select windows: tick the boxes below their pictures.")
            return
        other = "unlike" if name == "like" else "like"
        rest = [place for place in getattr(self, other) if place not in chosen]
        more = [*getattr(self, name), *(p for p in chosen if p not in getattr(self, name))]
        self.param.update(**{name: more, other: rest, "by": "windows"})
        self._show_examples()

    def _add_typed(self) -> None:
        if self._offer is None:
            return
        results, text = self._offer.results, self._recording.value.strip()
        numbers = matching_recordings(results, text)
        names = [results.recordings[i] for i in numbers]
        if text in names:
            names = [text]
        if not text or len(names) != 1:
            self.say(
                f"{counted(len(names), 'recording')} of {results.name} "
                f"{'has' if len(names) == 1 else 'have'} {text!r} in the name; expected a part "
                f"that only one has" + (f", such as {names[0]}." if names else ".")
            )
            return
        try:
            row = results.row_at(names[0], float(self._second.value or 0.0))
        except BacpipeError as error:
            self.say(str(error))
            return
        place = results.place(row)
        self.param.update(like=[*(p for p in self.like if p != place), place])
        self._show_examples()

    def _take_clip(self, clip: Clip) -> None:
        self._clip = clip
        self._uploaded.object = shown(clip)
        self._search()

    # ------------------------------------------------------------------ searching

    @property
    def _request(self) -> Request:
        pairs = {} if self._offer is None else self._offer.recognisers
        return Request(
            model=self.model,
            by=self.by,
            like=tuple(tuple(place) for place in _places(self.like)),
            unlike=tuple(tuple(place) for place in _places(self.unlike)),
            clip=self._clip,
            words=self.words,
            recogniser=pairs.get(self.recogniser),
            where=self._where(),
            elsewhere=self.elsewhere,
            gap=float(self.gap),
            most=int(self.count),
        )

    def _where(self) -> dict[str, object]:
        where: dict[str, object] = {}
        if self.sites:
            where["site"] = list(self.sites)
        days = [_day(text, label) for text, label in
                ((self.first_day, "From day"), (self.last_day, "to day"))]  # fmt: skip
        if any(days):
            where["date"] = (days[0], days[1])
        if tuple(self.hours) != ALL_DAY:
            # Whole hours are read from the start of a recording alone, where it lies within one.
            whole = all(float(hour).is_integer() for hour in self.hours)
            where["hour"] = tuple(int(hour) if whole else float(hour) for hour in self.hours)
        if self.label:
            where["label"] = self.label
        if self.score > 0:
            where["score"] = (float(self.score), None)
        return where

    def _search(self) -> None:
        for by, part in self._parts.items():
            part.visible = by == self.by
        if self._own or self._offer is None:
            return
        self.background.cancel("search")  # of what was asked for before
        try:
            request = self._request
        except SettingsError as error:
            self._fail(str(error))
            return
        if lacks := request.lacks:
            self._show_lacking(lacks)
            return
        self.background.run(
            "search",
            lambda: answer(self.data_set, request),
            self._show,
            fail=self._fail,
            busy=self._spinner,
            on=SEARCHES,
        )

    def _show_lacking(self, sentence: str) -> None:
        self._answer = None
        self.say(self._greeting)
        self.gallery.clear()
        self._title.object = f'<div class="bp-note">{html.escape(sentence)}</div>'
        self._enable_downloads()

    def _show(self, latest: Answer) -> None:
        self._answer = latest
        self.say(self._greeting)
        count = len(latest.table)
        what = _described(latest.request)
        self._title.object = (
            f"<b>{html.escape(counted(count, 'window'))}</b> {html.escape(what)}"
            if count
            else html.escape("No window fulfils all of what is asked at the left.")
        )
        request, offer = latest.request, self._offer
        label = request.recogniser[1] if request.by == "recogniser" and request.recogniser else ""
        known = [] if offer is None else [*offer.labels, *offer.classes[:_MOST_OFFERED]]
        table = latest.table
        if label and request.recogniser is not None:
            # What is to be marked is what the recogniser says, not the classifier's best class.
            score = expit(table["similarity"].to_numpy())  # of its logit
            table = table.assign(label=label, score=score, model=request.recogniser[0])
        self.gallery.show(
            latest.results, table, chosen_by=f"search by {request.by}", label=label,
            known=known, title=_described(request),
        )  # fmt: skip
        self._enable_downloads()

    def _fail(self, sentence: str) -> None:
        self._answer = None
        self.say(sentence)
        self.gallery.clear()
        self._title.object = ""
        self._enable_downloads()

    def _show_near(self, row: int) -> None:
        if self._answer is not None:
            self._near.visible = True
            self.details.show(self._answer.results, row)

    # ------------------------------------------------------------------ downloads

    def _enable_downloads(self) -> None:
        latest = self._answer
        stem = "found"
        if latest is not None:
            stem = re.sub(r"[^\w.-]+", "_", f"{self.data_set.name}_{latest.results.name}_found")
        for button, ending in zip(self._downloads, ("csv", "clips.zip"), strict=True):
            button.param.update(
                filename=f"{stem}.{ending}", disabled=latest is None or latest.table.empty
            )

    def _csv(self) -> io.BytesIO:
        assert self._answer is not None
        return io.BytesIO(csv_of(self._answer.table))

    async def _zip(self) -> io.BytesIO:
        assert self._answer is not None
        results, table = self._answer.results, self._answer.table[:MOST_CLIPS]
        rows = np.array([row for row in results.rows_of_table(table) if row is not None])
        made = await beside_the_loop(partial(as_clips, results, rows, None))
        if made.remark:
            self.say(made.remark)
        return io.BytesIO(made.content)


def _offer_of(results: ModelResults) -> _Offer:
    recognisers = {
        name if len(recogniser.classes) == 1 else f"{name}: {label}": (name, label)
        for name, recogniser in recognisers_of(results).items()
        for label in recogniser.classes
    }
    where = Whereabouts(results.loader)
    sites = sorted({where.of(name).site for name in results.recordings})
    has_classifier = any(entry.predictions for entry in results.loader.entries.values())
    classes = sorted(results.loader.classes.names) if has_classifier else []
    labels = sorted(set(current_labels(results.loader)["label"]))
    return _Offer(results, recognisers, sites, classes, labels)


def _places(given: Sequence[Any]) -> list[list[Any]]:
    """Windows of the address, as far as they can be."""
    return [
        [item[0], float(item[1]), *(int(channel) for channel in item[2:])]
        for item in given
        if isinstance(item, list | tuple)
        and len(item) in (2, 3)
        and isinstance(item[0], str)
        and all(isinstance(number, int | float) for number in item[1:])
    ]


def _listed(place: Sequence[Any]) -> str:
    return f"{place[0]} · {_moment(place)}"


def _moment(place: Sequence[Any]) -> str:
    """Second of a window, and its channel if each was heard by itself."""
    channel = channel_words(*place[2:3]) if len(place) > 2 else ""
    return " · ".join(filter(None, [f"{float(place[1]):.1f} s", channel]))


def _short(place: Sequence[Any]) -> str:
    return f"{PurePosixPath(str(place[0])).name} · {_moment(place)}"


def _day(text: str, label: str) -> str | None:
    if not text.strip():
        return None
    try:
        return date.fromisoformat(text.strip()).isoformat()
    except ValueError:
        raise SettingsError(f"{label}: {text!r} is no day; expected one as 2025-05-04.") from None


def _described(request: Request) -> str:
    if request.by == "clip" and request.clip is not None:
        return f"most like {request.clip.name}"
    if request.by == "words":
        return f"most like “{request.words.strip()}”"
    if request.by == "recogniser" and request.recogniser is not None:
        return f"of which {request.recogniser[0]} is most sure: {request.recogniser[1]}"
    like: Sequence[Place] = request.like
    text = f"most like {_short(like[0])}" if len(like) == 1 else f"most like {len(like)} examples"
    return f"{text}, unlike {len(request.unlike)}" if request.unlike else text
