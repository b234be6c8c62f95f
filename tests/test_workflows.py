from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

import bacpipe
from bacpipe.errors import (
    AnnotationsError,
    NoRecordingsError,
    ResultsError,
    ResultsNotFoundError,
    SettingsError,
    UnknownModelError,
)
from tests.conftest import TinyModel, needs_shared_audio, write_recording

Run = Callable[..., bacpipe.Loader]


def test_results_read_back_in_every_form(run: Run, recordings: Path) -> None:
    loader = run(classifier_threshold=0.0)
    by_file = loader.embeddings()
    assert list(by_file) == [
        "north/a_tiny.npy",
        "north/b_tiny.npy",
        "south/a_tiny.npy",
        "south/c_tiny.npy",
        "top_tiny.npy",
    ]
    array = loader.embeddings("array")
    np.testing.assert_array_equal(array, np.concatenate(list(by_file.values())))
    np.testing.assert_array_equal(
        loader.read_embedding_file(recordings / "south" / "c.flac"), by_file["south/c_tiny.npy"]
    )
    scores, classes = loader.predictions("array")
    assert scores.shape == (15, 2)
    assert classes == {0: "loud", 1: "quiet"}
    per_recording, _ = loader.predictions()
    np.testing.assert_array_equal(np.concatenate(list(per_recording.values())), scores)
    frame = loader.predictions("dataframe")
    assert list(frame.columns) == ["audiofilename", "start", "end", "loud", "quiet"]
    np.testing.assert_allclose(frame[["loud", "quiet"]].to_numpy(), scores)
    last = frame[frame.audiofilename == "north/a.wav"].iloc[-1]
    assert (last.start, last.end) == (3.0, 3.5)
    np.testing.assert_allclose(scores[:, 0], array.mean(axis=1), rtol=1e-5)


def test_metadata_are_those_that_other_tools_read(run: Run, recordings: Path) -> None:
    loader = run()
    metadata = yaml.safe_load((loader.get_embedding_dir() / "metadata.yml").read_text())
    assert metadata == loader.metadata_dict
    assert metadata["model_name"] == "tiny"
    assert metadata["audio_dir"] == str(recordings)
    assert metadata["embedding_size"] == 10
    assert metadata["sample_rate (Hz)"] == 8000
    assert metadata["segment_length (samples)"] == 8000
    assert metadata["nr_embeds_total"] == 15
    assert metadata["total_dataset_length (s)"] == 13.5
    assert metadata["files"]["audio_files"][0] == "north/a.wav"
    assert metadata["files"]["file_lengths (s)"] == [3.5, 2.0, 4.0, 3.5, 0.5]
    assert metadata["files"]["nr_embeds_per_file"] == [4, 2, 4, 4, 1]
    assert metadata["bacpipe"]["padding"] == "wrap"
    assert metadata["bacpipe"]["version"] == bacpipe.__version__


def test_predictions_tables(run: Run) -> None:
    loader = run(classifier_threshold=0.0, save_raven_tables=True)
    folder = loader.paths.preds_path
    table = pd.read_csv(folder / "tiny_classifier_annotations.csv")
    assert list(table.columns) == [
        "start", "end", "audiofilename", "label:default_classifier", "label:confidence",
    ]  # fmt: skip
    assert len(table) == 30  # both classes of each of the 15 windows
    wide = pd.read_parquet(folder / "tiny_all_predictions.parquet")
    pd.testing.assert_frame_equal(wide, loader.predictions("dataframe"), check_dtype=False)
    raven = pd.read_csv(folder / "raven_tables" / "south" / "a_tiny.selection.table.txt", sep="\t")
    assert len(raven) == 8
    assert raven["High Freq (Hz)"].unique().tolist() == [4000.0]
    assert set(raven["Label"]) == {"loud", "quiet"}
    assert Path(raven["Begin Path"][0]).is_file()


def test_models_without_classifier_and_unwanted_classifiers_give_no_predictions(
    run: Run, tmp_path: Path
) -> None:
    loader = run(run_pretrained_classifier=False)
    with pytest.raises(ResultsNotFoundError, match="no predictions"):
        loader.predictions("dict")
    assert not loader.paths.preds_path.exists()
    assert loader.classifier_should_be_run(loader.paths, True, False)
    assert not loader.classifier_should_be_run(loader.paths, False, False)
    loader = run()
    assert not loader.classifier_should_be_run(loader.paths, True, False)


def test_sequential_and_threaded_runs_agree(run: Run, tmp_path: Path) -> None:
    threaded = run().embeddings()
    loader = run(avoid_pipelined_gpu_inference=True, main_results_dir=tmp_path / "other")
    for name, embeddings in loader.embeddings().items():
        np.testing.assert_allclose(embeddings, threaded[name], rtol=1e-6)


def test_only_annotated_segments(run: Run, recordings: Path, tiny_model: type[TinyModel]) -> None:
    with pytest.raises(AnnotationsError, match=r"annotations\.csv"):
        run(only_embed_annotations=True)
    (recordings / "annotations.csv").write_text(
        "audiofilename,start,end,label:species\n"
        "north/a.wav,0.5,2.0,warbler\nnorth/a.wav,0.5,2.0,trill\nnorth\\a.wav,2,3,warbler\n"
        "south/c.flac,3,9,frog\n"
    )
    loader = run(only_embed_annotations=True)
    assert list(loader.entries) == ["north/a.wav", "south/c.flac"]
    start, end = loader.window_times("north/a.wav")
    np.testing.assert_allclose(start, [0.5, 1.5, 2.0])
    np.testing.assert_allclose(end, [1.5, 2.0, 3.0])
    start, end = loader.window_times("south/c.flac")
    np.testing.assert_allclose((start[0], end[0]), (3.0, 3.5))
    before = tiny_model.windows_seen
    (recordings / "annotations.csv").write_text(
        "audiofilename,start,end,label:species\n"
        "north/a.wav,0.5,2.0,warbler\nsouth/c.flac,3,9,frog\n"
    )
    loader = run(only_embed_annotations=True)
    assert tiny_model.windows_seen - before == 2
    assert len(loader.embeddings("array")) == 3
    with pytest.raises(AnnotationsError, match="min_annotation_length"):
        run(only_embed_annotations=True, min_annotation_length=100)


def test_a_trial_run_takes_three_recordings_and_stays_apart(run: Run, tmp_path: Path) -> None:
    loader = run(testing=True)
    assert len(loader.entries) == 3
    assert (tmp_path / "results_testing").is_dir()
    assert not (tmp_path / "results").exists()


def test_several_models_and_what_they_are_called(
    recordings: Path, tmp_path: Path, tiny_model: type[TinyModel]
) -> None:
    settings = {"main_results_dir": tmp_path / "results", "device": "cpu"}
    loaders = bacpipe.run_pipeline_for_models(
        ["one", "two"], recordings, "None", CustomModels=[tiny_model, tiny_model], **settings
    )
    assert list(loaders) == ["one", "two"]
    np.testing.assert_array_equal(
        loaders["one"].embeddings("array"), loaders["two"].embeddings("array")
    )
    names = bacpipe.get_model_names([], recordings, tmp_path / "results", "embeddings", True)
    assert names == ["one", "two"]
    assert bacpipe.get_model_names("mix2", recordings, tmp_path, "embeddings") == ["mix2"]
    with pytest.raises(ValueError, match="no embeddings"):
        bacpipe.get_model_names([], recordings, tmp_path / "none", "embeddings", True)
    for call in (
        lambda: bacpipe.play(models=[], audio_dir=recordings, **settings),
        lambda: bacpipe.run_pipeline_for_models([], recordings, **settings),
        lambda: bacpipe.plan_shards(models=[], audio_dir=recordings, **settings),
    ):
        with pytest.raises(SettingsError, match=r"^models is empty; expected at least one"):
            call()
    with pytest.raises(SettingsError, match="CustomModels has 1"):
        bacpipe.run_pipeline_for_models(["one", "two"], recordings, CustomModels=[tiny_model])


def test_paths_are_those_of_the_layout(tmp_path: Path) -> None:
    get_paths = bacpipe.make_set_paths_func("some/where/field", main_results_dir=tmp_path)
    paths = get_paths("tiny")
    assert paths.dataset_path == tmp_path / "field"
    assert paths.main_embeds_path == tmp_path / "field" / "embeddings"
    assert paths.dim_reduc_parent_dir == tmp_path / "field" / "dim_reduced_embeddings"
    evaluations = tmp_path / "field" / "evaluations" / "tiny"
    assert paths.labels_path == evaluations / "labels"
    assert paths.clust_path == evaluations / "clustering"
    assert paths.probe_path == evaluations / "probing"
    assert paths.preds_path == evaluations / "predictions"
    assert paths.plot_path == evaluations / "plots"
    assert paths.audio_dir == Path("some/where/field")
    assert paths.main_results_dir == tmp_path
    assert all(folder.is_dir() for folder in dataclasses.astuple(paths)[1:])
    assert not paths.audio_dir.exists()


def test_embeddings_computed_elsewhere_can_be_stored(recordings: Path, tmp_path: Path) -> None:
    loader = bacpipe.Loader(recordings, "mine", main_results_dir=tmp_path / "results")
    mine = np.random.default_rng(0).normal(size=(4, 7)).astype(np.float32)
    path = loader.save_embedding_file(recordings / "north" / "a.wav", mine)
    np.testing.assert_array_equal(np.load(path), mine)
    np.testing.assert_array_equal(loader.read_embedding_file("north/a.wav"), mine)
    loader.save_embedding_file("top.wav", mine[:1])
    assert loader.embeddings("array").shape == (5, 7)


def test_other_embeddings_leave_what_is_known_of_a_recording(
    recordings: Path, tmp_path: Path, tiny_model: type[TinyModel]
) -> None:
    settings = {
        "model_name": "tiny", "CustomModel": tiny_model, "audio_dir": recordings, "device": "cpu",
        "main_results_dir": tmp_path / "results", "hop": 0.7, "classifier_threshold": 0.3,
    }  # fmt: skip
    loader = bacpipe.generate_embeddings(**settings)
    name = "north/a.wav"
    times, embeddings = loader.window_times(name), loader.read_embedding_file(name)
    loader.save_embedding_file(name, embeddings * 2)
    np.testing.assert_array_equal(loader.window_times(name), times)
    again = bacpipe.generate_embeddings(**settings)
    np.testing.assert_array_equal(again.read_embedding_file(name), embeddings * 2)
    assert next(item for item in again.detections() if item.recording == name).window.size
    with pytest.raises(ResultsError, match=rf"^north/a.wav: 1 emb.* {len(embeddings)} windows"):
        loader.save_embedding_file(name, embeddings[:1])
    with pytest.raises(ResultsError, match=r"^north/a.wav: .* 3 values; expected 10"):
        loader.save_embedding_file(name, embeddings[:, :3])
    np.testing.assert_array_equal(again.read_embedding_file(name), embeddings * 2)


def test_play_runs_saves_logs_and_continues(
    recordings: Path,
    tmp_path: Path,
    tiny_model: type[TinyModel],
    capsys: pytest.CaptureFixture,
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = {
        "audio_dir": recordings,
        "models": "tiny",
        "CustomModels": [tiny_model],
        "main_results_dir": tmp_path / "results",
        "device": "cpu",
    }
    with caplog.at_level(logging.INFO, logger="bacpipe"):
        loaders = bacpipe.play(bool_save_logs=True, padding="edge", **settings)
    assert len(loaders["tiny"].embeddings("array")) == 15
    logs = tmp_path / "results" / "field" / "logs"
    saved = yaml.safe_load(next(logs.glob("*_settings.yaml")).read_text())
    assert saved["padding"] == "edge"
    assert yaml.safe_load(next(logs.glob("*_config.yaml")).read_text())["models"] == ["tiny"]
    printed = capsys.readouterr().out
    assert "recordings done       5" in printed
    elsewhere = bacpipe.play(**{**settings, "main_results_dir": tmp_path / "other"})
    assert elsewhere["tiny"].get_embedding_dir().is_relative_to(tmp_path / "other")


def test_play_does_not_end_well_when_a_model_failed(
    recordings: Path, tmp_path: Path, tiny_model: type[TinyModel]
) -> None:
    class Broken(TinyModel):
        def __init__(self, **kwargs: object) -> None:
            raise bacpipe.BacpipeError("no weights")

    with pytest.raises(bacpipe.BacpipeError, match=r"Not everything could be done \(broken: no w"):
        bacpipe.play(
            audio_dir=recordings,
            models=["broken", "tiny"],
            CustomModels=[Broken, tiny_model],
            main_results_dir=tmp_path / "results",
        )
    loader = bacpipe.Loader(recordings, "tiny", main_results_dir=tmp_path / "results")
    assert len(loader.embeddings("array")) == 15


@pytest.mark.parametrize("name", ["brdnet", "BirdNETT", "perch", 7])
def test_unknown_models_are_errors_with_close_names(name: object, recordings: Path) -> None:
    with pytest.raises(UnknownModelError) as raised:
        bacpipe.generate_embeddings(model_name=name, audio_dir=recordings)
    if isinstance(name, str):
        expected = {"perch": "perch_bird"}.get(name, "birdnet")
        assert expected in str(raised.value).split(";")[1].split("?")[0]
    with pytest.raises(UnknownModelError):
        bacpipe.confirm_model_name(name)


def test_models_that_are_already_computed_are_those_with_embeddings(
    run: Run, tmp_path: Path
) -> None:
    loader = run()
    where = (loader.audio_dir, loader.paths.main_results_dir, "embeddings")
    assert bacpipe.get_model_names(["birdnet"], *where, already_computed=True) == ["tiny"]
    with pytest.raises(ValueError, match="no embeddings"):
        bacpipe.get_model_names([], where[0], tmp_path, "embeddings", already_computed=True)


def test_missing_arguments_are_named(recordings: Path) -> None:
    with pytest.raises(SettingsError, match="model_name"):
        bacpipe.generate_embeddings(audio_dir=recordings)
    with pytest.raises(SettingsError, match="audio_dir"):
        bacpipe.generate_embeddings(model_name="birdnet")
    with pytest.raises(SettingsError, match="return_type"):
        bacpipe.get_audio_files(recordings, return_type="tuple")


def test_recordings_are_listed(recordings: Path) -> None:
    files = bacpipe.get_audio_files(recordings)
    assert files == bacpipe.Loader.get_audio_files(recordings)
    assert [file.name for file in files] == ["a.wav", "b.wav", "a.wav", "c.flac", "top.wav"]
    assert bacpipe.get_audio_files(recordings, ["FLAC"], "str") == [str(files[3])]


@pytest.mark.parametrize("what", ["missing", "empty", "file"])
def test_a_folder_without_recordings_is_an_error_and_nothing_is_created(
    tmp_path: Path, what: str, tiny_model: type[TinyModel]
) -> None:
    folder = tmp_path / "field"
    if what == "empty":
        (folder / "sub").mkdir(parents=True)
    if what == "file":
        write_recording(folder.with_suffix(".wav")).rename(folder)
    results = tmp_path / "results"
    for call in (
        lambda: bacpipe.play(
            audio_dir=folder, models="t", CustomModel=tiny_model, main_results_dir=results
        ),
        lambda: bacpipe.generate_embeddings(
            model_name="t", audio_dir=folder, CustomModel=tiny_model, main_results_dir=results
        ),
    ):
        with pytest.raises(NoRecordingsError, match=r"field.*(\.wav|audio_suffixes)"):
            call()
    assert not results.exists()


@pytest.mark.timeout(300)
@needs_shared_audio
def test_birdnet_hears_the_annotated_birds(tmp_path: Path) -> None:
    from tests.conftest import SHARED

    birds = SHARED / "audio" / "birds"
    loader = bacpipe.generate_embeddings(
        model_name="birdnet",
        audio_dir=birds,
        main_results_dir=tmp_path,
        device="cpu",
        classifier_threshold=0.1,
    )
    found = loader.predictions("dataframe")
    annotations = pd.read_csv(birds / "annotations.csv")
    hits = []
    for row in annotations.itertuples(index=False):
        inside = found[
            (found.audiofilename == row.audiofilename)
            & (found.start < row.end)
            & (found.end > row.start)
        ]
        scores = inside.drop(columns=["audiofilename", "start", "end"]).max()
        label = row[3].lower().removeprefix("common ").removeprefix("eurasian ")
        hits.append(len(scores) > 0 and label in str(scores.idxmax()).lower())
    assert np.mean(hits) > 0.7
