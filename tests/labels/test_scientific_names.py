"""Tables of every model carry the scientific name, by which species agree across models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

import bacpipe
from bacpipe.errors import ResultsError
from bacpipe.store.class_list import ClassList
from tests.conftest import TinyModel


class Named(TinyModel):
    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.classes = ["European Robin", "Rain"]
        self.scientific_names = ["Erithacus rubecula", ""]
        self.codes = ["eurrob1", ""]


class Coded(Named):
    """The same, of a model of which only the codes are known."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.classes = ["eurrob1", "rain"]


@pytest.fixture
def robins(run: Callable[..., bacpipe.Loader]) -> bacpipe.Loader:
    return run(CustomModel=Named, classifier_threshold=0.1)


def test_predictions_carry_scientific_names_and_codes(robins: bacpipe.Loader) -> None:
    table = bacpipe.detections_table(robins)
    rows = table[["common_name", "scientific_name", "code"]].drop_duplicates()
    assert sorted(map(tuple, rows.to_numpy())) == [
        ("European Robin", "Erithacus rubecula", "eurrob1"),
        ("Rain", "", ""),
    ]
    stored = pd.read_parquet(robins.paths.preds_path / "tiny_detections.parquet")
    assert set(zip(stored["common_name"], stored["scientific_name"], strict=True)) == {
        ("European Robin", "Erithacus rubecula"),
        ("Rain", ""),
    }


def test_the_list_of_classes_lies_beside_the_predictions(robins: bacpipe.Loader) -> None:
    path = robins.paths.preds_path / "tiny_classes.csv"
    assert path.read_text().splitlines() == [
        "class,scientific_name,code",
        "European Robin,Erithacus rubecula,eurrob1",
        "Rain,,",
    ]
    path.write_text("class\n")
    with pytest.raises(ResultsError, match=r"tiny_classes\.csv.*run the pipeline again"):
        bacpipe.detections_table(robins)


def test_species_agree_across_models(
    run: Callable[..., bacpipe.Loader], robins: bacpipe.Loader, tmp_path: Path
) -> None:
    other = run(CustomModel=Coded, classifier_threshold=0.1, model_name="coded")
    tables = [bacpipe.detections_table(loader) for loader in (robins, other)]
    names = [set(table["scientific_name"]) for table in tables]
    assert names == [{"Erithacus rubecula", ""}] * 2


def test_names_of_models_without_any_are_empty(run: Callable[..., bacpipe.Loader]) -> None:
    loader = run(classifier_threshold=0.1)
    stored = pq.read_table(loader.paths.preds_path / "tiny_detections.parquet")
    assert {*stored["scientific_name"].to_pylist()} == {""}
    assert set(bacpipe.detections_table(loader)["scientific_name"]) == {""}


def test_names_that_became_known_hold_for_stored_codes() -> None:
    listed = ClassList.of_model(["European Robin"], ["Erithacus rubecula"], ["eurrob1"])
    assert listed.of("eurrob1") == listed.of("European Robin") == ("Erithacus rubecula", "eurrob1")
    assert listed.of("unknown") == ("", "")
