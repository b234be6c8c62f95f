"""Windows on their way to the Review tab, from whatever view has found them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bacpipe.dashboard.shared.results import ModelResults

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ClipsToReview:
    """Windows that somebody wants to hear and to mark, in this order.

    Attributes
    ----------
    results : ModelResults
        Whose windows they are; those of the model may be others once they are heard.
    rows : np.ndarray, int64, shape (n,)
        Windows, as these results number them.
    title : str
        What they are, for people: 'windows like the chosen one'.
    label : str
        Class that is in question; empty if visitors are to say one for each.
    scores : np.ndarray, float, shape (n,), optional
        What a model said of that class.
    chosen_by : str
        How they were chosen, as the journal of labels keeps it: 'search', 'top', 'review_plan'.
    scored_by : str
        Model or recogniser whose scores they are; `model` unless given.
    """

    results: ModelResults
    rows: np.ndarray
    title: str
    label: str = ""
    scores: np.ndarray | None = None
    chosen_by: str = ""
    scored_by: str = ""

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.results.name

    @property
    def windows(self) -> pd.DataFrame:
        """The windows by what names them in all results: recording, start, channel, and end."""
        table = self.results.window_table(self.rows)
        return table.rename(columns={"audiofilename": "recording"})

    @classmethod
    def of_table(
        cls, results: ModelResults, table: pd.DataFrame, title: str, label: str = ""
    ) -> ClipsToReview:
        """Take what `bacpipe.search`, `suggest` or `review_plan` returns for a model.

        Windows that its results do not have any more are left out, and scores of other classes.
        """
        rows = results.rows_of_table(table)
        is_there = np.array([row is not None for row in rows], bool)
        kept = table[is_there]

        def one(column: str) -> str:
            return str(kept[column].iloc[0]) if column in kept and len(kept) else ""

        scores = None
        if label and "score" in kept:
            of_label = kept["label"] == label if "label" in kept else True
            scores = np.where(of_label, kept["score"].to_numpy(np.float64), np.nan)
        return cls(
            results,
            np.array([row for row in rows if row is not None], np.int64),
            title,
            label,
            scores,
            one("chosen_by"),
            one("model"),
        )
