"""Explore: the map of one model, and what is heard at each of its points."""

from __future__ import annotations

from typing import Any, ClassVar

import panel as pn
import param

from bacpipe.dashboard.embedding_map import EmbeddingMap
from bacpipe.dashboard.labels import label_kinds, read_labels
from bacpipe.dashboard.results import DataSet
from bacpipe.dashboard.views.base import View


class Explore(View):
    """Map, spectrogram and sound."""

    key: ClassVar[str] = "explore"
    title: ClassVar[str] = "Explore"
    help_text: ClassVar[str] = "Every point is a window of sound."
    in_address: ClassVar[dict[str, str]] = {"model": "model", "colour": "colour"}

    model = param.Selector(objects=[])
    colour = param.Selector(objects=[])

    def __init__(self, data_set: DataSet, **values: Any) -> None:
        super().__init__(data_set, **values)
        self.map = EmbeddingMap(on_click=lambda row: self.say(f"row {row}"))
        self.param.model.objects = data_set.available
        self.model = data_set.available[0]
        results = data_set.model(self.model)
        self.param.colour.objects = list(label_kinds(results))
        self.colour = self.param.colour.objects[0]
        self.map.set_points(
            results.coordinates(next(iter(results.maps))),
            results.recordings,
            results.recording_code,
            results.start,
        )
        self.map.set_labels(read_labels(results, self.colour))

    def controls(self) -> Any:
        return pn.Column(pn.widgets.Select.from_param(self.param.model))

    def body(self) -> Any:
        return self.map.panel
