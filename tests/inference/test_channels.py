"""``channel='each'``: every channel has windows and results of its own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

import bacpipe
from bacpipe.errors import AnnotationsError, ResultsNotFoundError, SettingsError
from bacpipe.recognisers.labelled import labelled_windows
from bacpipe.store.verification import verify_results
from tests.conftest import TinyModel, write_recording

Run = Callable[..., bacpipe.Loader]


@pytest.fixture
def run_each(tmp_path: Path, tiny_model: type[TinyModel]) -> Run:
    folder = tmp_path / "card"
    write_recording(folder / "mono.wav", 2.5)
    noise = np.random.default_rng(0).uniform(-1, 1, 20000)
    loud = np.stack([noise * 0.1, noise * 0.9, noise * 0.5], axis=1)
    sf.write(folder / "three.wav", loud, 8000)

    def run(**settings: object) -> bacpipe.Loader:
        return bacpipe.generate_embeddings(
            **{
                "audio_dir": folder,
                "model_name": "tiny",
                "CustomModel": tiny_model,
                "main_results_dir": tmp_path / "results",
                "device": "cpu",
                "classifier_threshold": 0.0,
                "channel": "each",
                **settings,
            }
        )

    return run


def test_every_channel_has_windows_of_its_own(run_each: Run, tmp_path: Path) -> None:
    loader = run_each()
    embeddings = loader.embeddings()
    three, mono = embeddings["three_tiny.npy"], embeddings["mono_tiny.npy"]
    assert three.shape == (9, 10) and mono.shape == (3, 10)
    for number, name in enumerate(("left", "right")):  # as if each were a recording
        alone = run_each(channel=name).embeddings()["three_tiny.npy"]
        np.testing.assert_allclose(three[3 * number : 3 * number + 3], alone, atol=1e-6)
    loader = run_each()  # done before
    start, end = loader.window_times("three.wav")
    assert start.tolist() == [0, 1, 2] * 3 and end.tolist() == [1, 2, 2.5] * 3
    channels = loader.window_channels("three.wav")
    assert channels is not None and channels.tolist() == [1] * 3 + [2] * 3 + [3] * 3
    assert run_each(channel="mix").window_channels("three.wav") is None
    for look in (loader.window_times, loader.window_channels, loader.heard_windows):
        with pytest.raises(ResultsNotFoundError, match=r"gone\.wav: there are no windows of it"):
            look("gone.wav")
    assert verify_results(tmp_path / "results") == []


def test_tables_name_the_channel(run_each: Run, tmp_path: Path) -> None:
    loader = run_each(save_raven_tables=True, event_gap=0)
    frame = loader.predictions("dataframe")
    mine = frame[frame["audiofilename"] == "three.wav"]
    assert mine["channel"].tolist() == [1] * 3 + [2] * 3 + [3] * 3
    assert (mine.groupby("channel")["loud"].mean().rank() == [1, 3, 2]).all()
    folder = loader.paths.preds_path
    csv = pd.read_csv(folder / "tiny_classifier_annotations.csv")
    assert csv.groupby(["audiofilename", "channel"]).size().tolist() == [6, 6, 6, 6]
    for name in ("tiny_all_predictions.parquet", "tiny_detections.parquet"):
        table = pd.read_parquet(folder / name)
        assert set(table["channel"]) == {1, 2, 3}
    events = bacpipe.detections_table(loader, event_gap=0)
    loud = events[events["common_name"] == "loud"]
    assert loud.groupby("recording")["channel"].apply(list).to_dict() == {
        "mono.wav": [1],
        "three.wav": [2, 3, 1],  # by score, of equal start
    }
    raven = pd.read_csv(folder / "raven_tables" / "three_tiny.selection.table.txt", sep="\t")
    assert sorted(raven["Channel"]) == [1, 1, 2, 2, 3, 3]


def test_annotated_parts_of_every_channel(run_each: Run, tmp_path: Path) -> None:
    (tmp_path / "card" / "annotations.csv").write_text(
        "audiofilename,start,end,label:species\n"
        "three.wav,0.5,1.5,a\nthree.wav,1.5,2.6,b\nthree.wav,1.5,2.7,b\nmono.wav,0,1,a\n"
    )
    loader = run_each(only_embed_annotations=True)
    start, _ = loader.window_times("three.wav")
    assert start.tolist() == [0.5, 1.5] * 3
    channels = loader.window_channels("three.wav")
    assert channels is not None and channels.tolist() == [1, 1, 2, 2, 3, 3]
    assert loader.entries["three.wav"].parts == [(0.5, 1.5), (1.5, 2.5)]


@pytest.mark.parametrize(
    ("gains", "warned"),
    [((1, -1), True), ((1, -0.5), True), ((1, -0.3), False), ((1, 0, 0, 0), True), ((1, 0), False)],
)
def test_channels_that_cancel_are_told(
    tmp_path: Path, tiny_model: type[TinyModel], caplog: pytest.LogCaptureFixture,
    gains: tuple[float, ...], warned: bool,
) -> None:  # fmt: skip
    """If their mean is more than 10 dB below the loudest of them."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 16000)
    (tmp_path / "card").mkdir()
    sf.write(tmp_path / "card" / "a.wav", np.stack([gain * noise for gain in gains], axis=1), 8000)
    with caplog.at_level(logging.WARNING, logger="bacpipe"):
        bacpipe.generate_embeddings(
            audio_dir=tmp_path / "card",
            model_name="tiny",
            CustomModel=tiny_model,
            main_results_dir=tmp_path / "results",
        )
    assert ("dB below the loudest" in caplog.text) == warned


@pytest.mark.parametrize("channel", ["each", "right"])
def test_clips_hold_the_channel_that_was_heard(run_each: Run, tmp_path: Path, channel: str) -> None:
    loader = run_each(channel=channel)
    bacpipe.export(loader, "clips", tmp_path / "clips", species_list=["loud"], pad=0.0)
    table = pd.read_csv(tmp_path / "clips" / "clips.csv")
    table = table[(table["common_name"] == "loud") & (table["recording"] == "three.wav")]
    assert len(table) == (3 if channel == "each" else 1)  # an event for each channel
    assert ("channel" in table) == (channel == "each")
    for row in table.to_dict("records"):
        clip, rate = sf.read(tmp_path / "clips" / row["clip"])
        whole, _ = sf.read(loader.audio_dir / "three.wav")
        part = whole[round(row["start"] * rate) : round(row["end"] * rate)]
        np.testing.assert_allclose(clip, part[:, row.get("channel", 2) - 1], atol=1e-3)


@pytest.fixture
def two_sounds(tmp_path: Path) -> bacpipe.Loader:
    """A hum at the start of each second: first in channel 2, later in 1; each for itself."""
    rng = np.random.default_rng(3)
    hum, rest = np.repeat([[0.9, 0.1], [0.02, 0.1]], 4000, axis=1)
    first, second = np.tile(rest, 5), np.tile(hum, 5)
    gain = np.stack([np.append(first, second), np.append(second, first)], axis=1)
    (tmp_path / "card").mkdir()
    sf.write(tmp_path / "card" / "two.wav", rng.uniform(-1, 1, gain.shape) * gain, 8000)
    write_recording(tmp_path / "card" / "mono.wav", 3.0)
    return bacpipe.generate_embeddings(
        audio_dir=tmp_path / "card", model_name="tiny", CustomModel=TinyModel, device="cpu",
        main_results_dir=tmp_path / "results", classifier_threshold=0.0, channel="each",
    )  # fmt: skip


def test_search_with_a_window_of_a_channel(
    two_sounds: bacpipe.Loader, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    query = {"recording": "two.wav", "start": 1.0, "channel": 2}
    table = bacpipe.search(query, loader=two_sounds, k=30)
    assert table.loc[0, ["recording", "start", "channel"]].to_dict() == query
    alike = table[table["recording"] == "two.wav"].head(10)  # all that hum come first
    assert set(zip(alike["channel"], alike["start"] < 5, strict=True)) == {(2, True), (1, False)}
    row = table.iloc[3].to_dict()  # a row of a table is a query
    assert bacpipe.search(row, loader=two_sounds, k=1).loc[0, "start"] == row["start"]
    assert "channel 1" not in caplog.text
    first = bacpipe.search(("two.wav", 1.0), loader=two_sounds, k=1)
    assert first.loc[0, "channel"] == 1 and "channel 1" in caplog.text  # which is said
    with pytest.raises(SettingsError, match="channel=3"):
        bacpipe.search({**query, "channel": 3}, loader=two_sounds)
    mixed = bacpipe.generate_embeddings(
        audio_dir=two_sounds.audio_dir, model_name="tiny", CustomModel=TinyModel, device="cpu",
        main_results_dir=tmp_path / "mixed",
    )  # fmt: skip
    with pytest.raises(SettingsError, match="leave it out"):
        bacpipe.search(query, loader=mixed)
    path = two_sounds.audio_dir / "two.wav"  # a clip is heard as the model hears: each channel
    clip = bacpipe.search(path, loader=two_sounds, start=0, end=1, CustomModel=TinyModel, k=30)
    rows = two_sounds.embeddings("array")[[3, 13]]
    mean = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).mean(axis=0)
    assert clip["similarity"].to_numpy() == pytest.approx(
        bacpipe.search(mean, loader=two_sounds, k=30)["similarity"].to_numpy(), abs=0.02
    )


def test_labels_are_of_the_channel_that_was_heard(
    two_sounds: bacpipe.Loader, tmp_path: Path
) -> None:
    """What is learnt, proposed, counted and checked is what somebody heard."""
    audio, where = two_sounds.audio_dir, {"main_results_dir": tmp_path / "results"}
    settings = {**where, "channel": "each", "classifier_threshold": 0.0}
    rows = [
        {"recording": "two.wav", "start": float(s), "end": s + 1.0, "channel": c, "label": "hum",
         "value": "yes" if (c == 2) == (s < 5) else "no"}
        for s in (0, 1, 2, 3, 6, 7, 8) for c in (1, 2)
    ]  # fmt: skip
    assert bacpipe.label_windows(audio, rows, "Ana", **where) == 14
    table = bacpipe.settled_labels(bacpipe.people_labels(audio, **where))
    assert table.groupby("value")["channel"].count().to_dict() == {"no": 7, "yes": 7}
    found = bacpipe.train_recogniser(audio, "tiny", name="hum", **settings)
    scores = found.predict(two_sounds)[:, 0]
    mono = two_sounds.entries["mono.wav"].windows
    first, second = scores[mono : mono + 10], scores[mono + 10 :]
    assert (second[:5] > first[:5] + 0.2).all() and (first[5:] > second[5:] + 0.2).all()
    left = bacpipe.suggest(audio, "hum", n=30, loader=two_sounds)
    left = left[left["recording"] == "two.wav"]
    assert sorted(zip(left["start"], left["channel"], strict=True)) == [
        (s, c) for s in (4, 5, 9) for c in (1, 2)
    ]
    plan = bacpipe.review_plan(audio, "tiny", classes="loud", seed=0, **settings)
    heard = two_sounds.predictions("dataframe").set_index(["audiofilename", "channel", "start"])
    for row in plan.to_dict("records"):
        score = heard.loc[(row["recording"], row["channel"], row["start"]), "loud"]
        assert score == pytest.approx(row["score"], abs=1e-6)
    checks = [{**row, "label": "loud"} for row in rows]
    bacpipe.label_windows(audio, checks, "Ana", **where)
    checked = bacpipe.calibrate(audio, "tiny", save=False, **settings)
    assert "1 class, 14 checks" in repr(checked)
    # What hums is loud: no check was laid onto the other channel's window of the same seconds.
    assert checked.probability("loud", 0.25) > 0.6 > 0.4 > checked.probability("loud", 0.03)
    undone = {**rows[0], "value": "undo"}
    bacpipe.label_windows(audio, undone, "Ana", **where)
    now = bacpipe.people_labels(audio, **where)
    now = now[(now["label"] == "hum") & (now["start"] == 0)]
    assert now["channel"].tolist() == [2]  # the other channel's stays


def test_a_label_without_a_channel_is_of_all(two_sounds: bacpipe.Loader, tmp_path: Path) -> None:
    audio, where = two_sounds.audio_dir, {"main_results_dir": tmp_path / "results"}
    mono = {"recording": "mono.wav", "start": 0, "end": 1, "label": "hum", "channel": 1}
    bacpipe.label_windows(audio, mono, "Ana", **where)
    table = bacpipe.people_labels(audio, **where)
    assert "channel" not in table  # a recording with one channel has none to name
    with pytest.raises(AnnotationsError, match=r"row 1 is 3.*from 1 to 2"):
        bacpipe.label_windows(audio, {**mono, "recording": "two.wav", "channel": 3}, "Ana", **where)
    rows = [
        {"recording": "two.wav", "start": s, "end": s + 1, "label": "hum", "value": v}
        for s, v in ((0, "yes"), (3, "no"))
    ]
    bacpipe.label_windows(audio, rows, "Ana", **where)
    found = labelled_windows(
        two_sounds, bacpipe.settled_labels(bacpipe.people_labels(audio, **where))
    )
    assert found.rows.tolist() == [0, 3, 6, 13, 16]
    assert found.values[:, 0].tolist() == [1, 1, 0, 1, 0]


def test_ground_truth_is_of_the_channel_that_was_heard(
    two_sounds: bacpipe.Loader, tmp_path: Path
) -> None:
    audio, where = two_sounds.audio_dir, {"main_results_dir": tmp_path / "results"}
    rows = [
        {"recording": "two.wav", "start": s, "end": s + 1, "label": "hum", "channel": c}
        for s, c in ((0, 2), (1.5, 2), (7, 1), (9, None))
    ]
    bacpipe.label_windows(audio, rows, "Ana", **where)
    for channel, expected in (("each", [[7, 9], [0, 1, 2, 9]]), ("right", [[0, 1, 2, 9]]),
                              ("mix", [[0, 1, 2, 7, 9]])):  # fmt: skip
        bacpipe.generate_embeddings(
            audio_dir=audio, model_name="tiny", CustomModel=TinyModel, device="cpu",
            channel=channel, classifier_threshold=0.0, **where,
        )  # fmt: skip
        truth = bacpipe.ground_truth_by_model(
            "tiny", audio, label_column="species", single_label=True, labels_from="people",
            annotation_overlap=0.4, channel=channel, overwrite=True, **where,
        )  # fmt: skip
        codes = truth["label:species"]
        mono = two_sounds.entries["mono.wav"].windows
        found = codes[mono:].reshape(-1, 10)
        assert [np.flatnonzero(part >= 0).tolist() for part in found] == expected, channel
    (path,) = bacpipe.export_people_labels(audio, tmp_path / "raven", format="raven", **where)
    assert pd.read_csv(path, sep="\t")["Channel"].tolist() == [2, 2, 1, 1]


def test_kaleidoscope_names_the_channel(two_sounds: bacpipe.Loader, tmp_path: Path) -> None:
    bacpipe.export(two_sounds, "kaleidoscope", tmp_path / "out", species_list=["loud"],
                   min_score=0.1, event_gap=0)  # fmt: skip
    table = pd.read_csv(next((tmp_path / "out").glob("*.csv")))
    table = table[table["IN FILE"] == "two.wav"]
    assert table.groupby("CHANNEL")["OFFSET"].min().to_dict() == {0: 5, 1: 0}
