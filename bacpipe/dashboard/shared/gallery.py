"""Windows side by side: look, listen, choose many, and say at once what is heard in them."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import panel as pn

from bacpipe.dashboard.background import STORING
from bacpipe.dashboard.shared.clips import Clip, channel_words, read_clip
from bacpipe.dashboard.shared.results import ModelResults, place_of, settings_for_reading
from bacpipe.dashboard.shared.tiles import Tiles, tile_picture
from bacpipe.dashboard.shared.to_review import ClipsToReview
from bacpipe.dashboard.shared.view import View
from bacpipe.dashboard.shared.widgets import Notice, Spinner, html_pane
from bacpipe.dashboard.style import CSS
from bacpipe.errors import BacpipeError, counted
from bacpipe.labels.people import current_labels, label_windows
from bacpipe.store.judgements import NO, UNDO, UNSURE, YES
from bacpipe.store.tables import CHANNEL, channels_of

if TYPE_CHECKING:
    import pandas as pd

SIZES = (12, 24, 48, 60)
_AT_ONCE = 12  # pictures that are made before any is shown
_SAID = {YES: "✓", NO: "✗", UNSURE: "?"}
_DIGITS = 3  # of seconds, as labels have them

Window = tuple[str, float, float]
"""Recording, start and end in seconds."""
Marks = list[list[str]]
"""What people have said of each window of a page, for others to read."""


class Gallery:
    """Small spectrograms of some windows, in pages.

    Parameters
    ----------
    view : View
        The view that it is part of.
    actions : sequence of panel objects
        What else can be done with the chosen windows, beside the buttons of the gallery.
    on_near : callable, optional
        Gets the row of the window that is to be seen from near.
    on_marked : callable, optional
        Called when labels were stored.

    Attributes
    ----------
    panel : panel object
    """

    def __init__(
        self,
        view: View,
        *,
        actions: Sequence[Any] = (),
        on_near: Callable[[int], None] | None = None,
        on_marked: Callable[[], None] | None = None,
    ) -> None:
        self._view, self._data_set, self._background = view, view.data_set, view.background
        self._on_near, self._on_marked = on_near, on_marked
        self._results: ModelResults | None = None
        self._table: pd.DataFrame | None = None
        self._chosen_by = self._title = ""
        self._first = 0
        self._last: list[dict[str, object]] = []
        self._storing = False
        self._key = f"gallery-{id(self)}"
        self._tiles = Tiles(self._play, self._look_near, sizing_mode="stretch_width")
        self._tiles.param.watch(lambda *_: self._count(), ["selected", "round"])
        self._note = html_pane("", "bp-note", margin=(2, 10))
        self._problem = Notice()
        self._spinner = Spinner()
        self._make_widgets(actions)

    def _make_widgets(self, actions: Sequence[Any]) -> None:
        def button(label: str, act: Callable[[], None], description: str, **look: Any) -> Any:
            made = pn.widgets.Button(
                label=label, description=description, margin=(2, 3), height=32, **look
            )
            made.on_click(lambda _: act())
            return made

        self._size = pn.widgets.Select(
            label="Per page", options=list(SIZES), value=24, width=80, margin=(2, 5)
        )
        self._size.param.watch(lambda _: self._turn_to(0), "value")
        self._back = button("◀", lambda: self._turn(-1), "previous page", width=40)
        self._on = button("▶", lambda: self._turn(1), "next page", width=40)
        everything = button("Select all", self.select_all, "of this page")
        nothing = button("None", self.select_none, "select none")
        self._label = pn.widgets.AutocompleteInput(
            label="Label", restrict=False, min_characters=1, case_sensitive=False,
            search_strategy="includes", placeholder="such as a species", width=190, margin=(2, 5),
        )  # fmt: skip
        # Browsers say what is typed, and what is taken from the list, in two places.
        self._label.param.watch(
            lambda event: setattr(self._label, "value_input", event.new), "value"
        )
        annotator = self._view.visitor.name_field(width=130, margin=(2, 5))
        marking = [
            button("✓ is", lambda: self._mark(YES), "It is heard in the selected windows",
                   color="primary"),
            button("✗ is not", lambda: self._mark(NO), "It is not heard in the selected windows"),
            button("? unsure", lambda: self._mark(UNSURE), "Nobody could say"),
        ]  # fmt: skip
        self._undo = button("Undo", self._take_back, "takes the last labels back", disabled=True)
        self._review = button(
            "Review", self._send_to_review, "one by one with the keyboard: the selected, or all",
            visible=False,
        )  # fmt: skip
        bottom: dict[str, Any] = {"align_items": "end", "margin": 0}
        self._bar = pn.FlexBox(
            self._size, self._back, self._on, everything, nothing, *actions, self._review, **bottom
        )
        self._marking = pn.FlexBox(
            self._label, *marking, self._undo, annotator,
            visible=self._data_set.may_edit, **bottom,
        )  # fmt: skip
        self._all = pn.Column(
            self._bar, self._marking, self._note, self._problem.panel, self._tiles,
            visible=False, sizing_mode="stretch_width",
        )  # fmt: skip
        self.panel = pn.Column(
            self._spinner.panel, self._all, stylesheets=[CSS], sizing_mode="stretch_width",
            min_height=120,
        )  # fmt: skip

    # ------------------------------------------------------------------ what is shown

    def show(
        self,
        results: ModelResults,
        table: pd.DataFrame,
        *,
        chosen_by: str,
        label: str = "",
        known: Sequence[str] = (),
        title: str = "",
    ) -> None:
        """Show windows of a model.

        Parameters
        ----------
        results : ModelResults
            Whose windows.
        table : pandas.DataFrame
            A row for each, in this order, with the columns recording, start and end (seconds);
            similarity, score, label, model and chosen_by are shown or kept with labels where they
            are.
        chosen_by : str
            How the windows were found, where the table does not say it.
        label : str
            What they may be marked as; visitors can type another one.
        known : sequence of str
            Labels to offer.
        title : str
            What the windows are, for people.
        """
        self._results, self._table = results, table
        self._chosen_by, self._title = chosen_by, title or chosen_by
        self._review.visible = self._view.can_review
        self._label.options = list(dict.fromkeys(known))
        if label:
            self._label.value = self._label.value_input = label
        self._all.visible = True
        self._turn_to(0)

    def clear(self) -> None:
        """Show nothing."""
        for key in (self._key, f"{self._key}-labels", f"{self._key}-sound"):
            self._background.cancel(key)
        self._results = self._table = None
        self._all.visible = False
        self._tiles.show([])

    @property
    def chosen(self) -> list[list[Any]]:
        """Windows that the visitor has chosen, as `ModelResults.place` has them."""
        page = self._page()
        rows = [page[i] for i in self._tiles.chosen if i < len(page)]
        return [place_of(*window_of(row)[:2], channel_of(row)) for row in rows]

    def select_all(self) -> None:
        """Choose all windows of the page."""
        self._tiles.selected = list(range(len(self._tiles.items)))

    def select_none(self) -> None:
        """Choose none."""
        self._tiles.selected = []

    def _page(self) -> list[dict[str, Any]]:
        if self._table is None:
            return []
        last = self._first + self._size.value
        rows = self._table.iloc[self._first : last].to_dict("records")
        return [{str(name): cell for name, cell in row.items()} for row in rows]

    def _turn(self, by: int) -> None:
        self._turn_to(self._first + by * self._size.value)

    def _turn_to(self, first: int) -> None:
        if self._table is None or self._results is None:
            return
        self._background.cancel(f"{self._key}-sound")  # of a window of another page
        self._first = max(0, first)
        page, results = self._page(), self._results
        self._back.disabled = self._first == 0
        self._on.disabled = self._first + len(page) >= len(self._table)
        self._problem.say()
        self._tiles.show([_about(row, results) for row in page])
        self._background.run(
            f"{self._key}-labels",
            lambda: _stored_marks(results, page),
            self._take_marks,
            fail=self._problem.say,
        )
        self._draw(results, page, [])

    def _draw(
        self, results: ModelResults, page: Sequence[Mapping[str, Any]], done: Sequence[str]
    ) -> None:
        """Make the pictures, the first of them at once and the others afterwards."""
        todo = page[len(done) : len(done) + _AT_ONCE]
        if not todo:
            return
        scale = self._data_set.options.spectrogram_colour_scale

        def compute() -> tuple[list[str], str]:
            made, problem = [], ""
            for row in todo:
                try:
                    made.append(tile_picture(_clip_of(results, row, model_rate=True), scale))
                except BacpipeError as error:
                    made.append("")
                    problem = problem or str(error)
            names = dict.fromkeys(str(row["recording"]) for row in todo)
            changed = (change for name in names if (change := results.change_of(name)))
            return made, problem or next(changed, "")

        def show(answer: tuple[list[str], str]) -> None:
            made, problem = answer
            pictures = [*done, *made]
            self._tiles.pictures = pictures + [None] * (len(page) - len(pictures))
            if problem and not self._problem.sentence:
                self._problem.say(problem)
            self._draw(results, page, pictures)

        self._background.run(self._key, compute, show, fail=self._problem.say, busy=self._spinner)

    def _count(self) -> None:
        if self._table is None:
            return
        total, chosen = len(self._table), len(self._tiles.chosen)
        last = min(self._first + self._size.value, total)
        shown = f"{self._first + 1:,} to {last:,} of {counted(total, 'window')}"
        self._note.object = html.escape(
            f"{shown}; {chosen:,} selected. Click on a picture to hear it; with Shift, a tick "
            f"selects all up to the last one."
        )

    # ------------------------------------------------------------------ sound

    def _play(self, place: int) -> None:
        results, page = self._results, self._page()
        if results is None or place >= len(page):
            return
        row, asked = page[place], self._tiles.round

        def fail(sentence: str) -> None:
            self._tiles.no_sound(asked)
            self._problem.say(sentence)

        self._background.run(
            f"{self._key}-sound",
            lambda: _clip_of(results, row).wav(),
            lambda wav: self._tiles.sound(place, wav, asked),
            fail=fail,
        )

    def _look_near(self, place: int) -> None:
        results, page = self._results, self._page()
        if results is not None and self._on_near is not None and place < len(page):
            recording, start, _ = window_of(page[place])
            self._on_near(results.row_at(recording, start, channel_of(page[place])))

    def _send_to_review(self) -> None:
        """Open the Review tab with the chosen windows, or with all that were found."""
        if self._results is None or self._table is None:
            return
        places = [self._first + i for i in self._tiles.chosen]
        table = self._table.iloc[places] if places else self._table
        if "chosen_by" not in table:
            table = table.assign(chosen_by=self._chosen_by)
        self._view.send_to_review(
            ClipsToReview.of_table(self._results, table, self._title, self._typed_label())
        )

    # ------------------------------------------------------------------ labels

    def _mark(self, value: str) -> None:
        """Store what a visitor says of the chosen windows."""
        label, annotator = self._typed_label(), self._view.visitor.annotator
        page = self._page()
        chosen = [page[i] for i in self._tiles.chosen if i < len(page)]
        missing = [
            what
            for what, there in (
                ("select windows", chosen),
                ("type a label", label),
                ("type your name", annotator),
            )
            if not there
        ]
        if missing:
            self._problem.say(f"First {', and '.join(missing)}.")
            return
        rows = [
            {
                **dict(zip(("recording", "start", "end"), window_of(row), strict=True)),
                CHANNEL: channel_of(row),
                "label": label,
                "value": value,
                "annotator": annotator,
                "chosen_by": row.get("chosen_by") or self._chosen_by,
                **self._score_of(row, label),
            }
            for row in chosen
        ]
        self._store(rows)

    def _typed_label(self) -> str:
        return " ".join((self._label.value_input or self._label.value or "").split())

    def _score_of(self, row: Mapping[str, Any], label: str) -> dict[str, object]:
        """What was said of a label by the model or recogniser whose score is shown, if it was."""
        score = row.get("score")
        if score is None or score != score or row.get("label", label) != label:
            return {}
        name = "" if self._results is None else self._results.name
        return {"model": row.get("model") or name, "score": score}

    def _take_back(self) -> None:
        if self._last:
            self._store([{**row, "value": UNDO} for row in self._last])

    def _store(self, rows: list[dict[str, object]]) -> None:
        if not self._data_set.may_edit:  # the buttons are not there, but browsers can say anything
            self._problem.say("Labels are not stored here: the dashboard was opened without edit.")
            return
        if self._storing:  # one after the other, so that nothing is taken back before it is there
            self._problem.say("The last labels are still being stored; try again.")
            return
        self._storing = True
        folder, settings = self._data_set.audio_dir, settings_for_reading(self._data_set.options)
        results, page, asked = self._results, self._page(), self._tiles.round

        def store() -> tuple[list[dict[str, object]], Marks]:
            new = rows if results is None else _not_said_yet(results, rows)
            label_windows(folder, new, **settings)
            return new, [] if results is None else _stored_marks(results, page)

        def fail(sentence: str) -> None:
            self._storing = False
            self._problem.say(sentence)

        self._background.run(
            f"{self._key}-store",
            store,
            lambda answer: self._stored(*answer, undone=rows[0]["value"] == UNDO, of_round=asked),
            fail=fail,
            busy=self._spinner,
            on=STORING,
        )

    def _stored(
        self, new: list[dict[str, object]], marks: Marks, *, undone: bool, of_round: int
    ) -> None:
        self._storing = False
        self._problem.say()
        self._last = [] if undone else new
        self._undo.disabled = not self._last
        # The page may have been turned meanwhile; then it has read its marks itself.
        if of_round == self._tiles.round:
            self._take_marks(marks)
            if not undone:
                self.select_none()
        if self._on_marked is not None:
            self._on_marked()

    def _take_marks(self, marks: Marks) -> None:
        self._tiles.marks = [", ".join(said) for said in marks]


def window_of(row: Mapping[str, Any]) -> Window:
    """Recording, start and end of a row of a table."""
    return str(row["recording"]), float(row["start"]), float(row["end"])


def channel_of(row: Mapping[str, Any]) -> int | None:
    """Channel of a row of a table, from 1; None if all channels became one."""
    channel = row.get(CHANNEL)
    return None if channel is None or channel != channel else int(channel)


def _clip_of(results: ModelResults, row: Mapping[str, Any], *, model_rate: bool = False) -> Clip:
    """Sound of a row of a table."""
    return read_clip(results, *window_of(row), model_rate=model_rate, channel=channel_of(row))


def _rounded(window: Window) -> Window:
    return window[0], round(window[1], _DIGITS), round(window[2], _DIGITS)


def _stored_marks(results: ModelResults, page: Sequence[Mapping[str, Any]]) -> Marks:
    """What people have said of just these seconds, as it holds now."""
    table = current_labels(results.loader)
    places = [(_rounded(window_of(row)), channel_of(row)) for row in page]
    shown = {window for window, _ in places}
    said: dict[Window, list[tuple[int, str]]] = {}
    table = table[table["recording"].isin({name for name, _, _ in shown})]
    channels = channels_of(table)
    columns = (table[name] for name in ("recording", "start", "end", "value", "label"))
    for recording, start, end, value, label, of in zip(*columns, channels, strict=True):
        window = _rounded((str(recording), float(start), float(end)))
        if window in shown:
            said.setdefault(window, []).append((int(of), f"{_SAID[value]} {label}"))
    return [
        # A mix holds the sound of every channel.
        list(
            dict.fromkeys(
                text for of, text in said.get(window, ()) if channel is None or of in (0, channel)
            )
        )
        for window, channel in places
    ]


def _not_said_yet(
    results: ModelResults, rows: Sequence[dict[str, object]]
) -> list[dict[str, object]]:
    """Judgements that do not hold already, so that nothing older is taken back with them."""
    table = current_labels(results.loader)
    table = table[table["recording"].isin({str(row["recording"]) for row in rows})]
    columns = (table[name] for name in ("recording", "start", "end", "label", "value", "annotator"))
    standing = {
        (*_rounded((recording, start, end)), int(channel), *said)
        for recording, start, end, *said, channel in zip(*columns, channels_of(table), strict=True)
    }
    return [
        row
        for row in rows
        if (
            *_rounded(window_of(row)), channel_of(row) or 0,
            row["label"], row["value"], row["annotator"],
        ) not in standing
    ]  # fmt: skip


def _about(row: Mapping[str, Any], results: ModelResults) -> dict[str, str]:
    """What is written under a picture."""
    recording, start, end = window_of(row)
    path = PurePosixPath(recording)
    number = row.get("similarity", row.get("score"))
    number = None if number is None or number != number else f"{number:.3f}"
    label = row.get("label")
    label = None if label is None or label != label or not label else str(label)
    channel = channel_words(channel_of(row))
    said = [text for text in (number, label) if text is not None]
    return {
        "caption": " · ".join(said) or f"{start:.1f} s",
        "at": " · ".join(filter(None, [f"{start:.1f} s", channel])),
        "name": path.name,
        "title": ", ".join(filter(None, [recording, f"{start:.2f} to {end:.2f} s", channel])),
    }
