"""BirdNET+ V3.0, developer preview."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from bacpipe.errors import CheckpointError
from bacpipe.models.backends.onnx import OnnxModel, Outputs
from bacpipe.models.weights import class_names

logger = logging.getLogger(__name__)


class BirdNetV3(OnnxModel):
    """BirdNET+ V3.0 (birdnet-team/birdnet-V3.0-dev, Zenodo 18247420).

    The network ends in a sigmoid: its scores are used as they are.  It was trained on 3 s and
    takes any length; we give it 3 s.

    Attributes
    ----------
    scientific_names : sequence of str
        Scientific names of the classes, in order.
    nan_windows : int
        Windows for which the network gave no numbers (digital silence does that).  Their
        embeddings and scores are zeros.
    """

    scientific_names: Sequence[str]

    def set_up(self) -> None:
        self.nan_windows = 0
        folder = self.files[self.card.files[0]].parent
        labels = class_names.find_label_file(folder, "labels.csv", "*[Ll]abels*.csv")
        if labels is None:
            names = class_names.numbered(self.n_classes, self.card.name, folder / "labels.csv")
            self.scientific_names, self.classes = names, names
        else:
            self.scientific_names, self.classes = read_labels(labels, self.n_classes)

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
                "birdnet_v3 gave no numbers for %d window(s) so far, as for digital silence; "
                "their embeddings and scores are set to zero.",
                self.nan_windows,
            )
        return broken


def read_labels(path: Path, n_classes: int) -> tuple[list[str], list[str]]:
    """Scientific and common names of the classes.

    Parameters
    ----------
    path : Path
        The authors' table, separated by semicolons, with the columns ``sci_name`` and
        ``com_name``.
    n_classes : int
        Classes of the model.

    Returns
    -------
    scientific_names, common_names : list of str
        The scientific name stands in for a common name that is missing.

    Raises
    ------
    CheckpointError
        If columns are missing or the number of rows does not fit.
    """
    header, *rows = class_names.read_table(path, delimiter=";") or [[]]
    columns = {name.strip(): i for i, name in enumerate(header)}
    missing = [name for name in ("sci_name", "com_name") if name not in columns]
    if missing:
        raise CheckpointError(
            f"{path}: lacks the column {' and '.join(missing)}; expected the semicolon-separated "
            f"label table that BirdNET+ V3.0 is published with."
        )
    scientific, common = columns["sci_name"], columns["com_name"]
    names = [row[scientific].strip() for row in rows]
    class_names.check_number(names, n_classes, path)
    return names, [row[common].strip() or name for row, name in zip(rows, names, strict=True)]
