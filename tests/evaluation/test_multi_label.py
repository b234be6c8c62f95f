"""Several labels per window, and rankings on the classes and recordings that models share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import bacpipe
from bacpipe.evaluation.evaluate import run_evaluations
from bacpipe.evaluation.labelled_windows import NO_LABEL, labelled_windows
from bacpipe.evaluation.retrieval import retrieval_quality
from tests.conftest import TinyModel
from tests.evaluation.conftest import make_windows


class Long(TinyModel):
    """Windows of two seconds."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.segment_length = 16000


@pytest.fixture
def loaders(data_set):
    """Two models, and ticks of 0.4 s in a second that long windows share with another call."""
    with (data_set.audio_dir / "annotations.csv").open("a") as file:
        for number in range(9):
            file.write(f"site{number // 3}/rec{number}.wav,2.5,2.9,tick\n")
    long = bacpipe.generate_embeddings(
        model_name="long",
        CustomModel=Long,
        audio_dir=data_set.audio_dir,
        main_results_dir=data_set.results,
    )
    return {"long": long, "tiny": data_set.loader}


def test_a_rare_species_that_long_windows_lose_is_told_and_left_out(data_set, loaders, caplog):
    options = data_set.options(bootstrap_samples=0, probe_configs={"linear": {}})
    report = run_evaluations(loaders, ["probing", "clustering"], options)
    assert report.errors == []
    long, tiny = (report.results[name]["probing"]["linear"] for name in ("long", "tiny"))
    assert "tick" in tiny["classes"] and "tick" not in long["classes"]
    assert "others cover more of its windows" in long["dropped"]["tick"]
    assert "nothing is left of tick (9 windows)" in caplog.text
    table = report.tables["probing"]
    assert table["classes"].tolist() == [3, 3]
    assert table["test_recordings"].nunique() == 1
    (note,) = [note for note in table.attrs["notes"] if "tick" in note]
    assert "long was not tested with it" in note
    per_class = report.tables["probing_per_class"]
    assert set(per_class["class"]) == {"loud", "quiet", "rising"}
    assert "tick" in " ".join(report.tables["retrieval"].attrs["notes"])
    page = (report.folder / "report.html").read_text(encoding="utf-8")
    assert "tick is left out of the ranking" in page and "<script" not in page


def test_with_several_labels_per_window_nothing_is_lost(data_set, loaders):
    options = data_set.options(
        bootstrap_samples=0, probe_configs={"linear": {}, "knn": {}}, multi_label=True
    )
    report = run_evaluations(loaders, ["probing", "clustering"], options)
    assert report.errors == []
    table = report.tables["probing"]
    assert table["classes"].tolist() == [4] * 4
    # Nothing was left out; that two recordings are few is said in any case.
    (note,) = table.attrs["notes"]
    assert note.startswith("Scores rest on")
    for model, windows in (("long", 45), ("tiny", 81)):
        result = report.results[model]["probing"]["linear"]
        assert result["multi_label"] and result["confusion_matrix"] is None
        assert result["overall"]["accuracy"] is None
        # Every window of an annotated recording counts, also those with nothing in them.
        assert sum(result["split"]["windows"].values()) == windows
        assert result["per_class"]["tick"]["support"] == result["split"]["recordings"]["test"]
    settings = {**data_set.places, "single_label": False}
    truth = bacpipe.ground_truth_by_model("long", **settings)
    both = (truth["label:species"] >= 0).sum(axis=1) > 1
    assert both.any()
    probe, columns = bacpipe.prepare_probe_inference("long", **data_set.places)
    scores = bacpipe.run_probe_inference(
        "long", probe, 0.5, return_binary_presence=False, **data_set.places
    )
    assert list(columns) == ["loud", "quiet", "rising", "tick"]
    assert scores.sum(axis=1).max() > 1.2 or scores.sum(axis=1).min() < 0.8


def test_all_forms_of_ground_truth_give_the_same_result(data_set, loaders):
    embeds = loaders["tiny"].embeddings("array")
    for single in (True, False):
        several = {}
        for form in ("dict", "array", "dataframe"):
            truth = bacpipe.ground_truth_by_model(
                "tiny", single_label=single, return_type=form, **data_set.places
            )
            data = labelled_windows("tiny", truth, embeds, **data_set.places)
            assert data.multi_label is not single
            assert data.classes == ("loud", "quiet", "rising", "tick")
            several[form] = data.with_several().labels
        np.testing.assert_array_equal(several["dict"], several["array"])
        np.testing.assert_array_equal(several["dict"], several["dataframe"])
    # A table brings the recordings along, so that it needs no results.
    probe, _, metrics = bacpipe.probing_pipeline("elsewhere", truth, embeds, bootstrap_samples=0)
    assert probe.multi_label and sum(metrics["split"]["recordings"].values()) == 9
    found = bacpipe.clustering_pipeline("elsewhere", truth, embeds, bootstrap_samples=0)
    assert found["AMI"]["kmeans-ground_truth"] > 0 and "kmeans" in found["SS"]
    clusters = bacpipe.run_clustering(embeds, {"kmeans": {"n_clusters": 3}}, None, truth)
    assert (clusters["kmeans_no_noise"] >= 0).sum() == (truth["simultaneous_labels"] == 1).sum()
    scores = bacpipe.eval_clustering(clusters, truth, metadata_labels={"half": [0] * 40 + [1] * 41})
    assert set(scores["ARI"]) >= {"kmeans-ground_truth", "kmeans-half"}


def test_a_window_keeps_its_other_labels_when_rare_ones_are_left_out(data_set):
    table = pd.read_csv(data_set.audio_dir / "annotations.csv")
    rare = {
        "audiofilename": "site0/rec0.wav",
        "start": 3,
        "end": 5.1,
        "label:species": "a rare one",
    }
    annotations = pd.concat([table, pd.DataFrame([rare])])
    settings = {**data_set.places, "label_df": annotations, "min_label_occurrences": 5}
    kept = bacpipe.ground_truth_by_model("tiny", bool_filter_labels=True, **settings)
    without = bacpipe.ground_truth_by_model("tiny", **{**settings, "label_df": table})
    assert "a rare one" not in kept["label_dict:species"]
    np.testing.assert_array_equal(kept["label:species"], without["label:species"])
    every = bacpipe.ground_truth_by_model("tiny", **settings)
    assert (every["label:species"] == every["label_dict:species"]["a rare one"]).any()


def test_windows_of_recordings_without_annotations_are_unknown():
    data = make_windows(600, 3).with_several()
    empty = data.recordings == data.recordings[0]
    labels = np.where(empty[:, None], False, data.labels)
    used = replace(data, labels=labels).used
    np.testing.assert_array_equal(used, ~empty)


def test_retrieval_agrees_with_single_labels_and_takes_several():
    data = make_windows(300, 3)
    same = retrieval_quality(data.with_several(), samples=0)
    assert same == retrieval_quality(data, samples=0)
    rng = np.random.default_rng(0)
    presence = rng.random((300, 3)) < 0.4
    embeds = presence @ rng.standard_normal((3, 8)) * 3 + rng.standard_normal((300, 8))
    several = replace(data, labels=presence, embeds=embeds.astype(np.float32))
    overall = retrieval_quality(several, samples=0)["overall"]
    assert overall["neighbour_precision"] > overall["neighbour_precision_chance"] + 0.1


def test_background_is_a_class_if_wanted():
    data = make_windows(900, 3)
    labels = np.where(data.labels == 2, NO_LABEL, data.labels)
    truth = {"label:species": labels, "label_dict:species": {"a": 0, "b": 1}}
    settings = {"recordings": data.recordings, "bootstrap_samples": 0}
    _, columns, metrics = bacpipe.probing_pipeline(
        "points", truth, data.embeds, background_class=True, **settings
    )
    assert list(columns) == ["a", "b", "other"]
    assert metrics["per_class"]["other"]["f1"] > 0.8
    truth["label_dict:species"] = {"a": 0, "other": 1}
    with pytest.raises(bacpipe.errors.EvaluationError, match="annotations of that name"):
        bacpipe.probing_pipeline("points", truth, data.embeds, background_class=True, **settings)
