"""Paths as people type them, and as they can type them."""

from __future__ import annotations

from pathlib import Path


def typed_path(path: str | Path) -> Path:
    """Path that a person has typed: a leading ``~`` is the home folder.

    Shells leave the ``~`` of ``audio_dir=~/recordings`` as it is, and so do YAML and Python.

    Examples
    --------
    >>> typed_path("~/recordings") == Path.home() / "recordings"
    True
    >>> typed_path("~recordings").as_posix()  # a folder may be called so
    '~recordings'
    """
    path = Path(path)
    return path.expanduser() if path.parts[:1] == ("~",) else path


def typed_setting(key: str, value: str | Path) -> str:
    """Word that sets a key on the command line, in quotes where the shell needs them.

    Double quotes hold in every shell, also in Windows'.

    Examples
    --------
    >>> typed_setting("audio_dir", "recordings")
    'audio_dir=recordings'
    >>> typed_setting("audio_dir", "my recordings")
    '"audio_dir=my recordings"'
    """
    word = f"{key}={value}"
    return f'"{word}"' if any(character in " '()&;*?<>|#~" for character in word) else word
