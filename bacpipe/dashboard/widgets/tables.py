"""Tables that can be sorted and downloaded."""

from __future__ import annotations

import html
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import panel as pn
from bokeh.models import HTMLTemplateFormatter, NumberFormatter

from bacpipe.dashboard.style import TABLE_CSS

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
