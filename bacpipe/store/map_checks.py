"""Whether maps (reduced embeddings) are complete and current."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from bacpipe.store.file_checks import why_unreadable
from bacpipe.store.layout import stamped_name
from bacpipe.store.maps import AXES
from bacpipe.yaml_files import load_yaml

_AGAIN = "run the dimensionality reduction again"

Problem = tuple[Path, str, Path | None]
"""The file, a sentence, and the map to be laid aside, if it is damaged."""


def check_maps(folders: Sequence[Path], states: Mapping[Path, str]) -> Iterator[Problem]:
    """Check maps, and whether the newest of each kind shows the embeddings as they are now.

    Parameters
    ----------
    folders : sequence of Path
        The maps.
    states : mapping of Path to str
        Hash of all embeddings of each set.
    """
    state_of = {folder.name: state for folder, state in states.items()}
    seen = set()
    for folder in sorted(folders, key=lambda path: path.name, reverse=True):
        metadata_path = folder / "metadata.yml"
        if not metadata_path.is_file():
            yield (
                folder,
                f"{folder}: is not complete, as a killed run leaves it; nothing reads it, and the "
                f"next run removes it if nothing of yours is in it.",
                None,
            )
            continue
        metadata = _metadata(metadata_path)
        if metadata is None:
            yield metadata_path, f"{metadata_path}: cannot be read; {_AGAIN}.", folder
            continue
        yield from _check_files(folder, metadata)
        kind = (stamped_name(folder.name), metadata["embeddings"], metadata.get("dimensions"))
        if (
            kind not in seen
            and state_of.get(metadata["embeddings"]) != metadata["embeddings_state"]
        ):
            yield folder, f"{folder}: its embeddings have changed since; {_AGAIN}.", None
        seen.add(kind)


def _metadata(path: Path) -> dict[str, Any] | None:
    try:
        content = load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    keys = ("embeddings", "embeddings_state")
    if not isinstance(content, dict) or not all(isinstance(content.get(k), str) for k in keys):
        return None
    return content


def _check_files(folder: Path, metadata: Mapping[str, Any]) -> Iterator[Problem]:
    tables = sorted(folder.glob("*.parquet"))
    if len(tables) != 1:
        yield folder, f"{folder}: holds {len(tables)} tables instead of one; {_AGAIN}.", folder
    for path in (*tables, folder / "reducer.safetensors"):
        reason = why_unreadable(path)
        if reason is None and path.suffix == ".parquet":
            reason = _why_not_a_map(path, metadata)
        if reason is not None:
            yield path, f"{path}: cannot be used ({reason}); {_AGAIN}.", folder


def _why_not_a_map(path: Path, metadata: Mapping[str, Any]) -> str | None:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        axes = [axis for axis in AXES if axis in file.schema_arrow.names]
        rows = file.metadata.num_rows
        if len(axes) != metadata.get("dimensions") or rows != metadata.get("nr_embeds_total"):
            return (
                f"{rows} windows in {len(axes)} dimensions, metadata.yml says "
                f"{metadata.get('nr_embeds_total')} in {metadata.get('dimensions')}"
            )
        for batch in file.iter_batches(columns=axes):
            for column in batch.columns:
                values = column.to_numpy(zero_copy_only=False)
                if not np.issubdtype(values.dtype, np.number) or not np.isfinite(values).all():
                    return "its coordinates are not numbers"
    return None
