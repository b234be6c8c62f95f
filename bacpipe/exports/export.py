"""Detections for other programs, by the name of a format; and renewing what was exported."""

from __future__ import annotations

import difflib
import inspect
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import fields
from math import isfinite
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Literal, get_args, get_origin, get_type_hints

import numpy as np

from bacpipe.errors import BacpipeError, SettingsError, counted
from bacpipe.exports.audacity import export_audacity_labels, write_audacity
from bacpipe.exports.camtrap_dp import write_camtrap_dp
from bacpipe.exports.chosen import Chosen, choose, exported_with, set_aside
from bacpipe.exports.clips import write_clips
from bacpipe.exports.darwin_core import write_darwin_core
from bacpipe.exports.detections import described_detections
from bacpipe.exports.kaleidoscope import write_kaleidoscope
from bacpipe.exports.raven import export_raven_tables, plain_label, write_raven
from bacpipe.exports.survey import classes_of, histories_of, survey_of
from bacpipe.options import Options
from bacpipe.store.files import write_json
from bacpipe.store.layout import (
    AUDACITY_LABELS,
    PROVENANCE,
    combined_raven_name,
    detections_csv_path,
    history_name,
    hours_listened_name,
    path_inside,
    survey_name,
)
from bacpipe.store.loader import Loader
from bacpipe.store.tables import write_detections_csv
from bacpipe.user_input import is_file, typed_path

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

Writer = Callable[..., list[Path]]
_SCORE = "min_score"


def write_detections_table(chosen: Chosen, folder: Path) -> list[Path]:
    """Write ``<model>_detections.csv`` with the columns of `bacpipe.detections_table`."""
    path = detections_csv_path(folder, str(chosen.loader.model_name))
    write_detections_csv(
        path,
        described_detections(chosen),
        escape_formulas=bool(chosen.setting("escape_formulas")),
        bom=bool(chosen.setting("excel_bom")),
    )
    return [path]


def write_survey(
    chosen: Chosen, folder: Path, *, by: Sequence[str] | str = ("site", "date")
) -> list[Path]:
    """Write ``<model>_survey.csv``, the table of `bacpipe.survey_table`; `by` as there."""
    path = folder / survey_name(str(chosen.loader.model_name))
    table = survey_of(chosen, by).round({"best_score": 4, "hours_listened": 6})
    chosen.write_csv(path, [table])
    return [path]


def write_occupancy(
    chosen: Chosen,
    folder: Path,
    *,
    species: Sequence[str] | str | None = None,
    occasion: str = "1D",
    min_hours: float = 0.0,
) -> list[Path]:
    """Write a history of detections for each species, for models of occupancy.

    Parameters
    ----------
    chosen : Chosen
        The detections.
    folder : Path
        Where to.
    species : str or sequence of str, optional
        Which; all that were found unless given.
    occasion, min_hours
        As for `bacpipe.detection_history`.

    Returns
    -------
    list of Path
        ``<model>_<species>.csv``, a row for each site, a column for each occasion, with 1, 0 and
        NA; and ``<model>_hours_listened.csv`` of the same shape.
    """
    names = [species] if isinstance(species, str) else species
    classes = None if names is None else classes_of(chosen, names)
    histories = histories_of(chosen, str(occasion), min_hours=min_hours, classes=classes)
    model = str(chosen.loader.model_name)
    written: list[Path] = []
    for name in sorted(histories.present):
        safe = "".join(c if c.isalnum() or c in " -()'" else "_" for c in plain_label(name))
        path = folder / history_name(model, safe.strip())
        chosen.write_csv(path, [_flat(histories.of(name).astype(object).fillna("NA"))])
        written.append(path)
    path = folder / hours_listened_name(model)
    chosen.write_csv(path, [_flat(histories.table(histories.hours.round(6)))])
    return [*written, path]


def _flat(table: pd.DataFrame) -> pd.DataFrame:
    """Table with its sites as a column and occasions as ISO times."""
    import pandas as pd

    times = pd.DatetimeIndex(table.columns)
    days = times.equals(times.normalize())
    table.columns = [f"{time:%Y-%m-%d}" if days else f"{time:%Y-%m-%dT%H:%M}" for time in times]
    return table.copy().rename_axis("site").reset_index()  # the copy is in one piece


FORMATS: dict[str, Writer] = {
    "raven": write_raven,
    "audacity": write_audacity,
    "kaleidoscope": write_kaleidoscope,
    "csv": write_detections_table,
    "survey": write_survey,
    "occupancy": write_occupancy,
    "camtrap-dp": write_camtrap_dp,
    "darwin-core": write_darwin_core,
    "clips": write_clips,
}
"""What writes each format."""


def export(
    loader: Loader | None, format: str, destination: str | Path | None = None, **options: object
) -> list[Path]:
    """Write detections for another program.

    Parameters
    ----------
    loader : Loader or None
        Results of a model with a classifier; None for those that ``audio_dir`` and ``model`` name.
    format : str
        raven, audacity, kaleidoscope, csv (the table of detections), survey, occupancy,
        camtrap-dp, darwin-core or clips.
    destination : str or Path, optional
        Folder to write to; ``exports/<format>/<model>`` of the results unless given, where later
        runs renew it when predictions or places change (but not clips).
    **options
        ``min_score`` drops lower scores.  Any key of the configuration, such as ``event_gap``,
        ``range_filter`` or ``species_list``.  Options of a format: ``combined`` (raven), ``scores``
        (audacity), ``by`` (survey), ``species``, ``occasion`` and ``min_hours`` (occupancy),
        ``title``, ``contributor``, ``sampling_design``, ``capture_method`` and ``device_platform``
        (camtrap-dp), ``title``, ``creator``, ``email`` and ``license`` (darwin-core), ``n``,
        ``order``, ``pad``, ``clip_format`` and ``seed`` (clips).

    Returns
    -------
    list of Path
        The files written.  ``provenance.json`` beside them says what they were made with.

    Raises
    ------
    ResultsNotFoundError
        If there are no predictions.
    SettingsError
        If the format or an option is not known, or impossible.

    Examples
    --------
    >>> import bacpipe
    >>> loader = bacpipe.Loader("recordings", "birdnet")
    >>> files = bacpipe.export(loader, "survey", "tables", min_score=0.9)
    >>> files[0].as_posix()
    'tables/birdnet_survey.csv'
    """
    given = dict(options)
    own = {key: given.pop(key) for key in own_options(format) if key in given and key != _SCORE}
    _check_options(options, format)
    write = FORMATS[format]
    own = _typed(format, own)
    if (min_score := given.pop(_SCORE, None)) is not None:
        given["classifier_threshold"] = min_score
    chosen = choose(loader, given)
    chosen.loader.require_predictions()
    if destination is not None and (not isinstance(destination, str | Path) or destination == ""):
        raise SettingsError(f"destination={destination!r} is not possible; expected a folder.")
    target = _folder(chosen.loader, format) if destination is None else typed_path(destination)
    in_the_way = next((path for path in (target, *target.parents) if is_file(path)), None)
    if in_the_way is not None:
        raise SettingsError(
            f"destination={str(target)!r} is not possible: {in_the_way} is a file; expected a "
            f"folder."
        )
    before = _files_of(target, format)
    written = write(chosen, target, **own)
    _set_aside(target, before - {*_relative(written, target)}, format)
    asked = {key: options[key] for key in options if key not in {"audio_dir", "model"}}
    asked = json.loads(json.dumps(asked, default=_plain))
    about = {"format": format, "options": asked, "files": _relative(written, target)}
    # Last, so that it vouches for the files.
    write_json(target / PROVENANCE, {**chosen.provenance, "export": about})
    return written


def _plain(value: object) -> object:
    """An option as JSON has it: arrays and tables' columns as lists, paths as text."""
    tolist = getattr(value, "tolist", None)
    return str(value) if tolist is None else tolist()


def _check_options(given: Mapping[str, object], format: str) -> None:
    """Refuse options that are near to one of this format, which the configuration does not know."""
    own, known = own_options(format), {item.name for item in fields(Options)}
    for key in given.keys() - {*own}:
        close = difflib.get_close_matches(key, own, n=1)
        if close and key not in known:
            raise SettingsError(
                f"{format} has no option {key!r}; did you mean {close[0]!r}? Its own options are "
                f"{', '.join(own)}."
            )


def _typed(format: str, own: Mapping[str, object]) -> dict[str, object]:
    """Options of a format as what writes it takes them."""
    hints = get_type_hints(FORMATS[format])
    return {key: _as(hints[key], value, f"{format}: {key}") for key, value in own.items()}


def _as(hint: object, value: object, name: str) -> object:
    """A value of a type; what allows some texts only checks them itself."""
    given, kinds = value, get_args(hint) if isinstance(hint, UnionType) else (hint,)
    origins = {get_origin(kind) for kind in kinds}
    if Literal in origins or (value is None and NoneType in kinds):
        return value
    value = value.item() if isinstance(value, np.generic) else value  # of a column of a table
    number = isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
    if Sequence in origins:
        listed = [value] if isinstance(value, str) else _items(value)
        fits = all(isinstance(item, str) for item in listed) and bool(listed)
        value, expected = tuple(listed), "a name or a list of names"
    elif bool in kinds:
        fits, expected = isinstance(value, bool), "true or false"
    elif int in kinds:
        fits, expected = number and isinstance(value, int), "a whole number"
    elif float in kinds:
        fits, expected = number, "a number"
    else:
        # To YAML, the title 2024 is a number.
        fits, expected = isinstance(value, str) or number, "a text"
        value = str(value)
    if not fits:
        raise SettingsError(f"{name}={given!r} is not possible; expected {expected}.")
    return value


def _items(value: object) -> list[object]:
    """Those of a list, an array or a column of a table; none of anything else."""
    return list(value) if isinstance(value, Iterable) and not isinstance(value, Mapping) else []


def own_options(format: str) -> list[str]:
    """Options of a format beside those of the configuration.

    Raises
    ------
    SettingsError
        If there is no such format.
    """
    if format not in FORMATS:
        close = difflib.get_close_matches(str(format), FORMATS, n=1)
        meant = f"did you mean {close[0]!r}?" if close else f"expected {', '.join(FORMATS)}."
        raise SettingsError(f"format={format!r} is not possible; {meant}")
    parameters = inspect.signature(FORMATS[format]).parameters.values()
    return [_SCORE, *(item.name for item in parameters if item.kind is item.KEYWORD_ONLY)]


def _folder(loader: Loader, format: str) -> Path:
    return loader.paths.exports_path / format / str(loader.model_name)


def _relative(files: Iterable[Path], folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in files]


def renew_exports(loader: Loader) -> None:
    """Write what was exported into the results anew; elsewhere it is the user's.

    Tables for Raven and Audacity beside the predictions keep the threshold and the gap within
    events that they were exported with.  With ``save_raven_tables``, those for Raven are written in
    any case, with the settings of the run.
    """
    combined = loader.paths.raven_path / combined_raven_name(str(loader.model_name))
    if (saves := loader.options.save_raven_tables) or loader.paths.raven_path.is_dir():
        settings = {} if saves else exported_with(loader, loader.paths.raven_path)
        export_raven_tables(loader, **settings)
        if combined.is_file():
            export_raven_tables(loader, combined=True, **settings)
    if (folder := loader.paths.preds_path / AUDACITY_LABELS).is_dir():
        export_audacity_labels(loader, **exported_with(loader, folder))
    for name in FORMATS:
        # People may have begun to listen to clips, and to name them.
        if name != "clips" and (_folder(loader, name) / PROVENANCE).is_file():
            _renew(loader, name)


def _renew(loader: Loader, format: str) -> None:
    """Write an export anew, and mark files of it that are not written any more."""
    folder = _folder(loader, format)
    try:
        about = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))["export"]
        # With its place, which what was read cannot change: results may come from others.
        export(loader, format, None, **dict(about["options"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError, BacpipeError) as error:
        logger.warning("%s: this export could not be renewed: %s", folder, error)


def _files_of(folder: Path, format: str) -> set[str]:
    """Files that an earlier export in a format has written to a folder."""
    try:
        about = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))["export"]
        names = {str(name) for name in about["files"]} if about["format"] == format else set()
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return set()  # nothing was exported here, or nobody knows what
    for name in names:
        path_inside(folder, name, what=PROVENANCE)
    return names


def _set_aside(folder: Path, names: Set[str], format: str) -> None:
    """Let nobody take files of an earlier export for those of this one."""
    paths = [path for name in sorted(names) if (path := folder / name).is_file()]
    if format == "clips" and paths:  # people may have begun to listen to them
        logger.warning(
            "%s: %s of an earlier export stay beside those of this one, which clips.csv lists.",
            folder, counted(len(paths), "file"),
        )  # fmt: skip
        return
    for path in paths:
        set_aside(path)
