"""Sphinx extension: what the theme leaves out for people who use a keyboard or a screen reader.

Blocks of code that scroll can be reached by the keyboard, and captions of the menu have a level.
"""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx


def complete(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object
) -> None:
    """Change the HTML of a page before it is written."""
    changes = (
        ("body", "<pre>", '<pre tabindex="0">'),
        ("furo_navigation_tree", 'role="heading"', 'role="heading" aria-level="2"'),
        ("body", 'role="heading"', 'role="heading" aria-level="2"'),
    )
    for part, old, new in changes:
        if isinstance(context.get(part), str):
            context[part] = context[part].replace(old, new)


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx; furo makes its menu before."""
    app.connect("html-page-context", complete, priority=1000)
    return {"parallel_read_safe": True}
