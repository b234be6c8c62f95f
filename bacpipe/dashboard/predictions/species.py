"""The list of species of a model, and one of them: threshold, counts, histogram, heat map."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import panel as pn
from bokeh.models import NumberFormatter

from bacpipe.dashboard.predictions.detections_by_class import CLASSIFIER, DetectionsByClass
from bacpipe.dashboard.predictions.figures import LEGEND, ActivityFigure, ScoreHistogram
from bacpipe.dashboard.shared.widgets import (
    Notice,
    Spinner,
    html_pane,
    table_widget,
    text_formatter,
)
from bacpipe.dashboard.style import CSS
from bacpipe.errors import counted
from bacpipe.evaluation.species_names import plain
from bacpipe.labels.activity import SUN, ActivityGrid

_NO_TIME = (
    "No recording here tells when it was made, so activity over time cannot be shown. bacpipe "
    "finds the time in the recorder's metadata or in the name of the file, such as "
    "20240501_053000.wav."
)
_NO_PLACE = (
    "No recording here tells both when and where it was made, so hours from sunrise or sunset "
    "cannot be shown. Say where in a table of sites (bacpipe sites), or with latitude and "
    "longitude."
)


class SpeciesPanel:
    """Threshold, counts, histogram and heat map of one class of one model.

    Parameters
    ----------
    on_threshold : callable
        Gets the threshold when the slider is let go.
    on_cell : callable
        Gets row and column of a cell of the heat map that was clicked.
    wide : bool
        True puts the figures side by side, False below one another.
    """

    def __init__(
        self,
        on_threshold: Callable[[float], None],
        on_cell: Callable[[int, int], None],
        *,
        wide: bool,
    ) -> None:
        self.detections: DetectionsByClass | None = None
        self.species: str | None = None
        self._on_threshold = on_threshold
        self._by, self._per_hour = "hour_day", False
        self._title = html_pane("", "bp-window-title", wide=False)
        self._slider = pn.widgets.FloatSlider(
            label="Threshold", start=0, end=1, step=0.01, value=0, format="0.00", width=190,
            margin=(0, 10),
        )  # fmt: skip
        self._slider.param.watch(lambda event: self._slide(event.new), "value")
        self._slider.param.watch(lambda event: self._release(event.new), "value_throttled")
        self._counts = html_pane(margin=(0, 10))
        self._notice = Notice()
        self.spinner = Spinner()
        self._histogram = ScoreHistogram(210 if wide else 120)
        self._activity = ActivityFigure(210 if wide else 180, on_cell)
        self._no_time = Notice()
        self._legend = html_pane(LEGEND, "bp-note", margin=(0, 10), wide=False)
        self._over_time = pn.Column(
            self._activity.panel, self._legend, self._no_time.panel, css_classes=["bp-side"],
            stylesheets=[CSS], sizing_mode="stretch_width",
        )  # fmt: skip
        top = pn.Row(self._slider, self._counts, sizing_mode="stretch_width", margin=0)
        kind: Any = pn.Column
        figures = [self._over_time, self._histogram.panel]
        if wide:
            kind, figures = (
                pn.Row,
                [
                    pn.Column(
                        self._histogram.panel, width=310, css_classes=["bp-side"], stylesheets=[CSS]
                    ),
                    self._over_time,
                ],
            )
        self._shown = pn.Column(
            top, kind(*figures, css_classes=["bp-beside"], stylesheets=[CSS],
                      sizing_mode="stretch_width", margin=0),
            stylesheets=[CSS], sizing_mode="stretch_width", visible=False,
        )  # fmt: skip
        self.panel = pn.Column(
            self.spinner.panel, self._title, self._notice.panel, self._shown, stylesheets=[CSS],
            sizing_mode="stretch_width",
        )  # fmt: skip

    # ------------------------------------------------------------------ what is shown

    @property
    def threshold(self) -> float:
        """Lowest score that counts."""
        return float(self._slider.value)

    def show(self, detections: DetectionsByClass, species: str, threshold: float | None) -> None:
        """Show a class of a model; a `threshold` of None is the usual one."""
        if detections is not self.detections:
            grid = {"start": min(detections.lowest, 0.99), "end": 1.0}
            self._slider.param.update(value=detections.threshold(threshold), **grid)
        else:
            self._slider.value = detections.threshold(threshold)
        self.detections, self.species = detections, species
        self._notice.say()
        self._shown.visible = True
        self._title.object = f"<b>{html.escape(species)}</b> · {html.escape(detections.title)}"
        scores = detections.of(species)[1]
        self._histogram.show(scores, detections.lowest, self.threshold, species)
        self._count()
        self.draw(self._by, per_hour=self._per_hour)

    def say(self, sentence: str) -> None:
        """Show a sentence instead."""
        self.detections = self.species = None
        self._title.object = ""
        self._notice.say(sentence)
        self._shown.visible = False

    def draw(self, by: str, *, per_hour: bool) -> None:
        """Draw the heat map `by` a key of `bacpipe.labels.activity.BY`."""
        self._by, self._per_hour = by, per_hour
        if self.detections is None or self.species is None:
            return
        known = self.detections.tells_time(by)
        self._activity.panel.visible = self._legend.visible = known
        self._no_time.say("" if known else _NO_PLACE if by in SUN else _NO_TIME)
        if not known:
            return
        rows, _ = self.detections.of(self.species, self.threshold)
        grid = self.detections.grid(by)
        counts = grid.count(self.detections.times(by)[rows])
        self._activity.show(grid, counts, species=self.species, per_hour=per_hour)

    @property
    def grid(self) -> ActivityGrid | None:
        """Cells of the heat map that is shown."""
        if self.detections is None or not self.detections.tells_time(self._by):
            return None
        return self.detections.grid(self._by)

    def _count(self) -> None:
        assert self.detections is not None and self.species is not None
        results = self.detections.results
        rows, _ = self.detections.of(self.species, self.threshold)
        heard = np.bincount(results.recording_code[rows], minlength=1)
        windows = len(np.unique(rows))
        of_all = windows / max(1, len(results))
        self._counts.object = (
            f'<span class="bp-count">{len(rows):,}</span> detections in '
            f'<span class="bp-count">{windows:,}</span> windows ({of_all:.1%}) of '
            f'<span class="bp-count">{int((heard > 0).sum()):,}</span> recordings (of '
            f"{len(results.recordings):,})"
            f'<div class="bp-note">{self.detections.about_threshold}</div>'
        )

    def _slide(self, threshold: float) -> None:
        if self.detections is not None and self.species is not None:
            self._count()
            self._histogram.mark(threshold)

    def _release(self, threshold: float) -> None:
        if self.detections is not None and self.species is not None:
            self.draw(self._by, per_hour=self._per_hour)
            self._on_threshold(float(threshold))


class SpeciesList:
    """Search box above a table of classes with their counts, the most frequent first.

    `on_choice` gets the class that was clicked.
    """

    def __init__(self, on_choice: Callable[[str], None]) -> None:
        self._on_choice = on_choice
        self._names: tuple[str, ...] = ()
        self._plain: list[str] = []
        self._counts = np.zeros(0, np.int64)
        self._chosen: str | None = None
        self._detections: DetectionsByClass | None = None
        self._threshold = 0.0
        self._search = pn.widgets.TextInput(
            label="Search species", placeholder="part of a name", sizing_mode="stretch_width",
            margin=(0, 10),
        )  # fmt: skip
        self._below = html_pane("", "bp-note", margin=(0, 10))
        self._search.param.watch(lambda _: self._fill(), "value_input")
        self._table = table_widget(
            pd.DataFrame({"species": [], "detections": []}),
            page_size=9,
            selectable=1,
            layout="fit_columns",
            formatters={
                "species": text_formatter(),
                "detections": NumberFormatter(format="0,0"),
            },
            text_align={"detections": "right"},
            widths={"detections": 106},
            margin=(0, 10),
        )
        self._table.on_click(lambda event: self._choose(event.row))
        self._heading = html_pane("", "bp-note", margin=(4, 10, 2, 10), wide=False)
        self.panel = pn.Column(
            self._heading, self._search, self._below, self._table, stylesheets=[CSS],
            sizing_mode="stretch_width",
        )  # fmt: skip

    def show(
        self, detections: DetectionsByClass | None, threshold: float, chosen: str | None
    ) -> None:
        """List classes with a detection of this score or more, and how many they have."""
        names = () if detections is None else detections.names
        if names != self._names:
            self._names, self._plain = names, [plain(name) for name in names]
        self._detections, self._threshold, self._chosen = detections, threshold, chosen
        self._counts = np.zeros(0, np.int64) if detections is None else detections.counts(threshold)
        kinds = int((self._counts > 0).sum())
        others = ""
        if detections is not None and detections.source != CLASSIFIER:
            others = f"; other: {counted(detections.others(threshold), 'window')}"
        self._heading.object = f"{kinds:,} species (classes) at this threshold{others}"
        self._fill()

    def _fill(self) -> None:
        wanted = plain(self._search.value_input or "")
        order = [
            i
            for i in np.argsort(-self._counts, kind="stable")
            if self._counts[i] and wanted in self._plain[i]
        ]
        listed = [self._names[i] for i in order]
        self._below.object = html.escape(self._explain(wanted)) if wanted else ""
        self._table.selection = []
        self._table.value = pd.DataFrame({"species": listed, "detections": self._counts[order]})
        if self._chosen in listed:
            place = listed.index(self._chosen)
            self._table.page = place // self._table.page_size + 1
            self._table.selection = [place]
        else:
            self._table.page = 1

    def _explain(self, wanted: str, most: int = 3) -> str:
        """Why what is searched for is not in the list."""
        detections = self._detections
        if detections is None:
            return ""
        matches = [i for i, name in enumerate(self._plain) if wanted in name]
        hidden = [self._names[i] for i in matches if not self._counts[i]]
        parts = []
        for name in hidden[:most]:
            number, best = detections.below(name, self._threshold)
            parts.append(
                f"{name}: {counted(number, 'detection')} below the threshold of "
                f"{self._threshold:.2f}, the best with {best:.2f}."
            )
        if len(hidden) > most:
            parts.append(f"{len(hidden) - most:,} more are below the threshold.")
        if matches:
            return " ".join(parts)
        names = detections.known_names
        known = next((name for name in names if wanted in plain(name)), None)
        if known is not None:
            return (
                f"{detections.results.name} knows {known}, but found none with a score of "
                f"{detections.lowest:g} or more, below which nothing is kept."
            )
        return f"No class of {detections.title} is called like that."

    def _choose(self, row: int) -> None:
        self._on_choice(str(self._table.value["species"].iloc[row]))
