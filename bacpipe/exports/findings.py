"""What a model found, in words; and the README.txt of a data set's results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from bacpipe.audio.remote import shown
from bacpipe.errors import counted
from bacpipe.exports.chosen import Chosen, choose
from bacpipe.options import Options
from bacpipe.store.data_set_folder import alone_with
from bacpipe.store.files import write_text
from bacpipe.store.fingerprints import fingerprint_of, read_result, write_result
from bacpipe.store.layout import (
    ACTIVITY_FIGURE,
    FINDINGS,
    PLOTS,
    PREDICTIONS,
    README,
    ResultPaths,
    annotations_path,
    detections_csv_path,
    detections_path,
    wide_table_path,
)
from bacpipe.store.loader import Loader
from bacpipe.store.predictions import decode_dictionary
from bacpipe.store.tables import read_rows, stored_state
from bacpipe.store.typed_command import typed_command
from bacpipe.user_input import is_file, typed_path

_NAMED = 5  # species in a sentence


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
    most = ", ".join(f"{name} {count:,}" for name, count in counts.most_common(_NAMED))
    more = ", ..." if len(counts) > _NAMED else ""
    parts = [
        f"{counted(counts.total(), 'detection')} of {counted(len(counts), *noun)} with a score of "
        f"{least:g} or more: {most}{more}"
    ]
    if odd:
        named = ", ".join(odd[:_NAMED]) + (", ..." if len(odd) > _NAMED else "")
        verb = "is" if len(odd) == 1 else "are"
        parts.append(
            f"{counted(len(odd), *noun)} {verb} not expected there in that season ({named})"
        )
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
    fingerprint = fingerprint_of(content)
    path = loader.paths.preds_path / FINDINGS
    stored = read_result(path, fingerprint)
    if stored is not None:
        return Counter(stored["detections"]), stored["unexpected"], stored["species"]
    chosen = choose(loader, {"classifier_threshold": options.classifier_threshold})
    counts: Counter[str] = Counter()
    unexpected: Counter[str] = Counter()
    for names, code, probability in _detections(chosen):
        counts.update(_by_name(names, code))
        rare = probability < np.float32(options.range_threshold)
        unexpected.update(_by_name(names, code[rare]))
    odd = sorted(name for name, count in unexpected.items() if count == counts[name])
    species = chosen.classes.has_scientific_names
    result = {"detections": dict(counts), "unexpected": odd, "species": species}
    write_result(path, result, fingerprint)
    return counts, odd, species


def _detections(chosen: Chosen) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Detections: names of classes, the number of each one's, and how probable it is there.

    They come from the table of all detections where that can be: the recordings of a large survey
    are not asked again when and where they were made.
    """
    loader, where = chosen.loader, chosen.where
    least = np.float32(loader.options.classifier_threshold)
    path = detections_path(loader.paths.preds_path, str(loader.model_name))
    if where.is_selective or stored_state(path) != loader.predictions_state:
        for item in chosen.windows():
            names, code = np.unique(item.label.astype(str), return_inverse=True)
            yield names, code, where.range_probability(item)
        return
    for table in read_rows(path, ("common_name", "score", "range_probability")):
        code, names = decode_dictionary(table["common_name"])
        kept = table["score"].to_numpy() >= least
        yield names, code[kept], table["range_probability"].to_numpy()[kept]


def _by_name(names: np.ndarray, code: np.ndarray) -> dict[str, int]:
    numbers = np.bincount(code, minlength=len(names)).tolist()
    return {str(name): count for name, count in zip(names, numbers, strict=True) if count}


def _say_nothing(loader: Loader, least: float) -> str:
    """That nothing was found, and what to try."""
    lower = next((value for value in (0.25, 0.1, 0.05) if value < least), None)
    text = (
        f"{loader.model_name}: no detections with a score of {least:g} or more in "
        f"{counted(len(loader.entries), 'recording')}"
    )
    if lower is None:
        return f"{text}. Listen to some of them: is the right model chosen for these sounds?"
    further: dict[str, object] = {"models": loader.model_name, "classifier_threshold": lower}
    if loader.options.recordings is not None:
        further["recordings"] = loader.options.recordings
    command = typed_command("", loader.named, loader.options, **further)
    return f"{text}. To see what scores lower, try: {command}"


def write_readme(paths: ResultPaths, options: Options) -> Path:
    """Write which files of a data set's results people look for."""
    rows: dict[str, str] = {}
    evaluations = paths.preds_path.parent.parent
    for folder in sorted(evaluations.glob(f"*/{PREDICTIONS}")) if evaluations.is_dir() else ():
        model = folder.parent.name
        for path, what in _files_of(folder, model).items():
            if path.exists() or (
                path.name == ACTIVITY_FIGURE and detections_path(folder, model).exists()
            ):
                rows[path.relative_to(paths.dataset_path).as_posix()] = what
    lines = [
        f"Results of bacpipe for the recordings in {shown(paths.audio_dir.resolve())}",
        "",
        *([] if rows else ["embeddings/  what the models made of each recording", ""]),
        *(f"{name}\n    {what}" for name, what in rows.items()),
    ]
    # The file is read from anywhere.
    audio_dir = paths.audio_dir.resolve()
    options = replace(options, main_results_dir=str(Path(options.main_results_dir).resolve()))
    for what, command in _next_steps(bool(rows)).items():
        words = typed_command(command, audio_dir, options, **_read_with(options))
        lines += ["", f"{what}:", f"    {words}"]
    path, text = paths.dataset_path / README, "\n".join(lines) + "\n"
    if not path.is_file() or path.read_text(encoding="utf-8", errors="replace") != text:
        with alone_with(paths, path):
            write_text(path, text)
    return path


def _read_with(options: Options) -> dict[str, object]:
    """Settings that decide what is read, where they are not the usual ones.

    Positions are in the results.
    """
    usual = Options()
    keys = ("time_zone", "range_filter", "range_threshold", "species_list")
    used = {k: getattr(options, k) for k in keys if getattr(options, k) != getattr(usual, k)}
    names = options.species_list or ()
    if len(names) == 1 and is_file(path := typed_path(names[0])):
        used["species_list"] = str(path.resolve())
    return used


def _files_of(folder: Path, model: str) -> Mapping[Path, str]:
    return {
        detections_csv_path(folder, model): "every detection: where, when, which class, what score",
        detections_path(folder, model): "the same as Parquet, for R (arrow) and Python",
        annotations_path(folder, model): "the same as a table of annotations",
        wide_table_path(folder, model): "a row for each window, a column for each class",
        folder.parent
        / PLOTS
        / ACTIVITY_FIGURE: "when each class was found, if the recordings tell",
    }


def _next_steps(has_detections: bool) -> Mapping[str, str]:
    exports = {
        "Species by site and day, with the hours listened": "export survey",
        "Selection tables for Raven": "export raven",
    }
    steps = exports if has_detections else {}
    return {**steps, "Look at the results and listen to them": "dashboard"}
