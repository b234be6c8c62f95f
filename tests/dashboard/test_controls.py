"""Every control that a visitor can use does what its words say.

The views are laid out outside of a browser, where everything is computed at once, and are used
through the controls that they lay out.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import panel as pn
import param
import pytest
import soundfile as sf

import bacpipe
from bacpipe.dashboard.all_models.view import AllModelsView
from bacpipe.dashboard.compare.view import CompareView
from bacpipe.dashboard.explore.view import ExploreView
from bacpipe.dashboard.places.view import PlacesView
from bacpipe.dashboard.predictions.detections_by_class import CLASSIFIER
from bacpipe.dashboard.predictions.view import PredictionsView
from bacpipe.dashboard.recordings.view import RecordingsView
from bacpipe.dashboard.review.view import ReviewView
from bacpipe.dashboard.search.view import SearchView
from bacpipe.dashboard.server import open_data_set
from bacpipe.dashboard.shared.results import DataSetResults
from bacpipe.dashboard.shared.to_review import ClipsToReview
from bacpipe.dashboard.shared.view import View, Visitor
from bacpipe.dashboard.teach.view import TeachView
from tests.conftest import TinyModel, write_recording
from tests.dashboard.conftest import make_small_field

NORTH, SOUTH = (f"{site}/rec_20240501_040000.wav" for site in ("north", "south"))
ROW = 29  # in the middle of the third recording


class Room:
    """A view that is laid out, and what a visitor does in it.

    Parameters
    ----------
    kind : type of View
    data_set : DataSetResults
    visitor : Visitor, optional
        Ana unless given.
    **values
        Parameters of the view, as its address has them.
    """

    def __init__(
        self, kind: type[View], data_set: DataSetResults, visitor: Visitor | None = None,
        **values: Any,
    ) -> None:  # fmt: skip
        self.view: Any = kind(data_set)
        self.view.put_on_page(visitor or Visitor(annotator="Ana"))
        self._page = pn.Column(self.view.controls(), self.view.body())
        self.view.param.update(**values)
        self.view.opened()

    def controls(self, label: str) -> list[Any]:
        """All controls with these words on or beside them, hidden ones, too."""

        def has_words(part: Any) -> bool:
            is_group = isinstance(part, pn.widgets.CheckBoxGroup)
            words = getattr(part, "label", None), getattr(part, "description", None)
            return label in words or (is_group and part.options == [label])

        found: list[Any] = self._page.select(has_words)
        return found

    def control(self, label: str) -> Any:
        (found,) = self.controls(label)
        return found

    def choose(self, label: str, title: str) -> None:
        """Choose something of a list by the words that the visitor reads."""
        widget = self.control(label)
        options = widget.options
        known = options if isinstance(options, dict) else {name: name for name in options}
        widget.value = {str(name): value for name, value in known.items()}[title]

    def type(self, label: str, text: Any) -> None:
        field = self.control(label)
        if hasattr(field, "value_input"):
            field.value_input = text
        field.value = text

    def tick(self, label: str) -> None:
        box = self.control(label)
        box.value = [] if box.value else [label]

    def press(self, label: str) -> None:
        button = self.control(label)
        assert not button.disabled
        button.clicks += 1

    def slide(self, label: str, value: Any) -> None:
        """Move a slider and let it go."""
        slider = self.controls(label)[0]
        slider.value = value
        with param.edit_constant(slider):
            slider.value_throttled = value

    def figures(self) -> list[str]:
        """What the figures say that they show, with the details."""
        panes = self._page.select(pn.pane.Bokeh)
        told = [getattr(pane.object, "html_attributes", {}) for pane in panes]
        return [" | ".join([*attributes.values()][1:]) for attributes in told if attributes]


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> DataSetResults:
    """48 windows of two sites; the ends of two recordings are labelled as strong by Ben."""
    made = make_small_field(tmp_path_factory.mktemp("controls"), 5390)
    rows = [
        {"recording": name, "start": second, "end": second + 1, "label": label, "value": value}
        for name in (NORTH, SOUTH)
        for second, value, label in (
            (10, "yes", "strong"), (9, "yes", "strong"), (0, "no", "strong"),
            (1, "no", "strong"), (1, "yes", "weak"), (10, "no", "weak"),
        )
    ]  # fmt: skip
    bacpipe.label_windows(
        made.audio_dir, rows, "Ben", main_results_dir=made.options.main_results_dir
    )
    return made


def said_of(field: DataSetResults, label: str) -> list[str]:
    table = bacpipe.people_labels(field.audio_dir, main_results_dir=field.options.main_results_dir)
    return sorted(table[table["label"] == label]["value"])


# ---------------------------------------------------------------------- who looks


def test_a_name_that_is_typed_once_is_in_all_views(field: DataSetResults) -> None:
    visitor = Visitor()
    rooms = [Room(kind, field, visitor) for kind in (ReviewView, ExploreView, TeachView)]
    search = Room(SearchView, field, visitor, model="tiny", like=[[NORTH, 3.0]])
    fields = [part for room in (*rooms, search) for part in room.controls("Your name")]
    assert len(fields) >= 4 and {part.value for part in fields} == {""}
    assert not rooms[0].view.may_label
    for typed, name in (("  Ada   L ", "Ada L"), ("x" * 200, "x" * 100)):
        for part in fields:
            visitor.annotator = ""
            part.value = typed
            assert {other.value for other in fields} == {name} == {visitor.annotator}
    assert all(room.view.may_label for room in rooms)


# ---------------------------------------------------------------------- Explore


@pytest.fixture
def explore(data_set: DataSetResults) -> Room:
    return Room(ExploreView, data_set, model="tiny")


def note_of(room: Room) -> str:
    return str(room.view.map.note.object)


def test_model_and_colour_of_the_map(explore: Room) -> None:
    explore.choose("Colour by", "Folder")
    assert "Map of 72 windows of tiny, coloured by folder" in explore.figures()[0]
    assert "site1" in explore.view._legend.object
    explore.choose("Model", "other")
    assert "Map of 144 windows of other" in explore.figures()[0]


def test_filters_of_the_map(explore: Room) -> None:
    explore.type("Recording", "site2")
    assert note_of(explore) == "36 of 72 windows"
    explore.choose("Found", "site2/rec_20240502_180000.wav")
    assert note_of(explore) == "12 of 72 windows"
    explore.type("Recording", "")
    explore.slide("Time of day (h)", (4.0, 6.0))
    assert note_of(explore) == "48 of 72 windows"
    explore.tick("the other hours (over midnight)")
    assert note_of(explore) == "24 of 72 windows"
    assert explore.view.hours == (6.0, 4.0)


def test_steps_in_time(explore: Room) -> None:
    explore.view._show_row(ROW)
    explore.press("next window")
    assert explore.view.details.row == ROW + 1
    explore.press("previous window")
    explore.press("previous window")
    assert explore.view.details.row == ROW - 1
    explore.view._show_row(24)  # the first of its recording
    assert explore.control("previous window").disabled
    assert not explore.control("next window").disabled


def test_steps_on_the_map_by_keyboard(explore: Room) -> None:
    points = explore.view._content.points
    assert "four buttons" in explore.figures()[0]
    explore.press("window →")  # none is chosen yet: one in the middle
    middle = explore.view.details.row
    away = ((points - (points.min(axis=0) + points.max(axis=0)) / 2) ** 2).sum(axis=1)
    assert middle == int(away.argmin())
    for sign, axis, ahead in (("→", 0, 1), ("←", 0, -1), ("↑", 1, 1), ("↓", 1, -1)):
        before = points[explore.view.details.row]
        explore.press(f"window {sign}")
        step = points[explore.view.details.row] - before
        assert step[axis] * ahead > 0
        assert explore.view.map._current == explore.view.details.row
    explore.view.map.show_only(np.arange(len(points)) == ROW)
    explore.view._show_row(ROW)
    explore.press("window →")  # nothing is there
    assert explore.view.details.row == ROW


def test_neighbours_in_other_recordings(explore: Room) -> None:
    explore.view._show_row(ROW)
    results, neighbours = explore.view._content.results, explore.control("Most similar windows")

    def from_elsewhere() -> list[bool]:
        rows = list(neighbours.options.values())
        return [results.recording_of(row) != results.recording_of(ROW) for row in rows]

    assert not all(from_elsewhere())
    explore.tick("in other recordings only")
    assert len(from_elsewhere()) == 12 and all(from_elsewhere())


# ---------------------------------------------------------------------- a window from near


@pytest.mark.parametrize(
    ("label", "title"),
    [
        ("Frequency axis", "linear"), ("Level", "below the loudest point"),
        ("Length of a window", "6 ms"), ("Overlap", "50 %"),
    ],
)  # fmt: skip
def test_how_spectrograms_are_computed(explore: Room, label: str, title: str) -> None:
    explore.view._show_row(ROW)
    image = explore.view.details._figure._image
    before = image.data["image"][0], image.data["height"]
    explore.choose(label, title)
    after = image.data["image"][0], image.data["height"]
    assert not (np.array_equal(before[0], after[0]) and before[1] == after[1])


def test_how_spectrograms_are_coloured_and_cut(explore: Room) -> None:
    explore.view._show_row(ROW)
    explore.choose("Level", "below the loudest point")
    explore.choose("Frequency axis", "linear")
    figure = explore.view.details._figure
    colours = figure._mapper.palette
    assert (figure._mapper.low, figure._frequencies.end) == (-60, pytest.approx(4))
    explore.choose("Colours", "Greys (for print)")
    assert figure._mapper.palette != colours
    explore.type("Contrast (dB)", 20)
    explore.slide("Frequencies (kHz)", (0.5, 2.0))
    explore.view._show_row(ROW + 1)  # browsers move both by themselves
    assert (figure._mapper.low, figure._frequencies.end) == (-20, pytest.approx(2))


def test_seconds_around_a_window(explore: Room) -> None:
    explore.view._show_row(ROW)
    player = explore.view.details._player

    def seconds() -> float:
        samples, rate = sf.read(io.BytesIO(player.object))
        return len(samples) / rate

    assert seconds() == 1
    explore.choose("Seconds around", "1 s")
    assert seconds() == 3
    assert player.html_attributes["aria-label"].endswith("180000.wav, 4.00 to 7.00 s")


def test_the_rate_that_a_model_hears(tmp_path_factory: pytest.TempPathFactory) -> None:
    base = tmp_path_factory.mktemp("rate")
    write_recording(base / "field" / "a.wav", 3.0, rate=24_000)
    bacpipe.play(
        audio_dir=base / "field", main_results_dir=base / "results", models=["tiny"],
        CustomModels=[TinyModel], device="cpu", dim_reduction_model="pca",
    )  # fmt: skip
    opened = open_data_set(None, audio_dir=base / "field", main_results_dir=base / "results")
    room = Room(ExploreView, opened)
    room.view._show_row(1)
    assert sf.info(io.BytesIO(room.view.details._player.object)).samplerate == 24_000
    room.choose("Sample rate", "what the model hears")
    assert sf.info(io.BytesIO(room.view.details._player.object)).samplerate == 8_000


# ---------------------------------------------------------------------- Search and gallery


@pytest.fixture
def search(field: DataSetResults) -> Room:
    return Room(SearchView, field, model="tiny", like=[[NORTH, 3.0]])


def table_of(room: Room) -> Any:
    answer = room.view._answer
    assert answer is not None, room.view.notice.sentence
    return answer.table


FILTERS: dict[str, tuple[Callable[[Room], None], Callable[[Any], bool]]] = {
    "sites": (
        lambda room: room.type("Sites (none chosen: all)", ["south"]),
        lambda table: set(table["recording"]) == {SOUTH, SOUTH.replace("_04", "_18")},
    ),
    "elsewhere": (
        lambda room: room.tick("other recordings only"),
        lambda table: NORTH not in set(table["recording"]),
    ),
    "gap": (
        lambda room: room.type("Seconds between results", 5.0),
        lambda table: all(
            (np.diff(np.sort(rows["start"])) >= 5).all() for _, rows in table.groupby("recording")
        ),
    ),
    "count": (lambda room: room.choose("Windows", "12"), lambda table: len(table) == 12),
    "hours": (
        lambda room: room.slide("Time of day (h)", (12.0, 24.0)),
        lambda table: bool(table["recording"].str.contains("_18").all()),
    ),
}


@pytest.mark.parametrize("name", FILTERS)
def test_filters_of_a_search(search: Room, name: str) -> None:
    use, holds = FILTERS[name]
    assert not holds(table_of(search))
    use(search)
    assert len(table_of(search)) and holds(table_of(search))


def test_days_classes_and_scores_of_a_search(search: Room) -> None:
    everything = len(table_of(search))
    search.type("From day", "2024-05-01")
    assert len(table_of(search)) == everything
    search.type("From day", "2024-05-02")
    assert table_of(search).empty
    search.type("From day", "")
    search.type("to day", "2024-04-30")
    assert table_of(search).empty
    search.type("to day", "soon")
    assert "'soon' is no day" in search.view.notice.sentence
    search.type("to day", "")
    counts = [everything]
    search.type("Class of the classifier", "loud")
    counts.append(len(table_of(search)))
    search.type("with a score of at least", 0.4)
    counts.append(len(table_of(search)))
    assert counts[0] > counts[1] > counts[2] > 0


def test_examples_of_a_search_come_and_go(search: Room) -> None:
    search.type("Recording", "south/rec_20240501_18")
    search.type("Second", 5.0)
    search.press("Search with this window")
    assert search.view.like == [[NORTH, 3.0], ["south/rec_20240501_180000.wav", 5.0]]
    search.view._like.value = search.view._like.value[1:]  # the first one is unticked
    assert search.view.like == [["south/rec_20240501_180000.wav", 5.0]]
    search.view.gallery._tiles.selected = [20]
    chosen = search.view.gallery.chosen
    assert len(chosen) == 1 and chosen[0] not in search.view.like
    search.press("More like these")
    assert search.view.like == [["south/rec_20240501_180000.wav", 5.0], *chosen]


def test_what_a_search_begins_with(search: Room) -> None:
    for title in search.control("Search with").options:
        search.choose("Search with", title)
        shown = [name for name, part in search.view._parts.items() if part.visible]
        assert shown == [search.view.by]
        assert (search.view._answer is not None) >= (title == "windows")
        if title in ("words", "a clip of mine"):
            assert search.view._answer is None


def test_pages_of_a_gallery(search: Room) -> None:
    gallery = search.view.gallery
    search.choose("Per page", "12")
    first = [item["title"] for item in gallery._tiles.items]
    assert len(first) == 12 and search.control("previous page").disabled
    search.press("next page")
    assert gallery._note.object.startswith("13 to 24 of ")
    assert not set(first) & {item["title"] for item in gallery._tiles.items}
    search.press("previous page")
    assert [item["title"] for item in gallery._tiles.items] == first
    search.press("Select all")
    assert len(gallery.chosen) == 12
    search.press("None")
    assert gallery.chosen == []


def test_unsure_marks_of_a_gallery_and_undo(search: Room, field: DataSetResults) -> None:
    search.view.gallery._tiles.selected = [0, 2]
    search.type("Label", "murmur")
    search.press("? unsure")
    assert said_of(field, "murmur") == ["unsure"] * 2
    search.press("Undo")
    assert said_of(field, "murmur") == []


@pytest.mark.parametrize("kind", [SearchView, TeachView])
def test_a_tile_is_looked_at_from_near_and_left_again(
    field: DataSetResults, kind: type[View]
) -> None:
    room = Room(kind, field, model="tiny")
    if kind is TeachView:
        room.type("Name of the recogniser", "near")
        room.press("Train")
    else:
        room.view.like = [[NORTH, 3.0]]
    tiles = room.view.gallery._tiles
    tiles._handle_msg({"near": 1, "round": tiles.round})
    assert room.view._near.visible
    row = room.view.details.row
    name, start, end = field.model("tiny").window(row)
    assert tiles.items[1]["title"] == f"{name}, {start:.2f} to {end:.2f} s"
    room.press("✕ close")
    assert not room.view._near.visible


# ---------------------------------------------------------------------- Teach


def test_what_a_recogniser_is_taught_and_what_comes_next(field: DataSetResults) -> None:
    room = Room(TeachView, field, model="tiny")
    room.choose("Labels of", "annotations")
    assert "strong" not in room.view._labels.object and room.view.notice.sentence
    room.choose("Labels of", "people")
    assert "strong" in room.view._labels.object
    for name, classes in (("both", ["strong", "weak"]), ("one", ["weak"])):
        room.type("Name of the recogniser", name)
        room.type("Classes (none chosen: all)", classes)
        room.press("Train")
        assert room.view.recogniser == name
        assert list(room.view._lesson.recognisers[name].classes) == classes
    room.choose("Recogniser", "both")
    assert "learnt strong" in room.view._state.object
    gallery = room.view.gallery
    room.choose("Windows", "24")
    assert len(gallery._table) == 24
    room.choose("Class", "weak")
    assert set(gallery._table["label"]) == {"weak"}
    room.choose("Windows", "12")
    shown = []
    for title, strategy in (("best scores", "top"), ("where it is least sure", "mixed")):
        room.choose("Label next", title)
        wanted = bacpipe.suggest(
            field.audio_dir, "both", n=12, strategy=strategy, classes="weak",
            loader=room.view._lesson.results.loader,
        )  # fmt: skip
        shown.append(gallery._table[["recording", "start"]].values.tolist())
        assert shown[-1] == wanted[["recording", "start"]].values.tolist()
    assert shown[0] != shown[1]


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> DataSetResults:
    """Three models, of which two have recognisers and one has no classifier."""
    made = make_small_field(tmp_path_factory.mktemp("taught"), 5391, ["tiny", "other", "mute"])
    rows = [
        {"recording": name, "start": second, "end": second + 1, "label": label, "value": value}
        for name in (NORTH, SOUTH)
        for label in ("strong", "дрозд", "сова", "Étourneau")
        for second, value in ((10, "yes"), (9, "yes"), (0, "no"), (1, "no"))
    ]
    settings: dict[str, Any] = {"main_results_dir": made.options.main_results_dir}
    bacpipe.label_windows(made.audio_dir, rows, "Ben", **settings)
    lines = [f"{name},{part}" for name in (NORTH, SOUTH) for part in ("6,11,strong", "0,4,weak")]
    table = "\n".join(["audiofilename,start,end,label:species", *lines])
    (made.audio_dir / "annotations.csv").write_text(table)
    for model, name in (("tiny", "high"), ("mute", "low")):
        bacpipe.train_recogniser(made.audio_dir, model, name=name, classes=["strong"], **settings)
    return made


def test_how_good_a_recogniser_is_by_other_labels(taught: DataSetResults) -> None:
    room = Room(TeachView, taught, model="tiny", labels_from="people")

    def judged_by() -> list[int]:
        """Labels of each class; none where only a sentence says why there is no judgement."""
        table = getattr(room.view._quality.objects[0], "value", None)
        return [] if table is None else table["labels"].tolist()

    assert judged_by() == [8]
    room.choose("Labels of", "annotations")
    assert judged_by() != [8]
    room.choose("Labels of", "people")
    assert judged_by() == [8]


def test_labels_that_a_recogniser_has_not_learnt(taught: DataSetResults) -> None:
    room = Room(TeachView, taught, model="tiny", recogniser="high")
    train = room.control("Train")
    room.view.gallery._tiles.selected = [0]
    room.type("Label", "murmur")
    room.press("✓ is")
    assert "murmur" in room.control("Classes (none chosen: all)").options
    assert train.label == "Train again (1 new label)"
    again = Room(TeachView, taught, model="tiny", recogniser="high")
    assert again.view._train.label == "Train again (1 new label)"
    again.choose("Labels of", "annotations")
    assert again.view._train.label == "Train"
    room.choose("Model", "other")
    assert train.label == "Train"
    room.choose("Model", "tiny")
    assert train.label == "Train again (1 new label)"
    room.type("Classes (none chosen: all)", ["strong"])
    room.type("Name of the recogniser", "high")
    room.press("Train again (1 new label)")
    assert room.view.recogniser == "high" and train.label == "Train"


def test_names_of_recognisers_of_any_class(taught: DataSetResults) -> None:
    room = Room(TeachView, taught, model="other")
    names = []
    for label in ("дрозд", "сова", "Étourneau", "дрозд"):
        room.type("Classes (none chosen: all)", [label])
        room.view._train.clicks += 1
        assert room.view._lesson.recognisers[room.view.recogniser].classes == (label,)
        names.append(room.view.recogniser)
    assert names[0] == names[3] != names[1] and names[2] == "etourneau"


def test_a_recogniser_without_labels(data_set: DataSetResults) -> None:
    room = Room(TeachView, data_set, model="tiny", labels_from="people")
    room.press("Train")
    assert "There are no labels yet" in room.view.notice.sentence


# ---------------------------------------------------------------------- Review


@pytest.fixture
def review(field: DataSetResults) -> Room:
    room = Room(ReviewView, field, model="tiny", label="loud")
    room.view.desk.panel._handle_msg({"type": "ready"})  # as its browser says
    return room


def queue_of(room: Room) -> Any:
    assert room.view._queue is not None, room.view.notice.sentence
    return room.view._queue


def test_labels_on_keys_and_seconds_around(review: Room) -> None:
    told: list[dict[str, Any]] = []
    review.view.desk.panel.tell = told.append
    review.type("Labels on keys 1 to 9, one a line", " wren \n\nred  kite\nwren")
    assert told[-1]["labels"] == ["wren", "red kite"] == review.view.keys
    ticket = told[-1]["ticket"]
    review.choose("Seconds around", "3 s")
    assert told[-1] == {"type": "around", "ticket": ticket}  # where the visitor is in the queue
    review.view.desk.panel._handle_msg({"type": "want", "ticket": told[-1]["ticket"],
                                        "indices": [2]})  # fmt: skip
    card = told[-1]["card"]
    assert card["from"] == max(0, card["start"] - 3)
    assert card["to"] == pytest.approx(min(12, card["end"] + 3))


def test_order_and_left_out_clips_of_a_queue(review: Room, field: DataSetResults) -> None:
    scores = queue_of(review).scores
    assert (np.diff(scores) <= 0).all()
    review.choose("Order", "spread over scores and sites")
    assert queue_of(review).chosen_by == "review_plan"
    review.choose("Order", "best scores first")
    count = len(queue_of(review).rows)
    name, start, end = queue_of(review).results.window(int(queue_of(review).rows[0]))
    row = {"recording": name, "start": start, "end": end, "label": "loud", "value": "no"}
    settings = {"main_results_dir": field.options.main_results_dir}
    bacpipe.label_windows(field.audio_dir, [row], "Ben", **settings)
    review.press("Load again")
    assert len(queue_of(review).rows) == count - 1
    review.choose("Clips that", "I have not marked")
    assert len(queue_of(review).rows) == count  # Ben has, Ana has not


def test_undo_takes_back_what_was_marked_under_another_name(field: DataSetResults) -> None:
    visitor = Visitor(annotator="Ana")
    room = Room(ReviewView, field, visitor, model="tiny", label="quiet")
    panel, told = room.view.desk.panel, list[dict[str, Any]]()
    panel.tell = told.append
    panel._handle_msg({"type": "ready"})
    about = {"ticket": told[-1]["ticket"], "index": 3, "label": "hoot"}
    panel._handle_msg({"type": "mark", "number": 1, "value": "yes", **about})
    assert said_of(field, "hoot") == ["yes"]
    visitor.annotator = "Ben"
    assert told[-1]["annotator"] == "Ben"
    panel._handle_msg({"type": "undo", "number": 2, "undone": 1, **about})
    assert told[-1]["outcomes"] == [{"number": 2, "problem": ""}]
    assert said_of(field, "hoot") == []
    panel._handle_msg({"type": "undo", "number": 3, "undone": 7, **about})  # of no mark
    assert said_of(field, "hoot") == []


@pytest.mark.parametrize(
    ("values", "why", "label", "title"),
    [
        ({"order": "sent"}, "No clips were sent here", "Order", "best scores first"),
        ({"scores": "nobody"}, "no recogniser 'nobody'", "Scores of", "tiny's classifier"),
        ({"scores": "nobody"}, "no recogniser 'nobody'", "Model", "other"),
        ({"model": "mute"}, "there are no predictions of mute", "Scores of", "recogniser low"),
    ],
)
def test_review_without_a_queue_still_offers_others(
    taught: DataSetResults, values: dict[str, Any], why: str, label: str, title: str
) -> None:
    room = Room(ReviewView, taught, **{"model": "tiny", **values})
    room.view.desk.panel._handle_msg({"type": "ready"})
    assert why in room.view.notice.sentence
    for name, parameter in (("Model", "model"), ("Scores of", "scores"), ("Order", "order")):
        widget = room.control(name)
        assert widget.value == getattr(room.view, parameter)
        options = widget.options
        assert widget.value in (options.values() if isinstance(options, dict) else options)
    room.choose(label, title)
    assert len(queue_of(room).rows) and not room.view.notice.sentence


def test_clips_of_another_model_are_sent(taught: DataSetResults) -> None:
    room = Room(ReviewView, taught, model="tiny", scores="high", label="strong")
    room.view.desk.panel._handle_msg({"type": "ready"})
    assert queue_of(room).scored_by == "high"
    room.view.take(ClipsToReview(taught.model("other"), np.array([3, 1]), "found"))
    assert queue_of(room).rows.tolist() == [3, 1]
    room.choose("Order", "best scores first")
    assert queue_of(room).scored_by == "other"


# ---------------------------------------------------------------------- Compare


def test_models_and_neighbours_that_are_compared(data_set: DataSetResults) -> None:
    room = Room(CompareView, data_set, left="tiny", right="other")
    assert [name.split(" |")[0] for name in room.figures()[:2]] == [
        "Map of 72 windows of tiny, coloured by annotations: species",
        "Map of 144 windows of other, coloured by annotations: species",
    ]
    room.choose("Right model", "tiny")
    assert "Map of 72 windows of tiny" in room.figures()[1]
    room.choose("Left model", "other")
    assert "Map of 144 windows of other" in room.figures()[0]
    room.type("Neighbours to compare", 4)
    assert "of the 4 nearest neighbours" in " ".join(room.view._agreement._text.object.split())
    room.choose("Colour", "Folder")
    assert "coloured by folder" in room.figures()[0]


# ---------------------------------------------------------------------- Predictions


@pytest.fixture
def predictions(data_set: DataSetResults) -> Room:
    return Room(PredictionsView, data_set, model="tiny", species="quiet")


def test_models_and_sources_of_predictions(predictions: Room) -> None:
    view = predictions.view
    probe = next(title for title in predictions.control("Predicted by").options
                 if "probe" in title.lower())  # fmt: skip
    predictions.choose("Predicted by", probe)
    assert view._detections.source.startswith("probe_") and "wren" in view._detections.names
    predictions.choose("Model", "other")
    assert view._detections.results.name == "other"
    assert view._detections.source == CLASSIFIER


def test_two_lists_of_predictions(predictions: Room) -> None:
    view = predictions.view
    title = next(title for title in predictions.control("Compare with").options
                 if title.startswith("other"))  # fmt: skip
    predictions.choose("Compare with", title)
    assert len(view.sides) == 2 and view._which.visible
    counts = [len(side.detections.of("quiet", side.threshold)[0]) for side in view.sides]
    assert len(view.list._rows) == counts[0]
    view._which.value = view._which.options["of the right"]
    assert len(view.list._rows) == counts[1] != counts[0]
    predictions.choose("Compare with", "–")
    assert len(view.sides) == 1 and len(view.list._rows) == counts[0]


def test_species_are_searched(predictions: Room) -> None:
    table = predictions.view.species_list._table
    assert set(table.value["species"]) == {"loud", "quiet"}
    predictions.control("Search species").value_input = "lou"
    assert table.value["species"].tolist() == ["loud"]


def test_heat_maps_and_their_cells(predictions: Room) -> None:
    def heat_map() -> str:
        (told,) = (name for name in predictions.figures() if name.startswith("Heat map of"))
        return str(told)

    view, before = predictions.view, heat_map()
    (side,) = view.sides
    row, column = (int(i) for i in np.argwhere(side.grid.hours > 0)[0])
    total = len(view.list._rows)
    view._pick(0, row, column)
    only = view._everything
    assert only.visible and len(view.list._rows) < total
    predictions.press("Side by side")
    assert len(view.gallery._table) == len(view.list._rows)
    predictions.press(only.label)
    assert len(view.list._rows) == total and not only.visible
    title = [*predictions.control("Heat map").options][1]
    predictions.choose("Heat map", title)
    assert heat_map() != before
    assert "per recorded hour" not in heat_map()
    predictions.tick("per recorded hour")
    assert "per recorded hour" in heat_map()
    predictions.slide("Threshold", 0.9)
    quiet = view._detections.of("quiet", 0.9)[0]
    assert f"Heat map of {len(quiet)} detection" in heat_map()
    assert view.threshold == 0.9


# ---------------------------------------------------------------------- Places


def test_what_is_counted_at_places(field: DataSetResults) -> None:
    room = Room(PlacesView, field, model="tiny")
    (everything,) = room.figures()
    assert everything.startswith("Map of 1 site: detections of all species | north ")
    room.choose("Species", "quiet")
    (quiet,) = room.figures()
    assert "detections of quiet" in quiet
    room.choose("Show", "Species by site")

    def cells() -> list[float]:
        table = next(part for part in room.view._content if isinstance(part, pn.widgets.Tabulator))
        assert table.value["species"].tolist() == ["quiet"]
        return [float(value) for value in table.value.iloc[0, 1:]]

    numbers = {"detections": cells()}
    for title in ("detections per hour", "best score", "windows"):
        room.choose("Measure", title)
        numbers[title] = cells()
    hours = 24 / 3600  # of each site
    per_hour = [value / hours for value in numbers["detections"]]
    assert numbers["detections per hour"] == pytest.approx(per_hour, rel=1e-3)
    assert all(0.5 <= value <= 1 for value in numbers["best score"])
    assert sum(numbers["windows"]) > sum(numbers["detections"])
    room.slide("Lowest score", 0.8)
    assert 0 < sum(cells()) < sum(numbers["windows"])


def test_a_species_stays_chosen_where_the_score_leaves_nothing_of_it(field: DataSetResults) -> None:
    room = Room(PlacesView, field, model="tiny")
    written: list[tuple[str, str]] = []  # as the page's address gets it
    room.view.param.watch(
        lambda *_: written.append((room.view.source, room.view.species)), ["source", "species"]
    )
    room.choose("Species", "quiet")
    room.slide("Lowest score", 1.0)
    assert room.view.species == room.control("Species").value == "quiet"
    assert "detections of quiet | north 0 " in f"{room.figures()[0]} "
    for part in ("Species by site", "Activity"):
        room.choose("Show", part)
        assert "Nothing of quiet was found" in room.view._content[0].object
    room.slide("Lowest score", 0.5)
    room.choose("Show", "Map")
    assert room.control("Species").value == "quiet"
    assert "north 0 " not in f"{room.figures()[0]} "
    assert set(written) == {("classifier", "quiet")}
    other = Room(PlacesView, field, model="tiny", species="nothing that it knows")
    assert other.view.species == "" == other.control("Species").value


def test_the_address_learns_whose_detections_are_shown(field: DataSetResults) -> None:
    view = PlacesView(field)
    written: list[str] = []
    view.param.watch(lambda event: written.append(event.new), "source")
    view.controls(), view.body()
    view.opened()
    assert written == ["classifier"]


# ---------------------------------------------------------------------- All models and Data


def test_the_score_of_clusters_is_another(data_set: DataSetResults) -> None:
    room = Room(AllModelsView, data_set)
    assert [name for name in room.figures() if "coloured by annotations: species" in name]
    room.choose("Colour", "Folder")
    assert [name for name in room.figures() if "coloured by folder" in name]
    room.choose("Show", "Clusters")
    charts = room.figures()
    room.choose("Score", "homogeneity")
    assert len(room.figures()) == len(charts) and room.figures() != charts


def test_what_of_the_recordings_is_shown(data_set: DataSetResults) -> None:
    room = Room(RecordingsView, data_set)
    room.choose("Blocks of the time line", "weeks")
    assert "per week" in room.figures()[0]
    room.choose("Blocks of the time line", "hours")
    assert "per hour" in room.figures()[0]
    room.choose("Show", "Recordings")
    room.choose("Only", "those that failed")
    assert "1 of 7 recordings" in room.view._content[0].object
    room.choose("Only", "all")
    room.type("Search", "site1/")
    assert "3 of 7 recordings" in room.view._content[0].object
    room.choose("Show", "Whole recording")
    name = "site2/rec_20240502_180000.wav"
    room.choose("Recording", name)
    assert name in room.view._whole_recording._title.object
    assert f"Spectrogram of {name}, 0 to 12 s" in " ".join(room.figures())
