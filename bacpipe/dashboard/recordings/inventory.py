"""The recordings behind the results: when they were made, and what became of them."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bacpipe.audio.timestamps import get_dt_filename
from bacpipe.dashboard.shared.labels import clock_times
from bacpipe.dashboard.shared.results import ModelResults
from bacpipe.errors import BacpipeError
from bacpipe.models.zoo import CARDS
from bacpipe.store.entries import FailedEntry, FinishedEntry
from bacpipe.store.journal import JournalContent

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Recordings:
    """Recordings of a data set.

    Attributes
    ----------
    table : pandas.DataFrame
        As `bacpipe.dashboard.recordings.inventory.recordings_of` makes it, with start (datetime64[us], by the
        recorder's clock; NaT where neither the file nor its name tells).
    failures : pandas.DataFrame
        recording, model, reason.
    totals : dict of Totals
        By model.
    """

    table: pd.DataFrame
    failures: pd.DataFrame
    totals: dict[str, Totals]

    @property
    def without_time(self) -> int:
        """Recordings of which nobody knows when they were made."""
        return int(self.table["start"].isna().sum())

    def matching(self, search: str, only: str) -> pd.DataFrame:
        """Rows of the table whose name holds a text, upper and lower case alike.

        Parameters
        ----------
        search : str
            The text; '' for all.
        only : {'all', 'failed', 'no time'}
            Which recordings.
        """
        table = self.table
        chosen = np.ones(len(table), bool)
        if only == "failed":
            chosen = (table["failed"] > 0).to_numpy()
        elif only == "no time":
            chosen = table["start"].isna().to_numpy()
        if search:
            chosen &= table["recording"].str.contains(search, case=False, regex=False).to_numpy()
        return table[chosen]


@lru_cache(maxsize=4)
def read_recordings(models: tuple[ModelResults, ...]) -> Recordings:
    """Bring together what the results of several models say of the recordings."""
    journals: dict[str, JournalContent] = {
        results.name: results.loader.embedding_set.content
        for results in models
        if results.loader.embedding_set is not None
    }
    table = recordings_of(journals)
    table["start"] = _starts(models, table["recording"].tolist())
    totals = {name: totals_of(content) for name, content in journals.items()}
    return Recordings(table, failures_of(journals), totals)


def _starts(models: tuple[ModelResults, ...], names: list[str]) -> np.ndarray:
    """When each recording begins; what the windows' labels hold needs no file to be opened."""
    known: dict[str, np.datetime64] = {}
    for results in models:
        counts = results.windows.counts
        if all(name in known for name in results.recordings):
            continue
        try:
            clock = clock_times(results)
        except BacpipeError:
            continue  # names tell, too
        filled = np.flatnonzero(counts)
        first = (np.cumsum(counts) - counts)[filled]
        begin = clock[first] - np.rint(results.start[first] * 1e6).astype("timedelta64[us]")
        for i, time in zip(filled, begin, strict=True):
            known.setdefault(results.recordings[i], time)
    return np.array([known.get(name, _by_name(name)) for name in names], "datetime64[us]")


def _by_name(name: str) -> np.datetime64:
    time = get_dt_filename(name)
    return np.datetime64("NaT" if time is None else time.replace(tzinfo=None), "us")


# FOLDED bacpipe/store/inventory.py: What the journals of several models say of the recordings: lengths, failures, sizes.

if TYPE_CHECKING:
    import pandas as pd

_UNITS = {"hour": 3600, "day": 86_400, "week": 7 * 86_400}
# Weeks begin on Mondays, the epoch on a Thursday.
_SHIFT = {"hour": 0, "day": 0, "week": 3 * 86_400}
_MOST_BLOCKS = 400


def recordings_of(journals: Mapping[str, JournalContent]) -> pd.DataFrame:
    """Table of the recordings that are in the journal of any model.

    Parameters
    ----------
    journals : mapping of str to JournalContent
        By model.

    Returns
    -------
    pandas.DataFrame
        Sorted by name.  recording (posix path relative to the audio folder), folder (of the
        recording; '' for the audio folder itself), duration (seconds; NaN where no model has
        finished it), size (bytes; NaN likewise), models (number that are done), failed (number
        that failed).
    """
    import pandas as pd

    found: dict[str, list[float]] = {}
    for content in journals.values():
        for name, entry in content.recordings.items():
            if isinstance(entry, FinishedEntry) and entry.is_done:
                row = found.setdefault(name, [np.nan, np.nan, 0, 0])
                row[0] = entry.duration
                row[1] = row[1] if entry.size is None else entry.size
                row[2] += 1
            elif isinstance(entry, FailedEntry):
                found.setdefault(name, [np.nan, np.nan, 0, 0])[3] += 1
    names = sorted(found)
    values = np.array([found[name] for name in names], float).reshape(-1, 4)
    parents = [str(PurePosixPath(name).parent) for name in names]
    return pd.DataFrame(
        {
            "recording": np.array(names, object),
            "folder": np.array(["" if p == "." else p for p in parents], object),
            "duration": values[:, 0],
            "size": values[:, 1],
            "models": values[:, 2].astype(np.int64),
            "failed": values[:, 3].astype(np.int64),
        }
    )


def failures_of(journals: Mapping[str, JournalContent]) -> pd.DataFrame:
    """Table of what failed: recording, model and reason, sorted by recording."""
    import pandas as pd

    rows = [
        (name, model, entry.reason)
        for model, content in journals.items()
        for name, entry in content.recordings.items()
        if isinstance(entry, FailedEntry)
    ]
    return pd.DataFrame(sorted(rows), columns=["recording", "model", "reason"])


class Totals(NamedTuple):
    """Sums over the recordings of a model that are done.

    Attributes
    ----------
    recordings, windows : int
    seconds : float
        Of recordings.
    bytes : int
        Of embeddings and predictions on disk.
    """

    recordings: int
    windows: int
    seconds: float
    bytes: int


def totals_of(content: JournalContent) -> Totals:
    """Sums over the recordings that are done."""
    entries = list(content.done.values())
    stored = [entry.predictions for entry in entries if entry.predictions is not None]
    return Totals(
        len(entries),
        sum(entry.windows for entry in entries),
        float(sum(entry.duration for entry in entries)),
        sum(entry.embeddings.bytes for entry in entries) + sum(item.bytes for item in stored),
    )


def sites_of(folders: np.ndarray, most: int) -> tuple[np.ndarray, list[str]]:
    """Group recordings by folder, coarsely enough for a figure.

    Parameters
    ----------
    folders : np.ndarray of object, shape (n,)
        Folder of each recording, as in `recordings_of`.
    most : int
        Groups at most.

    Returns
    -------
    code : np.ndarray, int64, shape (n,)
        Index into `names`.
    names : list of str
        Folders, or their first parts if there are too many folders; beyond `most` of those, the
        ones with the fewest recordings are together in the last group.
    """
    names, code = np.unique(folders.astype(str), return_inverse=True)
    if len(names) > most:
        first = np.array([name.split("/", 1)[0] for name in names])[code]
        names, code = np.unique(first, return_inverse=True)
    if len(names) <= most:
        return code.astype(np.int64), names.tolist()
    by_size = np.argsort(-np.bincount(code), kind="stable")
    kept = np.sort(by_size[: most - 1])
    place = np.full(len(names), most - 1, np.int64)
    place[kept] = np.arange(most - 1)
    return place[code], [*names[kept].tolist(), f"{len(names) - most + 1} other folders"]


def recorded_time(
    start: np.ndarray, duration: np.ndarray, group: np.ndarray, unit: str | None = None
) -> tuple[pd.DataFrame, str]:
    """Add up how much was recorded per hour, day or week.

    Parameters
    ----------
    start : np.ndarray, datetime64, shape (n,)
        When each recording begins; those with NaT are left out.
    duration : np.ndarray, float, shape (n,)
        Seconds; NaN counts as nothing.
    group : np.ndarray, int, shape (n,)
        Site of each recording.
    unit : {'hour', 'day', 'week'}, optional
        Length of the blocks; the shortest that gives at most 400 from the first to the last
        recording unless given.

    Returns
    -------
    table : pandas.DataFrame
        group, begin and end (datetime64[s]), seconds (recorded) and recordings of every block in
        which something was recorded, sorted.
    unit : str
        Length of the blocks.
    """
    import pandas as pd

    known = ~np.isnat(start)
    begin = start[known].astype("datetime64[us]").astype(np.int64) / 1e6
    length = np.nan_to_num(duration[known])
    end = begin + length
    if unit is None:
        span = end.max(initial=-np.inf) - begin.min(initial=np.inf)
        unit = next((u for u, size in _UNITS.items() if span / size <= _MOST_BLOCKS), "week")
    size, shift = _UNITS[unit], _SHIFT[unit]
    first = np.floor((begin + shift) / size).astype(np.int64)
    last = np.maximum(np.ceil((end + shift) / size).astype(np.int64) - 1, first)
    count = last - first + 1
    row = np.repeat(np.arange(len(first)), count)
    block = first[row] + np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    low = block * size - shift
    inside = np.minimum(end[row], low + size) - np.maximum(begin[row], low)
    table = pd.DataFrame({"group": group[known][row], "block": low, "seconds": inside})
    sums = table.groupby(["group", "block"])["seconds"].agg(["sum", "size"]).reset_index()
    return pd.DataFrame(
        {
            "group": sums["group"],
            "begin": sums["block"].to_numpy("datetime64[s]"),
            "end": (sums["block"] + size).to_numpy("datetime64[s]"),
            "seconds": sums["sum"].astype(float),
            "recordings": sums["size"].astype(np.int64),
        }
    ), unit


# FOLDED bacpipe/dashboard/data/provenance.py: What the results of each model were made with, for methods sections.

if TYPE_CHECKING:
    import pandas as pd


def provenance_of(results: ModelResults, totals: Totals) -> dict[str, str]:
    """Settings, versions, licence and citation of a model's results, each by its title."""
    header = results.windows.header
    identity: dict[str, Any] = header.get("identity", {})
    made: dict[str, Any] = header.get("provenance", {})
    found = {
        "Recordings": f"{totals.recordings:,}",
        "Windows": f"{totals.windows:,}",
        **_windows(identity, results),
        **_predictions(results),
        "Checkpoint": _checkpoint(identity.get("checkpoint")),
        "Computed with": ", ".join(
            f"{'bacpipe' if key == 'version' else key} {value}" for key, value in made.items()
        ),
        "Results": results.loader.get_embedding_dir().name,
        "Maps": ", ".join(
            name + (" (older than the embeddings)" if results.map_is_stale(name) else "")
            for name in results.maps
        ),
    }
    card = CARDS.get(results.name)
    if card is not None:
        found |= {
            "Made for": card.scope.sounds,
            "Trained on": card.trained_on,
            "Licence": card.licence + (" – no commercial use" if card.non_commercial else ""),
            "Cite": card.citation,
            "More": card.homepage,
        }
    return {title: text for title, text in found.items() if text}


def provenance_table(models: Sequence[ModelResults], totals: dict[str, Totals]) -> pd.DataFrame:
    """All of it as a table: a row per model."""
    import pandas as pd

    rows = [{"Model": part.name, **provenance_of(part, totals[part.name])} for part in models]
    return pd.DataFrame(rows).fillna("")


def provenance_html(name: str, found: dict[str, str], *, opened: bool) -> str:
    """A model's settings as HTML that unfolds; everything in it is text."""
    rows = "".join(
        f"<tr><th>{html.escape(title)}</th><td>{html.escape(text)}</td></tr>"
        for title, text in found.items()
    )
    short = [found[key] for key in ("Window", "Licence") if key in found]
    return (
        f'<details class="bp-model"{" open" if opened else ""}><summary><b>{html.escape(name)}</b> '
        f"<span>{html.escape(' · '.join(short))}</span></summary><table>{rows}</table></details>"
    )


def _windows(identity: dict[str, Any], results: ModelResults) -> dict[str, str]:
    rate, window = results.window_rate, identity.get("window")
    if not rate or not window:
        return {"Window": "not recorded: made with an older bacpipe"}
    speed = identity.get("speed") or 1
    length = window / rate * speed
    hop = identity.get("hop")
    found = {
        "Window": f"{length:.3g} s at {rate / 1000:g} kHz",
        "Hop": f"{hop:g} s" if hop else f"{length:.3g} s (windows follow one another)",
        "Last window": f"filled up: {identity.get('padding')}",
    }
    if speed != 1:
        found["Time expansion"] = f"played at {speed:g} times the speed"
    if identity.get("only_annotated"):
        found["Windows of"] = "annotated parts only"
    return found


def _checkpoint(found: Any) -> str:
    if not isinstance(found, dict):
        return str(found or "")  # a model of the user's own has no files that bacpipe knows
    return "; ".join(f"{name} (SHA-256 {str(digest)[:12]}…)" for name, digest in found.items())


def _predictions(results: ModelResults) -> dict[str, str]:
    made = (entry.predictions for entry in results.windows.entries.values())
    first = next((item for item in made if item is not None), None)
    if first is None or first.threshold is None:
        return {}
    return {"Predictions": f"scores from {first.threshold:g}, at most {first.top} per window"}
