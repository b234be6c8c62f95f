"""TorchScript archives: the weights that torch.jit reads, and nothing that runs."""

from __future__ import annotations

import io
import pickle
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bacpipe.errors import CheckpointError
from bacpipe.models.weights.torchscript import read_torchscript


@pytest.fixture(autouse=True)
def deprecated() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer("table", torch.arange(12).reshape(3, 4).t())
        self.register_buffer("empty", torch.zeros(0, 2))
        self.register_buffer("mask", torch.tensor([True, False]))
        self.register_buffer("small", torch.ones(2, dtype=torch.float16))
        self.no_weight = torch.ones(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x) + self.no_weight


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Inner(), nn.Linear(3, 3), Inner())
        self.shared = self.blocks[1].weight
        self.scale = nn.Parameter(torch.tensor(2.5, dtype=torch.float64))
        self.sizes = [1, 2, 3]
        self.name = "outer"

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x) * self.scale.float() * self.sizes[0]


@pytest.mark.parametrize("make", [torch.jit.script, lambda m: torch.jit.trace(m, torch.ones(4, 3))])
def test_weights_are_those_that_torch_reads(make, tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    make(Outer().eval()).save(str(path))
    expected = torch.jit.load(path).state_dict()
    found = read_torchscript(path)
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, name
        assert torch.equal(found[name], value), name


class Hostile(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        return x

    @torch.jit.export
    def __getstate__(self) -> tuple[Tensor, bool]:
        return self.weight, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, bool]) -> None:
        self.weight = state[0]
        self.training = state[1]
        print("this ran")


def test_code_of_the_archive_does_not_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "m.pt"
    torch.jit.script(Hostile()).save(str(path))
    torch.jit.load(path)
    assert "this ran" in capfd.readouterr().out  # so that this test can fail
    with pytest.raises(CheckpointError, match=r"m\.pt: this TorchScript archive cannot be read"):
        read_torchscript(path)
    assert "this ran" not in capfd.readouterr().out


class Call:
    def __reduce__(self) -> tuple[object, ...]:
        return print, ("this ran",)


def test_pickles_do_not_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", pickle.dumps({"weight": Call()}, protocol=2))
    with pytest.raises(CheckpointError, match=r"m\.pt: .*holds no module"):
        read_torchscript(path)
    assert "this ran" not in capfd.readouterr().out


def test_damaged_archives_get_a_sentence(tmp_path: Path) -> None:
    stream = io.BytesIO()
    torch.jit.save(torch.jit.script(nn.Linear(3, 2)), stream)
    rng = np.random.default_rng(0)
    path = tmp_path / "m.pt"
    for _ in range(80):
        damaged = bytearray(stream.getvalue())
        for place in rng.integers(0, len(damaged), 4):
            damaged[place] = rng.integers(256)
        path.write_bytes(bytes(damaged[: rng.integers(1, len(damaged) + 1)]))
        try:
            read_torchscript(path)
        except CheckpointError as error:
            assert "m.pt" in str(error)


def test_compressed_records_are_refused(tmp_path: Path) -> None:
    stream = io.BytesIO()
    torch.jit.save(torch.jit.script(nn.Linear(2000, 2000)), stream)
    path = tmp_path / "m.pt"
    with zipfile.ZipFile(stream) as plain, zipfile.ZipFile(path, "w") as packed:
        for info in plain.infolist():
            packed.writestr(info.filename, plain.read(info), zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match="is compressed"):
        read_torchscript(path)


def test_modules_that_are_in_each_other_many_times_end(tmp_path: Path) -> None:
    make = b"c__torch__\nM\n)R}"
    again = make + b"(X\x01\0\0\0xh\0X\x01\0\0\0yh\0ubq\x000"  # one with the last one twice
    path = tmp_path / "w.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w/data.pkl", b"\x80\x02" + make + b"bq\x000" + again * 60 + b"h\0.")
        archive.writestr("w/code/__torch__.py", "class M(Module):\n")
    with pytest.raises(CheckpointError, match="more modules than any network"):
        read_torchscript(path)
