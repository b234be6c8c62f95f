"""``bacpipe classes``: the classes of a model, and the models that know a species."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bacpipe.commands.arguments import HelpFormatter, own_settings
from bacpipe.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    ModelUnavailableError,
    SettingsError,
    counted,
)
from bacpipe.models.card import ModelCard
from bacpipe.models.loading import find_card, load_model
from bacpipe.models.weights import checkpoints
from bacpipe.models.weights.class_names import ClassNames
from bacpipe.models.weights.label_files import list_of_classes, read_names
from bacpipe.models.zoo import CARDS
from bacpipe.options import make_options

if TYPE_CHECKING:
    from bacpipe.models.base import Model

_HEADER = ("class", "scientific name", "code")


def run(arguments: Sequence[str]) -> int:
    """Print classes, or the models that know a species; 1 when nothing was found."""
    parser = _parser()
    parsed = parser.parse_intermixed_args(arguments)
    if parsed.species is not None and parsed.search is not None:
        parser.error("--search belongs to one model, not to --species, which looks at all of them")
    names = [word for word in parsed.words if "=" not in word]
    settings = own_settings([word for word in parsed.words if "=" in word])
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
    kept = telling_columns(rows)
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
    print(_table([[row[n] for n in kept] for row in rows], [_HEADER[n] for n in kept]))  # noqa: T201
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
        Of the model.  Its label files tell the classes; where there are none, the model is loaded
        if its weights are here, its card tells them, or the files are fetched.
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
    named = _names_here(card, base)
    if named is None and not checkpoints.missing_files(card, base):
        model: Model = load_model(card.name, device="cpu", model_base_path=base)
        named = ClassNames(model.classes, model.scientific_names, model.codes)
    if named is None and card.known_classes:
        return list(card.known_classes)
    classes, scientific, codes = named or _fetched_names(card, base)
    empty = [""] * len(classes)
    return list(zip(classes, scientific or empty, codes or empty, strict=True))


def telling_columns(rows: Sequence[Sequence[str]]) -> list[int]:
    """Numbers of the filled columns of `class_rows`, without the first if another repeats it."""
    filled = [n for n in range(3) if any(row[n] for row in rows)]
    repeated = any(all(row[0] == row[n] for row in rows) for n in filled if n > 0)
    return filled[1:] if repeated else filled


def knows_classes(card: ModelCard, base: Path) -> bool:
    """Whether the classes can be listed without a download."""
    listed = list_of_classes(card)
    here = listed is not None and checkpoints.find_labels(listed, base)
    return bool(here or card.known_classes or not checkpoints.missing_files(card, base))


def _names_here(card: ModelCard, base: Path) -> ClassNames | None:
    """Names in the label files on this machine, as far as they fit the weights on it."""
    try:
        return read_names(card, base)
    except CheckpointError:
        if checkpoints.missing_files(card, base):
            raise
        return None  # weights with other classes than those that were published


def _fetched_names(card: ModelCard, base: Path) -> ClassNames:
    named, listed = None, list_of_classes(card)
    if listed is not None:
        checkpoints.resolve(listed, base)
        checkpoints.fetch_labels(card.labels, base)
        named = read_names(card, base)
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
            f"\nNot looked at, because their lists are not on this machine: "
            f'{counted(len(absent), "model")} ({", ".join(absent)}). "bacpipe models get --names '
            f'--all" fetches them, without weights.'
        )
    return 0 if known else 1


def _table(rows: Sequence[Sequence[str]], header: Sequence[str]) -> str:
    filled = [any(column) for column in zip(*rows, strict=True)]
    lines = [
        [cell for cell, keep in zip(line, filled, strict=True) if keep] for line in (header, *rows)
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
