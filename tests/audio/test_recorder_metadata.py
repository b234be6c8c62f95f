import struct
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from bacpipe.audio.timestamps import recorder_time, recording_start

SHARED = Path(__file__).parents[3] / "shared" / "audio"
FORMAT = struct.pack("<HHIIHH", 1, 1, 8000, 16000, 2, 16)


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
        (b"guan", b"no colon at all"),
        (b"guan", b""),
        wamd((5, b"yesterday")),
        (b"wamd", struct.pack("<HI", 5, 2**31) + b"2014"),
        wamd((7, b"x")),
        comment("Made with love"),
        comment("Recorded at 25:61:99 03/09/2024 (UTC) by AudioMoth"),
        bext(b"0000-00-00", b"00:00:00"),
        bext(b"1970-01-01", b"00:00:00"),
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
