from __future__ import annotations

import csv
import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import bacpipe
from bacpipe.errors import ResultsError, StorageError
from bacpipe.store import files
from bacpipe.store.files import (
    TEMPORARY,
    EmbeddingFile,
    array_hash,
    remove_temporaries,
    replacing,
    write_csv,
    write_json,
    write_yaml,
)


def test_a_file_keeps_its_old_content_when_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(ValueError, match="halfway"), replacing(path) as file:
        file.write(b"new, but ")
        raise ValueError("halfway")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "table.csv"
    with replacing(path) as file:
        file.write(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"


def test_yaml_and_json_keep_order_and_umlauts(tmp_path: Path) -> None:
    content = {"z": "Mönchsgrasmücke", "a": [1.5, None]}
    write_yaml(tmp_path / "x.yml", content)
    write_json(tmp_path / "x.json", content)
    assert (tmp_path / "x.yml").read_text(encoding="utf-8").startswith("z: Mönchsgrasmücke")
    assert "Mönchsgrasmücke" in (tmp_path / "x.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("parts", [[1], [3, 2], [1] * 7, [1000], [300_000, 1, 300_000]])
def test_embeddings_grow_and_read_back_as_numpy(tmp_path: Path, parts: list[int]) -> None:
    rng = np.random.default_rng(0)
    rows = [rng.normal(size=(n, 5)).astype(np.float32) for n in parts]
    file = EmbeddingFile(tmp_path / "deep" / "x.npy")
    for part in rows:
        file.append(part)
    assert not file.path.exists()
    written = file.commit()
    array = np.load(file.path, allow_pickle=False)
    np.testing.assert_array_equal(array, np.concatenate(rows))
    assert array.dtype == np.float32
    assert written == (file.path.stat().st_size, array_hash(array), 5)


def test_discarded_embeddings_leave_nothing(tmp_path: Path) -> None:
    file = EmbeddingFile(tmp_path / "x.npy")
    file.append(np.zeros((2, 3), np.float32))
    file.discard()
    assert list(tmp_path.iterdir()) == []


def test_embeddings_of_another_width_are_refused(tmp_path: Path) -> None:
    file = EmbeddingFile(tmp_path / "x.npy")
    file.append(np.zeros((2, 3), np.float32))
    with pytest.raises(ResultsError, match=r"x\.npy"):
        file.append(np.zeros((2, 4), np.float32))
    file.discard()


def test_only_our_temporary_files_are_removed(tmp_path: Path) -> None:
    ours = tmp_path / "deep" / f".x.npy{TEMPORARY}"
    ours.parent.mkdir()
    theirs = tmp_path / "deep" / "notes.tmp"
    for path in (ours, theirs):
        path.touch()
    remove_temporaries(tmp_path)
    assert not ours.exists()
    assert theirs.exists()


def test_tables_read_back_whatever_a_name_holds(tmp_path: Path) -> None:
    table = pd.DataFrame({"name": ["a\rb", 'c"d', "e,f", "Ä\n"], "start": [0.5, 1.0, 2.0, 3.0]})
    write_csv(tmp_path / "x.csv", table)
    with (tmp_path / "x.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert [row[0] for row in rows[1:]] == list(table["name"])
    assert [float(row[1]) for row in rows[1:]] == list(table["start"])
    write_csv(tmp_path / "plain.csv", table.iloc[1:3])
    assert (tmp_path / "plain.csv").read_text(encoding="utf-8").splitlines()[0] == "name,start"


# ---------------------------------------------------------------------- Windows


def held_open(monkeypatch: pytest.MonkeyPatch, times: int, winerror: int | None = 5) -> list[float]:
    """Let Windows refuse to replace files so many times; the pauses that were made."""
    pauses: list[float] = []
    replace, left = os.replace, [times]

    def refuse(source: str | Path, target: str | Path) -> None:
        if left[0]:
            left[0] -= 1
            error = PermissionError(errno.EACCES, "Access is denied")
            error.winerror = winerror  # type: ignore[attr-defined]
            raise error
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", refuse)
    monkeypatch.setattr(files.time, "sleep", pauses.append)
    return pauses


def write_embeddings(path: Path) -> None:
    file = EmbeddingFile(path)
    file.append(np.zeros((3, 2), np.float32))
    file.commit()


def write_many_embeddings(path: Path) -> None:
    file = EmbeddingFile(path)
    for _ in range(3):
        file.append(np.zeros((2**18, 4), np.float32))
    file.commit()


def replace(path: Path) -> None:
    with replacing(path) as file:
        file.write(b"new")


WRITERS = [
    replace,
    lambda path: write_json(path, {}),
    write_embeddings,
    write_many_embeddings,
]


@pytest.mark.parametrize("write", WRITERS)
def test_a_file_that_is_held_open_for_a_moment_is_replaced(
    write: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")
    pauses = held_open(monkeypatch, 4, winerror=32)
    write(path)
    assert path.read_bytes() != b"old"
    assert len(pauses) == 4
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("write", WRITERS)
def test_a_file_that_stays_open_elsewhere_is_said_after_two_seconds(
    write: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")
    pauses = held_open(monkeypatch, 1000)
    with pytest.raises(StorageError, match="x: cannot be written, because another program has it"):
        write(path)
    assert sum(pauses) == pytest.approx(2)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_may_not_be_written_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses = held_open(monkeypatch, 1000, winerror=None)
    with pytest.raises(StorageError, match="write permission"):
        write_json(tmp_path / "x", {})
    assert not pauses


def test_one_result_that_is_open_elsewhere_is_the_failure_of_its_recording(
    run: Callable[..., bacpipe.Loader], monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def refuse(source: str | Path, target: str | Path) -> None:
        if str(target).endswith("b_tiny.npy"):
            error = PermissionError(errno.EACCES, "Access is denied")
            error.winerror = 32  # type: ignore[attr-defined]
            raise error
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", refuse)
    monkeypatch.setattr(files.time, "sleep", lambda seconds: None)
    loader = run()
    assert "north/b.wav" not in loader.entries
    assert len(loader.entries) == 4


def test_paths_too_long_for_windows_are_told_before_the_run(
    run: Callable[..., bacpipe.Loader],
    tiny_model: type,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = run().get_embedding_dir()
    longest = max(len(str(path)) for path in folder.rglob("*.npy")) + 22
    monkeypatch.setattr(files, "longest_path", lambda: longest)
    files.check_lengths(folder, [p.relative_to(folder).as_posix() for p in folder.rglob("*.npy")])
    monkeypatch.setattr(files, "longest_path", lambda: longest - 1)
    before = tiny_model.windows_seen  # type: ignore[attr-defined]
    with pytest.raises(StorageError, match=r"Windows takes paths of .* that is 5 characters"):
        run(main_results_dir=tmp_path / ("results" + 4 * "x"))
    assert tiny_model.windows_seen == before  # type: ignore[attr-defined]
    assert not list((tmp_path / "resultsxxxx").rglob("*.npy"))


def test_other_files_with_paths_too_long_for_windows_are_called_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables for other programs, say, whose names are longer than those of results."""
    path = tmp_path / "a_tiny.selection.table.txt"
    monkeypatch.setattr(files, "longest_path", lambda: len(str(path)) + 22)
    error = FileNotFoundError(errno.ENOENT, "No such file or directory")
    assert "check the disk" in str(files.storage_error(path, error))
    monkeypatch.setattr(files, "longest_path", lambda: len(str(path)) + 21)
    assert "that is 1 character shorter" in str(files.storage_error(path, error))
    full = OSError(errno.ENOSPC, "No space left on device")
    assert "is full" in str(files.storage_error(path, full))


@pytest.mark.parametrize(("value", "expected"), [(1, None), (0, 259), (None, 259)])
def test_windows_tells_how_long_paths_may_be(
    monkeypatch: pytest.MonkeyPatch, value: int | None, expected: int | None
) -> None:
    class Key:
        def __enter__(self) -> Key:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    def query(key: Key, name: str) -> tuple[int, int]:
        assert name == "LongPathsEnabled"
        if value is None:
            raise FileNotFoundError(name)
        return value, 4

    registry = SimpleNamespace(HKEY_LOCAL_MACHINE=1, OpenKey=lambda *_: Key(), QueryValueEx=query)
    monkeypatch.setitem(sys.modules, "winreg", registry)
    monkeypatch.setattr(sys, "platform", "win32")
    assert files.longest_path() == expected
    monkeypatch.setattr(sys, "platform", "linux")
    assert files.longest_path() is None


def test_a_lock_names_its_owner_where_nobody_has_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bacpipe.store import lock

    def no_name() -> str:
        raise ModuleNotFoundError("No module named 'pwd'")  # Windows without USERNAME

    monkeypatch.setattr("getpass.getuser", no_name)
    with lock.exclusive(tmp_path, "tiny"):
        assert (tmp_path / ".tiny.lock").exists()
