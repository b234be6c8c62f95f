"""Scaling windows to a common loudness."""

from __future__ import annotations

from torch import Tensor


def center_and_scale(audio: Tensor, peak: float) -> Tensor:
    """Remove the mean of each window and scale its largest absolute sample to `peak`.

    Parameters
    ----------
    audio : Tensor, float32, shape (n, samples)
        Windows.
    peak : float
        Peak of the result.

    Returns
    -------
    Tensor, float32, shape (n, samples)
        Zeros for a constant window.
    """
    centered = audio - audio.mean(dim=-1, keepdim=True)
    largest = centered.abs().amax(dim=-1, keepdim=True)
    # The mean of a constant window is exact only up to rounding; without the floor, that
    # rounding error would be blown up to full scale.
    silent = largest <= 1e-6 * audio.abs().amax(dim=-1, keepdim=True)
    scaled = centered * (peak / largest.masked_fill(silent, 1.0))
    return scaled.masked_fill(silent, 0.0)
