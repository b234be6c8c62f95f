"""Data: the recordings, what failed, and what the results were made with."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlencode

import numpy as np
import panel as pn
import param

from bacpipe.dashboard.recordings.recordings_table import Recordings, Totals, read_recordings
from bacpipe.dashboard.recordings.time_line import duration_histogram, time_line
from bacpipe.dashboard.recordings.whole_recording import WholeRecording
from bacpipe.dashboard.shared.own_changes import OwnChanges
from bacpipe.dashboard.shared.results import DataSetResults, ModelResults
from bacpipe.dashboard.shared.view import ViewOfParts
from bacpipe.dashboard.shared.widgets import (
    download_button,
    hint,
    html_pane,
    note,
    select,
    table_widget,
    tall_figure,
)
from bacpipe.errors import counted
from bacpipe.models.zoo import CARDS

if TYPE_CHECKING:
    import pandas as pd

_PARTS = {"Overview": "overview", "Recordings": "recordings", "Whole recording": "whole",
          "Failures": "failures", "Settings and licences": "settings"}  # fmt: skip
_MOST_OFFERED = 300  # recordings in the list to choose from
_BLOCKS = {"automatic": "", "hours": "hour", "days": "day", "weeks": "week"}
_ONLY = {"all": "all", "those that failed": "failed", "those without a time": "no time"}


class RecordingsView(ViewOfParts):
    """Recordings, failures and settings."""

    key: ClassVar[str] = "data"
    title: ClassVar[str] = "Data"
    help_text: ClassVar[str] = """
**Is everything there?** Look here first: gaps in the time line are times at which a recorder was
off, or recordings that were not copied.

**Overview**: the colour of a block tells how much was recorded in it; each row is a folder (often
a site or a recorder). Turn the wheel over the figure to zoom into time.

**Recordings**: every file, with a search. Click on a row to open it in *Explore*.

**Whole recording**: a recording from its beginning to its end, over time lines of annotations,
labels of people and the best classes; turn the wheel to zoom into time, click to hear 10 seconds
from there.

**Failures**: recordings that could not be read or computed, and why. Everything else in these
results is complete; when the files are mended, run bacpipe again, and only these are done.

**Settings and licences**: what each model was run with, its licence and how to cite it. Download
the table for the methods section of a paper.

Times come from the recorder's metadata or the name of the file, such as `SITE_20240603_033731.wav`.
All views show them on one clock: that of the place where `sites.csv` or the settings tell position
or time zone, else the recorder's own.
"""
    parts: ClassVar[dict[str, str]] = _PARTS
    in_address: ClassVar[dict[str, str]] = {
        "part": "data",
        "block": "block",
        "search": "search",
        "only": "only",
        "whole": "whole",
    }

    part = param.Selector(objects=list(_PARTS.values()), default="overview")
    block = param.Selector(objects=list(_BLOCKS.values()), default="")
    search = param.String("")
    only = param.Selector(objects=list(_ONLY.values()), default="all")
    whole = param.String("")

    def __init__(self, data_set: DataSetResults, **values: Any) -> None:
        super().__init__(data_set, **values)
        self._models: tuple[ModelResults, ...] = ()
        self._own = OwnChanges()
        self._recordings: Recordings | None = None
        self._link = html_pane()
        search = pn.widgets.TextInput.from_param(
            self.param.search, label="Search", placeholder="part of the name",
            sizing_mode="stretch_width",
        )  # fmt: skip
        self._offered = pn.widgets.Select(
            label="Recording", options=[], sizing_mode="stretch_width"
        )
        self._offered.param.watch(self._choose_whole, "value")
        self._whole_recording = WholeRecording(
            self.background, data_set.options.spectrogram_colour_scale, self.spectrograms
        )
        self._choices = {
            "whole": [self._offered],
            "overview": [select(self.param.block, "Blocks of the time line", _BLOCKS)],
            "recordings": [search, select(self.param.only, "Only", _ONLY)],
        }

    def opened(self) -> None:
        self._greeting = self.notice.sentence
        self.param.watch(lambda *_: self._show(), list(self.in_address))
        self._offer_choices()

        def read() -> tuple[tuple[ModelResults, ...], Recordings]:
            models = tuple(self.data_set.model(name) for name in self.data_set.available)
            return models, read_recordings(models)

        self.background.run("data", read, self._take, fail=self.say, busy=self._content)

    def _take(self, results: tuple[tuple[ModelResults, ...], Recordings]) -> None:
        self._models, self._recordings = results
        problems = self.data_set.problems()
        self.say(" ".join([self._greeting, *problems.values()]).strip())
        self._show()

    def _choose_whole(self, event: Any) -> None:
        if not self._own:
            self.whole = event.new or ""

    def _show(self) -> None:
        if self._own:
            return
        self._offer_choices()
        if self._recordings is None:
            return
        self._link.object = ""
        make = {
            "overview": self._overview,
            "recordings": self._table,
            "whole": self._whole,
            "failures": self._failures,
            "settings": self._settings,
        }[self.part]
        self._content.objects = make(self._recordings)

    # ------------------------------------------------------------------ parts

    def _overview(self, recordings: Recordings) -> list[Any]:
        table = recordings.table
        if table.empty:
            return [hint("No recording was done yet.")]
        cards = "".join(_cards(recordings))
        parts: list[Any] = [html_pane(f'<div class="bp-cards">{cards}</div>')]
        if recordings.without_time < len(table):
            plot = time_line(table, self.data_set.name, self.block or None)
            parts.append(tall_figure(plot, "45vh"))
        known = table["duration"].to_numpy(float)
        known = known[np.isfinite(known)]
        below = []
        if len(known):
            below.append(tall_figure(duration_histogram(known), "30vh"))
        below.append(_notes(recordings))
        return [*parts, pn.Row(*below, sizing_mode="stretch_width")]

    def _table(self, recordings: Recordings) -> list[Any]:
        rows = recordings.matching(self.search.strip(), self.only)
        if rows.empty:
            return [hint("No recording is like that.")]
        shown = _for_people(rows)
        table = table_widget(shown, page_size=20, decimals=1)
        table.on_click(lambda event: self._offer_link(str(shown["recording"].iloc[event.row])))
        every = counted(len(recordings.table), "recording")
        count = f"{len(rows):,} of {every}. Click on one to open it."
        return [
            note(count),
            self._link,
            table,
            download_button(rows, f"{self.data_set.name}_recordings.csv"),
        ]

    def _whole(self, recordings: Recordings) -> list[Any]:
        heard = [
            str(name)
            for name in recordings.table["recording"]
            if any(name in results.windows.entries for results in self._models)
        ]
        if not heard:
            return [hint("No recording was done yet.")]
        chosen = self.whole if self.whole in heard else heard[0]
        near = max(0, heard.index(chosen) - _MOST_OFFERED // 2)
        with self._own:  # or it would be drawn once more for what is set here
            self._offered.param.update(options=heard[near : near + _MOST_OFFERED], value=chosen)
            self.whole = chosen
        with_it = [model for model in self._models if chosen in model.windows.entries]
        classifiers = [model for model in with_it if model.loader.has_predictions]
        self._whole_recording.show((classifiers or with_it)[0], chosen)
        return [self._whole_recording.panel]

    def _offer_link(self, recording: str) -> None:
        """Say where the recording is looked at from near."""
        model = next((m.name for m in self._models if recording in m.windows.entries), None)
        name = html.escape(recording)
        if model is None:
            self._link.object = f'<div class="bp-open"><b>{name}</b> has no results to show.</div>'
            return
        query = urlencode({"view": "explore", "model": model, "recording": recording})
        whole = urlencode({"view": "data", "data": "whole", "whole": recording})
        self._link.object = (
            f'<div class="bp-open"><b>{name}</b>: '
            f'<a href="?{html.escape(query)}">show in Explore</a> · '
            f'<a href="?{html.escape(whole)}">show all of it</a></div>'
        )

    def _failures(self, recordings: Recordings) -> list[Any]:
        if recordings.failures.empty:
            return [hint("Nothing failed: every recording that was found is done.")]
        count, total = recordings.failures["recording"].nunique(), len(recordings.table)
        text = (
            f"{count:,} of {total:,} recordings failed with at least one model. Mend or replace "
            f"the files and run bacpipe again: it does only these."
        )
        widths = {"recording": "34%", "model": "16%", "reason": "50%"}
        return [
            note(text),
            table_widget(recordings.failures, layout="fit_columns", widths=widths),
            download_button(recordings.failures, f"{self.data_set.name}_failures.csv"),
        ]

    def _settings(self, recordings: Recordings) -> list[Any]:
        few = len(self._models) <= 2
        parts = [
            run_settings_html(
                results.name, run_settings(results, recordings.totals[results.name]), opened=few
            )
            for results in self._models
        ]
        table = run_settings_table(self._models, recordings.totals)
        return [
            html_pane("".join(parts)),
            download_button(table, f"{self.data_set.name}_settings.csv"),
        ]


def _cards(recordings: Recordings) -> list[str]:
    table, totals = recordings.table, recordings.totals.values()
    failed = recordings.failures["recording"].nunique()
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


def _notes(recordings: Recordings) -> Any:
    table, sentences = recordings.table, []
    known = table["start"].dropna()
    if len(known):
        sentences.append(
            f"Recorded from {known.min():%Y-%m-%d %H:%M} to {known.max():%Y-%m-%d %H:%M}"
            + (f" ({recordings.zone})." if recordings.zone else ".")
        )
    if recordings.without_time:
        sentences.append(
            f"Without a time, in the file or its name, and so not in the time line: "
            f"{counted(recordings.without_time, 'recording')} (Recordings → those without a time)."
        )
    incomplete = int((table["models"] < len(recordings.totals)).sum())
    if incomplete and len(recordings.totals) > 1:
        sentences.append(f"Not done with all of the models: {counted(incomplete, 'recording')}.")
    if recordings.failures.empty:
        sentences.append("Nothing failed.")
    else:
        sentences.append(f"{counted(len(recordings.failures), 'failure')} (see Failures).")
    text = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in sentences)
    return html_pane(f'<div class="bp-say">{text}</div>')


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


# ---------------------------------------------------------------------- settings and licences


def run_settings(results: ModelResults, totals: Totals) -> dict[str, str]:
    """Settings, versions, licence and citation of a model's results, each by its title."""
    header = results.windows.header
    identity: dict[str, Any] = header.get("identity", {})
    made: dict[str, Any] = header.get("provenance", {})
    settings = {
        "Recordings": f"{totals.recordings:,}",
        "Windows": f"{totals.windows:,}",
        **_window_settings(identity, results),
        **_prediction_settings(results),
        "Checkpoint": _checkpoint(identity.get("checkpoint")),
        "Computed with": ", ".join(
            f"{'bacpipe' if key == 'version' else key} {value}" for key, value in made.items()
        ),
        "Results": results.loader.get_embedding_dir().name,
        "Maps": ", ".join(
            name + (" (older than the embeddings)" if results.map_is_stale(name) else "")
            for name in results.maps
        ),
    }
    card = CARDS.get(results.name)
    if card is not None:
        settings |= {
            "Made for": card.scope.sounds,
            "Trained on": card.trained_on,
            "Licence": card.licence + (" – no commercial use" if card.non_commercial else ""),
            "Cite": card.citation,
            "More": card.homepage,
        }
    return {title: text for title, text in settings.items() if text}


def run_settings_table(models: Sequence[ModelResults], totals: dict[str, Totals]) -> pd.DataFrame:
    """All of it as a table: a row per model."""
    import pandas as pd

    rows = [{"Model": part.name, **run_settings(part, totals[part.name])} for part in models]
    return pd.DataFrame(rows).fillna("")


def run_settings_html(name: str, settings: dict[str, str], *, opened: bool) -> str:
    """A model's settings as HTML that unfolds; everything in it is text."""
    rows = "".join(
        f"<tr><th>{html.escape(title)}</th><td>{html.escape(text)}</td></tr>"
        for title, text in settings.items()
    )
    short = [settings[key] for key in ("Window", "Licence") if key in settings]
    return (
        f'<details class="bp-model"{" open" if opened else ""}><summary><b>{html.escape(name)}</b> '
        f"<span>{html.escape(' · '.join(short))}</span></summary><table>{rows}</table></details>"
    )


def _window_settings(identity: dict[str, Any], results: ModelResults) -> dict[str, str]:
    rate, window = results.window_rate, identity.get("window")
    if not rate or not window:
        return {"Window": "not recorded: made with an older bacpipe"}
    speed = identity.get("speed") or 1
    length = window / rate * speed
    hop = identity.get("hop")
    settings = {
        "Window": f"{length:.3g} s at {rate / 1000:g} kHz",
        "Hop": f"{hop:g} s" if hop else f"{length:.3g} s (windows follow one another)",
        "Last window": f"filled up: {identity.get('padding')}",
    }
    if speed != 1:
        settings["Time expansion"] = f"played at {speed:g} times the speed"
    if identity.get("only_annotated"):
        settings["Windows of"] = "annotated parts only"
    return settings


def _checkpoint(digests: Any) -> str:
    if not isinstance(digests, dict):
        return str(digests or "")  # a model of the user's own has no files that bacpipe knows
    return "; ".join(f"{name} (SHA-256 {str(digest)[:12]}…)" for name, digest in digests.items())


def _prediction_settings(results: ModelResults) -> dict[str, str]:
    made = (entry.predictions for entry in results.windows.entries.values())
    first = next((item for item in made if item is not None), None)
    if first is None or first.threshold is None:
        return {}
    return {"Predictions": f"scores from {first.threshold:g}, at most {first.top} per window"}
