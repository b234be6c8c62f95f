"""What an experiment needs to know before it runs: models, their weights, and paths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bacpipe import configuration
from bacpipe.models import checkpoints
from bacpipe.models.loading import find_card
from bacpipe.store.computed import computed_models, paths_of
from bacpipe.store.layout import ResultPaths


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
