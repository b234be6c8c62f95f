"""The path of a GPU, proven with tensors of the CPU and a CUDA that takes notes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

import bacpipe
from bacpipe.inference.runner import ModelRunner, choose_batch_size
from tests.conftest import TinyModel

WINDOW_BYTES = 4 * 8000


class Stream:
    """A queue of work; knows which others it has waited for."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.waited_for: list[Stream] = []

    def wait_stream(self, other: Stream) -> None:
        self.waited_for.append(other)


class Cuda:
    """Stands in for `torch.cuda`, and for the methods of tensors that go to a GPU."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, free: int = 2**40) -> None:
        self.default = Stream("cuda:0")
        self.streams: list[Stream] = []
        self.copies: list[tuple[Stream | None, bool, bool]] = []
        self.calls: list[tuple[Stream | None, int]] = []
        self._current = threading.local()
        self._pinned: list[torch.Tensor] = []
        stand_ins: dict[str, Any] = {
            "Stream": self._new_stream,
            "default_stream": lambda device: self.default,
            "stream": self._on_stream,
            "reset_peak_memory_stats": lambda device: None,
            "memory_allocated": lambda device: 0,
            "max_memory_allocated": lambda device: self.calls[-1][1] * WINDOW_BYTES,
            "mem_get_info": lambda device: (free, 2**41),
        }
        for name, function in stand_ins.items():
            monkeypatch.setattr(torch.cuda, name, function)
        monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: self._pin(tensor))
        to = torch.Tensor.to

        def copy(tensor: torch.Tensor, *target: object, **how: bool) -> torch.Tensor:
            if not (target and str(target[0]).startswith("cuda")):
                return to(tensor, *target, **how)  # type: ignore[call-overload]
            asynchronous = how.get("non_blocking", False)
            pinned = any(tensor is other for other in self._pinned)
            self.copies.append((self.current, pinned, asynchronous))
            return tensor.clone()

        monkeypatch.setattr(torch.Tensor, "to", copy)

    @property
    def current(self) -> Stream | None:
        return getattr(self._current, "stream", None)

    def _new_stream(self, device: str) -> Stream:
        self.streams.append(Stream(device))
        return self.streams[-1]

    @contextmanager
    def _on_stream(self, stream: Stream) -> Iterator[None]:
        self._current.stream = stream
        try:
            yield
        finally:
            self._current.stream = None

    def _pin(self, tensor: torch.Tensor) -> torch.Tensor:
        self._pinned.append(tensor)
        return tensor


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    return Cuda(monkeypatch)


def on_gpu(notes: Cuda, *, concurrent: bool = True) -> TinyModel:
    """A model that says that it lies on a GPU; its calls are noted, two at once if it may."""
    together = threading.Barrier(2, timeout=30)

    class OnGpu(TinyModel):
        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            notes.calls.append((notes.current, len(x)))
            if concurrent and len(notes.calls) <= 2:
                together.wait()
            return super().__call__(x)

    model = OnGpu(device="cpu")
    model.device, model.concurrent = "cuda:0", concurrent
    return model


def embed(model: TinyModel, audio: np.ndarray) -> np.ndarray:
    embedder = bacpipe.Embedder("gpu", CustomModel=model, global_batch_size=4)
    return embedder.embeddings_using_multithreading([audio])


def test_two_batches_are_under_way_each_in_a_stream_of_its_own(cuda: Cuda) -> None:
    audio = np.random.default_rng(0).uniform(-1, 1, 8000 * 32).astype(np.float32)
    found = embed(on_gpu(cuda), audio)
    np.testing.assert_array_equal(found, embed(TinyModel(device="cpu"), audio))
    assert len(cuda.calls) == 8
    # The first two calls waited for each other, so both threads have worked.
    assert {id(stream) for stream, _ in cuda.calls} == {id(stream) for stream in cuda.streams}
    assert len(cuda.streams) == 2


def test_streams_wait_for_the_weights(cuda: Cuda) -> None:
    embed(on_gpu(cuda), np.ones(8000 * 12, np.float32))
    assert [stream.waited_for for stream in cuda.streams] == [[cuda.default]] * len(cuda.streams)


def test_windows_are_copied_from_pinned_memory_without_waiting(cuda: Cuda) -> None:
    embed(on_gpu(cuda), np.ones(8000 * 12, np.float32))
    assert len(cuda.copies) == 3
    for stream, pinned, asynchronous in cuda.copies:
        assert stream in cuda.streams
        assert pinned
        assert asynchronous


@pytest.mark.parametrize(
    ("free_windows", "expected"),
    [
        (100, 16),  # half of the memory, shared by two batches: 25 windows fit
        (10**6, 256),  # more than this is of no use
        (8, 4),  # what is usual on a CPU fits everywhere
    ],
)
def test_batches_take_half_of_the_free_memory(
    monkeypatch: pytest.MonkeyPatch, free_windows: int, expected: int
) -> None:
    notes = Cuda(monkeypatch, free=free_windows * WINDOW_BYTES)
    runner = ModelRunner(on_gpu(notes, concurrent=False), scores=False)
    assert choose_batch_size(runner, "auto", workers=2) == expected
