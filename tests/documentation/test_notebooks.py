"""The notebooks hold no outputs; what they do is read with the pages.

Where the recordings are absent, such as where the site is published, pages show kept outputs.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_stripped(path: Path) -> None:
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        assert cell["cell_type"] == "markdown" or (cell["outputs"], cell["execution_count"]) == (
            [],
            None,
        )


def code_of(path: Path) -> list[dict[str, Any]]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


@pytest.fixture
def page_without_recordings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "_extensions"))
    monkeypatch.setenv("BACPIPE_EXAMPLES", str(tmp_path / "nothing"))
    monkeypatch.delitem(sys.modules, "notebook_page", raising=False)
    module = importlib.import_module("notebook_page")
    yield module
    sys.modules.pop("notebook_page")


def test_pages_show_what_the_notebooks_of_today_gave(
    page_without_recordings: Any, tmp_path: Path
) -> None:
    """After a notebook is changed, ``python docs/make_outputs.py`` is run."""
    page_without_recordings.make_pages(tmp_path / "pages")
    for path in NOTEBOOKS:
        shown = tmp_path / "pages" / path.name
        text = shown.read_text("utf-8")
        assert "recordings that are not published with the code" in text
        assert ("image/png" in text and "text/html" in text) or "bats" in path.stem
        assert "<audio" not in text and not re.search(r"/(home|tmp|root|work|Users)/", text)
        for cell, expected in zip(code_of(shown), code_of(path), strict=True):
            assert cell["source"] == expected["source"]
            # The last line of a cell shows something, unless it imports or defines or assigns.
            last = "".join(cell["source"]).rstrip().rpartition("\n")[2]
            assert cell["outputs"] or re.search(r"^ |=", last), last


def test_outputs_of_another_state_of_a_notebook_are_not_shown(
    page_without_recordings: Any, tmp_path: Path
) -> None:
    (path, *_) = NOTEBOOKS
    kept = page_without_recordings.KEPT / path.name
    text = path.read_text("utf-8")
    assert page_without_recordings.with_outputs(text, kept) != text
    changed = text.replace("birdnet", "perch_v2")
    assert page_without_recordings.with_outputs(changed, kept) == changed
    assert page_without_recordings.with_outputs(text, tmp_path / "none.ipynb") == text
