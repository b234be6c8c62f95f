"""``metadata.yml``: the description of a set of embeddings that other tools read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bacpipe.store.sets import EmbeddingSet
from bacpipe.store.writer import replacing, yaml_text

_AT_ONCE = 1000  # values; YAML's dumper takes half a kilobyte for each


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
    identity, done = header["identity"], found.content.done.sorted()
    dims: set[int] = set()
    durations: list[float] = []
    windows: list[int] = []
    padded: list[int] = []
    for line in done.values():
        dims.add(line["embeddings"]["dim"])
        durations.append(line["duration"])
        windows.append(line["windows"])
        padded.append(line.get("padded", 0))
    return {
        "model_name": model,
        "audio_dir": str(audio_dir),
        "embed_dir": str(found.folder),
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


def write_metadata(found: EmbeddingSet, model: str, audio_dir: Path) -> Path:
    """Write ``metadata.yml`` into the folder of a set."""
    path = found.folder / "metadata.yml"
    with replacing(path) as file:
        for text in _texts(metadata_of(found, model, audio_dir)):
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
