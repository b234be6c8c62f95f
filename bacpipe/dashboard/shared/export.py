"""Some windows of a model as files that other programs open, and the controls to get them."""

from __future__ import annotations

import html
import io
import logging
import re
import zipfile
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import panel as pn
import soundfile as sf

from bacpipe.dashboard.background import beside_the_loop, sentence_of
from bacpipe.dashboard.shared.clips import read_clip
from bacpipe.dashboard.shared.clock import zone_of
from bacpipe.dashboard.shared.labels import WindowLabels, clock_times
from bacpipe.dashboard.shared.results import ModelResults
from bacpipe.dashboard.shared.widgets import csv_of, html_pane
from bacpipe.errors import BacpipeError
from bacpipe.exports.raven import RAVEN_COLUMNS, raven_row, raven_table

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

MOST_CLIPS = 500
MOST_CLIP_BYTES = 200 * 2**20


class Exported(NamedTuple):
    """Content of a file for a visitor, and a remark on what is missing in it."""

    content: bytes
    remark: str = ""


def as_csv(results: ModelResults, rows: np.ndarray, labels: WindowLabels | None) -> Exported:
    """Windows as a table that can be read as annotations again.

    Columns audiofilename, start, end (seconds), time (of the recorder's clock, where known) and
    a column with the labels; a window with several labels has a row for each.  Texts that a
    spreadsheet would take for a formula begin with an apostrophe.
    """
    return Exported(csv_of(_table(results, rows, labels)))


def as_raven_table(
    results: ModelResults, rows: np.ndarray, labels: WindowLabels | None
) -> Exported:
    """Windows as a Raven selection table; one with several labels is several selections.

    Begin times count through the recordings of the table in alphabetical order, as Raven plays
    them when they are opened together.
    """
    names = [name for name in RAVEN_COLUMNS if name != "Confidence"]
    lines, offset, recording, path = list[str](), 0.0, -1, Path()
    high = results.loader.highest_frequency
    place, said = _texts(labels, rows)
    for number, (row, label) in enumerate(zip(rows[place], said, strict=True), start=1):
        if results.recording_code[row] != recording:
            if recording >= 0:
                offset += _duration(results, recording)
            recording = int(results.recording_code[row])
            path = _path_of(results, recording)
        start, end = results.start[row], results.end[row]
        channel = results.channel_of(row) or 1
        lines.append(raven_row(number, start, end, label, path, high, offset, channel=channel))
    return Exported(raven_table(lines, columns=names).encode("utf-8", "surrogateescape"))


def as_clips(results: ModelResults, rows: np.ndarray, labels: WindowLabels | None) -> Exported:
    """Windows as WAV files with a table, zipped.

    Clips have the recording's own sample rate and level, mono, 16 bit.  At most `MOST_CLIPS`
    windows and `MOST_CLIP_BYTES` bytes are taken.
    """
    rows, wanted = rows[:MOST_CLIPS], min(len(rows), MOST_CLIPS)
    files: list[str] = []
    changed: dict[str, str] = {}
    problem, size = "", 0
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for number, row in enumerate(rows, start=1):
            if size > MOST_CLIP_BYTES:
                break
            name, start, end = results.window(row)
            try:
                clip = read_clip(results, name, start, end, channel=results.channel_of(row))
            except BacpipeError as error:
                logger.info("left out of the clips: %s", error)
                problem = problem or str(error)
                files.append("")
                continue
            file = io.BytesIO()
            sf.write(file, np.clip(clip.samples, -1, 1), clip.rate, format="WAV", subtype="PCM_16")
            if name not in changed:
                changed[name] = results.change_of(name)
            size += file.tell()
            files.append(f"{number:04d}_{_file_name(name)}_{start:.2f}-{end:.2f}s.wav")
            archive.writestr(files[-1], file.getvalue())
        rows = rows[: len(files)]
        table, (place, _) = _table(results, rows, labels), _texts(labels, rows)
        table.insert(0, "clip", np.array(files, dtype=object)[place])
        archive.writestr("windows.csv", csv_of(table))
    remark = _remark_on_clips(files, wanted, problem, changed.values())
    return Exported(buffer.getvalue(), remark)


def _remark_on_clips(
    files: Sequence[str], wanted: int, problem: str, changes: Iterable[str]
) -> str:
    parts = [*filter(None, changes)][:1]
    if len(files) < wanted:
        parts.append(
            f"Only the first {len(files):,} of {wanted:,} windows fit into "
            f"{MOST_CLIP_BYTES >> 20} MB; select fewer for the rest."
        )
    if problem:
        parts.append(f"{files.count('')} could not be read: {problem}")
    return " ".join(parts)


def _table(results: ModelResults, rows: np.ndarray, labels: WindowLabels | None) -> pd.DataFrame:
    place, said = _texts(labels, rows)
    table = results.window_table(rows[place]).round({"start": 6, "end": 6})
    times = clock_times(results)[rows[place]]
    if not np.isnat(times).all():
        table["time"] = times
        table["time_zone"] = zone_of(results)
    if labels is not None:
        table[f"label:{labels.kind.split(':', 1)[-1]}"] = said
    return table


def _texts(labels: WindowLabels | None, rows: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Places in `rows`, as often as the window has labels, and these; '' for none."""
    if labels is None:
        return np.arange(len(rows)), [""] * len(rows)
    place, codes = labels.every(rows)
    names = (*labels.names, "")  # the last one stands for none
    return place, [names[code] for code in codes.tolist()]


def _file_name(name: str) -> str:
    """Letters, digits and a few signs that are harmless in the name of a file everywhere."""
    return re.sub(r"[^\w.-]+", "_", name.rsplit(".", 1)[0], flags=re.ASCII).strip("._") or "x"


def _duration(results: ModelResults, recording: int) -> float:
    return float(results.windows.entries[results.recordings[recording]].duration)


def _path_of(results: ModelResults, recording: int) -> Path:
    return (results.loader.audio_dir / results.recordings[recording]).absolute()


class _Kind(NamedTuple):
    make: Callable[[ModelResults, np.ndarray, WindowLabels | None], Exported]
    ending: str


_KINDS = {
    "Table (CSV)": _Kind(as_csv, "windows.csv"),
    "Raven selection table": _Kind(as_raven_table, "windows.selection.table.txt"),
    "Audio clips (ZIP)": _Kind(as_clips, "clips.zip"),
}


class ExportPanel:
    """Format and button to download windows, and a sentence about them."""

    def __init__(self, dataset: str) -> None:
        self._dataset = dataset
        self._results: ModelResults | None = None
        self._rows = np.zeros(0, np.int64)
        self._labels: WindowLabels | None = None
        self._remark = ""
        self._kind = pn.widgets.Select(
            label="Download as", options=list(_KINDS), sizing_mode="stretch_width", margin=(2, 5)
        )
        self._button = pn.widgets.FileDownload(
            callback=self._make, filename="windows.csv", label="Download", color="primary",
            css_classes=["bp-download"], sizing_mode="stretch_width", margin=(4, 5),
            disabled=True, auto=True,
        )  # fmt: skip
        self._note = html_pane("", "bp-note", margin=(2, 5))
        self._kind.param.watch(lambda _: self._update(), "value")
        self.panel = pn.Column(self._kind, self._button, self._note, sizing_mode="stretch_width")

    def offer(
        self, results: ModelResults, rows: np.ndarray, labels: WindowLabels | None, what: str
    ) -> None:
        """Offer windows (`rows`) with their labels; `what` says which, such as 'selected'."""
        self._results, self._rows, self._labels = results, rows, labels
        self._what, self._remark = what, ""
        self._update()

    def _update(self) -> None:
        if self._results is None:
            return
        count, kind = len(self._rows), _KINDS[self._kind.value]
        too_many = kind.make is as_clips and count > MOST_CLIPS
        text = f"{count:,} {self._what} window{'' if count == 1 else 's'}."
        if too_many:
            text += (
                f" At most {MOST_CLIPS} clips can be downloaded at once: select fewer with the "
                f"lasso, or filter."
            )
        self._note.object = html.escape(f"{text} {self._remark}".strip())
        self._button.param.update(
            filename=f"{_file_name(self._dataset)}_{_file_name(self._results.name)}_{kind.ending}",
            disabled=count == 0 or too_many,
        )

    async def _make(self) -> io.BytesIO:
        results, kind = self._results, _KINDS[self._kind.value]
        assert results is not None
        self._button.loading = True
        try:
            made = await beside_the_loop(partial(kind.make, results, self._rows, self._labels))
        except Exception as error:  # told to the visitor, in the page and in the file
            made = Exported(b"", sentence_of(error))
        finally:
            self._button.loading = False
        self._remark = made.remark
        self._update()
        return io.BytesIO(made.content)
