"""Parts that several views are made of: texts, choices, tables, notices, spinners, legends."""

from __future__ import annotations

import html
import io
import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import panel as pn
import param
from bokeh.models import HTMLTemplateFormatter, NumberFormatter

from bacpipe.dashboard.shared.labels import NONE, WindowLabels
from bacpipe.dashboard.style import CSS, NO_LABEL, SHAPES, TABLE_CSS, is_dark
from bacpipe.store.files import without_formulas

if TYPE_CHECKING:
    import pandas as pd

MOST_LEGEND_ENTRIES = 25  # as many as have colours, and the others
# Text never becomes markup: the template escapes it.
_VALUE = "<%- value === null || value === undefined ? '' : value %>"
# What is too long for its column is read by pointing at it.
_TEXT = f'<bdi title="{_VALUE}">{_VALUE}</bdi>'
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


def tall_figure(plot: Any, height: str) -> Any:
    """Figure of a height in CSS such as ``45vh``, but not lower than it was made."""
    high = f"max({plot.height}px, {height})"
    # By its policy it fills what it is in, of which Panel makes less than of its sizing mode.
    plot.update(height=None, sizing_mode="stretch_width", height_policy="max")
    return pn.Column(
        pn.pane.Bokeh(plot), sizing_mode="stretch_width",
        # What it is in may be lower, and is then scrolled.
        styles={"height": high, "min-height": high},
    )  # fmt: skip


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


class TickBox(pn.viewable.Viewer):
    """Checkbox whose words belong to it: a click on them counts, and screen readers say them.

    `value` and `disabled` are those of `panel.widgets.Checkbox`, which draws its words beside the
    box without a tie (Panel 1.9, 1.10); this is a group of one.
    """

    value = param.Boolean(default=False)
    disabled = param.Boolean(default=False)

    def __init__(
        self, label: str, *, margin: int | tuple[int, ...] = (2, 5), **values: Any
    ) -> None:
        super().__init__(**values)
        self._group = pn.widgets.CheckBoxGroup(options=[label], margin=margin)
        self._group.param.watch(lambda event: self.param.update(value=bool(event.new)), "value")
        self.param.watch(lambda *_: self._follow(), ["value", "disabled"])
        self._follow()

    @classmethod
    def of(
        cls, state: param.Parameterized, name: str, label: str, margin: tuple[int, ...] = (2, 5)
    ) -> TickBox:
        """Box that is ticked as long as a parameter is true."""
        box = cls(label, margin=margin, value=getattr(state, name))
        box.param.watch(lambda event: state.param.update({name: event.new}), "value")
        state.param.watch(lambda event: box.param.update(value=event.new), name)
        return box

    def _follow(self) -> None:
        value = list(self._group.options) if self.value else []
        self._group.param.update(value=value, disabled=self.disabled)

    def __panel__(self) -> Any:
        return self._group


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
            "theme": "midnight" if is_dark() else "simple",
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
            formatters[str(name)] = text_formatter()
    return formatters


def text_formatter() -> Any:
    """How a column of texts is shown; names are never markup."""
    return HTMLTemplateFormatter(template=_TEXT)


def csv_of(table: pd.DataFrame) -> bytes:
    """A table as CSV (UTF-8, comma), whose texts and names of columns are no formulas.

    Whoever downloads a table opens it in a spreadsheet, and the names in it may be anybody's.
    """
    text: str = without_formulas(table).to_csv(index=False, lineterminator="\n")
    return text.encode("utf-8", "surrogateescape")


def download_button(table: pd.DataFrame, filename: str) -> Any:
    """Button that hands out a whole table as `csv_of` makes it."""
    return pn.widgets.FileDownload(
        callback=lambda: io.BytesIO(csv_of(table)), filename=filename, label="Download as CSV",
        color="primary", variant="outline", width=180,
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
        shapes = itertools.repeat("●") if labels.ordered else itertools.cycle(SHAPES)
        entries = [
            legend_entry(colour, name, shape)
            for (name, colour), shape in zip(named, shapes, strict=False)
        ]
        if len(labels.names) > most:
            entries.append(f'<span class="bp-entry">… and {len(labels.names) - most} more</span>')
    if (labels.codes == NONE).any():
        entries.append(legend_entry(NO_LABEL, "none"))
    return f'<div class="bp-legend">{"".join(entries)}</div>'


def legend_entry(colour: str, name: str, shape: str = "●") -> str:
    """One colour of a legend with its shape, as HTML."""
    return (
        f'<span class="bp-entry"><span class="bp-dot" style="color: {colour}" aria-hidden="true">'
        f"{shape}</span>"
        f"{html.escape(name)}</span>"
    )
