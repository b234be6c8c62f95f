from __future__ import annotations

import random
import threading

import pytest

from bacpipe.inference.batches import BufferClosedError, OrderedBuffer


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
