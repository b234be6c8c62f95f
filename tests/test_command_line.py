from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import bacpipe
from bacpipe.__main__ import main
from bacpipe.commands.arguments import parse_words
from tests.conftest import needs_shared_audio, write_recording


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_help_and_version(capsys: pytest.CaptureFixture) -> None:
    for option, expected in (("--help", "audio_dir=/data"), ("--version", bacpipe.__version__)):
        with pytest.raises(SystemExit) as ended:
            main([option])
        assert ended.value.code == 0
        assert expected in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (["audio_dir=nowhere"], 1, "nowhere"),
        (["modles=[birdnet]"], 2, "'models'"),
        (["models=[brdnet]", "audio_dir=field"], 1, "birdnet"),
        (["device=gpu"], 2, "cuda"),
        (["brdnet"], 2, "key=value"),
        (["models=[birdnet"], 2, "lists are written"),
        (["--config", "absent.yaml"], 2, "absent.yaml"),
        (["classifier_threshold=high"], 2, "0 to 1"),
        (["field"], 2, "did you mean audio_dir=field?"),
        (["my field"], 2, "with quotes"),
        (["birdnet"], 2, "did you mean models=birdnet?"),
        (["doctr"], 2, "did you mean bacpipe doctor?"),
        (["help"], 2, "did you mean bacpipe --help?"),
        (["audio_dir", "=", "field"], 2, "without spaces around the ="),
        (["audio_dir=", "field"], 2, "has no value"),
        (["mine.yaml"], 2, "--config mine.yaml"),
        (["config=mine.yaml"], 2, "--config mine.yaml"),
        (["--audio_dir", "my field"], 2, 'as "audio_dir=my field".'),
        (["dashboard", "--audio-dir=field"], 2, "as audio_dir=field."),
        (["audio_dir=field", "models=birdnet,brdnet"], 1, "no model 'brdnet'"),
        (["audio_dir=field", "models=birdnet beats"], 1, "as a list: [birdnet, beats]"),
    ],
)
def test_mistakes_get_a_sentence_and_an_exit_code(
    folder: Path, capsys: pytest.CaptureFixture, words: list[str], code: int, expected: str
) -> None:
    write_recording(folder / "field" / "a.wav")
    assert main(words) == code
    errors = capsys.readouterr().err
    assert expected in errors
    assert "Traceback" not in errors
    assert not (folder / "bacpipe_results").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["models=[birdnet,", "beats]"], {"models": ["birdnet", "beats"]}),
        (["models='[birdnet,", "beats]'", "hop=1"], {"models": ["birdnet", "beats"], "hop": 1}),
        (["models=birdnet, beats"], {"models": ["birdnet", "beats"]}),
        (["audio_suffixes=.wav,.flac"], {"audio_suffixes": [".wav", ".flac"]}),
        (["audio_dir=2024"], {"audio_dir": "2024"}),
        (["audio_dir=2024-05-01 #2: new"], {"audio_dir": "2024-05-01 #2: new"}),
        (["audio_dir='C:\\my", "rec'"], {"audio_dir": "C:\\my rec"}),
        (["audio_dir=null"], {"audio_dir": None}),
        (["audio_dir=a=b"], {"audio_dir": "a=b"}),
        (["audio_dir=f\udcfcr"], {"audio_dir": "f\udcfcr"}),  # a name that is not UTF-8
    ],
)
def test_words_mean_what_people_mean(words: list[str], expected: dict[str, object]) -> None:
    assert parse_words(words) == expected


@pytest.mark.parametrize("command", [[], ["calls"], ["doctor"], ["models", "check"]])
def test_settings_may_stand_on_both_sides_of_options(
    folder: Path, capsys: pytest.CaptureFixture, command: list[str]
) -> None:
    option = ["--report", "x"] if command[:1] == ["models"] else ["--settings", "none.yaml"]
    assert main([*command, "hop=1", *option, "hopp=2"]) == 2
    assert "none.yaml" in (told := capsys.readouterr().err) or "did you mean 'hop'" in told


def test_verify_looks_where_the_settings_put_results(
    folder: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["verify"]) == 1
    assert "bacpipe_results" in capsys.readouterr().err
    (folder / "settings.yaml").write_text("main_results_dir: mine\n")
    assert main(["verify"]) == 1
    assert "mine" in capsys.readouterr().err


def test_names_that_the_terminal_cannot_show_are_spelled_out(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bacpipe", "demo", "Übung"],
        cwd=folder,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "\\xdcbung" in done.stdout


def test_no_file_that_can_be_embedded_exits_with_1(
    folder: Path, capsys: pytest.CaptureFixture
) -> None:
    (folder / "field").mkdir()
    (folder / "field" / "a.wav").write_text("not audio")
    assert main(["audio_dir=field", "device=cpu"]) == 1
    assert "a.wav" in capsys.readouterr().err


def test_files_beside_the_user_are_read_and_the_command_line_wins(
    folder: Path, capsys: pytest.CaptureFixture
) -> None:
    write_recording(folder / "field" / "a.wav", 3.0)
    (folder / "config.yaml").write_text("audio_dir: elsewhere\nmodels: birdnet\n")
    (folder / "settings.yaml").write_text("main_results_dir: mine\nclassifier_threshold: 0.2\n")
    assert main(["--save-logs", "audio_dir=field", "device=cpu"]) == 0
    assert "recordings done       1" in capsys.readouterr().out
    assert list(folder.glob("mine/field/embeddings/*___birdnet-field/a_birdnet.npy"))
    assert "0.2" in next(folder.glob("mine/field/logs/*_settings.yaml")).read_text()
    (folder / "settings.yaml").write_text("main_results_dirr: mine\n")
    assert main(["audio_dir=field"]) == 2
    assert "settings.yaml" in capsys.readouterr().err


def test_the_first_run_needs_nothing(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["demo", "trial"]) == 0
    assert "audio_dir=trial" in capsys.readouterr().out
    assert (folder / "trial" / "annotations.csv").is_file()
    (folder / "trial").rename(folder / "bacpipe_demo")
    assert main(["testing=true", "device=cpu"]) == 0
    loader = bacpipe.Loader(folder / "bacpipe_demo", "birdnet", testing=True)
    assert len(loader.entries) == 3
    assert loader.embeddings("array").shape[1] == 1024
    assert list(loader.predictions("dataframe").columns[:3]) == ["audiofilename", "start", "end"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for children")
def test_ctrl_c_exits_with_130_and_says_how_to_go_on(tmp_path: Path) -> None:
    for i in range(40):
        write_recording(tmp_path / "field" / f"{i}.wav", 30.0, rate=48000, seed=i)
    command = [sys.executable, "-m", "bacpipe", "audio_dir=field", "device=cpu"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    while process.poll() is None and not list(tmp_path.rglob("*.npy")):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "run the same command again" in errors
    assert "Traceback" not in errors
    assert not list(tmp_path.rglob("*.bacpipe-tmp"))


@needs_shared_audio
def test_real_recordings_in_many_rates_run_together(folder: Path) -> None:
    from tests.conftest import SHARED

    bats = SHARED / "audio" / "bats"
    assert main([f"audio_dir={bats}", "device=cpu", "bool_change_speed=true"]) == 0
    loader = bacpipe.Loader(bats, "birdnet", bool_change_speed=True)
    assert len(loader.entries) == 4
    # Slowed ten times, 3 s windows are 0.3 s of the recording.
    start, end = loader.window_times("Audiomoth.WAV")
    assert start[1] == pytest.approx(0.3)
    assert end[-1] <= loader.entries["Audiomoth.WAV"].duration
