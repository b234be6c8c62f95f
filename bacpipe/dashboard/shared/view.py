"""What all views have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import panel as pn
import param

from bacpipe.dashboard.background import Background
from bacpipe.dashboard.shared.results import DataSetResults
from bacpipe.dashboard.shared.spectrogram_figure import SpectrogramSettings
from bacpipe.dashboard.shared.to_review import ClipsToReview
from bacpipe.dashboard.shared.widgets import Notice, heading

_LONGEST_NAME = 100  # letters


class Visitor(param.Parameterized):
    """Who looks at a page.

    Attributes
    ----------
    annotator : str
        The name under which labels are kept; empty until it is known.
    """

    annotator: Any = param.String(default="")

    def rename(self, name: str) -> None:
        """Keep labels under a name: one line, and no longer than people read."""
        self.annotator = " ".join(name.split())[:_LONGEST_NAME]

    def name_field(self, **look: Any) -> Any:
        """Field for the name; what is typed into one of them is in all of this visitor's."""
        field = pn.widgets.TextInput(
            label="Your name", placeholder="kept with each label", value=self.annotator, **look
        )

        def take(event: Any) -> None:
            self.rename(event.new or "")
            field.value = self.annotator

        field.param.watch(take, "value")
        self.param.watch(lambda event: field.param.update(value=event.new), "annotator")
        return field


class View(param.Parameterized):
    """One tab of the page, built when a visitor opens it for the first time.

    Attributes
    ----------
    key, title : str
        Name of the tab in the address, and on the page.
    help_text : str
        Markdown for people who are not programmers.
    in_address : dict of str to str
        Key in the address by parameter, for those parameters that the address keeps.
    spectrograms : SpectrogramSettings
        How the visitor wants spectrograms to look; the address keeps it, too.
    """

    key: ClassVar[str]
    title: ClassVar[str]
    help_text: ClassVar[str]
    in_address: ClassVar[dict[str, str]] = {}

    def __init__(self, data_set: DataSetResults, **values: Any) -> None:
        super().__init__(**values)
        self.data_set = data_set
        self.visitor = Visitor()
        self._review: Callable[[ClipsToReview], None] | None = None
        self.notice = Notice()
        self.background = Background(self.notice.panel)
        self.spectrograms = SpectrogramSettings()

    def put_on_page(
        self, visitor: Visitor, review: Callable[[ClipsToReview], None] | None = None
    ) -> None:
        """Called once, before anything is laid out: who looks, and what opens the Review tab."""
        self.visitor, self._review = visitor, review

    @property
    def may_label(self) -> bool:
        """Whether visitors of this server may label, and the one of this page has a name."""
        return self.data_set.may_edit and bool(self.visitor.annotator.strip())

    @property
    def can_review(self) -> bool:
        """Whether there is a Review tab to send windows to."""
        return self._review is not None

    def send_to_review(self, clips: ClipsToReview) -> None:
        """Open the Review tab with these windows as its queue."""
        if self._review is not None:
            self._review(clips)

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


class ViewOfParts(View):
    """View that shows one of several parts, some of which have choices of their own.

    Attributes
    ----------
    parts : dict of str to str
        Values of the parameter `part` by their title.
    """

    parts: ClassVar[dict[str, str]]
    part: Any

    def __init__(self, data_set: DataSetResults, **values: Any) -> None:
        super().__init__(data_set, **values)
        self._content = pn.Column(sizing_mode="stretch_width", min_height=200, margin=(4, 8))
        self._choices: dict[str, Sequence[Any]] = {}

    def controls(self) -> Any:
        return pn.Column(
            heading("Show"),
            pn.widgets.RadioBoxGroup.from_param(
                self.param.part, options=self.parts, label="Show", margin=(5, 10)
            ),
            *(widget for widgets in self._choices.values() for widget in widgets),
            sizing_mode="stretch_width",
        )

    def body(self) -> Any:
        return self._content

    def _offer_choices(self) -> None:
        """Show the choices of the present part only."""
        for part, widgets in self._choices.items():
            for widget in widgets:
                widget.visible = part == self.part
