"""All models: their maps in one look, and their scores."""

from __future__ import annotations

import html
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import panel as pn
import param

from bacpipe.annotations.table import label_kind
from bacpipe.dashboard.all_models.charts import (
    SmallMap,
    draw_small_map,
    score_chart,
    series_colours,
    small_map,
    with_common_colours,
)
from bacpipe.dashboard.shared.labels import kinds_of_all
from bacpipe.dashboard.shared.results import DataSetResults, ModelResults
from bacpipe.dashboard.shared.view import ViewOfParts
from bacpipe.dashboard.shared.widgets import (
    download_button,
    hint,
    html_pane,
    legend_entry,
    legend_html,
    note,
    offer,
    select,
    table_widget,
)
from bacpipe.dashboard.style import is_dark
from bacpipe.evaluation.comparison import StoredScores, stored_scores

if TYPE_CHECKING:
    import pandas as pd

_PARTS = {"Maps": "maps", "Clusters": "clustering", "Probes": "probing", "Retrieval": "retrieval"}
_CLUSTER_SCORES = {"AMI": "AMI", "ARI": "ARI", "homogeneity": "homogeneity",
                   "completeness": "completeness"}  # fmt: skip
_CLUSTER_PANELS = ("ground_truth", "parent_directory", "time_of_day", "audio_file_name",
                   "default_classifier", "day_of_year", "week_of_year")  # fmt: skip
_SAID = {
    "clustering": "Agreement of clusters with labels. 1: the same groups, 0: chance. "
    "Lines: 95 % intervals, where there are some.",
    "probing": "What a simple classifier learns from the embeddings, tested on windows that it "
    "was not trained with. Lines: 95 % intervals.",
    "retrieval": "Whether windows of one label are near one another, across recordings. "
    "Lines: 95 % intervals; dashed: chance.",
}
_COLUMNS = {
    "clustering": ["model", "clustering", "label", "AMI", "AMI_low", "AMI_high", "ARI",
                   "homogeneity", "completeness", "silhouette", "n_clusters", "n_labels",
                   "n_windows"],
    "probing": ["rank", "letters", "model", "probe", "f1_macro", "f1_macro_low", "f1_macro_high",
                "average_precision_macro", "balanced_accuracy", "accuracy", "classes",
                "test_windows", "test_recordings"],
    "retrieval": ["rank", "letters", "model", "neighbour_precision", "neighbour_precision_low",
                  "neighbour_precision_high", "neighbour_precision_chance", "same_label_auroc",
                  "n_windows", "n_recordings"],
}  # fmt: skip

# Of the columns whose names are not words.
_WORDS = {
    "AMI_low": "AMI, 95 % from",
    "AMI_high": "AMI, 95 % to",
    "letters": "not told apart (same letter)",
    "n_clusters": "clusters",
    "n_labels": "labels",
    "n_windows": "windows",
    "n_recordings": "recordings",
    "f1_macro": "F1 (mean over labels)",
    "f1_macro_low": "F1, 95 % from",
    "f1_macro_high": "F1, 95 % to",
    "average_precision_macro": "average precision (mean over labels)",
    "neighbour_precision": "neighbours with the same label",
    "neighbour_precision_low": "neighbours, 95 % from",
    "neighbour_precision_high": "neighbours, 95 % to",
    "neighbour_precision_chance": "neighbours by chance",
    "same_label_auroc": "same-label AUROC",
    "classes": "labels",
}


class AllModelsView(ViewOfParts):
    """Maps and scores of all models."""

    key: ClassVar[str] = "models"
    title: ClassVar[str] = "All models"
    help_text: ClassVar[str] = """
**Which model suits these recordings?** No single number tells, so look at several.

**Maps**: every model's map in the same colours. Groups of one colour mean that the model hears
what the label is about.

**Clusters**: sounds were put into groups without looking at any label. AMI and ARI say how far
these groups agree with your annotations (1: the same, 0: chance). High agreement with *folders* or
*recordings* is a warning: the model then hears the place or the recorder rather than the animals.

**Probes**: a small classifier was trained with part of the annotations and tested on the rest.
F1 joins how many of its answers are right and how many sounds it finds. The line through each
point is the 95 % interval: where lines of two models overlap widely, the difference may be chance.

**Retrieval**: if you look for sounds similar to one, how many of the nearest have the same label?
It needs no training.
"""
    parts: ClassVar[dict[str, str]] = _PARTS
    in_address: ClassVar[dict[str, str]] = {
        "part": "part",
        "reducer": "all_map",
        "colour": "all_colour",
        "score": "all_score",
    }

    part = param.Selector(objects=list(_PARTS.values()), default="maps")
    reducer = param.Selector(objects=[], allow_None=True)
    colour = param.Selector(objects=[], allow_None=True)
    score = param.Selector(objects=list(_CLUSTER_SCORES.values()), default="AMI")

    def __init__(self, data_set: DataSetResults, **values: Any) -> None:
        super().__init__(data_set, **values)
        self._problems = data_set.problems()
        names = [name for name in data_set.models if name not in self._problems]
        self._models = [data_set.model(name) for name in names]
        offer(self, "reducer", [name for results in self._models for name in results.maps])
        self._kinds = kinds_of_all(self._models)
        offer(self, "colour", {title: kind for kind, title in self._kinds.items()})
        self._choices = {
            "maps": [
                select(self.param.colour, "Colour"),
                select(self.param.reducer, "Kind of map"),
            ],
            "clustering": [select(self.param.score, "Score")],
        }

    def opened(self) -> None:
        self.param.watch(lambda *_: self._show(), ["part", "reducer", "colour", "score"])
        self._show()

    def _show(self) -> None:
        part = self.part
        self._offer_choices()
        if part == "maps":
            self._show_maps()
        else:
            paths = {results.name: results.loader.paths for results in self._models}
            kind = label_kind(self.data_set.options.label_column)
            self._run(lambda: stored_scores(paths, kind), lambda scores: self._scores(part, scores))

    def _run(self, compute: Callable[[], Any], make: Callable[[Any], list[Any]]) -> None:
        """Compute the content and put it in the place of what is there."""

        def show(computed: Any) -> None:
            self._content.objects = make(computed)

        self.background.run("content", compute, show, fail=self.say, busy=self._content)

    # ------------------------------------------------------------------ maps

    def _show_maps(self) -> None:
        reducer, kind = self.reducer, self.colour
        if reducer is None or kind is None:
            text = (
                "There are no maps yet. Make them with <code>dim_reduction_model: umap</code> in "
                "config.yaml and run bacpipe again; embeddings that are there are not computed "
                "anew."
            )
            self.background.cancel("content")
            self._content.objects = [hint(text)]
            return
        models = [results for results in self._models if reducer in results.maps]
        dark = is_dark()  # the thread that computes does not know the visitor
        self._run(
            lambda: with_common_colours(
                [small_map(results, reducer, kind) for results in models], dark=dark
            ),
            lambda drawn: self._maps(models, *drawn),
        )

    def _maps(
        self, models: Sequence[ModelResults], maps: list[SmallMap], colours: list[str]
    ) -> list[Any]:
        width = 420 if len(maps) <= 2 else 318 if len(maps) <= 6 else 234
        title = self._kinds.get(self.colour, "")
        figures = [draw_small_map(item, colours, width, title) for item in maps]
        # Grey is in the legend if any model has windows without a label.
        bare = [item.labels for item in maps if (item.labels.codes < 0).any()]
        legend = legend_html((bare or [maps[0].labels])[0], colours) if maps else ""
        without = [results.name for results in self._models if results not in models]
        reasons = dict.fromkeys(without, f"it has no {self.reducer} map yet")
        return [
            html_pane(legend),
            pn.FlexBox(*figures, gap="4px", sizing_mode="stretch_width"),
            self._missing("Not shown", reasons),
        ]

    # ------------------------------------------------------------------ scores

    def _scores(self, part: str, scores: StoredScores) -> list[Any]:
        table = scores.tables.get(part)
        missing = scores.missing[part]
        if table is None:
            task = "probing" if part == "probing" else "clustering"
            return [
                hint(
                    f"No model has {html.escape(_title(part).lower())} scores yet. Make them with "
                    f"<code>evaluation_task: [{task}]</code> in config.yaml and run bacpipe again"
                    f"{_needs(part)}; embeddings that are there are not computed anew."
                ),
                self._missing("Not shown", missing),
            ]
        charts = {
            "clustering": self._clustering, "probing": _probing, "retrieval": _retrieval
        }[part](table)  # fmt: skip
        shown = table[[name for name in _COLUMNS[part] if name in table]].rename(columns=_WORDS)
        notes = [note(html.escape(text)) for text in table.attrs.get("notes", [])]
        return [
            html_pane(
                f'<div class="bp-heading">{_title(part)}: {html.escape(scores.kind)}</div>'
                f'<div class="bp-note">{_SAID[part]}</div>'
            ),
            *notes,
            *charts,
            self._missing("Not shown", missing),
            table_widget(shown, layout="fit_data_table"),
            download_button(table, f"{self.data_set.name}_{part}.csv"),
        ]

    def _clustering(self, table: pd.DataFrame) -> list[Any]:
        kinds = table["label"].drop_duplicates().tolist()
        kinds = sorted(kinds, key=lambda kind: (*_CLUSTER_PANELS, kind).index(kind))[:6]
        # The best model by the first kind is on top of all panels.
        first = table[table["label"] == kinds[0]].sort_values(self.score, ascending=False)
        order = {name: i for i, name in enumerate(first["model"].drop_duplicates())}
        of_kinds = {"index": ["model", "clustering"], "columns": "label"}
        wide = table.pivot(**of_kinds, values=self.score)
        for end in ("low", "high"):
            if (name := f"{self.score}_{end}") in table:
                # Only annotations have intervals.
                bounds = table.pivot(**of_kinds, values=name).dropna(axis="columns", how="all")
                wide = wide.join(bounds.add_suffix(f"_{end}"))
        wide = wide.reset_index()
        place = wide["model"].map(order).fillna(len(order))
        wide = wide.loc[place.sort_values(kind="stable").index]
        titles = [(kind, _label_title(kind)) for kind in kinds]
        rows = [titles[i : i + 3] for i in range(0, len(titles), 3)]
        return [
            _series_legend(wide["clustering"].tolist()),
            *(score_chart(wide, "clustering", row, dict.fromkeys(kinds, 0.0)) for row in rows),
        ]

    def _missing(self, what: str, reasons: Mapping[str, str]) -> Any:
        """Sentence about the models that are not shown, and why."""
        by_reason: dict[str, list[str]] = defaultdict(list)
        for model, reason in {**reasons, **dict.fromkeys(self._problems, "no results")}.items():
            by_reason[reason].append(model)
        parts = [f"{', '.join(models)} ({reason})" for reason, models in by_reason.items()]
        text = note(html.escape(f"{what}: {'; '.join(parts)}."))
        text.visible = bool(parts)
        return text


def _probing(table: pd.DataFrame) -> list[Any]:
    panels = [
        ("f1_macro", "F1 (mean over labels)"),
        ("average_precision_macro", "Average precision"),
        ("balanced_accuracy", "Balanced accuracy"),
    ]
    classes = table["classes"]
    chance = {"balanced_accuracy": 1 / classes.iloc[0] if classes.nunique() == 1 else None}
    parts = [_series_legend(table["probe"].tolist()), score_chart(table, "probe", panels, chance)]
    if table["split"].nunique() > 1:
        warning = (
            "The models were not tested on the same recordings, so small differences mean little; "
            "evaluate all of them again with overwrite: True."
        )
        parts.insert(0, note(warning))
    return parts


def _retrieval(table: pd.DataFrame) -> list[Any]:
    k = int(table["n_neighbors"].iloc[0])
    panels = [
        ("neighbour_precision", f"Share of the {k} nearest with the same label"),
        ("same_label_auroc", "Same-label pairs are nearer (AUROC)"),
    ]
    chance = {
        "neighbour_precision": float(table["neighbour_precision_chance"].mean()),
        "same_label_auroc": 0.5,
    }
    return [score_chart(table.assign(what="embeddings"), "what", panels, chance)]


def _series_legend(names: Sequence[str]) -> Any:
    colours = series_colours(sorted(set(names)))
    entries = (legend_entry(colour, str(name)) for name, colour in colours.items())
    return html_pane(f'<div class="bp-legend">{"".join(entries)}</div>', wide=False)


def _label_title(kind: str) -> str:
    return "annotations" if kind == "ground_truth" else kind.replace("_", " ")


def _title(part: str) -> str:
    return next(title for title, name in _PARTS.items() if name == part)


def _needs(part: str) -> str:
    return "" if part == "clustering" else ", with a table of annotations beside the recordings"
