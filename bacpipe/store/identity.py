"""What makes two sets of embeddings the same or different."""

from __future__ import annotations

from typing import Any

from bacpipe.configuration import Options


def settings_identity(options: Options) -> dict[str, Any]:
    """Settings that change embeddings.

    Batch size, device, numbers of workers and the like are not among them.

    Returns
    -------
    dict
        ``hop`` (seconds or None), ``padding``, ``speed`` (1 without time expansion),
        ``only_annotated`` and ``precision``.
    """
    return {
        "hop": options.hop,
        "padding": options.padding,
        "speed": options.new_speed if options.bool_change_speed else 1,
        "only_annotated": options.only_embed_annotations,
        "precision": options.precision,
    }


def prediction_settings(options: Options) -> dict[str, Any]:
    """Settings that change predictions, but not embeddings."""
    return {"threshold": options.classifier_threshold, "top": options.max_predictions_per_window}
