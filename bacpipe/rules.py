"""What every key of config.yaml and settings.yaml may hold: data, and the checks it names."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bacpipe.user_input import typed_path

Check = Callable[[Any], Any]
"""Returns the value in its normal form, or raises ValueError saying what was expected."""


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError("expected true or false")


_LARGEST = 1e15  # beyond, computing with floats and 64-bit integers overflows


def _number(
    low: float, high: float = math.inf, *, whole: bool = False, open_low: bool = False
) -> Check:
    kind = "a whole number" if whole else "a number"
    above = "above" if open_low else "from"
    span = f"{kind} {above} {low:g}" + (f" to {high:g}" if high < math.inf else "")

    def check(value: Any) -> Any:
        valid = isinstance(value, int) or (isinstance(value, float) and not whole)
        if (
            not valid
            or isinstance(value, bool)
            or not low <= value <= min(high, _LARGEST)  # false for NaN, too
            or (open_low and value == low)
        ):
            raise ValueError(f"expected {span}")
        return value

    return check


def _either(word: Any, check: Check) -> Check:
    def check_either(value: Any) -> Any:
        if value == word and type(value) is type(word):
            return value
        try:
            return check(value)
        except ValueError as error:
            name = {None: "null", False: "false"}.get(word, word)
            raise ValueError(f"{error}, or {name}") from None

    return check_either


def _choice(*allowed: Any) -> Check:
    def check(value: Any) -> Any:
        if value in allowed and not isinstance(value, bool):
            return value
        raise ValueError(f"expected one of {', '.join(map(str, allowed))}")

    return check


def _text(value: Any) -> str:
    if isinstance(value, str) and value.strip():
        return value
    raise ValueError("expected a text")


def _path(value: Any) -> str:
    if not isinstance(value, Path) and not (isinstance(value, str) and value.strip()):
        raise ValueError("expected the path of a folder, in quotes if it looks like a number")
    if re.match(r"[A-Za-z]:.*[\x00-\x1f]", str(value), re.DOTALL):
        raise ValueError(
            "expected the path of a folder (in double quotes, \\ begins a special character: "
            "leave the quotes out)"
        )
    return str(typed_path(value)) if str(value).startswith("~") else str(value)


def _folder_name(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch(r"[^/\\\0]+", value) and value not in {".", ".."}:
        return value
    raise ValueError("expected the name of a folder, without slashes")


def _list_of(check: Check) -> Check:
    def check_list(value: Any) -> list[Any]:
        # One value is accepted where a list of one is meant.
        values = list(value) if isinstance(value, list | tuple | set) else [value]
        return [check(item) for item in values]

    return check_list


def _tasks(value: Any) -> list[str]:
    if value in (None, False, "None", "none"):
        return []
    return _list_of(_choice("probing", "clustering"))(value)


def _reducer(value: Any) -> str:
    if value in (None, False, "none"):
        return "None"
    return _choice("None", "pca", "sparse_pca", "t_sne", "umap")(value)


def _device(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value):
        return value
    raise ValueError("expected one of auto, cpu, cuda, cuda:<number>, mps")


def _suffix(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch(r"\.?\w+", value):
        return "." + value.lower().lstrip(".")
    raise ValueError("expected file suffixes such as .wav")


def _mapping(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        for key, inner in value.items():
            if inner is not None and not isinstance(inner, Mapping):
                raise ValueError(f"expected parameters below {key!r}, such as 'n_neighbors: 15'")
        return {key: dict(inner or {}) for key, inner in value.items()}
    raise ValueError("expected names with parameters below them")


def _configs(known: Mapping[str, Mapping[str, Check]]) -> Check:
    """Names out of a fixed set, each with parameters that are checked one by one."""

    def check(value: Any) -> dict[str, Any]:
        configs = _mapping(value)
        for name, parameters in configs.items():
            if name not in known:
                raise ValueError(f"expected one of {', '.join(known)}")
            for key, inner in parameters.items():
                if key not in known[name]:
                    raise ValueError(
                        f"{name!r} has the parameters {', '.join(known[name])}, not {key!r}"
                    )
                try:
                    parameters[key] = known[name][key](inner)
                except ValueError as error:
                    raise ValueError(f"{error} for {key!r} of {name!r}") from None
        return configs

    return check


PADDING_MODES = (
    "wrap",
    "reflect",
    "symmetric",
    "edge",
    "constant",
    "linear_ramp",
    "maximum",
    "mean",
    "median",
    "minimum",
)

_POSITIVE = _number(1, whole=True)
_RATIO = _number(0, 0.99, open_low=True)

_PROBES: dict[str, dict[str, Check]] = {
    "linear": {
        "learning_rate": _number(0, open_low=True),
        "batch_size": _POSITIVE,
        "max_epochs": _POSITIVE,
        "patience": _POSITIVE,
        "weight_decay": _number(0),
    },
    "knn": {"n_neighbors": _POSITIVE, "metric": _choice("cosine", "euclidean")},
}

CONFIG_RULES: dict[str, Check] = {
    "audio_dir": _either(None, _path),
    "models": _list_of(_text),
    "already_computed": _boolean,
    "dim_reduction_model": _reducer,
    "evaluation_task": _tasks,
    "overwrite": _boolean,
    "dashboard": _boolean,
}

SETTINGS_RULES: dict[str, Check] = {
    "main_results_dir": _path,
    "embed_parent_dir": _folder_name,
    "dim_reduc_parent_dir": _folder_name,
    "evaluations_dir": _folder_name,
    "model_base_path": _either(None, _path),
    "device": _device,
    "precision": _choice("float32", "bfloat16"),
    "global_batch_size": _either("auto", _POSITIVE),
    "nr_parallel_workers": _either("auto", _POSITIVE),
    "avoid_pipelined_gpu_inference": _boolean,
    "testing": _boolean,
    "audio_suffixes": _list_of(_suffix),
    "padding": _choice(*PADDING_MODES),
    "hop": _either(None, _number(0, 1e6, open_low=True)),
    "allow_truncated": _boolean,
    "bool_change_speed": _boolean,
    "new_speed": _number(0, 1000, open_low=True),
    "check_if_already_processed": _boolean,
    "check_if_already_dim_reduced": _boolean,
    "rm_embedding_on_keyboard_interrupt": _boolean,
    "run_pretrained_classifier": _boolean,
    "classifier_threshold": _number(0, 1),
    "max_predictions_per_window": _POSITIVE,
    "save_raven_tables": _boolean,
    "event_gap": _either(None, _number(0)),
    "annotations_filename": _text,
    "label_column": _text,
    "only_embed_annotations": _boolean,
    "min_annotation_length": _number(0),
    "annotation_overlap": _number(0, 1),
    "default_label_keys": _list_of(
        _choice(
            "time_of_day",
            "day_of_year",
            "week_of_year",
            "continuous_timestamp",
            "parent_directory",
            "audio_file_name",
            "default_classifier",
        )
    ),
    "max_labels_per_timestamp": _POSITIVE,
    "min_label_occurrences": _POSITIVE,
    "bool_filter_labels": _boolean,
    "train_ratio": _RATIO,
    "test_ratio": _RATIO,
    "split": _choice("recording", "site", "random"),
    "evaluation_seed": _number(0, 2**32 - 1, whole=True),
    "bootstrap_samples": _number(0, 100_000, whole=True),
    "probe_configs": _configs(_PROBES),
    "save_probe": _boolean,
    "evaluate_with_silhouette": _boolean,
    "max_windows_for_pairs": _number(100, whole=True),
    "retrieval_neighbors": _POSITIVE,
    "clust_configs": _mapping,
    "visualization_dimensions": _choice(2, 3),
    "reduction_seed": _either(None, _either("auto", _number(0, 2**32 - 1, whole=True))),
    "activity_classes": _number(0, 100, whole=True),
    "nr_predictions_to_display": _POSITIVE,
    "max_nr_categories": _POSITIVE,
    "dashboard_port": _number(1, 65535, whole=True),
    "dashboard_address": _text,
    "dashboard_websocket_origin": _either(False, _text),
    "embedding_figure_height": _number(100, 5000, whole=True),
    "spectrogram_figure_height": _number(100, 5000, whole=True),
    "embedding_colour_scale": _text,
    "spectrogram_colour_scale": _text,
}
