"""How often each species was found, where and when, and how long was listened.

Listening counts every moment once, however windows overlap, and only windows that a classifier was
given.  Neighbouring or overlapping windows of a class are one detection.  Recordings and detections
are added up one after the other, so that memory follows the table and not the survey.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from bacpipe.audio.remote import shown
from bacpipe.errors import ResultsNotFoundError, SettingsError, counted
from bacpipe.exports.chosen import Chosen, choose
from bacpipe.store.detections import Intervals, merge_intervals
from bacpipe.store.loader import Loader
from bacpipe.store.tables import Block, blocks_of
from bacpipe.store.whereabouts import Place, clock_times

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

_TIMES = {"date": "%Y-%m-%d", "week": "%G-W%V", "month": "%Y-%m", "year": "%Y", "hour": "%H"}
_EFFORT = {"windows_listened": "sum", "hours_listened": "sum"}
_DETECTED = {"detections": "sum", "windows": "sum", "best_score": "max"}
_WAITING = 2**17  # rows that wait to be added up
_MOST_OCCASIONS = 10_000
_Unit = Literal["h", "D"]
_HOUR = np.timedelta64(1, "h")
_EPOCH = np.datetime64(0, "us")


def survey_table(
    loader: Loader | None,
    by: Sequence[str] | str = ("site", "date"),
    min_score: float | None = None,
    **kwargs: object,
) -> pd.DataFrame:
    """Detections and effort of every class in every group.

    Parameters
    ----------
    loader : Loader or None
        Results of a model with a classifier; None for those that ``audio_dir`` and ``model`` name.
    by : str or sequence of str
        What makes a group, also as ``"site, date"``: any of site, recording, date, week (ISO
        8601), month, year, hour (of the day), and further columns of ``sites.csv`` such as habitat.
    min_score : float, optional
        Lowest score that counts; all stored detections unless given.
    **kwargs
        Any key of the configuration; event_gap joins detections into events, and
        range_filter and species_list decide which count.

    Returns
    -------
    pandas.DataFrame
        A row for each class found anywhere, or named by ``species_list``, in each group in which
        anything was listened to, so that zeros are there; where there is no such class, a row
        without a name for each group.  Columns: those of `by`; common_name, scientific_name;
        ``detections`` (windows of a class that overlap or follow one another within ``event_gap``
        count once);
        ``windows`` (with the class); ``best_score`` (NaN for none); ``windows_listened`` and
        ``hours_listened``, the effort of the group.  Times are those of the site's clock; they are
        empty for recordings of which the time is not known.

    Raises
    ------
    ResultsNotFoundError
        If there are no predictions.
    SettingsError
        If `by` or a setting is impossible.

    Examples
    --------
    >>> import bacpipe
    >>> loader = bacpipe.Loader("recordings", "birdnet")
    >>> table = bacpipe.survey_table(loader, by="site", min_score=0.9)
    >>> table.columns[:4].to_list()
    ['site', 'common_name', 'scientific_name', 'detections']
    """
    if min_score is not None:
        kwargs["classifier_threshold"] = min_score
    return survey_of(choose(loader, kwargs), by)


def survey_of(chosen: Chosen, by: Sequence[str] | str) -> pd.DataFrame:
    """Do what `survey_table` does, of chosen detections."""
    import pandas as pd

    named = by.split(",") if isinstance(by, str) else by
    keys = [str(key).strip() for key in named] if isinstance(named, Iterable) else []
    _check_keys(chosen, keys)
    unit: _Unit | None = "h" if "hour" in keys else "D" if {*keys} & {*_TIMES} else None
    listened = (_keyed(chosen, keys, rows) for rows in _effort(chosen, unit))
    effort = _added_up(listened, keys, _EFFORT)
    on = [*keys, "common_name"]
    heard = (_keyed(chosen, keys, rows) for rows in _detected(chosen, unit))
    detected = _added_up(heard, on, _DETECTED)
    # What was asked for and not found is zeros; with nothing at all, the effort stays.
    names = sorted({*detected["common_name"], *chosen.where.listed_species}) or [""]
    rows = effort.merge(pd.DataFrame({"common_name": np.array(names, object)}), how="cross")
    table = rows.merge(detected, how="left", on=on).sort_values(on, ignore_index=True)
    for count in ("detections", "windows"):
        table[count] = table[count].fillna(0).astype(np.int64)
    listed = {name: chosen.classes.of(name).scientific_name for name in names}
    table["scientific_name"] = table["common_name"].map(listed).astype(object)
    columns = ("detections", "windows", "best_score", "windows_listened", "hours_listened")
    table = table[[*on, "scientific_name", *columns]]
    table.attrs["bacpipe"] = chosen.provenance
    return table


def detection_history(
    loader: Loader | None,
    species: str,
    occasion: str = "1D",
    min_score: float | None = None,
    *,
    min_hours: float = 0.0,
    **kwargs: object,
) -> pd.DataFrame:
    """Where and when a species was found, for models of occupancy.

    Parameters
    ----------
    loader : Loader or None
        Results of a model with a classifier; None for those that ``audio_dir`` and ``model`` name.
    species : str
        Common or scientific name or code of a class of the model.
    occasion : str
        Length of an occasion, such as '1D', '6h' or '7D'; the first begins at midnight.
    min_score : float, optional
        Lowest score of a detection; all stored ones count unless given.
    min_hours : float
        Occasions with less listening count as not recorded.
    **kwargs
        Any key of the configuration; range_filter and species_list decide which detections
        count.

    Returns
    -------
    pandas.DataFrame
        Rows are sites, columns the beginnings of those occasions in which any site was recorded
        (clock of the site), so that the years between two seasons have none.  1: found; 0:
        listened to, not found; NA: nothing recorded at this site.
        ``attrs['hours_listened']`` is the effort, lists of the same shape.

    Raises
    ------
    ResultsNotFoundError
        If there are no predictions, or no recording tells when it was made.
    SettingsError
        If the model does not know the species, or `occasion` is no length of time.

    Examples
    --------
    >>> import bacpipe
    >>> loader = bacpipe.Loader("recordings", "birdnet")
    >>> history = bacpipe.detection_history(loader, "Field Sparrow", min_score=0.9)
    >>> history.loc["SITE-A"].to_list()
    [1, <NA>]
    """
    if min_score is not None:
        kwargs["classifier_threshold"] = min_score
    chosen = choose(loader, kwargs)
    classes = classes_of(chosen, [species])
    whole = histories_of(chosen, occasion, min_hours=min_hours, classes=classes)
    history = whole.of(species)
    history.attrs["bacpipe"] = {**chosen.provenance, "species": sorted(classes[species])}
    history.attrs["hours_listened"] = whole.hours.round(6).tolist()
    return history


class Histories(NamedTuple):
    """Where and when classes were found.

    Attributes
    ----------
    sites : list of str
        Rows.
    occasions : np.ndarray of datetime64[us]
        Beginnings of the columns.
    hours : np.ndarray, float64, shape (sites, occasions)
        Listened to.
    listened : np.ndarray, bool, shape (sites, occasions)
        Whether that is enough.
    present : dict of np.ndarray, bool, shape (sites, occasions)
        Whether each class was found.
    """

    sites: list[str]
    occasions: np.ndarray
    hours: np.ndarray
    listened: np.ndarray
    present: dict[str, np.ndarray]

    def of(self, name: str) -> pd.DataFrame:
        """The history of a class, as `detection_history` returns it."""
        nothing = np.zeros(self.hours.shape, bool)
        values = np.where(self.listened, self.present.get(name, nothing), np.nan)
        return self.table(values).astype("Int8")

    def table(self, values: np.ndarray) -> pd.DataFrame:
        """Values of the shape (sites, occasions) as a table."""
        import pandas as pd

        columns = pd.DatetimeIndex(self.occasions, name="occasion")
        return pd.DataFrame(values, pd.Index(self.sites, name="site"), columns)


def histories_of(
    chosen: Chosen,
    occasion: str,
    *,
    min_hours: float = 0.0,
    classes: Mapping[str, set[str]] | None = None,
) -> Histories:
    """Where and when classes were found, in one pass over the detections.

    Parameters
    ----------
    chosen : Chosen
        The detections.
    occasion, min_hours
        As for `detection_history`.
    classes : mapping of str to set of str, optional
        Names of the model's classes that count as one; by default each that was found is itself.
    """
    length, audio_dir = _occasion(occasion), chosen.loader.audio_dir
    min_hours = _hours(min_hours)
    # Windows are many: the stretches that they cover stand for them.
    recordings = [item._replace(starts=item.begin) for item in _listened(chosen)]
    dated = [item for item in recordings if not np.isnat(item.place.local)]
    if not dated:
        raise ResultsNotFoundError(
            f"{shown(audio_dir)}: no recording here tells when it was made, so there are no "
            f"occasions; expected a time in the recorder's metadata or in the name, such as "
            f"20240501_053000.wav."
        )
    if unknown := len(recordings) - len(dated):
        logger.warning(
            "%s: the history leaves out %s that tell no time.",
            shown(audio_dir),
            counted(unknown, "recording"),
        )
    first = min(item.begin.min() for item in dated).astype("datetime64[D]").astype(_EPOCH.dtype)
    parts = [
        (item.place.site, i, part) for item in dated for i, part in _split(item, first, length)
    ]
    numbers = np.unique(np.array([i for _, i, _ in parts], np.int64))
    if len(numbers) > _MOST_OCCASIONS:
        raise SettingsError(
            f"occasion={occasion!r} makes {len(numbers):,} occasions of this survey; expected at "
            f"most {_MOST_OCCASIONS:,}, so choose longer ones."
        )
    sites = sorted({item.place.site for item in dated})
    row = {site: i for i, site in enumerate(sites)}
    hours = np.zeros((len(sites), len(numbers)))
    for site, i, part in parts:
        hours[row[site], np.searchsorted(numbers, i)] += part
    present: dict[str, np.ndarray] = {name: np.zeros(hours.shape, bool) for name in classes or ()}
    named = {label: name for name, labels in (classes or {}).items() for label in labels}
    for block in blocks_of(chosen.windows()):
        places = [chosen.where.of(name) for name in block.names.tolist()]
        local = clock_times(places, block.recording, block.start)
        rows = np.array([row.get(place.site, -1) for place in places])
        when = ~np.isnat(local)
        recording, label, begin = block.recording[when], block.label[when], local[when]
        site, column = rows[recording], np.searchsorted(numbers, (begin - first) // length)
        for i in np.unique(label).tolist():
            known_as = str(block.classes[i])
            name = known_as if classes is None else named.get(known_as)
            if name is not None:
                cells = present.setdefault(name, np.zeros(hours.shape, bool))
                cells[site[label == i], column[label == i]] = True
    occasions = first + numbers * length
    return Histories(sites, occasions, hours, (hours > 0) & (hours >= min_hours), present)


def _hours(value: object) -> float:
    try:
        hours = float(str(value))
    except ValueError:
        hours = -1.0
    if not 0 <= hours < np.inf:
        raise SettingsError(f"min_hours={value!r} is not possible: expected hours from 0.")
    return hours


def _occasion(text: str) -> np.timedelta64:
    import pandas as pd

    try:
        seconds = float(pd.Timedelta(text).total_seconds())
    except ValueError:
        seconds = 0.0
    if not seconds >= 60:  # NaN neither
        raise SettingsError(
            f"occasion={text!r} is not possible: expected a length of time of at least a minute, "
            f"such as '1D', '6h' or '7D'."
        )
    return np.timedelta64(round(seconds * 1e6), "us")


def classes_of(chosen: Chosen, species: Sequence[str]) -> dict[str, set[str]]:
    """Names of the classes that each name of a species, or code, means.

    Raises
    ------
    SettingsError
        If the model knows none of that name.
    """
    if wrong := [name for name in species if not isinstance(name, str)]:
        raise SettingsError(f"species={wrong[0]!r} is no name; expected that of a class.")
    known = _by_name(chosen, chosen.classes.names)
    if {name.strip().casefold() for name in species} - {*known}:
        # Own models have no list of classes; what they have found is known.
        stored = chosen.loader.stored_detections()
        known |= _by_name(chosen, {str(label) for item in stored for label in set(item.label)})
    classes: dict[str, set[str]] = {}
    for name in species:
        if not name.strip():
            raise SettingsError("species is empty; expected the name of a class.")
        plain = name.strip().casefold()
        if plain not in known:
            close = difflib.get_close_matches(plain, known, n=3, cutoff=0.6)
            meant = [min(known[key]) for key in close]
            hint = f"did you mean {', '.join(meant)}?" if meant else "expected the name of a class."
            raise SettingsError(
                f"species={name!r} is no class of {chosen.loader.model_name}; {hint}"
            )
        classes[name] = known[plain]
    return classes


def _by_name(chosen: Chosen, labels: Iterable[str]) -> dict[str, set[str]]:
    """Classes by each of their names in small letters."""
    known: dict[str, set[str]] = {}
    for label in labels:
        for name in {label, *chosen.classes.of(label)} - {""}:
            known.setdefault(name.casefold(), set()).add(label)
    return known


# --- Effort and detections ----------------------------------------------------------------------


class _Listened(NamedTuple):
    """What was listened to of a recording.

    `starts` are the beginnings of the windows, `begin` and `end` those of the stretches that they
    cover together: datetime64[us], NaT if nothing tells; `hours` is the length of each stretch.
    """

    recording: str
    place: Place
    starts: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    hours: np.ndarray


def _listened(chosen: Chosen) -> Iterator[_Listened]:
    """What was listened to, recording by recording, each moment once."""
    loader = chosen.loader
    for name, entry in loader.entries.items():
        if entry.predictions is None:
            continue
        heard = loader.heard_windows(name)
        if not heard.any():
            continue
        place, (start, end) = chosen.where.of(name), loader.window_times(name)
        start, end = start[heard], end[heard]
        merged, _ = merge_intervals(Intervals(start, end, np.zeros(len(start), np.int64)))
        first, last = merged.start, merged.end
        for change, _ in place.clock_changes(float(last.max())):
            first, last = _cut(first, last, change)
        starts, begin = (
            clock_times([place], np.zeros(len(part), np.int64), part) for part in (start, first)
        )
        stop = begin + _seconds(last - first)
        yield _Listened(name, place, starts, begin, stop, (last - first) / 3600)


def _cut(begin: np.ndarray, end: np.ndarray, at: float) -> tuple[np.ndarray, np.ndarray]:
    """Stretches, of which those that go on over a moment are two."""
    over = (begin < at) & (at < end)
    cut = np.full(int(over.sum()), at)
    return np.append(begin, cut), np.append(np.where(over, at, end), end[over])


def _seconds(values: np.ndarray) -> np.ndarray:
    return np.rint(values * 1e6).astype("timedelta64[us]")


def _floor(times: np.ndarray, unit: _Unit) -> np.ndarray:
    """Beginning of the hour or day, datetime64[us]."""
    return times.astype(f"datetime64[{unit}]").astype("datetime64[us]")


def _split(
    item: _Listened, first: np.datetime64, length: np.timedelta64
) -> Iterator[tuple[int, float]]:
    """Number of each span of a length that a recording reaches into, and hours within it."""
    for begin, end in zip(item.begin, item.end, strict=True):
        for i in range(int((begin - first) // length), int((end - first) // length) + 1):
            start = first + i * length
            inside = min(end, start + length) - max(begin, start)
            if inside > np.timedelta64(0, "us"):
                yield i, float(inside / _HOUR)


def _added_up(
    pieces: Iterable[pd.DataFrame], keys: list[str], how: Mapping[str, str]
) -> pd.DataFrame:
    """Rows of at least one table, added up by their keys; little more is held than the sum."""
    import pandas as pd

    def added() -> pd.DataFrame:
        return pd.concat(waiting, ignore_index=True).groupby(keys, as_index=False).agg(how)

    waiting: list[pd.DataFrame] = []
    size, most = 0, _WAITING
    for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size > most:
            waiting = [added()]
            size = len(waiting[0])
            most = max(_WAITING, 2 * size)  # or a large sum would be made anew for each piece
    return added()


def _effort(chosen: Chosen, unit: _Unit | None) -> Iterator[pd.DataFrame]:
    """Windows and hours that were listened to, by recording and unit of time."""
    rows: list[tuple[str, np.datetime64, int, float]] = []
    for item in _listened(chosen):
        if len(rows) >= _WAITING:
            yield _effort_table(rows)
            rows = []
        if unit is None or np.isnat(item.place.local):
            nowhen = np.datetime64("NaT", "us")
            rows.append((item.recording, nowhen, len(item.starts), float(item.hours.sum())))
            continue
        times, counts = np.unique(_floor(item.starts, unit), return_counts=True)
        rows += [
            (item.recording, time, int(count), 0.0)
            for time, count in zip(times, counts, strict=True)
        ]
        length = np.timedelta64(1, unit).astype("timedelta64[us]")
        rows += [
            (item.recording, _EPOCH + i * length, 0, hours)
            for i, hours in _split(item, _EPOCH, length)
        ]
    yield _effort_table(rows)


def _effort_table(rows: list[tuple[str, np.datetime64, int, float]]) -> pd.DataFrame:
    import pandas as pd

    names = ["recording", "time", "windows_listened", "hours_listened"]
    columns = list(zip(*rows, strict=True)) or [()] * 4
    kinds = [np.dtype(kind) for kind in ("O", "datetime64[us]", "i8", "f8")]
    arrays = [np.array(column, kind) for column, kind in zip(columns, kinds, strict=True)]
    return pd.DataFrame(dict(zip(names, arrays, strict=True)))


def _detected(chosen: Chosen, unit: _Unit | None) -> Iterator[pd.DataFrame]:
    """Detections and windows of each class, by recording and unit of time; at least one table."""
    import pandas as pd

    rows = None
    for block in blocks_of(chosen.windows()):
        rows = _counted(chosen, block, unit)
        yield rows
    if rows is not None:
        return
    kinds = {"recording": object, "time": "datetime64[us]", "common_name": object,
             "detections": np.int64, "windows": np.int64, "best_score": np.float32}  # fmt: skip
    yield pd.DataFrame({name: np.zeros(0, kind) for name, kind in kinds.items()})


def _counted(chosen: Chosen, block: Block, unit: _Unit | None) -> pd.DataFrame:
    import pyarrow as pa

    label = block.recording.astype(np.int64) * len(block.classes) + block.label
    _, event = merge_intervals(Intervals(block.start, block.end, label), chosen.gap or 0.0)
    order = np.lexsort((block.start, event))
    begins = np.zeros(len(event), np.int64)
    begins[order] = np.diff(event[order], prepend=-1) > 0
    time = np.full(len(event), np.datetime64("NaT", "us"))
    if unit is not None:
        places = [chosen.where.of(name) for name in block.names.tolist()]
        time = _floor(clock_times(places, block.recording, block.start), unit)
    columns = {"recording": block.recording, "time": time, "label": block.label,
               "begins": begins, "score": block.score}  # fmt: skip
    table = pa.table(columns).group_by(["recording", "time", "label"], use_threads=False)
    wanted = [("begins", "sum"), ("score", "count"), ("score", "max")]
    frame = table.aggregate(wanted).to_pandas()
    names = {"begins_sum": "detections", "score_count": "windows", "score_max": "best_score"}
    return frame.rename(columns=names).assign(
        recording=block.names[frame["recording"]], common_name=block.classes[frame["label"]]
    )


def _check_keys(chosen: Chosen, keys: Sequence[str]) -> None:
    allowed = ["site", "recording", *_TIMES, *chosen.where.columns]
    if not keys or {*keys} - {*allowed} or len({*keys}) < len(keys):
        raise SettingsError(
            f"by={keys!r} is not possible: expected one or several of {', '.join(allowed)}, "
            f"each once."
        )


def _keyed(chosen: Chosen, keys: Sequence[str], rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with the columns that make a group, in place of recording and time."""
    recordings, times = rows["recording"].unique().tolist(), rows["time"]
    places = {name: chosen.where.of(name) for name in recordings}
    added: dict[str, pd.Series] = {}
    for key in keys:
        if key in _TIMES:
            texts = times.dt.strftime(_TIMES[key])
            added[key] = texts.where(times.notna(), "").astype(object)
        elif key != "recording":
            values = {
                name: place.site if key == "site" else place.columns.get(key, "")
                for name, place in places.items()
            }
            added[key] = rows["recording"].map(values).astype(object)
    kept = rows.drop(columns=["time", "label"], errors="ignore")
    return (
        kept.assign(**added)
        if "recording" in keys
        else kept.assign(**added).drop(columns="recording")
    )
