"""One call of a model: windows in, embeddings and class scores out, whatever the framework.

Everything that bacpipe embeds goes through a `ModelRunner`, which chooses precision and
device, halves batches that do not fit into memory and checks what the model returns.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import copy
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from bacpipe.audio.stream import Samples
from bacpipe.errors import BacpipeError, said, unexpected
from bacpipe.machine import available_cores
from bacpipe.models.backends.pytorch import computing_on
from bacpipe.models.base import Inputs, Model, is_extended
from bacpipe.store.predictions import SparsePredictions

if TYPE_CHECKING:
    from bacpipe.models.base import Rows

logger = logging.getLogger(__name__)

_LARGEST_GPU_BATCH = 256
_NO_LIMIT = 2**31
_ROUNDED = 1e-3

Part = TypeVar("Part")
Result = TypeVar("Result")


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

    embeddings: NDArray[np.float32]
    predictions: SparsePredictions | None = None
    scores: NDArray[np.float32] | None = None


class ModelRunner:
    """Calls a model on batches of windows.

    It can be copied and pickled with its model; locks and streams are made anew.

    Parameters
    ----------
    model : Model
        See `bacpipe.models.base.ready_model`.
    scores : bool
        Whether class scores are wanted.
    threshold, top
        Scores below the threshold, and all but the `top` best of a window, are dropped.
    sensitivity : float
        Shift of the scores; see `shifted`.
    dense : bool
        Return all scores instead.
    precision : {'float32', 'tf32', 'bfloat16'}
        What the network of a PyTorch model computes with.  With bfloat16, its front end, its
        classifier and results stay float32.

    Attributes
    ----------
    device : str
        Where audio is handed over.
    computes_on : str
        Where the network computes; only ONNX Runtime and TensorFlow do so elsewhere.
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
        model: Model,
        *,
        scores: bool,
        threshold: float = 0.0,
        top: int = 1,
        sensitivity: float = 1.0,
        dense: bool = False,
        precision: str = "float32",
    ) -> None:
        self.model = model
        self.device = str(model.device)
        self.computes_on = model.accelerator or self.device
        self.scores = scores
        self._threshold, self._top, self._dense = threshold, top, dense
        self._sensitivity = sensitivity
        self._precision = precision
        # Classes of users may change in place what they get, which may be needed again.
        self._copies = model.card is None or is_extended(model)
        self._most = _NO_LIMIT
        self._dim: int | None = None
        self.preprocess_seconds = 0.0
        self._prepare_for_threads()

    def _prepare_for_threads(self) -> None:
        self._local, self._lock = threading.local(), threading.Lock()
        self._first_call = threading.Lock()
        self._called, self._streams_given = False, 0

    def __getstate__(self) -> dict[str, Any]:
        locks = ("_local", "_lock", "_first_call")
        return {key: value for key, value in vars(self).items() if key not in locks}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._prepare_for_threads()

    def __call__(self, windows: Samples) -> BatchResult:
        """Run the model on float32 windows of shape (n, samples), n at least 1."""
        return self._in_parts(self._run, windows, _join)

    def allocate(self, windows: int, samples: int) -> Samples:
        """Memory for a batch; for a GPU such as it copies from without waiting."""
        if self.device.startswith("cuda"):
            try:
                return torch.empty((windows, samples), pin_memory=True).numpy()
            except RuntimeError as error:  # little memory may be pinned in some containers
                logger.debug("batches are copied once more: %s", error)
        return np.empty((windows, samples), np.float32)

    def preprocess(self, windows: Samples) -> Inputs:
        """What the model's `preprocess` makes of windows, on its device."""
        return self._in_parts(self._preprocess_alone, windows, _join_inputs)

    def run_preprocessed(self, inputs: Inputs) -> BatchResult:
        """Run the model on windows that `preprocess` has seen; the first axis is the window."""
        return self._in_parts(self._run_preprocessed, inputs, _join)

    def classify(self, embeddings: NDArray[np.float32]) -> BatchResult:
        """Add predictions or scores to stored embeddings, float32 of shape (n, dim)."""
        return self._in_parts(self._classify, embeddings, _join)

    def expect(self, dim: int) -> None:
        """Say how long embeddings are that are there already, beside which others will lie."""
        self._dim = dim

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
            reason = unexpected(self._name, error, "this model fails whatever it is given")
            raise BacpipeError(f"{reason}, so the run stops; what is finished is kept.") from error

    # ------------------------------------------------------------------ memory

    def _in_parts(
        self,
        function: Callable[[Part], Result],
        batch: Part,
        join: Callable[[Result, Result, int], Result],
    ) -> Result:
        """Call a function on a batch, or on as large parts of it as fit into memory."""
        rows: Any = batch  # what users' models make of windows need only have rows
        if len(rows) > self._most:
            half = len(rows) // 2
            one = self._in_parts(function, rows[:half], join)
            return join(one, self._in_parts(function, rows[half:], join), half)
        try:
            return function(batch)
        except Exception as error:
            if not _is_out_of_memory(error):
                raise
            self._shrink(len(rows), error)
        return self._in_parts(function, batch, join)

    def _shrink(self, failed: int, error: BaseException) -> None:
        if failed == 1:
            with self._lock:
                self._most = _NO_LIMIT  # one window that never fits says nothing about batches
            raise BacpipeError(
                f"{self._name}: not even one window fits into the memory of {self.device}; free "
                f"memory, or use device=cpu."
            ) from error
        with self._lock:
            self._most = min(self._most, failed // 2)
        self.give_back_memory()
        logger.warning(
            "%s ran out of memory with %d windows; going on with %d per batch.",
            self._name,
            failed,
            failed // 2,
        )

    def give_back_memory(self) -> None:
        """Leave memory of the GPU that holds nothing any more to other programs."""
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()
        elif self.device.startswith("mps"):
            torch.mps.empty_cache()

    # ------------------------------------------------------------------ one batch that fits

    @contextmanager
    def _computing(self, *, inputs_are_there: bool = False) -> Iterator[None]:
        with (
            torch.inference_mode(),
            computing_on(self.device, self._precision),
            self._own_stream(inputs_are_there=inputs_are_there),
        ):
            yield

    def _run(self, windows: Samples) -> BatchResult:
        with self._computing():
            return self._infer(self._preprocess(self._handed_over(windows)), len(windows))

    def _preprocess_alone(self, windows: Samples) -> Inputs:
        with torch.inference_mode(), computing_on(self.device, self._precision):
            return self._preprocess(self._handed_over(windows))

    def _run_preprocessed(self, inputs: Inputs) -> BatchResult:
        with self._computing(inputs_are_there=True):
            if isinstance(inputs, torch.Tensor):
                given = inputs.to(self.device, copy=self._copies)
            else:
                given = copy(inputs) if self._copies else inputs
            return self._infer(given, len(inputs))

    def _classify(self, embeddings: NDArray[np.float32]) -> BatchResult:
        with torch.inference_mode(), computing_on(self.device, self._precision):
            scores = self.model.classifier_predictions(self._handed_over(embeddings))
            return self._result(embeddings, scores)

    def _handed_over(self, array: NDArray[np.float32]) -> torch.Tensor:
        """Windows or embeddings as a model gets them."""
        # On a GPU they are a copy anyway.
        return self._to_device(array.copy() if self._copies and self.device == "cpu" else array)

    def _preprocess(self, audio: torch.Tensor) -> Inputs:
        started = time.perf_counter()
        inputs = self.model.preprocess(audio)
        if self.device == "cpu":
            with self._lock:
                self.preprocess_seconds += time.perf_counter() - started
        return inputs

    def _infer(self, inputs: Inputs, windows: int) -> BatchResult:
        with self._autocast():
            if self._precision != "bfloat16" or self.model.one_pass:
                embeddings, scores = self.model.infer(inputs, scores=self.scores)
            else:
                embeddings, scores = self.model(inputs), None
        if self._precision == "bfloat16" and self.scores and not self.model.one_pass:
            # In full precision: scores from bfloat16 would come in steps of up to 0.004.
            exact = torch.as_tensor(embeddings).float()
            scores = self.model.classifier_predictions(exact)
        rows = _to_numpy(embeddings)
        if rows.ndim != 2 or len(rows) != windows:
            raise BacpipeError(
                f"{self._name} returned embeddings of shape {rows.shape} for {windows} windows; "
                f"expected ({windows}, dim)."
            )
        self._check_dim(rows.shape[1])
        return self._result(rows, scores)

    def _result(self, embeddings: NDArray[np.float32], scores: Rows | None) -> BatchResult:
        if scores is None:
            return BatchResult(embeddings)
        if not isinstance(scores, torch.Tensor):
            scores = np.asarray(scores)
        self._check_scores(scores, embeddings)
        scores = shifted(scores, self._sensitivity)
        if self._dense:
            return BatchResult(embeddings, scores=_to_numpy(scores))
        return BatchResult(embeddings, select(scores, self._threshold, self._top))

    def _check_dim(self, dim: int) -> None:
        with self._lock:
            self._dim = self._dim or dim
        if dim != self._dim:
            raise BacpipeError(
                f"{self._name} returned embeddings of {dim} values, but of {self._dim} before; "
                f"expected the same number for every window of a data set, or another name for "
                f"another model."
            )

    def _check_scores(self, scores: Rows, embeddings: NDArray[np.float32]) -> None:
        shape, windows = tuple(scores.shape), len(embeddings)
        classes = len(self.model.classes) or shape[-1]
        if shape != (windows, classes):
            raise BacpipeError(
                f"{self._name} returned class scores of shape {shape} for {windows} windows; "
                f"expected ({windows}, {classes})."
            )
        finite = torch.isfinite(torch.as_tensor(scores)).all(dim=1).cpu().numpy()
        # Of embeddings that are no numbers themselves, there is more to say than this.
        if not finite.all() and np.isfinite(embeddings[~finite]).all(axis=1).any():
            raise BacpipeError(f"{self._name} returned class scores that are not numbers.")
        # Softmax in single precision may exceed 1 by its last digits.
        wrong = (scores < -_ROUNDED) | (scores > 1 + _ROUNDED)
        if wrong.any():
            row, column = divmod(int(torch.as_tensor(wrong).flatten().int().argmax()), classes)
            names = self.model.classes
            raise BacpipeError(
                f"{self._name} returned a score of {float(scores[row, column]):.4g} for "
                f"{names[column] if names else 'a class'}; expected numbers from 0 to 1, such as "
                f"torch.sigmoid makes of logits."
            )

    @property
    def _name(self) -> str:
        return type(self.model).__name__

    def _autocast(self) -> AbstractContextManager[object]:
        if self._precision != "bfloat16":
            return nullcontext()
        return torch.autocast(self.device.split(":")[0], dtype=torch.bfloat16)

    def _own_stream(self, *, inputs_are_there: bool) -> AbstractContextManager[object]:
        """On a GPU, a queue of this thread's own: copies of one batch overlap another's work."""
        if not self.device.startswith("cuda"):
            return nullcontext()
        self._call_once()
        if not hasattr(self._local, "stream"):
            with self._lock:
                self._local.stream = _streams(self.device)[self._streams_given % 2]
                self._streams_given += 1
            # The model's weights were copied in the queue that all threads share.
            self._local.stream.wait_stream(torch.cuda.default_stream(self.device))
        if inputs_are_there:  # or will be, once the queue in which they are computed is done
            self._local.stream.wait_stream(torch.cuda.current_stream(self.device))
        return torch.cuda.stream(self._local.stream)

    def _call_once(self) -> None:
        """Let the model make what it makes when it is first called, before streams share it.

        A second stream would read it before the first has computed it.  Silence has a form of
        its own in some front ends.
        """
        with self._first_call:
            if self._called:
                return
            windows = np.zeros((2, int(self.model.segment_length)), np.float32)
            windows[0] = np.random.default_rng(0).uniform(-0.1, 0.1, windows.shape[1])
            try:
                self._infer(self._preprocess(self._to_device(windows)), len(windows))
            except Exception as error:
                # What is wrong shows with the user's windows, where somebody deals with it.
                logger.debug("%s: the first call failed", self._name, exc_info=error)
            torch.cuda.synchronize(self.device)
            self._called = True

    def _to_device(self, array: NDArray[np.float32]) -> torch.Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
        if self.device.startswith("cuda"):
            pinned = tensor if tensor.is_pinned() else tensor.pin_memory()
            return pinned.to(self.device, non_blocking=True)
        return tensor.to(self.device)


@cache
def _streams(device: str) -> tuple[torch.cuda.Stream, torch.cuda.Stream]:
    """Two queues of a GPU for the whole process: each keeps memory for itself."""
    return torch.cuda.Stream(device), torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def select(scores: Rows, threshold: float, top: int) -> SparsePredictions:
    """Keep the `top` best scores of every window, (n, classes), that reach the threshold.

    They are sorted by window, then by falling score.
    """
    best, labels = torch.as_tensor(scores).topk(min(top, scores.shape[1]), dim=1)
    best = best.float()  # as it is stored and compared with a threshold again
    kept = best >= threshold
    windows = torch.arange(len(best), device=best.device).unsqueeze(1).expand_as(best)
    return SparsePredictions(
        windows[kept].cpu().numpy().astype(np.int32),
        labels[kept].cpu().numpy().astype(np.int32),
        best[kept].cpu().numpy(),
    )


def shifted(scores: Rows, sensitivity: float) -> Rows:
    """Scores as BirdNET-Analyzer makes them with a sensitivity, since its version 2.

    The logit x of a score becomes x + 10 (sensitivity - 1), cut at -20 and 20
    (https://github.com/birdnet-team/BirdNET-Analyzer).

    Parameters
    ----------
    scores : torch.Tensor or np.ndarray, float32
        Sigmoids of logits.
    sensitivity : float
        1 leaves them as they are.

    Examples
    --------
    >>> shifted(torch.tensor([0.1, 0.5, 0.9]), 1.2)
    tensor([0.4509, 0.8808, 0.9852])
    """
    if sensitivity == 1:
        return scores
    logits = torch.logit(torch.as_tensor(scores).double()) + 10 * (sensitivity - 1)
    return torch.sigmoid(logits.clamp(-20, 20)).float()


def first_invalid(embeddings: NDArray[np.float32]) -> int | None:
    """Number of the first window whose embedding holds NaN or infinite values."""
    finite = np.isfinite(embeddings).all(axis=1)
    return None if finite.all() else int(np.argmin(finite))


def choose_batch_size(runner: ModelRunner, wanted: int | str, workers: int) -> int:
    """Windows per batch, as the user wants it, for `workers` batches at the same time.

    'auto' means, on a GPU, as many as use half of its free memory; elsewhere what the model was
    fastest with.
    """
    if wanted != "auto":
        return int(wanted)
    usual = int(runner.model.batch_size)
    if not runner.device.startswith("cuda"):
        return usual
    device = torch.device(runner.device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    runner(np.zeros((usual, runner.model.segment_length), np.float32))
    per_window = max(1, (torch.cuda.max_memory_allocated(device) - before) // usual)
    free, _ = torch.cuda.mem_get_info(device)
    # What PyTorch keeps for later, it can use again.
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    fitting = free // 2 // workers // per_window
    return int(min(_LARGEST_GPU_BATCH, max(usual, 1 << max(0, int(fitting).bit_length() - 1))))


def choose_workers(model: Model) -> int:
    """Batches to compute at the same time.

    On a CPU, a batch per core is faster than all cores on one batch, for models that allow
    it; on a GPU, a second batch hides the copies of the first.  Apple's take one at a time.
    """
    if not model.concurrent or str(model.device).startswith("mps"):
        return 1
    return min(8, available_cores()) if str(model.device) == "cpu" else 2


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


def _to_numpy(values: Rows) -> NDArray[np.float32]:
    """Copy of what a model has returned, which may be memory that it writes to again."""
    if isinstance(values, torch.Tensor):
        values = values.float().cpu().numpy()
    return np.array(values, dtype=np.float32)


# PyTorch's allocators on Linux, Windows and Macs, CUDA's libraries, ONNX Runtime (DirectML, too)
# and TensorFlow.
_OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "insufficient memory",
    "failed to allocate",
    "allocation_failed",
    "alloc_failed",
    "oom when allocating",
    "invalid buffer size",
    "cublas_status_not_initialized",  # it needs some memory to begin with
    "8007000e",
)


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = said(error).lower()
    return any(sign in text for sign in _OUT_OF_MEMORY)


def _join(one: BatchResult, other: BatchResult, offset: int) -> BatchResult:
    predictions = scores = None
    if one.predictions is not None and other.predictions is not None:
        moved = other.predictions._replace(window=other.predictions.window + np.int32(offset))
        predictions = SparsePredictions.join([one.predictions, moved])
    if one.scores is not None and other.scores is not None:
        scores = np.concatenate([one.scores, other.scores])
    return BatchResult(np.concatenate([one.embeddings, other.embeddings]), predictions, scores)


def _join_inputs(one: Inputs, other: Inputs, offset: int) -> Inputs:
    if isinstance(one, torch.Tensor):
        return torch.cat([one, other])
    return np.concatenate([one, other])
