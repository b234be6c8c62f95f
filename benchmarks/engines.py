"""PyTorch models of the zoo in other engines: would OpenVINO or ONNX Runtime be faster?

Each model runs in a process of its own, with the tests' fake weights and one thread.  The front
end (`preprocess`) stays in PyTorch; the network behind it is handed to the engines as float32.
All are called in turns, each with the batch size that suits it best, and compared by CPU time.

    taskset -c 0 python benchmarks/engines.py mix2 protoclr
    taskset -c 0 python benchmarks/engines.py mix2 --engines           # PyTorch alone
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from torch import nn

from bacpipe.embedder import Embedder
from tests.models import parity

Infer = Callable[[torch.Tensor], np.ndarray]

ENGINES = ("openvino", "onnxruntime")


class Network(nn.Module):
    """What a model does behind its front end: embeddings, and scores if it has classes."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        # An exporter expects to find here what is called below.
        for name, value in vars(model).items():
            if isinstance(value, nn.Module):
                self.add_module(name.lstrip("_") + "_", value)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = self.model.infer(x, scores=bool(self.model.classes))
        return tuple(part for part in found if part is not None)


def pytorch(network: Network, x: torch.Tensor) -> Infer:
    return lambda batch: network(batch)[0].numpy()


def openvino(network: Network, x: torch.Tensor) -> Infer:
    import openvino as ov

    converted = ov.convert_model(network, example_input=x, input=[tuple(x.shape)])
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    request = ov.Core().compile_model(converted, "CPU", settings).create_infer_request()
    return lambda batch: request.infer([batch.numpy()], share_inputs=True)[0]


def onnxruntime(network: Network, x: torch.Tensor) -> Infer:
    import onnxruntime as ort

    path = Path(tempfile.mkdtemp()) / "network.onnx"
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        # The exporter by tracing; the newer one needs the module itself to be exportable.
        torch.onnx.export(network, (x,), path, dynamo=False, input_names=["x"])
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda batch: session.run(None, {"x": batch.numpy()})[0]


def load(name: str, base: Path) -> Any:
    model: Any = Embedder(name, device="cpu", model_base_path=str(base)).model
    return model


@contextlib.contextmanager
def public_operators() -> Iterator[None]:
    """Models that are loaded and called in here keep to the operators that exporters know."""
    with patch("bacpipe.models.backends.cpu.layers._IS_THERE", False):
        yield


def cpu_seconds(function: Callable[[], Any]) -> float:
    started = time.process_time()
    function()
    return time.process_time() - started


def in_turns(functions: dict[Any, Callable[[], Any]], rounds: int) -> dict[Any, float]:
    """Median CPU seconds of calls, after one to warm up."""
    for function in functions.values():
        function()
    taken = [{key: cpu_seconds(f) for key, f in functions.items()} for _ in range(rounds)]
    return {key: float(np.median([turn[key] for turn in taken])) for key in functions}


def best_size(
    make: Callable[[int], Infer], inputs: dict[int, torch.Tensor], rounds: int
) -> tuple[int, Infer]:
    calls = {size: make(size) for size in inputs}
    times = in_turns({s: lambda s=s: calls[s](inputs[s]) for s in inputs}, rounds)
    best = min(times, key=lambda size: times[size] / size)
    return best, calls[best]


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest distance of two embeddings relative to their length."""
    return float(np.max(np.linalg.norm(ours - theirs, axis=1) / np.linalg.norm(ours, axis=1)))


@torch.no_grad()
def measure(name: str, engines: list[str], sizes: list[int], rounds: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch)
        if name in parity.MODELS:
            parity.write_checkpoint(name, base)
        model = load(name, base)
        with public_operators():
            plain = Network(load(name, base)).eval() if engines else None
    if name in parity.MODELS:
        some = parity.windows(name)
    else:
        some = 0.1 * torch.randn(3, model.segment_length, generator=torch.Generator())
    largest = max(sizes)
    windows = some.repeat(-(-largest // len(some)), 1)[:largest]
    inputs = {size: model.preprocess(windows[:size]) for size in sizes}
    network = Network(model).eval()
    chosen = {"pytorch": best_size(lambda size: pytorch(network, inputs[size]), inputs, rounds)}
    problems = {}
    for engine in engines:
        make = globals()[engine]
        try:
            with public_operators():
                chosen[engine] = best_size(
                    lambda size, make=make: make(plain, inputs[size]), inputs, rounds
                )
        except Exception as error:
            problems[engine] = " ".join(f"{type(error).__name__}: {error}".split())[:120]
    size = chosen["pytorch"][0]
    calls = {key: lambda n=n, call=call: call(inputs[n]) for key, (n, call) in chosen.items()}
    times = in_turns({"front end": lambda: model.preprocess(windows[:size]), **calls}, 2 * rounds)
    each = {key: times[key] / n for key, (n, _) in chosen.items()}
    ours = calls["pytorch"]()
    return {
        "front_end": times["front end"] / size,
        "network": each,
        "sizes": {key: n for key, (n, _) in chosen.items()},
        "problems": problems,
        "difference": {
            key: difference(ours[: min(size, n)], calls[key]()[: min(size, n)])
            for key, (n, _) in chosen.items()
        },
    }


def row(name: str, found: dict[str, Any]) -> str:
    front, network, sizes = found["front_end"], found["network"], found["sizes"]
    whole = front + network["pytorch"]
    cells = [name, f"{front / whole:.0%}", f"{1 / whole:.1f} ({sizes['pytorch']})"]
    for engine in ENGINES:
        if engine in network:
            alone, together = (
                network["pytorch"] / network[engine],
                whole / (front + network[engine]),
            )
            cells.append(f"{alone:.2f}, {together:.2f} ({sizes[engine]})")
            cells.append(f"{found['difference'][engine]:.0e}")
        else:
            cells += [found["problems"].get(engine, "–"), "–"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", help="all models with fake weights by default")
    parser.add_argument("--engines", nargs="*", default=list(ENGINES), choices=ENGINES)
    parser.add_argument("--sizes", nargs="+", type=int, default=[4, 8, 16], help="batch sizes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        settings = arguments.engines, arguments.sizes, arguments.rounds
        print(json.dumps(measure(arguments.one, *settings)))
        return
    print(
        "In brackets the batch size; of the engines first the network alone, then with front end."
    )
    print()
    print(
        "| model | front end's share | PyTorch, windows/s of CPU | OpenVINO × | differs by | "
        "ONNX Runtime × | differs by |"
    )
    print("|---|---|---|---|---|---|---|")
    for name in arguments.models or [*parity.MODELS, "batdetect2_clip_avg"]:
        command = [sys.executable, __file__, "--one", name, "--rounds", str(arguments.rounds)]
        command += ["--sizes", *map(str, arguments.sizes), "--engines", *arguments.engines]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            print(f"| {name} | failed: {done.stderr.strip().splitlines()[-1]} |", flush=True)
            continue
        print(row(name, json.loads(done.stdout.splitlines()[-1])), flush=True)


if __name__ == "__main__":
    main()
