"""What a run over a data set opens and reads: a Loader and a journal, once for each model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bacpipe
from bacpipe.store import embedding_set
from tests.conftest import TinyModel, write_recording


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many Loaders were made, journals read, and arrays of recordings hashed."""
    counter: Counter[str] = Counter()

    def count(place: Any, name: str, what: str) -> None:
        function = getattr(place, name)

        def counted(*args: object, **kwargs: object) -> object:
            # A loader without a model only looks for recordings.
            counter[what] += what != "loaders" or len(args) > 2
            return function(*args, **kwargs)

        monkeypatch.setattr(place, name, counted)

    count(bacpipe.Loader, "__init__", "loaders")
    count(embedding_set, "read_journals", "journals")
    count(embedding_set, "array_hash", "hashes")
    return counter


@pytest.fixture
def pipeline(
    recordings: Path, tmp_path: Path, tiny_model: type[TinyModel]
) -> Callable[[], bacpipe.Loader]:
    def run() -> bacpipe.Loader:
        return bacpipe.run_pipeline_for_single_model(
            "tiny",
            recordings,
            "pca",
            CustomModel=tiny_model,
            main_results_dir=tmp_path / "results",
            device="cpu",
        )

    return run


def test_a_run_without_news_reads_one_journal(
    counts: Counter[str], pipeline: Callable[[], bacpipe.Loader]
) -> None:
    pipeline()
    counts.clear()
    loader = pipeline()
    assert counts == {"loaders": 1, "journals": 1}
    assert loader.embeddings_state
    assert loader.embeddings("array").shape == (15, 10)
    assert counts["journals"] == 1


def test_a_new_run_reads_what_it_has_written_once(
    counts: Counter[str], pipeline: Callable[[], bacpipe.Loader]
) -> None:
    pipeline()
    # The journal is read when its first line has been written, and when the run is over; the
    # map takes the embeddings from disk, each of them once.
    assert counts == {"loaders": 1, "journals": 2, "hashes": 5}


def test_a_run_with_news_reads_before_and_after(
    counts: Counter[str], pipeline: Callable[[], bacpipe.Loader], recordings: Path
) -> None:
    pipeline()
    write_recording(recordings / "new.wav", 2.5, seed=9)
    counts.clear()
    pipeline()
    assert counts == {"loaders": 1, "journals": 2, "hashes": 1}
