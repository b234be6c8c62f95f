"""Times of recordings: from names, and from what recorders write into WAV files."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from bacpipe.audio.timestamps import get_dt_filename, recorder_time, recording_start

SHARED = Path(__file__).parents[3] / "shared" / "audio"
FORMAT = struct.pack("<HHIIHH", 1, 1, 8000, 16000, 2, 16)


def at(*parts, offset=None):
    zone = None if offset is None else timezone(timedelta(hours=offset))
    return datetime(*parts, tzinfo=zone)


PATTERNS = [
    # AudioMoth: date, folder with date, triggered, device in front, hex
    ("20240603_033731.WAV", at(2024, 6, 3, 3, 37, 31)),
    ("20240603_033731T.WAV", at(2024, 6, 3, 3, 37, 31)),
    ("site1/20230101/20230101_120000.WAV", at(2023, 1, 1, 12)),
    ("242A2604603691DD_20250503_031300.WAV", at(2025, 5, 3, 3, 13)),
    ("24E144085F256F6E_20210402_050000.WAV", at(2021, 4, 2, 5)),
    ("AM12_20220510_044500_SYNC.WAV", at(2022, 5, 10, 4, 45)),
    ("5D0C9C4E.WAV", at(2019, 6, 21, 8, 58, 54, offset=0)),
    ("5bec3a50.wav", at(2018, 11, 14, 15, 8, offset=0)),
    # Wildlife Acoustics: SM2, SM2BAT, SM3, SM4, SM Mini, Song Meter Micro, Mini Bat, EMT
    ("SM2PLUS_20110506_050000.wav", at(2011, 5, 6, 5)),
    ("STATION1_20120601_211505_000.wav", at(2012, 6, 1, 21, 15, 5)),
    ("SM304472_0+1_20181219$100000.wav", at(2018, 12, 19, 10)),
    ("SM304472_0+1_20181219_100000.wav", at(2018, 12, 19, 10)),
    ("SMA00351_20210501_060000.wav", at(2021, 5, 1, 6)),
    ("S4A01234_20190801_053000.wav", at(2019, 8, 1, 5, 30)),
    ("S4U09523_20200708_213015.wav", at(2020, 7, 8, 21, 30, 15)),
    ("2MM00001_20220101_120000.wav", at(2022, 1, 1, 12)),
    ("SITE-A_2MA05432_20230615_040000.wav", at(2023, 6, 15, 4)),
    ("NYCNOC_20190801_213000.wav", at(2019, 8, 1, 21, 30)),
    ("CHE_02_20190101_183410.wav", at(2019, 1, 1, 18, 34, 10)),
    # Swift, with and without the offset
    ("S1234_20180305_120000.wav", at(2018, 3, 5, 12)),
    ("SWIFT01_20230101_060000-0500.wav", at(2023, 1, 1, 6, offset=-5)),
    ("PIL02_20180610_050000+0200.wav", at(2018, 6, 10, 5, offset=2)),
    # Frontier Labs BAR and BAR-LT
    ("20180604T110000+1000_Site-1_1234.flac", at(2018, 6, 4, 11, offset=10)),
    ("20191026T053000+1000_REC_-27.4567+153.0123.wav", at(2019, 10, 26, 5, 30, offset=10)),
    ("20190401T000000+1100_REC [19.2144-152.8811].flac", at(2019, 4, 1, offset=11)),
    ("20210601T060000+0930_REC.flac", at(2021, 6, 1, 6, offset=9.5)),
    # SoundTrap, HARP: years of two digits
    ("5146.190801123456.wav", at(2019, 8, 1, 12, 34, 56)),
    ("805306418.180711090005.wav", at(2018, 7, 11, 9, 0, 5)),
    ("SOCAL_H_65_140101_120000.x.wav", at(2014, 1, 1, 12)),
    # hydrophones: icListen, JASCO AMAR, Loggerhead
    ("SBF1293_20190801T000000.123Z.wav", at(2019, 8, 1, 0, 0, 0, 123000, offset=0)),
    ("AMAR123.1.20190801T120000Z.wav", at(2019, 8, 1, 12, offset=0)),
    ("RBW6123_20180801_010000.wav", at(2018, 8, 1, 1)),
    ("20190801T120000_5678_2.5V_21.3C.wav", at(2019, 8, 1, 12)),
    ("PAM_20190801_120000_123.wav", at(2019, 8, 1, 12, 0, 0, 123000)),
    ("S4A12345_20220615_213000_001.wav", at(2022, 6, 15, 21, 30)),  # a running number
    ("20220615_213000_123456.wav", at(2022, 6, 15, 21, 30)),
    # two digits of a year: no other order is a date, or the name says who wrote it
    ("240603_033731.wav", at(2024, 6, 3, 3, 37, 31)),  # 24 June 2003: before such recorders
    ("A_140131_120000.wav", at(2014, 1, 31, 12)),
    ("GofMX_DT01_110612_101010.d100.x.wav", at(2011, 6, 12, 10, 10, 10)),
    ("5146.110612101010.wav", at(2011, 6, 12, 10, 10, 10)),
    ("2020-06-01-2020-06-05_120000.wav", at(2020, 6, 5, 12)),
    # ISO 8601, with what file systems allow instead of colons
    ("2023-05-01T04:30:00Z.wav", at(2023, 5, 1, 4, 30, offset=0)),
    ("2023-05-01T04-30-00+02:00.flac", at(2023, 5, 1, 4, 30, offset=2)),
    ("rec_2020-01-31T05:43:12.345-0500.wav", at(2020, 1, 31, 5, 43, 12, 345000, offset=-5)),
    ("2020-07-01 05.30.00.mp3", at(2020, 7, 1, 5, 30)),
    ("2019_01_01_18_34_10.wav", at(2019, 1, 1, 18, 34, 10)),
    ("20200827-061745.wav", at(2020, 8, 27, 6, 17, 45)),
    ("REC20190101183410.wav", at(2019, 1, 1, 18, 34, 10)),
    # Anabat Swift, Pettersson, Batlogger, ARBIMON, BirdNET-Pi
    ("2019-08-10 21-43-17.wav", at(2019, 8, 10, 21, 43, 17)),
    ("2014-07-05_22-31-10_M00001.wav", at(2014, 7, 5, 22, 31, 10)),
    ("0166_20240603_033731.wav", at(2024, 6, 3, 3, 37, 31)),
    ("Station-2015-02-05_06-10.wav", at(2015, 2, 5, 6, 10)),
    ("Common_Cuckoo-87-2022-05-03-birdnet-05:21:33.mp3", at(2022, 5, 3, 5, 21, 33)),
    ("Wren-80-2022-05-03-birdnet-RTSP_1-05:21:33.mp3", at(2022, 5, 3, 5, 21, 33)),
    ("2022-05-03_05h21m33s.wav", at(2022, 5, 3, 5, 21, 33)),
    ("20220503T052133.5Z.wav", at(2022, 5, 3, 5, 21, 33, 500_000, offset=0)),
    ("plot7_20220301_0530.wav", at(2022, 3, 1, 5, 30)),
    # a clip named by its start and its end; a Windows path
    ("20190101_183410_20190101_183510.wav", at(2019, 1, 1, 18, 34, 10)),
    (r"D:\data\2019\SMA00351_20210501_060000.wav", at(2021, 5, 1, 6)),
    # an index after the time is no offset
    ("20200601_220000-0012.wav", at(2020, 6, 1, 22)),
]

NO_TIME = [
    "robin.wav",
    "XC123456 - Common Cuckoo - Cuculus canorus.mp3",
    "M00012.wav",
    "ZOOM0001.WAV",
    "220501_0012.wav",  # Zoom and Tascam: date and number of the take
    "20240603.wav",  # a date alone
    "2024-06-03.wav",
    "20241399_250000.wav",  # no such month, day, hour
    "20240230_120000.wav",  # no such day
    "12345678.wav",
    "DEADBEEF.wav",  # hex, but in the far future
    "1589123456789.wav",
    "00010203_040506.wav",
    "AAA-2020-06-01_2020-06-05.wav",  # from a day to a day
    "2020_06_01_2020_06_05.wav",
    "20200601_20200605.wav",
    "030624_120000.wav",  # 3 June 2024, in either order, or 24 June 2003
    "110612_101010.wav",  # 12 June 2011, 11 June 2012, 6 November 2012
    "ID_010203_040506.wav",
    "20990101_000000.wav",  # years ahead
    "991231_235959.wav",
    "19700101_000212.WAV",  # clocks that were never set
    "19800101_000000.wav",
    "20000101_001500.wav",
    "20190101/take_3.wav",  # folders do not count
    "",
]


@pytest.mark.parametrize(("name", "expected"), PATTERNS)
def test_time_in_name(name, expected):
    found = get_dt_filename(name)
    assert found == expected
    assert found.utcoffset() == expected.utcoffset()


@pytest.mark.parametrize("name", NO_TIME)
def test_no_time_in_name(name):
    assert get_dt_filename(name) is None


def test_table_has_real_patterns():
    assert len(PATTERNS) >= 30


def guano(timestamp):
    return b"guan", f"GUANO|Version:1.0\nMake:Someone\nTimestamp:{timestamp}\n".encode()


def wamd(*fields):
    return b"wamd", b"".join(struct.pack("<HI", n, len(text)) + text for n, text in fields)


def comment(text):
    body = text.encode().ljust(384, b"\0")
    return b"LIST", b"INFO" + struct.pack("<4sI", b"ICMT", len(body)) + body


def bext(date, time):
    return b"bext", b"sound".ljust(320, b"\0") + date + time + bytes(264)


@pytest.fixture
def wave(tmp_path):
    def write(*chunks, name="20200101_000000.wav"):
        content = b"WAVE"
        for identifier, body in [(b"fmt ", FORMAT), (b"data", bytes(1001)), *chunks]:
            content += struct.pack("<4sI", identifier, len(body)) + body + bytes(len(body) % 2)
        path = tmp_path / name
        path.write_bytes(struct.pack("<4sI", b"RIFF", len(content)) + content)
        return path

    return write


@pytest.mark.parametrize(
    ("chunk", "expected"),
    [
        (guano("2024-06-03T03:37:31"), datetime(2024, 6, 3, 3, 37, 31)),
        (guano("2024-06-03T03:37:31Z"), datetime(2024, 6, 3, 3, 37, 31, tzinfo=UTC)),
        (
            guano("2024-09-03T20:26:15+01:00"),
            datetime(2024, 9, 3, 20, 26, 15, tzinfo=timezone(timedelta(hours=1))),
        ),
        (
            wamd((0, b"\1\0"), (1, b"SM4"), (5, b"2014-04-02 22:59:14-05:00")),
            datetime(2014, 4, 2, 22, 59, 14, tzinfo=timezone(timedelta(hours=-5))),
        ),
        (wamd((5, b"2014-04-02 22:59:14.000"), (6, b"")), datetime(2014, 4, 2, 22, 59, 14)),
        (
            comment("Recorded at 20:26:15 03/09/2024 (UTC+1) by AudioMoth 24E1 at medium gain"),
            datetime(2024, 9, 3, 20, 26, 15, tzinfo=timezone(timedelta(hours=1))),
        ),
        (
            comment("Recorded at 01:02:03 04/05/2022 (UTC) by AudioMoth 24E1"),
            datetime(2022, 5, 4, 1, 2, 3, tzinfo=UTC),
        ),
        (
            comment("Recorded at 01:02:03.456 04/05/2022 (UTC-3:30) by AudioMoth 24E1"),
            datetime(2022, 5, 4, 1, 2, 3, tzinfo=timezone(-timedelta(hours=3, minutes=30))),
        ),
        # Elekon and others write more or fewer digits, or a blank
        (guano("2021-12-16T20:15:30.1234567"), datetime(2021, 12, 16, 20, 15, 30, 123456)),
        (guano("2021-12-16T20:15:30.5"), datetime(2021, 12, 16, 20, 15, 30, 500000)),
        (guano("2021-12-16 20:15"), datetime(2021, 12, 16, 20, 15)),
        (
            guano("2021-12-16t20:15:30 -0330"),
            datetime(2021, 12, 16, 20, 15, 30, tzinfo=timezone(-timedelta(hours=3.5))),
        ),
        (
            (b"guan", b"GUANO|Version: 1.0\nno colon\n\xff\xfe: x\ntimestamp : 2021-12-16T20:15Z"),
            datetime(2021, 12, 16, 20, 15, tzinfo=UTC),
        ),
        (
            guano("2021/12/16 20:15:30 UTC+1"),
            datetime(2021, 12, 16, 20, 15, 30, tzinfo=timezone(timedelta(hours=1))),
        ),
        (
            guano("2021-12-16T20:15:30.25 \u22127:30"),
            datetime(2021, 12, 16, 20, 15, 30, 250000, tzinfo=timezone(-timedelta(hours=7.5))),
        ),
        (guano("2021-12-16 20:15:30 UTC"), datetime(2021, 12, 16, 20, 15, 30, tzinfo=UTC)),
        (
            (b"guan", b"Note: a\x0bTimestamp: 2001-05-05T00:00\nTimestamp: 2021-12-16T20:15"),
            datetime(2021, 12, 16, 20, 15),
        ),
        (
            comment("Recorded at 19:23:00 19/02/2018 by AudioMoth 0123 at gain setting 2"),
            datetime(2018, 2, 19, 19, 23, tzinfo=UTC),
        ),
        (bext(b"2021-07-08", b"09:10:11"), datetime(2021, 7, 8, 9, 10, 11)),
        (bext(b"2021_07_08", b"09-10-11"), datetime(2021, 7, 8, 9, 10, 11)),
    ],
)
def test_metadata_are_preferred_to_the_name(wave, chunk, expected):
    path = wave(chunk)
    found = recorder_time(path)
    assert found == expected
    assert found.utcoffset() == expected.utcoffset()
    assert recording_start(path) == expected


@pytest.mark.parametrize(
    "chunk",
    [
        guano("soon"),
        guano("2021-12-16"),  # midnight would be invented
        (b"guan", b"no colon at all"),
        (b"guan", b""),
        wamd((5, b"yesterday")),
        (b"wamd", struct.pack("<HI", 5, 2**31) + b"2014"),
        wamd((7, b"x")),
        comment("Made with love"),
        comment("Recorded at 25:61:99 03/09/2024 (UTC) by AudioMoth"),
        bext(b"0000-00-00", b"00:00:00"),
        bext(b"1970-01-01", b"00:00:00"),
        bext(b"2000-01-03", b"04:00:00"),  # three days after somebody forgot to set the clock
        guano("1980-01-01T00:00:12"),
        guano("1999-12-31T19:03:00-05:00"),
        guano("2099-01-01T00:00:00"),
        comment("Recorded at 00:00:09 01/01/2000 (UTC) by AudioMoth 24E1"),
        (b"bext", b"short"),
    ],
)
def test_without_usable_metadata_the_name_counts(wave, chunk):
    path = wave(chunk)
    assert recorder_time(path) is None
    assert recording_start(path) == datetime(2020, 1, 1)


def test_damaged_metadata_do_not_hide_others(wave):
    path = wave(guano("soon"), bext(b"2021-07-08", b"09:10:11"))
    assert recorder_time(path) == datetime(2021, 7, 8, 9, 10, 11)


def test_clocks_that_were_reset_give_way_to_the_name(wave):
    reset = bext(b"2016-01-01", b"00:02:00")
    assert recording_start(wave(reset, name="20220615_213000.wav")) == datetime(2022, 6, 15, 21, 30)
    assert recording_start(wave(reset, name="20160101_010200.wav")) == datetime(2016, 1, 1, 0, 2)
    assert recording_start(wave(reset, name="a.wav")) == datetime(2016, 1, 1, 0, 2)
    assert recording_start(wave(bext(b"2000-01-01", b"00:02:00"), name="a.wav")) is None


def test_metadata_behind_an_odd_chunk_without_pad_byte(tmp_path, wave):
    content = wave().read_bytes()
    identifier, body = guano("2021-07-08T09:10:11")
    odd = b"LIST" + struct.pack("<I", 5) + b"INFOx"
    path = tmp_path / "x.wav"
    path.write_bytes(content + odd + struct.pack("<4sI", identifier, len(body)) + body)
    assert recorder_time(path) == datetime(2021, 7, 8, 9, 10, 11)


def test_file_that_is_gone_or_no_wave(tmp_path):
    assert recording_start(tmp_path / "20240603_033731.wav") == datetime(2024, 6, 3, 3, 37, 31)
    path = tmp_path / "20240603_033731.flac"
    path.write_bytes(b"fLaC")
    assert recording_start(path) == datetime(2024, 6, 3, 3, 37, 31)
    assert recording_start(tmp_path / "robin.wav") is None


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared recordings")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bats/0166_20240603_033731.wav", datetime(2024, 6, 3, 3, 37, 31)),
        ("bats/20230322_172000_selec2.wav", None),
        (
            "bats/Audiomoth.WAV",
            datetime(2024, 9, 3, 20, 26, 15, tzinfo=timezone(timedelta(hours=1))),
        ),
        (
            "birds/UrbanSoundscape/242A2604603691DD_20250503_031400.WAV",
            datetime(2025, 5, 3, 3, 14, tzinfo=UTC),
        ),
    ],
)
def test_real_recorders(name, expected):
    assert recorder_time(SHARED / name) == expected
