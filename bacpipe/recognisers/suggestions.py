"""What to listen to next, so that a recogniser learns most from each label.

==============  ===================================================================================
``mixed``       where the recogniser is least sure whether the class is heard: scores near 0.5, the
                nearer the more alike they are to labelled windows; each as if those before it in
                the list were labelled
``top``         the best scores: finds the class, and with it its false friends
``margin``      the scores nearest to 0.5, whatever is known of such windows
``stratified``  as many from each tenth of the range of logits: for measuring, not for learning
``random``      any
``novel``       the least like all that was labelled or is in this list already
==============  ===================================================================================

No list holds ten windows of one call: a window close in time to one that is in it, or nearly the
same as it, waits until nothing else is left.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from scipy.special import expit

from bacpipe.annotations.cells import listed
from bacpipe.errors import AnnotationsError, RecogniserError, SettingsError
from bacpipe.labels.model_windows import ModelWindows, model_windows
from bacpipe.labels.people import current_labels
from bacpipe.options import make_options
from bacpipe.recognisers.labelled import (
    UNKNOWN,
    LabelledWindows,
    changed_recordings,
    class_names,
    labelled_windows,
    labels_for,
    tell_changed,
)
from bacpipe.recognisers.learner import Learnt, logit_covariance
from bacpipe.recognisers.learnt_classes import class_examples
from bacpipe.recognisers.recogniser import Recogniser, find_recogniser
from bacpipe.recognisers.searched_windows import embeddings_of, searched_windows
from bacpipe.store.calibrations import logit
from bacpipe.store.data_set_folder import paths_of
from bacpipe.store.loader import Loader
from bacpipe.store.tables import CHANNEL
from bacpipe.store.whereabouts import Whereabouts
from bacpipe.user_input import typed_seed

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

Strategy = Literal["mixed", "margin", "top", "stratified", "random", "novel"]

_CANDIDATES = 30  # times as many as are wanted
_TOGETHER = 1000  # candidates whose logits' covariance is looked at
_STRATA = 10
_APART = 10.0  # seconds between two windows of a list
_ALIKE = 0.95  # cosine of centred embeddings
_LEAST = 0.02  # what a label is taken to tell at least, as the variance of its outcome

Spread = Callable[[np.ndarray], np.ndarray]
"""Covariance of the logits of windows, (n, n), by their embeddings, (n, dim)."""


def suggest(
    audio_dir: str | Path,
    recogniser: str | Path | Recogniser,
    *,
    n: int = 20,
    strategy: Strategy = "mixed",
    per_site: bool = True,
    classes: str | Sequence[str] | None = None,
    seed: int = 0,
    loader: Loader | None = None,
    **kwargs: object,
) -> pd.DataFrame:
    """Choose windows to listen to next.

    Parameters
    ----------
    audio_dir : str or Path
        Folder with the recordings, which are embedded already.
    recogniser : str, Path or Recogniser
        A recogniser, its name or its folder.
    n : int
        How many windows.
    strategy : {'mixed', 'margin', 'top', 'stratified', 'random', 'novel'}
        How they are chosen; see `bacpipe.recognisers.suggestions`.
    per_site : bool
        True takes sites, and the days of each, by turns.
    classes : str or sequence of str, optional
        For which of the recogniser's classes, by turns; all unless given.
    seed : int
        Of what is drawn at random.
    loader : Loader, optional
        Results of the recogniser's model, instead of `audio_dir`.
    **kwargs
        Any key of the configuration; main_results_dir says where results and recognisers
        are, labels_from which labels are there already.

    Returns
    -------
    pandas.DataFrame
        A row per window, with the columns recording, site, start, end (seconds), channel (from 1;
        only with ``channel='each'``), label (the class that is in question), value (empty: fill it
        with yes, no or unsure for `label_windows`), score, model (the recogniser) and chosen_by.
        Windows that people have labelled for the class are not in it; with ``labels_from``, those
        that its source has labelled.

    Raises
    ------
    RecogniserError
        If the embeddings are another model's, or a class is unknown.

    Examples
    --------
    >>> import bacpipe
    >>> recogniser = bacpipe.train_recogniser("recordings", "birdnet", name="hoots",
    ...     labels_from="annotations", classes=["synthetic hoot"])
    >>> table = bacpipe.suggest("recordings", "hoots", n=5)
    >>> table["chosen_by"].tolist()
    ['mixed', 'mixed', 'mixed', 'mixed', 'mixed']
    """
    if strategy not in get_args(Strategy):
        raise SettingsError(
            f"strategy={strategy!r} is not possible: expected one of "
            f"{', '.join(get_args(Strategy))}."
        )
    if not isinstance(n, int) or n < 1:
        raise SettingsError(f"n={n!r} is not possible: expected a whole number from 1.")
    options = loader.options if loader is not None else make_options(**kwargs)
    paths = loader.paths if loader is not None else paths_of(audio_dir, "none", options)
    trained = find_recogniser(recogniser, paths)
    loader = loader or Loader(audio_dir, trained.model, options=options)
    wanted = class_names(classes) or list(trained.classes)
    if unknown := [name for name in wanted if name not in trained.classes]:
        raise RecogniserError(
            f"The recogniser {trained.name!r} does not know {listed(unknown)}; it knows "
            f"{listed(trained.classes)}."
        )
    scores, windows = trained.predict(loader), model_windows(loader)
    given = typed_seed(seed)
    known = _labelled(loader, wanted)
    # Windows that are mostly padding say little, and are no fun to listen to; from those whose
    # embeddings are no numbers, nothing is learnt.
    taken = ~np.concatenate([loader.heard_windows(name) for name in windows.recordings])
    taken |= ~np.isfinite(scores).all(axis=1)
    recordings, where = windows.recordings, Whereabouts(loader)
    owner = np.repeat(np.arange(len(recordings)), windows.counts)

    def choose() -> list[tuple[int, str]]:
        rng, free = np.random.default_rng(given), ~taken
        shown = _Shown(loader, windows, wanted, known, per_site=per_site)
        rows: list[tuple[int, str]] = []
        for place, label in enumerate(wanted):
            # Each class gets its share, the first ones one more.
            count = n // len(wanted) + (place < n % len(wanted))
            score = scores[:, trained.classes.index(label)]
            others = free.copy()
            others[_rows_of(known, label)] = False
            spread = partial(shown.spread, trained, label) if strategy == "mixed" else None
            chosen = shown.choose(np.flatnonzero(others), score, strategy, count, rng, spread)
            free[chosen] = False
            rows += [(row, label) for row in chosen]
        return rows

    rows = choose()
    # A data set may have many recordings, which are looked at only if some have changed.
    if changed_recordings(loader, sorted({recordings[owner[row]] for row, _ in rows})):
        changed = changed_recordings(loader, recordings)
        tell_changed(changed)
        taken |= np.isin(np.array(recordings, object), changed)[owner]
        rows = choose()
    table = windows.frame().iloc[[row for row, _ in rows]].reset_index(drop=True)
    table = table.rename(columns={"audiofilename": "recording"})
    table.insert(1, "site", [where.of(name).site for name in table["recording"]])
    if loader.channels is not None:
        heard = np.concatenate([loader.channels(name) for name in windows.recordings])
        table[CHANNEL] = heard[[row for row, _ in rows]]
    table["label"] = [label for _, label in rows]
    table["value"] = ""
    columns = [trained.classes.index(label) for _, label in rows]
    table["score"] = scores[[row for row, _ in rows], columns]
    table["model"] = trained.name
    table["chosen_by"] = strategy
    return table.astype({"start": "float64", "end": "float64"})


def _labelled(loader: Loader, classes: Sequence[str]) -> LabelledWindows | None:
    """What has been labelled already, sure or not, of the windows of this model."""
    try:
        asked = "labels_from" in loader.options.asked
        return _laid(loader, labels_for(loader) if asked else current_labels(loader), classes)
    except RecogniserError as error:  # there are none, or none is about a window
        logger.warning("%s", error)
        return None


def _laid(loader: Loader, table: pd.DataFrame, classes: Sequence[str]) -> LabelledWindows | None:
    """Labels of some classes on the windows of this model."""
    table = table[table["label"].isin(classes) & table["recording"].isin(set(loader.entries))]
    return labelled_windows(loader, table) if len(table) else None


def _rows_of(known: LabelledWindows | None, label: str) -> np.ndarray:
    if known is None or label not in known.classes:
        return np.zeros(0, np.int64)
    rows: np.ndarray = known.rows[known.values[:, known.classes.index(label)] != UNKNOWN]
    return rows


class _Shown:
    """The windows of a list, and which ones are too close to them."""

    def __init__(
        self,
        loader: Loader,
        windows: ModelWindows,
        classes: Sequence[str],
        known: LabelledWindows | None,
        *,
        per_site: bool,
    ) -> None:
        self._loader, self._windows, self._classes = loader, windows, classes
        self._known, self._per_site = known, per_site
        self._where = Whereabouts(loader)
        self._names = windows.recordings
        self._recording = np.repeat(np.arange(len(windows.entries)), windows.counts)
        self._start = windows.times[0]
        self._searched = searched_windows(loader)
        self._chosen: list[int] = []
        self._heard = known.rows if known is not None else np.zeros(0, np.int64)

    @cached_property
    def _learnt_from(self) -> tuple[LabelledWindows, np.ndarray]:
        """Labelled windows to learn from, and their embeddings."""
        known = self._known
        try:
            known = known or _laid(self._loader, labels_for(self._loader), self._classes)
        except AnnotationsError as error:
            logger.warning("suggestions know nothing of annotations: %s", error)
        except RecogniserError as error:  # it may have been taught elsewhere
            logger.debug("%s", error)
        if known is None:
            nothing = np.zeros((0, len(self._classes)), np.int8)
            known = LabelledWindows(self._windows, nothing[:, 0].astype(np.int64), nothing,
                                    tuple(self._classes))  # fmt: skip
        if not len(known.rows):
            return known, self._searched.embeddings[:0]
        return known, embeddings_of(self._loader, known.rows)

    def spread(self, trained: Recogniser, label: str, embeddings: np.ndarray) -> np.ndarray:
        """Covariance of the logits of windows for one class, by what is labelled now."""
        column = trained.classes.index(label)
        learnt = Learnt(trained.weight[column], trained.bias[column], trained.square_roots)
        known, heard = self._learnt_from
        if label not in known.classes:
            known = known._replace(
                classes=(*known.classes, label),
                values=np.pad(known.values, ((0, 0), (0, 1)), constant_values=UNKNOWN),
            )
        examples = class_examples(
            known, known.classes.index(label), heard, self._searched,
            weak_negatives=bool(trained.about.get("weak_negatives", True)),
            seed=int(trained.about.get("seed", 0)),
        )  # fmt: skip
        return logit_covariance(examples, learnt, self._searched.whitening, embeddings)

    def choose(
        self,
        free: np.ndarray,
        score: np.ndarray,
        way: str,
        count: int,
        rng: np.random.Generator,
        spread: Spread | None = None,
    ) -> list[int]:
        """Choose some of the free windows, and remember them; `mixed` needs their `spread`."""
        if not len(free) or count < 1:
            return []
        order = _ordered(free, score[free], way, rng)
        if self._per_site:
            order = self._by_turns(order)
        candidates = order[: _CANDIDATES * count]
        place = np.argsort(candidates)
        embeddings = embeddings_of(self._loader, candidates[place])[np.argsort(place)]
        vectors = self._unit(embeddings)
        picked: Iterator[int] = iter(range(len(candidates)))
        if way == "novel":
            before = np.sort(np.concatenate([self._heard, self._chosen]).astype(np.int64))
            before = self._unit(embeddings_of(self._loader, before))
            picked = _novel(vectors, (vectors @ before.T).max(axis=1, initial=-1.0))
        unsure = None
        if spread is not None:
            some = candidates[:_TOGETHER]
            covariance = spread(embeddings[: len(some)])
            unsure = LeastSure(logit(score[some]), covariance, self._turns(some))
            picked = chain(unsure, range(len(some), len(candidates)))
        mine: list[int] = []
        late: list[int] = []
        for i in picked:
            if len(mine) == count:
                break
            near = any(self._is_near(candidates[i], other) for other in [*self._chosen, *mine])
            alike = any(vectors[i] @ vectors[j] > _ALIKE for j in self._places(candidates, mine))
            (late if near or alike else mine).append(int(candidates[i]))
            if unsure is not None and i < _TOGETHER and not (near or alike):
                unsure.take(i)
        mine += late[: count - len(mine)]
        self._chosen += mine
        return mine

    def _places(self, candidates: np.ndarray, rows: Sequence[int]) -> list[int]:
        return [int(np.flatnonzero(candidates == row)[0]) for row in rows]

    def _unit(self, embeddings: np.ndarray) -> np.ndarray:
        """Centred embeddings of length 1."""
        whitening = self._searched.whitening
        if not len(embeddings):
            return np.zeros((0, len(whitening.mean)), np.float32)
        centred = whitening.centred(embeddings)
        length = np.linalg.norm(centred, axis=1, keepdims=True)
        unit: np.ndarray = centred / np.maximum(length, 1e-12)
        return unit

    def _is_near(self, row: int, other: int) -> bool:
        same = self._recording[row] == self._recording[other]
        return bool(same and abs(self._start[row] - self._start[other]) < _APART)

    def _turns(self, rows: np.ndarray) -> np.ndarray:
        """Number of the site of each window, and of its day there; shape (n, 2)."""
        groups: np.ndarray = self._groups[self._recording[rows]]
        return groups

    @cached_property
    def _groups(self) -> np.ndarray:
        """The same of each recording."""
        if not self._per_site:
            return np.zeros((len(self._names), 2), np.int64)
        place = {name: self._where.of(name) for name in self._names}
        sites = {
            name: number for number, name in enumerate(sorted({p.site for p in place.values()}))
        }
        site = np.array([sites[place[name].site] for name in self._names])
        day = np.array([str(place[name].local)[:10] for name in self._names])
        _, session = np.unique(
            np.array([f"{s} {d}" for s, d in zip(site, day, strict=True)]), return_inverse=True
        )
        return np.stack([site, session], axis=1)

    def _by_turns(self, order: np.ndarray) -> np.ndarray:
        """The first of every site, then the second of each; within a site, its days by turns."""
        site, session = self._turns(order).T
        turn = _rank_within(session)
        by_day = np.lexsort((np.arange(len(order)), turn))
        rank = np.empty(len(order), np.int64)
        rank[by_day] = _rank_within(site[by_day])
        chosen: np.ndarray = order[np.lexsort((np.arange(len(order)), rank))]
        return chosen


def _rank_within(group: np.ndarray) -> np.ndarray:
    """How many of its group stand before each."""
    order = np.argsort(group, kind="stable")
    _, first, counts = np.unique(group[order], return_index=True, return_counts=True)
    rank = np.empty(len(group), np.int64)
    rank[order] = np.arange(len(group)) - np.repeat(first, counts)
    return rank


def _ordered(free: np.ndarray, score: np.ndarray, way: str, rng: np.random.Generator) -> np.ndarray:
    """Windows in the order in which a strategy takes them."""
    shuffled = rng.permutation(len(free))  # so that equal scores are not all of one recording
    score = score[shuffled]
    if way == "top":
        order = np.argsort(-score, kind="stable")
    elif way in {"margin", "mixed"}:
        order = np.argsort(np.abs(score - 0.5), kind="stable")
    elif way == "stratified":
        logits = logit(score)
        edges = np.linspace(logits.min(), logits.max(), _STRATA + 1)[1:-1]
        order = np.argsort(_rank_within(np.digitize(logits, edges)), kind="stable")
    else:
        order = np.arange(len(score))
    return free[shuffled[order]]


class LeastSure:
    """Windows whose class is least sure, each as if those taken before it were labelled already.

    A window's class is as unsure as the probability that the logit, taken as normal, gives it is
    near 0.5 (MacKay 1992, "The evidence framework applied to classification networks").  What a
    label would tell of the others is what Laplace's approximation says, whatever the label.

    Parameters
    ----------
    logits : np.ndarray, shape (n,)
    covariance : np.ndarray, float64, shape (n, n)
        Of the logits.
    turns : np.ndarray, int64, shape (n, 2)
        Groups of windows, and groups within these, that take turns.
    """

    def __init__(self, logits: np.ndarray, covariance: np.ndarray, turns: np.ndarray) -> None:
        p = expit(logits)
        self._logits, self._covariance, self._turns = logits, covariance.copy(), turns
        self._told = np.maximum(p * (1 - p), _LEAST)
        self._counts = [np.zeros(turns[:, i].max(initial=0) + 1, np.int64) for i in (0, 1)]

    def __iter__(self) -> Iterator[int]:
        """Each window once."""
        free = np.ones(len(self._logits), bool)
        while free.any():
            left = np.flatnonzero(free)
            unsure = 1 + np.pi / 8 * np.maximum(np.diag(self._covariance)[left], 0)
            sure = np.abs(self._logits[left]) / np.sqrt(unsure)
            site, day = (self._counts[i][self._turns[left, i]] for i in (0, 1))
            i = int(left[np.lexsort((sure, day, site))[0]])
            free[i] = False
            yield i

    def take(self, i: int) -> None:
        """Count a window as labelled."""
        for level, counts in enumerate(self._counts):
            counts[self._turns[i, level]] += 1
        column = self._covariance[:, i].copy()
        self._covariance -= np.outer(column, column / (column[i] + 1 / self._told[i]))


def _novel(vectors: np.ndarray, similar: np.ndarray) -> Iterator[int]:
    """Each time the one that is least like all before it."""
    similar = similar.copy()
    for _ in range(len(vectors)):
        i = int(np.argmin(similar))
        yield i
        similar = np.maximum(similar, vectors @ vectors[i])
        similar[i] = np.inf
