"""Audacity label tracks of predictions."""

from __future__ import annotations

from glob import escape
from pathlib import Path

from bacpipe.exports.chosen import Chosen, choose, mark_stale, stems
from bacpipe.exports.raven import plain_label
from bacpipe.store.files import write_json, write_text
from bacpipe.store.layout import AUDACITY_LABELS, PROVENANCE, audacity_name, path_inside
from bacpipe.store.loader import Loader
from bacpipe.user_input import typed_path


def export_audacity_labels(
    loader: Loader, folder: str | Path | None = None, *, scores: bool = False, **kwargs: object
) -> list[Path]:
    """Write predictions as Audacity label tracks, one text file per recording.

    Parameters
    ----------
    loader : Loader
        Results of a model with a classifier.
    folder : str or Path, optional
        Where to; ``audacity_labels`` beside the ``raven_tables`` of the results unless given.
    scores : bool
        Whether the score stands behind the name of the class.
    **kwargs
        Any key of the configuration; ``classifier_threshold`` and ``event_gap`` matter here.

    Returns
    -------
    list of Path
        The files written, to be opened with File > Import > Labels.

    Raises
    ------
    ResultsNotFoundError
        If there are no predictions.

    Examples
    --------
    >>> import bacpipe
    >>> loader = bacpipe.Loader("recordings", "birdnet")
    >>> files = bacpipe.export_audacity_labels(loader, "labels", event_gap=0)
    >>> files[0].as_posix()
    'labels/SITE-A/20250504_043000_birdnet.labels.txt'
    """
    chosen = choose(loader, kwargs)
    target = typed_path(folder) if folder is not None else loader.paths.preds_path / AUDACITY_LABELS
    write_json(target / PROVENANCE, chosen.provenance)
    written = write_audacity(chosen, target, scores=scores)
    if folder is None:
        mark_stale(target, written, audacity_name("*", escape(str(loader.model_name))))
    return written


def write_audacity(chosen: Chosen, folder: Path, *, scores: bool = True) -> list[Path]:
    """Write Audacity label tracks; see `export_audacity_labels`."""
    stem_of, written = stems(chosen.loader), []
    for item in chosen.events():
        lines = []
        for row in zip(item.start, item.end, item.label, item.score, strict=True):
            start, end, label, score = row
            text = f"{plain_label(label)} {score:.2f}" if scores else plain_label(label)
            lines.append(f"{start:.6f}\t{end:.6f}\t{text}\n")
        name = audacity_name(stem_of(item.recording), str(chosen.loader.model_name))
        path = path_inside(folder, name, what="a link")
        write_text(path, "".join(lines))
        written.append(path)
    return written
