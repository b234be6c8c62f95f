"""``bacpipe classes``: the classes of a model, and the models that know a species."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bacpipe.commands.arguments import HelpFormatter, parse_words
from bacpipe.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    ModelUnavailableError,
    SettingsError,
    counted,
)
from bacpipe.models.card import LabelFile, ModelCard
from bacpipe.models.loading import find_card, import_wrapper, load_model
from bacpipe.models.weights import checkpoints
from bacpipe.models.zoo import CARDS, EBIRD
from bacpipe.options import make_options

if TYPE_CHECKING:
    from bacpipe.models.backends.zoo_model import ZooModel
    from bacpipe.models.base import Model
    from bacpipe.models.weights.class_names import ClassNames

_HEADER = ("class", "scientific name", "code")


def run(arguments: Sequence[str]) -> int:
    """Print classes, or the models that know a species; 1 when nothing was found."""
    parsed = _parser().parse_intermixed_args(arguments)
    names = [word for word in parsed.words if "=" not in word]
    settings = parse_words([word for word in parsed.words if "=" in word])
    base = Path(make_options(**settings).model_base_path)
    if parsed.species is not None and not names:
        return _who_knows(parsed.species, base)
    if len(names) != 1 or parsed.species is not None:
        raise SettingsError(
            'bacpipe classes takes one model, as in "bacpipe classes birdnet --search owl", or a '
            "species alone, as in \"bacpipe classes --species 'Strix aluco'\"."
        )
    card = find_card(names[0])
    rows = class_rows(card, base)
    if parsed.search is not None:
        wanted = parsed.search.casefold()
        rows = [row for row in rows if any(wanted in name.casefold() for name in row)]
    if not rows:
        print(  # noqa: T201
            f"No class of {card.name} has {parsed.search!r} in one of its names."
            if card.is_classifier
            else f"{card.name} has no classes; it gives embeddings only."
        )
        return 1
    print(_table(rows))  # noqa: T201
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bacpipe classes",
        description="List the classes of a model: names as people read them, scientific names and "
        "codes; or the models that know a species, among those whose classes are known without a "
        "download.",
        epilog="examples:\n"
        "  bacpipe classes birdnet\n"
        "  bacpipe classes birdnet --search owl\n"
        "  bacpipe classes --species 'Turdus merula'",
        formatter_class=HelpFormatter,
    )
    parser.add_argument(
        "words", nargs="*", metavar="MODEL | key=value", help="a model; model_base_path=FOLDER"
    )
    parser.add_argument("--search", metavar="WORD", help="only classes with this in a name")
    parser.add_argument(
        "--species", metavar="NAME", help="common or scientific name, or code, of a species"
    )
    return parser


def class_rows(card: ModelCard, base: Path) -> list[tuple[str, ...]]:
    """Names of each class: as people read it, scientific, code.

    Parameters
    ----------
    card : ModelCard
        Of the model.  It is loaded where its weights are; otherwise its card or its label files
        tell the classes, and these files are fetched.
    base : Path
        Folder of all checkpoints.

    Raises
    ------
    CheckpointNotFoundError
        If neither the weights are there, nor what tells the classes without them: nobody who wants
        to read a list waits for gigabytes.
    """
    if not card.is_classifier:
        return []
    absent = bool(checkpoints.missing_files(card, base))
    if absent and card.known_classes:
        return list(card.known_classes)
    named: ClassNames | Model = (
        _fetched_names(card, base)
        if absent
        else load_model(card.name, device="cpu", model_base_path=base)
    )
    classes = list(named.classes)
    empty = [""] * len(classes)
    return list(zip(classes, named.scientific_names or empty, named.codes or empty, strict=True))


def knows_classes(card: ModelCard, base: Path) -> bool:
    """Whether the classes can be listed without a download."""
    here = bool(card.known_classes) or not checkpoints.missing_files(card, base)
    return here or _in_labels(card, base) is not None


def _in_labels(card: ModelCard, base: Path) -> ClassNames | None:
    """Names that files beside the weights tell; what reads them may need the model's extra."""
    if all(checkpoints.find_labels(file, base) is None for file in _beside_weights(card)):
        return None
    wrapper: type[ZooModel] = import_wrapper(card)
    return wrapper.names_in_labels(card, base)


def _beside_weights(card: ModelCard) -> list[LabelFile]:
    """Files that tell the classes without the weights."""
    return [file for file in card.labels if file not in EBIRD]


def _fetched_names(card: ModelCard, base: Path) -> ClassNames:
    named = _in_labels(card, base)
    if named is None:
        import_wrapper(card)  # says which extra it needs
        for file in _beside_weights(card):
            checkpoints.resolve(file, base)
        named = _in_labels(card, base)
    if named is None:
        raise CheckpointNotFoundError(
            f"The names of the classes of {card.name} come with its weights, which are not on this "
            f'machine: "bacpipe models get {card.name}" fetches them.'
        )
    return named


def _who_knows(species: str, base: Path) -> int:
    wanted = species.casefold().strip()
    known: list[tuple[str, ...]] = []
    absent: list[str] = []
    for card in CARDS.values():
        if not card.is_classifier:
            continue
        try:
            if not knows_classes(card, base):
                absent.append(card.name)
                continue
            rows = class_rows(card, base)
        except (CheckpointNotFoundError, ModelUnavailableError):
            absent.append(card.name)
            continue
        except CheckpointError as error:  # damaged: nothing is missing
            print(f"{card.name}: {error}")  # noqa: T201
            continue
        same = [row for row in rows if wanted in (name.casefold() for name in row)]
        known += [(card.name, *row) for row in same]
    if known:
        print(_table(known, ("model", *_HEADER)))  # noqa: T201
    else:
        print(f"No model whose classes are known here has a class {species!r}.")  # noqa: T201
    if absent:
        print(  # noqa: T201
            f"\nNot looked at, because weights or packages are missing here: "
            f"{counted(len(absent), 'model')} ({', '.join(absent)}). bacpipe models get NAME "
            f"fetches weights."
        )
    return 0 if known else 1


def _table(rows: Sequence[Sequence[str]], header: Sequence[str] = _HEADER) -> str:
    filled = [any(column) for column in zip(*rows, strict=True)]
    lines = [
        [cell for cell, keep in zip(line, filled, strict=True) if keep] for line in (header, *rows)
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
