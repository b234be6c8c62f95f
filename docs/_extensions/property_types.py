"""Sphinx extension: properties of the reference say what type they have.

Functions say it in their docstrings, with shapes and units; a property that is told in one line has
its annotation only.
"""

from __future__ import annotations

import inspect
from typing import Any

from sphinx.application import Sphinx

_AFTER_NUMPY_STYLE = 600


def type_of(value: object, lines: list[str]) -> list[str]:
    """Field with the type of a property, unless the lines of its docstring say it."""
    if not isinstance(value, property) or any(line.startswith(":returns:") for line in lines):
        return []
    hint = inspect.get_annotations(value.fget).get("return") if value.fget else None
    return ["", f":Type: ``{hint}``", ""] if hint else []


def _add_type(
    app: Sphinx, what: str, name: str, value: object, options: object, lines: list[str]
) -> None:
    lines += type_of(value, lines)


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _add_type, priority=_AFTER_NUMPY_STYLE)
    return {"parallel_read_safe": True}
