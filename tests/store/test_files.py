from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bacpipe.errors import ResultsError
from bacpipe.store.files import (
    TEMPORARY,
    EmbeddingFile,
    array_hash,
    remove_temporaries,
    replacing,
    write_csv,
    write_json,
    write_yaml,
)


def test_a_file_keeps_its_old_content_when_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(ValueError, match="halfway"), replacing(path) as file:
        file.write(b"new, but ")
        raise ValueError("halfway")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "table.csv"
    with replacing(path) as file:
        file.write(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"


def test_yaml_and_json_keep_order_and_umlauts(tmp_path: Path) -> None:
    content = {"z": "Mönchsgrasmücke", "a": [1.5, None]}
    write_yaml(tmp_path / "x.yml", content)
    write_json(tmp_path / "x.json", content)
    assert (tmp_path / "x.yml").read_text(encoding="utf-8").startswith("z: Mönchsgrasmücke")
    assert "Mönchsgrasmücke" in (tmp_path / "x.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("parts", [[1], [3, 2], [1] * 7, [1000], [300_000, 1, 300_000]])
def test_embeddings_grow_and_read_back_as_numpy(tmp_path: Path, parts: list[int]) -> None:
    rng = np.random.default_rng(0)
    rows = [rng.normal(size=(n, 5)).astype(np.float32) for n in parts]
    file = EmbeddingFile(tmp_path / "deep" / "x.npy")
    for part in rows:
        file.append(part)
    assert not file.path.exists()
    written = file.commit()
    array = np.load(file.path, allow_pickle=False)
    np.testing.assert_array_equal(array, np.concatenate(rows))
    assert array.dtype == np.float32
    assert written == (file.path.stat().st_size, array_hash(array), 5)


def test_discarded_embeddings_leave_nothing(tmp_path: Path) -> None:
    file = EmbeddingFile(tmp_path / "x.npy")
    file.append(np.zeros((2, 3), np.float32))
    file.discard()
    assert list(tmp_path.iterdir()) == []


def test_embeddings_of_another_width_are_refused(tmp_path: Path) -> None:
    file = EmbeddingFile(tmp_path / "x.npy")
    file.append(np.zeros((2, 3), np.float32))
    with pytest.raises(ResultsError, match=r"x\.npy"):
        file.append(np.zeros((2, 4), np.float32))
    file.discard()


def test_only_our_temporary_files_are_removed(tmp_path: Path) -> None:
    ours = tmp_path / "deep" / f".x.npy{TEMPORARY}"
    ours.parent.mkdir()
    theirs = tmp_path / "deep" / "notes.tmp"
    for path in (ours, theirs):
        path.touch()
    remove_temporaries(tmp_path)
    assert not ours.exists()
    assert theirs.exists()


def test_tables_read_back_whatever_a_name_holds(tmp_path: Path) -> None:
    table = pd.DataFrame({"name": ["a\rb", 'c"d', "e,f", "Ä\n"], "start": [0.5, 1.0, 2.0, 3.0]})
    write_csv(tmp_path / "x.csv", table)
    with (tmp_path / "x.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert [row[0] for row in rows[1:]] == list(table["name"])
    assert [float(row[1]) for row in rows[1:]] == list(table["start"])
    write_csv(tmp_path / "plain.csv", table.iloc[1:3])
    assert (tmp_path / "plain.csv").read_text(encoding="utf-8").splitlines()[0] == "name,start"
