"""Benchmark of a classifier whose scores are known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import metrics as reference

import bacpipe
from bacpipe.errors import AnnotationsError, EvaluationError
from tests.conftest import SHARED, TinyModel, needs_shared_audio


class OnePass(TinyModel):
    """The same scores, but not from stored embeddings."""

    one_pass = True

    def infer(self, x: torch.Tensor, *, scores: bool = False) -> tuple:
        embeddings = self(x)
        return embeddings, super().classifier_predictions(embeddings) if scores else None

    def classifier_predictions(self, embeddings: torch.Tensor) -> torch.Tensor:
        raise AssertionError("scores must come from infer")


def run(data_set, model=TinyModel, name="tiny", **settings):
    return bacpipe.benchmark(
        name,
        data_set.audio_dir,
        CustomModel=model,
        main_results_dir=data_set.results,
        **{"bootstrap_samples": 20, **settings},
    )


def test_the_result_is_that_of_scikit_learn(data_set, capsys):
    result = run(data_set, classifier_threshold=0.3)
    truth, scores = result["ground_truth"], result["scores"]
    assert result["classes"] == {0: "loud", 1: "quiet"}
    assert truth.shape == scores.shape == (81, 2)
    assert truth.sum(axis=0).tolist() == [18, 18]
    np.testing.assert_array_equal(result["predictions"], scores >= 0.3)
    expected = reference.classification_report(
        truth, scores >= 0.3, target_names=["loud", "quiet"], output_dict=True, zero_division=0
    )
    assert result["report"] == expected
    for i, name in result["classes"].items():
        mine = result["per_class"][name]
        assert mine["average_precision"] == pytest.approx(
            reference.average_precision_score(truth[:, i], scores[:, i])
        )
        assert mine["roc_auc"] == pytest.approx(reference.roc_auc_score(truth[:, i], scores[:, i]))
        best = reference.f1_score(truth[:, i], scores[:, i] >= mine["best_threshold"])
        assert best - 0.5 < mine["best_f1"] <= best
        assert mine["best_f1"] >= mine["f1"]
    assert result["missing"] == ["rising"]
    assert any("rising" in note for note in result["notes"])
    printed = capsys.readouterr().out
    assert "loud" in printed and "average" in printed


def test_scores_are_dense_whatever_the_stored_threshold(data_set):
    strict = run(data_set, classifier_threshold=0.99)
    assert ((strict["scores"] > 0) & (strict["scores"] < 0.5)).any()


def test_models_of_one_pass_give_the_same_scores(data_set):
    two, one = run(data_set), run(data_set, OnePass, "onepass")
    np.testing.assert_allclose(one["scores"], two["scores"], atol=1e-6)


def test_a_second_time_nothing_is_computed_again(data_set, monkeypatch):
    first = run(data_set, OnePass, "onepass")
    monkeypatch.setattr(OnePass, "infer", lambda *_, **__: pytest.fail("computed again"))
    second = run(data_set, OnePass, "onepass")
    np.testing.assert_array_equal(first["scores"], second["scores"])


def test_two_annotated_names_of_one_class_are_one_label(data_set):
    table = data_set.audio_dir / "annotations.csv"
    lines = table.read_text().splitlines()
    lines[1] = lines[1].replace("loud", "LOUD")
    table.write_text("\n".join(lines))
    result = run(data_set)
    assert result["ground_truth"].sum(axis=0).tolist() == [18, 18]
    assert {m["annotation"]: m["how"] for m in result["matching"]} == {
        "LOUD": "spelling",
        "loud": "identical",
        "quiet": "identical",
        "rising": "missing",
    }


class Worse(TinyModel):
    """Hears the same classes, under names of its own, and one more; often mistaken."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.classes = ["Laut", "Leise", "rising"]
        self.scientific_names = ["loud", "quiet", "rising"]

    def classifier_predictions(self, embeddings: torch.Tensor) -> torch.Tensor:
        scores = super().classifier_predictions(embeddings)
        mistaken = (embeddings.abs().sum(dim=1, keepdim=True) * 1e4 % 1) < 0.4
        return torch.cat([torch.where(mistaken, 1 - scores, scores), scores[:, :1]], dim=1)


def test_own_classifiers_are_compared_in_pairs_on_what_they_share(data_set):
    better = run(data_set, classifier_threshold=0.3)
    worse = run(data_set, Worse, "worse", classifier_threshold=0.6)
    assert worse["classes"] == {0: "Laut", 1: "Leise", 2: "rising"}
    tables = bacpipe.cross_model_evaluation(
        "None", "probing", ["tiny", "worse"], audio_dir=data_set.audio_dir,
        main_results_dir=data_set.results,
    )  # fmt: skip
    table = tables["classifiers"].set_index("model")
    # On the classes of both, whatever each calls them; of `worse`, rising is left out.
    for model, result in (("tiny", better), ("worse", worse)):
        precisions = [result["per_class"][n]["average_precision"]
                      for n in list(result["classes"].values())[:2]]  # fmt: skip
        assert table.loc[model, "average_precision_macro"] == pytest.approx(np.mean(precisions))
    assert table["classes"].tolist() == [2, 2] and table["threshold"].to_dict() == {
        "tiny": 0.3, "worse": 0.6,
    }  # fmt: skip
    assert list(table.index) == ["tiny", "worse"] and table["rank"].tolist() == [1, 2]
    assert any("rising is left out" in note for note in tables["classifiers"].attrs["notes"])
    (pair,) = tables["classifiers_pairs"].to_dict("records")
    assert (pair["better"], pair["other"]) == ("tiny", "worse") and pair["probability"] > 0.9
    assert pair["difference"] == pytest.approx(-table["average_precision_macro"].diff().iloc[1])
    assert pair["low"] < pair["difference"] < pair["high"]
    overview = next(data_set.results.rglob("report.html"))
    page = overview.read_text(encoding="utf-8")
    assert "The models&#x27; own classifiers" in page or "The models' own classifiers" in page
    assert (overview.parent / "classifiers_pairs.csv").is_file()


def test_short_calls_are_neither_right_nor_wrong(data_set):
    rows = pd.read_csv(data_set.audio_dir / "annotations.csv")
    loud = rows["label:species"] == "loud"
    rows = rows[loud]
    number = rows["audiofilename"].str.extract(r"rec(\d)")[0].astype(int)
    rows["end"] = rows["end"].where(number % 2 == 0, rows["start"] + 0.4)
    rows.to_csv(data_set.audio_dir / "annotations.csv", index=False)
    result = run(data_set, min_annotation_length=0.65, classifier_threshold=0.3)
    mine = result["per_class"]["loud"]
    use = ~result["ignored"][:, 0]
    assert mine["average_precision"] == pytest.approx(
        reference.average_precision_score(result["ground_truth"][use, 0], result["scores"][use, 0])
    )
    wrong = result["predictions"][:, 0] & ~result["ground_truth"][:, 0] & use
    hits = (result["predictions"][:, 0] & result["ground_truth"][:, 0]).sum()
    assert mine["precision"] == pytest.approx(hits / (hits + wrong.sum()))
    assert result["dropped"] == {"loud": 4}
    assert result["ignored"].sum() == 4
    assert "4 annotations shorter than min_annotation_length=0.65 s" in " ".join(result["notes"])
    assert "nothing else is annotated" not in " ".join(result["notes"])
    counted = run(data_set, classifier_threshold=0.3)  # 0: every annotation counts
    assert counted["dropped"] == {} and not counted["ignored"][:, 0].all()
    assert counted["per_class"]["loud"]["support"] == mine["support"] + 4


def test_what_only_touches_a_window_is_neither_right_nor_wrong(data_set):
    table = data_set.audio_dir / "annotations.csv"
    rows = pd.read_csv(table)
    first = (rows["audiofilename"] == "site0/rec0.wav") & (rows["label:species"] == "loud")
    rows["end"] = rows["end"].astype(float).where(~first, 2.2)  # a fifth of the third window
    rows.to_csv(table, index=False)
    result = run(data_set)
    assert result["ground_truth"][:4, 0].tolist() == [True, True, False, False]
    assert result["ignored"][:4, 0].tolist() == [False, False, True, False]
    assert result["dropped"] == {}


def test_what_is_left_out_is_told_in_the_log_and_counted_right(data_set, caplog):
    rows = pd.read_csv(data_set.audio_dir / "annotations.csv")
    number = rows["audiofilename"].str.extract(r"rec(\d)")[0].astype(int)
    rows["end"] = rows["end"].where(number != 2, rows["start"] + 0.4)  # all of it is too short
    rows[number > 1].to_csv(data_set.audio_dir / "annotations.csv", index=False)
    result = run(data_set, min_annotation_length=0.65)
    assert result["dropped"] == {"loud": 1, "quiet": 1, "rising": 1}
    (silent,) = (note for note in result["notes"] if "have no annotations" in note)
    assert silent.startswith("2 of 9 recordings")
    assert "3 annotations shorter than min_annotation_length=0.65 s" in caplog.text
    assert "loud: 1, quiet: 1, rising: 1" in caplog.text


def test_the_best_threshold_is_judged_on_other_recordings(data_set):
    """Of scores that are chance, the best threshold of the same windows promises too much."""

    class Chance(TinyModel):
        def classifier_predictions(self, embeddings: torch.Tensor) -> torch.Tensor:
            return (embeddings.abs().sum(dim=1, keepdim=True) * torch.tensor([1e4, 3e4])) % 1

    result = run(data_set, Chance, "chance")
    for i, name in result["classes"].items():
        truth, scores = result["ground_truth"][:, i], result["scores"][:, i]
        optimistic = max(reference.f1_score(truth, scores >= t) for t in np.unique(scores))
        assert result["per_class"][name]["best_f1"] < optimistic - 0.01


def test_a_class_of_short_calls_only_is_named(data_set):
    with (data_set.audio_dir / "annotations.csv").open("a") as file:
        file.write("site0/rec0.wav,7,7.2,quiet\n")
    rows = pd.read_csv(data_set.audio_dir / "annotations.csv")
    rows = rows[(rows["label:species"] != "quiet") | (rows["start"] == 7)]
    rows.to_csv(data_set.audio_dir / "annotations.csv", index=False)
    result = run(data_set, min_annotation_length=0.65)
    assert result["per_class"]["quiet"]["average_precision"] is None
    assert "nothing else is annotated of quiet" in " ".join(result["notes"])


def test_one_class_is_enough(data_set):
    table = data_set.audio_dir / "annotations.csv"
    kept = [line for line in table.read_text().splitlines() if "quiet" not in line]
    table.write_text("\n".join(kept))
    result = run(data_set, classifier_threshold=0.3)
    truth, predicted = result["ground_truth"][:, 0], result["predictions"][:, 0]
    assert result["report"]["loud"]["f1-score"] == pytest.approx(
        reference.f1_score(truth, predicted)
    )


def test_what_cannot_be_benchmarked_is_a_sentence(data_set):
    table = data_set.audio_dir / "annotations.csv"
    with pytest.raises(EvaluationError, match=r"has no classifier.*birdnet"):
        bacpipe.benchmark("aves_especies", data_set.audio_dir)
    with pytest.raises(AnnotationsError, match=r"no_such\.csv"):
        run(data_set, annotations_file="no_such.csv")
    table.write_text(table.read_text().replace("loud", "Unicorn").replace("quiet", "Dragon"))
    with pytest.raises(EvaluationError, match=r"none of the 3 annotated names \(Dragon"):
        run(data_set)


@needs_shared_audio
def test_birdnet_on_real_recordings(tmp_path):
    result = bacpipe.benchmark(
        "birdnet", SHARED / "audio" / "birds", main_results_dir=tmp_path, bootstrap_samples=0
    )
    assert result["missing"] == []
    assert result["per_class"]["Common Cuckoo"]["average_precision"] > 0.9
    assert result["per_class"]["Eurasian Blackbird"]["roc_auc"] > 0.9


def test_events_of_a_perfect_classifier_are_all_found(data_set):
    class Sharp(TinyModel):
        def classifier_predictions(self, embeddings):
            low, high = embeddings.min(dim=1).values, embeddings.max(dim=1).values
            return torch.stack([low > 0.4, (high > 0.005) & (high < 0.05)], dim=1).float()

    result = run(data_set, Sharp, "sharp", classifier_threshold=0.5)
    np.testing.assert_array_equal(result["predictions"], result["ground_truth"])
    assert set(result["events"]) == {"iou", "onset", "intersection"}
    # Calls of 2 s in windows of 1 s: two windows that touch are one event, as long as its call.
    for how in result["events"].values():
        for events in how["per_class"].values():
            assert (events["annotated"], events["found"], events["f1"]) == (9, 9, 1.0)


def test_birdset_counts_segments_of_five_seconds(data_set):
    result = run(data_set, protocol="birdset")
    # Nine recordings of nine seconds: one segment of 5 s and one of 4 s each.
    assert result["ground_truth"].shape == (18, 2)
    # loud at 0-2 s, quiet at 3-5 s: both are in the first segment only.
    np.testing.assert_array_equal(result["ground_truth"], [[True, True], [False, False]] * 9)
    windows = run(data_set)["scores"].reshape(9, 9, 2)
    scores = result["scores"].reshape(9, 2, 2)
    np.testing.assert_array_equal(scores[:, 0], windows[:, :5].max(axis=1))
    np.testing.assert_array_equal(scores[:, 1], windows[:, 5:].max(axis=1))
    first = result["scores"][::2]
    assert result["overall"]["top_1_accuracy"] == 1.0 and len(first) == 9
    expected = reference.average_precision_score(result["ground_truth"], result["scores"])
    assert result["overall"]["average_precision_macro"] == pytest.approx(expected)


def test_a_label_map_names_the_class(data_set):
    table = data_set.audio_dir / "annotations.csv"
    table.write_text(table.read_text().replace("loud", "Krach").replace("quiet", "Ruhe"))
    result = run(data_set, label_map={"Krach": "loud", "Ruhe": "quiet"})
    assert result["classes"] == {0: "loud", 1: "quiet"}
    assert {m["annotation"]: m["how"] for m in result["matching"]}["Krach"] == "label_map"
    (data_set.audio_dir / "names.csv").write_text("mine;theirs\nKrach;loud\nRuhe;quiet\n")
    same = run(data_set, label_map="names.csv")
    np.testing.assert_array_equal(same["ground_truth"], result["ground_truth"])
    with pytest.raises(AnnotationsError, match=r"label_map: .*nowhere\.csv cannot be read"):
        run(data_set, label_map="nowhere.csv")
    (data_set.audio_dir / "names.csv").write_text("mine\nKrach\n")
    with pytest.raises(AnnotationsError, match="expected two columns"):
        run(data_set, label_map="names.csv")
