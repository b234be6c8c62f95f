"""Sphinx extension: ``{setting}`key` `` links to a key of the settings reference.

Keys are entries of the page's table of contents.  The extension also calls attributes by the name
that the docstrings give them.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.addnodes import desc_signature
from sphinx.application import Sphinx
from sphinx.domains.python import PyObject
from sphinx.domains.std import GenericObject
from sphinx.roles import XRefRole


class Setting(GenericObject):
    """A key, with what it does."""

    indextemplate = "pair: %s; setting"

    def _object_hierarchy_parts(self, sig_node: desc_signature) -> tuple[str, ...]:
        return (sig_node.astext(),)

    def _toc_entry_name(self, sig_node: desc_signature) -> str:
        return sig_node.astext()


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_object_type("setting", "setting", indextemplate="pair: %s; setting", objname="setting")
    app.add_directive_to_domain("std", "setting", Setting, override=True)
    # The role that comes with the object type is silent about keys that do not exist.
    role = XRefRole(innernodeclass=nodes.literal, warn_dangling=True)
    app.add_role_to_domain("std", "setting", role, override=True)
    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"
    return {"parallel_read_safe": True}
