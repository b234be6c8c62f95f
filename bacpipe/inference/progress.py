"""A progress bar for people: recordings, hours of audio, × real time, time left."""

from __future__ import annotations

import sys
import time

from tqdm.auto import tqdm


def is_interactive() -> bool:
    """Whether somebody watches: a terminal, or a notebook."""
    if sys.stderr is not None and sys.stderr.isatty():
        return True
    shell = sys.modules.get("IPython")
    kernel = shell.get_ipython() if shell else None
    return kernel is not None and kernel.__class__.__name__ == "ZMQInteractiveShell"


class RunProgress:
    """Progress of a run over recordings; silent unless somebody watches.

    Parameters
    ----------
    title : str
        What is running.
    recordings : int
        How many there are.
    size : int
        Their size in bytes, by which the time left is estimated.
    """

    def __init__(self, title: str, recordings: int, size: int) -> None:
        self._recordings = recordings
        self._done = 0
        self._audio = 0.0
        self._started = time.perf_counter()
        self._bar = tqdm(
            total=max(size, 1),
            desc=title,
            disable=not is_interactive(),
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {postfix} [{elapsed}, {remaining} left]",
        )

    def advance(self, size: int, seconds: float) -> None:
        """Count one recording of `size` bytes with `seconds` of audio."""
        self._done += 1
        self._audio += seconds
        speed = self._audio / max(time.perf_counter() - self._started, 1e-9)
        self._bar.set_postfix_str(
            f"{self._done}/{self._recordings} recordings, {self._audio / 3600:.2f} h, "
            f"{speed:.0f} × real time",
            refresh=False,
        )
        self._bar.update(max(size, 0))

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()
