"""The views of the dashboard, in the order of their tabs."""

from __future__ import annotations

from bacpipe.dashboard.views.base import View
from bacpipe.dashboard.views.explore import Explore

VIEWS: tuple[type[View], ...] = (Explore,)
