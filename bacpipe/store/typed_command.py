"""Commands that people can paste: with all that is needed to find the same results."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from bacpipe.audio.remote import shown
from bacpipe.options import Options, needed_to_read
from bacpipe.store.selection import AudioDir
from bacpipe.user_input import quoted, typed_setting


def typed_command(command: str, audio_dir: AudioDir, options: Options, **further: object) -> str:
    """Words for the command line that work on the results of these settings, here and now.

    Parameters
    ----------
    command : str
        Such as ``export survey``; empty for a run.
    audio_dir : path, or sequence of paths
        Folder with the recordings, or what else it may be.
    options : Options
        What of them is needed to find these results is named.
    **further
        Other settings, by their keys.
    """
    settings = {"audio_dir": audio_dir, **needed_to_read(options), **further}
    words = [typed_setting(key, _with_urls(value)) for key, value in settings.items()]
    return " ".join([_program(), *command.split(), *words])


def typed_words(*words: str | Path) -> str:
    """Command of bacpipe's with these words, as people can paste it."""
    return " ".join([_program(), *(quoted(str(word)) for word in words)])


def _with_urls(value: object) -> object:
    if isinstance(value, str | Path):
        return shown(str(value))
    return [_with_urls(item) for item in value] if isinstance(value, list | tuple) else value


def _program() -> str:
    """How bacpipe is called: by its name where the shell finds this one, else by its path."""
    # Asked of the path that runs us, which may lie in a folder that this user cannot list.
    beside = shutil.which(str(Path(sys.executable).with_name("bacpipe")))
    on_path = shutil.which("bacpipe")
    if on_path is not None and (beside is None or Path(on_path).samefile(beside)):
        return "bacpipe"
    if beside is not None:
        return quoted(beside)
    return f"{quoted(sys.executable)} -m bacpipe"
