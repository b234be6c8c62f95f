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
    # These are made from cards, options and docstrings.
    if not {"models", "reference"}.intersection(path.relative_to(ROOT).parts)
]


BIRDS = "real recordings"
_PACKAGES = {"bats": "batdetect2", "onnx": "onnxruntime", "search": "faiss"}


def available(need: str) -> bool:
    if need == BIRDS:
        return (SHARED / "audio" / "birds").is_dir()
    return importlib.util.find_spec(_PACKAGES[need]) is not None


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_what_it_says_can_be_done(path: Path, desk: Path) -> None:
    blocks = blocks_of(path)
    reader = Reader(available)
    if path.suffix == ".ipynb" and '"birds"' in path.read_text("utf-8") and not available(BIRDS):
        pytest.skip(BIRDS)
    if path.stem.endswith("bats") and not available("bats"):
        pytest.skip("bats")
    try:
        reader.read(blocks)
    except Missing as missing:
        pytest.skip(str(missing))
    assert reader.ran == sum(block.runs for block in blocks)
