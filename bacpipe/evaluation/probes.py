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
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import nn

from bacpipe.errors import (
    CheckpointError,
    EvaluationError,
    ResultsError,
    ResultsNotFoundError,
    counted,
    first_line,
)
from bacpipe.evaluation.standardiser import Standardiser
from bacpipe.inference.runner import limited_threads
from bacpipe.machine import available_cores
from bacpipe.models.backends.pytorch import computing_on, read_checkpoint
from bacpipe.store.files import replacing, write_json
from bacpipe.store.layout import LABEL_NUMBERS, probe_weights_name

logger = logging.getLogger(__name__)

OLD_SUFFIXES = (".pt", ".pth")  # of probes that bacpipe 1.3 saved
_CHUNK = 4096
_FORMAT = 1
_PROGRESS = 1e-3  # nats; a smaller fall of the validation loss does not keep training going
# Penalties per window: scikit-learn's C is 1 / (penalty · windows).
_PENALTIES = (1.0, 0.1, 0.01, 1e-3, 1e-4, 1e-5, 1e-6)
# Of the logits, so that a strong penalty is judged by what it finds, not by how cautiously.
_FACTORS = tuple(float(f) for f in np.logspace(0, 0.4, 6))
_MOST_PENALTIES = len(_PENALTIES) + 2
_UNTUNED = 1e-3
_MOST_ITERATIONS = 500
_MOST_EVALUATIONS = 4 * _MOST_ITERATIONS  # a step along a line takes one or more
_TO_SHARE = 1_000_000  # numbers; threads that share less than these only wait for each other
_GRADIENT = 1e-5  # largest derivative of the loss at which it counts as minimised

_State: TypeAlias = dict[str, torch.Tensor]


class _Examples(NamedTuple):
    x: torch.Tensor  # standardised embeddings
    y: torch.Tensor  # labels, or for several labels per window 0 and 1 by class


@dataclass(frozen=True)
class TrainingData:
    """What a probe learns from."""

    embeds: np.ndarray  # float32, shape (n, dim)
    labels: np.ndarray  # int64, shape (n,), or bool, shape (n, classes), for several per window
    train: np.ndarray  # int64: rows to train and to validate with
    val: np.ndarray  # int64
    n_classes: int


class Probe(nn.Module):
    """Base class of probes.

    Parameters
    ----------
    dim, n_classes : int
        Length of an embedding, and number of classes.
    multi_label : bool
        Whether a window can have several labels, or none.
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

    def __init__(
        self, dim: int, n_classes: int, *, multi_label: bool = False, **parameters: object
    ) -> None:
        super().__init__()
        self.dim, self.n_classes, self.multi_label = dim, n_classes, multi_label
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

        They are in [0, 1]; unless windows can have several labels, they sum to 1 for each.
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
        with torch.inference_mode(), computing_on(device):
            for first in range(0, len(embeds), _CHUNK):
                part = np.ascontiguousarray(embeds[first : first + _CHUNK], np.float32)
                x = torch.from_numpy(part).to(device)
                result[first : first + _CHUNK] = self.scores(x).cpu().numpy()
                if progress is not None:
                    progress(min(first + _CHUNK, len(embeds)))
        return result

    def _fit_standardiser(self, embeds: np.ndarray, rows: np.ndarray) -> None:
        fitted = Standardiser.of(embeds, rows)
        self.mean = torch.from_numpy(fitted.mean.astype(np.float32))
        self.deviation = torch.from_numpy(fitted.deviation.astype(np.float32))


class LinearProbe(Probe):
    """One linear layer: logistic regression.

    With one label per window it is multinomial, with several it is one regression per class
    (one-vs-rest).  The solver 'lbfgs' minimises the penalised loss of all training windows with
    L-BFGS; a penalty of 'auto' is the one with the least loss on the validation windows, after
    which training and validation windows are fitted together.  The solver 'adam' goes through the
    training windows in batches and keeps the weights of the epoch with the least loss on the
    validation windows; it is for sets of windows too large for passes over all of them.  Calling
    the module gives logits.
    """

    kind = "linear"
    defaults: ClassVar[Mapping[str, Any]] = {
        "solver": "lbfgs",
        "class_weight": "balanced",
        "penalty": "auto",
        "learning_rate": 0.001,
        "batch_size": 256,
        "max_epochs": 100,
        "patience": 5,
        "weight_decay": 0.0001,
    }

    def __init__(
        self, dim: int, n_classes: int, *, multi_label: bool = False, **parameters: object
    ) -> None:
        super().__init__(dim, n_classes, multi_label=multi_label, **parameters)
        self.layer = nn.Linear(dim, n_classes)
        # The problem is convex, so there is no need for a random start.
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(self.standardise(x))

    def scores(self, x: torch.Tensor) -> torch.Tensor:
        logits = self(x)
        return torch.sigmoid(logits) if self.multi_label else torch.softmax(logits, dim=1)

    def learn(
        self,
        data: TrainingData,
        *,
        seed: int,
        device: str = "cpu",
        progress: Callable[[int, int], object] | None = None,
    ) -> dict[str, Any]:
        chosen = self.parameters_used
        only_adam = ("learning_rate", "batch_size", "max_epochs", "patience", "weight_decay")
        if chosen["solver"] == "adam":
            # Batches are too small to share: on a busy machine, threads that wait for each other
            # take ten times as long as one.
            with limited_threads(available_cores()):
                return self._learn_in_batches(data, seed, device, progress)
        unread = [key for key in only_adam if chosen[key] != self.defaults[key]]
        if unread:
            logger.warning("probe_configs: only solver: adam reads %s.", " and ".join(unread))
        small = (len(data.train) + len(data.val)) * self.dim < _TO_SHARE
        with limited_threads(available_cores()) if small else nullcontext():
            return self._learn_from_all(data, device, progress)

    def _examples(self, data: TrainingData, rows: np.ndarray, device: str) -> _Examples:
        # One matrix each, sliced by index: a loader fetches windows one by one.
        x = torch.from_numpy(np.ascontiguousarray(data.embeds[rows])).to(device)
        y = torch.from_numpy(data.labels[rows]).to(device)
        with torch.no_grad():
            return _Examples(self.standardise(x), y.float() if self.multi_label else y)

    def _loss(self, y: torch.Tensor) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        """Cross-entropy per window; balanced classes weigh the inverse of their frequency."""
        balanced = self.parameters_used["class_weight"] == "balanced"
        if self.multi_label:
            present = y.sum(dim=0).clamp(min=1)
            weight = (len(y) - y.sum(dim=0)).clamp(min=1) / present if balanced else None
            return nn.BCEWithLogitsLoss(pos_weight=weight)
        counts = torch.bincount(y, minlength=self.n_classes).clamp(min=1).float()
        return nn.CrossEntropyLoss(weight=len(y) / (self.n_classes * counts) if balanced else None)

    # ------------------------------------------------------------------ all windows at once

    def _learn_from_all(
        self, data: TrainingData, device: str, progress: Callable[[int, int], object] | None
    ) -> dict[str, Any]:
        self._fit_standardiser(data.embeds, data.train)
        self.to(device)
        wanted = self.parameters_used["penalty"]
        iterations, losses, states = 0, dict[float, float](), dict[float, _State]()
        factors = dict[float, float]()
        if wanted == "auto" and len(data.val):
            train, val = (self._examples(data, rows, device) for rows in (data.train, data.val))
            loss_of = self._loss(train.y)

            def try_penalty(penalty: float) -> float:
                nonlocal iterations
                iterations += self._minimise(train, penalty)[0]
                with torch.no_grad():
                    logits = self.layer(val.x)
                    of_factors = [loss_of(factor * logits, val.y).item() for factor in _FACTORS]
                losses[penalty] = min(of_factors)
                factors[penalty] = _FACTORS[of_factors.index(losses[penalty])]
                states[penalty] = self._state()
                if progress is not None:
                    progress(len(losses), _MOST_PENALTIES)
                return losses[penalty]

            # From strong to weak, each from the weights of the one before, until it gets worse.
            best = float("inf")
            for penalty in _PENALTIES:
                if try_penalty(penalty) > best:
                    break
                best = losses[penalty]
            for factor in (10**0.5, 10**-0.5):
                self.layer.load_state_dict(states[min(losses, key=losses.__getitem__)])
                try_penalty(min(losses, key=losses.__getitem__) * factor)
        penalty = (
            min(losses, key=losses.__getitem__)
            if losses
            else _UNTUNED
            if wanted == "auto"
            else wanted
        )
        if losses:
            self.layer.load_state_dict(states[penalty])
        rows = np.concatenate([data.train, data.val])
        before = self.mean.clone(), self.deviation.clone()
        self._fit_standardiser(data.embeds, rows)
        self.to(device)
        self._follow_standardiser(*before)
        done, converged = self._minimise(self._examples(data, rows, device), penalty)
        # What a strong penalty made too cautious.
        factor = factors.get(penalty, 1.0)
        with torch.no_grad():
            self.layer.weight.mul_(factor)
            self.layer.bias.mul_(factor)
        if not converged:
            logger.warning(
                "%s probe: not converged after %d iterations, so a stronger penalty may do better.",
                self.kind, done,
            )  # fmt: skip
        return {
            "solver": "lbfgs",
            "penalty": penalty,
            "factor": factor,
            "validation_loss": losses.get(penalty),
            "iterations": iterations + done,
            "converged": converged,
            "refitted_with_validation_windows": len(data.val) > 0,
        }

    def _minimise(self, examples: _Examples, penalty: float) -> tuple[int, bool]:
        """Minimise mean loss + penalty / 2 · |weights|²; returns iterations and whether it did."""
        loss_of = self._loss(examples.y)
        optimiser = torch.optim.LBFGS(
            self.layer.parameters(),
            max_iter=_MOST_ITERATIONS,
            max_eval=_MOST_EVALUATIONS,
            tolerance_grad=_GRADIENT,
            tolerance_change=1e-9,
            line_search_fn="strong_wolfe",
        )

        def closure() -> torch.Tensor:
            optimiser.zero_grad()
            loss: torch.Tensor = loss_of(self.layer(examples.x), examples.y)
            loss = loss + penalty / 2 * self.layer.weight.square().sum()
            loss.backward()
            return loss

        optimiser.step(closure)
        (state,) = optimiser.state.values()
        done = int(state["n_iter"])
        return done, done < _MOST_ITERATIONS and int(state["func_evals"]) < _MOST_EVALUATIONS

    def _follow_standardiser(self, mean: torch.Tensor, deviation: torch.Tensor) -> None:
        """Change the weights so that logits stay what they were with another standardiser."""
        with torch.no_grad():
            weight = self.layer.weight / deviation.to(self.layer.weight)
            self.layer.bias.add_(weight @ (self.mean - mean.to(self.mean)))
            self.layer.weight.copy_(weight * self.deviation)

    # ------------------------------------------------------------------ batch by batch

    def _learn_in_batches(
        self,
        data: TrainingData,
        seed: int,
        device: str,
        progress: Callable[[int, int], object] | None,
    ) -> dict[str, Any]:
        chosen = self.parameters_used
        self._fit_standardiser(data.embeds, data.train)
        self.to(device)
        (x, y), val = (self._examples(data, rows, device) for rows in (data.train, data.val))
        # Without validation windows it is the loss of the others that says when to stop.
        watched = val if len(val.y) else _Examples(x, y)
        loss_of = self._loss(y)
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
                loss = loss_of(self.layer(watched.x), watched.y).item()
            if progress is not None:
                progress(epoch, chosen["max_epochs"])
            if loss < best:
                best, best_epoch, best_state = loss, epoch, self._state()
            if loss < milestone - _PROGRESS:
                milestone, reached = loss, epoch
            elif epoch - reached >= chosen["patience"]:
                break
        self.layer.load_state_dict(best_state)
        converged = best_epoch < chosen["max_epochs"]
        if not converged:
            logger.warning(
                "%s probe: not converged, the last of max_epochs=%d was the best.",
                self.kind, chosen["max_epochs"],
            )  # fmt: skip
        return {
            "solver": "adam",
            "epochs": epoch,
            "best_epoch": best_epoch,
            "validation_loss": best if len(val.y) else None,
            "converged": converged,
        }

    def _state(self) -> _State:
        return {name: value.detach().clone() for name, value in self.layer.state_dict().items()}


class KnnProbe(Probe):
    """Vote of the nearest training windows.

    The score of a class is the share of the neighbours that have it.
    """

    kind = "knn"
    defaults: ClassVar[Mapping[str, Any]] = {"n_neighbors": 15, "metric": "cosine"}

    windows: torch.Tensor
    labels: torch.Tensor

    def __init__(
        self, dim: int, n_classes: int, *, multi_label: bool = False, **parameters: object
    ) -> None:
        super().__init__(dim, n_classes, multi_label=multi_label, **parameters)
        self.register_buffer("windows", torch.zeros(0, dim))
        shape, dtype = ((0, n_classes), torch.bool) if multi_label else ((0,), torch.int64)
        self.register_buffer("labels", torch.zeros(shape, dtype=dtype))

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
        counts = (
            self.labels.sum(dim=0)
            if self.multi_label
            else self.labels.bincount(minlength=data.n_classes)
        )
        return {
            "neighbours_used": self._neighbours,
            "training_windows": len(self.labels),
            "training_windows_of_rarest_class": int(counts.min()),
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
        if self.multi_label:
            return neighbours.float().mean(dim=1)
        votes = torch.zeros(len(x), self.n_classes, device=x.device)
        votes.scatter_add_(1, neighbours, torch.ones_like(neighbours, dtype=votes.dtype))
        return votes / self._neighbours

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *rest: object, **more: object
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
    name: str,
    dim: int,
    classes: Sequence[str],
    parameters: Mapping[str, Any] | None = None,
    *,
    multi_label: bool = False,
) -> Probe:
    """Make an untrained probe."""
    probe = find_probe(name)(dim, len(classes), multi_label=multi_label, **dict(parameters or {}))
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
        "multi_label": probe.multi_label,
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
        several = bool(description.get("multi_label", False))
        probe = make_probe(*(description[key] for key in keys), multi_label=several)
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


def find_old_probe(folder: Path, name: str) -> Path | None:
    """File of a probe that bacpipe 1.3 saved in a folder; None if there is none."""
    files = sorted(path for path in folder.glob("*.pt*") if path.suffix in OLD_SUFFIXES)
    named = [path for path in files if name in path.stem.lower()]
    return next(iter(named), files[0] if len(files) == 1 else None)


def load_old_probe(path: Path) -> Probe:
    """Load a probe that bacpipe 1.3 saved with ``torch.save``, without executing anything in it.

    Only one linear layer is understood: its weights, and ``label2index.json`` beside the file,
    which names the classes.  Its input is not standardised, and the scores of a window sum to 1.

    Raises
    ------
    ResultsNotFoundError
        If the file or ``label2index.json`` is missing.
    ResultsError
        If the file holds something else.
    """
    again = (
        "train it anew with bacpipe.probing_pipeline or evaluation_task=['probing'], from the same "
        "embeddings"
    )
    if not path.is_file():
        raise ResultsNotFoundError(f"{path}: there is no such file; {again}.")
    try:
        tensors = _tensors_in(read_checkpoint(path))
    except CheckpointError as error:
        why = first_line(error.__cause__ or error)
        raise ResultsError(
            f"{path}: cannot be read as a probe of bacpipe 1.3 ({why}); {again}."
        ) from error
    weights = [tensor for tensor in tensors.values() if tensor.ndim == 2]
    biases = [tensor for tensor in tensors.values() if tensor.ndim == 1]
    if len(weights) != 1 or len(biases) > 1 or len(tensors) != len(weights) + len(biases):
        held = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
        raise ResultsError(
            f"{path}: is a probe of bacpipe 1.3, but holds not one linear layer "
            f"({held or 'no weights'}); {again}."
        )
    n_classes, dim = weights[0].shape
    bias = biases[0] if biases else torch.zeros(n_classes)
    names = path.with_name(LABEL_NUMBERS)
    try:
        numbers = {str(name): int(n) for name, n in json.loads(names.read_bytes()).items()}
    except FileNotFoundError:
        raise ResultsNotFoundError(
            f"{path}: is a probe of bacpipe 1.3 whose classes nobody knows, because there is no "
            f"{LABEL_NUMBERS} beside it; {again}."
        ) from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ResultsError(f"{names}: cannot be read ({first_line(error)}); {again}.") from None
    if sorted(numbers.values()) != list(range(n_classes)) or bias.shape != (n_classes,):
        raise ResultsError(
            f"{names}: names {counted(len(numbers), 'class', 'classes')}, but {path.name} has "
            f"{n_classes}; {again}."
        )
    probe = LinearProbe(dim, n_classes)
    probe.classes = tuple(sorted(numbers, key=lambda name: numbers[name]))
    probe.layer.load_state_dict({"weight": weights[0].float(), "bias": bias.float()})
    logger.info(
        "%s: read as a probe of bacpipe 1.3, one linear layer without standardisation.", path
    )
    return probe.eval()


def _tensors_in(content: object) -> dict[str, torch.Tensor]:
    """Tensors of a state, which may lie in another dictionary."""
    if not isinstance(content, Mapping):
        return {}
    tensors = {str(key): value for key, value in content.items() if isinstance(value, torch.Tensor)}
    inner = [value for value in content.values() if isinstance(value, Mapping)]
    return tensors or (_tensors_in(inner[0]) if len(inner) == 1 else {})
