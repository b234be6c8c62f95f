import json
import shutil

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

import bacpipe
from bacpipe.errors import SettingsError
from bacpipe.store import predictions as prediction_files
from bacpipe.store.predictions import Detections, wide_frame
from tests.labels.conftest import Tiny


@pytest.fixture
def expected(loader):
    """Scores straight from the model, thresholded by hand."""
    embeddings = torch.from_numpy(loader.embeddings("array"))
    scores = Tiny().classifier_predictions(embeddings).numpy()
    return np.where(scores >= 0.15, scores, 0)


def test_array(loader, expected):
    scores, classes = loader.predictions("array")
    assert scores.dtype == np.float32
    assert len(scores) == len(loader.embeddings("array"))
    found = [i for i in range(8) if expected[:, i].any()]
    assert classes == dict(enumerate(f"part {i}" for i in found))
    np.testing.assert_allclose(scores, expected[:, found], rtol=1e-5)


def test_dict_by_recording(loader):
    scores, classes = loader.predictions("dict")
    array, same_classes = loader.predictions("array")
    assert classes == same_classes
    assert list(scores) == list(loader.lines)
    assert np.array_equal(np.concatenate(list(scores.values())), array)


def test_data_frame(loader, expected):
    frame = loader.predictions("dataframe")
    rows = np.flatnonzero(expected.any(axis=1))
    assert len(frame) == len(rows)
    array, classes = loader.predictions("array")
    assert list(frame.columns) == ["audiofilename", "start", "end", *classes.values()]
    assert np.array_equal(frame.iloc[:, 3:].to_numpy(), array[rows])
    starts = np.concatenate([loader.window_times(name)[0] for name in loader.lines])
    assert np.array_equal(frame["start"], starts[rows])


def test_higher_threshold(loader):
    every, some = loader.get_preds_array("array")[0], loader.get_annotations_parquet()
    scores, _ = loader.get_preds_array("array", classifier_threshold=0.2)
    assert 0 < (scores > 0).sum() == (every >= np.float32(0.2)).sum() < (every > 0).sum()
    frame = loader.get_annotations_parquet(classifier_threshold=0.2)
    assert 0 < len(frame) <= len(some)
    assert (frame.iloc[:, 3:].max(axis=1) >= 0.2).all()
    nothing, classes = loader.get_preds_array("array", classifier_threshold=1.0)
    assert nothing.shape == (len(every), 0) and classes == {}
    with pytest.raises(SettingsError, match="classifier_threshold"):
        loader.get_preds_array("array", classifier_treshold=0.2)


def test_every_table_tells_what_it_was_made_with(loader):
    folder = loader.paths.preds_path
    described = loader.predictions("dataframe").attrs["bacpipe"]
    assert described["model"] == "tiny" and described["threshold"] == 0.15
    assert described["version"] == bacpipe.__version__
    assert described["checkpoint"] and described["hop"] is None
    assert json.loads((folder / "provenance.json").read_text()) == described
    for path in [
        *folder.glob("*.parquet"),
        *loader.paths.sparse_predictions_path.rglob("*.parquet"),
    ]:
        stored = json.loads(pq.read_schema(path).metadata[b"bacpipe"])
        for key in ("model", "checkpoint", "threshold", "version", "padding"):
            assert stored[key] == described[key], (path, key)


def test_combined_files_hold_the_same(loader):
    folder = loader.paths.preds_path
    frame = loader.predictions("dataframe")
    wide = pd.read_parquet(folder / "tiny_all_predictions.parquet")
    pd.testing.assert_frame_equal(wide, frame, check_dtype=False)
    long = pd.read_parquet(folder / "tiny_detections.parquet")
    table = bacpipe.detections_table(loader)
    assert len(long) == len(table) == int((frame.iloc[:, 3:] > 0).sum().sum())
    assert long["score"].tolist() == table["score"].tolist()
    best = pd.read_csv(folder / "tiny_classifier_annotations.csv")
    assert list(best.columns) == [
        "start",
        "end",
        "audiofilename",
        "label:default_classifier",
        "label:confidence",
    ]
    assert best["label:default_classifier"].tolist() == frame.iloc[:, 3:].idxmax(axis=1).tolist()


def test_single_files_are_read_when_the_combined_one_is_stale(loader, tmp_path, monkeypatch):
    """As after a run that was killed, or when a recording was added."""
    combined = prediction_files.detections_path(loader.paths.preds_path, "tiny")
    before = loader.predictions("dataframe")
    moved = shutil.move(combined, tmp_path / "kept")
    try:
        pd.testing.assert_frame_equal(loader.predictions("dataframe"), before)
        combined.write_bytes(b"PAR1 damaged")
        pd.testing.assert_frame_equal(loader.predictions("dataframe"), before)
        path = loader.paths.sparse_predictions_path / next(
            line["predictions"]["path"] for line in loader.lines.values()
        )
        other = prediction_files.read_detections(moved, "another state")
        assert other is None
        assert path.is_file()
    finally:
        combined.unlink(missing_ok=True)
        shutil.move(moved, combined)


def detections(name, rows):
    window, label, score = (np.array(column) for column in zip(*rows, strict=True))
    start, score = window * 3.0, score.astype(np.float32)
    return Detections(name, window, start, start + 3, label.astype(object), score)


def test_large_tables_are_sparse_and_equal(monkeypatch):
    items = [
        detections("a", [(0, "x", 0.9), (0, "y", 0.8), (2, "x", 0.7), (2, "x", 0.6)]),
        detections("b", [(1, "z", 0.5)]),
    ]
    dense = wide_frame(items)
    np.testing.assert_allclose(
        dense[["x", "y", "z"]].to_numpy(), [[0.9, 0.8, 0], [0.7, 0, 0], [0, 0, 0.5]], rtol=1e-6
    )
    monkeypatch.setattr(prediction_files, "_LARGEST_DENSE", 8)
    sparse = wide_frame(items)
    assert isinstance(sparse["x"].dtype, pd.SparseDtype)
    assert {column.dtype.subtype for _, column in sparse.iloc[:, 3:].items()} == {
        np.dtype("float32")
    }
    np.testing.assert_allclose(sparse.iloc[:, 3:].to_numpy(), dense.iloc[:, 3:].to_numpy())
    pd.testing.assert_frame_equal(sparse.iloc[:, :3], dense.iloc[:, :3])


def test_wide_table_in_several_pieces(tmp_path, monkeypatch):
    items = [detections(f"r{i}", [(i, f"class {i % 3}", 0.5 + i / 100)]) for i in range(20)]
    monkeypatch.setattr(prediction_files, "_ROW_GROUP_VALUES", 18)
    index = prediction_files.wide_index(items)
    prediction_files.write_wide_table(tmp_path / "w.parquet", index, {"model": "m"})
    assert pq.ParquetFile(tmp_path / "w.parquet").num_row_groups == 7
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "w.parquet"), wide_frame(items), check_dtype=False
    )


def test_nothing_found(tmp_path):
    prediction_files.write_combined_tables(tmp_path, "m", [], {}, "state")
    assert prediction_files.read_detections(tmp_path / "m_detections.parquet", "state") == {}
    assert len(pd.read_parquet(tmp_path / "m_all_predictions.parquet")) == 0
    assert len(pd.read_csv(tmp_path / "m_classifier_annotations.csv")) == 0
    assert list(wide_frame([]).columns) == ["audiofilename", "start", "end"]
