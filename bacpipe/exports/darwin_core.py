"""Detections as a Darwin Core archive of occurrences, which GBIF and others take.

Terms: https://dwc.tdwg.org/terms; the archive: https://dwc.tdwg.org/text; its description: the
Ecological Metadata Language 2.2.0.
"""

from __future__ import annotations

import csv
import io
import logging
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree as ET

from bacpipe._version import __version__
from bacpipe.audio.remote import shown
from bacpipe.errors import counted
from bacpipe.exports.chosen import Chosen, event_names, taxon_of
from bacpipe.store.detections import merge_detections
from bacpipe.store.files import replacing
from bacpipe.store.layout import darwin_core_name

logger = logging.getLogger(__name__)

_TERMS = "http://rs.tdwg.org/dwc/terms/"
_DUBLIN_CORE = "http://purl.org/dc/terms/"
_TEXT = "http://rs.tdwg.org/dwc/text/"
_EML = "https://eml.ecoinformatics.org/eml-2.2.0"
_COLUMNS = (
    "occurrenceID", "basisOfRecord", "occurrenceStatus", "eventID", "eventDate", "locationID",
    "decimalLatitude", "decimalLongitude", "geodeticDatum", "scientificName", "vernacularName",
    "identifiedBy", "identificationVerificationStatus", "identificationRemarks",
    "samplingProtocol", "samplingEffort",
)  # fmt: skip


def write_darwin_core(
    chosen: Chosen,
    folder: Path,
    *,
    title: str | None = None,
    creator: str = "",
    email: str = "",
    license: str = "",
) -> list[Path]:
    """Write ``<model>_dwca.zip`` with ``occurrence.csv``, ``meta.xml`` and ``eml.xml``.

    Parameters
    ----------
    chosen : Chosen
        The detections; those of people, and of classes without a scientific name, are left out.
    folder : Path
        Where to.
    title, creator, email, license : str, optional
        Of the data set, for its description.
    """
    name = title or chosen.loader.paths.dataset
    path = folder / darwin_core_name(str(chosen.loader.model_name))
    with replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("occurrence.csv", "w", force_zip64=True) as table:
            for line in _lines(chosen):
                table.write(line.encode())
        archive.writestr("meta.xml", _meta())
        archive.writestr("eml.xml", _eml(name, creator, email, license))
    return [path]


def _lines(chosen: Chosen) -> Iterator[str]:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_COLUMNS)
    loader, left_out = chosen.loader, 0
    source = f"{loader.model_name} (bacpipe {__version__})"
    for window in chosen.windows():
        item = merge_detections(window, chosen.gap or 0.0)
        place = chosen.where.of(item.recording)
        hours = loader.entries[item.recording].duration / 3600
        located = place.latitude is not None
        for key, *row in zip(event_names(chosen, item), *item[2:], strict=True):
            start, end, label, score = row
            kind, name = taxon_of(chosen, str(label))
            if kind != "animal":
                left_out += 1
                continue
            date = ""
            if place.start is not None:
                times = (place.after(float(start)), place.after(float(end)))
                date = "/".join(t.isoformat(timespec="seconds") for t in times if t is not None)
            writer.writerow((
                f"{loader.paths.dataset}:{key}", "MachineObservation", "present",
                item.recording, date, place.site,
                place.latitude if located else "", place.longitude if located else "",
                "EPSG:4326" if located else "", name, label, source, "unverified",
                f"score {score:.4f}", "passive acoustic monitoring", f"{hours:.4f} h recorded",
            ))  # fmt: skip
        yield out.getvalue()
        out.seek(0)
        out.truncate()
    yield out.getvalue()
    if left_out:
        logger.warning(
            "%s: the archive leaves out %s of people and of classes without a scientific name.",
            shown(loader.audio_dir),
            counted(left_out, "event"),
        )


def _document(root: ET.Element) -> bytes:
    ET.indent(root)
    return ET.tostring(root, encoding="UTF-8", xml_declaration=True)


def _meta() -> bytes:
    """What the columns of the table are."""
    root = ET.Element("archive", {"xmlns": _TEXT, "metadata": "eml.xml"})
    core = ET.SubElement(root, "core", {
        "encoding": "UTF-8", "fieldsTerminatedBy": ",", "linesTerminatedBy": "\\n",
        "fieldsEnclosedBy": '"', "ignoreHeaderLines": "1", "rowType": f"{_TERMS}Occurrence",
    })  # fmt: skip
    files = ET.SubElement(core, "files")
    ET.SubElement(files, "location").text = "occurrence.csv"
    ET.SubElement(core, "id", {"index": "0"})
    for index, name in enumerate(_COLUMNS):
        ET.SubElement(core, "field", {"index": str(index), "term": f"{_TERMS}{name}"})
    return _document(root)


def _eml(title: str, creator: str, email: str, license: str) -> bytes:
    """Description of the data set."""
    root = ET.Element(
        "eml:eml",
        {"xmlns:eml": _EML, "packageId": title, "system": "bacpipe", "xml:lang": "en"},
    )
    dataset = ET.SubElement(root, "dataset")
    _add(dataset, "title", title)
    for role in ("creator", "contact"):
        person = _add(dataset, role)
        _add(person, "organizationName", creator or "not named")
        if email:
            _add(person, "electronicMailAddress", email)
        if role == "creator":
            _add(dataset, "pubDate", f"{datetime.now(UTC):%Y-%m-%d}")
            _add(dataset, "language", "en")
            abstract = _add(dataset, "abstract")
            _add(abstract, "para", f"Detections of a classifier in recordings, by bacpipe "
                 f"{__version__}; not verified by people.")  # fmt: skip
            if license:
                _add(_add(dataset, "intellectualRights"), "para", license)
    return _document(root)


def _add(parent: ET.Element, name: str, text: str | None = None) -> ET.Element:
    element = ET.SubElement(parent, name)
    if text is not None:
        # XML has no way to write control characters.
        element.text = "".join(c if c.isprintable() else " " for c in text)
    return element
