"""A label for the windows that are selected on the map, which people's journal keeps."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

import numpy as np
import panel as pn

from bacpipe.dashboard.background import STORING, Background
from bacpipe.dashboard.shared.labels import WindowLabels
from bacpipe.dashboard.shared.results import ModelResults
from bacpipe.dashboard.shared.to_review import ClipsToReview
from bacpipe.dashboard.shared.widgets import html_pane
from bacpipe.errors import counted
from bacpipe.labels.people import label_windows
from bacpipe.store.judgements import YES

_MANY = 200  # windows that nobody labels by mistake without being asked
_MOST_GROUPS = 300  # labels in the list of groups
_NONE = "–"


class LabellingPanel:
    """Field and buttons: take a group, label what is selected, or listen to it first.

    Parameters
    ----------
    background : Background
    name_field : panel object
        Where visitors type their name.
    on_group : callable
        Gets the windows (int64) of a group that was taken.
    on_review : callable
        Gets the selected windows, to be heard one after the other.
    on_labelled : callable
        Called when labels have reached the disk.

    Attributes
    ----------
    panel : panel object
    """

    def __init__(
        self,
        background: Background,
        name_field: Any,
        *,
        on_group: Callable[[np.ndarray], None],
        on_review: Callable[[ClipsToReview], None],
        on_labelled: Callable[[], None],
    ) -> None:
        self._background, self._on_group, self._on_review = background, on_group, on_review
        self._on_labelled = on_labelled
        self._results: ModelResults | None = None
        self._labels: WindowLabels | None = None
        self._rows = np.zeros(0, np.int64)
        self._annotator, self._may_edit = "", False
        self._sure: tuple[str, int] | None = None
        self._told = ""
        self._storing = False
        self._group, self._kind = np.zeros(0, np.int64), ""  # what was taken from the list
        wide: dict[str, Any] = {"sizing_mode": "stretch_width", "margin": (2, 5)}
        self._groups = pn.widgets.Select(label="Select all windows of", options=[_NONE], **wide)
        self._label = pn.widgets.TextInput(label="Label for what is selected", **wide)
        self._give = pn.widgets.Button(
            label="Label", color="primary", variant="outline", disabled=True, **wide
        )
        self._review = pn.widgets.Button(label="Listen in Review", disabled=True, **wide)
        self._note = html_pane("", "bp-note", margin=(2, 5))
        self._groups.param.watch(lambda event: self._take(event.new), "value")
        self._shown: np.ndarray | None = None
        self._name = name_field
        self._give.on_click(lambda _: self._write())
        self._review.on_click(lambda _: self._listen())
        self.panel = pn.Column(
            self._groups, self._label, self._name, pn.Row(self._give, self._review), self._note,
            sizing_mode="stretch_width",
        )  # fmt: skip

    def allow(self, annotator: str, *, may_edit: bool) -> None:
        """Say who labels, and whether visitors of this server may."""
        self._annotator, self._may_edit = annotator, may_edit
        self._name.visible = may_edit
        self._update()

    def offer_groups(self, labels: WindowLabels | None, shown: np.ndarray) -> None:
        """Offer the groups of the present colours, clusters or classes, of the windows shown."""
        self._shown = shown
        if labels is self._labels:
            return
        self._labels = labels
        names = () if labels is None or len(labels.names) > _MOST_GROUPS else labels.names
        self._groups.param.update(options=[_NONE, *names], value=_NONE, disabled=not names)

    def offer(self, results: ModelResults, rows: np.ndarray) -> None:
        """Offer the selected windows (int64)."""
        # The map is drawn anew after labelling; that can be read until others are selected.
        told = self._told if np.array_equal(rows, self._rows) else ""
        self._results, self._rows, self._sure, self._told = results, rows, None, told
        self._update(told)

    def _update(self, sentence: str = "") -> None:
        none = not len(self._rows)
        self._give.disabled = none or self._storing or not (self._may_edit and self._annotator)
        self._review.disabled = none
        if not sentence:
            if not self._may_edit:
                sentence = "Labels cannot be given here: the dashboard was started without edit."
            elif not self._annotator:
                sentence = "Type your name to label."
            elif none:
                sentence = "Select windows with the lasso or the box to label them."
            else:
                sentence = f"{counted(len(self._rows), 'window')} will be labelled."
        self._note.object = html.escape(sentence)

    def _take(self, name: str) -> None:
        labels = self._labels
        if labels is None or self._shown is None or name not in labels.names:
            return
        group = labels.windows_with([name]) & self._shown
        self._group, self._kind = np.flatnonzero(group), labels.kind
        self._on_group(self._group)

    def _listen(self) -> None:
        if self._results is not None and len(self._rows):
            label = self._text
            title = f"{counted(len(self._rows), 'window')} selected on the map"
            chosen = self._chosen_by
            self._on_review(
                ClipsToReview(self._results, self._rows, title, label, chosen_by=chosen)
            )

    @property
    def _chosen_by(self) -> str:
        return self._kind if np.array_equal(self._rows, self._group) else "map"

    @property
    def _text(self) -> str:
        return " ".join((self._label.value_input or self._label.value or "").split())[:200]

    def _write(self) -> None:
        results, rows, label = self._results, self._rows, self._text
        # Browsers can press buttons that are not there.
        if results is None or not len(rows) or self._storing:
            return
        if not (self._may_edit and self._annotator):
            self._update()
            return
        if not label:
            self._update("Type a label first.")
            return
        if len(rows) > _MANY and self._sure != (label, len(rows)):
            self._sure = (label, len(rows))
            self._update(f"{len(rows):,} windows at once as {label!r}? Press Label again if so.")
            return
        self._sure = None
        table = results.window_table(rows).rename(columns={"audiofilename": "recording"})
        table = table.assign(
            label=label, value=YES, annotator=self._annotator, chosen_by=self._chosen_by
        )
        self._give.disabled = self._storing = True
        self._background.run(
            f"label-{id(self)}",
            lambda: label_windows(results.loader.audio_dir, table, **results.settings),
            lambda count: self._done(f"{counted(count, 'window')} labelled {label!r}."),
            fail=self._done,
            on=STORING,
        )

    def _done(self, sentence: str) -> None:
        self._told, self._storing = sentence, False
        self._update(sentence)
        self._on_labelled()
