"""Unpacking archives that come from the network."""

from __future__ import annotations

import lzma
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import IO, Any

from bacpipe.models.transfer import DownloadError, first_line

# Weights hardly compress; an archive that grows beyond this is not a checkpoint.
MOST_EXPANSION = 20
LEAST_ALLOWED_BYTES = 64 << 20


class _Bounded:
    """A stream that refuses to deliver more than `limit` bytes."""

    def __init__(self, stream: IO[bytes], limit: int, name: str) -> None:
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
        If it is damaged, would write outside of `folder`, or grows beyond all measure.
    """
    try:
        with lzma.open(archive) as stream:
            bounded: Any = _Bounded(stream, _limit(archive), name)
            # Read as a stream, so that the bound holds for headers too.
            with tarfile.open(fileobj=bounded, mode="r|") as tar:
                tar.extractall(folder, filter="data")
    except tarfile.FilterError as error:
        raise DownloadError(
            f"{name}: refused, because it would write outside of its folder ({error})"
        ) from error
    except (tarfile.TarError, lzma.LZMAError, EOFError) as error:
        archive.unlink()
        raise DownloadError(
            f"{name}: this is not a complete tar.xz archive ({first_line(error)})"
        ) from error


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
    except (zipfile.BadZipFile, EOFError) as error:
        archive.unlink()
        raise DownloadError(
            f"{name}: this is not a complete zip archive ({first_line(error)})"
        ) from error
