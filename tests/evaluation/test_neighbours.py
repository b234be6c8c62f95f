from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import bacpipe
from bacpipe.errors import ResultsNotFoundError
from bacpipe.evaluation.retrieval import nearest_windows


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
