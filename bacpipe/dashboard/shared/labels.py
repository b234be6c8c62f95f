"""Labels of the windows of one or several models, in one form that colours and filters."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bacpipe.annotations.table import LABEL_PREFIX, label_columns, label_kind, read_annotations
from bacpipe.dashboard.shared.results import ModelResults
from bacpipe.errors import BacpipeError, ResultsNotFoundError
from bacpipe.labels.default_labels import make_labels, metadata_labels
from bacpipe.labels.ground_truth import ground_truth_by_model
from bacpipe.labels.people import current_labels, settled_labels
from bacpipe.store.judgements import YES
from bacpipe.store.layout import ALL_PEOPLE_LABELS, CLUSTER_LABELS
from bacpipe.store.parquet import read_parquet

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

NONE = -1

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


class WindowLabels(NamedTuple):
    """One label per window.

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
    """

    kind: str
    codes: np.ndarray
    names: tuple[str, ...]
    ordered: bool
    species: tuple[str, ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """What `names` are compared by: the species, unless several names are of one."""
        species = self.species or ("",) * len(self.names)
        return tuple(
            kind if kind and species.count(kind) == 1 else name
            for name, kind in zip(self.names, species, strict=True)
        )

    def of(self, row: int) -> str | None:
        """Label of a window."""
        code = self.codes[row]
        return None if code == NONE else self.names[code]


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
    return [part._replace(codes=place[part.codes], names=said, species=()) for part in parts]


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
    column = LABEL_PREFIX + kind.removeprefix(_ANNOTATIONS)
    truth = ground_truth_by_model(
        results.name,
        results.loader.audio_dir,
        label_column=column,
        annotations_filename=results.loader.options.annotations_filename,
        overwrite=False,
        **results.settings,
    )
    codes, numbers = truth[column], truth[f"label_dict:{kind.removeprefix(_ANNOTATIONS)}"]
    names = sorted(numbers, key=lambda name: numbers[name])
    place = np.full(max(numbers.values(), default=-1) + 2, NONE, np.int32)
    for index, name in enumerate(names):
        place[numbers[name]] = index
    return WindowLabels(kind, place[codes], tuple(names), False)


def _people(results: ModelResults) -> WindowLabels:
    """What people heard in windows; of several labels the last one that was given."""
    table = settled_labels(current_labels(results.loader))
    table = table[table["value"] == YES].sort_values("time", kind="stable")
    names = tuple(sorted(set(table["label"])))
    number = {name: i for i, name in enumerate(names)}
    codes = np.full(len(results), NONE, np.int32)
    for label, rows in zip(table["label"], results.rows_of_labels(table), strict=True):
        codes[rows] = number[label]
    return WindowLabels(PEOPLE, codes, names, False)


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
    # Windows that were added since have no cluster yet, so the table fits no longer.
    fits = len(table) == len(results) and "audiofilename" in table
    return table if fits else None


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
        numbered.append(part._replace(codes=place[part.codes], names=tuple(names), species=()))
    return numbered


def _natural(name: str) -> tuple[float, str]:
    """Numbers by value before texts: days of the year are numbers, times of day are texts."""
    try:
        return float(name), name
    except ValueError:
        return np.inf, name
