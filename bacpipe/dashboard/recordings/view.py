"""Data: the recordings, what failed, and what the results were made with."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlencode

import numpy as np
import panel as pn
import param

from bacpipe.dashboard.recordings.inventory import (
    Recordings,
    provenance_html,
    provenance_of,
    provenance_table,
    read_recordings,
)
from bacpipe.dashboard.recordings.time_line import duration_histogram, time_line
from bacpipe.dashboard.shared.results import DataSet, ModelResults
from bacpipe.dashboard.shared.view import View
from bacpipe.dashboard.shared.widgets import download_button, parts_and_choices, table_widget
from bacpipe.dashboard.style import CSS

if TYPE_CHECKING:
    import pandas as pd

_PARTS = {"Overview": "overview", "Recordings": "recordings", "Failures": "failures",
          "Settings and licences": "settings"}  # fmt: skip
_BLOCKS = {"automatic": "", "hours": "hour", "days": "day", "weeks": "week"}
_ONLY = {"all": "all", "those that failed": "failed", "those without a time": "no time"}


class Data(View):
    """Recordings, failures and settings."""

    key: ClassVar[str] = "data"
    title: ClassVar[str] = "Data"
    help_text: ClassVar[str] = """
**Is everything there?** Look here first: gaps in the time line are times at which a recorder was
off, or recordings that were not copied.

**Overview**: the darker a block, the more was recorded in it; each row is a folder (often a site
or a recorder). Turn the wheel over the figure to zoom into time.

**Recordings**: every file, with a search. Click on a row to open it in *Explore*.

**Failures**: recordings that could not be read or computed, and why. Everything else in these
results is complete; when the files are mended, run bacpipe again, and only these are done.

**Settings and licences**: what each model was run with, its licence and how to cite it. Download
the table for the methods section of a paper.

Times come from the recorder's metadata or the name of the file, such as `SITE_20240603_033731.wav`,
as the recorder's clock said.
"""
    in_address: ClassVar[dict[str, str]] = {
        "part": "data",
        "block": "block",
        "search": "search",
        "only": "only",
    }

    part = param.Selector(objects=list(_PARTS.values()), default="overview")
    block = param.Selector(objects=list(_BLOCKS.values()), default="")
    search = param.String("")
    only = param.Selector(objects=list(_ONLY.values()), default="all")

    def __init__(self, data_set: DataSet, **values: Any) -> None:
        super().__init__(data_set, **values)
        self._models: tuple[ModelResults, ...] = ()
        self._recordings: Recordings | None = None
        self._content = pn.Column(sizing_mode="stretch_width", min_height=200, margin=(4, 8))
        self._link = pn.pane.HTML("", stylesheets=[CSS], sizing_mode="stretch_width")
        wide: dict[str, Any] = {"sizing_mode": "stretch_width"}
        self._choices = {
            "overview": [
                pn.widgets.Select.from_param(
                    self.param.block, options=_BLOCKS, name="Blocks of the time line", **wide
                )
            ],
            "recordings": [
                pn.widgets.TextInput.from_param(
                    self.param.search, name="Search", placeholder="part of the name", **wide
                ),
                pn.widgets.Select.from_param(self.param.only, options=_ONLY, name="Only", **wide),
            ],
        }

    def controls(self) -> Any:
        return parts_and_choices(self.param.part, _PARTS, self._choices)

    def body(self) -> Any:
        return self._content

    def opened(self) -> None:
        self._greeting = self.notice.sentence
        self.param.watch(lambda _: self._show(), list(self.in_address))
        self._offer()

        def read() -> tuple[tuple[ModelResults, ...], Recordings]:
            models = tuple(self.data_set.model(name) for name in self.data_set.available)
            return models, read_recordings(models)

        self.background.run("data", read, self._take, fail=self.say, busy=self._content)

    def _take(self, found: tuple[tuple[ModelResults, ...], Recordings]) -> None:
        self._models, self._recordings = found
        problems = self.data_set.problems()
        self.say(" ".join([self._greeting, *problems.values()]).strip())
        self._show()

    def _offer(self) -> None:
        for name, widgets in self._choices.items():
            for widget in widgets:
                widget.visible = name == self.part

    def _show(self) -> None:
        self._offer()
        if self._recordings is None:
            return
        self._link.object = ""
        make = {
            "overview": self._overview,
            "recordings": self._table,
            "failures": self._failures,
            "settings": self._settings,
        }[self.part]
        self._content.objects = make(self._recordings)

    # ------------------------------------------------------------------ parts

    def _overview(self, found: Recordings) -> list[Any]:
        table = found.table
        if table.empty:
            return [_hint("No recording was done yet.")]
        cards = pn.pane.HTML(
            f'<div class="bp-cards">{"".join(_cards(found))}</div>',
            stylesheets=[CSS], sizing_mode="stretch_width",
        )  # fmt: skip
        parts: list[Any] = [cards]
        if found.without_time < len(table):
            plot, _ = time_line(table, self.data_set.name, self.block or None)
            parts.append(pn.pane.Bokeh(plot, sizing_mode="stretch_width"))
        known = table["duration"].to_numpy(float)
        known = known[np.isfinite(known)]
        below = []
        if len(known):
            below.append(pn.pane.Bokeh(duration_histogram(known), sizing_mode="stretch_width"))
        below.append(_notes(found))
        return [*parts, pn.Row(*below, sizing_mode="stretch_width")]

    def _table(self, found: Recordings) -> list[Any]:
        rows = found.matching(self.search.strip(), self.only)
        if rows.empty:
            return [_hint("No recording is like that.")]
        shown = _for_people(rows)
        table = table_widget(shown, page_size=20, decimals=1)
        table.on_click(lambda event: self._offer_link(str(shown["recording"].iloc[event.row])))
        count = f"{len(rows):,} of {len(found.table):,} recordings. Click on one to open it."
        return [
            pn.pane.HTML(f'<div class="bp-note">{count}</div>', stylesheets=[CSS]),
            self._link,
            table,
            download_button(rows, f"{self.data_set.name}_recordings.csv"),
        ]

    def _offer_link(self, recording: str) -> None:
        """Say where the recording is looked at from near."""
        model = next((m.name for m in self._models if recording in m.windows.entries), None)
        name = html.escape(recording)
        if model is None:
            self._link.object = f'<div class="bp-open"><b>{name}</b> has no results to show.</div>'
            return
        query = urlencode({"view": "explore", "model": model, "recording": recording})
        self._link.object = (
            f'<div class="bp-open"><b>{name}</b>: '
            f'<a href="?{html.escape(query)}">show in Explore</a></div>'
        )

    def _failures(self, found: Recordings) -> list[Any]:
        if found.failures.empty:
            return [_hint("Nothing failed: every recording that was found is done.")]
        count = found.failures["recording"].nunique()
        text = (
            f"{count:,} of {len(found.table):,} recordings failed with at least one model. Mend or "
            f"replace the files and run bacpipe again: it does only these."
        )
        widths = {"recording": "34%", "model": "16%", "reason": "50%"}
        return [
            pn.pane.HTML(f'<div class="bp-note">{text}</div>', stylesheets=[CSS]),
            table_widget(found.failures, layout="fit_columns", widths=widths),
            download_button(found.failures, f"{self.data_set.name}_failures.csv"),
        ]

    def _settings(self, found: Recordings) -> list[Any]:
        few = len(self._models) <= 2
        parts = [
            provenance_html(
                results.name, provenance_of(results, found.totals[results.name]), opened=few
            )
            for results in self._models
        ]
        table = provenance_table(self._models, found.totals)
        return [
            pn.pane.HTML("".join(parts), stylesheets=[CSS], sizing_mode="stretch_width"),
            download_button(table, f"{self.data_set.name}_settings.csv"),
        ]


def _cards(found: Recordings) -> list[str]:
    table, totals = found.table, found.totals.values()
    failed = found.failures["recording"].nunique()
    hours = table["duration"].sum() / 3600
    numbers = [
        (f"{len(table):,}", "recordings"),
        (f"{hours:,.1f}", "hours") if hours >= 1 else (f"{60 * hours:.1f}", "minutes"),
        (f"{len(totals):,}", "models" if len(totals) != 1 else "model"),
        (f"{sum(part.windows for part in totals):,}", "windows of all models"),
        (_size(float(table["size"].sum())), "of recordings"),
        (_size(sum(part.bytes for part in totals)), "of embeddings and predictions"),
        (f"{failed:,}", "recordings failed"),
    ]
    return [
        f'<div class="bp-card"><span class="bp-number">{value}</span><br>{what}</div>'
        for value, what in numbers
    ]


def _notes(found: Recordings) -> Any:
    table, sentences = found.table, []
    known = table["start"].dropna()
    if len(known):
        sentences.append(
            f"Recorded from {known.min():%Y-%m-%d %H:%M} to {known.max():%Y-%m-%d %H:%M}."
        )
    if found.without_time:
        sentences.append(
            f"{found.without_time:,} recordings tell no time, neither in the file nor in its name, "
            f"and are not in the time line (Recordings → those without a time)."
        )
    incomplete = int((table["models"] < len(found.totals)).sum())
    if incomplete and len(found.totals) > 1:
        sentences.append(f"{incomplete:,} recordings are not done with all of the models.")
    if found.failures.empty:
        sentences.append("Nothing failed.")
    else:
        sentences.append(f"{len(found.failures):,} failures (see Failures).")
    text = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in sentences)
    return pn.pane.HTML(
        f'<div class="bp-say">{text}</div>', stylesheets=[CSS], sizing_mode="stretch_width"
    )


def _for_people(rows: pd.DataFrame) -> pd.DataFrame:
    """Columns of the table of recordings, as they are read."""
    shown = rows[["recording"]].copy()
    shown["recorded"] = rows["start"].dt.strftime("%Y-%m-%d %H:%M:%S").astype(object).fillna("")
    shown["seconds"] = rows["duration"]
    shown["size (MB)"] = rows["size"] / 1e6
    shown["models done"] = rows["models"]
    shown["failed"] = rows["failed"]
    return shown.reset_index(drop=True)


def _size(number: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number / 1e3:.0f} kB"


def _hint(text: str) -> Any:
    return pn.pane.HTML(
        f'<div class="bp-hint">{text}</div>', stylesheets=[CSS], sizing_mode="stretch_width"
    )
