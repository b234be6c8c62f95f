"""Learn every class that labels of windows tell enough of, each for itself."""

from __future__ import annotations

import logging

import numpy as np

from bacpipe.annotations.cells import listed
from bacpipe.errors import RecogniserError
from bacpipe.recognisers.labelled import ABSENT, DOUBTFUL, PRESENT, UNKNOWN, LabelledWindows
from bacpipe.recognisers.learner import WEAK_NEGATIVES, Examples, Learnt, learn
from bacpipe.recognisers.searched_windows import SearchedWindows

logger = logging.getLogger(__name__)

_FEW = 10  # labels of a kind, below which scores are hardly more than a sorting


def learn_classes(
    labelled: LabelledWindows,
    embeddings: np.ndarray,
    searched: SearchedWindows,
    *,
    weak_negatives: bool = True,
    seed: int = 0,
    said: bool = False,
) -> dict[str, Learnt]:
    """Learn each class that can be learnt.

    Parameters
    ----------
    labelled : LabelledWindows
    embeddings : np.ndarray, float32, shape (n, dim)
        Of the labelled windows.
    searched : SearchedWindows
        Of the windows to be searched.
    weak_negatives, seed
        As for `train_recogniser`.
    said : bool
        Whether to log which classes have few labels.

    Raises
    ------
    RecogniserError
        If none can be learnt.
    """
    learnt: dict[str, Learnt] = {}
    without: list[str] = []
    only_heard: list[str] = []
    unopposed: list[str] = []
    few: list[str] = []
    for column, label in enumerate(labelled.classes):
        examples = class_examples(
            labelled, column, embeddings, searched, weak_negatives=weak_negatives, seed=seed
        )
        present = examples.present[: examples.labelled]
        if not present.any():
            without.append(label)
            continue
        if present.all():
            weak = len(examples.present) > examples.labelled
            (only_heard if weak else unopposed).append(label)
            if not weak:
                continue
        if min(present.sum(), (~present).sum()) < _FEW:
            few.append(label)
        learnt[label] = learn(examples, searched.whitening)
    if not learnt:
        reasons = []
        if without:
            reasons.append(f"{listed(without)} was heard in no window")
        if unopposed:
            reasons.append(
                f"{listed(unopposed)} was heard in every labelled window, and without weak "
                f"negatives nothing says how its absence sounds"
            )
        raise RecogniserError(
            f"No class can be learnt: {'; '.join(reasons)}. Label windows with yes, and others "
            f"with no."
        )
    if said:
        _say(without, unopposed, only_heard, few, labelled)
    return learnt


def class_examples(
    labelled: LabelledWindows,
    column: int,
    embeddings: np.ndarray,
    searched: SearchedWindows,
    *,
    weak_negatives: bool,
    seed: int,
) -> Examples:
    """What one class is learnt from; for parameters see `learn_classes`."""
    sound = np.isfinite(embeddings).all(axis=1)
    value = np.where(sound, labelled.values[:, column], DOUBTFUL)
    judged = np.flatnonzero((value == PRESENT) | (value == ABSENT))
    weak = np.zeros((0, searched.embeddings.shape[1]), np.float32)
    if weak_negatives:
        others = embeddings[value == UNKNOWN]
        free = ~np.isin(searched.rows, labelled.rows[value != UNKNOWN])
        rng = np.random.default_rng([seed, column])
        drawn = rng.permutation(np.flatnonzero(free))[:WEAK_NEGATIVES]
        weak = np.concatenate([others, searched.embeddings[drawn]])
    return Examples(
        np.concatenate([embeddings[judged], weak]),
        np.concatenate([value[judged] == PRESENT, np.zeros(len(weak), bool)]),
        len(judged),
    )


def _say(
    without: list[str],
    unopposed: list[str],
    only: list[str],
    few: list[str],
    labelled: LabelledWindows,
) -> None:
    if without:
        logger.warning(
            "left out, because they were heard in no labelled window: %s.", listed(without)
        )
    if unopposed:
        logger.warning(
            "left out, because they were heard in every window that was labelled for them, and "
            "without weak negatives nothing says how their absence sounds: %s.",
            listed(unopposed),
        )
    if only:
        logger.warning(
            "heard in every window that was labelled for it: %s. Windows that nobody has labelled "
            "stand for its absence; label some with no, best those that bacpipe suggest names.",
            listed(only),
        )
    if few:
        logger.info(
            "fewer than %d labels of yes or of no: %s. Scores sort windows, but a threshold on "
            "them means little yet.",
            _FEW,
            listed(few),
        )
