"""Folders and files that may not be read or written.

Root may do everything, so what needs to be refused runs as another user in a process of its
own; where the tests are not run by root, that user is who runs them.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import bacpipe
from bacpipe.errors import ResultsLockedError
from bacpipe.store.lock import exclusive
from tests.conftest import write_recording

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX permissions"),
    pytest.mark.timeout(600),
]

# All cases run in one process: loading PyTorch takes longer than they do.
SCRIPT = """
import contextlib, io, json, logging, os, sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
import torch
import bacpipe
from bacpipe import workflows
from bacpipe.__main__ import main
from tests.conftest import TinyModel

torch.set_num_threads(1)
play = workflows.play
workflows.play = lambda **settings: play(CustomModel=TinyModel, **settings)
# A run as we are: the other user may not be allowed to import what is still missing then.
main(["--save-logs", "models=[tiny]", "device=cpu", *json.loads(sys.argv[3])])
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)  # nobody
found = {}
for case, words in json.loads(sys.argv[2]).items():
    handler = logging.StreamHandler(errors := io.StringIO())
    logging.getLogger().handlers = [handler]
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()) as output:
        try:
            code = main([*words, "models=[tiny]", "device=cpu"])
        except Exception as error:
            code = f"{type(error).__name__}: {error}"
    found[case] = [code, errors.getvalue(), output.getvalue()]
print(json.dumps(found))
"""


class Case:
    """One run: its folders, and what became of it."""

    def __init__(self, folder: Path) -> None:
        self.recordings = folder / "field"
        self.results = folder / "results"
        for i, name in enumerate(("a.wav", "b.wav", "sub/c.wav", "sub/d.wav")):
            write_recording(self.recordings / name, 2.0, seed=i)
        self.results.mkdir()
        self.results.chmod(0o777)
        self.options: list[str] = []
        self.code: object = None
        self.errors = self.output = ""

    @property
    def words(self) -> list[str]:
        return [
            *self.options,
            f"audio_dir={self.recordings}",
            f"main_results_dir={self.results}",
        ]

    @property
    def done(self) -> set[str]:
        lines = []
        for journal in self.results.rglob("journal.jsonl"):
            lines += [json.loads(line) for line in journal.read_text().splitlines()]
        last = {line["file"]: line["status"] for line in lines if "file" in line}
        return {name for name, status in last.items() if status == "done"}


def results_not_writable(case: Case) -> None:
    case.results.chmod(0o555)


def results_not_searchable(case: Case) -> None:
    case.results.chmod(0o000)


def results_not_writable_and_a_log_wanted(case: Case) -> None:
    case.results.chmod(0o555)
    case.options = ["--save-logs"]


def parent_of_results_not_writable(case: Case) -> None:
    case.results.chmod(0o555)
    case.results = case.results / "new"


def lock_of_another_user(case: Case) -> None:
    folder = case.results / "field" / "embeddings"
    folder.mkdir(parents=True)
    for path in (folder.parent, folder):
        path.chmod(0o777)
    (folder / ".tiny.lock").touch(0o400)
    (folder / ".tiny.lock").chmod(0o400)


def results_are_a_file(case: Case) -> None:
    case.results.rmdir()
    case.results.write_text("not a folder")


def one_recording(case: Case) -> None:
    (case.recordings / "b.wav").chmod(0o000)


def every_recording(case: Case) -> None:
    for path in case.recordings.rglob("*.wav"):
        path.chmod(0o000)


def sub_folder(case: Case) -> None:
    (case.recordings / "sub").chmod(0o000)


def sub_folder_can_be_listed_only(case: Case) -> None:
    (case.recordings / "sub").chmod(0o444)


def whole_folder(case: Case) -> None:
    case.recordings.chmod(0o000)


def read_only_audio(case: Case) -> None:
    for path in [*case.recordings.rglob("*"), case.recordings]:
        path.chmod(0o555 if path.is_dir() else 0o444)


CASES = [
    results_not_writable,
    results_not_searchable,
    results_not_writable_and_a_log_wanted,
    parent_of_results_not_writable,
    lock_of_another_user,
    results_are_a_file,
    one_recording,
    every_recording,
    sub_folder,
    sub_folder_can_be_listed_only,
    whole_folder,
    read_only_audio,
]


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Case]]:
    folder = tmp_path_factory.mktemp("permissions")
    for parent in [folder, *folder.parents]:
        if parent.stat().st_uid == os.geteuid() and os.geteuid() == 0 and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o755)
    made = {}
    for forbid in CASES:
        made[forbid.__name__] = case = Case(folder / forbid.__name__)
        forbid(case)
    first = Case(folder / "first")
    (first.recordings / "broken.wav").write_text("not audio")
    words = json.dumps({name: case.words for name, case in made.items()})
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, root, words, json.dumps(first.words)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=500,
        env={**os.environ, "HOME": str(folder), "MPLCONFIGDIR": str(folder)},
    )
    for path in sorted([folder, *folder.rglob("*")]):  # so that pytest can clean up
        path.chmod(0o755 if path.is_dir() else 0o644)
    for path in sorted(folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    assert done.returncode == 0, done.stderr
    for name, (code, errors, output) in json.loads(done.stdout.splitlines()[-1]).items():
        made[name].code, made[name].errors, made[name].output = code, errors, output
    yield made


@pytest.mark.parametrize("name", [case.__name__ for case in CASES[:6]])
def test_results_that_cannot_be_written_are_one_sentence(cases: dict[str, Case], name: str) -> None:
    case = cases[name]
    assert case.code == 1, case.errors
    assert "Traceback" not in case.errors
    [sentence] = case.errors.strip().splitlines()[-1:]
    assert "results" in sentence
    assert re.search("cannot be (written|read)|does not take a file", sentence)
    assert "main_results_dir" in sentence
    assert not case.done


@pytest.mark.parametrize(
    ("name", "left", "reason"),
    [
        ("one_recording", {"a.wav", "sub/c.wav", "sub/d.wav"}, "b.wav: cannot be read"),
        ("sub_folder_can_be_listed_only", {"a.wav", "b.wav"}, "c.wav: cannot be read"),
    ],
)
def test_recordings_that_cannot_be_read_are_failures(
    cases: dict[str, Case], name: str, left: set[str], reason: str
) -> None:
    case = cases[name]
    assert case.code == 0, case.errors
    assert case.done == left
    assert f"{reason} (Permission denied)" in case.output
    assert "Traceback" not in case.errors


def test_a_sub_folder_that_cannot_be_read_is_named(cases: dict[str, Case]) -> None:
    case = cases["sub_folder"]
    assert case.code == 0, case.errors
    assert case.done == {"a.wav", "b.wav"}
    assert f"The folder {case.recordings / 'sub'} cannot be read" in case.errors


def test_nothing_that_can_be_read(cases: dict[str, Case]) -> None:
    every, whole = cases["every_recording"], cases["whole_folder"]
    assert every.code == whole.code == 1
    assert "none of 4 recordings could be embedded" in every.errors
    assert "Permission denied" in every.errors
    assert "field cannot be read: Permission denied (looked for .wav" in whole.errors
    assert not list(whole.results.iterdir())
    assert "Traceback" not in every.errors + whole.errors


def test_read_only_audio_is_all_that_is_needed(cases: dict[str, Case]) -> None:
    case = cases["read_only_audio"]
    assert case.code == 0, case.errors
    assert len(case.done) == 4
    assert {path.name for path in case.recordings.iterdir()} == {"a.wav", "b.wav", "sub"}


def test_a_locked_folder_is_left_alone(run: Callable[..., bacpipe.Loader], tmp_path: Path) -> None:
    """Neither an empty set of embeddings nor anything else is left by the run that is refused."""
    folder = tmp_path / "results" / "field" / "embeddings"
    with exclusive(folder, "tiny"):
        with pytest.raises(ResultsLockedError, match="being written by process"):
            run()
        assert {path.name for path in folder.iterdir()} == {".tiny.lock", ".tiny.lock-owner"}
    assert len(run().entries) == 5


def test_an_owner_that_cannot_be_read_is_another_run(tmp_path: Path) -> None:
    for content in (b"", b"\xff\xfe", b"[]", b'{"process": 1}', b"{" * 10_000):
        with exclusive(tmp_path, "tiny"):
            (tmp_path / ".tiny.lock-owner").write_bytes(content)
            with (
                pytest.raises(ResultsLockedError, match="written by another run"),
                exclusive(tmp_path, "tiny"),
            ):
                pass


def test_a_file_system_without_locks_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import fcntl

    def unsupported(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with pytest.raises(bacpipe.BacpipeError, match="No locks available"), exclusive(tmp_path, "x"):
        pass
