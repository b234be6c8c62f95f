"""Where and when the recordings of a loader were made, and which classes can be there."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from bacpipe.places.sites import Site
from bacpipe.store.detections import Detections
from bacpipe.store.loader import Loader
from bacpipe.store.range_filter import OPTIONS


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
        self._found = loader.range_filter(**(settings or {}))
        self._places: dict[str, Place] = {}

    def of(self, recording: str) -> Place:
        """Where and when a recording was made."""
        if recording not in self._places:
            start = self._found.clock.of(recording)
            site = start.site or Site(str(PurePosixPath(recording).parent))
            self._places[recording] = Place(
                site.name, site.latitude, site.longitude, start.time, site.columns
            )
        return self._places[recording]

    @property
    def columns(self) -> list[str]:
        """Further columns of the table of sites."""
        return sorted({name for row in self._found.clock.sites.rows for name in row.columns})

    def range_probability(self, item: Detections) -> np.ndarray:
        """How probable the classes are there at that time of the year, float32 of shape (n,).

        NaN where it is not known.
        """
        if self._found.options.range_filter == "off":
            return np.full(len(item.label), np.nan, np.float32)
        return self._found.probabilities(item)

    @property
    def provenance(self) -> dict[str, Any]:
        """Settings that decide what is shown of places and species."""
        options = self._found.options
        values = {key: getattr(options, key) for key in OPTIONS if key != "model_base_path"}
        return {key: value for key, value in values.items() if value is not None}
