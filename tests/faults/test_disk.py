"""Disks that are full, read-only or taken away while a run writes to them."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bacpipe
from bacpipe import workflows
from bacpipe.__main__ import main
from bacpipe.errors import BacpipeError, StorageError
from bacpipe.store.files import EmbeddingFile, replacing, write_bytes
from bacpipe.store.journal import Journal, read_journals
from tests.conftest import TinyModel, finished_entry, write_recording
from tests.faults.disks import (
    CountedDisk,
    assert_whole,
    contents,
    enlarge,
    finished,
    mounted_disk,
)

Run = Callable[[Path], bacpipe.Loader]

needs_posix = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX system")


@pytest.fixture
def whole_run(recordings: Path, tiny_model: type[TinyModel]) -> Run:
    """Embeddings, predictions, tables of all kinds and a map, into any folder."""

    def run(results: Path) -> bacpipe.Loader:
        return bacpipe.run_pipeline_for_single_model(
            "tiny",
            recordings,
            CustomModel=tiny_model,
            dim_reduction_model="pca",
            main_results_dir=results,
            classifier_threshold=0.0,
            save_raven_tables=True,
            device="cpu",
            nr_parallel_workers=1,
        )

    return run


def places(disk: CountedDisk) -> dict[str, int]:
    """For every file that was written, the size of a disk on which half of it fits."""
    return {write.name: (write.before + write.after) // 2 for write in disk.writes}


@needs_posix
def test_a_disk_may_be_full_at_any_file(
    whole_run: Run, tmp_path: Path, tiny_model: type[TinyModel]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        disk = CountedDisk(patch)
        whole_run(tmp_path / "whole")
    expected = contents(tmp_path / "whole")
    kinds = [*places(disk)]
    for kind in (".npy", ".parquet", "journal", "metadata.yml", "reducer", ".csv", "selection"):
        assert any(kind in name for name in kinds), kind
    for name, room in places(disk).items():
        results = tmp_path / "full"
        with pytest.MonkeyPatch.context() as patch:
            CountedDisk(patch, room)
            with pytest.raises(BacpipeError) as caught:
                whole_run(results)
        assert isinstance(caught.value, StorageError), name
        assert "is full" in str(caught.value), name
        assert "what is finished is kept" in str(caught.value), name
        assert_whole(results)
        left = 15 - sum(finished(results).values())
        tiny_model.windows_seen = 0
        whole_run(results)
        assert tiny_model.windows_seen == left, name
        assert contents(results) == expected, name
        shutil.rmtree(results)


@needs_posix
@pytest.mark.parametrize("size", ["4k", "32k", "48k", "72k"])
def test_a_small_disk_that_is_made_larger(
    whole_run: Run, tmp_path: Path, size: str, tiny_model: type[TinyModel]
) -> None:
    whole_run(tmp_path / "whole")
    with mounted_disk(tmp_path / "disk", size) as disk:
        with pytest.raises(StorageError) as caught:
            whole_run(disk / "results")
        message = str(caught.value)
        assert f"the disk {disk} is full" in message
        assert "free of" in message
        assert_whole(disk)
        left = 15 - sum(finished(disk).values())
        enlarge(disk, "16m")
        tiny_model.windows_seen = 0
        whole_run(disk / "results")
        assert tiny_model.windows_seen == left
        assert contents(disk / "results") == contents(tmp_path / "whole")


@needs_posix
def test_long_recordings_do_not_leave_their_beginning_on_a_full_disk(tmp_path: Path) -> None:
    import numpy as np

    rows = np.zeros((2**12, 300), np.float32)  # more than waits in memory
    with pytest.MonkeyPatch.context() as patch:
        for room in (100, rows.nbytes - 1, rows.nbytes + 127, rows.nbytes + 128):
            disk = CountedDisk(patch, room)
            file = EmbeddingFile(tmp_path / "x.npy")
            with pytest.raises(StorageError, match=r"x\.npy: the disk .* is full"):
                file.append(rows)
                file.commit()
            file.discard()
            assert list(tmp_path.iterdir()) == []
            assert disk.used == room
            patch.undo()


@needs_posix
def test_a_full_disk_takes_a_line_of_the_journal_wholly_or_not_at_all(tmp_path: Path) -> None:
    entry = finished_entry("b.wav")
    journal = Journal(tmp_path)
    journal.append(finished_entry("a.wav"))
    before = journal.path.read_bytes()
    for room in range(len(before)):
        with pytest.MonkeyPatch.context() as patch:
            CountedDisk(patch, room)
            with pytest.raises(StorageError, match="full"):
                journal.append(entry)
        assert journal.path.read_bytes() == before
    journal.append(entry)
    journal.close()
    assert set(read_journals(tmp_path).done) == {"a.wav", "b.wav"}


@needs_posix
def test_a_disk_that_cannot_even_take_a_line_back(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append(finished_entry("a.wav"))
    journal.close()
    with journal.path.open("ab") as file:
        file.write(b'{"file": "b.wav", "stat')
    journal = Journal(tmp_path)
    journal.append(finished_entry("c.wav"))
    journal.close()
    assert set(read_journals(tmp_path).done) == {"a.wav", "c.wav"}


def test_a_full_disk_during_the_first_run_costs_nothing_that_is_finished(
    whole_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal's last flush fails: the set was new and its journal has not been read again."""

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("bacpipe.store.journal._SECONDS_UNSYNCED", 1e9)
        patch.setattr("bacpipe.store.journal.os", _With(os, fsync=full))
        with pytest.raises(StorageError, match="full"):
            whole_run(tmp_path / "results")
    assert sum(finished(tmp_path / "results").values()) == 15


class _With:
    """A module with some functions replaced."""

    def __init__(self, module: object, **functions: object) -> None:
        self._module = module
        vars(self).update(functions)

    def __getattr__(self, name: str) -> object:
        return getattr(self._module, name)


@needs_posix
def test_the_rest_of_the_run_is_estimated(
    tmp_path: Path, tiny_model: type[TinyModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "field"
    for i in range(20):
        write_recording(folder / f"{i:02}.wav", 5.0, seed=i)
    disk = CountedDisk(monkeypatch)
    settings = {"model_name": "tiny", "CustomModel": tiny_model, "audio_dir": folder}
    settings |= {"device": "cpu", "run_pretrained_classifier": False}
    bacpipe.generate_embeddings(main_results_dir=tmp_path / "whole", **settings)
    places = [write.after for write in disk.writes if ".npy" in write.name]
    monkeypatch.undo()
    CountedDisk(monkeypatch, places[9] + 500)
    with pytest.raises(StorageError) as caught:
        bacpipe.generate_embeddings(main_results_dir=tmp_path / "results", **settings)
    size = 128 + 5 * 10 * 4  # header, windows, values, bytes
    done = len(finished(tmp_path / "results"))
    assert 0 < done < 20
    assert f"about {(20 - done) * size / 1e3:.1f} kB" in str(caught.value)


@pytest.fixture
def command_line(
    recordings: Path, tiny_model: type[TinyModel], monkeypatch: pytest.MonkeyPatch
) -> Callable[[Path], int]:
    """The command line with the tiny model; returns its exit code."""
    play = workflows.play

    def play_tiny(**settings: object) -> object:
        return play(CustomModel=tiny_model, **settings)

    def run(results: Path) -> int:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(workflows, "play", play_tiny)
            words = [f"audio_dir={recordings}", f"main_results_dir={results}", "device=cpu"]
            return main([*words, "--save-logs"])

    return run


@needs_posix
def test_the_command_line_says_it_in_one_sentence(
    command_line: Callable[[Path], int], tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        disk = CountedDisk(patch)
        assert command_line(tmp_path / "whole") == 0
    last = next(write for write in reversed(disk.writes) if write.name == "journal.jsonl")
    for number, room in enumerate((0, disk.used // 2, last.after - 9)):
        results = tmp_path / f"full{number}"  # as long as 'whole', which is in the metadata
        with pytest.MonkeyPatch.context() as patch:
            CountedDisk(patch, room)
            assert command_line(results) == 1
        errors = capfd.readouterr().err
        assert "is full" in errors.splitlines()[-1]
        assert "Traceback" not in errors
        assert command_line(results) == 0


@needs_posix
@pytest.mark.parametrize("size", ["4k", "16k", "44k"])
def test_a_log_that_cannot_be_written_does_not_hide_the_reason(
    command_line: Callable[[Path], int], tmp_path: Path, size: str, capfd: pytest.CaptureFixture
) -> None:
    with mounted_disk(tmp_path / "disk", size) as disk:
        assert command_line(disk / "results") == 1
        errors = capfd.readouterr().err
        assert f"the disk {disk} is full" in errors.splitlines()[-1]
        assert "Traceback" not in errors
        assert_whole(disk)
        enlarge(disk, "16m")
        assert command_line(disk / "results") == 0


@needs_posix
def test_a_log_on_a_full_disk_alone_does_not_stop_the_run(
    command_line: Callable[[Path], int],
    recordings: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if not Path("/dev/full").is_char_device():
        pytest.skip("this system has no /dev/full")
    (recordings / "empty.wav").touch()  # so that something is logged
    original = logging.FileHandler._open

    def open_full(handler: logging.FileHandler) -> object:
        if handler.baseFilename.endswith(".log"):
            handler.baseFilename = "/dev/full"
        return original(handler)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging.FileHandler, "_open", open_full)
        assert command_line(tmp_path / "results") == 0
    assert "Logging error" not in capfd.readouterr().err
    assert caplog.text.count("The log is not complete: /dev/full: the disk /dev is full") == 1


@pytest.mark.parametrize("code", [errno.EIO, errno.EROFS, errno.EACCES, errno.ESTALE])
def test_whatever_the_disk_says_is_a_sentence(
    whole_run: Run, tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: str, target: str) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        with pytest.raises(StorageError, match=os.strerror(code)) as caught:
            whole_run(tmp_path / "results")
    assert caught.value.errno == code
    assert_whole(tmp_path / "results")
    whole_run(tmp_path / "results")


def test_files_that_cannot_be_written_leave_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError):
        write_bytes(tmp_path / "folder", b"abc")
    with pytest.raises(StorageError), replacing(tmp_path / "folder") as file:
        file.write(b"abc")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError):
        write_bytes(tmp_path / "file" / "x.npy", b"abc")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


@needs_posix
@pytest.mark.parametrize("moved", [False, True])
def test_results_that_are_deleted_during_the_run(
    recordings: Path, tmp_path: Path, moved: bool
) -> None:
    results = tmp_path / "results"
    folder = results / "field" / "embeddings"

    class Deleting(TinyModel):
        deleted = False
        windows_seen = 0

        def __call__(self, x: object) -> object:
            if type(self).windows_seen == 8 and not type(self).deleted:
                type(self).deleted = True
                if moved:
                    results.rename(tmp_path / "elsewhere")
                while not moved and folder.exists():  # the run may write into it meanwhile
                    shutil.rmtree(folder, ignore_errors=True)
            return super().__call__(x)  # type: ignore[arg-type]

    settings = {"audio_dir": recordings, "main_results_dir": results, "device": "cpu"}
    settings |= {"model_name": "tiny", "CustomModel": Deleting, "global_batch_size": 2}
    with pytest.raises(BacpipeError, match="deleted or moved while the run was writing"):
        bacpipe.generate_embeddings(**settings)
    assert finished(results) == {}
    loader = bacpipe.generate_embeddings(**settings)
    assert len(loader.embeddings("array")) == 15


@needs_posix
@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("gone", ["one file", "all but the journal", "the folder"])
def test_a_deletion_while_a_file_is_finished(
    recordings: Path,
    tmp_path: Path,
    step: str,
    gone: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    results = tmp_path / "results"
    settings = {"audio_dir": recordings, "main_results_dir": results, "device": "cpu"}
    settings |= {"model_name": "tiny", "CustomModel": TinyModel}
    original = getattr(os, step)
    deleted: list[Path] = []

    def deleting(*arguments: Any) -> None:
        files = sorted(results.rglob(".*.npy.*"))
        if files and not deleted:
            deleted.extend(files[:1] if gone == "one file" else files)
            for file in deleted:
                file.unlink()
            if gone == "the folder":
                shutil.rmtree(results / "field" / "embeddings")
        original(*arguments)

    monkeypatch.setattr(os, step, deleting)
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(BacpipeError, match="deleted or moved while the run was writing"),
    ):
        bacpipe.generate_embeddings(**settings)
    assert deleted
    assert not [record for record in caplog.records if record.exc_info]
    loader = bacpipe.generate_embeddings(**settings)
    assert len(loader.embeddings("array")) == 15
