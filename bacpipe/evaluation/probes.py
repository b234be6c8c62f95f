"""Probes: small classifiers on frozen embeddings.

A probe is a PyTorch module whose whole state is tensors (safetensors) plus a few words (JSON), so
that it loads back to identical predictions and needs no pickle.  Every probe standardises its
input with the mean and deviation of its training windows.  To add one, subclass `Probe` and list
it in `PROBES` (and its parameters in `bacpipe.options`).

On disk a probe is ``<name>_probe.safetensors`` and ``<name>_probe.json``.  The tensors alone do not
say what they are; the JSON names the probe, its parameters, the model whose embeddings it takes and
its classes.  ``label2index.json`` repeats the classes, for readers of other programs.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from bacpipe.errors import EvaluationError, ResultsError, ResultsNotFoundError, first_line
from bacpipe.inference.runner import available_cores, limited_threads
from bacpipe.store.files import replacing, write_json
from bacpipe.store.layout import LABEL_NUMBERS, probe_weights_name

_CHUNK = 4096
_FORMAT = 1
_PROGRESS = 1e-3  # nats; a smaller fall of the validation loss does not keep training going


@dataclass(frozen=True)
class TrainingData:
    """What a probe learns from."""

    embeds: np.ndarray  # float32, shape (n, dim)
    labels: np.ndarray  # int64, shape (n,)
    train: np.ndarray  # int64: rows to train and to validate with
    val: np.ndarray  # int64
    n_classes: int


class Probe(nn.Module):
    """Base class of probes.

    Parameters
    ----------
    dim, n_classes : int
        Length of an embedding, and number of classes.
    **parameters
        What the user may choose; missing ones have `defaults`.

    Attributes
    ----------
    classes : tuple of str
        Name of every column of `scores`; empty until it is known.
    """

    kind: ClassVar[str]
    defaults: ClassVar[Mapping[str, Any]] = {}

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, dim: int, n_classes: int, **parameters: Any) -> None:
        super().__init__()
        self.dim, self.n_classes = dim, n_classes
        self.parameters_used = {**self.defaults, **parameters}
        self.classes: tuple[str, ...] = ()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("deviation", torch.ones(dim))

    def standardise(self, x: torch.Tensor) -> torch.Tensor:
        """Bring every dimension to mean 0 and deviation 1 of the training windows."""
        return (x - self.mean) / self.deviation

    def learn(
        self,
        data: TrainingData,
        *,
        seed: int,
        device: str = "cpu",
        progress: Callable[[int, int], object] | None = None,
    ) -> dict[str, Any]:
        """Train, and say how it went, for the report.

        Parameters
        ----------
        data : TrainingData
        seed : int
            Seed of everything random.
        device : str
            Where to compute.
        progress : callable, optional
            Called with the number of steps done and the largest number there may be.
        """
        raise NotImplementedError

    def scores(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores, float32 of shape (n, n_classes), of embeddings of shape (n, dim).

        They are in [0, 1] and sum to 1 for every window.
        """
        raise NotImplementedError

    def predict(
        self,
        embeds: np.ndarray,
        *,
        device: str = "cpu",
        progress: Callable[[int], object] | None = None,
    ) -> np.ndarray:
        """Do what `scores` does for an array, part by part.

        `progress` is called with the number of windows done so far.
        """
        if embeds.ndim != 2 or embeds.shape[1] != self.dim:
            raise EvaluationError(
                f"The probe takes embeddings of shape (windows, {self.dim}), but got "
                f"{embeds.shape}; it was trained with another model."
            )
        self.to(device).eval()
        result = np.empty((len(embeds), self.n_classes), np.float32)
        with torch.inference_mode():
            for first in range(0, len(embeds), _CHUNK):
                part = np.ascontiguousarray(embeds[first : first + _CHUNK], np.float32)
                x = torch.from_numpy(part).to(device)
                result[first : first + _CHUNK] = self.scores(x).cpu().numpy()
                if progress is not None:
                    progress(min(first + _CHUNK, len(embeds)))
        return result

    def _fit_standardiser(self, embeds: np.ndarray, rows: np.ndarray) -> None:
        total, squares = np.zeros(self.dim), np.zeros(self.dim)
        for first in range(0, len(rows), _CHUNK):
            part = embeds[rows[first : first + _CHUNK]].astype(np.float64)
            total += part.sum(axis=0)
            squares += np.square(part).sum(axis=0)
        mean = total / len(rows)
        deviation = np.sqrt(np.maximum(squares / len(rows) - mean**2, 0))
        # A dimension that does not vary says nothing; it must not be blown up either.
        deviation[deviation < 1e-6 * max(deviation.max(), 1e-12)] = 1
        self.mean = torch.from_numpy(mean.astype(np.float32))
        self.deviation = torch.from_numpy(deviation.astype(np.float32))


class LinearProbe(Probe):
    """One linear layer: multinomial logistic regression.

    Trained with Adam on the cross-entropy, classes weighted by the inverse of their frequency;
    training stops when the loss on the validation windows no longer falls, and the weights of
    the best epoch are kept.  Calling the module gives logits.
    """

    kind = "linear"
    defaults: ClassVar[Mapping[str, Any]] = {
        "learning_rate": 0.001,
        "batch_size": 256,
        "max_epochs": 100,
        "patience": 5,
        "weight_decay": 0.0001,
    }

    def __init__(self, dim: int, n_classes: int, **parameters: Any) -> None:
        super().__init__(dim, n_classes, **parameters)
        self.layer = nn.Linear(dim, n_classes)
        # The problem is convex, so there is no need for a random start.
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(self.standardise(x))

    def scores(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self(x), dim=1)

    def learn(
        self,
        data: TrainingData,
        *,
        seed: int,
        device: str = "cpu",
        progress: Callable[[int, int], object] | None = None,
    ) -> dict[str, Any]:
        # Batches are too small to share: on a busy machine, threads that wait for each other
        # take ten times as long as one.
        with limited_threads(available_cores()):
            return self._learn(data, seed, device, progress)

    def _learn(
        self,
        data: TrainingData,
        seed: int,
        device: str,
        progress: Callable[[int, int], object] | None,
    ) -> dict[str, Any]:
        chosen = self.parameters_used
        self._fit_standardiser(data.embeds, data.train)
        self.to(device)
        # One matrix each, sliced by index: a loader fetches windows one by one.
        x, y = (torch.from_numpy(a[data.train]).to(device) for a in (data.embeds, data.labels))
        x_val, y_val = (
            torch.from_numpy(a[data.val]).to(device) for a in (data.embeds, data.labels)
        )
        with torch.no_grad():
            x, x_val = self.standardise(x), self.standardise(x_val)
        counts = torch.bincount(y, minlength=data.n_classes).clamp(min=1)
        loss_of = nn.CrossEntropyLoss(weight=len(y) / (data.n_classes * counts.float()))
        optimiser = torch.optim.Adam(
            self.layer.parameters(),
            lr=chosen["learning_rate"],
            weight_decay=chosen["weight_decay"],
            fused=torch.device(device).type in {"cpu", "cuda"},
        )
        generator = torch.Generator().manual_seed(seed)
        best, best_epoch, best_state, epoch = float("inf"), 0, self._state(), 0
        milestone, reached = float("inf"), 0
        for epoch in range(1, chosen["max_epochs"] + 1):
            order = torch.randperm(len(y), generator=generator).to(device)
            for rows in order.split(chosen["batch_size"]):
                optimiser.zero_grad()
                loss_of(self.layer(x[rows]), y[rows]).backward()
                optimiser.step()
            with torch.no_grad():
                loss = loss_of(self.layer(x_val), y_val).item()
            if progress is not None:
                progress(epoch, chosen["max_epochs"])
            if loss < best:
                best, best_epoch, best_state = loss, epoch, self._state()
            if loss < milestone - _PROGRESS:
                milestone, reached = loss, epoch
            elif epoch - reached >= chosen["patience"]:
                break
        self.layer.load_state_dict(best_state)
        return {"epochs": epoch, "best_epoch": best_epoch, "validation_loss": best}

    def _state(self) -> dict[str, torch.Tensor]:
        return {name: value.detach().clone() for name, value in self.layer.state_dict().items()}


class KnnProbe(Probe):
    """Vote of the nearest training windows.

    The score of a class is the share of the neighbours that have it.
    """

    kind = "knn"
    defaults: ClassVar[Mapping[str, Any]] = {"n_neighbors": 15, "metric": "cosine"}

    windows: torch.Tensor
    labels: torch.Tensor

    def __init__(self, dim: int, n_classes: int, **parameters: Any) -> None:
        super().__init__(dim, n_classes, **parameters)
        self.register_buffer("windows", torch.zeros(0, dim))
        self.register_buffer("labels", torch.zeros(0, dtype=torch.int64))

    def learn(
        self,
        data: TrainingData,
        *,
        seed: int,
        device: str = "cpu",
        progress: Callable[[int, int], object] | None = None,
    ) -> dict[str, Any]:
        self._fit_standardiser(data.embeds, data.train)
        self.windows = self._place(torch.from_numpy(data.embeds[data.train]))
        self.labels = torch.from_numpy(data.labels[data.train])
        self.to(device)
        if progress is not None:
            progress(1, 1)
        rarest = int(self.labels.bincount(minlength=data.n_classes).min())
        return {
            "neighbours_used": self._neighbours,
            "training_windows": len(self.labels),
            "training_windows_of_rarest_class": rarest,
        }

    @property
    def _neighbours(self) -> int:
        """At most as many as there are training windows."""
        return min(self.parameters_used["n_neighbors"], len(self.labels))

    def _place(self, x: torch.Tensor) -> torch.Tensor:
        x = self.standardise(x)
        return nn.functional.normalize(x) if self.parameters_used["metric"] == "cosine" else x

    def scores(self, x: torch.Tensor) -> torch.Tensor:
        nearness = self._place(x) @ self.windows.T
        if self.parameters_used["metric"] == "euclidean":
            # |a - b|² without |a|², which is the same for all neighbours of a.
            nearness = 2 * nearness - self.windows.square().sum(dim=1)
        neighbours = self.labels[nearness.topk(self._neighbours, dim=1).indices]
        votes = torch.zeros(len(x), self.n_classes, device=x.device)
        votes.scatter_add_(1, neighbours, torch.ones_like(neighbours, dtype=votes.dtype))
        return votes / self._neighbours

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *rest: Any, **more: Any
    ) -> None:
        # The number of training windows is only known from the file.
        for name in ("windows", "labels"):
            if prefix + name in state_dict:
                setattr(self, name, torch.empty_like(state_dict[prefix + name]))
        super()._load_from_state_dict(state_dict, prefix, *rest, **more)


PROBES: dict[str, type[Probe]] = {probe.kind: probe for probe in (LinearProbe, KnnProbe)}


def find_probe(name: str) -> type[Probe]:
    """Class of a probe by its name; an EvaluationError if there is none."""
    if name in PROBES:
        return PROBES[name]
    closest = difflib.get_close_matches(str(name), PROBES, n=1)
    hint = f"did you mean {closest[0]!r}?" if closest else f"there are {', '.join(PROBES)}."
    raise EvaluationError(f"There is no probe {name!r}; {hint}")


def make_probe(
    name: str, dim: int, classes: Sequence[str], parameters: Mapping[str, Any] | None = None
) -> Probe:
    """Make an untrained probe."""
    probe = find_probe(name)(dim, len(classes), **dict(parameters or {}))
    probe.classes = tuple(classes)
    return probe


# ---------------------------------------------------------------------- files


def save_probe(folder: Path, probe: Probe, about: Mapping[str, Any]) -> Path:
    """Save a trained probe; returns the safetensors file.

    `about` is what else the JSON says: the model, the label column, the fingerprint of the data.
    """
    from safetensors.torch import save

    path = folder / probe_weights_name(probe.kind)
    state = {name: value.detach().cpu().contiguous() for name, value in probe.state_dict().items()}
    description = {
        "format": _FORMAT,
        "probe": probe.kind,
        "dim": probe.dim,
        "parameters": dict(probe.parameters_used),
        "classes": list(probe.classes),
        **about,
    }
    with replacing(path) as file:
        file.write(save(state, {"bacpipe": json.dumps(description)}))
    write_json(path.with_suffix(".json"), description)
    write_json(folder / LABEL_NUMBERS, {name: number for number, name in enumerate(probe.classes)})
    return path


def load_probe(path: Path) -> tuple[Probe, dict[str, Any]]:
    """Load a trained probe from its safetensors file or its JSON, with what that says.

    Raises
    ------
    ResultsNotFoundError
        If there is no such probe.
    ResultsError
        If it is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    tensors, words = path.with_suffix(".safetensors"), path.with_suffix(".json")
    try:
        description = json.loads(words.read_text(encoding="utf-8"))
        state = load(tensors.read_bytes())
        # Before a probe of this size is made.
        if description["dim"] != len(state["mean"]):
            raise ValueError(f"dim is {description['dim']!r}, the tensors say {len(state['mean'])}")
        keys = ("probe", "dim", "classes", "parameters")
        probe = make_probe(*(description[key] for key in keys))
        probe.load_state_dict(state)
    except FileNotFoundError as error:
        raise ResultsNotFoundError(
            f"{error.filename}: there is no such probe; train one with bacpipe.probing_pipeline or "
            f"evaluation_task=['probing'] (and save_probe: true)."
        ) from None
    except (
        OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, MemoryError,
        RuntimeError, SafetensorError,
    ) as error:  # fmt: skip
        raise ResultsError(
            f"{path}: this probe is damaged ({first_line(error)}); train it again."
        ) from None
    probe.eval()
    return probe, description
