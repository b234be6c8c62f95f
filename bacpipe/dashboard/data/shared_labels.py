"""Labels of several models, so that one colour means the same in all of their maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bacpipe.dashboard.data.labels import NONE, Labels, label_kinds
from bacpipe.dashboard.data.results import ModelResults


def kinds_of_all(models: Sequence[ModelResults]) -> dict[str, str]:
    """Kinds of labels that at least one of some models has, each with its title."""
    kinds: dict[str, str] = {}
    for results in models:
        kinds.update(label_kinds(results))
    return kinds


def with_common_names(parts: Sequence[Labels]) -> list[Labels]:
    """Number the labels of several models alike.

    Parameters
    ----------
    parts : sequence of Labels
        Labels of one kind for the windows of each model.

    Returns
    -------
    list of Labels
        With the same `names`: those of all models.
    """
    names = list(dict.fromkeys(name for part in parts for name in part.names))
    if any(part.ordered for part in parts):
        names.sort(key=_natural)
    number = {name: i for i, name in enumerate(names)}
    found = []
    for part in parts:
        place = np.array([number[name] for name in part.names] + [NONE], np.int32)
        found.append(part._replace(codes=place[part.codes], names=tuple(names)))
    return found


def _natural(name: str) -> tuple[float, str]:
    """Numbers by value before texts: days of the year are numbers, times of day are texts."""
    try:
        return float(name), name
    except ValueError:
        return np.inf, name
