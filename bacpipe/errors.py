"""The errors that bacpipe raises for mistakes a user can mend.

Every message is one sentence or two that names the file, key or value, says what was
expected and what to do.  The command line prints the message alone, without a traceback.
"""

from __future__ import annotations

from pathlib import Path

REPAIR = "run `bacpipe verify RESULTS --repair`, then the pipeline, to have them computed anew."
"""What to do about results that are damaged although the journal vouches for them."""


class BacpipeError(Exception):
    """Base class of all errors that bacpipe raises on purpose.

    Examples
    --------
    >>> import bacpipe
    >>> try:
    ...     bacpipe.generate_embeddings(model_name="birdnett", audio_dir="recordings")
    ... except bacpipe.BacpipeError as error:
    ...     print(error)
    There is no model 'birdnett'; did you mean birdnet or birdnet_v3 or birdmae? ...
    """


def said(error: BaseException) -> str:
    """What an error says, in one line; empty if nothing, or if it cannot say it."""
    try:
        return " ".join(str(error).split())
    except Exception:  # its own __str__ raises, or gives no text
        return ""


def unexpected(name: str, error: BaseException, what: str = "unexpected error") -> str:
    """Sentence on an error that nobody foresaw, as the reason why something failed."""
    text = said(error)
    return f"{name}: {what} ({type(error).__name__}{': ' if text else ''}{text[:500]})"


def first_line(error: BaseException) -> str:
    """First line of what an error says, or its name if it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def counted(number: int, noun: str, plural: str = "") -> str:
    """Number with its noun, as a person would say it.

    Examples
    --------
    >>> counted(1, "recording"), counted(2000, "recording"), counted(0, "class", "classes")
    ('1 recording', '2,000 recordings', '0 classes')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


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


class SitesError(BacpipeError, ValueError):
    """The table of sites is missing or cannot be understood."""


class NothingEmbeddedError(BacpipeError, RuntimeError):
    """Not a single recording of a run could be embedded."""


class RecordingsFailedError(BacpipeError, RuntimeError):
    """All is done but some recordings, and the setting ``strict`` asks for an error then."""


class ResultsError(BacpipeError, RuntimeError):
    """A results tree is damaged or was written by something we cannot read."""


class ResultsNotFoundError(BacpipeError, FileNotFoundError):
    """The results asked for do not exist (yet)."""


class NoEmbeddingsError(ResultsNotFoundError, ValueError):
    """No model has embeddings of a folder of recordings."""


class StorageError(BacpipeError, OSError):
    """Results cannot be written: the disk is full, read-only or gone.

    Attributes
    ----------
    path : Path or None
        What could not be written.
    needed : int
        Its size in bytes; 0 if unknown.
    """

    path: Path | None = None
    needed: int = 0


class ResultsLockedError(BacpipeError, RuntimeError):
    """Another run is writing to this results folder."""


class EvaluationError(BacpipeError, ValueError):
    """An evaluation was asked for that these data or these results do not allow."""


class TooLittleDataError(EvaluationError):
    """There are too few windows, recordings or classes for this evaluation."""


class RecogniserError(BacpipeError, ValueError):
    """A recogniser was asked for that these labels or these embeddings do not allow."""


class ReductionError(BacpipeError, ValueError):
    """These embeddings cannot be reduced with this reducer."""
