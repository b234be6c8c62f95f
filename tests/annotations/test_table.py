import codecs
import logging

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bacpipe.annotations.table import (
    RecordingNames,
    annotated_segments,
    check_annotations,
    read_annotations,
    require_label_column,
)
from bacpipe.errors import AnnotationsError
from bacpipe.store.files import write_csv

RECORDINGS = ["a/x.wav", "a/y.wav", "b/y.wav", "z.WAV", "größe.wav"]
HEADER = "audiofilename,start,end,label:species\n"


@pytest.fixture
def read(tmp_path):
    def read_table(content, recordings=RECORDINGS):
        path = tmp_path / "annotations.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_annotations(path, recordings)

    return read_table


def test_table_in_its_normal_form(read):
    table = read(HEADER.strip() + ",label:call_type,note\na/x.wav,0,5.5,Cuckoo,,hm\n")
    assert list(table.columns) == [
        "audiofilename",
        "start",
        "end",
        "label:species",
        "label:call_type",
    ]
    assert table["start"].dtype == table["end"].dtype == "float64"
    row = table.iloc[0]
    assert (row.audiofilename, row.start, row.end, row["label:species"]) == (
        "a/x.wav",
        0.0,
        5.5,
        "Cuckoo",
    )
    assert pd.isna(row["label:call_type"])


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("a/x.wav", "a/x.wav"),
        ("a\\y.wav", "a/y.wav"),
        ("./a/x.wav", "a/x.wav"),
        ("x.wav", "a/x.wav"),
        ("z.wav", "z.WAV"),
        ("/data/2024/a/y.wav", "a/y.wav"),
        (r"D:\data\b\y.wav", "b/y.wav"),
        ("gro\u0308ße.wav", "größe.wav"),
        ("q.wav", None),
        ("c/x.wav", None),
    ],
)
def test_names_of_recordings(given, meant):
    assert RecordingNames(RECORDINGS).find(given) == ([meant] if meant else [])


def test_what_was_escaped_for_spreadsheets_is_what_it_was(tmp_path):
    names = ["-12_site.wav", "'+13.wav", "=a/@b.wav", "'x.wav"]
    labels = ["=wren", "'-owl", "'s", "-3 dB"]
    table = pd.DataFrame(
        {"audiofilename": names, "start": 0.0, "end": [1.0, 2.0, 3.0, 4.0], "label:species": labels}
    )
    for escape in (True, False):
        write_csv(tmp_path / "annotations.csv", table, escape_formulas=escape)
        back = read_annotations(tmp_path / "annotations.csv", names)
        assert back["audiofilename"].tolist() == names
        if escape:
            pd.testing.assert_frame_equal(back, table)
    assert RecordingNames(["-a.wav", "'-a.wav"]).find("'-a.wav") == ["'-a.wav"]
    assert RecordingNames(["a.wav"]).find("'a.wav") == []


SITES = "SITE-A/x.wav,0,1,wren\nSITE-B/x.wav,2,3,owl\nSITE-B/y.wav,4,5,owl\n"


def test_rows_of_other_folders_are_not_taken_for_recordings_of_this_one(tmp_path, caplog):
    for folder, expected in (
        ("SITE-A", [("x.wav", "wren")]),
        ("site-b", [("x.wav", "owl"), ("y.wav", "owl")]),
    ):
        table = tmp_path / folder / "annotations.csv"
        table.parent.mkdir()
        table.write_text(HEADER + SITES)
        found = read_annotations(table, ["x.wav", "y.wav"])
        assert [*zip(found["audiofilename"], found["label:species"], strict=True)] == expected
    assert "1 row left out" in caplog.text and "SITE-A/x.wav" in caplog.text
    (tmp_path / "annotations.csv").write_text(HEADER + SITES)
    with pytest.raises(AnnotationsError, match=r"'SITE-A/x.wav' and 'SITE-B/x.wav' could be x.wav"):
        read_annotations(tmp_path / "annotations.csv", ["x.wav"])
    (tmp_path / "annotations.csv").write_text(HEADER + "x.wav,0,1,wren\n" + SITES)
    with pytest.raises(AnnotationsError, match=r"'SITE-A/x.wav' and 'SITE-B/x.wav' could be x.wav"):
        read_annotations(tmp_path / "annotations.csv", ["x.wav"])
    # The same folder from elsewhere is one folder.
    one = "D:/data/SITE-C/x.wav,0,1,wren\nD:\\data\\SITE-C\\y.wav,0,1,wren\n"
    (tmp_path / "annotations.csv").write_text(HEADER + one)
    assert len(read_annotations(tmp_path / "annotations.csv", ["x.wav", "y.wav"])) == 2


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_quotation_mark_that_does_not_close_is_told(read, end):
    with pytest.raises(AnnotationsError, match="in line 3 there is a quotation mark that does not"):
        read(HEADER + 'a/x.wav,0,1,wren\na/x.wav,1,2,"owl\na/x.wav,3,4,wren' + end)
    table = read(HEADER + 'a/x.wav,0,1,"a wren\nand ""another"" one"\na/x.wav,1,2,"owl"' + end)
    assert len(table) == 2


def test_case_counts_only_between_two_recordings():
    names = RecordingNames(["a.wav", "A.wav"])
    assert names.find("a.wav") == ["a.wav"]
    assert names.find("A.WAV") == ["a.wav", "A.wav"]
    assert names.find(r"D:\garden\A.wav") == ["A.wav"]
    assert names.find("/garden/a.wav") == ["a.wav"]


@pytest.mark.parametrize(
    "content",
    [
        "audiofilename;start;end;label:species\r\na/x.wav;0,5;1,25;owl\r\n",
        "audiofilename\tstart\tend\tlabel:species\na/x.wav\t0.5\t1.25\towl\n",
        "audiofilename|start|end|label:species\na/x.wav|0.5|1.25|owl",
        codecs.BOM_UTF8 + (HEADER + "a/x.wav,0.5,1.25,owl\n").encode(),
        (HEADER + "a/x.wav,0.5,1.25,owl\n").encode("utf-16"),
        HEADER.strip() + ",,\na/x.wav,0.5,1.25,owl,,\n,,,,,\n",
        "\n\n label:species , end ,start,audiofilename\nowl, 1.25 ,5e-1, a/x.wav \n",
        HEADER + '"a/x.wav","0.5","1,25","owl"\n',
    ],
    ids=["semicolon", "tab", "bar", "bom", "utf-16", "spreadsheet", "order", "quotes"],
)
def test_dialects(read, content):
    table = read(content)
    assert table.to_numpy().tolist() == [["a/x.wav", 0.5, 1.25, "owl"]]


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("", ["empty", "audiofilename"]),
        (HEADER, ["no rows"]),
        ("file,start,end\nx.wav,1,2\n", ["'audiofilename' is missing", "rename 'file'"]),
        (
            "filename,onset,offset,label:species\nx.wav,1,2,a\n",
            ["'audiofilename', 'start', 'end' are missing", "rename 'onset' to 'start'"],
        ),
        ("audiofilename,start,end,start\nx.wav,1,2,3\n", ["'start'", "twice"]),
        (HEADER + "x.wav,1,abc,a\nx.wav,1,?,a\n", ["'end'", "'abc'", "row 2", "2 such rows"]),
        (HEADER + "x.wav,1,2,a\n\nx.wav,,2,a\n", ["'start'", "''", "row 4"]),
        (HEADER + "x.wav,1,inf,a\n", ["'inf'", "row 2"]),
        (HEADER + "x.wav,4,2,a\n", ["row 2", "ends at 2 before it starts at 4"]),
        (HEADER + ",1,2,a\n", ["'audiofilename' is empty", "row 2"]),
        (HEADER + "y.wav,1,2,a\n", ["'y.wav'", "row 2", "a/y.wav or b/y.wav"]),
        (HEADER + "q.wav,1,2,a\n", ["no row", "q.wav", "a/x.wav"]),
        (HEADER + "x.wav,1,2,a,b\n", ["row 2", "5 cells", "4 columns"]),
        ((HEADER + "x.wav,1,2,\xe4\n").encode("latin-1"), ["line 2", "UTF-8"]),
    ],
)
def test_mistakes_are_named(read, content, parts):
    with pytest.raises(AnnotationsError) as raised:
        read(content)
    for part in ["annotations.csv", *parts]:
        assert part in str(raised.value)


def test_missing_file(tmp_path):
    with pytest.raises(AnnotationsError, match=r"nothing\.csv: there is no such file"):
        read_annotations(tmp_path / "nothing.csv", RECORDINGS)


def test_unknown_recordings_are_counted_and_listed_once(read, caplog):
    with caplog.at_level(logging.WARNING):
        table = read(HEADER + "x.wav,1,2,a\nq.wav,1,2,a\nq.wav,3,4,b\nr.wav,1,2,a\n")
    assert len(table) == 1
    (message,) = caplog.messages
    assert "3 rows left out" in message and "2 files" in message and "q.wav, r.wav" in message


def test_rows_without_length_or_twice_or_before_zero(read, caplog):
    rows = "x.wav,1,1,a\nx.wav,-2,1,a\nx.wav,-3,-2,a\nx.wav,1,2,a\nx.wav,1,2,a\nx.wav,1,2,b\n"
    with caplog.at_level(logging.WARNING):
        table = read(HEADER + rows)
    assert table[["start", "end", "label:species"]].to_numpy().tolist() == [
        [0.0, 1.0, "a"],
        [1.0, 2.0, "a"],
        [1.0, 2.0, "b"],
    ]
    assert "2 annotations of zero length left out (row 2, 4)" in caplog.text


def test_label_may_be_called_na(read):
    assert read(HEADER + "x.wav,1,2,NA\n")["label:species"].tolist() == ["NA"]


def test_label_column_by_either_name(read):
    table = read(HEADER + "x.wav,1,2,a\n")
    assert require_label_column(table, "species") == "label:species"
    assert require_label_column(table, "label:species") == "label:species"
    with pytest.raises(AnnotationsError, match="did you mean label_column='species'"):
        require_label_column(table, "specie")
    table = read("audiofilename,start,end,species\nx.wav,1,2,a\n")
    with pytest.raises(AnnotationsError, match=r"'label:species' is missing.*begin with 'label:'"):
        require_label_column(table, "species")


def test_data_frame_of_numbers():
    frame = pd.DataFrame(
        {"audiofilename": ["x.wav"], "start": [0.1], "end": [1], "label:n": [3]}, index=[99]
    )
    table = check_annotations(frame, RECORDINGS)
    assert table.to_numpy().tolist() == [["a/x.wav", 0.1, 1.0, "3"]]
    frame.loc[99, "end"] = float("nan")
    with pytest.raises(AnnotationsError, match="label_df: the column 'end' holds '' in row 1"):
        check_annotations(frame, RECORDINGS)


def test_segments(read):
    rows = "z.wav,5,6,a\nx.wav,3,9,a\nx.wav,1,2,a\nx.wav,1,2,b\nx.wav,4,4.64,c\nz.wav,0,0.65,d\n"
    assert annotated_segments(read(HEADER + rows), 0.65) == {
        "a/x.wav": ((1.0, 2.0), (3.0, 9.0)),
        "z.WAV": ((0.0, 0.65), (5.0, 6.0)),
    }


VALID = (HEADER + 'x.wav,0,5.5,"owl"\na\\y.wav,1,2,wren\nz.wav,3,4,\n').encode()


@st.composite
def damaged_tables(draw):
    content = bytearray(VALID)
    for _ in range(draw(st.integers(0, 6))):
        place = draw(st.integers(0, len(content)))
        content[place : place + draw(st.integers(0, 4))] = draw(st.binary(max_size=4))
    return bytes(content)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.one_of(damaged_tables(), st.binary(max_size=60)))
def test_any_bytes_are_a_table_or_a_sentence(read, content):
    try:
        table = read(content)
    except AnnotationsError as error:
        assert "annotations.csv" in str(error)
    else:
        assert set(table["audiofilename"]) <= set(RECORDINGS)
        assert (table["end"] > table["start"]).all() and (table["start"] >= 0).all()
