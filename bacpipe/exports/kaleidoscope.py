"""Detections as a table of Kaleidoscope (Wildlife Acoustics), with the columns of its clusters."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from bacpipe.audio.remote import shown
from bacpipe.exports.chosen import Chosen
from bacpipe.exports.raven import plain_label
from bacpipe.store.detections import Detections
from bacpipe.store.layout import kaleidoscope_name

if TYPE_CHECKING:
    import pandas as pd

# A star marks columns that the program fills; people write theirs into MANUAL ID.
_COLUMNS = (
    "INDIR", "FOLDER", "IN FILE", "CHANNEL", "OFFSET", "DURATION", "DATE", "TIME", "HOUR",
    "DATE-12", "TIME-12", "HOUR-12", "TOP1MATCH*", "SCORE", "SCIENTIFIC NAME", "MANUAL ID",
)  # fmt: skip


def write_kaleidoscope(chosen: Chosen, folder: Path) -> list[Path]:
    """Write one table over all recordings.

    DATE-12, TIME-12 and HOUR-12 are those of twelve hours earlier, by which a night is one day.
    """
    path = folder / kaleidoscope_name(str(chosen.loader.model_name))
    chosen.write_csv(path, _pieces(chosen))
    return [path]


def _pieces(chosen: Chosen) -> Iterator[pd.DataFrame]:
    import pandas as pd

    yield pd.DataFrame(columns=_COLUMNS)
    for item in chosen.events():
        yield _piece(chosen, item)


def _piece(chosen: Chosen, item: Detections) -> pd.DataFrame:
    import pandas as pd

    channels = chosen.loader.window_channels(item.recording)
    path, place = PurePosixPath(item.recording), chosen.where.of(item.recording)
    moments = [place.after(seconds) for seconds in item.start.tolist()]
    times = [None if moment is None else moment.replace(tzinfo=None) for moment in moments]
    cells: dict[str, object] = {
        "INDIR": shown(chosen.loader.audio_dir.resolve()),
        "FOLDER": "" if path.parent == PurePosixPath() else str(path.parent),
        "IN FILE": path.name,
        "CHANNEL": 0 if channels is None else channels[item.window] - 1,
        "OFFSET": item.start.round(6),
        "DURATION": (item.end - item.start).round(6),
        "TOP1MATCH*": [plain_label(label) for label in item.label],
        "SCORE": item.score.astype(np.float64).round(4),
        "SCIENTIFIC NAME": [chosen.classes.of(label).scientific_name for label in item.label],
        "MANUAL ID": "",
    }
    for ending, back in (("", 0), ("-12", 12)):
        shifted = [None if time is None else time - timedelta(hours=back) for time in times]
        for name, form in (("DATE", "%Y-%m-%d"), ("TIME", "%H:%M:%S"), ("HOUR", "%H")):
            cells[name + ending] = ["" if t is None else t.strftime(form) for t in shifted]
    return pd.DataFrame(cells, index=range(len(item.start)))[list(_COLUMNS)]
