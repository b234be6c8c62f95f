"""Choices whose options depend on the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import param


def offer(
    state: param.Parameterized,
    name: str,
    options: Sequence[Any] | Mapping[str, Any],
    default: Any = None,
) -> None:
    """Give a `param.Selector` other options, and keep its value where it is one of them.

    Parameters
    ----------
    state : param.Parameterized
        Has the parameter.
    name : str
        The parameter; None must be allowed where there may be no options.
    options : sequence, or mapping of str
        Values, or values by their title.
    default : object, optional
        Value for visitors who have not chosen; the first option unless given.
    """
    values = list(options.values() if isinstance(options, Mapping) else dict.fromkeys(options))
    chosen = state.param[name]
    chosen.default = values[0] if default is None and values else default
    chosen.objects = options if isinstance(options, Mapping) else values
    if getattr(state, name) not in values:
        setattr(state, name, chosen.default)
