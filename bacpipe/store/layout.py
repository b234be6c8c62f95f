"""Where everything lies in a results tree: every name of a folder or file, in one place.

::

    <main_results_dir>/<dataset>/
        embeddings/<YYYY-mm-dd_HH-MM>___<model>-<dataset>/     one set of embeddings
        dim_reduced_embeddings/<...>___<reducer>-<dataset>-<model>/
        evaluations/<model>/{labels,clustering,probing,predictions,plots}/
        evaluations/overview/
        exports/<format>/<model>/                              detections for other programs
        places/                                                where and when, and what can be there
        logs/
        README.txt                                             which of these files people look for
        dataset.json                                           which folder of recordings it is of

A data set is identified by its folder.  ``<dataset>`` is the last part of the folder's path; a
second folder of that name gets the part above it, too, as ``2024_A`` beside ``A``.  If the folder
of some results is gone and most of its recordings are in another one, they were moved, and the
results go with them under the name that they have; ``moved_from`` says so, too.  Recordings that
are older than the move may have another time of modification then, as copies do, if their content
is the same.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import stat
import time
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice, takewhile
from pathlib import Path, PurePosixPath

import numpy as np
import yaml

from bacpipe.audio.fingerprint import content_fingerprint
from bacpipe.errors import (
    NoEmbeddingsError,
    NoRecordingsError,
    ResultsError,
    SettingsError,
    counted,
)
from bacpipe.options import Options
from bacpipe.store.entries import FinishedEntry, read_entry
from bacpipe.store.files import write_json
from bacpipe.store.lock import SECONDS_FOR_OTHERS, exclusive
from bacpipe.store.selection import AudioDir, data_set_of
from bacpipe.store.typed_command import typed_command
from bacpipe.user_input import load_yaml

logger = logging.getLogger(__name__)

# File systems allow 255 bytes for a name; the model and a temporary suffix are added to it.
_LONGEST_STEM = 180

_LOOKED_AT = 64  # recordings of a journal, to find out whose it is

_NOT_DOWN = frozenset({"", ".", ".."})  # parts of a path that do not lead into a folder
_MINUTE = len("YYYY-mm-dd_HH-MM")
_SET_NAME = re.compile(r"(?P<stamp>\d{4}-\d\d-\d\d_\d\d-\d\d(-\d\d)?)___(?P<what>.+)")


# In the folder of a data set.
DATA_SET = "dataset.json"
CALIBRATIONS = "calibration"
EXPORTS = "exports"
README = "README.txt"
PLACES = "places"
# In the folder of the labels of people.
PEOPLE_LABELS = "people_labels.jsonl"
ALL_PEOPLE_LABELS = "people_labels*.jsonl"  # those that others wrote elsewhere lie beside the first
# In the folder of a recogniser.
RECOGNISER_WEIGHTS = "recogniser.safetensors"
RECOGNISER_WORDS = "recogniser.json"
# In the folder of a set of embeddings; maps, too, have metadata.
METADATA = "metadata.yml"
JOURNAL = "journal.jsonl"
JOURNALS = "journal*.jsonl"  # those of parts of a data set lie beside the first
CODES = "search-*.codes"  # embeddings in short, for searches
# In the folder of a map.
REDUCER = "reducer.safetensors"
PREDICTIONS = "predictions"
RECOGNISERS = "recognisers"
# In the folder of predictions.
SPARSE_PREDICTIONS = "original_classifier_outputs"
RAVEN_TABLES = "raven_tables"
AUDACITY_LABELS = "audacity_labels"
SOURCE = "source.json"
PROVENANCE = "provenance.json"
FINDINGS = "findings.json"
BENCHMARK_SCORES = "benchmark_scores.parquet"
BENCHMARK_WINDOWS = "benchmark_windows.parquet"
BENCHMARK_RESULTS = "benchmark_results.json"
BENCHMARK_TABLE = "benchmark_per_class.csv"
# In the folder of labels.
DEFAULT_LABELS = "default_labels.parquet"
SPLIT_TABLE = "probing_dataframe.csv"
# In the folder of clusterings.
CLUSTERING_RESULTS = "clust_results.json"
CLUSTER_LABELS = "clust_labels.parquet"
LABELLED_CLUSTERS = "labelled_clusters.parquet"
RETRIEVAL_RESULTS = "retrieval_results.json"
RETRIEVAL_NEIGHBOURS = "retrieval_neighbours.parquet"
# In the folder of probes.
LABEL_NUMBERS = "label2index.json"
# In the folder of comparisons across models.
REPORT = "report.html"
# In the folder of plots.
BENCHMARK_FIGURE = "benchmark.png"
BENCHMARK_CURVES = "benchmark_precision_recall.svg"
BENCHMARK_RELIABILITY = "benchmark_reliability.svg"
CLUSTERING_FIGURE = "clustering.png"
MAP_FIGURE = "embeddings.png"


def embeddings_name(stem: str, model: str) -> str:
    """Embeddings of a recording, in the folder of a set; for `stem` see `Stems`."""
    return f"{stem}_{model}.npy"


def predictions_name(stem: str, model: str) -> str:
    """Predictions of a recording, in `SPARSE_PREDICTIONS`."""
    return f"{stem}_{model}.parquet"


def raven_name(stem: str, model: str) -> str:
    """Raven selection table of a recording, in `RAVEN_TABLES`."""
    return f"{stem}_{model}.selection.table.txt"


def audacity_name(stem: str, model: str) -> str:
    """Audacity label track of a recording, in `AUDACITY_LABELS`."""
    return f"{stem}_{model}.labels.txt"


def searched_windows_name(embeddings: str) -> str:
    """What recognisers need of all windows of a set of embeddings, in the folder of recognisers."""
    return f"windows_of_{embeddings}.safetensors"


def map_table_name(dataset: str, model: str) -> str:
    """Table of a map, in its folder."""
    return f"{dataset}_{model}.parquet"


def detections_path(preds_path: Path, model: str) -> Path:
    """Table of all recordings with a row per prediction."""
    return preds_path / f"{model}_detections.parquet"


def detections_csv_path(preds_path: Path, model: str) -> Path:
    """The same for spreadsheets and R."""
    return preds_path / f"{model}_detections.csv"


def calibration_path(paths: ResultPaths, model: str) -> Path:
    """What the scores of a model or recogniser mean."""
    return paths.dataset_path / CALIBRATIONS / f"{model}.json"


def class_list_path(preds_path: Path, model: str) -> Path:
    """Scientific names and codes of the classes of a model."""
    return preds_path / f"{model}_classes.csv"


def annotations_path(preds_path: Path, model: str) -> Path:
    """Annotation table of all recordings with a row per prediction."""
    return preds_path / f"{model}_classifier_annotations.csv"


def wide_table_path(preds_path: Path, model: str) -> Path:
    """Table of all recordings with a row per window and a column per class."""
    return preds_path / f"{model}_all_predictions.parquet"


def calls_path(preds_path: Path, model: str) -> Path:
    """Table of all recordings with a row per call that a detector found."""
    return preds_path / f"{model}_calls.csv"


def ground_truth_name(kind: str, suffix: str) -> str:
    """Ground truth of one kind of label, in the folder of labels."""
    return f"ground_truth_{kind}.{suffix}"


def probe_weights_name(kind: str) -> str:
    """Weights of a probe, in the folder of probes."""
    return f"{kind}_probe.safetensors"


def confusion_matrix_name(kind: str) -> str:
    """Figure of a probe's confusions, in the folder of probes."""
    return f"confusion_matrix_{kind}.png"


def per_class_name(kind: str) -> str:
    """Figure of a probe's scores by class, in the folder of probes."""
    return f"per_class_{kind}.png"


def precision_recall_name(kind: str) -> str:
    """Figure of a probe's precision and recall at every threshold, in the folder of probes."""
    return f"precision_recall_{kind}.svg"


def reliability_name(kind: str) -> str:
    """Figure of what a probe's scores mean, in the folder of probes."""
    return f"reliability_{kind}.svg"


def learning_curve_name(kind: str) -> str:
    """Figure of a probe's score by number of labels, in the folder of probes."""
    return f"learning_curve_{kind}.svg"


def test_scores_name(kind: str) -> str:
    """Scores of every test window, in the folder of probes."""
    return f"test_scores_{kind}.parquet"


def probe_results_name(kind: str) -> str:
    """Scores of a probe, in the folder of probes; ``*`` finds all."""
    return f"probe_results_{kind}.json"


@dataclass(frozen=True)
class ResultPaths:
    """Folders of one model's results for one data set; none is created by asking for it.

    Attributes
    ----------
    audio_dir : Path
        The recordings.
    main_results_dir : Path
        All results.
    dataset_path : Path
        Results of this data set.
    main_embeds_path : Path
        Its embeddings, a folder per set.
    dim_reduc_parent_dir : Path
        Its maps, a folder each.
    labels_path : Path
        Ground truth and default labels of the model's windows.
    clust_path : Path
        Clusterings.
    probe_path : Path
        Probes and their results.
    preds_path : Path
        Predictions.
    plot_path : Path
        Figures.
    """

    audio_dir: Path
    main_results_dir: Path
    dataset_path: Path
    main_embeds_path: Path
    dim_reduc_parent_dir: Path
    labels_path: Path
    clust_path: Path
    probe_path: Path
    preds_path: Path
    plot_path: Path

    @property
    def dataset(self) -> str:
        """Name of the data set, by which its sets of embeddings and its maps are called."""
        return self.dataset_path.name

    @property
    def sparse_predictions_path(self) -> Path:
        """Folder of the predictions, one file per recording."""
        return self.preds_path / SPARSE_PREDICTIONS

    @property
    def raven_path(self) -> Path:
        """Folder of the Raven selection tables."""
        return self.preds_path / RAVEN_TABLES

    @property
    def exports_path(self) -> Path:
        """Folder of what was exported for other programs."""
        return self.dataset_path / EXPORTS

    @property
    def people_path(self) -> Path:
        """Folder of the labels that people gave, whatever the model."""
        return self.dataset_path / "labels"

    @property
    def recognisers_path(self) -> Path:
        """Recognisers trained on this data set, a folder each."""
        return self.dataset_path / RECOGNISERS

    @property
    def overview_path(self) -> Path:
        """Folder of the comparisons across models."""
        return self.labels_path.parent.parent / "overview"

    @property
    def sites_path(self) -> Path:
        """Table of where the recordings were made, as a run knew it."""
        return self.dataset_path / PLACES / "sites.csv"

    @property
    def species_range_path(self) -> Path:
        """Table of which species can be there."""
        return self.dataset_path / PLACES / "species_range.parquet"

    @property
    def logs_path(self) -> Path:
        """Folder of logs and of the settings of past runs."""
        return self.dataset_path / "logs"


def folder_name(audio_dir: Path) -> str:
    """Last part of the path of a folder with recordings."""
    return Path(audio_dir).resolve().name or "recordings"


def dataset_folder(
    main: Path,
    audio_dir: Path,
    embed_parent_dir: str,
    *,
    copies: bool = False,
    moved_from: str | None = None,
) -> Path:
    """Where the results of a folder of recordings are, or will be; see the module.

    Parameters
    ----------
    main : Path
        Folder of all results.
    audio_dir : Path
        Folder with the recordings.
    embed_parent_dir : str
        Setting of this name.
    copies : bool
        Whether results of another folder will do, if copies of its recordings are here.
    moved_from : str, optional
        Option of this name.

    Raises
    ------
    SettingsError
        If `moved_from` is still there, or there are no results of it.
    """
    folders = [main / name for name in _dataset_names(audio_dir)]
    owners = {folder: recorded_folder(folder, embed_parent_dir) for folder in folders}
    for folder in folders:
        if _is_same_folder(owners[folder], audio_dir):
            return folder
    here = audio_dir.resolve()
    others = [folder for folder in _data_sets(main) if folder not in owners]
    for folder in others:
        if _recorded(folder) == here:
            return folder
    if moved_from is not None:
        return _results_of_moved(main, Path(moved_from), audio_dir, embed_parent_dir)
    for folder in folders:
        owner = owners[folder]
        if owner is None:
            return _moved_here(others, audio_dir, embed_parent_dir) or folder
        gone = not owner.is_absolute() or not _exists(owner) or _was_copied(folder)
        if gone and not _exists(audio_dir):
            return folder
        if gone or copies:
            entries = _first_entries(folder / embed_parent_dir)
            known = [_is_recording(entry, audio_dir, copied=not gone) for entry in entries]
            # Another card may have a few of them, too, such as those of a test of the microphone.
            if 2 * sum(known) > len(known) or (gone and not known):
                return folder
    digest = hashlib.sha256(os.fsencode(audio_dir.resolve())).hexdigest()[:8]
    return main / f"{folder_name(audio_dir)}~{digest}"


def _data_sets(main: Path) -> list[Path]:
    """Folders of results, in the order of their names."""
    try:
        return sorted(path.parent for path in main.glob(f"*/{DATA_SET}"))
    except OSError:
        return []


def _moved_here(folders: Iterable[Path], audio_dir: Path, embed_parent_dir: str) -> Path | None:
    """Results of a folder of another name that is gone, and most of whose recordings are here."""
    if not _exists(audio_dir):
        return None
    for folder in folders:
        owner = _recorded(folder)
        if owner is None or not owner.is_absolute() or _exists(owner):
            continue
        entries = list(_first_entries(folder / embed_parent_dir))
        # By its name alone, a recording may be that of any card.
        known = [e.fingerprint is not None and _is_recording(e, audio_dir) for e in entries]
        if 2 * sum(known) > len(known):
            return folder
    return None


def _results_of_moved(main: Path, old: Path, audio_dir: Path, embed_parent_dir: str) -> Path:
    """Results of a folder of which somebody says that it was moved."""
    told = f"moved_from={old}"
    if _exists(old):
        raise SettingsError(
            f"{told} is still there; expected where {audio_dir} was before it was moved or renamed."
        )
    former = Path(os.path.abspath(old))  # noqa: PTH100
    folders = dict.fromkeys([*(main / name for name in _dataset_names(old)), *_data_sets(main)])
    owners = {folder: recorded_folder(folder, embed_parent_dir) for folder in folders}
    for folder, owner in owners.items():
        if owner not in {former, old.resolve(), old}:
            continue
        entries = list(_first_entries(folder / embed_parent_dir))
        if entries and not any(_exists(audio_dir / entry.file) for entry in entries):
            raise SettingsError(
                f"{told}: none of its recordings, such as {entries[0].file}, is in {audio_dir}; "
                f"expected the folder that {old} is now as audio_dir."
            )
        return folder
    known = sorted(str(owner) for owner in owners.values() if owner is not None)
    raise SettingsError(
        f"{told}: there are no results of this folder in {main}, but "
        f"{'of ' + ', '.join(known[:5]) if known else 'none at all'}."
    )


def moved_at(folder: Path) -> int:
    """When results were taken over by a folder that recordings had been moved to, in ns; or 0."""
    try:
        moved = json.loads((folder / DATA_SET).read_text(encoding="utf-8")).get("moved")
    except (OSError, ValueError, RecursionError, AttributeError):
        return 0
    return moved if isinstance(moved, int) else 0


def claim_dataset(paths: ResultPaths, embed_parent_dir: str, moved_from: str | None = None) -> Path:
    """Write down whose results a folder of results holds, if that is not known yet.

    Returns
    -------
    Path
        Folder of the results: another one than `paths` have if somebody was quicker.

    Raises
    ------
    StorageError
        If nothing can be written there.
    """
    ours = paths.audio_dir.resolve()
    if _recorded(paths.dataset_path) == ours and not _was_copied(paths.dataset_path):
        return paths.dataset_path
    main = paths.main_results_dir
    with exclusive(main, "new-data-set", wait=SECONDS_FOR_OTHERS):
        folder = dataset_folder(main, paths.audio_dir, embed_parent_dir, moved_from=moved_from)
        owner, moved = recorded_folder(folder, embed_parent_dir), moved_at(folder)
        if owner is not None and not _is_same_folder(owner, ours):
            moved = time.time_ns()
            logger.info(
                "%s: these results of %s, which is gone or was copied with them, go on with %s.",
                folder,
                owner,
                ours,
            )
        elif folder.name != folder_name(ours) and owner is None:
            logger.info(
                "%s: the results of %s go here, because those in %s are of another folder, %s.",
                folder,
                ours,
                main / folder_name(ours),
                recorded_folder(main / folder_name(ours), embed_parent_dir),
            )
        content: dict[str, object] = {"audio_dir": str(ours), "results": str(folder.resolve())}
        write_json(folder / DATA_SET, content | ({"moved": moved} if moved else {}))
    return folder


def recorded_folder(folder: Path, embed_parent_dir: str = "embeddings") -> Path | None:
    """Folder of recordings that some results are of; None if nothing tells.

    Version 2.0 wrote it into the metadata of each set of embeddings only.
    """
    known = _recorded(folder)
    if known is not None:
        return known
    for path in sorted((folder / embed_parent_dir).glob(f"*___*/{METADATA}"), reverse=True):
        named = _audio_dir_in(path)
        if named is not None:
            return named
    return None


def _recorded(folder: Path, key: str = "audio_dir") -> Path | None:
    try:
        content = json.loads((folder / DATA_SET).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    name = content.get(key) if isinstance(content, dict) else None
    return Path(name) if isinstance(name, str) and name and "\0" not in name else None


def _was_copied(folder: Path) -> bool:
    """Whether results lie elsewhere than where they were written: copied or moved as a whole."""
    written = _recorded(folder, "results")
    return written is not None and written != folder.resolve()


def _audio_dir_in(metadata: Path) -> Path | None:
    """What the first lines of a ``metadata.yml``, which may have a million, say."""
    try:
        with metadata.open(encoding="utf-8", errors="surrogateescape") as file:
            lines = list(islice(file, 40))
        first = next(i for i, line in enumerate(lines) if line.startswith("audio_dir:"))
        # A long path goes on in the next lines.
        more = takewhile(lambda line: line[:1].isspace(), lines[first + 1 :])
        name = load_yaml("".join([lines[first], *more]))["audio_dir"]
    except (OSError, ValueError, StopIteration, yaml.YAMLError):
        return None
    return Path(name) if isinstance(name, str) and name and "\0" not in name else None


def _dataset_names(audio_dir: Path) -> list[str]:
    """Names for the results of a folder, the plainest first."""
    drive, *folders = audio_dir.resolve().parts  # E:\\ on Windows, where cards are drives
    parts = [re.sub(r"\W", "", drive), *folders] if re.search(r"\w", drive) else folders
    names = ["_".join(parts[first:]) for first in range(len(parts) - 1, -1, -1)]
    fitting = [name for name in names if len(os.fsencode(name)) <= _LONGEST_STEM]
    return fitting or [folder_name(audio_dir)]


def _is_same_folder(owner: Path | None, audio_dir: Path) -> bool:
    if owner is None or not owner.is_absolute():
        return False
    if owner == audio_dir.resolve():
        return True
    try:
        return owner.samefile(audio_dir)
    except (OSError, ValueError):
        return False


def _exists(folder: Path) -> bool:
    try:
        return folder.exists()
    except (OSError, ValueError):
        return False


def _first_entries(embeddings: Path) -> Iterator[FinishedEntry]:
    for path in sorted(embeddings.glob(f"*___*/{JOURNAL}"), reverse=True):
        with suppress(OSError), path.open("rb") as file:
            yield from islice(_finished_in(file), _LOOKED_AT)


def _finished_in(journal: Iterable[bytes]) -> Iterator[FinishedEntry]:
    for raw in journal:
        with suppress(ValueError, RecursionError):
            line = json.loads(raw)
            entry = read_entry(line) if isinstance(line, dict) else None
            if isinstance(entry, FinishedEntry):
                yield entry


def _is_recording(entry: FinishedEntry, audio_dir: Path, *, copied: bool = False) -> bool:
    """Whether a folder has a recording; `copied` asks for its time, which copies keep, too.

    Without a fingerprint, only the time tells it from another card's of the same name and size.
    """
    path = audio_dir / entry.file
    try:
        now = path.stat()
    except (OSError, ValueError):
        return False
    if entry.size not in (None, now.st_size):
        return False
    needs_time = copied or (entry.fingerprint is None and entry.size is not None)
    if needs_time and entry.mtime_ns != now.st_mtime_ns:
        return False
    return entry.fingerprint is None or entry.fingerprint == content_fingerprint(path)


def result_paths(
    audio_dir: Path,
    model: str,
    *,
    main_results_dir: str | Path,
    embed_parent_dir: str,
    dim_reduc_parent_dir: str,
    evaluations_dir: str,
    testing: bool = False,
    moved_from: str | None = None,
) -> ResultPaths:
    """Paths of one model's results.

    Parameters
    ----------
    audio_dir : Path
        Folder with the recordings.
    model : str
        Name of the model.
    main_results_dir, embed_parent_dir, dim_reduc_parent_dir, evaluations_dir, moved_from
        Options of the same names.
    testing : bool
        Whether this is a trial run, whose results are kept apart.
    """
    main = Path(main_results_dir)
    if testing:
        main = main.with_name(f"{main.name}_testing")
    dataset = dataset_folder(
        main, Path(audio_dir), embed_parent_dir, copies=True, moved_from=moved_from
    )
    evaluations = dataset / evaluations_dir / model
    return ResultPaths(
        audio_dir=Path(audio_dir),
        main_results_dir=main,
        dataset_path=dataset,
        main_embeds_path=dataset / embed_parent_dir,
        dim_reduc_parent_dir=dataset / dim_reduc_parent_dir,
        labels_path=evaluations / "labels",
        clust_path=evaluations / "clustering",
        probe_path=evaluations / "probing",
        preds_path=evaluations / PREDICTIONS,
        plot_path=evaluations / "plots",
    )


def paths_of(audio_dir: AudioDir, model: str, options: Options) -> ResultPaths:
    """Paths of one model's results with the configuration of a call."""
    return result_paths(
        data_set_of(audio_dir).folder,
        model,
        main_results_dir=options.main_results_dir,
        embed_parent_dir=options.embed_parent_dir,
        dim_reduc_parent_dir=options.dim_reduc_parent_dir,
        evaluations_dir=options.evaluations_dir,
        testing=options.testing,
        moved_from=options.moved_from,
    )


def path_inside(folder: Path, name: str, *, what: str) -> Path:
    """Path of a file whose name comes out of a file of the results tree.

    Parameters
    ----------
    folder : Path
        Where it has to lie.
    name : str
        Posix path relative to `folder`.
    what : str
        Who says so, for the message.

    Raises
    ------
    ResultsError
        If it lies elsewhere, be it by ``..``, by an absolute path or by links.
    """
    path = folder / name
    if _has_no_links(folder, name):
        return path
    try:
        inside = path.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):  # too long, a null byte, or links in a circle
        inside = False
    if not inside:
        raise ResultsError(
            f"{folder}: {what} names the file {name[:300]!r}, which lies outside this folder; "
            f"somebody has tampered with these results, so move the folder away and run the "
            f"pipeline again."
        )
    return path


def _has_no_links(folder: Path, name: str) -> bool:
    """Whether a name leads straight down from a folder, past no link; False when in doubt.

    Following links costs ten times more, for every file of every run.
    """
    if os.name != "posix":  # other systems know more kinds of links and names
        return False
    text = os.fspath(folder)
    for part in name.split("/"):
        if part in _NOT_DOWN:
            return False
        text = f"{text}/{part}"
        try:
            if stat.S_ISLNK(os.lstat(text).st_mode):
                return False
        except FileNotFoundError:
            continue  # below nothing there are no links; the other parts may still be ".."
        except (OSError, ValueError):
            return False
    return True


def stamped_folder(parent: Path, what: str, now: datetime) -> Path:
    """Path of a new result folder, ``<minute>___<what>``, that counts as the newest.

    A second one within a minute also names its second.  If the clock is behind the newest one
    there is, because somebody has set it, or travelled, the name goes by that one instead.
    """
    folder = parent / f"{now:%Y-%m-%d_%H-%M}___{what}"
    newest = _time_of_newest(parent, what)
    if newest is not None and newest >= now.replace(second=0, microsecond=0):
        if newest - now > timedelta(minutes=1):
            logger.warning(
                "The clock says %s, but there are results of %s already; the new ones are named "
                "after these.",
                f"{now:%Y-%m-%d %H:%M}",
                f"{newest:%Y-%m-%d %H:%M}",
            )
        now = max(now, newest + timedelta(seconds=1))
        folder = parent / f"{now:%Y-%m-%d_%H-%M-%S}___{what}"
    while folder.exists():
        now += timedelta(seconds=1)
        folder = parent / f"{now:%Y-%m-%d_%H-%M-%S}___{what}"
    return folder


def _time_of_newest(parent: Path, what: str) -> datetime | None:
    times = []
    for folder in stamped_folders(parent, what):
        stamp = folder.name.split("___")[0]
        with suppress(ValueError):  # no date of any calendar
            form = "%Y-%m-%d_%H-%M-%S" if len(stamp) > _MINUTE else "%Y-%m-%d_%H-%M"
            times.append(datetime.strptime(stamp, form))
    return max(times, default=None)


def is_stamped(name: str) -> bool:
    """Whether a folder is called ``<time>___<what>``."""
    return _SET_NAME.fullmatch(name) is not None


def stamped_name(name: str) -> str:
    """What follows the time in the name of a result folder."""
    match = _SET_NAME.fullmatch(name)
    return match["what"] if match else name


def stamped_folders(parent: Path, what: str) -> list[Path]:
    """Existing result folders ``<time>___<what>``, the newest first.

    Raises
    ------
    ResultsError
        If `parent` may not be read.
    """
    found = [
        (match["stamp"], folder)
        for folder in _content(parent)
        if (match := _SET_NAME.fullmatch(folder.name)) and match["what"] == what
    ]
    return [folder for _, folder in sorted(found, reverse=True) if folder.is_dir()]


def _content(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ResultsError(
            f"{folder}: these results cannot be read ({error.strerror or error}); give yourself "
            f"read permission for them, or choose another main_results_dir."
        ) from None


def models_with_embeddings(main_embeds_path: Path, dataset: str) -> list[str]:
    """Names of the models that have embeddings of a data set.

    Raises
    ------
    ResultsError
        If `main_embeds_path` may not be read.
    """
    suffix = f"-{dataset}"
    names = {
        match["what"].removesuffix(suffix)
        for folder in _content(main_embeds_path)
        if (match := _SET_NAME.fullmatch(folder.name)) and match["what"].endswith(suffix)
    }
    return sorted(names)


def computed_models(audio_dir: AudioDir, options: Options) -> list[str]:
    """Names of all models that have embeddings of a folder of recordings.

    Raises
    ------
    NoEmbeddingsError
        If none has; it is a ValueError and a ResultsNotFoundError.
    """
    paths = paths_of(audio_dir, "none", options)
    folder = paths.main_embeds_path
    names = models_with_embeddings(folder, paths.dataset)
    if not names:
        raise NoEmbeddingsError(
            f"{folder}: there are no embeddings of {paths.audio_dir} yet; compute them first: "
            f"{typed_command('', paths.audio_dir, options)}"
        )
    return names


def result_stems(recordings: Iterable[str]) -> dict[str, str]:
    """Stem of each recording's result files, as `Stems` gives it."""
    names = list(recordings)
    stems = Stems(names)
    return {name: stems.of(name) for name in names}


class Stems:
    """Stems of the result files of recordings.

    Recordings of one folder whose names differ only in the suffix keep it, so that none
    overwrites another's results.  Only these are remembered; other stems follow from the name.

    Parameters
    ----------
    recordings : sequence of str
        Posix paths of all recordings, relative to the audio folder.
    """

    def __init__(self, recordings: Sequence[str]) -> None:
        doubtful = _alike(recordings)
        count = Counter(_as_others_see(_without_suffix(name)) for name in doubtful)
        full_names = Counter(_as_others_see(name) for name in doubtful)
        self._unusual: dict[str, str] = {}
        for name in doubtful:
            seen = _as_others_see(_without_suffix(name))
            if count[seen] > 1 or seen in full_names:
                twice = full_names[_as_others_see(name)] > 1
                self._unusual[name] = _shorten(name, always=twice)

    def of(self, recording: str) -> str:
        """``folder/stem`` of the results of one of the recordings."""
        return self._unusual.get(recording) or _shorten(_without_suffix(recording))


def _alike(names: Sequence[str]) -> list[str]:
    """Names that may collide with others once their suffix is gone: all that do, and few more."""
    # Hashes of a hundred thousand names take a megabyte, the names twenty.
    stems = np.fromiter((hash(_as_others_see(_without_suffix(n))) for n in names), np.int64)
    full = np.fromiter((hash(_as_others_see(name)) for name in names), np.int64)
    found, count = np.unique(np.concatenate([stems, full]), return_counts=True)
    shared = found[count > 1]
    chosen = np.isin(stems, shared) | np.isin(full, shared)
    return [names[i] for i in np.flatnonzero(chosen).tolist()]


def _without_suffix(name: str) -> str:
    folder, slash, last = name.rpartition("/")
    if last in _NOT_DOWN or "//" in name or "./" in name:
        return str(PurePosixPath(name).with_suffix(""))
    dot = last.rfind(".")
    return f"{folder}{slash}{last[:dot]}" if 0 < dot < len(last) - 1 else name


def _as_others_see(name: str) -> str:
    """Name as it looks to file systems that know neither case nor ways to write an accent.

    Those of Windows and macOS do not, and results may be kept there or copied to them.
    """
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _shorten(stem: str, *, always: bool = False) -> str:
    if not always and 4 * (len(stem) - stem.rfind("/")) <= _LONGEST_STEM:  # 4 bytes at most each
        return stem
    path = PurePosixPath(stem)
    name = os.fsencode(path.name)
    if len(name) <= _LONGEST_STEM and not always:
        return stem
    # Of the whole path: the folders, too, may differ in nothing but case.
    digest = hashlib.sha256(os.fsencode(stem) if always else name).hexdigest()[:12]
    kept = name[: _LONGEST_STEM - 13].decode(errors="ignore")
    return str(path.with_name(f"{kept}~{digest}"))


def without_results(names: Sequence[str], audio_dir: Path, paths: ResultPaths) -> list[str]:
    """Leave out what lies in the results tree of this data set.

    Folders of results are named after recordings' folders, and people keep clips beside their
    results; neither are recordings of the data set.

    Parameters
    ----------
    names : sequence of str
        Posix paths, relative to `audio_dir`, of what was found there.
    audio_dir : Path
        Folder with the recordings.
    paths : ResultPaths
        Folders of the results.

    Returns
    -------
    list of str

    Raises
    ------
    NoRecordingsError
        If nothing else is there.
    """
    root = audio_dir.resolve()
    folders = (paths.main_embeds_path, paths.dim_reduc_parent_dir, paths.overview_path.parent)
    inside = tuple(folder.resolve() for folder in folders)
    if not any(folder.is_relative_to(root) for folder in inside):
        return list(names)
    # The files themselves are not resolved: a link among the recordings may point elsewhere.
    parents = {parent: (audio_dir / parent).resolve() for parent in map(_parent, names)}
    left_out = {parent for parent, real in parents.items() if _lies_in(real, inside)}
    results = {(real, name) for real in parents.values() for name in _names_in(real, inside)}
    kept = [
        name
        for name in names
        if (parent := _parent(name)) not in left_out
        and (parents[parent], name[len(parent) :].lstrip("/")) not in results
    ]
    if len(kept) < len(names):
        logger.info(
            "%s: left out %s among the results.",
            audio_dir,
            counted(len(names) - len(kept), "file"),
        )
    if not kept:
        raise NoRecordingsError(
            f"The audio folder {audio_dir} holds no recordings besides the results in "
            f"{paths.dataset_path}."
        )
    return kept


def _parent(name: str) -> str:
    return name.rpartition("/")[0]


def _names_in(folder: Path, others: tuple[Path, ...]) -> list[str]:
    return [other.name for other in others if other.parent == folder]


def _lies_in(folder: Path, others: tuple[Path, ...]) -> bool:
    return any(folder.is_relative_to(other) for other in others)
