"""Scores of windows, what people have checked of them, and what that says of the others."""

from __future__ import annotations

import difflib
import logging
import math
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from bacpipe.annotations.table import check_labels
from bacpipe.audio.remote import shown
from bacpipe.errors import EvaluationError, ResultsNotFoundError, SettingsError, counted
from bacpipe.labels.model_windows import model_windows
from bacpipe.labels.people import current_labels, settled_labels
from bacpipe.models.zoo import CARDS
from bacpipe.options import Options
from bacpipe.recognisers.labelled import of_these_recordings, recording_key, warn
from bacpipe.recognisers.recogniser import Recogniser, RecogniserResults, find_recogniser
from bacpipe.recognisers.reliability import (
    USUAL,
    Checks,
    Model,
    Prior,
    Scale,
    Windows,
    right_windows,
    shared_prior,
)
from bacpipe.store.data_set_folder import paths_of
from bacpipe.store.judgements import NO, UNSURE, YES
from bacpipe.store.loader import Loader
from bacpipe.store.selection import data_set_of
from bacpipe.store.tables import CHANNEL
from bacpipe.store.whereabouts import Whereabouts

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

_REQUIRED = ("recording", "start", "end", "label", "value")
_NONE = np.zeros(0)


def require_share(value: object, what: str) -> None:
    """Raise a SettingsError unless a value is a number between 0 and 1."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise SettingsError(f"{what}={value!r} is not possible: expected a number.")
    if not 0 < value < 1:
        raise SettingsError(f"{what}={value!r} is not possible: expected a number between 0 and 1.")


def results_of(audio_dir: str | Path, which: str | Path | Recogniser, options: Options) -> Loader:
    """Scores of a model, or of a recogniser, which is applied if that is not done yet."""
    if not isinstance(which, str | Path | Recogniser):
        raise SettingsError(
            f"{which!r} is not possible: expected a Recogniser, or the name of a model or "
            f"recogniser."
        )
    if isinstance(which, str):
        of_model = Loader(audio_dir, which, options=options)
        if of_model.embedding_set is not None or of_model.model_name in CARDS:
            return of_model
    try:
        recogniser = find_recogniser(which, paths_of(audio_dir, "none", options))
    except ResultsNotFoundError as error:
        folder = data_set_of(audio_dir).folder
        raise ResultsNotFoundError(
            f"{shown(folder)}: there are no results of {str(which)!r}: no model of this name "
            f"has run there, and {str(error).partition(': ')[2]}"
        ) from None
    return recogniser.results(Loader(audio_dir, recogniser.model, options=options))


class Scored(NamedTuple):
    """Windows with a score of one class.

    Attributes
    ----------
    recording : np.ndarray, int64, shape (n,)
        Number of the recording.
    start, end : np.ndarray, float64, shape (n,)
        Seconds.
    score : np.ndarray, float64, shape (n,)
    channel : np.ndarray, int64, shape (n,)
        From 1; 0 where it is of no single one.
    """

    recording: np.ndarray
    start: np.ndarray
    end: np.ndarray
    score: np.ndarray
    channel: np.ndarray


@dataclass(frozen=True)
class Scores:
    """All scores of a model in a set of recordings.

    Attributes
    ----------
    model : str
        Of the model or recogniser.
    recordings, sites : list of str
        Names.
    site : np.ndarray, int64, shape (recordings,)
        Number of each recording's site.
    windows : np.ndarray, int64, shape (recordings,)
        How many windows each has.
    threshold : float
        Lowest score of which all windows are known; of lower ones only the best are.
    classes : dict of str to Scored
    names : dict of str to str
        Class by its name, scientific name or code, in small letters.
    """

    loader: Loader
    model: str
    recordings: list[str]
    sites: list[str]
    site: np.ndarray
    windows: np.ndarray
    threshold: float
    classes: dict[str, Scored]
    names: dict[str, str]

    def site_of(self, scored: Scored) -> np.ndarray:
        """Number of the site of each window, int64."""
        return np.asarray(self.site[scored.recording])

    def without(self, names: Collection[str]) -> Scores:
        """The same without the windows of some recordings, and without classes in no others."""
        out = np.array([name in names for name in self.recordings])
        classes = {}
        for label, scored in self.classes.items():
            kept = ~out[scored.recording]
            if kept.any() or not len(kept):  # none: not read
                classes[label] = Scored(*(column[kept] for column in scored))
        return replace(self, classes=classes)


def read_scores(loader: Loader, wanted: Callable[[str], bool], *, below: bool) -> Scores:
    """Scores of some classes; with `below`, those below the threshold of the run, too."""
    entries = loader.entries
    recordings = list(entries)
    number = {name: i for i, name in enumerate(recordings)}
    parts: dict[str, list[tuple[np.ndarray, ...]]] = {}
    windows = model_windows(loader)
    rows = dict(windows.slices())
    for item in loader.scores() if below else loader.detections():
        for label in np.unique(item.label.astype(str)).tolist():
            parts.setdefault(label, [])
            if wanted(label):
                here = item.label == label
                place = np.full(int(here.sum()), number[item.recording])
                columns = (item.start[here], item.end[here], item.score[here].astype(np.float64))
                heard = windows.channels[rows[item.recording]][item.window[here]]
                parts[label].append((place, *columns, heard))
    none = tuple(np.zeros(0, kind) for kind in (np.int64, float, float, float, np.int64))
    classes = {
        label: Scored(*(np.concatenate(column) for column in zip(none, *items, strict=True)))
        for label, items in parts.items()
    }
    where = Whereabouts(loader)
    places = [where.of(name).site for name in recordings]
    sites = sorted({*places})
    rank = {name: i for i, name in enumerate(sites)}
    names: dict[str, str] = {}
    for label, known in loader.classes.names.items():
        for other in (known.scientific_name, known.code):
            names.setdefault(other.casefold(), label)
    names |= {label.casefold(): label for label in [*loader.classes.names, *classes]}
    return Scores(
        loader,
        str(loader.model_name),
        recordings,
        sites,
        np.array([rank[place] for place in places], dtype=np.int64),
        np.array([entries[name].windows for name in recordings], dtype=np.int64),
        complete_from(loader),
        classes,
        {key: label for key, label in names.items() if key},
    )


def means(loader: Loader, names: Iterable[object]) -> Callable[[str], bool]:
    """Whether a class is meant by its name, scientific name or code."""
    wanted, known = {str(name).casefold() for name in names}, loader.classes.names
    return lambda name: bool(
        wanted & {name.casefold(), *(part.casefold() for part in known.get(name, ()))}
    )


class Checked(NamedTuple):
    """Checked windows of one class.

    Attributes
    ----------
    row : np.ndarray, int64, shape (n,)
        Which of the scored windows.
    right : np.ndarray, float64, shape (n,)
        1 where the class was heard, else 0.
    taught : np.ndarray, bool, shape (n,)
        Whether the recogniser, if the scores are of one, has learnt from the window: what is
        heard there is known, but its score says nothing of those of other windows.
    """

    row: np.ndarray
    right: np.ndarray
    taught: np.ndarray

    @property
    def telling(self) -> Checked:
        """Those that tell what scores mean."""
        return Checked(*(column[~self.taught] for column in self))


def checks_of(
    loader: Loader, labels: pd.DataFrame | None, say: Callable[[str], None] = warn
) -> pd.DataFrame:
    """Settled judgements; those of a table may lack what is not needed here.

    `say` gets what is left out, because it is of other sounds than the scores.
    """
    import pandas as pd

    if labels is None:
        return of_these_recordings(loader, settled_labels(current_labels(loader)), say)
    if not isinstance(labels, pd.DataFrame):
        raise EvaluationError(
            f"labels={labels!r} is not possible: expected a DataFrame as bacpipe.people_labels "
            f"returns it, or None for these."
        )
    missing = [name for name in _REQUIRED if name not in labels]
    if missing:
        raise EvaluationError(
            f"labels: the columns {', '.join(missing)} are missing; expected "
            f"{', '.join(_REQUIRED)} as bacpipe.people_labels has them."
        )
    value = labels["value"].astype(str).str.strip().str.lower()
    wrong = ~value.isin({YES, NO, UNSURE})
    if wrong.any():
        raise EvaluationError(
            f"labels: the value {labels.loc[wrong, 'value'].iloc[0]!r} is not possible; expected "
            f"yes, no or unsure."
        )
    fill: dict[str, str | float] = {
        "annotator": "",
        "time": "",
        "chosen_by": "",
        "model": "",
        "score": math.nan,
    }
    table = check_labels(labels.assign(value=value).reset_index(drop=True), sorted(loader.entries))
    for name, other in fill.items():
        if name not in table:
            table[name] = other
    who = ["recording", "start", "end", "label", "annotator"]
    who += [CHANNEL] if CHANNEL in table else []
    # Of several judgements of one person the last one holds.
    last = table.sort_values("time", kind="stable").drop_duplicates(who, keep="last")
    return of_these_recordings(loader, settled_labels(last), say)


def match(
    scores: Scores, labels: pd.DataFrame, say: Callable[[str], None] = warn
) -> dict[str, Checked]:
    """Find the scored windows that were checked, by class; `say` gets what does not fit."""
    import pandas as pd

    label = labels["label"].astype(str)
    named = label.str.casefold().map(scores.names)
    if named.isna().any():
        unknown = sorted({*label[named.isna()]})
        near = difflib.get_close_matches(unknown[0], [*scores.classes], 1)
        meant = f" (did you mean {near[0]!r}?)" if near else ""
        left_out = counted(int(named.isna().sum()), "label is", "labels are")
        say(
            f"{scores.model} has no class {', '.join(map(repr, unknown[:5]))}{meant}; {left_out} "
            f"left out."
        )
    table = labels.assign(label=named)[named.notna() & labels["value"].isin([YES, NO])]
    taught = _taught(scores)
    checked: dict[str, Checked] = {}
    lost: list[str] = []
    number = {name: i for i, name in enumerate(scores.recordings)}
    for name, rows in table.groupby("label", sort=True):
        scored = scores.classes.get(str(name))
        keys = pd.DataFrame(
            {
                "recording": rows["recording"].map(number),
                "start": _ms(rows["start"]),
                "end": _ms(rows["end"]),
                "right": rows["value"] == YES,
                "of_channel": rows.get(CHANNEL, np.nan),
            }
        )
        if scored is None:
            lost += [str(name)] * len(rows)
            continue
        windows = pd.DataFrame(
            {
                "recording": scored.recording,
                "start": _ms(scored.start),
                "end": _ms(scored.end),
                "row": np.arange(len(scored.score)),
                "channel": scored.channel,
            }
        )
        joined = keys.merge(windows, on=["recording", "start", "end"])
        other = (joined["of_channel"] != joined["channel"]).fillna(False).astype(bool)
        joined = joined[joined["of_channel"].isna() | ~other].drop_duplicates("row")
        lost += [str(name)] * (len(rows) - len(joined))
        if len(joined):
            places = zip(joined["recording"], joined["start"], strict=True)
            mine = taught.get(str(name), set())
            checked[str(name)] = Checked(
                joined["row"].to_numpy(),
                joined["right"].to_numpy(dtype=np.float64),
                np.array([place in mine for place in places], dtype=bool),
            )
    if lost:
        say(
            f"{scores.model}: {counted(len(lost), 'check is', 'checks are')} of windows in which "
            f"no score of the class is stored, and cannot tell what its scores mean "
            f"({', '.join(sorted({*lost})[:5])}); all lower scores are stored with a lower "
            f"classifier_threshold."
        )
    by_heart = {name: int(mine.taught.sum()) for name, mine in checked.items() if mine.taught.any()}
    if by_heart:
        say(
            f"{counted(sum(by_heart.values()), 'check is', 'checks are')} of windows that "
            f"{scores.model} was taught with ({', '.join([*by_heart][:5])}): its scores there say "
            f"nothing of those of other windows, so what scores mean is learnt from other checks."
        )
    return checked


def _taught(scores: Scores) -> dict[str, set[tuple[int, int]]]:
    """Windows that a recogniser was taught with, by class: recording's number and start in ms."""
    if not isinstance(scores.loader, RecogniserResults):
        return {}
    keys = [recording_key(scores.loader, name) for name in scores.recordings]
    return {
        label: {
            (number, start) for number, key in enumerate(keys) for start in windows.get(key, ())
        }
        for label, windows in scores.loader.recogniser.about.get("taught", {}).items()
    }


def counted_windows(
    scores: Scores, checked: Mapping[str, Checked]
) -> tuple[Scores, dict[str, Checked]]:
    """Windows that count: from the threshold on, or from the lowest score that was checked.

    The threshold is the one that was asked for, else that of the run; nothing is said of scores
    below both.  Classes of which nothing is left are left out.
    """
    classes, renumbered = {}, {}
    for name, scored in scores.classes.items():
        lowest, mine = np.float32(least_asked(scores.loader)), checked.get(name)
        if mine is not None and len(told := mine.telling.row):
            lowest = min(lowest, scored.score[told].min())
        kept = scored.score >= lowest
        if kept.any() or not len(kept):  # none: not read
            classes[name] = Scored(*(column[kept] for column in scored))
        if mine is not None:
            mine = Checked(*(column[kept[mine.row]] for column in mine))
            renumbered[name] = mine._replace(row=(np.cumsum(kept) - 1)[mine.row])
    return replace(scores, classes=classes), renumbered


def least_asked(loader: Loader) -> float:
    """Threshold that is asked for, else that of the run."""
    if "classifier_threshold" in loader.options.asked:
        return loader.options.classifier_threshold
    return complete_from(loader)


def complete_from(loader: Loader) -> float:
    """Threshold of the run, from which on all windows are stored."""
    return float(loader.predictions_provenance.get("threshold") or 0.0)


def _ms(seconds: npt.ArrayLike) -> np.ndarray:
    """Whole milliseconds, as the journal of labels keeps times."""
    return np.rint(np.asarray(seconds, dtype=np.float64) * 1000).astype(np.int64)


def fitted(
    scores: Scores, checked: Mapping[str, Checked]
) -> tuple[Scale, dict[str, Checks], Prior | None]:
    """Scale of the scores, the checks on it by class, and what the classes have in common.

    Classes of which no check tells what scores mean are not among them.
    """
    checked = {name: told for name, mine in checked.items() if len((told := mine.telling).row)}
    picked = {name: scores.classes[name].score[mine.row] for name, mine in checked.items()}
    scale = Scale.of(np.concatenate([scores.classes[name].score for name in picked] or [_NONE]))
    checks = {
        name: Checks(
            scale.x(picked[name]),
            mine.right,
            scores.site_of(scores.classes[name])[mine.row],
        )
        for name, mine in checked.items()
    }
    return scale, checks, shared_prior(list(checks.values()))


class Known(NamedTuple):
    """What the checks of a class say.

    Attributes
    ----------
    scored : Scored
        Its windows with a score.
    x, site : np.ndarray
        Their scores on the scale of the curves, and the numbers of their sites.
    model : Model
    draws : np.ndarray, float64, shape (2 + k + sites, draws)
        Coefficients of the model.
    rows : np.ndarray, int64, shape (unchecked,)
        Which of the windows nobody has checked.
    unchecked : Windows
        These.
    p : np.ndarray, float64, shape (cells, draws)
        Probability of being right in each cell of these.
    right : np.ndarray, int64, shape (sites, draws)
        How many of these are right.
    """

    scored: Scored
    x: np.ndarray
    site: np.ndarray
    model: Model
    draws: np.ndarray
    rows: np.ndarray
    unchecked: Windows
    p: np.ndarray
    right: np.ndarray


def what_is_known(
    name: str,
    scores: Scores,
    checked: Checked,
    checks: Checks,
    scale: Scale,
    prior: Prior | None,
) -> Known:
    """What the checks of a class say of all its windows."""
    scored = scores.classes[name]
    x, site = scale.x(scored.score), scores.site_of(scored)
    rng = np.random.default_rng(zlib.crc32(name.encode()))  # the same checks, the same result
    model = Model.of(prior or USUAL, x, site, len(scores.sites))
    draws = model.posterior(checks).draws(rng)
    left = np.ones(len(x), dtype=bool)
    left[checked.row] = False
    unchecked = Windows.of(x[left], site[left])
    p = expit(model.features(unchecked.x, unchecked.site) @ draws)
    right = right_windows(p, unchecked, len(scores.sites), rng)
    return Known(scored, x, site, model, draws, np.flatnonzero(left), unchecked, p, right)
