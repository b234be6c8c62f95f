"""What a visitor looks for, and the library's answer."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from bacpipe.dashboard.search.clip_upload import Clip
from bacpipe.dashboard.shared.recognisers import recogniser_of
from bacpipe.dashboard.shared.results import DataSetResults, ModelResults
from bacpipe.errors import SettingsError
from bacpipe.models.zoo import CARDS
from bacpipe.search.find import search
from bacpipe.search.index import SearchIndex
from bacpipe.search.queries import Query, TextModel, embedder_for, has_words
from bacpipe.store.tables import CHANNEL

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from bacpipe.embedder import Embedder

Place = tuple[str, float] | tuple[str, float, int]
"""Recording, seconds at which a window starts, and its channel if each was heard by itself."""

# Indices and models are not made for several threads.  Those of pages wait for one another before
# they get a thread; this is for notebooks and scripts beside them.
_ONE_BY_ONE = threading.Lock()


class Request(NamedTuple):
    """What to look for, and where.

    Attributes
    ----------
    model : str
        Whose embeddings.
    by : str
        What to search with: windows, clip, words or recogniser.
    like, unlike : tuple of Place
        Windows that are examples, and such that are not.
    clip : Clip or None
    words : str
    recogniser : (name, class) or None
    where : mapping
        Conditions, as `bacpipe.search` takes them.
    elsewhere : bool
        Whether to leave out recordings that examples are from.
    gap : float
        Least seconds between results of one recording; 0 for none.
    most : int
        How many windows.
    """

    model: str
    by: str
    like: tuple[Place, ...] = ()
    unlike: tuple[Place, ...] = ()
    clip: Clip | None = None
    words: str = ""
    recogniser: tuple[str, str] | None = None
    where: Mapping[str, object] = {}
    elsewhere: bool = False
    gap: float = 0.0
    most: int = 60

    @property
    def lacks(self) -> str:
        """What is still to be chosen; '' if nothing is."""
        if self.by == "windows" and not self.like:
            return (
                "Choose a window to search with: type its recording and second at the left, or "
                "click on one in Explore and then on “Search with this window”."
            )
        if self.by == "clip" and self.clip is None:
            return "Choose a clip at the left."
        if self.by == "words" and not self.words.strip():
            return "Describe a sound at the left, such as: the song of a robin."
        if self.by == "recogniser" and self.recogniser is None:
            return "There is no recogniser of this model yet; make one in Teach."
        return ""


class Answer(NamedTuple):
    """What was found: the table of `bacpipe.search`, and the model that it is of."""

    results: ModelResults
    table: pd.DataFrame
    request: Request


def answer(data_set: DataSetResults, request: Request) -> Answer:
    """Search.

    Raises
    ------
    BacpipeError
        If something is not possible; says what.
    """
    results = data_set.model(request.model)
    with _ONE_BY_ONE:
        index = _index(results)
        if request.by == "clip":
            assert request.clip is not None
            with request.clip.on_disk() as path:
                table = _search(path, request, index, _embedder(results))
        else:
            table = _search(_query(results, request), request, index)
    if request.by == "recogniser" and request.recogniser is not None and "query" in table:
        table = table[table["query"] == request.recogniser[1]].reset_index(drop=True)
    return Answer(results, table, request)


def _search(
    query: Query, request: Request, index: SearchIndex, embedder: Embedder | None = None
) -> pd.DataFrame:
    return search(
        query,
        loader=index,
        embedder=embedder,
        k=request.most,
        where=request.where,
        exclude_same_recording=request.elsewhere,
        min_gap=request.gap or None,
    )


def _query(results: ModelResults, request: Request) -> Query:
    if request.by == "words":
        return _embedded_words(results, request.words)
    if request.by == "recogniser":
        assert request.recogniser is not None
        return recogniser_of(results, request.recogniser[0])
    # Only recordings of this data set: the library would take any path.
    like, unlike = map(_rows_of, (request.like, request.unlike))
    for row in (*like, *unlike):
        results.rows_of(str(row["recording"]))
    if len(like) == 1 and not unlike:
        return like[0]
    return {"positives": like, "negatives": unlike}


def _rows_of(places: Sequence[Place]) -> list[dict[str, str | float]]:
    """Windows as rows of a table, which is what the library takes with a channel."""
    return [dict(zip(("recording", "start", CHANNEL), place, strict=False)) for place in places]


def understands_words(model: str) -> bool:
    """Whether a model can be searched with words."""
    return model in CARDS and has_words(CARDS[model])


def _embedded_words(results: ModelResults, words: str) -> np.ndarray:
    # Embedded here, because the library would take some words for the path of a file.
    if not understands_words(results.name):
        able = " or ".join(name for name, card in CARDS.items() if has_words(card))
        raise SettingsError(
            f"{results.name} does not understand words; {able} do: run one of them on these "
            f"recordings."
        )
    model = _embedder(results).loaded_model
    assert isinstance(model, TextModel)
    row: np.ndarray = model.embed_text([words.strip()])[0].cpu().numpy()
    return row


@lru_cache(maxsize=4)
def _index(results: ModelResults) -> SearchIndex:
    return SearchIndex(results.loader)


@lru_cache(maxsize=1)  # models are large
def _embedder(results: ModelResults) -> Embedder:
    return embedder_for(_index(results))
