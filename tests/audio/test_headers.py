"""What lies behind the last sample that a header promises: read, explained, or said."""

from __future__ import annotations

import io
import logging
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from bacpipe.audio.files import read_recording
from bacpipe.audio.stream import read_audio
from bacpipe.errors import AudioError

RATE = 16_000
ID3 = b"ID3\x04\0\0\0\0\0\x0a" + b"\0" * 10
ID3V1 = b"TAG" + b"x" * 125


def noise(seconds: float = 3.0, channels: int = 1) -> np.ndarray:
    rng = np.random.default_rng(round(seconds * 10) + channels)
    return np.round(rng.normal(0, 3000, (round(seconds * RATE), channels))) / 32768


def encode(container: str, subtype: str = "PCM_16", seconds: float = 3.0, **kwargs: str) -> bytes:
    stream = io.BytesIO()
    sf.write(stream, noise(seconds), RATE, format=container, subtype=subtype, **kwargs)
    return stream.getvalue()


def chunk(identifier: bytes, content: bytes, order: str = "<", pad: bool = True) -> bytes:
    filler = b"\0" * (len(content) % 2 and pad)
    return identifier + struct.pack(f"{order}I", len(content)) + content + filler


def patched(content: bytes, place: int, form: str, *numbers: int) -> bytes:
    changed = bytearray(content)
    struct.pack_into(form, changed, place, *numbers)
    return bytes(changed)


def flac_total(content: bytes, total: int) -> bytes:
    (high,) = content[21:22]
    return patched(content, 21, ">BI", high & 0xF0 | total >> 32, total & 0xFFFFFFFF)


def mp3(seconds: float = 3.0, mode: str = "VARIABLE") -> bytes:
    stream = io.BytesIO()
    samples = noise(seconds)
    samples[: len(samples) // 3] *= 0.001  # so that frames differ
    with sf.SoundFile(
        stream, "w", RATE, 1, "MPEG_LAYER_III", format="MP3", bitrate_mode=mode,
        compression_level=0.5,
    ) as file:  # fmt: skip
        file.write(samples)
    return stream.getvalue()


@pytest.fixture
def said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Callable[..., tuple]:
    """Return a function: the samples of such a file, or its error, and what was said."""

    def read(content: bytes, name: str = "x.wav", **kwargs: bool) -> tuple:
        path = tmp_path / name
        path.write_bytes(content)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            try:
                found: np.ndarray | str = read_audio(path, RATE, **kwargs)
            except AudioError as error:
                found = str(error)
        return found, caplog.text

    return read


BEHIND = {
    "nothing": b"",
    "list": chunk(b"LIST", b"INFO" + chunk(b"ICMT", b"a wood")),
    "guano": chunk(b"guan", b"GUANO|Version: 1.0\nNote: odd") + chunk(b"id3 ", ID3),
}


class TestHeaderSaysTooLittle:
    """Everything is read, what is no sound is not, and a warning names both lengths."""

    @pytest.mark.parametrize("behind", BEHIND)
    @pytest.mark.parametrize(
        ("container", "options"),
        [
            ("WAV", {}), ("WAV", {"subtype": "PCM_24"}), ("WAV", {"subtype": "FLOAT"}),
            ("WAVEX", {}), ("WAV", {"endian": "BIG"}), ("AIFF", {}), ("AIFF", {"subtype": "FLOAT"}),
        ],
    )  # fmt: skip
    def test_wav_and_aiff(self, said, container, options, behind):
        whole = encode(container, **options)
        order = "<" if container.startswith("WAV") and not options.get("endian") else ">"
        place = whole.index(b"SSND" if container == "AIFF" else b"data") + 4
        (size,) = struct.unpack_from(f"{order}I", whole, place)
        end = place + 4 + size
        rest = BEHIND[behind] if order == "<" else b""  # chunks are in the file's byte order
        content = whole[:end] + rest
        expected, _ = said(whole[:end])
        found, text = said(patched(content, place, f"{order}I", size // 3 & ~1))
        assert np.array_equal(found, expected)
        assert "its header says 1.0" in text and "holds 3.00; all of it is read" in text

    @pytest.mark.parametrize("magic", [b"RF64", b"BW64"])
    def test_rf64_and_bw64(self, said, magic):
        whole = magic + encode("RF64")[4:]
        found, text = said(whole)
        assert np.array_equal(found, noise()[:, 0].astype(np.float32)) and not text
        place = whole.index(b"ds64") + 16
        found, text = said(patched(whole, place, "<Q", 2 * RATE))
        assert len(found) == 3 * RATE and "its header says 1.00 seconds" in text

    def test_w64(self, said):
        whole = encode("W64")
        place = whole.index(b"data\xf3\xac") + 16
        found, text = said(patched(whole, place, "<Q", 24 + 2 * RATE))
        assert len(found) == 3 * RATE and "its header says 1.00 seconds" in text

    @pytest.mark.parametrize("subtype", ["IMA_ADPCM", "MS_ADPCM", "GSM610", "ULAW"])
    def test_compressed_wav(self, said, subtype):
        whole = encode("WAV", subtype)
        place = whole.index(b"data") + 4
        expected, _ = said(whole)
        for size in ((len(whole) - place - 4) // 3, 0, 2**32 - 1):
            found, text = said(patched(whole, place, "<I", size))
            assert np.array_equal(found, expected)
            assert ("its header says 1.0" in text) == (0 < size < 2**31)
        assert "another recording begins there" in said(whole + whole)[0]

    @pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
    def test_ogg_whose_last_page_has_an_early_time(self, said, subtype):
        whole = encode("OGG", subtype, 10.0)
        place = whole.rindex(b"OggS")
        for time in (2 * RATE, 1, 0, -1):
            page = patched(patched(whole[place:], 6, "<q", time), 22, "<I", 0)
            checksum = 0
            for byte in page:
                checksum ^= byte << 24
                for _ in range(8):
                    checksum = checksum << 1 ^ (0x104C11DB7 if checksum >> 31 else 0)
            content = whole[:place] + patched(page, 22, "<I", checksum)
            found, _ = said(content, "x.ogg")
            assert "its last page has an earlier time than others" in found
            part, _ = said(content, "x.ogg", allow_truncated=True)
            assert len(part) > 8 * RATE

    @pytest.mark.parametrize("size", [2**63 - 1, 2**63, 2**64 - 1, 2**62 + 5])
    def test_chunks_of_impossible_size(self, said, size):
        whole = encode("W64")
        found, _ = said(patched(whole, 40 + 16, "<Q", size))
        assert isinstance(found, str) and "is not audio" in found

    def test_flac(self, said):
        whole = encode("FLAC")
        found, text = said(flac_total(whole, RATE), "x.flac")
        assert np.array_equal(found, noise()[:, 0].astype(np.float32))
        assert "its header says 1.00 seconds, but the file holds 3.00" in text

    def test_mp3(self, said):
        one = mp3()
        place = one.index(b"Xing") + 8
        (count,) = struct.unpack_from(">I", one, place)
        for said_frames, warns in ((0, False), (count // 3, True), (count, False)):
            found, text = said(patched(one, place, ">I", said_frames), "x.mp3")
            assert len(found) / RATE == pytest.approx(3, abs=0.2)
            assert bool(text) == warns

    @pytest.mark.parametrize("mode", ["VARIABLE", "CONSTANT"])
    def test_joined_mp3(self, said, mode):
        parts = [ID3 + mp3(3, mode), ID3 + mp3(5, mode) + ID3V1, mp3(1, mode)]
        found, text = said(b"".join(parts), "x.mp3")
        assert len(found) / RATE == pytest.approx(9, abs=0.4)
        assert "all of it is read" in text
        assert np.abs(found[-RATE // 2 :]).max() > 0.01  # the last one is heard, too

    @pytest.mark.parametrize("declared", [2**32 - 1 - 36, 2**31 - 100, 2**20, 0])
    def test_sizes_that_stop_at_their_limit(self, tmp_path, declared):
        path = tmp_path / "x.wav"
        size = 5 * 2**30
        form = struct.pack("<HHIIHH", 1, 2, 96_000, 384_000, 4, 16)
        with path.open("wb") as file:
            file.write(struct.pack("<4sI4s", b"RIFF", 2**32 - 1, b"WAVE") + chunk(b"fmt ", form))
            file.write(struct.pack("<4sI", b"data", declared))
            try:
                file.truncate(44 + size)
            except OSError:
                pytest.skip("the file system has no sparse files")
        assert read_recording(path).frames == size // 4


class TestWhatFollowsIsExplained:
    """Chunks, tags and fillers are neither sound nor worth a word."""

    @pytest.mark.parametrize(
        ("container", "name"),
        [("WAV", "x.wav"), ("RF64", "x.wav"), ("W64", "x.wav"), ("FLAC", "x.flac"),
         ("AIFF", "x.aiff")],
    )  # fmt: skip
    @pytest.mark.parametrize("rest", [ID3V1, bytes(100_000), b"\xff" * 5000, ID3 + ID3V1])
    def test_tags_and_fillers(self, said, container, name, rest):
        found, text = said(encode(container) + rest, name)
        assert np.array_equal(found, noise()[:, 0].astype(np.float32)) and not text

    @pytest.mark.parametrize("name", ["x.ogg", "x.mp3"])
    @pytest.mark.parametrize("rest", [ID3V1, bytes(100_000), ID3])
    def test_lossy(self, said, name, rest):
        whole = encode("OGG", "VORBIS") if name == "x.ogg" else mp3()
        expected, _ = said(whole, name)
        found, text = said(whole + rest, name)
        assert np.array_equal(found, expected) and not text

    def test_chunks_behind(self, said):
        for rest in (*BEHIND.values(), chunk(b"LIST", bytes(7), pad=False) + BEHIND["list"]):
            found, text = said(encode("WAV") + rest)
            assert len(found) == 3 * RATE and not text
        # a chunk that was cut is no sound either
        found, text = said(encode("WAV") + chunk(b"LIST", bytes(9000))[:5000])
        assert len(found) == 3 * RATE and not text

    @pytest.mark.parametrize("container", ["OGG", "FLAC", "MP3"])
    def test_anything_else_is_said(self, said, container):
        junk = np.random.default_rng(0).integers(0, 250, 300_000, dtype=np.uint8).tobytes()
        whole = mp3() if container == "MP3" else encode(
            container, "VORBIS" if container == "OGG" else "PCM_16"
        )  # fmt: skip
        found, text = said(whole + junk, f"x.{container.lower()}")
        assert isinstance(found, str) or "bytes" in text

    @pytest.mark.parametrize("container", ["WAV", "FLAC", "AIFF"])
    def test_tag_in_front(self, said, container):
        for tags in (ID3, ID3 + ID3):
            found, text = said(tags + encode(container))
            assert np.array_equal(found, noise()[:, 0].astype(np.float32)) and not text

    @pytest.mark.parametrize("order", ["<", ">"])
    def test_odd_chunk_without_pad_byte(self, said, order):
        whole = encode("WAV", endian="BIG" if order == ">" else "LITTLE")
        place = whole.index(b"fmt ")
        for odd in (b"AFAn", b"LIST", b"bext"):
            content = whole[:place] + chunk(odd, b"INFO!", order, pad=False) + whole[place:]
            found, text = said(content)
            assert np.array_equal(found, noise()[:, 0].astype(np.float32)) and not text
            padded = whole[:place] + chunk(odd, b"INFO!", order) + whole[place:]
            assert np.array_equal(said(padded)[0], found)


class TestSeveralRecordingsInOneFile:
    """The first is read if that is allowed; otherwise the file fails with a sentence."""

    @pytest.mark.parametrize(
        ("name", "container", "subtype"),
        [
            ("x.wav", "WAV", "PCM_16"), ("x.wav", "RF64", "PCM_24"), ("x.aiff", "AIFF", "PCM_16"),
            ("x.flac", "FLAC", "PCM_16"), ("x.ogg", "OGG", "VORBIS"), ("x.opus.ogg", "OGG", "OPUS"),
        ],
    )  # fmt: skip
    @pytest.mark.parametrize(("first", "second"), [(3, 3), (2, 8), (8, 2)])
    def test_one_after_the_other(self, said, name, container, subtype, first, second):
        one, other = encode(container, subtype, first), encode(container, subtype, second)
        found, _ = said(one + other, name)
        assert f"{name}: ends after {first}.00 seconds (another recording begins there" in found
        part, text = said(one + other, name, allow_truncated=True)
        assert np.array_equal(part, said(one, name)[0])
        assert "another recording begins there" in text

    def test_of_another_format(self, said):
        others = encode("FLAC"), encode("OGG", "VORBIS"), mp3(), ID3 + mp3(), encode("W64")
        for other in others:
            for one in (encode("WAV"), encode("AIFF")):
                assert "another recording begins there" in said(one + other)[0]
            found, text = said(encode("FLAC", seconds=2) + other, "x.flac")
            assert isinstance(found, str) or "no FLAC" in text

    def test_mp3_of_another_rate(self, said):
        for rate, channels in ((44_100, 1), (22_050, 1), (RATE, 2)):
            stream = io.BytesIO()
            sf.write(stream, noise(3.0, channels), rate, format="MP3")
            found, text = said(mp3() + stream.getvalue(), "x.mp3")
            assert "ends after 3.0" in found and "another recording begins there" in found
            assert "all of it is read" not in text

    def test_second_block_of_data(self, said):
        whole = encode("WAV")
        found, _ = said(whole + chunk(b"data", whole[44:]))
        assert "another recording begins there" in found

    def test_flac_of_unknown_length(self, said):
        one = flac_total(encode("FLAC", seconds=4), 0)
        assert len(said(one, "x.flac")[0]) == 4 * RATE
        assert "ends after 4.00 seconds (another recording" in said(one + one, "x.flac")[0]


class TestStreamedFlac:
    def test_damage_is_not_swallowed(self, said):
        whole = flac_total(encode("FLAC", seconds=8), 0)
        middle = len(whole) // 2
        damaged = whole[:middle] + b"\xaa" * 300 + whole[middle + 300 :]
        gap = whole[:middle] + whole[middle + 5000 :]
        for content in (damaged, gap):
            found, _ = said(content, "x.flac")
            assert isinstance(found, str) and "of 8.00 seconds" in found
        part, text = said(damaged, "x.flac", allow_truncated=True)
        assert 3 * RATE < len(part) < 5 * RATE and "of 8.00 seconds" in text
        for cut in (3000, 20, 1):
            found, _ = said(whole[:-cut], "x.flac")
            assert isinstance(found, str) and "ends after 7." in found


class TestLackingSamples:
    """Recorders that count their header as data lose no recording."""

    @pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
    def test_size_of_the_file(self, said, subtype):
        whole = encode("WAV", subtype)
        place = whole.index(b"data") + 4
        for size in (len(whole), len(whole) - 8):
            found, text = said(patched(whole[: place + 4] + whole[place + 4 :], place, "<I", size))
            assert len(found) >= 3 * RATE and not text

    @pytest.mark.parametrize("container", ["WAV", "RF64", "W64", "AIFF"])
    def test_a_hundredth_of_a_second(self, said, container):
        whole = encode(container)
        found, text = said(whole[: len(whole) - 2 * 22])
        assert len(found) == 3 * RATE - 22 and not text
        found, _ = said(whole[: len(whole) - 2 * 300])
        assert "ends after 2.98 of 3.00 seconds" in found

    def test_lengths_that_look_alike_are_told_apart(self, said):
        found, _ = said(flac_total(encode("FLAC"), 3 * RATE + 1), "x.flac")
        assert "ends after 3.00 of 3.0001 seconds" in found
        whole = encode("WAV", "IMA_ADPCM", 60.0)
        found, _ = said(whole[:-200])
        lengths = found.split("ends after ")[1].split(" seconds")[0].split(" of ")
        assert float(lengths[0]) < float(lengths[1])
