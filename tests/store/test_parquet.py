"""Parquet files that promise more than there can be, and texts that look like formulas."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import bacpipe
from bacpipe.errors import ResultsError
from bacpipe.reduction.reduce_data_set import reduce_data_set
from bacpipe.store import parquet
from bacpipe.store.fingerprints import read_result_table, write_result_table
from bacpipe.store.parquet import read_parquet
from bacpipe.store.predictions import predictions_kinds, read_predictions
from bacpipe.store.verification import verify_results
from tests.conftest import TinyModel, write_recording

Run = Callable[..., bacpipe.Loader]


def test_tables_come_back_as_they_were_written(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"text": ["NA", None, "01", "NA"], "x": [1.0, 2, 3, 4], "none": [None] * 4}
    )
    frame["coded"] = pd.Categorical(["b", "a", None, "b"])
    frame.to_parquet(tmp_path / "x.parquet")
    found = read_parquet(tmp_path / "x.parquet", 4).to_pandas()
    pd.testing.assert_frame_equal(found, frame)
    with pytest.raises(ValueError, match="4 rows instead of 5"):
        read_parquet(tmp_path / "x.parquet", 5)


def test_small_files_that_unpack_to_gigabytes_are_refused(tmp_path: Path) -> None:
    most = parquet.free_memory()
    path = tmp_path / "x.parquet"
    copies = most // 2**20 + 1000
    texts = pa.DictionaryArray.from_arrays(pa.array(np.zeros(copies, np.int32)), ["x" * 2**20])
    pq.write_table(pa.table({"t": texts}), path, store_schema=False)
    assert path.stat().st_size < 2**20
    with pytest.raises(ValueError, match="GB when it is unpacked"):
        read_parquet(path)


def test_what_takes_too_much_memory_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    loader = run(classifier_threshold=0.0)
    reduce_data_set(loader, "pca", loader.options)
    write_result_table(tmp_path / "t.parquet", pa.table({"x": [1.0]}), "f")
    monkeypatch.setattr(parquet, "free_memory", lambda: 100)
    monkeypatch.setattr(parquet, "_SMALL", 0)
    assert read_result_table(tmp_path / "t.parquet", "f") is None
    with pytest.raises(ResultsError, match="more than half of the free memory"):
        loader.predictions("dataframe")
    loader.dim_reduction_model = "pca"
    with pytest.raises(ResultsError, match="more than half of the free memory"):
        loader.embeddings()


def test_more_predictions_than_windows_can_have_are_refused(run: Run, tmp_path: Path) -> None:
    loader = run(classifier_threshold=0.0, max_predictions_per_window=2)
    entry = loader.entries["north/b.wav"]
    count = 2 * entry.windows + 1
    table = pa.table({
        "window": np.zeros(count, np.int32),
        "class": pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), ["a"]),
        "score": np.ones(count, np.float32),
    }, pa.schema(list(predictions_kinds().items())))  # fmt: skip
    path = tmp_path / "x.parquet"
    pq.write_table(table, path)
    stored = entry.predictions
    stored.bytes, stored.sha256 = path.stat().st_size, None
    with pytest.raises(ResultsError, match=f"{count} rows, of which at most {count - 1}"):
        read_predictions(path, entry.windows, stored)
    stored.bytes += 1
    with pytest.raises(ResultsError, match="the journal says"):
        read_predictions(path, entry.windows, stored)


def test_maps_have_the_rows_that_their_metadata_say(run: Run) -> None:
    loader = run()
    folder = reduce_data_set(loader, "pca", loader.options)
    table = next(folder.glob("*.parquet"))
    whole = pq.read_table(table)
    pq.write_table(pa.concat_tables([whole, whole]), table)
    loader.dim_reduction_model = "pca"
    with pytest.raises(ResultsError, match="30 rows instead of 15"):
        loader.embeddings()


class Formulas(TinyModel):
    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.classes = ["=cmd|' /C calc'!A0", "+quiet"]


def test_texts_that_look_like_formulas_are_escaped_on_request(run: Run, recordings: Path) -> None:
    write_recording(recordings / "=1+1.wav", 1.0)
    plain, escaped = (
        run(CustomModel=Formulas, classifier_threshold=0.0, escape_formulas=wanted)
        for wanted in (False, True)
    )
    path = plain.paths.preds_path / "tiny_classifier_annotations.csv"
    assert escaped.paths.preds_path == plain.paths.preds_path
    table = pd.read_csv(path)
    assert set(table["label:default_classifier"]) == {"'=cmd|' /C calc'!A0", "'+quiet"}
    assert "'=1+1.wav" in set(table["audiofilename"])
    run(CustomModel=Formulas, classifier_threshold=0.0)
    assert set(pd.read_csv(path)["label:default_classifier"]) == {"=cmd|' /C calc'!A0", "+quiet"}
    assert verify_results(plain.paths.dataset_path) == []
