"""Commands and Python of README, pages and notebooks run, and give what is printed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.conftest import SHARED
from tests.documentation.reader import Missing, Reader, blocks_of

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    path
    for path in [
        ROOT / "README.md",
        *sorted(ROOT.glob("docs/**/*.md")),
        *sorted(ROOT.glob("examples/*.ipynb")),
    ]
    if path.parent.name not in ("models", "reference", "api")  # made from cards and docstrings
]


def available(need: str) -> bool:
    if need == "real recordings":
        return (SHARED / "audio" / "birds").is_dir()
    return importlib.util.find_spec({"bats": "batdetect2", "onnx": "onnxruntime"}[need]) is not None


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_what_it_says_can_be_done(path: Path, desk: Path) -> None:
    blocks = blocks_of(path)
    reader = Reader(available)
    try:
        reader.read(blocks)
    except Missing as missing:
        pytest.skip(str(missing))
    assert reader.ran == sum(block.runs for block in blocks)
