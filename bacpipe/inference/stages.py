"""Which stage of a run takes the time, and what its user can do about it.

Stages overlap, each in threads of its own, so their seconds add up to more than the run took.
The stage that holds a run up is the one whose threads are busy the longest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

# Which threads work on a stage.
_POOL = {
    "decode": "decoders",
    "resample": "decoders",
    "preprocess": "workers",
    "model": "workers",
    "write": "writers",
}
STAGES = tuple(_POOL)
"""Names of the stages, in the order of the work."""

_HOLDS_UP = 0.6  # part of the run for which its threads are busy


class Slowest(NamedTuple):
    """The stage that holds a run up.

    Attributes
    ----------
    stage : str
        One of `STAGES`.
    share : float
        Its part of the seconds that all threads worked, 0 to 1.
    busy : float
        Part of the run for which the threads of this stage worked, on average, 0 to 1.  They
        share the cores with the other stages, so it need not be 1 where cores are scarce.
    """

    stage: str
    share: float
    busy: float


def slowest_stage(
    seconds: Mapping[str, float], threads: Mapping[str, int], wall: float
) -> Slowest | None:
    """Find the stage that holds a run up.

    Parameters
    ----------
    seconds : mapping of str to float
        Wall-clock seconds that threads worked on each stage, added up over threads.
    threads : mapping of str to int
        Number of 'decoders', 'workers' (of the model) and 'writers'; 1 where it is not told.
    wall : float
        Seconds that the run took.

    Returns
    -------
    Slowest or None
        None if nothing was measured.

    Examples
    --------
    >>> slowest_stage({"decode": 6.0, "model": 8.0}, {"decoders": 1, "workers": 2}, 8.0)
    Slowest(stage='decode', share=0.42857142857142855, busy=0.75)
    """
    total = sum(seconds.values())
    if total <= 0:
        return None
    by_pool: dict[str, float] = {}
    for stage, spent in seconds.items():
        by_pool[_POOL[stage]] = by_pool.get(_POOL[stage], 0.0) + spent
    per_thread = {pool: spent / max(1, threads.get(pool, 1)) for pool, spent in by_pool.items()}
    slowest_pool = max(per_thread, key=lambda pool: per_thread[pool])
    stage = max((s for s in seconds if _POOL[s] == slowest_pool), key=lambda s: seconds[s])
    busy = min(1.0, per_thread[slowest_pool] / wall) if wall > 0 else 0.0
    return Slowest(stage, seconds[stage] / total, busy)


def advice(
    found: Slowest, threads: Mapping[str, int], *, cores: int, device: str, gpu_here: bool
) -> str | None:
    """Say in one sentence what makes a run faster, if the user can do something about it.

    Parameters
    ----------
    found : Slowest
        The stage that holds the run up.
    threads : mapping of str to int
        As for `slowest_stage`.
    cores : int
        That this process may use.
    device : str
        Where the model computed.
    gpu_here : bool
        Whether there is a GPU that PyTorch can use.
    """
    if found.busy < _HOLDS_UP:
        return None  # several stages share the cores, and none of them is to blame
    decoders = threads.get("decoders", 1)
    if found.stage in {"decode", "resample"}:
        if decoders == 0:
            return "avoid_pipelined_gpu_inference=false decodes while the model computes."
        if decoders < cores:
            return (
                f"nr_parallel_workers={min(2 * decoders, cores)} works on more recordings at the "
                f"same time (now {decoders})."
            )
        if found.stage == "resample":
            return "recordings at the model's own sample rate need no resampling."
        return "all cores are busy; copying the recordings to a faster disk may help."
    if found.stage == "write":
        return "a main_results_dir on a disk of this computer, not of the network, is faster."
    if device == "cpu" and gpu_here:
        return "device=cuda lets the model compute on the GPU of this computer."
    return None
