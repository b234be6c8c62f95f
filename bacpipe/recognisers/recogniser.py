"""Recognisers: classes of your own, learnt from labelled windows on top of a model's embeddings.

A recogniser is a matrix of weights and a bias per class on embeddings, or on their square roots,
whatever the features were that it was learnt with.  On disk it is
``recognisers/<name>/recogniser.safetensors`` (the numbers) and ``recogniser.json`` (the words:
model, checkpoint, classes, labels, licence); reading it runs no code.  Applied to a data set it
gives what an integrated classifier gives: tables in ``evaluations/<name>/predictions``, read by a
loader that tables and exports take like any other.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bacpipe.annotations.cells import listed
from bacpipe.audio.remote import shown
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
from bacpipe.recognisers.judging import cross_validated, judged, recording_of, windows_to_judge
from bacpipe.recognisers.labelled import LabelledWindows
from bacpipe.recognisers.model import RecogniserModel, write_onnx
from bacpipe.recognisers.searched_windows import embeddings_of
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
    models_with_embeddings,
)
from bacpipe.store.loader import Loader
from bacpipe.store.predictions import LOWEST, RecentPredictions, SparsePredictions, with_best_below
from bacpipe.store.recognisers import (
    StoredRecogniser,
    read_recogniser,
    square_roots,
    write_recogniser,
)
from bacpipe.store.tables import read_blocks, stored_state
from bacpipe.user_input import is_file, typed_path

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

_CHUNK = 65_536


@dataclass(frozen=True, eq=False)
class Recogniser(StoredRecogniser):
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
        On embeddings, or on their square roots.
    bias : np.ndarray, float32, shape (classes,)
        Added to it.
    about : dict
        What else is known of it: labels by class, data set, seed, licence, versions.
    square_roots : bool
        Whether `weight` is for square roots of embeddings, as where these are never negative.

    Examples
    --------
    >>> import bacpipe
    >>> recogniser = bacpipe.train_recogniser("recordings", "birdnet", name="hoots",
    ...     labels_from="annotations", classes=["synthetic hoot"])
    >>> recogniser.classes
    ('synthetic hoot',)
    >>> recogniser.predict(bacpipe.Loader("recordings", "birdnet")).shape
    (153, 1)
    >>> loader = bacpipe.Loader("recordings", "birdnet")
    >>> recogniser.detections(loader)["common_name"].unique().tolist()
    ['synthetic hoot']
    >>> recogniser.evaluate(loader)[["class", "present", "recordings"]].shape
    (1, 3)
    >>> recogniser.results(loader).has_predictions
    True
    >>> bacpipe.Recogniser.load(recogniser.save("copy_of_hoots")).name
    'hoots'
    """

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
            In [0, 1], each class for itself: a window may have several, or none; NaN where an
            embedding holds NaN or infinite values.  Windows are in
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
            logits = square_roots(part, self.square_roots) @ self.weight.T + self.bias
            logits[~np.isfinite(part).all(axis=1)] = np.nan
            scores[first : first + _CHUNK] = 1 / (1 + np.exp(-np.clip(logits, -60, 60)))
        return scores

    def _by_recording(self, loader: Loader) -> Iterator[tuple[str, np.ndarray]]:
        embedding_set = loader.embedding_set
        assert embedding_set is not None
        for name, entry in loader.entries.items():
            embeddings = read_embeddings(embedding_set, entry, verify=True)
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
        embedding_set = loader.embedding_set
        identity = (embedding_set.identity if embedding_set is not None else None) or {}
        if loader.model_name != self.model:
            raise RecogniserError(
                f"The recogniser {self.name!r} takes embeddings of {self.model}, not of "
                f"{loader.model_name}; run {self.model} on {shown(loader.audio_dir)}, or train "
                f"another recogniser on {loader.model_name}."
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
        results = RecogniserResults(self, loader, kwargs)
        results.write()
        return results

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
            Any key of the configuration, as for `detections_table`: event_gap joins
            detections into events, range_filter and species_list decide which are left
            out.

        Returns
        -------
        pandas.DataFrame
            Columns as those of `detections_table`; start and end in seconds, score in [0, 1].
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
        self.check(loader)
        labelled = windows_to_judge(loader, self, labels)
        learnt_from = self._has_learnt_from(loader, labelled)
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
            labelled = labelled._replace(rows=labelled.rows[kept], values=labelled.values[kept])
        embeddings = embeddings_of(loader, labelled.rows)
        if own:
            scores, how = cross_validated(loader, labelled, embeddings, self.about)
        else:
            columns = [self.classes.index(name) for name in labelled.classes]
            scores, how = self._scores(embeddings)[:, columns], "labels that it has not learnt from"
        return judged(labelled, scores, how)

    def _has_learnt_from(self, loader: Loader, labelled: LabelledWindows) -> np.ndarray:
        """Whether each judged window is of a recording with labels that it was taught with."""
        known = set(self.about.get("recordings", ()))
        prints = [entry.fingerprint for entry in loader.entries.values()]
        return np.array([prints[i] in known for i in recording_of(labelled)], dtype=bool)

    # ------------------------------------------------------------------ on disk

    def save(self, folder: str | Path) -> Path:
        """Write it into a folder of its own; returns the folder.

        Parameters
        ----------
        folder : str or Path
            Becomes the recogniser: a former one in it is replaced.

        Returns
        -------
        Path
            The folder.
        """
        folder = typed_path(folder)
        write_recogniser(self, folder)
        return folder

    @classmethod
    def load(cls, path: str | Path) -> Recogniser:
        """Read one from its folder, or from its safetensors file.

        Parameters
        ----------
        path : str or Path
            What `save` or `bacpipe.train_recogniser` has written.

        Returns
        -------
        Recogniser

        Raises
        ------
        ResultsNotFoundError
            If there is none.
        ResultsError
            If it is damaged, or was written by a newer bacpipe.
        """
        return read_recogniser(typed_path(path), cls)

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
        return RecogniserModel(self, backbone, version=self.digest)

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
        write_onnx(self, target)
        return target

    @property
    def digest(self) -> str:
        """16 digits of a hash of what it does."""
        content = [self.weight.tobytes(), self.bias.tobytes(), "\0".join(self.classes).encode()]
        if self.square_roots:
            content.append(b"square roots")
        return hashlib.sha256(b"\0".join(content)).hexdigest()[:16]


def _shown(checkpoint: object) -> str:
    """Names and first digits of the hashes of weights."""
    if not isinstance(checkpoint, Mapping):
        return str(checkpoint)
    return ", ".join(f"{name} ({str(digest)[:12]})" for name, digest in checkpoint.items())


def is_model_of(loader: Loader, name: str) -> bool:
    """Whether a model has this name, of the zoo or with results for the data set."""
    computed = models_with_embeddings(loader.paths.main_embeds_path, loader.paths.dataset)
    return name in CARDS or name == loader.model_name or name in computed


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
        if is_model_of(loader, recogniser.name):
            raise RecogniserError(
                f"A model is called {recogniser.name!r}, too, whose tables those of the recogniser "
                f"would replace; change its name with dataclasses.replace(recogniser, name=...)."
            )
        self.paths: ResultPaths = replace(loader.paths, preds_path=folder / PREDICTIONS)
        self.embeddings_model = str(loader.model_name)
        self.model_name = recogniser.name

    @property
    def has_predictions(self) -> bool:
        """True: they are made of the embeddings when they are asked for."""
        return True

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
        embedding_set = self._require_set()
        header = embedding_set.content.header
        return {
            **header.get("identity", {}),
            **header.get("provenance", {}),
            "model": self.embeddings_model,
            "recogniser": self.recogniser.name,
            "recogniser_digest": self.recogniser.digest,
            "embeddings": embedding_set.folder.name,
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
        """Predictions of every recording; no run has written any of them, so none is `recent`."""
        table = detections_path(self.paths.preds_path, str(self.model_name))
        if table.is_file() and stored_state(table) == self.predictions_state:
            for block in read_blocks(table):
                yield from block.detections()
            return
        yield from self._scored(below=False)

    def scores(self) -> Iterator[Detections]:
        return self.range_filter().kept(self._scored(below=True))

    def _scored(self, *, below: bool) -> Iterator[Detections]:
        classes = np.array(self.recogniser.classes, dtype=object)
        for name, scores in self.recogniser._by_recording(self):
            stored = self._stored(scores, self.heard_windows(name), below=below)
            start, end = self.window_times(name)
            window = stored.window
            yield Detections(
                name, window, start[window], end[window], classes[stored.label], stored.score
            )

    def _stored(self, scores: np.ndarray, heard: np.ndarray, *, below: bool) -> SparsePredictions:
        """Of all scores, those that are stored: window ascending, then score descending.

        With `below`, what a model's run would store below the threshold is among them.
        """
        settings = self.stored_settings
        threshold, top = settings["threshold"] or 0.0, settings["top"] or scores.shape[1]
        low = np.float32(min(threshold, LOWEST) if below else threshold)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :top]
        best = np.take_along_axis(scores, order, axis=1)
        window, place = np.nonzero((best >= low) & heard[:, None])
        stored = SparsePredictions(
            window.astype(np.int32),
            order[window, place].astype(np.int32),
            best[window, place],
        )
        return with_best_below(stored, threshold) if below else stored


# --- Finding ------------------------------------------------------------------------------------


def stored_recognisers(main_results_dir: Path) -> list[Path]:
    """Folders of all recognisers in some results, sorted."""
    weights = main_results_dir.glob(f"*/{RECOGNISERS}/*/{RECOGNISER_WEIGHTS}")
    return sorted(path.parent for path in weights)


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
