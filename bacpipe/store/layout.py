"""Where everything lies in a results tree: every path, in one place.

::

    <main_results_dir>/<dataset>/
        embeddings/<YYYY-mm-dd_HH-MM>___<model>-<dataset>/     one set of embeddings
        dim_reduced_embeddings/<...>___<reducer>-<dataset>-<model>/
        evaluations/<model>/{labels,clustering,probing,predictions,plots}/
        evaluations/overview/
        logs/
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath

# File systems allow 255 bytes for a name; the model and a temporary suffix are added to it.
_LONGEST_STEM = 180

_SET_NAME = re.compile(r"(?P<stamp>\d{4}-\d\d-\d\d_\d\d-\d\d(-\d\d)?)___(?P<what>.+)")


@dataclass(frozen=True)
class ResultPaths:
    """Folders of one model's results for one data set; none is created by asking for it."""

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
    def sparse_predictions_path(self) -> Path:
        """Folder of the predictions, one file per recording."""
        return self.preds_path / "original_classifier_outputs"

    @property
    def raven_path(self) -> Path:
        """Folder of the Raven selection tables."""
        return self.preds_path / "raven_tables"

    @property
    def overview_path(self) -> Path:
        """Folder of the comparisons across models."""
        return self.labels_path.parent.parent / "overview"

    @property
    def logs_path(self) -> Path:
        """Folder of logs and of the settings of past runs."""
        return self.dataset_path / "logs"


def dataset_name(audio_dir: Path) -> str:
    """Name of a data set: the last part of its folder."""
    return Path(audio_dir).resolve().name or "recordings"


def result_paths(
    audio_dir: Path,
    model: str,
    *,
    main_results_dir: str | Path,
    embed_parent_dir: str,
    dim_reduc_parent_dir: str,
    evaluations_dir: str,
    testing: bool = False,
) -> ResultPaths:
    """Paths of one model's results.

    Parameters
    ----------
    audio_dir : Path
        Folder with the recordings.
    model : str
        Name of the model.
    main_results_dir, embed_parent_dir, dim_reduc_parent_dir, evaluations_dir
        Settings of the same names.
    testing : bool
        Whether this is a trial run, whose results are kept apart.
    """
    main = Path(main_results_dir)
    if testing:
        main = main.with_name(f"{main.name}_testing")
    dataset = main / dataset_name(audio_dir)
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
        preds_path=evaluations / "predictions",
        plot_path=evaluations / "plots",
    )


def stamped_folder(parent: Path, what: str, now: datetime) -> Path:
    """Path of a new result folder, ``<minute>___<what>``, that does not exist yet."""
    folder = parent / f"{now:%Y-%m-%d_%H-%M}___{what}"
    # Two sets of one model within a minute: the second one also names its second.
    return parent / f"{now:%Y-%m-%d_%H-%M-%S}___{what}" if folder.exists() else folder


def stamped_folders(parent: Path, what: str) -> list[Path]:
    """Existing result folders ``<time>___<what>``, the newest first."""
    if not parent.is_dir():
        return []
    found = [
        (match["stamp"], folder)
        for folder in parent.iterdir()
        if (match := _SET_NAME.fullmatch(folder.name)) and match["what"] == what
    ]
    return [folder for _, folder in sorted(found, reverse=True) if folder.is_dir()]


def models_with_embeddings(main_embeds_path: Path, dataset: str) -> list[str]:
    """Names of the models that have embeddings of a data set."""
    if not main_embeds_path.is_dir():
        return []
    suffix = f"-{dataset}"
    names = {
        match["what"].removesuffix(suffix)
        for folder in main_embeds_path.iterdir()
        if (match := _SET_NAME.fullmatch(folder.name)) and match["what"].endswith(suffix)
    }
    return sorted(names)


def result_stems(recordings: Iterable[str]) -> dict[str, str]:
    """Stem of each recording's result files.

    Parameters
    ----------
    recordings : iterable of str
        Posix paths relative to the audio folder.

    Returns
    -------
    dict
        ``folder/stem`` of the results by recording.  Recordings of one folder whose names
        differ only in the suffix keep it, so that none overwrites another's results.
    """
    names = list(recordings)
    # File systems of Windows and macOS do not tell upper from lower case.
    plain = {name: str(PurePosixPath(name).with_suffix("")) for name in names}
    count = Counter(stem.lower() for stem in plain.values())
    full_names = {name.lower() for name in names}
    stems = {}
    for name in names:
        stem = plain[name]
        unique = count[stem.lower()] == 1 and stem.lower() not in full_names
        stems[name] = _shorten(stem if unique else name)
    return stems


def _shorten(stem: str) -> str:
    path = PurePosixPath(stem)
    if len(path.name.encode()) <= _LONGEST_STEM:
        return stem
    digest = hashlib.sha256(path.name.encode()).hexdigest()[:12]
    kept = path.name.encode()[: _LONGEST_STEM - 13].decode(errors="ignore")
    return str(path.with_name(f"{kept}~{digest}"))
