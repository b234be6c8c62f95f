"""``bacpipe doctor``: what this installation can do."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from bacpipe.commands.arguments import add_settings, read_settings


def run(arguments: Sequence[str]) -> int:
    """Print the report; 1 when something has to be done."""
    parser = argparse.ArgumentParser(
        prog="bacpipe doctor",
        description="Print versions, devices, extras, weights, disk space and the result of a "
        "tiny self-test, ready to paste into a bug report.",
    )
    add_settings(parser)
    settings = read_settings(parser.parse_args(arguments))
    from bacpipe.doctor import examine, report

    findings = examine(**settings)
    print(report(findings))  # noqa: T201
    return int(any(finding.problem for finding in findings))
