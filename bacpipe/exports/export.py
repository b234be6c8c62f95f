"""Detections for other programs, by the name of a format; and renewing what was exported."""

from __future__ import annotations

from bacpipe.exports.audacity import export_audacity_labels
from bacpipe.exports.chosen import exported_with
from bacpipe.exports.raven import export_raven_tables
from bacpipe.store.layout import AUDACITY_LABELS, raven_name
from bacpipe.store.loader import Loader


def export() -> None: ...


def renew_exports(loader: Loader) -> None:
    """Write the tables for Raven and Audacity beside the predictions anew, where there are any.

    They keep the threshold and the gap within events that they were exported with.  With
    ``save_raven_tables``, those for Raven are written in any case, with the settings of the run.
    """
    combined = loader.paths.raven_path / raven_name("", str(loader.model_name)).removeprefix("_")
    if (saves := loader.options.save_raven_tables) or loader.paths.raven_path.is_dir():
        settings = {} if saves else exported_with(loader, loader.paths.raven_path)
        export_raven_tables(loader, **settings)
        if combined.is_file():
            export_raven_tables(loader, combined=True, **settings)
    if (folder := loader.paths.preds_path / AUDACITY_LABELS).is_dir():
        export_audacity_labels(loader, **exported_with(loader, folder))
