"""Which clips a visitor hears, in which order, and what is asked about each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from bacpipe.dashboard.shared.recognisers import recognisers_of
from bacpipe.dashboard.shared.results import ModelResults, Predictions
from bacpipe.dashboard.shared.to_review import ClipsToReview
from bacpipe.errors import ResultsNotFoundError, counted
from bacpipe.labels.people import current_labels
from bacpipe.recognisers.review_plan import review_plan
from bacpipe.recognisers.suggestions import suggest
from bacpipe.store.tables import CHANNEL

BEST, SPREAD, SUGGESTED, SENT = "best", "spread", "suggested", "sent"
ORDERS = {
    "best scores first": BEST,
    "spread over scores and sites": SPREAD,
    "what the recogniser is to learn from": SUGGESTED,
    "sent from another tab": SENT,
}
NOBODY, NOT_ME = "nobody", "not_me"
LEFT_OUT = {"nobody has marked": NOBODY, "I have not marked": NOT_ME}
CLASSIFIER = ""
_SUGGESTED = 50  # clips of one round of suggestions


class Asked(NamedTuple):
    """What a visitor wants to review.

    Attributes
    ----------
    model : str
    scores : str
        Name of the recogniser whose scores count; empty for the model's own classifier.
    label : str
        Class in question; empty for the most frequent one.
    order : str
        One of the values of `ORDERS`.
    left_out : str
        One of the values of `LEFT_OUT`.
    annotator : str
        Who reviews.
    """

    model: str
    scores: str
    label: str
    order: str
    left_out: str
    annotator: str


class Queue(NamedTuple):
    """Clips to mark, the next one first.

    Attributes
    ----------
    results : ModelResults
    label : str
        Class in question; empty where visitors say one for each clip.
    rows : np.ndarray, int64, shape (n,)
        Windows.
    scores : np.ndarray, float64, shape (n,)
        NaN where there is none.
    chosen_by, scored_by : str
        As the journal of labels keeps them.
    title : str
    labels : dict of str to int
        Classes that could be in question, and how many detections each has.
    marked : int
        Clips that were left out, because they are marked.
    """

    results: ModelResults
    label: str
    rows: np.ndarray
    scores: np.ndarray
    chosen_by: str
    scored_by: str
    title: str
    labels: Mapping[str, int]
    marked: int

    def judgement(self, index: int, label: str, value: str, annotator: str) -> dict[str, Any]:
        """Row of the journal for a clip."""
        place = int(self.rows[index])
        recording, start, end = self.results.window(place)
        row: dict[str, Any] = {
            "recording": recording, "start": start, "end": end, "label": label, "value": value,
            "annotator": annotator, "chosen_by": self.chosen_by,
            CHANNEL: self.results.channel_of(place),
        }  # fmt: skip
        if label == self.label and np.isfinite(self.scores[index]):
            row |= {"model": self.scored_by, "score": float(self.scores[index])}
        return row


def classes_of(stored: Predictions) -> dict[str, int]:
    """Classes that could be in question, the most frequent first, and their detections."""
    counts = np.bincount(stored.code, minlength=len(stored.names))
    order = np.argsort(-counts, kind="stable")
    return {stored.names[i]: int(counts[i]) for i in order.tolist()}


def make_queue(results: ModelResults, asked: Asked) -> Queue:
    """Find the clips of a class.

    Raises
    ------
    ResultsNotFoundError
        If there are no scores.
    BacpipeError
        As `review_plan` and `suggest` raise it.
    """
    scored_by = asked.scores or results.name
    stored = scores_of(results, asked.scores)
    labels = classes_of(stored)
    label = asked.label if asked.label in labels else next(iter(labels))
    if asked.order == SPREAD:
        # Its own `precision` is that of detections, not the one of numbers.
        settings = {key: value for key, value in results.settings.items() if key != "precision"}
        plan = review_plan(results.loader.audio_dir, scored_by, classes=[label], **settings)
        sent = ClipsToReview.of_table(results, plan, "", label)
        chosen_by, title = "review_plan", "chosen so that few marks tell how far to trust scores"
    elif asked.order == SUGGESTED and asked.scores:
        table = suggest(
            results.loader.audio_dir, asked.scores, n=_SUGGESTED, classes=[label],
            **results.settings,
        )  # fmt: skip
        sent = ClipsToReview.of_table(results, table, "", label)
        chosen_by, title = sent.chosen_by, "which the recogniser learns most from"
    else:
        mine = np.flatnonzero(stored.code == stored.names.index(label))
        mine = mine[np.argsort(-stored.score[mine], kind="stable")]
        sent = ClipsToReview(results, stored.row[mine], "", scores=stored.score[mine])
        chosen_by, title = "top", "best scores first"
    scores = np.asarray(sent.scores, np.float64)
    left = ~_marked(results, sent.rows, label, asked)
    return Queue(
        results, label, sent.rows[left], scores[left], chosen_by, scored_by, title, labels,
        int((~left).sum()),
    )  # fmt: skip


def queue_of(results: ModelResults, clips: ClipsToReview) -> Queue:
    """The clips that another view has sent, as far as the present results have them."""
    found: list[int | None] = clips.rows.tolist()
    if clips.results is not results:  # a run in between may have numbered all windows anew
        found = results.rows_of_table(clips.windows)
    is_there = np.array([row is not None for row in found], bool)
    rows = np.array([row for row in found if row is not None], np.int64)
    given = clips.scores
    scores = np.full(len(found), np.nan) if given is None else np.asarray(given, np.float64)
    title = clips.title
    if gone := len(found) - len(rows):
        left_out = counted(gone, "other clip")
        title += f" ({left_out} left out: no window of {results.name} any more)"
    return Queue(
        results, clips.label, rows, scores[is_there], clips.chosen_by,
        clips.scored_by or clips.model, title, {}, 0,
    )  # fmt: skip


def scores_of(results: ModelResults, recogniser: str) -> Predictions:
    """Predictions of the model's classifier, or of a recogniser of this data set.

    Raises
    ------
    ResultsNotFoundError
        If there is none.
    """
    if not recogniser:
        return results.predictions
    trained = recognisers_of(results).get(recogniser)
    if trained is None:
        raise ResultsNotFoundError(
            f"{results.name} has no recogniser {recogniser!r} here; train one with bacpipe train."
        )
    return ModelResults(trained.results(results.loader)).predictions


def usual_labels(results: ModelResults, most: int = 9) -> list[str]:
    """Labels for the number keys: those that people gave most often here."""
    return [str(name) for name in current_labels(results.loader)["label"].value_counts().index][
        :most
    ]


def _marked(results: ModelResults, rows: np.ndarray, label: str, asked: Asked) -> np.ndarray:
    """Which of the windows have been marked for a label already, bool of shape (n,)."""
    table = current_labels(results.loader)
    table = table[table["label"] == label]
    if asked.left_out == NOT_ME:
        table = table[table["annotator"] == asked.annotator]
    known = {row for of_label in results.rows_of_labels(table) for row in of_label}
    return np.array([row in known for row in rows.tolist()], bool)
