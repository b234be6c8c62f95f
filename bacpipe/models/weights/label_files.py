"""Label files: the names of a model's classes, without its weights and without its framework.

Each model's authors list its classes in a form of their own; the card of the model says which.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from bacpipe.errors import CheckpointError
from bacpipe.models.card import LabelFile, LabelForm, ModelCard
from bacpipe.models.weights.checkpoints import find_labels
from bacpipe.models.weights.class_names import (
    ClassNames,
    Taxonomy,
    check_number,
    column,
    fitting_codes,
    names_of_codes,
    names_of_species,
    numbered_classes,
    read_list,
    read_species,
    read_table,
    read_taxonomy,
)
from bacpipe.models.weights.containers import read_json
from bacpipe.models.zoo import EBIRD

logger = logging.getLogger(__name__)

_NO_CODE = "no_ebird_code"


def list_of_classes(card: ModelCard) -> LabelFile | None:
    """The label file of a model that lists its classes; its others only add codes."""
    return next((file for file in card.labels if file.form is not None), None)


def read_names(
    card: ModelCard, base: Path, *, n_classes: int | None = None, path: Path | None = None
) -> ClassNames | None:
    """Names of the classes of a model, as its label files alone tell them.

    Parameters
    ----------
    card : ModelCard
        Of the model.
    base : Path
        Folder of all checkpoints.
    n_classes : int, optional
        As many as the weights have; by default, those of the card.
    path : Path, optional
        The list; by default, it is looked for where the card says.

    Returns
    -------
    ClassNames or None
        None where the list is not on this machine or names no classes, or the names come with
        the weights only.

    Raises
    ------
    CheckpointError
        If a file cannot be read, or is of another number of classes.
    """
    file = list_of_classes(card)
    if file is None or file.form is None:
        return None
    path = path or find_labels(file, base)
    if path is None:
        return None
    more = (find_labels(other, base) for other in card.labels if other not in (file, *EBIRD))
    count = n_classes if n_classes is not None else card.n_classes
    return _READERS[file.form](_List(path, count or 0, base, next(more, None)))


def numbered(n_classes: int, card: ModelCard, base: Path) -> ClassNames:
    """Names for the classes of a model that came without a list of them, with a warning."""
    file = list_of_classes(card)
    if file is not None:
        logger.warning("%s: its classes are only numbered, %s", card.name, _why(file, base))
    return ClassNames(numbered_classes(n_classes))


def _why(file: LabelFile, base: Path) -> str:
    if (here := find_labels(file, base)) is not None:
        return f"because {here} does not name them."
    plain = (name for name in file.patterns if not re.search(r"[*?\[]", name))
    places = " or ".join(str(base / place) for place in (file.name, *plain))
    return f"because the list of their names is missing; put it at {places}."


class _List(NamedTuple):
    path: Path
    n_classes: int  # 0 where nothing tells
    base: Path
    codes: Path | None  # a file of its own

    @property
    def taxonomy(self) -> Taxonomy:
        """Read for those lists only that need it."""
        return read_taxonomy(EBIRD, self.base)

    def check(self, names: list[str]) -> list[str]:
        return check_number(names, self.n_classes, self.path)


def _birdnet(listed: _List) -> ClassNames:
    scientific, common = read_species(listed.path)
    return names_of_species(listed.check(scientific), listed.taxonomy, common=common)


def _birdnet_v3(listed: _List) -> ClassNames:
    path = listed.path
    header, *rows = read_table(path, delimiter=";") or [[]]
    columns = {name.strip(): i for i, name in enumerate(header)}
    missing = [name for name in ("sci_name", "com_name") if name not in columns]
    if missing:
        raise CheckpointError(
            f"{path}: lacks the column {' and '.join(missing)}; expected the semicolon-separated "
            f"label table that BirdNET+ V3.0 is published with."
        )
    names, common = (column(rows, columns[name], path) for name in ("sci_name", "com_name"))
    return names_of_species(listed.check(names), listed.taxonomy, common=common)


def _avesecho(listed: _List) -> ClassNames:
    rows = read_table(listed.path)
    names, known_as = (column(rows, number, listed.path) for number in (0, 1))
    # The list writes 'White-cheekedPintail'.
    common = [re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name) for name in known_as]
    return names_of_species(listed.check(names), listed.taxonomy, common=common)


def _insects(listed: _List) -> ClassNames:
    path, count = listed.path, listed.n_classes
    header, *rows = read_table(path) or [[]]
    found = next((name for name in ("species", "species_name") if name in header), None)
    if found is None:
        raise CheckpointError(
            f"{path}: lacks the column species; expected the table of the training recordings, or "
            f"a table with the columns label (a number) and species."
        )
    species = header.index(found)
    try:
        of_row = [row[species].strip().replace("_", " ") for row in rows]
        if "label" in header and len(rows) == count:
            label = header.index("label")
            named = {int(row[label]): name for row, name in zip(rows, of_row, strict=True)}
        else:
            named = dict(enumerate(sorted(set(of_row))))
    except (ValueError, IndexError) as error:
        raise CheckpointError(
            f"{path}: expected a species, and in the column label a number, in every row."
        ) from error
    if sorted(named) != list(range(count)):
        raise CheckpointError(
            f"{path}: expected {count} species, one per class of the checkpoint, with the labels 0 "
            f"to {count - 1}; found {len(named)}. Correct the file or remove it."
        )
    return names_of_species([named[i] for i in range(count)], Taxonomy())


def _label_map(listed: _List) -> ClassNames:
    names = {place: str(label) for label, place in read_json(listed.path).items()}
    count = listed.n_classes or len(names)
    if set(names) != set(range(count)):
        raise CheckpointError(
            f"{listed.path}: expected a number from 0 to {count - 1} for each of the {count} "
            f"classes of the weights; the two files must be of the same version."
        )
    return names_of_species([names[place] for place in range(count)], listed.taxonomy)


def _id2label(listed: _List) -> ClassNames | None:
    labels = read_json(listed.path).get("id2label")
    if not isinstance(labels, dict) or set(labels) != set(map(str, range(listed.n_classes))):
        return None  # a network works without
    codes = [str(labels[str(i)]) for i in range(listed.n_classes)]
    return names_of_codes(codes, listed.taxonomy)


def _codes(listed: _List) -> ClassNames:
    return names_of_codes(read_list(listed.path, listed.n_classes), listed.taxonomy)


def _names(listed: _List) -> ClassNames:
    return ClassNames(read_list(listed.path, listed.n_classes))


def _species(listed: _List) -> ClassNames:
    names, birds = read_list(listed.path, listed.n_classes), listed.taxonomy
    if listed.codes is None:
        return names_of_species(names, birds)
    codes = read_list(listed.codes, listed.n_classes)
    known = ["" if code == _NO_CODE else code for code in codes]
    return names_of_species(names, birds, codes=fitting_codes(known, names, birds, listed.codes))


def _audioset(listed: _List) -> ClassNames:
    # Number, code of the ontology and name, below a head.
    rows = read_table(listed.path)[1:]
    codes, names = (column(rows, number, listed.path) for number in (1, 2))
    return ClassNames(listed.check(names), [""] * len(names), codes)


_READERS: dict[LabelForm, Callable[[_List], ClassNames | None]] = {
    "audioset": _audioset,
    "avesecho": _avesecho,
    "birdnet": _birdnet,
    "birdnet_v3": _birdnet_v3,
    "codes": _codes,
    "id2label": _id2label,
    "insects": _insects,
    "label_map": _label_map,
    "names": _names,
    "species": _species,
}
