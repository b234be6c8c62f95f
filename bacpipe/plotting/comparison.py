"""Figures that compare models, from the tables in ``evaluations/overview``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bacpipe.errors import counted
from bacpipe.plotting.style import (
    COLOURS,
    GREY,
    MARKERS,
    PAGE,
    chance_axis,
    heading,
    heat_map,
    legend_below,
    lollipops,
    named_rows,
    new_figure,
    numbers_in_cells,
    row_offset,
    score_axis,
    shorten,
    styled,
    text_width,
)

if TYPE_CHECKING:
    import pandas as pd

_MOST_CLASSES = 60
_METRICS = {
    "f1_macro": "macro F1",
    "average_precision_macro": "mean average precision",
    "neighbour_precision": "precision of neighbours",
}
# What clusters ought to follow, and what they ought not to; others come after these.
_ORDER = ("ground_truth", "parent_directory", "time_of_day", "audio_file_name")


@styled
def probing_ranking(table: pd.DataFrame) -> Figure:
    """Models by what probes get out of them, the best on top, with 95 % intervals."""
    panels = (
        ("f1_macro", "F1 (macro)"),
        ("average_precision_macro", "average precision (macro)"),
        # Where windows have several labels, there is no balanced accuracy.
        ("balanced_accuracy", "balanced accuracy")
        if table["balanced_accuracy"].notna().any()
        else ("roc_auc_macro", "AUROC (macro)"),
    )
    recordings = table["test_recordings"].dropna()
    title = "Probing" if table["rank"].notna().any() else "Probing, not to be ranked"
    if recordings.nunique() == 1:
        title += f", tested on {counted(int(recordings.iloc[0]), 'recording')}"
    chance = 1 / table["classes"].iloc[0] if table["classes"].nunique() == 1 else None
    return _ranking(
        table, "probe", panels, title, {"balanced_accuracy": chance}, lambda name: f"{name} probe"
    )


@styled
def pair_probabilities(table: pd.DataFrame) -> Figure:
    """Probability that the model of a row is better than that of a column, by the first metric."""
    metric = str(table["metric"].iloc[0])
    rows = table[table["metric"] == metric]
    names = list(dict.fromkeys([*rows["better"], *rows["other"]]))
    grid = np.full((len(names), len(names)), np.nan)
    for one, other, chance in zip(rows["better"], rows["other"], rows["probability"], strict=True):
        i, j = names.index(one), names.index(other)
        grid[i, j], grid[j, i] = chance, 1 - chance
    order = np.argsort(-np.nan_to_num(grid, nan=0.5).sum(axis=1), kind="stable")
    grid, names = grid[np.ix_(order, order)], [shorten(names[i]) for i in order]
    margin = text_width(names)
    side = float(np.clip(0.5 * len(names), 0.9, 6))
    figure = new_figure(side + margin + 1.6, side + margin + 1.0)
    axes = figure.add_subplot()
    heat_map(figure, axes, grid, "row is better")
    axes.set_aspect("equal")
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(length=0)
    if len(names) <= 15:
        texts = [["" if np.isnan(value) else f"{value:.2f}" for value in row] for row in grid]
        numbers_in_cells(axes, grid, np.array(texts))
    axes.set_title(f"Pairs of models:\n{_METRICS[metric]}", fontsize=8)
    return figure


@styled
def retrieval_ranking(table: pd.DataFrame) -> Figure:
    """Models by how near windows of the same label are, with 95 % intervals."""
    k = int(table["n_neighbors"].iloc[0])
    panels = (
        ("neighbour_precision", f"precision of the {k} nearest\nneighbours (other recordings)"),
        ("same_label_auroc", "AUROC of same-label pairs\n(other recordings)"),
    )
    chance = {
        "neighbour_precision": float(table["neighbour_precision_chance"].mean()),
        "same_label_auroc": 0.5,
    }
    return _ranking(table.assign(what="model"), "what", panels, "Retrieval", chance, str)


@styled
def clustering_ranking(table: pd.DataFrame) -> Figure:
    """Models by how well clusters of their embeddings agree with labels, with 95 % intervals."""
    present = table["label"].drop_duplicates().tolist()
    kinds = sorted(present, key=lambda kind: (*_ORDER, kind).index(kind))[:4]
    models = table["model"].drop_duplicates().tolist()
    names = table["clustering"].drop_duplicates().sort_values().tolist()
    figure = new_figure(PAGE, max(1.7, 0.14 * len(models) * (len(names) + 1) + 1.1))
    axes_of = np.atleast_1d(figure.subplots(1, max(1, len(kinds)), sharey=True))
    for axes, kind in zip(axes_of, kinds, strict=False):
        part = table[table["label"] == kind]
        columns = part.reindex(columns=["model", "clustering", "AMI", "AMI_low", "AMI_high"])
        for i, name in enumerate(names):
            y = np.arange(len(models)) + row_offset(i, len(names))
            of = columns[columns["clustering"] == name].set_index("model").reindex(models)
            scores = of[["AMI", "AMI_low", "AMI_high"]].to_numpy(float).T
            lollipops(axes, i, scores[0], y, name, *scores[1:])
        chance_axis(axes, columns[["AMI", "AMI_low"]].min(axis=None), "AMI")
        axes.set_title("annotations" if kind == "ground_truth" else kind.replace("_", " "),
                       fontsize=8)  # fmt: skip
    _model_axis(axes_of, models)
    heading(figure, "Clusters and labels: adjusted mutual information (bars: 95 % intervals)")
    legend_below(figure, axes_of[0], len(names))
    return figure


@styled
def per_class_scores(table: pd.DataFrame) -> Figure:
    """F1 of every class with every model, its best probe; the easiest class on the left."""
    mean = table.groupby(["model", "probe"])["f1"].mean().reset_index()
    best = mean.loc[mean.groupby("model")["f1"].idxmax()].sort_values("f1", ascending=False)
    chosen = table.merge(best[["model", "probe"]])
    grid = chosen.pivot(index="model", columns="class", values="f1").loc[best["model"]]
    support = chosen.groupby("class")["support"].max()
    order = grid.mean().sort_values(ascending=False, kind="stable").index
    title = "F1 by class"
    if len(order) > _MOST_CLASSES:
        common = support.sort_values(ascending=False).index[:_MOST_CLASSES]
        order = order[order.isin(common)]
        title += f" (the {_MOST_CLASSES} most frequent of {grid.shape[1]} classes)"
    values = grid[order].to_numpy(float)
    names = [f"{shorten(str(name))} ({support[name]})" for name in order]
    rows = [f"{model} ({probe})" for model, probe in zip(best["model"], best["probe"], strict=True)]
    cell = min(0.36, max(0.12, 5 / len(names)))
    width = cell * len(names) + text_width(rows) + 1.4
    figure = new_figure(max(width, 3.2), 0.26 * len(rows) + text_width(names) + 0.9)
    axes = figure.add_subplot()
    heat_map(figure, axes, values, "F1")
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7 if cell > 0.14 else 6)
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0)
    if len(names) <= 15:
        texts = [["" if np.isnan(value) else f"{value:.2f}" for value in row] for row in values]
        numbers_in_cells(axes, values, np.array(texts))
    axes.set_title(f"{title}, best probe of each model\n(test windows)", fontsize=8)
    return figure


@styled
def maps(tables: Mapping[str, pd.DataFrame], kind: str, most_categories: int) -> Figure:
    """Maps (columns x, y, label and far) of all models, in the colours of the labels.

    Of more than `most_categories` labels, only the most frequent ones have a colour.
    """
    import pandas as pd

    counts = pd.concat([table["label"] for table in tables.values()]).dropna().value_counts()
    coloured = counts.index[: min(len(COLOURS) * 2, most_categories)].tolist()
    columns = min(3, len(tables))
    rows = -(-len(tables) // columns)
    figure = new_figure(PAGE, rows * PAGE / columns + 0.3 + 0.17 * -(-len(coloured) // 4))
    panels = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for axes, (model, table) in zip(panels, tables.items(), strict=False):
        size = float(np.clip(4000 / max(len(table), 1), 1.5, 14))
        rest = ~table["label"].isin(coloured)
        axes.scatter(table["x"][rest], table["y"][rest], s=size * 0.6, c="#cfcfcf", linewidths=0)
        for i, label in enumerate(coloured):
            here = table["label"] == label
            axes.scatter(
                table["x"][here], table["y"][here], s=size, color=COLOURS[i % len(COLOURS)],
                marker=MARKERS[i // len(COLOURS)], linewidths=0, label=shorten(str(label)),
            )  # fmt: skip
        far = table["far"].to_numpy(bool)
        if far.any():
            axes.scatter(table["x"][far], table["y"][far], s=size * 2.5, facecolors="none",
                         edgecolors="black", linewidths=0.7,
                         label="far from all that the map was fitted to")  # fmt: skip
        axes.set(xticks=[], yticks=[], title=model)
        axes.spines[:].set(visible=True, color=GREY)
    for axes in panels[len(tables) :]:
        axes.set_visible(False)
    others = len(counts) - len(coloured)
    heading = f"{kind}; grey: no label" + (f", or one of {others} rarer ones" if others > 0 else "")
    most = max(panels, key=lambda axes: len(axes.get_legend_handles_labels()[0]))
    handles, labels = most.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, title=heading,
                  markerscale=1.6)  # fmt: skip
    return figure


# ---------------------------------------------------------------------- inside


def _ranking(
    table: pd.DataFrame,
    series: str,
    panels: Sequence[tuple[str, str]],
    title: str,
    chance: Mapping[str, float | None],
    name_of: Callable[[str], str],
) -> Figure:
    """Dots with intervals: a row per model, a panel per metric, a colour per series."""
    # The table is sorted, so that the first row of a model is its best.
    models = table["model"].drop_duplicates().tolist()
    names = table[series].drop_duplicates().sort_values().tolist()
    height = 0.15 * len(models) * (len(names) + 0.5) + 1.15
    figure = new_figure(PAGE, max(1.7, height))
    axes_of = np.atleast_1d(figure.subplots(1, len(panels), sharey=True))
    for axes, (metric, label) in zip(axes_of, panels, strict=True):
        level = chance.get(metric)
        if level is not None:
            axes.axvline(level, color=GREY, linewidth=0.8, linestyle="--", label="chance")
        for i, name in enumerate(names):
            part = table[table[series] == name].set_index("model").reindex(models)
            y = np.arange(len(models)) + row_offset(i, len(names))
            colour = COLOURS[i % len(COLOURS)]
            low, high = part[f"{metric}_low"], part[f"{metric}_high"]
            axes.hlines(y, low.astype(float), high.astype(float), color=colour, linewidth=1.4,
                        alpha=0.6)  # fmt: skip
            axes.plot(part[metric].astype(float), y, MARKERS[i % len(MARKERS)], color=colour,
                      label=name_of(name))  # fmt: skip
            if axes is axes_of[0] and "letters" in part:
                for at, letters in zip(y, part["letters"], strict=True):
                    if isinstance(letters, str):
                        axes.text(1.03, at, letters, va="center", fontsize=6.5, color=colour)
        score_axis(axes, label)
    _model_axis(axes_of, models)
    told = "; same letter: not told apart" if "letters" in table else ""
    heading(figure, f"{title} (lines: 95 % intervals{told})")
    if len(names) > 1 or any(level is not None for level in chance.values()):
        most = max(axes_of, key=lambda axes: len(axes.get_legend_handles_labels()[0]))
        legend_below(figure, most, 4)
    return figure


def _model_axis(panels: Sequence[Axes], models: Sequence[str]) -> None:
    named_rows(panels, np.arange(len(models)), [shorten(model) for model in models])
    panels[0].set_ylim(len(models) - 0.45, -0.55)


RANKINGS = {
    "probing": probing_ranking,
    "retrieval": retrieval_ranking,
    "clustering": clustering_ranking,
}
"""What draws each table of `cross_model_evaluation`."""
