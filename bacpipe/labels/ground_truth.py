"""Ground truth: the annotations, laid onto the windows of a model.

Annotations of the same label that overlap or touch count as one.  Such an annotation labels a
window if they share at least ``annotation_overlap`` times the length of the shorter of the two.
So a short call labels the window that holds most of it, and a long annotation the windows that it
covers for the most part.  With the default of 0.5 and windows that follow one another, no
annotation is lost; with 0, touching is enough.  The length of a padded window is that of its
recorded part.  With a single label per window, the one that covers most of the window wins; of
equals, the first in the alphabet.

Results are stored in the model's ``labels`` folder, with a fingerprint of all that went into
them, and taken from there as long as the fingerprint is the same.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from bacpipe.annotations.table import (
    LABEL_PREFIX,
    LengthOf,
    check_annotations,
    file_part,
    label_kind,
    long_enough,
    read_annotations,
    require_label_column,
)
from bacpipe.audio.remote import shown
from bacpipe.errors import AnnotationsError, NoRecordingsError, SettingsError, counted
from bacpipe.labels.matching import runs
from bacpipe.labels.model_windows import ModelWindows, model_windows, open_results
from bacpipe.labels.people import people_annotations
from bacpipe.options import Options
from bacpipe.store.detections import Intervals, merge_intervals
from bacpipe.store.files import write_csv
from bacpipe.store.fingerprints import read_result_table, write_result_table
from bacpipe.store.layout import ResultPaths, ground_truth_name
from bacpipe.store.loader import Loader
from bacpipe.store.tables import CHANNEL, channels_of

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

UNLABELLED = -1

_RETURN_TYPES = ("dict", "array", "dataframe")
_TOLERANCE = 1e-6  # seconds; times in tables are rounded


class GroundTruth(NamedTuple):
    """Labels of all windows."""

    # int32, shape (windows,) or (windows, max_labels_per_timestamp): Numbers of the labels; -1
    # where there is none. Several labels of a window are sorted by how much of it they cover
    labels: np.ndarray
    classes: dict[str, int]  # number of every label


@dataclass(frozen=True)
class LabelRule:
    """How annotations become labels of windows; part of the fingerprint of what is stored."""

    kind: str  # kind of label: 'species'
    single_label: bool  # whether a window has one label at most
    min_annotation_length: float  # the settings of the same names
    annotation_overlap: float
    min_label_occurrences: int  # labels of fewer windows are left out
    max_labels_per_timestamp: int | None  # the most labels of a window; None with single labels
    label_idx_dict: dict[str, int] | None  # number of each label; None takes the alphabetical order


def ground_truth_by_model(
    model: str,
    audio_dir: str | Path,
    label_df: pd.DataFrame | None = None,
    label_idx_dict: Mapping[str, int] | Mapping[int, str] | None = None,
    label_column: str = "label:species",
    paths: ResultPaths | None = None,
    annotations_filename: str = "annotations.csv",
    overwrite: bool = True,
    single_label: bool = True,
    bool_filter_labels: bool = False,
    *,
    return_type: str = "dict",
    **kwargs: object,
) -> Any:  # noqa: ANN401 (return_type says what)
    """Lay annotations onto the windows of a model.

    Parameters
    ----------
    model : str
        Name of the model.
    audio_dir : str or Path
        Folder with the recordings.  They need not be embedded yet: the windows are then those
        that the model would have with the present settings.
    label_df : pandas.DataFrame, optional
        Annotations with the columns audiofilename, start, end (seconds) and label:<kind>,
        instead of the file.
    label_idx_dict : dict, optional
        Numbers of the labels (``{'robin': 0, ...}``); labels that it lacks are left out.  By
        default the labels in alphabetical order.
    label_column : str
        Column to use, with or without the prefix 'label:'.
    paths : ResultPaths, optional
        Where results are, from `make_set_paths_func`.
    annotations_filename : str
        Annotation table, relative to `audio_dir`.
    overwrite : bool
        False takes the stored ground truth if nothing has changed since.
    single_label : bool
        True gives every window one label at most, False several.
    bool_filter_labels : bool
        True leaves out labels of fewer than ``settings.min_label_occurrences`` windows; windows
        keep their other labels.
    return_type : {'dict', 'array', 'dataframe'}
        What to return.
    **kwargs
        Any key of the configuration; min_annotation_length, annotation_overlap,
        min_label_occurrences and max_labels_per_timestamp matter here.

    Returns
    -------
    dict, tuple or pandas.DataFrame
        'dict': ``label:<kind>``, int32 array with the number of every window's label, in the
        order of ``Loader.embeddings('array')``; -1 for none; of shape (windows,), or (windows,
        max_labels_per_timestamp) when `single_label` is False; and ``label_dict:<kind>``, the
        number of each label.  'array': ``(presence, classes)`` like
        ``Loader.predictions('array')``: bool of shape (windows, classes), and the class of
        each column.  'dataframe': start, end, audiofilename, simultaneous_labels (their number)
        and a column of 0 and 1 per class; a row per window.  All pipelines take each of them.

    Raises
    ------
    AnnotationsError
        If the annotations are missing or cannot be understood.

    Examples
    --------
    >>> import bacpipe
    >>> truth = bacpipe.ground_truth_by_model("birdnet", "recordings")
    >>> truth["label:species"].shape
    (153,)
    >>> truth["label_dict:species"]["synthetic hoot"]
    1
    >>> presence, classes = bacpipe.ground_truth_by_model("birdnet", "recordings",
    ...     single_label=False, return_type="array")
    >>> presence.shape, classes[1]
    ((153, 6), 'synthetic hoot')
    """
    if return_type not in _RETURN_TYPES:
        raise SettingsError(
            f"return_type={return_type!r} is not possible: expected one of "
            f"{', '.join(_RETURN_TYPES)}."
        )
    loader = open_results(
        model, audio_dir, paths, annotations_filename=annotations_filename, **kwargs
    )
    rule = label_rule(
        loader.options,
        label_kind(label_column),
        single_label=single_label,
        filtered=bool_filter_labels,
        numbers=label_idx_dict,
    )
    source = annotations_filename if label_df is None else label_df
    windows = model_windows(loader)
    truth = stored_ground_truth(loader, windows, rule, source, overwrite=overwrite)
    column = LABEL_PREFIX + rule.kind
    if return_type == "dict":
        return {column: truth.labels, f"label_dict:{rule.kind}": truth.classes}
    if return_type == "array":
        return _presence(truth, single_label)
    return _table(windows, truth, single_label)


def label_rule(
    options: Options,
    kind: str,
    *,
    single_label: bool = True,
    filtered: bool = False,
    numbers: Mapping[str, int] | Mapping[int, str] | None = None,
) -> LabelRule:
    """Rule of some settings; parameters as for `ground_truth_by_model`."""
    return LabelRule(
        kind,
        single_label,
        options.min_annotation_length,
        options.annotation_overlap,
        options.min_label_occurrences if filtered else 1,
        None if single_label else options.max_labels_per_timestamp,
        _check_numbers(numbers),
    )


def stored_ground_truth(
    loader: Loader,
    windows: ModelWindows,
    rule: LabelRule,
    source: str | pd.DataFrame,
    *,
    overwrite: bool,
) -> GroundTruth:
    """Labels of all windows, taken from disk where they still hold, else made and stored.

    `source` is a table of annotations, or the name of its file in the folder of the recordings.
    """
    table, column = _labelled(loader, windows, rule.kind, source)
    fingerprint = _fingerprint(windows, table, rule)
    path = loader.paths.labels_path / ground_truth_name(file_part(rule.kind), "parquet")
    if not overwrite and (stored := read_result_table(path, fingerprint)) is not None:
        labels = np.stack([c.to_numpy() for c in stored[0].columns], axis=1).astype(np.int32)
        return GroundTruth(labels[:, 0] if rule.single_label else labels, stored[1]["label_dict"])
    truth = make_ground_truth(windows, table, column, rule)
    labelled = _frame(windows, truth, column).dropna().round({"start": 6, "end": 6})
    write_csv(path.with_suffix(".csv"), labelled)
    _write(path, truth, rule, fingerprint)
    return truth


def every_label(
    loader: Loader, windows: ModelWindows, kind: str, source: str
) -> tuple[Overlaps, list[str]]:
    """All labels of all windows, however many a window has; nothing is stored.

    Returns pairs of a window and a label, whose number is its place among the names of labels,
    which are in alphabetical order; of each name there is a window.  `source` is the name of the
    file of annotations.
    """
    table, column = _labelled(loader, windows, kind, source)
    options = loader.options
    table = long_enough(table, options.min_annotation_length)
    overlaps, names, _ = _lay(windows, table, column, options.annotation_overlap)
    used, label = np.unique(overlaps.label, return_inverse=True)
    return overlaps._replace(label=label.astype(np.int64)), [str(name) for name in names[used]]


def _labelled(
    loader: Loader, windows: ModelWindows, kind: str, source: str | pd.DataFrame
) -> tuple[pd.DataFrame, str]:
    """Annotations with a label of a kind, and the column that holds it."""
    table = _annotations(loader, windows, source)
    name = source if isinstance(source, str) else "label_df"
    column = require_label_column(table, kind, source=name)
    needed = ["audiofilename", "start", "end", column]
    return table[[*needed, *([CHANNEL] if CHANNEL in table else [])]].dropna(subset=needed), column


def _lay(
    windows: ModelWindows, table: pd.DataFrame, column: str, fraction: float
) -> tuple[Overlaps, np.ndarray, int]:
    """Labels of every window, their names, and how many annotations label no window."""
    names = np.array(sorted(set(table[column])), dtype=object)
    label = np.searchsorted(names, table[column].to_numpy(dtype=object))
    channel = channels_of(table)
    # Labels of different channels are not joined: each is a class of its own until it is laid.
    several = 1 + int(np.max(channel, initial=0))
    intervals = labelled_intervals(table, label * several + channel)
    overlaps, lost = find_overlaps(windows, intervals, fraction)
    if several > 1:
        overlaps = _of_their_channels(windows, overlaps, several)
    return overlaps, names, lost


def make_ground_truth(
    windows: ModelWindows, table: pd.DataFrame, column: str, rule: LabelRule
) -> GroundTruth:
    """Lay annotations, whose `column` holds a label in every row, onto windows."""
    given, table = len(table), long_enough(table, rule.min_annotation_length)
    numbers = rule.label_idx_dict
    if numbers is not None:
        unknown = sorted(set(table[column]) - set(numbers))
        if unknown:
            logger.warning("labels that label_idx_dict lacks are left out: %s", ", ".join(unknown))
        table = table[~table[column].isin(unknown)]
    overlaps, names, lost = _lay(windows, table, column, rule.annotation_overlap)
    if lost:
        logger.info(
            "%s without a window: behind the end of the recording, or outside of what was "
            "embedded.",
            counted(lost, "annotation"),
        )
    most = rule.max_labels_per_timestamp or 1
    fewest = max(1, rule.min_label_occurrences)
    common = np.bincount(_first_of_each(overlaps, most).label, minlength=len(names)) >= fewest
    if fewest > 1:
        if not common.all():
            rare = ", ".join(names[~common])
            logger.info("labels of fewer than %d windows are left out: %s", fewest, rare)
        # Before a window's labels are chosen, so that it keeps its others.
        overlaps = Overlaps(*(column[common[overlaps.label]] for column in overlaps))
    chosen = _first_of_each(overlaps, most)
    _tell_what_is_lost(overlaps, chosen, names, rule)
    windows_per_label = np.bincount(chosen.label, minlength=len(names))
    if fewest == 1:
        # A label that others cover in every window stays a class: it is not there, and missed.
        common = np.bincount(overlaps.label, minlength=len(names)) > 0
    if numbers is None:
        numbers = {str(name): number for number, name in enumerate(names[common])}
    if not windows_per_label.any():
        logger.warning(
            "No window of %d has a label: %s, of which %d long enough, with at most %s for a "
            "label.",
            len(windows), counted(given, "annotation"), len(table),
            counted(int(windows_per_label.max(initial=0)), "window"),
        )  # fmt: skip
    code = np.array([numbers.get(str(name), UNLABELLED) for name in names], dtype=np.int32)
    code[~common] = UNLABELLED
    return GroundTruth(_lay_out(chosen, code, len(windows), most, rule.single_label), numbers)


def _tell_what_is_lost(
    overlaps: Overlaps, chosen: Overlaps, names: np.ndarray, rule: LabelRule
) -> None:
    """Warn of labels that windows have no room for; of single ones, if none is left of a label."""
    had = np.bincount(overlaps.label, minlength=len(names))
    left = np.bincount(chosen.label, minlength=len(names))
    if not rule.single_label and (dropped := int((had - left).sum())):
        logger.warning(
            "%s left out of windows that have more than max_labels_per_timestamp=%d.",
            counted(dropped, "label"), rule.max_labels_per_timestamp,
        )  # fmt: skip
    gone = np.flatnonzero((had > 0) & (left == 0))
    if rule.single_label and len(gone):
        logger.warning(
            "With a single label per window nothing is left of %s: other labels cover more of the "
            "same windows; allow several (single_label=False, or the setting multi_label).",
            ", ".join(f"{names[i]} ({counted(int(had[i]), 'window')})" for i in gone),
        )


def _first_of_each(overlaps: Overlaps, most: int) -> Overlaps:
    """The labels that cover most of each window."""
    _, first, counts = np.unique(overlaps.window, return_index=True, return_counts=True)
    rank = np.arange(len(overlaps.window)) - np.repeat(first, counts)
    kept = rank < most
    return Overlaps(*(column[kept] for column in overlaps))


def _lay_out(
    chosen: Overlaps, code: np.ndarray, n_windows: int, width: int, single: bool
) -> np.ndarray:
    labels = np.full((n_windows, width), UNLABELLED, dtype=np.int32)
    number = code[chosen.label]
    window, number = chosen.window[number >= 0], number[number >= 0]
    _, first, counts = np.unique(window, return_index=True, return_counts=True)
    labels[window, np.arange(len(window)) - np.repeat(first, counts)] = number
    return labels[:, 0] if single else labels


# --- What goes in -----------------------------------------------------------------------------


def _annotations(loader: Loader, windows: ModelWindows, source: str | pd.DataFrame) -> pd.DataFrame:
    names = set(windows.recordings)
    try:
        names.update(file.relative_to(loader.audio_dir).as_posix() for file in loader.files)
    except NoRecordingsError:  # moved away: their results can still be labelled
        logger.debug("%s holds no recordings any more", shown(loader.audio_dir))

    def length_of(name: str) -> float | None:
        return windows.entries[name].duration if name in windows.entries else None

    if isinstance(source, str):
        table = _stored_annotations(loader, source, sorted(names), length_of)
    else:
        table = check_annotations(source, sorted(names), length_of=length_of)
    outside = ~table["audiofilename"].isin(set(windows.recordings))
    if outside.any():
        logger.warning(
            "%s left out, because there are no windows of %s, such as %s.",
            counted(int(outside.sum()), "annotation"),
            counted(table["audiofilename"][outside].nunique(), "recording"),
            table["audiofilename"][outside].iloc[0],
        )
    return table[~outside]


def _stored_annotations(
    loader: Loader, source: str, names: list[str], length_of: LengthOf
) -> pd.DataFrame:
    """Annotations from where the setting ``labels_from`` says."""
    import pandas as pd

    wanted, parts = loader.options.labels_from, []
    if wanted != "people":
        parts.append(read_annotations(loader.audio_dir / source, names, length_of))
    if wanted != "annotations":
        parts.append(people_annotations(loader))
    table = pd.concat(parts, ignore_index=True)
    if table.empty:
        raise AnnotationsError(
            f"{shown(loader.audio_dir)}: people have heard nothing in these recordings yet; label "
            f"windows with bacpipe.label_windows or bacpipe label."
        )
    return table


def _check_numbers(given: Mapping[Any, Any] | None) -> dict[str, int] | None:
    """Number of each label; the dictionary may also be the other way around."""
    if given is None:
        return None
    numbers = dict(given)
    if numbers and all(isinstance(value, str) for value in numbers.values()):
        numbers = {value: key for key, value in numbers.items()}
    try:
        checked = {str(label): int(number) for label, number in numbers.items()}
    except (TypeError, ValueError):
        checked = {}
    values = list(checked.values())
    if not values or min(values) < 0 or len(set(values)) < len(values):
        raise AnnotationsError(
            "label_idx_dict is not possible: expected a different whole number from 0 for every "
            "label, such as {'robin': 0, 'wren': 1}."
        )
    return checked


def labelled_intervals(table: pd.DataFrame, label: np.ndarray) -> dict[str, Intervals]:
    """Annotations by recording; `label` is the number of each row's label."""
    start, end = table["start"].to_numpy(), table["end"].to_numpy()
    return {
        str(name): Intervals(start[rows], end[rows], label[rows])
        for name, rows in table.groupby("audiofilename").indices.items()
    }


def _fingerprint(windows: ModelWindows, table: pd.DataFrame, rule: LabelRule) -> str:
    content = table.to_csv(index=False) + windows.state + json.dumps(asdict(rule), sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


# --- What comes out ---------------------------------------------------------------------------


class ClassesOfColumns(dict[int, str]):
    """Class of each column of presence; `single_label` says whether a window has one at most."""

    single_label = False


def _presence(truth: GroundTruth, single_label: bool) -> tuple[np.ndarray, ClassesOfColumns]:
    labels = truth.labels.reshape(len(truth.labels), -1)
    names = {number: name for name, number in truth.classes.items()}
    presence = np.zeros((len(labels), max(names, default=-1) + 1), dtype=bool)
    window, place = np.nonzero(labels >= 0)
    presence[window, labels[window, place]] = True
    classes = ClassesOfColumns(sorted(names.items()))
    classes.single_label = single_label
    return presence, classes


def _table(windows: ModelWindows, truth: GroundTruth, single_label: bool) -> pd.DataFrame:
    import pandas as pd

    presence, names = _presence(truth, single_label)
    presence = presence[:, list(names)]
    frame = windows.frame()[["start", "end", "audiofilename"]]
    frame["simultaneous_labels"] = presence.sum(axis=1)
    classes = pd.DataFrame(presence.astype(np.int8), frame.index, list(names.values()))
    table = pd.concat([frame, classes], axis=1)
    table.attrs["single_label"] = single_label
    return table


def _frame(windows: ModelWindows, truth: GroundTruth, column: str) -> pd.DataFrame:
    import pandas as pd

    labels = truth.labels.reshape(len(truth.labels), -1)
    present = labels >= 0
    present[:, 0] = True  # a window without labels has a row too
    window, place = np.nonzero(present)
    names = {number: name for name, number in truth.classes.items()}
    frame = windows.frame().iloc[window].reset_index(drop=True)
    frame[column] = pd.Series(labels[window, place]).map(names).astype("object")
    return frame


def _write(path: Path, truth: GroundTruth, rule: LabelRule, fingerprint: str) -> None:
    import pyarrow as pa

    labels = truth.labels.reshape(len(truth.labels), -1)
    table = pa.table({f"label_{place + 1}": labels[:, place] for place in range(labels.shape[1])})
    about = {"settings": asdict(rule), "label_dict": truth.classes}
    write_result_table(path, table, fingerprint, about)


# --- Which window holds which annotation -------------------------------------------------------


class TimedWindows(Protocol):
    """Windows whose times are known: those of a model, or others."""

    @property
    def times(self) -> tuple[np.ndarray, np.ndarray]:
        """Start and end of every window in seconds of its recording, float64."""

    def slices(self) -> Iterator[tuple[str, slice]]:
        """Recordings, each with the rows of its windows."""


class Overlaps(NamedTuple):
    """Pairs of a window and a label, each once, sorted by window, then by falling overlap."""

    window: np.ndarray  # int64, shape (n,): index of the window
    label: np.ndarray  # int64, shape (n,): number of the label
    seconds: np.ndarray  # float64, shape (n,): how much of the window the label covers


def find_overlaps(
    windows: TimedWindows, annotated: dict[str, Intervals], fraction: float
) -> tuple[Overlaps, int]:
    """Find the labels of every window.

    `annotated` are labelled intervals by recording, `fraction` is the setting
    ``annotation_overlap``.  Windows count through all recordings.  Also returns the number of
    annotations (after joining those of one label) that label no window.
    """
    starts, ends = windows.times
    parts, lost = [], 0
    for name, rows in windows.slices():
        if name in annotated:
            intervals, _ = merge_intervals(annotated[name])
            found, unused = _overlaps_of_one(starts[rows], ends[rows], intervals, fraction)
            parts.append(found._replace(window=found.window + rows.start))
            lost += unused
    if not parts:
        return Overlaps(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)), lost
    return _sum_up(*(np.concatenate(column) for column in zip(*parts, strict=True))), lost


def _overlaps_of_one(
    start: np.ndarray, end: np.ndarray, intervals: Intervals, fraction: float
) -> tuple[Overlaps, int]:
    """Overlaps in one recording, not summed up yet, and the number of intervals without one."""
    # Windows of annotated segments may lie in any order; sorted by start, candidates are a run.
    order = np.argsort(start, kind="stable")
    longest = (end - start).max(initial=0.0)
    first = np.searchsorted(start[order], intervals.start - longest - _TOLERANCE, "left")
    last = np.searchsorted(start[order], intervals.end, "left")
    counts = np.maximum(last - first, 0)
    which, place = runs(first, counts)
    window = order[place]
    shared = np.minimum(end[window], intervals.end[which]) - np.maximum(
        start[window], intervals.start[which]
    )
    shorter = np.minimum(end[window] - start[window], intervals.end[which] - intervals.start[which])
    kept = (shared > _TOLERANCE) & (shared >= fraction * shorter - _TOLERANCE)
    found = np.bincount(which[kept], minlength=len(counts)) > 0
    lost = len(counts) - int(found.sum())
    return Overlaps(window[kept], intervals.label[which[kept]], shared[kept]), lost


def _of_their_channels(windows: ModelWindows, overlaps: Overlaps, several: int) -> Overlaps:
    """Those of labels of a window's channel, or of all; what is in one is in the mean of all."""
    label, channel = np.divmod(overlaps.label, several)
    of = windows.channels[overlaps.window]
    here = (channel == 0) | (of == 0) | (channel == of)
    return _sum_up(overlaps.window[here], label[here], overlaps.seconds[here])


def _sum_up(window: np.ndarray, label: np.ndarray, seconds: np.ndarray) -> Overlaps:
    """Add up the overlaps of each window and label, and sort them."""
    several = int(label.max(initial=0)) + 1
    pairs, group = np.unique(window * several + label, return_inverse=True)
    window, label = np.divmod(pairs, several)
    total = np.bincount(group, seconds, minlength=len(pairs))
    # Rounding hides differences that are none; the number of the label then decides.
    order = np.lexsort((label, -total.round(6), window))
    return Overlaps(window[order], label[order], total[order])
