"""Models side by side: tables and figures in ``evaluations/overview``.

Everything here reads what the evaluations of the single models stored.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bacpipe.annotations.table import LABEL_PREFIX, file_part, label_kind
from bacpipe.errors import ResultsError, ResultsNotFoundError, SettingsError, counted
from bacpipe.evaluation.benchmarked_windows import read_benchmarked
from bacpipe.evaluation.labelled_clusters import read_clusters
from bacpipe.evaluation.metrics import FEWEST_UNITS
from bacpipe.evaluation.report import write_report
from bacpipe.evaluation.retrieved_windows import RetrievedWindows, read_retrieved
from bacpipe.evaluation.shared_ground import (
    letters,
    on_shared_ground,
    paired_table,
    pairs_of,
    share,
    shared_scores,
)
from bacpipe.evaluation.tested_windows import read_tested
from bacpipe.models.zoo import canonical_name
from bacpipe.options import Options, make_options
from bacpipe.store.data_set_folder import folder_name, paths_of
from bacpipe.store.files import file_hash, remove_temporaries, write_csv
from bacpipe.store.fingerprints import fingerprint_of, read_result, write_result
from bacpipe.store.layout import (
    BENCHMARK_RESULTS,
    BENCHMARK_WINDOWS,
    CLUSTERING_RESULTS,
    LABELLED_CLUSTERS,
    MAP_FIGURE,
    MAP_FIGURE_WORDS,
    RETRIEVAL_NEIGHBOURS,
    RETRIEVAL_RESULTS,
    ResultPaths,
    comparison_figure_name,
    comparison_table_name,
    ground_truth_name,
    probe_results_name,
    test_scores_name,
)
from bacpipe.store.lock import SECONDS_FOR_OTHERS, exclusive
from bacpipe.store.maps import IS_FAR, stored_maps

if TYPE_CHECKING:
    import pandas as pd

    Result = Mapping[str, Any]

logger = logging.getLogger(__name__)

TABLES = ("clustering", "probing", "retrieval")

_TABLES_OF = {"probing": ("probing",), "clustering": ("clustering", "retrieval")}
_DAMAGED = "its results are damaged; evaluate it again with overwrite=True"

_FEWEST_LABELS = 2

_CLASSIFIER_METRICS = ("average_precision_macro", "f1_macro", "roc_auc_macro")

_PROBING_METRICS = (
    "f1_macro",
    "average_precision_macro",
    "roc_auc_macro",
    "accuracy",
    "balanced_accuracy",
    "top_1_accuracy",
    "top_5_accuracy",
    "precision_macro",
    "recall_macro",
    "f1_micro",
)


def cross_model_evaluation(
    dim_reduction_model: bool | str,
    evaluation_task: str | Sequence[str],
    models: str | Sequence[str],
    **kwargs: object,
) -> dict[str, pd.DataFrame]:
    """Compare models by what their evaluations found.

    Parameters
    ----------
    dim_reduction_model : bool or str
        Reducer whose maps of all models are drawn side by side; 'None' or False for none.
    evaluation_task : {'probing', 'clustering'} or list of them
        What to compare.
    models : str or sequence of str
        Which models; those without results are logged and left out.
    **kwargs
        Any key of the configuration; audio_dir and main_results_dir say where results are.

    Returns
    -------
    dict of pandas.DataFrame
        ``probing``, ``probing_per_class``, ``probing_pairs`` (difference of every two probes, with
        the probability that the first is better), ``clustering`` and ``retrieval``, as far as
        there are results, and ``classifiers`` and ``classifiers_pairs`` where `benchmark` was run
        for several of the models; the best model first, with 95 % intervals (<metric>_low,
        <metric>_high).  Models are ranked on the classes and test recordings that all share;
        ``attrs["notes"]`` of a table says what was left out and why, and models that share too
        little have no rank.  Tables are stored as CSV in ``evaluations/overview``, with figures
        (PNG and SVG) and a page of all of it, ``report.html``.

    Raises
    ------
    SettingsError
        If the audio folder is not named, or a setting is impossible.
    ResultsNotFoundError
        If there is nothing to compare.

    Examples
    --------
    >>> import bacpipe
    >>> tables = bacpipe.cross_model_evaluation("None", "probing", ["birdnet"],
    ...     audio_dir="recordings")
    >>> tables["probing"]["f1_macro"].to_list()  # of the linear and the nearest-neighbour probe
    [1.0, 1.0]
    """
    options = make_options(
        **{
            **kwargs,
            "dim_reduction_model": dim_reduction_model,
            "evaluation_task": evaluation_task,
            "models": models,
        }
    )
    if options.audio_dir is None:
        raise SettingsError("audio_dir is missing; expected the folder with the recordings.")
    models_here = map(canonical_name, options.models)
    paths = {name: paths_of(options.audio_dir, name, options) for name in models_here}
    return compare_models(paths, options.evaluation_task, options)


def compare_models(
    paths: Mapping[str, ResultPaths],
    tasks: Iterable[str],
    options: Options,
    done: Mapping[str, Container[str]] | None = None,
) -> dict[str, pd.DataFrame]:
    """Do what `cross_model_evaluation` does, for results at known places.

    `done` is what was evaluated for each model just now ('probing', 'clustering', 'retrieval');
    whatever else is stored is of an earlier run and left out.
    """
    # Whoever only imports this module need not wait for matplotlib.
    from bacpipe.plotting import comparison as figures
    from bacpipe.plotting.style import save_figure

    folder = next(iter(paths.values())).overview_path
    kind = label_kind(options.label_column)
    probes = list(options.probe_configs)
    tables: dict[str, pd.DataFrame] = {}
    drawn = {}
    nothing = True
    for name in (name for task in tasks for name in _TABLES_OF[task]):
        wanted = {
            model: path for model, path in paths.items() if done is None or name in done[model]
        }
        results = _results(name, wanted, kind, probes)
        if not results:
            continue
        table, more = _table(name, results, paths, probes)
        for note in table.attrs["notes"]:
            logger.warning("%s: %s", name, note)
        nothing = False
        if table.empty:  # what was done gave no results, and said why
            continue
        tables[name] = table
        tables |= more
        drawn[name] = figures.RANKINGS[name](tables[name])
        if name == "probing":
            drawn["probing_per_class"] = figures.per_class_scores(tables["probing_per_class"])
        if f"{name}_pairs" in more and name != "clustering":
            drawn[f"{name}_pairs"] = figures.pair_probabilities(more[f"{name}_pairs"])
    compared = _classifiers(paths)
    if compared:
        nothing = False
        for note in compared["classifiers"].attrs["notes"]:
            logger.warning("classifiers: %s", note)
        tables |= compared
        if "classifiers_pairs" in compared:
            drawn["classifiers_pairs"] = figures.pair_probabilities(compared["classifiers_pairs"])
    if nothing:
        raise ResultsNotFoundError(
            f"{folder}: there is nothing to compare, because there are no results of "
            f"{', '.join(tasks) or 'any task'} for {', '.join(paths)}; run them first with "
            f"evaluation_task=['probing', 'clustering']."
        )
    if options.dim_reduction_model != "None":
        maps = read_maps(paths, options.dim_reduction_model, kind)
        if maps:
            name = f"embeddings_{options.dim_reduction_model}"
            drawn[name] = figures.maps(maps, kind, options.max_nr_categories)
    # Runs of other models write here, too.
    with exclusive(folder.parent, folder.name, wait=SECONDS_FOR_OTHERS):
        remove_temporaries(folder)
        for name, table in tables.items():
            write_csv(folder / comparison_table_name(name), table)
        for name, figure in drawn.items():
            save_figure(figure, folder / comparison_figure_name(name), vector=True)
        write_report(folder, tables, list(drawn), paths, options)
    return tables


@dataclass(frozen=True)
class StoredScores:
    """Scores of several models."""

    kind: str  # kind of label that they are about: 'species'
    # ``probing``, ``clustering`` and ``retrieval`` as `cross_model_evaluation` returns them; what
    # nobody has is missing
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    # For each table, why a model is not in it, by model
    missing: dict[str, dict[str, str]] = field(default_factory=dict)


def stored_scores(paths: Mapping[str, ResultPaths], kind: str) -> StoredScores:
    """Read the scores of models, without computing or drawing anything.

    If no model was evaluated with this kind of label, the most frequent other one is taken.
    """
    stored = {
        name: {model: _read(name, where) for model, where in paths.items()} for name in TABLES
    }
    kinds = Counter(
        label_kind(str(result.get("label_column", "")))
        for models in stored.values()
        for results in models.values()
        for result in results
    )
    if kinds and kind not in kinds:
        kind = kinds.most_common(1)[0][0]
    scores = StoredScores(kind)
    for name, models in stored.items():
        scores.missing[name] = {}
        kept = dict(_usable(name, models, kind, scores.missing[name]))
        if kept:
            table, _ = _table(name, kept, paths)
            left_out = table.attrs["missing"]
            scores.missing[name] |= {m: why for m, why in left_out.items() if m in kept}
            if not table.empty:
                scores.tables[name] = table
    return scores


# ---------------------------------------------------------------------- reading


def _files(name: str, where: ResultPaths, probes: Sequence[str] | None = None) -> list[Path]:
    """Results that go into a table; of all probes unless some are named."""
    if name != "probing":
        file = {"clustering": CLUSTERING_RESULTS, "retrieval": RETRIEVAL_RESULTS}[name]
        return [where.clust_path / file]
    if probes is None:
        return sorted(where.probe_path.glob(probe_results_name("*")))
    return [where.probe_path / probe_results_name(probe) for probe in probes]


def _results(
    name: str, paths: Mapping[str, ResultPaths], kind: str, probes: Sequence[str]
) -> dict[str, list[Result]]:
    """Stored results by model, of this kind of label only; what is missing is logged."""
    results: dict[str, list[Result]] = {}
    for model, where in paths.items():
        for path in _files(name, where, probes):
            result = read_result(path)
            if result is None:
                logger.warning("%s: there is no %s; it is left out.", model, path.name)
            elif result["label_column"] != LABEL_PREFIX + kind:
                logger.warning(
                    "%s: it is about %s, not about %s; it is left out.",
                    path, result["label_column"], LABEL_PREFIX + kind,
                )  # fmt: skip
            else:
                results.setdefault(model, []).append(result)
    return results


def _by_probe(results: Mapping[str, Sequence[Result]], probes: Sequence[str]) -> list[Result]:
    """Results of all models, in the order of the probes if that is given."""
    every = [result for mine in results.values() for result in mine]
    return sorted(every, key=lambda result: probes.index(result["probe"])) if probes else every


def _read(name: str, where: ResultPaths) -> list[Result]:
    results = map(read_result, _files(name, where))
    return [result for result in results if result is not None]


def _usable(
    name: str, models: Mapping[str, list[Result]], kind: str, missing: dict[str, str]
) -> Iterator[tuple[str, list[Result]]]:
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
                table = _single_table(name, {model: mine})
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                logger.warning("%s, %s: %s (%r).", model, name, _DAMAGED, error)
                missing[model] = _DAMAGED
                continue
            if table.empty:
                missing[model] = "there were no labels to compare it with"
            else:
                yield model, mine


def _table(
    name: str,
    results: Mapping[str, Sequence[Result]],
    paths: Mapping[str, ResultPaths],
    probes: Sequence[str] = (),
) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """Table of a task, with ``notes`` and ``missing`` in its attributes, and tables beside it."""
    if name != "probing":
        compare = _retrieval if name == "retrieval" else _clustering
        return compare({model: mine[0] for model, mine in results.items()}, paths)
    every = _by_probe(results, probes)
    tested = [
        read_tested(paths[r["model"]].probe_path / test_scores_name(r["probe"]), r) for r in every
    ]
    shared = on_shared_ground(every, tested)
    table = probing_table(shared.results)
    tables = {"probing_per_class": per_class_table(shared.results)}
    pairs = paired_table(shared)
    if pairs is not None:
        tables["probing_pairs"] = pairs
        names = [f"{m} ({p})" for m, p in zip(table["model"], table["probe"], strict=True)]
        letter = letters(pairs, names)
        table.insert(1, "letters", [letter[name] for name in names])
    if not shared.rankable and not table.empty:
        table = _without_ranks(table, ["model", "probe"])
    left_out = [f"{model} is left out: {why}." for model, why in shared.missing.items()]
    few = [] if table.empty else _few(table, "test_windows", "test_recordings")
    table.attrs = {"notes": left_out + shared.notes + few, "missing": shared.missing}
    return table, tables


def _few(table: pd.DataFrame, windows: str, recordings: str) -> list[str]:
    """Note on scores that rest on too few recordings for intervals."""
    numbers = table[recordings].dropna()
    if numbers.empty or numbers.min() >= FEWEST_UNITS:
        return []
    least, most = int(table[windows].min()), int(table[windows].max())
    n = str(least) if least == most else f"{least} to {most}"
    return [
        f"Scores rest on {n} windows of {counted(int(numbers.min()), 'recording')}, which is too "
        f"few to say which model is better: even the highest score may be chance. Annotate more "
        f"recordings; from {FEWEST_UNITS} there are intervals."
    ]


def _retrieval(
    results: Mapping[str, Result], paths: Mapping[str, ResultPaths]
) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """Models by the same labels and recordings, as far as their neighbours are stored."""
    windows = {
        model: read_retrieved(paths[model].clust_path / RETRIEVAL_NEIGHBOURS, result)
        for model, result in results.items()
    }
    known = {model: each for model, each in windows.items() if each is not None}
    if len(known) < len(results) or len(known) < 2:
        return retrieval_table(results), {}
    unit = next(iter(results.values())).get("unit", "recording")
    parts, restricted, notes = share(known)
    if restricted and parts:
        results = {m: _retrieved(result, parts[m], unit) for m, result in results.items()}
    table = retrieval_table(results)
    if not parts:
        table = _without_ranks(table, ["model"])
    tables = {}
    if parts and (pairs := pairs_of(parts, "neighbour_precision", unit)) is not None:
        tables["retrieval_pairs"] = pairs
        letter = letters(pairs, table["model"].tolist(), "neighbour_precision")
        table.insert(1, "letters", [letter[model] for model in table["model"]])
    table.attrs = {"notes": notes + _few(table, "n_windows", "n_recordings"), "missing": {}}
    return table, tables


def _retrieved(result: Result, windows: RetrievedWindows, unit: str) -> dict[str, Any]:
    """Result of some of the windows; similarities of all pairs are not stored."""
    overall, intervals = shared_scores(windows, unit)
    return {
        **result,
        "overall": {**overall, "same_label_auroc": None},
        "intervals": intervals,
        "per_class": {name: result["per_class"][name] for name in windows.classes},
        "n_windows": len(windows.recordings),
        "n_recordings": len(set(windows.recordings)),
    }


def _clustering(
    results: Mapping[str, Result], paths: Mapping[str, ResultPaths]
) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """Agreement with annotations for the same labels and recordings, and its differences."""
    import pandas as pd

    of_truth = {
        model: kinds
        for model, result in results.items()
        if (kinds := {k for k, v in result["agreement"].items() if "ground_truth" in v})
    }
    stored = {
        model: read_clusters(
            paths[model].clust_path / LABELLED_CLUSTERS,
            results[model]["agreement"][min(kinds)]["ground_truth"]["n_windows"],
        )
        for model, kinds in of_truth.items()
    }
    table, tables, notes, pairs = clustering_table(results), {}, [], []
    without = sorted(model for model, each in stored.items() if not each)
    stored = {model: each for model, each in stored.items() if each}
    if without and len(of_truth) > 1:
        notes.append(
            f"{', '.join(without)}: the clusters of labelled windows are not stored, so that "
            f"labels and recordings may differ from those of the others; evaluate again with "
            f"overwrite=True."
        )
    unit = next(iter(results.values())).get("unit", "recording")
    for clustering in sorted({name for each in stored.values() for name in each}):
        windows = {m: each[clustering] for m, each in stored.items() if clustering in each}
        if len(windows) < 2:
            continue
        parts, restricted, told = share(windows, "comparison of clusterings")
        notes += [note for note in told if note not in notes]
        rows = (table["label"] == "ground_truth") & (table["clustering"] == clustering)
        for model in windows if restricted else ():
            here = rows & (table["model"] == model)
            if not parts:  # refused: scores about different labels are not put side by side
                table = table[~here]
                rows = rows[~here]
                continue
            part = parts[model]
            overall, intervals = shared_scores(part, unit, low=-1.0)
            for metric, value in overall.items():
                low, high = intervals[metric] or (float("nan"), float("nan"))
                table.loc[here, [metric, f"{metric}_low", f"{metric}_high"]] = value, low, high
            table.loc[here, ["homogeneity", "completeness"]] = float("nan")
            table.loc[here, ["n_windows", "n_labels"]] = len(part.labels), len(part.compared)
        if parts and (of_two := pairs_of(parts, "AMI", unit)) is not None:
            pairs.append(of_two.assign(clustering=clustering))
    if pairs:
        tables["clustering_pairs"] = pd.concat(pairs, ignore_index=True)
    table = _sorted_clusterings(table)
    table.attrs = {"notes": notes, "missing": {}}
    return table, tables


def _classifiers(paths: Mapping[str, ResultPaths]) -> dict[str, pd.DataFrame]:
    """The models' own classifiers that were benchmarked, if there are two: scores and pairs."""
    results: dict[str, Result] = {}
    for model, where in paths.items():
        if (result := read_result(where.preds_path / BENCHMARK_RESULTS)) is not None:
            results[model] = result
    protocols = Counter(result["protocol"] for result in results.values())
    protocol = protocols.most_common(1)[0][0] if protocols else None
    stored = {
        model: read_benchmarked(paths[model].preds_path / BENCHMARK_WINDOWS, result)
        for model, result in results.items()
        if result["protocol"] == protocol
    }
    known = {model: each for model, each in stored.items() if each is not None}
    if len(known) < 2:
        return {}
    parts, _, notes = share(known, lacks="has no such class, or no annotation of it")
    if rest := sorted(results.keys() - known.keys()):
        notes.append(f"{', '.join(rest)}: left out; benchmark it again with protocol={protocol}.")
    unit = next(iter(results.values())).get("unit", "recording")
    rows = []
    for model, windows in (parts or known).items():
        overall, intervals = shared_scores(windows, unit)
        about = {"overall": overall, "intervals": intervals}
        rows.append({
            "model": model,
            **_with_intervals(about, _CLASSIFIER_METRICS),
            "threshold": windows.threshold,
            "classes": len(windows.classes),
            "n_windows": len(windows.recordings),
            "n_recordings": len(set(windows.recordings)),
        })  # fmt: skip
    metric = _CLASSIFIER_METRICS[0]
    table = _ranked(rows, metric)
    tables = {"classifiers": table if parts else _without_ranks(table, ["model"])}
    if parts and (pairs := pairs_of(parts, metric, unit)) is not None:
        tables["classifiers_pairs"] = pairs
        letter = letters(pairs, table["model"].tolist(), metric)
        table.insert(1, "letters", [letter[model] for model in table["model"]])
    tables["classifiers"].attrs = {"notes": notes + _few(table, "n_windows", "n_recordings")}
    return tables


def _single_table(name: str, results: Mapping[str, Sequence[Result]]) -> pd.DataFrame:
    if name == "probing":
        return probing_table([result for mine in results.values() for result in mine])
    single = clustering_table if name == "clustering" else retrieval_table
    return single({model: mine[0] for model, mine in results.items()})


# ---------------------------------------------------------------------- tables


def probing_table(results: Iterable[Result]) -> pd.DataFrame:
    """One row per model and probe, the best macro F1 first."""
    rows = []
    for result in results:
        row: dict[str, Any] = {"model": result["model"], "probe": result["probe"]}
        row.update(_with_intervals(result, _PROBING_METRICS))
        split = result["split"]
        row["classes"] = len(result["classes"])
        row["test_windows"] = split["windows"]["test"]
        row["test_recordings"] = (split["recordings"] or {}).get("test")
        row["split"] = split["id"]
        rows.append(row)
    return _ranked(rows, "f1_macro")


def per_class_table(results: Iterable[Result]) -> pd.DataFrame:
    """One row per model, probe and class."""
    import pandas as pd

    return pd.DataFrame(
        {
            "model": result["model"],
            "probe": result["probe"],
            "class": name,
            **{key: value for key, value in values.items() if not key.endswith("interval")},
        }
        for result in results
        for name, values in result.get("per_class", {}).items()
    )


def clustering_table(results: Mapping[str, Result]) -> pd.DataFrame:
    """One row per model, clustering and kind of label, the best agreement with truth first."""
    import pandas as pd

    rows = [
        {
            "model": model,
            "clustering": name,
            "label": kind,
            **scores,
            **result["clusters"][name],
            "silhouette": (about := result.get("silhouette", {}).get(name, {})).get("score"),
            **dict(
                zip(
                    ("silhouette_low", "silhouette_high"),
                    about.get("interval") or (None, None),
                    strict=True,
                )
            ),
        }
        for model, result in results.items()
        for name, kinds in result["agreement"].items()
        for kind, scores in kinds.items()
    ]
    return _sorted_clusterings(pd.DataFrame(rows))


def _sorted_clusterings(table: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    if table.empty:
        return table
    order = (table["label"] != "ground_truth").rename("other")
    keys = pd.concat([order, table["label"], -table["AMI"]], axis=1)
    return table.loc[keys.sort_values(["other", "label", "AMI"]).index].reset_index(drop=True)


def retrieval_table(results: Mapping[str, Result]) -> pd.DataFrame:
    """One row per model, the best neighbour precision first, on the labels that all share."""
    metrics = ("neighbour_precision", "neighbour_precision_chance", "same_label_auroc")
    of_labels = {
        model: {
            n
            for n, v in result.get("per_class", {}).items()
            if v["neighbour_precision"] is not None
        }
        for model, result in results.items()
    }
    every = set().union(*of_labels.values())
    shared = set.intersection(*of_labels.values()) if of_labels else set()
    notes = []
    rows = []
    for model, result in results.items():
        values = _with_intervals(result, metrics)
        if shared != every:
            # Only the means by label can be had of fewer labels.
            values |= dict.fromkeys(values, float("nan"))
            for metric, key in (("neighbour_precision", "neighbour_precision"),
                                ("neighbour_precision_chance", "chance")):  # fmt: skip
                known = [result["per_class"][name][key] for name in sorted(shared)]
                values[metric] = sum(known) / len(known) if known else float("nan")
        rows.append(
            {
                "model": model,
                **values,
                "n_neighbors": result["n_neighbors"],
                "n_windows": result["n_windows"],
                "n_recordings": result["n_recordings"],
            }
        )
    for name in sorted(every - shared):
        lacking = ", ".join(sorted(m for m, names in of_labels.items() if name not in names))
        notes.append(f"{name} is left out of the ranking: {lacking} has it in too few recordings.")
    if len({result["n_recordings"] for result in results.values()}) > 1:
        notes.append("The models were not compared on the same number of recordings.")
    table = _ranked(rows, "neighbour_precision")
    if shared != every and len(shared) < _FEWEST_LABELS:
        notes.append(f"No ranking: the models share {counted(len(shared), 'label')}.")
        table = _without_ranks(table, ["model"])
    notes += _few(table, "n_windows", "n_recordings")
    table.attrs = {"notes": notes, "missing": {}}
    return table


def _with_intervals(result: Result, metrics: Sequence[str]) -> dict[str, float]:
    """Columns of a table; NaN where a metric is not defined."""
    row: dict[str, float] = {}
    for metric in metrics:
        value = result["overall"].get(metric)
        row[metric] = float("nan") if value is None else value
        bounds = result["intervals"].get(metric) or [float("nan")] * 2
        row[f"{metric}_low"], row[f"{metric}_high"] = bounds
    return row


def _ranked(rows: list[dict[str, Any]], metric: str) -> pd.DataFrame:
    import pandas as pd

    if not rows:
        return pd.DataFrame()
    table = pd.DataFrame(rows)
    table = table.sort_values(metric, ascending=False, kind="stable").reset_index(drop=True)
    table.insert(0, "rank", table[metric].rank(ascending=False, method="min").astype("Int64"))
    return table


def _without_ranks(table: pd.DataFrame, order: list[str]) -> pd.DataFrame:
    """The same rows where nobody is better than another one."""
    import pandas as pd

    unknown = pd.array([pd.NA] * len(table), dtype="Int64")
    return table.sort_values(order, ignore_index=True).assign(rank=unknown)


# ---------------------------------------------------------------------- maps


def read_maps(paths: Mapping[str, ResultPaths], reducer: str, kind: str) -> dict[str, pd.DataFrame]:
    """Newest map of every model that has one: columns x, y, label (missing for none) and far."""
    maps = {}
    for model, folders in paths.items():
        dataset = folders.dataset
        newest = next(stored_maps(folders.dim_reduc_parent_dir, reducer, dataset, model), None)
        if newest is None:
            logger.info("%s: there is no %s map of %s.", model, reducer, dataset)
            continue
        maps[model] = _labelled(newest.read(), folders, kind)
    return maps


def _labelled(table: pd.DataFrame, folders: ResultPaths, kind: str) -> pd.DataFrame:
    import pandas as pd

    truth = folders.labels_path / ground_truth_name(file_part(kind), "csv")
    table["label"] = None
    if truth.is_file():
        try:
            # A label, or a recording, may be called NA or 01.
            labels = pd.read_csv(truth, dtype=str, keep_default_na=False)
            start = pd.to_numeric(labels["start"])
            # Times went through a decimal text; a millisecond is far below any hop.
            keys = zip(labels["audiofilename"], (start * 1000).round(), strict=True)
            # The first label of a window covers most of it.
            pairs = list(zip(keys, labels[LABEL_PREFIX + kind], strict=True))
            label_of = dict(reversed(pairs))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ResultsError(
                f"{truth}: this ground truth cannot be read ({error}); delete it to have it made "
                f"again."
            ) from None
        windows = zip(table["audiofilename"], (table["start"] * 1000).round(), strict=True)
        table["label"] = [label_of.get(window) or None for window in windows]
    table["far"] = table.get(IS_FAR, False)
    return table[["x", "y", "label", "far"]]


def draw_map(paths: ResultPaths, reducer: str, options: Options) -> Path | None:
    """Write ``plots/embeddings.png``, the newest map of a model, unless it is there already.

    Its colours are the annotated labels, where an evaluation has found some, else the recordings'
    folders.  Returns the figure; None if there is no map.
    """
    model, kind = paths.labels_path.parent.name, label_kind(options.label_column)
    stored_map = next(stored_maps(paths.dim_reduc_parent_dir, reducer, paths.dataset, model), None)
    if stored_map is None:
        return None
    figure = paths.plot_path / MAP_FIGURE
    truth = paths.labels_path / ground_truth_name(file_part(kind), "csv")
    read = [file_hash(path) for path in (stored_map.table_path, truth) if path.is_file()]
    content = [stored_map.folder.name, kind, options.max_nr_categories, read]
    fingerprint = fingerprint_of(content)
    about = paths.plot_path / MAP_FIGURE_WORDS
    if figure.is_file() and read_result(about, fingerprint) is not None:
        return figure
    windows = stored_map.read()
    table = _labelled(windows, paths, kind)
    if table["label"].isna().all():
        folders = windows["audiofilename"].astype(str).str.rpartition("/")[0]
        table["label"], kind = folders.where(folders != "", folder_name(paths.audio_dir)), "folder"
    # Whoever only imports this module need not wait for matplotlib.
    from bacpipe.plotting import comparison as figures
    from bacpipe.plotting.style import save_figure

    drawn = figures.maps({f"{model}, {reducer}": table}, kind, options.max_nr_categories)
    save_figure(drawn, figure)
    write_result(about, {"map": stored_map.folder.name, "colours": kind}, fingerprint)
    return figure
