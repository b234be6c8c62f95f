"""What the Explore view shows: everything that depends on the choices of a visitor.

Computed in one go beside the server's loop, so that a page never shows half of a choice.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bacpipe.dashboard.explore.filters import Filter
from bacpipe.dashboard.shared.labels import WindowLabels, label_kinds, read_labels
from bacpipe.dashboard.shared.results import DataSetResults, ModelResults
from bacpipe.errors import BacpipeError, ResultsNotFoundError, counted
from bacpipe.store.maps import FAR


class MapChoice(NamedTuple):
    """Model, map, kind of labels and windows that a visitor wants; '' is the first there is."""

    model: str = ""
    reducer: str = ""
    colour: str = ""
    filter: Filter = Filter()


class MapContent(NamedTuple):
    """What is shown for a choice.

    Attributes
    ----------
    results : ModelResults
        Of the model.
    kinds : dict of str to str
        Kinds of labels with their titles.
    reducer, colour : str
        What was taken; empty without a map or labels.
    points : np.ndarray, float32, shape (windows, 2 or 3)
        Places in the map; NaN where there are none.
    distances : np.ndarray, float32, shape (windows,)
        How far windows are from all that the map was fitted to; NaN for these themselves.
    labels : WindowLabels or None
        What colours the points.
    shown : np.ndarray, bool, shape (windows,)
        What the filter lets through.
    remarks : tuple of str
        What could not be shown, and why.
    """

    results: ModelResults
    kinds: dict[str, str]
    reducer: str
    points: np.ndarray
    distances: np.ndarray
    colour: str
    labels: WindowLabels | None
    shown: np.ndarray
    remarks: tuple[str, ...]


def make_map_content(
    data_set: DataSetResults, choice: MapChoice, before: MapContent | None = None
) -> MapContent:
    """Compute what is shown; parts that stay are taken from what was shown `before`.

    Raises
    ------
    ResultsNotFoundError
        If the model, or every model, has no results.
    """
    if before is not None and before.results.name == choice.model:
        results, kinds = before.results, before.kinds
    else:
        results = data_set.model(choice.model) if choice.model else first_model(data_set)
        kinds, before = label_kinds(results), None
    remarks: list[str] = []
    reducer = _choose(choice.reducer, results.maps, "map", remarks)
    if before is not None and before.reducer == reducer:
        points, distances = before.points, before.distances
    else:
        points, distances = _places(results, reducer, remarks)
    if far := int((distances > FAR).sum()):
        remarks.append(
            f"{counted(far, 'window')} that came after this map are unlike all that it was made "
            f"from (far_from_map in its table), so their places mean little."
        )
    colour = _choose(choice.colour, kinds, "kind of labels", remarks)
    labels = _labels(results, colour, remarks)
    shown = _shown(results, choice.filter._replace(colour=colour), labels, remarks)
    return MapContent(
        results, kinds, reducer, points, distances, colour, labels, shown, tuple(remarks)
    )


def first_model(data_set: DataSetResults) -> ModelResults:
    """Results of the first model that has some; ResultsNotFoundError if none has."""
    problems = []
    for name in data_set.models:
        try:
            return data_set.model(name)
        except BacpipeError as error:
            problems.append(str(error))
    raise ResultsNotFoundError(" ".join(problems) or f"{data_set.name}: there are no results.")


def _choose(wanted: str, known: dict, what: str, remarks: list[str]) -> str:
    if wanted and wanted not in known:
        remarks.append(f"There is no {what} {wanted[:100]!r} here.")
    return wanted if wanted in known else next(iter(known), "")


def _places(
    results: ModelResults, reducer: str, remarks: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Points and distances."""
    try:
        if reducer:
            return results.places(reducer)
    except BacpipeError as error:
        remarks.append(str(error))
    nowhere = np.full((len(results), 2), np.nan, np.float32)
    return nowhere, nowhere[:, 0]


def _labels(results: ModelResults, colour: str, remarks: list[str]) -> WindowLabels | None:
    try:
        return read_labels(results, colour) if colour else None
    except BacpipeError as error:
        remarks.append(str(error))
        return None


def _shown(
    results: ModelResults, wanted: Filter, labels: WindowLabels | None, remarks: list[str]
) -> np.ndarray:
    known = set(labels.names) if labels is not None else set()
    unknown = [name for name in wanted.labels if name not in known]
    if unknown:
        remarks.append(f"There is no label {unknown[0][:100]!r} here.")
        wanted = wanted._replace(labels=tuple(n for n in wanted.labels if n in known))
    try:
        shown = wanted.windows(results)
    except BacpipeError as error:
        remarks.append(str(error))
        return np.ones(len(results), bool)
    if len(shown) and not shown.any():
        remarks.append("No window passes all filters.")
    return shown
