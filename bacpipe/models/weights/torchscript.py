"""Weights out of a TorchScript archive, of whose program nothing runs.

``torch.jit.load`` runs the ``__setstate__`` of every module in the archive: code of whoever
wrote it, though only what TorchScript can say.  The weights do not need it: the archive is a
zip file with a pickle that names them and a record of bytes for each.  The pickle is read here
with nothing but tensors, numbers, texts and containers.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from bacpipe.errors import CheckpointError, first_line
from bacpipe.models.weights.pickles import Records, StandIn

_CLASS = re.compile(
    r"^class (\w+)\(Module\):\n\s+__parameters__ = \[(.*?)\]\n\s+__buffers__ = \[(.*?)\]",
    re.MULTILINE | re.DOTALL,
)
_PREFIX = "__torch__."
_LARGEST_SOURCE = 16 << 20  # bytes; no class has so long a program
_MOST_MODULES = 100_000  # far more than any network has; modules in each other can be without end


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """State dict of an archive that ``torch.jit.save`` wrote.

    Parameters
    ----------
    path : Path
        The archive.

    Returns
    -------
    dict of str to Tensor
        Parameters and buffers, as ``torch.jit.load(path).state_dict()`` gives them.

    Raises
    ------
    CheckpointError
        If this is no such archive, or is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            records = Records(archive)
            return dict(_weights_of(records.load(), _Sources(records), ""))
    # What is raised over damaged data is of any kind.
    except Exception as error:
        raise CheckpointError(
            f"{path}: this TorchScript archive cannot be read ({first_line(error)}); delete it, "
            f"so that it is fetched again, or copy it here once more."
        ) from error


class _Sources:
    """Programs of the classes, which name their parameters and buffers."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._tensors: dict[str, dict[str, set[str]]] = {}
        self.modules = 0  # looked into

    def tensors_of(self, kind: str) -> set[str]:
        """Names of a class's parameters and buffers."""
        module, _, name = kind.rpartition(".")
        if module not in self._tensors:
            source = self._records.read(f"code/{module.replace('.', '/')}.py", _LARGEST_SOURCE)
            self._tensors[module] = {
                match[1]: set(re.findall(r'"(\w+)"', match[2] + match[3]))
                for match in _CLASS.finditer(source.decode())
            }
        return self._tensors[module].get(name, set())


def _weights_of(module: Any, sources: _Sources, prefix: str) -> Mapping[str, Tensor]:
    weights: dict[str, Tensor] = {}
    if not _is_module(module) or not isinstance(module.state, dict):
        raise ValueError("it holds no module")
    sources.modules += 1
    if sources.modules > _MOST_MODULES:
        raise ValueError("it holds more modules than any network")
    wanted = sources.tensors_of(module.origin)
    for name, value in module.state.items():
        if isinstance(value, Tensor) and name in wanted:
            weights[f"{prefix}{name}"] = value
        elif _is_module(value):
            weights.update(_weights_of(value, sources, f"{prefix}{name}."))
    return weights


def _is_module(value: object) -> bool:
    return isinstance(value, StandIn) and value.origin.startswith(_PREFIX)
