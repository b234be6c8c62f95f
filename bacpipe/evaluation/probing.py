"""Probing: how much a simple classifier gets out of frozen embeddings."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm.auto import tqdm

from bacpipe.audio.remote import shown
from bacpipe.errors import EvaluationError, ResultsError, ResultsNotFoundError, SettingsError
from bacpipe.evaluation.cross_validation import cross_validate
from bacpipe.evaluation.labelled_windows import (
    Embeddings,
    LabelledWindows,
    Labels,
    check_embeddings,
    labelled_windows,
)
from bacpipe.evaluation.learning_curve import learning_curve
from bacpipe.evaluation.metrics import (
    decide,
    evaluate_labels,
    group_by,
    number,
    precision_threshold,
    score_replicates,
)
from bacpipe.evaluation.probes import (
    OLD_SUFFIXES,
    PROBES,
    LinearProbe,
    Probe,
    TrainingData,
    find_old_probe,
    find_probe,
    load_old_probe,
    load_probe,
    make_probe,
    save_probe,
)
from bacpipe.evaluation.splits import (
    SETS,
    Split,
    SplitRule,
    load_or_make_folds,
    load_or_make_split,
    split_id,
    split_to_train,
)
from bacpipe.evaluation.tested_windows import write_tested
from bacpipe.evaluation.units import units_left_out, units_of
from bacpipe.inference.report import is_interactive
from bacpipe.labels.model_windows import open_results
from bacpipe.models.backends.pytorch import choose_device, computing_on
from bacpipe.models.zoo import canonical_name
from bacpipe.options import Options, make_options
from bacpipe.store.detections import Detections
from bacpipe.store.embedding_set import read_embeddings
from bacpipe.store.fingerprints import read_result, write_result
from bacpipe.store.layout import (
    ResultPaths,
    confusion_matrix_name,
    learning_curve_name,
    per_class_name,
    precision_recall_name,
    probe_results_name,
    probe_weights_name,
    reliability_name,
    test_scores_name,
)
from bacpipe.store.loader import Loader

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

_WINDOWS_AT_ONCE = 8192


def probing_pipeline(
    model_name: str,
    ground_truth: Labels,
    embeds: Embeddings,
    paths: ResultPaths | None = None,
    name: str = "linear",
    overwrite: bool = True,
    label_column: str = "species",
    *,
    recordings: Sequence[str] | None = None,
    **kwargs: object,
) -> tuple[Probe, dict[str, int], dict[str, Any]]:
    """Train a probe, test it on recordings it has never met, and store probe, metrics, figures.

    Parameters
    ----------
    model_name : str
        Name of the model that made the embeddings.
    ground_truth : dict, array, tuple or pandas.DataFrame
        What `ground_truth_by_model` returned, of each return type, or a label per window, -1 for
        none.  Where it allows several labels per window (``single_label=False``), there is one
        yes or no for each class, and every window of an annotated recording counts.
    embeds : np.ndarray, float32, shape (windows, dim)
        Embeddings, as ``Loader.embeddings`` returns them, array or dictionary.
    paths : ResultPaths, optional
        Where results are, from `make_set_paths_func`.  Without them, results are stored if the
        embeddings are those that the present configuration finds, else only returned.
    name : str
        Which probe: 'linear' (logistic regression) or 'knn'.
    overwrite : bool
        False returns the stored result if data and settings have not changed.
    label_column : str
        Kind of label, with or without the prefix 'label:'.
    recordings : sequence of str, optional
        Recording of every window, for embeddings that are not in a results tree.
    **kwargs
        Any key of the configuration; train_ratio, test_ratio, split, evaluation_seed,
        bootstrap_samples, probe_configs, save_probe and device matter here.

    Returns
    -------
    probe : torch.nn.Module
        The trained probe.
    label2index : dict of str to int
        Column of every class in its scores.
    metrics : dict
        Also stored as ``probing/probe_results_<name>.json``.  ``overall`` holds accuracy,
        balanced accuracy, top-1 and top-5 accuracy, precision, recall and F1 (macro and micro),
        ROC-AUC and average precision (macro; the latter is also known as cmAP); ``intervals``
        their 95 % confidence intervals over test recordings; ``per_class`` the same by class,
        with ``threshold_at_precision``, the lowest threshold that has the wanted precision on the
        test windows; ``per_site`` by site (of the table of sites, else the folder of the
        recordings); ``confusion_matrix`` counts of test windows, true classes in rows (None where
        windows have several labels); ``cross_validation`` (with `splits`) and ``learning_curve``;
        ``split``, ``dropped`` (classes left out, and why), ``training`` and ``notes`` say what it
        is based on.  The scores of every test window are in
        ``probing/test_scores_<name>.parquet``.

    Raises
    ------
    TooLittleDataError
        If fewer than two classes have windows in three recordings.
    EvaluationError
        If embeddings and ground truth do not fit, or the probe does not exist.

    Examples
    --------
    >>> import bacpipe
    >>> loader = bacpipe.Loader("recordings", "birdnet")
    >>> truth = bacpipe.ground_truth_by_model("birdnet", "recordings")
    >>> probe, label2index, metrics = bacpipe.probing_pipeline("birdnet", truth,
    ...     loader.embeddings("array"), paths=loader.paths)
    >>> metrics["overall"]["f1_macro"]
    1.0
    """
    options = make_options(**kwargs)
    find_probe(name)
    data = labelled_windows(
        model_name, ground_truth, embeds, paths, label_column=label_column, recordings=recordings,
        **kwargs,
    )  # fmt: skip
    probe, result = evaluate_probe(data, name, options, overwrite=overwrite)
    return probe, {label: i for i, label in enumerate(probe.classes)}, result


def evaluate_probe(
    data: LabelledWindows, name: str, options: Options, *, overwrite: bool
) -> tuple[Probe, dict[str, Any]]:
    """Do what `probing_pipeline` does, for windows whose labels and recordings are known."""
    parameters = options.probe_configs.get(name, {})
    if options.background_class:
        data = data.with_background()
    rule = SplitRule(
        options.split, options.train_ratio, options.test_ratio, options.evaluation_seed
    )
    if options.train_on_everything:
        split = split_to_train(data, rule, tuned=name == LinearProbe.kind)
    else:
        split = load_or_make_split(data, rule)
    fingerprint = data.fingerprint(
        probe=name,
        parameters={**find_probe(name).defaults, **parameters},
        split=split_id(split),
        rule=vars(rule),
        bootstrap=options.bootstrap_samples,
        saved=options.save_probe,
        splits=options.splits,
        curve=options.learning_curve,
        wanted=options.wanted_precision,
        everything=options.train_on_everything,
    )
    path = None if data.paths is None else data.paths.probe_path / probe_results_name(name)
    train = _Trainer(data, split, name, parameters, options)
    if path is not None and not overwrite and (stored := read_result(path, fingerprint)):
        return _saved_probe(path.parent, name, fingerprint) or train()[0], stored
    probe, training = train()
    result: dict[str, Any] = {
        "model": data.model,
        "probe": name,
        "label_column": data.column,
        "multi_label": data.multi_label,
        "classes": list(split.classes),
        **_not_tested(),
        "split": _describe(data, split, rule),
        "dropped": split.dropped,
        "parameters": dict(probe.parameters_used),
        "training": training,
    }
    rows = split.rows("test")
    scores = probe.predict(data.embeds[rows], device=choose_device(options.device))
    if len(rows):
        result |= _test(data, split, scores, options)
        if options.splits != "1":
            k, repetitions = map(int, options.splits.split(" x "))
            folds = load_or_make_folds(data, split, rule, k, repetitions)
            result["cross_validation"] = cross_validate(split.labels, folds, k, train.fit)
        if options.learning_curve:
            result["learning_curve"] = learning_curve(
                split.labels,
                split.classes,
                np.concatenate([split.rows("train"), split.rows("val")]),
                rows,
                lambda rows, share: train.fit_without_tuning(rows, training, share),
                options.evaluation_seed,
            )
    if training.get("neighbours_used", 0) > training.get("training_windows_of_rarest_class", 0):
        result["notes"].append(
            f"{training['neighbours_used']} neighbours vote, but the rarest class has only "
            f"{training['training_windows_of_rarest_class']} training windows and can be outvoted; "
            f"a smaller n_neighbors may do better."
        )
    if data.paths is not None and path is not None:
        if options.save_probe:
            about = {"model": data.model, "label_column": data.column, "fingerprint": fingerprint}
            save_probe(data.paths.probe_path, probe, about)
        if len(rows):
            write_tested(path.parent / test_scores_name(name), data, split, scores, fingerprint)
            _draw(data.paths, name, result, split.labels[rows], scores)
        # Last, so that it vouches for the other files.
        write_result(path, result, fingerprint)
    return probe, result


def _saved_probe(folder: Path, name: str, fingerprint: str) -> Probe | None:
    """The probe that was trained with these data and settings, if it was saved."""
    try:
        probe, description = load_probe(folder / probe_weights_name(name))
    except (ResultsError, ResultsNotFoundError) as error:
        logger.debug("trained again: %s", error)
        return None
    return probe if description.get("fingerprint") == fingerprint else None


@dataclass(frozen=True)
class _Trainer:
    """Trains probes on windows of one data set."""

    data: LabelledWindows
    split: Split
    name: str
    parameters: Mapping[str, Any]
    options: Options

    def __call__(self) -> tuple[Probe, dict[str, Any]]:
        """Train with the sets of the split."""
        with _progress(f"{self.data.model}: {self.name} probe") as show:
            rows = self.split.rows("train"), self.split.rows("val")
            return self._train(*rows, self.parameters, show)

    def fit(self, train: np.ndarray, val: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """Train and tune with other rows; returns what gives the scores of further ones."""
        return self._predict(self._train(train, val, self.parameters)[0])

    def fit_without_tuning(
        self, rows: np.ndarray, tuned: Mapping[str, Any], share: float
    ) -> Callable[[np.ndarray], np.ndarray]:
        """Train with a share of the rows and the penalty that was chosen for all of them."""
        parameters = dict(self.parameters)
        if "penalty" in tuned:
            # A penalty counts for each window: less of them need more of it.
            parameters["penalty"] = tuned["penalty"] / share
        few = np.arange(0)
        if tuned.get("solver") == "adam":  # it needs windows to know when to stop
            rows, few = rows[::2], rows[1::2]
        return self._predict(self._train(rows, few, parameters)[0])

    def _train(
        self,
        train: np.ndarray,
        val: np.ndarray,
        parameters: Mapping[str, Any],
        show: Callable[[int, int], object] | None = None,
    ) -> tuple[Probe, dict[str, Any]]:
        classes, several = self.split.classes, self.data.multi_label
        dim = self.data.embeds.shape[1]
        probe = make_probe(self.name, dim, classes, parameters, multi_label=several)
        device = choose_device(self.options.device)
        with computing_on(device):
            training = probe.learn(
                TrainingData(self.data.embeds, self.split.labels, train, val, len(classes)),
                seed=self.options.evaluation_seed,
                device=device,
                progress=show,
            )
        return probe, training

    def _predict(self, probe: Probe) -> Callable[[np.ndarray], np.ndarray]:
        device = choose_device(self.options.device)
        return lambda rows: probe.predict(self.data.embeds[rows], device=device)


def _not_tested() -> dict[str, Any]:
    """Results of a probe without test windows."""
    return {
        "overall": {},
        "intervals": {},
        "per_class": {},
        "per_site": {},
        "confusion_matrix": None,
        "cross_validation": None,
        "learning_curve": None,
        "notes": ["The probe learnt from all labelled windows (train_on_everything), so nothing "
                  "is left to test it."],
    }  # fmt: skip


def _test(
    data: LabelledWindows, split: Split, scores: np.ndarray, options: Options
) -> dict[str, Any]:
    rows = split.rows("test")
    labels, n_classes = split.labels[rows], len(split.classes)
    recordings = None if data.recordings is None else data.recordings[rows]
    groups = units_left_out(recordings, len(rows), options.split, data.sites)
    result = evaluate_labels(
        labels, scores, split.classes, groups, samples=options.bootstrap_samples
    )
    truth, predicted = decide(labels, scores)
    for i, values in enumerate(result["per_class"].values()):
        threshold = precision_threshold(truth[:, i], scores[:, i], options.wanted_precision)
        values["threshold_at_precision"] = number(threshold)
    result["wanted_precision"] = options.wanted_precision
    result["confusion_matrix"] = None
    if not data.multi_label:
        confusion = np.zeros((n_classes, n_classes), np.int64)
        np.add.at(confusion, (labels, predicted.argmax(axis=1)), 1)
        result["confusion_matrix"] = confusion.tolist()
    if recordings is not None:
        sites = units_of(recordings, "site", data.sites)
        result["per_site"] = _per_site(sites, recordings, labels, scores)
    if data.multi_label:
        result["notes"].append(
            "A window can have several labels or none; a class counts as found where its score is "
            "0.5 or more, and every window of an annotated recording counts."
        )
    return result


def _per_site(
    sites: np.ndarray, recordings: np.ndarray, labels: np.ndarray, scores: np.ndarray
) -> dict[str, dict[str, Any]]:
    """Scores of the test windows by site."""
    result = {}
    for site in np.unique(sites).tolist():
        here = sites == site
        groups, weights = group_by(None, int(here.sum())), np.ones((1, int(here.sum())))
        overall, _ = score_replicates(
            *decide(labels[here], scores[here]), scores[here], groups, weights
        )
        result[site] = {
            "recordings": len(set(recordings[here])),
            "windows": int(here.sum()),
            **{metric: number(values[0]) for metric, values in overall.items()},
        }
    return result


def _describe(data: LabelledWindows, split: Split, rule: SplitRule) -> dict[str, Any]:
    windows = {name: len(split.rows(name)) for name in SETS}
    recordings = None
    if data.recordings is not None:
        recordings = {name: len(set(data.recordings[split.rows(name)])) for name in SETS}
    per_class: dict[str, dict[str, int]] = {label: {} for label in split.classes}
    for name in SETS:
        labels = split.labels[split.rows(name)]
        sums = (
            labels.sum(axis=0)
            if labels.ndim == 2
            else np.bincount(labels, minlength=len(split.classes))
        )
        for label, n in zip(split.classes, sums, strict=True):
            per_class[label][name] = int(n)
    return {
        "strategy": rule.strategy,
        "id": split_id(split),
        "seed": rule.seed,
        "windows": windows,
        "recordings": recordings,
        "windows_per_class": per_class,
    }


def _draw(
    paths: ResultPaths,
    name: str,
    result: Mapping[str, Any],
    labels: np.ndarray,
    scores: np.ndarray,
) -> None:
    # Whoever only imports this module need not wait for matplotlib.
    from bacpipe.plotting import classifiers as figures
    from bacpipe.plotting.style import save_figure

    folder, truth = paths.probe_path, decide(labels, scores)[0]
    if result["confusion_matrix"] is not None:
        save_figure(figures.confusion_matrix(result), folder / confusion_matrix_name(name))
    save_figure(figures.per_class_scores(result), folder / per_class_name(name))
    curves = {
        precision_recall_name(name): figures.precision_recall(result, truth, scores),
        reliability_name(name): figures.reliability(result, truth, scores),
    }
    if result["learning_curve"]:
        curves[learning_curve_name(name)] = figures.learning_curve(result)
    for file, figure in curves.items():
        save_figure(figure, folder / file)


@contextmanager
def _progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """Progress bar over epochs, when somebody watches."""
    with tqdm(desc=title, unit="epoch", disable=not is_interactive(), leave=False) as bar:

        def show(done: int, most: int) -> None:
            bar.total = most
            bar.update(done - bar.n)

        yield show


# ---------------------------------------------------------------------- using a probe


def prepare_probe_inference(
    model: str,
    probe_path: str | Path = "",
    *,
    name: str = "linear",
    paths: ResultPaths | None = None,
    **kwargs: object,
) -> tuple[Probe, dict[str, int]]:
    """Load a trained probe.

    Parameters
    ----------
    model : str
        Name of the model whose embeddings it takes.
    probe_path : str or Path
        The ``.safetensors`` file or its folder; by default the probe of this model in the
        results tree of the present configuration.  A ``.pt`` file of bacpipe 1.3 is read if it
        holds one linear layer.
    name : str
        Which probe of the folder: 'linear' or 'knn'.
    paths : ResultPaths, optional
        Results tree to take it from.
    **kwargs
        Any key of the configuration; audio_dir and main_results_dir say where results are.

    Returns
    -------
    probe : torch.nn.Module
        Exactly as it was after training.
    label2index : dict of str to int
        Column of every class in the predictions.

    Raises
    ------
    ResultsNotFoundError
        If there is no such probe.
    EvaluationError
        If it was trained on embeddings of another model.

    Examples
    --------
    >>> import bacpipe
    >>> probe, label2index = bacpipe.prepare_probe_inference("birdnet", audio_dir="recordings")
    >>> label2index["synthetic hoot"]
    1
    """
    path = Path(probe_path) if str(probe_path) else _open(model, paths, kwargs).paths.probe_path
    return open_probe(model, path, name)


def open_probe(model: str, path: Path, name: str) -> tuple[Probe, dict[str, int]]:
    """Do what `prepare_probe_inference` does, for a probe whose file or folder is known."""
    if path.suffix in OLD_SUFFIXES:
        return _numbered(load_old_probe(path))
    if path.suffix not in {".safetensors", ".json"}:
        old = find_old_probe(path, name)
        path = path / probe_weights_name(name)
        if old is not None and not path.exists():
            return _numbered(load_old_probe(old))
    probe, description = load_probe(path)
    if description.get("model") not in (None, canonical_name(model)):
        raise EvaluationError(
            f"{path}: this probe was trained on embeddings of {description['model']}, not of "
            f"{model}."
        )
    return _numbered(probe)


def _numbered(probe: Probe) -> tuple[Probe, dict[str, int]]:
    return probe, {label: number for number, label in enumerate(probe.classes)}


def run_probe_inference(
    model: str,
    linear_probe: Probe,
    threshold: float = 0.5,
    embeds: np.ndarray | torch.Tensor | Mapping[str, np.ndarray] | None = None,
    return_binary_presence: bool = True,
    callbacks: Callable[[int], object] | None = None,
    device: str = "cpu",
    *,
    paths: ResultPaths | None = None,
    **kwargs: object,
) -> np.ndarray:
    """Classify windows with a trained probe.

    A probe of single labels knows nothing but its classes, so every window gets scores that sum to
    1, whatever is heard in it; the threshold says which are certain enough.  One that learnt from
    several labels per window gives every class a score of its own, and can find nothing.

    Parameters
    ----------
    model : str
        Name of the model whose embeddings the probe takes.
    linear_probe : torch.nn.Module
        What `prepare_probe_inference` returned, linear or not.
    threshold : float
        Lowest score that counts as presence, 0 to 1.
    embeds : torch.Tensor or np.ndarray, float32, shape (windows, dim), optional
        Embeddings; by default all that are stored for this model.
    return_binary_presence : bool
        False returns the scores themselves.
    callbacks : callable, optional
        Called with the number of windows done so far.
    device : str
        Where to compute: auto, cpu, cuda, mps.
    paths : ResultPaths, optional
        Results tree to take embeddings from.
    **kwargs
        Any key of the configuration; audio_dir and main_results_dir say where results are.

    Returns
    -------
    np.ndarray, shape (windows, classes)
        bool, or float32 scores; in the order of ``Loader.embeddings('array')``.

    Examples
    --------
    >>> import bacpipe
    >>> probe, label2index = bacpipe.prepare_probe_inference("birdnet", audio_dir="recordings")
    >>> present = bacpipe.run_probe_inference("birdnet", probe, 0.8, audio_dir="recordings")
    >>> present.shape, present.dtype
    ((153, 6), dtype('bool'))
    """
    if not isinstance(threshold, Real) or not 0 <= threshold <= 1:
        raise SettingsError(
            f"threshold={threshold!r} is not possible: expected a number in [0, 1]."
        )
    place = choose_device(device)
    parts: Iterable[np.ndarray] = (
        _stored_embeddings(_open(model, paths, kwargs)) if embeds is None
        else [check_embeddings(embeds)]
    )  # fmt: skip
    done, scores = 0, []
    for part in parts:
        before = done

        def report(n: int, before: int = before) -> None:
            if callbacks is not None:
                callbacks(before + n)

        scores.append(linear_probe.predict(part, device=place, progress=report))
        done += len(part)
    result = np.concatenate(scores) if scores else np.zeros((0, len(linear_probe.classes)))
    return result >= threshold if return_binary_presence else result


def _open(model: str, paths: ResultPaths | None, kwargs: Mapping[str, Any]) -> Loader:
    settings = dict(kwargs)
    return open_results(model, settings.pop("audio_dir", None), paths, **settings)


def _stored_embeddings(loader: Loader) -> Iterator[np.ndarray]:
    """Embeddings recording by recording, so that they need not fit into memory."""
    loader.get_embedding_dir()  # says what to do when there are none
    assert loader.embedding_set is not None
    for entry in loader.entries.values():
        yield read_embeddings(loader.embedding_set, entry, verify=True)


def trained_probes(loader: Loader) -> list[str]:
    """Names of the probes that were trained and saved for a model, such as 'linear'."""
    folder = loader.paths.probe_path
    return [name for name in PROBES if (folder / probe_weights_name(name)).is_file()]


def probe_detections(loader: Loader, name: str, threshold: float) -> Iterator[Detections]:
    """Classify the stored embeddings of a model with a probe that was trained on them.

    Embeddings are read and classified a part at a time.

    Parameters
    ----------
    loader : Loader
    name : str
        Which probe: 'linear' or 'knn'.
    threshold : float
        Lowest score to keep, 0 to 1.

    Yields
    ------
    Detections
        Of each recording, in the order of the recordings; scores fall within a window.

    Raises
    ------
    ResultsNotFoundError
        If there are no embeddings or there is no such probe.
    """
    model, stored = str(loader.model_name), loader.embedding_set
    if stored is None:
        raise ResultsNotFoundError(
            f"{shown(loader.audio_dir)}: there are no embeddings of {model}."
        )
    probe, columns = open_probe(model, loader.paths.probe_path, name)
    classes = np.array(list(columns), dtype=object)

    def classify(parts: list[tuple[str, np.ndarray]]) -> Iterator[Detections]:
        scores = probe.predict(check_embeddings(np.concatenate([embeds for _, embeds in parts])))
        stops = np.cumsum([len(embeds) for _, embeds in parts])
        for (recording, _), part in zip(parts, np.split(scores, stops[:-1]), strict=True):
            window, column = np.nonzero(part >= np.float32(threshold))
            order = np.lexsort((-part[window, column], window))
            window, column = window[order].astype(np.int32), column[order]
            start, end = loader.window_times(recording)
            yield Detections(
                recording, window, start[window], end[window], classes[column],
                part[window, column].astype(np.float32),
            )  # fmt: skip

    waiting: list[tuple[str, np.ndarray]] = []
    windows = 0
    for recording, entry in loader.entries.items():
        if not entry.windows:
            continue
        waiting.append((recording, read_embeddings(stored, entry, verify=True)))
        windows += entry.windows
        if windows >= _WINDOWS_AT_ONCE:
            yield from classify(waiting)
            waiting, windows = [], 0
    if waiting:
        yield from classify(waiting)
