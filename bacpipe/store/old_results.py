"""Results of older versions of bacpipe, which wrote ``metadata.yml`` and no journal.

They are read as if a journal said the same: recordings, their lengths and numbers of windows; a
recording counts as done if its file is there.  What is not recorded (hashes, times of the
recordings' files, hop and padding) is not known: such a set is continued only with the settings
that older versions always had.  A set whose journal is gone is read in the same way, with the
settings that its ``metadata.yml`` names.

Its other results are in forms that this version does not read, except for trained probes
(`bacpipe.evaluation.probes`): what they are, and how to have them anew, is said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from bacpipe.errors import ResultsError
from bacpipe.store.entries import (
    DONE,
    FinishedEntry,
    StoredEmbeddings,
    is_header,
    read_entry,
)
from bacpipe.store.journal import FORMAT, JournalContent
from bacpipe.store.layout import (
    BENCHMARK_RESULTS,
    FINDINGS,
    METADATA,
    PREDICTIONS,
    PROVENANCE,
    SOURCE,
    embeddings_name,
    is_stamped,
    path_inside,
)
from bacpipe.user_input import load_yaml

# What times of windows follow from; only this version writes all of it.
_IDENTITY = {"sample_rate", "window", "hop", "speed", "only_annotated"}


def read_old_metadata(folder: Path) -> JournalContent:
    """What a journal would say of a set that has none.

    Returns
    -------
    JournalContent
        Its header holds ``old_metadata`` and, for a set of this version whose journal is gone,
        ``recorded``: what it was computed with.

    Raises
    ------
    ResultsError
        If ``metadata.yml`` cannot be understood.
    """
    path = folder / METADATA
    try:
        path_inside(folder, path.name, what="a link")
        metadata = load_yaml(path.read_text(encoding="utf-8"))
        entries = list(_entries_in(metadata))
        rates = [metadata["sample_rate (Hz)"], metadata["segment_length (samples)"]]
        if not all(isinstance(rate, int) and 0 < rate < 2**31 for rate in rates):
            raise ValueError(f"sample rate and segment length are {rates}")
    except (
        OSError,
        yaml.YAMLError,
        LookupError,
        TypeError,
        ValueError,
        OverflowError,
        AttributeError,
    ) as error:
        raise ResultsError(
            f"{path}: cannot be read ({type(error).__name__}: {error}); expected the metadata of "
            f"embeddings that bacpipe wrote. Move the folder away to have it computed again."
        ) from error
    content = JournalContent(header={"format": FORMAT, "old_metadata": metadata})
    recorded = metadata.get("bacpipe")
    if isinstance(recorded, dict) and recorded.keys() >= _IDENTITY:
        if not is_header({"identity": recorded}) or recorded["only_annotated"]:
            raise ResultsError(
                f"{path}: the journal of these embeddings is gone, and without it their windows "
                f"are not known. Move the folder away to have it computed again."
            )
        content.header["recorded"] = recorded
    for entry in entries:
        embeddings = path_inside(folder, entry.embeddings.path, what=METADATA)
        try:
            entry.embeddings.bytes = embeddings.stat().st_size
        except OSError:
            continue  # not there, or of a name that no file can have: computed again
        content.add(entry.file, read_entry(entry.as_json()))
    shared = Counter(entry.embeddings.path for entry in content.done.values())
    for name, entry in list(content.done.items()):
        if shared[entry.embeddings.path] > 1:
            # Older versions wrote recordings that differ in their suffix to one file, and nobody
            # knows whose embeddings it holds.
            del content.recordings[name]
    return content


def _entries_in(metadata: Mapping[str, Any]) -> Iterator[FinishedEntry]:
    files, model = metadata["files"], metadata["model_name"]
    columns = ("audio_files", "file_lengths (s)", "nr_embeds_per_file")
    for name, duration, windows in zip(*(files[column] for column in columns), strict=True):
        file = str(name).replace("\\", "/")
        path = embeddings_name(file.rsplit(".", 1)[0], model)
        yield FinishedEntry(
            file,
            DONE,
            size=None,
            mtime_ns=None,
            duration=float(duration),
            windows=int(windows),
            padded=0,
            truncated=None,
            segments=None,
            segments_hash=None,
            embeddings=StoredEmbeddings(path, 0, int(metadata.get("embedding_size", 0))),
            predictions=None,
            adopted=True,
        )


def could_be(header: Mapping[str, Any], identity: Mapping[str, Any]) -> bool:
    """Whether a set without a journal may have been computed with certain settings.

    Parameters
    ----------
    header : mapping
        As `read_old_metadata` makes it.
    identity : mapping
        The settings, or the part of them that is known.
    """
    if "recorded" in header:
        recorded = {"channel": "mix", **header["recorded"]}  # which version 2.0 did not record
        return all(recorded.get(key) == value for key, value in identity.items())
    # Older versions recorded only these; they had no hop and always padded by wrapping.
    old: Mapping[str, Any] = header.get("old_metadata", {})
    rate, window = old.get("sample_rate (Hz)"), old.get("segment_length (samples)")
    known = {
        "sample_rate": rate,
        "window": window,
        "hop": None,
        "padding": "wrap",
        "speed": 1,
        "only_annotated": False,
        "precision": "float32",
        "channel": "mix",
    }
    return all(identity.get(key, value) == value for key, value in known.items())


def old_result(path: Path) -> str | None:
    """Say what a file, besides embeddings, of bacpipe 1.3 is, and how to have its content anew.

    Returns
    -------
    str or None
        What follows the name of the file or its folder in a sentence; None for files of this
        version and for anything else.
    """
    folders = [part.partition("___")[0] for part in path.parent.parts]
    suffix = path.suffix.lower()
    if suffix == ".json" and is_stamped(path.parent.name):
        return (
            "is a map that bacpipe 1.3 wrote as JSON, which this version does not read; run the "
            "dimensionality reduction again, which takes the embeddings as they are"
        )
    ours = {SOURCE, PROVENANCE, FINDINGS, BENCHMARK_RESULTS}
    if suffix == ".json" and PREDICTIONS in folders and path.name not in ours:
        return (
            "holds predictions that bacpipe 1.3 wrote as JSON, which this version does not read; "
            "run the model again, which keeps the embeddings and adds predictions"
        )
    if suffix in {".pt", ".pth"} and "probing" in folders:
        return (
            "holds a probe that bacpipe 1.3 trained; prepare_probe_inference reads it if it is a "
            "single linear layer beside its label2index.json, else train it again"
        )
    if suffix == ".npy" and {"labels", "clustering"} & {*folders}:
        return (
            "holds labels or clusters that bacpipe 1.3 wrote, which this version does not read, "
            "because they may need pickle; they are made again when they are needed"
        )
    return None


def old_results_in(folders: Iterable[Path]) -> str | None:
    """Sentence on the first of some folders in which bacpipe 1.3 left a map or predictions."""
    for folder in folders:
        for path in folder.rglob("*.json"):
            if (what := old_result(path)) is not None:
                return f"{folder} {what}."
    return None
