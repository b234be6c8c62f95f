from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Generator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import bacpipe
from bacpipe.audio.stream import Samples
from bacpipe.inference.batches import Batch, BatchBuffer, BufferClosedError, Ended, Rows
from bacpipe.inference.pipeline import Decode, Workload, run
from bacpipe.inference.report import RunReport
from bacpipe.inference.runner import ModelRunner
from bacpipe.store.plan import Source, StreamEnd
from tests.conftest import TinyModel

END = StreamEnd(1.0, padded=0)


def windows_of(recording: int, first: int, count: int) -> Samples:
    """Windows that hold the number of their recording and their own."""
    numbers = np.arange(first, first + count, dtype=np.float32)
    return np.stack([np.full(count, recording, np.float32), numbers, -numbers], axis=1)


def read(batches: Sequence[tuple[Samples, Sequence[Rows | Ended]]]) -> dict[int, list[float]]:
    """Numbers of each recording's windows as they came; nothing may come after its end."""
    seen: dict[int, list[float]] = {}
    ended = set()
    for windows, parts in batches:
        assert sum(part.count for part in parts if isinstance(part, Rows)) == len(windows)
        left = iter(windows)
        for part in parts:
            assert part.recording not in ended
            if isinstance(part, Ended):
                ended.add(part.recording)
                seen.setdefault(part.recording, [])
                continue
            rows = np.array(list(itertools.islice(left, part.count)))
            assert (rows[:, 0] == part.recording).all()
            seen.setdefault(part.recording, []).extend(rows[:, 1].tolist())
    assert ended == set(seen)
    return seen


def produce(buffer: BatchBuffer, lengths: Sequence[Sequence[int]], pauses: random.Random) -> None:
    while (number := buffer.claim()) is not None:
        first = 0
        for count in lengths[number]:
            if pauses.random() < 0.1:
                threading.Event().wait(0.001)
            buffer.put(number, windows_of(number, first, count))
            first += count
        buffer.end(number, Ended(number, END))


def consume(buffer: BatchBuffer) -> list[tuple[Samples, Sequence[Rows | Ended]]]:
    """All batches; the memory of each is spoiled once it is given back."""
    found = []
    for batch in buffer:
        found.append((batch.windows.copy(), tuple(batch.parts)))
        batch.memory[:] = np.nan
        buffer.release(batch)
    return found


@pytest.mark.timeout(120)
@given(
    st.lists(st.lists(st.integers(0, 9), max_size=4), max_size=6),
    st.integers(1, 7),
    st.integers(1, 4),
    st.integers(0, 3),
)
def test_every_window_comes_once_whatever_the_threads(
    lengths: list[list[int]], batch_size: int, threads: int, more: int
) -> None:
    buffer = BatchBuffer(len(lengths), batch_size, most=2 + more, ahead=1)
    producers = [
        threading.Thread(target=produce, args=(buffer, lengths, random.Random(i)), daemon=True)
        for i in range(threads)
    ]
    for producer in producers:
        producer.start()
    found = consume(buffer)
    sizes = [len(windows) for windows, _ in found if len(windows)]
    assert all(size == batch_size for size in sizes[:-1])
    assert read(found) == {i: list(range(sum(blocks))) for i, blocks in enumerate(lengths)}
    for producer in producers:
        producer.join()


@pytest.mark.timeout(60)
def test_memory_that_was_refused_is_asked_for_again() -> None:
    refusals = iter([True, True, False])

    def allocate(rows: int, samples: int) -> np.ndarray:
        if next(refusals):
            raise MemoryError
        return np.empty((rows, samples), np.float32)

    buffer = BatchBuffer(1, batch_size=2, most=1, allocate=allocate)
    assert buffer.claim() == 0
    for _ in range(2):
        with pytest.raises(MemoryError):
            buffer.put(0, windows_of(0, 0, 2))
    buffer.put(0, windows_of(0, 0, 2))
    batch = buffer.take()
    assert batch is not None and batch.count == 2


@pytest.mark.timeout(60)
def test_what_waits_is_bounded_and_the_earliest_recording_goes_first() -> None:
    buffer = BatchBuffer(2, batch_size=2, most=3, ahead=1)
    assert (buffer.claim(), buffer.claim()) == (0, 1)
    put = threading.Semaphore(0)

    def late() -> None:
        for i in range(100):
            try:
                buffer.put(1, windows_of(1, i, 1))
            except BufferClosedError:
                return
            put.release()

    producer = threading.Thread(target=late, daemon=True)
    producer.start()
    assert not put.acquire(timeout=0.2)  # the first batch is the first recording's
    buffer.put(0, windows_of(0, 0, 2))
    assert not put.acquire(timeout=0.2)  # a full batch waits
    buffer.put(0, windows_of(0, 2, 2))  # which the later one was not allowed to fill
    assert buffer.seconds_blocked == 0  # of those that wait still, nothing is known yet
    taken = [buffer.take(wait=False) for _ in range(2)]
    for _ in range(2):
        assert put.acquire(timeout=10)
    taken.append(buffer.take())
    assert [batch.windows[:, 0].tolist() for batch in taken if batch] == [[0, 0], [0, 0], [1, 1]]
    assert not put.acquire(timeout=0.2)  # all memory is in use
    assert isinstance(taken[0], Batch)
    buffer.release(taken[0])
    assert put.acquire(timeout=10)
    assert buffer.seconds_blocked > 0.2
    buffer.close()
    producer.join(10)
    assert not producer.is_alive()
    assert buffer.claim() is None


@pytest.mark.timeout(60)
def test_closing_releases_producers() -> None:
    buffer = BatchBuffer(1, batch_size=1, most=1)
    buffer.claim()
    buffer.put(0, windows_of(0, 0, 1))
    buffer.close()
    with pytest.raises(BufferClosedError):
        buffer.put(0, windows_of(0, 1, 1))


class Results:
    """Notes what comes of which recording."""

    def __init__(self) -> None:
        self.rows: dict[str, list[np.ndarray]] = {}
        self.order: list[str] = []
        self.ended: list[str] = []

    def add(self, source: Source, embeddings: np.ndarray, predictions: object) -> None:
        self.rows.setdefault(source.name, []).append(embeddings.copy())
        self.order += [source.name] * len(embeddings)

    def finish(self, source: Source, end: StreamEnd) -> None:
        self.ended.append(source.name)

    def fail(self, source: Source, reason: str) -> None:
        raise AssertionError(reason)


def embed(decode: Decode, recordings: int, workload: Workload, model: TinyModel) -> Results:
    results = Results()
    sources = [Source(Path(), f"{i}", 0, 0) for i in range(recordings)]
    run(sources, decode, ModelRunner(model, scores=False), results, workload, RunReport("tiny"))
    return results


def audio(name: str, windows: int) -> Samples:
    return np.random.default_rng(int(name)).uniform(-1, 1, (windows, 8000)).astype(np.float32)


@pytest.mark.timeout(60)
def test_decoders_do_not_wait_for_each_others_recordings() -> None:
    """Of long recordings: all come to their middle before any of them ends."""
    middle = threading.Barrier(8, timeout=20)

    def decode(source: Source) -> Generator[Samples, None, StreamEnd]:
        windows = audio(source.name, 40)
        for first in range(0, 40, 4):
            if first == 20:
                middle.wait()
            yield windows[first : first + 4]
        return END

    together = embed(decode, 8, Workload(4, 2, 8), TinyModel())
    middle.abort()
    middle = threading.Barrier(1)
    by_turns = embed(decode, 8, Workload(4, 1, 0), TinyModel())
    for name, rows in by_turns.rows.items():
        np.testing.assert_array_equal(
            np.concatenate(together.rows[name]), np.concatenate(rows), err_msg=name
        )


@pytest.mark.timeout(60)
def test_recordings_end_one_after_the_other_where_the_model_is_slow() -> None:
    class Slow(TinyModel):
        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            threading.Event().wait(0.02)
            return super().__call__(x)

    def decode(source: Source) -> Generator[Samples, None, StreamEnd]:
        windows = audio(source.name, 80)
        for first in range(0, 80, 2):
            yield windows[first : first + 2]
        return END

    results = embed(decode, 4, Workload(4, 1, 4), Slow())
    assert results.ended == ["0", "1", "2", "3"]
    # Most of the last recording is computed when the first is complete already.
    last_of_first = len(results.order) - 1 - results.order[::-1].index("0")
    assert results.order[:last_of_first].count("3") < 30


def test_arrays_in_memory_come_back_in_the_order_in_which_they_were_given() -> None:
    items = [audio(str(i), 1 + 7 * (i % 3)).ravel() for i in range(12)]
    embedder = bacpipe.Embedder(
        "tiny", CustomModel=TinyModel, device="cpu", nr_parallel_workers=6, global_batch_size=3
    )
    found = embedder.embeddings_using_multithreading(items)
    scores = embedder.classifier.predictions
    one_by_one = [embedder.embeddings_using_multithreading([item]) for item in items]
    np.testing.assert_allclose(found, np.concatenate(one_by_one), rtol=1e-6)
    np.testing.assert_allclose(scores[:, 0], found.mean(axis=1), rtol=1e-5)
