"""Transfer of one file over HTTP: resumed, verified, with a progress bar."""

from __future__ import annotations

import hashlib
import logging
import re
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bacpipe.errors import CheckpointError, first_line

if TYPE_CHECKING:
    import requests

logger = logging.getLogger(__name__)

ATTEMPTS = 4
WAIT_SECONDS = 2.0
TIMEOUT_SECONDS = (15.0, 60.0)
MOST_BYTES = 50 << 30  # of a file whose size nobody tells
CHUNK_BYTES = 1 << 16  # at most this much is lost when a connection breaks


class DownloadError(CheckpointError):
    """One source of a checkpoint could not deliver it."""


@dataclass(frozen=True)
class Origin:
    """Where a downloaded file came from and what was verified."""

    address: str
    size: int | None
    hash_kind: str | None
    hash: str | None
    revision: str | None = None


def receive(
    url: str,
    target: Path,
    *,
    label: str,
    headers: Mapping[str, str] | None = None,
    version: str | None = None,
    size: int | None = None,
    expected: tuple[str, str] | None = None,
    revision: str | None = None,
) -> Origin:
    """Download `url` to `target`, which exists afterwards only if complete and verified.

    Parameters
    ----------
    url, target
        From where, to where.
    label : str
        Shown beside the progress bar.
    headers : mapping
        Further HTTP headers.
    version : str, optional
        Tag of the remote file, if known before; a partial file of another version is dropped.
    size : int, optional
        Expected size in bytes, if known before.
    expected : (kind, hash), optional
        Expected hash, see `hash_file`.
    revision : str, optional
        Remembered in the result.
    """
    if expected is not None and target.exists() and hash_file(target, expected[0]) == expected[1]:
        return Origin(url, target.stat().st_size, *expected, revision)
    partial = target.with_name(f"{target.name}.part")
    note = target.with_name(f"{target.name}.version")
    if version is not None and _read_text(note) != version:
        partial.unlink(missing_ok=True)
        note.write_text(version, encoding="utf-8")
    for attempt in range(1, ATTEMPTS + 1):
        try:
            most = MOST_BYTES if size is None else size
            total = _transfer(
                url, partial, note, dict(headers or {}), label, known=version, most=most
            )
            break
        except OSError as error:
            # Where nothing ever arrived, there is no network, and waiting would not help.
            if attempt == ATTEMPTS or not _passing(error, begun=partial.exists()):
                raise
            logger.info("%s: interrupted (%s), going on", url, plain_reason(error))
            time.sleep(WAIT_SECONDS * attempt)
    received = partial.stat().st_size
    total = size if size is not None else total
    if received > most or (total is not None and received != total):
        partial.unlink()
        expectation = f"at most {most}" if total is None else str(total)
        raise DownloadError(f"{url}: received {received} bytes instead of {expectation}")
    kind, wanted = expected or ("sha256", None)
    digest = hash_file(partial, kind)
    if wanted is not None and digest != wanted:
        partial.unlink()
        raise DownloadError(
            f"{url}: what was received is damaged ({kind} {digest} instead of {wanted}) and was "
            f"deleted; try again"
        )
    partial.replace(target)
    note.unlink(missing_ok=True)
    return Origin(url, received, kind, digest, revision)


def _transfer(
    url: str,
    partial: Path,
    note: Path,
    headers: dict[str, str],
    label: str,
    *,
    known: str | None,
    most: int,
) -> int | None:
    """Append what is missing to `partial`; returns the size of the whole, if it is known.

    Nothing is taken beyond `most` bytes and a chunk.
    """
    import requests
    from tqdm import tqdm

    done = partial.stat().st_size if partial.exists() else 0
    if done and known is None:
        validator = _read_text(note)
        if validator is None:
            done = 0
        else:
            headers["If-Range"] = validator
    # A compressed transfer would make sizes and positions meaningless.
    headers["Accept-Encoding"] = "identity"
    if done:
        headers["Range"] = f"bytes={done}-"
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_SECONDS) as response:
        if response.status_code == 416:
            # Nothing beyond what we have: complete, or another file; the caller verifies.
            return _total_in(response)
        response.raise_for_status()
        if response.status_code != 206:
            done = 0
        if known is None:
            _remember_version(note, response)
        total = _total_in(response)
        if "text/html" in response.headers.get("Content-Type", ""):
            raise DownloadError(f"{url}: the server answered with a web page instead of the file")
        with (
            partial.open("ab" if done else "wb") as file,
            tqdm(
                desc=label, total=total, initial=done, unit="B", unit_scale=True, disable=None
            ) as bar,
        ):
            for chunk in response.iter_content(CHUNK_BYTES):
                file.write(chunk)
                bar.update(len(chunk))
                if file.tell() > most:
                    break  # the caller compares the sizes
    return total


def _total_in(response: requests.Response) -> int | None:
    ranged = re.search(r"/(\d+)$", response.headers.get("Content-Range", ""))
    if ranged:
        return int(ranged.group(1))
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdigit() else None


def _remember_version(note: Path, response: requests.Response) -> None:
    # Weak tags promise no equal bytes and cannot be used to go on with a file.
    tag = response.headers.get("ETag", "")
    validator = tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")
    if validator:
        note.write_text(validator, encoding="utf-8")
    else:
        note.unlink(missing_ok=True)


def _passing(error: OSError, *, begun: bool) -> bool:
    """Whether trying again at once may help."""
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return error.response.status_code in (408, 429, 500, 502, 503, 504)
    return begun and isinstance(
        error,
        requests.exceptions.ChunkedEncodingError
        | requests.exceptions.ConnectionError
        | requests.exceptions.Timeout,
    )


def plain_reason(error: BaseException) -> str:
    """Why a transfer failed, without the names of objects inside of HTTP libraries."""
    import requests

    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, requests.HTTPError) and cause.response is not None:
            return f"the server answered {cause.response.status_code} {cause.response.reason}"
        if isinstance(cause, socket.gaierror):
            return "the server's name is not found; is there a network?"
        if isinstance(cause, ssl.SSLCertVerificationError):
            return "the server's certificate cannot be verified"
    for cause in causes:
        if isinstance(cause, TimeoutError | requests.Timeout):
            return "no answer in time"
        if isinstance(cause, OSError) and cause.strerror and "object at 0x" not in cause.strerror:
            of = f": {cause.filename}" if cause.filename else ""
            return f"{cause.strerror}{of}"
    text = first_line(error)
    internal = "object at 0x" in text or "ConnectionPool(" in text
    return "the connection failed" if internal else text


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what it was raised from, which HTTP libraries also keep in arguments."""
    waiting, seen = [error], set()
    while waiting:
        cause = waiting.pop(0)
        if id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            more = (cause.__cause__, cause.__context__, getattr(cause, "reason", None), *cause.args)
            waiting += [other for other in more if isinstance(other, BaseException)]


def _read_text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def hash_file(path: Path, kind: str) -> str:
    """Hash of a file, as a hexadecimal string.

    Parameters
    ----------
    path : Path
        The file.
    kind : str
        Name of a `hashlib` algorithm, or 'git-sha1' for git's hash of a blob.
    """
    git = kind == "git-sha1"
    digest = hashlib.new("sha1" if git else kind)
    if git:
        digest.update(f"blob {path.stat().st_size}\0".encode())
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
