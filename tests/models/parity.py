"""Fake checkpoints of the model zoo, and what the reference implementations made of them.

The published weights are gigabytes, so the tests use deterministic ones: every entry of a
checkpoint is a pure function of its key, shape and kind, drawn with numpy, and so is the test
audio.  ``tests/data/parity`` holds, for each model,

``manifest/{model}.json``
    sample rate, window, configs, and every key of the checkpoint with its shape and kind;
``golden/{model}.npz``
    what the reference computed from these weights on three windows (CPU, float32).

A wrapper that reads such a checkpoint and returns the golden numbers has the architecture, the
key mapping and the preprocessing of the reference.  `write_checkpoint` puts the files where a
user would put the real ones, each in the container of its authors.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import pathlib
import types
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn

DATA = Path(__file__).resolve().parents[1] / "data" / "parity"

MODELS: tuple[str, ...] = tuple(sorted(path.stem for path in (DATA / "manifest").glob("*.json")))

Array = NDArray[Any]


# ------------------------------------------------------------------ deterministic numbers

_UNIFORM = {
    "running_var": (0.5, 1.5),
    "norm_weight": (0.8, 1.2),
    "layer_scale": (0.1, 0.3),
    "prototype": (0.0, 1.0),
}
_NORMAL = {"running_mean": 0.1, "bias": 0.02, "position": 0.2}


def _generator(key: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(zlib.crc32(key.encode())))


def fake_tensor(key: str, shape: tuple[int, ...], kind: str, *, scale: float = 1.0) -> Array:
    """Values of one checkpoint entry, drawn in float64 and rounded once to float32."""
    count = math.prod(shape)
    if kind in _UNIFORM:
        low, high = _UNIFORM[kind]
        values = _generator(key).random(count)
        values *= high - low
        values += low
    else:
        deviation = 1 / math.sqrt(math.prod(shape[1:])) if kind == "fan_in" else _NORMAL[kind]
        values = _generator(key).standard_normal(count)
        values *= deviation
    if scale != 1.0:
        values *= scale
    return values.astype(np.float32).reshape(shape)


def fake_audio(sample_rate: int, samples: int, seed: int) -> Array:
    """Six chirps on fading noise: float32, shape (samples,), in [-1, 1].

    Only additions, multiplications and divisions of float64, so that every platform makes the
    same bits; for this the order of the operations matters.
    """
    generator = _generator(f"audio:{sample_rate}:{samples}:{seed}")
    time = np.arange(samples, dtype=np.float64) / float(sample_rate)
    duration = samples / float(sample_rate)
    draws = generator.random(64)
    signal = np.zeros(samples)
    for chirp in range(6):
        a, b, c, d, e, f = draws[6 * chirp : 6 * chirp + 6]
        if chirp < 2:
            start, end = (0.01 + 0.04 * a) * sample_rate, (0.30 + 0.15 * b) * sample_rate
        else:
            start, end = (0.01 + 0.44 * a) * sample_rate, (0.01 + 0.44 * b) * sample_rate
        centre, width = duration * (0.1 + 0.8 * c), duration * (0.10 + 0.35 * d)
        position = (time - centre) / width
        envelope = np.where((position > -1.0) & (position < 1.0), 1.0 - position * position, 0.0)
        envelope = envelope * envelope
        since = time - (centre - width)
        turns = start * since + 0.5 * (end - start) / (2.0 * width) * since * since + f
        signal = signal + (0.2 + 0.8 * e) * envelope * _sine_of_turns(turns)
    noise = np.zeros(samples)
    for octave in range(7):
        hold = 2**octave
        steps = generator.random(samples // hold + 2) * 2.0 - 1.0
        noise = noise + np.repeat(steps, hold)[:samples]
    fade = 1.0 - time / duration
    fade = fade * fade
    fade = 0.001 + 0.06 * draws[40] * fade * fade
    signal = signal + fade * noise
    level = 0.05 + 0.9 * draws[41] * draws[41]
    signal = signal * (level / np.max(np.abs(signal)))
    return signal.astype(np.float32)


def _sine_of_turns(turns: Array) -> Array:
    """sin(2 pi turns) as a Taylor polynomial: no libm, whose last bits differ by platform."""
    folded = turns - np.floor(turns) - 0.5
    folded = np.where(folded > 0.25, 0.5 - folded, np.where(folded < -0.25, -0.5 - folded, folded))
    x = folded * 6.283185307179586
    square = x * x
    series = np.zeros_like(x)
    for order in range(7, -1, -1):
        series = series * square + (-1.0) ** order / float(math.factorial(2 * order + 1))
    return -(series * x)


# ------------------------------------------------------------------ manifests and goldens


@cache
def manifest(name: str) -> dict[str, Any]:
    """What is known of a model's checkpoint."""
    loaded: dict[str, Any] = json.loads((DATA / "manifest" / f"{name}.json").read_text())
    return loaded


@cache
def golden(name: str) -> dict[str, Array]:
    """What the reference made of the fake checkpoint."""
    with np.load(DATA / "golden" / f"{name}.npz") as arrays:
        return dict(arrays)


def target(name: str) -> Array:
    """Golden embeddings: each window on its own, shape (3, dim).

    The reference feeds audiomae its spectrogram transposed; there, the orientation of the
    model's authors is the target.
    """
    arrays = golden(name)
    return arrays.get("embeddings_authors", arrays["embeddings_single"])


def windows(name: str) -> torch.Tensor:
    """The three windows behind the golden numbers, float32, shape (3, window)."""
    facts = manifest(name)
    rate, samples = facts["sample_rate"], facts["segment_samples"]
    seeds = golden(name)["seeds"]
    return torch.from_numpy(np.stack([fake_audio(rate, samples, int(seed)) for seed in seeds]))


def preprocessing_sample(name: str, preprocessed: torch.Tensor) -> tuple[Array, Array]:
    """Some values of the three preprocessed windows, ours and the reference's.

    Where the reference normalises with statistics of the whole batch, while ours belong to the
    window, the difference that this must make is taken out: a floor under the dynamic range
    is raised to the reference's, and a min-max scaling is undone up to its two numbers per window.
    """
    arrays = golden(name)
    if name == "audiomae":
        preprocessed = preprocessed.transpose(2, 3)
    assert tuple(preprocessed.shape) == tuple(arrays["preprocessed_shape"])
    index = arrays["preprocessed_index"]
    theirs = arrays["preprocessed_values"]
    ours = preprocessed.contiguous().cpu().numpy().reshape(-1)[index]
    if name in ("audioprotopnet", "convnext_birdset"):
        ours = np.maximum(ours, np.float32(arrays["preprocessed_stats"][2]))
    elif name in ("mix2", "protoclr"):
        window = index // preprocessed[0].numel()
        for i in range(len(preprocessed)):
            here = window == i
            slope, offset = np.polyfit(ours[here].astype(np.float64), theirs[here], 1)
            assert slope > 0
            ours[here] = slope * ours[here] + offset
    return ours, theirs


# ------------------------------------------------------------------ fake checkpoints


def fake_state(name: str) -> dict[str, torch.Tensor]:
    """State dict of a model as its file holds it."""
    entries: dict[str, dict[str, Any]] = manifest(name)["tensors"]
    sources = {entry.get("alias_of", key): entry for key, entry in entries.items()}
    # numpy draws without holding the interpreter.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        pending = {s: pool.submit(_fake_entry, name, s, entry) for s, entry in sources.items()}
    drawn = {source: future.result() for source, future in pending.items()}
    return {key: drawn[entry.get("alias_of", key)] for key, entry in entries.items()}


def write_checkpoint(name: str, base: Path) -> None:
    """Write the files of a model below `base`, as a user would place the published ones."""
    (base / name).mkdir(parents=True, exist_ok=True)
    _WRITERS[name](name, base)


def _fake_entry(name: str, source: str, entry: dict[str, Any]) -> torch.Tensor:
    kind, shape = entry["init"], tuple(entry["shape"])
    if kind == "computed":
        return _computed(name, source).reshape(shape)
    if kind == "zeros":
        return torch.zeros(shape, dtype=getattr(torch, entry.get("dtype", "float32")))
    return torch.from_numpy(fake_tensor(source, shape, kind, scale=entry.get("scale", 1.0)))


def _computed(name: str, key: str) -> torch.Tensor:
    """Derived constants, which checkpoints store beside the weights."""
    if key.endswith("relative_position_index"):
        row, column = (axis.reshape(-1) for axis in np.indices((8, 8)))
        rows, columns = row[:, None] - row[None], column[:, None] - column[None]
        return torch.from_numpy((rows + 7) * 15 + columns + 7)
    if key.endswith("spectrogram.window"):
        return torch.hann_window(2048)
    if key.endswith("mel_scale.fb"):
        from torchaudio.functional import melscale_fbanks

        return melscale_fbanks(1025, 400.0, 22000.0, 128, 44100)
    if key == "pos_embed":
        return torch.from_numpy(_sine_cosine_table(rows=8, columns=32, width=1280))
    raise KeyError(f"{name}: nothing is known of {key}")


def _sine_cosine_table(*, rows: int, columns: int, width: int) -> Array:
    """Fixed position embedding of masked autoencoders, with a zero row for the class token."""
    row, column = (axis.reshape(-1).astype(np.float64) for axis in np.indices((rows, columns)))
    quarter = width // 4
    frequency = 1 / 10000 ** (np.arange(quarter) / quarter)
    angles = [np.outer(place, frequency) for place in (column, row)]
    table = np.concatenate([f(angle) for angle in angles for f in (np.sin, np.cos)], axis=1)
    return np.concatenate([np.zeros((1, width)), table]).astype(np.float32)[None]


def _file(name: str, base: Path, position: int = 0) -> Path:
    path = base / manifest(name)["checkpoint_files"][position]
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2))


def _write_bare(name: str, base: Path) -> None:
    torch.save(fake_state(name), _file(name, base))


def _write_encoder(name: str, base: Path) -> None:
    torch.save({"encoder": fake_state(name)}, _file(name, base))


def _write_audiomae(name: str, base: Path) -> None:
    folders = {key: _PosixPath() for key in ("job_dir", "output_dir", "log_dir")}
    content = {
        "model": fake_state(name),
        "optimizer": {"state": {}, "param_groups": [{"lr": np.float64(2e-4)}]},
        "epoch": 59,
        "scaler": {"scale": 65536.0},
        "args": argparse.Namespace(model="vit_base_patch16", nb_classes=527, **folders),
    }
    torch.save(content, _file(name, base))


class _PosixPath:
    """Pickled as a path of the authors' machine, also where there can be none."""

    def __reduce__(self) -> tuple[object, ...]:
        return pathlib.PosixPath, ("/checkpoint", "author", "experiments")


def _write_aves(name: str, base: Path) -> None:
    torch.save(fake_state(name), _file(name, base))
    _write_json(_file(name, base, 1), manifest(name)["config"]["model_config.json"])


def _write_beats(name: str, base: Path) -> None:
    content = {
        "cfg": manifest(name)["config"]["cfg"],
        "model": fake_state(name),
        "label_dict": {0: "/m/09x0r"},
    }
    torch.save(content, _file(name, base))


def _write_naturebeats(name: str, base: Path) -> None:
    _write_beats("beats", base)
    torch.save(fake_state(name), _file(name, base, 1))


def _write_traced_insects(name: str, base: Path) -> None:
    root = _Passive()
    for key, value in fake_state(name).items():
        *path, last = key.split(".")
        owner: nn.Module = root
        for step in path:
            if step not in dict(owner.named_children()):
                owner.add_module(step, _Passive())
            owner = owner.get_submodule(step)
        owner.register_buffer(last, value)
    with warnings.catch_warnings():
        # TorchScript is deprecated, but it is what the authors published.
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.save(torch.jit.trace(root, torch.zeros(1)), str(_file(name, base)))
    settings = manifest(name)["config"]["config_insecteffnet.yaml"]
    _file(name, base, 1).write_text(yaml.safe_dump(settings))


class _Passive(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 0


def _write_lightning_insects(name: str, base: Path) -> None:
    content = {
        "epoch": 17,
        "global_step": 1,
        "pytorch-lightning_version": "2.0.0",
        "state_dict": fake_state(name),
        "hparams_name": "cfg",
        "hyper_parameters": types.SimpleNamespace(
            n_classes=459, backbone="tf_efficientnetv2_s.in21k", data_path=_PosixPath()
        ),
        "callbacks": {"ModelCheckpoint": {"best_model_score": np.float32(0.9)}},
    }
    path = _file(name, base)
    torch.save(content, path)
    settings = manifest(name)["config"]["config_insecteffnet.yaml"]
    (path.parent / "config_insecteffnet.yaml").write_text(yaml.safe_dump(settings))


def _write_hub(name: str, base: Path, config: dict[str, Any]) -> None:
    save_file(fake_state(name), base / name / "model.safetensors", metadata={"format": "pt"})
    _write_json(base / name / "config.json", config)


def _write_biolingual(name: str, base: Path) -> None:
    config = manifest(name)["config"]
    audio = {"model_type": "clap_audio_model", **config["audio_config"]}
    clap = {
        "architectures": ["ClapModel"],
        "model_type": "clap",
        "projection_dim": 512,
        "audio_config": audio,
    }
    _write_hub(name, base, clap)
    _write_json(base / name / "preprocessor_config.json", config["preprocessor_config.json"])


def _write_birdmae(name: str, base: Path) -> None:
    _write_hub(name, base, manifest(name)["config"]["config.json"])


def _write_convnext_birdset(name: str, base: Path) -> None:
    config = dict(manifest(name)["config"]["config.json"])
    codes = _made_up_codes(config.pop("num_labels"))
    config |= {
        "architectures": ["ConvNextForImageClassification"],
        "model_type": "convnext",
        "id2label": {str(i): code for i, code in enumerate(codes)},
        "label2id": {code: i for i, code in enumerate(codes)},
    }
    _write_hub(name, base, config)


def _write_audioprotopnet(name: str, base: Path) -> None:
    parts = manifest(name)["config"]
    codes = _made_up_codes(parts["head"]["num_classes"])
    config = {
        "model_type": "AudioProtoNet",
        **parts["head"],
        "backbone_config": {"model_type": "convnext", **parts["backbone_config"]},
        "id2label": {str(i): code for i, code in enumerate(codes)},
        "label2id": {code: i for i, code in enumerate(codes)},
    }
    _write_hub(name, base, config)
    _write_json(base / name / "preprocessor_config.json", parts["feature_extractor"])


def _made_up_codes(count: int) -> list[str]:
    """Codes in the manner of eBird's, of birds that do not exist."""
    return [f"fakbi{i}" for i in range(count)]


_WRITERS: dict[str, Callable[[str, Path], None]] = {
    "audiomae": _write_audiomae,
    "audioprotopnet": _write_audioprotopnet,
    "aves_especies": _write_aves,
    "avesecho_passt": _write_bare,
    "bat": _write_bare,
    "beats": _write_beats,
    "biolingual": _write_biolingual,
    "birdaves_especies": _write_aves,
    "birdmae": _write_birdmae,
    "convnext_birdset": _write_convnext_birdset,
    "insect459": _write_lightning_insects,
    "insect66": _write_traced_insects,
    "mix2": _write_encoder,
    "naturebeats": _write_naturebeats,
    "protoclr": _write_bare,
    "rcl_fs_bsed": _write_encoder,
}
