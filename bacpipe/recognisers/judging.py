"""Judge what a recogniser has learnt by labels of windows, never by those that it learnt from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from bacpipe.annotations.cells import listed
from bacpipe.audio.remote import shown
from bacpipe.errors import RecogniserError
from bacpipe.recognisers.labelled import (
    ABSENT,
    PRESENT,
    UNKNOWN,
    LabelledWindows,
    labelled_windows,
    labels_for,
)
from bacpipe.recognisers.learnt_classes import learn_classes
from bacpipe.recognisers.searched_windows import searched_windows
from bacpipe.store.loader import Loader
from bacpipe.store.recognisers import StoredRecogniser

if TYPE_CHECKING:
    import pandas as pd

_FOLDS = 5


def windows_to_judge(
    loader: Loader, recogniser: StoredRecogniser, labels: pd.DataFrame | None
) -> LabelledWindows:
    """Labelled windows of a recogniser's classes, with those in which others are not heard.

    Raises
    ------
    RecogniserError
        If no label is of one of its classes.
    """
    table = labels_for(loader, labels)
    table = table[table["label"].isin(recogniser.classes)]
    if table.empty:
        raise RecogniserError(
            f"{shown(loader.audio_dir)}: no label is of a class of the recogniser "
            f"{recogniser.name!r}, which knows {listed(recogniser.classes)}."
        )
    known = [name for name in recogniser.classes if name in set(table["label"])]
    return _with_negatives(labelled_windows(loader, table, known))


def _with_negatives(labelled: LabelledWindows) -> LabelledWindows:
    """Where nothing but presence was labelled, as in annotations, windows of other classes lack it.

    Windows without any label are not among them: nobody says that they were listened to.
    """
    values = labelled.values.copy()
    for column in values.T:
        if not (column == ABSENT).any():
            column[column == UNKNOWN] = ABSENT
    return labelled._replace(values=values)


def cross_validated(
    loader: Loader,
    labelled: LabelledWindows,
    embeddings: np.ndarray,
    about: Mapping[str, Any],
    *,
    share: float = 1.0,
    draw: int = 0,
) -> tuple[np.ndarray, str]:
    """Scores of every window by what was learnt without its recording.

    Parameters
    ----------
    loader : Loader
    labelled : LabelledWindows
        The windows to be judged.
    embeddings : np.ndarray, float32, shape (n, dim)
        Of these.
    about : mapping
        How the recogniser was taught: its ``seed`` and ``weak_negatives``.
    share : float
        Part of the labels to learn from, of each class and its absence alike.
    draw : int
        Which draw of that part.

    Returns
    -------
    np.ndarray, float32, shape (n, classes)
        NaN where nothing could be learnt.
    str
        How windows were left out.
    """
    recording = recording_of(labelled)
    groups = np.unique(recording)
    how = "each recording by what was learnt from the others"
    if len(groups) < 2:
        recording, groups = np.arange(len(labelled.rows)), np.arange(len(labelled.rows))
        how = "each window by what was learnt from the others, all of one recording: too good"
    rng = np.random.default_rng(about.get("seed", 0))
    fold_of = dict(
        zip(rng.permutation(groups).tolist(), np.arange(len(groups)) % _FOLDS, strict=True)
    )
    fold = np.array([fold_of[int(group)] for group in recording])
    scores = np.full(labelled.values.shape, np.nan, np.float32)
    searched = searched_windows(loader)
    for number in np.unique(fold):
        out = fold == number
        known = _part(labelled, np.flatnonzero(~out), share, [draw, int(number)])
        rest = labelled._replace(rows=labelled.rows[known], values=labelled.values[known])
        # Windows that are judged must not be among the weak negatives either.
        free = ~np.isin(searched.rows, labelled.rows[out])
        others = searched._replace(rows=searched.rows[free], embeddings=searched.embeddings[free])
        try:
            learnt = learn_classes(
                rest, embeddings[known], others,
                weak_negatives=bool(about.get("weak_negatives", True)),
                seed=int(about.get("seed", 0)),
            )  # fmt: skip
        except RecogniserError:  # nothing was heard in the rest
            continue
        for column, label in enumerate(labelled.classes):
            if label in learnt:
                logits = learnt[label].logits(embeddings[out])
                scores[out, column] = 1 / (1 + np.exp(-np.clip(logits, -60, 60)))
    return scores, how


def _part(labelled: LabelledWindows, rows: np.ndarray, share: float, seed: list[int]) -> np.ndarray:
    """A share of some judged windows: of every combination of labels, at least one window."""
    if share >= 1:
        return rows
    rng = np.random.default_rng(seed)
    _, kind = np.unique(labelled.values[rows], axis=0, return_inverse=True)
    parts = []
    for number in np.unique(kind):
        mine = rng.permutation(rows[kind.ravel() == number])
        parts.append(mine[: max(1, round(share * len(mine)))])
    return np.sort(np.concatenate(parts))


def judged(labelled: LabelledWindows, scores: np.ndarray, how: str) -> pd.DataFrame:
    """Measures of each class, as `Recogniser.evaluate` returns them."""
    import pandas as pd
    from sklearn.metrics import average_precision_score, roc_auc_score

    recording = recording_of(labelled)
    rows = []
    for column, label in enumerate(labelled.classes):
        value, score = labelled.values[:, column], scores[:, column]
        judged = np.isin(value, (PRESENT, ABSENT))
        kept = judged & np.isfinite(score)
        present, chosen = value[kept] == PRESENT, score[kept] >= 0.5
        both = present.any() and not present.all()
        hits = int((present & chosen).sum())
        rows.append(
            {
                "class": label,
                "present": int((value == PRESENT).sum()),
                "absent": int((value == ABSENT).sum()),
                "recordings": len(np.unique(recording[judged])),
                "average_precision": (
                    average_precision_score(present, score[kept]) if both else np.nan
                ),
                "roc_auc": roc_auc_score(present, score[kept]) if both else np.nan,
                "precision": hits / chosen.sum() if chosen.any() else np.nan,
                "recall": hits / present.sum() if present.any() else np.nan,
            }
        )
    table = pd.DataFrame(rows)
    table.attrs["how"] = how
    return table


def recording_of(labelled: LabelledWindows) -> np.ndarray:
    """Number of the recording of each judged window, int64."""
    return np.searchsorted(np.cumsum(labelled.windows.counts), labelled.rows, side="right")
