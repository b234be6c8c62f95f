"""Decoding in blocks: the samples of librosa, bounded memory, nothing lost silently."""

from __future__ import annotations

import itertools
import logging
import struct
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import librosa
import numpy as np
import pytest
import soundfile as sf
import soxr

from bacpipe.audio.headers import _flac_frames, flac_gaps
from bacpipe.audio.stream import (
    CHANNELS,
    AudioStream,
    mix_to_mono,
    read_audio,
    resampled_length,
)
from bacpipe.errors import AudioError
from bacpipe.options import Channel

FORMATS = [
    ("x.wav", {"subtype": "PCM_16"}),
    ("x.WAV", {"subtype": "PCM_24"}),
    ("x.Wav", {"subtype": "FLOAT"}),
    ("x.wav", {"subtype": "DOUBLE"}),
    ("x.wav", {"subtype": "PCM_U8"}),
    ("x.wav", {"subtype": "MS_ADPCM"}),
    ("x.wav", {"format": "WAVEX", "subtype": "PCM_24"}),
    ("x.wav", {"format": "RF64"}),
    ("x.wav", {"endian": "BIG"}),
    ("x.flac", {}),
    ("x.FLAC", {"subtype": "PCM_24"}),
    ("x.ogg", {}),
    ("x.mp3", {}),
    ("x.aif", {"format": "AIFF"}),
    ("x.aiff", {"subtype": "PCM_24"}),
]


def sparse_wav(path: Path, seconds: int, rate: int, channels: int) -> Path:
    """Write a silent 16-bit WAV that takes no room on disk."""
    size = 2 * channels * seconds * rate
    form = struct.pack(
        "<4sIHHIIHH", b"fmt ", 16, 1, channels, rate, 2 * channels * rate, 2 * channels, 16
    )
    with path.open("wb") as file:
        file.write(struct.pack("<4sI4s", b"RIFF", 36 + size, b"WAVE") + form)
        file.write(struct.pack("<4sI", b"data", size))
        file.truncate(44 + size)
    return path


def read_blocks(path: Path, rate: int, *, stop: float | None = None, **kwargs: float) -> Iterator:
    """Decode a recording block by block."""
    with AudioStream(path, rate, **kwargs) as stream:
        yield from stream.blocks(stop=stop)


def assert_like_librosa(path: Path, rate: int, **kwargs: float) -> None:
    ours = read_audio(path, rate, **kwargs)
    theirs, _ = librosa.load(path, sr=rate)
    assert ours.dtype == np.float32 and ours.ndim == 1
    assert 0 <= len(theirs) - len(ours) <= 1  # librosa may append a zero
    np.testing.assert_allclose(ours, theirs[: len(ours)], atol=1e-6, rtol=0)


class TestSamples:
    @pytest.mark.parametrize(("name", "options"), FORMATS)
    def test_formats(self, write_audio, name, options):
        path = write_audio(name, seconds=1.2, rate=22_050, channels=2, **options)
        assert_like_librosa(path, 22_050, block_seconds=0.25)
        assert_like_librosa(path, 16_000, block_seconds=0.25)

    @pytest.mark.parametrize("native", [8_000, 44_100, 48_000, 250_000, 312_500])
    @pytest.mark.parametrize("target", [16_000, 32_000, 48_000])
    def test_rates(self, write_audio, native, target):
        path = write_audio("x.wav", seconds=0.7, rate=native)
        assert_like_librosa(path, target, block_seconds=0.1)

    @pytest.mark.parametrize("channels", [1, 2, 3, 4, 8])
    def test_channels(self, write_audio, channels):
        path = write_audio("x.wav", channels=channels)
        assert_like_librosa(path, 16_000)
        assert_like_librosa(path, 12_000)

    @pytest.mark.parametrize("block_seconds", [1e-9, 0.01, 0.3, 100])
    def test_block_size_does_not_matter(self, write_audio, block_seconds):
        path = write_audio("x.wav", seconds=0.05, channels=2)
        for rate in (16_000, 11_025):
            whole = read_audio(path, rate)
            assert np.array_equal(read_audio(path, rate, block_seconds=block_seconds), whole)

    def test_stereo_is_mixed_to_the_bit(self):
        block = np.random.default_rng(1).standard_normal((1000, 2)).astype(np.float32)
        expected = (block[:, 0] + block[:, 1]) * np.float32(0.5)
        assert np.array_equal(mix_to_mono(block), expected)

    def test_blocks_own_their_memory(self, write_audio):
        path = write_audio("x.wav")
        for rate in (16_000, 8_000):
            blocks = list(read_blocks(path, rate, block_seconds=0.1))
            assert len(blocks) > 1
            assert all(block.flags.writeable for block in blocks)
            assert not any(np.shares_memory(a, b) for a, b in itertools.pairwise(blocks))
            assert np.array_equal(np.concatenate(blocks), read_audio(path, rate))

    @pytest.mark.parametrize("frames", [1, 2, 5])
    def test_a_few_samples(self, tmp_path, frames):
        path = tmp_path / "x.wav"
        sf.write(path, np.full(frames, 0.5, dtype=np.float32), 8_000, subtype="FLOAT")
        assert np.array_equal(read_audio(path, 8_000), np.full(frames, 0.5))
        assert len(read_audio(path, 16_000)) == 2 * frames


class TestLength:
    @pytest.mark.parametrize("frames", [1, 2, 3, 441, 1000, 44_100, 99_999])
    @pytest.mark.parametrize(
        ("source", "target"), [(44_100, 48_000), (48_000, 44_100), (312_500, 48_000), (4410.5, 9)]
    )
    def test_is_what_soxr_makes(self, frames, source, target):
        stream = soxr.ResampleStream(source, target, 1, dtype="float32")
        samples = stream.resample_chunk(np.zeros(frames, dtype=np.float32), last=True)
        assert resampled_length(frames, source, target) == len(samples)

    def test_no_spurious_zero(self, write_audio):
        for native, target in [(44_100, 48_000), (48_000, 44_100), (22_050, 48_000)]:
            path = write_audio("x.wav", seconds=10, rate=native)
            assert len(read_audio(path, target)) == 10 * target

    @pytest.mark.parametrize("rate", [16_000, 11_025, 48_000])
    def test_is_told_in_advance(self, write_audio, rate):
        with AudioStream(write_audio("x.wav", seconds=0.777), rate) as stream:
            assert stream.n_samples() == sum(map(len, stream))
            assert stream.n_samples(0.1, 0.3) == sum(map(len, stream.blocks(0.1, 0.3)))


class TestParts:
    @pytest.mark.parametrize("name", ["x.wav", "x.flac", "x.ogg", "x.mp3", "x.aiff"])
    def test_start_and_stop_are_exact(self, write_audio, name):
        path = write_audio(name, seconds=3, channels=2)
        whole = read_audio(path, 16_000)
        assert np.array_equal(read_audio(path, 16_000, start=2), whole[32_000:])
        for start, stop in [(0, 1), (1.25, 2.5), (0.00011, 0.5), (2.9, 3.0), (2.5, 99)]:
            part = read_audio(path, 16_000, start=start, stop=stop, block_seconds=0.3)
            expected = whole[round(start * 16_000) : round(stop * 16_000)]
            np.testing.assert_allclose(part, expected, atol=1e-6)

    def test_is_resampled_by_itself(self, write_audio):
        path = write_audio("x.wav", seconds=3)
        alone = soxr.resample(read_audio(path, 16_000, start=1, stop=2), 16_000, 10_000)
        assert np.array_equal(read_audio(path, 10_000, start=1, stop=2), alone)

    def test_many_parts_of_one_stream(self, write_audio):
        path = write_audio("x.flac", seconds=2)
        with AudioStream(path, 16_000) as stream:
            for start in (1.0, 0.0, 0.5, 1.9):
                part = np.concatenate(list(stream.blocks(start, start + 0.1)))
                assert np.array_equal(part, read_audio(path, 16_000, start=start, stop=start + 0.1))
                assert stream.frames_read == 1600

    def test_start_behind_the_end(self, write_audio):
        path = write_audio("x.wav", seconds=2)
        for stop in (None, 9.0):
            with pytest.raises(AudioError, match=r"x\.wav: has nothing at 5\.00 .* lasts 2\.00 s"):
                read_audio(path, 16_000, start=5, stop=stop)

    @pytest.mark.parametrize(
        ("start", "stop"), [(-1, None), (-1, 1), (1, 1), (1, 0.5), (float("nan"), None)]
    )
    def test_impossible_part(self, write_audio, start, stop):
        with pytest.raises(ValueError, match="start must be"):
            read_audio(write_audio("x.wav"), 16_000, start=start, stop=stop)

    @pytest.mark.parametrize("name", ["sample_rate", "block_seconds", "speed"])
    @pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
    def test_impossible_number(self, write_audio, name, value):
        parameters = {"sample_rate": 16_000, name: value}
        with pytest.raises(ValueError, match=f"{name} must be a positive number"):
            AudioStream(write_audio("x.wav"), **parameters)


class TestChannels:
    @pytest.fixture
    def stereo(self, tmp_path):
        def write(left, right, *more):
            path = tmp_path / "x.wav"
            sf.write(path, np.stack([left, right, *more], axis=1), 16_000, subtype="FLOAT")
            return path

        return write

    @pytest.fixture
    def noise(self):
        rng = np.random.default_rng(5)
        return [rng.normal(0, 0.1, 48_000).astype(np.float32) for _ in range(3)]

    def test_one_of_them(self, stereo, noise):
        path = stereo(noise[0], 3 * noise[1] + 0.5, noise[2])
        for channel, expected in (
            ("mix", (noise[0] + (3 * noise[1] + 0.5) + noise[2]) / 3),
            ("left", noise[0]),
            ("right", 3 * noise[1] + 0.5),
            ("loudest", 3 * noise[1] + 0.5),
        ):
            found = read_audio(path, 16_000, channel=channel, block_seconds=0.3)
            np.testing.assert_allclose(found, expected, atol=1e-6)
        offset = stereo(noise[0], 0.01 * noise[1] + 0.9)  # a constant is not loud
        np.testing.assert_array_equal(read_audio(offset, 16_000, channel="loudest"), noise[0])

    def test_mono_is_what_it_is(self, write_audio):
        path = write_audio("x.wav")
        for channel in ("left", "right", "loudest"):
            assert np.array_equal(
                read_audio(path, 16_000, channel=channel), read_audio(path, 16_000)
            )

    @pytest.mark.parametrize("name", ["x.flac", "x.mp3", "x.ogg"])
    def test_loudest_of_other_formats(self, tmp_path, noise, name):
        path = tmp_path / name
        sf.write(path, np.stack([noise[0] * 0.05, noise[1]], axis=1), 16_000)
        assert read_audio(path, 16_000, channel="loudest").std() > 0.08

    def test_channels_that_cancel_are_not_mixed_silently(self, stereo, noise, caplog):
        for right in (-noise[0], -0.8 * noise[0] + 0.2 * noise[1] + 0.3):
            caplog.clear()
            with AudioStream(stereo(noise[0], right), 16_000, block_seconds=0.3) as stream:
                for _ in range(2):
                    assert sum(map(len, stream)) == 48_000
            assert caplog.text.count("its channels cancel each other") == 1
            assert "set channel to loudest, left, right or each" in caplog.text

    def test_channels_that_do_not_cancel(self, stereo, noise, caplog):
        quiet = np.zeros(48_000, np.float32)
        for others in (
            (noise[1],),
            (quiet,),
            (noise[0],),
            (noise[1], noise[2]),
            (-noise[0], noise[2]),
        ):
            read_audio(stereo(noise[0], *others), 16_000)
        read_audio(stereo(quiet, quiet), 16_000)
        read_audio(stereo(noise[0], -noise[0]), 16_000, channel="left")
        assert not caplog.text

    def test_unknown_channel(self, write_audio):
        with pytest.raises(ValueError, match="channel must be one of mix, left, right, loudest"):
            read_audio(write_audio("x.wav"), 16_000, channel="middle")

    def test_settings_offer_the_same(self):
        assert get_args(Channel) == (*CHANNELS, "each")  # which opens a stream for each


class TestSpeed:
    def test_slowed_ultrasound(self, write_audio):
        path = write_audio("x.wav", seconds=0.5, rate=250_000)
        samples, _ = sf.read(path, dtype="float32")
        expected = soxr.resample(samples, 25_000, 48_000)
        assert np.array_equal(read_audio(path, 48_000, speed=0.1), expected)
        assert len(expected) == 10 * 0.5 * 48_000

    def test_rate_that_fits_is_not_resampled(self, write_audio):
        path = write_audio("x.wav", rate=44_100)
        samples, _ = sf.read(path, dtype="float32")
        assert 44_100 * 0.7 != 30_870
        assert np.array_equal(read_audio(path, 30_870, speed=0.7), samples)

    def test_broken_rates(self, write_audio):
        path = write_audio("x.wav", rate=312_500, seconds=0.3)
        assert len(read_audio(path, 22_050, speed=1 / 7)) == round(0.3 * 7 * 22_050)

    def test_parts_are_in_real_time(self, write_audio):
        path = write_audio("x.wav", seconds=2)
        samples, _ = sf.read(path, dtype="float32")
        part = read_audio(path, 1600, speed=0.1, start=1, stop=1.5)
        assert np.array_equal(part, samples[16_000:24_000])


class TestTruncated:
    @pytest.mark.parametrize(
        ("name", "options"),
        [(name, options) for name, options in FORMATS if not name.endswith(".ogg")],
    )
    def test_is_an_error_unless_allowed(self, write_audio, cut, caplog, name, options):
        whole_path = write_audio(name, seconds=4, channels=2, **options)
        path = cut(whole_path, 0.5)
        pattern = rf"^cut_{name}: ends after [12]\.\d\d of 4\.0\d seconds \(.*\)\.$"
        with pytest.raises(AudioError, match=pattern):
            read_audio(path, 16_000)
        with (
            caplog.at_level(logging.WARNING),
            AudioStream(path, 16_000, allow_truncated=True) as stream,
        ):
            readable = np.concatenate(list(stream))
            assert stream.recording.duration == pytest.approx(4.0, abs=0.05)  # blocks of ADPCM
            assert 1.5 < stream.truncated_at < 2.5
            assert stream.truncated_at == stream.frames_read / 16_000 == len(readable) / 16_000
        assert f"cut_{name}: ends after" in caplog.text
        sure = int(0.9 * len(readable))  # lossy formats overlap their last block with the next
        np.testing.assert_allclose(
            readable[:sure], read_audio(whole_path, 16_000)[:sure], atol=1e-6
        )

    @pytest.mark.parametrize("name", ["x.wav", "x.flac"])
    def test_whole_is_not_truncated(self, write_audio, name):
        with AudioStream(write_audio(name), 8_000, allow_truncated=True) as stream:
            assert sum(map(len, stream)) == 8_000
            assert stream.truncated_at is None
            assert stream.frames_read == 16_000

    def test_ogg_without_its_end(self, write_audio, cut):
        path = cut(write_audio("x.ogg", seconds=8), 0.5)
        with pytest.raises(AudioError, match=r"^cut_x\.ogg: ends after [234]\.\d\d seconds \("):
            read_audio(path, 16_000)
        assert 2 < len(read_audio(path, 16_000, allow_truncated=True)) / 16_000 < 5

    def test_wav_is_refused_before_anything_is_decoded(self, write_audio, cut):
        blocks = read_blocks(cut(write_audio("x.wav", seconds=4), 0.9), 16_000, block_seconds=0.1)
        with pytest.raises(AudioError, match="ends after"):
            next(blocks)

    def test_flac_is_decoded_up_to_the_last_good_frame(self, write_audio, cut):
        path = cut(write_audio("x.flac", seconds=4), 0.5)
        blocks = []
        with pytest.raises(AudioError, match=r"damaged: .*sync"):
            blocks.extend(read_blocks(path, 16_000, block_seconds=10))
        readable = read_audio(path, 16_000, allow_truncated=True, block_seconds=0.1)
        assert len(readable) > 16_000
        assert np.array_equal(read_audio(path, 16_000, allow_truncated=True), readable)

    @pytest.mark.parametrize("name", ["x.wav", "x.flac"])
    def test_parts_that_are_there_are_fine(self, write_audio, cut, name):
        whole = write_audio(name, seconds=4)
        path = cut(whole, 0.5)
        part = read_audio(path, 16_000, start=0.5, stop=1.0)
        assert np.array_equal(part, read_audio(whole, 16_000, start=0.5, stop=1.0))
        with pytest.raises(AudioError, match=r"ends (after|before)"):
            read_audio(path, 16_000, start=3.0, stop=3.5)
        assert len(read_audio(path, 16_000, start=3.0, stop=3.5, allow_truncated=True)) == 0

    def test_one_missing_frame_counts(self, write_audio):
        path = write_audio("x.wav", channels=2)
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(AudioError, match="ends after"):
            read_audio(path, 16_000)
        assert len(read_audio(path, 16_000, allow_truncated=True)) == 15_999


class TestMendedHeaders:
    """Files that libsndfile alone would read in part or not at all."""

    @pytest.mark.parametrize(("riff_size", "data_size"), [(0, 0), (36, 0), (2**32 - 1, 2**32 - 1)])
    @pytest.mark.parametrize("options", [{}, {"format": "WAVEX"}, {"subtype": "PCM_24"}])
    def test_unclosed_wav(self, write_audio, tmp_path, riff_size, data_size, options):
        whole = write_audio("whole.wav", seconds=2, channels=2, **options)
        content = bytearray(whole.read_bytes())
        struct.pack_into("<I", content, 4, riff_size)
        struct.pack_into("<I", content, content.index(b"data") + 4, data_size)
        path = tmp_path / "x.wav"
        path.write_bytes(content)
        assert np.array_equal(read_audio(path, 16_000), read_audio(whole, 16_000))
        part = read_audio(path, 8_000, start=0.5, stop=1.5)
        assert np.array_equal(part, read_audio(whole, 8_000, start=0.5, stop=1.5))

    def test_unclosed_rf64(self, write_audio, tmp_path):
        whole = write_audio("whole.wav", format="RF64")
        content = bytearray(whole.read_bytes())
        content[20:36] = bytes(16)
        path = tmp_path / "x.wav"
        path.write_bytes(content)
        assert np.array_equal(read_audio(path, 16_000), read_audio(whole, 16_000))

    def test_empty_wav_with_further_chunks_holds_no_audio(self, write_audio):
        path = write_audio("x.wav", seconds=0)
        content = path.read_bytes() + struct.pack("<4sI", b"LIST", 8) + b"INFOabcd"
        path.write_bytes(content[:4] + struct.pack("<I", len(content) - 8) + content[8:])
        with pytest.raises(AudioError, match="holds no audio"):
            read_audio(path, 16_000)

    def test_wav_above_4_gib(self, tmp_path):
        path = tmp_path / "x.wav"
        size = 5 * 2**30
        form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 2, 96_000, 384_000, 4, 16)
        with path.open("wb") as file:
            file.write(struct.pack("<4sI4s", b"RIFF", 2**32 - 1, b"WAVE") + form)
            file.write(struct.pack("<4sI", b"data", 2**32 - 1))
            try:
                file.truncate(44 + size)
            except OSError:
                pytest.skip("the file system has no sparse files")
            file.seek(44 + 4 * 96_000 * 13_000)
            file.write(b"\x00\x40\x00\x40")
        part = read_audio(path, 96_000, start=12_999.9, stop=13_000.1)
        assert part.argmax() == 9600 and part.max() == 0.5

    @pytest.mark.parametrize("loud_first", [True, False])
    def test_mp3_without_length(self, tmp_path, loud_first):
        rng = np.random.default_rng(3)
        samples = 0.3 * rng.standard_normal((6 * 44_100, 2)).astype(np.float32)
        samples[len(samples) // 3 :] *= 1e-4 if loud_first else 1  # the rate of bits varies
        samples[: len(samples) // 3] *= 1 if loud_first else 1e-4
        whole = tmp_path / "whole.mp3"
        with sf.SoundFile(
            whole, "w", 44_100, 2, bitrate_mode="VARIABLE", compression_level=0.4
        ) as file:
            file.write(samples)
        content = whole.read_bytes()
        second = content.index(content[:2], 4)  # the first frame holds the length
        bare = content[second:]
        path = tmp_path / "x.mp3"
        path.write_bytes(b"ID3\x04\x00\x00\x00\x00\x00\x02ab" + bare + b"TAG" + bytes(125))
        with AudioStream(path, 44_100) as stream:
            assert stream.recording.duration == pytest.approx(6, abs=0.1)
            assert sum(map(len, stream)) / 44_100 == pytest.approx(6, abs=0.1)
        path.write_bytes(bare[: len(bare) // 2])
        with pytest.raises(AudioError, match=r"ends after .* seconds \("):
            read_audio(path, 44_100)


class TestDamaged:
    @pytest.mark.parametrize(
        ("bad", "said"),
        [
            *((bad, "that are NaN or infinite") for bad in (np.nan, np.inf, -np.inf)),
            (1e38, r"such as 1e\+38, where -1 to 1 are expected"),
            (-2e37, r"such as -2e\+37, where -1 to 1 are expected"),
        ],
    )
    @pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
    def test_samples_that_are_no_sound(self, tmp_path, bad, said, subtype):
        path = tmp_path / "x.wav"
        samples = np.zeros((32_000, 2))
        samples[20_000:21_000] = bad
        sf.write(path, samples, 16_000, subtype=subtype)
        pattern = rf"^x\.wav: holds samples {said}, the first at 1\.250 seconds"
        with pytest.raises(AudioError, match=pattern):
            read_audio(path, 16_000, allow_truncated=True, block_seconds=0.3)

    @pytest.mark.parametrize("name", ["x.flac", "x.mp3", "x.ogg"])
    def test_garbage_in_the_middle(self, write_audio, name):
        path = write_audio(name, seconds=6)
        content = bytearray(path.read_bytes())
        middle = len(content) // 2
        garbage = np.random.default_rng(0).integers(0, 256, 9000, dtype=np.uint8)
        content[middle : middle + 9000] = garbage.tobytes()
        path.write_bytes(content)
        with pytest.raises(AudioError, match=rf"^{name}: ends after [1-5]\.\d\d of 6\.00 seconds"):
            read_audio(path, 16_000)
        lengths = {
            len(read_audio(path, 16_000, allow_truncated=True, block_seconds=seconds))
            for seconds in (0.5, 10)
        }
        assert 16_000 < min(lengths) <= max(lengths) < 90_000
        assert max(lengths) - min(lengths) < 1_600

    @pytest.mark.timeout(20)
    @pytest.mark.parametrize("name", ["x.wav", "x.flac", "x.mp3", "x.ogg", "x.aiff"])
    def test_random_damage_neither_hangs_nor_escapes(self, write_audio, name):
        path = write_audio(name, seconds=0.5)
        whole = path.read_bytes()
        rng = np.random.default_rng(11)
        for _ in range(40):
            content = np.frombuffer(whole, dtype=np.uint8).copy()
            # Half of the damage goes to the header.
            reach = 200 if rng.random() < 0.5 else len(content)
            content[rng.integers(0, reach, 5)] = rng.integers(0, 256, 5)
            path.write_bytes(content[: rng.integers(1, len(content) + 1)].tobytes())
            try:
                samples = read_audio(path, 16_000, stop=5.0)
            except AudioError as error:
                assert str(error).startswith(f"{name}: ")
            else:
                assert np.isfinite(samples).all()

    def test_not_audio(self, tmp_path):
        path = tmp_path / "x.wav"
        path.write_text("text")
        with pytest.raises(AudioError, match=r"^x\.wav: is not audio"):
            next(read_blocks(path, 16_000))


class TestMemory:
    @pytest.mark.parametrize("rate", [48_000, 32_000])
    def test_an_hour_costs_no_more_than_a_block(self, tmp_path, rate):
        path = sparse_wav(tmp_path / "x.wav", 3600, 48_000, 1)
        tracemalloc.start()
        try:
            n_samples = sum(map(len, read_blocks(path, rate)))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert n_samples == 3600 * rate
        assert peak < 16 * 2**20

    @pytest.mark.parametrize("speed", [1.0, 0.001])
    def test_many_channels_at_a_high_rate(self, tmp_path, speed):
        path = sparse_wav(tmp_path / "x.wav", 1, 768_000, 32)
        tracemalloc.start()
        try:
            stop = 0.2 * speed + 0.01
            for block in read_blocks(path, 48_000, speed=speed, stop=stop, block_seconds=1e6):
                assert block.any() == 0
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 32 * 2**20


def test_threads_decode_side_by_side(write_audio):
    paths = [
        write_audio(name, seconds=3, channels=2) for name in ("a.wav", "b.flac", "c.ogg", "d.mp3")
    ]
    expected = [read_audio(path, 22_050) for path in paths]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            results = pool.map(lambda path: read_audio(path, 22_050, block_seconds=0.2), paths)
            assert all(map(np.array_equal, results, expected))


AUDIO = Path(__file__).parents[3] / "shared" / "audio"


@pytest.mark.skipif(not AUDIO.is_dir(), reason="needs the shared recordings")
@pytest.mark.parametrize("folder", ["birds", "bats"])
def test_real_recordings(folder):
    for path in sorted((AUDIO / folder).rglob("*.[wW][aA][vV]")):
        assert_like_librosa(path, 48_000)
        assert_like_librosa(path, 22_050)


def gaps_in(path):
    with path.open("rb") as file:
        return flac_gaps(file)


@pytest.mark.parametrize("blocks", [(20, 21), (7, 12), (1, 2)])
def test_frames_of_a_flac_that_are_missing_are_told(tmp_path, caplog, blocks):
    path = tmp_path / "x.flac"
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, (160_000, 2))
    sf.write(path, sound, 16_000)
    data = path.read_bytes()
    size = int.from_bytes(data[8:10])
    frames = _flac_frames(data, 0, size)
    assert gaps_in(path) == [] and len(frames) == -(-160_000 // size)
    first, last = blocks
    path.write_bytes(data[: frames[first].position] + data[frames[last].position :])
    assert gaps_in(path) == [(first * size, last * size)]
    samples = read_audio(path, 16_000)
    assert len(samples) == 160_000
    assert not samples[first * size : last * size].any()
    seconds = (last - first) * size / 16_000
    assert f"{seconds:.2f} seconds are missing in it, first at {first * size / 16_000:.2f}" in (
        caplog.text
    )


def test_silence_in_a_flac_is_no_gap(tmp_path, caplog):
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, 160_000)
    sound[20_000:60_000] = 0
    sf.write(tmp_path / "x.flac", sound, 16_000)
    read_audio(tmp_path / "x.flac", 16_000)
    assert not caplog.text
