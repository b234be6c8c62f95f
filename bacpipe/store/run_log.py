"""The log of a run, beside its results."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from bacpipe.store.storage import storage_error, writing

logger = logging.getLogger(__name__)


class RunLog(logging.FileHandler):
    """A log whose disk may fill up: that is said once, and the run goes on.

    Parameters
    ----------
    path : Path
        The file; its folder exists.

    Raises
    ------
    StorageError
        If it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._complained = False
        with writing(path):
            super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    def handleError(self, record: logging.LogRecord) -> None:
        """Say what is wrong with the disk, instead of printing a traceback per message."""
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            self._complain(error)
        else:
            super().handleError(record)

    def close(self) -> None:
        """Write what waits, if there is room, and close the file."""
        try:
            super().close()
        except OSError as error:
            self._complain(error)

    def _complain(self, error: OSError) -> None:
        if not self._complained:
            self._complained = True  # first, because this message goes to the log, too
            logger.warning(
                "The log is not complete: %s", storage_error(Path(self.baseFilename), error)
            )
