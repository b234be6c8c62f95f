"""All options of bacpipe: their types, defaults, rules, units and help, and where they come from.

`Options` is the one list of them.  Public functions make one with `make_options`, from
``bacpipe.config``, ``bacpipe.settings`` and their keywords, and pass it on; it never changes.
``config.yaml`` and ``settings.yaml`` are written from it: ``python -m bacpipe.options``.
"""

from __future__ import annotations

import copy
import difflib
import functools
import inspect
import logging
import math
import numbers
import re
import reprlib
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import yaml
from yaml.representer import SafeRepresenter

from bacpipe.errors import SettingsError, counted, first_line
from bacpipe.old_settings import OBSOLETE, RENAMED, by_name, is_numbered, translate
from bacpipe.user_input import (
    RepeatedKeyError,
    typed_hosts,
    typed_path,
    typed_yaml,
    typed_zone,
    unset_variable,
)

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

Check = Callable[[object], _T]
"""Returns a value in its normal form, a copy; or raises ValueError saying what was expected."""

Reducer = Literal["None", "pca", "sparse_pca", "t_sne", "umap"]
Task = Literal["probing", "clustering"]
Precision = Literal["float32", "tf32", "bfloat16"]
Padding = Literal[
    "wrap", "reflect", "symmetric", "edge", "constant", "linear_ramp", "maximum", "mean", "median",
    "minimum",
]  # fmt: skip
Channel = Literal["mix", "left", "right", "loudest", "each"]
LabelKey = Literal[
    "time_of_day", "day_of_year", "week_of_year", "continuous_timestamp", "hours_after_sunrise",
    "hours_after_sunset", "hours_after_civil_dawn", "moon_illumination", "parent_directory",
    "audio_file_name", "default_classifier",
]  # fmt: skip
RangeFilter = Literal["mark", "hide", "off"]
Split = Literal["recording", "site", "random"]
LabelSource = Literal["annotations", "people", "both"]
Protocol = Literal["windows", "birdset"]
Engine = Literal["local", "dask"]
Auto = Literal["auto"]
Parameters = Mapping[str, Mapping[str, Any]]
"""Names, each with its parameters: probe_configs and clust_configs."""

# ---------------------------------------------------------------------- rules


def _boolean(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError("expected true or false")


_LARGEST = 1e15  # beyond, computing with floats and 64-bit integers overflows


def _in_range(value: object, low: float, high: float, *, open_low: bool) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    # The comparison is false for NaN, too.
    return low <= value <= min(high, _LARGEST) and not (open_low and value == low)


def _span(low: float, high: float, *, open_low: bool) -> str:
    above = "above" if open_low else "from"
    return f"{above} {low:.10g}" + (f" to {high:.10g}" if high < math.inf else "")


def _number(low: float, high: float = math.inf, *, open_low: bool = False) -> Check[float]:
    def check(value: object) -> float:
        if isinstance(value, int | float) and _in_range(value, low, high, open_low=open_low):
            return value
        raise ValueError(f"expected a number {_span(low, high, open_low=open_low)}")

    return check


def _whole(low: int, high: float = math.inf) -> Check[int]:
    def check(value: object) -> int:
        if isinstance(value, int) and _in_range(value, low, high, open_low=False):
            return value
        raise ValueError(f"expected a whole number {_span(low, high, open_low=False)}")

    return check


_Word = TypeVar("_Word")


def _either(word: _Word, check: Check[_T]) -> Check[_Word | _T]:
    def check_either(value: object) -> _Word | _T:
        if type(value) is type(word) and value == word:  # arrays compare element by element
            return word
        try:
            return check(value)
        except ValueError as error:
            name = "null" if word is None else str(word).lower()
            raise ValueError(f"{error}, or {name}") from None

    return check_either


def _choice(*allowed: _T) -> Check[_T]:
    def check(value: object) -> _T:
        if not isinstance(value, bool) and value in allowed:
            return allowed[allowed.index(value)]
        raise ValueError(f"expected one of {', '.join(map(str, allowed))}")

    return check


def _workers(value: object) -> int | Auto:
    # Version 1.3 wrote false for auto.
    return "auto" if value is False else _either(_AUTO, _POSITIVE)(value)


def _text(value: object) -> str:
    if isinstance(value, str) and value.strip():
        return value
    raise ValueError("expected a text")


def _path(value: object) -> str:
    text = _name(value)
    if (variable := unset_variable(text)) is not None:
        raise ValueError(
            f"expected a path, but the environment has no variable {variable}, and there is no "
            f"folder {Path(text).parts[0]} here; set the one or make the other"
        )
    return text


def _name(value: object) -> str:
    """A path, which may lead on from elsewhere than here."""
    if not isinstance(value, Path) and not (isinstance(value, str) and value.strip()):
        raise ValueError("expected a path, in quotes if it looks like a number")
    if re.match(r"[A-Za-z]:.*[\x00-\x1f]", str(value), re.DOTALL):
        raise ValueError(
            "expected a path (in double quotes, \\ begins a special character: leave the quotes "
            "out)"
        )
    path = typed_path(str(value))
    return str(value) if path == Path(str(value)) else str(path)


def _local_folder(value: object) -> str:
    """Where something is written."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", str(value)):
        raise ValueError(
            "expected a folder of this computer, or of a disk that is mounted on it; only "
            "recordings can be at a URL"
        )
    return _path(value)


def _places(value: object) -> str | tuple[str, ...]:
    """A folder, file, glob or table as a text, or several of them."""
    if isinstance(value, str | Path):
        return _path(value)
    return _several(_path, value, "null: a demonstration")


def _chosen(value: object) -> tuple[str, ...]:
    if isinstance(value, str | Path):
        return (_name(value),)
    return _several(_name, value, "null: all of them")


def _several(check: Check[str], value: object, otherwise: str) -> tuple[str, ...]:
    """Texts of any collection: a list, an array, a column of a table."""
    if not isinstance(value, Iterable) or isinstance(value, bytes | Mapping):
        raise ValueError(
            "expected paths of recordings or folders, globs, or tables of them (CSV), in quotes "
            "if they look like numbers"
        )
    texts = tuple(dict.fromkeys(check(item) for item in value))
    if not texts:
        raise ValueError(f"expected at least one path, not an empty list ({otherwise})")
    return texts


def _weights_folder(value: object) -> str:
    if value is not None:
        return _local_folder(value)
    from platformdirs import user_cache_dir

    return str(Path(user_cache_dir("bacpipe")) / "models")


def _zone(value: object) -> str:
    text = _text(value)
    typed_zone(text)
    return text


def _range_filter(value: object) -> RangeFilter:
    # To YAML, a plain off is false.
    return "off" if value is False else _choice(*get_args(RangeFilter))(value)


def _file_or_names(value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    return _some_of(_text)(str(value) if isinstance(value, Path) else value)


_SCHEDULERS = ("local", "slurm", "pbs", "lsf", "sge", "htcondor", "oar", "moab", "kubernetes")


def _scheduler(value: object) -> str:
    if isinstance(value, str) and (
        value in _SCHEDULERS or re.fullmatch(r"(tcp|tls|ws|wss|ucx|ucxx)://\S+", value)
    ):
        return value
    raise ValueError(
        f"expected one of {', '.join(_SCHEDULERS)}, or the address of a scheduler such as "
        f"tcp://node01:8786"
    )


def _keywords(value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ValueError("expected names with values, such as {cores: 4, memory: 16GB}")
    return copy.deepcopy(dict(value))


def _hosts(value: object) -> str:
    text = _text(value)
    typed_hosts(text)
    return text


def _folder_name(value: object) -> str:
    if isinstance(value, str) and re.fullmatch(r"[^/\\\0]+", value) and value not in {".", ".."}:
        return value
    raise ValueError("expected the name of a folder, without slashes")


def _list_of(check: Check[_T]) -> Check[tuple[_T, ...]]:
    def check_list(value: object) -> tuple[_T, ...]:
        # One value is accepted where a list of one is meant.
        values = value if isinstance(value, list | tuple | set) else [value]
        return tuple(check(item) for item in values)

    return check_list


def _some_of(check: Check[_T]) -> Check[tuple[_T, ...]]:
    def check_list(value: object) -> tuple[_T, ...]:
        values = _list_of(check)(value)
        if not values:
            raise ValueError("expected at least one")
        return values

    return check_list


def _tasks(value: object) -> tuple[Task, ...]:
    none = value is None or value is False or value in ("None", "none")
    return () if none else _list_of(_choice(*get_args(Task)))(value)


def _reducer(value: object) -> Reducer:
    none = value is None or value is False or value == "none"
    return "None" if none else _choice(*get_args(Reducer))(value)


def _device(value: object) -> str:
    if isinstance(value, str) and re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value):
        return value
    raise ValueError("expected one of auto, cpu, cuda, cuda:<number>, mps")


def _suffix(value: object) -> str:
    if isinstance(value, str) and re.fullmatch(r"\.?\w+", value):
        return "." + value.lower().lstrip(".")
    raise ValueError("expected file suffixes such as .wav")


def _parameters(value: object) -> dict[str, dict[str, Any]]:
    """Names with parameters below them, all copied."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ValueError("expected names with parameters below them")
    if is_numbered(value):  # as scripts for version 1.3 write it
        value = by_name(value)[0]
    for key, inner in value.items():
        if inner is not None and not isinstance(inner, Mapping):
            raise ValueError(f"expected parameters below {key!r}, such as 'n_neighbors: 15'")
    return {key: copy.deepcopy(dict(inner or {})) for key, inner in value.items()}


def _nearest(word: str, known: Iterable[str]) -> str:
    closest = difflib.get_close_matches(str(word).lower(), list(known), n=1, cutoff=0.5)
    return f" (did you mean {closest[0]!r}?)" if closest else ""


_FALSE: Literal[False] = False
_AUTO: Auto = "auto"
_POSITIVE = _whole(1)
_RATIO = _number(0, 0.99, open_low=True)
_SEED = _whole(0, 2**32 - 1)
_PIXELS = _whole(100, 5000)

_PROBES: Mapping[str, Mapping[str, Check[object]]] = {
    "linear": {
        "solver": _choice("lbfgs", "adam"),
        "class_weight": _choice("balanced", "none"),
        "penalty": _either("auto", _number(0)),
        "learning_rate": _number(0, open_low=True),
        "batch_size": _POSITIVE,
        "max_epochs": _POSITIVE,
        "patience": _POSITIVE,
        "weight_decay": _number(0),
    },
    "knn": {"n_neighbors": _POSITIVE, "metric": _choice("cosine", "euclidean")},
}


def _splits(value: object) -> str:
    words = re.fullmatch(r"\s*(\d{1,3})\s*(?:[x×]\s*(\d{1,4}))?\s*", str(value))
    k, r = (int(word) for word in words.groups(default="1")) if words else (0, 0)
    if isinstance(value, bool) or not (str(value).strip() == "1" or (k >= 3 and r >= 1)):
        raise ValueError("expected 1, or k x r with k from 3 and r from 1, such as 5 x 4")
    return "1" if k == 1 else f"{k} x {r}"


def _label_map(value: object) -> str | Mapping[str, str] | None:
    if value is None or (isinstance(value, Path) or (isinstance(value, str) and value.strip())):
        return None if value is None else str(value)
    if isinstance(value, Mapping) and all(
        isinstance(text, str) and text.strip() for pair in value.items() for text in pair
    ):
        return dict(value)
    raise ValueError("expected null, the path of a CSV, or names with a name of the model each")


def _probes(value: object) -> Parameters:
    configs = _parameters(value)
    for name, parameters in configs.items():
        if name not in _PROBES:
            expected = f"expected one of {', '.join(_PROBES)}"
            raise ValueError(f"{expected}, not {name!r}{_nearest(name, _PROBES)}")
        known = _PROBES[name]
        for key, inner in parameters.items():
            if key not in known:
                raise ValueError(
                    f"{name!r} has the parameters {', '.join(known)}, not {key!r}"
                    f"{_nearest(key, known)}"
                )
            try:
                parameters[key] = known[key](inner)
            except ValueError as error:
                raise ValueError(f"{error} for {key!r} of {name!r}, not {_show(inner)}") from None
    return configs


_CLUSTERINGS: Parameters = {
    "kmeans": {"n_clusters": None, "n_init": 3},
    "hdbscan": {"min_cluster_size": 5, "min_samples": 2},
}


def _clusterings(value: object) -> Parameters:
    configs = _parameters(value)
    for name, parameters in configs.items():
        # Loading scikit-learn takes a second, which those of the defaults need not wait for.
        if name not in _CLUSTERINGS or not parameters.items() <= _CLUSTERINGS[name].items():
            check_clustering(name, parameters)
    return configs


def check_clustering(name: str, parameters: Mapping[str, Any]) -> tuple[type, Sequence[str]]:
    """Class that a name of clust_configs means, and all parameters that it has.

    Raises
    ------
    ValueError
        If there is no such class, it lacks a parameter, naming the closest, or a value is
        impossible.
    """
    import sklearn.cluster

    classes: dict[str, type] = {
        cls.lower(): getattr(sklearn.cluster, cls)
        for cls in sklearn.cluster.__all__
        # Of those that put features together, it is there, but not to be used.
        if hasattr(getattr(sklearn.cluster, cls), "fit_predict") and cls != "FeatureAgglomeration"
    }
    plain = re.sub("[-_ ]", "", name.lower())
    if plain not in classes:
        raise ValueError(
            f"there is no clustering {name!r}; {_instead(plain, classes, 'there are')}"
        )
    known = tuple(inspect.signature(classes[plain]).parameters)
    for key in parameters:
        if key not in known:
            raise ValueError(f"{name!r} has no parameter {key!r}; {_instead(key, known, 'it has')}")
    given = {key: value for key, value in parameters.items() if value is not None}
    # scikit-learn's own check, which is private; without it, fitting finds the same.
    check = getattr(classes[plain](**given), "_validate_params", None)
    if check is not None:
        try:
            check()
        except (ValueError, TypeError) as error:
            raise ValueError(f"{name!r}: {first_line(error)}") from None
    return classes[plain], known


def _instead(word: str, known: Iterable[str], having: str) -> str:
    closest = difflib.get_close_matches(str(word), list(known), n=1)
    return f"did you mean {closest[0]!r}?" if closest else f"{having} {', '.join(known)}."


# ---------------------------------------------------------------------- the options


def _option(
    default: object, rule: Check[_T], help: str, *, unit: str = "", section: str = ""
) -> _T:
    """Field of `Options`.

    Parameters
    ----------
    default : object
        As config.yaml or settings.yaml has it; what passes the rule is the field's default.
    rule : callable
        Checks a value and brings it into its normal form.
    help : str
        What the option is for, and what it may hold where the rule does not say it well enough;
        the comment in the YAML file.
    unit : str
        Of a number.
    section : str
        Heading in the YAML file above this option and those that follow.
    """
    about = {"default": default, "rule": rule, "help": help, "unit": unit, "section": section}
    return field(default_factory=lambda: rule(default), metadata=about)


class _Asked:
    """Remembers which options somebody has chosen; no option itself."""

    __slots__ = ("asked",)
    asked: frozenset[str]

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[type, dict[str, Any], frozenset[str]]]:
        return _restored, (type(self), {key: getattr(self, key) for key in _FIELDS}, self.asked)


def _restored(kind: type[_Asked], values: Mapping[str, Any], asked: frozenset[str]) -> _Asked:
    options = kind(**values)
    object.__setattr__(options, "asked", asked)
    return options


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(_Asked):
    """All options of a call: those of ``config.yaml``, then those of ``settings.yaml``.

    Never changes, and shares nothing with what it was made from.

    Attributes
    ----------
    asked : frozenset of str
        Options that the user has chosen, be it by a keyword that repeats the default: what
        nobody asked for does not change results that are there.

    Raises
    ------
    SettingsError
        If a value is impossible, or values contradict each other.

    Examples
    --------
    >>> from bacpipe.options import Options
    >>> Options(hop=1).hop, Options().padding
    (1, 'wrap')
    """

    # One paragraph for each option.
    # fmt: off
    audio_dir: str | tuple[str, ...] | None = _option(
        None, _either(None, _places),
        "Folder with recordings; sub-folders are searched too. Also: one recording, a glob such as "
        "/data/site*/2024*.wav, a table of files (CSV), or a list of these, whose common folder is "
        "then the data set; and the URL of any (s3://, gs://, https://, sftp://; extra remote).\n"
        "null: bacpipe makes a small synthetic data set in ./bacpipe_demo and uses that.",
    )
    recordings: tuple[str, ...] | None = _option(
        None, _either(None, _chosen),
        "Which recordings of audio_dir a run works on: paths of recordings or folders, relative to "
        "audio_dir, globs such as '*_0500*.wav', tables of them (CSV), or a list of these. Results "
        "of other recordings stay, and tables hold them all. null: every recording.",
    )
    moved_from: str | None = _option(
        None, _either(None, _name),
        "Where audio_dir was before it was moved or renamed: its results go on, and nothing is "
        "computed again. Needed only where bacpipe does not notice by itself that most of the "
        "recordings are the same. null: it was not.",
    )
    models: tuple[str, ...] = _option(
        ["birdnet"], _list_of(_text),
        'Models to run, by name. python -c "import bacpipe; print(bacpipe.models)" lists them.\n'
        "Allowed: one name or a list.",
    )
    already_computed: bool = _option(
        False, _boolean,
        "true: ignore `models` and use every model that already has embeddings of this audio_dir.",
    )
    dim_reduction_model: Reducer = _option(
        "None", _reducer,
        "Map of the embeddings in two or three dimensions.\n"
        "Allowed: None, pca, sparse_pca, t_sne, umap",
    )
    evaluation_task: tuple[Task, ...] = _option(
        [], _tasks,
        "What to evaluate against annotations.csv. Allowed: an empty list, probing, clustering",
    )
    overwrite: bool = _option(
        False, _boolean, "true: compute labels and evaluations again even if they are there.",
    )
    dashboard: bool = _option(
        False, _boolean,
        "true: open the dashboard in the browser when the run is done. It is served until Ctrl-C.",
    )

    main_results_dir: str = _option(
        "bacpipe_results", _local_folder,
        "Folder that receives all results (created when missing).", section="where things are",
    )
    embed_parent_dir: str = _option(
        "embeddings", _folder_name,
        "Name of the folder with embeddings in <main_results_dir>/<dataset>.",
    )
    dim_reduc_parent_dir: str = _option(
        "dim_reduced_embeddings", _folder_name,
        "Name of the folder with maps in <main_results_dir>/<dataset>.",
    )
    evaluations_dir: str = _option(
        "evaluations", _folder_name,
        "Name of the folder with labels, predictions and evaluations in "
        "<main_results_dir>/<dataset>.",
    )
    model_base_path: str = _option(
        None, _weights_folder,
        "Folder with the models' weights. null: a cache folder of the user.",
    )

    device: str = _option(
        "auto", _device,
        "Where models compute. Allowed: auto (cuda, then mps, then cpu), cpu, cuda, "
        "cuda:<number>, mps", section="computing",
    )
    precision: Precision = _option(
        "float32", _choice(*get_args(Precision)),
        "What networks of PyTorch compute with; each starts embeddings of its own. tf32 is for "
        "NVIDIA GPUs: faster convolutions with fewer digits, which changes embeddings by 0.1 to "
        "0.5 %. bfloat16 is faster on GPUs and processors (Intel's AMX, AVX-512 BF16) made for it, "
        "and changes them by about 1 % (BirdNET's by 2 %); on other processors float32 is used. "
        "Allowed: float32, tf32, bfloat16",
    )
    global_batch_size: int | Auto = _option(
        "auto", _either("auto", _POSITIVE),
        "Windows per batch. Allowed: auto, or a whole number from 1.", unit="windows",
    )
    nr_parallel_workers: int | Auto = _option(
        "auto", _workers,
        "Threads that decode recordings. Allowed: auto, or a whole number from 1.", unit="threads",
    )
    engine: Engine = _option(
        "local", _choice(*get_args(Engine)),
        "Where the recordings are worked on: local: in this process; dask: in shards, by the "
        "workers of Dask (needs the extra cluster), on this computer or many that share a disk. "
        "Allowed: local, dask",
    )
    scheduler: str = _option(
        "local", _scheduler,
        "Which workers engine=dask has: local starts them on this computer, one for each GPU or "
        "core; slurm, pbs, lsf, sge, htcondor, oar and moab let dask-jobqueue start them as jobs; "
        "kubernetes needs dask-kubernetes; or the address of a scheduler that runs already, such "
        "as tcp://node01:8786.",
    )
    cluster_settings: Mapping[str, Any] = _option(
        {}, _keywords,
        "Keywords of the cluster that scheduler starts, such as "
        "{n_workers: 20, cores: 4, memory: 16GB, walltime: '04:00:00'} for slurm, as the pages of "
        "dask-jobqueue and dask.distributed have them.",
    )
    hours_per_shard: float = _option(
        10, _number(0, open_low=True),
        "Sound in each shard, about, into which bacpipe shards plan and engine=dask part a data "
        "set. Above 0.", unit="hours",
    )
    avoid_pipelined_gpu_inference: bool = _option(
        False, _boolean,
        "true: decode, then compute, one after the other. Slower; for debugging.",
    )
    testing: bool = _option(
        False, _boolean,
        "true: a trial run of the first three recordings; results go to "
        "<main_results_dir>_testing.",
    )

    strict: bool = _option(
        False, _boolean,
        "true: a run in which a recording failed ends with an error when all else is done, and "
        "the command with exit code 3.",
    )

    audio_suffixes: tuple[str, ...] = _option(
        [".wav", ".flac", ".ogg", ".mp3", ".aif", ".aiff"], _some_of(_suffix),
        "Files with these suffixes are recordings; upper and lower case are the same.",
        section="audio",
    )
    padding: Padding = _option(
        "wrap", _choice(*get_args(Padding)),
        "How the last window of a recording is filled up when it is too short. If less than half "
        "of it is sound, it has embeddings, but no predictions.\n"
        "Allowed: wrap, reflect, symmetric, edge, constant (silence), linear_ramp, maximum, mean, "
        "median, minimum (the modes of numpy.pad)",
    )
    channel: Channel = _option(
        "mix", _choice(*get_args(Channel)),
        "What becomes of recordings with several channels. Allowed: mix (their mean), left (the "
        "first), right (the second), loudest (the one with most power, found from eight seconds "
        "spread over the recording), each (every channel has windows, embeddings and predictions "
        "of its own; tables have a column channel)",
    )
    hop: float | None = _option(
        None, _either(None, _number(0, 1e6, open_low=True)),
        "Seconds from the start of one window to the start of the next. Allowed: null (windows "
        "follow one another without overlap), or a number above 0.", unit="s",
    )
    overlap: float | None = _option(
        None, _either(None, _number(0, 1e6)),
        "Seconds that a window shares with the next, another way to say hop: the length of the "
        "model's window less this. Allowed: null (hop decides), or a number from 0, less than the "
        "window.", unit="s",
    )
    allow_truncated: bool = _option(
        False, _boolean,
        "What to do with a recording that ends before its header says. false: report it as failed; "
        "true: use the readable part.",
    )
    bool_change_speed: bool = _option(
        False, _boolean,
        "Time expansion. true: recordings are treated as if played at new_speed times their speed, "
        "which brings ultrasound into the range of models for audible sound. Times in all results "
        "stay those of the real recording.",
    )
    new_speed: float = _option(
        0.1, _number(0, 1000, open_low=True),
        "Speed at which recordings are played. Allowed: a number above 0; 0.1 is ten times slower.",
        unit="times the real speed",
    )

    check_if_already_processed: bool = _option(
        True, _boolean,
        "true: recordings that are done with the same settings are not computed again.",
        section="resuming",
    )
    check_if_already_dim_reduced: bool = _option(
        True, _boolean,
        "true: maps of the same embeddings with the same settings are not computed again.",
    )
    rm_embedding_on_keyboard_interrupt: bool = _option(
        False, _boolean,
        "true: Ctrl-C deletes what the interrupted run wrote; false: it stays and can be resumed.",
    )

    run_pretrained_classifier: bool = _option(
        True, _boolean,
        "true: also store the predictions of models that have a classifier.",
        section="integrated classifiers",
    )
    classifier_threshold: float = _option(
        0.5, _number(0, 1),
        "Predictions with a lower score are not stored (but for the best five of each recording\n"
        "and class, which are no detections, for calibrations). Allowed: 0 to 1.", unit="score",
    )
    sensitivity: float = _option(
        1.0, _number(0.5, 1.5),
        "Of BirdNET v2.4, as BirdNET-Analyzer has it since its version 2: above 1, all its scores "
        "are higher, below 1 lower (by 10 times the difference, before the sigmoid); other models "
        "have none. Another value makes the predictions anew from stored embeddings. Allowed: 0.5 "
        "to 1.5; 1 are the model's own scores.",
    )
    max_predictions_per_window: int = _option(
        20, _POSITIVE,
        "At most so many predictions are stored per window, those with the highest scores.\n"
        "Allowed: a whole number from 1.", unit="predictions",
    )
    save_raven_tables: bool = _option(False, _boolean, "true: also write Raven selection tables.")
    escape_formulas: bool = _option(
        False, _boolean,
        "true: texts in tables of predictions and labels (CSV) that a spreadsheet would take for "
        "formulas, such as =1+1, get an apostrophe in front of them, which bacpipe takes off when "
        "it reads them.",
    )
    excel_bom: bool = _option(
        False, _boolean,
        "true: tables of detections (CSV) begin with a byte order mark, by which Excel knows that "
        "they are UTF-8; R and Python need none.",
    )
    event_gap: float | None = _option(
        None, _either(None, _number(0)),
        "Detections of one class that are at most so many seconds apart become one event in Raven "
        "tables, Audacity labels and the like. Allowed: null (a row per window), or a number from "
        "0 (joins neighbouring windows).", unit="s",
    )

    sites: str | None = _option(
        None, _either(None, _path),
        "Table of where recorders stood, with the columns site (a folder, a pattern such as A/*, "
        "or a recording), latitude and longitude, if need be time_zone, start and end; `bacpipe "
        "sites audio_dir=...` writes a draft. null: sites.csv in audio_dir, if there is one. "
        "Allowed: the path of a table (CSV), or null",
        section="where and when",
    )
    latitude: float | None = _option(
        None, _either(None, _number(-90, 90)),
        "Latitude of all recordings (WGS 84), north positive, where there is one place only. It "
        "decides with longitude which species can be there.", unit="degrees",
    )
    longitude: float | None = _option(
        None, _either(None, _number(-180, 180)),
        "Longitude of all recordings (WGS 84), east positive.", unit="degrees",
    )
    time_zone: str | None = _option(
        None, _either(None, _zone),
        "Time zone of the recorders' clocks, where neither a recording nor the table of sites "
        "tells it. Allowed: null (that of the position, if it is known), a name such as "
        "Europe/Berlin, or an offset such as UTC+1.",
    )
    range_filter: RangeFilter = _option(
        "mark", _range_filter,
        "What becomes of detections of species that BirdNET's range model does not expect at the "
        "place and in the season of a recording. It acts when results are read: nothing is "
        "computed again or deleted.\n"
        "Allowed: mark (tables say how probable each is), hide (they are left out), off",
    )
    range_threshold: float = _option(
        0.03, _number(0, 1),
        "Species that are less probable than this are not expected. Allowed: 0 to 1.",
        unit="probability",
    )
    species_list: tuple[str, ...] | None = _option(
        None, _file_or_names,
        "Only these species are read from the results: common or scientific names, or a text file "
        "with one a line. Allowed: null (all), a list, or the path of a file.",
    )

    annotations_filename: str = _option(
        "annotations.csv", _text,
        "Table of annotations in audio_dir, with the columns audiofilename, start, end (seconds) "
        "and one or more label:<kind> columns.", section="annotations and labels",
    )
    label_column: str = _option(
        "species", _text,
        "Column of annotations that evaluations use; with or without the prefix 'label:'.",
    )
    labels_from: LabelSource = _option(
        "annotations", _choice("annotations", "people", "both"),
        "Where evaluations and recognisers take their labels from: the table of annotations, the "
        "labels that people gave with bacpipe.label_windows, or both. Recognisers take the labels "
        "of people, if there are any, unless this is set.",
    )
    recogniser: str | None = _option(
        None, _either(None, _text),
        "Recogniser to apply after the models have run: its name, or the path of its folder. Its "
        "model is run, too.",
    )
    only_embed_annotations: bool = _option(
        False, _boolean, "true: embed only the annotated parts of the recordings.",
    )
    min_annotation_length: float = _option(
        0.0, _number(0), "Shorter annotations are ignored. Seconds, from 0.", unit="s",
    )
    annotation_overlap: float = _option(
        0.5, _number(0, 1),
        "An annotation labels a window if they share at least this part of the shorter of the two: "
        "0.5 gives a short call to the window that holds most of it, and a long annotation to the "
        "windows that it covers for the most part. Allowed: 0 (touching is enough) to 1.",
    )
    default_label_keys: tuple[LabelKey, ...] = _option(
        list(get_args(LabelKey)), _list_of(_choice(*get_args(LabelKey))),
        "Labels made without annotations. Allowed: time_of_day, day_of_year, week_of_year, "
        "continuous_timestamp, hours_after_sunrise, hours_after_sunset, hours_after_civil_dawn, "
        "moon_illumination, parent_directory, audio_file_name, default_classifier",
    )
    label_map: str | Mapping[str, str] | None = _option(
        None, _label_map,
        "For benchmarks: which class of the model each annotated name means. A CSV with two "
        "columns, the annotated name and the class, with any headings; or the pairs themselves. "
        "Names that are not in it are found as usual. A relative path is one in audio_dir.",
    )
    event_iou: float = _option(
        0.5, _number(0, 1, open_low=True),
        "Benchmarks: events and annotations are pairs from this intersection over union on.",
    )
    event_tolerance: float = _option(
        0.2, _number(0),
        "Benchmarks: events and annotations are also paired by their beginnings, which may be so "
        "far apart. Seconds, from 0.", unit="s",
    )
    protocol: Protocol = _option(
        "windows", _choice(*get_args(Protocol)),
        "What benchmarks count. windows: those of the model. birdset: segments of 5 seconds, as "
        "the benchmark BirdSet does (cmAP, AUROC, top-1 accuracy).\n"
        "Allowed: windows, birdset",
    )
    max_labels_per_timestamp: int = _option(
        10, _POSITIVE,
        "At most so many labels for one window when several labels are allowed. From 1.",
        unit="labels",
    )
    min_label_occurrences: int = _option(
        10, _POSITIVE,
        "Annotated windows that a label needs if bool_filter_labels is true. From 1.",
        unit="windows",
    )
    bool_filter_labels: bool = _option(
        False, _boolean,
        "true: labels with fewer annotated windows than min_label_occurrences are left out.",
    )
    multi_label: bool = _option(
        False, _boolean,
        "true: evaluations let a window have several labels, or none, and everything in an "
        "annotated recording counts; false: the label that covers most of it.",
    )
    background_class: bool = _option(
        False, _boolean,
        "true: probes learn one more class, 'other': the windows of annotated recordings in which "
        "nothing is annotated. With multi_label there is no need.",
    )

    train_ratio: float = _option(
        0.65, _RATIO, "Share of the labelled windows for training. Above 0, below 1.",
        section="evaluation",
    )
    test_ratio: float = _option(
        0.2, _RATIO,
        "Share of the labelled windows for testing; what both leave validates. Above 0, below 1.",
    )
    split: Split = _option(
        "recording", _choice(*get_args(Split)),
        "What is never divided between training, validation and testing. Windows of one recording "
        "resemble each other, so dividing it makes results look better than they are.\n"
        "Allowed: recording, site (all recordings of a site of the table of sites, else of a "
        "folder), random (single windows are divided)",
    )
    evaluation_seed: int = _option(
        42, _SEED,
        "Seed of everything random in evaluations: two runs agree. A whole number from 0.",
    )
    bootstrap_samples: int = _option(
        1000, _whole(0, 100_000),
        "For 95 % confidence intervals, each recording (or site) is left out once; of more "
        "recordings than this, an equal part of them each time. A whole number; 0: no intervals.",
        unit="parts",
    )
    probe_configs: Parameters = _option(
        {
            "linear": {
                "solver": "lbfgs", "class_weight": "balanced", "penalty": "auto",
                "learning_rate": 0.001, "batch_size": 256, "max_epochs": 100, "patience": 5,
                "weight_decay": 0.0001,
            },
            "knn": {"n_neighbors": 15, "metric": "cosine"},
        },
        _probes,
        "Probes to train, by name, each with its parameters; those left out have these values.\n"
        "linear: solver (lbfgs: all windows at once; adam: batch by batch), class_weight "
        "(balanced: rare classes count as much as frequent ones; none), penalty (auto: the best on "
        "the validation windows; or a number from 0); read by adam only: learning_rate (above 0), "
        "batch_size (windows), max_epochs, patience (epochs without progress on the validation "
        "windows until it stops), weight_decay (from 0)\n"
        "knn: n_neighbors, metric (cosine, euclidean)",
    )
    splits: str = _option(
        "1", _splits,
        "1: one division into training, validation and testing. k x r (5 x 4): the recordings are "
        "also divided into k parts, r times, each part is tested once, and the scores vary as the "
        "division and the training do. k from 3, r from 1.",
    )
    train_on_everything: bool = _option(
        False, _boolean,
        "true: probes learn from all labelled windows, so that nothing is left to test them.",
    )
    learning_curve: bool = _option(
        True, _boolean,
        "true: train probes with fewer labels, too, to see whether more of them would help.",
    )
    wanted_precision: float = _option(
        0.9, _number(0, 1),
        "For each class, results name the lowest threshold that has this precision. 0 to 1.",
    )
    save_probe: bool = _option(True, _boolean, "true: save trained probes.")
    evaluate_with_silhouette: bool = _option(
        True, _boolean, "true: add the silhouette score to clustering results.",
    )
    max_windows_for_pairs: int = _option(
        20_000, _whole(100),
        "The silhouette score and retrieval compare every window with every other one; of more "
        "windows than this, a random sample is used. A whole number from 100.", unit="windows",
    )
    retrieval_neighbors: int = _option(
        10, _POSITIVE,
        "Neighbours of a window whose labels are compared with its own (retrieval). From 1.",
        unit="windows",
    )
    clust_configs: Parameters = _option(
        _CLUSTERINGS, _clusterings,
        "Clusterings to compute, by name, each with its parameters: kmeans, hdbscan or any class "
        "of sklearn.cluster (agglomerative_clustering, ...). n_clusters null: as many as there "
        "are labels.",
    )

    visualization_dimensions: int = _option(
        2, _choice(2, 3), "Dimensions of the map. Allowed: 2, 3", section="maps of the embeddings",
    )
    reduction_seed: int | Auto | None = _option(
        "auto", _either(None, _either("auto", _SEED)),
        "Seed of maps: two runs agree. A seed keeps UMAP from using more than one core, so auto "
        "sets one only for up to 10 000 windows. Allowed: auto, null (no seed), or a whole number "
        "from 0.",
    )

    activity_classes: int = _option(
        6, _whole(0, 100),
        "Classes in the figure of activity over time (plots/activity.png), the most frequent ones. "
        "Allowed: 0 (no figure) to 100", unit="classes", section="dashboard and figures",
    )
    nr_predictions_to_display: int = _option(
        10, _POSITIVE,
        "Classes listed for a selected window of the dashboard. From 1.", unit="classes",
    )
    max_nr_categories: int = _option(
        30, _POSITIVE,
        "Labels with more categories than this are shown without a legend. From 1.",
        unit="categories",
    )
    dashboard_port: int = _option(
        5006, _whole(1, 65535), "Port to listen on; the next free one when it is in use.",
    )
    dashboard_address: str = _option(
        "localhost", _text,
        "Address to listen on. localhost: reachable from this machine only; 0.0.0.0: from all.",
    )
    dashboard_websocket_origin: str | Literal[False] = _option(
        False, _either(_FALSE, _hosts),
        "Other hosts under which the dashboard may be opened, such as myserver:5006, "
        "https://bio.example.org or *.example.org, with commas between several. false: none.",
    )
    edit: bool | None = _option(
        None, _either(None, _boolean),
        "Whether visitors of the dashboard may label sounds and train recognisers. null: only "
        "where it can be reached from this machine alone. Allowed: true, false, null",
    )
    embedding_figure_height: int = _option(
        500, _PIXELS,
        "Least height in pixels of the map in Explore, which fills the window of the browser.",
        unit="pixels",
    )
    spectrogram_figure_height: int = _option(
        300, _PIXELS, "Height of spectrograms in pixels.", unit="pixels"
    )
    embedding_colour_scale: str = _option(
        "viridis", _text, "Colour scale of maps, by its matplotlib name.",
    )
    spectrogram_colour_scale: str = _option(
        "magma", _text, "Colour scale of spectrograms, by its matplotlib name.",
    )
    # fmt: on

    def __post_init__(self) -> None:
        object.__setattr__(self, "asked", frozenset())
        for key in _FIELDS:
            value = check_value(key, getattr(self, key), _FIELDS, where="the arguments")
            object.__setattr__(self, key, value)
        if (self.latitude is None) != (self.longitude is None):
            given, lacking = sorted(
                ("latitude", "longitude"), key=lambda k: getattr(self, k) is None
            )
            raise SettingsError(
                f"{given}={getattr(self, given)} is only half of a position; give {lacking}, too."
            )
        if self.hop is not None and self.overlap is not None:
            raise SettingsError(
                f"hop={self.hop} and overlap={self.overlap} say the same in two ways; expected one."
            )
        if self.train_ratio + self.test_ratio >= 1:
            raise SettingsError(
                f"train_ratio={self.train_ratio} and test_ratio={self.test_ratio} leave nothing "
                f"to validate with; their sum must be below 1."
            )


_FIELDS: Mapping[str, Field[Any]] = {item.name: item for item in fields(Options)}
_NAMES = tuple(_FIELDS)
_FIRST_SETTING = _NAMES.index("main_results_dir")

KEYS: Mapping[str, tuple[str, ...]] = {
    "config": _NAMES[:_FIRST_SETTING],
    "settings": _NAMES[_FIRST_SETTING:],
}
"""Options in ``config.yaml`` and in ``settings.yaml``, in the order of these files."""


def make_options(**overrides: object) -> Options:
    """Options of one call: ``bacpipe.config``, ``bacpipe.settings`` and keywords, which win.

    Raises
    ------
    SettingsError
        If a keyword is unknown, a value impossible, or values contradict each other.
    """
    for key in overrides:
        if key not in _FIELDS:
            raise SettingsError(_unknown_key(key, _FIELDS, where="bacpipe"))
    options = Options(**{**vars(user_config()), **vars(user_settings()), **overrides})
    defaults = _defaults()
    changed = {key for key in _FIELDS if getattr(options, key) != getattr(defaults, key)}
    object.__setattr__(options, "asked", frozenset({*overrides, *changed}))
    return options


def needed_to_read(options: Options) -> dict[str, object]:
    """Options without which other results would be found, or none.

    Those that are the same in the shipped files and in the user's own need not be named.
    """
    usual, shipped = {**vars(user_config()), **vars(user_settings())}, _defaults()
    keys = (
        *("main_results_dir", "embed_parent_dir", "dim_reduc_parent_dir", "evaluations_dir"),
        *("testing", "hop", "overlap", "padding", "bool_change_speed", "new_speed"),
        *("only_embed_annotations", "precision", "channel"),
    )
    values = {key: getattr(options, key) for key in keys}
    return {k: v for k, v in values.items() if v != usual[k] or v != getattr(shipped, k)}


def with_changes(options: Options, **changes: object) -> Options:
    """Options of which some are replaced, which counts as asked for."""
    changed = Options(**{**{key: getattr(options, key) for key in _FIELDS}, **changes})
    object.__setattr__(changed, "asked", options.asked | changes.keys())
    return changed


@functools.cache
def _defaults() -> Options:
    return Options()


# ---------------------------------------------------------------------- checks


def normal_value(key: str, value: object) -> Any:  # noqa: ANN401 - every option has a type of its own
    """Value of an option in its normal form; a ValueError says what was expected."""
    return _FIELDS[key].metadata["rule"](value)


def check_value(key: str, value: object, known: Iterable[str], *, where: str) -> Any:  # noqa: ANN401 - every option has a type of its own
    """Value of an option in its normal form, a copy.

    Raises
    ------
    SettingsError
        If the key is not one of those known, or the value is impossible.
    """
    if key not in known:
        raise SettingsError(_unknown_key(key, known, where=where))
    if isinstance(value, numbers.Number) and hasattr(value, "item"):
        value = value.item()  # a number of NumPy, such as a score of a table
    try:
        return normal_value(key, value)
    except ValueError as error:
        sentence = str(error) + ("" if str(error).endswith((".", "?")) else ".")
        hint = _meant(key, value) or _closest_word(key, value, str(error))
        raise SettingsError(
            f"{key}={_show(value)} in {where} is not possible: {sentence}{hint}"
        ) from None


def _unknown_key(key: str, known: Iterable[str], *, where: str) -> str:
    """Sentence about a key that does not exist, with the nearest one that does."""
    names = list(known)
    plain = str(key).lower().lstrip("-").replace("-", "_")
    if plain in _KEYS_OF_OTHERS:
        closest, remark = _KEYS_OF_OTHERS[plain]
        closest = closest if closest in names else ""
    else:
        closest, remark = next(iter(difflib.get_close_matches(plain, names, cutoff=0.6)), ""), ""
    if plain in OBSOLETE:
        return f"{where} has no key {_show(key)}, which does nothing any more; leave it out."
    hint = f"did you mean {closest!r}{remark}?" if closest else f"the keys are {', '.join(names)}."
    return f"{where} has no key {_show(key)}; {hint}"


_HOP = " (seconds from one window to the next)"
_KEYS_OF_OTHERS = {
    **{old: (new, " (its name since version 2)") for old, new in RENAMED.items()},
    **dict.fromkeys(("step", "stride", "hop_length", "hop_size"), ("hop", _HOP)),
    **dict.fromkeys(
        ("min_conf", "min_confidence", "confidence", "conf", "threshold", "min_score"),
        ("classifier_threshold", ""),
    ),
    **dict.fromkeys(("lat", "latitude"), ("latitude", "")),
    **dict.fromkeys(("lon", "lng", "long", "longitude"), ("longitude", "")),
    **dict.fromkeys(("slist", "species", "specieslist", "species_list"), ("species_list", "")),
    **dict.fromkeys(("top_k", "topk", "top_n"), ("max_predictions_per_window", "")),
    **dict.fromkeys(("threads", "cpus", "n_jobs", "num_workers"), ("nr_parallel_workers", "")),
    **dict.fromkeys(("batchsize", "batch"), ("global_batch_size", "")),
    **dict.fromkeys(("i", "input", "folder", "audio"), ("audio_dir", "")),
    **dict.fromkeys(("files", "subset", "filelist", "file_list"), ("recordings", "")),
    **dict.fromkeys(("o", "output", "out", "output_dir", "results"), ("main_results_dir", "")),
    **dict.fromkeys(("gpu", "cuda"), ("device", "")),
    **dict.fromkeys(("rtype", "format", "formats"), ("save_raven_tables", "")),
}
"""Keys of ours, with a remark, by what BirdNET-Analyzer and others call them."""


# Values in messages: aliases of YAML can make them longer than any memory.
_shown = reprlib.Repr()
_shown.maxstring = _shown.maxother = _shown.maxlong = 120
_shown.maxlist = _shown.maxdict = 10
_shown.maxlevel = 3


def _show(value: object) -> str:
    try:
        return _shown.repr(value)
    except ValueError:  # an integer of thousands of digits
        return f"a {type(value).__name__} too long to show"


def _meant(key: str, value: object) -> str:
    """Hint at a number or truth value that was written as a text, or with a decimal comma."""
    if not isinstance(value, str) or len(value) > 20:
        return ""
    for text, how in ((value, "without quotes"), (value.replace(",", "."), "with a point")):
        try:
            meant = typed_yaml(text)
            normal_value(key, meant)
        except (yaml.YAMLError, ValueError):
            continue
        if isinstance(meant, bool | int | float):
            return f" Did you mean {text}, {how}?"
    return ""


_VALUES_OF_OTHERS = {
    "padding": {
        **dict.fromkeys(("zero", "zeros", "zeropad", "silence", "none", "0"), "constant"),
        **dict.fromkeys(("repeat", "circular", "loop", "cycle"), "wrap"),
        **dict.fromkeys(("mirror", "reflection"), "reflect"),
        **dict.fromkeys(("replicate", "nearest"), "edge"),
    },
    "channel": {
        **dict.fromkeys(("mono", "average", "mean", "both", "sum", "stereo"), "mix"),
        **dict.fromkeys(("all", "separate", "split", "every"), "each"),
        **dict.fromkeys(("first", "0", "l"), "left"),
        **dict.fromkeys(("second", "1", "r"), "right"),
        **dict.fromkeys(("best", "max", "loud"), "loudest"),
    },
    "device": {**dict.fromkeys(("gpu", "nvidia", "cuda0"), "cuda"), "metal": "mps"},
    "precision": {
        **dict.fromkeys(("fp32", "float", "single", "full"), "float32"),
        **dict.fromkeys(("bf16", "half", "fp16", "float16"), "bfloat16"),
    },
    "dim_reduction_model": {"tsne": "t_sne", "t-sne": "t_sne", "sparsepca": "sparse_pca"},
}
"""Values of ours by what other programs call them, below the option."""


def _closest_word(key: str, value: object, expected: str) -> str:
    if not isinstance(value, str | list | int) or isinstance(value, bool):
        return ""
    if "did you mean" in expected:
        return ""
    written = _show(value).strip("'\"[]").lower()
    words = expected.removeprefix("expected one of ").replace(",", " ").split()
    meant = _VALUES_OF_OTHERS.get(key, {}).get(written)
    closest = [meant] if meant else difflib.get_close_matches(written, words, n=1, cutoff=0.7)
    return f" Did you mean {closest[0]!r}?" if closest else ""


# ---------------------------------------------------------------------- bacpipe.config, .settings


class _Checked:
    """A `dict` or `list` of `bacpipe.config` or `bacpipe.settings` that checks its changes.

    `_path` leads to it: 'settings', the option, the name inside of it.  `_root` holds all options.
    """

    __slots__ = ()
    _path: tuple[str, ...]
    _root: CheckedDict

    def __reduce__(self) -> tuple[type, tuple[Any]]:
        return (dict if isinstance(self, dict) else list), (self._plain(),)

    def _plain(self) -> Any:  # noqa: ANN401 - a dict or a list
        if not isinstance(self, dict):
            return list(self)  # type: ignore[call-overload]
        return {k: v._plain() if isinstance(v, _Checked) else v for k, v in self.items()}

    def _normal_form(self, wanted: Any) -> Any:  # noqa: ANN401 - a dict or a list
        """What the rules make of a content wanted for this place.

        Raises
        ------
        SettingsError
            If they refuse it.
        """
        name, *keys = self._path
        place: object = self._root
        for key in keys:
            place = place.get(key) if isinstance(place, dict) else None
        if place is not self:
            return wanted  # replaced or removed: no option any more
        known, where = KEYS[name], f"bacpipe.{name}"
        if not keys:
            for key in known:
                if key not in wanted:
                    raise SettingsError(f"{key!r} cannot be removed from {where}; set it instead.")
            return {key: check_value(key, wanted[key], known, where=where) for key in wanted}
        if len(keys) == 1:
            return check_value(keys[0], wanted, known, where=where)
        option = {**self._root[keys[0]]._plain(), keys[1]: wanted}
        return check_value(keys[0], option, known, where=where)[keys[1]]


class CheckedDict(_Checked, dict[str, Any]):
    """Options, or the parameters in one of them; checked whenever they change."""

    __slots__ = ("_path", "_root")

    def __init__(
        self, content: Mapping[str, Any], path: tuple[str, ...], root: CheckedDict | None = None
    ) -> None:
        self._path, self._root = path, self if root is None else root
        self._fill(content)

    def _fill(self, content: Mapping[str, Any]) -> None:
        # Keys that stay never vanish: other threads may read them.
        for key in [key for key in self if key not in content]:
            dict.__delitem__(self, key)
        for key, value in content.items():
            path = (*self._path, key)
            if isinstance(value, dict) and not isinstance(value, _Checked) and len(path) < 4:
                value = CheckedDict(value, path, self._root)
            elif isinstance(value, tuple) and len(path) == 2:
                value = CheckedList(value, path, self._root)
            dict.__setitem__(self, key, value)


class CheckedList(_Checked, list[Any]):
    """The values of one option; checked whenever they change."""

    __slots__ = ("_path", "_root")

    def __init__(self, content: Iterable[Any], path: tuple[str, ...], root: CheckedDict) -> None:
        self._path, self._root = path, root
        self._fill(content)

    def _fill(self, content: Iterable[Any]) -> None:
        list.__init__(self, content)


def _checked(change: Callable[..., Any]) -> Callable[..., Any]:
    """Let a method that changes a `dict` or `list` have its way only if the rules allow it."""

    @functools.wraps(change)
    def checked_change(self: Any, *args: Any, **kwargs: object) -> Any:  # noqa: ANN401 - as `change`
        wanted = dict(self) if isinstance(self, dict) else list(self)
        result = change(wanted, *args, **kwargs)
        content = self._normal_form(wanted)
        if isinstance(wanted, dict):
            # What was there already stays the same object; what came with the change is a copy.
            for key, value in wanted.items():
                if isinstance(value, _Checked) and self.get(key) is value:
                    content[key] = value
        self._fill(content)
        return self if result is wanted else result

    return checked_change


for _kind, _methods in (
    (CheckedDict, "__setitem__ __delitem__ __ior__ update setdefault pop popitem clear"),
    (
        CheckedList,
        "__setitem__ __delitem__ __iadd__ __imul__ append extend insert pop remove clear reverse "
        "sort",
    ),
):
    for _method in _methods.split():
        setattr(_kind, _method, _checked(getattr(_kind, _method)))
SafeRepresenter.add_representer(CheckedDict, SafeRepresenter.represent_dict)
SafeRepresenter.add_representer(CheckedList, SafeRepresenter.represent_list)


class Namespace:
    """The options of one YAML file as attributes, each checked when it changes, also inside.

    Can be copied and pickled; ``vars()`` unpacks it into keywords.

    Raises
    ------
    SettingsError
        When an unknown key is read or set, or a value is impossible.

    Examples
    --------
    >>> import bacpipe
    >>> bacpipe.settings.padding
    'wrap'
    """

    # A slot keeps the name out of vars().
    __slots__ = ("__dict__", "_name")
    _name: str

    def __init__(self, name: str, values: Mapping[str, Any]) -> None:
        object.__setattr__(self, "_name", name)
        content = CheckedDict(dict.fromkeys(KEYS[name]), (name,))
        content.update(values)
        object.__setattr__(self, "__dict__", content)

    def __setattr__(self, key: str, value: object) -> None:
        vars(self)[key] = value

    def __delattr__(self, key: str) -> None:
        raise SettingsError(f"{key!r} cannot be removed from bacpipe.{self._name}; set it instead.")

    def __getattr__(self, key: str) -> Any:  # noqa: ANN401 - every option has a type of its own
        if key.startswith("__"):
            raise AttributeError(key)
        raise SettingsAttributeError(
            _unknown_key(key, KEYS[self._name], where=f"bacpipe.{self._name}")
        )

    def __reduce__(self) -> tuple[type[Namespace], tuple[str, dict[str, Any]]]:
        return Namespace, (self._name, vars(self)._plain())  # type: ignore[attr-defined]

    def __iter__(self) -> Iterator[str]:
        return iter(KEYS[self._name])

    def __dir__(self) -> Iterable[str]:
        return list(KEYS[self._name])

    def __repr__(self) -> str:
        lines = "\n".join(f"  {key}: {value!r}" for key, value in vars(self).items())
        return f"bacpipe.{self._name}\n{lines}"


class SettingsAttributeError(SettingsError, AttributeError):
    """An unknown key was read; also an AttributeError, as Python expects of attributes."""


@functools.cache
def user_config() -> Namespace:
    """``bacpipe.config``: starts with the defaults, users change it."""
    return _from_file("config")


@functools.cache
def user_settings() -> Namespace:
    """``bacpipe.settings``: starts with the defaults, users change it."""
    return _from_file("settings")


def _from_file(name: str) -> Namespace:
    defaults = {key: _FIELDS[key].metadata["default"] for key in KEYS[name]}
    return Namespace(name, defaults | read_yaml(default_file(f"{name}.yaml")))


# ---------------------------------------------------------------------- YAML files


def default_file(name: str) -> Path:
    """Path of the shipped ``config.yaml`` or ``settings.yaml``.

    A wheel carries them inside the package; in a source tree they are at its root.
    """
    package = Path(__file__).parent
    inside = package / name
    return inside if inside.is_file() else package.parent / name


def read_yaml(path: Path) -> dict[str, Any]:
    """Keys and values of a YAML file.

    Raises
    ------
    SettingsError
        If the file is missing, not YAML, not a list of ``key: value`` lines, or has a key twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        content = typed_yaml(text)
    except FileNotFoundError:
        raise SettingsError(f"{path}: this file does not exist; expected a YAML file.") from None
    except OSError as error:
        raise SettingsError(f"{path}: this file cannot be read ({error.strerror}).") from None
    except RepeatedKeyError as error:
        raise SettingsError(
            f"{path}: {error}; expected it once, so leave one of them out."
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        place = getattr(error, "problem_mark", None)
        line = f" in line {place.line + 1}" if place else ""
        problem = getattr(error, "problem", None) or first_line(error)
        written = "".join(text.split("\n")[place.line : place.line + 1]) if place else ""
        if "\t" in written:
            problem = "a tab; indent with spaces"
        elif '"' in written and "\\" in written:
            problem = "in double quotes, \\ begins a special character; leave the quotes out"
        raise SettingsError(
            f"{path}: this is not valid YAML{line} ({problem}); expected lines of 'key: value'."
        ) from None
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise SettingsError(
            f"{path}: expected lines of 'key: value', with a space after the colon, such as "
            f"'audio_dir: recordings'."
        )
    return content


def read_overrides(path: Path, name: str) -> dict[str, Any]:
    """Checked keys of a user's ``config.yaml`` or ``settings.yaml``.

    Parameters
    ----------
    path : Path
        The file, of this version or of 1.3, whose keys are translated with a notice.
    name : {'config', 'settings'}
        Which of the two it is.

    Raises
    ------
    SettingsError
        Naming everything in the file that is not possible.
    """
    values, notes = translate(read_yaml(path), _PROBES)
    if notes:
        logger.warning(
            "%s: was written for bacpipe 1.3 and is read as one of this version: %s.",
            path,
            "; ".join(notes),
        )
    other = "settings" if name == "config" else "config"
    checked, problems = {}, []
    for key, value in values.items():
        if key in KEYS[other]:
            problems.append(f"{path}: {key} is a key of {other}.yaml; write it there.")
        elif key != "model_base_path" or value is not None:
            try:
                checked[key] = check_value(key, value, KEYS[name], where=str(path))
            except SettingsError as error:
                problems.append(str(error))
    if len(problems) > 1:
        # Once is enough for the list of all keys.
        keys = f"; the keys are {', '.join(KEYS[name])}."
        first = next((i for i, text in enumerate(problems) if keys in text), 0)
        told = [t if i == first else t.replace(keys, ".") for i, t in enumerate(problems)]
        lines = "".join(f"\n- {problem}" for problem in told)
        raise SettingsError(f"{path} has {counted(len(problems), 'problem')}:{lines}")
    if problems:
        raise SettingsError(problems[0])
    return checked


_TOP_OF_FILE = {
    "config": "What to run. Change a value here, or give it on the command line:\n"
    "  python -m bacpipe audio_dir=/path/to/recordings models='[birdnet]'",
    "settings": "How to run. The defaults suit most data sets.",
}


def yaml_text(name: str) -> str:
    """Text of the shipped ``config.yaml`` or ``settings.yaml``: defaults, and help as comments."""
    parts = [_comment(_TOP_OF_FILE[name])]
    for key in KEYS[name]:
        about = _FIELDS[key].metadata
        if about["section"]:
            parts.append(f"\n# {'-' * 64} {about['section']}\n\n")
        elif name == "config":
            parts.append("\n")
        parts.append(_comment(about["help"]))
        parts.append(yaml_lines(key) + "\n")
    return "".join(parts)


def _comment(text: str) -> str:
    first, *rest = text.splitlines()
    lines = textwrap.wrap(first, 98)
    for line in rest:
        lines += textwrap.wrap(line, 98, subsequent_indent="  " if len(rest) > 1 else "")
    return "".join(f"# {line}\n" for line in lines)


def yaml_lines(key: str) -> str:
    """An option with its default, as its YAML file has it."""
    default = _FIELDS[key].metadata["default"]
    one_line = isinstance(default, list) and len(str(default)) < 90
    text: str = yaml.safe_dump(
        {key: default}, sort_keys=False, default_flow_style=None if one_line else False, width=1000
    )
    return text.strip().replace("\n- ", "\n  - ")


if __name__ == "__main__":
    for _file in KEYS:
        default_file(f"{_file}.yaml").write_text(yaml_text(_file), encoding="utf-8")
