"""batdetect2: a detector and classifier of bat echolocation calls, as an embedding model.

The network finds calls in the spectrogram of a recording and gives every pixel a feature
vector.  A window's embedding is the mean of these features over the whole map, or over the
calls that were found.

References
----------
Mac Aodha et al. 2022, Towards a general approach for bat echolocation detection and
classification, bioRxiv 2022.12.14.520490; https://github.com/macaodha/batdetect2
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from batdetect2.detector.models import Net2DFast
from torch.nn import functional

from bacpipe.errors import CheckpointError
from bacpipe.models.backends.cpu.fusion import fuse
from bacpipe.models.backends.pytorch import FullPrecision, TorchModel, read_checkpoint
from bacpipe.models.base import Calls
from bacpipe.models.families.batdetect2_network import BatDetect2Spectrogram, OneWindow
from bacpipe.models.frontends import exact_dtype

# This import switches numpy's warnings off for the whole process; errstate puts them back.
with np.errstate():
    from batdetect2.detector.post_process import (
        get_topk_scores,
        non_max_suppression,
        x_coords_to_time,
    )

DETECTION_THRESHOLD = 0.3

# What the spectrogram and the network here are written for.
_EXPECTED = {
    "model_name": "Net2DFast",
    "spec_scale": "pcen",
    "denoise_spec_avg": True,
    "max_scale_spec": False,
    "scale_raw_audio": False,
}


class _Maps(NamedTuple):
    """Output of the network for n windows, on a grid of frequency × time."""

    detection: torch.Tensor  # (n, 1, height, width): probability of a call of any species
    classes: torch.Tensor  # (n, n_classes, height, width): of a call of this species
    features: torch.Tensor  # (n, dim, height, width)


class _Detected(NamedTuple):
    """Places of the maps that may be calls, of which windows have equally many."""

    is_call: torch.Tensor  # bool, (n, candidates)
    probability: torch.Tensor  # float32, (n, candidates)
    row: torch.Tensor  # int64, (n, candidates), from the highest frequency down
    column: torch.Tensor  # int64, (n, candidates)


class _BatDetect2(TorchModel):
    """What both variants share: the weights, the spectrogram and the network."""

    one_pass = True

    def set_up(self) -> None:
        (path,) = self.paths
        self._params, state = _read(path)
        self.classes = tuple(self._params["class_names"])
        spelling = {name: scientific for name, scientific, _ in self.card.known_classes}
        self.scientific_names = tuple(spelling.get(name, name) for name in self.classes)
        network = Net2DFast(
            self._params["num_filters"],
            num_classes=len(self.classes),
            emb_dim=self._params["emb_dim"],
            ip_height=self._params["ip_height"],
            resize_factor=self._params["resize_factor"],
        )
        self.fit(network, path, state)
        # Channels last saves a quarter of the time on a CPU.
        self._network = self.place(network).to(memory_format=torch.channels_last)
        self.spectrogram = self.place(
            BatDetect2Spectrogram(
                self._params,
                n_samples=self.segment_length,
                precision=exact_dtype(self.device),
            )
        )
        self._one_window = None
        if self.device == "cpu":
            arranged = OneWindow(network, width=self.spectrogram.size[1])
            self._one_window = fuse(arranged, self.device)
        else:
            network.conv_classes_op = FullPrecision(network.conv_classes_op)

    def preprocess(self, audio: torch.Tensor) -> torch.Tensor:
        """Spectrograms, equal to those of ``batdetect2.api.generate_spectrogram``.

        Parameters
        ----------
        audio : torch.Tensor, float32, shape (n, 256000)
            Windows in [-1, 1] on the model's device.

        Returns
        -------
        torch.Tensor, float32, shape (n, 1, 128, 1024)
        """
        return self.spectrogram(audio)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Embed spectrograms.

        Parameters
        ----------
        x : torch.Tensor, float32, shape (n, 1, 128, 1024)

        Returns
        -------
        torch.Tensor, float32, shape (n, 32)
        """
        return self.infer(x)[0]

    def infer(
        self, x: torch.Tensor, *, scores: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Embeddings and, when asked for, class scores of spectrograms.

        Parameters
        ----------
        x : torch.Tensor, float32, shape (n, 1, 128, 1024)
        scores : bool
            Whether class scores are wanted.

        Returns
        -------
        embeddings : torch.Tensor, float32, shape (n, 32)
        scores : torch.Tensor, float32, shape (n, 17), or None
            Probabilities in [0, 1].
        """
        if self._one_window is None:
            return self._pool(self._maps(x), scores=scores)
        # The maps of a single window are more than the caches hold.
        pooled = [self._pool(self._maps(window), scores=scores) for window in x.split(1)]
        embeddings, best = zip(*pooled, strict=True)
        return torch.cat(embeddings), torch.cat(best) if scores else None

    def calls(self, x: torch.Tensor) -> list[Calls]:
        """Calls in spectrograms, as batdetect2 finds them, above `DETECTION_THRESHOLD`.

        Parameters
        ----------
        x : torch.Tensor, float32, shape (n, 1, 128, 1024)

        Returns
        -------
        list of Calls
            One for each window, in the order of their start.
        """
        return [self._calls_in(self._maps(window)) for window in x.split(1)]

    def _calls_in(self, maps: _Maps) -> Calls:
        """Calls in the maps of one window."""
        detected = self._detect(maps)
        chosen = detected.is_call[0].nonzero()[:, 0]
        chosen = chosen[detected.column[0, chosen].argsort(stable=True)]
        row, column = detected.row[0, chosen], detected.column[0, chosen]
        features = maps.features[0, :, row, column].T
        size = self._network.conv_size_op
        width, height = functional.linear(features, size.weight[:, :, 0, 0], size.bias).relu().T
        hertz = (self._params["max_freq"] - self._params["min_freq"]) / maps.detection.shape[2]
        low = (maps.detection.shape[2] - row) * hertz + self._params["min_freq"]
        places = (*map(self._seconds, (column, column + width)), low, low + height * hertz)
        scores = (maps.classes[0, :, row, column].T, detected.probability[0, chosen])
        return Calls(
            *(values.cpu().double().numpy() for values in places),
            *(values.cpu().numpy() for values in scores),
        )

    def _seconds(self, column: torch.Tensor) -> torch.Tensor:
        """Time of a column of the maps, from the start of the window."""
        seconds: torch.Tensor = x_coords_to_time(
            column / self._params["resize_factor"],
            self.sr,
            self._params["fft_win_length"],
            self._params["fft_overlap"],
        )
        return seconds

    def _detect(self, maps: _Maps) -> _Detected:
        probability, row, column = get_topk_scores(
            non_max_suppression(maps.detection, self._params["nms_kernel_size"]),
            self._most_calls(maps.detection.shape[-1]),
        )
        return _Detected(probability > DETECTION_THRESHOLD, probability, row, column)

    def _most_calls(self, width: int) -> int:
        # The package takes columns of the resized map for columns of the spectrogram, which
        # halves the number of calls it allows; its results are the reference.
        seconds = x_coords_to_time(
            width, self.sr, self._params["fft_win_length"], self._params["fft_overlap"]
        )
        return int(seconds * self._params["nms_top_k_per_sec"])

    def _maps(self, x: torch.Tensor) -> _Maps:
        if self._one_window is not None:
            detection, classes, features = self._one_window(x)
        else:
            output = self._network(x.contiguous(memory_format=torch.channels_last))
            detection, classes, features = output.pred_det, output.pred_class, output.features
        # The last class is the background.
        return _Maps(detection, classes[:, :-1], features)

    def _pool(self, maps: _Maps, *, scores: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Reduce the maps to one embedding and, when asked for, one score per class."""
        raise NotImplementedError


class BatDetect2ClipAverage(_BatDetect2):
    """Embedding: features averaged over time and frequency; score: best pixel of the class."""

    def _pool(self, maps: _Maps, *, scores: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
        return maps.features.mean((2, 3)), maps.classes.amax((2, 3)) if scores else None


class BatDetect2DetectionAverage(_BatDetect2):
    """Embedding: features averaged over detected calls; score: best call of the class.

    Calls are detected as batdetect2 does it, with a detection probability above
    `DETECTION_THRESHOLD`.  A window without calls has zeros for an embedding and for scores.
    """

    def _pool(self, maps: _Maps, *, scores: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
        is_call, _, row, column = self._detect(maps)
        window = torch.arange(len(row), device=row.device)[:, None]
        is_call = is_call[..., None]
        # Indexing puts the feature axis last: (n, candidates, dim).
        features = maps.features[window, :, row, column] * is_call
        embeddings = features.sum(1) / is_call.sum(1).clamp_min(1)
        if not scores:
            return embeddings, None
        return embeddings, (maps.classes[window, :, row, column] * is_call).amax(1)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Parameters and weights of a checkpoint."""
    checkpoint = read_checkpoint(path)
    if not isinstance(checkpoint, dict) or not {"params", "state_dict"} <= checkpoint.keys():
        raise CheckpointError(
            f"{path}: this is not a checkpoint of batdetect2 1.x (no params and state_dict in "
            f"it); use the Net2DFast_UK_same.pth.tar that comes with that package."
        )
    params = checkpoint["params"]
    actual = {key: params.get(key) for key in _EXPECTED}
    if actual != _EXPECTED:
        raise CheckpointError(
            f"{path}: this batdetect2 checkpoint was trained on another kind of input or network "
            f"({actual}, expected {_EXPECTED}); use the Net2DFast_UK_same.pth.tar that comes with "
            f"batdetect2 1.x."
        )
    return params, checkpoint["state_dict"]
