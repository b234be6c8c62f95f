"""List of the classes that a model found, to search and choose from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import panel as pn
from bokeh.models import NumberFormatter, StringFormatter

from bacpipe.dashboard.style import CSS, TABLE_CSS
from bacpipe.evaluation.names import plain


class SpeciesList:
    """Search box above a table of classes with their counts, the most frequent first.

    Parameters
    ----------
    on_choice : callable
        Gets the class that was clicked.

    Attributes
    ----------
    panel : panel object
        What to put on a page.
    """

    def __init__(self, on_choice: Callable[[str], None]) -> None:
        self._on_choice = on_choice
        self._names: tuple[str, ...] = ()
        self._plain: list[str] = []
        self._counts = np.zeros(0, np.int64)
        self._chosen: str | None = None
        self._search = pn.widgets.TextInput(
            placeholder="search species", sizing_mode="stretch_width", margin=(0, 10)
        )
        self._search.param.watch(lambda _: self._fill(), "value_input")
        self._table = pn.widgets.Tabulator(
            pd.DataFrame({"species": [], "detections": []}),
            pagination="remote",
            page_size=9,
            disabled=True,
            selectable=1,
            show_index=False,
            layout="fit_columns",
            theme="simple",
            formatters={
                "species": StringFormatter(),  # names are text, never markup
                "detections": NumberFormatter(format="0,0"),
            },
            text_align={"detections": "right"},
            titles={"detections": "n"},
            widths={"detections": 62},
            stylesheets=[TABLE_CSS],
            sizing_mode="stretch_width",
            margin=(0, 10),
        )
        self._table.on_click(lambda event: self._choose(event.row))
        self._heading = pn.pane.HTML("", css_classes=["bp-note"], margin=(4, 10, 2, 10))
        self.panel = pn.Column(
            self._heading, self._search, self._table, stylesheets=[CSS],
            sizing_mode="stretch_width", margin=0,
        )  # fmt: skip

    def show(self, names: Sequence[str], counts: np.ndarray, chosen: str | None) -> None:
        """List classes.

        Parameters
        ----------
        names : sequence of str
            Classes.
        counts : np.ndarray, int64, shape (classes,)
            Detections of each; classes without one are left out.
        chosen : str, optional
            The class that is shown now.
        """
        if tuple(names) != self._names:
            self._names, self._plain = tuple(names), [plain(name) for name in names]
        self._counts, self._chosen = counts, chosen
        kinds = int((counts > 0).sum())
        self._heading.object = f"{kinds:,} species (classes) at this threshold"
        self._fill()

    def _fill(self) -> None:
        wanted = plain(self._search.value_input or "")
        order = [
            i
            for i in np.argsort(-self._counts, kind="stable")
            if self._counts[i] and wanted in self._plain[i]
        ]
        listed = [self._names[i] for i in order]
        self._table.selection = []
        self._table.value = pd.DataFrame({"species": listed, "detections": self._counts[order]})
        if self._chosen in listed:
            place = listed.index(self._chosen)
            self._table.page = place // self._table.page_size + 1
            self._table.selection = [place]
        else:
            self._table.page = 1

    def _choose(self, row: int) -> None:
        self._on_choice(str(self._table.value["species"].iloc[row]))
