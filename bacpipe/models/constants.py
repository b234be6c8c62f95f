"""Constants of the public API, derived from the cards."""

from __future__ import annotations

from bacpipe.models.zoo import CARDS

supported_models: list[str] = list(CARDS)
EMBEDDING_DIMENSIONS: dict[str, int] = {name: card.dim for name, card in CARDS.items()}
TF_MODELS: list[str] = [name for name, card in CARDS.items() if card.backend == "tensorflow"]
NEEDS_CHECKPOINT: list[str] = [name for name, card in CARDS.items() if card.needs_checkpoint]
models_needing_checkpoint: list[str] = NEEDS_CHECKPOINT
