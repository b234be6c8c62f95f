"""Predictions: when and where a model found a species, and how certain it was."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np
import panel as pn
import param

from bacpipe.dashboard.predictions.detection_list import (
    DetectionList,
    detections_csv,
    detections_raven,
)
from bacpipe.dashboard.predictions.detections_by_class import (
    DetectionsByClass,
    read_detections,
    same_class,
    sources,
)
from bacpipe.dashboard.predictions.species import SpeciesList, SpeciesPanel
from bacpipe.dashboard.shared.gallery import Gallery
from bacpipe.dashboard.shared.results import DataSetResults
from bacpipe.dashboard.shared.view import View
from bacpipe.dashboard.shared.widgets import Spinner, TickBox
from bacpipe.dashboard.shared.window_details import WindowDetails
from bacpipe.dashboard.style import CSS
from bacpipe.errors import BacpipeError, ResultsNotFoundError
from bacpipe.evaluation.species_names import Match
from bacpipe.labels.activity import BY
from bacpipe.models.zoo import CARDS

_HELP = """
A **classifier** gives every window of sound a *score* between 0 and 1 for every species that it
knows. The higher the score, the more certain it is – but it is not a probability, and scores of
two models cannot be compared.

1. **Choose a species** from the list; the most frequent is on top.
2. **Move the threshold.** A high one leaves few detections, most of them right; a low one leaves
   many, some of them wrong. Listen to some near the threshold to find a good place for it.
3. **The histogram** shows how many detections have which score; what is left of the dashed line
   does not count.
4. **The heat map** shows when the species was found. Grey: somebody listened, but nothing was
   found. Blank: nothing was recorded then. Click on a cell to list its detections only.
   *Per recorded hour* is fairer when the recorder did not always run for equally long.
5. **Click on a detection** in the list to see and hear it; *Side by side* shows many, to hear and
   mark at once.

*Trained probe* is a small classifier that was trained on your annotations. It knows nothing but
the classes that you annotated, so it finds one of them in every window; choose a high threshold.

*Compare with* shows another model's detections of the same species. Species are matched by
their names.
"""


class _Loaded(NamedTuple):
    """Detections of a model, and what else could be shown."""

    detections: DetectionsByClass
    species: str
    sources: dict[str, str]
    others: dict[str, tuple[str, str]]


class PredictionsView(View):
    """Species, threshold, histogram, heat map and detections."""

    key: ClassVar[str] = "predictions"
    title: ClassVar[str] = "Predictions"
    help_text: ClassVar[str] = _HELP
    in_address: ClassVar[dict[str, str]] = {
        name: name
        for name in ("model", "source", "species", "threshold", "by", "per_hour", "other",
                     "other_threshold", "recording", "start", "channel")
    }  # fmt: skip

    model = param.Selector(objects=[])
    # Texts, because what is possible is only known when the model's results have been read.
    source = param.String(default="")
    species = param.String(default="")
    threshold = param.Number(default=None, bounds=(0, 1), allow_None=True)
    by = param.Selector(objects=list(BY), default="hour_day")
    per_hour = param.Boolean(default=False)
    other = param.String(default="")
    other_threshold = param.Number(default=None, bounds=(0, 1), allow_None=True)
    # The detection that is shown.
    recording = param.String(default="")
    start = param.Number(default=None, allow_None=True)
    channel = param.Integer(default=0)  # 0 where all became one

    def __init__(self, data_set: DataSetResults, **values: Any) -> None:
        super().__init__(data_set, **values)
        self._detections: DetectionsByClass | None = None
        self._others: dict[str, tuple[str, str]] = {}
        self._cell: tuple[int, int] | None = None
        self._listed = np.zeros(0, np.int64), np.zeros(0, np.float32)
        self._opened = False
        self._alone = self._make_side(0, wide=True)
        self._pair = (self._make_side(0, wide=False), self._make_side(1, wide=False))
        self.species_list = SpeciesList(lambda name: self.param.update(species=name))
        self.list = DetectionList(self._show_window)
        self.details = WindowDetails(
            data_set, self.background, height=180, settings=self.spectrograms
        )
        self._make_widgets()
        self._lay_out()
        models = data_set.available
        self.param.model.objects = models
        if not models:
            self._fail(" ".join(data_set.problems().values()))
            return
        self.model = next((name for name in models if self._sources_of(name)), models[0])
        self.param.watch(self._change_model, "model")
        self.param.watch(self._change_source, "source")
        self.param.watch(lambda _: self._show_species(), "species")
        self.param.watch(lambda *_: self._show_thresholds(), ["threshold", "other_threshold"])
        self.param.watch(lambda *_: self._draw_maps(), ["by", "per_hour"])
        self.param.watch(lambda _: self._load_other(), "other")

    @property
    def sides(self) -> tuple[SpeciesPanel, ...]:
        """The model alone, or both models."""
        return self._pair if self.other in self._others else (self._alone,)

    # ------------------------------------------------------------------ layout

    def _make_side(self, number: int, *, wide: bool) -> SpeciesPanel:
        name = ("threshold", "other_threshold")[number]
        return SpeciesPanel(
            lambda value: self.param.update({name: value}),
            lambda row, column: self._pick(number, row, column),
            wide=wide,
        )

    def _make_widgets(self) -> None:
        wide: dict[str, Any] = {"sizing_mode": "stretch_width", "margin": (2, 10)}
        self._model = pn.widgets.Select.from_param(self.param.model, label="Model", **wide)
        self._source = pn.widgets.Select(label="Predicted by", **wide)
        self._by = pn.widgets.Select.from_param(
            self.param.by, label="Heat map", options={title: key for key, title in BY.items()},
            **wide,
        )  # fmt: skip
        self._per_hour = TickBox.of(self, "per_hour", "per recorded hour", margin=(4, 10))
        self._other = pn.widgets.Select(label="Compare with", **wide)
        self._source.param.watch(lambda event: self.param.update(source=event.new or ""), "value")
        self._other.param.watch(lambda event: self.param.update(other=event.new or ""), "value")
        self._which = pn.widgets.RadioButtonGroup(
            options={"list of the left": 0, "of the right": 1}, value=0, visible=False,
            color="default", margin=(2, 10),
        )  # fmt: skip
        self._which.param.watch(lambda _: self._change_list(), "value")
        self._everything = pn.widgets.Button(label="", visible=False, color="light", margin=(2, 10))
        self._everything.on_click(lambda _: self._pick(self._which.value, None, None))
        self._side_by_side = pn.widgets.Button(
            label="Side by side", description="see, hear and mark the listed detections",
            margin=(2, 10),
        )  # fmt: skip
        self._side_by_side.on_click(lambda _: self._show_gallery())
        self._downloads = [
            self._download("CSV", "csv", detections_csv),
            self._download("Raven", "selection.table.txt", detections_raven),
        ]

    def _download(
        self, title: str, suffix: str, make: Callable[[DetectionsByClass, str, float], Any]
    ) -> Any:
        def content() -> Any:
            side = self.sides[self._which.value]
            assert side.detections is not None and side.species is not None
            button.filename = f"{_file_name(side.detections.results.name, side.species)}.{suffix}"
            return make(side.detections, side.species, side.threshold)

        button = pn.widgets.FileDownload(
            callback=content, filename=f"detections.{suffix}", label=f"Download {title}",
            color="default", disabled=True, height=32, width=112, margin=(2, 4),
        )  # fmt: skip
        return button

    def _lay_out(self) -> None:
        self._both = pn.Row(
            *(side.panel for side in self._pair), sizing_mode="stretch_width", visible=False
        )
        self._spinner = Spinner()
        self._shown = pn.Column(
            self._alone.panel,
            self._both,
            pn.Row(
                pn.Column(
                    pn.Row(self._side_by_side, self._which, self._everything), self.list.panel,
                    css_classes=["bp-side"], stylesheets=[CSS], sizing_mode="stretch_width",
                ),
                pn.Column(
                    self.details.panel, css_classes=["bp-side"], stylesheets=[CSS],
                    sizing_mode="stretch_width",
                ),
                css_classes=["bp-beside"],
                stylesheets=[CSS],
                sizing_mode="stretch_width",
            ),
            sizing_mode="stretch_width",
            visible=False,
        )  # fmt: skip
        self._body = pn.Column(
            self._spinner.panel, self._shown, stylesheets=[CSS], sizing_mode="stretch_width",
            min_height=600,
        )  # fmt: skip

    def controls(self) -> Any:
        return pn.Column(
            self._model, self._source, self.species_list.panel, self._by, self._per_hour,
            self._other, pn.Row(*self._downloads, margin=(6, 6)), stylesheets=[CSS],
            sizing_mode="stretch_width",
        )  # fmt: skip

    @cached_property
    def gallery(self) -> Gallery:
        """Many windows side by side; made when the visitor is known."""
        return Gallery(self, on_near=self._show_window)

    def body(self) -> Any:
        self._shown.append(self.gallery.panel)
        return self._body

    # ------------------------------------------------------------------ what is loaded

    def _change_model(self, event: Any) -> None:
        # Scores of two models cannot be compared, so neither can thresholds.
        self.param.update(source="", threshold=None)
        self._load()

    def _change_source(self, event: Any) -> None:
        if self._detections is not None and event.new != self._detections.source:
            self.threshold = None
        self._load()

    def opened(self) -> None:
        self._opened = True
        self._load()

    def _load(self) -> None:
        if not self._opened or self.model is None:
            return  # the address may still change what is asked for
        model, source, species = self.model, self.source, self.species
        detections = self._detections
        if detections is not None and (detections.results.name, detections.source) == (
            model,
            source,
        ):
            self.background.cancel("detections")  # of what was chosen in between
            return
        self.background.run(
            "detections",
            lambda: self._read(model, source, species),
            self._show_loaded,
            fail=self._fail,
            busy=self._spinner,
        )

    def _read(self, model: str, source: str, species: str) -> _Loaded:
        available = self._sources_of(model)
        if not available:
            raise ResultsNotFoundError(self._how_to_get(model))
        if source not in available:
            source = next(iter(available))
        detections = read_detections(self.data_set.model(model), source)
        others = {
            f"{name}/{key}": (f"{name}, {title}", key)
            for name in self.data_set.available
            for key, title in self._sources_of(name).items()
            if (name, key) != (model, source)
        }
        return _Loaded(detections, _species_in(detections, species), available, others)

    def _sources_of(self, model: str) -> dict[str, str]:
        return sources(self.data_set.model(model))

    def _how_to_get(self, model: str) -> str:
        others = [name for name in self.data_set.available if self._sources_of(name)]
        instead = f" {', '.join(others)} has some: choose it at the left." if others else ""
        able = ", ".join(sorted(card.name for card in CARDS.values() if card.is_classifier))
        return (
            f"{model} has no predictions for these recordings.{instead} Models with a classifier "
            f"of their own are {able}; run one with run_pretrained_classifier: true. Or annotate "
            f"some recordings and train a probe on any model with evaluation_task: [probing]."
        )

    def _show_loaded(self, loaded: _Loaded) -> None:
        self.say()
        self._shown.visible = True
        self._detections = loaded.detections
        self._others = loaded.others
        self._source.param.update(
            options={title: key for key, title in loaded.sources.items()},
            value=loaded.detections.source,
        )
        other = self.other if self.other in loaded.others else ""
        self._other.param.update(
            options={"–": "", **{title: key for key, (title, _) in loaded.others.items()}},
            value=other,
        )
        self._enable_downloads(True)
        before = self.species
        # What is shown goes to the address as it is, not as what is usual for these results.
        self.param.update(
            source=loaded.detections.source, species=loaded.species, other=other,
            threshold=loaded.detections.threshold(self.threshold),
        )  # fmt: skip
        if self.species == before:
            self._show_species()

    def _fail(self, sentence: str) -> None:
        self.background.cancel("other")
        self._detections = None
        self.say(sentence)
        self._shown.visible = False
        self.species_list.show(None, 0.0, None)
        self._enable_downloads(False)

    def _enable_downloads(self, enabled: bool) -> None:
        for button in self._downloads:
            button.disabled = not enabled

    # ------------------------------------------------------------------ what is shown

    def _show_species(self) -> None:
        detections = self._detections
        if detections is None:
            return
        if self.species not in detections.names:
            self.species = _species_in(detections, self.species)
            return
        self._cell = None
        self.details.clear()
        self._load_other()
        self._list_species()
        self._update_list()
        self._show_again()

    def _show_again(self) -> None:
        """Show the detection that the address names, once its class is shown."""
        recording, start, channel = self.recording, self.start, self.channel
        self.param.update(recording="", start=None, channel=0)
        side = self.sides[0]
        if not recording or side.detections is None or side.species is None:
            return
        try:
            at = start if start is not None else 0.0
            row = side.detections.results.row_at(recording, at, channel)
        except BacpipeError as error:
            self.say(str(error)[:300])
            return
        if row in side.detections.of(side.species)[0]:
            self._show_window(row)

    def _list_species(self) -> None:
        if self._detections is not None:
            self.species_list.show(self._detections, self.sides[0].threshold, self.species)

    def _load_other(self) -> None:
        if self._detections is None or self.species not in self._detections.names:
            return
        shown, species = self.other in self._others, self.species
        self._alone.panel.visible = not shown
        self._both.visible = self._which.visible = shown
        self.sides[0].show(self._detections, species, self.threshold)
        self._other.value = self.other if shown else ""
        if not shown:
            self.background.cancel("other")
            self._which.value = 0
            return
        side = self._pair[1]
        source = self._others[self.other][1]
        model = self.other.removesuffix(f"/{source}")

        def compute() -> tuple[DetectionsByClass, Match]:
            detections = read_detections(self.data_set.model(model), source)
            return detections, same_class(species, detections)

        def show(answer: tuple[DetectionsByClass, Match]) -> None:
            detections, match = answer
            if match.column is not None:
                side.show(detections, detections.names[match.column], self.other_threshold)
            elif match.candidates:
                side.say(
                    f"{species} may be several classes of {detections.title}: "
                    f"{', '.join(match.candidates)}."
                )
            else:
                side.say(f"{detections.title}: found no {species} in these recordings.")
            if self._which.value == 1:
                self._change_list()

        self.background.run("other", compute, show, fail=side.say, busy=side.spinner)

    def _show_thresholds(self) -> None:
        for side, wanted in zip(self.sides, (self.threshold, self.other_threshold), strict=False):
            if side.detections is None or side.species is None:
                continue
            if side.threshold != side.detections.threshold(wanted):
                side.show(side.detections, side.species, wanted)
        self._list_species()
        self._update_list()

    def _draw_maps(self) -> None:
        for side in (self._alone, *self._pair):
            side.draw(self.by, per_hour=self.per_hour)
        self._cell = None
        self._update_list()

    # ------------------------------------------------------------------ list and window

    def _pick(self, side: int, row: int | None, column: int | None) -> None:
        """List the detections of one cell only, or again all of them."""
        chosen = None if row is None or column is None else (row, column)
        self._cell = None if chosen == self._cell and side == self._which.value else chosen
        if side != self._which.value:
            self._which.value = side  # lists anew
        else:
            self._update_list()

    def _change_list(self) -> None:
        self.details.clear()
        self._update_list()

    def _update_list(self) -> None:
        side = self.sides[self._which.value]
        self._everything.visible = self._cell is not None
        if side.detections is None or side.species is None:
            self.list.show(None, np.zeros(0, np.int64), np.zeros(0, np.float32))
            return
        self.gallery.clear()
        rows, scores = side.detections.of(side.species, side.threshold)
        if self._cell is not None and side.grid is not None:
            row, column = side.grid.cells(side.detections.times(side.grid.by)[rows])
            here = (row == self._cell[0]) & (column == self._cell[1])
            rows, scores = rows[here], scores[here]
            self._everything.label = f"only {side.grid.describe(*self._cell)} ✕"
        self._listed = rows, scores
        self.list.show(side.detections, rows, scores)

    def _show_gallery(self) -> None:
        """Show the listed detections, the best first."""
        side = self.sides[self._which.value]
        if side.detections is None or side.species is None:
            return
        rows, scores = self._listed
        results = side.detections.results
        table = results.window_table(rows).rename(columns={"audiofilename": "recording"})
        self.gallery.show(
            results, table.assign(score=scores, label=side.species, model=side.detections.scorer),
            chosen_by="detections",
            label=side.species, known=side.detections.names,
            title=f"detections of {side.species}",
        )  # fmt: skip

    def _show_window(self, row: int) -> None:
        side = self.sides[self._which.value]
        if side.detections is not None:
            self.details.show(side.detections.results, row, label=side.species)
            recording, begin, *channel = side.detections.results.place(row)
            self.param.update(recording=recording, start=begin, channel=(*channel, 0)[0])


def _species_in(detections: DetectionsByClass, wanted: str) -> str:
    """Class that a name means, or else the most frequent one."""
    if wanted in detections.names:
        return wanted
    match = same_class(wanted, detections) if wanted else None
    if match is not None and match.column is not None:
        return detections.names[match.column]
    return detections.names[int(detections.counts(0.0).argmax())]


def _file_name(*parts: str) -> str:
    return "_".join(re.sub(r"[^\w.-]+", "_", part).strip("._") for part in parts)
