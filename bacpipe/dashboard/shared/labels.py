"""Labels of the windows of one or several models, in one form that colours and filters."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bacpipe.annotations.table import (
    REQUIRED_COLUMNS,
    label_columns,
    label_kind,
    read_annotations,
)
from bacpipe.dashboard.shared.results import ModelResults
from bacpipe.errors import BacpipeError, ResultsNotFoundError
from bacpipe.labels.default_labels import make_labels, metadata_labels
from bacpipe.labels.ground_truth import every_label
from bacpipe.labels.matching import runs
from bacpipe.labels.people import current_labels, settled_labels
from bacpipe.recognisers.labelled import labels_on_windows
from bacpipe.store.judgements import YES
from bacpipe.store.layout import ALL_PEOPLE_LABELS, CLUSTER_LABELS
from bacpipe.store.parquet import read_parquet

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

NONE = -1
_SAME = 1e-3  # seconds: tables round the times of windows

_TITLES = {
    "time_of_day": "Time of day",
    "day_of_year": "Day of the year",
    "week_of_year": "Week of the year",
    "continuous_timestamp": "Date and time",
    "hours_after_sunrise": "Hours after sunrise",
    "hours_after_sunset": "Hours after sunset",
    "hours_after_civil_dawn": "Hours after civil dawn",
    "moon_illumination": "Illuminated share of the moon",
    "parent_directory": "Folder",
    "audio_file_name": "Recording",
    "default_classifier": "Best class of the classifier",
}
_HOURS = {"hours_after_sunrise", "hours_after_sunset", "hours_after_civil_dawn"}
_ORDERED = {
    *("time_of_day", "day_of_year", "week_of_year", "continuous_timestamp", "moon_illumination"),
    *_HOURS,
}
_CLUSTERS, _ANNOTATIONS = "clusters:", "annotations:"
PEOPLE = "people"


class LabelPairs(NamedTuple):
    """Every label of every window that has any, of those kinds of which a window may have several.

    Attributes
    ----------
    row : np.ndarray, int64, shape (n,)
        Window, ascending.
    code : np.ndarray, int32, shape (n,)
        Its label, as an index into names; each once for a window.
    """

    row: np.ndarray
    code: np.ndarray


class WindowLabels(NamedTuple):
    """Labels of windows: one of each to colour it by, and all to filter, select and export by.

    Attributes
    ----------
    kind : str
        Which labels, as `label_kinds` lists them.
    codes : np.ndarray, int32, shape (windows,)
        Index into `names`; -1 for none.
    names : tuple of str
        In alphabetical or, when `ordered`, in natural order.
    ordered : bool
        Whether neighbouring labels resemble each other, as times do.
    species : tuple of str
        Scientific name of each of `names`, '' where there is none; empty if none is known.
    pairs : LabelPairs or None
        All labels; None where no window has more than the one of `codes`.
    """

    kind: str
    codes: np.ndarray
    names: tuple[str, ...]
    ordered: bool
    species: tuple[str, ...] = ()
    pairs: LabelPairs | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """What `names` are compared by: the species, unless several names are of one."""
        species = self.species or ("",) * len(self.names)
        return tuple(
            kind if kind and species.count(kind) == 1 else name
            for name, kind in zip(self.names, species, strict=True)
        )

    def of(self, row: int) -> str | None:
        """Labels of a window, one after the other; None without any."""
        _, codes = self.every(np.array([row]))
        return ", ".join(self.names[code] for code in codes if code != NONE) or None

    def every(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All labels of some windows.

        Returns places in `rows`, ascending, and a label for each, int64 and an index into `names`.
        A window without labels is there once, with -1.
        """
        if self.pairs is None:
            return np.arange(len(rows)), self.codes[rows].astype(np.int64)
        first = np.searchsorted(self.pairs.row, rows)
        count = np.searchsorted(self.pairs.row, rows, "right") - first
        place, at = runs(first, np.maximum(count, 1))
        codes = np.full(len(place), NONE, np.int64)
        labelled = count[place] > 0
        codes[labelled] = self.pairs.code[at[labelled]]
        return place, codes

    def windows_with(self, names: Iterable[str]) -> np.ndarray:
        """Windows that have one of some labels, maybe among others; bool of shape (windows,)."""
        chosen = set(names)
        # The last one stands for none.
        wanted = np.array([*(name in chosen for name in self.names), False])
        if self.pairs is None:
            found: np.ndarray = wanted[self.codes]
            return found
        found = np.zeros(len(self.codes), bool)
        found[self.pairs.row[wanted[self.pairs.code]]] = True
        return found


def most_frequent(parts: Sequence[WindowLabels], most: int) -> list[WindowLabels]:
    """Labels with at most so many names, numbered alike in all parts: the rarest become one.

    Names then stand in the order of their frequency, with 'other' last; ordered labels and those
    with few names stay as they are.  All parts must have the same names.
    """
    names = parts[0].names if parts else ()
    if len(names) <= most or any(part.ordered for part in parts):
        return list(parts)
    counts = sum(np.bincount(part.codes[part.codes >= 0], minlength=len(names)) for part in parts)
    kept = np.argsort(-np.asarray(counts), kind="stable")[: most - 1]
    place = np.full(len(names) + 1, len(kept), np.int32)
    place[kept] = np.arange(len(kept), dtype=np.int32)
    place[NONE] = NONE
    others = f"other ({len(names) - len(kept):,} labels)"
    said = (*(names[i] for i in kept), others)
    return [
        part._replace(codes=place[part.codes], names=said, species=(), pairs=None) for part in parts
    ]


def label_kinds(results: ModelResults) -> dict[str, str]:
    """Kinds of labels that a model's windows have, each with its title for people."""
    kinds = {}
    for column in _annotation_columns(results):
        kind = label_kind(column)
        kinds[_ANNOTATIONS + kind] = f"Annotations: {kind}"
    if any(results.loader.paths.people_path.glob(ALL_PEOPLE_LABELS)):
        kinds[PEOPLE] = "Labels of people"
    if any(entry.predictions for entry in results.loader.entries.values()):
        kinds["default_classifier"] = _TITLES["default_classifier"]
    for name in _cluster_columns(results):
        kinds[_CLUSTERS + name] = f"Clusters: {name}"
    for key in results.loader.options.default_label_keys:
        if key != "default_classifier":
            kinds[key] = _TITLES[key]
    return kinds


def read_labels(results: ModelResults, kind: str) -> WindowLabels:
    """Labels of one kind; the arrays are shared, do not change them.

    Raises
    ------
    BacpipeError
        If they are missing or cannot be read.
    """
    # Those of people change while they are looked at.
    return _people(results) if kind == PEOPLE else _read_labels(results, kind)


@lru_cache(maxsize=64)
def _read_labels(results: ModelResults, kind: str) -> WindowLabels:
    if kind.startswith(_ANNOTATIONS):
        return _annotations(results, kind)
    if kind.startswith(_CLUSTERS):
        return _clusters(results, kind)
    if kind not in _TITLES:
        raise ResultsNotFoundError(f"There are no labels of the kind {kind!r}.")
    table = default_labels(results)
    if kind not in table:
        table = make_labels(results.loader, results.windows, [kind])
    # Of hours with fractions, every window would have its own.
    column = np.floor(table[kind]).astype("Int64") if kind in _HOURS else table[kind]
    labels = _coded(kind, column, ordered=kind in _ORDERED)
    if kind != "default_classifier":
        return labels
    listed = results.loader.classes
    return labels._replace(species=tuple(listed.of(n).scientific_name for n in labels.names))


@lru_cache(maxsize=16)
def default_labels(results: ModelResults) -> pd.DataFrame:
    """Labels that need no annotations: audiofilename, start, end and a column per key."""
    loader = results.loader
    try:
        table: pd.DataFrame = metadata_labels(
            loader.audio_dir, results.name, overwrite=False, **results.settings
        )
    except OSError as error:  # the results can be read, but not written
        logger.info("default labels are not stored: %s", error)
        table = make_labels(loader, results.windows, loader.options.default_label_keys)
    return table


def clock_times(results: ModelResults) -> np.ndarray:
    """Date and time at which every window starts, datetime64[us]; NaT where nobody knows."""
    table = default_labels(results)
    if "continuous_timestamp" not in table:
        table = make_labels(results.loader, results.windows, ["continuous_timestamp"])
    return table["continuous_timestamp"].to_numpy("datetime64[us]")


def _annotation_columns(results: ModelResults) -> list[str]:
    loader = results.loader
    path = loader.audio_dir / loader.options.annotations_filename
    if not path.is_file():
        return []
    try:
        return label_columns(read_annotations(path, results.recordings))
    except BacpipeError as error:
        logger.warning("annotations are not shown: %s", error)
        return []


def _annotations(results: ModelResults, kind: str) -> WindowLabels:
    loader, name = results.loader, kind.removeprefix(_ANNOTATIONS)
    source = loader.options.annotations_filename
    laid, names = every_label(loader, results.windows, name, source)
    pairs = LabelPairs(laid.window, laid.label.astype(np.int32))
    # What covers most of a window comes first.
    labelled, first = np.unique(pairs.row, return_index=True)
    codes = np.full(len(results), NONE, np.int32)
    codes[labelled] = pairs.code[first]
    return WindowLabels(kind, codes, tuple(names), False, pairs=pairs)


def _people(results: ModelResults) -> WindowLabels:
    """What people heard in windows; the last label that was given is the one that colours."""
    table = settled_labels(current_labels(results.loader))
    known = table["recording"].isin(results.recordings)
    table = table[known & (table["value"] == YES)].sort_values("time", kind="stable")
    names = tuple(sorted(set(table["label"])))
    codes = np.full(len(results), NONE, np.int32)
    if table.empty:
        return WindowLabels(PEOPLE, codes, names, False)
    number = {name: i for i, name in enumerate(names)}
    fraction = results.loader.options.annotation_overlap

    def laid(table: pd.DataFrame, number: dict[str, int]) -> np.ndarray:
        """Window and label of every pair, each once."""
        row, code, _ = labels_on_windows(results.windows, table, number, fraction)
        return np.unique(np.stack([row, code]), axis=1)

    row, code = laid(table, number)
    # By itself, each label tells which windows it was given to, and so which of them is the last.
    each = [str(place) for place in range(len(table))]
    window, place = laid(table.assign(label=each), {name: int(name) for name in each})
    of_place = table["label"].map(number).to_numpy(np.int64)
    pair, given = row * len(names) + code, window * len(names) + of_place[place]
    both = np.isin(given, pair)  # joined, labels of one name may be of other windows
    last = np.full(len(pair), -1)
    np.maximum.at(last, np.searchsorted(pair, given[both]), place[both])
    order = np.lexsort((last, row))
    codes[row[order]] = code[order]
    return WindowLabels(PEOPLE, codes, names, False, pairs=LabelPairs(row, code.astype(np.int32)))


def _cluster_table(results: ModelResults) -> pd.DataFrame | None:
    import pyarrow as pa

    path = results.loader.paths.clust_path / CLUSTER_LABELS
    if not path.is_file():
        return None
    try:
        table = read_parquet(path).to_pandas()
    except (OSError, ValueError, pa.ArrowException) as error:
        logger.warning("%s: cannot be read, so clusters are not shown (%s).", path, error)
        return None
    return table if _is_of(table, results) else None


def _is_of(table: pd.DataFrame, results: ModelResults) -> bool:
    """Whether the rows of a table are the present windows; as many others may have been before."""
    if len(table) != len(results) or not {*REQUIRED_COLUMNS} <= {*table.columns}:
        return False
    names, stored = np.array(results.recordings, dtype=object), table["audiofilename"].to_numpy()
    return bool(
        (stored == names[results.recording_code]).all()
        and np.allclose(table["start"], results.start, rtol=0, atol=_SAME)
        and np.allclose(table["end"], results.end, rtol=0, atol=_SAME)
    )


def _cluster_columns(results: ModelResults) -> list[str]:
    table = _cluster_table(results)
    return [] if table is None else [str(name) for name in table.columns[3:]]


def _clusters(results: ModelResults, kind: str) -> WindowLabels:
    table, column = _cluster_table(results), kind.removeprefix(_CLUSTERS)
    if table is None or column not in table:
        raise ResultsNotFoundError(
            f"{results.name} has no clusters {column!r} of the present windows; run the "
            f"evaluation task clustering again."
        )
    numbers, codes = np.unique(table[column].to_numpy(), return_inverse=True)
    # HDBSCAN calls windows outside of all clusters -1.
    offset = int((numbers < 0).sum())
    codes = np.where(codes < offset, NONE, codes - offset).astype(np.int32)
    return WindowLabels(kind, codes, tuple(f"cluster {n}" for n in numbers[offset:]), False)


def _coded(kind: str, column: pd.Series, *, ordered: bool) -> WindowLabels:
    import pandas as pd

    codes, values = pd.factorize(column, sort=True)
    if pd.api.types.is_datetime64_any_dtype(values):
        names = tuple(pd.DatetimeIndex(values).strftime("%Y-%m-%d %H:%M:%S"))
    else:
        names = tuple(str(value) for value in values)
    return WindowLabels(kind, codes.astype(np.int32), names, ordered)


def kinds_of_all(models: Sequence[ModelResults]) -> dict[str, str]:
    """Kinds of labels that at least one of some models has, each with its title."""
    kinds: dict[str, str] = {}
    for results in models:
        kinds.update(label_kinds(results))
    return kinds


def with_common_names(parts: Sequence[WindowLabels]) -> list[WindowLabels]:
    """Number the labels of several models alike: all get the `names` of all.

    A species has the name that the first of the models gives it.
    """
    name_of: dict[str, str] = {}
    for part in parts:
        for key, name in zip(part.keys, part.names, strict=True):
            name_of.setdefault(key, name)
    names = list(dict.fromkeys(name_of.values()))
    if any(part.ordered for part in parts):
        names.sort(key=_natural)
    number = {name: i for i, name in enumerate(names)}
    numbered = []
    for part in parts:
        place = np.array([number[name_of[key]] for key in part.keys] + [NONE], np.int32)
        pairs = part.pairs and part.pairs._replace(code=place[part.pairs.code])
        codes = place[part.codes]
        numbered.append(part._replace(codes=codes, names=tuple(names), species=(), pairs=pairs))
    return numbered


def _natural(name: str) -> tuple[float, str]:
    """Numbers by value before texts: days of the year are numbers, times of day are texts."""
    try:
        return float(name), name
    except ValueError:
        return np.inf, name
