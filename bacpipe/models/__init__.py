"""The model zoo; ``print(bacpipe.models)`` shows it as a table."""

from __future__ import annotations

import sys
from types import ModuleType


class _Models(ModuleType):
    """The module itself, which shows the zoo where others show their path."""

    def __repr__(self) -> str:
        from bacpipe.models.loading import model_table

        return model_table()


sys.modules[__name__].__class__ = _Models
