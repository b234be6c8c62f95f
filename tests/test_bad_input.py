"""What broken recordings get: a row among the failures, and the run goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

import bacpipe
from bacpipe.errors import AnnotationsError
from tests.conftest import write_recording

Run = Callable[..., bacpipe.Loader]


def failures(loader: bacpipe.Loader) -> dict[str, str]:
    journal = loader.get_embedding_dir() / "journal.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    return {line["file"]: line["reason"] for line in lines if line.get("status") == "failed"}


def zero_bytes(path: Path) -> None:
    path.write_bytes(b"")


def header_only(path: Path) -> None:
    sf.write(path, np.zeros(0), 8000)


def text(path: Path) -> None:
    path.write_text("time,species\n12:00,robin\n")


def directory(path: Path) -> None:
    path.mkdir()


def dangling_link(path: Path) -> None:
    path.symlink_to(path.parent / "gone.wav")


def truncated(path: Path) -> None:
    write_recording(path, 4.0)
    path.write_bytes(path.read_bytes()[: 44 + 2 * 8000 * 2])


def not_a_number(path: Path) -> None:
    samples = np.zeros(16000, np.float32)
    samples[9000] = np.nan
    sf.write(path, samples, 8000, subtype="FLOAT")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (zero_bytes, "empty"),
        (header_only, "sample"),
        (text, "not"),
        (directory, "folder"),
        (dangling_link, "link"),
        (truncated, "ends after 2.00 of 4.00 seconds"),
        (not_a_number, "1.1"),
    ],
)
def test_a_broken_recording_is_a_failure_with_a_reason(
    run: Run, recordings: Path, damage: Callable[[Path], None], reason: str
) -> None:
    damage(recordings / "north" / "x.wav")
    loader = run()
    found = failures(loader)
    assert list(found) == ["north/x.wav"]
    assert "x.wav" in found["north/x.wav"]
    assert reason in found["north/x.wav"]
    assert len(loader.entries) == 5
    assert len(loader.embeddings("array")) == 15
    assert not list(loader.get_embedding_dir().rglob("x_tiny.npy"))


def test_the_readable_part_is_used_only_if_the_setting_says_so(run: Run, recordings: Path) -> None:
    truncated(recordings / "x.wav")
    assert "x.wav" not in run().entries
    entry = run(allow_truncated=True).entries["x.wav"]
    assert entry.windows == 2
    assert entry.truncated == entry.duration == 2.0
    assert "x.wav" in failures(run())


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("x.WAV", {"subtype": "PCM_24"}),
        ("x.Wav", {"subtype": "FLOAT"}),
        ("x.wav", {"format": "WAVEX"}),
        ("x.FLAC", {}),
        ("x.mp3", {}),
        ("x.ogg", {}),
        ("x.aiff", {}),
        ("x.AIF", {"format": "AIFF"}),
    ],
)
def test_formats_are_read_without_ffmpeg(
    run: Run, recordings: Path, name: str, settings: dict
) -> None:
    rng = np.random.default_rng(0)
    sf.write(recordings / name, rng.uniform(-0.5, 0.5, 24000), 8000, **settings)
    loader = run()
    assert loader.entries[name].windows == 3
    assert not failures(loader)


def test_a_recording_shorter_than_a_window_is_padded_and_marked(run: Run) -> None:
    loader = run()
    entry = loader.entries["top.wav"]
    assert entry.windows == 1
    assert entry.padded == 4000
    files = loader.metadata_dict["files"]
    assert files["padded_samples_of_last_window"][-1] == 4000


def test_one_stem_with_two_suffixes_gives_two_results(run: Run, recordings: Path) -> None:
    sf.write(recordings / "top.flac", np.full(16000, 0.1), 8000)
    loader = run()
    assert {"top.wav_tiny.npy", "top.flac_tiny.npy"} <= set(loader.embeddings())
    assert len(loader.embeddings("array")) == 17


def test_unicode_and_long_names(run: Run, recordings: Path) -> None:
    names = ["Größe 猫 🐸.wav", f"{'x' * 245}.wav", "a\tb.wav"]
    for i, name in enumerate(names):
        write_recording(recordings / name, 1.0, seed=i)
    loader = run(classifier_threshold=0.0, save_raven_tables=True)
    assert set(names) <= set(loader.entries)
    assert set(names) <= set(loader.predictions("dataframe").audiofilename)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("file,start,end,label:species\n", "audiofilename"),
        ("audiofilename,start,label:species\n", "end"),
        ("audiofilename,start,end,label:species\ntop.wav,zero,1,frog\n", "zero"),
        ("", "annotations.csv"),
    ],
)
def test_annotations_that_cannot_be_understood_are_explained(
    run: Run, recordings: Path, table: str, expected: str
) -> None:
    (recordings / "annotations.csv").write_text(table)
    with pytest.raises(AnnotationsError, match=expected):
        run(only_embed_annotations=True)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_annotations_with_other_separators_and_a_byte_order_mark_are_read(
    run: Run, recordings: Path, separator: str
) -> None:
    table = "audiofilename,start,end,label:species\ntop.wav,0,0.5,frog\nunknown.wav,0,1,frog\n"
    (recordings / "annotations.csv").write_text(table.replace(",", separator), encoding="utf-8-sig")
    loader = run(only_embed_annotations=True, min_annotation_length=0)
    assert list(loader.entries) == ["top.wav"]
