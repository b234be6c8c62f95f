"""Results of evaluations as JSON, with the fingerprint of what they were made from."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bacpipe.store.files import write_json

logger = logging.getLogger(__name__)


def write_result(path: Path, result: Mapping[str, Any], fingerprint: str) -> None:
    """Write a result; whatever is not a number must be None in it."""
    write_json(path, {**result, "fingerprint": fingerprint})


def read_result(path: Path, fingerprint: str | None = None) -> dict[str, Any] | None:
    """Read a result.

    Parameters
    ----------
    path : Path
        The JSON file.
    fingerprint : str, optional
        What it must have been made from.

    Returns
    -------
    dict or None
        None if it is missing, unreadable or made from something else.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        found = result.pop("fingerprint")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        logger.warning("%s: cannot be read and is made again (%s).", path, error)
        return None
    if fingerprint is not None and found != fingerprint:
        logger.info("%s: made again, because its data or settings have changed.", path)
        return None
    return dict(result)
