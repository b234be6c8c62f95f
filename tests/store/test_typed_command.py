"""Commands that are printed call the bacpipe that printed them, wherever it is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bacpipe.commands.arguments import parse_words
from bacpipe.options import Options
from bacpipe.store.typed_command import typed_command

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the shell of Windows is another")


def install(folder: Path) -> Path:
    """An environment whose bacpipe says where it is and what it was asked."""
    folder.mkdir(parents=True)
    program = folder / "bacpipe"
    program.write_text('#!/bin/sh\nprintf "%s|" "$0" "$@"\n')
    program.chmod(0o755)
    return program


def typed(monkeypatch: pytest.MonkeyPatch, python: Path, on_path: list[Path]) -> str:
    """The command that a bacpipe run by this Python prints, with these folders on the PATH."""
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("PATH", os.pathsep.join([*map(str, on_path), "/usr/bin", "/bin"]))
    return typed_command("export survey", "my card", Options(), min_score=0.5)


def run(command: str) -> list[str]:
    """What the program was called and given, as the shell understands the command."""
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    return done.stdout.split("|")[:-1]


WORDS = ["export", "survey", "audio_dir=my card", "min_score=0.5"]


def test_one_that_is_not_on_the_path_is_called_by_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, other = install(tmp_path / "my env" / "bin"), install(tmp_path / "other" / "bin")
    for on_path in ([], [other.parent]):
        command = typed(monkeypatch, ours.with_name("python"), on_path)
        assert run(command) == [str(ours), *WORDS]


def test_one_on_the_path_is_called_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, linked = install(tmp_path / "env" / "bin"), tmp_path / "linked"
    linked.mkdir()
    (linked / "bacpipe").symlink_to(ours)
    for folder in (ours.parent, linked):
        command = typed(monkeypatch, ours.with_name("python"), [folder])
        assert command.startswith("bacpipe export ")
        assert run(command) == [str(folder / "bacpipe"), *WORDS]


def test_without_a_program_python_runs_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = install(tmp_path / "no scripts").rename(tmp_path / "no scripts" / "python")
    assert run(typed(monkeypatch, python, [])) == [str(python), "-m", "bacpipe", *WORDS]
    on_path = install(tmp_path / "user" / "bin")
    command = typed(monkeypatch, python, [on_path.parent])
    assert run(command) == [str(on_path), *WORDS]


ODD_NAMES = (
    "cost $5 $HOME", 'a"b', "it's", "`ls`", "{a,b}", "a\\b", "tab\there", "line\nbreak", "null",
    "'q'", '"q"', "[2024] data", "[a]", "!x", "~x", "2024", "1e5", "a=b #2: c",
)  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("audio_dir", name) for name in ODD_NAMES),
        ("recordings", ["x,y.wav", "z.wav"]),
        ("recordings", ["it's.wav", '"a", b.wav', "'q'", " x "]),
        ("moved_from", "2024"),
        ("recogniser", "null"),
        ("recogniser", "1e5"),
        ("recogniser", "010"),
        ("species_list", ["Turdus, merula", "a: b", "null", "wren"]),
        ("classifier_threshold", 1e-5),
        ("testing", True),
        ("latitude", None),
    ],
)
def test_what_is_pasted_is_what_was_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, value: object
) -> None:
    program = install(tmp_path / "bin")
    monkeypatch.setattr(sys, "executable", str(program.with_name("python")))
    monkeypatch.setenv("PATH", os.pathsep.join([str(program.parent), "/usr/bin", "/bin"]))
    settings = {"audio_dir": "field", key: value}
    audio_dir = str(settings.pop("audio_dir"))
    words = run(typed_command("export survey", audio_dir, Options(), **settings))[3:]
    assert parse_words(words) == {"audio_dir": audio_dir, **settings}
