"""Several models in one run: each recording is decoded once, and results are as of runs alone."""

from __future__ import annotations

import _thread
import logging
import os
import re
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import soxr
import torch

import bacpipe
import bacpipe.inference.decoding
import bacpipe.inference.together
import bacpipe.store.embedding_set
from bacpipe.errors import BacpipeError, ResultsLockedError
from bacpipe.inference.batches import BatchBuffer
from bacpipe.store.lock import exclusive
from tests.conftest import TinyModel, write_recording
from tests.faults.kill_runs import StillClock, differences, tree


class Wide(TinyModel):
    """Other rate, window, batch and classes than the tiny model."""

    def __init__(self, **kwargs: Any) -> None:
        bacpipe.ModelBaseClass.__init__(
            self, sr=22050, segment_length=30000, batch_size=3, **kwargs
        )
        self.classes = ["a", "b", "c"]

    def classifier_predictions(self, embeddings: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(embeddings[:, :3])


class Same(TinyModel):
    """The tiny model's rate with a window of a third, and no classes."""

    def __init__(self, **kwargs: Any) -> None:
        bacpipe.ModelBaseClass.__init__(self, sr=8000, segment_length=2660, batch_size=7, **kwargs)
        self.classes = []

    def preprocess(self, audio: torch.Tensor) -> torch.Tensor:
        return audio.abs().reshape(len(audio), 10, -1)


MODELS = {"tiny": TinyModel, "wide": Wide, "same": Same}


@pytest.fixture(autouse=True)
def still_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bacpipe.store.embedding_set, "datetime", StillClock)


@pytest.fixture(autouse=True)
def free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a machine that does nothing else."""
    monkeypatch.setattr(bacpipe.inference.together, "free_memory", lambda: 10**12)


@pytest.fixture
def field(tmp_path: Path) -> Path:
    """Recordings of several rates, channels, formats and lengths, of which one is broken."""
    folder = tmp_path / "field"
    for number in range(8):
        name = f"site{number % 2}/{number}.{'flac' if number % 3 else 'wav'}"
        rate, channels = [8000, 22050, 16000][number % 3], 1 + number % 2
        write_recording(
            folder / name, 1.3 * number + 0.4, rate=rate, channels=channels, seed=number
        )
    (folder / "site0" / "broken.wav").write_bytes(b"RIFF, but no more")
    rows = "audiofilename,start,end,label:species\nsite1/5.flac,1,3,x\nsite0/6.wav,0.5,2.5,y\n"
    (folder / "annotations.csv").write_text(rows + "site1/1.flac,90,91,x\n")
    return folder


def at_once(field: Path, results: Path, models: dict[str, type] = MODELS, **settings: Any) -> Any:
    return bacpipe.run_pipeline_for_models(
        list(models),
        field,
        CustomModels=list(models.values()),
        main_results_dir=results,
        device="cpu",
        **settings,
    )


def alone(field: Path, results: Path, name: str, **settings: Any) -> bacpipe.Loader:
    return bacpipe.generate_embeddings(
        model_name=name,
        audio_dir=field,
        CustomModel=MODELS[name],
        main_results_dir=results,
        device="cpu",
        **settings,
    )


def one_by_one(field: Path, results: Path, **settings: Any) -> dict[str, str]:
    """Tree of runs of one model each; the folder is empty again afterwards."""
    for name in MODELS:
        alone(field, results, name, **settings)
    found = tree(results)
    shutil.rmtree(results)
    return found


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"hop": 0.25, "padding": "constant", "save_raven_tables": True},
        {"channel": "each", "nr_parallel_workers": 1},
        {"channel": "loudest", "bool_change_speed": True, "new_speed": 0.5},
        {"only_embed_annotations": True},
        {"allow_truncated": True, "run_pretrained_classifier": False},
    ],
    ids=lambda settings: "-".join(settings) or "default",
)
def test_results_are_those_of_separate_runs(
    field: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    if settings.get("allow_truncated"):
        cut = field / "site1" / "7.flac"
        cut.write_bytes(cut.read_bytes()[:-9000])
    settings = {"nr_parallel_workers": 1, **settings}
    expected = one_by_one(field, tmp_path / "results", **settings)
    at_once(field, tmp_path / "results", **settings)
    found = tree(tmp_path / "results")
    assert not differences(found, expected)
    assert sum(name.endswith(".npy") for name in found) >= 2 * len(MODELS)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each recording is opened to be decoded, and how often anything is resampled."""
    count: Counter[str] = Counter()
    open_stream, resampler = bacpipe.inference.decoding.AudioStream, soxr.ResampleStream

    def opened(path: Path, *args: Any, **kwargs: Any) -> Any:
        count[path.name] += 1
        return open_stream(path, *args, **kwargs)

    def resampled(source: float, target: float, *args: Any, **kwargs: Any) -> Any:
        count[f"to {target}"] += 1
        return resampler(source, target, *args, **kwargs)

    monkeypatch.setattr(bacpipe.inference.decoding, "AudioStream", opened)
    monkeypatch.setattr(soxr, "ResampleStream", resampled)
    return count


def test_each_recording_is_decoded_once_and_resampled_once_per_rate(
    field: Path, tmp_path: Path, counted: Counter[str]
) -> None:
    loaders = at_once(field, tmp_path / "results")
    assert {name: counted.pop(name) for name in [*counted] if name[:2] != "to"} == {
        path.name: 1 for path in field.rglob("*.*") if path.suffix in {".wav", ".flac"}
    }
    # Of eight recordings, three have 8 kHz already, and three have 22.05 kHz.
    assert counted == {"to 8000": 5, "to 22050": 5}
    assert [len(loader.entries) for loader in loaders.values()] == [8, 8, 8]


def test_each_model_computes_only_what_it_lacks(
    field: Path, tmp_path: Path, counted: Counter[str]
) -> None:
    results = tmp_path / "results"
    expected = one_by_one(field, results)
    alone(field, results, "tiny", recordings=["site0"])
    alone(field, results, "same", recordings=["site1/1.flac", "site0/0.wav", "site1/3.wav"])
    counted.clear()
    fresh = {name: type(name, (kind,), {"windows_seen": 0}) for name, kind in MODELS.items()}
    for name, kind in fresh.items():
        kind.__name__, kind.__qualname__ = MODELS[name].__name__, MODELS[name].__qualname__
        kind.__module__ = MODELS[name].__module__
    loaders = at_once(field, results, fresh)
    windows = {
        name: {entry.file: entry.windows for entry in loader.entries.values()}
        for name, loader in loaders.items()
    }
    done = {
        "tiny": [name for name in windows["tiny"] if name.startswith("site0")],
        "same": ["site1/1.flac", "site0/0.wav", "site1/3.wav"],
        "wide": [],
    }
    for name, kind in fresh.items():
        missing = sum(windows[name].values()) - sum(windows[name][file] for file in done[name])
        assert kind.windows_seen == missing, name
    assert not differences(tree(results), expected)
    assert max(number for name, number in counted.items() if name[:2] != "to") == 1
    counted.clear()
    at_once(field, results)  # there is nothing left
    assert counted == {"broken.wav": 1}


class Choosy(TinyModel):
    """Cannot do what is loud."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if (x.mean(dim=(1, 2)) > 0.35).any():
            raise ValueError("too loud for me")
        return super().__call__(x)


class Useless(TinyModel):
    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        raise ValueError("I never work")


def test_what_one_model_cannot_do_concerns_no_other(
    field: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = one_by_one(field, tmp_path / "results")
    models = {
        "choosy": Choosy,
        "tiny": TinyModel,
        "useless": Useless,
        **MODELS,
        "locked": TinyModel,
    }
    held = tmp_path / "results" / "field" / "embeddings"
    with exclusive(held, "locked"):
        loaders = at_once(field, tmp_path / "results", models)
    assert set(loaders) == {"choosy", "tiny", "wide", "same"}
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert any(re.match("useless: .* fails whatever it is given", text) for text in errors)
    assert any(text.startswith("locked: ") for text in errors)
    failed = [text for text in caplog.messages if "too loud for me" in text]
    assert 0 < len(failed) < 8
    assert len(loaders["choosy"].entries) == 8 - len(failed)
    found = {
        name: digest
        for name, digest in tree(tmp_path / "results").items()
        if not re.search("choosy|useless|locked|README", name)
    }
    expected.pop("field/README.txt")  # names the models
    assert not differences(found, expected)


def test_if_no_model_works_the_first_reason_is_raised(field: Path, tmp_path: Path) -> None:
    held = exclusive(tmp_path / "results" / "field" / "embeddings", "a")
    with held, pytest.raises(ResultsLockedError, match="a is being written"):
        at_once(field, tmp_path / "results", {"a": TinyModel, "b": Useless})


def test_an_error_of_ours_is_raised_when_the_others_are_done(
    field: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = bacpipe.inference.run_data_set.write_prediction_tables

    def broken(loader: bacpipe.Loader, *recent: object) -> None:
        if loader.model_name == "tiny":
            raise RuntimeError("a fault of ours")
        write(loader, *recent)

    monkeypatch.setattr(bacpipe.inference.run_data_set, "write_prediction_tables", broken)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        at_once(field, tmp_path / "results")
    assert (tmp_path / "results/field/evaluations/wide/predictions/wide_detections.csv").exists()


def test_models_that_do_not_fit_run_after_the_others_which_is_said(
    field: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    counted: Counter[str],
) -> None:
    expected = one_by_one(field, tmp_path / "results")
    counted.clear()
    free = iter([10**10, 10**9])  # for the second model, not for the third
    monkeypatch.setattr(bacpipe.inference.together, "free_memory", lambda: next(free))
    caplog.set_level(logging.INFO)
    at_once(field, tmp_path / "results")
    assert not differences(tree(tmp_path / "results"), expected)
    assert counted["5.flac"] == 2
    said = [text for text in caplog.messages if "runs after" in text]
    assert len(said) == 1
    assert re.match("same runs after .*of memory, 1.0 GB are free, and it may need", said[0])


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.timeout(60)
def test_an_interrupt_ends_all_runs_properly(
    field: Path, tmp_path: Path, keep: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted, told = threading.Event(), threading.Event()

    class Waiting(TinyModel):
        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            if interrupted.is_set():
                assert told.wait(30)
            return super().__call__(x)

    class Interrupting(Waiting):
        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            if type(self).windows_seen > 8 and not interrupted.is_set():
                interrupted.set()
                _thread.interrupt_main()
            return super().__call__(x)

    break_off = BatchBuffer.break_off

    def break_off_and_tell(buffer: BatchBuffer, error: BaseException) -> None:
        break_off(buffer, error)
        told.set()

    monkeypatch.setattr(BatchBuffer, "break_off", break_off_and_tell)
    models = {"first": Interrupting, "second": Waiting}
    with pytest.raises(KeyboardInterrupt):
        at_once(field, tmp_path / "results", models, rm_embedding_on_keyboard_interrupt=not keep)
    assert not bacpipe_threads()
    done = {name: [*(tmp_path / "results").rglob(f"*_{name}.npy")] for name in models}
    assert all(0 < len(files) < 8 if keep else not files for files in done.values())
    before = {name: kind.windows_seen for name, kind in models.items()}
    loaders = at_once(field, tmp_path / "results", models)
    for name, loader in loaders.items():
        assert len(loader.entries) == 8
        total = sum(entry.windows for entry in loader.entries.values())
        seen = models[name].windows_seen - before[name]
        assert 0 < seen < total if keep else seen == total


def bacpipe_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("bacpipe")]


@pytest.mark.parametrize("models", [["tiny"], ["tiny", "wide"]])
@pytest.mark.timeout(60)
def test_ctrl_c_while_threads_that_decode_are_started_ends_the_run(
    field: Path, tmp_path: Path, models: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = ThreadPoolExecutor.submit

    def interrupted(pool: ThreadPoolExecutor, *call: Any) -> Any:
        if not pool._thread_name_prefix.startswith("bacpipe-decoder"):
            return submit(pool, *call)
        submit(pool, *call)
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(ThreadPoolExecutor, "submit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        at_once(field, tmp_path / "results", {name: MODELS[name] for name in models})
    end = time.monotonic() + 20
    while bacpipe_threads() and time.monotonic() < end:
        time.sleep(0.01)  # who decodes is at a recording, and told to end
    assert not bacpipe_threads()
    assert len([*(tmp_path / "results").rglob("*.npy")]) < 8


@pytest.mark.parametrize("models", [["tiny"], ["tiny", "wide"]])
@pytest.mark.timeout(60)
def test_a_computer_without_any_thread_left_ends_the_run(
    field: Path, tmp_path: Path, models: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("bacpipe-decoder"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        at_once(field, tmp_path / "results", {name: MODELS[name] for name in models})


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one's own process")
@pytest.mark.timeout(60)
def test_ctrl_c_is_heeded_while_stored_embeddings_are_classified(
    field: Path, tmp_path: Path
) -> None:
    classified: list[int] = []

    class Slow(TinyModel):
        def classifier_predictions(self, embeddings: torch.Tensor) -> torch.Tensor:
            classified.append(len(embeddings))
            if len(classified) == 1:
                os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.5)
            return super().classifier_predictions(embeddings)

    models = {"tiny": Slow, "wide": Wide}
    at_once(field, tmp_path / "results", models, run_pretrained_classifier=False)
    assert not classified
    with pytest.raises(KeyboardInterrupt):
        at_once(field, tmp_path / "results", models)
    assert 1 <= len(classified) < 8


def test_reports_share_what_was_decoded_for_all(
    field: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bacpipe.play(
        audio_dir=field,
        models=list(MODELS),
        CustomModels=list(MODELS.values()),
        main_results_dir=tmp_path / "results",
        device="cpu",
        dashboard=False,
    )
    assert capsys.readouterr().out.count("× real time, 3 models at once") == 3


def test_threads_of_pytorch_are_put_back(field: Path, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    at_once(field, tmp_path / "results")
    assert torch.get_num_threads() == before
    others: list[int] = []
    thread = threading.Thread(target=lambda: others.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert others == [before]


def test_a_failing_decoder_thread_is_an_error_of_the_recording(
    field: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode: Callable[..., Any] = bacpipe.inference.together.decode_together

    def broken(source: Any, **kwargs: Any) -> Any:
        blocks = decode(source, **kwargs)
        if source.name == "site1/5.flac":
            yield next(blocks)
            raise MemoryError
        return (yield from blocks)

    monkeypatch.setattr(bacpipe.inference.together, "decode_together", broken)
    loaders = at_once(field, tmp_path / "results")
    assert [len(loader.entries) for loader in loaders.values()] == [7, 7, 7]
    monkeypatch.undo()
    with pytest.raises(BacpipeError):
        at_once(tmp_path / "nowhere", tmp_path / "results")
