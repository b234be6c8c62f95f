"""Review: hear one clip after the other, and mark each with a key."""

from __future__ import annotations

import html
import io
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import panel as pn
import param

from bacpipe.dashboard.background import sentence_of
from bacpipe.dashboard.review.desk import Desk
from bacpipe.dashboard.review.precision import PrecisionPanel
from bacpipe.dashboard.review.queue import (
    BEST,
    LEFT_OUT,
    NOBODY,
    ORDERS,
    SENT,
    SPREAD,
    SUGGESTED,
    Asked,
    Queue,
    classes_of,
    make_queue,
    queue_of,
    scores_of,
    usual_labels,
)
from bacpipe.dashboard.shared.own_changes import OwnChanges
from bacpipe.dashboard.shared.recognisers import recognisers_of
from bacpipe.dashboard.shared.results import DataSetResults, ModelResults
from bacpipe.dashboard.shared.to_review import ClipsToReview
from bacpipe.dashboard.shared.view import View
from bacpipe.dashboard.shared.widgets import Notice, Spinner, csv_of, html_pane
from bacpipe.errors import BacpipeError, ResultsNotFoundError, counted
from bacpipe.labels.people import people_annotations

_AROUND = {"none": 0.0, "1 s": 1.0, "3 s": 3.0}
_HELP = """
Hear one clip after the other, and say with a **key** what is in it. Each mark is on the disk as
soon as its key is pressed: nothing is lost when the page or the server is closed, and next time
you go on where you were.

| key | |
|---|---|
| **Y** | right: the class is in the clip, between the paled margins |
| **N** | wrong: it is not |
| **S** | skip: I cannot say (kept as *unsure*, so that it does not come again) |
| **U** or backspace | undo: takes the last mark back and shows its clip |
| **space** | play, stop |
| **→** **←** | next and previous clip, without a mark |
| **1** to **9** | the clip holds this label, whatever is asked; then go on with Y, N or → |
| **A** | play each clip at once, or only when asked |

**Order.** *Best scores first* finds the species. *Spread over scores and sites* takes few clips of
every kind, so that few marks tell how far scores can be trusted: `bacpipe.review_plan` chooses
them; load again for the next round. *What the recogniser is to learn from* are the suggestions of
`bacpipe.suggest`. Explore and other tabs send selections here.

**Precision by threshold** is computed after each mark from all marks of the class
(`bacpipe.calibrate`): the share of right ones among all detections from a score on, with its 95 %
interval, and the score from which each detection is right as often as you want. It is only as good
as the choice of the clips: marks of the best scores alone say little about low ones.

**Download** gives what people heard as an `annotations.csv`; where several people contradict each
other, the majority counts. Everybody has their own name here, and all marks are in
`labels/people_labels.jsonl` in the results.
"""


class _Ready(NamedTuple):
    """What there is to choose from, and the queue or why there is none."""

    results: ModelResults
    recognisers: list[str]
    classes: Mapping[str, int]
    labels: list[str]
    queue: Queue | None
    problem: str


class ReviewView(View):
    """Queue of clips, marks by keys, and what they say about the scores."""

    key: ClassVar[str] = "review"
    title: ClassVar[str] = "Review"
    help_text: ClassVar[str] = _HELP
    in_address: ClassVar[dict[str, str]] = {
        "model": "model", "scores": "scores", "label": "label", "order": "order",
        "left_out": "left_out", "around": "review_around", "keys": "keys",
    }  # fmt: skip

    _wide: ClassVar[dict[str, Any]] = {"sizing_mode": "stretch_width", "margin": (2, 5)}

    model: Any = param.Selector(objects=[])
    scores: Any = param.String(default="")
    label: Any = param.String(default="")
    order: Any = param.Selector(objects=[BEST, SPREAD, SUGGESTED, SENT], default=BEST)
    left_out: Any = param.Selector(objects=list(LEFT_OUT.values()), default=NOBODY)
    around: Any = param.Number(default=1.0, bounds=(0, 10))
    keys: Any = param.List(default=[], item_type=str)

    def __init__(self, data_set: DataSetResults, **values: Any) -> None:
        super().__init__(data_set, **values)
        self._sent: ClipsToReview | None = None
        self._results: ModelResults | None = None
        self._queue: Queue | None = None
        self._own = OwnChanges()
        self._opened = False
        self.precision = PrecisionPanel(self.background)
        self.desk = Desk(
            self.background,
            colour_scale=data_set.options.spectrogram_colour_scale,
            settings=self.spectrograms,
            why_not=self._why_not,
            annotator=lambda: self.visitor.annotator,
            on_stored=self.precision.refresh_soon,
            on_ready=self._begin,
        )
        self._spinner = Spinner()
        self._left = html_pane("", "bp-note", margin=(0, 10))
        models = data_set.available
        self._make_widgets(models)
        self.param.model.objects = models
        if models:
            with_classes = (name for name in models if data_set.model(name).loader.has_predictions)
            self.model = next(with_classes, models[0])

    # ------------------------------------------------------------------ layout

    def _make_widgets(self, models: list[str]) -> None:
        wide = self._wide
        self._model = pn.widgets.Select(label="Model", options=models, **wide)
        self._scores = pn.widgets.Select(label="Scores of", options={}, **wide)
        self._label = pn.widgets.Select(label="Class in question", options={}, **wide)
        self._order = pn.widgets.Select(label="Order", options={}, **wide)
        self._left_out = pn.widgets.Select(label="Clips that", options=LEFT_OUT, **wide)
        self._around = pn.widgets.Select(label="Seconds around", options=_AROUND, **wide)
        self._again = pn.widgets.Button(label="Load again", **wide)
        self._keys = pn.widgets.TextAreaInput(
            label="Labels on keys 1 to 9, one a line", rows=4, **wide
        )
        self._download = pn.widgets.FileDownload(
            callback=self._annotations, filename="annotations.csv", auto=True,
            label="Download annotations.csv", color="primary", variant="outline", **wide,
        )  # fmt: skip
        self._problem = Notice()
        for name, widget in {
            "model": self._model, "scores": self._scores, "label": self._label,
            "order": self._order, "left_out": self._left_out, "around": self._around,
        }.items():  # fmt: skip
            widget.param.watch(lambda event, name=name: self._chosen(name, event.new), "value")
        self._again.on_click(lambda _: self._load())
        self._keys.param.watch(lambda event: self._chosen_keys(event.new), "value")

    def controls(self) -> Any:
        self.visitor.param.watch(lambda _: self._renamed(), "annotator")
        return pn.Column(
            self.visitor.name_field(**self._wide), self._model, self._scores, self._label,
            self._order, self._left_out, self._around, self._again, self._keys, self._download,
            self._problem.panel,
            sizing_mode="stretch_width",
        )  # fmt: skip

    def body(self) -> Any:
        return pn.Column(
            self._spinner.panel, self.desk.panel, self._left, self.precision.panel,
            sizing_mode="stretch_both", scroll="y-auto",
        )  # fmt: skip

    # ------------------------------------------------------------------ queue

    def _begin(self) -> None:
        # Bokeh fails on changes of widgets that it has not laid out yet.
        if not self._opened:
            self._opened = True
            self._load()

    def opened(self) -> None:
        self.param.watch(lambda *_: self._load(), ["model", "scores", "label", "order", "left_out"])
        self.param.watch(lambda _: self.desk.set_around(self.around), "around")
        self._around.value = self.around if self.around in _AROUND.values() else 1.0
        self.desk.set_around(self.around)

    def take(self, clips: ClipsToReview) -> None:
        """Review the windows that another view sends."""
        self._sent = clips
        with self._own:
            # What was chosen for another model would not do for this one's other orders.
            self.param.update(order=SENT, model=clips.model, scores="", label="")
        self._load()

    def _load(self) -> None:
        if self._own or not self._opened:
            return
        if self.model is None:
            self._fail(" ".join(self.data_set.problems().values()))
            return
        sent = self._sent if self.order == SENT else None
        asked = Asked(
            self.model, self.scores, self.label, self.order, self.left_out,
            self.visitor.annotator,
        )  # fmt: skip

        def make() -> _Ready:
            results = self.data_set.model(asked.model)
            queue, problem = None, ""
            try:
                queue = _queue(results, asked, sent)
            except Exception as error:  # there must be something else to choose all the same
                problem = sentence_of(error)
            classes = _classes(results, asked.scores) if queue is None else queue.labels
            recognisers = [*recognisers_of(results)]
            return _Ready(results, recognisers, classes, usual_labels(results), queue, problem)

        self.background.run("queue", make, self._show, fail=self._fail, busy=self._spinner)

    def _show(self, ready: _Ready) -> None:
        self._results, queue = ready.results, ready.queue
        with self._own:
            self._offer(ready)
            if not self.keys:
                self.keys = ready.labels
            self._keys.value = "\n".join(self.keys)
        self.desk.set_labels(self.keys[:9])
        if queue is None:
            self._show_nothing(ready.problem)
            return
        self.say()
        self._queue = queue
        self._left.object = html.escape(_about(queue))
        self.desk.show(queue, empty="There is no clip left to mark here.")
        self.precision.show(queue)

    def _offer(self, ready: _Ready) -> None:
        """List what can be chosen, whether there is a queue or not."""
        name, queue = ready.results.name, ready.queue
        self._model.value = name
        scores = {
            f"{name}'s classifier": "",
            **{f"recogniser {recogniser}": recogniser for recogniser in ready.recognisers},
        }
        if self.scores not in scores.values():
            scores[f"recogniser {self.scores} (not here)"] = self.scores
        self._scores.param.update(options=scores, value=self.scores)
        orders = {
            title: value
            for title, value in ORDERS.items()
            if value == self.order
            or ((value != SUGGESTED or self.scores) and (value != SENT or self._sent is not None))
        }
        self._order.param.update(options=orders, value=self.order)
        if queue is not None and not queue.labels:
            title = queue.label or "none: give labels with number keys"
            self._label.param.update(options={title: queue.label}, value=queue.label, disabled=True)
        else:
            titles = {f"{label} ({count:,})": label for label, count in ready.classes.items()}
            label = self.label if self.label in ready.classes else next(iter(ready.classes), "")
            self._label.param.update(options=titles, value=label or None, disabled=not titles)
            self.label = label
        self._left_out.param.update(value=self.left_out, disabled=self.order == SENT)

    def _show_nothing(self, sentence: str) -> None:
        self._queue = None
        self.say(sentence)
        self._left.object = ""
        self.desk.show(None, empty="There is nothing to review here.")
        self.precision.show(None)

    def _fail(self, sentence: str) -> None:
        self._results = None
        with self._own:
            self._model.value = self.model
        self._show_nothing(sentence)

    # ------------------------------------------------------------------ what visitors do

    def _chosen(self, name: str, value: Any) -> None:
        if self._own or value is None:
            return
        changes = {name: value}
        if name in ("model", "scores"):
            changes["label"] = ""
        if name == "model":
            changes["scores"] = ""
        if "scores" in changes and self.order == SUGGESTED:
            changes["order"] = BEST
        with self._own:
            self.param.update(**changes)
        if name != "around":
            self._load()

    def _chosen_keys(self, text: str) -> None:
        if self._own:
            return
        lines = (" ".join(line.split())[:200] for line in text.splitlines())
        self.keys = [line for line in dict.fromkeys(lines) if line][:9]
        self.desk.set_labels(self.keys)

    def _renamed(self) -> None:
        if self.left_out == NOBODY:
            self.desk.update()
        else:
            self._load()

    def _why_not(self) -> str:
        if not self.data_set.may_edit:
            return "Listening only: this dashboard was started without edit=true."
        return "" if self.may_label else "To mark clips, type your name at the left."

    def _annotations(self) -> io.BytesIO:
        if self._results is None:
            return io.BytesIO()
        return io.BytesIO(csv_of(people_annotations(self._results.loader)))


def _queue(results: ModelResults, asked: Asked, sent: ClipsToReview | None) -> Queue:
    if sent is not None:
        return queue_of(results, sent)
    if asked.order == SENT:
        raise ResultsNotFoundError(
            "No clips were sent here: select some in Explore, or choose another order."
        )
    return make_queue(results, asked)


def _classes(results: ModelResults, scores: str) -> Mapping[str, int]:
    """Classes that could be in question where there is no queue; none without scores."""
    try:
        return classes_of(scores_of(results, scores))
    except BacpipeError:
        return {}


def _about(queue: Queue) -> str:
    text = f"{counted(len(queue.rows), 'clip')}, {queue.title}."
    if queue.marked:
        text += f" {queue.marked:,} are left out, because they are marked already."
    return text
