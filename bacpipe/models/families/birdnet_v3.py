"""BirdNET+ V3.0, developer preview."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch

from bacpipe.errors import CheckpointError, counted
from bacpipe.models.backends.onnx import OnnxModel, Outputs
from bacpipe.models.backends.zoo_model import taxonomy
from bacpipe.models.card import ModelCard
from bacpipe.models.weights.class_names import (
    ClassNames,
    Taxonomy,
    check_number,
    column,
    names_of_species,
    read_table,
)

logger = logging.getLogger(__name__)


class BirdNetV3(OnnxModel):
    """BirdNET+ V3.0 (birdnet-team/birdnet-V3.0-dev, Zenodo 20703646).

    The network ends in a sigmoid: its scores are used as they are.  It was trained on 3 s and
    takes any length; we give it 3 s.

    Attributes
    ----------
    nan_windows : int
        Windows for which the network gave no numbers (digital silence does that).  Their
        embeddings and scores are zeros.
    """

    def set_up(self) -> None:
        self.nan_windows = 0
        self.name_classes(self.n_classes)

    @classmethod
    def read_names(
        cls, card: ModelCard, labels: Path, base: Path, n_classes: int | None
    ) -> ClassNames | None:
        return read_labels(labels, n_classes or card.n_classes or 0, taxonomy(base))

    def __call__(self, x: torch.Tensor) -> np.ndarray:
        embeddings = super().__call__(x)
        embeddings[self._without_numbers(embeddings)] = 0
        return embeddings

    def outputs(self, x: torch.Tensor) -> Outputs:
        outputs = super().outputs(x)
        broken = self._without_numbers(outputs.embeddings, outputs.scores)
        for rows in outputs:
            rows[broken] = 0
        return outputs

    def _without_numbers(self, *outputs: np.ndarray) -> np.ndarray:
        broken = np.any([~np.isfinite(rows).all(axis=1) for rows in outputs], axis=0)
        before = self.nan_windows
        self.nan_windows += int(broken.sum())
        # One line at 1, 10, 100, ... windows: a night of silence must not flood the log.
        if self.nan_windows and len(str(self.nan_windows)) > len(str(before or "")):
            logger.warning(
                "birdnet_v3 gave no numbers for %s so far, as for digital silence; "
                "their embeddings and scores are set to zero.",
                counted(self.nan_windows, "window"),
            )
        return broken


def read_labels(path: Path, n_classes: int, taxonomy: Taxonomy) -> ClassNames:
    """Names of the classes.

    Parameters
    ----------
    path : Path
        The authors' table, separated by semicolons, with the columns ``sci_name`` and
        ``com_name``.
    n_classes : int
        Classes of the model.
    taxonomy : Taxonomy
        Tells the codes of birds.

    Raises
    ------
    CheckpointError
        If columns or cells are missing, or the number of rows does not fit.
    """
    header, *rows = read_table(path, delimiter=";") or [[]]
    columns = {name.strip(): i for i, name in enumerate(header)}
    missing = [name for name in ("sci_name", "com_name") if name not in columns]
    if missing:
        raise CheckpointError(
            f"{path}: lacks the column {' and '.join(missing)}; expected the semicolon-separated "
            f"label table that BirdNET+ V3.0 is published with."
        )
    names, common = (column(rows, columns[name], path) for name in ("sci_name", "com_name"))
    return names_of_species(check_number(names, n_classes, path), taxonomy, common=common)
