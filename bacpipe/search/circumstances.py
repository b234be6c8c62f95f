"""Where and when recordings were made, as searches filter and show it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import PurePosixPath

from bacpipe.audio.timestamps import recording_start
from bacpipe.store.loader import Loader


@dataclass(frozen=True)
class Circumstances:
    """Of one recording.

    Attributes
    ----------
    site : str
        Its folder.
    start : datetime or None
        When it begins; None if nothing tells.
    columns : mapping of str to str
        What else is known of the site.
    """

    site: str
    start: datetime | None
    columns: Mapping[str, str]


class CircumstancesOf:
    """Looks up recordings, each once.

    Parameters
    ----------
    loader : Loader
        Results of these recordings.
    """

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self.of = cache(self._of)

    def _of(self, recording: str) -> Circumstances:
        site = PurePosixPath(recording).parent.as_posix()
        return Circumstances(site, recording_start(self._loader.audio_dir / recording), {})
