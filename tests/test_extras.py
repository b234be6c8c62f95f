"""What an extra that is absent, incomplete or broken is answered with."""

from __future__ import annotations

import builtins
import sys
from pathlib import Path
from typing import Any

import pytest

import bacpipe
from bacpipe import extras
from bacpipe.errors import AnnotationsError, BacpipeError, ModelUnavailableError
from bacpipe.models.loading import find_card, import_wrapper
from tests.conftest import TinyModel, write_recording

WRAPPERS = {"bats": "batdetect2_clip_avg", "onnx": "perch_v2", "tensorflow": "vggish"}


def break_imports(monkeypatch: pytest.MonkeyPatch, package: str, error: Exception) -> None:
    """Make every import of a package fail, as in an installation that lacks it."""
    genuine = builtins.__import__

    def refuse(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name.partition(".")[0] == package:
            raise error
        return genuine(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", refuse)
    # Modules of ours that hold what they have imported already.
    for name in [name for name in sys.modules if name.startswith("bacpipe.models.")]:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize(("extra", "model"), WRAPPERS.items())
def test_an_extra_that_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, extra: str, model: str
) -> None:
    package = {"bats": "batdetect2", "onnx": "onnxruntime"}.get(extra, extra)
    monkeypatch.setattr(extras, "versions", lambda _: {package: extras.MISSING})
    break_imports(monkeypatch, package, ModuleNotFoundError("no", name=package))
    with pytest.raises(ModelUnavailableError) as raised:
        import_wrapper(find_card(model))
    assert f"needs the package {package}, which is not installed" in str(raised.value)
    assert f'pip install -c constraints.txt ".[{extra}]"' in str(raised.value)


def test_what_an_installed_extra_lacks_is_named_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "versions", lambda _: {"batdetect2": "1.3.1"})
    break_imports(monkeypatch, "batdetect2", ModuleNotFoundError("no", name="audioread.ffdec"))
    with pytest.raises(ModelUnavailableError) as raised:
        import_wrapper(find_card("batdetect2_clip_avg"))
    assert str(raised.value) == (
        "The model 'batdetect2_clip_avg' needs batdetect2 1.3.1, which is installed but itself "
        "needs the package 'audioread', which is missing; install it with: pip install audioread"
    )


def test_several_packages_are_spoken_of_in_the_plural(monkeypatch: pytest.MonkeyPatch) -> None:
    two, error = {"umap-learn": extras.MISSING, "numba": extras.MISSING}, ImportError("no")
    for found, sentence in (
        (two, "needs the packages umap-learn and numba, which are not installed; install them"),
        (
            two | {"numba": "0.6"},
            "needs the package umap-learn, which is not installed; install it",
        ),
        (dict.fromkeys(two, "1"), "needs umap-learn 1 and numba 1, which are installed but cannot"),
    ):
        monkeypatch.setattr(extras, "versions", lambda _, found=found: found)
        assert sentence in extras.cannot_import("UMAP", "umap", error)
    monkeypatch.setattr(extras, "versions", lambda _: dict.fromkeys(two, "1"))
    gone = ModuleNotFoundError("no", name="llvmlite")
    assert "which are installed but need the package 'llvmlite'" in extras.cannot_import(
        "UMAP", "umap", gone
    )


def test_an_installed_extra_that_breaks_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "versions", lambda _: {"batdetect2": "1.3.1"})
    break_imports(monkeypatch, "batdetect2", ImportError("undefined symbol:\n _ZN2at4_ops"))
    with pytest.raises(ModelUnavailableError, match=r"undefined symbol: _ZN2at4_ops.*force-reinst"):
        import_wrapper(find_card("batdetect2_clip_avg"))


@pytest.mark.parametrize(
    ("extra", "model", "package", "error"),
    [
        ("onnx", "perch_v2", "onnxruntime",
         ImportError("DLL load failed while importing onnxruntime_pybind11_state: The specified "
                     "module could not be found.",
                     name="onnxruntime.capi.onnxruntime_pybind11_state")),
        ("onnx", "perch_v2", "onnxruntime", OSError(126, "The specified module was not found")),
        ("tensorflow", "vggish", "tensorflow", RuntimeError("compiled against ABI version 0x1")),
        ("tensorflow", "vggish", "tensorflow", TypeError("Descriptors cannot be created directly")),
        ("bats", "batdetect2_clip_avg", "batdetect2", ImportError()),
    ],
)  # fmt: skip
def test_a_broken_package_is_a_sentence_and_the_other_models_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    extra: str, model: str, package: str, error: Exception,
) -> None:  # fmt: skip
    monkeypatch.setattr(extras, "versions", lambda _: {package: "9.9"})
    audio = tmp_path / "audio"
    write_recording(audio / "a.wav", 2.0)
    break_imports(monkeypatch, package, error)
    with pytest.raises(BacpipeError) as raised:
        bacpipe.play(
            audio_dir=audio,
            main_results_dir=tmp_path / "results",
            models=[model, "tiny"],
            CustomModels=[None, TinyModel],
        )
    reason = " ".join(str(error).split()) or "ImportError"
    assert (
        f"needs {package} 9.9, which is installed but cannot be imported ({reason}); install "
        in (str(raised.value))
    )
    # Asked for anew by the name of bacpipe, pip would replace it by the older one of the index.
    assert f"--force-reinstall -c constraints.txt {package} (in the folder" in str(raised.value)
    assert "bacpipe[" not in str(raised.value)
    assert ("Visual C++" in str(raised.value)) is ("DLL" in str(error))
    assert "recordings done       1" in capsys.readouterr().out


def test_formats_that_need_a_broken_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_recording(tmp_path / "a.wav", 1.0)
    (tmp_path / "a.TextGrid").write_text("x")
    monkeypatch.setattr(extras, "versions", lambda _: {"crowsetta": "5"})
    break_imports(monkeypatch, "crowsetta", OSError("libxml2.so.2: cannot open"))
    with pytest.raises(AnnotationsError, match=r"crowsetta 5, which .*libxml2.*reinstall"):
        bacpipe.import_annotations(tmp_path / "a.TextGrid", tmp_path, format="textgrid")


def test_extras_ask_for_what_their_packages_forget() -> None:
    """batdetect2 imports audioread without asking for it."""
    assert set(extras.versions("bats")) == {"batdetect2", "audioread"}
    assert set(extras.versions("nonsense")) == set()


def test_a_clone_that_is_not_installed_has_no_extras(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert extras.versions("onnx") == {}
    assert extras.version("numpy") == extras.MISSING
