"""Orchestration: what users call to run models over their recordings."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bacpipe import configuration
from bacpipe.audio.files import find_recording_names
from bacpipe.configuration import Options
from bacpipe.errors import BacpipeError, SettingsError
from bacpipe.inference.report import RunReport
from bacpipe.models.loading import find_card
from bacpipe.models.weights import checkpoints
from bacpipe.models.zoo import CARDS
from bacpipe.reduction.reduce_data_set import has_current_map, reduce_data_set
from bacpipe.rules import CONFIG_RULES, SETTINGS_RULES
from bacpipe.store.files import RunLog, write_yaml
from bacpipe.store.layout import ResultPaths, computed_models, paths_of
from bacpipe.store.loader import Loader
from bacpipe.user_input import typed_setting

if TYPE_CHECKING:
    from bacpipe.evaluation.evaluate import EvaluationReport

logger = logging.getLogger(__name__)

get_audio_files = Loader.get_audio_files


# ---------------------------------------------------------------------- embeddings


def generate_embeddings(avoid_pipelined_gpu_inference: bool = False, **kwargs: Any) -> Loader:
    """Embed a folder of recordings with one model, and classify if the model can.

    Recordings that are done already are kept.

    Parameters
    ----------
    avoid_pipelined_gpu_inference : bool
        True decodes and computes by turns, without threads.
    **kwargs
        ``model_name`` (required), ``audio_dir``, ``CustomModel`` (see `ModelBaseClass`),
        ``check_if_combination_exists`` (False starts a new set of embeddings), and any key of
        ``bacpipe.config`` and ``bacpipe.settings``.

    Returns
    -------
    Loader
        Reads the embeddings and predictions.

    Raises
    ------
    SettingsError
        If no model or no folder is named.
    NoRecordingsError
        If there are no recordings.
    NothingEmbeddedError
        If not one recording could be embedded.

    Examples
    --------
    >>> import bacpipe
    >>> loader = bacpipe.generate_embeddings(model_name="birdnet", audio_dir="recordings")
    >>> loader.embeddings("array").shape
    (153, 1024)
    """
    return _generate(avoid_pipelined_gpu_inference=avoid_pipelined_gpu_inference, **kwargs)[0]


def _generate(
    *,
    model_name: str | None = None,
    audio_dir: str | Path | None = None,
    CustomModel: Any = None,
    check_if_combination_exists: bool = True,
    **kwargs: Any,
) -> tuple[Loader, RunReport]:
    options = configuration.current(**kwargs)
    if model_name is None:
        raise SettingsError(
            f"model_name is missing; expected one of {', '.join(CARDS)}, or a name for CustomModel."
        )
    if CustomModel is None:
        find_card(model_name)
    folder = audio_dir or options.audio_dir
    if folder is None:
        raise SettingsError("audio_dir is missing; expected the folder with the recordings.")
    loader = Loader(
        folder,
        model_name,
        check_if_combination_exists=check_if_combination_exists,
        use_folder_structure=True,
        # To a Loader, this key means that it reads reduced embeddings.
        **{key: value for key, value in kwargs.items() if key != "dim_reduction_model"},
    )
    loader.update_recording_names()
    if CustomModel is None and (report := _done_already(loader)) is not None:
        return loader, report
    # Loading PyTorch and the model takes seconds, which a finished data set need not wait for.
    from bacpipe.embedder import Embedder

    embedder = Embedder(model_name, loader, CustomModel=CustomModel)
    if options.avoid_pipelined_gpu_inference:
        embedder.run_inference_pipeline_sequentially()
    else:
        embedder.run_inference_pipeline_using_multithreading()
    return loader, embedder.report


def _done_already(loader: Loader) -> RunReport | None:
    """Report of a run that has nothing to do; None if there is something."""
    from bacpipe.inference.run_data_set import model_identity, plan_run, tables_are_complete

    card = CARDS[str(loader.model_name)]
    if loader.embedding_set is None or checkpoints.missing_files(
        card, Path(loader.options.model_base_path)
    ):
        return None
    predict = loader.options.run_pretrained_classifier and card.is_classifier
    plan = plan_run(loader, model_identity(card.name, loader.options), predict=predict)
    if not plan.is_empty or not tables_are_complete(loader, predict=predict):
        return None
    return RunReport(card.name, kept=len(plan.keep), results=loader.embed_dir)


def run_pipeline_for_single_model(
    model_name: str,
    audio_dir: str | Path,
    dim_reduction_model: str = "None",
    check_if_already_processed: bool = True,
    check_if_already_dim_reduced: bool = True,
    testing: bool = False,
    **kwargs: Any,
) -> Loader:
    """Run one model over a folder: embeddings, predictions, reduced embeddings.

    Parameters
    ----------
    model_name : str
        Name of the model.
    audio_dir : str or Path
        Folder with the recordings.
    dim_reduction_model : str
        Reducer of the embeddings, or 'None'.
    check_if_already_processed, check_if_already_dim_reduced : bool
        False computes anew what is there already.
    testing : bool
        True is a trial run of three recordings, whose results are kept apart.
    **kwargs
        ``CustomModel``, and any key of ``bacpipe.config`` and ``bacpipe.settings``.

    Returns
    -------
    Loader
        Reads the embeddings and predictions.

    Examples
    --------
    >>> import bacpipe
    >>> loader = bacpipe.run_pipeline_for_single_model("birdnet", "recordings")
    >>> loader.metadata_dict["total_dataset_length (s)"]
    448.66
    """
    return _run_single(
        model_name,
        audio_dir,
        dim_reduction_model=dim_reduction_model,
        check_if_already_processed=check_if_already_processed,
        check_if_already_dim_reduced=check_if_already_dim_reduced,
        testing=testing,
        **kwargs,
    )[0]


def _run_single(
    model_name: str, audio_dir: str | Path, *, CustomModel: Any = None, **kwargs: Any
) -> tuple[Loader, RunReport]:
    options = configuration.current(**kwargs)
    loader, report = _generate(
        model_name=model_name,
        audio_dir=audio_dir,
        CustomModel=CustomModel,
        check_if_combination_exists=options.check_if_already_processed,
        **kwargs,
    )
    if options.dim_reduction_model != "None":
        reduce_data_set(loader, options.dim_reduction_model, options)
    return loader, report


def run_pipeline_for_models(
    models: str | Sequence[str],
    audio_dir: str | Path,
    dim_reduction_model: str = "None",
    **kwargs: Any,
) -> dict[str, Loader]:
    """Run several models over a folder.

    Parameters
    ----------
    models : str or sequence of str
        Names of the models.
    audio_dir : str or Path
        Folder with the recordings.
    dim_reduction_model : str
        Reducer of the embeddings, or 'None'.
    **kwargs
        ``CustomModels`` (a sequence parallel to `models`, None for models of the zoo), and any
        key of ``bacpipe.config`` and ``bacpipe.settings``.

    Returns
    -------
    dict of str to Loader

    Raises
    ------
    BacpipeError
        If every model failed.  Otherwise those that failed are logged and left out.

    Examples
    --------
    >>> import bacpipe
    >>> loaders = bacpipe.run_pipeline_for_models(["birdnet"], "recordings", "pca")
    >>> loaders["birdnet"].embeddings("array").shape
    (153, 1024)
    >>> bacpipe.Loader("recordings", "birdnet", dim_reduction_model="pca").embeddings("array").shape
    (153, 2)
    """
    runs, _ = _run_models(models, audio_dir, dim_reduction_model=dim_reduction_model, **kwargs)
    return {name: loader for name, (loader, _) in runs.items()}


def _run_models(
    models: str | Sequence[str],
    audio_dir: str | Path,
    *,
    CustomModels: Sequence[Any] | None = None,
    CustomModel: Any = None,
    **kwargs: Any,
) -> tuple[dict[str, tuple[Loader, RunReport]], dict[str, BacpipeError]]:
    """Run models one after the other; also return the errors of those that failed."""
    names = [models] if isinstance(models, str) else list(models)
    custom = list(CustomModels) if CustomModels is not None else [CustomModel] * len(names)
    if len(custom) != len(names):
        raise SettingsError(
            f"CustomModels has {len(custom)} entries, but there are {len(names)} models; expected "
            f"one entry per model, None for models of the zoo."
        )
    for name, own in zip(names, custom, strict=True):
        if own is None:
            find_card(name)
    runs: dict[str, tuple[Loader, RunReport]] = {}
    errors: dict[str, BacpipeError] = {}
    for name, own in zip(names, custom, strict=True):
        try:
            runs[name] = _run_single(name, audio_dir, CustomModel=own, **kwargs)
        except BacpipeError as error:
            if len(names) == 1:
                raise
            logger.error("%s: %s", name, error)
            errors[name] = error
    if not runs:
        raise next(iter(errors.values()))
    return runs, errors


# ---------------------------------------------------------------------- the whole pipeline


def evaluation_with_settings_already_exists(
    audio_dir: str | Path,
    dim_reduction_model: str,
    models: str | Sequence[str],
    testing: bool = False,
    **kwargs: Any,
) -> bool:
    """Whether all that these settings ask for is there already.

    Parameters
    ----------
    audio_dir : str or Path
        Folder with the recordings.
    dim_reduction_model : str
        Reducer of the embeddings, or 'None'.
    models : str or sequence of str
        Names of the models.
    testing : bool
        Whether the results are those of a trial run.
    **kwargs
        Any other key of the configuration.

    Returns
    -------
    bool
        True when every recording has embeddings, predictions and reduced embeddings of every
        model, computed with these settings.

    Examples
    --------
    >>> import bacpipe
    >>> bacpipe.evaluation_with_settings_already_exists("recordings", "None", ["birdnet"])
    True
    >>> bacpipe.evaluation_with_settings_already_exists("recordings", "None", ["birdnet"], hop=1)
    False
    """
    options = configuration.current(
        **{**kwargs, "models": models, "dim_reduction_model": dim_reduction_model}
    )
    settings = {**kwargs, "testing": testing}
    loaders = [Loader(audio_dir, n, use_folder_structure=True, **settings) for n in options.models]
    reducer = options.dim_reduction_model
    return all(
        _done_already(loader) is not None
        and (reducer == "None" or has_current_map(loader, reducer, options))
        for loader in loaders
    )


def play(bool_save_logs: bool = False, **kwargs: Any) -> dict[str, Loader]:
    """Run the whole pipeline as ``bacpipe.config`` and ``bacpipe.settings`` say.

    Parameters
    ----------
    bool_save_logs : bool
        Save the log, the configuration and the settings of this run in the results folder.
    **kwargs
        ``CustomModels`` (parallel to ``models``), and any key of the configuration.

    Returns
    -------
    dict of str to Loader
        One per model; reads the results.

    Raises
    ------
    NoRecordingsError
        If no recordings are found.
    BacpipeError
        If a setting is impossible, or a model could not embed anything; the other models have
        run then.

    Examples
    --------
    >>> import bacpipe
    >>> loaders = bacpipe.play(audio_dir="recordings", models="birdnet")
    <BLANKLINE>
      model                 birdnet
      recordings done       0
      skipped, done before  12
    ...
    >>> loaders["birdnet"].embeddings("array").shape
    (153, 1024)
    """
    custom = {key: kwargs.pop(key) for key in ("CustomModel", "CustomModels") if key in kwargs}
    options = configuration.current(**kwargs)
    audio_dir = _recordings_or_demo(options)
    find_recording_names(audio_dir, options.audio_suffixes)  # or says that there are none
    names = computed_models(audio_dir, options) if options.already_computed else options.models
    handler = _save_logs(options, audio_dir) if bool_save_logs else None
    try:
        rest = {key: kwargs[key] for key in kwargs if key not in {"models", "audio_dir"}}
        runs, errors = _run_models(names, audio_dir, **custom, **rest)
        loaders = {name: loader for name, (loader, _) in runs.items()}
        evaluation = _evaluate(loaders, {**kwargs, "audio_dir": audio_dir})
        _draw_activity(loaders, options)
    finally:
        if handler is not None:
            logging.getLogger("bacpipe").removeHandler(handler)
            handler.close()
    reports = [report for _, report in runs.values()]
    _summarise(reports, evaluation, _dashboard_command(audio_dir, options))
    problems = [f"{name}: {error}" for name, error in errors.items()]
    problems += evaluation.errors if evaluation is not None else []
    if options.dashboard:
        _open_dashboard(names, {**kwargs, "audio_dir": audio_dir})
    if problems:
        raise BacpipeError(f"Not everything could be done ({'; '.join(problems)})")
    return loaders


def _draw_activity(loaders: dict[str, Loader], options: Options) -> None:
    """Draw when each model found what; the results themselves do not depend on it."""
    from bacpipe.plotting.activity import draw_activity

    for name, loader in loaders.items():
        try:
            draw_activity(loader, options.activity_classes)
        except BacpipeError as error:
            logger.warning("%s: no figure of activity over time: %s", name, error)


def _evaluate(loaders: dict[str, Loader], settings: dict[str, Any]) -> EvaluationReport | None:
    """Evaluate the models, if that is asked for."""
    options = configuration.current(**settings)
    if not options.evaluation_task:
        return None
    # Plain runs need not wait for scikit-learn and matplotlib.
    from bacpipe.evaluation.evaluate import run_evaluations

    return run_evaluations(loaders, options.evaluation_task, options)


def _open_dashboard(models: Sequence[str], settings: Mapping[str, Any]) -> None:
    """Show the results until the user closes the dashboard; a notebook goes on at once."""
    # Runs without a dashboard need not wait for Panel.
    from bacpipe.dashboard.server import visualize_using_dashboard

    options = vars(configuration.current(**settings))
    where = ("dashboard_port", "dashboard_address", "dashboard_websocket_origin")
    visualize_using_dashboard(
        **{**settings, "models": models, **{key: options[key] for key in where}}
    )


def _recordings_or_demo(options: Options) -> Path:
    """Folder with the recordings; the synthetic demo when the user named none."""
    if options.audio_dir is not None:
        return Path(options.audio_dir)
    from bacpipe.demo import make_demo

    folder = make_demo(Path("bacpipe_demo"))
    logger.info(
        "No audio_dir is set, so this run uses the synthetic recordings in %s; set audio_dir to "
        "use your own.",
        folder,
    )
    return folder


def _save_logs(options: Options, audio_dir: Path) -> logging.Handler:
    """Save the configuration of this run, and its log from here on."""
    folder = paths_of(audio_dir, "none", options).logs_path
    run = f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
    values = {**vars(options), "audio_dir": str(audio_dir)}
    write_yaml(folder / f"{run}_config.yaml", {key: values[key] for key in CONFIG_RULES})
    write_yaml(folder / f"{run}_settings.yaml", {key: values[key] for key in SETTINGS_RULES})
    handler = RunLog(folder / f"{run}.log")
    logging.getLogger("bacpipe").addHandler(handler)
    return handler


def _summarise(
    reports: Iterable[RunReport], evaluation: EvaluationReport | None, dashboard: str
) -> None:
    """Print what was done and what to do next, for whoever called `play`."""
    for report in reports:
        logger.debug("summary:\n%s", report)
        _say(f"\n{report}")
    if evaluation is not None:
        lines = "\n  ".join(str(evaluation).splitlines())
        _say(f"\n  {lines}")
    _say(
        "\n  Read the results with bacpipe.Loader(audio_dir, model_name): .embeddings(), "
        ".predictions('dataframe'), .metadata_dict\n"
        f"  Look at and listen to them with: {dashboard}"
    )


def _dashboard_command(audio_dir: Path, options: Options) -> str:
    """What shows these results, for the command line."""
    words = ["bacpipe dashboard", typed_setting("audio_dir", audio_dir)]
    if options.main_results_dir != configuration.settings().main_results_dir:
        words.append(typed_setting("main_results_dir", options.main_results_dir))
    if options.testing:
        words.append("testing=true")
    return " ".join(words)


def _say(text: str) -> None:
    """Print the run's result, also in notebooks and where the output knows few characters."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))  # noqa: T201


# FOLDED bacpipe/experiments.py: What an experiment needs to know before it runs: models, their weights, and paths.


def confirm_model_name(model_name: str) -> str:
    """Check the name of a model.

    Parameters
    ----------
    model_name : str
        Name of a model of the zoo.

    Returns
    -------
    str
        The same name.

    Raises
    ------
    UnknownModelError
        Naming the closest supported models.

    Examples
    --------
    >>> import bacpipe
    >>> bacpipe.confirm_model_name("perch_v2")
    'perch_v2'
    """
    return find_card(model_name).name


def ensure_models_exist(
    model_base_path: str | Path,
    model_names: str | Sequence[str],
    repo_id: str = "vskode/bacpipe_models",
) -> str:
    """Make sure that the checkpoints of models are on this machine; fetch missing ones.

    Parameters
    ----------
    model_base_path : str or Path
        Folder of the checkpoints.
    model_names : str or sequence of str
        Models that will be run.
    repo_id : str
        Hugging Face dataset repository with the archives.

    Returns
    -------
    str
        `model_base_path`.

    Raises
    ------
    CheckpointNotFoundError
        If a checkpoint is missing and cannot be fetched.

    Examples
    --------
    >>> import bacpipe
    >>> bacpipe.ensure_models_exist("weights", ["birdnet"])  # its weights are installed
    'weights'
    """
    names = [model_names] if isinstance(model_names, str) else list(model_names)
    checkpoints.ensure(Path(model_base_path), [find_card(name) for name in names], repo_id=repo_id)
    return str(model_base_path)


def get_model_names(
    models: str | Sequence[str],
    audio_dir: str | Path,
    main_results_dir: str | Path,
    embed_parent_dir: str,
    already_computed: bool = False,
    **kwargs: Any,
) -> list[str]:
    """Names of the models to work with.

    Parameters
    ----------
    models : str or sequence of str
        The selected models.
    audio_dir : str or Path
        Folder with the recordings.
    main_results_dir, embed_parent_dir
        Where results are.
    already_computed : bool
        True takes every model that has embeddings of `audio_dir` instead of `models`.
    **kwargs
        Any other key of the configuration.

    Returns
    -------
    list of str

    Raises
    ------
    ResultsNotFoundError
        If `already_computed` is asked for and there are no embeddings.

    Examples
    --------
    >>> import bacpipe
    >>> bacpipe.get_model_names([], "recordings", "bacpipe_results", "embeddings",
    ...     already_computed=True)
    ['birdnet']
    """
    options = configuration.current(
        **{
            **kwargs,
            "models": models,
            "main_results_dir": main_results_dir,
            "embed_parent_dir": embed_parent_dir,
        }
    )
    if not already_computed:
        return list(options.models)
    return computed_models(audio_dir, options)


def make_set_paths_func(
    audio_dir: str | Path,
    main_results_dir: str | Path | None = None,
    dim_reduc_parent_dir: str = "dim_reduced_embeddings",
    testing: bool = False,
    **kwargs: Any,
) -> Callable[[str], ResultPaths]:
    """Make a function that knows where the results of each model are.

    Parameters
    ----------
    audio_dir : str or Path
        Folder with the recordings.
    main_results_dir : str or Path, optional
        Folder of all results; ``settings.main_results_dir`` unless given.
    dim_reduc_parent_dir : str
        Name of the folder of reduced embeddings.
    testing : bool
        Whether the results are those of a trial run.
    **kwargs
        Any other key of the configuration.

    Returns
    -------
    callable
        ``get_paths(model_name) -> ResultPaths``.  No folder is created.

    Examples
    --------
    >>> import bacpipe
    >>> paths = bacpipe.make_set_paths_func("recordings")("birdnet")
    >>> paths.preds_path.as_posix()
    'bacpipe_results/recordings/evaluations/birdnet/predictions'
    """
    if main_results_dir is not None:
        kwargs["main_results_dir"] = main_results_dir
    options = configuration.current(
        **{**kwargs, "dim_reduc_parent_dir": dim_reduc_parent_dir, "testing": testing}
    )

    def get_paths(model_name: str) -> ResultPaths:
        return paths_of(audio_dir, model_name, options)

    return get_paths
