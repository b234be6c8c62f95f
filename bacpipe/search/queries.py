"""What is searched for, as directions in the space of embeddings."""

from __future__ import annotations

import difflib
import logging
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeGuard, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bacpipe.audio.files import read_recording
from bacpipe.audio.remote import as_path, is_recording_there, url_of
from bacpipe.audio.stream import read_audio
from bacpipe.errors import AudioError, ResultsError, ResultsNotFoundError, SettingsError, counted
from bacpipe.models.card import ModelCard
from bacpipe.models.zoo import CARDS
from bacpipe.search.index import SearchIndex
from bacpipe.search.scan import Floats, Queries
from bacpipe.store.embedding_set import differences, settings_of
from bacpipe.store.layout import RECOGNISER_WEIGHTS
from bacpipe.store.loader import Loader
from bacpipe.store.tables import CHANNEL
from bacpipe.user_input import is_file, typed_path

if TYPE_CHECKING:
    from torch import Tensor

    from bacpipe.embedder import Embedder

logger = logging.getLogger(__name__)

_KINDS = (
    "expected the path of a clip, (recording, start), a row of a table of windows, an embedding, a "
    "list of such examples, (positives, negatives), a recogniser, or words"
)


@runtime_checkable
class LinearRecogniser(Protocol):
    """Classes that are learned as linear functions of embeddings, or of their square roots.

    Attributes
    ----------
    classes : sequence of str
        Names of the classes.
    weight : np.ndarray, shape (classes, dim)
    bias : np.ndarray, shape (classes,)
        The logit of a class for an embedding x is ``weight @ x + bias``; if there is an attribute
        ``square_roots`` that is true, x is the square roots of an embedding.
    """

    @property
    def classes(self) -> Sequence[str]: ...
    @property
    def weight(self) -> NDArray[Any]: ...
    @property
    def bias(self) -> NDArray[Any]: ...
    def check(self, loader: Loader) -> None:
        """Raise an error if the embeddings are another model's than those it was trained on."""


@runtime_checkable
class TextModel(Protocol):
    """A model that embeds words in the space of sounds."""

    def embed_text(self, texts: list[str]) -> Tensor: ...


Example: TypeAlias = (
    str
    | Path
    | tuple[str | Path, float]
    | tuple[str | Path, float, float]
    | Mapping[str, object]
    | ArrayLike
)
Query: TypeAlias = (
    Example
    | Sequence[Example]
    | tuple[Sequence[Example], Sequence[Example]]
    | Mapping[str, Sequence[Example]]
    | LinearRecogniser
)


@dataclass
class Sought:
    """A query that is understood.

    Attributes
    ----------
    queries : Queries
        Directions, one for each answer that is wanted.
    names : list
        What the answers are called, if there are several.
    recordings : set of str
        Where the examples are from, as far as they are from recordings of the data set.
    factors, offsets : np.ndarray, float64, shape (m,)
        What makes the product with a direction the similarity.
    """

    queries: Queries
    names: list[int | str] = field(default_factory=list)
    recordings: set[str] = field(default_factory=set)
    factors: Floats = field(default_factory=lambda: np.ones(1))
    offsets: Floats = field(default_factory=lambda: np.zeros(1))


class QueryReader:
    """Makes directions of what people search for.

    Parameters
    ----------
    index : SearchIndex
        What is searched.
    embedder : Embedder, optional
        The model that the embeddings are of; loaded when it is needed unless given.
    custom : class or object, optional
        The user's own model, to be loaded.
    """

    def __init__(
        self, index: SearchIndex, embedder: Embedder | None = None, custom: object = None
    ) -> None:
        self._index = index
        self._given = embedder
        self._custom = custom
        self.recordings: set[str] = set()

    def read(self, query: Query, start: float | None, end: float | None) -> Sought:
        """Understand a query.

        Raises
        ------
        SettingsError
            If it is none, or belongs to another model.
        AudioError
            If a clip cannot be read, or is silent.
        ResultsError
            If a recording has changed since it was embedded.
        ResultsNotFoundError
            If a recording has no embeddings, or has no window at that time.
        """
        self.recordings = set()
        if isinstance(query, LinearRecogniser):
            return self._recogniser(query)
        if (start is not None or end is not None) and not isinstance(query, str | Path):
            raise SettingsError(
                f"start and end belong to the path of a clip, but the query is {_shown(query)}."
            )
        if isinstance(query, str | Path):
            directions = self._path_or_words(query, start, end)[None]
        elif isinstance(query, np.ndarray) and query.ndim == 2:
            directions = np.stack([self._embedding(row) for row in query])
        elif (
            isinstance(query, np.ndarray)
            or _is_place(query)
            or _is_row(query)
            or _is_numbers(query)
        ):
            directions = self._example(query)[None]
        else:
            directions = self._contrast(query)[None]
        names: list[int | str] = list(range(len(directions))) if len(directions) > 1 else []
        count = len(directions)
        queries = Queries(directions)
        return Sought(queries, names, self.recordings, np.ones(count), np.zeros(count))

    # ------------------------------------------------------------------ several examples

    def _contrast(self, query: object) -> Floats:
        """Mean of the examples, less the mean of what they are to be told from."""
        positives, negatives = _parted(query)
        if not positives:
            raise SettingsError(f"There is no positive example in {_shown(query)}; {_KINDS}.")
        wanted = np.mean([self._example(item) for item in positives], axis=0)
        if negatives:
            others = np.mean([self._example(item) for item in negatives], axis=0)
        else:
            others = self._index.mean_direction()
        return self._direction(wanted - others, "the mean of the examples less that of the others")

    def _example(self, item: object) -> Floats:
        if isinstance(item, str | Path):
            return self._clip(item, None, None)
        if _is_row(item):
            recording = self._known(str(item["recording"]))
            if recording is None:
                raise self._unknown(str(item["recording"]))
            return self._window(recording, _number(item, "start"), self._channel(item))
        if _is_place(item):
            name, *times = item
            recording = self._known(name)
            if len(times) == 1 and recording is not None:
                return self._window(recording, times[0])
            if len(times) == 1 and not is_file(typed_path(name)):
                raise self._unknown(str(name))
            return self._clip(name, times[0], times[1] if len(times) > 1 else None)
        return self._embedding(item)

    # ------------------------------------------------------------------ embeddings

    def _embedding(self, item: object) -> Floats:
        try:
            row = np.asarray(item, dtype=np.float64)
        except (ValueError, TypeError):
            raise SettingsError(f"{_shown(item)} is no query; {_KINDS}.") from None
        if row.ndim == 2 and len(row) == 1:
            row = row[0]
        model, dim = self._index.loader.model_name, self._index.dim
        if row.ndim != 1 or len(row) != dim:
            raise SettingsError(
                f"The query has shape {row.shape}, but embeddings of {model} have {dim} values; "
                f"make it with {model}, or search the results of the model that it is from."
            )
        return self._direction(row, "the query")

    def _direction(self, row: Floats, what: str) -> Floats:
        length = float(np.linalg.norm(row))
        if not np.isfinite(length):
            raise SettingsError(f"{what} holds values that are not numbers; expected an embedding.")
        if length < 1e-12:
            raise SettingsError(
                f"{what} is zero, so nothing is more similar to it than anything else."
            )
        return row / length

    def _channel(self, row: Mapping[str, object]) -> int | None:
        """Channel that a row of a table names."""
        value = row.get(CHANNEL)
        return None if value is None or value != value else int(_number(row, CHANNEL))

    def _window(self, recording: str, start: float, channel: int | None = None) -> Floats:
        """Window of a recording of the data set, or of a channel, that starts nearest to a time."""
        self._require_unchanged(recording)
        starts, ends = self._index.times(recording)
        before, channels = 0, self._index.loader.window_channels(recording)
        if channels is None and channel is not None:
            raise SettingsError(
                f"{recording}: channel={channel} is not possible, because its channels were not "
                f"heard by themselves; leave it out, or search results of channel=each."
            )
        if channels is not None and len(channels):
            count = int(channels.max())
            if channel is None and count > 1:
                logger.warning(
                    "%s: every channel was heard by itself; searched is with channel 1. Name "
                    "another one: {'recording': ..., 'start': ..., 'channel': 2}.",
                    recording,
                )
            if channel is not None and not 1 <= channel <= count:
                raise SettingsError(
                    f"{recording}: channel={channel} is not possible; expected one from 1 to "
                    f"{count}."
                )
            mine = np.flatnonzero(channels == (channel or 1))
            before, starts, ends = int(mine[0]), starts[mine], ends[mine]
        if not len(starts) or not 0 <= start <= ends[-1]:
            span = f"from {starts[0]:g} to {ends[-1]:g} s" if len(starts) else "nowhere"
            raise ResultsNotFoundError(
                f"{recording}: there is no window at {start:g} s; it was embedded {span}."
            )
        self.recordings.add(recording)
        window = before + int(np.argmin(np.abs(starts - start)))
        return self._direction(self._index.embedding(recording, window), f"{recording} there")

    def _require_unchanged(self, recording: str) -> None:
        if self._index.changed(recording):
            raise ResultsError(
                f"{recording}: has changed since it was embedded; run the pipeline again."
            )

    def _known(self, name: str | Path) -> str | None:
        """Recording of the data set that a path or a name means."""
        if (text := Path(name).as_posix()) in self._index.entries:
            return text
        # macOS writes accents into names of files in a form of its own.
        for other in (unicodedata.normalize(form, text) for form in ("NFC", "NFD")):
            if other in self._index.entries:
                return other
        folder = self._index.loader.audio_dir
        try:
            inside = typed_path(name).resolve().relative_to(folder.resolve()).as_posix()
        except (ValueError, OSError):
            return None
        return inside if inside in self._index.entries else None

    def _unknown(self, name: str) -> ResultsNotFoundError:
        folder, names = self._index.loader.audio_dir, self._index.names
        if is_file(folder / name):
            return ResultsNotFoundError(
                f"{name}: has no embeddings of {self._index.loader.model_name} yet; run the "
                f"pipeline again."
            )
        close = difflib.get_close_matches(name, names, n=1)
        meant = f"did you mean {close[0]}?" if close else f"{folder} holds others."
        return ResultsNotFoundError(f"{name}: there is no such recording; {meant}")

    # ------------------------------------------------------------------ clips and words

    def _path_or_words(self, query: str | Path, start: float | None, end: float | None) -> Floats:
        if isinstance(query, Path) or self._path_if_there(query) or _looks_like_a_file(query):
            return self._clip(query, start, end)
        if not self._knows_words:
            loader = self._index.loader
            if is_file(loader.paths.recognisers_path / query / RECOGNISER_WEIGHTS):
                folder = str(loader.paths.recognisers_path / query)
                raise SettingsError(
                    f"{query!r} is a recogniser here; search with the recogniser itself, "
                    f"bacpipe.Recogniser.load({folder!r})."
                )
            able = " or ".join(name for name, card in CARDS.items() if has_words(card))
            raise SettingsError(
                f"{query!r}: there is no such file, and {loader.model_name} does not "
                f"understand words; name a clip, or search the results of {able}."
            )
        if start is not None or end is not None:
            raise SettingsError(f"start and end belong to the path of a clip, not to {query!r}.")
        model = self._embedder.loaded_model
        assert isinstance(model, TextModel)
        return self._embedding(model.embed_text([query])[0].cpu().numpy())

    @property
    def _knows_words(self) -> bool:
        card = CARDS.get(str(self._index.loader.model_name))
        if self._given is None and self._custom is None:
            return card is not None and has_words(card)  # without loading it
        return isinstance(self._embedder.loaded_model, TextModel)

    def _path_if_there(self, name: str | Path) -> Path | None:
        path, inside = typed_path(as_path(name)), self._index.loader.audio_dir / name
        if url_of(inside) is not None and not is_file(path):
            path = path if url_of(path) is not None else inside
            return path if is_recording_there(path) else None
        return next(filter(is_file, (path, inside)), None)

    def _clip(self, name: str | Path, start: float | None, end: float | None) -> Floats:
        path = self._path_if_there(name)
        if path is None:
            raise self._unknown(str(name))
        # A channel that is silent has nothing to be searched for.
        heard = [part for part in self._samples(path, start, end) if np.ptp(part) > 0]
        if not heard:
            raise AudioError(f"{path}: is silent there, so there is nothing to search for.")
        rows = self._embedder.embeddings_using_multithreading(heard)
        if len(rows) > 1:
            logger.warning(
                "%s: the clip has %s; their mean is searched for. Name start and end of one sound.",
                path,
                counted(len(rows), "window"),
            )
        if (known := self._known(path)) is not None:
            self.recordings.add(known)
        mean = np.mean([self._embedding(row) for row in rows], axis=0)
        return self._direction(mean, f"the embedding of {path}")

    def _samples(
        self, path: Path, start: float | None, end: float | None
    ) -> list[NDArray[np.float32]]:
        """Samples of a clip as the model hears them; of a short one, with what is around it.

        Each channel for itself, if it hears them so.
        """
        embedder = self._embedder
        model, speed = embedder.loaded_model, embedder.speed
        window = model.segment_length / model.sr * speed
        recording = read_recording(path)
        duration = recording.duration
        first = 0.0 if start is None else float(start)
        last = float(end) if end is not None else duration if start is None else first + window
        if not 0 <= first < duration or last <= first:
            raise SettingsError(
                f"{path}: start={start} and end={end} name no part of it; it is {duration:g} s "
                f"long."
            )
        last = min(last, duration)
        if last - first < window:
            if duration < window:
                logger.warning(
                    "%s: is %g s long, less than a window of %s (%g s), and is padded as in a run.",
                    path,
                    duration,
                    self._index.loader.model_name,
                    window,
                )
            first = min(max(0.0, (first + last - window) / 2), max(0.0, duration - window))
            last = min(duration, first + window)
        options = embedder.options
        each = options.channel == "each"
        channels: Sequence[int | str] = range(recording.channels) if each else [options.channel]
        return [
            read_audio(
                path,
                model.sr,
                start=first,
                stop=last,
                speed=speed,
                allow_truncated=options.allow_truncated,
                channel=channel,
            )
            for channel in channels
        ]

    @cached_property
    def _embedder(self) -> Embedder:
        """The model, with the settings that the embeddings were made with."""
        if self._given is not None:
            return self._given
        return embedder_for(self._index, self._custom)

    # ------------------------------------------------------------------ recognisers

    def _recogniser(self, recogniser: LinearRecogniser) -> Sought:
        recogniser.check(self._index.loader)
        weights = np.asarray(recogniser.weight, dtype=np.float64)
        bias = np.asarray(recogniser.bias, dtype=np.float64)
        expected = (len(recogniser.classes), self._index.dim)
        if weights.shape != expected or bias.shape != expected[:1]:
            raise SettingsError(
                f"This recogniser has weights of shape {weights.shape}; expected {expected} for "
                f"embeddings of {self._index.loader.model_name}."
            )
        lengths = np.linalg.norm(weights, axis=1)
        directions = np.stack(
            [
                self._direction(row, f"the weights of {name!r}")
                for name, row in zip(recogniser.classes, weights, strict=True)
            ]
        )
        names: list[int | str] = list(recogniser.classes) if len(weights) > 1 else []
        roots = bool(getattr(recogniser, "square_roots", False))
        queries = Queries(directions, by_length=True, square_roots=roots)
        return Sought(queries, names, set(), lengths, bias)


def embedder_for(index: SearchIndex, custom: object = None) -> Embedder:
    """The model of some embeddings, with the settings that they were made with.

    Raises
    ------
    SettingsError
        If it is not the same any more, or the user's own and not given as `custom`.
    """
    # Takes a second, which only clips and words need.
    from bacpipe.embedder import Embedder
    from bacpipe.inference.run_data_set import model_identity

    loader, identity = index.loader, index.identity
    settings = settings_of(identity) | {"only_embed_annotations": False}
    options = replace(loader.options, **settings)
    name = str(loader.model_name)
    if custom is None and name not in CARDS:
        raise SettingsError(
            f"{name} is a model of your own; to embed a clip with it, give it as CustomModel, "
            f"or search for (recording, start)."
        )
    embedder = Embedder(name, CustomModel=custom, options=options)
    now = {**identity, **model_identity(name, options, embedder.loaded_model)}
    if identity and (changed := differences(now, identity)):
        raise SettingsError(
            f"{name} is not what these embeddings were made with ({', '.join(changed)}), so a "
            f"clip cannot be compared with them; run the pipeline again."
        )
    return embedder


# ---------------------------------------------------------------------- what a query is


def _is_place(
    item: object,
) -> TypeGuard[tuple[str | Path, float] | tuple[str | Path, float, float]]:
    """(recording, start) or (path, start, end)."""
    return (
        isinstance(item, tuple)
        and len(item) in {2, 3}
        and isinstance(item[0], str | Path)
        and all(isinstance(time, int | float | np.number) for time in item[1:])
    )


def _is_row(item: object) -> TypeGuard[Mapping[str, object]]:
    """A row of a table of windows: recording, start and, if it has one, channel."""
    return isinstance(item, Mapping) and "recording" in item and "start" in item


def _number(row: Mapping[str, object], key: str) -> float:
    try:
        return float(str(row[key]))
    except ValueError:
        raise SettingsError(f"{key}={row[key]!r} is not possible; expected a number.") from None


def _is_numbers(item: object) -> bool:
    return (
        isinstance(item, Sequence)
        and len(item) > 0
        and all(isinstance(value, int | float | np.number) for value in item)
    )


def _parted(query: object) -> tuple[list[object], list[object]]:
    """Positive and negative examples."""
    if isinstance(query, Mapping):
        unknown = set(query) - {"positives", "negatives"}
        if not unknown:
            return list(query.get("positives", [])), list(query.get("negatives", []))
        raise SettingsError(
            f"The query has {', '.join(sorted(map(repr, unknown)))}; expected positives and "
            f"negatives."
        )
    if isinstance(query, tuple) and len(query) == 2 and all(map(_is_list, query)):
        return list(query[0]), list(query[1])
    if isinstance(query, list):
        return list(query), []
    raise SettingsError(f"{_shown(query)} is no query; {_KINDS}.")


def _is_list(item: object) -> bool:
    return isinstance(item, list) or (isinstance(item, np.ndarray) and item.ndim == 2)


def has_words(card: ModelCard) -> bool:
    """Whether a model embeds words, too."""
    return ".clap:" in card.wrapper


def _looks_like_a_file(text: str) -> bool:
    return "/" in text or "\\" in text or bool(Path(text).suffix and " " not in text)


def _shown(item: object) -> str:
    text = repr(item)
    return text if len(text) < 80 else f"{text[:77]}..."
