"""Recognisers that were trained on the data set that is shown."""

from __future__ import annotations

import logging
from pathlib import Path

from bacpipe.dashboard.shared.results import ModelResults
from bacpipe.errors import BacpipeError, ResultsNotFoundError
from bacpipe.recognisers.recogniser import Recogniser
from bacpipe.store.layout import RECOGNISER_WEIGHTS

logger = logging.getLogger(__name__)


def recognisers_of(results: ModelResults) -> dict[str, Recogniser]:
    """Recognisers of the data set that take the embeddings of a model, by their name."""
    recognisers = {}
    for path in sorted(_folder(results).glob(f"*/{RECOGNISER_WEIGHTS}")):
        try:
            recogniser = Recogniser.load(path.parent)
        except BacpipeError as error:
            logger.warning("a recogniser is not shown: %s", error)
            continue
        if recogniser.model == results.name:
            recognisers[path.parent.name] = recogniser
    return recognisers


def recogniser_of(results: ModelResults, name: str) -> Recogniser:
    """One of these.

    Names come from visitors, so they are looked up among those that are there.

    Raises
    ------
    ResultsNotFoundError
        If there is none of this name.
    """
    recognisers = recognisers_of(results)
    if name not in recognisers:
        raise ResultsNotFoundError(
            f"There is no recogniser {name!r} for {results.name} here; there are: "
            f"{', '.join(recognisers) or 'none'}."
        )
    return recognisers[name]


def _folder(results: ModelResults) -> Path:
    return Path(results.loader.paths.recognisers_path)
