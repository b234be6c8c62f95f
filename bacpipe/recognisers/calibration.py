"""Scores with a meaning: how probably a detection is right, by what people have checked.

`review_plan` says which windows to listen to, `bacpipe.label_windows` takes what was heard, and
`calibrate` makes of it, for each class, a probability of being right by score, the score from which
detections are right as often as wanted, and the share of windows with the class at each site.  The
statistics are in `bacpipe.recognisers.reliability`.

``<dataset>/calibration/<model>.json`` holds the result; tables of detections read it.
A class without checks has no probability, only scores.
"""

from __future__ import annotations

import difflib
import logging
import math
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from bacpipe.errors import (
    EvaluationError,
    ResultsNotFoundError,
    SettingsError,
    TooLittleDataError,
    counted,
)
from bacpipe.labels.people import current_labels, settled_labels
from bacpipe.models.zoo import CARDS
from bacpipe.options import Options, make_options
from bacpipe.recognisers.labelled import class_names
from bacpipe.recognisers.recogniser import Recogniser, find_recogniser
from bacpipe.recognisers.reliability import (
    PLAIN,
    USUAL,
    Checks,
    Model,
    Prior,
    Scale,
    Windows,
    allocate,
    fit_line,
    right_windows,
    score_strata,
    shared_prior,
)
from bacpipe.store.calibrations import (
    ClassCalibration,
    StoredCalibration,
    logit,
    read_calibration,
)
from bacpipe.store.data_set_folder import paths_of
from bacpipe.store.judgements import NO, UNSURE, YES
from bacpipe.store.layout import calibration_path
from bacpipe.store.loader import Loader
from bacpipe.store.whereabouts import Whereabouts
from bacpipe.user_input import typed_path

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

CHOSEN_BY = "review_plan"
_REQUIRED = ("recording", "start", "end", "label", "value")
_PLAN_COLUMNS = (
    "recording", "start", "end", "label", "score", "stratum", "chosen_by",
    "inclusion_probability", "model", "value",
)  # fmt: skip
_CURVE = 61  # scores at which a curve's interval is kept
_NONE = np.zeros(0)
_PILOT = 16  # windows of a class to begin with
_WHOLE = "all sites"

_PLAN = (
    "check some of its windows first: bacpipe.review_plan says which, bacpipe.label_windows takes "
    "what was heard"
)


class Estimate(float):
    """A number with its 95 % interval; NaN with a sentence where it is not known.

    Attributes
    ----------
    low, high : float
        Limits of the interval.
    note : str
        What else is to be said of it; empty if nothing.
    """

    low: float
    high: float
    note: str

    def __new__(cls, value: float, low: float, high: float, note: str = "") -> Estimate:
        self = super().__new__(cls, value)
        self.low, self.high, self.note = float(low), float(high), note
        return self

    def __reduce__(self) -> tuple[type[Estimate], tuple[float, float, float, str]]:
        return Estimate, (float(self), self.low, self.high, self.note)

    def __repr__(self) -> str:
        text = f"{float(self):.3f} ({self.low:.3f} to {self.high:.3f})"
        return self.note if math.isnan(self) else f"{text}: {self.note}" if self.note else text

    __str__ = __repr__


class Calibration:
    """What scores of a model, or of a recogniser, mean in a set of recordings.

    Made by `bacpipe.calibrate`, or by `load`.

    Parameters
    ----------
    model : str
        Name of the model or recogniser.
    classes : mapping of str to ClassCalibration
        Classes of which windows were checked.
    known : iterable of str
        All classes with scores.
    provenance : mapping, optional
        What the scores were made with.
    path : Path, optional
        File of the calibration.

    Attributes
    ----------
    model, classes, known, provenance, path
        The same.

    Examples
    --------
    >>> import bacpipe
    >>> owl = "Great Horned Owl"
    >>> plan = bacpipe.review_plan("recordings", "birdnet", classes=[owl], seed=1)
    >>> checks = plan.assign(value=["yes" if score > 0.8 else "no" for score in plan["score"]])
    >>> calibration = bacpipe.calibrate("recordings", "birdnet", checks, save=False)
    >>> calibration
    Calibration of birdnet: 1 class, 10 checks
    >>> calibration.threshold(owl, 0.7)
    0.820 (0.766 to 0.938)
    >>> calibration.call_rate(owl).loc[0, "site"]
    'SITE-A'
    >>> calibration.probability(owl, 0.9)
    0.988 (0.482 to 0.998)
    >>> calibration.curve(owl, [0.7, 0.9])["probability"].round(2).tolist()
    [0.07, 0.99]
    >>> calibration.precision(owl).columns.to_list()
    ['threshold', 'windows', 'precision', 'low', 'high']
    >>> bacpipe.Calibration.load(calibration.save("owl.json"))
    Calibration of birdnet: 1 class, 10 checks
    """

    def __init__(
        self,
        model: str,
        classes: Mapping[str, ClassCalibration],
        known: Iterable[str],
        provenance: Mapping[str, Any] | None = None,
        path: Path | None = None,
    ) -> None:
        self.model, self.classes, self.known = model, dict(classes), frozenset(known)
        self.provenance, self.path = dict(provenance or {}), path

    def __repr__(self) -> str:
        checks = sum(found.checks for found in self.classes.values())
        return (
            f"Calibration of {self.model}: {counted(len(self.classes), 'class', 'classes')}, "
            f"{counted(checks, 'check')}"
        )

    @overload
    def probability(self, label: str, score: float) -> Estimate: ...
    @overload
    def probability(self, label: str, score: np.ndarray | Sequence[float]) -> np.ndarray: ...

    def probability(
        self, label: str, score: float | np.ndarray | Sequence[float]
    ) -> Estimate | np.ndarray:
        """How probably detections of a class with these scores are right.

        Parameters
        ----------
        label : str
            The class.
        score : float or array of float
            Scores in [0, 1].

        Returns
        -------
        Estimate or np.ndarray
            For one score a number with its 95 % interval, for several float64 of their shape;
            `curve` has the intervals of these.

        Raises
        ------
        TooLittleDataError
            If no window of the class was checked.
        EvaluationError
            If there is no such class, or a score is none.
        """
        found, values = self._of(label), _scores_in(score)
        if values.ndim:
            return found.probability(values)
        low, high = found.band(values)
        note = ""
        if not found.lowest <= values <= found.highest:
            note = f"no score beyond {found.lowest:.3f} to {found.highest:.3f} was checked"
        return Estimate(float(found.probability(values)), float(low), float(high), note)

    def curve(self, label: str, score: np.ndarray | Sequence[float] | None = None) -> pd.DataFrame:
        """Probability of being right by score, with its 95 % interval.

        Parameters
        ----------
        label : str
            The class.
        score : array of float, optional
            Scores; some between the lowest and the highest that are stored unless given.

        Returns
        -------
        pandas.DataFrame
            Columns score, probability, low, high, and checked: whether such scores were checked,
            or the curve only goes on there.
        """
        import pandas as pd

        found = self._of(label)
        values = np.array(found.score) if score is None else np.atleast_1d(_scores_in(score))
        low, high = found.band(values)
        inside = (found.lowest <= values) & (values <= found.highest)
        columns = {"score": values, "probability": found.probability(values)}
        return pd.DataFrame({**columns, "low": low, "high": high, "checked": inside})

    def precision(self, label: str) -> pd.DataFrame:
        """Share of right ones among all windows from a score on, with its 95 % interval.

        Checked windows count as what they are, the others as the curve says.

        Parameters
        ----------
        label : str
            The class.

        Returns
        -------
        pandas.DataFrame
            Columns threshold (scores between the lowest and the highest that are stored),
            windows (how many have at least this score), precision, low, high.  Without a row in
            a calibration that an earlier version has written.
        """
        import pandas as pd

        columns = ["threshold", "windows", "precision", "low", "high"]
        return pd.DataFrame(self._of(label).precision, columns=columns)

    def threshold(self, label: str, precision: float) -> Estimate:
        """Score from which each detection of a class is right with a probability.

        So is the share of right ones among all above it at least that large.

        Parameters
        ----------
        label : str
            The class.
        precision : float
            The probability, between 0 and 1.

        Returns
        -------
        Estimate
            With its 95 % interval, whose end is 0 or 1 where it lies beyond what was checked.  NaN
            if it is not reached among the scores that were checked: nothing is extrapolated.
        """
        if not 0 < _number(precision, "precision") < 1:
            raise SettingsError(
                f"precision={precision!r} is not possible: expected a number between 0 and 1."
            )
        found = self._of(label)
        score = np.array(found.score)
        score = np.unique([*score[(found.lowest < score) & (score < found.highest)],
                           found.lowest, found.highest])  # fmt: skip
        low, high = found.band(score)
        reached = np.flatnonzero(high >= precision)
        short = np.flatnonzero(low < precision)
        first = score[reached[0]] if len(reached) else 1.0
        first = 0.0 if len(reached) and reached[0] == 0 else first
        last = score[short[-1]] if len(short) else score[0]
        last = 1.0 if len(short) and short[-1] == len(score) - 1 else last
        p = found.probability(score)
        if found.slope <= 0 or p[-1] < precision:
            best = self.probability(label, float(score[-1]))
            why = (
                "a higher score is not right more often"
                if found.slope <= 0
                else f"at the highest score checked, {score[-1]:.3f}, it is {best}"
            )
            note = f"{label}: a precision of {precision:g} is not reached; {why}"
            return Estimate(math.nan, first, math.nan, note)
        if p[0] >= precision:
            note = f"reached at the lowest score checked, {score[0]:.3f}; lower ones may do, too"
            return Estimate(float(score[0]), 0.0, last, note)
        at = float(expit((logit(precision) - found.intercept) / found.slope))
        return Estimate(at, min(first, at), max(last, at))

    def call_rate(self, label: str, by: str | None = "site") -> pd.DataFrame:
        """Estimate the share of windows that hold a class.

        Checked windows count as what they are; of the others with a score, the curve says how many
        hold the class, with differences of sites as large as the checks show them.  Windows
        without a stored score count as without the class: store low scores to miss few.

        Parameters
        ----------
        label : str
            The class.
        by : {'site', None}
            A row per site, or one for all.

        Returns
        -------
        pandas.DataFrame
            Columns site, windows (all that were listened to), scored (those with a score of the
            class), checks, right (estimated windows with the class), rate (right / windows), and
            low, high: the 95 % interval of the rate.
        """
        import pandas as pd

        if by not in ("site", None):
            raise SettingsError(f"by={by!r} is not possible: expected 'site' or None.")
        rows = self._of(label).rates
        return pd.DataFrame(rows[-1:] if by is None else rows[:-1]).reset_index(drop=True)

    # ------------------------------------------------------------------ on disk

    def save(self, path: str | Path | None = None) -> Path:
        """Write the calibration as JSON.

        Parameters
        ----------
        path : str or Path, optional
            Where to; ``calibration/<model>.json`` in the results of the data set unless given.

        Returns
        -------
        Path
            The file.
        """
        target = typed_path(path) if path is not None else self.path
        if target is None:
            raise SettingsError("This calibration has no file yet: name one, save('file.json').")
        StoredCalibration(self.model, self.classes, sorted(self.known), self.provenance).write(
            target
        )
        return target

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read a calibration.

        Parameters
        ----------
        path : str or Path
            File that `save` or `bacpipe.calibrate` has written.

        Returns
        -------
        Calibration

        Raises
        ------
        ResultsNotFoundError
            If there is no such file.
        ResultsError
            If it is damaged, or of a newer version.
        """
        source = typed_path(path)
        found = read_calibration(source)
        return cls(found.model, found.classes, found.known, found.provenance, source)

    def _of(self, label: str) -> ClassCalibration:
        if label in self.classes:
            return self.classes[label]
        if label in self.known:
            raise TooLittleDataError(
                f"{label}: none of its windows was checked, so its scores are no probabilities; "
                f"{_PLAN}."
            )
        near = difflib.get_close_matches(str(label), [*self.classes, *self.known], 3, 0.6)
        meant = f"; did you mean {' or '.join(dict.fromkeys(near))}?" if near else "."
        raise EvaluationError(f"{self.model} has found no class {label!r}{meant}")


def _number(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise SettingsError(f"{what}={value!r} is not possible: expected a number.")
    return float(value)


def _scores_in(score: float | np.ndarray | Sequence[float]) -> np.ndarray:
    try:
        values = np.asarray(score, dtype=np.float64)
    except (TypeError, ValueError):
        raise EvaluationError(f"{score!r} is no score: expected numbers from 0 to 1.") from None
    wrong = ~((values >= 0) & (values <= 1))
    if wrong.any():
        first = float(values[wrong].flat[0]) if values.ndim else float(values)
        raise EvaluationError(f"{first:g} is no score: expected numbers from 0 to 1.")
    return values


# --- What was scored, and what was checked ------------------------------------------------------


class _Scored(NamedTuple):
    """Windows with a score of one class.

    Attributes
    ----------
    recording : np.ndarray, int64, shape (n,)
        Number of the recording.
    start, end : np.ndarray, float64, shape (n,)
        Seconds.
    score : np.ndarray, float64, shape (n,)
    """

    recording: np.ndarray
    start: np.ndarray
    end: np.ndarray
    score: np.ndarray


@dataclass(frozen=True)
class _Scores:
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
    classes : dict of str to _Scored
    names : dict of str to str
        Class by its name, scientific name or code, in small letters.
    """

    loader: Loader
    model: str
    recordings: list[str]
    sites: list[str]
    site: np.ndarray
    windows: np.ndarray
    classes: dict[str, _Scored]
    names: dict[str, str]

    def site_of(self, scored: _Scored) -> np.ndarray:
        """Number of the site of each window, int64."""
        return np.asarray(self.site[scored.recording])


def _read_scores(loader: Loader, wanted: Callable[[str], bool]) -> _Scores:
    entries = loader.entries
    recordings = list(entries)
    number = {name: i for i, name in enumerate(recordings)}
    parts: dict[str, list[tuple[np.ndarray, ...]]] = {}
    for item in loader.detections():
        for label in np.unique(item.label.astype(str)).tolist():
            parts.setdefault(label, [])
            if wanted(label):
                here = item.label == label
                place = np.full(int(here.sum()), number[item.recording])
                columns = (item.start[here], item.end[here], item.score[here].astype(np.float64))
                parts[label].append((place, *columns))
    none = tuple(np.zeros(0, kind) for kind in (np.int64, float, float, float))
    classes = {
        label: _Scored(*(np.concatenate(column) for column in zip(none, *items, strict=True)))
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
    return _Scores(
        loader,
        str(loader.model_name),
        recordings,
        sites,
        np.array([rank[place] for place in places], dtype=np.int64),
        np.array([entries[name].windows for name in recordings], dtype=np.int64),
        classes,
        {key: label for key, label in names.items() if key},
    )


class _Checked(NamedTuple):
    """Checked windows of one class: which of the scored ones, and what was heard."""

    row: np.ndarray
    right: np.ndarray


def _labels_of(loader: Loader, labels: pd.DataFrame | None) -> pd.DataFrame:
    """Settled judgements; those of a table may lack what is not needed here."""
    import pandas as pd

    if labels is None:
        return settled_labels(current_labels(loader))
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
    table = labels.assign(value=value)
    for name, other in fill.items():
        if name not in table:
            table[name] = other
    who = ["recording", "start", "end", "label", "annotator"]
    # Of several judgements of one person the last one holds.
    last = table.sort_values("time", kind="stable").drop_duplicates(who, keep="last")
    return settled_labels(last)


def _match(scores: _Scores, labels: pd.DataFrame) -> dict[str, _Checked]:
    """Find the scored windows that were checked, by class; what does not fit is said."""
    import pandas as pd

    label = labels["label"].astype(str)
    named = label.str.casefold().map(scores.names)
    if named.isna().any():
        unknown = sorted({*label[named.isna()]})
        near = difflib.get_close_matches(unknown[0], [*scores.classes], 1)
        logger.warning(
            "%s has no class %s%s; %s left out.",
            scores.model,
            ", ".join(map(repr, unknown[:5])),
            f" (did you mean {near[0]!r}?)" if near else "",
            counted(int(named.isna().sum()), "label is", "labels are"),
        )
    table = labels.assign(label=named)[named.notna() & labels["value"].isin([YES, NO])]
    found: dict[str, _Checked] = {}
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
            }
        )
        joined = keys.merge(windows, on=["recording", "start", "end"]).drop_duplicates("row")
        lost += [str(name)] * (len(rows) - len(joined))
        if len(joined):
            found[str(name)] = _Checked(
                joined["row"].to_numpy(), joined["right"].to_numpy(dtype=np.float64)
            )
    if lost:
        logger.warning(
            "%s: %s of windows in which no score of the class is stored, and cannot tell what its "
            "scores mean (%s); lower scores are stored with a lower classifier_threshold.",
            scores.model,
            counted(len(lost), "check is", "checks are"),
            ", ".join(sorted({*lost})[:5]),
        )
    return found


def _ms(seconds: npt.ArrayLike) -> np.ndarray:
    """Whole milliseconds, as the journal of labels keeps times."""
    return np.rint(np.asarray(seconds, dtype=np.float64) * 1000).astype(np.int64)


# --- Calibration --------------------------------------------------------------------------------


def calibrate(
    audio_dir: str | Path,
    model_or_recogniser: str | Path | Recogniser,
    labels: pd.DataFrame | None = None,
    *,
    save: bool = True,
    **kwargs: object,
) -> Calibration:
    """Learn from checked windows what the scores of a model mean in these recordings.

    For each class with checks: P(correct | score) = sigmoid(a + b logit(score)), the logistic
    regression of Wood & Kahl 2024 (J. Ornithol. 165).  From four classes on, those with few checks
    lean on the others.  Intervals allow for departures from this curve and for differences of
    sites, as large as the checks show them.

    Parameters
    ----------
    audio_dir : str or Path
        Folder with the recordings.
    model_or_recogniser : str, Path or Recogniser
        A model with stored predictions, or a recogniser: itself, its name or its folder.
    labels : pandas.DataFrame, optional
        The checks, with the columns of `people_labels` (of which recording, start, end, label and
        value are needed); those of the journal unless given.  Where people contradict each other
        the majority counts; what is undecided or unsure is left out.
    save : bool
        Whether to write ``calibration/<model>.json`` into the results of the data set, from which
        tables of detections take their ``probability``.
    **kwargs
        Any key of the configuration.

    Returns
    -------
    Calibration

    Raises
    ------
    TooLittleDataError
        If no window with a score was checked.
    ResultsNotFoundError
        If the model has no predictions here.

    Examples
    --------
    >>> import bacpipe
    >>> owl = "Great Horned Owl"
    >>> plan = bacpipe.review_plan("recordings", "birdnet", classes=[owl], seed=1)
    >>> checks = plan.assign(value=["yes" if score > 0.8 else "no" for score in plan["score"]])
    >>> calibration = bacpipe.calibrate("recordings", "birdnet", checks, save=False)
    >>> calibration.probability(owl, 0.9)
    0.988 (0.482 to 0.998)
    """
    loader = _results(audio_dir, model_or_recogniser, make_options(**kwargs))
    table = _labels_of(loader, labels)
    wanted = {str(name).casefold() for name in table["label"]}
    codes = loader.classes.names
    scores = _read_scores(
        loader,
        lambda name: bool(
            wanted & {name.casefold(), *(part.casefold() for part in codes.get(name, ()))}
        ),
    )
    checked = _match(scores, table)
    if not checked:
        raise TooLittleDataError(
            f"{loader.audio_dir}: no window with a score of {scores.model} was checked, so its "
            f"scores are no probabilities; {_PLAN}."
        )
    scale, checks, prior = _fitted(scores, checked)
    classes = {
        name: _calibrate_class(name, scores, checked[name], checks[name], scale, prior)
        for name in checked
    }
    for found in classes.values():
        for note in found.notes:
            logger.warning("%s", note)
    path = calibration_path(loader.paths, scores.model)
    known = {*scores.classes, *loader.classes.names}
    result = Calibration(scores.model, classes, known, loader.predictions_provenance, path)
    if save:
        result.save()
    return result


def _results(audio_dir: str | Path, which: str | Path | Recogniser, options: Options) -> Loader:
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
        found = find_recogniser(which, paths_of(audio_dir, "none", options))
    except ResultsNotFoundError as error:
        raise ResultsNotFoundError(
            f"{audio_dir}: there are no results of {str(which)!r}: no model of this name has run "
            f"there, and {str(error).partition(': ')[2]}"
        ) from None
    return found.results(Loader(audio_dir, found.model, options=options))


def _fitted(
    scores: _Scores, checked: Mapping[str, _Checked]
) -> tuple[Scale, dict[str, Checks], Prior | None]:
    picked = {name: scores.classes[name].score[found.row] for name, found in checked.items()}
    scale = Scale.of(np.concatenate([scores.classes[name].score for name in picked] or [_NONE]))
    checks = {
        name: Checks(
            scale.x(picked[name]),
            found.right,
            scores.site_of(scores.classes[name])[found.row],
        )
        for name, found in checked.items()
    }
    return scale, checks, shared_prior(list(checks.values()))


def _calibrate_class(
    name: str,
    scores: _Scores,
    found: _Checked,
    checks: Checks,
    scale: Scale,
    prior: Prior | None,
) -> ClassCalibration:
    known = _known(name, scores, found, checks, scale, prior)
    a, b = fit_line(checks, prior or PLAIN)
    at = np.linspace(known.x.min(), known.x.max(), _CURVE)
    low, high = np.quantile(expit(known.model.features(at) @ known.draws), [0.025, 0.975], axis=1)
    picked, n, right = known.scored.score[found.row], len(found.row), int(found.right.sum())
    notes = []
    if right in (0, n):
        notes.append(
            f"{name}: {'the only check says' if n == 1 else f'all {n} checks say'} "
            f"{'yes' if right else 'no'}, which does not tell at which score that ends; check "
            f"{'lower scores' if right else 'other scores'}, too."
        )
    elif b <= 0:
        notes.append(
            f"{name}: in {counted(n, 'check')}, windows with a higher score are not right more "
            f"often, so no threshold makes its detections more reliable."
        )
    return ClassCalibration(
        n,
        right,
        float(a - b * scale.centre / scale.unit),
        float(b / scale.unit),
        float(picked.min()),
        float(picked.max()),
        np.clip(scale.score(at), 0, 1).tolist(),
        low.tolist(),
        high.tolist(),
        _rates(scores, known.scored, found, known.right),
        notes,
        _precision(known, found, at, np.clip(scale.score(at), 0, 1)),
    )


class _Known(NamedTuple):
    """What the checks of a class say.

    Attributes
    ----------
    scored : _Scored
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

    scored: _Scored
    x: np.ndarray
    site: np.ndarray
    model: Model
    draws: np.ndarray
    rows: np.ndarray
    unchecked: Windows
    p: np.ndarray
    right: np.ndarray


def _known(
    name: str,
    scores: _Scores,
    found: _Checked,
    checks: Checks,
    scale: Scale,
    prior: Prior | None,
) -> _Known:
    scored = scores.classes[name]
    x, site = scale.x(scored.score), scores.site_of(scored)
    rng = np.random.default_rng(zlib.crc32(name.encode()))  # the same checks, the same result
    model = Model.of(prior or USUAL, x, site, len(scores.sites))
    draws = model.posterior(checks).draws(rng)
    left = np.ones(len(x), dtype=bool)
    left[found.row] = False
    unchecked = Windows.of(x[left], site[left])
    p = expit(model.features(unchecked.x, unchecked.site) @ draws)
    right = right_windows(p, unchecked, len(scores.sites), rng)
    return _Known(scored, x, site, model, draws, np.flatnonzero(left), unchecked, p, right)


def _rates(
    scores: _Scores, scored: _Scored, found: _Checked, unchecked: np.ndarray
) -> list[dict[str, Any]]:
    """Rows of `Calibration.call_rate`: every site, then all of them."""
    sites = len(scores.sites)
    site = scores.site_of(scored)
    windows = np.bincount(scores.site, scores.windows, sites)
    scored_there = np.bincount(site, minlength=sites)
    checks = np.bincount(site[found.row], minlength=sites)
    known = np.bincount(site[found.row], found.right, sites)
    right = known[:, None] + unchecked

    def row(place: str, where: slice | int) -> dict[str, Any]:
        total = int(windows[where].sum())
        draws = right[where].reshape(-1, right.shape[1]).sum(axis=0)
        low, high = np.quantile(draws, [0.025, 0.975]) / total
        return {
            "site": place,
            "windows": total,
            "scored": int(scored_there[where].sum()),
            "checks": int(checks[where].sum()),
            "right": float(draws.mean()),
            "rate": float(draws.mean() / total),
            "low": float(low),
            "high": float(high),
        }

    heard = [i for i in range(sites) if windows[i]]
    return [*(row(scores.sites[i], i) for i in heard), row(_WHOLE, slice(None))]


def _precision(
    known: _Known, found: _Checked, at: np.ndarray, score: np.ndarray
) -> list[dict[str, float]]:
    """Rows of `Calibration.precision` for thresholds `at` on the scale of the curves."""
    rng = np.random.default_rng(0)  # the same checks, the same result
    cells = np.argsort(known.unchecked.x)
    x = known.unchecked.x[cells]
    drawn = rng.binomial(known.unchecked.windows[cells, None], known.p[cells])
    # Sums from each cell to the last; the windows of a cell count together.
    right = np.vstack(
        [np.cumsum(drawn[::-1], axis=0)[::-1], np.zeros((1, drawn.shape[1]), drawn.dtype)]
    )
    windows = np.append(np.cumsum(known.unchecked.windows[cells][::-1])[::-1], 0)
    checked = known.x[found.row]
    rows = []
    for least, threshold in zip(at, score, strict=True):
        first, above = np.searchsorted(x, least), checked >= least
        total = int(windows[first] + above.sum())
        if not total:
            continue
        share = (right[first] + found.right[above].sum()) / total
        low, high = np.quantile(share, [0.025, 0.975])
        rows.append(
            {
                "threshold": float(threshold),
                "windows": float(total),
                "precision": float(share.mean()),
                "low": float(low),
                "high": float(high),
            }
        )
    return rows


# --- What to check next -------------------------------------------------------------------------


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
        Any key of the configuration.

    Returns
    -------
    pandas.DataFrame
        Windows of the next round: recording, start, end, label, score, stratum, chosen_by,
        inclusion_probability (of a window of this stratum in this round), model, and an empty
        value, to be filled with yes, no or unsure for `label_windows`.  ``attrs['bacpipe']`` says
        for each class its checks, the width so far, how many more are expected to be needed, and
        the threshold from which on windows count (None: all).
        A class that is known well enough has no row.

    Raises
    ------
    EvaluationError
        If a class was not found in these recordings.

    Examples
    --------
    >>> import bacpipe
    >>> plan = bacpipe.review_plan(
    ...     "recordings", "birdnet", classes=["Great Horned Owl"], seed=1
    ... )
    >>> plan[["label", "chosen_by"]].iloc[0].tolist()
    ['Great Horned Owl', 'review_plan']
    """
    import pandas as pd

    wanted = {"width": width} | ({} if precision is None else {"precision": precision})
    for key, value in wanted.items():
        if not 0 < _number(value, key) < 1:
            raise SettingsError(
                f"{key}={value!r} is not possible: expected a number between 0 and 1."
            )
    loader = _results(audio_dir, model_or_recogniser, make_options(**kwargs))
    scores = _read_scores(loader, lambda name: True)
    chosen = [_found(scores, c) for c in class_names(classes)] or list(scores.classes)
    checked = _match(scores, _labels_of(loader, labels))
    scale, checks, prior = _fitted(scores, checked)
    rng = np.random.default_rng(seed)
    parts: list[pd.DataFrame] = []
    about: dict[str, dict[str, float | int | None]] = {}
    for name in sorted(set(chosen)):
        found, about[name] = _next_round(
            scores, name, checked.get(name), checks.get(name), scale, prior, wanted, rng
        )
        row = np.array(found.pop("row"), dtype=np.int64)
        scored = scores.classes[name]
        columns = {
            "recording": [scores.recordings[i] for i in scored.recording[row]],
            "start": scored.start[row], "end": scored.end[row], "label": name,
            "score": scored.score[row], **found, "chosen_by": CHOSEN_BY, "model": scores.model,
            "value": "",
        }  # fmt: skip
        parts.append(pd.DataFrame(columns)[[*_PLAN_COLUMNS]])
    plan = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=_PLAN_COLUMNS)
    plan.attrs["bacpipe"] = about
    return plan


def _found(scores: _Scores, name: str) -> str:
    known = scores.names.get(str(name).casefold(), str(name))
    if known not in scores.classes:
        near = difflib.get_close_matches(str(name), [*scores.classes], 1)
        raise EvaluationError(
            f"{scores.model} has found no {name!r} in {scores.loader.audio_dir}"
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
    scores: _Scores,
    name: str,
    found: _Checked | None,
    checks: Checks | None,
    scale: Scale,
    prior: Prior | None,
    wanted: Mapping[str, float],
    rng: np.random.Generator,
) -> tuple[dict[str, list[Any]], dict[str, float | int | None]]:
    """Columns of the plan of one class, and what is known of it."""
    scored = scores.classes[name]
    if found is None or checks is None:
        x = scale.x(scored.score)
        rows, cell = np.arange(len(x)), np.searchsorted(score_strata(x), x, side="right")
        order = np.repeat(np.unique(cell), -(-_PILOT // len(np.unique(cell))))
        site = np.zeros(len(x), dtype=np.int64)
        about: dict[str, float | int | None] = {"checks": 0, "width": None, "more": None}
        about["threshold"] = None
    else:
        known = _known(name, scores, found, checks, scale, prior)
        rows, cell, site = known.rows, known.unchecked.cell, known.site
        least = _least(checks, prior, wanted.get("precision"), known.x)
        cells = np.flatnonzero(known.unchecked.x >= least)
        x, sites, windows = (part[cells] for part in known.unchecked[:3])
        unchecked = Windows(x, sites, windows, cell)
        all_, checked = (int((part >= least).sum()) for part in (known.x, known.x[found.row]))
        right = known.right
        if least > -math.inf:
            right = right_windows(known.p[cells], unchecked, len(scores.sites), rng)
        share = right.sum(axis=0) / all_
        now = float(np.diff(np.quantile(share, [0.025, 0.975]))[0])
        needed = allocate(
            known.p[cells, ::4], unchecked, checked=checked, now=now, wanted=wanted["width"]
        )
        order = cells[needed.order[: max(_PILOT // 2, len(found.row) // 2)]]
        about = {"checks": len(found.row), "width": now, "more": len(needed.order)}
        about["threshold"] = None if least == -math.inf else float(scale.score(np.array(least)))
    plan: dict[str, list[Any]] = {"row": [], "stratum": [], "inclusion_probability": []}
    for number, count in zip(*np.unique(order, return_counts=True), strict=True):
        there = rows[cell == number]
        drawn = rng.choice(there, min(count, len(there)), replace=False)
        ends = scored.score[there].min(), scored.score[there].max()
        place = f", {scores.sites[site[there[0]]]}" if found is not None else ""
        plan["row"] += drawn.tolist()
        plan["stratum"] += [f"score {ends[0]:.3f} to {ends[1]:.3f}{place}"] * len(drawn)
        plan["inclusion_probability"] += [len(drawn) / len(there)] * len(drawn)
    return plan, about
