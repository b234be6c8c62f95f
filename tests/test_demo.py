"""The demo data set: what is in it, and what happens to folders that hold something."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

from bacpipe.demo import make_demo
from bacpipe.errors import BacpipeError

AUDIO = {".wav", ".flac", ".ogg"}


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    return make_demo(tmp_path_factory.mktemp("demo") / "new" / "folder")


@pytest.fixture(scope="module")
def annotations(demo) -> pd.DataFrame:
    return pd.read_csv(demo / "annotations.csv")


@pytest.fixture
def copy(demo, tmp_path) -> Path:
    return Path(shutil.copytree(demo, tmp_path / "copy"))


def recordings(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in AUDIO)


def state(folder: Path) -> dict[Path, tuple[int, bytes]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_recordings_are_several_minutes_in_sub_folders_and_formats(demo):
    files = recordings(demo)
    infos = [sf.info(path) for path in files]
    assert {info.samplerate for info in infos} == {48_000}
    assert {info.channels for info in infos} == {1, 2}
    assert {path.suffix for path in files} == AUDIO
    assert len({path.parent for path in files}) == 3
    assert 6 * 60 < sum(info.duration for info in infos) < 8 * 60
    assert sum(path.stat().st_size for path in demo.rglob("*") if path.is_file()) < 60e6


def test_names_tell_date_and_time(demo):
    names = [path.relative_to(demo).as_posix() for path in recordings(demo)]
    assert all(re.fullmatch(r"SITE-[A-C]/2025\d{4}_\d{6}\.\w+", name) for name in names)
    assert len({Path(name).stem.split("_")[1] for name in names}) == 4


def test_recordings_neither_clip_nor_are_silent(demo):
    for path in recordings(demo):
        samples, _ = sf.read(path, always_2d=True)
        assert 0.02 < np.abs(samples).max() < 0.98
        # Digital silence is never natural, not even between calls.
        seconds = samples[: len(samples) // 48_000 * 48_000].reshape(-1, 48_000, samples.shape[1])
        assert seconds.std(axis=1).min() > 1e-4


def test_annotations_fit_the_recordings(demo, annotations):
    assert list(annotations.columns) == [
        "audiofilename",
        "start",
        "end",
        "label:species",
        "label:call_type",
    ]
    named = {path.relative_to(demo).as_posix() for path in recordings(demo)}
    assert set(annotations.audiofilename) == named
    duration = annotations.audiofilename.map(lambda name: sf.info(demo / name).duration)
    assert (annotations.start >= 0).all()
    assert (annotations.end - annotations.start > 0.5).all()
    assert (annotations.end <= duration).all()
    lines = (demo / "annotations.csv").read_text().splitlines()[1:]
    assert all(re.match(r"[^,]+,\d+\.\d\d,\d+\.\d\d,synthetic ", line) for line in lines)


def test_there_is_enough_to_learn_from(annotations):
    species = annotations.groupby("label:species")
    assert len(species) >= 5
    assert species.size().min() >= 10
    assert species.audiofilename.nunique().min() >= 6


def test_some_annotations_overlap(annotations):
    overlaps = 0
    for _, calls in annotations.sort_values("start").groupby("audiofilename"):
        overlaps += int((calls.start.to_numpy()[1:] < calls.end.to_numpy()[:-1]).sum())
    assert 3 <= overlaps < len(annotations) / 2


def test_calls_are_heard_where_they_are_annotated(demo, annotations):
    """Tonal peaks stand out of the spectrum inside annotations and not between them."""

    def peak_over_neighbours(samples: np.ndarray) -> float:
        usable = samples[: len(samples) // 2048 * 2048].reshape(-1, 2048)
        power = (np.abs(np.fft.rfft(usable * np.hanning(2048), axis=1)) ** 2).mean(axis=0)
        audible = power[15:430]  # 350 Hz to 10 kHz
        neighbours = np.median(np.lib.stride_tricks.sliding_window_view(audible, 61), axis=1)
        return float((audible[30:-30] / neighbours).max())

    inside, between = [], []
    for name, calls in annotations.groupby("audiofilename"):
        samples = sf.read(demo / name, always_2d=True)[0].mean(axis=1)
        silent = np.ones(len(samples), dtype=bool)
        for call in calls.itertuples():
            span = slice(int(call.start * 48_000), int(call.end * 48_000))
            silent[span] = False
            inside.append(peak_over_neighbours(samples[span]))
        between.append(peak_over_neighbours(samples[silent]))
    assert np.median(inside) > 20
    assert np.mean(np.array(inside) > max(between)) > 0.8


def test_readme_says_that_nothing_is_real(demo):
    assert "synthetic" in (demo / "README.txt").read_text()


def test_it_is_the_same_every_time(demo, tmp_path):
    again = make_demo(str(tmp_path / "again"))
    assert [p.relative_to(again) for p in recordings(again)] == [
        p.relative_to(demo) for p in recordings(demo)
    ]
    for first, second in zip(recordings(demo), recordings(again), strict=True):
        # Samples, because an Ogg stream has a random serial number.
        np.testing.assert_array_equal(sf.read(first)[0], sf.read(second)[0])
    for name in ("annotations.csv", "README.txt"):
        assert (demo / name).read_bytes() == (again / name).read_bytes()


def test_a_complete_folder_is_left_alone(copy):
    (copy / "annotations.csv").write_text("edited by the user")
    (copy / "bacpipe_results").mkdir()
    before = state(copy)
    assert make_demo(copy) == copy
    assert state(copy) == before


def test_an_interrupted_demo_is_finished(copy, demo):
    (copy / "annotations.csv").unlink()
    lost, *kept = recordings(copy)
    lost.unlink()
    before = {path: path.stat().st_mtime_ns for path in kept}
    make_demo(copy)
    np.testing.assert_array_equal(sf.read(lost)[0], sf.read(demo / lost.relative_to(copy))[0])
    assert (copy / "annotations.csv").read_bytes() == (demo / "annotations.csv").read_bytes()
    assert {path: path.stat().st_mtime_ns for path in kept} == before


def test_annotations_come_last(tmp_path, monkeypatch):
    """A run that dies on a recording leaves whole files and no annotations."""

    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sf.SoundFile, "write", full_disk)
    with pytest.raises(BacpipeError, match="No space left on device"):
        make_demo(tmp_path / "demo")
    files = [path.name for path in (tmp_path / "demo").rglob("*") if path.is_file()]
    assert files == ["README.txt"]


def test_hidden_files_do_not_matter(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / ".DS_Store").write_bytes(b"")
    assert (make_demo(tmp_path / "other") / "annotations.csv").is_file()


@pytest.mark.parametrize("name", ["song.wav", "README.txt", "annotations.csv"])
def test_a_folder_with_other_files_is_refused(name, tmp_path):
    (tmp_path / name).write_text("mine")
    before = state(tmp_path)
    with pytest.raises(BacpipeError, match=r"holds other files.*empty") as error:
        make_demo(tmp_path)
    assert str(tmp_path) in str(error.value)
    assert state(tmp_path) == before


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    path = tmp_path / "demo"
    path.write_text("mine")
    with pytest.raises(BacpipeError, match="cannot be written here"):
        make_demo(path)
    assert path.read_text() == "mine"
