"""Which windows a search may find: by recording, site, date, hour, predicted class and score."""

from __future__ import annotations

import difflib
import logging
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Set
from datetime import date, datetime, timedelta
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from bacpipe.errors import SettingsError
from bacpipe.search.index import SearchIndex
from bacpipe.store.class_list import ClassName
from bacpipe.store.whereabouts import Whereabouts

Masks: TypeAlias = dict[str, NDArray[np.bool_] | bool]

logger = logging.getLogger(__name__)

_OF_WINDOWS = ("date", "hour", "label", "score")
_NAMES = ("site", "recording")
_MOST_COMPARED = 2000  # names, of which the nearest one is found at once


def wanted_windows(
    index: SearchIndex,
    whereabouts: Whereabouts,
    where: Mapping[str, object] | None,
    left_out: Collection[str] = (),
) -> Masks | None:
    """Windows that fulfil all conditions.

    Parameters
    ----------
    index : SearchIndex
        All windows.
    whereabouts : Whereabouts
        Where and when they were recorded.
    where : mapping of str to object, or None
        Conditions, as `bacpipe.search` takes them.
    left_out : collection of str
        Recordings that are not wanted.

    Returns
    -------
    dict or None
        For each recording of which any window is wanted, which of them; None for all windows.

    Raises
    ------
    SettingsError
        If a condition is not understood, or names a column that is not there.
    """
    if where is not None and not isinstance(where, Mapping):
        raise SettingsError(
            f"where={where!r} is not possible; expected conditions by name, such as "
            f"{{'site': 'north', 'hour': (4, 9)}}."
        )
    if not where and not left_out:
        return None
    conditions = {
        key: value if key in _NAMES else _typed(value) for key, value in (where or {}).items()
    }
    masks: Masks = {name: True for name in index.names if name not in left_out}
    for key in [key for key in conditions if key not in _OF_WINDOWS]:
        value, condition = _column(index, whereabouts, key), conditions.pop(key)
        values = {name: value(name) for name in index.names}
        keep = _one_of(condition) if key not in _NAMES else _named(key, condition, values.values())
        masks = {name: True for name in masks if keep(values[name])}
    if "date" in conditions or "hour" in conditions:
        masks = _at_times(index, whereabouts, masks, conditions)
    if "label" in conditions or "score" in conditions:
        masks = _predicted(index, masks, conditions)
    return masks


def _typed(condition: object) -> object:
    """Condition as it is meant: the command line has no pairs and writes ``22..4``."""
    if isinstance(condition, str) and condition.count("..") == 1:
        low, high = (part.strip() or None for part in condition.split(".."))
        return (_plain(low), _plain(high))
    return condition


def _plain(value: str | None) -> object:
    number = None if value is None else _number(value)
    if number is None:
        return value
    return int(number) if number == int(number) else number


# ---------------------------------------------------------------------- columns of recordings


def _column(index: SearchIndex, whereabouts: Whereabouts, key: str) -> Callable[[str], object]:
    if key == "recording":
        return lambda name: name
    if key == "site":
        return lambda name: whereabouts.of(name).site
    known: set[str] = set()
    for name in index.names:
        known |= whereabouts.of(name).all_columns.keys()
    if key not in known:
        keys = ["recording", "site", *_OF_WINDOWS, *sorted(known)]
        close = difflib.get_close_matches(str(key), keys, n=1)
        raise SettingsError(
            f"where={{{key!r}: …}}: there is no such column; "
            + (f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(keys)}.")
        )
    return lambda name: whereabouts.of(name).all_columns.get(key)


def _named(key: str, condition: object, known: Iterable[object]) -> Callable[[object], bool]:
    """Test of a site's or recording's name: it is the one, or one of a list.

    Names that are numbers may be given as such, also two of them for a range.
    """
    if isinstance(condition, tuple) and not any(isinstance(item, str) for item in condition):
        return _one_of(condition)
    given = condition if isinstance(condition, list | set | frozenset | tuple) else [condition]
    names = {_composed(item) for item in given}
    numbers = {float(item) for item in given if isinstance(item, int | float)}
    there = {_composed(name) for name in known}
    numbers_there = {_number(name) for name in there} & numbers if numbers else set()
    for item in given:
        if _composed(item) not in there and item not in numbers_there:
            _tell_unknown(key, _composed(item), there)
            break

    def keep(name: object) -> bool:
        return _composed(name) in names or (bool(numbers) and _number(name) in numbers)

    return keep


def _tell_unknown(key: str, name: str, there: Set[str]) -> None:
    """Say that a name is unknown, and which one may be meant."""
    last = name.rpartition("/")[2]
    alike = [other for other in there if other.rpartition("/")[2] == last]
    alike = alike or (sorted(there) if len(there) <= _MOST_COMPARED else [])
    close = difflib.get_close_matches(name, alike, n=1)
    logger.warning(
        "where: there is no %s %r with results here%s",
        key,
        name,
        f"; did you mean {close[0]!r}?" if close else ".",
    )


def _composed(name: object) -> str:
    """A name as text; macOS writes accents into names of files in a form of its own."""
    return unicodedata.normalize("NFC", str(name))


def _one_of(condition: object) -> Callable[[object], bool]:
    """Test of a value: it is the one, one of a list, or in a range."""
    if isinstance(condition, tuple):
        low, high = _range(condition, "numbers")
        return lambda value: (number := _number(value)) is not None and low <= number <= high
    allowed = condition if isinstance(condition, list | set | frozenset) else [condition]
    texts = {str(item) for item in allowed}
    numbers = {number for item in allowed if (number := _number(item)) is not None}
    return lambda value: str(value) in texts or _number(value) in numbers


def _number(value: object) -> float | None:
    text = str(value)
    try:
        return None if "_" in text else float(text)  # to Python, 1_2 is 12
    except ValueError:
        return None


def _range(condition: tuple[object, ...], what: str) -> tuple[float, float]:
    values = [
        open_end if value is None else _number(value)
        for value, open_end in zip(condition, (-np.inf, np.inf), strict=False)
    ]
    if len(condition) == 2 and None not in values:
        low, high = (value for value in values if value is not None)
        return low, high
    raise SettingsError(
        f"where: {condition!r} is no range; expected two {what}, such as (0.5, 1), with None for "
        f"an open end."
    )


# ---------------------------------------------------------------------- times


def _at_times(
    index: SearchIndex,
    whereabouts: Whereabouts,
    masks: Masks,
    conditions: Mapping[str, object],
) -> Masks:
    """Windows that start on certain days, at certain hours, by the clock of the place."""
    on_day = _days(conditions["date"]) if "date" in conditions else None
    at_hour = _hours(conditions["hour"]) if "hour" in conditions else None
    hours = conditions.get("hour")
    # Whether an hour may be wanted in part.
    sharp = isinstance(hours, tuple) and not all(isinstance(hour, int) for hour in hours)
    result: Masks = {}
    for name in masks:
        place = whereabouts.of(name)
        if (begin := place.start) is None:
            continue
        midnight = begin.replace(hour=0, minute=0, second=0, microsecond=0)
        since = (begin - midnight).total_seconds()
        last = since + max(0.0, index.entries[name].duration - 1e-6)
        # Most recordings lie within an hour, and are wanted whole or not at all.
        changes = place.clock_changes(last - since)
        within = last // 3600 == since // 3600 and not sharp and not changes
        into = np.zeros(1) if within else index.times(name)[0]
        seconds = since + into
        for change, forward in changes:
            seconds[into >= change] += forward
        chosen = np.ones(len(seconds), bool)
        if at_hour is not None:
            chosen &= at_hour(seconds % 86400 / 3600)
        if on_day is not None:
            days = seconds // 86400
            for day in np.unique(days):
                if not on_day((midnight + timedelta(days=day)).date()):
                    chosen[days == day] = False
        if chosen.any():
            result[name] = True if within else chosen
    return result


def _hours(condition: object) -> Callable[[NDArray[np.float64]], NDArray[np.bool_]]:
    if isinstance(condition, tuple):
        low, high = _range(condition, "hours")
        low, high = max(low, 0.0), min(high, 24.0)
        if low <= high:
            return lambda hour: (hour >= low) & (hour < high)
        return lambda hour: (hour >= low) | (hour < high)
    values = list(condition) if isinstance(condition, list | set | frozenset) else [condition]
    if not all(isinstance(v, int) and not isinstance(v, bool) and 0 <= v < 24 for v in values):
        raise SettingsError(
            f"where={{'hour': {condition!r}}} is not understood; expected an hour from 0 to 23, a "
            f"list of hours, or a pair such as (22, 4) for 22:00 to 4:00."
        )
    hours = np.array(values, np.int64)
    return lambda hour: np.isin(hour.astype(np.int64), hours)


def _days(condition: object) -> Callable[[date], bool]:
    if isinstance(condition, tuple):
        if len(condition) != 2:
            raise _no_day(condition)
        low = date.min if condition[0] is None else _day(condition[0])
        high = date.max if condition[1] is None else _day(condition[1])
        return lambda day: low <= day <= high
    days = set(
        map(_day, condition if isinstance(condition, list | set | frozenset) else [condition])
    )
    return lambda day: day in days


def _day(value: object) -> date:
    if isinstance(value, datetime):  # a pandas time, too
        return value.date()
    if isinstance(value, date):
        return value
    try:
        return date.fromisoformat(str(value))
    except ValueError:
        raise _no_day(value) from None


def _no_day(value: object) -> SettingsError:
    return SettingsError(
        f"where={{'date': …}}: {value!r} is no day; expected one as '2025-05-04', a list of days, "
        f"or a pair of the first and the last."
    )


# ---------------------------------------------------------------------- predictions


def _predicted(index: SearchIndex, masks: Masks, conditions: Mapping[str, object]) -> Masks:
    """Windows with a stored prediction of certain classes, of a certain score."""
    labels = _labels(index, conditions["label"]) if "label" in conditions else None
    low, high = -np.inf, np.inf
    if "score" in conditions:
        score = conditions["score"]
        low, high = _range(score if isinstance(score, tuple) else (score, None), "scores")
    result: Masks = {}
    for item in index.loader.detections():
        before = masks.get(item.recording)
        if before is None:
            continue
        keep = (item.score >= low) & (item.score <= high)
        if labels is not None:
            keep &= np.isin(item.label.astype(str), labels)
        chosen = np.zeros(index.entries[item.recording].windows, bool)
        chosen[item.window[keep]] = True
        chosen &= before
        if chosen.any():
            result[item.recording] = chosen
    return result


def _labels(index: SearchIndex, condition: object) -> list[str]:
    """Names of classes, by their names, scientific names or codes."""
    values = condition if isinstance(condition, list | set | frozenset | tuple) else [condition]
    known = index.loader.classes.names or {
        # No list of classes was written; then those that were ever predicted.
        str(label): ClassName()
        for item in index.loader.detections()
        for label in set(item.label)
    }
    labels: list[str] = []
    for value in map(str, values):
        same = [label for label, about in known.items() if value in (label, *about) and value]
        if not same:
            close = difflib.get_close_matches(value, known, n=1)
            meant = f"did you mean {close[0]!r}?" if close else "expected one of its classes."
            raise SettingsError(
                f"where={{'label': {value!r}}}: {index.loader.model_name} knows no such class; "
                f"{meant}"
            )
        labels += same
    return labels
