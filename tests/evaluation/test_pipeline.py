"""Evaluation of several models at once."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

import bacpipe
from bacpipe.errors import EvaluationError, ResultsNotFoundError, SettingsError
from bacpipe.evaluation.evaluate import run_evaluations
from bacpipe.reduction.reduce_data_set import reduce_data_set
from tests.conftest import TinyModel

TASKS = ["probing", "clustering"]


class Blind(TinyModel):
    """Embeddings without any information, in windows of two seconds."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.segment_length = 16000

    def preprocess(self, audio: torch.Tensor) -> torch.Tensor:
        return audio.abs().reshape(len(audio), 10, -1)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sin(1e6 * x.mean(dim=2))


@pytest.fixture
def loaders(data_set):
    blind = bacpipe.generate_embeddings(
        model_name="blind",
        CustomModel=Blind,
        audio_dir=data_set.audio_dir,
        main_results_dir=data_set.results,
    )
    return {"blind": blind, "tiny": data_set.loader}


def test_tables_and_figures_of_all_models_are_written(data_set, loaders):
    options = data_set.options(evaluation_task=TASKS, bootstrap_samples=50)
    report = run_evaluations(loaders, options.evaluation_task, options)
    assert report.errors == []
    assert set(report.results["tiny"]) == {"probing", "clustering", "retrieval"}
    written = {path.name for path in report.folder.iterdir()}
    for name in ("probing", "probing_per_class", "clustering", "retrieval"):
        assert {f"{name}.csv", f"{name}.png", f"{name}.svg"} <= written
        pd.testing.assert_frame_equal(
            pd.read_csv(report.folder / f"{name}.csv"), report.tables[name], check_dtype=False
        )
    ranking = report.tables["probing"]
    assert ranking["model"].iloc[0] == "tiny" and ranking["rank"].iloc[0] == 1
    assert ranking["f1_macro"].is_monotonic_decreasing
    assert ranking["split"].nunique() == 1  # the same recordings, whatever the windows
    tables = [
        pd.read_csv(loader.paths.labels_path / "probing_dataframe.csv")
        for loader in loaders.values()
    ]
    sets = pd.concat(tables).groupby("audiofilename")["set"].nunique()
    assert sets.max() == 1 and len(sets) == 9
    assert report.tables["retrieval"]["model"].tolist() == ["tiny", "blind"]
    assert "tiny, linear probe: macro F1" in str(report)


def test_a_second_run_computes_nothing_again(data_set, loaders):
    options = data_set.options(bootstrap_samples=0)
    first = run_evaluations(loaders, TASKS, options)
    files = [
        *data_set.loader.paths.probe_path.iterdir(),
        *data_set.loader.paths.plot_path.iterdir(),
    ]
    written = {path: path.stat().st_mtime_ns for path in files}
    again = run_evaluations(loaders, TASKS, options)
    assert again.results == first.results
    assert {path: path.stat().st_mtime_ns for path in files} == written


def test_without_annotations_clusters_are_compared_with_the_rest(data_set, loaders):
    (data_set.audio_dir / "annotations.csv").unlink()
    options = data_set.options(bootstrap_samples=0)
    report = run_evaluations({"tiny": data_set.loader}, ["clustering"], options)
    assert report.errors == []
    found = report.results["tiny"]["clustering"]
    assert "there are 0 labels" in found["skipped"]["kmeans"]
    assert "parent_directory" in found["agreement"]["hdbscan"]
    missing = run_evaluations({"tiny": data_set.loader}, TASKS, options)
    assert len(missing.errors) == 1 and "annotations.csv" in missing.errors[0]


def test_too_little_data_is_reported_and_the_rest_goes_on(data_set):
    table = data_set.audio_dir / "annotations.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:5]) + "\n")
    options = data_set.options(bootstrap_samples=0, clust_configs={"kmeans": {"n_clusters": 3}})
    report = run_evaluations({"tiny": data_set.loader}, TASKS, options)
    assert [error for error in report.errors if "at least 3 recordings" in error]
    assert "clustering" in report.results["tiny"]
    assert report.tables.keys() == {"clustering", "retrieval"}


def test_results_of_an_earlier_run_are_not_compared_with_those_of_this_one(data_set, loaders):
    options = data_set.options(bootstrap_samples=0)
    run_evaluations(loaders, ["probing"], options)
    folder = loaders["blind"].get_embedding_dir()
    next(folder.rglob("*.npy")).unlink()
    report = run_evaluations(loaders, ["probing"], options)
    assert len(report.errors) == 1 and "blind" in report.errors[0]
    assert set(report.tables["probing"]["model"]) == {"tiny"}


def test_labels_that_cannot_be_made_do_not_stop_clustering(data_set):
    (data_set.loader.paths.preds_path / "source.json").unlink()
    options = data_set.options(bootstrap_samples=0)
    report = run_evaluations({"tiny": data_set.loader}, ["clustering"], options)
    assert len(report.errors) == 1 and report.errors[0].startswith("default labels: tiny: ")
    assert list(report.results["tiny"]["clustering"]["agreement"]["kmeans"]) == ["ground_truth"]


def test_the_public_functions_do_the_same(data_set, loaders):
    settings = {**data_set.places, "bootstrap_samples": 0}
    found = bacpipe.model_specific_evaluation(
        loaders, "probing", {"knn": {"n_neighbors": 3}}, ["tiny"], **settings
    )
    assert list(found) == ["tiny"] and list(found["tiny"]["probing"]) == ["knn"]
    tables = bacpipe.cross_model_evaluation(
        "None", "probing", ["tiny", "blind"], probe_configs={"knn": {}}, **settings
    )
    assert tables["probing"]["model"].tolist() == ["tiny"]


def test_maps_of_all_models_are_drawn_side_by_side(data_set, loaders):
    options = data_set.options(bootstrap_samples=0, dim_reduction_model="pca")
    for loader in loaders.values():
        reduce_data_set(loader, "pca", options)
    report = run_evaluations(loaders, ["clustering"], options)
    figure = report.folder / "embeddings_pca.svg"
    text = figure.read_text()
    assert all(label in text for label in ("loud", "quiet", "rising", "tiny", "blind"))


def test_what_is_not_there_is_a_sentence(data_set):
    with pytest.raises(EvaluationError, match="no results of birdnet"):
        bacpipe.model_specific_evaluation(
            {"tiny": data_set.loader}, "probing", {"knn": {}}, "birdnet"
        )
    with pytest.raises(ResultsNotFoundError, match="nothing to compare"):
        bacpipe.cross_model_evaluation("None", "probing", "tiny", **data_set.places)
    with pytest.raises(SettingsError, match="probbing"):
        bacpipe.cross_model_evaluation("None", "probbing", "tiny", **data_set.places)
