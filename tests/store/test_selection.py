"""A part of the recordings of a data set, and what else ``audio_dir`` may name."""

from __future__ import annotations

import csv
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import bacpipe
from bacpipe.__main__ import main
from bacpipe.commands.arguments import parse_words
from bacpipe.errors import NoRecordingsError, RecordingsFailedError, SettingsError
from bacpipe.options import make_options
from bacpipe.store.selection import choose, data_set_of, read_list
from bacpipe.store.verification import verify_results
from tests.conftest import TinyModel, write_recording

Run = Callable[..., bacpipe.Loader]
NAMES = ("A/20240101_0500.wav", "A/20240101_0600.wav", "B/20240101_0500.wav", "x.flac", "x.wav")


@pytest.fixture
def card(tmp_path: Path) -> Path:
    for seed, name in enumerate(NAMES):
        write_recording(tmp_path / "card" / name, 2.0, seed=seed)
    return tmp_path / "card"


@pytest.fixture
def embed(tmp_path: Path, card: Path, tiny_model: type[TinyModel]) -> Run:
    def embed(**settings: object) -> bacpipe.Loader:
        return bacpipe.generate_embeddings(
            **{
                "audio_dir": card,
                "model_name": "tiny",
                "CustomModel": tiny_model,
                "main_results_dir": tmp_path / "results",
                "device": "cpu",
                "classifier_threshold": 0.0,
                **settings,
            }
        )

    return embed


def tree(loader: bacpipe.Loader) -> dict[str, bytes]:
    """Results of the recordings, by their files."""
    folders = (loader.get_embedding_dir(), loader.paths.sparse_predictions_path)
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for folder in folders
        for path in folder.rglob("*")
        if path.suffix in {".npy", ".parquet"}
    }


def test_runs_over_parts_add_up_to_a_run_over_all(
    tmp_path: Path, card: Path, embed: Run, tiny_model: type[TinyModel]
) -> None:
    loader = embed(recordings="A")
    assert list(loader.entries) == list(NAMES[:2]) and tiny_model.windows_seen == 4
    table = loader.paths.preds_path / "tiny_classifier_annotations.csv"
    assert set(pd.read_csv(table)["audiofilename"]) == set(NAMES[:2])
    loader = embed(recordings=["x.wav", card / "B" / "20240101_0500.wav"])
    assert list(loader.entries) == [*NAMES[:3], "x.wav"] and tiny_model.windows_seen == 8
    assert set(pd.read_csv(table)["audiofilename"]) == {*NAMES[:3], "x.wav"}
    assert verify_results(tmp_path / "results") == []
    embed(recordings="*0500.wav")
    assert tiny_model.windows_seen == 8  # all were done
    loader = embed()
    assert list(loader.entries) == list(NAMES) and tiny_model.windows_seen == 10
    assert set(pd.read_csv(table)["audiofilename"]) == set(NAMES)
    whole = embed(main_results_dir=tmp_path / "at_once")
    assert tree(loader) == tree(whole)  # x.flac and x.wav, too, which share a stem


def test_what_is_not_among_the_chosen_stays_even_if_it_is_gone(
    card: Path, embed: Run, caplog: pytest.LogCaptureFixture
) -> None:
    embed()
    (card / "x.wav").unlink()
    write_recording(card / "B" / "20240101_0500.wav", 4.0, seed=9)
    with caplog.at_level(logging.WARNING, logger="bacpipe"):
        loader = embed(recordings="A", classifier_threshold=0.0)
    assert list(loader.entries) == list(NAMES) and caplog.text == ""
    assert loader.entries["B/20240101_0500.wav"].windows == 2
    loader = embed()
    assert "x.wav" not in loader.entries and loader.entries["B/20240101_0500.wav"].windows == 4
    with caplog.at_level(logging.WARNING, logger="bacpipe"):
        loader = embed(recordings="x.flac", max_predictions_per_window=30)
    assert "3 recordings not among those of this run keep predictions of other" in caplog.text


def test_typos_are_named_and_the_rest_is_done(
    card: Path, embed: Run, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    (card / "notes.m4a").write_bytes(b"-")
    wanted = [
        "A",
        "x.wva",
        "B/20240101_0900.wav",
        "*.mp3",
        "/other/x.wav",
        "notes.m4a",
        "C:\\x.wav",
    ]
    loader = embed(recordings=wanted)
    assert list(loader.entries) == list(NAMES[:2])
    for sentence in (
        "x.wva: there is no such recording in audio_dir; did you mean x.wav?",
        "B/20240101_0900.wav: there is no such recording in audio_dir; did you mean",
        "*.mp3: no recording in audio_dir matches this pattern.",
        "/other/x.wav: lies outside of audio_dir",
        "notes.m4a: is there, but no recording by its suffix",
        "is a path of another computer",
        "1 file left out because of its suffix: .m4a (1)",
    ):
        assert sentence in caplog.text, sentence
    with pytest.raises(NoRecordingsError, match=r"nothing is chosen of .*: lies outside .*1 more"):
        embed(recordings=["/other/x.wav", "nowhere.wav"])
    for word, reason in (("../other", "lies outside"), (".x.wav", "is hidden"), ("x" * 5000, "no")):
        with pytest.raises(NoRecordingsError, match=reason):
            choose([word], NAMES, card)
    assert data_set_of([card, card / "gone.wav"]).recordings == (str(card), f"{card}/gone.wav")
    assert make_options(recordings=pd.Series(["a", "a"])).recordings == ("a",)
    with pytest.raises(SettingsError, match="not an empty list"):
        embed(recordings=[])
    with pytest.raises(SettingsError, match="in quotes if"):
        embed(recordings=20240101)
    with pytest.raises(SettingsError, match="and so does recordings"):
        embed(audio_dir=[card / "A", card / "B"], recordings="A")


def test_names_are_found_however_they_are_written(card: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(card / "A")
    write_recording(card / "Grünspecht [1] 🐦.wav", 1.0)
    write_recording(card / "a\nb.wav", 1.0)
    names = sorted([*NAMES, "Grünspecht [1] 🐦.wav", "a\nb.wav"])

    def found(*wanted: str) -> list[str]:
        return choose(wanted, names, card).names

    assert found("A\\20240101_0500.wav") == found("./A/../A/20240101_0500.WAV") == [NAMES[0]]
    assert found("20240101_0600.wav") == [NAMES[1]]  # a bare name that only one has
    assert found("GRÜNSPECHT [1] 🐦.wav") == ["Grünspecht [1] 🐦.wav"]
    assert found("Gru\u0308nspecht [1] 🐦.wav") == ["Grünspecht [1] 🐦.wav"]
    assert found("Gr?nspecht [[]1*") == ["Grünspecht [1] 🐦.wav"]
    assert found("a\nb.wav") == ["a\nb.wav"]
    assert found(str(tmp_path / "link")) == list(NAMES[:2])  # the folder by another way
    assert found("A/*") == list(NAMES[:2]) and found("*") == found(".") == names
    assert found("**/*_0500.wav") == [NAMES[0], NAMES[2]] and found("[AB]/*06*") == [NAMES[1]]
    assert choose(["20240101_0500.wav", "x.wav"], names, card).missing == [
        (
            "20240101_0500.wav",
            "20240101_0500.wav: may be any of 2 recordings (A/20240101_0500.wav, "
            "B/20240101_0500.wav); expected a path relative to audio_dir.",
        )
    ]


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfaudiofilename\r\nA/20240101_0500.wav\r\nx.wav\r\n\r\nx.wav\r\n",
        b"site;File;note\nA;A\\20240101_0500.wav;\nB;x.wav;a, b\n",
        "A/20240101_0500.wav\nx.wav".encode("utf-16"),
        b'"A/20240101_0500.wav"\n"x.wav"\n',
        b"sep=\t\npath\tn\nA/20240101_0500.wav\t1\nx.wav\t2\n",
    ],
    ids=["bom", "semicolons", "utf-16", "quoted", "excel"],
)
def test_tables_of_files(card: Path, content: bytes, tmp_path: Path) -> None:
    table = card / "list.csv"
    table.write_bytes(content)
    assert choose(["list.csv"], NAMES, card).names == [NAMES[0], "x.wav"]
    place = data_set_of(table)
    assert place.folder == card
    assert choose(place.recordings or (), NAMES, place.folder).names == [NAMES[0], "x.wav"]


@pytest.mark.parametrize("limit", [131_072, 2**31 - 1], ids=["usual", "lifted"])
def test_tables_that_name_nothing_say_so(card: Path, limit: int) -> None:
    table = card / "list.csv"
    usual = csv.field_size_limit(limit)
    try:
        tables_that_name_nothing_say_so(card, table)
    finally:
        csv.field_size_limit(usual)


def tables_that_name_nothing_say_so(card: Path, table: Path) -> None:
    for content, sentence in (
        (b"", "is empty"),
        (b"audiofilename\n", "is empty"),
        (b"x" * 200_000, "no table of files"),
        (b"site,start\nA,3\n", "expected one that is called audiofilename"),
        (b"gr\xfcn.wav\n", "line 1 is not UTF-8; save it as 'CSV UTF-8'"),
        (b"no.wav\nnot.wav\n", "of 2 files that it names, none exists"),
    ):
        table.write_bytes(content)
        with pytest.raises(NoRecordingsError, match=sentence):
            data_set_of(table)
    table.with_suffix(".txt").write_text("x, y; z.wav\n\nx.wav\n")
    assert read_list(table.with_suffix(".txt")) == ["x, y; z.wav", "x.wav"]
    with pytest.raises(NoRecordingsError, match="there is no such table of files"):
        choose(["absent.csv"], NAMES, card)


def test_lists_globs_and_single_recordings_as_audio_dir(
    card: Path, embed: Run, tiny_model: type[TinyModel], tmp_path: Path
) -> None:
    loader = embed(audio_dir=card / "x.wav")
    assert loader.paths.dataset_path.name == "card" and list(loader.entries) == ["x.wav"]
    loader = embed(audio_dir=f"{card}/*/*_0500.wav")
    assert loader.paths.dataset_path.name == "card" and tiny_model.windows_seen == 6
    loader = embed(audio_dir=[card / "A", str(card / "B")])
    assert loader.paths.dataset_path.name == "card" and tiny_model.windows_seen == 8
    assert list(loader.entries) == [*NAMES[:3], "x.wav"]
    assert list(embed().entries) == list(NAMES) and tiny_model.windows_seen == 10
    read = bacpipe.Loader([card / "A"], "tiny", main_results_dir=tmp_path / "results")
    assert read.paths.dataset_path.name == "A"  # a folder, though in a list
    read = bacpipe.Loader(f"{card}/*.wav", "tiny", main_results_dir=tmp_path / "results")
    assert read.embeddings("array").shape == (10, 10)
    assert data_set_of(f"{card}/?/2024*").folder == card
    assert data_set_of([card / "A" / "20240101_0500.wav", "nowhere/y.wav"]).folder == card / "A"
    with pytest.raises(NoRecordingsError, match="of 2 paths, none exists"):
        data_set_of([tmp_path / "a", tmp_path / "b"])
    other = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
    if other is not None and not str(tmp_path).startswith("/dev"):
        with pytest.raises(SettingsError, match="no folder in common"):
            data_set_of([card, other])


def test_the_command_line_and_yaml_choose_recordings(
    card: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert parse_words(["recordings=*_0500.wav"]) == {"recordings": "*_0500.wav"}
    assert parse_words(["recordings=[001.wav, 'a, b.wav',", "O'x.wav]"]) == {
        "recordings": ["001.wav", "a, b.wav", "O'x.wav"]
    }
    assert parse_words(["audio_dir=[C:\\a, D:\\b]"]) == {"audio_dir": ["C:\\a", "D:\\b"]}
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text("recordings: ['*.flac', gone.wav]\nmodels: [birdnet]\n")
    words = [f"audio_dir={card}", "device=cpu", f"main_results_dir={tmp_path / 'r'}"]
    assert main([*words, "strict=true"]) == 3
    out, err = capsys.readouterr()
    assert "gone.wav: there is no such recording" in out and "1 recording failed" in err
    assert main([*words, "recordings=x.flac"]) == 0
    assert "skipped, done before  1" in capsys.readouterr().out
    shutil.rmtree(card / "A")
    assert list(bacpipe.Loader(card, "birdnet", main_results_dir=tmp_path / "r").entries) == [
        "x.flac"
    ]
    with pytest.raises(RecordingsFailedError):
        bacpipe.play(
            audio_dir=card,
            recordings=["x.flac", "y.flac"],
            models="birdnet",
            main_results_dir=tmp_path / "r",
            strict=True,
        )
