from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bacpipe.errors import ResultsError
from bacpipe.store.embedding_set import EmbeddingSet
from bacpipe.store.entries import FAILED, REMOVED, FailedEntry, StoredEmbeddings
from bacpipe.store.journal import Journal, read_journals
from tests.conftest import finished_entry


def write(folder: Path, *lines: dict, name: str = "journal.jsonl") -> None:
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / name).write_text(text, encoding="utf-8")


HEADER = {"format": 1, "identity": {"model": "tiny"}}


def test_later_lines_replace_earlier_ones(tmp_path: Path) -> None:
    write(tmp_path, HEADER)
    journal = Journal(tmp_path)
    journal.append(FailedEntry("a.wav", FAILED, "empty"))
    journal.append(finished_entry("a.wav", windows=2))
    journal.append(finished_entry("b.wav", status=REMOVED))
    journal.close()
    content = read_journals(tmp_path)
    assert content.header == HEADER
    assert content.done == {"a.wav": finished_entry("a.wav", windows=2)}


def test_a_line_cut_by_a_crash_is_ignored_and_closed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, HEADER, finished_entry("a.wav").as_json())
    path = tmp_path / "journal.jsonl"
    path.write_bytes(path.read_bytes() + b'{"file": "b.wav", "sta')
    with caplog.at_level(logging.WARNING):
        assert set(read_journals(tmp_path).done) == {"a.wav"}
    assert "1 unreadable line" in caplog.text
    journal = Journal(tmp_path)
    journal.append(finished_entry("c.wav"))
    journal.close()
    assert set(read_journals(tmp_path).done) == {"a.wav", "c.wav"}


def test_journals_of_several_machines_merge(tmp_path: Path) -> None:
    write(tmp_path, HEADER, finished_entry("a.wav").as_json())
    write(tmp_path, finished_entry("b.wav").as_json(), name="journal-node7.jsonl")
    assert set(read_journals(tmp_path).done) == {"a.wav", "b.wav"}


@given(st.binary(max_size=300))
def test_no_content_breaks_the_reader(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    folder = tmp_path_factory.mktemp("journal")
    (folder / "journal.jsonl").write_bytes(raw)
    assert isinstance(read_journals(folder).done, Mapping)


def test_a_newer_format_is_refused_with_a_sentence(tmp_path: Path) -> None:
    write(tmp_path, {"format": 99, "identity": {}})
    with pytest.raises(ResultsError, match="newer bacpipe"):
        EmbeddingSet(tmp_path)


def test_a_journal_cannot_lead_outside_its_folder(tmp_path: Path) -> None:
    write(tmp_path, HEADER)
    with pytest.raises(ResultsError, match="outside"):
        EmbeddingSet(tmp_path).embedding_path(
            finished_entry("a.wav", embeddings=StoredEmbeddings("../../secret.npy", 9, 1))
        )
