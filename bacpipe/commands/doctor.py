"""``bacpipe doctor``: what this installation can do, as a text to paste into a bug report.

Every device is held against the CPU: each model whose weights are on this machine embeds the same
noise on both, and on the device also one window at a time and 64 at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import soundfile as sf
from numpy.typing import NDArray

from bacpipe import extras
from bacpipe._version import __version__
from bacpipe.audio.stream import read_audio
from bacpipe.commands.arguments import add_settings, read_settings
from bacpipe.errors import ModelUnavailableError
from bacpipe.machine import available_cores, free_memory
from bacpipe.models.weights import checkpoints
from bacpipe.models.zoo import CARDS
from bacpipe.options import Options, make_options

if TYPE_CHECKING:
    from bacpipe.inference.runner import ModelRunner

# The libraries whose versions decide how results come about.
_LIBRARIES = ("numpy", "torch", "torchaudio", "soundfile", "soxr", "scikit-learn", "umap-learn")
_EXTRAS = ("tensorflow", "onnx", "bats", "annotations", "search", "cluster", "remote")
_USES = {
    "annotations": "tables in the formats of crowsetta",
    "search": "approximate searches",
    "cluster": "engine=dask",
    "remote": "recordings at URLs",
}
_LOW_DISK = 10e9  # bytes
_BATCH = 64
_TOLERANCE = 1e-3  # relative; rounding makes some 1e-6, TF32 1e-3
_IMPORT = """
import importlib, sys
from bacpipe.errors import BacpipeError
from bacpipe.models.loading import find_card, import_wrapper
models, modules = (words.split() for words in sys.argv[1:])
for name in models:
    try:
        import_wrapper(find_card(name))
    except BacpipeError as error:
        sys.exit(str(error))
for name in modules:
    importlib.import_module(name)
"""


def run(arguments: Sequence[str]) -> int:
    """Print the report; 1 when something has to be done."""
    parser = argparse.ArgumentParser(
        prog="bacpipe doctor",
        description="Print versions, devices, extras, weights, disk space and the result of "
        "self-tests, ready to paste into a bug report. Each GPU is compared with the CPU for every "
        "model whose weights are here (device=cpu leaves that out).",
    )
    add_settings(parser)
    findings = examine(**read_settings(parser.parse_intermixed_args(arguments)))
    print(report(findings))  # noqa: T201
    return int(any(finding.problem for finding in findings))


class Finding(NamedTuple):
    """One line of the report.

    Attributes
    ----------
    topic : str
        What was looked at.
    text : str
        What was found.
    problem : bool
        Whether something has to be done; the text says what.
    """

    topic: str
    text: str
    problem: bool = False


def examine(**settings: object) -> list[Finding]:
    """Look at versions, devices, extras, weights, disks, and let models hear some noise.

    Nothing is downloaded, and nothing but a temporary file is written.

    Parameters
    ----------
    **settings
        Any key of ``bacpipe.config`` and ``bacpipe.settings``.

    Returns
    -------
    list of Finding

    Examples
    --------
    >>> from bacpipe.commands.doctor import examine
    >>> examine()[0].topic
    'bacpipe'
    """
    options = make_options(**settings)
    findings = [
        Finding("bacpipe", f"{__version__}, Python {platform.python_version()}"),
        Finding(
            "system",
            f"{platform.platform()}, {available_cores()} of {os.cpu_count()} cores, "
            f"{free_memory() / 1e9:.1f} GB of memory free",
        ),
        Finding("libraries", ", ".join(f"{name} {extras.version(name)}" for name in _LIBRARIES)),
        *(_extra(name) for name in _EXTRAS),
    ]
    for topic, look in (
        ("devices", _devices),
        ("weights", lambda: _weights(options)),
        ("decoding", _decoding),
    ):
        findings.append(_guarded(topic, look))
    findings.append(_test("self-test", "birdnet", "cpu", options))
    for device in _gpus(options):
        for name in _with_weights(options):
            findings.append(_test(f"{name} on {device}", name, device, options))
    for key in ("main_results_dir", "model_base_path"):
        findings.append(_disk(key, Path(getattr(options, key))))
    return findings


def report(findings: list[Finding]) -> str:
    """Findings as text, problems marked, the user's home folder written as ``~``."""
    width = max(len(finding.topic) for finding in findings)
    lines = [
        f"{'!!' if finding.problem else 'ok'}  {finding.topic.ljust(width)}  {finding.text}"
        for finding in findings
    ]
    return "\n".join(lines).replace(str(Path.home()), "~")


def _guarded(topic: str, look: Callable[[], str]) -> Finding:
    """What a check says; whatever it meets is what the report is for."""
    try:
        return Finding(topic, look())
    except Exception as error:
        text = " ".join(str(error).split())
        return Finding(topic, f"failed: {type(error).__name__}: {text}", problem=True)


def _extra(name: str) -> Finding:
    """Whether an extra is installed and can be imported."""
    topic, installed = f"extra {name}", extras.versions(name)
    cards = [card for card in CARDS.values() if card.extra == name]
    here = {package: version for package, version in installed.items() if version != extras.MISSING}
    text = ", ".join(f"{package} {version}" for package, version in here.items())
    if not here or len(here) < len(installed):
        use = ", ".join(card.name for card in cards) or _USES.get(name, "")
        wanted = f" (for {use})" if use else ""
        lacking = ", ".join(sorted(installed.keys() - here))
        state = f"{text}, without {lacking}" if here else "not installed"
        return Finding(topic, f"{state}{wanted}: {extras.command(name)}")

    def look() -> str:
        # In a process of its own: such packages print to the terminal, and a broken one may crash.
        # Where no model needs it, its packages are imported themselves.
        modules = [] if cards else extras.modules(installed)
        command = [sys.executable, "-c", _IMPORT, " ".join(card.name for card in cards),
                   " ".join(modules)]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        if done.returncode:
            said = done.stderr.strip().splitlines() or [f"Python ended with {done.returncode}"]
            raise ModelUnavailableError(said[-1])
        return text

    return _guarded(topic, look)


def _devices() -> str:
    import torch

    devices = [f"cpu with {torch.get_num_threads()} threads"]
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        devices.append(f"cuda:{number} {about.name}, {about.total_memory / 2**30:.0f} GiB")
    if torch.backends.mps.is_available():
        devices.append("mps")
    cuda = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
    return f"{', '.join(devices)} (PyTorch {torch.__version__}, built with {cuda})"


def _gpus(options: Options) -> list[str]:
    """Devices to compare with the CPU: the one of the settings, or all."""
    import torch

    if options.device != "auto":
        return [] if options.device == "cpu" else [options.device]
    devices = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    return [*devices, "mps"] if torch.backends.mps.is_available() else devices


def _with_weights(options: Options) -> list[str]:
    base = Path(options.model_base_path)
    return [card.name for card in CARDS.values() if not checkpoints.missing_files(card, base)]


def _weights(options: Options) -> str:
    here = _with_weights(options)
    text = f"{len(here)} of {len(CARDS)} models have theirs: {', '.join(here)}"
    others = ". The others fetch them when they are first used."
    return text + others if len(here) < len(CARDS) else text


def _decoding() -> str:
    """Write and read back a second of noise in every format that bacpipe reads."""
    rng = np.random.default_rng(0)
    noise = rng.uniform(-0.5, 0.5, 32_000).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("wav", "flac", "ogg", "mp3", "aiff"):
            path = Path(folder) / f"noise.{kind}"
            sf.write(path, noise, 32_000)
            read_audio(path, 16_000)
    return f"wav, flac, ogg, mp3, aiff (libsndfile {sf.__libsndfile_version__})"


def _test(topic: str, name: str, device: str, options: Options) -> Finding:
    """Let a model embed noise on a device, in single windows and in batches, and on the CPU."""
    wrong: list[str] = []

    def look() -> str:
        runner = _runner(name, device, options)
        model = runner.model
        rng = np.random.default_rng(0)
        windows = rng.normal(0, 0.05, (4, model.segment_length)).astype(np.float32)
        many = np.tile(windows, (_BATCH // len(windows), 1))
        singles = np.concatenate([runner(window[None]).embeddings for window in windows])
        runner(many)  # the first call prepares the device
        started = time.perf_counter()
        batched = runner(many).embeddings
        speed = len(many) / (time.perf_counter() - started)
        card = CARDS[name]
        if batched.shape != (len(many), card.dim) or not np.isfinite(batched).all():
            raise RuntimeError(f"{name} returned embeddings of shape {batched.shape}")
        off = {"single windows": _difference(batched[: len(windows)], singles)}
        if device != "cpu":
            exact = _runner(name, "cpu", options)(windows).embeddings
            off["the CPU"] = _difference(singles, exact)
        wrong.extend(what for what, value in off.items() if value >= _TOLERANCE)
        said = [f"batches of {_BATCH} {speed:,.0f} windows/s"]
        said += [f"{value:.0e} off {what}" for what, value in off.items()]
        if device.startswith("cuda") and card.backend == "torch":
            rounded = _runner(name, device, options, precision="tf32")(windows).embeddings
            said.append(f"with precision=tf32 {_difference(rounded, exact):.0e} off it")
        if runner.computes_on.partition(":")[0] != device.partition(":")[0]:
            said.append(f"computed on {runner.computes_on}, see the warning")
        if wrong:
            said.append(
                f"more than {_TOLERANCE:.0e}: please report it, and use device=cpu meanwhile"
            )
        return f"{name} on {device}: {', '.join(said)}"

    finding = _guarded(topic, look)
    return finding._replace(problem=finding.problem or bool(wrong))


def _runner(name: str, device: str, options: Options, precision: str = "float32") -> ModelRunner:
    from bacpipe.embedder import Embedder

    chosen = dataclasses.replace(options, device=device, precision=precision)  # type: ignore[arg-type]
    return Embedder(name, options=chosen).runner(scores=False)


def _difference(actual: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Largest relative difference of two embeddings of the same window."""
    lengths = np.linalg.norm(expected, axis=1)
    return float((np.linalg.norm(actual - expected, axis=1) / np.maximum(lengths, 1e-12)).max())


def _disk(topic: str, folder: Path) -> Finding:
    existing = next(p for p in (folder.resolve(), *folder.resolve().parents) if p.is_dir())
    free = shutil.disk_usage(existing).free
    text = f"{folder.resolve()}: {free / 1e9:.0f} GB free"
    if not os.access(existing, os.W_OK):
        return Finding(topic, f"{text}, but not writable; choose another {topic}", problem=True)
    if free < _LOW_DISK:
        return Finding(topic, f"{text}; make room or choose another {topic}", problem=True)
    return Finding(topic, text)
