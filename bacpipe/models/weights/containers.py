"""What surrounds the weights in the checkpoint files of different authors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bacpipe.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor


def state_dict_in(content: Any, key: str, *, model: str, path: Path) -> Mapping[str, Tensor]:
    """State dict that a checkpoint holds under a key.

    Parameters
    ----------
    content
        What the file holds.
    key : str
        Where its authors put the weights.
    model, path : str, Path
        Named in the error.

    Raises
    ------
    CheckpointError
        If there is no state dict under this key.
    """
    from torch import Tensor

    state = content.get(key) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(
            f"{path}: this is not the checkpoint of {model}; expected its weights under the key "
            f"{key!r}. Use the file that the model's authors published."
        )
    return state


def read_json(path: Path) -> dict[str, Any]:
    """Content of a configuration file of a hub repository.

    Raises
    ------
    CheckpointError
        If the file is no JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: this is not valid JSON ({error}); delete it, so that it is fetched again."
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path}: expected a JSON object; delete it to have it fetched again."
        )
    return content


def strip_prefixes(key: str, prefixes: tuple[str, ...]) -> str:
    """Key without any of the prefixes that wrapping modules put before it."""
    while True:
        prefix = next((p for p in prefixes if key.startswith(p)), None)
        if prefix is None:
            return key
        key = key[len(prefix) :]
