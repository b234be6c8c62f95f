"""Names of a model's classes, from the tables beside its checkpoint.

The eBird/Clements taxonomy is not ours to ship and no package that we depend on carries it, but
anybody may download it as a table from https://www.birds.cornell.edu/clementschecklist/ or
https://api.ebird.org/v2/ref/taxonomy/ebird?fmt=csv.  Where such a table lies beside a checkpoint,
eBird's codes become names; without it, and for codes that it lacks, they stay as they are.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from bacpipe.errors import CheckpointError
from bacpipe.models.weights.containers import numbered_classes

logger = logging.getLogger(__name__)

# Columns of the taxonomy, by the names that its editions give them.
_CODES = ("SPECIES_CODE", "species_code")
_NAMES = ("COMMON_NAME", "PRIMARY_COM_NAME", "English name")


def find_label_file(folder: Path, *patterns: str) -> Path | None:
    """First file of a folder whose name matches the first pattern, then the second, ..."""
    for pattern in patterns:
        for path in sorted(folder.glob(pattern)):
            if path.is_file():
                return path
    return None


def read_table(path: Path, *, delimiter: str = ",") -> list[list[str]]:
    """Rows of a label file that are not empty.

    Raises
    ------
    CheckpointError
        If the file is no text.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return [row for row in csv.reader(file, delimiter=delimiter) if any(row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise CheckpointError(
            f"{path}: this label file cannot be read ({error}); expected UTF-8 text with one "
            f"class per line."
        ) from error


def check_number(names: list[str], n_classes: int, path: Path) -> list[str]:
    """Return `names` if there is one per class.

    Raises
    ------
    CheckpointError
        Otherwise.
    """
    if len(names) != n_classes:
        raise CheckpointError(
            f"{path}: holds {len(names)} class names, but the model has {n_classes} classes; the "
            f"label file and the model must be of the same version."
        )
    return names


def read_list(path: Path, n_classes: int) -> list[str]:
    """First column of a label file that may begin with the name of its vocabulary.

    Parameters
    ----------
    path : Path
        One class per line.
    n_classes : int
        Classes of the model; one line more than that is a header.

    Raises
    ------
    CheckpointError
        If the number of lines fits neither way.
    """
    names = [row[0].strip() for row in read_table(path)]
    if len(names) == n_classes + 1:
        names = names[1:]
    return check_number(names, n_classes, path)


def read_species(path: Path) -> tuple[list[str], list[str]]:
    """Scientific and common names of the classes.

    Parameters
    ----------
    path : Path
        Text file with a line ``Scientific name_Common name`` per class.

    Raises
    ------
    CheckpointError
        If a line has another form.
    """
    scientific, common = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if not line.strip():
            continue
        name, separator, known_as = line.strip().partition("_")
        if not separator:
            raise CheckpointError(
                f"{path}: line {number} is {line.strip()!r}; expected "
                f"'Scientific name_Common name'."
            )
        scientific.append(name)
        common.append(known_as)
    return scientific, common


def numbered(n_classes: int, model: str, wanted: Path) -> Sequence[str]:
    """Names for the classes of a model that came without its label file, with a warning."""
    logger.warning(
        "%s: its classes are only numbered, because the list of their names is missing; put it "
        "at %s.",
        model,
        wanted,
    )
    return numbered_classes(n_classes)


def common_names(codes: Iterable[str], folders: Iterable[Path]) -> tuple[str, ...]:
    """Translate eBird codes as far as a taxonomy is at hand.

    Parameters
    ----------
    codes : iterable of str
        eBird species codes, such as ``eurrob1``.
    folders : iterable of Path
        Searched in order for a file ``ebird*taxonomy*.csv`` (in any case).

    Returns
    -------
    tuple of str
        One name, or untranslated code, per code.

    Raises
    ------
    CheckpointError
        If a file of this name lacks the columns of the taxonomy.
    """
    table = _find_taxonomy(folders)
    names = _read_taxonomy(table) if table else {}
    return tuple(names.get(code, code) for code in codes)


def _find_taxonomy(folders: Iterable[Path]) -> Path | None:
    for folder in folders:
        for path in sorted(folder.glob("*.csv")):
            name = path.name.lower()
            if name.startswith("ebird") and "taxonomy" in name:
                return path
    return None


def _read_taxonomy(path: Path) -> dict[str, str]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        columns = rows.fieldnames or ()
        code = next((c for c in _CODES if c in columns), None)
        name = next((c for c in _NAMES if c in columns), None)
        if code is None or name is None:
            raise CheckpointError(
                f"{path}: expected the columns of the eBird taxonomy, a code "
                f"({' or '.join(_CODES)}) and a name ({' or '.join(_NAMES)}); "
                f"correct the file or remove it."
            )
        return {row[code]: row[name] for row in rows if row[code] and row[name]}
