"""An Embedder can be copied, and sent to other processes, before and after it has run."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import bacpipe
from bacpipe.inference.report import RunReport
from bacpipe.inference.runner import ModelRunner
from tests.conftest import TinyModel, needs_shared_audio, write_recording


def pickled(thing: object) -> object:
    return pickle.loads(pickle.dumps(thing))


COPIES = pytest.mark.parametrize("again", [copy.deepcopy, copy.copy, pickled])
Again = Callable[[object], object]


@COPIES
@pytest.mark.parametrize("used", [False, True])
def test_a_copy_embeds_as_the_original_does(tmp_path: Path, again: Again, used: bool) -> None:
    path = write_recording(tmp_path / "a.wav", 3.5)
    embedder = bacpipe.Embedder("tiny", CustomModel=TinyModel, device="cpu", hop=0.5)
    if used:
        embedder.get_embeddings_from_model(path)
        embedder.get_embeddings_for_audio(embedder.prepare_audio(path))
    other = again(embedder)
    assert isinstance(other, bacpipe.Embedder)
    np.testing.assert_array_equal(
        other.get_embeddings_from_model(path), embedder.get_embeddings_from_model(path)
    )
    np.testing.assert_array_equal(other.classifier.predictions, embedder.classifier.predictions)
    assert other.report.windows == 6
    assert other.hop == embedder.hop == 4000


@COPIES
def test_a_copy_runs_over_its_data_set(recordings: Path, tmp_path: Path, again: Again) -> None:
    loader = bacpipe.Loader(
        recordings, "tiny", use_folder_structure=True, main_results_dir=tmp_path / "results"
    )
    embedder = bacpipe.Embedder("tiny", loader, CustomModel=TinyModel)
    embedder.run_inference_pipeline_using_multithreading()
    other = again(embedder)
    assert isinstance(other, bacpipe.Embedder)
    assert other.report.done == 5
    assert str(other.report) == str(embedder.report)
    result = other.run_inference_pipeline_using_multithreading()
    assert other.report.kept == 5
    np.testing.assert_array_equal(result.embeddings("array"), loader.embeddings("array"))


@COPIES
def test_a_reducer_is_copied(again: Again) -> None:
    embedder = bacpipe.Embedder("birdnet", dim_reduction_model="pca")
    embeddings = np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32)
    other = again(embedder)
    assert isinstance(other, bacpipe.Embedder)
    np.testing.assert_array_equal(
        other.get_embeddings_from_model(embeddings), embedder.get_embeddings_from_model(embeddings)
    )


@COPIES
def test_a_runner_gets_locks_of_its_own(again: Again) -> None:
    runner = ModelRunner(TinyModel(), scores=True, top=2)
    windows = np.random.default_rng(2).uniform(-1, 1, (3, 8000)).astype(np.float32)
    expected = runner(windows)
    other = again(runner)
    assert isinstance(other, ModelRunner)
    assert other._lock is not runner._lock
    np.testing.assert_array_equal(other(windows).embeddings, expected.embeddings)


@COPIES
def test_a_report_goes_on_counting(again: Again) -> None:
    report = RunReport("tiny")
    report.add_time("decode", 1.0)
    other = again(report)
    assert isinstance(other, RunReport)
    assert other == report
    other.add_time("model", 1.0)
    assert other.stages["model"] == 1.0


@needs_shared_audio
@COPIES
def test_birdnet_is_copied_after_use(again: Again) -> None:
    embedder = bacpipe.Embedder("birdnet", device="cpu")
    audio = np.random.default_rng(0).uniform(-0.1, 0.1, 3 * 144_000).astype(np.float32)
    expected = embedder.embeddings_using_multithreading(audio)
    other = again(embedder)
    assert isinstance(other, bacpipe.Embedder)
    np.testing.assert_allclose(other.embeddings_using_multithreading(audio), expected, atol=1e-5)


def test_an_embedder_works_in_another_process(tmp_path: Path) -> None:
    path = write_recording(tmp_path / "a.wav", 3.5)
    embedder = bacpipe.Embedder("tiny", CustomModel=TinyModel, device="cpu")
    expected = embedder.get_embeddings_from_model(path)
    (tmp_path / "embedder.pickle").write_bytes(pickle.dumps(embedder))
    code = (
        "import pathlib, pickle, sys, numpy; folder = pathlib.Path(sys.argv[1]);"
        "embedder = pickle.loads((folder / 'embedder.pickle').read_bytes());"
        "found = embedder.get_embeddings_from_model(folder / 'a.wav');"
        "numpy.save(folder / 'found.npy', found)"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, cwd=root)
    np.testing.assert_array_equal(np.load(tmp_path / "found.npy"), expected)
