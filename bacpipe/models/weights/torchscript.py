"""Weights out of a TorchScript archive, of whose program nothing runs.

``torch.jit.load`` runs the ``__setstate__`` of every module in the archive: code of whoever
wrote it, though only what TorchScript can say.  The weights do not need it: the archive is a
zip file with a pickle that names them and a record of bytes for each.  The pickle is read here
with nothing but tensors, numbers, texts and containers.
"""

from __future__ import annotations

import io
import math
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from bacpipe.errors import CheckpointError, first_line

_CLASS = re.compile(
    r"^class (\w+)\(Module\):\n\s+__parameters__ = \[(.*?)\]\n\s+__buffers__ = \[(.*?)\]",
    re.MULTILINE | re.DOTALL,
)
_LARGEST_SOURCE = 16 << 20  # bytes; no class has so long a program
_STORAGES = {
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "ShortStorage": torch.int16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "BoolStorage": torch.bool,
}


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
        If this is no such archive, is damaged, or holds more than weights.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            records = _Records(archive)
            root = _Unpickler(records).load()
            return dict(_weights_of(root, records, ""))
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: refused, because this TorchScript archive holds more than weights "
            f"({error}); use the file that the model's authors published."
        ) from error
    # What pickle raises over damaged data is of any kind.
    except Exception as error:
        raise CheckpointError(
            f"{path}: this TorchScript archive cannot be read ({first_line(error)}); delete it, "
            f"so that it is fetched again, or copy it here once more."
        ) from error


class _Records:
    """Files of an archive, which all lie in one folder; torch.jit compresses sources alone."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        found = [PurePosixPath(name) for name in archive.namelist()]
        self._top = next(path.parent for path in found if path.name == "data.pkl")
        self._tensors: dict[str, dict[str, set[str]]] = {}

    def read(self, name: str) -> bytes:
        info = self._archive.getinfo(str(self._top / name))
        if info.compress_type != zipfile.ZIP_STORED and (
            name.startswith("data/") or info.file_size > _LARGEST_SOURCE
        ):
            raise ValueError(f"its record {name} is compressed")
        return self._archive.read(info)

    def tensors_of(self, kind: str) -> set[str]:
        """Names of a class's parameters and buffers, which its source lists."""
        module, _, name = kind.rpartition(".")
        if module not in self._tensors:
            source = self.read(f"code/{module.replace('.', '/')}.py").decode()
            self._tensors[module] = {
                match[1]: set(re.findall(r'"(\w+)"', match[2] + match[3]))
                for match in _CLASS.finditer(source)
            }
        return self._tensors[module].get(name, set())


class _Module:
    """A module of the archive: the name of its class, and its attributes."""

    kind = ""

    def __init__(self) -> None:
        self.state: Any = {}

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    def __init__(self, records: _Records) -> None:
        super().__init__(io.BytesIO(records.read("data.pkl")))
        self._records = records
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "__torch__":
            return type("Module", (_Module,), {"kind": f"{module}.{name}"})
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        known: dict[tuple[str, str], Callable[..., Any]] = {
            ("collections", "OrderedDict"): dict,
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
        }
        if module == "torch.jit._pickle" and name.startswith("build_"):
            return list
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return known[module, name]

    def persistent_load(self, pid: Any) -> Tensor:
        """Read the numbers of a tensor, as a flat one."""
        _, kind, key, _, count = pid
        if key not in self._storages:
            data = bytearray(self._records.read(f"data/{int(key)}"))
            if not isinstance(kind, torch.dtype) or len(data) != count * kind.itemsize:
                raise ValueError(f"its record data/{key} has {len(data)} bytes")
            self._storages[key] = (
                torch.frombuffer(data, dtype=kind) if data else torch.empty(0, dtype=kind)
            )
        return self._storages[key]


def _rebuild(storage: Tensor, offset: int, size: Any, stride: Any, *rest: Any) -> Tensor:
    # A stride of 0 would make many numbers of one.
    if math.prod(size) > storage.numel():
        raise ValueError(f"a tensor of shape {tuple(size)} is larger than its data")
    return storage.as_strided(tuple(size), tuple(stride), offset).clone()


def _weights_of(module: Any, records: _Records, prefix: str) -> Mapping[str, Tensor]:
    weights: dict[str, Tensor] = {}
    if not isinstance(module, _Module) or not isinstance(module.state, dict):
        raise ValueError("it holds no module")
    wanted = records.tensors_of(module.kind)
    for name, value in module.state.items():
        if isinstance(value, Tensor) and name in wanted:
            weights[f"{prefix}{name}"] = value
        elif isinstance(value, _Module):
            weights.update(_weights_of(value, records, f"{prefix}{name}."))
    return weights
