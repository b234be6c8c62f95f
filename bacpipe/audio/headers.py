"""What the header of a recording promises, read without libsndfile.

libsndfile trusts the size of a file more than its header: a WAV whose data were cut off
simply becomes shorter, one whose recorder lost power becomes empty, and an MP3 without a
length gets an estimate that may be wrong by a factor of three.  This module therefore looks
at the headers itself, so that a recording is never shortened without anybody noticing:

========  =================================================================================
WAV, AIFF the declared size of the data is compared with the bytes that are there.  A size
          of 0 or 0xFFFFFFFF (and the like) means a header that was never completed: the
          length is unknown and the data are read up to the end of the file.
FLAC      libsndfile tells the declared length; a cut file fails while it is decoded.
W64       like WAV, with 64-bit sizes.
MP3       the Xing header's length counts.  Without one, the MPEG frames are counted; then a
          file cut exactly between two frames cannot be told from a shorter one.  Frames that
          do not follow one another mean damage.
OGG       the last page must carry the mark for the end of the stream.
========  =================================================================================
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Iterator
from typing import BinaryIO, Literal, NamedTuple

_PLACEHOLDER_SIZES = frozenset(
    {0x7FFFF000, 0x7FFFFF00, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF}
)
_MAX_CHUNKS = 20_000  # a damaged WAV could seem to hold millions
_MAX_FORM = 4096  # bytes of a WAV's format chunk; 40 are usual
_W64_MAGIC = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
_MAX_OGG_PAGE = 27 + 255 + 255 * 255  # bytes
_LOSSY_TOLERANCE = 0.1  # seconds: some MPEG frames or Vorbis blocks


class Promise(NamedTuple):
    """What the header of a file says about the length of its data.

    `declared` and `present` are numbers of PCM frames (of blocks, in compressed WAV) that the
    header declares and that are in the file; `frames` is the length if it had to be counted.
    `new_header` mends a header that would make libsndfile stop early: bytes to be seen instead
    of all that comes before an offset, and the offset.  `contradiction` says why samples cannot be
    told apart.
    """

    declared: int = 0
    present: int = 0
    frames: int | None = None
    tolerance: float = 0.0
    ended: bool = True
    new_header: tuple[bytes, int] | None = None
    contradiction: str | None = None

    def total_frames(self, readable: int) -> int:
        """Length of the whole recording, of which libsndfile finds `readable` frames."""
        if self.frames is not None:
            return self.frames
        if self.declared <= self.present:
            return readable
        total = readable * self.declared // self.present if self.present else self.declared
        # Of a block of compressed samples, the decoder may read the beginning.
        return max(total, readable + 1)


def read_promise(file: BinaryIO, size: int) -> Promise:
    """Read what the header of an open file of `size` bytes promises."""
    magic = file.read(12)
    if magic[:4] in (b"RIFF", b"RIFX", b"RF64") and magic[8:] == b"WAVE":
        return _read_wave_promise(file, size, magic)
    if magic[:4] == b"FORM" and magic[8:] in (b"AIFF", b"AIFC"):
        return _read_aiff_promise(file, size)
    if magic == _W64_MAGIC[:12]:
        return _read_w64_promise(file, size)
    if magic[:4] == b"OggS":
        return Promise(tolerance=_LOSSY_TOLERANCE, ended=_ogg_is_ended(file, size))
    if magic[:3] == b"ID3" or (magic[0] == 0xFF and magic[1:] and magic[1] & 0xE0 == 0xE0):
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _read_mp3_promise(data)
    return Promise()


def iterate_chunks(file: BinaryIO, order: Literal["<", ">"]) -> Iterator[tuple[bytes, int, int]]:
    """Yield (id, size, offset of the content) of the chunks behind a RIFF or FORM header."""
    offset = 12
    for _ in range(_MAX_CHUNKS):
        file.seek(offset)
        header = file.read(8)
        if len(header) < 8:
            return
        identifier, size = struct.unpack(f"{order}4sI", header)
        offset += 8
        yield identifier, size, offset
        offset += size + size % 2


def _read_wave_promise(file: BinaryIO, size: int, magic: bytes) -> Promise:
    order: Literal["<", ">"] = ">" if magic[:4] == b"RIFX" else "<"
    (riff_size,) = struct.unpack(f"{order}I", magic[4:8])
    form, long_size = b"", None
    for identifier, declared, offset in iterate_chunks(file, order):  # noqa: B007
        if identifier == b"ds64":  # RF64: 64-bit sizes of the file and of the data
            _, long_size = struct.unpack("<QQ", file.read(16).ljust(16, b"\0"))
        elif identifier == b"fmt ":
            form = file.read(min(declared, _MAX_FORM))
        elif identifier == b"data":
            break
    else:
        return Promise(ended=False)
    if contradiction := _contradiction_in(form, order):
        return Promise(contradiction=contradiction)
    present = size - offset
    wraps = long_size is None and present - declared >= 2**32  # sizes above 4 GiB
    if long_size is not None and declared == 0xFFFFFFFF:
        declared = long_size
    # A recorder that lost power leaves a size of 0.  So does an empty recording, but then the
    # outer size is that of the file.
    unclosed = declared == 0 and present > 0 and riff_size + 8 != size
    if not (wraps or unclosed or declared in _PLACEHOLDER_SIZES):
        align = struct.unpack(f"{order}H", form[12:14])[0] if len(form) >= 14 else 1
        return Promise(declared // (align or 1), min(declared, present) // (align or 1))
    # libsndfile reads nothing if the size is 0, and 4 GiB at most if it has 32 bits.
    if order == "<" and (wraps or unclosed or present >= 2**32):
        return Promise(new_header=(_build_rf64_header(form, present), offset))
    return Promise()


def _contradiction_in(form: bytes, order: Literal["<", ">"]) -> str | None:
    """Say what is wrong with a WAV's format if samples take another room than their bits need."""
    if len(form) < 16:
        return None
    tag, channels, _, _, align, bits = struct.unpack(f"{order}HHIIHH", form[:16])
    if tag != 1 or bits % 8 == 0 or align == channels * -(-bits // 8):
        return None
    return f"its header declares samples of {bits} bits in blocks of {align} bytes"


def _build_rf64_header(form: bytes, data_size: int) -> bytes:
    """Header of a WAV with 64-bit sizes, up to where its data begin."""
    content = struct.pack("<4sI", b"fmt ", len(form)) + form + b"\0" * (len(form) % 2)
    content += struct.pack("<4sI", b"data", 0xFFFFFFFF)
    sizes = struct.pack("<QQQI", 4 + 36 + len(content) + data_size, data_size, 0, 0)
    magic = struct.pack("<4sI4s", b"RF64", 0xFFFFFFFF, b"WAVE")
    return magic + struct.pack("<4sI", b"ds64", len(sizes)) + sizes + content


def _read_w64_promise(file: BinaryIO, size: int) -> Promise:
    """Read Sony Wave64: chunks with an id of 16 bytes and a size that includes the header."""
    offset, align = 40, 1
    for _ in range(_MAX_CHUNKS):
        file.seek(offset)
        header = file.read(24)
        if len(header) < 24:
            break
        identifier, (declared,) = header[:4], struct.unpack("<Q", header[16:])
        if identifier == b"fmt ":
            align = struct.unpack("<12xH", file.read(14).ljust(14, b"\0"))[0] or 1
        elif identifier == b"data":
            if declared <= 24 or declared >= 2**63 - 1:
                break
            present = min(declared - 24, size - offset - 24)
            return Promise((declared - 24) // align, present // align)
        offset += max(24, declared + -declared % 8)
        if offset >= size:
            break
    return Promise()


def _read_aiff_promise(file: BinaryIO, size: int) -> Promise:
    align = 1
    for identifier, declared, offset in iterate_chunks(file, ">"):
        if identifier == b"COMM":
            channels, _, bits = struct.unpack(">HIH", file.read(8).ljust(8, b"\0"))
            align = channels * ((bits + 7) // 8) or 1
        elif identifier == b"SSND" and declared > 8 and declared not in _PLACEHOLDER_SIZES:
            # Eight bytes of the chunk come before the samples.
            present = min(declared, size - offset) - 8
            return Promise((declared - 8) // align, max(present, 0) // align)
    return Promise()


def _ogg_is_ended(file: BinaryIO, size: int) -> bool:
    """Tell whether the last page is whole and marked as the end of its stream."""
    file.seek(max(0, size - _MAX_OGG_PAGE))
    tail = file.read()
    start = tail.rfind(b"OggS")
    if start < 0:
        return True  # something else follows the stream
    page = tail[start:]
    if len(page) < 27:
        return False
    segments = page[26]
    return bool(page[5] & 4) and len(page) >= 27 + segments + sum(page[27 : 27 + segments])


# MPEG audio, layer III: rates in kbit/s by the header's index, for version 1 and for 2 and 2.5.
_MP3_KBITS_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_MP3_KBITS_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_MP3_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


def _read_mp3_promise(data: mmap.mmap) -> Promise:
    start = _skip_id3(data)
    if _parse_mp3_frame(data, start) is None:
        start = _find_mp3_frames(data, start)
    first = _parse_mp3_frame(data, start)
    if first is None:
        return Promise(tolerance=float("inf"), ended=False)
    # "Xing" or "Info", then flags; the lowest means that the number of frames follows.
    tag = re.search(rb"(?:Xing|Info)...[\x01-\xff]", data[start : start + first[0]], re.DOTALL)
    if tag and tag[0][-1] & 1:
        return Promise(tolerance=_LOSSY_TOLERANCE)
    position, count = start, 0
    while (frame := _parse_mp3_frame(data, position)) is not None:
        if position + frame[0] > len(data):
            break
        position += frame[0]
        count += 1
    if frame is None and _find_mp3_frames(data, position) < len(data):
        return Promise(tolerance=float("inf"), ended=False)  # damaged: nobody knows the length
    return Promise(
        frames=count * first[1],
        tolerance=_LOSSY_TOLERANCE,
        ended=frame is None,
        # libsndfile guesses the length from the first frames, and would stop there.
        new_header=(_build_xing_frame(data[start : start + 4], count), start),
    )


def _find_mp3_frames(data: mmap.mmap, position: int) -> int:
    """Offset of the next two frames that follow one another; the end if there are none."""
    while (position := data.find(b"\xff", position)) >= 0:
        frame = _parse_mp3_frame(data, position)
        if frame is not None and _parse_mp3_frame(data, position + frame[0]) is not None:
            return position
        position += 1
    return len(data)


def _build_xing_frame(header: bytes, count: int) -> bytes:
    """MPEG frame without sound that tells how many others follow; `header` is one of theirs."""
    # No checksum, and a bit rate that leaves room for the tag.
    header = bytes([header[0], header[1] | 1, header[2] & 0x0F | 0x90, header[3]])
    size, _ = _parse_mp3_frame(header, 0) or (0, 0)
    mono, first_version = header[3] >> 6 == 3, header[1] & 0x08
    side_info = {True: (17, 32), False: (9, 17)}[bool(first_version)][not mono]
    frame = header + b"\0" * side_info + b"Xing" + struct.pack(">II", 1, count)
    return frame.ljust(size, b"\0")


def _skip_id3(data: bytes | mmap.mmap) -> int:
    """Offset of what follows an ID3v2 tag; its size has 7 bits in a byte."""
    if data[:3] != b"ID3" or len(data) < 10:
        return 0
    size = 0
    for byte in data[6:10]:
        size = size << 7 | byte & 0x7F
    footer = 10 if data[5] & 0x10 else 0
    return 10 + size + footer


def _parse_mp3_frame(data: bytes | mmap.mmap, position: int) -> tuple[int, int] | None:
    """Bytes and samples of the MPEG frame at `position`; None if there is none."""
    header = data[position : position + 4]
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return None
    version = header[1] >> 3 & 3
    kbits, rate = header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or kbits in (0, 15) or rate == 3:
        return None
    samples = 1152 if version == 3 else 576
    bits_per_second = 1000 * (_MP3_KBITS_1 if version == 3 else _MP3_KBITS_2)[kbits]
    padding = header[2] >> 1 & 1
    return samples // 8 * bits_per_second // _MP3_RATES[version][rate] + padding, samples
