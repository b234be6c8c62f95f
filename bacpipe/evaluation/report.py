"""One page that says which model is better, on what, and how sure that is.

``evaluations/overview/report.html`` stands alone: figures are within it (SVG), and it needs no
network and runs no scripts.  Every name that comes from data is escaped; figures are images, so
that nothing in them can reach the page.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bacpipe.errors import counted
from bacpipe.options import Options
from bacpipe.store.files import replacing
from bacpipe.store.fingerprints import read_result
from bacpipe.store.layout import (
    BENCHMARK_CURVES,
    BENCHMARK_RELIABILITY,
    BENCHMARK_RESULTS,
    REPORT,
    ResultPaths,
    comparison_figure_name,
    learning_curve_name,
    precision_recall_name,
    probe_results_name,
    reliability_name,
)

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

_COLUMNS = {
    "probing": {
        "rank": "rank", "letters": "letters", "model": "model", "probe": "probe",
        "f1_macro": "F1 (macro)", "average_precision_macro": "average precision (macro)",
        "roc_auc_macro": "AUROC (macro)", "balanced_accuracy": "balanced accuracy",
        "top_1_accuracy": "top-1 accuracy",
        "classes": "classes", "test_windows": "test windows", "test_recordings": "test recordings",
    },
    "classifiers": {
        "model": "model",
        "letters": "",
        "average_precision_macro": "mean average precision",
        "f1_macro": "macro F1 at its threshold",
        "threshold": "threshold",
        "roc_auc_macro": "mean AUROC",
        "classes": "classes",
        "n_windows": "windows",
        "n_recordings": "recordings",
    },
    "retrieval": {
        "rank": "rank", "letters": "letters", "model": "model",
        "neighbour_precision": "precision of neighbours",
        "neighbour_precision_chance": "by chance", "same_label_auroc": "AUROC of pairs",
        "n_windows": "windows", "n_recordings": "recordings",
    },
    "clustering": {
        "model": "model", "clustering": "clustering", "label": "compared with", "AMI": "AMI",
        "ARI": "ARI", "silhouette": "silhouette", "n_clusters": "clusters",
        "n_windows": "windows", "n_labels": "labels",
    },
}  # fmt: skip
_FIGURES = {
    "probing": "Every dot is a score of the test windows, every line its 95 % interval.",
    "probing_pairs": "How probable it is that the model of the row is better than that of the "
    "column, by macro F1 of the same recordings.",
    "probing_per_class": "F1 of every class; in brackets its test windows.",
    "classifiers_pairs": "How probable it is that the classifier of the row is better than that of "
    "the column, by mean average precision in the same recordings.",
    "clustering": "Whether groups that form by themselves are the labels.",
    "retrieval": "Whether the most similar windows of other recordings have the same label.",
    "retrieval_pairs": "How probable it is that the model of the row is better than that of the "
    "column, by the precision of neighbours in the same recordings.",
}
_LEADERS = {
    "classifiers": ("average_precision_macro", "mean average precision of its own classifier"),
    "retrieval": ("neighbour_precision", "precision of neighbours"),
    "clustering": ("AMI", "agreement of clusters with annotations (AMI)"),
}
_METRICS = {
    "f1_macro": "macro F1",
    "average_precision_macro": "mean average precision",
    "neighbour_precision": "precision of neighbours",
    "AMI": "AMI",
}
_CURVES = (
    "Dashed: chance. Diamond: the lowest threshold with the wanted precision, chosen on these "
    "windows."
)
_RELIABILITY = "On the dashed line scores are probabilities; below it they promise too much."
_SURE = 0.95
_MOST_SITES = 30

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 62rem; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2.2rem;
  border-bottom: 1px solid #ccc; } h3 { font-size: 1.05rem; margin-top: 1.6rem; }
.answer { background: #eef5fb; border-left: 4px solid #0072B2; padding: .6rem 1rem; }
.wide { overflow-x: auto; margin: .8rem 0; } table { border-collapse: collapse; font-size: 13px; }
th, td { text-align: left; padding: .25rem .7rem .25rem 0; border-bottom: 1px solid #ddd;
  vertical-align: top; } td.n { font-variant-numeric: tabular-nums; white-space: nowrap; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; }
figcaption, .small { font-size: 13px; color: #555; }
"""


def write_report(
    folder: Path,
    tables: Mapping[str, pd.DataFrame],
    figures: Iterable[str],
    paths: Mapping[str, ResultPaths],
    options: Options,
) -> None:
    """Write the page into the folder of the comparisons, beside its figures.

    Parameters
    ----------
    folder : Path
        ``evaluations/overview``, with the figures as SVG.
    tables : mapping of str to pandas.DataFrame
        What `cross_model_evaluation` returns.
    figures : iterable of str
        Names of the figures, without a suffix.
    paths : mapping of str to ResultPaths
        Results of every model.
    options : Options
    """
    drawn = list(figures)
    dataset = next(iter(paths.values())).dataset
    parts = [f"<h1>{escape(dataset)}: {counted(len(paths), 'model')} compared</h1>"]
    answers = [_answer(tables)] if "probing" in tables else []
    answers += [_of_task(task, tables) for task in _LEADERS if task in tables]
    if any(answers):
        parts.append(f'<div class="answer">{"".join(answers)}</div>')
    for name, title in (("probing", "Probing"), ("classifiers", "The models' own classifiers"),
                        ("retrieval", "Retrieval"),
                        ("clustering", "Clustering")):  # fmt: skip
        if name not in tables:
            continue
        parts.append(f"<h2>{title}</h2>")
        parts += [f"<p>{escape(note)}</p>" for note in tables[name].attrs.get("notes", [])]
        if name == "clustering":
            parts += _clusterings(tables[name])
        else:
            parts.append(_table(tables[name], _COLUMNS[name]))
        if "letters" in tables[name]:
            parts.append('<p class="small">Models that share a letter cannot be told apart '
                         '(p ≥ 0.05 after Holm’s correction).</p>')  # fmt: skip
        if f"{name}_pairs" in tables:
            parts.append(_pairs(tables[f"{name}_pairs"]))
        parts += [
            _figure(folder / comparison_figure_name(figure, "svg"), _FIGURES.get(figure, ""))
            for figure in drawn
            if figure.startswith(name)
        ]
    maps = [figure for figure in drawn if figure.startswith("embeddings_")]
    if maps:
        parts.append("<h2>Maps</h2>")
        parts += [_figure(folder / comparison_figure_name(figure, "svg"), "") for figure in maps]
    if "probing" in tables:
        parts.append("<h2>Model by model</h2>")
        for model, probe in zip(
            tables["probing"]["model"], tables["probing"]["probe"], strict=True
        ):
            parts.append(_of_model(str(model), str(probe), paths[model]))
    for model, where in paths.items():
        parts.append(_of_classifier(model, where))
    head = f"<meta charset='utf-8'><title>{escape(dataset)}</title><style>{_STYLE}</style>"
    with replacing(folder / REPORT) as file:
        file.write(
            f"<!doctype html><html lang='en'><head>{head}</head><body>{''.join(parts)}"
            f"</body></html>\n".encode()
        )


def _of_task(task: str, tables: Mapping[str, pd.DataFrame]) -> str:
    """Which model is better in retrieval or clustering, in whose tables the best is first."""
    metric, title = _LEADERS[task]
    table = tables[task]
    if task == "clustering":
        table = table[table["label"] == "ground_truth"]
    if table["model"].nunique() < 2 or ("rank" in table and table["rank"].isna().all()):
        return ""
    first = table.iloc[0]
    by = f", {escape(str(first['clustering']))}" if task == "clustering" else ""
    text = (
        f"<p>{task.capitalize()}{by}: <b>{escape(str(first['model']))}</b> has the highest "
        f"{title}, {_score(first, metric)}, for {counted(int(first['n_windows']), 'window')}"
    )
    if first.get("n_recordings", 0):
        text += f" of {counted(int(first['n_recordings']), 'recording')}"
    text += ". "
    pairs = tables.get(f"{task}_pairs")
    rivals = table[table["model"] != first["model"]]
    if pairs is not None and "clustering" in pairs:
        pairs = pairs[pairs["clustering"] == first["clustering"]]
        rivals = rivals[rivals["clustering"] == first["clustering"]]
    if pairs is None or not len(rivals):
        return text + "How sure that is cannot be said: no 5 recordings are known to be shared.</p>"
    rival = str(rivals.iloc[0]["model"])
    two = {str(first["model"]), rival}
    of = pairs[pairs["better"].isin(two) & pairs["other"].isin(two)]
    return text + (_of_pair(of.iloc[0], rival) if len(of) else "") + "</p>"


def _clusterings(table: pd.DataFrame) -> list[str]:
    """Agreement with annotations, and what else clusters follow, folded up."""
    columns = {key: title for key, title in _COLUMNS["clustering"].items() if key != "label"}
    truth = table["label"] == "ground_truth"
    parts = []
    if truth.any():
        parts += ["<p>Agreement with annotations.</p>", _table(table[truth], columns)]
    if not truth.all():
        rest = table[~truth].assign(label=table["label"].str.replace("_", " "))
        inside = _table(rest, _COLUMNS["clustering"])
        parts.append(
            f"<details{'' if truth.any() else ' open'}><summary>Agreement with places, times and "
            f"the like, which should be low</summary>{inside}</details>"
        )
    return parts


def _answer(tables: Mapping[str, pd.DataFrame]) -> str:
    """Which model is better, on what, and how sure that is."""
    table = tables["probing"]
    first = table.iloc[0]
    on = (
        f"{counted(int(first['classes']), 'class', 'classes')} in "
        f"{counted(int(first['test_windows']), 'test window')}"
    )
    if first["test_recordings"] == first["test_recordings"]:
        on += f" of {counted(int(first['test_recordings']), 'recording')}"
    if first["rank"] is None or first["rank"] != first["rank"] or str(first["rank"]) == "<NA>":
        return (
            "<p><b>No model is called the better one:</b> they share too little to be ranked.</p>"
        )
    score = _score(first, "f1_macro")
    sentences = [
        f"<b>{escape(str(first['model']))}</b> with the {escape(str(first['probe']))} probe has "
        f"the highest macro F1, {score}, for {on}."
    ]
    others = table[table["model"] != first["model"]]
    pairs = tables.get("probing_pairs")
    if len(others) and pairs is None:
        sentences.append(
            "How sure that is cannot be said: at least 5 test recordings that all models share "
            "(or sites, with split: site) are needed for intervals of differences."
        )
    elif len(others) and pairs is not None:
        name = f"{first['model']} ({first['probe']})"
        rival = others.iloc[0]
        other = f"{rival['model']} ({rival['probe']})"
        two = {name, other}
        of = pairs[
            (pairs["metric"] == "f1_macro") & pairs["better"].isin(two) & pairs["other"].isin(two)
        ]
        if len(of):
            sentences.append(_of_pair(of.iloc[0], str(rival["model"])))
        letters = dict(zip(table["model"] + " (" + table["probe"] + ")", table["letters"],
                           strict=True))  # fmt: skip
        equal = [n for n in letters if n != name and set(letters[n]) & set(letters[name])]
        if equal:
            sentences.append(f"It cannot be told apart from {escape(', '.join(equal))}.")
        else:
            sentences.append("It is better than all others, by more than chance.")
    return f"<p>{' '.join(sentences)}</p>"


def _of_pair(row: pd.Series, rival: str) -> str:
    if row["probability"] != row["probability"]:
        return f"How it compares with {escape(rival)} cannot be said: nothing varies."
    sure = "" if row["probability"] >= _SURE else ", which is not sure"
    text = (
        f"The probability that it is better than {escape(rival)}, the best other model, is "
        f"{_share(row['probability'])}{sure}: the difference is {row['difference']:.3f} "
        f"[{row['low']:.3f}, {row['high']:.3f}]."
    )
    if "cross_validated_probability" in row and row["cross_validated_probability"] == row[
        "cross_validated_probability"
    ]:  # fmt: skip
        text += (
            f" With other divisions and trainings (cross-validation) the difference is "
            f"{row['cross_validated_difference']:.3f} [{row['cross_validated_low']:.3f}, "
            f"{row['cross_validated_high']:.3f}], the probability "
            f"{_share(row['cross_validated_probability'])}."
        )
    return text


def _share(value: float) -> str:
    """Probability, which is never quite 0 or 1; as HTML."""
    if value != value:
        return "–"
    return "&lt; 0.001" if value < 0.001 else "&gt; 0.999" if value > 0.999 else f"{value:.3f}"


def _score(row: Mapping[Any, Any] | pd.Series, metric: str) -> str:
    value = row[metric]
    if value is None or value != value:
        return "–"
    low, high = row.get(f"{metric}_low"), row.get(f"{metric}_high")
    known = low is not None and low == low
    return f"{value:.3f}" + (f" [{low:.3f}, {high:.3f}]" if known else "")


def _table(table: pd.DataFrame, columns: Mapping[str, str]) -> str:
    shown = {key: title for key, title in columns.items() if key in table}
    rows = []
    for _, row in table.iterrows():
        cells = []
        for key in shown:
            value = row[key]
            if isinstance(value, float) and key not in ("classes", "test_recordings"):
                cells.append(f'<td class="n">{_score(row, key)}</td>')
            else:
                missing = value is None or str(value) in ("nan", "<NA>")
                text = "–" if missing else f"{value:g}" if isinstance(value, float) else str(value)
                cells.append(f"<td>{escape(text)}</td>")
        rows.append(cells)
    return _html_table(list(shown.values()), rows)


def _html_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    body = "".join(f"<tr>{''.join(cells)}</tr>" for cells in rows)
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _pairs(pairs: pd.DataFrame) -> str:
    metric = str(pairs["metric"].iloc[0])
    shown = {"better": f"higher {_METRICS[metric]}", "other": "than"}
    if "clustering" in pairs:
        shown["clustering"] = "clustering"
    rows = []
    for _, row in pairs[pairs["metric"] == metric].iterrows():
        bounds = f"{row['difference']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
        rows.append(
            [f"<td>{escape(str(row[key]))}</td>" for key in shown]
            + [f'<td class="n">{text}</td>'
               for text in (bounds, _share(row["probability"]), _share(row["p"]))]
        )  # fmt: skip
    titles = (*shown.values(), "difference [95 %]", "probability", "p (Holm)")
    return _html_table(titles, rows)


def _figure(path: Path, caption: str) -> str:
    try:
        content = base64.b64encode(path.read_bytes()).decode()
    except OSError as error:
        logger.warning("%s: left out of the report (%s).", path, error)
        return ""
    # As an image, a figure can load and run nothing, whatever its labels say.
    return (
        f'<figure><img alt="{escape(caption or path.stem)}" '
        f'src="data:image/svg+xml;base64,{content}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _of_classifier(model: str, paths: ResultPaths) -> str:
    """What `bacpipe.benchmark` found of the classifier that comes with a model."""
    result = read_result(paths.preds_path / BENCHMARK_RESULTS)
    if result is None:
        return ""
    threshold = result["threshold"]
    rows = [
        [f"<td>{escape(title)}</td>", f'<td class="n">{_of_result(result, metric)}</td>']
        for metric, title in (
            ("average_precision_macro", "average precision (macro)"),
            ("roc_auc_macro", "AUROC (macro)"),
            ("f1_macro", f"F1 (macro), threshold {threshold:g}"),
            ("precision_macro", f"precision (macro), threshold {threshold:g}"),
            ("recall_macro", f"recall (macro), threshold {threshold:g}"),
        )
    ]
    parts = [
        f"<h3>{escape(model)}, its own classifier</h3>",
        *(f"<p>{escape(note)}</p>" for note in result["notes"]),
        _html_table(("all classes that are annotated", "[95 %]"), rows),
    ]
    for name, caption in ((BENCHMARK_CURVES, _CURVES), (BENCHMARK_RELIABILITY, _RELIABILITY)):
        if (paths.plot_path / name).is_file():
            parts.append(_figure(paths.plot_path / name, caption))
    return "".join(parts)


def _of_result(result: Mapping[str, Any], metric: str) -> str:
    low, high = result["intervals"].get(metric) or (None, None)
    return _score(
        {metric: result["overall"][metric], f"{metric}_low": low, f"{metric}_high": high}, metric
    )


def _of_model(model: str, probe: str, paths: ResultPaths) -> str:
    """What one probe is based on: windows, sites, labels, curves."""
    result = read_result(paths.probe_path / probe_results_name(probe))
    if result is None:
        return ""
    split = result["split"]
    parts = [f"<h3>{escape(model)}, {escape(probe)} probe</h3>"]
    sets = ", ".join(
        f"{split['windows'][name]} windows"
        + (f" of {split['recordings'][name]} recordings" if split["recordings"] else "")
        + f" {what}"
        for name, what in (("train", "to train"), ("val", "to tune"), ("test", "to test"))
    )
    parts.append(f"<p>{escape(sets)} (divided by {escape(split['strategy'])}).</p>")
    notes = [*result.get("notes", [])]
    notes += [f"{name} is left out: {why}." for name, why in result.get("dropped", {}).items()]
    if curve := result.get("learning_curve"):
        notes.append(curve["advice"])
    parts += [f"<p>{escape(note)}</p>" for note in notes]
    if repeated := result.get("cross_validation"):
        parts.append(f"<p>Cross-validation, {escape(repeated['splits'])}:</p>")
        parts.append(_cross_validation(repeated))
    if len(result.get("per_site", {})) > 1:
        parts.append(_sites(result["per_site"]))
    for name, caption in (
        (precision_recall_name(probe), _CURVES),
        (reliability_name(probe), _RELIABILITY),
        (learning_curve_name(probe), "Would more labels help?"),
    ):  # fmt: skip
        file = paths.probe_path / name
        if file.is_file():
            parts.append(_figure(file, caption))
    return "".join(parts)


def _cross_validation(result: Mapping[str, Any]) -> str:
    rows = []
    for metric, title in _COLUMNS["probing"].items():
        if result["overall"].get(metric) is not None:
            bounds = result["intervals"].get(metric)
            interval = f" [{bounds[0]:.3f}, {bounds[1]:.3f}]" if bounds else ""
            value = f"{result['overall'][metric]:.3f}{interval}"
            rows.append([f"<td>{escape(title)}</td>", f'<td class="n">{value}</td>'])
    return _html_table(("mean of all parts", "[95 %]"), rows)


def _sites(sites: Mapping[str, Mapping[str, Any]]) -> str:
    def cell(value: float | None) -> str:
        text = "–" if value is None else f"{value:.3f}"
        return f'<td class="n">{text}</td>'

    shown = sorted(sites.items(), key=lambda item: -item[1]["windows"])[:_MOST_SITES]
    rows = [
        [f"<td>{escape(site)}</td>", f"<td>{values['recordings']}</td>",
         f"<td>{values['windows']}</td>", cell(values["f1_macro"]),
         cell(values["average_precision_macro"])]
        for site, values in shown
    ]  # fmt: skip
    titles = ("site", "recordings", "windows", "F1 (macro)", "average precision (macro)")
    left_out = len(sites) - len(shown)
    more = f'<p class="small">{left_out} smaller sites are not shown.</p>' if left_out else ""
    return _html_table(titles, rows) + more
