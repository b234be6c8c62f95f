"""What all views have in common."""

from __future__ import annotations

from typing import Any, ClassVar

import param

from bacpipe.dashboard.background import Background
from bacpipe.dashboard.shared.results import DataSet
from bacpipe.dashboard.shared.widgets import Notice


class View(param.Parameterized):
    """One tab of the page.

    A view keeps its state in parameters, and names those that the page's address keeps in
    `in_address`.  It is built when a visitor opens its tab for the first time.

    Parameters
    ----------
    data_set : DataSet
        What to show.

    Attributes
    ----------
    key : str
        Name of the tab in the address.
    title : str
        Name of the tab.
    help_text : str
        Markdown for people who are not programmers.
    in_address : dict of str to str
        Key in the address by parameter.
    """

    key: ClassVar[str]
    title: ClassVar[str]
    help_text: ClassVar[str]
    in_address: ClassVar[dict[str, str]] = {}

    def __init__(self, data_set: DataSet, **values: Any) -> None:
        super().__init__(**values)
        self.data_set = data_set
        self.background = Background()
        self.notice = Notice()

    def controls(self) -> Any:
        """Widgets for the column at the left."""
        raise NotImplementedError

    def body(self) -> Any:
        """What the view shows."""
        raise NotImplementedError

    def opened(self) -> None:
        """Called once, when the parameters hold what the page's address says."""

    def say(self, sentence: str = "") -> None:
        """Show a sentence above the view; none takes it away."""
        self.notice.say(sentence)
