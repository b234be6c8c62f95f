"""Scores of several models as they are stored, without computing or drawing anything."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bacpipe.audio.annotations import label_kind
from bacpipe.evaluation.comparison import clustering_table, probing_table, retrieval_table
from bacpipe.evaluation.result_files import read_result
from bacpipe.store.layout import ResultPaths

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

TABLES = ("clustering", "probing", "retrieval")
_DAMAGED = "its results are damaged; evaluate it again with overwrite=True"


@dataclass(frozen=True)
class StoredScores:
    """Scores of several models.

    Attributes
    ----------
    kind : str
        Kind of label that they are about: 'species'.
    tables : dict of pandas.DataFrame
        ``probing``, ``clustering`` and ``retrieval`` as `cross_model_evaluation` returns them;
        what nobody has is missing.
    missing : dict of dict
        For each table, why a model is not in it, by model.
    """

    kind: str
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    missing: dict[str, dict[str, str]] = field(default_factory=dict)


def stored_scores(paths: Mapping[str, ResultPaths], kind: str) -> StoredScores:
    """Read the scores of models.

    Parameters
    ----------
    paths : mapping of str to ResultPaths
        Where each model's results are.
    kind : str
        Kind of label; if no model was evaluated with it, the most frequent other one is taken.
    """
    found = {name: {model: _read(name, where) for model, where in paths.items()} for name in TABLES}
    kinds = Counter(
        label_kind(str(result.get("label_column", "")))
        for models in found.values()
        for results in models.values()
        for result in results
    )
    if kinds and kind not in kinds:
        kind = kinds.most_common(1)[0][0]
    scores = StoredScores(kind)
    for name, models in found.items():
        scores.missing[name] = {}
        kept = dict(_usable(name, models, kind, scores.missing[name]))
        if kept:
            scores.tables[name] = _table(name, kept)
    return scores


def _read(name: str, where: ResultPaths) -> list[dict[str, Any]]:
    files: dict[str, list[Path]] = {
        "clustering": [where.clust_path / "clust_results.json"],
        "retrieval": [where.clust_path / "retrieval_results.json"],
        "probing": sorted(where.probe_path.glob("probe_results_*.json")),
    }
    return [result for path in files[name] if (result := read_result(path)) is not None]


def _usable(
    name: str, models: Mapping[str, list[dict[str, Any]]], kind: str, missing: dict[str, str]
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Models whose results are about the labels and make a table."""
    for model, results in models.items():
        mine = [r for r in results if label_kind(str(r.get("label_column", ""))) == kind]
        if not results:
            missing[model] = "it was not evaluated yet"
        elif not mine:
            others = {label_kind(str(r.get("label_column", ""))) for r in results}
            missing[model] = f"it was evaluated with {', '.join(sorted(others))}, not with {kind}"
        else:
            try:
                table = _table(name, {model: mine})
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                logger.warning("%s, %s: %s (%r).", model, name, _DAMAGED, error)
                missing[model] = _DAMAGED
                continue
            if table.empty:
                missing[model] = "there were no labels to compare it with"
            else:
                yield model, mine


def _table(name: str, results: Mapping[str, list[dict[str, Any]]]) -> pd.DataFrame:
    if name == "probing":
        return probing_table(result for mine in results.values() for result in mine)
    single: Callable[[Mapping[str, Any]], pd.DataFrame] = {
        "clustering": clustering_table,
        "retrieval": retrieval_table,
    }[name]
    return single({model: mine[0] for model, mine in results.items()})
