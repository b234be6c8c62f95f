"""Models on shared ground: the same classes, the same recordings, and differences in pairs.

A ranking is fair only on what all models were tested with, so that scores are computed again from
the stored scores of the test windows where models differ in their classes or recordings.

Two models meet the same recordings, hard ones and easy ones, so that their difference is known
better than either score.  Its interval and the probability that one is better come from leaving
out one shared recording (or site) after the other in both, as the intervals of single scores do:
with few recordings a bootstrap is too sure of itself (benchmarks/README.md).  The probability is
that of Student's t, and letters show which models cannot be told apart (p < 0.05 after Holm's
correction; compact letter display, Piepho 2004, J. Comput. Graph. Stat. 13, 456-466).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import stdtr, stdtrit

from bacpipe.errors import counted
from bacpipe.evaluation.cross_validation import paired_difference
from bacpipe.evaluation.metrics import (
    FEWEST_UNITS,
    Groups,
    accuracy_replicates,
    decide,
    evaluate_labels,
    leave_out,
    score_replicates,
)
from bacpipe.evaluation.splits import units_left_out, units_of
from bacpipe.evaluation.tested_windows import TestedWindows

if TYPE_CHECKING:
    import pandas as pd

PAIRED = ("f1_macro", "average_precision_macro", "roc_auc_macro")
"""Metrics that are compared in pairs; the first one ranks."""

_FEWEST_CLASSES = _FEWEST_RECORDINGS = 2
_REPLICATES = 1000
_LEVEL = 0.05


@dataclass
class Shared:
    """Results of several probes on the same classes and recordings."""

    results: list[dict[str, Any]]
    tested: list[TestedWindows | None]
    rankable: bool = True
    notes: list[str] = field(default_factory=list)  # what was left out, and why
    missing: dict[str, str] = field(default_factory=dict)  # why a model is left out, by model


def on_shared_ground(
    results: Sequence[Mapping[str, Any]],
    tested: Sequence[TestedWindows | None],
    samples: int = _REPLICATES,
) -> Shared:
    """Bring results of probes to the classes and recordings that all of them share.

    Parameters
    ----------
    results : sequence of dict
        As `probing_pipeline` returns them.
    tested : sequence of TestedWindows or None
        Their test windows, where they are known.
    samples : int
        Most parts into which the recordings are divided for the intervals.
    """
    shared = Shared([dict(result) for result in results], list(tested))
    _leave_out_untested(shared)
    _leave_out_other_tasks(shared)
    if not shared.results or _alike(shared):
        return shared
    for i, windows in reversed(list(enumerate(shared.tested))):
        if windows is None:
            shared.missing[_name(shared.results[i])] = (
                "the scores of its test windows are not stored, and the models were not tested "
                "with the same classes and recordings; evaluate it again with overwrite=True"
            )
            del shared.results[i], shared.tested[i]
    known = [windows for windows in shared.tested if windows is not None]
    if not known:
        return shared
    in_all = set.intersection(*(set(windows.classes) for windows in known))
    classes = [name for name in known[0].classes if name in in_all]
    recordings = set.intersection(*(set(windows.recordings.tolist()) for windows in known))
    _tell(shared, known, classes, recordings)
    if len(classes) < _FEWEST_CLASSES or len(recordings) < _FEWEST_RECORDINGS:
        shared.rankable = False
        shared.notes.append(
            f"No ranking: the models share {counted(len(classes), 'class', 'classes')} and "
            f"{counted(len(recordings), 'test recording')}, and at least {_FEWEST_CLASSES} of "
            f"each are needed. Scores are those of each model's own classes and recordings."
        )
        return shared
    for i, windows in enumerate(known):
        part = windows.of(classes, recordings)
        shared.results[i] |= _evaluated(shared.results[i], part, samples)
        shared.tested[i] = part
    return shared


def _evaluated(result: Mapping[str, Any], part: TestedWindows, samples: int) -> dict[str, Any]:
    split = result["split"]
    groups = units_left_out(part.recordings, len(part.scores), split["strategy"])
    return {
        **evaluate_labels(part.labels, part.scores, part.classes, groups, samples=samples),
        "classes": list(part.classes),
        # The parts of a cross-validation were about all classes.
        "cross_validation": None,
        "split": {
            **split,
            "windows": {**split["windows"], "test": len(part.scores)},
            "recordings": {**(split["recordings"] or {}), "test": len(set(part.recordings))},
        },
    }


def _leave_out_untested(shared: Shared) -> None:
    for i, result in reversed(list(enumerate(shared.results))):
        if result["split"]["windows"]["test"] == 0:
            shared.missing[_name(result)] = "it learnt from everything, so it was not tested"
            del shared.results[i], shared.tested[i]


def _leave_out_other_tasks(shared: Shared) -> None:
    several = Counter(bool(result.get("multi_label")) for result in shared.results)
    if len(several) < 2:
        return
    kept = several.most_common(1)[0][0]
    for i, result in reversed(list(enumerate(shared.results))):
        if bool(result.get("multi_label")) != kept:
            shared.missing[_name(result)] = (
                f"it was evaluated with {'single labels' if kept else 'several labels'} per "
                f"window, unlike the others"
            )
            del shared.results[i], shared.tested[i]


def _alike(shared: Shared) -> bool:
    """Whether all have the same classes and test recordings, as far as is known."""
    if len({frozenset(result["classes"]) for result in shared.results}) > 1:
        return False
    known = [windows for windows in shared.tested if windows is not None]
    if len(known) < len(shared.tested):
        return len({result["split"]["id"] for result in shared.results}) == 1
    return len({frozenset(windows.recordings.tolist()) for windows in known}) == 1


def _tell(
    shared: Shared, known: Sequence[TestedWindows], classes: Sequence[str], recordings: set[str]
) -> None:
    every = sorted({name for windows in known for name in windows.classes} - set(classes))
    for name in every:
        lacking = {r["model"] for r in shared.results if name not in r["classes"]}
        reasons = {
            r["dropped"][name]
            for r in shared.results
            if r["model"] in lacking and name in r.get("dropped", {})
        }
        why = f" ({'; '.join(sorted(reasons))})" if reasons else ""
        shared.notes.append(
            f"{name} is left out of the ranking: {', '.join(sorted(lacking))} "
            f"{'was' if len(lacking) == 1 else 'were'} not tested with it{why}."
        )
    heard = {name for windows in known for name in windows.recordings.tolist()}
    if rest := sorted(heard - recordings):
        shared.notes.append(
            f"{counted(len(rest), 'recording')} left out of the ranking, because not all models "
            f"were tested with {'it' if len(rest) == 1 else 'them'}: {', '.join(rest[:5])}"
            f"{', …' if len(rest) > 5 else ''}."
        )


def _name(result: Mapping[str, Any]) -> str:
    return str(result["model"])


# ---------------------------------------------------------------------- pairs


def paired_table(shared: Shared) -> pd.DataFrame | None:
    """Difference of every two probes, a row per pair and metric; None if it is not known.

    Columns: metric, better, other (model and probe), difference, low and high (95 %), probability
    that the first is better, p (two-sided, after Holm's correction), recordings; and the same of
    the cross-validations, where there are any.
    """
    import pandas as pd

    known = [windows for windows in shared.tested if windows is not None]
    if len(known) < 2 or len(known) < len(shared.tested) or not shared.rankable:
        return None
    strategy = shared.results[0]["split"]["strategy"]
    unit = "site" if strategy == "site" else "recording"
    units = np.unique(units_of(known[0].recordings, unit))
    if len(units) < FEWEST_UNITS:
        return None
    weights = leave_out(Groups(np.arange(len(units)), len(units), unit), _REPLICATES)
    replicates = [_replicates(windows, units, unit, weights) for windows in known]
    names = [f"{result['model']} ({result['probe']})" for result in shared.results]
    rows = []
    for metric in PAIRED:
        of_metric = []
        for i, j in combinations(range(len(known)), 2):
            difference = replicates[i][metric] - replicates[j][metric]
            if difference[0] < 0:
                i, j, difference = j, i, -difference
            row = {"metric": metric, "better": names[i], "other": names[j],
                   **_difference(difference), f"{unit}s": len(units)}  # fmt: skip
            one, other = (shared.results[k].get("cross_validation") for k in (i, j))
            if one and other and (repeated := paired_difference(one, other, metric)):
                row |= {f"cross_validated_{key}": value for key, value in repeated.items()}
            of_metric.append(row)
        _correct(of_metric)
        rows += of_metric
    return pd.DataFrame(rows)


def _replicates(
    windows: TestedWindows, units: np.ndarray, unit: str, weights: np.ndarray
) -> dict[str, np.ndarray]:
    code = np.searchsorted(units, units_of(windows.recordings, unit))
    groups = Groups(code, len(units), unit)
    overall, _ = score_replicates(
        *decide(windows.labels, windows.scores), windows.scores, groups, weights
    )
    return {**accuracy_replicates(windows.labels, windows.scores, groups, weights), **overall}


def _difference(values: np.ndarray) -> dict[str, float]:
    """A difference, its jackknife interval and the probability that it is above 0."""
    replicates = values[1:][np.isfinite(values[1:])]
    n = len(replicates)
    unknown = {"difference": float(values[0]), "low": np.nan, "high": np.nan}
    if n < FEWEST_UNITS or not np.isfinite(values[0]):
        return {**unknown, "probability": np.nan}
    error = np.sqrt((n - 1) / n * np.square(replicates - replicates.mean()).sum())
    if error == 0:
        return {**unknown, "probability": 0.5 if values[0] == 0 else np.nan}
    half = stdtrit(n - 1, 0.975) * error
    return {
        "difference": float(values[0]),
        "low": float(max(values[0] - half, -1)),
        "high": float(min(values[0] + half, 1)),
        "probability": float(stdtr(n - 1, values[0] / error)),
    }


def _correct(rows: Sequence[dict[str, Any]]) -> None:
    """Add p, corrected for the number of pairs (Holm 1979, Scand. J. Stat. 6, 65-70)."""
    p = np.array([2 * min(row["probability"], 1 - row["probability"]) for row in rows])
    p[np.isnan(p)] = 1
    order = np.argsort(p)
    adjusted = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    for rank, i in enumerate(order):
        rows[i]["p"] = float(min(adjusted[rank], 1))


def letters(pairs: pd.DataFrame, names: Sequence[str], metric: str = PAIRED[0]) -> dict[str, str]:
    """Compact letter display: those that share a letter cannot be told apart.

    `names` are sorted, the best first, and so are the letters.
    """
    groups = [set(names)]
    rows = pairs[(pairs["metric"] == metric) & (pairs["p"] < _LEVEL)]
    for one, other in zip(rows["better"], rows["other"], strict=True):
        split = []
        for group in groups:
            split += [group - {one}, group - {other}] if {one, other} <= group else [group]
        kept: list[set[str]] = []
        for group in sorted(split, key=len, reverse=True):
            if not any(group <= larger for larger in kept):
                kept.append(group)
        groups = kept
    place = {name: i for i, name in enumerate(names)}
    groups.sort(key=lambda group: sorted(place[name] for name in group))
    return {
        name: "".join(_letter(i) for i, group in enumerate(groups) if name in group)
        for name in names
    }


def _letter(i: int) -> str:
    return chr(ord("a") + i) if i < 26 else f"{_letter(i // 26 - 1)}{_letter(i % 26)}"
