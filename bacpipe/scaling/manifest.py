"""The manifest: which recordings of a data set belong to which shard.

A shard is a run of neighbouring recordings, of about the same length as the others: whole folders
and sites where these are not longer.  The manifest is one Parquet file with a row for each
recording, sorted by shard; it is written and read in pieces, so that ten million recordings take
no more memory than the largest of their folders, or a shard.

A recording that has a shard keeps it: planning again gives new recordings shards of their own and
drops those that are gone.  The length of recordings is estimated from their size and the headers
of a few of each site.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bacpipe._version import __version__
from bacpipe.audio.files import read_recording, recordings_by_folder
from bacpipe.audio.remote import shown, url_of
from bacpipe.errors import AudioError, ResultsError, ResultsNotFoundError
from bacpipe.options import Options
from bacpipe.places.sites import Sites, folder_of
from bacpipe.store.files import replacing
from bacpipe.store.layout import ResultPaths, Stems, as_others_see
from bacpipe.store.plan import Part, look_at_name
from bacpipe.store.typed_command import typed_command

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

FORMAT = 1

_ROWS = 2**16  # in a row group: what a worker reads to find its shard
_HEADERS_OF_SITE = 3
_HEADERS = 2000
_SHORT = 180  # characters of a path whose last part is never too long for the name of a file
_USUAL_BYTES = 96_000.0  # a second, where no header can be read: 48 kHz, 16 bits
_SCHEMA = pa.schema(
    [
        ("shard", pa.int32()),
        ("recording", pa.string()),
        ("site", pa.string()),
        ("seconds", pa.float32()),
        ("bytes", pa.int64()),
        ("stem", pa.string()),
    ]
)


class Folder(NamedTuple):
    """Recordings of one folder.

    Attributes
    ----------
    names : sequence of str
        Posix paths relative to the folder of the data set, sorted.
    sizes : np.ndarray, int64
        Bytes of each; -1 where that is not known.
    """

    names: Sequence[str]
    sizes: np.ndarray


class _Undealt(NamedTuple):
    """Recordings of a folder that get a shard."""

    site: str
    names: Sequence[str]
    sizes: np.ndarray
    seconds: np.ndarray
    stems: Mapping[str, str]


@dataclass
class Manifest:
    """A manifest, without its rows.

    Attributes
    ----------
    path : Path
        Where it is.
    audio_dir : Path
        Folder of the recordings.
    models : list of str
        That are run over them.
    settings : dict
        Options of the plan, by their keys, which workers have, too.
    version : str
        Of the bacpipe that has made it.
    shards : list of int
        Numbers of the shards; gaps are shards whose recordings are gone.
    recordings : int
        Number of all recordings.
    added, gone : int
        Recordings that were not there when it was planned before, and that are no longer there.
    """

    path: Path
    audio_dir: Path
    models: list[str]
    settings: dict[str, Any]
    version: str = __version__
    shards: list[int] = field(default_factory=list)
    recordings: int = 0
    added: int = 0
    gone: int = 0
    stems: dict[str, str] = field(default_factory=dict)

    @property
    def exists(self) -> bool:
        """Whether it was written."""
        return self.path.is_file()

    def part(self, number: int) -> Part:
        """Recordings of a shard.

        Raises
        ------
        ResultsNotFoundError
            If there is no such shard.
        """
        table = _read(self.path, filters=[("shard", "==", number)])
        if not table.num_rows:
            few = f"{self.shards[0]} to {self.shards[-1]}" if self.shards else "none"
            raise ResultsNotFoundError(
                f"{self.path}: there is no shard {number}; the shards are {few}."
            )
        names = table["recording"].to_pylist()
        stems = dict(zip(names, table["stem"].to_pylist(), strict=True))
        unusual = {name: stem for name, stem in stems.items() if stem is not None}
        unusual |= {name: self.stems[name] for name in names if name in self.stems}
        return Part(number, sorted(names), unusual)

    def places(self) -> Iterator[tuple[int, str]]:
        """Shard and name of every recording."""
        with pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(_ROWS, columns=["shard", "recording"]):
                yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)

    def shard_table(self) -> pd.DataFrame:
        """A row for each shard: shard, site, recordings, hours, first, last."""
        import pandas as pd

        frames = []
        with pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(
                _ROWS, columns=["shard", "recording", "site", "seconds"]
            ):
                grouped = batch.to_pandas().groupby("shard", sort=False)
                frames.append(
                    grouped.agg(
                        site=("site", "first"),
                        other=("site", "last"),
                        recordings=("recording", "size"),
                        hours=("seconds", lambda seconds: float(seconds.sum()) / 3600),
                        first=("recording", "first"),
                        last=("recording", "last"),
                    )
                )
        table = pd.concat(frames).groupby(level=0).agg(
            {
                "site": "first", "other": "last", "recordings": "sum", "hours": "sum",
                "first": "first", "last": "last",
            }
        )  # fmt: skip
        several = table["site"] != table["other"]
        table.loc[several, "site"] += " ... " + table.loc[several, "other"]
        shards: pd.DataFrame = table.drop(columns="other").reset_index()
        return shards

    def frame(self) -> pd.DataFrame:
        """A row for each recording: shard, recording, site, seconds, bytes."""
        import pandas as pd

        # Python's own texts would take three times the memory.
        kinds = {pa.string(): pd.ArrowDtype(pa.string())}
        table = _read(self.path, columns=["shard", "recording", "site", "seconds", "bytes"])
        frame: pd.DataFrame = table.to_pandas(types_mapper=kinds.get, self_destruct=True)
        frame["site"] = frame["site"].astype("category")
        # Planned a second time, new shards come first in the file.
        is_sorted = frame["shard"].is_monotonic_increasing
        return frame if is_sorted else frame.sort_values("shard", kind="stable", ignore_index=True)


def read_manifest(paths: ResultPaths, options: Options) -> Manifest:
    """The manifest of a data set.

    Parameters
    ----------
    paths : ResultPaths
        Its results.
    options : Options
        Of the call, which a plan would need, too.

    Raises
    ------
    ResultsNotFoundError
        If there is none.
    ResultsError
        If it is damaged, of a newer bacpipe, or of another folder.
    """
    path = paths.manifest_path
    try:
        with pq.ParquetFile(path) as file:
            about = json.loads(file.metadata.metadata[b"bacpipe"])
            manifest = Manifest(
                path, Path(about["audio_dir"]), list(about["models"]), dict(about["settings"]),
                str(about["version"]), list(map(int, about["shards"])), int(about["recordings"]),
                stems=dict(about["stems"]),
            )  # fmt: skip
            number = int(about["format"])
            known = file.schema_arrow.names
    except FileNotFoundError:
        models = {"models": options.models} if "models" in options.asked else {}
        audio_dir = options.audio_dir or paths.audio_dir
        command = typed_command("shards plan", audio_dir, options, **models)
        raise ResultsNotFoundError(
            f"{path}: these recordings have no shards yet; plan them first, with: {command}"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResultsError(
            f"{path}: this manifest is damaged ({error}); delete it and plan the shards again. "
            f"What is done is kept."
        ) from None
    if number > FORMAT or not set(_SCHEMA.names) <= set(known):
        raise ResultsError(
            f"{path}: was written by a newer bacpipe ({manifest.version}); update this one "
            f"({__version__})."
        )
    if manifest.audio_dir != paths.audio_dir.resolve():
        raise ResultsError(
            f"{path}: is the manifest of {shown(manifest.audio_dir)}, not of "
            f"{shown(paths.audio_dir.resolve())}; plan the shards again: what is done is kept."
        )
    return manifest


def _read(path: Path, **arguments: Any) -> pa.Table:  # noqa: ANN401 - pyarrow's own
    try:
        return pq.read_table(path, memory_map=True, **arguments)
    except (OSError, ValueError) as error:
        raise ResultsError(
            f"{path}: this manifest is damaged ({error}); delete it and plan the shards again. "
            f"What is done is kept."
        ) from None


# ---------------------------------------------------------------------- planning


def folders_on_disk(audio_dir: Path, suffixes: Iterable[str]) -> Iterator[Folder]:
    """Recordings of every folder of a data set, with their sizes."""
    for names in recordings_by_folder(audio_dir, suffixes):
        yield Folder(names, np.fromiter(map(_size(audio_dir), names), np.int64, len(names)))


def folders_of(names: Sequence[str], audio_dir: Path) -> Iterator[Folder]:
    """Recordings that were chosen, folder by folder."""
    by_folder: dict[str, list[str]] = {}
    for name in names:
        by_folder.setdefault(folder_of(name), []).append(name)
    for _, some in sorted(by_folder.items()):
        yield Folder(some, np.fromiter(map(_size(audio_dir), some), np.int64, len(some)))


def _size(audio_dir: Path) -> Callable[[str], int]:
    root = os.fspath(audio_dir)

    if url_of(audio_dir) is not None:
        return lambda name: look_at_name(name, audio_dir).size

    def size_of(name: str) -> int:
        try:
            return os.stat(f"{root}/{name}").st_size  # noqa: PTH116 - there are millions
        except OSError:
            return -1

    return size_of


class Planner:
    """Deals recordings into shards, and writes the manifest.

    Parameters
    ----------
    manifest : Manifest
        What is to be written.
    options : Options
        ``hours_per_shard``, and what tells sites.
    before : Manifest, optional
        The one that is there: its recordings keep their shards.
    length_of : callable, optional
        Seconds of a recording by its name; None where its header cannot be read.
    """

    def __init__(
        self,
        manifest: Manifest,
        options: Options,
        before: Manifest | None = None,
        length_of: Callable[[str], float | None] | None = None,
    ) -> None:
        self._manifest, self._before = manifest, before
        self._length_of = length_of or _length_in_header(manifest.audio_dir)
        self._sites = Sites(manifest.audio_dir, options)
        self._most = options.hours_per_shard * 3600
        self._rates: dict[tuple[str, str], list[float]] = {}
        self._by_suffix: dict[str, float] = {}
        self._headers = 0
        self._number = 1 + max(before.shards, default=0) if before is not None else 1
        self._filled = 0.0
        self._site: str | None = None  # the last one that was dealt
        self._waiting: list[_Undealt] = []  # folders of the next
        self._shards: set[int] = set()

    def write(self, folders: Iterable[Folder]) -> Manifest:
        """Write the manifest of these recordings; returns it with its counts."""
        manifest, before = self._manifest, self._before
        known = None if before is None else _Known(before)
        alike: dict[str, list[str]] = {}
        restemmed: dict[str, str] = {}
        with replacing(manifest.path) as file, pq.ParquetWriter(file, _SCHEMA) as writer:
            rows = _Rows(writer)
            for folder in folders:
                parent = folder_of(folder.names[0])
                alike.setdefault(as_others_see(parent), []).append(parent)
                stems = {} if _are_plain(folder.names) else Stems(folder.names).unusual
                chosen = np.ones(len(folder.names), dtype=bool)
                if known is not None:
                    chosen = ~known.find(folder.names)
                    if chosen.any():
                        restemmed.update(stems)
                if chosen.any():
                    for table in self._dealt(self._measured(folder, chosen, stems)):
                        rows.add(table)
            for table in self._rest():
                rows.add(table)
            manifest.added = rows.written
            if before is not None and known is not None:
                for batch in _batches(before.path):
                    rows.add(known.kept(batch, restemmed, self._shards))
                manifest.gone = before.recordings - (rows.written - manifest.added)
            rows.flush()
            manifest.recordings = rows.written
            manifest.shards = sorted(self._shards)
            writer.add_key_value_metadata({"bacpipe": _about(manifest)})
        doubtful = [name for names in alike.values() if len(names) > 1 for name in names]
        if doubtful:  # folders whose names differ in case alone
            manifest.stems = _stems_in(manifest.path, set(doubtful))
            _write_about(manifest)
        return manifest

    def _measured(self, folder: Folder, chosen: np.ndarray, stems: Mapping[str, str]) -> _Undealt:
        names, sizes = folder.names, folder.sizes
        if not chosen.all():
            names = [name for name, wanted in zip(names, chosen, strict=True) if wanted]
            sizes = sizes[chosen]
        site = self._site_of(names[0])
        return _Undealt(site, names, sizes, self._seconds(names, sizes, site), stems)

    def _dealt(self, some: _Undealt) -> Iterator[pa.Table]:
        """Rows that have their shards, once it is known whether their site fits into one."""
        if self._waiting and self._waiting[0].site != some.site:
            yield from self._rest()
        if self._site != some.site:
            self._waiting.append(some)
            if self._fits(self._waiting):
                return
            yield from self._rest()
        else:  # the rest of a site that is longer than a shard
            yield self._rows_of(some)

    def _rest(self) -> Iterator[pa.Table]:
        """Rows of the folders of a site that have waited for each other."""
        if not self._waiting:
            return
        if self._filled >= self._most / 2:
            self._next()
        self._make_room(self._waiting)
        self._site = self._waiting[0].site
        for some in self._waiting:
            yield self._rows_of(some)
        self._waiting = []

    def _fits(self, group: Sequence[_Undealt], filled: float = 0.0) -> bool:
        """Whether a shard that is filled so far has room for all of them."""
        length = filled + sum(float(some.seconds.sum()) for some in group)
        return length <= self._most * (1 + 1e-9)

    def _make_room(self, group: Sequence[_Undealt]) -> None:
        """Begin a shard if they would be parted by this one, but not by a new one."""
        if self._fits(group) and not self._fits(group, self._filled):
            self._next()

    def _rows_of(self, some: _Undealt) -> pa.Table:
        """Rows of recordings of a folder, each with its shard."""
        self._make_room([some])
        names, seconds = some.names, some.seconds
        numbers = np.empty(len(names), dtype=np.int32)
        total = np.cumsum(seconds)
        done = 0
        while done < len(names):
            room = self._most - self._filled + (total[done - 1] if done else 0.0)
            # At least one, however long it is; and what fits.
            stop = max(done + 1, int(np.searchsorted(total, room * (1 + 1e-9), side="right")))
            if self._filled > 0 and total[done] > room:
                self._next()
                continue
            numbers[done:stop] = self._number
            self._shards.add(self._number)
            self._filled += float(total[stop - 1] - (total[done - 1] if done else 0.0))
            done = stop
            if done < len(names):
                self._next()
        return pa.table(
            [
                pa.array(numbers),
                pa.array(names, pa.string()),
                pa.array([some.site], pa.string()).take(pa.array(np.zeros(len(names), np.int8))),
                pa.array(seconds.astype(np.float32)),
                pa.array(some.sizes),
                pa.array([some.stems.get(name) for name in names], pa.string())
                if some.stems
                else pa.nulls(len(names), pa.string()),
            ],
            schema=_SCHEMA,
        )

    def _next(self) -> None:
        self._number += 1
        self._filled = 0.0

    def _site_of(self, name: str) -> str:
        if self._sites.has_row(name):
            site = self._sites.of(name, None)
            if site is not None:
                return site.name
        return folder_of(name) or "."

    def _seconds(self, names: Sequence[str], sizes: np.ndarray, site: str) -> np.ndarray:
        """Estimated length of recordings, float64."""
        suffixes = _suffixes(names)
        kinds = dict.fromkeys(suffixes)
        rates = {suffix: self._rate(names, sizes, suffixes, suffix, site) for suffix in kinds}
        if len(rates) == 1:
            rate: float | np.ndarray = next(iter(rates.values()))
        else:
            rate = np.array([rates[suffix] for suffix in suffixes])
        return np.asarray(np.maximum(sizes, 0) / rate)

    def _rate(
        self,
        names: Sequence[str],
        sizes: np.ndarray,
        suffixes: Sequence[str],
        suffix: str,
        site: str,
    ) -> float:
        """Bytes of a second, from the headers of a few recordings of a site and suffix."""
        rates = self._rates.setdefault((site, suffix), [])
        if len(rates) < _HEADERS_OF_SITE and self._headers < _HEADERS:
            number = suffixes.index(suffix)
            self._headers += 1
            length = self._length_of(names[number]) if sizes[number] > 0 else None
            if length:
                rates.append(float(sizes[number]) / length)
                self._by_suffix.setdefault(suffix, rates[-1])
        if rates:
            return float(np.median(rates))
        return self._by_suffix.get(suffix, _USUAL_BYTES)


def _suffixes(names: Sequence[str]) -> Sequence[str]:
    first = os.path.splitext(names[0])[1]  # noqa: PTH122 - there are millions
    if all(name.endswith(first) for name in names):
        return [first.lower()] * len(names)
    return [os.path.splitext(name)[1].lower() for name in names]  # noqa: PTH122


def _are_plain(names: Sequence[str]) -> bool:
    """Whether the stem of each recording follows from its name; False when in doubt.

    A quick look at folders as recorders make them: one suffix, and names that differ in more than
    case.
    """
    suffix = os.path.splitext(names[0])[1]  # noqa: PTH122
    return (
        "".join(names).isascii()
        and all(name.endswith(suffix) for name in names)
        and not any(name.endswith(suffix + suffix) for name in names)
        and max(map(len, names)) < _SHORT
        and "//" not in names[0]
        and len(set(map(str.lower, names))) == len(names)
    )


class _Rows:
    """Writes tables in groups of rows of about the same size."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self._writer = writer
        self._waiting: list[pa.Table] = []
        self._number = 0
        self.written = 0

    def add(self, table: pa.Table) -> None:
        self._waiting.append(table)
        self._number += table.num_rows
        self.written += table.num_rows
        if self._number >= _ROWS:
            self.flush()

    def flush(self) -> None:
        if self._number:
            self._writer.write_table(pa.concat_tables(self._waiting), row_group_size=_ROWS)
        self._waiting, self._number = [], 0


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(path) as file:
        yield from file.iter_batches(_ROWS)


class _Known:
    """Recordings of a manifest, and which of them were found again.

    Of ten million names, 64 bits each are 80 MB; that two are the same is one in 400,000.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._hashes = np.empty(manifest.recordings, np.int64)
        filled = 0
        with pq.ParquetFile(manifest.path) as file:
            for batch in file.iter_batches(_ROWS, columns=["recording"]):
                self._hashes[filled : filled + len(batch)] = _hashes(batch["recording"].to_pylist())
                filled += len(batch)
        self._hashes.sort()
        self._found = np.zeros(len(self._hashes), dtype=bool)

    def find(self, names: Sequence[str]) -> np.ndarray:
        """Which recordings are known; these count as found."""
        place, known = self._places(names)
        self._found[place[known]] = True
        return known

    def kept(
        self, batch: pa.RecordBatch, restemmed: Mapping[str, str], shards: set[int]
    ) -> pa.Table:
        """Rows whose recordings were found again; their shards are added to `shards`."""
        place, _ = self._places(batch["recording"].to_pylist())
        table = pa.table(batch).filter(pa.array(self._found[place]))
        shards.update(np.unique(table["shard"].to_numpy()).tolist())
        if restemmed:
            stems = zip(table["recording"].to_pylist(), table["stem"].to_pylist(), strict=True)
            changed = [restemmed.get(name, stem) for name, stem in stems]
            column = table.schema.get_field_index("stem")
            table = table.set_column(column, "stem", pa.array(changed, pa.string()))
        return table.cast(_SCHEMA)

    def _places(self, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        hashes = _hashes(names)
        place = np.minimum(np.searchsorted(self._hashes, hashes), len(self._hashes) - 1)
        return place, np.asarray(self._hashes[place] == hashes)


def _hashes(names: Sequence[str]) -> np.ndarray:
    return np.fromiter(map(hash, names), np.int64, len(names))


def _stems_in(path: Path, folders: set[str]) -> dict[str, str]:
    """Unusual stems of the recordings in some folders."""
    names = [
        name
        for batch in _batches(path)
        for name in batch["recording"].to_pylist()
        if folder_of(name) in folders
    ]
    return dict(Stems(names).unusual)


def _about(manifest: Manifest) -> str:
    about = {
        "format": FORMAT,
        "version": manifest.version,
        "audio_dir": str(manifest.audio_dir),
        "models": manifest.models,
        "settings": manifest.settings,
        "shards": manifest.shards,
        "recordings": manifest.recordings,
        "stems": manifest.stems,
    }
    return json.dumps(about)


def _write_about(manifest: Manifest) -> None:
    """Write a manifest again, with other words about it."""
    with replacing(manifest.path) as file, pq.ParquetWriter(file, _SCHEMA) as writer:
        rows = _Rows(writer)
        for batch in _batches(manifest.path):
            rows.add(pa.table(batch).cast(_SCHEMA))
        rows.flush()
        writer.add_key_value_metadata({"bacpipe": _about(manifest)})


def _length_in_header(audio_dir: Path) -> Callable[[str], float | None]:
    def length_of(name: str) -> float | None:
        try:
            return read_recording(audio_dir / name, audio_dir).duration
        except (AudioError, OSError):
            return None

    return length_of
