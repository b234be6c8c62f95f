"""The path of a GPU, proven with tensors of the CPU and a CUDA that takes notes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bacpipe
from bacpipe.errors import BacpipeError, SettingsError
from bacpipe.evaluation import probes, probing
from bacpipe.evaluation.probes import Probe
from bacpipe.inference import runner as runner_module
from bacpipe.inference.runner import ModelRunner, choose_batch_size, choose_workers
from bacpipe.models.backends.pytorch import choose_device, computing_on
from tests.conftest import TinyModel

WINDOW_BYTES = 4 * 8000


class Stream:
    """A queue of work; knows which others it has waited for."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.waited_for: list[Stream] = []

    def wait_stream(self, other: Stream) -> None:
        self.waited_for.append(other)


class Cuda:
    """Stands in for `torch.cuda`, and for the methods of tensors that go to a GPU."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, free: int = 2**40) -> None:
        self.default = Stream("cuda:0")
        self.streams: list[Stream] = []
        self.copies: list[tuple[Stream | None, bool, bool]] = []
        self.calls: list[tuple[Stream | None, int]] = []
        self.pins = 0
        self.reserved = self.emptied = 0
        self._current = threading.local()
        self._pinned: list[torch.Tensor] = []
        runner_module._streams.cache_clear()
        stand_ins: dict[str, Any] = {
            "Stream": self._new_stream,
            "default_stream": lambda device: self.default,
            "stream": self._on_stream,
            "reset_peak_memory_stats": lambda device: None,
            "memory_allocated": lambda device: 0,
            "max_memory_allocated": lambda device: self.calls[-1][1] * WINDOW_BYTES,
            "memory_reserved": lambda device: self.reserved,
            "mem_get_info": lambda device: (free - self.reserved, 2**41),
            "synchronize": lambda device: self.calls.clear(),
            "empty_cache": self._empty_cache,
        }
        for name, function in stand_ins.items():
            monkeypatch.setattr(torch.cuda, name, function)
        monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: self._pin(tensor))
        monkeypatch.setattr(torch.Tensor, "is_pinned", lambda tensor: self._is_pinned(tensor))
        to, empty = torch.Tensor.to, torch.empty

        def allocate(*shape: Any, pin_memory: bool = False, **how: Any) -> torch.Tensor:
            memory = empty(*shape, **how)
            if pin_memory:
                self._pinned.append(memory)
            return memory

        monkeypatch.setattr(torch, "empty", allocate)

        def copy(tensor: torch.Tensor, *target: object, **how: bool) -> torch.Tensor:
            if not (target and str(target[0]).startswith("cuda")):
                return to(tensor, *target, **how)  # type: ignore[call-overload]
            asynchronous = how.get("non_blocking", False)
            if self.current is not None:
                self.copies.append((self.current, self._is_pinned(tensor), asynchronous))
            return tensor.clone()

        monkeypatch.setattr(torch.Tensor, "to", copy)

    @property
    def current(self) -> Stream | None:
        return getattr(self._current, "stream", None)

    def _new_stream(self, device: str) -> Stream:
        self.streams.append(Stream(device))
        return self.streams[-1]

    @contextmanager
    def _on_stream(self, stream: Stream) -> Iterator[None]:
        self._current.stream = stream
        try:
            yield
        finally:
            self._current.stream = None

    def _pin(self, tensor: torch.Tensor) -> torch.Tensor:
        self.pins += 1
        self._pinned.append(tensor)
        return tensor

    def _is_pinned(self, tensor: torch.Tensor) -> bool:
        return any(
            0 <= tensor.data_ptr() - memory.data_ptr() < memory.nbytes for memory in self._pinned
        )

    def _empty_cache(self) -> None:
        self.emptied += 1


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    return Cuda(monkeypatch)


def on_gpu(notes: Cuda, *, concurrent: bool = True) -> TinyModel:
    """A model that says that it lies on a GPU; its calls are noted, two at once if it may."""
    together = threading.Barrier(2, timeout=30)

    class OnGpu(TinyModel):
        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            notes.calls.append((notes.current, len(x)))
            # The first call of all prepares the model, in the queue that all share.
            if concurrent and notes.current is not None and len(notes.calls) <= 2:
                together.wait()
            return super().__call__(x)

    model = OnGpu(device="cpu")
    model.device, model.concurrent = "cuda:0", concurrent
    return model


def embed(model: TinyModel, audio: np.ndarray) -> np.ndarray:
    embedder = bacpipe.Embedder("gpu", CustomModel=model, global_batch_size=4)
    return embedder.embeddings_using_multithreading([audio])


def test_two_batches_are_under_way_each_in_a_stream_of_its_own(cuda: Cuda) -> None:
    audio = np.random.default_rng(0).uniform(-1, 1, 8000 * 32).astype(np.float32)
    found = embed(on_gpu(cuda), audio)
    np.testing.assert_array_equal(found, embed(TinyModel(device="cpu"), audio))
    assert len(cuda.calls) == 8
    # The first two calls waited for each other, so both threads have worked.
    assert {id(stream) for stream, _ in cuda.calls} == {id(stream) for stream in cuda.streams}
    assert len(cuda.streams) == 2


def test_streams_wait_for_the_weights(cuda: Cuda) -> None:
    for _ in range(3):  # the process has two streams, however many calls
        embed(on_gpu(cuda), np.ones(8000 * 12, np.float32))
    assert len(cuda.streams) == 2
    assert {id(other) for stream in cuda.streams for other in stream.waited_for} == {
        id(cuda.default)
    }


def test_what_models_build_lazily_is_there_before_streams_read_it(cuda: Cuda) -> None:
    class Lazy(TinyModel):
        form: torch.Tensor | None = None

        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            if self.form is None:
                assert cuda.current is None, "built in the stream of one thread"
                assert float(x[1].abs().sum()) == 0, "silence has a form of its own"
                self.form = torch.ones(())
            return super().__call__(x * self.form)

    model = Lazy(device="cpu")
    model.device, model.concurrent = "cuda:0", True
    found = embed(model, np.ones(8000 * 12, np.float32))
    assert found.shape == (12, 10)


def test_a_first_call_that_fails_is_no_failure_of_the_run(cuda: Cuda) -> None:
    class NoSilence(TinyModel):
        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            assert x.abs().sum(dim=(1, 2)).all()
            return super().__call__(x)

    model = NoSilence(device="cpu")
    model.device = "cuda:0"
    assert embed(model, np.ones(8000 * 12, np.float32)).shape == (12, 10)


def test_windows_are_copied_from_pinned_memory_without_waiting(cuda: Cuda) -> None:
    embed(on_gpu(cuda), np.ones(8000 * 12, np.float32))
    assert len(cuda.copies) == 3
    for stream, pinned, asynchronous in cuda.copies:
        assert stream in cuda.streams
        assert pinned
        assert asynchronous
    assert cuda.pins == 1  # of the first call; batches are decoded into pinned memory


@pytest.mark.parametrize(
    ("free_windows", "expected"),
    [
        (100, 16),  # half of the memory, shared by two batches: 25 windows fit
        (10**6, 256),  # more than this is of no use
        (8, 4),  # what is usual on a CPU fits everywhere
    ],
)
def test_batches_take_half_of_the_free_memory(
    monkeypatch: pytest.MonkeyPatch, free_windows: int, expected: int
) -> None:
    notes = Cuda(monkeypatch, free=free_windows * WINDOW_BYTES)
    runner = ModelRunner(on_gpu(notes, concurrent=False), scores=False)
    assert choose_batch_size(runner, "auto", workers=2) == expected
    notes.reserved = free_windows * WINDOW_BYTES // 2  # PyTorch's own reserve counts as free
    assert choose_batch_size(runner, "auto", workers=2) == expected


def test_the_batch_size_is_found_out_once(cuda: Cuda) -> None:
    embedder = bacpipe.Embedder("gpu", CustomModel=on_gpu(cuda, concurrent=False))
    sizes = []
    for _ in range(3):
        embedder.embeddings_using_multithreading([np.ones(8000 * 3, np.float32)])
        sizes.append([size for _, size in cuda.calls])
    assert sizes == [[4, 3], [3], [3]]  # without the first call of each, which prepares the model


def test_memory_is_given_back_at_the_end_of_a_run(
    cuda: Cuda, recordings: Path, tmp_path: Path
) -> None:
    loader = bacpipe.Loader(
        recordings, "gpu", use_folder_structure=True, main_results_dir=tmp_path / "results"
    )
    embedder = bacpipe.Embedder("gpu", loader, CustomModel=on_gpu(cuda, concurrent=False))
    embedder.run_inference_pipeline_using_multithreading()
    assert cuda.emptied == 1


def test_without_memory_to_pin_batches_are_copied_once_more(
    cuda: Cuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(torch, "empty", refuse)
    assert ModelRunner(on_gpu(cuda), scores=False).allocate(2, 8000).shape == (2, 8000)


# ---------------------------------------------------------------------- precision


def switches() -> list[str]:
    backends = torch.backends
    return [
        part.fp32_precision
        for part in (backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul)
    ]


needs_switches = pytest.mark.skipif(
    not hasattr(torch.backends.cudnn, "conv"), reason="PyTorch before 2.9 has other switches"
)


@needs_switches
@pytest.mark.filterwarnings("ignore:.*CUDA is not available")
def test_float32_is_float32_on_nvidia_gpus(cuda: Cuda) -> None:
    before = switches()
    assert "tf32" in before, "PyTorch's own choice"
    for precision, expected in (("float32", "ieee"), ("tf32", "tf32"), ("bfloat16", "ieee")):
        seen: set[str] = set()

        class Watches(TinyModel):
            def __call__(self, x: torch.Tensor) -> torch.Tensor:
                seen.update(switches())  # noqa: B023
                return super().__call__(x)

        model = Watches(device="cpu")
        model.device = "cuda:0"
        embedder = bacpipe.Embedder(
            "gpu", CustomModel=model, precision=precision, global_batch_size=4
        )
        embedder.embeddings_using_multithreading([np.ones(8000 * 9, np.float32)])
        assert seen == {expected}
        assert switches() == before


@needs_switches
@pytest.mark.timeout(60)
def test_runs_with_tf32_and_without_wait_for_each_other() -> None:
    before, wrong = switches(), []

    def compute(precision: str, expected: str) -> None:
        for _ in range(200):
            with computing_on("cuda:0", precision):
                wrong.extend(value for value in switches() if value != expected)

    threads = [
        threading.Thread(target=compute, args=(precision, expected))
        for precision, expected in 2 * [("float32", "ieee"), ("tf32", "tf32")]
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert switches() == before


def test_tf32_is_refused_where_it_is_none() -> None:
    embedder = bacpipe.Embedder("tiny", CustomModel=TinyModel, device="cpu", precision="tf32")
    with pytest.raises(SettingsError, match="this model is on cpu; use precision='float32'"):
        embedder.embeddings_using_multithreading([np.zeros(8000, np.float32)])


# ---------------------------------------------------------------------- devices


def test_a_card_that_is_not_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: f"Card {number}")
    assert choose_device("cuda:0") == "cuda:0"
    with pytest.raises(SettingsError, match=r"cuda:7.* this machine has cuda:0 \(Card 0\); use"):
        choose_device("cuda:7")


def on_apple(kind: type[TinyModel]) -> TinyModel:
    model = kind(device="cpu")
    model.device, model.concurrent = "mps", True
    return model


@pytest.mark.timeout(60)
def test_one_thread_of_the_process_computes_on_apples_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    to = torch.Tensor.to
    monkeypatch.setattr(
        torch.Tensor,
        "to",
        lambda tensor, *target, **how: tensor if target == ("mps",) else to(tensor, *target, **how),
    )
    busy = threading.Lock()

    class Alone(TinyModel):
        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            assert busy.acquire(blocking=False), "two threads at once end the process"
            try:
                threading.Event().wait(0.005)
                return super().__call__(x)
            finally:
                busy.release()

    assert choose_workers(on_apple(Alone)) == 1
    errors = []

    def embed_some() -> None:
        try:
            embed(on_apple(Alone), np.ones(8000 * 40, np.float32))
        except BacpipeError as error:
            errors.append(error)

    threads = [threading.Thread(target=embed_some) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


@pytest.mark.parametrize("probe", ["linear", "knn"])
def test_probes_take_their_turn_on_a_gpu(probe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Apple's, two threads at once end the process, whatever they compute."""
    turns: list[str] = []

    @contextmanager
    def turn(device: str, precision: str = "float32") -> Iterator[None]:
        turns.append("begins")
        yield
        turns.append("ends")

    def standardise(self: Probe, x: torch.Tensor) -> torch.Tensor:
        assert turns[-1] == "begins", "outside of its turn"
        return (x - self.mean) / self.deviation

    for room in (probes, probing):
        monkeypatch.setattr(room, "computing_on", turn)
    monkeypatch.setattr(Probe, "standardise", standardise)
    rng = np.random.default_rng(0)
    labels = np.tile([0, 1], 40)
    embeds = (rng.normal(0, 1, (80, 4)) + labels[:, None]).astype(np.float32)
    truth = {"label:species": labels, "label_dict:species": {"wren": 0, "owl": 1}}
    trained, _, _ = bacpipe.probing_pipeline("tiny", truth, embeds, name=probe, split="random")
    assert bacpipe.run_probe_inference("tiny", trained, embeds=embeds).shape == (80, 2)
    assert turns[-1] == "ends"


@pytest.mark.parametrize(
    "text",
    [
        "Invalid buffer size: 12.00 GiB",
        "MPS backend out of memory (MPS allocated: 17.98 GB)",
        "cuFFT error: CUFFT_ALLOC_FAILED",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Failed to allocate memory for requested "
        "buffer of size 1207959552",
        "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0",
    ],
)
def test_what_gpus_say_without_memory_makes_smaller_batches(text: str) -> None:
    class Greedy(TinyModel):
        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            if len(x) > 2:
                raise RuntimeError(text)
            return super().__call__(x)

    windows = np.random.default_rng(0).uniform(-1, 1, (7, 8000)).astype(np.float32)
    found = ModelRunner(Greedy(device="cpu"), scores=False)(windows).embeddings
    np.testing.assert_array_equal(
        found, ModelRunner(TinyModel(device="cpu"), scores=False)(windows).embeddings
    )
