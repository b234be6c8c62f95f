"""What to listen to next: useful, diverse, from everywhere, and never twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

import bacpipe
from bacpipe.errors import TooLittleDataError
from bacpipe.recognisers.suggestions import LeastSure
from tests.recognisers.conftest import RATE, Spectra, rows_of, write_sounds


def windows_in(table):
    return set(zip(table["recording"], table["start"], table["label"], strict=True))


@pytest.mark.parametrize("strategy", ["mixed", "margin", "top", "stratified", "random", "novel"])
def test_lists_can_be_labelled_and_never_repeat(sounds, loader, recogniser, strategy):
    folder, truth, results = sounds
    table = bacpipe.suggest(folder, "pond_life", n=12, strategy=strategy, main_results_dir=results)
    assert list(table.columns) == [
        "recording", "site", "start", "end", "label", "value", "score", "model", "chosen_by",
    ]  # fmt: skip
    assert len(table) == len(windows_in(table)) == 12
    assert table["label"].value_counts().to_dict() == {"hiss": 6, "hum": 6}
    assert not windows_in(table) & windows_in(rows_of(truth))
    assert not table.duplicated(["recording", "start"]).any()
    assert set(table["site"]) == {"east", "west"}
    again = bacpipe.suggest(folder, recogniser, n=12, strategy=strategy, loader=loader)
    assert windows_in(again) == windows_in(table)


def test_strategies_choose_what_they_say(sounds, loader, recogniser):
    scores = recogniser.predict(loader)[:, 1]

    def of(strategy, **settings):
        return bacpipe.suggest(
            None, recogniser, n=8, strategy=strategy, classes=["hum"], loader=loader, **settings
        )["score"].to_numpy()

    assert of("top").min() > np.quantile(scores, 0.7)
    assert np.abs(of("margin") - 0.5).mean() < np.abs(of("random") - 0.5).mean()
    logit = np.log(of("stratified") / (1 - of("stratified")))
    assert np.ptp(logit) > 0.5 * np.ptp(np.log(scores / (1 - scores)))
    assert np.abs(of("mixed") - 0.5).mean() < np.abs(of("random") - 0.5).mean()
    assert set(bacpipe.suggest(None, recogniser, loader=loader)["chosen_by"]) == {"mixed"}


def test_what_is_least_sure_comes_first_and_what_another_tells_waits():
    def order(logits, covariance, turns=None):
        turns = np.zeros((len(logits), 2), int) if turns is None else turns
        found, unsure = [], LeastSure(np.array(logits), np.array(covariance), turns)
        for i in unsure:
            found.append(i)
            unsure.take(i)
        return found

    # Nothing is known of any: the nearest to 0.
    assert order([3.0, -1.0, 2.0], np.eye(3)) == [1, 2, 0]
    # The second is far from all that was labelled, so its logit says little.
    assert order([1.0, 2.0], np.diag([0.1, 100.0])) == [1, 0]
    # The first two are the same sound: once one is labelled, the other is known.
    same = 25 * np.array([[1, 0.999, 0], [0.999, 1, 0], [0, 0, 1]])
    assert order([0.5, 0.6, 1.0], same) == [0, 2, 1]
    # Sites take turns, and days within a site.
    turns = np.array([[0, 0], [0, 0], [0, 1], [1, 2], [1, 2]])
    assert order([0.1, 0.2, 0.3, 0.4, 0.5], np.eye(5), turns) == [0, 3, 2, 4, 1]


def test_mixed_asks_for_a_sound_of_which_nothing_is_known(tmp_path):
    """Where scores are equally far from 0.5, the unknown sound teaches more than the known ones."""
    truth = write_sounds(tmp_path / "pond", ["a.wav", "b.wav"])
    t = np.arange(RATE) / RATE
    rng = np.random.default_rng(8)
    whistle = 0.05 * np.sin(2 * np.pi * 450 * t) + 0.02 * rng.standard_normal(RATE)
    samples, _ = sf.read(tmp_path / "pond" / "b.wav")
    samples[-RATE:] = whistle
    sf.write(tmp_path / "pond" / "b.wav", samples, RATE)
    kw = {"main_results_dir": tmp_path / "results"}
    bacpipe.generate_embeddings(
        model_name="spectra", CustomModel=Spectra, audio_dir=tmp_path / "pond", device="cpu", **kw
    )
    bacpipe.label_windows(tmp_path / "pond", rows_of(truth, range(30)), **kw)
    bacpipe.train_recogniser(tmp_path / "pond", "spectra", name="ears", classes="hum", **kw)

    def place(strategy):
        found = bacpipe.suggest(tmp_path / "pond", "ears", n=19, strategy=strategy, **kw)
        where = (found["recording"] == "b.wav") & (found["start"] == 39)
        return int(np.flatnonzero(where)[0])

    assert place("mixed") < place("margin")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nobody_is_asked_of_windows_whose_embeddings_are_no_numbers(recogniser, value):
    rows = np.abs(np.random.default_rng(4).normal(size=(5, 16))).astype(np.float32)
    rows[3, 7] = value
    scores = recogniser.predict(rows)
    assert np.isnan(scores[3]).all() and np.isfinite(np.delete(scores, 3, axis=0)).all()


def test_mixed_knows_the_annotations_that_were_learnt(own, monkeypatch):
    folder, kw = own
    rows = [f"a.wav,{i},{i + 1},hum" for i in range(0, 40, 2)]
    (folder / "annotations.csv").write_text(
        "\n".join(["audiofilename,start,end,label:species", *rows])
    )
    bacpipe.train_recogniser(folder, "spectra", name="lent", labels_from="annotations", **kw)
    for path in (Path(kw["main_results_dir"]) / "pond").rglob("people_labels*"):
        path.unlink()
    seen = []
    learner = "bacpipe.recognisers.suggestions.logit_covariance"
    monkeypatch.setattr(learner, lambda examples, *rest: seen.append(examples) or variance(rest[2]))
    assert len(bacpipe.suggest(folder, "lent", n=4, **kw)) == 4
    (examples,) = seen
    assert examples.labelled == examples.present.sum() == 20


def test_annotations_that_cannot_be_read_do_not_stop_suggestions(tmp_path, caplog):
    truth = write_sounds(tmp_path / "pond", ["a.wav"])
    kw = {"main_results_dir": tmp_path / "results"}
    bacpipe.generate_embeddings(
        model_name="spectra", CustomModel=Spectra, audio_dir=tmp_path / "pond", device="cpu", **kw
    )
    bacpipe.train_recogniser(tmp_path / "pond", "spectra", name="ears", labels=rows_of(truth), **kw)
    (tmp_path / "pond" / "annotations.csv").write_text("file,from,to\na.wav,1,2\n")
    assert len(bacpipe.suggest(tmp_path / "pond", "ears", n=3, **kw)) == 3
    assert "suggestions know nothing of annotations" in caplog.text
    assert "annotations.csv" in caplog.text


def variance(embeddings):
    return np.eye(len(embeddings))


def test_no_list_holds_one_call_ten_times(sounds, loader, recogniser):
    table = bacpipe.suggest(None, recogniser, n=8, strategy="top", classes=["hum"], loader=loader)
    for _, part in table.groupby("recording"):
        assert np.diff(np.sort(part["start"])).min(initial=99) >= 10
    # If that is all there is, the rest is better than nothing.
    everything = bacpipe.suggest(None, recogniser, n=500, classes=["hum"], loader=loader)
    assert len(everything) == 4 * (40 - 12)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"strategy": "best"}, "strategy='best' is not possible"),
        ({"n": 0}, "n=0 is not possible"),
        ({"n": 2.5}, "n=2.5 is not possible"),
        ({"classes": ["owl"]}, "does not know owl"),
        ({"classes": "owl"}, "does not know owl"),
        ({"recogniser": "nothing"}, "no such recogniser"),
        ({"recogniser": 5}, "recogniser=5 is not possible"),
    ],
)
def test_bad_input_is_a_sentence(loader, recogniser, settings, sentence):
    arguments = {"recogniser": recogniser, **settings}
    with pytest.raises(bacpipe.BacpipeError, match=sentence):
        bacpipe.suggest(None, loader=loader, **arguments)


@pytest.fixture
def own(tmp_path):
    """A data set of its own, with labels and a recogniser."""
    truth = write_sounds(tmp_path / "pond", ["a.wav", "b.wav"])
    kw = {"main_results_dir": tmp_path / "results"}
    bacpipe.generate_embeddings(
        model_name="spectra", CustomModel=Spectra, audio_dir=tmp_path / "pond", device="cpu", **kw
    )
    bacpipe.label_windows(tmp_path / "pond", rows_of(truth), **kw)
    bacpipe.train_recogniser(tmp_path / "pond", "spectra", name="ears", **kw)
    return tmp_path / "pond", kw


def test_nobody_is_asked_about_a_recording_that_has_changed(own, caplog):
    folder, kw = own
    write_sounds(folder, ["b.wav"], seed=9)
    table = bacpipe.suggest(folder, "ears", n=12, **kw)
    assert len(table) == 12 and set(table["recording"]) == {"a.wav"}
    plan = bacpipe.review_plan(folder, "ears", seed=1, **kw)
    assert len(plan) and set(plan["recording"]) == {"a.wav"}
    said = "1 recording left out, because it has changed since the model heard it: b.wav"
    assert caplog.text.count(said) == 2
    write_sounds(folder, ["a.wav"], seed=8)
    assert bacpipe.suggest(folder, "ears", n=12, **kw).empty
    assert bacpipe.review_plan(folder, "ears", seed=1, **kw).empty


def test_checks_of_a_recording_that_has_changed_tell_nothing_of_its_scores(own, caplog):
    folder, kw = own
    truth = write_sounds(folder, ["a.wav", "b.wav"])  # the same again
    bacpipe.label_windows(folder, rows_of(truth, range(12, 30)), **kw)
    before = bacpipe.calibrate(folder, "ears", **kw).classes
    truth = write_sounds(folder, ["b.wav"], seed=9)
    bacpipe.label_windows(folder, rows_of(truth, range(40)), **kw)
    found = bacpipe.calibrate(folder, "ears", **kw).classes
    assert "labels of 1 recording left out, which have changed" in caplog.text
    for name in before:
        assert found[name].checks < before[name].checks


def test_what_a_recogniser_was_taught_with_does_not_check_it(own, caplog):
    folder, kw = own
    kw["classifier_threshold"] = 0.0
    with pytest.raises(TooLittleDataError, match="was checked but those that it was taught"):
        bacpipe.calibrate(folder, "ears", **kw)
    plan = bacpipe.review_plan(folder, "ears", seed=1, **kw)
    assert (plan["start"] >= 12).all() and set(plan["label"]) == {"hum", "hiss"}
    # Checks of other windows are all that counts for what scores mean ...
    truth = write_sounds(folder, ["a.wav", "b.wav"])  # the same again
    bacpipe.label_windows(folder, rows_of(truth, range(20, 30)), annotator="Ben", **kw)
    caplog.clear()
    found = bacpipe.calibrate(folder, "ears", **kw)
    assert "48 checks are of windows that ears was taught with (hiss, hum)" in caplog.text
    heard = np.concatenate([truth[name][20:30] for name in ("a.wav", "b.wav")])
    for label, column in zip(("hum", "hiss"), heard.T, strict=True):
        assert (found.classes[label].checks, found.classes[label].right) == (20, column.sum())
        # ... and what is known by heart still counts in how often a sound was heard.
        assert found.call_rate(label)["checks"].iloc[-1] == 20 + 24
    # Teaching with all of it leaves nothing to check it by; the next plan asks for others.
    bacpipe.train_recogniser(folder, "spectra", name="ears", **kw)
    with pytest.raises(TooLittleDataError):
        bacpipe.calibrate(folder, "ears", **kw)
    again = bacpipe.review_plan(folder, "ears", seed=1, **kw)
    assert len(again) and not again["start"].between(20, 29).any() and (again["start"] >= 12).all()


def test_annotations_count_as_labelled_if_labels_come_from_them(own):
    folder, kw = own
    rows = [f"a.wav,{i},{i + 1},hum" for i in range(40)]
    (folder / "annotations.csv").write_text(
        "\n".join(["audiofilename,start,end,label:species", *rows])
    )
    table = bacpipe.suggest(folder, "ears", n=8, classes="hum", labels_from="annotations", **kw)
    assert set(table["recording"]) == {"b.wav"}


def test_a_label_of_no_window_does_not_stop_suggestions(tmp_path):
    truth = write_sounds(tmp_path / "pond", ["a.wav"])
    kw = {"main_results_dir": tmp_path / "results"}
    bacpipe.generate_embeddings(
        model_name="spectra", CustomModel=Spectra, audio_dir=tmp_path / "pond", device="cpu", **kw
    )
    bacpipe.train_recogniser(tmp_path / "pond", "spectra", name="ears", labels=rows_of(truth), **kw)
    row = {"recording": "a.wav", "start": 3.2, "end": 3.8, "label": "hum", "value": "no"}
    bacpipe.label_windows(tmp_path / "pond", row, **kw)
    assert len(bacpipe.suggest(tmp_path / "pond", "ears", n=3, **kw)) == 3
