"""Fuzz everything that bacpipe reads, for as long as it is told to.

::

    python -m tests.faults.fuzz --minutes 60 --target all --seed 1

Each target (`tests.faults.targets`) gets an equal share of the time in a process of its own.
With `atheris <https://github.com/google/atheris>`_ installed, libFuzzer lets the coverage of
bacpipe's own code guide it; without, inputs are mutated at random.  Findings are

- an exception that is no `BacpipeError` (one finding for each place in the code),
- a process that dies, such as by a segmentation fault,
- an input that takes longer than 10 s,
- an input that makes the process grow by more than 500 MB.

The inputs that did it are kept in ``--keep``.  The exit code is 1 if there was any.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

SLOW_SECONDS = 10
HANG_SECONDS = 30  # nothing inside the process could stop this one
ASLEEP_SECONDS = 300
MOST_GROWTH = 500 << 20
ADDRESS_SPACE = 6 << 30  # beyond what a process has at its start: a wild allocation fails
LONGEST_INPUT = 1 << 16


class Harness:
    """Runs a target and remembers what happened, also for the case that the process dies.

    Parameters
    ----------
    target : str
        Name of the target.
    folder : Path
        Scratch folder of this process.
    notes : Path
        Receives the state: executions, findings and the input at hand.
    """

    def __init__(self, target: str, folder: Path, notes: Path) -> None:
        from tests.faults.targets import TARGETS

        logging.disable(logging.CRITICAL)
        self.target = TARGETS[target](folder)
        self._notes = notes
        self._current = notes.with_suffix(".input")
        self._executions = 0
        self._findings: dict[str, str] = {}
        self._noted = 0.0
        self._peak = _peak_memory()
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + ADDRESS_SPACE,) * 2)

    def __call__(self, data: bytes) -> None:
        """Execute one input."""
        self._current.write_bytes(data)
        started = time.process_time()  # other processes may keep this one waiting
        try:
            self.target(data)
        except Exception as error:
            self._find(_place(error), data)
        taken = time.process_time() - started
        if taken > SLOW_SECONDS:
            self._find(f"slow: {taken:.0f} s", data)
        peak = _peak_memory()
        if peak - self._peak > MOST_GROWTH:
            self._find(f"memory: {(peak - self._peak) >> 20} MB more", data)
        self._peak = max(peak, self._peak)
        self._executions += 1
        if time.monotonic() - self._noted > 1:
            self.note()

    def note(self) -> None:
        """Write down how far this is."""
        self._noted = time.monotonic()
        content = {"executions": self._executions, "findings": self._findings}
        temporary = self._notes.with_suffix(".new")
        temporary.write_text(json.dumps(content))
        temporary.replace(self._notes)

    def _find(self, what: str, data: bytes) -> None:
        if what not in self._findings:
            self._findings[what] = data.hex()
            self.note()


def _peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _place(error: Exception) -> str:
    """Exception and the last lines of bacpipe's own code (or of the target's checks) it went by."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "/bacpipe/" in f.filename or f.filename.endswith("targets.py")]
    last = ours[-1] if ours else frames[-1]
    where = f"{Path(last.filename).name}:{last.name}"
    text = str(error).splitlines()[0][:120] if isinstance(error, AssertionError) else ""
    text = re.sub(r"\d+", "#", text)
    return f"{type(error).__name__} in {where} {text}".strip()


# --- The process of one target ----------------------------------------------------------------


def fuzz_target(target: str, seconds: float, seed: int, notes: Path) -> None:
    """Fuzz one target in this process."""
    with tempfile.TemporaryDirectory(prefix="bacpipe-fuzz-") as scratch:
        folder = Path(scratch)
        if (atheris := _atheris()) is None:
            _fuzz_at_random(Harness(target, folder, notes), seconds, seed)
            return
        with atheris.instrument_imports(include=["bacpipe", "crowsetta"]):
            import tests.faults.targets  # noqa: F401
        harness = Harness(target, folder, notes)
        corpus = folder / "corpus"
        corpus.mkdir()
        for number, content in enumerate(harness.target.seeds()):
            (corpus / str(number)).write_bytes(content)
        options = [
            f"-max_total_time={max(1, int(seconds))}", f"-seed={seed}", "-rss_limit_mb=0",
            f"-max_len={LONGEST_INPUT}", "-timeout=100000", "-print_final_stats=0", "-verbosity=0",
            f"-artifact_prefix={folder}/",
        ]  # fmt: skip
        atheris.Setup([sys.argv[0], *options, str(corpus)], harness)
        try:
            atheris.Fuzz()  # ends the process by itself
        finally:
            harness.note()


def _atheris() -> Any:
    try:
        import atheris
    except ModuleNotFoundError:
        return None
    return atheris


def _fuzz_at_random(harness: Harness, seconds: float, seed: int) -> None:
    rng = random.Random(seed)
    seeds = harness.target.seeds()
    deadline = time.monotonic() + seconds
    for data in seeds:
        harness(data)
    while time.monotonic() < deadline:
        harness(mutate(rng.choice(seeds), seeds, rng))
    harness.note()


def mutate(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """Change an input in a few places."""
    content = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        position = rng.randrange(len(content) + 1)
        # Most of what matters is in headers.
        if rng.random() < 0.5:
            position = min(position, rng.randrange(128))
        length = rng.choice([1, 1, 2, 4, 8, rng.randrange(1, 64)])
        match rng.randrange(6):
            case 0 | 1:
                content[position : position + length] = rng.randbytes(length)
            case 2:
                value = rng.choice([0, 1, 0x7F, 0x80, 0xFF])
                content[position : position + length] = bytes([value]) * length
            case 3:
                del content[position : position + length * rng.choice([1, 1, 100])]
            case 4:
                content[position:position] = content[position : position + length]
            case _:
                other = rng.choice(others)
                start = rng.randrange(len(other))
                content[position : position + length] = other[start : start + length]
    return bytes(content[:LONGEST_INPUT])


# --- The process that watches -----------------------------------------------------------------


def watch(target: str, seconds: float, seed: int, keep: Path) -> dict[str, Any]:
    """Fuzz a target in processes of its own; a dead or hanging one is a finding, and replaced."""
    executions, findings, attempt = 0, {}, 0
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 1:
        notes = keep / f"{target}-{os.getpid()}-{attempt}.json"
        log = notes.with_suffix(".log")
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.fuzz", "--target", target,
                 "--minutes", str(left / 60), "--seed", str(seed + attempt),
                 "--inside", str(notes)],
                stdout=output, stderr=output,
            )  # fmt: skip
            reason = _wait(process, notes.with_suffix(".input"), left)
        state = json.loads(notes.read_text()) if notes.exists() else {}
        executions += state.get("executions", 0)
        findings.update(state.get("findings", {}))
        if reason is not None:
            current = notes.with_suffix(".input")
            data = current.read_bytes() if current.exists() else b""
            findings[f"{reason} #{attempt}"] = data.hex()
            shutil.copy(log, keep / f"{target}-{attempt}.died.log")
            print(f"{target}: {reason}, see {keep}/{target}-{attempt}.died.log", flush=True)
        for leftover in (notes, log, notes.with_suffix(".input"), notes.with_suffix(".new")):
            leftover.unlink(missing_ok=True)
        attempt += 1
    for what, data in findings.items():
        name = hashlib.sha256(what.encode()).hexdigest()[:12]
        (keep / f"{target}-{name}").write_bytes(bytes.fromhex(data))
        print(f"{target}: {what}  ({keep / f'{target}-{name}'})", flush=True)
    print(f"{target}: {executions} executions, {len(findings)} findings", flush=True)
    return {"target": target, "executions": executions, "findings": sorted(findings)}


def _wait(process: subprocess.Popen[bytes], current: Path, seconds: float) -> str | None:
    """Wait for a process; says why it ended if that is a finding."""
    started = time.monotonic()
    begun, spent_before = 0.0, 0.0  # of the present input
    while True:
        try:
            code = process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            changed = current.stat().st_mtime if current.exists() else time.time()
            if changed != begun:
                begun, spent_before = changed, _processor_seconds(process.pid)
            spent = _processor_seconds(process.pid) - spent_before
            if spent > HANG_SECONDS or time.time() - changed > ASLEEP_SECONDS:
                process.kill()
                process.wait()
                return "hangs"
            if time.monotonic() - started > seconds + HANG_SECONDS:
                process.kill()
                process.wait()
                return None
            continue
        return None if code == 0 else f"the process died with exit code {code}"


def _processor_seconds(pid: int) -> float:
    """Time that a process has computed; on a busy machine that is less than it has existed."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=1.0, help="for all targets together")
    parser.add_argument("--target", default="all", help="a name, several with commas, or all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, default=None, help="folder for inputs of findings")
    parser.add_argument("--report", type=Path, default=None, help="JSON with the figures")
    parser.add_argument("--inside", type=Path, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside is not None:
        fuzz_target(arguments.target, arguments.minutes * 60, arguments.seed, arguments.inside)
        return 0
    from tests.faults.targets import TARGETS

    names = list(TARGETS) if arguments.target == "all" else arguments.target.split(",")
    unknown = [name for name in names if name not in TARGETS]
    if unknown:
        parser.error(f"there is no target {unknown[0]!r}; expected {', '.join(TARGETS)} or all")
    keep = arguments.keep or Path(tempfile.mkdtemp(prefix="bacpipe-findings-"))
    keep.mkdir(parents=True, exist_ok=True)
    share = arguments.minutes * 60 / len(names)
    results = [watch(name, share, arguments.seed, keep) for name in names]
    if arguments.report is not None:
        arguments.report.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return 1 if any(result["findings"] for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
