"""What other programs write about recordings: Raven, Audacity, Kaleidoscope and so on.

A reader gives the columns audiofilename, start, end (seconds, float64) and label; its index is
the row in messages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple
from xml.etree import ElementTree

import numpy as np

from bacpipe.annotations.cells import (
    find_separator,
    first_cells,
    is_number,
    read_rows,
    read_table,
    seconds,
)
from bacpipe.annotations.recording_names import TableNames
from bacpipe.errors import AnnotationsError

if TYPE_CHECKING:
    import pandas as pd

_RAVEN_TIMES = ("Begin Time (s)", "End Time (s)")
_RAVEN_FILES = ("Begin Path", "Begin File")
_RAVEN_LABELS = ("Label", "Annotation", "Species", "Common Name", "Tag", "Code", "Call type")
# People's own identifications come first; a star marks columns that Kaleidoscope has filled.
_KALEIDOSCOPE_LABELS = (
    "MANUAL ID", "MANUAL ID*", "AUTO ID", "AUTO ID*", "TOP1MATCH", "TOP1MATCH*", "common_name",
    "scientific_name",
)  # fmt: skip
# BirdNET-Analyzer's CSV, its table for R, and the package birdnet.
_BIRDNET_TIMES = (("start (s)", "end (s)"), ("start", "end"), ("start_time", "end_time"))
_BIRDNET_LABELS = ("Common name", "common_name", "species_name", "Scientific name",
                   "scientific_name")  # fmt: skip
_BIRDNET_FILES = ("File", "filepath", "input")


class Program(NamedTuple):
    """A program, and how its tables are told and read."""

    suffixes: tuple[str, ...]
    fits: Callable[[str], bool]  # whether a text is a table of this program
    # Gets the text, the file's name, the recordings and the wanted column of labels.
    read: Callable[[str, str, TableNames, str | None], pd.DataFrame]
    has_columns: bool = True  # with names, of which one may be wanted


def _frame(
    table: pd.DataFrame, files: Sequence[str], start: pd.Series, end: pd.Series, label: str
) -> pd.DataFrame:
    return table.assign(audiofilename=files, start=start, end=end, label=table[label])[
        ["audiofilename", "start", "end", "label"]
    ]


def label_column(table: pd.DataFrame, file: str, wanted: str | None, usual: Sequence[str]) -> str:
    """Column of labels: that which is wanted, else the first usual one with anything in it."""
    candidates = [wanted] if wanted else list(usual)
    by_lower = {str(name).lower(): str(name) for name in table.columns}
    columns = [by_lower[name.lower()] for name in candidates if name.lower() in by_lower]
    if not columns:
        raise AnnotationsError(
            f"{file}: there is no column {' or '.join(map(repr, candidates))}; name the column "
            f"that holds the labels with source_column=, found {', '.join(table.columns)}."
        )
    return next((name for name in columns if table[name].str.strip().any()), columns[0])


# --- Raven ------------------------------------------------------------------------------------


def _read_raven(text: str, file: str, names: TableNames, wanted: str | None) -> pd.DataFrame:
    tabs = "\t" in text.lstrip().partition("\n")[0]  # or it was saved as CSV by a spreadsheet
    separator = "\t" if tabs else None
    table = read_table(text, file, "expected a Raven table", separator=separator, quoted=not tabs)
    missing = [name for name in _RAVEN_TIMES if name not in table.columns]
    if missing:
        raise AnnotationsError(
            f"{file}: the column {missing[0]!r} is missing; expected a Raven selection table, "
            f"found {', '.join(table.columns)}."
        )
    # A selection of the waveform and the spectrogram is there twice; duplicates go later.
    label = label_column(table, file, wanted, _RAVEN_LABELS)
    start, end = (seconds(table[name], file) for name in _RAVEN_TIMES)
    files = names.by_columns(table, _RAVEN_FILES)
    if "File Offset (s)" in table.columns:
        # Begin times count through all recordings that are open; offsets are within one.
        offset = seconds(table["File Offset (s)"], file)
        start, end = offset, offset + (end - start)
    elif len(set(files)) > 1:
        raise AnnotationsError(
            f"{file}: this table is about {len(set(files))} recordings, but has no column "
            f"'File Offset (s)'; add it to the table in Raven."
        )
    return _frame(table, files, start, end, label)


# --- Kaleidoscope and BirdNET -----------------------------------------------------------------


def _read_kaleidoscope(text: str, file: str, names: TableNames, wanted: str | None) -> pd.DataFrame:
    table = read_table(text, file, "expected a table of Kaleidoscope")
    columns = {name.upper(): name for name in table.columns}
    for name in ("IN FILE", "OFFSET", "DURATION"):
        if name not in columns:
            raise AnnotationsError(
                f"{file}: the column {name!r} is missing; expected a table of Kaleidoscope, found "
                f"{', '.join(table.columns)}."
            )
    label = label_column(table, file, wanted, _KALEIDOSCOPE_LABELS)
    start = seconds(table[columns["OFFSET"]], file)
    end = start + seconds(table[columns["DURATION"]], file)
    parts = table.assign(**dict.fromkeys({"INDIR", "FOLDER"} - {*columns}, ""))
    outer, inner, last = (
        parts[columns.get(key, key)].str.strip() for key in ("INDIR", "FOLDER", "IN FILE")
    )
    below = (inner + "/" + last).str.lstrip("/")
    files = table[[]].assign(whole=outer + "/" + below, below=below, last=last)
    return _frame(table, names.by_columns(files, ["whole", "below", "last"]), start, end, label)


def _read_birdnet(text: str, file: str, names: TableNames, wanted: str | None) -> pd.DataFrame:
    table = read_table(text, file, "expected a table of BirdNET")
    columns = {name.lower(): name for name in table.columns}
    times = next((pair for pair in _BIRDNET_TIMES if {*pair} <= {*columns}), None)
    if times is None:
        raise AnnotationsError(
            f"{file}: the columns 'Start (s)' and 'End (s)' are missing; expected a table of "
            f"BirdNET, found {', '.join(table.columns)}."
        )
    label = label_column(table, file, wanted, _BIRDNET_LABELS)
    start, end = (seconds(table[columns[name]], file, clock=True) for name in times)
    return _frame(table, names.by_columns(table, _BIRDNET_FILES), start, end, label)


# --- Audacity and Sonic Visualiser --------------------------------------------------------------


def _read_audacity(text: str, file: str, names: TableNames, _: str | None) -> pd.DataFrame:
    lines, rows = [], []
    for number, cells in read_rows(text, file, "\t", quoted=False):
        if cells[0] == "\\":  # a second line holds the frequencies
            continue
        if len(cells) < 2 or not (is_number(cells[0]) and is_number(cells[1])):
            line = "\t".join(cells)
            raise AnnotationsError(
                f"{file}: line {number} is {line[:200]!r}; expected start, end and label with "
                f"tabs between them, as Audacity exports labels."
            )
        lines.append(number)
        rows.append((cells[0], cells[1], "".join(cells[2:3])))
    return _of_one_recording(lines, rows, file, names)


def _of_one_recording(
    lines: list[int], rows: list[tuple[str, str, str]], file: str, names: TableNames
) -> pd.DataFrame:
    """Table of the recording that the file is named after; rows are start, end, label."""
    import pandas as pd

    table = pd.DataFrame(rows, columns=["start", "end", "label"], index=lines, dtype=object)
    start, end = seconds(table["start"], file), seconds(table["end"], file)
    return _frame(table, [names.by_table_name()] * len(table), start, end, "label")


def _read_sonic_visualiser(text: str, file: str, names: TableNames, _: str | None) -> pd.DataFrame:
    if text.lstrip().startswith("<"):
        return _read_layer(text, file, names)
    cells = first_cells(text)
    # Without a heading; boxes have a fourth number.
    columns = {"time": 0, "duration": 2, "label": 4 if len(cells) == 5 else 3}
    heading = not is_number(cells[0])
    if heading:
        columns = {name: cells.index(name) for name in columns if name in cells}
        if "time" not in columns or "duration" not in columns:
            raise AnnotationsError(
                f"{file}: the columns TIME and DURATION are missing; expected a layer of regions "
                f"from Sonic Visualiser, found {', '.join(cells)}."
            )
    separator = find_separator(text.lstrip().partition("\n")[0])
    lines, rows = [], []
    for number, row in read_rows(text, file, separator):
        if heading and [cell.strip().lower() for cell in row] == cells:
            continue
        time, duration = (
            row[columns[name]] if columns[name] < len(row) else "" for name in ("time", "duration")
        )
        if not (is_number(time) and is_number(duration)):
            raise AnnotationsError(
                f"{file}: line {number} is {separator.join(row)[:200]!r}; expected time, value, "
                f"duration and label of a region, as Sonic Visualiser exports them."
            )
        start, length = (float(text.replace(",", ".")) for text in (time, duration))
        label = columns.get("label", len(row))
        lines.append(number)
        rows.append((str(start), str(start + length), "".join(row[label : label + 1])))
    return _of_one_recording(lines, rows, file, names)


def _read_layer(text: str, file: str, names: TableNames) -> pd.DataFrame:
    """Regions of a layer that was saved as .svl; its times count samples."""
    expected = "expected a layer of regions from Sonic Visualiser (.svl)"
    if "<!ENTITY" in text:  # could be made to unfold beyond any memory
        raise AnnotationsError(f"{file}: this XML defines entities; {expected}.")
    try:
        root = ElementTree.fromstring(text)
        model = root.find(".//model")
        rate = float("" if model is None else model.get("sampleRate", ""))
        rows = [
            (int(point.get("frame", "")), int(point.get("duration", "")), point.get("label", ""))
            for point in root.iter("point")
        ]
    except (ElementTree.ParseError, ValueError):
        raise AnnotationsError(f"{file}: cannot be read; {expected}.") from None
    if not (np.isfinite(rate) and rate > 0):
        raise AnnotationsError(f"{file}: sampleRate={rate:g} is no sample rate; {expected}.")
    texts = [(repr(at / rate), repr((at + length) / rate), label) for at, length, label in rows]
    return _of_one_recording(list(range(1, len(rows) + 1)), texts, file, names)


# --- How they are told --------------------------------------------------------------------------


def _has(*names: str) -> Callable[[str], bool]:
    return lambda text: {*names} <= {*first_cells(text)}


def _is_birdnet(text: str) -> bool:
    cells = {*first_cells(text)}
    named = cells & {"scientific name", "common name", "scientific_name", "species_name"}
    return bool(named) and any({*pair} <= cells for pair in _BIRDNET_TIMES)


def _is_audacity(text: str) -> bool:
    cells = text.lstrip("\n").partition("\n")[0].split("\t")
    # BirdNET writes its confidence behind the label; three numbers are of Sonic Visualiser.
    few = len(cells) in {2, 3} or (len(cells) == 4 and not is_number(cells[2]))
    return few and is_number(cells[0]) and is_number(cells[1])


def _is_sonic_visualiser(text: str) -> bool:
    cells = first_cells(text)
    regions = 3 <= len(cells) <= 4 and all(map(is_number, cells[:3]))
    boxes = len(cells) == 5 and all(map(is_number, cells[:4]))
    return regions or boxes or {"time", "duration"} <= {*cells} or "<sv>" in text[:500]


PROGRAMS = {
    "raven": Program((".txt", ".tsv"), _has(_RAVEN_TIMES[0].lower()), _read_raven),
    "audacity": Program((".txt",), _is_audacity, _read_audacity, has_columns=False),
    "kaleidoscope": Program((".csv",), _has("in file", "offset", "duration"), _read_kaleidoscope),
    "birdnet": Program((".csv", ".txt"), _is_birdnet, _read_birdnet),
    "sonic-visualiser": Program(
        (".csv", ".txt", ".svl"), _is_sonic_visualiser, _read_sonic_visualiser, has_columns=False
    ),
}
"""Programs by the name of their format, in the order in which a file is tried."""


def guess_program(text: str) -> str | None:
    """Format of a text, or None."""
    return next((name for name, program in PROGRAMS.items() if program.fits(text)), None)
