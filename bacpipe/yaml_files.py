"""Reading YAML that anybody may have written."""

from __future__ import annotations

from typing import Any

import yaml

# libyaml's loader is ten times faster, but not in every build of PyYAML.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DEEPEST = 64  # levels; our own files have four


def load_yaml(text: str) -> Any:
    """Content of a YAML document: plain values, never objects of other types.

    Raises
    ------
    yaml.YAMLError
        If this is no YAML, is nested beyond all measure, or holds a value that is not of the
        kind that it seems to be, such as the date 2024-13-45.
    """
    depth = 0
    # libyaml's loader goes down into nested values until the process dies; its events do not.
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _DEEPEST:
            raise yaml.YAMLError(f"more than {_DEEPEST} levels inside one another")
    try:
        return yaml.load(text, Loader=_Loader)
    # What PyYAML raises when a value is not of the kind that its form or its tag says.
    except (ValueError, TypeError, AttributeError, OverflowError, LookupError) as error:
        raise yaml.YAMLError(f"a value cannot be read: {error}") from error
