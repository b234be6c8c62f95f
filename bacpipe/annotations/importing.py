"""Annotations of other programs, brought into the form of our annotation table.

====================  =======================================================================
``csv``               our own table (`bacpipe.annotations.table`)
``raven``             selection tables of Raven; the recording is in Begin Path or Begin File,
                      or has the table's name
``audacity``          label tracks of Audacity: start, end, label; the recording has the
                      track's name
``kaleidoscope``      tables of Kaleidoscope: OFFSET and DURATION of what is in IN FILE
``birdnet``           BirdNET's CSV; the recording is in File, or has the table's name
``sonic-visualiser``  layers of regions or boxes of Sonic Visualiser, exported as text, or of
                      regions saved as .svl; the recording has the layer's name
anything else         what the `crowsetta` package reads, by its name there, such as textgrid
                      (Praat), aud-seq, aud-bbox, notmat, simple-seq, timit, yarden
====================  =======================================================================

In a folder, empty tables hold no annotations, and files that are not in the format, or belong to
no recording, are left out with a warning.
"""

from __future__ import annotations

import codecs
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import TYPE_CHECKING, Any

from bacpipe import extras
from bacpipe.annotations.cells import decode, first_cells, listed, read_table, with_newlines
from bacpipe.annotations.programs import PROGRAMS, guess_program, label_column
from bacpipe.annotations.recording_names import RecordingNames, TableNames, UnknownRecordingError
from bacpipe.annotations.table import (
    EXPECTED,
    LABEL_PREFIX,
    REQUIRED_COLUMNS,
    check_rows,
    label_columns,
    label_kind,
    length_in_header,
)
from bacpipe.audio.files import find_audio_files
from bacpipe.errors import AnnotationsError, SettingsError, counted
from bacpipe.options import normal_value, user_settings
from bacpipe.user_input import is_file, is_folder, is_there, typed_path

if TYPE_CHECKING:
    import pandas as pd

    _Read = Callable[[Path, TableNames], pd.DataFrame]

logger = logging.getLogger(__name__)

_CSV = (".csv", ".tsv")
_FORMATS = ", ".join(map(repr, ["csv", *PROGRAMS]))


def import_annotations(
    source: str | Path,
    audio_dir: str | Path,
    *,
    format: str | None = None,
    label_column: str = "species",
    source_column: str | None = None,
    audio_suffixes: Sequence[str] | None = None,
    encoding: str | None = None,
    **kwargs: object,
) -> pd.DataFrame:
    """Read annotations that another program wrote.

    Parameters
    ----------
    source : str or Path
        One file, or a folder that is searched for files of this format.
    audio_dir : str or Path
        Folder with the recordings.
    format : str, optional
        'csv', 'raven', 'audacity', 'kaleidoscope', 'birdnet', 'sonic-visualiser', or a format
        of crowsetta (needs the extra 'annotations').  Found out from the file unless given;
        folders and crowsetta's formats need it.
    label_column : str
        Kind of the labels: the column of the result is ``label:<kind>``.
    source_column : str, optional
        Column of a table that holds the labels; by default the first with anything in it of
        Label, Annotation, Species, Common Name, Tag, Code, Call type (Raven), of MANUAL ID,
        AUTO ID, TOP1MATCH (Kaleidoscope), or the common names (BirdNET).
    audio_suffixes : sequence of str, optional
        Suffixes of recordings; ``settings.audio_suffixes`` unless given.
    encoding : str, optional
        Encoding of the files, such as 'cp1252' for tables that an old program wrote on Windows;
        UTF-8, or UTF-16 with its mark, unless given.
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
    source, audio_dir = typed_path(source), typed_path(audio_dir)
    suffixes = audio_suffixes or user_settings().audio_suffixes
    suffixes = normal_value("audio_suffixes", suffixes)
    recordings = [
        path.relative_to(audio_dir).as_posix() for path in find_audio_files(audio_dir, suffixes)
    ]
    kind = format or _guess_format(source, encoding)
    read = _reader(kind, encoding, source_column, kwargs)
    column = LABEL_PREFIX + label_kind(label_column)
    table = _read_all(source, kind, recordings, read).rename(columns={"label": column})
    length_of, folder = length_in_header(audio_dir), audio_dir.resolve().name
    return check_rows(table, recordings, source.name, length_of, folder)


def _guess_format(source: Path, encoding: str | None) -> str:
    if is_file(source):
        text = decode(source, encoding)
        if _is_own(text):
            return "csv"
        guess = guess_program(text) or ("csv" if source.suffix.lower() in _CSV else None)
        if guess is not None:
            return guess
    elif not is_there(source):
        raise AnnotationsError(f"{source}: there is no such file or folder of annotations.")
    raise SettingsError(
        f"{source}: say which format these annotations have: format={_FORMATS}, "
        f"or one of crowsetta's, such as 'textgrid'."
    )


def _reader(
    kind: str, encoding: str | None, source_column: str | None, arguments: dict[str, Any]
) -> _Read:
    """Function that reads a file of a format."""

    def read_own(path: Path, names: TableNames) -> pd.DataFrame:
        table = read_table(decode(path, encoding), path.name, EXPECTED, wanted=REQUIRED_COLUMNS)
        if source_column is not None:
            column = label_column(table, path.name, source_column, ())
            there = [name for name in REQUIRED_COLUMNS if name in table]
            return table[there].assign(label=table[column])
        others = {str(name) for name in table.columns} - {*REQUIRED_COLUMNS, "label"}
        if others and "label" not in table and not label_columns(table):
            raise AnnotationsError(
                f"{path.name}: no column holds labels; name it label:<kind>, or say which it is "
                f"with source_column=, found {', '.join(sorted(others))}."
            )
        return table

    def read_foreign(path: Path, names: TableNames) -> pd.DataFrame:
        return PROGRAMS[kind].read(decode(path, encoding), path.name, names, source_column)

    def read_other(path: Path, names: TableNames) -> pd.DataFrame:
        return _read_crowsetta(path, names, kind, arguments)

    if source_column is not None and not (kind == "csv" or _has_columns(kind)):
        raise SettingsError(
            f"source_column={source_column!r} is not possible: files of the format {kind!r} have "
            f"no columns with names."
        )
    if kind in {"csv", *PROGRAMS} and arguments:
        raise SettingsError(
            f"{', '.join(arguments)}: these are arguments of crowsetta's readers, not of "
            f"format={kind!r}."
        )
    return read_own if kind == "csv" else read_foreign if kind in PROGRAMS else read_other


def _has_columns(kind: str) -> bool:
    return kind in PROGRAMS and PROGRAMS[kind].has_columns


def _read_all(source: Path, kind: str, recordings: list[str], read: _Read) -> pd.DataFrame:
    """Rows of a file, or of all files of this format in a folder; the index is for messages."""
    import pandas as pd

    names = RecordingNames(recordings)
    several = is_folder(source)
    tables, homeless = [], []
    for path in _files(source, kind):
        relative = PurePosixPath(path.relative_to(source).as_posix() if several else path.name)
        try:
            table = read(path, TableNames(recordings, names, relative))
        except UnknownRecordingError as error:
            if not several:
                raise
            homeless.append((relative, error))
            continue
        if several:
            table = table.set_axis([f"{row} of {relative}" for row in table.index])
        tables.append(table)
    if homeless and not tables:
        raise homeless[0][1]
    if homeless:
        logger.warning(
            "%s: %s left out, because no recording has such a name: %s.",
            source.name,
            counted(len(homeless), "table"),
            listed(relative for relative, _ in homeless),
        )
    every = pd.concat([table for table in tables if len(table)] or [pd.DataFrame()])
    if every.empty:
        raise AnnotationsError(f"{source}: holds no annotations.")
    return every


def _files(source: Path, kind: str) -> list[Path]:
    """The file, or the files of this format in a folder; empty ones hold no annotations."""
    if not is_folder(source):
        return [source]
    own = kind in {"csv", *PROGRAMS}
    program = PROGRAMS.get(kind)
    suffixes = program.suffixes if program else _CSV if own else (_crowsetta_suffix(kind),)
    files = [
        path
        for path in sorted(source.rglob("*"))
        if path.name.lower().endswith(suffixes)
        and not path.name.startswith(".")  # macOS leaves such beside files on other disks
        and path.is_file()
    ]
    if not files:
        raise AnnotationsError(f"{source}: no file here is called *{' or *'.join(suffixes)}.")
    if not own:
        return files
    fits = program.fits if program else _is_own
    heads = {path: _head(path) for path in files}
    strays = [path for path, head in heads.items() if head.strip() and not fits(head)]
    if len(strays) == len(files):
        raise AnnotationsError(
            f"{source}: no file here is in the format {kind!r}; found "
            f"{listed(path.name for path in strays)}."
        )
    if strays:
        logger.warning(
            "%s: %s left out, because %s not in the format %r: %s.",
            source.name,
            counted(len(strays), "file"),
            "it is" if len(strays) == 1 else "they are",
            kind,
            listed(path.relative_to(source).as_posix() for path in strays),
        )
    return [path for path, head in heads.items() if head.strip() and path not in strays]


def _head(path: Path) -> str:
    """Beginning of a file, good enough to tell its format."""
    try:
        with path.open("rb") as file:
            data = file.read(100_000)
    except OSError as error:
        raise AnnotationsError(f"{path}: cannot be read ({error.strerror}).") from None
    wide = data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    text = data.decode("utf-16" if wide else "utf-8-sig", "replace")
    return with_newlines(text)


def _is_own(text: str) -> bool:
    return {*REQUIRED_COLUMNS} <= {*first_cells(text)}


# --- crowsetta --------------------------------------------------------------------------------


def _crowsetta() -> ModuleType:
    try:
        import crowsetta
    except Exception as error:  # whatever a broken package raises
        raise AnnotationsError(
            extras.cannot_import("Reading this format", "annotations", error)
        ) from error
    return crowsetta


def _crowsetta_suffix(kind: str) -> str:
    suffix = _crowsetta_format(kind).ext
    return str(suffix if isinstance(suffix, str) else suffix[0])


def _crowsetta_format(kind: str) -> Any:  # noqa: ANN401 (classes of crowsetta)
    crowsetta = _crowsetta()
    known = crowsetta.formats.as_list()
    if kind not in known:
        raise SettingsError(
            f"format={kind!r} is not possible: expected one of {_FORMATS}, "
            f"{', '.join(name for name in known if name not in PROGRAMS)}."
        )
    return crowsetta.formats.by_name(kind)


def _read_crowsetta(
    path: Path, names: TableNames, kind: str, arguments: dict[str, Any]
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


def _crowsetta_rows(
    annotation: Any,  # noqa: ANN401 (objects of crowsetta)
    names: TableNames,
) -> Iterator[tuple[str, float, float, str]]:
    notated = getattr(annotation, "notated_path", None)
    name = str(notated) if notated is not None else names.by_table_name()
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
