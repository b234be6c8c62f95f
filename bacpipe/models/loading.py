"""From a model's name, or a user's class, to a model that is ready to run; the zoo as a table."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bacpipe import extras
from bacpipe.errors import BacpipeError, ModelUnavailableError, UnknownModelError, unexpected
from bacpipe.models.base import Model, ModelBaseClass, base_path, ready_model
from bacpipe.models.card import ModelCard
from bacpipe.models.weights import checkpoints
from bacpipe.models.zoo import CARDS, canonical_name

logger = logging.getLogger(__name__)


def find_card(name: str) -> ModelCard:
    """Card of a model of the zoo, whatever the case of its name.

    Raises
    ------
    UnknownModelError
        Naming the closest supported models.
    """
    try:
        return CARDS[canonical_name(name)]
    except (KeyError, TypeError):
        several = [part for part in re.split(r"[\s,;+]+", str(name)) if part in CARDS]
        if len(several) > 1:
            raise UnknownModelError(
                f"There is no model {name!r}; several models are given as a list: "
                f"[{', '.join(several)}]."
            ) from None
        closest = difflib.get_close_matches(str(name).lower(), CARDS, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(closest)}?" if closest else "no name is close to it."
        raise UnknownModelError(
            f"There is no model {name!r}; {hint} All models: {', '.join(CARDS)}."
        ) from None


def load_model(name: str, *, device: str, model_base_path: str | Path) -> Model:
    """Load a model of the zoo with its weights.

    Parameters
    ----------
    name : str
        Name of the model.
    device : str
        Where it computes: 'cpu', 'cuda', 'cuda:1', 'mps'.
    model_base_path : str or Path
        Folder that holds (or receives) the checkpoints.

    Raises
    ------
    UnknownModelError
        If no model has this name.
    ModelUnavailableError
        If the wrapper is not written yet or its optional dependency is missing.
    CheckpointNotFoundError, CheckpointError
        If the weights are missing or do not fit.
    """
    card = find_card(name)
    wrapper = import_wrapper(card)
    model: Model = wrapper(card=card, device=device, model_base_path=model_base_path)
    if card.non_commercial:
        _announce_licence(card)
    return model


def load_custom_model(
    custom: Any,
    *,
    device: str,
    model_base_path: str | Path,
    more: Mapping[str, object] | None = None,
) -> Model:
    """Make a user's model ready, an instance or a class, which is constructed.

    The constructor gets those of ``device`` and ``model_base_path`` that it accepts, and of `more`
    those that it names.  Classes of the zoo, and subclasses of them, find their card and their
    files by themselves.

    Raises
    ------
    SettingsError
        If it lacks what every model must have.
    ModelUnavailableError
        If its constructor fails.
    """
    if not inspect.isclass(custom):
        return ready_model(custom, model_base_path)
    offered = {"device": device, "model_base_path": str(model_base_path)}
    return ready_model(_construct(custom, offered, more or {}), model_base_path)


def _construct(custom: Any, offered: Mapping[str, str], more: Mapping[str, object]) -> Any:
    parameters = inspect.signature(custom).parameters
    anything = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    # **kwargs usually go on to ModelBaseClass, which takes both; those of others take a device.
    taken = set(offered) if issubclass(custom, ModelBaseClass) else {"device"}
    accepted = {
        key: value
        for key, value in offered.items()
        if key in parameters or (anything and key in taken)
    } | {key: value for key, value in more.items() if key in parameters}
    try:
        return custom(**accepted)
    except BacpipeError:
        raise
    except Exception as error:  # users' code raises anything; the other models shall run
        problem = unexpected(custom.__name__, error, "this model cannot be constructed")
        raise ModelUnavailableError(f"{problem}; correct its __init__.") from error


def import_wrapper(card: ModelCard) -> Any:
    """Class that wraps a model of the zoo.

    Raises
    ------
    ModelUnavailableError
        If its optional dependency is missing or cannot be imported, or it is not written yet.
    """
    module_name, class_name = card.wrapper.split(":")
    if importlib.util.find_spec(module_name) is None:
        raise ModelUnavailableError(
            f"The model {card.name!r} is known but not written yet in this version of bacpipe; "
            f"choose another one (bacpipe.supported_models)."
        )
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a package that is broken raises anything, not only ImportError
        ours = isinstance(error, ImportError) and (error.name or "").startswith("bacpipe")
        if card.extra is None or ours:
            raise
        what = f"The model {card.name!r}"
        raise ModelUnavailableError(extras.cannot_import(what, card.extra, error)) from error
    return getattr(module, class_name)


_announced: set[str] = set()


def _announce_licence(card: ModelCard) -> None:
    if card.name not in _announced:
        _announced.add(card.name)
        logger.info(
            "%s: its weights are licensed for non-commercial use only (%s).",
            card.name,
            card.licence,
        )


_HEADINGS = ("model", "rate (Hz)", "window (s)", "dim", "classes", "weights", "extra", "licence")


def model_table(model_base_path: str | Path | None = None) -> str:
    """List all models.

    Parameters
    ----------
    model_base_path : str or Path, optional
        Folder of all checkpoints; that of the settings by default.

    Returns
    -------
    str
        A row per model: sample rate, window, embedding length, number of classes, size of the
        weights if they are on this machine, extra to install, licence.
    """
    base = base_path(model_base_path)
    rows = [_HEADINGS, *(_row(card, base) for card in CARDS.values())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _row(card: ModelCard, base: Path) -> tuple[str, ...]:
    classes = str(card.n_classes) if card.n_classes else ("yes" if card.classes else "-")
    return (
        card.name,
        str(card.sample_rate),
        f"{card.window_seconds:.3g}",
        str(card.dim),
        classes,
        _weights(card, base),
        card.extra or "-",
        card.licence,
    )


def _weights(card: ModelCard, base: Path) -> str:
    if checkpoints.missing_files(card, base):
        return "not here"
    size = sum(checkpoints.size_of(path) for path in checkpoints.resolve(card, base).values())
    return f"{size / 1e6:.0f} MB"
