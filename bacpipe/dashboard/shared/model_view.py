"""Views of the embeddings of one model, and of what it was taught."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import panel as pn
import param

from bacpipe.dashboard.shared.own_changes import OwnChanges
from bacpipe.dashboard.shared.results import DataSetResults
from bacpipe.dashboard.shared.view import View


class ModelView(View):
    """View with a list of models and one of recognisers.

    `_model` and `_recogniser` are the lists, `_own` is true while the view changes them itself.
    """

    model: Any = param.Selector(default="", objects=[""])
    recogniser: Any = param.String(default="")

    def __init__(self, data_set: DataSetResults, **values: Any) -> None:
        super().__init__(data_set, **values)
        self.param.model.objects = ["", *data_set.models]
        self._own = OwnChanges()
        wide: dict[str, Any] = {"sizing_mode": "stretch_width", "margin": (2, 10)}
        self._model = pn.widgets.Select(label="Model", options=list(data_set.models), **wide)
        self._recogniser = pn.widgets.Select(label="Recogniser", options=[], **wide)
        self._model.param.watch(self._choose_model, "value")
        self._recogniser.param.watch(self._choose_recogniser, "value")

    def opened(self) -> None:
        if not self.model:
            self.model = next(iter(self.data_set.available), "")

    def _change_model(self, model: str) -> None:
        """Show another model, which the visitor has chosen."""
        raise NotImplementedError

    def _offer_recognisers(self, names: Sequence[str], wanted: str) -> str:
        """List the recognisers of the present model; the one that is chosen then is returned."""
        chosen = wanted if wanted in names else next(iter(names), "")
        self._model.value = self.model
        self._recogniser.param.update(options=list(names), value=chosen or None)
        return chosen

    def _choose_model(self, event: Any) -> None:
        if not self._own and event.new is not None and event.new != self.model:
            self._change_model(event.new)

    def _choose_recogniser(self, event: Any) -> None:
        if not self._own and event.new:
            self.recogniser = event.new
