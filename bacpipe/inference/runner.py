"""One call of a model: windows in, embeddings and predictions out, whatever the framework."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch

from bacpipe.errors import BacpipeError
from bacpipe.store.predictions import SparsePredictions

logger = logging.getLogger(__name__)

_LARGEST_GPU_BATCH = 256
_NO_LIMIT = 2**31


class BatchResult(NamedTuple):
    """What the model made of a batch of n windows.

    Attributes
    ----------
    embeddings : np.ndarray, float32, shape (n, dim)
    predictions : SparsePredictions or None
        Thresholded scores; None when there is no classifier or nobody wants it.
    scores : np.ndarray, float32, shape (n, classes), or None
        All scores, only when asked for.
    """

    embeddings: np.ndarray
    predictions: SparsePredictions | None = None
    scores: np.ndarray | None = None


class ModelRunner:
    """Calls a model on batches of windows.

    Parameters
    ----------
    model : ModelBaseClass
        The model, or anything with its methods.
    scores : bool
        Whether class scores are wanted.
    threshold, top
        Scores below the threshold, and all but the `top` best of a window, are dropped.
    dense : bool
        Return all scores instead.
    precision : {'float32', 'bfloat16'}
        What the network of a PyTorch model computes with; its front end stays float32, and so
        do results.

    Attributes
    ----------
    preprocess_seconds : float
        Wall-clock seconds of all calls that were spent on the model's preprocessing; 0 on a GPU,
        which computes it together with the model.

    Raises
    ------
    BacpipeError
        If not even one window fits into memory, or the model returns the wrong shape.
    """

    def __init__(
        self,
        model: Any,
        *,
        scores: bool,
        threshold: float = 0.0,
        top: int = 1,
        dense: bool = False,
        precision: str = "float32",
    ) -> None:
        self.model = model
        self.device = str(getattr(model, "device", "cpu"))
        self.scores = scores
        self._threshold, self._top, self._dense = threshold, top, dense
        self._type = getattr(torch, precision)
        self._local = threading.local()
        self._most = _NO_LIMIT
        self._dim: int | None = None
        self._lock = threading.Lock()
        self.preprocess_seconds = 0.0

    def __call__(self, windows: np.ndarray) -> BatchResult:
        """Run the model on float32 windows of shape (n, samples), n at least 1."""
        if len(windows) > self._most:
            half = len(windows) // 2
            return _join(self(windows[:half]), self(windows[half:]), half)
        try:
            return self._run(windows)
        except Exception as error:
            if not _is_out_of_memory(error):
                raise
            self._shrink(len(windows), error)
        return self(windows)

    def check(self) -> None:
        """Make sure that the model works at all, after it has failed with some windows.

        Raises
        ------
        BacpipeError
            If it also fails with one window of noise.
        """
        samples = int(self.model.segment_length)
        noise = np.random.default_rng(0).uniform(-0.1, 0.1, (1, samples)).astype(np.float32)
        try:
            self._run(noise)
        except Exception as error:
            name = type(self.model).__name__
            text = " ".join(str(error).split())[:500]
            raise BacpipeError(
                f"{name}: this model fails whatever it is given ({type(error).__name__}: {text}), "
                f"so the run stops; what is finished is kept."
            ) from error

    def classify(self, embeddings: np.ndarray) -> SparsePredictions:
        """Predictions from stored embeddings, float32 of shape (n, dim)."""
        with torch.inference_mode():
            scores = self.model.classifier_predictions(self._to_device(embeddings))
            self._check_scores(scores, embeddings)
            return select(scores, self._threshold, self._top)

    def _run(self, windows: np.ndarray) -> BatchResult:
        with torch.inference_mode(), self._own_stream():
            embeddings, scores = self._infer(self._to_device(windows))
            rows = _to_numpy(embeddings)
            if rows.ndim != 2 or len(rows) != len(windows):
                raise BacpipeError(
                    f"{type(self.model).__name__} returned embeddings of shape {rows.shape} for "
                    f"{len(windows)} windows; expected ({len(windows)}, dim)."
                )
            self._check_dim(rows.shape[1])
            if scores is None:
                return BatchResult(rows)
            self._check_scores(scores, rows)
            if self._dense:
                return BatchResult(rows, scores=_to_numpy(scores))
            return BatchResult(rows, select(scores, self._threshold, self._top))

    def _check_dim(self, dim: int) -> None:
        with self._lock:
            self._dim = self._dim or dim
        if dim != self._dim:
            raise BacpipeError(
                f"{type(self.model).__name__} returned embeddings of {dim} values, but of "
                f"{self._dim} before; expected the same number for every window."
            )

    def _check_scores(self, scores: Any, embeddings: np.ndarray) -> None:
        shape, windows = tuple(scores.shape), len(embeddings)
        classes = len(getattr(self.model, "classes", None) or ()) or shape[-1]
        if shape != (windows, classes):
            raise BacpipeError(
                f"{type(self.model).__name__} returned class scores of shape {shape} for {windows} "
                f"windows; expected ({windows}, {classes})."
            )
        finite = torch.isfinite(torch.as_tensor(scores)).all(dim=1).cpu().numpy()
        # Of embeddings that are no numbers themselves, there is more to say than this.
        if not finite.all() and np.isfinite(embeddings[~finite]).all(axis=1).any():
            raise BacpipeError(
                f"{type(self.model).__name__} returned class scores that are not numbers."
            )

    def _infer(self, audio: torch.Tensor) -> tuple[Any, Any | None]:
        started = time.perf_counter()
        x = self.model.preprocess(audio)
        if self.device == "cpu":
            with self._lock:
                self.preprocess_seconds += time.perf_counter() - started
        with self._autocast():
            if hasattr(self.model, "infer"):
                return self.model.infer(x, scores=self.scores)
            embeddings = self.model(x)
            if not self.scores:
                return embeddings, None
            return embeddings, self.model.classifier_predictions(embeddings)

    def _autocast(self) -> AbstractContextManager[Any]:
        if self._type is torch.float32:
            return nullcontext()
        return torch.autocast(self.device.split(":")[0], dtype=self._type)

    def _own_stream(self) -> AbstractContextManager[Any]:
        """On a GPU, a queue of this thread's own: copies of one batch overlap another's work."""
        if not self.device.startswith("cuda"):
            return nullcontext()
        if not hasattr(self._local, "stream"):
            self._local.stream = torch.cuda.Stream(self.device)
            # The model's weights were copied in the queue that all threads share.
            self._local.stream.wait_stream(torch.cuda.default_stream(self.device))
        return torch.cuda.stream(self._local.stream)

    def _to_device(self, array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
        if self.device.startswith("cuda"):
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)

    def _shrink(self, failed: int, error: BaseException) -> None:
        if failed == 1:
            with self._lock:
                self._most = _NO_LIMIT  # one window that never fits says nothing about batches
            raise BacpipeError(
                f"{type(self.model).__name__}: not even one window fits into the memory of "
                f"{self.device}; free memory, or use device=cpu."
            ) from error
        with self._lock:
            self._most = min(self._most, failed // 2)
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()
        logger.warning(
            "%s ran out of memory with %d windows; going on with %d per batch.",
            type(self.model).__name__,
            failed,
            failed // 2,
        )


def choose_batch_size(runner: ModelRunner, wanted: int | str, workers: int) -> int:
    """Windows per batch.

    Parameters
    ----------
    runner : ModelRunner
        What will be called.
    wanted : int or 'auto'
        The user's choice.
    workers : int
        Batches that are computed at the same time.

    Returns
    -------
    int
        On a GPU, as many as use half of its free memory; elsewhere what the model was fastest
        with.
    """
    if wanted != "auto":
        return int(wanted)
    usual = int(getattr(runner.model, "batch_size", 8))
    if not runner.device.startswith("cuda"):
        return usual
    device = torch.device(runner.device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    runner(np.zeros((usual, runner.model.segment_length), np.float32))
    per_window = max(1, (torch.cuda.max_memory_allocated(device) - before) // usual)
    free, _ = torch.cuda.mem_get_info(device)
    fitting = free // 2 // workers // per_window
    return int(min(_LARGEST_GPU_BATCH, max(usual, 1 << max(0, int(fitting).bit_length() - 1))))


def choose_workers(model: Any) -> int:
    """Batches to compute at the same time.

    On a CPU, a batch per core is faster than all cores on one batch, for models that allow
    it; on a GPU, a second batch hides the copies of the first.
    """
    if not getattr(model, "concurrent", False):
        return 1
    if str(getattr(model, "device", "cpu")) == "cpu":
        return min(8, available_cores())
    return 2


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def limited_threads(workers: int) -> Iterator[int]:
    """Share the cores among `workers` calls at once; PyTorch's setting is put back after."""
    before = torch.get_num_threads()
    threads = max(1, available_cores() // workers)
    torch.set_num_threads(threads)
    try:
        yield threads
    finally:
        torch.set_num_threads(before)


def _to_numpy(values: Any) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        return values.float().cpu().numpy()
    return np.asarray(values, dtype=np.float32)


# PyTorch's allocators on Linux and Windows, CUDA's libraries, ONNX Runtime and TensorFlow.
_OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "failed to allocate memory",
    "status_alloc_failed",
    "oom when allocating",
)


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return any(sign in text for sign in _OUT_OF_MEMORY)


def _join(one: BatchResult, other: BatchResult, offset: int) -> BatchResult:
    predictions = scores = None
    if one.predictions is not None and other.predictions is not None:
        moved = other.predictions._replace(window=other.predictions.window + np.int32(offset))
        predictions = SparsePredictions.join([one.predictions, moved])
    if one.scores is not None and other.scores is not None:
        scores = np.concatenate([one.scores, other.scores])
    return BatchResult(np.concatenate([one.embeddings, other.embeddings]), predictions, scores)


# FOLDED bacpipe/inference/classifier.py: Class scores, thresholded and cut to the best as they arrive.


def select(scores: Any, threshold: float, top: int) -> SparsePredictions:
    """Keep the best scores of every window.

    Parameters
    ----------
    scores : torch.Tensor or np.ndarray, float32, shape (n, classes)
        Scores in [0, 1].
    threshold : float
        Lower scores are dropped.
    top : int
        At most so many are kept per window.

    Returns
    -------
    SparsePredictions
        Sorted by window, then by falling score.
    """
    best, labels = torch.as_tensor(scores).topk(min(top, scores.shape[1]), dim=1)
    kept = best >= threshold
    windows = torch.arange(len(best), device=best.device).unsqueeze(1).expand_as(best)
    return SparsePredictions(
        windows[kept].cpu().numpy().astype(np.int32),
        labels[kept].cpu().numpy().astype(np.int32),
        best[kept].float().cpu().numpy(),
    )


class Classifier:
    """The integrated classifier of an `Embedder`.

    Attributes
    ----------
    classes : list of str
        One name per column of `predictions`.
    predictions : np.ndarray, float32, shape (windows, classes), or None
        Scores of what was embedded last in memory (`Embedder.get_embeddings_from_model`,
        `Embedder.embeddings_using_multithreading`); None before that, and for models without
        a classifier.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = list(classes)
        self.predictions: np.ndarray | None = None

    def __repr__(self) -> str:
        shape = None if self.predictions is None else self.predictions.shape
        return f"Classifier({len(self.classes)} classes, predictions: {shape})"
