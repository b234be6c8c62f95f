"""`Embedder`: a model that is ready to run on recordings, arrays or a whole data set."""

from __future__ import annotations

import copy
import logging
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bacpipe import configuration
from bacpipe.errors import AudioError, SettingsError
from bacpipe.inference.audio_handler import AudioHandler
from bacpipe.inference.pipeline import Workload, run
from bacpipe.inference.report import RunReport
from bacpipe.inference.runner import (
    Classifier,
    ModelRunner,
    available_cores,
    choose_batch_size,
    choose_workers,
)
from bacpipe.models.backends.pytorch import choose_device
from bacpipe.models.loading import load_custom_model, load_model
from bacpipe.store.plan import Source, StreamEnd

if TYPE_CHECKING:
    from bacpipe.store.loader import Loader

logger = logging.getLogger(__name__)


class Embedder(AudioHandler):
    """A loaded model, and the ways to run it.

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
    """

    def __init__(
        self,
        model_name: str,
        loader: Loader | None = None,
        CustomModel: Any = None,
        dim_reduction_model: bool | str = False,
        **kwargs: Any,
    ) -> None:
        options = loader.options if loader is not None and not kwargs else None
        options = options or configuration.current(**kwargs)
        self.model_name = model_name
        self.loader = loader
        self.dim_reduction_model = _reducer_name(dim_reduction_model, options)
        self.device = choose_device(options.device)
        self.report = RunReport(model_name)
        model = self._load(CustomModel, options) if self.dim_reduction_model is None else None
        super().__init__(model, options)
        self.classifier = Classifier(getattr(self.model, "classes", ()))

    def _load(self, custom: Any, options: configuration.Options) -> Any:
        place = {"device": self.device, "model_base_path": options.model_base_path}
        if custom is not None:
            return load_custom_model(custom, **place)
        return load_model(self.model_name, **place)

    # ------------------------------------------------------------------ in memory

    def get_embeddings_from_model(self, sample: str | Path | np.ndarray) -> np.ndarray:
        """Embed one recording, or reduce embeddings; nothing is written.

        Parameters
        ----------
        sample : str, Path or np.ndarray
            A recording.  For an embedder with a `dim_reduction_model`: embeddings, float32 of
            shape (windows, dim).

        Returns
        -------
        np.ndarray, float32, shape (windows, dim)

        Raises
        ------
        AudioError
            If the recording cannot be read.
        """
        if isinstance(sample, np.ndarray):
            return self.get_reduced_dimensionality_embeddings(sample)
        path = Path(sample)
        return self._in_memory([Source(path.parent, path.name, 0, 0)], self.decode)

    def embeddings_using_multithreading(
        self, array_of_audios: np.ndarray | Sequence[np.ndarray]
    ) -> np.ndarray:
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
        """
        audios = [array_of_audios] if np.ndim(array_of_audios[0]) == 0 else array_of_audios
        sources = [Source(Path(), f"audio {i}", 0, 0) for i in range(len(audios))]
        audio_of = dict(zip((source.name for source in sources), audios, strict=True))

        def decode(source: Source) -> Generator[np.ndarray, None, StreamEnd]:
            audio = np.asarray(audio_of[source.name], dtype=np.float32)
            if not np.isfinite(audio).all():
                raise AudioError(f"{source.name}: holds values that are not numbers")
            yield self.window_audio(audio).numpy()
            return StreamEnd(audio.size / self.model.sr, padded=0)

        return self._in_memory(sources, decode)

    def _in_memory(self, sources: Sequence[Source], decode: Any) -> np.ndarray:
        self._require_model()
        sink, self.report = MemorySink(), RunReport(self.model_name)
        wanted = self.options.run_pretrained_classifier and bool(self.classifier.classes)
        runner = self.runner(scores=wanted, dense=True)
        workload = self.workload(runner)
        run(sources, decode, runner, sink, workload, self.report, isolate=False)
        self.file_length.update((name, end.duration) for name, end in sink.ends.items())
        self.classifier.predictions = sink.scores()
        return sink.embeddings()

    def init_dataloader(self, audio: Any) -> Iterator[Any]:
        """Split preprocessed windows into batches.

        Parameters
        ----------
        audio : torch.Tensor
            What `prepare_audio` returned.

        Yields
        ------
        torch.Tensor
            Views of at most a batch of windows.
        """
        size = choose_batch_size(self.runner(scores=False), self.options.global_batch_size, 1)
        for first in range(0, len(audio), size):
            yield audio[first : first + size]

    def batch_inference(
        self, batched_samples: Iterable[Any], callback: Callable[[int], Any] | None = None
    ) -> np.ndarray:
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
        """
        parts: list[np.ndarray] = []
        done = 0
        with torch.inference_mode():
            for batch in batched_samples:
                embeddings = self.model(batch)
                if isinstance(embeddings, torch.Tensor):
                    embeddings = embeddings.float().cpu().numpy()
                parts.append(np.asarray(embeddings, dtype=np.float32))
                done += len(parts[-1])
                if callback is not None:
                    callback(done)
        return np.concatenate(parts)

    def get_embeddings_for_audio(self, sample: Any) -> np.ndarray:
        """Embed preprocessed windows.

        Parameters
        ----------
        sample : torch.Tensor
            What `prepare_audio` returned.

        Returns
        -------
        np.ndarray, float32, shape (windows, dim)
        """
        return self.batch_inference(self.init_dataloader(sample))

    def get_reduced_dimensionality_embeddings(self, embeds: np.ndarray) -> np.ndarray:
        """Reduce embeddings to a map; nothing is written.

        Parameters
        ----------
        embeds : np.ndarray, float32, shape (windows, dim)
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
        """
        from bacpipe.reduction.reducers import choose_seed, fit

        array = np.asarray(embeds, dtype=np.float32)
        seed = choose_seed(self.options.reduction_seed, len(array))
        dimensions = self.options.visualization_dimensions
        return fit(self._require_reducer(), array, dimensions, seed).coordinates

    def _require_model(self) -> None:
        if self.model is None:
            raise SettingsError(
                f"This Embedder reduces embeddings with {self.dim_reduction_model}; create it "
                f"without dim_reduction_model to embed recordings."
            )

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
        """
        return self._run_data_set(threads=True)

    def run_inference_pipeline_sequentially(self) -> Loader:
        """Do the same as `run_inference_pipeline_using_multithreading`, without threads."""
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
        """
        from bacpipe.reduction.data_set import reduce_data_set

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
        from bacpipe.inference.run_data_set import embed_data_set

        self._require_model()
        if self.loader is None:
            raise SettingsError(
                "This Embedder has no loader, so it does not know the recordings; create it with "
                "Embedder(model_name, Loader(audio_dir, model_name, use_folder_structure=True))."
            )
        self.report = embed_data_set(self, self.loader, threads=threads)
        return self.loader

    def runner(self, *, scores: bool, dense: bool = False) -> ModelRunner:
        """Runner of this model with the settings of this embedder.

        Parameters
        ----------
        scores : bool
            Whether class scores are wanted.
        dense : bool
            Whether all of them are, not just those that are stored.

        Raises
        ------
        SettingsError
            If the model cannot compute with the wanted precision.
        """
        card, options = getattr(self.model, "card", None), self.options
        if options.precision != "float32" and card is not None and card.backend != "torch":
            raise SettingsError(
                f"precision={options.precision!r} is not possible with {card.name}, which "
                f"{card.backend} computes; use precision='float32'."
            )
        return ModelRunner(
            self.model,
            scores=scores,
            threshold=options.classifier_threshold,
            top=options.max_predictions_per_window,
            dense=dense,
            precision=options.precision,
        )

    def workload(self, runner: ModelRunner, *, threads: bool = True) -> Workload:
        """How many batches and recordings to work on at the same time."""
        workers = choose_workers(self.model) if threads else 1
        batch_size = choose_batch_size(runner, self.options.global_batch_size, workers)
        decoders = self.options.nr_parallel_workers
        if decoders == "auto":
            cores = available_cores()
            # A GPU outruns a few decoders; on a CPU the model needs the cores.
            decoders = min(8, cores) if runner.device != "cpu" else min(4, max(1, cores // 2))
        return Workload(batch_size, workers, decoders if threads else 0)


def _reducer_name(value: bool | str | None, options: configuration.Options) -> str | None:
    """Name of the reducer that is meant; None for none."""
    wanted = options.dim_reduction_model if value is True else value
    name = configuration.current(dim_reduction_model=wanted).dim_reduction_model
    if value is True and name == "None":
        raise SettingsError(
            "dim_reduction_model=True takes the configured reducer, but none is configured; "
            "expected one of pca, sparse_pca, t_sne, umap."
        )
    return None if name == "None" else name


# FOLDED bacpipe/inference/memory_sink.py: Results that stay in memory: for single recordings and arrays.


class MemorySink:
    """Collects embeddings and all class scores.

    Attributes
    ----------
    ends : dict
        How each recording ended, by its name.
    """

    def __init__(self) -> None:
        self.ends: dict[str, StreamEnd] = {}
        self._embeddings: defaultdict[str, list[np.ndarray]] = defaultdict(list)
        self._scores: defaultdict[str, list[np.ndarray]] = defaultdict(list)

    def add(self, source: Source, embeddings: np.ndarray, predictions: Any) -> None:
        """Take the next windows of a recording."""
        # Copies: what a model returns may lie in the batch's memory, which is used again.
        self._embeddings[source.name].append(embeddings.copy())
        if predictions is not None:
            self._scores[source.name].append(predictions.copy())

    def finish(self, source: Source, end: StreamEnd) -> None:
        """Complete a recording."""
        self.ends[source.name] = end

    def fail(self, source: Source, reason: str) -> None:
        """Raise the reason: somebody asked for just this recording.

        Raises
        ------
        AudioError
        """
        raise AudioError(reason)

    def embeddings(self) -> np.ndarray:
        """All embeddings, float32 of shape (windows, dim)."""
        return np.concatenate([rows for parts in self._embeddings.values() for rows in parts])

    def scores(self) -> np.ndarray | None:
        """All class scores, float32 of shape (windows, classes); None without a classifier."""
        parts = [rows for parts in self._scores.values() for rows in parts]
        return np.concatenate(parts) if parts else None
