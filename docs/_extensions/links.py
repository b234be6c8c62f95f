"""Sphinx extension: ``{setting}`key` `` links to a key of the settings reference.

It also calls attributes by the name that the docstrings give them.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.domains.python import PyObject
from sphinx.roles import XRefRole


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_object_type("setting", "setting", indextemplate="pair: %s; setting", objname="setting")
    # The role that comes with the object type is silent about keys that do not exist.
    role = XRefRole(innernodeclass=nodes.literal, warn_dangling=True)
    app.add_role_to_domain("std", "setting", role, override=True)
    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"
    return {"parallel_read_safe": True}
