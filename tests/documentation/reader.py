"""A reader who does what a page says, and looks whether it comes out as printed.

Commands of `bash` blocks (those of bacpipe and ``python -c``), `python` and `pycon` blocks run one
after the other, in one folder and one namespace; a `text` block is compared with what the block
before it has printed, ``...`` standing for anything.  Those of `r` are for `test_r.py`.  Comments
before a block, which no reader sees, say otherwise:

``<!-- not run: REASON -->``
    The block is only looked at.
``<!-- needs: NAME -->``
    An extra, or ``real recordings``; where it lacks, the reader stops here.
``<!-- before: CODE -->``
    A command or Python that the page's words have the reader do, such as to answer with yes.
``<!-- file: PATH -->``
    The block shows the beginning of this file.
``<!-- saved as: PATH -->``
    The block is what the reader writes into this file.
``<!-- not compared: REASON -->``
    The block shows what differs from machine to machine.
"""

from __future__ import annotations

import ast
import contextlib
import doctest
import functools
import io
import json
import logging
import math
import re
import shlex
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bacpipe.__main__

_FENCE = re.compile(r"^(?P<fence>`{3,})(?P<language>\w+)\n(?P<text>.*?)^(?P=fence)$", re.M | re.S)
_MARK = re.compile(r"<!-- (not run|needs|before|file|saved as|not compared): (.*?) -->", re.S)
# Set-up needs the network; .ci/run does the README's.  `ssh` and the like need another machine.
_SET_UP = re.compile(r"(python3|\S*pip|git|cd|source|ssh|uvx|pipx|docker|jupyter|sphinx-build)\b")
# Dates, times and speeds of a run.
_VARIES = re.compile(
    r"^ *(speed|time spent|slowest stage|results) .*$|\d{4}-\d\d-\d\d_\d\d-\d\d(?=___)", re.M
)
_PLACES = {"/path/to/": "", "/data/": "data/", "/scratch/": "scratch/"}


@dataclass(frozen=True)
class Block:
    """A block of code or output, and the marks before it."""

    page: str
    line: int
    language: str
    text: str
    marks: list[tuple[str, str]] = field(default_factory=list)

    def mark(self, name: str) -> str | None:
        """What the mark says, None where there is none."""
        return next((text for mark, text in self.marks if mark == name), None)

    @property
    def runs(self) -> bool:
        """Whether it is code that a reader runs."""
        return self.language in ("bash", "python", "pycon") and self.mark("not run") is None

    def __str__(self) -> str:
        return f"{self.page}, line {self.line}"


def blocks_of(path: Path) -> list[Block]:
    """Blocks of a page, or the code cells of a notebook."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        return [
            Block(path.name, number, "python", "".join(cell["source"]))
            for number, cell in enumerate(cells)
            if cell["cell_type"] == "code"
        ]
    found, end = [], 0
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        marks = _MARK.findall(text[end : match.start()])
        found.append(Block(path.name, line, match["language"], match["text"], marks))
        end = match.end()
    return found


def commands_of(block: Block) -> list[str]:
    """The lines of a `bash` block, joined where a backslash continues them, without comments."""
    lines = block.text.replace("\\\n", " ").splitlines()
    code = (line.partition(" #")[0].strip() for line in lines if not line.startswith("#"))
    return [line for line in code if line]


class Missing(Exception):
    """Something that a block needs is not here."""


class Reader:
    """Works through a page in the current folder.

    Parameters
    ----------
    available : callable
        Says of a need whether it is there.
    """

    def __init__(self, available: Any) -> None:
        self.space: dict[str, Any] = {"__name__": "__main__"}
        self.printed = ""
        self.ran = 0
        self._available = available

    def read(self, blocks: list[Block]) -> None:
        """Do what all blocks say, and compare.

        Raises
        ------
        Missing
            At the first block that needs what is not here.
        AssertionError
            If a command fails, or something else comes out than is printed.
        """
        for block in blocks:
            need = block.mark("needs")
            if need and not self._available(need):
                raise Missing(f"{block}: {need}")
            for mark, code in block.marks:
                if mark == "before":
                    self._run("bash" if code.startswith("bacpipe ") else "python", code, block)
            if block.language in ("text", "csv", "yaml"):
                self._look(block)
            elif block.runs:
                self.printed = self._run(block.language, block.text, block)
                self.ran += 1
            elif block.language in ("bash", "python", "pycon", "r"):
                self.printed = ""

    def _run(self, language: str, code: str, block: Block) -> str:
        printed = io.StringIO()
        with _into(printed):
            if language == "bash":
                for command in commands_of(Block(block.page, block.line, "bash", code)):
                    self._command(command, block, printed)
            elif language == "python":
                self._python(code, block)
            else:
                self._session(code, block)
        return printed.getvalue()

    def _command(self, command: str, block: Block, printed: io.StringIO) -> None:
        for place, here in _PLACES.items():
            command = command.replace(place, here)
        words = shlex.split(command)
        if words[0] == "python" and words[1] == "-c":
            exec(compile(words[2], str(block), "exec"), {})
        elif words[0].rpartition("/")[2] == "bacpipe":
            code = bacpipe.__main__.main(words[1:])
            assert code == 0, f"{block}: {command} ends with {code}:\n{printed.getvalue()}"
        else:
            assert _SET_UP.match(command), f"{block}: nobody runs {command!r}"

    def _python(self, code: str, block: Block) -> None:
        comments = _comments(code)
        for statement in ast.parse(code).body:
            shown: list[Any] = []
            before, sys.displayhook = sys.displayhook, functools.partial(_show, shown)
            try:
                single = ast.Interactive([statement])
                exec(compile(single, str(block), "single"), self.space)
            finally:
                sys.displayhook = before
            comment = comments.get(statement.end_lineno or 0, "")
            with contextlib.suppress(ValueError, SyntaxError):
                expected = ast.literal_eval(comment.partition(":")[0])
                if shown:
                    assert _same(shown[-1], expected), f"{block}: {shown[-1]!r}, not {comment}"

    def _session(self, code: str, block: Block) -> None:
        parsed = doctest.DocTestParser().get_doctest(code, self.space, str(block), None, 0)
        report: list[str] = []
        options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        runner = doctest.DocTestRunner(optionflags=options, verbose=False)
        runner.run(parsed, out=report.append, clear_globs=False)
        self.space.update(parsed.globs)
        assert not runner.summarize(verbose=False).failed, "".join(report)

    def _look(self, block: Block) -> None:
        saved, shown = block.mark("saved as"), block.mark("file")
        if saved:
            Path(saved).write_text(block.text, encoding="utf-8")
        elif shown:
            found = sorted(Path().glob(shown))
            assert found, f"{block}: there is no {shown}"
            compare(block, found[0].read_text(encoding="utf-8-sig"))
        elif block.language == "text" and block.mark("not compared") is None and self.printed:
            compare(block, self.printed)


def _show(shown: list[Any], value: Any) -> None:
    if value is not None:
        shown.append(value)
        print(repr(value))


def _same(value: Any, expected: Any) -> bool:
    if isinstance(expected, float):
        return math.isclose(value, expected, abs_tol=5e-3)
    return bool(value == expected)


def compare(block: Block, text: str) -> None:
    """Look for what the page prints, whatever the breaks of lines and the last digits."""
    numbers: list[str] = []

    def number(match: re.Match[str]) -> str:
        numbers.append(match[0])
        return r"(-?\d+\.\d+)"

    # Where the shell does not find this bacpipe by its name, hints give its path.
    text = text.replace(str(Path(sys.executable).with_name("bacpipe")), "bacpipe")
    text, expected = (_VARIES.sub("", words) for words in (text, block.text.strip()))
    expected = re.sub(r"\s+", " ", expected)
    parts = expected.split("...")
    pattern = r"\s?.*?\s?".join(
        re.sub(r"-?\d+\\\.\d{3,}", number, re.escape(part.strip())) for part in parts
    )
    found = re.search(pattern.replace(r"\ ", " "), re.sub(r"\s+", " ", text), re.S)
    assert found and all(
        math.isclose(float(here), float(there.replace("\\", "")), abs_tol=2e-3)
        for here, there in zip(found.groups(), numbers, strict=True)
    ), f"{block} prints\n{block.text}\nbut there comes\n{text}"


def _comments(code: str) -> dict[int, str]:
    """Comments by line."""
    tokens = tokenize.generate_tokens(io.StringIO(code).readline)
    return {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}


@contextlib.contextmanager
def _into(printed: io.StringIO) -> Iterator[None]:
    """What is printed and logged, as a terminal shows it."""
    handler = logging.StreamHandler(printed)
    logger = logging.getLogger("bacpipe")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
