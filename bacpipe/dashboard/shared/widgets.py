"""Tables that can be sorted and downloaded."""

from __future__ import annotations

import html
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import panel as pn
import param
from bokeh.models import HTMLTemplateFormatter, NumberFormatter

from bacpipe.dashboard.shared.labels import NONE, Labels
from bacpipe.dashboard.style import CSS, NO_LABEL, TABLE_CSS

if TYPE_CHECKING:
    import pandas as pd

# Text never becomes markup: the template escapes it.
_TEXT = "<%- value === null || value === undefined ? '' : value %>"


def table_widget(table: pd.DataFrame, *, decimals: int = 3, **options: Any) -> Any:
    """Table that can be sorted and searched, in pages that are fetched when they are looked at.

    Parameters
    ----------
    table : pandas.DataFrame
        What to show; column names are titles.
    decimals : int
        Of numbers that are not whole.
    **options
        Of `panel.widgets.Tabulator`.
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


def download_button(table: pd.DataFrame, filename: str) -> Any:
    """Button that hands out a whole table as CSV (UTF-8, comma)."""

    def content() -> io.BytesIO:
        return io.BytesIO(table.to_csv(index=False, lineterminator="\n").encode())

    return pn.widgets.FileDownload(
        callback=content, filename=filename, label="Download as CSV",
        button_type="primary", button_style="outline", width=180,
    )  # fmt: skip


def _formatters(table: pd.DataFrame, decimals: int) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    for name, column in table.items():
        if column.dtype.kind == "f":
            found[str(name)] = NumberFormatter(format=f"0,0.{'0' * decimals}", nan_format="–")
        elif column.dtype.kind in "iu":
            found[str(name)] = NumberFormatter(format="0,0")
        elif column.dtype.kind == "O":
            found[str(name)] = HTMLTemplateFormatter(template=_TEXT)
    return found


# FOLDED bacpipe/dashboard/widgets/choices.py: Choices whose options depend on the results.


def offer(
    state: param.Parameterized,
    name: str,
    options: Sequence[Any] | Mapping[str, Any],
    default: Any = None,
) -> None:
    """Give a `param.Selector` other options, and keep its value where it is one of them.

    Parameters
    ----------
    state : param.Parameterized
        Has the parameter.
    name : str
        The parameter; None must be allowed where there may be no options.
    options : sequence, or mapping of str
        Values, or values by their title.
    default : object, optional
        Value for visitors who have not chosen; the first option unless given.
    """
    values = list(options.values() if isinstance(options, Mapping) else dict.fromkeys(options))
    chosen = state.param[name]
    chosen.default = values[0] if default is None and values else default
    chosen.objects = options if isinstance(options, Mapping) else values
    if getattr(state, name) not in values:
        setattr(state, name, chosen.default)


# FOLDED bacpipe/dashboard/widgets/notice.py: Sentences for visitors, in a box.


class Notice:
    """A sentence in a box; invisible without one.

    Sentences name files and labels, which may hold anything, so they are shown as text:
    neither markup nor Markdown.

    Parameters
    ----------
    sentence : str
        What to say at first.

    Attributes
    ----------
    panel : panel object
    sentence : str
        What is said.
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


# FOLDED bacpipe/dashboard/widgets/spinner.py: A spinner over a part of the page.

_TURNING = '<div class="bp-turning" role="status" aria-label="working"></div>'


class Spinner:
    """Turns over its parent while something is computed.

    Panel's own ``loading`` changes the classes of an object, after which Bokeh lays out the
    whole page again; that takes longer than most of what is waited for.

    Attributes
    ----------
    panel : panel object
        Put it first into the column that it is to lie over.
    loading : bool
        Whether it turns.
    """

    def __init__(self) -> None:
        self.panel: Any = pn.pane.HTML(
            "", css_classes=["bp-spinner"], stylesheets=[CSS], margin=0, width=1, height=1
        )

    @property
    def loading(self) -> bool:
        """Whether it turns."""
        return bool(self.panel.object)

    @loading.setter
    def loading(self, turns: bool) -> None:
        self.panel.object = _TURNING if turns else ""


# FOLDED bacpipe/dashboard/widgets/legend.py: Legends of maps as HTML.

MOST_ENTRIES = 24


def legend_html(labels: Labels | None, colours: Sequence[str], *, most: int = MOST_ENTRIES) -> str:
    """Colours of labels, as a line of HTML in which labels are text.

    Parameters
    ----------
    labels : Labels or None
        What is coloured.
    colours : sequence of str
        Colour of every label.
    most : int
        More unordered labels than this are counted rather than named, since colours repeat.
    """
    if labels is None or not labels.names:
        return ""
    entries = []
    if labels.ordered and len(labels.names) > 8:
        steps = ", ".join(colours[:: max(1, len(colours) // 32)])
        entries.append(
            f'<span class="bp-entry">{html.escape(labels.names[0])}'
            f'<span class="bp-scale" style="background: linear-gradient(90deg, {steps})"></span>'
            f"{html.escape(labels.names[-1])}</span>"
        )
    else:
        entries += [
            _entry(colour, name) for name, colour in zip(labels.names[:most], colours, strict=False)
        ]
        if len(labels.names) > most:
            entries.append(f'<span class="bp-entry">… and {len(labels.names) - most} more</span>')
    if (labels.codes == NONE).any():
        entries.append(_entry(NO_LABEL, "none"))
    return f'<div class="bp-legend">{"".join(entries)}</div>'


def _entry(colour: str, name: str) -> str:
    return (
        f'<span class="bp-entry"><span class="bp-dot" style="background: {colour}"></span>'
        f"{html.escape(name)}</span>"
    )


# FOLDED bacpipe/dashboard/widgets/parts.py: The controls of views that show one of several parts.


def parts_and_choices(
    part: Any, titles: Mapping[str, str], choices: Mapping[str, Sequence[Any]]
) -> Any:
    """Let a visitor choose a part, and below what each part lets choose.

    Parameters
    ----------
    part : param.Selector
        Which part is shown.
    titles : mapping of str to str
        Parts by their title.
    choices : mapping of str to sequence
        Widgets of each part.
    """
    parts = pn.widgets.RadioBoxGroup.from_param(part, options=titles, name="Show", margin=(5, 10))
    return pn.Column(
        pn.pane.HTML('<div class="bp-heading">Show</div>', stylesheets=[CSS], margin=(5, 10)),
        parts,
        *(widget for widgets in choices.values() for widget in widgets),
        sizing_mode="stretch_width",
    )
