"""What models of the zoo share: their card and their files, found by their class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch

from bacpipe.errors import SettingsError
from bacpipe.models.base import ModelBaseClass, base_path
from bacpipe.models.card import ModelCard
from bacpipe.models.weights import checkpoints
from bacpipe.models.weights.label_files import numbered, read_names
from bacpipe.models.zoo import CARDS


class ZooModel(ModelBaseClass):
    """A model of the zoo, or one that extends it.

    Whoever gives no card gets that of the class, and whoever gives no files has them looked for
    and, when they are missing, fetched.  So a subclass, or a class that makes one of these, needs
    to know nothing of checkpoints.

    Parameters
    ----------
    card : ModelCard or str, optional
        Its card, or the name on it, which only classes of several models of the zoo need.
    files : mapping of str to Path, optional
        Checkpoint files by the names of ``card.files``.
    device : str
        Where it computes.
    model_base_path : str or Path, optional
        Folder that holds (or receives) the checkpoints; that of the settings by default.

    Raises
    ------
    SettingsError
        If the class is that of no model of the zoo, or of several and no card is given.
    CheckpointNotFoundError, CheckpointError
        If the files are missing, damaged or do not fit.
    """

    card: ModelCard
    in_host_memory: ClassVar[bool] = False  # where audio is handed over, whatever computes

    def __init__(
        self,
        *,
        card: ModelCard | str | None = None,
        files: Mapping[str, Path] | None = None,
        device: str = "cpu",
        model_base_path: str | Path | None = None,
    ) -> None:
        own_card, base = _card_of(type(self), card), base_path(model_base_path)
        if files is None:
            files = checkpoints.resolve(own_card, base)
            checkpoints.fetch_labels(own_card.labels, base)
        super().__init__(
            sr=own_card.sample_rate,
            segment_length=own_card.window,
            device="cpu" if self.in_host_memory else device,
            card=own_card,
            files=files,
            batch_size=own_card.cpu_batch,
            model_base_path=base,
        )
        self.paths = [self.files[name] for name in own_card.files]
        self.start(device)
        self.set_up()

    def start(self, device: str) -> None:
        """Open what the network is computed with on a device, before `set_up`."""

    def set_up(self) -> None:
        """Build or find the network, and what goes with it, from `paths` in the card's order."""

    def name_classes(self, n_classes: int, listed: Path | None = None) -> None:
        """Take the names that a label file tells in the order of the scores, or numbers.

        Parameters
        ----------
        n_classes : int
            As many as the weights have.
        listed : Path, optional
            The list; by default, it is looked for where the card says.
        """
        base = self.model_base_path
        names = read_names(self.card, base, n_classes=n_classes, path=listed)
        names = names or numbered(n_classes, self.card, base)
        self.classes, self.scientific_names, self.codes = names


class HostModel(ZooModel):
    """A model that a library computes which takes waveforms in host memory and opens files itself.

    A copy opens them again.
    """

    in_host_memory = True

    def start(self, device: str) -> None:
        self._asked = device

    def __reduce__(self) -> tuple[Any, ...]:
        kind, base = type(self), self.model_base_path
        return _load_again, (kind, self.card, self.files, self._asked, base)

    def preprocess(self, audio: torch.Tensor) -> torch.Tensor:
        """Return the windows as they are; the network begins at the waveform."""
        return audio


def _load_again(
    kind: type[HostModel],
    card: ModelCard,
    files: Mapping[str, Path],
    device: str,
    model_base_path: Path,
) -> HostModel:
    return kind(card=card, files=files, device=device, model_base_path=model_base_path)


def _card_of(kind: type[ZooModel], card: ModelCard | str | None) -> ModelCard:
    if isinstance(card, ModelCard):
        return card
    if isinstance(card, str):
        return CARDS[card]
    for parent in kind.__mro__:
        wrapper = f"{parent.__module__}:{parent.__qualname__}"
        cards = [known for known in CARDS.values() if known.wrapper == wrapper]
        if len(cards) == 1:
            return cards[0]
        if cards:
            names = " or ".join(repr(known.name) for known in cards)
            raise SettingsError(
                f"{kind.__name__}: its class stands for several models; say which one when you "
                f"construct it: card={names}."
            )
    raise SettingsError(
        f"{kind.__name__}: this class is that of no model of the zoo; inherit from the class of "
        f"one, or from bacpipe.ModelBaseClass, or give a card."
    )
