"""How far the people who labelled agree, beyond what chance would give.

Cohen's kappa (1960, https://doi.org/10.1177/001316446002000104) is of two people; Krippendorff's
alpha (2011, "Computing Krippendorff's Alpha-Reliability") of any number, each of whom may have
judged other windows.  Both are 1 for full agreement and 0 for that of dice; ``unsure`` is no
judgement.
"""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bacpipe.labels.people import people_labels
from bacpipe.store.judgements import NO, YES
from bacpipe.store.tables import CHANNEL, channels_of

if TYPE_CHECKING:
    import pandas as pd


def label_agreement(
    audio_dir: str | Path,
    **kwargs: Any,  # noqa: ANN401 (handed on to people_labels)
) -> pd.DataFrame:
    """Compare the judgements of every two people who have labelled the same windows.

    Parameters
    ----------
    audio_dir : str or Path
        Folder with the recordings.
    **kwargs
        Any key of the configuration; main_results_dir says where results are.

    Returns
    -------
    pandas.DataFrame
        A row for each label and pair of annotators with windows in common: label, first, second,
        windows (that both judged with yes or no), agreement (the share on which they agree),
        cohen_kappa, and krippendorff_alpha of all annotators of the label.  NaN where all
        judgements are the same, so that nobody can tell agreement from habit.

    Examples
    --------
    >>> import bacpipe
    >>> rows = [{"recording": "SITE-A/20250504_043000.wav", "start": i, "end": i + 1,
    ...          "label": "rail"} for i in range(4)]
    >>> for who, heard in {"Ana": "yyyn", "Ben": "yynn"}.items():
    ...     n = bacpipe.label_windows("recordings", [
    ...         {**row, "value": "yes" if x == "y" else "no"}
    ...         for row, x in zip(rows, heard)], annotator=who)
    >>> table = bacpipe.label_agreement("recordings").set_index("label")
    >>> [float(table.loc["rail", name]) for name in ("windows", "agreement", "cohen_kappa")]
    [4.0, 0.75, 0.5]
    """
    import pandas as pd

    table = people_labels(audio_dir, **kwargs)
    table = table[table["value"].isin([YES, NO])]
    rows, what = [], ["recording", "start", "end"]
    if CHANNEL in table:  # 0 for all channels together, because a pivot drops what is missing
        table, what = table.assign(**{CHANNEL: channels_of(table)}), [*what, CHANNEL]
    for label, part in table.groupby("label"):
        said = part.assign(heard=(part["value"] == YES).astype(float)).pivot_table(
            index=what, columns="annotator", values="heard"
        )
        alpha = krippendorff_alpha(said.to_numpy())
        for first, second in combinations(said.columns, 2):
            both = said[[first, second]].dropna().to_numpy()
            if len(both):
                same = float((both[:, 0] == both[:, 1]).mean())
                kappa = cohen_kappa(both[:, 0], both[:, 1])
                rows.append((label, first, second, len(both), same, kappa, alpha))
    columns = ["label", "first", "second", "windows", "agreement", "cohen_kappa",
               "krippendorff_alpha"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def cohen_kappa(one: np.ndarray, other: np.ndarray) -> float:
    """Kappa of two people's judgements, 0 and 1, float64 of shape (windows,)."""
    chance = one.mean() * other.mean() + (1 - one.mean()) * (1 - other.mean())
    return float(((one == other).mean() - chance) / (1 - chance)) if chance < 1 else float("nan")


def krippendorff_alpha(said: np.ndarray) -> float:
    """Alpha of judgements, 0, 1 or NaN for none, float64 of shape (windows, annotators)."""
    judged = np.isfinite(said).sum(axis=1)
    said, judged = said[judged > 1], judged[judged > 1]
    ones = np.nansum(said, axis=1)
    total, heard = judged.sum(), ones.sum()
    if not 0 < heard < total:
        return float("nan")
    # Pairs within a window that differ, against pairs of all judgements that do.
    observed = (2 * ones * (judged - ones) / (judged - 1)).sum() / total
    expected = 2 * heard * (total - heard) / (total * (total - 1))
    return float(1 - observed / expected)
