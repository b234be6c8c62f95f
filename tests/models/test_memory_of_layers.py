from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import bacpipe
from bacpipe import __main__ as command_line
from bacpipe.models.backends.cpu.memory import _VARIABLES, keep_freed_memory


@pytest.fixture(autouse=True)
def _ask_again() -> Iterator[None]:
    keep_freed_memory.cache_clear()
    yield
    keep_freed_memory.cache_clear()


@pytest.mark.parametrize("name", sorted(_VARIABLES))
def test_what_the_user_chose_stays(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "131072")
    assert not keep_freed_memory()


def test_other_systems_have_nothing_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not keep_freed_memory()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs the C library of Linux")
def test_glibc_accepts_the_numbers() -> None:
    # In a process of its own, because it cannot be taken back.
    module = keep_freed_memory.__module__
    code = f"from {module} import keep_freed_memory; assert keep_freed_memory()"
    variables = {name: value for name, value in os.environ.items() if name not in _VARIABLES}
    subprocess.run([sys.executable, "-c", code], env=variables, check=True)


@pytest.mark.parametrize(
    ("words", "asked"),
    [(["nonsense=1"], True), (["bench", "--help"], True), (["doctor", "--help"], False)],
)
def test_command_line_asks_for_it(
    words: list[str], asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[None] = []
    monkeypatch.setattr(command_line, "keep_freed_memory", lambda: calls.append(None))
    with contextlib.suppress(SystemExit):
        command_line.main(words)
    assert bool(calls) is asked


def test_library_does_not() -> None:
    package = Path(bacpipe.__file__).parent
    users = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if "keep_freed_memory()" in path.read_text(encoding="utf-8")
    }
    assert users == {"__main__.py", "models/backends/cpu/memory.py"}
