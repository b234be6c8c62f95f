"""Constants of the public API, derived from the cards."""

from __future__ import annotations

from bacpipe.models.zoo import CARDS

supported_models: list[str] = list(CARDS)
"""Names of all models of the zoo."""

EMBEDDING_DIMENSIONS: dict[str, int] = {name: card.dim for name, card in CARDS.items()}
"""Length of one embedding, by model."""

TF_MODELS: list[str] = [name for name, card in CARDS.items() if card.backend == "tensorflow"]
"""Models that TensorFlow computes (extra ``tensorflow``)."""

NEEDS_CHECKPOINT: list[str] = [name for name, card in CARDS.items() if card.needs_checkpoint]
"""Models whose weights are downloaded when they are first used; the others' are installed."""

models_needing_checkpoint: list[str] = NEEDS_CHECKPOINT
"""The same list under another name."""
