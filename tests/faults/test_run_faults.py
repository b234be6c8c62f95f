"""Models, decoders and files that fail in the middle of a run."""

from __future__ import annotations

import datetime
import errno
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch

import bacpipe
from bacpipe.audio import files
from bacpipe.errors import BacpipeError, NothingEmbeddedError
from bacpipe.inference.audio_handler import AudioHandler
from bacpipe.store import embedding_set, journal, layout, lock
from bacpipe.store.entries import Entry, FinishedEntry
from bacpipe.store.files import StagedFile
from bacpipe.store.predictions import PredictionFiles, SparsePredictions
from tests.conftest import TinyModel, expected_windows, write_recording
from tests.faults.disks import assert_whole, finished

pytestmark = pytest.mark.timeout(60)  # a hang is a failure

Run = Callable[..., bacpipe.Loader]
BAD = "north/b.wav"
MODES = [{}, {"avoid_pipelined_gpu_inference": True}, {"nr_parallel_workers": 3}]


def failures(loader: bacpipe.Loader) -> dict[str, str]:
    journal = loader.get_embedding_dir() / "journal.jsonl"
    lines = [json.loads(line) for line in journal.read_text().rstrip("\n").split("\n")]
    last = {line["file"]: line for line in lines if "file" in line}
    return {name: line["reason"] for name, line in last.items() if line["status"] == "failed"}


@pytest.fixture
def marked(recordings: Path) -> Path:
    """The recordings, of which one has a window with a level of exactly 0.5 in it."""
    samples, rate = sf.read(recordings / BAD, always_2d=True)
    samples[rate:] = 0.5
    sf.write(recordings / BAD, samples, rate)
    return recordings


def is_marked(x: torch.Tensor) -> torch.Tensor:
    """Which of some windows, as the tiny model gets them, are the marked one."""
    return ((x.mean(dim=2) - 0.5).abs() < 1e-3).all(dim=1)


def misbehaving(fault: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> type[TinyModel]:
    """Tiny model that does something else as soon as the marked window is among a batch."""

    class Misbehaving(TinyModel):
        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            embeddings = super().__call__(x)
            return fault(embeddings, is_marked(x)) if is_marked(x).any() else embeddings

    return Misbehaving


def raising(error: BaseException) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    def fault(embeddings: torch.Tensor, marked: torch.Tensor) -> torch.Tensor:
        raise error

    return fault


def setting(value: float) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    def fault(embeddings: torch.Tensor, marked: torch.Tensor) -> torch.Tensor:
        embeddings[marked] = value
        return embeddings

    return fault


FAULTS = {
    "an error of the model": (raising(ValueError("no such\nnote")), "ValueError: no such note"),
    "an assertion": (raising(AssertionError()), "AssertionError"),
    "an error of the GPU": (raising(RuntimeError("CUDA error: launch failure")), "launch failure"),
    "out of memory with one window": (
        raising(torch.OutOfMemoryError("CUDA out of memory")),
        "not even one window",
    ),
    "no memory left for Python": (raising(MemoryError()), "not even one window"),
    "NaN": (setting(float("nan")), "not numbers for window 1"),
    "Inf": (setting(float("inf")), "not numbers for window 1"),
    "a row too few": (lambda rows, marked: rows[~marked], "embeddings of shape"),
    "a row too many": (lambda rows, marked: torch.cat([rows, rows[:1]]), "embeddings of shape"),
    "a missing axis": (lambda rows, marked: rows.flatten(), "embeddings of shape"),
    "other columns": (lambda rows, marked: rows[:, :7], "embeddings of 7 values, but of 10"),
    "nothing": (lambda rows, marked: None, "embeddings of shape"),
}


@pytest.mark.parametrize("mode", MODES, ids=["threads", "by turns", "many decoders"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_model_that_fails_with_one_recording(
    run: Run, marked: Path, mode: dict, fault: str
) -> None:
    whole = run(model_name="whole", **mode).embeddings()
    do, reason = FAULTS[fault]
    # What is no table of embeddings makes the classifier fail first.
    classified = fault not in {"a missing axis", "nothing"}
    loader = run(CustomModel=misbehaving(do), run_pretrained_classifier=classified, **mode)
    found = failures(loader)
    assert list(found) == [BAD]
    assert BAD in found[BAD]
    assert reason in found[BAD]
    embeddings = loader.embeddings()
    assert len(embeddings) == 4
    for name, rows in embeddings.items():
        np.testing.assert_array_equal(rows, whole[name.replace("_tiny", "_whole")])
    assert_whole(loader.get_embedding_dir())
    assert not (loader.get_embedding_dir() / "north" / "b_tiny.npy").exists()
    assert set(run().entries) == set(expected_windows(marked))  # once the model is mended


SCORE_FAULTS = {
    "NaN": (lambda scores: scores * float("nan"), "class scores that are not numbers"),
    "Inf": (lambda scores: scores / 0, "class scores that are not numbers"),
    "a row too few": (lambda scores: scores[1:], "class scores of shape"),
    "too many classes": (lambda scores: torch.cat([scores, scores], 1), "class scores of shape"),
    "a missing axis": (lambda scores: scores[:, 0], "class scores of shape"),
}


@pytest.mark.parametrize("fault", SCORE_FAULTS)
def test_class_scores_that_make_no_sense(run: Run, marked: Path, fault: str) -> None:
    change, reason = SCORE_FAULTS[fault]

    class Misjudging(TinyModel):
        def classifier_predictions(self, embeddings: torch.Tensor) -> torch.Tensor:
            scores = super().classifier_predictions(embeddings)
            bad = ((embeddings - 0.5).abs() < 1e-3).all(dim=1).any()
            return change(scores) if bad else scores

    loader = run(CustomModel=Misjudging, classifier_threshold=0.0)
    assert reason in failures(loader)[BAD]
    assert BAD not in set(loader.predictions("dataframe").audiofilename)
    assert len(loader.entries) == 4
    # The same while only predictions are computed, from embeddings that are there.
    run(model_name="other", run_pretrained_classifier=False)
    again = run(model_name="other", CustomModel=Misjudging, classifier_threshold=0.0)
    assert reason in failures(again)[BAD]
    with pytest.raises(BacpipeError, match=reason):
        bacpipe.Embedder("tiny", CustomModel=Misjudging, device="cpu").get_embeddings_from_model(
            marked / BAD
        )


def test_a_model_that_always_fails_stops_the_run(run: Run, recordings: Path) -> None:
    calls = []

    class Broken(TinyModel):
        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            calls.append(len(x))
            raise RuntimeError("CUDA error: device-side assert triggered")

    for i in range(50):
        write_recording(recordings / f"{i}.wav", 1.0, seed=i)
    with pytest.raises(
        BacpipeError, match=r"Broken: this model fails whatever it is given.*assert"
    ):
        run(CustomModel=Broken)
    assert len(calls) < 30
    assert len(run().entries) == 55


def test_a_model_that_fails_from_some_moment_on_stops_the_run(run: Run, recordings: Path) -> None:
    class Dying(TinyModel):
        windows_seen = 0

        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            if type(self).windows_seen >= 8:
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
            return super().__call__(x)

    with pytest.raises(BacpipeError, match="fails whatever it is given"):
        run(CustomModel=Dying, global_batch_size=2)
    loader = run()
    assert set(loader.entries) == set(expected_windows(recordings))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        MemoryError(),
        type("ResourceExhaustedError", (Exception,), {})("OOM when allocating tensor"),
        type("Fail", (Exception,), {})("[ONNXRuntimeError] Failed to allocate memory for buffer"),
    ],
    ids=lambda error: f"{type(error).__name__}: {error}"[:40],
)
@pytest.mark.parametrize("most", [1, 3])
def test_memory_that_runs_out_halves_the_batch_and_changes_nothing(
    run: Run, error: Exception, most: int
) -> None:
    class Hungry(TinyModel):
        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            if len(x) > most:
                raise error
            return super().__call__(x)

    whole = run(model_name="whole", global_batch_size=16, classifier_threshold=0.0)
    hungry = run(CustomModel=Hungry, global_batch_size=16, classifier_threshold=0.0)
    assert not failures(hungry)
    np.testing.assert_array_equal(hungry.embeddings("array"), whole.embeddings("array"))
    for one, other in zip(hungry.detections(), whole.detections(), strict=True):
        np.testing.assert_array_equal(one.score, other.score)
        np.testing.assert_array_equal(one.start, other.start)


def test_one_window_too_large_does_not_slow_down_all_others(run: Run, marked: Path) -> None:
    sizes = []

    class Choking(TinyModel):
        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            if is_marked(x).any():
                raise MemoryError
            sizes.append(len(x))
            return super().__call__(x)

    for i in range(5):
        write_recording(marked / f"z{i}.wav", 8.0, seed=i)
    loader = run(CustomModel=Choking, global_batch_size=8)
    assert list(failures(loader)) == [BAD]
    assert sizes.count(8) >= 3


# ---------------------------------------------------------------------- decoders


class Unforeseen(BaseException):
    pass


@pytest.mark.parametrize("mode", [MODES[0], MODES[2]], ids=["threads", "many decoders"])
@pytest.mark.parametrize(
    "error",
    [Unforeseen("x"), SystemExit(3), MemoryError(), RuntimeError("\x1b[2J"), GeneratorExit()],
)
@pytest.mark.parametrize("after", [0, 1])
def test_a_decoder_thread_that_dies(
    run: Run, monkeypatch: pytest.MonkeyPatch, mode: dict, error: BaseException, after: int
) -> None:
    decode = AudioHandler.decode

    def dying(handler: AudioHandler, source: object) -> Iterator[object]:
        if source.name != BAD:  # type: ignore[attr-defined]
            return (yield from decode(handler, source))  # type: ignore[arg-type]
        if after:
            yield np.zeros((1, 8000), np.float32)
        raise error

    monkeypatch.setattr(AudioHandler, "decode", dying)
    loader = run(**mode)
    assert list(failures(loader)) == [BAD]
    assert type(error).__name__ in failures(loader)[BAD]
    assert len(loader.entries) == 4
    assert not [t for t in threading.enumerate() if t.name.startswith("bacpipe")]


@pytest.mark.parametrize("mode", MODES, ids=["threads", "by turns", "many decoders"])
@pytest.mark.parametrize("yields", [[], [np.zeros((0, 8000), np.float32)]])
def test_a_decoder_that_stops_without_a_word(
    run: Run, monkeypatch: pytest.MonkeyPatch, mode: dict, yields: list
) -> None:
    decode = AudioHandler.decode

    def silent(handler: AudioHandler, source: object) -> Iterator[object]:
        if source.name != BAD:  # type: ignore[attr-defined]
            return (yield from decode(handler, source))  # type: ignore[arg-type]
        yield from yields

    monkeypatch.setattr(AudioHandler, "decode", silent)
    loader = run(**mode)
    assert "stopped without a word" in failures(loader)[BAD]
    assert len(loader.entries) == 4


def test_a_computer_without_threads_left(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    start, started = threading.Thread.start, []

    def limited(thread: threading.Thread) -> None:
        if thread.name.startswith("bacpipe-decoder"):
            if started:
                raise RuntimeError("can't start new thread")
            started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    loader = run(nr_parallel_workers=4)
    assert len(started) == 1
    assert len(loader.entries) == 5


@pytest.mark.parametrize("kind", ["OSError", "short read", "LibsndfileError"])
def test_a_read_error_in_the_middle_of_a_recording(
    run: Run, recordings: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A disk with a bad sector, put where soundfile asks libsndfile for samples."""
    bad = recordings / "north" / "long.wav"
    write_recording(bad, 25.0)
    read, calls = sf.SoundFile._cdata_io, []

    def failing(sound: sf.SoundFile, action: str, data: object, ctype: str, frames: int) -> int:
        if sound.frames == 25 * 8000 and action == "read":
            calls.append(frames)
            if len(calls) > 1:
                if kind == "OSError":
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                if kind == "LibsndfileError":
                    raise sf.LibsndfileError(2)  # system error
                return read(sound, action, data, ctype, frames // 4)
        return read(sound, action, data, ctype, frames)

    monkeypatch.setattr(sf.SoundFile, "_cdata_io", failing)
    loader = run()
    assert len(calls) > 1
    assert list(failures(loader)) == ["north/long.wav"]
    assert "long.wav: " in failures(loader)["north/long.wav"]
    assert len(loader.entries) == 5
    assert not list(loader.get_embedding_dir().rglob("long*"))
    monkeypatch.undo()
    assert run().entries["north/long.wav"].windows == 25


# ---------------------------------------------------------------------- files that change


def during(path: Path, action: Callable[[], None]) -> type[AudioHandler]:
    """Do something when the first windows of a recording have been decoded."""
    decode = AudioHandler.decode

    def decoding(handler: AudioHandler, source: object) -> Iterator[object]:
        blocks = decode(handler, source)  # type: ignore[arg-type]
        try:
            yield next(blocks)
            if source.path == path:  # type: ignore[attr-defined]
                action()
            return (yield from blocks)
        except StopIteration as stop:
            return stop.value

    return decoding  # type: ignore[return-value]


def appended(path: Path) -> None:
    with path.open("ab") as file:
        file.write(bytes(2000))


def replaced(path: Path) -> None:
    write_recording(path.with_name("new.tmp.wav"), 25.0, seed=99).replace(path)


def shortened(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def touched(path: Path) -> None:
    os.utime(path, ns=(1, 1))


@pytest.mark.parametrize("mode", MODES[:2], ids=["threads", "by turns"])
@pytest.mark.parametrize("change", [appended, replaced, shortened, touched, Path.unlink])
def test_a_recording_that_changes_while_it_is_read(
    run: Run, recordings: Path, monkeypatch: pytest.MonkeyPatch, change: Callable, mode: dict
) -> None:
    path = write_recording(recordings / "long.wav", 25.0)
    with monkeypatch.context() as patch:
        patch.setattr(AudioHandler, "decode", during(path, lambda: change(path)))
        loader = run(**mode)
    assert list(failures(loader)) == ["long.wav"]
    assert len(loader.entries) == 5
    again = run(**mode)
    if change in {shortened, Path.unlink}:
        assert "long.wav" not in again.entries
    elif change is appended:  # 2000 bytes that the header does not know of
        assert again.entries["long.wav"].windows == 25
    else:
        assert again.entries["long.wav"].windows == 25
        assert again.entries["long.wav"].mtime_ns == path.stat().st_mtime_ns


def test_a_recording_replaced_before_its_turn_is_done_under_its_new_identity(
    run: Run, recordings: Path, monkeypatch: pytest.MonkeyPatch, tiny_model: type[TinyModel]
) -> None:
    first, later = recordings / "north" / "a.wav", recordings / "top.wav"
    action = lambda: write_recording(later, 3.0, seed=77)  # noqa: E731
    with monkeypatch.context() as patch:
        patch.setattr(AudioHandler, "decode", during(first, action))
        loader = run(avoid_pipelined_gpu_inference=True)
    assert loader.entries["top.wav"].windows == 3
    assert loader.entries["top.wav"].size == later.stat().st_size
    tiny_model.windows_seen = 0
    run()
    assert tiny_model.windows_seen == 0


def test_recordings_that_vanish_before_their_turn(
    run: Run, recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = recordings / "north" / "a.wav"
    action = lambda: shutil.rmtree(recordings / "south")  # noqa: E731
    with monkeypatch.context() as patch:
        patch.setattr(AudioHandler, "decode", during(first, action))
        loader = run(avoid_pipelined_gpu_inference=True, save_raven_tables=True)
    assert set(failures(loader)) == {"south/a.wav", "south/c.flac"}
    assert all("missing" in reason for reason in failures(loader).values())
    assert len(loader.entries) == 3
    assert len(run().entries) == 3


def test_the_disk_with_the_recordings_is_unplugged(
    run: Run, recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = recordings / "north" / "a.wav"
    aside = recordings.with_name("aside")
    with monkeypatch.context() as patch:
        patch.setattr(AudioHandler, "decode", during(first, lambda: recordings.rename(aside)))
        with pytest.raises(NothingEmbeddedError, match=r"none of 5 recordings.*a\.wav"):
            run(avoid_pipelined_gpu_inference=True)
    aside.rename(recordings)
    assert len(run().entries) == 5


# ---------------------------------------------------------------------- the writer


@pytest.mark.parametrize("error", [KeyError("x"), RecursionError(), MemoryError()])
def test_an_error_while_one_recording_is_written(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception, tmp_path: Path
) -> None:
    stage = PredictionFiles.stage

    def failing(
        self: PredictionFiles, path: Path, predictions: SparsePredictions
    ) -> tuple[StagedFile, str]:
        if path.name == "b_tiny.parquet":
            raise error
        return stage(self, path, predictions)

    with monkeypatch.context() as patch:
        patch.setattr(PredictionFiles, "stage", failing)
        loader = run(classifier_threshold=0.0)
    assert list(failures(loader)) == [BAD]
    assert type(error).__name__ in failures(loader)[BAD]
    assert len(loader.entries) == 4
    assert sum(finished(tmp_path).values()) == 13
    assert len(run(classifier_threshold=0.0).entries) == 5


def test_files_are_on_the_disk_before_their_names_and_named_before_their_line(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[int] = set()
    sync, rename, append = os.fsync, os.replace, journal.Journal.append
    lines: list[str] = []

    def fsync(descriptor: int) -> None:
        sync(descriptor)
        synced.add(os.fstat(descriptor).st_ino)

    def replace(old: str | Path, new: str | Path) -> None:
        assert Path(old).stat().st_ino in synced
        rename(old, new)

    def appended(self: journal.Journal, entry: Entry) -> None:
        if isinstance(entry, FinishedEntry):
            folder = self.path.parent
            assert (folder / entry.embeddings.path).stat().st_size == entry.embeddings.bytes
            assert entry.predictions is not None
            assert entry.predictions.path is not None
            assert any(folder.parents[1].rglob(entry.predictions.path))
            lines.append(entry.file)
        append(self, entry)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(journal.Journal, "append", appended)
    loader = run(classifier_threshold=0.0)
    assert sorted(lines) == sorted(loader.entries)


def test_the_report_counts_what_could_not_be_written(
    recordings: Path, tmp_path: Path, tiny_model: type[TinyModel]
) -> None:
    settings = {"main_results_dir": tmp_path / "results", "device": "cpu"}
    loader = bacpipe.Loader(recordings, "tiny", use_folder_structure=True, **settings)
    embedder = bacpipe.Embedder("tiny", loader, CustomModel=tiny_model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PredictionFiles, "stage", lambda *arguments: 1 / 0)
        with pytest.raises(NothingEmbeddedError, match="ZeroDivisionError"):
            embedder.run_inference_pipeline_using_multithreading()
    embedder.run_inference_pipeline_using_multithreading()
    assert embedder.report.done == 5
    assert embedder.report.failed == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX system")
def test_something_in_the_way_of_one_result(run: Run, recordings: Path) -> None:
    loader = run()
    new = write_recording(recordings / "north" / "new.wav", 2.0)
    (loader.get_embedding_dir() / "north" / "new_tiny.npy").mkdir()
    loader = run()
    assert list(failures(loader)) == ["north/new.wav"]
    assert "does not take a file of this name" in failures(loader)["north/new.wav"]
    assert len(loader.entries) == 5
    (loader.get_embedding_dir() / "north" / "new_tiny.npy").rmdir()
    assert len(run().entries) == 6
    assert new.exists()


def test_an_interrupt_stops_the_run_and_its_threads(run: Run, recordings: Path) -> None:
    class Interrupted(TinyModel):
        windows_seen = 0

        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            if type(self).windows_seen >= 4:
                raise KeyboardInterrupt
            return super().__call__(x)

    with pytest.raises(KeyboardInterrupt):
        run(CustomModel=Interrupted)
    assert not [t for t in threading.enumerate() if t.name.startswith("bacpipe")]
    assert len(run().entries) == 5


def test_the_pipeline_reports_a_failure_once(run: Run, marked: Path) -> None:
    """A recording whose model and whose decoder fail is one failure."""
    shutil.copy(marked / BAD, marked / "cut.wav")
    os.truncate(marked / "cut.wav", 44 + 2 * 2 * 8000)
    fault = misbehaving(raising(ValueError("no")))
    loader = run(CustomModel=fault, allow_truncated=False)
    assert sorted(failures(loader)) == ["cut.wav", BAD]


# ---------------------------------------------------------------------- what FUSE says, and clocks


@pytest.mark.parametrize("where", ["header", "fingerprint"])
def test_a_recording_that_cannot_be_read_at_all(
    run: Run, recordings: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """EIO as drives behind FUSE give it, for one file: at its header, or at what identifies it."""
    lost = OSError(errno.EIO, os.strerror(errno.EIO))
    identity = (recordings / BAD).stat().st_ino
    if where == "header":
        read = files.read_promise

        def failing(file: Any, size: int) -> object:
            if os.fstat(file.fileno()).st_ino == identity:
                raise lost
            return read(file, size)

        monkeypatch.setattr(files, "read_promise", failing)
    else:
        pread = os.pread

        def failing_pread(file: int, length: int, offset: int) -> bytes:
            if os.fstat(file).st_ino == identity:
                raise lost
            return pread(file, length, offset)

        monkeypatch.setattr(os, "pread", failing_pread)
    loader = run()
    if where == "header":
        assert list(failures(loader)) == [BAD]
        assert f"{BAD}: cannot be read (Input/output error)" in failures(loader)[BAD]
    else:  # the sound was read, only its identity is not known, and is the next time
        assert failures(loader) == {} and loader.entries[BAD].fingerprint is None
    monkeypatch.undo()
    loader = run()
    assert loader.entries[BAD].fingerprint is not None and len(loader.entries) == 5


def test_a_journal_that_cannot_be_read_is_a_sentence_and_stays(
    run: Run, recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = run()
    journal = loader.get_embedding_dir() / "journal.jsonl"
    before = journal.read_bytes()
    open_path = Path.open

    def failing(path: Path, *args: Any, **kwargs: Any) -> Any:
        if path == journal and not {"w", "a", "+"} & set(str(args[:1])):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return open_path(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", failing)
    with pytest.raises(BacpipeError, match=r"journal\.jsonl.*Input/output error"):
        run()
    monkeypatch.undo()
    assert journal.read_bytes() == before
    assert list(run().entries) == list(loader.entries)


@pytest.mark.parametrize("days", [-4000, -0.05, 0.05, 4000])
def test_a_clock_that_jumps_during_a_run(
    run: Run, recordings: Path, monkeypatch: pytest.MonkeyPatch, days: float
) -> None:
    """As where a GPS or a time server sets it, or summer time ends."""
    jumped: list[bool] = []
    now, now_ns = time.time, time.time_ns
    shift = round(days * 86_400)
    monkeypatch.setattr(time, "time", lambda: now() + shift * bool(jumped))
    monkeypatch.setattr(time, "time_ns", lambda: now_ns() + shift * 10**9 * bool(jumped))
    genuine = datetime.datetime

    class Clock(genuine):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return genuine.now(tz) + datetime.timedelta(seconds=shift * bool(jumped))

    for module in (embedding_set, layout, lock):
        if hasattr(module, "datetime"):
            monkeypatch.setattr(module, "datetime", Clock)

    class Jumping(TinyModel):
        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            jumped.append(True)
            return super().__call__(x)

    first = run(CustomModel=Jumping)
    assert jumped and len(first.entries) == 5
    assert_whole(first.paths.main_results_dir)
    seen = Jumping.windows_seen
    again = run(CustomModel=Jumping)
    assert again.embed_dir == first.embed_dir and Jumping.windows_seen == seen
    # A new set is the newest one, whatever the clock says.
    other = run(CustomModel=Jumping, hop=0.5)
    newest = bacpipe.Loader(
        recordings, str(other.model_name), main_results_dir=other.paths.main_results_dir
    )
    assert other.embed_dir not in (None, first.embed_dir) and newest.embed_dir == other.embed_dir
