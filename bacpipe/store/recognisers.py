"""The two files of a recogniser: numbers (safetensors) and words (JSON).

The words travel with the numbers, too, so that neither is taken for the other's after a crash; the
JSON file is for people and other programs.  Reading runs no code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from bacpipe.errors import RecogniserError, ResultsError, ResultsNotFoundError, first_line
from bacpipe.store.files import write_json
from bacpipe.store.layout import RECOGNISER_WEIGHTS, RECOGNISER_WORDS
from bacpipe.store.tensors import read_tensors, write_tensors

FORMAT = 2
_LINEAR = 1  # the format of recognisers on embeddings as they are, which older versions read
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,59}", re.ASCII)  # also that of folders and files

_ANEW = (
    "; the recogniser works, and bacpipe.Recogniser.load(folder).save(folder) writes these words "
    "anew."
)
_OWN = ("format", "name", "model", "checkpoint", "classes", "dim", "square_roots")


@dataclass(frozen=True, eq=False)
class StoredRecogniser:
    """What is stored of a recogniser; for the attributes see `bacpipe.Recogniser`."""

    name: str
    model: str
    checkpoint: Mapping[str, str] | str
    classes: tuple[str, ...]
    weight: np.ndarray
    bias: np.ndarray
    about: Mapping[str, Any]
    square_roots: bool = False


_R = TypeVar("_R", bound=StoredRecogniser)


def square_roots(embeddings: np.ndarray, wanted: bool = True) -> np.ndarray:
    """Square roots of embeddings that are never negative; these themselves if none are wanted."""
    if not wanted:
        return embeddings
    roots: np.ndarray = np.maximum(embeddings, 0)
    return np.sqrt(roots, out=roots)


def words_of(recogniser: StoredRecogniser) -> dict[str, Any]:
    """All but the numbers."""
    roots = {"square_roots": True} if recogniser.square_roots else {}
    return {
        "format": FORMAT if recogniser.square_roots else _LINEAR,
        "name": recogniser.name,
        "model": recogniser.model,
        "checkpoint": recogniser.checkpoint,
        "classes": list(recogniser.classes),
        "dim": recogniser.weight.shape[1],
        **roots,
        **recogniser.about,
    }


def check_recogniser_name(name: object) -> None:
    """Refuse what a recogniser cannot be called.

    Raises
    ------
    RecogniserError
        If it is no text, or would lead elsewhere as the name of a folder.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise RecogniserError(
            f"name={name!r} is not possible for a recogniser: expected a name of letters, "
            f"digits, and _ . -, such as my_frogs."
        )


def write_recogniser(recogniser: StoredRecogniser, folder: Path) -> None:
    """Write both files, each whole or not at all."""
    check_recogniser_name(recogniser.name)
    words = words_of(recogniser)
    arrays = {"weight": np.ascontiguousarray(recogniser.weight), "bias": recogniser.bias}
    write_tensors(folder / RECOGNISER_WEIGHTS, arrays, words)
    write_json(folder / RECOGNISER_WORDS, words)


def read_recogniser(path: Path, kind: type[_R]) -> _R:
    """Read a recogniser from its folder, or from its safetensors file; `kind` is what it becomes.

    Raises
    ------
    ResultsNotFoundError
        If there is none.
    ResultsError
        If it is damaged, or was written by a newer bacpipe.
    """
    file = path if path.suffix == ".safetensors" else path / RECOGNISER_WEIGHTS
    try:
        words, arrays = read_tensors(file, FORMAT)
        weight, bias = arrays["weight"], arrays["bias"]
        classes = tuple(str(name) for name in words["classes"])
        if weight.shape != (len(classes), words["dim"]) or bias.shape != (len(classes),):
            raise ValueError(f"{len(classes)} classes, but weights of shape {weight.shape}")
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise ValueError("its weights are no numbers")
        about = {key: value for key, value in words.items() if key not in _OWN}
        name, model, checkpoint = str(words["name"]), str(words["model"]), words["checkpoint"]
        roots = bool(words.get("square_roots", False))
    except (FileNotFoundError, NotADirectoryError):
        raise ResultsNotFoundError(
            f"{file}: there is no such recogniser; train one with bacpipe.train_recogniser or "
            f"bacpipe train."
        ) from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ResultsError(
            f"{file}: this recogniser is damaged ({first_line(error)}); train it again."
        ) from None
    try:
        check_recogniser_name(name)
    except RecogniserError as error:
        raise ResultsError(f"{file}: {error}") from None
    return kind(
        name, model, checkpoint, classes, weight.astype(np.float32), bias.astype(np.float32),
        about, roots,
    )  # fmt: skip


def why_recogniser_damaged(path: Path) -> str | None:
    """One sentence on what is wrong with one of the two files; None if it is sound."""
    folder = path.parent
    try:
        stored = read_recogniser(folder, StoredRecogniser)
    except ResultsNotFoundError:
        return f"{path}: {RECOGNISER_WEIGHTS} is missing beside it; train the recogniser again."
    except ResultsError as error:
        return str(error) if path.name == RECOGNISER_WEIGHTS else None  # said of the other file
    if path.name == RECOGNISER_WEIGHTS:
        words = folder / RECOGNISER_WORDS
        return None if words.is_file() else f"{words}: is missing{_ANEW}"
    try:
        same = json.loads(path.read_bytes()) == json.loads(json.dumps(words_of(stored)))
    except (OSError, ValueError, RecursionError) as error:
        return f"{path}: cannot be read ({first_line(error)}){_ANEW}"
    return None if same else f"{path}: does not say what belongs to the numbers beside it{_ANEW}"
