"""What the header of a recording promises, read without libsndfile.

libsndfile trusts the size of a file more than its header, or its header more than the file: a
WAV whose data were cut off simply becomes shorter, one whose header was written early ends where
that says, and of two files that were joined only the first is heard.  One rule holds for all
formats: what lies behind the last sample that the header promises must be explained (chunks,
tags, fillers); otherwise it is read, or the recording counts as cut.  It costs a few reads of a
file; whole files are searched only where something contradicts itself.

==========  ===============================================================================
WAV, AIFF   The declared size of the data is compared with the bytes that are there, and
            chunks are followed from there to the end of the file.  A size of 0 or 0xFFFFFFFF
            (and the like) means a header that was never completed: the length is unknown and
            the data are read up to the end of the file, or to the chunks there.
W64         Like WAV, with 64-bit sizes.
FLAC        The frames are numbered: the last ones tell the length, some in between that
            there is no second stream.  A file that is cut or damaged fails while decoded.
MP3         The Xing header's length counts if its size is that of the file and its frames are
            as large as those here and there.  Otherwise the MPEG frames are counted; then a
            file cut exactly between two frames cannot be told from a shorter one.  Frames that
            do not follow one another mean damage.
OGG         The last page must carry the mark for the end of the stream and the latest time,
            and pages on the way must be of the same stream, in order.
==========  ===============================================================================

An ID3 tag may stand before any of them.
"""

from __future__ import annotations

import math
import mmap
import re
import struct
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import BinaryIO, Literal, NamedTuple

_PLACEHOLDER_SIZES = frozenset(
    {0x7FFFF000, 0x7FFFFF00, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF}
)
_MAX_CHUNKS = 20_000  # a damaged WAV could seem to hold millions
_MAX_FORM = 4096  # bytes of a WAV's format chunk; 40 are usual
_W64_MAGIC = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
_W64_TAIL = b"\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"  # of the names of its chunks
_LOSSY_TOLERANCE = 0.1  # seconds: some MPEG frames or Vorbis blocks
_PCM_TOLERANCE = 0.01  # seconds that may be missing (recorders that count their header as data)
_MAX_32_BITS = 2**32 - 2**16  # bytes of data in a header with sizes of 32 bits
_PROBES = 8  # places at which streams are looked at on the way
_TAIL = 2**16  # bytes at the end of a file that are looked at first
CUT = "the file is cut off or damaged"
_UNCOMPRESSED = (1, 3, 6, 7, 0xFFFE)  # formats of WAV in which frames are of one size
_UNCOMPRESSED_AIFC = (b"NONE", b"twos", b"sowt", b"raw ", b"fl32", b"FL32", b"fl64", b"FL64",
                      b"in24", b"in32", b"ulaw", b"alaw", b"ULAW", b"ALAW")  # fmt: skip
_ANOTHER = "another recording begins there, which is not read: split the file"


_Order = Literal["<", ">"]
_Readable = BinaryIO | mmap.mmap


class Promise(NamedTuple):
    """What the header of a file says about the length of its data.

    `declared` and `present` are numbers of PCM frames (of blocks, in compressed WAV) that the
    header declares and that are in the file; `frames` is the length if it had to be counted.
    `new_header` mends a header that would make libsndfile stop early: bytes to be seen instead
    of all that comes before an offset, and the offset; `stop` is where such a file ends, unless
    at its real end.  `reason` says why a file that has not `ended` is not whole, `note`
    what else its user should know, and `contradiction` why samples cannot be told apart.
    """

    declared: int = 0
    present: int = 0
    frames: int | None = None
    tolerance: float = 0.0
    ended: bool = True
    new_header: tuple[bytes, int] | None = None
    stop: int | None = None
    reason: str = CUT
    note: str = ""
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
    start = _skip_tags(file, 0, size)
    file.seek(start)
    magic = file.read(12)
    if magic[:4] in _WAVES and magic[8:] == b"WAVE":
        promise = _read_wave_promise(file, start, size, magic)
    elif magic[:4] == b"FORM" and magic[8:] in (b"AIFF", b"AIFC"):
        promise = _read_aiff_promise(file, start, size, magic)
    elif magic == _W64_MAGIC[:12]:
        promise = _read_w64_promise(file, start, size)
    elif magic[:4] == b"OggS":
        promise = _read_ogg_promise(file, start, size)
    elif magic[:4] == b"fLaC":
        promise = _read_flac_promise(file, start, size)
    elif size:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _read_mp3_promise(data)
    else:
        return Promise()
    # libsndfile does not read everything that follows a tag, nor all of it.
    if start and promise.new_header is None:
        promise = promise._replace(new_header=(b"", start))
    return promise


# --- What lies behind the sound ---------------------------------------------------------------

_WAVES = (b"RIFF", b"RIFX", b"RF64", b"BW64")
_KNOWN_CHUNKS = frozenset(
    b"fmt |data|LIST|fact|cue |plst|labl|smpl|inst|bext|iXML|axml|chna|guan|wamd|JUNK|junk|PAD |"
    b"FLLR|id3 |ID3 |_PMX|ds64|r64m|levl|link|umid|minf|elm1|regn|DISP|afsp|PEAK|cart|ovwf|"
    b"COMM|SSND|NAME|AUTH|ANNO|(c) |MARK|COMT|INST|MIDI|APPL|FVER|AESD|CHAN|SNDM".split(b"|")
)


def iterate_chunks(
    file: _Readable, order: _Order, offset: int = 12
) -> Iterator[tuple[bytes, int, int]]:
    """Yield (id, size, offset of the content) of the chunks from an offset on.

    By default they are those behind a RIFF or FORM header.  A chunk of odd size should be
    followed by a pad byte; some programs forget it.
    """
    for _ in range(_MAX_CHUNKS):
        file.seek(offset)
        header = file.read(8)
        if len(header) < 8:
            return
        identifier, size = struct.unpack(f"{order}4sI", header)
        offset += 8
        yield identifier, size, offset
        offset += size
        if size % 2:
            file.seek(offset)
            following = file.read(5)
            offset += not _is_name(following[:4]) or following[1:] in _KNOWN_CHUNKS


def _is_name(identifier: bytes) -> bool:
    return len(identifier) == 4 and all(0x20 <= byte < 0x7F for byte in identifier)


def _unexplained(file: _Readable, position: int, size: int, order: _Order) -> str | None:
    """Name what follows the sound of a WAV or AIFF: None if it is chunks, tags or fillers.

    Otherwise ``another`` for further sound with a header, ``sound`` for anything else.
    """
    for identifier, declared, offset in iterate_chunks(file, order, position):
        position = offset - 8
        file.seek(offset)
        kind = file.read(4)
        if identifier in (*_WAVES, b"FORM") and kind in (b"WAVE", b"AIFF", b"AIFC"):
            return "another"
        if identifier in (b"riff", b"fLaC", b"OggS") or _mp3_begins(file, position):
            return "another"
        if identifier in (b"data", b"SSND") and declared:
            return "another"
        if identifier not in _KNOWN_CHUNKS and (
            not _is_name(identifier) or offset + declared > size
        ):
            break
        position = offset + declared
    return "sound" if _skip_tags(file, position, size) < size - 7 else None


def _end_of_data(file: _Readable, start: int, size: int, order: _Order) -> int:
    """Where data of unknown size end: at chunks that reach exactly to the end of the file."""
    first = max(start, size - 2**20)
    file.seek(first)
    tail = file.read(size - first)
    names = b"|".join(map(re.escape, sorted(_KNOWN_CHUNKS)))
    for match in re.finditer(b"(?:" + names + b")(?=.{4})", tail, re.DOTALL):
        position = first + match.start()
        end = position
        for identifier, declared, offset in iterate_chunks(file, order, position):
            end = offset + declared
            if not _is_name(identifier) or end > size:
                break
        if size - 1 <= end <= size:
            return position
    return size


def _skip_tags(file: _Readable, position: int, size: int) -> int:
    """Offset of what follows tags (ID3, APE, Lyrics3) and fillers; `size` if nothing does."""
    while position < size:
        file.seek(position)
        head = file.read(32)
        length = 0
        if head[:3] == b"ID3" and len(head) >= 10:
            length = _id3_size(head)
        elif head[:3] == b"TAG" and size - position >= 128:
            length = 128
        elif head[:8] == b"APETAGEX" and len(head) == 32:
            (items, flags) = struct.unpack("<I4xI", head[12:24])
            length = 32 if not flags & 0x20000000 else 32 + items
        elif head[:11] == b"LYRICSBEGIN":
            file.seek(position)
            match = re.search(rb"LYRICS(?:200|END)", file.read(2**20))
            length = match.end() if match else 0
        elif position and head[:1] in (b"\0", b"\xff") and not head.strip(head[:1]):
            length = _filler_length(file, position, head[:1])
        if not length:
            return position
        position += length
    return min(position, size)


def _filler_length(file: _Readable, position: int, filler: bytes) -> int:
    """Bytes that equal the first one: what flash memory holds where nothing was written."""
    file.seek(position)
    length = 0
    while block := file.read(2**16):
        rest = block.lstrip(filler)
        length += len(block) - len(rest)
        if rest:
            break
    return length


def _id3_size(head: bytes) -> int:
    """Bytes of an ID3v2 tag; its size has 7 bits in a byte."""
    size = 0
    for byte in head[6:10]:
        size = size << 7 | byte & 0x7F
    footer = 10 if head[5] & 0x10 else 0
    return 10 + size + footer


def _name_rest(file: _Readable, position: int, size: int) -> str:
    """Say what lies behind the last sample, unless it is tags and fillers."""
    rest = size - _skip_tags(file, position, size) if position < size else 0
    return f"{rest} bytes behind its sound are no sound that can be read" if rest else ""


# --- WAV, AIFF, W64 ---------------------------------------------------------------------------


class _Layout(NamedTuple):
    """How the data of a WAV or AIFF lie in the file, and how to write a header for them."""

    order: _Order
    align: int  # bytes of a frame or block
    slack: int  # bytes that may be missing
    unclosed: bool  # the header was never completed
    mend: bool  # libsndfile does not read this header
    compressed: bool
    header: Callable[[int], bytes]  # from the size of the data


def _read_wave_promise(file: _Readable, start: int, size: int, magic: bytes) -> Promise:
    order: _Order = ">" if magic[:4] == b"RIFX" else "<"
    (riff_size,) = struct.unpack(f"{order}I", magic[4:8])
    form, long_size, end = b"", None, start + 12
    odd = False  # a chunk without its pad byte, at which libsndfile gives up
    for identifier, declared, offset in iterate_chunks(file, order, start + 12):
        odd |= offset - 8 != end
        end = offset + declared + declared % 2
        file.seek(offset)
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
    if long_size is not None and declared == 0xFFFFFFFF:
        declared = long_size
    tag, _, rate, _, align = struct.unpack(f"{order}HHIIH", form[:14].ljust(14, b"\0"))
    compressed = tag not in _UNCOMPRESSED
    slack = 0 if compressed else int(_PCM_TOLERANCE * rate) * align
    # A recorder that lost power leaves a size of 0.  So does an empty recording, but then the
    # outer size is that of the file.
    unclosed = (declared == 0 and riff_size + 8 != size - start) or declared in _PLACEHOLDER_SIZES
    # Sizes of 32 bits wrap around, or stop at their limit, perhaps that of signed numbers.
    unclosed |= long_size is None and (
        size - offset >= max(2**32, declared + 1)
        or (0 < 2**31 - declared <= 2**16 and size - offset > declared)
    )
    mend = odd or magic[:4] == b"BW64"
    header = partial(_build_wave_header, form, order)
    layout = _Layout(order, align or 1, slack, unclosed, mend, compressed, header)
    return _weigh(file, start, offset, size, declared, layout)


def _weigh(
    file: _Readable, start: int, offset: int, size: int, declared: int, layout: _Layout
) -> Promise:
    """Compare the declared bytes of data at an offset with what is there."""
    present, order, align = size - offset, layout.order, layout.align
    length, another, mend = min(declared, present), False, layout.mend
    if layout.unclosed:
        declared, length, mend = 0, _end_of_data(file, offset, size, order) - offset, present > 0
    elif declared + layout.slack < present or not declared:
        what = _unexplained(file, offset + declared, size, order)
        if what and declared % 2:
            what = _unexplained(file, offset + declared + 1, size, order)
        another = mend = what == "another"
        mend |= layout.mend
        if what == "sound":
            length, mend = _end_of_data(file, offset, size, order) - offset, True
    elif declared in (size - start, size - start - 8) or (
        0 < declared - present <= layout.slack and (declared - present) % align == 0
    ):
        declared = present
    if mend and length > _MAX_32_BITS and (order == ">" or layout.compressed):
        declared, length = length, _MAX_32_BITS
    return Promise(
        declared // align,
        length // align,
        ended=not another,
        reason=_ANOTHER if another else CUT,
        new_header=(layout.header(length), offset) if mend else None,
        stop=offset + length if mend else None,
    )


def _contradiction_in(form: bytes, order: _Order) -> str | None:
    """Say what is wrong with a WAV's format if samples take another room than their bits need."""
    if len(form) < 16:
        return None
    tag, channels, _, _, align, bits = struct.unpack(f"{order}HHIIHH", form[:16])
    if tag != 1 or bits % 8 == 0 or align == channels * -(-bits // 8):
        return None
    return f"its header declares samples of {bits} bits in blocks of {align} bytes"


def _build_wave_header(form: bytes, order: _Order, data_size: int) -> bytes:
    """Header of a WAV, with 64-bit sizes if they are needed, up to where its data begin.

    libsndfile does not read compressed formats behind a header with 64-bit sizes.
    """
    content = struct.pack(f"{order}4sI", b"fmt ", len(form)) + form + b"\0" * (len(form) % 2)
    if order == ">" or data_size <= _MAX_32_BITS:
        content += struct.pack(f"{order}4sI", b"data", data_size)
        magic = b"RIFX" if order == ">" else b"RIFF"
        outer = struct.pack(f"{order}4sI4s", magic, 4 + len(content) + data_size, b"WAVE")
        return outer + content
    content += struct.pack("<4sI", b"data", 0xFFFFFFFF)
    sizes = struct.pack("<QQQI", 4 + 36 + len(content) + data_size, data_size, 0, 0)
    magic = struct.pack("<4sI4s", b"RF64", 0xFFFFFFFF, b"WAVE")
    return magic + struct.pack("<4sI", b"ds64", len(sizes)) + sizes + content


def _read_w64_promise(file: _Readable, start: int, size: int) -> Promise:
    """Read Sony Wave64: chunks with an id of 16 bytes and a size that includes the header."""
    form, known = b"", 0
    for identifier, declared, offset in _iterate_w64_chunks(file, start + 40):
        if identifier == b"fmt ":
            form = file.read(min(declared, _MAX_FORM))
        elif identifier == b"data":
            known = offset
            break
    if not known or len(form) < 16:
        return Promise(ended=bool(known))
    tag, _, rate, _, align = struct.unpack("<HHIIH", form[:14])
    unclosed = declared == 0 or declared >= 2**62
    header = partial(_build_wave_header, form, "<")
    end = end_of_data = known + declared
    if not unclosed and end < size:
        for _, length, offset in _iterate_w64_chunks(file, end + -end % 8):
            end = offset + length
        if size - 8 < end <= size + 8 or _skip_tags(file, min(end, size), size) == size:
            # libsndfile would take it for sound.
            return Promise(new_header=(header(declared), known), stop=end_of_data)
    compressed = tag not in _UNCOMPRESSED
    slack = 0 if compressed else int(_PCM_TOLERANCE * rate) * align
    layout = _Layout("<", align or 1, slack, unclosed, False, compressed, header)
    return _weigh(file, start, known, size, declared, layout)


def _iterate_w64_chunks(file: _Readable, offset: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield (id, size, offset of the content) of the chunks from an offset on."""
    for _ in range(_MAX_CHUNKS):
        if offset >= 2**44:  # no file is so large, and no file system lets us go there
            return
        file.seek(offset)
        header = file.read(24)
        if len(header) < 24 or header[4:16] != _W64_TAIL:
            return
        (declared,) = struct.unpack("<Q", header[16:])
        yield header[:4], max(0, declared - 24), offset + 24
        offset += max(24, declared + -declared % 8)


def _read_aiff_promise(file: _Readable, start: int, size: int, magic: bytes) -> Promise:
    form_size, kind = struct.unpack(">4xI4s", magic)
    common, end, odd = b"", start + 12, False
    for identifier, declared, offset in iterate_chunks(file, ">", start + 12):
        odd |= offset - 8 != end
        end = offset + declared + declared % 2
        file.seek(offset)
        if identifier == b"COMM":
            common = file.read(min(declared, _MAX_FORM))
        elif identifier == b"SSND":
            break
    else:
        return Promise(ended=False)
    channels, frames, bits = struct.unpack(">HIH", common[:8].ljust(8, b"\0"))
    align = channels * ((bits + 7) // 8) or 1
    uncompressed = kind == b"AIFF" or common[18:22] in _UNCOMPRESSED_AIFC
    slack = int(_PCM_TOLERANCE * _extended_number(common[8:18])) * align if uncompressed else 0
    # Eight bytes of the chunk come before the samples.
    unclosed = declared in _PLACEHOLDER_SIZES or (
        declared <= 8 and (frames > 0 or form_size + 8 != size - start)
    )
    header = partial(_build_aiff_header, kind, common, align)
    layout = _Layout(">", align, slack, unclosed, odd, not uncompressed, header)
    return _weigh(file, start, offset + 8, size, max(0, declared - 8), layout)


def _extended_number(ten: bytes) -> float:
    """Read the 80-bit float that is the rate of an AIFF; 0 if it is none that could be one."""
    exponent = int.from_bytes(ten[:2]) - 16383 - 63
    return math.ldexp(int.from_bytes(ten[2:]), exponent) if -64 < exponent < 0 else 0.0


def _build_aiff_header(kind: bytes, common: bytes, align: int, data_size: int) -> bytes:
    """Header of an AIFF or AIFC up to where its data begin."""
    common = common[:2] + struct.pack(">I", data_size // align) + common[6:]
    content = struct.pack(">4sI", b"COMM", len(common)) + common + b"\0" * (len(common) % 2)
    content += struct.pack(">4sIII", b"SSND", data_size + 8, 0, 0)
    return struct.pack(">4sI4s", b"FORM", 4 + len(content) + data_size, kind) + content


# --- FLAC -------------------------------------------------------------------------------------

_FLAC_BLOCKS = {
    1: 192,
    **{i: 576 << i - 2 for i in range(2, 6)},
    **{i: 1 << i for i in range(8, 16)},
}
_FLAC_START = re.compile(rb"fLaC[\0\x80]\0\0\x22")
_FLAC_FRAME = re.compile(rb"\xff[\xf8\xf9]")
_MAX_FLAC_FRAME = 2**24


class _FlacFrame(NamedTuple):
    position: int  # offset in the file
    first: int  # sample
    length: int  # samples


def _read_flac_promise(file: BinaryIO, start: int, size: int) -> Promise:
    """Compare the declared length with the numbers of the last frames."""
    file.seek(start)
    header = file.read(42)
    if len(header) < 42 or not _FLAC_START.match(header):
        return Promise()  # libsndfile says what is wrong
    block, largest = int.from_bytes(header[10:12]), int.from_bytes(header[15:18])
    packed = int.from_bytes(header[18:26])
    channels, bits, declared = (packed >> 41 & 7) + 1, (packed >> 36 & 31) + 1, packed & 2**36 - 1
    largest = min(largest or block * channels * (bits // 8 + 1) + 64, _MAX_FLAC_FRAME)

    end = _end_of_flac(file, start, size)
    last = None
    reach = max(_TAIL, 3 * largest)
    while last is None and reach < 16 * (size - start):
        last = _last_flac_frame(file, max(start, end - reach), end, block)
        reach *= 8
    if last is None:
        return Promise(ended=declared > 0)
    total = last.first + last.length
    restarts = _flac_restarts(file, start, size, 3 * largest, block)
    if restarts or (declared and total != declared):
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            second = _FLAC_START.search(data, start + 42, size)
        if second:
            first = _read_flac_promise(file, start, second.start())
            return first._replace(ended=False, reason=_ANOTHER, stop=second.start(),
                                  new_header=first.new_header or (b"", start))  # fmt: skip
        if restarts:
            return Promise(ended=False)
    note = _name_rest(file, end, size)
    if not note and end - last.position > 2 * largest + _TAIL:
        note = f"{end - last.position} bytes at its end are no FLAC"
    if declared and total < declared:  # decoding tells
        return Promise(note=note)
    file.seek(last.position)
    whole = bool(note) or _flac_checksum_holds(file.read(end - last.position))
    if total == declared:
        return Promise(note=note if whole else "what follows its last frame is no FLAC")
    if not whole:
        declared, total = total, last.first
    mended = header[:18] + (packed & ~(2**36 - 1) | total).to_bytes(8) + header[26:]
    return Promise(declared, total, new_header=(mended, start + 42), note=note)


def _end_of_flac(file: _Readable, start: int, size: int) -> int:
    """Where the last frame of a FLAC may end at most: before tags and fillers."""
    reach = min(_TAIL, size - start)
    file.seek(size - reach)
    tail = file.read(reach)
    for match in re.finditer(rb"ID3|TAG|APETAGEX|\x00{32}|\xff{32}", tail):
        position = size - reach + match.start()
        if _skip_tags(file, position, size) == size:
            return position
    end, filler = size, tail[-1:]
    while filler in (b"\0", b"\xff") and tail and not tail.strip(filler):  # a longer one
        end -= len(tail)
        first = max(start, end - _TAIL)
        file.seek(first)
        tail = file.read(end - first)
    return size if end == size else end - len(tail) + len(tail.rstrip(filler))


def _flac_frames(data: bytes | mmap.mmap, offset: int, block: int) -> list[_FlacFrame]:
    """Headers of frames in bytes that lie at an offset; a few may only look like some."""
    frames = []
    for match in _FLAC_FRAME.finditer(data):
        header = data[match.start() : match.start() + 16]
        if (frame := _parse_flac_frame(header, block)) is not None:
            frames.append(_FlacFrame(offset + match.start(), *frame))
    return frames


def _parse_flac_frame(header: bytes, block: int) -> tuple[int, int] | None:
    """First sample and length of the frame with this header (RFC 9639, section 9.1)."""
    if len(header) < 16 or header[3] & 1 or header[2] >> 4 == 0 or header[2] & 15 == 15:
        return None
    ones = 8 - (header[4] ^ 0xFF).bit_length()  # the number is written as UTF-8 writes characters
    if ones in (1, 8):
        return None
    extra, number = max(0, ones - 1), header[4] & 0x7F >> ones
    for byte in header[5 : 5 + extra]:
        number = number << 6 | byte & 0x3F
    position = 5 + extra
    code = header[2] >> 4
    if code in (6, 7):
        length = int.from_bytes(header[position : position + code - 5]) + 1
        position += code - 5
    else:
        length = _FLAC_BLOCKS[code]
    position += {12: 1, 13: 2, 14: 2}.get(header[2] & 15, 0)
    if position >= 16 or _crc(header[:position], 0x07, 8) != header[position]:
        return None
    return (number if header[1] & 1 else number * block), length


def _last_flac_frame(file: _Readable, start: int, end: int, block: int) -> _FlacFrame | None:
    """Last frame in a part of a file that follows on another, or is the first of all."""
    file.seek(start)
    frames = _flac_frames(file.read(end - start), start, block)
    ends = {frame.first + frame.length for frame in frames}
    return next(
        (frame for frame in reversed(frames) if not frame.first or frame.first in ends), None
    )


def _flac_restarts(file: _Readable, start: int, size: int, reach: int, block: int) -> bool:
    """Whether frames on the way are not in order, as where one file follows another."""
    before = -1
    for position in sorted(_spread(start, size)):
        frame = _last_flac_frame(file, position, min(size, position + reach), block)
        if frame is not None and frame.first:  # a first frame could be chance
            if frame.first < before:
                return True
            before = frame.first
    return False


def flac_gaps(file: BinaryIO) -> list[tuple[int, int]]:
    """Samples of a FLAC that lack their frames, as first and last (exclusive).

    Decoders go on with silence there and say nothing.
    """
    gaps: list[tuple[int, int]] = []
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = _FLAC_START.search(data)
        if start is None:
            return gaps
        header = data[start.start() : start.start() + 42]
        frames = _flac_frames(data, 0, int.from_bytes(header[10:12]))
        declared = int.from_bytes(header[18:26]) & 2**36 - 1
    follows = {frame.first for frame in frames}
    expected = 0
    for number, frame in enumerate(frames, start=1):
        end = frame.first + frame.length
        if frame.first == expected:
            expected = end
        # What looks like a frame by chance, has no other behind it.
        elif frame.first > expected and (
            end in follows or (number == len(frames) and end == declared)
        ):
            gaps.append((expected, frame.first))
            expected = end
    return gaps


def _flac_checksum_holds(frame: bytes) -> bool:
    """Whether a frame ends with its checksum, of which bytes may have gone for a filler."""
    return any(
        _crc(whole[:-2], 0x8005, 16) == int.from_bytes(whole[-2:])
        for whole in (frame, frame + b"\0", frame + b"\0\0", frame + b"\xff", frame + b"\xff\xff")
    )


@cache
def _crc_table(polynomial: int, bits: int) -> list[int]:
    """Checksums of every byte."""
    table = [byte << bits - 8 for byte in range(256)]
    for _ in range(8):
        table = [value << 1 ^ (polynomial if value >> bits - 1 else 0) for value in table]
        table = [value & (1 << bits) - 1 for value in table]
    return table


def _crc(data: bytes, polynomial: int, bits: int) -> int:
    table, value, mask = _crc_table(polynomial, bits), 0, (1 << bits) - 1
    for byte in data:
        value = value << 8 & mask ^ table[value >> bits - 8 ^ byte]
    return value


def _spread(start: int, size: int) -> list[int]:
    """Some places between the start and the end, and the last ones."""
    step = (size - start) // _PROBES
    return [start + i * step for i in range(_PROBES)] + [max(start, size - _TAIL)]


# --- OGG --------------------------------------------------------------------------------------

_MAX_OGG_PAGE = 27 + 255 + 255 * 255  # bytes
_OGG_START = re.compile(rb"OggS\0[\x02\x03\x06\x07]")


class _OggPage(NamedTuple):
    position: int  # offset in the file
    flags: int  # 2: the first of its stream; 4: the last
    stream: bytes
    number: int
    granule: int  # samples up to its end, or -1; more in Opus
    end: int  # offset of what follows


def _ogg_pages(file: _Readable, start: int, stop: int) -> Iterator[_OggPage]:
    """Yield the pages that begin in a part of a file."""
    file.seek(start)
    data = file.read(stop - start + 27 + 255)
    for match in re.finditer(rb"OggS\0", data[: stop - start + 4]):
        page = data[match.start() : match.start() + 27 + 255]
        if len(page) < 27 or page[5] > 7:
            continue
        stream, number = page[14:18], int.from_bytes(page[18:22], "little")
        end = 27 + page[26] + sum(page[27 : 27 + page[26]])
        granule = int.from_bytes(page[6:14], "little", signed=True)
        position = start + match.start()
        yield _OggPage(position, page[5], stream, number, granule, position + end)


def _read_ogg_promise(file: BinaryIO, start: int, size: int) -> Promise:
    probes = _spread(start, size)
    pages = [
        next(_ogg_pages(file, place, min(size, place + _MAX_OGG_PAGE)), None)
        for place in probes[:-1]
    ]
    pages += _ogg_pages(file, max(start, size - _MAX_OGG_PAGE), size)
    known = [page for page in pages if page is not None]
    if _ogg_restarts(known):
        second = _second_ogg(file, start, size)
        if second < size:
            first = _read_ogg_promise(file, start, second)
            return first._replace(
                ended=False, reason=_ANOTHER, new_header=(b"", start), stop=second
            )
    last = pages[-1]
    if last is None or last.position < size - _MAX_OGG_PAGE:  # a long filler, or something else
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            place = data.rfind(b"OggS\0", start, size)
        last = next(_ogg_pages(file, place, place + 1), None) if place >= 0 else None
    if last is None:
        return Promise(tolerance=_LOSSY_TOLERANCE, ended=False)
    times = [page.granule for page in known if page.stream == last.stream]
    if last.end > last.position + 27 and last.granule < max(times, default=0):
        # libsndfile would stop there; an empty page may hold any time.
        return Promise(
            tolerance=_LOSSY_TOLERANCE,
            ended=False,
            new_header=(b"", start),
            stop=last.position,
            reason="its last page has an earlier time than others",
        )
    ended = bool(last.flags & 4) and last.end <= size
    return Promise(tolerance=_LOSSY_TOLERANCE, ended=ended, note=_name_rest(file, last.end, size))


def _ogg_restarts(pages: list[_OggPage]) -> bool:
    """Whether pages from all over the file are not of one stream, in order."""
    streams = {page.stream for page in pages}
    numbers = [page.number for page in pages]
    return len(streams) > 1 or numbers != sorted(numbers)


def _second_ogg(file: BinaryIO, start: int, size: int) -> int:
    """Offset at which a second group of streams begins; the end if there is none."""
    end = start
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for match in _OGG_START.finditer(data, start, size):
            page = next(_ogg_pages(data, match.start(), match.start() + 1))
            if page.position != end:
                return page.position
            end = page.end
    return size


# --- MP3 --------------------------------------------------------------------------------------

# MPEG audio, layer III: rates in kbit/s by the header's index, for version 1 and for 2 and 2.5.
_MP3_KBITS_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_MP3_KBITS_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_MP3_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
# "Xing" or "Info", then flags: the lowest means that the number of frames follows, the next the
# number of bytes.
_XING = re.compile(rb"(?:Xing|Info)\0\0\0([\0-\x0f])")


def _read_mp3_promise(data: mmap.mmap) -> Promise:
    start = _skip_tags(data, 0, len(data))
    if _parse_mp3_frame(data, start) is None:
        start = _find_mp3_frames(data, start)
    first = _parse_mp3_frame(data, start)
    if first is None:
        return Promise(tolerance=float("inf"), ended=False)
    head, audio, said = data[start : start + first[0]], start, 0
    if tag := _XING.search(head):
        audio = start + len(head)
        fields = head[tag.end() :].ljust(8, b"\0")
        if (flags := tag[1][0]) & 1:
            said = int.from_bytes(fields[:4])
        if said and flags & 2:
            length = int.from_bytes(fields[4:8])
            if _xing_fits(data, audio, start + length, said):
                return Promise(tolerance=_LOSSY_TOLERANCE)
    count, end, cut = _count_mp3_frames(data, audio, head)
    another = not cut and _find_mp3_frames(data, end, 1) == end < len(data)
    if not cut and not another and _find_mp3_frames(data, end) < len(data):
        return Promise(tolerance=float("inf"), ended=False)  # damaged: nobody knows the length
    promise = Promise(
        tolerance=_LOSSY_TOLERANCE,
        ended=not cut and not another,
        reason=_ANOTHER if another else CUT,
        note="" if another else _name_rest(data, end, len(data)),
    )
    if said and abs(count - said) <= 1:
        return promise
    # libsndfile guesses the length from the first frames, and would stop there.
    header = _build_xing_frame(head[:4], count)
    if tag and tag[1][0] & 1:  # keeps what the encoder says of its delay
        sizes = struct.pack(">II", count, end - start)
        known = 8 if tag[1][0] & 2 else 4
        header = head[: tag.end()] + sizes[:known] + head[tag.end() + known :]
    return promise._replace(
        declared=said, present=count, frames=count * first[1], new_header=(header, audio)
    )


def _xing_fits(data: mmap.mmap, audio: int, end: int, said: int) -> bool:
    """Whether a file ends where its Xing header says, and frames are as large as that says."""
    if end < len(data) and _skip_tags(data, end, len(data)) < len(data):
        return False
    sizes = []
    for place in _spread(audio, min(end, len(data))):
        position = _find_mp3_frames(data, place, 2**13)
        for _ in range(20):
            if (frame := _parse_mp3_frame(data, position)) is None:
                break
            sizes.append(frame[0])
            position += frame[0]
    return bool(sizes) and 0.8 < (end - audio) / said / (sum(sizes) / len(sizes)) < 1.25


def _count_mp3_frames(data: mmap.mmap, position: int, first: bytes) -> tuple[int, int, bool]:
    """Count frames of one stream; also where they end, and whether the last is cut.

    The decoder stops where the rate or number of channels is not that of the first frame.
    """
    count, kind = 0, _mp3_kind(first)
    while True:
        frame = _parse_mp3_frame(data, position)
        if frame is not None and _mp3_kind(data[position : position + 4]) != kind:
            return count, position, False
        if frame is None:
            # Where files were joined, there are tags in the middle.
            end = _skip_tags(data, position, len(data))
            if end == position or end == len(data):
                return count, position, False
            position = end
        elif position + frame[0] > len(data):
            return count, position, True
        else:
            position += frame[0]
            count += 1


def _mp3_begins(file: _Readable, position: int) -> bool:
    """Whether two MPEG frames follow one another at an offset, or behind a tag there."""
    file.seek(position)
    if (head := file.read(10))[:3] == b"ID3" and len(head) == 10:
        position += _id3_size(head)
    for _ in range(2):
        file.seek(position)
        if (frame := _parse_mp3_frame(file.read(4), 0)) is None:
            return False
        position += frame[0]
    return True


def _find_mp3_frames(data: mmap.mmap, position: int, reach: int = 2**63) -> int:
    """Offset of the next two frames that follow one another; the end if there are none."""
    stop = min(len(data), position + reach)
    while (position := data.find(b"\xff", position, stop)) >= 0:
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


def _mp3_kind(header: bytes) -> tuple[int, int, bool]:
    """Version, index of the rate, and whether there is one channel."""
    return header[1] >> 3 & 3, header[2] >> 2 & 3, header[3] >> 6 == 3


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
