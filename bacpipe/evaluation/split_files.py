"""The split on disk.

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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bacpipe.evaluation.data import LabelledWindows
from bacpipe.evaluation.errors import EvaluationError
from bacpipe.evaluation.splits import SETS, Split, SplitRule, split_windows
from bacpipe.store.lock import SECONDS_FOR_OTHERS, exclusive
from bacpipe.store.writer import write_csv, write_json

logger = logging.getLogger(__name__)


def load_or_make_split(data: LabelledWindows, rule: SplitRule) -> Split:
    """Split labelled windows as before, if they were split before.

    Parameters
    ----------
    data : LabelledWindows
        The windows; with `paths`, the split is read from there and stored there.
    rule : SplitRule
        How to split.

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
    return overview / f"split_{file_part(kind)}.json"


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
    found: dict[str, str] = {}
    for name in SETS:
        for unit in sets[name]:
            if found.setdefault(unit, name) != name:
                raise EvaluationError(
                    f"{path}: {unit!r} is in the sets {found[unit]} and {name}; leave it in one."
                )
    return found


def split_id(split: Split) -> str:
    """Short hash of who is in which set; models with the same one can be compared."""
    content = split.units or {"windows": split.set_of_window.tolist()}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def file_part(kind: str) -> str:
    """Kind of label as part of a file's name."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in kind)


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
    table[data.column] = [split.classes[label] for label in split.labels[rows]]
    table["set"] = [SETS[number] for number in split.set_of_window[rows]]
    write_csv(data.paths.labels_path / "probing_dataframe.csv", table)
