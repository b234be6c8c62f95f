"""Evaluation of several models at once."""

from __future__ import annotations

import hashlib
from collections import Counter

import pandas as pd
import pytest
import torch

import bacpipe
from bacpipe.errors import EvaluationError, ResultsNotFoundError, SettingsError
from bacpipe.evaluation import labelled_windows
from bacpipe.evaluation.evaluate import run_evaluations
from bacpipe.evaluation.labelled_windows import windows_of_results
from bacpipe.reduction.reduce_data_set import reduce_data_set
from bacpipe.store import embedding_set
from bacpipe.store.files import array_hash
from bacpipe.store.fingerprints import read_result, write_result
from bacpipe.store.loader import Loader
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
    # No score without what it rests on.
    split = report.results["tiny"]["probing"]["linear"]["split"]
    (line,) = (row for row in str(report).splitlines() if row.startswith("tiny, linear probe:"))
    assert "macro F1" in line and line.endswith(
        f"({split['windows']['test']} test windows of {split['recordings']['test']} recordings)"
    )


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


def test_a_run_opens_each_results_tree_once(data_set, tmp_path, monkeypatch):
    """One Loader and one reading of the journal per model, and no hash of all embeddings."""
    counts = Counter()

    def counted(name, function, when=lambda *_: True):
        def count(*args, **kwargs):
            counts[name] += bool(when(*args))
            return function(*args, **kwargs)

        return count

    def is_whole(array):
        return len(array) > 9  # windows of one recording

    # A loader without a model only looks for recordings.
    made = counted("loaders", Loader.__init__, lambda *given: len(given) > 2)
    monkeypatch.setattr(Loader, "__init__", made)
    read = counted(
        "journals", embedding_set.read_journals, lambda folder, *_: any(folder.iterdir())
    )
    monkeypatch.setattr(embedding_set, "read_journals", read)
    for module in (embedding_set, labelled_windows):
        hashed = counted("hashes", module.array_hash, is_whole)
        monkeypatch.setattr(module, "array_hash", hashed)

    def play(**settings):
        counts.clear()
        return bacpipe.play(
            models=["tiny", "blind"],
            CustomModels=[TinyModel, Blind],
            evaluation_task=TASKS,
            dim_reduction_model="pca",
            bootstrap_samples=0,
            device="cpu",
            **{**data_set.places, **settings},
        )

    loaders = play(main_results_dir=tmp_path / "fresh")
    assert counts["loaders"] == 2 and counts["hashes"] == 0
    assert all((item.paths.probe_path / "label2index.json").is_file() for item in loaders.values())
    for overwrite in (True, False):
        play(main_results_dir=tmp_path / "fresh", overwrite=overwrite)
        assert counts == {"loaders": 2, "journals": 2, "hashes": 0}


def test_results_with_fingerprints_of_version_2_0_are_made_again(data_set):
    """They hashed the array of all embeddings; nobody can tell whether they still hold."""
    options = data_set.options(bootstrap_samples=0, overwrite=False)
    first = run_evaluations({"tiny": data_set.loader}, TASKS, options).results
    paths = data_set.loader.paths
    old = array_hash(data_set.loader.embeddings("array"))
    for path in [*paths.probe_path.glob("probe_results_*"), *paths.clust_path.glob("*.json")]:
        write_result(path, {"wrong": True}, hashlib.sha256(old.encode()).hexdigest())
    assert run_evaluations({"tiny": data_set.loader}, TASKS, options).results == first


def test_results_are_stale_when_a_recording_was_embedded_anew(data_set):
    loader, options = data_set.loader, data_set.options(bootstrap_samples=0, overwrite=False)
    run_evaluations({"tiny": loader}, ["probing"], options)
    path = loader.paths.probe_path / "probe_results_linear.json"
    before = read_result(path)
    loader.save_embedding_file("site0/rec0.wav", 3 * loader.read_embedding_file("site0/rec0.wav"))
    run_evaluations({"tiny": loader}, ["probing"], options)
    assert read_result(path) != before


def test_embeddings_that_the_journal_does_not_know_are_hashed(data_set):
    """Those of an older bacpipe have no hash in the journal, so a change must show otherwise."""
    loader = data_set.loader
    windows = windows_of_results(loader, loader.embeddings("array"), None, "species")
    assert windows.state == loader.embeddings_state
    name = next(iter(loader.entries))
    entry = loader.embedding_set.content.recordings[name]
    entry.embeddings.sha256 = None
    loader.embedding_set.content.recordings[name] = entry
    embeds = loader.embeddings("array")
    windows = windows_of_results(loader, embeds, None, "species")
    assert windows.state is None
    other = windows_of_results(loader, embeds * 2, None, "species")
    assert windows.fingerprint() != other.fingerprint()


def test_public_functions_take_what_a_run_has_stored(data_set):
    loader, options = data_set.loader, data_set.options(bootstrap_samples=0)
    results = run_evaluations({"tiny": loader}, TASKS, options).results["tiny"]
    settings = {**data_set.places, "bootstrap_samples": 0}
    truth = bacpipe.ground_truth_by_model("tiny", overwrite=False, **settings)
    path = loader.paths.probe_path / "linear_probe.safetensors"
    written = path.stat().st_mtime_ns
    embeds = loader.embeddings("array")
    _, _, found = bacpipe.probing_pipeline("tiny", truth, embeds, overwrite=False, **settings)
    assert found == results["probing"]["linear"] and path.stat().st_mtime_ns == written
