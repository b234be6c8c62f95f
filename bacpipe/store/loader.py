"""`Loader`: read a results tree through the public API.

What is read is what the journal vouches for: a file that is missing, damaged or changed is an error
that names it and says how to have it computed again, never a shorter result.
"""

from __future__ import annotations

import copy
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from bacpipe.annotations.table import annotated_segments, length_in_header, read_annotations
from bacpipe.audio.files import find_audio_files, find_recording_names, read_recording
from bacpipe.audio.fingerprint import content_fingerprint
from bacpipe.audio.remote import shown
from bacpipe.errors import (
    NoRecordingsError,
    ResultsError,
    ResultsNotFoundError,
    SettingsError,
    counted,
)
from bacpipe.models.zoo import CARDS, canonical_name
from bacpipe.options import Options, make_options, user_settings
from bacpipe.places.clock import Clock
from bacpipe.store.arrays import stack_rows
from bacpipe.store.claims import alone
from bacpipe.store.class_list import ClassList, read_class_list
from bacpipe.store.data_set_folder import claim_dataset, paths_of, recorded_folder, without_results
from bacpipe.store.detections import ChannelsOf, Detections, above
from bacpipe.store.embedding_set import (
    EmbeddingSet,
    create_set,
    differences,
    find_set,
    heard_windows,
    highest_frequency,
    metadata_of,
    options_for,
    prediction_settings,
    read_embeddings,
    settings_identity,
    window_times,
    write_metadata,
)
from bacpipe.store.entries import DoneEntries, FinishedEntry, StoredPredictions
from bacpipe.store.layout import (
    PREDICTIONS,
    RECOGNISER_WEIGHTS,
    ResultPaths,
    class_list_path,
    detections_path,
    path_inside,
    result_stems,
    stamped_folders,
)
from bacpipe.store.maps import coordinates_of, stored_maps
from bacpipe.store.old_results import old_results_in
from bacpipe.store.plan import Part, StreamEnd, look_at
from bacpipe.store.predictions import (
    NO_PREDICTIONS,
    RecentPredictions,
    predictions_folder,
    predictions_source,
    read_predictions,
    require_windows,
)
from bacpipe.store.range_filter import OPTIONS as RANGE_OPTIONS
from bacpipe.store.range_filter import RangeFilter
from bacpipe.store.selection import AudioDir, Selection, choose, data_set_of
from bacpipe.store.tables import (
    DetectionStream,
    blocks_of,
    classes_in,
    scores_by_recording,
    wide_frame,
)
from bacpipe.store.writer import ResultWriter
from bacpipe.user_input import typed_path

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)


class Loader:
    """Results of one model for one folder of recordings.

    Parameters
    ----------
    audio_dir : str or Path, or sequence of these
        Folder with the recordings, or whatever else ``audio_dir`` of the configuration may be.
        What is read are the results of all recordings of the data set.
    model_name : str, optional
        Name of the model; without it the loader only lists recordings.
    check_if_combination_exists : bool
        True looks for embeddings of this model and these settings; False ignores them, so that
        a run starts a new set.
    dim_reduction_model : bool or str
        Name of a reducer to read reduced embeddings instead.
    use_folder_structure : bool
        True when a run is going to write to the results tree: only embeddings with exactly the
        current settings are taken.  False reads the newest embeddings that were computed with
        the settings named here (or changed in ``bacpipe.settings``), and says which they are if
        there are several.
    testing : bool
        Whether this is a trial run, whose results are kept apart.
    options : Options, optional
        All options of the call, `testing` too, instead of keywords.
    part : Part, optional
        Work on this part of the data set, whose recordings are not searched for, and read no
        results of other parts.
    **kwargs
        Any key of ``bacpipe.config`` and ``bacpipe.settings``.

    Attributes
    ----------
    paths : ResultPaths
        Folders of the results.
    named : path, or sequence of paths
        `audio_dir` as it was given.
    embed_dir : Path or None
        Folder of the embeddings; None while there are none.
    other_files : Counter of str
        Files in `audio_dir` that are left out because of their suffix, by suffix, when it was
        searched last; without tables, pictures and the like.

    Raises
    ------
    NoRecordingsError
        If `audio_dir` is missing or, when results are to be written, holds no recordings.

    Examples
    --------
    >>> import bacpipe
    >>> loader = bacpipe.Loader("recordings", "birdnet")
    >>> loader.embeddings("array").shape
    (153, 1024)
    >>> loader.predictions("dataframe").columns[:3].to_list()
    ['audiofilename', 'start', 'end']
    >>> loader.files[0].name, loader.recording_names[0]
    ('20250504_043000.wav', 'SITE-A/20250504_043000.wav')
    >>> loader.embed_dir.is_dir(), loader.has_predictions, loader.channel
    (True, True, 'mix')
    >>> loader.metadata_dict["total_dataset_length (s)"]
    448.66
    >>> loader.predictions_provenance["threshold"]
    0.5
    >>> loader.clock.of("SITE-A/20250504_043000.wav").source
    'name'
    """

    def __init__(
        self,
        audio_dir: AudioDir,
        model_name: str | None = None,
        check_if_combination_exists: bool = True,
        dim_reduction_model: bool | str = False,
        use_folder_structure: bool = False,
        testing: bool = False,
        *,
        options: Options | None = None,
        part: Part | None = None,
        **kwargs: object,
    ) -> None:
        self.part = part
        if model_name is not None and not isinstance(model_name, str):
            raise SettingsError(
                f"model={model_name!r} is not possible; expected the name of one model."
            )
        self.options = options or make_options(**{**kwargs, "testing": testing})
        self.named = audio_dir
        self.audio_dir, self._wanted = data_set_of(audio_dir)
        if self._wanted is not None and self.options.recordings is not None:
            raise SettingsError(
                f"audio_dir names recordings of {shown(self.audio_dir)}, and so does recordings; "
                f"expected a folder as audio_dir, or no recordings."
            )
        self._wanted = self._wanted or self.options.recordings
        self.model_name = model_name = None if model_name is None else canonical_name(model_name)
        self.embeddings_model = model_name  # another one than of predictions, for recognisers
        if model_name is not None:
            self.options = options_for(self.options, model_name)
        self.dim_reduction_model = dim_reduction_model
        self.use_folder_structure = use_folder_structure
        self.check_if_combination_exists = check_if_combination_exists
        self._names: list[str] | None = None
        self._filters: dict[tuple[object, ...], RangeFilter] = {}
        self._preds_path: Path | None = None
        self._selection: Selection | None = None
        if part is not None:
            self._names, self._wanted = part.names, tuple(part.names)
            self._selection = Selection(part.names, [])
        self.other_files: Counter[str] = Counter()
        self.paths: ResultPaths = paths_of(self.audio_dir, model_name or "none", self.options)
        self.embedding_set: EmbeddingSet | None = None
        if model_name is not None and check_if_combination_exists:
            self.embedding_set = self._find_set(exact=use_folder_structure)
            self.locate_predictions()

    def claim(self) -> None:
        """Write down whose results these are, before the first is written."""
        options = self.options
        folder = claim_dataset(self.paths, options.embed_parent_dir, options.moved_from)
        if folder != self.paths.dataset_path:  # another run was quicker
            self.paths = paths_of(self.audio_dir, self.model_name or "none", self.options)
            self._filters.clear()

    def locate_predictions(self, *, newest: bool = False) -> None:
        """Let `paths` name the folder with the predictions of these embeddings.

        Parameters
        ----------
        newest : bool
            The folder of those that were written last instead, where a run writes.
        """
        if self._preds_path is not None:
            self.paths = replace(self.paths, preds_path=self._preds_path)
            return
        plain = self.paths.preds_path.with_name(PREDICTIONS)
        folder = None
        if self.embedding_set is not None and not newest:
            folder = predictions_folder(plain, self.embedding_set.folder.name)
        self.paths = replace(self.paths, preds_path=folder or plain)

    # ------------------------------------------------------------------ recordings

    @property
    def files(self) -> list[Path]:
        """Recordings in `audio_dir`, sorted; three of them in a trial run."""
        return [Path(self.audio_dir, name) for name in self.recording_names]

    @property
    def recording_names(self) -> list[str]:
        """The same as posix paths relative to `audio_dir`, as results name them."""
        return self.update_recording_names() if self._names is None else self._names

    def update_recording_names(self) -> list[str]:
        """Do what `update_files` does, but return posix paths relative to `audio_dir`."""
        self.other_files.clear()
        try:
            names = find_recording_names(
                self.audio_dir, tuple(self.options.audio_suffixes), self.other_files
            )
        except NoRecordingsError:
            if self._wanted is not None and self.audio_dir.is_dir():
                choose(self._wanted, [], self.audio_dir)  # says what is wrong with them
            raise
        names = without_results(names, self.audio_dir, self.paths)
        if self.options.testing and self._wanted is None:
            names = names[:3]
        self._names, self._selection = names, None
        return self._names

    @property
    def selection(self) -> Selection:
        """Recordings that a run works on: those of ``recordings``, or all."""
        if self._selection is None:
            names = self.recording_names
            if self._wanted is None:
                self._selection = Selection(names, [])
            else:
                self._selection = choose(self._wanted, names, self.audio_dir)
                if self.options.testing:
                    self._selection = Selection(self._selection.names[:3], [])
        return self._selection

    @property
    def is_part(self) -> bool:
        """Whether a run works on a part of the recordings."""
        return self._wanted is not None

    def update_files(self) -> list[Path]:
        """Search `audio_dir` again; results that lie in it are not searched.

        Returns
        -------
        list of Path

        Raises
        ------
        NoRecordingsError
            If there are none.

        Examples
        --------
        >>> import bacpipe
        >>> loader = bacpipe.Loader("recordings", "birdnet")
        >>> len(loader.update_files())
        12
        """
        self.update_recording_names()
        return self.files

    @staticmethod
    def get_audio_files(
        audio_dir: str | Path,
        audio_suffixes: Sequence[str] | None = None,
        return_type: str = "pathlib.Path",
    ) -> list[Path] | list[str]:
        """List the recordings in a folder and its sub-folders.

        Parameters
        ----------
        audio_dir : str or Path
            Folder to search.
        audio_suffixes : sequence of str, optional
            Suffixes of recordings, upper and lower case alike; ``settings.audio_suffixes``
            unless given.
        return_type : {'pathlib.Path', 'str'}
            Type of the items.

        Returns
        -------
        list of Path or list of str
            Sorted.

        Raises
        ------
        NoRecordingsError
            If the folder is missing or holds no recordings.

        Examples
        --------
        >>> import bacpipe
        >>> len(bacpipe.get_audio_files("recordings"))
        12
        """
        if return_type not in {"pathlib.Path", "Path", "str"}:
            raise SettingsError(
                f"return_type={return_type!r} is not possible: expected 'pathlib.Path' or 'str'."
            )
        suffixes = user_settings().audio_suffixes
        files = find_audio_files(typed_path(audio_dir), tuple(audio_suffixes or suffixes))
        return [str(file) for file in files] if return_type == "str" else files

    def annotated_segments(self) -> dict[str, tuple[tuple[float, float], ...]]:
        """Start and end in seconds of the annotated parts of each recording that has some.

        Returns
        -------
        dict of str to tuple of (float, float)
            By recording, a posix path relative to `audio_dir`.

        Raises
        ------
        AnnotationsError
            If the annotation table is missing or cannot be understood.

        Examples
        --------
        >>> import bacpipe
        >>> loader = bacpipe.Loader("recordings", "birdnet")
        >>> loader.annotated_segments()["SITE-A/20250504_043000.wav"][:2]
        ((0.93, 3.52), (8.51, 10.44))
        """
        path = self.audio_dir / self.options.annotations_filename
        names = self.recording_names
        if self.part is not None:  # the table is about those of other parts, too
            names = find_recording_names(self.audio_dir, tuple(self.options.audio_suffixes))
        table = read_annotations(path, names, length_in_header(self.audio_dir))
        return annotated_segments(table, self.options.min_annotation_length)

    # ------------------------------------------------------------------ embeddings

    @property
    def embed_dir(self) -> Path | None:
        """Folder of the embeddings; None while there are none."""
        return self.embedding_set.folder if self.embedding_set else None

    @property
    def embeddings_state(self) -> str:
        """Hash of all embeddings, by which results made from them know that they are stale."""
        return self._require_set().state

    @property
    def entries(self) -> DoneEntries:
        """The journal's entry of every recording that is done, sorted by recording."""
        return self._require_set().content.done.sorted()

    @property
    def model_window(self) -> tuple[int, int]:
        """Sample rate in Hz and length in samples of the model's windows, by its card.

        Raises
        ------
        ResultsNotFoundError
            If the model is not one of the zoo.
        """
        if self.model_name not in CARDS:
            raise ResultsNotFoundError(
                f"{shown(self.audio_dir)}: there are no embeddings of {self.model_name!r}, and the "
                f"length of its windows is not known, because it is no model of the zoo. Compute "
                f"the embeddings first, or choose one of {', '.join(CARDS)}."
            )
        card = CARDS[self.model_name]
        return card.sample_rate, card.window

    @property
    def highest_frequency(self) -> float:
        """Highest frequency in Hz of the real recordings that the model has heard."""
        return highest_frequency(self._require_set().content.header)

    def get_embedding_dir(self) -> Path:
        """Folder of the embeddings.

        Returns
        -------
        Path

        Raises
        ------
        ResultsNotFoundError
            If there are none.

        Examples
        --------
        >>> import bacpipe
        >>> bacpipe.Loader("recordings", "birdnet").get_embedding_dir().is_dir()
        True
        """
        return self._require_set().folder

    @overload
    def embeddings(self, return_type: Literal["dict"] = "dict") -> dict[str, np.ndarray]: ...
    @overload
    def embeddings(self, return_type: Literal["array"]) -> np.ndarray: ...

    def embeddings(self, return_type: str = "dict") -> dict[str, np.ndarray] | np.ndarray:
        """Load embeddings that were computed before.

        Parameters
        ----------
        return_type : {'dict', 'array'}
            'dict': float32 arrays of shape (windows, dim) by the name of the embedding file
            (posix path below `embed_dir`).  'array': all of them, one below the other, float32
            of shape (all windows, dim), in the order of the dictionary.  With a
            `dim_reduction_model`, dim is 2 or 3: the coordinates in the newest map.

        Returns
        -------
        dict of np.ndarray, or np.ndarray
            Embeddings that would take more than a quarter of the free memory are not loaded:
            the array is then a read-only `numpy.memmap` of a temporary file, which is read as
            it is used and goes when the array does, and the dictionary's arrays are parts of it.

        Raises
        ------
        ResultsNotFoundError
            If nothing was computed yet.
        ResultsError
            If a file is missing or damaged.

        Examples
        --------
        >>> import bacpipe
        >>> loader = bacpipe.Loader("recordings", "birdnet")
        >>> loader.embeddings("array").shape
        (153, 1024)
        >>> file, embeds = next(iter(loader.embeddings().items()))
        >>> file, embeds.shape
        ('SITE-A/20250504_043000_birdnet.npy', (13, 1024))
        """
        _check_return_type(return_type, "dict", "array")
        if self.dim_reduction_model not in (False, None, "None"):
            reduced = self._reduced_embeddings()
            return reduced if return_type == "dict" else np.concatenate(list(reduced.values()))
        embedding_set = self._require_set()
        entries = self.entries.values()
        counts = [entry.windows for entry in entries]
        array = stack_rows(
            (read_embeddings(embedding_set, entry, verify=True) for entry in entries),
            sum(counts),
            folder=embedding_set.folder,
            what=f"the array of all embeddings of {self.model_name}",
        )
        if return_type == "array":
            return array
        parts = np.split(array, np.cumsum(counts)[:-1])
        return {entry.embeddings.path: part for entry, part in zip(entries, parts, strict=True)}

    def read_embedding_file(self, file: str | Path) -> np.ndarray:
        """Embeddings of one recording.

        Parameters
        ----------
        file : str or Path
            The recording or its embedding file: an absolute path, or relative to `audio_dir`
            or `embed_dir`.

        Returns
        -------
        np.ndarray, float32, shape (windows, dim)

        Examples
        --------
        >>> import bacpipe
        >>> loader = bacpipe.Loader("recordings", "birdnet")
        >>> loader.read_embedding_file("SITE-A/20250504_043000.wav").shape
        (13, 1024)
        """
        embedding_set = self._require_set()
        entry = embedding_set.find_done(self._relative(file))
        if entry is not None:
            return read_embeddings(embedding_set, entry, verify=True)
        raise ResultsNotFoundError(
            f"{file}: there are no embeddings of this recording in {embedding_set.folder}."
        )

    def save_embedding_file(self, file: str | Path, embeds: np.ndarray) -> Path:
        """Store embeddings of one recording that were computed elsewhere.

        They take the place of those that are there.  Predictions of these are dropped; the next run
        of the model makes new ones.

        Parameters
        ----------
        file : str or Path
            The recording, in `audio_dir`.
        embeds : np.ndarray, float32, shape (windows, dim)
            Its embeddings.

        Returns
        -------
        Path
            The file written.

        Raises
        ------
        ResultsError
            If they are not as many as the recording has windows, or not of the size of those of
            the other recordings.
        AudioError
            If the recording cannot be read.

        Examples
        --------
        >>> import numpy as np, bacpipe
        >>> loader = bacpipe.Loader("recordings", "birdnet", main_results_dir="imported")
        >>> embeds = np.zeros((13, 1024), np.float32)
        >>> loader.save_embedding_file("SITE-A/20250504_043000.wav", embeds).name
        '20250504_043000_birdnet.npy'
        """
        name, model = self._relative(file), self.model_name or "none"
        parent = self.paths.main_embeds_path
        self.claim()
        with alone(parent, model):
            embedding_set = self.embedding_set
            if embedding_set is None:
                identity = {"model": model, **settings_identity(self.options)}
                embedding_set = create_set(parent, model, self.paths.dataset, identity, {})
            source = look_at(self.audio_dir / name, self.audio_dir)
            known = embedding_set.content.done.get(name)
            now = (source.size, source.mtime_ns)
            if known is not None and known.size is not None and (known.size, known.mtime_ns) != now:
                known = None  # of what the recording was
            self._check_embeddings(name, embeds, known, embedding_set)
            writer = ResultWriter(
                embedding_set,
                self.paths,
                model,
                list(dict.fromkeys([*self.recording_names, name])),
                prediction_settings=prediction_settings(self.options),
                provenance={},
            )
            try:
                if known is not None:
                    writer.replace(source, embeds)
                else:
                    writer.add(source, embeds, None)
                    read = (source.size, source.mtime_ns, content_fingerprint(source.path))
                    duration = read_recording(source.path).duration
                    writer.finish(source, StreamEnd(duration, padded=0, read=read))
            finally:
                writer.close()
        self.embedding_set = embedding_set
        return embedding_set.embedding_path(embedding_set.content.done[name])

    @staticmethod
    def _check_embeddings(
        name: str, embeds: np.ndarray, known: FinishedEntry | None, embedding_set: EmbeddingSet
    ) -> None:
        """Refuse embeddings that do not fit a recording, or those of the others."""
        if embeds.ndim != 2 or not len(embeds):
            raise ResultsError(
                f"{name}: its embeddings have the shape {embeds.shape}; expected (windows, dim)."
            )
        if known is not None and len(embeds) != known.windows:
            raise ResultsError(
                f"{name}: {counted(len(embeds), 'embedding')} for "
                f"{counted(known.windows, 'window')}; expected one for each."
            )
        others = (entry for entry in embedding_set.content.done.values() if entry.file != name)
        other = next(others, None)
        if other is not None and other.embeddings.dim not in (0, embeds.shape[1]):
            raise ResultsError(
                f"{name}: its embeddings have {embeds.shape[1]} values; expected "
                f"{other.embeddings.dim}, as {other.file} has."
            )

    # ------------------------------------------------------------------ metadata

    @property
    def metadata_dict(self) -> dict[str, Any]:
        """Description of the embeddings, as ``metadata.yml`` holds it.

        Audio and embedding folders, recordings, their lengths in seconds and numbers of
        embeddings, embedding size, sample rate and window.

        Examples
        --------
        >>> import bacpipe
        >>> loader = bacpipe.Loader("recordings", "birdnet")
        >>> loader.metadata_dict["sample_rate (Hz)"]
        48000
        """
        return metadata_of(self._require_set(), self.model_name or "", self.audio_dir)

    def write_metadata_file(self) -> Path:
        """Write ``metadata.yml`` into the folder of the embeddings.

        Returns
        -------
        Path
            The file.

        Examples
        --------
        >>> import bacpipe
        >>> bacpipe.Loader("recordings", "birdnet").write_metadata_file().name
        'metadata.yml'
        """
        return write_metadata(self._require_set(), self.model_name or "", self.audio_dir)

    def window_times(self, recording: str) -> tuple[np.ndarray, np.ndarray]:
        """Start and end of every window of a recording.

        Parameters
        ----------
        recording : str
            Posix path relative to `audio_dir`.

        Returns
        -------
        start, end : np.ndarray, float64, shape (windows,)
            Seconds of the recording; the end of a padded window is the end of the recording.

        Raises
        ------
        ResultsNotFoundError
            If nothing is embedded, or not this recording.

        Examples
        --------
        >>> import bacpipe
        >>> loader = bacpipe.Loader("recordings", "birdnet")
        >>> start, end = loader.window_times("SITE-A/20250504_043000.wav")
        >>> start[:3].tolist(), end[:3].tolist()
        ([0.0, 3.0, 6.0], [3.0, 6.0, 9.0])
        """
        return window_times(*self._entry_and_header(recording))

    def heard_windows(self, recording: str) -> np.ndarray:
        """Which windows of a recording the classifier is given, bool of shape (windows,)."""
        return heard_windows(*self._entry_and_header(recording))

    def window_channels(self, recording: str) -> np.ndarray | None:
        """Channel of every window of a recording.

        Parameters
        ----------
        recording : str
            Posix path relative to `audio_dir`.

        Returns
        -------
        np.ndarray, int16, shape (windows,), or None
            From 1; None unless every channel was heard by itself (``channel='each'``).

        Examples
        --------
        >>> import bacpipe
        >>> loader = bacpipe.Loader("recordings", "birdnet")
        >>> loader.window_channels("SITE-A/20250504_043000.wav") is None
        True
        """
        channels = self.channels
        return None if channels is None else channels(recording)

    @property
    def channel(self) -> str:
        """What became of several channels, as the setting of that name when this was computed."""
        return str((self._require_set().identity or {}).get("channel", "mix"))

    def heard_channel(self, of_window: int | None = None) -> str | int:
        """What of a recording to play or save, as `read_audio` takes it, to hear what was heard.

        Parameters
        ----------
        of_window : int, optional
            Channel of the window, from 1, where every channel was heard by itself; without it, all
            of them are mixed then.
        """
        if of_window is not None:
            return of_window - 1
        return "mix" if self.channel == "each" else self.channel

    @property
    def channels(self) -> ChannelsOf | None:
        """Tells the channels of all windows of a recording; None if all channels became one."""
        if self.channel != "each":
            return None
        return lambda recording: self._entry_and_header(recording)[0].window_channels

    # ------------------------------------------------------------------ predictions

    def classifier_should_be_run(
        self,
        paths: ResultPaths,
        run_pretrained_classifier: bool,
        testing: bool,
        **kwargs: object,
    ) -> bool:
        """Whether predictions of the integrated classifier are wanted and not there yet.

        Parameters
        ----------
        paths : ResultPaths
            Folders of the results.
        run_pretrained_classifier : bool
            Whether they are wanted.
        testing : bool
            Whether this is a trial run, which always computes them.
        **kwargs
            Other settings, which make no difference.

        Returns
        -------
        bool

        Examples
        --------
        >>> import bacpipe
        >>> loader = bacpipe.Loader("recordings", "birdnet")
        >>> loader.classifier_should_be_run(loader.paths, True, testing=False)
        False
        """
        if not run_pretrained_classifier:
            return False
        if testing or self.embedding_set is None:
            return True
        stored = [entry.predictions for entry in self.entries.values()]
        return not stored or not all(self._is_there(paths, item) for item in stored)

    @overload
    def predictions(
        self, return_type: Literal["dict"] = "dict", *, parent_dir: str | Path | None = None
    ) -> tuple[dict[str, np.ndarray], dict[int, str]]: ...
    @overload
    def predictions(
        self, return_type: Literal["array"], *, parent_dir: str | Path | None = None
    ) -> tuple[np.ndarray, dict[int, str]]: ...
    @overload
    def predictions(
        self, return_type: Literal["dataframe"], *, parent_dir: str | Path | None = None
    ) -> pd.DataFrame: ...

    def predictions(
        self, return_type: str = "dict", *, parent_dir: str | Path | None = None
    ) -> tuple[dict[str, np.ndarray] | np.ndarray, dict[int, str]] | pd.DataFrame:
        """Load class predictions that were computed before.

        Parameters
        ----------
        return_type : {'dict', 'array', 'dataframe'}
            'dict': ``(scores, classes)``, scores by recording, float32 of shape (windows,
            classes found).  'array': ``(scores, classes)`` with all windows below one another.
            In both, `classes` gives the name of each column.  'dataframe': a row per window
            with a prediction, columns audiofilename, start, end (seconds) and a column of
            scores per class found.
        parent_dir : str or Path, optional
            Folder of these predictions, such as a copy of ``paths.preds_path`` elsewhere.

        Returns
        -------
        tuple or pandas.DataFrame
            Scores below the threshold of the run are 0.

        Raises
        ------
        ResultsNotFoundError
            If the model has no predictions for these recordings.

        Examples
        --------
        >>> import bacpipe
        >>> loader = bacpipe.Loader("recordings", "birdnet")
        >>> scores, classes = loader.predictions("array")
        >>> scores.shape, classes[0]
        ((153, 7), 'Dark-eyed Junco')
        >>> loader.predictions("dataframe").shape
        (21, 10)
        """
        _check_return_type(return_type, "dict", "array", "dataframe")
        loader = self
        if parent_dir is not None:
            loader = copy.copy(self)
            loader._preds_path = typed_path(parent_dir)
        if return_type == "dataframe":
            return loader.get_annotations_parquet()
        return loader.get_preds_array(return_type)

    def filter_df_by_file(self, df: pd.DataFrame, file: str | Path) -> pd.DataFrame:
        """Rows of a table that are about one recording.

        Parameters
        ----------
        df : pandas.DataFrame
            With a column audiofilename, such as ``predictions('dataframe')``.
        file : str or Path
            The recording: an absolute path, or relative to `audio_dir`.

        Returns
        -------
        pandas.DataFrame
            In the order of `df`; empty if there are none.

        Raises
        ------
        SettingsError
            If there is no such column.

        Examples
        --------
        >>> import bacpipe
        >>> loader = bacpipe.Loader("recordings", "birdnet")
        >>> table = loader.predictions("dataframe")
        >>> loader.filter_df_by_file(table, "SITE-A/20250504_043000.wav")["start"].tolist()
        [15.0, 30.0]
        """
        if "audiofilename" not in df:
            raise SettingsError(
                f"the table has the columns {', '.join(map(str, df.columns))}; expected "
                f"audiofilename."
            )
        return df[df["audiofilename"] == self._relative(file)]

    def get_annotations_parquet(self, **kwargs: object) -> pd.DataFrame:
        """Predictions as a table: a row per window with a prediction, a column per class.

        Parameters
        ----------
        **kwargs
            Any key of the configuration; ``classifier_threshold`` drops lower scores.

        Returns
        -------
        pandas.DataFrame
            Columns audiofilename, start, end (seconds), channel (from 1, with
            ``channel='each'``), and float32 scores per class found; 0
            below the threshold.  ``attrs['bacpipe']`` says what they were made with.  Scores
            that would fill more than 1 GiB are in pandas' sparse columns.

        Examples
        --------
        >>> import bacpipe
        >>> loader = bacpipe.Loader("recordings", "birdnet")
        >>> len(loader.get_annotations_parquet(classifier_threshold=0.8))
        6
        """
        frame = wide_frame(self._detections_above(kwargs), self.channels)
        frame.attrs["bacpipe"] = self.predictions_provenance
        return frame

    def get_preds_array(
        self, return_type: str = "dict", **kwargs: object
    ) -> tuple[Any, dict[int, str]]:
        """Predictions as arrays.

        Parameters
        ----------
        return_type : {'dict', 'array'}
            One array per recording, or one for all.
        **kwargs
            Any key of the configuration; ``classifier_threshold`` drops lower scores.

        Returns
        -------
        scores : dict of np.ndarray, or np.ndarray
            float32 of shape (windows, classes found), windows as in ``embeddings('array')``;
            read-only and not in memory if they are large, like those.
        classes : dict
            Name of the class by column.

        Examples
        --------
        >>> import bacpipe
        >>> loader = bacpipe.Loader("recordings", "birdnet")
        >>> scores, classes = loader.get_preds_array("array", classifier_threshold=0.8)
        >>> scores.shape, len(classes)
        ((153, 3), 3)
        """
        _check_return_type(return_type, "dict", "array")
        blocks = list(blocks_of(self._detections_above(kwargs)))
        names, counts = classes_in(blocks), [entry.windows for entry in self.entries.values()]
        scores = stack_rows(
            scores_by_recording(blocks, zip(self.entries, counts, strict=True), names),
            sum(counts),
            folder=self.get_embedding_dir(),
            what=f"the array of all scores of {self.model_name}",
        )
        classes = dict(enumerate(names))
        if return_type == "array":
            return scores, classes
        parts = np.split(scores, np.cumsum(counts)[:-1])
        return dict(zip(self.entries, parts, strict=True)), classes

    @property
    def has_predictions(self) -> bool:
        """Whether a classifier was run over any recording."""
        entries = self._require_set().content.done.values()
        return any(entry.predictions is not None for entry in entries)

    def require_predictions(self) -> None:
        """Raise a ResultsNotFoundError if no classifier was run."""
        if not self.has_predictions:
            old = old_results_in([self.paths.preds_path])
            raise ResultsNotFoundError(
                f"{self.paths.preds_path}: there are no predictions of {self.model_name} for these "
                f"recordings; "
                + (old or "run a model that has a classifier, with run_pretrained_classifier=True.")
            )

    @property
    def predictions_provenance(self) -> dict[str, Any]:
        """Model, checkpoint, threshold, versions and settings that predictions were made with."""
        embedding_set = self._require_set()
        header = embedding_set.content.header
        stored = (entry.predictions for entry in self.entries.values())
        first = next((item for item in stored if item is not None), None)
        settings: Mapping[str, object] = {} if first is None else first.settings
        return {
            "model": self.model_name,
            "embeddings": embedding_set.folder.name,
            **header.get("identity", {}),
            **header.get("provenance", {}),
            **settings,
        }

    def threshold(self, settings: Mapping[str, Any]) -> float | None:
        """Lowest score that a call asks for: in its settings, or when the loader was made.

        None stands for all that is stored.  That lower scores are not stored is said.
        """
        key = "classifier_threshold"
        if key not in settings and key not in self.options.asked:
            return None
        options = make_options(**settings) if key in settings else self.options
        stored = self.predictions_provenance.get("threshold")
        if stored is not None and options.classifier_threshold < stored:
            logger.warning(
                "%s: scores below %g were not stored (but for the best of each recording, which "
                "calibrations read), so classifier_threshold=%g finds no more; "
                "run the model with it first.",
                self.paths.preds_path,
                stored,
                options.classifier_threshold,
            )
        return options.classifier_threshold

    def _detections_above(self, settings: Mapping[str, Any]) -> Iterator[Detections]:
        """Detections from the threshold that a call asks for, if it does."""
        threshold, items = self.threshold(settings), self.detections(**settings)
        return items if threshold is None else (above(item, threshold) for item in items)

    @property
    def classes(self) -> ClassList:
        """Scientific names and codes of the model's classes, by their names."""
        return read_class_list(class_list_path(self.paths.preds_path, str(self.model_name)))

    @property
    def clock(self) -> Clock:
        """Says of every recording when and where it starts."""
        return self.range_filter().clock

    def range_filter(self, **settings: object) -> RangeFilter:
        """What is known of places and species, with the settings of a call or of the loader.

        Parameters
        ----------
        **settings
            Any key of the configuration; range_filter, range_threshold, species_list, sites,
            latitude and longitude matter here.
        """
        options = self.options
        if settings:
            asked = make_options(**settings)  # or says which of them is impossible
            changed = {key: getattr(asked, key) for key in settings if key in RANGE_OPTIONS}
            options = replace(options, **changed) if changed else options
        key = tuple(getattr(options, name) for name in RANGE_OPTIONS)
        if key not in self._filters:
            self._filters[key] = RangeFilter(self.paths, options, partial(getattr, self, "classes"))
        return self._filters[key]

    def detections(self, **settings: object) -> Iterator[Detections]:
        """Predictions of every recording with their times, in the order of the recordings.

        Parameters
        ----------
        **settings
            Any key of the configuration; ``range_filter`` and ``species_list``, of the call or else
            of the loader, decide which are left out.

        Returns
        -------
        iterator of Detections
            With recording, window (int), start and end (float64, seconds), label (str) and score
            (float32), arrays of shape (detections,).

        Examples
        --------
        >>> import bacpipe
        >>> loader = bacpipe.Loader("recordings", "birdnet")
        >>> first = next(loader.detections())
        >>> first.recording, first.start.tolist(), first.label.tolist()
        ('SITE-A/20250504_043000.wav', [15.0, 30.0], ['Long-eared Owl', 'Great Horned Owl'])
        """
        return self.range_filter(**settings).kept(self.stored_detections())

    def stored_detections(self, recent: RecentPredictions | None = None) -> Iterator[Detections]:
        """All detections that are stored, expected species or not; `recent` ones are not read."""
        return self._read_detections(recent, below=False)

    def scores(self) -> Iterator[Detections]:
        """The same as `detections`, and below the threshold of the run what else is stored.

        That are the five best windows of each recording and class, down to a score of 0.01: no
        detections, but what calibrations can learn from.

        Returns
        -------
        iterator of Detections
            As `detections` gives them.

        Examples
        --------
        >>> import bacpipe
        >>> loader = bacpipe.Loader("recordings", "birdnet")
        >>> first = next(loader.scores())
        >>> (first.score >= 0.5).sum().item(), (first.score < 0.5).any().item()
        (2, True)
        """
        return self.range_filter().kept(self._read_detections(below=True))

    def _read_detections(
        self, recent: RecentPredictions | None = None, *, below: bool
    ) -> Iterator[Detections]:
        embedding_set = self._require_set()
        entries = self.entries
        self.require_predictions()
        self.locate_predictions()
        source = predictions_source(self.paths.preds_path)
        if source != embedding_set.folder.name:
            raise ResultsError(
                f"{self.paths.preds_path}: these predictions belong to the embeddings {source}, "
                f"not to {embedding_set.folder.name}, whose own are gone; run the pipeline again "
                f"with {_settings_of(embedding_set)}."
            )
        table = detections_path(self.paths.preds_path, str(self.model_name))
        # The table of all recordings has none of the scores below the threshold.
        combined = None if below else DetectionStream(table, self.predictions_state)
        for name, entry in entries.items():
            stored = entry.predictions
            if stored is None:
                continue
            if stored.path is None:
                window, label, score = NO_PREDICTIONS
            elif combined is not None and (item := combined.take(name)) is not None:
                _require_windows_of(table, item, entry.windows)
                yield item
                continue
            elif recent is not None and (known := recent.take(stored.sha256)) is not None:
                window, label, score = known
            else:
                window, label, score = read_predictions(
                    path_inside(
                        self.paths.sparse_predictions_path, stored.path, what="the journal"
                    ),
                    entry.windows,
                    stored,
                    below=below,
                )
            start, end = window_times(entry, embedding_set.content.header)
            yield Detections(name, window, start[window], end[window], label, score)

    @property
    def predictions_state(self) -> str:
        """Hash of all predictions, by which results made from them know that they are stale."""
        return self._require_set().predictions_state

    # ------------------------------------------------------------------ inside

    def stems(self) -> dict[str, str]:
        """Stem of the result files of each recording in `audio_dir`."""
        return result_stems(self.recording_names)

    def _is_there(self, paths: ResultPaths, stored: StoredPredictions | None) -> bool:
        if stored is None:
            return False
        folder = paths.sparse_predictions_path
        return stored.path is None or path_inside(folder, stored.path, what="the journal").is_file()

    def _reduced_embeddings(self) -> dict[str, np.ndarray]:
        """Coordinates in the newest map of these embeddings, by embedding file."""
        reducer, dataset = str(self.dim_reduction_model), self.paths.dataset
        parent, folder = self.paths.dim_reduc_parent_dir, self.get_embedding_dir()
        maps = stored_maps(parent, reducer, dataset, str(self.model_name))
        newest = next(
            (item for item in maps if item.metadata.get("embeddings") == folder.name), None
        )
        if newest is None:
            old = old_results_in(stamped_folders(parent, f"{reducer}-{dataset}-{self.model_name}"))
            raise ResultsNotFoundError(
                f"{parent}: there is no {reducer} map of {self.model_name} for these embeddings; "
                f"make it with dim_reduction_model={reducer!r} in "
                f"bacpipe.run_pipeline_for_single_model or bacpipe.play."
                + (f" {old}" if old else "")
            )
        if newest.metadata["embeddings_state"] != self.embeddings_state:
            logger.warning(
                "%s: the embeddings have changed since; run the dimensionality reduction again.",
                newest.folder,
            )
        points = coordinates_of(newest.read())
        return {
            entry.embeddings.path: points[name]
            for name, entry in self.entries.items()
            if name in points
        }

    def _find_set(self, *, exact: bool) -> EmbeddingSet | None:
        assert self.model_name is not None
        parent, dataset = self.paths.main_embeds_path, self.paths.dataset
        wanted = settings_identity(self.options, asked=not exact)
        journal = None if self.part is None else self.part.journal
        embedding_set = find_set(parent, self.model_name, dataset, wanted, part=journal)
        if exact:
            return embedding_set
        owner = recorded_folder(self.paths.dataset_path, self.options.embed_parent_dir)
        if embedding_set is not None and owner is not None and owner != self.audio_dir.resolve():
            logger.info("%s: these are results of %s.", self.paths.dataset_path, owner)
        if embedding_set is None and wanted:
            embedding_set = find_set(parent, self.model_name, dataset, None)
            if embedding_set is not None and embedding_set.identity is not None:
                logger.warning(
                    "%s: these embeddings were computed with %s.",
                    embedding_set.folder,
                    ", ".join(differences(embedding_set.identity, wanted)),
                )
        elif embedding_set is not None and not wanted:
            self._say_which(embedding_set, stamped_folders(parent, f"{self.model_name}-{dataset}"))
        return embedding_set

    def _say_which(self, embedding_set: EmbeddingSet, folders: Sequence[Path]) -> None:
        if len(folders) > 1:
            logger.warning(
                "%s: of %d sets of embeddings of %s this is the newest (%s); name other settings "
                "to read another.",
                embedding_set.folder,
                len(folders),
                self.model_name,
                _settings_of(embedding_set),
            )

    def _require_set(self) -> EmbeddingSet:
        if self.embedding_set is None or not self.embedding_set.content.recordings.has_done:
            own = self.paths.recognisers_path / str(self.model_name)
            if (own / RECOGNISER_WEIGHTS).is_file():
                raise ResultsNotFoundError(
                    f"{self.model_name} is a recogniser, not a model; its detections are read with "
                    f"bacpipe.Recogniser.load({str(own)!r}).detections(loader), where loader is "
                    f"the bacpipe.Loader of its model."
                )
            raise ResultsNotFoundError(
                f"{self.paths.main_embeds_path}: there are no embeddings of {self.model_name} for "
                f"{shown(self.audio_dir)} yet; compute them with bacpipe.generate_embeddings or "
                f"python -m bacpipe."
            )
        return self.embedding_set

    def _entry_and_header(self, recording: str) -> tuple[FinishedEntry, Mapping[str, Any]]:
        """What the journal says of a recording that has windows, and of all."""
        embedding_set = self._require_set()
        entry = embedding_set.content.recordings.finished(recording)
        if entry is None:
            raise ResultsNotFoundError(
                f"{recording}: there are no windows of it in {embedding_set.folder}; expected the "
                f"path of an embedded recording within {shown(self.audio_dir)}, such as "
                f"{next(iter(self.entries), 'none')}."
            )
        return entry, embedding_set.content.header

    def _relative(self, file: str | Path) -> str:
        path = Path(file)
        for base in (self.audio_dir, self.embed_dir):
            if base is not None and path.is_absolute() and path.is_relative_to(base.resolve()):
                return path.relative_to(base.resolve()).as_posix()
            if base is not None and path.is_relative_to(base):
                return path.relative_to(base).as_posix()
        return path.as_posix()


def _settings_of(embedding_set: EmbeddingSet) -> str:
    """Settings of a set, as keywords."""
    identity = embedding_set.identity or {}
    keys = [key for key in settings_identity(Options()) if key in identity]
    return ", ".join(f"{key}={identity[key]}" for key in keys) or "the settings of version 1"


def _require_windows_of(table: Path, item: Detections, windows: int) -> None:
    try:
        require_windows(item.window, windows)
    except ValueError as error:
        raise ResultsError(
            f"{table}: these predictions are damaged ({error}: {item.recording}); delete the file "
            f"and run the pipeline again."
        ) from None


def _check_return_type(value: str, *allowed: str) -> None:
    if value not in allowed:
        raise SettingsError(
            f"return_type={value!r} is not possible: expected one of {', '.join(allowed)}."
        )
