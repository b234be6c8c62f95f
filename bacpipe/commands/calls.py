"""``bacpipe calls``: the single calls of bats in recordings, as a table."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from bacpipe.commands.arguments import HelpFormatter, add_settings, parse_words, read_settings
from bacpipe.errors import SettingsError


def run(arguments: Sequence[str]) -> int:
    """Find the calls, and say where the table is."""
    parser = argparse.ArgumentParser(
        prog="bacpipe calls",
        description="Find the single calls in the recordings of audio_dir with a model that "
        "detects them, and write a table: start, end, lowest and highest frequency, species and "
        "scores of each. The table appears when it is whole.",
        epilog="example:  bacpipe calls audio_dir=/data/bats",
        formatter_class=HelpFormatter,
    )
    parser.add_argument(
        "--model", default="batdetect2_dets_avg", help="the detector (default: %(default)s)"
    )
    add_settings(parser)
    parsed = parser.parse_intermixed_args(arguments)
    settings = read_settings(parsed)
    if "models" in parse_words(parsed.words):
        raise SettingsError("calls takes one model; expected --model NAME instead of models=...")
    from bacpipe.workflows import detect_calls

    table = detect_calls(model_name=parsed.model, **settings)
    print(f"The calls are in {table}.")  # noqa: T201
    return 0
