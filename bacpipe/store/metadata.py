"""``metadata.yml``: the description of a set of embeddings that other tools read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bacpipe.store.sets import EmbeddingSet
from bacpipe.store.writer import write_yaml


def metadata_of(found: EmbeddingSet, model: str, audio_dir: Path) -> dict[str, Any]:
    """What ``metadata.yml`` holds, from the journal.

    Parameters
    ----------
    found : EmbeddingSet
        The set.
    model : str
        Name of the model.
    audio_dir : Path
        Folder with the recordings.
    """
    header = found.content.header
    if "old_metadata" in header:
        return dict(header["old_metadata"])
    identity, lines = header["identity"], sorted(found.content.done.items())
    sizes = {line["embeddings"]["dim"] for _, line in lines}
    durations = [line["duration"] for _, line in lines]
    return {
        "model_name": model,
        "audio_dir": str(audio_dir),
        "embed_dir": str(found.folder),
        "embedding_size": next(iter(sizes), 0),
        "sample_rate (Hz)": identity.get("sample_rate"),
        "segment_length (samples)": identity.get("window"),
        "nr_embeds_total": sum(line["windows"] for _, line in lines),
        "total_dataset_length (s)": round(sum(durations), 6),
        "files": {
            "audio_files": [name for name, _ in lines],
            "file_lengths (s)": [round(duration, 6) for duration in durations],
            "nr_embeds_per_file": [line["windows"] for _, line in lines],
            "padded_samples_of_last_window": [line.get("padded", 0) for _, line in lines],
        },
        "bacpipe": {**header.get("provenance", {}), **identity},
    }


def write_metadata(found: EmbeddingSet, model: str, audio_dir: Path) -> Path:
    """Write ``metadata.yml`` into the folder of a set."""
    path = found.folder / "metadata.yml"
    write_yaml(path, metadata_of(found, model, audio_dir))
    return path
