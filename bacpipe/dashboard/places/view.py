"""Places: where and when species were found."""

from __future__ import annotations

import html
import io
import re
from typing import TYPE_CHECKING, Any, ClassVar

import panel as pn
import param

from bacpipe.dashboard.places.figures import Drawing, activity_drawing, site_map
from bacpipe.dashboard.places.surveyed_sites import (
    CLASSIFIER,
    SurveyedSites,
    has_found,
    read_activity,
    read_surveyed_sites,
    sources,
)
from bacpipe.dashboard.shared.own_changes import OwnChanges
from bacpipe.dashboard.shared.results import DataSetResults
from bacpipe.dashboard.shared.view import ViewOfParts
from bacpipe.dashboard.shared.widgets import (
    Spinner,
    download_button,
    hint,
    note,
    table_widget,
)
from bacpipe.errors import counted
from bacpipe.labels.activity import BY

if TYPE_CHECKING:
    import pandas as pd

_PARTS = {"Map": "map", "Species by site": "table", "Activity": "activity"}
_MEASURES = {
    "detections": "detections",
    "detections per hour": "per_hour",
    "windows": "windows",
    "best score": "best_score",
}
_EVERYTHING = "all species"
_MOST_OFFERED = 2_000

_HELP = """
**Where** and **when** was what found? Everything here counts detections of one model at or above
the lowest score that you choose; listen to some in *Predictions* or *Review* before you trust the
numbers.

**Map**: a circle for every site, the larger the more detections of the chosen species; an empty
circle is a site at which somebody listened and found nothing. Positions come from the table of
sites (`sites.csv`), the settings, or the recorders.

**Species by site**: detections (neighbouring windows count once), per hour listened, windows, or
the best score. Zero means listened and not found.

**Activity**: hours of the day, or hours from sunrise or sunset, by days or weeks. Blank: nothing
was recorded; grey: recorded, but nothing found.
"""


class PlacesView(ViewOfParts):
    """Map of sites, species by site, and activity."""

    key: ClassVar[str] = "places"
    title: ClassVar[str] = "Places"
    help_text: ClassVar[str] = _HELP
    parts: ClassVar[dict[str, str]] = _PARTS
    in_address: ClassVar[dict[str, str]] = {
        "part": "places",
        **{name: name for name in ("model", "source", "species", "min_score", "measure", "by")},
    }

    part = param.Selector(objects=list(_PARTS.values()), default="map")
    model: Any = param.Selector(default="", objects=[""])
    source: Any = param.String(default="")
    species: Any = param.String(default="")
    min_score: Any = param.Number(default=0.5, bounds=(0, 1))
    measure: Any = param.Selector(default="detections", objects=list(_MEASURES.values()))
    by: Any = param.Selector(default="hour_day", objects=list(BY))

    def __init__(self, data_set: DataSetResults, **values: Any) -> None:
        super().__init__(data_set, **values)
        self.param.model.objects = ["", *data_set.models]
        self._surveyed: SurveyedSites | None = None
        self._own = OwnChanges()
        self._spinner = Spinner()
        wide: dict[str, Any] = {"sizing_mode": "stretch_width", "margin": (2, 10)}
        parameters = self.param
        self._model = pn.widgets.Select(label="Model", options=list(data_set.models), **wide)
        self._source = pn.widgets.Select(label="Found by", options={}, **wide)
        self._species = pn.widgets.Select(label="Species", options={_EVERYTHING: ""}, **wide)
        for name in ("model", "source", "species"):
            widget = getattr(self, f"_{name}")
            widget.param.watch(lambda event, name=name: self._chosen(name, event.new), "value")
        self._score = pn.widgets.FloatSlider(
            label="Lowest score", start=0, end=1, step=0.05, value=0.5,
            sizing_mode="stretch_width", margin=(2, 14),
        )  # fmt: skip
        self._score.param.watch(
            lambda event: self._chosen("min_score", float(event.new)), "value_throttled"
        )
        measure = pn.widgets.Select.from_param(
            parameters.measure, label="Measure", options=_MEASURES, description=None, **wide
        )
        by = pn.widgets.Select.from_param(
            parameters.by, label="Heat map", options={title: key for key, title in BY.items()},
            description=None, **wide,
        )  # fmt: skip
        self._choices = {"table": [measure], "activity": [by]}

    def controls(self) -> Any:
        return pn.Column(
            self._model, self._source, self._species, self._score, super().controls(),
            sizing_mode="stretch_width",
        )  # fmt: skip

    def body(self) -> Any:
        return pn.Column(self._spinner.panel, self._content, sizing_mode="stretch_width",
                         min_height=400)  # fmt: skip

    # ------------------------------------------------------------------ what is read

    def opened(self) -> None:
        self._greeting = self.notice.sentence
        if not self.model:
            available = self.data_set.available
            able = (name for name in available if sources(self.data_set.model(name)))
            self.model = next(able, next(iter(available), ""))
        self._score.value = self.min_score
        self.param.watch(lambda *_: self._read(), ["model", "source", "min_score"])
        self.param.watch(lambda *_: self._show(), ["part", "species", "measure", "by"])
        self._offer_choices()
        self._read()

    def _chosen(self, name: str, value: Any) -> None:
        if self._own or value is None:
            return
        other = {"source": "", "species": ""} if name == "model" else {}
        self.param.update(**{name: value, **other})

    def _read(self) -> None:
        if self._own:
            return
        model, source, score, species = self.model, self.source, self.min_score, self.species

        def read() -> tuple[SurveyedSites, dict[str, str], str, str]:
            results = self.data_set.model(model)
            known = sources(results)
            chosen = source if source in known else next(iter(known), CLASSIFIER)
            surveyed = read_surveyed_sites(results, chosen, score)
            # What was chosen stays chosen where the score is so high that nothing is left of it.
            there = species in surveyed.species or has_found(results, chosen, species)
            return surveyed, known, chosen, "" if there else species

        self.background.run(
            "places", read, lambda answer: self._take(*answer), fail=self._fail,
            busy=self._spinner,
        )  # fmt: skip

    def _take(
        self, surveyed: SurveyedSites, known: dict[str, str], source: str, unknown: str
    ) -> None:
        self._surveyed = surveyed
        with self._own:
            self._model.value = self.model
            titles = {title: key for key, title in known.items()}
            self._source.param.update(options=titles, value=source if known else None)
            found = surveyed.species
            options = {_EVERYTHING: "", **{name: name for name in found[:_MOST_OFFERED]}}
            species = "" if self.species == unknown else self.species
            if species not in options.values():
                options[species if species in found else f"{species} (none)"] = species
            self._species.param.update(options=options, value=species)
            self.param.update(source=source if known else "", species=species)
        self.say(" ".join(text for text in (self._greeting, surveyed.problem) if text))
        self._show()

    def _fail(self, sentence: str) -> None:
        self.background.cancel("activity")
        self._surveyed = None
        self.say(sentence)
        self._content.objects = []

    def _show(self) -> None:
        if self._own:
            return
        self._offer_choices()
        if self._surveyed is None:
            return
        self.background.cancel("activity")  # of what was chosen before
        if self.part == "map":
            self._map(self._surveyed)
        elif not self._surveyed.species or self.species not in ("", *self._surveyed.species):
            what = f" of {self.species}" if self.species else ""
            sentence = f"Nothing{what} was found at or above this score."
            self._content.objects = [hint(html.escape(sentence))]
        elif self.part == "table":
            self._table(self._surveyed)
        else:
            self._activity(self._surveyed)

    # ------------------------------------------------------------------ parts

    def _map(self, surveyed: SurveyedSites) -> None:
        placed = [site for site in surveyed.sites if site.position is not None]
        parts: list[Any] = []
        if placed:
            rows = surveyed.survey
            if self.species:
                rows = rows[rows["common_name"] == self.species]
            values = {str(k): float(v) for k, v in rows.groupby("site")["detections"].sum().items()}
            what = f"detections of {self.species or _EVERYTHING}"
            parts.append(site_map(surveyed.sites, values, surveyed.hours(), what))
        missing = [site.name for site in surveyed.sites if site.position is None]
        if missing:
            text = (
                f"{counted(len(missing), 'site')} without a position: {', '.join(missing[:8])}"
                f"{', …' if len(missing) > 8 else ''}. Write a table of sites with "
                f"“bacpipe sites”, or set latitude and longitude."
            )
            parts.append(note(html.escape(text)) if placed else hint(html.escape(text)))
        self._content.objects = parts

    def _table(self, surveyed: SurveyedSites) -> None:
        table = self._measured(surveyed)
        if self.species:
            table = table[table.index == self.species]
        # Names of sites may be anything, and dots would mean something to the widget.
        columns = [f"site{i}" for i in range(len(table.columns))]
        shown = table.set_axis(columns, axis=1).reset_index(names="species")
        titles = dict(zip(columns, map(html.escape, map(str, table.columns)), strict=True))
        hours = surveyed.hours()
        listened = ", ".join(f"{site} {hours[site]:.2f} h" for site in map(str, table.columns[:12]))
        more = ", …" if len(table.columns) > 12 else ""
        count = f"{len(table):,} species at {counted(len(table.columns), 'site')}"
        self._content.objects = [
            note(html.escape(f"{count}. Listened: {listened}{more}.")),
            table_widget(
                shown, decimals=2, titles={"species": "species", **titles},
                page_size=20, text_align=dict.fromkeys(columns, "right"),
            ),
            download_button(
                table.reset_index(names="species"),
                f"{_file_name(self.data_set.name, surveyed.results.name, self.measure)}.csv",
            ),
        ]  # fmt: skip

    def _measured(self, surveyed: SurveyedSites) -> pd.DataFrame:
        if self.measure != "per_hour":
            return surveyed.by_site(self.measure)
        table = surveyed.by_site()
        hours = surveyed.hours()
        return table / [hours[str(site)] for site in table.columns]

    def _activity(self, surveyed: SurveyedSites) -> None:
        results, source, by = surveyed.results, self.source, self.by
        classes, score = ([self.species] if self.species else []), self.min_score
        most = max(1, self.data_set.options.activity_classes)

        def draw() -> Drawing:
            activity = read_activity(results, source, by, classes, score, most)
            return activity_drawing(activity, results.name)

        self.background.run(
            "activity", draw, self._show_activity, fail=self._say_no_activity, busy=self._spinner
        )

    def _show_activity(self, drawing: Drawing) -> None:
        stem = _file_name(self.data_set.name, self.model, self.species, self.by)
        svg = drawing.svg.decode()
        self._content.objects = [
            # The pane takes no declaration of XML before it.
            pn.pane.SVG(svg[svg.index("<svg") :], sizing_mode="stretch_width", max_width=1000,
                        alt_text="Heat maps of activity", margin=(5, 10)),
            pn.Row(
                *(
                    pn.widgets.FileDownload(
                        io.BytesIO(content), filename=f"{stem}.{ending}", color="default",
                        label=f"Download {ending.upper()}", height=32, width=130,
                    )
                    for ending, content in (("png", drawing.png), ("svg", drawing.svg))
                )
            ),
        ]  # fmt: skip

    def _say_no_activity(self, sentence: str) -> None:
        self._content.objects = [hint(html.escape(sentence))]


def _file_name(*parts: str) -> str:
    return "_".join(re.sub(r"[^\w.-]+", "_", part).strip("._") for part in parts if part)
