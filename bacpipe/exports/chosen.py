"""Which detections a call chooses, and what tables of them were made with."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bacpipe.errors import SettingsError
from bacpipe.options import make_options
from bacpipe.store.class_list import ClassList
from bacpipe.store.data_set_folder import computed_models
from bacpipe.store.detections import Detections, above, merge_detections
from bacpipe.store.files import write_csv, writing
from bacpipe.store.layout import PROVENANCE, embeddings_name
from bacpipe.store.loader import Loader
from bacpipe.store.range_filter import OPTIONS
from bacpipe.store.whereabouts import Whereabouts

if TYPE_CHECKING:
    import pandas as pd


SETTINGS = (
    "classifier_threshold", "event_gap", "escape_formulas", "excel_bom",
    *(key for key in OPTIONS if key != "model_base_path"),
)  # fmt: skip
"""Keys of the configuration that decide what tables of detections hold."""

_PEOPLE = frozenset({"Human vocal", "Human non-vocal", "Human whistle", "Homo sapiens"})


@dataclass(frozen=True)
class Chosen:
    """Detections of a loader as a call wants them.

    Attributes
    ----------
    loader : Loader
    threshold : float or None
        Lowest score; None for all that is stored.
    gap : float or None
        Seconds that may lie between two windows of one event; None for a row per window.
    where : Whereabouts
        Where and when the recordings were made, and what can be there.
    settings : mapping
        All settings of the call.
    """

    loader: Loader
    threshold: float | None
    gap: float | None
    where: Whereabouts
    settings: Mapping[str, Any]

    @cached_property
    def classes(self) -> ClassList:
        """Scientific names and codes of the model's classes."""
        return self.loader.classes

    def write_csv(self, path: Path, pieces: Iterable[pd.DataFrame]) -> None:
        """Write the pieces of a table for spreadsheets, as the settings want."""
        escape, bom = (bool(self.setting(key)) for key in ("escape_formulas", "excel_bom"))
        write_csv(path, pieces, escape_formulas=escape, bom=bom)

    def setting(self, key: str) -> object:
        """Value of a key for this call."""
        return self.settings.get(key, getattr(self.loader.options, key))

    def windows(self) -> Iterator[Detections]:
        """Detections of single windows, recording by recording."""
        items = self.loader.detections(**self.settings)
        return items if self.threshold is None else (above(i, self.threshold) for i in items)

    def events(self) -> Iterator[Detections]:
        """The same, or events if they are wanted."""
        channels = self.loader.window_channels
        return (
            merge_detections(item, self.gap, channels(item.recording)) for item in self.windows()
        )

    @property
    def provenance(self) -> dict[str, Any]:
        """What they were made with."""
        made_with = {**self.loader.predictions_provenance, "event_gap": self.gap}
        made_with |= self.where.provenance
        stored = made_with.get("threshold") or 0.0
        if self.threshold is None or self.threshold <= stored:
            return {**made_with, "classifier_threshold": None}
        return {**made_with, "threshold": self.threshold, "classifier_threshold": self.threshold}


def choose(loader: Loader | None, settings: Mapping[str, Any]) -> Chosen:
    """What a call with these settings chooses; those that it leaves out are the loader's.

    Parameters
    ----------
    loader : Loader or None
        None for the results that the settings ``audio_dir`` and ``model`` name.
    settings : mapping
        Of the call.

    Raises
    ------
    SettingsError
        If a setting is impossible.
    """
    rest = dict(settings)
    if loader is None:
        loader = _find_loader(rest)
    options = make_options(**rest)
    gap = options.event_gap if "event_gap" in rest else loader.options.event_gap
    return Chosen(loader, loader.threshold(rest), gap, Whereabouts(loader, rest), rest)


def _find_loader(settings: dict[str, Any]) -> Loader:
    """Results that settings name; what only finds them is taken out."""
    audio_dir, model = settings.pop("audio_dir", None), settings.pop("model", None)
    options = make_options(**settings)
    audio_dir = audio_dir or options.audio_dir
    if audio_dir is None:
        raise SettingsError("audio_dir is missing; expected the folder with the recordings.")
    if model is None:
        models = computed_models(audio_dir, options)
        if len(models) > 1:
            raise SettingsError(
                f"model is missing; expected one of those with results: {', '.join(models)}."
            )
        model = models[0]
    return Loader(audio_dir, str(model), **settings)


def event_names(chosen: Chosen, item: Detections) -> list[str]:
    """Names of events, which stay the same when others are found."""
    model = chosen.loader.model_name
    rows = zip(item.start.round(3).tolist(), item.end.round(3).tolist(), item.label, strict=True)
    return [f"{model}:{item.recording}:{start}-{end}:{label}" for start, end, label in rows]


def taxon_of(chosen: Chosen, label: str) -> tuple[str, str]:
    """Kind of what was heard, as Camtrap DP calls it, and the scientific name if it is an animal.

    The kinds are animal, human and unknown.
    """
    name = chosen.classes.of(label).scientific_name
    if label in _PEOPLE or name in _PEOPLE:
        return "human", ""
    # Classes such as Engine have their own name for a scientific one.
    if not name or (name == label and " " not in name):
        return "unknown", ""
    return "animal", name


def exported_with(loader: Loader, folder: Path) -> dict[str, Any]:
    """Settings of an export, as its provenance has them; version 2.0 did not always write it."""
    try:
        about = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
        gap, threshold = about["event_gap"], about.get("classifier_threshold", about["threshold"])
        make_options(event_gap=gap, classifier_threshold=threshold or 0.0)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SettingsError):
        return {"event_gap": loader.options.event_gap}
    stored = loader.predictions_provenance.get("threshold") or 0.0
    return {"event_gap": gap, "classifier_threshold": max(threshold or 0.0, stored)}


def mark_stale(folder: Path, written: Iterable[Path], pattern: str) -> None:
    """Let nobody take tables of recordings or settings of before for those of now."""
    current = {os.fspath(path) for path in written}
    for path in folder.rglob(pattern):
        if os.fspath(path) not in current:
            set_aside(path)


def set_aside(path: Path) -> None:
    """Rename a file of an earlier export, so that nobody takes it for one of now."""
    with writing(path):
        path.replace(path.with_name(f"{path.name}.stale"))


def stems(loader: Loader) -> Callable[[str], str]:
    """Stem of a recording's results, as its embeddings have it."""
    entries, ending = loader.entries, embeddings_name("", str(loader.embeddings_model))
    return lambda name: entries[name].embeddings.path.removesuffix(ending)
