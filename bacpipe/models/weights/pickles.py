"""What ``torch.save`` wrote, read without importing or calling anything that it names.

A checkpoint is a pickle that says how its objects are made, and a record of bytes for each tensor.
Authors leave objects of any class beside their weights: paths, arguments of scripts, settings,
dates.  Here only tensors and plain containers are made; every other object becomes a `StandIn`,
which has no behaviour, wherever it was pickled and whatever is installed.  What an attacker puts
there does not run either.

The containers are those of ``torch/serialization.py``: a zip archive, and before PyTorch 1.6 one
pickle after the other, followed by the bytes.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any, ClassVar

import torch
from torch import Tensor

_MAGIC = 0x1950A86A20F9469CFC6C
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
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "UntypedStorage": torch.uint8,
}


class StandIn(dict[Any, Any]):
    """Takes the place of an object of any class; it holds what was pickled, and does nothing.

    As a dictionary, it holds the items of what was one.

    Attributes
    ----------
    origin : str
        The class or function, as 'module.name'.
    arguments : tuple
        What it was called with.
    state : object
        Its attributes, in most cases by name.
    """

    origin = ""

    def __init__(self, *arguments: object) -> None:
        super().__init__()
        self.arguments = arguments
        self.state: Any = None

    __hash__ = object.__hash__  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return self is other

    def __repr__(self) -> str:
        return f"<stand-in of {self.origin}>"


class _Dict(dict[Any, Any]):
    """An OrderedDict or defaultdict."""

    def __init__(self, *arguments: object) -> None:
        pairs = arguments[0] if arguments else ()
        super().__init__(_items(pairs if isinstance(pairs, list | tuple) else ()))


def _key(value: Any) -> Any:
    """What a dictionary or set may hold; hashing what is nested deep ends Python, or never ends."""
    parts = value if isinstance(value, tuple | frozenset) else (value,)
    return StandIn(value) if any(isinstance(p, tuple | frozenset) for p in parts) else value


def _items(pairs: Iterable[Any]) -> dict[Any, Any]:
    return {_key(key): value for key, value in pairs}


def _rebuild(storage: object, offset: object, size: object, stride: object, *rest: object) -> Any:
    """Tensor of a part of flat numbers, which it must not exceed."""
    sizes, strides = _integers(size), _integers(stride)
    (start,) = _integers([offset])
    if not isinstance(storage, Tensor) or len(sizes) != len(strides):
        raise ValueError("a tensor without numbers")
    last = start + sum((n - 1) * step for n, step in zip(sizes, strides, strict=True))
    if 0 not in sizes and last >= storage.numel():
        raise ValueError(f"a tensor of shape {sizes} is larger than its data")
    return storage.as_strided(sizes, strides, start)


def _rebuild_of_type(
    storage: object, offset: object, size: object, stride: object, *rest: object
) -> Any:
    """Tensor of bytes that are numbers of a type for which there is no class of storages."""
    dtype = rest[2] if len(rest) > 2 else None
    if not isinstance(storage, Tensor) or not isinstance(dtype, torch.dtype):
        raise ValueError("a tensor without numbers")
    return _rebuild(storage.view(dtype), offset, size, stride)


def _integers(values: object) -> list[int]:
    if not isinstance(values, Sequence) or not all(
        isinstance(v, int) and 0 <= v < 2**48 for v in values
    ):
        raise ValueError("a tensor of no known shape")
    return list(values)


def _first(*arguments: object) -> object:
    """The tensor of a parameter."""
    return arguments[0]


def _of_subclass(*arguments: object) -> object:
    """The tensor of a subclass: function, class, arguments of the function, state."""
    function, _, inner = arguments[:3]
    return _call(function, inner)


def _size(*arguments: object) -> tuple[int, ...]:
    return tuple(_integers(arguments[0] if arguments else ()))


_CALLED: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _Dict,
    "collections.defaultdict": _Dict,
    "torch.Size": _size,
    "torch._utils._rebuild_tensor": _rebuild,
    "torch._utils._rebuild_tensor_v2": _rebuild,
    "torch._utils._rebuild_tensor_v3": _rebuild_of_type,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._tensor._rebuild_from_type": _of_subclass,
    "torch._tensor._rebuild_from_type_v2": _of_subclass,
}
"""All that is called while a checkpoint is read, by the name in the pickle."""


def _call(function: object, arguments: object) -> Any:
    """What a call in the pickle gives: nothing runs but what is written in this file."""
    given = arguments if isinstance(arguments, tuple) else ()
    for known in _CALLED.values():
        if function is known:
            return known(*given)
    if isinstance(function, type) and issubclass(function, StandIn):
        return function(*given)
    return StandIn(function, *given)


class _Unpickler(pickle._Unpickler):
    """The interpreter of pickles of the standard library, without all that acts on objects."""

    dispatch: ClassVar[dict[int, Any]]
    stack: list[Any]

    def __init__(self, file: IO[bytes], storage: Callable[[Any], Tensor]) -> None:
        super().__init__(file, encoding="latin1")
        self._storage = storage
        self._classes: dict[str, Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Stand-in for a class or function; nothing is imported."""
        origin = f"{module}.{name}"
        if origin in _CALLED:
            return _CALLED[origin]
        if module in ("torch", "torch.storage") and name in _STORAGES:
            return _STORAGES[name]
        dtype = vars(torch).get(name) if module == "torch" else None  # getattr would import
        if isinstance(dtype, torch.dtype):
            return dtype
        if origin not in self._classes:
            self._classes[origin] = type("StandIn", (StandIn,), {"origin": origin})
        return self._classes[origin]

    def get_extension(self, code: int) -> None:
        self.stack.append(StandIn(code))

    def persistent_load(self, pid: Any) -> Any:
        """Numbers of a tensor, as a flat one; or a class of which the file has the source, too."""
        if isinstance(pid, tuple) and len(pid) == 4 and pid[0] == "module":
            return pid[1]
        return self._storage(pid)

    def _instantiate(self, klass: object, args: object) -> None:
        self.stack.append(_call(klass, tuple(args) if isinstance(args, list) else args))

    def _reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = _call(self.stack[-1], arguments)

    def _new_with_keywords(self) -> None:
        self.stack.pop()
        self._reduce()

    def _build(self) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], StandIn):
            self.stack[-1].state = state

    def _dictionary(self) -> None:
        items = self.pop_mark()  # type: ignore[attr-defined]
        self.stack.append({})
        self._set(items)

    def _frozenset(self) -> None:
        items = self.pop_mark()  # type: ignore[attr-defined]
        self.stack.append(frozenset(map(_key, items)))

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set((key, value))

    def _set_items(self) -> None:
        self._set(self.pop_mark())  # type: ignore[attr-defined]

    def _set(self, flat: Sequence[Any]) -> None:
        if isinstance(self.stack[-1], dict):
            self.stack[-1].update(_items(zip(flat[::2], flat[1::2], strict=True)))

    def _append(self) -> None:
        self._extend([self.stack.pop()])

    def _appends(self) -> None:
        self._extend(self.pop_mark())  # type: ignore[attr-defined]

    def _extend(self, items: Iterable[Any]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)

    def _add_items(self) -> None:
        items = self.pop_mark()  # type: ignore[attr-defined]
        if isinstance(self.stack[-1], set):
            self.stack[-1].update(map(_key, items))

    def _bytearray(self) -> None:
        (length,) = struct.unpack("<Q", self.read(8))  # type: ignore[attr-defined]
        self.stack.append(self.read(length))  # type: ignore[attr-defined]

    def _no_buffer(self) -> None:
        raise pickle.UnpicklingError("its numbers are kept elsewhere")


_Unpickler.dispatch = {
    **pickle._Unpickler.dispatch,
    pickle.REDUCE[0]: _Unpickler._reduce,
    pickle.NEWOBJ[0]: _Unpickler._reduce,
    pickle.NEWOBJ_EX[0]: _Unpickler._new_with_keywords,
    pickle.BUILD[0]: _Unpickler._build,
    pickle.DICT[0]: _Unpickler._dictionary,
    pickle.FROZENSET[0]: _Unpickler._frozenset,
    pickle.SETITEM[0]: _Unpickler._set_item,
    pickle.SETITEMS[0]: _Unpickler._set_items,
    pickle.APPEND[0]: _Unpickler._append,
    pickle.APPENDS[0]: _Unpickler._appends,
    pickle.ADDITEMS[0]: _Unpickler._add_items,
    pickle.BYTEARRAY8[0]: _Unpickler._bytearray,
    pickle.NEXT_BUFFER[0]: _Unpickler._no_buffer,
    pickle.READONLY_BUFFER[0]: _Unpickler._no_buffer,
}


def read_pickled(path: Path) -> Any:
    """Content of a file that ``torch.save`` wrote, with stand-ins for all but tensors.

    Parameters
    ----------
    path : Path
        A zip archive, or a file of PyTorch before 1.6.

    Raises
    ------
    Exception
        Of any kind, if the file is damaged or was made to do harm.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return Records(archive).load()
    with path.open("rb") as file:
        return _read_sequence(file, path.stat().st_size)


class Records:
    """Files of a zip archive of ``torch.save`` or ``torch.jit.save``, which lie in one folder."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        paths = [PurePosixPath(name) for name in archive.namelist()]
        top = next((path.parent for path in paths if path.name == "data.pkl"), None)
        if top is None:
            raise ValueError("it is a zip archive without data.pkl")
        self._top = top
        self._storages: dict[str, Tensor] = {}
        if f"{top}/byteorder" in archive.namelist() and self.read("byteorder") != b"little":
            raise ValueError("its numbers are those of another kind of processor")

    def load(self) -> Any:
        """The object that was saved."""
        return _Unpickler(io.BytesIO(self.read("data.pkl")), self._storage).load()

    def read(self, name: str, most: int | None = None) -> bytes:
        """Content of a file, which may only be compressed if it has at most so many bytes."""
        info = self._archive.getinfo(str(self._top / name))
        if info.compress_type != zipfile.ZIP_STORED and info.file_size > (most or 0):
            raise ValueError(f"its record {name} is compressed")
        return self._archive.read(info)

    def _storage(self, pid: Any) -> Tensor:
        kind, key, count = _described(pid)
        if key not in self._storages:
            info = self._archive.getinfo(str(self._top / "data" / key))
            if info.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"its record data/{key} is compressed")
            if info.file_size != count * kind.itemsize:
                raise ValueError(f"its record data/{key} has {info.file_size} bytes")
            numbers = torch.empty(count, dtype=kind)
            with self._archive.open(info) as file:
                _fill(numbers, file)
            self._storages[key] = numbers
        return self._storages[key]


def _read_sequence(file: IO[bytes], size: int) -> Any:
    storages: dict[str, Tensor] = {}

    def storage(pid: Any) -> Tensor:
        kind, key, count = _described(pid)
        if key not in storages:
            taken = sum(part.numel() * part.itemsize for part in storages.values())
            if taken + count * kind.itemsize > size:
                raise ValueError("its tensors are larger than the file")
            storages[key] = torch.empty(count, dtype=kind)
        view = pid[5] if len(pid) > 5 else None
        if view is None:
            return storages[key]
        start, length = _integers(view[1:3])
        return storages[key][start : start + length]

    def load() -> Any:
        return _Unpickler(file, storage).load()

    if load() != _MAGIC:
        raise pickle.UnpicklingError("it does not begin as files of torch.save do")
    load()  # version of the format
    machine = load()
    if isinstance(machine, dict) and machine.get("little_endian") is False:
        raise ValueError("its numbers are those of another kind of processor")
    content = load()
    for key in load():
        (count,) = struct.unpack("<q", file.read(8))
        if count != storages[key].numel():
            raise ValueError(f"its record {key} has {count} numbers")
        _fill(storages[key], file)
    return content


def _described(pid: Any) -> tuple[torch.dtype, str, int]:
    """Type, name and count of the numbers that a pickle refers to."""
    what, kind, key, _, count = pid[:5]
    if what != "storage" or not isinstance(kind, torch.dtype) or not isinstance(key, str):
        raise ValueError("it refers to what is no storage of numbers")
    return kind, key, _integers([count])[0]


def _fill(numbers: Tensor, file: IO[bytes]) -> None:
    """Read numbers into the memory of a flat tensor."""
    memory = memoryview(numbers.view(torch.uint8).numpy()) if numbers.numel() else memoryview(b"")
    while len(memory):
        done = file.readinto(memory)  # type: ignore[attr-defined]
        if not done:
            raise EOFError("it ends too early")
        memory = memory[done:]
    if isinstance(file, zipfile.ZipExtFile):
        file.read()  # compares the checksum
