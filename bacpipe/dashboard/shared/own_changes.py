"""Telling what a view changes itself from what its visitor changes."""

from __future__ import annotations

from types import TracebackType


class OwnChanges:
    """True inside of its ``with`` block: widgets are set there, and nobody has chosen anything."""

    def __init__(self) -> None:
        self._depth = 0

    def __bool__(self) -> bool:
        return self._depth > 0

    def __enter__(self) -> None:
        self._depth += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._depth -= 1
