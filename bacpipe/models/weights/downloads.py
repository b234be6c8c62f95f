"""Downloading checkpoints from Hugging Face, Kaggle and plain addresses, and unpacking archives.

Invariants
----------
- A model's folder appears below ``model_base_path`` by one rename, after everything in it
  was received, verified and unpacked.  An interrupted download leaves nothing there.
- What is under way lies in ``{model_base_path}/.downloads/{model}/``.  Partial files stay
  there and the next download goes on where they end, if the remote file is still the same.
- One process at a time works on a model (a lock file); others wait and then find it there.
- Size and hash are verified where the hub or the card gives them.  ``.source.json`` in the
  model's folder remembers where the files came from and what was verified.
"""

from __future__ import annotations

import errno
import json
import logging
import lzma
import re
import shutil
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlsplit

from filelock import FileLock

from bacpipe import extras
from bacpipe.errors import first_line
from bacpipe.models.card import (
    FileSet,
    HubArchive,
    HubFiles,
    InPackage,
    KaggleModel,
    Source,
    Url,
    candidates,
)
from bacpipe.models.weights.transfer import DownloadError, Origin, hash_file, plain_reason, receive
from bacpipe.user_input import is_there

logger = logging.getLogger(__name__)

# Weights hardly compress; an archive that grows beyond this is not a checkpoint.
MOST_EXPANSION = 20
LEAST_ALLOWED_BYTES = 64 << 20
MOST_MEMORY = 256 << 20  # bytes for unpacking; xz needs 65 MiB at its highest usual setting

STAGING = ".downloads"
ORIGIN = ".source.json"
_FOLDER_REFUSES = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EEXIST,
}


def provides(source: Source, needs: FileSet, name: str) -> bool:
    """Whether a source is one of the places that a file, or one that does as well, comes from."""
    return any(_provides(source, candidate) for candidate in candidates(needs, name))


def _provides(source: Source, name: str) -> bool:
    if isinstance(source, InPackage):
        return name in dict(source.files)
    folder, _, inside = name.partition("/")
    if isinstance(source, Url):
        return folder == source.model and inside == source.filename
    if isinstance(source, HubFiles):
        return folder == source.model and inside in (*source.files, *source.optional)
    file = source.file if isinstance(source, KaggleModel) else None
    return folder == source.model and file in (None, inside)


def address(source: HubArchive | HubFiles | KaggleModel | Url) -> str:
    """Where people find a source with a browser."""
    if isinstance(source, Url):
        return source.address
    if isinstance(source, KaggleModel):
        return f"https://www.kaggle.com/models/{source.handle}"
    from huggingface_hub import constants

    if isinstance(source, HubArchive):
        return f"{constants.ENDPOINT}/datasets/{source.repo_id}/resolve/main/{source.filename}"
    return f"{constants.ENDPOINT}/{source.repo_id}"


def by_hand(source: HubArchive | HubFiles | KaggleModel | Url, needs: FileSet, base: Path) -> str:
    """How people get a source onto this machine without us."""
    where = address(source)
    folder = base / source.model
    if isinstance(source, HubArchive):
        return f"download {where} and unpack it into {base}"
    if isinstance(source, HubFiles):
        several = [" or ".join(_in_repository(source, needs, name)) for name in source.files]
        return f"download {' and '.join(several)} from {where} into {folder}"
    if isinstance(source, KaggleModel):
        if source.file is not None:
            return f"copy {source.file} of the model at {where} to {folder / source.file}"
        return f"download the model from {where} and unpack it into {folder}"
    if source.member is None:
        return f"download {where} as {folder / source.filename}"
    return f"download {where} and copy {source.member} from it to {folder / source.filename}"


def present(needs: FileSet, base: Path, name: str) -> Path | None:
    """One of the files that are needed, or one that does as well, if the local folder has it."""
    paths = (base / candidate for candidate in candidates(needs, name))
    return next((path for path in paths if is_there(path)), None)


def fetch(
    source: HubArchive | HubFiles | KaggleModel | Url,
    needs: FileSet,
    base: Path,
    wanted: Iterable[str],
) -> None:
    """Download one source of a model into ``base / source.model``.

    Parameters
    ----------
    source
        One of ``needs.sources``.
    needs : FileSet
        The model, or its labels.
    base : Path
        Folder of all checkpoints.
    wanted : iterable of str
        Names of ``needs.files`` that the source must bring.

    Raises
    ------
    DownloadError
        If it cannot be had, is damaged, or lacks a file of `wanted`.
    """
    names = list(wanted)
    staging = base / STAGING / source.model
    try:
        staging.mkdir(parents=True, exist_ok=True)
        with FileLock(base / STAGING / f"{source.model}.lock"):
            if all(present(needs, base, name) for name in names):
                return  # another process was quicker
            content = _empty(staging / "content")
            origins = _collect(source, needs, base, staging, content)
            _install(content, needs, source, base, names, origins)
            shutil.rmtree(staging)
    except OSError as error:
        hint = ""
        if error.errno in _FOLDER_REFUSES:
            hint = f"; keep weights in another folder than {base} with the setting model_base_path"
        raise DownloadError(f"{address(source)}: {plain_reason(error)}{hint}") from error


def _collect(
    source: HubArchive | HubFiles | KaggleModel | Url,
    needs: FileSet,
    base: Path,
    staging: Path,
    content: Path,
) -> list[Origin]:
    """Put the files of a source into `content`."""
    if isinstance(source, HubArchive):
        archive = staging / "archive.tar.xz"
        origin = _from_hub(source.repo_id, "dataset", source.filename, archive)
        unpack_tar(archive, content, origin.address)
        archive.unlink()
        return [origin]
    if isinstance(source, HubFiles):
        return _collect_hub_files(source, needs, staging, content)
    if isinstance(source, KaggleModel):
        received = _from_kaggle(source)
        if source.file is None:
            shutil.copytree(received, content, dirs_exist_ok=True)
        else:
            _copy(received, content / source.file)
        return [
            _origin_in(content, path, address(source))
            for path in sorted(content.rglob("*"))
            if path.is_file()
        ]
    return _collect_url(source, needs, base, staging, content)


def _copy(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target)


def _origin_in(folder: Path, path: Path, where: str) -> Origin:
    name = path.relative_to(folder).as_posix()
    return Origin(f"{where}#{name}", path.stat().st_size, "sha256", hash_file(path, "sha256"))


def _below(model: str, needs: FileSet, name: str) -> list[str]:
    """A file of a model, and those that do as well, as paths in the model's folder."""
    paths = candidates(needs, name)
    return [path.partition("/")[2] for path in paths if path.startswith(f"{model}/")]


def _in_repository(source: HubFiles, needs: FileSet, name: str) -> list[str]:
    return _below(source.model, needs, f"{source.model}/{name}")


def _collect_hub_files(
    source: HubFiles, needs: FileSet, staging: Path, content: Path
) -> list[Origin]:
    # Complete files wait outside of `content`, which every attempt begins anew.
    waiting = staging / "files"
    origins = {}
    for wanted in (*source.files, *source.optional):
        missing = None
        for name in _in_repository(source, needs, wanted):
            (waiting / name).parent.mkdir(parents=True, exist_ok=True)
            try:
                origins[name] = _from_hub(
                    source.repo_id, "model", name, waiting / name, dict(source.sha256).get(name)
                )
                break
            except _NoSuchFileError as error:
                missing = missing or error
        else:
            if missing is not None and wanted in source.files:
                raise missing
    for name in origins:
        (content / name).parent.mkdir(parents=True, exist_ok=True)
        (waiting / name).replace(content / name)
    return list(origins.values())


def _collect_url(
    source: Url, needs: FileSet, base: Path, staging: Path, content: Path
) -> list[Origin]:
    """Get all files of the model that have plain addresses, so that they appear together."""
    from huggingface_hub import constants

    parts: dict[str, list[Url]] = {}
    for part in needs.sources:
        if (
            isinstance(part, Url)
            and part.model == source.model
            and not present(needs, base, f"{part.model}/{part.filename}")
        ):
            parts.setdefault(part.address, []).append(part)
    if constants.HF_HUB_OFFLINE:
        raise DownloadError(f"{source.address}: HF_HUB_OFFLINE says that there is no network")
    received = {}
    origins = []
    for url, members in parts.items():
        received[url] = staging / quote(urlsplit(url).path, safe="")
        first = members[0]
        hashes = ("sha256", first.sha256), ("md5", first.md5)
        expected = next(((kind, known) for kind, known in hashes if known), None)
        origins.append(receive(url, received[url], label=source.model, expected=expected))
    for url, members in parts.items():
        for part in members:
            (content / part.filename).parent.mkdir(parents=True, exist_ok=True)
            if part.member is None:
                received[url].replace(content / part.filename)
            else:
                unpack_member(received[url], part.member, content / part.filename, url)
        received[url].unlink(missing_ok=True)
    return origins


def _install(
    content: Path,
    needs: FileSet,
    source: HubArchive | HubFiles | KaggleModel | Url,
    base: Path,
    names: list[str],
    origins: list[Origin],
) -> None:
    """Make received files appear in the model's folder."""
    inside = [_below(source.model, needs, name) for name in names]
    root = _root(content, inside)
    if root is None:
        lacking = ", ".join(" or ".join(some) for some in inside)
        raise DownloadError(f"{address(source)} does not hold {lacking}")
    target = base / source.model
    notes = _read_origins(target) + [asdict(origin) for origin in origins]
    (root / ORIGIN).write_text(json.dumps(notes, indent=1), encoding="utf-8")
    if not target.exists():
        root.replace(target)
        return
    # A folder of the user's is completed: what the model looks for comes last, and files of
    # the model that are there stay as they are.
    kept = {name for name in needs.files if (base / name).exists()}
    files = [p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()]
    last = {file for some in inside for file in some}
    for file in sorted(files, key=lambda file: (file in last, file)):
        if f"{source.model}/{file}" not in kept:
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            (root / file).replace(target / file)


def _root(content: Path, inside: list[list[str]]) -> Path | None:
    """Shallowest folder below which all files lie; archives often have a folder on top."""
    folders = [content, *sorted(p for p in content.rglob("*") if p.is_dir())]
    for folder in sorted(folders, key=lambda folder: len(folder.parts)):
        if all(any((folder / name).exists() for name in some) for some in inside):
            return folder
    return None


def _read_origins(target: Path) -> list[Any]:
    try:
        notes = json.loads((target / ORIGIN).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return []
    return notes if isinstance(notes, list) else []


# --- Hugging Face ---------------------------------------------------------------------------


class _NoSuchFileError(DownloadError):
    """The repository exists and lacks the file."""


def _from_hub(
    repo_id: str, repo_type: str, filename: str, target: Path, sha256: str | None = None
) -> Origin:
    """Download one file of a Hugging Face repository, resuming an earlier attempt.

    huggingface_hub tells what the file is; it cannot go on with a partial file of an earlier
    process, which checkpoints of gigabytes need, so that the transfer itself is ours.
    """
    import huggingface_hub
    from huggingface_hub import errors

    repository = f"the Hugging Face {repo_type} repository {repo_id}"
    url = huggingface_hub.hf_hub_url(repo_id, filename, repo_type=repo_type)
    try:
        metadata = huggingface_hub.get_hf_file_metadata(url)
    except errors.GatedRepoError as error:
        raise DownloadError(
            f"{repository} is open only to people who accepted its terms and logged in "
            f"(hf auth login)"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise DownloadError(f"{repository} does not exist or is private") from error
    except errors.EntryNotFoundError as error:
        raise _NoSuchFileError(f"{repository} has no file {filename}") from error
    except _transport_errors() as error:
        cached = huggingface_hub.try_to_load_from_cache(repo_id, filename, repo_type=repo_type)
        if isinstance(cached, str):
            shutil.copyfile(cached, target)
            return Origin(url, target.stat().st_size, None, None)
        raise DownloadError(f"{url} cannot be reached ({plain_reason(error)})") from error
    pinned = huggingface_hub.hf_hub_url(
        repo_id, filename, repo_type=repo_type, revision=metadata.commit_hash
    )
    return receive(
        pinned,
        target,
        label=f"{repo_id}/{filename}",
        headers={"Authorization": f"Bearer {token}"}
        if (token := huggingface_hub.get_token())
        else {},
        version=metadata.etag,
        size=metadata.size,
        expected=("sha256", sha256) if sha256 else _hash_in(metadata.etag),
        revision=metadata.commit_hash,
    )


def _hash_in(etag: str | None) -> tuple[str, str] | None:
    """Hash that the hub gives as a tag: SHA-256 of large files, git's of the others."""
    if etag and re.fullmatch("[0-9a-f]{64}", etag):
        return "sha256", etag
    if etag and re.fullmatch("[0-9a-f]{40}", etag):
        return "git-sha1", etag
    return None


def _transport_errors() -> tuple[type[Exception], ...]:
    """Give what huggingface_hub raises without a network; its HTTP library has changed."""
    from huggingface_hub import get_session

    library = sys.modules[type(get_session()).__module__.partition(".")[0]]
    kinds = (getattr(library, name, None) for name in ("HTTPError", "RequestException"))
    return OSError, *(kind for kind in kinds if kind is not None)


# --- Kaggle ---------------------------------------------------------------------------------


def _from_kaggle(source: KaggleModel) -> Path:
    """Folder or file that kagglehub downloaded (it resumes and verifies itself)."""
    try:
        import kagglehub
    except Exception as error:  # whatever a broken package raises
        raise DownloadError(extras.cannot_import("Kaggle", "tensorflow", error)) from error
    try:
        return Path(kagglehub.model_download(source.handle, source.file))
    except OSError:
        raise
    except Exception as error:
        # kagglehub has no common class for its errors.
        if type(error).__module__.partition(".")[0] != "kagglehub":
            raise
        raise DownloadError(f"Kaggle, {source.handle}: {first_line(error)}") from error


def _empty(folder: Path) -> Path:
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder


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
