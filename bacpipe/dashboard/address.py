"""The page's state in its address, so that a view can be bookmarked and sent to others."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlencode

import panel as pn
import param

logger = logging.getLogger(__name__)


def keep_in_address(state: param.Parameterized, keys: Mapping[str, str]) -> list[str]:
    """Read parameters from the page's address, and write them there when they change.

    Parameters
    ----------
    state : param.Parameterized
        Holds the values.
    keys : mapping of str to str
        Key in the address by name of the parameter.  Values that are impossible, as anybody
        can type them, are ignored.

    Returns
    -------
    list of str
        Keys whose values were ignored.
    """
    location = pn.state.location
    if location is None:
        return []
    given = parse_qs((location.search or "").lstrip("?"))
    ignored = [
        key for name, key in keys.items() if key in given and not _take(state, name, given[key][0])
    ]
    defaults = {name: state.param[name].default for name in keys}

    def write(*_: Any) -> None:
        query = {k: v[0] for k, v in parse_qs((location.search or "").lstrip("?")).items()}
        for name, key in keys.items():
            value = getattr(state, name)
            if value == defaults[name] or value is None:
                query.pop(key, None)
            else:
                query[key] = value if isinstance(value, str) else json.dumps(value)
        location.search = f"?{urlencode(query)}" if query else ""

    state.param.watch(write, list(keys))
    return ignored


def _take(state: param.Parameterized, name: str, text: str) -> bool:
    """Set a parameter to a value of the address; False if that is impossible."""
    value: Any = text
    if not isinstance(state.param[name], param.String | param.Selector):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            logger.info("ignored %s=%r in the address", name, text)
            return False
        if isinstance(value, list) and isinstance(state.param[name], param.Tuple):
            value = tuple(value)
    try:
        setattr(state, name, value)
    except (ValueError, TypeError) as error:
        logger.info("ignored %s=%r in the address: %s", name, text, error)
        return False
    return True
