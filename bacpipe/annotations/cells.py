"""Text tables as programs write them: encodings, line ends, separators, numbers, empty rows.

All readers of annotations share these rules; every cell stays text until it is asked for seconds.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bacpipe.errors import AnnotationsError

if TYPE_CHECKING:
    import pandas as pd

_SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}
_QUOTED_OR_END = re.compile(r'"[^"]*"|\r\n?')
_END = "\x1e"  # a line of our own behind the last of a text
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins like the mark of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_EXCEL_SEPARATOR = re.compile(r'"?sep=(.)"?\s*')
FORMULA = r"^'*[=+\-@\t\r]"
"""How texts begin that a spreadsheet takes for formulas, with the apostrophes that they may have.

One more apostrophe makes it a text, and without it the text is what it was.
"""
_THOUSANDS = r"\s*\d{1,3}(?:,\d{3})+\s*"
_CLOCK = re.compile(r"(?:(?P<hours>\d+):)?(?P<minutes>\d{1,2}):(?P<seconds>\d{1,2}(?:[.,]\d+)?)")


def decode(
    path: Path,
    encoding: str | None = None,
    missing: str = "there is no such file of annotations.",
    advice: str = (
        "save the table as 'CSV UTF-8', or read it with "
        "bacpipe.import_annotations(..., encoding='cp1252') if it is from Windows."
    ),
) -> str:
    """Text of a file in UTF-8, in UTF-16 or UTF-32 with its mark, or in `encoding`.

    Otherwise `advice` is given.  Every end of line is a newline, but for those within quotes.

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
    codec = encoding or next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8-sig")
    name = codec.upper().removesuffix("-SIG")
    try:
        text = data.decode(codec)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise AnnotationsError(f"{path.name}: line {line} is not {name}; {advice}") from None
    except LookupError:
        raise AnnotationsError(
            f"encoding={encoding!r} is not known; expected one of Python's, such as 'cp1252'."
        ) from None
    if text.count("\0") > len(text) // 4:
        raise AnnotationsError(
            f"{path.name}: this is no text in {name} (it may be UTF-16 without its mark); save the "
            f"table as 'CSV UTF-8'."
        )
    return with_newlines(text)


def with_newlines(text: str) -> str:
    """Text in which every end of line is a newline, but for those within quotes."""
    return _QUOTED_OR_END.sub(lambda part: part[0] if part[0][0] == '"' else "\n", text)


def first_cells(text: str) -> list[str]:
    """Cells of the first line that is not blank, stripped, in lower case."""
    line = _first_line(text)
    row = next(csv.reader([line], delimiter=find_separator(line)), [])
    return [cell.strip().lower() for cell in row]


def _first_line(text: str) -> str:
    """First line that holds anything but the separator that Excel is told."""
    for line in text.split("\n"):
        if line.strip() and not _EXCEL_SEPARATOR.fullmatch(line):
            return line
    return ""


def find_separator(line: str, wanted: Sequence[str] = ()) -> str:
    """Separator that gives the most of the `wanted` cells, then the most cells."""

    def fit(separator: str) -> tuple[int, int]:
        names = [name.strip() for name in next(csv.reader([line], delimiter=separator), [])]
        return sum(name in wanted for name in names), len(names)

    return max(_SEPARATORS, key=fit)


def read_rows(
    text: str, source: str, separator: str, *, quoted: bool = True
) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not blank, each with the number of its (last) line.

    Raises
    ------
    AnnotationsError
        If this is no such table; `source` is what the message calls it.
    """
    # A quotation mark that does not close takes everything behind it for its text, this line, too.
    ends = f"\n{_END}" if quoted else ""
    before = 0
    reader = csv.reader(
        io.StringIO(text + ends, newline=""),
        delimiter=separator,
        quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
    )
    try:
        for row in reader:
            if ends and row == [_END]:
                return
            if ends and row and row[-1].endswith(ends):
                raise AnnotationsError(
                    f"{source}: in line {before + 1} there is a quotation mark that does not close."
                )
            before = reader.line_num
            if any(map(str.strip, row)) and not _EXCEL_SEPARATOR.fullmatch(separator.join(row)):
                yield reader.line_num, row
    except csv.Error as error:
        raise AnnotationsError(
            f"{source}: line {reader.line_num} cannot be read as CSV ({error})."
        ) from None


def read_table(
    text: str,
    source: str,
    expected: str,
    *,
    separator: str | None = None,
    wanted: Sequence[str] = (),
    quoted: bool = True,
) -> pd.DataFrame:
    """Cells below a heading, as text; the index is the line in the file.

    A heading that is repeated further down, as in tables that were joined, is left out.

    Parameters
    ----------
    text, source : str
        Content of the file, and its name for messages.
    expected : str
        What messages say was expected.
    separator : str, optional
        Found out from the heading unless given.
    wanted : sequence of str
        Names that help to find the separator.
    quoted : bool
        Whether quotes hold cells together.
    """
    import pandas as pd

    separator = separator or find_separator(_first_line(text), wanted)
    header: list[str] = []
    lines, rows = [], []
    for number, cells in read_rows(text, source, separator, quoted=quoted):
        row = _without_blank_end(cells, len(header))
        if not header:
            header = [name.strip() for name in row]
            if sum(map(is_number, header)) > 1:
                raise AnnotationsError(
                    f"{source}: row {number} holds {', '.join(header)}, where the names of the "
                    f"columns belong; {expected}."
                )
            refuse_twice(header, source)
        elif len(row) > len(header):
            raise AnnotationsError(
                f"{source}: row {number} has {len(row)} cells, but there are {len(header)} "
                f"columns; take the {_SEPARATORS[separator]} out of its texts"
                f"{', or put them in quotes' if quoted else ''}."
            )
        elif [cell.strip() for cell in row] != header:
            lines.append(number)
            rows.append(row + [""] * (len(header) - len(row)))
    if not header:
        raise AnnotationsError(f"{source}: this file is empty; {expected}.")
    return pd.DataFrame(rows, columns=header, index=lines, dtype=object)


def _without_blank_end(row: list[str], length: int) -> list[str]:
    """Row without the empty cells at its end, as spreadsheets leave them, beyond a length."""
    while len(row) > length and not row[-1].strip():
        row = row[:-1]
    return row


def refuse_twice(names: Sequence[str], source: str) -> None:
    """Raise AnnotationsError if two columns have the same name."""
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice is not None:
        raise AnnotationsError(f"{source}: the column {twice!r} is there twice; keep one.")


def is_number(text: str) -> bool:
    """Whether a cell is a finite number; a decimal comma is understood."""
    try:
        return bool(np.isfinite(float(text.replace(",", "."))))
    except ValueError:
        return False


def seconds(column: pd.Series, source: str, *, clock: bool = False) -> pd.Series:
    """Numbers of a column of texts whose index is the row in messages; float64.

    A decimal comma is understood, and with `clock` also 01:02:03.5.

    Raises
    ------
    AnnotationsError
        If a text is no number.
    """
    import pandas as pd

    has_comma = column.str.contains(",", regex=False)
    if has_comma.any():  # few tables have any
        _refuse_thousands(column, has_comma, source)
    texts = column.map(_plain_seconds) if clock else column
    numbers = pd.to_numeric(texts.str.replace(",", ".", regex=False), errors="coerce")
    numbers = numbers.astype(np.float64)
    wrong = column[~np.isfinite(numbers)]
    if len(wrong):
        raise AnnotationsError(
            f"{source}: the column {column.name!r} holds {wrong.iloc[0]!r} in row "
            f"{wrong.index[0]}; expected seconds as a number, such as 12.5"
            + (f" (there are {len(wrong)} such rows)." if len(wrong) > 1 else ".")
        )
    return numbers


def _refuse_thousands(column: pd.Series, has_comma: pd.Series, source: str) -> None:
    """Raise AnnotationsError if all commas could be of thousands, and other numbers have none."""
    import pandas as pd

    grouped = column.str.fullmatch(_THOUSANDS)
    plain = ~has_comma & (pd.to_numeric(column, errors="coerce") != 0)
    if plain.any() and not (has_comma & ~grouped).any():
        raise AnnotationsError(
            f"{source}: the column {column.name!r} holds {column[grouped].iloc[0]!r} in row "
            f"{column.index[grouped][0]}, which could be a thousand or a decimal comma; write it "
            f"without a comma, or all numbers with one."
        )


def _plain_seconds(text: str) -> str:
    match = _CLOCK.fullmatch(text.strip())
    if match is None:
        return text
    whole = 3600 * int(match["hours"] or 0) + 60 * int(match["minutes"])
    return str(whole + float(match["seconds"].replace(",", ".")))


def escaped(cell: object) -> object:
    """A text as no spreadsheet takes it for a formula; what is none, and all else, as it is.

    Examples
    --------
    >>> escaped("-12_site.wav"), escaped("a.wav"), escaped(-12)
    ("'-12_site.wav", 'a.wav', -12)
    """
    is_number = isinstance(cell, int | float | np.number)
    return cell if is_number or not re.match(FORMULA, str(cell)) else f"'{cell}"


def unescaped(text: str) -> str:
    """A text as it was before an apostrophe kept spreadsheets from taking it for a formula.

    Examples
    --------
    >>> unescaped("'=wren"), unescaped("'wren"), unescaped("=wren")
    ('=wren', "'wren", '=wren')
    """
    return text[1:] if text[:1] == "'" and re.match(FORMULA, text) else text


def listed(names: Iterable[object], most: int = 5) -> str:
    """The first few names, and how many more there are."""
    every = [str(name) for name in names]
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more
