from __future__ import annotations

from pathlib import Path

import pytest

import bacpipe
from bacpipe.evaluation.comparison import read_maps, stored_scores
from bacpipe.store.data_set_folder import result_paths
from bacpipe.store.fingerprints import write_result
from bacpipe.store.layout import ResultPaths
from tests.conftest import TinyModel, write_recording


def paths_of(base: Path, *models: str) -> dict[str, ResultPaths]:
    return {
        model: result_paths(
            Path("field"),
            model,
            main_results_dir=base,
            embed_parent_dir="embeddings",
            dim_reduc_parent_dir="maps",
            evaluations_dir="evaluations",
        )
        for model in models
    }


def retrieval(model: str, precision: float, kind: str = "species") -> dict[str, object]:
    overall = {
        "neighbour_precision": precision,
        "neighbour_precision_chance": 0.2,
        "same_label_auroc": 0.9,
    }
    return {
        "model": model,
        "label_column": f"label:{kind}",
        "overall": overall,
        "intervals": {"neighbour_precision": [precision - 0.1, precision + 0.1]},
        "n_neighbors": 10,
        "n_windows": 50,
        "n_recordings": 5,
    }


def store(paths: ResultPaths, result: dict[str, object]) -> None:
    write_result(paths.clust_path / "retrieval_results.json", result, "x")


def test_models_are_ranked_and_those_without_results_are_named(tmp_path: Path) -> None:
    paths = paths_of(tmp_path, "bad", "good", "none")
    store(paths["bad"], retrieval("bad", 0.3))
    store(paths["good"], retrieval("good", 0.7))
    scores = stored_scores(paths, "species")
    assert scores.tables["retrieval"]["model"].tolist() == ["good", "bad"]
    assert scores.tables["retrieval"]["neighbour_precision_low"].tolist() == [0.7 - 0.1, 0.3 - 0.1]
    assert list(scores.tables) == ["retrieval"]
    assert scores.missing["retrieval"] == {"none": "it was not evaluated yet"}
    assert set(scores.missing["probing"]) == {"bad", "good", "none"}


def test_results_about_other_labels_are_not_mixed_in(tmp_path: Path) -> None:
    paths = paths_of(tmp_path, "a", "b", "c")
    store(paths["a"], retrieval("a", 0.3, "call_type"))
    store(paths["b"], retrieval("b", 0.5))
    store(paths["c"], retrieval("c", 0.5, "call_type"))
    by_species = stored_scores(paths, "species")
    assert by_species.tables["retrieval"]["model"].tolist() == ["b"]
    assert (
        by_species.missing["retrieval"]["a"] == "it was evaluated with call_type, not with species"
    )
    # Nobody was evaluated with the kind that was asked for: the most frequent one is shown.
    other = stored_scores(paths, "sex")
    assert other.kind == "call_type"
    assert other.tables["retrieval"]["model"].tolist() == ["c", "a"]


def test_a_damaged_result_does_not_hide_the_others(tmp_path: Path) -> None:
    paths = paths_of(tmp_path, "a", "b", "c")
    store(paths["a"], retrieval("a", 0.3))
    store(paths["b"], {"label_column": "label:species", "overall": None})
    store(paths["c"], retrieval("c", 0.5))
    (paths["c"].clust_path / "retrieval_results.json").write_text("{", encoding="utf-8")
    scores = stored_scores(paths, "species")
    assert scores.tables["retrieval"]["model"].tolist() == ["a"]
    assert "damaged" in scores.missing["retrieval"]["b"]
    assert scores.missing["retrieval"]["c"] == "it was not evaluated yet"


def test_every_probe_that_was_trained_is_in_the_table(tmp_path: Path) -> None:
    paths = paths_of(tmp_path, "a")
    metrics = ("f1_macro", "average_precision_macro", "roc_auc_macro", "accuracy",
               "balanced_accuracy", "top_5_accuracy", "precision_macro", "recall_macro",
               "f1_micro")  # fmt: skip
    for probe, score in (("mine", 0.4), ("linear", 0.6)):
        result = {
            "model": "a",
            "probe": probe,
            "label_column": "label:species",
            "overall": dict.fromkeys(metrics, score),
            "intervals": {},
            "classes": ["owl", "wren"],
            "split": {"id": "s", "windows": {"test": 9}, "recordings": {"test": 3}},
        }
        write_result(paths["a"].probe_path / f"probe_results_{probe}.json", result, "x")
    table = stored_scores(paths, "species").tables["probing"]
    assert table["probe"].tolist() == ["linear", "mine"]


@pytest.mark.parametrize("labels", [["NA", "nan", "None", "null"], ["01", "1", "02", "1e3"]])
def test_labels_that_look_like_numbers_or_nothing_stay_text(
    labels: list[str], tmp_path: Path
) -> None:
    """In the ground truth, in what is trained on it, and on the map that shows it."""
    settings = {"main_results_dir": str(tmp_path / "results"), "device": "cpu"}
    (audio := tmp_path / "audio").mkdir()
    for number in range(4):
        write_recording(audio / f"{number}.wav", 4.0, seed=number)
    rows = [
        f"{number}.wav,{second},{second + 1},{label}"
        for number in range(4)
        for second, label in enumerate(labels)
    ]
    (audio / "annotations.csv").write_text(
        "\n".join(["audiofilename,start,end,label:species", *rows])
    )
    loader = bacpipe.run_pipeline_for_single_model(
        "tiny", audio, "pca", CustomModel=TinyModel, **settings
    )
    truth = bacpipe.ground_truth_by_model("tiny", audio, **settings)
    assert set(truth["label_dict:species"]) == set(labels)
    for _ in range(2):  # as it was made, and as it is read back
        table = bacpipe.ground_truth_by_model("tiny", audio, return_type="dataframe", **settings)
        assert set(table) - {"start", "end", "audiofilename", "simultaneous_labels"} == set(labels)
    found = read_maps({"tiny": loader.paths}, "pca", "species")["tiny"]
    assert found["label"].tolist() == labels * 4
