"""Labels that people gave to seconds of recordings: the journal of the data set.

``<dataset>/labels/people_labels.jsonl`` has a line per judgement: somebody heard a class in these
seconds of a recording (``yes``), did not hear it (``no``), or could not say (``unsure``).  Absence
is a label like presence.  With it are kept the content fingerprint of the recording, when it was
judged, how the clip was chosen, and what model and score the person saw.

Invariants: lines are only ever appended, under a lock, and are on the disk when the call returns;
a call writes all of its lines or none.  Of several judgements of one person on the same seconds
and label the last one holds; an ``undo`` takes it back, so that the one before holds again.
``people_labels-<anything>.jsonl`` files beside it, which others wrote elsewhere, are read with it,
in the order of their times; a line that is in two of them counts once.

Failure policy: a line that cannot be read is left out with a sentence that names it, and stays in
the file; what follows is written below it.  Labels of a recording whose content has changed since
are left out with a sentence, and stay in the file, too; those of one that is not there any more
count, and one that was moved is found by its content.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from bacpipe.annotations.cells import decode, listed, read_table, unescaped
from bacpipe.annotations.importing import import_annotations
from bacpipe.annotations.table import (
    LABEL_PREFIX,
    REQUIRED_COLUMNS,
    check_labels,
    label_columns,
    label_kind,
    length_in_header,
)
from bacpipe.audio.files import read_recording
from bacpipe.audio.fingerprint import content_fingerprint
from bacpipe.audio.remote import is_recording_there, shown, url_of
from bacpipe.errors import (
    AnnotationsError,
    NoRecordingsError,
    counted,
)
from bacpipe.options import make_options
from bacpipe.store.files import write_all, writing
from bacpipe.store.journal import encode_line
from bacpipe.store.judgements import FORMAT, NO, UNDO, UNSURE, YES, Judgement, read_judgements
from bacpipe.store.layout import ALL_PEOPLE_LABELS, PEOPLE_LABELS, path_inside
from bacpipe.store.loader import Loader
from bacpipe.store.lock import SECONDS_FOR_OTHERS, exclusive, user_name
from bacpipe.store.tables import CHANNEL
from bacpipe.user_input import is_file, is_folder, typed_path

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

COLUMNS = (
    "recording", "start", "end", "label", "value", "annotator", "time", "chosen_by", "model",
    "score",
)  # fmt: skip
_WINDOW = ["recording", "start", "end", "label"]
_VALUES = {
    YES: YES, NO: NO, UNSURE: UNSURE, UNDO: UNDO, "true": YES, "false": NO, "1": YES, "0": NO,
    "1.0": YES, "0.0": NO,
}  # fmt: skip
_DIGITS = 3  # of seconds: the same window, as two programs write it, is one
_EXPECTED = (
    "expected the columns recording, start, end (seconds), label, and value (yes, no, unsure; or "
    "undo, to take the last one back)"
)
_LOCK = "people_labels"
_PROPOSED = {"chosen_by", "similarity"}  # columns of windows that were found to be listened to


# --- Writing ------------------------------------------------------------------------------------


def label_windows(
    audio_dir: str | Path,
    rows: pd.DataFrame | Iterable[Mapping[str, object]] | Mapping[str, object] | str | Path,
    annotator: str | None = None,
    *,
    format: str | None = None,
    **kwargs: object,
) -> int:
    """Write down what a person heard, or did not hear, in some seconds of recordings.

    Parameters
    ----------
    audio_dir : str or Path
        Folder with the recordings.
    rows : pandas.DataFrame, mappings, or path
        A row per judgement, with the columns (or keys) recording, start, end (seconds), label, and
        value: ``yes``, ``no``, ``unsure``, or ``undo``, which takes the same person's last
        judgement on these seconds and this label back; without the column or key, ``yes``.  Rows
        whose value is empty are left out.  What `search` and `suggest` have found needs the column.
        Optional are annotator, chosen_by (how the clip was chosen), model and score (what the
        person saw), and channel (from 1), if one of several was heard by itself.
        Annotations (audiofilename, start, end, label:<kind>), as `import_annotations` returns
        them, will do, and so will a path: of a table of such rows, or of annotations of Raven,
        Audacity or another program.
    annotator : str, optional
        Who listened, where the rows do not say it; the name of the user of this computer unless
        given.
    format : str, optional
        Format of the annotations that a path leads to, as for `import_annotations`; folders need
        it.
    **kwargs
        Any key of the configuration; main_results_dir says where results are, label_column
        which column of `rows` holds the label.

    Returns
    -------
    int
        How many judgements were written.  All are on the disk then; they are written to
        ``labels/people_labels.jsonl`` in the results of the data set, which is only ever appended
        to.

    Raises
    ------
    AnnotationsError
        If a row is not possible, or all recordings are unknown; nothing is written then.  Rows of
        single unknown recordings are left out with a warning that names them.
    StorageError
        If the disk does not take them; none is written then.

    Examples
    --------
    >>> import bacpipe
    >>> bacpipe.label_windows("recordings", [
    ...     {"recording": "SITE-A/20250504_043000.wav", "start": 3, "end": 6, "label": "wren"},
    ...     {"recording": "SITE-A/20250504_043000.wav", "start": 6, "end": 9, "label": "wren",
    ...      "value": "no"},
    ... ], annotator="Ana")
    2
    """
    loader = Loader(audio_dir, options=make_options(**kwargs))
    entries = _checked(loader, _table_of(loader, rows, format), annotator)
    if entries:
        loader.claim()
        _append(loader.paths.people_path, entries)
    return len(entries)


def _checked(loader: Loader, table: pd.DataFrame, annotator: str | None) -> list[Judgement]:
    """Rows as entries; everything about them is checked before anything is written."""
    import pandas as pd

    if table.empty:
        return []
    table = table.reset_index(drop=True)
    missing = [name for name in ("recording", "start", "end", "label") if name not in table]
    if missing:
        raise AnnotationsError(
            f"labels: the {'columns' if len(missing) > 1 else 'column'} {', '.join(missing)} "
            f"{'are' if len(missing) > 1 else 'is'} missing; {_EXPECTED}."
        )
    table = _answered(table)
    known = _recordings_of(loader, table["recording"])
    checked = check_labels(table, known, length_in_header(loader.audio_dir))
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    given = " ".join(str("" if annotator is None else annotator).split()) or user_name()
    prints = {
        name: content_fingerprint(loader.audio_dir / name) for name in checked["recording"].unique()
    }
    unreadable = [name for name, value in prints.items() if value is None]
    if unreadable:
        raise AnnotationsError(
            f"labels: {listed(unreadable)} cannot be read, so a label of it could not be told from "
            f"one of another recording; give yourself read permission."
        )
    entries: list[Judgement] = []
    channels: dict[str, int] = {}
    for row, (_, cells) in zip(checked.index.tolist(), checked.iterrows(), strict=True):
        number, name = row + 1, str(cells["recording"])

        def text(column: str, other: str = "", cells: pd.Series = cells) -> str:
            value = cells.get(column)
            return other if value is None or pd.isna(value) else " ".join(str(value).split())

        entry = Judgement(
            name, str(prints[name]), round(float(cells["start"]), _DIGITS),
            round(float(cells["end"]), _DIGITS), text("label"),
            _value(text("value") if "value" in table else YES, number),
            text("annotator") or given, now, text("chosen_by"), text("model"),
            _score(cells.get("score"), number),
            _channel(cells.get(CHANNEL), number, loader.audio_dir / name, channels),
        )  # fmt: skip
        if entry.end <= entry.start:
            raise AnnotationsError(
                f"labels: row {number} is shorter than a thousandth of a second."
            )
        entries.append(entry)
    return entries


def _answered(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that somebody has given a value; none of what was only proposed is a label."""
    if "value" not in table:
        if _PROPOSED & {*table.columns}:
            raise AnnotationsError(
                "labels: these windows were found for you to listen to, and nobody has said yet "
                "what is in them; add a column value with yes, no or unsure."
            )
        return table
    given = table["value"].notna() & (table["value"].astype(str).str.strip() != "")
    if not given.any():
        raise AnnotationsError(
            "labels: the column value is empty; fill it with yes, no, unsure or undo."
        )
    if not given.all():
        logger.warning("labels: %s without a value left out.", counted(int((~given).sum()), "row"))
    return table[given]


def _table_of(
    loader: Loader,
    rows: Any,  # noqa: ANN401 (what pandas makes a table of)
    format: str | None,
) -> pd.DataFrame:
    import pandas as pd

    if isinstance(rows, str | Path):
        path = typed_path(rows)
        own = ("recording", "start", "end", "label")
        if is_file(path) and path.suffix.lower() in {".csv", ".tsv"}:
            table = read_table(decode(path), path.name, _EXPECTED, wanted=own)
            if {*own} <= {*table.columns}:
                # Recordings and labels are brought into their form with those of other tables.
                others = table.columns.difference(["recording", "label"])
                table[others] = table[others].map(unescaped)
                return table.mask(table == "")
        rows = import_annotations(
            path, loader.audio_dir, format=format, audio_suffixes=loader.options.audio_suffixes,
            label_column=loader.options.label_column,
        )  # fmt: skip
    elif isinstance(rows, Mapping):
        rows = [rows]
    try:
        if isinstance(rows, pd.DataFrame):
            table = rows
        else:
            table = pd.DataFrame([_with_value(dict(row)) for row in rows])
    except (TypeError, ValueError):
        raise AnnotationsError(f"labels: these are no rows; {_EXPECTED}.") from None
    table = table.rename(columns={"audiofilename": "recording"})
    kinds = label_columns(table)
    if "label" in table or not kinds:
        return table
    wanted = LABEL_PREFIX + label_kind(loader.options.label_column)
    column = wanted if wanted in kinds else kinds[0]
    return table.rename(columns={column: "label"}).dropna(subset=["label"])


def _with_value(row: dict[str, Any]) -> dict[str, Any]:
    """A row with an answer: yes, unless it was only found for somebody to listen to."""
    return row if {"value", *_PROPOSED} & {*row} else {**row, "value": YES}


def _recordings_of(loader: Loader, given: pd.Series) -> list[str]:
    """Recordings among which the given names are looked up; the folder is searched only if needed.

    People label one window after the other, and folders have a hundred thousand recordings.
    """
    names = [str(name) for name in given.unique()]
    endings = tuple(loader.options.audio_suffixes)
    if all(n.lower().endswith(endings) and _is_there(loader.audio_dir, n) for n in names):
        return names
    return loader.recording_names


def _is_there(audio_dir: Path, name: str) -> bool:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or path.as_posix() != name:
        return False
    if os.name == "nt" and "\\" in name:  # elsewhere a letter like others
        return False
    try:
        return is_recording_there(audio_dir / name)
    except (OSError, ValueError):
        return False


def _value(text: str, row: int) -> str:
    value = _VALUES.get(text.lower())
    if value is None:
        raise AnnotationsError(
            f"labels: the value of row {row} is {text!r}; expected yes, no, unsure or undo."
        )
    return value


def _score(value: object, row: int) -> float | None:
    if value is None or value != value or value == "":
        return None
    try:
        number = float(str(value))
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise AnnotationsError(f"labels: the score of row {row} is {value!r}; expected a number.")
    return number


def _channel(value: object, row: int, path: Path, known: dict[str, int]) -> int | None:
    """Channel of a recording that has several; `known` remembers how many each has."""
    if value is None or value != value or value == "":
        return None
    text = str(value).removesuffix(".0")
    if str(path) not in known:
        known[str(path)] = read_recording(path).channels
    if not text.isdecimal() or not 1 <= int(text) <= known[str(path)]:
        raise AnnotationsError(
            f"labels: the channel of row {row} is {value!r}; expected a whole number from 1 to "
            f"{known[str(path)]}, as many as {path.name} has."
        )
    return int(text) if known[str(path)] > 1 else None


def _append(folder: Path, entries: Sequence[Judgement]) -> None:
    """Append entries to the journal: all of them, flushed to the disk, or none."""
    with exclusive(folder, _LOCK, wait=SECONDS_FOR_OTHERS):
        path = path_inside(folder, PEOPLE_LABELS, what="a link")
        lines = b"".join(encode_line(asdict(entry)) for entry in entries)
        with writing(path, len(lines)), path.open("ab+", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            if end == 0:
                lines = encode_line({"format": FORMAT, "what": "labels of people"}) + lines
            else:
                file.seek(end - 1)
                if file.read(1) != b"\n":  # a piece of a line, which is kept, or only lacks its end
                    lines = b"\n" + lines
            try:
                write_all(file.fileno(), lines)
                os.fsync(file.fileno())
            except OSError:
                with suppress(OSError):
                    file.truncate(end)
                raise


# --- Reading ------------------------------------------------------------------------------------


def people_labels(
    audio_dir: str | Path, *, changed: bool = False, **kwargs: object
) -> pd.DataFrame:
    """Judgements of people on the recordings of a folder, as they hold now.

    Parameters
    ----------
    audio_dir : str or Path
        Folder with the recordings.
    changed : bool
        True also returns those of recordings whose content has changed since.
    **kwargs
        Any key of the configuration; main_results_dir says where results are.

    Returns
    -------
    pandas.DataFrame
        A row for each person, label and seconds of a recording: recording (posix path relative to
        `audio_dir`), start, end (seconds), label, value (yes, no, unsure), annotator, time (ISO
        8601, UTC), chosen_by, model, score (NaN where none was seen); channel (from 1, Int64) if
        any is of one of several channels, missing for labels of all.  What was taken back is not
        in it.  Several people may have judged the same; `settled_labels` makes one of them.

    Raises
    ------
    NoRecordingsError
        If there is no such folder and no labels of it.
    ResultsError
        If the labels were written by a newer bacpipe.

    Examples
    --------
    >>> import bacpipe
    >>> n = bacpipe.label_windows("recordings", {"recording": "SITE-A/20250504_043000.wav",
    ...                           "start": 3, "end": 6, "label": "wren"}, annotator="Ana")
    >>> bacpipe.people_labels("recordings")[["label", "value", "annotator"]].iloc[0].tolist()
    ['wren', 'yes', 'Ana']
    """
    return current_labels(Loader(audio_dir, options=make_options(**kwargs)), changed=changed)


def current_labels(loader: Loader, *, changed: bool = False) -> pd.DataFrame:
    """The same for the folder of a loader, whatever its model."""
    import pandas as pd

    folder = loader.paths.people_path
    if (
        not any(folder.glob(ALL_PEOPLE_LABELS))
        and url_of(loader.audio_dir) is None
        and not is_folder(loader.audio_dir)
    ):
        raise NoRecordingsError(f"The audio folder {shown(loader.audio_dir)} does not exist.")
    held = standing(_names_now(read_judgements(folder), loader, changed=changed))
    rows = [[getattr(entry, name) for name in COLUMNS] for entry in held]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    if any(entry.channel is not None for entry in held):
        table[CHANNEL] = pd.array([entry.channel for entry in held], dtype="Int64")
    return table.astype({"start": "float64", "end": "float64", "score": "float64"})


def _names_now(
    entries: Sequence[Judgement], loader: Loader, *, changed: bool
) -> Iterator[Judgement]:
    """Entries with the names that their recordings have now; those that changed may be left out."""
    names: dict[tuple[str, str], str | None] = {}
    others: dict[str, list[str]] | None = None
    differ, gone = [], []
    for key in dict.fromkeys((entry.recording, entry.fingerprint) for entry in entries):
        recording, fingerprint = key
        there = _is_there(loader.audio_dir, recording)
        names[key] = recording
        if there and content_fingerprint(loader.audio_dir / recording) == fingerprint:
            continue
        others = _by_last_part(loader) if others is None else others
        moved = next(
            (
                other
                for other in others.get(PurePosixPath(recording).name, ())
                if other != recording
                and content_fingerprint(loader.audio_dir / other) == fingerprint
            ),
            None,
        )
        if moved is not None:
            names[key] = moved
        elif there:
            differ.append(recording)
            names[key] = recording if changed else None
        else:
            gone.append(recording)
    if differ:
        logger.warning(
            "%s: the content of %s has changed since people labelled it, so these labels are "
            "left out (they stay in %s): %s. Label it again, or put the former file back.",
            shown(loader.audio_dir),
            counted(len(differ), "recording"),
            PEOPLE_LABELS,
            listed(differ),
        )
    if gone:
        logger.warning(
            "%s: labels of %s that is not there any more are kept: %s.",
            shown(loader.audio_dir),
            counted(len(gone), "recording"),
            listed(gone),
        )
    for entry in entries:
        name = names[entry.recording, entry.fingerprint]
        if name is not None:
            yield entry if name == entry.recording else replace(entry, recording=name)


def _by_last_part(loader: Loader) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    with suppress(NoRecordingsError):  # moved away
        for name in loader.recording_names:
            names.setdefault(PurePosixPath(name).name, []).append(name)
    return names


def standing(entries: Iterable[Judgement]) -> list[Judgement]:
    """What is left of a journal: the last judgement of each person that was not taken back."""
    stacks: dict[tuple[object, ...], list[Judgement]] = {}
    for entry in entries:
        what = (entry.recording, entry.start, entry.end, entry.channel, entry.label)
        key = (*what, entry.annotator)
        stack = stacks.setdefault(key, [])
        if entry.value == UNDO or (stack and stack[-1].value == entry.value):
            stack[-1:] = []  # said twice, it is taken back at once
        if entry.value != UNDO:
            stack.append(entry)
    return [stack[-1] for stack in stacks.values() if stack]


def settled_labels(table: pd.DataFrame) -> pd.DataFrame:
    """One value for each label and seconds of a recording, of those that several people gave.

    The majority of ``yes`` and ``no`` decides; where as many say yes as no, and where nobody is
    sure, the value is ``unsure``, which nothing learns from and nothing is measured by.

    Parameters
    ----------
    table : pandas.DataFrame
        As `people_labels` returns it.

    Returns
    -------
    pandas.DataFrame
        Columns recording, start, end, label, value, annotators (int64), and the last time,
        chosen_by, model and score, and channel if the table has it; the number of those in doubt
        because people contradict each other is logged.

    Examples
    --------
    >>> import bacpipe
    >>> row = {"recording": "SITE-A/20250504_043000.wav", "start": 9, "end": 12, "label": "owl"}
    >>> for who, heard in {"Ana": "yes", "Ben": "no", "Cleo": "yes"}.items():
    ...     n = bacpipe.label_windows("recordings", {**row, "value": heard}, annotator=who)
    >>> table = bacpipe.settled_labels(bacpipe.people_labels("recordings"))
    >>> table.loc[table["label"] == "owl", "value"].tolist()
    ['yes']
    """
    table = table.assign(yes=table["value"] == YES, no=table["value"] == NO)
    what = [*_WINDOW, *([CHANNEL] if CHANNEL in table else [])]
    groups = table.groupby(what, sort=False, dropna=False)
    settled = groups[["time", "chosen_by", "model", "score"]].last()
    votes = groups[["yes", "no"]].sum()
    settled["annotators"] = groups["annotator"].nunique()
    settled["value"] = UNSURE
    settled.loc[votes["yes"] > votes["no"], "value"] = YES
    settled.loc[votes["no"] > votes["yes"], "value"] = NO
    tied = (votes["yes"] == votes["no"]) & (votes["yes"] > 0)
    if tied.any():
        recording, start, end, label, *_ = settled.index[tied.to_numpy()][0]
        logger.warning(
            "people contradict each other on %s, which count as unsure: %s from %g to %g s of %s, "
            "for one; let a third person, or both together, decide.",
            counted(int(tied.sum()), "label"),
            label,
            start,
            end,
            recording,
        )
    order = [*what, "value", "annotators", "time", "chosen_by", "model", "score"]
    return settled.reset_index()[order]


def people_annotations(loader: Loader) -> pd.DataFrame:
    """What people heard, settled, as annotations: audiofilename, start, end, label:<kind>.

    And channel, if any label is of one of several.
    """
    table = settled_labels(current_labels(loader))
    heard = table[table["value"] == YES]
    column = LABEL_PREFIX + label_kind(loader.options.label_column)
    names = {"recording": "audiofilename", "label": column}
    columns = [*REQUIRED_COLUMNS, column, *([CHANNEL] if CHANNEL in heard else [])]
    return heard.rename(columns=names)[columns].reset_index(drop=True)
