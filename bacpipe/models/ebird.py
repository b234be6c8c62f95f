"""Common names for eBird's species codes.

The eBird/Clements taxonomy is not ours to ship and no package that we depend on carries it, but
anybody may download it as a table from https://www.birds.cornell.edu/clementschecklist/ or
https://api.ebird.org/v2/ref/taxonomy/ebird?fmt=csv.  Where such a table lies beside a checkpoint,
codes become names; without it, and for codes that it lacks, they stay as they are.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from bacpipe.errors import CheckpointError

_CODES = ("SPECIES_CODE", "species_code")
_NAMES = ("COMMON_NAME", "PRIMARY_COM_NAME", "English name")


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
    table = _find(folders)
    names = _read(table) if table else {}
    return tuple(names.get(code, code) for code in codes)


def _find(folders: Iterable[Path]) -> Path | None:
    for folder in folders:
        for path in sorted(folder.glob("*.csv")):
            name = path.name.lower()
            if name.startswith("ebird") and "taxonomy" in name:
                return path
    return None


def _read(path: Path) -> dict[str, str]:
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
