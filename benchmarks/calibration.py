"""Do intervals of calibrations hold, and how many checks do they need?

Classes are simulated whose truth is known: windows of the whole survey, or only those above a
floor of scores, with differing prevalence, separation, spread and number of windows, and mostly
not of the shape that the curves assume (unequal spreads, other species that sound alike, ceilings,
curvature, another link).  For each of them the peer's design (four bins of equally many windows,
25 checks in each, a beta posterior per bin: Dumoulin et al., All thresholds barred) gives an
interval of the share of right windows.  `bacpipe.review_plan`'s rounds then go on until theirs is
as narrow.  Reported: how often each interval holds the truth, also that of P(correct | score) at
six scores, and the checks that ours needed, of the peer's 100.  Beside it those that somebody would
need who knew P(correct) of every window beforehand, by Neyman's allocation over it: no estimate
that corrects a model by checks, by differences or by regression, can do with fewer (Godambe & Joshi
1965, Ann. Math. Stat. 36, 1707-1722).  With ``--fixed N``, ours stops after N checks instead, so
that coverage is that of a number of checks, not of a stopping rule.

    python benchmarks/calibration.py --classes 1000
    python benchmarks/calibration.py --classes 200 --only survey --seed 2
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import expit
from scipy.stats import norm

from bacpipe.recognisers.reliability import (
    USUAL,
    Checks,
    Model,
    Windows,
    allocate,
    right_windows,
    score_strata,
)

_MOST = 300  # checks of a class
_PEERS = 100
_NEAR = 0.002  # of a probability, which is no matter


class Simulated(NamedTuple):
    """Windows of a class: logits of their scores, whether they are right, and P(correct)."""

    x: np.ndarray
    right: np.ndarray
    p: np.ndarray


def survey_class(rng: np.random.Generator) -> Simulated:
    """All windows of a survey: two normal distributions of logits, and sound-alikes."""
    n = int(rng.choice([2000, 8000]))
    share = float(np.exp(rng.uniform(np.log(0.02), np.log(0.6))))
    apart, spread = rng.uniform(1.2, 3.2), rng.choice([0.7, 1, 1, 1.4])
    alike = rng.choice([0, 0, 0.03])
    right = rng.random(n) < share
    high = right | (rng.random(n) < alike)
    x = np.where(high, rng.normal(apart, spread, n), rng.normal(0, 1, n))
    likely = norm.pdf(x, apart, spread)
    yes = share * likely
    no = (1 - share) * ((1 - alike) * norm.pdf(x) + alike * likely)
    return Simulated(x, right, yes / (yes + no))


def detected_class(rng: np.random.Generator) -> Simulated:
    """Windows with a score above 0.1 only, and a curve that is not always logistic."""
    n = int(rng.choice([500, 2000, 8000]))
    x = -2.2 + rng.gamma(rng.uniform(0.8, 2.0), rng.uniform(1.0, 2.0), n)
    linear = rng.normal(rng.uniform(-2, 1.5), 1) + max(0.1, rng.normal(0.85, 0.3)) * x
    shape = rng.integers(4)
    p = expit(linear)
    if shape == 1:
        p = 0.9 * p + 0.02
    elif shape == 2:
        p = expit(linear + rng.choice([-0.15, 0.15]) * (x**2 - 2))
    elif shape == 3:
        p = 1 - np.exp(-np.exp(0.6 * linear - 0.4))
    return Simulated(x, rng.random(n) < p, p)


POPULATIONS: dict[str, Callable[[np.random.Generator], Simulated]] = {
    "survey": survey_class, "detected": detected_class,
}  # fmt: skip


def peers_interval(item: Simulated, rng: np.random.Generator) -> np.ndarray:
    """95 % interval of the share of right windows, by four quantile bins of 25 checks."""
    edges = np.quantile(item.x, [0.25, 0.5, 0.75])
    place = np.searchsorted(edges, item.x)
    share = np.zeros(4000)
    for number in range(4):
        there = np.flatnonzero(place == number)
        checked = item.right[rng.choice(there, min(_PEERS // 4, len(there)), replace=False)]
        posterior = rng.beta(checked.sum() + 0.1, (~checked).sum() + 0.1, len(share))
        share += posterior * len(there) / len(item.x)
    return np.quantile(share, [0.025, 0.975])


def fewest_checks(item: Simulated) -> float:
    """Checks with the variance of the peer's design, if P(correct) were known of every window."""
    place = np.searchsorted(np.quantile(item.x, [0.25, 0.5, 0.75]), item.x)
    variance = 0.0
    for number in range(4):
        there = item.right[place == number]
        variance += (len(there) / len(place)) ** 2 * there.var() / (_PEERS // 4)
    return float(np.sqrt(item.p * (1 - item.p)).mean() ** 2 / variance) if variance else np.nan


class Result(NamedTuple):
    """What our checks of a class tell."""

    interval: np.ndarray  # of the share of right windows
    checks: int
    covered: np.ndarray  # whether the interval of P(correct) holds it, at six scores


def our_result(
    item: Simulated, width: float, rng: np.random.Generator, fixed: int | None = None
) -> Result:
    """Check windows in rounds until the interval has a width, or until there are so many."""
    x = (item.x - item.x.mean()) / item.x.std()
    site = np.zeros(len(x), dtype=np.int64)
    model = Model.of(USUAL, x, site, 1)
    stratum = np.searchsorted(score_strata(x), x, side="right")
    done = np.zeros(len(x), dtype=bool)
    for number in np.unique(stratum):
        done[rng.choice(np.flatnonzero(stratum == number))] = True
    while True:
        checked = int(done.sum())
        checks = Checks(x[done], item.right[done].astype(float), site[done])
        draws = model.posterior(checks).draws(rng)
        left = Windows.of(x[~done], site[~done])
        p = expit(model.features(left.x, left.site) @ draws)
        share = (item.right[done].sum() + right_windows(p, left, 1, rng)[0]) / len(x)
        interval = np.quantile(share, [0.025, 0.975])
        now = float(np.diff(interval)[0])
        if checked >= (fixed or _MOST) or (fixed is None and now <= width):
            break
        step = max(4, checked // 5)
        plan = allocate(
            p[:, ::4], left, checked=checked, now=now, wanted=0 if fixed else width,
            most=min(step, fixed - checked) if fixed else step,
        )  # fmt: skip
        rows = np.flatnonzero(~done)
        for cell, count in zip(*np.unique(plan.order, return_counts=True), strict=True):
            done[rng.choice(rows[left.cell == cell], count, replace=False)] = True
    at = np.quantile(x, [0.1, 0.3, 0.5, 0.7, 0.9, 0.97])
    truth = item.p[[int(np.argmin(np.abs(x - value))) for value in at]]
    low, high = np.quantile(expit(model.features(at) @ draws), [0.025, 0.975], axis=1)
    return Result(interval, checked, (low - _NEAR <= truth) & (truth <= high + _NEAR))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--only", choices=sorted(POPULATIONS))
    parser.add_argument("--fixed", type=int)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    for name, simulate in POPULATIONS.items():
        if options.only in (None, name):
            _report(name, simulate, options)


def _report(
    name: str, simulate: Callable[[np.random.Generator], Simulated], options: argparse.Namespace
) -> None:
    rng, started = np.random.default_rng(options.seed), time.process_time()
    rows, covered = [], []
    for _ in range(options.classes):
        item = simulate(rng)
        peers = peers_interval(item, rng)
        ours = our_result(item, float(np.diff(peers)[0]), rng, options.fixed)
        truth = item.right.mean()
        hits = [bool(low <= truth <= high) for low, high in (peers, ours.interval)]
        ratio = np.diff(ours.interval)[0] / np.diff(peers)[0]
        rows.append((truth, *hits, ours.checks, ratio, fewest_checks(item)))
        covered.append(ours.covered)
    truth, peer, our, checks, ratio, fewest = np.array(rows).T
    print(f"{name}: {options.classes} classes, {time.process_time() - started:.0f} CPU s")
    print(
        f"  share of right windows: peer's intervals hold {peer.mean():.1%}, ours {our.mean():.1%}"
    )
    print(
        f"  P(correct | score): ours hold {np.mean(covered):.1%}; at the 10, 30, 50, 70, 90, 97 %"
    )
    print(f"    quantiles of scores {np.mean(covered, axis=0).round(3).tolist()}")
    print(f"  checks: mean {checks.mean():.1f}, median {np.median(checks):.0f} (peer's {_PEERS})")
    print(f"  fewest with P(correct) known: mean {np.nanmean(fewest):.1f}")
    print(f"  width of ours / peer's: median {np.median(ratio):.2f}")
    for low, high in ((0, 0.05), (0.05, 0.2), (0.2, 1)):
        here = (truth >= low) & (truth < high)
        if here.any():
            print(
                f"    share {low:.0%} to {high:.0%}: {here.sum()} classes, ours hold "
                f"{our[here].mean():.1%}, median {np.median(checks[here]):.0f} checks"
            )


if __name__ == "__main__":
    main()
