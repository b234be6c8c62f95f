"""Paths as people type them."""

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
