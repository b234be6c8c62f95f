"""Names of a model's classes: as people read them, scientific, and codes.

Names come from the checkpoint or from a table of its authors, and codes of birds from the eBird
taxonomy; what none of them tells stays empty.  Tables that do not fit each other are not used.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from bacpipe.errors import CheckpointError, first_line
from bacpipe.models.card import LabelFile
from bacpipe.models.weights.checkpoints import find_labels

logger = logging.getLogger(__name__)


class ClassNames(NamedTuple):
    """Names of the classes of a model, each in the order of its scores.

    Attributes
    ----------
    classes : sequence of str
        As people read them, no two alike.
    scientific_names : sequence of str
        Empty where a class is no species, or its name is not known.
    codes : sequence of str
        eBird codes of birds, or the codes of the model's authors; empty where there is none.
    """

    classes: Sequence[str]
    scientific_names: Sequence[str] = ()
    codes: Sequence[str] = ()


class Species(NamedTuple):
    """A row of the eBird taxonomy."""

    code: str
    common_name: str
    scientific_name: str


@dataclass
class Taxonomy:
    """Codes, scientific and common names of birds, from the editions that are at hand.

    Attributes
    ----------
    species : list of Species
        All rows; where editions differ, those of the first are found.
    """

    species: list[Species] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._by_code = {s.code: s for s in reversed(self.species)}
        self._by_name = {s.scientific_name.lower(): s for s in reversed(self.species)}
        self._by_name.pop("", None)

    def of_code(self, code: str) -> Species | None:
        """Species with an eBird code."""
        return self._by_code.get(code)

    def of_scientific_name(self, name: str) -> Species | None:
        """Species with a scientific name, in any case."""
        return self._by_name.get(name.lower())


# Columns of the taxonomy, by the names that its editions give them.
_CODE = ("SPECIES_CODE", "species_code")
_COMMON = ("COMMON_NAME", "PRIMARY_COM_NAME", "English name", "common_name")
_SCIENTIFIC = ("SCIENTIFIC_NAME", "SCI_NAME", "scientific name", "sci_name")
_SOUNDS = ("Human ", "Power tools")
_SPECIES = re.compile(r"[^\W\d_][^\W_]*( [x×])?( [a-z][^\s_]*){1,3}")


def read_taxonomy(editions: Iterable[LabelFile], model_base_path: Path) -> Taxonomy:
    """The eBird taxonomy, as far as it is on this machine.

    Parameters
    ----------
    editions : iterable of LabelFile
        Its editions, the one that counts first.
    model_base_path : Path
        Folder of all checkpoints.

    Raises
    ------
    CheckpointError
        If a file of this name is no such table.
    """
    files = (find_labels(edition, model_base_path) for edition in editions)
    paths = list(dict.fromkeys(path for path in files if path is not None))
    return Taxonomy([species for path in paths for species in _read_edition(path)])


def _read_edition(path: Path) -> list[Species]:
    text = _read_text(path)
    try:
        if path.suffix == ".json":
            rows = [
                Species(code, names["common_name"], names["sci_name"])
                for code, names in json.loads(text).items()
            ]
        else:
            table = csv.DictReader(text.splitlines())
            present = table.fieldnames or ()
            code, scientific, common = (
                next((name for name in names if name in present), "")
                for names in (_CODE, _SCIENTIFIC, _COMMON)
            )
            if not code or not common:
                raise ValueError("its columns are missing")
            rows = [
                Species(row[code], row[common], row.get(scientific) or "")
                for row in table
                if row[code] and row[common]
            ]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, csv.Error) as error:
        raise CheckpointError(
            f"{path}: this is no eBird taxonomy; expected a table with a code "
            f"({' or '.join(_CODE)}) and a common name ({' or '.join(_COMMON[:3])}); correct the "
            f"file or remove it."
        ) from error
    return rows


def names_of_codes(codes: Sequence[str], taxonomy: Taxonomy) -> ClassNames:
    """Names of classes of which the checkpoint has the eBird codes; unknown codes stay codes."""
    species = [taxonomy.of_code(code) for code in codes]
    return ClassNames(
        _distinct(
            [s.common_name if s else code for s, code in zip(species, codes, strict=True)], codes
        ),
        [s.scientific_name if s else "" for s in species],
        list(codes),
    )


def names_of_species(
    names: Sequence[str],
    taxonomy: Taxonomy,
    *,
    common: Sequence[str] | None = None,
    codes: Sequence[str] | None = None,
) -> ClassNames:
    """Names of classes of which there is a list of scientific names.

    Parameters
    ----------
    names : sequence of str
        Scientific names, and names of classes that are no species.
    taxonomy : Taxonomy
        Tells common names and codes of birds, unless they are given.
    common, codes : sequence of str, optional
        Of the model's authors; empty where they have none.
    """
    given = codes or [""] * len(names)
    species = [
        (taxonomy.of_code(code) if code else None) or taxonomy.of_scientific_name(name)
        for name, code in zip(names, given, strict=True)
    ]
    known = common or [s.common_name if s else "" for s in species]
    return ClassNames(
        _distinct([a or b for a, b in zip(known, names, strict=True)], names),
        [name if _is_species(name) else "" for name in names],
        [a or (s.code if s else "") for a, s in zip(given, species, strict=True)],
    )


def _is_species(name: str) -> bool:
    """Whether this is a scientific name, and not that of a sound ('Wind', 'Human vocal')."""
    return bool(_SPECIES.fullmatch(name)) and not name.startswith(_SOUNDS)


def _distinct(classes: Sequence[str], otherwise: Sequence[str]) -> list[str]:
    """Names of which no two are alike: those that are get the other name, too, or a number."""
    count, seen = Counter(classes), Counter[str]()
    distinct = []
    for name, other in zip(classes, otherwise, strict=True):
        full = f"{name} ({other})" if count[name] > 1 and other != name else name
        seen[full] += 1
        distinct.append(f"{full} ({seen[full]})" if seen[full] > 1 else full)
    return distinct


def fitting_codes(
    codes: Sequence[str], names: Sequence[str], taxonomy: Taxonomy, path: Path
) -> Sequence[str] | None:
    """A table of codes, unless it contradicts the names of the same classes.

    Names of a species differ between editions; where most of them do, the table belongs to
    another model.
    """
    pairs = ((taxonomy.of_code(code), name) for code, name in zip(codes, names, strict=True))
    same = [s.scientific_name.lower() == name.lower() for s, name in pairs if s is not None]
    if len(same) > 2 * sum(same):
        logger.warning(
            "%s: not used, because %d of its %d codes are those of other species than the names "
            "of the classes say; remove it, so that it is fetched again.",
            path,
            len(same) - sum(same),
            len(same),
        )
        return None
    return codes


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
        If the file cannot be read, or is no text.
    """
    try:
        rows = csv.reader(io.StringIO(_read_text(path), newline=""), delimiter=delimiter)
        return [row for row in rows if any(row)]
    except csv.Error as error:
        raise _unreadable(path, error) from error


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{path}: this label file cannot be read ({first_line(error)}); expected UTF-8 text with "
        f"one class per line; correct the file or remove it."
    )


def column(rows: Sequence[Sequence[str]], number: int, path: Path) -> list[str]:
    """One column of a table, without blanks around the names.

    Raises
    ------
    CheckpointError
        If a row is too short.
    """
    short = next((row for row in rows if len(row) <= number), None)
    if short is not None:
        raise CheckpointError(
            f"{path}: the row {', '.join(short)!r} lacks column {number + 1}; correct the file or "
            f"remove it."
        )
    return [row[number].strip() for row in rows]


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
    names = column(read_table(path), 0, path)
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
        If the file cannot be read, or a line has another form.
    """
    lines = [line.strip() for line in _read_text(path).splitlines()]
    parts = [line.partition("_") for line in lines]
    for number, (line, (_, separator, _)) in enumerate(zip(lines, parts, strict=True), start=1):
        if line and not separator:
            raise CheckpointError(
                f"{path}: line {number} is {line!r}; expected 'Scientific name_Common name'."
            )
    named = [(name, known_as) for name, separator, known_as in parts if separator]
    return [name for name, _ in named], [known_as for _, known_as in named]


def numbered_classes(count: int) -> tuple[str, ...]:
    """Names for the classes of a checkpoint that comes without any: class_000 and so on."""
    digits = max(3, len(str(count - 1)))
    return tuple(f"class_{i:0{digits}d}" for i in range(count))
