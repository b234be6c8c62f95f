"""Run a model over a data set: plan what is to be done, lock, embed, classify, write tables."""

from __future__ import annotations

import ast
import hashlib
import inspect
import logging
import platform
import shutil
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import CodeType
from typing import Any

import numpy as np
import torch

from bacpipe._version import __version__
from bacpipe.audio.fingerprint import content_fingerprint
from bacpipe.audio.remote import is_recording_there, shown
from bacpipe.errors import (
    AnnotationsError,
    NothingEmbeddedError,
    ResultsError,
    ResultsLockedError,
    SettingsError,
    StorageError,
    counted,
)
from bacpipe.exports.detections import Describer
from bacpipe.exports.export import renew_exports
from bacpipe.exports.findings import write_readme
from bacpipe.inference.audio_handler import AudioHandler, with_possible_precision
from bacpipe.inference.decoding import storable
from bacpipe.inference.pipeline import run
from bacpipe.inference.report import RunProgress, RunReport
from bacpipe.inference.runner import ModelRunner
from bacpipe.inference.together import Together
from bacpipe.models.base import Model, is_extended
from bacpipe.models.weights.checkpoints import checkpoint_hash, resolve
from bacpipe.models.zoo import CARDS
from bacpipe.options import Options
from bacpipe.store.calibrations import calibration_state
from bacpipe.store.claims import Claim, alone
from bacpipe.store.class_list import ClassList, read_class_list, write_class_list
from bacpipe.store.embedding_set import (
    EmbeddingSet,
    adopt_old_set,
    complete_identity,
    create_set,
    differences,
    find_set,
    prediction_settings,
    read_embeddings,
    settings_identity,
    wider_settings,
)
from bacpipe.store.entries import FinishedEntry, PredictionSettings
from bacpipe.store.files import (
    is_disk_full,
    remove_empty_folders,
    remove_unfinished,
    storage_error,
)
from bacpipe.store.journal import Journal, RunJournal
from bacpipe.store.layout import (
    METADATA,
    SOURCE,
    annotations_path,
    class_list_path,
    detections_csv_path,
    detections_path,
    path_inside,
    stamped_folders,
    wide_table_path,
)
from bacpipe.store.loader import Loader
from bacpipe.store.plan import RunPlan, Source, Sources, StreamEnd, look_at_name, make_plan
from bacpipe.store.predictions import (
    RecentPredictions,
    SparsePredictions,
    bring_forward,
    predictions_source,
    read_predictions,
)
from bacpipe.store.range_filter import lacks_range_table, used_places, write_places
from bacpipe.store.tables import write_combined_tables
from bacpipe.store.whereabouts import Whereabouts
from bacpipe.store.writer import ResultWriter

logger = logging.getLogger(__name__)

_SHOWN = ("range_filter", "range_threshold", "species_list")  # decide what exports hold


def embed_data_set(
    handler: AudioHandler, loader: Loader, *, threads: bool, together: Together | None = None
) -> RunReport:
    """Embed what is not done yet and store the results.

    Parameters
    ----------
    handler : AudioHandler
        The model, such as an `Embedder`.
    loader : Loader
        Data set and results tree; reads the results afterwards.
    threads : bool
        False decodes and computes by turns.
    together : Together, optional
        The runs of other models that share the decoding, if this is one of several; needs threads.

    Raises
    ------
    NothingEmbeddedError
        If not one recording could be embedded.
    ResultsLockedError
        If another run writes these results.
    """
    loader.options = options = with_possible_precision(loader.options)
    model = handler.loaded_model
    loader.claim()
    report = RunReport(str(loader.model_name))
    predict = options.run_pretrained_classifier and bool(model.classes)
    identity = model_identity(str(loader.model_name), options, model)
    with alone(loader.paths.main_embeds_path, str(loader.model_name)):
        _remove_unfinished_sets(loader)
        plan = plan_run(loader, identity, predict=predict)
        if predict and (model.scientific_names or model.codes):
            _write_class_list(loader, model)
        if loader.embedding_set is not None:
            complete_identity(loader.embedding_set, identity)
        _say_what_is_classified(loader, plan)
        _take_over(loader, plan.unmarked)
        say_what_is_kept(loader, plan)
        if plan.is_empty and tables_are_complete(loader, predict=predict):
            report.kept, report.results = len(plan.keep), loader.embed_dir
            write_readme(loader.paths, options)  # the results may have been moved
            return report
        full = {**identity, **settings_identity(options)}
        provenance = _provenance(model)
        created = loader.embedding_set is None
        _prepare_set(loader, full, provenance)
        try:
            recent = _work(
                handler,
                loader,
                plan,
                report,
                provenance,
                predict=predict,
                threads=threads,
                together=together,
            )
        except BaseException:
            if created:
                _drop_empty_set(loader)
            raise
        report.results = loader.embed_dir
        if loader.embedding_set is None or not loader.embedding_set.content.recordings.has_done:
            reasons = "; ".join(reason for _, reason in report.failed[:3])
            raise NothingEmbeddedError(
                f"{shown(loader.audio_dir)}: none of {counted(len(report.failed), 'recording')} "
                f"could be embedded ({reasons})."
            )
        write_tables(loader, predict=predict, recent=recent)
    return report


def prepare_set(loader: Loader, model: Model) -> None:
    """Make the set of embeddings that several workers are going to fill, or find it.

    The caller sees to it that one of them does it at a time, and no run over all recordings.

    Parameters
    ----------
    loader : Loader
        Data set and results tree, for a part of the recordings.
    model : Model
        The model.
    """
    options, name = loader.options, str(loader.model_name)
    predict = options.run_pretrained_classifier and bool(model.classes)
    identity = model_identity(name, options, model)
    _remove_unfinished_sets(loader)
    _locate_set(loader, identity)
    if predict and (model.scientific_names or model.codes):
        _write_class_list(loader, model)
    if loader.embedding_set is not None:
        complete_identity(loader.embedding_set, identity)
    _prepare_set(loader, {**identity, **settings_identity(options)}, _provenance(model))
    embedding_set = loader.embedding_set
    assert embedding_set is not None
    loader.locate_predictions(newest=predict)
    if predict and not bring_forward(loader.paths.preds_path, embedding_set.folder.name):
        # Files of another set may happen to have the size that our journal names.
        journal = RunJournal(embedding_set.folder, embedding_set.content.recordings)
        journal.drop_all_predictions()
        journal.close()


def embed_part(handler: AudioHandler, loader: Loader, claim: Claim, *, threads: bool) -> RunReport:
    """Embed what is not done yet of a part of a data set, while others work on other parts.

    Parameters
    ----------
    handler : AudioHandler
        The model, such as an `Embedder`.
    loader : Loader
        Data set, results tree and the part; `prepare_set` was called with its like.
    claim : Claim
        On this part.
    threads : bool
        False decodes and computes by turns.

    Raises
    ------
    ResultsLockedError
        If somebody else has taken over the part.
    """
    options, model = loader.options, handler.loaded_model
    report = RunReport(str(loader.model_name))
    predict = options.run_pretrained_classifier and bool(model.classes)
    identity = model_identity(str(loader.model_name), options, model)
    plan = plan_run(loader, identity, predict=predict)
    say_what_is_kept(loader, plan)
    report.kept, report.results = len(plan.keep), loader.embed_dir
    if not plan.is_empty:
        _work(
            handler, loader, plan, report, _provenance(model),
            predict=predict, threads=threads, claim=claim,
        )  # fmt: skip
    return report


def write_tables(loader: Loader, *, predict: bool, recent: RecentPredictions | None = None) -> None:
    """Write everything that is written when all recordings are done.

    Parameters
    ----------
    loader : Loader
        The results.
    predict : bool
        Whether there are predictions.
    recent : RecentPredictions, optional
        Those of them that need not be read.
    """
    loader.write_metadata_file()
    if predict:
        write_prediction_tables(loader, recent)
        write_places(loader.range_filter(), list(loader.entries))
    write_readme(loader.paths, loader.options)
    record_tables(loader, predict=predict)


def _provenance(model: Model) -> dict[str, Any]:
    return {
        "version": __version__,
        "device": model.accelerator or str(model.device),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }


def _write_class_list(loader: Loader, model: Model) -> None:
    path = class_list_path(loader.paths.preds_path, str(loader.model_name))
    wanted = ClassList.of_model(model.classes, model.scientific_names, model.codes)
    if read_class_list(path).names != wanted.names:
        write_class_list(path, wanted)


def model_identity(model_name: str, options: Options, model: Model | None = None) -> dict[str, Any]:
    """What of a model changes its embeddings: name, sample rate, window, checkpoint (SHA-256).

    Models of the zoo need not be loaded for it; the options tell where checkpoints are.  Of a
    user's own model, `custom_code` stands beside the name of its class.
    """
    card = model.card if model is not None else CARDS[model_name]
    base = Path(options.model_base_path)
    files = model.files if model is not None else {} if card is None else resolve(card, base)
    checkpoint = {name: checkpoint_hash(path, base) for name, path in files.items()}
    if model is not None and (card is None or is_extended(model)):
        kind = type(model)
        return {
            "model": model_name,
            "sample_rate": int(model.sr),
            "window": int(model.segment_length),
            "checkpoint": checkpoint or f"{kind.__module__}.{kind.__qualname__}",
            "code": custom_code(model),
        }
    assert card is not None
    return {
        "model": card.name,
        "sample_rate": card.sample_rate,
        "window": card.window,
        "checkpoint": checkpoint,
    }


def custom_code(model: Model) -> str:
    """What tells one state of a user's own model from another: 16 digits of a hash.

    It is of the names of its classes and of the source of its Python class and of those that
    this one is derived from, without comments; where there is no source, of what Python has made
    of it.  A model with an attribute ``version`` is taken by its word instead: the source does
    not tell which weights it loads.
    """
    version = getattr(model, "version", None)
    parts = [f"version {version}"] if version is not None else []
    if version is None:
        for kind in type(model).__mro__:
            if kind.__module__.split(".")[0] not in {"bacpipe", "builtins", "torch", "abc"}:
                parts.append(_source_of(kind))
    parts += map(str, model.classes)
    return hashlib.sha256("\n".join(parts).encode(errors="surrogatepass")).hexdigest()[:16]


def _source_of(kind: type) -> str:
    try:
        return ast.unparse(ast.parse(textwrap.dedent(inspect.getsource(kind))))
    except (OSError, TypeError, SyntaxError):  # typed into an interpreter, or made by a program
        functions = [getattr(value, "fget", value) for value in vars(kind).values()]
        codes = (getattr(getattr(f, "__func__", f), "__code__", None) for f in functions)
        return "\n".join(_described(code) for code in codes if isinstance(code, CodeType))


def _described(code: CodeType) -> str:
    """Bytecode with its constants, names and the functions inside, but not where it stands."""
    parts = [code.co_name, code.co_code.hex(), str(code.co_names)]
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            parts.append(_described(constant))
        elif isinstance(constant, frozenset):  # whose order is another in every process
            parts.append(str(sorted(map(repr, constant))))
        else:
            parts.append(repr(constant))
    return " ".join(parts)


def plan_run(loader: Loader, identity: Mapping[str, Any], *, predict: bool) -> RunPlan:
    """Decide what is to be done, and let the loader point to the set to continue.

    `identity` is what `model_identity` returned; `predict` tells whether predictions are wanted
    and the model has a classifier.
    """
    options = loader.options
    _locate_set(loader, identity)
    known = loader.embedding_set
    loader.locate_predictions()
    stored: list[PredictionSettings] = []
    if known is not None and predictions_source(loader.paths.preds_path) == known.folder.name:
        stored = known.content.recordings.prediction_settings
    return make_plan(
        known,
        loader.paths,
        _sources(loader),
        predictions=wider_settings(options, stored) if predict else None,
        allow_truncated=options.allow_truncated,
        part=loader.is_part,
    )


def _locate_set(loader: Loader, identity: Mapping[str, Any]) -> None:
    """Let the loader point to the set to continue, if there is one."""
    options = loader.options
    if not (loader.check_if_combination_exists and options.check_if_already_processed):
        loader.embedding_set = None
        return
    loader.embedding_set = find_set(
        loader.paths.main_embeds_path,
        str(loader.model_name),
        loader.paths.dataset,
        {**identity, **settings_identity(options)},
        known=loader.embedding_set,
        part=None if loader.part is None else loader.part.journal,
    )


def say_what_is_kept(loader: Loader, plan: RunPlan) -> None:
    """Say where results are others than the settings would make them, and which are replaced."""
    wanted = prediction_settings(loader.options)
    if plan.predictions not in (None, wanted):
        logger.info(
            "%s: predictions stay as they are stored, with classifier_threshold=%g, "
            "max_predictions_per_window=%d and sensitivity=%g; a higher threshold is applied when "
            "they are read.",
            loader.model_name,
            plan.predictions["threshold"],
            plan.predictions["top"],
            plan.predictions.get("sensitivity", 1),
        )
    if plan.predictions is not None and loader.is_part and loader.embedding_set is not None:
        chosen, wanted = set(loader.selection.names), plan.predictions
        others = [
            entry.predictions
            for name, entry in loader.embedding_set.content.done.items()
            if name not in chosen
        ]
        unlike = [made for made in others if made is None or made.settings != wanted]
        if unlike:
            logger.warning(
                "%s: %s not among those of this run keep predictions of other settings%s; run over "
                "all recordings to have the same for all.",
                loader.model_name,
                counted(len(unlike), "recording"),
                "" if unlike[0] is None else f" ({_told(unlike[0].settings)})",
            )
    if plan.replaced:
        logger.warning(
            "%s: %s of the name, size and time of recordings that were done before, but of another "
            "content, such as %s; they are embedded again in place of these. To keep the results "
            "of another card, give each its own main_results_dir.",
            shown(loader.audio_dir),
            counted(len(plan.replaced), "recording"),
            plan.replaced[0],
        )


def _told(settings: PredictionSettings) -> str:
    names = {"threshold": "classifier_threshold", "top": "max_predictions_per_window"}
    return ", ".join(f"{names.get(key, key)}={value}" for key, value in settings.items())


def _say_what_is_classified(loader: Loader, plan: RunPlan) -> None:
    """Say that scores are made anew with another sensitivity, for which all must have the same.

    Raises
    ------
    SettingsError
        If recordings that are not among those of this run would keep theirs.
    """
    if loader.embedding_set is None or plan.predictions is None:
        return
    wanted = plan.predictions.get("sensitivity", 1.0)
    chosen = set(loader.selection.names)
    other = {
        name: entry.predictions.sensitivity
        for name, entry in loader.embedding_set.content.done.items()
        if entry.predictions is not None and entry.predictions.sensitivity != wanted
    }
    apart = [name for name in other if name not in chosen] if loader.is_part else []
    if apart:
        raise SettingsError(
            f"sensitivity={wanted} is not possible for a part of the recordings: "
            f"{counted(len(apart), 'other')} would keep sensitivity={other[apart[0]]}, and scores "
            f"of both kinds would lie in one table. Run over all recordings with it, or give this "
            f"run its own main_results_dir."
        )
    if other:
        logger.info(
            "%s: predictions of %s are made anew with sensitivity=%g instead of %g; their "
            "embeddings stay.",
            loader.model_name,
            counted(len(other), "recording"),
            wanted,
            next(iter(other.values())),
        )


def take_over(loader: Loader, plan: RunPlan) -> None:
    """Do what the next run would do first, in a data set that is done."""
    if not plan.unmarked:
        return
    try:
        with alone(loader.paths.main_embeds_path, str(loader.model_name)):
            _take_over(loader, plan.unmarked)
    except (ResultsLockedError, StorageError) as error:  # another run does, or nobody can
        logger.info("The journal does not say yet what the recordings hold: %s", error)


def _take_over(loader: Loader, names: Sequence[str]) -> None:
    """Let the journal say what recordings hold whose results an older version wrote."""
    known = loader.embedding_set
    if known is None or known.identity is None or not names:
        return
    tables, number = known.content.tables, 0
    journal = Journal(known.folder)
    try:
        for name in names:
            entry = known.content.recordings.finished(name)
            fingerprint = content_fingerprint(loader.audio_dir / name)
            if entry is not None and fingerprint is not None:
                journal.append(replace(entry, fingerprint=fingerprint))
                number += 1
        if tables is not None:  # what they were made from is the same as before
            journal.append_tables(tables)
    finally:
        journal.close()
    known.reload()
    logger.info(
        "%s: taken over the results of %s of an older bacpipe, which did not record "
        "what these held; from here on, a recording that is replaced is noticed.",
        known.folder,
        counted(number, "recording"),
    )


def tables_are_complete(loader: Loader, *, predict: bool) -> bool:
    """Whether what is written at the end of a run is there and still holds."""
    known = loader.embedding_set
    if known is None or known.content.tables is None:
        return False
    wanted = _tables(loader, predict=predict)
    files = [known.folder / METADATA]
    if predict:
        name, predictions = str(loader.model_name), loader.paths.preds_path
        files += [
            detections_path(predictions, name),
            detections_csv_path(predictions, name),
            annotations_path(predictions, name),
            wide_table_path(predictions, name),
        ]
        if loader.options.save_raven_tables:
            files.append(loader.paths.raven_path)
        if lacks_range_table(loader.paths, loader.options):
            return False
    return wanted.items() <= known.content.tables.items() and all(map(Path.exists, files))


def record_tables(loader: Loader, *, predict: bool) -> None:
    """Let the journal say that everything that is written at the end of a run is complete."""
    known = loader.embedding_set
    assert known is not None
    # Times of files would say less: clocks go wrong, and a killed run leaves new files beside old.
    known.record_tables(_tables(loader, predict=predict))


def write_prediction_tables(loader: Loader, recent: RecentPredictions | None = None) -> None:
    """Write the tables over all recordings, and those that were exported for other programs."""
    options, where = loader.options, Whereabouts(loader)
    write_combined_tables(
        loader.paths.preds_path,
        str(loader.model_name),
        loader.stored_detections(recent),
        loader.predictions_provenance,
        loader.predictions_state,
        describe=Describer(loader, where, options.event_gap),
        channels=loader.channels,
        escape_formulas=options.escape_formulas,
        excel_bom=options.excel_bom,
    )
    renew_exports(loader)


def _sources(loader: Loader) -> Iterator[Source]:
    if not loader.options.only_embed_annotations:
        for name in loader.selection.names:
            yield look_at_name(name, loader.audio_dir)
        return
    segments = loader.annotated_segments()
    if not segments and loader.part is None:
        raise AnnotationsError(
            f"{shown(loader.audio_dir / loader.options.annotations_filename)}: holds no annotation "
            f"of these recordings that is at least {loader.options.min_annotation_length} s long, "
            f"so there is nothing to embed; lower min_annotation_length, or set "
            f"only_embed_annotations to false."
        )
    for name in loader.selection.names:
        if name in segments:
            yield look_at_name(name, loader.audio_dir, segments[name])


def _tables(loader: Loader, *, predict: bool) -> dict[str, Any]:
    """What the tables of a run depend on."""
    tables: dict[str, Any] = {"embeddings": loader.embeddings_state}
    if predict:
        tables["predictions"] = loader.predictions_state
        # Version 2.0 wrote the best class of a window.
        escaped = ", formulas escaped" if loader.options.escape_formulas else ""
        tables["annotations"] = f"all classes{escaped}"
        tables["detections"] = {
            "places": used_places(loader.options, loader.audio_dir),
            "range": loader.options.range_filter != "off",
            "event_gap": loader.options.event_gap or 0.0,
            "excel_bom": loader.options.excel_bom,
        }
        if calibration := calibration_state(loader.paths, str(loader.model_name)):
            tables["detections"]["calibration"] = calibration
        if loader.options.save_raven_tables:
            tables["raven"] = {"event_gap": loader.options.event_gap}
            if "classifier_threshold" in loader.options.asked:
                tables["raven"]["threshold"] = loader.options.classifier_threshold
            if loader.range_filter().hides:
                shown = {key: getattr(loader.options, key) for key in _SHOWN}
                tables["raven"] |= {key: value for key, value in shown.items() if value}
    return tables


def _remove_unfinished_sets(loader: Loader) -> None:
    """Remove sets of which a killed run has not even begun the journal."""
    what = f"{loader.model_name}-{loader.paths.dataset}"
    for folder in stamped_folders(loader.paths.main_embeds_path, what):
        remove_unfinished(folder)


def _prepare_set(loader: Loader, identity: dict[str, Any], provenance: dict[str, Any]) -> None:
    """Continue the loader's set, or start one and say why."""
    known, name = loader.embedding_set, str(loader.model_name)
    dataset = loader.paths.dataset
    if known is not None and known.identity is None:
        logger.info(
            "%s: continuing embeddings of an older bacpipe; what it computed is kept.", known.folder
        )
        there = filter(lambda name: is_recording_there(loader.audio_dir / name), known.content.done)
        sources = [look_at_name(name, loader.audio_dir) for name in there]
        stamps = {s.name: (s.size, s.mtime_ns, content_fingerprint(s.path)) for s in sources}
        adopt_old_set(known, identity, provenance, stamps)
    elif known is None:
        earlier = find_set(loader.paths.main_embeds_path, name, dataset, None)
        if earlier is not None and earlier.identity is not None:
            changed = differences(identity, earlier.identity) or ["a new set was asked for"]
            logger.info("%s: starting a new set of embeddings (%s).", name, ", ".join(changed))
        parent = loader.paths.main_embeds_path
        part = None if loader.part is None else loader.part.journal
        loader.embedding_set = create_set(parent, name, dataset, identity, provenance, part)


def _drop_empty_set(loader: Loader) -> None:
    """Remove the set of a run that broke off before its first recording."""
    known = loader.embedding_set
    if known is None or not known.folder.is_dir():
        return
    known.reload()  # the run may have broken off before it did
    if not known.content.recordings:
        shutil.rmtree(known.folder)
        loader.embedding_set = None
        predictions = loader.paths.preds_path
        if predictions_source(predictions) == known.folder.name:  # has been made room for
            (predictions / SOURCE).unlink(missing_ok=True)
            remove_empty_folders(predictions)


def _work(
    handler: AudioHandler,
    loader: Loader,
    plan: RunPlan,
    report: RunReport,
    provenance: Mapping[str, Any],
    *,
    predict: bool,
    threads: bool,
    together: Together | None = None,
    claim: Claim | None = None,
) -> RecentPredictions:
    """Do what a plan says; returns what was predicted last."""
    options, embedding_set = loader.options, loader.embedding_set
    assert embedding_set is not None
    report.kept = len(plan.keep)
    settings = plan.predictions or prediction_settings(options)
    loader.locate_predictions(newest=predict)
    writer = ResultWriter(
        embedding_set,
        loader.paths,
        str(loader.model_name),
        loader.recording_names,
        classes=list(handler.loaded_model.classes) if predict else (),
        prediction_settings=settings,
        provenance={**(embedding_set.identity or {}), **provenance, **settings},
        part=loader.part,
        claim=claim,
    )
    runner = handler.runner(scores=predict, stored=settings)
    known = embedding_set.content.done
    if (name := next((name for name in plan.keep if name in known), None)) is not None:
        runner.expect(known[name].embeddings.dim)
    progress = RunProgress(
        str(loader.model_name),
        len(plan.embed) + len(plan.classify),
        plan.embed.size + plan.classify.size,
    )
    embed = plan.embed
    try:
        embed.extend(_take_renamed(embedding_set, plan, writer, loader, report))
        writer.mark(plan.removed, "removed")
        writer.mark(plan.restored, "done")
        embed.extend(_classify(embedding_set, plan, runner, writer, report, progress, together))
        if embed:
            workload = handler.workload(runner, threads=threads)
            decode = storable(handler.decode)
            crew = None if together is None else together.crew(handler.decoder)
            run(embed, decode, runner, writer, workload, report, progress, crew=crew)
        writer.close()
    except KeyboardInterrupt:
        with suppress(KeyboardInterrupt):  # pressed again, while everything was written
            writer.close()
        writer.close()
        folder = embedding_set.folder
        if options.rm_embedding_on_keyboard_interrupt:
            writer.discard_run()
            logger.info("%s: interrupted; what this run had written is removed.", folder)
        else:
            done, most = len(embedding_set.content.done), len(loader.recording_names)
            logger.info("%s: interrupted; %d of %d recordings are done.", folder, done, most)
        raise
    except StorageError as error:
        with suppress(StorageError):  # the disk says the same to what was still waiting
            writer.close()
        raise _with_rest(error, writer, embed) from error
    finally:
        progress.close()
        runner.give_back_memory()
        writer.close()
        report.add_time("write", writer.seconds_written - writer.seconds_waited)
        report.failed += writer.unwritten.items()
        report.done -= len(writer.unwritten)
    return writer.recent


def _take_renamed(
    embedding_set: EmbeddingSet,
    plan: RunPlan,
    writer: ResultWriter,
    loader: Loader,
    report: RunReport,
) -> Iterator[Source]:
    """Store the results of renamed recordings under their new names.

    They are copied, so that a run that breaks off has lost nothing.  Yields the recordings whose
    results cannot be read, which must be embedded again.
    """
    taken: list[tuple[str, str]] = []
    for old, source in plan.renamed.items():
        entry = embedding_set.content.recordings.finished(old)
        assert entry is not None
        try:
            embeddings = read_embeddings(embedding_set, entry, verify=True)
            predictions = None
            if plan.predictions is not None:
                predictions = _stored_predictions(entry, loader, writer.classes)
        except (ResultsError, KeyError) as error:
            logger.warning("%s is embedded again (%s)", source.name, error)
            yield source
            continue
        read = (source.size, source.mtime_ns, entry.fingerprint)
        segments = None if entry.segments is None else list(entry.segments)
        writer.add(source, embeddings, predictions)
        writer.finish(
            source, StreamEnd(entry.duration, entry.padded, entry.truncated, segments, read)
        )
        report.kept += 1
        taken.append((old, source.name))
    if taken:
        logger.info(
            "%s: the results of %s are kept under new names, because the recordings were renamed, "
            "such as %s to %s.",
            shown(loader.audio_dir),
            counted(len(taken), "recording"),
            *taken[0],
        )


def _stored_predictions(
    entry: FinishedEntry, loader: Loader, classes: Sequence[str]
) -> SparsePredictions:
    """Predictions of a recording with the numbers of their classes.

    Raises
    ------
    ResultsError, KeyError
        If they cannot be read, or the model has no such class.
    """
    stored = entry.predictions
    if stored is None or stored.path is None:
        return SparsePredictions.join([])
    path = path_inside(loader.paths.sparse_predictions_path, stored.path, what="the journal")
    window, label, score = read_predictions(path, entry.windows, stored, below=True)
    number = {name: i for i, name in enumerate(classes)}
    return SparsePredictions(
        window, np.array([number[name] for name in label.tolist()], np.int32), score
    )


def _with_rest(error: StorageError, writer: ResultWriter, sources: Sources) -> StorageError:
    """Say also how much the rest of the run needs, going by what it has written so far."""
    if not is_disk_full(error) or error.path is None or not writer.bytes_read:
        return error
    left = sources.size - writer.bytes_read
    rest = round(max(left, 0) * writer.bytes_written / writer.bytes_read)
    return storage_error(error.path, error, error.needed, rest)


def _classify(
    embedding_set: EmbeddingSet,
    plan: RunPlan,
    runner: ModelRunner,
    writer: ResultWriter,
    report: RunReport,
    progress: RunProgress,
    together: Together | None,
) -> Iterable[Source]:
    """Classify stored embeddings; returns the recordings that must be embedded again."""
    if runner.model.one_pass:
        return plan.classify
    again: list[Source] = []
    for source in plan.classify:
        if together is not None:
            together.check()
        entry = embedding_set.content.done[source.name]
        try:
            embeddings = read_embeddings(embedding_set, entry, verify=True)
            predictions = runner.classify(embeddings).predictions
            assert predictions is not None
        except Exception as error:
            # Embedding the recording anew mends it, or tells why it cannot be done.
            logger.warning("%s is embedded again (%s)", source.name, error)
            again.append(source)
            continue
        writer.classify(source, predictions)
        report.done += 1
        report.windows += len(embeddings)
        report.audio_seconds += entry.duration
        progress.advance(source.size, entry.duration)
    return again
