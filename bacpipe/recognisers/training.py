"""Train a recogniser from labels, and store it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bacpipe._version import __version__
from bacpipe.errors import RecogniserError
from bacpipe.models.zoo import CARDS
from bacpipe.options import make_options
from bacpipe.recognisers.judging import recording_of
from bacpipe.recognisers.labelled import (
    ABSENT,
    DOUBTFUL,
    PRESENT,
    LabelledWindows,
    labelled_windows,
    labels_for,
    recording_key,
)
from bacpipe.recognisers.learnt_classes import learn_classes
from bacpipe.recognisers.recogniser import Recogniser, is_model_of
from bacpipe.recognisers.searched_windows import embeddings_of, searched_windows
from bacpipe.store.loader import Loader
from bacpipe.store.recognisers import check_recogniser_name
from bacpipe.user_input import typed_seed

if TYPE_CHECKING:
    import pandas as pd


def train_recogniser(
    audio_dir: str | Path,
    model: str,
    *,
    name: str,
    labels: pd.DataFrame | None = None,
    classes: str | Sequence[str] | None = None,
    weak_negatives: bool = True,
    seed: int | None = None,
    loader: Loader | None = None,
    **kwargs: object,
) -> Recogniser:
    """Learn classes of your own from labelled windows.

    One penalised logistic regression per class on a model's embeddings, so that "nothing" is an
    answer.  Labels of ``no`` are negatives; so are, at a twentieth of their weight or less, 500
    windows that nobody has labelled, and windows that were labelled with other classes.  See
    `bacpipe.recognisers.learner`.

    Parameters
    ----------
    audio_dir : str or Path
        Folder with the recordings, which are embedded already.
    model : str
        Whose embeddings.
    name : str
        Of the recogniser: letters, digits, and ``_ . -``.
    labels : pandas.DataFrame, optional
        Labels as `people_labels` returns them, or annotations as `import_annotations` does; by
        default those on disk that the setting ``labels_from`` names, else the labels of people, or
        where there are none the annotations.
    classes : str or sequence of str, optional
        Which of the labels to learn; all unless given.
    weak_negatives : bool
        False learns from labels alone.
    seed : int, optional
        Of what is drawn at random; 0 unless given.
    loader : Loader, optional
        Results of the model, instead of `audio_dir` and `model`.
    **kwargs
        Any key of the configuration; labels_from says which labels, main_results_dir where
        results are, and annotations_filename, label_column, min_annotation_length and
        annotation_overlap how annotations become labels of windows.

    Returns
    -------
    Recogniser
        Stored in ``recognisers/<name>`` of the data set's results.

    Raises
    ------
    RecogniserError
        If no class has both sides to be learnt from, or the name is not possible.
    AnnotationsError
        If a row of `labels` is not possible, or none is about one of these recordings.
    ResultsNotFoundError
        If the model has no embeddings of these recordings.

    Examples
    --------
    >>> import bacpipe
    >>> recogniser = bacpipe.train_recogniser("recordings", "birdnet", name="hoots",
    ...     labels_from="annotations", classes=["synthetic hoot"])
    >>> table = recogniser.detections(bacpipe.Loader("recordings", "birdnet"))
    >>> table["common_name"].unique().tolist()
    ['synthetic hoot']
    """
    loader = loader or Loader(audio_dir, model, options=make_options(**kwargs))
    _check_name(name, loader)
    seed = typed_seed(seed) or 0
    begun = datetime.now(UTC)  # labels of later times are not learnt
    table = labels_for(loader, labels)
    labelled = labelled_windows(loader, table, classes)
    embeddings = embeddings_of(loader, labelled.rows)
    searched = searched_windows(loader)
    learnt = learn_classes(
        labelled, embeddings, searched, weak_negatives=weak_negatives, seed=seed, said=True
    )
    identity = (loader.embedding_set.identity if loader.embedding_set else None) or {}
    card = CARDS.get(str(loader.model_name))
    about = {
        "embeddings": loader.get_embedding_dir().name,
        "audio_dir": str(loader.audio_dir.resolve()),
        "recordings": _fingerprints(loader, labelled),
        "window": identity.get("window"),
        "sample_rate": identity.get("sample_rate"),
        "labels": {
            label: {
                "present": int((column == PRESENT).sum()),
                "absent": int((column == ABSENT).sum()),
                "doubtful": int((column == DOUBTFUL).sum()),
            }
            for label, column in zip(labelled.classes, labelled.values.T, strict=True)
            if label in learnt
        },
        "weak_negatives": weak_negatives,
        "seed": seed,
        "licence_of_the_model": card.licence if card is not None else "",
        "taught": _taught(loader, labelled, tuple(learnt)),
        "created": begun.isoformat(timespec="microseconds"),
        "version": __version__,
    }
    recogniser = Recogniser(
        name,
        str(loader.model_name),
        identity.get("checkpoint") or "",
        tuple(learnt),
        np.stack([item.weight for item in learnt.values()]),
        np.array([item.bias for item in learnt.values()], np.float32),
        about,
        bool(searched.whitening.square_roots[0]),
    )
    recogniser.save(loader.paths.recognisers_path / name)
    return recogniser


def _fingerprints(loader: Loader, labelled: LabelledWindows) -> list[str]:
    """Of the content of all recordings with labels."""
    prints = [entry.fingerprint for entry in loader.entries.values()]
    return sorted({text for i in np.unique(recording_of(labelled)) if (text := prints[i])})


def _taught(
    loader: Loader, labelled: LabelledWindows, classes: Sequence[str]
) -> dict[str, dict[str, list[int]]]:
    """Windows that were labelled, by class and recording: their starts in milliseconds."""
    names, number = list(loader.entries), recording_of(labelled)
    start = np.rint(labelled.windows.times[0][labelled.rows] * 1000).astype(np.int64)
    taught: dict[str, dict[str, list[int]]] = {label: {} for label in classes}
    for label in classes:
        value = labelled.values[:, labelled.classes.index(label)]
        for row in np.flatnonzero((value == PRESENT) | (value == ABSENT)).tolist():
            key = recording_key(loader, names[number[row]])
            taught[label].setdefault(key, []).append(int(start[row]))
    return taught


def _check_name(name: object, loader: Loader) -> None:
    check_recogniser_name(name)
    if name == "overview" or is_model_of(loader, str(name)):
        taken = "a folder of results" if name == "overview" else "a model"
        raise RecogniserError(
            f"name={name!r} is not possible for a recogniser: {taken} has this name; expected "
            f"another one."
        )
