"""Files of arrays with a few words about them: safetensors, so that reading runs no code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bacpipe.errors import ResultsError
from bacpipe.store.files import replacing


def write_tensors(
    path: Path, arrays: Mapping[str, np.ndarray], words: Mapping[str, object]
) -> None:
    """Write arrays and what is said of them, `format` among it, whole or not at all."""
    from safetensors.numpy import save

    with replacing(path) as file:
        file.write(save(dict(arrays), {"bacpipe": json.dumps(words, ensure_ascii=False)}))


def read_tensors(path: Path, newest: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What `write_tensors` has written: the words, and the arrays by name.

    Raises
    ------
    ResultsError
        If its format is newer than `newest`.
    OSError, ValueError, LookupError, TypeError, AttributeError or RecursionError
        If it is not there, or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as content:
            words = json.loads((content.metadata() or {})["bacpipe"])
            arrays = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(str(error)) from None
    if not isinstance(words["format"], int) or words["format"] > newest:
        raise ResultsError(f"{path}: written by a newer bacpipe; update bacpipe.")
    return words, arrays
