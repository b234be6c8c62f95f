"""Which class of a model an annotation means.

Names are compared step by step, and the first step that finds something decides:

1. ``identical``: the same text;
2. ``spelling``: the same but for case, accents, punctuation, and gray for grey;
3. ``scientific name``: the annotation is the scientific name of a class (or the other way
   around), by the model's own list;
4. ``code``: the annotation is the code of a class;
5. ``synonym``: both are names of one species in a list of species (BirdNET's labels, which come
   with bacpipe, and an eBird taxonomy beside the checkpoints): common name, scientific name or
   eBird code.

What a user's `label_map` says comes before all of them.  An annotation such as 'Turdus
merula_Eurasian Blackbird' is looked for as a whole, then by its two names.

An annotation that fits several classes is never guessed; it is reported as ambiguous.
"""

from __future__ import annotations

import csv
import logging
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bacpipe.errors import AnnotationsError, BacpipeError
from bacpipe.models.weights import checkpoints
from bacpipe.models.weights.class_names import read_species, read_taxonomy
from bacpipe.models.zoo import CARDS, EBIRD

logger = logging.getLogger(__name__)


_TWO_NAMES = r"([^_()]+)[_(]([^_()]+)\)?"  # 'Turdus merula_Eurasian Blackbird', as BirdNET does


@dataclass(frozen=True)
class Match:
    """What became of one annotated name."""

    annotation: str  # the name in the annotations
    column: int | None  # class of the model; None when there is none or several
    # The step that decided: 'identical', 'spelling', 'scientific name', 'code', 'synonym',
    # 'label_map', 'ambiguous' or 'missing'
    how: str
    candidates: tuple[str, ...] = ()  # the class, or all classes that it may be


def match_names(
    annotations: Iterable[str],
    classes: Sequence[str],
    scientific_names: Sequence[str] = (),
    species: Iterable[Sequence[str]] = (),
    codes: Sequence[str] = (),
    label_map: Mapping[str, str] | None = None,
) -> list[Match]:
    """Find the class of every annotated name, in the order of the annotations.

    Parameters
    ----------
    annotations : iterable of str
    classes : sequence of str
        Names of the model's classes.
    scientific_names : sequence of str
        Their scientific names in the same order, if the model has them.
    species : iterable of sequences of str
        Lists of names of one species each.
    codes : sequence of str
        Codes of the classes in the same order, if the model has them.
    label_map : mapping of str to str, optional
        What the user says an annotated name means.
    """
    same = _index((name, i) for i, name in enumerate(classes))
    spelling = _index((form, i) for i, name in enumerate(classes) for form in _forms(name))
    scientific = _index((plain(name), i) for i, name in enumerate(scientific_names))
    coded = _index((plain(code), i) for i, code in enumerate(codes))
    synonyms = _synonyms(species)
    own = [(i, set(_forms(name))) for i, name in enumerate(classes)]
    for i, name in enumerate(scientific_names):
        own[i][1].add(plain(name))
    by_form = _index((form, i) for i, forms in own for form in forms)

    def find(name: str) -> tuple[str, set[int]]:
        form = plain(name)
        steps = (
            ("identical", same.get(name, set())),
            ("spelling", spelling.get(form, set())),
            ("scientific name", scientific.get(form, set())),
            ("code", coded.get(form, set())),
            ("synonym", {i for other in synonyms.get(form, ()) for i in by_form.get(other, ())}),
        )
        return next(((how, columns) for how, columns in steps if columns), ("missing", set()))

    matches = []
    for annotation in annotations:
        meant = (label_map or {}).get(annotation)
        how, columns = find(annotation if meant is None else meant)
        if not columns:
            how, columns = _find_parts(annotation if meant is None else meant, find)
        if meant is not None and columns:
            how = "label_map"
        names = tuple(classes[i] for i in sorted(columns))
        if len(columns) == 1:
            matches.append(Match(annotation, next(iter(columns)), how, names))
        else:
            matches.append(Match(annotation, None, "ambiguous" if columns else how, names))
    return matches


def _find_parts(name: str, find: Callable[[str], tuple[str, set[int]]]) -> tuple[str, set[int]]:
    """Find 'Scientific name_Common name' by its parts; what they agree on, if they both say it."""
    parts = re.fullmatch(_TWO_NAMES, name)
    matches = [
        (how, columns) for how, columns in map(find, parts.groups() if parts else ()) if columns
    ]
    if not matches:
        return "missing", set()
    both = set.intersection(*(columns for _, columns in matches))
    return matches[0][0], both or set.union(*(columns for _, columns in matches))


def plain(name: str) -> str:
    """Name without case, accents and punctuation, 'grey' as 'gray'.

    Examples
    --------
    >>> plain("Grey-headed  Woodpecker")
    'gray headed woodpecker'
    >>> plain("Ménétries's Warbler")
    'menetriess warbler'
    """
    text = unicodedata.normalize("NFKD", name).casefold()
    text = "".join(letter for letter in text if not unicodedata.combining(letter))
    text = re.sub(r"['’‘`´]", "", text)
    return re.sub(r"[\W_]+", " ", text).strip().replace("grey", "gray")


def _forms(name: str) -> set[str]:
    """Plain forms of a class name, the parts of 'Scientific name_Common name' among them."""
    parts = re.fullmatch(_TWO_NAMES, name)
    return {plain(name), *(plain(part) for part in (parts.groups() if parts else ()))} - {""}


def _index(pairs: Iterable[tuple[str, int]]) -> dict[str, set[int]]:
    numbers_of: dict[str, set[int]] = defaultdict(set)
    for name, number in pairs:
        if name:
            numbers_of[name].add(number)
    return numbers_of


def _synonyms(species: Iterable[Sequence[str]]) -> dict[str, set[str]]:
    names_of: dict[str, set[str]] = defaultdict(set)
    for names in species:
        forms = {plain(name) for name in names if name.strip()} - {""}
        for form in forms:
            names_of[form] |= forms
    return names_of


def read_label_map(source: str | Mapping[str, str] | None, folder: Path) -> dict[str, str]:
    """What annotated names mean, from the setting `label_map`.

    Raises
    ------
    AnnotationsError
        If the file is missing or has no two columns.
    """
    if source is None or isinstance(source, Mapping):
        return dict(source or {})
    path = folder / source
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise AnnotationsError(
            f"label_map: {path} cannot be read ({error}); expected a CSV in UTF-8."
        ) from None
    separator = max(",;\t", key=text.partition("\n")[0].count)
    rows = [row for row in csv.reader(text.splitlines(), delimiter=separator) if any(row)][1:]
    names: dict[str, str] = {}
    for row in rows:
        if len(row) < 2 or not row[0].strip() or not row[1].strip():
            raise AnnotationsError(
                f"label_map: {path} has the row {row}; expected two columns, the annotated name "
                f"and the class of the model, below a row of headings."
            )
        names[row[0].strip()] = row[1].strip()
    return names


# ---------------------------------------------------------------------- lists of species


def known_species(model_base_path: Path) -> list[tuple[str, ...]]:
    """Names of species, one tuple for each, from the lists that are on this machine.

    BirdNET's labels, and the editions of the eBird taxonomy that lie with the checkpoints.
    """
    taxonomy = read_taxonomy(EBIRD, model_base_path)
    return [*_birdnet_species(model_base_path), *taxonomy.species]


def _birdnet_species(base: Path) -> list[tuple[str, ...]]:
    card = CARDS["birdnet"]
    if checkpoints.missing_files(card, base):
        return []
    try:
        labels = checkpoints.resolve(card, base)[card.files[1]]
        return list(zip(*read_species(labels), strict=True))
    except BacpipeError as error:
        logger.info("BirdNET's list of species is not used: %s", error)
        return []
