"""The zoo as a table for people."""

from __future__ import annotations

from pathlib import Path

from bacpipe import configuration
from bacpipe.models import checkpoints
from bacpipe.models.card import ModelCard
from bacpipe.models.zoo import CARDS

_HEADINGS = ("model", "rate (Hz)", "window (s)", "dim", "classes", "weights", "extra", "licence")


def model_table() -> str:
    """List all models.

    Returns
    -------
    str
        A row per model: sample rate, window, embedding length, number of classes, size of the
        weights if they are on this machine, extra to install, licence.
    """
    base = Path(configuration.settings().model_base_path)
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
