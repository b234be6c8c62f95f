"""Sphinx extension: ``{dashboard-view}`` shows a view of the dashboard.

That is its picture, such as ``images/dashboard_all_models.png``, where there is one, and the help
text that the view itself shows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from bacpipe.dashboard.page import VIEWS


class DashboardView(SphinxDirective):
    """Picture and help text of the view that the argument names by its title."""

    required_arguments: ClassVar[int] = 1
    final_argument_whitespace: ClassVar[bool] = True

    def run(self) -> list[nodes.Node]:
        """Make the nodes."""
        title = self.arguments[0]
        view = next((view for view in VIEWS if view.title == title), None)
        if view is None:
            known = ", ".join(view.title for view in VIEWS)
            raise self.error(f"the dashboard has no view {title!r}; it has {known}")
        text = view.help_text.strip()
        picture = f"images/dashboard_{title.lower().replace(' ', '_')}.png"
        if (Path(self.env.srcdir) / picture).exists():
            text = f"![{view.title}](/{picture})\n\n{text}"
        container = nodes.container()
        self.state.nested_parse(StringList(text.splitlines(), source=view.__name__), 0, container)
        return list(container.children)


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("dashboard-view", DashboardView)
    return {"parallel_read_safe": True}
