"""Detections as a Camera Trap Data Package 1.0.2 (Camtrap DP), which is for recorders, too.

Deployments are sites, media the recordings, those without a detection as well, and observations
events of one class.  Terms for acoustics that the standard accepted after 1.0.2 are in tables of
their own beside them, because its schemas allow no further columns: ``frequencyLow`` and
``frequencyHigh`` (Hz) of observations, ``samplingFrequency`` (Hz) and ``captureMethod`` of media,
``devicePlatform`` of deployments.

Sources: https://camtrap-dp.tdwg.org and, for acoustics, issues 424 to 450 of
https://github.com/tdwg/camtrap-dp.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from bacpipe._version import __version__
from bacpipe.audio.files import read_recording
from bacpipe.audio.remote import shown
from bacpipe.errors import AudioError, ResultsNotFoundError, SettingsError, counted
from bacpipe.exports.chosen import Chosen, event_names, taxon_of
from bacpipe.store.detections import Detections, merge_detections
from bacpipe.store.files import write_csv, write_json
from bacpipe.store.whereabouts import Place

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

_STANDARD = "https://raw.githubusercontent.com/tdwg/camtrap-dp/1.0.2"
_MEDIA_PATH = re.compile(r"(?=^[^./~])(^((?!\.{2}).)*$).*$")  # as the standard has it
_MEDIA_TYPES = {"mp3": "mpeg", "wv": "x-wavpack", "aif": "aiff", "m4a": "mp4"}

# Of the tables of version 1.0.2, all of which must be there, in this order.
_COLUMNS = {
    "deployments": (
        "deploymentID", "locationID", "locationName", "latitude", "longitude",
        "coordinateUncertainty", "deploymentStart", "deploymentEnd", "setupBy", "cameraID",
        "cameraModel", "cameraDelay", "cameraHeight", "cameraDepth", "cameraTilt", "cameraHeading",
        "detectionDistance", "timestampIssues", "baitUse", "featureType", "habitat",
        "deploymentGroups", "deploymentTags", "deploymentComments",
    ),
    "media": (
        "mediaID", "deploymentID", "captureMethod", "timestamp", "filePath", "filePublic",
        "fileName", "fileMediatype", "exifData", "favorite", "mediaComments",
    ),
    "observations": (
        "observationID", "deploymentID", "mediaID", "eventID", "eventStart", "eventEnd",
        "observationLevel", "observationType", "cameraSetupType", "scientificName", "count",
        "lifeStage", "sex", "behavior", "individualID", "individualPositionRadius",
        "individualPositionAngle", "individualSpeed", "bboxX", "bboxY", "bboxWidth", "bboxHeight",
        "classificationMethod", "classifiedBy", "classificationTimestamp",
        "classificationProbability", "observationTags", "observationComments",
    ),
}  # fmt: skip

SamplingDesign = Literal[
    "simpleRandom", "systematicRandom", "clusteredRandom", "experimental", "targeted",
    "opportunistic",
]  # fmt: skip
CaptureMethod = Literal["activityDetection", "continuous", "recordingSchedule"]
Platform = Literal["buoy", "vegetation", "building", "structure", "pole", "unattached"]


class _Medium(NamedTuple):
    """A recording whose place and time are known."""

    name: str
    deployment: str
    place: Place
    start: datetime
    end: datetime
    rate: int


def write_camtrap_dp(
    chosen: Chosen,
    folder: Path,
    *,
    title: str | None = None,
    contributor: str = "",
    sampling_design: SamplingDesign = "opportunistic",
    capture_method: CaptureMethod = "recordingSchedule",
    device_platform: Platform | None = None,
) -> list[Path]:
    """Write the package: ``datapackage.json`` and its tables.

    Parameters
    ----------
    chosen : Chosen
        The detections.
    folder : Path
        Where to.
    title : str, optional
        Of the project; the name of the data set unless given.
    contributor : str
        Who made the recordings.
    sampling_design : str
        How sites were chosen: simpleRandom, systematicRandom, clusteredRandom, experimental,
        targeted or opportunistic.
    capture_method : str
        What the recorders did: activityDetection, continuous or recordingSchedule.
    device_platform : str, optional
        What they were mounted to: buoy, vegetation, building, structure, pole or unattached.

    Raises
    ------
    ResultsNotFoundError
        If no recording has a position and a time with a zone, both of which the standard requires.
    SettingsError
        If an option is impossible.
    """
    for key, value, kind in (
        ("sampling_design", sampling_design, SamplingDesign),
        ("capture_method", capture_method, CaptureMethod),
        ("device_platform", device_platform, Platform),
    ):
        if value is not None and value not in get_args(kind):
            raise SettingsError(
                f"{key}={value!r} is not possible: expected one of {', '.join(get_args(kind))}."
            )
    media = _media(chosen)
    observed: set[str] = set()
    tables = {
        "deployments": [_deployments(media)],
        "media": [_media_table(media)],
        "observations": _observations(chosen, media, observed),
        "acoustic-media": [_acoustic_media(media, capture_method)],
        "acoustic-observations": _frequencies(chosen, media),
    }
    if device_platform is not None:
        tables["acoustic-deployments"] = [_platforms(media, device_platform)]
    written = []
    for name, pieces in tables.items():
        written.append(folder / f"{name}.csv")
        write_csv(written[-1], pieces)
    package = _package(
        chosen,
        media,
        observed,
        title=title or chosen.loader.paths.dataset,
        contributor=contributor or "not named",
        sampling_design=sampling_design,
        detecting=capture_method == "activityDetection",
        tables=list(tables),
    )
    # Last, so that it vouches for the tables.
    write_json(folder / "datapackage.json", package)
    return [*written, folder / "datapackage.json"]


def _media(chosen: Chosen) -> dict[str, _Medium]:
    """Recordings that the standard has room for; what is left out is said."""
    media: dict[str, _Medium] = {}
    numbers: dict[str, list[tuple[object, object]]] = {}
    without = {"position": 0, "time with a zone": 0, "name that the standard allows": 0}
    loader = chosen.loader
    for name, entry in loader.entries.items():
        if entry.predictions is None:
            continue
        place = chosen.where.of(name)
        lacking = (
            "position" if place.latitude is None
            else "time with a zone" if place.start is None or place.start.tzinfo is None
            else "name that the standard allows" if not _MEDIA_PATH.match(name)
            else None
        )  # fmt: skip
        end = place.after(entry.duration)
        if lacking is not None or place.start is None or end is None:
            without[str(lacking)] += 1
            continue
        positions = numbers.setdefault(place.site, [])
        if (position := (place.latitude, place.longitude)) not in positions:
            positions.append(position)
        number = positions.index(position)
        deployment = place.site if not number else f"{place.site} ({number + 1})"
        media[name] = _Medium(name, deployment, place, place.start, end, _rate(chosen, name))
    if any(without.values()):
        told = ", ".join(f"{count} without a {what}" for what, count in without.items() if count)
        logger.warning("%s: left out of the data package: %s.", shown(loader.audio_dir), told)
    if not media:
        raise ResultsNotFoundError(
            f"{shown(loader.audio_dir)}: no recording has a position and a time with a zone, which "
            f"Camtrap DP requires; give latitude=, longitude= and time_zone=, or a table of sites "
            f"(bacpipe sites audio_dir=... writes a draft)."
        )
    return media


def _rate(chosen: Chosen, name: str) -> int:
    """Sample rate of a recording; 0 if it cannot be opened any more."""
    try:
        return read_recording(chosen.loader.audio_dir / name).sample_rate
    except AudioError:
        return 0


def _stamp(time: datetime | None) -> str:
    assert time is not None  # of a medium, which has one
    return time.replace(microsecond=0).isoformat()


def _deployments(media: dict[str, _Medium]) -> pd.DataFrame:
    import pandas as pd

    rows: dict[str, dict[str, Any]] = {}
    for item in media.values():
        row = rows.setdefault(
            item.deployment,
            {
                "deploymentID": item.deployment,
                "locationID": item.place.site,
                "locationName": item.place.site,
                "latitude": item.place.latitude,
                "longitude": item.place.longitude,
                "deploymentStart": item.start,
                "deploymentEnd": item.end,
                "habitat": item.place.columns.get("habitat", ""),
            },
        )
        row["deploymentStart"] = min(row["deploymentStart"], item.start)
        row["deploymentEnd"] = max(row["deploymentEnd"], item.end)
    table = pd.DataFrame(rows.values())
    for name in ("deploymentStart", "deploymentEnd"):
        table[name] = [_stamp(time) for time in table[name].tolist()]
    return table.reindex(columns=list(_COLUMNS["deployments"]))


def _media_table(media: dict[str, _Medium]) -> pd.DataFrame:
    import pandas as pd

    rows = []
    for item in media.values():
        kind = PurePosixPath(item.name).suffix.lower().removeprefix(".") or "wav"
        rows.append(
            {
                "mediaID": item.name,
                "deploymentID": item.deployment,
                "timestamp": _stamp(item.start),
                "filePath": item.name,
                "filePublic": "false",
                "fileName": PurePosixPath(item.name).name,
                "fileMediatype": f"audio/{_MEDIA_TYPES.get(kind, kind)}",
            }
        )
    return pd.DataFrame(rows).reindex(columns=list(_COLUMNS["media"]))


def _events(chosen: Chosen, media: dict[str, _Medium]) -> Iterator[tuple[_Medium, Detections]]:
    gap = chosen.gap or 0.0
    for item in chosen.windows():
        if item.recording in media:
            yield media[item.recording], merge_detections(item, gap)


def _observations(
    chosen: Chosen, media: dict[str, _Medium], observed: set[str]
) -> Iterator[pd.DataFrame]:
    """Observations recording by recording; their scientific names are added to `observed`."""
    import pandas as pd

    columns = list(_COLUMNS["observations"])
    yield pd.DataFrame(columns=columns)
    classifier = f"{chosen.loader.model_name} (bacpipe {__version__})"
    for medium, item in _events(chosen, media):
        kinds = [taxon_of(chosen, str(label)) for label in item.label]
        observed.update(name for _, name in kinds if name)
        identifiers = event_names(chosen, item)
        rows = {
            "observationID": identifiers,
            "deploymentID": medium.deployment,
            "mediaID": medium.name,
            "eventID": identifiers,
            "eventStart": [_stamp(medium.place.after(s)) for s in item.start.tolist()],
            "eventEnd": [_stamp(medium.place.after(s)) for s in item.end.tolist()],
            "observationLevel": "media",
            "observationType": [kind for kind, _ in kinds],
            "scientificName": [name for _, name in kinds],
            "classificationMethod": "machine",
            "classifiedBy": classifier,
            "classificationProbability": [
                f"{min(score, 1.0):.4f}" for score in item.score.tolist()
            ],
            "observationTags": [f"class:{label}" for label in item.label],
        }
        yield pd.DataFrame(rows, index=range(len(item.label))).reindex(columns=columns)


def _acoustic_media(media: dict[str, _Medium], capture_method: str) -> pd.DataFrame:
    import pandas as pd

    rows = [(m.name, m.rate or None, capture_method) for m in media.values()]
    table = pd.DataFrame(rows, columns=["mediaID", "samplingFrequency", "captureMethod"])
    return table.astype({"samplingFrequency": "Int64"})


def _frequencies(chosen: Chosen, media: dict[str, _Medium]) -> Iterator[pd.DataFrame]:
    """Range of frequencies that the model heard, observation by observation."""
    import pandas as pd

    columns = ["observationID", "frequencyLow", "frequencyHigh"]
    yield pd.DataFrame(columns=columns)
    for medium, item in _events(chosen, media):
        most = chosen.loader.highest_frequency
        high = min(most, medium.rate / 2) if medium.rate else most
        rows = dict(zip(columns, (event_names(chosen, item), 0, high), strict=True))
        yield pd.DataFrame(rows, index=range(len(item.label)))


def _platforms(media: dict[str, _Medium], platform: str) -> pd.DataFrame:
    import pandas as pd

    names = list(dict.fromkeys(item.deployment for item in media.values()))
    return pd.DataFrame({"deploymentID": names, "devicePlatform": platform})


_FURTHER: dict[str, tuple[str, str, list[dict[str, Any]]]] = {
    "acoustic-media": ("media", "mediaID", [
        {"name": "samplingFrequency", "type": "integer", "description": "Of the file, in Hz."},
        {"name": "captureMethod", "type": "string",
         "constraints": {"enum": list(get_args(CaptureMethod))}},
    ]),
    "acoustic-observations": ("observations", "observationID", [
        {"name": "frequencyLow", "type": "number", "description": "In Hz."},
        {"name": "frequencyHigh", "type": "number", "description": "In Hz."},
    ]),
    "acoustic-deployments": ("deployments", "deploymentID", [
        {"name": "devicePlatform", "type": "string",
         "constraints": {"enum": list(get_args(Platform))}},
    ]),
}  # fmt: skip


def _resource(name: str) -> dict[str, Any]:
    base = {"name": name, "path": f"{name}.csv", "profile": "tabular-data-resource",
            "format": "csv", "mediatype": "text/csv", "encoding": "utf-8"}  # fmt: skip
    if name not in _FURTHER:
        return {**base, "schema": f"{_STANDARD}/{name}-table-schema.json"}
    table, key, fields = _FURTHER[name]
    schema = {
        "fields": [{"name": key, "type": "string", "constraints": {"required": True}}, *fields],
        "primaryKey": key,
        "foreignKeys": [{"fields": key, "reference": {"resource": table, "fields": key}}],
    }
    return {**base, "schema": schema}


def _package(
    chosen: Chosen,
    media: dict[str, _Medium],
    observed: set[str],
    *,
    title: str,
    contributor: str,
    sampling_design: str,
    detecting: bool,
    tables: list[str],
) -> dict[str, Any]:
    points = sorted({(m.place.longitude, m.place.latitude) for m in media.values()})
    listed = {item.scientific_name: label for label, item in chosen.classes.names.items()}
    return {
        "profile": f"{_STANDARD}/camtrap-dp-profile.json",
        "name": re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "recordings",
        "title": title,
        "created": _stamp(datetime.now(UTC)),
        "contributors": [{"title": contributor, "role": "contributor"}],
        "sources": [{"title": "bacpipe", "version": __version__}],
        "description": json.dumps(chosen.provenance, default=str),
        "project": {
            "title": title,
            "samplingDesign": sampling_design,
            "captureMethod": ["activityDetection" if detecting else "timeLapse"],
            "individualAnimals": False,
            "observationLevel": ["media"],
        },
        "spatial": {"type": "MultiPoint", "coordinates": [list(point) for point in points]},
        "temporal": {
            "start": f"{min(m.start.date() for m in media.values())}",
            "end": f"{max(m.end.date() for m in media.values())}",
        },
        "taxonomic": [
            {"scientificName": name, "vernacularNames": {"eng": listed.get(name, name)}}
            for name in sorted(observed)
        ],
        "resources": [_resource(name) for name in tables],
        "bibliographicCitation": (
            f"{counted(len(media), 'recording')} analysed with {chosen.loader.model_name} in "
            f"bacpipe {__version__}."
        ),
    }
