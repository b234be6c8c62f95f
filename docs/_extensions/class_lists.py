"""Sphinx extension: the classes of a model on its page, with a box to search them.

A model's page says by a comment where the list comes.  It is made of names that come with an
installed package or with the model's card, so that a build needs no download, and of what
``bacpipe models get --names --all model_base_path=docs/_build/names`` has fetched before.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from model_pages import CLASS_LIST
from sphinx.application import Sphinx
from sphinx.util import logging

from bacpipe.commands.classes import class_rows, knows_classes, telling_columns
from bacpipe.errors import CheckpointError, ModelUnavailableError
from bacpipe.models.card import ModelCard
from bacpipe.models.zoo import CARDS

logger = logging.getLogger(__name__)

_HEADER = ("class", "scientific name", "code")
_NAMES = Path(__file__).parents[1] / "_build" / "names"


def class_list(card: ModelCard, names: Path = _NAMES) -> str:
    """HTML of the list; ``class_lists.js`` adds the box."""
    try:
        rows = card.known_classes or (knows_classes(card, names) and class_rows(card, names))
    # What reads its names needs its extra, or its authors have changed their list meanwhile.
    except (ModelUnavailableError, CheckpointError) as error:
        logger.info("%s: its classes are not listed: %s", card.name, error)
        return ""
    if not rows:
        return ""
    kept = telling_columns(rows)
    body = "\n".join(_row("td", [row[n] for n in kept]) for row in rows)
    head = _row('th scope="col"', [_HEADER[n] for n in kept])
    return (
        f'<div class="class-list" data-model="{card.name}">\n'
        f'<div class="class-rows" tabindex="0" role="region" aria-label="Classes of {card.name}">\n'
        f"<table>\n<thead>{head}</thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>\n</div>"
    )


def _row(tag: str, cells: Sequence[str]) -> str:
    end = tag.partition(" ")[0]
    # The search index is made of what is left without the tags.
    return "<tr>" + " ".join(f"<{tag}>{escape(cell)}</{end}>" for cell in cells) + "</tr>"


def insert(app: Sphinx, docname: str, content: list[str]) -> None:
    """Put the list where the page says."""
    name = re.fullmatch(r"models/(\w+)", docname)
    if name and CLASS_LIST in content[0]:
        listed = class_list(CARDS[name[1]])
        shown = f"```{{raw}} html\n{listed}\n```" if listed else ""
        content[0] = content[0].replace(CLASS_LIST, shown)


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("source-read", insert)
    app.add_js_file("class_lists.js")
    return {"parallel_read_safe": True}
