"""Parts that several views are made of: texts, choices, tables, notices, spinners, legends."""

from __future__ import annotations

import html
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import panel as pn
import param
from bokeh.models import HTMLTemplateFormatter, NumberFormatter

from bacpipe.dashboard.shared.labels import NONE, WindowLabels
from bacpipe.dashboard.style import CSS, NO_LABEL, TABLE_CSS

if TYPE_CHECKING:
    import pandas as pd

MOST_LEGEND_ENTRIES = 24
# Text never becomes markup: the template escapes it.
_TEXT = "<%- value === null || value === undefined ? '' : value %>"
_TURNING = '<div class="bp-turning" role="status" aria-label="working"></div>'

# ---------------------------------------------------------------------- texts


def html_pane(
    text: str = "",
    css_class: str = "",
    *,
    margin: int | tuple[int, ...] = (5, 10),
    wide: bool = True,
) -> Any:
    """HTML in the look of the page; `wide` takes all the width that there is."""
    return pn.pane.HTML(
        text,
        css_classes=[css_class] if css_class else [],
        stylesheets=[CSS],
        margin=margin,
        sizing_mode="stretch_width" if wide else None,
    )


def heading(text: str, *, margin: int | tuple[int, ...] = (5, 10)) -> Any:
    """Short title above other parts."""
    return html_pane(f'<div class="bp-heading">{text}</div>', margin=margin, wide=False)


def note(text: str, *, margin: int | tuple[int, ...] = (5, 10)) -> Any:
    """Small text about other parts, as HTML."""
    return html_pane(f'<div class="bp-note">{text}</div>', margin=margin)


def hint(text: str) -> Any:
    """What to do when there is nothing to show, as HTML."""
    return html_pane(f'<div class="bp-hint">{text}</div>')


def overlay(css_class: str, text: str = "") -> Any:
    """HTML that lies over the column of which it is the first part."""
    return pn.pane.HTML(
        text, css_classes=[css_class], stylesheets=[CSS], margin=0, width=1, height=1
    )


class Notice:
    """A sentence in a box; invisible without one.

    Sentences name files and labels, which may hold anything, so they are shown as text:
    neither markup nor Markdown.
    """

    def __init__(self, sentence: str = "") -> None:
        self.panel: Any = pn.pane.HTML(
            css_classes=["bp-notice"], stylesheets=[CSS], sizing_mode="stretch_width"
        )
        self.say(sentence)

    def say(self, sentence: str = "") -> None:
        """Show another sentence; none takes the box away."""
        self.sentence = sentence
        self.panel.param.update(object=html.escape(sentence), visible=bool(sentence))


class Spinner:
    """Turns over its parent while something is computed; its `panel` comes first in a column.

    Panel's own ``loading`` changes the classes of an object, after which Bokeh lays out the
    whole page again; that takes longer than most of what is waited for.
    """

    def __init__(self) -> None:
        self.panel: Any = overlay("bp-spinner")

    @property
    def loading(self) -> bool:
        """Whether it turns."""
        return bool(self.panel.object)

    @loading.setter
    def loading(self, turns: bool) -> None:
        self.panel.object = _TURNING if turns else ""


# ---------------------------------------------------------------------- choices


def select(parameter: Any, label: str, options: Mapping[str, Any] | None = None) -> Any:
    """Drop-down list for a parameter; `options` give its values titles."""
    titles = {} if options is None else {"options": options}
    return pn.widgets.Select.from_param(
        parameter, label=label, description=None, sizing_mode="stretch_width", **titles
    )


def offer(
    state: param.Parameterized,
    name: str,
    options: Sequence[Any] | Mapping[str, Any],
    default: Any = None,
) -> None:
    """Give a `param.Selector` other options, and keep its value where it is one of them.

    `options` are values, or values by their title; without any, the parameter must allow None.
    Visitors who have not chosen get the `default`, or else the first.
    """
    values = list(options.values() if isinstance(options, Mapping) else dict.fromkeys(options))
    chosen = state.param[name]
    chosen.default = values[0] if default is None and values else default
    chosen.objects = options if isinstance(options, Mapping) else values
    if getattr(state, name) not in values:
        setattr(state, name, chosen.default)


# ---------------------------------------------------------------------- tables


def table_widget(table: pd.DataFrame, *, decimals: int = 3, **options: Any) -> Any:
    """Table that can be sorted and searched, in pages that are fetched when they are looked at.

    Column names are titles; numbers that are not whole get so many decimals.  `options` are
    those of `panel.widgets.Tabulator`.
    """
    return pn.widgets.Tabulator(
        table,
        **{
            "disabled": True,
            "show_index": False,
            "pagination": "remote",
            "page_size": 15,
            "layout": "fit_data_fill",
            "sizing_mode": "stretch_width",
            "formatters": _formatters(table, decimals),
            # Titles are markup to Tabulator.
            "titles": {str(n): html.escape(str(n).replace("_", " ")) for n in table.columns},
            "theme": "simple",
            "stylesheets": [TABLE_CSS],
            **options,
        },
    )


def _formatters(table: pd.DataFrame, decimals: int) -> dict[str, Any]:
    formatters: dict[str, Any] = {}
    for name, column in table.items():
        if column.dtype.kind == "f":
            number = NumberFormatter(format=f"0,0.{'0' * decimals}", nan_format="–")
            formatters[str(name)] = number
        elif column.dtype.kind in "iu":
            formatters[str(name)] = NumberFormatter(format="0,0")
        elif column.dtype.kind == "O":
            formatters[str(name)] = HTMLTemplateFormatter(template=_TEXT)
    return formatters


def download_button(table: pd.DataFrame, filename: str) -> Any:
    """Button that hands out a whole table as CSV (UTF-8, comma)."""

    def content() -> io.BytesIO:
        return io.BytesIO(table.to_csv(index=False, lineterminator="\n").encode())

    return pn.widgets.FileDownload(
        callback=content, filename=filename, label="Download as CSV", color="primary",
        variant="outline", width=180,
    )  # fmt: skip


# ---------------------------------------------------------------------- legends


def legend_html(
    labels: WindowLabels | None, colours: Sequence[str], *, most: int = MOST_LEGEND_ENTRIES
) -> str:
    """Colours of labels, as a line of HTML in which labels are text.

    More than `most` unordered labels are counted rather than named, since colours repeat.
    """
    if labels is None or not labels.names:
        return ""
    if labels.ordered and len(labels.names) > 8:
        steps = ", ".join(colours[:: max(1, len(colours) // 32)])
        entries = [
            f'<span class="bp-entry">{html.escape(labels.names[0])}'
            f'<span class="bp-scale" style="background: linear-gradient(90deg, {steps})"></span>'
            f"{html.escape(labels.names[-1])}</span>"
        ]
    else:
        named = zip(labels.names[:most], colours, strict=False)
        entries = [legend_entry(colour, name) for name, colour in named]
        if len(labels.names) > most:
            entries.append(f'<span class="bp-entry">… and {len(labels.names) - most} more</span>')
    if (labels.codes == NONE).any():
        entries.append(legend_entry(NO_LABEL, "none"))
    return f'<div class="bp-legend">{"".join(entries)}</div>'


def legend_entry(colour: str, name: str) -> str:
    """One colour of a legend, as HTML."""
    return (
        f'<span class="bp-entry"><span class="bp-dot" style="background: {colour}"></span>'
        f"{html.escape(name)}</span>"
    )
