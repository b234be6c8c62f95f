"""Teach: from a few labels to a recogniser of one's own, round after round."""

from __future__ import annotations

import hashlib
import html
import unicodedata
from typing import TYPE_CHECKING, Any, ClassVar, get_args
from urllib.parse import urlencode

import panel as pn
import param

from bacpipe.dashboard.background import LESSONS, LONG
from bacpipe.dashboard.shared.gallery import Gallery
from bacpipe.dashboard.shared.model_view import ModelView
from bacpipe.dashboard.shared.results import DataSetResults
from bacpipe.dashboard.shared.widgets import Spinner, heading, html_pane, select, table_widget
from bacpipe.dashboard.shared.window_details import WindowDetails
from bacpipe.dashboard.style import CSS
from bacpipe.dashboard.teach import lesson
from bacpipe.dashboard.teach.figures import learning_curve_figure
from bacpipe.dashboard.teach.lesson import AUTOMATIC, Lesson
from bacpipe.errors import counted
from bacpipe.recognisers.recogniser import Recogniser
from bacpipe.recognisers.suggestions import Strategy

if TYPE_CHECKING:
    import pandas as pd

_STRATEGIES: dict[str, Strategy] = {
    "where it is least sure": "mixed",
    "best scores": "top",
    "scores near 0.5": "margin",
    "unlike all labels": "novel",
    "from all scores": "stratified",
    "at random": "random",
}
_SOURCES = {
    "people, else annotations": AUTOMATIC,
    "people": "people",
    "annotations": "annotations",
    "both": "both",
}
_COUNTS = (12, 24, 60)

_HELP = """
A **recogniser** learns your own classes from windows that you have labelled, on top of a model's
embeddings: a call type, an individual, a species that no model knows. Ten labels are enough for a
beginning.

1. **Label** some windows: find one call in *Search*, mark those that are it with *is*, and some
   that are not with *is not*.
2. **Train**. It takes about a second. Training again under the same name replaces it.
3. **How good is it?** Every recording is judged by what was learnt from the others. The curve
   shows what fewer labels would have given: if it still climbs, more labels help.
4. **Label next** shows the windows that teach it most. Listen, mark, train again; two or three
   rounds do more than any single long one.
5. **Apply** it to all recordings; its detections are then in *Predictions*, and in everything
   that bacpipe exports.

*Scores are no probabilities*: 0.5 is the border that was learnt. What a score is worth, Review and
`bacpipe.calibrate` tell.
"""
_TITLES = {
    "label": "label", "yes": "is", "no": "is not", "unsure": "unsure", "recordings": "recordings"
}  # fmt: skip


class TeachView(ModelView):
    """Labels, recognisers, how good they are, and what to label next."""

    key: ClassVar[str] = "teach"
    title: ClassVar[str] = "Teach"
    help_text: ClassVar[str] = _HELP
    in_address: ClassVar[dict[str, str]] = {
        **{name: name for name in ("model", "recogniser", "labels_from", "strategy", "of_class")},
        "count": "next_count",
    }

    labels_from: Any = param.Selector(default=AUTOMATIC, objects=list(_SOURCES.values()))
    strategy: Any = param.Selector(default="mixed", objects=list(get_args(Strategy)))
    of_class: Any = param.String(default="")
    count: Any = param.Selector(default=12, objects=list(_COUNTS))

    def __init__(self, data_set: DataSetResults, **values: Any) -> None:
        super().__init__(data_set, **values)
        self._lesson: Lesson | None = None
        self.details = WindowDetails(
            data_set, self.background, height=200, settings=self.spectrograms
        )
        self._spinner, self._curve_spinner = Spinner(), Spinner()
        self._make_widgets()

    # ------------------------------------------------------------------ layout

    def _make_widgets(self) -> None:
        wide: dict[str, Any] = {"sizing_mode": "stretch_width", "margin": (2, 10)}
        parameters = self.param
        self._from = select(parameters.labels_from, "Labels of", _SOURCES)
        self._classes = pn.widgets.MultiSelect(
            label="Classes (none chosen: all)", options=[], size=4, **wide
        )
        self._name = pn.widgets.TextInput(
            label="Name of the recogniser", placeholder="that of the first class", **wide
        )
        self._train = pn.widgets.Button(label="Train", color="primary", **wide)
        self._train.on_click(lambda _: self._start_training())
        self._strategy = select(parameters.strategy, "Label next", _STRATEGIES)
        self._of_class = pn.widgets.Select(label="Class", options={"all": ""}, **wide)
        self._of_class.param.watch(self._choose_class, "value")
        self._count_widget = select(parameters.count, "Windows")
        self._apply = pn.widgets.Button(
            label="Apply to all recordings", color="primary", disabled=True, **wide
        )
        self._apply.on_click(lambda _: self._start_applying())
        self._labels = html_pane()
        self._state = html_pane("", "bp-window-title")
        self._applied = html_pane()
        self._quality = pn.Column(sizing_mode="stretch_width")
        if not self.data_set.may_edit:
            self._train.disabled = True

    def controls(self) -> Any:
        who = self.visitor.name_field(margin=(2, 10), sizing_mode="stretch_width")
        return pn.Column(
            self._model,
            heading("Learn", margin=(4, 10)),
            who,
            self._from,
            self._classes,
            self._name,
            self._train,
            heading("Use", margin=(8, 10)),
            self._recogniser,
            self._strategy,
            self._of_class,
            self._count_widget,
            self._apply,
            sizing_mode="stretch_width",
        )

    def body(self) -> Any:
        self.gallery = Gallery(self, on_near=self._show_near, on_marked=self._marked)
        close = pn.widgets.Button(label="✕ close", color="light", height=28, margin=(2, 10))
        close.on_click(lambda _: self._near.param.update(visible=False))
        self._near: Any = pn.Column(
            close, self.details.panel, visible=False, min_width=320, css_classes=["bp-near"],
            styles={"flex": "1 1 340px"},
        )  # fmt: skip
        self._next = pn.Column(
            heading("What to label next"), self.gallery.panel, visible=False,
            sizing_mode="stretch_width",
        )  # fmt: skip
        half: dict[str, Any] = {"styles": {"flex": "1 1 320px", "min-width": "300px"}}
        lesson_shown = pn.Column(
            self._spinner.panel,
            self._state,
            self._applied,
            pn.FlexBox(
                pn.Column(heading("Labels"), self._labels, **half),
                pn.Column(
                    self._curve_spinner.panel, heading("How good is it?"), self._quality, **half
                ),
                align_items="start",
                sizing_mode="stretch_width",
            ),
            self._next,
            stylesheets=[CSS],
            min_height=500,
            styles={"flex": "3 1 420px", "min-width": "300px"},
        )
        return pn.FlexBox(
            self._near,
            lesson_shown,
            flex_direction="row-reverse",  # at the right, and on narrow screens on top
            align_items="start",
            sizing_mode="stretch_width",
            stylesheets=[CSS],
        )

    # ------------------------------------------------------------------ what is shown

    def opened(self) -> None:
        self._greeting = self.notice.sentence
        if not self.data_set.may_edit:
            self._greeting += (
                " Nothing can be stored here: start the dashboard with edit=true to label and "
                "train."
            )
            self.say(self._greeting.strip())
        super().opened()
        self.param.watch(lambda _: self._read(), ["labels_from"])
        self.param.watch(lambda _: self._show_recogniser(), ["recogniser"])
        self.param.watch(lambda *_: self._propose(), ["strategy", "of_class", "count"])
        self._read()

    def _read(self, *, then: str = "") -> None:
        model, labels_from = self.model, self.labels_from
        self.background.cancel("recount")  # of another model, or of other labels
        self.say(self._greeting.strip())  # not when labels come, or an answer to a click would go
        self.background.run(
            "lesson",
            lambda: lesson.read_lesson(self.data_set.model(model), labels_from),
            lambda new_lesson: self._take(new_lesson, then),
            fail=self._fail,
            busy=self._spinner,
        )

    def _take(self, new_lesson: Lesson, then: str) -> None:
        before = self._lesson
        other = before is None or _subject(before) != _subject(new_lesson)
        self._show_lesson(new_lesson)
        with self._own:
            wanted = self._offer_recognisers([*new_lesson.recognisers], then or self.recogniser)
        changed = wanted != self.recogniser
        self.recogniser = wanted
        if not changed and (other or then):
            self._show_recogniser()
        if not wanted:
            self._show_nothing()
        self._name_training()

    def _show_lesson(self, new_lesson: Lesson) -> None:
        """List the labels, and offer them as classes."""
        self._lesson = new_lesson
        self._labels.object = (
            f'<div class="bp-note">{html.escape(new_lesson.remark)}</div>'
            if new_lesson.remark
            else _labels_html(new_lesson.labels)
        )
        with self._own:
            names = new_lesson.labels["label"].tolist()
            kept = [name for name in self._classes.value if name in names]
            self._classes.param.update(options=names, value=kept)

    def _name_training(self) -> None:
        """Say on the button how much the recogniser does not know yet."""
        new = 0 if self._lesson is None else self._lesson.unlearnt(self.recogniser)
        self._train.label = f"Train again ({counted(new, 'new label')})" if new else "Train"

    def _forget(self) -> None:
        """Drop what is computed about the recogniser that was shown."""
        for key in ("curve", "next"):
            self.background.cancel(key)

    def _show_nothing(self) -> None:
        self._forget()
        self._state.object = (
            "No recogniser of this model yet: choose classes and a name at the left, and train."
        )
        self._quality.objects = []
        self._next.visible, self._apply.disabled = False, True
        self.gallery.clear()

    def _show_recogniser(self) -> None:
        current_lesson, name = self._lesson, self.recogniser
        if current_lesson is None or name not in current_lesson.recognisers:
            self._forget()
            return
        recogniser = current_lesson.recognisers[name]
        self._apply.disabled = not self.data_set.may_edit
        self._applied.object = ""
        self._state.object = _described(name, recogniser)
        self._name_training()
        options = {"all": "", **{label: label for label in recogniser.classes}}
        with self._own:
            of_class = self.of_class if self.of_class in recogniser.classes else ""
            self._of_class.param.update(options=options, value=of_class)
            self.of_class = of_class
        results, labels_from = current_lesson.results, self.labels_from
        self._quality.objects = []
        self.background.run(
            "curve",
            lambda: lesson.curve(results, name, labels_from),
            self._show_curve,
            fail=lambda sentence: self._quality.param.update(objects=[_note(sentence)]),
            busy=self._curve_spinner,
            on=LONG,
        )
        self._propose()

    def _show_curve(self, curve: pd.DataFrame) -> None:
        last = curve[curve["share"] == curve["share"].max()]
        table = last[["class", "labels", "average_precision", "precision", "recall"]]
        table = table.assign(labels=table["labels"].round().astype(int)).reset_index(drop=True)
        remark = curve.attrs.get("how", "")
        if table["average_precision"].isna().any():
            remark += (
                ". A dash: nothing can be said yet, for want of windows that are it and of such "
                "that are not, in several recordings"
            )
        self._quality.objects = [
            table_widget(
                table,
                decimals=2,
                layout="fit_columns",
                page_size=8,
                widths={"labels": 84, "average_precision": 104, "precision": 98, "recall": 82},
            ),
            _note(f"{remark[:1].upper()}{remark[1:]}. Precision and recall at a score of 0.5."),
            learning_curve_figure(curve),
        ]

    def _propose(self) -> None:
        current_lesson, name = self._lesson, self.recogniser
        if self._own or current_lesson is None or name not in current_lesson.recognisers:
            return
        results, count = current_lesson.results, self.count
        strategy, label = self.strategy, self.of_class
        self._next.visible = True
        self.background.run(
            "next",
            lambda: lesson.proposals(results, name, strategy, label, count),
            self._show_proposals,
            fail=self.say,
            busy=self._spinner,
        )

    def _show_proposals(self, table: pd.DataFrame) -> None:
        current_lesson = self._lesson
        if current_lesson is None:
            return
        if table.empty:
            self.gallery.clear()
            self.say("All windows are labelled.")
            return
        labels = table["label"].unique().tolist()
        self.gallery.show(
            current_lesson.results, table, chosen_by="suggestion", label=str(labels[0]),
            known=[*labels, *current_lesson.labels["label"]], title="what to label next",
        )  # fmt: skip

    def _show_near(self, row: int) -> None:
        if self._lesson is not None:
            self._near.visible = True
            self.details.show(self._lesson.results, row)

    def _fail(self, sentence: str) -> None:
        self._lesson = None
        self.say(sentence)
        self._labels.object = self._state.object = ""
        self._show_nothing()
        self._name_training()

    # ------------------------------------------------------------------ what visitors do

    def _change_model(self, model: str) -> None:
        self.param.update(model=model, recogniser="", of_class="")
        self._read()

    def _choose_class(self, event: Any) -> None:
        if not self._own and event.new is not None:
            self.of_class = event.new

    def _marked(self) -> None:
        """Count anew, and say that the recogniser does not know the new labels yet."""
        current_lesson = self._lesson
        if current_lesson is None:
            return
        results, labels_from = current_lesson.results, self.labels_from
        self.background.run(
            "recount",
            lambda: lesson.read_lesson(results, labels_from),
            self._take_recount,
            fail=self.say,
        )

    def _take_recount(self, new_lesson: Lesson) -> None:
        if self._lesson is None or _subject(self._lesson) != _subject(new_lesson):
            return
        self._show_lesson(new_lesson)
        self._name_training()

    def _is_known(self) -> bool:
        """Whether this visitor may change results, and has said who they are."""
        if self.data_set.may_edit and not self.may_label:
            self.say("To teach a recogniser, or to apply one, type your name at the left.")
        return self.may_label

    def _start_training(self) -> None:
        current_lesson = self._lesson
        if not self._is_known():
            return
        if current_lesson is None:
            self.say("The labels are not read yet: train when they are listed.")
            return
        named = [*self._classes.value, *current_lesson.labels["label"]]
        name = (self._name.value_input or self._name.value).strip()
        if not named:
            self.say(current_lesson.remark)
            return
        name = name or _possible_name(named[0])
        results, labels_from = current_lesson.results, self.labels_from
        classes = list(self._classes.value)
        self._train.disabled = True

        def fail(sentence: str) -> None:
            self._train.disabled = False
            self.say(sentence)

        def show(_: Recogniser) -> None:
            self._train.disabled = False
            self._read(then=name)

        self.background.run(
            "train",
            lambda: lesson.train(results, name, classes, labels_from),
            show,
            fail=fail,
            busy=self._spinner,
            on=LESSONS,
        )

    def _start_applying(self) -> None:
        current_lesson, name = self._lesson, self.recogniser
        if current_lesson is None or name not in current_lesson.recognisers or not self._is_known():
            return
        results = current_lesson.results
        self._apply.disabled = True

        def finish(sentence: str, link: str = "") -> None:
            self._apply.disabled = not self.recogniser
            self._applied.object = f'<div class="bp-open">{html.escape(sentence)} {link}</div>'

        def show(counts: dict[str, int]) -> None:
            said = ", ".join(f"{label} in {counted(n, 'window')}" for label, n in counts.items())
            query = {"view": "predictions", "model": results.name, "source": f"recogniser_{name}"}
            link = f'<a href="?{html.escape(urlencode(query))}">Show them in Predictions</a>'
            finish(f"{name} has found with a score from 0.5: {said}.", link)

        self.background.run(
            f"apply-{results.name}-{name}",  # no other one that is to be applied is left out
            lambda: lesson.apply(results, name),
            show,
            fail=finish,
            busy=self._spinner,
            on=LESSONS,
        )


def _subject(shown: Lesson) -> tuple[str, str]:
    """What a lesson is about: whose embeddings, and whose labels."""
    return shown.results.name, shown.labels_from


def _note(sentence: str) -> Any:
    return html_pane(f'<div class="bp-note">{html.escape(sentence)}</div>')


def _labels_html(labels: pd.DataFrame) -> str:
    """Table of labels; they are text."""
    head = "".join(f"<th>{title}</th>" for title in _TITLES.values())
    rows = "".join(
        f"<tr><td>{html.escape(str(row['label']))}</td>"
        + "".join(f"<td>{row[name]:,}</td>" for name in list(_TITLES)[1:])
        + "</tr>"
        for row in labels.to_dict("records")
    )
    return f'<table class="bp-counts"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'


def _described(name: str, recogniser: Recogniser) -> str:
    learnt = recogniser.about.get("labels", {})
    parts = [
        f"{label} ({about.get('present', 0):,} is, {about.get('absent', 0):,} is not)"
        for label, about in learnt.items()
    ]
    made = str(recogniser.about.get("created", ""))[:16].replace("T", " ")
    text = f"learnt {', '.join(parts) or ', '.join(recogniser.classes)}; {made} UTC"
    only = [label for label, about in learnt.items() if not about.get("absent")]
    if only:
        text += (
            f". Nobody has marked a window without {', or without '.join(only)} yet, so windows "
            f"without labels stand for these; mark some below with “is not”"
        )
    return f"<b>{html.escape(name)}</b> {html.escape(text)}."


def _possible_name(label: str) -> str:
    """Name for a recogniser of a label, of the signs that names may have."""
    plain = unicodedata.normalize("NFKD", label)
    letters = [sign for sign in plain if not unicodedata.combining(sign)]
    kept = "".join(sign if sign.isascii() and sign.isalnum() else "_" for sign in letters)
    name = "_".join(part for part in kept.split("_") if part)[:60].lower()
    if name and all(sign.isascii() for sign in letters if sign.isalnum()):
        return name
    # Labels in other scripts keep apart, and one that is learnt again has the name that it had.
    mark = hashlib.blake2b(label.encode(errors="surrogatepass"), digest_size=3).hexdigest()
    return f"{name or 'class'}_{mark}"
