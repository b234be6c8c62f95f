"""What a model found, in words; and the README.txt of a data set's results."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from bacpipe.errors import counted
from bacpipe.exports.chosen import choose
from bacpipe.options import Options, needed_to_read
from bacpipe.store.files import write_text
from bacpipe.store.fingerprints import read_result, write_result
from bacpipe.store.layout import (
    FINDINGS,
    README,
    ResultPaths,
    annotations_path,
    detections_csv_path,
    detections_path,
    wide_table_path,
)
from bacpipe.store.loader import Loader
from bacpipe.user_input import typed_setting

_NAMED = 5  # species in a sentence


def typed_command(command: str, audio_dir: Path, options: Options, **further: object) -> str:
    """Words for the command line that work on the results of these settings, here and now.

    Parameters
    ----------
    command : str
        Such as ``export survey``; empty for a run.
    audio_dir : Path
        Folder with the recordings.
    options : Options
        What of them is needed to find these results is named.
    **further
        Other settings, by their keys.
    """
    settings = {"audio_dir": audio_dir, **needed_to_read(options), **further}
    words = [typed_setting(key, _typed(value)) for key, value in settings.items()]
    return " ".join([_program(), *command.split(), *words])


def _typed(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(str, value))}]"
    return "null" if value is None else str(value)


def _program() -> str:
    """How bacpipe is called: by its name where the shell finds this one, else by its path."""
    beside = Path(sys.executable).with_name("bacpipe.exe" if sys.platform == "win32" else "bacpipe")
    on_path = shutil.which("bacpipe")
    if on_path is not None and (not beside.is_file() or Path(on_path).samefile(beside)):
        return "bacpipe"
    if beside.is_file():
        return _quoted(beside)
    return f"{_quoted(Path(sys.executable))} -m bacpipe"


def _quoted(path: Path) -> str:
    return f'"{path}"' if sys.platform == "win32" and " " in str(path) else shlex.quote(str(path))


def say_findings(loader: Loader, figure: Path | None) -> str:
    """What was found and where it is, for whoever has run a model.

    Parameters
    ----------
    loader : Loader
        Results of a model with a classifier.
    figure : Path or None
        Of activity over time, if there is one.
    """
    least = loader.options.classifier_threshold
    counts, odd, named_as_species = _count(loader)
    table = detections_csv_path(loader.paths.preds_path, str(loader.model_name))
    if not counts:
        return _say_nothing(loader, least)
    noun = ("species", "species") if named_as_species else ("class", "classes")
    found = ", ".join(f"{name} {count:,}" for name, count in counts.most_common(_NAMED))
    more = ", ..." if len(counts) > _NAMED else ""
    parts = [
        f"{counted(counts.total(), 'detection')} of {counted(len(counts), *noun)} with a score of "
        f"{least:g} or more: {found}{more}"
    ]
    if odd:
        named = ", ".join(odd[:_NAMED]) + (", ..." if len(odd) > _NAMED else "")
        verb = "is" if len(odd) == 1 else "are"
        parts.append(f"{len(odd)} of them {verb} not expected there in that season ({named})")
    parts.append(f"table: {table}")
    if figure is not None:
        parts.append(f"figure: {figure}")
    return f"{loader.model_name}: {'; '.join(parts)}"


def _count(loader: Loader) -> tuple[Counter[str], list[str], bool]:
    """Detections of each class, the classes expected nowhere there, and whether these are species.

    Kept beside the predictions: a run with nothing to do need not read all of them again.
    """
    options, places = loader.options, loader.range_filter()
    content = [
        loader.predictions_state,
        options.classifier_threshold,
        options.range_filter,
        options.range_threshold,
        places.state,
        loader.paths.species_range_path.is_file(),  # the range model has come, or gone
    ]
    fingerprint = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    path = loader.paths.preds_path / FINDINGS
    stored = read_result(path, fingerprint)
    if stored is not None:
        return Counter(stored["detections"]), stored["unexpected"], stored["species"]
    chosen = choose(loader, {"classifier_threshold": options.classifier_threshold})
    counts: Counter[str] = Counter()
    expected: dict[str, bool] = {}
    for item in chosen.windows():
        probability = chosen.where.range_probability(item)
        labels = item.label.astype(str)
        counts.update(labels.tolist())
        for label in np.unique(labels).tolist():
            fits = ~(probability[labels == label] < np.float32(options.range_threshold))
            expected[label] = expected.get(label, False) or bool(fits.any())
    odd = sorted(name for name, fits in expected.items() if not fits)
    species = chosen.classes.has_scientific_names
    result = {"detections": dict(counts), "unexpected": odd, "species": species}
    write_result(path, result, fingerprint)
    return counts, odd, species


def _say_nothing(loader: Loader, least: float) -> str:
    """That nothing was found, and what to try."""
    lower = next((value for value in (0.25, 0.1, 0.05) if value < least), None)
    text = (
        f"{loader.model_name}: no detections with a score of {least:g} or more in "
        f"{counted(len(loader.entries), 'recording')}"
    )
    if lower is None:
        return f"{text}. Listen to some of them: is the right model chosen for these sounds?"
    command = typed_command(
        "", loader.audio_dir, loader.options, models=loader.model_name, classifier_threshold=lower
    )
    return f"{text}. To see what scores lower, try: {command}"


def write_readme(paths: ResultPaths, options: Options) -> Path:
    """Write which files of a data set's results people look for."""
    rows: dict[str, str] = {}
    evaluations = paths.preds_path.parent.parent
    for folder in sorted(evaluations.glob("*/predictions")) if evaluations.is_dir() else ():
        model = folder.parent.name
        for path, what in _files_of(folder, model).items():
            if path.exists() or (path.suffix == ".png" and detections_path(folder, model).exists()):
                rows[path.relative_to(paths.dataset_path).as_posix()] = what
    lines = [
        f"Results of bacpipe for the recordings in {paths.audio_dir.resolve()}",
        "",
        *([] if rows else ["embeddings/  what the models made of each recording", ""]),
        *(f"{name}\n    {what}" for name, what in rows.items()),
    ]
    # The file is read from anywhere.
    audio_dir = paths.audio_dir.resolve()
    options = replace(options, main_results_dir=str(Path(options.main_results_dir).resolve()))
    for what, command in _next_steps(bool(rows)).items():
        lines += ["", f"{what}:", f"    {typed_command(command, audio_dir, options)}"]
    write_text(paths.dataset_path / README, "\n".join(lines) + "\n")
    return paths.dataset_path / README


def _files_of(folder: Path, model: str) -> Mapping[Path, str]:
    return {
        detections_csv_path(folder, model): "every detection: where, when, which class, what score",
        detections_path(folder, model): "the same as Parquet, for R (arrow) and Python",
        annotations_path(folder, model): "the same as a table of annotations",
        wide_table_path(folder, model): "a row for each window, a column for each class",
        folder.parent
        / "plots"
        / "activity.png": "when each class was found, if the recordings tell",
    }


def _next_steps(has_detections: bool) -> Mapping[str, str]:
    exports = {
        "Species by site and day, with the hours listened": "export survey",
        "Selection tables for Raven": "export raven",
    }
    steps = exports if has_detections else {}
    return {**steps, "Look at the results and listen to them": "dashboard"}
