"""The file that says what scores mean: ``<dataset>/calibration/<model or recogniser>.json``.

`bacpipe.recognisers.calibration` makes it out of checked windows; tables of detections read it.
A class without checks is not in it: its scores are no probabilities.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bacpipe.errors import ResultsError, ResultsNotFoundError, first_line
from bacpipe.store.files import write_json
from bacpipe.store.layout import ResultPaths, calibration_path

logger = logging.getLogger(__name__)

FORMAT = 1
_EXTREME = 1e-6  # scores are kept so far from 0 and 1, whose logits are infinite
# What makes scores mean something else, and what it is where nothing is said of it.
_MADE_WITH: dict[str, object] = {"checkpoint": None, "recogniser_digest": None, "sensitivity": 1.0}


def logit(score: np.ndarray | float) -> np.ndarray:
    """Logarithm of the odds of scores in [0, 1], float64; those of 0 and 1 are kept finite."""
    inside = np.clip(np.asarray(score, dtype=np.float64), _EXTREME, 1 - _EXTREME)
    return np.asarray(np.log(inside) - np.log1p(-inside))


@dataclass(frozen=True)
class ClassCalibration:
    """What the checks say of one class.

    Attributes
    ----------
    checks, right : int
        Checked windows with a score, and how many of them hold the class.
    intercept, slope : float
        P(correct) = sigmoid(intercept + slope logit(score)).
    lowest, highest : float
        Of the scores that were checked.
    score, low, high : list of float
        The curve's 95 % interval at some scores, ascending.
    rates : list of dict
        Share of windows with the class: a row per site, the last is that of all.
    notes : list of str
        Sentences on what these checks cannot tell.
    precision : list of dict
        Share of right ones among the windows from a score on: a row per score, ascending.
    """

    checks: int
    right: int
    intercept: float
    slope: float
    lowest: float
    highest: float
    score: list[float]
    low: list[float]
    high: list[float]
    rates: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    precision: list[dict[str, float]] = field(default_factory=list)

    def probability(self, score: np.ndarray) -> np.ndarray:
        """P(correct) at these scores, float64 of their shape."""
        linear = np.clip(self.intercept + self.slope * logit(score), -700, 700)
        return np.asarray(1 / (1 + np.exp(-linear)))

    def band(self, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Limits of its 95 % interval."""
        at, knots, point = logit(score), logit(np.array(self.score)), self.probability(score)
        low, high = np.interp(at, knots, self.low), np.interp(at, knots, self.high)
        return np.minimum(low, point), np.maximum(high, point)


@dataclass(frozen=True)
class StoredCalibration:
    """Content of the file.

    Attributes
    ----------
    model : str
        Of the model or recogniser.
    classes : dict of str to ClassCalibration
        Classes of which windows were checked.
    known : list of str
        All classes.
    provenance : dict
        What the scores were made with.
    """

    model: str
    classes: dict[str, ClassCalibration]
    known: list[str]
    provenance: dict[str, Any]

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        write_json(path, {"format": FORMAT, **asdict(self)})


def read_calibration(path: Path) -> StoredCalibration:
    """Read the file.

    Raises
    ------
    ResultsNotFoundError
        If there is none.
    ResultsError
        If it is damaged, or of a newer version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and isinstance(form := content.get("format"), int):
            if form > FORMAT:
                raise ResultsError(
                    f"{path}: written by a newer bacpipe (format {form}, this one reads up to "
                    f"{FORMAT}); update bacpipe."
                )
            return _as_calibration(content)
        raise ValueError("it is no calibration")
    except FileNotFoundError:
        raise ResultsNotFoundError(
            f"{path}: there is no such calibration; make it with bacpipe.calibrate."
        ) from None
    except OSError as error:
        raise ResultsError(
            f"{path}: cannot be read as a calibration ({error.strerror or error}); expected a "
            f"file calibration/<model>.json of the results."
        ) from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ResultsError(
            f"{path}: this calibration is damaged ({first_line(error)}); run bacpipe.calibrate "
            f"again, which replaces it: the checks themselves are in the labels of people."
        ) from None


def _as_calibration(content: Mapping[str, Any]) -> StoredCalibration:
    model, known, provenance = content["model"], content["known"], content["provenance"]
    if not (
        isinstance(model, str)
        and isinstance(known, list)
        and all(isinstance(name, str) for name in known)
        and isinstance(provenance, dict)
    ):
        raise ValueError("its model, classes or provenance are none")
    classes = {name: _as_class(name, item) for name, item in dict(content["classes"]).items()}
    return StoredCalibration(model, classes, known, provenance)


def _as_class(name: str, item: Mapping[str, Any]) -> ClassCalibration:
    calibration = ClassCalibration(**item)
    numbers = (calibration.checks, calibration.right, calibration.intercept, calibration.slope)
    shares = [
        calibration.lowest,
        calibration.highest,
        *calibration.score,
        *calibration.low,
        *calibration.high,
    ]
    if not (
        all(_is_number(value) for value in numbers)
        and all(_is_number(value) and 0 <= value <= 1 for value in shares)
        and 0 < len(calibration.score) == len(calibration.low) == len(calibration.high)
        and calibration.score == sorted(calibration.score)
        and calibration.rates
        and all(isinstance(row, dict) for row in calibration.rates)
        and isinstance(calibration.notes, list)
        and all(_is_number(value) for row in calibration.precision for value in row.values())
    ):
        raise ValueError(f"what it says of {name!r} is impossible")
    return calibration


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def stored_probability(
    paths: ResultPaths, model: str, provenance: Mapping[str, Any]
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Fill the column ``probability`` of tables of detections.

    Parameters
    ----------
    paths : ResultPaths
        Of the results.
    model : str
        Name of the model or recogniser.
    provenance : mapping
        What the scores were made with.

    Returns
    -------
    callable
        Takes the names of classes (str) and their scores, both of shape (n,); returns how probably
        each detection is right, float32 of shape (n,): NaN for classes of which no window was
        checked, and for all without a calibration, or with one of other weights.
    """
    classes: Mapping[str, ClassCalibration] = {}
    path = calibration_path(paths, model)
    if path.is_file():
        try:
            stored = read_calibration(path)
            if all(
                stored.provenance.get(key, usual) == provenance.get(key, usual)
                for key, usual in _MADE_WITH.items()
            ):
                classes = stored.classes
            else:
                logger.warning(
                    "%s: left aside, because it is about other weights or another sensitivity; "
                    "run bacpipe.calibrate again.",
                    path,
                )
        except ResultsError as error:
            logger.warning("left aside: %s", error)

    def probability(label: np.ndarray, score: np.ndarray) -> np.ndarray:
        result = np.full(len(score), np.nan, np.float32)
        for name in {*label.tolist()} & classes.keys():
            here = label == name
            result[here] = classes[name].probability(score[here])
        return result

    return probability


def calibration_state(paths: ResultPaths, model: str) -> str | None:
    """Hash of a calibration, by which tables made with it know that they are stale."""
    try:
        return hashlib.sha256(calibration_path(paths, model).read_bytes()).hexdigest()[:16]
    except OSError:
        return None
