"""Commands that people can paste: with all that is needed to find the same results."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

from bacpipe.audio.remote import shown
from bacpipe.options import Options, needed_to_read
from bacpipe.store.selection import AudioDir
from bacpipe.user_input import typed_setting


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
    words = [typed_setting(key, _typed(value)) for key, value in settings.items()]
    return " ".join([_program(), *command.split(), *words])


def _typed(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(shown(str(item)) for item in value)}]"
    if value is None:
        return "null"
    return shown(str(value))


def _program() -> str:
    """How bacpipe is called: by its name where the shell finds this one, else by its path."""
    # Asked of the path that runs us, which may lie in a folder that this user cannot list.
    beside = shutil.which(str(Path(sys.executable).with_name("bacpipe")))
    on_path = shutil.which("bacpipe")
    if on_path is not None and (beside is None or Path(on_path).samefile(beside)):
        return "bacpipe"
    if beside is not None:
        return _quoted(Path(beside))
    return f"{_quoted(Path(sys.executable))} -m bacpipe"


def _quoted(path: Path) -> str:
    return f'"{path}"' if sys.platform == "win32" and " " in str(path) else shlex.quote(str(path))
