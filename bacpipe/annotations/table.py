"""The annotation table: what was heard in which seconds of which recording.

A CSV file with the columns ``audiofilename``, ``start`` and ``end`` (seconds of the recording)
and one or more ``label:<kind>``.  Every row is one label; what several animals do at the same
time are several rows, which may overlap.  Rows are taken as follows:

==================  ===========================================================================
unknown recording   left out; all of them are counted and listed in one warning
ambiguous name      error: a bare name must belong to one recording
not a number        error, names the row; a decimal comma is understood unless it separates
                    the columns
end before start    error, names the row
zero length         left out with a warning: such a row holds no sound
start below 0       cut to 0
duplicate           left out
behind the end      kept; only what lies inside of the recording counts
empty label         the row says nothing for this kind of label
==================  ===========================================================================
"""

from __future__ import annotations

import codecs
import csv
import difflib
import io
import logging
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bacpipe.audio.windows import merge_segments
from bacpipe.errors import AnnotationsError

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

LABEL_PREFIX = "label:"
REQUIRED_COLUMNS = ("audiofilename", "start", "end")

_EXPECTED = "expected the columns audiofilename, start, end (seconds) and label:<kind>"
_SEPARATORS = (",", ";", "\t", "|")
_MOST_LISTED = 5  # names or rows in one message
# What other programs call our columns, in lower case without blanks and underscores.
_SYNONYMS = {
    "audiofilename": ("filename", "file", "audio", "audiofile", "recording", "path", "filepath",
                      "beginfile", "beginpath", "wavfile", "fname"),
    "start": ("begin", "onset", "starttime", "begintime", "begintime(s)", "start(s)", "start_s",
              "tmin", "starttime(s)", "onset_s"),
    "end": ("stop", "offset", "endtime", "endtime(s)", "end(s)", "tmax", "stoptime"),
}  # fmt: skip


def read_annotations(path: str | Path, recordings: Sequence[str]) -> pd.DataFrame:
    """Read an annotation table.

    Parameters
    ----------
    path : str or Path
        CSV file in UTF-8 (or UTF-16 with its mark); the separator may be a comma, a semicolon,
        a tab or a vertical bar.
    recordings : sequence of str
        Names of all recordings: posix paths relative to the audio folder.

    Returns
    -------
    pandas.DataFrame
        Columns audiofilename (one of `recordings`), start, end (float64, seconds) and every
        label:<kind> (text, missing where a row has none).

    Raises
    ------
    AnnotationsError
        If the file is missing or is not such a table; names the column or row.
    """
    path = Path(path)
    return _check(_read_csv(path), recordings, path.name)


def check_annotations(
    table: pd.DataFrame, recordings: Sequence[str], *, source: str = "label_df"
) -> pd.DataFrame:
    """Bring an annotation table, whose first row is row 1 in messages, into its normal form.

    Columns other than audiofilename, start, end and label:<kind> are left out; `source` is what
    messages call the table.  The rest is as for `read_annotations`.
    """
    return _check(table.set_axis(range(1, len(table) + 1)), recordings, source)


def _check(table: pd.DataFrame, recordings: Sequence[str], source: str) -> pd.DataFrame:
    """Check a table whose index is the number of the row in messages."""
    table = table.set_axis([str(name).strip() for name in table.columns], axis=1)
    _check_columns([str(name) for name in table.columns], source)
    kinds = label_columns(table)
    texts = table[[*REQUIRED_COLUMNS, *kinds]].map(_text)
    if texts.empty:
        raise AnnotationsError(f"{source}: this table has no rows; {_EXPECTED}.")
    checked = texts.assign(start=seconds(texts["start"], source), end=seconds(texts["end"], source))
    backwards = checked.index[checked["end"] < checked["start"]]
    if len(backwards):
        start, end = checked.loc[backwards[0], ["start", "end"]]
        raise AnnotationsError(
            f"{source}: row {backwards[0]} ends at {end:g} before it starts at {start:g} seconds; "
            f"correct or remove {_count(len(backwards), 'such row')}."
        )
    checked[["start", "end"]] = checked[["start", "end"]].clip(lower=0.0)
    checked["audiofilename"] = _resolve_names(texts["audiofilename"], recordings, source)
    checked[kinds] = checked[kinds].mask(checked[kinds] == "")
    empty = checked["end"] == checked["start"]
    if empty.any():
        number = _count(int(empty.sum()), "annotation")
        rows = _listed(map(str, checked.index[empty]))
        logger.warning("%s: %s of zero length left out (row %s).", source, number, rows)
    known = checked["audiofilename"].notna()
    if not known.any():
        raise AnnotationsError(
            f"{source}: no row is about one of the {_count(len(recordings), 'recording')}; "
            f"the column audiofilename names {_listed(texts['audiofilename'].unique())}, expected "
            f"paths relative to the audio folder, such as {next(iter(recordings), '')}."
        )
    return checked[known & ~empty].drop_duplicates().reset_index(drop=True)


def label_columns(table: pd.DataFrame) -> list[str]:
    """Names of the label columns of an annotation table."""
    return [str(name) for name in table.columns if str(name).startswith(LABEL_PREFIX)]


def label_kind(label_column: str) -> str:
    """Kind of a label column: 'species' for both 'label:species' and 'species'."""
    return label_column.removeprefix(LABEL_PREFIX)


def file_part(kind: str) -> str:
    """Kind of label as part of a file's name."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in kind)


def require_label_column(
    table: pd.DataFrame, label_column: str, *, source: str = "annotations"
) -> str:
    """Full name of a label column of the table.

    Raises
    ------
    AnnotationsError
        If the table has no such column.
    """
    wanted = LABEL_PREFIX + label_kind(label_column)
    columns = label_columns(table)
    if wanted in columns:
        return wanted
    has = f"it has {', '.join(columns)}" if columns else "it has no column label:<kind> at all"
    closest = difflib.get_close_matches(wanted, columns, n=1)
    hint = (
        f"; did you mean label_column={label_kind(closest[0])!r}?"
        if closest
        else f"; names of columns with labels begin with {LABEL_PREFIX!r}."
    )
    raise AnnotationsError(f"{source}: the column {wanted!r} is missing, {has}{hint}")


def annotated_segments(
    table: pd.DataFrame, min_length: float
) -> dict[str, tuple[tuple[float, float], ...]]:
    """Annotated parts of each recording that are at least `min_length` seconds long.

    They are (start, end) in seconds, sorted and each once, by recording; recordings without any are
    left out.  Overlapping parts stay apart.
    """
    pairs: dict[str, list[tuple[float, float]]] = defaultdict(list)
    kept = long_enough(table, min_length)
    for name, start, end in zip(kept["audiofilename"], kept["start"], kept["end"], strict=True):
        pairs[str(name)].append((float(start), float(end)))
    return {
        name: tuple((start, stop) for start, stop in merge_segments(pairs[name]))
        for name in sorted(pairs)
    }


def long_enough(table: pd.DataFrame, min_length: float) -> pd.DataFrame:
    """Rows of at least `min_length` seconds; the tolerance is below what a decimal can say."""
    return table[table["end"] - table["start"] >= min_length - 1e-9]


# --- Reading ----------------------------------------------------------------------------------


def _read_csv(path: Path) -> pd.DataFrame:
    """Cells of a file as text; the index is the line in the file."""
    import pandas as pd

    absent = f"there is no such file; {_EXPECTED}, as CSV. Its name is the setting"
    text = decode(path, f"{absent} annotations_filename.")
    first = next((line for line in text.splitlines() if line.strip()), None)
    if first is None:
        raise AnnotationsError(f"{path.name}: this file is empty; {_EXPECTED}.")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_separator(first))
    header: list[str] = []
    lines, rows = [], []
    try:
        for row in reader:
            if not any(map(str.strip, row)):
                continue
            if not header:
                header = _without_blank_end(row, 0)
                continue
            row = _without_blank_end(row, len(header))
            if len(row) > len(header):
                raise AnnotationsError(
                    f"{path.name}: row {reader.line_num} has {len(row)} cells, but there are "
                    f"{len(header)} columns; put a cell that holds the separator in quotes."
                )
            lines.append(reader.line_num)
            rows.append(row + [""] * (len(header) - len(row)))
    except csv.Error as error:
        raise AnnotationsError(
            f"{path.name}: line {reader.line_num} cannot be read ({error}); {_EXPECTED}, as CSV."
        ) from None
    return pd.DataFrame(rows, columns=header, index=lines, dtype=object)


def _without_blank_end(row: list[str], length: int) -> list[str]:
    """Row without the empty cells at its end, as spreadsheets leave them, beyond a length."""
    while len(row) > length and not row[-1].strip():
        row = row[:-1]
    return row


def decode(path: Path, missing: str = "there is no such file of annotations.") -> str:
    """Text of a file in UTF-8, or in UTF-16 with its mark.

    Raises
    ------
    AnnotationsError
        If it is missing, about which `missing` is said, cannot be read or is something else.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise AnnotationsError(f"{path}: {missing}") from None
    except OSError as error:
        raise AnnotationsError(f"{path}: cannot be read ({error.strerror}).") from None
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise AnnotationsError(
            f"{path.name}: line {line} is not UTF-8; save the table as 'CSV UTF-8'."
        ) from None


def _separator(header: str) -> str:
    def fit(separator: str) -> tuple[int, int]:
        names = [name.strip() for name in next(csv.reader([header], delimiter=separator), [])]
        return sum(name in REQUIRED_COLUMNS for name in names), len(names)

    return max(_SEPARATORS, key=fit)


def _check_columns(names: list[str], source: str) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise AnnotationsError(f"{source}: the column {twice[0]!r} is there twice; keep one.")
    missing = [name for name in REQUIRED_COLUMNS if name not in names]
    if not missing:
        return
    hints = [f"rename {other!r} to {name!r}" for name in missing if (other := _alias(name, names))]
    raise AnnotationsError(
        f"{source}: the column{'s' if len(missing) > 1 else ''} "
        f"{', '.join(map(repr, missing))} {'are' if len(missing) > 1 else 'is'} missing; "
        f"{_EXPECTED}, found {', '.join(names)}."
        + (f" To use this table, {', '.join(hints)}." if hints else "")
    )


def _alias(wanted: str, names: Iterable[str]) -> str | None:
    """Column that probably is meant to be `wanted`."""
    for name in names:
        plain = name.lower().replace(" ", "").replace("_", "")
        if plain == wanted or plain in _SYNONYMS[wanted]:
            return name
    return None


# --- Checking ---------------------------------------------------------------------------------


def _text(value: object) -> str:
    """Cell as text; empty where a value is missing."""
    if value is None or value != value:
        return ""
    return str(value).strip()


def seconds(column: pd.Series, source: str) -> pd.Series:
    """Numbers of a column of texts whose index is the row in messages; float64.

    Raises
    ------
    AnnotationsError
        If a text is no number; a decimal comma is understood.
    """
    import pandas as pd

    numbers = pd.to_numeric(column.str.replace(",", ".", regex=False), errors="coerce")
    numbers = numbers.astype(np.float64)
    wrong = column[~np.isfinite(numbers)]
    if len(wrong):
        raise AnnotationsError(
            f"{source}: the column {column.name!r} holds {wrong.iloc[0]!r} in row "
            f"{wrong.index[0]}; expected seconds as a number, such as 12.5"
            + (f" (there are {len(wrong)} such rows)." if len(wrong) > 1 else ".")
        )
    return numbers


def _resolve_names(column: pd.Series, recordings: Sequence[str], source: str) -> pd.Series:
    """Recordings that the rows are about; missing where there is none of that name."""
    names = RecordingNames(recordings)
    name_of: dict[str, str | None] = {}
    first_rows = column.drop_duplicates()
    for row, given in first_rows.items():
        if not given:
            raise AnnotationsError(
                f"{source}: the column 'audiofilename' is empty in row {row}; expected the path "
                f"of a recording, relative to the audio folder."
            )
        candidates = names.find(given)
        if len(candidates) > 1:
            raise AnnotationsError(
                f"{source}: {given!r} in row {row} could be {' or '.join(candidates[:3])}; "
                f"write the path relative to the audio folder."
            )
        name_of[given] = candidates[0] if candidates else None
    unknown = [given for given, name in name_of.items() if name is None]
    if unknown:
        logger.warning(
            "%s: %s left out, because %s not among the recordings: %s.",
            source,
            _count(int(column.isin(unknown).sum()), "row"),
            f"their {len(unknown)} files are" if len(unknown) > 1 else "the file is",
            _listed(unknown),
        )
    return column.map(name_of)


class RecordingNames:
    """Finds recordings by what annotation tables call them.

    Recordings are posix paths relative to the audio folder.
    """

    def __init__(self, recordings: Sequence[str]) -> None:
        self._exact = frozenset(recordings)
        self._by_path: dict[str, list[str]] = defaultdict(list)
        self._by_name: dict[str, list[str]] = defaultdict(list)
        for recording in recordings:
            path = _comparable(recording)
            self._by_path[path].append(recording)
            self._by_name[path.rpartition("/")[2]].append(recording)

    def find(self, given: str) -> list[str]:
        """Recordings that may be meant: none, one, or several when the name is ambiguous.

        Either slash will do; so will a bare name, or a path that leads to the audio folder
        from elsewhere.  Upper and lower case matter only to tell two recordings apart.
        """
        plain = given.replace("\\", "/").removeprefix("./")
        if plain in self._exact:
            return [plain]
        path = _comparable(plain)
        if path in self._by_path:
            return self._by_path[path]
        folder, _, name = path.rpartition("/")
        same_name = self._by_name.get(name, [])
        if not folder:
            return same_name
        tails = [other for other in same_name if path.endswith("/" + _comparable(other))]
        deepest = max((other.count("/") for other in tails), default=0)
        return [other for other in tails if other.count("/") == deepest]


def _comparable(path: str) -> str:
    # macOS writes decomposed accents into file names, spreadsheets composed ones.
    return unicodedata.normalize("NFC", path).casefold()


def _listed(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - _MOST_LISTED} more" if len(every) > _MOST_LISTED else ""
    return ", ".join(every[:_MOST_LISTED]) + more


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
