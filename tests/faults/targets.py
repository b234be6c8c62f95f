"""What fuzzing throws damaged bytes at: one class per kind of input that bacpipe reads.

A target writes the bytes where a user, a recorder or another machine would have left them and
reads them through the functions that the package itself uses.  Any exception other than a
`BacpipeError` is a defect, and so is a result that contradicts itself.

The first byte of an input chooses the reader or the way of damaging; see each target.
"""

from __future__ import annotations

import contextlib
import copy
import json
import random
import struct
import sys
import warnings
from collections.abc import Callable, Iterator
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile as sf
import yaml

import bacpipe
from bacpipe.annotations.importing import import_annotations
from bacpipe.annotations.table import annotated_segments, read_annotations
from bacpipe.audio.files import read_recording
from bacpipe.audio.stream import AudioStream
from bacpipe.audio.timestamps import recording_start
from bacpipe.audio.windows import count_windows, cut_windows
from bacpipe.errors import BacpipeError
from bacpipe.evaluation.probes import load_probe, make_probe, save_probe
from bacpipe.options import make_options, read_overrides
from bacpipe.places.clock import Clock, hours_after
from bacpipe.store.embedding_set import EmbeddingSet
from bacpipe.store.fingerprints import read_result
from bacpipe.store.maps import coordinates_of, stored_maps
from bacpipe.store.plan import look_at, make_plan
from bacpipe.store.predictions import read_predictions
from bacpipe.store.range_filter import read_species_list
from bacpipe.store.tables import read_blocks
from tests.conftest import TinyModel, write_recording

MOST_SAMPLES = 2**22  # decoded of one input: compressed silence can last for days


class Target(Protocol):
    """One kind of input."""

    name: str

    def seeds(self) -> list[bytes]:
        """Valid inputs to start from."""

    def __call__(self, data: bytes) -> None:
        """Read an input; raises whatever is a defect."""


@contextlib.contextmanager
def expected() -> Iterator[None]:
    """Errors with a sentence are what damaged input should get."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except BacpipeError as error:
        message = str(error)
        assert message.strip(), "an error without a sentence"
        assert len(message) < 20_000, f"a message of {len(message)} characters"


# --- Damaging structured documents --------------------------------------------------------------

NASTY: list[Any] = [
    None, True, False, 0, -1, 1, 7, 2**31, 2**63, 10**400, 0.5, -0.0, 1e308, float("nan"),
    float("inf"), "", "x", "done", "failed", "removed", "../../../../../etc/passwd", "/etc/passwd",
    "a\0b", "x" * 300, "\udcff", "C:\\x", [], {}, [1], [[]], {"a": 1}, [0.0, 1.0, 1], "2024-01-01",
]  # fmt: skip


def damage(document: Any, data: bytes) -> Any:
    """Replace, remove or swap some nodes of a document, as the bytes decide."""
    rng = random.Random(data)
    document = copy.deepcopy(document)
    for _ in range(rng.randint(1, 3)):
        parents = list(_containers(document))
        parent = rng.choice(parents)
        keys = list(parent) if isinstance(parent, dict) else list(range(len(parent)))
        if not keys:
            continue
        key = rng.choice(keys)
        match rng.randrange(4):
            case 0:
                del parent[key]
            case 1:
                parent[key] = [parent[key]]
            case _:
                parent[key] = copy.deepcopy(rng.choice(NASTY))
    return document


def _containers(node: Any) -> Iterator[Any]:
    if isinstance(node, dict | list):
        yield node
        for child in node.values() if isinstance(node, dict) else node:
            yield from _containers(child)


def as_json(document: Any) -> bytes:
    with _any_integer():
        return json.dumps(document).encode(errors="surrogatepass")


def as_yaml(document: Any) -> bytes:
    with _any_integer():
        return yaml.safe_dump(document, allow_unicode=False).encode(errors="replace")


@contextlib.contextmanager
def _any_integer() -> Iterator[None]:
    """Let integers have more digits than Python writes by default."""
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        yield
    finally:
        sys.set_int_max_str_digits(before)


# --- Recordings -------------------------------------------------------------------------------


class Audio:
    """A recording; what libsndfile makes of it must be finite and as long as promised."""

    name = "audio"

    def __init__(self, folder: Path) -> None:
        self._path = folder / "x.wav"

    def seeds(self) -> list[bytes]:
        rng = np.random.default_rng(0)
        noise = rng.uniform(-0.5, 0.5, (1200, 2)).astype(np.float32)
        kinds = [
            ("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "FLOAT"), ("WAV", "IMA_ADPCM"),
            ("WAVEX", "PCM_16"), ("RF64", "PCM_16"), ("W64", "PCM_16"), ("AIFF", "PCM_16"),
            ("AIFF", "FLOAT"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"),
            ("MP3", "MPEG_LAYER_III"), ("AU", "PCM_16"), ("CAF", "PCM_16"),
        ]  # fmt: skip
        seeds = []
        for container, subtype in kinds:
            stream = BytesIO()
            rate = 8000 if subtype != "OPUS" else 16000
            sf.write(stream, noise, rate, format=container, subtype=subtype)
            seeds.append(stream.getvalue())
        return seeds

    def __call__(self, data: bytes) -> None:
        self._path.write_bytes(data)
        with expected():
            read_recording(self._path)
        for allow_truncated in (False, True):
            with (
                expected(),
                AudioStream(self._path, 8000, allow_truncated=allow_truncated) as stream,
            ):
                self._decode(stream)

    def _decode(self, stream: AudioStream) -> None:
        taken = 0

        def limited() -> Iterator[np.ndarray]:
            nonlocal taken
            for block in stream:
                taken += len(block)
                yield block
                if taken > MOST_SAMPLES:
                    return

        windows = 0
        for block in cut_windows(limited(), 8000):
            assert np.isfinite(block.windows).all(), "samples that are not numbers"
            windows += len(block.windows)
        assert windows == count_windows(taken, 8000), "windows do not match the samples"
        if taken <= MOST_SAMPLES and stream.truncated_at is None:
            promised = stream.n_samples()
            slack = round(0.2 * 8000) if stream.recording.frames else 0
            assert abs(taken - promised) <= slack, f"{taken} samples instead of {promised}"


class RecorderMetadata:
    """The chunks that recorders write: GUANO, WAMD, lists and Broadcast Wave."""

    name = "recorder"

    def __init__(self, folder: Path) -> None:
        self._path = folder / "SITE_20240603_033731.wav"

    def seeds(self) -> list[bytes]:
        wamd = struct.pack("<HI", 5, 25) + b"2014-04-02 22:59:14-05:00"
        bext = b"x".ljust(320, b"\0") + b"2021-07-08" + b"09:10:11" + bytes(60)
        return [
            b"\0GUANO|Version:1.0\nTimestamp:2024-06-03T03:37:31+02:00\nTE:\nLoc Position:1 2\n",
            b"\1" + wamd,
            b"\2INFOICMT\x50\0\0\0Recorded at 20:26:15 03/09/2024 (UTC+1) by AudioMoth 24E1",
            b"\3" + bext,
            b"\4" + b"RIFF\0\0\0\0WAVEguan\x10\0\0\0Timestamp:2024  ",
            b"\0x|Timestamp:2024-06-03T03:37:31.123+99:00\n",
        ]

    def __call__(self, data: bytes) -> None:
        if not data:
            return
        kind = data[0] % 5
        if kind == 4:
            content = data[1:]
        else:
            body = data[1:]
            identifier = (b"guan", b"wamd", b"LIST", b"bext")[kind]
            chunk = struct.pack("<4sI", identifier, len(body)) + body + bytes(len(body) % 2)
            content = struct.pack("<4sI4s", b"RIFF", len(chunk) + 4, b"WAVE") + chunk
        self._path.write_bytes(content)
        found = recording_start(self._path)  # metadata are a help: never an error
        assert isinstance(found, datetime), "the time in the name was lost"
        found.isoformat()
        found.utcoffset()


# --- Text that users write --------------------------------------------------------------------


class Annotations:
    """Annotation tables of every program; the first byte chooses which."""

    name = "annotations"

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "recordings"
        self._names = ["north/a.wav", "b.wav", "north/ä b.wav"]
        for name in self._names:
            write_recording(self._folder / name, 0.1)
        self._source = folder / "b.txt"
        self._formats: list[str | None] = ["csv", "raven", "audacity", None]
        with contextlib.suppress(ModuleNotFoundError):
            import crowsetta

            known = crowsetta.formats.as_list()
            self._formats += [name for name in known if name != "raven"]

    def seeds(self) -> list[bytes]:
        table = (
            "audiofilename,start,end,label:species\nb.wav,0,1.5,frog\nnorth/a.wav,1,2,owl\n"
            '"b.wav","0,5",1,"a, ""b"""\n'
        )
        raven = (
            "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tBegin Path\tFile Offset (s)"
            "\tSpecies\n1\tSpectrogram 1\t1\t0.5\t1.5\tb.wav\t0.5\tfrog\n"
        )
        textgrid = (
            'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0\n2\n<exists>\n1\n'
            '"IntervalTier"\n"w"\n0\n2\n2\n0\n1\n"a"\n1\n2\n"b"\n'
        )
        audacity = "0.5\t1.5\tfrog\n\\\t100\t200\n1.0\t2.0\towl\n"
        simple = "onset_s,offset_s,label\n0.1,0.5,a\n"
        generic = (
            "label,onset_s,offset_s,onset_sample,offset_sample,notated_path,annot_path,sequence,"
            "annotation\na,0.1,0.5,,,b.wav,x.csv,0,0\n"
        )
        texts = {None: raven, "csv": table, "raven": raven, "audacity": audacity,
                 "textgrid": textgrid, "simple-seq": simple, "generic-seq": generic,
                 "aud-seq": audacity, "aud-bbox": audacity, "timit": "0 10 a\n10 20 b\n",
                 "yarden": "{}", "notmat": "{}",
                 "birdsong-recognition-dataset": "<?xml version='1.0'?><Sequences></Sequences>",
                 }  # fmt: skip
        seeds = [
            bytes([i]) + texts[kind].encode()
            for i, kind in enumerate(self._formats)
            if kind in texts
        ]
        seeds.append(b"\0" + table.replace(",", ";").encode("utf-16"))
        return seeds

    def __call__(self, data: bytes) -> None:
        if not data:
            return
        kind = self._formats[data[0] % len(self._formats)]
        self._source.write_bytes(data[1:])
        with expected():
            table = import_annotations(self._source, self._folder, format=kind)
            self._check(table)
        if kind == "csv":
            with expected():
                table = read_annotations(self._source, self._names)
                self._check(table)
                annotated_segments(table, 0.1)

    def _check(self, table: Any) -> None:
        times = table[["start", "end"]].to_numpy(float)
        assert np.isfinite(times).all(), "times that are not numbers"
        assert (times[:, 0] < times[:, 1]).all(), "annotations without length"
        assert (times >= 0).all(), "annotations before the beginning"
        assert set(table["audiofilename"]) <= set(self._names), "unknown recordings"


class Places:
    """Tables of sites and lists of species, as bytes or with damaged cells."""

    name = "places"

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "recordings"
        self._folder.mkdir()
        self._list = folder / "species.txt"
        self._rows = [
            ["site", "latitude", "longitude", "time_zone", "start", "end", "habitat"],
            ["A", "52.5", "13.4", "Europe/Berlin", "2025-05-01", "2025-05-03", "reed"],
            ["A", "52.6", "13.4", "UTC+1", "2025-05-04 04:30", "", "wood"],
            ["B/2024*", "-33.5", "151.25", "", "", "", "=1+1"],
        ]

    def seeds(self) -> list[bytes]:
        text = "\n".join(map(",".join, self._rows))
        return [
            b"\0" + text.encode("utf-8-sig"),
            b"\0" + text.replace(",", ";").encode("utf-16"),
            b"\0site,latitude,longitude\n[,1e999,nan\n" + b"[!a-" * 200 + b",1,1\n",
            b'\0site,latitude,longitude\n"A,1,1\n' + b"x" * 200_000,
            b"\1Turdus merula_Eurasian Blackbird\n# note\n",
            *(b"\2" + bytes([i]) for i in range(8)),
        ]

    def __call__(self, data: bytes) -> None:
        if not data:
            return
        if data[0] % 3 == 1:
            self._list.write_bytes(data[1:])
            with expected():
                names = read_species_list((str(self._list),))
                assert names and all(name.strip() for name in names)
            return
        content = data[1:]
        if data[0] % 3 == 2:
            rows = damage(self._rows, data[1:])
            cells = [row if isinstance(row, list) else [row] for row in rows]
            lines = [",".join(map(str, row)) for row in cells]
            content = "\n".join(lines).encode(errors="replace")
        (self._folder / "sites.csv").write_bytes(content)
        with expected():
            clock = Clock(self._folder, make_options())
            for name in ("A/20250502_040000.wav", "B/20240501_040000.wav", "x.wav"):
                start = clock.of(name)
                place = None if start.site is None else start.site.position
                assert place is None or (abs(place[0]) <= 90 and abs(place[1]) <= 180)
                assert start.local is None or start.time is not None
                if place is not None and start.time is not None:
                    hours = hours_after("sunrise", place, start.time.astimezone(), np.zeros(1))
                    assert np.isnan(hours[0]) or abs(hours[0]) <= 24


class Yaml:
    """config.yaml and settings.yaml, as bytes or as a damaged document."""

    name = "yaml"

    def __init__(self, folder: Path) -> None:
        self._path = folder / "settings.yaml"
        self._documents = [dict(vars(bacpipe.config)), dict(vars(bacpipe.settings))]

    def seeds(self) -> list[bytes]:
        bombs = "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
        for one, other in zip("abcdefgh", "bcdefghi", strict=True):
            bombs += f"{other}: &{other} [{', '.join([f'*{one}'] * 10)}]\n"
        return [
            b"\0" + as_yaml(self._documents[0]),
            b"\1" + as_yaml(self._documents[1]),
            b"\2seed",
            b"\3seed",
            b"\0models: &a [*a]\n",
            b"\1hop: 2024-13-45\n",
            b"\0" + b"[" * 3000,
            b"\0" + b"- " * 3000 + b"x",
            b"\1" + bombs.replace("i:", "clust_configs:").encode(),
            b"\0models: !!python/object/apply:os.system ['true']\n",
            b"\1? [a, b]\n: c\n<<: {hop: 1}\n",
            b"\1global_batch_size: 0x" + b"f" * 5000,
            b"\1hop: !!timestamp x\npadding: !!binary x\nhop: !!int ''\n",
        ]

    def __call__(self, data: bytes) -> None:
        if not data:
            return
        which = data[0] % 2
        structured = data[0] % 4 > 1
        content = as_yaml(damage(self._documents[which], data[1:])) if structured else data[1:]
        self._path.write_bytes(content)
        with expected():
            make_options(**read_overrides(self._path, ("config", "settings")[which]))


# --- Results ----------------------------------------------------------------------------------


class ResultsTree:
    """A small results tree whose files can be replaced one at a time."""

    def __init__(self, folder: Path) -> None:
        self.audio_dir = folder / "field"
        for i, name in enumerate(("north/a.wav", "b.wav")):
            write_recording(self.audio_dir / name, 1.5 + i, seed=i)
        self._settings = {"main_results_dir": folder / "results", "classifier_threshold": 0.1}
        self.loader = bacpipe.generate_embeddings(
            audio_dir=self.audio_dir,
            CustomModel=TinyModel,
            model_name="tiny",
            device="cpu",
            nr_parallel_workers=1,
            avoid_pipelined_gpu_inference=True,
            **self._settings,
        )
        self.folder = self.loader.get_embedding_dir()
        self.journal = self.folder / "journal.jsonl"
        self.metadata = self.folder / "metadata.yml"
        self.sources = [look_at(path, self.audio_dir) for path in self.loader.files]

    def read(self) -> None:
        """Read everything that a loader gives."""
        with expected():
            loader = bacpipe.Loader(self.audio_dir, "tiny", **self._settings)
            with expected():
                make_plan(
                    EmbeddingSet(self.folder),
                    loader.paths,
                    self.sources,
                    predictions={"threshold": 0.1, "top": 10},
                    allow_truncated=False,
                )
            readers: list[Callable[[], Any]] = [
                lambda: loader.embeddings("dict"),
                lambda: loader.embeddings("array"),
                lambda: loader.predictions("dataframe"),
                lambda: loader.predictions("array"),
                lambda: [loader.window_times(name) for name in loader.entries],
                lambda: loader.metadata_dict,
                lambda: loader.embeddings_state,
            ]
            for reader in readers:
                with expected():
                    reader()


class Journal:
    """The journal of a set of embeddings, as bytes or with damaged lines."""

    name = "journal"

    def __init__(self, folder: Path) -> None:
        self._tree = ResultsTree(folder)
        self._lines = [json.loads(line) for line in self._tree.journal.read_text().splitlines()]

    def seeds(self) -> list[bytes]:
        return [
            b"\0" + b"\n".join(map(as_json, self._lines)),
            b"\0" + b"[" * 20_000,
            *(b"\1" + bytes([i]) for i in range(8)),
        ]

    def __call__(self, data: bytes) -> None:
        if not data:
            return
        content = data[1:]
        if data[0] % 2:
            content = b"\n".join(map(as_json, damage(self._lines, data[1:])))
        self._tree.journal.write_bytes(content)
        self._tree.read()


class Metadata:
    """Descriptions in YAML and JSON: old sets, maps, results, probes, what predictions are of."""

    name = "metadata"

    def __init__(self, folder: Path) -> None:
        self._tree = ResultsTree(folder)
        self._tree.journal.unlink()
        self._old = yaml.safe_load(self._tree.metadata.read_text())
        maps = folder / "maps"
        self._map = maps / "2024-01-01_00-00___umap-field-tiny" / "metadata.yml"
        self._map.parent.mkdir(parents=True)
        (self._map.parent / "field_tiny.parquet").write_bytes(b"")
        self._maps = maps
        self._map_document = {"embeddings": "x", "embeddings_state": "y", "model_name": "tiny"}
        self._source = self._tree.loader.paths.preds_path / "source.json"
        self._result = folder / "result.json"
        probe = make_probe("linear", 10, ["a", "b"])
        self._probe = save_probe(folder, probe, {"model": "tiny"}).with_suffix(".json")
        self._probe_document = json.loads(self._probe.read_text())
        load_probe(self._probe)

    def seeds(self) -> list[bytes]:
        documents: list[tuple[Any, Callable[[Any], bytes]]] = [
            (self._old, as_yaml),
            (self._map_document, as_yaml),
            ({"embeddings": "x"}, as_json),
            ({"fingerprint": "x", "accuracy": 0.5}, as_json),
            (self._probe_document, as_json),
        ]
        raw = [bytes([i]) + dump(document) for i, (document, dump) in enumerate(documents)]
        return [*raw, *(bytes([5 + i]) + b"seed" for i in range(5))]

    def __call__(self, data: bytes) -> None:
        if not data:
            return
        kind, structured = data[0] % 5, data[0] % 10 >= 5
        documents = [
            self._old,
            self._map_document,
            {"embeddings": "x"},
            {"fingerprint": "x", "accuracy": 0.5},
            self._probe_document,
        ]
        content = data[1:]
        if structured:
            damaged = damage(documents[kind], content)
            content = as_yaml(damaged) if kind < 2 else as_json(damaged)
        path = (self._tree.metadata, self._map, self._source, self._result, self._probe)[kind]
        path.write_bytes(content)
        if kind in (0, 2):
            self._tree.read()
        elif kind == 1:
            with expected():
                for found in stored_maps(self._maps, "umap", "field", "tiny"):
                    found.read()
        elif kind == 3:
            with expected():
                read_result(path, "x")
        else:
            with expected():
                load_probe(path)


class Predictions:
    """Parquet tables of predictions and maps, and arrays of embeddings."""

    name = "predictions"

    def __init__(self, folder: Path) -> None:
        self._tree = ResultsTree(folder)
        preds = self._tree.loader.paths.preds_path
        self._sparse = next(preds.rglob("*_tiny.parquet"))
        self._detections = next(preds.glob("*_detections.parquet"))
        self._embeddings = next(self._tree.folder.rglob("*.npy"))
        self._map = folder / "maps" / "2024-01-01_00-00___umap-field-tiny"
        self._map.mkdir(parents=True)
        (self._map / "metadata.yml").write_text("embeddings_state: x\n")
        table = pa.table({
            "x": [0.0, 1.0], "y": [0.5, 1.5], "start": [0.0, 1.0], "end": [1.0, 2.0],
            "audiofilename": ["b.wav", "b.wav"],
        })  # fmt: skip
        pq.write_table(table, self._map / "field_tiny.parquet")
        self._paths = [
            self._sparse, self._detections, self._map / "field_tiny.parquet", self._embeddings
        ]  # fmt: skip
        self._contents = [path.read_bytes() for path in self._paths]

    def seeds(self) -> list[bytes]:
        raw = [bytes([i]) + content for i, content in enumerate(self._contents)]
        return [*raw, *(bytes([4 + i]) + b"seed" for i in range(4)), b"\3PK\3\4"]

    def __call__(self, data: bytes) -> None:
        if not data:
            return
        kind, structured = data[0] % 4, data[0] % 8 >= 4
        content = data[1:]
        if structured and kind < 3:
            content = self._damaged_table(self._contents[kind], content)
        path = self._paths[kind]
        path.write_bytes(content)
        try:
            self._read(kind, path)
        finally:
            path.write_bytes(self._contents[kind])

    def _read(self, kind: int, path: Path) -> None:
        if kind == 0:
            with expected():
                window, label, score = read_predictions(path)
                assert len(window) == len(label) == len(score)
        elif kind == 1:
            with expected():
                for block in read_blocks(path, self._tree.loader.predictions_state):
                    assert len(block.window) == len(block.label) == len(block.score)
        elif kind == 2:
            with expected():
                for found in stored_maps(self._map.parent, "umap", "field", "tiny"):
                    coordinates_of(found.read())
        if kind != 2:
            combined = self._contents[1]
            if kind == 0:  # otherwise the table over all recordings is read instead
                self._detections.unlink(missing_ok=True)
            self._tree.read()
            self._detections.write_bytes(combined)

    def _damaged_table(self, content: bytes, data: bytes) -> bytes:
        """Valid Parquet with columns that are missing, doubled or of another kind."""
        rng = random.Random(data)
        table = pq.read_table(BytesIO(content))
        columns = {name: table[name] for name in table.column_names}
        for _ in range(rng.randint(1, 2)):
            name = rng.choice(list(columns) or ["window"])
            match rng.randrange(4):
                case 0:
                    columns.pop(name, None)
                case 1:
                    columns[name] = pa.nulls(table.num_rows)
                case 2:
                    columns[name] = pa.array([str(rng.choice(NASTY[:14]))] * table.num_rows)
                case _:
                    values = [rng.choice([-1, 0, 2**31 - 1, 10**6])] * table.num_rows
                    columns[name] = pa.array(values, rng.choice([pa.int64(), pa.float64()]))
        damaged = pa.table(columns).replace_schema_metadata(table.schema.metadata)
        stream = BytesIO()
        pq.write_table(damaged, stream)
        return stream.getvalue()


TARGETS: dict[str, Callable[[Path], Target]] = {
    target.name: target
    for target in (
        Audio,
        RecorderMetadata,
        Annotations,
        Places,
        Yaml,
        Journal,
        Metadata,
        Predictions,
    )
}  # type: ignore[assignment]
