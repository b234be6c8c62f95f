"""`Embedder`: a model that is ready to run, or a reducer, on what is in memory or on a data set."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bacpipe.audio.stream import Samples
from bacpipe.errors import AudioError, BacpipeError, SettingsError, counted
from bacpipe.inference.audio_handler import AudioHandler
from bacpipe.inference.calls import calls_in
from bacpipe.inference.pipeline import Decode, run
from bacpipe.inference.report import RunReport, warn_of_failures
from bacpipe.inference.run_data_set import embed_data_set
from bacpipe.inference.runner import first_invalid
from bacpipe.models.backends.pytorch import choose_device
from bacpipe.models.base import Inputs, Model
from bacpipe.models.loading import load_custom_model, load_model
from bacpipe.models.zoo import CARDS, canonical_name
from bacpipe.options import Options, make_options, with_changes
from bacpipe.reduction.reduce_data_set import reduce_data_set
from bacpipe.reduction.reducers import choose_seed, fit
from bacpipe.store.embedding_set import options_for, settings_identity
from bacpipe.store.loader import Loader
from bacpipe.store.plan import Source, StreamEnd

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)


class Embedder(AudioHandler):
    """A loaded model, and the ways to run it.

    Whatever is embedded, recordings, arrays, preprocessed windows or a data set, goes through
    the same steps with the same settings and gives the same numbers.  An Embedder can be
    copied, and pickled for other processes, if its model can.

    Parameters
    ----------
    model_name : str
        Name of a model of the zoo, or a name of your choice for `CustomModel`.
    loader : Loader, optional
        Data set and results tree, for `run_inference_pipeline_using_multithreading`.
    CustomModel : class or object, optional
        A model of your own; see `ModelBaseClass`.
    dim_reduction_model : bool or str
        Name of a reducer, or True for the configured one: the embedder then reduces embeddings
        and loads no model.
    options : Options, optional
        All options of the call, instead of keywords.
    **kwargs
        Any key of ``bacpipe.config`` and ``bacpipe.settings``.

    Attributes
    ----------
    model : ModelBaseClass or None
        The model, None with a `dim_reduction_model`; ``model.classes`` names its class scores.
    classifier : Classifier
        ``classifier.predictions`` are the class scores of what was embedded last in memory.
    report : RunReport
        Counts of the last run.

    Raises
    ------
    UnknownModelError, ModelUnavailableError, CheckpointError
        If the model cannot be loaded.

    Examples
    --------
    >>> import bacpipe
    >>> embedder = bacpipe.Embedder("birdnet")
    >>> embedder.get_embeddings_from_model("recordings/SITE-A/20250504_043000.wav").shape
    (13, 1024)
    >>> embedder.classifier.predictions.shape
    (13, 6522)
    >>> embedder.loaded_model.segment_length
    144000
    """

    def __init__(
        self,
        model_name: str,
        loader: Loader | None = None,
        CustomModel: object = None,
        dim_reduction_model: bool | str = False,
        *,
        options: Options | None = None,
        **kwargs: object,
    ) -> None:
        if options is None:
            options = make_options(**kwargs)  # which knows the keys
            if loader is not None:
                # What the loader was given holds where nothing else is said.
                more = {"hop": None, **kwargs} if "overlap" in kwargs else kwargs
                options = with_changes(loader.options, **more) if more else loader.options
        options = options_for(options, canonical_name(model_name))
        self.model_name = canonical_name(model_name)
        self.loader = loader
        self.dim_reduction_model = _reducer_name(dim_reduction_model, options)
        self.device = choose_device(options.device)
        self.report = RunReport(model_name)
        model = self._load(CustomModel, options) if self.dim_reduction_model is None else None
        audio_dir = None if loader is None else loader.audio_dir
        super().__init__(model, audio_dir, options=options)
        if loader is not None and model is not None:
            _require_agreement(options, self.options, loader.options)
        self.classifier = Classifier(() if model is None else model.classes)
        if model is not None:
            wanted = options.run_pretrained_classifier and bool(model.classes)
            object.__setattr__(model, "bool_classifier", wanted)  # users' models may be frozen

    def _load(self, custom: object, options: Options) -> Model:
        base = options.model_base_path
        if custom is not None:
            more = {
                "model_name": self.model_name,
                "global_batch_size": options.global_batch_size,
                "run_pretrained_classifier": options.run_pretrained_classifier,
            }
            model = load_custom_model(custom, device=self.device, model_base_path=base, more=more)
            _require_window(model, self.model_name, options)
            return model
        return load_model(self.model_name, device=self.device, model_base_path=base)

    @property
    def loaded_model(self) -> Model:
        """The model.

        Raises
        ------
        SettingsError
            If this Embedder reduces embeddings.
        """
        if self.dim_reduction_model is not None:
            raise SettingsError(
                f"This Embedder reduces embeddings with {self.dim_reduction_model}; create it "
                f"without dim_reduction_model to embed recordings."
            )
        return super().loaded_model

    # ------------------------------------------------------------------ in memory

    def get_embeddings_from_model(
        self, sample: str | Path | NDArray[np.float32] | Mapping[str, NDArray[np.float32]]
    ) -> NDArray[np.float32]:
        """Embed one recording, or reduce embeddings; nothing is written.

        Parameters
        ----------
        sample : str, Path or np.ndarray
            A recording, also relative to the folder of the loader.  For an embedder with a
            `dim_reduction_model`: embeddings, float32 of shape (windows, dim), or a dict of them.

        Returns
        -------
        np.ndarray, float32, shape (windows, dim)

        Raises
        ------
        AudioError
            If the recording cannot be read.
        """
        if isinstance(sample, np.ndarray | Mapping):
            return self.get_reduced_dimensionality_embeddings(sample)
        path = self._located(sample)
        return self._in_memory([Source(path.parent, path.name, 0, 0)], self.decode)

    def embeddings_using_multithreading(
        self, array_of_audios: NDArray[np.float32] | Sequence[NDArray[np.float32]]
    ) -> NDArray[np.float32]:
        """Embed audio that is in memory already.

        Parameters
        ----------
        array_of_audios : array of shape (n, samples), or sequence of arrays of shape (samples,)
            Audio at the model's sample rate; each item is cut into windows by itself.  A
            single array of shape (samples,) is one item.

        Returns
        -------
        np.ndarray, float32, shape (windows, dim)
            The windows of the first item, then those of the second one, and so on.

        Examples
        --------
        >>> import numpy as np, bacpipe
        >>> embedder = bacpipe.Embedder("birdnet")
        >>> embedder.embeddings_using_multithreading(np.zeros((2, 144_000), np.float32)).shape
        (2, 1024)
        """
        if len(array_of_audios) == 0:
            raise AudioError("There is no audio to embed; expected at least one array of samples.")
        if np.ndim(array_of_audios[0]) == 0:
            audios: Sequence[NDArray[np.float32]] = [np.asarray(array_of_audios)]
        elif isinstance(array_of_audios, Sequence):
            audios = array_of_audios
        else:
            audios = [*self._samples_of(array_of_audios)]
        sources = [Source(Path(), f"audio {i}", 0, 0) for i in range(len(audios))]
        audio_of = dict(zip((source.name for source in sources), audios, strict=True))

        def decode(source: Source) -> Generator[Samples, None, StreamEnd]:
            audio = self._samples_of(audio_of[source.name])
            if not np.isfinite(audio).all():
                raise AudioError(f"{source.name}: holds values that are not numbers")
            yield self.window_audio(audio).numpy()
            return StreamEnd(audio.size / self.loaded_model.sr, padded=0)

        return self._in_memory(sources, decode)

    def generate_embeddings_from_audio_array(
        self, audio_array: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Embed an array of audio, as `embeddings_using_multithreading` does.

        Parameters
        ----------
        audio_array : np.ndarray or torch.Tensor, shape (samples,) or (n, samples)
            Audio at the model's sample rate.

        Returns
        -------
        np.ndarray, float32, shape (windows, dim)

        Examples
        --------
        >>> import numpy as np, bacpipe
        >>> embedder = bacpipe.Embedder("birdnet")
        >>> embedder.generate_embeddings_from_audio_array(np.zeros(300_000, np.float32)).shape
        (3, 1024)
        """
        return self.embeddings_using_multithreading(self._samples_of(audio_array))

    def _in_memory(self, sources: Sequence[Source], decode: Decode) -> NDArray[np.float32]:
        results = _InMemoryResults([source.name for source in sources])
        self.report = RunReport(self.model_name)
        runner = self.runner(scores=self._classifies, dense=True)
        workload = self.workload(runner)
        run(sources, decode, runner, results, workload, self.report, isolate=False)
        self.file_length.update((name, end.duration) for name, end in results.ends.items())
        self._keep_scores(results.scores())
        return results.embeddings()

    def _keep_scores(self, scores: NDArray[np.float32] | None) -> None:
        self.classifier.predictions = scores
        object.__setattr__(self.loaded_model, "classifier_outputs", scores)

    @property
    def _classifies(self) -> bool:
        """Whether class scores are wanted and the model gives some."""
        return self.options.run_pretrained_classifier and bool(self.classifier.classes)

    def calls(self, sample: str | Path) -> pd.DataFrame:
        """Find the single calls in a recording, with a model that detects them; nothing is written.

        Parameters
        ----------
        sample : str or Path
            A recording.

        Returns
        -------
        pandas.DataFrame
            A row per call: audiofilename, start and end (seconds), low_frequency and
            high_frequency (Hz), label (the species), scientific_name, score and detection_score;
            with ``channel='each'`` also channel, from 1.

        Raises
        ------
        SettingsError
            If the model finds no calls; those of BatDetect2 do.
        AudioError
            If the recording cannot be read.

        Examples
        --------
        >>> import bacpipe
        >>> calls = bacpipe.Embedder("batdetect2_dets_avg").calls("bats/evening.wav")
        >>> calls.loc[0, "label"]
        'Pipistrellus pipistrellus'
        """
        path = self._located(sample)
        return calls_in(self, Source(path.parent, path.name, -1, -1))

    def init_dataloader(self, audio: Inputs) -> Iterator[Inputs]:
        """Split preprocessed windows into batches.

        Parameters
        ----------
        audio : torch.Tensor
            What `prepare_audio` returned.

        Yields
        ------
        torch.Tensor
            Views of at most a batch of windows.

        Examples
        --------
        >>> import bacpipe
        >>> embedder = bacpipe.Embedder("birdnet")
        >>> windows = embedder.prepare_audio("recordings/SITE-A/20250504_043000.wav")
        >>> sum(len(batch) for batch in embedder.init_dataloader(windows))
        13
        """
        size = self.batch_size(self.runner(scores=False), workers=1)
        for first in range(0, len(audio), size):
            yield audio[first : first + size]

    def batch_inference(
        self, batched_samples: Iterable[Inputs], callback: Callable[[int], object] | None = None
    ) -> NDArray[np.float32]:
        """Embed preprocessed windows batch by batch.

        Parameters
        ----------
        batched_samples : iterable
            Batches, such as `init_dataloader` yields.
        callback : callable, optional
            Called after each batch with the number of windows done so far.

        Returns
        -------
        np.ndarray, float32, shape (windows, dim)

        Raises
        ------
        BacpipeError
            If there is no batch, the model returns the wrong shape or values that are not numbers,
            or if not even one window fits into memory.

        Examples
        --------
        >>> import bacpipe
        >>> embedder = bacpipe.Embedder("birdnet")
        >>> windows = embedder.prepare_audio("recordings/SITE-A/20250504_043000.wav")
        >>> embedder.batch_inference(windows.split(4)).shape
        (13, 1024)
        """
        runner = self.runner(scores=self._classifies, dense=True)
        embeddings: list[NDArray[np.float32]] = []
        scores: list[NDArray[np.float32]] = []
        done = 0
        for batch in batched_samples:
            result = runner.run_preprocessed(batch)
            if (invalid := first_invalid(result.embeddings)) is not None:
                raise BacpipeError(
                    f"{self.model_name}: the model returned values that are not numbers for "
                    f"window {done + invalid}."
                )
            embeddings.append(result.embeddings)
            if result.scores is not None:
                scores.append(result.scores)
            done += len(result.embeddings)
            if callback is not None:
                callback(done)
        if not embeddings:
            raise BacpipeError(
                "There are no windows to embed; expected at least one batch of them."
            )
        self._keep_scores(np.concatenate(scores) if scores else None)
        return np.concatenate(embeddings)

    def get_embeddings_for_audio(self, sample: Inputs) -> NDArray[np.float32]:
        """Embed preprocessed windows.

        Parameters
        ----------
        sample : torch.Tensor
            What `prepare_audio` returned.

        Returns
        -------
        np.ndarray, float32, shape (windows, dim)

        Raises
        ------
        BacpipeError
            As for `batch_inference`.

        Examples
        --------
        >>> import bacpipe
        >>> embedder = bacpipe.Embedder("birdnet")
        >>> windows = embedder.prepare_audio("recordings/SITE-A/20250504_043000.wav")
        >>> embedder.get_embeddings_for_audio(windows).shape
        (13, 1024)
        """
        return self.batch_inference(self.init_dataloader(sample))

    def get_reduced_dimensionality_embeddings(
        self, embeds: NDArray[np.float32] | Mapping[str, NDArray[np.float32]]
    ) -> NDArray[np.float32]:
        """Reduce embeddings to a map; nothing is written.

        Parameters
        ----------
        embeds : np.ndarray, float32, shape (windows, dim), or dict of such arrays
            Embeddings.

        Returns
        -------
        np.ndarray, float32, shape (windows, 2 or 3)
            As many columns as ``visualization_dimensions``.

        Raises
        ------
        SettingsError
            If the embedder has no `dim_reduction_model`.
        ReductionError
            If there are too few windows, or they hold values that are not numbers.

        Examples
        --------
        >>> import bacpipe
        >>> embeds = bacpipe.Loader("recordings", "birdnet").embeddings("array")
        >>> reducer = bacpipe.Embedder("birdnet", dim_reduction_model="pca")
        >>> reducer.get_reduced_dimensionality_embeddings(embeds).shape
        (153, 2)
        """
        if isinstance(embeds, Mapping):
            embeds = np.concatenate([*embeds.values()])
        array = np.asarray(embeds, dtype=np.float32)
        seed = choose_seed(self.options.reduction_seed, len(array))
        dimensions = self.options.visualization_dimensions
        return fit(self._require_reducer(), array, dimensions, seed).coordinates

    def _require_reducer(self) -> str:
        if self.dim_reduction_model is None:
            raise SettingsError(
                "This Embedder embeds recordings; create it with "
                "Embedder(model_name, dim_reduction_model='umap') to reduce embeddings."
            )
        return self.dim_reduction_model

    # ------------------------------------------------------------------ data sets

    def run_inference_pipeline_using_multithreading(self) -> Loader:
        """Embed the recordings of the loader's data set and store the results.

        Recordings are decoded in threads while the model computes; finished ones are kept if
        the run is interrupted.

        Returns
        -------
        Loader
            The loader, which now reads the results.

        Raises
        ------
        NothingEmbeddedError
            If not one recording could be embedded.
        ResultsLockedError
            If another run writes these results.

        Examples
        --------
        >>> import bacpipe
        >>> loader = bacpipe.Loader("recordings", "birdnet", use_folder_structure=True)
        >>> embedder = bacpipe.Embedder("birdnet", loader)
        >>> embedder.run_inference_pipeline_using_multithreading().embeddings("array").shape
        (153, 1024)
        """
        return self._run_data_set(threads=True)

    def run_inference_pipeline_sequentially(self) -> Loader:
        """Do the same as `run_inference_pipeline_using_multithreading`, without threads.

        Returns
        -------
        Loader
            The loader, which now reads the results.

        Examples
        --------
        >>> import bacpipe
        >>> loader = bacpipe.Loader("recordings", "birdnet", use_folder_structure=True)
        >>> embedder = bacpipe.Embedder("birdnet", loader)
        >>> embedder.run_inference_pipeline_sequentially().embeddings("array").shape
        (153, 1024)
        """
        return self._run_data_set(threads=False)

    def run_dimensionality_reduction_pipeline(self) -> Loader:
        """Reduce the embeddings of the loader's data set and store the map.

        Returns
        -------
        Loader
            Reads the reduced embeddings.

        Raises
        ------
        SettingsError
            If the embedder has no loader or no `dim_reduction_model`.
        ResultsNotFoundError
            If there are no embeddings.
        ReductionError
            If there are too few windows.

        Examples
        --------
        >>> import bacpipe
        >>> loader = bacpipe.Loader("recordings", "birdnet")
        >>> reducer = bacpipe.Embedder("birdnet", loader, dim_reduction_model="pca")
        >>> reducer.run_dimensionality_reduction_pipeline().embeddings("array").shape
        (153, 2)
        """
        reducer = self._require_reducer()
        if self.loader is None:
            raise SettingsError(
                "This Embedder has no loader, so it does not know the embeddings; create it with "
                "Embedder(model_name, Loader(audio_dir, model_name), dim_reduction_model='umap')."
            )
        reduce_data_set(self.loader, reducer, self.options)
        reader = copy.copy(self.loader)
        reader.dim_reduction_model = reducer
        return reader

    def _run_data_set(self, *, threads: bool) -> Loader:
        if self.loader is None:
            raise SettingsError(
                "This Embedder has no loader, so it does not know the recordings; create it with "
                "Embedder(model_name, Loader(audio_dir, model_name, use_folder_structure=True))."
            )
        self.report = embed_data_set(self, self.loader, threads=threads)
        warn_of_failures(self.report)
        return self.loader


def _require_agreement(options: Options, possible: Options, of_loader: Options) -> None:
    """Make sure that a model makes what the results of a loader say of themselves.

    `possible` are the `options` as far as this computer can follow them.
    """
    wanted = settings_identity(of_loader)
    if wanted in (settings_identity(options), settings_identity(possible)):
        return
    key, value = next(
        item for item in settings_identity(options).items() if item not in wanted.items()
    )
    raise SettingsError(
        f"{key}={value!r} is not possible with a loader whose results have {key}={wanted[key]!r}; "
        f"give what changes embeddings to the Loader, and nothing of it to the Embedder."
    )


def _require_window(model: Model, name: str, options: Options) -> None:
    """Make sure that an overlap was counted with the windows that a model of one's own has."""
    card = CARDS.get(name)
    if card is None or "overlap" not in options.asked or options.hop is None:
        return
    if model.segment_length / model.sr != card.window / card.sample_rate:
        raise SettingsError(
            f"overlap is not possible with this CustomModel, whose windows are not as long as "
            f"those of {name}; expected hop, the seconds from one window to the next."
        )


def _reducer_name(value: bool | str | None, options: Options) -> str | None:
    """Name of the reducer that is meant; None for none."""
    wanted = options.dim_reduction_model if value is True else value
    name = make_options(dim_reduction_model=wanted).dim_reduction_model
    if value is True and name == "None":
        raise SettingsError(
            "dim_reduction_model=True takes the configured reducer, but none is configured; "
            "expected one of pca, sparse_pca, t_sne, umap."
        )
    return None if name == "None" else name


class Classifier:
    """The integrated classifier of an `Embedder`.

    Attributes
    ----------
    classes : list of str
        One name per column of `predictions`.
    predictions : np.ndarray, float32, shape (windows, classes), or None
        Scores of what was embedded last in memory, with any method but those for data sets;
        None before that, for models without a classifier, and without
        ``run_pretrained_classifier``.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = list(classes)
        self.predictions: NDArray[np.float32] | None = None

    def __repr__(self) -> str:
        shape = None if self.predictions is None else self.predictions.shape
        return f"Classifier({counted(len(self.classes), 'class', 'classes')}, predictions: {shape})"


class _InMemoryResults:
    """Keeps embeddings and all class scores; `ends` says how each recording ended."""

    def __init__(self, names: Sequence[str]) -> None:
        self.ends: dict[str, StreamEnd] = {}
        # In the order that they were asked for; they end in another.
        self._embeddings: dict[str, list[NDArray[np.float32]]] = {name: [] for name in names}
        self._scores: dict[str, list[NDArray[np.float32]]] = {name: [] for name in names}

    def add(
        self,
        source: Source,
        embeddings: NDArray[np.float32],
        predictions: NDArray[np.float32] | None,
    ) -> None:
        # Copies: what a model returns may lie in the batch's memory, which is used again.
        self._embeddings[source.name].append(embeddings.copy())
        if predictions is not None:
            self._scores[source.name].append(predictions.copy())

    def finish(self, source: Source, end: StreamEnd) -> None:
        self.ends[source.name] = end

    def fail(self, source: Source, reason: str) -> None:
        raise AudioError(reason)  # somebody asked for just this recording

    def embeddings(self) -> NDArray[np.float32]:
        return np.concatenate([rows for parts in self._embeddings.values() for rows in parts])

    def scores(self) -> NDArray[np.float32] | None:
        parts = [rows for parts in self._scores.values() for rows in parts]
        return np.concatenate(parts) if parts else None
