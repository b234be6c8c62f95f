"""Where and when the recordings of a loader were made, and which classes can be there."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from bacpipe.audio.timestamps import recording_start
from bacpipe.store.detections import Detections
from bacpipe.store.loader import Loader


class Place(NamedTuple):
    """Where and when a recording was made.

    Attributes
    ----------
    site : str
        Name of the site: the folder of the recording, unless the table of sites has another.
    latitude, longitude : float or None
        Degrees of WGS 84.
    start : datetime or None
        When the recording starts, with a zone where one is known.
    columns : mapping of str to str
        Further columns of the table of sites.
    """

    site: str
    latitude: float | None
    longitude: float | None
    start: datetime | None
    columns: Mapping[str, str]

    @property
    def local(self) -> np.datetime64:
        """Clock time of the start, datetime64[us]; NaT where it is not known."""
        plain = None if self.start is None else self.start.replace(tzinfo=None)
        return np.datetime64(plain, "us") if plain is not None else np.datetime64("NaT", "us")

    @property
    def offset(self) -> str:
        """Offset of the clock from UTC, such as ``+02:00``; empty where it is not known."""
        return "" if self.start is None else self.start.isoformat("T")[19:].lstrip(".0123456789")


class Whereabouts:
    """Looks every recording of a loader up once.

    Parameters
    ----------
    loader : Loader
    settings : mapping, optional
        Settings of a call, which come before those of the loader.
    """

    def __init__(self, loader: Loader, settings: Mapping[str, Any] | None = None) -> None:
        self._loader = loader
        self._places: dict[str, Place] = {}

    def of(self, recording: str) -> Place:
        """Where and when a recording was made."""
        if recording not in self._places:
            start = recording_start(self._loader.audio_dir / recording)
            folder = str(PurePosixPath(recording).parent)
            self._places[recording] = Place(folder, None, None, start, {})
        return self._places[recording]

    @property
    def columns(self) -> list[str]:
        """Further columns of the table of sites."""
        return []

    def range_probability(self, recording: str, labels: np.ndarray) -> np.ndarray:
        """How probable it is that classes are there at that time of the year.

        float32 of the shape of `labels` (names of classes); NaN where it is not known.
        """
        return np.full(len(labels), np.nan, np.float32)

    def possible(self, item: Detections) -> Detections:
        """Detections without those that the settings hide."""
        return item

    @property
    def provenance(self) -> dict[str, Any]:
        """Settings that decide what is shown."""
        return {}

    @property
    def state(self) -> str:
        """Hash of all that places depend on besides the recordings."""
        return hashlib.sha256(b"").hexdigest()[:16]
