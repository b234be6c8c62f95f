"""Labels laid onto the windows of a model: who learns from what."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bacpipe.annotations.cells import listed
from bacpipe.annotations.table import (
    LABEL_PREFIX,
    check_annotations,
    check_labels,
    label_kind,
    length_in_header,
    long_enough,
    read_annotations,
    require_label_column,
)
from bacpipe.audio.fingerprint import content_fingerprint
from bacpipe.audio.remote import shown
from bacpipe.errors import (
    AnnotationsError,
    NoRecordingsError,
    RecogniserError,
    SettingsError,
    counted,
)
from bacpipe.labels.ground_truth import find_overlaps
from bacpipe.labels.matching import runs
from bacpipe.labels.model_windows import ModelWindows, model_windows
from bacpipe.labels.people import current_labels, settled_labels
from bacpipe.store.detections import Intervals
from bacpipe.store.judgements import NO, UNSURE, YES
from bacpipe.store.loader import Loader
from bacpipe.store.tables import channels_of
from bacpipe.user_input import is_file

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

PRESENT, ABSENT, UNKNOWN, DOUBTFUL = 1, 0, -1, -2
_TOLERANCE = 2e-3  # seconds; labels of people are rounded to a thousandth


class LabelledWindows(NamedTuple):
    """Windows that somebody has judged.

    Attributes
    ----------
    windows : ModelWindows
        All windows of the data set.
    rows : np.ndarray, int64, shape (n,)
        The judged ones, ascending.
    values : np.ndarray, int8, shape (n, classes)
        `PRESENT`, `ABSENT`, `UNKNOWN` (nobody has judged this class here), or `DOUBTFUL` (nobody
        was sure, or labels contradict each other).
    classes : tuple of str
    """

    windows: ModelWindows
    rows: np.ndarray
    values: np.ndarray
    classes: tuple[str, ...]


def recording_key(loader: Loader, name: str) -> str:
    """What tells a recording from all others, under any name: the fingerprint of its content."""
    return loader.entries[name].fingerprint or name


def class_names(classes: str | Sequence[str] | None) -> list[str]:
    """Names of classes as somebody has given them: one, several, or none."""
    if classes is None or isinstance(classes, str):
        return [] if classes is None else [classes]
    names = list(classes) if isinstance(classes, Iterable) else [classes]
    if not all(isinstance(name, str) for name in names):
        raise SettingsError(f"classes={classes!r} is not possible: expected names of classes.")
    return names


def labels_for(loader: Loader, labels: pd.DataFrame | None = None) -> pd.DataFrame:
    """Settled labels to learn from, or to be judged by.

    Parameters
    ----------
    loader : Loader
        Its option ``labels_from`` chooses; unless somebody has set it, the labels of people are
        taken, and annotations only where there are none of these.
    labels : pandas.DataFrame, optional
        Labels as `people_labels` returns them, or annotations, instead of those on disk.

    Returns
    -------
    pandas.DataFrame
        Columns recording, start, end, label, value, and what `settled_labels` adds.

    Raises
    ------
    RecogniserError
        If there are none.
    """
    import pandas as pd

    options = loader.options
    if labels is not None:
        return settled_labels(_own(loader, labels))
    wanted = options.labels_from if "labels_from" in options.asked else None
    parts = []
    if wanted != "annotations":
        parts.append(current_labels(loader))
    if wanted in {"annotations", "both"} or (wanted is None and not len(parts[0])):
        path = loader.audio_dir / options.annotations_filename
        if wanted is not None or is_file(path):
            parts.append(_annotations(loader, path))
    filled = [part for part in parts if len(part)]
    if not filled:
        raise RecogniserError(
            f"{shown(loader.audio_dir)}: there are no labels of people yet"
            f"{'' if wanted == 'people' else f' and no {options.annotations_filename}'}; give some "
            f"with bacpipe.label_windows or bacpipe label."
        )
    return settled_labels(pd.concat(filled, ignore_index=True))


def _annotations(loader: Loader, path: Path) -> pd.DataFrame:
    names = set(loader.entries)
    try:
        names.update(loader.recording_names)
    except NoRecordingsError:
        logger.debug("%s holds no recordings any more", shown(loader.audio_dir))
    table = read_annotations(path, sorted(names), length_in_header(loader.audio_dir))
    return _as_labels(table, loader, path.name)


def _as_labels(table: pd.DataFrame, loader: Loader, source: str) -> pd.DataFrame:
    column = require_label_column(table, loader.options.label_column, source=source)
    table = table[["audiofilename", "start", "end", column]].dropna()
    shortest, given = loader.options.min_annotation_length, len(table)
    table = long_enough(table, shortest)
    if len(table) < given:
        logger.info(
            "%s: %s shorter than min_annotation_length=%g s left out.",
            source,
            counted(given - len(table), "annotation"),
            shortest,
        )
    table = table.set_axis(["recording", "start", "end", "label"], axis=1)
    return _completed(table.assign(annotator=source))


def _completed(table: pd.DataFrame) -> pd.DataFrame:
    """Labels with all columns that are settled."""
    for name in ("value", "annotator", "time", "chosen_by", "model", "score"):
        if name not in table:
            usual = YES if name == "value" else np.nan if name == "score" else ""
            table = table.assign(**{name: usual})
    return table


def _own(loader: Loader, table: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    if not isinstance(table, pd.DataFrame):
        raise AnnotationsError(
            f"labels={table!r} is not possible: expected a DataFrame, such as "
            f"bacpipe.people_labels or bacpipe.import_annotations return it."
        )
    if "audiofilename" in table:
        names = sorted({*loader.entries})
        return _as_labels(check_annotations(table, names, source="labels"), loader, "labels")
    missing = [name for name in ("recording", "start", "end", "label") if name not in table]
    if missing:
        raise AnnotationsError(
            f"labels: the columns {', '.join(missing)} are missing; expected those of "
            f"bacpipe.people_labels, or of an annotation table (audiofilename, start, end, "
            f"{LABEL_PREFIX}{label_kind(loader.options.label_column)})."
        )
    table = _completed(check_labels(table.reset_index(drop=True), sorted(loader.entries)))
    wrong = table.loc[~table["value"].isin([YES, NO, UNSURE]), "value"]
    if len(wrong):
        raise AnnotationsError(
            f"labels: the value {wrong.iloc[0]!r} is not possible; expected yes, no or unsure."
        )
    return table


def labelled_windows(
    loader: Loader, table: pd.DataFrame, classes: str | Sequence[str] | None = None
) -> LabelledWindows:
    """Lay settled labels onto windows.

    A label of just the seconds of a window is about this window alone.  Others are about the
    windows that they overlap, by the rule of ground truth (``annotation_overlap``); that something
    was not heard is true of the windows that lie in these seconds as a whole.  A label of one
    channel is about the windows of this channel, and, if it was heard, about those of a mean of
    channels; one without a channel is about those of all.

    Raises
    ------
    RecogniserError
        If no label is about a window, or a class is unknown.
    """
    windows = model_windows(loader)
    table = _of_these_windows(loader, table)
    names = tuple(class_names(classes) or sorted(set(table["label"])))
    unknown = [name for name in names if name not in set(table["label"])]
    if unknown:
        raise RecogniserError(
            f"there are no labels of {listed(unknown)}; there are of "
            f"{listed(sorted(set(table['label'])))}."
        )
    table = table[table["label"].isin(names)]
    number = {name: i for i, name in enumerate(names)}
    fraction = loader.options.annotation_overlap
    rows, column, value = labels_on_windows(windows, table, number, fraction)
    if not len(rows):
        raise RecogniserError(
            f"none of {counted(len(table), 'label')} is about a window of {loader.model_name}: "
            f"they lie behind the end of their recordings, or are too short for "
            f"annotation_overlap={loader.options.annotation_overlap:g}."
        )
    used, place = np.unique(rows, return_inverse=True)
    said = np.zeros((3, len(used), len(names)), bool)
    said[value, place, column] = True
    absent, present, unsure = said
    values = np.full(present.shape, UNKNOWN, np.int8)
    values[present], values[absent] = PRESENT, ABSENT
    values[unsure & ~present & ~absent] = DOUBTFUL
    values[present & absent] = DOUBTFUL
    if (present & absent).any():
        logger.warning(
            "%s of %s left out, because one label says that a class is there and another one of "
            "overlapping seconds that it is not.",
            counted(int((present & absent).sum()), "label"),
            loader.model_name,
        )
    return LabelledWindows(windows, used, values, names)


def changed_recordings(loader: Loader, names: Iterable[str]) -> list[str]:
    """Those of some recordings that have changed since they were embedded."""
    changed, entries = [], loader.entries
    for name in names:
        known = entries[name].fingerprint if name in entries else None
        now = content_fingerprint(loader.audio_dir / name) if known is not None else None
        if now is not None and now != known:
            changed.append(name)
    return changed


def tell_changed(names: Sequence[str]) -> None:
    """Say which recordings nobody is asked about, because their results are of other sounds."""
    if names:
        logger.warning(
            "%s left out, because %s changed since the model heard %s: %s; run the model again.",
            counted(len(names), "recording"),
            "they have" if len(names) > 1 else "it has",
            "them" if len(names) > 1 else "it",
            listed(names),
        )


def warn(sentence: str) -> None:
    """Tell people what they should know of a result."""
    logger.warning("%s", sentence)


def of_these_recordings(
    loader: Loader, table: pd.DataFrame, say: Callable[[str], None] = warn
) -> pd.DataFrame:
    """Labels of recordings whose results are of what was labelled; maybe none.

    `say` gets what is left out.
    """
    names, entries = [str(name) for name in table["recording"].unique()], loader.entries
    absent = [name for name in names if name not in entries]
    changed = changed_recordings(loader, names)
    for left_out, why in (
        (absent, f"have no results of {loader.model_name}"),
        (changed, "have changed since the model heard them"),
    ):
        if left_out:
            say(
                f"labels of {counted(len(left_out), 'recording')} left out, which {why}: "
                f"{listed(left_out)}; run the model again."
            )
    return table[~table["recording"].isin({*absent, *changed})]


def _of_these_windows(loader: Loader, table: pd.DataFrame) -> pd.DataFrame:
    kept = of_these_recordings(loader, table)
    if kept.empty:
        raise RecogniserError(
            f"{loader.get_embedding_dir()}: none of {counted(len(table), 'label')} is about a "
            f"recording with up-to-date embeddings of {loader.model_name}; run the model first."
        )
    return kept


def labels_on_windows(
    windows: ModelWindows, table: pd.DataFrame, number: Mapping[str, int], fraction: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lay labels onto windows, by the rule of `labelled_windows`.

    Parameters
    ----------
    windows : ModelWindows
        Of all recordings that are labelled.
    table : pandas.DataFrame
        At least one settled label.
    number : mapping of str to int
        Of each class.
    fraction : float
        The setting ``annotation_overlap``.

    Returns
    -------
    rows, classes, values : np.ndarray, int64, shape (n,)
        A window, a class, and a place in (no, yes, unsure) for each label of a window; what
        several labels say of it is there several times.
    """
    starts, ends = windows.times
    slices = dict(windows.slices())
    table = table.assign(wanted=channels_of(table), code=table["label"].map(number))
    # Labels of different channels are not joined: each is a class of its own until it is laid.
    several = 1 + int(table["wanted"].max())
    matches: list[tuple[np.ndarray, np.ndarray, int]] = []
    for place, value in enumerate((NO, YES, UNSURE)):
        chosen = table[table["value"] == value]
        rest: dict[str, Intervals] = {}
        for name, part in chosen.groupby("recording"):
            rows = slices[str(name)]
            start, end = part["start"].to_numpy(float), part["end"].to_numpy(float)
            label = (part["code"] * several + part["wanted"]).to_numpy(np.int64)
            window, which = _same_seconds(starts[rows], ends[rows], start, end)
            matches.append((window + rows.start, label[which], place))
            left = np.setdiff1d(np.arange(len(part)), which)
            if len(left):
                rest[str(name)] = Intervals(start[left], end[left], label[left])
        overlaps, _ = find_overlaps(windows, rest, fraction)
        covered = np.ones(len(overlaps.window), bool)
        if value != YES:
            length = ends[overlaps.window] - starts[overlaps.window]
            covered = overlaps.seconds >= length - _TOLERANCE
        matches.append((overlaps.window[covered], overlaps.label[covered], place))
    rows, labels, values = zip(*matches, strict=True)
    row, said = np.concatenate(rows), np.repeat(values, [len(part) for part in rows])
    column, channel = np.divmod(np.concatenate(labels), several)
    # What is in one channel is in the mean of all; what is not may be in another one.
    of = windows.channels[row]
    here = (channel == 0) | (channel == of) | ((of == 0) & (said == 1))
    return row[here], column[here], said[here]


def _same_seconds(
    starts: np.ndarray, ends: np.ndarray, start: np.ndarray, end: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Windows of just the seconds of a label, one for each channel, and which label."""
    order = np.argsort(starts, kind="stable")
    first = np.searchsorted(starts[order], start - _TOLERANCE)
    count = np.searchsorted(starts[order], start + _TOLERANCE) - first
    which, place = runs(first, count)
    same = np.abs(ends[order[place]] - end[which]) < _TOLERANCE
    return order[place[same]], which[same]
