"""What there is to learn from, what was learnt, and how well: everything that Teach computes."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from copy import copy
from typing import TYPE_CHECKING, NamedTuple

from threadpoolctl import threadpool_limits

from bacpipe.dashboard.shared.recognisers import recogniser_of, recognisers_of
from bacpipe.dashboard.shared.results import ModelResults
from bacpipe.errors import RecogniserError
from bacpipe.labels.people import current_labels
from bacpipe.options import with_changes
from bacpipe.recognisers.labelled import labels_for
from bacpipe.recognisers.learning_curve import learning_curve
from bacpipe.recognisers.recogniser import Recogniser
from bacpipe.recognisers.suggestions import Strategy, suggest
from bacpipe.recognisers.training import train_recogniser
from bacpipe.store.judgements import NO, UNSURE, YES
from bacpipe.store.loader import Loader

if TYPE_CHECKING:
    import pandas as pd

AUTOMATIC = "automatic"

# Who trains the same recogniser, or applies it, does so one after the other; pages wait for one
# another before they get a thread, and this is for notebooks and scripts beside them.  Each learns
# with one thread: its matrices are small, and threads that wait for busy cores take ten times as
# long.
_ONE_BY_ONE = threading.Lock()


class Lesson(NamedTuple):
    """What there is to learn from, and what was learnt.

    Attributes
    ----------
    results : ModelResults
        Whose embeddings.
    labels : pandas.DataFrame
        A row for each label: label, yes, no, unsure (windows or stretches), recordings.
    labels_from : str
        Whose labels they are.
    judged : list of str
        Times of all judgements of people, as their journal has them.
    remark : str
        Why there is nothing to learn from; '' if there is something.
    recognisers : dict of str to Recogniser
    """

    results: ModelResults
    labels: pd.DataFrame
    labels_from: str
    judged: list[str]
    remark: str
    recognisers: dict[str, Recogniser]

    def unlearnt(self, recogniser: str) -> int:
        """How many judgements of people were made since a recogniser was taught."""
        if self.labels_from == "annotations" or recogniser not in self.recognisers:
            return 0
        taught = str(self.recognisers[recogniser].about.get("created", ""))
        return sum(time > taught for time in self.judged)


def read_lesson(results: ModelResults, labels_from: str) -> Lesson:
    """Read labels and recognisers as they are now."""
    import pandas as pd

    remark = ""
    try:
        table = labels_for(_reader(results, labels_from))
    except RecogniserError:
        remark = (
            "There are no labels yet. Find windows in Search, Explore or Predictions, listen, and "
            "mark them there or in Review; ten are enough for a beginning."
        )
        table = pd.DataFrame({name: [] for name in ("label", "value", "recording")})
    counts = {
        value: (table["value"] == value).groupby(table["label"]).sum().astype(int)
        for value in (YES, NO, UNSURE)
    }
    recordings = table.groupby("label")["recording"].nunique()
    labels = pd.DataFrame({**counts, "recordings": recordings})
    labels = labels.sort_values([YES, NO], ascending=False).reset_index()
    judged = [str(time) for time in current_labels(results.loader)["time"]]
    return Lesson(results, labels, labels_from, judged, remark, recognisers_of(results))


def train(results: ModelResults, name: str, classes: Sequence[str], labels_from: str) -> Recogniser:
    """Learn some classes."""
    with _ONE_BY_ONE, threadpool_limits(1):
        return train_recogniser(
            results.loader.audio_dir,
            results.name,
            name=name,
            classes=list(classes) or None,
            loader=_reader(results, labels_from),
        )


def curve(results: ModelResults, name: str, labels_from: str) -> pd.DataFrame:
    """How well it would have been learnt from fewer labels."""
    with threadpool_limits(1):
        return learning_curve(recogniser_of(results, name), _reader(results, labels_from))


def proposals(
    results: ModelResults, name: str, strategy: Strategy, label: str, count: int
) -> pd.DataFrame:
    """Windows to listen to next."""
    return suggest(
        results.loader.audio_dir,
        recogniser_of(results, name),
        n=count,
        strategy=strategy,
        classes=[label] if label else None,
        loader=results.loader,
    )


def apply(results: ModelResults, name: str) -> dict[str, int]:
    """Store what a recogniser finds in all recordings; windows by class with a score from 0.5."""
    recogniser = recogniser_of(results, name)
    with _ONE_BY_ONE:
        applied = recogniser.results(results.loader)
    counts = dict.fromkeys(recogniser.classes, 0)
    for item in applied.detections():
        for label in item.label[item.score >= 0.5].tolist():
            counts[str(label)] += 1
    return counts


def _reader(results: ModelResults, labels_from: str) -> Loader:
    """Loader that takes labels from where a visitor wants."""
    if labels_from == AUTOMATIC:
        return results.loader
    loader = copy(results.loader)
    loader.options = with_changes(loader.options, labels_from=labels_from)
    return loader
