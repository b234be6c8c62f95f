"""The views of the dashboard, in the order of their tabs."""

from __future__ import annotations

from bacpipe.dashboard.views.all_models import AllModels
from bacpipe.dashboard.views.base import View
from bacpipe.dashboard.views.compare import Compare
from bacpipe.dashboard.views.data import Data
from bacpipe.dashboard.views.explore import Explore
from bacpipe.dashboard.views.predictions import Predictions

VIEWS: tuple[type[View], ...] = (Explore, Compare, AllModels, Predictions, Data)
