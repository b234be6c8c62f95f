from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import bacpipe
from bacpipe.errors import TooLittleDataError
from bacpipe.evaluation.agreement import (
    compare_neighbours,
    neighbour_agreement,
    shared_neighbours,
)
from bacpipe.evaluation.metrics import interval
from bacpipe.labels.model_windows import model_windows
from bacpipe.store.loader import Loader
from tests.conftest import TinyModel, write_recording


def cosine_neighbours(points: np.ndarray, allowed: np.ndarray, k: int) -> list[set[int]]:
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    similarity = np.where(allowed, unit @ unit.T, -np.inf)
    order = np.argsort(-similarity, axis=1)
    return [set(order[i][: min(k, allowed[i].sum())]) for i in range(len(points))]


def test_shares_are_those_of_sets_of_neighbours() -> None:
    rng = np.random.default_rng(1)
    n, k = 60, 7
    one = rng.standard_normal((n, 5)).astype(np.float32)
    other = (one[:, :3] + 0.5 * rng.standard_normal((n, 3))).astype(np.float32)
    recording = rng.integers(0, 4, n)
    start = rng.uniform(0, 10, n)
    end = start + 2
    overlaps = (recording[:, None] == recording) & (start[:, None] < end) & (end[:, None] > start)
    shares, chance = shared_neighbours(
        one, other, n_neighbors=k, recording=recording, start=start, end=end
    )
    near, far = cosine_neighbours(one, ~overlaps, k), cosine_neighbours(other, ~overlaps, k)
    assert shares == pytest.approx([len(a & b) / k for a, b in zip(near, far, strict=True)])
    assert chance == pytest.approx(k / (~overlaps).sum(axis=1))


def test_a_space_agrees_with_itself_and_with_noise_by_chance_only() -> None:
    rng = np.random.default_rng(2)
    points = rng.standard_normal((1500, 16)).astype(np.float32)
    noise = rng.standard_normal((1500, 24)).astype(np.float32)
    same, _ = shared_neighbours(points, 3 * points, n_neighbors=10)
    assert same.tolist() == [1.0] * 1500
    shares, chance = shared_neighbours(points, noise, n_neighbors=75)
    assert chance.mean() == pytest.approx(75 / 1499)
    assert shares.mean() == pytest.approx(chance.mean(), rel=0.1)


def test_windows_without_candidates_have_no_share() -> None:
    points = np.eye(3, dtype=np.float32)
    times = np.zeros(3), np.ones(3)
    shares, chance = shared_neighbours(
        points, points, n_neighbors=2, recording=np.zeros(3), start=times[0], end=times[1]
    )
    assert np.isnan(shares).all() and np.isnan(chance).all()


class Half(TinyModel):
    """Windows of half a second; what it embeds is what TinyModel does."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.segment_length = 4000


class Noise(TinyModel):
    """Embeddings that have nothing to do with the sound."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        seeds = (x.sum(dim=(1, 2)).double() * 1e6).long()
        rows = [torch.randn(12, generator=torch.Generator().manual_seed(int(s))) for s in seeds]
        return torch.stack(rows)


@pytest.fixture(scope="module")
def loaders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Loader]:
    base = tmp_path_factory.mktemp("agreement")
    for i in range(5):
        write_recording(base / "field" / f"{i}.wav", 16.0, seed=i)
    return {
        name: bacpipe.generate_embeddings(
            audio_dir=base / "field",
            main_results_dir=base / "results",
            CustomModel=model,
            model_name=name,
            device="cpu",
            run_pretrained_classifier=False,
        )
        for name, model in {"tiny": TinyModel, "half": Half, "noise": Noise}.items()
    }


def test_a_model_agrees_with_itself(loaders: dict[str, Loader]) -> None:
    found = neighbour_agreement(loaders["tiny"], loaders["tiny"])
    assert found.overall.share == 1.0
    assert found.overall.windows == found.n_matched == 80
    assert found.overall.chance == pytest.approx(10 / 79)
    assert found.interval is None  # nothing varies


def test_a_model_agrees_with_one_that_hears_half_as_much_but_not_with_noise(
    loaders: dict[str, Loader],
) -> None:
    half = neighbour_agreement(loaders["tiny"], loaders["half"])
    noise = neighbour_agreement(loaders["tiny"], loaders["noise"])
    assert half.overall.share > half.overall.chance + 0.2
    assert noise.overall.share == pytest.approx(noise.overall.chance, abs=0.06)
    assert noise.interval is not None
    assert noise.interval[0] <= noise.overall.share <= noise.interval[1]


def test_the_order_of_the_models_does_not_matter(loaders: dict[str, Loader]) -> None:
    forth = neighbour_agreement(loaders["tiny"], loaders["half"])
    back = neighbour_agreement(loaders["half"], loaders["tiny"])
    assert forth.overall == pytest.approx(back.overall)


def test_agreement_of_labels_and_of_windows_that_are_in_no_pair(
    loaders: dict[str, Loader],
) -> None:
    found = neighbour_agreement(loaders["tiny"], loaders["half"])
    tiny, half = model_windows(loaders["tiny"]), model_windows(loaders["half"])
    codes = np.where(np.arange(80) < 20, -1, np.arange(80) // 40)
    by_label = found.by_label(codes)
    assert {code: mean.windows for code, mean in by_label.items()} == {0: 20, 1: 40}
    assert by_label[1].share == pytest.approx(found.shares[40:].mean())
    assert found.of_windows(tiny, half, 0).tolist() == found.shares.tolist()
    # Two windows of half a second lie in each window of a second.
    assert found.of_windows(half, tiny, 1).tolist() == np.repeat(found.shares, 2).tolist()


def test_of_many_windows_a_sample_is_compared(loaders: dict[str, Loader]) -> None:
    found = neighbour_agreement(loaders["tiny"], loaders["half"], most=30, seed=5)
    again = neighbour_agreement(loaders["tiny"], loaders["half"], most=30, seed=5)
    assert (len(found.pairs), found.n_matched) == (30, 80)
    assert found.overall.chance == pytest.approx(10 / 29)
    assert found.pairs.tolist() == again.pairs.tolist()


def test_models_without_common_recordings_cannot_be_compared(
    loaders: dict[str, Loader], tmp_path: Path
) -> None:
    write_recording(tmp_path / "field" / "elsewhere.wav", 5.0)
    other = bacpipe.generate_embeddings(
        audio_dir=tmp_path / "field",
        main_results_dir=tmp_path / "results",
        CustomModel=TinyModel,
        model_name="tiny",
        device="cpu",
    )
    with pytest.raises(TooLittleDataError, match="0 windows in common"):
        neighbour_agreement(loaders["half"], other)


def test_the_interval_leaves_out_recordings_as_windows_and_as_neighbours() -> None:
    rng = np.random.default_rng(4)
    recording, start = np.repeat(np.arange(8), 15), np.tile(np.arange(15.0), 8)
    shared = rng.standard_normal((8, 6))[recording] + rng.standard_normal((120, 6))
    one, other = (shared + 0.5 * rng.standard_normal((120, 6)) for _ in range(2))

    def part(kept: np.ndarray) -> dict[str, np.ndarray]:
        return {"recording": recording[kept], "start": start[kept], "end": start[kept] + 2}

    means = []
    for left_out in range(-1, 8):
        kept = recording != left_out
        shares, _ = shared_neighbours(one[kept], other[kept], n_neighbors=7, **part(kept))
        means.append(shares.mean())
    every = part(recording >= 0)
    shares, _, found = compare_neighbours(one, other, n_neighbors=7, samples=1000, **every)
    assert shares.mean() == pytest.approx(means[0])
    assert found == pytest.approx(interval(np.array(means), windows=120))
    assert compare_neighbours(one, other, n_neighbors=7, samples=0, **every)[2] is None
