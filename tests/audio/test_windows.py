"""Cutting streams into windows: the rule, the padding, segments and times."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bacpipe
from bacpipe.audio.windows import (
    PADDING_MODES,
    Segment,
    count_windows,
    cut_windows,
    merge_segments,
    window_times,
)


def reference(signal, window, hop, padding):
    """Cut window by window, as the rule says."""
    windows, start = [], 0
    while start < len(signal) and (start == 0 or start - hop + window < len(signal)):
        piece = signal[start : start + window]
        windows.append(np.pad(piece, (0, window - len(piece)), mode=padding))
        start += hop
    return windows


def split(signal, sizes):
    """Yield the signal in blocks of the given sizes, over and over."""
    position, index = 0, 0
    while position < len(signal):
        size = sizes[index % len(sizes)]
        yield signal[position : position + size]
        position += size
        index += 1


def ramp(n_samples):
    return np.arange(1, n_samples + 1, dtype=np.float32)


class TestCutWindows:
    @settings(max_examples=300)
    @given(
        n_samples=st.integers(0, 300),
        window=st.integers(1, 60),
        hop=st.one_of(st.none(), st.integers(1, 120)),
        padding=st.sampled_from(PADDING_MODES),
        sizes=st.lists(st.integers(1, 100), min_size=1, max_size=4),
    )
    def test_equals_the_rule(self, n_samples, window, hop, padding, sizes):
        signal = ramp(n_samples)
        expected = reference(signal, window, hop or window, padding)
        blocks = list(cut_windows(split(signal, sizes), window, hop, padding, first=5))
        assert sum(len(block.windows) for block in blocks) == len(expected)
        assert count_windows(n_samples, window, hop) == len(expected)
        index = 5
        for block in blocks:
            assert block.first == index
            assert block.windows.dtype == np.float32
            assert block.windows.flags.c_contiguous
            assert block.windows.shape[1:] == (window,)
            np.testing.assert_array_equal(
                block.windows, expected[index - 5 : index - 5 + len(block.windows)]
            )
            index += len(block.windows)
        assert all(block.padded == 0 for block in blocks[:-1])
        if blocks:
            reach = (len(expected) - 1) * (hop or window) + window
            assert blocks[-1].padded == max(0, reach - n_samples)

    def test_exact_multiple_has_no_padded_window(self):
        (block,) = cut_windows([ramp(12)], 4)
        assert block.windows.tolist() == ramp(12).reshape(3, 4).tolist()
        assert block.padded == 0

    def test_rest_is_padded(self):
        full, last = cut_windows([ramp(6)], 4)
        assert (full.first, full.padded, last.first, last.padded) == (0, 0, 1, 2)
        assert last.windows.tolist() == [[5, 6, 5, 6]]

    @pytest.mark.parametrize(
        ("n_samples", "expected"),
        [(3, 1), (4, 1), (5, 2), (6, 2), (7, 3), (8, 3), (9, 4)],
    )
    def test_overlap_ends_with_the_window_that_reaches_the_end(self, n_samples, expected):
        assert count_windows(n_samples, 4, 2) == expected

    @pytest.mark.parametrize(
        ("n_samples", "expected"), [(4, 1), (9, 1), (10, 1), (11, 2), (99, 10)]
    )
    def test_gaps(self, n_samples, expected):
        assert count_windows(n_samples, 4, 10) == expected

    def test_no_samples_no_windows(self):
        assert list(cut_windows([], 4)) == []
        assert list(cut_windows([ramp(0)], 4)) == []

    @pytest.mark.parametrize("padding", PADDING_MODES)
    @pytest.mark.parametrize("n_samples", [1, 2, 3])
    def test_signal_much_shorter_than_the_window(self, padding, n_samples):
        (block,) = cut_windows([ramp(n_samples)], 100_000, padding=padding)
        assert block.windows.shape == (1, 100_000)
        assert block.padded == 100_000 - n_samples
        assert np.array_equal(block.windows[0, :n_samples], ramp(n_samples))
        assert np.isfinite(block.windows).all()

    def test_wrap_repeats_the_signal(self):
        (block,) = cut_windows([ramp(3)], 8, padding="wrap")
        assert block.windows.tolist() == [[1, 2, 3, 1, 2, 3, 1, 2]]

    def test_reflect_goes_back_and_forth(self):
        (block,) = cut_windows([ramp(3)], 8, padding="reflect")
        assert block.windows.tolist() == [[1, 2, 3, 2, 1, 2, 3, 2]]

    @pytest.mark.parametrize("padding", PADDING_MODES)
    def test_settings_take_every_padding(self, padding, restored_settings):
        bacpipe.settings.padding = padding
        assert bacpipe.settings.padding == padding

    def test_settings_take_no_other_padding(self):
        with pytest.raises(bacpipe.BacpipeError, match=", ".join(PADDING_MODES)):
            bacpipe.settings.padding = "empty"

    @pytest.mark.parametrize("padding", ["wrapp", "empty", "zeros", ""])
    def test_unknown_padding_fails_at_once(self, padding):
        with pytest.raises(ValueError, match=r"padding must be one of wrap, reflect"):
            cut_windows([ramp(3)], 8, padding=padding)

    @pytest.mark.parametrize(("window", "hop"), [(0, None), (-1, 1), (4, 0), (4, -2)])
    def test_impossible_sizes_fail_at_once(self, window, hop):
        with pytest.raises(ValueError, match="at least 1 sample"):
            cut_windows([ramp(3)], window, hop)
        with pytest.raises(ValueError, match="at least 1 sample"):
            count_windows(3, window, hop)

    def test_small_hops_do_not_multiply_memory(self):
        blocks = cut_windows([np.zeros(200_000, dtype=np.float32)], 100_000, hop=10)
        sizes = [block.windows.size for block in blocks]
        assert sum(sizes) == 10_001 * 100_000
        assert max(sizes) <= 2**22

    def test_windows_can_be_written_to(self):
        for hop in (4, 2):
            for block in cut_windows([ramp(5), ramp(1), ramp(7)], 4, hop):
                assert block.windows.flags.writeable


class TestMergeSegments:
    def test_sorts_and_drops_repeats_only(self):
        pairs = [(5, 10), (0, 5.0), (5.0, 10), (4, 6), (0, 2)]
        assert merge_segments(pairs) == [(0, 2), (0, 5), (4, 6), (5, 10)]
        assert all(isinstance(segment, Segment) for segment in merge_segments(pairs))

    def test_nothing(self):
        assert merge_segments([]) == []

    @pytest.mark.parametrize(
        "pair", [(-1, 2), (3, 3), (3, 2), (0, float("inf")), (float("nan"), 1), (1, float("nan"))]
    )
    def test_impossible_segment(self, pair):
        with pytest.raises(ValueError, match=r"The segment from .* seconds must start"):
            merge_segments([(0, 1), pair])


class TestWindowTimes:
    def test_whole_recording(self):
        starts, ends = window_times(3, 48_000, None, 16_000)
        assert starts.tolist() == [0, 3, 6]
        assert ends.tolist() == [3, 6, 9]

    def test_hop_and_speed(self):
        starts, ends = window_times(3, 48_000, 24_000, 16_000, speed=0.1)
        np.testing.assert_allclose(starts, [0, 0.15, 0.3])
        np.testing.assert_allclose(ends, [0.3, 0.45, 0.6])

    def test_segments(self):
        segments = [Segment(1, 3), Segment(10, 11), Segment(20, 30)]
        starts, ends = window_times(3, 1600, None, 1600, segments=segments, counts=[2, 0, 1])
        assert starts.tolist() == [1, 2, 20]
        assert ends.tolist() == [2, 3, 21]

    def test_nothing(self):
        for times in (
            window_times(0, 10, None, 10),
            window_times(0, 10, None, 10, segments=[], counts=[]),
        ):
            assert [len(column) for column in times] == [0, 0]

    def test_long_recordings_do_not_drift(self):
        starts, _ = window_times(1_000_000, 22_050, 7350, 22_050)
        assert starts[-1] == 999_999 * 7350 / 22_050

    @pytest.mark.parametrize(
        ("segments", "counts"),
        [([Segment(0, 1)], None), (None, [3]), ([Segment(0, 1)], [2]), ([Segment(0, 1)], [1, 2])],
    )
    def test_counts_must_fit(self, segments, counts):
        with pytest.raises(ValueError, match=r"segments"):
            window_times(3, 10, None, 10, segments=segments, counts=counts)
