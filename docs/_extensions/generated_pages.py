"""Sphinx extension: makes the pages that say what the package itself says.

Model pages come from the cards, the settings reference from the YAML files, the reference of
the command line from its own help, the API reference from the public names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import api_pages
import command_page
import model_pages
import notebook_page
import settings_page
from sphinx.application import Sphinx
from written import write_pages

_OPTIONAL = ("reliability", "reference/notebooks")


def make_pages(app: Sphinx) -> None:
    """Write all generated pages below the documentation's folder."""
    source = Path(app.srcdir)
    write_pages(source / "models", model_pages.pages())
    write_pages(
        source / "reference",
        {
            "settings.md": settings_page.page(),
            "command_line.md": command_page.page(),
            **notebook_page.pages(),
        },
    )
    write_pages(source / "reference" / "api", api_pages.pages())


def drop_missing_pages(app: Sphinx, docname: str, content: list[str]) -> None:
    """Leave pages out of the menu that this checkout does not have."""
    if docname == "index":
        for page in _OPTIONAL:
            if not (Path(app.srcdir) / f"{page}.md").exists():
                content[0] = content[0].replace(f"\n{page}\n", "\n")


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("builder-inited", make_pages)
    app.connect("source-read", drop_missing_pages)
    return {"parallel_read_safe": True}
