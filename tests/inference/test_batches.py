from __future__ import annotations

import random
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bacpipe.inference.batches import (
    BufferClosedError,
    Ended,
    OrderedBuffer,
    Rows,
    make_batches,
)
from bacpipe.store.plan import StreamEnd


def numbered(lengths: list[list[int]]) -> list[tuple[int, np.ndarray | Ended]]:
    """Blocks of windows that hold their own number, and the ends of the recordings."""
    items: list[tuple[int, np.ndarray | Ended]] = []
    count = 0
    for recording, blocks in enumerate(lengths):
        for n in blocks:
            values = np.arange(count, count + n, dtype=np.float32)
            items.append((recording, np.repeat(values[:, None], 3, axis=1)))
            count += n
        items.append((recording, Ended(recording, StreamEnd(1.0, padded=0))))
    return items


@given(st.lists(st.lists(st.integers(0, 9), max_size=4), max_size=6), st.integers(1, 7))
def test_every_window_and_end_comes_once_and_in_order(
    lengths: list[list[int]], batch_size: int
) -> None:
    batches = list(make_batches(iter(numbered(lengths)), batch_size))
    windows = np.concatenate([b.windows[:, 0] for b in batches if len(b.windows)] or [np.zeros(0)])
    np.testing.assert_array_equal(windows, np.arange(sum(map(sum, lengths))))
    sizes = [len(batch.windows) for batch in batches if len(batch.windows)]
    assert all(size == batch_size for size in sizes[:-1])
    seen: dict[int, int] = {}
    ended = []
    for batch in batches:
        rows = [part for part in batch.parts if isinstance(part, Rows)]
        assert sum(part.count for part in rows) == len(batch.windows)
        for part in batch.parts:
            assert part.recording not in ended
            if isinstance(part, Rows):
                seen[part.recording] = seen.get(part.recording, 0) + part.count
            else:
                ended.append(part.recording)
    assert ended == list(range(len(lengths)))
    assert seen == {i: sum(blocks) for i, blocks in enumerate(lengths) if sum(blocks)}


def fill(buffer: OrderedBuffer, lengths: list[int], size: int, seed: int) -> None:
    shuffle = random.Random(seed)
    while (number := buffer.claim()) is not None:
        for i in range(lengths[number]):
            if shuffle.random() < 0.1:
                threading.Event().wait(0.001)
            buffer.put(number, (number, i), size)
        buffer.end(number, (number, "end"))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("capacity", [1, 5, 1000])
def test_order_is_that_of_the_recordings_whatever_the_threads(threads: int, capacity: int) -> None:
    lengths = [3, 0, 1, 17, 2, 0, 40, 1, 1, 1]
    buffer = OrderedBuffer(len(lengths), capacity)
    producers = [
        threading.Thread(target=fill, args=(buffer, lengths, 2, i), daemon=True)
        for i in range(threads)
    ]
    for producer in producers:
        producer.start()
    got = [item for _, item in buffer]
    expected = [(n, i) for n, length in enumerate(lengths) for i in [*range(length), "end"]]
    assert got == expected
    for producer in producers:
        producer.join()


@pytest.mark.timeout(60)
def test_what_waits_is_bounded() -> None:
    buffer = OrderedBuffer(2, capacity=4)
    put = threading.Semaphore(0)

    def produce() -> None:
        for _ in range(100):
            try:
                buffer.put(1, "late", 1)
            except BufferClosedError:
                return
            put.release()

    producer = threading.Thread(target=produce, daemon=True)
    producer.start()
    for _ in range(4):
        assert put.acquire(timeout=10)
    assert not put.acquire(timeout=0.2)
    buffer.put(0, "head", 1)
    buffer.close()
    producer.join(10)
    assert not producer.is_alive()


@pytest.mark.timeout(60)
def test_closing_releases_producers() -> None:
    buffer = OrderedBuffer(1, capacity=1)
    buffer.put(0, "first", 1)
    buffer.close()
    with pytest.raises(BufferClosedError):
        buffer.put(0, "second", 1)
    assert buffer.claim() is None
