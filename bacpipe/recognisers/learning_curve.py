"""How well a class would have been learnt from fewer labels, and so what more may bring."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bacpipe.annotations.cells import listed
from bacpipe.errors import RecogniserError
from bacpipe.recognisers.judging import cross_validated, judged, windows_to_judge
from bacpipe.recognisers.labelled import ABSENT, PRESENT
from bacpipe.recognisers.recogniser import Recogniser
from bacpipe.recognisers.searched_windows import embeddings_of
from bacpipe.store.loader import Loader

if TYPE_CHECKING:
    import pandas as pd

SHARES = (0.25, 0.5, 1.0)
"""Parts of the labels."""

_DRAWS = 2


def learning_curve(
    recogniser: Recogniser, loader: Loader, labels: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Judge what the learner of a recogniser makes of parts of its labels.

    Every window is judged by what was learnt without its recording, as `Recogniser.evaluate` does.

    Parameters
    ----------
    recogniser : Recogniser
        What was learnt of all labels.
    loader : Loader
        Results of its model, with the labels that it was taught with.
    labels : pandas.DataFrame, optional
        As for `train_recogniser`.

    Returns
    -------
    pandas.DataFrame
        A row per share of the labels and class: share, class, labels (windows judged for the class
        that it corresponds to), average_precision, roc_auc, precision and recall at score 0.5,
        means of two draws; NaN where they cannot be told.

    Raises
    ------
    RecogniserError
        If the embeddings are another model's, no label is of one of its classes, or none says that
        a class is not there.
    """
    import pandas as pd

    recogniser.check(loader)
    labelled = windows_to_judge(loader, recogniser, labels)
    if not any((col == PRESENT).any() and (col == ABSENT).any() for col in labelled.values.T):
        raise RecogniserError(
            f"Nobody has said of a window that {listed(labelled.classes)} is not heard in it, so "
            f"nothing tells right from wrong; label some windows with no."
        )
    embeddings = embeddings_of(loader, labelled.rows)
    counts = {
        name: int(((column == PRESENT) | (column == ABSENT)).sum())
        for name, column in zip(labelled.classes, labelled.values.T, strict=True)
    }
    parts = []
    for share in SHARES:
        for draw in range(1 if share == 1 else _DRAWS):
            scores, how = cross_validated(
                loader, labelled, embeddings, recogniser.about, share=share, draw=draw
            )
            part = judged(labelled, scores, how)
            parts.append(part.assign(share=share, labels=part["class"].map(counts) * share))
    measures = ["labels", "average_precision", "roc_auc", "precision", "recall"]
    curve = pd.concat(parts).groupby(["share", "class"], as_index=False)[measures].mean()
    curve.attrs["how"] = how
    return curve
