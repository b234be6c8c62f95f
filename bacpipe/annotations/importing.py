"""Annotations of other programs, brought into the form of our annotation table.

==================  =========================================================================
``csv``             our own table (`bacpipe.annotations.table`)
``raven``           selection tables of Raven; the recording is in Begin Path or Begin File,
                    or has the table's name
``audacity``        label tracks of Audacity: start, end, label; the recording has the
                    track's name
anything else       what the `crowsetta` package reads, by its name there, such as textgrid
                    (Praat), aud-seq, aud-bbox, notmat, simple-seq, timit, yarden
==================  =========================================================================
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from bacpipe import extras
from bacpipe.annotations.table import (
    LABEL_PREFIX,
    check_annotations,
    decode,
    label_kind,
    read_annotations,
    seconds,
)
from bacpipe.audio.files import find_audio_files
from bacpipe.errors import AnnotationsError, SettingsError
from bacpipe.options import normal_value, user_settings
from bacpipe.user_input import typed_path

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

_RAVEN_TIMES = ("Begin Time (s)", "End Time (s)")
_RAVEN_FILES = ("Begin Path", "Begin File")
_RAVEN_LABELS = ("Label", "Annotation", "Species", "Common Name", "Tag", "Code", "Call type")
_PATTERNS = {"raven": "*selection*.txt", "audacity": "*.txt"}


def import_annotations(
    source: str | Path,
    audio_dir: str | Path,
    *,
    format: str | None = None,
    label_column: str = "species",
    source_column: str | None = None,
    audio_suffixes: Sequence[str] | None = None,
    **kwargs: Any,
) -> pd.DataFrame:
    """Read annotations that another program wrote.

    Parameters
    ----------
    source : str or Path
        One file, or a folder that is searched for files of this format.
    audio_dir : str or Path
        Folder with the recordings.
    format : str, optional
        'csv', 'raven', 'audacity', or a format of crowsetta (needs the extra 'annotations').
        Found out from the file unless given; folders and crowsetta's formats need it.
    label_column : str
        Kind of the labels: the column of the result is ``label:<kind>``.
    source_column : str, optional
        Column of a Raven table that holds the labels; by default the first of Label,
        Annotation, Species, Common Name, Tag, Code, Call type that it has.
    audio_suffixes : sequence of str, optional
        Suffixes of recordings; ``settings.audio_suffixes`` unless given.
    **kwargs
        Further arguments of crowsetta's reader.

    Returns
    -------
    pandas.DataFrame
        Columns audiofilename, start, end (seconds) and label:<kind>, as `label_df` of
        `ground_truth_by_model` takes it; ``to_csv(..., index=False)`` makes an annotations.csv.

    Raises
    ------
    AnnotationsError
        If a file is missing or cannot be understood, or its recording is not found.

    Examples
    --------
    >>> import bacpipe
    >>> loader = bacpipe.Loader("recordings", "birdnet")
    >>> files = bacpipe.export_raven_tables(loader, "selections")
    >>> table = bacpipe.import_annotations("selections", "recordings", format="raven")
    >>> table.columns.to_list()
    ['audiofilename', 'start', 'end', 'label:species']
    """
    import pandas as pd

    source, audio_dir = typed_path(source), typed_path(audio_dir)
    suffixes = audio_suffixes or user_settings().audio_suffixes
    suffixes = normal_value("audio_suffixes", suffixes)
    recordings = [
        path.relative_to(audio_dir).as_posix() for path in find_audio_files(audio_dir, suffixes)
    ]
    kind = format or _guess_format(source)
    if kind == "csv":
        return read_annotations(source, recordings)
    column = LABEL_PREFIX + label_kind(label_column)
    tables = []
    for path in _files(source, kind):
        relative = path.relative_to(source) if source.is_dir() else Path(path.name)
        names = _TableNames(recordings, PurePosixPath(relative.as_posix()))
        table = _read(kind, path, names, source_column, kwargs)
        tables.append(table.rename(columns={"label": column}))
    every = pd.concat(tables, ignore_index=True)
    if every.empty:
        raise AnnotationsError(f"{source}: holds no annotations.")
    return check_annotations(every, recordings, source=source.name)


def _read(
    kind: str, path: Path, names: _TableNames, source_column: str | None, arguments: dict[str, Any]
) -> pd.DataFrame:
    if kind == "raven":
        return _read_raven(path, names, source_column)
    if kind == "audacity":
        return _read_audacity(path, names)
    return _read_crowsetta(path, names, kind, arguments)


def _guess_format(source: Path) -> str:
    if source.is_file():
        first = decode(source).partition("\n")[0]
        if _RAVEN_TIMES[0] in first:
            return "raven"
        if source.suffix.lower() in {".csv", ".tsv"}:
            return "csv"
        cells = first.split("\t")
        if len(cells) == 3 and _is_number(cells[0]) and _is_number(cells[1]):
            return "audacity"
    elif not source.exists():
        raise AnnotationsError(f"{source}: there is no such file or folder of annotations.")
    raise SettingsError(
        f"{source}: say which format these annotations have: format='csv', 'raven', 'audacity', "
        f"or one of crowsetta's, such as 'textgrid'."
    )


def _files(source: Path, kind: str) -> list[Path]:
    if not source.is_dir():
        return [source]
    pattern = _PATTERNS.get(kind) or f"*{_crowsetta_suffix(kind)}"
    files = sorted(path for path in source.rglob(pattern) if path.is_file())
    if not files:
        raise AnnotationsError(f"{source}: no file here is called {pattern}.")
    return files


class _TableNames:
    """Finds the recording that a table without a column for it belongs to.

    Recordings are posix paths relative to the audio folder, the table relative to the folder that
    was searched for tables.
    """

    def __init__(self, recordings: Sequence[str], table: PurePosixPath) -> None:
        self._recordings = recordings
        self._table = table

    def find(self) -> str:
        """Recording whose name is the longest that the table's name starts with.

        Raises
        ------
        AnnotationsError
            If there is none, or several are equally likely.
        """
        shared = {name: self._shared_length(PurePosixPath(name)) for name in self._recordings}
        longest = max(shared.values(), default=0)
        candidates = [name for name, length in shared.items() if length == longest > 0]
        beside = [n for n in candidates if PurePosixPath(n).parent == self._table.parent]
        candidates = beside or candidates
        if len(candidates) == 1:
            return candidates[0]
        which = (
            f"could belong to {' or '.join(candidates[:3])}"
            if candidates
            else "belongs to no recording"
        )
        raise AnnotationsError(
            f"{self._table}: by its name, this table {which}; expected the name of a recording, "
            f"such as recording.wav, and then anything after a dot or underscore."
        )

    def _shared_length(self, recording: PurePosixPath) -> int:
        """Length of the recording's name, or of its stem, if the table's name starts with it."""
        name = self._table.name.lower()
        for start in (recording.name.lower(), recording.stem.lower()):
            if name.startswith(start) and name[len(start) : len(start) + 1] in {"", ".", "_"}:
                return len(start)
        return 0


# --- Raven and Audacity -----------------------------------------------------------------------


def _read_tabs(path: Path) -> pd.DataFrame:
    """Cells of a table with tabs between them, as text; nothing is quoted in it.

    The index is the number of the row.
    """
    import pandas as pd

    lines = [line.split("\t") for line in decode(path).split("\n") if line.strip()]
    if not lines:
        raise AnnotationsError(f"{path.name}: this file is empty; expected a Raven table.")
    header = [name.strip() for name in lines[0]]
    twice = next((name for name in header if name and header.count(name) > 1), None)
    if twice is not None:
        raise AnnotationsError(f"{path.name}: the column {twice!r} is there twice; keep one.")
    rows, numbers = [], range(2, len(lines) + 1)
    for number, line in zip(numbers, lines[1:], strict=True):
        cells = [*line, *[""] * (len(header) - len(line))]
        if any(cell.strip() for cell in cells[len(header) :]):
            raise AnnotationsError(
                f"{path.name}: row {number} has {len(line)} cells, but there are {len(header)} "
                f"columns; remove the tabs from its texts."
            )
        rows.append(cells[: len(header)])
    return pd.DataFrame(rows, columns=header, index=numbers, dtype=object)


def _read_raven(path: Path, names: _TableNames, source_column: str | None) -> pd.DataFrame:
    import pandas as pd

    table = _read_tabs(path)
    missing = [name for name in _RAVEN_TIMES if name not in table.columns]
    if missing:
        raise AnnotationsError(
            f"{path.name}: the column {missing[0]!r} is missing; expected a Raven selection table, "
            f"found {', '.join(table.columns)}."
        )
    if "Selection" in table.columns:
        # Raven writes a selection once for the waveform and once for the spectrogram.
        table = table.drop_duplicates("Selection")
    label = _label_column(path, list(table.columns), source_column)
    start, end = (seconds(table[name], path.name).to_numpy() for name in _RAVEN_TIMES)
    file = next((name for name in _RAVEN_FILES if name in table.columns), None)
    recordings = table[file].to_numpy() if file else np.repeat(names.find(), len(table))
    if "File Offset (s)" in table.columns:
        # Begin times count through all recordings that are open; offsets are within one.
        offset = seconds(table["File Offset (s)"], path.name).to_numpy()
        start, end = offset, offset + (end - start)
    elif len(set(recordings)) > 1:
        raise AnnotationsError(
            f"{path.name}: this table is about {len(set(recordings))} recordings, but has no "
            f"column 'File Offset (s)'; add it to the table in Raven."
        )
    return pd.DataFrame(
        {"audiofilename": recordings, "start": start, "end": end, "label": table[label]}
    ).reset_index(drop=True)


def _label_column(path: Path, columns: list[str], wanted: str | None) -> str:
    candidates = [wanted] if wanted else list(_RAVEN_LABELS)
    by_lower = {name.lower(): name for name in columns}
    for name in candidates:
        if name.lower() in by_lower:
            return by_lower[name.lower()]
    raise AnnotationsError(
        f"{path.name}: there is no column {' or '.join(map(repr, candidates))}; name the column "
        f"that holds the labels with source_column=, found {', '.join(columns)}."
    )


def _read_audacity(path: Path, names: _TableNames) -> pd.DataFrame:
    import pandas as pd

    rows = []
    for number, line in enumerate(decode(path).split("\n"), start=1):
        cells = line.split("\t")
        if not line.strip() or cells[0] == "\\":  # a second line holds the frequencies
            continue
        if len(cells) < 2 or not (_is_number(cells[0]) and _is_number(cells[1])):
            raise AnnotationsError(
                f"{path.name}: line {number} is {line[:200]!r}; expected start, end and label with "
                f"tabs between them, as Audacity exports labels."
            )
        rows.append((float(cells[0]), float(cells[1]), "".join(cells[2:3])))
    table = pd.DataFrame(rows, columns=["start", "end", "label"])
    table.insert(0, "audiofilename", names.find())
    return table


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


# --- crowsetta --------------------------------------------------------------------------------


def _crowsetta() -> Any:
    try:
        import crowsetta
    except ImportError as error:
        raise AnnotationsError(
            extras.cannot_import("Reading this format", "annotations", error)
        ) from error
    return crowsetta


def _crowsetta_suffix(kind: str) -> str:
    suffix = _crowsetta_format(kind).ext
    return str(suffix if isinstance(suffix, str) else suffix[0])


def _crowsetta_format(kind: str) -> Any:
    crowsetta = _crowsetta()
    known = crowsetta.formats.as_list()
    if kind not in known:
        raise SettingsError(
            f"format={kind!r} is not possible: expected one of csv, raven, audacity, "
            f"{', '.join(name for name in known if name != 'raven')}."
        )
    return crowsetta.formats.by_name(kind)


def _read_crowsetta(
    path: Path, names: _TableNames, kind: str, arguments: dict[str, Any]
) -> pd.DataFrame:
    import pandas as pd

    reader: Callable[..., Any] = _crowsetta_format(kind).from_file
    try:
        read = reader(path, **arguments).to_annot()
        annotations = read if isinstance(read, list) else [read]
        rows = [row for annotation in annotations for row in _crowsetta_rows(annotation, names)]
    except AnnotationsError:
        raise
    # crowsetta raises whatever its readers happen to; each means that the file does not fit.
    except Exception as error:
        raise AnnotationsError(f"{path.name}: cannot be read as {kind} ({error}).") from error
    return pd.DataFrame(rows, columns=["audiofilename", "start", "end", "label"])


def _crowsetta_rows(annotation: Any, names: _TableNames) -> Iterator[tuple[str, float, float, str]]:
    notated = getattr(annotation, "notated_path", None)
    name = str(notated) if notated is not None else names.find()
    if getattr(annotation, "bboxes", None):
        for box in annotation.bboxes:
            yield name, float(box.onset), float(box.offset), str(box.label)
        return
    sequences = annotation.seq if isinstance(annotation.seq, list) else [annotation.seq]
    for sequence in sequences:
        for segment in sequence.segments:
            if segment.onset_s is None:
                raise AnnotationsError(
                    f"{name}: these annotations count samples, not seconds; convert them first."
                )
            yield name, float(segment.onset_s), float(segment.offset_s), str(segment.label)
