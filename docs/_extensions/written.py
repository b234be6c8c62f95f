"""Write generated pages, and only those that changed, so that Sphinx rebuilds only these."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def write_pages(folder: Path, pages: Mapping[str, str]) -> None:
    """Make a folder hold exactly these Markdown pages.

    Parameters
    ----------
    folder : Path
        The folder; pages in it that are not among `pages` are removed.
    pages : mapping of str to str
        Text by file name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.md"):
        if path.name not in pages:
            path.unlink()
    for name, text in pages.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
