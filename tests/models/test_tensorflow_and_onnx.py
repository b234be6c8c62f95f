"""TensorFlow and ONNX models, with small stand-ins for the published checkpoints."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import logging
import pickle
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import bacpipe
from bacpipe import extras
from bacpipe.errors import CheckpointError, ModelUnavailableError, SettingsError
from bacpipe.models.frontends import center_and_scale
from bacpipe.models.loading import load_model
from bacpipe.models.zoo import CARDS
from tests.models import stand_ins

BIRDS = Path(__file__).parents[3] / "shared/audio/birds"


def installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


needs_tensorflow = pytest.mark.skipif(
    not installed("tensorflow"), reason="tensorflow is not installed"
)
needs_onnx = pytest.mark.skipif(
    not (installed("onnx") and installed("onnxruntime")),
    reason="onnx or onnxruntime is not installed",
)
TF = [pytest.param(name, marks=needs_tensorflow) for name in stand_ins.TF_MODELS]
ONNX = [pytest.param(name, marks=needs_onnx) for name in stand_ins.ONNX_MODELS]
CLASSIFIERS = [p for p in (*TF, *ONNX) if CARDS[p.values[0]].is_classifier]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of checkpoints with a stand-in for each model whose framework is installed."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for names, packages in (
        (stand_ins.TF_MODELS, ("tensorflow",)),
        (stand_ins.ONNX_MODELS, ("onnx", "onnxruntime")),
    ):
        if all(map(installed, packages)):
            for name in names:
                stand_ins.build(name, folder)
    return folder


@pytest.fixture(scope="module")
def models(base: Path) -> dict[str, Any]:
    return {
        name: load_model(name, device="cpu", model_base_path=base)
        for name in stand_ins.expected
        if (base / name).exists()
    }


def noise(name: str, windows: int, seed: int = 0) -> np.ndarray:
    """Windows of noise, of different loudness and mean."""
    random = np.random.default_rng(seed)
    audio = random.normal(size=(windows, CARDS[name].window)).astype(np.float32)
    return audio * 0.05 * (1 + np.arange(windows, dtype=np.float32)[:, None]) + np.float32(0.02)


def embedder(name: str, base: Path, **options: Any) -> bacpipe.Embedder:
    return bacpipe.Embedder(name, model_base_path=str(base), device="cpu", **options)


def best(scores: np.ndarray, threshold: float) -> tuple[list[int], list[int]]:
    """Window and class of at most three scores per window that reach a threshold."""
    order = np.argsort(-scores, axis=1)[:, :3]
    pairs = [(w, int(c)) for w, row in enumerate(order) for c in row if scores[w, c] >= threshold]
    return [w for w, _ in pairs], [c for _, c in pairs]


def in_the_gap(scores: list[np.ndarray | None]) -> float:
    """Threshold that some of the best scores reach and that none comes close to."""
    given = [part for part in scores if part is not None]
    if not given:
        return 0.5
    top = np.sort(np.concatenate([np.sort(part, axis=1)[:, -3:].ravel() for part in given]))
    widest = int(np.diff(top).argmax())
    return float(top[widest : widest + 2].mean())


@pytest.mark.parametrize("again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
@pytest.mark.parametrize("name", [*TF, *ONNX])
def test_copies_open_the_files_again(name: str, again: Any, models: dict[str, Any]) -> None:
    model = models[name]
    other = again(model)
    assert (other.card, other.files, other.device) == (model.card, model.files, model.device)
    x = model.preprocess(torch.from_numpy(noise(name, 2)))
    np.testing.assert_array_equal(other(x), model(x))


class TestPublicPath:
    @pytest.mark.parametrize("name", [*TF, *ONNX])
    def test_recording(self, name: str, base: Path, tmp_path: Path) -> None:
        windows = noise(name, 5).clip(-1, 1)
        recording = tmp_path / "recording.wav"
        soundfile.write(recording, windows.ravel(), CARDS[name].sample_rate, "FLOAT")
        model = embedder(name, base, global_batch_size=2)
        embeddings = model.get_embeddings_from_model(recording)
        expected = stand_ins.expected[name](windows)
        assert embeddings.shape == (5, bacpipe.EMBEDDING_DIMENSIONS[name])
        assert embeddings.dtype == np.float32
        np.testing.assert_allclose(embeddings, expected.embeddings, atol=1e-6, rtol=1e-5)
        if expected.scores is None:
            assert model.classifier.classes == []
            assert model.classifier.predictions is None
        else:
            assert len(model.classifier.classes) == expected.scores.shape[1]
            np.testing.assert_allclose(
                model.classifier.predictions, expected.scores, atol=1e-6, rtol=1e-4
            )

    @pytest.mark.parametrize("name", [*TF, *ONNX])
    def test_data_set(self, name: str, base: Path, tmp_path: Path) -> None:
        audio = tmp_path / "audio"
        audio.mkdir()
        expected = {}
        for i in range(3):
            windows = noise(name, 1 + i, seed=i).clip(-1, 1)
            expected[f"{i}.wav"] = stand_ins.expected[name](windows)
            rate = CARDS[name].sample_rate
            soundfile.write(audio / f"{i}.wav", windows.ravel(), rate, "FLOAT")
        threshold = in_the_gap([result.scores for result in expected.values()])
        options: dict[str, Any] = {
            "audio_dir": str(audio),
            "main_results_dir": str(tmp_path / "results"),
            "model_base_path": str(base),
            "device": "cpu",
            "classifier_threshold": threshold,
            "max_predictions_per_window": 3,
        }
        loader = bacpipe.Loader(model_name=name, use_folder_structure=True, **options)
        model = bacpipe.Embedder(name, loader=loader, **options)
        model.run_inference_pipeline_using_multithreading()
        stored = loader.embeddings()
        assert [Path(file).name[:1] for file in stored] == ["0", "1", "2"]
        for embeddings, result in zip(stored.values(), expected.values(), strict=True):
            np.testing.assert_allclose(embeddings, result.embeddings, atol=1e-6, rtol=1e-5)
        if not model.classifier.classes:
            return
        for found in loader.detections():
            scores = expected[found.recording].scores
            assert scores is not None
            window, label = best(scores, threshold)
            assert found.window.tolist() == window
            assert found.label.tolist() == [model.classifier.classes[i] for i in label]
            np.testing.assert_allclose(found.score, scores[window, label], atol=1e-6)

    @pytest.mark.skipif(not BIRDS.is_dir(), reason="the shared recordings are not here")
    def test_all_run_over_real_recordings(
        self, models: dict[str, Any], base: Path, tmp_path: Path
    ) -> None:
        options = {
            "audio_dir": str(BIRDS),
            "main_results_dir": str(tmp_path),
            "model_base_path": str(base),
            "device": "cpu",
        }
        recordings = sum(p.is_file() and p.suffix != ".csv" for p in BIRDS.rglob("*"))
        assert recordings
        for name in models:
            loader = bacpipe.Loader(model_name=name, use_folder_structure=True, **options)
            model = bacpipe.Embedder(name, loader=loader, **options)
            model.run_inference_pipeline_using_multithreading()
            stored = loader.embeddings()
            assert len(stored) == recordings, name
            for embeddings in stored.values():
                assert embeddings.shape[1] == CARDS[name].dim
                assert np.isfinite(embeddings).all(), name
                assert embeddings.std() > 0, name


class TestOneProcess:
    @needs_tensorflow
    @needs_onnx
    def test_frameworks_run_one_after_another(self, base: Path) -> None:
        class Torch(bacpipe.ModelBaseClass):
            def __init__(self, **kwargs: Any) -> None:
                super().__init__(sr=32000, segment_length=160000, **kwargs)
                torch.manual_seed(0)
                self.network = torch.nn.Conv1d(1, 8, 32, stride=16)

            def preprocess(self, audio: torch.Tensor) -> torch.Tensor:
                return audio.unsqueeze(1)

            def __call__(self, x: torch.Tensor) -> torch.Tensor:
                return self.network(x).square().mean(2)

        audio = noise("perch_v2", 2)
        seen: dict[str, np.ndarray] = {}
        for name in ("torch", "perch_bird", "perch_v2", "torch", "perch_v2", "perch_bird"):
            custom = {"CustomModel": Torch} if name == "torch" else {}
            embeddings = embedder(name, base, **custom).embeddings_using_multithreading(audio)
            np.testing.assert_array_equal(seen.setdefault(name, embeddings), embeddings)


class TestEveryModel:
    @pytest.mark.parametrize("name", [*TF, *ONNX])
    def test_a_window_depends_on_itself_alone(self, name: str, models: dict[str, Any]) -> None:
        model = models[name]
        windows = torch.from_numpy(noise(name, 4))
        windows[1] *= 30
        together = model(model.preprocess(windows))
        alone = np.concatenate([model(model.preprocess(window[None])) for window in windows])
        np.testing.assert_allclose(together, alone, atol=1e-6, rtol=1e-5)

    @pytest.mark.parametrize("name", [*TF, *ONNX])
    def test_silence_gives_numbers(self, name: str, models: dict[str, Any]) -> None:
        model = models[name]
        for level in (0.0, 0.3):
            windows = torch.full((2, model.segment_length), level)
            embeddings, scores = model.infer(model.preprocess(windows), scores=model.is_classifier)
            assert np.isfinite(np.asarray(embeddings)).all()
            assert scores is None or np.isfinite(np.asarray(scores)).all()

    @pytest.mark.parametrize("name", CLASSIFIERS)
    def test_scores_and_embeddings_come_together(self, name: str, models: dict[str, Any]) -> None:
        model = models[name]
        assert model.one_pass
        x = model.preprocess(torch.from_numpy(noise(name, 2)))
        embeddings, scores = model.infer(x, scores=True)
        np.testing.assert_allclose(embeddings, model(x), atol=1e-6)
        assert model.infer(x)[1] is None
        assert scores.shape == (2, len(model.classes))
        assert float(scores.min()) >= 0
        assert float(scores.max()) <= 1


class TestClassNames:
    @needs_tensorflow
    def test_perch_lists_its_own_head(self, models: dict[str, Any]) -> None:
        assert len(models["perch_bird"].classes) == CARDS["perch_bird"].n_classes
        assert list(models["perch_bird"].classes[:2]) == ["code0", "code1"]
        assert len(models["surfperch"].classes) == stand_ins.N_REEF

    @needs_tensorflow
    def test_perch_translates_ebird_codes(self, base: Path, tmp_path: Path) -> None:
        shutil.copytree(base / "perch_bird", tmp_path / "perch_bird")
        (tmp_path / "perch_bird/ebird_taxonomy.csv").write_text(
            "SPECIES_CODE,COMMON_NAME\ncode1,Common Blackbird\n"
        )
        model = load_model("perch_bird", device="cpu", model_base_path=tmp_path)
        assert list(model.classes[:3]) == ["code0", "Common Blackbird", "code2"]

    @needs_tensorflow
    def test_whales_are_spelled_out(self, models: dict[str, Any]) -> None:
        model = models["google_whale"]
        assert model.codes == list(stand_ins.WHALES)
        assert model.classes[:3] == ["Killer whale", "Humpback whale", "North Atlantic right whale"]
        assert len(set(model.classes)) == CARDS["google_whale"].n_classes
        whales = dict(
            zip(model.codes, zip(model.classes, model.scientific_names, strict=True), strict=True)
        )
        assert whales["Upcall"] == ("North Pacific right whale upcall", "Eubalaena japonica")
        assert whales["Gunshot"] == ("North Pacific right whale gunshot", "Eubalaena japonica")
        assert whales["Eg"] == ("North Atlantic right whale", "Eubalaena glacialis")

    @needs_onnx
    def test_header_of_the_label_file_is_no_class(self, models: dict[str, Any]) -> None:
        assert len(models["perch_v2"].classes) == CARDS["perch_v2"].n_classes
        assert models["perch_v2"].classes[0] == "Genus species0"

    @needs_tensorflow
    def test_yamnet_and_humpback(self, models: dict[str, Any]) -> None:
        assert tuple(models["yamnet"].classes[:2]) == ("Sound 0", "Child speech, kid speaking")
        assert len(models["yamnet"].classes) == CARDS["yamnet"].n_classes
        assert tuple(models["google_humpback"].classes) == ("Humpback whale",)

    @needs_onnx
    def test_perch_v2_has_names_by_its_own_codes(self, base: Path, tmp_path: Path) -> None:
        shutil.copytree(base / "perch_v2", tmp_path / "perch_v2")
        codes = ["eurrob1", *["no_ebird_code"] * 14794]
        table = tmp_path / "perch_v2/assets/perch_v2_ebird_classes.csv"
        stand_ins.write_list(table, "ebird2021", codes)
        (tmp_path / "ebird_taxonomy.csv").write_text(
            "SPECIES_CODE,COMMON_NAME,SCI_NAME\neurrob1,European Robin,Genus species0\n"
        )
        model = load_model("perch_v2", device="cpu", model_base_path=tmp_path)
        assert list(model.classes[:2]) == ["European Robin", "Genus species1"]
        assert list(model.scientific_names[:2]) == ["Genus species0", "Genus species1"]
        assert list(model.codes[:2]) == ["eurrob1", ""]

    @needs_onnx
    def test_birdnet_v3_has_common_and_scientific_names(self, models: dict[str, Any]) -> None:
        model = models["birdnet_v3"]
        assert model.classes[:3] == ["Common 0", "Genus species1", "Common 2"]
        assert model.scientific_names[:2] == ["Genus species0", "Genus species1"]

    @needs_onnx
    def test_missing_label_file(
        self, base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        shutil.copytree(base / "perch_v2", tmp_path / "perch_v2")
        (tmp_path / "perch_v2/labels.csv").unlink()
        model = load_model("perch_v2", device="cpu", model_base_path=tmp_path)
        assert list(model.classes[:2]) == ["class_00000", "class_00001"]
        assert len(model.classes) == 14795
        assert str(tmp_path / "perch_v2/labels.csv") in caplog.text

    @needs_onnx
    def test_label_file_of_another_version(self, base: Path, tmp_path: Path) -> None:
        shutil.copytree(base / "perch_v2", tmp_path / "perch_v2")
        stand_ins.write_list(tmp_path / "perch_v2/labels.csv", "header", ["a", "b"])
        with pytest.raises(CheckpointError, match=r"holds 3 class names.* 14795 classes"):
            load_model("perch_v2", device="cpu", model_base_path=tmp_path)

    @needs_onnx
    def test_birdnet_v3_table_without_columns(self, base: Path, tmp_path: Path) -> None:
        shutil.copytree(base / "birdnet_v3", tmp_path / "birdnet_v3")
        (tmp_path / "birdnet_v3/labels.csv").write_text("id;name\n1;a\n")
        with pytest.raises(CheckpointError, match="lacks the column sci_name and com_name"):
            load_model("birdnet_v3", device="cpu", model_base_path=tmp_path)


class TestPerchLoudness:
    def test_mean_is_removed_and_peak_is_a_quarter(self) -> None:
        scaled = center_and_scale(torch.from_numpy(noise("perch_v2", 3)), 0.25)
        np.testing.assert_allclose(scaled.mean(1), 0, atol=1e-6)
        np.testing.assert_allclose(scaled.abs().amax(1), 0.25, rtol=1e-6)

    @pytest.mark.parametrize("level", [0.0, 0.1, -1.0])
    def test_a_constant_window_becomes_zeros(self, level: float) -> None:
        assert (center_and_scale(torch.full((1, 160000), level), 0.25) == 0).all()


@needs_onnx
class TestBirdNetV3:
    def test_silence_is_counted_and_becomes_zeros(
        self, base: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        model = load_model("birdnet_v3", device="cpu", model_base_path=base)
        windows = torch.from_numpy(noise("birdnet_v3", 3))
        windows[1] = 0
        with caplog.at_level(logging.WARNING):
            embeddings, scores = model.infer(model.preprocess(windows), scores=True)
        assert model.nan_windows == 1
        assert (embeddings[1] == 0).all()
        assert (scores[1] == 0).all()
        assert (embeddings[[0, 2]] != 0).all()
        assert "no numbers for 1 window " in caplog.text
        for _ in range(12):
            model(model.preprocess(torch.zeros(1, 96000)))
        assert model.nan_windows == 13
        assert len(caplog.records) == 2

    def test_half_precision_file(self, tmp_path: Path) -> None:
        from onnx import TensorProto

        folder = tmp_path / "birdnet_v3"
        folder.mkdir()
        stand_ins.build_birdnet_v3(folder, element=TensorProto.FLOAT16)
        model = load_model("birdnet_v3", device="cpu", model_base_path=tmp_path)
        windows = noise("birdnet_v3", 2)
        embeddings, scores = model.infer(torch.from_numpy(windows), scores=True)
        assert embeddings.dtype == np.float32
        expected = stand_ins.expected["birdnet_v3"](windows)
        np.testing.assert_allclose(embeddings, expected.embeddings, rtol=0.02, atol=1e-3)
        np.testing.assert_allclose(scores, expected.scores, atol=2e-3)


@needs_onnx
class TestOnnxFiles:
    def test_fixed_number_of_windows(self, tmp_path: Path) -> None:
        folder = tmp_path / "perch_v2"
        folder.mkdir()
        stand_ins.build_perch_v2(folder, rows=2)
        model = load_model("perch_v2", device="cpu", model_base_path=tmp_path)
        windows = noise("perch_v2", 5)
        embeddings, scores = model.infer(model.preprocess(torch.from_numpy(windows)), scores=True)
        expected = stand_ins.expected["perch_v2"](windows)
        np.testing.assert_allclose(embeddings, expected.embeddings, atol=1e-6, rtol=1e-5)
        np.testing.assert_allclose(scores, expected.scores, atol=1e-6)

    def test_damaged_file(self, tmp_path: Path) -> None:
        (tmp_path / "perch_v2").mkdir()
        (tmp_path / "perch_v2/perch_v2_no_dft.onnx").write_bytes(b"no model")
        with pytest.raises(CheckpointError, match=r"perch_v2_no_dft\.onnx: .*cannot be read"):
            load_model("perch_v2", device="cpu", model_base_path=tmp_path)

    def test_another_model(self, base: Path, tmp_path: Path) -> None:
        (tmp_path / "perch_v2").mkdir()
        shutil.copy(base / "birdnet_v3/model.onnx", tmp_path / "perch_v2/perch_v2_no_dft.onnx")
        with pytest.raises(CheckpointError, match="is not the model 'perch_v2'"):
            load_model("perch_v2", device="cpu", model_base_path=tmp_path)

    @pytest.mark.parametrize(
        ("device", "available", "chosen"),
        [
            ("cpu", ["CUDA", "CPU"], None),
            ("cuda", ["TensorRT", "CUDA", "CPU"], ("CUDA", {"device_id": 0, "use_tf32": 0})),
            ("cuda:1", ["CUDA", "CPU"], ("CUDA", {"device_id": 1, "use_tf32": 0})),
            ("cuda:1", ["Dml", "CPU"], ("Dml", {"device_id": 1})),
            ("mps", ["CoreML", "CPU"], ("CoreML", {})),
        ],
    )
    def test_provider(
        self,
        device: str,
        available: list[str],
        chosen: tuple[str, dict[str, int]] | None,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        from bacpipe.models.backends import onnx

        full = [f"{name}ExecutionProvider" for name in available]
        monkeypatch.setattr(onnx.onnxruntime, "get_available_providers", lambda: full)
        first = [(f"{chosen[0]}ExecutionProvider", chosen[1])] if chosen else []
        assert onnx.execution_providers(device) == [*first, "CPUExecutionProvider"]
        assert caplog.text == ""

    def test_missing_provider_is_said(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        from bacpipe.models.backends import onnx

        only = ["CPUExecutionProvider"]
        monkeypatch.setattr(onnx.onnxruntime, "get_available_providers", lambda: only)
        assert onnx.execution_providers("cuda") == only
        assert "install onnxruntime-gpu" in caplog.text

    @pytest.mark.parametrize("starts", [True, False])
    def test_where_it_computes_is_told(
        self,
        starts: bool,
        base: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """With an ONNX Runtime that knows CUDA, whose libraries are there, or not."""
        from bacpipe.models.backends import onnx

        cuda, cpu = "CUDAExecutionProvider", "CPUExecutionProvider"
        preloaded: list[bool] = []
        monkeypatch.setattr(onnx.onnxruntime, "get_available_providers", lambda: [cuda, cpu])
        monkeypatch.setattr(
            onnx.onnxruntime, "preload_dlls", lambda: preloaded.append(True), raising=False
        )
        session = onnx.onnxruntime.InferenceSession

        def open_session(path: str, options: Any, providers: list[Any]) -> Any:
            assert providers[0][0] == cuda
            opened = session(path, options, providers=[cpu])
            if starts:
                opened.get_providers = lambda: [cuda, cpu]
            return opened

        monkeypatch.setattr(onnx.onnxruntime, "InferenceSession", open_session)
        monkeypatch.setattr("bacpipe.embedder.choose_device", lambda device: device)
        monkeypatch.setattr("bacpipe.inference.audio_handler.available_cores", lambda: 16)
        on_gpu = bacpipe.Embedder("perch_v2", model_base_path=str(base), device="cuda")
        runner = on_gpu.runner(scores=False)
        assert preloaded
        assert runner.device == "cpu"  # where audio is handed over
        load = on_gpu.workload(runner)
        if starts:
            assert caplog.text == ""
            assert (runner.computes_on, load.batch_size, load.decoders) == ("cuda", 64, 14)
        else:
            assert "could not start CUDA, so perch_v2 computes on the CPU" in caplog.text
            assert (runner.computes_on, load.decoders) == ("cpu", 4)


@needs_tensorflow
class TestSavedModels:
    def test_export_for_single_windows(self, tmp_path: Path) -> None:
        stand_ins.build_perch(tmp_path / "perch_bird", "label", 10932, "ebird2021", rows=1)
        self.check_perch(tmp_path)

    def test_export_that_returns_a_pair(self, tmp_path: Path) -> None:
        stand_ins.build_perch(tmp_path / "perch_bird", "label", 10932, "ebird2021", pair=True)
        self.check_perch(tmp_path)

    @staticmethod
    def check_perch(base: Path) -> None:
        model = load_model("perch_bird", device="cpu", model_base_path=base)
        windows = noise("perch_bird", 3)
        embeddings, scores = model.infer(model.preprocess(torch.from_numpy(windows)), scores=True)
        expected = stand_ins.expected["perch_bird"](windows)
        np.testing.assert_allclose(embeddings, expected.embeddings, atol=1e-6, rtol=1e-5)
        np.testing.assert_allclose(scores, expected.scores, atol=1e-6)

    def test_head_that_is_not_there(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        stand_ins.build_perch(tmp_path / "surfperch", "label", 10, "ebird2021")
        model = load_model("surfperch", device="cpu", model_base_path=tmp_path)
        assert not model.is_classifier
        assert "and not reef_label; there are embeddings" in caplog.text

    def test_waveform_with_channels(self, tmp_path: Path) -> None:
        stand_ins.build_hbdet(tmp_path / "hbdet", channels=True)
        model = load_model("hbdet", device="cpu", model_base_path=tmp_path)
        windows = noise("hbdet", 3)
        np.testing.assert_allclose(
            model(torch.from_numpy(windows)),
            stand_ins.expected["hbdet"](windows).embeddings,
            atol=1e-6,
        )

    def test_another_model(self, tmp_path: Path) -> None:
        stand_ins.build_hbdet(tmp_path / "hbdet", output="dense")
        shutil.copytree(tmp_path / "hbdet", tmp_path / "perch_bird")
        with pytest.raises(CheckpointError, match=r"returns dense and not pool; .*'hbdet'"):
            load_model("hbdet", device="cpu", model_base_path=tmp_path)
        with pytest.raises(CheckpointError, match=r"no function 'infer_tf'; .*'perch_bird'"):
            load_model("perch_bird", device="cpu", model_base_path=tmp_path)

    def test_damaged_model(self, base: Path, tmp_path: Path) -> None:
        shutil.copytree(base / "hbdet", tmp_path / "hbdet")
        (tmp_path / "hbdet/saved_model.pb").write_bytes(b"\x0a\xff")
        with pytest.raises(CheckpointError, match="cannot be loaded"):
            load_model("hbdet", device="cpu", model_base_path=tmp_path)


@needs_tensorflow
class TestTensorFlowDevice:
    @pytest.fixture
    def config(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        """TensorFlow's settings on a machine with two GPUs, and what was done to them."""
        from bacpipe.models.backends import tensorflow as backend

        state: dict[str, Any] = {"physical": ["g0", "g1"], "visible": ["g0", "g1"], "growth": []}
        config = backend.tf.config
        monkeypatch.setattr(config, "list_physical_devices", lambda kind: state["physical"])
        monkeypatch.setattr(config, "get_visible_devices", lambda kind: state["visible"])
        monkeypatch.setattr(
            config, "set_visible_devices", lambda devices, kind: state.update(visible=devices)
        )
        monkeypatch.setattr(
            config.experimental,
            "set_memory_growth",
            lambda gpu, on: state["growth"].append((gpu, on)),
        )
        monkeypatch.setattr(
            config.experimental,
            "enable_tensor_float_32_execution",
            lambda on: state.update(tf32=on),
        )
        return state

    def test_cpu_sees_no_gpu(self, config: dict[str, Any]) -> None:
        from bacpipe.models.backends.tensorflow import choose_tf_device

        assert choose_tf_device("cpu") == "/CPU:0"
        assert config["visible"] == []
        with pytest.raises(SettingsError, match="restart Python"):
            choose_tf_device("cuda")

    @pytest.mark.parametrize(("device", "name"), [("cuda", "/GPU:0"), ("cuda:1", "/GPU:1")])
    def test_gpu_memory_grows(self, config: dict[str, Any], device: str, name: str) -> None:
        from bacpipe.models.backends.tensorflow import choose_tf_device

        assert choose_tf_device(device) == name
        assert config["growth"] == [("g0", True), ("g1", True)]
        assert config["tf32"] is False

    def test_missing_gpu_is_said(
        self, config: dict[str, Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        from bacpipe.models.backends.tensorflow import choose_tf_device

        config["physical"] = []
        assert choose_tf_device("cuda") == "/CPU:0"
        assert "finds no GPU, so the CPU is used" in caplog.text


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [("perch_v2", "onnxruntime", "onnx"), ("hbdet", "tensorflow", "tensorflow")],
)
def test_missing_extra_is_one_sentence(
    name: str, package: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(extras, "versions", lambda _: {package: extras.MISSING})
    for module in (f"bacpipe.models.families.{name}", f"bacpipe.models.backends.{extra}"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(ModelUnavailableError) as caught:
        load_model(name, device="cpu", model_base_path=tmp_path)
    assert f'pip install -c constraints.txt ".[{extra}]"' in str(caught.value)
    assert package in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_constants_derive_from_the_cards() -> None:
    assert sorted(bacpipe.TF_MODELS) == sorted(stand_ins.TF_MODELS)
    assert set(stand_ins.expected) <= set(bacpipe.NEEDS_CHECKPOINT)
    assert "birdnet" not in bacpipe.NEEDS_CHECKPOINT
    assert {name: CARDS[name].dim for name in CARDS} == dict(bacpipe.EMBEDDING_DIMENSIONS)
