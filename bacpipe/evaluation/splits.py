"""Training, validation and test sets that share no recording (or no site).

What is never divided is called a unit: a recording, a site (of the table of sites, else the folder
of a recording) or, only when asked for, a single window.  Units are dealt out by iterative
stratification (Sechidis, Tsoumakas & Vlahavas 2011, ECML PKDD, LNCS 6913, 145-158), the rarest
class first, so that every set gets its share of every class as far as whole units allow; of
several random orders the best is taken.  Two rules hold without exception: a unit is in one set,
and a class that is used is in all three.

``evaluations/overview/split_<kind>.json`` says which recordings (or sites) train, validate and
test.  All models of a data set share it, so that they are compared on the same recordings; new
recordings are added to it, and nobody is moved.  A person may edit it.
``evaluations/<model>/labels/probing_dataframe.csv`` is what follows from it for every window of
one model; it is written for people and not read.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bacpipe.annotations.table import file_part
from bacpipe.errors import EvaluationError, TooLittleDataError, counted
from bacpipe.evaluation.labelled_windows import NO_LABEL, LabelledWindows
from bacpipe.evaluation.units import units_of
from bacpipe.store.files import write_csv, write_json
from bacpipe.store.layout import SPLIT_TABLE, folds_name, split_name
from bacpipe.store.lock import SECONDS_FOR_OTHERS, exclusive

logger = logging.getLogger(__name__)

SETS = ("train", "val", "test")
UNUSED = -1

_ORDERS, _ORDERS_OF_MANY, _MANY = 30, 5, 500


@dataclass(frozen=True)
class SplitRule:
    """How to split."""

    strategy: str  # 'recording', 'site', 'random': what stays together
    train_ratio: float  # shares of the labelled windows; the rest validates
    test_ratio: float
    seed: int

    @property
    def shares(self) -> np.ndarray:
        """Share of each of `SETS`."""
        return np.array([self.train_ratio, 1 - self.train_ratio - self.test_ratio, self.test_ratio])


@dataclass(frozen=True)
class Split:
    """Which window is used for what."""

    # int8, shape (n,): Index into `SETS`; -1 for windows that are not used
    set_of_window: np.ndarray
    classes: tuple[str, ...]  # classes that are used
    # As in `LabelledWindows`, of these classes; none for windows that are not used
    labels: np.ndarray
    dropped: dict[str, str] = field(default_factory=dict)  # classes left out, and why
    # Set of every recording or site; empty when single windows are divided
    units: dict[str, str] = field(default_factory=dict)

    def rows(self, name: str) -> np.ndarray:
        """Windows of a set."""
        return np.flatnonzero(self.set_of_window == SETS.index(name))


def load_or_make_split(data: LabelledWindows, rule: SplitRule) -> Split:
    """Split labelled windows as before, if they were split before.

    With the `paths` of the data, the split is read from there and stored there.

    Raises
    ------
    TooLittleDataError
        If fewer than two classes can be in all three sets.
    EvaluationError
        If the stored split puts a recording into two sets or cannot be read.
    """
    if data.paths is None:
        return split_windows(data, rule)
    if rule.strategy == "random":
        split = split_windows(data, rule)
    else:
        overview = data.paths.overview_path
        path = split_path(overview, data.kind)
        # A run of another model must not add its recordings between reading and writing.
        with exclusive(overview.parent, overview.name, wait=SECONDS_FOR_OTHERS):
            known = read_split(path, rule)
            split = split_windows(data, rule, known)
            units = {**known, **split.units}
            if units != known or not path.is_file():
                write_json(path, {**_header(rule), "sets": _by_set(units)})
    _write_table(data, split)
    return split


def split_path(overview: Path, kind: str) -> Path:
    """File of the split that all models share."""
    return overview / split_name(file_part(kind))


def read_split(path: Path, rule: SplitRule) -> dict[str, str]:
    """Set of every recording or site; empty if there is no split by this rule."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        sets = {name: list(content["sets"][name]) for name in SETS}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EvaluationError(
            f"{path}: this split cannot be read ({error}); correct it, or delete it to have the "
            f"recordings divided anew."
        ) from None
    if any(content.get(key) != value for key, value in _header(rule).items()):
        logger.info("%s: divided anew, because the settings of the split have changed.", path)
        return {}
    set_of: dict[str, str] = {}
    for name in SETS:
        for unit in sets[name]:
            if set_of.setdefault(unit, name) != name:
                raise EvaluationError(
                    f"{path}: {unit!r} is in the sets {set_of[unit]} and {name}; leave it in one."
                )
    return set_of


def split_id(split: Split) -> str:
    """Short hash of who is in which set; models with the same one can be compared."""
    content = split.units or {"windows": split.set_of_window.tolist()}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def split_windows(
    data: LabelledWindows, rule: SplitRule, known: Mapping[str, str] | None = None
) -> Split:
    """Divide labelled windows into three sets; units of `known` sets stay in these.

    Raises
    ------
    TooLittleDataError
        If fewer than two classes can be in all three sets.
    EvaluationError
        If the recordings of the windows are not known.
    """
    rows = np.flatnonzero(data.used)
    window, label = data.pairs
    names, unit = _units(data, rows, rule.strategy)
    # The place of every label's window among the rows.
    at = np.searchsorted(rows, window)
    noun = {"random": "window"}.get(rule.strategy, rule.strategy)
    dropped: dict[str, str] = {}
    spread = _units_per_class(label, unit[at], len(data.classes))
    for i in np.flatnonzero(spread < len(SETS)):
        dropped[data.classes[i]] = (
            f"labelled in {spread[i]} {noun}{'s' * int(spread[i] > 1)}; training, "
            f"validation and test need one each"
            if spread[i]
            else "no window has this label"
            + ("" if data.multi_label else ": others cover more of its windows (see multi_label)")
        )
    kept = spread >= len(SETS)
    _require_classes(data, kept, dropped, noun)
    dealt = _deal(data, rule, kept, at, label, unit, names, known or {})
    for i in np.flatnonzero(kept):
        missing = [s for n, s in enumerate(SETS) if not np.any((label == i) & (dealt[at] == n))]
        if missing:
            kept[i] = False
            dropped[data.classes[i]] = (
                f"its {noun}s cannot be divided so that {' and '.join(missing)} get any of it"
            )
    _require_classes(data, kept, dropped, noun)
    if not data.multi_label:  # a window that has none of these labels says nothing
        dealt = np.where(kept[label], dealt, UNUSED)
    return _result(data, rows, dealt, kept, dropped, unit, names)


def _deal(
    data: LabelledWindows,
    rule: SplitRule,
    kept: np.ndarray,
    at: np.ndarray,
    label: np.ndarray,
    unit: np.ndarray,
    names: Sequence[str],
    known: Mapping[str, str],
) -> np.ndarray:
    """Set of every row; `at` and `label` are the rows and labels of all labels."""
    use = kept[label]
    if rule.strategy == "random" and not data.multi_label:
        return np.where(use, _deal_windows(label, use, rule), UNUSED)
    counts = np.zeros((len(names) or len(unit), len(kept) + 1))
    np.add.at(counts, (unit[at[use]], label[use]), 1)
    if data.multi_label:  # what has none of these labels is divided, too
        empty = np.ones(len(unit), dtype=bool)
        empty[at[use]] = False
        counts[:, -1] = np.bincount(unit[empty], minlength=len(counts))
    start = np.array([SETS.index(known[n]) if n in known else UNUSED for n in names], np.int64)
    start = start if names else np.full(len(unit), UNUSED)
    return _deal_units(counts, start, rule.shares, rule.seed)[unit]


def split_to_train(data: LabelledWindows, rule: SplitRule, *, tuned: bool) -> Split:
    """All labelled windows to learn from, and none to test with.

    With `tuned`, some of the recordings choose what is tuned.

    Raises
    ------
    TooLittleDataError
        If there are fewer than two classes.
    """
    rows = np.flatnonzero(data.used)
    window, label = data.pairs
    at = np.searchsorted(rows, window)
    names, unit = _units(data, rows, "random" if data.recordings is None else rule.strategy)
    there = np.bincount(label, minlength=len(data.classes)) > 0
    if there.sum() < (1 if data.multi_label else 2):
        raise TooLittleDataError(
            f"{data.model}: a probe needs windows of at least 2 labels, but there "
            f"{'is' if there.sum() == 1 else 'are'} {counted(int(there.sum()), 'label')}."
        )
    dealt = np.full(len(rows), SETS.index("train"))
    if tuned:
        dealt = _deal(data, rule, there, at, label, unit, names, {})
        dealt[dealt != SETS.index("val")] = SETS.index("train")
        for i in np.flatnonzero(there):
            mine = np.isin(unit, unit[at[label == i]])
            if (dealt[mine] != SETS.index("train")).all():
                dealt[mine] = SETS.index("train")
    return _result(data, rows, dealt, there, {}, unit, names)


def load_or_make_folds(
    data: LabelledWindows, split: Split, rule: SplitRule, k: int, repetitions: int
) -> list[np.ndarray]:
    """Part of every window that a split uses, for each repetition; int64, shape (n,), -1: none.

    With the `paths` of the data the parts are read from ``overview/folds_<kind>.json`` and stored
    there, so that all models are tested on the same recordings.
    """
    rows = np.flatnonzero(split.set_of_window >= 0)
    names, unit = _units(data, rows, rule.strategy)
    labels = split.labels[rows]
    presence = labels if labels.ndim == 2 else labels[:, None] == np.arange(len(split.classes))
    presence = np.column_stack([presence, ~presence.any(axis=1)])
    counts = np.zeros((len(names) or len(rows), presence.shape[1]))
    np.add.at(counts, unit, presence)

    def deal(known: Sequence[Mapping[str, int]]) -> list[np.ndarray]:
        parts = []
        for repetition in range(repetitions):
            before = known[repetition] if repetition < len(known) else {}
            start = np.array([before.get(name, UNUSED) for name in names], np.int64)
            start = start if names else np.full(len(rows), UNUSED)
            shares = np.full(k, 1 / k)
            parts.append(_deal_units(counts, start, shares, rule.seed + repetition))
        return parts

    if data.paths is None or not names:
        parts = deal([])
    else:
        overview = data.paths.overview_path
        path = overview / folds_name(file_part(data.kind))
        header = {**_header(rule), "splits": f"{k} x {repetitions}"}
        with exclusive(overview.parent, overview.name, wait=SECONDS_FOR_OTHERS):
            known = _read_folds(path, header, k)
            parts = deal(known)
            stored = [
                {
                    **(known[i] if i < len(known) else {}),
                    **dict(zip(names, map(int, part), strict=True)),
                }
                for i, part in enumerate(parts)
            ]
            if stored != known:
                write_json(path, {**header, "parts": stored})
    folds = []
    for part in parts:
        fold = np.full(len(data.labels), UNUSED, np.int64)
        fold[rows] = part[unit]
        folds.append(fold)
    return folds


def _read_folds(path: Path, header: Mapping[str, Any], k: int) -> list[dict[str, int]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        parts = [{str(n): int(part) for n, part in fold.items()} for fold in content["parts"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise EvaluationError(
            f"{path}: these parts cannot be read ({error}); delete the file to have the recordings "
            f"divided anew."
        ) from None
    if any(content.get(key) != value for key, value in header.items()) or any(
        not 0 <= part < k for fold in parts for part in fold.values()
    ):
        logger.info("%s: divided anew, because the settings have changed.", path)
        return []
    return parts


def _result(
    data: LabelledWindows,
    rows: np.ndarray,
    dealt: np.ndarray,
    kept: np.ndarray,
    dropped: dict[str, str],
    unit: np.ndarray,
    names: Sequence[str],
) -> Split:
    if dropped:
        every = len(dropped) + int(kept.sum())
        reasons = "; ".join(f"{name} ({why})" for name, why in dropped.items())
        logger.warning(
            "%s: %d of %d labels left out: %s.", data.model, len(dropped), every, reasons
        )
    set_of_window = np.full(len(data.labels), UNUSED, np.int8)
    set_of_window[rows] = dealt
    used = set_of_window >= 0
    if data.multi_label:
        labels = data.labels[:, kept] & used[:, None]
    else:
        labels = np.where(used, (np.cumsum(kept) - 1)[data.labels], NO_LABEL)
    units = {names[u]: SETS[s] for u, s in zip(unit, dealt, strict=True) if s >= 0} if names else {}
    classes = tuple(name for name, keep in zip(data.classes, kept, strict=True) if keep)
    return Split(set_of_window, classes, labels, dropped, dict(sorted(units.items())))


def _units(
    data: LabelledWindows, labelled: np.ndarray, strategy: str
) -> tuple[list[str], np.ndarray]:
    """Names of the units, and the unit of every labelled window."""
    if strategy == "random":
        return [], np.arange(len(labelled))
    if data.recordings is None:
        raise EvaluationError(
            "It is not known which windows are of the same recording, so they cannot be kept in "
            "one set; pass recordings= (the recording of every window) or paths=, or accept "
            "split='random'."
        )
    names = units_of(data.recordings[labelled], strategy, data.sites)
    units, unit = np.unique(names, return_inverse=True)
    return units.tolist(), unit


def _units_per_class(labels: np.ndarray, unit: np.ndarray, n_classes: int) -> np.ndarray:
    pairs = np.unique(np.stack([labels, unit]), axis=1)
    return np.bincount(pairs[0].astype(np.int64), minlength=n_classes)


def _require_classes(
    data: LabelledWindows, kept: np.ndarray, dropped: Mapping[str, str], noun: str
) -> None:
    if kept.sum() >= 2:
        return
    counts = np.bincount(data.pairs[1], minlength=len(data.classes))
    listed = ", ".join(
        f"{name}: {n}" for name, n in list(zip(data.classes, counts, strict=True))[:10]
    )
    units = ""
    if noun != "window" and data.recordings is not None:
        here = set(units_of(data.recordings[data.labelled], noun, data.sites))
        units = f" in {counted(len(here), noun)}"
    raise TooLittleDataError(
        f"{data.model}: probing needs at least 2 labels with windows in at least 3 {noun}s each, "
        f"but there {'is' if kept.sum() == 1 else 'are'} {int(kept.sum())} (windows with a "
        f"label{units}: {listed or 'none'}); annotate more"
        + (", or use split='random'." if noun != "window" else ".")
    )


# ---------------------------------------------------------------------- dealing out


def _deal_windows(labels: np.ndarray, use: np.ndarray, rule: SplitRule) -> np.ndarray:
    """Deal single windows out, class by class."""
    rng = np.random.default_rng(rule.seed)
    dealt = np.full(len(labels), UNUSED, np.int64)
    for label in np.unique(labels[use]):
        rows = rng.permutation(np.flatnonzero(labels == label))
        n_val, n_test = (max(1, round(len(rows) * share)) for share in rule.shares[1:])
        # Three windows are one for each set, whatever the shares say.
        n_val, n_test = min(n_val, len(rows) - 2), min(n_test, len(rows) - 1 - n_val)
        n_test = max(1, n_test)
        dealt[rows] = SETS.index("train")
        dealt[rows[:n_val]] = SETS.index("val")
        dealt[rows[n_val : n_val + n_test]] = SETS.index("test")
    return dealt


def _deal_units(counts: np.ndarray, start: np.ndarray, shares: np.ndarray, seed: int) -> np.ndarray:
    """Set of every unit; the best of several random orders.

    `counts` has a row per unit and a column per class, `start` are the sets that are known (-1).
    """
    counts = counts[:, counts.sum(axis=0) > 0]
    if (start[counts.any(axis=1)] >= 0).all():
        return start
    rng = np.random.default_rng(seed)
    best: np.ndarray | None = None
    best_score = (np.inf, np.inf)
    for _ in range(_ORDERS if len(start) <= _MANY else _ORDERS_OF_MANY):
        dealt = _deal_once(counts, start, shares, rng)
        score = _badness(counts, dealt, shares)
        if best is None or score < best_score:
            best, best_score = dealt, score
    assert best is not None
    return best


def _deal_once(
    counts: np.ndarray, start: np.ndarray, shares: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    dealt = start.copy()
    target = shares[:, None] * counts.sum(axis=0)
    have = np.stack([counts[dealt == s].sum(axis=0) for s in range(len(shares))])
    present = counts > 0
    among_equals = rng.random((counts.shape[1],))
    for label in np.lexsort((among_equals, present.sum(axis=0))):
        waiting = rng.permutation(np.flatnonzero(present[:, label] & (dealt == UNUSED)))
        for done, u in enumerate(waiting):
            empty = have[:, label] == 0
            must = empty if len(waiting) - done <= empty.sum() else np.ones(len(shares), bool)
            need = target - have
            # Of sets that need this class equally, the one that is emptiest altogether.
            rank = np.lexsort((need.sum(axis=1), need[:, label], must))
            dealt[u] = rank[-1]
            have[rank[-1]] += counts[u]
    return dealt


def _badness(counts: np.ndarray, dealt: np.ndarray, shares: np.ndarray) -> tuple[float, float]:
    """Classes that miss a set, and how far the shares are off; less is better."""
    have = np.stack([counts[dealt == s].sum(axis=0) for s in range(len(shares))])
    missing = float((have == 0).any(axis=0).sum())
    off = np.abs(have / counts.sum(axis=0) - shares[:, None]).sum(axis=0).mean()
    return missing, float(off)


# ---------------------------------------------------------------------- files


def _header(rule: SplitRule) -> dict[str, Any]:
    return {
        "split": rule.strategy,
        "train_ratio": rule.train_ratio,
        "test_ratio": rule.test_ratio,
        "evaluation_seed": rule.seed,
    }


def _by_set(units: Mapping[str, str]) -> dict[str, list[str]]:
    return {name: sorted(unit for unit, where in units.items() if where == name) for name in SETS}


def _write_table(data: LabelledWindows, split: Split) -> None:
    import pandas as pd

    assert data.paths is not None
    rows = (split.set_of_window >= 0).nonzero()[0]
    if data.times is not None:
        table = data.times.iloc[rows].round(6).reset_index(drop=True)
    elif data.recordings is not None:
        table = pd.DataFrame({"audiofilename": data.recordings[rows]})
    else:
        table = pd.DataFrame({"window": rows})
    if data.multi_label:
        table[data.column] = [
            "; ".join(split.classes[i] for i in np.flatnonzero(labels))
            for labels in split.labels[rows]
        ]
    else:
        table[data.column] = [split.classes[label] for label in split.labels[rows]]
    table["set"] = [SETS[number] for number in split.set_of_window[rows]]
    write_csv(data.paths.labels_path / SPLIT_TABLE, table)
