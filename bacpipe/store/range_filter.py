"""Which detections are of species that can be there, and the tables of places beside the results.

Nothing stored is changed: ``range_filter``, ``range_threshold`` and ``species_list`` act on what is
read.  Classes without a range stay whatever the threshold.
"""

from __future__ import annotations

import difflib
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bacpipe.audio.remote import shown
from bacpipe.errors import CheckpointError, SettingsError, counted
from bacpipe.options import Options
from bacpipe.places.clock import Clock, Start, say_once, tell_assumptions, week_of
from bacpipe.places.sites import Sites, find_sites_table, read_sites, sites_text
from bacpipe.places.species_range import (
    Place,
    RangeModel,
    range_model,
    range_model_is_here,
)
from bacpipe.store.class_list import ClassList
from bacpipe.store.data_set_folder import alone_with
from bacpipe.store.detections import Detections
from bacpipe.store.files import file_hash, write_table, write_text, writing
from bacpipe.store.layout import ResultPaths
from bacpipe.user_input import is_file, typed_path, typed_text

OPTIONS = (
    "sites", "latitude", "longitude", "time_zone", "range_filter", "range_threshold",
    "species_list", "model_base_path",
)  # fmt: skip
"""Options that decide what is read."""

_LEAST_STORED = 0.01  # so that the table stays small: some 250 of 6522 classes are more probable
_NAMED = 5  # species in a message
_AT_ONCE, _MOST_WAITING = 64, 2**17  # recordings, and detections, that wait for the range model
_METADATA_DIGITS = 2  # of positions that receivers found, in degrees: they wander


class RangeFilter:
    """Knows where and when recordings were made, and which detections are expected there.

    Parameters
    ----------
    paths : ResultPaths
        Recordings and results.
    options : Options
        Those of `OPTIONS` matter.
    classes : callable
        Returns the names of the model's classes, which a run may yet have to write.
    """

    def __init__(
        self, paths: ResultPaths, options: Options, classes: Callable[[], ClassList]
    ) -> None:
        self.paths, self.options, self._read_classes = paths, options, classes
        self.clock = Clock(paths.audio_dir, options, paths.sites_path)
        self._numbers: dict[object, int] = {}

    @cached_property
    def classes(self) -> ClassList:
        """Names of the model's classes."""
        return self._read_classes()

    @property
    def state(self) -> dict[str, object]:
        """What of settings and tables decides what is read, and when; empty without any."""
        used = used_places(self.options, self.paths.audio_dir)
        if not used and self.paths.sites_path.is_file():
            used["sites"] = file_hash(self.paths.sites_path)
        if self.hides:
            keys = ("range_filter", "range_threshold", "species_list")
            used |= {key: getattr(self.options, key) for key in keys}
        return used

    @cached_property
    def model(self) -> RangeModel | None:
        """The range model; None, which is said, where it is not to be had."""
        try:
            return range_model(Path(self.options.model_base_path))
        except CheckpointError as error:
            say_once(logging.WARNING, f"Without the range model, no species is marked: {error}")
            return None

    @property
    def hides(self) -> bool:
        """Whether some detections may be left out."""
        return self.options.range_filter == "hide" or self.options.species_list is not None

    @property
    def listed(self) -> list[str]:
        """Classes of the model that ``species_list`` means, as far as these are known."""
        chosen = self._chosen or ()
        return [label for label in self.classes.names if label in chosen]

    def probabilities(self, item: Detections) -> NDArray[np.float32]:
        """Probability of each detection's species where and when it was recorded, shape (n,).

        NaN where the place is not known or the class has no range.
        """
        row = self._row(self.clock.of(item.recording)) if len(item.label) else None
        if row is None or self.model is None:
            return np.full(len(item.label), np.nan, np.float32)
        numbers = np.array([self._number(label) for label in item.label.tolist()], np.int64)
        return np.where(numbers < 0, np.float32(np.nan), row[numbers])

    def prepare(self, recordings: Iterable[str]) -> None:
        """Ask the range model about many recordings at once, for `probabilities` of each."""
        places = map(_place, map(self.clock.of, recordings))
        asked = {place for place in places if place is not None}
        if asked and self.model is not None:
            self.model.prepare(sorted(asked, key=str))

    def _number(self, label: object) -> int:
        """Class of the range model that a label means; -1 for none."""
        if label not in self._numbers:
            assert self.model is not None
            name = self.classes.of(str(label)).scientific_name or str(label)
            self._numbers[label] = self.model.index.get(name, -1)
        return self._numbers[label]

    def _row(self, start: Start) -> NDArray[np.float32] | None:
        place = _place(start)
        return None if place is None or self.model is None else self.model.at(*place)

    def kept(self, items: Iterable[Detections]) -> Iterator[Detections]:
        """Those detections that are to be shown; what is left out is counted and said."""
        if not self.hides:
            yield from items
            return
        chosen, by_range = self._chosen, self.options.range_filter == "hide"
        hidden: dict[str, int] = {}
        exempt: set[str] = set()
        placed = 0
        for item in self._prepared(items) if by_range else items:
            shown = np.ones(len(item.label), dtype=bool)
            if chosen is not None:
                shown &= np.array([str(label) in chosen for label in item.label.tolist()], bool)
            if by_range:
                probability = self.probabilities(item)
                expected = ~(probability < np.float32(self.options.range_threshold))
                for label in item.label[shown & ~expected].tolist():
                    hidden[label] = hidden.get(label, 0) + 1
                if _place(self.clock.of(item.recording)) is not None:
                    placed += 1
                    exempt.update(item.label[shown & np.isnan(probability)].tolist())
                shown &= expected
            yield Detections(item.recording, *(column[shown] for column in item[1:]))
        if by_range:
            self._tell(hidden, exempt, placed)

    def _prepared(self, items: Iterable[Detections]) -> Iterator[Detections]:
        """The same, for some recordings of which at a time the range model is asked."""
        waiting: list[Detections] = []
        for item in items:
            waiting.append(item)
            if len(waiting) == _AT_ONCE or sum(len(i.label) for i in waiting) > _MOST_WAITING:
                self.prepare(each.recording for each in waiting)
                yield from waiting
                waiting = []
        self.prepare(item.recording for item in waiting)
        yield from waiting

    def _tell(self, hidden: Mapping[str, int], exempt: set[str], placed: int) -> None:
        """Say what the range left out, and what it could not judge."""
        if not placed:
            say_once(
                logging.WARNING,
                f"{shown(self.paths.audio_dir)}: range_filter=hide leaves out nothing, because it "
                f"is not known where these recordings were made; give latitude and longitude, or "
                f"a table of sites (bacpipe sites audio_dir=...).",
            )
            return
        parts = [
            f"{counted(sum(hidden.values()), 'detection')} of "
            f"{counted(len(hidden), 'species', 'species')} not expected there left out"
            f"{_some(hidden)}"
            if hidden
            else "no detections of species that are not expected there"
        ]
        if exempt:
            several = counted(len(exempt), "class", "classes")
            parts.append(f"{several} without a range stay{_some(sorted(exempt))}")
        say_once(logging.INFO, f"{shown(self.paths.audio_dir)}: {'; '.join(parts)}.")

    @cached_property
    def _chosen(self) -> frozenset[str] | None:
        """Labels that ``species_list`` means; None for all."""
        if self.options.species_list is None:
            return None
        wanted = read_species_list(self.options.species_list)
        known: dict[str, set[str]] = {}  # a species may have several classes
        for label, about in self.classes.names.items():
            for text in (label, *about):
                if text:
                    known.setdefault(text.casefold(), set()).add(label)
        if not known:  # an older run did not write them down
            return frozenset(part for name in wanted for part in _spellings(name))
        chosen: dict[str, str] = {}
        unknown: list[str] = []
        for name in wanted:
            meant = [known[p.casefold()] for p in _spellings(name) if p.casefold() in known]
            if meant:
                chosen.update(dict.fromkeys(meant[0], name))
                continue
            near = difflib.get_close_matches(name.casefold(), known, n=1, cutoff=0.8)
            hint = f" (did you mean {_written(near[0], self.classes)!r}?)" if near else ""
            unknown.append(f"{name!r}{hint}")
        if unknown:
            more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
            told = (
                f"species_list: {counted(len(unknown), 'name')} of {len(wanted)} "
                f"{'is' if len(unknown) == 1 else 'are'} no class of this model: "
                f"{', '.join(unknown[:_NAMED])}{more}"
            )
            if not chosen:
                raise SettingsError(f"{told}; so nothing would be left.")
            say_once(logging.WARNING, f"{told}.")
        return frozenset({*chosen, *chosen.values()})


def _place(start: Start) -> Place | None:
    """What the range model is asked: latitude, longitude and week."""
    site = start.site
    if site is None or site.position is None:
        return None
    latitude, longitude = site.position
    if site.source == "metadata":
        latitude, longitude = (round(value, _METADATA_DIGITS) for value in (latitude, longitude))
    return latitude, longitude, None if start.time is None else week_of(start.time)


def _spellings(name: str) -> tuple[str, ...]:
    """A name, or the two that BirdNET joins: ``Turdus merula_Eurasian Blackbird``."""
    return (name, *(part.strip() for part in name.split("_"))) if "_" in name else (name,)


def _written(folded: str, classes: ClassList) -> str:
    """A name as it is written, of one in small letters."""
    texts = (text for label, name in classes.names.items() for text in (label, *name))
    return next(text for text in texts if text.casefold() == folded)


def _some(names: Iterable[str]) -> str:
    every = list(names)
    more = ", ..." if len(every) > _NAMED else ""
    return f" ({', '.join(every[:_NAMED])}{more})" if every else ""


def check_places(audio_dir: Path, options: Options) -> None:
    """Refuse a table of sites or a species list before anything is computed.

    Raises
    ------
    SitesError, SettingsError
        If one is missing or cannot be understood.
    """
    Sites(audio_dir, options)
    if options.species_list is not None:
        read_species_list(options.species_list)


def read_species_list(given: tuple[str, ...]) -> list[str]:
    """Names of a list, or of the text file that its only entry names.

    Raises
    ------
    SettingsError
        If the file is missing, cannot be read or holds no names.
    """
    names = list(given)
    if len(given) == 1:
        path = typed_path(given[0])
        is_path = path.suffix.lower() in {".txt", ".csv"} or "/" in given[0] or "\\" in given[0]
        if is_file(path):
            try:
                text = typed_text(path)
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or error
                raise SettingsError(f"species_list: {path} cannot be read: {reason}.") from None
            names = [line.partition("#")[0].strip().strip('"') for line in text.splitlines()]
        elif is_path:
            raise SettingsError(
                f"species_list={given[0]!r}: there is no such file; expected a text file with the "
                f"name of a species in each line, or names."
            )
    names = [name for name in dict.fromkeys(names) if name]
    if not names:
        raise SettingsError(f"species_list={given[0]!r} holds no names.")
    return names


# --- Tables of places ---------------------------------------------------------------------------


def write_places(range_filter: RangeFilter, recordings: Iterable[str]) -> None:
    """Write where recordings were made, and what can be there: ``places/``.

    ``sites.csv`` is in the form of the table beside the recordings, and serves in its place where
    that is missing.  ``species_range.parquet`` has a row for each site, week and class with a
    probability of at least 0.01.
    """
    starts = {name: range_filter.clock.of(name) for name in recordings}
    sites = range_filter.clock.sites.table((name, start.time) for name, start in starts.items())
    if not sites:
        return
    path = range_filter.paths.sites_path
    with alone_with(range_filter.paths, path):
        write_text(path, sites_text(sites, sources=True))
    tell_assumptions(range_filter.paths.audio_dir, list(starts), list(starts.values()))
    _tell_missing(range_filter.paths.audio_dir, starts)
    asked: dict[Place, dict[str, None]] = {}  # the sites at each place and in each week
    for start in starts.values():
        place = _place(start)
        if place is not None and start.site is not None:
            asked.setdefault(place, {})[start.site.name] = None
    path = range_filter.paths.species_range_path
    if not asked or range_filter.options.range_filter == "off":
        return
    if range_filter.model is None:  # an older table knows nothing of new recordings
        with writing(path):
            path.unlink(missing_ok=True)
        return
    table = _range_table(range_filter.model, asked)
    with alone_with(range_filter.paths, path):
        write_table(path, table)


def lacks_range_table(paths: ResultPaths, options: Options) -> bool:
    """Whether places are known and nothing says what can be there, though the model is at hand."""
    if options.range_filter == "off" or not paths.sites_path.is_file():
        return False
    known = any(site.position is not None for site in read_sites(paths.sites_path))
    base = Path(options.model_base_path)
    return known and not paths.species_range_path.is_file() and range_model_is_here(base)


def _range_table(model: RangeModel, asked: Mapping[Place, Iterable[str]]) -> object:
    import pyarrow as pa

    columns: dict[str, list[NDArray[np.generic]]] = {}
    names = np.array([model.common_names, model.scientific_names], dtype=object)
    for number, ((latitude, longitude, week), sites) in enumerate(asked.items()):
        if number % _AT_ONCE == 0:
            model.prepare(itertools.islice(asked, number, number + _AT_ONCE))
        row = model.at(latitude, longitude, week)
        kept = np.flatnonzero(row >= np.float32(_LEAST_STORED))  # false for NaN
        n = len(kept)
        for site in sites:
            for key, values in (
                ("site", np.full(n, site, dtype=object)),
                ("week", np.full(n, week, dtype=object)),
                ("class", names[0, kept]),
                ("probability", row[kept]),
                ("scientific_name", names[1, kept]),
                ("latitude", np.full(n, latitude)),
                ("longitude", np.full(n, longitude)),
            ):
                columns.setdefault(key, []).append(values)
    joined = {key: np.concatenate(parts) for key, parts in columns.items()}
    texts = {
        key: pa.array(joined[key], pa.string()).dictionary_encode()
        for key in ("site", "class", "scientific_name")
    }
    return pa.table({**joined, **texts, "week": pa.array(joined["week"], pa.int8())})


def _tell_missing(audio_dir: Path, starts: Mapping[str, Start]) -> None:
    """Say how many recordings are without a position where others have one."""
    missing = [name for name, start in starts.items() if _place(start) is None]
    if missing:
        say_once(
            logging.WARNING,
            f"{shown(audio_dir)}: {counted(len(missing), 'recording')} of {len(starts)} without a "
            f"position, such as {missing[0]}; for these, nothing is known of what can be there "
            f"(bacpipe sites audio_dir=... says why).",
        )


def used_places(options: Options, audio_dir: Path) -> dict[str, object]:
    """What of the settings and tables decides what `write_places` writes."""
    table = find_sites_table(audio_dir, options)
    keys = ("latitude", "longitude", "time_zone")
    used = {key: getattr(options, key) for key in keys if getattr(options, key) is not None}
    if table is not None:
        used["sites"] = file_hash(table)
    return used
