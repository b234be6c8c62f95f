"""What comes from elsewhere is hostile: nothing of it runs, nothing outside its folder is touched.

`tests.models.test_checkpoints` holds what a hub that is merely unreliable gets.
"""

from __future__ import annotations

import builtins
import csv
import importlib
import io
import json
import lzma
import os
import pickle
import shutil
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bacpipe
from bacpipe.annotations.importing import import_annotations
from bacpipe.annotations.table import read_annotations
from bacpipe.commands.arguments import parse_words
from bacpipe.errors import (
    BacpipeError,
    CheckpointError,
    CheckpointNotFoundError,
    ResultsError,
    SettingsError,
)
from bacpipe.evaluation.probes import load_probe
from bacpipe.exports.audacity import export_audacity_labels
from bacpipe.exports.raven import export_raven_tables
from bacpipe.models.backends.pytorch import read_checkpoint
from bacpipe.models.card import Url
from bacpipe.models.weights import checkpoints, downloads, transfer
from bacpipe.models.zoo import CARDS
from bacpipe.options import read_overrides
from bacpipe.reduction.fitted import load_map
from bacpipe.store import files
from bacpipe.store.files import replacing, write_text
from bacpipe.store.maps import stored_maps
from tests.conftest import TinyModel, write_recording
from tests.models.hub_server import Hub
from tests.models.test_checkpoints import ARCHIVE, card_with, hub, impatient, visible

__all__ = ["hub", "impatient"]  # fixtures

Run = Callable[..., bacpipe.Loader]


class Canary:
    """Something outside that must neither change nor appear."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.victim = folder / "victim.txt"
        self.victim.write_text("precious")
        self.touched = folder / "touched"

    @property
    def command(self) -> str:
        return f"touch {self.touched}"

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Canary]:
    found = Canary(tmp_path / "outside")
    yield found
    assert [path.name for path in found.folder.iterdir()] == ["victim.txt"]
    assert found.victim.read_text() == "precious"


# --- Archives -----------------------------------------------------------------------------------


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", content: bytes = b"") -> Any:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(content)
    return info, content


def tar_xz(members: list[Any], compressor: Any = None) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for info, content in [member("mix2/mix2.pth", content=b"w"), *members]:
            tar.addfile(info, io.BytesIO(content))
    return lzma.compress(stream.getvalue(), **(compressor or {"preset": 0}))


def hostile_tars(canary: Canary) -> dict[str, list[Any]]:
    outside, victim = str(canary.folder), str(canary.victim)
    up = "../" * 12
    return {
        "up": [member(f"{up}{outside}/touched")],
        "up_inside": [member(f"mix2/a/../../{up}{outside}/touched")],
        "symbolic_link": [member("mix2/x", tarfile.SYMTYPE, victim)],
        "symbolic_link_inside": [member("mix2/x", tarfile.SYMTYPE, "mix2.pth")],
        "through_a_link": [
            member("mix2/x", tarfile.SYMTYPE, outside),
            member("mix2/x/touched", content=b"x"),
        ],
        "through_two_links": [
            member("mix2/a", tarfile.SYMTYPE, "."),
            member("mix2/b", tarfile.SYMTYPE, f"a/a/a/../{up}{outside}"),
            member("mix2/b/touched", content=b"x"),
        ],
        "hard_link": [member("mix2/x", tarfile.LNKTYPE, victim)],
        "hard_link_then_written": [
            member("mix2/x", tarfile.LNKTYPE, f"{up}{victim}"),
            member("mix2/x", content=b"changed"),
        ],
        "character_device": [member("mix2/x", tarfile.CHRTYPE)],
        "block_device": [member("mix2/x", tarfile.BLKTYPE)],
        "pipe": [member("mix2/x", tarfile.FIFOTYPE)],
    }


def test_archives_cannot_leave_their_folder(hub: Hub, canary: Canary, tmp_path: Path) -> None:
    for members in hostile_tars(canary).values():
        hub.add(ARCHIVE, tar_xz(members))
        with pytest.raises(CheckpointNotFoundError, match="outside of its folder"):
            checkpoints.resolve(CARDS["mix2"], tmp_path / "base")
        assert visible(tmp_path / "base") == []


def test_absolute_names_in_archives_stay_inside(hub: Hub, canary: Canary, tmp_path: Path) -> None:
    hub.add(ARCHIVE, tar_xz([member(str(canary.touched), content=b"x")]))
    checkpoints.resolve(CARDS["mix2"], tmp_path / "base")


@pytest.mark.parametrize(
    "content",
    [
        lambda: tar_xz([member("mix2/x", content=bytes(30 << 20))]),
        # A header of this size is read before anybody sees a file.
        lambda: tar_xz([member("mix2/x", tarfile.GNUTYPE_LONGNAME, content=bytes(30 << 20))]),
        lambda: lzma.compress(bytes(60 << 20), preset=0),
    ],
)
def test_archives_cannot_grow_without_end(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Callable[[], bytes]
) -> None:
    monkeypatch.setattr(downloads, "LEAST_ALLOWED_BYTES", 1 << 20)
    hub.add(ARCHIVE, content())
    with pytest.raises(CheckpointNotFoundError):
        checkpoints.resolve(CARDS["mix2"], tmp_path / "base")
    assert sum(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file()) < 4 << 20


def test_archives_do_not_choose_how_much_memory_is_taken(hub: Hub, tmp_path: Path) -> None:
    content = bytearray(tar_xz([], {"filters": [{"id": lzma.FILTER_LZMA2, "dict_size": 4096}]}))
    # The size of the dictionary: 4 GiB, in the first block's header, which ends with a checksum.
    place = 12
    length = (content[place] + 1) * 4
    header = content[place : place + length - 4]
    header[header.index(b"\x21\x01") + 2] = 40
    content[place : place + length] = header + struct.pack("<I", __import__("zlib").crc32(header))
    hub.add(ARCHIVE, bytes(content))
    with pytest.raises(CheckpointNotFoundError, match="Memory usage limit"):
        checkpoints.resolve(CARDS["mix2"], tmp_path / "base")


def test_archives_in_several_streams_are_read(hub: Hub, tmp_path: Path) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        info, content = member("mix2/mix2.pth", content=os.urandom(200_000))
        tar.addfile(info, io.BytesIO(content))
    half = len(stream.getvalue()) // 2
    parts = [stream.getvalue()[:half], stream.getvalue()[half:]]
    hub.add(ARCHIVE, b"".join(lzma.compress(part, preset=0) for part in parts) + bytes(8))
    found = checkpoints.resolve(CARDS["mix2"], tmp_path / "base")
    assert found["mix2/mix2.pth"].read_bytes() == content


def zip_of(**settings: Any) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", **settings) as archive:
        archive.writestr("m.tflite", bytes(8 << 20))
        archive.writestr("../../../../m.tflite", b"x")
    return stream.getvalue()


def flagged(content: bytes, flag: int, method: int | None = None) -> bytes:
    """Zip archive with another flag, or another method of compression, in all its headers."""
    changed = bytearray(content)
    for magic, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        start = changed.find(magic)
        while start >= 0:
            changed[start + place] |= flag
            if method is not None:
                struct.pack_into("<H", changed, start + place + 2, method)
            start = changed.find(magic, start + 4)
    return bytes(changed)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda: zip_of(compression=zipfile.ZIP_DEFLATED), "unpacks to more than 1 MiB"),
        (lambda: zip_of(compression=zipfile.ZIP_LZMA), "unpacks to more than 1 MiB"),
        (lambda: flagged(zip_of(compression=zipfile.ZIP_DEFLATED), 1), "password"),
        (lambda: flagged(zip_of(compression=zipfile.ZIP_DEFLATED), 0, 77), "not supported"),
        (lambda: flagged(zip_of(), 0, zipfile.ZIP_DEFLATED), "not a complete zip"),
        (lambda: zip_of(compression=zipfile.ZIP_DEFLATED)[:-30], "not a complete zip"),
    ],
)
def test_hostile_zip_archives(
    hub: Hub,
    canary: Canary,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: Callable[[], bytes],
    reason: str,
) -> None:
    monkeypatch.setattr(downloads, "LEAST_ALLOWED_BYTES", 1 << 20)
    monkeypatch.setattr(downloads, "MOST_EXPANSION", 1)
    hub.files["plain/m.zip"] = content()
    source = Url("b", f"{hub.endpoint}/plain/m.zip", "m.tflite", member="m.tflite")
    with pytest.raises(CheckpointNotFoundError, match=reason):
        checkpoints.resolve(card_with(source, files=("b/m.tflite",), name="b"), tmp_path / "base")
    assert visible(tmp_path / "base") == []


# --- A hub that lies ------------------------------------------------------------------------------


def small_card(hub: Hub, name: str = "w.onnx") -> Any:
    return card_with(
        Url("b", f"{hub.endpoint}/plain/{name}", filename=name), files=(f"b/{name}",), name="b"
    )


def test_a_web_page_is_not_a_checkpoint(hub: Hub, tmp_path: Path) -> None:
    hub.files["plain/w.onnx"] = b"<html>please log in</html>"
    hub.kinds["plain/w.onnx"] = "text/html; charset=utf-8"
    with pytest.raises(CheckpointNotFoundError, match="a web page instead of the file"):
        checkpoints.resolve(small_card(hub), tmp_path)
    assert visible(tmp_path) == []


@pytest.mark.parametrize(
    "target", ["file://{victim}", "/plain/w.onnx", "ftp://127.0.0.1:1/x", "gopher://x", "//"]
)
def test_redirects_lead_nowhere_else(hub: Hub, canary: Canary, tmp_path: Path, target: str) -> None:
    hub.files["plain/w.onnx"] = b"w"
    hub.redirects["plain/w.onnx"] = target.format(victim=canary.victim)
    with pytest.raises(CheckpointNotFoundError, match=r"w\.onnx: "):
        checkpoints.resolve(small_card(hub), tmp_path / "base")
    assert visible(tmp_path / "base") == []


@pytest.mark.parametrize("size", ["1", "0", "-5", "99999999999"])
def test_sizes_that_the_hub_tells_may_be_wrong(hub: Hub, tmp_path: Path, size: str) -> None:
    hub.add(ARCHIVE, tar_xz([member("mix2/x", content=os.urandom(1 << 18))]))
    hub.linked_sizes[ARCHIVE] = size
    with pytest.raises(CheckpointNotFoundError, match=f"bytes instead of {size}"):
        checkpoints.resolve(CARDS["mix2"], tmp_path)
    assert visible(tmp_path) == []


def test_a_transfer_ends_where_the_file_should(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(ARCHIVE, tar_xz([]))
    hub.endless |= {ARCHIVE, "plain/w.onnx"}
    with pytest.raises(CheckpointNotFoundError, match=r"received \d+ bytes instead of \d+"):
        checkpoints.resolve(CARDS["mix2"], tmp_path)
    monkeypatch.setattr(transfer, "MOST_BYTES", 1 << 20)
    hub.files["plain/w.onnx"] = b"w"
    with pytest.raises(CheckpointNotFoundError, match="instead of at most 1048576"):
        checkpoints.resolve(small_card(hub), tmp_path)
    assert sum(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file()) < 1 << 20


# --- Checkpoints ----------------------------------------------------------------------------------


class Calls:
    """Unpickles as a call of any function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self._call


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt"])
@pytest.mark.parametrize("legacy", [False, True])
def test_pickles_in_checkpoints_do_not_run(
    canary: Canary, tmp_path: Path, suffix: str, legacy: bool
) -> None:
    code = f"__import__('os').system({canary.command!r})"
    path = tmp_path / f"w{suffix}"
    for hostile in (
        canary,
        {"state_dict": {"weight": torch.ones(2), "x": canary}},
        Calls(builtins.eval, code),
        Calls(builtins.exec, code),
        Calls(__import__, "antigravity"),
        Calls(importlib.import_module, "antigravity"),
        Calls(torch.load, str(canary.victim)),
        Calls(open, str(canary.touched), "w"),
        Calls(np.load, str(canary.victim)),
    ):
        torch.save(hostile, path, _use_new_zipfile_serialization=not legacy)
        content = read_checkpoint(path)
        assert not isinstance(content, Canary)
        if isinstance(hostile, dict):  # what is harmless beside it can be had
            assert torch.equal(content["state_dict"]["weight"], torch.ones(2))
    path.write_bytes(pickle.dumps(canary))
    with pytest.raises(CheckpointError, match=r"w\.\w+: "):
        read_checkpoint(path)


def test_damaged_checkpoints_get_a_sentence(tmp_path: Path) -> None:
    good = io.BytesIO()
    torch.save({"weight": torch.ones(40), "bias": torch.ones(3)}, good)
    old = io.BytesIO()
    torch.save({"weight": torch.ones(40)}, old, _use_new_zipfile_serialization=False)
    rng = np.random.default_rng(0)
    path = tmp_path / "w.pt"
    for content in (good.getvalue(), old.getvalue()):
        for _ in range(60):
            damaged = bytearray(content)
            for place in rng.integers(0, len(content), 3):
                damaged[place] = rng.integers(256)
            path.write_bytes(bytes(damaged[: rng.integers(1, len(content) + 1)]))
            try:
                read_checkpoint(path)
            except CheckpointError as error:
                assert "w.pt" in str(error)


def test_checkpoints_cannot_grow_when_they_are_read(tmp_path: Path) -> None:
    stream = io.BytesIO()
    torch.save({"weight": torch.zeros(8 << 20)}, stream)
    path = tmp_path / "w.pt"
    with zipfile.ZipFile(stream) as plain, zipfile.ZipFile(path, "w") as packed:
        for info in plain.infolist():
            packed.writestr(info.filename, plain.read(info), zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1 << 20
    with pytest.raises(CheckpointError, match="unpacks to 32 MiB"):
        read_checkpoint(path)


def lying_safetensors() -> list[bytes]:
    def made(header: Any, data: bytes = bytes(8), length: int | None = None) -> bytes:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(text) if length is None else length) + text + data

    def tensor(**values: Any) -> Any:
        return {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **values}}

    return [
        b"",
        made(tensor(), length=2**63),
        made(tensor(), length=2**32),
        made(tensor(shape=[2**40])),
        made(tensor(shape=[2**62, 2**62])),
        made(tensor(data_offsets=[0, 2**50])),
        made(tensor(data_offsets=[8, 0])),
        made(tensor(data_offsets=[-8, 0])),
        made(tensor(dtype="O")),
        made(tensor(dtype="F64")),
        made({**tensor(), "v": tensor()["w"]}),
        made({"w": None}),
        made([1]),
        made(b"[" * 5000),
        made(b"\xff" * 40),
    ]


@pytest.mark.parametrize("number", range(len(lying_safetensors())))
def test_safetensors_whose_headers_lie(tmp_path: Path, number: int) -> None:
    content = lying_safetensors()[number]
    for name in ("w", "reducer", "linear_probe"):
        (tmp_path / f"{name}.safetensors").write_bytes(content)
    (tmp_path / "linear_probe.json").write_text(
        '{"probe": "linear", "dim": 2, "classes": ["a"], "parameters": {}}'
    )
    with pytest.raises(CheckpointError, match="safetensors"):
        read_checkpoint(tmp_path / "w.safetensors")
    with pytest.raises(ResultsError, match=r"reducer\.safetensors"):
        load_map(tmp_path)
    with pytest.raises(ResultsError, match="linear_probe"):
        load_probe(tmp_path / "linear_probe.safetensors")


# --- Text -----------------------------------------------------------------------------------------

TAGS = [
    "!!python/object/apply:os.system ['{command}']",
    "!!python/object/new:os.system ['{command}']",
    "!!python/name:os.system",
    "!!python/module:os",
    "!!python/object:bacpipe.Loader {{}}",
    "!!python/object/apply:eval [\"__import__('os').system('{command}')\"]",
    "!!python/tuple [1]",
    "!<tag:yaml.org,2002:python/object/apply:os.system> ['{command}']",
]


@pytest.mark.parametrize("tag", TAGS)
def test_yaml_never_makes_objects(canary: Canary, run: Run, tmp_path: Path, tag: str) -> None:
    value = tag.format(command=canary.command)
    path = tmp_path / "config.yaml"
    path.write_text(f"models: {value}\n")
    with pytest.raises(SettingsError, match=r"config\.yaml.*not valid YAML"):
        read_overrides(path, "config")
    with pytest.raises(SettingsError, match="models="):
        parse_words([f"models={value}"])
    old = tmp_path / "2024-01-01_00-00___umap-field-tiny"
    old.mkdir()
    (old / "metadata.yml").write_text(f"embeddings_state: {value}\n")
    assert list(stored_maps(tmp_path, "umap", "field", "tiny")) == []


def test_old_metadata_never_makes_objects(canary: Canary, run: Run) -> None:
    loader = run()
    folder = loader.get_embedding_dir()
    (folder / "journal.jsonl").unlink()
    metadata = folder / "metadata.yml"
    text = metadata.read_text().replace("model_name: tiny", f"model_name: {TAGS[0]}")
    metadata.write_text(text.format(command=canary.command))
    with pytest.raises(ResultsError, match=r"metadata\.yml: cannot be read"):
        bacpipe.Loader(loader.audio_dir, "tiny", main_results_dir=folder.parents[2])


HOSTILE_LABELS = [
    "=cmd|' /C calc'!A0",
    '=HYPERLINK("http://example.org/?"&A1)',
    "+1+1",
    "-2+3",
    "@SUM(A1)",
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "a\tb",
    "a\nb,c",
    "a\r\n9\tSpectrogram 1\t1",
    "\u2028x\x85y",
    "\x1b[2J",
    'quo"te',
    "{{7*7}}${7*7}%s%n",
    "../../x",
]


@pytest.fixture
def hostile_model() -> type[TinyModel]:
    """Finds each of the labels in every window."""

    class Hostile(TinyModel):
        def __init__(self, **kwargs: object) -> None:
            super().__init__(**kwargs)
            self.classes = HOSTILE_LABELS

        def classifier_predictions(self, embeddings: torch.Tensor) -> torch.Tensor:
            scores = torch.linspace(0.9, 0.6, len(HOSTILE_LABELS))
            return scores.expand(len(embeddings), -1)

    return Hostile


def test_labels_are_data_in_every_table(
    run: Run, recordings: Path, hostile_model: type[TinyModel]
) -> None:
    strange = "tab\there\nline 2\r\x0b.wav"
    write_recording(recordings / strange, 1.0)
    loader = run(CustomModel=hostile_model, max_predictions_per_window=20, save_raven_tables=True)
    windows = len(loader.embeddings("array"))
    frame = loader.predictions("dataframe")
    assert set(HOSTILE_LABELS) < set(frame.columns)
    assert set(frame["audiofilename"]) == set(loader.entries)
    table = loader.paths.preds_path / "tiny_classifier_annotations.csv"
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert {len(row) for row in rows} == {5}
    assert [row[3] for row in rows[1:]] == [*HOSTILE_LABELS] * windows
    assert strange in {row[2] for row in rows[1:]}

    raven = [*export_raven_tables(loader), *loader.paths.raven_path.rglob("*.txt")]
    for path in {*raven, *export_raven_tables(loader, combined=True)}:
        lines = path.read_bytes().decode().split("\n")[:-1]
        if path.name.endswith("sound_files.txt"):
            assert len(lines) == len(loader.entries)
            continue
        assert {line.count("\t") for line in lines} == {10}, path
        assert (len(lines) - 1) % len(HOSTILE_LABELS) == 0
        assert not any("\r" in line or "\v" in line for line in lines)
    for path in export_audacity_labels(loader):
        lines = path.read_bytes().decode().split("\n")[:-1]
        assert {line.count("\t") for line in lines} == {2}
        assert len(lines) % len(HOSTILE_LABELS) == 0


def test_annotations_keep_hostile_labels_as_text(recordings: Path, tmp_path: Path) -> None:
    table = tmp_path / "annotations.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["audiofilename", "start", "end", "label:species"])
        writer.writerows(["top.wav", i, i + 1, label] for i, label in enumerate(HOSTILE_LABELS))
    found = read_annotations(table, ["top.wav"])
    assert found["label:species"].tolist() == [label.strip() for label in HOSTILE_LABELS]
    # Once more through CSV: not a row more.
    found.to_csv(table, index=False)
    again = read_annotations(table, ["top.wav"])
    assert again["label:species"].tolist() == found["label:species"].tolist()
    track = tmp_path / "top.txt"
    track.write_text("0.0\t0.2\t=1+1\n0.2\t0.4\t<b>\u2028x\n", encoding="utf-8")
    imported = import_annotations(track, recordings, format="audacity")
    assert imported["label:species"].tolist() == ["=1+1", "<b>\u2028x"]


@pytest.mark.parametrize(
    "name", ["../../top.wav", "/etc/passwd", "..\\..\\top.wav", "north/../../top.wav", "top.wav\0"]
)
def test_annotations_cannot_name_files_outside(recordings: Path, tmp_path: Path, name: str) -> None:
    table = tmp_path / "annotations.csv"
    table.write_text(f"audiofilename,start,end,label:x\n{name},0,1,frog\ntop.wav,0,1,frog\n")
    found = import_annotations(table, recordings)
    assert set(found["audiofilename"]) == {"top.wav"}


# --- A results tree that somebody else made ----------------------------------------------------


def edit_journal(loader: bacpipe.Loader, change: Callable[[dict[str, Any]], None]) -> None:
    path = loader.get_embedding_dir() / "journal.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines[1:]:
        change(line)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def reopen(loader: bacpipe.Loader) -> bacpipe.Loader:
    folder = loader.paths.main_results_dir
    return bacpipe.Loader(
        loader.audio_dir, "tiny", main_results_dir=folder, classifier_threshold=0.5
    )


def read_everything(loader: bacpipe.Loader) -> None:
    opened = reopen(loader)
    opened.embeddings("dict")
    opened.predictions("dataframe")


@pytest.mark.parametrize("kind", ["up", "absolute", "link", "deep_link"])
@pytest.mark.parametrize("what", ["embeddings", "predictions"])
def test_a_journal_cannot_point_outside(
    run: Run, canary: Canary, tmp_path: Path, what: str, kind: str
) -> None:
    loader = run()
    secret = np.zeros((4, 10), np.float32)
    np.save(tmp_path / "secret.npy", secret)
    entry = loader.entries["north/a.wav"]
    own = Path(getattr(entry, what).path)
    folder = {
        "embeddings": loader.get_embedding_dir(),
        "predictions": loader.paths.sparse_predictions_path,
    }[what]
    outside = tmp_path / f"secret{own.suffix}"
    shutil.copy(folder / own, outside)
    wanted = {
        "up": os.path.relpath(outside, folder),
        "absolute": str(outside),
        "link": "link" + own.suffix,
        "deep_link": f"folder/{outside.name}",
    }[kind]
    if kind == "link":
        (folder / wanted).symlink_to(outside)
    if kind == "deep_link":
        (folder / "folder").symlink_to(tmp_path)

    def change(line: dict[str, Any]) -> None:
        if line.get("file") == "north/a.wav":
            line[what]["path"] = wanted

    edit_journal(loader, change)
    loader.paths.preds_path.joinpath("tiny_detections.parquet").unlink()
    with pytest.raises(ResultsError, match="lies outside this folder"):
        read_everything(loader)
    with pytest.raises(ResultsError, match="lies outside this folder"):
        run()


@pytest.mark.parametrize("name", ["journal.jsonl", "metadata.yml"])
def test_descriptions_that_are_links_are_refused(run: Run, tmp_path: Path, name: str) -> None:
    loader = run()
    folder = loader.get_embedding_dir()
    elsewhere = tmp_path / name
    shutil.move(folder / name, elsewhere)
    (folder / name).symlink_to(elsewhere)
    before = elsewhere.read_bytes()
    if name == "metadata.yml":
        (folder / "journal.jsonl").unlink()
    with pytest.raises(ResultsError, match="lies outside this folder"):
        reopen(loader)
    with pytest.raises(ResultsError, match="lies outside this folder"):
        run(overwrite=True)
    assert elsewhere.read_bytes() == before


@pytest.mark.parametrize("what", ["embeddings", "predictions", "raven"])
def test_nothing_is_written_through_links(
    run: Run, canary: Canary, recordings: Path, what: str
) -> None:
    loader = run(save_raven_tables=True)
    folder = {
        "embeddings": loader.get_embedding_dir(),
        "predictions": loader.paths.sparse_predictions_path,
        "raven": loader.paths.raven_path,
    }[what]
    shutil.rmtree(folder / "north")
    (folder / "north").symlink_to(canary.folder)
    write_recording(recordings / "north" / "new.wav", 1.0)
    with pytest.raises(BacpipeError, match="lies outside this folder"):
        run(save_raven_tables=True)


def test_links_with_the_name_of_a_result_are_replaced(canary: Canary, tmp_path: Path) -> None:
    target = tmp_path / "table.csv"
    for write in (lambda: write_text(target, "x"), lambda: _replace(target)):
        target.unlink(missing_ok=True)
        target.symlink_to(canary.victim)
        write()
        assert target.read_text() == "x" and not target.is_symlink()


def test_temporary_files_that_are_links_are_not_followed(
    canary: Canary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files.secrets, "token_hex", lambda size: "guessed")
    target = tmp_path / "table.csv"
    link = files.temporary_name(target)
    for write in (lambda: write_text(target, "x"), lambda: _replace(target)):
        link.unlink(missing_ok=True)
        link.symlink_to(canary.victim)
        with pytest.raises(OSError):
            write()


def _replace(target: Path) -> None:
    with replacing(target) as file:
        file.write(b"x")


def test_embeddings_never_unpickle(canary: Canary, run: Run) -> None:
    loader = run()
    path = loader.get_embedding_dir() / loader.entries["top.wav"].embeddings.path
    objects = np.empty((1, 10), dtype=object)
    objects[:] = canary
    for save in (
        lambda: np.save(path, objects, allow_pickle=True),
        lambda: path.write_bytes(pickle.dumps(canary)),
        lambda: _savez(path, objects),
    ):
        save()
        with pytest.raises(ResultsError, match=r"top_tiny\.npy: these embeddings are damaged"):
            reopen(loader).embeddings("dict")


def _savez(path: Path, objects: np.ndarray) -> None:
    with path.open("wb") as file:
        np.savez(file, objects)
