"""The messages that docs/errors.md explains are those that bacpipe has."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OTHERS = ("a different Python", "command not found", "CUDA out of memory")
"""Of messages that are not bacpipe's."""
PUT_TOGETHER = ("ends after X of Y seconds", "is installed but cannot be imported")
"""Of messages with single words that the code chooses: `tests/test_bad_input.py` has them."""
# What a message says of the case at hand.
_CASE = re.compile(r"\.\.\.|'[^']*'|\b[XYNAB]\b|\b\d[\w.+%]*|\w+_\w+|\([^)]*\.\.\.\)|[=:(),;/%?]")


@cache
def _said() -> str:
    """All strings of the package; a line feed where one has a value in between, or ends."""
    texts: list[str] = []
    for path in (ROOT / "bacpipe").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return "\n".join(" ".join(text.split(" ")) for text in texts)


def _pieces(words: list[str]) -> int | None:
    """Of how many pieces of the package's strings a message can be made; None if of none."""
    least: list[int | None] = [0, *(None for _ in words)]
    for end in range(1, len(words) + 1):
        for begin, before in enumerate(least[:end]):
            if before is not None and " ".join(words[begin:end]) in _said():
                least[end] = min(before + 1, least[end] or before + 1)
    return least[-1]


def _messages() -> list[str]:
    cells = [
        line.split("|")[1]
        for line in (ROOT / "docs" / "errors.md").read_text("utf-8").splitlines()
        if line.startswith("|")
    ]
    return [text for cell in cells for text in re.findall(r"(?<![\w*])\*(?!\*)(.+?)\*(?!\w)", cell)]


def test_there_are_messages() -> None:
    assert len(_messages()) > 60


@pytest.mark.parametrize("message", _messages())
def test_it_is_a_message_of_bacpipe(message: str) -> None:
    if any(part in message for part in OTHERS + PUT_TOGETHER):
        return
    words = [word for part in _CASE.split(message) for word in part.split()]
    pieces = _pieces(words)
    assert pieces is not None and pieces <= max(3, len(words) // 2), words
