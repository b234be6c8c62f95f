from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import bacpipe
from bacpipe.errors import AnnotationsError, AudioError, BacpipeError, SettingsError
from tests.conftest import TinyModel, write_recording


def embedder(model: object, **settings: object) -> bacpipe.Embedder:
    return bacpipe.Embedder("tiny", CustomModel=model, device="cpu", **settings)


def levels(audio: np.ndarray) -> np.ndarray:
    """What the tiny model makes of 8 kHz audio, computed by hand."""
    rest = -len(audio) % 8000
    padded = np.pad(audio, (0, rest), mode="wrap") if rest < len(audio) else None
    if padded is None:
        padded = np.resize(audio, len(audio) + rest)
    return np.abs(padded).reshape(-1, 10, 800).mean(axis=2)


def test_one_recording_needs_no_loader_and_writes_nothing(
    tmp_path: Path, tiny_model: type[TinyModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_recording(tmp_path / "a.wav", 3.5)
    monkeypatch.chdir(tmp_path)
    model = embedder(tiny_model)
    embeddings = model.get_embeddings_from_model(str(path))
    assert embeddings.shape == (4, 10)
    assert embeddings.dtype == np.float32
    audio = model.load_and_resample(path)[0].numpy()
    assert audio.shape == (28000,)
    np.testing.assert_allclose(embeddings[:3], levels(audio)[:3], rtol=1e-5)
    assert model.classifier.predictions.shape == (4, 2)
    assert model.model.classes == ["loud", "quiet"]
    np.testing.assert_allclose(model.classifier.predictions.sum(axis=1), 1, rtol=1e-6)
    assert sorted(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("batch", ["auto", 1, 3, 64])
@pytest.mark.parametrize("workers", [1, 3])
def test_results_do_not_depend_on_batch_size_and_threads(
    recordings: Path, tiny_model: type[TinyModel], batch: object, workers: int
) -> None:
    path = recordings / "north" / "a.wav"
    expected = embedder(tiny_model).get_embeddings_from_model(path)
    got = embedder(
        tiny_model, global_batch_size=batch, nr_parallel_workers=workers
    ).get_embeddings_from_model(path)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_arrays_are_embedded_item_by_item(tiny_model: type[TinyModel]) -> None:
    rng = np.random.default_rng(0)
    audios = [rng.uniform(-1, 1, n).astype(np.float32) for n in (8000, 16000, 24000)]
    model = embedder(tiny_model)
    embeddings = model.embeddings_using_multithreading(audios)
    np.testing.assert_allclose(embeddings, np.concatenate([levels(a) for a in audios]), rtol=1e-5)
    assert model.classifier.predictions.shape == (6, 2)
    square = model.embeddings_using_multithreading(np.stack([audios[0]] * 5))
    assert square.shape == (5, 10)
    np.testing.assert_allclose(square, np.repeat(levels(audios[0]), 5, axis=0), rtol=1e-5)
    np.testing.assert_allclose(
        model.embeddings_using_multithreading(audios[1]), levels(audios[1]), rtol=1e-5
    )
    with pytest.raises(AudioError, match="audio 1"):
        model.embeddings_using_multithreading([audios[0], np.full(8000, np.nan)])


def test_the_steps_one_by_one_equal_the_pipeline(
    recordings: Path, tiny_model: type[TinyModel]
) -> None:
    path = recordings / "south" / "a.wav"
    model = embedder(tiny_model)
    frames = model.prepare_audio(path)
    assert frames.shape == (4, 10, 800)
    assert model.file_length[str(path)] == 4.0
    seen: list[int] = []
    stepwise = model.batch_inference(model.init_dataloader(frames), callback=seen.append)
    assert seen[-1] == 4
    np.testing.assert_array_equal(stepwise, model.get_embeddings_for_audio(frames))
    np.testing.assert_allclose(stepwise, model.get_embeddings_from_model(path), rtol=1e-6)


def test_overlapping_windows_and_time_expansion(
    recordings: Path, tiny_model: type[TinyModel]
) -> None:
    path = recordings / "north" / "b.wav"  # 2 s
    assert len(embedder(tiny_model, hop=0.5).get_embeddings_from_model(path)) == 3
    slowed = embedder(tiny_model, bool_change_speed=True, new_speed=0.1)
    assert len(slowed.get_embeddings_from_model(path)) == 20
    # A hop is in seconds of the real recording: 0.05 s are half a window of the slowed one.
    assert len(slowed.get_embeddings_from_model(path)) == 20
    half = embedder(tiny_model, bool_change_speed=True, new_speed=0.1, hop=0.05)
    assert len(half.get_embeddings_from_model(path)) == 39


def test_annotated_segments_alone(recordings: Path, tiny_model: type[TinyModel]) -> None:
    import pandas as pd

    path = recordings / "north" / "a.wav"
    model = embedder(tiny_model)
    table = pd.DataFrame({"start": [0.5, 0.5, 2.0], "end": [2.0, 2.0, 2.5]})
    windows, starts = model.only_load_annotated_segments(path, table)
    assert windows.shape == (3, 8000)
    np.testing.assert_allclose(starts, [0.5, 1.5, 2.0])
    audio, _ = model.load_and_resample(path)
    torch.testing.assert_close(windows[0], audio[4000:12000])


def test_segments_behind_the_end_are_cut_off_or_skipped(
    recordings: Path, tiny_model: type[TinyModel], caplog: pytest.LogCaptureFixture
) -> None:
    path = recordings / "north" / "a.wav"  # 3.5 s
    model = embedder(tiny_model)
    windows, starts = model.only_load_annotated_segments(path, [(3.0, 9.0), (5.0, 6.0)])
    assert starts.tolist() == [3.0]
    audio, _ = model.load_and_resample(path)
    torch.testing.assert_close(windows[0, :4000], audio[24000:])
    torch.testing.assert_close(windows[0, 4000:], audio[24000:])
    assert "a.wav: skipped the annotated segment at 5.0 s" in caplog.text
    with pytest.raises(AudioError, match="none of its annotated segments"):
        model.only_load_annotated_segments(path, [(5.0, 6.0)])


def test_a_model_need_not_inherit_anything(tmp_path: Path) -> None:
    class Peak:
        sr = 8000
        segment_length = 4000

        def preprocess(self, audio: torch.Tensor) -> torch.Tensor:
            return audio

        def __call__(self, x: torch.Tensor) -> np.ndarray:
            return x.abs().amax(dim=1, keepdim=True).numpy()

    path = write_recording(tmp_path / "a.wav", 1.0)
    for model in (Peak, Peak()):
        assert embedder(model).get_embeddings_from_model(path).shape == (2, 1)


def test_a_model_that_returns_the_wrong_shape_is_named(tmp_path: Path) -> None:
    class Broken(TinyModel):
        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean()

    path = write_recording(tmp_path / "a.wav", 1.0)
    with pytest.raises(BacpipeError, match="Broken returned embeddings of shape"):
        embedder(Broken, run_pretrained_classifier=False).get_embeddings_from_model(path)


def test_values_that_are_not_numbers_make_the_recording_fail(tmp_path: Path) -> None:
    class Unstable(TinyModel):
        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean(dim=2) / 0

    path = write_recording(tmp_path / "a.wav", 2.0)
    with pytest.raises(AudioError, match=r"a\.wav.*window 0"):
        embedder(Unstable, run_pretrained_classifier=False).get_embeddings_from_model(path)


def test_memory_that_runs_out_halves_the_batch(caplog: pytest.LogCaptureFixture) -> None:
    class Hungry(TinyModel):
        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            if len(x) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().__call__(x)

    audio = np.random.default_rng(1).uniform(-1, 1, 16 * 8000).astype(np.float32)
    model = embedder(Hungry, global_batch_size=16)
    got = model.embeddings_using_multithreading([audio])
    np.testing.assert_allclose(got, levels(audio), rtol=1e-5)
    assert model.classifier.predictions.shape == (16, 2)
    assert "going on with 2 per batch" in caplog.text

    class Starving(TinyModel):
        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            raise MemoryError

    with pytest.raises(BacpipeError, match="not even one window"):
        embedder(Starving).embeddings_using_multithreading([audio])


def test_a_data_set_needs_a_loader(tiny_model: type[TinyModel]) -> None:
    with pytest.raises(SettingsError, match="no loader"):
        embedder(tiny_model).run_inference_pipeline_using_multithreading()


def test_a_loader_says_how_its_results_are_made(
    recordings: Path, tmp_path: Path, tiny_model: type[TinyModel]
) -> None:
    """Whatever else an Embedder is told, windows are where the loader's results say."""
    settings = {"main_results_dir": tmp_path / "results", "use_folder_structure": True}
    loader = bacpipe.Loader(recordings, "tiny", hop=0.5, channel="left", **settings)
    model = bacpipe.Embedder("tiny", loader, CustomModel=tiny_model, device="cpu")
    assert (model.hop, model.options.channel) == (4000, "left")
    model.run_inference_pipeline_sequentially()
    plain = embedder(tiny_model, hop=0.5, channel="left")
    for name, rows in loader.embeddings().items():
        path = next(recordings.glob(name.replace("_tiny.npy", ".*")))
        expected = plain.get_embeddings_from_model(path)
        np.testing.assert_allclose(rows, expected, rtol=1e-5)
    for wrong in ({"hop": 1.0}, {"channel": "mix"}, {"padding": "reflect"}):
        (key,) = wrong
        with pytest.raises(SettingsError, match=f"{key}=.* give what changes embeddings"):
            bacpipe.Embedder("tiny", loader, CustomModel=tiny_model, **wrong)


def test_an_overlap_is_that_of_the_windows_that_are_made(tiny_model: type[TinyModel]) -> None:
    assert bacpipe.AudioHandler("birdnet", overlap=1.0).hop == 96_000
    with pytest.raises(SettingsError, match="expected hop"):
        bacpipe.Embedder("birdnet", CustomModel=tiny_model, overlap=0.5)
    with pytest.raises(SettingsError, match="expected hop"):
        bacpipe.AudioHandler(tiny_model, overlap=0.5)


def test_audio_in_memory_is_neither_integers_nor_frames(tiny_model: type[TinyModel]) -> None:
    model = embedder(tiny_model)
    for audio, hint in (
        (np.zeros(8000, np.int16), "divided by 32768"),
        (np.zeros((8000, 2), np.float32), r"audio\.T"),
    ):
        for take in (
            model.embeddings_using_multithreading,
            model.generate_embeddings_from_audio_array,
            model.window_audio,
        ):
            with pytest.raises(AudioError, match=hint):
                take(audio)
    for nothing in ([], np.zeros(0, np.float32)):
        with pytest.raises(AudioError, match="no audio"):
            model.embeddings_using_multithreading(nothing)
    with pytest.raises(BacpipeError, match="no windows"):
        model.batch_inference([])


def test_each_channel_is_prepared_as_it_is_embedded(
    tmp_path: Path, tiny_model: type[TinyModel]
) -> None:
    path = write_recording(tmp_path / "a.wav", 2.5, channels=2)
    model = embedder(tiny_model, channel="each")
    expected = model.get_embeddings_from_model(path)
    assert len(expected) == 6
    np.testing.assert_allclose(model.get_embeddings_for_audio(model.prepare_audio(path)), expected)
    with pytest.raises(SettingsError, match="prepare_audio"):
        model.load_and_resample(path)


def test_recordings_are_found_beside_their_folder(
    recordings: Path, tmp_path: Path, tiny_model: type[TinyModel]
) -> None:
    loader = bacpipe.Loader(recordings, "tiny", main_results_dir=tmp_path / "results")
    model = bacpipe.Embedder("tiny", loader, CustomModel=tiny_model, device="cpu")
    expected = model.get_embeddings_from_model(recordings / "north" / "a.wav")
    np.testing.assert_array_equal(model.get_embeddings_from_model("north/a.wav"), expected)


@pytest.mark.parametrize(
    ("annotations", "problem"),
    [
        ([], "no rows"),
        ([(1, 2, 3)], "pairs of start and end"),
        ([(2.0, 1.0)], "ends at 1 before it starts at 2"),
        ([(0.0, float("nan"))], "expected seconds"),
        (pd.DataFrame({"Begin Time (s)": [0.0]}), "'start', 'end' are missing"),
    ],
)
def test_segments_that_are_none_are_told(
    recordings: Path, tiny_model: type[TinyModel], annotations: object, problem: str
) -> None:
    handler = bacpipe.AudioHandler(tiny_model, recordings)
    with pytest.raises(AnnotationsError, match=problem):
        handler.only_load_annotated_segments("north/a.wav", annotations)
    windows, starts = handler.only_load_annotated_segments("north/a.wav", [(0.5, 1.0)])
    assert (windows.shape, starts.tolist()) == ((1, 8000), [0.5])
