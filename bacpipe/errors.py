"""The errors that bacpipe raises for mistakes a user can mend.

Every message is one sentence or two that names the file, key or value, says what was
expected and what to do.  The command line prints the message alone, without a traceback.
"""

from __future__ import annotations


class BacpipeError(Exception):
    """Base class of all errors that bacpipe raises on purpose."""


class SettingsError(BacpipeError, ValueError):
    """A key or value of the configuration is unknown or impossible."""


class UnknownModelError(BacpipeError, ValueError):
    """No model of this name exists."""


class ModelUnavailableError(BacpipeError, RuntimeError):
    """The model exists, but cannot run here (not written yet, or a package is missing)."""


class CheckpointError(BacpipeError, RuntimeError):
    """The weights of a model do not fit, are damaged or cannot be read."""


class CheckpointNotFoundError(CheckpointError, FileNotFoundError):
    """The weights of a model are not on this machine and could not be fetched."""


class NoRecordingsError(BacpipeError, FileNotFoundError):
    """The audio folder is missing, unreadable or holds no recordings."""


class AudioError(BacpipeError, ValueError):
    """One recording cannot be read (in full)."""


class AnnotationsError(BacpipeError, ValueError):
    """The annotation table is missing something or holds values that cannot be read."""


class NothingEmbeddedError(BacpipeError, RuntimeError):
    """Not a single recording of a run could be embedded."""


class ResultsError(BacpipeError, RuntimeError):
    """A results tree is damaged or was written by something we cannot read."""


class ResultsNotFoundError(BacpipeError, FileNotFoundError):
    """The results asked for do not exist (yet)."""


class ResultsLockedError(BacpipeError, RuntimeError):
    """Another run is writing to this results folder."""
