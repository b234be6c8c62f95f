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
behind the end      kept, with a warning that names the rows; only what lies inside counts
empty label         the row says nothing for this kind of label
==================  ===========================================================================
"""

from __future__ import annotations

import difflib
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from bacpipe.annotations.cells import (
    decode,
    listed,
    read_table,
    refuse_twice,
    seconds,
    unescaped,
)
from bacpipe.annotations.programs import guess_program
from bacpipe.annotations.recording_names import RecordingNames, folded, folder_above
from bacpipe.audio.files import read_recording
from bacpipe.audio.windows import merge_segments
from bacpipe.errors import AnnotationsError, AudioError, counted

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

LABEL_PREFIX = "label:"
REQUIRED_COLUMNS = ("audiofilename", "start", "end")

EXPECTED = "expected the columns audiofilename, start, end (seconds) and label:<kind>"
# Programs round times, and recordings end in the middle of their last tenth.
_BEHIND = 0.1  # seconds
# What other programs call our columns, in lower case without blanks and underscores.
_SYNONYMS = {
    "audiofilename": ("filename", "file", "audio", "audiofile", "recording", "path", "filepath",
                      "beginfile", "beginpath", "wavfile", "fname"),
    "start": ("begin", "onset", "starttime", "begintime", "begintime(s)", "start(s)", "start_s",
              "tmin", "starttime(s)", "onset_s"),
    "end": ("stop", "offset", "endtime", "endtime(s)", "end(s)", "tmax", "stoptime"),
}  # fmt: skip


LengthOf = Callable[[str], float | None]
"""Length of a recording in seconds; None if nobody knows."""


def read_annotations(
    path: str | Path, recordings: Sequence[str], length_of: LengthOf | None = None
) -> pd.DataFrame:
    """Read an annotation table.

    Parameters
    ----------
    path : str or Path
        CSV file in UTF-8 (or UTF-16 with its mark); the separator may be a comma, a semicolon,
        a tab or a vertical bar.
    recordings : sequence of str
        Names of all recordings: posix paths relative to the audio folder.
    length_of : callable, optional
        Lets annotations behind the end of their recording be told.

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
    absent = f"there is no such file; {EXPECTED}, as CSV. Its name is the setting"
    text = decode(path, missing=f"{absent} annotations_filename.")
    table = read_table(text, path.name, EXPECTED, wanted=REQUIRED_COLUMNS)
    program = None if {*REQUIRED_COLUMNS} <= {*table.columns} else guess_program(text)
    if program is not None:
        raise AnnotationsError(
            f"{path.name}: this is a table in the format {program!r}; {EXPECTED}. Convert it with "
            f"bacpipe.import_annotations(..., format={program!r})."
        )
    folder = path.parent.resolve().name  # in most cases that of the recordings
    return check_rows(table, recordings, path.name, length_of, folder)


def check_annotations(
    table: pd.DataFrame,
    recordings: Sequence[str],
    *,
    source: str = "label_df",
    length_of: LengthOf | None = None,
) -> pd.DataFrame:
    """Bring an annotation table, whose first row is row 1 in messages, into its normal form.

    Columns other than audiofilename, start, end and label:<kind> are left out; `source` is what
    messages call the table.  The rest is as for `read_annotations`.
    """
    return check_rows(table.set_axis(range(1, len(table) + 1)), recordings, source, length_of)


def check_rows(
    table: pd.DataFrame,
    recordings: Sequence[str],
    source: str,
    length_of: LengthOf | None,
    folder: str = "",
    *,
    called: str = "audiofilename",
) -> pd.DataFrame:
    """Check a table whose index is the row in messages; the rest as for `check_annotations`.

    Rows may name recordings by paths that lead to the audio folder; what lies in its `folder` goes
    before the same names in other folders.  `called` is how messages call the column of recordings.
    """
    table = table.set_axis([str(name).strip() for name in table.columns], axis=1)
    _check_columns([str(name) for name in table.columns], source)
    kinds = label_columns(table)
    texts = table[[*REQUIRED_COLUMNS, *kinds]].map(_text)
    texts["audiofilename"] = table["audiofilename"].map(_whole_text)  # names may begin with a blank
    if texts.empty:
        raise AnnotationsError(f"{source}: this table has no rows; {EXPECTED}.")
    checked = texts.assign(start=seconds(texts["start"], source), end=seconds(texts["end"], source))
    backwards = checked.index[checked["end"] < checked["start"]]
    if len(backwards):
        start, end = checked.loc[backwards[0], ["start", "end"]]
        raise AnnotationsError(
            f"{source}: row {backwards[0]} ends at {end:g} before it starts at {start:g} seconds; "
            f"correct or remove {counted(len(backwards), 'such row')}."
        )
    checked[["start", "end"]] = checked[["start", "end"]].clip(lower=0.0)
    checked["audiofilename"] = _resolve_names(
        texts["audiofilename"], recordings, source, folder, called
    )
    # As a table for spreadsheets may have them.
    checked[kinds] = checked[kinds].map(unescaped).map(str.strip)
    checked[kinds] = checked[kinds].mask(checked[kinds] == "")
    empty = checked["end"] == checked["start"]
    if empty.any():
        number = counted(int(empty.sum()), "annotation")
        rows = listed(checked.index[empty])
        logger.warning("%s: %s of zero length left out (row %s).", source, number, rows)
    known = checked["audiofilename"].notna()
    if not known.any():
        raise AnnotationsError(
            f"{source}: no row is about one of the {counted(len(recordings), 'recording')}; "
            f"the column {called} names {listed(texts['audiofilename'].unique())}, expected "
            f"paths relative to the audio folder, such as {next(iter(recordings), '')}"
            f"{_hint_at_ending(texts['audiofilename'].unique(), recordings)}."
        )
    checked = checked[known & ~empty]
    if length_of is not None:
        _tell_what_is_behind_the_end(checked, length_of, source)
    return checked.drop_duplicates().reset_index(drop=True)


def check_labels(
    table: pd.DataFrame, recordings: Sequence[str], length_of: LengthOf | None = None
) -> pd.DataFrame:
    """Check labels of windows, which keep all their columns.

    Parameters
    ----------
    table : pandas.DataFrame
        With the columns recording, start, end and label; row 1 is the one with the index 0.
    recordings, length_of
        As for `read_annotations`.

    Raises
    ------
    AnnotationsError
        If a row is not possible, or none is about one of the recordings.
    """
    if table.empty:
        return table
    place = f"{LABEL_PREFIX}row"
    plain = table.rename(columns={"recording": "audiofilename"})[[*REQUIRED_COLUMNS]]
    plain[place] = [str(row) for row in range(len(table))]
    plain = plain.set_axis(table.index + 1)
    checked = check_rows(plain, recordings, "labels", length_of, called="recording")
    kept = table.iloc[checked[place].astype(int)].assign(
        recording=checked["audiofilename"].to_numpy(),
        start=checked["start"].to_numpy(),
        end=checked["end"].to_numpy(),
    )
    kept["label"] = kept["label"].map(lambda label: unescaped(_text(label)).strip())
    if (nameless := kept.index[kept["label"] == ""]).size:
        raise AnnotationsError(
            f"labels: row {nameless[0] + 1} has no label; expected a class's name."
        )
    return kept


def length_in_header(audio_dir: Path) -> LengthOf:
    """Make a function that reads the length of a recording in a folder from its header."""

    def length_of(name: str) -> float | None:
        try:
            return read_recording(audio_dir / name, audio_dir).duration
        except AudioError as error:
            logger.debug("%s: its annotations cannot be compared with its length: %s", name, error)
            return None

    return length_of


def _tell_what_is_behind_the_end(table: pd.DataFrame, length_of: LengthOf, source: str) -> None:
    lengths = {name: length_of(name) for name in table["audiofilename"].unique()}
    length = table["audiofilename"].map(lengths).astype("float64")
    behind = table.assign(length=length)[table["end"] > length + _BEHIND]
    if len(behind):
        logger.warning(
            "%s: %s behind the end of the recording, where only what lies inside counts: %s. "
            "Are these times within each recording, and seconds?",
            source,
            "an annotation ends" if len(behind) == 1 else f"{len(behind)} annotations end",
            listed(
                f"row {row.Index} ({row.start:g} to {row.end:g} s of {row.audiofilename}, which "
                f"has {row.length:.1f} s)"
                for row in behind.itertuples()
            ),
        )


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


def _check_columns(names: list[str], source: str) -> None:
    refuse_twice(names, source)
    missing = [name for name in REQUIRED_COLUMNS if name not in names]
    if not missing:
        return
    hints = [f"rename {other!r} to {name!r}" for name in missing if (other := _alias(name, names))]
    raise AnnotationsError(
        f"{source}: the column{'s' if len(missing) > 1 else ''} "
        f"{', '.join(map(repr, missing))} {'are' if len(missing) > 1 else 'is'} missing; "
        f"{EXPECTED}, found {', '.join(names)}."
        + (f" To use this table, {', '.join(hints)}." if hints else "")
    )


def _alias(wanted: str, names: Iterable[str]) -> str | None:
    """Column that probably is meant to be `wanted`."""
    plain = {name.lower().replace(" ", "").replace("_", ""): name for name in names}
    if "onset" not in plain:
        plain.pop("offset", None)  # then it may be a start
    return next((plain[name] for name in (wanted, *_SYNONYMS[wanted]) if name in plain), None)


# --- Checking ---------------------------------------------------------------------------------


def _whole_text(value: object) -> str:
    """Cell as text; empty where a value is missing."""
    return "" if value is None or value != value else str(value)


def _text(value: object) -> str:
    """Cell as text, without the blanks around it."""
    return _whole_text(value).strip()


def _resolve_names(
    column: pd.Series, recordings: Sequence[str], source: str, folder: str, called: str
) -> pd.Series:
    """Recordings that the rows are about; missing where there is none of that name."""
    names = RecordingNames(recordings)
    name_of: dict[str, str | None] = {}
    first_rows = column.drop_duplicates()
    for row, given in first_rows.items():
        if not given.strip():
            raise AnnotationsError(
                f"{source}: the column {called!r} is empty in row {row}; expected the path "
                f"of a recording, relative to the audio folder."
            )
        candidates = names.find(given)
        if len(candidates) > 1:
            raise AnnotationsError(
                f"{source}: {given!r} in row {row} could be {' or '.join(candidates[:3])}; "
                f"write the path relative to the audio folder."
            )
        name_of[given] = candidates[0] if candidates else None
    _leave_out_other_folders(name_of, source, folder)
    unknown = [given for given, name in name_of.items() if name is None]
    if unknown:
        logger.warning(
            "%s: %s left out, because %s not among the recordings: %s%s.",
            source,
            counted(int(column.isin(unknown).sum()), "row"),
            f"their {len(unknown)} files are" if len(unknown) > 1 else "the file is",
            listed(unknown),
            _hint_at_ending(unknown, recordings),
        )
    return column.map(name_of)


def _leave_out_other_folders(name_of: dict[str, str | None], source: str, folder: str) -> None:
    """Forget recordings that rows of other folders only share a name with.

    Recorders that follow one schedule give the recordings of all sites the same names.  Once a row
    names the own folder, those of other folders are about other recordings.

    Raises
    ------
    AnnotationsError
        If rows of several folders could be about one recording, and none names the own folder.
    """
    above = {given: folder_above(given, name) for given, name in name_of.items() if name}
    folders = {path for path in above.values() if path}
    own = {path for path in folders if path.rpartition("/")[2] == folded(folder)}
    if own:
        name_of.update((given, None) for given, path in above.items() if path and path not in own)
        return
    first: dict[str, str] = {}
    for given, path in above.items():
        if not path:
            continue
        name = str(name_of[given])
        other = first.setdefault(name, given)
        if path != above[other]:
            raise AnnotationsError(
                f"{source}: both {other!r} and {given!r} could be {name}; write paths relative to "
                f"the audio folder."
            )


def _hint_at_ending(unknown: Iterable[str], recordings: Sequence[str]) -> str:
    """Hint at a recording that has an unknown one's name but for the ending; may be empty."""
    others = RecordingNames([_without_ending(name) for name in recordings])
    for given in unknown:
        if len(matches := others.find(_without_ending(given))) == 1:
            like = next(name for name in recordings if _without_ending(name) == matches[0])
            return f" ({given} differs from {like} only in the ending; correct it in the table)"
    return ""


def _without_ending(name: str) -> str:
    return name[: -len(PurePosixPath(name).suffix) or None]
