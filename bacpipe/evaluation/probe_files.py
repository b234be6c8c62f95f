"""Trained probes on disk: ``<name>_probe.safetensors`` and ``<name>_probe.json``.

The tensors alone do not say what they are; the JSON names the probe, its parameters, the model
whose embeddings it takes and its classes.  ``label2index.json`` repeats the classes, for readers
of other programs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bacpipe.errors import ResultsError, ResultsNotFoundError
from bacpipe.evaluation.probes import Probe, make_probe
from bacpipe.store.writer import replacing, write_json

_FORMAT = 1


def save_probe(folder: Path, probe: Probe, about: Mapping[str, Any]) -> Path:
    """Save a trained probe.

    Parameters
    ----------
    folder : Path
        Where to; it is made when missing.
    probe : Probe
        The probe.
    about : mapping
        What else the JSON says: the model, the label column, the fingerprint of the data.

    Returns
    -------
    Path
        The safetensors file.
    """
    from safetensors.torch import save

    path = folder / f"{probe.kind}_probe.safetensors"
    state = {name: value.detach().cpu().contiguous() for name, value in probe.state_dict().items()}
    description = {
        "format": _FORMAT,
        "probe": probe.kind,
        "dim": probe.dim,
        "parameters": dict(probe.parameters_used),
        "classes": list(probe.classes),
        **about,
    }
    with replacing(path) as file:
        file.write(save(state, {"bacpipe": json.dumps(description)}))
    write_json(path.with_suffix(".json"), description)
    write_json(
        folder / "label2index.json", {name: number for number, name in enumerate(probe.classes)}
    )
    return path


def load_probe(path: Path) -> tuple[Probe, dict[str, Any]]:
    """Load a trained probe.

    Parameters
    ----------
    path : Path
        The safetensors file, or its JSON.

    Returns
    -------
    probe : Probe
        Exactly as it was after training.
    description : dict
        What its JSON says.

    Raises
    ------
    ResultsNotFoundError
        If there is no such probe.
    ResultsError
        If it is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    tensors, words = path.with_suffix(".safetensors"), path.with_suffix(".json")
    try:
        description = json.loads(words.read_text(encoding="utf-8"))
        state = load(tensors.read_bytes())
        # Before a probe of this size is made.
        if description["dim"] != len(state["mean"]):
            raise ValueError(f"dim is {description['dim']!r}, the tensors say {len(state['mean'])}")
        probe = make_probe(
            description["probe"],
            description["dim"],
            description["classes"],
            description["parameters"],
        )
        probe.load_state_dict(state)
    except FileNotFoundError as error:
        raise ResultsNotFoundError(
            f"{error.filename}: there is no such probe; train one with bacpipe.probing_pipeline or "
            f"evaluation_task=['probing'] (and save_probe: true)."
        ) from None
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        OverflowError,
        MemoryError,
        RuntimeError,
        SafetensorError,
    ) as error:
        raise ResultsError(
            f"{path}: this probe is damaged ({str(error).splitlines()[0]}); train it again."
        ) from None
    probe.eval()
    return probe, description
