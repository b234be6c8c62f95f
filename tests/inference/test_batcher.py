from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bacpipe.inference.batches import Ended, Rows, make_batches


def numbered(lengths: list[list[int]]) -> list[tuple[int, np.ndarray | Ended]]:
    """Blocks of windows that hold their own number, and the ends of the recordings."""
    items: list[tuple[int, np.ndarray | Ended]] = []
    count = 0
    for recording, blocks in enumerate(lengths):
        for n in blocks:
            values = np.arange(count, count + n, dtype=np.float32)
            items.append((recording, np.repeat(values[:, None], 3, axis=1)))
            count += n
        items.append((recording, Ended(recording, "fine")))
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
