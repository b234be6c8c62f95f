"""Cores and memory that this process may use.

They are those of the machine, or less in a container or a job of a scheduler, which Linux limits
by control groups: one with 8 GB on a machine with 512 GB is killed when it takes 9.
"""

from __future__ import annotations

import ctypes
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

UNKNOWN_MEMORY = 2**32
"""Bytes that are assumed where the system does not tell."""

_CONTROL_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return min([cores, *_allowed_cores()])


def free_memory() -> int:
    """Bytes of memory that are free for this process, or could be made free at once."""
    if sys.platform == "win32":
        return _free_memory_of_windows()
    return min([_free_memory_of_system(), *_allowed_memory()])


def _free_memory_of_system() -> int:
    try:
        with Path("/proc/meminfo").open(encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return 1024 * int(line.split()[1])
    except (OSError, ValueError):
        pass  # another system than Linux
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, OSError, ValueError):
        return UNKNOWN_MEMORY


def _free_memory_of_windows() -> int:
    # MEMORYSTATUSEX: two numbers of 32 bits, of which the first is the size of it all, and seven
    # of 64 bits, of which the second is the free physical memory.
    status = (ctypes.c_uint64 * 8)(64)
    windows = getattr(ctypes, "windll")  # noqa: B009  # elsewhere there is none
    if not windows.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        return UNKNOWN_MEMORY
    return int(status[2])


def _allowed_cores() -> Iterator[int]:
    """Cores that control groups allow, in time on processors: one and a half are two."""
    for group in _groups("cpu"):
        quota = _numbers(group / "cpu.max") or (
            _numbers(group / "cpu.cfs_quota_us") + _numbers(group / "cpu.cfs_period_us")
        )
        if len(quota) == 2 and min(quota) > 0:
            yield math.ceil(quota[0] / quota[1])


def _allowed_memory() -> Iterator[int]:
    """Bytes that control groups still allow; what they hold of files can be dropped."""
    for group in _groups("memory"):
        for limit, used, of_files in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            if (most := _numbers(group / limit)) and (taken := _numbers(group / used)):
                dropped = sum(_numbers(group / "memory.stat", of_files))
                yield max(0, most[0] - taken[0] + dropped)


def _groups(controller: str) -> Iterator[Path]:
    """Folders of the control groups, of versions 1 and 2, that a process and its parents are in.

    Within a container, its own group may be the only one that can be seen, as the root.
    """
    try:
        lines = _OWN_GROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:  # another system than Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = _CONTROL_GROUPS / controllers
        folder = root / path.lstrip("/")
        while folder != root and root in folder.parents:
            yield folder
            folder = folder.parent
        yield root


def _numbers(path: Path, name: str = "") -> list[int]:
    """Numbers in a file of one line, or in its line of a name; none if it sets no limit."""
    try:
        for line in path.read_text(encoding="ascii").splitlines():
            first, *rest = line.split()
            if first == name or not name:
                return [int(word) for word in (rest if name else (first, *rest))]
    except (OSError, ValueError):  # there is none, or the word is "max"
        pass
    return []
