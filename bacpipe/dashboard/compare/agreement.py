"""How far the neighbourhoods of two models agree: a number, and a dot for every label."""

from __future__ import annotations

import html
import math
from functools import lru_cache
from typing import Any

import numpy as np
import panel as pn
from bokeh.models import ColumnDataSource, FactorRange, HoverTool

from bacpipe.dashboard.shared.labels import NONE, WindowLabels
from bacpipe.dashboard.shared.results import ModelResults
from bacpipe.dashboard.shared.widgets import html_pane
from bacpipe.dashboard.style import (
    NO_LABEL,
    axis_categories,
    ink_and_paper,
    name_figure,
    new_figure,
)
from bacpipe.evaluation.agreement import MeanAgreement, NeighbourAgreement, neighbour_agreement
from bacpipe.plotting.style import COLOURS

KIND = "agreement"
TITLE = "Agreement of the two models"
_MOST_LABELS = 15
_STEPS = 10  # colours of the maps


@lru_cache(maxsize=32)
def agreement_of(left: ModelResults, right: ModelResults, n_neighbors: int) -> NeighbourAgreement:
    """Agreement of two models, kept for all visitors."""
    options = left.loader.options
    return neighbour_agreement(
        left.loader,
        right.loader,
        n_neighbors=n_neighbors,
        most=options.max_windows_for_pairs,
        samples=options.bootstrap_samples,
        seed=options.evaluation_seed,
    )


def agreement_labels(
    agreement: NeighbourAgreement, left: ModelResults, right: ModelResults
) -> list[WindowLabels]:
    """Agreement of every window of both models as ordered labels that colour their maps."""
    parts = []
    for side, (results, other) in enumerate(((left, right), (right, left))):
        shares = agreement.of_windows(results.windows, other.windows, side)
        known = np.isfinite(shares)
        codes = np.full(len(shares), NONE, np.int32)
        codes[known] = np.rint(shares[known] * _STEPS).astype(np.int32)
        names = tuple(f"{100 * step / _STEPS:.0f} %" for step in range(_STEPS + 1))
        parts.append(WindowLabels(KIND, codes, names, True))
    return parts


class AgreementPanel:
    """Shows the agreement of two models."""

    def __init__(self) -> None:
        self._text = html_pane()
        self._source = ColumnDataSource({"label": [], "name": [], "share": [], "chance": []})
        self._range = FactorRange(factors=[])
        self._figure = self._make_figure()
        self._chart = pn.pane.Bokeh(self._figure, sizing_mode="stretch_width", visible=False)
        self._rest = html_pane(wide=False)
        self.panel = pn.Column(self._text, self._chart, self._rest, sizing_mode="stretch_width")

    def _make_figure(self) -> Any:
        plot = new_figure(
            100, "Agreement without labels", y_range=self._range, x_range=(-0.02, 1.02),
            x_axis_location="above",
        )  # fmt: skip
        plot.hbar(
            "label", right="share", left=0, height=0.62, color=COLOURS[0], alpha=0.85,
            source=self._source,
        )  # fmt: skip
        plot.scatter(
            "chance", "label", marker="dash", angle=math.pi / 2, size=14, line_width=2,
            color=ink_and_paper()[0], source=self._source,
        )  # fmt: skip
        tooltips = [("label", "@name"), ("in common", "@share{0 %}"),
                    ("by chance", "@chance{0 %}"), ("windows", "@windows")]  # fmt: skip
        plot.add_tools(HoverTool(tooltips=tooltips))
        plot.xaxis.formatter.use_scientific = False
        plot.xaxis.ticker = [0, 0.25, 0.5, 0.75, 1]
        plot.xaxis.major_label_overrides = {0: "0 %", 0.25: "25 %", 0.5: "50 %", 0.75: "75 %",
                                            1: "100 %"}  # fmt: skip
        plot.ygrid.visible = False
        plot.yaxis.major_tick_line_color = None
        plot.axis.axis_line_color = NO_LABEL
        return plot

    def show(self, agreement: NeighbourAgreement, labels: WindowLabels | None, kind: str) -> None:
        """Show an agreement, also by the first model's labels, whose title is `kind`."""
        mean, bounds, sample = agreement.overall, "", ""
        if agreement.interval is not None:
            low, high = agreement.interval
            bounds = f" (95 % interval {100 * low:.0f} – {100 * high:.0f} %)"
        if agreement.n_matched > len(agreement.pairs):
            sample = f", a random sample of {agreement.n_matched:,}"
        self._text.object = (
            f'<div class="bp-heading">Agreement of the neighbourhoods</div>'
            f'<div><span class="bp-number">{100 * mean.share:.0f} %</span> of the '
            f"{agreement.n_neighbors} nearest neighbours are the same in both models{bounds}.</div>"
            f'<div class="bp-note">By chance it would be {100 * mean.chance:.1f} %. '
            f"{mean.windows:,} windows{sample}.</div>"
        )
        self._show_labels(agreement, labels, kind)

    def say(self, sentence: str) -> None:
        """Show a sentence instead."""
        self._text.object = (
            f'<div class="bp-heading">Agreement of the neighbourhoods</div>'
            f'<div class="bp-note">{html.escape(sentence)}</div>'
        )
        self._chart.visible = False
        self._rest.object = ""

    def _show_labels(
        self, agreement: NeighbourAgreement, labels: WindowLabels | None, kind: str
    ) -> None:
        rows: list[tuple[str, MeanAgreement]] = []
        if labels is not None:
            means = agreement.by_label(labels.codes).items()
            rows = [(labels.names[code], mean) for code, mean in means if mean.windows]
        most = sorted(rows, key=lambda row: -row[1].windows)[:_MOST_LABELS]
        most.sort(key=lambda row: row[1].share)
        self._chart.visible = len(most) > 1
        if not self._chart.visible:
            self._rest.object = ""
            return
        factors = axis_categories([name for name, _ in most], 24)
        self._figure.height = 40 + 20 * len(most)
        self._range.factors = factors
        name_figure(
            self._figure, f"Agreement of the neighbourhoods by {kind}",
            "; ".join(f"{name} {mean.share:.0%}" for name, mean in most[::-1]),
        )  # fmt: skip
        self._source.data = {
            "label": factors,
            "name": [name for name, _ in most],
            "share": [mean.share for _, mean in most],
            "chance": [mean.chance for _, mean in most],
            "windows": [mean.windows for _, mean in most],
        }
        others = len(rows) - len(most)
        more = f" {others} rarer labels are not drawn." if others else ""
        self._rest.object = (
            f'<div class="bp-note">Bars: {html.escape(kind)}. Strokes: chance.{more}</div>'
        )
