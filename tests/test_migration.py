"""Scripts, settings, weights and results of bacpipe 1.3, as its users bring them."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

import bacpipe
from bacpipe.errors import AnnotationsError, ResultsError, ResultsNotFoundError, SettingsError
from bacpipe.models.weights import checkpoints
from bacpipe.options import make_options, read_overrides
from bacpipe.store.verification import verify_results
from tests.conftest import TinyModel, write_recording


def write_annotations(folder: Path) -> None:
    names = [f"{side}/2024050{day}_04300{day}.wav" for side in "ab" for day in range(1, 5)]
    rows = []
    for number, name in enumerate(names):
        write_recording(folder / name, 6.0, seed=number)
        rows += [(name, 0, 2, "owl"), (name, 2, 4, "wren"), (name, 4, 6, "owl")]
    table = pd.DataFrame(rows, columns=["audiofilename", "start", "end", "label:species"])
    table.to_csv(folder / "annotations.csv", index=False)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """Results of the tiny model for eight dated recordings, and the settings that find them."""
    folder = tmp_path_factory.mktemp("migration")
    audio = folder / "field"
    write_annotations(audio)
    settings: dict[str, Any] = {
        "main_results_dir": str(folder / "results"), "device": "cpu", "classifier_threshold": 0.3,
    }  # fmt: skip
    loader = bacpipe.run_pipeline_for_single_model(
        "tiny", audio, "pca", CustomModel=TinyModel, **settings
    )
    yield SimpleNamespace(
        audio=audio, settings=settings, loader=loader, recording="a/20240501_043001.wav"
    )


@pytest.fixture
def configured(done: SimpleNamespace, restored_settings: None) -> SimpleNamespace:
    """The same, set in bacpipe.config and bacpipe.settings as notebooks do."""
    bacpipe.config.audio_dir = str(done.audio)
    for key, value in done.settings.items():
        setattr(bacpipe.settings, key, value)
    return done


# ---------------------------------------------------------------------- audio and models


def test_an_audio_handler_is_made_of_a_name(done: SimpleNamespace) -> None:
    by_place = bacpipe.AudioHandler("birdnet", done.audio, "constant", True, 0.5)
    by_name = bacpipe.AudioHandler(
        model="birdnet", audio_dir=done.audio, padding="constant", bool_change_speed=True,
        new_speed=0.5,
    )  # fmt: skip
    for handler in (by_place, by_name):
        audio, sr = handler.load_and_resample(done.recording)
        assert (sr, audio.shape) == (48000, (12 * 48000,))  # six seconds, at half their speed
        assert handler.window_audio(audio).shape == (4, 144000)
        assert handler.get_file_length(done.audio / done.recording) == 6.0
        assert handler.options.padding == "constant"
        # BirdNET's windows are known without its weights.
        assert handler.__dict__["_model"] is None
    with pytest.raises(SettingsError, match="padding='wrapp'"):
        bacpipe.AudioHandler("birdnet", done.audio, padding="wrapp")
    with pytest.raises(ValueError, match="birdnet"):
        bacpipe.AudioHandler("birdnot", done.audio)


@pytest.mark.parametrize(
    "model", [TinyModel, TinyModel(), SimpleNamespace(sr=8000, segment_length=8000)]
)
def test_an_audio_handler_is_made_of_a_model(done: SimpleNamespace, model: Any) -> None:
    handler = bacpipe.AudioHandler(model, done.audio, padding="constant")
    audio, sr = handler.load_and_resample(done.recording)
    assert (sr, len(audio)) == (8000, 48000)
    stacked = torch.stack([audio[:12000], audio[12000:24000]])
    windows = handler.window_audio(stacked)
    assert windows.shape == (4, 8000)
    torch.testing.assert_close(windows[2], audio[12000:20000])
    assert not windows[1, 4000:].any() and not windows[3, 4000:].any()
    torch.testing.assert_close(handler.window_audio(windows.numpy()), windows)
    assert handler.preprocessed_shape == ()
    if not isinstance(model, SimpleNamespace):
        assert handler.prepare_audio(done.recording).shape == handler.preprocessed_shape
        assert handler.preprocessed_shape == (6, 10, 800)
        assert handler.file_length == {done.recording: 6.0}
    with pytest.raises(SettingsError, match="segment_length"):
        bacpipe.AudioHandler(SimpleNamespace(sr=8000), done.audio)


def test_annotated_segments_read_their_table_by_themselves(done: SimpleNamespace) -> None:
    handler = bacpipe.AudioHandler(TinyModel, done.audio)
    path = done.audio / done.recording
    windows, starts = handler.only_load_annotated_segments(path)
    assert starts.tolist() == [0, 1, 2, 3, 4, 5] and windows.shape == (6, 8000)
    table = pd.read_csv(done.audio / "annotations.csv")
    some = table[table["label:species"] == "wren"]  # of all recordings
    for file in (path, str(path), done.recording):
        assert handler.only_load_annotated_segments(file, some)[1].tolist() == [2, 3]
        assert handler.only_load_annotated_segments(file, annotations_df=some)[1].tolist() == [2, 3]
    others = table[table["audiofilename"] != done.recording]
    with pytest.raises(AnnotationsError, match=re.escape(done.recording)):
        handler.only_load_annotated_segments(path, others)
    beside = bacpipe.AudioHandler(TinyModel)  # which knows no folder
    with pytest.raises(AnnotationsError, match=r"annotations\.csv"):
        beside.only_load_annotated_segments(path)


def test_the_base_class_of_models_stands_by_itself(tmp_path: Path) -> None:
    model = bacpipe.ModelBaseClass(
        model_name="BirdNET", device="cpu", global_batch_size=3, run_pretrained_classifier=True
    )
    assert (model.sr, model.segment_length, model.batch_size) == (48000, 144000, 3)
    assert model.model_name == "BirdNET" and isinstance(model.model_base_path, Path)
    assert not model.bool_classifier and model.classifier_outputs is None
    own = bacpipe.ModelBaseClass(
        model_name="mine", device="cpu", global_batch_size="auto", run_pretrained_classifier=False,
        sr=100, segment_length=10, model_base_path=tmp_path,
    )  # fmt: skip
    own.classes = ["a"]
    assert (own.sr, own.batch_size, own.model_base_path) == (100, 8, tmp_path)
    assert own.is_classifier and not own.bool_classifier
    own.bool_classifier = True
    assert own.bool_classifier


class NamesAll(TinyModel):
    """Its constructor names what it is given."""

    def __init__(
        self,
        model_name: str,
        global_batch_size: int,
        run_pretrained_classifier: bool,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.given = (model_name, global_batch_size, run_pretrained_classifier)


def test_arrays_are_embedded_and_the_model_keeps_its_scores() -> None:
    embedder = bacpipe.Embedder("mine", CustomModel=NamesAll, device="cpu", global_batch_size=2)
    assert embedder.model.given == ("mine", 2, True)
    audio = np.random.default_rng(0).uniform(-1, 1, 20000).astype(np.float32)
    found = embedder.generate_embeddings_from_audio_array(audio)
    assert found.shape == (3, 10)
    np.testing.assert_array_equal(found, embedder.embeddings_using_multithreading([audio]))
    assert embedder.model.classifier_outputs.shape == (3, 2)
    np.testing.assert_array_equal(
        embedder.model.classifier_outputs, embedder.classifier.predictions
    )
    assert embedder.model.bool_classifier
    bacpipe.Embedder("m", CustomModel=embedder.model, device="cpu", run_pretrained_classifier=False)
    assert not embedder.model.bool_classifier
    stacked = embedder.generate_embeddings_from_audio_array(
        torch.from_numpy(audio[:16000].reshape(2, 8000))
    )
    np.testing.assert_array_equal(stacked, found[:2])


# ---------------------------------------------------------------------- functions


def test_own_models_pass_where_names_are_checked(done: SimpleNamespace, tmp_path: Path) -> None:
    assert bacpipe.confirm_model_name("mine", TinyModel) == "mine"
    assert bacpipe.confirm_model_name("mine", CustomModel=TinyModel) == "mine"
    assert bacpipe.confirm_model_name("BirdNET") == "birdnet"
    assert bacpipe.ensure_models_exist(tmp_path, "mine", CustomModel=TinyModel) == str(tmp_path)
    both, own = ["birdnet", "mine"], [None, TinyModel]
    assert bacpipe.ensure_models_exist(tmp_path, both, CustomModels=own) == str(tmp_path)
    arguments = (done.audio, done.settings["main_results_dir"], "embeddings")
    assert bacpipe.get_model_names(both, *arguments, CustomModels=own) == both
    assert bacpipe.get_model_names("mine", *arguments, CustomModel=TinyModel) == ["mine"]
    assert bacpipe.get_model_names(["Perch_V2"], *arguments) == ["perch_v2"]
    for call in (
        lambda: bacpipe.confirm_model_name("birdnot"),
        lambda: bacpipe.get_model_names(["birdnot"], *arguments),
        lambda: bacpipe.ensure_models_exist(
            tmp_path, ["birdnet", "mine"], CustomModels=[None, None]
        ),
    ):
        with pytest.raises(ValueError, match="There is no model"):
            call()


def test_positional_arguments_of_generate_embeddings_are_told_their_names() -> None:
    for arguments, meant in (
        (("birdnet", "rec"), "model_name='birdnet', audio_dir='rec'"),
        (("birdnet",), "model_name='birdnet'"),
        (("birdnet", Path("rec"), 3), "model_name='birdnet', audio_dir='rec', ...='3'"),
    ):
        with pytest.raises(SettingsError, match=re.escape(f"generate_embeddings({meant})")):
            bacpipe.generate_embeddings(*arguments)


def test_paths_exist_once_they_are_asked_for(tmp_path: Path) -> None:
    paths = bacpipe.make_set_paths_func(tmp_path / "rec", tmp_path / "results")("BirdNET")
    for folder in (
        paths.main_results_dir, paths.dataset_path, paths.main_embeds_path,
        paths.dim_reduc_parent_dir, paths.labels_path, paths.clust_path, paths.probe_path,
        paths.preds_path, paths.plot_path,
    ):  # fmt: skip
        assert folder.is_dir()
    assert paths.preds_path.parent.name == "birdnet"
    with pytest.raises(FileNotFoundError, match="holds no results"):
        verify_results(paths.main_results_dir)


def test_labels_are_made_one_by_one(done: SimpleNamespace) -> None:
    paths = bacpipe.make_set_paths_func(done.audio, done.settings["main_results_dir"])("tiny")
    maker = bacpipe.MetadataLabelMaker(paths, "tiny")
    expected = maker.generate()
    for key in expected:
        np.testing.assert_array_equal(getattr(maker, key)(), expected[key])
    assert maker.time_of_day()[0] == "04:30" and maker.day_of_year()[0] == 122
    assert maker.parent_directory()[0] == "a" and set(maker.metadata_label_dict) == {*expected}


def test_a_loader_filters_and_reads_predictions_elsewhere(
    done: SimpleNamespace, tmp_path: Path
) -> None:
    loader = done.loader
    table = loader.predictions("dataframe")
    rows = loader.filter_df_by_file(table, done.audio / done.recording)
    assert set(rows["audiofilename"]) == {done.recording} and 0 < len(rows) < len(table)
    pd.testing.assert_frame_equal(rows, loader.filter_df_by_file(df=table, file=done.recording))
    assert loader.filter_df_by_file(table, "none.wav").empty
    with pytest.raises(SettingsError, match="audiofilename"):
        loader.filter_df_by_file(table.drop(columns="audiofilename"), done.recording)
    shutil.copytree(loader.paths.preds_path, tmp_path / "copy")
    copied = loader.predictions("dataframe", parent_dir=tmp_path / "copy")
    pd.testing.assert_frame_equal(copied, table)
    before = loader.paths
    with pytest.raises(ResultsError):
        loader.predictions(parent_dir=str(tmp_path / "nowhere"))
    assert loader.paths == before


def test_evaluation_and_probes_have_defaults(configured: SimpleNamespace) -> None:
    loaders = {"tiny": configured.loader}
    results = bacpipe.model_specific_evaluation(loaders, "probing")
    assert set(results["tiny"]["probing"]) == {"linear", "knn"}
    old = {
        "config_1": {"name": "knn", "bool": True, "n_neighbors": 3},
        "config_2": {"name": "linear", "bool": False},
    }
    results = bacpipe.model_specific_evaluation(loaders, "probing", old, ["tiny"])
    assert set(results["tiny"]["probing"]) == {"knn"}
    again = bacpipe.model_specific_evaluation({"Tiny": configured.loader}, "probing", old, "Tiny")
    assert set(again) == {"Tiny"}  # the case of a name of one's own counts
    probe, label2index = bacpipe.prepare_probe_inference("tiny")  # of config.audio_dir
    assert label2index == {"owl": 0, "wren": 1}
    present = bacpipe.run_probe_inference("tiny", probe)
    scores = bacpipe.run_probe_inference("tiny", probe, return_binary_presence=False)
    np.testing.assert_array_equal(present, scores >= 0.5)
    assert len(present) == len(configured.loader.embeddings("array"))


def test_a_run_saves_its_logs_and_draws_its_map(done: SimpleNamespace) -> None:
    loaders = bacpipe.play(
        save_logs=True, audio_dir=done.audio, models=["tiny"], CustomModel=TinyModel,
        dim_reduction_model="pca", **done.settings,
    )  # fmt: skip
    paths = loaders["tiny"].paths
    assert len(list(paths.logs_path.glob("*_settings.yaml"))) == 1
    figure = paths.plot_path / "embeddings.png"
    assert figure.read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(SettingsError, match="save_logs='logs'"):
        bacpipe.play(save_logs="logs")  # type: ignore[arg-type]


def test_a_map_is_drawn_again_only_when_it_or_its_labels_change(
    done: SimpleNamespace, tmp_path: Path
) -> None:
    settings = {**done.settings, "main_results_dir": str(tmp_path), "CustomModel": TinyModel}

    def drawn() -> tuple[int, str]:
        loader = bacpipe.run_pipeline_for_single_model("tiny", done.audio, "pca", **settings)
        figure = loader.paths.plot_path / "embeddings.png"
        about = json.loads(figure.with_suffix(".json").read_text())
        return figure.stat().st_mtime_ns, about["colours"]

    first = drawn()
    assert first[1] == "folder" and drawn() == first
    bacpipe.ground_truth_by_model("tiny", done.audio, main_results_dir=str(tmp_path))
    assert drawn()[1] == "species" and drawn()[0] > first[0]


# ---------------------------------------------------------------------- settings and config files


OLD_SETTINGS: dict[str, Any] = {
    "metadata_label_keys": ["time_of_day", "parent_directory"],
    "embed_fig_height": 700,
    "spectrogram_plot_height": 250,
    "spec_colorscale": "Magma",
    "color_continuous": "Viridis",
    "heatmap_fig_height": 400,
    "accordion_width": 300,
    "nr_parallel_workers": False,
    "probe_configs": {
        "config_1": {"name": "linear", "bool": True, "learning_rate": 0.01, "batch_size": 64},
        "config_2": {"name": "knn", "bool": False, "n_neighbors": 15},
    },
    "clust_configs": {
        "config_1": {"name": "kmeans", "bool": True, "params": {"n_clusters": 8}},
        "config_2": {"name": "hdbscan", "bool": False, "params": {"min_cluster_size": 5}},
    },
    "padding": "wrap",
}


def test_old_settings_load_with_one_notice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump(OLD_SETTINGS, sort_keys=False))
    found = read_overrides(path, "settings")
    assert found == {
        "default_label_keys": ("time_of_day", "parent_directory"),
        "embedding_figure_height": 700,
        "spectrogram_figure_height": 250,
        "spectrogram_colour_scale": "magma",
        "embedding_colour_scale": "viridis",
        "nr_parallel_workers": "auto",
        "probe_configs": {"linear": {"learning_rate": 0.01, "batch_size": 64}},
        "clust_configs": {"kmeans": {"n_clusters": 8}},
        "padding": "wrap",
    }
    make_options(**found)
    (notice,) = caplog.messages
    assert str(path) in notice
    for old in OLD_SETTINGS.keys() - {"padding", "nr_parallel_workers"}:
        assert old in notice
    for new in found.keys() - {"padding", "nr_parallel_workers"}:
        assert new in notice


def test_files_of_this_version_load_without_a_notice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump({"probe_configs": {"knn": {"n_neighbors": 3}}}))
    assert read_overrides(path, "settings") == {"probe_configs": {"knn": {"n_neighbors": 3}}}
    assert caplog.messages == []


def test_what_an_old_file_loses_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "settings.yaml"
    knn = {"name": "knn", "bool": True}
    configs = {
        "config_1": {**knn, "n_neighbors": 3, "odd": 1},
        "config_2": {**knn, "n_neighbors": 9},
    }
    path.write_text(yaml.safe_dump({"probe_configs": configs}))
    assert read_overrides(path, "settings") == {"probe_configs": {"knn": {"n_neighbors": 3}}}
    assert "config_1.odd does nothing" in caplog.text and "config_2 is left out" in caplog.text


def test_all_problems_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(
        "padding: wrapp\ndevise: cpu\nhop: x\nmodels: [a]\nembed_fig_height: 1\n"
        "spec_colorscale: ''\n"
    )
    with pytest.raises(SettingsError) as raised:
        read_overrides(path, "settings")
    lines = str(raised.value).splitlines()
    assert "6 problems" in lines[0] and len(lines) == 7
    for key in ("padding", "devise", "hop", "models", "embedding_figure_height", "colour_scale"):
        assert sum(key in line for line in lines[1:]) == 1, key


def test_the_command_takes_old_files(
    done: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bacpipe.commands.arguments import read_settings

    monkeypatch.chdir(tmp_path)
    Path("settings.yaml").write_text(yaml.safe_dump(OLD_SETTINGS))
    Path("config.yaml").write_text(
        yaml.safe_dump({"audio_dir": str(done.audio), "models": "birdnet"})
    )
    read = read_settings(SimpleNamespace(config=None, settings=None, words=["hop=1"]))  # type: ignore[arg-type]
    assert make_options(**read).nr_parallel_workers == "auto"
    assert read["hop"] == 1 and read["models"] == ("birdnet",)


def test_old_keys_in_scripts_are_told_their_new_names() -> None:
    with pytest.raises(AttributeError, match="did you mean 'default_label_keys'"):
        _ = bacpipe.settings.metadata_label_keys
    with pytest.raises(SettingsError, match=r"accordion_width.*does nothing any more"):
        make_options(accordion_width=3)
    assert make_options(nr_parallel_workers=False).nr_parallel_workers == "auto"


# ---------------------------------------------------------------------- results


@pytest.fixture
def old(done: SimpleNamespace, tmp_path: Path) -> SimpleNamespace:
    """Results as bacpipe 1.3 leaves them: no journal, predictions and a map as JSON."""
    loader = done.loader
    results = tmp_path / "results"
    dataset = results / loader.paths.dataset
    written = loader.get_embedding_dir()
    embeddings = dataset / "embeddings" / written.name
    shutil.copytree(written, embeddings)
    for journal in embeddings.glob("journal*"):
        journal.unlink()
    metadata = yaml.safe_load((embeddings / "metadata.yml").read_text())
    del metadata["bacpipe"]
    (embeddings / "metadata.yml").write_text(yaml.safe_dump(metadata))
    made = dataset / "dim_reduced_embeddings" / f"2025-01-01_10-00___umap-{dataset.name}-tiny"
    evaluations = dataset / "evaluations" / "tiny"
    for path in (
        made / f"{dataset.name}_tiny.json",
        evaluations / "predictions" / "original_classifier_outputs" / "a" / "x_tiny.json",
    ):
        path.parent.mkdir(parents=True)
        path.write_text('{"x": [1.0]}')
    (made / "metadata.yml").write_text("model_name: tiny\n")
    (evaluations / "labels").mkdir()
    np.save(evaluations / "labels" / "default_labels.npy", {"a": [1]}, allow_pickle=True)
    (evaluations / "probing").mkdir()
    settings = {**done.settings, "main_results_dir": str(results)}
    return SimpleNamespace(audio=done.audio, results=results, evaluations=evaluations,
                           settings=settings, made=made, done=done)  # fmt: skip


def test_old_results_are_named_and_never_called_damaged(
    old: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save({"weight": torch.zeros(2, 10)}, old.evaluations / "probing" / "linear_probe.pt")
    caplog.set_level(logging.INFO, logger="bacpipe")
    assert [str(finding) for finding in verify_results(old.results)] == []
    for place in (old.made, old.evaluations / "labels", old.evaluations / "probing",
                  old.evaluations / "predictions" / "original_classifier_outputs"):  # fmt: skip
        (line,) = [text for text in caplog.messages if text.startswith(f"{place} ")]
        assert "bacpipe 1.3" in line and "again" in line
    assert "damaged" not in caplog.text


def test_old_embeddings_are_read_and_what_else_there_is_is_explained(old: SimpleNamespace) -> None:
    loader = bacpipe.Loader(old.audio, "tiny", **old.settings)
    np.testing.assert_array_equal(loader.embeddings("array"), old.done.loader.embeddings("array"))
    with pytest.raises(
        ResultsNotFoundError, match=r"bacpipe 1\.3 wrote as JSON.*run the model again"
    ):
        loader.predictions()
    with pytest.raises(ResultsNotFoundError, match=r"map that bacpipe 1\.3 wrote as JSON"):
        bacpipe.Loader(old.audio, "tiny", dim_reduction_model="umap", **old.settings).embeddings()
    calls = TinyModel.windows_seen
    loader = bacpipe.generate_embeddings(
        model_name="tiny", audio_dir=old.audio, CustomModel=TinyModel, **old.settings
    )
    pd.testing.assert_frame_equal(
        loader.predictions("dataframe"), old.done.loader.predictions("dataframe")
    )
    assert TinyModel.windows_seen == calls  # the embeddings were kept
    assert verify_results(old.results) == []


@pytest.mark.parametrize(
    "state",
    [
        lambda weight, bias: {"weight": weight, "bias": bias},
        lambda weight, bias: {"state_dict": {"fc.weight": weight, "fc.bias": bias}, "epoch": 3},
        lambda weight, bias: {"classifier.weight": weight, "classifier.bias": bias},
    ],
)
def test_an_old_linear_probe_is_read(old: SimpleNamespace, state: Any) -> None:
    rng = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(3, 10, generator=rng), torch.randn(3, generator=rng)
    folder = old.evaluations / "probing"
    torch.save(state(weight, bias), folder / "linear_probe.pt")
    (folder / "label2index.json").write_text(json.dumps({"owl": 1, "crow": 0, "wren": 2}))
    for place in ("", folder, folder / "linear_probe.pt"):
        probe, label2index = bacpipe.prepare_probe_inference(
            "tiny", place, audio_dir=old.audio, **old.settings
        )
        assert label2index == {"crow": 0, "owl": 1, "wren": 2}
        embeds = old.done.loader.embeddings("array")
        scores = bacpipe.run_probe_inference(
            "tiny", probe, embeds=embeds, return_binary_presence=False
        )
        expected = torch.softmax(torch.from_numpy(embeds) @ weight.T + bias, 1)
        np.testing.assert_allclose(scores, expected, atol=1e-6)


class Harmful:
    """Whoever unpickles it leaves a file."""

    path: Path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_other_old_probes_are_explained_and_executed_never(
    old: SimpleNamespace, tmp_path: Path
) -> None:
    folder = old.evaluations / "probing"
    harmful = Harmful()
    harmful.path = tmp_path / "ran"
    two_layers = {"a.weight": torch.zeros(4, 10), "b.weight": torch.zeros(3, 4)}
    for content, why in (
        (two_layers, r"holds not one linear layer \(a.weight \(4, 10\), b.weight"),
        (harmful, r"holds not one linear layer"),
        ({"weight": torch.zeros(3, 10), "more": harmful}, "there is no label2index.json"),
        (b"", "cannot be read as a probe of bacpipe 1.3"),
    ):
        path = folder / "linear_probe.pt"
        path.write_bytes(b"no zip") if content == b"" else torch.save(content, path)
        with pytest.raises((ResultsError, ResultsNotFoundError), match=why) as raised:
            bacpipe.prepare_probe_inference("tiny", folder)
        assert "train it anew" in str(raised.value) and "damaged" not in str(raised.value)
    (folder / "label2index.json").write_text('{"owl": 0}')
    torch.save({"weight": torch.zeros(3, 10)}, folder / "linear_probe.pt")
    with pytest.raises(ResultsError, match=r"names 1 class, but linear_probe\.pt has 3"):
        bacpipe.prepare_probe_inference("tiny", folder)
    assert not harmful.path.exists()


# ---------------------------------------------------------------------- weights


@pytest.mark.parametrize("name", ["bacpipe_model_checkpoints", "model_checkpoints"])
def test_weights_of_old_folders_are_found(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from bacpipe.models.zoo import CARDS

    caplog.set_level(logging.INFO, logger="bacpipe")
    monkeypatch.chdir(tmp_path)
    card = CARDS["mix2"]
    for file in card.files:
        path = tmp_path / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"weights")
    found = checkpoints.resolve(card, tmp_path / "new")
    assert {*found.values()} == {tmp_path / name / file for file in card.files}
    assert checkpoints.missing_files(card, tmp_path / "new") == []
    assert sum(str(tmp_path / name) in message for message in caplog.messages) == 1
    mine = tmp_path / "new" / card.files[0]
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"newer")
    assert checkpoints.resolve(card, tmp_path / "new")[card.files[0]] == mine


def test_weights_of_old_folders_are_compared_with_the_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from bacpipe.models.zoo import CARDS

    card = next(
        card for card in CARDS.values() if {*checkpoints.known_hashes(card)} & {*card.files}
    )
    (name, *_) = {*checkpoints.known_hashes(card)} & {*card.files}
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model_checkpoints" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"another file")
    assert name in checkpoints.missing_files(card, tmp_path / "new")
    assert "left aside" in caplog.text
