"""Figures: readable whatever the data, in one style, without a display."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from bacpipe.evaluation.comparison import clustering_table, per_class_table, probing_table
from bacpipe.plotting import comparison, style
from bacpipe.plotting.classifiers import (
    confusion_matrix,
    learning_curve,
    per_class_scores,
    precision_recall,
    reliability,
)
from bacpipe.plotting.clustering import agreement
from bacpipe.plotting.style import COLOURS, save_figure


def make_result(n_classes: int, model: str = "model", probe: str = "linear") -> dict:
    rng = np.random.default_rng(n_classes)
    names = [f"A rather long species name {i}" for i in range(n_classes)]
    metrics = [f"{name}_{kind}" for name in ("f1", "precision", "recall") for kind in
               ("macro", "micro")]  # fmt: skip
    metrics += ["average_precision_macro", "roc_auc_macro", "accuracy", "balanced_accuracy",
                "top_1_accuracy", "top_5_accuracy"]  # fmt: skip
    values = {name: float(rng.random()) for name in metrics}
    return {
        "model": model,
        "probe": probe,
        "classes": names,
        "overall": values,
        "intervals": {name: [value * 0.9, value] for name, value in values.items()},
        "confusion_matrix": rng.integers(0, 30, (n_classes, n_classes)).tolist(),
        "split": {"id": "1", "windows": {"test": 100}, "recordings": {"test": 7}},
        "per_class": {
            name: {
                "support": 5,
                "f1": float(rng.random()),
                "precision": 0.5,
                "recall": 0.5,
                "roc_auc": None,
                "average_precision": float(rng.random()),
                "f1_interval": [0.1, 0.9],
                "average_precision_interval": None,
            }
            for name in names
        },
    }


def texts_overlap(figure) -> bool:
    """Whether labels of the vertical axis run into each other."""
    figure.draw_without_rendering()
    for axes in figure.axes:
        boxes = [label.get_window_extent() for label in axes.get_yticklabels() if label.get_text()]
        boxes.sort(key=lambda box: box.y0)
        if any(low.y1 > high.y0 + 1 for low, high in itertools.pairwise(boxes)):
            return True
    return False


@pytest.mark.parametrize("n_classes", [2, 12, 45, 130])
@pytest.mark.parametrize("draw", [confusion_matrix, per_class_scores])
def test_any_number_of_classes_can_be_read(draw, n_classes, tmp_path):
    figure = draw(make_result(n_classes))
    assert not texts_overlap(figure)
    assert max(figure.get_size_inches()) < 14
    save_figure(figure, tmp_path / "figure.png", vector=True)
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "figure.svg").read_text()


@pytest.mark.parametrize("n_models", [1, 26])
def test_any_number_of_models_can_be_compared(n_models):
    results = [
        make_result(12, f"model_{i}", probe) for i in range(n_models) for probe in ("knn", "linear")
    ]
    ranking = comparison.probing_ranking(probing_table(results))
    assert not texts_overlap(ranking)
    rows = [label.get_text() for label in ranking.axes[0].get_yticklabels()]
    assert len(rows) == n_models
    assert rows[0] == probing_table(results)["model"].iloc[0]
    assert not texts_overlap(comparison.per_class_scores(per_class_table(results)))


def test_an_interval_that_is_missing_is_no_obstacle():
    result = make_result(3)
    result["intervals"] = dict.fromkeys(result["intervals"])
    result["overall"]["top_5_accuracy"] = None
    comparison.probing_ranking(probing_table([result]))


def test_drawing_leaves_no_trace():
    def open_figures() -> list[int] | None:
        pyplot = sys.modules.get("matplotlib.pyplot")
        return pyplot and pyplot.get_fignums()

    before = dict(matplotlib.rcParams), open_figures()
    confusion_matrix(make_result(3))
    assert (dict(matplotlib.rcParams), open_figures()) == before


def test_colours_are_told_apart_by_colour_blind_readers():
    """Simulated deuteranopia and protanopia (Viénot et al. 1999) leave the first six distinct."""
    simulations = (
        np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]]),
        np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]]),
    )
    colours = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in COLOURS[:6]])
    for matrix in simulations:
        seen = ((colours**2.2) @ matrix.T).clip(0, 1) ** (1 / 2.2)
        distance = np.linalg.norm(seen[:, None] - seen, axis=2)
        assert distance[~np.eye(6, dtype=bool)].min() > 0.1


def test_letters_of_other_scripts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    from fontTools.fontBuilder import FontBuilder
    from fontTools.ttLib.tables._g_l_y_f import Glyph
    from matplotlib.font_manager import fontManager

    def draw(name: str) -> bytes:
        figure = style.new_figure(2, 1)
        figure.text(0.1, 0.5, "wren \U000f0001")  # for private use: no real font has it
        style.save_figure(figure, tmp_path / name)
        return (tmp_path / name).read_bytes()

    boxes = draw("boxes.png")
    draw("again.png")
    (told,) = [record.getMessage() for record in caplog.records]
    assert "No font on this machine has the letters \U000f0001" in told
    assert "fonts-noto-cjk" in told

    builder = FontBuilder(1000)
    builder.setupGlyphOrder([".notdef", "own"])
    builder.setupCharacterMap({0xF0001: "own"})
    builder.setupGlyf({".notdef": Glyph(), "own": Glyph()})
    builder.setupHorizontalMetrics({".notdef": (500, 0), "own": (500, 0)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Bacpipe Test", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "own.ttf")
    before = list(fontManager.ttflist)
    fontManager.addfont(tmp_path / "own.ttf")
    try:
        assert draw("drawn.png") != boxes
    finally:
        fontManager.ttflist[:] = before
    assert len(caplog.records) == 1
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]


def test_clusterings_are_drawn_with_their_intervals():
    """Where recordings are too few, and for places and times, there are none."""
    known = {
        "AMI": 0.6,
        "ARI": 0.5,
        "AMI_low": 0.4,
        "AMI_high": 0.7,
        "ARI_low": 0.2,
        "ARI_high": 0.6,
    }
    unknown = {**dict.fromkeys(known), "AMI": 0.3, "ARI": 0.2}
    kinds = {"ground_truth": known, "parent_directory": {"AMI": 0.1, "ARI": 0.1}}
    result = {
        "model": "one",
        "label_column": "label:species",
        "agreement": {"kmeans": kinds, "hdbscan": {**kinds, "ground_truth": unknown}},
        "clusters": {
            name: {"n_clusters": 3, "share_of_noise": 0.0} for name in ("kmeans", "hdbscan")
        },
    }
    table = clustering_table({"one": result})
    for figure, bars in (
        (comparison.clustering_ranking(table), [[0.4, 0.7]]),
        (agreement(result), [[0.4, 0.7], [0.2, 0.6]]),
    ):
        ends = [
            segment[:, 0].tolist()
            for axes in figure.axes
            for lines in axes.collections
            for segment in lines.get_segments()
            if np.size(segment) and np.isfinite(segment).all() and segment[0, 0] != 0
        ]
        assert ends == bars


def curves(classes: list[str]) -> dict:
    return {
        "model": "model",
        "wanted_precision": 1.0,
        "per_class": {
            name: {"average_precision": 0.8, "threshold_at_precision": float(SCORES[0, 0])}
            for name in classes
        },
    }


TRUTH = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 1, 0]], bool)
SCORES = np.array([[0.9, 0.1, 0.5], [0.8, 0.95, 0.5], [0.7, 0.3, 0.5], [0.1, 0.3, 0.5]], np.float32)


def panels_of(figure) -> dict:
    """Visible panels by the class in their title."""
    return {
        axes.get_title("left").split(" (")[0]: axes for axes in figure.axes if axes.get_visible()
    }


def test_precision_and_recall_of_every_threshold_are_drawn():
    figure = precision_recall(curves(["owl", "wren", "absent"]), TRUTH, SCORES)
    panels = panels_of(figure)
    assert list(panels) == ["wren", "owl"]  # that with most windows first, none without any
    chance, curve, diamond = panels["owl"].get_lines()
    assert chance.get_ydata() == [0.5, 0.5] and chance.get_linestyle() == "--"
    np.testing.assert_allclose(curve.get_xdata(), [0, 0.5, 0.5, 1, 1])
    np.testing.assert_allclose(curve.get_ydata(), [1, 1, 0.5, 2 / 3, 0.5])
    assert (diamond.get_xdata().item(), diamond.get_ydata().item()) == (0.5, 1)
    _, curve, _ = panels["wren"].get_lines()
    np.testing.assert_allclose(curve.get_xdata(), [0, 1 / 3, 1, 1])  # two windows have one score
    np.testing.assert_allclose(curve.get_ydata(), [1, 1, 1, 3 / 4])
    ignored = np.zeros_like(TRUTH)
    ignored[1, 0] = True
    _, curve, _ = panels_of(
        precision_recall(curves(["owl", "wren", "absent"]), TRUTH, SCORES, ignored)
    )["owl"].get_lines()
    np.testing.assert_allclose(curve.get_ydata(), [1, 1, 1, 2 / 3])


def test_what_scores_mean_is_drawn_by_tenths():
    panels = panels_of(reliability(curves(["owl", "wren", "absent"]), TRUTH, SCORES))
    assert list(panels) == ["wren", "owl"]
    diagonal, line = panels["wren"].get_lines()
    assert list(diagonal.get_xdata()) == list(diagonal.get_ydata()) == [0, 1]
    # 0.1, twice 0.3 and 0.95: absent, there, there.
    expected = [[0.1, 0], [0.3, 1], [0.95, 1]]
    np.testing.assert_allclose(line.get_xydata(), expected, atol=1e-6)
    (dots,) = panels["wren"].collections
    np.testing.assert_allclose(dots.get_offsets(), expected, atol=1e-6)
    sizes = dots.get_sizes()
    assert sizes[1] > sizes[0] == sizes[2]
    (said,) = panels["wren"].texts
    assert said.get_text() == f"error {(0.1 + 2 * 0.7 + 0.05) / 4:.2f}"


def test_scores_are_drawn_over_the_windows_that_a_class_has():
    rows = [(5.0, 0.2, 0.3), (10.0, 0.4, 0.5), (20.0, 0.6, None)]
    keys = ("windows_per_class", "f1_macro", "average_precision_macro")
    curve = {"points": [dict(zip(keys, row, strict=True)) for row in rows]}
    (axes,) = learning_curve({"model": "m", "probe": "linear", "learning_curve": curve}).axes
    lines = {line.get_label(): line.get_xydata() for line in axes.get_lines()}
    np.testing.assert_array_equal(lines["F1 (macro)"], [[5, 0.2], [10, 0.4], [20, 0.6]])
    expected = [[5, 0.3], [10, 0.5], [20, np.nan]]
    np.testing.assert_array_equal(lines["average precision (macro)"], expected)
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["5", "10", "20"]


def test_windows_far_from_the_map_have_a_black_ring():
    table = pd.DataFrame(
        {"x": [0.0, 1, 2, 3], "y": [0.0, 1, 4, 9], "label": ["owl", "wren", None, "owl"],
         "far": [False, True, True, False]}
    )  # fmt: skip

    def rings(table: pd.DataFrame) -> list[list[list[float]]]:
        figure = comparison.maps({"model": table}, "species", 10)
        return [
            dots.get_offsets().tolist()
            for dots in figure.axes[0].collections
            if len(dots.get_edgecolor()) and to_hex(dots.get_edgecolor()[0]) == "#000000"
            and not len(dots.get_facecolor())
        ]  # fmt: skip

    assert rings(table) == [[[1.0, 1.0], [2.0, 4.0]]]
    assert rings(table.assign(far=False)) == []
    figure = comparison.maps({"model": table}, "species", 10)
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["owl", "wren", "far from all that the map was fitted to"]
