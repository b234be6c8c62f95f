"""Sphinx extension: makes the pages that say what the package itself says.

Model pages come from the cards, the settings reference from the YAML files, the reference of
the command line from its own help, the API reference from the public names.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import api_pages
import command_page
import model_pages
import notebook_page
import settings_page
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from written import write_pages

from bacpipe.models.zoo import CARDS

# Blocks of code, and what their marks tell the tests.
_TABS = re.compile(
    r"^<!-- tabs -->\n((?:\n*(?:<!-- .*? -->\n)?^```\w+\n.*?^```$)+)", re.MULTILINE | re.DOTALL
)

# On a code host, pages lead to what the repository has; on the site, to the page about it.
_ON_THE_SITE = {"settings.yaml": "/reference/settings.md", "examples": "/reference/notebooks.md"}


def make_pages(app: Sphinx) -> None:
    """Write all generated pages below the documentation's folder."""
    source = Path(app.srcdir)
    write_pages(source / "models", model_pages.pages())
    write_pages(
        source / "reference",
        {
            "settings.md": settings_page.page(),
            "command_line.md": command_page.page(),
            "notebooks.md": notebook_page.index(),
        },
    )
    write_pages(source / "reference" / "settings", settings_page.parts())
    write_pages(source / "reference" / "api", api_pages.pages())
    notebook_page.make_pages(source / "examples")


def complete(app: Sphinx, docname: str, content: list[str]) -> None:
    """Add menus, index entries and tabs, lead links to pages that only a build makes, class tables.

    None of these would be readable on a code host.  Index entries are the words that people look
    for, by which the search of the site finds a page before all that merely hold them.
    """
    for place, page in _ON_THE_SITE.items():
        content[0] = re.sub(rf"\]\((\.\./)+{re.escape(place)}\)", f"]({page})", content[0])
    content[0] = re.sub(r"<!-- class: ([\w-]+) -->", r"```{rst-class} \1\n```", content[0])
    content[0] = re.sub(r"<!-- index: (.*?)\s-->", _index_entries, content[0], flags=re.DOTALL)
    content[0] = _TABS.sub(r":::{container} tabs\n\1\n:::", content[0])
    if docname == "models/index":
        content[0] += "\n```{toctree}\n:hidden:\n:maxdepth: 1\n\n" + "\n".join(CARDS) + "\n```\n"
    if docname == "index":
        menu = Path(__file__).with_name("menu.md").read_text(encoding="utf-8")
        content[0] += f"\n{menu}"


def _index_entries(comment: re.Match[str]) -> str:
    entries = ", ".join(f"! {' '.join(entry.split())}" for entry in comment[1].split(";"))
    return f"```{{index}} {entries}\n```"


def add_keywords(app: Sphinx, doctree: nodes.document) -> None:
    """Let the search find a page by any words of its main index entries, not by these alone."""
    entries = [
        value
        for index in doctree.findall(addnodes.index)
        for _, value, _, main, _ in index["entries"]
        if main
    ]
    if words := dict.fromkeys(" ".join(entries).split()):
        doctree += nodes.meta(name="keywords", content=", ".join(words))


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("builder-inited", make_pages)
    app.connect("source-read", complete)
    app.connect("doctree-read", add_keywords)
    app.add_js_file("tabs.js")
    return {"parallel_read_safe": True}
