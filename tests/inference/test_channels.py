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
from bacpipe.errors import ResultsNotFoundError
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
