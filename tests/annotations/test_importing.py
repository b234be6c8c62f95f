"""Annotation tables of other programs."""

import pytest

import bacpipe
from bacpipe.errors import AnnotationsError, SettingsError
from tests.conftest import write_recording

KEYS = ["audiofilename", "start", "end", "label:species"]
RECORDINGS = (
    "north/20240301_060000.wav",
    "north/20240301_060000.flac",
    "south/20240302_183000.wav",
    "quiet.wav",
)


@pytest.fixture(scope="module")
def audio_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("importing")
    for name in RECORDINGS:
        write_recording(folder / name, 4.0)
    return folder


@pytest.fixture
def read(tmp_path, audio_dir):
    def read_file(name, content, **kwargs):
        path = tmp_path / "tables" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return bacpipe.import_annotations(path, audio_dir, **kwargs)[KEYS].to_numpy().tolist()

    return read_file


RAVEN = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)"


def test_raven_table_by_hand(read):
    rows = (
        f"{RAVEN}\tSpecies\n"
        "1\tWaveform 1\t1\t1.5\t2.5\t0\t4000\trobin\n"
        "1\tSpectrogram 1\t1\t1.5\t2.5\t0\t4000\trobin\n"
        "2\tSpectrogram 1\t1\t3\t3.5\t0\t4000\twren\n"
    )
    expected = [["quiet.wav", 1.5, 2.5, "robin"], ["quiet.wav", 3.0, 3.5, "wren"]]
    assert read("quiet.Table.1.selections.txt", rows) == expected
    assert read("quiet_tiny.selection.table.txt", rows, format="raven") == expected
    assert read("quiet.txt", rows.replace("Species", "Who"), source_column="who") == expected
    with pytest.raises(AnnotationsError, match=r"source_column=, found Selection"):
        read("quiet.txt", rows.replace("Species", "Who"))
    with pytest.raises(AnnotationsError, match=r"loud\.txt: by its name.*belongs to no recording"):
        read("loud.txt", rows)
    with pytest.raises(AnnotationsError, match="could belong to north"):
        read("20240301_060000.txt", rows)
    with pytest.raises(AnnotationsError, match=r"'End Time \(s\)' holds 'x' in row 2"):
        read("quiet.txt", rows.replace("\t2.5\t", "\tx\t"))


def test_raven_table_over_several_recordings(read):
    rows = (
        f"{RAVEN}\tAnnotation\tBegin File\tFile Offset (s)\n"
        "1\tSpectrogram 1\t1\t1.5\t2.5\t0\t4000\trobin\tquiet.wav\t1.5\n"
        "2\tSpectrogram 1\t1\t6\t7\t0\t4000\twren\t20240302_183000.wav\t2\n"
    )
    assert read("all.txt", rows) == [
        ["quiet.wav", 1.5, 2.5, "robin"],
        ["south/20240302_183000.wav", 2.0, 3.0, "wren"],
    ]
    without = "\n".join(line.rpartition("\t")[0] for line in rows.splitlines())
    with pytest.raises(AnnotationsError, match="about 2 recordings, but has no column"):
        read("all.txt", without)


def test_audacity_labels_by_hand(read):
    rows = "0.5\t1.5\trobin\n\\\t1000\t2000\n2\t3\twren\n3.5\t3.5\tpoint\n"
    assert read("quiet.txt", rows) == [
        ["quiet.wav", 0.5, 1.5, "robin"],
        ["quiet.wav", 2.0, 3.0, "wren"],
    ]
    with pytest.raises(AnnotationsError, match="line 2 is 'robin 2 3'"):
        read("quiet.txt", "0.5\t1.5\trobin\nrobin 2 3\n")


def test_formats_of_crowsetta(read):
    pytest.importorskip("crowsetta", reason="needs the extra 'annotations'")
    simple = "onset_s,offset_s,label\n0.5,1.5,robin\n2.0,3.25,wren\n"
    assert read("quiet.wav.csv", simple, format="simple-seq") == [
        ["quiet.wav", 0.5, 1.5, "robin"],
        ["quiet.wav", 2.0, 3.25, "wren"],
    ]
    boxes = "0.5\t1.5\trobin\n\\\t1000.0\t2000.0\n"
    assert read("quiet.txt", boxes, format="aud-bbox") == [["quiet.wav", 0.5, 1.5, "robin"]]
    with pytest.raises(AnnotationsError, match="cannot be read as simple-seq"):
        read("quiet.wav.csv", "a,b\n1,2\n", format="simple-seq")
    with pytest.raises(SettingsError, match=r"format='praat' is not possible.*textgrid"):
        read("quiet.csv", simple, format="praat")


def test_sources_that_are_not_there(audio_dir, tmp_path):
    with pytest.raises(AnnotationsError, match="no such file or folder"):
        bacpipe.import_annotations(tmp_path / "none", audio_dir)
    with pytest.raises(AnnotationsError, match="no such file"):
        bacpipe.import_annotations(tmp_path / "none.txt", audio_dir, format="raven")
    with pytest.raises(AnnotationsError, match="no file here"):
        bacpipe.import_annotations(tmp_path, audio_dir, format="raven")
    with pytest.raises(SettingsError, match="say which format"):
        bacpipe.import_annotations(tmp_path, audio_dir)


def test_joined_raven_tables_keep_every_selection(read):
    heading = f"{RAVEN}\tAnnotation\tBegin File\tFile Offset (s)\n"
    one = "1\tSpectrogram 1\t1\t1\t2\t0\t4000\trobin\tquiet.wav\t1\n"
    wave = one.replace("Spectrogram", "Waveform")
    other = one.replace("quiet.wav", "20240302_183000.wav").replace("robin", "owl")
    later = "1\tSpectrogram 1\t1\t2.5\t3\t0\t4000\twren\tquiet.wav\t2.5\n"
    duet = one.replace("robin", "rail")  # two labels of one selection in one view
    expected = [
        ["quiet.wav", 1.0, 2.0, "robin"],
        ["south/20240302_183000.wav", 1.0, 2.0, "owl"],
        ["quiet.wav", 2.5, 3.0, "wren"],
        ["quiet.wav", 1.0, 2.0, "rail"],
    ]
    assert read("all.txt", heading + wave + one + other + heading + later + duet.replace(
        "Spectrogram", "Waveform")) == expected  # fmt: skip


def test_table_with_a_decomposed_accent(tmp_path):
    write_recording(tmp_path / "for\u00eat.wav", 4.0)
    table = tmp_path / "fore\u0302t.txt"  # as macOS writes it
    table.write_text("0.5\t1.5\trobin\n")
    (name,) = bacpipe.import_annotations(table, tmp_path)["audiofilename"]
    assert name == "for\u00eat.wav"


KALEIDOSCOPE = "INDIR,FOLDER,IN FILE,CHANNEL,OFFSET,DURATION,Fmin,AUTO ID*,MANUAL ID\n"


@pytest.mark.parametrize(
    ("name", "rows", "expected"),
    [
        (
            "id.csv",
            f"{KALEIDOSCOPE}D:\\x,north,20240301_060000.wav,0,1.5,2,9,MYOMYO,Wren\n",
            [["north/20240301_060000.wav", 1.5, 3.5, "Wren"]],
        ),
        (  # nobody has looked at it yet; the folder is another one; decimal commas
            "id.csv",
            f'{KALEIDOSCOPE}D:\\x,old,quiet.wav,0,"1,5","0,25",9,PIPPIP,\n'.replace("\n", "\r\n"),
            [["quiet.wav", 1.5, 1.75, "PIPPIP"]],
        ),
        (
            "BirdNET_CombinedTable.csv",
            "Start (s),End (s),Scientific name,Common name,Confidence,File\n"
            "0.0,3.0,Strix varia,Barred Owl,0.42,/home/me/quiet.wav\n",
            [["quiet.wav", 0.0, 3.0, "Barred Owl"]],
        ),
        (
            "quiet.BirdNET.results.csv",
            "sep=;\nStart (s);End (s);Scientific name;Common name;Confidence\n"
            "0,0;3,0;Strix varia;Barred Owl;0,42\n",
            [["quiet.wav", 0.0, 3.0, "Barred Owl"]],
        ),
        (
            "quiet.BirdNET.results.r.csv",
            "filepath,start,end,scientific_name,common_name,confidence\n"
            "south/20240302_183000.wav,0,3,Strix varia,Barred Owl,0.42\n",
            [["south/20240302_183000.wav", 0.0, 3.0, "Barred Owl"]],
        ),
        (
            "found.csv",
            "input,start_time,end_time,species_name,confidence\n"
            '"/p/quiet.wav","00:00:01.50","00:00:03.00","Strix varia_Barred Owl",0.4\n',
            [["quiet.wav", 1.5, 3.0, "Strix varia_Barred Owl"]],
        ),
        ("quiet.csv", "1.25,0,1.5,owl\n3,0,0.5,wren\n", [["quiet.wav", 1.25, 2.75, "owl"],
                                                     ["quiet.wav", 3.0, 3.5, "wren"]]),
        ("quiet.csv", "TIME,VALUE,DURATION,LEVEL,LABEL\n1.25,0,1.5,1,owl\n",
         [["quiet.wav", 1.25, 2.75, "owl"]]),
        (
            "quiet.svl",
            '<?xml version="1.0"?><!DOCTYPE sonic-visualiser><sv><data>'
            '<model id="1" sampleRate="8000" subtype="region"/><dataset>'
            '<point frame="8000" value="0" duration="4000" label="owl"/></dataset></data></sv>',
            [["quiet.wav", 1.0, 1.5, "owl"]],
        ),
        ("quiet.csv", "1.25,900,1.5,300,owl\n", [["quiet.wav", 1.25, 2.75, "owl"]]),  # a box
        ("quiet.txt", "0,5\t1,5\trobin\n", [["quiet.wav", 0.5, 1.5, "robin"]]),
        # BirdNET's confidence follows
        ("quiet.txt", "0.5\t1.5\tStrix varia, Owl\t0.9\n",
         [["quiet.wav", 0.5, 1.5, "Strix varia, Owl"]]),
        (  # Raven, saved by a spreadsheet
            "quiet.csv",
            RAVEN.replace("\t", ";") + ";Species\n1;Spectrogram 1;1;1,5;2,5;0;1;robin\n",
            [["quiet.wav", 1.5, 2.5, "robin"]],
        ),
    ],
)  # fmt: skip
def test_tables_of_other_programs_are_told_and_read(read, name, rows, expected):
    assert read(name, rows) == expected


@pytest.mark.parametrize("name", ["raven", "audacity", "kaleidoscope", "birdnet",
                                  "sonic-visualiser", "csv"])  # fmt: skip
def test_folders_with_empty_tables_and_files_of_others(
    name, audio_dir, tmp_path, caplog, monkeypatch
):
    heading, row, suffix = {
        "raven": (f"{RAVEN}\tSpecies\n", "1\tSpectrogram 1\t1\t1\t2\t0\t9\tKäuzchen\n", ".txt"),
        "audacity": ("", "1\t2\tKäuzchen\n", ".txt"),
        "kaleidoscope": ("IN FILE,OFFSET,DURATION,MANUAL ID\n", "quiet.wav,1,1,Käuzchen\n", ".csv"),
        "birdnet": ("Start (s),End (s),Common name\n", "1,2,Käuzchen\n", ".csv"),
        "sonic-visualiser": ("", "1,0,1,Käuzchen\n", ".CSV"),
        "csv": ("audiofilename,start,end,label:species\n", "quiet.wav,1,2,Käuzchen\n", ".csv"),
    }[name]
    folder = tmp_path / "tables"
    folder.mkdir()
    (folder / f"quiet{suffix}").write_bytes((heading + row).encode("utf-16"))
    (folder / f"20240302_183000{suffix}").write_text(heading)
    (folder / f"20240301_060000{suffix}").write_text("")
    (folder / f"readme{suffix}").write_bytes(b"see the field book, p. 7\n\xff")
    (folder / f"._quiet{suffix}").write_bytes(b"\0\5\7")
    table = bacpipe.import_annotations(folder, audio_dir, format=name)
    assert table[KEYS].to_numpy().tolist() == [["quiet.wav", 1.0, 2.0, "Käuzchen"]]
    assert [r.getMessage() for r in caplog.records] == [
        f"tables: 1 file left out, because it is not in the format {name!r}: readme{suffix}."
    ]
    (folder / f"quiet{suffix}").write_bytes((heading + row).encode("cp1252"))
    with pytest.raises(AnnotationsError, match=r"encoding='cp1252'"):
        bacpipe.import_annotations(folder, audio_dir, format=name)
    again = bacpipe.import_annotations(folder, audio_dir, format=name, encoding="cp1252")
    assert again.equals(table)
    (folder / f"quiet{suffix}").write_text(heading)
    with pytest.raises(AnnotationsError, match="holds no annotations"):
        bacpipe.import_annotations(folder, audio_dir, format=name)


def test_tables_of_no_recording_are_left_out_of_a_folder(audio_dir, tmp_path, caplog):
    for name in ("quiet", "loud", "gone"):
        (tmp_path / f"{name}.txt").write_text("1\t2\trobin\n")
    table = bacpipe.import_annotations(tmp_path, audio_dir, format="audacity")
    assert table["audiofilename"].to_list() == ["quiet.wav"]
    assert "2 tables left out" in caplog.text
    assert "gone.txt, loud.txt" in caplog.text


def test_what_lies_behind_the_end_is_named_with_file_and_row(audio_dir, tmp_path, caplog):
    (tmp_path / "quiet.txt").write_text("1\t2\trobin\n\n3.5\t4.05\twren\n3.5\t40\tlong\n")
    (tmp_path / "20240302_183000.txt").write_text("7\t8\towl\n")
    table = bacpipe.import_annotations(tmp_path, audio_dir, format="audacity")
    assert len(table) == 4
    (message,) = [record.getMessage() for record in caplog.records]
    assert "2 annotations end behind the end" in message
    assert "row 1 of 20240302_183000.txt (7 to 8 s of south/20240302_183000.wav" in message
    assert "row 4 of quiet.txt (3.5 to 40 s of quiet.wav, which has 4.0 s)" in message


def test_only_the_ending_differs(read, caplog):
    rows = "audiofilename,start,end,label:species\nsouth/20240302_183000.mp3,1,2,a\n"
    with pytest.raises(AnnotationsError, match=r"differs from south/20240302_183000\.wav only in"):
        read("a.csv", rows)
    read("a.csv", f"{rows}quiet.wav,1,2,b\nloud.wav,1,2,c\n")
    assert "only in the ending" in caplog.text


def test_a_table_of_another_program_in_the_place_of_ours_is_called_by_its_name(tmp_path):
    audio = tmp_path / "audio"
    write_recording(audio / "r0.wav", 1.0)
    (audio / "annotations.csv").write_text("IN FILE,OFFSET,DURATION\nr0.wav,0,1\n")
    with pytest.raises(AnnotationsError, match=r"format 'kaleidoscope'.*import_annotations"):
        bacpipe.ground_truth_by_model("birdnet", audio, main_results_dir=tmp_path / "results")
    (audio / "annotations.csv").write_text("filename,offset,label\nr0.wav,0,1\n")
    with pytest.raises(AnnotationsError) as told:
        bacpipe.ground_truth_by_model("birdnet", audio, main_results_dir=tmp_path / "results")
    assert "rename 'filename'" in str(told.value)
    assert "'offset' to 'end'" not in str(told.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("quiet.svl", "<?xml?><!DOCTYPE a [<!ENTITY b 'c'>]><sv>&b;</sv>"),
        ("quiet.svl", "<?xml version='1.0'?><sv><model sampleRate='0'/></sv>"),
        ("quiet.svl", "<sv><point frame='x'/></sv>"),
        ("quiet.csv", "1,0,1,owl\nx,0,1,owl\n"),
        ("quiet.csv", "TIME,LABEL\n1,owl\n"),
    ],
)
def test_odd_layers_of_sonic_visualiser_get_a_sentence(read, name, text):
    with pytest.raises(AnnotationsError, match="Sonic Visualiser"):
        read(name, text, format="sonic-visualiser")


def test_labels_of_tables_like_ours_are_where_it_is_said(read):
    rows = "audiofilename,start,end,Species,label:species\nquiet.wav,0,1,robin,x\n"
    assert read("own.csv", rows) == [["quiet.wav", 0.0, 1.0, "x"]]
    assert read("own.csv", rows, source_column="species") == [["quiet.wav", 0.0, 1.0, "robin"]]
    with pytest.raises(AnnotationsError, match="no column 'kind'"):
        read("own.csv", rows, source_column="kind")
    with pytest.raises(AnnotationsError, match=r"no column holds labels.*found Species"):
        read("bare.csv", "audiofilename,start,end,Species\nquiet.wav,0,1,robin\n")
    with pytest.raises(SettingsError, match="'audacity' have no columns"):
        read("quiet.txt", "0\t1\trobin\n", format="audacity", source_column="Species")


def test_numbers_that_may_be_thousands_are_told(read):
    head = "audiofilename,start,end,label:species\n"
    with pytest.raises(AnnotationsError, match=r"holds '1,200' in row 3.*a thousand or a decimal"):
        read("t.csv", f'{head}quiet.wav,950,953,x\nquiet.wav,"1,200","1,203",x\n')
    decimal = f'{head}quiet.wav,"0,5",1,x\nquiet.wav,"1,125",2,x\n'
    assert [row[1:3] for row in read("d.csv", decimal)] == [[0.5, 1.0], [1.125, 2.0]]
    plain = head.replace(",", ";") + "quiet.wav;0;1,500;x\nquiet.wav;1,125;2,250;x\n"
    assert [row[1:3] for row in read("p.csv", plain)] == [[0.0, 1.5], [1.125, 2.25]]


def test_a_heading_that_is_missing_is_told(read):
    with pytest.raises(AnnotationsError, match=r"row 1 holds quiet.wav, 1, 2, robin, where the"):
        read("none.csv", "quiet.wav,1,2,robin\n")
