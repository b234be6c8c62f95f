"""Recorders whose clocks were reset."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

import bacpipe
from bacpipe.audio.clock_jumps import find_clock_jumps
from tests.conftest import TinyModel, write_recording


def dated(*days: str) -> np.ndarray:
    return np.array(days, "M8[us]")


@pytest.mark.parametrize(
    ("days", "early"),
    [
        (("2018-01-01", "2023-05-01", "2023-05-02"), [0]),
        (("2023-05-01", "2023-05-02", "2023-01-01T00:00:07", "2023-01-01T01"), []),  # a half
        (("2023-05-01", "2023-05-02", "2023-05-03", "2023-01-01T00:00:07"), [3]),
        (("2023-02-01", "2023-05-02", "2023-05-03"), []),  # a break between visits
        (("2021-02-01", "2023-05-02", "NaT", "2023-05-03"), [0]),
        (("2022-05-01", "2022-05-02", "2023-05-01", "2023-05-02"), []),  # two seasons
        (("2023-01-01", "2023-01-02", "2023-01-03"), []),
        (("2023-05-01",), []),
        ((), []),
    ],
)
def test_few_recordings_long_before_the_others(days: tuple[str, ...], early: list[int]) -> None:
    names = [f"A/{'abcd'[i]}.wav" for i in range(len(days))]
    found = find_clock_jumps(names, dated(*days))
    assert found.early == [names[i] for i in early] and not found.backwards


def test_dates_that_run_backwards_in_the_order_of_numbers() -> None:
    names = ["A/REC9.WAV", "A/REC10.WAV", "A/REC11.WAV", "B/REC1.WAV", "B/20230501_050000.wav"]
    days = dated("2023-05-01", "2023-05-02", "2022-03-01", "2021-01-01", "2023-05-01")
    assert find_clock_jumps(names, days).backwards == [("A/REC10.WAV", "A/REC11.WAV")]
    hour = dated("2023-05-01", "2023-05-02T02", "2023-05-02T01", "NaT", "NaT")
    assert find_clock_jumps(names, hour).backwards == []  # summer time ends


def test_a_run_says_it_once_and_changes_nothing(
    tmp_path: Path, tiny_model: type[TinyModel], caplog: pytest.LogCaptureFixture
) -> None:
    names = ("20180101_000010.wav", "20230501_050000.wav", "20230502_050000.wav")
    for name in names:
        write_recording(tmp_path / "card" / name, 1.0)
    results = tmp_path / "results"
    bacpipe.generate_embeddings(
        audio_dir=tmp_path / "card", model_name="tiny", CustomModel=tiny_model,
        main_results_dir=results,
    )  # fmt: skip
    with caplog.at_level(logging.WARNING, logger="bacpipe"):
        for _ in range(2):
            labels = bacpipe.get_default_labels(
                "tiny", audio_dir=tmp_path / "card", main_results_dir=results, overwrite=True
            )
    assert caplog.text.count("1 recording dated long before all others of the same folder") == 1
    assert "20180101_000010.wav" in caplog.text and "taken as they are" in caplog.text
    assert str(labels["continuous_timestamp"][0]).startswith("2018-01-01")
