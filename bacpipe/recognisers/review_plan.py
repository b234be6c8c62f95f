"""Which windows to listen to next, so that few checks tell what scores mean."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bacpipe.audio.remote import shown
from bacpipe.errors import EvaluationError
from bacpipe.options import make_options
from bacpipe.recognisers.checked_scores import (
    Checked,
    Scores,
    checks_of,
    complete_from,
    counted_windows,
    fitted,
    least_asked,
    match,
    means,
    read_scores,
    require_share,
    results_of,
    what_is_known,
)
from bacpipe.recognisers.labelled import changed_recordings, class_names, tell_changed
from bacpipe.recognisers.recogniser import Recogniser
from bacpipe.recognisers.reliability import (
    PLAIN,
    Checks,
    Prior,
    Scale,
    Windows,
    allocate,
    fit_line,
    right_windows,
    score_strata,
)
from bacpipe.store.calibrations import logit
from bacpipe.store.tables import CHANNEL
from bacpipe.user_input import typed_seed

if TYPE_CHECKING:
    import pandas as pd

CHOSEN_BY = "review_plan"
_COLUMNS = (
    "recording", "start", "end", "label", "score", "stratum", "chosen_by",
    "inclusion_probability", "model", "value",
)  # fmt: skip
_PILOT = 16  # windows of a class to begin with


def review_plan(
    audio_dir: str | Path,
    model_or_recogniser: str | Path | Recogniser,
    *,
    width: float = 0.1,
    precision: float | None = None,
    classes: str | Sequence[str] | None = None,
    labels: pd.DataFrame | None = None,
    seed: int | None = None,
    **kwargs: object,
) -> pd.DataFrame:
    """Choose the windows to listen to next, so that few checks tell what the scores mean.

    What is to be known is, for each class, the share of right ones among all windows with a score,
    with a 95 % interval of a width.  The first round takes two windows of each of eight strata of
    scores.  Later rounds go by what the checks have shown: each further check where it narrows the
    interval most, among strata of scores and sites (Neyman's allocation, if strata had nothing to
    do with one another); within them windows are drawn at random.  Call it again after each round.

    Parameters
    ----------
    audio_dir : str or Path
        Folder with the recordings.
    model_or_recogniser : str, Path or Recogniser
        A model with stored predictions, or a recogniser: itself, its name or its folder.
    width : float
        Of the interval, between 0 and 1: 0.1 is ± 5 percentage points.
    precision : float, optional
        Only detections above the threshold for this precision matter to you: what is to be known
        is then the share of right ones among them.  The threshold is that of the checks so far; as
        long as it is above all scores, or there are no checks, all windows with a score count.
    classes : str or sequence of str, optional
        Classes; all that were found unless given.
    labels : pandas.DataFrame, optional
        Checks that were made, as for `calibrate`; those of the journal unless given.
    seed : int, optional
        Of the draws, for a plan that can be repeated.
    **kwargs
        Any key of the configuration.  With a `classifier_threshold` below that of the run, windows
        with lower scores are among those to check: the best five of each recording are stored.

    Returns
    -------
    pandas.DataFrame
        Windows of the next round: recording, start, end, channel (from 1; only with
        ``channel='each'``), label, score, stratum, chosen_by,
        inclusion_probability (of a window of this stratum in this round), model, and an empty
        value, to be filled with yes, no or unsure for `label_windows`.  ``attrs['bacpipe']`` says
        for each class its checks, the width so far, how many more are expected to be needed, and
        the threshold from which on windows count (None: all).
        A class that is known well enough has no row.

    Raises
    ------
    EvaluationError
        If a class was not found in these recordings.
    AnnotationsError
        If a row of `labels` is not possible, or none is about one of these recordings.

    Examples
    --------
    >>> import bacpipe
    >>> plan = bacpipe.review_plan(
    ...     "recordings", "birdnet", classes=["Great Horned Owl"], seed=1
    ... )
    >>> plan[["label", "chosen_by"]].iloc[0].tolist()
    ['Great Horned Owl', 'review_plan']
    """
    wanted = {"width": width} | ({} if precision is None else {"precision": precision})
    for key, value in wanted.items():
        require_share(value, key)
    loader = results_of(audio_dir, model_or_recogniser, make_options(**kwargs))
    table, names = checks_of(loader, labels), class_names(classes)
    scores = read_scores(
        loader,
        means(loader, [*names, *table["label"]]) if names else lambda name: True,
        below=least_asked(loader) < complete_from(loader) or len(table) > 0,
    )
    seed = typed_seed(seed)
    plan = _plan(scores, table, names, wanted, seed)
    # A data set may have many recordings, which are looked at only if some have changed.
    if changed_recordings(loader, plan["recording"].unique()):
        changed = changed_recordings(loader, scores.recordings)
        tell_changed(changed)
        plan = _plan(scores.without({*changed}), table, names, wanted, seed)
    return plan


def _plan(
    scores: Scores,
    table: pd.DataFrame,
    names: Sequence[str],
    wanted: Mapping[str, float],
    seed: int | None,
) -> pd.DataFrame:
    """The next round, of the classes with these names."""
    import pandas as pd

    loader = scores.loader
    scores, checked = counted_windows(scores, match(scores, table))
    chosen = [_known_class(scores, name) for name in names] or list(scores.classes)
    scale, checks, prior = fitted(scores, checked)
    rng = np.random.default_rng(seed)
    parts: list[pd.DataFrame] = []
    about: dict[str, dict[str, float | int | None]] = {}
    for name in sorted(set(chosen)):
        drawn, about[name] = _next_round(
            scores, name, checked.get(name), checks.get(name), scale, prior, wanted, rng
        )
        row = np.array(drawn.pop("row"), dtype=np.int64)
        scored = scores.classes[name]
        columns = {
            "recording": [scores.recordings[i] for i in scored.recording[row]],
            "start": scored.start[row], "end": scored.end[row], "label": name,
            "score": scored.score[row], **drawn, "chosen_by": CHOSEN_BY, "model": scores.model,
            "value": "",
        }  # fmt: skip
        names_of_columns = [*_COLUMNS]
        if loader.channels is not None:
            columns[CHANNEL] = scored.channel[row]
            names_of_columns.insert(3, CHANNEL)
        parts.append(pd.DataFrame(columns)[names_of_columns])
    plan = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=_COLUMNS)
    plan.attrs["bacpipe"] = about
    return plan


def _known_class(scores: Scores, name: str) -> str:
    known = scores.names.get(str(name).casefold(), str(name))
    if known not in scores.classes:
        near = difflib.get_close_matches(str(name), [*scores.classes], 1)
        raise EvaluationError(
            f"{scores.model} has found no {name!r} in {shown(scores.loader.audio_dir)}"
            f"{f'; did you mean {near[0]!r}?' if near else '.'}"
        )
    return known


def _least(checks: Checks, prior: Prior | None, precision: float | None, x: np.ndarray) -> float:
    """Least of the scores (on the scale of the curves) that count for a precision; -inf: all."""
    a, b = fit_line(checks, prior or PLAIN)
    if precision is None or b <= 0:
        return -math.inf
    least = float((logit(precision) - a) / b)
    return least if x.min() < least <= x.max() else -math.inf


def _next_round(
    scores: Scores,
    name: str,
    checked_windows: Checked | None,
    checks: Checks | None,
    scale: Scale,
    prior: Prior | None,
    wanted: Mapping[str, float],
    rng: np.random.Generator,
) -> tuple[dict[str, list[Any]], dict[str, float | int | None]]:
    """Columns of the plan of one class, and what is known of it."""
    scored = scores.classes[name]
    if checked_windows is None or checks is None:
        x = scale.x(scored.score)
        rows = np.arange(len(x))
        if checked_windows is not None:  # of which none tells anything
            rows = np.setdiff1d(rows, checked_windows.row)
        cell = np.searchsorted(score_strata(x), x[rows], side="right")
        strata = np.unique(cell)
        order = np.repeat(strata, -(-_PILOT // max(1, len(strata))))
        site = np.zeros(len(x), dtype=np.int64)
        about: dict[str, float | int | None] = {"checks": 0, "width": None, "more": None}
        about["threshold"] = None
    else:
        known = what_is_known(name, scores, checked_windows, checks, scale, prior)
        told = checked_windows.telling.row
        rows, cell, site = known.rows, known.unchecked.cell, known.site
        least = _least(checks, prior, wanted.get("precision"), known.x)
        cells = np.flatnonzero(known.unchecked.x >= least)
        x, sites, windows = (part[cells] for part in known.unchecked[:3])
        unchecked = Windows(x, sites, windows, cell)
        all_, checked = (int((part >= least).sum()) for part in (known.x, known.x[told]))
        right = known.right
        if least > -math.inf:
            right = right_windows(known.p[cells], unchecked, len(scores.sites), rng)
        share = right.sum(axis=0) / all_
        now = float(np.diff(np.quantile(share, [0.025, 0.975]))[0])
        needed = allocate(
            known.p[cells, ::4], unchecked, checked=checked, now=now, wanted=wanted["width"]
        )
        order = cells[needed.order[: max(_PILOT // 2, len(told) // 2)]]
        about = {"checks": len(told), "width": now, "more": len(needed.order)}
        about["threshold"] = None if least == -math.inf else float(scale.score(np.array(least)))
    plan: dict[str, list[Any]] = {"row": [], "stratum": [], "inclusion_probability": []}
    for number, count in zip(*np.unique(order, return_counts=True), strict=True):
        there = rows[cell == number]
        drawn = rng.choice(there, min(count, len(there)), replace=False)
        ends = scored.score[there].min(), scored.score[there].max()
        place = f", {scores.sites[site[there[0]]]}" if checks is not None else ""
        plan["row"] += drawn.tolist()
        plan["stratum"] += [f"score {ends[0]:.3f} to {ends[1]:.3f}{place}"] * len(drawn)
        plan["inclusion_probability"] += [len(drawn) / len(there)] * len(drawn)
    return plan, about
