"""One set of embeddings: a model over a data set with one choice of settings.

A set is a folder with a journal.  Its identity (model, checkpoint, window, hop, padding and
what else changes results) is in the journal's first line; a run with another identity starts
a set of its own.  Whether a recording is done is decided by the journal, never by the mere
presence of a file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from bacpipe.errors import ResultsError
from bacpipe.store.journal import FORMAT, JournalContent, read_journals
from bacpipe.store.layout import stamped_folder, stamped_folders
from bacpipe.store.writer import array_hash, write_text


class EmbeddingSet:
    """A folder of embeddings and what its journal says.

    Parameters
    ----------
    folder : Path
        An existing set.

    Attributes
    ----------
    identity : dict or None
        What the embeddings were computed with; None for a set that an older version of
        bacpipe wrote, which did not record it.
    content : JournalContent
        The journal as it was when read last.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.content = JournalContent()
        self.reload()

    def reload(self) -> None:
        """Read the journal again."""
        self.content = read_journals(self.folder)
        if not self.content.header and (self.folder / "metadata.yml").is_file():
            self.content = _read_old_metadata(self.folder)
        found = self.content.header.get("format", FORMAT)
        if found > FORMAT:
            raise ResultsError(
                f"{self.folder}: written by a newer bacpipe (journal format {found}, this one "
                f"reads up to {FORMAT}); update bacpipe, or choose another main_results_dir."
            )

    @property
    def identity(self) -> dict[str, Any] | None:
        return self.content.header.get("identity")

    @property
    def state(self) -> str:
        """Hash of all embeddings; results made from them are stale when it has changed."""
        lines = sorted(
            f"{name} {line['windows']} {(line.get('embeddings') or {}).get('sha256')}"
            for name, line in self.content.done.items()
        )
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def embedding_path(self, line: Mapping[str, Any]) -> Path:
        """Path of a recording's embeddings.

        Raises
        ------
        ResultsError
            If the journal names a place outside the set.
        """
        path = self.folder / line["embeddings"]["path"]
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise ResultsError(
                f"{self.folder}: the journal names the file {line['embeddings']['path']!r}, which "
                f"lies outside this folder; the journal was tampered with."
            )
        return path


def find_set(
    parent: Path, model: str, dataset: str, identity: Mapping[str, Any] | None
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

    Returns
    -------
    EmbeddingSet or None
    """
    for folder in stamped_folders(parent, f"{model}-{dataset}"):
        candidate = EmbeddingSet(folder)
        if not candidate.content.header and not candidate.content.recordings:
            continue  # a folder without journal and metadata is not a set
        if identity is None or _fits(candidate, identity):
            return candidate
    return None


def create_set(
    parent: Path, model: str, dataset: str, identity: Mapping[str, Any], provenance: Mapping
) -> EmbeddingSet:
    """Make the folder of a new set, with the first line of its journal."""
    folder = stamped_folder(parent, f"{model}-{dataset}", datetime.now())
    header = {"format": FORMAT, "identity": dict(identity), "provenance": dict(provenance)}
    write_text(folder / "journal.jsonl", json.dumps(header, ensure_ascii=False) + "\n")
    return EmbeddingSet(folder)


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Keys of `other` in which `one` differs, as ``key=value instead of value``."""
    return [
        f"{key}={one.get(key)} instead of {other.get(key)}"
        for key in other
        if one.get(key) != other.get(key)
    ]


def _fits(candidate: EmbeddingSet, identity: Mapping[str, Any]) -> bool:
    if candidate.identity is not None:
        return not differences(candidate.identity, identity)
    # Older versions recorded only these; they had no hop and always padded by wrapping.
    old = candidate.content.header.get("old_metadata", {})
    return (
        old.get("sample_rate (Hz)") == identity.get("sample_rate", old.get("sample_rate (Hz)"))
        and old.get("segment_length (samples)")
        == identity.get("window", old.get("segment_length (samples)"))
        and identity["hop"] is None
        and identity["speed"] == 1
        and not identity["only_annotated"]
    )


def adopt_old_set(found: EmbeddingSet, identity: Mapping[str, Any], provenance: Mapping) -> None:
    """Give a set of an older version a journal, so that it is continued from here."""
    header = {"format": FORMAT, "identity": dict(identity), "provenance": dict(provenance)}
    lines = [header, *found.content.recordings.values()]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    write_text(found.folder / "journal.jsonl", text)
    found.reload()


def _read_old_metadata(folder: Path) -> JournalContent:
    """What older versions of bacpipe wrote instead of a journal, as journal lines."""
    path = folder / "metadata.yml"
    try:
        metadata = yaml.safe_load(path.read_text(encoding="utf-8"))
        files = metadata["files"]
        rows = list(
            zip(
                files["audio_files"],
                files["file_lengths (s)"],
                files["nr_embeds_per_file"],
                strict=True,
            )
        )
        model = metadata["model_name"]
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise ResultsError(
            f"{path}: cannot be read ({type(error).__name__}: {error}); expected the metadata of "
            f"embeddings that bacpipe wrote. Move the folder away to have it computed again."
        ) from error
    content = JournalContent(header={"format": FORMAT, "old_metadata": metadata})
    for name, duration, windows in rows:
        name = str(name).replace("\\", "/")
        stem = name.rsplit(".", 1)[0]
        embeddings = folder / f"{stem}_{model}.npy"
        if embeddings.is_file():
            content.recordings[name] = {
                "file": name,
                "status": "done",
                "duration": float(duration),
                "windows": int(windows),
                "adopted": True,
                "embeddings": {
                    "path": f"{stem}_{model}.npy",
                    "bytes": embeddings.stat().st_size,
                    "dim": int(metadata.get("embedding_size", 0)),
                },
            }
    return content


def read_embeddings(found: EmbeddingSet, line: Mapping[str, Any], *, verify: bool) -> np.ndarray:
    """Embeddings of one recording, float32 of shape (windows, dim).

    Raises
    ------
    ResultsError
        If the file is missing or is not what the journal says.
    """
    path = found.embedding_path(line)
    advice = "run the pipeline again to compute it anew."
    try:
        # Older versions wrote other float types, which readers of ours need not know.
        array = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise ResultsError(f"{path}: these embeddings are gone; {advice}") from None
    except (OSError, ValueError, EOFError) as error:
        raise ResultsError(f"{path}: these embeddings are damaged ({error}); {advice}") from None
    expected = line["embeddings"]
    if array.ndim != 2 or len(array) != line["windows"]:
        raise ResultsError(
            f"{path}: holds an array of shape {array.shape}, expected {line['windows']} windows; "
            f"{advice}"
        )
    if verify and "sha256" in expected and array_hash(array) != expected["sha256"]:
        raise ResultsError(
            f"{path}: these embeddings have changed since they were written; {advice}"
        )
    return array.astype(np.float32, copy=False)
