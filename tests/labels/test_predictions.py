import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import soundfile as sf
import torch

import bacpipe
from bacpipe.errors import SettingsError
from bacpipe.store import tables
from bacpipe.store.detections import Detections
from bacpipe.store.layout import detections_path, path_inside
from bacpipe.store.predictions import SparsePredictions, read_predictions, with_best_below
from bacpipe.store.tables import (
    DetectionStream,
    blocks_of,
    read_blocks,
    wide_frame,
)
from tests.labels.conftest import Tiny


@pytest.fixture
def expected(loader):
    """Scores straight from the model, thresholded by hand."""
    embeddings = torch.from_numpy(loader.embeddings("array"))
    scores = Tiny().classifier_predictions(embeddings).numpy()
    times = [loader.window_times(name) for name in loader.entries]
    heard = np.concatenate([ends - starts >= 2.5 for starts, ends in times])
    assert (~heard).sum() == 1  # 2 of 5 seconds
    return np.where((scores >= 0.15) & heard[:, None], scores, 0)


@pytest.mark.parametrize("padding", ["wrap", "reflect", "constant", "edge"])
def test_padding_invents_no_predictions(tmp_path, caplog, padding):
    audio = tmp_path / "clips"
    audio.mkdir()
    for seconds in (0.03, 2.4, 2.5, 5.0, 7.4, 7.6):
        time = np.arange(round(seconds * 8000)) / 8000
        call = np.where(time % 5 < 0.6, 0.5, 0.01) * np.sin(5000 * time)
        sf.write(audio / f"{seconds}.wav", call, 8000)
    settings = {
        "model_name": "tiny", "CustomModel": Tiny, "audio_dir": audio, "device": "cpu",
        "main_results_dir": tmp_path / "results", "classifier_threshold": 0.2, "padding": padding,
    }  # fmt: skip
    loader = bacpipe.generate_embeddings(**settings)
    starts = {item.recording: item.start.tolist() for item in loader.detections()}
    assert {name: sorted(set(starts.get(name, []))) for name in loader.entries} == {
        "0.03.wav": [], "2.4.wav": [], "2.5.wav": [0], "5.0.wav": [0], "7.4.wav": [0],
        "7.6.wav": [0, 5],
    }  # fmt: skip
    assert len(loader.embeddings("array")) == 8
    assert "no predictions of 2 recordings shorter than 50 % of a window" in caplog.text
    # the same when stored embeddings are classified, and in annotated segments
    again = bacpipe.generate_embeddings(**{**settings, "classifier_threshold": 0.19})
    found = {name for item in again.detections() for name in [item.recording] if len(item.start)}
    assert found == {"2.5.wav", "5.0.wav", "7.4.wav", "7.6.wav"}
    rows = "7.6.wav,0,2.4,a\n7.6.wav,2.5,7.5,a\n5.0.wav,0,2.4,a\n"
    (audio / "annotations.csv").write_text("audiofilename,start,end,label:species\n" + rows)
    segments = bacpipe.generate_embeddings(**settings, only_embed_annotations=True)
    found = {(item.recording, start) for item in segments.detections() for start in item.start}
    assert found == {("7.6.wav", 2.5)}


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
    assert list(scores) == list(loader.entries)
    assert np.array_equal(np.concatenate(list(scores.values())), array)


def test_data_frame(loader, expected):
    frame = loader.predictions("dataframe")
    rows = np.flatnonzero(expected.any(axis=1))
    assert len(frame) == len(rows)
    array, classes = loader.predictions("array")
    assert list(frame.columns) == ["audiofilename", "start", "end", *classes.values()]
    assert np.array_equal(frame.iloc[:, 3:].to_numpy(), array[rows])
    starts = np.concatenate([loader.window_times(name)[0] for name in loader.entries])
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
    annotations = pd.read_csv(folder / "tiny_classifier_annotations.csv")
    assert list(annotations.columns) == [
        "start",
        "end",
        "audiofilename",
        "label:default_classifier",
        "label:confidence",
    ]
    names = {"label:confidence": "score", "audiofilename": "recording",
             "label:default_classifier": "common_name"}  # fmt: skip
    given = table.round({"start": 6, "end": 6, "score": 4})[
        [names.get(column, column) for column in annotations]
    ].set_axis(annotations.columns, axis=1)
    pd.testing.assert_frame_equal(annotations, given, check_dtype=False, atol=1e-6)
    windows = annotations.groupby(["audiofilename", "start"]).size()
    assert windows.max() > 1  # no species of a window is left out


def test_single_files_are_read_when_the_combined_one_is_stale(loader, tmp_path, monkeypatch):
    """As after a run that was killed, or when a recording was added."""
    combined = detections_path(loader.paths.preds_path, "tiny")
    before = loader.predictions("dataframe")
    moved = shutil.move(combined, tmp_path / "kept")
    try:
        pd.testing.assert_frame_equal(loader.predictions("dataframe"), before)
        combined.write_bytes(b"PAR1 damaged")
        pd.testing.assert_frame_equal(loader.predictions("dataframe"), before)
        path = loader.paths.sparse_predictions_path / next(
            entry.predictions.path for entry in loader.entries.values()
        )
        assert list(read_blocks(Path(moved), "another state")) == []
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
    monkeypatch.setattr(tables, "_LARGEST_DENSE", 8)
    sparse = wide_frame(items)
    assert isinstance(sparse["x"].dtype, pd.SparseDtype)
    assert {column.dtype.subtype for _, column in sparse.iloc[:, 3:].items()} == {
        np.dtype("float32")
    }
    np.testing.assert_allclose(sparse.iloc[:, 3:].to_numpy(), dense.iloc[:, 3:].to_numpy())
    pd.testing.assert_frame_equal(sparse.iloc[:, :3], dense.iloc[:, :3])


def test_wide_table_in_several_pieces(tmp_path, monkeypatch):
    items = [detections(f"r{i}", [(i, f"class {i % 3}", 0.5 + i / 100)]) for i in range(20)]
    monkeypatch.setattr(tables, "_ROW_GROUP_VALUES", 18)
    path, classes = tmp_path / "w.parquet", ["class 0", "class 1", "class 2"]
    tables.write_wide_table(path, blocks_of(items), classes, {"model": "m"})
    assert pq.ParquetFile(path).num_row_groups == 7
    pd.testing.assert_frame_equal(pd.read_parquet(path), wide_frame(items), check_dtype=False)


def many_detections() -> list[Detections]:
    """Recordings that share few classes, some of them without a detection."""
    rng = np.random.default_rng(2)
    items = []
    for i in range(60):
        rows = [(w, f"class {rng.integers(i, i + 5)}", 0.9 - 0.1 * j)
                for w in range(rng.integers(0, 5)) for j in range(rng.integers(0, 3))]  # fmt: skip
        empty = [np.zeros(0, kind) for kind in ("i4", "f8", "f8", object, "f4")]
        items.append(detections(f"r{i:02}", rows) if rows else Detections(f"r{i:02}", *empty))
    return items


def test_tables_of_many_blocks_hold_the_same_as_those_of_one(tmp_path, monkeypatch):
    items = many_detections()
    tables.write_combined_tables(tmp_path / "one", "m", iter(items), {}, "state")
    monkeypatch.setattr(tables, "_BLOCK", 60)
    tables.write_combined_tables(tmp_path / "many", "m", iter(items), {}, "state")
    written = [pq.ParquetFile(detections_path(tmp_path / f, "m")) for f in ("one", "many")]
    assert written[0].num_row_groups == 1 and written[1].num_row_groups > 5
    for name in ("m_detections.parquet", "m_all_predictions.parquet"):
        one, many = (pd.read_parquet(tmp_path / folder / name) for folder in ("one", "many"))
        text = {c: object for c in ("recording", "common_name") if c in one}  # else categories
        pd.testing.assert_frame_equal(one.astype(text), many.astype(text))
    # Other programs count classes over all blocks, each of which has some of its own.
    table = ds.dataset(tmp_path / "many" / "m_detections.parquet").to_table()
    counts = table.group_by("common_name").aggregate([("score", "count")]).to_pydict()
    labels = Counter(label for item in items for label in item.label)
    assert dict(zip(counts["common_name"], counts["score_count"], strict=True)) == labels
    wide = pd.read_parquet(tmp_path / "many" / "m_all_predictions.parquet")
    pd.testing.assert_frame_equal(wide, wide_frame(items), check_dtype=False)
    one, many = (tmp_path / f / "m_classifier_annotations.csv" for f in ("one", "many"))
    assert one.read_bytes() == many.read_bytes()
    assert len(pd.read_csv(many)) == sum(len(item.window) for item in items)


def test_recordings_come_back_one_by_one_also_from_tables_of_older_versions(tmp_path, monkeypatch):
    items = [item for item in many_detections() if len(item.window)]
    monkeypatch.setattr(tables, "_BLOCK", 60)
    path = tmp_path / "new.parquet"
    tables.write_detections(path, blocks_of(items), {}, "state")
    # Older versions wrote one table, and Parquet cut it anywhere.
    pq.write_table(pq.read_table(path), tmp_path / "old.parquet", row_group_size=7)
    for name in ("new.parquet", "old.parquet"):
        stream = DetectionStream(tmp_path / name, "state")
        for item in items:
            assert stream.take("another") is None
            found = stream.take(item.recording)
            assert found is not None and found.recording == item.recording
            for one, other in zip(found[1:], item[1:], strict=True):
                assert np.array_equal(one, other)
        assert stream.take(items[-1].recording) is None
    assert DetectionStream(tmp_path / "new.parquet", "other").take(items[0].recording) is None


def test_a_table_whose_end_is_damaged_is_read_up_to_there(tmp_path, monkeypatch, caplog):
    items = [item for item in many_detections() if len(item.window)]
    monkeypatch.setattr(tables, "_BLOCK", 60)
    path = tmp_path / "m_detections.parquet"
    tables.write_detections(path, blocks_of(items), {}, "state")
    file = pq.ParquetFile(path)
    column = file.metadata.row_group(file.num_row_groups - 2).column(0)
    content = bytearray(path.read_bytes())
    first = column.dictionary_page_offset
    content[first : first + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(content)
    stream = DetectionStream(path, "state")
    found = [stream.take(item.recording) for item in items]
    whole = [item for item in found if item is not None]
    assert 10 < len(whole) < len(items)
    assert found[len(whole) :] == [None] * (len(items) - len(whole))
    assert caplog.text.count("left aside") == 1


def test_nothing_found(tmp_path):
    tables.write_combined_tables(tmp_path, "m", [], {}, "state")
    assert list(read_blocks(tmp_path / "m_detections.parquet", "state")) == []
    assert len(pd.read_parquet(tmp_path / "m_all_predictions.parquet")) == 0
    assert len(pd.read_csv(tmp_path / "m_classifier_annotations.csv")) == 0
    assert list(wide_frame([]).columns) == ["audiofilename", "start", "end"]


def test_low_scores_are_the_best_of_each_class_and_take_a_tenth_at_most(loader):
    rng = np.random.default_rng(0)
    window = np.sort(rng.integers(0, 400, 3000)).astype(np.int32)
    every = SparsePredictions(
        window, rng.integers(0, 30, 3000).astype(np.int32), rng.random(3000).astype(np.float32)
    )
    kept = with_best_below(every, 0.8)
    high = every.score >= np.float32(0.8)
    assert (kept.score >= np.float32(0.8)).sum() == high.sum() > 0
    for label in range(30):
        low = np.sort(every.score[~high & (every.label == label)])
        mine = kept.score[(kept.label == label) & (kept.score < np.float32(0.8))]
        assert np.array_equal(np.sort(mine), low[-5:])
    assert (np.diff(kept.window) >= 0).all()
    again = with_best_below(kept, 0.8)
    assert all(np.array_equal(a, b) for a, b in zip(again, kept, strict=True))
    few = with_best_below(every, 0.8, 24 * 10 * 10)
    low = np.sort(kept.score[kept.score < np.float32(0.8)])
    assert np.array_equal(np.sort(few.score[few.score < np.float32(0.8)]), low[-10:])
    nothing_found = SparsePredictions(*(column[~high] for column in every))
    assert not len(with_best_below(nothing_found, 0.8, 40_000).score)  # no file for these alone
    # In results: files take not much more, and what is read from them are detections.
    for name, entry in loader.entries.items():
        stored = entry.predictions
        if stored.path is None:
            continue
        path = path_inside(loader.paths.sparse_predictions_path, stored.path, what="a test")
        scores = read_predictions(path, entry.windows, stored)[2]
        assert not len(scores) or scores.min() >= np.float32(stored.threshold), name
        below = read_predictions(path, entry.windows, stored, below=True)[2]
        room = 0.1 * 4 * entry.windows * entry.embeddings.dim
        assert 24 * (len(below) - len(scores)) <= room
