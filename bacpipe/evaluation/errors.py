"""The error of evaluations that cannot be done with the data there are."""

from __future__ import annotations

from bacpipe.errors import BacpipeError


class EvaluationError(BacpipeError, ValueError):
    """An evaluation was asked for that these data or these results do not allow."""


class TooLittleDataError(EvaluationError):
    """There are too few windows, recordings or classes for this evaluation."""
