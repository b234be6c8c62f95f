"""Probes: they learn, they load back the same, and nothing of the test set reaches them."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, log_loss
from sklearn.neighbors import KNeighborsClassifier

import bacpipe
from bacpipe.errors import (
    BacpipeError,
    EvaluationError,
    ResultsError,
    ResultsNotFoundError,
    SettingsError,
    TooLittleDataError,
)
from bacpipe.evaluation import probes
from bacpipe.evaluation.probes import TrainingData, make_probe
from bacpipe.options import make_options
from tests.evaluation.conftest import as_ground_truth, make_windows

PROBES = ["linear", "knn"]


def ground_truth(data_set):
    return bacpipe.ground_truth_by_model("tiny", data_set.audio_dir, paths=data_set.loader.paths)


def probe_points(data, name="linear", **settings):
    return bacpipe.probing_pipeline(
        "points",
        as_ground_truth(data),
        data.embeds,
        name=name,
        recordings=data.recordings,
        bootstrap_samples=0,
        **settings,
    )[2]


def train(name, data, n_train=400, **parameters):
    probe = make_probe(name, data.embeds.shape[1], data.classes, parameters)
    rows = np.arange(len(data.labels))
    n_classes = len(data.classes)
    training = TrainingData(data.embeds, data.labels, rows[:n_train], rows[n_train:500], n_classes)
    probe.learn(training, seed=0)
    return probe


@pytest.mark.parametrize("name", PROBES)
def test_separable_classes_are_learned_and_shuffled_labels_are_not(name):
    data = make_windows(2000, 4, n_recordings=40)
    assert probe_points(data, name)["overall"]["accuracy"] > 0.95
    shuffled = np.random.default_rng(0).permutation(data.labels)
    chance = probe_points(data.__class__(**{**vars(data), "labels": shuffled}), name)
    assert chance["overall"]["accuracy"] == pytest.approx(0.25, abs=0.08)
    assert chance["overall"]["roc_auc_macro"] == pytest.approx(0.5, abs=0.08)


def test_recordings_that_tell_the_label_do_not_help():
    """A recording's own background says nothing about other recordings, so it must not pay."""
    rng = np.random.default_rng(0)
    recording = np.repeat(np.arange(60), 20)
    labels = rng.integers(0, 2, 60)[recording]
    data = make_windows(1200, 2)
    background = rng.standard_normal((60, 32))[recording]
    noise = 0.1 * rng.standard_normal((1200, 32))
    data = data.__class__(
        **{
            **vars(data),
            "labels": labels,
            "embeds": (background + noise).astype(np.float32),
            "recordings": np.array([f"{r}.wav" for r in recording], dtype=object),
        }
    )
    honest = probe_points(data, "knn", split="recording", probe_configs={"knn": {"n_neighbors": 1}})
    leaking = probe_points(data, "knn", split="random", probe_configs={"knn": {"n_neighbors": 1}})
    assert leaking["overall"]["accuracy"] > 0.95
    assert honest["overall"]["accuracy"] < 0.8


@pytest.mark.parametrize("solver", ["lbfgs", "adam"])
@pytest.mark.parametrize("weight", ["balanced", "none"])
def test_linear_probe_agrees_with_logistic_regression(solver, weight):
    data = make_windows(600, 4, separation=0.8)
    slow = {"weight_decay": 0.0, "max_epochs": 200, "learning_rate": 0.01}
    quick = {"penalty": 1 / 400}
    chosen = slow if solver == "adam" else quick
    mine = train("linear", data, solver=solver, class_weight=weight, **chosen)
    x = (data.embeds - data.embeds[:400].mean(axis=0)) / data.embeds[:400].std(axis=0)
    theirs = LogisticRegression(
        C=1e4 if solver == "adam" else 1,
        max_iter=1000,
        class_weight=None if weight == "none" else weight,
    )
    theirs.fit(x[:400], data.labels[:400])
    found, expected = mine.predict(data.embeds[500:]), theirs.predict_proba(x[500:])
    assert np.mean(found.argmax(1) == expected.argmax(1)) >= 0.94
    truth = data.labels[500:]
    assert log_loss(truth, found) <= log_loss(truth, expected) + 0.05


@pytest.mark.parametrize("weight", ["balanced", "none"])
def test_linear_probe_is_fitted_to_training_and_validation_windows_together(weight):
    data = make_windows(900, 3, separation=0.7)
    rare = (data.labels != 2) | (np.arange(900) % 6 == 0)
    embeds, labels = data.embeds[rare], data.labels[rare]
    probe = make_probe("linear", 8, data.classes, {"penalty": 0.01, "class_weight": weight})
    rows = np.arange(300)
    probe.learn(TrainingData(embeds, labels, rows[:100], rows[100:], 3), seed=0)
    x = (embeds - embeds[:300].mean(axis=0)) / embeds[:300].std(axis=0)
    theirs = LogisticRegression(
        C=1 / (0.01 * 300), max_iter=1000, class_weight=None if weight == "none" else weight
    ).fit(x[:300], labels[:300])
    np.testing.assert_allclose(
        probe.predict(embeds[300:]), theirs.predict_proba(x[300:]), atol=0.005
    )


def test_the_penalty_is_that_which_does_best_on_the_validation_windows():
    """What was learnt by heart does not help there, what is true does."""
    data = make_windows(600, 4, separation=2.0)
    noise = np.random.default_rng(0).permutation(data.labels)
    rows, chosen = np.arange(600), []
    for labels in (noise, data.labels):
        probe = make_probe("linear", 8, data.classes)
        about = probe.learn(TrainingData(data.embeds, labels, rows[:60], rows[60:], 4), seed=0)
        chosen.append(about["penalty"])
    assert chosen[0] > 10 * chosen[1]


@pytest.mark.parametrize(("n", "margin"), [(120, 0.05), (500, 0.02)])
def test_linear_probe_is_as_good_as_a_tuned_logistic_regression(n, margin):
    """Unequal frequencies and scales; scikit-learn gets the penalty that is best in the test."""
    rng = np.random.default_rng(n)
    share = 0.6 ** np.arange(4)
    labels = rng.choice(4, n + 2000, p=share / share.sum())
    x = 0.5 * rng.standard_normal((4, 24))[labels] + rng.standard_normal((n + 2000, 24))
    embeds = (x * np.exp(rng.normal(0, 2, 24)) + rng.normal(0, 5, 24)).astype(np.float32)
    rows = np.arange(n)
    probe = make_probe("linear", 24, list("abcd"))
    training = TrainingData(embeds, labels, rows[: int(0.8 * n)], rows[int(0.8 * n) :], 4)
    about = probe.learn(training, seed=0)
    assert about["converged"]
    x = (embeds - embeds[:n].mean(axis=0)) / embeds[:n].std(axis=0)
    truth, found = labels[n:], probe.predict(embeds[n:])
    precision = average_precision_score(np.eye(4)[truth], found)
    best = []
    for c in (1e-3, 1e-2, 0.1, 1, 10):
        theirs = LogisticRegression(C=c, max_iter=1000, class_weight="balanced")
        theirs.fit(x[:n], labels[:n])
        scores = theirs.predict_proba(x[n:])
        best.append((theirs.score(x[n:], truth), average_precision_score(np.eye(4)[truth], scores)))
    assert np.mean(found.argmax(1) == truth) > max(a for a, _ in best) - margin
    assert precision > max(p for _, p in best) - margin


def test_a_probe_that_did_not_converge_says_so(caplog):
    data = make_windows(600, 4, separation=0.5)
    probe_points(data, probe_configs={"linear": {"solver": "adam", "max_epochs": 2}})
    assert "not converged" in caplog.text


def test_the_usual_solver_says_so_too(caplog, monkeypatch):
    monkeypatch.setattr(probes, "_MOST_ITERATIONS", 2)
    metrics = probe_points(
        make_windows(600, 4, separation=0.5), probe_configs={"linear": {"penalty": 1e-4}}
    )
    assert metrics["training"]["converged"] is False
    assert "not converged after 2 iterations" in caplog.text


def test_what_a_solver_does_not_read_is_said(caplog):
    probe_points(make_windows(600, 2), probe_configs={"linear": {"batch_size": 8}})
    assert "only solver: adam reads batch_size" in caplog.text


@pytest.mark.parametrize("name", PROBES)
def test_windows_may_have_several_labels_or_none(name):
    rng = np.random.default_rng(0)
    truth = rng.random((900, 3)) < 0.4
    embeds = truth @ rng.standard_normal((3, 16)) * 2 + rng.standard_normal((900, 16))
    embeds = embeds.astype(np.float32)
    probe = make_probe(name, 16, list("abc"), multi_label=True)
    probe.learn(TrainingData(embeds, truth, np.arange(500), np.arange(500, 700), 3), seed=0)
    scores = probe.predict(embeds[700:])
    for i in range(3):
        assert average_precision_score(truth[700:, i], scores[:, i]) > 0.85
    nothing = ~truth[700:].any(axis=1)
    assert (scores[nothing] < 0.5).all(axis=1).mean() > 0.6


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_knn_probe_agrees_with_scikit_learn(metric):
    data = make_windows(600, 4, separation=0.8)
    mine = train("knn", data, n_neighbors=7, metric=metric)
    x = (data.embeds - data.embeds[:400].mean(axis=0)) / data.embeds[:400].std(axis=0)
    theirs = KNeighborsClassifier(7, metric=metric).fit(x[:400], data.labels[:400])
    assert mine.predict(data.embeds[500:]) == pytest.approx(theirs.predict_proba(x[500:]), abs=1e-6)


def test_knn_makes_do_with_fewer_windows_than_neighbours():
    scores = train("knn", make_windows(600, 2), n_train=3, n_neighbors=15).predict(np.zeros((1, 8)))
    assert scores.sum() == pytest.approx(1)


def test_the_same_seed_gives_the_same_result():
    data = make_windows(600, 4, separation=0.5)
    first, again = probe_points(data), probe_points(data)
    assert first == again


def test_everything_is_written_and_is_plain(data_set):
    paths = data_set.loader.paths
    probe, label2index, result = bacpipe.probing_pipeline(
        "tiny", ground_truth(data_set), data_set.loader.embeddings("array"), paths=paths
    )
    assert isinstance(probe, torch.nn.Module)
    assert list(label2index.items()) == [("loud", 0), ("quiet", 1), ("rising", 2)]
    written = {path.name for path in paths.probe_path.iterdir()}
    assert written == {
        "linear_probe.safetensors",
        "linear_probe.json",
        "label2index.json",
        "probe_results_linear.json",
        "confusion_matrix_linear.png",
        "per_class_linear.png",
        "precision_recall_linear.svg",
        "reliability_linear.svg",
        "learning_curve_linear.svg",
        "test_scores_linear.parquet",
    }
    stored = json.loads((paths.probe_path / "probe_results_linear.json").read_text())
    stored.pop("fingerprint")
    assert stored == result
    assert result["overall"]["accuracy"] > 0.8
    assert np.sum(result["confusion_matrix"]) == result["split"]["windows"]["test"]
    table = pd.read_csv(paths.labels_path / "probing_dataframe.csv")
    assert list(table) == ["audiofilename", "start", "end", "label:species", "set"]
    assert table.groupby("audiofilename")["set"].nunique().max() == 1
    assert table["set"].value_counts().to_dict() == result["split"]["windows"]


@pytest.mark.parametrize("name", PROBES)
def test_a_saved_probe_predicts_exactly_the_same(data_set, name):
    loader = data_set.loader
    embeds = loader.embeddings("array")
    _, _, result = bacpipe.probing_pipeline(
        "tiny", ground_truth(data_set), embeds, paths=loader.paths, name=name
    )
    probe, label2index = bacpipe.prepare_probe_inference("tiny", loader.paths.probe_path, name=name)
    assert isinstance(probe, torch.nn.Module)
    assert list(label2index) == result["classes"]
    scores = bacpipe.run_probe_inference("tiny", probe, 0.5, embeds, return_binary_presence=False)
    table = pd.read_csv(loader.paths.labels_path / "probing_dataframe.csv")
    truth = ground_truth(data_set)["label:species"]
    rows = np.flatnonzero(truth >= 0)[(table["set"] == "test").to_numpy()]
    confusion = np.zeros((len(label2index),) * 2, int)
    np.add.at(confusion, (truth[rows], scores[rows].argmax(axis=1)), 1)
    assert confusion.tolist() == result["confusion_matrix"]
    again, _ = bacpipe.prepare_probe_inference("tiny", loader.paths.probe_path, name=name)
    np.testing.assert_array_equal(scores, again.predict(embeds))


def test_probe_inference_takes_what_is_stored_and_counts(data_set):
    loader = data_set.loader
    embeds = loader.embeddings("array")
    bacpipe.probing_pipeline("tiny", ground_truth(data_set), embeds, paths=loader.paths)
    probe, _ = bacpipe.prepare_probe_inference("tiny", **data_set.places)
    seen: list[int] = []
    presence = bacpipe.run_probe_inference(
        "tiny", probe, 0.6, callbacks=seen.append, **data_set.places
    )
    assert presence.dtype == bool and presence.shape == (len(embeds), 3)
    assert seen == sorted(seen) and seen[-1] == len(embeds)
    scores = bacpipe.run_probe_inference(
        "tiny", probe, 0.6, torch.from_numpy(embeds), return_binary_presence=False
    )
    np.testing.assert_array_equal(presence, scores >= 0.6)
    parts = loader.embeddings()  # by recording
    again = bacpipe.run_probe_inference("tiny", probe, np.float64(0.6), parts)
    np.testing.assert_array_equal(again, presence)
    with pytest.raises(SettingsError, match="threshold"):
        bacpipe.run_probe_inference("tiny", probe, 60, embeds)
    with pytest.raises(EvaluationError, match=r"shape \(windows, 10\)"):
        bacpipe.run_probe_inference("tiny", probe, 0.5, np.zeros((3, 7), np.float32))


def test_a_stored_result_is_reused_until_data_or_settings_change(data_set, caplog):
    loader, truth = data_set.loader, ground_truth(data_set)
    embeds = loader.embeddings("array")

    def run(embeds=embeds, **settings):
        return bacpipe.probing_pipeline(
            "tiny", truth, embeds, paths=loader.paths, overwrite=False, **settings
        )[2]

    first = run()
    probe = loader.paths.probe_path / "linear_probe.safetensors"
    written = probe.stat().st_mtime_ns
    assert run() == first
    assert probe.stat().st_mtime_ns == written
    changed = run(evaluation_seed=7)
    assert changed["split"]["seed"] == 7
    assert probe.stat().st_mtime_ns != written
    written = probe.stat().st_mtime_ns
    run(embeds * 2, evaluation_seed=7)
    assert probe.stat().st_mtime_ns != written


def test_nothing_is_written_for_embeddings_from_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    probe_points(make_windows())
    assert list(tmp_path.iterdir()) == []


def test_a_dictionary_of_embeddings_is_split_by_its_keys():
    data = make_windows(600, 3)
    order = np.argsort(data.recordings.astype(str), kind="stable")
    parts = {
        name: data.embeds[order][data.recordings[order] == name]
        for name in sorted(set(data.recordings))
    }
    truth = {**as_ground_truth(data), "label:species": data.labels[order]}
    result = bacpipe.probing_pipeline("points", truth, parts, bootstrap_samples=0)[2]
    assert sum(result["split"]["recordings"].values()) == len(parts)


def test_constant_dimensions_do_no_harm():
    data = make_windows(600, 3)
    data.embeds[:, 3] = 5.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = probe_points(data)
    assert result["overall"]["accuracy"] > 0.9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "liner"}, "did you mean 'linear'"),
        ({"label_column": "call_type"}, "no labels of the kind 'call_type'.*species"),
        ({"embeds": np.zeros((5, 8), np.float32)}, "5 embeddings, but ground truth for 600"),
        ({"embeds": np.zeros(600, np.float32)}, r"expected numbers of shape \(windows, dim\)"),
        ({"embeds": np.full((600, 8), np.nan, np.float32)}, "not finite, first in row 0"),
        ({"ground_truth": np.zeros((600, 2, 1), int)}, r"expected \(windows,\)"),
        ({"ground_truth": pd.DataFrame({"robin": [2] * 600})}, "columns robin; expected one of 0"),
        ({"recordings": ["a.wav"]}, "recordings names 1 windows"),
    ],
)
def test_what_does_not_fit_is_a_sentence(change, message):
    data = make_windows()
    arguments = {
        "ground_truth": as_ground_truth(data),
        "embeds": data.embeds,
        "recordings": data.recordings,
        **change,
    }
    with pytest.raises(EvaluationError, match=message):
        bacpipe.probing_pipeline("points", **arguments)


def test_too_little_data_leaves_nothing_behind(data_set):
    embeds = data_set.loader.embeddings("array")
    labels = np.full(len(embeds), -1)
    labels[:2] = [0, 1]
    with pytest.raises(TooLittleDataError, match="at least 3 recordings"):
        bacpipe.probing_pipeline("tiny", labels, embeds, paths=data_set.loader.paths)
    assert not data_set.loader.paths.probe_path.exists()


def test_missing_damaged_and_foreign_probes_are_sentences(data_set):
    folder = data_set.loader.paths.probe_path
    with pytest.raises(ResultsNotFoundError, match="train one"):
        bacpipe.prepare_probe_inference("tiny", folder)
    bacpipe.probing_pipeline(
        "tiny",
        ground_truth(data_set),
        data_set.loader.embeddings("array"),
        paths=data_set.loader.paths,
    )
    with pytest.raises(BacpipeError, match="trained on embeddings of tiny, not of birdnet"):
        bacpipe.prepare_probe_inference("birdnet", folder)
    tensors = folder / "linear_probe.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:50])
    with pytest.raises(ResultsError, match="damaged"):
        bacpipe.prepare_probe_inference("tiny", tensors)


@pytest.mark.parametrize(
    ("configs", "message"),
    [
        ({"liner": {}}, "expected one of linear, knn"),
        ({"linear": {"lr": 1}}, "'linear' has the parameters solver"),
        ({"knn": {"n_neighbors": 0}}, "whole number from 1 for 'n_neighbors' of 'knn'"),
    ],
)
def test_impossible_settings_of_probes_are_refused(configs, message):
    with pytest.raises(SettingsError, match=message):
        make_options(probe_configs=configs)


def test_without_validation_windows_a_probe_learns_all_the_same():
    data = make_windows(200, 2, separation=4.0)
    rows = np.arange(200)
    training = TrainingData(data.embeds, data.labels, rows, rows[:0], 2)
    probe = make_probe("linear", 8, data.classes, {"solver": "adam", "max_epochs": 30})
    outcome = probe.learn(training, seed=0)
    assert outcome["best_epoch"] > 0 and outcome["validation_loss"] is None
    scores = probe.predict(data.embeds)
    assert (scores.argmax(axis=1) == data.labels).mean() > 0.95


def test_embeddings_of_ones_own_leave_what_is_stored(data_set, tmp_path):
    truth = ground_truth(data_set)
    settings = {"audio_dir": data_set.audio_dir, "main_results_dir": data_set.results}
    embeds = data_set.loader.embeddings("array")
    bacpipe.probing_pipeline("tiny", truth, embeds, **settings)
    probe = data_set.loader.paths.probe_path / "linear_probe.safetensors"
    written = probe.stat().st_mtime_ns
    bacpipe.probing_pipeline("tiny", truth, embeds[:, :5], overwrite=True, **settings)
    assert probe.stat().st_mtime_ns == written
    bacpipe.probing_pipeline("tiny", truth, embeds, overwrite=True, **settings)
    assert probe.stat().st_mtime_ns != written


def test_single_labels_are_that_in_every_form(data_set):
    settings = {"audio_dir": data_set.audio_dir, "main_results_dir": data_set.results}
    embeds = data_set.loader.embeddings("array")
    found = {
        kind: bacpipe.probing_pipeline(
            "tiny",
            bacpipe.ground_truth_by_model("tiny", return_type=kind, overwrite=True, **settings),
            embeds[:, :9],  # which are not stored
            bootstrap_samples=0,
            **settings,
        )[2]["overall"]
        for kind in ("dict", "array", "dataframe")
    }
    assert found["array"] == found["dict"] == found["dataframe"]
