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
