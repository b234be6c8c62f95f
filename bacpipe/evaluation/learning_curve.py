"""How a probe's score grows with the number of labels, and whether more would help."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bacpipe.evaluation.metrics import decide, group_by, number, score_replicates

SHARES = (0.125, 0.25, 0.5, 1.0)
"""Parts of the training windows."""

_DRAWS = 3
_MANY = 20_000  # training windows of which one draw is steady enough
_WORTH = 0.01  # of macro F1; less is within the noise

_NAMED = 5


def learning_curve(
    labels: np.ndarray,
    classes: Sequence[str],
    train: np.ndarray,
    test: np.ndarray,
    fit: Callable[[np.ndarray, float], Callable[[np.ndarray], np.ndarray]],
    seed: int,
) -> dict[str, Any]:
    """Train with parts of the training windows, test on the same windows.

    Parameters
    ----------
    labels : np.ndarray
        int64 of shape (n,), or bool of shape (n, classes) where windows have several.
    classes : sequence of str
    train, test : np.ndarray, int64
        Rows.  Of each class the same share is drawn.
    fit : callable
        ``fit(rows, share)`` returns what gives the scores of further rows.
    seed : int

    Returns
    -------
    dict
        ``points``: for each share the training windows, their median number by class, F1 and
        average precision (macro) and F1 by class, means of the draws; ``advice``: what twice as
        many labels would be worth, if the curve goes on as it did.
    """
    rng = np.random.default_rng(seed)
    truth = labels if labels.ndim == 2 else labels[:, None] == np.arange(len(classes))
    groups, weights = group_by(None, len(test)), np.ones((1, len(test)))
    points = []
    for share in SHARES:
        draws = []
        n_draws = 1 if share == 1 or len(train) > _MANY else _DRAWS
        for _ in range(n_draws):
            rows = train if share == 1 else _draw(truth, train, share, rng)
            scores = fit(rows, share)(test)
            overall, per_class = score_replicates(
                *decide(labels[test], scores), scores, groups, weights
            )
            draws.append(
                [overall["f1_macro"][0], overall["average_precision_macro"][0],
                 *per_class["f1"][0]]
            )  # fmt: skip
        f1, precision, *by_class = np.mean(draws, axis=0)
        windows = truth[rows].sum(axis=0)
        points.append(
            {
                "share": share,
                "windows": len(rows),
                "windows_per_class": float(np.median(windows)),
                "f1_macro": number(f1),
                "average_precision_macro": number(precision),
                "per_class": {
                    name: {"windows": int(windows[i]), "f1": number(by_class[i])}
                    for i, name in enumerate(classes)
                },
            }
        )
    return {"points": points, "advice": _advise(points)}


def _draw(
    truth: np.ndarray, train: np.ndarray, share: float, rng: np.random.Generator
) -> np.ndarray:
    """The same share of every combination of labels, at least one window of each class."""
    _, number_of, counts = np.unique(truth[train], axis=0, return_inverse=True, return_counts=True)
    order = rng.permutation(len(train))
    by_kind = order[np.argsort(number_of.ravel()[order], kind="stable")]
    place = np.arange(len(train)) - np.repeat(np.cumsum(counts) - counts, counts)
    taken = place < np.maximum(1, np.round(share * np.repeat(counts, counts)))
    return np.sort(train[by_kind[taken]])


def _advise(points: Sequence[dict[str, Any]]) -> str:
    scores = [point["f1_macro"] for point in points[-3:]]
    if None in scores:
        return "Nothing can be said of more labels: F1 is not defined."
    before, last = scores[1] - scores[0], scores[2] - scores[1]
    # What each doubling brings falls by the same factor, and does not grow again.
    gain = last * (np.clip(last / before, 0, 1) if before > 0 else 1)
    gain = min(gain, 1 - scores[2])
    now = f"with a median of {points[-1]['windows_per_class']:g} training windows per class"
    if gain < _WORTH:
        return (
            f"Macro F1 is {scores[2]:.2f} {now}; twice as many labels would hardly help (the last "
            f"doubling brought {last:+.2f}). A better model or cleaner labels may."
        )
    gains = {
        name: values["f1"] - points[-2]["per_class"][name]["f1"]
        for name, values in points[-1]["per_class"].items()
        if values["f1"] is not None and points[-2]["per_class"][name]["f1"] is not None
    }
    most = sorted((n for n in gains if gains[n] >= _WORTH), key=lambda n: -gains[n])[:_NAMED]
    return (
        f"Macro F1 is {scores[2]:.2f} {now}; twice as many labels would add about {gain:.2f}, if "
        f"it goes on as it did (the last doubling brought {last:+.2f})"
        + (f", most of it for {', '.join(most)}." if most else ".")
    )
