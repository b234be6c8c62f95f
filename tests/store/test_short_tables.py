"""Files of a few predictions, which are written without Arrow, and predictions that are known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import bacpipe
from bacpipe.errors import ResultsError
from bacpipe.inference.run_data_set import write_prediction_tables
from bacpipe.store.files import file_hash
from bacpipe.store.layout import detections_path
from bacpipe.store.predictions import (
    PredictionFiles,
    RecentPredictions,
    SparsePredictions,
    read_predictions,
)
from bacpipe.store.short_tables import MOST_ROWS, ShortTables

Run = Callable[..., bacpipe.Loader]
CLASSES = np.array(["Aegolius", "Çédille Ω", "", "a" * 300], dtype=object)


def some(rows: int) -> SparsePredictions:
    rng = np.random.default_rng(rows)
    return SparsePredictions(
        np.sort(rng.integers(0, 5000, rows)).astype(np.int32),
        rng.integers(0, len(CLASSES), rows).astype(np.int32),
        rng.random(rows).astype(np.float32),
    )


@pytest.mark.parametrize("rows", [1, 2, 63, 64, 65, MOST_ROWS, MOST_ROWS + 1])
def test_a_file_says_what_arrow_would_have_written(rows: int, tmp_path: Path) -> None:
    provenance = {"model": "tiny", "threshold": 0.1, "named": "Ω" * 200}
    path, found = tmp_path / "x.parquet", some(rows)
    file, sha256, _ = PredictionFiles(CLASSES, provenance, 0.0).stage(path, found)
    file.commit()
    labels = CLASSES[found.label].tolist()
    names = pa.array(labels, pa.string()).dictionary_encode()
    expected = pa.table({"window": found.window, "class": names, "score": found.score})
    table = pq.read_table(path)
    assert table.schema.types == expected.schema.types
    assert json.loads(table.schema.metadata[b"bacpipe"]) == provenance
    assert table.to_pydict() == expected.to_pydict()
    frame = pd.read_parquet(path)
    assert isinstance(frame["class"].dtype, pd.CategoricalDtype)
    assert frame["class"].tolist() == labels
    window, label, score = read_predictions(path, 5000)
    np.testing.assert_array_equal(window, found.window)
    np.testing.assert_array_equal(score, found.score)
    assert label.tolist() == labels
    assert sha256 == file_hash(path)


@pytest.mark.parametrize("rows", [1, 64, 2 * MOST_ROWS])
@pytest.mark.parametrize("threshold", [0.3, 1.0])
def test_rows_are_detections_and_lower_scores_stand_in_the_metadata(
    rows: int, threshold: float, tmp_path: Path
) -> None:
    path, found = tmp_path / "x.parquet", some(rows)
    file, _, _ = PredictionFiles(CLASSES, {}, threshold).stage(path, found)
    file.commit()
    high = found.score >= np.float32(threshold)
    assert pq.read_table(path).num_rows == len(pd.read_parquet(path)) == high.sum()
    window, label, score = read_predictions(path, 5000)
    np.testing.assert_array_equal(window, found.window[high])
    assert label.tolist() == CLASSES[found.label[high]].tolist()
    np.testing.assert_array_equal(score, found.score[high])
    order = np.lexsort((-found.score, found.window))
    window, label, score = read_predictions(path, 5000, below=True)
    np.testing.assert_array_equal(window, found.window[order])
    assert label.tolist() == CLASSES[found.label[order]].tolist()
    np.testing.assert_array_equal(score, found.score[order])


def test_a_damaged_file_is_known(tmp_path: Path) -> None:
    window, _, score = some(3)
    data = ShortTables({"bacpipe": "{}"}).encode(window, ["a", "b", "c"], score)
    for cut in (0, 4, 40, len(data) // 2, len(data) - 1):
        (tmp_path / "x.parquet").write_bytes(data[:cut])
        with pytest.raises(ResultsError, match="damaged"):
            read_predictions(tmp_path / "x.parquet", 5000)
    for lower in (
        "{",
        "[]",
        '{"classes": ["a"], "columns": "AAA="}',
        '{"classes": [], "columns": "AAAAAAAAAAAAAAAA"}',
        '{"classes": ["a"], "columns": "/////wAAAAAAAAAA"}',
    ):
        data = ShortTables({}).encode(window, ["a", "b", "c"], score, {"bacpipe_below": lower})
        (tmp_path / "x.parquet").write_bytes(data)
        assert len(read_predictions(tmp_path / "x.parquet", 5000)[0]) == 3
        with pytest.raises(ResultsError, match="lower scores"):
            read_predictions(tmp_path / "x.parquet", 5000, below=True)


def test_what_is_known_is_what_would_be_read(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = run(classifier_threshold=0.0)
    path = detections_path(loader.paths.preds_path, "tiny")
    with_memory = path.read_bytes()
    path.unlink()
    write_prediction_tables(loader)
    assert path.read_bytes() == with_memory
    path.unlink()
    for file in loader.paths.sparse_predictions_path.rglob("*.parquet"):
        file.unlink()
    with pytest.raises(ResultsError, match="gone"):
        write_prediction_tables(loader)


def test_memory_of_what_is_known_is_bounded() -> None:
    recent = RecentPredictions(CLASSES.tolist(), most=2000)
    for number in range(5):
        recent.keep(f"{number:064x}", some(10))
    taken = [recent.take(f"{number:064x}") for number in range(5)]
    assert [item is not None for item in taken] == [True, True, True, True, False]
    first = taken[0]
    assert first is not None
    for column, expected in zip(
        first, some(10)._replace(label=CLASSES[some(10).label]), strict=True
    ):
        np.testing.assert_array_equal(column, expected)
    assert recent.take(f"{0:064x}") is None
    assert recent.take(None) is None
