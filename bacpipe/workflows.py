"""The pipeline: what users call to run models over their recordings."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bacpipe.errors import (
    BacpipeError,
    SettingsError,
    StorageError,
)
from bacpipe.exports.findings import say_findings
from bacpipe.inference.report import RunReport, refuse_failures, warn_of_failures
from bacpipe.models.loading import find_card
from bacpipe.models.zoo import CARDS, canonical_name
from bacpipe.options import KEYS, Options, make_options, needed_to_read, with_changes
from bacpipe.reduction.reduce_data_set import reduce_data_set
from bacpipe.store.claims import alone
from bacpipe.store.data_set_folder import computed_models, paths_of
from bacpipe.store.files import RunLog, write_yaml
from bacpipe.store.loader import Loader
from bacpipe.store.range_filter import check_places
from bacpipe.store.selection import AudioDir, data_set_of
from bacpipe.store.typed_command import typed_command
from bacpipe.what_is_there import computable, done_already, look_into, with_custom

if TYPE_CHECKING:
    from bacpipe.evaluation.evaluate import EvaluationReport
    from bacpipe.inference.together import Together
    from bacpipe.recognisers.recogniser import Recogniser

logger = logging.getLogger(__name__)

get_audio_files = Loader.get_audio_files


# ---------------------------------------------------------------------- the whole pipeline


def play(
    bool_save_logs: bool = False,
    *,
    save_logs: bool = False,
    CustomModels: Sequence[object] | None = None,
    CustomModel: object = None,
    **kwargs: object,
) -> dict[str, Loader]:
    """Run the whole pipeline as ``bacpipe.config`` and ``bacpipe.settings`` say.

    Parameters
    ----------
    bool_save_logs : bool
        Save the log, the configuration and the settings of this run in the results folder.
    save_logs : bool
        The same.
    CustomModels : sequence, optional
        Models of your own, parallel to ``models``; None for models of the zoo.
    CustomModel : class or object, optional
        A model of your own, if there is only one.
    **kwargs
        Any key of the configuration; models, dim_reduction_model and evaluation_task say
        what is done; hop, padding, channel, device, classifier_threshold,
        save_raven_tables, sites and time_zone are changed most often, and main_results_dir
        says where results are put.

    Returns
    -------
    dict of str to Loader
        One per model; reads the results.  With the setting ``recogniser``, also one by its name
        with what it has found.

    Raises
    ------
    NoRecordingsError
        If no recordings are found.
    BacpipeError
        If a setting is impossible, or a model could not embed anything; the other models have
        run then.
    RecordingsFailedError
        If ``strict`` is True and a recording failed; all else is done then.

    Examples
    --------
    >>> import bacpipe
    >>> loaders = bacpipe.play(audio_dir="recordings", models="birdnet")
    <BLANKLINE>
      birdnet: 21 detections of 7 species with a score of 0.5 or more: ...
    <BLANKLINE>
      model                 birdnet
      recordings done       0
      skipped, done before  12
    ...
    >>> loaders["birdnet"].embeddings("array").shape
    (153, 1024)
    """
    _refuse_path("bool_save_logs", bool_save_logs)
    _refuse_path("save_logs", save_logs)
    options = make_options(**kwargs)
    if options.audio_dir is None:
        options = make_options(**{**kwargs, "audio_dir": _demo()})
    look_into(options)
    audio_dir, chosen = data_set_of(options.audio_dir or "")
    chosen = chosen or options.recordings
    check_places(audio_dir, options)
    models = computed_models(audio_dir, options) if options.already_computed else options.models
    models = [canonical_name(name) for name in models]
    recogniser = _recogniser(options, audio_dir)
    if recogniser is not None:
        # Its model is run, and others only if somebody has asked for them.
        others = models if "models" in options.asked or options.already_computed else []
        models = list(dict.fromkeys([*others, recogniser.model]))
    options = computable(
        make_options(**{**kwargs, "audio_dir": audio_dir, "recordings": chosen, "models": models})
    )
    handler = _save_logs(options, audio_dir) if bool_save_logs or save_logs else None
    try:
        runs, errors = _run_models(with_custom(options.models, CustomModels, CustomModel), options)
        loaders = {name: loader for name, (loader, _) in runs.items()}
        evaluation = _evaluate(loaders, options)
        figures = _draw_activity(loaders, options)
        for loader in loaders.values():
            _draw_map(loader, options)
        if recogniser is not None and recogniser.model in loaders:
            loaders[recogniser.name] = recogniser.results(loaders[recogniser.model])
    finally:
        if handler is not None:
            logging.getLogger("bacpipe").removeHandler(handler)
            handler.close()
    reports = [report for _, report in runs.values()]
    for name, loader in loaders.items():
        if loader.has_predictions:
            _say(f"\n  {say_findings(loader, figures.get(name))}")
    _summarise(reports, evaluation, audio_dir, options)
    problems = [f"{name}: {error}" for name, error in errors.items()]
    problems += evaluation.errors if evaluation is not None else []
    if options.dashboard:
        _open_dashboard(audio_dir, options)
    if problems:
        told = "; ".join(problem.removesuffix(".") for problem in problems)
        raise BacpipeError(f"Not everything could be done ({told})")
    _refuse_failures(reports, options)
    return loaders


def _refuse_path(parameter: str, value: object) -> None:
    """Say where a folder goes to whoever gives it as the first argument.

    Raises
    ------
    SettingsError
        If the value of this first parameter is not True or False.
    """
    if isinstance(value, bool):
        return
    hint = f"; did you mean audio_dir={str(value)!r}?" if isinstance(value, str | Path) else "."
    raise SettingsError(f"{parameter}={value!r} is not possible: expected True or False{hint}")


def _recogniser(options: Options, audio_dir: Path) -> Recogniser | None:
    """The recogniser that is to be applied, or a sentence before anything is computed."""
    if options.recogniser is None:
        return None
    # Plain runs need not wait for scikit-learn and PyTorch.
    from bacpipe.recognisers.recogniser import find_recogniser

    return find_recogniser(options.recogniser, paths_of(audio_dir, "none", options))


def _evaluate(loaders: dict[str, Loader], options: Options) -> EvaluationReport | None:
    """Evaluate the models, if that is asked for."""
    if not options.evaluation_task:
        return None
    # Plain runs need not wait for scikit-learn and matplotlib.
    from bacpipe.evaluation.evaluate import run_evaluations

    return run_evaluations(loaders, options.evaluation_task, options)


def _draw_activity(loaders: dict[str, Loader], options: Options) -> dict[str, Path | None]:
    """Draw when each model found what; the results themselves do not depend on it."""
    from bacpipe.plotting.activity import draw_activity

    figures: dict[str, Path | None] = {}
    for name, loader in loaders.items():
        try:
            figures[name] = draw_activity(loader, options.activity_classes)
        except StorageError:
            raise
        except BacpipeError as error:
            logger.warning("%s: no figure of activity over time: %s", name, error)
    return figures


def _draw_map(loader: Loader, options: Options) -> None:
    """Draw the map of the embeddings, if one is asked for, in the colours of what is known now."""
    if options.dim_reduction_model == "None":
        return
    # Loading scikit-learn takes a second.
    from bacpipe.evaluation.comparison import draw_map

    try:
        draw_map(loader.paths, options.dim_reduction_model, options)
    except StorageError:
        raise
    except BacpipeError as error:
        logger.warning("%s: no figure of its map: %s", loader.model_name, error)


def _open_dashboard(audio_dir: Path, options: Options) -> None:
    """Show the results until the user closes the dashboard; a notebook goes on at once."""
    # Runs without a dashboard need not wait for Panel.
    from bacpipe.dashboard.server import serve
    from bacpipe.dashboard.shared.results import DataSetResults

    serve(DataSetResults(audio_dir, options.models, options))


def _demo() -> Path:
    """Folder with the synthetic demo, for users who named no recordings."""
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
    values = asdict(options)
    for name, keys in KEYS.items():
        write_yaml(folder / f"{run}_{name}.yaml", {key: values[key] for key in keys})
    handler = RunLog(folder / f"{run}.log")
    logging.getLogger("bacpipe").addHandler(handler)
    return handler


def _summarise(
    reports: Iterable[RunReport],
    evaluation: EvaluationReport | None,
    audio_dir: Path,
    options: Options,
) -> None:
    """Print what was done and what to do next, for whoever called `play`."""
    for report in reports:
        logger.debug("summary:\n%s", report)
        _say(f"\n{report}")
    if evaluation is not None:
        lines = "\n  ".join(str(evaluation).splitlines())
        _say(f"\n  {lines}")
    needed = "".join(f", {key}={value!r}" for key, value in needed_to_read(options).items())
    _say(
        f"\n  Read the results with bacpipe.Loader(audio_dir, model_name{needed}): .embeddings(), "
        ".predictions('dataframe'), .metadata_dict\n"
        f"  Look at and listen to them with: {typed_command('dashboard', audio_dir, options)}"
    )


def _say(text: str) -> None:
    """Print the run's result, also in notebooks and where the output knows few characters."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))  # noqa: T201


# ---------------------------------------------------------------------- embeddings


def generate_embeddings(
    avoid_pipelined_gpu_inference: bool = False,
    *others: object,
    model_name: str | None = None,
    CustomModel: object = None,
    check_if_combination_exists: bool = True,
    **kwargs: object,
) -> Loader:
    """Embed a folder of recordings with one model, and classify if the model can.

    Recordings that are done already are kept.

    Parameters
    ----------
    avoid_pipelined_gpu_inference : bool
        True decodes and computes by turns, without threads.
    *others
        Nothing: whatever else is given by its place is refused with the names to give it by.
    model_name : str
        Name of the model; required.
    CustomModel : class or object, optional
        A model of your own; see `ModelBaseClass`.
    check_if_combination_exists : bool
        False starts a new set of embeddings.
    **kwargs
        ``audio_dir``, and any other key of ``bacpipe.config`` and ``bacpipe.settings``;
        hop, padding, channel, device, classifier_threshold, save_raven_tables, sites and
        time_zone are changed most often, and main_results_dir says where results are put.

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
    if others or isinstance(avoid_pipelined_gpu_inference, str | Path):
        given = [str(value) for value in (avoid_pipelined_gpu_inference, *others)]
        is_model = model_name is None and (others or canonical_name(given[0]) in CARDS)
        names = ["model_name", "audio_dir"] if is_model else ["audio_dir"]
        pairs = zip([*names, *("..." for _ in given)], given, strict=False)
        meant = ", ".join(f"{name}={value!r}" for name, value in pairs)
        raise SettingsError(
            f"generate_embeddings takes its arguments by name; did you mean "
            f"generate_embeddings({meant})?"
        )
    options = computable(
        make_options(**kwargs, avoid_pipelined_gpu_inference=avoid_pipelined_gpu_inference)
    )
    if model_name is None:
        raise SettingsError(
            f"model_name is missing; expected one of {', '.join(CARDS)}, or a name for CustomModel."
        )
    look_into(options)
    if options.engine == "dask":
        run = _run_on_dask([(model_name, CustomModel)], options)[canonical_name(model_name)]
    else:
        run = _generate(model_name, CustomModel, options, reuse=check_if_combination_exists)
    return _told(run, options)


def detect_calls(*, model_name: str = "batdetect2_dets_avg", **kwargs: object) -> Path:
    """Find the single calls in a folder of recordings, and write them as a table.

    The table is independent of embeddings and predictions, which tell of whole windows.  Every
    recording is read anew; one that cannot be read is logged, and the others go on.

    Parameters
    ----------
    model_name : str
        A model that detects calls.
    **kwargs
        ``audio_dir``, and any other key of ``bacpipe.config`` and ``bacpipe.settings``; hop,
        channel, bool_change_speed, new_speed, device and main_results_dir matter here.

    Returns
    -------
    Path
        ``<model>_calls.csv`` in the predictions of the model's results: a row per call with
        audiofilename, start and end (seconds), low_frequency and high_frequency (Hz), label (the
        species), scientific_name, score (that it is this species) and detection_score (that it is
        a call; all that the detector gives are there).  With ``channel='each'`` also channel, from
        1.

    Raises
    ------
    SettingsError
        If no folder is named, or the model finds no calls.
    NoRecordingsError
        If there are no recordings.
    NothingEmbeddedError
        If not one recording can be read.
    ResultsLockedError
        If another run writes results of this model.

    Examples
    --------
    >>> import bacpipe
    >>> table = bacpipe.detect_calls(audio_dir="bats")
    >>> table.name
    'batdetect2_dets_avg_calls.csv'
    """
    options = computable(make_options(**kwargs))
    find_card(model_name)
    look_into(options)
    assert options.audio_dir is not None
    loader = Loader(options.audio_dir, model_name, use_folder_structure=True, options=options)
    loader.update_recording_names()
    # Loading PyTorch and the model takes seconds, which bad settings need not wait for.
    from bacpipe.embedder import Embedder
    from bacpipe.inference.calls import write_calls

    embedder = Embedder(model_name, loader)
    loader.claim()
    with alone(loader.paths.main_embeds_path, str(loader.model_name)):
        return write_calls(embedder, loader)


def run_pipeline_for_single_model(
    model_name: str,
    audio_dir: AudioDir,
    dim_reduction_model: str = "None",
    check_if_already_processed: bool = True,
    check_if_already_dim_reduced: bool = True,
    testing: bool = False,
    *,
    CustomModel: object = None,
    **kwargs: object,
) -> Loader:
    """Run one model over a folder: embeddings, predictions, reduced embeddings.

    Parameters
    ----------
    model_name : str
        Name of the model.
    audio_dir : str or Path, or sequence of these
        Folder with the recordings, or what else ``audio_dir`` of the configuration may be.
    dim_reduction_model : str
        Reducer of the embeddings, or 'None'.
    check_if_already_processed, check_if_already_dim_reduced : bool
        False computes anew what is there already.
    testing : bool
        True is a trial run of three recordings, whose results are kept apart.
    CustomModel : class or object, optional
        A model of your own; see `ModelBaseClass`.
    **kwargs
        Any key of ``bacpipe.config`` and ``bacpipe.settings``; dim_reduction_model says
        which maps are made; hop, padding, channel, device, classifier_threshold,
        save_raven_tables, sites and time_zone are changed most often, and main_results_dir
        says where results are put.

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
    options = make_options(
        audio_dir=audio_dir,
        dim_reduction_model=dim_reduction_model,
        check_if_already_processed=check_if_already_processed,
        check_if_already_dim_reduced=check_if_already_dim_reduced,
        testing=testing,
        **kwargs,
    )
    look_into(options)
    options = computable(options)
    return _told(_run_single(model_name, CustomModel, options), options)


def run_pipeline_for_models(
    models: str | Sequence[str],
    audio_dir: AudioDir,
    dim_reduction_model: str = "None",
    *,
    CustomModels: Sequence[object] | None = None,
    CustomModel: object = None,
    **kwargs: object,
) -> dict[str, Loader]:
    """Run several models over a folder; each recording is decoded once for all of them.

    Results are those of one run after the other.  Where memory is short, the models run in
    groups, or one after the other, and with ``avoid_pipelined_gpu_inference`` they always do.

    Parameters
    ----------
    models : str or sequence of str
        Names of the models.
    audio_dir : str or Path, or sequence of these
        Folder with the recordings, or what else ``audio_dir`` of the configuration may be.
    dim_reduction_model : str
        Reducer of the embeddings, or 'None'.
    CustomModels : sequence, optional
        Models of your own, parallel to `models`; None for models of the zoo.
    CustomModel : class or object, optional
        A model of your own, if there is only one.
    **kwargs
        Any key of ``bacpipe.config`` and ``bacpipe.settings``; dim_reduction_model says
        which maps are made, engine and scheduler who works; hop, padding, channel, device,
        classifier_threshold, save_raven_tables, sites and time_zone are changed most often,
        and main_results_dir says where results are put.

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
    options = make_options(
        audio_dir=audio_dir, models=models, dim_reduction_model=dim_reduction_model, **kwargs
    )
    chosen = with_custom(options.models, CustomModels, CustomModel)
    look_into(options)
    runs, errors = _run_models(chosen, computable(options))
    for name, error in errors.items():
        logger.error("%s: %s", name, error)
    for _, report in runs.values():
        warn_of_failures(report)
    _refuse_failures([report for _, report in runs.values()], options)
    return {name: loader for name, (loader, _) in runs.items()}


def _told(run: tuple[Loader, RunReport], options: Options) -> Loader:
    """Loader of a run whose report nobody prints."""
    loader, report = run
    warn_of_failures(report)
    _refuse_failures([report], options)
    return loader


def _refuse_failures(reports: Iterable[RunReport], options: Options) -> None:
    failed = {name for report in reports for name, _ in report.failed}
    refuse_failures(failed, strict=options.strict)


def _generate(
    model_name: str,
    custom: object,
    options: Options,
    *,
    reuse: bool,
    together: Together | None = None,
) -> tuple[Loader, RunReport]:
    """Embed with one model; `reuse` False starts a new set of embeddings."""
    if custom is None:
        find_card(model_name)
    model_name = canonical_name(model_name)
    assert options.audio_dir is not None
    loader = Loader(
        options.audio_dir,
        model_name,
        check_if_combination_exists=reuse,
        use_folder_structure=True,
        options=options,
    )
    loader.update_recording_names()
    check_places(loader.audio_dir, options)
    if custom is None and (report := done_already(loader)) is not None:
        report.failed += loader.selection.missing
        return loader, report
    # Loading PyTorch and the model takes seconds, which a finished data set need not wait for.
    from bacpipe.embedder import Embedder
    from bacpipe.inference.run_data_set import embed_data_set

    embedder = Embedder(model_name, loader, CustomModel=custom)
    threads = not options.avoid_pipelined_gpu_inference
    report = embed_data_set(embedder, loader, threads=threads, together=together)
    report.failed += loader.selection.missing
    return loader, report


def _run_on_dask(
    models: Sequence[tuple[str, object]], options: Options
) -> dict[str, tuple[Loader, RunReport]]:
    """Embed with several models, on the workers of Dask."""
    # Others need not wait for it.
    from bacpipe.scaling.dask_engine import run_on_dask

    names = [canonical_name(name) for name, _ in models]
    custom = {canonical_name(name): own for name, own in models if own is not None}
    return run_on_dask(with_changes(options, models=names), custom)


def _run_single(model_name: str, custom: object, options: Options) -> tuple[Loader, RunReport]:
    reuse = options.check_if_already_processed
    if options.engine == "dask":
        run = _run_on_dask([(model_name, custom)], options)[canonical_name(model_name)]
    else:
        run = _generate(model_name, custom, options, reuse=reuse)
    return _reduced(run, options)


def _reduced(run: tuple[Loader, RunReport], options: Options) -> tuple[Loader, RunReport]:
    """A run whose embeddings are reduced, too, if that is asked for."""
    if options.dim_reduction_model != "None":
        reduce_data_set(run[0], options.dim_reduction_model, options)
        _draw_map(run[0], options)
    return run


def _run_models(
    models: Sequence[tuple[str, object]], options: Options
) -> tuple[dict[str, tuple[Loader, RunReport]], dict[str, BacpipeError]]:
    """Run models, together where possible; also return the errors of those that failed."""
    runs: dict[str, tuple[Loader, RunReport]] = {}
    errors: dict[str, BacpipeError] = {}
    if options.engine == "dask":
        runs = _run_on_dask(models, options)
        return {name: _reduced(run, options) for name, run in runs.items()}, errors
    for name, result in _embed_models(models, options):
        try:
            runs[name] = _reduced(result(), options)
        except BacpipeError as error:
            if len(models) == 1:
                raise
            logger.debug("%s: %s", name, error)
            errors[name] = error
    if not runs:
        first, *others = errors.items()
        for other in others:
            logger.error("%s: %s", *other)
        raise first[1]
    return runs, errors


def _embed_models(
    models: Sequence[tuple[str, object]], options: Options
) -> Iterator[tuple[str, Callable[[], tuple[Loader, RunReport]]]]:
    """Names of models, each with a function that gives its run or raises its error.

    Each recording is decoded once for all models, or for as many of them as memory allows.
    """
    reuse = options.check_if_already_processed
    distinct = len({name for name, _ in models})
    if distinct < 2 or distinct < len(models) or options.avoid_pipelined_gpu_inference:
        for name, custom in models:
            yield name, partial(_generate, name, custom, options, reuse=reuse)
        return
    # Loading PyTorch takes seconds, which bad settings need not wait for.
    from bacpipe.inference.together import Job, run_together

    def job(name: str, custom: object) -> Job[tuple[Loader, RunReport]]:
        def work(together: Together) -> tuple[Loader, RunReport]:
            return _generate(name, custom, options, reuse=reuse, together=together)

        return Job(name, CARDS[name] if custom is None else None, work)

    runs = run_together([job(*model) for model in models], options)
    for (name, _), run in zip(models, runs, strict=True):
        yield name, run.result
