"""Names of files, folders that lie in one another, links, and clocks."""

from __future__ import annotations

import csv
import io
import logging
import os
import shutil
import subprocess
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

import bacpipe
from bacpipe.audio.files import read_recording
from bacpipe.errors import NoRecordingsError
from bacpipe.exports.audacity import export_audacity_labels
from bacpipe.exports.raven import export_raven_tables
from bacpipe.inference.report import RunReport, printable
from bacpipe.inference.run_data_set import tables_are_complete
from bacpipe.store import embedding_set, layout
from bacpipe.store.layout import result_stems, stamped_folder, stamped_folders
from tests.conftest import TinyModel, write_recording
from tests.faults.disks import assert_whole
from tests.faults.test_run_faults import failures

Run = Callable[..., bacpipe.Loader]

posix_names = pytest.mark.skipif(sys.platform == "win32", reason="names that Windows cannot have")

NAMES = [
    "Größe.wav",
    unicodedata.normalize("NFD", "Größe.wav"),  # the same to the eye, another file on Linux
    "猫 🐸 👩‍🔬.wav",
    "تسجيل ١٢.wav",
    "\u202egnp.wav",  # turns the writing direction round
    "new\nline.wav",
    "carriage\rreturn.wav",
    "tab\there.wav",
    "line\u2028separator.wav",
    "\x1b[2Jescape.wav",
    "-rf.wav",
    "--help.wav",
    "=HYPERLINK(1).wav",
    "+1.wav",
    "@sum.wav",
    "dot..wav",
    "space .wav",
    " leading.wav",
    "a,b;c.wav",
    "quo\"te's.wav",
    "back\\slash.wav",
    "per%cent$HOME`id`.wav",
    "x" * 251 + ".wav",
    "é" * 125 + ".wav",
    "猫" * 83 + ".wav",
    "NUL.wav",
    "a:b*c?.wav",
    "{name}.wav",
    "CASE.wav",
    "case.wav",
    "Case.WAV",
    "case.flac",
    "case.wav.flac",
]


@pytest.fixture
def strange(recordings: Path) -> Path:
    """The recordings, and one of every strange name, with a level of its own each."""
    for i, name in enumerate(NAMES):
        write_recording(recordings / "strange" / name, 1.0 + i / 100, seed=100 + i)
    return recordings


@posix_names
def test_every_name_has_results_of_its_own(run: Run, strange: Path, tiny_model: type) -> None:
    loader = run(classifier_threshold=0.0, save_raven_tables=True)
    assert not failures(loader)
    wanted = {f"strange/{name}" for name in NAMES}
    assert wanted <= set(loader.entries)
    assert set(loader.predictions("dataframe").audiofilename) == set(loader.entries)
    assert_whole(strange.parent / "results")
    alone = bacpipe.Embedder("tiny", CustomModel=tiny_model, device="cpu")
    for name in wanted:
        expected = alone.get_embeddings_from_model(strange / name)
        np.testing.assert_allclose(loader.read_embedding_file(name), expected, rtol=1e-6)
    assert loader.metadata_dict["files"]["audio_files"] == list(loader.entries)
    tiny_model.windows_seen = 0
    run(classifier_threshold=0.0, save_raven_tables=True)
    assert tiny_model.windows_seen == 0


@posix_names
def test_names_do_not_break_tables(run: Run, strange: Path) -> None:
    loader = run(classifier_threshold=0.0, save_raven_tables=True)
    names = set(loader.entries)
    text = (loader.paths.preds_path / "tiny_classifier_annotations.csv").read_bytes().decode()
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    # Windows of a second, of which the last counts if half of it is sound.
    windows = sum(int(read_recording(strange / name).duration + 0.5) for name in names)
    assert len(rows) == 2 * windows  # both classes of each
    assert {row["audiofilename"] for row in rows} == names
    assert all(float(row["end"]) > float(row["start"]) for row in rows)
    tables = list(loader.paths.raven_path.rglob("*.selection.table.txt"))
    assert len(tables) == len(names)
    [combined, listing] = export_raven_tables(loader, strange.parent / "raven", combined=True)
    for table in [*tables, combined]:
        lines = table.read_bytes().decode().rstrip("\n").split("\n")
        assert all(line.count("\t") == 10 for line in lines), table
        assert len(table.read_text(encoding="utf-8").splitlines()) == len(lines), table
        assert [line.split("\t")[0] for line in lines[1:]] == [
            str(number) for number in range(1, len(lines))
        ]
    assert len(listing.read_text(encoding="utf-8").splitlines()) == len(names)
    for labels in export_audacity_labels(loader, strange.parent / "audacity"):
        for line in labels.read_text(encoding="utf-8").splitlines():
            start, end, label = line.split("\t")
            assert float(start) < float(end)
            assert label in {"loud", "quiet"}


@pytest.mark.parametrize("fold", [str.lower, lambda n: unicodedata.normalize("NFC", n)])
def test_results_do_not_collide_on_other_file_systems(fold: Callable[[str], str]) -> None:
    names = [f"{folder}/{name}" for folder in ("North", "north") for name in NAMES]
    stems = result_stems(names)
    both = [fold(unicodedata.normalize("NFC", stem)).casefold() for stem in stems.values()]
    assert len(set(both)) == len(names)
    assert all(len(os.fsencode(Path(stem).name)) <= 200 for stem in stems.values())
    assert stems == result_stems(reversed(names))


@posix_names
def test_a_name_that_is_no_text_is_a_failure(
    run: Run,
    recordings: Path,
    tmp_path: Path,
    tiny_model: type[TinyModel],
    capsys: pytest.CaptureFixture,
) -> None:
    name = os.fsdecode(b"gr\xf6n\xff.wav")
    try:
        write_recording(tmp_path / "x.wav", 1.0).rename(recordings / name)
    except OSError:
        pytest.skip("this file system takes only names that are valid UTF-8")
    loader = run()
    [reason] = failures(loader).values()
    assert "not valid text" in reason
    assert "rename" in reason
    assert len(loader.entries) == 5
    again = run(classifier_threshold=0.0, save_raven_tables=True)
    assert len(again.entries) == 5
    [table, _] = export_raven_tables(again, tmp_path / "raven", combined=True)
    assert table.is_file()
    bacpipe.play(
        audio_dir=recordings,
        models=["tiny"],
        CustomModel=tiny_model,
        main_results_dir=tmp_path / "played",
        device="cpu",
    )
    assert "gr\\udcf6n\\udcff.wav" in capsys.readouterr().out


def test_the_report_obeys_no_control_characters() -> None:
    report = RunReport("tiny", failed=[("a\nb\x1b[2J\u202e.wav", "a\nb: no\tgood\x07")])
    assert (
        str(report).splitlines()[-1] == "  failed: a\\nb\\x1b[2J\\u202e.wav: a\\nb: no\\tgood\\x07"
    )
    assert printable("Größe 猫 🐸.wav") == "Größe 猫 🐸.wav"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_any_name_can_be_printed_anywhere(tmp_path: Path, encoding: str) -> None:
    folder = tmp_path / "field"
    write_recording(folder / "good.wav", 1.0)
    (folder / "猫 🐸.wav").touch()
    code = (
        "import sys, bacpipe; from tests.conftest import TinyModel\n"
        "bacpipe.play(audio_dir=sys.argv[1], main_results_dir=sys.argv[2], models=['tiny'],\n"
        "             CustomModel=TinyModel, device='cpu')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder), str(tmp_path / "results")],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr.decode()
    shown = "猫 🐸.wav" if encoding == "utf-8" else "\\u732b \\U0001f438.wav"
    assert shown in done.stdout.decode(encoding)


@posix_names
def test_very_long_paths(run: Run, recordings: Path, tmp_path: Path) -> None:
    """Too long for the decoder, and: short enough for it, but not for the path of the result."""
    good = run(classifier_threshold=0.0).entries["top.wav"]
    part, name = Path("d" * 100), "x.wav"
    fits = recordings / part / part / part / name
    write_recording(fits, 2.0)
    beyond = recordings.joinpath(*[part] * 12, name)
    beyond.parent.mkdir(parents=True)
    shutil.copy(fits, beyond)
    results = tmp_path
    while len(str(results)) < 4096 - 300:  # with less than three of these folders left to it
        results = results / ("r" * 100)
    loader = run(main_results_dir=results)
    assert set(failures(loader)) == {p.relative_to(recordings).as_posix() for p in (fits, beyond)}
    reasons = failures(loader)
    assert "File name too long" in reasons[fits.relative_to(recordings).as_posix()]
    assert "too long" in reasons[beyond.relative_to(recordings).as_posix()]
    assert len(loader.entries) == 5
    assert loader.entries["top.wav"].embeddings.sha256 == good.embeddings.sha256


# ---------------------------------------------------------------------- folders and links


@pytest.mark.parametrize("suffixed", [False, True])
def test_results_inside_the_audio_folder_are_not_recordings(
    run: Run, recordings: Path, suffixed: bool, tiny_model: type[TinyModel]
) -> None:
    if suffixed:  # a folder that is named like a recording turns up among the results, too
        (recordings / "north").rename(recordings / "north.wav")
    before = run(main_results_dir=recordings / "results")
    state, entries = before.embeddings_state, dict(before.entries)
    write_recording(before.get_embedding_dir() / "clips" / "clip.wav", 2.0)
    write_recording(before.paths.plot_path / "example.flac", 2.0)
    tiny_model.windows_seen = 0
    after = run(main_results_dir=recordings / "results")
    assert tiny_model.windows_seen == 0
    assert (after.embeddings_state, after.entries) == (state, entries)
    assert len(after.files) == 5 + suffixed


def test_the_audio_folder_inside_the_results(run: Run, recordings: Path, tmp_path: Path) -> None:
    # The results of 'field' then lie in the folder of the recordings itself.
    for _ in range(2):
        loader = run(main_results_dir=recordings.parent)
        assert loader.paths.dataset_path == recordings
        assert len(loader.entries) == 5
        assert not failures(loader)
        write_recording(loader.paths.main_embeds_path / "clip.wav", 2.0)
    inside = tmp_path / "results" / "field" / "evaluations" / "recordings"
    write_recording(inside / "a.wav", 2.0)
    assert list(run(audio_dir=inside).entries) == ["a.wav"]


def test_nothing_but_results_in_the_audio_folder(run: Run, recordings: Path) -> None:
    loader = run(main_results_dir=recordings)
    write_recording(loader.get_embedding_dir() / "clip.wav", 2.0)
    for path in [p for p in recordings.rglob("*.*") if p.suffix in {".wav", ".flac"}]:
        if path.name != "clip.wav":
            path.unlink()
    with pytest.raises(NoRecordingsError, match="besides the results"):
        run(main_results_dir=recordings)


@posix_names
def test_links(run: Run, recordings: Path, tmp_path: Path) -> None:
    outside = write_recording(tmp_path / "elsewhere" / "z.wav", 2.0, seed=42)
    (recordings / "linked.wav").symlink_to(outside)
    (recordings / "folder").symlink_to(outside.parent)
    (recordings / "loop").symlink_to(recordings)
    (recordings / "north" / "up").symlink_to(recordings / "south")
    (recordings / "self.wav").symlink_to("self.wav")
    loader = run()
    assert set(failures(loader)) == {"self.wav"}
    assert {"linked.wav", "folder/z.wav"} <= set(loader.entries)
    assert len(loader.entries) == 7
    assert outside.exists()
    write_recording(outside, 3.0, seed=43)  # what the link leads to is what counts
    assert run().entries["linked.wav"].windows == 3


def test_no_recording_and_one_recording(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(NoRecordingsError, match=r"empty holds no recordings.*\.wav"):
        run(audio_dir=tmp_path / "empty")
    assert not (tmp_path / "results").exists()
    write_recording(tmp_path / "one" / "a.wav", 1.0)
    loader = run(audio_dir=tmp_path / "one")
    assert loader.embeddings("array").shape == (1, 10)


# ---------------------------------------------------------------------- clocks


class Clock(datetime):
    """A clock that shows what the test wants."""

    shown = datetime(2026, 3, 1, 12, 30, 45)

    @classmethod
    def now(cls, tz: object = None) -> datetime:
        return cls.shown


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Clock]]:
    monkeypatch.setattr(embedding_set, "datetime", Clock)
    yield Clock
    Clock.shown = datetime(2026, 3, 1, 12, 30, 45)


@pytest.mark.parametrize(
    "step", [timedelta(0), timedelta(seconds=-30), timedelta(hours=-1), timedelta(days=-4000)]
)
def test_the_newest_set_is_the_newest_whatever_the_clock_says(
    run: Run, clock: type[Clock], step: timedelta, caplog: pytest.LogCaptureFixture
) -> None:
    folders = []
    for _ in range(4):
        folders.append(run(check_if_already_processed=False).get_embedding_dir())
        clock.shown += step
    assert len(set(folders)) == 4
    assert stamped_folders(folders[0].parent, "tiny-field") == folders[::-1]
    assert run().get_embedding_dir() == folders[-1]
    assert all(len(embedding_set.EmbeddingSet(folder).content.done) == 5 for folder in folders)
    if abs(step) != timedelta(seconds=30):  # too little to be worth a word at first
        assert ("The clock says" in caplog.text) == bool(step)


def test_a_wrong_date_in_a_folder_is_not_a_date(tmp_path: Path) -> None:
    (tmp_path / "2026-02-31_25-61___tiny-field").mkdir()
    folder = stamped_folder(tmp_path, "tiny-field", Clock.shown)
    assert folder.name == "2026-03-01_12-30___tiny-field"


@pytest.mark.parametrize("hours", [-24, 24])
def test_whether_tables_hold_does_not_depend_on_the_clock(
    run: Run, recordings: Path, hours: int
) -> None:
    loader = run(classifier_threshold=0.0)
    ahead = time.time() + hours * 3600
    for path in loader.paths.dataset_path.rglob("*"):
        if path.is_file() and path.name != "journal.jsonl":
            os.utime(path, (ahead, ahead))
    assert tables_are_complete(loader, predict=True)
    write_recording(recordings / "new.wav", 2.0)
    with pytest.MonkeyPatch.context() as patch:  # a run that dies before it writes the tables
        patch.setattr(bacpipe.Loader, "write_metadata_file", lambda loader: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(classifier_threshold=0.0)
    again = bacpipe.Loader(recordings, "tiny", main_results_dir=loader.paths.main_results_dir)
    assert "new.wav" in again.entries
    assert not tables_are_complete(again, predict=True)


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the time zone cannot be set here")
def test_another_time_zone_changes_nothing(
    run: Run, tiny_model: type[TinyModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run()
    tiny_model.windows_seen = 0
    try:
        for zone in ("Pacific/Kiritimati", "Pacific/Pago_Pago", "Asia/Kathmandu"):
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            assert run().get_embedding_dir() == first.get_embedding_dir()
    finally:
        monkeypatch.undo()
        time.tzset()
    assert tiny_model.windows_seen == 0


def test_layout_logs_by_its_own_name(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    (tmp_path / "2036-01-01_00-00___tiny-field").mkdir()
    with caplog.at_level(logging.WARNING, logger=layout.__name__):
        folder = stamped_folder(tmp_path, "tiny-field", Clock.shown)
    assert folder.name == "2036-01-01_00-00-01___tiny-field"
    assert "results of 2036-01-01 00:00" in caplog.text
