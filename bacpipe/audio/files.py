"""Find recordings in a folder and read what their headers promise.

libsndfile trusts the size of a file more than its header: a WAV whose data were cut off
simply becomes shorter, one whose recorder lost power becomes empty, and an MP3 without a
length gets an estimate that may be wrong by a factor of three.  This module therefore looks
at the headers itself, so that a recording is never shortened without anybody noticing:

========  =================================================================================
WAV, AIFF the declared size of the data is compared with the bytes that are there.  A size
          of 0 or 0xFFFFFFFF (and the like) means a header that was never completed: the
          length is unknown and the data are read up to the end of the file.
FLAC      libsndfile tells the declared length; a cut file fails while it is decoded.
MP3       the Xing header's length counts.  Without one, the MPEG frames are counted; then a
          file cut exactly between two frames cannot be told from a shorter one.
OGG       the last page must carry the mark for the end of the stream.
========  =================================================================================
"""

from __future__ import annotations

import logging
import mmap
import os
import re
import stat
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import numpy as np
import soundfile as sf

from bacpipe.errors import AudioError, NoRecordingsError

logger = logging.getLogger(__name__)

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".aif", ".aiff")


@dataclass(frozen=True, slots=True)
class Recording:
    """One recording as its header describes it.

    Attributes
    ----------
    path : Path
        Where the file is.
    name : str
        Posix path relative to the audio folder: the recording's identity in all results.
    sample_rate : int
        Native rate in Hz.
    channels : int
        Number of channels.
    frames : int
        Samples per channel that the header promises; the data may hold fewer.  Counted where
        the header does not tell, an estimate for a damaged MP3 without a Xing header.
    duration : float
        ``frames / sample_rate`` in seconds.
    size : int
        Size of the file in bytes.
    mtime_ns : int
        Time of the last modification in ns since the epoch.
    """

    path: Path
    name: str
    sample_rate: int
    channels: int
    frames: int
    duration: float
    size: int
    mtime_ns: int


# --- Finding recordings -----------------------------------------------------------------------


def find_audio_files(
    audio_dir: str | os.PathLike[str], suffixes: Iterable[str] = AUDIO_SUFFIXES
) -> list[Path]:
    """Find all recordings in a folder and its subfolders.

    Hidden files and folders are skipped (macOS leaves ``._x.wav`` beside ``x.wav``).  Linked
    folders are followed; a folder that can be reached in several ways is visited once, by its
    real path if that lies inside `audio_dir`, so loops of links end.  Whatever has a
    recording's name is listed, even a folder ``x.wav`` or a dangling link: `read_recording`
    then gives the reason why it cannot be read, so that it turns up among the failures instead
    of vanishing.  Subfolders that cannot be read are logged and skipped.

    Parameters
    ----------
    audio_dir : path
        The folder.
    suffixes : iterable of str
        Endings to look for; neither their case nor a leading dot matters.

    Returns
    -------
    list of Path
        ``audio_dir / name`` of every recording, sorted by name (the relative posix path).

    Raises
    ------
    NoRecordingsError
        If `audio_dir` is missing, not a folder, unreadable or without any recording.
    """
    root = Path(audio_dir)
    endings = _normalise_suffixes(suffixes)
    looked_for = f"(looked for {', '.join(endings)} in it and its subfolders)"
    try:
        with os.scandir(root):
            pass
    except FileNotFoundError:
        raise NoRecordingsError(f"The audio folder {root} does not exist {looked_for}.") from None
    except NotADirectoryError:
        raise NoRecordingsError(f"{root} is a file, not a folder {looked_for}.") from None
    except OSError as error:
        raise NoRecordingsError(
            f"The audio folder {root} cannot be read: {error.strerror} {looked_for}."
        ) from error
    names = _walk(root, endings)
    if not names:
        raise NoRecordingsError(f"The audio folder {root} holds no recordings {looked_for}.")
    names.sort()
    return [Path(root, name) for name in names]


def _normalise_suffixes(suffixes: Iterable[str]) -> tuple[str, ...]:
    given = [suffixes] if isinstance(suffixes, str) else suffixes
    bare = [suffix.strip().lower().lstrip(".") for suffix in given]
    endings = tuple(dict.fromkeys(f".{suffix}" for suffix in bare if suffix))
    if not endings:
        raise ValueError("suffixes is empty: give at least one, such as '.wav'.")
    return endings


def _walk(root: Path, endings: tuple[str, ...]) -> list[str]:
    """Posix paths, relative to `root`, of all files whose names have one of the endings."""
    names: list[str] = []
    visited: set[tuple[int, int]] = set()
    real = [""]  # folders still to visit, as relative paths with a trailing slash
    linked: list[str] = []
    while real or linked:
        # Links come last, so that what lies inside `root` keeps its real path.
        prefix = real.pop() if real else linked.pop(0)
        for name, is_link in _scan(root, prefix, endings, visited, names):
            (linked if is_link else real).append(f"{prefix}{name}/")
        linked.sort()
    return names


def _scan(
    root: Path,
    prefix: str,
    endings: tuple[str, ...],
    visited: set[tuple[int, int]],
    names: list[str],
) -> list[tuple[str, bool]]:
    """Append one folder's recordings to `names`; return its subfolders, (name, is a link)."""
    folders: list[tuple[str, bool]] = []
    folder = Path(root, prefix)
    try:
        info = folder.stat()
        if (info.st_dev, info.st_ino) in visited:
            return folders
        visited.add((info.st_dev, info.st_ino))
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                # No file is stat-ed here: the folder itself tells folders, files and links
                # apart, and only links are looked up.
                if entry.is_dir():
                    folders.append((entry.name, entry.is_symlink()))
                if entry.name.lower().endswith(endings):
                    names.append(prefix + entry.name)
    except OSError as error:
        logger.warning("The folder %s cannot be read and is skipped: %s", folder, error.strerror)
    return folders


# --- Reading one recording's header -----------------------------------------------------------

# Sizes that recorders write while they do not know the size yet (zero is treated apart).
_PLACEHOLDER_SIZES = frozenset(
    {0x7FFFF000, 0x7FFFFF00, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF}
)
_UNKNOWN_FRAMES = 2**63 - 1  # libsndfile, for a FLAC whose header does not tell its length
_MAX_CHUNKS = 1000  # a damaged WAV could seem to hold millions
_MAX_FORM = 4096  # bytes of a WAV's format chunk; 40 are usual
_MAX_OGG_PAGE = 27 + 255 + 255 * 255  # bytes
_SFE_INTERNAL = 24  # libsndfile's error code for a header whose numbers are impossible
_LOSSY_TOLERANCE = 0.1  # seconds: some MPEG frames or Vorbis blocks


def read_recording(
    path: str | os.PathLike[str], audio_dir: str | os.PathLike[str] | None = None
) -> Recording:
    """Read the header of a recording.

    Parameters
    ----------
    path : path
        The recording.
    audio_dir : path, optional
        The folder that ``name`` is relative to; by default the recording's own.

    Returns
    -------
    Recording

    Raises
    ------
    AudioError
        If this is no readable recording with at least one sample; the message is one sentence
        that names the file and the reason.
    ValueError
        If `path` does not lie in `audio_dir`.
    """
    opened = open_recording(path, audio_dir)
    opened.sound.close()
    return opened.recording


class SequentialSoundFile(sf.SoundFile):
    """A sound file that is read from front to back, with explicit seeks only.

    soundfile seeks after every read of a seekable file, which makes the decoders of
    compressed formats start over; reading on is faster.

    Parameters
    ----------
    path : Path
        The file.
    new_header : tuple of (bytes, int), optional
        What the decoder is to see instead of the file's bytes before an offset, and the offset.
    """

    def __init__(self, path: Path, new_header: tuple[bytes, int] | None = None) -> None:
        self._mended = _MendedFile(path, *new_header) if new_header else None
        # Bytes keep names that are not valid UTF-8 intact; Windows wants text.
        name = os.fsencode(path) if os.name == "posix" else str(path)
        super().__init__(self._mended or name)

    def seekable(self) -> bool:
        """Deny it, so that soundfile does not seek by itself; `seek` works all the same."""
        return False

    def close(self) -> None:
        """Close the file; can be called several times."""
        super().close()
        if self._mended is not None:
            self._mended.close()


class _MendedFile:
    """A file for soundfile's virtual input whose beginning is replaced by another header."""

    def __init__(self, path: Path, header: bytes, offset: int) -> None:
        self._file = path.open("rb")
        self._header = header
        self._shift = offset - len(header)
        self._size = path.stat().st_size - self._shift
        self._position = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}
        self._position = max(0, origin[whence] + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: memoryview) -> int:
        data = self._header[self._position : self._position + len(buffer)]
        rest = len(buffer) - len(data)
        if rest:
            self._file.seek(self._position + len(data) + self._shift)
            data += self._file.read(rest)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()


class OpenRecording(NamedTuple):
    """An open recording, and how far its data can be trusted to reach.

    Attributes
    ----------
    sound : SequentialSoundFile
        The open file, at its first sample.  The caller closes it.
    recording : Recording
        What the header promises.
    readable : int
        Samples per channel that can be read at most: fewer than ``recording.frames`` if the
        file is known to be cut.
    tolerance : float
        Seconds that may be missing at the end before the file counts as cut.
    ended : bool
        False if the format marks the end of its stream and the mark is missing.
    """

    sound: SequentialSoundFile
    recording: Recording
    readable: int
    tolerance: float
    ended: bool


def open_recording(
    path: str | os.PathLike[str], audio_dir: str | os.PathLike[str] | None = None
) -> OpenRecording:
    """Open a recording for decoding; see `read_recording` for parameters and errors."""
    path = Path(path)
    name = path.name if audio_dir is None else path.relative_to(audio_dir).as_posix()
    try:
        info = _stat_regular_file(path, name)
        with path.open("rb") as file:
            promise = _read_promise(file, info.st_size)
        sound, readable = _open_sound(path, promise)
    except OSError as error:
        raise AudioError(f"{name}: cannot be read ({error.strerror or error}).") from error
    except sf.LibsndfileError as error:
        raise AudioError(
            f"{name}: is not audio that can be read as WAV, FLAC, OGG, MP3 or AIFF "
            f"({_explain(error)})."
        ) from error
    rate = sound.samplerate
    frames = promise.total_frames(readable)
    if 0 < frames - readable <= promise.tolerance * rate:
        frames = readable
    if readable == 0:
        sound.close()
        promised = f", though its header promises {frames / rate:.2f} seconds" if frames else ""
        raise AudioError(f"{name}: holds no audio (0 samples){promised}.")
    recording = Recording(
        path=path,
        name=name,
        sample_rate=rate,
        channels=sound.channels,
        frames=frames,
        duration=frames / rate,
        size=info.st_size,
        mtime_ns=info.st_mtime_ns,
    )
    return OpenRecording(sound, recording, min(readable, frames), promise.tolerance, promise.ended)


def _stat_regular_file(path: Path, name: str) -> os.stat_result:
    try:
        info = path.stat()
    except FileNotFoundError:
        reason = "is a link to a file that does not exist" if path.is_symlink() else "is missing"
        raise AudioError(f"{name}: {reason}.") from None
    if stat.S_ISDIR(info.st_mode):
        raise AudioError(f"{name}: is a folder, not a recording.")
    if not stat.S_ISREG(info.st_mode):  # opening a pipe would wait for ever
        raise AudioError(f"{name}: is not a regular file.")
    if info.st_size == 0:
        raise AudioError(f"{name}: is empty (0 bytes).")
    return info


def _explain(error: sf.LibsndfileError) -> str:
    if error.code == _SFE_INTERNAL:
        return "its header is senseless, such as a sample rate of 0 Hz"
    return str(error.error_string).rstrip(".")


def _open_sound(path: Path, promise: _Promise) -> tuple[SequentialSoundFile, int]:
    """Open a file with libsndfile; also return how many frames it can hand out."""
    sound = SequentialSoundFile(path)
    if sound.frames == _UNKNOWN_FRAMES:
        with sound:
            frames = _count_frames(sound)
        return SequentialSoundFile(path), frames
    if promise.new_header and (promise.frames is None or sound.frames < promise.frames):
        sound.close()
        sound = SequentialSoundFile(path, promise.new_header)
    return sound, sound.frames


def _count_frames(sound: SequentialSoundFile) -> int:
    """Count by decoding: streamed FLAC does not tell its length."""
    block = np.empty((2**16, sound.channels), dtype=np.int16)
    try:
        while len(sound.read(out=block)) == len(block):
            pass
    except sf.LibsndfileError:
        pass  # damaged: the frames up to here count, and decoding will meet the same error
    return int(sound.tell())


class _Promise(NamedTuple):
    """What the header of a file says about the length of its data.

    `declared` and `present` are numbers of PCM frames (of blocks, in compressed WAV) that the
    header declares and that are in the file; `frames` is the length if it had to be counted.
    `new_header` mends a header that would make libsndfile stop early: bytes to be seen instead
    of all that comes before an offset, and the offset.
    """

    declared: int = 0
    present: int = 0
    frames: int | None = None
    tolerance: float = 0.0
    ended: bool = True
    new_header: tuple[bytes, int] | None = None

    def total_frames(self, readable: int) -> int:
        """Length of the whole recording, of which libsndfile finds `readable` frames."""
        if self.frames is not None:
            return self.frames
        if self.declared <= self.present:
            return readable
        return readable * self.declared // self.present if self.present else self.declared


def _read_promise(file: BinaryIO, size: int) -> _Promise:
    magic = file.read(12)
    if magic[:4] in (b"RIFF", b"RIFX", b"RF64") and magic[8:] == b"WAVE":
        return _read_wave_promise(file, size, magic)
    if magic[:4] == b"FORM" and magic[8:] in (b"AIFF", b"AIFC"):
        return _read_aiff_promise(file, size)
    if magic[:4] == b"OggS":
        return _Promise(tolerance=_LOSSY_TOLERANCE, ended=_ogg_is_ended(file, size))
    if magic[:3] == b"ID3" or (magic[0] == 0xFF and magic[1:] and magic[1] & 0xE0 == 0xE0):
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _read_mp3_promise(data)
    return _Promise()


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


def _read_wave_promise(file: BinaryIO, size: int, magic: bytes) -> _Promise:
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
        return _Promise()
    present = size - offset
    wraps = long_size is None and present - declared >= 2**32  # sizes above 4 GiB
    if long_size is not None and declared == 0xFFFFFFFF:
        declared = long_size
    # A recorder that lost power leaves a size of 0.  So does an empty recording, but then the
    # outer size is that of the file.
    unclosed = declared == 0 and present > 0 and riff_size + 8 != size
    if not (wraps or unclosed or declared in _PLACEHOLDER_SIZES):
        align = struct.unpack(f"{order}H", form[12:14])[0] if len(form) >= 14 else 1
        return _Promise(declared // (align or 1), min(declared, present) // (align or 1))
    # libsndfile reads nothing if the size is 0, and 4 GiB at most if it has 32 bits.
    if order == "<" and (wraps or unclosed or present >= 2**32):
        return _Promise(new_header=(_build_rf64_header(form, present), offset))
    return _Promise()


def _build_rf64_header(form: bytes, data_size: int) -> bytes:
    """Header of a WAV with 64-bit sizes, up to where its data begin."""
    content = struct.pack("<4sI", b"fmt ", len(form)) + form + b"\0" * (len(form) % 2)
    content += struct.pack("<4sI", b"data", 0xFFFFFFFF)
    sizes = struct.pack("<QQQI", 4 + 36 + len(content) + data_size, data_size, 0, 0)
    magic = struct.pack("<4sI4s", b"RF64", 0xFFFFFFFF, b"WAVE")
    return magic + struct.pack("<4sI", b"ds64", len(sizes)) + sizes + content


def _read_aiff_promise(file: BinaryIO, size: int) -> _Promise:
    align = 1
    for identifier, declared, offset in iterate_chunks(file, ">"):
        if identifier == b"COMM":
            channels, _, bits = struct.unpack(">HIH", file.read(8).ljust(8, b"\0"))
            align = channels * ((bits + 7) // 8) or 1
        elif identifier == b"SSND" and declared > 8 and declared not in _PLACEHOLDER_SIZES:
            # Eight bytes of the chunk come before the samples.
            present = min(declared, size - offset) - 8
            return _Promise((declared - 8) // align, max(present, 0) // align)
    return _Promise()


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


def _read_mp3_promise(data: mmap.mmap) -> _Promise:
    start = _skip_id3(data)
    first = _parse_mp3_frame(data, start)
    if first is None:
        return _Promise(tolerance=float("inf"))
    # "Xing" or "Info", then flags; the lowest means that the number of frames follows.
    tag = re.search(rb"(?:Xing|Info)...[\x01-\xff]", data[start : start + first[0]], re.DOTALL)
    if tag and tag[0][-1] & 1:
        return _Promise(tolerance=_LOSSY_TOLERANCE)
    position, count = start, 0
    while (frame := _parse_mp3_frame(data, position)) is not None:
        if position + frame[0] > len(data):
            break
        position += frame[0]
        count += 1
    rest = data[position : position + 8]
    if not (frame or len(rest) < 4 or rest.startswith((b"TAG", b"APETAGEX", b"ID3", b"LYRICS"))):
        return _Promise(tolerance=float("inf"))  # damaged: nobody knows the length
    return _Promise(
        frames=count * first[1],
        tolerance=_LOSSY_TOLERANCE,
        ended=frame is None,
        # libsndfile guesses the length from the first frames, and would stop there.
        new_header=(_build_xing_frame(data[start : start + 4], count), start),
    )


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
