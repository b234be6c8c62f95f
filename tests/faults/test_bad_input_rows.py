"""Rows of the table of bad input that are about whole runs, beyond what other tests show."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
import yaml

import bacpipe
from bacpipe.errors import BacpipeError, SettingsError
from bacpipe.store.files import StagedFile
from tests.conftest import TinyModel, write_recording
from tests.faults.disks import contents, finished
from tests.faults.test_run_faults import failures

Run = Callable[..., bacpipe.Loader]


@pytest.fixture
def settings(recordings: Path, tmp_path: Path, tiny_model: type[TinyModel]) -> dict:
    return {
        "audio_dir": recordings,
        "models": "tiny",
        "CustomModel": tiny_model,
        "main_results_dir": tmp_path / "results",
        "device": "cpu",
        "classifier_threshold": 0.0,
        "bootstrap_samples": 0,
    }


def test_no_other_program_is_needed_to_read_audio(
    run: Run, recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*arguments: object, **keywords: object) -> None:
        raise AssertionError(f"a process was started: {arguments}")

    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(os, "posix_spawn", forbidden, raising=False)
    monkeypatch.setattr(subprocess, "Popen", forbidden)
    tone = np.sin(np.arange(24000) / 5) / 2
    names = ["x.flac", "x.mp3", "x.ogg", "x.aiff", "x.aif", "x.WAV", "x.Wav", "x.FLAC"]
    for folder, name in enumerate(names):
        path = recordings / str(folder) / name
        path.parent.mkdir()
        sf.write(path, tone, 8000, format="AIFF" if path.suffix == ".aif" else None)
    for folder, (kind, subtype) in enumerate(
        [("WAV", "PCM_24"), ("WAV", "FLOAT"), ("WAVEX", "PCM_32")]
    ):
        sf.write(recordings / f"kind{folder}.wav", tone, 8000, format=kind, subtype=subtype)
    loader = run()
    assert not failures(loader)
    assert len(loader.entries) == 5 + len(names) + 3


@pytest.mark.parametrize(
    "mistake",
    [
        {"padding": "wrapp"},
        {"device": "gpu"},
        {"dim_reduction_model": "umapp"},
        {"evaluation_task": ["probbing"]},
        {"global_batchsize": 4},
        {"devise": "cpu"},
        {"audio_dir": "nowhere"},
    ],
    ids=str,
)
def test_mistakes_are_found_before_anything_is_computed(
    settings: dict, tmp_path: Path, tiny_model: type[TinyModel], mistake: dict
) -> None:
    with pytest.raises((SettingsError, FileNotFoundError)) as caught:
        bacpipe.play(bool_save_logs=True, **{**settings, **mistake})
    assert isinstance(caught.value, BacpipeError)
    assert "\n" not in str(caught.value)
    assert tiny_model.windows_seen == 0
    assert not (tmp_path / "results").exists()


def test_a_string_is_a_list_of_one_model(
    settings: dict, recordings: Path, tmp_path: Path, tiny_model: type[TinyModel]
) -> None:
    assert list(bacpipe.play(**settings)) == ["tiny"]
    tiny_model.windows_seen = 0
    rest = {key: value for key, value in settings.items() if key not in {"models", "audio_dir"}}
    assert list(bacpipe.run_pipeline_for_models("tiny", recordings, **rest)) == ["tiny"]
    assert tiny_model.windows_seen == 0


def test_a_failure_is_told_in_the_table_and_not_in_the_exit(
    settings: dict, recordings: Path, capsys: pytest.CaptureFixture
) -> None:
    (recordings / "north" / "empty.wav").touch()
    bacpipe.play(**settings)
    printed = capsys.readouterr().out
    assert "failed                1" in printed
    assert "failed: north/empty.wav: " in printed
    assert "is empty (0 bytes)" in printed


def test_a_run_that_stops_between_embeddings_and_predictions_has_not_done_the_recording(
    run: Run, tmp_path: Path, tiny_model: type[TinyModel]
) -> None:
    commit = StagedFile.commit

    def stopping(file: StagedFile) -> None:
        if file.path.name == "b_tiny.parquet":
            raise KeyboardInterrupt
        commit(file)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StagedFile, "commit", stopping)
        with pytest.raises(KeyboardInterrupt):
            run(classifier_threshold=0.0)
    assert list((tmp_path / "results").rglob("b_tiny.npy"))
    done = finished(tmp_path / "results")
    assert "north/b.wav" not in done
    tiny_model.windows_seen = 0
    loader = run(classifier_threshold=0.0)
    assert tiny_model.windows_seen == 15 - sum(done.values())
    assert set(loader.predictions("dict")[0]) == set(loader.entries)
    durations = loader.metadata_dict["files"]["file_lengths (s)"]
    assert durations == [3.5, 2.0, 4.0, 3.5, 0.5]


def test_one_of_many_replaced_one_removed_and_two_new(
    settings: dict, recordings: Path, tiny_model: type[TinyModel]
) -> None:
    for i in range(40):
        write_recording(recordings / f"{i:02}.wav", 2.0, seed=i)
    settings |= {"dim_reduction_model": "pca"}
    bacpipe.play(**settings)
    before = bacpipe.Loader(recordings, "tiny", main_results_dir=settings["main_results_dir"])
    write_recording(recordings / "07.wav", 3.0, seed=99)
    (recordings / "08.wav").unlink()
    write_recording(recordings / "new1.wav", 1.0, seed=98)
    write_recording(recordings / "new2.wav", 1.0, seed=97)
    tiny_model.windows_seen = 0
    after = bacpipe.play(**settings)["tiny"]
    assert tiny_model.windows_seen == 3 + 1 + 1
    assert after.embeddings_state != before.embeddings_state
    assert set(after.entries) == set(before.entries) - {"08.wav"} | {"new1.wav", "new2.wav"}
    assert set(after.predictions("dataframe").audiofilename) == set(after.entries)
    table = pd.concat(
        pd.read_parquet(path) for path in after.paths.dim_reduc_parent_dir.rglob("*.parquet")
    )
    assert table.groupby("audiofilename", observed=True).size().to_dict() == {
        name: entry.windows for name, entry in after.entries.items()
    }


def test_a_second_run_does_what_it_was_asked_and_reuses_what_is_there(
    settings: dict, recordings: Path, tmp_path: Path, tiny_model: type[TinyModel]
) -> None:
    rows = [
        {"audiofilename": name, "start": s, "end": s + 1.0, "label:species": "ab"[s % 2]}
        for name, seconds in (("north/a.wav", 3), ("south/a.wav", 4), ("south/c.flac", 3))
        for s in range(seconds)
    ]
    pd.DataFrame(rows).to_csv(recordings / "annotations.csv", index=False)
    settings |= {"evaluation_task": [], "save_raven_tables": False}
    loader = bacpipe.play(**settings)["tiny"]
    assert not loader.paths.clust_path.exists()
    tiny_model.windows_seen = 0
    settings |= {"evaluation_task": ["clustering"], "min_label_occurrences": 1}
    settings |= {"clust_configs": {"kmeans": {"n_clusters": 2}}}
    bacpipe.play(**settings)
    assert json.loads((loader.paths.clust_path / "clust_results.json").read_text())
    assert tiny_model.windows_seen == 0
    bacpipe.play(bool_save_logs=True, **{**settings, "save_raven_tables": True})
    assert len(list(loader.paths.raven_path.rglob("*.txt"))) == 5
    assert tiny_model.windows_seen == 0
    saved = next(loader.paths.logs_path.glob("*_config.yaml")).read_text()
    assert yaml.safe_load(saved)["evaluation_task"] == ["clustering"]
    both = bacpipe.play(**{**settings, "models": ["tiny", "second"]})
    assert list(both) == ["tiny", "second"]
    assert tiny_model.windows_seen == 15
    bacpipe.play(**{**settings, "main_results_dir": tmp_path / "elsewhere"})
    assert tiny_model.windows_seen == 30
    assert (tmp_path / "elsewhere" / "field" / "evaluations" / "tiny" / "clustering").is_dir()


def test_a_whole_tree_can_be_moved_and_continued(
    settings: dict, tmp_path: Path, tiny_model: type[TinyModel]
) -> None:
    bacpipe.play(**settings)
    before = contents(tmp_path / "results")
    shutil.move(tmp_path / "results", tmp_path / "moved")
    tiny_model.windows_seen = 0
    bacpipe.play(**{**settings, "main_results_dir": tmp_path / "moved"})
    assert tiny_model.windows_seen == 0
    assert contents(tmp_path / "moved") == before
