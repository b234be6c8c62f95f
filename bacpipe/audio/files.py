"""Find recordings in a folder and open them.

What the headers of files promise is looked at in `bacpipe.audio.headers`.
"""

from __future__ import annotations

import logging
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import numpy as np
import soundfile as sf

from bacpipe.audio.headers import Promise, read_promise
from bacpipe.audio.remote import RemoteFile, as_path, names_by_folder, url_of
from bacpipe.errors import AudioError, NoRecordingsError, said

logger = logging.getLogger(__name__)

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".aif", ".aiff")
# Of what recorders, people and bacpipe leave beside recordings.
_NO_AUDIO = frozenset(
    f".{suffix}"
    for suffix in re.findall(
        r"\w+",
        "csv tsv txt md json jsonl xml yml yaml ini cfg conf toml log lock tmp html pdf doc docx "
        "odt rtf xls xlsx xlsm ods png jpg jpeg gif svg tif tiff bmp npy npz parquet safetensors "
        "pt pth pkl h5 hdf5 db sqlite sqlite3 rds rdata r py ipynb sh bat qgz gpx kml kmz geojson "
        "shp dbf prj shx textgrid aup aup3 bin hex sig md5 sha1 sha256 summary selections pdn lnk "
        "url ds_store",
    )
)


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
    real path if that lies inside `audio_dir`, so loops of links end.  Folders are known by
    their paths, since some network drives (sshfs on Windows, WebDAV) number them all 0.
    Whatever has a recording's name is listed, even a folder ``x.wav`` or a dangling link:
    `read_recording` then gives the reason why it cannot be read, so that it turns up among the
    failures instead of vanishing.  Subfolders that cannot be read are logged and skipped.

    Parameters
    ----------
    audio_dir : path
        The folder, or its fsspec URL.
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
    root = as_path(audio_dir)
    return [Path(root, name) for name in find_recording_names(root, suffixes)]


def find_recording_names(
    audio_dir: str | os.PathLike[str],
    suffixes: Iterable[str] = AUDIO_SUFFIXES,
    others: Counter[str] | None = None,
) -> list[str]:
    """Do what `find_audio_files` does, but return posix paths relative to `audio_dir`.

    They take a sixth of the memory.  In `others`, files that may be recordings, too, but for
    their suffix, are counted by it; those that usually lie beside recordings are not among them.
    """
    names = [name for some in recordings_by_folder(audio_dir, suffixes, others) for name in some]
    names.sort()
    return names


def recordings_by_folder(
    audio_dir: str | os.PathLike[str],
    suffixes: Iterable[str] = AUDIO_SUFFIXES,
    others: Counter[str] | None = None,
) -> Iterator[list[str]]:
    """Do what `find_recording_names` does, but folder by folder, for more than fit into memory.

    The names of a folder are sorted, and folders come in the order of their names, each before
    those in it.
    """
    root = as_path(audio_dir)
    endings = _normalise_suffixes(suffixes)
    if (url := url_of(root)) is not None:
        yield from names_by_folder(url, endings)
        return
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
    others = Counter() if others is None else others
    is_empty = True
    for names in _walk(root, endings, others):
        if names:
            is_empty = False
            yield sorted(names)
    if is_empty:
        commonest = ", ".join(f"{suffix} ({number:,})" for suffix, number in others.most_common(5))
        raise NoRecordingsError(
            f"The audio folder {root} holds no recordings {looked_for}"
            + (f"; it holds files with other suffixes: {commonest}." if commonest else ".")
        )


def _normalise_suffixes(suffixes: Iterable[str]) -> tuple[str, ...]:
    given = [suffixes] if isinstance(suffixes, str) else suffixes
    bare = [suffix.strip().lower().lstrip(".") for suffix in given]
    endings = tuple(dict.fromkeys(f".{suffix}" for suffix in bare if suffix))
    if not endings:
        raise ValueError("suffixes is empty: give at least one, such as '.wav'.")
    return endings


def _walk(root: Path, endings: tuple[str, ...], others: Counter[str]) -> Iterator[list[str]]:
    """Posix paths, relative to `root`, of the files in each folder with one of the endings."""
    visited: set[str] = set()  # real paths, which are looked up for links alone
    real = [("", os.path.realpath(root))]  # folders still to visit: relative paths with a slash
    linked: list[str] = []
    while real or linked:
        # Links come last, so that what lies inside `root` keeps its real path.
        if real:
            prefix, path = real.pop()
        else:
            prefix = linked.pop(0)
            path = os.path.realpath(Path(root, prefix))
        if path in visited:
            continue
        visited.add(path)
        names: list[str] = []
        # The last comes first from the stack.
        for name, is_link in sorted(_scan(root, prefix, endings, names, others), reverse=True):
            if is_link:
                linked.append(f"{prefix}{name}/")
            else:
                real.append((f"{prefix}{name}/", os.path.join(path, name)))  # noqa: PTH118
        linked.sort()
        yield names


def _scan(
    root: Path,
    prefix: str,
    endings: tuple[str, ...],
    names: list[str],
    others: Counter[str],
) -> list[tuple[str, bool]]:
    """Append one folder's recordings to `names`; return its subfolders, (name, is a link)."""
    folders: list[tuple[str, bool]] = []
    folder = Path(root, prefix)
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                # No file is stat-ed here: the folder itself tells folders, files and links
                # apart, and only links are looked up.
                is_folder = _is_folder(entry)
                if is_folder:
                    folders.append((entry.name, _is_link(entry)))
                if entry.name.lower().endswith(endings):
                    names.append(prefix + entry.name)
                elif not is_folder:
                    suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122
                    if suffix and suffix not in _NO_AUDIO:
                        others[suffix] += 1
    except OSError as error:
        logger.warning("The folder %s cannot be read and is skipped: %s", folder, error.strerror)
    return folders


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links in a circle
        return False


def _is_link(entry: os.DirEntry[str]) -> bool:
    if os.name != "nt":
        return entry.is_symlink()
    # Windows has junctions, too, and this tells them without a further look at the disk.
    attributes: int = getattr(entry.stat(follow_symlinks=False), "st_file_attributes", 0)
    return bool(attributes & stat.FILE_ATTRIBUTE_REPARSE_POINT)


# --- Reading one recording's header -----------------------------------------------------------

# What libsndfile reads beside these has no length that we could check against the data.
_FORMATS = frozenset({"WAV", "WAVEX", "RF64", "W64", "FLAC", "OGG", "MP3", "AIFF"})
_UNCHECKED = frozenset({"MPEG_LAYER_I", "MPEG_LAYER_II"})
_LOWEST_RATE = 40  # Hz; the lowest calls of whales are at 20 Hz
_SFE_INTERNAL = 24  # libsndfile's error code for a header whose numbers are impossible


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
    stop : int, optional
        Offset at which such a file ends for the decoder; by default its real end.
    remote : RemoteFile, optional
        The file, if it lies elsewhere; closed with this one.
    """

    def __init__(
        self,
        path: Path,
        new_header: tuple[bytes, int] | None = None,
        stop: int | None = None,
        remote: RemoteFile | None = None,
    ) -> None:
        self._path, self._remote = path, remote
        self._input: _Input | None = None
        if new_header is not None or remote is not None:
            header, offset = new_header or (b"", 0)
            source = path.open("rb") if remote is None else cast("BinaryIO", remote)
            self._input = _Input(source, header, offset, stop)
        # Bytes keep names that are not valid UTF-8 intact; Windows wants text.
        name = os.fsencode(path) if os.name == "posix" else str(path)
        try:
            super().__init__(self._input or name)
        finally:
            self._require_input()

    def read(
        self,
        frames: int = -1,
        dtype: str = "float64",
        always_2d: bool = False,
        fill_value: float | None = None,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        try:
            samples: np.ndarray = super().read(frames, dtype, always_2d, fill_value, out)
        finally:
            self._require_input()
        return samples

    def seek(self, frames: int, whence: int = os.SEEK_SET) -> int:
        try:
            position: int = super().seek(frames, whence)
        finally:
            self._require_input()
        return position

    def _require_input(self) -> None:
        """Raise what went wrong with bytes that lie elsewhere: the decoder takes it for the end."""
        if self._input is not None and self._input.problem is not None:
            name = self._path.name if self._remote is None else self._remote.title
            reason = said(self._input.problem).rstrip(".")
            raise AudioError(f"{name}: cannot be read ({reason}).") from self._input.problem

    def open_bytes(self) -> AbstractContextManager[BinaryIO]:
        """The bytes of the file, which may have been opened anew."""
        if self._remote is None:
            return self._path.open("rb")
        return nullcontext(cast("BinaryIO", self._remote))

    def seekable(self) -> bool:
        """Deny it, so that soundfile does not seek by itself; `seek` works all the same."""
        return False

    def close_decoder(self) -> None:
        """Close it, but leave a file that lies elsewhere open."""
        super().close()
        self._input = None

    def close(self) -> None:
        """Close the file; can be called several times."""
        super().close()
        if self._input is not None:
            self._input.close()


class _Input:
    """A file for soundfile's virtual input: with another header, perhaps without its end.

    What goes wrong while it is read cannot be raised through libsndfile, and is kept.
    """

    def __init__(self, file: BinaryIO, header: bytes, offset: int, stop: int | None) -> None:
        self._file = file
        self._header = header
        self._shift = offset - len(header)
        self._size = (file.seek(0, os.SEEK_END) if stop is None else stop) - self._shift
        self._position = 0
        self.problem: OSError | None = None

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}
        self._position = max(0, origin[whence] + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: memoryview) -> int:
        wanted = max(0, min(len(buffer), self._size - self._position))
        data = self._header[self._position : self._position + wanted]
        rest = wanted - len(data)
        if rest:
            try:
                self._file.seek(self._position + len(data) + self._shift)
                data += self._file.read(rest)
            except OSError as error:
                self.problem = error
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
        False if the recording goes on behind what can be read, nobody knows how far.
    reason : str
        Why not all can be read.
    note : str
        What is odd about the file although all of it can be read; empty if nothing is.
    """

    sound: SequentialSoundFile
    recording: Recording
    readable: int
    tolerance: float
    ended: bool
    reason: str
    note: str


def open_recording(
    path: str | os.PathLike[str], audio_dir: str | os.PathLike[str] | None = None
) -> OpenRecording:
    """Open a recording for decoding; see `read_recording` for parameters and errors."""
    path = as_path(path)
    name = path.name if audio_dir is None else path.relative_to(as_path(audio_dir)).as_posix()
    try:
        sound, readable, promise, size, mtime_ns = _open_promised(path, name)
    except OSError as error:
        raise AudioError(f"{name}: cannot be read ({error.strerror or error}).") from error
    except sf.LibsndfileError as error:
        raise AudioError(
            f"{name}: is not audio that can be read as WAV, FLAC, OGG, MP3 or AIFF "
            f"({_explain(error)})."
        ) from error
    rate = sound.samplerate
    if problem := promise.contradiction or _refusal(sound):
        sound.close()
        raise AudioError(f"{name}: {problem}.")
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
        size=size,
        mtime_ns=mtime_ns,
    )
    return OpenRecording(
        sound,
        recording,
        min(readable, frames),
        promise.tolerance,
        promise.ended,
        promise.reason,
        _find_note(promise, recording),
    )


def _open_promised(path: Path, name: str) -> tuple[SequentialSoundFile, int, Promise, int, int]:
    """The open file, its readable frames, what its header promises, its size and time."""
    url = url_of(path)
    if url is None:
        info = _stat_regular_file(path, name)
        with path.open("rb") as file:
            promise = read_promise(file, info.st_size)
        return *_open_sound(path, promise), promise, info.st_size, info.st_mtime_ns
    try:
        remote = RemoteFile(url, name)
    except FileNotFoundError:
        raise AudioError(f"{name}: is missing at {url}.") from None
    try:
        if not remote.stamp.size:
            raise AudioError(f"{name}: is empty (0 bytes).")
        promise = read_promise(cast("BinaryIO", remote), remote.stamp.size)
        return *_open_sound(path, promise, remote), promise, *remote.stamp[:2]
    except BaseException:
        remote.close()
        raise


def _find_note(promise: Promise, recording: Recording) -> str:
    """What is odd about a file that can be read to its end."""
    notes = [promise.note] if promise.note else []
    if 0 < promise.declared < promise.present:
        duration = recording.duration
        said = duration * promise.declared / promise.present
        if duration - said > promise.tolerance:
            short, long = seconds(said, duration)
            notes.append(
                f"its header says {short} seconds, but the file holds {long}; all of it is read"
            )
    return "; ".join(notes)


def seconds(length: float, longer: float) -> tuple[str, str]:
    """Two lengths in seconds as text, with as many digits as tell them apart."""
    for digits in range(2, 10):
        for fewer in (2, digits):
            texts = f"{length:.{fewer}f}", f"{longer:.{digits}f}"
            if float(texts[0]) < float(texts[1]):
                return texts
    return f"{length:.2f}", f"{longer:.2f}"


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


def _refusal(sound: SequentialSoundFile) -> str | None:
    """Why a file that libsndfile reads is not taken."""
    if sound.format not in _FORMATS or sound.subtype in _UNCHECKED:
        return (
            f"is {sound.format_info} ({sound.subtype_info}), of which damage would go unnoticed; "
            f"expected WAV, FLAC, OGG, MP3 or AIFF, so convert it"
        )
    if sound.samplerate < _LOWEST_RATE:
        return (
            f"its header declares a sample rate of {sound.samplerate} Hz, but nothing below "
            f"{_LOWEST_RATE} Hz is a recording; correct the header"
        )
    return None


def _explain(error: sf.LibsndfileError) -> str:
    if error.code == _SFE_INTERNAL:
        return "its header is senseless, such as a sample rate of 0 Hz"
    text = str(error.error_string).rstrip(".")
    # libsndfile says this of every file called .mp3 in which there is no MPEG frame.
    return "Format not recognised" if text.startswith("File does not exist") else text


def _open_sound(
    path: Path, promise: Promise, remote: RemoteFile | None = None
) -> tuple[SequentialSoundFile, int]:
    """Open a file with libsndfile; also return how many frames it can hand out."""
    if promise.new_header is None or (promise.frames is not None and not promise.declared):
        sound = SequentialSoundFile(path, remote=remote)
        if promise.frames is None or sound.frames >= promise.frames:
            return sound, sound.frames
        sound.close_decoder()
    sound = SequentialSoundFile(path, promise.new_header, promise.stop, remote)
    return sound, sound.frames
