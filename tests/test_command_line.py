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
from bacpipe.errors import CheckpointNotFoundError
from bacpipe.models.weights import checkpoints
from bacpipe.user_input import quoted
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
        (["--audio_dir", "my field"], 2, f"without dashes: {quoted('audio_dir=my field')}\n"),
        (["dashboard", "--audio-dir=field"], 2, "without dashes: audio_dir=field\n"),
        (["audio_dir=field", "hop=1", "hop=2"], 2, "hop is given twice, as hop=1 and as hop=2;"),
        (["audio_dir=field", "hop=010"], 2, "expected a number above 0"),
        (["audio_dir=field", "latitude=52:30", "longitude=13"], 2, "a number from -90 to 90"),
        (["audio_dir=field", "probe_configs={knn: {}, knn: {}}"], 2, "knn is given twice;"),
        (["audio_dir=$NOWHERE/field"], 2, "the environment has no variable NOWHERE"),
        (["calls", "audio_dir=field", "models=bat"], 2, "expected --model NAME"),
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
        (["audio_dir='null'"], {"audio_dir": "null"}),
        (["moved_from=2024"], {"moved_from": "2024"}),
        (
            ["audio_dir=[2024] data", "main_results_dir=res", "models=[birdnet]"],
            {"audio_dir": "[2024] data", "main_results_dir": "res", "models": ["birdnet"]},
        ),
        (
            ["main_results_dir='old", "hop=1", "models='birdnet'"],
            {"main_results_dir": "'old", "hop": 1, "models": "birdnet"},
        ),
        (["range_threshold=1e-3"], {"range_threshold": 0.001}),
        (["hop=1E+0", "latitude=-5.5e1"], {"hop": 1.0, "latitude": -55.0}),
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
    _, errors = process.communicate(timeout=240)
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


def test_a_folder_in_brackets_takes_no_words_behind_it(folder: Path) -> None:
    (folder / "[2024] data").mkdir()
    assert parse_words(["audio_dir=[2024] data", "unknown=[x]"]) == {
        "audio_dir": "[2024] data",
        "unknown": ["x"],
    }


@pytest.mark.parametrize(
    "words",
    [
        ["demo", "audio_dir=x"],
        ["label", "audio_dir=x", "--export", "main_results_dir=y"],
        ["search", "a.wav", "--csv", "audio_dir=x"],
        ["--config", "audio_dir=x"],
    ],
)
def test_a_setting_is_no_name_of_a_file(
    folder: Path, capsys: pytest.CaptureFixture, words: list[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "is a setting; expected the name of a file or folder" in capsys.readouterr().err
    assert not list(folder.iterdir())


def test_files_and_folders_of_options_may_begin_with_a_tilde_or_a_variable(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("HOME", str(folder / "home"))
    monkeypatch.setenv("USERPROFILE", str(folder / "home"))
    monkeypatch.setenv("DATA_OF_MINE", str(folder / "data"))
    assert main(["--config", "~/mine.yaml"]) == 2
    assert str(folder / "home" / "mine.yaml") in capsys.readouterr().err
    assert main(["demo", "$DATA_OF_MINE/trial"]) == 0
    assert [path.name for path in folder.iterdir()] == ["data"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["models", "--all"], "--all belongs to bacpipe models get and check"),
        (["models", "--report", "x.md"], "--report belongs to bacpipe models check"),
        (["models", "check", "birdnet", "--names"], "--names belongs to bacpipe models get"),
        (["models", "get", "birdnet", "--report", "x.md"], "--report belongs to bacpipe models"),
        (["models", "get", "birdnet", "--all"], "--all means all models, birdnet some"),
        (["classes", "--species", "Strix aluco", "--search", "owl"], "--search belongs to one"),
        (["label", "audio_dir=field", "--annotator", "Ana"], "--annotator Ana says who heard"),
        (["label", "audio_dir=field", "--format", "raven"], "--format raven is that of a TABLE"),
        (["label", "audio_dir=field", "t.csv", "--export", "x"], "so t.csv has no use there"),
        (["export", "csv", "--to", "x", "destination=y"], "--to x and destination=y say the same"),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    folder: Path, capsys: pytest.CaptureFixture, words: list[str], expected: str
) -> None:
    write_recording(folder / "field" / "a.wav")
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert expected in " ".join(capsys.readouterr().err.split())


def test_an_index_is_written_into_no_table(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["search", "--build-index", "audio_dir=field", "--csv", "x.csv"]) == 2
    assert "finds nothing to write to x.csv" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["models", "get", "bat"], ["classes", "bat"]])
def test_weights_are_where_settings_beside_the_user_say(
    folder: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
) -> None:
    where: list[Path] = []

    def missing(card: object, base: Path, *_: object, **__: object) -> object:
        where.append(Path(base))
        raise CheckpointNotFoundError("none here.")

    monkeypatch.setattr(checkpoints, "resolve", missing)
    monkeypatch.setattr(checkpoints, "missing_files", missing)
    (folder / "settings.yaml").write_text("model_base_path: my weights\n")
    assert main(command) == 1
    assert {*where} == {Path("my weights")}
