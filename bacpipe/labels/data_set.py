"""From what users name (model, audio folder, paths) to the results that labels belong to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bacpipe import configuration
from bacpipe.errors import SettingsError
from bacpipe.store.loader import Loader


def open_results(
    model: str | None, audio_dir: str | Path | None = None, paths: Any = None, **kwargs: Any
) -> Loader:
    """Results of a model for a data set, whether there are any yet or not.

    Parameters
    ----------
    model : str, optional
        Name of the model; by default the one that `paths` belongs to.
    audio_dir : str or Path, optional
        Folder with the recordings; by default that of `paths`, else ``config.audio_dir``.
    paths : ResultPaths, optional
        Where the results are, as ``make_set_paths_func(audio_dir)(model)`` returns them.
    **kwargs
        Any key of ``bacpipe.config`` and ``bacpipe.settings``.

    Returns
    -------
    Loader
        With the embeddings that fit the settings, else the newest, else none.

    Raises
    ------
    SettingsError
        If the model or the folder is not named.
    """
    if paths is not None:
        audio_dir = audio_dir or paths.audio_dir
        model = model or Path(paths.labels_path).parent.name
        # The folder already is that of a trial run, if it is one.
        kwargs = {**kwargs, "main_results_dir": paths.main_results_dir, "testing": False}
    audio_dir = audio_dir or configuration.config().audio_dir
    if model is None:
        raise SettingsError("model is missing; expected the name of a model, such as 'birdnet'.")
    if audio_dir is None:
        raise SettingsError("audio_dir is missing; expected the folder with the recordings.")
    return Loader(audio_dir, model, **kwargs)
