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
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from scipy.special import expit

from bacpipe.audio.remote import shown
from bacpipe.errors import (
    EvaluationError,
    SettingsError,
    TooLittleDataError,
    counted,
)
from bacpipe.options import make_options
from bacpipe.recognisers.checked_scores import (
    Checked,
    Known,
    Scored,
    Scores,
    checks_of,
    counted_windows,
    fitted,
    match,
    means,
    read_scores,
    require_share,
    results_of,
    what_is_known,
)
from bacpipe.recognisers.labelled import warn
from bacpipe.recognisers.recogniser import Recogniser
from bacpipe.recognisers.reliability import (
    PLAIN,
    Checks,
    Prior,
    Scale,
    fit_line,
)
from bacpipe.store.calibrations import (
    ClassCalibration,
    StoredCalibration,
    logit,
    read_calibration,
)
from bacpipe.store.layout import calibration_path
from bacpipe.store.loader import Loader
from bacpipe.user_input import typed_path

if TYPE_CHECKING:
    import pandas as pd

_CURVE = 61  # scores at which a curve's interval is kept
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
    0.988 (0.4... to 0.99...)
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
        checks = sum(curve.checks for curve in self.classes.values())
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
        curve, values = self._of(label), _scores_in(score)
        if values.ndim:
            return curve.probability(values)
        low, high = curve.band(values)
        note = ""
        if not curve.lowest <= values <= curve.highest:
            note = f"no score beyond {curve.lowest:.3f} to {curve.highest:.3f} was checked"
        return Estimate(float(curve.probability(values)), float(low), float(high), note)

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

        curve = self._of(label)
        values = np.array(curve.score) if score is None else np.atleast_1d(_scores_in(score))
        low, high = curve.band(values)
        inside = (curve.lowest <= values) & (values <= curve.highest)
        columns = {"score": values, "probability": curve.probability(values)}
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
            windows (how many have at least this score), precision, low, high; from the
            threshold of the run on.  Without a row in a calibration that an earlier version has
            written.
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
        require_share(precision, "precision")
        curve = self._of(label)
        score = np.array(curve.score)
        score = np.unique([*score[(curve.lowest < score) & (score < curve.highest)],
                           curve.lowest, curve.highest])  # fmt: skip
        low, high = curve.band(score)
        reached = np.flatnonzero(high >= precision)
        short = np.flatnonzero(low < precision)
        first = score[reached[0]] if len(reached) else 1.0
        first = 0.0 if len(reached) and reached[0] == 0 else first
        last = score[short[-1]] if len(short) else score[0]
        last = 1.0 if len(short) and short[-1] == len(score) - 1 else last
        p = curve.probability(score)
        agree = curve.right in (0, curve.checks)
        if p[-1] < precision or (curve.slope <= 0 and not agree):
            best = self.probability(label, float(score[-1]))
            why = (
                f"no check of {curve.checks} says yes"
                if curve.right == 0
                else "a higher score is not right more often"
                if curve.slope <= 0
                else f"at the highest score checked, {score[-1]:.3f}, it is {best}"
            )
            note = f"{label}: a precision of {precision:g} is not reached; {why}"
            return Estimate(math.nan, first, math.nan, note)
        if p[0] >= precision:
            note = f"reached at the lowest score checked, {score[0]:.3f}; lower ones may do, too"
            return Estimate(float(score[0]), 0.0, last, note)
        at = float(expit((logit(precision) - curve.intercept) / curve.slope))
        return Estimate(at, min(first, at), max(last, at))

    def call_rate(self, label: str, by: str | None = "site") -> pd.DataFrame:
        """Estimate the share of windows that hold a class.

        Checked windows count as what they are; of the others with a score, the curve says how many
        hold the class, with differences of sites as large as the checks show them.  Windows
        without a stored score count as without the class: store low scores to miss few.  Scores
        below the threshold of the run count from the lowest one that was checked.

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
        stored = read_calibration(source)
        return cls(stored.model, stored.classes, stored.known, stored.provenance, source)

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
    sites, as large as the checks show them.  Windows that a recogniser was taught with are no
    checks of it: it knows them by heart.

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
        Any key of the configuration; main_results_dir says where results are.

    Returns
    -------
    Calibration

    Raises
    ------
    TooLittleDataError
        If no window with a score was checked.
    ResultsNotFoundError
        If the model has no predictions here.
    AnnotationsError
        If a row of `labels` is not possible, or none is about one of these recordings.

    Examples
    --------
    >>> import bacpipe
    >>> owl = "Great Horned Owl"
    >>> plan = bacpipe.review_plan("recordings", "birdnet", classes=[owl], seed=1)
    >>> checks = plan.assign(value=["yes" if score > 0.8 else "no" for score in plan["score"]])
    >>> calibration = bacpipe.calibrate("recordings", "birdnet", checks, save=False)
    >>> calibration.probability(owl, 0.9)
    0.988 (0.4... to 0.99...)
    """
    loader = results_of(audio_dir, model_or_recogniser, make_options(**kwargs))
    result = calibration_of(loader, labels)
    if save:
        result.save()
    return result


def calibration_of(
    loader: Loader, labels: pd.DataFrame | None = None, say: Callable[[str], None] = warn
) -> Calibration:
    """Learn it from checked windows, as `calibrate` does.

    Parameters
    ----------
    loader : Loader
        Whose scores: the results of a model, or of a recogniser.
    labels : pandas.DataFrame, optional
        The checks; those of the journal unless given.
    say : callable
        Gets sentences on checks that tell little or nothing.
    """
    table = checks_of(loader, labels, say)
    scores = read_scores(loader, means(loader, table["label"]), below=True)
    known = {*scores.classes, *loader.classes.names}
    scores, checked = counted_windows(scores, match(scores, table, say))
    scale, checks, prior = fitted(scores, checked)
    if not checks:
        but = " but those that it was taught with" if checked else ""
        raise TooLittleDataError(
            f"{shown(loader.audio_dir)}: no window with a score of {scores.model} was checked{but},"
            f" so its scores are no probabilities; {_PLAN}."
        )
    classes = {
        name: _calibrate_class(name, scores, checked[name], checks[name], scale, prior)
        for name in checks
    }
    for curve in classes.values():
        for note in curve.notes:
            say(note)
    path = calibration_path(loader.paths, scores.model)
    return Calibration(scores.model, classes, known, loader.predictions_provenance, path)


def _calibrate_class(
    name: str,
    scores: Scores,
    checked: Checked,
    checks: Checks,
    scale: Scale,
    prior: Prior | None,
) -> ClassCalibration:
    known = what_is_known(name, scores, checked, checks, scale, prior)
    a, b = _line(checks, prior)
    at = np.linspace(known.x.min(), known.x.max(), _CURVE)
    low, high = np.quantile(expit(known.model.features(at) @ known.draws), [0.025, 0.975], axis=1)
    told = checked.telling
    picked, n, right = known.scored.score[told.row], len(told.row), int(told.right.sum())
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
        a - b * scale.centre / scale.unit,
        b / scale.unit,
        float(picked.min()),
        float(picked.max()),
        np.clip(scale.score(at), 0, 1).tolist(),
        low.tolist(),
        high.tolist(),
        _rates(scores, known.scored, checked, known.right),
        notes,
        _precision(known, checked, at, np.clip(scale.score(at), 0, 1), scores.threshold),
    )


def _line(checks: Checks, prior: Prior | None) -> tuple[float, float]:
    """Intercept and slope of the curve of a class, on the scale of `checks`."""
    prior = prior or PLAIN
    a, b = fit_line(checks, prior)
    # Where all checks agree, nothing shows that a higher score would be right less often.
    if b < 0 and checks.right.sum() in (0, len(checks.right)):
        flat = Prior(prior.mean * [1, 0], np.diag([prior.covariance[0, 0], 1e-9]))
        a, b = fit_line(checks, flat)[0], 0.0
    return float(a), float(b)


def _rates(
    scores: Scores, scored: Scored, checked: Checked, unchecked: np.ndarray
) -> list[dict[str, Any]]:
    """Rows of `Calibration.call_rate`: every site, then all of them."""
    sites = len(scores.sites)
    site = scores.site_of(scored)
    windows = np.bincount(scores.site, scores.windows, sites)
    scored_there = np.bincount(site, minlength=sites)
    checks = np.bincount(site[checked.row], minlength=sites)
    known = np.bincount(site[checked.row], checked.right, sites)
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
    known: Known, checked: Checked, at: np.ndarray, score: np.ndarray, lowest: float
) -> list[dict[str, float]]:
    """Rows of `Calibration.precision` for thresholds `at` on the scale of the curves.

    None below the `lowest` score of which all windows are known.
    """
    rng = np.random.default_rng(0)  # the same checks, the same result
    cells = np.argsort(known.unchecked.x)
    x = known.unchecked.x[cells]
    drawn = rng.binomial(known.unchecked.windows[cells, None], known.p[cells])
    # Sums from each cell to the last; the windows of a cell count together.
    right = np.vstack(
        [np.cumsum(drawn[::-1], axis=0)[::-1], np.zeros((1, drawn.shape[1]), drawn.dtype)]
    )
    windows = np.append(np.cumsum(known.unchecked.windows[cells][::-1])[::-1], 0)
    x_checked = known.x[checked.row]
    rows = []
    for least, threshold in zip(at, score, strict=True):
        first, above = np.searchsorted(x, least), x_checked >= least
        total = int(windows[first] + above.sum())
        if not total or threshold < lowest:
            continue
        share = (right[first] + checked.right[above].sum()) / total
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
