"""Where recordings were made: the table of sites, settings, and metadata of recorders."""

from __future__ import annotations

import shlex
import struct
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from bacpipe.commands import sites as command
from bacpipe.errors import SettingsError, SitesError
from bacpipe.options import Options, make_options
from bacpipe.places.positions import recorder_position, zone_at
from bacpipe.places.sites import Site, Sites, check_sites, read_sites, sites_text
from bacpipe.user_input import typed_zone
from tests.conftest import write_recording


def write_wave(path: Path, *chunks: tuple[bytes, bytes]) -> Path:
    """A short recording with further chunks behind its sound."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, np.zeros(800), 8000, subtype="PCM_16")
    data = bytearray(path.read_bytes())
    for identifier, content in chunks:
        data += identifier + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)
    data[4:8] = struct.pack("<I", len(data) - 8)
    path.write_bytes(bytes(data))
    return path


def wamd(text: bytes) -> bytes:
    fields = [(0, b"\x01\x00"), (5, b"2025-05-03 04:00:00"), (6, text)]
    return b"".join(struct.pack("<HI", number, len(value)) + value for number, value in fields)


def table(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sites.csv").write_text(text, encoding="utf-8")
    return folder


DAY = datetime(2025, 5, 3, 4)
POND = "site,latitude,longitude\npond,52.5,13.4\n"


@pytest.mark.parametrize(
    ("chunk", "expected"),
    [
        ((b"guan", b"GUANO|Version: 1.0\nLoc Position: 52.146 4.474\n"), (52.146, 4.474)),
        ((b"guan", b"loc position:-33.5, +151.25 \0"), (-33.5, 151.25)),
        ((b"wamd", wamd(b"WGS84,42.5,N,71.25,W,12.0")), (42.5, -71.25)),
        ((b"wamd", wamd(b"WGS84, -42.5, 71.25")), (-42.5, 71.25)),
        # The example of the specification, http://www.gallery.co.uk/ixml/object_Details.html
        ((b"iXML", b"<BWFXML><IXML_VERSION>1.61</IXML_VERSION><LOCATION>\n"
                   b"<LOCATION_NAME>Forest</LOCATION_NAME>\n"
                   b"<LOCATION_GPS>47.756787, -123.729977</LOCATION_GPS>\n"
                   b"<LOCATION_ALTITUDE>412.5</LOCATION_ALTITUDE></LOCATION></BWFXML>"),
         (47.756787, -123.729977)),
        ((b"bext", b"song, lat=52.5 lon=-1.25".ljust(602, b"\0")), (52.5, -1.25)),
        ((b"guan", b"Loc Position: 0.0 0.0"), None),  # no fix
        ((b"guan", b"Loc Position: 91 4"), None),
        ((b"guan", b"Loc Position: ?? ??"), None),
        ((b"guan", b"Loc Elevation: 12"), None),
        ((b"wamd", b"\x06\x00\xff\xff\xff\xff\xff"), None),
        ((b"wamd", wamd(b"\xff\xfe,1,2")), None),
        ((b"bext", b"flat=3 lone wolf".ljust(602, b"\0")), None),
    ],
)  # fmt: skip
def test_positions_in_metadata(tmp_path, chunk, expected):
    assert recorder_position(write_wave(tmp_path / "a.wav", chunk)) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("20221010T010000+0000_REC [-38.36231+145.31787].wav", (-38.36231, 145.31787)),
        ("00033565_20250216T150000+0100_REC [-03.94513+011.34217].wav", (-3.94513, 11.34217)),
        ("20181005_000000_REC [-27.3866 152.8761].flac", (-27.3866, 152.8761)),
        ("20221010T010000+0000_REC [+0.0+0.0].wav", None),  # no fix
        ("20221010T010000+0000_REC [-98.36231+145.31787].wav", None),
        ("A [12-34].wav", None),
        ("A [2025.05 03.04].wav", None),
    ],
)
def test_positions_in_names(tmp_path, name, expected):
    write_recording(tmp_path / name, 1.0)
    assert recorder_position(tmp_path / name) == expected


def test_positions_in_comments_of_flac(tmp_path):
    path = write_recording(tmp_path / "20200101_REC [+1.5+2.5].flac", 1.0)
    text = b"SensorLocation=-27.3866+152.8761"
    block = struct.pack("<I", 13) + b"Frontier Labs" + struct.pack("<II", 1, len(text)) + text
    content = path.read_bytes()
    size = int.from_bytes(content[5:8])
    head = bytes([4]) + len(block).to_bytes(3)
    assert content[4] & 127 == 0 and content[4] < 128
    path.write_bytes(content[: 8 + size] + head + block + content[8 + size :])
    assert recorder_position(path) == (-27.3866, 152.8761)  # before that of the name
    path.write_bytes(path.read_bytes()[: 8 + size + 2])  # cut
    assert recorder_position(path) == (1.5, 2.5)


def test_a_row_for_a_recording_with_brackets(tmp_path):
    name = "20221010T010000+0000_REC [-38.36231+145.31787].wav"
    sites = Sites(table(tmp_path / "r", f"site,lat,lon\npond/{name},52.5,13.4\n"), Options())
    found = sites.of(f"pond/{name}", DAY)
    assert found is not None and found.position == (52.5, 13.4)


def test_positions_of_files_without_metadata(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"text")
    assert recorder_position(tmp_path / "a.wav") is None
    assert recorder_position(tmp_path / "missing.wav") is None


@pytest.mark.parametrize(
    ("site", "yes", "no"),
    [
        ("pond", ["pond/a.wav", "2025/pond/x/a.wav"], ["ponds/a.wav", "lake/pond.wav", "a.wav"]),
        ("2025/pond/", ["2025/pond/a.wav"], ["2024/pond/a.wav"]),
        ("2025\\pond", ["2025/pond/a.wav"], ["pond/a.wav"]),
        ("pond/a.wav", ["pond/a.wav", "2025/pond/a.wav"], ["pond/b.wav"]),
        ("A*", ["A1/a.wav", "2025/A2/b.wav"], ["B/a.wav"]),
        ("pond/2025*", ["pond/20250503_040000.wav"], ["pond/20240503_040000.wav"]),
        (".", ["a.wav", "x/y/a.wav"], []),
        ("Mu\u0308hle", ["M\u00fchle/a.wav"], ["Muhle/a.wav"]),
    ],
)
def test_what_a_site_means(tmp_path, site, yes, no):
    folder = table(tmp_path / "r", f"site,latitude,longitude\n{site},52.5,13.4\n")
    sites = Sites(folder, Options())
    for name in yes:
        found = sites.of(name, DAY)
        assert found is not None and found.position == (52.5, 13.4), name
    assert all(sites.of(name, DAY) is None for name in no)


def test_the_closest_row_counts(tmp_path):
    rows = ".,1,1\nA,2,2\nA/B,3,3\nA/*,4,4\nA/B/x.wav,5,5\n"
    sites = Sites(table(tmp_path / "r", f"site,lat,lon\n{rows}"), Options())
    wanted = {
        "x.wav": 1,
        "A/C/D/x.wav": 4,
        "A/x.wav": 4,
        "A/B/y.wav": 3,
        "A/B/x.wav": 5,
        "A/C/x.wav": 4,
    }
    assert {name: sites.of(name, DAY).latitude for name in wanted} == wanted
    assert sites.of("Z/x.wav", DAY).name == "Z"  # a row for all keeps folders apart


def test_rows_that_fit_equally_closely_are_told(tmp_path, caplog):
    folder = table(tmp_path / "r", "site,latitude,longitude\nA/*,1,1\n*/B,2,2\nA/C,3,3\n")
    sites = Sites(folder, Options())
    assert [sites.of(f"A/{name}.wav", DAY).latitude for name in ("B/x", "B/y", "C/x", "D/x")] == [
        *(1, 1, 3, 1)
    ]
    (told,) = [record.getMessage() for record in caplog.records]  # once
    assert "the rows A/* and */B mean A/B/x.wav equally closely; the first" in told


def test_deployments_decide_by_time(tmp_path):
    rows = "p,1,1,Europe/Berlin,2025-05-01,2025-05-03,oak\np,2,2,Europe/Berlin,2025-05-04,,beech\n"
    head = "site,latitude,longitude,time_zone,start,end,tree\n"
    sites = Sites(table(tmp_path / "r", head + rows), Options())
    name = "p/a.wav"
    assert sites.of(name, datetime(2025, 5, 3, 23, 59)).columns == {"tree": "oak"}
    assert sites.of(name, datetime(2025, 5, 4)).latitude == 2
    assert sites.of(name, datetime(2025, 5, 3, 22, 30, tzinfo=UTC)).latitude == 2  # 00:30 there
    assert sites.of(name, datetime(2025, 4, 30)) is None
    assert sites.of(name, None) is None  # either may be meant


def test_settings_and_metadata_stand_in(tmp_path):
    gps = (b"guan", b"Loc Position: 48.0 11.0")
    folder = tmp_path / "r"
    write_wave(folder / "pond" / "a.wav", gps)
    assert Sites(folder, Options()).of("pond/a.wav", DAY) == Site(
        "pond", 48.0, 11.0, source="metadata"
    )
    here = Options(latitude=1.5, longitude=2.5)
    assert Sites(folder, here).of("pond/a.wav", DAY).source == "setting"
    table(folder, "site,latitude,longitude,habitat\npond,,,reed\n")
    found = Sites(folder, Options()).of("pond/a.wav", DAY)
    assert (found.position, found.columns) == ((48.0, 11.0), {"habitat": "reed"})


def test_what_a_run_knew_is_remembered(tmp_path):
    folder = tmp_path / "r"
    write_wave(folder / "a" / "1.wav", (b"guan", b"Loc Position: 48.0 11.0"))
    write_wave(folder / "a" / "2.wav", (b"guan", b"Loc Position: 48.001 11.0"))
    write_wave(folder / "b" / "1.wav", (b"guan", b"Loc Position: 48.0 11.0"))
    write_wave(folder / "b" / "2.wav", (b"guan", b"Loc Position: 50.0 11.0"))
    names = ["a/1.wav", "a/2.wav", "b/1.wav", "b/2.wav"]
    used = Sites(folder, Options()).table((name, DAY) for name in names)
    assert [row.name for row in used] == ["a", "b/1.wav", "b/2.wav"]  # b has moved
    copy = tmp_path / "copy.csv"
    copy.write_text(sites_text(used, sources=True), encoding="utf-8")
    gone = Sites(tmp_path / "elsewhere", Options(), copy)
    assert [gone.of(name, DAY).latitude for name in names] == [48, 48, 48, 50]
    told = Sites(folder, Options(latitude=1, longitude=2, time_zone="UTC"))
    copy.write_text(sites_text(told.table((n, DAY) for n in names), sources=True), "utf-8")
    again = Sites(folder, Options(), copy).of("a/1.wav", DAY)
    assert (again.position, again.time_zone, again.source) == ((1, 2), "UTC", "setting")


@pytest.mark.parametrize(
    "data",
    [
        "\ufeffsite;latitude;longitude\npond;52,5;13,4\n".encode(),
        "Site\tLat\tLon\npond\t52.5\t13.4\n".encode("utf-16"),
        b"sep=;\r\nsite;latitude;longitude\r\npond;52,5;13,4\r\n",
        b'"sep=,"\nsite,latitude,longitude\npond,52.5,13.4\n',
        b"site,latitude,longitude\rpond,52.5,13.4\r",
        b"\nsite,lat,lng,note\n\npond,52.5,13.4,Stra\xdfe\n,,,\n",
    ],
)
def test_tables_as_spreadsheets_write_them(tmp_path, data):
    path = tmp_path / "t.csv"
    path.write_bytes(data)
    (row,) = read_sites(path)
    assert (row.name, row.position) == ("pond", (52.5, 13.4))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("site,latitude,longitude\nA,91,13\n", "row 2: latitude=91 is no place on Earth"),
        ("site,latitude,longitude\nA,nix,13\n", "latitude='nix' is no number"),
        ("site,latitude,longitude\nA,52,\n", "A has no longitude; fill in both, or none"),
        ("site,latitude,longitude\n,52,13\n", "row 2: it has no site"),
        ("site,latitude,longitude,time_zone\nA,5,1,Berlin\n", "did you mean 'Europe/Berlin'"),
        ("site,latitude,longitude,start\nA,5,1,3.5.2025\n", "start='3.5.2025' of A is no date"),
        ("site,latitude,longitude,start,end\nA,5,1,2025-05-02,2025-05-01\n", "before it starts"),
        ("site,latitude,longitude,start,end\nA,5,1,2025-01-01,\nA,6,1,2025-02-01,\n",
         "two deployments of A overlap"),
        ("site,latitude,longitude\nA,5,1\nA,6,1\n", "A has several rows without start and end"),
        ("site,lat,longitude,latitude\nA,5,1,6\n", "several columns latitude; leave one"),
        ("site latitude longitude\nA 5 1\n", "commas, semicolons or tabs between them"),
        ("site,latitude\nA,5\n", "there is no column longitude"),
        ("site,latitude,longitude\nA,52,52,13,40\n", "row 2: it has 5 values for 3 columns"),
        ("\n\n", "this table is empty"),
        (
            'site,latitude,longitude\n"A,1,1\n' + "x" * 200_000,
            "a quotation mark that does not close",
        ),
    ],
)  # fmt: skip
def test_mistakes_in_a_table_are_told(tmp_path, text, told):
    folder = table(tmp_path / "r", text)
    with pytest.raises(SitesError, match=told) as caught:
        Sites(folder, Options())
    assert str(folder / "sites.csv") in str(caught.value)


@pytest.mark.parametrize(
    ("start", "end"), [("2025-5-3", "2025/5/3"), ("2025-5-3 3:30", "2025-05-03T4:0"),
                       ("2025-05-03 3:30:5", "2025-5-3 4:00")]
)  # fmt: skip
def test_dates_with_single_digits(tmp_path, start, end):
    text = f"site,latitude,longitude,start,end\nA,1,1,{start},{end}\n"
    sites = Sites(table(tmp_path / "r", text), Options())
    assert sites.of("A/x.wav", DAY).latitude == 1
    assert sites.of("A/x.wav", DAY.replace(day=4)) is None


def test_a_zone_that_does_not_exist_has_one_hint():
    with pytest.raises(SettingsError) as caught:
        Options(time_zone="Europe/Berln")
    assert str(caught.value).lower().count("did you mean") == 1


@pytest.mark.parametrize("zone", ["CEST", "AEST", "BST", "IST", "EDT", "UTC+25"])
def test_no_zone_is_guessed_from_an_abbreviation(zone):
    with pytest.raises(ValueError, match=r"an offset; such as Europe/Berlin, UTC\+1 or UTC$"):
        typed_zone(zone)


def test_the_last_day_of_all(tmp_path):
    text = "site,latitude,longitude,start,end\nA,1,1,0001-01-01,9999-12-31\n"
    sites = Sites(table(tmp_path / "r", text), Options())
    assert sites.of("A/x.wav", datetime(9999, 12, 31, 23)).latitude == 1


def test_a_table_that_is_none(tmp_path):
    with pytest.raises(SitesError, match=r"none\.csv: there is no such file"):
        Sites(tmp_path, Options(sites="none.csv"))
    (tmp_path / "sites.csv").write_bytes(b"PK\x03\x04")
    with pytest.raises(SitesError, match="this is a workbook"):
        Sites(tmp_path, Options())


def test_all_mistakes_are_listed(tmp_path):
    folder = table(tmp_path / "r", "site,latitude,longitude\nA,91,1\nB,2,181\nC,3,3\n")
    rows, wrong = check_sites(folder / "sites.csv")
    assert [row.name for row in rows] == ["C"] and len(wrong) == 2


def test_command_drafts_and_checks(tmp_path, capsys):
    folder = tmp_path / "r"
    write_wave(folder / "pond" / "20250503_040000.wav")
    write_wave(folder / "gps" / "20250503_040000.wav", (b"guan", b"Loc Position: 48.0 11.0"))
    assert command.run([f"audio_dir={folder}"]) == 0
    draft = capsys.readouterr().out
    assert "a draft with 2 sites" in draft and "in 1 of them, the recordings themselves" in draft
    hint = shlex.split(draft.splitlines()[-1].split("bacpipe ", 1)[1])
    assert hint == ["sites", f"audio_dir={folder}"]
    rows = read_sites(folder / "sites.csv")
    assert {row.name: row.position for row in rows} == {"pond": None, "gps": (48.0, 11.0)}
    assert command.run([f"audio_dir={folder}"]) == 1
    assert "1 recording of sites whose position is not filled in" in capsys.readouterr().out
    table(folder, f"{POND}lake,1,2\n")
    assert command.run([f"audio_dir={folder}"]) == 0
    told = capsys.readouterr().out
    assert "pond: 1 recording; 52.5, 13.4; clock Europe/Berlin; 2025-05-03 04:00" in told
    assert "sunrise 05:3" in told and "Rows without recordings: lake." in told
    write_wave(folder / "far" / "20250503_040000.wav")
    assert command.run([f"audio_dir={folder}"]) == 1
    assert "1 recording of no site in the table" in capsys.readouterr().out
    with pytest.raises(SitesError, match=f"is there already; .*check it with: .*={folder}$"):
        command.run([f"audio_dir={folder}", "--to", str(folder / "sites.csv")])
    table(folder, "site,latitude,longitude\npond,99,1\n")
    assert command.run([f"audio_dir={folder}"]) == 1
    capsys.readouterr()
    table(folder, "site,latitude,longitude\n.,52,13\n")
    assert command.run([f"audio_dir={folder}"]) == 0
    assert "Rows without recordings" not in capsys.readouterr().out


@pytest.mark.parametrize("to", ["", "other.csv"])
def test_command_drafts_the_table_that_the_settings_name(tmp_path, capsys, monkeypatch, to):
    write_wave(tmp_path / "r" / "pond" / "20250503_040000.wav")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "settings.yaml").write_text("sites: my_sites.csv\n")
    with pytest.raises(SitesError, match="there is no such file, which sites names") as raised:
        Sites(tmp_path / "r", make_options(sites="my_sites.csv"))
    asked = shlex.split(str(raised.value).partition("with: bacpipe ")[2])
    assert asked == ["sites", f"audio_dir={tmp_path / 'r'}", "sites=my_sites.csv"]
    assert command.run([*asked[1:2], *(["--to", to] if to else [])]) == 0
    draft = tmp_path / (to or "my_sites.csv")
    assert [row.name for row in read_sites(draft)] == ["pond"]
    hint = shlex.split(capsys.readouterr().out.splitlines()[-1].split("bacpipe ", 1)[1])
    assert command.run(hint[1:]) == 1  # it is found, and not filled in
    assert "1 recording of sites whose position is not filled in" in capsys.readouterr().out
    assert not (tmp_path / "r" / "sites.csv").exists()


def test_zones_of_positions():
    assert str(zone_at(52.5, 13.4)) == "Europe/Berlin"
    assert zone_at(0, -30).utcoffset(None) is not None or str(zone_at(0, -30)).startswith("Etc/")
