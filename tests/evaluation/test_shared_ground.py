"""Models compared in pairs, on the classes and recordings that they share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, f1_score, precision_recall_curve

import bacpipe
from bacpipe.evaluation.clustering import evaluate_clusterings
from bacpipe.evaluation.comparison import compare_models
from bacpipe.evaluation.cross_validation import cross_validate, paired_difference
from bacpipe.evaluation.learning_curve import learning_curve
from bacpipe.evaluation.metrics import (
    decide,
    group_by,
    precision_threshold,
    score_replicates,
)
from bacpipe.evaluation.probing import evaluate_probe
from bacpipe.evaluation.retrieval import evaluate_retrieval
from bacpipe.evaluation.shared_ground import letters, on_shared_ground, paired_table
from bacpipe.evaluation.tested_windows import TestedWindows
from bacpipe.options import make_options
from bacpipe.store.data_set_folder import result_paths
from bacpipe.store.fingerprints import read_result
from tests.evaluation.conftest import as_ground_truth, make_windows

CLASSES = ("a", "b", "c")


def scored(strength, *, recordings=12, seed=0, shared=0, classes=CLASSES) -> TestedWindows:
    """Scores of a model; what `shared` draws is the same for all models."""
    common, own = np.random.default_rng(shared), np.random.default_rng(seed + 100)
    n = 20 * recordings
    labels = common.integers(0, len(classes), n)
    hard = common.standard_normal((n, len(classes)))
    scores = strength * np.eye(len(classes))[labels] + hard
    scores += 0.3 * own.standard_normal((n, len(classes)))
    names = np.repeat([f"{i:02}.wav" for i in range(recordings)], 20).astype(object)
    return TestedWindows(tuple(classes), labels, scores, names)


def result(model, windows, **more):
    recordings = sorted(set(windows.recordings))
    split = {
        "id": str(hash(tuple(recordings))),
        "strategy": "recording",
        "windows": {"train": 0, "val": 0, "test": len(windows.labels)},
        "recordings": {"test": len(recordings)},
    }
    return {"model": model, "probe": "linear", "classes": list(windows.classes), "split": split,
            "dropped": {}, **more}  # fmt: skip


def share(**models):
    return on_shared_ground([result(m, w) for m, w in models.items()], list(models.values()))


def f1(windows):
    groups = group_by(None, len(windows.labels))
    decisions = decide(windows.labels, windows.scores)
    weights = np.ones((1, len(windows.labels)))
    return score_replicates(*decisions, windows.scores, groups, weights)[0]["f1_macro"][0]


def test_a_pair_is_told_apart_where_single_intervals_overlap():
    better, worse, same = scored(2.4, seed=1), scored(1.9, seed=2), scored(2.4, seed=3)
    shared = share(better=better, worse=worse, same=same)
    table = paired_table(shared)
    pair = table.set_index(["metric", "better", "other"]).loc[
        ("f1_macro", "better (linear)", "worse (linear)")
    ]
    assert pair["difference"] == pytest.approx(f1(better) - f1(worse))
    assert pair["low"] > 0 and pair["probability"] > 0.99
    of_equals = table[
        (table["metric"] == "f1_macro")
        & table["better"].str.contains("better|same")
        & table["other"].str.contains("better|same")
    ]
    assert 0.5 <= of_equals["probability"].iloc[0] < 0.975
    by_name = letters(table, ["better (linear)", "same (linear)", "worse (linear)"])
    assert set(by_name["better (linear)"]) & set(by_name["same (linear)"])
    assert not set(by_name["better (linear)"]) & set(by_name["worse (linear)"])


def test_equal_models_are_rarely_told_apart():
    told = []
    for seed in range(60):
        one, other = (scored(1.5, recordings=8, seed=2 * seed + i, shared=seed) for i in (0, 1))
        table = paired_table(share(one=one, other=other))
        told.append(table.loc[table["metric"] == "f1_macro", "p"].iloc[0] < 0.05)
    assert np.mean(told) <= 0.12


def test_letters_of_a_chain():
    """a and b, b and c cannot be told apart, but a and c can."""
    pairs = pd.DataFrame(
        [("f1_macro", *pair) for pair in (("a", "b", 0.4), ("b", "c", 0.3), ("a", "c", 0.01))],
        columns=["metric", "better", "other", "p"],
    )
    assert letters(pairs, ["a", "b", "c"]) == {"a": "a", "b": "ab", "c": "b"}


def test_scores_are_those_of_the_shared_classes_and_recordings():
    every, few = scored(1.5), scored(1.5, seed=1).of(("a", "b"), {f"{i:02}.wav" for i in range(8)})
    shared = share(every=every, few=few)
    assert shared.rankable
    part = every.of(("a", "b"), set(few.recordings))
    assert shared.results[0]["overall"]["f1_macro"] == pytest.approx(f1(part))
    assert shared.results[0]["classes"] == ["a", "b"]
    assert shared.results[0]["split"]["recordings"]["test"] == 8
    told = " ".join(shared.notes)
    assert "c is left out of the ranking: few was not tested with it" in told
    assert "4 recordings left out" in told and "08.wav" in told


def test_labels_that_no_model_was_tested_with_are_named():
    windows = scored(1.5)
    rare = {"wren": "labelled in 1 recording; training, validation and test need one each"}
    one, other = (result(name, windows, dropped=rare | more) for name, more in
                  (("one", {}), ("other", {"owl": "labelled in 2 recordings"})))  # fmt: skip
    (note,) = on_shared_ground([one, other], [windows] * 2).notes
    assert note.startswith("The models were tested with 3 of 4 labels; left out: wren (labelled")
    assert "owl" not in note
    assert share(one=windows, other=windows).notes == []


@pytest.mark.parametrize("classes", [("a",), ("a", "b")])
def test_too_little_in_common_is_no_ranking(classes):
    recordings = {"00.wav"} if len(classes) == 2 else {f"{i:02}.wav" for i in range(12)}
    shared = share(every=scored(1.5), few=scored(1.5, seed=1).of(classes, recordings))
    assert not shared.rankable and "No ranking" in shared.notes[-1]
    assert paired_table(shared) is None


def test_few_recordings_say_nothing_of_a_difference():
    assert paired_table(share(one=scored(3, recordings=4), other=scored(0, recordings=4))) is None


def test_what_cannot_be_compared_is_named():
    known, unknown = scored(1.5), scored(1.5).of(("a", "b"), {"00.wav", "01.wav"})
    without = result("without", unknown)
    shared = on_shared_ground([result("known", known), without], [known, None])
    assert "not stored" in shared.missing["without"] and len(shared.results) == 1
    several = result("several", known, multi_label=True)
    mixed = on_shared_ground([result("x", known), result("y", known), several], [known] * 3)
    assert "several labels" in mixed.missing["several"]
    nothing = result("everything", known)
    nothing["split"]["windows"]["test"] = 0
    assert "not tested" in on_shared_ground([nothing], [None]).missing["everything"]


def points(data, **settings):
    return bacpipe.probing_pipeline(
        "points", as_ground_truth(data), data.embeds, recordings=data.recordings,
        bootstrap_samples=0, **settings,
    )  # fmt: skip


def test_cross_validation_tests_every_recording_once_per_repetition():
    data = make_windows(600, 3, n_recordings=15, separation=0.6)
    metrics = points(
        data, splits="5 x 2", learning_curve=False, probe_configs={"linear": {"penalty": 0.01}}
    )[2]
    repeated = metrics["cross_validation"]
    assert repeated["splits"] == "5 x 2" and len(repeated["folds"]) == 10
    for repetition in (0, 1):
        of = [fold for fold in repeated["folds"] if fold["repetition"] == repetition]
        assert sum(fold["windows"] for fold in of) == 600
    mean = np.mean([fold["accuracy"] for fold in repeated["folds"]])
    assert repeated["overall"]["accuracy"] == pytest.approx(mean)
    low, high = repeated["intervals"]["accuracy"]
    naive = 2 * np.std([fold["accuracy"] for fold in repeated["folds"]], ddof=1) / np.sqrt(10)
    assert low < mean - naive < mean < mean + naive < high
    with pytest.raises(bacpipe.errors.SettingsError, match="k x r"):
        points(data, splits="2 x 2")


def test_what_is_tuned_never_sees_the_tested_part():
    fold = np.arange(60) % 5
    seen = []

    def fit(train, val):
        def scores(test):
            seen.append((set(fold[train]), set(fold[val]), set(fold[test])))
            return np.eye(2)[np.arange(60) % 2][test]

        return scores

    perfect = cross_validate(np.arange(60) % 2, [fold], 5, fit)
    assert perfect["overall"]["f1_macro"] == 1 and perfect["intervals"]["f1_macro"] is None
    assert len(seen) == 5
    for train, val, test in seen:
        assert len(test) == len(val) == 1 and len(train) == 3
        assert not train & test and not val & test and not train & val
    assert paired_difference(perfect, perfect, "f1_macro") is None


def test_a_probe_of_everything_is_not_tested_and_says_so(data_set):
    truth = bacpipe.ground_truth_by_model("tiny", **data_set.places)
    rare = truth["label:species"].copy()
    rare[np.flatnonzero(rare == 2)[2:]] = -1  # a class in one recording can still be learnt
    truth["label:species"] = rare
    embeds = data_set.loader.embeddings("array")
    probe, columns, metrics = bacpipe.probing_pipeline(
        "tiny", truth, embeds, train_on_everything=True, **data_set.places
    )
    assert list(columns) == ["loud", "quiet", "rising"]
    assert metrics["split"]["windows"]["test"] == 0 and metrics["overall"] == {}
    assert "nothing is left to test" in metrics["notes"][0]
    used = metrics["split"]["windows"]
    assert used["train"] + used["val"] == (rare >= 0).sum()
    assert probe.predict(embeds).shape == (81, 3)


def test_a_learning_curve_says_whether_labels_help():
    data = make_windows(1200, 3, n_recordings=30, separation=0.5)
    curve = points(data)[2]["learning_curve"]
    assert [point["share"] for point in curve["points"]] == [0.125, 0.25, 0.5, 1.0]
    assert curve["points"][0]["windows"] == pytest.approx(curve["points"][-1]["windows"] / 8, 0.1)
    labels = np.repeat([0, 1], 200)
    rising = {0.125: 0.4, 0.25: 0.3, 0.5: 0.2, 1.0: 0.1}

    def fit(rows, wrong):
        def scores(test):
            flip = np.arange(len(test)) % 100 < 100 * wrong
            return np.eye(2)[np.where(flip, 1 - labels[test], labels[test])]

        return scores

    rows = np.arange(400)
    for errors, said in (
        (rising, "would add about 0.10"), (rising, "most of it for x, y"),
        (dict.fromkeys(rising, 0.1), "hardly"),
    ):  # fmt: skip
        curve = learning_curve(
            labels, ["x", "y"], rows, rows, lambda r, s, e=errors: fit(r, e[s]), 0
        )
        assert said in curve["advice"]
        for point in curve["points"]:
            windows = round(200 * point["share"])
            for values in point["per_class"].values():
                expected = {"windows": windows, "f1": pytest.approx(1 - errors[point["share"]])}
                assert values == expected


def test_the_threshold_has_the_wanted_precision():
    data = make_windows(2000, 3, n_recordings=40, separation=0.7)
    metrics = points(data, wanted_precision=0.8, learning_curve=False)[2]
    for values in metrics["per_class"].values():
        assert 0 < values["threshold_at_precision"] < 1
    rng = np.random.default_rng(0)
    positive, score = rng.random(500) < 0.4, rng.random(500).round(2)
    score[positive] = np.sqrt(score[positive]).round(2)
    found = precision_threshold(positive, score, 0.6)
    precision, _, thresholds = precision_recall_curve(positive, score)
    assert found == thresholds[precision[:-1] >= 0.6].min()
    assert set(metrics["per_site"]) == {"site0", "site1", "site2"}
    assert (
        sum(site["windows"] for site in metrics["per_site"].values())
        == (metrics["split"]["windows"]["test"])
    )


def test_the_unit_of_intervals_is_that_of_the_split():
    data = make_windows(900, 3, n_recordings=30, separation=0.7)  # ten recordings a site
    of_sites, of_recordings = (
        bacpipe.probing_pipeline(
            "points", as_ground_truth(data), data.embeds, recordings=data.recordings,
            split=split, learning_curve=False,
        )[2]
        for split in ("site", "recording")
    )  # fmt: skip
    assert of_sites["split"]["recordings"]["test"] == 10
    assert all(interval is None for interval in of_sites["intervals"].values())
    assert any("only 1 site" in note for note in of_sites["notes"])
    assert of_recordings["intervals"]["f1_macro"] is not None


def probed(tmp_path: Path, **models: tuple[float, int]) -> dict[str, Any]:
    """Models with stored probes, by how far apart classes are and a seed."""
    paths = {}
    options = make_options(
        splits="3 x 2", learning_curve=False, probe_configs={"linear": {"penalty": 0.01}}
    )
    for model, (separation, seed) in models.items():
        paths[model] = result_paths(
            Path("field"), model, main_results_dir=tmp_path, embed_parent_dir="embeddings",
            dim_reduc_parent_dir="maps", evaluations_dir="evaluations",
        )  # fmt: skip
        windows = make_windows(600, 3, n_recordings=30, separation=separation)
        noise = np.random.default_rng(seed).standard_normal(windows.embeds.shape)
        embeds = (windows.embeds + 0.1 * noise).astype(np.float32)
        data = replace(windows, model=model, embeds=embeds, paths=paths[model])
        evaluate_probe(data, "linear", options, overwrite=True)
    return paths


def test_letters_and_cross_validations_are_in_the_tables(tmp_path: Path) -> None:
    paths = probed(tmp_path, bad=(0.1, 0), good=(1.0, 1), like=(1.0, 2))
    tables = compare_models(paths, ["probing"], make_options(audio_dir="field"))
    ranking = tables["probing"].set_index("model")
    assert ranking.index[-1] == "bad"
    assert ranking["letters"].to_dict() == {"good": "a", "like": "a", "bad": "b"}
    overview = paths["bad"].overview_path
    pd.testing.assert_series_equal(
        pd.read_csv(overview / "probing.csv").set_index("model")["letters"], ranking["letters"]
    )
    tests = {
        model: read_result(where.probe_path / "probe_results_linear.json")["cross_validation"]
        for model, where in paths.items()
    }
    pairs = tables["probing_pairs"]
    for _, row in pairs.iterrows():
        one, other = (tests[row[side].removesuffix(" (linear)")] for side in ("better", "other"))
        differences = [
            a[row["metric"]] - b[row["metric"]]
            for a, b in zip(one["folds"], other["folds"], strict=True)
        ]
        assert len(differences) == 6
        assert row["cross_validated_difference"] == pytest.approx(np.mean(differences))
        assert (
            row["cross_validated_low"]
            < row["cross_validated_difference"]
            < row["cross_validated_high"]
        )
        sure = row["cross_validated_probability"]
        assert sure > 0.99 if row["other"].startswith("bad") else 0.01 < sure < 0.999
    page = (overview / "report.html").read_text(encoding="utf-8")
    assert "share a letter cannot be told apart" in page


def test_anybody_can_compute_the_scores_from_what_is_stored(tmp_path: Path) -> None:
    where = probed(tmp_path, one=(0.4, 0))["one"].probe_path
    stored = read_result(where / "probe_results_linear.json")
    table = pd.read_parquet(where / "test_scores_linear.parquet")
    assert len(table) == stored["split"]["windows"]["test"]
    assert table["audiofilename"].nunique() == stored["split"]["recordings"]["test"]
    assert (table["site"] == table["audiofilename"].str.split("/").str[0]).all()
    truth, scores = (
        table[[f"{what}: {name}" for name in stored["classes"]]].to_numpy()
        for what in ("label", "score")
    )
    for i, name in enumerate(stored["classes"]):
        values = stored["per_class"][name]
        assert values["support"] == truth[:, i].sum()
        assert values["average_precision"] == pytest.approx(
            average_precision_score(truth[:, i], scores[:, i])
        )
        assert values["f1"] == pytest.approx(f1_score(truth[:, i], scores.argmax(axis=1) == i))
    # The windows of each recording are those of the data.
    windows = make_windows(600, 3, n_recordings=30, separation=0.4)
    for recording, rows in table.groupby("audiofilename"):
        labels = windows.labels[windows.recordings == recording]
        expected = np.bincount(labels, minlength=3)
        assert truth[rows.index].sum(axis=0).tolist() == expected.tolist()


# ---------------------------------------------------------------------- retrieval, clusterings


def stored_of_two(tmp_path: Path, lacking: str) -> tuple[dict[str, Any], list[Any]]:
    """Two models; the second never met one of the labels and one of the recordings."""
    results, data = {}, []
    for model, separation in (("good", 1.0), ("bad", 0.2)):
        windows = make_windows(360, 4, n_recordings=15, separation=separation)
        if model == "bad":
            keep = windows.labels != windows.classes.index(lacking)
            keep &= windows.recordings != sorted(set(windows.recordings))[0]
            windows = replace(windows, labels=np.where(keep, windows.labels, -1))
        paths = result_paths(
            Path("field"), model, main_results_dir=tmp_path, embed_parent_dir="embeddings",
            dim_reduc_parent_dir="maps", evaluations_dir="evaluations",
        )  # fmt: skip
        data.append(replace(windows, model=model, paths=paths))
        options = make_options(clust_configs={"kmeans": {"n_clusters": None}})
        evaluate_retrieval(data[-1], options, overwrite=True)
        evaluate_clusterings(data[-1], {}, options, overwrite=True)
        results[model] = paths
    return results, data


def test_retrieval_and_clusterings_are_compared_on_what_models_share(tmp_path: Path) -> None:
    lacking = make_windows(10, 4).classes[-1]
    paths, (good, bad) = stored_of_two(tmp_path, lacking)
    tables = compare_models(paths, ["clustering"], make_options(audio_dir="field"))
    common = good.classes[:-1]
    places = set(bad.recordings[bad.labels >= 0])
    table = tables["retrieval"].set_index("model")
    assert any(lacking in note for note in tables["retrieval"].attrs["notes"])
    assert any("1 recording left out" in note for note in tables["retrieval"].attrs["notes"])
    # As if the other windows had never been there.
    use = np.isin(good.recordings, sorted(places)) & (good.labels < len(common))
    x = (good.embeds - good.embeds[good.labels >= 0].mean(axis=0)) / good.embeds[
        good.labels >= 0
    ].std(axis=0)
    x = (x / np.linalg.norm(x, axis=1, keepdims=True))[use]
    labels, recordings = good.labels[use], good.recordings[use]
    shares = []
    for row, label, recording in zip(x @ x.T, labels, recordings, strict=True):
        others = np.flatnonzero(recordings != recording)
        shares.append(np.mean(labels[others[np.argsort(-row[others])[:10]]] == label))
    expected = np.mean([np.mean(np.array(shares)[labels == i]) for i in range(len(common))])
    assert table.loc["good", "neighbour_precision"] == pytest.approx(expected, abs=2e-3)
    assert table["n_recordings"].tolist() == [len(places)] * 2
    pair = tables["retrieval_pairs"].iloc[0]
    assert (pair["better"], pair["other"]) == ("good", "bad") and pair["probability"] > 0.99
    assert pair["difference"] == pytest.approx(-table["neighbour_precision"].diff().iloc[1])
    truth = tables["clustering"].set_index("model")
    assert truth["n_labels"].tolist() == [3, 3]
    assert set(truth["n_windows"]) == {int(use.sum()), int((bad.labels >= 0).sum())}
    assert truth.loc["good", "AMI_low"] < truth.loc["good", "AMI"] < truth.loc["good", "AMI_high"]
    assert tables["clustering_pairs"]["better"].tolist() == ["good"]
    # The page says which is better, on what, and how sure that is.
    page = next(tmp_path.rglob("report.html")).read_text(encoding="utf-8")
    assert page.count("<b>good</b> has the highest") == 2
    assert page.count("data:image/svg+xml;base64,") >= 2 and "<script" not in page
    first = tables["retrieval"].iloc[0]
    assert f"for {first['n_windows']:,} windows of {len(places)} recordings" in page
    assert f"the difference is {pair['difference']:.3f} [{pair['low']:.3f}, " in page
    assert "better than bad, the best other model, is &gt; 0.999" in page


def test_clusterings_about_different_labels_are_not_put_side_by_side(tmp_path: Path) -> None:
    windows = make_windows(240, 4, n_recordings=12)
    paths = {}
    for model, labels in (("a", (0, 1)), ("b", (2, 3))):
        paths[model] = result_paths(
            Path("field"), model, main_results_dir=tmp_path, embed_parent_dir="embeddings",
            dim_reduc_parent_dir="maps", evaluations_dir="evaluations",
        )  # fmt: skip
        mine = np.where(np.isin(windows.labels, labels), windows.labels, -1)
        data = replace(windows, model=model, labels=mine, paths=paths[model])
        options = make_options(clust_configs={"kmeans": {"n_clusters": None}})
        evaluate_retrieval(data, options, overwrite=True)
        evaluate_clusterings(data, {}, options, overwrite=True)
    tables = compare_models(paths, ["clustering"], make_options(audio_dir="field"))
    assert tables["retrieval"]["rank"].isna().all() and "retrieval_pairs" not in tables
    assert "clustering" not in tables or "ground_truth" not in set(tables["clustering"]["label"])
