"""Checkpoints that hold more than weights: the tensors are had, and nothing runs."""

from __future__ import annotations

import argparse
import collections
import datetime
import encodings.cp437  # noqa: F401  # which zipfile imports when it meets the first odd name
import enum
import pathlib
import pickle
import pickletools
import sys
import types
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bacpipe.errors import CheckpointError
from bacpipe.models.backends.pytorch import read_checkpoint
from bacpipe.models.weights.pickles import StandIn


class Season(enum.Enum):
    SUMMER = 1


class Slotted:
    __slots__ = ("name",)

    def __init__(self) -> None:
        self.name = "x"


class Settings(dict[str, Any]):
    """As the settings of Lightning, a dictionary with attributes."""


class Foreign:
    """An object of a class that this machine does not have; `made` is what was pickled."""

    def __init__(self, *made: Any) -> None:
        self.made = made

    def __reduce__(self) -> tuple[Any, ...]:
        return self.made


PATH = Foreign(pathlib.PosixPath, ("/home", "author", "runs"))
OBJECTS = {
    "path": PATH,
    "args": argparse.Namespace(job_dir=PATH, epochs=3),
    "hyper_parameters": types.SimpleNamespace(sr=44100, nested=types.SimpleNamespace(p=PATH)),
    "settings": Settings(lr=0.1),
    "number": np.float64(0.5),
    "array": np.arange(6).reshape(2, 3),
    "names": np.array(["a", "b"], dtype=object),
    "kind": np.dtype("int8"),
    "date": datetime.datetime(2024, 5, 6, tzinfo=datetime.UTC),
    "season": Season.SUMMER,
    "slotted": Slotted(),
    "counter": collections.Counter("aab"),
    "set": {1, 2},
    "frozen": frozenset({PATH}),
    "bytes": b"\x00\xff",
    "bytearray": bytearray(b"ab"),
    "complex": 1 + 2j,
    "function": np.mean,
    "device": torch.device("cpu"),
    "generator": torch.get_rng_state(),
    "module": nn.Linear(2, 2),
    "slice": slice(1, 2),
}


def weights() -> dict[str, torch.Tensor]:
    base = torch.arange(24.0).reshape(4, 6)
    return {
        "weight": base,
        "transposed": base.t(),
        "part": base[1:3, ::2],
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "mask": torch.tensor([True, False]),
        "half": torch.ones(3, dtype=torch.float16),
        "bfloat16": torch.ones(3, dtype=torch.bfloat16),
        "uint16": torch.tensor([1, 2]).to(torch.uint16),
        "complex": torch.ones(2, dtype=torch.complex64),
        "parameter": nn.Parameter(torch.ones(2)),
    }


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("ordered", [False, True])
def test_tensors_are_had_beside_objects_of_any_class(
    tmp_path: Path, protocol: int, legacy: bool, ordered: bool
) -> None:
    path = tmp_path / "w.pth"
    state: Any = collections.OrderedDict(weights()) if ordered else weights()
    if ordered:
        state._metadata = {"": {"version": 1}}  # as that of nn.Module.state_dict
    content = {"state_dict": state, "epoch": 3, **OBJECTS, "inside": [OBJECTS, (OBJECTS,)]}
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy)
    found = read_checkpoint(path)
    assert found["epoch"] == 3
    assert found["state_dict"].keys() == weights().keys()
    for name, value in weights().items():
        assert found["state_dict"][name].dtype == value.dtype
        assert torch.equal(found["state_dict"][name], value), name
    assert found["settings"]["lr"] == 0.1
    args = found["args"]
    assert isinstance(args, StandIn)
    assert args.origin == "argparse.Namespace"
    assert args.state["job_dir"].arguments == ("/home", "author", "runs")


def test_paths_of_another_system_and_classes_that_are_not_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = types.ModuleType("gone_package")
    gone.Config = type("Config", (), {"__module__": "gone_package"})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gone_package", gone)
    path = tmp_path / "w.ckpt"
    torch.save({"path": PATH, "config": gone.Config(), "w": torch.ones(2)}, path)  # type: ignore[attr-defined]
    monkeypatch.delitem(sys.modules, "gone_package")

    def refuse(*parts: object) -> None:
        raise NotImplementedError("cannot instantiate 'PosixPath' on your system")

    monkeypatch.setattr(pathlib.PosixPath, "__new__", refuse)
    assert torch.equal(read_checkpoint(path)["w"], torch.ones(2))


# Events of the interpreter that tell of code that ran.
_ACTS = ("os.", "subprocess.", "exec", "socket.", "shutil.", "ctypes.", "pickle.find_class")
_watching: list[str] | None = None


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if _watching is not None and event.startswith(_ACTS):
        _watching.append(f"{event} {arguments}")


sys.addaudithook(_hook)


@contextmanager
def nothing_runs() -> Iterator[None]:
    global _watching
    before = set(sys.modules)
    _watching = []
    try:
        yield
    finally:
        seen, _watching = _watching, None
    assert [event for event in seen if not event.startswith("os.listdir")] == []
    assert set(sys.modules) == before


def hostile() -> dict[str, bytes]:
    """Pickles, written by hand, that make the usual interpreter run something."""
    quit_ = b"cos\nsystem\n"
    return {
        "reduce": quit_ + b"(S'true'\ntR.",
        "inst": b"(S'true'\nios\nsystem\n.",
        "obj": b"(" + quit_ + b"S'true'\no.",
        "newobj": quit_ + b"(S'true'\nt\x81.",
        "newobj_ex": b"\x80\x04" + quit_ + b"(S'true'\nt}\x92.",
        "stack_global": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",
        "import": b"cantigravity\nopen\n)R.",
        "dotted": b"\x80\x04\x8c\x08builtins\x8c\x0d__import__.x\x93)R.",
        "getattr": b"cbuiltins\ngetattr\n(cos\npath\nS'system'\ntR(S'true'\ntR.",
        "build": b"cos\npath\n}(S'__class__'\n" + quit_ + b"ub.",
        "build_type": b"c__main__\nA\n)\x81}(S'__setstate__'\n" + quit_ + b"ubS'true'\nb.",
        "of_subclass": b"ctorch._tensor\n_rebuild_from_type_v2\n(" + quit_ + b"Nt(S'true'\nttR.",
        "of_dict": b"ccollections\ndefaultdict\n(" + quit_ + b"tR(S'a'\nS'b'\nu.",
        "extension": b"\x82\x01)R.",
    }


@pytest.mark.parametrize("name", hostile())
def test_malicious_pickles_do_not_run(tmp_path: Path, name: str) -> None:
    plain, packed = tmp_path / "w.pth", tmp_path / "w.pt"
    plain.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C) + hostile()[name])
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("w/data.pkl", hostile()[name])
    for path in (plain, packed):
        try:
            with nothing_runs():
                read_checkpoint(path)
        except CheckpointError as error:
            assert path.name in str(error)


def test_a_pickle_that_runs_is_noticed_by_these_tests() -> None:
    with pytest.raises(AssertionError), nothing_runs():
        pickle.loads(hostile()["reduce"])


def test_random_programs_do_not_run(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "w.pt"
    codes = [code.code.encode("latin1") for code in pickletools.opcodes]
    names = [b"os\nsystem\n", b"builtins\neval\n", b"builtins\n__import__\n", b"torch\nload\n",
             b"torch._utils\n_rebuild_tensor_v2\n", b"torch\nFloatStorage\n"]  # fmt: skip
    operands = [b"S'true'\n", b"K\x01", b"]", b"}", b"(", b"t", b")", b"N", b"\x94", b"0", b"2"]
    for _ in range(800):
        program = [b"\x80\x04"]
        for _ in range(rng.integers(3, 25)):
            kind = rng.integers(3)
            if kind == 0:
                program.append(b"c" + names[rng.integers(len(names))])
            elif kind == 1:
                program.append(operands[rng.integers(len(operands))])
            else:
                program.append(codes[rng.integers(len(codes))])
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("w/data.pkl", b"".join(program) + b".")
        try:
            with nothing_runs():
                read_checkpoint(path)
        except CheckpointError as error:
            assert "\x1b" not in str(error)


@pytest.mark.parametrize("make", [b"\x85", b"2\x86"])  # (x,) and (x, x) of whatever x is there
@pytest.mark.parametrize("use", [b"}%sNs", b"(%sNd", b"(%s\x91", b"\x8f(%s\x90",
    b"ccollections\nOrderedDict\n]%sN\x86a\x85R"])  # fmt: skip
def test_keys_that_are_nested_deep_neither_end_python_nor_take_for_ever(
    tmp_path: Path, make: bytes, use: bytes
) -> None:
    path = tmp_path / "w.pt"
    for times in (2, 10**5):  # the first fails where the second would end the tests
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("w/data.pkl", b"\x80\x04" + use % (b")" + make * times) + b".")
        (key,) = read_checkpoint(path)
        assert isinstance(key, StandIn)


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [(0, (2**40,), (1,)), (0, (5,), (1,)), (3, (2,), (1,)), (0, (2,), (2**45,)), (0, (-1,), (1,)),
     (-1, (1,), (1,)), (0, (2, 2), (1,))],
)  # fmt: skip
def test_tensors_cannot_be_larger_than_their_data(
    tmp_path: Path, offset: int, size: tuple[int, ...], stride: tuple[int, ...]
) -> None:
    class Storage:
        pass

    class Tensor:
        def __reduce__(self) -> tuple[Any, ...]:
            arguments = (Storage(), offset, size, stride, False, collections.OrderedDict())
            return torch._utils._rebuild_tensor_v2, arguments

    class Pickler(pickle.Pickler):
        def persistent_id(self, thing: object) -> object:
            if isinstance(thing, Storage):
                return "storage", torch.FloatStorage, "0", "cpu", 4
            return None

    path = tmp_path / "w.pt"
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open("w/data.pkl", "w") as file:
            Pickler(file, protocol=2).dump({"weight": Tensor()})
        archive.writestr("w/data/0", bytes(16))
    with pytest.raises(CheckpointError, match=r"w\.pt: "):
        read_checkpoint(path)
