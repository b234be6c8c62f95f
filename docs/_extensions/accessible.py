"""Sphinx extension: what the theme leaves out for people who look closely, or do not look at all.

Code and outputs that scroll can be reached by the keyboard, captions of the menu have a level, and
pictures lead to themselves in full size.
"""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

# One that is no link yet.
_PICTURE = re.compile(r'(?<!">)(<img [^>]*src="([^"]*_images/[^"]+)"[^>]*>)')


def complete(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object
) -> None:
    """Change the HTML of a page before it is written."""
    changes = (
        ("body", "<pre>", '<pre tabindex="0">'),
        ("body", '<div class="cell_output', '<div tabindex="0" class="cell_output'),
        ("furo_navigation_tree", 'role="heading"', 'role="heading" aria-level="2"'),
        ("body", 'role="heading"', 'role="heading" aria-level="2"'),
    )
    for part, old, new in changes:
        if isinstance(context.get(part), str):
            context[part] = context[part].replace(old, new)
    if isinstance(context.get("body"), str):
        context["body"] = _PICTURE.sub(r'<a class="picture" href="\2">\1</a>', context["body"])


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx; furo makes its menu before."""
    app.connect("html-page-context", complete, priority=1000)
    return {"parallel_read_safe": True}
