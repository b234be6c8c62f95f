"""How fast models are, as ``benchmarks/README.md`` says: the pages have no numbers of their own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

_README = Path(__file__).parents[2] / "benchmarks" / "README.md"

# A comment that says how it was measured, and the table below it.
_TABLE = re.compile(r"<!-- speed of models: (.*?) -->\n+((?:\|[^\n]*\n)+)", re.DOTALL)


class Speed(NamedTuple):
    """CPU time of one window, and how it was measured."""

    milliseconds: float
    how: str


def measured(readme: str | None = None) -> dict[str, Speed]:
    """Speed by model; the first table that has a model counts."""
    text = _README.read_text(encoding="utf-8") if readme is None else readme
    found: dict[str, Speed] = {}
    for how, table in _TABLE.findall(text):
        header, _, *rows = (
            [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()
        )
        name, time = header.index("model"), header.index("ms per window")
        for row in rows:
            found.setdefault(row[name], Speed(float(row[time]), " ".join(how.split())))
    return found
