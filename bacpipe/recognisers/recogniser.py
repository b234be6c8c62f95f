"""Recognisers: classes of your own, learnt from labelled windows on top of a model's embeddings.

A recogniser is a matrix of weights and a bias per class on plain embeddings, whatever the features
were that it was learnt with.  On disk it is ``recognisers/<name>/recogniser.safetensors`` (the
numbers) and ``recogniser.json`` (the words: model, checkpoint, classes, labels, licence); reading
it runs no code.  Applied to a data set it gives what an integrated classifier gives: tables in
``evaluations/<name>/predictions``, read by a loader that tables and exports take like any other.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bacpipe._version import __version__
from bacpipe.annotations.cells import listed
from bacpipe.errors import (
    RecogniserError,
    ResultsNotFoundError,
    SettingsError,
    counted,
)
from bacpipe.exports.detections import detections_table
from bacpipe.inference.run_data_set import model_identity, write_prediction_tables
from bacpipe.models.backends.pytorch import choose_device
from bacpipe.models.base import Model
from bacpipe.models.loading import load_custom_model, load_model
from bacpipe.models.zoo import CARDS
from bacpipe.options import make_options
from bacpipe.recognisers.labelled import (
    ABSENT,
    DOUBTFUL,
    PRESENT,
    UNKNOWN,
    LabelledWindows,
    labelled_windows,
    labels_for,
)
from bacpipe.recognisers.learner import WEAK_NEGATIVES, Examples, Learnt, learn
from bacpipe.recognisers.model import RecogniserModel, write_onnx
from bacpipe.recognisers.searched_windows import SearchedWindows, embeddings_of, searched_windows
from bacpipe.store.class_list import ClassList, write_class_list
from bacpipe.store.detections import Detections
from bacpipe.store.embedding_set import prediction_settings, read_embeddings
from bacpipe.store.entries import PredictionSettings
from bacpipe.store.layout import (
    PREDICTIONS,
    PROVENANCE,
    RECOGNISER_WEIGHTS,
    RECOGNISERS,
    ResultPaths,
    class_list_path,
    detections_path,
)
from bacpipe.store.loader import Loader
from bacpipe.store.predictions import RecentPredictions, SparsePredictions
from bacpipe.store.recognisers import StoredRecogniser, read_recogniser
from bacpipe.store.tables import read_blocks, stored_state
from bacpipe.user_input import is_file, is_folder, typed_path

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

_CHUNK = 65_536
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,59}", re.ASCII)
_FOLDS = 5
_FEW = 10  # labels of a kind, below which scores are hardly more than a sorting


@dataclass(frozen=True, eq=False)
class Recogniser:
    """Classes of your own on top of a model's embeddings.

    Parameters
    ----------
    name : str
        By which it is found.
    model : str
        Whose embeddings it takes.
    checkpoint : dict or str
        Hash of the model's weights, by file; for a model of your own, the name of its class.
    classes : tuple of str
        Name of every column of scores.
    weight : np.ndarray, float32, shape (classes, dim)
        On embeddings.
    bias : np.ndarray, float32, shape (classes,)
        Added to it.
    about : dict
        What else is known of it: labels and features by class, data set, seed, licence, versions.

    Examples
    --------
    >>> import bacpipe
    >>> recogniser = bacpipe.train_recogniser("recordings", "birdnet", name="hoots",
    ...     labels_from="annotations", classes=["synthetic hoot"])
    >>> recogniser.classes
    ('synthetic hoot',)
    >>> recogniser.predict(bacpipe.Loader("recordings", "birdnet")).shape
    (153, 1)
    """

    name: str
    model: str
    checkpoint: Mapping[str, str] | str
    classes: tuple[str, ...]
    weight: np.ndarray
    bias: np.ndarray
    about: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"Recogniser({self.name!r} on {self.model}: {', '.join(self.classes)})"

    # ------------------------------------------------------------------ applying

    def predict(self, loader: Loader | np.ndarray) -> np.ndarray:
        """Scores of all windows.

        Parameters
        ----------
        loader : Loader or np.ndarray
            Results of the recogniser's model, or embeddings, float32 of shape (windows, dim).

        Returns
        -------
        np.ndarray, float32, shape (windows, classes)
            In [0, 1], each class for itself: a window may have several, or none.  Windows are in
            the order of ``Loader.embeddings('array')``.  Scores are no probabilities; 0.5 is the
            border that was learnt.

        Raises
        ------
        RecogniserError
            If the embeddings are another model's.
        """
        if isinstance(loader, np.ndarray):
            return self._scores(loader)
        self.check(loader)
        parts = [scores for _, scores in self._by_recording(loader)]
        return np.concatenate(parts)

    def _scores(self, embeddings: np.ndarray) -> np.ndarray:
        dim = self.weight.shape[1]
        if embeddings.ndim != 2 or embeddings.shape[1] != dim:
            raise RecogniserError(
                f"The recogniser {self.name!r} takes embeddings of {self.model}, of shape (windows,"
                f" {dim}), but got {embeddings.shape}; they are another model's."
            )
        scores = np.empty((len(embeddings), len(self.classes)), np.float32)
        for first in range(0, len(embeddings), _CHUNK):
            part = np.asarray(embeddings[first : first + _CHUNK], np.float32)
            logits = part @ self.weight.T + self.bias
            scores[first : first + _CHUNK] = 1 / (1 + np.exp(-np.clip(logits, -60, 60)))
        return scores

    def _by_recording(self, loader: Loader) -> Iterator[tuple[str, np.ndarray]]:
        found = loader.embedding_set
        assert found is not None
        for name, entry in loader.entries.items():
            embeddings = read_embeddings(found, entry, verify=True)
            if entry.windows:
                yield name, self._scores(embeddings)
            else:
                yield name, np.zeros((0, len(self.classes)), np.float32)

    def check(self, loader: Loader) -> None:
        """Make sure that a loader's embeddings are those of the recogniser's model.

        Raises
        ------
        RecogniserError
            If they are another model's, or of other weights; names both.
        """
        if not isinstance(loader, Loader):
            raise RecogniserError(
                f"The recogniser {self.name!r} takes results of {self.model}, not a "
                f"{type(loader).__name__}; expected bacpipe.Loader(audio_dir, {self.model!r})."
            )
        loader.get_embedding_dir()  # or says that there are none
        found = loader.embedding_set
        identity = (found.identity if found is not None else None) or {}
        if loader.model_name != self.model:
            raise RecogniserError(
                f"The recogniser {self.name!r} takes embeddings of {self.model}, not of "
                f"{loader.model_name}; run {self.model} on {loader.audio_dir}, or train another "
                f"recogniser on {loader.model_name}."
            )
        known = identity.get("checkpoint")
        if known is not None and self.checkpoint and known != self.checkpoint:
            raise RecogniserError(
                f"The recogniser {self.name!r} was trained on {self.model} with the weights "
                f"{_shown(self.checkpoint)}, but the embeddings in {loader.get_embedding_dir()} "
                f"were computed with {_shown(known)}; train it again, or compute embeddings with "
                f"the former weights."
            )

    def results(self, loader: Loader, **kwargs: object) -> RecogniserResults:
        """Apply it, unless that is done: predictions as an integrated classifier's.

        Parameters
        ----------
        loader : Loader
            Results of the recogniser's model.
        **kwargs
            Any key of the configuration; ``classifier_threshold`` and
            ``max_predictions_per_window`` say what is stored.

        Returns
        -------
        RecogniserResults
            A loader for tables and exports, such as `detections_table` and `export_raven_tables`.
        """
        self.check(loader)
        found = RecogniserResults(self, loader, kwargs)
        found.write()
        return found

    def detections(
        self,
        loader: Loader,
        **kwargs: Any,  # noqa: ANN401 (handed on to detections_table)
    ) -> pd.DataFrame:
        """Apply it and return its detections, with the columns of `detections_table`.

        Parameters
        ----------
        loader : Loader
            Results of the recogniser's model.
        **kwargs
            Any key of the configuration, as for `detections_table`.
        """
        return detections_table(self.results(loader, **kwargs), **kwargs)

    # ------------------------------------------------------------------ judging

    def evaluate(self, loader: Loader, labels: pd.DataFrame | None = None) -> pd.DataFrame:
        """Judge it by labels, never by windows that it has learnt from.

        Labels of the data set that it was trained on are divided by recording into five parts, and
        each is judged by what the same learner makes of the other four; labels of any other data
        set are judged by the recogniser as it is, without those of recordings that it knows.

        Parameters
        ----------
        loader : Loader
            Results of the recogniser's model.
        labels : pandas.DataFrame, optional
            As for `train_recogniser`.

        Returns
        -------
        pandas.DataFrame
            A row per class: class, present and absent (labelled windows), recordings,
            average_precision, roc_auc, and precision and recall at score 0.5.  NaN where they
            cannot be told.  ``attrs['how']`` says how it was judged.

        Raises
        ------
        RecogniserError
            If the embeddings are another model's, or no label is of one of its classes.
        """
        found = windows_to_judge(self, loader, labels)
        learnt_from = self._has_learnt_from(loader, found)
        own = (
            self.about.get("embeddings") == loader.get_embedding_dir().name
            or self.about.get("audio_dir") == str(loader.audio_dir.resolve())
            or bool(learnt_from.all())
        )
        if learnt_from.any() and not own:
            logger.warning(
                "%s of recordings that %s has learnt from left out.",
                counted(int(learnt_from.sum()), "window"),
                self.name,
            )
            kept = ~learnt_from
            found = found._replace(rows=found.rows[kept], values=found.values[kept])
        embeddings = embeddings_of(loader, found.rows)
        if own:
            scores, how = cross_validated(loader, found, embeddings, self.about)
        else:
            columns = [self.classes.index(name) for name in found.classes]
            scores, how = self._scores(embeddings)[:, columns], "labels that it has not learnt from"
        return judged(found, scores, how)

    def _has_learnt_from(self, loader: Loader, found: LabelledWindows) -> np.ndarray:
        """Whether each judged window is of a recording with labels that it was taught with."""
        known = set(self.about.get("recordings", ()))
        prints = [entry.fingerprint for entry in loader.entries.values()]
        return np.array([prints[i] in known for i in _recording_of(found)], dtype=bool)

    # ------------------------------------------------------------------ on disk

    def save(self, folder: str | Path) -> Path:
        """Write it into a folder of its own; returns the folder.

        Parameters
        ----------
        folder : str or Path
            Becomes the recogniser: a former one in it is replaced.
        """
        folder = typed_path(folder)
        self._stored.write(folder)
        return folder

    @property
    def _stored(self) -> StoredRecogniser:
        return StoredRecogniser(
            self.name, self.model, self.checkpoint, self.classes, self.weight, self.bias, self.about
        )

    @classmethod
    def load(cls, path: str | Path) -> Recogniser:
        """Read one from its folder, or from its safetensors file.

        Raises
        ------
        ResultsNotFoundError
            If there is none.
        ResultsError
            If it is damaged, or was written by a newer bacpipe.
        """
        found = read_recogniser(typed_path(path))
        return cls(
            found.name, found.model, found.checkpoint, found.classes, found.weight, found.bias,
            found.about,
        )  # fmt: skip

    # ------------------------------------------------------------------ elsewhere

    def as_model(self, CustomModel: type | Model | None = None, **kwargs: object) -> Model:
        """Make a model of it that embeds recordings and scores its classes in one pass.

        Run it as a ``CustomModel`` under a name of its own.  Its embeddings are stored under that
        name, too, so where those of `model` are there already, `results` is quicker.

        Parameters
        ----------
        CustomModel : class or object, optional
            The model that it was trained on, if that is one of your own.
        **kwargs
            Any key of the configuration, such as ``device`` and ``model_base_path``.

        Returns
        -------
        Model

        Raises
        ------
        RecogniserError
            If the weights are others than those that it was trained on; names both.

        Examples
        --------
        >>> import bacpipe
        >>> recogniser = bacpipe.train_recogniser("recordings", "birdnet", name="hoots",
        ...     labels_from="annotations", classes=["synthetic hoot"])
        >>> model = recogniser.as_model()
        >>> model.sr, model.segment_length, model.classes
        (48000, 144000, ('synthetic hoot',))
        """
        options = make_options(**kwargs)
        device, base = choose_device(options.device), options.model_base_path
        if CustomModel is None and self.model not in CARDS:
            raise RecogniserError(
                f"The recogniser {self.name!r} was trained on {self.model}, a model of somebody's "
                f"own; hand its class over: as_model(CustomModel=...)."
            )
        if CustomModel is None:
            backbone = load_model(self.model, device=device, model_base_path=base)
        else:
            backbone = load_custom_model(CustomModel, device=device, model_base_path=base)
        known = model_identity(self.model, options, backbone)["checkpoint"]
        if self.checkpoint and known != self.checkpoint:
            raise RecogniserError(
                f"The recogniser {self.name!r} was trained on {self.model} with the weights "
                f"{_shown(self.checkpoint)}, but those here are {_shown(known)}; put the former "
                f"ones there, or train it again."
            )
        return RecogniserModel(self._stored, backbone, version=self.digest)

    def export_onnx(self, path: str | Path) -> Path:
        """Write it as an ONNX graph, for programs without bacpipe; needs the extra ``onnx``.

        Parameters
        ----------
        path : str or Path
            The file, such as my_frogs.onnx.

        Returns
        -------
        Path
            The file.  Its input ``embeddings`` is float32 of shape (windows, dim), what the model
            gives for its windows; its output ``scores`` is float32 of shape (windows, classes).
            Model, checkpoint, classes and licence are in its metadata.

        Raises
        ------
        ModelUnavailableError
            If the package onnx is not installed.

        Examples
        --------
        >>> import bacpipe
        >>> recogniser = bacpipe.train_recogniser("recordings", "birdnet", name="hoots",
        ...     labels_from="annotations", classes=["synthetic hoot"])
        >>> recogniser.export_onnx("hoots.onnx").name
        'hoots.onnx'
        """
        target = typed_path(path)
        write_onnx(self._stored, target)
        return target

    @property
    def digest(self) -> str:
        """16 digits of a hash of what it does."""
        content = [self.weight.tobytes(), self.bias.tobytes(), "\0".join(self.classes).encode()]
        return hashlib.sha256(b"\0".join(content)).hexdigest()[:16]


def _shown(checkpoint: object) -> str:
    """Names and first digits of the hashes of weights."""
    if not isinstance(checkpoint, Mapping):
        return str(checkpoint)
    return ", ".join(f"{name} ({str(digest)[:12]})" for name, digest in checkpoint.items())


class RecogniserResults(Loader):
    """Predictions of a recogniser, read and exported like those of a model with a classifier.

    Parameters
    ----------
    recogniser : Recogniser
    loader : Loader
        Results of its model.
    settings : mapping
        Settings of the call, which come before those of the loader.
    """

    def __init__(
        self, recogniser: Recogniser, loader: Loader, settings: Mapping[str, Any] | None = None
    ) -> None:
        vars(self).update(vars(copy(loader)))
        self.recogniser = recogniser
        given = {key: getattr(loader.options, key) for key in loader.options.asked}
        self.options = make_options(**{**given, **(settings or {})})
        folder = loader.paths.labels_path.parent.parent / recogniser.name
        self.paths: ResultPaths = replace(loader.paths, preds_path=folder / PREDICTIONS)
        self.embeddings_model = str(loader.model_name)
        self.model_name = recogniser.name

    @property
    def stored_settings(self) -> PredictionSettings:
        """Lowest score and most predictions of a window that are stored."""
        return prediction_settings(self.options)

    @property
    def predictions_state(self) -> str:
        """Hash of all that the predictions depend on."""
        settings = json.dumps(self.stored_settings, sort_keys=True)
        content = f"{self.embeddings_state} {self.recogniser.digest} {settings}"
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def predictions_provenance(self) -> dict[str, Any]:
        """Recogniser, model, checkpoint, threshold, versions and settings."""
        found = self._require_set()
        header = found.content.header
        return {
            **header.get("identity", {}),
            **header.get("provenance", {}),
            "model": self.embeddings_model,
            "recogniser": self.recogniser.name,
            "recogniser_digest": self.recogniser.digest,
            "embeddings": found.folder.name,
            **self.stored_settings,
        }

    def locate_predictions(self, *, newest: bool = False) -> None:
        """Leave the folder as it is: there is one for each recogniser."""

    def write(self) -> None:
        """Write all tables, unless they are there."""
        name = str(self.model_name)
        table = detections_path(self.paths.preds_path, name)
        made_last = self.paths.preds_path / PROVENANCE
        if (
            table.is_file()
            and made_last.is_file()
            and stored_state(table) == self.predictions_state
        ):
            return
        listed_names = ClassList.of_model(self.recogniser.classes, (), ())
        write_class_list(class_list_path(self.paths.preds_path, name), listed_names)
        write_prediction_tables(self)
        logger.info("%s: detections are in %s.", name, table)

    def stored_detections(self, recent: RecentPredictions | None = None) -> Iterator[Detections]:
        """Predictions of every recording with their times, in the order of the recordings.

        Those that a run knows are of the model, so `recent` plays no part here.
        """
        table = detections_path(self.paths.preds_path, str(self.model_name))
        if table.is_file() and stored_state(table) == self.predictions_state:
            for block in read_blocks(table):
                yield from block.detections()
            return
        classes = np.array(self.recogniser.classes, dtype=object)
        for name, scores in self.recogniser._by_recording(self):
            found = self._stored(scores, self.heard_windows(name))
            start, end = self.window_times(name)
            window = found.window
            yield Detections(
                name, window, start[window], end[window], classes[found.label], found.score
            )

    def _stored(self, scores: np.ndarray, heard: np.ndarray) -> SparsePredictions:
        """Of all scores, those that are stored: window ascending, then score descending."""
        settings = self.stored_settings
        low, top = np.float32(settings["threshold"] or 0.0), settings["top"] or scores.shape[1]
        order = np.argsort(-scores, axis=1, kind="stable")[:, :top]
        best = np.take_along_axis(scores, order, axis=1)
        window, place = np.nonzero((best >= low) & heard[:, None])
        return SparsePredictions(
            window.astype(np.int32),
            order[window, place].astype(np.int32),
            best[window, place],
        )


# --- Learning -----------------------------------------------------------------------------------


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
    answer.  Labels of ``no`` are negatives; so are, at a twentieth of their weight, 500 windows
    that nobody has labelled, and windows that were labelled with other classes.  See
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
        Any key of the configuration.

    Returns
    -------
    Recogniser
        Stored in ``recognisers/<name>`` of the data set's results.

    Raises
    ------
    RecogniserError
        If no class has both sides to be learnt from, or the name is not possible.
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
    seed = 0 if seed is None else seed
    if not isinstance(seed, int) or seed < 0:
        raise SettingsError(f"seed={seed!r} is not possible: expected a whole number from 0.")
    table = labels_for(loader, labels)
    found = labelled_windows(loader, table, classes)
    embeddings = embeddings_of(loader, found.rows)
    searched = searched_windows(loader)
    learnt = learn_classes(
        found, embeddings, searched, weak_negatives=weak_negatives, seed=seed, said=True
    )
    identity = (loader.embedding_set.identity if loader.embedding_set else None) or {}
    card = CARDS.get(str(loader.model_name))
    about = {
        "embeddings": loader.get_embedding_dir().name,
        "audio_dir": str(loader.audio_dir.resolve()),
        "recordings": _fingerprints(loader, found),
        "window": identity.get("window"),
        "sample_rate": identity.get("sample_rate"),
        "labels": {
            label: {
                "present": int((column == PRESENT).sum()),
                "absent": int((column == ABSENT).sum()),
                "doubtful": int((column == DOUBTFUL).sum()),
                "features": learnt[label].features,
                "average_precision": {
                    kind: round(value, 4) for kind, value in learnt[label].precision.items()
                },
            }
            for label, column in zip(found.classes, found.values.T, strict=True)
            if label in learnt
        },
        "weak_negatives": weak_negatives,
        "seed": seed,
        "licence_of_the_model": card.licence if card is not None else "",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
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
    )
    recogniser.save(loader.paths.recognisers_path / name)
    return recogniser


def _fingerprints(loader: Loader, found: LabelledWindows) -> list[str]:
    """Of the content of all recordings with labels."""
    prints = [entry.fingerprint for entry in loader.entries.values()]
    return sorted({text for i in np.unique(_recording_of(found)) if (text := prints[i])})


def _recording_of(found: LabelledWindows) -> np.ndarray:
    """Number of the recording of each judged window, int64."""
    return np.searchsorted(np.cumsum(found.windows.counts), found.rows, side="right")


def _check_name(name: str, loader: Loader) -> None:
    fits, folder = _NAME.fullmatch(name), loader.paths.labels_path.parent.parent / name
    model = name in CARDS or name == loader.model_name or (fits and is_folder(folder / "labels"))
    if not fits or model or name == "overview":
        reason = "a model has this name; expected another one" if model else "expected a name"
        raise RecogniserError(
            f"name={name!r} is not possible for a recogniser: {reason} of letters, digits, and "
            f"_ . -, such as my_frogs."
        )


def learn_classes(
    found: LabelledWindows,
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
    found : LabelledWindows
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
    few: list[str] = []
    sound = np.isfinite(embeddings).all(axis=1)
    for column, label in enumerate(found.classes):
        value = np.where(sound, found.values[:, column], DOUBTFUL)
        judged = np.flatnonzero((value == PRESENT) | (value == ABSENT))
        present = value[judged] == PRESENT
        weak = np.zeros((0, embeddings.shape[1]), np.float32)
        if weak_negatives:
            others = embeddings[value == UNKNOWN]
            free = ~np.isin(searched.rows, found.rows[value != UNKNOWN])
            rng = np.random.default_rng([seed, column])
            drawn = rng.permutation(np.flatnonzero(free))[:WEAK_NEGATIVES]
            weak = np.concatenate([others, searched.embeddings[drawn]])
        if not present.any():
            without.append(label)
            continue
        if present.all():
            only_heard.append(label)
            if not len(weak):
                continue
        if min(present.sum(), (~present).sum()) < _FEW:
            few.append(label)
        examples = Examples(
            np.concatenate([embeddings[judged], weak]),
            np.concatenate([present, np.zeros(len(weak), bool)]),
            len(judged),
        )
        learnt[label] = learn(examples, searched.whitening, seed)
    if not learnt:
        reasons = []
        if without:
            reasons.append(f"{listed(without)} was heard in no window")
        if only_heard:
            reasons.append(
                f"{listed(only_heard)} was heard in every labelled window, and without weak "
                f"negatives nothing says how its absence sounds"
            )
        raise RecogniserError(
            f"No class can be learnt: {'; '.join(reasons)}. Label windows with yes, and others "
            f"with no."
        )
    if said:
        _say(without, only_heard, few, found)
    return learnt


def _say(without: list[str], only: list[str], few: list[str], found: LabelledWindows) -> None:
    if without:
        logger.warning(
            "left out, because they were heard in no labelled window: %s.", listed(without)
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


# --- Judging ------------------------------------------------------------------------------------


def windows_to_judge(
    recogniser: Recogniser, loader: Loader, labels: pd.DataFrame | None
) -> LabelledWindows:
    """Labelled windows of a recogniser's classes, with those in which others are not heard.

    Raises
    ------
    RecogniserError
        If the embeddings are another model's, or no label is of one of its classes.
    """
    recogniser.check(loader)
    table = labels_for(loader, labels)
    table = table[table["label"].isin(recogniser.classes)]
    if table.empty:
        raise RecogniserError(
            f"{loader.audio_dir}: no label is of a class of the recogniser {recogniser.name!r}, "
            f"which knows {listed(recogniser.classes)}."
        )
    known = [name for name in recogniser.classes if name in set(table["label"])]
    return _with_negatives(labelled_windows(loader, table, known))


def _with_negatives(found: LabelledWindows) -> LabelledWindows:
    """Where nothing but presence was labelled, as in annotations, windows of other classes lack it.

    Windows without any label are not among them: nobody says that they were listened to.
    """
    values = found.values.copy()
    for column in values.T:
        if not (column == ABSENT).any():
            column[column == UNKNOWN] = ABSENT
    return found._replace(values=values)


def cross_validated(
    loader: Loader,
    found: LabelledWindows,
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
    found : LabelledWindows
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
    recording = _recording_of(found)
    groups = np.unique(recording)
    how = "each recording by what was learnt from the others"
    if len(groups) < 2:
        recording, groups = np.arange(len(found.rows)), np.arange(len(found.rows))
        how = "each window by what was learnt from the others, all of one recording: too good"
    rng = np.random.default_rng(about.get("seed", 0))
    fold_of = dict(
        zip(rng.permutation(groups).tolist(), np.arange(len(groups)) % _FOLDS, strict=True)
    )
    fold = np.array([fold_of[int(group)] for group in recording])
    scores = np.full(found.values.shape, np.nan, np.float32)
    searched = searched_windows(loader)
    for number in np.unique(fold):
        out = fold == number
        known = _part(found, np.flatnonzero(~out), share, [draw, int(number)])
        rest = found._replace(rows=found.rows[known], values=found.values[known])
        # Windows that are judged must not be among the weak negatives either.
        free = ~np.isin(searched.rows, found.rows[out])
        others = searched._replace(rows=searched.rows[free], embeddings=searched.embeddings[free])
        try:
            learnt = learn_classes(
                rest, embeddings[known], others,
                weak_negatives=bool(about.get("weak_negatives", True)),
                seed=int(about.get("seed", 0)),
            )  # fmt: skip
        except RecogniserError:  # nothing was heard in the rest
            continue
        for column, label in enumerate(found.classes):
            if label in learnt:
                logits = embeddings[out] @ learnt[label].weight + learnt[label].bias
                scores[out, column] = 1 / (1 + np.exp(-np.clip(logits, -60, 60)))
    return scores, how


def _part(found: LabelledWindows, rows: np.ndarray, share: float, seed: list[int]) -> np.ndarray:
    """A share of some judged windows: of every combination of labels, at least one window."""
    if share >= 1:
        return rows
    rng = np.random.default_rng(seed)
    _, kind = np.unique(found.values[rows], axis=0, return_inverse=True)
    parts = []
    for number in np.unique(kind):
        mine = rng.permutation(rows[kind.ravel() == number])
        parts.append(mine[: max(1, round(share * len(mine)))])
    return np.sort(np.concatenate(parts))


def judged(found: LabelledWindows, scores: np.ndarray, how: str) -> pd.DataFrame:
    """Measures of each class, as `Recogniser.evaluate` returns them."""
    import pandas as pd
    from sklearn.metrics import average_precision_score, roc_auc_score

    recording = _recording_of(found)
    rows = []
    for column, label in enumerate(found.classes):
        value, score = found.values[:, column], scores[:, column]
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


# --- Finding ------------------------------------------------------------------------------------


def stored_recognisers(main_results_dir: Path) -> list[Path]:
    """Folders of all recognisers in some results, sorted."""
    found = main_results_dir.glob(f"*/{RECOGNISERS}/*/{RECOGNISER_WEIGHTS}")
    return sorted(path.parent for path in found)


def find_recogniser(
    named: str | Path | Recogniser, paths: ResultPaths | None = None, *, main: Path | None = None
) -> Recogniser:
    """Load a recogniser by its name or folder.

    Parameters
    ----------
    named : str, Path or Recogniser
        A folder, or a name: one of the data set first, then one of any other.
    paths : ResultPaths, optional
        Where the data set's results are.
    main : Path, optional
        Folder of all results, without a data set.

    Raises
    ------
    ResultsNotFoundError
        If there is none.
    RecogniserError
        If several data sets have one of this name.
    """
    if isinstance(named, Recogniser):
        return named
    if not isinstance(named, str | Path):
        raise SettingsError(
            f"recogniser={named!r} is not possible: expected a Recogniser, its name or its folder."
        )
    path = typed_path(named)
    if is_file(path / RECOGNISER_WEIGHTS) or path.suffix == ".safetensors":
        return Recogniser.load(path)
    if paths is not None and is_file(paths.recognisers_path / path / RECOGNISER_WEIGHTS):
        return Recogniser.load(paths.recognisers_path / path)
    folders = stored_recognisers(main or (paths.main_results_dir if paths else Path()))
    fitting = [folder for folder in folders if folder.name == str(named)]
    if len(fitting) > 1:
        raise RecogniserError(
            f"recogniser={str(named)!r}: there is one of this name in "
            f"{counted(len(fitting), 'data set')}; name its folder: {listed(fitting)}."
        )
    if not fitting:
        known = listed(sorted({folder.name for folder in folders})) or "none"
        raise ResultsNotFoundError(
            f"recogniser={str(named)!r}: there is no such recogniser; those trained here: {known}."
        )
    return Recogniser.load(fitting[0])
