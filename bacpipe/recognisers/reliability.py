"""What checked windows tell of a classifier's scores: statistics on arrays.

The plain case is the logistic regression of Wood & Kahl 2024 (Guidelines for appropriate use of
BirdNET scores and other detector outputs, J. Ornithol. 165): P(correct | score) =
sigmoid(a + b logit(score)).  Two things are added.  Classes share what they know: a and b of a
class with few checks lean on those of the others, as far as these agree (empirical Bayes with
Laplace's approximation).  And intervals allow for what the straight line does not say: departures
from it, piecewise linear in the score, and differences of sites, both of a size that the checks
decide on.  For shares of right windows, checked windows count as what they are, only the others
are estimated: a stratified estimator whose strata, score by site, lean on one another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
from scipy.special import expit, log_expit

from bacpipe.store.calibrations import logit

STRATA = 8  # of scores
_LEAST_CLASSES = 4  # from so many on, classes lean on one another
_SIZES = (0.05, 0.25, 0.5)  # of departures and of differences of sites, in logits
_DRAWS, _STEPS, _KEPT = 2000, 20, 5  # draws; steps of the sampler, and the last of them
_MANY = 600  # checks, from which on a posterior is normal enough
_CELLS = 32  # of scores, within which windows count as alike


class Prior(NamedTuple):
    """What is known of a and b before a class is looked at.

    Attributes
    ----------
    mean : np.ndarray, float64, shape (2,)
    covariance : np.ndarray, float64, shape (2, 2)
    """

    mean: np.ndarray
    covariance: np.ndarray


# Of a single class, on a scale on which its scores have mean 0 and standard deviation 1: the first
# is so weak that curves are those of plain logistic regression, but finite where all checks agree;
# the second is what classifiers are like, and lets few checks narrow an interval.
PLAIN = Prior(np.array([0.0, 1.0]), np.diag([16.0, 16.0]))
USUAL = Prior(np.array([-1.0, 1.5]), np.diag([9.0, 2.25]))


class Checks(NamedTuple):
    """Checked windows of one class.

    Attributes
    ----------
    x : np.ndarray, float64, shape (n,)
        Logits of the scores, in units of a `Scale`.
    right : np.ndarray, float64, shape (n,)
        1 where the class is there, 0 where it is not.
    site : np.ndarray, int64, shape (n,)
        Number of the site.
    """

    x: np.ndarray
    right: np.ndarray
    site: np.ndarray


class Scale(NamedTuple):
    """Units in which the curves of all classes are comparable: (logit - centre) / unit."""

    centre: float
    unit: float

    @classmethod
    def of(cls, scores: np.ndarray) -> Scale:
        """Scale on which scores have mean 0 and standard deviation 1."""
        values = logit(scores)
        spread = float(values.std()) if len(values) else 0.0
        return cls(float(values.mean()) if len(values) else 0.0, spread if spread > 1e-3 else 1.0)

    def x(self, score: np.ndarray | float) -> np.ndarray:
        """Scores on this scale."""
        return (logit(score) - self.centre) / self.unit

    def score(self, x: np.ndarray) -> np.ndarray:
        """The scores again."""
        return np.asarray(expit(x * self.unit + self.centre))


class _Mode(NamedTuple):
    """Normal approximation of a posterior at its mode."""

    mean: np.ndarray
    precision: np.ndarray
    evidence: float  # logarithm of the marginal likelihood


def _mode(features: np.ndarray, right: np.ndarray, mean: np.ndarray, precise: np.ndarray) -> _Mode:
    """Laplace's approximation of logistic regression with a normal prior, by Newton's method."""

    def log_posterior(at: np.ndarray) -> float:
        linear, off = features @ at, at - mean
        return float(
            right @ log_expit(linear) + (1 - right) @ log_expit(-linear) - off @ precise @ off / 2
        )

    at, now = mean.copy(), log_posterior(mean)
    for _ in range(100):
        p = expit(features @ at)
        curvature = (features.T * (p * (1 - p))) @ features + precise
        step = np.linalg.solve(curvature, features.T @ (right - p) - precise @ (at - mean))
        while (then := log_posterior(at + step)) < now - 1e-9:
            step = step / 2
        at, now = at + step, then
        if np.abs(step).max() < 1e-8:
            break
    p = expit(features @ at)
    curvature = (features.T * (p * (1 - p))) @ features + precise
    evidence = now + (np.linalg.slogdet(precise)[1] - np.linalg.slogdet(curvature)[1]) / 2
    return _Mode(at, curvature, float(evidence))


def _line(x: np.ndarray) -> np.ndarray:
    return np.column_stack([np.ones_like(x), x])


def fit_line(checks: Checks, prior: Prior) -> np.ndarray:
    """Intercept and slope of P(correct) = sigmoid(a + b x), float64 of shape (2,)."""
    precise = np.linalg.inv(prior.covariance)
    return _mode(_line(checks.x), checks.right, prior.mean, precise).mean


def shared_prior(classes: Sequence[Checks]) -> Prior | None:
    """What classes together say of the curve of one of them: mean and covariance of a and b.

    By expectation and maximisation, with Laplace's approximation of each class.  None if there are
    fewer than four classes, of which nothing can be said of all.
    """
    if len(classes) < _LEAST_CLASSES:
        return None
    prior = USUAL
    for _ in range(30):
        precise = np.linalg.inv(prior.covariance)
        modes = [_mode(_line(c.x), c.right, prior.mean, precise) for c in classes]
        means = np.array([mode.mean for mode in modes])
        centre = means.mean(axis=0)
        inside = sum(np.linalg.inv(mode.precision) for mode in modes)
        between = (means - centre).T @ (means - centre)
        # Two classes' worth of doubt, so that the spread of a few is not taken for nothing.
        prior = Prior(centre, (2 * np.diag([1.0, 0.25]) + inside + between) / (2 + len(classes)))
    return prior


def score_strata(x: np.ndarray) -> np.ndarray:
    """Inner limits of the strata of scores, by Dalenius and Hodges' rule; ascending.

    Equal steps of the cumulative root of the frequencies.
    """
    if not len(x) or np.ptp(x) < 1e-9:
        return np.zeros(0)
    frequency, edges = np.histogram(x, bins=64)
    cumulative = np.concatenate([[0.0], np.cumsum(np.sqrt(frequency))])
    steps = np.linspace(0, cumulative[-1], STRATA + 1)[1:-1]
    return np.unique(np.interp(steps, cumulative, edges))


@dataclass(frozen=True)
class Model:
    """How the windows of a class may be right or wrong.

    Attributes
    ----------
    prior : Prior
        Of the straight line.
    knots : np.ndarray, float64, shape (k,)
        Where departures from the line are free; between them they are linear.
    shares : np.ndarray, float64, shape (sites,)
        Share of each site in the windows with a score.
    """

    prior: Prior
    knots: np.ndarray
    shares: np.ndarray

    @classmethod
    def of(cls, prior: Prior, x: np.ndarray, site: np.ndarray, sites: int) -> Model:
        """Model of a class whose windows have these scores and sites."""
        stratum = np.searchsorted(score_strata(x), x, side="right")
        knots = np.array([x[stratum == s].mean() for s in np.unique(stratum)])
        return cls(prior, knots, np.bincount(site, minlength=sites) / max(len(site), 1))

    def features(self, x: np.ndarray, site: np.ndarray | None = None) -> np.ndarray:
        """Features of windows, float64 of shape (n, 2 + k + sites); without sites, of the mean."""
        departures = np.stack([np.interp(x, self.knots, row) for row in np.eye(len(self.knots))], 1)
        if site is None:
            sites = np.tile(self.shares, (len(x), 1))
        else:
            sites = np.eye(len(self.shares))[site]
        return np.hstack([_line(x), departures, sites])

    def posterior(self, checks: Checks) -> Posterior:
        """What the checks say, averaged over sizes of departures and of differences of sites."""
        features = self.features(checks.x, checks.site)
        k, sites = len(self.knots), len(self.shares)
        mean = np.concatenate([self.prior.mean, np.zeros(k + sites)])
        modes, deviations, weights = [], [], []
        for size, difference in product(_SIZES, _SIZES if sites > 1 else (_SIZES[0],)):
            deviations.append(np.repeat([size, difference], [k, sites]))
            precise = np.zeros((len(mean), len(mean)))
            precise[:2, :2] = np.linalg.inv(self.prior.covariance)
            precise[2:, 2:] = np.diag(deviations[-1] ** -2.0)
            modes.append(_mode(features, checks.right, mean, precise))
            # Half-normal priors of the sizes.
            weights.append(modes[-1].evidence - (size**2 + difference**2) / 2)
        weight = np.exp(np.array(weights) - max(weights))
        return Posterior(
            self.prior, features, checks.right, modes, np.array(deviations), weight / weight.sum()
        )


@dataclass(frozen=True)
class Posterior:
    """What is known of a model's coefficients: a mixture over the sizes of departures.

    Attributes
    ----------
    prior : Prior
        Of the straight line.
    features, right : np.ndarray
        Of the checks.
    modes : sequence of _Mode
        Normal approximation with each pair of sizes.
    deviations : np.ndarray, float64, shape (modes, k + sites)
        Standard deviations of the other coefficients' priors.
    weight : np.ndarray, float64, shape (modes,)
        Of each pair of sizes.
    """

    prior: Prior
    features: np.ndarray
    right: np.ndarray
    modes: Sequence[_Mode]
    deviations: np.ndarray
    weight: np.ndarray

    def approximate_draws(self, rng: np.random.Generator, number: int) -> tuple[np.ndarray, ...]:
        """Coefficients, (2 + k + sites, number), and prior deviations, out of the normals."""
        parts, scales = [], []
        for mode, deviation, count in zip(
            self.modes, self.deviations, rng.multinomial(number, self.weight), strict=True
        ):
            root = np.linalg.cholesky(mode.precision)
            noise = rng.standard_normal((len(mode.mean), count))
            parts.append(mode.mean[:, None] + np.linalg.solve(root.T, noise))
            scales.append(np.tile(deviation[:, None], count))
        return np.hstack(parts), np.hstack(scales)

    def draws(self, rng: np.random.Generator) -> np.ndarray:
        """Coefficients, float64 of shape (2 + k + sites, draws).

        Few checks make skew posteriors: those that all say yes know no upper end.  Draws of the
        normals are therefore moved on by elliptical slice sampling (Murray, Adams & MacKay 2010),
        which needs no tuning.
        """
        if len(self.right) > _MANY:
            return self.approximate_draws(rng, _DRAWS)[0]
        at, deviation = self.approximate_draws(rng, _DRAWS // _KEPT)
        centre = np.zeros((len(at), 1))
        centre[:2, 0] = self.prior.mean
        root = np.linalg.cholesky(self.prior.covariance)
        at, kept = at - centre, []
        level = self._likelihood(at + centre)
        for step in range(_STEPS):
            other = rng.standard_normal(at.shape)
            other[:2], other[2:] = root @ other[:2], other[2:] * deviation
            floor = level + np.log(rng.random(at.shape[1]))
            angle = np.asarray(rng.uniform(0, 2 * np.pi, at.shape[1]))
            low, high = angle - 2 * np.pi, angle.copy()
            open_ = np.arange(at.shape[1])
            moved = at.copy()
            while len(open_):
                turn = angle[open_]
                tried = at[:, open_] * np.cos(turn) + other[:, open_] * np.sin(turn)
                reached = self._likelihood(tried + centre)
                fits = reached >= floor[open_]
                moved[:, open_[fits]], level[open_[fits]] = tried[:, fits], reached[fits]
                open_ = open_[~fits]
                turn = angle[open_]
                low[open_] = np.where(turn < 0, turn, low[open_])
                high[open_] = np.where(turn < 0, high[open_], turn)
                angle[open_] = rng.uniform(low[open_], high[open_])
            at = moved
            if step >= _STEPS - _KEPT:
                kept.append(at + centre)
        return np.hstack(kept)

    def _likelihood(self, at: np.ndarray) -> np.ndarray:
        linear = self.features @ at
        return np.asarray(self.right @ linear + log_expit(-linear).sum(axis=0))


class Windows(NamedTuple):
    """Windows with a score of the class that nobody has checked, those alike together.

    Attributes
    ----------
    x : np.ndarray, float64, shape (cells,)
    site : np.ndarray, int64, shape (cells,)
    windows : np.ndarray, int64, shape (cells,)
    cell : np.ndarray, int64, shape (n,)
        Where each of the windows is.
    """

    x: np.ndarray
    site: np.ndarray
    windows: np.ndarray
    cell: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, site: np.ndarray) -> Windows:
        """Put windows together whose scores are close and whose site is the same."""
        if not len(x):
            none = np.zeros(0, np.int64)
            return cls(np.zeros(0), none, none, none)
        edges = np.linspace(x.min(), x.max(), _CELLS + 1)[1:-1]
        cell = site.astype(np.int64) * _CELLS + np.searchsorted(edges, x, side="right")
        cells, inverse, count = np.unique(cell, return_inverse=True, return_counts=True)
        return cls(np.bincount(inverse, x) / count, cells // _CELLS, count, inverse)


def right_windows(
    p: np.ndarray, unchecked: Windows, sites: int, rng: np.random.Generator
) -> np.ndarray:
    """Draws of how many of the unchecked windows are right, int64 of shape (sites, draws).

    `p` are draws of the probability of being right in each cell, float64 of shape (cells, draws).
    """
    totals = np.zeros((sites, p.shape[1]), dtype=np.int64)
    np.add.at(totals, unchecked.site, rng.binomial(unchecked.windows[:, None], p))
    return totals


class Allocation(NamedTuple):
    """Checks that are still needed.

    Attributes
    ----------
    order : np.ndarray, int64, shape (n,)
        Cells of the unchecked windows in which to check one, the most telling first.
    width : float
        Of the interval that is to be expected then.
    """

    order: np.ndarray
    width: float


def allocate(
    p: np.ndarray, unchecked: Windows, *, checked: int, now: float, wanted: float, most: int = 2000
) -> Allocation:
    """Choose checks, one after the other, each where it narrows the interval most.

    The interval is that of the share of right ones among all windows with a score.  What a check
    in a cell takes of its variance is cov(share, p)² / (E p (1 - E p)), exactly for the first and
    as if all were normal for those that follow.  If cells had nothing to do with one another, this
    would be Neyman's allocation, n in proportion to N √(p (1 - p)); here a check tells of its
    neighbours, too.

    Parameters
    ----------
    p : np.ndarray, float64, shape (cells, draws)
        Draws of the probability of being right in each cell.
    unchecked : Windows
        The cells.
    checked : int
        Windows that are checked already.
    now, wanted : float
        Width of the 95 % interval.
    most : int
        Not more checks than these.
    """
    left, total = unchecked.windows.copy(), checked + int(unchecked.windows.sum())
    single = (p * (1 - p)).mean(axis=1)  # variance of one window
    off = (p - p.mean(axis=1, keepdims=True)) / np.sqrt(p.shape[1])
    share = left @ off / total
    before = share @ share + (left * single).sum() / total**2
    order: list[int] = []
    width = now
    while width > wanted and len(order) < most and left.any():
        noise = single + np.einsum("ij,ij->i", off, off)
        gain = (off @ share) ** 2 / np.maximum(noise, 1e-300) + single / total**2
        best = int(np.argmax(np.where(left > 0, gain, -1.0)))
        order.append(best)
        left[best] -= 1
        row, away = off[best].copy(), noise[best]
        # A square root of the covariance that is left (Potter's formula).
        factor = 1 / (away + np.sqrt(away * single[best])) if away > 0 else 0.0
        off = off - factor * np.outer(off @ row, row)
        share = left @ off / total
        after = share @ share + (left * single).sum() / total**2
        width = now * float(np.sqrt(after / before))
    return Allocation(np.array(order, dtype=np.int64), width)
