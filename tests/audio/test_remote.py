"""Recordings on web servers and object stores, by servers of this computer that make trouble."""

from __future__ import annotations

import ast
import email.utils
import http.server
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import partial
from hashlib import md5
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bacpipe
from bacpipe.audio import remote
from bacpipe.audio.stream import read_audio
from bacpipe.errors import BacpipeError, NoRecordingsError, SettingsError
from bacpipe.store.verification import verify_results
from tests.conftest import TinyModel, write_recording


class Server(http.server.ThreadingHTTPServer):
    """Serves a folder, in parts where asked to; counts, and fails where told."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self.sent: Counter[str] = Counter()  # bytes
        self.answers: defaultdict[str, list[int]] = defaultdict(list)  # bytes of each
        self.trouble: dict[str, list[str]] = {}  # what happens to the next requests of a path
        self.refused: set[str] = set()
        self.ranges = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/field"


class Handler(http.server.SimpleHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(with_content=False)

    def do_GET(self) -> None:
        self._answer(with_content=True)

    def _answer(self, *, with_content: bool) -> None:
        path = Path(self.translate_path(self.path))
        if path.is_dir():
            rows = "".join(
                f'<a href="{name.name.replace(" ", "%20")}{"/" * name.is_dir()}">x</a>'
                for name in path.iterdir()
            )
            self._send(200, f"<html>{rows}</html>".encode(), {"Content-Type": "text/html"})
            return
        if not path.is_file():
            self._send(404, b"", {})
            return
        if path.name in self.server.refused:
            self._send(403, b"", {})
            return
        waiting = self.server.trouble.get(path.name, [])
        trouble = waiting.pop(0) if waiting and with_content else ""
        if trouble.isdigit():
            self._send(int(trouble), b"", {})
            return
        if trouble == "silence":
            time.sleep(1.0)
        data, status = path.read_bytes(), 200
        headers = {
            "Content-Type": "audio/x-wav",
            "ETag": f'"{md5(data).hexdigest()}"',
            "Last-Modified": email.utils.formatdate(path.stat().st_mtime, usegmt=True),
        }
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked and self.server.ranges:
            first, last = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
            data, status = data[first : last + 1], 206
        if trouble == "reset":
            self._send(status, data, headers, content=data[: len(data) // 2])
            self.close_connection = True
            return
        # Counted before it goes: whoever has it looks at once.  Nobody waits for what was silent.
        if with_content and trouble != "silence":
            self.server.sent[path.name] += len(data)
            self.server.answers[path.name].append(len(data))
        self._send(status, data, headers, content=data if with_content else b"")

    def _send(
        self, status: int, data: bytes, headers: dict[str, str], *, content: bytes | None = None
    ) -> None:
        try:
            self.send_response(status)
            for key, value in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data if content is None else content)
        except ConnectionError:  # the other side has lost its patience
            self.close_connection = True


@pytest.fixture
def field(tmp_path: Path) -> Path:
    folder = tmp_path / "here" / "field"
    write_recording(folder / "north" / "a.wav", 5.5, seed=1)
    write_recording(folder / "north" / "b 1.wav", 2.0, seed=2, channels=2)
    write_recording(folder / "south" / "c.flac", 3.5, seed=3, rate=16000)
    write_recording(folder / "south" / "d.mp3", 3.0, seed=4)
    write_recording(folder / "top.ogg", 1.5, seed=5)
    (folder / "notes.txt").write_text("no recording")
    return folder


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_PAUSE", 0.0)
    monkeypatch.setattr(remote, "_BLOCK", 4_000)
    monkeypatch.setattr(remote, "_known", {})
    monkeypatch.setattr(remote, "_in_a_row", Counter())


@pytest.fixture
def server(field: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    fsspec = pytest.importorskip("fsspec", reason="needs fsspec, of the extra remote")
    pytest.importorskip("aiohttp", reason="fsspec reads https:// with aiohttp, of the extra remote")
    monkeypatch.setattr(remote, "_SILENCE", 0.3)
    fsspec.get_filesystem_class("http").clear_instance_cache()
    with Server(field.parent) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def embed(audio_dir: Any, results: Path, **settings: Any) -> bacpipe.Loader:
    return bacpipe.generate_embeddings(
        model_name="tiny",
        CustomModel=TinyModel,
        audio_dir=audio_dir,
        main_results_dir=results,
        device="cpu",
        **settings,
    )


def arrays(loader: bacpipe.Loader) -> dict[str, np.ndarray]:
    return {name: np.asarray(rows) for name, rows in loader.embeddings().items()}


def assert_same(one: bacpipe.Loader, other: bacpipe.Loader) -> None:
    found, expected = arrays(one), arrays(other)
    assert list(found) == list(expected)
    for name, rows in found.items():
        np.testing.assert_array_equal(rows, expected[name])


@pytest.mark.parametrize("ranges", [True, False], ids=["in parts", "whole files only"])
def test_a_web_server_through_trouble_gives_the_results_of_a_folder(
    server: Server, field: Path, tmp_path: Path, ranges: bool
) -> None:
    server.ranges = ranges
    server.trouble = {
        "a.wav": ["reset", "503", "reset"],
        "b 1.wav": ["silence", "429"],
        "c.flac": ["500", "reset", "503", "silence"],
    }
    loader = embed(server.url, tmp_path / "remote")
    assert not any(server.trouble.values())
    assert_same(loader, embed(field, tmp_path / "local"))
    assert loader.recording_names[1] == "north/b 1.wav"
    about = (loader.paths.dataset_path / "dataset.json").read_text()
    assert server.url in about

    # Nothing has changed, though of one the server says nothing today; then one has changed.
    server.sent.clear()
    server.refused = {"c.flac"}
    embed(server.url, tmp_path / "remote")
    assert not server.sent
    server.refused = set()
    write_recording(field / "north" / "b 1.wav", 4.0, seed=9)
    again = embed(server.url, tmp_path / "remote")
    assert len(arrays(again)["north/b 1_tiny.npy"]) == 4
    assert list(verify_results(tmp_path / "remote")) == []


def test_what_only_the_etag_tells_has_changed(server: Server, field: Path, tmp_path: Path) -> None:
    path = field / "north" / "a.wav"
    before, about = arrays(embed(server.url, tmp_path / "remote")), path.stat()
    write_recording(path, 5.5, seed=8)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert path.stat().st_size == about.st_size
    after = arrays(embed(server.url, tmp_path / "remote"))
    changed = [name for name, rows in after.items() if not np.array_equal(rows, before[name])]
    assert changed == ["north/a_tiny.npy"]


def test_what_cannot_be_read_is_a_failure_of_that_recording(
    server: Server, field: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.refused = {"c.flac"}  # such as by a token that has expired
    # In the middle of the sound, where half a recording would be taken for a cut one.
    server.trouble = {"a.wav": ["", *["reset"] * 50]}
    loader = embed(server.url, tmp_path / "remote", allow_truncated=True)
    assert sorted(arrays(loader)) == ["north/b 1_tiny.npy", "south/d_tiny.npy", "top_tiny.npy"]
    told = [r.getMessage() for r in caplog.records if r.levelname in {"WARNING", "ERROR"}]
    for name in ("north/a.wav", "south/c.flac"):
        assert any(line.startswith(f"failed: {name}: cannot be read (") for line in told), told
    assert any("tried 5 times" in line for line in told if "a.wav" in line)
    assert any("403" in line and "tried 2 times" in line for line in told if "c.flac" in line)

    # A server that gives nothing any more is asked once for each recording, until it gives one.
    server.trouble = {"a.wav": ["500"] * 99}
    for _ in range(remote._LOST):
        with pytest.raises(bacpipe.errors.AudioError):
            read_audio(f"{server.url}/north/a.wav", 8000)
    with pytest.raises(bacpipe.errors.AudioError, match="tried 1 time"):
        read_audio(f"{server.url}/north/a.wav", 8000)

    server.refused, server.trouble = set(), {}
    server.sent.clear()
    assert_same(embed(server.url, tmp_path / "remote"), embed(field, tmp_path / "local"))
    assert set(server.sent) >= {"a.wav", "c.flac"}
    assert server.sent["b 1.wav"] <= 2 * remote._BLOCK  # its header, for the tables


def test_a_part_of_a_long_recording_is_read_without_the_rest(server: Server, field: Path) -> None:
    path = write_recording(field / "long.wav", 300)
    samples = read_audio(f"{server.url}/long.wav", 8000, start=200, stop=202)
    np.testing.assert_array_equal(samples, read_audio(path, 8000, start=200, stop=202))
    assert server.sent["long.wav"] < path.stat().st_size / 10


def test_a_recording_comes_once_in_large_pieces_a_little_ahead_of_its_reader(
    server: Server, field: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_SILENCE", 60.0)  # nothing is asked for again
    path = write_recording(field / "long.wav", 60)
    content, name = path.read_bytes(), path.name
    window = remote._AHEAD * remote._BLOCK
    assert len(content) > 12 * window
    come = b""
    with remote.open_bytes(remote.as_path(f"{server.url}/{name}")) as file:
        while piece := file.read(1_000):
            come += piece
            # What it holds that nobody has read: what came ahead, and what is on its way.
            assert server.sent[name] - len(come) <= 2 * window
    assert come == content
    assert server.sent[name] == len(content)
    assert max(server.answers[name]) <= window
    # One block, one that follows it, and then a window at a time; or a block, where the reader
    # was faster than that.
    assert server.answers[name][:3] == [remote._BLOCK, remote._BLOCK, window]
    assert len(server.answers[name]) <= 2 + 2 * -(-len(content) // window)

    # Asked for as a whole, it does not come in one piece.
    server.answers.clear()
    with remote.open_bytes(remote.as_path(f"{server.url}/{name}")) as file:
        assert file.read(len(content)) == content
    assert max(server.answers[name]) == window

    # Decoded, it also comes once.
    server.sent.clear()
    samples = read_audio(f"{server.url}/{name}", 8000)
    np.testing.assert_array_equal(samples, read_audio(path, 8000))
    assert server.sent[name] == len(content)


def test_nothing_comes_ahead_of_who_looks_at_the_beginning_only(
    server: Server, field: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_SILENCE", 60.0)  # nothing is asked for again
    name = write_recording(field / "long.wav", 60).name
    with remote.open_bytes(remote.as_path(f"{server.url}/{name}")) as file:
        file.read(remote._BLOCK)
    assert server.answers[name] == [remote._BLOCK]
    # Nor for reads far apart.
    server.answers.clear()
    with remote.open_bytes(remote.as_path(f"{server.url}/{name}")) as file:
        for block in (40, 20, 60):
            file.seek(block * remote._BLOCK)
            file.read(10)
    assert server.answers[name] == [remote._BLOCK] * 3


def test_one_recording_a_glob_and_a_table_of_urls(
    server: Server, field: Path, tmp_path: Path
) -> None:
    table = tmp_path / "files.csv"
    table.write_text(f"file\n{server.url}/south/c.flac\n{server.url}/south/d.mp3\n")
    for named, names in (
        (f"{server.url}/north/a.wav", ["a.wav"]),
        (f"{server.url}/*/*1.wav", ["north/b 1.wav"]),
        (table, ["c.flac", "d.mp3"]),
    ):
        loader = embed(named, tmp_path / "results")
        assert loader.selection.names == names
        assert len(arrays(loader)) == len(names)
    with pytest.raises(SettingsError, match=r"names http://.* and what lies on this computer"):
        embed([server.url, str(field)], tmp_path / "results")
    with pytest.raises(NoRecordingsError, match=r"field/nothing cannot be listed: .*check the"):
        embed(f"{server.url}/nothing", tmp_path / "results")


def test_an_object_store(field: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs", reason="needs s3fs, of the extra remote")
    moto = pytest.importorskip("moto.server", reason="needs moto[server], see docs/contributing.md")
    import boto3

    store = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    store.start()
    try:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*store.get_host_and_port()))
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "testing")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        client = boto3.client("s3")
        client.create_bucket(Bucket="birds")
        for path in filter(Path.is_file, field.rglob("*")):
            client.upload_file(str(path), "birds", f"site/{path.relative_to(field).as_posix()}")
        loader = embed("s3://birds/site", tmp_path / "remote")
        assert_same(loader, embed(field, tmp_path / "local"))
        entry = loader.entries["north/a.wav"]
        assert entry.fingerprint is not None and entry.size == 88_044
        plan = bacpipe.plan_shards(
            "s3://birds/site", "birdnet", main_results_dir=tmp_path / "shards"
        )
        assert plan["bytes"].min() > 0 and len(plan) == 5

        client.delete_object(Bucket="birds", Key="site/top.ogg")
        write_recording(field / "a.wav", 2.0, seed=7)
        client.upload_file(str(field / "a.wav"), "birds", "site/north/a.wav")
        shutil.move(field / "a.wav", field / "north" / "a.wav")
        (field / "top.ogg").unlink()
        assert_same(embed("s3://birds/site", tmp_path / "remote"), embed(field, tmp_path / "local"))
    finally:
        store.stop()


def test_urls_that_are_not_possible(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("fsspec", reason="needs fsspec, of the extra remote")
    for url, told in (
        ("sftp://me:secret@server/x", "with a password in it"),
        ("s3://", "names no bucket or host"),
        ("nonsense://server/x", "is not possible: "),
        (Path("nonsense://server/x"), "is not possible: "),
        (["s3://one/x", "s3://two/x"], "have no folder in common"),
    ):
        with pytest.raises(SettingsError, match=told) as caught:
            embed(url, tmp_path)
        assert "secret" not in str(caught.value)
    with pytest.raises(SettingsError, match=r"main_results_dir.* only recordings can be at a URL"):
        bacpipe.Loader(str(tmp_path), "birdnet", main_results_dir="s3://bucket/results")
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    monkeypatch.setattr("bacpipe.extras.versions", lambda extra: {"gcsfs": "missing"})
    with pytest.raises(SettingsError, match=r'needs the package gcsfs, .* "\.\[remote\]"'):
        embed("gs://bucket/x", tmp_path)


def test_importing_bacpipe_does_not_load_fsspec() -> None:
    code = "import sys, bacpipe.workflows; assert 'fsspec' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def _shows_a_path(node: ast.AST) -> bool:
    """Whether an expression is the folder of the recordings, as it stands inside of bacpipe."""
    return (isinstance(node, ast.Name) and node.id == "audio_dir") or (
        isinstance(node, ast.Attribute) and node.attr == "audio_dir"
    )


def test_messages_show_urls_as_they_were_given() -> None:
    """Inside of bacpipe, s3://bucket/site is /s3:/bucket/site, which nobody would recognise."""
    package = Path(bacpipe.__file__).parent
    found = []
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            parts: list[ast.expr] = []
            if isinstance(node, ast.FormattedValue):
                parts = [node.value]
            elif isinstance(node, ast.Call) and ast.unparse(node.func).startswith("logger."):
                parts = node.args
            found += [f"{path.relative_to(package)}:{part.lineno}" for part in parts
                      if _shows_a_path(part)]  # fmt: skip
    assert found == []


def test_results_of_a_url_are_asked_for_by_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"main_results_dir": tmp_path}
    for ask in (
        lambda: bacpipe.Loader("s3://birds/site", "mine", **settings).window_times("a.wav"),
        lambda: bacpipe.Loader("s3://birds/site", "birdnet", **settings).embeddings("array"),
        lambda: bacpipe.calibrate("s3://birds/site", "birdnet", **settings),
    ):
        with pytest.raises(BacpipeError, match="s3://birds/site") as caught:
            ask()
        assert "/s3:/" not in str(caught.value)
