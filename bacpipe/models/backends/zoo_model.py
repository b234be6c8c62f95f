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
from bacpipe.models.weights.class_names import ClassNames, Taxonomy, numbered, read_taxonomy
from bacpipe.models.zoo import CARDS, EBIRD


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

    @classmethod
    def names_in_labels(
        cls, card: ModelCard, base: Path, n_classes: int | None = None
    ) -> ClassNames | None:
        """Names of the classes as the label files alone tell them, without the weights.

        Parameters
        ----------
        card : ModelCard
            Of the model.
        base : Path
            Folder of all checkpoints.
        n_classes : int, optional
            As many as the weights have; by default, those of the card.

        Returns
        -------
        ClassNames or None
            None where these files are not there, or the names come with the weights.

        Raises
        ------
        CheckpointError
            If a file cannot be read, or is of another number of classes.
        """
        labels = label_file(card, base) if card.labels else None
        return None if labels is None else cls.read_names(card, labels, base, n_classes)

    @classmethod
    def read_names(
        cls, card: ModelCard, labels: Path, base: Path, n_classes: int | None
    ) -> ClassNames | None:
        """What `names_in_labels` returns if the first label file is there."""
        return None

    def name_classes(self, n_classes: int) -> None:
        """Take the names of the label files in the order of the scores, or numbers."""
        names = self.names_in_labels(self.card, self.model_base_path, n_classes)
        self.classes, self.scientific_names, self.codes = names or self.numbered(n_classes)

    def label_file(self, number: int = 0) -> Path | None:
        """One of the label files of the card, if it is on this machine."""
        return label_file(self.card, self.model_base_path, number)

    def numbered(self, n_classes: int) -> ClassNames:
        """Names for classes whose label file is missing, with a warning that says where it goes."""
        return numbered(n_classes, self.card.name, self.model_base_path, self.card.labels[0])

    def taxonomy(self) -> Taxonomy:
        """The eBird taxonomy, as far as it is on this machine."""
        return taxonomy(self.model_base_path)


def taxonomy(base: Path) -> Taxonomy:
    """The eBird taxonomy, as far as it is in the folder of all checkpoints."""
    return read_taxonomy(EBIRD, base)


def label_file(card: ModelCard, base: Path, number: int = 0) -> Path | None:
    """One of the label files of a card, if it is in the folder of all checkpoints."""
    return checkpoints.find_labels(card.labels[number], base)


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
