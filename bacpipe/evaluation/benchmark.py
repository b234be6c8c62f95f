"""Benchmark: the classifier that comes with a model, against annotations.

Stored predictions are cut at a threshold, which threshold-free metrics cannot do with, and the
scores of all classes would not fit into memory.  So the scores of the classes that matter are
computed again, from stored embeddings where the model allows it, else from the recordings, and
kept in ``predictions/benchmark_scores.parquet``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bacpipe.annotations.table import (
    length_in_header,
    long_enough,
    read_annotations,
    require_label_column,
)
from bacpipe.errors import AnnotationsError, EvaluationError, ResultsError, counted
from bacpipe.evaluation.benchmarked_windows import BenchmarkedWindows, write_benchmarked
from bacpipe.evaluation.events import evaluate_events
from bacpipe.evaluation.metrics import (
    accuracy_replicates,
    best_threshold,
    cross_fitted_f1,
    evaluate_scores,
    group_by,
    leave_out,
    number,
    precision_threshold,
    score_replicates,
    summarise,
)
from bacpipe.evaluation.segments import BIRDSET_SECONDS, Segments
from bacpipe.evaluation.species_names import Match, known_species, match_names, read_label_map
from bacpipe.evaluation.units import NamedSites, named_sites, units_left_out, units_of
from bacpipe.inference.pipeline import run
from bacpipe.inference.report import RunReport
from bacpipe.labels.ground_truth import find_overlaps, labelled_intervals
from bacpipe.labels.model_windows import ModelWindows, model_windows
from bacpipe.models.zoo import CARDS, canonical_name
from bacpipe.store.class_list import ClassList
from bacpipe.store.detections import Intervals, merge_intervals
from bacpipe.store.embedding_set import read_embeddings
from bacpipe.store.files import write_csv
from bacpipe.store.fingerprints import (
    fingerprint_of,
    read_result_table,
    write_result,
    write_result_table,
)
from bacpipe.store.layout import (
    BENCHMARK_CURVES,
    BENCHMARK_FIGURE,
    BENCHMARK_RELIABILITY,
    BENCHMARK_RESULTS,
    BENCHMARK_SCORES,
    BENCHMARK_TABLE,
    BENCHMARK_WINDOWS,
)
from bacpipe.store.loader import Loader
from bacpipe.store.plan import Source, StreamEnd, look_at

if TYPE_CHECKING:
    import pandas as pd

    from bacpipe.embedder import Embedder

logger = logging.getLogger(__name__)

_CHUNK = 1024
_ROUNDING = 1e-6  # seconds; the ends of windows come from divisions
_ARRAYS = ("ground_truth", "predictions", "scores", "ignored")
_PRINTED = {
    "precision": "precision", "recall": "recall", "F1": "f1", "best F1": "best_f1",
    "at": "best_threshold", "AP": "average_precision", "AUROC": "roc_auc",
}  # fmt: skip


def benchmark(
    model: str,
    dataset: str | Path,
    annotations_file: str | None = None,
    CustomModel: object = None,
    check_if_already_processed: bool = True,
    **kwargs: object,
) -> dict[str, Any]:
    """Compare a model's own classifier with annotations.

    The recordings are embedded if they are not yet.  Every window counts: what is not annotated
    in it is taken to be absent, so the recordings must be annotated in full.  Windows that an
    annotation only touches, or one that is too short, count neither for nor against its class.  The
    report is printed as well.

    Parameters
    ----------
    model : str
        Name of a model that has a classifier.
    dataset : str or Path
        Folder with the recordings and the annotations.
    annotations_file : str, optional
        Annotation table, relative to `dataset`; ``settings.annotations_filename`` unless given.
    CustomModel : class or object, optional
        A model of your own; see `ModelBaseClass`.
    check_if_already_processed : bool
        False computes the embeddings anew.
    **kwargs
        Any key of the configuration; classifier_threshold is the threshold of the report;
        annotations_filename, label_column, label_map, min_annotation_length,
        annotation_overlap, split, protocol and wanted_precision matter here.

    Returns
    -------
    dict
        ``report``: precision, recall, F1 and support by class and on average, at the threshold,
        as `sklearn.metrics.classification_report` returns it.
        ``ground_truth``, ``predictions`` (bool) and ``scores`` (float32), all of shape (windows,
        classes found in the annotations).
        ``ignored``: of the same shape, where a class is neither expected nor wrong.
        ``classes``: name of each of their columns.
        ``dropped``: number of annotations by annotated name that are shorter than
        min_annotation_length.
        ``missing``: annotated names that are no class of the model, or might be several.
        ``matching``: for each annotated name the class, how it was found ('identical',
        'spelling', 'scientific name', 'code', 'synonym', 'ambiguous', 'missing'), the candidates
        and the scientific name.
        ``overall``, ``intervals``, ``per_class``: metrics at the threshold and, independent of
        it, average precision and ROC-AUC, with 95 % intervals over recordings; per class also
        the ``best_threshold``, which has the best F1 on these data, and ``best_f1``, the F1 of
        such thresholds on recordings that they were not chosen on.
        ``events``: precision, recall and F1 of events, by three ways to match them; see
        `bacpipe.evaluation.events`.  ``per_site``: metrics by site.
        With ``protocol="birdset"`` segments of 5 seconds count instead of windows (the highest
        score of their windows; every annotation that touches one is in it), and
        ``overall["average_precision_macro"]``, ``["roc_auc_macro"]`` and ``["top_1_accuracy"]``
        are BirdSet's cmAP, AUROC and T1-Acc.  ``threshold`` and ``notes``.

        The scores are stored, so that `cross_model_evaluation` compares the classifiers of all
        models that were benchmarked, in pairs.

    Raises
    ------
    EvaluationError
        If the model has no classifier, or none of the annotated names is one of its classes.
    AnnotationsError
        If the annotations are missing or cannot be understood.

    Examples
    --------
    >>> import bacpipe
    >>> result = bacpipe.benchmark("birdnet", "recordings", "birds.csv")
    <BLANKLINE>
    birdnet, threshold 0.5
    ...
    >>> result["overall"]["average_precision_macro"]
    1.0
    >>> result["scores"].shape == (153, len(result["classes"]))
    True
    """
    model = canonical_name(model)
    if CustomModel is None and model in CARDS and not CARDS[model].is_classifier:
        able = ", ".join(name for name, card in CARDS.items() if card.is_classifier)
        raise EvaluationError(
            f"{model} has no classifier that could be benchmarked; models that do are {able}."
        )
    if annotations_file is not None:
        kwargs["annotations_filename"] = annotations_file
    loader, table, column = _open(model, dataset, check_if_already_processed, kwargs)
    embedder = _embed(loader, CustomModel)
    windows = model_windows(loader)
    names, classes = sorted(set(table[column])), embedder.classifier.classes
    scientific_names = embedder.loaded_model.scientific_names
    model_codes = embedder.loaded_model.codes
    species = known_species(Path(loader.options.model_base_path))
    label_map = read_label_map(loader.options.label_map, loader.audio_dir)
    matches = match_names(names, classes, scientific_names, species, model_codes, label_map)
    columns = sorted({match.column for match in matches if match.column is not None})
    if not columns:
        raise EvaluationError(
            f"{model}: none of the {len(names)} annotated names ({', '.join(names[:5])}"
            f"{', …' if len(names) > 5 else ''}) is one of its "
            f"{counted(len(classes), 'class', 'classes')}; annotate "
            f"with their common, scientific or eBird names (classes are such as "
            f"{', '.join(classes[:3])})."
        )
    options = loader.options
    overlap, shortest = options.annotation_overlap, options.min_annotation_length
    long = long_enough(table, shortest)
    scores = class_scores(embedder, loader, columns)
    detected = _events(windows, scores >= options.classifier_threshold)
    counted_windows: ModelWindows | Segments = windows
    if options.protocol == "birdset":
        counted_windows = Segments(windows, BIRDSET_SECONDS)
        scores, overlap = counted_windows.highest(scores), 0.0
    truth = _presence(counted_windows, long, column, matches, columns, overlap)
    ignored = _presence(counted_windows, table, column, matches, columns, 0) & ~truth
    names_of_classes = [classes[column] for column in columns]
    sites = named_sites(loader, windows.recordings)
    result = _evaluate(loader, counted_windows, truth, ignored, scores, names_of_classes, sites)
    result["events"] = _evaluate_events(
        loader, windows, detected, _annotated(long, column, matches, columns),
        _annotated(table.loc[table.index.difference(long.index)], column, matches, columns),
        names_of_classes, sites,
    )  # fmt: skip
    short = table.loc[table.index.difference(long.index), column]
    result["dropped"] = {str(name): int(n) for name, n in short.value_counts().items()}
    listed = ClassList.of_model(classes, scientific_names, model_codes)
    for name, values in result["per_class"].items():
        values["scientific_name"] = listed.of(name).scientific_name
    result["matching"] = [
        {
            **asdict(match),
            "class": None if match.column is None else classes[match.column],
            "scientific_name": ""
            if match.column is None
            else listed.of(classes[match.column]).scientific_name,
        }
        for match in matches
    ]
    result["missing"] = [match.annotation for match in matches if match.column is None]
    result["notes"] += _notes(matches, table, column, windows, result["dropped"], shortest)
    _save(loader, result)
    write_benchmarked(
        loader.paths.preds_path / BENCHMARK_WINDOWS,
        BenchmarkedWindows(
            _names_of_species(result["per_class"]), truth, ignored, scores,
            np.repeat(np.array(windows.recordings, dtype=object), counted_windows.counts),
            options.classifier_threshold, sites,
        ),
        loader.embeddings_state,
    )  # fmt: skip
    _show(result)
    return result


def _names_of_species(per_class: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """Scientific names of classes, where they are known and mean one class alone."""
    wanted = {name: str(about["scientific_name"]) for name, about in per_class.items()}
    known = list(wanted.values())
    return tuple(name if not s or known.count(s) > 1 else s for name, s in wanted.items())


def _open(
    model: str, dataset: str | Path, check_if_already_processed: bool, kwargs: Mapping[str, Any]
) -> tuple[Loader, pd.DataFrame, str]:
    """Data set and annotations; errors in these come before hours of computing."""
    loader = Loader(
        dataset,
        model,
        check_if_combination_exists=check_if_already_processed,
        use_folder_structure=True,
        **kwargs,
    )
    names = [file.relative_to(loader.audio_dir).as_posix() for file in loader.files]
    source = loader.options.annotations_filename
    table = read_annotations(loader.audio_dir / source, names, length_in_header(loader.audio_dir))
    column = require_label_column(table, loader.options.label_column, source=source)
    table = table[["audiofilename", "start", "end", column]].dropna().reset_index(drop=True)
    if long_enough(table, loader.options.min_annotation_length).empty:
        raise AnnotationsError(
            f"{source}: no annotation with a {column!r} is as long as min_annotation_length="
            f"{loader.options.min_annotation_length} seconds."
        )
    return loader, table, column


def _embed(loader: Loader, custom: object) -> Embedder:
    # Mistakes in the annotations are told without waiting for it.
    from bacpipe.embedder import Embedder

    embedder = Embedder(str(loader.model_name), loader, CustomModel=custom)
    if not embedder.classifier.classes:
        raise EvaluationError(
            f"{loader.model_name} has no classifier that could be benchmarked; its attribute "
            f"'classes' is empty."
        )
    if loader.options.avoid_pipelined_gpu_inference:
        embedder.run_inference_pipeline_sequentially()
    else:
        embedder.run_inference_pipeline_using_multithreading()
    return embedder


def _presence(
    windows: ModelWindows | Segments,
    table: pd.DataFrame,
    column: str,
    matches: Sequence[Match],
    columns: Sequence[int],
    overlap: float,
) -> np.ndarray:
    """Bool array of shape (windows, columns): which class is annotated in which window."""
    annotated = _annotated(table, column, matches, columns)
    overlaps, _ = find_overlaps(windows, annotated, overlap)
    presence = np.zeros((len(windows), len(columns)), dtype=bool)
    presence[overlaps.window, overlaps.label] = True
    return presence


def _annotated(
    table: pd.DataFrame, column: str, matches: Sequence[Match], columns: Sequence[int]
) -> dict[str, Intervals]:
    """Annotations by recording, labelled with the place of their class among the columns."""
    # Two annotated names of one class are one label.
    place = {m.annotation: columns.index(m.column) for m in matches if m.column is not None}
    table = table[table[column].isin(set(place))]
    return labelled_intervals(table, table[column].map(place).to_numpy(np.int64))


def _events(windows: ModelWindows, predicted: np.ndarray) -> dict[str, Intervals]:
    """Windows that are above the threshold, joined where they touch, by recording."""
    start, end = windows.times
    events = {}
    for name, rows in windows.slices():
        window, label = np.nonzero(predicted[rows])
        window += rows.start
        intervals = Intervals(start[window], end[window], label.astype(np.int64))
        events[name] = merge_intervals(intervals, _ROUNDING)[0]
    return events


def _evaluate_events(
    loader: Loader,
    windows: ModelWindows,
    detected: Mapping[str, Intervals],
    annotated: Mapping[str, Intervals],
    ignored: Mapping[str, Intervals],
    names: Sequence[str],
    sites: NamedSites,
) -> dict[str, Any]:
    options = loader.options
    recordings = np.array(windows.recordings, dtype=object)
    joined = {name: merge_intervals(each)[0] for name, each in annotated.items()}
    return evaluate_events(
        detected, joined, ignored, windows.recordings, names,
        units_left_out(recordings, len(recordings), options.split, sites),
        iou=options.event_iou, tolerance=options.event_tolerance,
        samples=options.bootstrap_samples,
    )  # fmt: skip


def _evaluate(
    loader: Loader,
    windows: ModelWindows | Segments,
    truth: np.ndarray,
    ignored: np.ndarray,
    scores: np.ndarray,
    names: Sequence[str],
    named: NamedSites,
) -> dict[str, Any]:
    options = loader.options
    predicted = scores >= options.classifier_threshold
    recordings = np.repeat(np.array(windows.recordings, dtype=object), windows.counts)
    groups = units_left_out(recordings, len(truth), options.split, named)
    result = evaluate_scores(
        truth,
        predicted,
        scores,
        names,
        groups,
        samples=options.bootstrap_samples,
        ignored=ignored,
    )
    fitted = []
    for i, name in enumerate(names):
        use = ~ignored[:, i]
        positive, score = truth[use, i], scores[use, i]
        fitted.append(cross_fitted_f1(positive, score, groups._replace(code=groups.code[use])))
        result["per_class"][name]["best_f1"] = number(fitted[-1])
        result["per_class"][name]["best_threshold"] = number(best_threshold(positive, score)[0])
        threshold = precision_threshold(positive, score, options.wanted_precision)
        result["per_class"][name]["threshold_at_precision"] = number(threshold)
    weights = leave_out(groups, options.bootstrap_samples)
    top = summarise(accuracy_replicates(truth, scores, groups, weights), len(truth))
    for key in ("overall", "intervals"):
        result[key] |= {m: top[key][m] for m in ("top_1_accuracy", "top_5_accuracy")}
    sites = units_of(recordings, "site", named)
    result["per_site"] = {
        site: _of_site(truth, predicted, scores, ignored, sites == site)
        for site in np.unique(sites).tolist()
    }
    defined = [f1 for f1 in fitted if np.isfinite(f1)]
    result["overall"]["best_f1_macro"] = float(np.mean(defined)) if defined else None
    result["notes"].append(
        "best_threshold was chosen on these data; best_f1 is what such a threshold reaches on "
        "recordings that it was not chosen on."
    )
    return {
        "model": str(loader.model_name),
        "protocol": options.protocol,
        "unit": groups.unit,
        "threshold": options.classifier_threshold,
        "wanted_precision": options.wanted_precision,
        "report": _report(truth, predicted & ~ignored, names),
        "ground_truth": truth,
        "predictions": predicted,
        "scores": scores,
        "ignored": ignored,
        "classes": dict(enumerate(names)),
        **result,
    }


def _of_site(
    truth: np.ndarray,
    predicted: np.ndarray,
    scores: np.ndarray,
    ignored: np.ndarray,
    here: np.ndarray,
) -> dict[str, Any]:
    n = int(here.sum())
    overall, _ = score_replicates(
        truth[here], predicted[here], scores[here], group_by(None, n), np.ones((1, n)),
        ignored[here],
    )  # fmt: skip
    return {"windows": n, **{metric: number(values[0]) for metric, values in overall.items()}}


def _report(truth: np.ndarray, predicted: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    from sklearn.metrics import classification_report

    labels = None
    if len(names) == 1:  # scikit-learn would take one column for two classes
        truth, predicted, labels = truth[:, 0], predicted[:, 0], [True]
    return dict(
        classification_report(
            truth, predicted, labels=labels, target_names=names, output_dict=True, zero_division=0
        )
    )


def _notes(
    matches: Sequence[Match],
    table: pd.DataFrame,
    column: str,
    windows: ModelWindows,
    dropped: Mapping[str, int],
    shortest: float,
) -> list[str]:
    notes = []
    if dropped:
        counts = table[column].value_counts()
        only = [name for name, n in dropped.items() if n == counts[name]]
        parts = ", ".join(f"{name}: {n}" for name, n in dropped.items())
        notes.append(
            f"{counted(sum(dropped.values()), 'annotation')} shorter than "
            f"min_annotation_length={shortest:g} s count neither for nor against a class ({parts})"
            + (f"; nothing else is annotated of {', '.join(only)}." if only else ".")
        )
        logger.warning("%s", notes[-1])
    for how, text in (
        ("missing", "no class of the model, so left out"),
        ("ambiguous", "maybe several classes of the model, so left out"),
    ):
        names = [match.annotation for match in matches if match.how == how]
        if names:
            n = int(table[column].isin(names).sum())
            notes.append(
                f"{counted(len(names), 'annotated name')} ({counted(n, 'annotation')}), {text}: "
                f"{', '.join(names)}."
            )
    silent = set(windows.recordings) - set(table["audiofilename"])
    if silent:
        notes.append(
            f"{len(silent)} of {len(windows.recordings)} recordings have no annotations; all their "
            f"windows count as empty."
        )
    return notes


def _save(loader: Loader, result: Mapping[str, Any]) -> None:
    import pandas as pd

    # Whoever only imports this module need not wait for matplotlib.
    from bacpipe.plotting.classifiers import class_benchmark, precision_recall, reliability
    from bacpipe.plotting.style import save_figure

    folder = loader.paths.preds_path
    words = {key: value for key, value in result.items() if key not in _ARRAYS}
    write_result(folder / BENCHMARK_RESULTS, words, loader.embeddings_state)
    rows = [
        {"class": name, **{k: v for k, v in values.items() if not k.endswith("interval")}}
        for name, values in result["per_class"].items()
    ]
    write_csv(folder / BENCHMARK_TABLE, pd.DataFrame(rows))
    plots, windows = loader.paths.plot_path, (result["ground_truth"], result["scores"])
    save_figure(class_benchmark(result), plots / BENCHMARK_FIGURE)
    for name, draw in (
        (BENCHMARK_CURVES, precision_recall),
        (BENCHMARK_RELIABILITY, reliability),
    ):
        save_figure(draw(result, *windows, result["ignored"]), plots / name)


def _show(result: Mapping[str, Any]) -> None:
    """Print the report, for whoever called `benchmark`."""
    width = max(len(name) for name in [*result["per_class"], "average"]) + 2
    lines = [" " * width + "".join(f"{title:>11}" for title in [*_PRINTED, "windows"])]
    for name, row in result["per_class"].items():
        cells = "".join(f"{_cell(row[key]):>11}" for key in _PRINTED.values())
        lines.append(f"{name:<{width}}{cells}{row['support']:>11}")
    # The best thresholds have no average.
    averages = {**result["overall"], "best_threshold_macro": ""}
    cells = "".join(f"{_cell(averages[f'{key}_macro']):>11}" for key in _PRINTED.values())
    lines += ["", f"{'average':<{width}}{cells}"]
    threshold = result["threshold"]
    print(f"\n{result['model']}, threshold {threshold}\n")  # noqa: T201  (the report was asked for)
    lines += ["", *(_event_line(rule) for rule in result["events"].values())]
    top = _cell(result["overall"]["top_1_accuracy"])
    lines.append(f"top-1 accuracy {top} ({result['protocol']})")
    print("\n".join([*lines, "", *result["notes"]]))  # noqa: T201


def _event_line(rule: Mapping[str, Any]) -> str:
    values = ", ".join(
        f"{name} {_cell(rule['overall'][f'{name}_macro'])}"
        for name in ("precision", "recall", "f1")
    )
    return f"events, {rule['rule']}: {values}"


def _cell(value: float | str | None) -> str:
    return "-" if value is None else value if isinstance(value, str) else f"{value:.3f}"


# ---------------------------------------------------------------------- class scores


def class_scores(embedder: Embedder, loader: Loader, columns: Sequence[int]) -> np.ndarray:
    """Scores of some classes, float32 of shape (windows, len(columns)).

    Windows are in the order of ``Loader.embeddings('array')``.

    Raises
    ------
    ResultsError
        If a recording gives another number of windows than when it was embedded.
    """
    import pyarrow as pa

    names = [embedder.classifier.classes[column] for column in columns]
    sensitivity = embedder.options.sensitivity
    content = [loader.embeddings_state, str(loader.embed_dir), list(columns), names, sensitivity]
    fingerprint = fingerprint_of(content)
    path = loader.paths.preds_path / BENCHMARK_SCORES
    if (stored := read_result_table(path, fingerprint)) is not None:
        return np.stack([column.to_numpy() for column in stored[0].columns], axis=1)
    compute = _from_recordings if embedder.loaded_model.one_pass else _from_embeddings
    scores = compute(embedder, loader, columns)
    # Names of classes need not be unique, those of columns must be.
    table = pa.table({f"{i} {name}": scores[:, i] for i, name in enumerate(names)})
    write_result_table(path, table, fingerprint)
    return scores


def _from_embeddings(embedder: Embedder, loader: Loader, columns: Sequence[int]) -> np.ndarray:
    stored = loader.embedding_set
    assert stored is not None
    runner = embedder.runner(scores=True, dense=True)
    parts = [np.zeros((0, len(columns)), np.float32)]
    for entry in loader.entries.values():
        embeddings = read_embeddings(stored, entry, verify=True)
        for first in range(0, len(embeddings), _CHUNK):
            scores = runner.classify(embeddings[first : first + _CHUNK]).scores
            assert scores is not None
            parts.append(scores[:, list(columns)])
    return np.concatenate(parts)


def _from_recordings(embedder: Embedder, loader: Loader, columns: Sequence[int]) -> np.ndarray:
    logger.info(
        "%s: scores of its classes cannot be had from embeddings, so the recordings are run "
        "through the model once more.",
        loader.model_name,
    )
    columns_of = _ChosenColumns(columns)
    runner = embedder.runner(scores=True, dense=True)
    sources = []
    for name, entry in loader.entries.items():
        parts = tuple(entry.parts) if entry.segments_hash is not None else None
        sources.append(look_at(loader.audio_dir / name, loader.audio_dir, parts))
    workload = embedder.workload(runner)
    run(sources, embedder.decode, runner, columns_of, workload, RunReport(str(loader.model_name)))
    return columns_of.scores({name: entry.windows for name, entry in loader.entries.items()})


class _ChosenColumns:
    """Keeps the scores of some classes and forgets the rest."""

    def __init__(self, columns: Sequence[int]) -> None:
        self._columns = list(columns)
        self._parts: dict[str, list[np.ndarray]] = {}

    def add(self, source: Source, embeddings: np.ndarray, predictions: np.ndarray) -> None:
        self._parts.setdefault(source.name, []).append(predictions[:, self._columns])

    def finish(self, source: Source, end: StreamEnd) -> None:
        """Nothing is left to do for the recording."""

    def fail(self, source: Source, reason: str) -> None:
        raise ResultsError(
            f"{reason}; it was embedded before, so the recording has changed since. Run the "
            f"pipeline again."
        )

    def scores(self, windows: dict[str, int]) -> np.ndarray:
        rows = [np.zeros((0, len(self._columns)), np.float32)]
        for name, expected in windows.items():
            parts = self._parts.get(name, [])
            if sum(map(len, parts)) != expected:
                raise ResultsError(
                    f"{name}: {sum(map(len, parts))} windows now, but {expected} when it was "
                    f"embedded; run the pipeline again."
                )
            rows += parts
        return np.concatenate(rows)
