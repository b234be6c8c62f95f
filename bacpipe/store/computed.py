"""Which models have results."""

from __future__ import annotations

from pathlib import Path

from bacpipe.configuration import Options
from bacpipe.errors import ResultsNotFoundError
from bacpipe.store.layout import ResultPaths, dataset_name, models_with_embeddings, result_paths
from bacpipe.typed_paths import typed_path, typed_setting


def paths_of(audio_dir: str | Path, model: str, options: Options) -> ResultPaths:
    """Paths of one model's results with the configuration of a call."""
    return result_paths(
        typed_path(audio_dir),
        model,
        main_results_dir=options.main_results_dir,
        embed_parent_dir=options.embed_parent_dir,
        dim_reduc_parent_dir=options.dim_reduc_parent_dir,
        evaluations_dir=options.evaluations_dir,
        testing=options.testing,
    )


def computed_models(audio_dir: str | Path, options: Options) -> list[str]:
    """Names of all models that have embeddings of a folder of recordings.

    Raises
    ------
    ResultsNotFoundError
        If none has.
    """
    folder = paths_of(audio_dir, "none", options).main_embeds_path
    names = models_with_embeddings(folder, dataset_name(typed_path(audio_dir)))
    if not names:
        raise ResultsNotFoundError(
            f"{folder}: there are no embeddings of {audio_dir} yet; compute them first: "
            f"bacpipe {typed_setting('audio_dir', audio_dir)}"
        )
    return names
