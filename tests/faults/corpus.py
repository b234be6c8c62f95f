"""Broken recordings of every kind, made in seconds, and what each of them must get.

`make_corpus` writes the files and returns what is expected of each:

- ``Windows(n)``: it holds n windows of a second, and its embeddings are those of its samples
  where these are known;
- ``Fails(pattern)``: a sentence that fits the pattern, and no embeddings;
- ``Whole(n)``: lossy formats may end a little early, so either all n windows or a sentence.

What is expected follows from the bytes that are written here, not from what bacpipe reads.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile as sf

RATE = 8000
SECONDS = 2.5
FRAMES = round(SECONDS * RATE)


class Windows(NamedTuple):
    count: int
    samples: np.ndarray | None = None


class Fails(NamedTuple):
    pattern: str = "."


class Whole(NamedTuple):
    count: int


Expected = Windows | Fails | Whole
Corpus = dict[str, Expected]


def noise(frames: int = FRAMES, channels: int = 1) -> np.ndarray:
    """Samples that tell the windows apart, exact in 16 bits."""
    rng = np.random.default_rng(frames + channels)
    level = np.linspace(0.1, 0.9, frames)[:, None]
    return np.round(rng.uniform(-1, 1, (frames, channels)) * level * 32767) / 32768


def encode(
    samples: np.ndarray, container: str, subtype: str, rate: int = RATE, endian: str | None = None
) -> bytes:
    stream = BytesIO()
    sf.write(stream, samples, rate, format=container, subtype=subtype, endian=endian)
    return stream.getvalue()


def wav(
    *,
    data: bytes | None = None,
    tag: int = 1,
    channels: int = 1,
    rate: int = RATE,
    byte_rate: int | None = None,
    align: int | None = None,
    bits: int = 16,
    data_size: int | None = None,
    riff_size: int | None = None,
    form_size: int = 16,
    before: bytes = b"",
    after: bytes = b"",
    order: str = "<",
) -> bytes:
    """WAV file with any number in any field."""
    if data is None:
        data = (noise() * 32768).astype(f"{order}i2").tobytes()
    align = channels * bits // 8 if align is None else align
    byte_rate = rate * align if byte_rate is None else byte_rate
    form = struct.pack(f"{order}HHIIHH", tag, channels, rate, byte_rate & 0xFFFFFFFF, align, bits)
    body = b"WAVE" + before + b"fmt " + struct.pack(f"{order}I", form_size) + form
    size = len(data) if data_size is None else data_size
    body += b"data" + struct.pack(f"{order}I", size) + data + after
    size = len(body) if riff_size is None else riff_size
    return (b"RIFF" if order == "<" else b"RIFX") + struct.pack(f"{order}I", size) + body


def chunk(identifier: bytes, content: bytes, size: int | None = None) -> bytes:
    size = len(content) if size is None else size
    return struct.pack("<4sI", identifier, size) + content


def seconds_of(frames: int, rate: int) -> int:
    """Windows of a second that cover so many samples."""
    return math.ceil(frames / rate)


# --- Families of broken files -------------------------------------------------------------------

CONTAINERS = {
    "pcm16.wav": ("WAV", "PCM_16"),
    "pcm24.wav": ("WAV", "PCM_24"),
    "float.wav": ("WAV", "FLOAT"),
    "extensible.wav": ("WAVEX", "PCM_16"),
    "adpcm.wav": ("WAV", "IMA_ADPCM"),
    "gsm.wav": ("WAV", "GSM610"),
    "rf64.wav": ("RF64", "PCM_16"),
    "w64.wav": ("W64", "PCM_16"),
    "pcm16.aiff": ("AIFF", "PCM_16"),
    "pcm16.flac": ("FLAC", "PCM_16"),
    "vorbis.ogg": ("OGG", "VORBIS"),
    "layer3.mp3": ("MP3", "MPEG_LAYER_III"),
}
LOSSY = ("ogg", "mp3")
FRAME_BYTES = {"pcm24.wav": 3, "float.wav": 4}  # 2 in the others with samples of one size
UNEVEN = ("adpcm.wav", "gsm.wav", "pcm16.flac", "vorbis.ogg", "layer3.mp3")


def truncated(files: dict[str, bytes], expected: Corpus) -> None:
    """Cut everywhere: in the magic number, between header fields, in the data, at the very end."""
    for suffix, (container, subtype) in CONTAINERS.items():
        whole = encode(noise(), container, subtype)
        size = len(whole)
        lossy = suffix.endswith(LOSSY)
        offsets = {1, 3, 4, 11, 12, 19, 22, 28, 35, 40, 43, 44, 45, 60, 79, 103, 200,
                   size // 4, size // 2 - 1, size // 2, size * 3 // 4, size - 999, size - 64,
                   size - 2, size - 1}  # fmt: skip
        for offset in sorted(offsets):
            name = f"cut/{offset:06}_{suffix}"
            files[name] = whole[:offset]
            almost = lossy and size - offset < size * 0.1
            almost |= suffix == "gsm.wav" and offset == size - 1  # a byte that fills up a chunk
            expected[name] = Whole(3) if almost else Fails()
            missing, part = divmod(size - offset, FRAME_BYTES.get(suffix, 2))
            if suffix not in UNEVEN and not part and missing <= 0.01 * RATE:
                expected[name] = Windows(3)


def sample_formats(files: dict[str, bytes], expected: Corpus) -> None:
    """Every kind of sample, of which some hold no numbers."""
    signal = noise()
    for container, subtype in (
        ("WAV", "PCM_U8"), ("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "PCM_32"),
        ("WAV", "FLOAT"), ("WAV", "DOUBLE"), ("WAV", "ULAW"), ("WAV", "ALAW"),
        ("WAV", "IMA_ADPCM"), ("WAV", "MS_ADPCM"), ("WAV", "GSM610"), ("AIFF", "PCM_S8"),
        ("AIFF", "PCM_24"), ("AIFF", "PCM_32"), ("AIFF", "FLOAT"), ("AIFF", "DOUBLE"),
        ("AIFF", "ULAW"), ("W64", "PCM_24"), ("W64", "FLOAT"), ("RF64", "FLOAT"),
        ("FLAC", "PCM_S8"), ("FLAC", "PCM_24"), ("WAVEX", "PCM_24"), ("WAVEX", "FLOAT"),
    ):  # fmt: skip
        suffix = {"AIFF": "aiff", "FLAC": "flac"}.get(container, "wav")
        name = f"formats/{container}_{subtype}.{suffix}"
        files[name] = encode(signal, container, subtype)
        exact = subtype in ("PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")
        expected[name] = Windows(3, signal if exact else None)
    files["formats/RIFX.wav"] = wav(order=">")
    expected["formats/RIFX.wav"] = Windows(3, signal)
    for container, subtype in (("WAV", "FLOAT"), ("WAV", "DOUBLE"), ("AIFF", "FLOAT")):
        for bad in (np.nan, np.inf, -np.inf):
            broken = noise()
            broken[12_000] = bad
            suffix = "aiff" if container == "AIFF" else "wav"
            name = f"formats/{container}_{subtype}_{bad}.{suffix}"
            files[name] = encode(broken, container, subtype)
            expected[name] = Fails(r"NaN or infinite, the first at 1\.500 seconds")
    loud = noise() * 1e30  # far beyond full scale, but numbers
    files["formats/loud.wav"] = encode(loud, "WAV", "FLOAT")
    expected["formats/loud.wav"] = Windows(3)


def channels_and_rates(files: dict[str, bytes], expected: Corpus) -> None:
    for channels in (*range(2, 33), 64, 255, 1024):
        signal = noise(RATE + 1, channels)
        name = f"channels/{channels}.wav"
        files[name] = encode(signal, "WAV", "PCM_16")
        expected[name] = Windows(2, signal)
    for channels in (0, 1025, 65535):
        name = f"channels/{channels}.wav"
        files[name] = wav(channels=channels, align=2)
        expected[name] = Fails("not audio")
    for rate in (40, 100, 7999, 8001, 44_100, 96_000, 192_000, 312_500, 384_000, 500_000, 768_000):
        frames = 2 * rate + 2  # a little more than two seconds, in samples of either rate
        extra = max(2, math.ceil(rate / RATE) + 1)
        frames = 2 * rate + extra
        name = f"rates/{rate}.wav"
        files[name] = wav(rate=rate, data=bytes(2 * frames))
        expected[name] = Windows(3)
    for rate in (0, 1, 2, 39):
        name = f"rates/{rate}.wav"
        files[name] = wav(rate=rate)
        expected[name] = Fails(f"sample rate of {rate} Hz")
    for rate in (2**31 - 1, 2**31, 2**32 - 1):  # not a single sample is left, or a negative rate
        name = f"rates/{rate}.wav"
        files[name] = wav(rate=rate, byte_rate=0)
        expected[name] = Fails()


def wav_headers(files: dict[str, bytes], expected: Corpus) -> None:
    """One wrong field at a time; samples are read as far as the header lets them."""
    size, signal = 2 * FRAMES, noise()

    def add(name: str, content: bytes, what: Expected) -> None:
        files[f"wav/{name}.wav"], expected[f"wav/{name}.wav"] = content, what

    add("size_half", wav(data_size=size // 2), Windows(3, signal))
    add("size_one_short", wav(data_size=size - 2), Windows(3, signal[:-1]))
    add("size_odd", wav(data_size=size - 1), Windows(3, signal[:-1]))
    for more in (2, 100):  # less than a hundredth of a second
        add(f"size_{more}_more", wav(data_size=size + more), Windows(3, signal))
    for more in (200, size, 2**30):
        add(f"size_{more}_more", wav(data_size=size + more), Fails("ends after 2.50 of"))
    for number in (0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF):
        add(f"size_unknown_{number:x}", wav(data_size=number), Windows(3, signal))
    add("size_zero_unclosed", wav(data_size=0, riff_size=0), Windows(3, signal))
    add("size_zero_and_empty", wav(data=b"", data_size=0), Fails("0 samples"))
    add("size_promised_but_empty", wav(data=b"", data_size=size), Fails("promises 2.50 seconds"))
    for number in (0, 1, 36, 2**31, 2**32 - 1):
        add(f"riff_size_{number}", wav(riff_size=number), Windows(3, signal))
    for bits in (0, 1, 7, 33, 48, 255, 65535):
        add(f"bits_{bits}", wav(bits=bits, align=2), Fails())
    for tag in (0, 0x1234, 0x2000, 0xFFFF):
        add(f"tag_{tag:x}", wav(tag=tag), Fails())
    add("tag_float_of_16_bits", wav(tag=3), Fails())
    add("tag_extensible_without_extension", wav(tag=0xFFFE), Fails())
    add("form_missing", b"RIFF" + struct.pack("<I", size) + b"WAVE" + chunk(b"data", bytes(99)),
        Fails("not audio"))  # fmt: skip
    for form_size in (0, 8, 15, 2**31, 2**32 - 1):
        add(f"form_size_{form_size}", wav(form_size=form_size), Fails())
    add("byte_rate_wrong", wav(byte_rate=1), Windows(3, signal))
    add("data_only_magic", b"RIFF\x24\0\0\0WAVE", Fails())
    for content in (b"RIFF", b"RIFX\0\0\0\0WAVE", b"RF64", b"riff", b"FORM\0\0\0\0AIFF"):
        add(f"magic_{content[:4].decode()}_{len(content)}", content + bytes(64), Fails())
    junk = chunk(b"JUNK", bytes(1000))
    add("chunk_before", wav(before=junk), Windows(3, signal))
    add("chunk_after", wav(after=junk), Windows(3, signal))
    add("chunk_after_cut", wav(after=chunk(b"LIST", b"INFO", 5000)), Windows(3, signal))
    add("text_after", wav(after=b"\n<!-- appended -->"), Windows(3, signal))
    add("chunk_before_too_long", wav(before=chunk(b"LIST", b"INFO", 2**31)), Fails())
    many = chunk(b"JUNK", b"") * 5000
    add("chunks_of_no_length", wav(before=many), Windows(3, signal))
    add("chunks_of_no_length_cut", wav(before=many)[:-9000], Fails("of 2.50 seconds"))
    add("chunks_without_end", wav(before=many * 5)[:-9000], Fails())
    add("list_in_the_way", wav(before=chunk(b"LIST", b"INFO" + bytes(3)) + b"\0"),
        Windows(3, signal))  # fmt: skip
    for position in range(0, 44, 2):  # any two bytes, whatever they mean
        content = bytearray(wav())
        content[position : position + 2] = b"\xde\xad"
        before_data = position in range(0, 4) or position in range(8, 22)
        add(f"bytes_{position:02}", bytes(content), Fails() if before_data else Whole(3))
    # The rate: de ad are 44 510 Hz (or 2.9 GHz); bytes that nobody uses; more channels.
    for position in (4, 6, 28, 30):
        expected[f"wav/bytes_{position:02}.wav"] = Windows(3, signal)
    expected["wav/bytes_24.wav"] = Windows(seconds_of(FRAMES, 0xADDE))
    for position in (22, 26, 32, 34, 36, 38, 40, 42):
        expected[f"wav/bytes_{position:02}.wav"] = Fails()
    expected["wav/bytes_32.wav"] = Windows(3, signal)  # the block size, which follows from others


def large_numbers(files: dict[str, bytes], expected: Corpus) -> None:
    """Headers that promise more than there is room for in the world."""
    rf64 = bytearray(encode(noise(), "RF64", "PCM_16"))
    for number in (2 * FRAMES + 2, 2**40, 2**62):
        content = bytearray(rf64)
        struct.pack_into("<Q", content, 28, number)
        files[f"huge/rf64_{number}.wav"] = bytes(content)
        expected[f"huge/rf64_{number}.wav"] = Fails()
    expected[f"huge/rf64_{2 * FRAMES + 2}.wav"] = Windows(3, noise())
    w64 = encode(noise(), "W64", "PCM_16")
    place = w64.index(b"data\xf3\xac") + 16
    for number in (2**40, 2**62):
        content = bytearray(w64)
        struct.pack_into("<Q", content, place, number)
        files[f"huge/w64_{number}.wav"] = bytes(content)
        expected[f"huge/w64_{number}.wav"] = Fails()
    aiff = encode(noise(), "AIFF", "PCM_16")
    place = aiff.index(b"SSND") + 4
    for number in (2 * FRAMES + 400, 2**30):
        content = bytearray(aiff)
        struct.pack_into(">I", content, place, number)
        files[f"huge/aiff_{number}.aiff"] = bytes(content)
        expected[f"huge/aiff_{number}.aiff"] = Fails("ends after 2.50 of")
    for value in (b"\0" * 10, b"\xff" * 10):  # the rate, an 80-bit float
        content = bytearray(aiff)
        place = aiff.index(b"COMM") + 16
        content[place : place + 10] = value
        files[f"huge/aiff_rate_{value[0]:02x}.aiff"] = bytes(content)
        expected[f"huge/aiff_rate_{value[0]:02x}.aiff"] = Fails()
    flac = encode(noise(), "FLAC", "PCM_16")
    for total, what in (
        (0, Windows(3, noise())),  # unknown: counted
        (FRAMES + 1, Fails("ends after 2.50 of")),
        (2**36 - 1, Fails("ends after 2.50 of")),
        (RATE, Windows(3, noise())),
    ):
        content = bytearray(flac)
        content[21] = content[21] & 0xF0 | total >> 32
        struct.pack_into(">I", content, 22, total & 0xFFFFFFFF)
        files[f"huge/flac_{total}.flac"] = bytes(content)
        expected[f"huge/flac_{total}.flac"] = what


def damaged_inside(files: dict[str, bytes], expected: Corpus) -> None:
    """Damage behind the header of compressed formats."""
    rng = np.random.default_rng(1)
    for suffix in ("pcm16.flac", "vorbis.ogg", "layer3.mp3"):
        whole = encode(noise(5 * RATE), *CONTAINERS[suffix])
        middle = len(whole) // 2
        for name, content in {
            "garbage": whole[:middle] + rng.bytes(3000) + whole[middle + 3000 :],
            "zeros": whole[:middle] + bytes(3000) + whole[middle + 3000 :],
            "gap": whole[:middle] + whole[middle + 3000 :],
        }.items():
            files[f"inside/{name}_{suffix}"] = content
            expected[f"inside/{name}_{suffix}"] = Fails()
        files[f"inside/twice_{suffix}"] = whole[: middle * 2 // 3] * 2
        expected[f"inside/twice_{suffix}"] = Fails()
    mp3 = encode(noise(), *CONTAINERS["layer3.mp3"])
    bare = mp3[_first_mp3_frame(mp3) :]
    for name, content, what in (
        ("tagged", b"ID3\4\0\0\0\0\x02\x00" + bytes(256) + mp3, Windows(3)),
        ("tag_too_long", b"ID3\4\0\0\x7f\x7f\x7f\x7f" + mp3, Fails()),
        ("tag_only", b"ID3\4\0\0\0\0\x02\x00" + bytes(256), Fails()),
        ("without_length", bare, Windows(3)),
        ("trailing_zeros", bare + bytes(500), Windows(3)),
        ("trailing_tag", bare + b"TAG" + bytes(125), Windows(3)),
        ("sync_only", b"\xff\xfb" * 500, Fails()),
        ("layer2", b"\xff\xfd" + bare[2:], Whole(3)),  # but for the first frame
    ):
        files[f"inside/{name}.mp3"] = content
        expected[f"inside/{name}.mp3"] = what
    flac = encode(noise(), *CONTAINERS["pcm16.flac"])
    for name, content in {
        "empty": flac[:42],
        "magic_only": b"fLaC",
        "no_info": b"fLaC" + b"\x81\0\0\x04" + bytes(4) + flac[42:],
        "rate_0": flac[:18] + bytes([0, 0, flac[20] & 0x0F]) + flac[21:],
    }.items():
        files[f"inside/{name}.flac"] = content
        expected[f"inside/{name}.flac"] = Fails()
    ogg = encode(noise(), *CONTAINERS["vorbis.ogg"])
    last = ogg.rindex(b"OggS")
    files["inside/unended.ogg"] = ogg[:last]
    files["inside/page_only.ogg"] = ogg[: ogg.index(b"OggS", 4)]
    files["inside/no_codec.ogg"] = b"OggS\0\2" + bytes(22) + b"\1\x1e" + bytes(30)
    for name in ("unended", "page_only", "no_codec"):
        expected[f"inside/{name}.ogg"] = Fails()


def _first_mp3_frame(content: bytes) -> int:
    """Where sound begins: behind the frame that only holds the length."""
    start = content.index(b"\xff")
    following = content.index(content[start : start + 2], start + 4)
    return following if b"Xing" in content[start:following] or b"Info" in content else start


def not_audio(files: dict[str, bytes], expected: Corpus) -> None:
    contents = {
        "empty": b"",
        "one_byte": b"R",
        "zeros": bytes(10_000),
        "text": b"time,species\n12:00,robin\n" * 100,
        "html": b"<!DOCTYPE html><html><script>alert(1)</script></html>" * 20,
        "picture": b"\x89PNG\r\n\x1a\n" + bytes(500),
        "zip": b"PK\3\4" + bytes(500),
        "random": np.random.default_rng(2).bytes(20_000),
        "utf16": "RIFF WAVE ".encode("utf-16") * 50,
    }
    for what, content in contents.items():
        for suffix in ("wav", "flac", "mp3", "ogg", "aiff"):
            name = f"other/{what}.{suffix}"
            files[name] = content
            expected[name] = Fails("empty" if not content else ".")
    signal = noise()
    for container, suffix in (("FLAC", "wav"), ("WAV", "mp3"), ("AIFF", "flac"), ("WAV", "ogg")):
        name = f"other/{container}_called.{suffix}"  # the content counts, not the name
        files[name] = encode(signal, container, "PCM_16")
        expected[name] = Windows(3, signal)
    for container in ("AU", "CAF", "NIST", "SVX", "MAT5", "IRCAM", "AVR"):
        name = f"other/{container}.wav"
        files[name] = encode(signal, container, "PCM_16")
        expected[name] = Fails("expected WAV, FLAC, OGG, MP3 or AIFF")


def short(files: dict[str, bytes], expected: Corpus) -> None:
    for frames in (1, 2, 7, RATE - 1, RATE, RATE + 1):
        signal = noise(frames)
        files[f"short/{frames}.wav"] = encode(signal, "WAV", "PCM_16")
        expected[f"short/{frames}.wav"] = Windows(seconds_of(frames, RATE), signal)
    for container, suffix in (("WAV", "wav"), ("AIFF", "aiff"), ("FLAC", "flac"), ("RF64", "wav")):
        name = f"short/none_{container}.{suffix}"
        files[name] = encode(noise(0), container, "PCM_16")
        expected[name] = Fails()


FAMILIES: tuple[Callable[[dict[str, bytes], Corpus], None], ...] = (
    truncated,
    sample_formats,
    channels_and_rates,
    wav_headers,
    large_numbers,
    damaged_inside,
    not_audio,
    short,
)


def make_corpus(folder: Path) -> Corpus:
    """Write all broken files below a folder; what is expected of each, by name."""
    files: dict[str, bytes] = {}
    expected: Corpus = {}
    for family in FAMILIES:
        family(files, expected)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (folder / "strange").mkdir()
    _strange(folder / "strange", expected)
    return expected


def _strange(folder: Path, expected: Corpus) -> None:
    """What is called like a recording and is no file."""
    (folder / "folder.wav").mkdir()
    (folder / "dangling.wav").symlink_to(folder / "gone.wav")
    (folder / "loop.wav").symlink_to(folder / "loop.wav")
    expected["strange/folder.wav"] = Fails("is a folder")
    expected["strange/dangling.wav"] = Fails("link")
    expected["strange/loop.wav"] = Fails()
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe.wav")
        expected["strange/pipe.wav"] = Fails("not a regular file")
