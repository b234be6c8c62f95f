"""Results that version 2.0 wrote (tests/data/results_2_0) are read, verified and continued."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import bacpipe
from bacpipe.store.verification import verify_results
from tests.conftest import TinyModel, write_recording

STORED = Path(__file__).resolve().parents[1] / "data" / "results_2_0"
RECORDINGS = {"north/a.wav": (2.5, 0), "north/b.wav": (2.0, 1), "short.wav": (1.0, 2)}
GONE = {"gone.wav": (1.5, 3)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The results, and the recordings that they are of, but for one and one that is broken."""
    shutil.copytree(STORED, tmp_path / "results")
    draw(tmp_path, RECORDINGS)
    return tmp_path


def draw(folder: Path, recordings: dict[str, tuple[float, int]]) -> None:
    for name, (seconds, seed) in recordings.items():
        path = write_recording(folder / "recordings" / name, seconds, seed=seed)
        os.utime(path, ns=(1_700_000_000_000_000_000,) * 2)


def test_they_are_read(folder: Path) -> None:
    loader = bacpipe.Loader(folder / "recordings", "tiny", main_results_dir=folder / "results")
    assert {name: entry.windows for name, entry in loader.entries.items()} == {
        "north/a.wav": 3, "north/b.wav": 2, "short.wav": 1,
    }  # fmt: skip
    for name, entry in loader.entries.items():
        stored = np.load(loader.get_embedding_dir() / entry.embeddings.path)
        np.testing.assert_array_equal(loader.read_embedding_file(name), stored)
    assert loader.embeddings("array").shape == (6, 10)
    assert loader.metadata_dict["nr_embeds_total"] == 6
    assert loader.predictions_provenance["threshold"] == 0.8
    found = loader.predictions("dataframe")
    assert found["audiofilename"].tolist() == ["north/a.wav", "north/b.wav"]
    assert loader.entries["short.wav"].predictions.path is None
    assert [str(finding) for finding in verify_results(folder / "results")] == []


def test_another_card_of_the_same_names_and_sizes_does_not_get_them(
    folder: Path, tiny_model: type[TinyModel]
) -> None:
    before = {path: path.read_bytes() for path in (folder / "results").rglob("*") if path.is_file()}
    for number, name in enumerate(RECORDINGS):  # the folder that they are of is not there
        write_recording(folder / "recordings" / name, RECORDINGS[name][0], seed=10 + number)
    loader = bacpipe.generate_embeddings(
        audio_dir=folder / "recordings", model_name="tiny", CustomModel=tiny_model,
        main_results_dir=folder / "results", device="cpu",
    )  # fmt: skip
    assert loader.paths.dataset_path.name.endswith("_recordings") and tiny_model.windows_seen == 6
    assert {path: path.read_bytes() for path in before} == before


def test_they_are_continued_without_computing_anything_twice(
    folder: Path, tiny_model: type[TinyModel], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="bacpipe")

    def run() -> bacpipe.Loader:
        return bacpipe.generate_embeddings(
            audio_dir=folder / "recordings",
            model_name="tiny",
            CustomModel=tiny_model,
            main_results_dir=folder / "results",
            classifier_threshold=0.8,
            device="cpu",
        )

    before = {path: path.read_bytes() for path in folder.rglob("*.npy")}
    single = {path: path.stat().st_mtime_ns for path in folder.rglob("*_tiny.parquet")}
    states = bacpipe.Loader(folder / "recordings", "tiny", main_results_dir=folder / "results")
    loader = run()
    assert tiny_model.windows_seen == 0
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*_tiny.parquet")} == single
    assert loader.embeddings_state == states.embeddings_state
    journal = loader.get_embedding_dir() / "journal.jsonl"
    stored = next(STORED.rglob("journal.jsonl")).read_bytes().splitlines()
    taken_over = journal.read_bytes().splitlines()
    # Once, the journal learns what the recordings hold, and which code made the embeddings.
    assert taken_over[1 : len(stored)] == stored[1:]
    assert len(taken_over) == len(stored) + len(RECORDINGS) + 2
    assert json.loads(taken_over[-1])["tables"]["annotations"] == "all classes"
    assert {entry.file for entry in loader.entries.values() if entry.fingerprint} == {*RECORDINGS}
    run()
    assert journal.read_bytes().splitlines() == taken_over
    assert caplog.text.count("taken over the results of 3 recordings") == 1
    (folder / "recordings" / "broken.wav").write_bytes(b"no audio")
    draw(folder, GONE)  # its results are still there
    assert "gone.wav" in run().entries and tiny_model.windows_seen == 0
    draw(folder, {"new.wav": (1.0, 4)})
    loader = run()
    assert tiny_model.windows_seen == 1
    assert set(loader.entries) == {*RECORDINGS, *GONE, "new.wav"}
    assert {path: path.read_bytes() for path in before} == before
    assert [str(finding) for finding in verify_results(folder / "results")] == []
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    back = [line for line in lines if line.get("file") == "gone.wav"]
    assert [line.pop("status") for line in back] == ["done", "removed", "removed", "done"]
    assert sum(line.get("file") == "broken.wav" for line in lines) == 1
    assert back[0] == back[1] and back[2] == back[3] == {
        **back[0], "fingerprint": loader.entries["gone.wav"].fingerprint
    }  # fmt: skip
