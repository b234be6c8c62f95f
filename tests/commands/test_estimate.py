from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import bacpipe
from bacpipe.__main__ import main
from bacpipe.commands.estimate import (
    Estimate,
    Measurement,
    Survey,
    estimate_models,
    measure,
    predict,
    survey,
)
from bacpipe.errors import AudioError, BacpipeError, UnknownModelError
from bacpipe.models.zoo import CARDS
from bacpipe.options import make_options
from tests.conftest import TinyModel, write_recording


def embedder(model: object = TinyModel, **settings: object) -> bacpipe.Embedder:
    return bacpipe.Embedder("tiny", CustomModel=model, device="cpu", **settings)


def test_a_survey_adds_up_the_headers(recordings: Path) -> None:
    (recordings / "broken.wav").write_text("not audio")
    found = survey(bacpipe.get_audio_files(recordings))
    assert (found.recordings, found.examined, found.unreadable) == (6, 6, 1)
    assert found.hours * 3600 == pytest.approx(13.5)
    assert {path.name for path in found.readable} == {"a.wav", "b.wav", "c.flac", "top.wav"}


def test_a_sample_stands_for_all(tmp_path: Path) -> None:
    for i in range(12):
        write_recording(tmp_path / f"{i}.wav", 2.0, seed=i)
    found = survey(bacpipe.get_audio_files(tmp_path), most=4)
    assert (found.recordings, found.examined, found.scale) == (12, 4, 3.0)
    assert found.hours * 3600 == pytest.approx(24.0)


def test_a_folder_without_audio_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("not audio")
    with pytest.raises(AudioError, match=r"none of 1 recording can be read.*a\.wav"):
        survey(bacpipe.get_audio_files(tmp_path))


def test_hours_and_bytes_are_extrapolated_from_windows() -> None:
    # 10 s are 4 windows of 3 s, 3 s are one: 5 windows of 2 recordings, of 200 in the folder.
    found = Survey(200, 2, 0, np.array([10.0, 3.0]), (Path("a.wav"), Path("b.wav")))
    measured = Measurement(50.0, 1024, 0.0, "decode")
    said = predict("birdnet", found, measured, sample_rate=100, window=300, hop=300)
    assert said.hours * 3600 == pytest.approx(500 / 50)
    assert said.times_real_time == pytest.approx(1300 / 10)
    assert 500 * 4 * 1024 < said.bytes < 500 * 4 * 1024 + 200 * 4000
    # With overlap, the 10 s are 6 windows.
    half = predict("birdnet", found, measured, sample_rate=100, window=300, hop=150)
    assert half.hours * 3600 == pytest.approx(700 / 50)
    loud = Measurement(50.0, 1024, 2.0, "decode")
    more = predict("birdnet", found, loud, sample_rate=100, window=300, hop=300)
    assert more.bytes > said.bytes


def test_the_size_of_results_is_about_that_of_a_run(recordings: Path, tmp_path: Path) -> None:
    for i in range(30):
        write_recording(recordings / "more" / f"{i}.wav", 4.0, seed=i)
    model = embedder()
    found = survey(bacpipe.get_audio_files(recordings))
    measured = measure(model, found.readable, 0.3)
    said = predict("tiny", found, measured, sample_rate=8000, window=8000, hop=8000)
    bacpipe.generate_embeddings(
        model_name="tiny",
        audio_dir=recordings,
        CustomModel=TinyModel,
        main_results_dir=tmp_path / "results",
        device="cpu",
    )
    size = sum(p.stat().st_size for p in (tmp_path / "results").rglob("*") if p.is_file())
    assert size / 4 < said.bytes < 4 * size


def test_measuring_writes_nothing_and_leaves_no_threads(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    threads = set(threading.enumerate())
    measured = measure(embedder(), survey(bacpipe.get_audio_files(recordings)).readable, 0.2)
    assert measured.dim == 10
    assert measured.windows_per_second > 0
    # Of two classes, one is at least 0.5 for every window.
    assert measured.predictions_per_window == pytest.approx(1.0)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert set(threading.enumerate()) <= threads  # those of other tests may end meanwhile


def test_a_known_speed_is_measured(recordings: Path) -> None:
    class Slow(TinyModel):
        concurrent = False

        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            time.sleep(0.02 * len(x))
            return super().__call__(x)

    files = bacpipe.get_audio_files(recordings)
    measured = measure(embedder(Slow), files, 0.6)
    # Sleeping takes 20 ms per window, at least; a busy machine only makes it slower.
    assert 10 < measured.windows_per_second <= 55
    assert measured.slowest == "model"


def test_a_model_that_fails_is_an_error(recordings: Path) -> None:
    class Broken(TinyModel):
        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            raise ValueError("no such layer")

    with pytest.raises(BacpipeError, match="no such layer"):
        measure(embedder(Broken), bacpipe.get_audio_files(recordings), 0.2)


def test_models_without_weights_get_a_sentence(recordings: Path, tmp_path: Path) -> None:
    found = survey(bacpipe.get_audio_files(recordings))
    options = make_options(model_base_path=tmp_path / "models", device="cpu")
    said = list(estimate_models(["mix2"], found, options, seconds=0.2))
    assert len(said) == 1
    assert isinstance(said[0], str)
    assert "mix2" in said[0]
    assert "not on this machine" in said[0]
    assert not (tmp_path / "models").exists()
    with pytest.raises(UnknownModelError, match="birdnet"):
        list(estimate_models(["birdnett"], found, options, seconds=0.2))


def test_the_command_prints_a_table_and_what_is_missing(
    recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [f"audio_dir={recordings}", "models=[mix2, birdnet]", "device=cpu"]
    words += [f"model_base_path={tmp_path / 'models'}", "--seconds", "0.2"]
    assert main(["bench", *words]) == 0
    shown = capsys.readouterr().out
    assert "5 recordings, 0.0 h of audio" in shown
    assert "mix2: its weights are not on this machine" in shown
    row = next(line for line in shown.splitlines() if line.startswith("birdnet "))
    assert row.split()[1] != "0.0"
    assert not (tmp_path / "bacpipe_results").exists()


def test_without_audio_dir_demo_recordings_are_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["models=mix2", "device=cpu", f"model_base_path={tmp_path / 'models'}"]
    assert main(["bench", *words]) == 1  # not one model could run
    shown = capsys.readouterr().out
    assert "demo recordings" in shown
    assert "12 recordings" in shown
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_shows_what_was_measured(
    recordings: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object, **settings: object) -> object:
        yield Estimate("birdnet", 100.0, 300.0, "model", 2.0, 10**9)
        raise KeyboardInterrupt

    monkeypatch.setattr("bacpipe.commands.estimate.estimate_models", interrupted)
    assert main(["bench", f"audio_dir={recordings}"]) == 130
    shown = capsys.readouterr()
    assert "birdnet  100.0      300          model          2.0 h         1.0 GB" in shown.out
    assert "Interrupted" in shown.err


@pytest.mark.parametrize(("word", "code"), [("models=5", 2), ("models=[birdnett]", 1)])
def test_impossible_models_get_a_sentence(
    recordings: Path, capsys: pytest.CaptureFixture, word: str, code: int
) -> None:
    assert main(["bench", f"audio_dir={recordings}", word]) == code
    errors = capsys.readouterr().err
    assert word.removeprefix("models=").strip("[]") in errors
    assert "Traceback" not in errors


def test_all_stands_for_every_model(
    recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def none_here(models: list[str], *arguments: object, **settings: object) -> list[str]:
        asked.extend(models)
        return [f"{name}: not here" for name in models]

    monkeypatch.setattr("bacpipe.commands.estimate.estimate_models", none_here)
    assert main(["bench", f"audio_dir={recordings}", "models=all"]) == 1
    assert asked == list(CARDS)
    assert f"{asked[-1]}: not here" in capsys.readouterr().out
