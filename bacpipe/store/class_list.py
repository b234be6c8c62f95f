"""The classes of a model beside its predictions: name, scientific name and code of each.

Predictions hold the names that people read, which differ between models; by the scientific names in
``<model>_classes.csv``, the species of different models are one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from bacpipe.errors import ResultsError
from bacpipe.store.files import write_csv

_COLUMNS = ("class", "scientific_name", "code")


class ClassName(NamedTuple):
    """What is known of a class beside its name; empty where nothing is."""

    scientific_name: str = ""
    code: str = ""


class ClassList:
    """Classes of a model by their names.

    A class that is listed under another name than that of stored predictions, because the names of
    its codes became known since, is found by its code.
    """

    def __init__(self, names: dict[str, ClassName]) -> None:
        self.names = names
        self._by_code = {name.code: name for name in names.values() if name.code}

    def of(self, label: str) -> ClassName:
        """Scientific name and code of a class."""
        return self.names.get(label) or self._by_code.get(label) or ClassName()

    @classmethod
    def of_model(
        cls, classes: Sequence[str], scientific_names: Sequence[str], codes: Sequence[str]
    ) -> ClassList:
        """Classes of a model; the last two may be empty."""
        rows = zip_longest(classes, scientific_names, codes, fillvalue="")
        return cls({label: ClassName(*rest) for label, *rest in rows})

    @property
    def has_scientific_names(self) -> bool:
        """Whether the scientific name of any class is known."""
        return any(name.scientific_name for name in self.names.values())


def write_class_list(path: Path, listed: ClassList) -> None:
    """Write all classes of a model to what `bacpipe.store.layout.class_list_path` gives."""
    import pandas as pd

    rows = [(label, *name) for label, name in listed.names.items()]
    write_csv(path, pd.DataFrame(rows, columns=list(_COLUMNS), dtype=str))


def read_class_list(path: Path) -> ClassList:
    """Classes of a model; none if no run has written them.

    Raises
    ------
    ResultsError
        If the file is damaged.
    """
    import pandas as pd

    if not path.is_file():
        return ClassList({})
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        columns = [table[name].tolist() for name in _COLUMNS]
    except (OSError, ValueError, KeyError) as error:
        raise ResultsError(
            f"{path}: this list of classes is damaged; delete it and run the pipeline again."
        ) from error
    return ClassList({label: ClassName(*rest) for label, *rest in zip(*columns, strict=True)})
