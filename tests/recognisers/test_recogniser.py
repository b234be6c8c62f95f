"""Recognisers: they find what they were taught, and say no to what they cannot know."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score

import bacpipe
from bacpipe.__main__ import main
from bacpipe.errors import RecogniserError, ResultsError
from bacpipe.recognisers.learner import Examples, Whitening, learn, logit_covariance
from bacpipe.recognisers.recogniser import Recogniser, RecogniserResults, find_recogniser
from bacpipe.store.layout import RECOGNISER_WEIGHTS
from bacpipe.store.recognisers import words_of
from bacpipe.store.tensors import write_tensors
from tests.recognisers.conftest import CLASSES, OtherSpectra, Spectra, rows_of, write_sounds


def everywhere(truth):
    return np.concatenate([truth[name] for name in sorted(truth)])


def train(loader, labels, name="trial", **settings):
    return bacpipe.train_recogniser(None, None, name=name, labels=labels, loader=loader, **settings)


def test_it_finds_what_it_was_taught(sounds, loader, recogniser):
    assert recogniser.classes == ("hiss", "hum")
    scores = recogniser.predict(loader)
    truth = everywhere(sounds[1])[:, ::-1]
    assert scores.shape == truth.shape and scores.dtype == np.float32
    for column in range(2):
        assert average_precision_score(truth[:, column], scores[:, column]) > 0.95
    # Each class is for itself: there are windows with both, with one, and with nothing.
    assert {0, 1, 2} == set((scores > 0.5).sum(axis=1).tolist())
    np.testing.assert_array_equal(scores, recogniser.predict(loader.embeddings("array")))
    counted = recogniser.about["labels"]["hum"]
    assert counted["present"] + counted["absent"] == 48


def test_same_labels_same_recogniser(loader, recogniser):
    again = bacpipe.train_recogniser(None, None, name="again", loader=loader)
    np.testing.assert_array_equal(again.weight, recogniser.weight)
    assert again.digest == recogniser.digest
    other = bacpipe.train_recogniser(None, None, name="again", loader=loader, seed=7)
    assert other.digest != recogniser.digest or len(loader.embeddings("array")) < 500


def test_the_name_of_a_recogniser_leads_to_it(sounds, loader, recogniser):
    folder, _, results = sounds
    named = bacpipe.Loader(folder, "pond_life", main_results_dir=results)
    with pytest.raises(bacpipe.BacpipeError, match=r"a recogniser, not a model.*Recogniser\.load"):
        named.predictions("dataframe")
    with pytest.raises(bacpipe.BacpipeError, match=r"recogniser here.*Recogniser\.load"):
        bacpipe.search("pond_life", folder, "spectra", loader=loader)
    with pytest.raises(bacpipe.BacpipeError, match=r"no model of this name.*pond_life"):
        bacpipe.review_plan(folder, "pond_live", main_results_dir=results)
    best = bacpipe.search(recogniser, loader=loader, k=1)
    assert set(best["query"]) == {"hiss", "hum"}
    # Its similarity is the logit of the score.
    score = 1 / (1 + np.exp(-best.set_index("query").loc[["hiss", "hum"], "similarity"]))
    np.testing.assert_allclose(score, recogniser.predict(loader).max(axis=0), atol=1e-5)


def test_it_saves_and_loads_without_pickle(loader, recogniser, tmp_path):
    folder = recogniser.save(tmp_path / "copy")
    loaded = Recogniser.load(folder)
    np.testing.assert_array_equal(loaded.predict(loader), recogniser.predict(loader))
    assert (loaded.name, loaded.model, loaded.classes) == ("pond_life", "spectra", ("hiss", "hum"))
    words = json.loads((folder / "recogniser.json").read_text())
    assert {"model", "checkpoint", "classes", "labels", "licence_of_the_model"} <= words.keys()
    assert sorted(path.name for path in folder.iterdir()) == [
        "recogniser.json", "recogniser.safetensors",
    ]  # fmt: skip
    stored = loader.paths.recognisers_path / "pond_life"
    assert find_recogniser("pond_life", loader.paths).digest == Recogniser.load(stored).digest
    with pytest.raises(bacpipe.BacpipeError, match=r"no such recogniser.*pond_life"):
        find_recogniser("pond_live", loader.paths)


@pytest.mark.parametrize("damage", [b"", b"not tensors", None])
def test_a_damaged_recogniser_is_a_sentence(recogniser, tmp_path, damage):
    folder = recogniser.save(tmp_path / "copy")
    path = folder / "recogniser.safetensors"
    path.write_bytes(path.read_bytes()[:-3] if damage is None else damage)
    with pytest.raises(bacpipe.BacpipeError, match=r"recogniser\.safetensors.*damaged"):
        Recogniser.load(folder)
    with pytest.raises(bacpipe.BacpipeError, match="no such recogniser"):
        Recogniser.load(tmp_path / "nothing")


def test_tables_are_those_of_a_classifier(sounds, loader, recogniser):
    table = recogniser.detections(loader)
    scores, truth = recogniser.predict(loader), everywhere(sounds[1])
    assert len(table) == (scores >= 0.5).sum() > truth.sum() * 0.7
    assert list(table.columns) == [
        "site", "recording", "start", "end", "datetime", "common_name", "scientific_name", "code",
        "score", "range_probability", "probability", "event",
    ]  # fmt: skip
    assert set(table["common_name"]) == set(CLASSES)
    assert table["probability"].isna().all()  # nobody has calibrated it
    results = recogniser.results(loader)
    assert isinstance(results, RecogniserResults)
    folder = results.paths.preds_path
    assert folder.parts[-3:] == ("evaluations", "pond_life", "predictions")
    for name in ("detections.parquet", "detections.csv", "classifier_annotations.csv",
                 "all_predictions.parquet", "classes.csv"):  # fmt: skip
        assert (folder / f"pond_life_{name}").is_file()
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["recogniser"] == "pond_life" and provenance["model"] == "spectra"
    # What reads the predictions of a model reads these.
    dense, classes = results.predictions("array")
    kept = np.where(scores >= 0.5, scores, 0)[
        :, [recogniser.classes.index(c) for c in classes.values()]
    ]
    np.testing.assert_allclose(dense, kept, atol=1e-6)
    files = bacpipe.export_raven_tables(results)
    assert sorted(path.name for path in files)[0] == "a_pond_life.selection.table.txt"
    # The model's own results are as before.
    assert loader.model_name == "spectra" and not loader.paths.preds_path.is_dir()


def test_other_settings_are_other_tables(loader, recogniser):
    few = recogniser.detections(loader, classifier_threshold=0.9)
    many = recogniser.detections(loader, classifier_threshold=0.05)
    assert len(few) < len(recogniser.detections(loader)) < len(many)
    results = recogniser.results(loader)
    path = results.paths.preds_path / "pond_life_detections.parquet"
    before = path.stat().st_mtime_ns
    recogniser.results(loader)
    assert path.stat().st_mtime_ns == before


def test_it_runs_on_new_recordings_and_is_judged_there(sounds, recogniser, tmp_path, caplog):
    folder = tmp_path / "lake"
    truth = write_sounds(folder, ["c.wav", "d.wav"], seed=5)
    loader = bacpipe.generate_embeddings(
        model_name="spectra", CustomModel=Spectra, audio_dir=folder, device="cpu",
        main_results_dir=sounds[2],
    )  # fmt: skip
    judged = recogniser.evaluate(loader, rows_of(truth, range(40))).set_index("class")
    assert (judged["average_precision"] > 0.9).all() and judged["present"].sum() > 20
    assert find_recogniser("pond_life", loader.paths).digest == recogniser.digest
    # A copy of what it was taught with is no test of it.
    shutil.copytree(sounds[0] / "east", folder / "east")
    loader = bacpipe.generate_embeddings(
        model_name="spectra", CustomModel=Spectra, audio_dir=folder, device="cpu",
        main_results_dir=sounds[2],
    )  # fmt: skip
    both = rows_of(
        truth | {name: sounds[1][name] for name in ("east/a.wav", "east/b.wav")}, range(40)
    )
    again = recogniser.evaluate(loader, both).set_index("class")
    pd.testing.assert_frame_equal(again, judged)
    assert "80 windows of recordings" in caplog.text
    with pytest.raises(bacpipe.BacpipeError, match="no label is of a class"):
        recogniser.evaluate(loader, rows_of(truth).assign(label="owl"))


def test_it_runs_as_a_model_of_ones_own(sounds, loader, recogniser, tmp_path):
    folder = tmp_path / "lake"
    write_sounds(folder, ["c.wav", "d.wav"], seed=5)
    arguments = {"audio_dir": folder, "main_results_dir": tmp_path / "r", "device": "cpu"}
    model = recogniser.as_model(Spectra, device="cpu")
    own = bacpipe.generate_embeddings(model_name="ponds", CustomModel=model, **arguments)
    plain = bacpipe.generate_embeddings(model_name="spectra", CustomModel=Spectra, **arguments)
    columns = ["recording", "start", "end", "common_name", "score"]
    found, expected = bacpipe.detections_table(own), recogniser.detections(plain)
    assert len(found) > 10
    pd.testing.assert_frame_equal(found[columns], expected[columns], atol=1e-5)
    np.testing.assert_array_equal(own.embeddings("array"), plain.embeddings("array"))
    # A recogniser that was taught anew is another model: nothing of the former is continued.
    other = train(loader, rows_of(sounds[1], range(5)), "other").as_model(Spectra, device="cpu")
    again = bacpipe.generate_embeddings(model_name="ponds", CustomModel=other, **arguments)
    assert again.get_embedding_dir() != own.get_embedding_dir()
    with pytest.raises(bacpipe.BacpipeError, match=r"weights.*Spectra.*OtherSpectra"):
        recogniser.as_model(OtherSpectra)
    with pytest.raises(bacpipe.BacpipeError, match=r"hand its class over"):
        recogniser.as_model()


def test_onnx_says_the_same(loader, recogniser, tmp_path, monkeypatch):
    runtime = pytest.importorskip("onnxruntime")
    file = recogniser.export_onnx(tmp_path / "ponds.onnx")
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    embeddings = np.concatenate([loader.embeddings("array"), np.zeros((1, 16), np.float32)])
    (scores,) = session.run(["scores"], {"embeddings": embeddings})
    np.testing.assert_allclose(scores, recogniser.predict(embeddings), atol=1e-5)
    model = recogniser.as_model(Spectra, device="cpu")
    np.testing.assert_allclose(scores, model.classifier_predictions(embeddings), atol=1e-5)
    words = session.get_modelmeta().custom_metadata_map
    assert words["model"] == "spectra" and json.loads(words["classes"]) == ["hiss", "hum"]
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(bacpipe.BacpipeError, match=r"to ONNX needs .*pip install .*onnx"):
        recogniser.export_onnx(tmp_path / "none.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["ponds.onnx"]


def test_own_labels_are_judged_by_other_recordings(loader, recogniser, sounds):
    judged = recogniser.evaluate(loader)
    assert "learnt from the others" in judged.attrs["how"]
    assert (judged["average_precision"] > 0.85).all() and (judged["recordings"] == 4).all()
    # Labels without any meaning are found out: what it has learnt by heart does not help.
    rng = np.random.default_rng(0)
    rows = rows_of(sounds[1], range(12))
    rows["value"] = np.where(rng.random(len(rows)) < 0.4, "yes", "no")
    trained = train(loader, rows)
    assert (trained.evaluate(loader, rows)["roc_auc"] < 0.65).all()


def test_another_backbone_is_refused_by_name(sounds, loader, recogniser, tmp_path):
    folder, _, _ = sounds
    arguments = {"audio_dir": folder, "main_results_dir": tmp_path / "r", "device": "cpu"}
    other = bacpipe.generate_embeddings(model_name="colours", CustomModel=Spectra, **arguments)
    with pytest.raises(bacpipe.BacpipeError, match=r"spectra, not of colours"):
        recogniser.predict(other)
    for not_results in (folder, [[0.0] * 16], None):
        with pytest.raises(bacpipe.BacpipeError, match=r"takes results of spectra, not a"):
            recogniser.detections(not_results)
    with pytest.raises(bacpipe.BacpipeError, match=r"\(windows, 16\).*another model"):
        recogniser.predict(np.zeros((3, 5), np.float32))
    changed = bacpipe.generate_embeddings(
        model_name="spectra", CustomModel=OtherSpectra, **arguments
    )
    with pytest.raises(bacpipe.BacpipeError, match=r"weights.*Spectra.*OtherSpectra"):
        recogniser.detections(changed)


@pytest.mark.parametrize(
    ("change", "settings", "sentence"),
    [
        ({"value": "no"}, {}, "heard in no window"),
        ({"value": "yes"}, {"weak_negatives": False}, "heard in every labelled window"),
        ({"value": "unsure"}, {}, "heard in no window"),
        ({"value": "perhaps"}, {}, "'perhaps' is not possible"),
        ({"recording": "z.wav"}, {}, "no row is about one of .*the column recording names z.wav"),
        ({"start": "abc"}, {}, "the column 'start' holds 'abc' in row 1"),
        ({"start": np.nan}, {}, "the column 'start'"),
        ({"label": None}, {}, "row 1 has no label"),
        ({"start": 900.0, "end": 901.0}, {}, "none of"),
        ({}, {"classes": ["owl"]}, "no labels of owl"),
        ({}, {"classes": "owl"}, "no labels of owl"),
        ({}, {"seed": "one"}, "seed='one' is not possible"),
        ({}, {"labels": "heard.csv"}, "expected a DataFrame"),
        ({}, {"name": "spectra"}, "a model has this name"),
        ({}, {"name": "birdnet"}, "a model has this name"),
        ({}, {"name": "../x"}, "of letters, digits"),
    ],
)
def test_what_cannot_be_learnt_is_a_sentence(sounds, loader, change, settings, sentence):
    rows = rows_of(sounds[1]).assign(**change)
    with pytest.raises(bacpipe.BacpipeError, match=sentence):
        train(loader, settings.pop("labels", rows), **{"name": "impossible", **settings})
    assert not (loader.paths.recognisers_path / "impossible").exists()


def test_one_class_and_positives_alone_learn_from_unlabelled_windows(sounds, loader, caplog):
    rows = rows_of(sounds[1])
    rows = rows[(rows["label"] == "hum") & (rows["value"] == "yes")].head(6)
    found = train(loader, rows)
    assert found.classes == ("hum",) and "label some with no" in caplog.text
    truth = everywhere(sounds[1])[:, 0]
    assert average_precision_score(truth, found.predict(loader)[:, 0]) > 0.8


def test_a_class_that_was_never_heard_costs_only_itself(sounds, loader, caplog):
    rows = rows_of(sounds[1])
    rows.loc[rows["label"] == "hiss", "value"] = "no"
    assert train(loader, rows).classes == ("hum",)
    assert "hiss" in caplog.text


def test_contradicting_people_teach_nothing(sounds, loader, caplog):
    rows = rows_of(sounds[1])
    opposite = {"yes": "no", "no": "yes"}
    wrong = rows.assign(annotator="Ben", value=rows["value"].map(opposite)).head(20)
    trained = train(loader, pd.concat([rows.assign(annotator="Ana"), wrong]))
    assert "contradict each other on 20 labels" in caplog.text
    present = sum(item["present"] + item["absent"] for item in trained.about["labels"].values())
    assert present == len(rows) - 20


def test_labels_of_other_seconds_reach_the_windows_they_cover(sounds, loader):
    rows = pd.DataFrame(
        {
            "recording": "east/a.wav",
            "start": [0.0, 10.2, 20.0, 3.0],
            "end": [2.6, 14.9, 30.0, 4.0],
            "label": "hum",
            "value": ["yes", "no", "unsure", "yes"],
        }
    )
    about = train(loader, rows).about["labels"]["hum"]
    # Windows 0 to 2 and 3; only 11, 12 and 13 lie in what was silent as a whole.
    assert (about["present"], about["absent"], about["doubtful"]) == (4, 3, 10)


def test_labels_come_from_where_the_setting_says(sounds, tmp_path):
    folder = tmp_path / "lake"
    truth = write_sounds(folder, ["c.wav"], seed=5)
    arguments = {"audio_dir": folder, "main_results_dir": tmp_path / "r", "device": "cpu"}
    bacpipe.generate_embeddings(model_name="spectra", CustomModel=Spectra, **arguments)
    del arguments["device"]

    def learnt(**settings):
        return bacpipe.train_recogniser(
            model="spectra", name="lake_life", **arguments, **settings
        ).classes

    with pytest.raises(
        bacpipe.BacpipeError, match=r"no labels of people yet and no annotations\.csv"
    ):
        learnt()
    rows = rows_of(truth)
    heard = rows[(rows["value"] == "yes") & (rows["label"] == "hum")]
    table = heard.rename(columns={"recording": "audiofilename", "label": "label:species"})
    table.drop(columns="value").to_csv(folder / "annotations.csv", index=False)
    assert learnt() == ("hum",)
    bacpipe.label_windows(folder, rows.assign(label="hiss"), main_results_dir=tmp_path / "r")
    assert learnt() == ("hiss",)
    assert learnt(labels_from="annotations") == ("hum",)
    assert learnt(labels_from="both") == ("hiss", "hum")
    truth = {
        source: bacpipe.ground_truth_by_model("spectra", labels_from=source, **arguments)
        for source in ("annotations", "people", "both")
    }
    assert {k: list(v["label_dict:species"]) for k, v in truth.items()} == {
        "annotations": ["hum"], "people": ["hiss"], "both": ["hiss", "hum"],
    }  # fmt: skip


def test_labels_of_a_recording_that_was_replaced_after_the_run_are_left_out(tmp_path, caplog):
    folder = tmp_path / "lake"
    truth = write_sounds(folder, ["c.wav", "d.wav"], seed=5)
    arguments = {"audio_dir": folder, "main_results_dir": tmp_path / "r"}
    bacpipe.generate_embeddings(
        model_name="spectra", CustomModel=Spectra, device="cpu", **arguments
    )
    truth |= write_sounds(folder, ["d.wav"], seed=6)
    bacpipe.label_windows(rows=rows_of(truth), **arguments)
    found = bacpipe.train_recogniser(model="spectra", name="lake_life", **arguments)
    assert "d.wav; run the model again" in caplog.text
    assert found.about["labels"]["hum"]["present"] == truth["c.wav"][:12, 0].sum()


def made_up(n, *, signed, seed=1):
    """Embeddings of 12 numbers, some of which are negative, or none."""
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((n, 12)) @ rng.standard_normal((12, 12))).astype(np.float32)
    return x if signed else np.maximum(x, 0)


@pytest.mark.parametrize("signed", [True, False])
def test_weights_say_the_same_before_and_behind_the_features(signed):
    x = made_up(200, signed=signed)
    whitening = Whitening.of(x)
    features = whitening.features(x)
    assert np.square(features).sum(axis=1).mean() == pytest.approx(1, abs=1e-3)
    weight = np.random.default_rng(2).standard_normal(12)
    plain, bias = whitening.before_centring(weight, 0.5)
    taken = x if signed else np.sqrt(x)
    np.testing.assert_allclose(taken @ plain + bias, features @ weight + 0.5, atol=1e-4)
    examples = Examples(x, features @ weight > 0, 50)
    learnt = learn(examples, whitening)
    assert learnt.square_roots != signed
    np.testing.assert_allclose(
        learnt.logits(x), taken @ learnt.weight + learnt.bias, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("signed", [True, False])
def test_how_unsure_a_logit_is_follows_from_the_curvature_of_what_was_minimised(signed):
    x = made_up(300, signed=signed)
    whitening = Whitening.of(x)
    features = np.hstack([whitening.features(x), np.ones((300, 1))]).astype(np.float64)
    present = features[:, 0] + features[:, 1] > np.median(features[:, 0] + features[:, 1])
    examples = Examples(x[:80], present[:80], 30)
    learnt = learn(examples, whitening)

    def loss(w):
        logits = features[:80] @ w
        each = np.logaddexp(0, np.where(present[:80], -logits, logits))
        return examples.weights @ each + w @ w / 20

    # Where the learnt weights are, from the logits that they give.
    at = np.linalg.lstsq(features, learnt.logits(x).astype(np.float64), rcond=None)[0]
    step, size = 1e-3, len(at)
    unit = step * np.eye(size)
    curvature = np.array(
        [
            [
                loss(at + unit[i] + unit[j]) - loss(at + unit[i] - unit[j])
                - loss(at - unit[i] + unit[j]) + loss(at - unit[i] - unit[j])
                for j in range(size)
            ]
            for i in range(size)
        ]
    ) / (4 * step**2)  # fmt: skip
    expected = features[80:120] @ np.linalg.inv(curvature) @ features[80:120].T
    found = logit_covariance(examples, learnt, whitening, x[80:120])
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    # Labels make it smaller, most for what is like them.
    more = Examples(x[:120], present[:120], 70)
    after = logit_covariance(more, learnt, whitening, x[80:120])
    assert (np.diag(after) < np.diag(found)).all()


def test_embeddings_that_are_never_negative_are_learnt_by_their_square_roots(
    loader, recogniser, tmp_path
):
    assert recogniser.square_roots  # levels of a spectrum
    rows = loader.embeddings("array")
    logits = np.sqrt(rows) @ recogniser.weight.T + recogniser.bias
    np.testing.assert_allclose(recogniser.predict(loader), 1 / (1 + np.exp(-logits)), atol=1e-5)
    again = bacpipe.Recogniser.load(recogniser.save(tmp_path / "again"))
    assert again.square_roots and again.digest == recogniser.digest
    np.testing.assert_array_equal(again.predict(rows), recogniser.predict(rows))
    # Without the square roots it is another one, which versions without them can read.
    plain = dataclasses.replace(recogniser, square_roots=False)
    assert plain.digest != recogniser.digest
    formats = []
    for one in (recogniser, plain):
        one.save(tmp_path / "one")
        formats.append(json.loads((tmp_path / "one" / "recogniser.json").read_text())["format"])
    assert formats == [2, 1]
    assert not bacpipe.Recogniser.load(tmp_path / "one").square_roots


def test_what_all_windows_share_counts_less_where_they_are_many():
    rng = np.random.default_rng(2)
    common = rng.standard_normal(40)
    share = {}
    for n in (12, 4000):
        x = rng.standard_normal((n, 40)) + rng.standard_normal((n, 1)) * common + 3
        largest = [
            np.linalg.eigvalsh(np.cov(values.T))[-1] / np.trace(np.cov(values.T))
            for values in (Whitening.of(x.astype(np.float32)).features(x), x)
        ]
        share[n] = largest[0] / largest[1]
    # Of a handful of windows, the largest part may be the class itself.
    assert share[12] > 0.9 and share[4000] < 0.75


def test_windows_that_are_all_alike_and_one_direction_alone_break_nothing():
    x = np.ones((30, 4), np.float32)
    assert np.isfinite(Whitening.of(x).features(x)).all()
    x[:, 0] = np.arange(30)
    found = Whitening.of(x)
    assert np.isfinite(found.features(x)).all()
    assert Examples(x, np.ones(30, bool), 10).weights.sum() == pytest.approx(11)


def test_every_format_exports_a_recogniser_whose_model_has_no_classifier(
    sounds, loader, recogniser, tmp_path
):
    results = recogniser.results(loader)
    assert results.has_predictions and not loader.has_predictions
    for format in ("csv", "raven", "audacity", "kaleidoscope", "survey", "clips"):
        assert bacpipe.export(results, format, tmp_path / format)
    words = [f"audio_dir={sounds[0]}", f"main_results_dir={sounds[2]}", "recogniser=pond_life"]
    assert main(["export", "csv", *words, f"destination={tmp_path / 'again'}"]) == 0


@pytest.mark.parametrize("name", ["../../../../escaped", "/tmp/escaped", "a/b", ".hidden", ""])
def test_a_name_in_a_file_is_no_path(recogniser, name, tmp_path):
    named = dataclasses.replace(recogniser, name=name)
    with pytest.raises(RecogniserError, match="is not possible for a recogniser"):
        named.save(tmp_path / "f")
    assert not (tmp_path / "f").exists()
    words = words_of(named)
    arrays = {"weight": named.weight, "bias": named.bias}
    write_tensors(tmp_path / RECOGNISER_WEIGHTS, arrays, words)
    with pytest.raises(ResultsError, match=f"{RECOGNISER_WEIGHTS}: name=.* is not possible"):
        bacpipe.Recogniser.load(tmp_path)


def test_a_recogniser_never_replaces_tables_of_a_model(loader, recogniser):
    with pytest.raises(RecogniserError, match="A model is called 'spectra'"):
        dataclasses.replace(recogniser, name="spectra").results(loader)


def test_short_annotations_are_left_out_and_counted(tmp_path, caplog):
    truth = write_sounds(tmp_path / "pond", ["a.wav"])
    kw = {"main_results_dir": tmp_path / "results"}
    bacpipe.generate_embeddings(
        model_name="spectra", CustomModel=Spectra, audio_dir=tmp_path / "pond", device="cpu", **kw
    )
    rows = rows_of(truth, range(40)).query("value == 'yes' and label == 'hum'")
    rows = rows.assign(end=rows["start"] + np.where(np.arange(len(rows)) < 2, 1.0, 0.4))
    (tmp_path / "pond" / "annotations.csv").write_text(
        rows.rename(columns={"recording": "audiofilename", "label": "label:species"})[
            ["audiofilename", "start", "end", "label:species"]
        ].to_csv(index=False)
    )
    with caplog.at_level(logging.INFO, logger="bacpipe"):
        trained = bacpipe.train_recogniser(
            tmp_path / "pond", "spectra", name="hums", labels_from="annotations",
            min_annotation_length=0.9, **kw,
        )  # fmt: skip
    assert trained.about["labels"]["hum"]["present"] == 2
    assert f"{len(rows) - 2} annotations shorter than min_annotation_length=0.9 s left out" in (
        caplog.text
    )


def test_classes_may_come_one_by_one(sounds):
    trained = bacpipe.train_recogniser(
        sounds[0], "spectra", name="one", classes=(name for name in ["hum"]),
        main_results_dir=sounds[2],
    )  # fmt: skip
    assert trained.classes == ("hum",)


def test_numbers_may_be_labels(sounds):
    rows = rows_of(sounds[1]).assign(label=lambda t: np.where(t["label"] == "hum", 17, 23))
    trained = bacpipe.train_recogniser(
        sounds[0], "spectra", name="codes", labels=rows, main_results_dir=sounds[2]
    )
    assert trained.classes == ("17", "23") and "17" in repr(trained) and trained.digest


def test_classes_without_a_counterpart_are_said_to_be_left_out(sounds, caplog):
    rows = rows_of(sounds[1])
    rows.loc[rows["label"] == "hiss", "value"] = "yes"
    trained = bacpipe.train_recogniser(
        sounds[0], "spectra", name="one_sided", labels=rows, weak_negatives=False,
        main_results_dir=sounds[2],
    )  # fmt: skip
    assert trained.classes == ("hum",)
    assert "without weak negatives nothing says how their absence sounds: hiss" in caplog.text
    assert "stand for its absence" not in caplog.text
