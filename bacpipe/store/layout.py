"""Where everything lies in a results tree: every name of a folder or file, in one place.

::

    <main_results_dir>/<dataset>/
        embeddings/<YYYY-mm-dd_HH-MM>___<model>-<dataset>/     one set of embeddings
        dim_reduced_embeddings/<...>___<reducer>-<dataset>-<model>/
        evaluations/<model>/{labels,clustering,probing,predictions,plots}/
        evaluations/overview/
        exports/<format>/<model>/                              detections for other programs
        places/                                                where and when, and what can be there
        shards/                                                its parts, and who has them
        logs/
        README.txt                                             which of these files people look for
        dataset.json                                           which folder of recordings it is of
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath

import numpy as np

from bacpipe.errors import (
    ResultsError,
)

logger = logging.getLogger(__name__)

LONGEST_STEM = 180
"""Bytes of a stem: file systems allow 255; the model and a temporary suffix are added to it."""

_NOT_DOWN = frozenset({"", ".", ".."})  # parts of a path that do not lead into a folder
_MINUTE = len("YYYY-mm-dd_HH-MM")
_SET_NAME = re.compile(r"(?P<stamp>\d{4}-\d\d-\d\d_\d\d-\d\d(-\d\d)?)___(?P<what>.+)")


# In the folder of a data set.
DATA_SET = "dataset.json"
CALIBRATIONS = "calibration"
EXPORTS = "exports"
README = "README.txt"
PLACES = "places"
SHARDS = "shards"
# In the folder of shards.
MANIFEST = "manifest.parquet"
CLAIMS = "claims"
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
SEARCH_INDEX = "approximate_search.safetensors"  # only where it was asked for
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
# In the folder of clips, which lie in a folder for each class.
CLIPS_TABLE = "clips.csv"
# In the folder of comparisons across models.
REPORT = "report.html"
# In the folder of plots.
PLOTS = "plots"
ACTIVITY_FIGURE = "activity.png"
BENCHMARK_FIGURE = "benchmark.png"
BENCHMARK_CURVES = "benchmark_precision_recall.svg"
BENCHMARK_RELIABILITY = "benchmark_reliability.svg"
CLUSTERING_FIGURE = "clustering.png"
MAP_FIGURE = "embeddings.png"
MAP_FIGURE_WORDS = "embeddings.json"  # which map is drawn, in which colours


def shard_journal(number: int) -> str:
    """Journal of a shard, in the folder of a set."""
    return f"journal-shard-{number:05d}.jsonl"


def journals_in(folder: Path) -> list[Path]:
    """Journals of a set of embeddings, in the order in which later lines replace earlier ones."""
    return sorted(folder.glob(JOURNALS), key=lambda path: (path.name != JOURNAL, path.name))


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


def combined_raven_name(model: str) -> str:
    """Raven selection table over all recordings, in the same folder."""
    return f"{model}.selection.table.txt"


def sound_files_name(model: str) -> str:
    """List of the recordings that `combined_raven_name` counts through, beside it."""
    return f"{model}.sound_files.txt"


def people_raven_name(recording: str) -> str:
    """Raven selection table of what people heard in a recording, in a folder of theirs."""
    return f"{recording}.selection.table.txt"


def people_audacity_name(recording: str) -> str:
    """Audacity label track of what people heard in a recording, in a folder of theirs."""
    return f"{recording}.labels.txt"


def kaleidoscope_name(model: str) -> str:
    """Table for Kaleidoscope, in the folder of an export."""
    return f"{model}_kaleidoscope.csv"


def survey_name(model: str) -> str:
    """Table of a survey, in the folder of an export."""
    return f"{model}_survey.csv"


def history_name(model: str, species: str) -> str:
    """Where and when a species was found, in the folder of an export."""
    return f"{model}_{species}.csv"


def hours_listened_name(model: str) -> str:
    """Effort of such histories, beside them."""
    return f"{model}_hours_listened.csv"


def darwin_core_name(model: str) -> str:
    """Darwin Core archive, in the folder of an export."""
    return f"{model}_dwca.zip"


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


def comparison_table_name(table: str) -> str:
    """Table of all models, in the folder of comparisons."""
    return f"{table}.csv"


def comparison_figure_name(figure: str, suffix: str = "png") -> str:
    """Figure of all models, in the folder of comparisons; beside it the same as SVG."""
    return f"{figure}.{suffix}"


def split_name(kind: str) -> str:
    """Which recordings train, validate and test all models, in the folder of comparisons."""
    return f"split_{kind}.json"


def folds_name(kind: str) -> str:
    """Parts of repeated cross-validations, in the folder of comparisons."""
    return f"folds_{kind}.json"


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

    Examples
    --------
    >>> import bacpipe
    >>> paths = bacpipe.make_set_paths_func("recordings")("birdnet")
    >>> paths.dataset, paths.dataset_path.as_posix()
    ('recordings', 'bacpipe_results/recordings')
    >>> paths.sparse_predictions_path.name, paths.raven_path.name, paths.exports_path.name
    ('original_classifier_outputs', 'raven_tables', 'exports')
    >>> paths.people_path.name, paths.recognisers_path.name, paths.overview_path.name
    ('labels', 'recognisers', 'overview')
    >>> paths.sites_path.name, paths.species_range_path.name, paths.logs_path.name
    ('sites.csv', 'species_range.parquet', 'logs')
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
    def manifest_path(self) -> Path:
        """Which recordings belong to which shard."""
        return self.dataset_path / SHARDS / MANIFEST

    @property
    def claims_path(self) -> Path:
        """Folder that says who works on which shard."""
        return self.dataset_path / SHARDS / CLAIMS

    def contract_path(self, model: str) -> Path:
        """What all workers on the shards must have in common, for a model."""
        return self.dataset_path / SHARDS / f"{model}.json"

    @property
    def logs_path(self) -> Path:
        """Folder of logs and of the settings of past runs."""
        return self.dataset_path / "logs"


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
    stamped = [
        (match["stamp"], folder)
        for folder in _content(parent)
        if (match := _SET_NAME.fullmatch(folder.name)) and match["what"] == what
    ]
    return [folder for _, folder in sorted(stamped, reverse=True) if folder.is_dir()]


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
        count = Counter(as_others_see(_without_suffix(name)) for name in doubtful)
        full_names = Counter(as_others_see(name) for name in doubtful)
        self._unusual: dict[str, str] = {}
        for name in doubtful:
            seen = as_others_see(_without_suffix(name))
            if count[seen] > 1 or seen in full_names:
                twice = full_names[as_others_see(name)] > 1
                self._unusual[name] = _shorten(name, always=twice)

    @classmethod
    def given(cls, unusual: Mapping[str, str]) -> Stems:
        """Stems of a part of the recordings, of which those that are unusual are known."""
        stems = cls(())
        stems._unusual.update(unusual)
        return stems

    @property
    def unusual(self) -> Mapping[str, str]:
        """Stems that do not follow from the recording's name alone, by the recording."""
        return self._unusual

    def of(self, recording: str) -> str:
        """``folder/stem`` of the results of one of the recordings."""
        return self._unusual.get(recording) or _shorten(_without_suffix(recording))


def _alike(names: Sequence[str]) -> list[str]:
    """Names that may collide with others once their suffix is gone: all that do, and few more."""
    # Hashes of a hundred thousand names take a megabyte, the names twenty.
    stems = np.fromiter((hash(as_others_see(_without_suffix(n))) for n in names), np.int64)
    full = np.fromiter((hash(as_others_see(name)) for name in names), np.int64)
    hashes, count = np.unique(np.concatenate([stems, full]), return_counts=True)
    shared = hashes[count > 1]
    chosen = np.isin(stems, shared) | np.isin(full, shared)
    return [names[i] for i in np.flatnonzero(chosen).tolist()]


def _without_suffix(name: str) -> str:
    folder, slash, last = name.rpartition("/")
    if last in _NOT_DOWN or "//" in name or "./" in name:
        return str(PurePosixPath(name).with_suffix(""))
    dot = last.rfind(".")
    return f"{folder}{slash}{last[:dot]}" if 0 < dot < len(last) - 1 else name


def as_others_see(name: str) -> str:
    """Name as it looks to file systems that know neither case nor ways to write an accent.

    Those of Windows and macOS do not, and results may be kept there or copied to them.
    """
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _shorten(stem: str, *, always: bool = False) -> str:
    if not always and 4 * (len(stem) - stem.rfind("/")) <= LONGEST_STEM:  # 4 bytes at most each
        return stem
    path = PurePosixPath(stem)
    name = os.fsencode(path.name)
    if len(name) <= LONGEST_STEM and not always:
        return stem
    # Of the whole path: the folders, too, may differ in nothing but case.
    digest = hashlib.sha256(os.fsencode(stem) if always else name).hexdigest()[:12]
    kept = name[: LONGEST_STEM - 13].decode(errors="ignore")
    return str(path.with_name(f"{kept}~{digest}"))
