from __future__ import annotations

import numpy as np
import torch

from bacpipe.inference.runner import ModelRunner, limited_threads, select
from tests.conftest import TinyModel


def test_scores_are_thresholded_and_cut_to_the_best() -> None:
    scores = torch.tensor([[0.1, 0.9, 0.5, 0.7], [0.0, 0.2, 0.1, 0.3], [0.8, 0.8, 0.8, 0.9]])
    found = select(scores, threshold=0.5, top=2)
    assert found.window.tolist() == [0, 0, 2, 2]
    assert found.label.tolist()[:3] == [1, 3, 3]
    np.testing.assert_allclose(found.score, [0.9, 0.7, 0.9, 0.8])
    everything = select(scores.numpy(), threshold=0.0, top=100)
    assert len(everything.window) == 12


def test_pytorch_gets_its_threads_back() -> None:
    before = torch.get_num_threads()
    with limited_threads(2):
        pass
    assert torch.get_num_threads() == before


def test_a_runner_joins_split_batches(tiny_model: type[TinyModel]) -> None:
    windows = np.random.default_rng(2).uniform(-1, 1, (7, 8000)).astype(np.float32)
    whole = ModelRunner(tiny_model(), scores=True, top=2)(windows)
    split = ModelRunner(tiny_model(), scores=True, top=2)
    split._most = 2
    parts = split(windows)
    np.testing.assert_allclose(parts.embeddings, whole.embeddings, rtol=1e-6)
    assert parts.predictions is not None
    assert whole.predictions is not None
    np.testing.assert_array_equal(parts.predictions.window, whole.predictions.window)
