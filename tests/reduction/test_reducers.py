from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.decomposition import PCA

import bacpipe
from bacpipe.errors import BacpipeError, ResultsError, SettingsError
from bacpipe.reduction.fitted import load_map, save_map
from bacpipe.reduction.reducers import choose_seed, fit

METHODS = ("pca", "sparse_pca", "t_sne", "umap")


def clouds(per_cloud: int = 20, dim: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three clouds far apart, and the cloud of every point."""
    rng = np.random.default_rng(seed)
    centres = np.zeros((3, dim), np.float32)
    centres[[0, 1, 2], [0, 1, 2]] = 10
    cloud = np.arange(3 * per_cloud) % 3
    return (centres[cloud] + rng.normal(size=(len(cloud), dim))).astype(np.float32), cloud


@pytest.fixture(scope="module")
def umap_fit() -> object:
    """One fit for all tests: the first one compiles for seconds."""
    return fit("umap", clouds()[0], 2, seed=1)


def cloud_of(points: np.ndarray, fitted: np.ndarray, cloud: np.ndarray) -> np.ndarray:
    centres = np.stack([fitted[cloud == i].mean(axis=0) for i in range(3)])
    return np.linalg.norm(points[:, None] - centres, axis=2).argmin(axis=1)


@pytest.mark.parametrize("name", METHODS)
def test_maps_keep_clouds_apart_and_place_new_windows_in_theirs(
    name: str, umap_fit: object, tmp_path: Path
) -> None:
    embeds, cloud = clouds()
    fitted = umap_fit if name == "umap" else fit(name, embeds, 2, seed=1)
    points = fitted.coordinates  # type: ignore[attr-defined]
    assert points.shape == (60, 2)
    assert points.dtype == np.float32
    np.testing.assert_array_equal(cloud_of(points, points, cloud), cloud)
    new, new_cloud = clouds(seed=5)
    placed = fitted.map.transform(new)  # type: ignore[attr-defined]
    assert placed.dtype == np.float32
    np.testing.assert_array_equal(cloud_of(placed, points, cloud), new_cloud)
    # Neither order nor company matters, and the saved map does the same.
    save_map(tmp_path, fitted.map)  # type: ignore[attr-defined]
    again = load_map(tmp_path)
    np.testing.assert_allclose(again.transform(new[::-1][:7]), placed[::-1][:7], atol=1e-3)


def test_pca_is_that_of_scikit_learn() -> None:
    embeds, _ = clouds(per_cloud=40)
    expected = PCA(3).fit_transform(embeds.astype(np.float64))
    got = fit("pca", embeds, 3).coordinates
    np.testing.assert_allclose(np.abs(got), np.abs(expected), atol=1e-3)


def test_sparse_pca_leaves_values_out_whatever_their_unit() -> None:
    embeds, _ = clouds(per_cloud=40, dim=30)
    small, large = (fit("sparse_pca", embeds * unit, 2, seed=1) for unit in (0.01, 100))
    share = small.parameters["share_of_zero_loadings"]
    assert 0.2 < share < 1
    assert share == large.parameters["share_of_zero_loadings"]
    ratio = large.coordinates.std() / small.coordinates.std()
    assert ratio == pytest.approx(1e4, rel=0.01)


@pytest.mark.parametrize("name", ["pca", "sparse_pca", "t_sne"])
def test_three_dimensions_and_the_same_map_again_with_a_seed(name: str) -> None:
    embeds, _ = clouds()
    first, second = (fit(name, embeds, 3, seed=7).coordinates for _ in range(2))
    assert first.shape == (60, 3)
    np.testing.assert_array_equal(first, second)


def test_automatic_seed_leaves_large_maps_all_cores() -> None:
    assert choose_seed("auto", 10_000) is not None
    assert choose_seed("auto", 10_001) is None
    assert choose_seed(None, 10) is None
    assert choose_seed(5, 1_000_000) == 5


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("windows", [0, 1, 2])
def test_too_few_windows_are_one_sentence(name: str, windows: int) -> None:
    with pytest.raises(BacpipeError, match=rf"{name} needs at least \d windows.*are {windows}"):
        fit(name, np.ones((windows, 8), np.float32))


@pytest.mark.parametrize("name", METHODS)
def test_equal_windows_are_no_error(name: str) -> None:
    assert np.isfinite(fit(name, np.ones((6, 8), np.float32)).coordinates).all()


def test_values_that_are_no_numbers_are_refused() -> None:
    embeds = clouds()[0]
    embeds[3, 2] = np.nan
    with pytest.raises(BacpipeError, match="not finite"):
        fit("pca", embeds)
    with pytest.raises(BacpipeError, match=r"shape \(5,\)"):
        fit("pca", np.ones(5, np.float32))
    with pytest.raises(BacpipeError, match="cannot be reduced to 3"):
        fit("pca", np.ones((9, 2), np.float32), 3)
    with pytest.raises(SettingsError, match="umap"):
        fit("umpa", embeds)


def test_a_damaged_map_is_named(tmp_path: Path) -> None:
    path = save_map(tmp_path, fit("pca", clouds()[0]).map)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ResultsError, match=r"reducer\.safetensors"):
        load_map(tmp_path)


def test_embedder_reduces_arrays_without_a_model() -> None:
    embeds, _ = clouds()
    embedder = bacpipe.Embedder("birdnet", dim_reduction_model="pca", visualization_dimensions=3)
    assert embedder.model is None
    reduced = embedder.get_embeddings_from_model(embeds)
    np.testing.assert_array_equal(reduced, fit("pca", embeds, 3).coordinates)
    by_recording = {"a.npy": embeds[:9], "b.npy": embeds[9:]}
    np.testing.assert_array_equal(embedder.get_embeddings_from_model(by_recording), reduced)
    with pytest.raises(SettingsError, match="reduces embeddings with pca"):
        embedder.get_embeddings_from_model("recording.wav")
    with pytest.raises(SettingsError, match="no loader"):
        embedder.run_dimensionality_reduction_pipeline()
    with pytest.raises(SettingsError, match="umapp"):
        bacpipe.Embedder("birdnet", dim_reduction_model="umapp")
    with pytest.raises(SettingsError, match="none is configured"):
        bacpipe.Embedder("birdnet", dim_reduction_model=True)
