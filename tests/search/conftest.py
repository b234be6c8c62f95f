"""Data sets whose embeddings are given, without a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

import bacpipe
from bacpipe.store.embedding_set import create_set
from bacpipe.store.entries import DONE, FinishedEntry, StoredEmbeddings
from bacpipe.store.files import EmbeddingFile
from bacpipe.store.journal import RunJournal

IDENTITY = {
    "model": "birdnet", "sample_rate": 48000, "window": 144000, "checkpoint": {}, "hop": None,
    "padding": "wrap", "speed": 1, "only_annotated": False, "precision": "float32",
    "channel": "mix",
}  # fmt: skip


def add_recordings(loader: bacpipe.Loader, embeddings: Mapping[str, np.ndarray]) -> None:
    """Write embeddings of windows of three seconds into a set, as a run does."""
    found = loader.embedding_set
    assert found is not None
    journal = RunJournal(found.folder, found.content.recordings)
    for name, rows in embeddings.items():
        file = EmbeddingFile(found.folder / f"{name}_birdnet.npy")
        file.append(np.asarray(rows, np.float32))
        file.stage()
        size, sha256, dim = file.commit()
        stored = StoredEmbeddings(f"{name}_birdnet.npy", size, dim, sha256)
        count = len(rows)
        journal.append(
            FinishedEntry(
                file=f"{name}.wav", status=DONE, size=1, mtime_ns=1, duration=3.0 * count,
                windows=count, padded=0, truncated=None, segments=None, segments_hash=None,
                embeddings=stored, predictions=None,
            )
        )  # fmt: skip
    journal.close()
    found.reload()
    loader.write_metadata_file()


@pytest.fixture
def given(tmp_path: Path) -> Callable[[Mapping[str, np.ndarray]], bacpipe.Loader]:
    """Make a data set with certain embeddings by the names of recordings."""

    def make(embeddings: Mapping[str, np.ndarray]) -> bacpipe.Loader:
        audio = tmp_path / "audio"
        audio.mkdir()
        loader = bacpipe.Loader(audio, "birdnet", main_results_dir=tmp_path / "results")
        loader.claim()
        parent = loader.paths.main_embeds_path
        loader.embedding_set = create_set(parent, "birdnet", loader.paths.dataset, IDENTITY, {})
        add_recordings(loader, embeddings)
        return loader

    return make


def cosines(rows: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Cosine of every row to a query in float64; 0 for rows of zeros."""
    rows, query = rows.astype(np.float64), query.astype(np.float64)
    length = np.linalg.norm(rows, axis=1) * np.linalg.norm(query)
    return rows @ query / np.where(length > 0, length, 1)
