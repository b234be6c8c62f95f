"""The base class of all models, those of the zoo and those of users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from bacpipe.models.card import ModelCard


class ModelBaseClass:
    """A model turns windows of samples into embeddings, and perhaps into class scores.

    Subclass it to run a model of your own: set `sr` and `segment_length`, write
    `preprocess` and `__call__`, and, for a classifier, `classifier_predictions` and
    `classes`.  bacpipe calls ``model(model.preprocess(audio))`` with batches of windows,
    inside ``torch.inference_mode``; the result for a window must not depend on the other
    windows of its batch.

    Parameters
    ----------
    sr : int
        Sample rate of the input in Hz.
    segment_length : int
        Length of one window in samples at `sr`.
    device : str, optional
        Where the model computes: 'cpu', 'cuda', 'cuda:1', 'mps'.
    card : ModelCard, optional
        Card of the model; only models of the zoo have one.
    files : mapping of str to Path, optional
        Checkpoint files by the names that the card gives them.
    batch_size : int, optional
        Windows per batch that suit the model when the user leaves the choice to us.

    Attributes
    ----------
    classes : sequence of str
        One name per class score, in order; empty when the model is no classifier.
    one_pass : bool
        Whether `infer` needs one forward pass for embeddings and scores together, so that
        scores cannot be had from stored embeddings.
    concurrent : bool
        Whether several threads may call the model at the same time.

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
    """

    sr: int
    segment_length: int
    classes: Sequence[str] = ()
    one_pass: ClassVar[bool] = False
    concurrent: ClassVar[bool] = False

    def __init__(
        self,
        *,
        sr: int,
        segment_length: int,
        device: str = "cpu",
        card: ModelCard | None = None,
        files: Mapping[str, Path] | None = None,
        batch_size: int = 8,
    ) -> None:
        self.sr = int(sr)
        self.segment_length = int(segment_length)
        self.device = device
        self.card = card
        self.files = dict(files or {})
        self.batch_size = batch_size

    @property
    def is_classifier(self) -> bool:
        """Whether the model gives class scores."""
        return len(self.classes) > 0

    def preprocess(self, audio: Any) -> Any:
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

    def __call__(self, x: Any) -> Any:
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

    def classifier_predictions(self, embeddings: Any) -> Any:
        """Class scores of embeddings.

        Parameters
        ----------
        embeddings : torch.Tensor, float32, shape (n, dim)
            What `__call__` returned.

        Returns
        -------
        torch.Tensor or numpy.ndarray, float32, shape (n, n_classes)
            Scores in [0, 1].
        """
        raise NotImplementedError(f"{type(self).__name__} has no classifier")

    def infer(self, x: Any, *, scores: bool = False) -> tuple[Any, Any | None]:
        """Embeddings and, when asked for, class scores of preprocessed windows.

        Override it where the scores need more than the embeddings, so that both come from
        one forward pass; set `one_pass` then.
        """
        embeddings = self(x)
        return embeddings, self.classifier_predictions(embeddings) if scores else None
