"""Runs that continue: what is kept, what is computed, what survives a kill."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import bacpipe
from bacpipe.errors import NothingEmbeddedError, ResultsError, ResultsLockedError
from bacpipe.store.lock import exclusive
from tests.conftest import TinyModel, expected_windows, write_recording

Run = Callable[..., bacpipe.Loader]


def counted(model: type[TinyModel], run: Run, **settings: object) -> tuple[bacpipe.Loader, int]:
    """Loader of a run, and the number of windows that the model saw in it."""
    before = model.windows_seen
    loader = run(**settings)
    return loader, model.windows_seen - before


def predictions_folder(loader: bacpipe.Loader) -> Path:
    return loader.paths.preds_path / "original_classifier_outputs"


def test_a_second_run_computes_nothing(run: Run, tiny_model: type[TinyModel]) -> None:
    first, seen = counted(tiny_model, run)
    assert seen == 15
    before = {p: p.stat().st_mtime_ns for p in first.get_embedding_dir().rglob("*.npy")}
    second, seen = counted(tiny_model, run)
    assert seen == 0
    assert second.get_embedding_dir() == first.get_embedding_dir()
    assert before == {p: p.stat().st_mtime_ns for p in first.get_embedding_dir().rglob("*.npy")}


def test_new_and_replaced_recordings_are_computed_and_removed_ones_dropped(
    run: Run, recordings: Path, tiny_model: type[TinyModel]
) -> None:
    first, _ = counted(tiny_model, run)
    state = first.embeddings_state
    write_recording(recordings / "new.wav", 2.0, seed=9)
    write_recording(recordings / "north" / "a.wav", 1.0, seed=8)
    kept = recordings / "south" / "c.flac"
    aside = recordings.parent / "c.flac"
    shutil.copy2(kept, aside)
    kept.unlink()
    loader, seen = counted(tiny_model, run)
    assert seen == 3
    assert list(loader.entries) == [
        "new.wav",
        "north/a.wav",
        "north/b.wav",
        "south/a.wav",
        "top.wav",
    ]
    assert loader.metadata_dict["files"]["audio_files"] == list(loader.entries)
    assert loader.embeddings_state != state
    shutil.copy2(aside, kept)
    loader, seen = counted(tiny_model, run)
    assert seen == 0
    assert "south/c.flac" in loader.entries
    assert len(loader.embeddings("array")) == 14


@pytest.mark.parametrize(
    "changed",
    [
        {"hop": 0.5},
        {"padding": "constant"},
        {"bool_change_speed": True, "new_speed": 0.5},
        {"check_if_already_processed": False},
        {"check_if_combination_exists": False},
    ],
)
def test_settings_that_change_results_start_a_new_set_and_say_so(
    run: Run, changed: dict, caplog: pytest.LogCaptureFixture
) -> None:
    first = run()
    with caplog.at_level(logging.INFO, logger="bacpipe"):
        second = run(**changed)
    assert second.get_embedding_dir() != first.get_embedding_dir()
    assert "starting a new set" in caplog.text
    assert run().get_embedding_dir() in {first.get_embedding_dir(), second.get_embedding_dir()}


@pytest.mark.parametrize(
    "changed",
    [{"global_batch_size": 2}, {"nr_parallel_workers": 3}, {"avoid_pipelined_gpu_inference": True}],
)
def test_settings_that_do_not_change_results_do_not(
    run: Run, tiny_model: type[TinyModel], changed: dict
) -> None:
    first = run()
    second, seen = counted(tiny_model, run, **changed)
    assert second.get_embedding_dir() == first.get_embedding_dir()
    assert seen == 0


def test_another_threshold_classifies_the_stored_embeddings(
    run: Run, tiny_model: type[TinyModel]
) -> None:
    strict = run(classifier_threshold=0.9).predictions("array")[0]
    loader, seen = counted(tiny_model, run, classifier_threshold=0.0)
    assert seen == 0
    loose, classes = loader.predictions("array")
    assert classes == {0: "loud", 1: "quiet"}
    np.testing.assert_allclose(loose.sum(axis=1), 1, rtol=1e-5)
    assert (strict > 0).sum() < (loose > 0).sum()


def test_two_sets_take_turns_with_the_predictions(run: Run) -> None:
    run(classifier_threshold=0.0)
    overlapping = run(hop=0.5, classifier_threshold=0.0)
    assert len(overlapping.predictions("array")[0]) == len(overlapping.embeddings("array"))
    again = run(classifier_threshold=0.0)
    assert len(again.predictions("array")[0]) == len(again.embeddings("array")) == 15


def test_missing_predictions_make_a_recording_undone(run: Run, tiny_model: type[TinyModel]) -> None:
    loader = run(classifier_threshold=0.0)
    path = predictions_folder(loader) / "north" / "a_tiny.parquet"
    good = path.read_bytes()
    path.unlink()
    loader, seen = counted(tiny_model, run, classifier_threshold=0.0)
    assert seen == 0
    assert path.read_bytes() == good
    assert len(loader.predictions("dict")[0]) == 5


def test_damaged_embeddings_are_found_when_read_and_recomputed_when_asked(run: Run) -> None:
    loader = run()
    path = loader.get_embedding_dir() / "north" / "a_tiny.npy"
    good = path.read_bytes()
    path.write_bytes(good[:-4] + b"abcd")
    with pytest.raises(ResultsError, match=r"a_tiny\.npy.*changed"):
        loader.embeddings()
    path.write_bytes(good[:200])
    with pytest.raises(ResultsError, match=r"a_tiny\.npy"):
        loader.embeddings("array")
    with pytest.raises(ResultsError, match=r"a_tiny\.npy"):
        loader.read_embedding_file("north/a.wav")
    assert len(run().read_embedding_file("north/a.wav")) == 4  # another size is noticed by a run
    path.unlink()
    with pytest.raises(ResultsError, match="gone"):
        loader.embeddings()
    assert len(run().embeddings("array")) == 15


def test_embeddings_of_older_versions_are_read_and_continued(
    run: Run, recordings: Path, tmp_path: Path, tiny_model: type[TinyModel]
) -> None:
    loader = run(run_pretrained_classifier=False)
    (loader.get_embedding_dir() / "journal.jsonl").unlink()
    (recordings / "new.wav").write_bytes((recordings / "top.wav").read_bytes())
    reader = bacpipe.Loader(recordings, "tiny", main_results_dir=tmp_path / "results")
    assert len(reader.embeddings("array")) == 15
    loader, seen = counted(tiny_model, run, run_pretrained_classifier=False)
    assert seen == 1
    assert len(loader.embeddings("array")) == 16


def test_a_second_writer_is_refused_with_the_owners_name(run: Run, tmp_path: Path) -> None:
    run()
    folder = tmp_path / "results" / "field" / "embeddings"
    with (
        exclusive(folder, "tiny"),
        pytest.raises(ResultsLockedError, match=f"process {os.getpid()}"),
    ):
        run(check_if_already_processed=False)
    run(check_if_already_processed=False)


def test_a_failed_recording_is_tried_again_and_the_journal_does_not_grow(
    run: Run, recordings: Path
) -> None:
    broken = recordings / "broken.wav"
    broken.write_bytes(b"")
    loader = run()
    journal = loader.get_embedding_dir() / "journal.jsonl"
    length = len(journal.read_text().splitlines())
    assert any("broken.wav" in line for line in journal.read_text().splitlines())
    run()
    assert len(journal.read_text().splitlines()) == length
    write_recording(broken, 2.0)
    assert "broken.wav" in run().entries


def test_nothing_embedded_is_an_error_and_leaves_readable_state(
    run: Run, recordings: Path, tmp_path: Path
) -> None:
    for path in recordings.rglob("*.*"):
        path.write_bytes(b"not audio")
    with pytest.raises(NothingEmbeddedError, match="none of 5 recordings"):
        run()
    with pytest.raises(bacpipe.BacpipeError, match="no embeddings"):
        bacpipe.Loader(recordings, "tiny", main_results_dir=tmp_path / "results").embeddings()


SLOW_RUN = """
import sys, time
from datetime import datetime
import bacpipe, bacpipe.store.embedding_set
from tests.conftest import TinyModel

class StillClock(datetime):
    # The names of folders are in the tables, and runs that are compared may begin in two minutes.
    @classmethod
    def now(cls, tz=None):
        return datetime(2026, 5, 1, 4, 30, tzinfo=tz)

bacpipe.store.embedding_set.datetime = StillClock

class Slow(TinyModel):
    def __call__(self, x):
        with open(sys.argv[3], "a") as seen:
            seen.write("x" * len(x))
        time.sleep(0.02)
        return super().__call__(x)

bacpipe.generate_embeddings(
    model_name="tiny", CustomModel=Slow, audio_dir=sys.argv[1], main_results_dir=sys.argv[2],
    device="cpu", global_batch_size=2, classifier_threshold=0.0, padding="constant",
)
"""


def tree(results: Path) -> dict[str, bytes]:
    """Content of every file that a run completes, without times of the run."""
    content = {}
    for path in sorted(results.rglob("*")):
        if path.suffix in {".npy", ".parquet", ".csv"}:
            content["/".join(path.relative_to(results).parts[-3:])] = path.read_bytes()
        assert not path.name.endswith(".bacpipe-tmp")
    for name in [name for name in content if "___" in name]:
        content[name.split("___")[1]] = content.pop(name)
    return content


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_killed_runs_end_as_if_they_had_not_been_killed(tmp_path: Path) -> None:
    folder = tmp_path / "field"
    for i in range(30):
        write_recording(folder / f"{i:02}.wav", 2.5, seed=i)
    root = Path(__file__).parents[1]

    def start(results: Path, seen: Path) -> subprocess.Popen:
        command = [sys.executable, "-c", SLOW_RUN, str(folder), str(results), str(seen)]
        return subprocess.Popen(command, cwd=root, stdout=subprocess.DEVNULL)

    whole = tmp_path / "whole"
    assert start(whole, tmp_path / "whole.txt").wait(120) == 0
    killed, seen = tmp_path / "killed", tmp_path / "killed.txt"
    kills = 0
    for target in (1, 20, 50):
        process = start(killed, seen)
        while process.poll() is None and (not seen.exists() or seen.stat().st_size < target):
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    assert kills == 3
    assert start(killed, seen).wait(120) == 0
    assert tree(killed) == tree(whole)
    # What was in flight when the process died is computed again: batches, not finished files.
    assert seen.stat().st_size <= 30 * 3 + 3 * 20
    journals = [next(path.rglob("journal.jsonl")) for path in (whole, killed)]
    names = [
        {json.loads(line).get("file") for line in journal.read_text().splitlines()}
        for journal in journals
    ]
    assert names[0] == names[1]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for children")
@pytest.mark.parametrize("remove", [False, True])
def test_ctrl_c_keeps_what_is_finished_unless_told_otherwise(tmp_path: Path, remove: bool) -> None:
    folder, results, seen = tmp_path / "field", tmp_path / "results", tmp_path / "seen.txt"
    for i in range(30):
        write_recording(folder / f"{i:02}.wav", 2.5, seed=i)
    script = SLOW_RUN.replace(
        'device="cpu"', f'device="cpu", rm_embedding_on_keyboard_interrupt={remove}'
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(folder), str(results), str(seen)],
        cwd=Path(__file__).parents[1],
        stderr=subprocess.PIPE,
        text=True,
    )
    while not seen.exists() or seen.stat().st_size < 30:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=240)
    assert "KeyboardInterrupt" in errors
    finished = {path.name for path in results.rglob("*.npy")}
    assert not list(results.rglob("*.bacpipe-tmp"))
    if remove:
        assert not finished
        assert not list(results.rglob("*.parquet"))
    else:
        assert finished
        loader = bacpipe.Loader(folder, "tiny", main_results_dir=results, padding="constant")
        assert set(loader.embeddings()) == finished


def test_every_recording_has_the_windows_its_length_asks_for(run: Run, recordings: Path) -> None:
    loader = run()
    got = {name: entry.windows for name, entry in loader.entries.items()}
    assert got == expected_windows(recordings)
