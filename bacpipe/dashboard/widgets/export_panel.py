"""Download of the windows that a visitor has chosen."""

from __future__ import annotations

import asyncio
import html
import io
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import panel as pn

from bacpipe.dashboard.background import sentence_of
from bacpipe.dashboard.data.export import (
    MOST_CLIPS,
    Exported,
    as_clips,
    as_csv,
    as_raven_table,
    download_name,
)
from bacpipe.dashboard.data.labels import Labels
from bacpipe.dashboard.data.results import ModelResults


class _Kind(NamedTuple):
    make: Callable[[ModelResults, np.ndarray, Labels | None], Exported]
    ending: str


_KINDS = {
    "Table (CSV)": _Kind(as_csv, "windows.csv"),
    "Raven selection table": _Kind(as_raven_table, "windows.selection.table.txt"),
    "Audio clips (ZIP)": _Kind(as_clips, "clips.zip"),
}


class ExportPanel:
    """Format, button and a sentence.

    Parameters
    ----------
    dataset : str
        Name of the data set, for the names of the files.

    Attributes
    ----------
    panel : panel object
    """

    def __init__(self, dataset: str) -> None:
        self._dataset = dataset
        self._results: ModelResults | None = None
        self._rows = np.zeros(0, np.int64)
        self._labels: Labels | None = None
        self._remark = ""
        self._kind = pn.widgets.Select(
            label="Download as", options=list(_KINDS), sizing_mode="stretch_width", margin=(2, 5)
        )
        self._button = pn.widgets.FileDownload(
            callback=self._make, filename="windows.csv", label="Download", color="primary",
            css_classes=["bp-download"], sizing_mode="stretch_width", margin=(4, 5),
            disabled=True, auto=True,
        )  # fmt: skip
        self._note = pn.pane.HTML("", css_classes=["bp-note"], margin=(2, 5))
        self._kind.param.watch(lambda _: self._update(), "value")
        self.panel = pn.Column(
            self._kind, self._button, self._note, sizing_mode="stretch_width", margin=0
        )

    def offer(
        self, results: ModelResults, rows: np.ndarray, labels: Labels | None, what: str
    ) -> None:
        """Offer other windows.

        Parameters
        ----------
        results : ModelResults
            Whose windows.
        rows : np.ndarray, int, shape (n,)
            Which of them.
        labels : Labels, optional
            What the files say about them.
        what : str
            What they are, such as 'selected'.
        """
        self._results, self._rows, self._labels = results, rows, labels
        self._what, self._remark = what, ""
        self._update()

    def _update(self) -> None:
        if self._results is None:
            return
        count, kind = len(self._rows), _KINDS[self._kind.value]
        too_many = kind.make is as_clips and count > MOST_CLIPS
        text = f"{count:,} {self._what} window{'' if count == 1 else 's'}."
        if too_many:
            text += (
                f" At most {MOST_CLIPS} clips can be downloaded at once: select fewer with the "
                f"lasso, or filter."
            )
        self._note.object = html.escape(f"{text} {self._remark}".strip())
        self._button.param.update(
            filename=download_name(self._results, self._dataset, kind.ending),
            disabled=count == 0 or too_many,
        )

    async def _make(self) -> io.BytesIO:
        """Make the file in a thread, so that other visitors need not wait."""
        assert self._results is not None
        kind = _KINDS[self._kind.value]
        self._button.loading = True
        try:
            made = await asyncio.to_thread(kind.make, self._results, self._rows, self._labels)
        except Exception as error:  # told to the visitor, in the page and in the file
            made = Exported(b"", sentence_of(error))
        finally:
            self._button.loading = False
        self._remark = made.remark
        self._update()
        return io.BytesIO(made.content)
