"""What later runs keep when recordings, settings, annotations or the disk have changed."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import bacpipe
from bacpipe.errors import ResultsError, ResultsLockedError
from bacpipe.exports import raven
from bacpipe.inference.run_data_set import tables_are_complete
from bacpipe.models.zoo import CARDS
from bacpipe.reduction.reduce_data_set import has_current_map, reduce_data_set
from bacpipe.store.entries import FinishedEntry
from bacpipe.store.files import TEMPORARY, write_json
from bacpipe.store.journal import Journal, read_journals
from bacpipe.store.layout import DATA_SET, result_stems
from bacpipe.store.maps import stored_maps
from bacpipe.store.verification import verify_results
from bacpipe.store.writer import ResultWriter
from tests.conftest import TinyModel, write_recording

Run = Callable[..., bacpipe.Loader]
ALL = {"classifier_threshold": 0.0}


def seen(model: type[TinyModel], run: Run, **settings: Any) -> tuple[bacpipe.Loader, int]:
    """Loader of a run, and the number of windows that the model computed in it."""
    before = model.windows_seen
    loader = run(**settings)
    return loader, model.windows_seen - before


def interrupted(model: type[TinyModel], after: int) -> type[TinyModel]:
    """The same model, but for a Ctrl-C while it computes its windows after a number of these."""

    class Interrupted(model):  # type: ignore[misc, valid-type]
        windows_seen = 0

        def __call__(self, x: Any) -> Any:
            if type(self).windows_seen >= after:
                raise KeyboardInterrupt
            return super().__call__(x)

    # Who the model is must not change.
    Interrupted.__qualname__, Interrupted.__module__ = model.__qualname__, model.__module__
    return Interrupted


def interrupt(run: Run, model: type[TinyModel], after: int, **settings: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(CustomModel=interrupted(model, after), global_batch_size=1, **settings)


def content(loader: bacpipe.Loader) -> dict[str, np.ndarray]:
    return {name: loader.read_embedding_file(name) for name in loader.entries}


# ---------------------------------------------------------------------- recordings


def test_a_renamed_recording_keeps_its_results_under_its_new_name(
    run: Run, recordings: Path, tiny_model: type[TinyModel]
) -> None:
    old = run().read_embedding_file("north/a.wav")
    (recordings / "north" / "a.wav").rename(recordings / "south" / "moved.wav")
    loader, windows = seen(tiny_model, run)
    assert windows == 0
    assert "north/a.wav" not in loader.entries
    np.testing.assert_array_equal(loader.read_embedding_file("south/moved.wav"), old)


def test_a_recording_of_the_same_size_and_another_time_is_another_one(
    run: Run, recordings: Path, tiny_model: type[TinyModel]
) -> None:
    path = recordings / "north" / "a.wav"
    old, size = run().read_embedding_file("north/a.wav"), path.stat().st_size
    write_recording(path, 3.5, seed=99)
    os.utime(path, ns=(1, 1))
    assert path.stat().st_size == size
    loader, windows = seen(tiny_model, run)
    assert windows == 4
    assert not np.array_equal(loader.read_embedding_file("north/a.wav"), old)


def test_results_that_change_their_owner_are_not_given_back(
    run: Run, recordings: Path, tiny_model: type[TinyModel]
) -> None:
    """a.wav and a.flac have the same result file, as long as only one of them is there."""
    wav, flac = recordings / "north" / "a.wav", recordings / "north" / "a.flac"
    without = {"run_pretrained_classifier": False}
    good = content(run(**without))["north/a.wav"]
    aside = shutil.copy2(wav, recordings.parent / "a.wav")
    wav.unlink()
    write_recording(flac, 3.5, seed=77)
    other = content(run(**without))["north/a.flac"]
    assert other.shape == good.shape
    flac.unlink()
    shutil.copy2(aside, wav)
    loader, windows = seen(tiny_model, run, **without)
    assert windows == 4
    np.testing.assert_array_equal(loader.read_embedding_file("north/a.wav"), good)
    assert verify_results(loader.paths.main_results_dir) == []


def test_a_kill_between_a_file_and_its_line_does_not_mix_two_recordings(
    run: Run, recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = recordings / "north" / "a.wav"
    good = run().read_embedding_file("north/a.wav")
    aside = shutil.copy2(path, recordings.parent / "a.wav")
    write_recording(path, 3.5, seed=99)

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ResultWriter, "_commit_predictions", killed)
        with pytest.raises(KeyboardInterrupt):
            run()
    shutil.copy2(aside, path)  # the recording is again what the journal's old line knows
    np.testing.assert_array_equal(run().read_embedding_file("north/a.wav"), good)


def test_a_kill_after_taking_over_the_predictions_does_not_mix_two_sets(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Both sets have files of the same names and sizes."""
    edge = {**ALL, "padding": "edge"}
    expected = run(main_results_dir=tmp_path / "whole", **edge).predictions("array")[0]
    first = run(**ALL)
    own = first.predictions("array")[0]
    commit = ResultWriter._commit_predictions
    done: list[str] = []

    def killed(self: ResultWriter, entry: FinishedEntry, *rest: Any) -> FinishedEntry:
        if done:
            raise KeyboardInterrupt
        done.append(entry.file)
        return commit(self, entry, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(ResultWriter, "_commit_predictions", killed)
        with pytest.raises(KeyboardInterrupt):
            run(**edge)
    loader = run(**edge)
    np.testing.assert_array_equal(loader.predictions("array")[0], expected)
    np.testing.assert_array_equal(first.predictions("array")[0], own)
    shutil.rmtree(loader.paths.preds_path / "raven_tables", ignore_errors=True)
    assert [str(f) for f in verify_results(loader.paths.main_results_dir)] == []


def test_predictions_of_a_higher_threshold_are_those_that_are_there(run: Run) -> None:
    loader = run(**ALL)
    files = set(loader.paths.sparse_predictions_path.rglob("*.parquet"))
    assert len(run(classifier_threshold=1.0).predictions("dataframe")) == 0
    assert set(loader.paths.sparse_predictions_path.rglob("*.parquet")) == files != set()
    assert verify_results(loader.paths.main_results_dir) == []


# ---------------------------------------------------------------------- settings


class Checkpointed(TinyModel):
    """Has weights in a file, as the models of the zoo do."""

    def __init__(self, path: Path) -> None:
        super().__init__(files={"weights.bin": path})
        self.card = dataclasses.replace(
            CARDS["birdnet"], name="tiny", sample_rate=8000, window=8000, files=("weights.bin",)
        )


def test_another_checkpoint_starts_a_new_set_and_says_so(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights = tmp_path / "weights.bin"
    weights.write_bytes(b"old")
    first = run(CustomModel=Checkpointed(weights), model_base_path=tmp_path)
    assert run(CustomModel=Checkpointed(weights), model_base_path=tmp_path).embed_dir == (
        first.embed_dir
    )
    weights.write_bytes(b"new")
    with caplog.at_level(logging.INFO, logger="bacpipe"):
        second = run(CustomModel=Checkpointed(weights), model_base_path=tmp_path)
    assert second.embed_dir != first.embed_dir
    assert "starting a new set of embeddings (checkpoint=" in caplog.text


def test_annotated_segments_are_a_set_of_their_own(run: Run, recordings: Path) -> None:
    (recordings / "annotations.csv").write_text(
        "audiofilename,start,end,label:species\nnorth/a.wav,0.5,2,warbler\n"
    )
    assert run().embed_dir != run(only_embed_annotations=True).embed_dir


@pytest.mark.parametrize(
    "changed",
    [
        {"device": "auto"},
        {"save_raven_tables": True, "event_gap": 1.0},
        {"rm_embedding_on_keyboard_interrupt": True},
        {"classifier_threshold": 0.9, "max_predictions_per_window": 1},
        {"run_pretrained_classifier": False},
        {"evaluation_seed": 7, "reduction_seed": 7},
        {"global_batch_size": 3, "nr_parallel_workers": 2},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_settings_that_do_not_change_embeddings_keep_them(
    run: Run, tiny_model: type[TinyModel], changed: dict
) -> None:
    first = run()
    second, windows = seen(tiny_model, run, **changed)
    assert (second.embed_dir, windows) == (first.embed_dir, 0)


def test_tables_of_a_killed_run_are_written_again(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some tables are new then, others missing, and all are newer than the journal."""
    write = raven.write_text
    calls: list[Path] = []

    def killed(path: Path, text: str) -> None:
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(path)
        write(path, text)

    with monkeypatch.context() as patch:
        patch.setattr(raven, "write_text", killed)
        with pytest.raises(KeyboardInterrupt):
            run(save_raven_tables=True, **ALL)
    settings = {"save_raven_tables": True, **ALL}
    loader = run(**settings)
    assert len(list(loader.paths.raven_path.rglob("*.txt"))) == 5
    assert tables_are_complete(loader, predict=True)
    loader.embedding_set.content.tables = None  # as it was when the run was killed
    assert not tables_are_complete(loader, predict=True)
    other = run(event_gap=2.0, **settings)
    assert tables_are_complete(other, predict=True)
    other.options = loader.options
    assert not tables_are_complete(other, predict=True)


# ---------------------------------------------------------------------- annotations


def annotate(recordings: Path, *rows: str) -> None:
    lines = ["audiofilename,start,end,label:species", *rows]
    (recordings / "annotations.csv").write_text("\n".join(lines) + "\n")


def test_an_interrupted_run_over_annotations_goes_on(
    run: Run, recordings: Path, tmp_path: Path, tiny_model: type[TinyModel]
) -> None:
    annotate(
        recordings, "north/a.wav,0.5,2,warbler", "north/b.wav,0,2,frog", "south/a.wav,1,4,frog"
    )
    only = {"only_embed_annotations": True, "avoid_pipelined_gpu_inference": True}
    whole, windows = seen(tiny_model, run, main_results_dir=tmp_path / "whole", **only)
    interrupt(run, tiny_model, 4, **only)
    loader, rest = seen(tiny_model, run, **only)
    assert (windows, rest) == (7, 3)
    assert content(loader).keys() == content(whole).keys()
    for name, embeddings in content(whole).items():
        np.testing.assert_allclose(content(loader)[name], embeddings, rtol=1e-6)
        np.testing.assert_array_equal(loader.window_times(name), whole.window_times(name))


def test_annotations_that_change_meanwhile_count_as_they_are_now(
    run: Run, recordings: Path, tiny_model: type[TinyModel]
) -> None:
    annotate(recordings, "north/a.wav,0.5,2,wren", "north/b.wav,0,2,frog", "south/c.flac,0,1,frog")
    only = {"only_embed_annotations": True, "avoid_pipelined_gpu_inference": True}
    interrupt(run, tiny_model, 4, **only)
    # One annotation stays, one moves, one is new, one is gone.
    annotate(recordings, "north/a.wav,0.5,2,wren", "north/b.wav,1,2,frog", "south/a.wav,0,1,frog")
    loader, windows = seen(tiny_model, run, **only)
    assert windows == 2
    assert list(loader.entries) == ["north/a.wav", "north/b.wav", "south/a.wav"]
    np.testing.assert_array_equal(loader.window_times("north/b.wav")[0], [1.0])


# ---------------------------------------------------------------------- other versions


def without_journal(loader: bacpipe.Loader, *, ours: bool) -> Path:
    folder = loader.get_embedding_dir()
    (folder / "journal.jsonl").unlink()
    metadata = folder / "metadata.yml"
    text = metadata.read_text()
    metadata.write_text(text if ours else text[: text.index("bacpipe:")])
    return folder


def test_adopted_embeddings_are_computed_again_when_their_recording_changes(
    run: Run, recordings: Path, tiny_model: type[TinyModel]
) -> None:
    without_journal(run(run_pretrained_classifier=False), ours=False)
    assert seen(tiny_model, run, run_pretrained_classifier=False)[1] == 0
    write_recording(recordings / "top.wav", 0.5, seed=50)
    assert seen(tiny_model, run, run_pretrained_classifier=False)[1] == 1


def test_one_file_for_two_recordings_of_an_older_version_belongs_to_none(
    run: Run, recordings: Path, tiny_model: type[TinyModel]
) -> None:
    folder = without_journal(run(run_pretrained_classifier=False), ours=False)
    write_recording(recordings / "top.flac", 0.5, seed=50)
    metadata = folder / "metadata.yml"
    for old, new in {
        "  - top.wav\n": "  - top.wav\n  - top.flac\n",
        "  - 0.5\n": "  - 0.5\n  - 0.5\n",
        "  - 1\n": "  - 1\n  - 1\n",
    }.items():
        assert old in metadata.read_text()
        metadata.write_text(metadata.read_text().replace(old, new))
    loader, windows = seen(tiny_model, run, run_pretrained_classifier=False)
    assert windows == 2
    assert loader.embed_dir == folder
    paths = [entry.embeddings.path for entry in loader.entries.values()]
    assert len(set(paths)) == len(paths) == 6


@pytest.mark.parametrize(("ours", "settings"), [(False, {"padding": "edge"}), (True, {"hop": 0.5})])
def test_embeddings_without_a_journal_are_not_taken_for_others(
    run: Run, ours: bool, settings: dict
) -> None:
    without = {"run_pretrained_classifier": False}
    folder = without_journal(run(**without, hop=0.5) if ours else run(**without), ours=ours)
    loader = run(**without, **({} if ours else settings))
    assert loader.embed_dir != folder
    if ours:
        assert run(**without, **settings).embed_dir == folder


def test_metadata_that_cannot_be_read_are_refused_with_a_sentence(run: Run) -> None:
    folder = without_journal(run(), ours=False)
    (folder / "metadata.yml").write_text("model_name: tiny\nfiles: none\n")
    with pytest.raises(ResultsError, match=r"metadata\.yml.*Move the folder away"):
        run()


@pytest.mark.parametrize("name", ["journal.jsonl", "journal-node7.jsonl"])
def test_journals_of_a_newer_version_are_refused_with_a_sentence(run: Run, name: str) -> None:
    folder = run().get_embedding_dir()
    lines = (folder / "journal.jsonl").read_text().splitlines()
    header = json.dumps({**json.loads(lines[0]), "format": 2})
    (folder / name).write_text("\n".join([header, *lines[1:]]) + "\n")
    with pytest.raises(ResultsError, match=r"newer bacpipe.*update bacpipe"):
        run()


# ---------------------------------------------------------------------- several processes

HOLD = """
import sys, time
from pathlib import Path
from bacpipe.store.lock import exclusive
with exclusive(Path(sys.argv[1]), "tiny"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_another_process_is_named_and_its_lock_ends_with_it(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "results" / "field" / "embeddings"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(ResultsLockedError, match=f"process {process.pid} of"):
            run()
    finally:
        process.kill()
        process.wait()
    assert (folder / ".tiny.lock-owner").is_file()  # stale, and in nobody's way
    assert len(run().entries) == 5
    assert not (folder / ".tiny.lock-owner").exists()


def test_two_writers_of_one_file_do_not_write_into_each_others(tmp_path: Path) -> None:
    path = tmp_path / "ranking.json"
    texts = [letter * 200_000 for letter in "abcd"]

    def write(text: str) -> None:
        for _ in range(5):
            write_json(path, text)

    threads = [threading.Thread(target=write, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if path.exists():
            assert json.loads(path.read_text()) in texts
    assert list(tmp_path.iterdir()) == [path]


def parts(recordings: Path, tmp_path: Path, run: Run, **settings: Any) -> list[bacpipe.Loader]:
    """Loaders of two machines, each of which has embedded some of the recordings."""
    loaders = []
    for machine, kept in enumerate(("north", "south")):
        audio = tmp_path / f"machine{machine}" / "field"
        shutil.copytree(recordings / kept, audio / kept)  # with the times of the files
        results = tmp_path / f"machine{machine}" / "results"
        own = settings if machine else {}
        loaders.append(run(audio_dir=audio, main_results_dir=results, **{**ALL, **own}))
        shutil.rmtree(audio)  # which only that machine has
    return loaders


def merge(one: bacpipe.Loader, other: bacpipe.Loader) -> None:
    """Copy the files of one machine to those of another, as a person would."""
    source, target = other.get_embedding_dir(), one.get_embedding_dir()
    shutil.copytree(source / "south", target / "south")
    shutil.copy2(source / "journal.jsonl", target / "journal-machine1.jsonl")
    sparse = "sparse_predictions_path"
    shutil.copytree(getattr(other.paths, sparse) / "south", getattr(one.paths, sparse) / "south")


def test_disjoint_parts_of_two_machines_merge_by_their_journals(
    run: Run, recordings: Path, tmp_path: Path, tiny_model: type[TinyModel]
) -> None:
    (recordings / "top.wav").unlink()
    whole = run(main_results_dir=tmp_path / "whole", **ALL)
    one, other = parts(recordings, tmp_path, run)
    merge(one, other)
    results = one.paths.main_results_dir
    loader, windows = seen(tiny_model, run, main_results_dir=results, **ALL)
    assert windows == 0
    assert loader.embed_dir == one.embed_dir
    assert content(loader).keys() == content(whole).keys()
    np.testing.assert_array_equal(loader.embeddings("array"), whole.embeddings("array"))
    np.testing.assert_array_equal(loader.predictions("array")[0], whole.predictions("array")[0])
    assert verify_results(results) == []


def test_parts_that_were_computed_with_other_settings_do_not_merge(
    run: Run, recordings: Path, tmp_path: Path
) -> None:
    one, other = parts(recordings, tmp_path, run, padding="constant")
    merge(one, other)
    with pytest.raises(ResultsError, match=r"journal.*describes other embeddings"):
        run(main_results_dir=one.paths.main_results_dir)


def test_half_a_line_of_a_kill_is_taken_away_but_a_whole_one_stays(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    lines = ['{"format": 1, "identity": {}}', '{"file": "a.wav", "status": "failed"}']
    for tail, expected in (('\n{"file": "b', 1), ("", 1), ('\n{"file": "b', 1)):
        path.write_text("\n".join(lines) + tail)
        Journal(tmp_path).close()
        assert path.read_text() == "\n".join(lines) + "\n"
        assert len(read_journals(tmp_path).recordings) == expected


# ---------------------------------------------------------------------- later steps


def test_later_steps_follow_the_recordings(
    run: Run, recordings: Path, tiny_model: type[TinyModel], tmp_path: Path
) -> None:
    settings: dict[str, Any] = {
        "audio_dir": recordings,
        "main_results_dir": tmp_path / "results",
        "models": ["tiny"],
        "CustomModel": tiny_model,
        "device": "cpu",
        "dim_reduction_model": "pca",
        "evaluation_task": ["clustering"],
        "clust_configs": {"kmeans": {"n_clusters": 2}},
        "dashboard": False,
    }

    def counts() -> tuple[int, int, int]:
        paths = loader.paths
        newest = next(stored_maps(paths.dim_reduc_parent_dir, "pca", "field", "tiny"))
        labels = pd.read_parquet(paths.labels_path / "default_labels.parquet")
        clusters = pd.read_parquet(paths.clust_path / "clust_labels.parquet")
        return len(newest.read()), len(labels), len(clusters)

    loader = bacpipe.play(**settings)["tiny"]
    assert counts() == (15, 15, 15)
    result = loader.paths.clust_path / "clust_results.json"
    before = result.stat().st_mtime_ns
    loader = bacpipe.play(**settings)["tiny"]
    assert result.stat().st_mtime_ns == before
    write_recording(recordings / "new.wav", 2.0, seed=9)
    (recordings / "north" / "b.wav").unlink()
    write_recording(recordings / "top.wav", 1.5, seed=10)
    loader = run()
    assert not has_current_map(loader, "pca", loader.options)
    loader = bacpipe.play(**settings)["tiny"]
    assert counts() == (16, 16, 16)
    assert result.stat().st_mtime_ns != before


def test_a_map_and_a_set_that_were_never_completed_go_away(run: Run) -> None:
    loader = run()
    reduce_data_set(loader, "pca", loader.options)
    embeddings, maps = loader.paths.main_embeds_path, loader.paths.dim_reduc_parent_dir
    for folder in (
        embeddings / "2020-01-01_00-00___tiny-field",
        maps / "2020-01-01_00-00___pca-field-tiny",
    ):
        folder.mkdir()
        (folder / f".x{TEMPORARY}").write_bytes(b"half")
    (maps / "2020-01-01_00-00___pca-field-tiny" / "reducer.safetensors").write_bytes(b"")
    notes = embeddings / "2020-01-01_00-01___tiny-field" / "notes.txt"
    notes.parent.mkdir()
    notes.write_text("mine")
    loader = run()
    reduce_data_set(loader, "pca", loader.options)
    assert len(list(maps.glob("2*"))) == 1
    assert len(list(embeddings.glob("2*"))) == 2
    assert notes.is_file()


def test_nothing_stays_of_writes_that_were_killed(run: Run, recordings: Path) -> None:
    (recordings / "sites.csv").write_text("site,latitude,longitude\nnorth,48,11\nsouth,49,12\n")
    results = run(save_raven_tables=True).paths.dataset_path
    files = [p for p in results.rglob("*") if p.is_file() and p.suffix != ".lock"]
    assert {"README.txt", DATA_SET, "sites.csv", "journal.jsonl"} <= {p.name for p in files}
    for path in files:
        path.with_name(f".{path.name}.0123abcd{TEMPORARY}").write_bytes(b"half")
    for name in ("README.txt", DATA_SET, "places/sites.csv"):
        (results / name).unlink()
    write_recording(recordings / "north" / "new.wav", 2.0, seed=5)
    run(save_raven_tables=True)
    assert not list(results.rglob(f"*{TEMPORARY}"))


# ---------------------------------------------------------------------- Ctrl-C


def test_ctrl_c_removes_only_what_the_run_made_if_it_is_told_to(
    run: Run, recordings: Path, tiny_model: type[TinyModel]
) -> None:
    once = {"avoid_pipelined_gpu_inference": True, **ALL}
    first = run(**once)
    before = {p: p.read_bytes() for p in first.paths.main_results_dir.rglob("*") if p.is_file()}
    journal = first.get_embedding_dir() / "journal.jsonl"
    for number in range(4):
        write_recording(recordings / "zoo" / f"{number}.wav", 2.0, seed=number)
    interrupt(run, tiny_model, 5, rm_embedding_on_keyboard_interrupt=True, **once)
    after = {p: p.read_bytes() for p in first.paths.main_results_dir.rglob("*") if p.is_file()}
    assert after.pop(journal).startswith(before.pop(journal))
    assert after == before
    reader = bacpipe.Loader(recordings, "tiny", main_results_dir=first.paths.main_results_dir)
    assert len(reader.embeddings("array")) == len(reader.predictions("array")[0]) == 15
    loader, windows = seen(tiny_model, run, **once)
    assert (windows, len(loader.entries)) == (8, 9)


def test_ctrl_c_spares_the_results_of_recordings_that_are_away(
    run: Run, recordings: Path, tiny_model: type[TinyModel]
) -> None:
    """Another disk is mounted: everything that is done by now is of the run that is interrupted."""
    once = {"avoid_pipelined_gpu_inference": True, **ALL}
    run(**once)
    away = shutil.move(recordings, recordings.with_name("away"))
    for number in range(4):
        write_recording(recordings / f"{number}.wav", 2.0, seed=number)
    interrupt(run, tiny_model, 5, rm_embedding_on_keyboard_interrupt=True, **once)
    shutil.rmtree(recordings)
    shutil.move(away, recordings)
    loader, windows = seen(tiny_model, run, **once)
    assert (windows, len(loader.entries)) == (0, 5)


def test_ctrl_c_in_the_first_run_leaves_nothing_if_it_is_told_to(
    run: Run, tiny_model: type[TinyModel], tmp_path: Path
) -> None:
    once = {"avoid_pipelined_gpu_inference": True, **ALL}
    interrupt(run, tiny_model, 9, rm_embedding_on_keyboard_interrupt=True, **once)
    field = tmp_path / "results" / "field"
    assert not list(field.rglob("*.npy")) + list(field.rglob("*.parquet"))
    assert not list((field / "embeddings").glob("2*"))
    assert seen(tiny_model, run, **once)[1] == 15


def test_ctrl_c_before_the_first_recording_leaves_nothing(
    run: Run, tiny_model: type[TinyModel], tmp_path: Path
) -> None:
    interrupt(run, tiny_model, 0, **ALL)
    assert not [*(tmp_path / "results").rglob("source.json")]
    assert not [*(tmp_path / "results").rglob("2*___tiny-field")]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one's own process")
@pytest.mark.parametrize("remove", [False, True])
def test_ctrl_c_again_while_the_last_results_are_written_waits_for_them(
    run: Run,
    tiny_model: type[TinyModel],
    tmp_path: Path,
    remove: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    finish, work, at_work = ResultWriter._finish_writing, ResultWriter._work, threading.Event()

    def slowly(writer: ResultWriter) -> None:
        at_work.set()
        time.sleep(0.3)
        work(writer)
        at_work.clear()

    def pressed_again(writer: ResultWriter) -> None:
        def press() -> None:
            if at_work.wait(1):
                os.kill(os.getpid(), signal.SIGINT)

        presser = threading.Thread(target=press)
        presser.start()
        try:
            finish(writer)
        finally:
            presser.join()
            assert not at_work.is_set()

    monkeypatch.setattr(ResultWriter, "_work", slowly)
    monkeypatch.setattr(ResultWriter, "_finish_writing", pressed_again)
    interrupt(run, tiny_model, 9, rm_embedding_on_keyboard_interrupt=remove, **ALL)
    monkeypatch.undo()
    results = tmp_path / "results"
    assert bool([*results.rglob("*.npy")]) != remove
    assert len(run(**ALL).entries) == 5
    assert verify_results(results) == []


COMMAND = """
import functools, sys, time
import bacpipe.workflows
from bacpipe.__main__ import main
from tests.conftest import TinyModel

class Slow(TinyModel):
    def __call__(self, x):
        end = time.monotonic() + 0.2
        while time.monotonic() < end:  # and not asleep: PyTorch is who cannot be left alone
            embeddings = super().__call__(x)
        return embeddings

bacpipe.workflows.play = functools.partial(bacpipe.workflows.play, CustomModel=Slow)
sys.argv[1:] = [f"audio_dir={sys.argv[1]}", f"main_results_dir={sys.argv[2]}", "models=[tiny]",
                "device=cpu", "global_batch_size=1", "dashboard=false", "evaluation_task=[]",
                "dim_reduction_model=None"]
sys.exit(main())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for children")
@pytest.mark.parametrize("times", [1, 2, 5])
def test_ctrl_c_once_and_more_often_says_how_to_go_on_and_ends_with_130(
    tmp_path: Path, tiny_model: type[TinyModel], times: int
) -> None:
    folder, results = tmp_path / "field", tmp_path / "results"
    for number in range(40):
        write_recording(folder / f"{number:02}.wav", 2.5, seed=number)
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(folder), str(results)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and len(list(results.rglob("*.npy"))) < 3:
        time.sleep(0.005)
    for _ in range(times):
        process.send_signal(signal.SIGINT)
        time.sleep(0.02)
    _, errors = process.communicate(timeout=120)
    # Another Ctrl-C may find the process at its end: the system ends it, which a shell shows as
    # 130, too.
    assert process.returncode == 130 or (times > 1 and process.returncode == -signal.SIGINT), errors
    assert "To go on, run the same command again" in errors
    if times == 1:
        assert "Traceback" not in errors
        assert "of 40 recordings are done" in errors
    before = {path: path.stat().st_mtime_ns for path in results.rglob("*.npy")}
    assert 3 <= len(before) < 40
    done = read_journals(next(results.rglob("journal.jsonl")).parent).done
    loader = bacpipe.generate_embeddings(
        model_name="tiny", CustomModel=renamed(tiny_model), audio_dir=folder,
        main_results_dir=results, device="cpu",
    )  # fmt: skip
    assert len(loader.entries) == 40
    kept = {f"{stem}_tiny.npy" for stem in result_stems(done).values()}
    for path, moment in before.items():
        if path.name in kept:
            assert path.stat().st_mtime_ns == moment
    assert verify_results(results) == []


def renamed(model: type[TinyModel]) -> type[TinyModel]:
    """The model under the name that it has in `COMMAND`, by which its results know it."""
    model.__module__, model.__qualname__ = "__main__", "Slow"
    return model
