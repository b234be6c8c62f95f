"""What the workers on the shards of a data set have in common.

The plan, or the first worker, writes down which version, weights and settings all have (the
contract); others are refused with the difference.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bacpipe._version import __version__
from bacpipe.errors import ResultsError, ResultsLockedError
from bacpipe.models.weights import checkpoints
from bacpipe.models.zoo import CARDS
from bacpipe.options import Options, make_options, with_changes
from bacpipe.scaling.manifest import Manifest
from bacpipe.store.claims import create_once
from bacpipe.store.embedding_set import (
    differences,
    options_for,
    prediction_settings,
    settings_identity,
)
from bacpipe.store.files import write_json
from bacpipe.store.layout import ResultPaths

# What all workers must have in common, and what a merge needs to make the same tables.
_DECISIVE = (
    "audio_suffixes", "padding", "channel", "hop", "overlap", "allow_truncated",
    "bool_change_speed", "new_speed", "precision", "run_pretrained_classifier",
    "classifier_threshold", "sensitivity", "max_predictions_per_window",
    "annotations_filename", "only_embed_annotations", "min_annotation_length",
)  # fmt: skip
_FOR_TABLES = (
    "sites", "latitude", "longitude", "time_zone", "range_filter", "range_threshold",
    "species_list", "event_gap", "escape_formulas", "excel_bom", "save_raven_tables",
)  # fmt: skip


def shared_settings(options: Options) -> dict[str, Any]:
    """Settings of a plan that its workers and its merge have, too, as JSON holds them."""
    keys = [key for key in (*_DECISIVE, *_FOR_TABLES) if key in options.asked]
    values: dict[str, Any] = json.loads(
        json.dumps({key: getattr(options, key) for key in keys}, default=str)
    )
    return values


def changed_settings(before: Manifest, settings: Mapping[str, Any]) -> list[str]:
    """Decisive settings in which a plan differs from the one that is there."""
    usual = decisive_settings(make_options())
    now, then = ({**usual, **given} for given in (settings, before.settings))
    return differences(now, {key: then[key] for key in _DECISIVE})


def decisive_settings(options: Options) -> dict[str, Any]:
    """Decisive settings, asked for or not, as JSON holds them."""
    values: dict[str, Any] = json.loads(
        json.dumps({key: getattr(options, key) for key in _DECISIVE}, default=str)
    )
    return values


def options_of_plan(options: Options, manifest: Manifest) -> Options:
    """Options of a worker: those of the plan, and its own where they decide nothing.

    Raises
    ------
    ResultsError
        If they contradict each other, or the plan was made by another version.
    """
    usual, own = decisive_settings(make_options()), decisive_settings(options)
    planned = {**usual, **manifest.settings}
    asked = [key for key in _DECISIVE if key in options.asked]
    different = differences(own, {key: planned[key] for key in asked})
    if manifest.version != __version__:
        different.insert(0, f"bacpipe {__version__} instead of {manifest.version}")
    if different:
        raise ResultsError(
            f"{manifest.path}: these shards were planned with other settings than those of this "
            f"worker ({', '.join(different)}); use those of the plan, or plan the shards again, "
            f"when nobody works on them."
        )
    kept = {key: value for key, value in manifest.settings.items() if key not in options.asked}
    return with_changes(
        options, **kept, recordings=None, models=manifest.models, check_if_already_processed=True
    )


def write_contracts(
    paths: ResultPaths, options: Options, models: Sequence[str], custom: Mapping[str, object]
) -> bool:
    """Write down what workers have to have, as far as it is known; whether anything changed."""
    changed = False
    for model in models:
        path = paths.contract_path(model)
        before = read_contract(path)
        path.unlink(missing_ok=True)
        card = CARDS.get(model)
        base = Path(options.model_base_path)
        if model in custom or card is None or checkpoints.missing_files(card, base):
            continue  # the first worker does
        from bacpipe.inference.run_data_set import model_identity

        predict = options.run_pretrained_classifier and card.is_classifier
        chosen = options_for(options, model)
        contract = make_contract(model_identity(model, chosen), chosen, predict=predict)
        write_json(path, contract)
        changed = changed or (
            before is not None and _without_version(before) != _without_version(contract)
        )
    return changed


def make_contract(
    identity: Mapping[str, Any], options: Options, *, predict: bool
) -> dict[str, Any]:
    """What a worker with these options computes, as JSON holds it."""
    contract = {
        "bacpipe": __version__,
        "identity": {**identity, **settings_identity(options)},
        "predictions": prediction_settings(options) if predict else None,
    }
    plain: dict[str, Any] = json.loads(json.dumps(contract))
    return plain


def _without_version(contract: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in contract.items() if key != "bacpipe"}


def read_contract(path: Path) -> dict[str, Any] | None:
    """What was agreed on; None if nothing was yet.

    Raises
    ------
    ResultsError
        If it cannot be read.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise ResultsError(
            f"{path}: what the workers agreed on cannot be read ({error}); plan the shards again."
        ) from None
    if (
        not isinstance(content, dict)
        or not isinstance(content.get("identity"), dict)
        or not isinstance(content.get("predictions") or {}, dict)
    ):
        raise ResultsError(f"{path}: is no agreement of workers; plan the shards again.")
    return content


def agree(path: Path, mine: Mapping[str, Any]) -> None:
    """Make sure that a worker computes what the others do.

    Raises
    ------
    ResultsError
        Naming the differences.
    """
    if create_once(path, json.dumps(mine, indent=2) + "\n"):
        return
    theirs = read_contract(path)
    if theirs is None:
        raise ResultsLockedError(f"{path}: the shards are being planned; try again.")
    flat = [
        {"bacpipe": what.get("bacpipe"), **what["identity"], **(what.get("predictions") or {})}
        | {"run_pretrained_classifier": what.get("predictions") is not None}
        for what in (mine, theirs)
    ]
    if different := differences(*flat):
        raise ResultsError(
            f"{path}: this worker would compute other results than those before it "
            f"({', '.join(different)}); use the same version, weights and settings on all "
            f"machines, or plan the shards again with those of this one, when nobody works on them."
        )
