"""Models on shared ground: the same classes, the same recordings, and differences in pairs.

A ranking is fair only on what all models were tested with, so that scores are computed again from
the stored scores of the test windows where models differ in their classes or recordings.

Two models meet the same recordings, hard ones and easy ones, so that their difference is known
better than either score.  Its interval and the probability that one is better come from leaving
out one shared recording (or site) after the other in both (for clusterings: half of them), as the
intervals of single scores do: with few recordings a bootstrap is too sure of itself
(benchmarks/README.md).  The probability is that of Student's t, and letters show which models
cannot be told apart (p < 0.05 after Holm's correction; compact letter display, Piepho 2004, J.
Comput. Graph. Stat. 13, 456-466).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

import numpy as np
from scipy.special import stdtr, stdtrit

from bacpipe.errors import counted
from bacpipe.evaluation.cross_validation import paired_difference
from bacpipe.evaluation.metrics import (
    FEWEST_UNITS,
    Groups,
    evaluate_labels,
    interval,
    number,
    standard_error,
)
from bacpipe.evaluation.tested_windows import TestedWindows
from bacpipe.evaluation.units import NamedSites, units_left_out, units_of

if TYPE_CHECKING:
    import pandas as pd

PAIRED = ("f1_macro", "average_precision_macro", "roc_auc_macro")
"""Metrics that are compared in pairs; the first one ranks."""

_FEWEST_CLASSES = _FEWEST_RECORDINGS = 2
_LISTED = 5  # labels in a note
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
    _tell_dropped(shared)
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
    parts = [windows.of(classes, recordings) for windows in known]
    # A recording may have had no window but of a class that is left out.
    recordings = set.intersection(*(set(part.recordings.tolist()) for part in parts))
    _tell(shared, known, classes, recordings)
    if len(classes) < _FEWEST_CLASSES or len(recordings) < _FEWEST_RECORDINGS:
        shared.rankable = False
        shared.notes.append(
            f"No ranking: the models share {counted(len(classes), 'class', 'classes')} and "
            f"{counted(len(recordings), 'test recording')}, and at least {_FEWEST_CLASSES} of "
            f"each are needed. Scores are those of each model's own classes and recordings."
        )
        return shared
    for i, part in enumerate(parts):
        part = part.of(classes, recordings)
        shared.results[i] |= _evaluated(shared.results[i], part, samples)
        shared.tested[i] = part
    return shared


def _evaluated(result: Mapping[str, Any], part: TestedWindows, samples: int) -> dict[str, Any]:
    split = result["split"]
    groups = units_left_out(part.recordings, len(part.scores), split["strategy"], part.sites)
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


def _tell_dropped(shared: Shared) -> None:
    """Note which labels no model was tested with: a score says nothing of them."""
    dropped = [result.get("dropped", {}) for result in shared.results]
    if not dropped or not (names := [n for n in dropped[0] if all(n in d for d in dropped)]):
        return
    tested = {name for result in shared.results for name in result["classes"]}
    listed = "; ".join(f"{name} ({dropped[0][name]})" for name in names[:_LISTED])
    shared.notes.append(
        f"The models were tested with {len(tested)} of "
        f"{counted(len(tested) + len(names), 'label')}; left out: {listed}"
        f"{'; …' if len(names) > _LISTED else ''}."
    )


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
    known = [windows for windows in shared.tested if windows is not None]
    if len(known) < 2 or len(known) < len(shared.tested) or not shared.rankable:
        return None
    strategy = shared.results[0]["split"]["strategy"]
    unit = "site" if strategy == "site" else "recording"
    names = [f"{result['model']} ({result['probe']})" for result in shared.results]
    repeated = [result.get("cross_validation") for result in shared.results]

    def cross_validated(i: int, j: int, metric: str) -> dict[str, Any]:
        one, other = repeated[i], repeated[j]
        if not one or not other:
            return {}
        values = paired_difference(one, other, metric) or {}
        return {f"cross_validated_{key}": value for key, value in values.items()}

    return _pairs(dict(zip(names, known, strict=True)), PAIRED, unit, cross_validated)


class _Comparable(Protocol):
    """Windows of a model that a score can be computed from."""

    @property
    def recordings(self) -> np.ndarray:
        """Recording of each."""

    @property
    def sites(self) -> NamedSites:
        """Their sites, where these are not folders."""

    def resampled(self, units: Groups) -> tuple[dict[str, np.ndarray], float | None]:
        """Scores of all, then without some of the units; see `standard_error` for the share."""


class _Divisible(_Comparable, Protocol):
    """The same, where some of the labels and recordings can be taken alone."""

    @property
    def compared(self) -> set[str]:
        """Labels that count."""

    def of(self, classes: Sequence[str], recordings: Collection[str]) -> Self:
        """Windows with some labels in some recordings."""


_W = TypeVar("_W", bound=_Divisible)


def share(
    windows: Mapping[str, _W],
    what: str = "ranking",
    lacks: str = "has it in too few recordings",
) -> tuple[dict[str, _W], bool, list[str]]:
    """Windows of several models with the labels and in the recordings that all of them have.

    Returns them, whether anything was left out, and notes on what; none of the windows if models
    share fewer than two labels or recordings.  `lacks` is what notes say of models without a label.
    """
    labels, heard = _own(windows)
    common, places, parts = set[str](), set[str](), dict(windows)
    # Without a label a recording may have no window left, and without that another label none.
    while parts and (common, places) != (shared_now := _in_all(*_own(parts))):
        common, places = shared_now
        parts = {model: each.of(sorted(common), places) for model, each in windows.items()}
    notes = []
    for name in sorted(set().union(*labels.values()) - common):
        lacking = ", ".join(sorted(model for model, mine in labels.items() if name not in mine))
        notes.append(f"{name} is left out of the {what}: {lacking} {lacks}.")
    if rest := sorted(set().union(*heard.values()) - places):
        notes.append(
            f"{counted(len(rest), 'recording')} left out of the {what}, because not all models "
            f"have a labelled window there: {', '.join(rest[:5])}{', …' if len(rest) > 5 else ''}."
        )
    if not notes:
        return dict(windows), False, notes
    if len(common) < _FEWEST_CLASSES or len(places) < _FEWEST_RECORDINGS:
        notes.append(
            f"No {what}: the models share {counted(len(common), 'label')} and "
            f"{counted(len(places), 'recording')}, and at least {_FEWEST_CLASSES} of each are "
            f"needed. Scores are those of each model's own labels and recordings."
        )
        return {}, True, notes
    return parts, True, notes


def _own(windows: Mapping[str, _Divisible]) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    labels = {model: each.compared for model, each in windows.items()}
    return labels, {model: set(each.recordings.astype(str)) for model, each in windows.items()}


def _in_all(
    labels: Mapping[str, set[str]], heard: Mapping[str, set[str]]
) -> tuple[set[str], set[str]]:
    return set.intersection(*labels.values()), set.intersection(*heard.values())


def shared_scores(
    windows: _Comparable, unit: str, low: float = 0.0
) -> tuple[dict[str, float | None], dict[str, list[float] | None]]:
    """Scores of some windows, and their intervals."""
    groups = units_left_out(windows.recordings, len(windows.recordings), unit, windows.sites)
    scores, left_out = windows.resampled(groups)
    n = len(windows.recordings)
    return (
        {name: number(values[0]) for name, values in scores.items()},
        {
            name: interval(values, low=low, windows=n, left_out=left_out)
            for name, values in scores.items()
        },
    )


def pairs_of(windows: Mapping[str, _Comparable], metric: str, unit: str) -> pd.DataFrame | None:
    """Difference of every two models as in `paired_table`, of windows on shared ground."""
    return _pairs(windows, (metric,), unit, lambda *_: {})


def _pairs(
    windows: Mapping[str, _Comparable],
    metrics: Sequence[str],
    unit: str,
    more: Callable[[int, int, str], dict[str, Any]],
) -> pd.DataFrame | None:
    import pandas as pd

    names, each = list(windows), list(windows.values())
    if len(names) < 2:
        return None
    units_of_each = [units_of(one.recordings, unit, one.sites) for one in each]
    units = np.unique(np.concatenate(units_of_each))
    if len(units) < FEWEST_UNITS:
        return None
    replicates, left_out = [], None
    for one, mine in zip(each, units_of_each, strict=True):
        code = np.searchsorted(units, mine)
        values, left_out = one.resampled(Groups(code, len(units), unit))
        replicates.append(values)
    rows = []
    for metric in metrics:
        of_metric = []
        for i, j in combinations(range(len(names)), 2):
            difference = replicates[i][metric] - replicates[j][metric]
            if difference[0] < 0:
                i, j, difference = j, i, -difference
            row = {"metric": metric, "better": names[i], "other": names[j],
                   **_difference(difference, left_out), f"{unit}s": len(units)}  # fmt: skip
            of_metric.append(row | more(i, j, metric))
        _correct(of_metric)
        rows += of_metric
    return pd.DataFrame(rows)


def _difference(values: np.ndarray, left_out: float | None) -> dict[str, float]:
    """A difference, its interval and the probability that it is above 0."""
    replicates = values[1:][np.isfinite(values[1:])]
    n = len(replicates)
    unknown = {"difference": float(values[0]), "low": np.nan, "high": np.nan}
    if n < FEWEST_UNITS or not np.isfinite(values[0]):
        return {**unknown, "probability": np.nan}
    error = standard_error(replicates, left_out)
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
