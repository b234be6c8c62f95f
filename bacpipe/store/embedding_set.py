"""One set of embeddings: a model over a data set with one choice of settings.

A set is a folder with a journal.  Its identity (model, checkpoint, window, hop, padding and
what else changes results) is in the journal's first line; a run with another identity starts
a set of its own.  Whether a recording is done is decided by the journal, never by the mere
presence of a file.  From the journal follow the times of all windows, the hashes by which later
results know that they are stale, and ``metadata.yml``, the description that other tools read.

Failure policy: a set whose first line is damaged is an error; damaged lines about single
recordings are dropped with a warning, and these are computed again.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from bacpipe.audio import windows
from bacpipe.audio.remote import shown
from bacpipe.audio.windows import Segment
from bacpipe.errors import REPAIR, ResultsError, SettingsError, counted
from bacpipe.models.zoo import CARDS
from bacpipe.options import Options, with_changes
from bacpipe.store.arrays import read_npy
from bacpipe.store.entries import (
    DoneEntries,
    FinishedEntry,
    PredictionSettings,
    embeddings_state,
    is_header,
    predictions_state,
    settings_with,
)
from bacpipe.store.files import array_hash, replacing, write_bytes, yaml_text
from bacpipe.store.journal import (
    FORMAT,
    Journal,
    JournalContent,
    encode_line,
    read_for,
    read_journals,
)
from bacpipe.store.layout import (
    JOURNAL,
    METADATA,
    journals_in,
    path_inside,
    stamped_folder,
    stamped_folders,
)
from bacpipe.store.old_results import could_be, read_old_metadata

logger = logging.getLogger(__name__)

LEAST_HEARD = 0.5  # of a window
_BEFORE = {"channel": "mix"}  # what version 2.0 did without recording it
_AT_ONCE = 1000  # values; YAML's dumper takes half a kilobyte for each


class EmbeddingSet:
    """A folder of embeddings and what its journal says.

    Parameters
    ----------
    folder : Path
        An existing set.
    part : str, optional
        Name of the journal of a part of the data set, if those of other parts do not matter: of
        these there may be thousands.

    Attributes
    ----------
    identity : dict or None
        What the embeddings were computed with; None for a set that an older version of
        bacpipe wrote, which did not record it.
    content : JournalContent
        The journal as it was when read last.
    """

    def __init__(self, folder: Path, part: str | None = None) -> None:
        self.folder = folder
        self.part = part
        self.reload()

    def reload(self) -> None:
        """Read the journal again."""
        self._by_path: dict[str, str] | None = None
        self._states: dict[str, tuple[int, str]] = {}
        self.content = JournalContent()  # of a large data set, two take too much memory
        # Before reading: later lines change them.
        self._files = _stamps_of_journals(self.folder, self.part)
        self.content = read_journals(self.folder, self.part)
        if not self.content.header and (self.folder / METADATA).is_file():
            self.content = read_old_metadata(self.folder)
        else:
            self._check_header()
        if damaged := list(self.content.damaged):
            logger.warning(
                "%s: damaged lines of the journal about %s, such as %.200r; they are computed "
                "again.",
                self.folder,
                counted(len(damaged), "recording"),
                damaged[0],
            )

    def _check_header(self) -> None:
        header = self.content.header
        if not header and not self.content.recordings and not self.content.damaged:
            return
        version = header.get("format")
        if isinstance(version, int) and version > FORMAT:
            raise ResultsError(
                f"{self.folder}: written by a newer bacpipe (journal format {version}, this one "
                f"reads up to {FORMAT}); update bacpipe, or choose another main_results_dir."
            )
        if version != FORMAT or not is_header(header):
            raise ResultsError(
                f"{self.folder}: the first line of the journal, which says what these embeddings "
                f"were computed with, is damaged or missing; move the folder away and run the "
                f"pipeline again."
            )

    def find_done(self, name: str) -> FinishedEntry | None:
        """Entry of a recording that is done, by its name or by that of its embeddings."""
        done = self.content.done
        if name in done:
            return done[name]
        if self._by_path is None:
            self._by_path = {entry.embeddings.path: owner for owner, entry in done.items()}
        owner = self._by_path.get(name)
        return None if owner is None else done[owner]

    @property
    def is_current(self) -> bool:
        """Whether the journals are what they were when they were read."""
        return self._files == _stamps_of_journals(self.folder, self.part)

    @property
    def identity(self) -> dict[str, Any] | None:
        identity = self.content.header.get("identity")
        return None if identity is None else {**_BEFORE, **identity}

    @property
    def state(self) -> str:
        """Hash of all embeddings; results made from them are stale when it has changed."""
        return self._state("embeddings", embeddings_state)

    @property
    def predictions_state(self) -> str:
        """Hash of all predictions; tables made from them are stale when it has changed."""
        return self._state("predictions", lambda done: predictions_state(self.folder.name, done))

    def _state(self, what: str, compute: Callable[[DoneEntries], str]) -> str:
        """A hash of the entries, computed again only if they have changed."""
        version = self.content.recordings.version
        if what not in self._states or self._states[what][0] != version:
            self._states[what] = (version, compute(self.content.done))
        return self._states[what][1]

    def record_tables(self, tables: Mapping[str, Any]) -> None:
        """Let the journal say that the tables over all recordings are complete.

        Parameters
        ----------
        tables : mapping
            What they were written with; what the journal says of other tables still holds.
        """
        known = {**(self.content.tables or {}), **tables}
        if known == self.content.tables:
            return
        was_current = self.is_current
        journal = Journal(self.folder)
        try:
            journal.append_tables(known)
        finally:
            journal.close()
        if was_current:  # the caller holds the lock: nobody else has written since
            self.content.tables = known
            self._files = _stamps_of_journals(self.folder, self.part)
        else:
            self.reload()

    def embedding_path(self, entry: FinishedEntry) -> Path:
        """Path of a recording's embeddings.

        Raises
        ------
        ResultsError
            If the journal names a place outside the set.
        """
        return path_inside(self.folder, entry.embeddings.path, what="the journal")


def _stamps_of_journals(folder: Path, part: str | None) -> list[tuple[str, int, int, int]]:
    # Beside a journal, metadata.yml is only for other programs to read.
    paths = read_for(folder, part) or [folder / METADATA]
    stamps = []
    for path in paths:
        with suppress(OSError):  # readers say what is wrong
            status = path.stat()
            stamps.append((path.name, status.st_ino, status.st_size, status.st_mtime_ns))
    return stamps


def find_set(
    parent: Path,
    model: str,
    dataset: str,
    identity: Mapping[str, Any] | None,
    *,
    known: EmbeddingSet | None = None,
    part: str | None = None,
) -> EmbeddingSet | None:
    """Newest set of a model.

    Parameters
    ----------
    parent : Path
        Folder of all sets.
    model, dataset : str
        Whose embeddings.
    identity : mapping or None
        What they must have been computed with, or the part of it that is known; None takes
        the newest set, whatever it is.
    known : EmbeddingSet, optional
        A set that was read before; it is not read again unless its journals have changed.
    part : str, optional
        As in `EmbeddingSet`.

    Returns
    -------
    EmbeddingSet or None
    """
    for folder in stamped_folders(parent, f"{model}-{dataset}"):
        if known is not None and known.folder == folder and known.is_current:
            candidate = known
        else:
            candidate = EmbeddingSet(folder, part)
        if not candidate.content.header and not candidate.content.recordings:
            continue  # a folder without journal and metadata is not a set
        if identity is None or _fits(candidate, identity):
            return candidate
    return None


def create_set(
    parent: Path,
    model: str,
    dataset: str,
    identity: Mapping[str, Any],
    provenance: Mapping[str, Any],
    part: str | None = None,
) -> EmbeddingSet:
    """Make the folder of a new set, with the first line of its journal."""
    folder = stamped_folder(parent, f"{model}-{dataset}", datetime.now())
    header = {"format": FORMAT, "identity": dict(identity), "provenance": dict(provenance)}
    try:
        write_bytes(folder / JOURNAL, encode_line(header))
    except BaseException:
        with suppress(OSError):  # nothing is in it, or it could not even be made
            folder.rmdir()
        raise
    return EmbeddingSet(folder, part)


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Keys of `other` in which `one` differs, as ``key=value instead of value``."""
    return [
        f"{key}={one.get(key)} instead of {other.get(key)}"
        for key in other
        if one.get(key) != other.get(key)
    ]


def _fits(candidate: EmbeddingSet, identity: Mapping[str, Any]) -> bool:
    known = candidate.identity
    if known is not None:  # version 2.0 did not record the code of users' own models
        return not [k for k in identity if known.get(k, _missing(k, identity)) != identity[k]]
    return could_be(candidate.content.header, identity)


def _missing(key: str, identity: Mapping[str, object]) -> object:
    return identity[key] if key == "code" else None


def complete_identity(embedding_set: EmbeddingSet, identity: Mapping[str, Any]) -> None:
    """Let the journals of a set of version 2.0 name the code of the user's own model, too."""
    if embedding_set.identity is None or "code" not in identity or "code" in embedding_set.identity:
        return
    for path in journals_in(embedding_set.folder):
        with path.open("rb") as old, replacing(path) as new:
            header = json.loads(old.readline())
            if isinstance(header.get("identity"), dict):
                header["identity"]["code"] = identity["code"]
            new.write(encode_line(header))
            shutil.copyfileobj(old, new, 2**20)
    embedding_set.reload()
    logger.info(
        "%s: taken over from an older bacpipe, which did not record the code of your model; from "
        "here on, a change of it starts a new set.",
        embedding_set.folder,
    )


def adopt_old_set(
    embedding_set: EmbeddingSet,
    identity: Mapping[str, Any],
    provenance: Mapping[str, Any],
    stamps: Mapping[str, tuple[int, int, str | None]],
) -> None:
    """Give a set of an older version a journal, so that it is continued from here.

    Parameters
    ----------
    embedding_set : EmbeddingSet
        The set.
    identity, provenance : mapping
        What is to be computed into it from here on.
    stamps : mapping
        Size, modification time (ns) and content fingerprint of each recording, by which later
        changes are noticed.
    """
    header = {"format": FORMAT, "identity": dict(identity), "provenance": dict(provenance)}
    lines = [encode_line(header)]
    for name, entry in embedding_set.content.done.items():
        if name in stamps:
            entry.size, entry.mtime_ns, entry.fingerprint = stamps[name]
        lines.append(encode_line(entry.as_json()))
    write_bytes(embedding_set.folder / JOURNAL, b"".join(lines))
    embedding_set.reload()


def read_embeddings(
    embedding_set: EmbeddingSet, entry: FinishedEntry, *, verify: bool
) -> np.ndarray:
    """Embeddings of one recording, float32 of shape (windows, dim).

    Raises
    ------
    ResultsError
        If the file is missing or is not what the journal says.
    """
    path = embedding_set.embedding_path(entry)
    try:
        # Older versions wrote other float types, which readers of ours need not know.
        array = read_npy(path)
    except FileNotFoundError:
        raise ResultsError(
            f"{path}: these embeddings are gone; run the pipeline again to compute them anew."
        ) from None
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path}: these embeddings are damaged ({error}); {REPAIR}") from None
    if array.ndim != 2 or len(array) != entry.windows:
        raise ResultsError(
            f"{path}: holds an array of shape {array.shape}, expected {entry.windows} windows; "
            f"{REPAIR}"
        )
    expected = entry.embeddings.sha256
    if verify and expected is not None and array_hash(array) != expected:
        raise ResultsError(
            f"{path}: these embeddings have changed since they were written; {REPAIR}"
        )
    return array.astype(np.float32, copy=False)


def settings_identity(options: Options, *, asked: bool = False) -> dict[str, Any]:
    """Settings that change embeddings.

    Batch size, device, numbers of workers and the like are not among them.

    Parameters
    ----------
    options : Options
        The settings.
    asked : bool
        Leave out those that nobody has asked for.

    Returns
    -------
    dict
        ``hop`` (seconds or None), ``padding``, ``speed`` (1 without time expansion),
        ``only_annotated``, ``precision`` and ``channel``.
    """
    identity = {
        "hop": options.hop,
        "padding": options.padding,
        "speed": options.new_speed if options.bool_change_speed else 1,
        "only_annotated": options.only_embed_annotations,
        "precision": options.precision,
        "channel": options.channel,
    }
    if not asked:
        return identity
    keys = {"speed": "bool_change_speed", "only_annotated": "only_embed_annotations"}
    return {k: value for k, value in identity.items() if keys.get(k, k) in options.asked}


def settings_of(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Settings, by their keys, that lead to embeddings with a certain identity."""
    keys = {"only_annotated": "only_embed_annotations"}
    names = {"hop", "padding", "only_annotated", "precision", "channel"} & identity.keys()
    settings = {keys.get(name, name): identity[name] for name in names}
    if identity.get("speed", 1) != 1:
        settings["new_speed"] = identity["speed"]
    return {**settings, "bool_change_speed": identity.get("speed", 1) != 1}


def prediction_settings(options: Options) -> PredictionSettings:
    """Settings that change predictions, but not embeddings."""
    return settings_with(
        options.classifier_threshold, options.max_predictions_per_window, options.sensitivity
    )


def wider_settings(options: Options, stored: Sequence[PredictionSettings]) -> PredictionSettings:
    """Settings with which predictions are to be there.

    What is stored is not thrown away: it stays if it holds all that is wanted, or if nobody asks
    for anything else.

    Parameters
    ----------
    options : Options
        What is wanted.
    stored : sequence of PredictionSettings
        Those of the predictions that are there.
    """
    wanted = prediction_settings(options)
    thresholds = [item["threshold"] for item in stored if item["threshold"] is not None]
    tops = [item["top"] for item in stored if item["top"] is not None]
    if thresholds and "classifier_threshold" not in options.asked:
        wanted["threshold"] = min(thresholds)
    elif thresholds:
        wanted["threshold"] = min(*thresholds, options.classifier_threshold)
    if tops and "max_predictions_per_window" not in options.asked:
        wanted["top"] = max(tops)
    elif tops:
        wanted["top"] = max(*tops, options.max_predictions_per_window)
    sensitivities = {item.get("sensitivity", 1.0) for item in stored}
    if len(sensitivities) == 1 and "sensitivity" not in options.asked:
        return settings_with(wanted["threshold"], wanted["top"], sensitivities.pop())
    return wanted


def options_for(options: Options, model: str) -> Options:
    """Options of a call as they are for one of its models.

    What is said of windows in terms of the model's own length, is said in seconds; what a model
    does not have, it is not asked for.

    Parameters
    ----------
    options : Options
        Of the call.
    model : str
        Name of the model.

    Raises
    ------
    SettingsError
        If `overlap` is as long as the model's windows, or the length of these is not known.
    """
    card = CARDS.get(model)
    if options.overlap is not None:
        if card is None:
            raise SettingsError(
                f"overlap={options.overlap} is not possible with {model!r}, the length of whose "
                f"windows is known only to itself; expected hop, the seconds from one window to "
                f"the next."
            )
        speed = options.new_speed if options.bool_change_speed else 1
        length = card.window / card.sample_rate * speed
        if options.overlap >= length:
            raise SettingsError(
                f"overlap={options.overlap} is not possible with {model}, whose windows are "
                f"{length:g} s long; expected less than that."
            )
        options = with_changes(options, hop=round(length - options.overlap, 9), overlap=None)
    if options.sensitivity != 1 and not (card is not None and card.has_sensitivity):
        logger.warning("%s has no sensitivity; its scores stay as they are.", model)
        options = with_changes(options, sensitivity=1.0)
    return options


def hop_samples(hop: float | None, *, window: int, sample_rate: int, speed: float = 1) -> int:
    """Samples from the start of one window to the start of the next.

    Parameters
    ----------
    hop : float or None
        Seconds of the real recording; None lets windows follow one another.
    window : int
        Samples of a window.
    sample_rate : int
        Rate of the windows in Hz.
    speed : float
        Time expansion.
    """
    return window if hop is None else max(1, round(hop / speed * sample_rate))


def window_times(entry: FinishedEntry, header: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Start and end of every window of a recording.

    Parameters
    ----------
    entry : FinishedEntry
        Of the recording.
    header : mapping
        The journal's first line.

    Returns
    -------
    start, end : np.ndarray, float64, shape (windows,)
        Seconds of the real recording, time expansion undone.  The end of a padded window is
        the end of what was padded: the recording, or the annotated segment.
    """
    identity = _identity(header)
    window, rate, speed = identity["window"], identity["sample_rate"], identity["speed"]
    hop = hop_samples(identity["hop"], window=window, sample_rate=rate, speed=speed)
    # Without annotated segments the whole recording is one.
    rows = entry.segments or ((0.0, entry.duration, entry.windows),)
    segments = [Segment(start, stop) for start, stop, _ in rows]
    counts = [count for _, _, count in rows]
    starts, ends = windows.window_times(sum(counts), window, hop, rate, speed, segments, counts)
    return starts, np.minimum(ends, np.repeat([segment.stop for segment in segments], counts))


def heard_windows(entry: FinishedEntry, header: Mapping[str, Any]) -> np.ndarray:
    """Which windows of a recording hold enough of it for predictions, bool of shape (windows,).

    The last window of a recording or annotated segment is filled up; a classifier hears species
    in the filling, whatever it is, and few of those that are there (measured by
    ``benchmarks/padding.py``).  Windows of which less than `LEAST_HEARD` is real have none.
    """
    identity = _identity(header)
    full = identity["window"] / identity["sample_rate"] * identity["speed"]
    starts, ends = window_times(entry, header)
    heard: np.ndarray = ends - starts >= (LEAST_HEARD - 1e-9) * full
    return heard


def highest_frequency(header: Mapping[str, Any]) -> float:
    """Highest frequency in Hz of the real recordings that the model hears.

    Under time expansion the model hears a recording slowed down, so more than half its own
    sample rate.
    """
    identity = _identity(header)
    return float(identity["sample_rate"] / identity["speed"] / 2)


def _identity(header: Mapping[str, Any]) -> Mapping[str, Any]:
    if "identity" in header:
        identity: Mapping[str, Any] = header["identity"]
        missing = [k for k in ("window", "sample_rate", "hop", "speed") if k not in identity]
        if missing:
            raise ResultsError(
                f"These embeddings were computed elsewhere, and nothing tells {missing[0]!r} of "
                f"their windows, so the times of these are not known."
            )
        return identity
    if "recorded" in header:
        recorded: Mapping[str, Any] = header["recorded"]
        return recorded
    old = header["old_metadata"]
    return {
        "sample_rate": old["sample_rate (Hz)"],
        "window": old["segment_length (samples)"],
        "hop": None,
        "speed": 1,
    }


def metadata_of(embedding_set: EmbeddingSet, model: str, audio_dir: Path) -> dict[str, Any]:
    """What ``metadata.yml`` holds, from the journal.

    Parameters
    ----------
    embedding_set : EmbeddingSet
        The set.
    model : str
        Name of the model.
    audio_dir : Path
        Folder with the recordings.
    """
    header = embedding_set.content.header
    if "old_metadata" in header:
        return dict(header["old_metadata"])
    identity, done = header["identity"], embedding_set.content.done.sorted()
    dims: set[int] = set()
    durations: list[float] = []
    windows: list[int] = []
    padded: list[int] = []
    for entry in done.values():
        dims.add(entry.embeddings.dim)
        durations.append(entry.duration)
        windows.append(entry.windows)
        padded.append(entry.padded)
    return {
        "model_name": model,
        "audio_dir": shown(audio_dir),
        "embed_dir": str(embedding_set.folder),
        "embedding_size": next(iter(dims), 0),
        "sample_rate (Hz)": identity.get("sample_rate"),
        "segment_length (samples)": identity.get("window"),
        "nr_embeds_total": sum(windows),
        "total_dataset_length (s)": round(sum(durations), 6),
        "files": {
            "audio_files": list(done),
            "file_lengths (s)": [round(duration, 6) for duration in durations],
            "nr_embeds_per_file": windows,
            "padded_samples_of_last_window": padded,
        },
        "bacpipe": {**header.get("provenance", {}), **identity},
    }


def write_metadata(embedding_set: EmbeddingSet, model: str, audio_dir: Path) -> Path:
    """Write ``metadata.yml`` into the folder of a set."""
    path = embedding_set.folder / METADATA
    with replacing(path) as file:
        for text in _texts(metadata_of(embedding_set, model, audio_dir)):
            file.write(text.encode())
    return path


def _texts(metadata: dict[str, Any]) -> Iterator[str]:
    """The same YAML as of all at once."""
    for key, value in metadata.items():
        if key != "files" or not isinstance(value, dict):
            yield yaml_text({key: value})
            continue
        yield f"{key}:\n"
        for name, values in value.items():
            if not isinstance(values, list) or len(values) <= _AT_ONCE:
                yield _indented(yaml_text({name: values}))
                continue
            yield f"  {name}:\n"
            yield from map(_indented, _lists(values))


def _indented(text: str) -> str:
    # Only at line breaks: names may hold other characters that Python takes for some.
    return "  " + text.removesuffix("\n").replace("\n", "\n  ") + "\n"


def _lists(values: Sequence[Any]) -> Iterator[str]:
    for first in range(0, len(values), _AT_ONCE):
        yield yaml_text(values[first : first + _AT_ONCE])
