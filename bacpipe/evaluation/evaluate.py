"""Evaluation of models one by one, and of all together."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bacpipe.errors import AnnotationsError, BacpipeError, EvaluationError
from bacpipe.evaluation.clustering import clustering_pipeline
from bacpipe.evaluation.comparison import compare_models
from bacpipe.evaluation.labelled_windows import labelled_windows
from bacpipe.evaluation.probing import probing_pipeline
from bacpipe.evaluation.retrieval import retrieval_quality
from bacpipe.labels.default_labels import create_default_labels
from bacpipe.labels.ground_truth import ground_truth_by_model
from bacpipe.options import Options, make_options
from bacpipe.store.files import remove_temporaries
from bacpipe.store.fingerprints import read_result, write_result
from bacpipe.store.layout import RETRIEVAL_RESULTS
from bacpipe.store.loader import Loader
from bacpipe.store.lock import exclusive

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

# Keys that the functions below take by name, or that `paths` replaces.
_TAKEN = {
    "audio_dir",
    "annotations_filename",
    "bool_filter_labels",
    "label_column",
    "overwrite",
    "testing",
}


@dataclass
class EvaluationReport:
    """What an evaluation found.

    Attributes
    ----------
    results : dict
        For each model what `model_specific_evaluation` returns.
    tables : dict of pandas.DataFrame
        What `cross_model_evaluation` returns.
    errors : list of str
        One sentence for everything that could not be done.
    folder : Path or None
        Where the tables and figures across models are.
    """

    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    folder: Path | None = None

    def __str__(self) -> str:
        lines = []
        for model, found in self.results.items():
            for name, result in found.get("probing", {}).items():
                lines.append(
                    f"{model}, {name} probe: " + _say(result, "f1_macro", "macro F1")
                    + ", " + _say(result, "accuracy", "accuracy")
                )  # fmt: skip
            for name, kinds in found.get("clustering", {}).get("agreement", {}).items():
                if "ground_truth" in kinds:
                    lines.append(f"{model}, {name}: AMI {kinds['ground_truth']['AMI']:.2f}")
            if "retrieval" in found:
                lines.append(
                    f"{model}, retrieval: "
                    + _say(found["retrieval"], "neighbour_precision", "neighbour precision")
                )
        lines += [f"not done: {error}" for error in self.errors]
        if self.folder is not None:
            lines.append(f"tables and figures across models: {self.folder}")
        return "\n".join(lines)


def _say(result: Mapping[str, Any], metric: str, name: str) -> str:
    value, bounds = result["overall"][metric], result["intervals"][metric]
    if value is None:
        return f"{name} not defined"
    return f"{name} {value:.2f}" + (f" [{bounds[0]:.2f}, {bounds[1]:.2f}]" if bounds else "")


def run_evaluations(
    loaders: Mapping[str, Loader], tasks: Sequence[str], options: Options
) -> EvaluationReport:
    """Evaluate models one by one and compare them.

    Parameters
    ----------
    loaders : mapping of str to Loader
        Results of each model, as `run_pipeline_for_models` returns them.
    tasks : sequence of {'probing', 'clustering'}
        What to do; clustering includes retrieval.
    options : Options
        The configuration; ``overwrite`` False takes stored results whose data and settings have
        not changed.

    Returns
    -------
    EvaluationReport
        What fails is in its ``errors``; the rest goes on.
    """
    report = EvaluationReport()
    if not tasks or not loaders:
        return report
    for name, loader in loaders.items():
        report.results[name] = _evaluate_model(loader, tasks, options, report.errors)
    paths = {name: loader.paths for name, loader in loaders.items()}
    done = [task for task in tasks if any(task in found for found in report.results.values())]
    if done:
        try:
            report.tables = compare_models(paths, done, options, report.results)
            report.folder = next(iter(paths.values())).overview_path
        except BacpipeError as error:
            logger.error("comparison of models failed: %s", error)
            report.errors.append(f"comparison of models: {error}")
    return report


def model_specific_evaluation(
    loader_dict: Mapping[str, Loader],
    evaluation_task: str | Sequence[str],
    probe_configs: Mapping[str, Any],
    models: str | Sequence[str],
    dim_reduction_model: bool | str = False,
    **kwargs: Any,
) -> dict[str, dict[str, Any]]:
    """Evaluate models one by one.

    Parameters
    ----------
    loader_dict : mapping of str to Loader
        Results of each model.
    evaluation_task : {'probing', 'clustering'} or list of them
        What to do; clustering includes retrieval.
    probe_configs : dict
        Probes to train, each with its parameters.
    models : str or sequence of str
        Which of the models.
    dim_reduction_model : bool or str
        Accepted for symmetry; models are evaluated in full dimensions.
    **kwargs
        Any key of the configuration.

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
            "evaluation_task": evaluation_task,
            "probe_configs": probe_configs,
            "models": models,
            "dim_reduction_model": dim_reduction_model,
        }
    )
    missing = [name for name in options.models if name not in loader_dict]
    if missing:
        raise EvaluationError(
            f"loader_dict has no results of {', '.join(missing)} (it has those of "
            f"{', '.join(loader_dict) or 'no model'}); run the models first."
        )
    errors: list[str] = []
    return {
        name: _evaluate_model(loader_dict[name], options.evaluation_task, options, errors)
        for name in options.models
    }


def _evaluate_model(
    loader: Loader, tasks: Sequence[str], options: Options, errors: list[str]
) -> dict[str, Any]:
    """Evaluate one model, alone; what fails is added to the errors."""
    model = str(loader.model_name)

    def fail(what: str, error: BacpipeError) -> None:
        text = str(error)
        sentence = text if text.startswith(model) else f"{model}: {text}"
        logger.error("%s failed: %s", what, sentence)
        errors.append(f"{what}: {sentence}")

    paths = loader.paths
    try:
        embeds = loader.embeddings("array")
        with exclusive(paths.labels_path.parent.parent, model):
            remove_temporaries(
                paths.labels_path, paths.clust_path, paths.probe_path, paths.plot_path
            )
            return _do_tasks(loader, embeds, tasks, options, fail)
    except BacpipeError as error:
        fail("evaluation", error)
        return {}


def _do_tasks(
    loader: Loader,
    embeds: np.ndarray,
    tasks: Sequence[str],
    options: Options,
    fail: Callable[[str, BacpipeError], None],
) -> dict[str, Any]:
    model = str(loader.model_name)
    found: dict[str, Any] = {}
    rest: dict[str, Any] = {
        key: value for key, value in asdict(options).items() if key not in _TAKEN
    }
    common: dict[str, Any] = {
        "paths": loader.paths,
        "overwrite": options.overwrite,
        "label_column": options.label_column,
    }
    truth: Any = None
    try:
        truth = _ground_truth(loader, options, rest)
    except BacpipeError as error:
        if "probing" in tasks or (loader.audio_dir / options.annotations_filename).exists():
            fail("ground truth", error)
        else:
            logger.info("%s: clusters are not compared with annotations: %s", model, error)
    if "probing" in tasks and truth is not None:
        for name in options.probe_configs:
            try:
                result = probing_pipeline(model, truth, embeds, name=name, **common, **rest)
                found.setdefault("probing", {})[name] = result
            except BacpipeError as error:
                fail(f"{name} probe", error)
    if "clustering" in tasks:
        labels: dict[str, Any] = {}
        try:
            labels = create_default_labels(
                model=model, paths=loader.paths, overwrite=options.overwrite, **rest
            )
        except BacpipeError as error:
            fail("default labels", error)
        try:
            found["clustering"] = clustering_pipeline(
                model, truth, embeds, default_labels=labels, **common, **rest
            )
        except BacpipeError as error:
            fail("clustering", error)
        if truth is not None:
            try:
                found["retrieval"] = _retrieval(loader, truth, embeds, options, rest)
            except BacpipeError as error:
                fail("retrieval", error)
    return found


def _ground_truth(loader: Loader, options: Options, rest: Mapping[str, Any]) -> dict[str, Any]:
    truth: dict[str, Any] = ground_truth_by_model(
        str(loader.model_name),
        loader.audio_dir,
        label_column=options.label_column,
        paths=loader.paths,
        annotations_filename=options.annotations_filename,
        overwrite=options.overwrite,
        bool_filter_labels=options.bool_filter_labels,
        **rest,
    )
    if not any(np.any(np.asarray(values) >= 0) for key, values in truth.items()
               if key.startswith("label:")):  # fmt: skip
        raise AnnotationsError(
            f"{options.annotations_filename}: not one window has a label of the kind "
            f"{options.label_column!r}; see min_annotation_length and annotation_overlap."
        )
    return truth


def _retrieval(
    loader: Loader, truth: Any, embeds: np.ndarray, options: Options, rest: Mapping[str, Any]
) -> dict[str, Any]:
    data = labelled_windows(
        str(loader.model_name), truth, embeds, loader.paths, label_column=options.label_column,
        **rest,
    )  # fmt: skip
    chosen = {
        "n_neighbors": options.retrieval_neighbors,
        "most": options.max_windows_for_pairs,
        "samples": options.bootstrap_samples,
        "seed": options.evaluation_seed,
    }
    fingerprint = data.fingerprint(retrieval=chosen)
    path = loader.paths.clust_path / RETRIEVAL_RESULTS
    stored = None if options.overwrite else read_result(path, fingerprint)
    if stored is not None:
        return stored
    result = retrieval_quality(data, **chosen)
    write_result(path, result, fingerprint)
    return result
