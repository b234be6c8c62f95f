"""What PyTorch models share: the device, reading weights, fitting them into a network."""

from __future__ import annotations

import fnmatch
import threading
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import is_tensor, nn

from bacpipe.errors import CheckpointError, SettingsError, first_line
from bacpipe.models.backends.zoo_model import ZooModel
from bacpipe.models.weights.containers import state_dict_in
from bacpipe.models.weights.pickles import read_pickled

Network = TypeVar("Network", bound=nn.Module)


def choose_device(device: str = "auto") -> str:
    """Name of the device to compute on.

    Parameters
    ----------
    device : str
        'auto' (cuda, then mps, then cpu), or a device that must be there.

    Raises
    ------
    SettingsError
        If the device is asked for by name and this machine lacks it; says which cards it has.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, number = device.partition(":")
    present = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if kind not in present:
        raise SettingsError(
            f"device={device!r} is not a device; expected auto, cpu, cuda, cuda:<number> or mps."
        )
    if not present[kind]:
        raise SettingsError(
            f"device={device!r} was asked for, but PyTorch finds no such device on this machine; "
            f"use device=auto or device=cpu."
        )
    if kind == "cuda" and number and int(number) >= torch.cuda.device_count():
        cards = [
            f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())
        ]
        raise SettingsError(
            f"device={device!r} was asked for, but this machine has {', '.join(cards)}; use one of "
            f"these, or device=auto."
        )
    return device


# Two threads that compute on Apple's GPU end the process (PyTorch issue 197805).
_APPLE_TURN = threading.Lock()


class _Tf32Switch:
    """PyTorch's switch between float32 and TF32 on NVIDIA GPUs, which holds for the process.

    The first who computes sets it, and the last puts it back; who wants the other setting waits.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._users = 0
        self._tf32 = False
        self._before: list[Any] = []

    @contextmanager
    def set(self, *, tf32: bool) -> Iterator[None]:
        """Compute with TF32, or without, in the block."""
        with self._changed:
            self._changed.wait_for(lambda: not self._users or self._tf32 == tf32)
            if not self._users:
                self._tf32 = tf32
                self._before = [getattr(*place) for place in self._places()]
                for place in self._places():
                    setattr(*place, self._value(place[1], tf32=tf32))
            self._users += 1
        try:
            yield
        finally:
            with self._changed:
                self._users -= 1
                if not self._users:
                    for place, value in zip(self._places(), self._before, strict=True):
                        setattr(*place, value)
                    self._changed.notify_all()

    @staticmethod
    def _places() -> list[tuple[Any, str]]:
        """Objects and their attributes: those of PyTorch 2.9 and later, or the older ones."""
        matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
        if hasattr(cudnn, "conv"):
            return [(part, "fp32_precision") for part in (cudnn.conv, cudnn.rnn, matmul)]
        return [(cudnn, "allow_tf32"), (matmul, "allow_tf32")]

    @staticmethod
    def _value(attribute: str, *, tf32: bool) -> bool | str:
        return tf32 if attribute == "allow_tf32" else ("tf32" if tf32 else "ieee")


_TF32 = _Tf32Switch()


@contextmanager
def computing_on(device: str, precision: str = "float32") -> Iterator[None]:
    """What PyTorch needs to compute on a device, for the length of a block.

    On NVIDIA GPUs float32 is float32: by default PyTorch rounds the factors of convolutions to
    the 10 bits of TF32.  On Apple's, one thread of the process computes at a time.

    Parameters
    ----------
    device : str
        'cpu', 'cuda', 'cuda:1', 'mps'.
    precision : str
        'tf32' allows TF32; everything else is computed without.
    """
    kind = device.partition(":")[0]
    if kind == "cuda":
        with _TF32.set(tf32=precision == "tf32"):
            yield
    elif kind == "mps":
        with _APPLE_TURN:
            yield
    else:
        yield


class FullPrecision(nn.Module):
    """A layer that computes in float32 also where autocast rounds what the others compute.

    Heads are wrapped in it: scores from bfloat16 come in steps of up to 0.004.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return what the layer makes of `x`, float32."""
        with torch.autocast(x.device.type, enabled=False):
            output: torch.Tensor = self.layer(x.float())
        return output


def read_checkpoint(path: Path) -> Any:
    """Read a ``torch.save`` or safetensors file without executing anything in it.

    Parameters
    ----------
    path : Path
        The checkpoint.

    Returns
    -------
    object
        What was saved; objects that are no tensors and no plain containers, such as the
        arguments of a training script, are `bacpipe.models.weights.pickles.StandIn`.

    Raises
    ------
    CheckpointError
        If the file is damaged.
    """
    _refuse_bomb(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return read_pickled(path)
    # What damaged files make the readers raise is of any kind.
    except Exception as error:
        kind = "safetensors file" if path.suffix == ".safetensors" else "checkpoint"
        raise CheckpointError(
            f"{path}: this {kind} cannot be read ({first_line(error)}); delete it, so that it is "
            f"fetched again, or copy it here once more."
        ) from error


def _refuse_bomb(path: Path) -> None:
    """Refuse a ``torch.save`` file, which is a zip archive, that grows when it is read."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except (OSError, ValueError, zipfile.BadZipFile):
        return  # none, or a damaged one: that shows when it is read
    # torch.save does not compress.
    if unpacked > 2 * path.stat().st_size:
        raise CheckpointError(
            f"{path}: refused, because this checkpoint unpacks to {unpacked >> 20} MiB, more than "
            f"twice its size; use the file that the model's authors published."
        )


def fit_weights(
    network: nn.Module,
    state: Mapping[str, torch.Tensor],
    *,
    model: str,
    path: Path,
    rename: Callable[[str], str] = lambda key: key,
    unused: Iterable[str] = (),
) -> None:
    """Load a state dict strictly, in place.

    Parameters
    ----------
    network : nn.Module
        Receives the weights.
    state : mapping
        Weights as they are in the file.
    model, path : str, Path
        Named in the error.
    rename : callable
        Maps a key of the file to a key of the network.
    unused : iterable of str
        Patterns (fnmatch) of keys of the file, before renaming, that the network has no use
        for.

    Raises
    ------
    CheckpointError
        Naming keys that are missing, unexpected or of another shape.
    """
    if not isinstance(state, Mapping):
        raise CheckpointError(
            f"{path}: holds a {type(state).__name__} where the weights of {model} were expected; "
            f"use the file that the model's authors published."
        )
    patterns = tuple(unused)
    renamed = {
        rename(key): value
        for key, value in state.items()
        if isinstance(key, str)
        and not any(fnmatch.fnmatchcase(key, pattern) for pattern in patterns)
    }
    expected = network.state_dict()
    problems = {
        "missing": sorted(expected.keys() - renamed.keys()),
        "unexpected": sorted(renamed.keys() - expected.keys()),
        "without numbers": sorted(str(k) for k, v in renamed.items() if not is_tensor(v)),
        "of another shape": sorted(
            f"{key} {tuple(renamed[key].shape)} instead of {tuple(expected[key].shape)}"
            for key in expected.keys() & renamed.keys()
            if is_tensor(renamed[key]) and renamed[key].shape != expected[key].shape
        ),
    }
    differences = [f"{len(v)} {what} ({_shorten(v)})" for what, v in problems.items() if v]
    if differences:
        raise CheckpointError(
            f"{path}: these are not the weights of {model}; keys {'; '.join(differences)}."
        )
    network.load_state_dict(renamed)


def build_empty(build: Callable[[], Network]) -> Network:
    """Network whose weights have no values yet; to draw them takes longer than to read a file."""
    with torch.device("meta"):
        network = build()
    return network.to_empty(device="cpu")


class TorchModel(ZooModel):
    """A model of the zoo that PyTorch computes.

    Subclasses build their network and front end in `set_up`.  Parameters are those of `ZooModel`.
    """

    concurrent = True

    def set_up(self) -> None:
        """Build the network and the front end from `paths`, the files in the order of the card."""
        raise NotImplementedError

    def fit(
        self,
        network: nn.Module,
        path: Path,
        state: Mapping[str, torch.Tensor] | None = None,
        *,
        within: str | None = None,
        rename: Callable[[str], str] = lambda key: key,
        unused: Iterable[str] = (),
    ) -> None:
        """Load the weights of a checkpoint into a network, in place.

        Parameters
        ----------
        network : nn.Module
            Receives the weights.
        path : Path
            The checkpoint.
        state : mapping, optional
            Its weights, where the caller has read them.
        within : str, optional
            Entry of the checkpoint that holds the weights.
        rename, unused
            As for `fit_weights`.
        """
        name = self.card.name
        if state is None:
            state = read_checkpoint(path)
        if within is not None:
            state = state_dict_in(state, within, model=name, path=path)
        fit_weights(network, state, model=name, path=path, rename=rename, unused=unused)

    def place(self, network: Network) -> Network:
        """Put a network on the model's device, for inference only."""
        return network.eval().requires_grad_(False).to(self.device)


def _shorten(names: list[str], most: int = 4) -> str:
    more = f", … {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
