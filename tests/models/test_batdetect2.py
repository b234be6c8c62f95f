"""batdetect2 against the package's own functions, on bat-like chirps and on real bats."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

pytest.importorskip("batdetect2", reason="needs the optional dependency group 'bats'")

import bacpipe
from bacpipe.__main__ import main
from bacpipe.errors import CheckpointError, NothingEmbeddedError, SettingsError
from bacpipe.models.backends.pytorch import read_checkpoint
from bacpipe.models.families.batdetect2 import BatDetect2ClipAverage, BatDetect2DetectionAverage
from bacpipe.models.families.batdetect2_network import BatDetect2Spectrogram
from bacpipe.models.loading import find_card

SAMPLE_RATE = 256_000
CPU = torch.device("cpu")
WRAPPERS = {
    "batdetect2_clip_avg": BatDetect2ClipAverage,
    "batdetect2_dets_avg": BatDetect2DetectionAverage,
}
REAL_BATS = Path(__file__).parents[3] / "shared" / "audio" / "bats"
SPECIES_OF_REAL_BATS = {
    "0166_20240603_033731.wav": "Myotis nattereri",  # 312.5 kHz
    "20230322_172000_selec2.wav": "Pipistrellus pipistrellus",  # 192 kHz
    "Audiomoth.WAV": "Pipistrellus pygmaeus",  # 250 kHz
    "AudiomothNoBatCalls.WAV": None,  # 250 kHz, 0.1 s
}


def make_bats(seed: int, n_calls: int, level: float = 0.1) -> np.ndarray:
    """One second of noise with calls that sweep down to a pipistrelle's 46 kHz."""
    rng = np.random.default_rng(seed)
    audio = rng.normal(0, 1e-3, SAMPLE_RATE)
    t = np.arange(int(0.006 * SAMPLE_RATE)) / SAMPLE_RATE
    frequency = 46_000 + 40_000 * np.exp(-t / 0.001)
    call = np.sin(2 * np.pi * np.cumsum(frequency) / SAMPLE_RATE) * np.hanning(len(t))
    for i in range(n_calls):
        start = int((0.04 + 0.09 * i) * SAMPLE_RATE)
        audio[start : start + len(t)] += level * call
    return audio.astype(np.float32)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """On a busy machine several threads spend their time waiting for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def windows() -> torch.Tensor:
    """Many calls, some at the threshold of detection, none, and calls on digital silence."""
    many, faint, none = make_bats(1, 10), make_bats(0, 10, level=5e-4), make_bats(2, 0)
    half_silent = make_bats(3, 6)
    half_silent[SAMPLE_RATE // 2 :] = 0
    return torch.from_numpy(np.stack([many, faint, none, half_silent]))


@pytest.fixture(scope="module")
def checkpoint() -> Path:
    (package,) = find_spec("batdetect2").submodule_search_locations
    return Path(package) / "models" / "Net2DFast_UK_same.pth.tar"


@pytest.fixture(scope="module")
def models(checkpoint):
    return {
        name: wrapper(
            card=find_card(name), files={find_card(name).files[0]: checkpoint}, device="cpu"
        )
        for name, wrapper in WRAPPERS.items()
    }


@pytest.fixture(scope="module")
def api():
    return pytest.importorskip("batdetect2.api")


@pytest.fixture(scope="module")
def network(api):
    """The package's own model; `api.model` would be on a GPU where there is one."""
    return api.load_model(device=CPU)[0]


@pytest.fixture(params=WRAPPERS)
def model(request, models):
    return models[request.param]


def infer(model, audio):
    with torch.inference_mode():
        return model.infer(model.preprocess(audio), scores=True)


def relative_error(got, expected) -> float:
    got, expected = torch.as_tensor(got), torch.as_tensor(expected)
    return float((got - expected).norm() / expected.norm())


def assert_spectrogram_is_the_packages(model, api, audio):
    with torch.inference_mode():
        ours = model.preprocess(audio[None])
    theirs = api.generate_spectrogram(audio.numpy(), device=CPU)
    assert ours.shape == theirs.shape
    assert relative_error(ours, theirs) < 1e-5


def assert_detections_are_the_packages(model, api, network, audio) -> int:
    """Compare one window with `process_audio`; the number of calls that it found."""
    embedding, scores = (result[0] for result in infer(model, audio[None]))
    calls, features, _ = api.process_audio(
        audio.numpy(),
        model=network,
        config=api.get_config(detection_threshold=0.3),
        device=CPU,
    )
    if not calls:
        assert not embedding.any()
        assert not scores.any()
        return 0
    assert relative_error(embedding, features.mean(axis=0)) < 1e-4
    best = max(calls, key=lambda call: call["class_prob"])
    assert model.classes[int(scores.argmax())] == best["class"]
    assert float(scores.max()) == pytest.approx(best["class_prob"], abs=6e-4)  # 3 decimals
    return len(calls)


def test_the_card_counts_the_parameters_of_the_package(model, network):
    assert model.card.parameters == sum(p.numel() for p in network.parameters())


def test_shapes_and_classes(model, windows):
    embeddings, scores = infer(model, windows)
    assert embeddings.shape == (4, model.card.dim)
    assert scores.shape == (4, model.card.n_classes)
    assert embeddings.dtype == scores.dtype == torch.float32
    assert float(scores.min()) >= 0
    assert float(scores.max()) <= 1
    assert len(model.classes) == len(set(model.classes)) == 17
    names = [*zip(model.classes, model.scientific_names, strict=True)]
    assert names == [row[:2] for row in model.card.known_classes]  # which need no weights
    assert "Pipistrellus pipistrellus" in model.classes


def test_call_gives_the_embeddings_of_infer(model, windows):
    with torch.inference_mode():
        x = model.preprocess(windows[:1])
        embeddings, scores = model.infer(x)
        assert scores is None
        torch.testing.assert_close(model(x), embeddings)
        torch.testing.assert_close(model.infer(x, scores=True)[0], embeddings)


def test_spectrogram_equals_the_packages(models, api, windows):
    # At a billionth of the level the state in which PCEN starts is heard.
    for audio in (*windows, windows[0] * 1e-9):
        assert_spectrogram_is_the_packages(models["batdetect2_clip_avg"], api, audio)


def test_spectrogram_in_single_precision_is_close(checkpoint, api, windows):
    params = read_checkpoint(checkpoint)["params"]
    single = BatDetect2Spectrogram(params, n_samples=SAMPLE_RATE, precision=torch.float32)
    theirs = api.generate_spectrogram(windows[0].numpy(), device=CPU)
    assert relative_error(single(windows[:1]), theirs) < 1e-4


def test_clip_average_pools_the_packages_maps(models, api, network, windows):
    embeddings, scores = infer(models["batdetect2_clip_avg"], windows)
    for audio, embedding, score in zip(windows, embeddings, scores, strict=True):
        with torch.inference_mode():
            maps = network(api.generate_spectrogram(audio.numpy(), device=CPU))
        assert relative_error(embedding, maps.features[0].mean((1, 2))) < 1e-4
        torch.testing.assert_close(score, maps.pred_class[0, :-1].amax((1, 2)), atol=1e-5, rtol=0)


def test_detections_equal_the_packages(models, api, network, windows):
    calls = [
        assert_detections_are_the_packages(models["batdetect2_dets_avg"], api, network, audio)
        for audio in windows
    ]
    assert calls[0] == 10
    assert 0 < calls[1] < 10
    assert calls[2] == 0


def test_calls_equal_the_packages(model, api, network, windows):
    with torch.inference_mode():
        ours = model.calls(model.preprocess(windows))
    config = api.get_config(detection_threshold=0.3)
    for audio, calls in zip(windows, ours, strict=True):
        theirs, _, _ = api.process_audio(audio.numpy(), model=network, config=config, device=CPU)
        assert [model.classes[i] for i in calls.class_scores.argmax(1)] == [
            call["class"] for call in theirs
        ]
        # The package rounds to 4 decimals, whole Hz and 3 decimals.
        for values, key, step in (
            (calls.start, "start_time", 1e-4),
            (calls.end, "end_time", 1e-4),
            (calls.low, "low_freq", 1.1),
            (calls.high, "high_freq", 5.0),
            (calls.class_scores.max(1, initial=0), "class_prob", 1e-3),
            (calls.score, "det_prob", 1e-3),
        ):
            np.testing.assert_allclose(values, [call[key] for call in theirs], rtol=0, atol=step)
    assert [len(calls.start) for calls in ours][::2] == [10, 0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bats")
    twice = np.concatenate([make_bats(1, 10), make_bats(1, 10)[: SAMPLE_RATE // 2]])
    soundfile.write(folder / "a, evening.wav", twice, SAMPLE_RATE, "FLOAT")
    (folder / "sub").mkdir()
    soundfile.write(folder / "sub" / "quiet.wav", make_bats(2, 0), SAMPLE_RATE, "FLOAT")
    (folder / "broken.wav").write_bytes(b"RIFF")
    return folder


class TestTableOfCalls:
    """On recordings whose calls begin at known times."""

    AT = np.array([0.04 + 0.09 * i for i in range(10)])

    def test_windows_that_overlap_give_each_call_once(self, folder):
        expected = np.concatenate([self.AT, 1 + self.AT[self.AT < 0.5]])
        for hop in (None, 0.5, 0.245):  # the border of two windows lies in a call
            options = {} if hop is None else {"hop": hop}
            embedder = bacpipe.Embedder("batdetect2_dets_avg", device="cpu", **options)
            calls = embedder.calls(folder / "a, evening.wav")
            assert len(calls) == len(expected)
            np.testing.assert_allclose(calls.start, expected, atol=0.003)
            assert ((calls.end - calls.start).between(0.001, 0.02)).all()
            assert calls.low_frequency.between(40_000, 50_000).all()
            assert (calls.high_frequency > calls.low_frequency).all()
            assert (calls.detection_score > 0.3).all()
            assert calls.scientific_name.str.startswith("Pipistrellus ").all()

    def test_times_and_frequencies_are_those_of_the_file(self, folder, tmp_path):
        samples, _ = soundfile.read(folder / "a, evening.wav", dtype="float32")
        slow = tmp_path / "expanded.wav"
        soundfile.write(slow, samples, SAMPLE_RATE // 10, "FLOAT")
        real = bacpipe.Embedder("batdetect2_dets_avg", device="cpu")
        played = bacpipe.Embedder(
            "batdetect2_dets_avg", device="cpu", bool_change_speed=True, new_speed=10
        )
        expected, calls = real.calls(folder / "a, evening.wav"), played.calls(slow)
        np.testing.assert_allclose(calls.start, 10 * expected.start, rtol=1e-6)
        np.testing.assert_allclose(calls.low_frequency, expected.low_frequency / 10, rtol=1e-6)

    def test_a_folder_becomes_one_table(self, folder, tmp_path, caplog):
        table = bacpipe.detect_calls(
            audio_dir=str(folder), main_results_dir=str(tmp_path), device="cpu"
        )
        calls = pd.read_csv(table)
        assert table.name == "batdetect2_dets_avg_calls.csv"
        assert set(calls.audiofilename) == {"a, evening.wav"}
        whole = bacpipe.Embedder("batdetect2_dets_avg", device="cpu").calls(
            folder / "a, evening.wav"
        )
        pd.testing.assert_frame_equal(calls, whole, check_dtype=False)
        assert "broken.wav" in caplog.text

    def test_the_command_says_where_the_table_is(self, folder, tmp_path, capsys, monkeypatch):
        monkeypatch.chdir(tmp_path)
        words = [f"audio_dir={folder / 'sub'}", "main_results_dir=results", "device=cpu"]
        assert main(["calls", "--model", "batdetect2_clip_avg", *words]) == 0
        (table,) = tmp_path.rglob("batdetect2_clip_avg_calls.csv")
        assert table.name in capsys.readouterr().out
        assert pd.read_csv(table).empty

    def test_nothing_to_read_leaves_no_table(self, tmp_path):
        (tmp_path / "audio").mkdir()
        (tmp_path / "audio" / "broken.wav").write_bytes(b"RIFF")
        with pytest.raises(NothingEmbeddedError, match="none of 1 recording could be read"):
            bacpipe.detect_calls(
                audio_dir=str(tmp_path / "audio"), main_results_dir=str(tmp_path / "results")
            )
        assert not list(tmp_path.rglob("*_calls.csv*"))

    def test_other_models_find_no_calls(self, tmp_path):
        class Loudness(bacpipe.ModelBaseClass):
            def __init__(self):
                super().__init__(sr=16000, segment_length=16000)

        embedder = bacpipe.Embedder("loudness", CustomModel=Loudness())
        with pytest.raises(SettingsError, match=r"Loudness gives scores .* finds no calls"):
            embedder.calls(tmp_path / "any.wav")


def test_window_does_not_depend_on_its_batch(model, windows):
    together = infer(model, windows)
    alone = [infer(model, audio[None]) for audio in windows]
    for i, result in enumerate(together):
        torch.testing.assert_close(
            result, torch.cat([window[i] for window in alone]), atol=1e-5, rtol=1e-5
        )


def test_silence_is_finite(model):
    silence = torch.zeros(1, SAMPLE_RATE)
    for audio in (silence, silence + 0.5):
        for result in infer(model, audio):
            assert torch.isfinite(result).all()


def test_numpy_warnings_stay_as_they_were():
    # batdetect2's post-processing turns them off when it is imported.
    assert np.geterr()["divide"] == "warn"
    assert np.geterr()["invalid"] == "warn"


@pytest.mark.parametrize("content", [{"epoch": 1}, {"params": {}, "state_dict": {}}])
def test_another_checkpoint_is_refused(content, tmp_path):
    card = find_card("batdetect2_clip_avg")
    path = tmp_path / "other.pth.tar"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"other\.pth\.tar.*batdetect2"):
        BatDetect2ClipAverage(card=card, files={card.files[0]: path}, device="cpu")


@pytest.mark.skipif(not REAL_BATS.is_dir(), reason="no real bat recordings in ../shared/audio")
@pytest.mark.parametrize("name", SPECIES_OF_REAL_BATS)
def test_real_bats_equal_the_packages(name, models, api, network):
    model = models["batdetect2_dets_avg"]
    audio = torch.from_numpy(api.load_audio(str(REAL_BATS / name)))
    windows = torch.nn.functional.pad(audio, (0, -len(audio) % SAMPLE_RATE)).split(SAMPLE_RATE)
    calls = 0
    for window in windows[:2]:
        assert_spectrogram_is_the_packages(model, api, window)
        calls += assert_detections_are_the_packages(model, api, network, window)
    assert (calls > 0) == (SPECIES_OF_REAL_BATS[name] is not None)


@pytest.mark.skipif(not REAL_BATS.is_dir(), reason="no real bat recordings in ../shared/audio")
@pytest.mark.parametrize("name", SPECIES_OF_REAL_BATS)
def test_species_of_a_recording_is_the_packages(name, models, api, network):
    """The package cuts recordings every 3 s and resamples in another way than bacpipe."""
    import librosa

    model = models["batdetect2_dets_avg"]
    path = REAL_BATS / name
    config = api.get_config(detection_threshold=0.3)
    result = api.process_file(str(path), model=network, config=config, device=CPU)
    theirs = result["pred_dict"]["class_name"]
    audio, _ = librosa.load(path, sr=SAMPLE_RATE, res_type="soxr_hq")
    audio = np.pad(audio, (0, -len(audio) % SAMPLE_RATE), mode="wrap")
    scores = torch.cat(
        [infer(model, torch.from_numpy(w)[None])[1] for w in audio.reshape(-1, SAMPLE_RATE)]
    ).amax(0)
    ours = model.classes[int(scores.argmax())] if scores.any() else "None"
    assert ours == theirs == str(SPECIES_OF_REAL_BATS[name])


def test_networks_of_cpu_and_gpu_agree(model, windows, monkeypatch):
    ours = infer(model, windows)
    monkeypatch.setattr(model, "_one_window", None)
    for mine, theirs in zip(ours, infer(model, windows), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
