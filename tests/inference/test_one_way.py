"""Every public way to embed gives the same numbers, under the same settings and checks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import bacpipe
from bacpipe.errors import BacpipeError, SettingsError
from bacpipe.inference import audio_handler
from bacpipe.models.zoo import CARDS
from tests.conftest import TinyModel, write_recording

Way = Callable[[bacpipe.Embedder, Path], np.ndarray]


@pytest.fixture(autouse=True)
def _bfloat16_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the processor have it: any can emulate it."""
    monkeypatch.setattr(audio_handler, "processor_has_bfloat16", lambda: True)


class Linear(TinyModel):
    """Products of matrices, which bfloat16 rounds; notes how many windows each call gets."""

    most = 1000

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.rand(800, 16, generator=generator) / 800
        self.calls: list[int] = []

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        self.calls.append(len(x))
        if len(x) > self.most:
            raise torch.OutOfMemoryError("out of memory")
        return (x @ self.weight).mean(dim=1)


class Unstable(Linear):
    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        found = super().__call__(x)
        found[-1, 0] = torch.nan
        return found


class Shapeless(Linear):
    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return super().__call__(x)[:, None]


class Impossible(Linear):
    def classifier_predictions(self, embeddings: torch.Tensor) -> torch.Tensor:
        return super().classifier_predictions(embeddings) * torch.nan


class Greedy(Linear):
    most = 0


def one_batch(embedder: bacpipe.Embedder, path: Path) -> np.ndarray:
    return embedder.batch_inference([embedder.prepare_audio(path)])


def in_batches(embedder: bacpipe.Embedder, path: Path) -> np.ndarray:
    return embedder.batch_inference(embedder.init_dataloader(embedder.prepare_audio(path)))


def preprocessed(embedder: bacpipe.Embedder, path: Path) -> np.ndarray:
    return embedder.get_embeddings_for_audio(embedder.prepare_audio(path))


def own_preprocessing(embedder: bacpipe.Embedder, path: Path) -> np.ndarray:
    windows = embedder.window_audio(embedder.load_and_resample(path)[0])
    return embedder.get_embeddings_for_audio(embedder.model.preprocess(windows))


def a_file(embedder: bacpipe.Embedder, path: Path) -> np.ndarray:
    return embedder.get_embeddings_from_model(path)


def an_array(embedder: bacpipe.Embedder, path: Path) -> np.ndarray:
    return embedder.embeddings_using_multithreading(embedder.load_and_resample(path)[0].numpy())


def its_windows(embedder: bacpipe.Embedder, path: Path) -> np.ndarray:
    windows = embedder.window_audio(embedder.load_and_resample(path)[0]).numpy()
    return embedder.embeddings_using_multithreading(windows)


def annotated(embedder: bacpipe.Embedder, path: Path) -> np.ndarray:
    windows, _ = embedder.only_load_annotated_segments(path, [(0, 100)])
    return embedder.embeddings_using_multithreading(windows.numpy())


IN_MEMORY = (
    one_batch,
    in_batches,
    preprocessed,
    own_preprocessing,
    a_file,
    an_array,
    its_windows,
    annotated,
)


def a_data_set(embedder: bacpipe.Embedder, path: Path, *, threads: bool) -> np.ndarray:
    loader = bacpipe.Loader(
        path.parent,
        "linear",
        use_folder_structure=True,
        main_results_dir=path.parent.parent / f"results {threads}",
        **{key: getattr(embedder.options, key) for key in ("global_batch_size", "precision")},
    )
    runs = bacpipe.Embedder("linear", loader, CustomModel=embedder.model)
    if threads:
        loader = runs.run_inference_pipeline_using_multithreading()
    else:
        loader = runs.run_inference_pipeline_sequentially()
    return loader.embeddings("array")


def threaded(embedder: bacpipe.Embedder, path: Path) -> np.ndarray:
    return a_data_set(embedder, path, threads=True)


def sequential(embedder: bacpipe.Embedder, path: Path) -> np.ndarray:
    return a_data_set(embedder, path, threads=False)


WAYS = (*IN_MEMORY, threaded, sequential)


def name_of(way: Way) -> str:
    return way.__name__


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_recording(tmp_path / "field" / "a.wav", 10.5)


def embedder(model: type = Linear, **settings: object) -> bacpipe.Embedder:
    return bacpipe.Embedder("linear", CustomModel=model, device="cpu", **settings)


def by_hand(path: Path) -> np.ndarray:
    model = Linear()
    windows = embedder().window_audio(embedder().load_and_resample(path)[0])
    return model(model.preprocess(windows)).numpy()


@pytest.mark.parametrize("way", WAYS, ids=name_of)
@pytest.mark.parametrize("batch", ["auto", 3])
def test_all_ways_give_the_same_numbers(way: Way, batch: object, path: Path) -> None:
    found = way(embedder(global_batch_size=batch), path)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, by_hand(path), rtol=1e-5)


@pytest.mark.parametrize("way", WAYS, ids=name_of)
def test_all_ways_compute_with_the_precision_that_is_set(way: Way, path: Path) -> None:
    found = way(embedder(precision="bfloat16"), path)
    assert found.dtype == np.float32
    expected = a_file(embedder(precision="bfloat16"), path)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    difference = np.linalg.norm(found - by_hand(path)) / np.linalg.norm(expected)
    assert 1e-5 < difference < 1e-2


@pytest.mark.parametrize("way", IN_MEMORY, ids=name_of)
def test_no_way_takes_a_precision_that_the_model_cannot_have(way: Way, path: Path) -> None:
    model = embedder(precision="bfloat16")
    model.model.card = CARDS["vggish"]
    with pytest.raises(SettingsError, match="vggish, which tensorflow computes"):
        way(model, path)


@pytest.mark.parametrize("way", WAYS, ids=name_of)
def test_all_ways_go_on_in_smaller_batches_when_memory_runs_out(way: Way, path: Path) -> None:
    model = embedder(type("Hungry", (Linear,), {"most": 2}), global_batch_size=8)
    np.testing.assert_allclose(way(model, path), by_hand(path), rtol=1e-5)
    done = [count for count in model.model.calls if count <= 2]
    assert sum(done) == 11
    assert len(model.model.calls) - len(done) <= 3 * 2  # each of two threads may try twice more


def test_preprocessing_goes_on_in_smaller_batches_when_memory_runs_out(path: Path) -> None:
    class Hungry(Linear):
        def preprocess(self, audio: torch.Tensor) -> torch.Tensor:
            if len(audio) > 2:
                raise MemoryError
            return super().preprocess(audio)

    found = embedder(Hungry).prepare_audio(path)
    torch.testing.assert_close(found, embedder().prepare_audio(path))


@pytest.mark.parametrize("way", IN_MEMORY, ids=name_of)
@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Unstable, "values that are not numbers for window"),
        (Shapeless, "returned embeddings of shape"),
        (Impossible, "class scores that are not numbers"),
        (Greedy, "not even one window"),
    ],
)
def test_all_ways_check_what_the_model_returns(
    way: Way, model: type, message: str, path: Path
) -> None:
    with pytest.raises(BacpipeError, match=message):
        way(embedder(model), path)


@pytest.mark.parametrize("way", IN_MEMORY, ids=name_of)
def test_all_ways_leave_the_class_scores(way: Way, path: Path) -> None:
    model = embedder()
    embeddings = torch.from_numpy(way(model, path))
    expected = Linear().classifier_predictions(embeddings)
    np.testing.assert_allclose(model.classifier.predictions, expected, rtol=1e-5)
    model = embedder(run_pretrained_classifier=False)
    way(model, path)
    assert model.classifier.predictions is None
