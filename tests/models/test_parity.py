"""The fake weights and audio are the ones that the golden numbers were made from."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from tests.models import parity


def checksum(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).tobytes())


@pytest.mark.parametrize(
    ("sample_rate", "samples", "seed", "expected"),
    [
        (16000, 48000, 0, 0xA64D4295),
        (220500, 171990, 2, 0x29FE748E),
        (48000, 480000, 1, 0xAD0845D4),
    ],
)
def test_audio_is_bit_exact(sample_rate: int, samples: int, seed: int, expected: int) -> None:
    assert checksum(parity.fake_audio(sample_rate, samples, seed)) == expected


@pytest.mark.parametrize(
    ("key", "shape", "kind", "expected"),
    [
        ("layer.0.weight", (64, 3, 7, 7), "fan_in", 0x183256D9),
        ("bn.running_var", (512,), "running_var", 0x812AA9D3),
        ("fc.bias", (1000,), "bias", 0x9B724E01),
        ("fc.weight", (1000, 768), "fan_in", 0x5B15916C),
    ],
)
def test_weights_are_bit_exact(key: str, shape: tuple[int, ...], kind: str, expected: int) -> None:
    assert checksum(parity.fake_tensor(key, shape, kind)) == expected


def test_every_model_has_a_golden_file_and_a_writer() -> None:
    assert set(parity.MODELS) == {path.stem for path in (parity.DATA / "golden").glob("*.npz")}
    assert set(parity.MODELS) == set(parity._WRITERS)
