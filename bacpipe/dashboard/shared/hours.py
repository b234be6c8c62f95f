"""Which hours of the day are looked at, over midnight, too."""

from __future__ import annotations

import math
from typing import Any

import panel as pn
import param

from bacpipe.dashboard.shared.own_changes import OwnChanges
from bacpipe.dashboard.shared.widgets import TickBox

ALL_DAY = (0.0, 24.0)
NO_HOURS = "The hours of the day are numbers from 0 to 24."


def are_hours(hours: tuple[float, float]) -> bool:
    """Whether these can be hours of a day; anybody can type an address."""
    return all(math.isfinite(hour) and 0 <= hour <= 24 for hour in hours)


class HoursOfDay(pn.viewable.Viewer):
    """Slider for two hours of the day, and a box for those outside of them.

    Attributes
    ----------
    value : (float, float)
        From the first to the second hour; a first one that is larger means over midnight.
    """

    value = param.NumericTuple(default=ALL_DAY, length=2)

    def __init__(self, *, step: float, **values: Any) -> None:
        super().__init__(**values)
        self._own = OwnChanges()
        self._slider = pn.widgets.RangeSlider(
            label="Time of day (h)", start=0, end=24, value=ALL_DAY, step=step, format="0.[0]",
            sizing_mode="stretch_width", margin=(2, 12),
        )  # fmt: skip
        self._night = TickBox("the other hours (over midnight)", margin=(0, 5), disabled=True)
        self._slider.param.watch(self._changed, "value_throttled")
        self._night.param.watch(self._changed, "value")
        self.param.watch(lambda _: self._follow(), "value")
        self._panel = pn.Column(self._slider, self._night, sizing_mode="stretch_width", margin=0)
        self._follow()

    def _changed(self, _: Any) -> None:
        if self._own:
            return
        low, high = (float(hour) for hour in self._slider.value)
        all_day = (low, high) == ALL_DAY
        self._night.disabled = all_day
        self.value = (high, low) if self._night.value and not all_day else (low, high)

    def _follow(self) -> None:
        first, last = self.value
        with self._own:
            self._slider.value = (min(first, last), max(first, last))
            self._night.disabled = self.value == ALL_DAY
            self._night.value = first > last

    def __panel__(self) -> Any:
        return self._panel
