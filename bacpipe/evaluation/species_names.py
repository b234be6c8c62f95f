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

An annotation that fits several classes is never guessed; it is reported as ambiguous.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bacpipe.errors import BacpipeError
from bacpipe.models.weights import checkpoints
from bacpipe.models.weights.class_names import read_species, read_taxonomy
from bacpipe.models.zoo import CARDS, EBIRD

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Match:
    """What became of one annotated name."""

    annotation: str  # the name in the annotations
    column: int | None  # class of the model; None when there is none or several
    # The step that decided: 'identical', 'spelling', 'scientific name', 'code', 'synonym',
    # 'ambiguous' or 'missing'
    how: str
    candidates: tuple[str, ...] = ()  # the class, or all classes that it may be


def match_names(
    annotations: Iterable[str],
    classes: Sequence[str],
    scientific_names: Sequence[str] = (),
    species: Iterable[Sequence[str]] = (),
    codes: Sequence[str] = (),
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
    matches = []
    for annotation in annotations:
        form = plain(annotation)
        steps = (
            ("identical", same.get(annotation, set())),
            ("spelling", spelling.get(form, set())),
            ("scientific name", scientific.get(form, set())),
            ("code", coded.get(form, set())),
            (
                "synonym",
                {i for other in synonyms.get(form, ()) for i in by_form.get(other, ())},
            ),
        )
        how, columns = next(
            ((how, columns) for how, columns in steps if columns), ("missing", set())
        )
        names = tuple(classes[i] for i in sorted(columns))
        if len(columns) == 1:
            matches.append(Match(annotation, next(iter(columns)), how, names))
        else:
            matches.append(Match(annotation, None, "ambiguous" if columns else how, names))
    return matches


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
    parts = re.fullmatch(r"([^_()]+)[_(]([^_()]+)\)?", name)
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
