"""Unpacking archives that come from the network."""

from __future__ import annotations

import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from bacpipe.models.transfer import DownloadError, first_line

# Weights hardly compress; an archive that grows beyond this is not a checkpoint.
MOST_EXPANSION = 20
LEAST_ALLOWED_BYTES = 64 << 20
MOST_MEMORY = 256 << 20  # bytes for unpacking; xz needs 65 MiB at its highest usual setting


class _XzStream:
    """Content of an xz file, in memory that its header cannot choose."""

    def __init__(self, file: IO[bytes]) -> None:
        self._blocks = self._decompress(file)
        self._rest = b""

    def read(self, size: int) -> bytes:
        parts, missing = [], size
        while missing > 0:
            self._rest = self._rest or next(self._blocks, b"")
            if not self._rest:
                break
            parts.append(self._rest[:missing])
            self._rest = self._rest[missing:]
            missing -= len(parts[-1])
        return b"".join(parts)

    @staticmethod
    def _decompress(file: IO[bytes]) -> Iterator[bytes]:
        packed = file.read(1 << 16)
        while packed:  # one stream can follow another
            decompressor = lzma.LZMADecompressor(memlimit=MOST_MEMORY)
            while not decompressor.eof:
                yield decompressor.decompress(packed, max_length=1 << 20)
                packed = b""
                if decompressor.needs_input:
                    packed = file.read(1 << 16)
                    if not packed:
                        if decompressor.eof:
                            break
                        raise EOFError("it ends too early")
            packed = decompressor.unused_data or file.read(1 << 16)
            packed = packed.lstrip(b"\0") or file.read(1 << 16)


class _Bounded:
    """A stream that refuses to deliver more than `limit` bytes."""

    def __init__(self, stream: Any, limit: int, name: str) -> None:
        self.stream, self.left, self.limit, self.name = stream, limit, limit, name

    def read(self, size: int) -> bytes:
        data = self.stream.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise DownloadError(
                f"{self.name}: refused, because it unpacks to more than "
                f"{self.limit >> 20} MiB, which no checkpoint of this size does"
            )
        return data


def _limit(archive: Path) -> int:
    return max(LEAST_ALLOWED_BYTES, MOST_EXPANSION * archive.stat().st_size)


def unpack_tar(archive: Path, folder: Path, name: str) -> None:
    """Unpack a tar.xz archive; one that cannot be read is deleted.

    Raises
    ------
    DownloadError
        If it is damaged, would write outside of `folder`, holds anything but files and folders,
        or grows beyond all measure.
    """
    try:
        with archive.open("rb") as file:
            bounded: Any = _Bounded(_XzStream(file), _limit(archive), name)
            # Read as a stream, so that the bound holds for headers too.
            with tarfile.open(fileobj=bounded, mode="r|") as tar:
                tar.extractall(folder, filter=_only_files)
    except tarfile.FilterError as error:
        raise DownloadError(
            f"{name}: refused, because it would write outside of its folder ({error})"
        ) from error
    except (tarfile.TarError, lzma.LZMAError, EOFError, ValueError) as error:
        archive.unlink()
        raise DownloadError(
            f"{name}: this is not a complete tar.xz archive ({first_line(error)})"
        ) from error


def _only_files(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo | None:
    """Let files and folders pass; checkpoints need no links, which have fooled filters before."""
    if member.islnk() or member.issym():
        raise tarfile.LinkOutsideDestinationError(member, member.linkname)
    return tarfile.data_filter(member, folder)


def unpack_member(archive: Path, member: str, target: Path, name: str) -> None:
    """Copy one member of a zip archive to `target`; an archive that cannot be read is deleted.

    Raises
    ------
    DownloadError
        If it is damaged, lacks the member, or grows beyond all measure.
    """
    limit = _limit(archive)
    try:
        with zipfile.ZipFile(archive) as opened, opened.open(member) as stream:
            bounded: Any = _Bounded(stream, limit, name)
            with target.open("wb") as file:
                shutil.copyfileobj(bounded, file)
    except KeyError as error:
        raise DownloadError(f"{name} does not hold {member}") from error
    except RuntimeError as error:  # a password or a method of compression that nobody expects
        raise DownloadError(f"{name}: {member} cannot be unpacked ({first_line(error)})") from error
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError) as error:
        archive.unlink()
        raise DownloadError(
            f"{name}: this is not a complete zip archive ({first_line(error)})"
        ) from error
