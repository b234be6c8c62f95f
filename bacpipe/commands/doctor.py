"""``bacpipe doctor``: what this installation can do, as a text to paste into a bug report."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile as sf

from bacpipe import extras
from bacpipe._version import __version__
from bacpipe.audio.stream import read_audio
from bacpipe.commands.arguments import add_settings, read_settings
from bacpipe.errors import ModelUnavailableError
from bacpipe.models.weights import checkpoints
from bacpipe.models.zoo import CARDS
from bacpipe.options import Options, make_options

# The libraries whose versions decide how results come about.
_LIBRARIES = ("numpy", "torch", "torchaudio", "soundfile", "soxr", "scikit-learn", "umap-learn")
_EXTRAS = ("tensorflow", "onnx", "bats", "annotations")
_LOW_DISK = 10e9  # bytes
_IMPORT_WRAPPERS = """
import sys
from bacpipe.errors import BacpipeError
from bacpipe.models.loading import find_card, import_wrapper
for name in sys.argv[1:]:
    try:
        import_wrapper(find_card(name))
    except BacpipeError as error:
        sys.exit(str(error))
"""


def run(arguments: Sequence[str]) -> int:
    """Print the report; 1 when something has to be done."""
    parser = argparse.ArgumentParser(
        prog="bacpipe doctor",
        description="Print versions, devices, extras, weights, disk space and the result of a "
        "tiny self-test, ready to paste into a bug report.",
    )
    add_settings(parser)
    findings = examine(**read_settings(parser.parse_args(arguments)))
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
    """Look at versions, devices, extras, weights, disks, and let BirdNET hear a second of noise.

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
        Finding("system", f"{platform.platform()}, {os.cpu_count()} cores"),
        Finding("libraries", ", ".join(f"{name} {extras.version(name)}" for name in _LIBRARIES)),
        *(_extra(name) for name in _EXTRAS),
    ]
    for topic, look in (
        ("devices", _devices),
        ("weights", lambda: _weights(options)),
        ("decoding", _decoding),
        ("self-test", lambda: _self_test(options)),
    ):
        findings.append(_guarded(topic, look))
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
    if not installed or extras.MISSING in installed.values():
        wanted = f" (for {', '.join(card.name for card in cards)})" if cards else ""
        return Finding(topic, f'not installed{wanted}: pip install "bacpipe[{name}]"')
    text = ", ".join(f"{package} {version}" for package, version in installed.items())

    def look() -> str:
        # In a process of its own: such packages print to the terminal, and a broken one may crash.
        command = [sys.executable, "-c", _IMPORT_WRAPPERS, *(card.name for card in cards)]
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


def _weights(options: Options) -> str:
    base = Path(options.model_base_path)
    missing = [card.name for card in CARDS.values() if checkpoints.missing_files(card, base)]
    here = [name for name in CARDS if name not in missing]
    text = f"{len(here)} of {len(CARDS)} models have theirs: {', '.join(here)}"
    return f"{text}. The others fetch them when they are first used." if missing else text


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


def _self_test(options: Options) -> str:
    from bacpipe.embedder import Embedder

    embedder = Embedder("birdnet", options=options)
    model = embedder.loaded_model
    noise = np.random.default_rng(0).normal(0, 0.05, 4 * model.segment_length).astype(np.float32)
    embedder.embeddings_using_multithreading([noise])  # the first call prepares the device
    started = time.perf_counter()
    embeddings = embedder.embeddings_using_multithreading([noise])
    seconds = time.perf_counter() - started
    if embeddings.shape != (4, CARDS["birdnet"].dim) or not np.isfinite(embeddings).all():
        raise RuntimeError(f"BirdNET returned embeddings of shape {embeddings.shape}")
    return f"BirdNET on {model.device}: 4 windows in {1000 * seconds:.0f} ms"


def _disk(topic: str, folder: Path) -> Finding:
    existing = next(p for p in (folder.resolve(), *folder.resolve().parents) if p.is_dir())
    free = shutil.disk_usage(existing).free
    text = f"{folder.resolve()}: {free / 1e9:.0f} GB free"
    if not os.access(existing, os.W_OK):
        return Finding(topic, f"{text}, but not writable; choose another {topic}", problem=True)
    if free < _LOW_DISK:
        return Finding(topic, f"{text}; make room or choose another {topic}", problem=True)
    return Finding(topic, text)
