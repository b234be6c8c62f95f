"""What a run would do, found out without loading a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bacpipe.errors import AnnotationsError
from bacpipe.models.checkpoints import checkpoint_hash, resolve
from bacpipe.models.zoo import CARDS
from bacpipe.store.identity import prediction_settings, settings_identity
from bacpipe.store.layout import dataset_name
from bacpipe.store.plan import RunPlan, Source, look_at_name, make_plan
from bacpipe.store.sets import find_set

if TYPE_CHECKING:
    from bacpipe.configuration import Options
    from bacpipe.store.loader import Loader


def model_identity(model_name: str, options: Options, model: Any = None) -> dict[str, Any]:
    """What of a model changes its embeddings.

    Parameters
    ----------
    model_name : str
        Name of the model.
    options : Options
        Where checkpoints are.
    model : object, optional
        The loaded model; needed for models that are not of the zoo.

    Returns
    -------
    dict
        ``model``, ``sample_rate``, ``window`` and ``checkpoint`` (SHA-256 by file).
    """
    card = getattr(model, "card", None) if model is not None else CARDS.get(model_name)
    if card is None:
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

    Parameters
    ----------
    loader : Loader
        Data set and results tree.
    identity : mapping
        What `model_identity` returned.
    predict : bool
        Whether predictions are wanted and the model has a classifier.
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


def tables_are_complete(loader: Loader, *, predict: bool) -> bool:
    """Whether what is written at the end of a run is there and still holds."""
    found = loader.embedding_set
    if found is None or found.content.tables is None:
        return False
    wanted = _tables(loader, predict=predict)
    files = [found.folder / "metadata.yml"]
    if predict:
        name, predictions = loader.model_name, loader.paths.preds_path
        files += [
            predictions / f"{name}_detections.parquet",
            predictions / f"{name}_classifier_annotations.csv",
            predictions / f"{name}_all_predictions.parquet",
        ]
        if loader.options.save_raven_tables:
            files.append(loader.paths.raven_path)
    return wanted.items() <= found.content.tables.items() and all(map(Path.exists, files))


def record_tables(loader: Loader, *, predict: bool) -> None:
    """Let the journal say that everything that is written at the end of a run is complete."""
    found = loader.embedding_set
    assert found is not None
    # Times of files would say less: clocks go wrong, and a killed run leaves new files beside old.
    found.record_tables(_tables(loader, predict=predict))


def _tables(loader: Loader, *, predict: bool) -> dict[str, Any]:
    """What the tables of a run depend on."""
    tables: dict[str, Any] = {"embeddings": loader.embeddings_state}
    if predict:
        tables["predictions"] = loader.predictions_state
        if loader.options.save_raven_tables:
            tables["raven"] = {"event_gap": loader.options.event_gap}
    return tables
