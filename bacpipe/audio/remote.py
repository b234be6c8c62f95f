"""Recordings that lie elsewhere: on object stores and servers, at the address of an fsspec URL.

Inside bacpipe, ``s3://bucket/site`` is the path ``/s3:/bucket/site``, so that names, folders and
results work as with folders of this computer; `as_path` makes it, and what opens or looks at a
recording asks `url_of` whether it is one.

An open recording is a temporary file, as long as the recording, whose blocks come when they are
read, and some of them ahead of that: every byte is asked for at most once, memory does not grow
with the recording, and formats whose headers do not tell their length can be searched as a whole.
"""

from __future__ import annotations

import email.utils
import hashlib
import io
import logging
import os
import re
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePath
from typing import IO, TYPE_CHECKING, BinaryIO, NamedTuple, TypeVar, cast
from urllib.parse import quote, unquote

from bacpipe.errors import NoRecordingsError, SettingsError, counted, said
from bacpipe.extras import cannot_import

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

logger = logging.getLogger(__name__)

# pathlib makes one slash of two.
_URL = re.compile(r"(?P<protocol>[A-Za-z][A-Za-z0-9+.-]+):(?P<slashes>//?)(?P<rest>.*)", re.DOTALL)
_PATH = re.compile(r"(?:[A-Za-z]:)?/(?P<protocol>[A-Za-z][A-Za-z0-9+.-]+):/(?P<rest>.*)", re.DOTALL)
_WEB = ("http", "https")
_STORES = ("s3://", "s3a://", "gs://", "gcs://", "az://", "abfs://", "abfss://", "adl://")
_SAFE = "/:@!$&'()*+,;=~"  # characters that paths of web addresses may have
_PASSWORD = re.compile(r"[^/@]*:[^/@]*@")
_BLOCK = 2**18  # bytes
_AHEAD = 16  # blocks that are asked for at once, and before they are needed
_TRIES = 5
_LOST = 10  # recordings in a row that a server did not give, after which each is tried once
_PAUSE = 0.5  # seconds before the second try, twice as long before each further one
_PATIENCE = 120.0  # seconds after which nothing is tried again
_SILENCE = 30.0  # seconds without a byte, after which a server is asked again
_AT_ONCE = 16  # recordings whose sizes are asked for at a time
_MOST_KNOWN = 1_000_000
_CHECKSUMS = ("ETag", "etag", "md5Hash", "Content-MD5", "content_md5", "checksum", "Digest")
_TIMES = ("LastModified", "last_modified", "mtime", "updated", "Last-Modified")

Result = TypeVar("Result")
_Info = Mapping[str, object]


class Stamp(NamedTuple):
    """What tells one state of a recording from another.

    Attributes
    ----------
    size : int
        Bytes.
    mtime_ns : int
        When it was written, in ns since the epoch; 0 where the server does not say.
    fingerprint : str or None
        Hash of its checksum (ETag, MD5) where the server tells one.
    """

    size: int
    mtime_ns: int
    fingerprint: str | None


_known: dict[str, Stamp] = {}  # what the last listing told, by URL
_in_a_row: Counter[str] = Counter()  # requests to a server that failed, all tries included


def as_path(word: str | os.PathLike[str]) -> Path:
    """Path that stands for a URL inside of bacpipe; other words are paths already.

    Raises
    ------
    SettingsError
        If the URL names no bucket or host, or holds a password, which results would repeat.

    Examples
    --------
    >>> as_path("s3://bucket/site").as_posix()
    '/s3:/bucket/site'
    >>> as_path("recordings").as_posix()
    'recordings'
    """
    text = word.as_posix() if isinstance(word, PurePath) else os.fspath(word)
    match = _URL.fullmatch(text) if ":" in text else None
    if match is None or (match["slashes"] == "/" and os.path.lexists(f"{match['protocol']}:")):
        return Path(word)
    protocol, rest = match["protocol"].lower(), match["rest"]
    if protocol in {"file", "local"}:
        return Path(rest)
    if _PASSWORD.match(rest):
        raise SettingsError(
            f"audio_dir: a URL of {protocol}:// with a password in it would be written beside the "
            f"results; expected one without, and the password where fsspec looks for it "
            f"(~/.config/fsspec, or the variables of the environment that its provider names)."
        )
    rest = rest.strip("/")
    if not rest:
        raise SettingsError(
            f"audio_dir={text!r} names no bucket or host; expected such as {protocol}://name/folder."
        )
    return Path(f"/{protocol}:/{unquote(rest) if protocol in _WEB else rest}")


def url_of(path: str | os.PathLike[str]) -> str | None:
    """URL that a path stands for; None for a path of this computer.

    Examples
    --------
    >>> url_of("/s3:/bucket/site/a.wav")
    's3://bucket/site/a.wav'
    >>> url_of("/data/site") is None
    True
    """
    text = os.fspath(path)
    if ":" not in text:  # most have none, and there are many
        return None
    match = _PATH.fullmatch(text.replace(os.sep, "/"))
    if match is None or os.path.lexists(text[: match.end("protocol") + 1]):
        return None
    protocol, rest = match["protocol"], match["rest"]
    return f"{protocol}://{quote(rest, safe=_SAFE) if protocol in _WEB else rest}"


def shown(path: str | os.PathLike[str]) -> str:
    """A path as people know it: the URL that it stands for, or itself."""
    return url_of(path) or str(path)


# --- Listing ------------------------------------------------------------------------------------


def names_by_folder(url: str, suffixes: tuple[str, ...]) -> Iterator[list[str]]:
    """Names of the recordings below a URL, relative to it, folder by folder, each sorted.

    Raises
    ------
    NoRecordingsError
        If it cannot be listed, or there are none.
    SettingsError
        If the package for this kind of URL is missing.
    """
    looked_for = f"(looked for {', '.join(suffixes)} in it and its subfolders)"

    def find(system: AbstractFileSystem, path: str) -> tuple[str, Mapping[str, _Info]]:
        system.invalidate_cache()
        if not url.startswith(_STORES):
            return path, dict(_walked(system, path))
        return path, system.find(path, detail=True)  # one list of all, whatever its folders

    try:
        root, listed = _persistently(url, find)
    except OSError as error:
        raise NoRecordingsError(
            f"The audio folder {url} cannot be listed: {_reason(error)}; check the address and "
            f"your rights {looked_for}."
        ) from error
    is_web = url.startswith(_WEB)
    folders: dict[str, list[str]] = {}
    unknown = []
    for full, info in listed.items():
        name = full.removeprefix(root).lstrip("/")
        name = unquote(name) if is_web else name
        if not name.lower().endswith(suffixes) or any(
            part.startswith(".") for part in name.split("/")
        ):
            continue
        folders.setdefault(name.rpartition("/")[0], []).append(name)
        address = f"{url}/{quote(name, safe=_SAFE) if is_web else name}"
        if isinstance(info.get("size"), int):
            _remember(address, _stamp(info))
        else:
            unknown.append(address)
    if not folders:
        raise NoRecordingsError(f"The audio folder {url} holds no recordings {looked_for}.")
    for address in unknown:  # web servers list names alone
        _known.pop(address, None)
    _look_at(unknown)
    for folder in sorted(folders):
        yield sorted(folders[folder])


def _walked(system: AbstractFileSystem, path: str) -> Iterator[tuple[str, _Info]]:
    """Files of a server that lists folder by folder, of which none may be left out."""
    for folder, folders, files in system.walk(path, detail=True, on_error="raise"):
        for name in [name for name in folders if name.startswith(".")]:
            del folders[name]  # is not gone into
        yield from ((f"{folder.rstrip('/')}/{name}", info) for name, info in files.items())


def stamp_of(url: str) -> Stamp | None:
    """What is known of a recording since it was listed, or else is asked for; None if nothing."""
    known = _known.get(url)
    if known is not None:
        return known
    try:
        return _remember(url, _ask(url))
    except OSError as error:  # decoding explains
        logger.debug("%s: %s", url, error)
        return None


def look_ahead(paths: Iterable[Path]) -> None:
    """Ask for what is not known of recordings that lie elsewhere, many at a time."""
    urls = map(url_of, paths)
    _look_at([url for url in urls if url is not None and url not in _known])


def _look_at(urls: Sequence[str]) -> None:
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="bacpipe-sizes") as pool:
        list(pool.map(stamp_of, urls))


def _remember(url: str, stamp: Stamp) -> Stamp:
    if len(_known) >= _MOST_KNOWN:
        _known.clear()
    _known[url] = stamp
    return stamp


def _ask(url: str) -> Stamp:
    def ask(system: AbstractFileSystem, path: str) -> _Info:
        info: _Info = system.info(path)
        return info

    return _stamp(_persistently(url, ask))


def _stamp(info: _Info) -> Stamp:
    size = info.get("size")
    if not isinstance(size, int):
        raise OSError("its server does not tell its size")
    checksum = next((info[key] for key in _CHECKSUMS if info.get(key)), None)
    digest = None
    if checksum is not None:
        digest = hashlib.blake2b(f"{size} {checksum}".encode(), digest_size=8).hexdigest()
    return Stamp(
        size, _nanoseconds(next((info[key] for key in _TIMES if info.get(key)), 0)), digest
    )


def _nanoseconds(value: object) -> int:
    """A time as file systems tell it, in ns since the epoch; 0 if it is none."""
    if isinstance(value, str):
        with suppress(ValueError):
            value = email.utils.parsedate_to_datetime(value)
    if isinstance(value, str):
        with suppress(ValueError):
            value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        value = (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    return round(value * 1e9) if isinstance(value, int | float) else 0


def open_bytes(path: str | os.PathLike[str]) -> BinaryIO:
    """The bytes of a recording, wherever it lies.

    Raises
    ------
    OSError
        Here and when they are read.
    """
    url = url_of(path)
    return Path(path).open("rb") if url is None else cast("BinaryIO", RemoteFile(url))


def is_recording_there(path: Path) -> bool:
    """Whether there is a file, wherever it lies; not whether it can be decoded."""
    url = url_of(path)
    return path.is_file() if url is None else stamp_of(url) is not None


# --- Reading ------------------------------------------------------------------------------------


class RemoteFile(io.RawIOBase):
    """A recording that lies elsewhere, to be read like an open file.  Not for several threads.

    Parameters
    ----------
    url : str
        Where it is.
    title : str
        What messages call it.

    Attributes
    ----------
    title
        As given.
    stamp : Stamp
        Its size, time and checksum.

    Raises
    ------
    OSError
        Here and when it is read: if the server does not give it, also when asked again.
    """

    def __init__(self, url: str, title: str = "") -> None:
        super().__init__()
        self._url, self.title = url, title
        self._remote: IO[bytes] | None = None
        self._of: AbstractFileSystem | None = None  # file system that opened it
        self._pool: ThreadPoolExecutor | None = None
        self._ahead: Future[None] | None = None
        self._on_wire, self._on_disk = threading.Lock(), threading.Lock()
        self._copy = tempfile.TemporaryFile(prefix="bacpipe-")  # noqa: SIM115 - closed by `close`
        known = stamp_of(url)
        self.stamp = _ask(url) if known is None else known  # says why
        self._copy.truncate(self.stamp.size)
        self._here = bytearray(-(-self.stamp.size // _BLOCK))  # 1 for blocks that have come
        self._position = 0

    def readable(self) -> bool:
        """Whether it can be read: it can."""
        return True

    def seekable(self) -> bool:
        """Whether one can go to any place in it: one can."""
        return True

    def tell(self) -> int:
        """Offset in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to an offset; nothing is asked for yet."""
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.stamp.size}
        self._position = max(0, origin[whence] + offset)
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill a buffer; returns how many bytes there were."""
        count = max(0, min(len(buffer), self.stamp.size - self._position))
        if count:
            self._require(self._position // _BLOCK, (self._position + count - 1) // _BLOCK)
            with self._on_disk:
                self._copy.seek(self._position)
                buffer[:count] = self._copy.read(count)
        self._position += count
        return count

    def fileno(self) -> int:
        """Descriptor of a file of this computer, in which all of it has come."""
        for first in range(0, len(self._here), _AHEAD):
            self._fetch(first, first + _AHEAD - 1)
        with self._on_disk:
            self._copy.flush()
        return self._copy.fileno()

    def close(self) -> None:
        """Forget what has come."""
        if not self.closed:
            if self._pool is not None:
                self._pool.shutdown(cancel_futures=True)
            self._hang_up()
            self._copy.close()
        super().close()

    def _require(self, first: int, last: int) -> None:
        """Wait for blocks, and ask for those behind them if they are read one after the other."""
        if self._ahead is not None and self._here.find(0, first, last + 1) >= 0:
            self._ahead.result()  # or its error
        self._fetch(first, last)
        if self._ahead is not None and not self._ahead.done():
            return
        follows = first > 0 and self._here[first - 1]
        missing = self._here.find(0, last + 1)
        if follows and 0 < missing <= last + _AHEAD:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(1, thread_name_prefix="bacpipe-ahead")
            self._ahead = self._pool.submit(self._fetch, missing, missing + _AHEAD - 1)

    def _fetch(self, first: int, last: int) -> None:
        with self._on_wire:
            last = min(last, len(self._here) - 1)
            while (start := self._here.find(0, first, last + 1)) >= 0:
                stop = self._here.find(1, start, last + 1)
                stop = min(last + 1 if stop < 0 else stop, start + _AHEAD)
                _persistently(self._url, partial(self._read, start, stop))

    def _read(self, first: int, stop: int, system: AbstractFileSystem, path: str) -> None:
        """Read blocks in one request, by a file system that is another after an error."""
        begin, end = first * _BLOCK, min(stop * _BLOCK, self.stamp.size)
        try:
            if self._remote is None or self._of is not system:
                self._hang_up()
                self._remote, self._of = system.open(path, "rb", cache_type="none"), system
            self._remote.seek(begin)
            data = self._remote.read(end - begin)
        except ValueError:
            if not self._url.startswith(_WEB):
                raise
            self._read_whole(system, path)  # this server gives no parts
            return
        if len(data) != end - begin:
            raise OSError(f"{len(data)} of {end - begin} bytes came, or it has changed meanwhile")
        self._keep(begin, data)
        self._here[first:stop] = b"\1" * (stop - first)

    def _read_whole(self, system: AbstractFileSystem, path: str) -> None:
        self._hang_up()
        position = 0
        with system.open(path, "rb", block_size=0) as remote:
            while data := remote.read(_BLOCK):
                self._keep(position, data)
                position += len(data)
                if position > self.stamp.size:
                    break
        if position != self.stamp.size:
            raise OSError(
                f"{position} of {self.stamp.size} bytes came, or it has changed meanwhile"
            )
        self._here[:] = b"\1" * len(self._here)

    def _keep(self, position: int, data: bytes) -> None:
        with self._on_disk:
            self._copy.seek(position)
            self._copy.write(data)

    def _hang_up(self) -> None:
        if self._remote is not None:
            self._remote.close()
            self._remote = None


def _persistently(url: str, ask: Callable[[AbstractFileSystem, str], Result]) -> Result:
    """Ask a file system something, and again when that fails, later each time.

    Raises
    ------
    OSError
        With the last reason.
    FileNotFoundError
        At once, if there is none.
    """
    started = time.monotonic()
    server = "/".join(url.split("/")[:3])
    # When all is lost, a hundred thousand recordings need not be tried five times each.
    tries = _TRIES if _in_a_row[server] < _LOST else 1
    for number in range(1, tries + 1):
        # Made anew, it looks for keys and tokens that may have been renewed.
        system, path = _open_system(url, anew=number > 1)
        try:
            result = ask(system, path)
        except Exception as error:  # each file system has errors of its own
            last = _behind(error, url)
            if isinstance(last, FileNotFoundError):
                raise
            logger.info("%s: try %d of %d failed (%s)", url, number, tries, _reason(last))
        else:
            _in_a_row.pop(server, None)
            return result
        if (_is_refusal(last) and number > 1) or time.monotonic() - started > _PATIENCE:
            break
        if number < tries:
            time.sleep(_PAUSE * 2 ** (number - 1))
    if not _is_refusal(last):
        _in_a_row[server] += 1
    raise OSError(f"{_reason(last)}; tried {counted(number, 'time')}") from last


def _behind(error: Exception, url: str) -> Exception:
    """What has happened: to fsspec, whatever a web server does not show is not found."""
    cause = error.__cause__
    if (
        isinstance(error, FileNotFoundError)
        and url.startswith(_WEB)
        and isinstance(cause, Exception)
        and not isinstance(cause, FileNotFoundError)
        and getattr(cause, "status", None) not in {404, 410}
    ):
        return cause
    return error


def _is_refusal(error: Exception) -> bool:
    """Whether an error says that the request is not allowed, which time does not change."""
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return 400 <= status < 500 and status not in {408, 425, 429}
    return isinstance(error, PermissionError)


def _open_system(url: str, *, anew: bool) -> tuple[AbstractFileSystem, str]:
    """The file system of a URL, and the path in it."""
    try:
        import fsspec  # takes a part of a second, which few need

        protocol = url.partition(":")[0]
        options: dict[str, object] = dict(fsspec.config.conf.get(protocol, {}))
        # Without limits, a server that falls silent would hold the run up for long.
        if protocol in _WEB:
            import aiohttp

            silence = aiohttp.ClientTimeout(total=None, sock_connect=_SILENCE, sock_read=_SILENCE)
            options.setdefault("client_kwargs", {"timeout": silence})
        elif protocol in {"s3", "s3a"}:
            limits = {"connect_timeout": _SILENCE, "read_timeout": _SILENCE}
            options.setdefault("config_kwargs", {**limits, "retries": {"max_attempts": 1}})
        if anew:
            fsspec.get_filesystem_class(protocol).clear_instance_cache()
        system, path = fsspec.core.url_to_fs(url, **options)
    except ImportError as error:
        cause = error.__cause__ if isinstance(error.__cause__, ImportError) else error
        raise SettingsError(cannot_import(f"audio_dir={url!r}", "remote", cause)) from error
    except ValueError as error:
        raise SettingsError(f"audio_dir={url!r} is not possible: {said(error)}.") from error
    return system, path


def _reason(error: BaseException) -> str:
    return said(error).rstrip(".") or type(error).__name__
