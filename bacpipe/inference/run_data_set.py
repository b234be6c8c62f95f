"""Run a model over a data set: plan what is to be done, lock, embed, classify, write tables."""

from __future__ import annotations

import logging
import platform
import shutil
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from bacpipe._version import __version__
from bacpipe.audio.stream import Samples
from bacpipe.errors import AnnotationsError, AudioError, NothingEmbeddedError, StorageError, counted
from bacpipe.inference.audio_handler import AudioHandler
from bacpipe.inference.pipeline import Decode, run
from bacpipe.inference.report import RunProgress, RunReport
from bacpipe.inference.runner import ModelRunner
from bacpipe.labels.exporting import write_raven_tables
from bacpipe.models.base import Model
from bacpipe.models.weights.checkpoints import checkpoint_hash, resolve
from bacpipe.models.zoo import CARDS
from bacpipe.options import Options
from bacpipe.store.detections import merge_detections
from bacpipe.store.embedding_set import (
    EmbeddingSet,
    adopt_old_set,
    create_set,
    differences,
    find_set,
    prediction_settings,
    read_embeddings,
    settings_identity,
)
from bacpipe.store.files import is_disk_full, remove_unfinished, storage_error
from bacpipe.store.layout import (
    METADATA,
    Stems,
    annotations_path,
    dataset_name,
    detections_path,
    stamped_folders,
    wide_table_path,
)
from bacpipe.store.loader import Loader
from bacpipe.store.lock import exclusive
from bacpipe.store.plan import RunPlan, Source, Sources, StreamEnd, look_at_name, make_plan
from bacpipe.store.tables import write_combined_tables
from bacpipe.store.writer import ResultWriter

logger = logging.getLogger(__name__)


def embed_data_set(handler: AudioHandler, loader: Loader, *, threads: bool) -> RunReport:
    """Embed what is not done yet and store the results.

    Parameters
    ----------
    handler : AudioHandler
        The model, such as an `Embedder`.
    loader : Loader
        Data set and results tree; reads the results afterwards.
    threads : bool
        False decodes and computes by turns.

    Raises
    ------
    NothingEmbeddedError
        If not one recording could be embedded.
    ResultsLockedError
        If another run writes these results.
    """
    options, model = loader.options, handler.loaded_model
    report = RunReport(str(loader.model_name))
    predict = options.run_pretrained_classifier and bool(model.classes)
    identity = model_identity(str(loader.model_name), options, model)
    with exclusive(loader.paths.main_embeds_path, str(loader.model_name)):
        _remove_unfinished_sets(loader)
        plan = plan_run(loader, identity, predict=predict)
        if plan.is_empty and tables_are_complete(loader, predict=predict):
            report.kept, report.results = len(plan.keep), loader.embed_dir
            return report
        full = {**identity, **settings_identity(options)}
        provenance = {
            "version": __version__,
            "device": str(model.device),
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        }
        created = loader.embedding_set is None
        _prepare_set(loader, full, provenance)
        try:
            _work(handler, loader, plan, report, provenance, predict=predict, threads=threads)
        except BaseException:
            if created:
                _drop_empty_set(loader)
            raise
        report.results = loader.embed_dir
        if loader.embedding_set is None or not loader.embedding_set.content.recordings.has_done:
            reasons = "; ".join(reason for _, reason in report.failed[:3])
            raise NothingEmbeddedError(
                f"{loader.audio_dir}: none of {counted(len(report.failed), 'recording')} could be "
                f"embedded ({reasons})."
            )
        loader.write_metadata_file()
        if predict:
            write_prediction_tables(loader)
        record_tables(loader, predict=predict)
    return report


def model_identity(model_name: str, options: Options, model: Model | None = None) -> dict[str, Any]:
    """What of a model changes its embeddings: name, sample rate, window, checkpoint (SHA-256).

    Models of the zoo need not be loaded for it; the options tell where checkpoints are.
    """
    card = model.card if model is not None else CARDS[model_name]
    if card is None:
        assert model is not None
        kind = type(model)
        return {
            "model": model_name,
            "sample_rate": int(model.sr),
            "window": int(model.segment_length),
            "checkpoint": f"{kind.__module__}.{kind.__qualname__}",
        }
    base = Path(options.model_base_path)
    files = resolve(card, base) if model is None else model.files
    return {
        "model": card.name,
        "sample_rate": card.sample_rate,
        "window": card.window,
        "checkpoint": {name: checkpoint_hash(path, base) for name, path in files.items()},
    }


def plan_run(loader: Loader, identity: Mapping[str, Any], *, predict: bool) -> RunPlan:
    """Decide what is to be done, and let the loader point to the set to continue.

    `identity` is what `model_identity` returned; `predict` tells whether predictions are wanted
    and the model has a classifier.
    """
    options = loader.options
    wanted = {**identity, **settings_identity(options)}
    if loader.check_if_combination_exists and options.check_if_already_processed:
        loader.embedding_set = find_set(
            loader.paths.main_embeds_path,
            str(loader.model_name),
            dataset_name(loader.audio_dir),
            wanted,
            known=loader.embedding_set,
        )
    else:
        loader.embedding_set = None
    return make_plan(
        loader.embedding_set,
        loader.paths,
        _sources(loader),
        predictions=prediction_settings(options) if predict else None,
        allow_truncated=options.allow_truncated,
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
            annotations_path(predictions, name),
            wide_table_path(predictions, name),
        ]
        if loader.options.save_raven_tables:
            files.append(loader.paths.raven_path)
    return wanted.items() <= known.content.tables.items() and all(map(Path.exists, files))


def record_tables(loader: Loader, *, predict: bool) -> None:
    """Let the journal say that everything that is written at the end of a run is complete."""
    known = loader.embedding_set
    assert known is not None
    # Times of files would say less: clocks go wrong, and a killed run leaves new files beside old.
    known.record_tables(_tables(loader, predict=predict))


def write_prediction_tables(loader: Loader) -> None:
    """Write the tables over all recordings and, if the settings say so, Raven's."""
    name = str(loader.model_name)
    write_combined_tables(
        loader.paths.preds_path,
        name,
        loader.detections(),
        loader.predictions_provenance,
        loader.predictions_state,
    )
    if not loader.options.save_raven_tables:
        return
    gap = loader.options.event_gap
    events = (merge_detections(item, gap) for item in loader.detections())
    write_raven_tables(loader, loader.paths.raven_path, events, Stems(loader.recording_names))


def _sources(loader: Loader) -> Iterator[Source]:
    if not loader.options.only_embed_annotations:
        for name in loader.recording_names:
            yield look_at_name(name, loader.audio_dir)
        return
    segments = loader.annotated_segments()
    if not segments:
        raise AnnotationsError(
            f"{loader.audio_dir / loader.options.annotations_filename}: holds no annotation of "
            f"these recordings that is at least {loader.options.min_annotation_length} s long, so "
            f"there is nothing to embed; lower min_annotation_length, or set "
            f"only_embed_annotations to false."
        )
    for name in loader.recording_names:
        if name in segments:
            yield look_at_name(name, loader.audio_dir, segments[name])


def _tables(loader: Loader, *, predict: bool) -> dict[str, Any]:
    """What the tables of a run depend on."""
    tables: dict[str, Any] = {"embeddings": loader.embeddings_state}
    if predict:
        tables["predictions"] = loader.predictions_state
        if loader.options.save_raven_tables:
            tables["raven"] = {"event_gap": loader.options.event_gap}
    return tables


def _remove_unfinished_sets(loader: Loader) -> None:
    """Remove sets of which a killed run has not even begun the journal."""
    what = f"{loader.model_name}-{dataset_name(loader.audio_dir)}"
    for folder in stamped_folders(loader.paths.main_embeds_path, what):
        remove_unfinished(folder)


def _prepare_set(loader: Loader, identity: dict[str, Any], provenance: dict[str, Any]) -> None:
    """Continue the loader's set, or start one and say why."""
    known, name = loader.embedding_set, str(loader.model_name)
    dataset = dataset_name(loader.audio_dir)
    if known is not None and known.identity is None:
        logger.info(
            "%s: continuing embeddings of an older bacpipe; what it computed is kept.", known.folder
        )
        sources = [look_at_name(name, loader.audio_dir) for name in loader.recording_names]
        stamps = {s.name: (s.size, s.mtime_ns) for s in sources}
        adopt_old_set(known, identity, provenance, stamps)
    elif known is None:
        earlier = find_set(loader.paths.main_embeds_path, name, dataset, None)
        if earlier is not None and earlier.identity is not None:
            changed = differences(identity, earlier.identity) or ["a new set was asked for"]
            logger.info("%s: starting a new set of embeddings (%s).", name, ", ".join(changed))
        parent = loader.paths.main_embeds_path
        loader.embedding_set = create_set(parent, name, dataset, identity, provenance)


def _drop_empty_set(loader: Loader) -> None:
    """Remove the set of a run that broke off before its first recording."""
    known = loader.embedding_set
    if known is None or not known.folder.is_dir():
        return
    known.reload()  # the run may have broken off before it did
    if not known.content.recordings:
        shutil.rmtree(known.folder)
        loader.embedding_set = None


def _work(
    handler: AudioHandler,
    loader: Loader,
    plan: RunPlan,
    report: RunReport,
    provenance: Mapping[str, Any],
    *,
    predict: bool,
    threads: bool,
) -> None:
    options, embedding_set = loader.options, loader.embedding_set
    assert embedding_set is not None
    report.kept = len(plan.keep)
    settings = prediction_settings(options)
    writer = ResultWriter(
        embedding_set,
        loader.paths,
        str(loader.model_name),
        loader.recording_names,
        classes=list(handler.loaded_model.classes) if predict else (),
        prediction_settings=settings,
        provenance={**(embedding_set.identity or {}), **provenance, **settings},
    )
    runner = handler.runner(scores=predict)
    progress = RunProgress(
        str(loader.model_name),
        len(plan.embed) + len(plan.classify),
        plan.embed.size + plan.classify.size,
    )
    embed = plan.embed
    try:
        writer.mark(plan.removed, "removed")
        writer.mark(plan.restored, "done")
        embed.extend(_classify(embedding_set, plan, runner, writer, report, progress))
        if embed:
            workload = handler.workload(runner, threads=threads)
            run(embed, _storable(handler.decode), runner, writer, workload, report, progress)
        writer.close()
    except KeyboardInterrupt:
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
        writer.close()
        report.add_time("write", writer.seconds_written - writer.seconds_waited)
        report.failed += writer.unwritten.items()
        report.done -= len(writer.unwritten)


def _storable(decode: Decode) -> Decode:
    """Decode only recordings whose names can be written into tables."""

    def checked(source: Source) -> Generator[Samples, None, StreamEnd]:
        try:
            source.name.encode()
        except UnicodeEncodeError:
            raise AudioError(
                f"{source.name}: its name is not valid text (UTF-8), so no table can hold it; "
                f"rename the file or its folder."
            ) from None
        return (yield from decode(source))

    return checked


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
) -> Iterable[Source]:
    """Classify stored embeddings; returns the recordings that must be embedded again."""
    if runner.model.one_pass:
        return plan.classify
    again: list[Source] = []
    for source in plan.classify:
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
