"""Labels of people as tables that other programs open."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal, get_args

from bacpipe.audio.files import read_recording
from bacpipe.errors import AudioError, SettingsError
from bacpipe.exports.raven import RAVEN_COLUMNS, plain_label, raven_row, raven_table
from bacpipe.labels.people import current_labels, people_annotations
from bacpipe.options import make_options
from bacpipe.store.files import write_csv, write_text
from bacpipe.store.layout import people_audacity_name, people_raven_name
from bacpipe.store.loader import Loader
from bacpipe.store.tables import CHANNEL
from bacpipe.user_input import is_folder, typed_path

logger = logging.getLogger(__name__)

Format = Literal["csv", "raven", "audacity", "labels"]


def export_people_labels(
    audio_dir: str | Path, destination: str | Path, format: str = "csv", **kwargs: object
) -> list[Path]:
    """Write the labels of people for other programs.

    Parameters
    ----------
    audio_dir : str or Path
        Folder with the recordings.
    destination : str or Path
        A file for 'csv' and 'labels', a folder for 'raven' and 'audacity'.
    format : {'csv', 'raven', 'audacity', 'labels'}
        'csv': what people heard, as an annotations.csv.  'raven' and 'audacity': the same, as a
        selection table or label track per recording.  'labels': every judgement with all columns
        of `people_labels`, as `label_windows` reads it.
    **kwargs
        Any key of the configuration; main_results_dir says where results are.

    Returns
    -------
    list of Path
        The files written.

    Examples
    --------
    >>> import bacpipe
    >>> n = bacpipe.label_windows("recordings", {"recording": "SITE-A/20250504_043000.wav",
    ...                           "start": 3, "end": 6, "label": "wren"}, annotator="Ana")
    >>> bacpipe.export_people_labels("recordings", "people.csv")[0].name
    'people.csv'
    """
    if format not in get_args(Format):
        raise SettingsError(
            f"format={format!r} is not possible: expected one of {', '.join(get_args(Format))}."
        )
    loader, target = Loader(audio_dir, options=make_options(**kwargs)), typed_path(destination)
    if format in {"csv", "labels"} and (not target.name or is_folder(target)):
        raise SettingsError(
            f"destination={str(destination)!r} is not possible: expected a file, such as "
            f"people.csv."
        )
    escape = loader.options.escape_formulas
    if format == "labels":
        write_csv(target, current_labels(loader), escape_formulas=escape)
        return [target]
    table = people_annotations(loader)
    if format == "csv":
        write_csv(target, table, escape_formulas=escape)
        return [target]
    written = []
    for name, rows in table.groupby("audiofilename"):
        channels = rows[CHANNEL].fillna(1) if CHANNEL in rows else 1
        times = rows.iloc[:, 1:4].assign(**{CHANNEL: channels}).itertuples(index=False)
        if format == "audacity":
            path = target / people_audacity_name(str(name))
            text = "".join(f"{s:.6f}\t{e:.6f}\t{plain_label(label)}\n" for s, e, label, _ in times)
        else:
            path, audio = target / people_raven_name(str(name)), loader.audio_dir / str(name)
            try:
                high = read_recording(audio).sample_rate / 2
            except AudioError as error:
                logger.warning("no Raven table: %s", error)
                continue
            columns = [column for column in RAVEN_COLUMNS if column != "Confidence"]
            lines = [
                raven_row(number, s, e, label, audio.resolve(), high, channel=channel)
                for number, (s, e, label, channel) in enumerate(times, start=1)
            ]
            text = raven_table(lines, columns=columns)
        write_text(path, text)
        written.append(path)
    return written
