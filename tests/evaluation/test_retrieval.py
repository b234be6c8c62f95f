"""Retrieval against slow computations by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import bacpipe
from bacpipe.errors import EvaluationError, ResultsNotFoundError, TooLittleDataError
from bacpipe.evaluation.metrics import interval
from bacpipe.evaluation.retrieval import nearest_windows, retrieval_quality
from tests.evaluation.conftest import make_windows


def by_hand(data, k, *, standardised=False):
    x = data.embeds
    if not standardised:
        x = (x - x.mean(axis=0)) / x.std(axis=0)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    similarity = x @ x.T
    precision, pairs, same = [], [], []
    for i, row in enumerate(similarity):
        others = np.flatnonzero(data.recordings != data.recordings[i])
        nearest = others[np.argsort(-row[others])[:k]]
        precision.append(np.mean(data.labels[nearest] == data.labels[i]))
        pairs.append(row[others])
        same.append(data.labels[others] == data.labels[i])
    means = [np.mean(np.array(precision)[data.labels == c]) for c in np.unique(data.labels)]
    return np.mean(means), roc_auc_score(np.concatenate(same), np.concatenate(pairs))


def test_numbers_are_those_computed_by_hand():
    data = make_windows(200, 3, separation=0.7)
    result = retrieval_quality(data, n_neighbors=5, samples=50)
    precision, auroc = by_hand(data, 5)
    assert result["overall"]["neighbour_precision"] == pytest.approx(precision)
    assert result["overall"]["same_label_auroc"] == pytest.approx(auroc, abs=1e-3)
    for name, (low, high) in result["intervals"].items():
        assert low <= result["overall"][name] <= high


@pytest.mark.parametrize("unit", ["recording", "site"])
def test_intervals_are_those_of_leaving_out_one_after_the_other(unit):
    data = make_windows(150, 3, n_recordings=18, separation=0.7)
    if unit == "site":
        names = [f"{int(name[-6:-4]) % 6}/{name[-6:]}" for name in data.recordings]
        data = replace(data, recordings=np.array(names, object))
    result = retrieval_quality(data, n_neighbors=5, samples=50, unit=unit)
    units = np.array([name.split("/")[0] if unit == "site" else name for name in data.recordings])
    deviation, mean = data.embeds.std(axis=0), data.embeds.mean(axis=0)
    scaled = replace(data, embeds=(data.embeds - mean) / deviation)
    values = [by_hand(scaled, 5, standardised=True)]
    for name in np.unique(units):
        kept = units != name
        rest = replace(
            scaled,
            **{key: getattr(scaled, key)[kept] for key in ("embeds", "labels", "recordings")},
        )
        values.append(by_hand(rest, 5, standardised=True))
    for i, name in enumerate(("neighbour_precision", "same_label_auroc")):
        expected = interval(np.array(values)[:, i])
        assert result["intervals"][name] == pytest.approx(expected, abs=4e-3)


def test_perfect_embeddings_score_one_and_random_labels_chance():
    data = make_windows(600, 3, separation=50)
    perfect = retrieval_quality(data, samples=0)["overall"]
    assert perfect["neighbour_precision"] == 1
    assert perfect["same_label_auroc"] == pytest.approx(1, abs=1e-3)
    shuffled = replace(data, labels=np.random.default_rng(0).permutation(data.labels))
    chance = retrieval_quality(shuffled, samples=0)["overall"]
    assert chance["same_label_auroc"] == pytest.approx(0.5, abs=0.02)
    assert chance["neighbour_precision"] == pytest.approx(
        chance["neighbour_precision_chance"], abs=0.06
    )


def test_windows_of_the_same_recording_do_not_count():
    """Recordings that look alike inside, but unlike other recordings of the same label."""
    rng = np.random.default_rng(0)
    recording = np.repeat(np.arange(40), 10)
    data = replace(
        make_windows(400, 2),
        embeds=rng.standard_normal((40, 16))[recording].astype(np.float32),
        labels=(np.arange(40) % 2)[recording],
        recordings=np.array([f"{r}.wav" for r in recording], dtype=object),
    )
    overall = retrieval_quality(data, samples=0)["overall"]
    assert overall["neighbour_precision"] < 0.75


def test_a_sample_is_taken_of_many_windows_and_that_is_said():
    data = make_windows(800, 3)
    result = retrieval_quality(data, most=300, samples=0)
    assert result["n_windows"] == 300 and "sample of 300 of 800" in result["notes"][0]
    assert result == retrieval_quality(data, most=300, samples=0)


def test_what_cannot_be_compared_is_a_sentence():
    data = make_windows(50, 2)
    with pytest.raises(EvaluationError, match="recordings"):
        retrieval_quality(replace(data, recordings=None))
    with pytest.raises(TooLittleDataError, match="1 label in"):
        retrieval_quality(replace(data, labels=np.zeros(50, int)))
    alone = replace(data, recordings=np.full(50, "one.wav", dtype=object))
    with pytest.raises(TooLittleDataError, match="1 recording\\."):
        retrieval_quality(alone)


# ---------------------------------------------------------------------- of one window


def cosines(embeddings: np.ndarray, row: int) -> np.ndarray:
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    return unit @ unit[row]


def test_neighbours_are_those_of_the_whole_array(run: Callable[..., bacpipe.Loader]) -> None:
    loader = run(hop=0.25)
    embeddings = loader.embeddings("array")
    similarity = cosines(embeddings, 7)
    similarity[7] = -2
    found = nearest_windows(loader, 7, count=5)
    assert found.rows.tolist() == np.argsort(-similarity, kind="stable")[:5].tolist()
    np.testing.assert_allclose(found.similarity, np.sort(similarity)[::-1][:5], atol=1e-6)


def test_own_recording_can_be_left_out(run: Callable[..., bacpipe.Loader]) -> None:
    loader = run()
    own = next(iter(loader.entries.values())).windows
    found = nearest_windows(loader, 0, count=100, other_recordings=True)
    assert found.rows.min() >= own
    assert len(found.rows) == len(loader.embeddings("array")) - own


def test_a_missing_file_costs_only_its_windows(run: Callable[..., bacpipe.Loader]) -> None:
    loader = run()
    entries = list(loader.entries.values())
    assert loader.embed_dir is not None
    (loader.embed_dir / entries[-1].embeddings.path).unlink()
    found = nearest_windows(loader, 0, count=100)
    assert found.skipped == 1
    assert len(found.rows) == sum(entry.windows for entry in entries[:-1]) - 1


def test_a_search_nobody_waits_for_ends(run: Callable[..., bacpipe.Loader]) -> None:
    assert len(nearest_windows(run(), 0, wanted=lambda: False).rows) == 0


@pytest.mark.parametrize("row", [-1, 10_000])
def test_rows_that_do_not_exist_are_refused(run: Callable[..., bacpipe.Loader], row: int) -> None:
    with pytest.raises(ResultsNotFoundError, match="no window"):
        nearest_windows(run(), row)
