"""`search`: the windows of a data set that are most similar to a sound."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from numbers import Real
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
import soundfile as sf

from bacpipe.audio.files import read_recording
from bacpipe.audio.stream import read_audio
from bacpipe.errors import AudioError, SettingsError, counted
from bacpipe.options import make_options
from bacpipe.search.approximate import ApproximateIndex, build
from bacpipe.search.filters import wanted_windows
from bacpipe.search.index import Hits, SearchIndex
from bacpipe.search.queries import Query, QueryReader
from bacpipe.store.data_set_folder import computed_models
from bacpipe.store.detections import Detections
from bacpipe.store.files import replacing
from bacpipe.store.layout import path_inside
from bacpipe.store.loader import Loader
from bacpipe.store.predictions import read_predictions
from bacpipe.store.whereabouts import Whereabouts, times_after

if TYPE_CHECKING:
    import pandas as pd

    from bacpipe.embedder import Embedder

logger = logging.getLogger(__name__)

_LONGEST_STEM = 120  # bytes of the name of a clip

COLUMNS = ("rank", "similarity", "recording", "site", "start", "end", "datetime")


def search(
    query: Query,
    audio_dir: str | Path | None = None,
    model: str | None = None,
    *,
    k: int = 50,
    where: Mapping[str, object] | None = None,
    exclude_same_recording: bool = False,
    min_gap: float | None = None,
    approximate: bool = False,
    loader: Loader | SearchIndex | None = None,
    start: float | None = None,
    end: float | None = None,
    embedder: Embedder | None = None,
    CustomModel: object = None,
    **kwargs: object,
) -> pd.DataFrame:
    """Find the windows that are most similar to a sound, in embeddings that exist already.

    The answer is exact, unless `approximate`: the same as that of a comparison with every
    embedding.  The first search
    makes codes of the embeddings (a quarter of their size, in their folder); after that, new
    recordings are found as soon as they are embedded.

    Similarity is the cosine of embeddings as the model made them, from -1 to 1.  They are not
    centred for single examples, so that a similarity means the same in every data set.

    Parameters
    ----------
    query : str, Path, tuple, np.ndarray, list, dict, recogniser
        What to look for:

        - path of a clip, with `start` and `end` in seconds if it is a part of the recording.  A
          sound shorter than the model's window is taken with what is around it; of a longer one,
          the mean of its windows is searched for;
        - ``(recording, start)``: a window of the data set; also a row of a table of windows, such
          as this function returns them (a mapping with recording, start and, with
          ``channel='each'``, channel);
        - embedding, shape (dim,); several in an array of shape (n, dim) are as many queries, and
          the result has a column `query` with their numbers;
        - list of such examples of one sound, or ``(positives, negatives)``, or a dictionary with
          these keys: searched is the mean of the positives less the mean of the negatives, every
          example of length one.  Without negatives, the mean window of the data set takes their
          place, because whatever all windows have in common tells nothing;
        - recogniser: similarity is then its logit, and with several classes the column `query`
          holds their names; where embeddings are never negative, all of them are read for it,
          which takes seconds per million windows;
        - words, for models that understand them, such as ``"the song of a robin"``.
    audio_dir : str or Path, optional
        Folder of the recordings, if there is no `loader`.
    model : str, optional
        Whose embeddings; may be left out if there are those of one model only.
    k : int
        How many windows; all that there are, if these are fewer.
    where : mapping, optional
        Conditions that all must hold: ``recording``, ``site`` or any other column that is known of
        sites; ``date`` (a day, or a pair of the first and the last), ``hour`` (0 to 23, or a pair
        such as ``(22, 4)`` for 22:00 to 4:00), by the clock of the recordings; ``label`` (a class
        that the model's classifier has predicted) and ``score`` (its lowest score).  Values may be
        single ones, lists of allowed ones or, for numbers, a pair ``(low, high)``.
    exclude_same_recording : bool
        Whether to leave out the recordings that the examples are from.
    min_gap : float, optional
        Least seconds between the starts of two results from one recording: of windows that are
        nearer to one another, the best is shown.  None shows all.
    approximate : bool
        Whether to answer by the index that `build_search_index` has built, which is for data sets
        of some ten million windows and more: similarities are exact, but windows may be missing.
        Recordings that are not in the index, few windows (up to a million) and recognisers are
        compared exactly all the same.
    loader : Loader or SearchIndex, optional
        Results to be searched.  A `bacpipe.search.index.SearchIndex` saves reading the list of
        recordings again, for many searches.
    start, end : float, optional
        Seconds of the clip, if `query` is its path.
    embedder : Embedder, optional
        The model, if it is loaded already, for clips and words.
    CustomModel : class or object, optional
        A model of your own, for clips.
    **kwargs
        Any key of ``bacpipe.config`` and ``bacpipe.settings``; main_results_dir says where
        results are, and range_filter and species_list which labels the table shows.

    Returns
    -------
    pandas.DataFrame
        Columns rank (from 1), similarity, recording (path below the folder), site, start and end
        (seconds), datetime (of the start, by the clock of the site; NaT if it is not known);
        channel (from 1), if every channel was heard by itself (``channel='each'``); if the model
        has a classifier, label, score and range_probability of the best prediction for the window.
        ``attrs["bacpipe"]`` says, among others, whether the answer is ``exact`` and, if it is not,
        the index's ``recall``.

    Raises
    ------
    SettingsError
        If the query or a condition is not understood, or the query belongs to another model; or
        if faiss, which an approximate index needs, is not installed.
    AudioError
        If a clip cannot be read, or is silent.
    ResultsNotFoundError
        If there are no embeddings, or none of a recording that is asked for, or no index.
    ResultsError
        If embeddings are damaged, or a recording that is asked for has changed since.

    Examples
    --------
    >>> import bacpipe
    >>> table = bacpipe.search(("SITE-A/20250504_043000.wav", 3), "recordings", "birdnet", k=3)
    >>> table.columns[:4].to_list()
    ['rank', 'similarity', 'recording', 'site']
    >>> table.loc[0, "recording"], float(table.loc[0, "start"])
    ('SITE-A/20250504_043000.wav', 3.0)
    """
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise SettingsError(f"k={k!r} is not possible; expected a whole number from 1.")
    if min_gap is not None and not (isinstance(min_gap, Real) and min_gap >= 0):
        raise SettingsError(f"min_gap={min_gap!r} is not possible; expected seconds, or None.")
    if isinstance(loader, SearchIndex):
        index = loader
        index.refresh()
    else:
        index = SearchIndex(loader or _loader(audio_dir, model, kwargs))
    whereabouts = Whereabouts(index.loader)
    sought = QueryReader(index, embedder, CustomModel).read(query, start, end)
    left_out = sought.recordings if exclude_same_recording else ()
    wanted = wanted_windows(index, whereabouts, where, left_out)
    approximation = _approximation(index) if approximate else None
    if approximation is not None and not approximation.answers(sought.queries, wanted):
        approximation = None
    by = None if approximation is None else approximation.nearest
    hits = index.find(sought.queries, int(k), wanted=wanted, min_gap=min_gap, by=by)
    rescaled = [
        item._replace(similarity=item.similarity * factor + offset)
        for item, factor, offset in zip(hits, sought.factors, sought.offsets, strict=True)
    ]
    table = _table(index, whereabouts, rescaled, sought.names)
    table.attrs["bacpipe"] = {
        "model": index.loader.model_name,
        "windows": index.windows,
        "channel": index.loader.heard_channel(),
        "exact": approximation is None,
    }
    if approximation is not None:
        table.attrs["bacpipe"]["recall"] = approximation.about.recall
        logger.info(
            "an approximate answer: the index of %s found %.1f %% of the nearest windows.",
            approximation.about.built,
            100 * approximation.about.recall,
        )
    return table


def build_search_index(
    audio_dir: str | Path | None = None,
    model: str | None = None,
    *,
    loader: Loader | SearchIndex | None = None,
    **kwargs: object,
) -> dict[str, float]:
    """Build an index for approximate searches of very many windows.

    A search needs none: it compares ten million windows in about two seconds.  Beyond, this index
    (a bit for each value of an embedding, in lists of alike ones) makes ``search(...,
    approximate=True)`` quicker, at the price of windows that it misses.  It is built anew from all
    windows whenever this is called; recordings that come later are compared exactly until then,
    and those that have changed are not found by it any more.  Needs the extra ``search`` (faiss).

    Parameters
    ----------
    audio_dir : str or Path, optional
        Folder of the recordings, if there is no `loader`.
    model : str, optional
        Whose embeddings; may be left out if there are those of one model only.
    loader : Loader or bacpipe.search.index.SearchIndex, optional
        Results to be searched.
    **kwargs
        Any key of ``bacpipe.config`` and ``bacpipe.settings``; main_results_dir says where
        results are.

    Returns
    -------
    dict
        windows : how many it holds; recall : the share of the 50 nearest windows that it found,
        over 64 windows of the data set (itself not counted); seconds : what building it took.

    Raises
    ------
    SettingsError
        If faiss is not installed.
    ResultsNotFoundError
        If there are no embeddings.
    StorageError
        If memory or disk do not suffice; an index that was there stays.

    Examples
    --------
    >>> import bacpipe
    >>> about = bacpipe.build_search_index("recordings", "birdnet")
    >>> about["windows"], 0 <= about["recall"] <= 1
    (153, True)
    """
    if isinstance(loader, SearchIndex):
        index = loader
        index.refresh()
    else:
        index = SearchIndex(loader or _loader(audio_dir, model, kwargs))
    index.approximation = built = build(index)
    return {
        "windows": index.windows,
        "recall": built.about.recall,
        "seconds": built.about.seconds,
    }


def _approximation(index: SearchIndex) -> ApproximateIndex:
    if not isinstance(index.approximation, ApproximateIndex):
        index.approximation = ApproximateIndex(index)
    assert isinstance(index.approximation, ApproximateIndex)
    return index.approximation


def _loader(
    audio_dir: str | Path | None, model: str | None, settings: Mapping[str, object]
) -> Loader:
    options = make_options(**settings, **({} if audio_dir is None else {"audio_dir": audio_dir}))
    if options.audio_dir is None:
        raise SettingsError("audio_dir is missing; expected the folder with the recordings.")
    if model is None:
        models = computed_models(options.audio_dir, options)
        if len(models) > 1:
            raise SettingsError(
                f"model is missing; expected one of {', '.join(models)}, whose embeddings of these "
                f"recordings are here."
            )
        (model,) = models
    return Loader(options.audio_dir, model, options=options)


# ---------------------------------------------------------------------- the table


def _table(
    index: SearchIndex,
    whereabouts: Whereabouts,
    hits: list[Hits],
    names: list[int | str],
) -> pd.DataFrame:
    import pandas as pd

    recordings = [name for item in hits for name in item.recording]
    windows = [window for item in hits for window in item.window.tolist()]
    times = {name: index.times(name) for name in dict.fromkeys(recordings)}
    about = {name: whereabouts.of(name) for name in times}
    places = list(zip(recordings, windows, strict=True))
    starts = [float(times[name][0][window]) for name, window in places]
    columns: dict[str, object] = {
        "rank": [rank for item in hits for rank in range(1, 1 + len(item.recording))],
        "similarity": np.concatenate([item.similarity for item in hits]),
        "recording": pd.Series(recordings, dtype=object),
        "site": pd.Series([about[name].site for name in recordings], dtype=object),
        "start": np.array(starts, np.float64),
        "end": np.array([times[name][1][window] for name, window in places], np.float64),
        "datetime": times_after([about[name].start for name in recordings], starts),
    }
    if index.loader.channels is not None:
        channels = {name: index.loader.channels(name) for name in times}
        columns["channel"] = np.array([channels[name][window] for name, window in places], np.int64)
    columns |= _predictions(index, places)
    if names:
        columns["query"] = [
            name for item, name in zip(hits, names, strict=True) for _ in item.recording
        ]
    changed = [name for name in times if index.changed(name)]
    if changed:
        logger.warning(
            "%s of these have changed since they were embedded, such as %s; run the pipeline "
            "again.",
            counted(len(changed), "recording"),
            changed[0],
        )
    return pd.DataFrame(columns)


def _predictions(index: SearchIndex, places: list[tuple[str, int]]) -> dict[str, object]:
    """Best prediction for each of some windows; no columns without a classifier."""
    import pandas as pd

    if all(entry.predictions is None for entry in index.entries.values()):
        return {}
    stored = {name: index.entries[name].predictions for name, _ in places}
    ranges = index.loader.range_filter()
    marks = ranges.options.range_filter != "off"
    best: dict[tuple[str, int], tuple[float, str]] = {}
    folder = index.loader.paths.sparse_predictions_path
    for name, predictions in stored.items():
        if predictions is None or predictions.path is None:
            continue
        path = path_inside(folder, predictions.path, what="the journal")
        count = index.entries[name].windows
        for window, label, score in zip(*read_predictions(path, count, predictions), strict=True):
            best[name, window] = max(best.get((name, window), (-1.0, "")), (float(score), label))
    rows = [best.get(place, (np.nan, None)) for place in places]
    return {
        "label": pd.Series([label for _, label in rows], dtype=object),
        "score": np.array([score for score, _ in rows], np.float32),
        "range_probability": np.array(
            [
                ranges.probabilities(_detection(*place, label))[0] if marks and label else np.nan
                for place, (_, label) in zip(places, rows, strict=True)
            ],
            np.float32,
        ),
    }


def _detection(recording: str, window: int, label: str) -> Detections:
    row = np.array([window], np.int32), np.zeros(1), np.zeros(1)
    return Detections(recording, *row, np.array([label], object), np.ones(1, np.float32))


# ---------------------------------------------------------------------- clips


def save_clips(table: pd.DataFrame, audio_dir: str | Path, folder: str | Path) -> list[Path]:
    """Write the windows of a search as WAV files, named so that they sort by rank.

    Parameters
    ----------
    table : pandas.DataFrame
        What `search` has returned.
    audio_dir : str or Path
        Folder of the recordings.
    folder : str or Path
        Where to.

    Returns
    -------
    list of Path
        The files written: one channel, which is what the model heard, 16 bit, at the recording's
        own sample rate.  Recordings that cannot be read are logged and left out.

    Raises
    ------
    StorageError
        If the disk does not take them.
    """
    written = []
    heard = table.attrs.get("bacpipe", {}).get("channel", "mix")
    digits = len(str(len(table)))
    for number, row in enumerate(table.to_dict("records"), start=1):
        recording, start, end = str(row["recording"]), float(row["start"]), float(row["end"])
        try:
            rate = read_recording(Path(audio_dir, recording)).sample_rate
            channel = int(row["channel"]) - 1 if "channel" in row else heard
            samples = read_audio(
                Path(audio_dir, recording), rate, start=start, stop=end, channel=channel
            )
        except AudioError as error:
            logger.warning("no clip: %s", error)
            continue
        stem = "_".join(PurePosixPath(recording).with_suffix("").parts)
        # File systems count bytes, of which most letters of the world have two or three.
        stem = os.fsencode(stem)[-_LONGEST_STEM:].decode(errors="ignore")
        path = Path(folder, f"{number:0{digits}}_{stem}_{start:.1f}s.wav")
        with replacing(path) as file:
            sf.write(file, samples, rate, format="WAV", subtype="PCM_16")
        written.append(path)
    return written
