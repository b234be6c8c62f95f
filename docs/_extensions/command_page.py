"""The reference of the command line: what ``--help`` prints."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
from unittest import mock

from bacpipe.__main__ import main
from bacpipe.commands import COMMANDS

_INTRODUCTION = """\
# Command line

`bacpipe` and `python -m bacpipe` are the same. Every key of the [settings](settings.md) can be
given as `key=value`.

The exit code is 0 when the job was done, 1 when it was not, 2 for a mistake in the command line
or the settings, 3 when single recordings failed and `strict` is set, and 130 after Ctrl-C.
"""


def page() -> str:
    """Markdown of the page, with a section for each command."""
    sections = [_INTRODUCTION, _section("bacpipe", _help_of([]))]
    for name in COMMANDS:
        importlib.import_module(f"bacpipe.commands.{name}")
        sections.append(_section(f"bacpipe {name}", _help_of([name])))
    return "\n".join(sections)


def _section(command: str, text: str) -> str:
    return f"## {command}\n\n```text\n{text.rstrip()}\n```\n"


def _help_of(words: list[str]) -> str:
    printed = io.StringIO()
    # argparse breaks lines by the width of the terminal, which must not change the page.
    with (
        mock.patch.dict(os.environ, {"COLUMNS": "88", "NO_COLOR": "1"}),
        contextlib.redirect_stdout(printed),
        contextlib.suppress(SystemExit),
    ):
        main([*words, "--help"])
    return printed.getvalue()
