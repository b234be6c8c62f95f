"""The small data set of the labels, for what is made of its predictions."""

from tests.labels.conftest import audio_dir, loader, results

__all__ = ["audio_dir", "loader", "results"]
