"""Kill runs at random moments, start them again, and compare with a run that nobody killed.

    python tests/faults/kill_runs.py --count 100 [--seed N] [--report FILE.json] [--together]

A run here is `bacpipe.play` over a small annotated data set: embeddings, predictions with Raven
tables, a map, ground truth, two probes, default labels, clustering, retrieval, and the tables and
figures across models.  With ``--together``, it is only embeddings and predictions, but of two
models that share the decoding.  Each run is a process group of its own, forked from this process,
which has imported everything and started no thread; SIGKILL ends the whole group.  A third of the
moments are drawn from the whole length of an uninterrupted run; for the others, a stage is drawn,
then a moment from its length, counted from when the run says that it begins: short stages, which
write as much, get their share of the kills.

After every kill, each file under its final name must be complete, and what the journal calls done
must never be computed again: the model writes down the recording of every window that it sees.
In the end the tree must equal, byte by byte, that of the uninterrupted run.  Two things are made
comparable for that: the clock that names folders stands still, and of a journal the last line of
each recording counts, because the lines before it are the history of the kills.
"""

from __future__ import annotations

import os

# Before numpy, PyTorch and Arrow come: a thread that exists now would be lost in a fork.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["JE_ARROW_MALLOC_CONF"] = "background_thread:false"

import argparse
import hashlib
import importlib
import json
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import soundfile as sf
import torch

import bacpipe
from bacpipe.store.file_checks import why_unreadable
from bacpipe.store.files import TEMPORARY

RATE = 8000
N_RECORDINGS = 12
LEVELS = 64  # the loudest sample of recording i is (i + 1) / LEVELS: so the model knows it
MOST_KILLS_PER_TREE = 3

# What a run goes through, and the function whose call begins each stage.
STAGES = {
    "embedding and predictions": "bacpipe.workflows:_generate",
    "tables of predictions": "bacpipe.inference.run_data_set:write_prediction_tables",
    "reduction": "bacpipe.workflows:reduce_data_set",
    "ground truth": "bacpipe.evaluation.evaluate:_ground_truth",
    "probing": "bacpipe.evaluation.evaluate:evaluate_probe",
    "default labels": "bacpipe.evaluation.evaluate:stored_labels",
    "clustering": "bacpipe.evaluation.evaluate:evaluate_clusterings",
    "retrieval": "bacpipe.evaluation.evaluate:evaluate_retrieval",
    "comparison of models": "bacpipe.evaluation.evaluate:compare_models",
}
STAGES_TOGETHER = {
    "planning": "bacpipe.workflows:_generate",
    "embedding": "bacpipe.inference.run_data_set:run",
    "tables of predictions": "bacpipe.inference.run_data_set:write_prediction_tables",
}
# Imported before the forks, so that a run of some seconds is not mostly imports.
IMPORTS = (
    "bacpipe.workflows", "bacpipe.embedder", "bacpipe.inference.run_data_set",
    "bacpipe.inference.together",
    "bacpipe.evaluation.evaluate", "bacpipe.plotting.clustering", "bacpipe.plotting.classifiers",
    "bacpipe.plotting.comparison", "sklearn.cluster", "sklearn.metrics", "sklearn.neighbors",
    "sklearn.decomposition", "pandas", "pyarrow.parquet", "safetensors.torch", "scipy.sparse",
    "PIL.Image", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg", "soxr",
    "torch._dynamo", "safetensors.numpy", "pyarrow.dataset", "pyarrow.pandas_compat",
    "platformdirs",
)  # fmt: skip


class Watched(bacpipe.ModelBaseClass):
    """Embeds the spectrum of a window, and writes down which recordings it computes."""

    calls: Path
    name = "tiny"
    batch = 4

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(sr=RATE, segment_length=RATE, batch_size=self.batch, **kwargs)
        self.classes = ["low", "high"]

    def preprocess(self, audio: torch.Tensor) -> torch.Tensor:
        self._note("embedded", audio.abs().amax(dim=1))
        return audio

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        time.sleep(0.03)  # a model takes its time, in which a run can be killed
        bands = torch.fft.rfft(x).abs()[:, 1:].reshape(len(x), 20, -1).mean(dim=2)
        return torch.cat([x.abs().amax(dim=1, keepdim=True), bands / RATE], dim=1)

    def classifier_predictions(self, embeddings: torch.Tensor) -> torch.Tensor:
        self._note("classified", embeddings[:, 0])
        low, high = embeddings[:, 1:11].sum(dim=1), embeddings[:, 11:].sum(dim=1)
        return torch.stack([low, high], dim=1) / (low + high + 1e-3)[:, None]

    def _note(self, what: str, levels: torch.Tensor) -> None:
        numbers = sorted({round(float(level) * LEVELS) - 1 for level in levels})
        append(self.calls, f"{what} {' '.join(f'{self.name}:{number}' for number in numbers)}\n")


class SlowerWatched(Watched):
    """Another model, which falls behind."""

    name = "slower"
    batch = 3

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        time.sleep(0.02)
        return super().__call__(x)


def append(path: Path, text: str) -> None:
    """Append at once, so that a kill loses nothing that happened before it."""
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.write(descriptor, text.encode())
    os.close(descriptor)


def recording_name(number: int) -> str:
    return f"site{number % 3}/{number:02}.wav"


def make_recordings(folder: Path) -> None:
    """Twelve recordings of one to seven seconds with low and high calls, and annotations."""
    rows = ["audiofilename,start,end,label:species"]
    for number in range(N_RECORDINGS):
        rng = np.random.default_rng(number)
        seconds = 1.5 + number % 6
        time_axis = np.arange(round(seconds * RATE)) / RATE
        call = "low" if number % 2 else "high"
        tone = np.sin(2 * np.pi * (700 if call == "low" else 3100) * time_axis)
        samples = tone + rng.uniform(-0.3, 0.3, len(tone))
        for second in range(0, len(samples), RATE):  # every window tells its recording
            part = samples[second : second + RATE]
            part *= (number + 1) / LEVELS / np.abs(part).max()
        name = recording_name(number)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        sf.write(folder / name, samples.astype(np.float32), RATE, subtype="FLOAT")
        rows.append(f"{name},0,{seconds},{call}")
    (folder / "annotations.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


class StillClock(datetime):
    """A clock that names all folders alike."""

    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        return datetime(2026, 5, 1, 4, 30, tzinfo=tz)


@dataclass(frozen=True)
class Place:
    """Where a run reads and writes, and where it tells what it does."""

    audio: Path
    results: Path
    calls: Path
    stages: Path

    @classmethod
    def below(cls, folder: Path) -> Place:
        return cls(*(folder / name for name in ("field", "results", "calls.txt", "stages.txt")))


def one_run(place: Place, together: bool) -> None:
    """Do what a user's run does; in a process of its own."""
    import bacpipe.reduction.reduce_data_set
    import bacpipe.store.embedding_set
    import bacpipe.store.files

    torch.set_num_threads(1)
    _draw_coarsely()
    bacpipe.store.embedding_set.datetime = StillClock  # type: ignore[attr-defined]
    bacpipe.reduction.reduce_data_set.datetime = StillClock  # type: ignore[attr-defined]
    # The longer recordings go to a temporary file as they come, the short ones at once.
    bacpipe.store.files._WAITING_ROWS = 256
    Watched.calls = place.calls
    append(place.stages, f"{time.monotonic()} start\n")
    for stage, target in stages(together).items():
        _mark(stage, target, place.stages)
    evaluation: dict[str, Any] = {
        "dim_reduction_model": "pca",
        "evaluation_task": ["probing", "clustering"],
        "probe_configs": {"linear": {"max_epochs": 10}, "knn": {"n_neighbors": 3}},
        "clust_configs": {"kmeans": {"n_clusters": None}},
        "bootstrap_samples": 10,
    }
    models = [Watched, SlowerWatched] if together else [Watched]
    bacpipe.play(
        audio_dir=place.audio,
        main_results_dir=place.results,
        models=[model.name for model in models],
        CustomModels=models,
        device="cpu",
        nr_parallel_workers=2,
        global_batch_size="auto" if together else 4,
        classifier_threshold=0.5,
        save_raven_tables=True,
        dashboard=False,
        **({"dim_reduction_model": "None", "evaluation_task": []} if together else evaluation),
    )
    append(place.stages, f"{time.monotonic()} end\n")


def stages(together: bool) -> dict[str, str]:
    return STAGES_TOGETHER if together else STAGES


def _draw_coarsely() -> None:
    """Draw few dots per inch: at 300, drawing is most of what a run does."""
    from matplotlib.figure import Figure

    draw = Figure.savefig

    def coarse(figure: Figure, file: Any, **settings: Any) -> None:
        draw(figure, file, **{**settings, "dpi": 30})

    Figure.savefig = coarse  # type: ignore[method-assign]


def _mark(stage: str, target: str, log: Path) -> None:
    module_name, name = target.split(":")
    module = importlib.import_module(module_name)
    function = getattr(module, name)

    def marked(*args: Any, **kwargs: Any) -> Any:
        append(log, f"{time.monotonic()} {stage}\n")
        return function(*args, **kwargs)

    setattr(module, name, marked)


# ---------------------------------------------------------------------- processes


def start(function: Callable[..., None], *args: Any, log: Path) -> int:
    """Fork a process group that runs a function; returns its id."""
    pid = os.fork()
    if pid:
        # Both sides ask for the group, so that it is there whoever comes first.
        with_group(pid)
        return pid
    code = 1
    try:
        os.setpgid(0, 0)
        output = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        function(*args)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def with_group(pid: int) -> None:
    try:
        os.setpgid(pid, pid)
    except PermissionError:
        pass  # it has done so itself and gone on to another program image
    except ProcessLookupError:
        pass  # it has ended already


def finish(pid: int) -> int:
    """Wait for a process; its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@dataclass(frozen=True)
class Moment:
    """Some seconds after the run, or a stage of it, begins."""

    stage: str
    seconds: float

    def has_come(self, stages: list[tuple[float, str]]) -> bool:
        began = [moment for moment, stage in stages if stage == self.stage]
        return bool(began) and time.monotonic() >= began[-1] + self.seconds

    def __str__(self) -> str:
        return f"{self.seconds:.3f} s of {self.stage!r}"


def kill_at(pid: int, moment: Moment, log: Path) -> int:
    """Let a process group run and kill it; its exit code, negative if it came so far."""
    while not moment.has_come(stages_of(log)):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.0005)
    os.killpg(pid, signal.SIGKILL)
    return finish(pid)


def stages_of(log: Path) -> list[tuple[float, str]]:
    """Stages that a run has begun, with their moments; none before the first."""
    if not log.exists():
        return []
    rows = [line.split(" ", 1) for line in log.read_text().splitlines()]
    return [(float(moment), stage) for moment, stage in rows]


def elsewhere(function: Callable[..., Any], *args: Any, log: Path) -> Any:
    """Result of a function in a process of its own, so that libraries start their threads there."""
    answer = log.with_name("answer.json")

    def run() -> None:
        answer.write_text(json.dumps(function(*args)), encoding="utf-8")

    if finish(start(run, log=log)) != 0:
        raise RuntimeError(f"a check broke off; see {log}")
    return json.loads(answer.read_text(encoding="utf-8"))


# ---------------------------------------------------------------------- what must hold


def half_written(results: Path) -> list[str]:
    """Files that are not complete although they have their final name."""
    found = []
    for path in sorted(p for p in results.rglob("*") if p.is_file()):
        if path.name.endswith(TEMPORARY) or path.suffix == ".lock":
            continue
        reason = why_unreadable(path)
        if reason is not None:
            found.append(f"{path.relative_to(results)}: {reason}")
    return found


def done_recordings(results: Path) -> list[str]:
    """Models and recordings with embeddings and predictions, as the journals say."""
    done: dict[str, bool] = {}
    for journal in results.rglob("journal*.jsonl"):
        for raw in journal.read_bytes().splitlines():
            try:
                line = json.loads(raw)
            except ValueError:
                continue  # cut by the kill
            if "file" in line:
                done[key_of(journal, line["file"])] = line["status"] == "done" and bool(
                    line["predictions"]
                )
    return sorted(name for name, is_done in done.items() if is_done)


def key_of(journal: Path, recording: str) -> str:
    model = next(m.name for m in (Watched, SlowerWatched) if f"___{m.name}-" in journal.parent.name)
    return f"{model}:{recording}"


def look_after_kill(results: Path) -> dict[str, list[str]]:
    return {"broken": half_written(results), "done": done_recordings(results)}


def computed(calls: Path, offset: int) -> set[str]:
    """Recordings that each model has seen since."""
    if not calls.exists():
        return set()
    lines = calls.read_bytes()[offset:].decode().splitlines()
    seen = (word.split(":") for line in lines for word in line.split()[1:])
    return {f"{model}:{recording_name(int(number))}" for model, number in seen}


def tree(results: Path) -> dict[str, str]:
    """Hash of every file, and every folder."""
    content = {}
    for path in sorted(results.rglob("*")):
        name = path.relative_to(results).as_posix()
        if path.is_dir():
            content[name] = "folder"
        elif path.name == "journal.jsonl":
            content[name] = _hash(_last_lines(path))
        elif path.name == "README.txt":  # its commands name the place
            content[name] = _hash(path.read_bytes().replace(os.fsencode(results), b"RESULTS"))
        else:
            content[name] = _hash(path.read_bytes())
    return content


def _last_lines(journal: Path) -> bytes:
    lines: dict[str, Any] = {}
    for raw in journal.read_bytes().splitlines():
        line = json.loads(raw)
        lines[line.get("file", f"about the run: {sorted(line)}")] = line
    return json.dumps(lines, sort_keys=True).encode()


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# ---------------------------------------------------------------------- the experiment


@dataclass
class Report:
    """Figures of an experiment."""

    seed: int
    kills: int = 0
    runs: int = 0
    trees: int = 0
    trees_equal: int = 0
    seconds_of_a_run: float = 0.0
    seconds: float = 0.0
    files_compared: int = 0
    kills_by_stage: dict[str, int] = field(default_factory=dict)
    recordings_kept: int = 0
    faults: list[str] = field(default_factory=list)


class Experiment:
    """Kills runs and keeps the figures."""

    def __init__(self, folder: Path, seed: int, *, together: bool) -> None:
        self.together = together
        self.folder, self.place, self.log = folder, Place.below(folder), folder / "output.txt"
        self.random = random.Random(seed)
        self.report = Report(seed)
        self.by_stage: Counter[str] = Counter()
        make_recordings(self.place.audio)
        self.length, self.spans, self.expected = self._run_uninterrupted()
        self.report.seconds_of_a_run = round(self.length, 2)
        self.report.files_compared = sum(kind != "folder" for kind in self.expected.values())

    def _run_uninterrupted(self) -> tuple[float, dict[str, float], dict[str, str]]:
        """Length of a run, when its stages are, and the tree that it makes; twice, to be sure."""
        trees, length = [], 0.0
        spans: dict[str, float] = {}
        for _ in range(2):
            self._clear()
            if finish(start(one_run, self.place, self.together, log=self.log)) != 0:
                raise RuntimeError(f"an uninterrupted run failed:\n{self.log.read_text()[-3000:]}")
            trees.append(tree(self.place.results))
            marks = stages_of(self.place.stages)
            length = marks[-1][0] - marks[0][0]
            spans = {s: end - t for (t, s), (end, _) in pairwise(marks)}
        if trees[0] != trees[1]:
            raise RuntimeError(f"two uninterrupted runs differ: {differences(*trees)}")
        broken = elsewhere(half_written, self.place.results, log=self.log)
        missing = set(stages(self.together)) - set(spans)
        if broken or missing:
            raise RuntimeError(f"the uninterrupted run is no standard: {broken}, {missing}")
        return length, spans, trees[0]

    def _clear(self) -> None:
        shutil.rmtree(self.place.results, ignore_errors=True)
        for path in (self.place.calls, self.place.stages):
            path.unlink(missing_ok=True)

    def _moment(self) -> Moment:
        if self.random.random() < 1 / 3:
            return Moment("start", self.random.uniform(0, self.length))
        stage = self.random.choice(list(stages(self.together)))
        return Moment(stage, self.random.uniform(0, self.spans[stage]))

    def kill_one_tree(self, most: int) -> None:
        """Start with nothing, kill some times, run to the end and compare."""
        self._clear()
        done: set[str] = set()
        kills = self.random.randint(1, most)
        moments = [self._moment() for _ in range(kills)]
        for moment in moments:
            seen = self.place.calls.stat().st_size if self.place.calls.exists() else 0
            self.place.stages.unlink(missing_ok=True)
            pid = start(one_run, self.place, self.together, log=self.log)
            code = kill_at(pid, moment, self.place.stages)
            self._check_calls(seen, done, moments)
            self.report.runs += 1
            if code != -signal.SIGKILL:
                self._expect(code == 0, f"a run ended with {code}", moments)
                break
            self.report.kills += 1
            self.by_stage[self._stage()] += 1
            found = elsewhere(look_after_kill, self.place.results, log=self.log)
            for broken in found["broken"]:
                self._expect(False, f"half written: {broken}", moments)
            self._expect(done <= set(found["done"]), "the journal forgot what was done", moments)
            done = set(found["done"])
        seen = self.place.calls.stat().st_size if self.place.calls.exists() else 0
        self.report.recordings_kept += len(done)
        code = finish(start(one_run, self.place, self.together, log=self.log))
        self.report.runs += 1
        self.report.trees += 1
        self._expect(code == 0, f"the last run ended with {code}; see {self.log}", moments)
        self._check_calls(seen, done, moments)
        found = tree(self.place.results)
        self.report.trees_equal += found == self.expected
        if found != self.expected:
            self._expect(False, f"differs: {differences(found, self.expected)}", moments)

    def _stage(self) -> str:
        return stages_of(self.place.stages)[-1][1]

    def _check_calls(self, offset: int, done: set[str], moments: list[Moment]) -> None:
        again = sorted(computed(self.place.calls, offset) & done)
        self._expect(not again, f"computed again: {', '.join(again)}", moments)

    def _expect(self, holds: bool, what: str, moments: list[Moment]) -> None:
        if not holds:
            when = ", ".join(map(str, moments))
            self.report.faults.append(f"tree {self.report.trees} killed after {when}: {what}")

    def run(self, count: int) -> Report:
        """Kill `count` times."""
        began = time.monotonic()
        while self.report.kills < count:
            self.kill_one_tree(min(MOST_KILLS_PER_TREE, count - self.report.kills))
        self.report.seconds = round(time.monotonic() - began, 1)
        self.report.kills_by_stage = dict(self.by_stage.most_common())
        return self.report


def differences(found: dict[str, str], expected: dict[str, str]) -> str:
    parts = {
        "missing": sorted(set(expected) - set(found)),
        "too many": sorted(set(found) - set(expected)),
        "different": sorted(n for n in set(found) & set(expected) if found[n] != expected[n]),
    }
    return "; ".join(f"{what}: {', '.join(names)}" for what, names in parts.items() if names)


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill runs at random moments.")
    parser.add_argument("--count", type=int, default=100, help="number of kills")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    parser.add_argument("--report", type=Path, help="JSON file for the figures")
    parser.add_argument("--together", action="store_true", help="two models in one run")
    options = parser.parse_args()
    for name in IMPORTS:
        importlib.import_module(name)
    if len(os.listdir("/proc/self/task")) > 1:  # noqa: PTH208
        raise RuntimeError("a library has started threads, which would be lost in a fork")
    with tempfile.TemporaryDirectory() as folder:
        report = Experiment(Path(folder), options.seed, together=options.together).run(
            options.count
        )
    text = json.dumps(asdict(report), indent=2)
    print(text)
    if options.report is not None:
        options.report.write_text(text + "\n", encoding="utf-8")
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
