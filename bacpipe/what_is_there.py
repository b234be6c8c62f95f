"""Which models, weights and results are there, and where: asked before anything is computed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import astuple
from pathlib import Path

from bacpipe.audio.remote import shown
from bacpipe.errors import SettingsError, counted
from bacpipe.exports.findings import write_readme
from bacpipe.inference.report import RunReport
from bacpipe.models.loading import find_card
from bacpipe.models.weights import checkpoints
from bacpipe.models.zoo import CARDS, canonical_name
from bacpipe.options import Options, make_options
from bacpipe.reduction.reduce_data_set import has_current_map
from bacpipe.store.data_set_folder import computed_models, paths_of
from bacpipe.store.layout import ResultPaths
from bacpipe.store.loader import Loader
from bacpipe.store.selection import AudioDir
from bacpipe.user_input import typed_path

logger = logging.getLogger(__name__)


def evaluation_with_settings_already_exists(
    audio_dir: AudioDir,
    dim_reduction_model: str,
    models: str | Sequence[str],
    testing: bool = False,
    **kwargs: object,
) -> bool:
    """Whether all that these settings ask for is there already.

    Parameters
    ----------
    audio_dir : str or Path, or sequence of these
        Folder with the recordings, or what else ``audio_dir`` of the configuration may be.
    dim_reduction_model : str
        Reducer of the embeddings, or 'None'.
    models : str or sequence of str
        Names of the models.
    testing : bool
        Whether the results are those of a trial run.
    **kwargs
        Any other key of the configuration; main_results_dir says where results are.

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
    options = make_options(
        audio_dir=audio_dir,
        dim_reduction_model=dim_reduction_model,
        models=models,
        testing=testing,
        **kwargs,
    )
    options = computable(options)
    loaders = [
        Loader(audio_dir, name, use_folder_structure=True, options=options)
        for name in options.models
    ]
    reducer = options.dim_reduction_model
    return all(
        done_already(loader) is not None
        and (reducer == "None" or has_current_map(loader, reducer, options))
        for loader in loaders
    )


def done_already(loader: Loader) -> RunReport | None:
    """Report of a run that has nothing to do; None if there is something."""
    from bacpipe.inference.run_data_set import (
        model_identity,
        plan_run,
        say_what_is_kept,
        tables_are_complete,
        take_over,
    )

    card = CARDS[str(loader.model_name)]
    if loader.embedding_set is None or checkpoints.missing_files(
        card, Path(loader.options.model_base_path)
    ):
        return None
    predict = loader.options.run_pretrained_classifier and card.is_classifier
    plan = plan_run(loader, model_identity(card.name, loader.options), predict=predict)
    if not plan.is_empty or not tables_are_complete(loader, predict=predict):
        return None
    take_over(loader, plan)
    say_what_is_kept(loader, plan)
    write_readme(loader.paths, loader.options)  # the results may have been moved
    return RunReport(card.name, kept=len(plan.keep), results=loader.embed_dir)


def confirm_model_name(model_name: str, CustomModel: object = None) -> str:
    """Check the name of a model.

    Parameters
    ----------
    model_name : str
        Name of a model of the zoo.
    CustomModel : class or object, optional
        A model of your own, whose name may be any.

    Returns
    -------
    str
        The same name, as the zoo writes it.

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
    if CustomModel is not None:
        return canonical_name(model_name)
    return find_card(model_name).name


def ensure_models_exist(
    model_base_path: str | Path,
    model_names: str | Sequence[str],
    repo_id: str = "vskode/bacpipe_models",
    *,
    CustomModels: Sequence[object] | None = None,
    CustomModel: object = None,
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
    CustomModels : sequence, optional
        Models of your own, parallel to `model_names`, which need no checkpoints; None for models of
        the zoo.
    CustomModel : class or object, optional
        A model of your own, if there is only one.

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
    models = with_custom(names, CustomModels, CustomModel)
    cards = [find_card(name) for name, custom in models if custom is None]
    checkpoints.ensure(typed_path(model_base_path), cards, repo_id=repo_id)
    return str(model_base_path)


def get_model_names(
    models: str | Sequence[str],
    audio_dir: AudioDir,
    main_results_dir: str | Path,
    embed_parent_dir: str,
    already_computed: bool = False,
    *,
    CustomModels: Sequence[object] | None = None,
    CustomModel: object = None,
    **kwargs: object,
) -> list[str]:
    """Names of the models to work with.

    Parameters
    ----------
    models : str or sequence of str
        The selected models.
    audio_dir : str or Path, or sequence of these
        Folder with the recordings, or what else ``audio_dir`` of the configuration may be.
    main_results_dir, embed_parent_dir
        Where results are.
    already_computed : bool
        True takes every model that has embeddings of `audio_dir` instead of `models`.
    CustomModels : sequence, optional
        Models of your own, parallel to `models`, whose names may be any; None for models of the
        zoo.
    CustomModel : class or object, optional
        A model of your own, if there is only one.
    **kwargs
        Any other key of the configuration; main_results_dir says where results are,
        model_base_path where weights are.

    Returns
    -------
    list of str

    Raises
    ------
    NoEmbeddingsError
        If `already_computed` is asked for and there are no embeddings.
    UnknownModelError
        If a name is neither that of a model of the zoo nor of one of your own.

    Examples
    --------
    >>> import bacpipe
    >>> bacpipe.get_model_names([], "recordings", "bacpipe_results", "embeddings",
    ...     already_computed=True)
    ['birdnet']
    """
    options = make_options(
        models=models,
        main_results_dir=main_results_dir,
        embed_parent_dir=embed_parent_dir,
        **kwargs,
    )
    if already_computed:
        return computed_models(audio_dir, options)
    return [name for name, _ in with_custom(options.models, CustomModels, CustomModel)]


def make_set_paths_func(
    audio_dir: AudioDir,
    main_results_dir: str | Path | None = None,
    dim_reduc_parent_dir: str = "dim_reduced_embeddings",
    testing: bool = False,
    **kwargs: object,
) -> Callable[[str], ResultPaths]:
    """Make a function that knows where the results of each model are.

    Parameters
    ----------
    audio_dir : str or Path, or sequence of these
        Folder with the recordings, or what else ``audio_dir`` of the configuration may be.
    main_results_dir : str or Path, optional
        Folder of all results; ``settings.main_results_dir`` unless given.
    dim_reduc_parent_dir : str
        Name of the folder of reduced embeddings.
    testing : bool
        Whether the results are those of a trial run.
    **kwargs
        Any other key of the configuration; main_results_dir says where results are.

    Returns
    -------
    callable
        ``get_paths(model_name) -> ResultPaths``; creates the folders of the results, where that is
        allowed.

    Examples
    --------
    >>> import bacpipe
    >>> paths = bacpipe.make_set_paths_func("recordings")("birdnet")
    >>> paths.preds_path.as_posix()
    'bacpipe_results/recordings/evaluations/birdnet/predictions'
    """
    if main_results_dir is not None:
        kwargs["main_results_dir"] = main_results_dir
    options = make_options(dim_reduc_parent_dir=dim_reduc_parent_dir, testing=testing, **kwargs)

    def get_paths(model_name: str) -> ResultPaths:
        paths = paths_of(audio_dir, canonical_name(model_name), options)
        for folder in astuple(paths)[1:]:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:  # results that may only be read can still be read
                logger.info("%s: this folder cannot be created (%s).", folder, error.strerror)
        return paths

    return get_paths


def look_into(options: Options) -> None:
    """Say which files of a folder are no recordings to a run, before any model is loaded.

    Raises
    ------
    NoRecordingsError
        If there are no recordings, or none is chosen.
    SettingsError
        If `audio_dir` is missing, or recordings are chosen twice.
    """
    if options.audio_dir is None:
        raise SettingsError("audio_dir is missing; expected the folder with the recordings.")
    loader = Loader(options.audio_dir, options=options)
    loader.update_recording_names()
    _ = loader.selection
    if loader.other_files:
        few = [f"{suffix} ({number:,})" for suffix, number in loader.other_files.most_common(8)]
        logger.warning(
            "%s: %s left out because of %s suffix: %s; audio_suffixes says which are recordings.",
            shown(loader.audio_dir),
            counted(loader.other_files.total(), "file"),
            "its" if loader.other_files.total() == 1 else "their",
            ", ".join(few),
        )


def computable(options: Options) -> Options:
    """Options with a precision that this computer has, for what is computed here and then read."""
    if options.precision == "float32" or options.engine == "dask":
        return options
    # Loading PyTorch takes seconds.
    from bacpipe.inference.audio_handler import with_possible_precision

    return with_possible_precision(options)


def with_custom(
    names: Sequence[str], custom_models: Sequence[object] | None, custom_model: object
) -> list[tuple[str, object]]:
    """Names of models, each with the user's own model of this name, None for one of the zoo."""
    if not names:
        raise SettingsError("models is empty; expected at least one name, such as birdnet.")
    custom = [custom_model] * len(names) if custom_models is None else list(custom_models)
    if len(custom) != len(names):
        raise SettingsError(
            f"CustomModels has {counted(len(custom), 'entry', 'entries')} for "
            f"{counted(len(names), 'model')}; expected "
            f"one entry per model, None for models of the zoo."
        )
    for name, own in zip(names, custom, strict=True):
        if own is None:
            find_card(name)
    return list(zip(map(canonical_name, names), custom, strict=True))
