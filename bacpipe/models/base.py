"""What a model is: the protocol that the rest of the package relies on, and its base class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from functools import partial
from numbers import Integral
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np

from bacpipe.errors import SettingsError
from bacpipe.models.zoo import CARDS, canonical_name
from bacpipe.options import user_settings

if TYPE_CHECKING:
    import torch

    from bacpipe.models.card import ModelCard

    Rows: TypeAlias = torch.Tensor | np.ndarray
    """One row per window: embeddings or class scores, float32."""

Inputs: TypeAlias = Any
"""What one method of a model hands to the next: tensors in the zoo, anything in users' models."""


class Model(Protocol):
    """A model that is ready to run: all that the package reads of it.

    `ModelBaseClass` has the same members with their defaults and explains them; `ready_model`
    makes any object of a user's that turns windows into embeddings one of these.
    """

    sr: int
    segment_length: int
    device: str
    accelerator: str
    batch_size: int
    classes: Sequence[str]
    scientific_names: Sequence[str]
    codes: Sequence[str]
    one_pass: bool
    concurrent: bool
    bool_classifier: bool
    classifier_outputs: Rows | None
    card: ModelCard | None
    files: Mapping[str, Path]
    model_base_path: Path

    def preprocess(self, audio: torch.Tensor) -> Inputs:
        """Input of the network for windows (n, segment_length)."""

    def __call__(self, x: Inputs) -> Rows:
        """Embeddings, shape (n, dim), of preprocessed windows."""

    def classifier_predictions(self, embeddings: Inputs) -> Rows:
        """Class scores, shape (n, n_classes), of embeddings."""

    def infer(self, x: Inputs, *, scores: bool = False) -> tuple[Rows, Rows | None]:
        """Embeddings of preprocessed windows and, when asked for, their class scores."""


class Calls(NamedTuple):
    """Calls that were detected in one window, n of them.

    Attributes
    ----------
    start, end : np.ndarray, float64, shape (n,)
        Seconds from the start of the window.
    low, high : np.ndarray, float64, shape (n,)
        Lowest and highest frequency in Hz.
    class_scores : np.ndarray, float32, shape (n, n_classes)
        Probability that a call is one of each class.
    score : np.ndarray, float32, shape (n,)
        Probability that it is a call of any class.
    """

    start: np.ndarray
    end: np.ndarray
    low: np.ndarray
    high: np.ndarray
    class_scores: np.ndarray
    score: np.ndarray


@runtime_checkable
class CallDetector(Protocol):
    """A model that finds single calls in its windows."""

    def calls(self, x: Inputs) -> list[Calls]:
        """Calls in each of the preprocessed windows, in the order of their start."""


def base_path(model_base_path: str | Path | None = None) -> Path:
    """Folder of all checkpoints: the one that is given, or that of the settings."""
    return Path(model_base_path or user_settings().model_base_path)


class ModelBaseClass:
    """A model turns windows of samples into embeddings, and perhaps into class scores.

    Subclass it to run a model of your own: set `sr` and `segment_length`, write
    `preprocess` and `__call__`, and, for a classifier, `classifier_predictions` and
    `classes`.  bacpipe calls ``model(model.preprocess(audio))`` with batches of windows,
    inside ``torch.inference_mode``; the result for a window must not depend on the other
    windows of its batch.

    Parameters
    ----------
    sr : int, optional
        Sample rate of the input in Hz; that of the zoo's model `model_name`, or what the class
        sets, unless given.
    segment_length : int, optional
        Length of one window in samples at `sr`; likewise.
    model_name : str, optional
        Name of the model.
    global_batch_size : int or 'auto', optional
        Windows per batch: `batch_size` as ``settings.global_batch_size`` says it.
    run_pretrained_classifier : bool, optional
        False: class scores are not wanted, although the model may give some.
    device : str, optional
        Where the model computes: 'cpu', 'cuda', 'cuda:1', 'mps'.
    card : ModelCard, optional
        Card of the model; only models of the zoo have one.
    files : mapping of str to Path, optional
        Checkpoint files by the names that the card gives them.
    batch_size : int, optional
        Windows per batch that suit the model when the user leaves the choice to us.
    model_base_path : str or Path, optional
        Folder of all checkpoints; that of the settings by default.

    Attributes
    ----------
    classes : sequence of str
        One name per class score, in order, as people read them; empty when the model is no
        classifier.
    scientific_names : sequence of str
        The scientific name of each class, '' where it has none; empty when none is known.  By it,
        the species of different models are compared.
    codes : sequence of str
        A code of each class, in most cases eBird's, '' where it has none; empty when none is known.
    model_base_path : Path
        Folder of all checkpoints, the place for your own, too.
    accelerator : str
        GPU that the network computes on although audio is handed over elsewhere (`device`);
        empty where both are the same.
    one_pass : bool
        Whether `infer` needs one forward pass for embeddings and scores together, so that
        scores cannot be had from stored embeddings.
    concurrent : bool
        Whether several threads may call the model at the same time.
    bool_classifier : bool
        Whether class scores are wanted and the model gives some.
    classifier_outputs : np.ndarray, float32, shape (windows, classes), or None
        Class scores of what an `Embedder` has embedded last in memory.

    Examples
    --------
    >>> import torch, bacpipe
    >>> class Loudness(bacpipe.ModelBaseClass):
    ...     def __init__(self, **kwargs):
    ...         super().__init__(sr=16000, segment_length=16000, **kwargs)
    ...
    ...     def preprocess(self, audio):
    ...         return audio.reshape(len(audio), 10, -1)
    ...
    ...     def __call__(self, x):
    ...         return x.square().mean(dim=2).sqrt()
    >>> Loudness()(Loudness().preprocess(torch.ones(2, 16000))).shape
    torch.Size([2, 10])
    >>> Loudness().is_classifier, Loudness().bool_classifier
    (False, False)
    """

    sr: int
    segment_length: int
    # For subclasses that do not call the constructor.
    device: str = "cpu"
    accelerator: str = ""
    batch_size: int = 8
    classes: Sequence[str] = ()
    scientific_names: Sequence[str] = ()
    codes: Sequence[str] = ()
    one_pass: bool = False
    concurrent: bool = False
    classifier_outputs: Rows | None = None
    model_name: str | None = None
    card: ModelCard | None = None
    files: Mapping[str, Path] = MappingProxyType({})
    model_base_path: Path
    _wants_scores: bool = True

    def __init__(
        self,
        *,
        sr: int | None = None,
        segment_length: int | None = None,
        model_name: str | None = None,
        global_batch_size: int | str = "auto",
        run_pretrained_classifier: bool = True,
        device: str = "cpu",
        card: ModelCard | None = None,
        files: Mapping[str, Path] | None = None,
        batch_size: int = 8,
        model_base_path: str | Path | None = None,
    ) -> None:
        named = None if model_name is None else CARDS.get(canonical_name(model_name))
        if named is not None:
            sr, segment_length = sr or named.sample_rate, segment_length or named.window
        if sr is not None:
            self.sr = int(sr)
        if segment_length is not None:
            self.segment_length = int(segment_length)
        self.model_name = model_name
        self.device = device
        self.card = card
        self.files = dict(files or {})
        self.batch_size = batch_size if isinstance(global_batch_size, str) else global_batch_size
        self._wants_scores = run_pretrained_classifier
        self.model_base_path = base_path(model_base_path)

    @property
    def is_classifier(self) -> bool:
        """Whether the model gives class scores."""
        return len(self.classes) > 0

    @property
    def bool_classifier(self) -> bool:
        """Whether class scores are wanted and the model gives some."""
        return self._wants_scores and self.is_classifier

    @bool_classifier.setter
    def bool_classifier(self, wanted: bool) -> None:
        self._wants_scores = wanted

    def preprocess(self, audio: torch.Tensor) -> Inputs:
        """Turn windows into the input of the network.

        Parameters
        ----------
        audio : torch.Tensor, float32, shape (n, segment_length)
            Windows in [-1, 1] on the model's device.

        Returns
        -------
        Anything that `__call__` takes; the first axis is the window.
        """
        raise NotImplementedError(f"{type(self).__name__} must define preprocess(audio)")

    def __call__(self, x: Inputs) -> Rows:
        """Embed preprocessed windows.

        Parameters
        ----------
        x
            What `preprocess` returned, n windows.

        Returns
        -------
        torch.Tensor or numpy.ndarray, float32, shape (n, dim)
        """
        raise NotImplementedError(f"{type(self).__name__} must define __call__(x)")

    def classifier_predictions(self, embeddings: Inputs) -> Rows:
        """Class scores of embeddings.

        Parameters
        ----------
        embeddings : torch.Tensor, float32, shape (n, dim)
            What `__call__` returned.

        Returns
        -------
        torch.Tensor or numpy.ndarray, float32, shape (n, n_classes)
            Scores in [0, 1].

        Examples
        --------
        >>> import torch, bacpipe
        >>> model = bacpipe.Embedder("birdnet").model
        >>> model.classifier_predictions(model(model.preprocess(torch.zeros(2, 144_000)))).shape
        torch.Size([2, 6522])
        """
        raise NotImplementedError(f"{type(self).__name__} has no classifier")

    def infer(self, x: Inputs, *, scores: bool = False) -> tuple[Rows, Rows | None]:
        """Embeddings and, when asked for, class scores of preprocessed windows.

        Override it where the scores need more than the embeddings, so that both come from
        one forward pass; set `one_pass` then.

        Parameters
        ----------
        x
            What `preprocess` returned, n windows.
        scores : bool
            Whether class scores are wanted.

        Returns
        -------
        embeddings : torch.Tensor or numpy.ndarray, float32, shape (n, dim)
        scores : torch.Tensor or numpy.ndarray, float32, shape (n, n_classes), or None
            In [0, 1]; None unless asked for.

        Examples
        --------
        >>> import torch, bacpipe
        >>> model = bacpipe.Embedder("birdnet").model
        >>> embeddings, scores = model.infer(model.preprocess(torch.zeros(2, 144_000)), scores=True)
        >>> embeddings.shape, scores.shape
        (torch.Size([2, 1024]), torch.Size([2, 6522]))
        """
        embeddings = self(x)
        if not scores:
            return embeddings, None
        # The classifier may change in place what it gets.
        duplicate = getattr(embeddings, "clone", None) or getattr(embeddings, "copy", None)
        kept = duplicate() if duplicate else embeddings
        return kept, self.classifier_predictions(embeddings)


def is_extended(model: Model) -> bool:
    """Whether a model has the card of one of the zoo, but is of a class that a user has derived."""
    kind = type(model)
    return model.card is not None and model.card.wrapper != f"{kind.__module__}:{kind.__qualname__}"


_NEEDED = ("sr", "segment_length", "preprocess", "__call__")
_DEFAULTS: dict[str, object] = {
    name: getattr(ModelBaseClass, name)
    for name in (
        "device",
        "accelerator",
        "batch_size",
        "classes",
        "scientific_names",
        "codes",
        "one_pass",
        "concurrent",
        "classifier_outputs",
        "card",
    )
}
_UNITS = {"sr": "Hz", "segment_length": "samples", "batch_size": "windows"}
_METHODS = (ModelBaseClass.classifier_predictions, ModelBaseClass.infer)


def ready_model(model: Any, model_base_path: str | Path | None = None) -> Model:
    """Give a model the members of `Model` that it lacks, with the defaults of `ModelBaseClass`.

    Parameters
    ----------
    model : object
        With `sr`, `segment_length`, `preprocess` and `__call__`; it need not inherit anything.
    model_base_path : str or Path, optional
        Folder of all checkpoints; that of the settings by default.

    Returns
    -------
    Model
        The same object.

    Raises
    ------
    SettingsError
        If one of the four is missing, if `sr`, `segment_length` or `batch_size` is no whole number
        from 1, or if the object takes no further attributes.
    """
    name = type(model).__name__
    missing = [member for member in _NEEDED if not hasattr(model, member)]
    if missing:
        raise SettingsError(
            f"{name}: this model lacks {' and '.join(missing)}; give it what "
            f"bacpipe.ModelBaseClass explains."
        )
    numbers = {key: _whole(name, key, getattr(model, key)) for key in ("sr", "segment_length")}
    if hasattr(model, "batch_size"):
        numbers["batch_size"] = _whole(name, "batch_size", model.batch_size)
    # partial, unlike a bound method, can be pickled as a part of the object it is bound to.
    methods = {method.__name__: partial(method, model) for method in _METHODS}
    given = getattr(model, "classes", ())
    classes = _class_names(name, given)
    defaults = {
        **_DEFAULTS,
        "bool_classifier": len(classes) > 0,
        "files": {},
        "model_base_path": base_path(model_base_path),
        **methods,
    }
    changed = {key for key, value in numbers.items() if getattr(model, key) is not value}
    if not (isinstance(given, list | tuple) and (*given,) == classes):
        changed.add("classes")
    for member, value in {**defaults, **numbers, "classes": classes}.items():
        if member in changed or not hasattr(model, member):
            try:
                object.__setattr__(model, member, value)
            except AttributeError as error:
                raise SettingsError(
                    f"{name}: this model lacks {member} and takes no new attributes; let it "
                    f"inherit from bacpipe.ModelBaseClass."
                ) from error
    ready: Model = model
    return ready


def _whole(model: str, attribute: str, value: Any) -> int:
    """Whole number, also if it comes as a float of NumPy's or of a product.

    Raises
    ------
    SettingsError
        If it is none, or below 1.
    """
    if isinstance(value, int | float | np.number) and not isinstance(value, bool):
        number = float(value)
        if number >= 1 and number.is_integer():
            return value if type(value) is int else int(number)
    raise SettingsError(
        f"{model}: {attribute} is {value!r}; expected a whole number of "
        f"{_UNITS[attribute]}, at least 1."
    )


def _class_names(model: str, given: Any) -> tuple[str, ...]:
    """Names of a model's classes, whatever sequence they come as.

    Raises
    ------
    SettingsError
        If they are no sequence of different names.
    """
    expected = "expected the name of each class, a list such as ['robin', 'wren']"
    if given is None:
        return ()
    if isinstance(given, str | bytes | Mapping | Set) or not hasattr(given, "__len__"):
        raise SettingsError(f"{model}: classes is a {type(given).__name__}; {expected}.")
    names = tuple(str(name) if isinstance(name, str | Integral) else "" for name in given)
    for number, (name, value) in enumerate(zip(names, given, strict=True)):
        if not name.strip():
            raise SettingsError(f"{model}: classes has {value!r} at place {number}; {expected}.")
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise SettingsError(
            f"{model}: classes has {twice!r} {names.count(twice)} times, so their scores could not "
            f"be told apart; give every class a name of its own."
        )
    return names
