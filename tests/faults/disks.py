"""Small disks: a real one where tests may mount, and one that counts what is written."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml


class Write(NamedTuple):
    """One write to the counted disk: which file, and the bytes written before and after."""

    name: str
    before: int
    after: int


class CountedDisk:
    """Takes so many bytes, then only the part of a write that fits, then says that it is full.

    Every write of results passes through here: `os.write`, and what `os.fdopen` opens.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int | None = None) -> None:
        self.room = room
        self.used = 0
        self.writes: list[Write] = []
        self._write = os.write
        fdopen = os.fdopen

        def open_counted(descriptor: int, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            if mode != "wb":
                return fdopen(descriptor, mode, *args, **kwargs)
            return io.BufferedWriter(_Raw(self, descriptor))

        monkeypatch.setattr(os, "write", self.write)
        monkeypatch.setattr(os, "fdopen", open_counted)

    def write(self, descriptor: int, data: Any) -> int:
        return self._write(descriptor, data[: self.take(descriptor, len(data))])

    def take(self, descriptor: int, wanted: int) -> int:
        left = wanted if self.room is None else min(wanted, self.room - self.used)
        if wanted and left <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        name = Path(f"/dev/fd/{descriptor}").resolve().name
        self.writes.append(Write(name, self.used, self.used + left))
        self.used += left
        return left


class _Raw(io.FileIO):
    def __init__(self, disk: CountedDisk, descriptor: int) -> None:
        super().__init__(descriptor, "wb")
        self._disk = disk

    def write(self, data: Any) -> int:  # type: ignore[override]
        return super().write(data[: self._disk.take(self.fileno(), len(data))])


@contextmanager
def mounted_disk(folder: Path, size: str) -> Iterator[Path]:
    """A real disk of this size; the test is skipped, saying so, where none can be mounted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
        reason = done.stderr.strip() if done.returncode else ""
    except OSError as error:
        reason = str(error)
    if reason:
        pytest.skip(f"no disk can be mounted here ({reason}); the counted disk stands in for it")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def enlarge(folder: Path, size: str) -> None:
    command = ["mount", "-o", f"remount,size={size}", str(folder)]
    subprocess.run(command, check=True)


def assert_whole(results: Path) -> None:
    """Every file can be read in full, and nothing unfinished is left."""
    for path in results.rglob("*"):
        assert not path.name.endswith(".bacpipe-tmp"), path
        if path.suffix == ".npy":
            assert np.isfinite(np.load(path, allow_pickle=False)).all()
        elif path.suffix == ".parquet":
            pq.read_table(path)
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".jsonl":
            for line in path.read_text().rstrip("\n").split("\n"):
                json.loads(line)
        elif path.suffix == ".yml":
            assert isinstance(yaml.safe_load(path.read_text()), dict)


def contents(results: Path) -> dict[str, object]:
    """Content of all files without the times of the run, by path without stamps."""
    found: dict[str, object] = {}
    for path in results.rglob("*"):
        if path.suffix in {".npy", ".parquet", ".csv", ".txt", ".safetensors"}:
            name = "/".join(part.split("___")[-1] for part in path.relative_to(results).parts)
            assert name not in found, f"{name} is there twice"
            found[name] = path.read_bytes()
            if path.suffix == ".parquet":  # its description names the set, and so the minute
                found[name] = repr(pq.read_table(path).to_pydict())  # NaN is like NaN
            elif path.name == "README.txt":  # its commands name the place
                found[name] = path.read_bytes().replace(os.fsencode(results), b"RESULTS")
    return found


def finished(results: Path) -> dict[str, int]:
    """Windows of every recording that the journal calls done."""
    done: dict[str, int] = {}
    for journal in results.rglob("journal.jsonl"):
        for line in map(json.loads, journal.read_text().rstrip("\n").split("\n")):
            if "file" in line:
                done.pop(line["file"], None)
                if line["status"] == "done":
                    done[line["file"]] = line["windows"]
    return done
