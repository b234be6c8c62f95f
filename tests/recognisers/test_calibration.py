"""What scores mean: calibration and review plans, through the results of a model on disk."""

from __future__ import annotations

import copy
import json
import logging
import math

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
import torch
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

import bacpipe
from benchmarks.calibration import our_result, peers_interval, survey_class

RATE, WINDOW = 8000, 400
MODEL = "levels"
SITES = ("north", "south")


class Levels(bacpipe.ModelBaseClass):
    """The score of 'wren' is the level of the first half of a window, of 'owl' of the second."""

    def __init__(self, **kwargs):
        super().__init__(sr=RATE, segment_length=WINDOW, batch_size=256, **kwargs)
        self.classes = ["wren", "owl"]

    def preprocess(self, audio):
        return audio.reshape(len(audio), 2, -1)

    def __call__(self, x):
        return x.mean(dim=2)

    def classifier_predictions(self, embeddings):
        return torch.clamp(embeddings, 0, 1)


def curve(score, site=0):
    """Truth of the wren: P(correct | score); the south is richer."""
    return expit(-0.5 + 1.2 * logit(score) + 0.8 * (2 * site - 1))


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    """Folder of recordings, settings of its results, and a table of the truth of every window."""
    folder = tmp_path_factory.mktemp("calibration")
    rng = np.random.default_rng(1)
    tables = []
    for number, site in enumerate(SITES):
        for name in ("a", "b"):
            score = expit(rng.normal(0.3, 1.6, (700, 2))).clip(0.01, 0.99).astype(np.float32)
            path = folder / "audio" / site / f"{name}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            sf.write(path, np.repeat(score.ravel(), WINDOW // 2), RATE, subtype="FLOAT")
            start = np.arange(700) * WINDOW / RATE
            for column, label in enumerate(("wren", "owl")):
                p = curve(score[:, column], number) if label == "wren" else score[:, column]
                right = rng.random(700) < p
                columns = {"recording": f"{site}/{name}.wav", "start": start,
                           "end": start + WINDOW / RATE, "label": label,
                           "value": np.where(right, "yes", "no"), "score": score[:, column],
                           "site": site, "annotator": "truth"}  # fmt: skip
                tables.append(pd.DataFrame(columns))
    settings = {"main_results_dir": folder / "results", "classifier_threshold": 0.1}
    bacpipe.generate_embeddings(
        audio_dir=folder / "audio", model_name=MODEL, CustomModel=Levels, device="cpu", **settings
    )
    truth = pd.concat(tables, ignore_index=True)
    return folder / "audio", {"main_results_dir": settings["main_results_dir"]}, truth


def scored(truth, label="wren"):
    return truth[(truth["label"] == label) & (truth["score"] >= 0.1)]


def heard(plan, truth):
    """What an annotator who knows the truth makes of a plan."""
    key = ["recording", "label", "start"]
    known = truth.assign(start=truth["start"].round(3))[[*key, "value"]]
    rows = plan.drop(columns="value").assign(start=plan["start"].round(3))
    return rows.merge(known, on=key, validate="1:1").assign(annotator="truth")


def calibrate(survey, labels, **settings):
    audio, results, _ = survey
    return bacpipe.calibrate(audio, MODEL, labels, save=False, **results, **settings)


def test_many_checks_of_one_class_are_plain_logistic_regression(survey):
    checks = scored(survey[2])
    found = calibrate(survey, checks)
    x = logit(np.clip(checks["score"].to_numpy(np.float64), 1e-6, 1 - 1e-6))[:, None]
    plain = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
    plain.fit(x, checks["value"] == "yes")
    at = np.linspace(0.1, 0.99, 50)
    expected = plain.predict_proba(logit(at)[:, None])[:, 1]
    assert np.abs(found.probability("wren", at) - expected).max() < 1e-3
    one = found.probability("wren", 0.9)
    assert one.low < one < one.high and math.isclose(one, found.probability("wren", [0.9])[0])
    assert str(copy.deepcopy(one)) == str(one)
    wanted = found.threshold("wren", 0.8)
    assert math.isclose(found.probability("wren", float(wanted)), 0.8, abs_tol=1e-6)
    assert wanted.low < wanted < wanted.high
    assert found.probability("wren", wanted.low).high >= 0.79


def test_call_rates_of_sites_cover_the_truth_and_count_what_was_checked(survey):
    truth = scored(survey[2])
    checks = truth.sample(150, random_state=2)
    table = calibrate(survey, checks).call_rate("wren")
    right = truth[truth["value"] == "yes"].groupby("site").size()
    assert table["site"].tolist() == list(SITES)
    assert table["windows"].tolist() == [1400, 1400]
    assert table["scored"].tolist() == truth.groupby("site").size().tolist()
    assert table["checks"].sum() == 150
    for row in table.itertuples():
        assert row.low <= right[row.site] / row.windows <= row.high
        assert row.high - row.low < 0.25
    assert table["rate"][1] > table["rate"][0]
    # When all are checked, nothing is left to be estimated.
    everything = calibrate(survey, truth).call_rate("wren", by=None)
    assert (
        everything.loc[0, ["low", "rate", "high"]].tolist()
        == [len(truth[truth["value"] == "yes"]) / 2800] * 3
    )
    with pytest.raises(bacpipe.BacpipeError, match="by='date'"):
        calibrate(survey, checks).call_rate("wren", by="date")


def test_rounds_of_a_plan_reach_the_width(survey):
    audio, results, truth = survey
    checks = None
    plan = bacpipe.review_plan(audio, MODEL, width=0.2, classes=["wren"], seed=1, **results)
    assert len(plan) == 16 and plan["stratum"].nunique() == 8
    assert plan.attrs["bacpipe"]["wren"]["checks"] == 0
    assert ((plan["inclusion_probability"] > 0) & (plan["inclusion_probability"] <= 1)).all()
    for _ in range(12):
        checks = heard(plan, truth) if checks is None else pd.concat([checks, heard(plan, truth)])
        assert not checks.duplicated(["recording", "start"]).any()  # nobody listens twice
        plan = bacpipe.review_plan(
            audio, MODEL, width=0.2, classes=["wren"], labels=checks, seed=1, **results
        )
        if plan.empty:
            break
    about = plan.attrs["bacpipe"]["wren"]
    assert about["width"] <= 0.2 and about["more"] == 0
    assert about["checks"] == len(checks) < 100
    row = calibrate(survey, checks).call_rate("wren", by=None).iloc[0]
    share = (row["high"] - row["low"]) * row["windows"] / row["scored"]
    assert math.isclose(share, about["width"], rel_tol=1e-6)


def test_a_wanted_precision_looks_at_what_is_above_its_threshold(survey):
    audio, results, truth = survey
    first = scored(truth).sample(24, random_state=3)
    checks = {}
    for precision in (None, 0.9):
        heard_so_far = first
        for _ in range(12):
            plan = bacpipe.review_plan(
                audio, MODEL, width=0.12, precision=precision, classes="wren", seed=1,
                labels=heard_so_far, **results,
            )  # fmt: skip
            if plan.empty:
                break
            if precision is not None:
                # Windows of a cell are alike to a thirtieth of the range of logits.
                assert plan["score"].min() > plan.attrs["bacpipe"]["wren"]["threshold"] - 0.05
            heard_so_far = pd.concat([heard_so_far, heard(plan, truth)])
        about = plan.attrs["bacpipe"]["wren"]
        assert about["width"] <= 0.12 and about["more"] == 0
        checks[precision] = len(heard_so_far)
    assert checks[0.9] < checks[None]
    # The share of right ones among all above is what the curve says there.
    above = scored(truth)[lambda table: table["score"] >= about["threshold"]]
    said = calibrate(survey, heard_so_far).probability("wren", above["score"].to_numpy()).mean()
    assert abs(said - (above["value"] == "yes").mean()) < 0.06
    # A threshold above all scores is none.
    plan = bacpipe.review_plan(
        audio, MODEL, precision=0.999999, classes="wren", labels=first, **results
    )
    assert plan.attrs["bacpipe"]["wren"]["threshold"] is None
    with pytest.raises(bacpipe.BacpipeError, match="precision=1 is not possible"):
        bacpipe.review_plan(audio, MODEL, precision=1, **results)


def test_the_plan_and_the_journal_of_people_belong_together(survey, caplog):
    audio, results, truth = survey
    plan = bacpipe.review_plan(audio, MODEL, classes=["owl"], seed=3, **results)
    with pytest.raises(bacpipe.BacpipeError, match="value"):
        bacpipe.label_windows(audio, plan, **results)  # nobody has listened yet
    bacpipe.label_windows(audio, heard(plan, truth), **results)
    with caplog.at_level(logging.WARNING):
        found = bacpipe.calibrate(audio, MODEL, **results)
    assert found.classes["owl"].checks == len(plan) and not caplog.records
    later = bacpipe.review_plan(audio, MODEL, classes=["owl"], seed=3, **results)
    assert later.attrs["bacpipe"]["owl"]["checks"] == len(plan)
    # Tables of detections get it, for this class only.
    table = bacpipe.detections_table(bacpipe.Loader(audio, MODEL, **results))
    owl = table["common_name"] == "owl"
    expected = found.probability("owl", table.loc[owl, "score"].to_numpy())
    assert np.allclose(table.loc[owl, "probability"], expected, atol=1e-6)
    assert table.loc[~owl, "probability"].isna().all()
    again = bacpipe.Calibration.load(found.save())
    assert again.path == found.path and again.path.name == f"{MODEL}.json"
    assert str(again.threshold("owl", 0.7)) == str(found.threshold("owl", 0.7))
    assert again.call_rate("owl").equals(found.call_rate("owl"))
    # A damaged file leaves the tables without probabilities, and says so.
    text = found.path.read_text()
    for damaged in (text[:200], "[]", text.replace('"slope": ', '"slope": "x", "was": '), "{}"):
        found.path.write_text(damaged)
        with pytest.raises(bacpipe.BacpipeError, match="damaged"):
            bacpipe.Calibration.load(found.path)
        caplog.clear()
        table = bacpipe.detections_table(bacpipe.Loader(audio, MODEL, **results))
        assert table["probability"].isna().all() and "damaged" in caplog.text
    found.path.write_text(json.dumps({**json.loads(text), "format": 2}))
    with pytest.raises(bacpipe.BacpipeError, match="newer"):
        bacpipe.Calibration.load(found.path)
    found.path.unlink()
    with pytest.raises(bacpipe.BacpipeError, match=r"bacpipe\.calibrate"):
        bacpipe.Calibration.load(found.path)


def test_without_checks_nothing_is_called_a_probability(survey):
    audio, results, truth = survey
    empty = scored(truth).iloc[:0]
    with pytest.raises(bacpipe.BacpipeError, match=r"no window .* was checked"):
        calibrate(survey, empty)
    found = calibrate(survey, scored(truth, "wren").head(30))
    with pytest.raises(bacpipe.BacpipeError, match=r"owl: none of its windows .*review_plan"):
        found.probability("owl", 0.9)
    with pytest.raises(bacpipe.BacpipeError, match=r"wrenn.*did you mean wren"):
        found.threshold("wrenn", 0.9)
    with pytest.raises(bacpipe.BacpipeError, match="expected numbers from 0 to 1"):
        found.probability("wren", [0.2, np.nan])
    with pytest.raises(bacpipe.BacpipeError, match="precision=1"):
        found.threshold("wren", 1)
    with pytest.raises(bacpipe.BacpipeError, match="width=0"):
        bacpipe.review_plan(audio, MODEL, width=0, **results)
    with pytest.raises(bacpipe.BacpipeError, match=r"no 'auk'.*"):
        bacpipe.review_plan(audio, MODEL, classes=["auk"], **results)


@pytest.mark.parametrize("value", ["yes", "no"])
def test_checks_that_all_agree_say_how_little_that_tells(survey, value, caplog):
    checks = scored(survey[2]).sample(10, random_state=1).assign(value=value)
    with caplog.at_level(logging.WARNING):
        found = calibrate(survey, checks)
    assert f"wren: all 10 checks say {value}" in caplog.text
    middle = found.probability("wren", float(checks["score"].median()))
    assert 0 < middle.low < middle.high < 1 and middle.high - middle.low > 0.03
    rate = found.call_rate("wren", by=None).iloc[0]
    assert rate["high"] - rate["low"] > 0.03
    threshold = found.threshold("wren", 0.9)
    if value == "yes":
        assert math.isclose(threshold, checks["score"].min(), rel_tol=1e-6)
        assert threshold.low == 0 and "lowest score checked" in threshold.note
    else:
        assert math.isnan(threshold) and "not reached" in str(threshold)


@pytest.mark.parametrize("value", ["yes", "no"])
def test_checks_that_all_agree_never_turn_the_curve(survey, value):
    truth = scored(survey[2]).sort_values("score")
    checks = (truth.head(20) if value == "yes" else truth.tail(20)).assign(value=value)
    found = calibrate(survey, checks)
    scores = np.linspace(0.1, 0.99, 30)
    p = found.classes["wren"].probability(scores)
    assert (np.diff(p) >= -1e-9).all()
    assert p.min() > 0.8 if value == "yes" else p.max() < 0.2
    assert math.isnan(found.threshold("wren", 0.9)) == (value == "no")


def test_a_precision_beyond_the_checks_is_not_extrapolated(survey):
    truth = scored(survey[2])
    low = truth[truth["score"].between(0.1, 0.5)].sample(120, random_state=1)
    found = calibrate(survey, low)
    threshold = found.threshold("wren", 0.95)
    assert math.isnan(threshold) and "not reached" in threshold.note
    assert "beyond" in found.probability("wren", 0.9).note
    assert not found.curve("wren", [0.3, 0.9])["checked"].tolist()[1]
    # Scores that do not tell right from wrong have no threshold either.
    wrong = truth.sample(200, random_state=2)
    turned = wrong.assign(value=np.where(wrong["score"] > 0.5, "no", "yes"))
    assert "not right more often" in calibrate(survey, turned).threshold("wren", 0.9).note


def test_odd_labels_are_left_out_with_a_sentence(survey, caplog):
    audio, results, truth = survey
    good = scored(truth).sample(40, random_state=3)
    below = truth[truth["label"] == "wren"].nsmallest(3, "score")
    others = good.head(2).assign(label="wrem")
    moved = good.head(4).assign(start=lambda t: t["start"] + 0.01)
    gone = good.head(1).assign(recording="west/a.wav")
    argued = good.head(5)
    against = argued.assign(value=np.where(argued["value"] == "yes", "no", "yes"), annotator="Ben")
    unsure = good.tail(2).assign(value="unsure")
    parts = [good.iloc[:-2], below, others, moved, gone, against, unsure]
    with caplog.at_level(logging.WARNING):
        found = calibrate(survey, pd.concat(parts))
    assert found.classes["wren"].checks == 40 - 5 - 2
    assert "'wrem' (did you mean 'wren'?)" in caplog.text
    assert "7 checks are of windows in which no score of the class is stored" in caplog.text
    assert "1 row left out, because the file is not among the recordings: west/a.wav" in caplog.text
    assert "people contradict each other on 5 labels" in caplog.text
    # The last word of one person holds; a majority of several decides.
    once = good.assign(time="1")
    twice = once.assign(value=np.where(once["value"] == "yes", "no", "yes"), time="2")
    assert calibrate(survey, pd.concat([twice, once])).classes["wren"].right == int(
        (twice["value"] == "yes").sum()
    )
    third = [good, good.assign(annotator="Ben"), against.assign(annotator="Cleo")]
    assert calibrate(survey, pd.concat(third)).classes["wren"].checks == 40
    with pytest.raises(bacpipe.BacpipeError, match="value 'perhaps'"):
        calibrate(survey, good.assign(value="perhaps"))
    with pytest.raises(bacpipe.BacpipeError, match=r"start.* missing"):
        calibrate(survey, good.drop(columns="start"))
    with pytest.raises(bacpipe.BacpipeError, match="DataFrame"):
        calibrate(survey, "labels.csv")
    with pytest.raises(bacpipe.BacpipeError):
        bacpipe.calibrate(audio, "birdnett", good, **results)


def test_intervals_hold_and_need_fewer_checks_than_four_bins():
    """A small version of benchmarks/calibration.py, whose other numbers are in the guide."""
    rng = np.random.default_rng(3)
    hits, checks = [], []
    for _ in range(4):
        item = survey_class(rng)
        width = float(np.diff(peers_interval(item, rng))[0])
        found = our_result(item, width, rng)
        hits.append(found.interval[0] <= item.right.mean() <= found.interval[1])
        checks.append(found.checks)
    assert sum(hits) >= 3
    assert np.median(checks) < 80


def test_low_scores_are_no_detections_but_can_be_checked(survey):
    audio, results, truth = survey
    loader = bacpipe.Loader(audio, MODEL, **results)
    everywhere = [item.score.min() for item in loader.detections()]
    table = bacpipe.detections_table(loader, classifier_threshold=0.01)
    assert min(everywhere) >= 0.1 and table["score"].min() >= 0.1
    # Of each recording and class the five best below the threshold are there.
    for item in loader.scores():
        mine = truth[truth["recording"] == item.recording]
        low = item.score < np.float32(0.1)
        for label in ("wren", "owl"):
            every = mine.loc[(mine["label"] == label) & (mine["score"] < np.float32(0.1)), "score"]
            stored = np.sort(item.score[low & (item.label == label)])
            np.testing.assert_allclose(stored, np.sort(every)[-5:], rtol=1e-5)
    plan = bacpipe.review_plan(audio, MODEL, classes="wren", seed=1, **results)
    assert plan["score"].min() >= 0.1
    lower = {**results, "classifier_threshold": 0.01}
    plan = bacpipe.review_plan(audio, MODEL, classes="wren", seed=1, **lower)
    assert plan["score"].min() < 0.1
    checks = scored(truth)
    plain = calibrate(survey, checks)
    found = calibrate(survey, pd.concat([checks, heard(plan, truth)[plan["score"] < 0.1]]))
    assert found.classes["wren"].lowest < 0.1 <= plain.classes["wren"].lowest
    one, all_ = (c.call_rate("wren", by=None).loc[0, "scored"] for c in (plain, found))
    lowest = plan["score"].min()
    counted = sum(
        int(((item.label == "wren") & (item.score >= lowest) & (item.score < 0.1)).sum())
        for item in loader.scores()
    )
    assert all_ == one + counted > one
    # Of lower scores not all windows are known, so nothing is said of their share of right ones.
    assert found.precision("wren")["threshold"].min() >= 0.1
