from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
import yaml

import bacpipe
from bacpipe.errors import BacpipeError, ResultsNotFoundError
from bacpipe.options import make_options
from bacpipe.reduction import reducers
from bacpipe.reduction.reduce_data_set import has_current_map, reduce_data_set
from bacpipe.store.maps import FAR
from tests.conftest import TinyModel, write_recording

Run = Callable[..., bacpipe.Loader]


def reduce(loader: bacpipe.Loader, name: str = "pca", **settings: object) -> Path:
    return reduce_data_set(loader, name, make_options(**settings))


def read(folder: Path) -> tuple[pd.DataFrame, dict]:
    table = pd.read_parquet(folder / "field_tiny.parquet")
    return table, yaml.safe_load((folder / "metadata.yml").read_text())


def test_the_folder_is_what_the_layout_says(run: Run) -> None:
    loader = run()
    folder = reduce(loader)
    assert folder.parent == loader.paths.dim_reduc_parent_dir
    assert folder.name.endswith("___pca-field-tiny")
    names = {path.name for path in folder.iterdir()}
    assert names == {"metadata.yml", "field_tiny.parquet", "reducer.safetensors"}
    table, metadata = read(folder)
    columns = ["x", "y", "start", "end", "audiofilename", "distance_to_map", "far_from_map"]
    assert list(table.columns) == columns
    assert table["distance_to_map"].isna().all() and not table["far_from_map"].any()
    assert metadata["embeddings_state"] == loader.embeddings_state
    assert metadata["nr_embeds_total"] == metadata["nr_embeds_fitted"] == len(table) == 15
    expected = reducers.fit("pca", loader.embeddings("array")).coordinates
    np.testing.assert_allclose(table[["x", "y"]], expected, atol=1e-5)
    first = table[table.audiofilename == "north/a.wav"]
    assert list(first.start) == [0, 1, 2, 3]
    assert list(first.end) == [1, 2, 3, 3.5]


def test_loader_and_embedder_return_the_map(run: Run, recordings: Path) -> None:
    loader = run()
    embedder = bacpipe.Embedder("tiny", loader, dim_reduction_model="pca")
    reader = embedder.run_dimensionality_reduction_pipeline()
    table, _ = read(next(loader.paths.dim_reduc_parent_dir.glob("*___pca-field-tiny")))
    np.testing.assert_array_equal(reader.embeddings("array"), table[["x", "y"]])
    assert reader.embeddings("array").dtype == np.float32
    assert loader.embeddings("array").shape == (15, 10)
    again = bacpipe.Loader(
        recordings,
        "tiny",
        dim_reduction_model="pca",
        main_results_dir=loader.paths.main_results_dir,
    )
    assert list(again.embeddings()) == list(loader.embeddings())
    assert again.embeddings()["south/a_tiny.npy"].shape == (4, 2)
    again.dim_reduction_model = "umap"
    with pytest.raises(ResultsNotFoundError, match="there is no umap map of tiny"):
        again.embeddings()


def test_a_current_map_is_kept_unless_a_new_one_is_asked_for(run: Run) -> None:
    loader = run()
    folder = reduce(loader)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert reduce(loader) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert reduce(loader, check_if_already_dim_reduced=False) != folder
    assert reduce(loader, visualization_dimensions=3) != folder
    assert reduce(loader, reduction_seed=5) != folder


def test_new_changed_and_removed_recordings_reach_the_map(run: Run, recordings: Path) -> None:
    folder = reduce(run())
    old, _ = read(folder)
    reducer = (folder / "reducer.safetensors").read_bytes()
    write_recording(recordings / "north" / "new.wav", 2.5, seed=9)
    write_recording(recordings / "south" / "c.flac", 1.5, seed=10)
    (recordings / "top.wav").unlink()
    loader = run()
    assert not has_current_map(loader, "pca", loader.options)
    assert reduce(loader) == folder
    assert has_current_map(loader, "pca", loader.options)
    assert (folder / "reducer.safetensors").read_bytes() == reducer
    new, metadata = read(folder)
    assert list(new.audiofilename.unique()) == [
        "north/a.wav", "north/b.wav", "north/new.wav", "south/a.wav", "south/c.flac",
    ]  # fmt: skip
    assert len(new) == metadata["nr_embeds_total"] == 4 + 2 + 3 + 4 + 2
    assert metadata["nr_embeds_fitted"] == 15
    for name in ("north/a.wav", "south/a.wav"):
        axes = ["x", "y"]
        was, now = (table.loc[table.audiofilename == name, axes] for table in (old, new))
        np.testing.assert_array_equal(was, now)
    fitted = reducers_map(folder)
    for name in ("north/new.wav", "south/c.flac"):
        expected = fitted.transform(loader.read_embedding_file(name))
        np.testing.assert_allclose(
            new.loc[new.audiofilename == name, ["x", "y"]], expected, atol=1e-5
        )


def reducers_map(folder: Path) -> object:
    from bacpipe.reduction.fitted import load_map

    return load_map(folder)


def test_a_map_that_was_outgrown_says_so(
    run: Run, recordings: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reduce(run())
    write_recording(recordings / "long.wav", 20, seed=9)
    with caplog.at_level(logging.WARNING, "bacpipe"):
        reduce(run())
    assert "fitted to 15 windows, now there are 35" in caplog.text


@pytest.mark.parametrize("name", ["pca", "t_sne"])
def test_many_windows_are_fitted_on_a_stated_sample(
    run: Run, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = run()
    small = dataclasses.replace(reducers.REDUCERS[name], most=9)
    monkeypatch.setitem(reducers.REDUCERS, name, small)
    folder = reduce(loader, name)
    table, metadata = read(folder)
    assert metadata["fitted_to"].startswith("a random sample of 9 of 15 windows")
    points = table[["x", "y"]].to_numpy()
    assert np.isfinite(points).all()
    placed = reducers_map(folder).transform(loader.embeddings("array"))
    same = np.isclose(points, placed, atol=1e-3).all(axis=1)
    # A neighbour map keeps its fitted windows where the method put them.
    assert same.sum() >= 6
    if name == "t_sne":
        in_sample = np.isin(points, reducers_map(folder).coordinates).all(axis=1)
        assert in_sample.sum() == 9
        assert (same | in_sample).all()


def test_too_few_windows_leave_nothing_behind(tmp_path: Path, tiny_model: type[TinyModel]) -> None:
    write_recording(tmp_path / "field" / "a.wav", 2)
    settings = {"CustomModel": tiny_model, "main_results_dir": tmp_path / "results"}
    with pytest.raises(BacpipeError, match="umap needs at least 5 windows, but there are 2"):
        bacpipe.run_pipeline_for_single_model(
            "tiny", tmp_path / "field", dim_reduction_model="umap", **settings
        )
    assert not list((tmp_path / "results" / "field" / "dim_reduced_embeddings").glob("2*"))


def test_a_map_without_metadata_was_interrupted(run: Run) -> None:
    loader = run()
    folder = reduce(loader)
    (folder / "metadata.yml").unlink()
    assert not has_current_map(loader, "pca", loader.options)
    made = reduce(loader)
    assert (made / "metadata.yml").is_file()
    assert list(folder.parent.glob("2*")) == [made]  # half a map does not stay


def test_the_pipeline_makes_the_map(
    recordings: Path, tmp_path: Path, tiny_model: type[TinyModel]
) -> None:
    settings = {"CustomModel": tiny_model, "main_results_dir": tmp_path / "results"}
    loader = bacpipe.run_pipeline_for_single_model(
        "tiny", recordings, dim_reduction_model="umap", visualization_dimensions=3, **settings
    )
    reader = bacpipe.Loader(
        recordings, "tiny", dim_reduction_model="umap", main_results_dir=tmp_path / "results"
    )
    assert reader.embeddings("array").shape == (15, 3)
    assert has_current_map(loader, "umap", make_options(visualization_dimensions=3))
    assert not has_current_map(loader, "umap", make_options())


@pytest.mark.parametrize("reducer", ["pca", "umap", "t_sne"])
def test_what_a_map_has_never_met_is_flagged(reducer):
    """Four species 20 deviations apart, and a fifth one that comes later."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((5, 40))
    centres *= 17 / np.linalg.norm(centres, axis=1, keepdims=True)
    label = np.repeat(np.arange(5), 60)
    embeds = (centres[label] + rng.standard_normal((300, 40))).astype(np.float32)
    known, new = embeds[label < 4], embeds[label == 4]
    fitted = reducers.fit(reducer, known, 2, seed=0)
    novelty = reducers.fit_novelty(known, fitted)
    again = (centres[rng.integers(0, 4, 200)] + rng.standard_normal((200, 40))).astype(np.float32)
    assert (novelty.distances(again) > FAR).mean() < 0.1
    assert (novelty.distances(new) > FAR).all()
    # In embeddings of more dimensions than windows, what is new lies outside of the components.
    wide = np.column_stack([known, np.zeros((len(known), 400), np.float32)])
    other = wide[:5].copy()
    other[:, -1] = 30
    fitted = reducers.fit("pca", wide, 2, seed=0)
    assert (reducers.fit_novelty(wide, fitted).distances(other) > FAR).all()


def test_windows_unlike_all_others_are_told_in_table_and_log(
    run: Run, recordings: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(4):
        write_recording(recordings / "north" / f"more{number}.wav", 10, seed=20 + number)
    folder = reduce(run())
    time = np.arange(3 * 8000)
    strange = np.where(time % 8000 < 800, 1.0, 0.0)  # a tenth of each window is loud
    sf.write(recordings / "north" / "strange.wav", strange, 8000)
    caplog.clear()
    assert reduce(run()) == folder
    table, _ = read(folder)
    strange = table["audiofilename"] == "north/strange.wav"
    assert (
        table.loc[strange, "far_from_map"].all() and not table.loc[~strange, "far_from_map"].any()
    )
    assert (table.loc[strange, "distance_to_map"] > FAR).all()
    assert "3 of 3 windows that were added are unlike all" in caplog.text
