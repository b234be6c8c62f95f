"""What evaluations work on: embeddings with the label and the recording of every window."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from bacpipe.annotations.table import LABEL_PREFIX, label_kind
from bacpipe.errors import EvaluationError
from bacpipe.evaluation.units import NamedSites, named_sites
from bacpipe.labels.ground_truth import ClassesOfColumns, GroundTruth
from bacpipe.labels.model_windows import ModelWindows, model_windows, open_results
from bacpipe.models.zoo import canonical_name
from bacpipe.options import make_options, user_config
from bacpipe.reduction.reducers import magnitude_problem
from bacpipe.store.files import array_hash
from bacpipe.store.layout import ResultPaths
from bacpipe.store.loader import Loader

if TYPE_CHECKING:
    import pandas as pd
    import torch

logger = logging.getLogger(__name__)

NO_LABEL = -1

Embeddings: TypeAlias = "np.ndarray | torch.Tensor | Mapping[str, np.ndarray]"
"""What ``Loader.embeddings`` returns, or an array of one's own, float32 of shape (n, dim)."""

Labels: TypeAlias = "Mapping[str, Any] | Sequence[Any] | np.ndarray | pd.DataFrame"
"""What `ground_truth_by_model` returns, of each return type, or a label per window."""

BACKGROUND = "other"
"""Class of windows in which nothing is annotated, where there is one."""

# Columns of a table of ground truth that are no classes.
_NO_CLASSES = ("start", "end", "audiofilename", "simultaneous_labels")

_ROWS = 2**16  # looked at together; of a large array, even a truth value for each number is much


@dataclass(frozen=True)
class LabelledWindows:
    """Embeddings with a label per window."""

    model: str  # name of the model
    embeds: np.ndarray  # float32, shape (n, dim)
    # int64, shape (n,): index into `classes`, -1 for windows without a label; or bool, shape
    # (n, classes), where a window can have several
    labels: np.ndarray
    classes: tuple[str, ...]  # names of the labels
    kind: str  # what the labels are: 'species'
    # object, shape (n,): Recording of every window; None when nobody knows
    recordings: np.ndarray | None = None
    # audiofilename, start and end (seconds) of every window; None when nobody knows
    times: pd.DataFrame | None = None
    paths: ResultPaths | None = None  # where results go; None when they are only returned
    # Hash of the embeddings and their recordings from the journal; None when it has none
    state: str | None = None
    sites: NamedSites = field(default_factory=dict)

    @property
    def multi_label(self) -> bool:
        """Whether a window can have several labels; then none is an answer, too."""
        return self.labels.ndim == 2

    @property
    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Windows and their labels, both int64, shape (labels,), sorted by window."""
        if self.multi_label:
            return np.nonzero(self.labels)
        rows = np.flatnonzero(self.labels != NO_LABEL)
        return rows, self.labels[rows]

    @property
    def labelled(self) -> np.ndarray:
        """Windows with a label; bool, shape (n,)."""
        return self.labels.any(axis=1) if self.multi_label else self.labels != NO_LABEL

    @property
    def used(self) -> np.ndarray:
        """Windows of which it is known what is in them; bool, shape (n,).

        With single labels those that have one.  With several, those of every recording in which
        anything is labelled.
        """
        return self._of_annotated_recordings() if self.multi_label else self.labelled

    def _of_annotated_recordings(self) -> np.ndarray:
        if self.recordings is None:
            return np.ones(len(self.labels), dtype=bool)
        _, number = np.unique(self.recordings.astype(str), return_inverse=True)
        return np.bincount(number, self.labelled)[number] > 0

    def presence_of(self, rows: np.ndarray) -> np.ndarray:
        """Labels of some windows as bool of shape (rows, classes)."""
        labels = self.labels[rows]
        return labels if self.multi_label else labels[:, None] == np.arange(len(self.classes))

    def with_several(self) -> LabelledWindows:
        """The same windows with labels as bool of shape (n, classes)."""
        if self.multi_label:
            return self
        return replace(self, labels=self.presence_of(np.arange(len(self.labels))))

    def with_one(self) -> LabelledWindows:
        """The same windows with single labels; those with several have none."""
        if not self.multi_label:
            return self
        return replace(self, labels=_single(self.labels))

    def with_background(self) -> LabelledWindows:
        """Single labels with one more class: the unlabelled windows of annotated recordings."""
        if self.multi_label:
            return self
        if BACKGROUND in self.classes:
            raise EvaluationError(
                f"background_class gives windows without a label the class {BACKGROUND!r}, but "
                f"there are annotations of that name; rename them, or set background_class: false."
            )
        empty = self._of_annotated_recordings() & ~self.labelled
        labels = np.where(empty, len(self.classes), self.labels)
        return replace(self, labels=labels, classes=(*self.classes, BACKGROUND))

    @property
    def column(self) -> str:
        """Name of the label column: 'label:species'."""
        return LABEL_PREFIX + self.kind

    def fingerprint(self, **settings: object) -> str:
        """Hash of the data and of settings; results with another hash are stale."""
        digest = hashlib.sha256((self.state or array_hash(self.embeds)).encode())
        digest.update(np.ascontiguousarray(self.labels, dtype="?" if self.multi_label else "<i8"))
        names = [] if self.state or self.recordings is None else self.recordings.tolist()
        content = [self.model, self.column, self.classes, names, settings]
        if self.sites:
            content.append(dict(self.sites))
        digest.update(json.dumps(content, sort_keys=True, default=str).encode())
        return digest.hexdigest()


def labelled_windows(
    model_name: str,
    ground_truth: Labels | None,
    embeds: Embeddings,
    paths: ResultPaths | None = None,
    *,
    label_column: str = "species",
    recordings: Sequence[str] | None = None,
    **kwargs: object,
) -> LabelledWindows:
    """Bring embeddings, labels and recordings together.

    Parameters
    ----------
    model_name : str
    ground_truth : dict, array, tuple, pandas.DataFrame or None
        What `ground_truth_by_model` returned, or a label per window (-1: none).
    embeds : np.ndarray of shape (n, dim), or dict of such arrays by recording
    paths : ResultPaths, optional
        Where the results of the model are.  Without them they are looked for with the present
        configuration, and nothing is stored if `embeds` are not those found there.
    label_column : str
        Kind of label, with or without the prefix 'label:'.
    recordings : sequence of str, optional
        Recording of every window, for embeddings that did not come from a results tree.
    **kwargs
        Any key of the configuration; annotations_filename, label_column, multi_label,
        min_annotation_length and annotation_overlap matter here.

    Raises
    ------
    EvaluationError
        If lengths differ or the kind of label is missing.
    """
    several = make_options(**kwargs).multi_label
    loader = _loader(model_name, paths, kwargs)
    keys: Sequence[str] | None = None
    if isinstance(embeds, Mapping):
        keys = [str(name) for name, part in embeds.items() for _ in range(len(part))]
        embeds = np.concatenate(list(embeds.values()))
    matrix = check_embeddings(embeds)
    kind = label_kind(label_column)
    if ground_truth is None or len(ground_truth) == 0:
        ground_truth = np.full(len(matrix), NO_LABEL)
    labels, classes = _labels(ground_truth, kind)
    if keys is None:
        keys = _recordings_of(ground_truth)
    windows = None
    if loader is not None and loader.embedding_set is not None:
        windows = model_windows(loader)
        windows = windows if len(windows) == len(matrix) else None
    stored = None if windows is None else _as_stored(windows, matrix)
    if paths is None and loader is not None and windows is not None and stored is not False:
        paths = loader.paths
    data = LabelledWindows(canonical_name(model_name), matrix, labels, classes, kind, paths=paths)
    if len(labels) != len(matrix):
        raise EvaluationError(
            f"There are {len(matrix)} embeddings, but ground truth for {len(labels)} windows; "
            f"make it again with ground_truth_by_model({model_name!r}, ...)."
        )
    if loader is not None and windows is not None:
        state = loader.embeddings_state if stored and recordings is None else None
        data = replace(data, **_places(loader, windows), state=state)
    elif recordings is None:
        recordings = keys
    if recordings is not None and len(recordings) != len(matrix):
        raise EvaluationError(
            f"recordings names {len(recordings)} windows, but there are {len(matrix)} embeddings."
        )
    if recordings is not None:
        data = replace(data, recordings=np.array([str(r) for r in recordings], object))
    return data.with_several() if several else data


def windows_of_results(
    loader: Loader, embeds: np.ndarray, truth: GroundTruth | None, kind: str
) -> LabelledWindows:
    """Bring the embeddings of a loader, its ``embeddings('array')``, and labels together.

    Raises
    ------
    EvaluationError
        If a value is not finite.
    """
    windows = model_windows(loader)
    if truth is None:
        truth = GroundTruth(np.full(len(embeds), NO_LABEL), {})
    labels, classes = _of_numbers(truth.labels, truth.classes)
    return LabelledWindows(
        str(loader.model_name),
        check_embeddings(embeds),
        labels,
        classes,
        kind,
        **_places(loader, windows),
        paths=loader.paths,
        state=loader.embeddings_state if _as_stored(windows) else None,
    )


def _places(loader: Loader, windows: ModelWindows) -> dict[str, Any]:
    times, sites = windows.frame(), named_sites(loader, windows.recordings)
    return {"times": times, "recordings": times["audiofilename"].to_numpy(), "sites": sites}


def _as_stored(windows: ModelWindows, embeds: np.ndarray | None = None) -> bool | None:
    """Whether embeddings are those of the journal; None if it has no hash of some.

    `embeds` are from a caller who may have changed them; None are those of the files.
    """
    answer: bool | None = True
    for (name, rows), entry in zip(windows.slices(), windows.entries.values(), strict=True):
        known = entry.embeddings.sha256
        if known is None:  # an older bacpipe embedded this recording
            answer = None
        elif embeds is not None and array_hash(embeds[rows]) != known:
            logger.debug("%s: the journal does not know these embeddings.", name)
            return False
    return answer


def check_embeddings(embeds: np.ndarray | torch.Tensor | Mapping[str, np.ndarray]) -> np.ndarray:
    """Embeddings as a float32 array of shape (n, dim), whatever `Loader.embeddings` made them.

    Raises
    ------
    EvaluationError
        If the shape is another, or a value is not finite.
    """
    if isinstance(embeds, Mapping):
        embeds = np.concatenate([*embeds.values()]) if embeds else np.zeros((0, 0), np.float32)
    if not isinstance(embeds, np.ndarray) and hasattr(embeds, "detach"):
        embeds = embeds.detach().cpu().numpy()
    matrix = np.asarray(embeds)
    if matrix.ndim != 2 or not np.issubdtype(matrix.dtype, np.number):
        raise EvaluationError(
            f"embeds is a {matrix.dtype} array of shape {matrix.shape}; expected numbers of shape "
            f"(windows, dim), as Loader.embeddings('array') returns."
        )
    matrix = np.ascontiguousarray(matrix, dtype=np.float32)
    for first in range(0, len(matrix), _ROWS):
        finite = np.isfinite(matrix[first : first + _ROWS]).all(axis=1)
        if not finite.all():
            raise EvaluationError(
                f"embeds holds values that are not finite, first in row "
                f"{first + int(np.argmin(finite))}; leave such windows out."
            )
    if problem := magnitude_problem(matrix):
        raise EvaluationError(f"embeds: {problem}")
    return matrix


def label_array(ground_truth: Labels | None, label_column: str | None = None) -> np.ndarray | None:
    """Label of every window, int64 with -1 for none or several; None without ground truth."""
    if ground_truth is None or len(ground_truth) == 0:
        return None
    kind = label_kind(label_column) if label_column else None
    if isinstance(ground_truth, Mapping) and kind is None:
        kind = next(iter(_kinds(ground_truth)), None)
    labels = _labels(ground_truth, kind or "species")[0]
    return _single(labels) if labels.ndim == 2 else labels


def _single(presence: np.ndarray) -> np.ndarray:
    """Label of the windows that have exactly one, else -1."""
    if not presence.shape[1]:
        return np.full(len(presence), NO_LABEL)
    return np.where(presence.sum(axis=1) == 1, presence.argmax(axis=1), NO_LABEL)


def _labels(ground_truth: Labels, kind: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels as in `LabelledWindows`, and their names."""
    import pandas as pd

    names: Mapping[str, int] | None = None
    if isinstance(ground_truth, pd.DataFrame):
        if LABEL_PREFIX + kind not in ground_truth:
            return _of_table(ground_truth)
        ground_truth = ground_truth[LABEL_PREFIX + kind].to_numpy()
    elif isinstance(ground_truth, Mapping):
        if f"{LABEL_PREFIX}{kind}" not in ground_truth:
            there = ", ".join(_kinds(ground_truth)) or "none"
            raise EvaluationError(
                f"The ground truth has no labels of the kind {kind!r} (there are: {there}); give "
                f"label_column another value, or make ground truth for it."
            )
        names = ground_truth.get(f"label_dict:{kind}")
        ground_truth = ground_truth[f"{LABEL_PREFIX}{kind}"]
    elif isinstance(ground_truth, tuple) and len(ground_truth) == 2 and isinstance(
        ground_truth[1], Mapping
    ):  # fmt: skip
        presence, of_column = np.asarray(ground_truth[0], dtype=bool), ground_truth[1]
        presence = presence[:, list(of_column)]
        # Of an array that did not come from here, several labels are possible.
        one = isinstance(of_column, ClassesOfColumns) and of_column.single_label
        return _single(presence) if one else presence, tuple(map(str, of_column.values()))
    values = np.asarray(ground_truth)
    if values.ndim > 2:
        raise EvaluationError(
            f"The ground truth has the shape {values.shape}; expected (windows,), or (windows, "
            f"labels) where windows have several labels."
        )
    if values.ndim == 2 and names is None and set(np.unique(values)) <= {0, 1}:
        return values.astype(bool), tuple(map(str, range(values.shape[1])))
    if values.ndim == 1 and not np.issubdtype(values.dtype, np.integer):
        present = np.array([v is not None and v == v and v != "" for v in values], dtype=bool)
        texts, codes = np.unique(values[present].astype(str), return_inverse=True)
        labels = np.full(len(values), NO_LABEL, np.int64)
        labels[present] = codes
        return labels, tuple(texts.tolist())
    if not np.issubdtype(values.dtype, np.integer):
        raise EvaluationError(
            f"The ground truth is a {values.dtype} array of shape {values.shape}; expected the "
            f"numbers of each window's labels (-1 for none), or 0 and 1 by class."
        )
    return _of_numbers(values, names or {str(n): int(n) for n in np.unique(values[values >= 0])})


def _recordings_of(ground_truth: Labels) -> list[str] | None:
    """Recording of every window, which tables of ground truth name."""
    import pandas as pd

    if isinstance(ground_truth, pd.DataFrame) and "audiofilename" in ground_truth:
        return [str(name) for name in ground_truth["audiofilename"]]
    return None


def _of_table(table: pd.DataFrame) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels of a table with a column of 0 and 1 for each class."""
    columns = [i for i, name in enumerate(table.columns) if name not in _NO_CLASSES]
    values = table.iloc[:, columns].to_numpy()
    if not columns or not np.isin(values, (0, 1)).all():
        raise EvaluationError(
            f"The table of ground truth has the columns {', '.join(map(str, table.columns[:8]))}; "
            f"expected one of 0 and 1 for each class, as "
            f"ground_truth_by_model(..., return_type='dataframe') returns it."
        )
    presence = values.astype(bool)
    one = table.attrs.get("single_label", presence.sum(axis=1).max(initial=0) <= 1)
    return _single(presence) if one else presence, tuple(str(table.columns[i]) for i in columns)


def _of_numbers(
    values: np.ndarray, number_of: Mapping[str, int]
) -> tuple[np.ndarray, tuple[str, ...]]:
    labels, classes = _without_gaps(values.ravel(), number_of)
    if values.ndim == 1:
        return labels, classes
    presence = np.zeros((len(values), len(classes)), dtype=bool)
    labels = labels.reshape(values.shape)
    window, place = np.nonzero(labels != NO_LABEL)
    presence[window, labels[window, place]] = True
    return presence, classes


def _without_gaps(
    values: np.ndarray, number_of: Mapping[str, int]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels by the place of their class; numbers may have gaps, classes have none."""
    order = sorted(number_of, key=lambda name: number_of[name])
    code = {number_of[name]: i for i, name in enumerate(order)}
    used, inverse = np.unique(values, return_inverse=True)
    labels = np.array([code.get(int(n), NO_LABEL) for n in used], np.int64)[inverse]
    return labels, tuple(order)


def _kinds(ground_truth: Mapping[str, Any]) -> list[str]:
    return [label_kind(key) for key in ground_truth if str(key).startswith(LABEL_PREFIX)]


def _loader(model: str, paths: ResultPaths | None, kwargs: Mapping[str, Any]) -> Loader | None:
    """Results of the model, if it is known where they are."""
    audio_dir = kwargs.get("audio_dir") or user_config().audio_dir
    if paths is None and audio_dir is None:
        return None
    settings = {key: value for key, value in kwargs.items() if key != "audio_dir"}
    return open_results(model, None if paths else audio_dir, paths, **settings)
