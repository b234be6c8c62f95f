"""Evaluation of models one by one, and of all together."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bacpipe.annotations.table import label_kind
from bacpipe.errors import AnnotationsError, BacpipeError, EvaluationError, counted, unexpected
from bacpipe.evaluation.clustering import evaluate_clusterings
from bacpipe.evaluation.comparison import compare_models
from bacpipe.evaluation.labelled_windows import windows_of_results
from bacpipe.evaluation.probing import evaluate_probe
from bacpipe.evaluation.retrieval import evaluate_retrieval
from bacpipe.labels.default_labels import as_arrays, stored_labels
from bacpipe.labels.ground_truth import GroundTruth, label_rule, stored_ground_truth
from bacpipe.labels.model_windows import model_windows
from bacpipe.models.zoo import canonical_name
from bacpipe.options import Options, make_options
from bacpipe.store.files import remove_temporaries
from bacpipe.store.loader import Loader
from bacpipe.store.lock import exclusive
from bacpipe.user_input import is_there

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)


@dataclass
class EvaluationReport:
    """Results of an evaluation."""

    # For each model what `model_specific_evaluation` returns
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    # What `cross_model_evaluation` returns
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    # One sentence for everything that could not be done
    errors: list[str] = field(default_factory=list)
    folder: Path | None = None  # where the tables and figures across models are

    def __str__(self) -> str:
        lines = []
        for model, results in self.results.items():
            for name, result in results.get("probing", {}).items():
                lines.append(
                    f"{model}, {name} probe: " + _say(result, "f1_macro", "macro F1")
                    + ", " + _say(result, "accuracy", "accuracy") + _tested_on(result)
                )  # fmt: skip
            for name, kinds in results.get("clustering", {}).get("agreement", {}).items():
                if "ground_truth" in kinds:
                    lines.append(f"{model}, {name}: AMI {kinds['ground_truth']['AMI']:.2f}")
            if "retrieval" in results:
                lines.append(
                    f"{model}, retrieval: "
                    + _say(results["retrieval"], "neighbour_precision", "neighbour precision")
                )
        if self.folder is not None:
            lines.append(f"tables and figures across models: {self.folder}")
        return "\n".join(lines)


def _say(result: Mapping[str, Any], metric: str, name: str) -> str:
    value, bounds = result["overall"].get(metric), result["intervals"].get(metric)
    if value is None:
        return f"{name} not defined"
    return f"{name} {value:.2f}" + (f" [{bounds[0]:.2f}, {bounds[1]:.2f}]" if bounds else "")


def _tested_on(result: Mapping[str, Any]) -> str:
    windows, recordings = result["split"]["windows"]["test"], result["split"]["recordings"]
    if not windows:
        return " (not tested: it learnt from everything)"
    of = f" of {counted(recordings['test'], 'recording')}" if recordings else ""
    return f" ({counted(windows, 'test window')}{of})"


def run_evaluations(
    loaders: Mapping[str, Loader], tasks: Sequence[str], options: Options
) -> EvaluationReport:
    """Evaluate models one by one and compare them.

    Tasks are 'probing' and 'clustering', which includes retrieval.  Of the options, ``overwrite``
    False takes stored results whose data and settings have not changed.  What fails is in the
    ``errors`` of the report; the rest goes on.
    """
    report = EvaluationReport()
    if not tasks or not loaders:
        return report
    for name, loader in loaders.items():
        report.results[name] = _evaluate_model(loader, tasks, options, report.errors)
    paths = {name: loader.paths for name, loader in loaders.items()}
    done = [task for task in tasks if any(task in results for results in report.results.values())]
    if done:
        try:
            report.tables = compare_models(paths, done, options, report.results)
            report.folder = next(iter(paths.values())).overview_path
        except BacpipeError as error:
            logger.debug("comparison of models failed: %s", error)
            report.errors.append(f"comparison of models: {error}")
    return report


def model_specific_evaluation(
    loader_dict: Mapping[str, Loader],
    evaluation_task: str | Sequence[str],
    probe_configs: Mapping[str, Any] | None = None,
    models: str | Sequence[str] | None = None,
    dim_reduction_model: bool | str = False,
    **kwargs: object,
) -> dict[str, dict[str, Any]]:
    """Evaluate models one by one.

    Parameters
    ----------
    loader_dict : mapping of str to Loader
        Results of each model.
    evaluation_task : {'probing', 'clustering'} or list of them
        What to do; clustering includes retrieval.
    probe_configs : dict, optional
        Probes to train, each with its parameters; ``settings.probe_configs`` unless given.
    models : str or sequence of str, optional
        Which of the models; all of `loader_dict` unless given.
    dim_reduction_model : bool or str
        Accepted for symmetry; models are evaluated in full dimensions.
    **kwargs
        Any key of the configuration; annotations_filename, label_column,
        default_label_keys, bool_filter_labels, multi_label, probe_configs, clust_configs
        and overwrite matter here, and audio_dir and main_results_dir say where results are.

    Returns
    -------
    dict
        For each model ``probing`` (what `probing_pipeline` returns, by probe), ``clustering``
        (what `clustering_pipeline` returns) and ``retrieval``.  What could not be done is
        missing and logged; the rest goes on.

    Raises
    ------
    SettingsError
        If a task or a setting is impossible.
    EvaluationError
        If there is no loader of a model.

    Examples
    --------
    >>> import bacpipe
    >>> loaders = {"birdnet": bacpipe.Loader("recordings", "birdnet")}
    >>> results = bacpipe.model_specific_evaluation(loaders, "probing",
    ...     bacpipe.settings.probe_configs, ["birdnet"], audio_dir="recordings")
    >>> results["birdnet"]["probing"]["linear"]["overall"]["f1_macro"]
    1.0
    """
    options = make_options(
        **{
            **kwargs,
            **({} if probe_configs is None else {"probe_configs": probe_configs}),
            "evaluation_task": evaluation_task,
            "models": list(loader_dict) if models is None else models,
            "dim_reduction_model": dim_reduction_model,
        }
    )
    loaders = {canonical_name(name): loader for name, loader in loader_dict.items()}
    chosen = [canonical_name(name) for name in options.models]
    missing = [name for name in chosen if name not in loaders]
    if missing:
        raise EvaluationError(
            f"loader_dict has no results of {', '.join(missing)} (it has those of "
            f"{', '.join(loaders) or 'no model'}); run the models first."
        )
    errors: list[str] = []
    results = {
        name: _evaluate_model(loaders[name], options.evaluation_task, options, errors)
        for name in chosen
    }
    for error in errors:
        logger.error("not done: %s", error)
    return results


def _evaluate_model(
    loader: Loader, tasks: Sequence[str], options: Options, errors: list[str]
) -> dict[str, Any]:
    """Evaluate one model, alone; what fails is added to the errors."""
    model, paths = str(loader.model_name), loader.paths

    @contextmanager
    def attempt(what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # what else was asked for is done all the same
            known = isinstance(error, BacpipeError)
            text = str(error) if known else unexpected(model, error, f"{what} failed")
            sentence = text if text.startswith(model) else f"{model}: {text}"
            logger.debug("%s failed: %s", what, sentence)
            errors.append(f"{what}: {sentence}")

    with attempt("evaluation"):
        embeds = loader.embeddings("array")
        with exclusive(paths.labels_path.parent.parent, model):
            remove_temporaries(
                paths.labels_path, paths.clust_path, paths.probe_path, paths.plot_path
            )
            return _do_tasks(loader, embeds, tasks, options, attempt)
    return {}


def _do_tasks(
    loader: Loader,
    embeds: np.ndarray,
    tasks: Sequence[str],
    options: Options,
    attempt: Callable[[str], AbstractContextManager[None]],
) -> dict[str, Any]:
    results: dict[str, Any] = {}
    truth = None
    if "probing" in tasks or is_there(loader.audio_dir / options.annotations_filename):
        with attempt("ground truth"):
            truth = _ground_truth(loader, options)
    else:
        logger.info(
            "%s: clusters are not compared with annotations, of which there are none",
            loader.model_name,
        )
    data = windows_of_results(loader, embeds, truth, label_kind(options.label_column))
    if "probing" in tasks and truth is not None:
        for name in options.probe_configs:
            with attempt(f"{name} probe"):
                result = evaluate_probe(data, name, options, overwrite=options.overwrite)[1]
                results.setdefault("probing", {})[name] = result
    if "clustering" in tasks:
        labels: dict[str, np.ndarray] = {}
        with attempt("default labels"):
            keys = options.default_label_keys
            labels = as_arrays(stored_labels(loader, keys, overwrite=options.overwrite))
        with attempt("clustering"):
            results["clustering"] = evaluate_clusterings(
                data, labels, options, overwrite=options.overwrite
            )
        if truth is not None:
            with attempt("retrieval"):
                results["retrieval"] = evaluate_retrieval(
                    data, options, overwrite=options.overwrite
                )
    return results


def _ground_truth(loader: Loader, options: Options) -> GroundTruth:
    file = options.annotations_filename
    rule = label_rule(
        options,
        label_kind(options.label_column),
        single_label=not options.multi_label,
        filtered=options.bool_filter_labels,
    )
    truth = stored_ground_truth(
        loader, model_windows(loader), rule, file, overwrite=options.overwrite
    )
    if not (truth.labels >= 0).any():
        raise AnnotationsError(
            f"{file}: not one window has a label of the kind {options.label_column!r}; see "
            f"min_annotation_length and annotation_overlap."
        )
    return truth
