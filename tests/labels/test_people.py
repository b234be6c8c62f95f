"""Labels of people: nothing is lost, whatever happens, and what holds now is what is read."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score

import bacpipe
from bacpipe.labels import people
from tests.conftest import write_recording

WINDOW = {"recording": "north/a.wav", "start": 0, "end": 1, "label": "wren"}


@pytest.fixture
def where(recordings, tmp_path):
    return {"audio_dir": recordings, "main_results_dir": tmp_path / "results"}


@pytest.fixture
def label(where):
    def write(value="yes", annotator="Ana", **changes):
        row = {**WINDOW, "value": value, **changes}
        return bacpipe.label_windows(rows=row, annotator=annotator, **where)

    return write


def journal(where):
    return where["main_results_dir"] / "field" / "labels" / "people_labels.jsonl"


def held(where, **options):
    table = bacpipe.people_labels(**where, **options)
    return table[["recording", "start", "label", "value", "annotator"]].to_numpy().tolist()


def test_columns_and_kinds(where):
    rows = pd.DataFrame(
        {
            "audiofilename": ["A.WAV", "north\\b.wav", "south/c.flac"],
            "start": [0, "1,5", 2.0004],
            "end": [1, 2, 3],
            "label:species": ["wren", " robin ", "owl"],
            "value": [True, 0, "Unsure"],
            "score": [0.5, None, float("nan")],
            "model": "birdnet",
        }
    )
    with pytest.raises(bacpipe.BacpipeError, match=r"north/a\.wav or south/a\.wav"):
        bacpipe.label_windows(rows=rows, **where)
    rows.loc[0, "audiofilename"] = "North/A.wav"
    assert bacpipe.label_windows(rows=rows, annotator="Ana", **where) == 3
    table = bacpipe.people_labels(**where)
    assert table.columns.to_list() == [
        "recording", "start", "end", "label", "value", "annotator", "time", "chosen_by", "model",
        "score",
    ]  # fmt: skip
    assert table["recording"].tolist() == ["north/a.wav", "north/b.wav", "south/c.flac"]
    assert table["start"].tolist() == [0.0, 1.5, 2.0]
    assert table["label"].tolist() == ["wren", "robin", "owl"]
    assert table["value"].tolist() == ["yes", "no", "unsure"]
    assert table["score"].tolist()[0] == 0.5 and table["score"].isna().sum() == 2
    assert pd.to_datetime(table["time"]).dt.tz is not None
    again = bacpipe.people_labels(**{**where, "audio_dir": f"{where['audio_dir']}/"})
    pd.testing.assert_frame_equal(table, again)


def test_last_judgement_holds_and_undo_brings_back_the_one_before(where, label):
    for value in ("yes", "no", "no", "unsure"):
        label(value)
    label("yes", "Ben")
    assert held(where) == [
        ["north/a.wav", 0.0, "wren", "unsure", "Ana"],
        ["north/a.wav", 0.0, "wren", "yes", "Ben"],
    ]
    expected = ["no", "yes", None, None]  # of nothing, nothing can be taken back
    for value in expected:
        label("undo")
        mine = [row[3] for row in held(where) if row[4] == "Ana"]
        assert mine == ([value] if value else [])
    assert len(journal(where).read_bytes().splitlines()) == 1 + 9  # nothing is ever removed


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"value": "maybe"}, "value of row 1 is 'maybe'"),
        ({"label": "  "}, "row 1 has no label"),
        ({"start": "soon"}, "soon"),
        ({"start": 2}, "before it starts"),
        ({"start": 0.0, "end": 0.0004}, "shorter"),
        ({"score": "high"}, "score of row 1"),
        ({"recording": "north/z.wav"}, "no row is about one of"),
        ({"recording": "../../etc/passwd"}, "no row is about one of"),
    ],
)
def test_an_impossible_row_is_one_sentence_and_writes_nothing(where, label, row, sentence):
    with pytest.raises(bacpipe.BacpipeError, match=sentence):
        label(**row)
    with pytest.raises(bacpipe.BacpipeError, match=sentence.replace("row 1", "row 2")):
        rows = [{"value": "yes", **WINDOW}, {"value": "yes", **WINDOW, **row}]
        if "no row is about" in sentence:
            rows = rows[1:]
        bacpipe.label_windows(rows=rows, **where)
    assert not journal(where).exists()


def test_missing_columns_are_named(where):
    with pytest.raises(bacpipe.BacpipeError, match="columns start, label are missing"):
        bacpipe.label_windows(rows={"recording": "north/a.wav", "end": 1}, **where)
    with pytest.raises(bacpipe.BacpipeError, match="no rows"):
        bacpipe.label_windows(rows=3, **where)


def test_what_was_only_found_is_no_label(where, caplog):
    """Windows to listen to, as `search`, `suggest` and `review_plan` list them, are no answers."""
    found = pd.DataFrame([WINDOW] * 3).assign(start=[0.0, 1.0, 2.0], end=3.0)
    for column in ("similarity", "chosen_by"):
        with pytest.raises(bacpipe.BacpipeError, match="nobody has said yet"):
            bacpipe.label_windows(rows=found.assign(**{column: 1}), **where)
    with pytest.raises(bacpipe.BacpipeError, match="column value is empty"):
        bacpipe.label_windows(rows=found.assign(value=["", None, " "]), **where)
    assert not journal(where).exists()
    # Who stops listening half-way has labelled what was heard.
    found["value"] = ["", "no", None]
    assert bacpipe.label_windows(rows=found, annotator="Ana", **where) == 1
    assert held(where) == [["north/a.wav", 1.0, "wren", "no", "Ana"]]
    assert "2 rows without a value left out" in caplog.text
    found["value"] = ["", "no", "perhaps"]
    with pytest.raises(bacpipe.BacpipeError, match="value of row 3 is 'perhaps'"):
        bacpipe.label_windows(rows=found, **where)


def test_an_unknown_recording_costs_only_its_rows(where, caplog):
    rows = [WINDOW, {**WINDOW, "recording": "east/x.wav"}]
    assert bacpipe.label_windows(rows=rows, **where) == 1
    assert "east/x.wav" in caplog.text


def test_a_line_cut_in_the_middle_is_said_and_kept(where, label, caplog):
    label("yes")
    label("no", label="robin")
    path = journal(where)
    piece = path.read_bytes()[:-25]
    path.write_bytes(piece)
    label("yes", label="owl")
    assert path.read_bytes().startswith(piece + b"\n")
    caplog.clear()
    assert [row[2] for row in held(where)] == ["wren", "owl"]
    assert "line 3" in caplog.text and str(path) in caplog.text
    # Only the line break is missing: it is a whole line.
    path.write_bytes(path.read_bytes()[:-1])
    label("yes", label="kite")
    assert [row[2] for row in held(where)] == ["wren", "owl", "kite"]


@pytest.mark.parametrize(
    "line", [b"[]", b"7", b"\xff\xfe", b"{}", b'{"recording": 3}', b"[" * 9999]
)
def test_foreign_lines_cost_nothing_else(where, label, line, caplog):
    label()
    with journal(where).open("ab") as file:
        file.write(line + b"\n")
    label(label="owl")
    assert len(held(where)) == 2
    assert "line 3" in caplog.text


def test_a_newer_journal_is_refused_not_misread(where, label):
    label()
    journal(where).write_text('{"format": 99}\n')
    with pytest.raises(bacpipe.BacpipeError, match="newer bacpipe"):
        held(where)


def test_a_full_disk_leaves_the_journal_as_it_was(where, label, monkeypatch):
    label()
    before = journal(where).read_bytes()

    def full(descriptor, data):
        os.write(descriptor, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(people, "write_all", full)
    rows = [{**WINDOW, "label": name} for name in ("owl", "kite")]
    with pytest.raises(bacpipe.BacpipeError, match="people_labels"):
        bacpipe.label_windows(rows=rows, **where)
    assert journal(where).read_bytes() == before


def test_several_writers_at_once_lose_nothing(where):
    def work(number):
        for second in range(3):
            row = {**WINDOW, "start": second, "end": second + 0.5}
            bacpipe.label_windows(
                rows=[row, {**row, "label": "owl"}], annotator=str(number), **where
            )

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert len(held(where)) == 6 * 3 * 2
    assert all(json.loads(line) for line in journal(where).read_bytes().splitlines())


def test_journals_of_others_are_merged_in_the_order_of_time(where, label):
    label("yes")
    other = journal(where).with_name("people_labels-laptop.jsonl")
    shutil.copy(journal(where), other)  # a copy, continued elsewhere
    path = journal(where)
    aside = path.rename(path.with_name("aside"))
    other.rename(path)
    label("no")
    label("unsure", "Ben")
    path.rename(other)
    aside.rename(path)
    assert [row[3] for row in held(where)] == ["no", "unsure"]
    label("undo")
    assert [row[3:] for row in held(where)] == [["yes", "Ana"], ["unsure", "Ben"]]


def test_a_recording_that_changed_is_named_and_its_labels_return_with_it(where, label, caplog):
    label()
    label(recording="north/b.wav")
    path = where["audio_dir"] / "north" / "a.wav"
    former = path.read_bytes()
    write_recording(path, 3.5, seed=99)
    caplog.clear()
    assert [row[0] for row in held(where)] == ["north/b.wav"]
    assert "1 recording has changed" in caplog.text and "north/a.wav" in caplog.text
    assert len(held(where, changed=True)) == 2
    label("no")  # what is heard now
    assert [row[3] for row in held(where)] == ["yes", "no"]
    path.write_bytes(former)
    assert [row[3] for row in held(where) if row[0] == "north/a.wav"] == ["yes"]


def test_labels_follow_a_recording_that_is_moved_and_outlive_one_that_is_gone(where, label, caplog):
    label()
    new = where["audio_dir"] / "site 7" / "a.wav"
    new.parent.mkdir()
    (where["audio_dir"] / "north" / "a.wav").rename(new)
    assert held(where)[0][0] == "site 7/a.wav"
    new.unlink()
    caplog.clear()
    assert held(where)[0][0] == "north/a.wav"
    assert "not there any more" in caplog.text


def test_contradictions_are_settled_by_the_majority(where, label, caplog):
    for annotator, value in {"Ana": "yes", "Ben": "no"}.items():
        label(value, annotator)
    label("unsure", label="owl")
    for annotator, value in {"Ana": "no", "Ben": "no", "Cleo": "yes", "Dan": "unsure"}.items():
        label(value, annotator, label="kite")
    table = bacpipe.settled_labels(bacpipe.people_labels(**where)).set_index("label")
    assert table["value"].to_dict() == {"wren": "unsure", "owl": "unsure", "kite": "no"}
    assert table["annotators"].to_dict() == {"wren": 2, "owl": 1, "kite": 4}
    assert "contradict each other on 1 label" in caplog.text
    label("yes", "Cleo")
    assert "yes" in bacpipe.settled_labels(bacpipe.people_labels(**where))["value"].tolist()


@pytest.mark.parametrize("format", ["csv", "raven", "audacity", "labels"])
def test_exports_come_back(where, label, tmp_path, format):
    label("yes")
    label("yes", label="owl", start=1.25, end=2.5)
    label("no", label="kite", recording="south/c.flac")
    label("yes", label="kite", recording="south/a.wav")
    target = tmp_path / ("people.csv" if format in {"csv", "labels"} else "out")
    written = bacpipe.export_people_labels(destination=target, format=format, **where)
    assert written and all(path.is_file() for path in written)
    elsewhere = {**where, "main_results_dir": tmp_path / "other"}
    kind = format if target.is_dir() else None
    n = bacpipe.label_windows(rows=target, annotator="Ana", format=kind, **elsewhere)
    assert n == 3 + (format == "labels")
    expected = [row for row in held(where) if format == "labels" or row[3] == "yes"]
    assert sorted(held(elsewhere)) == sorted(expected)


@pytest.mark.parametrize("format", ["csv", "labels"])
def test_exports_for_spreadsheets_come_back(where, label, tmp_path, format):
    label("yes", "-Ana", label="=wren", chosen_by="@search")
    target = tmp_path / "people.csv"
    bacpipe.export_people_labels(destination=target, format=format, escape_formulas=True, **where)
    assert "'=wren" in target.read_text() and ("'-Ana" in target.read_text()) == (
        format == "labels"
    )
    elsewhere = {**where, "main_results_dir": tmp_path / "other"}
    bacpipe.label_windows(rows=target, annotator="-Ana", **elsewhere)
    row = bacpipe.people_labels(**elsewhere).iloc[0]
    assert (row["label"], row["annotator"]) == ("=wren", "-Ana")
    assert row["chosen_by"] == ("@search" if format == "labels" else "")


def test_no_labels_are_an_empty_table_and_no_folder_is_an_error(where, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    assert len(bacpipe.people_labels(**where)) == 0
    assert len(bacpipe.settled_labels(bacpipe.people_labels(**where))) == 0
    assert bacpipe.label_windows(rows=[], **where) == 0
    assert not caplog.records and not where["main_results_dir"].exists()
    with pytest.raises(bacpipe.BacpipeError, match="nowhere"):
        bacpipe.people_labels(tmp_path / "nowhere", main_results_dir=where["main_results_dir"])


def test_agreement_of_annotators(where, label):
    # The example of Krippendorff 2011 with two observers and binary data: alpha 0.095.
    meg, owen = "0100000010", "1110010000"
    for annotator, heard in {"Meg": meg, "Owen": owen}.items():
        for i, value in enumerate(heard):
            label("yes" if value == "1" else "no", annotator, start=i / 4, end=i / 4 + 0.25)
    label("unsure", "Meg", start=3, end=3.25)
    label("yes", "Owen", start=3, end=3.25)
    label("yes", "Zoe", label="owl")
    table = bacpipe.label_agreement(**where)
    assert table[["label", "first", "second", "windows"]].values.tolist() == [
        ["wren", "Meg", "Owen", 10]
    ]
    assert table["krippendorff_alpha"][0] == pytest.approx(0.095, abs=5e-4)
    one, other = ([int(x) for x in heard] for heard in (meg, owen))
    assert table["cohen_kappa"][0] == pytest.approx(cohen_kappa_score(one, other))
    # A third one who judges one window, and agrees with one of them.
    label("yes", "Zoe", start=0.25, end=0.5)
    assert len(bacpipe.label_agreement(**where)) == 3
    label("yes", "Pia", label="kite")
    label("yes", "Zoe", label="kite")
    kite = bacpipe.label_agreement(**where).set_index("label").loc["kite"]
    assert kite["agreement"] == 1 and pd.isna(kite["cohen_kappa"])


def test_what_a_search_found_is_no_label_until_somebody_says_so(where):
    found = [{**WINDOW, "similarity": 0.9}, {**WINDOW, "start": 1, "end": 2, "chosen_by": "top"}]
    with pytest.raises(bacpipe.BacpipeError, match="nobody has said yet"):
        bacpipe.label_windows(rows=found, **where)
    assert not journal(where).exists()
    assert bacpipe.label_windows(rows=[{**found[0], "value": "no"}, WINDOW], **where) == 2


@pytest.mark.parametrize("annotator", [5, 2.5, "  Ana   Maria "])
def test_an_annotator_may_be_a_number(where, annotator):
    assert bacpipe.label_windows(rows=WINDOW, annotator=annotator, **where) == 1
    (name,) = bacpipe.people_labels(**where)["annotator"]
    assert name == " ".join(str(annotator).split())


def test_rows_are_counted_as_they_were_given(where):
    rows = pd.DataFrame([{**WINDOW, "value": ""}] * 5 + [{**WINDOW, "start": 8, "value": "yes"}])
    with pytest.raises(bacpipe.BacpipeError, match="row 6 ends at 1 before it starts at 8"):
        bacpipe.label_windows(rows=rows, **where)


def test_only_recordings_have_labels(where):
    (where["audio_dir"] / "notes.txt").write_text("no sound")
    with pytest.raises(bacpipe.BacpipeError, match=r"the column recording names notes.txt"):
        bacpipe.label_windows(rows={**WINDOW, "recording": "notes.txt"}, **where)
