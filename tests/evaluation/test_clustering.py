"""Clusterings, and what is said about them."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as reference
from sklearn.cluster import HDBSCAN, KMeans

import bacpipe
from bacpipe.errors import EvaluationError, SettingsError, TooLittleDataError
from bacpipe.evaluation.labelled_clusters import adjusted_scores, halves_of
from bacpipe.evaluation.metrics import interval
from bacpipe.options import make_options
from tests.evaluation.conftest import as_ground_truth, make_windows


def test_clusters_are_those_of_scikit_learn_and_the_same_every_time():
    data = make_windows(300, 4)
    configs = {
        "kmeans": {"n_clusters": 4, "n_init": 3},
        "hdbscan": {"min_cluster_size": 10},
        "agglomerative_clustering": {"n_clusters": 3},
        "mine": KMeans(2, n_init=1, random_state=0),
    }
    found = bacpipe.run_clustering(data.embeds, configs)
    again = bacpipe.run_clustering(data.embeds, configs)
    expected = KMeans(4, n_init=3, random_state=bacpipe.settings.evaluation_seed)
    np.testing.assert_array_equal(found["kmeans"], expected.fit_predict(data.embeds))
    assert list(found) == list(configs)
    for name, clusters in found.items():
        assert clusters.shape == (300,) and clusters.dtype == np.int32
        np.testing.assert_array_equal(clusters, again[name])


@pytest.mark.parametrize("as_dict", [True, False])
def test_null_means_as_many_clusters_as_labels(as_dict):
    data = make_windows(300, 5)
    truth = as_ground_truth(data) if as_dict else data.labels
    found = bacpipe.run_clustering(data.embeds, {"kmeans": {"n_clusters": None}}, "species", truth)
    assert len(set(found["kmeans"])) == 5


@pytest.mark.parametrize(
    ("configs", "message"),
    [
        ({"kmean": {}}, "did you mean 'kmeans'"),
        ({"kmeans": {"n_cluster": 3}}, "did you mean 'n_clusters'"),
        ({"kmeans": {"n_clusters": 30}}, "n_clusters=30, but there are only 20 windows"),
        ({"hdbscan": {"min_cluster_size": 21}}, "min_cluster_size=21, but there are only 20"),
        ({"kmeans": {"n_clusters": None}}, "there are 0 labels"),
    ],
)
def test_what_cannot_be_clustered_is_a_sentence(configs, message):
    with pytest.raises(EvaluationError, match=message):
        bacpipe.run_clustering(make_windows(20).embeds, configs)


def test_perfect_clusters_score_one_and_random_ones_zero():
    data = make_windows(2000, 4)
    rng = np.random.default_rng(1)  # another seed than the labels'
    clusterings = {"perfect": 3 - data.labels, "random": rng.integers(0, 4, 2000)}
    result = bacpipe.eval_clustering(clusterings, data.labels)
    perfect = result["agreement"]["perfect"]["ground_truth"]
    for name in ("AMI", "ARI", "homogeneity", "completeness"):
        assert perfect[name] == pytest.approx(1)
        chance = result["agreement"]["random"]["ground_truth"][name]
        assert chance == pytest.approx(0, abs=0.01)


def test_scores_are_those_of_scikit_learn_for_windows_with_a_label():
    data = make_windows(500, 4, separation=0.7)
    labels = np.where(np.arange(500) < 100, -1, data.labels)
    sites = np.array([name.split("/")[0] for name in data.recordings], dtype=object)
    sites[:50] = None
    clusters = bacpipe.run_clustering(data.embeds, {"kmeans": {"n_clusters": 6}})
    result = bacpipe.eval_clustering(
        clusters,
        {"label:species": labels},
        default_labels={
            "site": sites,
            "constant": np.zeros(500),
            "unique": np.arange(500),
        },
        label_column="species",
    )
    found = result["agreement"]["kmeans"]
    assert list(found) == ["ground_truth", "site"]
    for kind, use, truth in (
        ("ground_truth", labels >= 0, labels),
        ("site", np.arange(500) >= 50, sites),
    ):
        pair = truth[use].astype(str), clusters["kmeans"][use]
        assert found[kind]["AMI"] == pytest.approx(reference.adjusted_mutual_info_score(*pair))
        assert found[kind]["ARI"] == pytest.approx(reference.adjusted_rand_score(*pair))
        assert found[kind]["homogeneity"] == pytest.approx(reference.homogeneity_score(*pair))
        assert found[kind]["completeness"] == pytest.approx(reference.completeness_score(*pair))
        assert found[kind]["n_windows"] == use.sum()


@pytest.mark.parametrize("number", range(12))
def test_agreement_is_that_of_scikit_learn_for_few_windows_and_one_label_too(number):
    rng = np.random.default_rng(number)
    n = int(rng.integers(2, 40))
    truth = rng.integers(0, 1 + number % 4, n)
    clusters = rng.integers(0, 1 + number % 3, n) if number % 4 else np.arange(n)
    for pair in ((truth, clusters), (truth, 7 - truth), (np.arange(n), np.arange(n)[::-1])):
        expected = reference.adjusted_mutual_info_score(*pair), reference.adjusted_rand_score(*pair)
        assert adjusted_scores(*pair) == pytest.approx(expected, abs=1e-9)


def test_silhouette_is_that_of_scikit_learn_and_says_when_it_is_a_sample(monkeypatch):
    data = make_windows(400, 3)
    result = bacpipe.eval_with_silhouette(data.embeds, data.labels, {"other": 1})
    assert result["other"] == 1
    assert result["silhouette"]["score"] == pytest.approx(
        reference.silhouette_score(data.embeds, data.labels)
    )
    assert result["silhouette"]["note"] is None
    monkeypatch.setattr(bacpipe.settings, "max_windows_for_pairs", 150)
    sampled = bacpipe.eval_with_silhouette(data.embeds, data.labels)["silhouette"]
    assert sampled["n_windows"] == 150 and "sample of 150 of 400" in sampled["note"]
    assert sampled["score"] == pytest.approx(result["silhouette"]["score"], abs=0.1)
    assert sampled == bacpipe.eval_with_silhouette(data.embeds, data.labels)["silhouette"]


def test_silhouette_of_one_label_is_not_defined():
    score = bacpipe.eval_with_silhouette(np.eye(5), np.zeros(5, int))["silhouette"]
    assert score["score"] is None and "not defined for 1 label " in score["note"]


def test_the_pipeline_writes_what_it_returns_and_reuses_it(data_set):
    loader = data_set.loader
    truth = bacpipe.ground_truth_by_model("tiny", data_set.audio_dir, paths=loader.paths)
    labels = bacpipe.create_default_labels(paths=loader.paths, model="tiny")
    embeds = loader.embeddings("array")

    def run(**settings):
        return bacpipe.clustering_pipeline(
            "tiny", truth, embeds, loader.paths, default_labels=labels, **settings
        )

    result = run()
    stored = json.loads((loader.paths.clust_path / "clust_results.json").read_text())
    stored.pop("fingerprint")
    assert stored == result
    table = pd.read_parquet(loader.paths.clust_path / "clust_labels.parquet")
    assert list(table) == ["audiofilename", "start", "end", "kmeans", "hdbscan"]
    assert len(table) == len(embeds)
    figure = loader.paths.plot_path / "clustering.png"
    written = figure.stat().st_mtime_ns
    assert run(overwrite=False) == result
    assert figure.stat().st_mtime_ns == written
    run(overwrite=False, clust_configs={"kmeans": {"n_clusters": 2}})
    assert figure.stat().st_mtime_ns != written


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_background_takes_no_cluster_from_the_labels(share):
    data = make_windows(1000, 4, n_recordings=20, separation=3)
    rng = np.random.default_rng(1)
    unlabelled = rng.random(1000) < share
    embeds = data.embeds.copy()
    embeds[unlabelled] = 6 * rng.standard_normal((unlabelled.sum(), 8))
    embeds[:, 0] *= 1000  # one dimension of another scale
    truth = {**as_ground_truth(data), "label:species": np.where(unlabelled, -1, data.labels)}
    result = bacpipe.clustering_pipeline(
        "points", truth, embeds, recordings=data.recordings, evaluate_with_silhouette=False,
        clust_configs={"kmeans": {"n_clusters": None}},
    )  # fmt: skip
    found = result["agreement"]["kmeans"]["ground_truth"]
    assert found["AMI"] > 0.9
    assert result["left_out"] == unlabelled.sum() == 1000 - found["n_windows"]
    assert result["standardised"] is True
    if found["AMI"] < 1:
        assert found["AMI_low"] < found["AMI"] < found["AMI_high"]


def test_a_clustering_that_fails_does_not_stop_the_others(caplog):
    data = make_windows(30, 3)
    configs = {"kmeans": {"n_clusters": 50}, "hdbscan": {"min_cluster_size": 5}}
    result = bacpipe.clustering_pipeline("points", None, data.embeds, clust_configs=configs)
    assert list(result["clusters"]) == ["hdbscan"]
    assert "only 30 windows" in result["skipped"]["kmeans"]
    with pytest.raises(TooLittleDataError, match="only 30 windows"):
        bacpipe.clustering_pipeline(
            "points", None, data.embeds, clust_configs={"kmeans": {"n_clusters": 50}}
        )


def test_intervals_of_silhouettes_are_those_of_leaving_out_recordings():
    from sklearn.metrics import silhouette_score

    data = make_windows(150, 3, n_recordings=10, separation=1.0)
    result = bacpipe.clustering_pipeline(
        "points", data.labels, data.embeds, recordings=data.recordings,
        clust_configs={"kmeans": {"n_clusters": 3}}, evaluate_with_silhouette=True,
    )["silhouette"]["ground_truth"]  # fmt: skip
    x = (data.embeds - data.embeds.mean(axis=0)) / data.embeds.std(axis=0)
    values = [silhouette_score(x, data.labels)]
    for name in np.unique(data.recordings.astype(str)):
        kept = data.recordings != name
        values.append(silhouette_score(x[kept], data.labels[kept]))
    assert result["score"] == pytest.approx(values[0], abs=1e-5)
    bounds = interval(np.array(values), low=-1.0, windows=150)
    assert result["interval"] == pytest.approx(bounds, abs=1e-4)


def test_one_mistake_in_a_nearly_perfect_clustering_is_no_reason_for_despair():
    """Without the recording that it is in, all is right: that is as far as its windows go."""
    data = make_windows(400, 4, separation=8)
    embeds = data.embeds.copy()
    embeds[7] = embeds[np.flatnonzero(data.labels != data.labels[7])[0]]
    found = bacpipe.clustering_pipeline(
        "points", data.labels, embeds, recordings=data.recordings,
        evaluate_with_silhouette=False, clust_configs={"kmeans": {"n_clusters": 4, "n_init": 5}},
    )["agreement"]["kmeans"]["ground_truth"]  # fmt: skip
    assert 0.98 < found["AMI"] < 1
    for name in ("AMI", "ARI"):
        assert 0.5 < found[f"{name}_low"] < found[name] < found[f"{name}_high"] <= 1


def test_intervals_know_that_other_recordings_would_be_clustered_otherwise():
    """Two dimensions divide the windows equally well, and one of them is the label."""
    rng = np.random.default_rng(3)
    labels, recordings = rng.integers(0, 2, 400), np.repeat([f"{i:02}.wav" for i in range(20)], 20)
    label = 2 * labels - 1 + 0.3 * rng.standard_normal(400)
    width = {}
    for name, other in (("fickle", rng.choice([-1, 1], 400)), ("steady", np.zeros(400))):
        points = np.stack([label, other + 0.3 * rng.standard_normal(400)], axis=1)
        result = bacpipe.clustering_pipeline(
            "points", labels, points.astype(np.float32), recordings=recordings,
            clust_configs={"kmeans": {"n_clusters": 2, "n_init": 1}},
            evaluate_with_silhouette=False,
        )["agreement"]["kmeans"]["ground_truth"]  # fmt: skip
        width[name] = [result[f"{m}_high"] - result[f"{m}_low"] for m in ("AMI", "ARI")]
    assert min(width["fickle"]) > 0.6 and max(width["steady"]) < 0.3


def test_intervals_of_silhouettes_of_clusters_are_those_of_half_of_the_recordings():
    from sklearn.metrics import silhouette_score

    data = make_windows(150, 3, n_recordings=10, separation=1.0)
    config = {"kmeans": {"n_clusters": 3, "n_init": 2}}
    result = bacpipe.clustering_pipeline(
        "points", data.labels, data.embeds, recordings=data.recordings, clust_configs=config,
        evaluate_with_silhouette=True,
    )["silhouette"]["kmeans"]  # fmt: skip
    x = (data.embeds - data.embeds.mean(axis=0)) / data.embeds.std(axis=0)
    rows = [np.arange(150), *map(np.flatnonzero, halves_of(data.recordings, 1000))]
    values = [
        silhouette_score(x[here], bacpipe.run_clustering(x[here], config)["kmeans"])
        for here in rows
    ]
    bounds = interval(np.array(values), low=-1.0, windows=150, left_out=0.5)
    assert result["interval"] == pytest.approx(bounds, abs=1e-4)


def test_silhouettes_of_clusterings_with_noise_have_no_interval():
    data = make_windows(150, 3, n_recordings=10, separation=1.0)
    result = bacpipe.clustering_pipeline(
        "points", data.labels, data.embeds, recordings=data.recordings,
        clust_configs={"hdbscan": {"min_cluster_size": 5}}, evaluate_with_silhouette=True,
    )  # fmt: skip
    assert result["clusters"]["hdbscan"]["share_of_noise"] > 0
    assert result["silhouette"]["hdbscan"]["score"] is not None
    assert result["silhouette"]["hdbscan"]["interval"] is None


def test_without_samples_or_recordings_enough_clusterings_have_no_interval():
    data = make_windows(120, 3, n_recordings=10, separation=1.0)
    few = np.where(np.arange(120) < 60, "a.wav", "b.wav")
    for recordings, samples in ((data.recordings, 0), (few, 100)):
        result = bacpipe.clustering_pipeline(
            "points", data.labels, data.embeds, recordings=recordings, bootstrap_samples=samples,
            clust_configs={"kmeans": {"n_clusters": 3}}, evaluate_with_silhouette=True,
        )  # fmt: skip
        assert result["agreement"]["kmeans"]["ground_truth"]["AMI_low"] is None
        assert result["silhouette"]["kmeans"]["interval"] is None


@pytest.mark.parametrize(
    ("clustering", "labels", "with_silhouette", "fits"),
    [
        # All windows, the labelled ones, and 20 halves of each of which an interval is told.
        ("kmeans", 3, True, 1 + 1 + 20 + 20),
        ("kmeans", 3, False, 1 + 1 + 20),
        ("hdbscan", 3, True, 1 + 1 + 20),  # noise: its silhouette has no interval
        ("kmeans", 1, False, 1),
        ("kmeans", 1, True, 1 + 20),
    ],
)
def test_only_what_is_told_is_clustered(monkeypatch, clustering, labels, with_silhouette, fits):
    data = make_windows(150, 3, n_recordings=10, separation=1.0)
    known = np.where((np.arange(150) % 3 == 0) | (data.labels >= labels), -1, data.labels)
    config = {"kmeans": {"n_clusters": 3, "n_init": 1}, "hdbscan": {"min_cluster_size": 5}}
    clustered = []
    for kind in (KMeans, HDBSCAN):
        plain = kind.fit_predict
        monkeypatch.setattr(
            kind, "fit_predict", lambda *args, plain=plain: clustered.append(1) or plain(*args)
        )
    result = bacpipe.clustering_pipeline(
        "points", known, data.embeds, recordings=data.recordings,
        clust_configs={clustering: config[clustering]}, evaluate_with_silhouette=with_silhouette,
    )  # fmt: skip
    assert len(clustered) == fits
    assert any("clustered alone" in note for note in result["notes"]) == (labels > 1)


def test_halves_are_the_same_recordings_for_every_model():
    recordings = np.repeat([f"{i:02}.wav" for i in range(11)], 3)
    mine = halves_of(recordings, 1000)
    theirs = halves_of(recordings[::-1], 1000)
    assert len(mine) == 20 and len({tuple(half) for half in mine}) > 10
    for one, other in zip(mine, theirs, strict=True):
        assert len(set(recordings[one])) == 6
        assert set(recordings[one]) == set(recordings[::-1][other])
        assert not set(recordings[one]) & set(recordings[~one])
    assert len(halves_of(recordings, 3)) == 3
    assert halves_of(recordings[:12], 1000) == []


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"kmeans": {"n_clusters": 0}}, "kmeans.*n_clusters"),
        ({"kmeans": {"n_clusters": "five"}}, "kmeans.*n_clusters"),
        ({"hdbscan": {"min_cluster_size": 1}}, "hdbscan.*min_cluster_size"),
        ({"dbscan": {"eps": -1.0}}, "dbscan.*eps"),
        ({"feature_agglomeration": {}}, "there is no clustering"),
    ],
)
def test_impossible_values_are_told_before_anything_is_computed(config, problem):
    with pytest.raises(SettingsError, match=problem):
        make_options(clust_configs=config)


def test_values_that_do_not_go_together_cost_one_clustering(caplog):
    data = make_windows(60, 3)
    configs = {
        "kmeans": {"n_clusters": 3},
        "agglomerative_clustering": {"n_clusters": 2, "linkage": "ward", "metric": "cosine"},
    }
    result = bacpipe.clustering_pipeline(
        "points", as_ground_truth(data), data.embeds, clust_configs=configs, bootstrap_samples=0
    )
    assert list(result["clusters"]) == ["kmeans"]
    assert "'agglomerative_clustering' is not possible" in caplog.text


def test_labels_are_of_as_many_windows_as_embeddings():
    embeds, labels = make_windows(60, 3).embeds, np.arange(60) % 3
    for call in (
        lambda: bacpipe.eval_with_silhouette(embeds, labels[:40]),
        lambda: bacpipe.eval_with_silhouette(embeds[:40], labels),
        lambda: bacpipe.run_clustering(embeds, {"kmeans": {"n_clusters": 3}}, None, labels[:41]),
        lambda: bacpipe.eval_clustering({"kmeans": labels}, labels, embeds=embeds[:50]),
    ):
        with pytest.raises(EvaluationError, match=r"but there are [0-9]+ embeddings"):
            call()
    with pytest.raises(EvaluationError, match="not finite"):
        bacpipe.eval_with_silhouette(np.full((60, 3), np.nan), labels)
