from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import bacpipe
from bacpipe.inference.report import (
    STAGES,
    RunProgress,
    RunReport,
    Slowest,
    advice,
    slowest_stage,
)
from tests.conftest import TinyModel, write_recording


def test_the_slowest_stage_is_that_of_the_busiest_threads() -> None:
    threads = {"decoders": 1, "workers": 4, "writers": 1}
    seconds = {"decode": 5.0, "resample": 3.0, "model": 20.0, "preprocess": 4.0, "write": 2.0}
    # The model took the most seconds, but in four threads: six of each against eight.
    found = slowest_stage(seconds, threads, wall=10.0, blocked=2.0)
    assert found == Slowest("decode", pytest.approx(5 / 34), pytest.approx(0.8))
    threads["decoders"] = 2
    assert slowest_stage(seconds, threads, wall=10.0, blocked=12.0) == Slowest(
        "model", pytest.approx(20 / 34), pytest.approx(0.6)
    )
    # Nobody kept the decoders waiting: it is they who hold the run up, also if one of them was
    # the last to have a recording.
    threads["decoders"] = 8
    assert slowest_stage(seconds, threads, wall=10.0) == Slowest(
        "decode", pytest.approx(5 / 34), pytest.approx(1.0)
    )
    threads["decoders"] = 0  # by turns, in one thread
    found = slowest_stage(seconds, {**threads, "workers": 1}, wall=34.0)
    assert found == Slowest("model", pytest.approx(20 / 34), pytest.approx(24 / 34))
    assert slowest_stage({}, threads, wall=10.0) is None
    assert slowest_stage({"model": 0.0}, threads, wall=10.0) is None


@pytest.mark.parametrize(
    ("stage", "busy", "decoders", "gpu_here", "word"),
    [
        ("decode", 0.9, 1, False, "nr_parallel_workers=2"),
        ("resample", 0.9, 1, False, "nr_parallel_workers=2"),
        ("resample", 0.9, 4, False, "sample rate"),
        ("decode", 0.9, 4, False, "disk"),
        ("decode", 0.9, 0, False, "avoid_pipelined_gpu_inference=false"),
        ("write", 0.9, 1, False, "main_results_dir"),
        ("model", 0.9, 1, True, "device=cuda"),
        ("model", 0.9, 1, False, None),
        ("decode", 0.3, 1, False, None),
    ],
)
def test_advice_names_what_helps(
    stage: str, busy: float, decoders: int, gpu_here: bool, word: str | None
) -> None:
    said = advice(
        Slowest(stage, 0.5, busy),
        {"decoders": decoders},
        recordings=10,
        cores=4,
        device="cpu",
        gpu_here=gpu_here,
    )
    assert (said is None) if word is None else (said is not None and word in said)


def test_fewer_recordings_than_decoders_are_said() -> None:
    said = advice(
        Slowest("decode", 0.9, 1.0), {"decoders": 1}, recordings=1, cores=16, device="cuda",
        gpu_here=True,
    )  # fmt: skip
    assert said is not None
    assert "each recording is decoded by one thread" in said


def test_the_summary_names_shares_and_the_slowest_stage() -> None:
    report = RunReport("birdnet", done=3, windows=10, audio_seconds=30, wall_seconds=10)
    report.threads = {"decoders": 1, "workers": 2, "writers": 1}
    report.cores, report.blocked_seconds = 2, 1.0
    for stage, seconds in {"decode": 9.0, "model": 10.0, "write": 1.0}.items():
        report.add_time(stage, seconds)
    text = str(report)
    assert "model 50 %, decode 45 %, write 5 % of the seconds that threads worked" in text
    assert "slowest stage" in text
    assert "decode, its threads busy 90 % of the time" in text
    assert "nr_parallel_workers=2" in text
    report.wall_seconds = 1
    assert "nr_parallel_workers" not in str(report)  # too short to tell


@pytest.mark.parametrize("slow", ["decode", "preprocess", "model"])
def test_a_run_finds_its_slow_stage(
    slow: str, recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(TinyModel):
        def preprocess(self, audio: torch.Tensor) -> torch.Tensor:
            time.sleep(0.1 if slow == "preprocess" else 0)
            return super().preprocess(audio)

        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            time.sleep(0.1 if slow == "model" else 0)
            return super().__call__(x)

    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # a disk may be slower than all
    run_once(TinyModel, recordings, tmp_path / "first", monkeypatch, 0.0)  # imports a lot
    report = run_once(Slow, recordings, tmp_path, monkeypatch, 0.2 if slow == "decode" else 0.0)
    assert set(report.stages) == set(STAGES)
    assert all(seconds >= 0 for seconds in report.stages.values())
    assert report.slowest is not None
    assert report.slowest.stage == slow
    assert report.stages["resample"] > 0  # one of the recordings is at another rate


def run_once(
    model: type[TinyModel],
    recordings: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pause: float,
) -> RunReport:
    decode: Callable = bacpipe.Embedder.decode

    def slow_decode(self: bacpipe.Embedder, source: object) -> Iterator[np.ndarray]:
        time.sleep(pause)
        return (yield from decode(self, source))

    monkeypatch.setattr(bacpipe.Embedder, "decode", slow_decode)
    loader = bacpipe.Loader(
        recordings, "tiny", use_folder_structure=True, main_results_dir=tmp_path / "results"
    )
    embedder = bacpipe.Embedder("tiny", loader, CustomModel=model)
    embedder.run_inference_pipeline_using_multithreading()
    return embedder.report


def test_time_spent_on_resampling_is_told_apart(tmp_path: Path) -> None:
    from bacpipe.audio.stream import AudioStream

    same = write_recording(tmp_path / "same.wav", 1.0)
    other = write_recording(tmp_path / "other.wav", 1.0, rate=16000)
    for path, expected in ((same, False), (other, True)):
        with AudioStream(path, 8000) as stream:
            for _ in stream:
                pass
            assert bool(stream.resample_seconds) is expected


def test_a_run_without_the_model_claims_no_speed() -> None:
    # Predictions with another threshold come from embeddings that are stored.
    report = RunReport("birdnet", done=4, windows=51, audio_seconds=150)
    report.add_time("write", 0.2)
    text = str(report)
    assert "recordings done       4" in text
    assert "speed" not in text
    assert "slowest stage" not in text


def use(progress: RunProgress) -> None:
    progress.advance(500, 1800.0)
    progress.advance(500, 1800.0)
    progress.close()


def test_nobody_watches_nothing_is_printed(capsys: pytest.CaptureFixture) -> None:
    use(RunProgress("birdnet", 2, 1000))
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""


def test_a_terminal_shows_recordings_hours_and_speed(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    use(RunProgress("birdnet", 2, 1000))
    shown = capsys.readouterr().err
    assert "birdnet: 100%" in shown
    assert "2/2 recordings, 1.00 h" in shown
    assert "× real time" in shown
