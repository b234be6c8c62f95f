"""Cores and memory that a process may use, on machines, in containers and in jobs."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bacpipe import machine
from bacpipe.machine import available_cores, free_memory


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a stand-in of Linux keeps its control groups; 64 cores and 512 GB free."""
    monkeypatch.setattr(machine, "_CONTROL_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "_OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(machine, "_free_memory_of_system", lambda: 512 << 30)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)), raising=False)
    return tmp_path


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text + "\n")


def test_free_memory_is_that_of_this_machine() -> None:
    assert 2**20 < free_memory() < 2**46


@pytest.mark.parametrize("answers", [True, False])
def test_windows_is_asked_for_its_free_memory(
    monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    class Status(ctypes.Structure):
        """As Microsoft describes MEMORYSTATUSEX."""

        _fields_ = [
            ("dwLength", ctypes.c_uint32),
            ("dwMemoryLoad", ctypes.c_uint32),
            ("ullTotalPhys", ctypes.c_uint64),
            ("ullAvailPhys", ctypes.c_uint64),
            ("ullTotalPageFile", ctypes.c_uint64),
            ("ullAvailPageFile", ctypes.c_uint64),
            ("ullTotalVirtual", ctypes.c_uint64),
            ("ullAvailVirtual", ctypes.c_uint64),
            ("ullAvailExtendedVirtual", ctypes.c_uint64),
        ]

    def tell(pointer: Any) -> bool:
        status = ctypes.cast(pointer, ctypes.POINTER(Status)).contents
        assert status.dwLength == ctypes.sizeof(Status)
        status.dwMemoryLoad, status.ullTotalPhys, status.ullAvailPhys = 50, 16 << 30, 5 << 30
        return answers

    kernel = SimpleNamespace(GlobalMemoryStatusEx=tell)
    monkeypatch.setattr(ctypes, "windll", SimpleNamespace(kernel32=kernel), raising=False)
    monkeypatch.setattr(sys, "platform", "win32")
    assert free_memory() == (5 << 30 if answers else machine.UNKNOWN_MEMORY)


def test_without_limits_the_machine_is_ours(groups: Path) -> None:
    assert (available_cores(), free_memory()) == (64, 512 << 30)
    (groups / "own").write_text("0::/user.slice\n")
    write(groups / "cgroup/user.slice", memory__max="max", memory__current="77", cpu__max="max 9")
    assert (available_cores(), free_memory()) == (64, 512 << 30)


def test_a_container_sees_its_own_group_as_the_root(groups: Path) -> None:
    (groups / "own").write_text("0::/\n")
    write(
        groups / "cgroup",
        memory__max=str(8 << 30),
        memory__current=str(3 << 30),
        memory__stat=f"anon 5\nfile 6\ninactive_file {1 << 30}\nactive_file 7",
        cpu__max="150000 100000",
    )
    assert (available_cores(), free_memory()) == (2, 6 << 30)


def test_the_tightest_of_a_job_and_its_parents_counts(groups: Path) -> None:
    (groups / "own").write_text("1:name=systemd:/x\n0::/slurm/job_7/step_0\n")
    write(groups / "cgroup/slurm", cpu__max="400000 100000", memory__current="0")
    job = groups / "cgroup/slurm/job_7"
    write(job, memory__max=str(16 << 30), memory__current=str(17 << 30), cpu__max="max 100000")
    write(job / "step_0", memory__max=str(32 << 30), memory__current=str(1 << 30))
    assert (available_cores(), free_memory()) == (4, 0)


def test_the_first_version_has_a_tree_for_each_resource(groups: Path) -> None:
    (groups / "own").write_text(
        "9:devices:/d\n4:memory:/docker/1a\n3:cpuset:/d\n1:cpu,cpuacct:/docker/1a\n0::/\n"
    )
    # Of the groups of the host, a container sees its own, as the root.
    write(
        groups / "cgroup/memory",
        memory__limit_in_bytes=str(4 << 30),
        memory__usage_in_bytes=str(2 << 30),
        memory__stat=f"inactive_file 3\ntotal_inactive_file {1 << 30}",
    )
    write(groups / "cgroup/cpu,cpuacct", cpu__cfs_quota_us="50000", cpu__cfs_period_us="100000")
    assert (available_cores(), free_memory()) == (1, 3 << 30)
    write(groups / "cgroup/cpu,cpuacct", cpu__cfs_quota_us="-1")
    write(groups / "cgroup/memory", memory__limit_in_bytes="9223372036854771712")
    assert (available_cores(), free_memory()) == (64, 512 << 30)
